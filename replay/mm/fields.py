"""The records and codes of an address space: a mapping, an operation, a rectangle, and what an operation leaves.

All are names for numbers and what stands in them. Nothing is computed here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from replay.engine.records import layout


class Mapping:
    """What is known of a live mapping besides its range.

    The first four, which decide whether neighbours are one line of /proc/PID/maps, are read the most and lie together.
    It was made by the call at `made_line`; what it is since, it is born as a rectangle at `born_line`.
    """

    prot: int
    shared: int
    backing: int
    offset: int
    flags: int
    kind: int
    path: int
    origin: int
    made_line: int
    made_step: int
    born_line: int
    born_step: int


class Rectangle(Mapping):
    """A mapping at the addresses `[start, end)`, from the line where it is born up to the one where it died."""

    start: int
    end: int
    died_line: int


class Operation:
    """What happens to a space at a line; `brk_call` is the number of a brk call among those of its window."""

    clock: int
    step: int
    code: int
    addr: int
    length: int
    prot: int
    flags: int
    shared: int
    kind: int
    path: int
    offset: int
    result: int
    old_length: int
    brk_call: int
    errno: int


class Change:
    """What an operation leaves behind for the report: the space as it is then, and the break before and after."""

    mapped_bytes: int
    mapping_count: int
    brk_bytes: int
    headroom_bytes: int
    gap_count: int
    gap_bytes: int
    largest_gap_bytes: int
    divergence: int
    brk_before: int
    brk_after: int


class AboveBreak:
    """What stood above the break before a brk call: the first mapping, made at `line`.

    `data_bytes` are the private writable bytes of the whole space.
    """

    data_bytes: int
    start: int
    end: int
    line: int
    prot: int
    path: int
    flags: int
    kind: int
    shared: int


MAPPING: Final = layout(Mapping)
RECTANGLE: Final = layout(Rectangle)
OPERATION: Final = layout(Operation)
CHANGE: Final = layout(Change)
ABOVE_BREAK: Final = layout(AboveBreak)

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


class OpCode(IntEnum):
    """What an operation does."""

    MAP = 0
    UNMAP = 1
    PROTECT = 2
    BRK = 3
    REMAP = 4
    REMAP_TAKE = 5
    REMAP_GIVE = 6
    DETACH = 7
    NAME = 8
    MARK = 9
    SET_BRK = 10
    REMAP_FILE = 11
    DELETED = 12


# Why an operation contradicts the model; the kernel's answer wins.
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
"""`start_brk` of a space whose first `brk(NULL)` will tell it: nothing has run in it yet."""
DONTFORK: Final = 1 << 40
"""Marks, in the flags of a mapping, that `madvise(MADV_DONTFORK)` keeps it out of a fork's child."""
MOVED: Final = -3
"""`start_brk` of a space whose break was moved to where no line tells: the next `brk` does."""
SEALED: Final = 1 << 41
"""Marks, in the flags of a mapping, that `mseal` forbids to change it."""
EPERM: Final = 1
ENOMEM: Final = 12
EACCES: Final = 13
DEFAULT_HUGE_PAGE: Final = 2 << 20
"""Bytes of a huge page where the flags name no size. Source: arch/x86/include/asm/page_types.h, HPAGE_SIZE."""
