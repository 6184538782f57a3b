"""The columns and codes of an address space: of a mapping, an operation, a rectangle, and what an operation leaves.

All are numbers of columns and what stands in them: names for the rows of NumPy arrays. Nothing is computed here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

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
MAPPED_AT: Final = 8
MAPPED_AT_STEP: Final = 9
RECTANGLE_FROM: Final = 10
RECTANGLE_FROM_STEP: Final = 11
ATTRIBUTES: Final = 12

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

# Columns of an operation, and what it does.
OP_CLOCK: Final = 0
OP_STEP: Final = 1
OP_CODE: Final = 2
OP_ADDR: Final = 3
OP_LENGTH: Final = 4
OP_PROT: Final = 5
OP_FLAGS: Final = 6
OP_SHARED: Final = 7
OP_KIND: Final = 8
OP_PATH: Final = 9
OP_OFFSET: Final = 10
OP_RESULT: Final = 11
OP_OLD_LENGTH: Final = 12
OP_BRK: Final = 12
"""The old length of a remap; the place of a brk call among the rows of what lay above the break."""
OP_ERRNO: Final = 13
OP_WIDTH: Final = 14


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


# Columns of a written-out rectangle: `ATTRIBUTES` ones, then its addresses and the line up to which it is there.
RECTANGLE_START: Final = ATTRIBUTES
RECTANGLE_END: Final = ATTRIBUTES + 1
RECTANGLE_UNTIL: Final = ATTRIBUTES + 2
RECTANGLE_WIDTH: Final = ATTRIBUTES + 3

# Columns of what each operation leaves behind for the report.
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

# Columns of what stood above the break before a brk call: the first mapping, and the space's private writable bytes.
ABOVE_DATA_BYTES: Final = 0
ABOVE_START: Final = 1
ABOVE_END: Final = 2
ABOVE_MAPPED_AT: Final = 3
ABOVE_PROT: Final = 4
ABOVE_PATH: Final = 5
ABOVE_FLAGS: Final = 6
ABOVE_KIND: Final = 7
ABOVE_SHARED: Final = 8
ABOVE_WIDTH: Final = 9

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
