"""The columns and codes of an address space: of a mapping, an operation, a rectangle, and what an operation leaves.

All are numbers of columns and what stands in them: names for the rows of NumPy arrays. Nothing is computed here.
"""

from __future__ import annotations

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
MADE: Final = 8
MADE_STEP: Final = 9
BORN: Final = 10
BORN_STEP: Final = 11
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
