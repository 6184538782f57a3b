"""The arrays that hold one address space, and looking in them.

In go rows of mappings, out come spaces, and rows again; in a space, the place of the mapping at an address and its
neighbours. Mappings stand in leaves of at most `LEAF` neighbours, so a change costs the same with sixty thousand
mappings as with sixty. How a space changes is not known here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.engine.records import Records, layout, numbers_of
from replay.mm.fields import MAP_GROWSDOWN, MAPPING, PROT_WRITE, RECTANGLE, Mapping, OpCode

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


class State:
    """The numbers of a space: its break, its sizes, and where the next leaf and slot are free.

    The largest gap is that of the last count; `changed` leaves are to be counted anew. The places are where the last
    searches ended: an operation mostly asks for the same leaf again. `read` keeps alive what was read ahead.
    """

    brk: int
    start_brk: int
    mappings: int
    mapped_bytes: int
    data_bytes: int
    gaps: int
    joins: int
    largest_gap: int
    divergence: int
    leaves: int
    leaves_used: int
    free_leaves: int
    changed: int
    free_slot: int
    free_slots: int
    stashed: int
    ended: int
    last_place: int
    last_brk_place: int
    read: int


class Leaf:
    """The first `size` entries are mappings, neighbours in order of addresses: `[start, end)`, and the slot of each."""

    size: int
    starts: Int64Array
    ends: Int64Array
    slots: Int64Array


class Piece(Mapping):
    """A mapping at `[start, end)` that the remap of a step took up."""

    step: int
    start: int
    end: int


class Asked:
    """The address that an operation to come asks for, and the place of its leaf."""

    address: int
    place: int


class Space(NamedTuple):
    """The arrays that hold one address space.

    By leaf: `leaves`, and `largest`, the largest gap behind one of its mappings. By place in the order of addresses:
    `order`, which leaf stands there, and `firsts`, where its first mapping starts. Stacks of leaves: those `to_count`
    anew, and the `unused` ones. By slot: `mappings`. The pieces of remaps under way are the `stash`; `ahead` is what
    the next operations ask for. Rectangles that ended go to `ended`, which spaces share: who runs them takes them out.
    """

    state: State
    leaves: Records
    largest: Int64Array
    order: Int64Array
    firsts: Int64Array
    to_count: Int64Array
    unused: Int64Array
    ahead: Records
    mappings: Records
    stash: Records
    ended: Records


_OF_MAPPING: Final = MAPPING.itemsize // 8
"""Numbers of a mapping, with which a rectangle begins."""

_STATE: Final = layout(State)
_LEAF: Final = layout(Leaf, starts=LEAF, ends=LEAF, slots=LEAF)
PIECE: Final = layout(Piece)
_ASKED: Final = layout(Asked)


def _zeros(count: int, of: np.dtype[np.void]) -> Records:
    """Return rows of zeros; many of them begin with a line of the processor's cache.

    Then a leaf, or the row of a slot, lies in as few lines as can be: so many are read ahead line by line.
    """
    if count <= READ_AHEAD_ABOVE:
        return np.zeros(count, of)
    room = np.zeros(count * of.itemsize + 8 * LINE, np.uint8)
    return np.ndarray(count, of, room, -room.ctypes.data % (8 * LINE))


def empty_space(slots: int = ROOM) -> Space:
    """Return a space without mappings that has room for about `slots` of them."""
    leaves = 12 + 3 * slots // LEAF
    largest, order, firsts, to_count, unused = np.zeros((5, leaves), np.int64)
    unused[:] = np.arange(leaves)[::-1]
    state = np.zeros(1, _STATE)[0]
    state.free_leaves, state.free_slots = leaves, slots
    state.brk = state.start_brk = NULL
    return Space(
        state=state,
        leaves=_zeros(leaves, _LEAF),
        largest=largest,
        order=order,
        firsts=firsts,
        to_count=to_count,
        unused=unused,
        ahead=np.zeros(AHEAD, _ASKED),
        mappings=_zeros(slots, MAPPING),
        stash=np.zeros(slots + 16, PIECE),
        ended=np.zeros(0, RECTANGLE),
    )


def live_rows(space: Space) -> Records:
    """Return a rectangle for each live mapping, in order of addresses; the line where it died is null."""
    order = space.order[: space.state.leaves]
    held = np.arange(LEAF) < space.leaves["size"][order][:, None]
    starts, ends, slots = (space.leaves[part][order][held] for part in ("starts", "ends", "slots"))
    rows = np.empty(len(slots), RECTANGLE)
    numbers_of(rows)[:, :_OF_MAPPING] = numbers_of(space.mappings)[slots]
    rows["start"], rows["end"], rows["died_line"] = starts, ends, NULL
    return rows


def space_of_rows(rows: Records, room: int = 0) -> Space:
    """Return a space that holds the mappings of `rows` (as `live_rows` gives them) with room for `room` more."""
    count = len(rows)
    space = empty_space(2 * count + room + ROOM)
    half = LEAF // 2
    leaves = -(-count // half)
    number = np.arange(count)
    leaf, at = number // half, number % half
    space.leaves["starts"][leaf, at] = rows["start"]
    space.leaves["ends"][leaf, at] = rows["end"]
    space.leaves["slots"][leaf, at] = number
    space.leaves["size"][:leaves] = np.bincount(leaf, minlength=leaves)[:leaves]
    numbers_of(space.mappings)[:count] = numbers_of(rows)[:, :_OF_MAPPING]
    space.order[:leaves] = np.arange(leaves)
    space.firsts[:leaves] = rows["start"][::half]
    space.largest[:leaves] = -2
    space.to_count[:leaves] = np.arange(leaves)
    state = space.state
    state.leaves = state.leaves_used = state.changed = leaves
    state.free_leaves -= leaves
    state.free_slots -= count
    state.free_slot = count
    _count_totals(space, rows)
    return space


def _count_totals(space: Space, rows: Records) -> None:
    """Set the totals that follow from the mappings alone."""
    starts, ends, offsets = rows["start"], rows["end"], rows["offset"]
    sizes = ends - starts
    data = ((rows["prot"] & PROT_WRITE) != 0) & (rows["shared"] == 0) & ((rows["flags"] & MAP_GROWSDOWN) == 0)
    joins = (ends[:-1] == starts[1:]) & ((offsets[1:] == NULL) == (offsets[:-1] == NULL))
    joins &= (offsets[1:] == NULL) | (offsets[1:] == offsets[:-1] + sizes[:-1])
    for name in ("prot", "shared", "backing"):
        joins &= rows[name][1:] == rows[name][:-1]
    state = space.state
    state.mappings = len(rows)
    state.mapped_bytes = sizes.sum()
    state.data_bytes = sizes[data].sum()
    state.gaps = int(np.count_nonzero(ends[:-1] < starts[1:]))
    state.joins = int(np.count_nonzero(joins))


def has_room(space: Space, code: int) -> bool:
    """Tell whether an operation fits without growing the arrays of `space`."""
    state = space.state
    needed = ROOM // 4
    if code in (OpCode.REMAP, OpCode.REMAP_GIVE):
        needed += state.mappings
    return bool(
        state.free_slots > needed
        and state.free_leaves > 4 + needed // (LEAF // 2)
        and state.stashed + state.mappings < len(space.stash)
        and state.ended + 2 * state.mappings + ROOM // 2 <= len(space.ended)
    )


def grown(space: Space) -> Space:
    """Return a space with the same mappings, break and stash, and twice the room."""
    rows, state = live_rows(space), space.state
    larger = space_of_rows(rows, 2 * (len(rows) + int(state.stashed)))
    larger.stash[: state.stashed] = space.stash[: state.stashed]
    larger.state.brk, larger.state.start_brk, larger.state.stashed = state.brk, state.start_brk, state.stashed
    return larger._replace(ended=space.ended)


def page_align(value: int, page: int) -> int:
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


def leaf_at(space: Space, place: int) -> Leaf:
    """Return the leaf at a place in the order of addresses."""
    leaf: Leaf = space.leaves[space.order[place]]
    return leaf


def mapping_at(space: Space, place: int, index: int) -> Mapping:
    """Return what is known of the mapping at (place, index)."""
    mapping: Mapping = space.mappings[leaf_at(space, place).slots[index]]
    return mapping


def find_vma(space: Space, address: int) -> tuple[int, int]:
    """Return place and index of the first mapping that ends above `address`; the place past the last if none does.

    Source: mm/mmap.c, find_vma.
    """
    state = space.state
    if state.leaves == 0:
        return 0, 0
    state.last_place = place_of(space, address, state.last_place)
    return find_from(space, state.last_place, address)


def place_of(space: Space, address: int, guess: int) -> int:
    """Return the place of the last leaf that starts at `address` or below, or 0; looked for first at `guess`."""
    leaves, firsts = space.state.leaves, space.firsts
    if guess >= leaves or address < firsts[guess] or (guess + 1 < leaves and address >= firsts[guess + 1]):
        return max(count_up_to(firsts, leaves, address) - 1, 0)
    return guess


def find_from(space: Space, place: int, address: int) -> tuple[int, int]:
    """Return what `find_vma` does, where `place` is what `place_of` gives."""
    leaf = leaf_at(space, place)
    index = count_up_to(leaf.ends, leaf.size, address)
    if index == leaf.size:
        return place + 1, 0
    return place, index


def mapping_before(space: Space, place: int, index: int) -> tuple[int, int]:
    """Return the leaf and index of the mapping before (place, index); leaf -1 if it is the first."""
    if index > 0:
        return int(space.order[place]), index - 1
    if place == 0:
        return -1, 0
    return int(space.order[place - 1]), leaf_at(space, place - 1).size - 1


def mapping_after(space: Space, place: int, index: int) -> tuple[int, int]:
    """Return place and index of the mapping behind (place, index); the place past the last if there is none."""
    if index + 1 < leaf_at(space, place).size:
        return place, index + 1
    return place + 1, 0


def neighbours(space: Space, place: int, index: int) -> tuple[int, int, int, int]:
    """Return leaf and index of the mapping before (place, index) and of the one behind it; leaf -1 where none is."""
    before_leaf, before_index = mapping_before(space, place, index)
    if index + 1 < leaf_at(space, place).size:
        return before_leaf, before_index, int(space.order[place]), index + 1
    if place + 1 < space.state.leaves:
        return before_leaf, before_index, int(space.order[place + 1]), 0
    return before_leaf, before_index, -1, 0


def copy_mapping(mapping: Mapping, to: Mapping) -> None:
    """Write what is known of a mapping over what is known of another."""
    to.prot = mapping.prot
    to.shared = mapping.shared
    to.backing = mapping.backing
    to.offset = mapping.offset
    to.flags = mapping.flags
    to.kind = mapping.kind
    to.path = mapping.path
    to.origin = mapping.origin
    to.made_line = mapping.made_line
    to.made_step = mapping.made_step
    to.born_line = mapping.born_line
    to.born_step = mapping.born_step


def is_mapped_inside(space: Space, start: int, end: int) -> bool:
    """Tell whether any page of `[start, end)` is mapped."""
    place, index = find_vma(space, start)
    return bool(place < space.state.leaves and leaf_at(space, place).starts[index] < end)


HELPERS: Final = (find_vma,)
"""What the compiled loop calls of this module."""

INLINED: Final = (
    has_room,
    page_align,
    count_up_to,
    leaf_at,
    mapping_at,
    place_of,
    find_from,
    mapping_before,
    mapping_after,
    neighbours,
    copy_mapping,
    is_mapped_inside,
)
"""What becomes part of its callers: called for every operation, some of it many times."""
