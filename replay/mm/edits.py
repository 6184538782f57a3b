"""Operations on what mappings are, or that go by it: shmdt, names, advice and seals, file offsets, files unlinked.

In go such operations, out comes the space changed, and the rectangles that ended. Of calls and their names nothing is
known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NULL
from replay.mm.fields import KIND_SHM, UNMAP_UNKNOWN, OpCode, Operation
from replay.mm.rectangles import begin_rectangle, end_mapping, split_vma
from replay.mm.space import Space, find_vma, leaf_at, mapping_after, mapping_at, page_align
from replay.mm.totals import count_in_totals


def shmdt(space: Space, operation: Operation) -> None:
    """End all pieces of the shared memory attach that began at `addr`. Source: ipc/shm.c, ksys_shmdt.

    ksys_shmdt looks for a VMA with `vm_start - addr == vm_pgoff` in bytes, then takes every piece of the same file.
    """
    made = NULL
    place, index = find_vma(space, operation.addr)
    while place < space.state.leaves:
        leaf, mapping = leaf_at(space, place), mapping_at(space, place, index)
        high = leaf.ends[index]
        if mapping.kind == KIND_SHM and mapping.offset == leaf.starts[index] - operation.addr:
            if made == NULL:
                made = mapping.made_step
            if mapping.made_step == made:
                end_mapping(space, place, index, operation)
        place, index = find_vma(space, high)
    if made == NULL:
        space.state.divergence = UNMAP_UNKNOWN


def edit(space: Space, operation: Operation, page: int) -> None:
    """Change one thing of the mappings in `[addr, addr + length)`: name, marks or file offset.

    Of the marks in their flags (`DONTFORK`, `SEALED`) those in the operation's `prot` go and those in its `flags` come.
    """
    start, code = operation.addr, operation.code
    end = start + page_align(operation.length, page)
    split_vma(space, start, operation)
    split_vma(space, end, operation)
    place, index = find_vma(space, start)
    while place < space.state.leaves and leaf_at(space, place).starts[index] < end:
        mapping = mapping_at(space, place, index)
        if code == OpCode.MARK:
            mapping.flags = (mapping.flags & ~operation.prot) | operation.flags
        elif code == OpCode.REMAP_FILE or mapping.offset == NULL:
            begin_rectangle(space, place, index, operation)
            if code == OpCode.REMAP_FILE:
                mapping.offset = operation.offset + leaf_at(space, place).starts[index] - start
            else:
                mapping.path = operation.path
                mapping.backing = operation.path
            count_in_totals(space, place, index, 1)
        place, index = mapping_after(space, place, index)


def rename_path(space: Space, operation: Operation) -> None:
    """Give every mapping whose path is `addr` (a text id) the path of the operation: the file was unlinked."""
    place, index = 0, 0
    while place < space.state.leaves:
        mapping = mapping_at(space, place, index)
        if mapping.path == operation.addr and mapping.offset != NULL:
            begin_rectangle(space, place, index, operation)
            mapping.path = operation.path
            mapping.backing = operation.path
            count_in_totals(space, place, index, 1)
        place, index = mapping_after(space, place, index)


HELPERS: Final = (shmdt, edit, rename_path)
"""What the compiled loop calls of this module."""

INLINED: Final = ()
