"""The heap that malloc cuts its blocks from: how it is cut up, what pins it, what leaked, what made it grow.

In go the replayed columns, the blocks and what calls ran inside; out come columns over time, a picture of any moment
and the answer to whether it is a leak or fragmentation. How that is put into words is not known here.
"""

from __future__ import annotations

from replay.heap.chunks import Heaps, chunk_sizes, find_heaps
from replay.heap.diagnosis import ANSWERS, Answer, answer
from replay.heap.free_space import COLUMNS as HEAP_COLUMNS
from replay.heap.free_space import fragmentation, heap_columns
from replay.heap.growth_causes import KINDS, heap_growth, threshold_raises
from replay.heap.leaks import Growth, end_line, leaked_groups
from replay.heap.snapshot import KEY_SIZES, Picture, pins, take_picture
from replay.heap.timeline import changes_with_heap

__all__ = [
    "ANSWERS",
    "HEAP_COLUMNS",
    "KEY_SIZES",
    "KINDS",
    "Answer",
    "Growth",
    "Heaps",
    "Picture",
    "answer",
    "changes_with_heap",
    "chunk_sizes",
    "end_line",
    "find_heaps",
    "fragmentation",
    "heap_columns",
    "heap_growth",
    "leaked_groups",
    "pins",
    "take_picture",
    "threshold_raises",
]
