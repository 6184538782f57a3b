"""The arrays that hold one address space, and looking in them.

In go rows of mappings, out come spaces, and rows again; in a space, the place of the mapping at an address and its
neighbours. Mappings stand in leaves of at most `LEAF` neighbours, so a change costs the same with sixty thousand
mappings as with sixty. How a space changes is not known here.
"""

from __future__ import annotations

from math import prod
from typing import Final, NamedTuple

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.mm.fields import (
    ATTRIBUTES,
    BACKING,
    FLAGS,
    MAP_GROWSDOWN,
    OFFSET,
    PROT,
    PROT_WRITE,
    RECTANGLE_END,
    RECTANGLE_START,
    RECTANGLE_WIDTH,
    SHARED,
    OpCode,
)

LEAF: Final = 24
"""Mappings that one leaf holds at most. Measured: among many, larger ones are slower to read, smaller ones to find."""

AHEAD: Final = 16
"""Operations for which `read_ahead` reads at a time. Measured."""

READ_AHEAD_ABOVE: Final = 3_000
"""Leaves above which reading ahead pays: fewer stay in the processor's cache. Measured."""

LINE: Final = 8
"""Numbers that lie in one line of the processor's cache: of 64 bytes, as on x86 and most ARM."""

ROOM: Final = 96
"""Mappings for which a new space has room beyond twice those that it begins with."""

NEXT_FREE: Final = 0
"""The column of `Space.attributes` in which a slot without a mapping tells how many slots lie before the next such one.

Zeros are a list of all slots as they stand: the memory of those that are never used is never touched.
"""

# What `Space.leaves` knows of the mappings of a leaf.
STARTS: Final = 0
ENDS: Final = 1
SLOTS: Final = 2
OF_MAPPING: Final = 3

# Rows of `Space.lists`: by leaf, by place in the order of addresses, stacks of leaves, and by operation read ahead for.
SIZES: Final = 0
LARGEST: Final = 1
ORDER: Final = 2
FIRSTS: Final = 3
TO_COUNT: Final = 4
UNUSED: Final = 5
NEXT_PLACE: Final = 6
NEXT_ADDRESS: Final = 7
LISTS: Final = 8

# Entries of `Space.totals`.
LEAVES: Final = 0
FREE_LEAVES: Final = 1
FREE_SLOTS: Final = 2
MAPPINGS: Final = 3
MAPPED_BYTES: Final = 4
DATA_BYTES: Final = 5
GAPS: Final = 6
JOINS: Final = 7
BRK: Final = 8
START_BRK: Final = 9
STASHED: Final = 10
DIVERGENCE: Final = 11
CHANGED: Final = 12
LEAVES_USED: Final = 13
LARGEST_GAP: Final = 14
LAST_PLACE: Final = 15
LAST_BRK_PLACE: Final = 16
FREE_SLOT: Final = 17
READ: Final = 18
TOTALS: Final = 19


class Space(NamedTuple):
    """The arrays that hold one address space: few, because a compiled call hands over each with its shape and strides.

    `leaves` is (leaves, OF_MAPPING, LEAF): starts, ends and slots of the mappings of each leaf. `lists` is (LISTS,
    leaves): how many mappings a leaf holds and the largest gap behind one of them; which leaf stands at a place in the
    order of addresses and where its first mapping starts; the leaves whose gaps must be counted anew; those unused;
    the places and addresses that the next operations ask for.
    `attributes` is (slots, ATTRIBUTES). `stash` keeps the pieces of remaps under way, each a row of step, start, end
    and attributes.
    """

    leaves: Int64Array
    lists: Int64Array
    attributes: Int64Array
    stash: Int64Array
    totals: Int64Array


def _zeros(*shape: int) -> Int64Array:
    """Return zeros; many of them begin with a line of the processor's cache.

    Then a leaf, or the row of a slot, lies in as few lines as can be: so many are read ahead line by line.
    """
    if shape[0] <= READ_AHEAD_ABOVE:
        return np.zeros(shape, np.int64)
    size = prod(shape)
    room = np.zeros(size + LINE, np.int64)
    skipped = -(room.ctypes.data // room.itemsize) % LINE
    return room[skipped : skipped + size].reshape(shape)


def empty_space(slots: int = ROOM) -> Space:
    """Return a space without mappings that has room for about `slots` of them."""
    leaves = 12 + 3 * slots // LEAF
    lists = np.zeros((LISTS, leaves), np.int64)
    lists[UNUSED] = np.arange(leaves)[::-1]
    totals = np.zeros(TOTALS, np.int64)
    totals[FREE_LEAVES], totals[FREE_SLOTS] = leaves, slots
    totals[BRK] = totals[START_BRK] = NULL
    return Space(
        leaves=_zeros(leaves, OF_MAPPING, LEAF),
        lists=lists,
        attributes=_zeros(slots, ATTRIBUTES),
        stash=np.zeros((slots + 16, ATTRIBUTES + 3), np.int64),
        totals=totals,
    )


def live_rows(space: Space) -> Int64Array:
    """Return a row of `RECTANGLE_WIDTH` columns for each live mapping, in order of addresses; when it ends is null."""
    order = space.lists[ORDER, : space.totals[LEAVES]]
    held = np.arange(LEAF) < space.lists[SIZES, order][:, None]
    starts, ends, slots = (space.leaves[order, part][held] for part in (STARTS, ENDS, SLOTS))
    rows = np.full((len(slots), RECTANGLE_WIDTH), NULL, np.int64)
    rows[:, :ATTRIBUTES] = space.attributes[slots]
    rows[:, RECTANGLE_START], rows[:, RECTANGLE_END] = starts, ends
    return rows


def space_of_rows(rows: Int64Array, room: int = 0) -> Space:
    """Return a space that holds the mappings of `rows` (as `live_rows` gives them) with room for `room` more."""
    count = len(rows)
    space = empty_space(2 * count + room + ROOM)
    half = LEAF // 2
    leaves = -(-count // half)
    number = np.arange(count)
    leaf, at = number // half, number % half
    space.leaves[leaf, STARTS, at] = rows[:, RECTANGLE_START]
    space.leaves[leaf, ENDS, at] = rows[:, RECTANGLE_END]
    space.leaves[leaf, SLOTS, at] = number
    space.lists[SIZES, :leaves] = np.bincount(leaf, minlength=leaves)[:leaves]
    space.attributes[:count] = rows[:, :ATTRIBUTES]
    space.lists[ORDER, :leaves] = np.arange(leaves)
    space.lists[FIRSTS, :leaves] = rows[::half, RECTANGLE_START]
    space.lists[LARGEST, :leaves] = -2
    space.lists[TO_COUNT, :leaves] = np.arange(leaves)
    totals = space.totals
    totals[LEAVES] = totals[LEAVES_USED] = totals[CHANGED] = leaves
    totals[FREE_LEAVES] -= leaves
    totals[FREE_SLOTS] -= count
    totals[FREE_SLOT] = count
    _count_totals(space, rows)
    return space


def _count_totals(space: Space, rows: Int64Array) -> None:
    """Set the totals that follow from the mappings alone."""
    starts, ends = rows[:, RECTANGLE_START], rows[:, RECTANGLE_END]
    sizes, offsets = ends - starts, rows[:, OFFSET]
    data = ((rows[:, PROT] & PROT_WRITE) != 0) & (rows[:, SHARED] == 0) & ((rows[:, FLAGS] & MAP_GROWSDOWN) == 0)
    same = (rows[1:, [PROT, SHARED, BACKING]] == rows[:-1, [PROT, SHARED, BACKING]]).all(axis=1)
    unbacked = (offsets[1:] == NULL) & (offsets[:-1] == NULL)
    backed = (offsets[1:] != NULL) & (offsets[:-1] != NULL) & (offsets[1:] == offsets[:-1] + sizes[:-1])
    totals = space.totals
    totals[MAPPINGS] = len(rows)
    totals[MAPPED_BYTES] = sizes.sum()
    totals[DATA_BYTES] = sizes[data].sum()
    totals[GAPS] = (ends[:-1] < starts[1:]).sum()
    totals[JOINS] = ((ends[:-1] == starts[1:]) & same & (unbacked | backed)).sum()


def has_room(space: Space, code: int) -> bool:
    """Tell whether an operation fits without growing the arrays of `space`."""
    totals = space.totals
    needed = ROOM // 4
    if code in (OpCode.REMAP, OpCode.REMAP_GIVE):
        needed += totals[MAPPINGS]
    return bool(
        totals[FREE_SLOTS] > needed
        and totals[FREE_LEAVES] > 4 + needed // (LEAF // 2)
        and totals[STASHED] + totals[MAPPINGS] < len(space.stash)
    )


def grown(space: Space) -> Space:
    """Return a space with the same mappings, break and stash, and twice the room."""
    rows = live_rows(space)
    stashed = int(space.totals[STASHED])
    larger = space_of_rows(rows, 2 * (len(rows) + stashed))
    larger.stash[:stashed] = space.stash[:stashed]
    for entry in (BRK, START_BRK, STASHED):
        larger.totals[entry] = space.totals[entry]
    return larger


def round_up(value: int, page: int) -> int:
    """Return `value` rounded up to whole pages, whose size is a power of two."""
    return (value + page - 1) & -page


def count_up_to(ascending: Int64Array, count: int, value: int) -> int:
    """Return how many of the first `count` entries are at most `value`."""
    low = 0
    while count > 0:
        # Both halves are as likely: a product costs less than a branch that the processor guesses wrong, and of a
        # choice of numbers the compiler makes a branch.
        half = (count + 1) >> 1
        low += half * int(ascending[low + half - 1] <= value)
        count -= half
    return low


def locate(space: Space, address: int, last: int = LAST_PLACE) -> tuple[int, int]:
    """Return place and index of the first mapping that ends above `address`; the place past the last if none does.

    The entry `last` of the totals is where the last search ended: an operation mostly asks for the same leaf again.
    """
    leaves = space.totals[LEAVES]
    if leaves == 0:
        return 0, 0
    firsts = space.lists[FIRSTS]
    place = space.totals[last]
    if place >= leaves or address < firsts[place] or (place + 1 < leaves and address >= firsts[place + 1]):
        place = max(count_up_to(firsts, leaves, address) - 1, 0)
        space.totals[last] = place
    leaf = space.lists[ORDER, place]
    size = space.lists[SIZES, leaf]
    index = count_up_to(space.leaves[leaf, ENDS], size, address)
    if index == size:
        return place + 1, 0
    return place, index


def mapping_before(space: Space, place: int, index: int) -> tuple[int, int]:
    """Return the leaf and index of the mapping before (place, index); leaf -1 if it is the first."""
    if index > 0:
        return space.lists[ORDER, place], index - 1
    if place == 0:
        return -1, 0
    leaf = space.lists[ORDER, place - 1]
    return leaf, space.lists[SIZES, leaf] - 1


def mapping_after(space: Space, place: int, index: int) -> tuple[int, int]:
    """Return place and index of the mapping behind (place, index); the place past the last if there is none."""
    if index + 1 < space.lists[SIZES, space.lists[ORDER, place]]:
        return place, index + 1
    return place + 1, 0


def neighbours(space: Space, place: int, index: int) -> tuple[int, int, int, int]:
    """Return leaf and index of the mapping before (place, index) and of the one behind it; leaf -1 where none is."""
    leaf = space.lists[ORDER, place]
    before_leaf, before_index = mapping_before(space, place, index)
    if index + 1 < space.lists[SIZES, leaf]:
        return before_leaf, before_index, leaf, index + 1
    if place + 1 < space.totals[LEAVES]:
        return before_leaf, before_index, space.lists[ORDER, place + 1], 0
    return before_leaf, before_index, -1, 0


def slot_of(space: Space, place: int, index: int) -> int:
    """Return the row of `Space.attributes` that belongs to the mapping at (place, index)."""
    return int(space.leaves[space.lists[ORDER, place], SLOTS, index])


def copy_attributes(attributes: Int64Array, to: Int64Array) -> None:
    """Write the row `attributes` over the row `to`."""
    for column in range(ATTRIBUTES):
        to[column] = attributes[column]


def is_mapped_inside(space: Space, start: int, end: int) -> bool:
    """Tell whether any page of `[start, end)` is mapped."""
    place, index = locate(space, start)
    return bool(place < space.totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < end)


HELPERS: Final = (locate,)
"""What the compiled loop calls of this module."""

INLINED: Final = (
    has_room,
    round_up,
    count_up_to,
    mapping_before,
    mapping_after,
    neighbours,
    slot_of,
    copy_attributes,
    is_mapped_inside,
)
"""What becomes part of its callers: called for every operation, some of it many times."""
