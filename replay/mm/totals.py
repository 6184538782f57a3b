"""What is known of a whole space after each operation: bytes, gaps, joined neighbours, and what lies above the break.

In go a space and the mapping that comes, goes or changes, out come the entries of `Space.totals`, kept up to date, and
from them a row of changes. Which operation changed a mapping is not known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NULL, Int64Array
from replay.mm.fields import (
    ABOVE_DATA_BYTES,
    ABOVE_END,
    ABOVE_FLAGS,
    ABOVE_KIND,
    ABOVE_MAPPED_AT,
    ABOVE_PATH,
    ABOVE_PROT,
    ABOVE_SHARED,
    ABOVE_START,
    BACKING,
    CHANGE_BRK_AFTER,
    CHANGE_BRK_BYTES,
    CHANGE_BYTES,
    CHANGE_DIVERGENCE,
    CHANGE_GAP_BYTES,
    CHANGE_GAPS,
    CHANGE_HEADROOM,
    CHANGE_LARGEST_GAP,
    CHANGE_MAPPINGS,
    FLAGS,
    KIND,
    MAP_GROWSDOWN,
    MAPPED_AT,
    OFFSET,
    PATH,
    PROT,
    PROT_WRITE,
    RECTANGLE_END,
    RECTANGLE_START,
    SHARED,
)
from replay.mm.space import (
    BRK,
    CHANGED,
    DATA_BYTES,
    DIVERGENCE,
    ENDS,
    FIRSTS,
    FREE_LEAVES,
    FREE_SLOTS,
    GAPS,
    JOINS,
    LARGEST,
    LARGEST_GAP,
    LAST_BRK_PLACE,
    LEAVES,
    LEAVES_USED,
    MAPPED_BYTES,
    MAPPINGS,
    ORDER,
    SIZES,
    SLOTS,
    START_BRK,
    STARTS,
    TO_COUNT,
    Space,
    count_up_to,
    live_rows,
    locate,
    neighbours,
    round_up,
    space_of_rows,
)


def joined(space: Space, leaf: int, index: int, next_leaf: int, next_index: int) -> int:
    """Return 1 if two neighbours are one line of /proc/PID/maps once equal neighbours are joined, else 0."""
    if space.leaves[leaf, ENDS, index] != space.leaves[next_leaf, STARTS, next_index]:
        return 0
    a = space.attributes[space.leaves[leaf, SLOTS, index]]
    b = space.attributes[space.leaves[next_leaf, SLOTS, next_index]]
    if a[PROT] != b[PROT] or a[SHARED] != b[SHARED] or a[BACKING] != b[BACKING]:
        return 0
    if a[OFFSET] == NULL or b[OFFSET] == NULL:
        return 1 if a[OFFSET] == b[OFFSET] else 0
    return 1 if b[OFFSET] == a[OFFSET] + space.leaves[leaf, ENDS, index] - space.leaves[leaf, STARTS, index] else 0


def count_mapping(space: Space, place: int, index: int, sign: int) -> None:
    """Add (`sign` 1) or take away (-1) a mapping at (place, index) and what it makes of the gap in which it lies."""
    leaf = space.lists[ORDER, place]
    start, end = space.leaves[leaf, STARTS, index], space.leaves[leaf, ENDS, index]
    before_leaf, before_index, after_leaf, after_index = neighbours(space, place, index)
    space.totals[MAPPINGS] += sign
    count_in_totals(space, place, index, sign)
    above = space.leaves[after_leaf, STARTS, after_index] - end if after_leaf >= 0 else 0
    if before_leaf >= 0:
        below = start - space.leaves[before_leaf, ENDS, before_index]
        whole = below + end - start + above if after_leaf >= 0 else 0
        change_gap(space, before_leaf, whole if sign > 0 else below, below if sign > 0 else whole)
    change_gap(space, leaf, 0 if sign > 0 else above, above if sign > 0 else 0)


def count_in_totals(space: Space, place: int, index: int, sign: int) -> None:
    """Add or take away the bytes of the mapping at (place, index), and whether it joins its neighbours."""
    totals = space.totals
    leaf = space.lists[ORDER, place]
    size = space.leaves[leaf, ENDS, index] - space.leaves[leaf, STARTS, index]
    attributes = space.attributes[space.leaves[leaf, SLOTS, index]]
    totals[MAPPED_BYTES] += sign * size
    if attributes[PROT] & PROT_WRITE and not attributes[SHARED] and not attributes[FLAGS] & MAP_GROWSDOWN:
        totals[DATA_BYTES] += sign * size
    before_leaf, before_index, after_leaf, after_index = neighbours(space, place, index)
    if before_leaf >= 0:
        totals[JOINS] += sign * joined(space, before_leaf, before_index, leaf, index)
    if after_leaf >= 0:
        totals[JOINS] += sign * joined(space, leaf, index, after_leaf, after_index)


def change_gap(space: Space, leaf: int, before: int, after: int) -> None:
    """Have a gap behind a mapping of `leaf` be `after` bytes long instead of `before`; 0 is none."""
    if before == after:
        return
    totals = space.totals
    totals[GAPS] += int(after > 0) - int(before > 0)
    largest = space.lists[LARGEST, leaf]
    if largest < 0:
        return
    if after >= largest:
        space.lists[LARGEST, leaf] = after
        totals[LARGEST_GAP] = max(totals[LARGEST_GAP], after)
    elif before == largest:
        mark_changed(space, leaf)


def mark_changed(space: Space, leaf: int) -> None:
    """Note that the gaps of `leaf` must be counted anew; what was counted last stays there as -2 - gap."""
    totals = space.totals
    if space.lists[LARGEST, leaf] >= 0:
        space.lists[LARGEST, leaf] = -2 - space.lists[LARGEST, leaf]
        space.lists[TO_COUNT, totals[CHANGED]] = leaf
        totals[CHANGED] += 1


def _largest_gap(space: Space) -> int:
    """Return the bytes of the largest gap between neighbouring mappings.

    Each leaf keeps the largest gap behind one of its mappings; only those that lost it count anew.
    """
    totals = space.totals
    largest = totals[LARGEST_GAP]
    shrunk = False
    for at in range(totals[CHANGED]):
        leaf = space.lists[TO_COUNT, at]
        before = -2 - space.lists[LARGEST, leaf]
        gap = _gap_of_leaf(space, leaf)
        space.lists[LARGEST, leaf] = gap
        shrunk |= before == largest and gap < before
        largest = max(largest, gap)
    totals[CHANGED] = 0
    if shrunk:
        # None is larger than the largest was: the search ends at the first that is as large.
        found, leaf = 0, 0
        while found < largest and leaf < totals[LEAVES_USED]:
            found = max(found, space.lists[LARGEST, leaf])
            leaf += 1
        largest = found
    totals[LARGEST_GAP] = largest
    return int(largest)


def _gap_of_leaf(space: Space, leaf: int) -> int:
    """Return the largest gap behind a mapping of `leaf`, the one to the next leaf included."""
    size = space.lists[SIZES, leaf]
    if size == 0:
        return 0
    gap = 0
    for index in range(1, size):
        gap = max(gap, space.leaves[leaf, STARTS, index] - space.leaves[leaf, ENDS, index - 1])
    leaves = space.totals[LEAVES]
    place = count_up_to(space.lists[FIRSTS], leaves, space.leaves[leaf, STARTS, 0]) - 1
    if place + 1 < leaves:
        gap = max(gap, space.lists[FIRSTS, place + 1] - space.leaves[leaf, ENDS, size - 1])
    return gap


def describe_above(space: Space, above_break: Int64Array, page: int) -> None:
    """Note the first mapping above the break as it is before a brk call."""
    above_break[ABOVE_START] = NULL
    above_break[ABOVE_DATA_BYTES] = space.totals[DATA_BYTES]
    before = space.totals[BRK]
    if before == NULL:
        return
    place, index = locate(space, round_up(before, page))
    if place == space.totals[LEAVES]:
        return
    leaf = space.lists[ORDER, place]
    slot = space.leaves[leaf, SLOTS, index]
    above_break[ABOVE_START] = space.leaves[leaf, STARTS, index]
    above_break[ABOVE_END] = space.leaves[leaf, ENDS, index]
    above_break[ABOVE_MAPPED_AT] = space.attributes[slot, MAPPED_AT]
    above_break[ABOVE_PROT] = space.attributes[slot, PROT]
    above_break[ABOVE_PATH] = space.attributes[slot, PATH]
    above_break[ABOVE_FLAGS] = space.attributes[slot, FLAGS]
    above_break[ABOVE_KIND] = space.attributes[slot, KIND]
    above_break[ABOVE_SHARED] = space.attributes[slot, SHARED]


def measure(space: Space, change: Int64Array, page: int) -> None:
    """Write the totals of `space` into one row of changes."""
    totals = space.totals
    leaves = totals[LEAVES]
    change[CHANGE_BYTES] = totals[MAPPED_BYTES]
    change[CHANGE_MAPPINGS] = totals[MAPPINGS] - totals[JOINS]
    change[CHANGE_GAPS] = totals[GAPS]
    change[CHANGE_GAP_BYTES] = 0
    change[CHANGE_LARGEST_GAP] = _largest_gap(space)
    change[CHANGE_DIVERGENCE] = totals[DIVERGENCE]
    change[CHANGE_BRK_AFTER] = totals[BRK]
    change[CHANGE_HEADROOM] = NULL
    change[CHANGE_BRK_BYTES] = 0
    if leaves > 0:
        last = space.lists[ORDER, leaves - 1]
        extent = space.leaves[last, ENDS, space.lists[SIZES, last] - 1] - space.lists[FIRSTS, 0]
        change[CHANGE_GAP_BYTES] = extent - totals[MAPPED_BYTES]
    if totals[BRK] == NULL:
        return
    top = round_up(totals[BRK], page)
    if totals[START_BRK] > 0:
        # A log that lost lines, an execve say, may tell of a break below the start that it told of.
        change[CHANGE_BRK_BYTES] = max(top - round_up(totals[START_BRK], page), 0)
    place, index = locate(space, top, LAST_BRK_PLACE)
    if place < leaves:
        change[CHANGE_HEADROOM] = max(space.leaves[space.lists[ORDER, place], STARTS, index] - top, 0)


def check(space: Space, page: int) -> None:
    """Assert the invariants: sorted, apart, page-aligned, and totals that equal a fresh count."""
    rows = live_rows(space)
    starts, ends = rows[:, RECTANGLE_START], rows[:, RECTANGLE_END]
    assert (starts < ends).all(), "a mapping is empty"
    assert (ends[:-1] <= starts[1:]).all(), "mappings overlap or are out of order"
    assert not (starts % page).any(), "a start is not page-aligned"
    assert not (ends % page).any(), "an end is not page-aligned"
    totals = space.totals
    assert totals[MAPPED_BYTES] == (ends - starts).sum(), "mapped bytes"
    fresh = space_of_rows(rows).totals
    for entry, name in ((GAPS, "gaps"), (JOINS, "joined neighbours"), (DATA_BYTES, "data bytes")):
        assert totals[entry] == fresh[entry], name
    assert _largest_gap(space) == max((starts[1:] - ends[:-1]).max(initial=0), 0), "largest gap"
    assert totals[LEAVES] + totals[FREE_LEAVES] == len(space.leaves), "a leaf was lost"
    assert totals[MAPPINGS] + totals[FREE_SLOTS] == len(space.attributes), "a slot was lost"


HELPERS: Final = (describe_above,)
"""What the compiled loop calls of this module."""

INLINED: Final = (joined, count_mapping, count_in_totals, change_gap, mark_changed, _largest_gap, _gap_of_leaf, measure)
"""What becomes part of its callers: called for every operation, some of it many times."""
