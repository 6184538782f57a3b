"""What is known of a whole space after each operation: bytes, gaps, joined neighbours, and what lies above the break.

In go a space and the mapping that comes, goes or changes, out come the totals in `Space.state`, kept up to date, and
from them a change. Which operation changed a mapping is not known here.
"""

from __future__ import annotations

from typing import Final

from replay.engine.columns import NULL
from replay.mm.fields import MAP_GROWSDOWN, PROT_WRITE, AboveBreak, Change
from replay.mm.space import (
    Space,
    count_up_to,
    find_from,
    find_vma,
    leaf_at,
    live_rows,
    mapping_at,
    neighbours,
    page_align,
    place_of,
    space_of_rows,
)


def joined(space: Space, leaf: int, index: int, next_leaf: int, next_index: int) -> int:
    """Return 1 if two neighbours are one line of /proc/PID/maps once equal neighbours are joined, else 0."""
    this, other = space.leaves[leaf], space.leaves[next_leaf]
    if this.ends[index] != other.starts[next_index]:
        return 0
    a, b = space.mappings[this.slots[index]], space.mappings[other.slots[next_index]]
    if a.prot != b.prot or a.shared != b.shared or a.backing != b.backing:
        return 0
    if NULL in (a.offset, b.offset):
        return 1 if a.offset == b.offset else 0
    return 1 if b.offset == a.offset + this.ends[index] - this.starts[index] else 0


def count_mapping(space: Space, place: int, index: int, sign: int) -> None:
    """Add (`sign` 1) or take away (-1) a mapping at (place, index) and what it makes of the gap in which it lies."""
    leaf = leaf_at(space, place)
    start, end = leaf.starts[index], leaf.ends[index]
    before_leaf, before_index, after_leaf, after_index = neighbours(space, place, index)
    space.state.mappings += sign
    count_in_totals(space, place, index, sign)
    above = space.leaves[after_leaf].starts[after_index] - end if after_leaf >= 0 else 0
    if before_leaf >= 0:
        below = start - space.leaves[before_leaf].ends[before_index]
        whole = below + end - start + above if after_leaf >= 0 else 0
        change_gap(space, before_leaf, whole if sign > 0 else below, below if sign > 0 else whole)
    change_gap(space, space.order[place], 0 if sign > 0 else above, above if sign > 0 else 0)


def count_in_totals(space: Space, place: int, index: int, sign: int) -> None:
    """Add or take away the bytes of the mapping at (place, index), and whether it joins its neighbours."""
    state, leaf, mapping = space.state, leaf_at(space, place), mapping_at(space, place, index)
    size = leaf.ends[index] - leaf.starts[index]
    state.mapped_bytes += sign * size
    if mapping.prot & PROT_WRITE and not mapping.shared and not mapping.flags & MAP_GROWSDOWN:
        state.data_bytes += sign * size
    before_leaf, before_index, after_leaf, after_index = neighbours(space, place, index)
    if before_leaf >= 0:
        state.joins += sign * joined(space, before_leaf, before_index, space.order[place], index)
    if after_leaf >= 0:
        state.joins += sign * joined(space, space.order[place], index, after_leaf, after_index)


def change_gap(space: Space, leaf: int, before: int, after: int) -> None:
    """Have a gap behind a mapping of `leaf` be `after` bytes long instead of `before`; 0 is none."""
    if before == after:
        return
    state = space.state
    state.gaps += int(after > 0) - int(before > 0)
    largest = space.largest[leaf]
    if largest < 0:
        return
    if after >= largest:
        space.largest[leaf] = after
        state.largest_gap = max(state.largest_gap, after)
    elif before == largest:
        mark_changed(space, leaf)


def mark_changed(space: Space, leaf: int) -> None:
    """Note that the gaps of `leaf` must be counted anew; what was counted last stays there as -2 - gap."""
    state = space.state
    if space.largest[leaf] >= 0:
        space.largest[leaf] = -2 - space.largest[leaf]
        space.to_count[state.changed] = leaf
        state.changed += 1


def _largest_gap(space: Space) -> int:
    """Return the bytes of the largest gap between neighbouring mappings.

    Each leaf keeps the largest gap behind one of its mappings; only those that lost it count anew.
    """
    state = space.state
    largest = state.largest_gap
    shrunk = False
    for at in range(state.changed):
        leaf = space.to_count[at]
        before = -2 - space.largest[leaf]
        gap = _gap_of_leaf(space, leaf)
        space.largest[leaf] = gap
        shrunk |= before == largest and gap < before
        largest = max(largest, gap)
    state.changed = 0
    if shrunk:
        # None is larger than the largest was: the search ends at the first that is as large.
        found, leaf = 0, 0
        while found < largest and leaf < state.leaves_used:
            found = max(found, space.largest[leaf])
            leaf += 1
        largest = found
    state.largest_gap = largest
    return largest


def _gap_of_leaf(space: Space, number: int) -> int:
    """Return the largest gap behind a mapping of the leaf of that number, the one to the next leaf included."""
    leaf, firsts, leaves = space.leaves[number], space.firsts, space.state.leaves
    if leaf.size == 0:
        return 0
    gap = 0
    for index in range(1, leaf.size):
        gap = max(gap, leaf.starts[index] - leaf.ends[index - 1])
    place = count_up_to(firsts, leaves, leaf.starts[0]) - 1
    if place + 1 < leaves:
        gap = max(gap, firsts[place + 1] - leaf.ends[leaf.size - 1])
    return gap


def describe_above(space: Space, above: AboveBreak, page: int) -> None:
    """Note the first mapping above the break as it is before a brk call."""
    above.start = NULL
    above.data_bytes = space.state.data_bytes
    if space.state.brk == NULL:
        return
    place, index = find_vma(space, page_align(space.state.brk, page))
    if place == space.state.leaves:
        return
    leaf, mapping = leaf_at(space, place), mapping_at(space, place, index)
    above.start = leaf.starts[index]
    above.end = leaf.ends[index]
    above.line = mapping.made_line
    above.prot = mapping.prot
    above.path = mapping.path
    above.flags = mapping.flags
    above.kind = mapping.kind
    above.shared = mapping.shared


def measure(space: Space, change: Change, page: int) -> None:
    """Write what an operation left of a space into its change."""
    state = space.state
    change.mapped_bytes = state.mapped_bytes
    change.mapping_count = state.mappings - state.joins
    change.gap_count = state.gaps
    change.gap_bytes = 0
    change.largest_gap_bytes = _largest_gap(space)
    change.divergence = state.divergence
    change.brk_after = state.brk
    change.headroom_bytes = NULL
    change.brk_bytes = 0
    if state.leaves > 0:
        last = leaf_at(space, state.leaves - 1)
        change.gap_bytes = last.ends[last.size - 1] - space.firsts[0] - state.mapped_bytes
    if state.brk == NULL:
        return
    top = page_align(state.brk, page)
    if state.start_brk > 0:
        # A log that lost lines, an execve say, may tell of a break below the start that it told of.
        change.brk_bytes = max(top - page_align(state.start_brk, page), 0)
    if state.leaves == 0:
        return
    state.last_brk_place = place_of(space, top, state.last_brk_place)
    place, index = find_from(space, state.last_brk_place, top)
    if place < state.leaves:
        change.headroom_bytes = max(leaf_at(space, place).starts[index] - top, 0)


def check(space: Space, page: int) -> None:
    """Assert the invariants: sorted, apart, page-aligned, and totals that equal a fresh count."""
    rows, state = live_rows(space), space.state
    starts, ends = rows["start"], rows["end"]
    assert (starts < ends).all(), "a mapping is empty"
    assert (ends[:-1] <= starts[1:]).all(), "mappings overlap or are out of order"
    assert not (starts % page).any(), "a start is not page-aligned"
    assert not (ends % page).any(), "an end is not page-aligned"
    assert state.mapped_bytes == (ends - starts).sum(), "mapped bytes"
    fresh = space_of_rows(rows).state
    assert state.gaps == fresh.gaps, "gaps"
    assert state.joins == fresh.joins, "joined neighbours"
    assert state.data_bytes == fresh.data_bytes, "data bytes"
    assert _largest_gap(space) == max((starts[1:] - ends[:-1]).max(initial=0), 0), "largest gap"
    assert state.leaves + state.free_leaves == len(space.leaves), "a leaf was lost"
    assert state.mappings + state.free_slots == len(space.mappings), "a slot was lost"


HELPERS: Final = (describe_above,)
"""What the compiled loop calls of this module."""

INLINED: Final = (joined, count_mapping, count_in_totals, change_gap, mark_changed, _largest_gap, _gap_of_leaf, measure)
"""What becomes part of its callers: called for every operation, some of it many times."""
