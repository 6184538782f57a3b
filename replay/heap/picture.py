"""The heap at one moment: its free ranges, how usable they are, and which blocks hold back the most memory.

In go chunks and extents, out come the measures of fragmentation that the literature knows. Which moments are worth a
look is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from replay.blocks import Blocks
from replay.columns import NULL, Columns, Int64Array
from replay.heap.chunks import MINSIZE, Heaps
from replay.nesting import Mask

TOP_PAD: Final = 131072
"""Bytes that a trim leaves free at the top. Source: DEFAULT_TOP_PAD in malloc/arena.c."""

KEY_SIZES: Final = (64, 256, 1024, 4096, 16384, 65536, 131072, 1048576)
"""Request sizes in bytes that the unusable free space index is given for."""


@dataclass(frozen=True, slots=True)
class Picture:
    """The heap of a space once `line` was printed; sizes in bytes.

    live_bytes, rounding_bytes: what was asked for, and what chunks take besides (headers, alignment, whole pages).
    heap_bytes, direct_bytes: what chunks are cut from, and the mappings of blocks mapped by themselves.
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


def take_picture(blocks: Blocks, heaps: Heaps, space: int, line: int) -> Picture:
    """Return the heap of a space once `line` was printed."""
    live = _live_rows(heaps, space, line)
    chunks = {name: column[live] for name, column in heaps.chunks.items()}
    direct = chunks["direct"] == 1
    size = chunks["end"] - chunks["start"]
    runs = _runs(heaps, space, line)
    free = _free_ranges(chunks["start"][~direct], chunks["end"][~direct], runs)
    length = free[1] - free[0]
    usable = length >= MINSIZE
    top = int(chunks["end"][chunks["in_brk"] == 1].max(initial=0))
    in_area = _inside(free[0], _runs(heaps, space, line, in_brk=True))
    below, above = in_area & (free[0] < top), in_area & (free[0] >= top)
    top_bytes = int(length[above].sum())
    pages, share = _page_use(blocks, live[~direct], heaps.page_size)
    heap_bytes, used = int((runs[1] - runs[0]).sum()), int(size[~direct].sum())
    return Picture(
        space=space,
        line=line,
        live_blocks=len(live),
        live_bytes=int(chunks["size"].sum()),
        rounding_bytes=int((size - chunks["size"]).sum()),
        heap_bytes=heap_bytes,
        direct_bytes=int(size[direct].sum()),
        free_bytes=max(heap_bytes - used, 0),
        slack_bytes=int(length[~usable].sum()),
        largest_free_bytes=int(length[usable].max(initial=0)),
        pinned_bytes=int(length[below].sum()),
        held_bytes=int(length[~_at_top(free, runs)].sum()),
        top_bytes=top_bytes,
        trimmable_bytes=max((top_bytes - MINSIZE - 1 - TOP_PAD) // heaps.page_size * heaps.page_size, 0),
        live_pages=pages,
        page_live_share=share,
        free_start=free[0][usable],
        free_end=free[1][usable],
        inferred=heaps.inferred,
    )


def pins(blocks: Blocks, heaps: Heaps, space: int, line: int, count: int = 10) -> Columns:
    """Return the live blocks that hold back the most memory from being given back, at most `count`, the worst first.

    Memory goes back from the top of a heap only. `block` is the row of the block, `released_bytes` what freeing it and
    the `blocks_above` it in its heap makes free at the top; the order is by bytes for each block to be freed.
    """
    live = _live_rows(heaps, space, line)
    live = live[heaps.chunks["direct"][live] == 0]
    runs = _runs(heaps, space, line)
    live = live[_inside(heaps.chunks["start"][live], runs)]
    live = live[np.argsort(heaps.chunks["start"][live], kind="stable")]
    start, end = heaps.chunks["start"][live], heaps.chunks["end"][live]
    run = np.searchsorted(runs[0], start, side="right") - 1
    reach = np.maximum.accumulate(end) if len(end) else end
    last = np.searchsorted(run, run, side="right") - 1
    first = run != np.append(-1, run[:-1])
    beneath = np.where(first, runs[0][run], np.append(0, reach[:-1])[: len(reach)])
    released, above = reach[last] - beneath, last - np.arange(len(live))
    best = np.argsort(-(released / (above + 1)), kind="stable")[:count]
    return {"block": live[best], "released_bytes": released[best], "blocks_above": above[best].astype(np.int64)}


def _live_rows(heaps: Heaps, space: int, line: int) -> Int64Array:
    """Return the rows of the chunks that are live."""
    chunks = heaps.chunks
    live = (chunks["born_line"] <= line) & ((chunks["died_line"] == NULL) | (chunks["died_line"] > line))
    return np.flatnonzero(live & (chunks["space"] == space)).astype(np.int64)


def _runs(heaps: Heaps, space: int, line: int, *, in_brk: bool = False) -> tuple[Int64Array, Int64Array]:
    """Return starts and ends of what the heap consists of, neighbours joined; with `in_brk` only the brk area."""
    extents = heaps.extents
    chosen = (extents["space"] == space) & (extents["line"] <= line)
    if in_brk:
        chosen &= extents["in_brk"] == 1
    addr = np.concatenate([extents["start"][chosen], extents["end"][chosen]])
    weight = np.concatenate([extents["sign"][chosen], -extents["sign"][chosen]])
    borders, place = np.unique(addr, return_inverse=True)
    inside = np.cumsum(np.bincount(place, weights=weight, minlength=len(borders))) > 0
    before = np.append(False, inside[:-1])[: len(inside)]
    return borders[inside & ~before], borders[before & ~inside]


def _free_ranges(
    start: Int64Array, end: Int64Array, runs: tuple[Int64Array, Int64Array]
) -> tuple[Int64Array, Int64Array]:
    """Return starts and ends of what no chunk covers inside the runs."""
    if not len(runs[0]):
        return runs
    # What is not heap counts as covered: from the end of each run to the start of the next.
    walls = np.append(runs[0][0] - 1, runs[1]), np.append(runs[0], runs[1][-1] + 1)
    starts, ends = np.append(start, walls[0]), np.append(end, walls[1])
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate(ends[order])
    gap = np.flatnonzero(starts[order][1:] > reach[:-1])
    return reach[gap], starts[order][gap + 1]


def _inside(addr: Int64Array, runs: tuple[Int64Array, Int64Array]) -> Mask:
    """Return which addresses lie in a run."""
    if not len(runs[0]):
        return np.zeros(len(addr), dtype=np.bool_)
    place = np.searchsorted(runs[0], addr, side="right") - 1
    inside: Mask = (place >= 0) & (addr < runs[1][place])
    return inside


def _at_top(free: tuple[Int64Array, Int64Array], runs: tuple[Int64Array, Int64Array]) -> Mask:
    """Return which free ranges reach the end of their run: nothing live holds them back."""
    return np.isin(free[1], runs[1])


def _page_use(blocks: Blocks, live: Int64Array, page: int) -> tuple[int, float]:
    """Return how many pages hold a byte of the live blocks, and the share of these pages' bytes that are live."""
    addr, size = blocks.columns["addr"][live], blocks.columns["size"][live]
    addr, size = addr[size > 0], size[size > 0]
    order = np.argsort(addr, kind="stable")
    first, last = addr[order] // page, (addr[order] + size[order] - 1) // page
    if not len(first):
        return 0, 0.0
    reach = np.append(first[0] - 1, np.maximum.accumulate(last)[:-1])
    pages = int(np.maximum(last - np.maximum(first, reach + 1) + 1, 0).sum())
    return pages, float(size.sum()) / (pages * page)
