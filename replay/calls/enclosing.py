"""Which libc call each call ran inside: the outermost one of its thread, by the lines where calls open and close.

In go the events of a run, out come the libc call around each system call, the outermost call of the malloc family
around each inner one, and the lines whose names ltrace got wrong. What an allocation is, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.reader import UNFINISHED
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Mask, Strings
from replay.engine.sorting import ascending, distinct
from replay.engine.structs import Value
from replay.linux.constants import CALL_CODE
from replay.logs.dialect import DIALECTS

GIVING: Final = tuple(
    "malloc calloc realloc reallocarray aligned_alloc memalign valloc pvalloc strdup strndup new new[]".split()
)
"""Calls whose result is a block."""

FREEING: Final = ("free", "delete", "delete[]")
"""Calls that only give a block back."""

HIDING: Final = ("posix_memalign", "asprintf", "getdelim")
"""Calls that may hand out a block whose address their line does not show."""

_AROUND: Final = (*HIDING, "malloc_usable_size", "malloc_trim", "mallopt", "sbrk")
"""Other functions of the libc that system calls run inside."""

_THROWING: Final = ("new", "new[]")
"""Calls that are left by an exception when they fail; ltrace then closes them with a null result much later."""

_MISNAMED_CALLERS: Final = ("libc.so", "libc-2.", "ld-linux", "ld-2.", "ld.so")

_LTRACE: Final = DIALECTS.index("ltrace")


class Nesting(Value):
    """What steps ran inside, said only of those of `step_count` that ran inside something; all steps ascend.

    inside: system calls that ran inside a libc call, and `parents`, the outermost one around each (the allocation,
        where there is one).
    doubled: calls of the malloc family inside others, and `outers`, the outermost around each: one allocation shown
        twice.
    misnamed_steps: calls whose name ltrace got wrong; such lines are no evidence and enclose nothing.
    """

    step_count: int
    inside: Int64Array
    parents: Int64Array
    doubled: Int64Array
    outers: Int64Array
    misnamed_steps: Int64Array

    def around(self, steps: Int64Array) -> Int64Array:
        """Return for each of some steps the libc call that it ran inside as a system call, `NULL` for none."""
        if not len(self.inside):
            return np.broadcast_to(np.int64(NULL), len(steps))
        place = np.minimum(np.searchsorted(self.inside, steps), len(self.inside) - 1)
        return np.where(self.inside[place] == steps, self.parents[place], NULL)

    @property
    def outer_step(self) -> Int64Array:
        """Return for each step the call of the malloc family that it shows again, `NULL` for none; only to be read."""
        return self._column(self.doubled, self.outers)

    @property
    def believed(self) -> Mask:
        """Return which steps, if of the malloc family, are allocations or frees of their own."""
        believed = np.ones(self.step_count, dtype=np.bool_)
        believed[self.doubled] = False
        believed[self.misnamed_steps] = False
        return believed

    def _column(self, steps: Int64Array, values: Int64Array) -> Int64Array:
        if not len(steps):
            return np.broadcast_to(np.int64(NULL), self.step_count)
        column = np.full(self.step_count, NULL, dtype=np.int64)
        column[steps] = values
        return column


def find_nesting(events: PackedColumns, strings: Strings, *, nil: bool = False) -> Nesting:
    """Return what each event ran inside; `nil` says that names are right, as where null pointers are written so."""
    count, nothing = events.rows, np.zeros(0, dtype=np.int64)
    if not count_calls(events)[[CALL_CODE[name] for name in (*GIVING, *FREEING, *_AROUND)]].any():
        return Nesting(count, nothing, nothing, nothing, nothing, nothing)
    family, around, split = _marked(events)
    misnamed_steps = nothing if nil else np.flatnonzero(misnamed_rows(events, strings, family | around))
    family[misnamed_steps] = around[misnamed_steps] = False
    if not (split & (family | around)).any():
        return Nesting(count, nothing, nothing, nothing, nothing, misnamed_steps)
    opened, ended = events["entry_clock"], events["clock"]
    keys = _thread_keys(events)
    if keys is not None:
        opened, ended = opened + keys, ended + keys
    del keys
    outermost = _Enclosing.of(np.flatnonzero(family & split), opened, _ends(events, opened, ended, family))
    doubled, outers = outermost.pairs(np.flatnonzero(family), opened)
    system = np.flatnonzero((events["call"] >= 0) & (events["call"] < CALL_CODE["malloc"]))
    inside, parents = outermost.pairs(system, opened)
    alone = np.setdiff1d(system, inside, assume_unique=True)
    around &= split
    around &= events["status"] != UNFINISHED
    others = _Enclosing.of(np.flatnonzero(around), opened, ended)
    also, around_them = others.pairs(alone, opened)
    inside, parents = np.concatenate([inside, also]), np.concatenate([parents, around_them])
    order = ascending(inside)
    return Nesting(count, inside[order], parents[order], doubled, outers, misnamed_steps)


def _marked(events: PackedColumns) -> tuple[Mask, Mask, Mask]:
    """Return which events are of the malloc family, which of what else encloses calls, and which open before they end.

    The events are gone through part by part, for a log without split calls needs no more than this.
    """
    family, around, split = (np.empty(events.rows, dtype=np.bool_) for _ in range(3))
    for number in range(events.parts):
        own = slice(*events.starts[number : number + 2])
        part = events.part(number, ["call", "entry_clock", "clock"])
        family[own], around[own] = is_call(part, (*GIVING, *FREEING)), is_call(part, _AROUND)
        split[own] = part["entry_clock"] < part["clock"]
    return family, around, split


def count_calls(events: PackedColumns) -> Int64Array:
    """Return how many events there are of each call, by its code."""
    counts = np.zeros(len(CALL_CODE) + 1, dtype=np.int64)
    for number in range(events.parts):
        # A call without a code, -1, is counted in the first place, which is left out.
        counts += np.bincount(events.part(number, ["call"])["call"] + 1, minlength=len(counts))[: len(counts)]
    return counts[1:]


def is_call(events: Columns, names: Iterable[str]) -> Mask:
    """Return for each event whether its call is one of `names`."""
    # One place more than there are calls: a call without a code, -1, finds nothing there.
    chosen = np.zeros(max(len(CALL_CODE), int(events["call"].max(initial=0)) + 1) + 1, dtype=np.bool_)
    chosen[[CALL_CODE[name] for name in names]] = True
    return chosen[events["call"]]


def misnamed_rows(events: PackedColumns, strings: Strings, among: Mask) -> Mask:
    """Return which rows `among` bear a name that may be wrong: what libc and ld.so call, in logs of ltrace up to 0.7.3.

    Source: ltrace 0.7.3 takes the n-th relocation for the n-th slot of the PLT; in libc.so.6 the two orders differ
    (IRELATIVE relocations). Commit 7b0088d, in 0.7.91, mends it. Heuristic: a log is of 0.7.91 or later if a system
    call in it is written without `SYS_`, or a null pointer as `nil` (older ones write 0 or NULL), which the columns do
    not tell. A log that shows neither is taken for an old one.
    """
    callers = [caller for caller in _callers(events, among) if caller != NO_TEXT]
    suspects = [caller for caller in callers if strings[caller].rpartition("/")[2].startswith(_MISNAMED_CALLERS)]
    if not suspects or _names_are_right(events, strings):
        return np.zeros(len(among), dtype=np.bool_)
    return among & np.isin(events["caller"], suspects)


def _callers(events: PackedColumns, among: Mask) -> list[int]:
    """Return the callers of the rows `among`, each once, in ascending order."""
    found: set[int] = set()
    for number in range(events.parts):
        callers = events.part(number, ["caller"])["caller"][among[slice(*events.starts[number : number + 2])]]
        found.update((np.flatnonzero(np.bincount(callers - NO_TEXT)) + NO_TEXT).tolist())
    return sorted(found)


def _names_are_right(events: Columns, strings: Strings) -> bool:
    """Return whether an ltrace from 0.7.91 on wrote the log, as far as it tells."""
    system = _system_calls(events)
    names = distinct(events["name"][system])
    return any(not strings[i].startswith("SYS_") for i in names.tolist() if i != NO_TEXT)


def _system_calls(events: Columns) -> Mask:
    """Return which rows are system calls in a log of ltrace."""
    call = events["call"]
    system: Mask = (events["dialect"] == _LTRACE) & (call >= 0) & (call < CALL_CODE["malloc"])
    return system


def _thread_keys(events: Columns) -> Int64Array | None:
    """Return a number for each event that, added to a line, sorts the lines of each thread behind one another.

    None where there is but one thread.
    """
    tids = events["tid"]
    if not len(tids) or (tids == tids[0]).all():
        return None
    span = int(events["clock"].max()) + 2
    threads = distinct(tids)
    return np.searchsorted(threads, tids).astype(np.int64) * span


def _ends(events: Columns, opened: Int64Array, ended: Int64Array, family: Mask) -> Int64Array:
    """Return where each call stops to enclose others: where it ends, or at its thread's next one if it never returned.

    A call that never returned was left by an exception, a signal or the end of the thread: what its thread calls next
    is inside only where the kernel serves it.
    """
    thrown = is_call(events, _THROWING) & ((events["result"] == 0) | (events["result"] == NULL))
    left = np.flatnonzero(family & (thrown | (events["status"] == UNFINISHED)))
    if not len(left):
        return ended
    starts = np.sort(opened[family])
    after = np.searchsorted(starts, opened[left], side="right")
    following = np.append(starts, np.iinfo(np.int64).max)[after]
    ends = ended.copy()
    ends[left] = np.minimum(ended[left], following)
    return ends


class _Enclosing(Value):
    """The outermost of some calls, in order: `steps`, and `opened` and `ended` with their threads' keys."""

    steps: Int64Array
    opened: Int64Array
    ended: Int64Array

    @classmethod
    def of(cls, rows: NDArray[np.intp], opened: Int64Array, ended: Int64Array) -> _Enclosing:
        """Return those of `rows` that are inside none of the others."""
        rows = rows[ascending(opened[rows])].astype(np.int64, copy=False)
        first, last = opened[rows], ended[rows]
        top = np.ones(len(rows), dtype=np.bool_)
        top[1:] = first[1:] >= np.maximum.accumulate(last)[:-1]
        return cls(rows[top], first[top], last[top])

    def pairs(self, steps: NDArray[np.intp], opened: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return those of `steps` that are inside one of these, and the step of that; `opened` is of all steps."""
        if not len(self.steps):
            return self.steps, self.steps
        at = opened[steps]
        place = np.searchsorted(self.opened, at, side="left") - 1
        inside = np.flatnonzero((place >= 0) & (self.ended[place] > at))
        return steps[inside].astype(np.int64, copy=False), self.steps[place[inside]]
