"""The sentence of evidence for each mapping of an allocator.

In go the mappings with their kinds, out come ids of texts; equal cases share one. What is true of a mapping was decided
in `mmaps`: here it is only put into words.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.allocator import identify
from replay.allocator.kinds import ARENA_HEAP, DIRECT, FALLBACK, LAST_RESORT, POOL, Candidates
from replay.allocator.mmap_threshold import Thresholds
from replay.allocator.replayed import Replayed
from replay.engine.columns import NULL, Int64Array, Mask
from replay.engine.sorting import distinct, take_groups
from replay.linux.constants import CALLS
from replay.linux.glibc import MMAP_THRESHOLD

_POOLS: Final = {
    identify.MUSL: "musl's mallocng keeps small blocks in mapped groups and only metadata in the brk area",
    identify.JEMALLOC: "jemalloc takes its extents by mmap and does not use brk",
    identify.TCMALLOC: "tcmalloc takes its spans by mmap once brk has failed",
    identify.MIMALLOC: "mimalloc takes its segments by mmap and does not use brk",
    identify.CPYTHON: "the size of an arena or stack chunk of CPython's own allocator, and no failed brk before it",
    identify.GO: "Go's runtime takes its memory by mmap and does not use brk",
    identify.HOTSPOT: "HotSpot reserves its heap and code by mmap and commits parts of them later",
    identify.V8: "V8 takes its pages by mmap at places of its own choice",
}
"""What speaks for a pool, by allocator."""


def evidence_of(
    record: Replayed, candidates: Candidates, rows: Int64Array, thresholds: Thresholds, mallocng: Mask
) -> Int64Array:
    """Return the ids of the sentences for the candidates `rows`."""
    evidence = np.full(len(rows), NULL, dtype=np.int64)
    kind = candidates.kind[rows]
    for code, sentences in (
        (FALLBACK, _fallback_sentences),
        (LAST_RESORT, _last_resort_sentences),
        (ARENA_HEAP, _heap_sentences),
    ):
        chosen = np.flatnonzero(kind == code)
        if len(chosen):
            evidence[chosen] = record.intern(sentences(record, candidates, rows[chosen]))
    chosen = np.flatnonzero(kind == POOL)
    if len(chosen):
        evidence[chosen] = _pool_ids(record, candidates, rows[chosen])
    chosen = np.flatnonzero(kind == DIRECT)
    if len(chosen):
        evidence[chosen] = _direct_ids(record, candidates, rows[chosen], thresholds, mallocng)
    return evidence


def _fallback_sentences(record: Replayed, candidates: Candidates, rows: Int64Array) -> list[str]:
    step = candidates.refusal_step[rows]
    lines = record.at("line", step).tolist()
    inside = _inside(record, record.around(candidates.step[rows]))
    outcome = _outcome(candidates, rows)
    growth = [candidates.growth.get(row) for row in rows.tolist()]
    return [
        f"tcmalloc never asks the break again after the refusal in line {line}{where}{end}"
        if more is None
        else f"follows at once the brk that was refused in line {line} and had asked for {more} bytes more{where}{end}"
        for line, more, where, end in zip(lines, growth, inside, outcome, strict=True)
    ]


def _last_resort_sentences(record: Replayed, candidates: Candidates, rows: Int64Array) -> list[str]:
    inside = _inside(record, record.around(candidates.step[rows]))
    steps = candidates.refusal_step[rows]
    lines = np.zeros(len(rows), dtype=np.int64)
    lines[steps != NULL] = record.at("line", steps[steps != NULL])
    return [
        f"brk was refused in line {line} and a heap of an arena right before: one block is mapped alone{where}{end}"
        if line
        else f"a heap of an arena was refused right before: one block is mapped alone{where}{end}"
        for line, where, end in zip(lines.tolist(), inside, _outcome(candidates, rows), strict=True)
    ]


def _heap_sentences(record: Replayed, candidates: Candidates, rows: Int64Array) -> list[str]:
    inside = _inside(record, record.around(candidates.step[rows]))
    return [candidates.heap_evidence[row] + where for row, where in zip(rows.tolist(), inside, strict=True)]


def _outcome(candidates: Candidates, rows: Int64Array) -> list[str]:
    return ["; refused as well" if failed else "" for failed in candidates.failed[rows].tolist()]


def _inside(record: Replayed, around: Int64Array) -> list[str]:
    """Return for each row the words that name the libc call around it, empty where the log has none."""
    words, there = [""] * len(around), np.flatnonzero(around != NULL)
    columns = (record.at(name, around[there]).tolist() for name in ("call", "length", "entry_line"))
    for row, call, length, line in zip(there.tolist(), *columns, strict=True):
        words[row] = f", inside {CALLS[call]}({length if length != NULL else '…'}) of line {line}"
    return words


def _pool_ids(record: Replayed, candidates: Candidates, rows: Int64Array) -> Int64Array:
    ids = np.zeros(len(identify.ALLOCATORS), dtype=np.int64)
    for code in distinct(candidates.allocator[rows]).tolist():
        ids[code] = record.strings.intern(_POOLS[code])
    return ids[candidates.allocator[rows]]


def _direct_ids(
    record: Replayed, candidates: Candidates, rows: Int64Array, thresholds: Thresholds, mallocng: Mask
) -> Int64Array:
    """Return the sentences about large requests; those of one threshold and fate share theirs."""
    seen = candidates.inside[rows]
    threshold = np.where(seen, 0, thresholds.bytes)
    below = (candidates.length[rows] <= thresholds.bytes) + (candidates.length[rows] <= MMAP_THRESHOLD).astype(int)
    freed, failed = thresholds.freed_whole, candidates.failed[rows]
    ng = mallocng[candidates.space[rows]]
    keys = [candidates.allocator[rows], threshold]
    keys += [mask.astype(np.int64) for mask in (seen, below, freed, failed, ng)]
    firsts, group = take_groups(keys)
    sentences = [
        _direct_sentence(
            int(candidates.allocator[rows[first]]), int(threshold[first]), bool(seen[first]), int(below[first])
        )
        + ("; a later munmap frees it whole" if freed[first] else "")
        + ("; refused" if failed[first] else "")
        for first in firsts.tolist()
    ]
    return record.intern(sentences)[group]


def _direct_sentence(allocator: int, threshold: int, seen: bool, below: int) -> str:
    """Return why a mapping is one request of its own; `below`: 1 glibc's threshold then, 2 its default one."""
    if seen:
        return "the log shows malloc around it, and no failed brk before it"
    if allocator == identify.MUSL:
        return "private memory larger than musl's mmap threshold, and no failed brk before it"
    if below > 1:
        return (
            f"one of several mappings of many lengths below glibc's default threshold of {MMAP_THRESHOLD} bytes, most "
            "of them freed whole: malloc with a smaller M_MMAP_THRESHOLD"
        )
    if below:
        return (
            f"private memory larger than {MMAP_THRESHOLD} bytes, and no failed brk before it; malloc by the program's "
            f"own threshold, for glibc's would have risen to {threshold} bytes"
        )
    return f"private memory larger than glibc's mmap threshold of {threshold} bytes then, and no failed brk before it"
