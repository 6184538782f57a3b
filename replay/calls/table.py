"""Calls as columns: the table that all layers above read, and how joined lines become its rows.

In go rows of fields as the lines of either dialect print them, out come `Calls`, results and errors made one thing. How
lines belong together is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.calls.split_calls import Rows, null_of
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Struct
from replay.lines.templates import KIND_CODE
from replay.linux.constants import (
    CALL_CODE,
    CHILD_ENDED,
    EXEC_NOTICE,
    EXITED,
    KILLED,
    PID_CHANGED,
    PSEUDO,
    RLIM_INFINITY,
    SEEN,
    SUPERSEDED,
)
from replay.logs.dialect import DIALECTS
from replay.logs.files import Log

OK: Final = 0
FAILED: Final = 1
UNFINISHED: Final = 2
"""What became of a call; unfinished is one whose result was never seen."""

_HIGHEST_ERRNO: Final = 4095
"""The kernel returns errors as values from -4095 to -1. Source: include/linux/err.h, MAX_ERRNO."""


class Calls(Struct):
    """Calls in completion order, and between them the tracer's notices; one entry a row in every column.

    Null numbers are `NULL`, null texts `NO_TEXT`. `clock` and `entry_clock` are lines of the log for one file, places
    in the merged order for several; a call that was never closed stands at the end with the log's last line. `pid` is
    the printed one, of either half of a split call. Of prlimit, `new_addr` is the process that it names.
    `aux` and `aux2` hold, by call:

    | call | aux | aux2 |
    |---|---|---|
    | prlimit | new soft limit (2**63-1: infinite), null if none is set; the old one is `length` | resource |
    | shmat, shmget, shmctl | shmid | op |
    | prctl, mallopt, fcntl | op | arg2, new_fd |
    | pkey_mprotect | pkey | |
    | remap_file_pages | pgoff | |
    | dup2, dup3, close_range | new_fd, last_fd | |
    | calloc, reallocarray | count | size |
    | posix_memalign, aligned_alloc, memalign, new | align | |
    | exit, exit_group, EXITED | exit status | |
    | execve | the thread that called it, where it ended in another | |
    | SUPERSEDED, PID_CHANGED, CHILD_ENDED | the pid named | |
    | io_setup | nr_events | |
    | bpf | op | |
    """

    clock: Int64Array
    entry_clock: Int64Array
    line: Int64Array
    entry_line: Int64Array
    file: Int64Array
    pid: Int64Array
    time_ns: Int64Array
    duration_ns: Int64Array
    call: Int64Array
    name: Int64Array
    addr: Int64Array
    length: Int64Array
    old_length: Int64Array
    prot: Int64Array
    flags: Int64Array
    fd: Int64Array
    offset: Int64Array
    new_addr: Int64Array
    result: Int64Array
    errno: Int64Array
    status: Int64Array
    injected: Int64Array
    path: Int64Array
    result_path: Int64Array
    caller: Int64Array
    aux: Int64Array
    aux2: Int64Array
    dialect: Int64Array

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.clock)

    def take(self, rows: Int64Array | NDArray[np.bool_] | slice) -> Calls:
        """Return the chosen rows in the given order."""
        return Calls(*(getattr(self, name)[rows] for name in COLUMNS))


COLUMNS: Final = tuple(Calls.__annotations__)

_AUX: Final = {
    "prlimit": ("rlim_cur", "resource"),
    "shmat": ("shmid", ""),
    "shmget": ("shmid", ""),
    "shmctl": ("shmid", "op"),
    "prctl": ("op", "arg2"),
    "mallopt": ("op", "arg2"),
    "fcntl": ("op", "new_fd"),
    "pkey_mprotect": ("pkey", ""),
    "remap_file_pages": ("pgoff", ""),
    "dup2": ("new_fd", ""),
    "dup3": ("new_fd", ""),
    "close_range": ("last_fd", ""),
    "calloc": ("count", "size"),
    "reallocarray": ("count", "size"),
    "posix_memalign": ("align", ""),
    "aligned_alloc": ("align", ""),
    "memalign": ("align", ""),
    "new": ("align", ""),
    "new[]": ("align", ""),
    "exit": ("exit_status", ""),
    "exit_group": ("exit_status", ""),
    "io_setup": ("nr_events", ""),
    "bpf": ("op", ""),
    "execve": ("from_pid", ""),
    "execveat": ("from_pid", ""),
}

_PSEUDO_OF_KIND: Final = {
    KIND_CODE["exited"]: EXITED,
    KIND_CODE["killed"]: KILLED,
    KIND_CODE["superseded"]: SUPERSEDED,
    KIND_CODE["exec"]: EXEC_NOTICE,
    KIND_CODE["pid_changed"]: PID_CHANGED,
    KIND_CODE["child_ended"]: CHILD_ENDED,
    KIND_CODE["seen"]: SEEN,
}
_OPENED, _DETACHED = KIND_CODE["opened"], KIND_CODE["detached"]

_AUX_OF_CODE: Final = {CALL_CODE[name]: sources for name, sources in _AUX.items()} | {
    EXITED: ("exit_status", ""),
    SUPERSEDED: ("to_pid", ""),
    PID_CHANGED: ("to_pid", ""),
    CHILD_ENDED: ("to_pid", ""),
}


def concatenated(batches: Iterable[Calls]) -> Calls:
    """Return all batches as one."""
    parts = [part for part in batches if len(part)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Calls(*[np.zeros(0, dtype=np.int64)] * len(COLUMNS))
    return Calls(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


def calls_of(rows: Rows, log: Log) -> Calls:
    """Return joined rows as calls: results and errors made one, status told, the columns of each call in place.

    A column of one number all over is there but once, and is not to be written to.
    """
    count = len(rows["kind"])

    def column(key: str) -> Int64Array:
        return rows[key] if key in rows else same(null_of(key))

    def same(number: int) -> Int64Array:
        return np.broadcast_to(np.int64(number), count)

    pseudo = _PSEUDO[rows["kind"]]
    call = np.where(pseudo > 0, pseudo, rows["call"])
    traits = _TRAITS[call]
    pid = column("pid")
    if log.pid is not None:
        pid = np.where(pid == NULL, log.pid, pid)
    length = _lengths(rows, traits, column)
    if "resource" in rows:
        length = np.where(call == CALL_CODE["prlimit"], _limits(length), length)
    result, errno = _results(rows, traits, column)
    aux, aux2 = _auxiliary(rows, call)
    return Calls(
        clock=rows["line"],
        entry_clock=rows["entry_line"],
        line=rows["line"],
        entry_line=rows["entry_line"],
        file=same(log.index),
        pid=pid,
        time_ns=column("time"),
        duration_ns=column("duration"),
        call=call,
        name=rows["name"],
        addr=column("addr"),
        length=length,
        old_length=column("old_length"),
        prot=column("prot"),
        flags=column("flags"),
        fd=_descriptors(column("fd")),
        offset=_offsets(rows, column, log),
        new_addr=_new_addresses(call, column),
        result=result,
        errno=errno,
        status=_status(rows, traits, result, errno, length),
        injected=(rows["injected"] == 1).astype(np.int64) if "injected" in rows else same(0),
        path=column("path"),
        result_path=column("result_path"),
        caller=column("caller"),
        aux=aux,
        aux2=aux2,
        dialect=rows["dialect"],
    )


Column: TypeAlias = Callable[[str], Int64Array]
Traits: TypeAlias = NDArray[np.uint8]

_RETURNS_ADDRESS, _ALLOCATES, _LIBRARY, _COUNTED, _POSIX_MEMALIGN, _EXITS, _NO_CALL = (1 << bit for bit in range(7))
_CALLS_OF_TRAIT: Final = {
    _RETURNS_ADDRESS: "brk mmap mremap shmat",
    _ALLOCATES: "malloc calloc realloc reallocarray aligned_alloc memalign valloc pvalloc strdup strndup new new[]",
    _LIBRARY: " ".join(name for name, code in CALL_CODE.items() if code >= CALL_CODE["malloc"]),
    _COUNTED: "calloc reallocarray",
    _POSIX_MEMALIGN: "posix_memalign",
    _EXITS: "exit exit_group",
}


def _traits() -> Traits:
    """Return for each code of a call what is special about its results, as a union of bits."""
    traits = np.zeros(max(_PSEUDO_OF_KIND.values()) + 1, dtype=np.uint8)
    traits[PSEUDO:] = _NO_CALL
    for trait, names in _CALLS_OF_TRAIT.items():
        for name in names.split():
            traits[CALL_CODE[name]] |= trait
    return traits


_TRAITS: Final = _traits()
_PSEUDO: Final = np.array([_PSEUDO_OF_KIND.get(kind, 0) for kind in range(len(KIND_CODE))], dtype=np.int64)
_LTRACE: Final = DIALECTS.index("ltrace")
_MMAP2_UNIT: Final = 4096


def _results(rows: Rows, traits: Traits, column: Column) -> tuple[Int64Array, Int64Array]:
    """Return results and errnos: a failed system call's result is -1 in both dialects, 0 stands for no error."""
    result, errno = column("result"), column("errno")
    result, errno = result.copy(), np.where(errno == NULL, 0, errno)
    # before 4.10 a 64-bit strace sign-extended the addresses of 32-bit tracees: 0xfffffffff7fe4000
    extended = (result < -_HIGHEST_ERRNO) & (result >= -(1 << 31)) & (traits & _RETURNS_ADDRESS != 0)
    system = (rows["dialect"] == _LTRACE) & (traits & _LIBRARY == 0)
    if system.any():
        failed = system & (result >= -_HIGHEST_ERRNO) & (result < 0)
        # a 32-bit tracee's error, printed as an unsigned number
        failed32 = system & (result >= (1 << 32) - _HIGHEST_ERRNO) & (result < 1 << 32)
        errno = np.where(failed, -result, np.where(failed32, (1 << 32) - result, errno))
        result[failed | failed32] = -1
    result[extended] &= (1 << 32) - 1
    refused = (traits & _POSIX_MEMALIGN != 0) & (result > 0)
    return result, np.where(refused, result, errno)


def _status(rows: Rows, traits: Traits, result: Int64Array, errno: Int64Array, length: Int64Array) -> Int64Array:
    """Return what became of each call; exits have no result and are ok."""
    kind = rows["kind"]
    open_ = (kind == _OPENED) | (kind == _DETACHED)
    if "unknown_result" in rows:
        open_ |= rows["unknown_result"] == 1
    status = np.where(open_, UNFINISHED, OK)
    strace = rows["dialect"] != _LTRACE
    refused = (traits & _ALLOCATES != 0) & (result == 0) & (length != 0)
    status[(errno != 0) | (strace & (result == -1)) | refused] = FAILED
    status[(traits & _NO_CALL != 0) | ((traits & _EXITS != 0) & (kind != _DETACHED))] = OK
    return status


def _lengths(rows: Rows, traits: Traits, column: Column) -> Int64Array:
    """Return the lengths in bytes; those of calloc and reallocarray are products, 2**64-1 where that is too long."""
    length = column("length")
    if "count" not in rows or "size" not in rows:
        return length
    count, size = rows["count"], rows["size"]
    product = (traits & _COUNTED != 0) & (count != NULL) & (size != NULL)
    if not product.any():
        return length
    estimate = count.view(np.uint64).astype(np.float64) * size.view(np.uint64).astype(np.float64)
    return np.where(product, np.where(estimate >= 2.0**64, -1, count * size), length)


def _descriptors(fd: Int64Array) -> Int64Array:
    """Return descriptors as the int that the kernel takes: raw, -1 is 0xffffffff, and an upper half counts not.

    Source: include/linux/syscalls.h: arguments of 32 bits are cut to them.
    """
    wide = ((fd >= 1 << 31) | (fd < -(1 << 31))) & (fd != NULL)
    return np.where(wide, ((fd + (1 << 31)) & 0xFFFFFFFF) - (1 << 31), fd) if wide.any() else fd


def _offsets(rows: Rows, column: Column, log: Log) -> Int64Array:
    """Return offsets in bytes: mmap2's is in pages where all arguments are raw, and in the whole of some logs."""
    offset = column("offset")
    if "mmap2" not in rows:
        return offset
    in_pages = rows["mmap2"] == 1 if log.mmap2_in_pages else rows["raw"] == 1 if "raw" in rows else False
    return np.where(in_pages & (offset != NULL), offset * _MMAP2_UNIT, offset)


def _new_addresses(call: Int64Array, column: Column) -> Int64Array:
    """Return the new addresses, of prlimit the process that it names."""
    limits = call == CALL_CODE["prlimit"]
    return np.where(limits, _descriptors(column("to_pid")), column("new_addr")) if limits.any() else column("new_addr")


def _auxiliary(rows: Rows, call: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the two columns whose meaning depends on the call."""
    aux, aux2 = (np.full(len(call), NULL, dtype=np.int64) for _ in range(2))
    present = set(np.flatnonzero(np.bincount(call)).tolist()) if len(call) else set()
    for code in present & _AUX_OF_CODE.keys():
        of_call = np.flatnonzero(call == code)
        for values, source in zip((aux, aux2), _AUX_OF_CODE[code], strict=True):
            if source in rows:
                known = rows[source][of_call]
                values[of_call] = _descriptors(known) if source in ("new_fd", "last_fd") else known
    limits = call == CALL_CODE["prlimit"]
    return np.where(limits, _limits(aux), aux) if limits.any() else aux, aux2


def _limits(limit: Int64Array) -> Int64Array:
    """Return limits in bytes, those that say "none" by a number (2**64 - 1) as those that say it by name."""
    return np.where((limit < 0) & (limit != NULL), RLIM_INFINITY, limit)
