"""What mremap does to a space: pieces of mappings are taken up, and put down where the kernel moved them.

In go remaps, out comes the space changed, and the rectangles that ended. A call that was split over lines
takes at one and gives at another: between them its pieces lie in `Space.stash`. Of other operations nothing is known.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NO_TEXT, NULL
from replay.mm.fields import (
    DEFAULT_HUGE_PAGE,
    KIND_ANON,
    KIND_BRK,
    KIND_UNKNOWN,
    MAP_HUGE_MASK,
    MAP_HUGE_SHIFT,
    MAP_HUGETLB,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    PROT_WRITE,
    REMAP_OVER_MAPPING,
    REMAP_UNKNOWN,
    OpCode,
    Operation,
)
from replay.mm.rectangles import do_munmap
from replay.mm.space import (
    Piece,
    Space,
    copy_mapping,
    find_vma,
    is_mapped_inside,
    leaf_at,
    mapping_after,
    mapping_at,
    page_align,
)
from replay.mm.vma_tree import add_mapping, infer_gaps


def mremap(space: Space, operation: Operation, page: int) -> None:
    """Move, grow, shrink or copy `[addr, addr + old_length)` to `length` bytes at `result`. Source: mm/mremap.c.

    A call that was split takes at its first line and gives at its last.
    """
    unit = _taken_unit(space, operation, page)
    if operation.code != OpCode.REMAP_GIVE:
        _take(space, operation, unit)
    if operation.code != OpCode.REMAP_TAKE:
        _give(space, operation, unit)


def _unit_of(flags: int, page: int) -> int:
    """Return to how many bytes mremap rounds the lengths of a mapping with such flags: huge pages have their own.

    Source: mm/mremap.c: ALIGN(len, huge_page_size(h)) where is_vm_hugetlb_page(vma).
    """
    if not flags & MAP_HUGETLB:
        return page
    size = flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK
    return 1 << size if size else DEFAULT_HUGE_PAGE


def _stash(space: Space, place: int, index: int, step: int, start: int, end: int) -> None:
    """Keep `[start, end)` of the mapping at (place, index) as one piece of a remap under way."""
    state = space.state
    piece = space.stash[state.stashed]
    copy_mapping(mapping_at(space, place, index), piece)
    piece.step = step
    piece.start = start
    piece.end = end
    if piece.offset != NULL:
        piece.offset += start - leaf_at(space, place).starts[index]
    state.stashed += 1


def _taken_unit(space: Space, operation: Operation, page: int) -> int:
    """Return the unit of the mapping at `addr`, or of its pieces where they were stashed before."""
    for number in range(space.state.stashed):
        if space.stash[number].step == operation.step:
            return _unit_of(space.stash[number].flags, page)
    place, index = find_vma(space, operation.addr)
    if place == space.state.leaves or leaf_at(space, place).starts[index] > operation.addr:
        return page
    return _unit_of(mapping_at(space, place, index).flags, page)


def _take(space: Space, operation: Operation, page: int) -> None:
    """Stash the pieces of `[addr, addr + old_length)` and, unless they stay or are copied, end them.

    An old length of 0 duplicates the one shared mapping at `addr`, to any length. Source: mremap(2); mm/mremap.c.
    """
    state, start = space.state, operation.addr
    old_size, new_size = page_align(operation.old_length, page), page_align(operation.length, page)
    duplicates = old_size == 0
    end = start + (new_size if duplicates else old_size)
    moved = operation.result != start
    before = state.mapped_bytes
    if not duplicates:
        infer_gaps(space, start, _mapped_up_to(space, operation, page), KIND_UNKNOWN, PROT_WRITE | 1)
    if state.mapped_bytes != before:
        state.divergence = REMAP_UNKNOWN
    place, index = find_vma(space, start)
    while place < state.leaves and leaf_at(space, place).starts[index] < end:
        leaf = leaf_at(space, place)
        _stash(space, place, index, operation.step, max(leaf.starts[index], start), min(leaf.ends[index], end))
        if duplicates:
            break
        place, index = mapping_after(space, place, index)
    if moved and not duplicates and not operation.flags & MREMAP_DONTUNMAP:
        do_munmap(space, start, end, operation)
    elif not moved and new_size < old_size:
        do_munmap(space, start + new_size, start + old_size, operation)


def _mapped_up_to(space: Space, operation: Operation, page: int) -> int:
    """Return up to where a successful mremap betrays that its source was mapped.

    The kernel asks for the first page only where nothing moves or grows, and since Linux 6.17 where the length stays;
    what it cuts off may hold gaps. In a space that is older than the log they are taken for what no line told.
    """
    start = operation.addr
    old_size, new_size = page_align(operation.old_length, page), page_align(operation.length, page)
    if space.state.start_brk == NULL:
        return start + old_size
    stays = operation.result == start and new_size <= old_size
    moves_only = operation.flags & MREMAP_FIXED and new_size == old_size
    return start + (page if stays or moves_only else min(old_size, new_size))


def _give(space: Space, operation: Operation, page: int) -> None:
    """Put the stashed pieces of this step at `result`, the last one stretched to the new length."""
    source, target = operation.addr, operation.result
    old_size, new_size = page_align(operation.old_length, page), page_align(operation.length, page)
    moved = target != source
    first = target if moved else source + min(old_size, new_size)
    last = target + new_size
    if first < last and is_mapped_inside(space, first, last):
        if not operation.flags & MREMAP_FIXED:
            space.state.divergence = REMAP_OVER_MAPPING
        if not moved or new_size != old_size:
            do_munmap(space, first, last, operation)
    kept = 0
    for number in range(space.state.stashed):
        piece = space.stash[number]
        if piece.step == operation.step:
            _give_piece(space, piece, operation, old_size, last)
            continue
        copy_mapping(piece, space.stash[kept])
        space.stash[kept].step = piece.step
        space.stash[kept].start = piece.start
        space.stash[kept].end = piece.end
        kept += 1
    space.state.stashed = kept


def _give_piece(space: Space, piece: Piece, operation: Operation, old_size: int, last: int) -> None:
    """Put a stashed piece where it goes, up to `last` if it is the last of its mapping of `old_size` bytes."""
    source, target = operation.addr, operation.result
    moved = target != source
    low, high = piece.start - source + target, min(piece.end - source + target, last)
    piece.born_line = piece.made_line = operation.clock
    piece.born_step = piece.made_step = operation.step
    if piece.kind == KIND_BRK and moved:
        piece.kind = KIND_ANON
        piece.path = NO_TEXT
    stretched = old_size in (0, piece.end - source)
    end = last if stretched and high < last else high
    if moved and low < end:
        do_munmap(space, low, end, operation)
        add_mapping(space, low, end, piece)
    elif end > high:
        if piece.offset != NULL:
            piece.offset += high - low
        add_mapping(space, high, end, piece)


HELPERS: Final = (mremap, _stash, _unit_of, _taken_unit, _take, _mapped_up_to, _give, _give_piece)
"""What the compiled loop calls of this module."""

INLINED: Final = ()
