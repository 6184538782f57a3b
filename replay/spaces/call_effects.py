"""Calls as the kernel's verbs: which call does what to an address space, and at which line.

In go the calls of a window with their spaces, out come rows of verbs for `address_space.run`, in the order in which the
kernel acted: memory is taken at the line where a call starts and given where it completes.

Source: mmap(2), munmap(2), mremap(2), mprotect(2), brk(2), shmat(2), remap_file_pages(2), madvise(2), prctl(2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.calls.reader import FAILED, OK, Calls
from replay.calls.windows import Told
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.sorting import ascending_by, distinct, is_ascending, lasts
from replay.linux import constants
from replay.mm import address_space as aspace
from replay.spaces import open_files
from replay.spaces.processes import Processes

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
PR_SET_MM_MAP: Final = 14
PR_SET_VMA: Final = 0x53564D41
RLIMIT_DATA: Final = 2
RLIMIT_AS: Final = 9
PROT_BITS: Final = 7
"""READ, WRITE, EXEC: what maps shows of a protection."""
PARTIAL_ERRNOS: Final = (aspace.EPERM, aspace.ENOMEM, aspace.EACCES)
"""The errors with which mprotect may have changed the mappings before the one that it was refused for."""


class Window(NamedTuple):
    """The calls whose verbs act at the clocks `(after, until]`, with the step, thread, space and file path of each.

    Among them are those that took memory then and completed later.
    """

    calls: Calls
    steps: Int64Array
    tids: Int64Array
    spaces: Int64Array
    paths: Int64Array
    after: int
    until: int


@dataclass(slots=True)
class Carried:
    """What the verbs of a window must know of others: `breaks`, `shrunk` and `mapped` move on with the windows.

    found: for each space whether its beginning is not in the log. segments: size in bytes and key of each System V
    segment. breaks: the last break of each space. shrunk: steps of shrinking brk calls that acted in an earlier window
    than the one in which they completed. mapped: the paths of files mapped so far.
    """

    strings: Strings
    page: int
    found: NDArray[np.bool_]
    segments: Mapping[int, tuple[int, int]]
    limits: Limits
    breaks: dict[int, int] = field(default_factory=dict)
    shrunk: set[int] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)


def carried(told: Told, who: Processes, strings: Strings, page: int) -> Carried:
    """Return what is known before the first window."""
    found = np.array([life.origin == "found" and not life.fresh for life in who.lives] or [True])
    return Carried(strings, page, found, _segments(told.calls), Limits(told, who))


class VerbRows(NamedTuple):
    """Rows of verbs in the order of lines, as columns.

    `values` is (ROW_WIDTH, rows); `spaces` and `sources` give the space and the call's row of each.
    """

    values: Int64Array
    spaces: Int64Array
    sources: Int64Array


class _Part(NamedTuple):
    """Rows of one verb for the calls at `sources`, acting at the lines `clock`; columns that are not named are null."""

    verb: int
    sources: Int64Array
    clock: Int64Array
    columns: Mapping[str, Int64Array | int]


def _rows(verb: int, sources: Int64Array, clock: Int64Array, **columns: Int64Array | int) -> list[_Part]:
    return [_Part(verb, sources, clock, columns)]


def rows_of_verbs(window: Window, carried: Carried) -> VerbRows:
    """Return what happens in a window. Calls that failed, never returned or were injected do nothing."""
    builder = _Builder(window, carried)
    parts = [part for build in _VERBS for part in build(builder) if len(part.sources)]
    clocks = np.concatenate([_NONE, *(part.clock for part in parts)])
    sources = np.concatenate([_NONE, *(part.sources for part in parts)])
    place = _places(clocks, sources, window.calls.clock)
    values = np.zeros((aspace.ROW_WIDTH, len(sources)), np.int64)
    values[aspace.ROW_PATH], values[aspace.ROW_OFFSET] = NO_TEXT, NULL
    values[aspace.ROW_CLOCK, place], ordered = clocks, np.empty(len(sources), np.int64)
    ordered[place] = sources
    values[aspace.ROW_STEP] = window.steps[ordered]
    for part in parts:
        own, place = place[: len(part.sources)], place[len(part.sources) :]
        values[aspace.ROW_VERB, own] = part.verb
        for name, column in part.columns.items():
            values[getattr(aspace, f"ROW_{name.upper()}"), own] = column
    low, high = np.searchsorted(values[aspace.ROW_CLOCK], [window.after, window.until], side="right").tolist()
    if high - low < len(ordered):
        values, ordered = np.ascontiguousarray(values[:, low:high]), ordered[low:high]
    return VerbRows(values, window.spaces[ordered], ordered)


def _places(clocks: Int64Array, sources: Int64Array, completed: Int64Array) -> Int64Array:
    """Return the place of each row in the order of `clocks`, of the same one in that of `sources`."""
    acts = np.zeros(len(completed), np.int64)
    acts[sources] = 1
    if (clocks == completed[sources]).all() and acts.sum() == len(sources) and is_ascending([completed]):
        return (np.cumsum(acts) - 1)[sources]  # one row a call, at the line where that completed
    place = np.empty(len(sources), np.int64)
    place[ascending_by(clocks, sources)] = np.arange(len(sources))
    return place


_NONE: Final = np.zeros(0, np.int64)


@dataclass
class _Builder:
    """The columns that every verb reads."""

    window: Window
    carried: Carried

    @property
    def calls(self) -> Calls:
        return self.window.calls

    @property
    def strings(self) -> Strings:
        return self.carried.strings

    @cached_property
    def _met(self) -> NDArray[np.int64]:
        """Return how often each code of a call is met."""
        return np.bincount(self.calls.call)

    @cached_property
    def ran(self) -> NDArray[np.bool_]:
        """Return which calls the kernel ran."""
        ran: NDArray[np.bool_] = self.calls.injected != 1
        return ran

    @cached_property
    def _succeeded(self) -> NDArray[np.bool_]:
        succeeded: NDArray[np.bool_] = self.ran & (self.calls.status == OK)
        return succeeded

    def named(self, *names: str, among: NDArray[np.bool_] | None = None) -> Int64Array:
        """Return the rows of the named calls, all or those `among` some."""
        codes = [_CODE[name] for name in names]
        chosen = np.zeros(len(self.calls), np.bool_)
        for code in codes:
            if code < len(self._met) and self._met[code]:
                chosen |= self.calls.call == code
        return np.flatnonzero(chosen if among is None else chosen & among).astype(np.int64, copy=False)

    def succeeded(self, *names: str) -> Int64Array:
        """Return the rows of the named calls that the kernel ran and that succeeded."""
        return self.named(*names, among=self._succeeded)


def _succeeded(calls: Calls, *names: str) -> Int64Array:
    codes = [_CODE[name] for name in names]
    ran = (calls.status == OK) & (calls.injected != 1)
    return np.flatnonzero(np.isin(calls.call, codes) & ran).astype(np.int64)


def _map_rows(builder: _Builder) -> list[_Part]:
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("mmap", "map_shadow_stack")
    at = at[(calls.result[at] != NULL) & (calls.length[at] > 0)]
    flags = np.where(calls.flags[at] == NULL, 0, calls.flags[at])
    shared = (flags & MAP_SHARED) != 0
    path = _mapping_paths(builder.window.paths[at], strings)
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
    return _rows(
        aspace.VERB_MAP, at, calls.clock[at], result=calls.result[at], length=calls.length[at],
        prot=np.where(calls.prot[at] == NULL, 0, calls.prot[at]) & PROT_BITS, flags=flags, shared=shared, kind=kind,
        path=path, offset=offset,
    )  # fmt: skip


def _mapping_paths(paths: Int64Array, strings: Strings) -> Int64Array:
    """Return the paths without what `strace -yy` adds: `/dev/zero<char 1:5>` is `/dev/zero`."""
    if (paths == NO_TEXT).all():
        return paths.copy()
    known, back = np.unique(paths, return_inverse=True)
    plain = [
        strings.intern(strings[int(path)].split("<char ")[0].split("<block ")[0]) if path != NO_TEXT else NO_TEXT
        for path in known
    ]
    return np.array(plain, np.int64)[back] if len(known) else paths.copy()


def _unmap_rows(builder: _Builder) -> list[_Part]:
    calls = builder.calls
    at = builder.succeeded("munmap")
    return _rows(aspace.VERB_UNMAP, at, calls.entry_clock[at], addr=calls.addr[at], length=calls.length[at])


def _protect_rows(builder: _Builder) -> list[_Part]:
    """Return mprotect's rows; one that failed with ENOMEM has changed the pages before the gap."""
    calls = builder.calls
    at = builder.named("mprotect", "pkey_mprotect", among=builder.ran)
    partial = (calls.status[at] == FAILED) & np.isin(calls.errno[at], PARTIAL_ERRNOS)
    at = at[((calls.status[at] == OK) | partial) & (calls.prot[at] != NULL)]
    found = builder.carried.found[builder.window.spaces[at]]
    kind = np.where(found, aspace.KIND_UNKNOWN, aspace.KIND_IMAGE)
    return _rows(
        aspace.VERB_PROTECT, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at],
        prot=calls.prot[at] & PROT_BITS, flags=calls.prot[at] & aspace.PROT_GROWSDOWN,
        errno=np.where(calls.status[at] == OK, 0, calls.errno[at]), kind=kind,
    )  # fmt: skip


def _brk_rows(builder: _Builder) -> list[_Part]:
    """Return brk's rows: growth is given where the call completes, a shrink taken where it starts."""
    calls, window, carried = builder.calls, builder.window, builder.carried
    at = builder.succeeded("brk")
    at = at[calls.result[at] != NULL]
    requested = np.where(calls.addr[at] == NULL, 0, calls.addr[at])
    shrinks = _shrinks(calls.result[at], window.spaces[at], carried.breaks) & (requested == calls.result[at])
    clock = np.where(shrinks, calls.entry_clock[at], calls.clock[at])
    past = np.flatnonzero(shrinks & (clock <= window.after))
    if past.size:
        steps = window.steps[at[past]].tolist()
        clock[past] = np.where([step in carried.shrunk for step in steps], clock[past], calls.clock[at[past]])
    coming = np.flatnonzero(shrinks & (calls.clock[at] > window.until))
    carried.shrunk.update(window.steps[at[coming]].tolist())
    done = at[calls.clock[at] <= window.until]
    spaces, places = lasts(window.spaces[done])
    carried.breaks.update(zip(spaces.tolist(), calls.result[done[places]].tolist(), strict=True))
    heap = builder.strings.intern("[heap]")
    return _rows(
        aspace.VERB_BRK,
        at,
        clock,
        addr=requested,
        result=calls.result[at],
        prot=3,
        kind=aspace.KIND_BRK,
        path=heap,
        brk=np.arange(len(at)),
    )


def _shrinks(results: Int64Array, spaces: Int64Array, breaks: Mapping[int, int]) -> NDArray[np.bool_]:
    """Return which of the brk results lie below the one before them in the same space; `breaks` are the last ones."""
    order = np.argsort(spaces, kind="stable")
    before = np.full(len(results), NULL, np.int64)
    before[order[1:]] = results[order[:-1]]
    firsts = order[np.append(True, spaces[order][1:] != spaces[order][:-1])[: len(order)]]
    before[firsts] = [breaks.get(space, NULL) for space in spaces[firsts].tolist()]
    shrinks: NDArray[np.bool_] = (before != NULL) & (results < before)
    return shrinks


def _remap_rows(builder: _Builder) -> list[_Part]:
    """Return mremap's rows; a split call takes at its first line and gives at its last."""
    calls = builder.calls
    at = builder.succeeded("mremap")
    at = at[calls.result[at] != NULL]
    whole = at[calls.entry_clock[at] == calls.clock[at]]
    split = at[calls.entry_clock[at] != calls.clock[at]]
    return [
        _Part(
            verb,
            chosen,
            clock,
            {
                "addr": calls.addr[chosen],
                "length": calls.length[chosen],
                "old_length": calls.old_length[chosen],
                "flags": np.maximum(calls.flags[chosen], 0),
                "result": calls.result[chosen],
            },
        )
        for verb, chosen, clock in (
            (aspace.VERB_REMAP, whole, calls.clock[whole]),
            (aspace.VERB_REMAP_TAKE, split, calls.entry_clock[split]),
            (aspace.VERB_REMAP_GIVE, split, calls.clock[split]),
        )
    ]


def _attach_rows(builder: _Builder) -> list[_Part]:
    """Return shmat's rows; only shmget (or IPC_STAT) tells how long a segment is."""
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("shmat")
    at = at[calls.result[at] != NULL]
    unknown = (builder.carried.page, 0)
    sizes = [builder.carried.segments.get(int(shmid), unknown) for shmid in calls.aux[at]]
    flags = np.where(calls.flags[at] == NULL, 0, calls.flags[at])
    prot = 1 | np.where(flags & SHM_RDONLY, 0, 2) | np.where(flags & SHM_EXEC, 4, 0)
    paths = [strings.intern(f"/SYSV{key & 0xFFFFFFFF:08x} (deleted)") for _size, key in sizes]
    return _rows(
        aspace.VERB_MAP, at, calls.clock[at], result=calls.result[at],
        length=np.array([size for size, _ in sizes], np.int64), prot=prot, shared=1,
        kind=aspace.KIND_SHM, path=np.array(paths, np.int64), offset=0,
        flags=np.where(flags & SHM_REMAP, aspace.MAP_FIXED, 0),
    )  # fmt: skip


def _segments(calls: Calls) -> dict[int, tuple[int, int]]:
    """Return size in bytes and key of each System V segment that the log tells."""
    told = {}
    for row in _succeeded(calls, "shmget"):
        key = 0 if calls.addr[row] == NULL else int(calls.addr[row])
        if calls.length[row] > 0:
            told[int(calls.result[row])] = (int(calls.length[row]), key)
    for row in _succeeded(calls, "shmctl"):
        if calls.length[row] > 0:
            told.setdefault(int(calls.aux[row]), (int(calls.length[row]), 0))
    return told


def _detach_rows(builder: _Builder) -> list[_Part]:
    calls = builder.calls
    at = builder.succeeded("shmdt")
    return _rows(aspace.VERB_DETACH, at, calls.entry_clock[at], addr=calls.addr[at])


def _fork_advice_rows(builder: _Builder) -> list[_Part]:
    """Return the rows of madvise on forks; one that failed with ENOMEM met gaps and took effect on all else.

    Source: mm/madvise.c, madvise_walk_vmas: `unmapped_error`.
    """
    calls = builder.calls
    at = builder.named("madvise", among=builder.ran)
    at = at[np.isin(calls.flags[at], (MADV_DONTFORK, MADV_DOFORK))]
    at = at[(calls.status[at] == OK) | ((calls.status[at] == FAILED) & (calls.errno[at] == aspace.ENOMEM))]
    mark = np.where(calls.flags[at] == MADV_DONTFORK, aspace.DONTFORK, 0)
    return _rows(
        aspace.VERB_MARK, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], prot=aspace.DONTFORK,
        flags=mark,
    )  # fmt: skip


def _seal_rows(builder: _Builder) -> list[_Part]:
    """Return the rows of mseal. Source: mm/mseal.c: the mappings are split at both ends and marked VM_SEALED."""
    calls = builder.calls
    at = builder.succeeded("mseal")
    return _rows(
        aspace.VERB_MARK, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], flags=aspace.SEALED
    )


def _name_rows(builder: _Builder) -> list[_Part]:
    """Return the rows of prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME). Source: fs/proc/task_mmu.c: `[anon:NAME]`."""
    calls, strings = builder.calls, builder.strings
    at = builder.succeeded("prctl")
    at = at[(calls.aux[at] == PR_SET_VMA) & (calls.length[at] > 0)]
    names = [strings.intern(f"[anon:{strings[int(path)]}]") if path != NO_TEXT else NO_TEXT for path in calls.path[at]]
    return _rows(
        aspace.VERB_NAME, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at],
        path=np.array(names, np.int64),
    )  # fmt: skip


def _set_brk_rows(builder: _Builder) -> list[_Part]:
    """Return the rows of prctl(PR_SET_MM) that move the break or its start and map nothing.

    PR_SET_MM_MAP moves both to where a structure says that strace does not print. Source: kernel/sys.c,
    prctl_set_mm_map.
    """
    calls = builder.calls
    at = builder.succeeded("prctl")
    at = at[(calls.aux[at] == PR_SET_MM) & np.isin(calls.aux2[at], (PR_SET_MM_BRK, PR_SET_MM_START_BRK, PR_SET_MM_MAP))]
    option = calls.aux2[at]
    what = np.select([option == PR_SET_MM_START_BRK, option == PR_SET_MM_MAP], [1, 2], 0)
    addr = np.where(option == PR_SET_MM_MAP, 0, calls.addr[at])
    return _rows(aspace.VERB_SET_BRK, at, calls.clock[at], addr=addr, flags=what)


def _remap_file_rows(builder: _Builder) -> list[_Part]:
    calls = builder.calls
    at = builder.succeeded("remap_file_pages")
    offset = np.where(calls.aux[at] == NULL, 0, calls.aux[at]) * builder.carried.page
    return _rows(
        aspace.VERB_REMAP_FILE, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], offset=offset
    )


def _deleted_rows(builder: _Builder) -> list[_Part]:
    """Return the rows of unlink: mappings of the file show ` (deleted)` from then on, in every space.

    Heuristic: a name is the file mapped so far whose path ends with it, if there is one such path only.
    """
    calls, strings, paths = builder.calls, builder.strings, builder.window.paths
    at = builder.succeeded("unlink")
    mapped = builder.carried.mapped
    of_mmap = paths[builder.named("mmap")]
    mapped.update(distinct(of_mmap[of_mmap != NO_TEXT]).tolist())
    parts: list[_Part] = []
    for row in at:
        name = strings[int(calls.path[row])] if calls.path[row] != NO_TEXT else ""
        matches = [path for path in mapped if name and open_files.names(name, strings[path])]
        if len(matches) == 1:
            new = strings.intern(strings[matches[0]] + " (deleted)")
            sources = np.array([row], np.int64)
            parts += _rows(aspace.VERB_DELETED, sources, calls.clock[sources], addr=matches[0], path=new)
    return parts


_VERBS: Final[tuple[Callable[[_Builder], list[_Part]], ...]] = (
    _map_rows, _unmap_rows, _protect_rows, _brk_rows, _remap_rows, _attach_rows, _detach_rows, _fork_advice_rows,
    _seal_rows, _name_rows, _set_brk_rows, _remap_file_rows, _deleted_rows,
)  # fmt: skip


class Limits:
    """RLIMIT_DATA and RLIMIT_AS as the log set them, by space and step.

    Source: setrlimit(2): a child inherits its parent's limits, execve keeps them.
    """

    def __init__(self, told: Told, who: Processes) -> None:
        """Look up the calls that set a limit."""
        calls = told.calls
        sets = (calls.call == _CODE["prlimit"]) & (calls.status == OK) & (calls.aux != NULL) & (calls.injected != 1)
        rows = np.flatnonzero(sets)
        steps = told.step[rows]
        spaces = who.spaces_of(who.tids_of(calls.pid[rows], steps), steps) if rows.size else _NONE
        self._lives = who.lives
        self._set: dict[int, list[tuple[int, int, int]]] = {}
        for row, space in zip(rows.tolist(), spaces.tolist(), strict=True):
            setting = (int(told.step[row]), int(calls.aux2[row]), int(calls.aux[row]))
            self._set.setdefault(space, []).append(setting)

    def at(self, spaces: Int64Array, steps: Int64Array) -> Int64Array:
        """Return (rows, 2): both limits in bytes before each of `steps`, NULL where the log has not set them."""
        limits = np.full((len(steps), 2), NULL, np.int64)
        if not self._set:
            return limits
        for space in distinct(spaces).tolist():
            mine = np.flatnonzero(spaces == space)
            for column, resource in enumerate((RLIMIT_DATA, RLIMIT_AS)):
                told = [(step, limit) for step, kind, limit in self._inherited(space) if kind == resource]
                if told:
                    at = np.searchsorted([step for step, _ in told], steps[mine], side="left") - 1
                    values = np.array([limit for _, limit in told], np.int64)
                    limits[mine, column] = np.where(at >= 0, values[at], NULL)
        return limits

    def _inherited(self, space: int) -> list[tuple[int, int, int]]:
        """Return step, resource and limit of the calls for `space`, those of its ancestors before it came first."""
        told: list[tuple[int, int, int]] = []
        until = np.iinfo(np.int64).max
        while space != NULL:
            told = [setting for setting in self._set.get(space, ()) if setting[0] < until] + told
            life = self._lives[space]
            until, space = min(until, life.born_step), life.parent
        return told
