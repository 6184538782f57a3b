"""Is it a leak, or is it fragmentation: the numbers that decide, and the decision.

In go blocks and heaps, out come pictures of the peak and of the end, Johnstone and Wilson's measures, and one of four
answers. The words for them belong to the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from replay.blocks import LIVE, Blocks, LiveCount
from replay.columns import NULL, Int64Array
from replay.heap.chunks import Heaps
from replay.heap.leaks import Growth, end_line, live_growth
from replay.heap.picture import TOP_PAD, Picture, take_picture
from replay.heap.sweep import heap_columns
from replay.nesting import Mask
from replay.regions import Replay

NEITHER: Final = 0
LEAK: Final = 1
FRAGMENTATION: Final = 2
BOTH: Final = 3
ANSWERS: Final = ("neither", "leak", "fragmentation", "both")
"""The answers; their codes are places here."""

LEAKED_SHARE: Final = 0.1
"""From this share of the peak on, memory that is live at the end counts as leaked whether it grew or not. Heuristic."""

HELD_SHARE: Final = 0.25
"""From this share of the heap on, free memory below live blocks counts as fragmentation. Heuristic."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the memory of one space, and what the numbers say of it.

    `measure_3` and `measure_4` are Johnstone and Wilson's: the most memory ever held for blocks, above what the program
    had live then, and above the most it ever had live, as a share of that (0: none lost); NaN without blocks. Pictures
    are of the peak of live bytes, of the largest heap (its first line) and of the end before the exits.
    """

    space: int
    code: int
    leaking: bool
    fragmented: bool
    leaked_blocks: int
    leaked_bytes: int
    leaked_share: float
    growth: Growth
    peak: Picture
    largest: Picture
    end: Picture
    measure_3: float
    measure_4: float


def main_space(blocks: Blocks, replayed: Replay) -> int:
    """Return the space that had the most bytes live at once, 0 if none had any."""
    spaces = np.unique(blocks.columns["space"]).tolist()
    peaks = {space: _peak_of(blocks, replayed, space)[0] for space in spaces}
    return max(spaces, key=lambda space: peaks[space]) if spaces else 0


def _peak_of(blocks: Blocks, replayed: Replay, space: int) -> tuple[int, int, int]:
    """Return the most bytes live at once in a space, the blocks live then, and the line."""
    columns = blocks.columns
    mine = columns["space"] == space
    own = Blocks({name: column[mine] for name, column in columns.items()}, {}, blocks.given_steps, blocks.taken_steps)
    return LiveCount.of(own, replayed.last_clock).peak()


def answer(replayed: Replay, blocks: Blocks, heaps: Heaps, space: int | None = None) -> Answer:
    """Return whether a space (without one, the main space) leaks, is fragmented, both or neither. Heuristic.

    It leaks if blocks are live at the end and either live memory grew to the end, or they make up `LEAKED_SHARE` of the
    peak. It is fragmented if, when the heap was largest or at the end, the free memory below live blocks was
    `HELD_SHARE` of the heap, and more than the top that malloc keeps at any rate.
    """
    space = main_space(blocks, replayed) if space is None else space
    peak_bytes, _, peak_line = _peak_of(blocks, replayed, space)
    columns = blocks.columns
    leaked = (columns["end"] == LIVE) & (columns["space"] == space)
    leaked_bytes = int(columns["size"][leaked].sum())
    share = leaked_bytes / peak_bytes if peak_bytes else 0.0
    growth = live_growth(replayed, blocks, space)
    largest_line, measures = _largest_heap(blocks, heaps, replayed, space)
    largest = take_picture(blocks, heaps, space, largest_line)
    end = take_picture(blocks, heaps, space, end_line(replayed, space))
    leaking = bool(leaked.any()) and (growth.growing or share >= LEAKED_SHARE)
    fragmented = _is_fragmented(largest) or _is_fragmented(end)
    return Answer(
        space=space,
        code=LEAK * leaking + FRAGMENTATION * fragmented,
        leaking=leaking,
        fragmented=fragmented,
        leaked_blocks=int(leaked.sum()),
        leaked_bytes=leaked_bytes,
        leaked_share=share,
        growth=growth,
        peak=take_picture(blocks, heaps, space, peak_line),
        largest=largest,
        end=end,
        measure_3=measures[0],
        measure_4=measures[1],
    )


def _is_fragmented(picture: Picture) -> bool:
    """Return whether much of the heap is free but below live blocks."""
    return picture.held_bytes > TOP_PAD and picture.held_bytes >= HELD_SHARE * picture.heap_bytes


def _largest_heap(blocks: Blocks, heaps: Heaps, replayed: Replay, space: int) -> tuple[int, tuple[float, float]]:
    """Return the line of the largest heap, and measures 3 and 4.

    Source: Johnstone and Wilson, "The Memory Fragmentation Problem: Solved?", ISMM 1998: measure 3 relates the maximum
    of the memory used by the allocator to what the program had allocated at that point, measure 4 to the maximum that
    it had allocated at any point. What one malloc makes the heap grow by is counted once that malloc has returned.
    """
    columns, end = blocks.columns, end_line(replayed, space)
    line = np.unique(columns["born_line"][columns["space"] == space])
    if not len(line):
        return end, (float("nan"), float("nan"))
    heap = heap_columns(blocks, heaps, np.full(len(line), space), line)
    direct = (heaps.chunks["direct"] == 1) & (heaps.chunks["space"] == space)
    used = heap["heap_bytes"] + _bytes_at(heaps, direct, line)
    largest = int(np.argmax(used))
    live = int(heap["live_bytes"][largest]), int(heap["live_bytes"].max())
    measure_3, measure_4 = (float(used[largest] / base - 1) if base else float("nan") for base in live)
    return int(line[largest]), (measure_3, measure_4)


def _bytes_at(heaps: Heaps, chosen: Mask, line: Int64Array) -> Int64Array:
    """Return the bytes of the chosen chunks that are live once each line was printed."""
    born, died = heaps.chunks["born_line"][chosen], heaps.chunks["died_line"][chosen]
    size = heaps.chunks["end"][chosen] - heaps.chunks["start"][chosen]
    total = np.zeros(len(line), dtype=np.int64)
    for lines, sizes, sign in ((born, size, 1), (died[died != NULL], size[died != NULL], -1)):
        order = np.argsort(lines, kind="stable")
        sums = np.append(0, np.cumsum(sizes[order]))
        total += sign * sums[np.searchsorted(lines[order], line, side="right")]
    return total
