"""The mappings that allocators made, or tried to make, for themselves, and what each is.

In go the calls, the refused brk calls and who serves malloc where; out comes one row for each mapping with its kind
and a sentence of evidence. File maps, stacks, what ld.so maps and what replaces a reserve (MAP_FIXED) are none.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.allocator import libc
from replay.allocator.arenas import HEAP_BYTES, HEAP_BYTES_NARROW, Heaps, find_heaps
from replay.allocator.brk_failures import Refusals
from replay.allocator.evidence import evidence_of
from replay.allocator.kinds import ARENA_HEAP, DIRECT, FALLBACK, KINDS, LAST_RESORT, NONE, POOL, Candidates
from replay.allocator.libc import Allocators
from replay.allocator.record import FAILED, OK, Mask, Record, first_of_each
from replay.allocator.threshold import MMAP_THRESHOLD, Thresholds, follow_threshold, treated_as_own
from replay.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.constants import CALL_CODE, ERRNO_NAME, MAP_FLAGS, MAP_TYPE_MASK, MAP_TYPES
from replay.ordering import ascending_by, distinct

_READ_WRITE: Final = 3
_MIB: Final = 1 << 20

_NOT_MALLOC: Final = (
    MAP_FLAGS["MAP_STACK"] | MAP_FLAGS["MAP_FIXED"] | MAP_FLAGS["MAP_FIXED_NOREPLACE"] | MAP_FLAGS["MAP_GROWSDOWN"]
)
"""Flags that no allocator sets on memory that it takes anew."""

_PLAIN: Final = MAP_FLAGS["MAP_ANONYMOUS"] | MAP_TYPES["MAP_PRIVATE"]
"""The flags with which glibc and musl ask for memory that they use at once."""

_TOP_PAD: Final = 128 << 10
"""Bytes that glibc adds to what it asks of brk. Source: DEFAULT_TOP_PAD in sysdeps/generic/malloc-machine.h."""

_OLDMALLOC_THRESHOLD: Final = 0x38000
_OLDMALLOC_THRESHOLD_NARROW: Final = 0x1C000
"""Bytes from which older musl maps a block by itself. Source: MMAP_THRESHOLD in src/malloc/oldmalloc/malloc_impl.h."""

_MALLOCNG_THRESHOLD: Final = 131052
_MALLOCNG_OVERHEAD: Final = 20
"""Bytes from which mallocng maps a block by itself, and what it adds. Source: MMAP_THRESHOLD, IB and UNIT in meta.h."""

_CPYTHON_ARENAS: Final = (1 << 20, 256 << 10)
"""Bytes of CPython's arenas: since 3.10, and before. Source: ARENA_BITS in Include/internal/pycore_obmalloc.h."""

_CPYTHON_STACK_CHUNK: Final = 16 << 10
"""Bytes of a chunk of CPython's data stack. Source: DATA_STACK_CHUNK_SIZE in Python/pystate.c, 3.11."""

_LAST_RESORT_CALLS: Final = 24
"""Calls between the refused brk and the last resort at most: the fallback and two heaps of five calls each."""


def allocator_mmaps(record: Record, refusals: Refusals, allocators: Allocators) -> Columns:
    """Return the table `allocator_mmaps`, one row each mapping, sorted by `step`; texts are ids."""
    candidates = _candidates(record, refusals, allocators)
    heaps = _find_heaps(record, candidates, allocators)
    _mark_heaps(candidates, heaps)
    _mark_fallbacks(record, candidates, allocators)
    _mark_last_resorts(record, refusals, candidates, heaps)
    if len(candidates.step):
        _mark_pools(record, candidates, allocators)
    thresholds = _mark_direct(record, candidates, allocators)
    rows = np.flatnonzero(candidates.kind != NONE)
    evidence = evidence_of(record, candidates, rows, thresholds, allocators.mallocng)
    return _table(record, candidates, rows, evidence)


def _table(record: Record, candidates: Candidates, rows: Int64Array, evidence: Int64Array) -> Columns:
    events, step = record.events, candidates.step[rows]
    errno = candidates.errno[rows]
    names = record.intern(ERRNO_NAME.get(number, str(number)) for number in distinct(errno).tolist())
    observed = candidates.around[rows] != NULL
    refused = candidates.failed[rows]
    around = candidates.around[rows]
    request = np.where(around == NULL, NULL, events["length"][np.where(around == NULL, 0, around)])
    return {
        "step": step,
        "line": record.at("line", step),
        "pid": record.at("pid", step),
        "space": candidates.space[rows],
        "time_ns": record.at("time_ns", step),
        "kind": record.intern(KINDS)[candidates.kind[rows]],
        "addr": np.where(refused, NULL, record.at("result", step)),
        "bytes": record.at("length", step),
        "errno": np.where(errno == 0, NO_TEXT, names[np.searchsorted(distinct(errno), errno)]),
        "brk_failure_step": candidates.refusal_step[rows],
        "request_bytes": request,
        "allocator": record.intern(libc.ALLOCATORS)[candidates.allocator[rows]],
        "certainty": record.intern(["inferred", "observed"])[observed.astype(np.int64)],
        "evidence": evidence,
    }


def _candidates(record: Record, refusals: Refusals, allocators: Allocators) -> Candidates:
    """Return the mmaps that may be an allocator's: private, anonymous, anywhere, data or reserve, of the program."""
    events = record.events
    steps = np.flatnonzero(events["call"] == CALL_CODE["mmap"])
    flags, prot, status = record.at("flags", steps), record.at("prot", steps), record.at("status", steps)
    anonymous = (flags & MAP_FLAGS["MAP_ANONYMOUS"] != 0) & (flags & MAP_TYPE_MASK == MAP_TYPES["MAP_PRIVATE"])
    kept = (flags != NULL) & anonymous & (flags & _NOT_MALLOC == 0) & ((prot == _READ_WRITE) | (prot == 0))
    kept &= (status == FAILED) | ((status == OK) & (record.at("injected", steps) != 1))
    steps = steps[kept]
    steps = steps[steps >= _program_starts(record)[record.at("space", steps)]]
    before = record.thread_order.before(steps)
    space, length = record.at("space", steps), record.at("length", steps)
    count = len(steps)
    failed = record.at("status", steps) == FAILED
    return Candidates(
        step=steps,
        space=space,
        length=record.page_up(length),
        anywhere=record.at("addr", steps) == 0,
        plain=(record.at("flags", steps) == _PLAIN) & (length & (record.page_size - 1) == 0),
        writable=record.at("prot", steps) == _READ_WRITE,
        failed=failed,
        errno=np.where(failed, record.at("errno", steps), 0),
        before=before,
        refusal=_refusal_rows(refusals, before),
        growth=_refusal_growth(refusals, before),
        around=record.parent_step[steps],
        kind=np.full(count, NONE, dtype=np.int64),
        allocator=allocators.malloc[space],
        refusal_step=np.full(count, NULL, dtype=np.int64),
        heap_evidence={},
    )


def _refusal_rows(refusals: Refusals, steps: Int64Array) -> Mask:
    """Return for each step whether it is one of the refused brk calls."""
    place = np.searchsorted(refusals.step, steps)
    found = place < len(refusals.step)
    found[found] = refusals.step[place[found]] == steps[found]
    return found


def _refusal_growth(refusals: Refusals, steps: Int64Array) -> Int64Array:
    """Return the bytes that the refused brk call at each step asked for, 0 where it is none."""
    growth = np.zeros(len(steps), dtype=np.int64)
    found = _refusal_rows(refusals, steps)
    growth[found] = refusals.growth[np.searchsorted(refusals.step, steps[found])]
    return growth


def _program_starts(record: Record) -> Int64Array:
    """Return for each space the step from which its program runs; before it, ld.so maps for itself.

    The program runs once the break is asked for a second time (malloc's own brk(NULL)), is to grow, or ld.so.cache is
    unmapped. A space whose first call is no brk(NULL) was not seen from its execve on: 0.
    """
    brks, regions = record.brks, record.regions
    count, never = record.space_count, np.iinfo(np.int64).max
    start = np.full(count, never, dtype=np.int64)
    by_step = ascending_by(brks["space"], brks["step"])
    space, step, asks = brks["space"][by_step], brks["step"][by_step], brks["requested"][by_step] == 0
    grows = ~asks
    np.minimum.at(start, space[grows], step[grows])
    again = np.flatnonzero(asks[1:] & asks[:-1] & (space[1:] == space[:-1])) + 1
    np.minimum.at(start, space[again], step[again])
    cache = np.flatnonzero((regions["died_step"] != NULL) & _is_loader_cache(record))
    np.minimum.at(start, regions["space"][cache], regions["died_step"][cache])
    start[start == never] = 0
    return np.where(_begins_with_query(record, count), start, 0)


def _is_loader_cache(record: Record) -> Mask:
    """Return which regions are ld.so's list of libraries, which it unmaps last."""
    paths = record.regions["path"]
    caches = [text for text in distinct(paths).tolist() if record.text(text).endswith("/ld.so.cache")]
    return np.isin(paths, np.array(caches, np.int64))


def _begins_with_query(record: Record, count: int) -> Mask:
    """Return for each space whether its first memory call is brk(NULL), as after an execve."""
    rows = np.flatnonzero(record.is_call(["brk", "mmap", "munmap", "mprotect"]))
    spaces, first = first_of_each(record.at("space", rows), rows, count)
    begins = np.zeros(count, dtype=np.bool_)
    begins[spaces] = (record.at("call", first) == CALL_CODE["brk"]) & (record.at("addr", first) == 0)
    return begins


def _find_heaps(record: Record, candidates: Candidates, allocators: Allocators) -> Heaps:
    """Return the heaps of arenas among the unreadable mappings of a heap's or a reserve's size."""
    size = np.where(allocators.narrow[candidates.space], HEAP_BYTES_NARROW, HEAP_BYTES)
    fits = ~candidates.writable & ((candidates.length == 2 * size) | (candidates.length == size))
    fits &= (candidates.allocator == libc.GLIBC) | (candidates.allocator == libc.UNKNOWN)
    # A reserve that is refused shows no alignment; elsewhere than at NULL only glibc's second try is known to be one.
    fits &= candidates.anywhere | ~candidates.failed
    rows = np.flatnonzero(fits)
    return find_heaps(record, candidates.step[rows].tolist(), size[rows].tolist())


def _mark_heaps(candidates: Candidates, heaps: Heaps) -> None:
    """Mark the candidates that are heaps of arenas."""
    rows = np.searchsorted(candidates.step, np.array([heap.step for heap in heaps.found], dtype=np.int64))
    for row, heap in zip(rows.tolist(), heaps.found, strict=True):
        candidates.kind[row] = ARENA_HEAP
        candidates.allocator[row] = libc.GLIBC
        candidates.errno[row] = heap.errno
        candidates.heap_evidence[row] = heap.evidence


def _mark_fallbacks(record: Record, candidates: Candidates, allocators: Allocators) -> None:
    """Mark what stands in for a brk that was refused: the very next call of the same thread, and no smaller.

    Source: sysmalloc_mmap_fallback in malloc/malloc.c (glibc); expand_heap in src/malloc/oldmalloc/malloc.c and
    alloc_meta in src/malloc/mallocng/malloc.c (musl); MmapSysAllocator in src/system-alloc.cc (gperftools).
    """
    malloc = candidates.allocator
    may = (
        candidates.refusal
        & candidates.anywhere
        & candidates.plain
        & (candidates.kind == NONE)
        & _stands_in(record, candidates)
    )
    uses_brk = np.isin(malloc, [libc.GLIBC, libc.MUSL, libc.TCMALLOC, libc.UNKNOWN])
    metadata = allocators.mallocng[candidates.space]
    chosen = may & uses_brk & (candidates.writable != metadata)
    candidates.kind[chosen] = FALLBACK
    candidates.refusal_step[chosen] = candidates.before[chosen]


def _stands_in(record: Record, candidates: Candidates) -> Mask:
    """Return whether the length is one that some allocator asks for in place of the refused growth.

    glibc: the same growth, 1 MiB and multiples of it, or more where the growth has its usual 128 KiB of padding.
    musl: the same growth, or a power of two pages. tcmalloc: one page more. Larger than that is a request of its own:
    malloc of musl before 1.1.0 has no fallback, yet still maps large blocks.
    """
    length, growth, malloc = candidates.length, candidates.growth, candidates.allocator
    same = (length == growth) | (length == growth + record.page_size)
    whole_mib = length % _MIB == 0
    padded = (growth >= _TOP_PAD) & (length >= _MIB)
    power = length & (length - 1) == 0
    for_glibc = (malloc != libc.MUSL) & (whole_mib | padded)
    for_musl = ((malloc == libc.MUSL) | (malloc == libc.UNKNOWN)) & power
    fits: Mask = (length >= growth) & (same | for_glibc | for_musl)
    return fits


def _mark_last_resorts(record: Record, refusals: Refusals, candidates: Candidates, heaps: Heaps) -> None:
    """Mark the blocks mapped alone right after a heap of an arena was refused.

    Source: sysmalloc in malloc/malloc.c: without a usable arena, or with one that cannot grow, `sysmalloc_mmap`.
    """
    ends = np.array(heaps.refused_ends, dtype=np.int64)
    chosen = np.isin(candidates.before, ends) & candidates.writable & candidates.anywhere & candidates.plain
    chosen &= candidates.kind == NONE
    refused = set(refusals.step.tolist()) if chosen.any() else set()
    for row in np.flatnonzero(chosen).tolist():
        candidates.kind[row] = LAST_RESORT
        candidates.refusal_step[row] = _refusal_behind(record, int(candidates.step[row]), refused)


def _refusal_behind(record: Record, step: int, refused: set[int]) -> int:
    """Return the refused brk from which the allocator came to its last resort, `NULL` where it began with an arena."""
    events = record.events
    for row in record.thread_order.preceding(step, _LAST_RESORT_CALLS):
        if row in refused:
            return row
        is_data = events["call"][row] == CALL_CODE["mmap"] and events["prot"][row] == _READ_WRITE
        if events["call"][row] == CALL_CODE["brk"] or (is_data and events["status"][row] == OK):
            break
    return NULL


def _mark_pools(record: Record, candidates: Candidates, allocators: Allocators) -> None:
    """Mark the memory of allocators that do not live on brk, by runtime first, then by who serves malloc."""
    space, length, malloc = candidates.space, candidates.length, candidates.allocator
    writable, reserve = candidates.writable, ~candidates.writable
    unnested = candidates.around == NULL
    python = writable & candidates.anywhere & (np.isin(length, _CPYTHON_ARENAS) | (length == _CPYTHON_STACK_CHUNK))
    go_alone = writable & ((malloc == libc.UNKNOWN) | (length == 256 << 10))
    rules = (
        (libc.CPYTHON, allocators.has(libc.CPYTHON, space) & python & unnested),
        (libc.GO, allocators.has(libc.GO, space) & (reserve | ~candidates.anywhere | go_alone) & unnested),
        (libc.HOTSPOT, allocators.has(libc.HOTSPOT, space) & reserve),
        (libc.V8, allocators.has(libc.V8, space) & (reserve | ~candidates.anywhere)),
        (libc.JEMALLOC, (malloc == libc.JEMALLOC) & (length > record.page_size)),
        (libc.MIMALLOC, (malloc == libc.MIMALLOC) & (length >= 64 << 10)),
        (libc.TCMALLOC, (malloc == libc.TCMALLOC) & (length >= 64 << 10)),
        (libc.MUSL, allocators.mallocng[space] & (malloc == libc.MUSL) & _is_group(record, candidates)),
    )
    for code, chosen in rules:
        chosen = chosen & (candidates.kind == NONE)  # noqa: PLW2901  (the first rule that fits decides)
        candidates.kind[chosen] = POOL
        candidates.allocator[chosen] = code


def _is_group(record: Record, candidates: Candidates) -> Mask:
    """Return which mappings are mallocng's groups of small blocks or pages of metadata.

    Source: alloc_group and malloc in src/malloc/mallocng/malloc.c (musl 1.2.1): groups are whole pages, a large block
    is asked for by its exact length.
    """
    asked = record.events["length"][candidates.step]
    whole = (asked & (record.page_size - 1)) == 0
    small = candidates.length < _MALLOCNG_THRESHOLD + _MALLOCNG_OVERHEAD + record.page_size
    group: Mask = candidates.anywhere & (~candidates.writable | (whole & small))
    return group


def _mark_direct(record: Record, candidates: Candidates, allocators: Allocators) -> Thresholds:
    """Mark the requests that were mapped by themselves: what is larger than the threshold, or inside a malloc call."""
    open_kinds = (candidates.kind == NONE) & candidates.writable & candidates.anywhere
    thresholds = follow_threshold(record, candidates.step, allocators.narrow)
    own = open_kinds & treated_as_own(record, candidates.step)
    large = _large_for_glibc(record, candidates, thresholds, own) | _large_for_musl(candidates, allocators)
    candidates.kind[open_kinds & ((candidates.around != NULL) | (large & ~own))] = DIRECT
    return thresholds


def _large_for_glibc(record: Record, candidates: Candidates, thresholds: Thresholds, own: Mask) -> Mask:
    """Return which mappings glibc's malloc would make, by their size.

    Below the threshold that its rule gives, a mapping counts only where nothing speaks against a threshold that the
    program fixed: neither a break that grew for such a request, nor mappings that the program treats as its own.
    """
    malloc, length = candidates.allocator, candidates.length
    maps_itself = np.zeros(record.space_count, dtype=np.bool_)
    maps_itself[candidates.space[own]] = True
    fixed = ~thresholds.went_to_brk & ~maps_itself[candidates.space]
    fits = (length > thresholds.bytes) | ((length > MMAP_THRESHOLD) & fixed)
    large: Mask = np.isin(malloc, [libc.GLIBC, libc.UNKNOWN]) & candidates.plain & fits
    return large


def _large_for_musl(candidates: Candidates, allocators: Allocators) -> Mask:
    """Return which mappings musl's malloc would make, by their size."""
    narrow, metadata = allocators.narrow[candidates.space], allocators.mallocng[candidates.space]
    oldmalloc = np.where(narrow, _OLDMALLOC_THRESHOLD_NARROW, _OLDMALLOC_THRESHOLD)
    least = np.where(metadata, _MALLOCNG_THRESHOLD, oldmalloc)
    large: Mask = (candidates.allocator == libc.MUSL) & (candidates.length > least)
    return large
