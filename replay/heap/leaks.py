"""What was never freed: the blocks alive at the end by who asked for them, and whether live memory still grew.

In go the blocks and the spaces, out come groups of leaked blocks and the low-water marks of live memory over the run.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from replay.engine.columns import NULL, Columns, Int64Array
from replay.engine.sorting import ascending_by
from replay.engine.structs import Value
from replay.heap.blocks import LIVE, Blocks
from replay.heap.live_bytes import LiveBytes
from replay.spaces.replay import Replay

PARTS: Final = 4
"""Into how many parts of equal numbers of changes a run is cut to see whether live memory grows."""


def live_rows(blocks: Blocks) -> Int64Array:
    """Return the rows of the blocks alive at the end; what a forked child has from its parent counts there only."""
    return np.flatnonzero((blocks.columns["end"] == LIVE) & (blocks.columns["inherited"] == 0)).astype(np.int64)


def leaked_groups(replayed: Replay, blocks: Blocks, callers: Int64Array) -> Columns:
    """Return the blocks alive at the end in groups of one space, caller, call and size class, most bytes first.

    `callers` says of each of `live_rows` who asked for it, as a text id.

    `space`, `caller` (text id), `call`; `size_class`, the power of two that is not above the sizes (0: no bytes asked
    for); `count`, `bytes`; `first_block` and `last_block`, the rows of the oldest and the youngest; `age_lines` and
    `age_ns` of the oldest at the end (`NULL` where the log has no times).
    """
    columns = blocks.columns
    rows = live_rows(blocks)
    size = columns.at("size", rows)
    classes = np.where(size > 0, 1 << np.maximum(np.frexp(size.astype(np.float64))[1] - 1, 0), 0).astype(np.int64)
    keys = [columns.at("space", rows), callers, columns.at("call", rows), classes]
    order = ascending_by(*keys)
    keys, rows, size = [key[order] for key in keys], rows[order], size[order]
    fresh = np.ones(len(rows), dtype=np.bool_)
    fresh[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    start = np.flatnonzero(fresh)
    if not len(start):
        names = "space caller call size_class least most count bytes first_block last_block age_lines age_ns"
        return dict.fromkeys(names.split(), rows[:0])
    first, last = rows[start], rows[np.append(start[1:], len(rows)) - 1]
    age_lines, age_ns = _ages(replayed, blocks, first)
    groups = {
        "space": keys[0][start],
        "caller": keys[1][start],
        "call": keys[2][start],
        "size_class": keys[3][start],
        "least": np.minimum.reduceat(size, start),
        "most": np.maximum.reduceat(size, start),
        "count": np.diff(np.append(start, len(rows))),
        "bytes": np.add.reduceat(size, start),
        "first_block": first,
        "last_block": last,
        "age_lines": age_lines,
        "age_ns": age_ns,
    }
    by_bytes = np.lexsort((-groups["count"], -groups["bytes"]))
    return {name: column[by_bytes] for name, column in groups.items()}


def _ages(replayed: Replay, blocks: Blocks, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return how many lines and nanoseconds before the end of its space each of the blocks `rows` was given."""
    events, columns = replayed.events, blocks.columns
    space = columns["space"][rows]
    ends = np.array([end_line(replayed, number) for number in range(len(replayed.spaces["space"]))], dtype=np.int64)
    last = np.array([max(events.count_up_to("clock", end) - 1, 0) for end in ends.tolist()], dtype=np.int64)
    ended, begun = events.at("time_ns", last)[space], events.at("time_ns", columns["given_step"][rows])
    age = np.where((ended == NULL) | (begun == NULL), NULL, ended - begun)
    return ends[space] - columns["born_line"][rows], age


def end_line(replayed: Replay, space: int) -> int:
    """Return the last line at which a space was alive: the log's, or the one before its last exit."""
    ended = int(replayed.spaces["died_line"][space])
    return replayed.last_clock if ended == NULL else ended - 1


class Growth(Value):
    """How live memory of a space developed: `low_water`, its least bytes in each of `PARTS` parts of the run."""

    low_water: tuple[int, ...]
    live_bytes_half: int
    live_bytes_end: int

    @property
    def growing(self) -> bool:
        """Return whether the low-water marks rise to the end, the last by a tenth or more. Heuristic.

        What a program only uses for a while pulls the mark down again; what it never frees pushes it up.
        """
        marks = self.low_water[1:]
        rises = all(before < after for before, after in pairwise(marks))
        return rises and marks[-1] * 10 >= marks[-2] * 11


def growth_of(course: LiveBytes, end: int) -> Growth:
    """Return how live memory developed between the first block and line `end`, where the space ended."""
    count = np.where(course.line <= end, course.given + course.taken, course.given)
    live = np.repeat(course.live_bytes, count)
    if not len(live):
        return Growth((0,) * PARTS, 0, 0)
    parts = np.array_split(live, PARTS)
    marks = tuple(int(part.min()) if len(part) else int(live[-1]) for part in parts)
    return Growth(marks, int(live[len(live) // 2]), int(live[-1]))
