"""The heaps of glibc's non-main arenas: reserves of twice a heap's size, cut to a boundary and made writable.

In go the mappings that have the size of such a reserve; out comes which of them became a heap, which were refused, and
at which call a refused attempt ended: there the last resort begins.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.allocator.neighbours import Neighbours
from replay.allocator.replayed import Replayed
from replay.calls.table import OK
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Struct, field
from replay.linux.constants import CALL_CODE

_MMAP: Final = CALL_CODE["mmap"]
_MUNMAP: Final = CALL_CODE["munmap"]
_MPROTECT: Final = CALL_CODE["mprotect"]

_ATTEMPT_CALLS: Final = 4
"""Calls that follow a reserve at most: two munmaps of what is not aligned, an mprotect, a munmap where that fails."""

_FULL: Final = 1 << 20
"""Bytes below the end of a heap from which it counts as full (heuristic): no larger block was asked for, usually."""


class Heap(Struct):
    """One reserve: the number of the error that refused it (0 none), its heap's address (0 none) and the evidence."""

    step: int
    errno: int
    base: int
    evidence: str


class ArenaHeaps(Struct):
    """The reserves of a run, and the steps at which a refused attempt ended."""

    found: list[Heap] = field(default_factory=list)
    refused_ends: list[int] = field(default_factory=list)


def find_arena_heaps(record: Replayed, steps: list[int], heap_bytes: list[int]) -> ArenaHeaps:
    """Return what became of the reserves `steps`: unreadable private mappings of one or two `heap_bytes`.

    Source: alloc_new_heap in malloc/arena.c (new_heap before 2.35): mmap of two heaps' size, munmap of the unaligned
    head and tail, mprotect of the first pages; where the mmap fails, one of a single heap's size, kept if aligned.
    """
    heaps = ArenaHeaps()
    traced = any(any(record.parts_of(name, ())) for name in ("mprotect", "munmap"))
    last_heap: dict[tuple[int, int], int] = {}
    every = np.array(steps, dtype=np.int64)
    following, preceding = (_known(found) for found in _around(record.neighbours, every))
    for step, size, after, before in zip(steps, heap_bytes, following, preceding, strict=True):
        if record.one("status", step) != OK:
            evidence = f"the reserve for a heap of {_mib(size)} of an arena was refused"
            heaps.found.append(Heap(step, record.one("errno", step), 0, evidence))
            heaps.refused_ends.append(step)
            continue
        heap = _follow_reserve(record, step, after, size, heaps, traced)
        if heap is None:
            continue
        if heap.errno == 0 and heap.base:
            thread = (record.one("space", step), record.one("tid", step))
            if thread in last_heap:
                heap.evidence += _further_heap(record, before, last_heap[thread], size)
            last_heap[thread] = heap.base
        heaps.found.append(heap)
    return heaps


def _around(neighbours: Neighbours, steps: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the calls that may belong to the attempts at heaps which begin at `steps`, and those before them."""
    return neighbours.following(steps, _ATTEMPT_CALLS), neighbours.preceding(steps, _ATTEMPT_CALLS)


def _known(found: Int64Array) -> list[list[int]]:
    """Return rows of steps as lists, without the nulls at their ends."""
    return [[step for step in row if step != NULL] for row in found.tolist()]


def _follow_reserve(
    record: Replayed, step: int, following: list[int], size: int, heaps: ArenaHeaps, traced: bool
) -> Heap | None:
    """Return the heap that the calls `following` a granted reserve make of it, None where they do not.

    `traced` tells whether the log has such calls at all; without them the size alone must do.
    """
    start, length = record.one("result", step), record.one("length", step)
    for place, row in enumerate(following):
        call, addr = record.one("call", row), record.one("addr", row)
        if not start <= addr < start + length:
            break
        if call == _MPROTECT and addr % size == 0:
            return _committed(record, step, row, following[place + 1 :], heaps, size)
        if call != _MUNMAP:
            break
        if addr == start and record.one("length", row) == length:
            heaps.refused_ends.append(row)
            return None
    unseen = (not following or not traced) and length == 2 * size and record.one("addr", step) == 0
    return Heap(step, 0, 0, f"has the size of the reserve for a heap of {_mib(size)} of an arena") if unseen else None


def _committed(record: Replayed, step: int, row: int, following: list[int], heaps: ArenaHeaps, size: int) -> Heap:
    """Return the heap whose first pages the mprotect `row` made writable, or was refused to."""
    base, line = record.one("addr", row), record.one("line", row)
    if record.one("status", row) == OK:
        evidence = f"the reserve for a heap of {_mib(size)} of an arena at {base:#x}, made writable in line {line}"
        return Heap(step, 0, base, evidence)
    end = row
    if following and record.one("call", following[0]) == _MUNMAP and record.one("addr", following[0]) == base:
        end = following[0]
    heaps.refused_ends.append(end)
    evidence = f"the reserve for a heap of {_mib(size)} of an arena was granted, but not its first pages (line {line})"
    return Heap(step, record.one("errno", row), base, evidence)


def _further_heap(record: Replayed, preceding: list[int], base: int, size: int) -> str:
    """Return what to add where the last heap of the same thread is full: then this one belongs to the same arena."""
    for row in preceding:
        addr = record.one("addr", row)
        if record.one("call", row) == _MPROTECT and base <= addr < base + size:
            left = base + size - addr - record.one("length", row)
            if left < _FULL:
                return f"; a further heap of the arena whose heap at {base:#x} has {left} bytes left"
    return ""


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
