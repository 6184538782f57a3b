"""What made the heap grow and shrink: the libc call around each system call of the allocator.

In go events, nesting and blocks, out come the mallocs that made the heap grow, the frees that trimmed it, and the frees
that raised glibc's threshold for mapping a block by itself. Why the kernel refused memory is not told here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.calls.enclosing import FREEING, Nesting, is_call
from replay.calls.reader import OK
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending
from replay.heap.blocks import FREED, Blocks
from replay.heap.chunks import Heaps
from replay.linux.constants import CALL_CODE
from replay.linux.glibc import MMAP_THRESHOLD, THRESHOLD_MAX
from replay.spaces.replay import Replay

BRK_GREW: Final = 0
BRK_TRIMMED: Final = 1
MAPPED: Final = 2
MAPPED_DIRECTLY: Final = 3
OPENED: Final = 4
UNMAPPED: Final = 5
ADVISED: Final = 6
RESIZED: Final = 7
RESERVED: Final = 8
KINDS: Final = (
    "brk_grew", "brk_trimmed", "mapped", "mapped_directly", "opened", "unmapped", "advised", "resized", "reserved",
)  # fmt: skip
"""What became of the heap; the codes of the column `kind` are places here.

`mapped`: memory to cut blocks from. `mapped_directly`: one block by itself. `reserved`: addresses for an arena's heap,
of which mprotect makes more and more usable (`opened`). `advised`: madvise gave pages back that stay mapped. `resized`:
mremap of a block mapped by itself.
"""


def heap_growth(replayed: Replay, nesting: Nesting, blocks: Blocks, heaps: Heaps) -> Columns:
    """Return what the allocator asked of the kernel inside libc calls, one row a system call that succeeded, by step.

    `step`, `line`, `space`; `kind` (a place in `KINDS`); `bytes` gained, less than 0 where given back; `parent_step`,
    the libc call; `request_bytes` that it was asked for, `NULL` for a free.
    """
    events = replayed.events
    codes = {name: CALL_CODE[name] for name in ("brk", "mmap", "munmap", "mprotect", "madvise", "mremap")}
    call = events.at("call", nesting.inside)
    inside = (events.at("status", nesting.inside) == OK) & is_call({"call": call}, codes)
    steps, parent, call = nesting.inside[inside], nesting.parents[inside], call[inside]
    length, prot = events.at("length", steps), events.at("prot", steps)
    direct = np.isin(parent, blocks.columns["given_step"][heaps.chunks["direct"] == 1])
    brk = _break_moves(replayed, steps)
    bytes_of = [
        (codes["brk"], np.where(brk < 0, BRK_TRIMMED, BRK_GREW), brk),
        (codes["mmap"], _kinds_of_mappings(direct, prot), length),
        (codes["munmap"], np.full(len(steps), UNMAPPED), -length),
        (codes["mprotect"], np.full(len(steps), OPENED), length),
        (codes["madvise"], np.full(len(steps), ADVISED), -length),
        (codes["mremap"], np.full(len(steps), RESIZED), length - events.at("old_length", steps)),
    ]
    chosen = [call == code for code, _, _ in bytes_of]
    gained = np.select(chosen, [amount for _, _, amount in bytes_of], 0).astype(np.int64)
    freeing = is_call({"call": events.at("call", parent)}, FREEING)
    columns = {
        "step": steps,
        "line": events.at("line", steps),
        "space": events.at("space", steps),
        "kind": np.select(chosen, [kind for _, kind, _ in bytes_of], NULL).astype(np.int64),
        "bytes": gained,
        "parent_step": parent,
        "request_bytes": np.where(freeing, NULL, events.at("length", parent)),
    }
    kept = (gained != 0) & ((call != codes["mprotect"]) | (prot & 2 != 0))
    return {name: column[kept] for name, column in columns.items()}


def _kinds_of_mappings(direct: Mask, prot: Int64Array) -> Int64Array:
    """Return the kinds of mmap calls, by whether the block is mapped by itself and what protection was asked for."""
    return np.where(prot == 0, RESERVED, np.where(direct, MAPPED_DIRECTLY, MAPPED)).astype(np.int64)


def _break_moves(replayed: Replay, steps: Int64Array) -> Int64Array:
    """Return for each of the steps, which ascend, by how many bytes it moved the break."""
    moves = np.zeros(len(steps), dtype=np.int64)
    before, granted, moved = (replayed.brks[name] for name in ("before", "granted", "step"))
    known = (before != NULL) & (granted != NULL)
    _, here, there = np.intersect1d(steps, moved[known], assume_unique=True, return_indices=True)
    moves[here] = granted[known][there] - before[known][there]
    return moves


def threshold_raises(replayed: Replay, nesting: Nesting, blocks: Blocks, heaps: Heaps) -> Columns:
    """Return the frees that raised the size from which glibc maps blocks by themselves, by step.

    `step`, `line`, `space`, `before` and `after` in bytes, `observed` (0/1: the log shows the munmap inside the free).
    The threshold at which free trims the heap becomes twice `after`. A program that set either by mallopt or tunables
    has them fixed; the log does not tell tunables.

    Source: __libc_free in malloc/malloc.c: a mapped chunk larger than the threshold and not above the maximum.
    """
    columns, chunks = blocks.columns, heaps.chunks
    events, taken = replayed.events, columns["taken_step"]
    rows = np.flatnonzero((chunks["direct"] == 1) & (columns["end"] == FREED) & (taken != NULL))
    by_free = is_call({"call": events.at("call", taken[rows])}, FREEING)
    rows = rows[by_free | (events.at("length", taken[rows]) == 0)]
    rows = rows[ascending(taken[rows])]
    size = chunks["end"][rows] - chunks["start"][rows]
    unmaps = events.at("call", nesting.inside) == CALL_CODE["munmap"]
    observed, spaces = np.isin(taken[rows], nesting.parents[unmaps]), columns["space"][rows]
    raises: list[tuple[int, int, int]] = []
    thresholds: dict[int, int] = {}
    candidates = np.flatnonzero((size > MMAP_THRESHOLD) & (size <= THRESHOLD_MAX))
    for place in candidates.tolist():
        space = int(spaces[place])
        before = thresholds.get(space, MMAP_THRESHOLD)
        if int(size[place]) > before:
            thresholds[space] = int(size[place])
            raises.append((place, before, int(size[place])))
    places = np.array([place for place, _, _ in raises], dtype=np.int64)
    steps = taken[rows[places]]
    return {
        "step": steps,
        "line": events.at("line", steps),
        "space": spaces[places],
        "before": np.array([before for _, before, _ in raises], dtype=np.int64),
        "after": np.array([after for _, _, after in raises], dtype=np.int64),
        "observed": observed[places].astype(np.int64),
    }
