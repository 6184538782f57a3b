"""Long runs are replayed window by window and kept packed: how long windows and parts are changes nothing."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import captures

import replay
from replay.calls import file_sets as filesets
from replay.calls import windows as recording
from replay.engine import column_store as packed
from replay.engine.column_store import PackedColumns, Shelf, SortedColumns, packed_columns
from replay.engine.columns import NULL
from replay.engine.prefetch import THREAD_NAME
from replay.errors import ReplayError
from replay.spaces.results import ReplayColumns
from replay.tables import TABLES

CAPTURES = {name: capture for name, capture in captures().items() if not name.startswith("heavy/")}


def tables_of(logs: list[Path]) -> dict[str, list[dict[str, object]]]:
    run = replay.load(logs)
    return {name: run.arrow(name).to_pylist() for name in TABLES}


@pytest.fixture
def tiny_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let windows hold three to five calls, parts of columns six rows, and those of a set's files two."""
    monkeypatch.setattr(recording, "LEAST_ROWS", 3)
    monkeypatch.setattr(recording, "MOST_ROWS", 5)
    monkeypatch.setattr(packed, "PART_ROWS", 6)
    monkeypatch.setattr(filesets, "PART_ROWS", 2)
    monkeypatch.setattr(filesets, "WINDOW_ROWS", 3)


@pytest.mark.skipif(not CAPTURES, reason="no captures")
@pytest.mark.parametrize("name", CAPTURES)
def test_windows_of_any_length_give_the_same_tables(name: str, request: pytest.FixtureRequest) -> None:
    whole = tables_of(list(CAPTURES[name].logs))
    request.getfixturevalue("tiny_windows")
    assert tables_of(list(CAPTURES[name].logs)) == whole


SPLIT = """\
10 execve("./prog", ["./prog"], 0x7ffc00000000 /* 2 vars */) = 0
10 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
10 munmap(0x7f0000000000, 8192 <unfinished ...>
11 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
11 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000009000
11 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000019000
11 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000029000
11 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000039000
10 <... munmap resumed>) = 0
"""


@pytest.mark.usefixtures("tiny_windows")
def test_memory_is_taken_where_the_call_starts_though_it_ends_windows_later(tmp_path: Path) -> None:
    log = tmp_path / "split.log"
    log.write_text(SPLIT)
    regions = replay.load(log).regions
    taken = regions[regions["born_line"] == 2]
    assert taken[["start", "died_line", "died_step"]].to_numpy().tolist() == [[0x7F0000000000, 3, 2]]
    assert (regions["died_line"].isna()).sum() == 5


numbers = st.one_of(st.just(NULL), st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 300))
tables = st.lists(st.tuples(numbers, st.integers(0, 9)), min_size=1, max_size=40)


@given(st.lists(tables, min_size=1, max_size=4), st.sampled_from([0, 60, 1 << 20]), st.sampled_from([0, 300, 1 << 20]))
def test_what_was_packed_comes_out_again(parts: list[list[tuple[int, int]]], held: int, whole: int) -> None:
    """Whether all of it is held in memory, some of it or nothing, and whether all, some or nothing is packed."""
    kept = PackedColumns(Shelf(held, whole), ("a", "b"))
    assert kept.at("a", np.zeros(0, np.int64)).tolist() == []
    for part in parts:
        a, b = np.array(part, np.int64).T.copy()
        kept.append({"a": a, "b": b})
        a[:], b[:] = 7, 7  # what is kept is not what was given
    rows = [row for part in parts for row in part]
    assert list(zip(kept["a"].tolist(), kept["b"].tolist(), strict=True)) == rows
    assert kept.part(len(parts) - 1, ["a"])["a"].tolist() == [a for a, _ in parts[-1]]
    for places in (range(0, len(rows), 2), range(len(rows) - 1, -1, -1), []):
        assert kept.at("b", np.array(places, np.int64)).tolist() == [rows[place][1] for place in places]
    assert [kept.one("a", row) for row in range(len(rows))] == [a for a, _ in rows]
    assert kept.rows == len(rows)
    for row in (-1, len(rows)):
        with pytest.raises(IndexError):
            kept.at("b", np.array([row]))


@pytest.mark.parametrize("column", [[7, 7, 7], [1, NULL, 300], [NULL, NULL, NULL], [-(1 << 40), 1 << 40, 0], []])
@pytest.mark.parametrize("part_rows", [1, 2, 9])
def test_columns_kept_one_by_one(column: list[int], part_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "PART_ROWS", part_rows)
    kept = packed_columns(Shelf(), [("a", np.array(column, np.int64)), ("b", np.arange(len(column)))])
    other = PackedColumns(kept.shelf)
    other.keep_of(kept, "a")
    other.keep("c", -np.arange(len(column)))
    assert kept["a"].tolist() == other["a"].tolist() == column
    assert [kept.rows, other.rows, list(other)] == [len(column), len(column), ["a", "c"]]
    assert other.at("c", np.arange(len(column))[::2]).tolist() == [-row for row in range(len(column))][::2]
    with pytest.raises(ValueError, match="the columns before it"):
        kept.keep("c", np.arange(len(column) + 1))


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=4), st.integers(-1, 10))
def test_rows_up_to_a_value_are_counted(parts: list[list[int]], value: int) -> None:
    column = sorted(number for part in parts for number in part)
    kept = PackedColumns(Shelf(), ("a",))
    for part in parts:
        kept.append({"a": np.array(column[kept.rows : kept.rows + len(part)], np.int64)})
    assert kept.count_up_to("a", value) == sum(number <= value for number in column)


@given(tables)
def test_sorted_columns_keep_the_places_of_equal_rows(rows: list[tuple[int, int]]) -> None:
    a, b = np.array(rows, np.int64).T.copy()
    ordered = SortedColumns(packed_columns(Shelf(), [("a", a), ("b", b)]), ["b"])
    expected = sorted(rows, key=lambda row: row[1])
    for columns in (ordered, ordered.packed()):
        assert list(zip(columns["a"].tolist(), columns["b"].tolist(), strict=True)) == expected


def test_a_full_temporary_directory_is_an_error_that_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    shelf = Shelf(held_bytes=0)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ReplayError, match=rf"{tempfile.gettempdir()}: cannot be written: No space left on device"):
        shelf.put(np.array([1, 1 << 60]))


@pytest.mark.usefixtures("tiny_windows")
def test_an_error_between_windows_leaves_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ReplayError("full")

    monkeypatch.setattr(ReplayColumns, "keep_changes", full)
    (tmp_path / "split.log").write_text(SPLIT)
    with pytest.raises(ReplayError, match="full"):
        replay.load(tmp_path / "split.log")
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)] == []


def test_columns_cannot_be_written_to() -> None:
    kept = packed_columns(Shelf(), [("a", np.arange(3))])
    with pytest.raises(ValueError, match="read-only"):
        kept["a"][0] = 7
