"""Whether a stream served again with the recorded settings did what was recorded: the proof before any what-if.

In go a stream with its recorded addresses, the addresses answered now, and the moves of both breaks, out comes how much
of both is the same. Which run is meant is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from replay.engine.columns import Int64Array, Mask
from replay.linux.glibc import HEAP_MAX_SIZE
from replay.whatif.stream import FREE, Stream

ENOUGH: Final = 0.99
"""Below this share the other policies are only indicative."""

_MMAP_ZONE: Final = 0x7000_0000_0000
"""What mmap places lies above, programs and the break below. Heuristic: 47 bits of addresses, top down."""

_CHUNK_HEADER: Final = 0x10
"""A block mapped alone begins so far behind its mapping. Source: glibc, malloc/malloc.c, sysmalloc_mmap (to 2.42)."""


class Agreement(NamedTuple):
    """How much is the same: calls of brk (0 of 0 where the log shows none) and places of blocks."""

    brk_same: int
    brk_calls: int
    final_break_same: bool
    places_same: int
    places: int

    @property
    def share(self) -> float:
        """The smaller of the two shares."""
        shares = [
            same / count for same, count in ((self.brk_same, self.brk_calls), (self.places_same, self.places)) if count
        ]
        return min(shares, default=0.0)

    @property
    def is_enough(self) -> bool:
        """Whether the run can stand for what was recorded."""
        return self.share >= ENOUGH


def agreement(stream: Stream, answered: Int64Array, recorded_brks: Sequence[int], brks: Sequence[int]) -> Agreement:
    """Return how far a run agrees with its recording; `brks` are the moves of the break in bytes, 0 if refused."""
    gives = (stream.addresses != 0) & (stream.records["operation"] < FREE)
    same = _same_places(stream.addresses[gives].astype(np.int64), answered[gives].astype(np.int64))
    longer = max(len(recorded_brks), len(brks)) if len(recorded_brks) else 0
    return Agreement(
        brk_same=sum(one == other for one, other in zip(recorded_brks, brks, strict=False)),
        brk_calls=longer,
        final_break_same=sum(recorded_brks) == sum(brks),
        places_same=int(same.sum()),
        places=len(same),
    )


def _same_places(recorded: Int64Array, answered: Int64Array) -> Mask:
    """Tell which blocks have the same place in their heap: the heaps themselves lie elsewhere in each run.

    In the heap of the break, in that of a thread and in what is mapped beside them the distance between the two
    addresses is the same for all; a block mapped alone has the same place in its mapping.
    """
    heap = np.where(recorded < _MMAP_ZONE, 0, recorded // HEAP_MAX_SIZE)
    distance = answered - recorded
    known, back = np.unique(heap, return_inverse=True)
    usual = np.array([_most_frequent(distance[back == number]) for number in range(len(known))], np.int64)
    same: Mask = distance == usual[back] if len(known) else np.zeros(0, np.bool_)
    same &= (recorded >= _MMAP_ZONE) == (answered >= _MMAP_ZONE)
    alone = (recorded >= _MMAP_ZONE) & (answered >= _MMAP_ZONE)
    alone &= (recorded & 0xFFF == _CHUNK_HEADER) & (answered & 0xFFF == _CHUNK_HEADER)
    same |= alone
    return same


def _most_frequent(values: Int64Array) -> int:
    known, counts = np.unique(values, return_counts=True)
    return int(known[counts.argmax()])
