"""Is it a leak, or is it fragmentation: the numbers that decide, and the decision.

In go blocks and heaps, out come pictures of the peak and of the end, Johnstone and Wilson's measures, and one of four
answers. The words for them belong to the report.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.engine.columns import Int64Array
from replay.engine.structs import Value
from replay.heap.blocks import LIVE, Blocks
from replay.heap.chunks import Heaps
from replay.heap.free_space import taken_bytes
from replay.heap.leaks import Growth, end_line, growth_of
from replay.heap.live_bytes import LiveBytes, live_bytes_of_space, main_space
from replay.heap.snapshot import HeapSnapshot, SpaceHeap
from replay.spaces.replay import Replay

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

MOMENTS: Final = 24
"""At so many moments, evenly over the changes, the heap is looked at for the most memory held back."""


class Diagnosis(Value):
    """What became of the memory of one space, and what the numbers say of it.

    `measure_3` and `measure_4` are Johnstone and Wilson's: the most memory ever held for blocks, above what the program
    had live then, and above the most it ever had live, as a share of that (0: none lost); NaN without blocks. Pictures
    are of the peak of live bytes, of the largest heap (its first line), of the moment with most memory held back among
    some all over the run, and of the end before the exits.
    """

    space: int
    code: int
    leaking: bool
    fragmented: bool
    leaked_blocks: int
    leaked_bytes: int
    leaked_share: float
    growth: Growth
    peak: HeapSnapshot
    largest: HeapSnapshot
    worst: HeapSnapshot
    end: HeapSnapshot
    measure_3: float
    measure_4: float
    course: LiveBytes
    """How many blocks and bytes were live over the whole run."""


def diagnose(replayed: Replay, blocks: Blocks, heaps: Heaps, space: int | None = None) -> Diagnosis:
    """Return whether a space (without one, the main space) leaks, is fragmented, both or neither. Heuristic.

    It leaks if blocks are live at the end and either live memory grew to the end, or they make up `LEAKED_SHARE` of the
    peak. It is fragmented if, when the heap was largest or at the end, the free memory below live blocks was
    `HELD_SHARE` of the heap, and more than a few unseen blocks of libraries can feign (`LEAST_HELD`).
    """
    space = main_space(blocks.columns) if space is None else space
    columns, last = blocks.columns, end_line(replayed, space)
    course = live_bytes_of_space(columns, space)
    peak_bytes, peak_line = course.peak()
    growth, moments = growth_of(course, last), _moments(course.line[course.line <= last])
    largest_line, measures = _largest_heap(course, heaps, space)
    leaked = np.flatnonzero((columns["end"] == LIVE) & (columns["space"] == space) & (columns["inherited"] == 0))
    leaked_bytes = int(columns.at("size", leaked).sum())
    share = leaked_bytes / peak_bytes if peak_bytes else 0.0
    largest_line = last if largest_line is None else largest_line
    heap = SpaceHeap.of(blocks, heaps, space, {*moments, peak_line, largest_line, last})
    largest, end = heap.picture(largest_line), heap.picture(last)
    leaking = bool(len(leaked)) and (growth.growing or share >= LEAKED_SHARE)
    fragmented = _is_fragmented(largest) or _is_fragmented(end)
    return Diagnosis(
        space=space,
        code=LEAK * leaking + FRAGMENTATION * fragmented,
        leaking=leaking,
        fragmented=fragmented,
        leaked_blocks=len(leaked),
        leaked_bytes=leaked_bytes,
        leaked_share=share,
        growth=growth,
        peak=heap.picture(peak_line),
        largest=largest,
        worst=heap.picture(max(moments, key=heap.held_bytes)) if moments else end,
        end=end,
        measure_3=measures[0],
        measure_4=measures[1],
        course=course,
    )


def _moments(line: Int64Array) -> list[int]:
    """Return some of the lines, evenly over them, in order."""
    count = len(line)
    return sorted({int(line[(at + 1) * count // MOMENTS - 1]) for at in range(min(MOMENTS, count))})


def _is_fragmented(picture: HeapSnapshot) -> bool:
    """Return whether much of the heap is free but below live blocks."""
    return picture.held_bytes >= LEAST_HELD and picture.held_bytes >= HELD_SHARE * picture.heap_bytes


def _largest_heap(course: LiveBytes, heaps: Heaps, space: int) -> tuple[int | None, tuple[float, float]]:
    """Return the line of the largest heap, None without blocks, and measures 3 and 4.

    Source: Johnstone and Wilson, "The Memory Fragmentation Problem: Solved?", ISMM 1998: measure 3 relates the maximum
    of the memory used by the allocator to what the program had allocated at that point, measure 4 to the maximum that
    it had allocated at any point. What one malloc makes the heap grow by is counted once that malloc has returned.
    """
    given = np.flatnonzero(course.given)
    line, live = course.line[given], course.live_bytes[given]
    if not len(line):
        return None, (float("nan"), float("nan"))
    used = taken_bytes(heaps, space, line)
    largest = int(np.argmax(used))
    bases = int(live[largest]), int(live.max())
    measure_3, measure_4 = (float(used[largest] / base - 1) if base else float("nan") for base in bases)
    return int(line[largest]), (measure_3, measure_4)
