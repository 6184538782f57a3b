"""The calls that a thread made right before and after others.

In go the events, out come the steps of their neighbours: what tells a malloc's mmap from any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending


class Neighbours:
    """The calls that a thread completed before and after others; what libc calls enclose stands before the libc call.

    `sbrk` is left out, and none of the calls that are asked about: it stands between the failed brk inside it and the
    mmap that follows. The events are gone through part by part.
    """

    def __init__(self, events: PackedColumns, left_out: Int64Array) -> None:
        """Look nothing up yet; `left_out` are steps to be passed over, in order."""
        self._events = events
        self._left_out = left_out

    def after(self, steps: Int64Array) -> Int64Array:
        """Return the step of the call that the same thread completed after each step, `NULL` where there is none."""
        return self.following(steps, 1)[:, 0]

    def following(self, steps: Int64Array, count: int) -> Int64Array:
        """Return a row of `count` steps for each step: the next ones of the same thread, `NULL` behind its last one."""
        return self._nearest(steps, count, backwards=False)

    def preceding(self, steps: Int64Array, count: int) -> Int64Array:
        """Return a row of `count` steps for each step: those of the same thread before it, the nearest first."""
        return self._nearest(steps, count, backwards=True)

    def _nearest(self, steps: Int64Array, count: int, *, backwards: bool) -> Int64Array:
        order = ascending(steps)
        bounds = np.searchsorted(steps[order], self._events.starts)
        asked = {number: order[bounds[number] : bounds[number + 1]] for number in range(self._events.parts)}
        found, filled = np.full((len(steps), count), NULL, dtype=np.int64), np.zeros(len(steps), dtype=np.int64)
        threads, waiting = np.zeros(len(steps), dtype=np.int64), order[:0]
        numbers: Iterable[int] = reversed(asked) if backwards else asked
        for number in numbers:
            fresh = asked[number]
            if not len(fresh) and not len(waiting):
                continue
            rows, tids, places = self._by_thread(number, backwards=backwards)
            if not len(rows):
                continue
            own = places[steps[fresh] - self._events.starts[number]]
            threads[fresh] = tids[own]
            begin = np.concatenate([np.searchsorted(tids, threads[waiting]), own + 1])
            waiting = np.concatenate([waiting, fresh])
            take = begin[:, None] + np.arange(count)
            column = filled[waiting][:, None] + np.arange(count)
            same = (take < len(rows)) & (column < count)
            same &= tids[np.minimum(take, len(rows) - 1)] == threads[waiting][:, None]
            found[np.broadcast_to(waiting[:, None], same.shape)[same], column[same]] = rows[take[same]]
            filled[waiting] += same.sum(axis=1)
            waiting = waiting[filled[waiting] < count]
        return found

    def _by_thread(self, number: int, *, backwards: bool) -> tuple[Int64Array, Int64Array, NDArray[np.intp]]:
        """Return the steps of a part by thread and then by time, the thread of each, and where each row stands."""
        tids, start = self._events.part(number, ["tid"])["tid"], self._events.starts[number]
        rows = np.arange(len(tids))
        first, last = np.searchsorted(self._left_out, [start, start + len(tids)])
        if last > first:
            rows = np.delete(rows, self._left_out[first:last] - start)
        if backwards:
            rows = rows[::-1]
        rows = rows[_order_of_threads(tids[rows])]
        places = np.zeros(len(tids), dtype=np.intp)
        places[rows] = np.arange(len(rows))
        return rows + start, tids[rows], places


_CLOSE: Final = np.iinfo(np.uint16).max


def _order_of_threads(tids: Int64Array) -> NDArray[Any]:
    """Return the order that sorts thread ids: those that lie as close together as most do fit into sixteen bits."""
    lowest, highest = (int(tids.min()), int(tids.max())) if len(tids) else (0, 0)
    close = highest - lowest <= _CLOSE
    return np.argsort((tids - lowest).astype(np.uint16), kind="stable") if close else ascending(tids)
