"""Calls as the kernel's verbs: which call does what to an address space, and at which line.

In go the calls of a run with thread and space, out come rows of verbs for `address_space.run`, in the order in which
the kernel acted: memory is taken at the line where a call starts and given where it completes.

Source: mmap(2), munmap(2), mremap(2), mprotect(2), brk(2), shmat(2), remap_file_pages(2), madvise(2), prctl(2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from replay import address_space as aspace
from replay import constants, openfiles
from replay.calls import FAILED, OK, Calls
from replay.columns import NO_TEXT, NULL, Int64Array, Strings, distinct
from replay.processes import Processes

_CODE = constants.CALL_CODE

MAP_SHARED: Final = 0x1
MAP_ANONYMOUS: Final = 0x20
MAP_STACK: Final = 0x20000
MADV_DONTFORK: Final = 10
MADV_DOFORK: Final = 11
SHM_RDONLY: Final = 0o10000
SHM_REMAP: Final = 0o40000
SHM_EXEC: Final = 0o100000
PR_SET_MM: Final = 35
PR_SET_MM_START_BRK: Final = 6
PR_SET_MM_BRK: Final = 7
PR_SET_VMA: Final = 0x53564D41
RLIMIT_DATA: Final = 2
RLIMIT_AS: Final = 9
PROT_BITS: Final = 7
"""READ, WRITE, EXEC: what maps shows of a protection."""


@dataclass(slots=True)
class VerbRows:
    """Rows of verbs in the order of lines.

    `values` is (rows, ROW_WIDTH); `spaces` and `sources` give the space and the call's row of each; `limits` is
    (rows, 2): RLIMIT_DATA and RLIMIT_AS in bytes as the log set them before, NULL where it did not.
    """

    values: Int64Array
    spaces: Int64Array
    sources: Int64Array
    limits: Int64Array


def rows_of_verbs(
    calls: Calls, who: Processes, steps: Int64Array, paths: Int64Array, strings: Strings, page: int
) -> VerbRows:
    """Return what the calls did to their spaces. Calls that failed, never returned or were injected did nothing."""
    builder = _Builder(calls, who, steps, paths, strings, page)
    parts = [build(builder) for build in _VERBS]
    clocks = np.concatenate([part[0][:, aspace.ROW_CLOCK] for part in parts])
    sources = np.concatenate([part[1] for part in parts])
    order = np.lexsort((sources, clocks))
    sources = sources[order]
    values = np.empty((len(order), aspace.ROW_WIDTH), np.int64)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    for part, _ in parts:
        values[place[: len(part)]] = part
        place = place[len(part) :]
    limits = np.full((len(values), 2), NULL, np.int64)
    _fill_limits(limits, values, sources, calls, who)
    return VerbRows(values, who.spaces[sources], sources, limits)


@dataclass(slots=True)
class _Builder:
    """The columns that every verb reads."""

    calls: Calls
    who: Processes
    steps: Int64Array
    paths: Int64Array
    strings: Strings
    page: int

    def succeeded(self, *names: str) -> Int64Array:
        """Return the rows of the named calls that the kernel ran and that succeeded."""
        calls = self.calls
        codes = [_CODE[name] for name in names]
        ran = (calls.status == OK) & (calls.injected != 1)
        return np.flatnonzero(np.isin(calls.call, codes) & ran).astype(np.int64)

    def rows(
        self, verb: int, sources: Int64Array, clock: Int64Array, **columns: Int64Array | int
    ) -> tuple[Int64Array, Int64Array]:
        """Return rows of `verb` for the calls at `sources`, acting at the lines `clock`; unnamed columns are 0."""
        values = np.zeros((len(sources), aspace.ROW_WIDTH), np.int64)
        values[:, aspace.ROW_CLOCK] = clock
        values[:, aspace.ROW_STEP] = self.steps[sources]
        values[:, aspace.ROW_VERB] = verb
        values[:, aspace.ROW_PATH] = NO_TEXT
        values[:, aspace.ROW_OFFSET] = NULL
        for name, column in columns.items():
            values[:, getattr(aspace, f"ROW_{name.upper()}")] = column
        return values, sources


def _map_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("mmap", "map_shadow_stack")
    at = at[(calls.result[at] != NULL) & (calls.length[at] > 0)]
    flags = np.where(calls.flags[at] == NULL, 0, calls.flags[at])
    shared = (flags & MAP_SHARED) != 0
    path = _mapping_paths(builder.paths[at], strings)
    # ltrace 0.7.3 shows neither descriptor nor offset of SYS_mmap: the flags alone tell a file then.
    is_file = ((flags & MAP_ANONYMOUS) == 0) & ((calls.fd[at] >= 0) | (calls.fd[at] == NULL) | (path != NO_TEXT))
    # Shared memory of /dev/zero is shared anonymous memory. Source: drivers/char/mem.c, mmap_zero.
    zero_shared = shared & (~is_file | (path == strings.intern("/dev/zero")))
    path[~is_file] = NO_TEXT
    path[zero_shared] = strings.intern("/dev/zero (deleted)")
    offset = np.where(is_file, np.where(calls.offset[at] == NULL, 0, calls.offset[at]), NULL)
    offset[shared & ~is_file] = 0
    kind = np.where(is_file, aspace.KIND_FILE, aspace.KIND_ANON)
    kind[zero_shared] = aspace.KIND_SHM
    kind[~is_file & ((flags & (MAP_STACK | aspace.MAP_GROWSDOWN)) != 0)] = aspace.KIND_STACK
    return builder.rows(
        aspace.VERB_MAP, at, calls.clock[at], result=calls.result[at], length=calls.length[at],
        prot=np.where(calls.prot[at] == NULL, 0, calls.prot[at]) & PROT_BITS, flags=flags, shared=shared, kind=kind,
        path=path, offset=offset,
    )  # fmt: skip


def _mapping_paths(paths: Int64Array, strings: Strings) -> Int64Array:
    """Return the paths without what `strace -yy` adds: `/dev/zero<char 1:5>` is `/dev/zero`."""
    known, back = np.unique(paths, return_inverse=True)
    plain = [
        strings.intern(strings[int(path)].split("<char ")[0].split("<block ")[0]) if path != NO_TEXT else NO_TEXT
        for path in known
    ]
    return np.array(plain, np.int64)[back] if len(known) else paths.copy()


def _unmap_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    calls = builder.calls
    at = builder.succeeded("munmap")
    return builder.rows(aspace.VERB_UNMAP, at, calls.entry_clock[at], addr=calls.addr[at], length=calls.length[at])


def _protect_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return mprotect's rows; one that failed with ENOMEM has changed the pages before the gap."""
    calls = builder.calls
    codes = [_CODE["mprotect"], _CODE["pkey_mprotect"]]
    partial = (calls.status == FAILED) & (calls.errno == aspace.ENOMEM)
    ran = ((calls.status == OK) | partial) & (calls.injected != 1) & (calls.prot != NULL)
    at = np.flatnonzero(np.isin(calls.call, codes) & ran).astype(np.int64)
    found = np.array([life.origin == "found" and not life.fresh for life in builder.who.lives] or [True])
    kind = np.where(found[builder.who.spaces[at]], aspace.KIND_UNKNOWN, aspace.KIND_IMAGE)
    return builder.rows(
        aspace.VERB_PROTECT, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at],
        prot=calls.prot[at] & PROT_BITS, errno=np.where(calls.status[at] == OK, 0, aspace.ENOMEM), kind=kind,
    )  # fmt: skip


def _brk_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return brk's rows: growth is given where the call completes, a shrink taken where it starts."""
    calls = builder.calls
    at = builder.succeeded("brk")
    at = at[calls.result[at] != NULL]
    requested = np.where(calls.addr[at] == NULL, 0, calls.addr[at])
    shrinks = _shrinks(calls.result[at], builder.who.spaces[at]) & (requested == calls.result[at])
    clock = np.where(shrinks, calls.entry_clock[at], calls.clock[at])
    heap = builder.strings.intern("[heap]")
    return builder.rows(
        aspace.VERB_BRK, at, clock, addr=requested, result=calls.result[at], prot=3, kind=aspace.KIND_BRK, path=heap,
        brk=np.arange(len(at)),
    )


def _shrinks(results: Int64Array, spaces: Int64Array) -> Int64Array:
    """Return which of the brk results lie below the one before them in the same space."""
    shrinks = np.zeros(len(results), bool)
    order = np.argsort(spaces, kind="stable")
    same = spaces[order][1:] == spaces[order][:-1]
    shrinks[order[1:]] = same & (results[order][1:] < results[order][:-1])
    return shrinks


def _remap_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return mremap's rows; a split call takes at its first line and gives at its last."""
    calls = builder.calls
    at = builder.succeeded("mremap")
    at = at[calls.result[at] != NULL]
    whole = at[calls.entry_clock[at] == calls.clock[at]]
    split = at[calls.entry_clock[at] != calls.clock[at]]
    parts = []
    for verb, chosen, clock in (
        (aspace.VERB_REMAP, whole, calls.clock[whole]),
        (aspace.VERB_REMAP_TAKE, split, calls.entry_clock[split]),
        (aspace.VERB_REMAP_GIVE, split, calls.clock[split]),
    ):
        parts.append(
            builder.rows(
                verb, chosen, clock, addr=calls.addr[chosen], length=calls.length[chosen],
                old_length=calls.old_length[chosen], flags=np.maximum(calls.flags[chosen], 0),
                result=calls.result[chosen],
            )
        )
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _attach_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return shmat's rows; only shmget (or IPC_STAT) tells how long a segment is."""
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("shmat")
    at = at[calls.result[at] != NULL]
    segments = _segments(builder)
    sizes = [segments.get(int(shmid), (builder.page, 0)) for shmid in calls.aux[at]]
    flags = np.where(calls.flags[at] == NULL, 0, calls.flags[at])
    prot = 1 | np.where(flags & SHM_RDONLY, 0, 2) | np.where(flags & SHM_EXEC, 4, 0)
    paths = [strings.intern(f"/SYSV{key & 0xFFFFFFFF:08x} (deleted)") for _size, key in sizes]
    return builder.rows(
        aspace.VERB_MAP, at, calls.clock[at], result=calls.result[at],
        length=np.array([size for size, _ in sizes], np.int64), prot=prot, shared=1,
        kind=aspace.KIND_SHM, path=np.array(paths, np.int64), offset=0,
        flags=np.where(flags & SHM_REMAP, aspace.MAP_FIXED, 0),
    )  # fmt: skip


def _segments(builder: _Builder) -> dict[int, tuple[int, int]]:
    """Return size in bytes and key of each System V segment that the log tells."""
    calls = builder.calls
    told = {}
    for row in builder.succeeded("shmget"):
        key = 0 if calls.addr[row] == NULL else int(calls.addr[row])
        if calls.length[row] > 0:
            told[int(calls.result[row])] = (int(calls.length[row]), key)
    for row in builder.succeeded("shmctl"):
        if calls.length[row] > 0:
            told.setdefault(int(calls.aux[row]), (int(calls.length[row]), 0))
    return told


def _detach_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    calls = builder.calls
    at = builder.succeeded("shmdt")
    return builder.rows(aspace.VERB_DETACH, at, calls.entry_clock[at], addr=calls.addr[at])


def _fork_advice_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return the rows of madvise on forks; one that failed with ENOMEM met gaps and took effect on all else.

    Source: mm/madvise.c, madvise_walk_vmas: `unmapped_error`.
    """
    calls = builder.calls
    advice = (calls.call == _CODE["madvise"]) & np.isin(calls.flags, (MADV_DONTFORK, MADV_DOFORK))
    took = (calls.status == OK) | ((calls.status == FAILED) & (calls.errno == aspace.ENOMEM))
    at = np.flatnonzero(advice & took & (calls.injected != 1)).astype(np.int64)
    mark = np.where(calls.flags[at] == MADV_DONTFORK, aspace.DONTFORK, 0)
    return builder.rows(
        aspace.VERB_ADVISE_FORK, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], flags=mark
    )


def _name_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return the rows of prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME). Source: fs/proc/task_mmu.c: `[anon:NAME]`."""
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("prctl")
    at = at[(calls.aux[at] == PR_SET_VMA) & (calls.length[at] > 0)]
    names = [strings.intern(f"[anon:{strings[int(path)]}]") if path != NO_TEXT else NO_TEXT for path in calls.path[at]]
    return builder.rows(
        aspace.VERB_NAME, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at],
        path=np.array(names, np.int64),
    )  # fmt: skip


def _set_brk_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return the rows of prctl(PR_SET_MM, PR_SET_MM_BRK), which moves the break and maps nothing."""
    calls = builder.calls
    at = builder.succeeded("prctl")
    at = at[(calls.aux[at] == PR_SET_MM) & np.isin(calls.aux2[at], (PR_SET_MM_BRK, PR_SET_MM_START_BRK))]
    start = calls.aux2[at] == PR_SET_MM_START_BRK
    return builder.rows(aspace.VERB_SET_BRK, at, calls.clock[at], addr=calls.addr[at], flags=start)


def _remap_file_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    calls = builder.calls
    at = builder.succeeded("remap_file_pages")
    offset = np.where(calls.aux[at] == NULL, 0, calls.aux[at]) * builder.page
    return builder.rows(
        aspace.VERB_REMAP_FILE, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], offset=offset
    )


def _deleted_rows(builder: _Builder) -> tuple[Int64Array, Int64Array]:
    """Return the rows of unlink: mappings of the file show ` (deleted)` from then on, in every space.

    Heuristic: a name is the mapped file whose path ends with it, if there is one such path only.
    """
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("unlink")
    mapped = distinct(builder.paths[(calls.call == _CODE["mmap"]) & (builder.paths != NO_TEXT)]) if at.size else ()
    parts = []
    for row in at:
        name = strings[int(calls.path[row])] if calls.path[row] != NO_TEXT else ""
        matches = [int(path) for path in mapped if name and openfiles.names(name, strings[int(path)])]
        if len(matches) == 1:
            new = strings.intern(strings[matches[0]] + " (deleted)")
            sources = np.array([row], np.int64)
            parts.append(builder.rows(aspace.VERB_DELETED, sources, calls.clock[sources], addr=matches[0], path=new))
    if not parts:
        return builder.rows(aspace.VERB_DELETED, at[:0], at[:0])
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


_VERBS: Final[tuple[Callable[[_Builder], tuple[Int64Array, Int64Array]], ...]] = (
    _map_rows, _unmap_rows, _protect_rows, _brk_rows, _remap_rows, _attach_rows, _detach_rows, _fork_advice_rows,
    _name_rows, _set_brk_rows, _remap_file_rows, _deleted_rows,
)  # fmt: skip


def _fill_limits(limits: Int64Array, values: Int64Array, sources: Int64Array, calls: Calls, who: Processes) -> None:
    """Write into `limits` what the log set before each brk call, in its space or the one that it came from.

    Source: setrlimit(2): a child inherits its parent's limits, execve keeps them.
    """
    prlimit = _CODE["prlimit"]
    sets = np.flatnonzero((calls.call == prlimit) & (calls.status == OK) & (calls.aux != NULL) & (calls.injected != 1))
    if not sets.size:
        return
    brks = np.flatnonzero(values[:, aspace.ROW_VERB] == aspace.VERB_BRK)
    for column, resource in enumerate((RLIMIT_DATA, RLIMIT_AS)):
        chosen = sets[calls.aux2[sets] == resource]
        for life in who.lives:
            told = _inherited(chosen, life.space, calls, who)
            if not told:
                continue
            mine = brks[who.spaces[sources[brks]] == life.space]
            rows = [row for row, _ in told]
            at = np.searchsorted(rows, sources[mine], side="left") - 1
            limits[mine, column] = np.where(at >= 0, np.array([limit for _, limit in told], np.int64)[at], NULL)


def _inherited(chosen: Int64Array, space: int, calls: Calls, who: Processes) -> list[tuple[int, int]]:
    """Return (row, limit) of the calls that set a limit for `space`, those of its ancestors before it came first."""
    told: list[tuple[int, int]] = []
    until = len(calls)
    while space != NULL:
        mine = [int(row) for row in chosen if who.spaces[row] == space and row < until]
        told = [(row, int(calls.aux[row])) for row in mine] + told
        life = who.lives[space]
        until, space = min(until, life.born_row), life.parent
    return told
