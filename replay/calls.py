"""Calls as columns, in the order in which they completed: split lines joined, results made one thing in both dialects.

In go the columns of lines, out come batches of `Calls`. Which process a thread belongs to, and what a call does to
memory, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.constants import CALL_CODE, CLONE, EXEC_NOTICE, EXITED, KILLED, PID_CHANGED, PSEUDO, SUPERSEDED
from replay.shapes import Counters, LineColumns, Shapes
from replay.source import Chunk, Log, Notice, Problems, find_logs, read_chunks
from replay.templates import DIALECTS, KIND_CODE

Rows: TypeAlias = dict[str, Int64Array]
"""Columns of one length by name; a field that no row has may be missing."""

OK: Final = 0
FAILED: Final = 1
UNFINISHED: Final = 2
"""What became of a call; unfinished is one whose result was never seen."""

TEXTS: Final = ("path", "result_path", "caller")

_HIGHEST_ERRNO: Final = 4095
"""The kernel returns errors as values from -4095 to -1. Source: include/linux/err.h, MAX_ERRNO."""


@dataclass(slots=True)
class Calls:
    """Calls in completion order, and between them the tracer's notices; one entry a row in every column.

    Null numbers are `NULL`, null texts `NO_TEXT`. `clock` and `entry_clock` are lines of the log for one file, places
    in the merged order for several; a call that was never closed stands at the end with the log's last line. `pid` is
    the printed one, of either half of a split call. `aux` and `aux2` hold, by call:

    | call | aux | aux2 |
    |---|---|---|
    | prlimit | new soft limit (2**63-1: infinite), null if none is set | resource |
    | shmat, shmget, shmctl | shmid | op |
    | prctl, fcntl | op | arg2, new_fd |
    | pkey_mprotect | pkey | |
    | remap_file_pages | pgoff | |
    | dup2, dup3, close_range | new_fd, last_fd | |
    | calloc, reallocarray | count | size |
    | posix_memalign, aligned_alloc, memalign, new | align | |
    | exit, exit_group, EXITED | exit status | |
    | execve | the thread that called it, where it ended in another | |
    | SUPERSEDED, PID_CHANGED | the pid named | |
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

    def take(self, rows: Int64Array | NDArray[np.bool_]) -> Calls:
        """Return the chosen rows in the given order."""
        return Calls(*(getattr(self, name)[rows] for name in COLUMNS))


COLUMNS: Final = tuple(f.name for f in fields(Calls))

_AUX: Final = {
    "prlimit": ("rlim_cur", "resource"),
    "shmat": ("shmid", ""),
    "shmget": ("shmid", ""),
    "shmctl": ("shmid", "op"),
    "prctl": ("op", "arg2"),
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
    "execve": ("from_pid", ""),
    "execveat": ("from_pid", ""),
}

_PSEUDO_OF_KIND: Final = {
    KIND_CODE["exited"]: EXITED,
    KIND_CODE["killed"]: KILLED,
    KIND_CODE["superseded"]: SUPERSEDED,
    KIND_CODE["exec"]: EXEC_NOTICE,
    KIND_CODE["pid_changed"]: PID_CHANGED,
}

_CALL, _OPENED, _CLOSED, _DETACHED, _PID_CHANGED, _FRAME, _NOTICE = (
    KIND_CODE[k] for k in ("call", "opened", "closed", "detached", "pid_changed", "frame", "notice")
)
_ENDS: Final = (KIND_CODE["exited"], KIND_CODE["killed"])
_EXITS: Final = (CALL_CODE["exit"], CALL_CODE["exit_group"])
_EXECS: Final = (CALL_CODE["execve"], CALL_CODE["execveat"])
_FORKS: Final = tuple(CALL_CODE[name] for name in ("fork", "vfork", "clone", "clone3"))


def concatenated(batches: Iterable[Calls]) -> Calls:
    """Return all batches as one."""
    parts = list(batches)
    empty = np.zeros(0, dtype=np.int64)
    return Calls(*(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in COLUMNS))


# ---- joining ----


@dataclass(slots=True)
class Joiner:
    """Joins the halves of split calls over the chunks of one log, in which `open` are the calls not closed so far."""

    file: int = 0
    open: Rows = field(default_factory=dict)

    def joined(self, rows: Rows) -> Rows:
        """Return the calls that completed in `rows`, and the notices, in order; keep those that stay open."""
        rows = _stacked([self.open, rows]) if self.open else rows
        opening = (rows["kind"] == _OPENED) | (rows["kind"] == _PID_CHANGED)
        closing = rows["kind"] == _CLOSED
        if not (opening.any() or closing.any()):
            return rows
        changed = rows["kind"] == _PID_CHANGED
        rows["from_pid"] = np.where(changed, rows["pid"], rows.get("from_pid", _nulls(rows)))
        effective = np.where(changed, rows.get("to_pid", _nulls(rows)), rows["pid"])
        openers, closers = _pairs(effective, rows["call"], opening, closing)
        if "reopened" in rows:
            openers, closers = _with_first_halves(rows, openers, closers, opening)
        _merge_halves(rows, openers, closers, effective)
        left = opening.copy()
        left[openers] = False
        shown = ~opening | (changed & (rows["carried"] == 0))
        order = np.flatnonzero(shown)
        if (left & np.isin(rows["call"], _EXITS)).any():
            order = _with_ended_exits(rows, left, order)
        self.open = _chosen(rows, np.flatnonzero(left))
        self.open["carried"] = np.ones(int(left.sum()), dtype=np.int64)
        return _chosen(rows, order)

    def never_closed(self) -> Rows:
        """Return the calls that were never closed, in the order in which they were opened."""
        rows, self.open = self.open, {}
        return _chosen(rows, np.flatnonzero(rows["reopened"] != 1)) if "reopened" in rows else rows


def _with_first_halves(
    rows: Rows, openers: Int64Array, closers: Int64Array, opening: NDArray[np.bool_]
) -> tuple[Int64Array, Int64Array]:
    """Return the pairs, and behind them those of first halves whose second halves were cut once more.

    The second half of such a call reads `<... restart_syscall resumed> <unfinished ...>`.
    """
    left = opening.copy()
    left[openers] = False
    first = np.flatnonzero(left & (rows["reopened"] != 1))
    more: list[tuple[int, int]] = []
    for opener, closer in zip(openers.tolist(), closers.tolist(), strict=True):
        if rows["reopened"][opener] == 1:
            same = (rows["pid"][first] == rows["pid"][opener]) & (rows["call"][first] == rows["call"][opener])
            before = first[same & (first < opener)]
            more += [(int(before[-1]), closer)] if len(before) else []
    return np.append(openers, [o for o, _ in more]).astype(np.int64), np.append(closers, [c for _, c in more]).astype(
        np.int64
    )


def _with_ended_exits(rows: Rows, left: NDArray[np.bool_], order: Int64Array) -> Int64Array:
    """Return `order` with each exit that stayed open put right before the notice that its thread ended."""
    ends: dict[int, int] = {}
    for place in np.flatnonzero(np.isin(rows["kind"], _ENDS)).tolist():
        ends[int(rows["pid"][place])] = place
    inserted = []
    for place in np.flatnonzero(left & np.isin(rows["call"], _EXITS)).tolist():
        end = ends.get(int(rows["pid"][place]), -1)
        if end > place:
            left[place] = False
            rows["line"][place] = rows["line"][end]
            rows["kind"][place] = _CLOSED
            inserted.append((end, place))
    where = np.searchsorted(order, np.array([end for end, _ in inserted], dtype=np.int64))
    return np.insert(order, where, np.array([place for _, place in inserted], dtype=np.int64))


def _nulls(rows: Rows) -> Int64Array:
    """Return a column of nulls as long as the others."""
    return np.full(len(rows["kind"]), NULL, dtype=np.int64)


def _null_of(key: str) -> int:
    """Return the null of a column."""
    return NO_TEXT if key in TEXTS else NULL


def _stacked(parts: list[Rows]) -> Rows:
    """Return several row sets as one, with nulls where one lacks a column."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {
        key: np.concatenate(
            [part.get(key, np.full(len(part["kind"]), _null_of(key), dtype=np.int64)) for part in parts if part]
        )
        for key in keys
    }


def _chosen(rows: Rows, index: Int64Array) -> Rows:
    """Return the rows at `index`."""
    return {key: column[index] for key, column in rows.items()}


def _pairs(
    pid: Int64Array, call: Int64Array, opening: NDArray[np.bool_], closing: NDArray[np.bool_]
) -> tuple[Int64Array, Int64Array]:
    """Return the places of the lines that open calls and of those that close them, pairwise.

    Calls of one pid nest like brackets (in strace to a depth of one). What then is left over is paired line by line:
    strace prints no pid while one tracee is alive, so that one half of a pair may lack it.
    """
    place = np.flatnonzero(opening | closing)
    opens = opening[place]
    order = np.argsort(pid[place], kind="stable")
    step = np.where(opens[order], 1, -1)
    depth = np.cumsum(step)
    level = depth - (step + 1) // 2
    by_level = order[np.lexsort((np.arange(len(order)), level, pid[place][order]))]
    level_sorted = np.empty(len(order), dtype=np.int64)
    level_sorted[order] = level
    a, b = by_level[:-1], by_level[1:]
    paired = opens[a] & ~opens[b] & (pid[place[a]] == pid[place[b]]) & (level_sorted[a] == level_sorted[b])
    paired &= call[place[a]] == call[place[b]]
    openers, closers = place[a[paired]], place[b[paired]]
    left = np.ones(len(place), dtype=bool)
    left[a[paired]] = False
    left[b[paired]] = False
    if not (left & ~opens).any():
        return openers, closers
    more = _left_over_pairs(place[left].tolist(), opens[left].tolist(), pid, call)
    return np.append(openers, [o for o, _ in more]).astype(np.int64), np.append(closers, [c for _, c in more]).astype(
        np.int64
    )


def _left_over_pairs(places: list[int], opens: list[bool], pid: Int64Array, call: Int64Array) -> list[tuple[int, int]]:
    """Pair what brackets do not, the latest open call of the same name first; a missing pid matches any."""
    pending: list[int] = []
    pairs: list[tuple[int, int]] = []
    for place, is_open in zip(places, opens, strict=True):
        if is_open:
            pending.append(place)
            continue
        same = [p for p in pending if call[p] == call[place]]
        fitting = [p for p in same if pid[p] == pid[place]] or [
            p for p in same if NULL in (int(pid[p]), int(pid[place]))
        ]
        if fitting:
            pairs.append((fitting[-1], place))
            pending.remove(fitting[-1])
    return pairs


def _merge_halves(rows: Rows, openers: Int64Array, closers: Int64Array, pid: Int64Array) -> None:
    """Give each closing row what its opening row says and it does not, and the opening's place, name and time.

    `pid` is that of each opened call's end: not the printed one for an execve that ends in another thread.
    """
    for key, column in rows.items():
        if key in ("kind", "line", "carried", "call", "dialect", "reopened"):
            continue
        if key in ("entry_line", "name", "time", "from_pid"):
            known = column[openers] != NULL
            column[closers[known]] = column[openers[known]]
        else:
            missing = column[closers] == _null_of(key)
            source = pid if key == "pid" else column
            column[closers[missing]] = source[openers[missing]]
    same = rows["from_pid"][closers] == rows["pid"][closers]
    rows["from_pid"][closers[same]] = NULL


# ---- from lines to calls ----


@dataclass(slots=True)
class Reading:
    """One log while it is read: its shapes, its open calls, and how much time has gone by."""

    log: Log
    shapes: Shapes
    notices: list[Notice]
    joiner: Joiner = field(default_factory=Joiner)
    elapsed_ns: int = 0
    last_line: int = 0

    def batch(self, chunk: Chunk) -> Calls:
        """Return the calls that complete in a chunk."""
        columns = self.shapes.columns(chunk)
        if (
            self.log.pid is not None
            and (columns.numbers.get("pid", columns.kind) != NULL).any()
            and "pid" in columns.numbers
        ):
            self.log.pid = None  # no file of a -ff set: its lines say whose they are
        rows = self._rows(chunk, columns)
        self.last_line = int(chunk.line[-1]) if len(chunk.line) else self.last_line
        return _calls(self.joiner.joined(rows), self.log, self.shapes.strings)

    def rest(self) -> Calls:
        """Return the calls that never completed; their line is the last one of the log."""
        rows = self.joiner.never_closed()
        if not rows or not len(rows["kind"]):
            return concatenated([])
        rows["line"] = np.full(len(rows["kind"]), self.last_line, dtype=np.int64)
        rows["kind"] = np.full(len(rows["kind"]), _OPENED, dtype=np.int64)
        return _calls(rows, self.log, self.shapes.strings)

    def _rows(self, chunk: Chunk, columns: LineColumns) -> Rows:
        """Return the rows of the lines that are calls or ends of processes, with caller and time."""
        numbers = dict(columns.numbers)
        if "time" not in numbers and "relative" in numbers:
            self.log.relative = True
            numbers["time"] = self._elapsed(chunk)[columns.row]
        numbers.pop("relative", None)
        self._note(chunk, columns)
        rows: Rows = {
            "kind": columns.kind,
            "line": columns.line,
            "entry_line": columns.entry_line,
            "call": columns.call,
            "name": columns.name,
            "dialect": columns.dialect,
            "pid": np.full(len(columns.kind), NULL, dtype=np.int64),
            "carried": np.zeros(len(columns.kind), dtype=np.int64),
        } | numbers
        rows |= {key: columns.texts[key] for key in TEXTS if key in columns.texts}
        if (columns.kind == _FRAME).any():
            rows["caller"] = _callers(columns, rows.get("caller"), self.shapes.strings)
        wanted = (columns.kind <= KIND_CODE["superseded"]) | (columns.kind == KIND_CODE["exec"])
        return _chosen(rows, np.flatnonzero(wanted))

    def _note(self, chunk: Chunk, columns: LineColumns) -> None:
        """Keep what the tracer said about processes: attached, detached, how wide their words are."""
        self.notices += [replace(notice, file=self.log.index) for notice in chunk.notices]
        if "bits" in columns.numbers:
            for row in np.flatnonzero(columns.kind == _NOTICE).tolist():
                pid, bits = int(columns.numbers["to_pid"][row]), int(columns.numbers["bits"][row])
                self.notices.append(Notice(int(columns.line[row]), pid, f"{bits} bit", self.log.index))

    def _elapsed(self, chunk: Chunk) -> Int64Array:
        """Return for each line the nanoseconds since the log began: the sum of what `-r` prints."""
        steps = [_relative_ns(line) for line in chunk.data.split(b"\n")[:-1]]
        elapsed = np.cumsum(np.array(steps, dtype=np.int64)) + self.elapsed_ns
        self.elapsed_ns = int(elapsed[-1])
        return elapsed


_RELATIVE: Final = re.compile(
    rb"(?:\[pid[^\]]*\] |[0-9]{1,8}(?:<[^>]*>)? (?= *[0-9]+(?:\.[0-9]+)? ))? *([0-9]+)(?:\.([0-9]{1,9}))? (?=\S)"
)


def _relative_ns(line: bytes) -> int:
    """Return the nanoseconds that a line of `-r` says have gone by since the line before."""
    match = _RELATIVE.match(line)
    if match is None:
        return 0
    fraction = match[2] or b""
    return int(match[1]) * 1_000_000_000 + int(fraction.ljust(9, b"0"))


_LIBC: Final = re.compile(r"(?:^|/)(?:libc[.-]|ld-musl|libc\.musl)")


def _callers(columns: LineColumns, caller: Int64Array | None, strings: Strings) -> Int64Array:
    """Return for each line what called it: the symbol of the first frame of the libc among the stack frames behind it.

    Without such a frame, or such a symbol, it is the name of the first frame's module.
    """
    callers = np.full(len(columns.kind), NO_TEXT, dtype=np.int64) if caller is None else caller.copy()
    is_frame = columns.kind == _FRAME
    index = np.arange(len(is_frame))
    owner = np.maximum.accumulate(np.where(is_frame, -1, index))
    frame = np.flatnonzero(is_frame & (owner >= 0))
    frame = frame[columns.line[frame] - columns.line[owner[frame]] == frame - owner[frame]]
    module = columns.texts.get("frame_module", np.full(len(is_frame), NO_TEXT))
    symbol = columns.texts.get("frame_symbol", np.full(len(is_frame), NO_TEXT))
    frame = frame[module[frame] != NO_TEXT]
    libc = {m: _LIBC.search(strings[m]) is not None for m in np.unique(module[frame]).tolist()}
    of_libc = frame[np.array([libc[m] for m in module[frame].tolist()], dtype=bool)]
    short = {m: strings.intern(strings[m].rpartition("/")[2]) for m in libc}
    module_name = np.array([short.get(m, NO_TEXT) for m in module.tolist()], dtype=np.int64)
    named = np.where(symbol[of_libc] == NO_TEXT, module_name[of_libc], symbol[of_libc])
    callers[owner[frame[::-1]]] = module_name[frame[::-1]]
    callers[owner[of_libc[::-1]]] = named[::-1]
    return callers


def _calls(rows: Rows, log: Log, strings: Strings) -> Calls:
    """Return joined rows as calls: results and errors made one, status told, the columns of each call in place."""
    count = len(rows["kind"])

    def column(key: str) -> Int64Array:
        return rows[key] if key in rows else np.full(count, _null_of(key), dtype=np.int64)

    call = column("call").copy()
    for kind, pseudo in _PSEUDO_OF_KIND.items():
        call[rows["kind"] == kind] = pseudo
    pid = column("pid")
    if log.pid is not None:
        pid = np.where(pid == NULL, log.pid, pid)
    result, errno = _results(rows, call, column)
    aux, aux2 = _auxiliary(call, column)
    return Calls(
        clock=rows["line"],
        entry_clock=rows["entry_line"],
        line=rows["line"],
        entry_line=rows["entry_line"],
        file=np.full(count, log.index, dtype=np.int64),
        pid=pid,
        time_ns=column("time"),
        duration_ns=column("duration"),
        call=call,
        name=rows["name"],
        addr=column("addr"),
        length=_lengths(call, column),
        old_length=column("old_length"),
        prot=column("prot"),
        flags=column("flags"),
        fd=_descriptors(column("fd")),
        offset=_offsets(column),
        new_addr=np.where(call == CALL_CODE["prlimit"], column("to_pid"), column("new_addr")),
        result=result,
        errno=errno,
        status=_status(rows, call, result, errno, column),
        injected=(column("injected") == 1).astype(np.int64),
        path=column("path"),
        result_path=column("result_path"),
        caller=column("caller"),
        aux=aux,
        aux2=aux2,
        dialect=rows["dialect"],
    )


Column: TypeAlias = Callable[[str], Int64Array]

_ADDRESS_RESULTS: Final = tuple(CALL_CODE[name] for name in ("brk", "mmap", "mremap", "shmat"))
_ALLOCATIONS: Final = tuple(
    CALL_CODE[name]
    for name in (
        "malloc calloc realloc reallocarray aligned_alloc memalign valloc pvalloc strdup strndup new new[]".split()
    )
)
_POSIX_MEMALIGN: Final = CALL_CODE["posix_memalign"]
_LTRACE: Final = DIALECTS.index("ltrace")
_LIBRARY_CALLS: Final = tuple(range(CALL_CODE["malloc"], len(CALL_CODE)))
_MMAP2_UNIT: Final = 4096
_CLONE_VFORK: Final = CLONE["CLONE_VFORK"]


def _results(rows: Rows, call: Int64Array, column: Column) -> tuple[Int64Array, Int64Array]:
    """Return results and errnos: a failed system call's result is -1 in both dialects, 0 stands for no error."""
    result, errno = column("result").copy(), column("errno").copy()
    ltrace = rows["dialect"] == _LTRACE
    system = ltrace & ~np.isin(call, _LIBRARY_CALLS)
    failed = system & (result >= -_HIGHEST_ERRNO) & (result < 0)
    # a 32-bit tracee's error, printed as an unsigned number
    failed32 = system & (result >= (1 << 32) - _HIGHEST_ERRNO) & (result < 1 << 32)
    errno = np.where(failed, -result, np.where(failed32, (1 << 32) - result, errno))
    result[failed | failed32] = -1
    # before 4.10 a 64-bit strace sign-extended the addresses of 32-bit tracees: 0xfffffffff7fe4000
    extended = np.isin(call, _ADDRESS_RESULTS) & (result < -_HIGHEST_ERRNO) & (result >= -(1 << 31))
    result[extended] &= (1 << 32) - 1
    refused = (call == _POSIX_MEMALIGN) & (result > 0)
    errno = np.where(refused, result, errno)
    return result, np.where(errno == NULL, 0, errno)


def _status(rows: Rows, call: Int64Array, result: Int64Array, errno: Int64Array, column: Column) -> Int64Array:
    """Return what became of each call; exits have no result and are ok."""
    open_ = np.isin(rows["kind"], (_OPENED, _DETACHED)) | (column("unknown_result") == 1)
    status = np.where(open_, UNFINISHED, OK)
    strace = rows["dialect"] != _LTRACE
    refused = np.isin(call, _ALLOCATIONS) & (result == 0) & (_lengths(call, column) != 0)
    status[(errno != 0) | (strace & (result == -1)) | refused] = FAILED
    status[(call >= PSEUDO) | (np.isin(call, _EXITS) & ~np.isin(rows["kind"], (_DETACHED,)))] = OK
    return status


def _lengths(call: Int64Array, column: Column) -> Int64Array:
    """Return the lengths in bytes; those of calloc and reallocarray are products, 2**64-1 where that is too long."""
    length = column("length")
    count, size = column("count"), column("size")
    product = np.isin(call, (CALL_CODE["calloc"], CALL_CODE["reallocarray"])) & (count != NULL) & (size != NULL)
    if not product.any():
        return length
    estimate = count.view(np.uint64).astype(np.float64) * size.view(np.uint64).astype(np.float64)
    return np.where(product, np.where(estimate >= 2.0**64, -1, count * size), length)


def _descriptors(fd: Int64Array) -> Int64Array:
    """Return descriptors as the int they are: in raw output, -1 is 0xffffffff."""
    return np.where((fd >> 32 == 0) & (fd >= 1 << 31), fd - (1 << 32), fd)


def _offsets(column: Column) -> Int64Array:
    """Return offsets in bytes: mmap2's is in pages where all arguments are raw."""
    offset = column("offset")
    return np.where((column("raw") == 1) & (offset != NULL), offset * _MMAP2_UNIT, offset)


def _auxiliary(call: Int64Array, column: Column) -> tuple[Int64Array, Int64Array]:
    """Return the two columns whose meaning depends on the call."""
    columns = []
    for place in (0, 1):
        values = np.full(len(call), NULL, dtype=np.int64)
        for name, sources in _AUX.items():
            if sources[place]:
                of_call = call == CALL_CODE[name]
                values[of_call] = column(sources[place])[of_call]
        columns.append(values)
    for pseudo, source in ((EXITED, "exit_status"), (SUPERSEDED, "to_pid"), (PID_CHANGED, "to_pid")):
        columns[0][call == pseudo] = column(source)[call == pseudo]
    return columns[0], columns[1]


# ---- runs ----


@dataclass(slots=True)
class RunInput:
    """The logs of one run, to be read once: iterate for batches of `Calls`, then look at what was counted."""

    logs: list[Log]
    strict: bool = False
    strings: Strings = field(default_factory=Strings)
    problems: Problems = field(default_factory=Problems)
    counters: Counters = field(default_factory=Counters)
    notices: list[Notice] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Return the paths of the logs; `Calls.file` is the place in this list."""
        return [log.path for log in self.logs]

    @property
    def dialect(self) -> str:
        """Return which program wrote the logs: `strace`, `ltrace`, or `mixed`; known once reading began."""
        dialects = {log.dialect for log in self.logs}
        return dialects.pop() if len(dialects) == 1 else "mixed"

    def __iter__(self) -> Iterator[Calls]:
        """Yield the calls in completion order."""
        if len(self.logs) > 1 and all(log.pid is not None for log in self.logs):
            parts = [concatenated(self._read(log, 0)) for log in self.logs]
            yield merged(parts, timed=not any(log.relative for log in self.logs))
            return
        lines_before = 0
        for log in self.logs:
            yield from self._read(log, lines_before)
            lines_before = self.counters.lines

    def calls(self) -> Calls:
        """Return all calls at once."""
        return concatenated(self)

    def _read(self, log: Log, lines_before: int) -> Iterator[Calls]:
        """Yield the calls of one log, its clock beginning after `lines_before`."""
        reading: Reading | None = None
        for chunk in read_chunks(log):
            if reading is None:
                shapes = Shapes(log.dialect, self.strings, self.problems, self.counters, log.index)
                shapes.strict_path = log.path if self.strict else None
                reading = Reading(log, shapes, self.notices, Joiner())
            yield _later(reading.batch(chunk), lines_before)
        if reading is not None:
            yield _later(reading.rest(), lines_before)


def _later(calls: Calls, lines: int) -> Calls:
    """Return the calls with their clock `lines` later."""
    if lines:
        calls.clock = calls.clock + lines
        calls.entry_clock = calls.entry_clock + lines
    return calls


def read_run(paths: Iterable[str | Path], *, dialect: str = "auto", strict: bool = False) -> RunInput:
    """Return the logs of one run, ready to be read.

    Args:
        paths: logs, `-` for standard input, or the files or the prefix of a `strace -ff` set.
        dialect: `strace` or `ltrace` where the content shall not be asked.
        strict: whether the first line that is not understood is an error.

    Raises:
        TraceFormatError: a file cannot be read or is no trace; later, while reading, too.
        TraceSyntaxError: while reading, for a line not understood, if `strict`.
    """
    logs = find_logs(paths)
    for log in logs:
        log.dialect = dialect
    return RunInput(logs, strict)


# ---- sets of files ----


def merged(parts: list[Calls], *, timed: bool) -> Calls:
    """Return the calls of a `strace -ff` set in one order: by time, or else each child's after its creator's.

    Args:
        parts: the calls of each file.
        timed: whether times of different files can be compared.
    """
    calls = _without_moved_exec(concatenated(parts))
    parts = [calls.take(np.flatnonzero(calls.file == file)) for file in range(len(parts))]
    if not len(calls):
        return calls
    if timed and bool((calls.time_ns != NULL).all()):
        return _by_time(calls, parts)
    calls = calls.take(_order_of_creation(parts))
    calls.clock = np.arange(1, len(calls) + 1, dtype=np.int64)
    calls.entry_clock = calls.clock.copy()
    return calls


def _without_moved_exec(calls: Calls) -> Calls:
    """Join each execve that ended in another thread, and so in another file, with its end there."""
    dropped = np.zeros(len(calls), dtype=bool)
    for row in np.flatnonzero(calls.call == PID_CHANGED).tolist():
        execve = np.isin(calls.call, _EXECS)
        begun = execve & (calls.pid == calls.pid[row]) & (calls.status == UNFINISHED)
        ended = np.flatnonzero(execve & (calls.pid == calls.aux[row]) & (calls.path == NO_TEXT))
        if len(ended):
            calls.path[ended[0]] = calls.path[row]
            calls.aux[ended[0]] = calls.pid[row]
            dropped |= begun
    return calls.take(~dropped)


def _by_time(calls: Calls, parts: list[Calls]) -> Calls:
    """Return the calls in order of completion; the clock counts entries and completions.

    Within a file the order of its lines is kept, where times are too coarse or go back.
    """
    begun, ended = calls.time_ns.copy(), calls.time_ns + np.where(calls.duration_ns == NULL, 0, calls.duration_ns)
    first = 0
    for part in parts:
        rows = slice(first, first + len(part))
        ended[rows] = np.maximum.accumulate(ended[rows])
        begun[rows] = np.clip(
            np.maximum(begun[rows], np.append(begun[first : first + 1], ended[rows][:-1])), None, ended[rows]
        )
        first += len(part)
    lasting = np.flatnonzero(begun < ended)
    row = np.concatenate([np.arange(len(calls)), lasting])
    order = np.argsort(np.concatenate([ended, begun[lasting]]), kind="stable")
    clock = np.empty(len(row), dtype=np.int64)
    clock[order] = np.arange(1, len(row) + 1)
    calls.clock = clock[: len(calls)]
    calls.entry_clock = calls.clock.copy()
    calls.entry_clock[lasting] = clock[len(calls) :]
    return calls.take(np.argsort(calls.clock))


def _order_of_creation(parts: list[Calls]) -> Int64Array:
    """Return the rows file by file, each child's file where its creator's call returned, before it for a vfork."""
    first_row = np.cumsum([0, *(len(part) for part in parts)])
    by_pid = {int(part.pid[0]): place for place, part in enumerate(parts) if len(part)}
    children: dict[int, list[tuple[int, int]]] = {}
    born = set()
    for place, part in enumerate(parts):
        for row in np.flatnonzero(np.isin(part.call, _FORKS) & (part.result > 0)).tolist():
            child = by_pid.get(int(part.result[row]))
            if child is not None and child not in born and child != place:
                born.add(child)
                before = int(part.call[row]) == CALL_CODE["vfork"] or (
                    part.flags[row] != NULL and int(part.flags[row]) & _CLONE_VFORK
                )
                children.setdefault(place, []).append((row if before else row + 1, child))
    order: list[Int64Array] = []
    for root in [place for place in range(len(parts)) if place not in born]:
        _append_file(order, root, parts, first_row, children)
    return np.concatenate(order)


def _append_file(
    order: list[Int64Array],
    root: int,
    parts: list[Calls],
    first_row: Int64Array,
    children: dict[int, list[tuple[int, int]]],
) -> None:
    """Append the rows of a file and, in between, of its children's files."""
    stack = [(root, 0, iter(children.pop(root, [])))]
    while stack:
        place, at, rest = stack.pop()
        base = int(first_row[place])
        row, child = next(rest, (len(parts[place]), -1))
        order.append(np.arange(base + at, base + row))
        if child >= 0:
            stack.append((place, row, rest))
            stack.append((child, 0, iter(children.pop(child, []))))
