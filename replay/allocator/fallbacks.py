"""What stands in for a refused brk: fallbacks, and blocks mapped alone as the last resort.

In go the mappings that may be an allocator's and the refused brk calls, out come marks on those that answer one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.allocator import identify
from replay.allocator.brk_refusals import Refusals
from replay.allocator.identify import Allocators
from replay.allocator.kinds import FALLBACK, LAST_RESORT, NONE, Candidates
from replay.allocator.pools import SPAN
from replay.allocator.program_mappings import READ_WRITE
from replay.allocator.replayed import Replayed
from replay.calls.table import OK
from replay.engine.columns import NULL, Int64Array, Mask
from replay.engine.sorting import ascending
from replay.linux.constants import CALL_CODE
from replay.linux.glibc import TOP_PAD

_MIB: Final = 1 << 20

_LAST_RESORT_CALLS: Final = 24
"""Calls between the refused brk and the last resort at most: the fallback and two heaps of five calls each."""


def _places(steps: Int64Array, wanted: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return where in `steps`, which ascend, those of `wanted` stand that are there, and which these are; ascending."""
    place = np.searchsorted(steps, wanted)
    which = np.flatnonzero(place < len(steps))
    which = which[steps[place[which]] == wanted[which]]
    which = which[ascending(place[which])]
    return place[which], which


def mark_fallbacks(record: Replayed, refusals: Refusals, candidates: Candidates, allocators: Allocators) -> None:
    """Mark what stands in for a brk that was refused: the very next call of the same thread, and no smaller.

    Source: sysmalloc_mmap_fallback in malloc/malloc.c (glibc); expand_heap in src/malloc/oldmalloc/malloc.c and
    alloc_meta in src/malloc/mallocng/malloc.c (musl); MmapSysAllocator in src/system-alloc.cc (gperftools).
    """
    rows, refused = _places(candidates.step, refusals.after)
    malloc, metadata = candidates.allocator[rows], allocators.mallocng[candidates.space[rows]]
    chosen = candidates.anywhere[rows] & candidates.plain[rows] & (candidates.kind[rows] == NONE)
    chosen &= _stands_in(candidates.length[rows], refusals.growth[refused], malloc, record.page_size)
    chosen &= np.isin(malloc, [identify.GLIBC, identify.MUSL, identify.BIONIC, identify.TCMALLOC, identify.UNKNOWN])
    chosen &= candidates.writable[rows] != metadata
    candidates.kind[rows[chosen]] = FALLBACK
    candidates.refusal_step[rows[chosen]] = refusals.step[refused[chosen]]
    candidates.growth.update(zip(rows[chosen].tolist(), refusals.growth[refused[chosen]].tolist(), strict=True))
    _mark_for_good(refusals, candidates)


def _mark_for_good(refusals: Refusals, candidates: Candidates) -> None:
    """Mark all that tcmalloc maps once a brk was refused: it never asks the break again.

    Source: SbrkSysAllocator::Alloc in src/system-alloc.cc (gperftools): one failure is remembered.
    """
    rows = np.flatnonzero((candidates.allocator == identify.TCMALLOC) & (candidates.kind == NONE))
    rows = rows[candidates.length[rows] >= SPAN]
    if not len(rows) or not len(refusals.step):
        return
    first = np.full(int(max(candidates.space.max(), refusals.space.max())) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, refusals.space, refusals.step)
    rows = rows[first[candidates.space[rows]] < candidates.step[rows]]
    candidates.kind[rows] = FALLBACK
    candidates.refusal_step[rows] = first[candidates.space[rows]]


def _stands_in(length: Int64Array, growth: Int64Array, malloc: NDArray[np.int8], page: int) -> Mask:
    """Return whether the length is one that some allocator asks for in place of the refused growth.

    glibc: the same growth, 1 MiB and multiples of it, or more where the growth has its usual 128 KiB of padding.
    musl: the same growth, or a power of two pages. tcmalloc: one page more. Larger than that is a request of its own:
    malloc of musl before 1.1.0 has no fallback, yet still maps large blocks.
    """
    same = (length == growth) | (length == growth + page)
    whole_mib = length % _MIB == 0
    padded = (growth >= TOP_PAD) & (length >= _MIB)
    power = length & (length - 1) == 0
    for_glibc = (malloc != identify.MUSL) & (whole_mib | padded)
    for_musl = ((malloc == identify.MUSL) | (malloc == identify.UNKNOWN)) & power
    fits: Mask = (length >= growth) & (same | for_glibc | for_musl)
    return fits


def mark_last_resorts(record: Replayed, refusals: Refusals, candidates: Candidates, behind_heaps: Int64Array) -> None:
    """Mark the blocks mapped alone right after a heap of an arena was refused, at the steps `behind_heaps`.

    Source: sysmalloc in malloc/malloc.c: without a usable arena, or with one that cannot grow, `sysmalloc_mmap`.
    """
    rows = _places(candidates.step, behind_heaps)[0]
    for suits in (candidates.writable, candidates.anywhere, candidates.plain, candidates.kind == NONE):
        rows = rows[suits[rows]]
    before = record.neighbours.preceding(candidates.step[rows], _LAST_RESORT_CALLS)
    refused = set(refusals.step.tolist()) if len(rows) else set()
    for row, steps in zip(rows.tolist(), before.tolist(), strict=True):
        candidates.kind[row] = LAST_RESORT
        candidates.refusal_step[row] = _refusal_behind(record, steps, refused)


def _refusal_behind(record: Replayed, before: list[int], refused: set[int]) -> int:
    """Return the refused brk from which the allocator came to its last resort, `NULL` where it began with an arena.

    `before` are the calls of the thread before it, the nearest first, `NULL` before its first one.
    """
    for step in before:
        if step in refused:
            return step
        if step == NULL:
            break
        call = record.one("call", step)
        is_data = call == CALL_CODE["mmap"] and record.one("prot", step) == READ_WRITE
        if call == CALL_CODE["brk"] or (is_data and record.one("status", step) == OK):
            break
    return NULL
