"""The size from which glibc maps a block by itself, as it stands at each call.

In go the mappings that may be such blocks and the calls that free them; out comes the threshold that glibc's rule gives
at each of them. Whether a mapping is a block is for `mmaps`.
"""

from __future__ import annotations

from functools import reduce
from typing import Final, NamedTuple

import numpy as np

from replay.allocator.kinds import Candidates
from replay.allocator.replayed import Replayed
from replay.calls.table import OK
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending_by, distinct
from replay.engine.structs import Value
from replay.linux.glibc import MMAP_THRESHOLD, THRESHOLD_MAX, THRESHOLD_MAX_NARROW

_FIRST_LOOK: Final = 512
_LOOKS_MORE: Final = 16
"""How many munmaps are looked at first, and how many times as many next, for those that raise the threshold."""

_NOWHERE: Final = -1
"""The address of mappings that are not looked at: no mapping has it."""

_LENGTH_BITS: Final = 40
"""Bits that keep a length beside the rank of its space in one key."""


class Thresholds(Value):
    """For each block mapped by itself: the threshold then, in bytes, and whether it is freed whole later."""

    bytes: Int64Array
    freed_whole: Mask


class _Operations(NamedTuple):
    """Calls that succeeded: step, space, address and length in whole pages."""

    step: Int64Array
    space: Int64Array
    address: Int64Array
    length: Int64Array

    @classmethod
    def of(cls, record: Replayed, name: str, address: str, least: int) -> _Operations:
        """Return the calls of a name that succeeded with `least` bytes or more; `address` names a column."""
        found = [(np.zeros(0, dtype=np.int64),) * 4]
        for some, part in record.parts_of(name, ("status", "length", "space", address)):
            rows = np.flatnonzero((part["status"] == OK) & (part["length"] >= least))
            found.append((some[rows], part["space"][rows], part[address][rows], record.page_up(part["length"][rows])))
        return cls(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def at(self, addresses: Int64Array, until: int) -> _Operations:
        """Return those at some addresses, which ascend, up to step `until`; they themselves stand in order of steps."""
        count = int(np.searchsorted(self.step, until, side="right"))
        address = self.address[:count]
        place = np.minimum(np.searchsorted(addresses, address), len(addresses) - 1)
        return self.take(np.flatnonzero(addresses[place] == address))

    def take(self, rows: Int64Array) -> _Operations:
        """Return some of them."""
        return _Operations(self.step[rows], self.space[rows], self.address[rows], self.length[rows])

    def joined(self, other: _Operations) -> _Operations:
        """Return these and others behind them."""
        return _Operations(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self._fields))


class LargeMappings:
    """The mappings larger than the threshold at first, and the munmaps that free one whole.

    One that mremap resized counts with its last place and length.
    """

    def __init__(self, record: Replayed, candidates: Candidates, narrow: Mask) -> None:
        """Look at mmaps that may be blocks; `narrow` tells for each space whether it is 32-bit."""
        self._record = record
        self._highest = np.where(narrow, THRESHOLD_MAX_NARROW, THRESHOLD_MAX)
        address = np.where(candidates.large, record.at("result", candidates.step), _NOWHERE)
        self._operations = (
            _Operations(candidates.step, candidates.space, address, candidates.length),
            _Operations.of(record, "mremap", "result", NULL),
            _Operations.of(record, "munmap", "addr", MMAP_THRESHOLD + 1),
        )

    def _frees(self, addresses: Int64Array, until: int) -> tuple[_Operations, Int64Array]:
        """Return the frees of whole mappings at some addresses, and the steps that gave these their place."""
        addresses = distinct(addresses)
        mapped, moved, taken = (operations.at(addresses, until) for operations in self._operations)
        every = mapped.joined(moved).joined(taken)
        order = ascending_by(every.space, every.address, every.step)
        takes, every = order >= len(order) - len(taken.step), every.take(order)
        pairs = takes[1:] & ~takes[:-1]
        for column in (every.length, every.address, every.space):
            pairs &= column[1:] == column[:-1]
        freed = np.flatnonzero(pairs) + 1
        return every.take(freed), every.step[freed - 1]

    def freed_whole(self, steps: Int64Array) -> Mask:
        """Return which mappings, made by `steps`, a munmap frees whole."""
        whole = np.zeros(self._record.events.rows, dtype=np.bool_)
        if len(steps):
            whole[self._frees(self._record.at("result", steps), self._record.events.rows)[1]] = True
        return whole[steps]

    def threshold(self, spaces: Int64Array, steps: Int64Array) -> Int64Array:
        """Return the threshold in bytes in each space at each step.

        Source: __libc_free in malloc/malloc.c: the free of a mapped block of more than the threshold, and no more than
        the maximum, makes its size the threshold. mallopt and tunables fix it, which no strace log shows.
        """
        raises = self._raises()
        raised = largest_before((raises.space, raises.step, raises.length), (spaces, steps), self._record.events.rows)
        return np.maximum(raised, MMAP_THRESHOLD)

    def _raises(self) -> _Operations:
        """Return the frees that raise the threshold, and some that do not, as they are no larger than earlier ones.

        Only a munmap of more than was freed before is worth a look at what it frees.
        """
        taken = self._operations[-1]
        found = [taken.take(np.zeros(0, dtype=np.int64))]
        left = np.flatnonzero((taken.length > MMAP_THRESHOLD) & (taken.length <= self._highest[taken.space]))
        threshold, count = np.full(len(self._highest), MMAP_THRESHOLD), _FIRST_LOOK
        while len(left):
            some, left, count = left[:count], left[count:], count * _LOOKS_MORE
            frees, _ = self._frees(taken.address[some], int(taken.step[some[-1]]))
            frees = frees.take(np.flatnonzero(frees.length <= self._highest[frees.space]))
            found.append(frees)
            np.maximum.at(threshold, frees.space, frees.length)
            left = left[taken.length[left] > threshold[taken.space[left]]]
        return reduce(_Operations.joined, found)


def largest_growth(record: Replayed, spaces: Int64Array, steps: Int64Array) -> Int64Array:
    """Return the bytes of the largest growth of the break asked for in each space before each step."""
    brks: Columns = record.brks
    before, requested = brks["before"], brks["requested"]
    asked = np.flatnonzero((before != NULL) & (requested > before))
    changes = brks["space"][asked], brks["step"][asked], requested[asked] - before[asked]
    return largest_before(changes, (spaces, steps), record.events.rows)


def largest_before(
    changes: tuple[Int64Array, Int64Array, Int64Array], at: tuple[Int64Array, Int64Array], count: int
) -> Int64Array:
    """Return for each space and step of `at` the largest value at an earlier step of the space, 0 for none.

    `changes` are spaces, steps and values; there are `count` steps.
    """
    largest = np.zeros(len(at[0]), dtype=np.int64)
    if not len(changes[0]):
        return largest
    order = ascending_by(*changes[:2])
    space, step, value = (column[order] for column in changes)
    # The space in the high bits keeps the running maximum of one space out of the next.
    running = np.maximum.accumulate((space << _LENGTH_BITS) | np.minimum(value, (1 << _LENGTH_BITS) - 1))
    rises = np.append(True, running[1:] > running[:-1])
    keys, running = (space * (count + 1) + step)[rises], running[rises]
    place = np.searchsorted(keys, at[0] * (count + 1) + at[1]) - 1
    found = np.flatnonzero(place >= 0)
    reached = running[place[found]]
    same = reached >> _LENGTH_BITS == at[0][found]
    largest[found[same]] = reached[same] & ((1 << _LENGTH_BITS) - 1)
    return largest
