"""Since when an inferred mapping can have been there: not before the line at which its addresses were last free.

In go inferred mappings of which no line tells the beginning, and what ended before in the same addresses, out comes the
line from which on each can be there. A call that succeeds betrays a mapping only from there on: before, the addresses
belonged to another, or a munmap had emptied them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import distinct


class Ranges(NamedTuple):
    """Ranges of addresses `[start, end)` of spaces that ended at `died` (`NULL`: never); one entry a range."""

    space: Int64Array
    start: Int64Array
    end: Int64Array
    died: Int64Array


class FirstMoments:
    """The lines since which some inferred mappings can be there, as what ended before them is told, part by part."""

    def __init__(self, inferred: Ranges) -> None:
        """Begin with mappings that may have been there ever since their spaces began."""
        self._bounds = distinct(np.concatenate([inferred.start, inferred.end]))
        self._width = len(self._bounds) + 1
        first = inferred.space * self._width + np.searchsorted(self._bounds, inferred.start)
        last = inferred.space * self._width + np.searchsorted(self._bounds, inferred.end)
        self._order = np.argsort(first, kind="stable")
        self._first, self._ends = first[self._order], np.maximum.accumulate(last[self._order])
        self._inferred = Ranges(*(column[self._order] for column in inferred))
        self._lines = np.full(len(first), NULL, np.int64)

    def hear(self, ended: Ranges) -> None:
        """Take in ranges that ended: what overlaps one of them and was there later was not there before."""
        base = ended.space * self._width
        low = np.searchsorted(self._ends, base + np.searchsorted(self._bounds, ended.start, "right"))
        high = np.searchsorted(self._first, base + np.searchsorted(self._bounds, ended.end))
        count = np.maximum(high - low, 0)
        count[ended.died == NULL] = 0
        source = np.repeat(np.arange(len(count)), count)
        met = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
        of, died = self._inferred, ended.died[source]
        later = (of.died[met] == NULL) | (died < of.died[met])
        later &= (of.start[met] < ended.end[source]) & (of.end[met] > ended.start[source])
        np.maximum.at(self._lines, met[later], died[later])

    def lines(self) -> Int64Array:
        """Return for each mapping, in the order in which they came, the line since which it can be; `NULL` for ever."""
        lines = np.empty(len(self._order), np.int64)
        lines[self._order] = self._lines
        return lines
