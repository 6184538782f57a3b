"""Is it a leak, or is it fragmentation: the numbers that decide, and the decision.

In go blocks and heaps, out come pictures of the peak and of the end, Johnstone and Wilson's measures, and one of four
answers. The words for them belong to the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from replay.blocks import LIVE, Blocks, LiveCount
from replay.heap.chunks import Heaps
from replay.heap.leaks import Growth, end_line, live_growth
from replay.heap.picture import Picture, take_picture
from replay.heap.sweep import taken_bytes
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

LEAST_HELD: Final = 262144
"""Less free memory than this below live blocks, in bytes, is not worth the name of fragmentation. Heuristic."""


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
    columns = blocks.columns
    if not len(blocks):
        return 0
    live = LiveCount.of(blocks, replayed.last_clock).at(columns["space"], columns["born_line"])[1]
    return int(columns["space"][np.argmax(live)])


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
    `HELD_SHARE` of the heap, and more than a few unseen blocks of libraries can feign (`LEAST_HELD`).
    """
    space = main_space(blocks, replayed) if space is None else space
    peak_bytes, _, peak_line = _peak_of(blocks, replayed, space)
    columns = blocks.columns
    leaked = (columns["end"] == LIVE) & (columns["space"] == space) & (columns["inherited"] == 0)
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
    return picture.held_bytes >= LEAST_HELD and picture.held_bytes >= HELD_SHARE * picture.heap_bytes


def _largest_heap(blocks: Blocks, heaps: Heaps, replayed: Replay, space: int) -> tuple[int, tuple[float, float]]:
    """Return the line of the largest heap, and measures 3 and 4.

    Source: Johnstone and Wilson, "The Memory Fragmentation Problem: Solved?", ISMM 1998: measure 3 relates the maximum
    of the memory used by the allocator to what the program had allocated at that point, measure 4 to the maximum that
    it had allocated at any point. What one malloc makes the heap grow by is counted once that malloc has returned.
    """
    born = np.sort(blocks.columns["born_line"][blocks.columns["space"] == space])
    line = born[np.append(True, born[1:] != born[:-1])[: len(born)]]
    if not len(line):
        return end_line(replayed, space), (float("nan"), float("nan"))
    used = taken_bytes(heaps, space, line)
    live = LiveCount.of(blocks, replayed.last_clock).at(np.full(len(line), space), line)[1]
    largest = int(np.argmax(used))
    bases = int(live[largest]), int(live.max())
    measure_3, measure_4 = (float(used[largest] / base - 1) if base else float("nan") for base in bases)
    return int(line[largest]), (measure_3, measure_4)
