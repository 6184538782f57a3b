"""Peaks over changes that are kept in parts, and the helpers that find rows in sorted columns."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay.engine.column_store import PackedColumns, Shelf
from replay.engine.columns import NULL
from replay.engine.sorting import is_among, take_groups
from replay.spaces.footprint import Footprint

NAMES = ("space", "mapped_bytes", "brk_bytes", "mapping_count", "headroom_bytes", "gap_count", "largest_gap_bytes")


def changes_of(*parts: list[tuple[int, ...]]) -> PackedColumns:
    changes = PackedColumns(Shelf(), NAMES)
    for rows in parts:
        columns = np.array(rows, dtype=np.int64).reshape(-1, len(NAMES)).T
        changes.append(dict(zip(NAMES, columns, strict=True)))
    return changes


def test_the_first_peak_of_all_parts_and_the_last_change_of_its_space() -> None:
    changes = changes_of(
        [(0, 10, 5, 3, NULL, 0, 7), (1, 30, 6, 2, 90, 1, 50)],
        [],
        [(1, 30, 8, 1, 80, 1, 40), (0, 20, 1, 9, NULL, 0, 1)],
    )
    found = Footprint.of(changes, 3)
    assert (found.peak, found.last) == (1, 2)
    assert (found.most_mapped.tolist(), found.most_brk.tolist()) == ([20, 30, 0], [5, 8, 0])
    assert (found.mapping_count, found.least_headroom, found.least_largest_gap) == (9, 80, 40)


def test_a_run_without_changes_has_no_peak() -> None:
    found = Footprint.of(changes_of(), 1)
    assert (found.peak, found.last, found.least_headroom, found.most_mapped.tolist()) == (None, None, None, [0])


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_what_is_among_sorted_numbers(values: list[int], those: list[int]) -> None:
    found = is_among(np.array(values, np.int64), np.array(sorted(those), np.int64))
    assert found.tolist() == [value in those for value in values]


def test_groups_have_their_first_rows() -> None:
    firsts, group = take_groups([np.array([2, 1, 2, 1]), np.array([5, 6, 5, 7])])
    assert firsts.tolist() == [1, 3, 0]
    assert group.tolist() == [2, 0, 2, 1]
