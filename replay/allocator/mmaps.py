"""The mappings that allocators made, or tried to make, for themselves, and what each is.

In go the calls, the refused brk calls and who serves malloc where; out comes one row for each mapping with its kind
and a sentence of evidence. File maps, stacks, what ld.so maps and what replaces a reserve (MAP_FIXED) are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.allocator import identify
from replay.allocator.arenas import HEAP_BYTES, HEAP_BYTES_NARROW, Heaps, find_heaps
from replay.allocator.brk_failures import Refusals
from replay.allocator.evidence import evidence_of
from replay.allocator.identify import Allocators
from replay.allocator.kinds import ARENA_HEAP, DIRECT, FALLBACK, KINDS, LAST_RESORT, NONE, POOL, Candidates
from replay.allocator.mmap_threshold import MMAP_THRESHOLD, LargeMappings, Thresholds, largest_growth
from replay.allocator.program_mappings import READ_WRITE, OwnUse
from replay.allocator.replayed import FAILED, OK, Mask, Record, first_of_each
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.sorting import ascending, ascending_by, distinct, is_among
from replay.linux.constants import CALL_CODE, ERRNO_NAME, MAP_FLAGS, MAP_TYPE_MASK, MAP_TYPES

_MIB: Final = 1 << 20

_NOT_MALLOC: Final = (
    MAP_FLAGS["MAP_STACK"] | MAP_FLAGS["MAP_FIXED"] | MAP_FLAGS["MAP_FIXED_NOREPLACE"] | MAP_FLAGS["MAP_GROWSDOWN"]
)
"""Flags that no allocator sets on memory that it takes anew."""

_PLAIN: Final = MAP_FLAGS["MAP_ANONYMOUS"] | MAP_TYPES["MAP_PRIVATE"]
"""The flags with which glibc and musl ask for memory that they use at once."""

_TOP_PAD: Final = 128 << 10
"""Bytes that glibc adds to what it asks of brk. Source: DEFAULT_TOP_PAD in sysdeps/generic/malloc-machine.h."""

_GROWTH_PAD: Final = 0x22000
"""Bytes that a growth of the break may have besides the request: top_pad of 128 KiB, the rest rounded up to pages."""

_OLDMALLOC_THRESHOLD: Final = 0x38000
_OLDMALLOC_THRESHOLD_NARROW: Final = 0x1C000
"""Bytes from which older musl maps a block by itself. Source: MMAP_THRESHOLD in src/malloc/oldmalloc/malloc_impl.h."""

_MALLOCNG_THRESHOLD: Final = 131052
_MALLOCNG_OVERHEAD: Final = 20
"""Bytes from which mallocng maps a block by itself, and what it adds. Source: MMAP_THRESHOLD, IB and UNIT in meta.h."""

_LEAST_THRESHOLD: Final = _OLDMALLOC_THRESHOLD_NARROW
"""Bytes up to which no malloc maps a block by itself."""

_CPYTHON_ARENAS: Final = (1 << 20, 256 << 10)
"""Bytes of CPython's arenas: since 3.10, and before. Source: ARENA_BITS in Include/internal/pycore_obmalloc.h."""

_CPYTHON_STACK_CHUNK: Final = 16 << 10
"""Bytes of a chunk of CPython's data stack. Source: DATA_STACK_CHUNK_SIZE in Python/pystate.c, 3.11."""

_ROUND: Final = 256 << 10
"""A length that is a multiple of this is no block of a libc, whose header makes of a round request a page more.

Source: sysmalloc_mmap in malloc/malloc.c: the request and its header, rounded up to pages. Heuristic: a request that
ends less than a page below such a length looks the same.
"""

_SPAN: Final = 64 << 10
"""Bytes from which a mapping is a span of tcmalloc or mimalloc. Heuristic."""

_OWN_THRESHOLD_MAPPINGS: Final = 4
_OWN_THRESHOLD_LENGTHS: Final = 3
"""Mappings, and different lengths of them, that tell a threshold below the default one. Heuristic."""

_LAST_RESORT_CALLS: Final = 24
"""Calls between the refused brk and the last resort at most: the fallback and two heaps of five calls each."""


def allocator_mmaps(record: Record, refusals: Refusals, allocators: Allocators) -> Columns:
    """Return the table `allocator_mmaps`, one row each mapping, sorted by `step`; texts are ids."""
    asked = _Asked(record, _program_starts(record))
    small = _below_threshold(asked, allocators)
    behind = np.concatenate([refusals.after, small])
    candidates = _candidates(asked, behind, allocators)
    heaps = _find_heaps(record, candidates, allocators)
    behind_heaps = distinct(record.neighbours.after(np.array(heaps.refused_ends, dtype=np.int64)))
    if len(behind_heaps):
        candidates = _candidates(asked, np.concatenate([behind, behind_heaps]), allocators)
    _mark_heaps(candidates, heaps)
    _mark_fallbacks(record, refusals, candidates, allocators)
    _mark_last_resorts(record, refusals, candidates, behind_heaps)
    _mark_pools(record, candidates, allocators)
    thresholds = _mark_direct(asked, candidates, allocators, small)
    rows = np.flatnonzero(candidates.kind != NONE)
    evidence = evidence_of(record, candidates, rows, thresholds, allocators.mallocng)
    return _table(record, candidates, rows, evidence)


def _table(record: Record, candidates: Candidates, rows: Int64Array, evidence: Int64Array) -> Columns:
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


_TOLD: Final = ("flags", "prot", "status", "injected", "space", "length", "addr")
"""What tells the mmaps that may be an allocator's from others."""


class _Mmaps(NamedTuple):
    """Some mmaps that may be an allocator's; the columns are those of `Candidates`."""

    step: Int64Array
    space: Int64Array
    length: Int64Array
    anywhere: Mask
    plain: Mask
    large: Mask
    writable: Mask
    failed: Mask

    def take(self, rows: Mask) -> _Mmaps:
        """Return some of them."""
        return _Mmaps._make(column[rows] for column in self)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The mmaps that may be an allocator's: private, anonymous, anywhere, data or reserve, of the program.

    There may be many, and most of them small: they are looked at part by part, and told apart by what they are asked
    for. `starts` are the steps from which the program of each space runs.
    """

    record: Record
    starts: Int64Array

    def parts(self) -> Iterator[_Mmaps]:
        """Yield them part by part, in order."""
        for steps, told in self.record.parts_of("mmap", _TOLD):
            yield self._part(steps, told)

    def chosen(self, choose: Callable[[_Mmaps], Mask]) -> _Mmaps:
        """Return those that `choose` tells of each part."""
        nothing = np.zeros(0, dtype=np.int64)
        found = [self._part(nothing, dict.fromkeys(_TOLD, nothing))]
        found += [part.take(choose(part)) for part in self.parts()]
        return _Mmaps._make(np.concatenate(columns) for columns in zip(*found, strict=True))

    def _part(self, steps: Int64Array, told: Columns) -> _Mmaps:
        flags, prot, status, length = told["flags"], told["prot"], told["status"], told["length"]
        anonymous = (flags & MAP_FLAGS["MAP_ANONYMOUS"] != 0) & (flags & MAP_TYPE_MASK == MAP_TYPES["MAP_PRIVATE"])
        kept = (flags != NULL) & anonymous & (flags & _NOT_MALLOC == 0) & ((prot == READ_WRITE) | (prot == 0))
        kept &= (status == FAILED) | ((status == OK) & (told["injected"] != 1))
        # No malloc asks for nothing, or for more than PTRDIFF_MAX. Source: checked_request2size in malloc/malloc.c.
        kept &= (steps >= self.starts[told["space"]]) & (length > 0)
        record = self.record
        return _Mmaps(
            step=steps,
            space=told["space"],
            length=record.page_up(length),
            anywhere=told["addr"] == 0,
            plain=(flags == _PLAIN) & (length & (record.page_size - 1) == 0),
            large=(length > MMAP_THRESHOLD) & (status == OK),
            writable=prot == READ_WRITE,
            failed=status == FAILED,
        ).take(kept)


def _candidates(asked: _Asked, behind: Int64Array, allocators: Allocators) -> Candidates:
    """Return the mmaps on which some rule may bear: what is small and stands alone is a block of no allocator.

    `behind` are the steps right behind what was refused: there, small mappings count as well.
    """
    record, pooled, behind = asked.record, _pooled(allocators), distinct(behind)

    def choose(part: _Mmaps) -> Mask:
        chosen: Mask = ~part.writable | (part.length > _LEAST_THRESHOLD) | pooled[part.space]
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


def _places(steps: Int64Array, wanted: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return where in `steps`, which ascend, those of `wanted` stand that are there, and which these are; ascending."""
    place = np.searchsorted(steps, wanted)
    which = np.flatnonzero(place < len(steps))
    which = which[steps[place[which]] == wanted[which]]
    which = which[ascending(place[which])]
    return place[which], which


def _program_starts(record: Record) -> Int64Array:
    """Return for each space the step from which its program runs; before it, ld.so maps for itself.

    The program runs once the break is asked for a second time (malloc's own brk(NULL)), is to grow, or ld.so.cache is
    unmapped. A space whose first call is no brk(NULL) was not seen from its execve on: 0.
    """
    brks, files = record.brks, record.files
    count, never = record.space_count, np.iinfo(np.int64).max
    start = np.full(count, never, dtype=np.int64)
    space, step, requested = (brks[name] for name in ("space", "step", "requested"))
    by_step = ascending_by(space, step)
    space, step, asks = space[by_step], step[by_step], requested[by_step] == 0
    grows = ~asks
    np.minimum.at(start, space[grows], step[grows])
    again = np.flatnonzero(asks[1:] & asks[:-1] & (space[1:] == space[:-1])) + 1
    np.minimum.at(start, space[again], step[again])
    cache = np.flatnonzero((files["died_step"] != NULL) & _is_loader_cache(record, files["path"]))
    np.minimum.at(start, files["space"][cache], files["died_step"][cache])
    start[start == never] = 0
    return np.where(_begins_with_query(record, count), start, 0)


def _is_loader_cache(record: Record, paths: Int64Array) -> Mask:
    """Return which paths are that of ld.so's list of libraries, which it unmaps last."""
    is_cache = np.zeros(len(record.strings), dtype=np.bool_)
    for text_id in distinct(paths).tolist():
        is_cache[text_id] = record.strings[text_id].endswith("/ld.so.cache")
    return is_cache[paths]


def _begins_with_query(record: Record, count: int) -> Mask:
    """Return for each space whether its first memory call is brk(NULL), as after an execve."""
    steps = record.steps_of("brk")
    spaces, first = first_of_each(record.at("space", steps), steps, count)
    queries = np.full(count, NULL, dtype=np.int64)
    queries[spaces] = first
    begins = np.zeros(count, dtype=np.bool_)
    begins[spaces] = record.at("addr", first) == 0
    last = queries.max(initial=NULL)
    for name in ("mmap", "munmap", "mprotect"):
        for steps, told in record.parts_of(name, ("space",)):
            if steps[0] > last:
                break
            begins[told["space"][steps < queries[told["space"]]]] = False
    return begins


def _find_heaps(record: Record, candidates: Candidates, allocators: Allocators) -> Heaps:
    """Return the heaps of arenas among the unreadable mappings of a heap's or a reserve's size."""
    rows = np.flatnonzero(~candidates.writable)
    length, allocator = candidates.length[rows], candidates.allocator[rows]
    size = np.where(allocators.narrow[candidates.space[rows]], HEAP_BYTES_NARROW, HEAP_BYTES)
    fits = (length == 2 * size) | (length == size)
    fits &= (allocator == identify.GLIBC) | (allocator == identify.UNKNOWN)
    # A reserve that is refused shows no alignment; elsewhere than at NULL only glibc's second try is known to be one.
    fits &= candidates.anywhere[rows] | ~candidates.failed[rows]
    return find_heaps(record, candidates.step[rows[fits]].tolist(), size[fits].tolist())


def _mark_heaps(candidates: Candidates, heaps: Heaps) -> None:
    """Mark the candidates that are heaps of arenas."""
    rows = np.searchsorted(candidates.step, np.array([heap.step for heap in heaps.found], dtype=np.int64))
    for row, heap in zip(rows.tolist(), heaps.found, strict=True):
        candidates.kind[row] = ARENA_HEAP
        candidates.allocator[row] = identify.GLIBC
        candidates.errno[row] = heap.errno
        candidates.heap_evidence[row] = heap.evidence


def _mark_fallbacks(record: Record, refusals: Refusals, candidates: Candidates, allocators: Allocators) -> None:
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
    rows = rows[candidates.length[rows] >= _SPAN]
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
    padded = (growth >= _TOP_PAD) & (length >= _MIB)
    power = length & (length - 1) == 0
    for_glibc = (malloc != identify.MUSL) & (whole_mib | padded)
    for_musl = ((malloc == identify.MUSL) | (malloc == identify.UNKNOWN)) & power
    fits: Mask = (length >= growth) & (same | for_glibc | for_musl)
    return fits


def _mark_last_resorts(record: Record, refusals: Refusals, candidates: Candidates, behind_heaps: Int64Array) -> None:
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


def _refusal_behind(record: Record, before: list[int], refused: set[int]) -> int:
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


def _mark_pools(record: Record, candidates: Candidates, allocators: Allocators) -> None:
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


def _pooled(allocators: Allocators) -> Mask:
    """Return in which spaces any allocator with pools lives."""
    pooled: Mask = np.logical_or.reduce([_lives(allocators, code) for code in _POOLS])
    return pooled


def _for_python(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    length = candidates.length[rows]
    arena = np.isin(length, _CPYTHON_ARENAS) | (length == _CPYTHON_STACK_CHUNK)
    alone = ~candidates.inside[rows]
    pool: Mask = arena & alone & candidates.writable[rows] & candidates.anywhere[rows]
    return pool


def _for_go(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    own = (candidates.allocator[rows] == identify.UNKNOWN) | (candidates.length[rows] == 256 << 10)
    alone = ~candidates.inside[rows]
    pool: Mask = alone & (~candidates.writable[rows] | ~candidates.anywhere[rows] | own)
    return pool


def _reserved(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    return ~candidates.writable[rows]


def _reserved_or_placed(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    return ~candidates.writable[rows] | ~candidates.anywhere[rows]


def _more_than_a_page(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    larger: Mask = candidates.length[rows] > record.page_size
    return larger


def _whole_spans(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    large: Mask = candidates.length[rows] >= _SPAN
    return large


def _groups(record: Record, candidates: Candidates, rows: Int64Array) -> Mask:
    """Return which mappings are mallocng's groups of small blocks or pages of metadata.

    Source: alloc_group and malloc in src/malloc/mallocng/malloc.c (musl 1.2.1): groups are whole pages, a large block
    is asked for by its exact length.
    """
    asked = record.at("length", candidates.step[rows])
    whole = (asked & (record.page_size - 1)) == 0
    small = candidates.length[rows] < _MALLOCNG_THRESHOLD + _MALLOCNG_OVERHEAD + record.page_size
    group: Mask = candidates.anywhere[rows] & (~candidates.writable[rows] | (whole & small))
    return group


_POOLS: Final[dict[int, Callable[[Record, Candidates, Int64Array], Mask]]] = {
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


def _below_threshold(asked: _Asked, allocators: Allocators) -> Int64Array:
    """Return the mappings that tell of a threshold below glibc's default one: few pages, of many lengths, freed whole.

    Heuristic: M_MMAP_THRESHOLD is in no log, and what a program maps for itself is of one length, or cut up.
    """
    plain = (allocators.malloc == identify.GLIBC) & (allocators.runtimes == 0)
    if not plain.any():
        return np.zeros(0, dtype=np.int64)

    def may(part: _Mmaps) -> Mask:
        small = (part.length <= MMAP_THRESHOLD) & (part.length > asked.record.page_size) & ~part.failed
        small &= part.plain & part.writable & part.anywhere & plain[part.space]
        return small

    found = asked.chosen(may)
    kept = np.zeros(len(found.step), dtype=np.bool_)
    own = OwnUse(asked.record)
    for space in distinct(found.space).tolist():
        rows = np.flatnonzero(found.space == space)
        if len(rows) < _OWN_THRESHOLD_MAPPINGS or len(distinct(found.length[rows])) < _OWN_THRESHOLD_LENGTHS:
            continue
        kept[rows] = not own.of(found.step[rows]).any() and own.freed_whole(found.step[rows]).mean() > 0.5
    return found.step[kept]


def _mark_direct(asked: _Asked, candidates: Candidates, allocators: Allocators, small: Int64Array) -> Thresholds:
    """Mark the requests that were mapped by themselves: what is larger than the threshold, or inside a malloc call.

    The steps `small` are blocks, too. The thresholds at all are returned.
    """
    record, inside = asked.record, candidates.inside
    may = (candidates.kind == NONE) & candidates.writable & candidates.anywhere
    rows = np.flatnonzero(may & (inside | (candidates.length > _LEAST_THRESHOLD) | is_among(candidates.step, small)))
    if not len(rows):
        return Thresholds(candidates.length[rows], may[rows])
    mappings, own = LargeMappings(record, candidates, allocators.narrow), OwnUse(record)
    threshold = mappings.threshold(candidates.space[rows], candidates.step[rows])
    large = _large_for_musl(candidates, allocators, rows)
    large |= _large_for_glibc(asked, candidates, own, rows, threshold)
    alone = np.flatnonzero(large & ~inside[rows])
    large[alone] = ~own.of(candidates.step[rows[alone]])
    large |= is_among(candidates.step[rows], small)
    direct = np.flatnonzero(large | inside[rows])
    candidates.kind[rows[direct]] = DIRECT
    return Thresholds(threshold[direct], mappings.freed_whole(candidates.step[rows[direct]]))


def _large_for_glibc(
    asked: _Asked, candidates: Candidates, own: OwnUse, rows: Int64Array, threshold: Int64Array
) -> Mask:
    """Return which of `rows` glibc's malloc would map, by their size.

    Below the threshold that its rule gives, a mapping counts only where nothing speaks against a threshold that the
    program fixed: neither a break that grew for such a request (one of this size does not come by mmap then), nor
    mappings that the program treats as its own.
    """
    malloc, length, space = candidates.allocator[rows], candidates.length[rows], candidates.space[rows]
    blocks = candidates.plain[rows] & ((malloc == identify.GLIBC) | (malloc == identify.UNKNOWN))
    large: Mask = blocks & (length > threshold)
    doubt = np.flatnonzero(blocks & ~large & (length > MMAP_THRESHOLD))
    maps_itself = _maps_itself(asked, candidates, own, distinct(space[doubt]))
    doubt = doubt[~maps_itself[space[doubt]]]
    growth = largest_growth(asked.record, space[doubt], candidates.step[rows[doubt]])
    large[doubt] = growth - _GROWTH_PAD < length[doubt]
    large &= length % _ROUND != 0
    return large


def _maps_itself(asked: _Asked, candidates: Candidates, own: OwnUse, spaces: Int64Array) -> Mask:
    """Return in which of some spaces the program treats a mapping as its own that might be a block by its looks."""
    marked = candidates.step[candidates.kind != NONE]
    found = np.zeros(asked.record.space_count, dtype=np.bool_)

    def may(part: _Mmaps) -> Mask:
        return part.writable & part.anywhere & ~found[part.space] & ~is_among(part.step, marked)

    left = spaces
    for part in asked.parts() if len(spaces) else ():
        found[part.space[may(part) & own.protected(part.step)]] = True
        left = spaces[~found[spaces]]
        if not len(left):
            break
    if len(left):
        pieces = [part.take(may(part) & is_among(part.space, left)) for part in asked.parts()]
        steps, space = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("step", "space"))
        found[space[own.cut_up(steps)]] = True
    return found


def _large_for_musl(candidates: Candidates, allocators: Allocators, rows: Int64Array) -> Mask:
    """Return which of `rows` musl's malloc would map, by their size."""
    space = candidates.space[rows]
    oldmalloc = np.where(allocators.narrow, _OLDMALLOC_THRESHOLD_NARROW, _OLDMALLOC_THRESHOLD)
    least = np.where(allocators.mallocng, _MALLOCNG_THRESHOLD, oldmalloc)
    large: Mask = (candidates.allocator[rows] == identify.MUSL) & (candidates.length[rows] > least[space])
    return large
