"""Mappings that a program treats as its own: it protects them or cuts them up, as no malloc does with a block.

In go the steps that made readable and writable mappings, out comes which of these were treated so later (heuristic).
A program that does so has an mmap use of its own, and its other mappings may be no blocks either.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np

from replay.allocator.replayed import Replayed
from replay.engine.columns import NULL, Int64Array, Mask
from replay.engine.sorting import ascending
from replay.engine.structs import Value
from replay.linux.constants import CALL_CODE

READ_WRITE: Final = 3
"""The protection of memory that an allocator hands out. Source: PROT_READ | PROT_WRITE, asm-generic/mman-common.h."""


class Unmapped(Value):
    """For each step, whether a munmap took away the mapping that it made (`taken`), and whether not as it was."""

    taken: Mask
    cut: Mask


class ProgramMappings:
    """Which mappings the program protected or cut up after it had made them."""

    def __init__(self, record: Replayed) -> None:
        """Look nothing up yet."""
        self._record = record

    @cached_property
    def _protected(self) -> Mask:
        """Return for each step whether the mapping that it made was, in a part of it, protected otherwise later."""
        regions = self._record.regions
        # A table of all steps: its rows are near one another for regions that were made after one another.
        protected = np.zeros(self._record.events.rows, dtype=np.bool_)
        for number in range(regions.parts):
            part = regions.part(number, ("prot", "path", "made_step"))
            made = part["made_step"][(part["prot"] != READ_WRITE) & (part["path"] < 0)]
            protected[made[made >= 0]] = True
        return protected

    def protected(self, steps: Int64Array) -> Mask:
        """Return of which mappings, made by `steps`, a part was protected otherwise later."""
        return self._protected[steps]

    def cut_up(self, steps: Int64Array) -> Mask:
        """Return which mappings, made by `steps`, a munmap took away only in part, or together with others."""
        return self._unmapped.cut[steps]

    def freed_whole(self, steps: Int64Array) -> Mask:
        """Return which mappings, made by `steps`, a munmap took away as they were."""
        return self._unmapped.taken[steps] & ~self._unmapped.cut[steps]

    @cached_property
    def _unmapped(self) -> Unmapped:
        """Return for each step whether a munmap took away the mapping that it made, and whether not as it was."""
        record, regions = self._record, self._record.regions
        taken, cut = (np.zeros(record.events.rows, dtype=np.bool_) for _ in range(2))
        for number in range(regions.parts):
            part = regions.part(number, ("made_step", "path", "died_step", "start", "end"))
            rows = np.flatnonzero((part["made_step"] >= 0) & (part["path"] < 0) & (part["died_step"] != NULL))
            rows = rows[ascending(part["died_step"][rows])]
            rows = rows[record.at("call", part["died_step"][rows]) == CALL_CODE["munmap"]]
            made, died, start, end = (part[name][rows] for name in ("made_step", "died_step", "start", "end"))
            low = record.at("addr", died)
            high = low + record.page_up(record.at("length", died))
            over = (low < end) & (high > start)
            taken[made[over]] = True
            cut[made[over & ((low != start) | (high != end))]] = True
        return Unmapped(taken, cut)

    def of(self, steps: Int64Array) -> Mask:
        """Return of which mappings, made by `steps`, a program makes a use of its own: glibc does so with no block."""
        return self.protected(steps) | self.cut_up(steps)
