"""How many blocks and bytes are live at any line.

In go the columns of blocks, out come counts and sums over the lines of a log, of one space or of several.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending


class LiveBytes(NamedTuple):
    """What is live over the run: one entry a line at which blocks are given or taken, in order.

    given, taken: how many are; live_bytes: of the blocks that are live once the line was printed.
    """

    line: Int64Array
    given: NDArray[np.int32]
    taken: NDArray[np.int32]
    live_bytes: Int64Array

    @classmethod
    def of(cls, born: Int64Array, died: Int64Array, size: Int64Array) -> LiveBytes:
        """Return the course of blocks that are live from lines `born` up to `died` (`NULL`: to the end)."""
        ended = died != NULL
        gone = died[ended]
        first = int(born.min(initial=np.iinfo(np.int64).max)) if len(born) else 0
        lines = int(max(born.max(initial=0), gone.max(initial=0))) + 1 - first
        live, given, taken = np.zeros(lines, np.int64), np.zeros(lines, np.int32), np.zeros(lines, np.int32)
        gone -= first
        _add_at(taken, live, gone, -size[ended])
        del gone, ended
        _add_at(given, live, born - first, size)
        np.cumsum(live, out=live)
        line = np.flatnonzero((given > 0) | (taken > 0))
        if len(line) < lines:
            given, taken, live = given[line], taken[line], live[line]
        line += first
        return cls(line, given, taken, live)

    def peak(self) -> tuple[int, int]:
        """Return the most bytes live at once and the first line of that; zeros for no blocks."""
        rows = np.flatnonzero(self.given)
        if not len(rows):
            return 0, 0
        row = rows[np.argmax(self.live_bytes[rows])]
        return int(self.live_bytes[row]), int(self.line[row])


def _add_at(counts: NDArray[np.int32], sums: Int64Array, places: Int64Array, values: Int64Array) -> None:
    """Count the places, none of which was counted before, and add the values there."""
    counts[places] = 1
    if int(np.count_nonzero(counts)) == len(places):  # no place twice: then NumPy need not add one by one
        sums[places] += values
        return
    counts[places] = 0
    np.add.at(counts, places, np.int32(1))
    np.add.at(sums, places, values)


def live_bytes_of_space(blocks: Columns, space: int) -> LiveBytes:
    """Return the course of the blocks of one space."""
    born, died, size = blocks["born_line"], blocks["died_line"], blocks["size"]
    mine = blocks["space"] == space
    return LiveBytes.of(born, died, size) if mine.all() else LiveBytes.of(born[mine], died[mine], size[mine])


def live_bytes_of_all(blocks: Columns, spaces: Columns) -> LiveBytes:
    """Return the course of the blocks of all spaces together, each ending with its space; no copies made by fork."""
    own = blocks["inherited"] == 0
    space, died = blocks["space"][own], blocks["died_line"][own]
    died = np.where(died == NULL, spaces["died_line"][space], died)
    return LiveBytes.of(blocks["born_line"][own], died, blocks["size"][own])


def one_space(space: Int64Array) -> bool:
    """Return whether rows are all of the same space."""
    return bool((space == space[:1]).all())


def main_space(blocks: Columns) -> int:
    """Return the space that had the most bytes of its own live at once, the first one to have them; 0 if none had any.

    What a forked child has from its parent is the parent's: else each child would have more than that.
    """
    space = blocks["space"]
    if one_space(space):
        return int(space[0]) if len(space) else 0
    own = np.flatnonzero(blocks["inherited"] == 0)
    mine = {name: blocks[name][own] for name in ("space", "born_line", "died_line", "size")}
    return int(mine["space"][np.argmax(LiveCount.of(mine).at(mine["space"], mine["born_line"])[1])]) if len(own) else 0


class LiveCount(NamedTuple):
    """How many blocks and bytes are live in each space at any line: births and deaths, sorted, with sums of bytes.

    The keys are lines with the number of the space times `width` added.
    """

    births: Int64Array
    birth_bytes: Int64Array
    deaths: Int64Array
    death_bytes: Int64Array
    width: int

    @classmethod
    def of(cls, blocks: Columns) -> LiveCount:
        """Return the counts of each space."""
        space, born, died, size = (blocks[name] for name in ("space", "born_line", "died_line", "size"))
        width = int(max(born.max(initial=0), died.max(initial=0))) + 2
        ended: Mask = died != NULL
        births, deaths = space * width + born, space[ended] * width + died[ended]
        first, last = ascending(births), ascending(deaths)
        return cls(
            births[first],
            np.append(0, np.cumsum(size[first])),
            deaths[last],
            np.append(0, np.cumsum(size[ended][last])),
            width,
        )

    def at(self, space: Int64Array, line: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return how many blocks, and how many bytes of them, are live in each space once each line was printed."""
        line = np.minimum(line, self.width - 2)
        key = space * self.width + line
        first = space * self.width - 1
        born, died = (np.searchsorted(keys, key, side="right") for keys in (self.births, self.deaths))
        before, gone = (np.searchsorted(keys, first, side="right") for keys in (self.births, self.deaths))
        count = (born - before) - (died - gone)
        size = self.birth_bytes[born] - self.birth_bytes[before] - self.death_bytes[died] + self.death_bytes[gone]
        return count.astype(np.int64), size
