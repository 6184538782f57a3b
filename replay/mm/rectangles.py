"""Rectangles, addresses by lines: a mapping is written out when it ends or changes.

In go a range or the place of a mapping, and the line and step of the change; out come the rows of `dead` that it adds,
and the space without what ended. Why something ends is not known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NULL, Int64Array
from replay.mm.fields import (
    OFFSET,
    RECTANGLE_END,
    RECTANGLE_FROM,
    RECTANGLE_FROM_STEP,
    RECTANGLE_START,
    RECTANGLE_UNTIL,
)
from replay.mm.space import (
    ENDS,
    FIRSTS,
    JOINS,
    LEAVES,
    MAPPINGS,
    ORDER,
    SLOTS,
    STARTS,
    Space,
    copy_attributes,
    locate,
    mapping_after,
    neighbours,
    slot_of,
)
from replay.mm.totals import change_gap, count_in_totals
from replay.mm.vma_tree import insert, remove


def _write_out(space: Space, place: int, index: int, clock: int, dead: Int64Array, dead_count: int) -> int:
    """Write out the mapping at (place, index) as a rectangle that ends at `clock`.

    A mapping that would live from a line to the same line never was seen at any line and is not written.
    """
    leaf = space.lists[ORDER, place]
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    if attributes[RECTANGLE_FROM] != clock:
        copy_attributes(attributes, dead[dead_count])
        dead[dead_count, RECTANGLE_START] = space.leaves[leaf, STARTS, index]
        dead[dead_count, RECTANGLE_END] = space.leaves[leaf, ENDS, index]
        dead[dead_count, RECTANGLE_UNTIL] = clock
        dead_count += 1
    return dead_count


def end_mapping(space: Space, place: int, index: int, clock: int, dead: Int64Array, dead_count: int) -> int:
    """Write out the mapping at (place, index) as a rectangle that ends at `clock` and remove it."""
    dead_count = _write_out(space, place, index, clock, dead, dead_count)
    remove(space, place, index)
    return dead_count


def begin_rectangle(
    space: Space, place: int, index: int, clock: int, step: int, dead: Int64Array, dead_count: int
) -> int:
    """Begin a new rectangle for the mapping at (place, index), which is about to change where it stands.

    What it weighs is off the totals until `count_in_totals` adds it again, changed.
    """
    dead_count = _write_out(space, place, index, clock, dead, dead_count)
    count_in_totals(space, place, index, -1)
    attributes = space.attributes[slot_of(space, place, index)]
    attributes[RECTANGLE_FROM] = clock
    attributes[RECTANGLE_FROM_STEP] = step
    return dead_count


def _shrink(space: Space, place: int, index: int, start: int, end: int) -> None:
    """Leave `[start, end)` of the lifted mapping at (place, index): the file offset goes along."""
    leaf = space.lists[ORDER, place]
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    low, high = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
    before_leaf, before_index, after_leaf, after_index = neighbours(space, place, index)
    if attributes[OFFSET] != NULL:
        attributes[OFFSET] += start - low
    if before_leaf >= 0:
        below = space.leaves[before_leaf, ENDS, before_index]
        change_gap(space, before_leaf, low - below, start - below)
    if after_leaf >= 0:
        above = space.leaves[after_leaf, STARTS, after_index]
        change_gap(space, leaf, above - high, above - end)
    space.leaves[leaf, STARTS, index] = start
    space.leaves[leaf, ENDS, index] = end
    space.lists[FIRSTS, place] = space.leaves[leaf, STARTS, 0]
    count_in_totals(space, place, index, 1)


def split_at(space: Space, address: int, clock: int, step: int, dead: Int64Array, dead_count: int) -> int:
    """Split the mapping that holds `address` inside it, so that one ends and one starts there."""
    place, index = locate(space, address)
    if place == space.totals[LEAVES]:
        return dead_count
    leaf = space.lists[ORDER, place]
    start = space.leaves[leaf, STARTS, index]
    end = space.leaves[leaf, ENDS, index]
    if start >= address:
        return dead_count
    dead_count = _write_out(space, place, index, clock, dead, dead_count)
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    attributes[RECTANGLE_FROM] = clock
    attributes[RECTANGLE_FROM_STEP] = step
    space.leaves[leaf, ENDS, index] = address
    place, index = insert(space, place, index + 1, address, end)
    upper = space.attributes[slot_of(space, place, index)]
    copy_attributes(attributes, upper)
    if upper[OFFSET] != NULL:
        upper[OFFSET] += address - start
    # The parts are one line of /proc/PID/maps as the whole was, and stand between the same neighbours.
    space.totals[MAPPINGS] += 1
    space.totals[JOINS] += 1
    return dead_count


def unmap_range(space: Space, start: int, end: int, clock: int, step: int, dead: Int64Array, dead_count: int) -> int:
    """End every mapping inside `[start, end)`; parts outside live on as rectangles of their own.

    Source: mm/vma.c, do_vmi_align_munmap: split at both ends, remove what lies between.
    """
    totals = space.totals
    place, index = locate(space, start)
    if place == totals[LEAVES]:
        return dead_count
    leaf = space.lists[ORDER, place]
    low = space.leaves[leaf, STARTS, index]
    if low < start:
        if space.leaves[leaf, ENDS, index] > end:
            dead_count = split_at(space, end, clock, step, dead, dead_count)
            place, index = locate(space, low)
        dead_count = begin_rectangle(space, place, index, clock, step, dead, dead_count)
        _shrink(space, place, index, low, start)
        place, index = mapping_after(space, place, index)
    while place < totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < end:
        high = space.leaves[space.lists[ORDER, place], ENDS, index]
        if high > end:
            dead_count = begin_rectangle(space, place, index, clock, step, dead, dead_count)
            _shrink(space, place, index, end, high)
            break
        dead_count = end_mapping(space, place, index, clock, dead, dead_count)
        place, index = locate(space, start)
    return dead_count


HELPERS: Final = (_write_out, end_mapping, begin_rectangle, _shrink, split_at, unmap_range)
"""What the compiled loop calls of this module."""

INLINED: Final = ()
