"""The replayed columns that the allocator layer reads, and the calls of each thread in order.

In go the columns of the replay, out come the neighbours of a call in its thread and the libc call around it: what tells
a malloc's mmap from any other. Of allocators this module knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.columns import NULL, Columns, Int64Array, Strings
from replay.constants import CALL_CODE
from replay.nesting import find_nesting, is_call
from replay.packed import PackedColumns

Mask: TypeAlias = NDArray[np.bool_]

OK: Final = 0
FAILED: Final = 1
"""Values of the column `status` of the events."""


@dataclass(frozen=True)
class Record:
    """What one run's replay gave: events by step, brk calls, regions and spaces, and the texts that they name.

    `parents` are the steps of the libc calls around system calls; without them they are looked for.
    """

    events: Columns
    brks: Columns
    regions: Columns
    spaces: Columns
    strings: Strings
    page_size: int = 4096
    parents: Int64Array | None = None

    @cached_property
    def thread_order(self) -> ThreadOrder:
        """Return the calls of each thread in order; what libc calls enclose stands before the libc call."""
        return thread_order(self.events["tid"], self.events["call"])

    @property
    def space_count(self) -> int:
        """Return how many address spaces there are."""
        return len(self.spaces["space"])

    def is_call(self, names: Iterable[str]) -> Mask:
        """Return for each event whether its call is one of `names`."""
        return is_call(self.events, names)

    def at(self, name: str, steps: Int64Array) -> Int64Array:
        """Return what a column of the events holds at some steps."""
        events = self.events
        return events.at(name, steps) if isinstance(events, PackedColumns) else events[name][steps]

    def page_up(self, addresses: Int64Array) -> Int64Array:
        """Return the addresses or lengths rounded up to pages."""
        return (addresses + (self.page_size - 1)) & -self.page_size

    def text(self, text_id: int) -> str:
        """Return the text of an id, empty for none."""
        return self.strings[text_id] if text_id >= 0 else ""

    def intern(self, texts: Iterable[str]) -> Int64Array:
        """Return the ids of texts."""
        return np.array([self.strings.intern(text) for text in texts], dtype=np.int64)

    @cached_property
    def parent_step(self) -> Int64Array:
        """Return for each step that of the libc call around it, `NULL` where the log has none."""
        if self.parents is not None:
            return self.parents
        return find_nesting(self.events, self.strings).parent_step


@dataclass(frozen=True, slots=True)
class ThreadOrder:
    """The calls of each thread behind one another: `rows` are steps, `threads` whose each is, `places` the inverse.

    All three are as long as the run and kept in as few bytes as serve; a step that is left out has the place -1.
    """

    rows: NDArray[np.signedinteger[Any]]
    threads: NDArray[np.integer[Any]]
    places: NDArray[np.signedinteger[Any]]

    def before(self, steps: Int64Array) -> Int64Array:
        """Return the step of the call that the same thread completed before each step, `NULL` where there is none."""
        return self._neighbour(steps, -1)

    def after(self, steps: Int64Array) -> Int64Array:
        """Return the step of the call that the same thread completed after each step, `NULL` where there is none."""
        return self._neighbour(steps, 1)

    def following(self, step: int, count: int) -> list[int]:
        """Return up to `count` steps of the same thread after `step`."""
        place = int(self.places[step])
        rows = self.rows[place + 1 : place + 1 + count]
        return rows[self.threads[place + 1 : place + 1 + count] == self.threads[place]].tolist()  # type: ignore[no-any-return]

    def preceding(self, step: int, count: int) -> list[int]:
        """Return up to `count` steps of the same thread before `step`, the nearest first."""
        place = int(self.places[step])
        first = max(0, place - count)
        rows = self.rows[first:place][self.threads[first:place] == self.threads[place]]
        return rows[::-1].tolist()  # type: ignore[no-any-return]

    def _neighbour(self, steps: Int64Array, distance: int) -> Int64Array:
        neighbours = np.full(len(steps), NULL, dtype=np.int64)
        if not len(self.rows) or not len(steps):
            return neighbours
        own = self.places[steps]
        place = own + distance
        inside = (own >= 0) & (place >= 0) & (place < len(self.rows))
        place = np.where(inside, place, 0)
        same = inside & (self.threads[place] == self.threads[np.where(inside, own, 0)])
        neighbours[same] = self.rows[place[same]]
        return neighbours


def thread_order(tids: Int64Array, calls: Int64Array) -> ThreadOrder:
    """Return the steps sorted by thread, within a thread as they completed.

    `sbrk` is left out: it stands between the failed brk inside it and the mmap that follows.
    """
    number: type[np.int32 | np.int64] = np.int32 if len(tids) < np.iinfo(np.int32).max else np.int64
    rows: NDArray[np.int32 | np.int64] = np.flatnonzero(calls != CALL_CODE["sbrk"]).astype(number)
    threads = _thread_codes(tids if len(rows) == len(tids) else tids[rows])
    if len(threads) and (threads != threads[0]).any():
        by_thread = np.argsort(threads, kind="stable")
        rows, threads = rows[by_thread], threads[by_thread]
    places = np.full(len(tids), -1, dtype=number)
    places[rows] = np.arange(len(rows)).astype(number)
    return ThreadOrder(rows, threads, places)


_FEW_ROWS: Final = 100_000
"""Below so many rows sorting thread ids costs less than a table of all of them. Heuristic, measured."""


def _thread_codes(tids: Int64Array) -> NDArray[np.uint16] | Int64Array:
    """Return a small number for each tid: sixteen bits sort in linear time."""
    if len(tids) and (tids == tids[0]).all():
        return np.zeros(len(tids), dtype=np.uint16)
    if len(tids) < _FEW_ROWS:
        return np.unique(tids, return_inverse=True)[1].astype(np.int64, copy=False)
    highest = 1 << 22  # Source: PID_MAX_LIMIT in include/linux/threads.h
    known = np.where(tids == NULL, 0, tids)
    if not len(tids) or known.min() < 0 or known.max() > highest:
        return tids
    seen = np.zeros(highest + 1, dtype=np.bool_)
    seen[known] = True
    if int(seen.sum()) > np.iinfo(np.uint16).max:
        return tids
    return np.cumsum(seen, dtype=np.uint16)[known]


def first_of_each(spaces: Int64Array, rows: Int64Array, count: int) -> tuple[Int64Array, Int64Array]:
    """Return the spaces that occur, in ascending order, and the first of `rows` of each; `count` is above them all."""
    first = np.full(count, NULL, dtype=np.int64)
    first[spaces[::-1]] = rows[::-1]  # of several values for one place the last one stays
    found = np.flatnonzero(first != NULL)
    return found, first[found]


def take_groups(columns: Iterable[Int64Array]) -> tuple[Int64Array, Int64Array]:
    """Return the first row of each distinct combination of values, and for each row the number of its combination."""
    keys = list(columns)
    count = len(keys[0])
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    by_key = np.lexsort(keys[::-1])
    fresh = np.zeros(count, dtype=np.bool_)
    fresh[0] = True
    for key in keys:
        ordered = key[by_key]
        fresh[1:] |= ordered[1:] != ordered[:-1]
    group = np.empty(count, dtype=np.int64)
    group[by_key] = np.cumsum(fresh) - 1
    return by_key[fresh].astype(np.int64, copy=False), group
