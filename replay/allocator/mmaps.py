"""The mappings that allocators made, or tried to make, for themselves, and what each is.

In go the calls, the refused brk calls and who serves malloc where; out comes one row for each mapping with its kind
and a sentence of evidence. File maps, stacks, what ld.so maps and what replaces a reserve (MAP_FIXED) are none.
"""

from __future__ import annotations

import numpy as np

from replay.allocator import identify
from replay.allocator.arenas import ArenaHeaps, find_arena_heaps
from replay.allocator.asked_mmaps import AskedMmaps, SomeMmaps, program_starts
from replay.allocator.brk_refusals import Refusals
from replay.allocator.evidence import evidence_of
from replay.allocator.fallbacks import mark_fallbacks, mark_last_resorts
from replay.allocator.identify import Allocators
from replay.allocator.kinds import ARENA_HEAP, KINDS, NONE, Candidates
from replay.allocator.large_blocks import LEAST_THRESHOLD, below_default_threshold, mark_direct
from replay.allocator.pools import mark_pools, spaces_with_pools
from replay.allocator.program_mappings import ProgramMappings
from replay.allocator.replayed import Replayed
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Mask
from replay.engine.sorting import distinct, is_among
from replay.linux.constants import ERRNO_NAME
from replay.linux.glibc import HEAP_MAX_SIZE, HEAP_MAX_SIZE_NARROW


def allocator_mmaps(record: Replayed, refusals: Refusals, allocators: Allocators) -> Columns:
    """Return the table `allocator_mmaps`, one row each mapping, sorted by `step`; texts are ids."""
    asked = AskedMmaps(record, program_starts(record), ProgramMappings(record))
    small = below_default_threshold(asked, allocators)
    behind = np.concatenate([refusals.after, small])
    candidates = _candidates(asked, behind, allocators)
    heaps = _find_heaps(record, candidates, allocators)
    behind_heaps = distinct(record.neighbours.after(np.array(heaps.refused_ends, dtype=np.int64)))
    if len(behind_heaps):
        candidates = _candidates(asked, np.concatenate([behind, behind_heaps]), allocators)
    _mark_heaps(candidates, heaps)
    mark_fallbacks(record, refusals, candidates, allocators)
    mark_last_resorts(record, refusals, candidates, behind_heaps)
    mark_pools(record, candidates, allocators)
    thresholds = mark_direct(asked, candidates, allocators, small)
    rows = np.flatnonzero(candidates.kind != NONE)
    evidence = evidence_of(record, candidates, rows, thresholds, allocators.mallocng)
    return _table(record, candidates, rows, evidence)


def _table(record: Replayed, candidates: Candidates, rows: Int64Array, evidence: Int64Array) -> Columns:
    step = candidates.step[rows]
    errno = candidates.errno[rows].astype(np.int64)
    numbers = distinct(errno)
    names = record.intern(ERRNO_NAME.get(number, str(number)) for number in numbers.tolist())
    refused, around = candidates.failed[rows], record.around(step)
    observed = around != NULL
    request = np.full(len(rows), NULL, dtype=np.int64)
    request[observed] = record.at("length", around[observed])
    return {
        "step": step,
        "line": record.at("line", step),
        "pid": record.at("pid", step),
        "space": candidates.space[rows],
        "time_ns": record.at("time_ns", step),
        "kind": record.intern(KINDS)[candidates.kind[rows]],
        "addr": np.where(refused, NULL, record.at("result", step)),
        "bytes": record.at("length", step),
        "errno": np.where(errno == 0, NO_TEXT, names[np.searchsorted(numbers, errno)]),
        "brk_failure_step": candidates.refusal_step[rows],
        "request_bytes": request,
        "allocator": record.intern(identify.ALLOCATORS)[candidates.allocator[rows]],
        "certainty": record.intern(["inferred", "observed"])[observed.astype(np.int64)],
        "evidence": evidence,
    }


def _candidates(asked: AskedMmaps, behind: Int64Array, allocators: Allocators) -> Candidates:
    """Return the mmaps on which some rule may bear: what is small and stands alone is a block of no allocator.

    `behind` are the steps right behind what was refused: there, small mappings count as well.
    """
    record, pooled, behind = asked.record, spaces_with_pools(allocators), distinct(behind)

    def choose(part: SomeMmaps) -> Mask:
        chosen: Mask = ~part.writable | (part.length > LEAST_THRESHOLD) | pooled[part.space]
        chosen |= record.around(part.step) != NULL
        return chosen | is_among(part.step, behind)

    found = asked.chosen(choose)
    errno = np.zeros(len(found.step), dtype=np.int16)
    errno[found.failed] = record.at("errno", found.step[found.failed])
    return Candidates(
        **found._asdict(),
        inside=record.around(found.step) != NULL,
        kind=np.full(len(found.step), NONE, dtype=np.int8),
        allocator=allocators.malloc.astype(np.int8)[found.space],
        errno=errno,
        refusal_step=np.full(len(found.step), NULL, dtype=np.int64),
        growth={},
        heap_evidence={},
    )


def _find_heaps(record: Replayed, candidates: Candidates, allocators: Allocators) -> ArenaHeaps:
    """Return the heaps of arenas among the unreadable mappings of a heap's or a reserve's size."""
    rows = np.flatnonzero(~candidates.writable)
    length, allocator = candidates.length[rows], candidates.allocator[rows]
    size = np.where(allocators.narrow[candidates.space[rows]], HEAP_MAX_SIZE_NARROW, HEAP_MAX_SIZE)
    fits = (length == 2 * size) | (length == size)
    fits &= (allocator == identify.GLIBC) | (allocator == identify.UNKNOWN)
    # A reserve that is refused shows no alignment; elsewhere than at NULL only glibc's second try is known to be one.
    fits &= candidates.anywhere[rows] | ~candidates.failed[rows]
    return find_arena_heaps(record, candidates.step[rows[fits]].tolist(), size[fits].tolist())


def _mark_heaps(candidates: Candidates, heaps: ArenaHeaps) -> None:
    """Mark the candidates that are heaps of arenas."""
    rows = np.searchsorted(candidates.step, np.array([heap.step for heap in heaps.found], dtype=np.int64))
    for row, heap in zip(rows.tolist(), heaps.found, strict=True):
        candidates.kind[row] = ARENA_HEAP
        candidates.allocator[row] = identify.GLIBC
        candidates.errno[row] = heap.errno
        candidates.heap_evidence[row] = heap.evidence
