"""What mremap does to a space: pieces of mappings are taken up, and put down where the kernel moved them.

In go the rows of remaps, out comes the space changed, and the rectangles that ended. A call that was split over lines
takes at one and gives at another: between them its pieces lie in `Space.stash`. Of other operations nothing is known.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.mm.fields import (
    ATTRIBUTES,
    DEFAULT_HUGE_PAGE,
    FLAGS,
    KIND,
    KIND_ANON,
    KIND_BRK,
    KIND_UNKNOWN,
    MAP_HUGE_MASK,
    MAP_HUGE_SHIFT,
    MAP_HUGETLB,
    MAPPED_AT,
    MAPPED_AT_STEP,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    OFFSET,
    OP_ADDR,
    OP_CLOCK,
    OP_FLAGS,
    OP_LENGTH,
    OP_OLD_LENGTH,
    OP_RESULT,
    OP_STEP,
    PATH,
    PROT_WRITE,
    RECTANGLE_FROM,
    RECTANGLE_FROM_STEP,
    REMAP_OVER_MAPPING,
    REMAP_UNKNOWN,
)
from replay.mm.rectangles import unmap_range
from replay.mm.space import (
    DIVERGENCE,
    ENDS,
    LEAVES,
    MAPPED_BYTES,
    ORDER,
    START_BRK,
    STARTS,
    STASHED,
    Space,
    copy_attributes,
    is_mapped_inside,
    locate,
    mapping_after,
    round_up,
    slot_of,
)
from replay.mm.vma_tree import add_mapping, infer_gaps


def _stash(space: Space, place: int, index: int, step: int, start: int, end: int) -> None:
    """Keep `[start, end)` of the mapping at (place, index) as one piece of a remap under way."""
    piece = space.stash[space.totals[STASHED]]
    piece[0] = step
    piece[1] = start
    piece[2] = end
    copy_attributes(space.attributes[slot_of(space, place, index)], piece[3:])
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


def taken_unit(space: Space, row: Int64Array, page: int) -> int:
    """Return the unit of the mapping at `addr`, or of its pieces where they were stashed before."""
    for piece in range(space.totals[STASHED]):
        if space.stash[piece, 0] == row[OP_STEP]:
            return _unit_of(space.stash[piece, 3 + FLAGS], page)
    place, index = locate(space, row[OP_ADDR])
    if place == space.totals[LEAVES] or space.leaves[space.lists[ORDER, place], STARTS, index] > row[OP_ADDR]:
        return page
    return _unit_of(space.attributes[slot_of(space, place, index), FLAGS], page)


def remap_take(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Stash the pieces of `[addr, addr + old_length)` and, unless they stay or are copied, end them.

    An old length of 0 duplicates the one shared mapping at `addr`, to any length. Source: mremap(2); mm/mremap.c.
    """
    start = row[OP_ADDR]
    old_size = round_up(row[OP_OLD_LENGTH], page)
    new_size = round_up(row[OP_LENGTH], page)
    clock, step = row[OP_CLOCK], row[OP_STEP]
    duplicates = old_size == 0
    span = new_size if duplicates else old_size
    moved = row[OP_RESULT] != start
    before = space.totals[MAPPED_BYTES]
    if not duplicates:
        infer_gaps(space, start, _mapped_up_to(space, row, page), KIND_UNKNOWN, PROT_WRITE | 1)
    if space.totals[MAPPED_BYTES] != before:
        space.totals[DIVERGENCE] = REMAP_UNKNOWN
    place, index = locate(space, start)
    while place < space.totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < start + span:
        leaf = space.lists[ORDER, place]
        low = max(space.leaves[leaf, STARTS, index], start)
        high = min(space.leaves[leaf, ENDS, index], start + span)
        _stash(space, place, index, step, low, high)
        if duplicates:
            break
        place, index = mapping_after(space, place, index)
    if moved and not duplicates and not row[OP_FLAGS] & MREMAP_DONTUNMAP:
        dead_count = unmap_range(space, start, start + span, clock, step, dead, dead_count)
    elif not moved and new_size < old_size:
        dead_count = unmap_range(space, start + new_size, start + old_size, clock, step, dead, dead_count)
    return dead_count


def _mapped_up_to(space: Space, row: Int64Array, page: int) -> int:
    """Return up to where a successful mremap betrays that its source was mapped.

    The kernel asks for the first page only where nothing moves or grows, and since Linux 6.17 where the length stays;
    what it cuts off may hold gaps. In a space that is older than the log they are taken for what no line told.
    """
    start = row[OP_ADDR]
    old_size = round_up(row[OP_OLD_LENGTH], page)
    new_size = round_up(row[OP_LENGTH], page)
    if space.totals[START_BRK] == NULL:
        return int(start + old_size)
    stays = row[OP_RESULT] == start and new_size <= old_size
    moves_only = row[OP_FLAGS] & MREMAP_FIXED and new_size == old_size
    return int(start + (page if stays or moves_only else min(old_size, new_size)))


def remap_give(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Put the stashed pieces of this step at `result`, the last one stretched to the new length."""
    totals = space.totals
    source, target = row[OP_ADDR], row[OP_RESULT]
    new_size = round_up(row[OP_LENGTH], page)
    old_size = round_up(row[OP_OLD_LENGTH], page)
    clock, step = row[OP_CLOCK], row[OP_STEP]
    moved = target != source
    first = target if moved else source + min(old_size, new_size)
    last = target + new_size
    if first < last and is_mapped_inside(space, first, last):
        if not row[OP_FLAGS] & MREMAP_FIXED:
            totals[DIVERGENCE] = REMAP_OVER_MAPPING
        if not moved or new_size != old_size:
            dead_count = unmap_range(space, first, last, clock, step, dead, dead_count)
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
        attributes[RECTANGLE_FROM] = clock
        attributes[RECTANGLE_FROM_STEP] = step
        attributes[MAPPED_AT] = clock
        attributes[MAPPED_AT_STEP] = step
        if attributes[KIND] == KIND_BRK and moved:
            attributes[KIND] = KIND_ANON
            attributes[PATH] = NO_TEXT
        stretched = old_size in (0, space.stash[piece, 2] - source)
        end = last if stretched and high < last else high
        if moved and low < end:
            dead_count = unmap_range(space, low, end, clock, step, dead, dead_count)
            add_mapping(space, low, end, attributes)
        elif end > high:
            if attributes[OFFSET] != NULL:
                attributes[OFFSET] += high - low
            add_mapping(space, high, end, attributes)
    totals[STASHED] = kept
    return dead_count


HELPERS: Final = (_stash, _unit_of, taken_unit, remap_take, _mapped_up_to, remap_give)
"""What the compiled loop calls of this module."""

INLINED: Final = ()
