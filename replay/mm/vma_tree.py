"""Mappings are put into the order of addresses, and taken out of it.

In go a range that is free and its attributes, or the place of a mapping; out comes the space changed, its leaves split
and its totals counted. What a mapping was before, and who asked for the change, is not known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.mm.fields import (
    ATTRIBUTES,
    BACKING,
    FLAGS,
    KIND,
    MAPPED_AT,
    MAPPED_AT_STEP,
    OP_ADDR,
    OP_CODE,
    OP_RESULT,
    ORIGIN,
    ORIGIN_INFERRED,
    PATH,
    PROT,
    RECTANGLE_FROM_STEP,
    SHARED,
    OpCode,
)
from replay.mm.space import (
    ENDS,
    FIRSTS,
    FREE_LEAVES,
    FREE_SLOT,
    FREE_SLOTS,
    LEAF,
    LEAVES,
    LEAVES_USED,
    LINE,
    NEXT_ADDRESS,
    NEXT_FREE,
    NEXT_PLACE,
    ORDER,
    READ,
    SIZES,
    SLOTS,
    STARTS,
    UNUSED,
    Space,
    copy_attributes,
    count_up_to,
    locate,
    slot_of,
)
from replay.mm.totals import count_mapping, mark_changed


def _shift_up(row: Int64Array, index: int, size: int) -> None:
    """Make room at `index` of a row that holds `size` entries."""
    for at in range(size, index, -1):
        row[at] = row[at - 1]


def _shift_down(row: Int64Array, index: int, size: int) -> None:
    """Close the gap at `index` of a row that holds `size` entries."""
    for at in range(index, size - 1):
        row[at] = row[at + 1]


def _new_leaf(space: Space, place: int) -> int:
    """Put an empty leaf at `place` of the order and return it."""
    totals = space.totals
    totals[FREE_LEAVES] -= 1
    leaf = space.lists[UNUSED, totals[FREE_LEAVES]]
    leaves = totals[LEAVES]
    _shift_up(space.lists[ORDER], place, leaves)
    _shift_up(space.lists[FIRSTS], place, leaves)
    space.lists[ORDER, place] = leaf
    totals[LEAVES] = leaves + 1
    totals[LEAVES_USED] = max(totals[LEAVES_USED], leaf + 1)
    mark_changed(space, leaf)
    return int(leaf)


def _split_leaf(space: Space, place: int) -> None:
    """Move the upper half of the full leaf at `place` to a new leaf behind it."""
    full = space.lists[ORDER, place]
    leaf = _new_leaf(space, place + 1)
    half = LEAF // 2
    for at in range(half):
        space.leaves[leaf, STARTS, at] = space.leaves[full, STARTS, half + at]
        space.leaves[leaf, ENDS, at] = space.leaves[full, ENDS, half + at]
        space.leaves[leaf, SLOTS, at] = space.leaves[full, SLOTS, half + at]
    space.lists[SIZES, leaf] = space.lists[SIZES, full] = half
    space.lists[FIRSTS, place + 1] = space.leaves[leaf, STARTS, 0]
    mark_changed(space, full)


def insert(space: Space, place: int, index: int, start: int, end: int) -> tuple[int, int]:
    """Put a mapping of `[start, end)` at (place, index), and return where it is then: a full leaf is split for it.

    Its attributes are to be filled in, and what it contributes added to the totals.
    """
    totals = space.totals
    if space.lists[SIZES, space.lists[ORDER, place]] == LEAF:
        _split_leaf(space, place)
        if index > LEAF // 2:
            place, index = place + 1, index - LEAF // 2
    leaf = space.lists[ORDER, place]
    size = space.lists[SIZES, leaf]
    _shift_up(space.leaves[leaf, STARTS], index, size)
    _shift_up(space.leaves[leaf, ENDS], index, size)
    _shift_up(space.leaves[leaf, SLOTS], index, size)
    slot = totals[FREE_SLOT]
    totals[FREE_SLOT] = slot + 1 + space.attributes[slot, NEXT_FREE]
    totals[FREE_SLOTS] -= 1
    space.leaves[leaf, STARTS, index] = start
    space.leaves[leaf, ENDS, index] = end
    space.leaves[leaf, SLOTS, index] = slot
    space.lists[SIZES, leaf] = size + 1
    space.lists[FIRSTS, place] = space.leaves[leaf, STARTS, 0]
    return place, index


def insert_free(space: Space, start: int, end: int) -> tuple[int, int]:
    """Do what `insert` does where `[start, end)`, which must be free, belongs."""
    place, index = locate(space, start)
    leaves = space.totals[LEAVES]
    if leaves == 0:
        _new_leaf(space, 0)
    elif place == leaves:
        place = leaves - 1
        index = space.lists[SIZES, space.lists[ORDER, place]]
    return insert(space, place, index, start, end)


def add_mapping(space: Space, start: int, end: int, attributes: Int64Array) -> None:
    """Insert a mapping of `[start, end)`, which must be free, with a copy of `attributes`."""
    place, index = insert_free(space, start, end)
    copy_attributes(attributes, space.attributes[slot_of(space, place, index)])
    count_mapping(space, place, index, 1)


def remove(space: Space, place: int, index: int) -> None:
    """Take the mapping at (place, index) out of the order and free its slot."""
    count_mapping(space, place, index, -1)
    totals = space.totals
    leaf = space.lists[ORDER, place]
    size = space.lists[SIZES, leaf]
    slot = space.leaves[leaf, SLOTS, index]
    space.attributes[slot, NEXT_FREE] = totals[FREE_SLOT] - slot - 1
    totals[FREE_SLOT] = slot
    totals[FREE_SLOTS] += 1
    _shift_down(space.leaves[leaf, STARTS], index, size)
    _shift_down(space.leaves[leaf, ENDS], index, size)
    _shift_down(space.leaves[leaf, SLOTS], index, size)
    space.lists[SIZES, leaf] = size - 1
    if size > 1:
        space.lists[FIRSTS, place] = space.leaves[leaf, STARTS, 0]
        return
    leaves = totals[LEAVES]
    _shift_down(space.lists[ORDER], place, leaves)
    _shift_down(space.lists[FIRSTS], place, leaves)
    totals[LEAVES] = leaves - 1
    space.lists[UNUSED, totals[FREE_LEAVES]] = leaf
    totals[FREE_LEAVES] += 1


def _add_inferred(space: Space, start: int, end: int, kind: int, prot: int) -> None:
    """Insert `[start, end)` as a mapping that the log betrays but never made."""
    place, index = insert_free(space, start, end)
    attributes = space.attributes[slot_of(space, place, index)]
    for column in range(ATTRIBUTES):
        attributes[column] = NULL
    attributes[PROT] = prot
    attributes[SHARED] = 0
    attributes[KIND] = kind
    attributes[PATH] = NO_TEXT
    attributes[ORIGIN] = ORIGIN_INFERRED
    attributes[RECTANGLE_FROM_STEP] = -1
    attributes[MAPPED_AT_STEP] = -1
    attributes[FLAGS] = 0
    attributes[BACKING] = NO_TEXT
    count_mapping(space, place, index, 1)


def infer_gaps(space: Space, start: int, end: int, kind: int, prot: int) -> None:
    """Insert inferred mappings into the gaps of `[start, end)` (into the first ones, if there are very many)."""
    at = start
    while at < end and space.totals[FREE_SLOTS] > 8 and space.totals[FREE_LEAVES] > 3:
        place, index = locate(space, at)
        if place == space.totals[LEAVES]:
            next_start = end
            next_end = end
        else:
            next_start = space.leaves[space.lists[ORDER, place], STARTS, index]
            next_end = space.leaves[space.lists[ORDER, place], ENDS, index]
        if next_start > at:
            _add_inferred(space, at, min(next_start, end), kind, prot)
        at = max(next_end, at + 1)


def read_ahead(space: Space, rows: Int64Array, chosen: Int64Array, first: int, end: int) -> None:
    """Find the places that the rows `chosen[first:end]` ask for, and read what stands there.

    An operation by itself waits for the memory several times, one after the other: for its leaf, for the slots that the
    leaf names, for their attributes. Here each loop waits once for all. What an operation changes, the next one may
    find elsewhere: the places are guesses, as the last place is.
    """
    totals, lists, leaves = space.totals, space.lists, space.leaves
    places, addresses = lists[NEXT_PLACE], lists[NEXT_ADDRESS]
    read = 0
    for turn in range(end - first):
        row = rows[chosen[first + turn]]
        address = row[OP_RESULT] if row[OP_CODE] == OpCode.MAP else row[OP_ADDR]
        addresses[turn] = address
        places[turn] = max(count_up_to(lists[FIRSTS], totals[LEAVES], address) - 1, 0)
    for turn in range(end - first):
        leaf = lists[ORDER, places[turn]]
        for at in range(0, LEAF, LINE):
            read ^= leaves[leaf, STARTS, at] ^ leaves[leaf, ENDS, at] ^ leaves[leaf, SLOTS, at]
    for turn in range(end - first):
        leaf = lists[ORDER, places[turn]]
        size = lists[SIZES, leaf]
        index = min(count_up_to(leaves[leaf, ENDS], size, addresses[turn]), size - 1)
        slots = leaves[leaf, SLOTS]
        before, slot, after = slots[max(index - 1, 0)], slots[index], slots[min(index + 1, size - 1)]
        read ^= space.attributes[before, PROT] ^ space.attributes[after, PROT]
        read ^= space.attributes[slot, PROT] ^ space.attributes[slot, MAPPED_AT]
    totals[READ] = read  # else the compiler would see that no one needs what was read, and not read it


HELPERS: Final = (_new_leaf, _split_leaf, insert, insert_free, add_mapping, _add_inferred, infer_gaps, read_ahead)
"""What the compiled loop calls of this module."""

INLINED: Final = (_shift_up, _shift_down, remove)
"""What becomes part of its callers: called for every operation, some of it many times."""
