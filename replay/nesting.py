"""Which libc call each call ran inside: the outermost one of its thread, by the lines where calls open and close.

In go the events of a run, out come the libc call around each system call, the outermost call of the malloc family
around each inner one, and the lines whose names ltrace got wrong. What an allocation is, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.calls import UNFINISHED
from replay.columns import NO_TEXT, NULL, Int64Array, Strings, distinct
from replay.constants import CALL_CODE
from replay.shapes import DIALECTS

Columns: TypeAlias = dict[str, Int64Array]
Mask: TypeAlias = NDArray[np.bool_]

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


@dataclass(frozen=True, slots=True)
class Nesting:
    """For each step what it ran inside; steps that ran inside nothing have `NULL`.

    parent_step: of a system call, the outermost libc call around it (the allocation, where there is one).
    outer_step: of a call of the malloc family, the outermost other one around it: one allocation shown twice.
    misnamed: whether ltrace wrote a wrong name; such lines are no evidence and enclose nothing.
    """

    parent_step: Int64Array
    outer_step: Int64Array
    misnamed: Mask

    @property
    def misnamed_steps(self) -> Int64Array:
        """Return the steps that were set aside."""
        return np.flatnonzero(self.misnamed).astype(np.int64)


def find_nesting(events: Columns, strings: Strings, *, nil: bool = False) -> Nesting:
    """Return what each event ran inside; `nil` says that the log writes null pointers so (see `source.prints_nil`)."""
    count = len(events["call"])
    parent, outer = np.full(count, NULL, dtype=np.int64), np.full(count, NULL, dtype=np.int64)
    family = is_call(events, (*GIVING, *FREEING))
    around = is_call(events, _AROUND)
    if not (family.any() or around.any()):
        return Nesting(parent, outer, np.zeros(count, dtype=np.bool_))
    misnamed = np.zeros(count, dtype=np.bool_) if nil else misnamed_rows(events, strings, family | around)
    family &= ~misnamed
    around &= ~misnamed
    keys = _thread_keys(events)
    opened, ended = keys + events["entry_clock"], keys + events["clock"]
    split = events["entry_clock"] < events["clock"]
    outermost = _Enclosing.of(np.flatnonzero(family & split), opened, _ends(events, opened, ended, family))
    inner = np.flatnonzero(family)
    outer[inner] = outermost.around(opened[inner])
    system = np.flatnonzero(_system_calls(events))
    parent[system] = outermost.around(opened[system])
    alone = system[parent[system] == NULL]
    others = _Enclosing.of(np.flatnonzero(around & split & (events["status"] != UNFINISHED)), opened, ended)
    parent[alone] = others.around(opened[alone])
    return Nesting(parent, outer, misnamed)


def is_call(events: Columns, names: Iterable[str]) -> Mask:
    """Return for each event whether its call is one of `names`."""
    # One place more than there are calls: a call without a code, -1, finds nothing there.
    chosen = np.zeros(max(len(CALL_CODE), int(events["call"].max(initial=0)) + 1) + 1, dtype=np.bool_)
    chosen[[CALL_CODE[name] for name in names]] = True
    return chosen[events["call"]]


def misnamed_rows(events: Columns, strings: Strings, among: Mask) -> Mask:
    """Return which rows `among` bear a name that may be wrong: what libc and ld.so call, in logs of ltrace up to 0.7.3.

    Source: ltrace 0.7.3 takes the n-th relocation for the n-th slot of the PLT; in libc.so.6 the two orders differ
    (IRELATIVE relocations). Commit 7b0088d, in 0.7.91, mends it. Heuristic: a log is of 0.7.91 or later if a system
    call in it is written without `SYS_`, or a null pointer as `nil` (older ones write 0 or NULL), which the columns do
    not tell. A log that shows neither is taken for an old one.
    """
    ids = distinct(events["caller"][among])
    suspects = [i for i in ids.tolist() if i != NO_TEXT and strings[i].rpartition("/")[2].startswith(_MISNAMED_CALLERS)]
    if not suspects or _names_are_right(events, strings):
        return np.zeros(len(among), dtype=np.bool_)
    return among & np.isin(events["caller"], suspects)


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


def _thread_keys(events: Columns) -> Int64Array:
    """Return a number for each event that, added to a line, sorts the lines of each thread behind one another."""
    tids = events["tid"]
    if not len(tids) or (tids == tids[0]).all():
        return np.zeros(len(tids), dtype=np.int64)
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


@dataclass(frozen=True, slots=True)
class _Enclosing:
    """The outermost of some calls, in order: `steps`, and `opened` and `ended` with their threads' keys."""

    steps: Int64Array
    opened: Int64Array
    ended: Int64Array

    @classmethod
    def of(cls, rows: NDArray[np.intp], opened: Int64Array, ended: Int64Array) -> _Enclosing:
        """Return those of `rows` that are inside none of the others."""
        rows = rows[np.argsort(opened[rows], kind="stable")].astype(np.int64)
        first, last = opened[rows], ended[rows]
        top = np.ones(len(rows), dtype=np.bool_)
        top[1:] = first[1:] >= np.maximum.accumulate(last)[:-1]
        return cls(rows[top], first[top], last[top])

    def around(self, opened: Int64Array) -> Int64Array:
        """Return for each call that opened at `opened` the step of the one it is inside, `NULL` for none."""
        found = np.full(len(opened), NULL, dtype=np.int64)
        if not len(self.steps):
            return found
        place = np.searchsorted(self.opened, opened, side="left") - 1
        inside = (place >= 0) & (self.ended[place] > opened)
        found[inside] = self.steps[place[inside]]
        return found
