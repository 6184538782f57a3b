"""One Linux address space: its mappings in order of addresses, and what the kernel does to them.

In go rows of operations (map, unmap, protect, remap, brk …), out come rectangles: a mapping is written out when it
ends, with the lines of its birth and end. Of traces, processes and allocators this module knows nothing.

The functions of this room are plain Python over records and arrays, and keep to what numba compiles.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.native import Loop
from replay.engine.records import Records
from replay.mm import edits, rectangles, remap, totals, vma_tree
from replay.mm import space as arrays
from replay.mm.edits import edit, rename_path, shmdt
from replay.mm.fields import (
    ABOVE_BREAK,
    BORDER,
    BRK_MOVED,
    BRK_OVER_MAPPING,
    CHANGE,
    EACCES,
    ENOMEM,
    EPERM,
    FRESH,
    HIGHEST,
    HIGHEST_OFFSET,
    IMPOSSIBLE_RANGE,
    KIND_FILE,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_OVER_MAPPING,
    MOVED,
    NO_DIVERGENCE,
    OPERATION,
    ORIGIN_TRACE,
    PROT_EXEC,
    PROT_GROWSDOWN,
    PROT_WRITE,
    PROTECT_UNKNOWN,
    SEALED,
    UNMAP_UNKNOWN,
    Mapping,
    OpCode,
    Operation,
)
from replay.mm.rectangles import begin_rectangle, do_munmap, split_vma
from replay.mm.remap import mremap
from replay.mm.space import (
    AHEAD,
    READ_AHEAD_ABOVE,
    Space,
    empty_space,
    find_vma,
    has_room,
    is_mapped_inside,
    leaf_at,
    mapping_after,
    mapping_at,
    mapping_before,
    page_align,
)
from replay.mm.totals import count_in_totals, count_mapping, describe_above, joined, measure
from replay.mm.vma_tree import infer_gaps, insert_free, read_ahead


def _apply_operations(
    space: Space,
    operations: Records,
    chosen: Int64Array,
    bounds: tuple[int, int],
    changes: Records,
    above_break: Records,
    page: int,
) -> tuple[int, int]:
    """Apply some operations to `space`, write out what ends, note a change for each and what is above each brk call.

    They are those whose numbers are `chosen[bounds[0]:bounds[1]]`. Returns the place in `chosen` of the first one not
    applied (because an array of the space needs more room) and the count of rectangles in `space.ended`.
    """
    state = space.state
    state.ended = 0
    for at in range(bounds[0], bounds[1]):
        if state.leaves > READ_AHEAD_ABOVE:
            turn = (at - bounds[0]) % AHEAD
            if turn == 0:
                read_ahead(space, operations, chosen, at, min(at + AHEAD, bounds[1]))
            state.last_place = space.ahead[turn].place
        operation, change = operations[chosen[at]], changes[chosen[at]]
        if not has_room(space, operation.code):
            return at, state.ended
        state.divergence = NO_DIVERGENCE
        change.brk_before = state.brk
        if _is_impossible(operation, page):
            state.divergence = IMPOSSIBLE_RANGE
        else:
            if operation.code == OpCode.BRK:
                describe_above(space, above_break[operation.brk_call], page)
            _apply(space, operation, page)
        measure(space, change, page)
    return bounds[1], state.ended


def _apply(space: Space, operation: Operation, page: int) -> None:
    """Do what an operation does."""
    code = operation.code
    if code == OpCode.MAP:
        mmap_region(space, operation, page)
    elif code == OpCode.UNMAP:
        munmap(space, operation, page)
    elif code == OpCode.PROTECT:
        mprotect(space, operation, page)
    elif code == OpCode.BRK:
        brk(space, operation, page)
    elif code in (OpCode.REMAP, OpCode.REMAP_TAKE, OpCode.REMAP_GIVE):
        mremap(space, operation, page)
    elif code == OpCode.DETACH:
        shmdt(space, operation)
    elif code == OpCode.SET_BRK:
        prctl_set_mm(space, operation)
    elif code == OpCode.DELETED:
        rename_path(space, operation)
    else:
        edit(space, operation, page)


def _is_impossible(operation: Operation, page: int) -> bool:
    """Tell whether an operation names addresses, lengths or offsets that no address space has: its line is damaged.

    A break may be asked for anywhere, and be anything below the highest address; all others begin with a page.
    """
    code, result, length, old_length = operation.code, operation.result, operation.length, operation.old_length
    addr = 0 if code == OpCode.BRK else operation.addr
    start = result if code == OpCode.MAP else addr
    if min(addr, result, length, old_length) < 0 or max(addr, result, length, old_length) > HIGHEST:
        return True
    if code == OpCode.DELETED:
        return False
    if max(start, result) + length > HIGHEST or addr + old_length > HIGHEST:
        return True
    if start < BORDER < start + length or operation.offset > HIGHEST_OFFSET:
        return True
    return bool(code != OpCode.BRK and (result & (page - 1) or (code != OpCode.SET_BRK and start & (page - 1))))


def _add_new(space: Space, start: int, end: int, operation: Operation) -> None:
    """Insert the mapping `[start, end)` that an operation gives."""
    place, index = insert_free(space, start, end)
    mapping = mapping_at(space, place, index)
    mapping.prot = operation.prot
    mapping.shared = operation.shared
    mapping.backing = operation.path if operation.offset != NULL else NO_TEXT
    mapping.offset = operation.offset
    mapping.flags = operation.flags
    mapping.kind = operation.kind
    mapping.path = operation.path
    mapping.origin = ORIGIN_TRACE
    mapping.made_line = operation.clock
    mapping.made_step = operation.step
    mapping.born_line = operation.clock
    mapping.born_step = operation.step
    count_mapping(space, place, index, 1)


def mmap_region(space: Space, operation: Operation, page: int) -> None:
    """Map `length` bytes, rounded up to pages, at `result`; MAP_FIXED replaces silently. Source: mmap(2)."""
    start = operation.result
    end = start + page_align(operation.length, page)
    replaces = operation.flags & MAP_FIXED and not operation.flags & MAP_FIXED_NOREPLACE
    if is_mapped_inside(space, start, end):
        if not replaces:
            space.state.divergence = MAP_OVER_MAPPING
        do_munmap(space, start, end, operation)
    _add_new(space, start, end, operation)


def munmap(space: Space, operation: Operation, page: int) -> None:
    """Unmap the pages of `[addr, addr + length)`; gaps in between are no error. Source: mmap(2)."""
    start = operation.addr
    end = start + page_align(operation.length, page)
    if is_mapped_inside(space, start, end):
        do_munmap(space, start, end, operation)
    else:
        space.state.divergence = UNMAP_UNKNOWN


def mprotect(space: Space, operation: Operation, page: int) -> None:
    """Set the protection of `[addr, addr + length)`; of a call that failed, only up to what stopped the kernel.

    A success over pages that no line mapped betrays mappings that execve made (or that are older than the log).
    `PROT_GROWSDOWN` in the flags begins at the start of the mapping that `addr` is in.
    Source: mm/mprotect.c, do_mprotect_pkey walks VMAs and stops at the first that it may not change.
    """
    start = operation.addr
    end = start + page_align(operation.length, page)
    if operation.flags & PROT_GROWSDOWN:
        start = _start_of_mapping(space, start)
    if operation.errno == 0:
        before = space.state.mapped_bytes
        infer_gaps(space, start, end, operation.kind, PROT_WRITE | 1)
        if space.state.mapped_bytes != before:
            space.state.divergence = PROTECT_UNKNOWN
    else:
        end = _protected_up_to(space, start, end, operation.prot, operation.errno)
        if end == start:
            return
    split_vma(space, start, operation)
    split_vma(space, end, operation)
    at = start
    place, index = find_vma(space, at)
    while place < space.state.leaves and leaf_at(space, place).starts[index] == at and at < end:
        at = leaf_at(space, place).ends[index]
        _mprotect_fixup(space, place, index, operation)
        place, index = mapping_after(space, place, index)


def _mprotect_fixup(space: Space, place: int, index: int, operation: Operation) -> None:
    """Give the mapping at (place, index) the protection of an operation. Source: mm/mprotect.c, mprotect_fixup."""
    mapping = mapping_at(space, place, index)
    if mapping.prot != operation.prot:
        begin_rectangle(space, place, index, operation)
        mapping.prot = operation.prot
        count_in_totals(space, place, index, 1)


def _start_of_mapping(space: Space, address: int) -> int:
    """Return where the mapping begins that `address` is in, with the equal neighbours below it; `address` if none is.

    Source: mm/mprotect.c, do_mprotect_pkey: `start = vma->vm_start` under PROT_GROWSDOWN.
    """
    place, index = find_vma(space, address)
    if place == space.state.leaves or leaf_at(space, place).starts[index] > address:
        return address
    leaf = int(space.order[place])
    before_leaf, before_index = mapping_before(space, place, index)
    while before_leaf >= 0 and joined(space, before_leaf, before_index, leaf, index):
        leaf, index = before_leaf, before_index
        place, index = find_vma(space, space.leaves[leaf].starts[index])
        before_leaf, before_index = mapping_before(space, place, index)
    return int(space.leaves[leaf].starts[index])


def _protected_up_to(space: Space, start: int, end: int, prot: int, errno: int) -> int:
    """Return where an mprotect of `[start, end)` that failed stopped: the mappings before were changed.

    Source: mm/mprotect.c, do_mprotect_pkey: ENOMEM at the first gap, or (mprotect_fixup) where RLIMIT_DATA forbids
    private memory to become writable; where neither can be, the map count forbade the first cut. EACCES where a file
    that was opened to be read is mapped shared, or cannot be executed; EPERM where mseal forbids it. Other errors come
    before the first mapping is changed.
    """
    at = start
    refused = start
    place, index = find_vma(space, at)
    while place < space.state.leaves and at < end:
        leaf = leaf_at(space, place)
        if leaf.starts[index] > at:
            return at if errno == ENOMEM else refused
        if refused == start and _may_refuse(mapping_at(space, place, index), prot, errno):
            refused = at
        at = leaf.ends[index]
        place, index = mapping_after(space, place, index)
    return at if errno == ENOMEM and at < end else refused


def _may_refuse(mapping: Mapping, prot: int, errno: int) -> bool:
    """Tell whether a mapping may be the one because of which mprotect failed with `errno`."""
    added = prot & ~mapping.prot
    if errno == ENOMEM:
        return bool(added & PROT_WRITE and not mapping.shared)
    if errno == EACCES:
        is_file = mapping.kind == KIND_FILE
        return bool((added & PROT_WRITE and mapping.shared) or (added & PROT_EXEC and is_file))
    return bool(errno == EPERM and mapping.flags & SEALED)


def brk(space: Space, operation: Operation, page: int) -> None:
    """Move the break to `result`: map what it grew by, unmap what it shrank by, foreign mappings included.

    Source: mm/mmap.c, SYSCALL_DEFINE1(brk): old and new break are rounded up to pages, equal pages change the number
    only, the pages between [new, old) are unmapped whoever mapped them.
    """
    state, granted, asked = space.state, operation.result, operation.addr
    before = state.brk
    state.brk = granted
    if before == NULL:
        if state.start_brk in (FRESH, MOVED) and asked == 0:
            state.start_brk = granted
        elif state.start_brk == MOVED and granted == asked:
            # Heuristic: the start is a rounder number than a break that has grown from it.
            state.start_brk = granted & (granted - 1)
            _do_brk_flags(space, state.start_brk, page_align(granted, page), operation)
        return
    low, high = page_align(before, page), page_align(granted, page)
    if low != high and granted != asked:
        state.divergence = BRK_MOVED
    if high < low:
        do_munmap(space, high, low, operation)
    if high > low:
        _do_brk_flags(space, low, high, operation)


def _do_brk_flags(space: Space, low: int, high: int, operation: Operation) -> None:
    """Map `[low, high)` as a part of the brk area. Source: mm/mmap.c, do_brk_flags."""
    if is_mapped_inside(space, low, high):
        space.state.divergence = BRK_OVER_MAPPING
        do_munmap(space, low, high, operation)
    _add_new(space, low, high, operation)


def prctl_set_mm(space: Space, operation: Operation) -> None:
    """Set the break, its start (`flags` 1), or forget both (`flags` 2). Source: prctl(2), PR_SET_MM."""
    state = space.state
    if operation.flags == 2:
        state.brk = NULL
        state.start_brk = MOVED
    elif operation.flags:
        state.start_brk = operation.addr
    else:
        state.brk = operation.addr


def _like() -> tuple[Any, ...]:
    """Return arguments of the layout that the loop is compiled for."""
    operations, changes, above = np.zeros(0, OPERATION), np.zeros(0, CHANGE), np.zeros(0, ABOVE_BREAK)
    return empty_space(), operations, np.zeros(0, np.int64), (0, 0), changes, above, 0


_PARTS: Final = (arrays, totals, vma_tree, rectangles, remap, edits)

apply_operations: Final = Loop(
    _apply_operations,
    _like,
    helpers=(
        *(helper for part in _PARTS for helper in part.HELPERS),
        _add_new, mmap_region, munmap, mprotect, _mprotect_fixup, _start_of_mapping, _protected_up_to, _may_refuse,
        brk, _do_brk_flags, prctl_set_mm, _apply,
    ),
    inlined=(*(helper for part in _PARTS for helper in part.INLINED), _is_impossible),
    results=2,
)  # fmt: skip
