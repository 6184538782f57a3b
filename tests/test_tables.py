"""The tables are exactly what users were promised, and their files appear whole or not at all."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from replay import tables
from replay.engine.columns import NULL, Strings, to_signed
from replay.errors import OutputExistsError, QueryError, ReplayError
from replay.tables import Words, arrow_schema, to_arrow, to_pandas
from replay.tables.temporary import temporary_in

PROMISED = {
    "events": """
        step int64 | line int64 | entry_line int64 | file dictionary? | dialect dictionary | pid int32? | space int32
        time_ns int64? | duration_ns int64? | call dictionary | name dictionary | addr uint64? | length uint64?
        old_length uint64? | prot dictionary? | flags dictionary? | fd int32? | path dictionary? | offset int64?
        result uint64? | errno dictionary? | status dictionary | parent_step int64? | caller dictionary?
        time timestamp_ns? | elapsed_ns int64?
    """,
    "regions": """
        space int32 | start uint64 | end uint64 | perms dictionary | kind dictionary | path dictionary?
        offset int64? | origin dictionary | born_step int64 | died_step int64? | born_line int64? | died_line int64?
        owner dictionary | size_bytes int64 | born_time_ns int64? | died_time_ns int64?
    """,
    "blocks": """
        space int32 | addr uint64 | size uint64 | call dictionary | pid int32? | caller dictionary?
        born_step int64 | died_step int64? | born_line int64 | died_line int64? | backing dictionary | end dictionary
        born_time_ns int64? | died_time_ns int64?
    """,
    "brk_failures": """
        step int64 | line int64 | pid int32? | space int32 | time_ns int64? | requested uint64 | granted uint64
        shortfall_bytes int64 | cause dictionary | blocker_start uint64? | blocker_end uint64?
        blocker_path dictionary? | blocker_line int64? | limit_bytes int64? | evidence string
        time timestamp_ns? | elapsed_ns int64? | blocker dictionary | blocker_born_step int64?
        shortfall_capped_bytes int64
    """,
    "allocator_mmaps": """
        step int64 | line int64 | pid int32? | space int32 | time_ns int64? | kind dictionary | addr uint64?
        bytes int64 | errno dictionary? | brk_failure_step int64? | request_bytes int64? | allocator dictionary
        certainty dictionary | evidence string | time timestamp_ns? | elapsed_ns int64?
    """,
    "mmap_fallbacks": """
        step int64 | line int64 | pid int32? | space int32 | time_ns int64? | kind dictionary | addr uint64?
        bytes int64 | errno dictionary? | brk_failure_step int64? | request_bytes int64? | allocator dictionary
        certainty dictionary | evidence string | time timestamp_ns? | elapsed_ns int64?
    """,
    "fragmentation": """
        step int64 | line int64 | time_ns int64? | space int32 | mapped_bytes int64 | mapping_count int64
        brk_bytes int64 | headroom_bytes int64? | gap_count int64 | gap_bytes int64 | largest_gap_bytes int64
        address_fragmentation float64 | live_blocks int64? | live_bytes int64? | heap_bytes int64?
        free_bytes int64? | largest_free_bytes int64? | heap_fragmentation float64? | pinned_bytes int64?
        unseen_bytes int64?
        time timestamp_ns? | elapsed_ns int64?
    """,
    "timeline": """
        space int32 | bucket int32 | step int64 | line int64 | elapsed_ns int64? | time timestamp_ns?
        mapped_bytes int64 | brk_bytes int64 | live_bytes int64? | pinned_bytes int64? | unseen_bytes int64?
        largest_gap_bytes int64 | heap_fragmentation float64?
        mapped_bytes_max int64 | brk_bytes_max int64 | live_bytes_max int64? | pinned_bytes_max int64?
        unseen_bytes_max int64? | largest_gap_bytes_max int64 | heap_fragmentation_max float64?
    """,
    "problems": "line int64 | reason dictionary | text string",
    "summary": """
        source string | dialect dictionary | programs string? | allocator dictionary | lines int64
        lines_understood int64 | lines_skipped int64 | problems int64 | processes int64 | threads int64
        spaces int64 | duration_ns int64? | brk_calls int64 | brk_failures int64 | brk_failure_causes string
        brk_failure_shortfall_bytes int64 | mmap_fallbacks int64 | mmap_fallback_bytes int64
        mmap_fallbacks_refused int64 | direct_mmaps int64 | direct_mmap_bytes int64 | arena_heaps int64
        peak_mapped_bytes int64? | peak_mapped_line int64? | end_mapped_bytes int64? | peak_brk_bytes int64?
        end_brk_bytes int64? | peak_mapping_count int64? | min_headroom_bytes int64? | min_largest_gap_bytes int64?
        address_fragmentation float64? | allocations int64? | frees int64? | live_blocks int64? | live_bytes int64?
        peak_live_bytes int64? | peak_live_line int64? | heap_fragmentation float64? | pinned_bytes int64?
        double_frees int64? | unknown_frees int64? | allocators string | log_end dictionary
        resident_at_most_bytes int64?
        recorder_bytes int64? | peak_resident_bytes int64?
        program string? | clock dictionary | start_time timestamp_us? | end_time timestamp_us?
        peak_mapped_space int32?
    """,
}

ARROW_TYPES = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "timestamp_ns": pa.timestamp("ns", "UTC"),
    "timestamp_us": pa.timestamp("us", "UTC"),
}

TOP_BIT = 0xFFFF_FFFF_FF60_0000
"""An address above 2^63: the vsyscall page."""


def promised_fields(table: str) -> list[tuple[str, pa.DataType, bool]]:
    words = PROMISED[table].replace("|", " ").split()
    return [
        (name, ARROW_TYPES[type_.rstrip("?")], type_.endswith("?"))
        for name, type_ in zip(words[::2], words[1::2], strict=True)
    ]


def brk_failures(rows: int = 3) -> pa.Table:
    strings = Strings(["unused", "/lib/libc.so.6", "[stack]"])
    number = np.arange(rows, dtype=np.int64)
    return to_arrow(
        "brk_failures",
        {
            "step": number,
            "line": number * 2 + 1,
            "pid": np.where(number % 2 == 0, 4242, NULL),
            "space": np.zeros(rows, dtype=np.int64),
            "requested": np.full(rows, to_signed(TOP_BIT)),
            "granted": np.full(rows, 0x555555559000),
            "shortfall_bytes": np.full(rows, 135168),
            "cause": Words(number % 2, ["mapping_above", "rlimit_data"]),
            "blocker_start": np.where(number % 2 == 0, to_signed(TOP_BIT), NULL),
            "blocker_path": np.where(number % 2 == 0, 2, -1),
            "evidence": [f"step {step} says so" for step in range(rows)],
            "time": np.where(number % 2 == 0, 1_700_000_000_123_456_789, NULL),
            "blocker": Words(number % 2, ["[stack]", "rlimit_data"]),
            "shortfall_capped_bytes": np.full(rows, 135168),
        },
        strings,
    )


def problems(texts: list[str]) -> pa.Table:
    lines = list(range(1, len(texts) + 1))
    return to_arrow("problems", {"line": lines, "reason": ["unknown"] * len(texts), "text": texts})


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestSchema:
    def test_tables_are_those_promised(self) -> None:
        assert list(tables.TABLES) == list(PROMISED)

    @pytest.mark.parametrize("table", PROMISED)
    def test_columns_are_those_promised(self, table: str) -> None:
        fields = [(field.name, field.type, field.nullable) for field in arrow_schema(table)]
        assert fields == promised_fields(table)

    @pytest.mark.parametrize("table", PROMISED)
    def test_each_field_has_unit_and_meaning(self, table: str) -> None:
        for field in arrow_schema(table):
            assert field.metadata[b"unit"].decode().strip()
            assert field.metadata[b"meaning"].decode().endswith("."), field.name

    @pytest.mark.parametrize("table", PROMISED)
    def test_names_end_in_their_unit(self, table: str) -> None:
        for column in tables.TABLES[table].columns:
            if column.name.endswith("_bytes"):
                assert column.unit == "bytes"
            if column.name.endswith("_ns"):
                assert column.unit == "ns"

    def test_schema_says_what_it_is(self) -> None:
        metadata = arrow_schema("regions").metadata
        assert metadata[b"replay.table"] == b"regions"
        assert metadata[b"replay.schema_version"] == tables.SCHEMA_VERSION.encode()
        assert metadata[b"replay.meaning"].startswith(b"One row a rectangle")
        assert metadata[b"unit.start"] == b"address"

    def test_rows_are_sorted_by_columns_that_are_never_null(self) -> None:
        for table in tables.TABLES.values():
            nullable = {column.name: column.nullable for column in table.columns}
            assert not any(nullable[name] for name in table.order)

    def test_unknown_table_is_named(self) -> None:
        with pytest.raises(QueryError, match=r"no table 'heap'; the tables are events, regions"):
            arrow_schema("heap")

    def test_facts_need_neither_pyarrow_nor_pandas(self) -> None:
        code = (
            "import sys, replay.tables as t; t.schema_text(); t.data_dictionary_markdown();"
            "assert not {'pyarrow', 'pandas'} & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


class TestToArrow:
    def test_numbers_texts_and_nulls(self) -> None:
        table = brk_failures()
        table.validate(full=True)
        assert table.schema.equals(arrow_schema("brk_failures"), check_metadata=True)
        assert table.slice(0, 2).to_pylist() == [
            {
                "step": 0,
                "line": 1,
                "pid": 4242,
                "space": 0,
                "time_ns": None,
                "requested": TOP_BIT,
                "granted": 0x555555559000,
                "shortfall_bytes": 135168,
                "cause": "mapping_above",
                "blocker_start": TOP_BIT,
                "blocker_end": None,
                "blocker_path": "[stack]",
                "blocker_line": None,
                "limit_bytes": None,
                "evidence": "step 0 says so",
                "time": pd.Timestamp(1_700_000_000_123_456_789, tz="UTC"),
                "elapsed_ns": None,
                "blocker": "[stack]",
                "blocker_born_step": None,
                "shortfall_capped_bytes": 135168,
            },
            {
                "step": 1,
                "line": 3,
                "pid": None,
                "space": 0,
                "time_ns": None,
                "requested": TOP_BIT,
                "granted": 0x555555559000,
                "shortfall_bytes": 135168,
                "cause": "rlimit_data",
                "blocker_start": None,
                "blocker_end": None,
                "blocker_path": None,
                "blocker_line": None,
                "limit_bytes": None,
                "evidence": "step 1 says so",
                "time": None,
                "elapsed_ns": None,
                "blocker": "rlimit_data",
                "blocker_born_step": None,
                "shortfall_capped_bytes": 135168,
            },
        ]

    def test_no_rows(self) -> None:
        table = to_arrow("blocks", {})
        assert (table.num_rows, table.schema) == (0, arrow_schema("blocks"))

    def test_lists_may_hold_addresses_either_way(self) -> None:
        table = regions(start=[TOP_BIT, to_signed(TOP_BIT)])
        assert table.column("start").to_pylist() == [TOP_BIT, TOP_BIT]

    def test_dictionary_holds_only_what_is_used_in_order_of_ids(self) -> None:
        ids = np.array([3, 1, 3, -1, NULL], dtype=np.int64)
        column = text_column(Words(ids, ["zero", "one", "two", "three"]))
        assert column.dictionary.to_pylist() == ["one", "three"]
        assert column.to_pylist() == ["three", "one", "three", None, None]

    def test_words_may_repeat(self) -> None:
        column = text_column(Words(np.array([0, 1, 2]), ["exit", "brk", "exit"]))
        assert column.dictionary.to_pylist() == ["exit", "brk"]
        assert column.to_pylist() == ["exit", "brk", "exit"]

    def test_bytes_that_are_no_utf8_are_escaped(self) -> None:
        texts = [raw.decode("utf-8", "surrogateescape") for raw in (b"/caf\xe9", "/café".encode())]
        assert problems([*texts, "\ud800"]).column("text").to_pylist() == ["/caf\\xe9", "/café", "\\ud800"]

    def test_int32_keeps_the_low_bits(self) -> None:
        table = to_arrow("events", event_columns(fd=[0xFFFF_FFFF, -1, 3, None]))
        assert table.column("fd").to_pylist() == [-1, -1, 3, None]

    def test_ratio_is_null_where_it_is_no_number(self) -> None:
        heap = np.array([0.25, np.nan])
        table = to_arrow("fragmentation", fragmentation_columns(heap_fragmentation=heap))
        assert table.column("heap_fragmentation").to_pylist() == [0.25, None]

    def test_long_texts_are_cut_into_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("replay.tables.arrow._STRING_CHUNK_ROWS", 2)
        column = problems(["a", "b", "c", "b", "a"]).column("text")
        assert (column.num_chunks, column.to_pylist()) == (3, ["a", "b", "c", "b", "a"])

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            pytest.param({"line": [1], "reasons": ["x"]}, "no column reasons", id="unknown column"),
            pytest.param({"line": [1], "text": []}, "different lengths", id="lengths"),
            pytest.param({"line": [None], "reason": ["x"], "text": ["y"]}, "never null", id="null number"),
            pytest.param({"line": [1], "reason": [None], "text": ["y"]}, "never null", id="null text"),
            pytest.param({"line": [1], "reason": ["x"]}, "never null", id="missing column"),
            pytest.param({"line": [1], "reason": np.array([0])}, "no strings", id="ids without strings"),
            pytest.param(
                {"line": [1], "reason": Words(np.array([1]), ["x"])}, "id 1 has no text", id="id without text"
            ),
            pytest.param({"line": Words(np.array([0]), ["x"])}, "holds numbers", id="text as number"),
        ],
    )
    def test_columns_that_do_not_fit(self, columns: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            to_arrow("problems", columns)

    def test_in_order_sorts_by_each_key_and_keeps_equals_in_place(self) -> None:
        table = regions(start=[8, 4, 4, 2], end=[9, 5, 6, 3], born_step=[1, 1, 1, -1])
        ordered = tables.in_order(table)
        assert ordered.select(["start", "end"]).to_pylist() == [
            {"start": 2, "end": 3},
            {"start": 4, "end": 5},
            {"start": 4, "end": 6},
            {"start": 8, "end": 9},
        ]
        assert tables.in_order(ordered) is ordered


class TestToPandas:
    def test_dtypes(self) -> None:
        frame = to_pandas(brk_failures())
        assert {name: str(dtype) for name, dtype in frame.dtypes.items() if name != "evidence"} == {
            "step": "int64",
            "line": "int64",
            "pid": "Int32",
            "space": "int32",
            "time_ns": "Int64",
            "requested": "uint64",
            "granted": "uint64",
            "shortfall_bytes": "int64",
            "cause": "category",
            "blocker_start": "UInt64",
            "blocker_end": "UInt64",
            "blocker_path": "category",
            "blocker_line": "Int64",
            "limit_bytes": "Int64",
            "time": "datetime64[ns, UTC]",
            "elapsed_ns": "Int64",
            "blocker": "category",
            "blocker_born_step": "Int64",
            "shortfall_capped_bytes": "int64",
        }
        assert pd.api.types.is_string_dtype(frame["evidence"])

    def test_values(self) -> None:
        frame = to_pandas(brk_failures())
        assert frame["requested"].tolist() == [TOP_BIT] * 3
        assert frame["blocker_start"].tolist() == [TOP_BIT, pd.NA, TOP_BIT]
        assert frame["cause"].tolist() == ["mapping_above", "rlimit_data", "mapping_above"]
        assert frame["blocker_path"].isna().tolist() == [False, True, False]
        assert frame["time_ns"].isna().all()

    def test_ratio_stays_a_float(self) -> None:
        frame = to_pandas(to_arrow("fragmentation", fragmentation_columns(heap_fragmentation=[0.5, None])))
        assert frame["heap_fragmentation"].dtype == np.float64
        assert frame["heap_fragmentation"].isna().tolist() == [False, True]

    def test_columns_can_be_changed(self) -> None:
        frame = to_pandas(brk_failures())
        frame.loc[0, "pid"] = 1
        frame.loc[0, "step"] = 7
        frame.loc[0, "cause"] = "rlimit_data"
        assert frame.loc[0, ["pid", "step", "cause"]].tolist() == [1, 7, "rlimit_data"]

    def test_no_rows(self) -> None:
        frame = to_pandas(to_arrow("events", {}))
        assert (len(frame), list(frame)[:3]) == (0, ["step", "line", "entry_line"])


class TestParquet:
    def test_round_trip(self, tmp_path: Path) -> None:
        table = brk_failures()
        tables.write_parquet(table, tmp_path / "t.parquet")
        back = pq.read_table(tmp_path / "t.parquet")
        assert back.equals(table)
        assert back.schema.equals(table.schema, check_metadata=True)

    @pytest.mark.parametrize(("times", "compression"), [(1, "SNAPPY"), (256, "ZSTD")], ids=["few", "many"])
    def test_file_says_schema_version_and_is_compressed(self, times: int, compression: str, tmp_path: Path) -> None:
        tables.write_parquet(pa.concat_tables([brk_failures()] * times), tmp_path / "t.parquet")
        metadata = pq.read_metadata(tmp_path / "t.parquet")
        assert metadata.metadata[b"replay.schema_version"] == tables.SCHEMA_VERSION.encode()
        assert metadata.row_group(0).column(0).compression == compression

    def test_file_says_how_it_is_sorted_and_has_a_page_index(self, tmp_path: Path) -> None:
        tables.write_parquet(brk_failures(), tmp_path / "t.parquet")
        metadata = pq.read_metadata(tmp_path / "t.parquet")
        assert metadata.row_group(0).sorting_columns == (pq.SortingColumn(0),)
        assert metadata.row_group(0).column(0).has_column_index

    def test_pandas_gives_integers_with_nulls_back_exactly(self, tmp_path: Path) -> None:
        tables.write_parquet(brk_failures(), tmp_path / "t.parquet")
        frame = pd.read_parquet(tmp_path / "t.parquet")
        assert (str(frame["blocker_start"].dtype), frame["blocker_start"][0]) == ("UInt64", TOP_BIT)
        assert [str(frame[name].dtype) for name in ("pid", "elapsed_ns")] == ["Int32", "Int64"]

    def test_same_rows_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            tables.write_parquet(brk_failures(1000), tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_rows_are_written_in_order(self, tmp_path: Path) -> None:
        tables.write_parquet(brk_failures().take([2, 0, 1]), tmp_path / "t.parquet")
        assert pq.read_table(tmp_path / "t.parquet").column("step").to_pylist() == [0, 1, 2]

    def test_stream_makes_equal_row_groups_of_any_tables(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("replay.tables.streams.ROW_GROUP_ROWS", 10)
        texts = [f"line {number}" for number in range(37)]
        with tables.ParquetStream(arrow_schema("problems"), tmp_path / "t.parquet") as stream:
            for start, end in ((0, 3), (3, 3), (3, 25), (25, 37)):
                stream.write(problems(texts[start:end]))
        metadata = pq.read_metadata(tmp_path / "t.parquet")
        assert [metadata.row_group(group).num_rows for group in range(4)] == [10, 10, 10, 7]
        assert pq.read_table(tmp_path / "t.parquet").column("text").to_pylist() == texts

    def test_stream_joins_dictionaries(self, tmp_path: Path) -> None:
        with tables.ParquetStream(arrow_schema("problems"), tmp_path / "t.parquet") as stream:
            for reason in ("a", "b", "a"):
                stream.write(to_arrow("problems", {"line": [1], "reason": [reason], "text": ["x"]}))
        assert pq.read_table(tmp_path / "t.parquet").column("reason").to_pylist() == ["a", "b", "a"]

    def test_stream_without_rows_is_an_empty_table(self, tmp_path: Path) -> None:
        with tables.ParquetStream(arrow_schema("problems"), tmp_path / "t.parquet"):
            pass
        assert pq.read_table(tmp_path / "t.parquet").schema == arrow_schema("problems")


class TestCsv:
    def test_integers_are_plain_nulls_empty_texts_quoted(self, tmp_path: Path) -> None:
        table = brk_failures(2).select(["step", "requested", "blocker_start", "cause", "blocker_path"])
        tables.write_csv(table, tmp_path / "t.csv")
        assert (tmp_path / "t.csv").read_text().splitlines() == [
            "step,requested,blocker_start,cause,blocker_path",
            '0,18446744073699065856,18446744073699065856,"mapping_above","[stack]"',
            '1,18446744073699065856,,"rlimit_data",',
        ]

    def test_any_text_comes_back(self, tmp_path: Path) -> None:
        texts = ['write(1, "a\\n", 2) = 2', "two\nlines, comma", "é"]
        tables.write_csv(problems(texts), tmp_path / "t.csv")
        with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
            assert [row["text"] for row in csv.DictReader(file)] == texts

    def test_stream(self, tmp_path: Path) -> None:
        with tables.CsvStream(arrow_schema("problems"), tmp_path / "t.csv") as stream:
            stream.write(problems(["a"]))
            stream.write(problems(["b"]))
        assert (tmp_path / "t.csv").read_text() == 'line,reason,text\n1,"unknown","a"\n1,"unknown","b"\n'


WRITERS = [pytest.param(tables.write_parquet, id="parquet"), pytest.param(tables.write_csv, id="csv")]


@pytest.mark.parametrize("write", WRITERS)
class TestWholeOrNotAtAll:
    def test_existing_output_stays(self, write: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "t").write_text("mine")
        with pytest.raises(OutputExistsError, match="exists already"):
            write(brk_failures(), tmp_path / "t")
        assert (tmp_path / "t").read_text() == "mine"

    def test_force_replaces_it(self, write: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "t").write_text("mine")
        write(brk_failures(), tmp_path / "t", force=True)
        assert os.listdir(tmp_path) == ["t"]
        assert (tmp_path / "t").read_bytes()[:4] in (b"PAR1", b"step")

    def test_full_disk_leaves_nothing(self, write: Callable[..., None], tmp_path: Path) -> None:
        with disk_of(4096), pytest.raises(ReplayError, match=r"t: cannot be written: File too large"):
            write(brk_failures(5000), tmp_path / "t")
        assert os.listdir(tmp_path) == []

    def test_full_disk_leaves_what_was_there(self, write: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "t").write_text("mine")
        with disk_of(4096), pytest.raises(tables.OutputError):
            write(brk_failures(5000), tmp_path / "t", force=True)
        assert (tmp_path / "t").read_text() == "mine"
        assert os.listdir(tmp_path) == ["t"]

    def test_no_directory(self, write: Callable[..., None], tmp_path: Path) -> None:
        with pytest.raises(tables.OutputError, match="No such file or directory"):
            write(brk_failures(), tmp_path / "none" / "t")

    def test_directory_in_its_place(self, write: Callable[..., None], tmp_path: Path) -> None:
        with pytest.raises(tables.OutputError, match="it is a directory"):
            write(brk_failures(), tmp_path, force=True)

    def test_device_is_not_replaced(self, write: Callable[..., None]) -> None:
        with pytest.raises(tables.OutputError, match="not a regular file"):
            write(brk_failures(), "/dev/null", force=True)

    def test_link_stays_a_link(self, write: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("file")
        write(brk_failures(), tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").stat().st_size > 0

    def test_mode_is_that_of_any_new_file(self, write: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "other").touch()
        write(brk_failures(), tmp_path / "t")
        assert (tmp_path / "t").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("stream", [tables.ParquetStream, tables.CsvStream])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_stream_left_by_an_exception_leaves_nothing(stream: Any, error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), stream(arrow_schema("problems"), tmp_path / "t") as rows:
        rows.write(problems(["a"]))
        raise error
    assert os.listdir(tmp_path) == []


def test_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError), tables.whole_file(tmp_path / "t") as temporary:
        temporary.write_text("ours")
        (tmp_path / "t").write_text("theirs")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("t", "theirs")]


class TestExport:
    @pytest.mark.parametrize("format", ["parquet", "csv"])
    def test_writes_every_table(self, format: str, tmp_path: Path) -> None:
        tables.export_tables(two_tables(), tmp_path / "new" / "out", format)
        files = sorted(os.listdir(tmp_path / "new" / "out"))
        assert files == [f"brk_failures.{format}", f"problems.{format}"]
        assert os.listdir(tmp_path / "new") == ["out"]

    def test_existing_directory_keeps_its_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "trace.log").touch()
        tables.export_tables(two_tables(), tmp_path)
        assert sorted(os.listdir(tmp_path)) == ["brk_failures.parquet", "problems.parquet", "trace.log"]

    @pytest.mark.parametrize("others", [[], ["trace.log"]])
    def test_into_a_directory_that_is_there_all_files_come_at_once(
        self, others: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        for name in others:
            (out / name).write_text("mine")

        def moved(source: Path, target: Path) -> None:
            seen.append(sorted(os.listdir(out)))
            original(source, target)

        seen: list[list[str]] = []
        original = os.replace
        monkeypatch.setattr("replay.tables.whole_files.os.replace", moved)
        tables.export_tables(two_tables(), out)
        assert [names for names in seen if "problems.parquet" in names] == []
        assert sorted(os.listdir(out)) == ["brk_failures.parquet", "problems.parquet", *others]
        assert os.listdir(tmp_path) == ["out"]
        assert [(out / name).read_text() for name in others] == ["mine" for _ in others]

    def test_what_a_killed_process_left_is_cleared_away_by_the_next(self, tmp_path: Path) -> None:
        code = (
            "import os, signal, sys; from replay.tables.temporary import temporary_in; from pathlib import Path\n"
            "for write in (Path.mkdir, Path.touch): write(temporary_in(Path(sys.argv[1])))\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        root = tables.__file__.rpartition("/replay/")[0]
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
        mine = temporary_in(tmp_path)
        mine.mkdir()
        elsewhere = tmp_path / ".replay-00000000-1-00000000.tmp"
        elsewhere.touch()
        tables.export_tables(two_tables(), tmp_path / "out")
        assert sorted(os.listdir(tmp_path)) == sorted(["out", mine.name, elsewhere.name])

    def test_into_the_working_directory_files_are_moved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        before = os.stat(".").st_ino
        tables.export_tables(two_tables(), ".")
        assert (os.stat(tmp_path).st_ino, len(os.listdir("."))) == (before, 2)

    def test_existing_table_stays(self, tmp_path: Path) -> None:
        (tmp_path / "problems.parquet").write_text("mine")
        with pytest.raises(OutputExistsError, match=r"problems.parquet exists already"):
            tables.export_tables(two_tables(), tmp_path)
        assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]

    def test_force_replaces_it(self, tmp_path: Path) -> None:
        (tmp_path / "problems.parquet").write_text("mine")
        tables.export_tables(two_tables(), tmp_path, force=True)
        assert pq.read_table(tmp_path / "problems.parquet").num_rows == 1
        assert sorted(os.listdir(tmp_path)) == ["brk_failures.parquet", "problems.parquet"]

    @pytest.mark.parametrize("exists", [True, False])
    def test_full_disk_leaves_nothing(self, exists: bool, tmp_path: Path) -> None:
        out = tmp_path / "out"
        if exists:
            out.mkdir()
        big = {"problems": [problems(["a"])], "brk_failures": [brk_failures(5000)]}
        with disk_of(8192), pytest.raises(tables.OutputError) as raised:
            tables.export_tables(big, out, force=True)
        assert str(raised.value) == f"{out}: cannot be written: File too large"
        assert list(tmp_path.iterdir()) == ([out] if exists else [])
        assert not exists or os.listdir(out) == []

    def test_file_in_place_of_the_directory(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(tables.OutputError, match="it is not a directory"):
            tables.export_tables(two_tables(), tmp_path / "out", force=True)

    def test_unknown_format_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(QueryError, match="no format 'xlsx'; the formats are parquet, csv"):
            tables.export_tables(two_tables(), tmp_path / "out", "xlsx")


class TestDescription:
    def test_fits_the_screen(self) -> None:
        assert max(map(len, tables.schema_text().splitlines())) <= 80

    def test_names_every_column_of_every_table(self) -> None:
        words = set(tables.schema_text().split())
        for table in tables.TABLES.values():
            assert {table.name, *(column.name for column in table.columns)} <= words

    def test_one_table(self) -> None:
        assert tables.schema_text("problems") == PROBLEMS_TEXT

    def test_unknown_table_is_named(self) -> None:
        with pytest.raises(QueryError, match="no table 'heap'"):
            tables.schema_text("heap")

    def test_markdown_has_one_row_a_column_with_four_cells(self) -> None:
        rows = [line for line in tables.data_dictionary_markdown().splitlines() if line.startswith("| `")]
        assert len(rows) == sum(len(table.columns) for table in tables.TABLES.values())
        assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


PROBLEMS_TEXT = """\
problems
  One row each line that was not understood, and each contradiction between the
  trace and the replayed state (a divergence: the kernel's answer was taken).

  line    int64       line  Line of the log, from 1.
  reason  dictionary  word  What is wrong with it, in a small fixed vocabulary.
  text    string      text  The line itself, cut at 200 characters.

?: the column may be null. dictionary: a string that repeats, stored once.
"""


def two_tables() -> dict[str, list[pa.Table]]:
    return {"brk_failures": [brk_failures()], "problems": [problems(["a"])]}


def text_column(words: Words) -> Any:
    """Return what becomes of a nullable text column."""
    columns = event_columns(fd=[None] * len(words.ids)) | {"path": words}
    return to_arrow("events", columns).column("path").chunk(0)


def event_columns(**columns: list[Any]) -> dict[str, Any]:
    rows = len(next(iter(columns.values())))
    numbers = {name: list(range(rows)) for name in ("step", "line", "entry_line", "space")}
    texts = {name: ["x"] * rows for name in ("dialect", "call", "name", "status")}
    return numbers | texts | columns


def fragmentation_columns(**columns: Any) -> dict[str, Any]:
    rows = len(next(iter(columns.values())))
    promised = {name for name, _, nullable in promised_fields("fragmentation") if not nullable}
    return {name: [0] * rows for name in promised} | columns


def regions(**columns: list[Any]) -> pa.Table:
    rows = len(next(iter(columns.values())))
    numbers = {name: [0] * rows for name in ("space", "start", "end", "born_step", "size_bytes")}
    texts = {name: ["x"] * rows for name in ("perms", "kind", "origin", "owner")}
    return to_arrow("regions", numbers | texts | columns)
