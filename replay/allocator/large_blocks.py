"""Large requests: what malloc maps by itself, told by its size and by how the program treats it.

In go the mappings that may be an allocator's, out come marks on those that are one block each, and the thresholds then.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.allocator import identify
from replay.allocator.asked_mmaps import AskedMmaps, SomeMmaps
from replay.allocator.identify import Allocators
from replay.allocator.kinds import DIRECT, NONE, Candidates
from replay.allocator.mmap_threshold import LargeMappings, Thresholds, largest_growth
from replay.allocator.pools import MALLOCNG_THRESHOLD
from replay.engine.columns import Int64Array, Mask
from replay.engine.sorting import distinct, is_among
from replay.linux.glibc import MMAP_THRESHOLD

_GROWTH_PAD: Final = 0x22000
"""Bytes that a growth of the break may have besides the request: top_pad of 128 KiB, the rest rounded up to pages."""

_OLDMALLOC_THRESHOLD: Final = 0x38000
_OLDMALLOC_THRESHOLD_NARROW: Final = 0x1C000
"""Bytes from which older musl maps a block by itself. Source: MMAP_THRESHOLD in src/malloc/oldmalloc/malloc_impl.h."""

LEAST_THRESHOLD: Final = _OLDMALLOC_THRESHOLD_NARROW
"""Bytes up to which no malloc maps a block by itself."""

_ROUND: Final = 256 << 10
"""A length that is a multiple of this is no block of a libc, whose header makes of a round request a page more.

Source: sysmalloc_mmap in malloc/malloc.c: the request and its header, rounded up to pages. Heuristic: a request that
ends less than a page below such a length looks the same.
"""

_OWN_THRESHOLD_MAPPINGS: Final = 4
_OWN_THRESHOLD_LENGTHS: Final = 3
"""Mappings, and different lengths of them, that tell a threshold below the default one. Heuristic."""


def below_default_threshold(asked: AskedMmaps, allocators: Allocators) -> Int64Array:
    """Return the mappings that tell of a threshold below glibc's default one: few pages, of many lengths, freed whole.

    Heuristic: M_MMAP_THRESHOLD is in no log, and what a program maps for itself is of one length, or cut up.
    """
    plain = (allocators.malloc == identify.GLIBC) & (allocators.runtimes == 0)
    if not plain.any():
        return np.zeros(0, dtype=np.int64)

    def may(part: SomeMmaps) -> Mask:
        small = (part.length <= MMAP_THRESHOLD) & (part.length > asked.record.page_size) & ~part.failed
        small &= part.plain & part.writable & part.anywhere & plain[part.space]
        return small

    found = asked.chosen(may)
    kept = np.zeros(len(found.step), dtype=np.bool_)
    own = asked.own
    for space in distinct(found.space).tolist():
        rows = np.flatnonzero(found.space == space)
        if len(rows) < _OWN_THRESHOLD_MAPPINGS or len(distinct(found.length[rows])) < _OWN_THRESHOLD_LENGTHS:
            continue
        kept[rows] = not own.of(found.step[rows]).any() and own.freed_whole(found.step[rows]).mean() > 0.5
    return found.step[kept]


def mark_direct(asked: AskedMmaps, candidates: Candidates, allocators: Allocators, small: Int64Array) -> Thresholds:
    """Mark the requests that were mapped by themselves: what is larger than the threshold, or inside a malloc call.

    The steps `small` are blocks, too. The thresholds at all are returned.
    """
    record, inside = asked.record, candidates.inside
    may = (candidates.kind == NONE) & candidates.writable & candidates.anywhere
    rows = np.flatnonzero(may & (inside | (candidates.length > LEAST_THRESHOLD) | is_among(candidates.step, small)))
    if not len(rows):
        return Thresholds(candidates.length[rows], may[rows])
    mappings, own = LargeMappings(record, candidates, allocators.narrow), asked.own
    threshold = mappings.threshold(candidates.space[rows], candidates.step[rows])
    large = _large_for_musl(candidates, allocators, rows)
    large |= _large_for_glibc(asked, candidates, rows, threshold)
    alone = np.flatnonzero(large & ~inside[rows])
    large[alone] = ~own.of(candidates.step[rows[alone]])
    large |= is_among(candidates.step[rows], small)
    direct = np.flatnonzero(large | inside[rows])
    candidates.kind[rows[direct]] = DIRECT
    return Thresholds(threshold[direct], mappings.freed_whole(candidates.step[rows[direct]]))


def _large_for_glibc(asked: AskedMmaps, candidates: Candidates, rows: Int64Array, threshold: Int64Array) -> Mask:
    """Return which of `rows` glibc's malloc would map, by their size.

    Below the threshold that its rule gives, a mapping counts only where nothing speaks against a threshold that the
    program fixed: neither a break that grew for such a request (one of this size does not come by mmap then), nor
    mappings that the program treats as its own.
    """
    malloc, length, space = candidates.allocator[rows], candidates.length[rows], candidates.space[rows]
    blocks = candidates.plain[rows] & ((malloc == identify.GLIBC) | (malloc == identify.UNKNOWN))
    large: Mask = blocks & (length > threshold)
    doubt = np.flatnonzero(blocks & ~large & (length > MMAP_THRESHOLD))
    maps_itself = _maps_itself(asked, candidates, distinct(space[doubt]))
    doubt = doubt[~maps_itself[space[doubt]]]
    growth = largest_growth(asked.record, space[doubt], candidates.step[rows[doubt]])
    large[doubt] = growth - _GROWTH_PAD < length[doubt]
    large &= length % _ROUND != 0
    return large


def _maps_itself(asked: AskedMmaps, candidates: Candidates, spaces: Int64Array) -> Mask:
    """Return in which of some spaces the program treats a mapping as its own that might be a block by its looks."""
    marked = candidates.step[candidates.kind != NONE]
    found = np.zeros(asked.record.space_count, dtype=np.bool_)

    def may(part: SomeMmaps) -> Mask:
        return part.writable & part.anywhere & ~found[part.space] & ~is_among(part.step, marked)

    left = spaces
    for part in asked.parts() if len(spaces) else ():
        found[part.space[may(part) & asked.own.protected(part.step)]] = True
        left = spaces[~found[spaces]]
        if not len(left):
            break
    if len(left):
        pieces = [part.take(may(part) & is_among(part.space, left)) for part in asked.parts()]
        steps, space = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("step", "space"))
        found[space[asked.own.cut_up(steps)]] = True
    return found


def _large_for_musl(candidates: Candidates, allocators: Allocators, rows: Int64Array) -> Mask:
    """Return which of `rows` musl's malloc would map, by their size."""
    space = candidates.space[rows]
    oldmalloc = np.where(allocators.narrow, _OLDMALLOC_THRESHOLD_NARROW, _OLDMALLOC_THRESHOLD)
    least = np.where(allocators.mallocng, MALLOCNG_THRESHOLD, oldmalloc)
    large: Mask = (candidates.allocator[rows] == identify.MUSL) & (candidates.length[rows] > least[space])
    return large
