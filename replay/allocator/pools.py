"""The memory of allocators that do not live on brk: which mappings are their pools.

In go the mappings that may be an allocator's and who lives in each space, out come marks on those that are pools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from replay.allocator import identify
from replay.allocator.identify import Allocators
from replay.allocator.kinds import NONE, POOL, Candidates
from replay.allocator.replayed import Replayed
from replay.engine.columns import Int64Array, Mask

MALLOCNG_THRESHOLD: Final = 131052
_MALLOCNG_OVERHEAD: Final = 20
"""Bytes from which mallocng maps a block by itself, and what it adds. Source: MMAP_THRESHOLD, IB and UNIT in meta.h."""

_CPYTHON_ARENAS: Final = (1 << 20, 256 << 10)
"""Bytes of CPython's arenas: since 3.10, and before. Source: ARENA_BITS in Include/internal/pycore_obmalloc.h."""

_CPYTHON_STACK_CHUNK: Final = 16 << 10
"""Bytes of a chunk of CPython's data stack. Source: DATA_STACK_CHUNK_SIZE in Python/pystate.c, 3.11."""

SPAN: Final = 64 << 10
"""Bytes from which a mapping is a span of tcmalloc or mimalloc. Heuristic."""


def mark_pools(record: Replayed, candidates: Candidates, allocators: Allocators) -> None:
    """Mark the memory of allocators that do not live on brk, by runtime first, then by who serves malloc."""
    for code, takes in _POOLS.items():
        lives = _lives(allocators, code)
        if lives.any():
            rows = np.flatnonzero(lives[candidates.space] & (candidates.kind == NONE))
            rows = rows[takes(record, candidates, rows)]
            candidates.kind[rows] = POOL
            candidates.allocator[rows] = code


def _lives(allocators: Allocators, code: int) -> Mask:
    """Return in which spaces an allocator with pools lives; of musl, mallocng."""
    every = np.arange(len(allocators.malloc))
    lives = allocators.has(code, every) if code in identify.RUNTIMES else allocators.malloc == code
    return lives & allocators.mallocng if code == identify.MUSL else lives


def spaces_with_pools(allocators: Allocators) -> Mask:
    """Return in which spaces any allocator with pools lives."""
    pooled: Mask = np.logical_or.reduce([_lives(allocators, code) for code in _POOLS])
    return pooled


def _for_python(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    length = candidates.length[rows]
    arena = np.isin(length, _CPYTHON_ARENAS) | (length == _CPYTHON_STACK_CHUNK)
    alone = ~candidates.inside[rows]
    pool: Mask = arena & alone & candidates.writable[rows] & candidates.anywhere[rows]
    return pool


def _for_go(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    own = (candidates.allocator[rows] == identify.UNKNOWN) | (candidates.length[rows] == 256 << 10)
    alone = ~candidates.inside[rows]
    pool: Mask = alone & (~candidates.writable[rows] | ~candidates.anywhere[rows] | own)
    return pool


def _reserved(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    return ~candidates.writable[rows]


def _reserved_or_placed(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    return ~candidates.writable[rows] | ~candidates.anywhere[rows]


def _more_than_a_page(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    larger: Mask = candidates.length[rows] > record.page_size
    return larger


def _whole_spans(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    large: Mask = candidates.length[rows] >= SPAN
    return large


def _groups(record: Replayed, candidates: Candidates, rows: Int64Array) -> Mask:
    """Return which mappings are mallocng's groups of small blocks or pages of metadata.

    Source: alloc_group and malloc in src/malloc/mallocng/malloc.c (musl 1.2.1): groups are whole pages, a large block
    is asked for by its exact length.
    """
    asked = record.at("length", candidates.step[rows])
    whole = (asked & (record.page_size - 1)) == 0
    small = candidates.length[rows] < MALLOCNG_THRESHOLD + _MALLOCNG_OVERHEAD + record.page_size
    group: Mask = candidates.anywhere[rows] & (~candidates.writable[rows] | (whole & small))
    return group


_POOLS: Final[dict[int, Callable[[Replayed, Candidates, Int64Array], Mask]]] = {
    identify.CPYTHON: _for_python,
    identify.GO: _for_go,
    identify.HOTSPOT: _reserved,
    identify.V8: _reserved_or_placed,
    identify.JEMALLOC: _more_than_a_page,
    identify.MIMALLOC: _whole_spans,
    identify.TCMALLOC: _whole_spans,
    identify.MUSL: _groups,
}
"""Which mappings are an allocator's pools, in its spaces; the first rule that fits decides."""
