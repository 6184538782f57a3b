"""How the memory of this process itself is kept: by a long run for the next chunk, by a very long one in bounds.

In goes nothing, out comes nothing: glibc's malloc is told. Other libcs are left alone.

Source: mallopt(3), malloc_trim(3); the numbers of the parameters are in glibc's malloc/malloc.h.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_KEPT: Final = 64 << 20
"""Free bytes at the top of the heap that are kept for what comes next. Heuristic, measured."""

_LONG: Final = 16 << 20
"""Bytes from which on memory for a column is to come by mmap, so that it goes back at once. Heuristic, measured."""


@cache
def keep_freed_memory() -> None:
    """Have the memory of one chunk serve the next one, in whichever thread.

    The columns of a chunk are some hundred thousand bytes each: mapped anew for each of them, as malloc does at first,
    the kernel would clear every page of them over and over, which takes a tenth of the time of a long run.
    """
    libc = _libc()
    if libc is not None:
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_M_MMAP_THRESHOLD, _LONG)


def give_freed_memory_back() -> None:
    """Give back what is free, and keep glibc's threshold for blocks mapped by themselves at `_LONG`.

    It would rise to 32 MiB with the first long column that is freed, and what is freed below the top of the heap stays.
    """
    libc = _libc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LONG)
        libc.malloc_trim(0)


def _libc() -> Any:
    """Return the libc, None if it is not glibc."""
    import ctypes

    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
