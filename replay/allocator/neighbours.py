"""The calls that a thread made right before and after others.

In go the thread of each step, out come the steps of its neighbours: what tells a malloc's mmap from any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from replay.columns import NULL, Int64Array

_NEAR: Final = 64
"""So many steps around a call are looked at one by one before all calls are sorted by thread. Heuristic, measured."""


class Neighbours:
    """The calls that a thread completed before and after others; what libc calls enclose stands before the libc call.

    `sbrk` is left out: it stands between the failed brk inside it and the mmap that follows. Mostly the neighbours are
    near; where they are not, or too many are asked for, all calls are sorted by thread.
    """

    def __init__(self, tids: Int64Array, left_out: Int64Array) -> None:
        """Look nothing up yet; `tids` are of all steps, `left_out` are steps to be passed over."""
        self._tids = tids
        self._left_out = left_out

    @cached_property
    def _threads(self) -> Int64Array:
        """Return whose each step is, with a number of its own for what is left out."""
        if not len(self._left_out):
            return self._tids
        threads = self._tids.copy()
        threads[self._left_out] = _NOBODY
        return threads

    @cached_property
    def _order(self) -> ThreadOrder:
        return thread_order(self._tids, self._left_out)

    def after(self, steps: Int64Array) -> Int64Array:
        """Return the step of the call that the same thread completed after each step, `NULL` where there is none."""
        threads, count = self._threads, len(self._tids)
        if len(steps) * _NEAR > count:
            return self._order.after(steps)
        places = steps[:, None] + np.arange(1, _NEAR + 1)
        same = (threads[np.minimum(places, count - 1)] == self._tids[steps][:, None]) & (places < count)
        found = np.where(same.any(axis=1), steps + 1 + same.argmax(axis=1), NULL)
        far = np.flatnonzero((found == NULL) & (steps + _NEAR < count - 1))
        if len(far):
            found[far] = self._order.after(steps[far])
        return found

    def following(self, step: int, count: int) -> list[int]:
        """Return up to `count` steps of the same thread after `step`."""
        near = self._threads[step + 1 : step + 1 + _NEAR * count]
        found = (np.flatnonzero(near == self._tids[step])[:count] + (step + 1)).tolist()
        if len(found) < count and len(near) == _NEAR * count:
            return self._order.following(step, count)
        return found  # type: ignore[no-any-return]

    def preceding(self, step: int, count: int) -> list[int]:
        """Return up to `count` steps of the same thread before `step`, the nearest first."""
        first = max(0, step - _NEAR * count)
        found = (np.flatnonzero(self._threads[first:step] == self._tids[step])[::-1][:count] + first).tolist()
        if len(found) < count and first:
            return self._order.preceding(step, count)
        return found  # type: ignore[no-any-return]


_NOBODY: Final = NULL + 1
"""A number that no thread has."""


@dataclass(frozen=True, slots=True)
class ThreadOrder:
    """The calls of each thread behind one another: `rows` are steps, `threads` whose each is, `places` the inverse.

    All three are as long as the run and kept in as few bytes as serve; a step that is left out has the place -1.
    """

    rows: NDArray[np.signedinteger[Any]]
    threads: NDArray[np.integer[Any]]
    places: NDArray[np.signedinteger[Any]]

    def after(self, steps: Int64Array) -> Int64Array:
        """Return the step of the call that the same thread completed after each step, `NULL` where there is none."""
        following = np.full(len(steps), NULL, dtype=np.int64)
        own = self.places[steps]
        inside = np.flatnonzero((own >= 0) & (own + 1 < len(self.rows)))
        own = own[inside]
        same = self.threads[own + 1] == self.threads[own]
        following[inside[same]] = self.rows[own[same] + 1]
        return following

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


def thread_order(tids: Int64Array, left_out: Int64Array) -> ThreadOrder:
    """Return the steps but those `left_out` sorted by thread, within a thread as they completed."""
    number: type[np.int32 | np.int64] = np.int32 if len(tids) < np.iinfo(np.int32).max else np.int64
    rows: NDArray[np.int32 | np.int64] = np.arange(len(tids), dtype=number)
    if len(left_out):
        rows = np.delete(rows, left_out)
    threads = _thread_codes(tids if len(rows) == len(tids) else tids[rows])
    if len(threads) and (threads != threads[0]).any():
        by_thread = np.argsort(threads, kind="stable")
        rows, threads = rows[by_thread], threads[by_thread]
    places = np.full(len(tids), -1, dtype=number)
    places[rows] = np.arange(len(rows)).astype(number)
    return ThreadOrder(rows, threads, places)


_FEW_ROWS: Final = 100_000
"""Below so many rows sorting thread ids costs less than a table of all of them. Heuristic, measured."""

_HIGHEST_TID: Final = 1 << 22
"""Source: PID_MAX_LIMIT in include/linux/threads.h."""


def _thread_codes(tids: Int64Array) -> NDArray[np.uint16] | Int64Array:
    """Return a small number for each tid: sixteen bits sort in linear time."""
    if not len(tids):
        return tids
    known = np.where(tids == NULL, 0, tids)
    lowest, highest = int(known.min()), int(known.max())
    if highest - lowest <= np.iinfo(np.uint16).max:
        return (known - lowest).astype(np.uint16)
    if len(tids) < _FEW_ROWS:
        return np.unique(tids, return_inverse=True)[1].astype(np.int64, copy=False)
    if lowest < 0 or highest > _HIGHEST_TID:
        return tids
    seen = np.zeros(_HIGHEST_TID + 1, dtype=np.bool_)
    seen[known] = True
    if int(seen.sum()) > np.iinfo(np.uint16).max:
        return tids
    return np.cumsum(seen, dtype=np.uint16)[known]
