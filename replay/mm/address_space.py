"""One Linux address space: its mappings in order of addresses, and what the kernel does to them.

In go rows of operations (map, unmap, protect, remap, brk …), out come rectangles: a mapping is written out when it
ends, with the lines of its birth and end. Of traces, processes and allocators this module knows nothing.

The functions of this room are plain Python over NumPy arrays and keep to what numba compiles.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.native import Loop
from replay.mm import edits, rectangles, remap, totals, vma_tree
from replay.mm import space as arrays
from replay.mm.edits import detach, edit, rename_path
from replay.mm.fields import (
    BACKING,
    BORDER,
    BRK_MOVED,
    BRK_OVER_MAPPING,
    CHANGE_BRK_BEFORE,
    EACCES,
    ENOMEM,
    EPERM,
    FLAGS,
    FRESH,
    HIGHEST,
    HIGHEST_OFFSET,
    IMPOSSIBLE_RANGE,
    KIND,
    KIND_FILE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_OVER_MAPPING,
    MAPPED_AT,
    MAPPED_AT_STEP,
    MOVED,
    NO_DIVERGENCE,
    OFFSET,
    OP_ADDR,
    OP_BRK,
    OP_CLOCK,
    OP_CODE,
    OP_ERRNO,
    OP_FLAGS,
    OP_KIND,
    OP_LENGTH,
    OP_OFFSET,
    OP_OLD_LENGTH,
    OP_PATH,
    OP_PROT,
    OP_RESULT,
    OP_SHARED,
    OP_STEP,
    ORIGIN,
    ORIGIN_TRACE,
    PATH,
    PROT,
    PROT_EXEC,
    PROT_GROWSDOWN,
    PROT_WRITE,
    PROTECT_UNKNOWN,
    RECTANGLE_FROM,
    RECTANGLE_FROM_STEP,
    SEALED,
    SHARED,
    UNMAP_UNKNOWN,
    OpCode,
)
from replay.mm.rectangles import begin_rectangle, split_at, unmap_range
from replay.mm.remap import remap_give, remap_take, taken_unit
from replay.mm.space import (
    AHEAD,
    BRK,
    DIVERGENCE,
    ENDS,
    LAST_PLACE,
    LEAVES,
    MAPPED_BYTES,
    MAPPINGS,
    NEXT_PLACE,
    ORDER,
    READ_AHEAD_ABOVE,
    ROOM,
    SLOTS,
    START_BRK,
    STARTS,
    Space,
    empty_space,
    has_room,
    is_mapped_inside,
    locate,
    mapping_after,
    mapping_before,
    round_up,
    slot_of,
)
from replay.mm.totals import count_in_totals, count_mapping, describe_above, joined, measure
from replay.mm.vma_tree import infer_gaps, insert_free, read_ahead


def _apply_operations(  # noqa: PLR0912 - one branch an operation; numba wants the dispatch in one place
    space: Space,
    rows: Int64Array,
    chosen: Int64Array,
    bounds: tuple[int, int],
    dead: Int64Array,
    changes: Int64Array,
    above_break: Int64Array,
    page: int,
) -> tuple[int, int]:
    """Apply some rows to `space`, write out what ends, fill a row of `changes` for each, of `above_break` for brk.

    They are those whose numbers are `chosen[bounds[0]:bounds[1]]`. Returns the place in `chosen` of the first one not
    applied (because the space or `dead` needs more room) and the count of rows in `dead`.
    """
    totals = space.totals
    dead_count = 0
    for at in range(bounds[0], bounds[1]):
        if totals[LEAVES] > READ_AHEAD_ABOVE:
            turn = (at - bounds[0]) % AHEAD
            if turn == 0:
                read_ahead(space, rows, chosen, at, min(at + AHEAD, bounds[1]))
            totals[LAST_PLACE] = space.lists[NEXT_PLACE, turn]
        row = rows[chosen[at]]
        change = changes[chosen[at]]
        code = row[OP_CODE]
        if dead_count + 2 * totals[MAPPINGS] + ROOM // 2 > len(dead) or not has_room(space, code):
            return at, dead_count
        totals[DIVERGENCE] = NO_DIVERGENCE
        change[CHANGE_BRK_BEFORE] = totals[BRK]
        if _is_impossible(row, page):
            totals[DIVERGENCE] = IMPOSSIBLE_RANGE
        elif code == OpCode.MAP:
            dead_count = _map(space, row, dead, dead_count, page)
        elif code == OpCode.UNMAP:
            dead_count = _unmap(space, row, dead, dead_count, page)
        elif code == OpCode.PROTECT:
            dead_count = _protect(space, row, dead, dead_count, page)
        elif code == OpCode.BRK:
            describe_above(space, above_break[row[OP_BRK]], page)
            dead_count = _brk(space, row, dead, dead_count, page)
        elif code == OpCode.REMAP:
            unit = taken_unit(space, row, page)
            dead_count = remap_take(space, row, dead, dead_count, unit)
            dead_count = remap_give(space, row, dead, dead_count, unit)
        elif code == OpCode.REMAP_TAKE:
            dead_count = remap_take(space, row, dead, dead_count, taken_unit(space, row, page))
        elif code == OpCode.REMAP_GIVE:
            dead_count = remap_give(space, row, dead, dead_count, taken_unit(space, row, page))
        elif code == OpCode.DETACH:
            dead_count = detach(space, row, dead, dead_count)
        elif code == OpCode.SET_BRK:
            _set_brk(totals, row)
        elif code == OpCode.DELETED:
            dead_count = rename_path(space, row, dead, dead_count)
        else:
            dead_count = edit(space, row, dead, dead_count, page)
        measure(space, change, page)
    return bounds[1], dead_count


def _is_impossible(row: Int64Array, page: int) -> bool:
    """Tell whether a row names addresses, lengths or offsets that no address space has: its line is damaged.

    A break may be asked for anywhere, and be anything below the highest address; all others begin with a page.
    """
    is_brk = row[OP_CODE] == OpCode.BRK
    addr = 0 if is_brk else row[OP_ADDR]
    result, length, old_length = row[OP_RESULT], row[OP_LENGTH], row[OP_OLD_LENGTH]
    start = result if row[OP_CODE] == OpCode.MAP else addr
    if min(addr, result, length, old_length) < 0 or max(addr, result, length, old_length) > HIGHEST:
        return True
    if row[OP_CODE] == OpCode.DELETED:
        return False
    if max(start, result) + length > HIGHEST or addr + old_length > HIGHEST:
        return True
    if start < BORDER < start + length or row[OP_OFFSET] > HIGHEST_OFFSET:
        return True
    return bool(not is_brk and (result & (page - 1) or (row[OP_CODE] != OpCode.SET_BRK and start & (page - 1))))


def _add_new(space: Space, start: int, end: int, row: Int64Array) -> None:
    """Insert the mapping `[start, end)` that `row` gives."""
    place, index = insert_free(space, start, end)
    attributes = space.attributes[slot_of(space, place, index)]
    attributes[PROT] = row[OP_PROT]
    attributes[SHARED] = row[OP_SHARED]
    attributes[KIND] = row[OP_KIND]
    attributes[PATH] = row[OP_PATH]
    attributes[OFFSET] = row[OP_OFFSET]
    attributes[ORIGIN] = ORIGIN_TRACE
    attributes[MAPPED_AT] = row[OP_CLOCK]
    attributes[MAPPED_AT_STEP] = row[OP_STEP]
    attributes[RECTANGLE_FROM] = row[OP_CLOCK]
    attributes[RECTANGLE_FROM_STEP] = row[OP_STEP]
    attributes[FLAGS] = row[OP_FLAGS]
    attributes[BACKING] = row[OP_PATH] if row[OP_OFFSET] != NULL else NO_TEXT
    count_mapping(space, place, index, 1)


def _map(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Map `length` bytes, rounded up to pages, at `result`; MAP_FIXED replaces silently. Source: mmap(2)."""
    start = row[OP_RESULT]
    end = start + round_up(row[OP_LENGTH], page)
    replaces = row[OP_FLAGS] & MAP_FIXED and not row[OP_FLAGS] & MAP_FIXED_NOREPLACE
    if is_mapped_inside(space, start, end):
        if not replaces:
            space.totals[DIVERGENCE] = MAP_OVER_MAPPING
        dead_count = unmap_range(space, start, end, row[OP_CLOCK], row[OP_STEP], dead, dead_count)
    _add_new(space, start, end, row)
    return dead_count


def _unmap(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Unmap the pages of `[addr, addr + length)`; gaps in between are no error. Source: munmap(2)."""
    start = row[OP_ADDR]
    end = start + round_up(row[OP_LENGTH], page)
    if not is_mapped_inside(space, start, end):
        space.totals[DIVERGENCE] = UNMAP_UNKNOWN
        return dead_count
    return unmap_range(space, start, end, row[OP_CLOCK], row[OP_STEP], dead, dead_count)


def _protect(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Set the protection of `[addr, addr + length)`; of a call that failed, only up to what stopped the kernel.

    A success over pages that no line mapped betrays mappings that execve made (or that are older than the log).
    `PROT_GROWSDOWN` in the flags begins at the start of the mapping that `addr` is in.
    Source: mm/mprotect.c, do_mprotect_pkey walks VMAs and stops at the first that it may not change.
    """
    start = row[OP_ADDR]
    end = start + round_up(row[OP_LENGTH], page)
    prot = row[OP_PROT]
    clock, step = row[OP_CLOCK], row[OP_STEP]
    if row[OP_FLAGS] & PROT_GROWSDOWN:
        start = _start_of_mapping(space, start)
    if row[OP_ERRNO] == 0:
        before = space.totals[MAPPED_BYTES]
        infer_gaps(space, start, end, row[OP_KIND], PROT_WRITE | 1)
        if space.totals[MAPPED_BYTES] != before:
            space.totals[DIVERGENCE] = PROTECT_UNKNOWN
    else:
        end = _protected_up_to(space, start, end, prot, row[OP_ERRNO])
        if end == start:
            return dead_count
    dead_count = split_at(space, start, clock, step, dead, dead_count)
    dead_count = split_at(space, end, clock, step, dead, dead_count)
    at = start
    place, index = locate(space, at)
    while place < space.totals[LEAVES]:
        leaf = space.lists[ORDER, place]
        low, high = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
        if low != at or low >= end:
            break
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if attributes[PROT] != prot:
            dead_count = begin_rectangle(space, place, index, clock, step, dead, dead_count)
            attributes[PROT] = prot
            count_in_totals(space, place, index, 1)
        at = high
        place, index = mapping_after(space, place, index)
    return dead_count


def _start_of_mapping(space: Space, address: int) -> int:
    """Return where the mapping begins that `address` is in, with the equal neighbours below it; `address` if none is.

    Source: mm/mprotect.c, do_mprotect_pkey: `start = vma->vm_start` under PROT_GROWSDOWN.
    """
    place, index = locate(space, address)
    if place == space.totals[LEAVES] or space.leaves[space.lists[ORDER, place], STARTS, index] > address:
        return address
    leaf = space.lists[ORDER, place]
    start = space.leaves[leaf, STARTS, index]
    before_leaf, before_index = mapping_before(space, place, index)
    while before_leaf >= 0 and joined(space, before_leaf, before_index, leaf, index):
        leaf, index = before_leaf, before_index
        start = space.leaves[leaf, STARTS, index]
        place, index = locate(space, start)
        before_leaf, before_index = mapping_before(space, place, index)
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
    place, index = locate(space, at)
    while place < space.totals[LEAVES] and at < end:
        leaf = space.lists[ORDER, place]
        if space.leaves[leaf, STARTS, index] > at:
            return at if errno == ENOMEM else refused
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if refused == start and _may_refuse(attributes, prot, errno):
            refused = at
        at = space.leaves[leaf, ENDS, index]
        place, index = mapping_after(space, place, index)
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
    granted = row[OP_RESULT]
    before = totals[BRK]
    clock, step = row[OP_CLOCK], row[OP_STEP]
    totals[BRK] = granted
    if before == NULL:
        if totals[START_BRK] in (FRESH, MOVED) and row[OP_ADDR] == 0:
            totals[START_BRK] = granted
        elif totals[START_BRK] == MOVED and granted == row[OP_ADDR]:
            # Heuristic: the start is a rounder number than a break that has grown from it.
            totals[START_BRK] = granted & (granted - 1)
            return _brk_grows(space, totals[START_BRK], round_up(granted, page), row, dead, dead_count)
        return dead_count
    low, high = round_up(before, page), round_up(granted, page)
    if low != high and granted != row[OP_ADDR]:
        totals[DIVERGENCE] = BRK_MOVED
    if high < low:
        return unmap_range(space, high, low, clock, step, dead, dead_count)
    if high > low:
        return _brk_grows(space, low, high, row, dead, dead_count)
    return dead_count


def _brk_grows(space: Space, low: int, high: int, row: Int64Array, dead: Int64Array, dead_count: int) -> int:
    """Map `[low, high)` as a part of the brk area."""
    if is_mapped_inside(space, low, high):
        space.totals[DIVERGENCE] = BRK_OVER_MAPPING
        dead_count = unmap_range(space, low, high, row[OP_CLOCK], row[OP_STEP], dead, dead_count)
    _add_new(space, low, high, row)
    return dead_count


def _set_brk(totals: Int64Array, row: Int64Array) -> None:
    """Set the break, its start (`flags` 1), or forget both (`flags` 2). Source: prctl(2), PR_SET_MM."""
    if row[OP_FLAGS] == 2:
        totals[BRK] = NULL
        totals[START_BRK] = MOVED
    elif row[OP_FLAGS]:
        totals[START_BRK] = row[OP_ADDR]
    else:
        totals[BRK] = row[OP_ADDR]


def _like() -> tuple[Any, ...]:
    """Return arguments of the layout that the loop is compiled for."""
    table = np.zeros((0, 0), np.int64)
    return empty_space(), table, np.zeros(0, np.int64), (0, 0), table, table, table, 0


_PARTS: Final = (arrays, totals, vma_tree, rectangles, remap, edits)

apply_operations: Final = Loop(
    _apply_operations,
    _like,
    helpers=(
        *(helper for part in _PARTS for helper in part.HELPERS),
        _add_new, _map, _unmap, _protect, _start_of_mapping, _protected_up_to, _may_refuse, _brk, _brk_grows, _set_brk,
    ),
    inlined=(*(helper for part in _PARTS for helper in part.INLINED), _is_impossible),
    results=2,
)  # fmt: skip
