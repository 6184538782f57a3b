"""One Linux address space: its mappings in order of addresses, and the kernel's verbs on them.

In go rows of verbs (map, unmap, protect, remap, brk …), out come rectangles: a mapping is written out when it dies,
with the lines of its birth and death. Of traces, processes and allocators this module knows nothing.

The functions are plain Python over NumPy arrays and keep to what numba compiles. Mappings stand in leaves of at most
`LEAF` neighbours, so a change costs the same with sixty thousand mappings as with sixty; what the report asks after
each change (bytes, gaps, joined neighbours) is kept up to date by `_insert` and `_remove` alone.
"""

from __future__ import annotations

from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.native import Loop

LEAF: Final = 24
"""Mappings that one leaf holds at most. Measured: among many, larger ones are slower to read, smaller ones to find."""

AHEAD: Final = 16
"""Verbs for which `_read_ahead` reads at a time. Measured."""

READ_AHEAD_ABOVE: Final = 3_000
"""Leaves above which reading ahead pays: fewer stay in the processor's cache. Measured."""

LINE: Final = 8
"""Numbers that lie in one line of the processor's cache: of 64 bytes, as on x86 and most ARM."""

ROOM: Final = 96
"""Mappings for which a new space has room beyond twice those that it begins with."""

# Columns of `Space.attributes`: what is known of a live mapping besides its range. The first four, which decide whether
# neighbours are one line of /proc/PID/maps, are read the most and lie together.
PROT: Final = 0
SHARED: Final = 1
BACKING: Final = 2
OFFSET: Final = 3
FLAGS: Final = 4
KIND: Final = 5
PATH: Final = 6
ORIGIN: Final = 7
MADE: Final = 8
MADE_STEP: Final = 9
BORN: Final = 10
BORN_STEP: Final = 11
ATTRIBUTES: Final = 12

NEXT_FREE: Final = 0
"""The column of `Space.attributes` in which a slot without a mapping tells how many slots lie before the next such one.

Zeros are a list of all slots as they stand: the memory of those that are never used is never touched.
"""

# What `Space.leaves` knows of the mappings of a leaf.
STARTS: Final = 0
ENDS: Final = 1
SLOTS: Final = 2
OF_MAPPING: Final = 3

# Rows of `Space.lists`: by leaf, by place in the order of addresses, stacks of leaves, and by verb read ahead for.
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
FINGER: Final = 15
BRK_FINGER: Final = 16
FREE_SLOT: Final = 17
READ: Final = 18
TOTALS: Final = 19

# Kinds of mappings; `KINDS` names them in this order.
KIND_BRK: Final = 0
KIND_ANON: Final = 1
KIND_FILE: Final = 2
KIND_SHM: Final = 3
KIND_STACK: Final = 4
KIND_IMAGE: Final = 5
KIND_SPECIAL: Final = 6
KIND_UNKNOWN: Final = 7
KINDS: Final = ("brk", "anon", "file", "shm", "stack", "image", "special", "unknown")

ORIGIN_TRACE: Final = 0
ORIGIN_MAPS: Final = 1
ORIGIN_INFERRED: Final = 2
ORIGINS: Final = ("trace", "maps", "inferred")

# Columns of a row of verbs.
ROW_CLOCK: Final = 0
ROW_STEP: Final = 1
ROW_VERB: Final = 2
ROW_ADDR: Final = 3
ROW_LENGTH: Final = 4
ROW_PROT: Final = 5
ROW_FLAGS: Final = 6
ROW_SHARED: Final = 7
ROW_KIND: Final = 8
ROW_PATH: Final = 9
ROW_OFFSET: Final = 10
ROW_RESULT: Final = 11
ROW_OLD_LENGTH: Final = 12
ROW_BRK: Final = 12
"""The old length of a remap; the place of a brk call in the table of what brk calls met."""
ROW_ERRNO: Final = 13
ROW_WIDTH: Final = 14

VERB_MAP: Final = 0
VERB_UNMAP: Final = 1
VERB_PROTECT: Final = 2
VERB_BRK: Final = 3
VERB_REMAP: Final = 4
VERB_REMAP_TAKE: Final = 5
VERB_REMAP_GIVE: Final = 6
VERB_DETACH: Final = 7
VERB_NAME: Final = 8
VERB_MARK: Final = 9
VERB_SET_BRK: Final = 10
VERB_REMAP_FILE: Final = 11
VERB_DELETED: Final = 12

# Columns of a written-out rectangle: `ATTRIBUTES` ones, then the range and the end.
DEAD_START: Final = ATTRIBUTES
DEAD_END: Final = ATTRIBUTES + 1
DEAD_CLOCK: Final = ATTRIBUTES + 2
DEAD_WIDTH: Final = ATTRIBUTES + 3

# Columns of what each verb leaves behind for the report.
CHANGE_BYTES: Final = 0
CHANGE_MAPPINGS: Final = 1
CHANGE_BRK_BYTES: Final = 2
CHANGE_HEADROOM: Final = 3
CHANGE_GAPS: Final = 4
CHANGE_GAP_BYTES: Final = 5
CHANGE_LARGEST_GAP: Final = 6
CHANGE_DIVERGENCE: Final = 7
CHANGE_BRK_BEFORE: Final = 8
CHANGE_BRK_AFTER: Final = 9
CHANGE_WIDTH: Final = 10

# Columns of what a brk call met: the private writable bytes of the space and the first mapping above the break.
MET_DATA_BYTES: Final = 0
MET_START: Final = 1
MET_END: Final = 2
MET_MADE: Final = 3
MET_PROT: Final = 4
MET_PATH: Final = 5
MET_FLAGS: Final = 6
MET_KIND: Final = 7
MET_SHARED: Final = 8
MET_WIDTH: Final = 9

# Why a row contradicts the model; the kernel's answer wins.
NO_DIVERGENCE: Final = 0
MAP_OVER_MAPPING: Final = 1
BRK_OVER_MAPPING: Final = 2
REMAP_OVER_MAPPING: Final = 3
UNMAP_UNKNOWN: Final = 4
PROTECT_UNKNOWN: Final = 5
REMAP_UNKNOWN: Final = 6
BRK_MOVED: Final = 7
IMPOSSIBLE_RANGE: Final = 8

HIGHEST: Final = 1 << 57
"""No address of a program lies as high. Source: arch/x86/include/asm/page_64_types.h, __VIRTUAL_MASK_SHIFT 56."""

BORDER: Final = 1 << 48
"""No mapping begins below and ends above it. With tables of four levels all of a program's addresses lie below; with
five, those above are for who asks for them, and no mapping reaches across. Source: Documentation/arch/x86/x86_64/
5level-paging.rst; arch/x86/mm/mmap.c, mmap_address_hint_valid; arch/arm64/include/asm/memory.h, VA_BITS_MIN 48.
"""

HIGHEST_OFFSET: Final = 1 << 62
"""No file is as long. Source: include/linux/fs.h, MAX_LFS_FILESIZE; mm/mmap.c, file_mmap_ok."""

PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
PROT_GROWSDOWN: Final = 0x01000000
MAP_FIXED: Final = 0x10
MAP_GROWSDOWN: Final = 0x100
MAP_HUGETLB: Final = 0x40000
MAP_HUGE_SHIFT: Final = 26
MAP_HUGE_MASK: Final = 0x3F
MAP_FIXED_NOREPLACE: Final = 0x100000
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4
FRESH: Final = -2
"""`START_BRK` of a space whose first `brk(NULL)` will tell it: nothing has run in it yet."""
DONTFORK: Final = 1 << 40
"""Marks, in the flags of a mapping, that `madvise(MADV_DONTFORK)` keeps it out of a fork's child."""
MOVED: Final = -3
"""`START_BRK` of a space whose break was moved to where no line tells: the next `brk` does."""
SEALED: Final = 1 << 41
"""Marks, in the flags of a mapping, that `mseal` forbids to change it."""
EPERM: Final = 1
ENOMEM: Final = 12
EACCES: Final = 13
DEFAULT_HUGE_PAGE: Final = 2 << 20
"""Bytes of a huge page where the flags name no size. Source: arch/x86/include/asm/page_types.h, HPAGE_SIZE."""


class Space(NamedTuple):
    """The arrays that hold one address space: few, because a compiled call hands over each with its shape and strides.

    `leaves` is (leaves, OF_MAPPING, LEAF): starts, ends and slots of the mappings of each leaf. `lists` is (LISTS,
    leaves): how many mappings a leaf holds and the largest gap behind one of them; which leaf stands at a place in the
    order of addresses and where its first mapping starts; the leaves whose gaps must be counted anew; those unused;
    the places and addresses that the next verbs ask for.
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
    """Return one row a live mapping in order of addresses: its attributes, start and end (`DEAD_WIDTH` columns)."""
    order = space.lists[ORDER, : space.totals[LEAVES]]
    held = np.arange(LEAF) < space.lists[SIZES, order][:, None]
    starts, ends, slots = (space.leaves[order, part][held] for part in (STARTS, ENDS, SLOTS))
    rows = np.full((len(slots), DEAD_WIDTH), NULL, np.int64)
    rows[:, :ATTRIBUTES] = space.attributes[slots]
    rows[:, DEAD_START], rows[:, DEAD_END] = starts, ends
    return rows


def space_of_rows(rows: Int64Array, room: int = 0) -> Space:
    """Return a space that holds the mappings of `rows` (as `live_rows` gives them) with room for `room` more."""
    count = len(rows)
    space = empty_space(2 * count + room + ROOM)
    half = LEAF // 2
    leaves = -(-count // half)
    number = np.arange(count)
    leaf, at = number // half, number % half
    space.leaves[leaf, STARTS, at] = rows[:, DEAD_START]
    space.leaves[leaf, ENDS, at] = rows[:, DEAD_END]
    space.leaves[leaf, SLOTS, at] = number
    space.lists[SIZES, :leaves] = np.bincount(leaf, minlength=leaves)[:leaves]
    space.attributes[:count] = rows[:, :ATTRIBUTES]
    space.lists[ORDER, :leaves] = np.arange(leaves)
    space.lists[FIRSTS, :leaves] = rows[::half, DEAD_START]
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
    starts, ends = rows[:, DEAD_START], rows[:, DEAD_END]
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


def _has_room(space: Space, verb: int) -> bool:
    """Tell whether a verb fits without growing the arrays of `space`."""
    totals = space.totals
    needed = ROOM // 4
    if verb in (VERB_REMAP, VERB_REMAP_GIVE):
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


def run(  # noqa: PLR0912 - one branch a verb; numba wants the dispatch in one place
    space: Space,
    rows: Int64Array,
    chosen: Int64Array,
    bounds: tuple[int, int],
    dead: Int64Array,
    changes: Int64Array,
    met: Int64Array,
    page: int,
) -> tuple[int, int]:
    """Apply some rows to `space`, write out what dies, and fill one row of `changes` for each, of `met` for brk.

    They are those whose numbers are `chosen[bounds[0]:bounds[1]]`. Returns the place in `chosen` of the first one not
    applied (because the space or `dead` needs more room) and the count of rows in `dead`.
    """
    totals = space.totals
    dead_count = 0
    for at in range(bounds[0], bounds[1]):
        if totals[LEAVES] > READ_AHEAD_ABOVE:
            turn = (at - bounds[0]) % AHEAD
            if turn == 0:
                _read_ahead(space, rows, chosen, at, min(at + AHEAD, bounds[1]))
            totals[FINGER] = space.lists[NEXT_PLACE, turn]
        row = rows[chosen[at]]
        change = changes[chosen[at]]
        verb = row[ROW_VERB]
        if dead_count + 2 * totals[MAPPINGS] + ROOM // 2 > len(dead) or not _has_room(space, verb):
            return at, dead_count
        totals[DIVERGENCE] = NO_DIVERGENCE
        change[CHANGE_BRK_BEFORE] = totals[BRK]
        if _is_impossible(row, page):
            totals[DIVERGENCE] = IMPOSSIBLE_RANGE
        elif verb == VERB_MAP:
            dead_count = _map(space, row, dead, dead_count, page)
        elif verb == VERB_UNMAP:
            dead_count = _unmap(space, row, dead, dead_count, page)
        elif verb == VERB_PROTECT:
            dead_count = _protect(space, row, dead, dead_count, page)
        elif verb == VERB_BRK:
            _describe_above(space, met[row[ROW_BRK]], page)
            dead_count = _brk(space, row, dead, dead_count, page)
        elif verb == VERB_REMAP:
            unit = _taken_unit(space, row, page)
            dead_count = _remap_take(space, row, dead, dead_count, unit)
            dead_count = _remap_give(space, row, dead, dead_count, unit)
        elif verb == VERB_REMAP_TAKE:
            dead_count = _remap_take(space, row, dead, dead_count, _taken_unit(space, row, page))
        elif verb == VERB_REMAP_GIVE:
            dead_count = _remap_give(space, row, dead, dead_count, _taken_unit(space, row, page))
        elif verb == VERB_DETACH:
            dead_count = _detach(space, row, dead, dead_count)
        elif verb == VERB_SET_BRK:
            _set_brk(totals, row)
        elif verb == VERB_DELETED:
            dead_count = _rename_path(space, row, dead, dead_count)
        else:
            dead_count = _edit(space, row, dead, dead_count, page)
        _measure(space, change, page)
    return bounds[1], dead_count


def _read_ahead(space: Space, rows: Int64Array, chosen: Int64Array, first: int, end: int) -> None:
    """Find the places that the rows `chosen[first:end]` ask for, and read what stands there.

    A verb by itself waits for the memory several times, one after the other: for its leaf, for the slots that the leaf
    names, for their attributes. Here each loop waits once for all verbs. What a verb changes, the next one may find
    elsewhere: the places are guesses, as a finger is.
    """
    totals, lists, leaves = space.totals, space.lists, space.leaves
    places, addresses = lists[NEXT_PLACE], lists[NEXT_ADDRESS]
    read = 0
    for turn in range(end - first):
        row = rows[chosen[first + turn]]
        address = row[ROW_RESULT] if row[ROW_VERB] == VERB_MAP else row[ROW_ADDR]
        addresses[turn] = address
        places[turn] = max(_count_up_to(lists[FIRSTS], totals[LEAVES], address) - 1, 0)
    for turn in range(end - first):
        leaf = lists[ORDER, places[turn]]
        for at in range(0, LEAF, LINE):
            read ^= leaves[leaf, STARTS, at] ^ leaves[leaf, ENDS, at] ^ leaves[leaf, SLOTS, at]
    for turn in range(end - first):
        leaf = lists[ORDER, places[turn]]
        size = lists[SIZES, leaf]
        index = min(_count_up_to(leaves[leaf, ENDS], size, addresses[turn]), size - 1)
        slots = leaves[leaf, SLOTS]
        before, slot, after = slots[max(index - 1, 0)], slots[index], slots[min(index + 1, size - 1)]
        read ^= space.attributes[before, PROT] ^ space.attributes[after, PROT]
        read ^= space.attributes[slot, PROT] ^ space.attributes[slot, MADE]
    totals[READ] = read  # else the compiler would see that no one needs what was read, and not read it


def _is_impossible(row: Int64Array, page: int) -> bool:
    """Tell whether a row names addresses, lengths or offsets that no address space has: its line is damaged.

    A break may be asked for anywhere, and be anything below the highest address; all others begin with a page.
    """
    is_brk = row[ROW_VERB] == VERB_BRK
    addr = 0 if is_brk else row[ROW_ADDR]
    result, length, old_length = row[ROW_RESULT], row[ROW_LENGTH], row[ROW_OLD_LENGTH]
    start = result if row[ROW_VERB] == VERB_MAP else addr
    if min(addr, result, length, old_length) < 0 or max(addr, result, length, old_length) > HIGHEST:
        return True
    if row[ROW_VERB] == VERB_DELETED:
        return False
    if start + length > HIGHEST or start < BORDER < start + length or row[ROW_OFFSET] > HIGHEST_OFFSET:
        return True
    return bool(not is_brk and (result & (page - 1) or (row[ROW_VERB] != VERB_SET_BRK and start & (page - 1))))


def _set_brk(totals: Int64Array, row: Int64Array) -> None:
    """Set the break, its start (`flags` 1), or forget both (`flags` 2). Source: prctl(2), PR_SET_MM."""
    if row[ROW_FLAGS] == 2:
        totals[BRK] = NULL
        totals[START_BRK] = MOVED
    elif row[ROW_FLAGS]:
        totals[START_BRK] = row[ROW_ADDR]
    else:
        totals[BRK] = row[ROW_ADDR]


def _round_up(value: int, page: int) -> int:
    """Return `value` rounded up to whole pages, whose size is a power of two."""
    return (value + page - 1) & -page


def _shift_up(row: Int64Array, index: int, size: int) -> None:
    """Make room at `index` of a row that holds `size` entries."""
    for at in range(size, index, -1):
        row[at] = row[at - 1]


def _shift_down(row: Int64Array, index: int, size: int) -> None:
    """Close the gap at `index` of a row that holds `size` entries."""
    for at in range(index, size - 1):
        row[at] = row[at + 1]


# --- the order of mappings -------------------------------------------------------------------------------------------


def _count_up_to(ascending: Int64Array, count: int, value: int) -> int:
    """Return how many of the first `count` entries are at most `value`."""
    low = 0
    while count > 0:
        # Both halves are as likely: a product costs less than a branch that the processor guesses wrong, and of a
        # choice of numbers the compiler makes a branch.
        half = (count + 1) >> 1
        low += half * int(ascending[low + half - 1] <= value)
        count -= half
    return low


def _locate(space: Space, address: int, finger: int = FINGER) -> tuple[int, int]:
    """Return place and index of the first mapping that ends above `address`; the place past the last if none does.

    The entry `finger` of the totals is where the last search ended: a verb mostly asks for the same leaf again.
    """
    leaves = space.totals[LEAVES]
    if leaves == 0:
        return 0, 0
    firsts = space.lists[FIRSTS]
    place = space.totals[finger]
    if place >= leaves or address < firsts[place] or (place + 1 < leaves and address >= firsts[place + 1]):
        place = max(_count_up_to(firsts, leaves, address) - 1, 0)
        space.totals[finger] = place
    leaf = space.lists[ORDER, place]
    size = space.lists[SIZES, leaf]
    index = _count_up_to(space.leaves[leaf, ENDS], size, address)
    if index == size:
        return place + 1, 0
    return place, index


def _before(space: Space, place: int, index: int) -> tuple[int, int]:
    """Return the leaf and index of the mapping before (place, index); leaf -1 if it is the first."""
    if index > 0:
        return space.lists[ORDER, place], index - 1
    if place == 0:
        return -1, 0
    leaf = space.lists[ORDER, place - 1]
    return leaf, space.lists[SIZES, leaf] - 1


def _after(space: Space, place: int, index: int) -> tuple[int, int]:
    """Return place and index of the mapping behind (place, index); the place past the last if there is none."""
    if index + 1 < space.lists[SIZES, space.lists[ORDER, place]]:
        return place, index + 1
    return place + 1, 0


def _joined(space: Space, leaf: int, index: int, next_leaf: int, next_index: int) -> int:
    """Return 1 if two neighbours are one line of /proc/PID/maps once equal neighbours are joined, else 0."""
    if space.leaves[leaf, ENDS, index] != space.leaves[next_leaf, STARTS, next_index]:
        return 0
    a = space.attributes[space.leaves[leaf, SLOTS, index]]
    b = space.attributes[space.leaves[next_leaf, SLOTS, next_index]]
    if a[PROT] != b[PROT] or a[SHARED] != b[SHARED] or a[BACKING] != b[BACKING]:
        return 0
    if a[OFFSET] == NULL or b[OFFSET] == NULL:
        return 1 if a[OFFSET] == b[OFFSET] else 0
    return 1 if b[OFFSET] == a[OFFSET] + space.leaves[leaf, ENDS, index] - space.leaves[leaf, STARTS, index] else 0


def _neighbours(space: Space, place: int, index: int) -> tuple[int, int, int, int]:
    """Return leaf and index of the mapping before (place, index) and of the one behind it; leaf -1 where none is."""
    leaf = space.lists[ORDER, place]
    before_leaf, before_index = _before(space, place, index)
    if index + 1 < space.lists[SIZES, leaf]:
        return before_leaf, before_index, leaf, index + 1
    if place + 1 < space.totals[LEAVES]:
        return before_leaf, before_index, space.lists[ORDER, place + 1], 0
    return before_leaf, before_index, -1, 0


def _account(space: Space, place: int, index: int, sign: int) -> None:
    """Add (`sign` 1) or take away (-1) a mapping at (place, index) and what it makes of the gap in which it lies."""
    leaf = space.lists[ORDER, place]
    start, end = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
    before_leaf, before_index, after_leaf, after_index = _neighbours(space, place, index)
    space.totals[MAPPINGS] += sign
    _weigh(space, place, index, sign)
    above = space.leaves[after_leaf, STARTS, after_index] - end if after_leaf >= 0 else 0
    if before_leaf >= 0:
        below = start - space.leaves[before_leaf, ENDS, before_index]
        whole = below + end - start + above if after_leaf >= 0 else 0
        _change_gap(space, before_leaf, whole if sign > 0 else below, below if sign > 0 else whole)
    _change_gap(space, leaf, 0 if sign > 0 else above, above if sign > 0 else 0)


def _weigh(space: Space, place: int, index: int, sign: int) -> None:
    """Add or take away the bytes of the mapping at (place, index), and whether it joins its neighbours."""
    totals = space.totals
    leaf = space.lists[ORDER, place]
    size = space.leaves[leaf, ENDS, index] - space.leaves[leaf, STARTS, index]
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    totals[MAPPED_BYTES] += sign * size
    if attributes[PROT] & PROT_WRITE and not attributes[SHARED] and not attributes[FLAGS] & MAP_GROWSDOWN:
        totals[DATA_BYTES] += sign * size
    before_leaf, before_index, after_leaf, after_index = _neighbours(space, place, index)
    if before_leaf >= 0:
        totals[JOINS] += sign * _joined(space, before_leaf, before_index, leaf, index)
    if after_leaf >= 0:
        totals[JOINS] += sign * _joined(space, leaf, index, after_leaf, after_index)


def _change_gap(space: Space, leaf: int, before: int, after: int) -> None:
    """Have a gap behind a mapping of `leaf` be `after` bytes long instead of `before`; 0 is none."""
    if before == after:
        return
    totals = space.totals
    totals[GAPS] += int(after > 0) - int(before > 0)
    largest = space.lists[LARGEST, leaf]
    if largest < 0:
        return
    if after >= largest:
        space.lists[LARGEST, leaf] = after
        totals[LARGEST_GAP] = max(totals[LARGEST_GAP], after)
    elif before == largest:
        _mark_changed(space, leaf)


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
    _mark_changed(space, leaf)
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
    _mark_changed(space, full)


def _insert(space: Space, place: int, index: int, start: int, end: int) -> tuple[int, int]:
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


def _insert_free(space: Space, start: int, end: int) -> tuple[int, int]:
    """Do what `_insert` does where `[start, end)`, which must be free, belongs."""
    place, index = _locate(space, start)
    leaves = space.totals[LEAVES]
    if leaves == 0:
        _new_leaf(space, 0)
    elif place == leaves:
        place = leaves - 1
        index = space.lists[SIZES, space.lists[ORDER, place]]
    return _insert(space, place, index, start, end)


def _slot(space: Space, place: int, index: int) -> int:
    """Return the row of `Space.attributes` that belongs to the mapping at (place, index)."""
    return int(space.leaves[space.lists[ORDER, place], SLOTS, index])


def _copy(attributes: Int64Array, to: Int64Array) -> None:
    """Write the row `attributes` over the row `to`."""
    for column in range(ATTRIBUTES):
        to[column] = attributes[column]


def _add(space: Space, start: int, end: int, attributes: Int64Array) -> None:
    """Insert a mapping of `[start, end)`, which must be free, with a copy of `attributes`."""
    place, index = _insert_free(space, start, end)
    _copy(attributes, space.attributes[_slot(space, place, index)])
    _account(space, place, index, 1)


def _remove(space: Space, place: int, index: int) -> None:
    """Take the mapping at (place, index) out of the order and free its slot."""
    _account(space, place, index, -1)
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


# --- rectangles ------------------------------------------------------------------------------------------------------


def _write_out(space: Space, place: int, index: int, clock: int, dead: Int64Array, dead_count: int) -> int:
    """Write out the mapping at (place, index) as a rectangle that ends at `clock`.

    A mapping that would live from a line to the same line never was seen at any line and is not written.
    """
    leaf = space.lists[ORDER, place]
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    if attributes[BORN] != clock:
        _copy(attributes, dead[dead_count])
        dead[dead_count, DEAD_START] = space.leaves[leaf, STARTS, index]
        dead[dead_count, DEAD_END] = space.leaves[leaf, ENDS, index]
        dead[dead_count, DEAD_CLOCK] = clock
        dead_count += 1
    return dead_count


def _die(space: Space, place: int, index: int, clock: int, dead: Int64Array, dead_count: int) -> int:
    """Write out the mapping at (place, index) as a rectangle that ends at `clock` and remove it."""
    dead_count = _write_out(space, place, index, clock, dead, dead_count)
    _remove(space, place, index)
    return dead_count


def _lift(space: Space, place: int, index: int, clock: int, step: int, dead: Int64Array, dead_count: int) -> int:
    """Begin a new rectangle for the mapping at (place, index), which is about to change where it stands.

    What it weighs is off the totals until `_weigh` adds it again, changed.
    """
    dead_count = _write_out(space, place, index, clock, dead, dead_count)
    _weigh(space, place, index, -1)
    attributes = space.attributes[_slot(space, place, index)]
    attributes[BORN] = clock
    attributes[BORN_STEP] = step
    return dead_count


def _shrink(space: Space, place: int, index: int, start: int, end: int) -> None:
    """Leave `[start, end)` of the lifted mapping at (place, index): the file offset goes along."""
    leaf = space.lists[ORDER, place]
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    low, high = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
    before_leaf, before_index, after_leaf, after_index = _neighbours(space, place, index)
    if attributes[OFFSET] != NULL:
        attributes[OFFSET] += start - low
    if before_leaf >= 0:
        below = space.leaves[before_leaf, ENDS, before_index]
        _change_gap(space, before_leaf, low - below, start - below)
    if after_leaf >= 0:
        above = space.leaves[after_leaf, STARTS, after_index]
        _change_gap(space, leaf, above - high, above - end)
    space.leaves[leaf, STARTS, index] = start
    space.leaves[leaf, ENDS, index] = end
    space.lists[FIRSTS, place] = space.leaves[leaf, STARTS, 0]
    _weigh(space, place, index, 1)


def _cut(space: Space, address: int, clock: int, step: int, dead: Int64Array, dead_count: int) -> int:
    """Split the mapping that holds `address` inside it, so that one ends and one starts there."""
    place, index = _locate(space, address)
    if place == space.totals[LEAVES]:
        return dead_count
    leaf = space.lists[ORDER, place]
    start = space.leaves[leaf, STARTS, index]
    end = space.leaves[leaf, ENDS, index]
    if start >= address:
        return dead_count
    dead_count = _write_out(space, place, index, clock, dead, dead_count)
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    attributes[BORN] = clock
    attributes[BORN_STEP] = step
    space.leaves[leaf, ENDS, index] = address
    place, index = _insert(space, place, index + 1, address, end)
    upper = space.attributes[_slot(space, place, index)]
    _copy(attributes, upper)
    if upper[OFFSET] != NULL:
        upper[OFFSET] += address - start
    # The parts are one line of /proc/PID/maps as the whole was, and stand between the same neighbours.
    space.totals[MAPPINGS] += 1
    space.totals[JOINS] += 1
    return dead_count


def _clear(space: Space, start: int, end: int, clock: int, step: int, dead: Int64Array, dead_count: int) -> int:
    """End every mapping inside `[start, end)`; parts outside live on as rectangles of their own.

    Source: mm/vma.c, do_vmi_align_munmap: split at both ends, remove what lies between.
    """
    totals = space.totals
    place, index = _locate(space, start)
    if place == totals[LEAVES]:
        return dead_count
    leaf = space.lists[ORDER, place]
    low = space.leaves[leaf, STARTS, index]
    if low < start:
        if space.leaves[leaf, ENDS, index] > end:
            dead_count = _cut(space, end, clock, step, dead, dead_count)
            place, index = _locate(space, low)
        dead_count = _lift(space, place, index, clock, step, dead, dead_count)
        _shrink(space, place, index, low, start)
        place, index = _after(space, place, index)
    while place < totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < end:
        high = space.leaves[space.lists[ORDER, place], ENDS, index]
        if high > end:
            dead_count = _lift(space, place, index, clock, step, dead, dead_count)
            _shrink(space, place, index, end, high)
            break
        dead_count = _die(space, place, index, clock, dead, dead_count)
        place, index = _locate(space, start)
    return dead_count


def _mapped_inside(space: Space, start: int, end: int) -> bool:
    """Tell whether any page of `[start, end)` is mapped."""
    place, index = _locate(space, start)
    return bool(place < space.totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < end)


# --- the verbs -------------------------------------------------------------------------------------------------------


def _add_new(space: Space, start: int, end: int, row: Int64Array) -> None:
    """Insert the mapping `[start, end)` that `row` gives."""
    place, index = _insert_free(space, start, end)
    attributes = space.attributes[_slot(space, place, index)]
    attributes[PROT] = row[ROW_PROT]
    attributes[SHARED] = row[ROW_SHARED]
    attributes[KIND] = row[ROW_KIND]
    attributes[PATH] = row[ROW_PATH]
    attributes[OFFSET] = row[ROW_OFFSET]
    attributes[ORIGIN] = ORIGIN_TRACE
    attributes[MADE] = row[ROW_CLOCK]
    attributes[MADE_STEP] = row[ROW_STEP]
    attributes[BORN] = row[ROW_CLOCK]
    attributes[BORN_STEP] = row[ROW_STEP]
    attributes[FLAGS] = row[ROW_FLAGS]
    attributes[BACKING] = row[ROW_PATH] if row[ROW_OFFSET] != NULL else NO_TEXT
    _account(space, place, index, 1)


def _map(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Map `length` bytes, rounded up to pages, at `result`; MAP_FIXED replaces silently. Source: mmap(2)."""
    start = row[ROW_RESULT]
    end = start + _round_up(row[ROW_LENGTH], page)
    replaces = row[ROW_FLAGS] & MAP_FIXED and not row[ROW_FLAGS] & MAP_FIXED_NOREPLACE
    if _mapped_inside(space, start, end):
        if not replaces:
            space.totals[DIVERGENCE] = MAP_OVER_MAPPING
        dead_count = _clear(space, start, end, row[ROW_CLOCK], row[ROW_STEP], dead, dead_count)
    _add_new(space, start, end, row)
    return dead_count


def _unmap(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Unmap the pages of `[addr, addr + length)`; gaps in between are no error. Source: munmap(2)."""
    start = row[ROW_ADDR]
    end = start + _round_up(row[ROW_LENGTH], page)
    if not _mapped_inside(space, start, end):
        space.totals[DIVERGENCE] = UNMAP_UNKNOWN
        return dead_count
    return _clear(space, start, end, row[ROW_CLOCK], row[ROW_STEP], dead, dead_count)


def _inferred(space: Space, start: int, end: int, kind: int, prot: int) -> None:
    """Insert `[start, end)` as a mapping that the log betrays but never made."""
    place, index = _insert_free(space, start, end)
    attributes = space.attributes[_slot(space, place, index)]
    for column in range(ATTRIBUTES):
        attributes[column] = NULL
    attributes[PROT] = prot
    attributes[SHARED] = 0
    attributes[KIND] = kind
    attributes[PATH] = NO_TEXT
    attributes[ORIGIN] = ORIGIN_INFERRED
    attributes[BORN_STEP] = -1
    attributes[MADE_STEP] = -1
    attributes[FLAGS] = 0
    attributes[BACKING] = NO_TEXT
    _account(space, place, index, 1)


def _infer_gaps(space: Space, start: int, end: int, kind: int, prot: int) -> None:
    """Insert inferred mappings into the gaps of `[start, end)` (into the first ones, if there are very many)."""
    at = start
    while at < end and space.totals[FREE_SLOTS] > 8 and space.totals[FREE_LEAVES] > 3:
        place, index = _locate(space, at)
        if place == space.totals[LEAVES]:
            next_start = end
            next_end = end
        else:
            next_start = space.leaves[space.lists[ORDER, place], STARTS, index]
            next_end = space.leaves[space.lists[ORDER, place], ENDS, index]
        if next_start > at:
            _inferred(space, at, min(next_start, end), kind, prot)
        at = max(next_end, at + 1)


def _protect(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Set the protection of `[addr, addr + length)`; of a call that failed, only up to what stopped the kernel.

    A success over pages that no line mapped betrays mappings that execve made (or that are older than the log).
    `PROT_GROWSDOWN` in the flags begins at the start of the mapping that `addr` is in.
    Source: mm/mprotect.c, do_mprotect_pkey walks VMAs and stops at the first that it may not change.
    """
    start = row[ROW_ADDR]
    end = start + _round_up(row[ROW_LENGTH], page)
    prot = row[ROW_PROT]
    clock, step = row[ROW_CLOCK], row[ROW_STEP]
    if row[ROW_FLAGS] & PROT_GROWSDOWN:
        start = _start_of_mapping(space, start)
    if row[ROW_ERRNO] == 0:
        before = space.totals[MAPPED_BYTES]
        _infer_gaps(space, start, end, row[ROW_KIND], PROT_WRITE | 1)
        if space.totals[MAPPED_BYTES] != before:
            space.totals[DIVERGENCE] = PROTECT_UNKNOWN
    else:
        end = _protected_up_to(space, start, end, prot, row[ROW_ERRNO])
        if end == start:
            return dead_count
    dead_count = _cut(space, start, clock, step, dead, dead_count)
    dead_count = _cut(space, end, clock, step, dead, dead_count)
    at = start
    place, index = _locate(space, at)
    while place < space.totals[LEAVES]:
        leaf = space.lists[ORDER, place]
        low, high = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
        if low != at or low >= end:
            break
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if attributes[PROT] != prot:
            dead_count = _lift(space, place, index, clock, step, dead, dead_count)
            attributes[PROT] = prot
            _weigh(space, place, index, 1)
        at = high
        place, index = _after(space, place, index)
    return dead_count


def _start_of_mapping(space: Space, address: int) -> int:
    """Return where the mapping begins that `address` is in, with the equal neighbours below it; `address` if none is.

    Source: mm/mprotect.c, do_mprotect_pkey: `start = vma->vm_start` under PROT_GROWSDOWN.
    """
    place, index = _locate(space, address)
    if place == space.totals[LEAVES] or space.leaves[space.lists[ORDER, place], STARTS, index] > address:
        return address
    leaf = space.lists[ORDER, place]
    start = space.leaves[leaf, STARTS, index]
    before_leaf, before_index = _before(space, place, index)
    while before_leaf >= 0 and _joined(space, before_leaf, before_index, leaf, index):
        leaf, index = before_leaf, before_index
        start = space.leaves[leaf, STARTS, index]
        place, index = _locate(space, start)
        before_leaf, before_index = _before(space, place, index)
    return int(start)


def _protected_up_to(space: Space, start: int, end: int, prot: int, errno: int) -> int:
    """Return where an mprotect of `[start, end)` that failed stopped: the mappings before were changed.

    Source: mm/mprotect.c, do_mprotect_pkey: ENOMEM at the first gap, or (mprotect_fixup) where RLIMIT_DATA forbids
    private memory to become writable; where neither can be, the map count forbade the first cut. EACCES where a file
    that was opened to be read is mapped shared, or cannot be executed; EPERM where mseal forbids it. Other errors come
    before the first mapping is changed.
    """
    at = start
    refused = start
    place, index = _locate(space, at)
    while place < space.totals[LEAVES] and at < end:
        leaf = space.lists[ORDER, place]
        if space.leaves[leaf, STARTS, index] > at:
            return at if errno == ENOMEM else refused
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if refused == start and _may_refuse(attributes, prot, errno):
            refused = at
        at = space.leaves[leaf, ENDS, index]
        place, index = _after(space, place, index)
    return at if errno == ENOMEM and at < end else refused


def _may_refuse(attributes: Int64Array, prot: int, errno: int) -> bool:
    """Tell whether a mapping may be the one because of which mprotect failed with `errno`."""
    added = prot & ~attributes[PROT]
    if errno == ENOMEM:
        return bool(added & PROT_WRITE and not attributes[SHARED])
    if errno == EACCES:
        is_file = attributes[KIND] == KIND_FILE
        return bool((added & PROT_WRITE and attributes[SHARED]) or (added & PROT_EXEC and is_file))
    return bool(errno == EPERM and attributes[FLAGS] & SEALED)


def _brk(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Move the break to `result`: map what it grew by, unmap what it shrank by, foreign mappings included.

    Source: mm/mmap.c, SYSCALL_DEFINE1(brk): old and new break are rounded up to pages, equal pages change the number
    only, the pages between [new, old) are unmapped whoever mapped them.
    """
    totals = space.totals
    granted = row[ROW_RESULT]
    before = totals[BRK]
    clock, step = row[ROW_CLOCK], row[ROW_STEP]
    totals[BRK] = granted
    if before == NULL:
        if totals[START_BRK] in (FRESH, MOVED) and row[ROW_ADDR] == 0:
            totals[START_BRK] = granted
        elif totals[START_BRK] == MOVED and granted == row[ROW_ADDR]:
            # Heuristic: the start is a rounder number than a break that has grown from it.
            totals[START_BRK] = granted & (granted - 1)
            return _brk_grows(space, totals[START_BRK], _round_up(granted, page), row, dead, dead_count)
        return dead_count
    low, high = _round_up(before, page), _round_up(granted, page)
    if low != high and granted != row[ROW_ADDR]:
        totals[DIVERGENCE] = BRK_MOVED
    if high < low:
        return _clear(space, high, low, clock, step, dead, dead_count)
    if high > low:
        return _brk_grows(space, low, high, row, dead, dead_count)
    return dead_count


def _brk_grows(space: Space, low: int, high: int, row: Int64Array, dead: Int64Array, dead_count: int) -> int:
    """Map `[low, high)` as a part of the brk area."""
    if _mapped_inside(space, low, high):
        space.totals[DIVERGENCE] = BRK_OVER_MAPPING
        dead_count = _clear(space, low, high, row[ROW_CLOCK], row[ROW_STEP], dead, dead_count)
    _add_new(space, low, high, row)
    return dead_count


def _stash(space: Space, place: int, index: int, step: int, start: int, end: int) -> None:
    """Keep `[start, end)` of the mapping at (place, index) as one piece of a remap under way."""
    piece = space.stash[space.totals[STASHED]]
    piece[0] = step
    piece[1] = start
    piece[2] = end
    _copy(space.attributes[_slot(space, place, index)], piece[3:])
    if piece[3 + OFFSET] != NULL:
        piece[3 + OFFSET] += start - space.leaves[space.lists[ORDER, place], STARTS, index]
    space.totals[STASHED] += 1


def _unit_of(flags: int, page: int) -> int:
    """Return to how many bytes mremap rounds the lengths of a mapping with such flags: huge pages have their own.

    Source: mm/mremap.c: ALIGN(len, huge_page_size(h)) where is_vm_hugetlb_page(vma).
    """
    if not flags & MAP_HUGETLB:
        return page
    size = flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK
    return 1 << size if size else DEFAULT_HUGE_PAGE


def _taken_unit(space: Space, row: Int64Array, page: int) -> int:
    """Return the unit of the mapping at `addr`, or of its pieces where they were stashed before."""
    for piece in range(space.totals[STASHED]):
        if space.stash[piece, 0] == row[ROW_STEP]:
            return _unit_of(space.stash[piece, 3 + FLAGS], page)
    place, index = _locate(space, row[ROW_ADDR])
    if place == space.totals[LEAVES] or space.leaves[space.lists[ORDER, place], STARTS, index] > row[ROW_ADDR]:
        return page
    return _unit_of(space.attributes[_slot(space, place, index), FLAGS], page)


def _remap_take(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Stash the pieces of `[addr, addr + old_length)` and, unless they stay or are copied, end them.

    An old length of 0 duplicates the one shared mapping at `addr`, to any length. Source: mremap(2); mm/mremap.c.
    """
    start = row[ROW_ADDR]
    old_size = _round_up(row[ROW_OLD_LENGTH], page)
    new_size = _round_up(row[ROW_LENGTH], page)
    clock, step = row[ROW_CLOCK], row[ROW_STEP]
    duplicates = old_size == 0
    span = new_size if duplicates else old_size
    moved = row[ROW_RESULT] != start
    before = space.totals[MAPPED_BYTES]
    if not duplicates:
        _infer_gaps(space, start, _mapped_up_to(space, row, page), KIND_UNKNOWN, PROT_WRITE | 1)
    if space.totals[MAPPED_BYTES] != before:
        space.totals[DIVERGENCE] = REMAP_UNKNOWN
    place, index = _locate(space, start)
    while place < space.totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < start + span:
        leaf = space.lists[ORDER, place]
        low = max(space.leaves[leaf, STARTS, index], start)
        high = min(space.leaves[leaf, ENDS, index], start + span)
        _stash(space, place, index, step, low, high)
        if duplicates:
            break
        place, index = _after(space, place, index)
    if moved and not duplicates and not row[ROW_FLAGS] & MREMAP_DONTUNMAP:
        dead_count = _clear(space, start, start + span, clock, step, dead, dead_count)
    elif not moved and new_size < old_size:
        dead_count = _clear(space, start + new_size, start + old_size, clock, step, dead, dead_count)
    return dead_count


def _mapped_up_to(space: Space, row: Int64Array, page: int) -> int:
    """Return up to where a successful mremap betrays that its source was mapped.

    The kernel asks for the first page only where nothing moves or grows, and since Linux 6.17 where the length stays;
    what it cuts off may hold gaps. In a space that is older than the log they are taken for what no line told.
    """
    start = row[ROW_ADDR]
    old_size = _round_up(row[ROW_OLD_LENGTH], page)
    new_size = _round_up(row[ROW_LENGTH], page)
    if space.totals[START_BRK] == NULL:
        return int(start + old_size)
    stays = row[ROW_RESULT] == start and new_size <= old_size
    moves_only = row[ROW_FLAGS] & MREMAP_FIXED and new_size == old_size
    return int(start + (page if stays or moves_only else min(old_size, new_size)))


def _remap_give(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Put the stashed pieces of this step at `result`, the last one stretched to the new length."""
    totals = space.totals
    source, target = row[ROW_ADDR], row[ROW_RESULT]
    new_size = _round_up(row[ROW_LENGTH], page)
    old_size = _round_up(row[ROW_OLD_LENGTH], page)
    clock, step = row[ROW_CLOCK], row[ROW_STEP]
    moved = target != source
    first = target if moved else source + min(old_size, new_size)
    last = target + new_size
    if first < last and _mapped_inside(space, first, last):
        if not row[ROW_FLAGS] & MREMAP_FIXED:
            totals[DIVERGENCE] = REMAP_OVER_MAPPING
        if not moved or new_size != old_size:
            dead_count = _clear(space, first, last, clock, step, dead, dead_count)
    kept = 0
    for piece in range(totals[STASHED]):
        if space.stash[piece, 0] != step:
            for column in range(ATTRIBUTES + 3):
                space.stash[kept, column] = space.stash[piece, column]
            kept += 1
            continue
        low = space.stash[piece, 1] - source + target
        high = min(space.stash[piece, 2] - source + target, last)
        attributes = space.stash[piece, 3:]
        attributes[BORN] = clock
        attributes[BORN_STEP] = step
        attributes[MADE] = clock
        attributes[MADE_STEP] = step
        if attributes[KIND] == KIND_BRK and moved:
            attributes[KIND] = KIND_ANON
            attributes[PATH] = NO_TEXT
        stretched = old_size in (0, space.stash[piece, 2] - source)
        end = last if stretched and high < last else high
        if moved and low < end:
            dead_count = _clear(space, low, end, clock, step, dead, dead_count)
            _add(space, low, end, attributes)
        elif end > high:
            if attributes[OFFSET] != NULL:
                attributes[OFFSET] += high - low
            _add(space, high, end, attributes)
    totals[STASHED] = kept
    return dead_count


def _detach(space: Space, row: Int64Array, dead: Int64Array, dead_count: int) -> int:
    """End all pieces of the shared memory attach that began at `addr`. Source: ipc/shm.c, ksys_shmdt.

    ksys_shmdt looks for a VMA with `vm_start - addr == vm_pgoff` in bytes, then takes every piece of the same file.
    """
    start = row[ROW_ADDR]
    place, index = _locate(space, start)
    made = NULL
    while place < space.totals[LEAVES]:
        leaf = space.lists[ORDER, place]
        low, high = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if attributes[KIND] == KIND_SHM and attributes[OFFSET] == low - start:
            if made == NULL:
                made = attributes[MADE_STEP]
            if attributes[MADE_STEP] == made:
                dead_count = _die(space, place, index, row[ROW_CLOCK], dead, dead_count)
        place, index = _locate(space, high)
    if made == NULL:
        space.totals[DIVERGENCE] = UNMAP_UNKNOWN
    return dead_count


def _edit(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Change one attribute of the mappings in `[addr, addr + length)`: name, marks or file offset.

    Of the marks in their flags (`DONTFORK`, `SEALED`) those in the row's `prot` go and those in its `flags` come.
    """
    start = row[ROW_ADDR]
    end = start + _round_up(row[ROW_LENGTH], page)
    clock, step, verb = row[ROW_CLOCK], row[ROW_STEP], row[ROW_VERB]
    dead_count = _cut(space, start, clock, step, dead, dead_count)
    dead_count = _cut(space, end, clock, step, dead, dead_count)
    place, index = _locate(space, start)
    while place < space.totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < end:
        leaf = space.lists[ORDER, place]
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if verb == VERB_MARK:
            attributes[FLAGS] = (attributes[FLAGS] & ~row[ROW_PROT]) | row[ROW_FLAGS]
        elif verb == VERB_REMAP_FILE or attributes[OFFSET] == NULL:
            dead_count = _lift(space, place, index, clock, step, dead, dead_count)
            if verb == VERB_REMAP_FILE:
                attributes[OFFSET] = row[ROW_OFFSET] + space.leaves[leaf, STARTS, index] - start
            else:
                attributes[PATH] = row[ROW_PATH]
                attributes[BACKING] = row[ROW_PATH]
            _weigh(space, place, index, 1)
        place, index = _after(space, place, index)
    return dead_count


def _rename_path(space: Space, row: Int64Array, dead: Int64Array, dead_count: int) -> int:
    """Give every mapping whose path is the row's `addr` (a text id) the row's path: the file was unlinked."""
    place, index = 0, 0
    while place < space.totals[LEAVES]:
        leaf = space.lists[ORDER, place]
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if attributes[PATH] == row[ROW_ADDR] and attributes[OFFSET] != NULL:
            dead_count = _lift(space, place, index, row[ROW_CLOCK], row[ROW_STEP], dead, dead_count)
            attributes[PATH] = row[ROW_PATH]
            attributes[BACKING] = row[ROW_PATH]
            _weigh(space, place, index, 1)
        place, index = _after(space, place, index)
    return dead_count


# --- what the report asks after each verb ----------------------------------------------------------------------------


def _largest_gap(space: Space) -> int:
    """Return the bytes of the largest gap between neighbouring mappings.

    Each leaf keeps the largest gap behind one of its mappings; only those that lost it count anew.
    """
    totals = space.totals
    largest = totals[LARGEST_GAP]
    shrunk = False
    for at in range(totals[CHANGED]):
        leaf = space.lists[TO_COUNT, at]
        before = -2 - space.lists[LARGEST, leaf]
        gap = _gap_of_leaf(space, leaf)
        space.lists[LARGEST, leaf] = gap
        shrunk |= before == largest and gap < before
        largest = max(largest, gap)
    totals[CHANGED] = 0
    if shrunk:
        # None is larger than the largest was: the search ends at the first that is as large.
        found, leaf = 0, 0
        while found < largest and leaf < totals[LEAVES_USED]:
            found = max(found, space.lists[LARGEST, leaf])
            leaf += 1
        largest = found
    totals[LARGEST_GAP] = largest
    return int(largest)


def _gap_of_leaf(space: Space, leaf: int) -> int:
    """Return the largest gap behind a mapping of `leaf`, the one to the next leaf included."""
    size = space.lists[SIZES, leaf]
    if size == 0:
        return 0
    gap = 0
    for index in range(1, size):
        gap = max(gap, space.leaves[leaf, STARTS, index] - space.leaves[leaf, ENDS, index - 1])
    leaves = space.totals[LEAVES]
    place = _count_up_to(space.lists[FIRSTS], leaves, space.leaves[leaf, STARTS, 0]) - 1
    if place + 1 < leaves:
        gap = max(gap, space.lists[FIRSTS, place + 1] - space.leaves[leaf, ENDS, size - 1])
    return gap


def _mark_changed(space: Space, leaf: int) -> None:
    """Note that the gaps of `leaf` must be counted anew; what was counted last stays there as -2 - gap."""
    totals = space.totals
    if space.lists[LARGEST, leaf] >= 0:
        space.lists[LARGEST, leaf] = -2 - space.lists[LARGEST, leaf]
        space.lists[TO_COUNT, totals[CHANGED]] = leaf
        totals[CHANGED] += 1


def _describe_above(space: Space, met: Int64Array, page: int) -> None:
    """Note the first mapping above the break as it is before a brk call."""
    met[MET_START] = NULL
    met[MET_DATA_BYTES] = space.totals[DATA_BYTES]
    before = space.totals[BRK]
    if before == NULL:
        return
    place, index = _locate(space, _round_up(before, page))
    if place == space.totals[LEAVES]:
        return
    leaf = space.lists[ORDER, place]
    slot = space.leaves[leaf, SLOTS, index]
    met[MET_START] = space.leaves[leaf, STARTS, index]
    met[MET_END] = space.leaves[leaf, ENDS, index]
    met[MET_MADE] = space.attributes[slot, MADE]
    met[MET_PROT] = space.attributes[slot, PROT]
    met[MET_PATH] = space.attributes[slot, PATH]
    met[MET_FLAGS] = space.attributes[slot, FLAGS]
    met[MET_KIND] = space.attributes[slot, KIND]
    met[MET_SHARED] = space.attributes[slot, SHARED]


def _measure(space: Space, change: Int64Array, page: int) -> None:
    """Write the totals of `space` into one row of changes."""
    totals = space.totals
    leaves = totals[LEAVES]
    change[CHANGE_BYTES] = totals[MAPPED_BYTES]
    change[CHANGE_MAPPINGS] = totals[MAPPINGS] - totals[JOINS]
    change[CHANGE_GAPS] = totals[GAPS]
    change[CHANGE_GAP_BYTES] = 0
    change[CHANGE_LARGEST_GAP] = _largest_gap(space)
    change[CHANGE_DIVERGENCE] = totals[DIVERGENCE]
    change[CHANGE_BRK_AFTER] = totals[BRK]
    change[CHANGE_HEADROOM] = NULL
    change[CHANGE_BRK_BYTES] = 0
    if leaves > 0:
        last = space.lists[ORDER, leaves - 1]
        extent = space.leaves[last, ENDS, space.lists[SIZES, last] - 1] - space.lists[FIRSTS, 0]
        change[CHANGE_GAP_BYTES] = extent - totals[MAPPED_BYTES]
    if totals[BRK] == NULL:
        return
    top = _round_up(totals[BRK], page)
    if totals[START_BRK] > 0:
        # A log that lost lines, an execve say, may tell of a break below the start that it told of.
        change[CHANGE_BRK_BYTES] = max(top - _round_up(totals[START_BRK], page), 0)
    place, index = _locate(space, top, BRK_FINGER)
    if place < leaves:
        change[CHANGE_HEADROOM] = max(space.leaves[space.lists[ORDER, place], STARTS, index] - top, 0)


def _like() -> tuple[Any, ...]:
    """Return arguments of the layout that the loop is compiled for."""
    table = np.zeros((0, 0), np.int64)
    return empty_space(), table, np.zeros(0, np.int64), (0, 0), table, table, table, 0


apply_rows: Final = Loop(
    run,
    _like,
    helpers=(
        _read_ahead, _locate, _new_leaf, _split_leaf, _insert, _insert_free, _add, _write_out, _die, _lift, _shrink,
        _cut, _clear, _add_new, _map, _unmap, _inferred, _infer_gaps, _protect, _start_of_mapping, _protected_up_to,
        _may_refuse, _brk, _brk_grows, _set_brk, _stash, _unit_of, _taken_unit, _remap_take, _mapped_up_to,
        _remap_give, _detach, _edit, _rename_path, _describe_above,
    ),
    inlined=(  # called for every row, some of them many times
        _has_room, _is_impossible, _round_up, _shift_up, _shift_down, _count_up_to, _before, _after, _slot, _copy,
        _joined, _account, _neighbours, _weigh, _change_gap, _remove, _mapped_inside, _largest_gap, _gap_of_leaf,
        _mark_changed, _measure,
    ),
    results=2,
)  # fmt: skip


def check(space: Space, page: int) -> None:
    """Assert the invariants: sorted, apart, page-aligned, and totals that equal a fresh count."""
    rows = live_rows(space)
    starts, ends = rows[:, DEAD_START], rows[:, DEAD_END]
    assert (starts < ends).all(), "a mapping is empty"
    assert (ends[:-1] <= starts[1:]).all(), "mappings overlap or are out of order"
    assert not (starts % page).any(), "a start is not page-aligned"
    assert not (ends % page).any(), "an end is not page-aligned"
    totals = space.totals
    assert totals[MAPPED_BYTES] == (ends - starts).sum(), "mapped bytes"
    fresh = space_of_rows(rows).totals
    for entry, name in ((GAPS, "gaps"), (JOINS, "joined neighbours"), (DATA_BYTES, "data bytes")):
        assert totals[entry] == fresh[entry], name
    assert _largest_gap(space) == max((starts[1:] - ends[:-1]).max(initial=0), 0), "largest gap"
    assert totals[LEAVES] + totals[FREE_LEAVES] == len(space.leaves), "a leaf was lost"
    assert totals[MAPPINGS] + totals[FREE_SLOTS] == len(space.attributes), "a slot was lost"
