"""Memory of the heap that lies between seen blocks and that no seen call ever handed out: nobody knows whose it is.

In go chunks and the extents of heaps, out come ranges, each with the lines at which it is such. It is neither free nor
held back: libraries whose calls the log does not show may have live blocks there.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Columns, Int64Array
from replay.engine.sorting import distinct, distinct_places

_NEVER: Final = (1 << 62) - 1

NAMES: Final = ("space", "start", "end", "born_line", "died_line", "in_brk")

_NOTHING: Final = np.zeros(0, dtype=np.int64)


def unseen_ranges(chunks: PackedColumns, extents: Columns) -> Columns:
    """Return the unseen ranges `[start, end)` of all spaces, by space and address: `NAMES`.

    One is unseen from the line at which a block is handed out above it in the same heap, `born_line`, up to that at
    which a block covers it or the heap gives it back, `died_line`; `NULL` for never. What lies above all seen blocks
    of a heap is its free top.
    """
    found: list[Columns] = [dict.fromkeys(NAMES, _NOTHING)]
    if len(extents["space"]):
        space, pooled = chunks["space"], chunks["direct"] == 0
        start, end, born = (chunks[name] for name in ("start", "end", "born_line"))
        for number in distinct(extents["space"]).tolist():
            mine = np.flatnonzero(pooled & (space == number))
            own = {name: column[extents["space"] == number] for name, column in extents.items()}
            if len(mine):
                found.append(_of_space(number, (start[mine], end[mine], born[mine]), own))
    return {name: np.concatenate([part[name] for part in found]) for name in NAMES}


def _of_space(space: int, chunks: tuple[Int64Array, Int64Array, Int64Array], extents: Columns) -> Columns:
    """Return the unseen ranges of one space, whose chunks are starts, ends and lines of birth."""
    start, end, born = chunks
    ranges = (start, end, extents["start"], extents["end"])
    borders, places = distinct_places(np.concatenate(ranges))
    place, until, first, last = np.split(places, np.cumsum([len(each) for each in ranges[:-1]]))
    count = len(borders) - 1
    covered = _earliest(count, place, until, born)
    added = extents["sign"] > 0
    ever = _earliest(count, first[added], last[added], extents["line"][added]) < _NEVER
    above = _born_above(count, place, born, ever)
    in_brk = added & (extents["in_brk"] == 1)
    of_brk = _earliest(count, first[in_brk], last[in_brk], extents["line"][in_brk]) < _NEVER
    rows = np.flatnonzero(ever & (above < covered))
    born = above[rows]
    died = _given_back(borders[rows], born, covered[rows], extents)
    rows, born, died = (column[born < died] for column in (rows, born, died))
    return {
        "space": np.full(len(rows), space, dtype=np.int64),
        "start": borders[rows],
        "end": borders[rows + 1],
        "born_line": born,
        "died_line": np.where(died == _NEVER, NULL, died),
        "in_brk": of_brk[rows].astype(np.int64),
    }


def _given_back(start: Int64Array, born: Int64Array, covered: Int64Array, extents: Columns) -> Int64Array:
    """Return the lines at which cells are no longer unseen: covered, or given back by the heap.

    Each begins at `start` and is unseen from `born` to `covered` otherwise; what is no heap at `born` ends there.
    """
    died, there = covered.copy(), np.ones(len(start), dtype=np.bool_)
    first, last = np.searchsorted(start, extents["start"]), np.searchsorted(start, extents["end"])
    lines, added, touched = extents["line"], extents["sign"] > 0, last > first
    if not (touched & ~added).any():
        return died
    for event in np.flatnonzero(touched).tolist():
        own, line = slice(first[event], last[event]), int(lines[event])
        before = line <= born[own]
        there[own] = np.where(before, added[event], there[own])
        if not added[event]:
            died[own] = np.where(before, died[own], np.minimum(died[own], line))
    return np.where(there, died, born)


def _earliest(count: int, first: Int64Array, last: Int64Array, line: Int64Array) -> Int64Array:
    """Return for each of `count` cells the least `line` of the ranges of cells `[first, last)` over it.

    A range is two stretches of a power of two cells; the longest are handed down to halves, and so on.
    """
    length = last - first
    kept = length > 0
    first, last, line, length = first[kept], last[kept], line[kept], length[kept]
    level = np.frexp(length.astype(np.float64))[1] - 1
    least = np.full(count, _NEVER, dtype=np.int64)
    for power in range(int(level.max(initial=-1)), -1, -1):
        half = 1 << power
        own = np.flatnonzero(level == power)
        np.minimum.at(least, first[own], line[own])
        np.minimum.at(least, last[own] - half, line[own])
        if power:
            half >>= 1
            handed = least.copy()
            np.minimum(handed[half:], least[: count - half], out=handed[half:])
            least = handed
    return least


def _born_above(count: int, place: Int64Array, born: Int64Array, ever: np.ndarray) -> Int64Array:
    """Return for each cell the first line at which a chunk begins above it in the same run of cells that are heap."""
    begins = np.full(count + 1, _NEVER, dtype=np.int64)
    np.minimum.at(begins, place, born)
    lines, run = distinct(begins), np.cumsum(~ever)
    # The run in the high bits: going down, the least line of one run does not reach into the next.
    keys = run * len(lines) + np.searchsorted(lines, begins[:count])
    least = lines[np.minimum.accumulate(keys[::-1])[::-1] % len(lines)]
    goes_on = run[1:] == run[:-1]
    return np.append(np.where(goes_on, least[1:], _NEVER), _NEVER)[:count]
