"""The size from which glibc maps a block by itself, as it stands at each call.

In go the mappings that may be such blocks and the calls that free them; out comes the threshold that glibc's rule gives
at each of them. Whether a mapping is a block is for `mappings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from replay.allocator.record import OK, Mask, Record
from replay.columns import NULL, Columns, Int64Array
from replay.constants import CALL_CODE
from replay.ordering import ascending_by

MMAP_THRESHOLD: Final = 131072
"""Bytes from which glibc maps a block by itself at first. Source: DEFAULT_MMAP_THRESHOLD_MIN in malloc/malloc.c."""

_THRESHOLD_MAX: Final = 32 << 20
_THRESHOLD_MAX_NARROW: Final = 512 << 10
"""Largest mapping whose free raises the threshold. Source: DEFAULT_MMAP_THRESHOLD_MAX, 4 MiB times sizeof(long)."""

_TOP_PAD: Final = 0x22000
"""Bytes that a growth of the break may have besides the request: top_pad of 128 KiB, the rest rounded up to pages."""

_LENGTH_BITS: Final = 40
"""Bits that keep a length beside the rank of its space in one key."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """For each candidate: the threshold then, whether it is freed whole later, and what the break says against it."""

    bytes: Int64Array
    freed_whole: Mask
    went_to_brk: Mask
    """The break was to grow for a request at least as large: one of this size does not come by mmap then."""


def follow_threshold(record: Record, steps: Int64Array, narrow: Mask) -> Thresholds:
    """Return the thresholds at the candidates `steps`, sorted; `narrow` tells for each space whether it is 32-bit.

    Source: __libc_free in malloc/malloc.c: the free of a mapped block of more than the threshold, and no more than the
    maximum, makes its size the threshold. mallopt and tunables fix it, which no strace log shows.
    """
    freed_steps, freed_lengths, freed_whole = _freed_blocks(record, steps)
    spaces = record.events["space"]
    highest = np.where(narrow[spaces[freed_steps]], _THRESHOLD_MAX_NARROW, _THRESHOLD_MAX)
    raises = (freed_lengths > MMAP_THRESHOLD) & (freed_lengths <= highest)
    raised = largest_before(spaces, freed_steps[raises], freed_lengths[raises], steps)
    length = record.page_up(record.at("length", steps))
    return Thresholds(
        np.maximum(raised, MMAP_THRESHOLD),
        freed_whole,
        _largest_growth(record, steps) - _TOP_PAD >= length,
    )


def largest_before(spaces: Int64Array, steps: Int64Array, values: Int64Array, at: Int64Array) -> Int64Array:
    """Return for each step of `at` the largest of `values` at an earlier one of `steps` in its space, 0 for none."""
    largest = np.zeros(len(at), dtype=np.int64)
    if not len(steps):
        return largest
    span = len(spaces) + 1
    keys = spaces[steps] * span + steps
    order = np.argsort(keys, kind="stable")
    keys, capped = keys[order], np.minimum(values[order], (1 << _LENGTH_BITS) - 1)
    # The space in the high bits keeps the running maximum of one space out of the next.
    running = np.maximum.accumulate((spaces[steps[order]] << _LENGTH_BITS) | capped)
    place = np.searchsorted(keys, spaces[at] * span + at) - 1
    found = place >= 0
    found[found] = spaces[steps[order[place[found]]]] == spaces[at[found]]
    largest[found] = running[place[found]] & ((1 << _LENGTH_BITS) - 1)
    return largest


def _freed_blocks(record: Record, steps: Int64Array) -> tuple[Int64Array, Int64Array, Mask]:
    """Return the munmaps that free a whole candidate, with their lengths, and which candidates are freed so.

    A candidate that mremap resized counts with its last place and length.
    """
    events = record.events
    done = events["status"] == OK
    moved = np.flatnonzero(record.is_call(["mremap"]) & done)
    taken = np.flatnonzero(record.is_call(["munmap"]) & done & (events["length"] > MMAP_THRESHOLD))
    given = steps[(record.at("status", steps) == OK) & (record.at("length", steps) > MMAP_THRESHOLD)]
    row = np.concatenate([given, moved, taken])
    address = np.concatenate([record.at("result", given), record.at("result", moved), record.at("addr", taken)])
    takes = np.zeros(len(row), dtype=np.bool_)
    takes[len(given) + len(moved) :] = True
    length = record.page_up(record.at("length", row))
    space = record.at("space", row)
    order = ascending_by(space, address, row)
    row, address, takes, length = row[order], address[order], takes[order], length[order]
    pairs = takes[1:] & ~takes[:-1] & (address[1:] == address[:-1]) & (length[1:] == length[:-1])
    space = space[order]
    pairs &= space[1:] == space[:-1]
    freed = np.flatnonzero(pairs) + 1
    whole = np.zeros(len(events["call"]), dtype=np.bool_)
    whole[row[freed - 1]] = True
    return row[freed], length[freed], whole[steps]


def treated_as_own(record: Record, steps: Int64Array) -> Mask:
    """Return which mappings the program protected or cut up afterwards: glibc does neither with a block (heuristic).

    A program that does so has an mmap use of its own, and its other mappings may be no blocks either.
    """
    events, regions = record.events, record.regions
    own = np.zeros(len(steps), dtype=np.bool_)
    # A table of all steps: its rows are near one another for regions that were made after one another.
    places = np.full(len(events["call"]) + 1, NULL, dtype=np.int64)
    places[steps] = np.arange(len(steps))
    place = places[np.maximum(regions["made_step"], -1)]
    row = np.flatnonzero((place != NULL) & (regions["path"] < 0))
    place = place[row]
    protected = regions["prot"][row] != events["prot"][steps[place]]
    own[place[protected]] = True
    died = regions["died_step"][row]
    row, place = row[died != NULL], place[died != NULL]
    died = died[died != NULL]
    unmapped = record.at("call", died) == CALL_CODE["munmap"]
    row, place, died = row[unmapped], place[unmapped], died[unmapped]
    start, end, low = regions["start"][row], regions["end"][row], record.at("addr", died)
    high = low + record.page_up(record.at("length", died))
    own[place[(low < end) & (high > start) & ((low != start) | (high != end))]] = True
    return own


def _largest_growth(record: Record, steps: Int64Array) -> Int64Array:
    """Return the bytes of the largest growth of the break asked for in the same space before each of `steps`."""
    brks: Columns = record.brks
    asked = (brks["before"] != NULL) & (brks["requested"] > brks["before"])
    growth = brks["requested"][asked] - brks["before"][asked]
    return largest_before(record.events["space"], brks["step"][asked], growth, steps)
