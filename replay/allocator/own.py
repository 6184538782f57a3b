"""Mappings that a program treats as its own: it protects them or cuts them up, as no malloc does with a block.

In go the steps that made readable and writable mappings, out comes which of these were treated so later (heuristic).
A program that does so has an mmap use of its own, and its other mappings may be no blocks either.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np

from replay.allocator.record import Mask, Record
from replay.columns import NULL, Int64Array
from replay.constants import CALL_CODE
from replay.ordering import ascending

READ_WRITE: Final = 3
"""The protection of memory that an allocator hands out. Source: PROT_READ | PROT_WRITE, asm-generic/mman-common.h."""


class OwnUse:
    """Which mappings the program protected or cut up after it had made them, and which address spaces have such."""

    def __init__(self, record: Record) -> None:
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

    def of(self, steps: Int64Array) -> Mask:
        """Return of which mappings, made by `steps`, a program makes a use of its own: glibc does so with no block."""
        return self._protected[steps] | _cut_up(self._record, steps)

    def spaces(self, steps: Int64Array, spaces: Int64Array) -> Mask:
        """Return for each address space whether one of the mappings that `steps` made in `spaces` is of such use."""
        found = np.zeros(self._record.space_count, dtype=np.bool_)
        found[spaces[self._protected[steps]]] = True
        left = ~found[spaces]
        steps, spaces = steps[left], spaces[left]
        found[spaces[_cut_up(self._record, steps)]] = True
        return found


def _cut_up(record: Record, steps: Int64Array) -> Mask:
    """Return which mappings a munmap took away only in part, or together with others."""
    regions, rows = record.regions, _died(record, steps)
    made, died, start, end = (regions.at(name, rows) for name in ("made_step", "died_step", "start", "end"))
    order = ascending(died)
    made, died, start, end = made[order], died[order], start[order], end[order]
    unmapped = record.at("call", died) == CALL_CODE["munmap"]
    made, died, start, end = made[unmapped], died[unmapped], start[unmapped], end[unmapped]
    low = record.at("addr", died)
    high = low + record.page_up(record.at("length", died))
    cut = np.zeros(record.events.rows, dtype=np.bool_)
    cut[made[(low < end) & (high > start) & ((low != start) | (high != end))]] = True
    return cut[steps]


def _died(record: Record, steps: Int64Array) -> Int64Array:
    """Return the regions without a file that are made by one of the steps and came to an end."""
    regions, found = record.regions, [np.zeros(0, dtype=np.int64)]
    wanted = np.zeros(record.events.rows + 1, dtype=np.bool_)  # the last place is for regions that no step made
    wanted[steps] = True
    for number in range(regions.parts if len(steps) else 0):
        part = regions.part(number, ("made_step", "path", "died_step"))
        chosen = wanted[np.maximum(part["made_step"], -1)] & (part["path"] < 0) & (part["died_step"] != NULL)
        found.append(np.flatnonzero(chosen) + regions.starts[number])
    return np.concatenate(found)
