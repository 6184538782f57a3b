"""The heap at one moment: its free ranges, how usable they are, and which blocks hold back the most memory.

In go chunks and extents, out come the measures of fragmentation that the literature knows. Which moments are worth a
look is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending, distinct
from replay.engine.structs import Value
from replay.heap.blocks import Blocks
from replay.heap.chunks import Heaps
from replay.linux.glibc import MINSIZE, TOP_PAD

KEY_SIZES: Final = (64, 256, 1024, 4096, 16384, 65536, 131072, 1048576)
"""Request sizes in bytes that the unusable free space index is given for."""


class HeapSnapshot(Value):
    """The heap of a space once `line` was printed; sizes in bytes.

    live_bytes, rounding_bytes: what was asked for, and what chunks take besides (headers, alignment, whole pages).
    heap_bytes, direct_bytes: what chunks are cut from, and the mappings of blocks mapped by themselves.
    unseen_bytes: between seen blocks, but in none of them so far: nobody knows whose.
    free_bytes: of the heap, in ranges of `free_start` and `free_end`; ranges smaller than a chunk are `slack_bytes`.
    pinned_bytes: free and below the highest live block of the brk area; held_bytes: the same over all heaps.
    top_bytes: free above that block; trimmable_bytes of it glibc's free would give back once it trims.
    live_pages, page_live_share: pages of the heap with a live byte, and the share of live bytes in them.
    """

    space: int
    line: int
    live_blocks: int
    live_bytes: int
    rounding_bytes: int
    heap_bytes: int
    direct_bytes: int
    unseen_bytes: int
    free_bytes: int
    slack_bytes: int
    largest_free_bytes: int
    pinned_bytes: int
    held_bytes: int
    top_bytes: int
    trimmable_bytes: int
    live_pages: int
    page_live_share: float
    free_start: Int64Array
    free_end: Int64Array
    inferred: bool

    @property
    def fragmentation(self) -> float:
        """Return external fragmentation, 1 - largest free range / all free bytes; 0 where nothing is free."""
        return 1 - self.largest_free_bytes / self.free_bytes if self.free_bytes else 0.0

    @property
    def utilisation(self) -> float:
        """Return the share of the memory taken for blocks that the program asked for; 0 where there is none."""
        taken = self.heap_bytes + self.direct_bytes
        return self.live_bytes / taken if taken else 0.0

    def histogram(self) -> list[tuple[int, int, int]]:
        """Return (size, count, bytes) of the free ranges by powers of two: those of `size` up to twice that."""
        free = self.free_end - self.free_start
        classes = np.frexp(free.astype(np.float64))[1] - 1
        counts, sums = np.bincount(classes), np.bincount(classes, weights=free)
        return [(1 << c, int(counts[c]), int(sums[c])) for c in np.flatnonzero(counts).tolist()]

    def unusable_index(self, sizes: Sequence[int] = KEY_SIZES) -> list[tuple[int, float]]:
        """Return (size, share) of the free memory that lies in ranges too small for a request of `size` bytes.

        Source: Gorman and Whitcroft, "The What, The Why and the Where To of Anti-Fragmentation", OLS 2006: the unusable
        free space index (total free - usable free) / total free; here with sizes instead of page orders.
        """
        free = self.free_end - self.free_start
        total = int(free.sum())
        needed = [max(MINSIZE, (size + 23) & -16) for size in sizes]
        return [
            (size, float(free[free < need].sum() / total) if total else 0.0)
            for size, need in zip(sizes, needed, strict=True)
        ]


def snapshot_at(blocks: Blocks, heaps: Heaps, space: int, line: int) -> HeapSnapshot:
    """Return the heap of a space once `line` was printed."""
    return SpaceHeap.of(blocks, heaps, space, [line]).picture(line)


def pins(blocks: Blocks, heaps: Heaps, space: int, line: int, count: int = 10) -> Columns:
    """Return the live blocks that hold back the most memory from being given back, at most `count`, the worst first.

    Memory goes back from the top of a heap only. `block` is the row of the block, `released_bytes` what freeing it and
    the `blocks_above` it in its heap makes free at the top; the order is by bytes for each block to be freed. A block
    below unseen memory is none of them: nobody knows what lies there.
    """
    heap = SpaceHeap.of(blocks, heaps, space, [line])
    live, runs = heap.pooled.live(line), heap.extents.runs(line)
    live = live[_inside(heap.start[live], runs)]
    unseen = heap.unseen_at(line)
    large = unseen[1] - unseen[0] >= MINSIZE
    start, end = np.append(heap.start[live], unseen[0][large]), np.append(heap.end[live], unseen[1][large])
    order = np.argsort(start, kind="stable")
    start, end, known = start[order], end[order], order < len(live)
    run = np.searchsorted(runs[0], start, side="right") - 1
    reach = np.maximum.accumulate(end) if len(end) else end
    last = np.searchsorted(run, run, side="right") - 1
    first = run != np.append(-1, run[:-1])
    beneath = np.where(first, runs[0][run], np.append(0, reach[:-1])[: len(reach)])
    released, above = reach[last] - beneath, last - np.arange(len(start))
    unknown = np.append(0, np.cumsum(~known))
    pinning = np.flatnonzero(known & (unknown[last + 1] == unknown[:-1]))
    best = pinning[np.argsort(-(released[pinning] / (above[pinning] + 1)), kind="stable")[:count]]
    return {
        "block": heap.block[live[order[best]]],
        "released_bytes": released[best],
        "blocks_above": above[best].astype(np.int64),
    }


class _Lives(Value):
    """Chunks that stand behind one another from row `first` on: the lines from which up to which each is live."""

    first: int
    born: Int64Array
    died: Int64Array

    def live(self, line: int) -> Int64Array:
        """Return the rows that are live once `line` was printed, in their order."""
        live = np.flatnonzero((self.born <= line) & (self.died > line))
        live += self.first
        return live


class _Extents(Value):
    """What a heap consists of at any line: its changes by line, each between two borders that it ever had."""

    line: Int64Array
    first: Int64Array
    last: Int64Array
    sign: Int64Array
    borders: Int64Array

    @classmethod
    def of(cls, extents: Columns, chosen: Mask) -> _Extents:
        """Return the chosen changes."""
        start, end = extents["start"][chosen], extents["end"][chosen]
        borders = distinct(np.concatenate([start, end]))
        first, last = np.searchsorted(borders, start), np.searchsorted(borders, end)
        return cls(extents["line"][chosen], first, last, extents["sign"][chosen], borders)

    def runs(self, line: int) -> tuple[Int64Array, Int64Array]:
        """Return starts and ends of what there is once `line` was printed, neighbours joined."""
        until = int(np.searchsorted(self.line, line, side="right"))
        depth = np.zeros(len(self.borders), dtype=np.int64)
        np.add.at(depth, self.first[:until], self.sign[:until])
        np.subtract.at(depth, self.last[:until], self.sign[:until])
        inside = np.cumsum(depth) > 0
        before = np.append(False, inside[:-1])[: len(inside)]
        return self.borders[inside & ~before], self.borders[before & ~inside]


class SpaceHeap(Value):
    """The heap of one space at some lines: the chunks that are live at any of them, sorted once.

    pooled: those that are cut from the heap, by address; behind them, alone: those mapped by themselves. area: the brk
    area. block: the rows of their blocks. start, end, size, addr: of these; in_brk: whether one is in the brk area.
    unseen: the unseen ranges of the space.
    """

    space: int
    heaps: Heaps
    pooled: _Lives
    alone: _Lives
    extents: _Extents
    area: _Extents
    block: Int64Array
    start: Int64Array
    end: Int64Array
    size: Int64Array
    addr: Int64Array
    in_brk: Mask
    unseen: Columns

    @classmethod
    def of(cls, blocks: Blocks, heaps: Heaps, space: int, lines: Iterable[int]) -> SpaceHeap:
        """Return the heap of a space, to be looked at at `lines`."""
        chunks, extents = heaps.chunks, heaps.extents
        block = _live_at_any(chunks, np.array(sorted(lines), dtype=np.int64))
        mine = chunks.at("space", block) == space
        block = block if mine.all() else block[mine]
        direct = chunks.at("direct", block) == 1
        pooled = block[~direct]
        pooled = pooled[ascending(chunks.at("start", pooled))]
        block, count = np.concatenate([pooled, block[direct]]), len(pooled)
        born, died = chunks.at("born_line", block), chunks.at("died_line", block)
        died = np.where(died == NULL, np.iinfo(np.int64).max, died)
        own = extents["space"] == space
        return cls(
            space=space,
            heaps=heaps,
            pooled=_Lives(0, born[:count], died[:count]),
            alone=_Lives(count, born[count:], died[count:]),
            extents=_Extents.of(extents, own),
            area=_Extents.of(extents, own & (extents["in_brk"] == 1)),
            block=block,
            start=chunks.at("start", block),
            end=chunks.at("end", block),
            size=chunks.at("size", block),
            addr=blocks.columns.at("addr", block),
            in_brk=chunks.at("in_brk", block) == 1,
            unseen={name: column[heaps.unseen["space"] == space] for name, column in heaps.unseen.items()},
        )

    def unseen_at(self, line: int) -> tuple[Int64Array, Int64Array]:
        """Return starts and ends of the unseen ranges once `line` was printed."""
        born, died = self.unseen["born_line"], self.unseen["died_line"]
        rows = np.flatnonzero((born <= line) & ((died == NULL) | (died > line)))
        return self.unseen["start"][rows], self.unseen["end"][rows]

    def _free(
        self, live: Int64Array, line: int, runs: tuple[Int64Array, Int64Array]
    ) -> tuple[tuple[Int64Array, Int64Array], int]:
        """Return the free ranges of the heap, whose live chunks are the rows `live`, and the bytes of unseen ones."""
        start, end = self.unseen_at(line)
        covered = np.append(self.start[live], start), np.append(self.end[live], end)
        return _free_ranges(*covered, runs), int((end - start).sum())

    def held_bytes(self, line: int) -> int:
        """Return what the picture of that line, one of those to be looked at, says is held back."""
        live, runs = self.pooled.live(line), self.extents.runs(line)
        return _held(self._free(live, line, runs)[0], runs)

    def picture(self, line: int) -> HeapSnapshot:
        """Return the heap once `line`, one of those to be looked at, was printed."""
        live, alone, page = self.pooled.live(line), self.alone.live(line), self.heaps.page_size
        both = np.concatenate([live, alone])
        runs, area = self.extents.runs(line), self.area.runs(line)
        free, unseen = self._free(live, line, runs)
        length = free[1] - free[0]
        usable = length >= MINSIZE
        top = int(self.end[both[self.in_brk[both]]].max(initial=0))
        in_area = _inside(free[0], area)
        top_bytes = int(length[in_area & (free[0] >= top)].sum())
        pages, share = _page_use(self.addr[live], self.size[live], page)
        heap_bytes, live_bytes = int((runs[1] - runs[0]).sum()), int(self.size[both].sum())
        used, used_alone = (int((self.end[rows] - self.start[rows]).sum()) for rows in (live, alone))
        # Blocks that overlap, as they do in a damaged log, count twice: then the ranges between them are more.
        free_bytes = max(heap_bytes - used - unseen, 0)
        return HeapSnapshot(
            space=self.space,
            line=line,
            live_blocks=len(both),
            live_bytes=live_bytes,
            rounding_bytes=used + used_alone - live_bytes,
            heap_bytes=heap_bytes,
            direct_bytes=used_alone,
            unseen_bytes=min(unseen, max(heap_bytes - used, 0)),
            free_bytes=free_bytes,
            slack_bytes=int(length[~usable].sum()),
            largest_free_bytes=min(int(length[usable].max(initial=0)), free_bytes),
            pinned_bytes=min(int(length[in_area & (free[0] < top)].sum()), free_bytes),
            held_bytes=_held(free, runs),
            top_bytes=top_bytes,
            trimmable_bytes=max((top_bytes - MINSIZE - 1 - TOP_PAD) // page * page, 0),
            live_pages=pages,
            page_live_share=share,
            free_start=free[0][usable],
            free_end=free[1][usable],
            inferred=self.heaps.inferred,
        )


def _live_at_any(chunks: Columns, lines: Int64Array) -> Int64Array:
    """Return the rows of chunks that are live once one of `lines`, which ascend, was printed."""
    if not len(lines):
        return lines
    # What is not live at the first line from its birth on is not live at a later one.
    born, died = chunks["born_line"], chunks["died_line"]
    place = np.searchsorted(lines, born)
    seen = place < len(lines)
    seen &= (died == NULL) | (died > lines[np.minimum(place, len(lines) - 1)])
    return np.flatnonzero(seen)


def _free_ranges(
    start: Int64Array, end: Int64Array, runs: tuple[Int64Array, Int64Array]
) -> tuple[Int64Array, Int64Array]:
    """Return starts and ends of what no range covers inside the runs; `runs` ascend."""
    if not len(runs[0]):
        return runs
    # What is not heap counts as covered: from the end of each run to the start of the next.
    walls = np.append(runs[0][0] - 1, runs[1]), np.append(runs[0], runs[1][-1] + 1)
    starts, ends = np.append(start, walls[0]), np.append(end, walls[1])
    order = np.argsort(starts, kind="stable")  # merges rows that ascend
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    gap = np.flatnonzero(starts[1:] > reach[:-1])
    return reach[gap], starts[gap + 1]


def _inside(addr: Int64Array, runs: tuple[Int64Array, Int64Array]) -> Mask:
    """Return which addresses lie in a run."""
    if not len(runs[0]):
        return np.zeros(len(addr), dtype=np.bool_)
    place = np.searchsorted(runs[0], addr, side="right") - 1
    inside: Mask = (place >= 0) & (addr < runs[1][place])
    return inside


def _held(free: tuple[Int64Array, Int64Array], runs: tuple[Int64Array, Int64Array]) -> int:
    """Return the bytes of the free ranges that do not reach the end of their run: something live holds them back."""
    if not len(runs[1]):
        return 0
    place = np.minimum(np.searchsorted(runs[1], free[1]), len(runs[1]) - 1)
    held = runs[1][place] != free[1]
    return int((free[1][held] - free[0][held]).sum())


def _page_use(addr: Int64Array, size: Int64Array, page: int) -> tuple[int, float]:
    """Return how many pages hold a byte of blocks, and the share of these pages' bytes that are theirs.

    `addr` ascends.
    """
    addr, size = addr[size > 0], size[size > 0]
    if not len(addr):
        return 0, 0.0
    first, last = addr // page, (addr + size - 1) // page
    reach = np.append(first[0] - 1, np.maximum.accumulate(last)[:-1])
    pages = int(np.maximum(last - np.maximum(first, reach + 1) + 1, 0).sum())
    return pages, float(size.sum()) / (pages * page)
