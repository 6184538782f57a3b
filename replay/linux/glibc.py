"""Sizes that glibc's malloc goes by, in bytes, unless a program or its environment sets others. No logic.

Files are those of glibc's sources.
"""

from __future__ import annotations

from typing import Final

MMAP_THRESHOLD: Final = 128 << 10
"""From here on a block is mapped by itself at first. Source: DEFAULT_MMAP_THRESHOLD_MIN in malloc/malloc.c."""

THRESHOLD_MAX: Final = 32 << 20
THRESHOLD_MAX_NARROW: Final = 512 << 10
"""The largest chunk whose free raises that threshold, of 64 and of 32 bits.

Source: DEFAULT_MMAP_THRESHOLD_MAX in malloc/malloc.c, 4 MiB times sizeof(long), and 512 KiB.
"""

TRIM_THRESHOLD: Final = 128 << 10
"""More than this free at the top of the heap goes back. Source: DEFAULT_TRIM_THRESHOLD in malloc/malloc.c."""

TOP_PAD: Final = 128 << 10
"""What is asked of brk beyond the need, and what a trim leaves at the top.

Source: DEFAULT_TOP_PAD in sysdeps/generic/malloc-machine.h and malloc/arena.c.
"""

FIRST_GROWTH: Final = TOP_PAD + (4 << 10)
"""The first and every ordinary growth of the main arena: a small block and the pad, in pages of 4 KiB.

Source: sysmalloc in malloc/malloc.c.
"""

HEAP_MAX_SIZE: Final = 64 << 20
HEAP_MAX_SIZE_NARROW: Final = 1 << 20
"""Size and alignment of the heap of an arena beside the main one, of 64 and of 32 bits.

Source: HEAP_MAX_SIZE in malloc/arena.c: twice DEFAULT_MMAP_THRESHOLD_MAX.
"""

MINSIZE: Final = 32
"""The smallest chunk of 64 bits: a smaller gap between chunks is no free chunk. Source: MINSIZE in malloc/malloc.c."""
