"""Operations on what mappings are, or that go by it: shmdt, names, advice and seals, file offsets, files unlinked.

In go the rows of such operations, out comes the space changed, and the rectangles that ended. Of calls and their names
nothing is known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NULL, Int64Array
from replay.mm.fields import (
    BACKING,
    FLAGS,
    KIND,
    KIND_SHM,
    MAPPED_AT_STEP,
    OFFSET,
    OP_ADDR,
    OP_CLOCK,
    OP_CODE,
    OP_FLAGS,
    OP_LENGTH,
    OP_OFFSET,
    OP_PATH,
    OP_PROT,
    OP_STEP,
    PATH,
    UNMAP_UNKNOWN,
    OpCode,
)
from replay.mm.rectangles import begin_rectangle, end_mapping, split_at
from replay.mm.space import DIVERGENCE, ENDS, LEAVES, ORDER, SLOTS, STARTS, Space, locate, mapping_after, round_up
from replay.mm.totals import count_in_totals


def detach(space: Space, row: Int64Array, dead: Int64Array, dead_count: int) -> int:
    """End all pieces of the shared memory attach that began at `addr`. Source: ipc/shm.c, ksys_shmdt.

    ksys_shmdt looks for a VMA with `vm_start - addr == vm_pgoff` in bytes, then takes every piece of the same file.
    """
    start = row[OP_ADDR]
    place, index = locate(space, start)
    made = NULL
    while place < space.totals[LEAVES]:
        leaf = space.lists[ORDER, place]
        low, high = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if attributes[KIND] == KIND_SHM and attributes[OFFSET] == low - start:
            if made == NULL:
                made = attributes[MAPPED_AT_STEP]
            if attributes[MAPPED_AT_STEP] == made:
                dead_count = end_mapping(space, place, index, row[OP_CLOCK], dead, dead_count)
        place, index = locate(space, high)
    if made == NULL:
        space.totals[DIVERGENCE] = UNMAP_UNKNOWN
    return dead_count


def edit(space: Space, row: Int64Array, dead: Int64Array, dead_count: int, page: int) -> int:
    """Change one attribute of the mappings in `[addr, addr + length)`: name, marks or file offset.

    Of the marks in their flags (`DONTFORK`, `SEALED`) those in the row's `prot` go and those in its `flags` come.
    """
    start = row[OP_ADDR]
    end = start + round_up(row[OP_LENGTH], page)
    clock, step, code = row[OP_CLOCK], row[OP_STEP], row[OP_CODE]
    dead_count = split_at(space, start, clock, step, dead, dead_count)
    dead_count = split_at(space, end, clock, step, dead, dead_count)
    place, index = locate(space, start)
    while place < space.totals[LEAVES] and space.leaves[space.lists[ORDER, place], STARTS, index] < end:
        leaf = space.lists[ORDER, place]
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if code == OpCode.MARK:
            attributes[FLAGS] = (attributes[FLAGS] & ~row[OP_PROT]) | row[OP_FLAGS]
        elif code == OpCode.REMAP_FILE or attributes[OFFSET] == NULL:
            dead_count = begin_rectangle(space, place, index, clock, step, dead, dead_count)
            if code == OpCode.REMAP_FILE:
                attributes[OFFSET] = row[OP_OFFSET] + space.leaves[leaf, STARTS, index] - start
            else:
                attributes[PATH] = row[OP_PATH]
                attributes[BACKING] = row[OP_PATH]
            count_in_totals(space, place, index, 1)
        place, index = mapping_after(space, place, index)
    return dead_count


def rename_path(space: Space, row: Int64Array, dead: Int64Array, dead_count: int) -> int:
    """Give every mapping whose path is the row's `addr` (a text id) the row's path: the file was unlinked."""
    place, index = 0, 0
    while place < space.totals[LEAVES]:
        leaf = space.lists[ORDER, place]
        attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
        if attributes[PATH] == row[OP_ADDR] and attributes[OFFSET] != NULL:
            dead_count = begin_rectangle(space, place, index, row[OP_CLOCK], row[OP_STEP], dead, dead_count)
            attributes[PATH] = row[OP_PATH]
            attributes[BACKING] = row[OP_PATH]
            count_in_totals(space, place, index, 1)
        place, index = mapping_after(space, place, index)
    return dead_count


HELPERS: Final = (detach, edit, rename_path)
"""What the compiled loop calls of this module."""

INLINED: Final = ()
