"""Rectangles, addresses by lines: a mapping is written out when it ends or changes.

In go a range or the place of a mapping, and the operation that changes it; out come the rectangles that this adds to
`Space.ended`, and the space without what ended. Why something ends is not known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NULL
from replay.mm.fields import Operation
from replay.mm.space import (
    Space,
    copy_mapping,
    find_vma,
    leaf_at,
    mapping_after,
    mapping_at,
    neighbours,
)
from replay.mm.totals import change_gap, count_in_totals
from replay.mm.vma_tree import insert, remove


def _write_out(space: Space, place: int, index: int, operation: Operation) -> None:
    """Write out the mapping at (place, index) as a rectangle that ends with an operation.

    A mapping that would live from a line to the same line never was seen at any line and is not written.
    """
    state, leaf, mapping = space.state, leaf_at(space, place), mapping_at(space, place, index)
    if mapping.born_line != operation.clock:
        rectangle = space.ended[state.ended]
        copy_mapping(mapping, rectangle)
        rectangle.start = leaf.starts[index]
        rectangle.end = leaf.ends[index]
        rectangle.died_line = operation.clock
        state.ended += 1


def end_mapping(space: Space, place: int, index: int, operation: Operation) -> None:
    """Write out the mapping at (place, index) as a rectangle that ends with an operation, and remove it."""
    _write_out(space, place, index, operation)
    remove(space, place, index)


def begin_rectangle(space: Space, place: int, index: int, operation: Operation) -> None:
    """Begin a new rectangle for the mapping at (place, index), which is about to change where it stands.

    What it weighs is off the totals until `count_in_totals` adds it again, changed.
    """
    _write_out(space, place, index, operation)
    count_in_totals(space, place, index, -1)
    mapping = mapping_at(space, place, index)
    mapping.born_line = operation.clock
    mapping.born_step = operation.step


def _vma_shrink(space: Space, place: int, index: int, start: int, end: int) -> None:
    """Leave `[start, end)` of the mapping at (place, index), whose rectangle begins: the file offset goes along."""
    leaf, mapping = leaf_at(space, place), mapping_at(space, place, index)
    low, high = leaf.starts[index], leaf.ends[index]
    before_leaf, before_index, after_leaf, after_index = neighbours(space, place, index)
    if mapping.offset != NULL:
        mapping.offset += start - low
    if before_leaf >= 0:
        below = space.leaves[before_leaf].ends[before_index]
        change_gap(space, before_leaf, low - below, start - below)
    if after_leaf >= 0:
        above = space.leaves[after_leaf].starts[after_index]
        change_gap(space, space.order[place], above - high, above - end)
    leaf.starts[index] = start
    leaf.ends[index] = end
    space.firsts[place] = leaf.starts[0]
    count_in_totals(space, place, index, 1)


def split_vma(space: Space, address: int, operation: Operation) -> None:
    """Split the mapping that holds `address` inside it, so that one ends and one starts there."""
    place, index = find_vma(space, address)
    if place == space.state.leaves:
        return
    leaf = leaf_at(space, place)
    start, end = leaf.starts[index], leaf.ends[index]
    if start >= address:
        return
    _write_out(space, place, index, operation)
    lower = mapping_at(space, place, index)
    lower.born_line = operation.clock
    lower.born_step = operation.step
    leaf.ends[index] = address
    place, index = insert(space, place, index + 1, address, end)
    upper = mapping_at(space, place, index)
    copy_mapping(lower, upper)
    if upper.offset != NULL:
        upper.offset += address - start
    # The parts are one line of /proc/PID/maps as the whole was, and stand between the same neighbours.
    space.state.mappings += 1
    space.state.joins += 1


def do_munmap(space: Space, start: int, end: int, operation: Operation) -> None:
    """End every mapping inside `[start, end)`; parts outside live on as rectangles of their own.

    Source: mm/vma.c, do_vmi_align_munmap: split at both ends, remove what lies between.
    """
    place, index = find_vma(space, start)
    if place == space.state.leaves:
        return
    low = leaf_at(space, place).starts[index]
    if low < start:
        if leaf_at(space, place).ends[index] > end:
            split_vma(space, end, operation)
            place, index = find_vma(space, low)
        begin_rectangle(space, place, index, operation)
        _vma_shrink(space, place, index, low, start)
        place, index = mapping_after(space, place, index)
    while place < space.state.leaves and leaf_at(space, place).starts[index] < end:
        high = leaf_at(space, place).ends[index]
        if high > end:
            begin_rectangle(space, place, index, operation)
            _vma_shrink(space, place, index, end, high)
            break
        end_mapping(space, place, index, operation)
        place, index = find_vma(space, start)


HELPERS: Final = (_write_out, end_mapping, begin_rectangle, _vma_shrink, split_vma, do_munmap)
"""What the compiled loop calls of this module."""

INLINED: Final = ()
