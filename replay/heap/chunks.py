"""The chunks that blocks lie in, and the memory that chunks are cut from.

In go blocks and regions, out come chunks (a block with its header and rounding) and the changes of the heap's extent.
The chunk rule is glibc's; for another allocator it is an approximation.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from replay.calls.enclosing import Nesting, is_call
from replay.calls.reader import OK
from replay.engine.column_store import PackedColumns, packed_columns
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending, ascending_by, distinct
from replay.heap.blocks import IN_BRK, IN_UNKNOWN, MOVED, Blocks
from replay.heap.unseen import unseen_ranges
from replay.linux.glibc import MINSIZE, MMAP_THRESHOLD
from replay.mm.fields import KIND_ANON, KIND_BRK
from replay.spaces.replay import Replay

PROT_WRITE: Final = 2

_CLUSTER_GAP_BITS: Final = 20
"""Where no system calls are in the log: blocks farther apart than 1 MiB are of different heaps. Heuristic."""

_HIGHEST: Final = np.iinfo(np.int64).max
_LOWEST: Final = np.iinfo(np.int64).min

_NARROW_ADDRESSES: Final = 1 << 32
_NARROW_MAPPINGS: Final = 0xC0000000
"""From here up 32-bit programs have their mappings; below 4 GiB a 64-bit one that is no PIE has image and heap only."""

_SAMPLE: Final = 4096
"""How many blocks tell whether a program is one of 32 bits."""

_SPACE_SHIFT: Final = 48

_MAPPED_OFFSET: Final = 16
"""Where in its mapping a block mapped by itself begins, in bytes; 32-bit programs have it aligned to 16, too."""


def chunk_sizes(size: Int64Array, narrow: Mask) -> Int64Array:
    """Return the bytes of the chunks of blocks of `size` bytes; `narrow` tells which are of 32-bit programs.

    64 bits: max(32, size + 8 rounded up to 16); 32 bits: max(16, size + 4 rounded up to 16).
    Source: request2size in malloc/malloc.c, MALLOC_ALIGNMENT in sysdeps/generic/malloc-alignment.h and sysdeps/i386.
    """
    word: Int64Array | int = np.where(narrow, 4, 8) if narrow.any() else 8
    sizes = size + word
    sizes += 15
    sizes &= -16
    np.maximum(sizes, 4 * word, out=sizes)
    return sizes


class Heaps(NamedTuple):
    """The chunks of a run, one a block and in the order of blocks, and what they are cut from.

    chunks: `space`, `start`, `end` (of `[start, end)`, the header included), `size` (as requested), `born_line`,
        `died_line`, `in_brk` (0/1), `direct` (0/1: mapped by itself; its mapping is `[start, end)` then).
    extents: each change of the memory that chunks are cut from, blocks mapped by themselves not among it: `space`,
        `line`, `start`, `end`, `sign` (1 added, -1 taken away), `in_brk`; sorted by line, no part of it without effect.
    unseen: ranges between seen blocks that none of them ever covered, as `unseen_ranges` returns them.
    area_start: where the brk area of each space begins, `NULL` where it has none.
    inferred: whether the extent of some heap was inferred from its blocks, as the log shows no system calls.
    """

    chunks: PackedColumns
    extents: Columns
    unseen: Columns
    area_start: Int64Array
    inferred: bool
    page_size: int


_NOTHING: Final = np.zeros(0, dtype=np.int64)
_CHUNKS: Final = ("space", "start", "end", "size", "born_line", "died_line", "in_brk", "direct")
_NO_EXTENTS: Final = dict.fromkeys(("space", "line", "start", "end", "sign", "in_brk"), _NOTHING)


def find_heaps(replayed: Replay, nesting: Nesting, blocks: Blocks) -> Heaps:
    """Return the chunks of all blocks and the extents of the heaps that they lie in."""
    columns, page = blocks.columns, replayed.page_size
    if not len(blocks):
        nothing = packed_columns(replayed.events.shelf, ((name, _NOTHING) for name in _CHUNKS))
        unseen = unseen_ranges(nothing, _NO_EXTENTS)
        return Heaps(nothing, _NO_EXTENTS, unseen, _area_starts(replayed), inferred=False, page_size=page)
    narrow = _narrow_spaces(replayed, columns)
    narrow = narrow[columns["space"]] if narrow.any() else np.broadcast_to(np.False_, len(blocks))
    size = chunk_sizes(columns["size"], narrow)
    direct = _direct(replayed, nesting, columns, size)
    mapped = (size[direct] + np.where(narrow[direct], 4, 8) + page - 1) & -page
    size[direct] = mapped
    start = columns["addr"] - (np.where(narrow & ~direct, 8, 16) if narrow.any() else 16)
    size += start
    backing = columns["backing"]
    chunks = PackedColumns(replayed.events.shelf)
    chunks.keep_of(columns, "space", "size", "born_line", "died_line")
    chunks.keep("start", start)
    chunks.keep("end", size)
    chunks.keep("in_brk", (backing == IN_BRK).astype(np.int64))
    chunks.keep("direct", direct.astype(np.int64))
    del start, size, narrow, mapped
    known = _known_extents(replayed, chunks, backing)
    inferred = _inferred_extents(chunks, (backing == IN_UNKNOWN) & ~direct)
    extents = _effects({name: np.concatenate([known[name], inferred[name]]) for name in known})
    unseen = unseen_ranges(chunks, extents)
    return Heaps(chunks, extents, unseen, _area_starts(replayed), bool(len(inferred["space"])), page)


def _narrow_spaces(replayed: Replay, columns: Columns) -> Mask:
    """Return for each space whether it is of a 32-bit program. Heuristic.

    All its addresses are below 4 GiB, and some are where only 32-bit programs have their mappings, or two blocks are
    closer together than 64 bits allow.
    """
    regions = replayed.regions
    narrow = np.ones(len(replayed.spaces["space"]), dtype=np.bool_)
    high = np.zeros(len(narrow), dtype=np.bool_)
    for space, addr in ((columns["space"], columns["addr"]), (regions["space"], regions["end"] - 1)):
        narrow[space[(addr >= _NARROW_ADDRESSES) | (addr < 0)]] = False
        high[space[addr >= _NARROW_MAPPINGS]] = True
    for number in np.flatnonzero(narrow & ~high).tolist():
        narrow[number] = _closest(columns, number) < MINSIZE
    return narrow


def _closest(columns: Columns, space: int) -> int:
    """Return how far apart the closest two of the first blocks of a space are that are live together, in bytes."""
    rows = np.flatnonzero(columns["space"] == space)[:_SAMPLE]
    if not len(rows):
        return MINSIZE
    last = int(columns["born_line"][rows[-1]])
    live = (columns["died_line"][rows] == NULL) | (columns["died_line"][rows] > last)
    addresses = np.sort(columns["addr"][rows[live]])
    return int(np.diff(addresses).min(initial=MINSIZE))


def _area_starts(replayed: Replay) -> Int64Array:
    """Return where the brk area of each space begins, `NULL` where it has none."""
    starts = replayed.spaces["start_brk"].copy()
    regions = replayed.regions
    rows = np.flatnonzero(regions["kind"] == KIND_BRK)
    lowest = np.full(len(starts), np.iinfo(np.int64).max)
    np.minimum.at(lowest, regions["space"][rows], regions["start"][rows])
    return np.where((starts == NULL) & (lowest != np.iinfo(np.int64).max), lowest, starts)


# --- blocks mapped by themselves -------------------------------------------------------------------------------------


def _direct(replayed: Replay, nesting: Nesting, columns: Columns, size: Int64Array) -> Mask:
    """Return which blocks were mapped by themselves.

    Observed: the mmap or mremap inside the call gave a mapping that holds the block and no more. What realloc left in
    its place stays so. Where the log shows no memory there: blocks above the threshold at the start of a page.
    """
    direct = _maps_itself(replayed, nesting, columns, size)
    large = np.flatnonzero((columns["backing"] == IN_UNKNOWN) & (size + 8 >= MMAP_THRESHOLD))
    direct[large] |= columns["addr"][large] % replayed.page_size == _MAPPED_OFFSET
    if not direct.any():
        return direct
    return direct | direct[_resized_in_place(columns)]


def _maps_itself(replayed: Replay, nesting: Nesting, columns: Columns, size: Int64Array) -> Mask:
    """Return which blocks fill a mapping that the kernel made inside the call that gave the block."""
    events, page = replayed.events, replayed.page_size
    direct = np.zeros(len(size), dtype=np.bool_)
    call = events.at("call", nesting.inside)
    maps = is_call({"call": call}, ("mmap", "mremap")) & (events.at("status", nesting.inside) == OK)
    if not maps.any():
        return direct
    # The block of a call is found by the call's step; the last mapping inside it is the one that counts.
    parents, last = np.unique(nesting.parents[maps][::-1], return_index=True)
    mapping, given = nesting.inside[maps][::-1][last], columns["given_step"]
    place = np.minimum(np.searchsorted(parents, given), len(parents) - 1)
    there = np.flatnonzero(parents[place] == given)
    own, given = mapping[place[there]], given[there]
    offset = columns["addr"][there] - events.at("result", own)
    spare = events.at("length", own) - offset - columns["size"][there]
    align = np.maximum(events.at("aux", given), 0)
    aligned = is_call({"call": columns["call"][there]}, ("memalign", "aligned_alloc", "posix_memalign", "new", "new[]"))
    room = page + MINSIZE + np.where(aligned, align, 0)
    direct[there] = (offset > 0) & (offset <= room) & (spare >= 0) & (spare <= room)
    return direct


def _resized_in_place(columns: Columns) -> Int64Array:
    """Return for each block the first one of the row of reallocs that left it at its address; mostly itself."""
    given, taken, addr, space = (columns[name] for name in ("given_step", "taken_step", "addr", "space"))
    origin = np.arange(len(addr), dtype=np.int64)
    moved = np.flatnonzero(columns["end"] == MOVED)
    if not len(moved):
        return origin
    moved = moved[ascending(taken[moved])]
    place = np.minimum(np.searchsorted(taken[moved], given), len(moved) - 1)
    later = np.flatnonzero(taken[moved[place]] == given)
    before = moved[place[later]]
    same = (addr[before] == addr[later]) & (space[before] == space[later])
    later, before = later[same], before[same]
    origin[later] = before
    while (origin[before] != before).any():
        before = origin[before]
        origin[later] = before
    return origin


# --- extents ---------------------------------------------------------------------------------------------------------


def _known_extents(replayed: Replay, chunks: Columns, backing: Int64Array) -> Columns:
    """Return the birth and the death of each region that chunks are cut from; the end of a space takes none away."""
    regions, ends = replayed.regions, replayed.spaces["died_line"]
    with_blocks = np.zeros(len(ends), dtype=np.bool_)
    with_blocks[chunks["space"]] = True
    in_area = (regions["kind"] == KIND_BRK) & with_blocks[regions["space"]]
    pooled = (chunks["direct"] == 0) & (backing != IN_BRK)
    pool = (regions["kind"] == KIND_ANON) & ((regions["prot"] & PROT_WRITE) != 0)
    pool[pool] = _overlapped(regions, pool, chunks, pooled)
    rows = np.flatnonzero(in_area | pool)
    died, end = regions["died_line"][rows], ends[regions["space"][rows]]
    dead = rows[(died != NULL) & ((end == NULL) | (died < end))]
    return {
        "space": np.concatenate([regions["space"][rows], regions["space"][dead]]),
        "line": np.concatenate([np.maximum(regions["born_line"][rows], 0), regions["died_line"][dead]]),
        "start": np.concatenate([regions["start"][rows], regions["start"][dead]]),
        "end": np.concatenate([regions["end"][rows], regions["end"][dead]]),
        "sign": np.repeat(np.array([1, -1]), [len(rows), len(dead)]),
        "in_brk": in_area[np.concatenate([rows, dead])].astype(np.int64),
    }


def _overlapped(regions: Columns, chosen: Mask, chunks: Columns, pooled: Mask) -> Mask:
    """Return which of the chosen regions hold a part of a `pooled` chunk, at whatever time."""
    if not chosen.any():
        return chosen[chosen]
    base = chunks["space"][pooled] << _SPACE_SHIFT
    start, end = chunks["start"][pooled] + base, chunks["end"][pooled] + base
    order = ascending(start)
    start, reach = start[order], np.maximum.accumulate(end[order])
    base = regions["space"][chosen] << _SPACE_SHIFT
    before = np.searchsorted(start, regions["end"][chosen] + base, side="left")
    if not len(start):
        return np.zeros(len(before), dtype=np.bool_)
    overlapped: Mask = (before > 0) & (reach[before - 1] > regions["start"][chosen] + base)
    return overlapped


def _inferred_extents(chunks: PackedColumns, unknown: Mask) -> Columns:
    """Return the growth of heaps that only their blocks tell of: from the lowest block up to the highest one so far."""
    rows = np.flatnonzero(unknown)
    base = chunks.at("space", rows) << _SPACE_SHIFT
    start, end = chunks.at("start", rows) + base, chunks.at("end", rows) + base
    del base
    lowest, cluster = clusters_of(start, end)
    del start
    if len(lowest) > 1:
        by_birth = ascending(cluster)
        cluster, end, rows = cluster[by_birth], end[by_birth], rows[by_birth]
    # A cluster lies above the ones before it: the running maximum of one does not reach into the next.
    highest = np.maximum.accumulate(end) if len(end) else end
    before = np.append(0, highest)[: len(highest)]
    first = np.flatnonzero(np.append(True, cluster[1:] != cluster[:-1])[: len(cluster)])
    before[first] = lowest[cluster[first]]
    grows = highest > before
    space = chunks.at("space", rows[grows])
    return {
        "space": space,
        "line": chunks.at("born_line", rows[grows]),
        "start": before[grows] - (space << _SPACE_SHIFT),
        "end": highest[grows] - (space << _SPACE_SHIFT),
        "sign": np.ones(len(space), dtype=np.int64),
        "in_brk": np.zeros(len(space), dtype=np.int64),
    }


def clusters_of(start: Int64Array, end: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return where each cluster of ranges begins, no two nearer than the gap, and in which one each range lies.

    Ranges that begin in the same stretch of as many bytes as the gap has are of one cluster: only stretches are sorted.
    """
    place = start >> _CLUSTER_GAP_BITS
    place -= place.min(initial=_HIGHEST)
    if place.max(initial=0) > len(place):
        place = np.searchsorted(distinct(place), place)
    low, high = (np.full(int(place.max(initial=-1)) + 1, fill) for fill in (_HIGHEST, _LOWEST))
    np.minimum.at(low, place, start)
    np.maximum.at(high, place, end)
    fresh = low != _HIGHEST
    fresh[1:] &= low[1:] > np.maximum.accumulate(high)[:-1] + (1 << _CLUSTER_GAP_BITS)
    lowest = low[fresh]
    if len(lowest) < 2:
        return lowest, np.broadcast_to(np.int64(0), len(start))
    return lowest, (np.cumsum(fresh) - 1)[place]


def _effects(extents: Columns) -> Columns:
    """Return the changes with those parts left out that one line takes away and adds again."""
    space, line, in_brk = (np.tile(extents[name], 2) for name in ("space", "line", "in_brk"))
    addr = np.concatenate([extents["start"], extents["end"]])
    weight = np.concatenate([extents["sign"], -extents["sign"]])
    order = ascending_by(space, line, in_brk, addr)
    space, line, in_brk, addr, weight = (column[order] for column in (space, line, in_brk, addr, weight))
    depth = np.cumsum(weight)
    piece = np.flatnonzero((depth[:-1] != 0) & (addr[1:] > addr[:-1])) if len(depth) else order
    piece = piece[np.argsort(line[piece], kind="stable")]
    return {
        "space": space[piece],
        "line": line[piece],
        "start": addr[piece],
        "end": addr[piece + 1],
        "sign": np.sign(depth[piece]),
        "in_brk": in_brk[piece],
    }
