"""Records: what a class names is read and written by attribute in a row, and is a column of all rows."""

from __future__ import annotations

import numpy as np
import pytest

from replay.engine.columns import Int64Array
from replay.engine.records import columns_of, layout, numbers_of


class Leaf:
    size: int
    starts: Int64Array
    flags: int


class Branch(Leaf):
    height: int


LEAF = layout(Leaf, starts=3)


def test_what_is_written_to_a_row_stands_in_the_array() -> None:
    rows = np.zeros(2, LEAF)
    row = rows[1]
    row.size, row.flags = 7, 9
    row.starts[2] = 5
    assert numbers_of(rows).tolist() == [[0, 0, 0, 0, 0], [7, 0, 0, 5, 9]]
    assert (rows["size"].tolist(), rows[rows["size"] > 0][0].flags) == ([0, 7], 9)


def test_a_name_that_a_row_has_not_is_an_error() -> None:
    row = np.zeros(1, LEAF)[0]
    with pytest.raises(AttributeError):
        row.sise = 1
    with pytest.raises(IndexError):
        row.starts[3] = 1


def test_a_record_begins_with_the_numbers_of_the_one_that_it_adds_to() -> None:
    assert layout(Branch, starts=3).names == ("size", "starts", "flags", "height")


def test_rows_of_several_parts_become_columns() -> None:
    pair = layout(type("Pair", (), {"__annotations__": {"a": int, "b": int}}))
    parts = [np.array([(1, 2), (3, 4)], pair), np.array([(5, 6)], pair)]
    assert {name: column.tolist() for name, column in columns_of(*parts).items()} == {"a": [1, 3, 5], "b": [2, 4, 6]}
    numbers_of(parts[1])[0, 1] = 8
    assert parts[1][0].b == 8
