"""Mappings are put into the order of addresses, and taken out of it.

In go a range that is free and what its mapping is, or the place of a mapping; out comes the space changed, its leaves
split and its totals counted. What a mapping was before, and who asked for the change, is not known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.records import Records
from replay.mm.fields import ORIGIN_INFERRED, Mapping, OpCode
from replay.mm.space import (
    LEAF,
    LINE,
    Space,
    copy_mapping,
    count_up_to,
    find_vma,
    leaf_at,
    mapping_at,
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
    """Put an empty leaf at `place` of the order and return its number."""
    state = space.state
    state.free_leaves -= 1
    leaf = space.unused[state.free_leaves]
    _shift_up(space.order, place, state.leaves)
    _shift_up(space.firsts, place, state.leaves)
    space.order[place] = leaf
    state.leaves += 1
    state.leaves_used = max(state.leaves_used, leaf + 1)
    mark_changed(space, leaf)
    return int(leaf)


def _split_leaf(space: Space, place: int) -> None:
    """Move the upper half of the full leaf at `place` to a new leaf behind it."""
    number = space.order[place]
    full, leaf = space.leaves[number], space.leaves[_new_leaf(space, place + 1)]
    half = LEAF // 2
    for at in range(half):
        leaf.starts[at] = full.starts[half + at]
        leaf.ends[at] = full.ends[half + at]
        leaf.slots[at] = full.slots[half + at]
    leaf.size = full.size = half
    space.firsts[place + 1] = leaf.starts[0]
    mark_changed(space, number)


def insert(space: Space, place: int, index: int, start: int, end: int) -> tuple[int, int]:
    """Put a mapping of `[start, end)` at (place, index), and return where it is then: a full leaf is split for it.

    What is known of it is to be filled in, and what it contributes added to the totals.
    """
    state = space.state
    if leaf_at(space, place).size == LEAF:
        _split_leaf(space, place)
        if index > LEAF // 2:
            place, index = place + 1, index - LEAF // 2
    leaf, slot = leaf_at(space, place), state.free_slot
    _shift_up(leaf.starts, index, leaf.size)
    _shift_up(leaf.ends, index, leaf.size)
    _shift_up(leaf.slots, index, leaf.size)
    state.free_slot += 1 + space.mappings[slot].offset
    state.free_slots -= 1
    leaf.starts[index] = start
    leaf.ends[index] = end
    leaf.slots[index] = slot
    leaf.size += 1
    space.firsts[place] = leaf.starts[0]
    return place, index


def insert_free(space: Space, start: int, end: int) -> tuple[int, int]:
    """Do what `insert` does where `[start, end)`, which must be free, belongs."""
    place, index = find_vma(space, start)
    leaves = space.state.leaves
    if leaves == 0:
        _new_leaf(space, 0)
    elif place == leaves:
        place = leaves - 1
        index = leaf_at(space, place).size
    return insert(space, place, index, start, end)


def add_mapping(space: Space, start: int, end: int, mapping: Mapping) -> None:
    """Insert a copy of a mapping at `[start, end)`, which must be free."""
    place, index = insert_free(space, start, end)
    copy_mapping(mapping, mapping_at(space, place, index))
    count_mapping(space, place, index, 1)


def remove(space: Space, place: int, index: int) -> None:
    """Take the mapping at (place, index) out of the order and free its slot.

    The `offset` in a free slot tells how many slots lie before the next one: zeros are a list of all slots as they
    stand, and the memory of those that are never used is never touched.
    """
    count_mapping(space, place, index, -1)
    state, leaf = space.state, leaf_at(space, place)
    slot = leaf.slots[index]
    space.mappings[slot].offset = state.free_slot - slot - 1
    state.free_slot = slot
    state.free_slots += 1
    _shift_down(leaf.starts, index, leaf.size)
    _shift_down(leaf.ends, index, leaf.size)
    _shift_down(leaf.slots, index, leaf.size)
    leaf.size -= 1
    if leaf.size > 0:
        space.firsts[place] = leaf.starts[0]
        return
    space.unused[state.free_leaves] = space.order[place]
    state.free_leaves += 1
    _shift_down(space.order, place, state.leaves)
    _shift_down(space.firsts, place, state.leaves)
    state.leaves -= 1


def _add_inferred(space: Space, start: int, end: int, kind: int, prot: int) -> None:
    """Insert `[start, end)` as a mapping that the log betrays but never made."""
    place, index = insert_free(space, start, end)
    mapping = mapping_at(space, place, index)
    mapping.prot = prot
    mapping.shared = 0
    mapping.backing = NO_TEXT
    mapping.offset = NULL
    mapping.flags = 0
    mapping.kind = kind
    mapping.path = NO_TEXT
    mapping.origin = ORIGIN_INFERRED
    mapping.made_line = NULL
    mapping.made_step = -1
    mapping.born_line = NULL
    mapping.born_step = -1
    count_mapping(space, place, index, 1)


def infer_gaps(space: Space, start: int, end: int, kind: int, prot: int) -> None:
    """Insert inferred mappings into the gaps of `[start, end)` (into the first ones, if there are very many)."""
    state = space.state
    at = start
    while at < end and state.free_slots > 8 and state.free_leaves > 3:
        place, index = find_vma(space, at)
        next_start, next_end = end, end
        if place < state.leaves:
            next_start, next_end = leaf_at(space, place).starts[index], leaf_at(space, place).ends[index]
        if next_start > at:
            _add_inferred(space, at, min(next_start, end), kind, prot)
        at = max(next_end, at + 1)


def read_ahead(space: Space, operations: Records, chosen: Int64Array, first: int, end: int) -> None:
    """Find the places that the operations `chosen[first:end]` ask for, and read what stands there.

    An operation by itself waits for the memory several times, one after the other: for its leaf, for the slots that the
    leaf names, for their mappings. Here each loop waits once for all. What an operation changes, the next one may
    find elsewhere: the places are guesses, as the last place is.
    """
    state, mappings = space.state, space.mappings
    read = 0
    for turn in range(end - first):
        operation, asked = operations[chosen[first + turn]], space.ahead[turn]
        asked.address = operation.result if operation.code == OpCode.MAP else operation.addr
        asked.place = max(count_up_to(space.firsts, state.leaves, asked.address) - 1, 0)
    for turn in range(end - first):
        leaf = leaf_at(space, space.ahead[turn].place)
        for at in range(0, LEAF, LINE):
            read ^= leaf.starts[at] ^ leaf.ends[at] ^ leaf.slots[at]
    for turn in range(end - first):
        leaf = leaf_at(space, space.ahead[turn].place)
        index = min(count_up_to(leaf.ends, leaf.size, space.ahead[turn].address), leaf.size - 1)
        before, slot = leaf.slots[max(index - 1, 0)], leaf.slots[index]
        after = leaf.slots[min(index + 1, leaf.size - 1)]
        read ^= mappings[before].prot ^ mappings[after].prot ^ mappings[slot].prot ^ mappings[slot].made_line
    state.read = read  # else the compiler would see that no one needs what was read, and not read it


HELPERS: Final = (_new_leaf, _split_leaf, insert, insert_free, add_mapping, _add_inferred, infer_gaps, read_ahead)
"""What the compiled loop calls of this module."""

INLINED: Final = (_shift_up, _shift_down, remove)
"""What becomes part of its callers: called for every operation, some of it many times."""
