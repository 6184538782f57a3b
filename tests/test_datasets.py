"""A dataset is one table in two layouts: names that are texts to every reader, labels, runs that go, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import oracle
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fleet_maker import made_older, of_version

import replay
from replay.batch import Upkeep, batch, compact, forget, labels_from
from replay.batch.storage import LocalStore, existing_store, open_store
from replay.datasets.dataset import Dataset
from replay.datasets.layout import escaped, typed_as_text
from replay.errors import QueryError, ReplayError
from replay.tables import TABLES

PLAIN = oracle.SAMPLES / "plain" / "strace.log"
BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LEAKY = oracle.SAMPLES / "ltrace" / "ltrace.log"

ODD_NAMES = (
    *("001", "1e5", "1d", "0x10", "2026-11-26", "12:30", "nan", "Infinity", "true", "NULL", "-7", "1_0"),
    *("__HIVE_DEFAULT_PARTITION__", "a=b&c d", "50%", "ü#1", "名前", "x'y\"z", "a+b", "run=7", "~", "é.log"),
)


def command(*words: object, **how: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "replay", *map(str, words)]
    return subprocess.run(line, cwd=oracle.CHECKOUT, capture_output=True, text=True, check=False, timeout=600, **how)


def rows_of(place: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table as replay's own commands read them."""
    columns = [column.name for column in TABLES[table].columns]
    rows: list[dict[str, Any]] = Dataset(str(place)).table(table, columns).to_pylist()
    return sorted(rows, key=lambda row: [str(row[name]) for name in ("run", *TABLES[table].order)])


def everything(place: Path) -> dict[str, list[dict[str, Any]]]:
    return {table: rows_of(place, table) for table in TABLES}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    for name, log in (("a/plain.log", PLAIN), ("b/blocked.log", BLOCKED), ("c/leaky.log", LEAKY)):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(log, folder / name)
    return folder


# --- names ---


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, f"run-{name}") for name in ODD_NAMES[:13]]
    + [(name, name) for name in (*ODD_NAMES[13:], "v1.2", "test7", "feed", "1.log", "run-1")],
)
def test_a_name_that_a_reader_takes_for_another_type_gets_a_form_that_none_does(name: str, form: str) -> None:
    assert typed_as_text(name) == form


def test_only_special_ascii_is_escaped_in_folders() -> None:
    assert escaped("a=b/c d%é名.log") == "a%3Db%2Fc%20d%25é名.log"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of runs with odd names, and beside it the same one compacted."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "logs").mkdir()
    for at, name in enumerate(ODD_NAMES):
        shutil.copy(BLOCKED if at % 3 else PLAIN, folder / "logs" / name)
    batch(folder / "logs", folder / "set", jobs=0)
    batch(folder / "logs", folder / "flat", jobs=0, how=Upkeep(flat=True))
    return folder


def expected(place: Path) -> dict[str, tuple[int, int, int]]:
    """Rows, sum of shortfalls and highest address asked for of each run that has failed breaks."""
    failures = replay.load(BLOCKED).brk_failures
    one = (len(failures), int(failures["shortfall_capped_bytes"].sum()), int(failures["requested"].max()))
    return {typed_as_text(name): one for at, name in enumerate(ODD_NAMES) if at % 3}


def of_frame(frame: pd.DataFrame) -> dict[str, tuple[int, int, int]]:
    assert str(frame["blocker_start"].dtype).lower().startswith("uint64")
    assert frame["blocker_start"].notna().all()
    grouped = frame.assign(run=frame["run"].astype(str)).groupby("run")
    parts = grouped.size(), grouped["shortfall_capped_bytes"].sum(), grouped["requested"].max()
    return {str(run): tuple(int(part[run]) for part in parts) for run in parts[0].index}  # type: ignore[misc]


def pandas_default(place: Path) -> Any:
    return of_frame(pd.read_parquet(place / "brk_failures"))


def pandas_nullable(place: Path) -> Any:
    return of_frame(pd.read_parquet(place / "brk_failures", dtype_backend="numpy_nullable"))


def pandas_arrow(place: Path) -> Any:
    return of_frame(pd.read_parquet(place / "brk_failures", dtype_backend="pyarrow"))


def with_pyarrow(place: Path) -> Any:
    parts = ds.partitioning(pa.schema([("run", pa.string())]), flavor="hive")
    return of_frame(ds.dataset(place / "brk_failures", partitioning=parts).to_table().to_pandas())


def with_duckdb(place: Path) -> Any:
    duckdb = pytest.importorskip("duckdb")
    rows = duckdb.sql(
        "select run, count(*), sum(shortfall_capped_bytes), max(requested) "
        f"from read_parquet('{place}/brk_failures/**/*.parquet', hive_partitioning = true, "
        "hive_types_autocast = false) group by run"
    )
    return {run: (count, int(total), highest) for run, count, total, highest in rows.fetchall()}


def of_polars(frame: Any) -> Any:
    import polars as pl

    found = frame.group_by("run").agg(pl.len(), pl.sum("shortfall_capped_bytes"), pl.max("requested"))
    return {run: tuple(values) for run, *values in found.rows()}


def polars_eager(place: Path) -> Any:
    pl = pytest.importorskip("polars")
    return of_polars(pl.read_parquet(place / "brk_failures" / "**" / "*.parquet", hive_partitioning=True))


def polars_lazy(place: Path) -> Any:
    pl = pytest.importorskip("polars")
    return of_polars(pl.scan_parquet(place / "brk_failures" / "**" / "*.parquet", hive_partitioning=True).collect())


def polars_hive(place: Path) -> Any:
    pl = pytest.importorskip("polars")
    schema = {"run": pl.String} if any((place / "brk_failures").glob("run=*")) else None
    folder = place / "brk_failures"
    return of_polars(pl.scan_parquet(folder, hive_schema=schema, hive_partitioning=schema is not None).collect())


def with_dask(place: Path) -> Any:
    dataframe = pytest.importorskip("dask.dataframe")
    return of_frame(dataframe.read_parquet(str(place / "brk_failures")).compute())


def with_spark(place: Path) -> Any:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("no java")
    session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = session.config("spark.sql.legacy.parquet.nanosAsLong", "true").getOrCreate()
    frame = spark.read.parquet(str(place / "brk_failures")).groupBy("run")
    found = frame.agg({"step": "count", "shortfall_capped_bytes": "sum", "requested": "max"})
    rows = found.select("run", "count(step)", "sum(shortfall_capped_bytes)", "max(requested)").collect()
    return {row[0]: (row[1], row[2], int(row[3])) for row in rows}


READERS = (
    pandas_default, pandas_nullable, pandas_arrow, with_pyarrow, with_duckdb, polars_eager, polars_lazy, polars_hive,
    with_dask, with_spark,
)  # fmt: skip


@pytest.mark.parametrize("layout", ["set", "flat"])
@pytest.mark.parametrize("reader", READERS, ids=[reader.__name__ for reader in READERS])
def test_every_reader_finds_the_same_names_sums_and_addresses(
    reader: Callable[[Path], Any], layout: str, odd: Path
) -> None:
    assert reader(odd / layout) == expected(odd / layout)


def test_replay_finds_them_too(odd: Path) -> None:
    assert everything(odd / "flat") == everything(odd / "set")
    assert {row["run"] for row in rows_of(odd / "set", "summary")} == {typed_as_text(name) for name in ODD_NAMES}


# --- two layouts ---


def test_compact_makes_one_sorted_file_a_table(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    before = everything(place)
    done = compact(existing_store(str(place)))
    assert (done.runs, done.left) == (["a/plain.log", "b/blocked.log", "c/leaky.log"], [])
    files = sorted(str(file.relative_to(place)) for file in place.rglob("*.parquet"))
    assert files == sorted(["runs.parquet", *(f"{table}/part-0.parquet" for table in TABLES)])
    assert everything(place) == before
    for table, facts in TABLES.items():
        file = pq.ParquetFile(place / table / "part-0.parquet")
        assert file.schema_arrow.field("run").type == pa.string()
        names = ["run", *facts.order]
        for group in range(file.metadata.num_row_groups):
            sorting = file.metadata.row_group(group).sorting_columns
            assert [file.schema_arrow.names[column.column_index] for column in sorting] == names
        keys = file.read().select(names).to_pandas()
        assert keys.equals(keys.sort_values(names, kind="stable"))


def test_times_rise_in_differences_and_no_encoding_is_new_to_spark(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0, how=Upkeep(flat=True))
    read_by_spark = {"PLAIN", "RLE", "RLE_DICTIONARY", "DELTA_BINARY_PACKED"}
    for table in TABLES:
        file = pq.ParquetFile(place / table / "part-0.parquet").metadata
        groups = [file.row_group(at) for at in range(file.num_row_groups)]
        columns = [group.column(at) for group in groups for at in range(group.num_columns)]
        encodings = {column.path_in_schema: set(column.encodings) for column in columns}
        assert set().union(*encodings.values()) <= read_by_spark
        if table in ("events", "timeline"):
            assert "DELTA_BINARY_PACKED" in encodings["time_ns" if "time_ns" in encodings else "time"]
            assert "DELTA_BINARY_PACKED" not in encodings["elapsed_ns"]


def test_files_are_cut_at_their_size(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.batch.compaction.PART_BYTES", 1)
    monkeypatch.setattr("replay.batch.compaction._ROOM", 0)
    monkeypatch.setattr("replay.tables.streams.ROW_GROUP_ROWS", 64)
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    before = everything(place)
    compact(existing_store(str(place)))
    files = {file.name for file in (place / "events").iterdir()}
    assert len(files) > 3
    assert files == {f"part-{at}.parquet" for at in range(len(files))}
    assert everything(place) == before
    compact(existing_store(str(place)))
    assert everything(place) == before


def test_a_run_of_an_earlier_version_stays_in_compacted_files_with_what_it_has(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0, how=Upkeep(flat=True))
    made_older(place, "b/blocked.log")
    before = everything(place)
    done = compact(existing_store(str(place)))
    assert (done.runs, done.left) == (["a/plain.log", "b/blocked.log", "c/leaky.log"], [])
    assert everything(place) == before
    said = "run b/blocked.log: written by another version, whose tables differ; batch makes them again"
    assert [sentence.partition(": ")[2] for sentence in Dataset(str(place)).complaints()] == [said]


def test_compact_gives_a_run_of_an_earlier_version_nulls_in_columns_that_came_later(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    made_older(place, "b/blocked.log", "owner", "size_bytes")
    shutil.rmtree(place / "timeline" / "run=b%2Fblocked.log")
    before = everything(place)
    done = command("compact", place)
    assert (done.returncode, "left in folders" in done.stderr) == (0, False)
    assert "run b/blocked.log: written by another version" in done.stderr
    assert everything(place) == before
    assert not list(place.glob("*/run=*"))
    regions = pd.read_parquet(place / "regions").set_index("run")
    assert regions["size_bytes"].isna().groupby(level=0).all().to_dict() == {
        "a/plain.log": False, "b/blocked.log": True, "c/leaky.log": False
    }  # fmt: skip
    assert (str(regions["size_bytes"].dtype), str(regions["born_step"].dtype)) == ("Int64", "int64")
    batch(logs, place, jobs=0, how=Upkeep(flat=True))
    batch(logs, tmp_path / "fresh", jobs=0)
    assert everything(place) == everything(tmp_path / "fresh")
    assert not pq.read_schema(place / "regions" / "part-0.parquet").field("size_bytes").nullable


def test_a_damaged_part_of_an_earlier_version_is_a_message(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    made_older(tmp_path / "set", "b/blocked.log")
    part = tmp_path / "set" / "regions" / "run=b%2Fblocked.log" / "part-0.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    done = command("compact", tmp_path / "set")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "regions/run=b%2Fblocked.log/part-0.parquet: cannot be read" in done.stderr


@pytest.mark.parametrize("cause", ["later", "damaged"])
def test_compact_leaves_a_run_of_a_later_version_and_one_that_lacks_a_part(
    cause: str, logs: Path, tmp_path: Path
) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    if cause == "later":
        of_version(place, "b/blocked.log", "99")
    else:
        made_older(place, "b/blocked.log")
        shutil.rmtree(place / "events" / "run=b%2Fblocked.log")
    before = everything(place)
    done = command("compact", place)
    said = "replay: 1 run of a later version or without all parts left in folders: b/blocked.log; `replay batch`"
    assert (done.returncode, said in done.stderr) == (0, True)
    assert everything(place) == before


def test_a_batch_appends_to_a_compacted_dataset_and_replaces_in_it(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs / "a", place, jobs=0, how=Upkeep(flat=True))
    batch(logs / "b", place, jobs=0)
    assert sorted(path.name for path in (place / "events").iterdir()) == ["part-0.parquet", "run=blocked.log"]
    assert {row["run"] for row in rows_of(place, "events")} == {"plain.log", "blocked.log"}
    assert batch(logs / "a", place, jobs=0).unchanged == ["plain.log"]
    shutil.copy(LEAKY, logs / "a" / "plain.log")
    assert batch(logs / "a", place, jobs=0).written == ["plain.log"]
    batch([logs / "b", logs / "a"], tmp_path / "fresh", jobs=0)
    steps = [len(rows_of(place, "events")), len(rows_of(tmp_path / "fresh", "events"))]
    assert steps[0] == steps[1]
    assert [path.name for path in (place / "events").iterdir()] == ["part-0.parquet"]


@pytest.mark.parametrize("stop_at", range(0, 36, 5))
def test_killed_at_any_file_nothing_is_lost_or_there_twice(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    class Killed(BaseException):
        pass

    def counted(original: Callable[..., None]) -> Callable[..., None]:
        def call(self: LocalStore, *names: Any) -> None:
            deeds.append(names)
            if len(deeds) > stop_at:
                raise Killed
            original(self, *names)

        return call

    deeds: list[Any] = []
    place = tmp_path / "set"
    batch([logs / "a", logs / "b"], place, jobs=0, how=Upkeep(flat=stop_at % 2 == 0))
    batch(logs / "c", place, jobs=0)
    before = everything(place)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "_moved", counted(LocalStore._moved))
        patch.setattr(LocalStore, "remove", counted(LocalStore.remove))
        with pytest.raises(Killed):
            compact(open_store(str(place)))
    assert everything(place) == before
    assert Dataset(str(place)).complaints() == []
    compact(open_store(str(place)))
    assert everything(place) == before
    assert not list(place.glob("*/run=*"))


@pytest.mark.parametrize("stop_at", range(0, 21, 2))
def test_a_run_whose_replacement_is_killed_is_the_old_or_the_new_one(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    class Killed(BaseException):
        pass

    def moved(self: LocalStore, file: Path, name: str) -> None:
        deeds.append(name)
        if len(deeds) > stop_at:
            raise Killed
        original(self, file, name)

    deeds: list[str] = []
    original = LocalStore._moved
    place = tmp_path / "set"
    batch(logs / "a", place, jobs=0)
    old = everything(place)
    shutil.copy(LEAKY, logs / "a" / "plain.log")
    batch(logs / "a", tmp_path / "fresh", jobs=0)
    new = everything(tmp_path / "fresh")
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "_moved", moved)
        with suppress(Killed):
            batch(logs / "a", place, jobs=0)
    assert everything(place) in (old, new)
    if stop_at % 4:
        compact(open_store(str(place)))
        assert everything(place) in (old, new)
    batch(logs / "b", place, jobs=0)
    kept = {name: [row for row in rows if row["run"] == "plain.log"] for name, rows in everything(place).items()}
    assert kept in (old, new)
    assert not list((place / "_replay").glob("*/*"))


def test_killed_processes_of_batch_and_compact_lose_nothing(logs: Path, tmp_path: Path) -> None:
    place, fresh = tmp_path / "set", tmp_path / "fresh"
    for turn, seconds in enumerate((0.6, 0.9, 1.2, 1.5)):
        words = ("batch", logs, "-o", place, "-j", 1, "-q", "--layout", "flat") if turn % 2 else ("compact", place)
        if turn == 0:
            batch(logs / "a", place, jobs=0)
        line = [sys.executable, "-m", "replay", *map(str, words)]
        process = subprocess.Popen(line, cwd=oracle.CHECKOUT, stderr=subprocess.DEVNULL)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    batch(logs / "a", place, jobs=0)
    batch([logs / "b", logs / "c"], place, jobs=0, how=Upkeep(flat=True))
    batch(logs, fresh, jobs=0)
    assert len(rows_of(place, "events")) % len(rows_of(fresh, "events")) in (0, len(replay.load(PLAIN).events))
    assert Dataset(str(place)).complaints() == []


# --- labels ---


def test_labels_come_from_options_a_file_and_paths(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("run,owner,host\na/plain.log,me,\nb/blocked.log,you,ci-02\n")
    labels = labels_from(["host=ci-01", "build=nightly"], str(tmp_path / "labels.csv"), "{commit}/{test}.log")
    batch(logs, tmp_path / "set", jobs=0, how=Upkeep(labels))
    table = pq.read_table(tmp_path / "set" / "runs.parquet")
    assert table.schema.field("labels").type == pa.map_(pa.string(), pa.string())
    first, second = table.slice(0, 2).to_pylist()
    assert dict(first["labels"]) == {
        "build": "nightly", "commit": "a", "host": "ci-01", "owner": "me", "test": "plain"
    }  # fmt: skip
    assert (second["label_host"], second["label_owner"], second["label_commit"]) == ("ci-02", "you", "b")


def test_labels_stay_and_new_ones_come_to_unchanged_runs(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0, how=Upkeep(labels_from(["a=1"])))
    added = pq.read_table(place / "runs.parquet")["added_at"].to_pylist()
    assert len(batch(logs, place, jobs=0, how=Upkeep(labels_from(["b=2"]))).unchanged) == 3
    shutil.copy(BLOCKED, logs / "a" / "plain.log")
    assert batch(logs, place, jobs=0).written == ["a/plain.log"]
    rows = pq.read_table(place / "runs.parquet").to_pylist()
    assert {tuple(row["labels"]) for row in rows} == {(("a", "1"), ("b", "2"))}
    assert [row["added_at"] for row in rows] == added
    assert rows[0]["log_mtime"].timestamp() == pytest.approx((logs / "a" / "plain.log").stat().st_mtime, abs=1e-5)


def test_columns_of_users_stay(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    runs = pd.read_parquet(place / "runs.parquet")
    runs["verdict"], runs["label_team"] = ["good", "bad", None], ["x", None, None]
    runs.to_parquet(place / "runs.parquet")
    shutil.copy(PLAIN, logs / "b" / "blocked.log")
    shutil.copy(PLAIN, logs / "c" / "new.log")
    batch(logs, place, jobs=0)
    rows = {row["run"]: row for row in pq.read_table(place / "runs.parquet").to_pylist()}
    assert [row["verdict"] for row in rows.values()] == ["good", "bad", None, None]
    assert (rows["a/plain.log"]["label_team"], dict(rows["a/plain.log"]["labels"])) == ("x", {"team": "x"})
    assert rows["b/blocked.log"]["brk_failures"] == 0


@pytest.mark.parametrize(
    ("pairs", "pattern", "said"),
    [
        (["abc"], None, "expected NAME=VALUE"),
        (["a b=c"], None, "expected a name of letters"),
        ([], "no/label", "expected labels in braces"),
        ([], "{a}/{a}", "each only once"),
    ],
)
def test_labels_that_are_none_are_told(pairs: list[str], pattern: str | None, said: str) -> None:
    with pytest.raises(ReplayError, match=said):
        labels_from(pairs, None, pattern)


def test_compare_and_growth_use_labels(logs: Path, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    place = tmp_path / "set"
    batch(logs / "a", place, jobs=0, how=Upkeep(labels_from(["commit=f00", "host=x"])))
    batch(logs / "b", place, jobs=0, how=Upkeep(labels_from(["commit=ba4", "host=x"])))
    done = command(
        "compare", f"{place}#commit=f00", f"{place}#commit=ba*,host=x", "--fail-if", "after.brk_failures > 9"
    )
    assert done.returncode == 3, done.stderr
    grown = json.loads(command("query", place, "growth", "--json").stdout)
    assert [row["version"] for row in grown] == ["f00", "ba4"]


# --- runs go ---


@pytest.mark.parametrize("flat", [False, True])
def test_forget_takes_runs_out_of_every_table(flat: bool, logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0, how=Upkeep(flat=flat))
    assert forget(existing_store(str(place)), ["a/plain.log", "c/*"]) == ["a/plain.log", "c/leaky.log"]
    assert {row["run"] for rows in everything(place).values() for row in rows} == {"b/blocked.log"}
    assert pd.read_parquet(place / "runs.parquet")["run"].tolist() == ["b/blocked.log"]
    assert not list(place.rglob("*plain*"))
    with pytest.raises(QueryError, match=r"no run 'a/plain\.log'"):
        forget(existing_store(str(place)), ["a/plain.log"])


@pytest.mark.parametrize("flat", [False, True])
def test_forget_takes_out_parts_without_a_row(flat: bool, logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0, how=Upkeep(flat=flat))
    before = everything(place)
    if flat:
        runs = pq.read_table(place / "runs.parquet", partitioning=None)
        pq.write_table(runs.slice(1), place / "runs.parquet")
        stray = runs["run"][0].as_py()
    else:
        stray = "stray"
        shutil.copytree(place / "events" / "run=b%2Fblocked.log", place / "events" / "run=stray")
    assert "`replay forget` takes them out" in Dataset(str(place)).complaints()[0]
    assert command("forget", place, "str*" if stray == "stray" else stray).returncode == 0
    assert Dataset(str(place)).complaints() == []
    kept = {table: [row for row in rows if row["run"] != stray] for table, rows in before.items()}
    assert everything(place) == kept
    assert "no run 'stray'" in command("forget", place, "stray").stderr


def test_a_batch_tells_that_runs_lie_beside_compacted_files(logs: Path, tmp_path: Path) -> None:
    batch(logs / "a", tmp_path / "set", jobs=0, how=Upkeep(flat=True))
    done = command("batch", logs / "b", "-o", tmp_path / "set", "-j", 1)
    assert "1 run in folders beside the compacted files; `replay compact` before other tools read it" in done.stderr
    assert "beside" not in command("batch", logs / "c", "-o", tmp_path / "set", "-j", 1, "--layout", "flat").stderr


def test_prune_takes_out_the_runs_whose_logs_are_gone(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    shutil.rmtree(logs / "b")
    assert batch(logs / "a", place, jobs=0, how=Upkeep(prune=True)).pruned == ["b/blocked.log"]
    assert pd.read_parquet(place / "runs.parquet")["run"].tolist() == ["a/plain.log", "c/leaky.log"]


def test_parts_without_rows_and_rows_without_parts_are_told(logs: Path, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    shutil.rmtree(place / "regions" / "run=a%2Fplain.log")
    shutil.copytree(place / "events" / "run=b%2Fblocked.log", place / "events" / "run=stray")
    done = command("query", place, "footprint")
    assert done.returncode == 0
    assert "run stray: parts without a row in runs.parquet" in done.stderr
    lacking = "run a/plain.log: no part in regions; `replay batch` makes these runs again"
    assert lacking in done.stderr
    left = "1 run of a later version or without all parts left in folders: a/plain.log; `replay batch` makes them again"
    assert left in command("compact", place).stderr
    assert (place / "events" / "run=a%2Fplain.log").exists()
    assert not (place / "events" / "run=b%2Fblocked.log").exists()
    assert lacking in command("forget", place, "c/*").stderr
    assert lacking in command("query", place, "footprint").stderr


# --- captures that failed ---


def test_failed_captures_are_errors_and_other_files_are_counted_by_kind(logs: Path, tmp_path: Path) -> None:
    (logs / "empty.log").touch()
    (logs / "binary.strace").write_bytes(bytes(range(256)))
    (logs / "talk.txt").write_text("nothing of the kind\n" * 9)
    (logs / "out.123").touch()
    (logs / "README.md").write_text("text\n")
    done = command("batch", logs, "-o", tmp_path / "set", "--verbose")
    assert done.returncode == 1
    rows = {row["run"]: row for row in pq.read_table(tmp_path / "set" / "runs.parquet").to_pylist()}
    errors = {run: row["error"].partition(":")[0] for run, row in rows.items() if row["status"] == "error"}
    assert errors == {"empty.log": "empty", "binary.strace": "binary", "talk.txt": "no calls", "out.123": "empty"}
    assert "4 logs could not be replayed" in done.stderr
    assert "README.md: passed over: no calls" in done.stderr
    assert "1 other file passed over (1 no calls)" in done.stderr


# --- damage ---


@pytest.mark.parametrize("entry", ["{not json", "[1,2]", '{"run":"q","status":"ok"}', ""])
def test_a_damaged_journal_costs_no_more_than_its_run(entry: str, logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    (place / "_replay" / "journal").mkdir()
    (place / "_replay" / "journal" / "a%2Fplain.log.json").write_text(entry)
    (place / "_replay" / "journal" / "q.json").write_text(entry)
    assert batch(logs, place, jobs=0).written == ["a/plain.log"]
    assert Dataset(str(place)).complaints() == []


def test_damaged_runs_are_a_message(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    pq.write_table(pa.table({"run": [1]}), tmp_path / "set" / "runs.parquet")
    with pytest.raises(ReplayError, match=r"runs\.parquet: cannot be read \(no column "):
        batch(logs, tmp_path / "set", jobs=0)


def test_a_request_to_end_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / "log")
    out = tmp_path / "out"
    line = [sys.executable, "-m", "replay", "export", str(tmp_path / "fifo" / "log"), "-o", str(out), "-q"]
    process = subprocess.Popen(line, cwd=oracle.CHECKOUT, stderr=subprocess.PIPE, text=True)
    with (tmp_path / "fifo" / "log").open("w") as log:
        log.write(PLAIN.read_text())
        log.flush()
        process.terminate()
        assert process.wait(600) == 143
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo"]
