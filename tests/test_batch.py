"""Many runs in one dataset: found, kept, made again, never half there; read by others as one table."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import oracle
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

import replay
from replay.batch import Options, UnwritableError, batch, locking, pool
from replay.batch import dataset_writer as dataset
from replay.batch import discovery as finding
from replay.batch import job as work
from replay.batch.storage import LocalStore, file_system, open_store
from replay.errors import OutputExistsError, ReplayError
from replay.tables import SCHEMA_VERSION, TABLES

SAMPLES = oracle.CHECKOUT / "sample_traces"
PLAIN = SAMPLES / "plain" / "strace.log"
BLOCKED = SAMPLES / "blocked_break" / "strace.log"
SMALL_32 = SAMPLES / "run_32bit" / "strace.log"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory with two logs, one of them compressed, and files that are no traces."""
    folder = tmp_path / "logs"
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(PLAIN, folder / "plain.log")
    (folder / "deep" / "er" / "blocked.log.gz").write_bytes(gzip.compress(BLOCKED.read_bytes(), mtime=0))
    (folder / "notes.md").write_text("# Notes\n\nThe program prints this:\n\n    brk(NULL) = 0x1000\n\nand ends.\n" * 9)
    (folder / "core").write_bytes(bytes(range(256)) * 99)
    (folder / "empty").touch()
    return folder


def runs_of(place: Path) -> dict[str, dict[str, object]]:
    return {row["run"]: row for row in pq.read_table(place / "runs.parquet").to_pylist()}


def files_of(place: Path) -> dict[str, bytes]:
    """All files of a dataset by name, without what tells of this batch alone: the lock, when runs and logs came."""
    files = sorted(file for file in place.rglob("*") if file.is_file() and file.name != "lock")
    found = {str(file.relative_to(place)): file.read_bytes() for file in files}
    if "runs.parquet" in found:
        rows = pq.read_table(place / "runs.parquet").drop_columns(["added_at", "log_mtime"])
        found["runs.parquet"] = repr(rows.to_pylist()).encode()
    return found


def replay_command(*words: object) -> list[str]:
    return [sys.executable, "-m", "replay", *map(str, words)]


def run_command(*words: object, **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        replay_command(*words), cwd=oracle.CHECKOUT, capture_output=True, text=True, check=False, timeout=600, **how
    )


# ---- the layout ----


def test_layout_and_rows(logs: Path, tmp_path: Path) -> None:
    result = batch(logs, tmp_path / "set", jobs=0)
    assert sorted(result.written) == ["deep/er/blocked.log.gz", "plain.log"]
    assert (result.unchanged, result.errors) == ([], {})
    assert result.passed_over == {
        str(logs / "core"): "binary", str(logs / "empty"): "empty", str(logs / "notes.md"): "no calls"
    }  # fmt: skip
    names = ["deep%2Fer%2Fblocked.log.gz", "plain.log"]
    expected = [f"{table}/run={name}/part-0.parquet" for table in TABLES for name in names]
    assert sorted(files_of(tmp_path / "set")) == sorted(["runs.parquet", *expected])


def test_row_says_where_the_run_comes_from_and_its_summary(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    row = runs_of(tmp_path / "set")["deep/er/blocked.log.gz"]
    log = logs / "deep" / "er" / "blocked.log.gz"
    assert row["source"] == row["location"] == str(log)
    assert row["size_bytes"] == log.stat().st_size
    assert row["content_hash"] == hashlib.sha256(log.read_bytes()).hexdigest()
    assert (row["status"], row["error"], row["schema_version"]) == ("ok", None, SCHEMA_VERSION)
    assert row["brk_failures"] == 23
    assert {column.name for column in TABLES["summary"].columns} <= row.keys()


def test_tables_hold_what_one_run_exports_and_no_column_run(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    run = replay.load(logs / "plain.log")
    for table in TABLES:
        file = pq.ParquetFile(tmp_path / "set" / table / "run=plain.log" / "part-0.parquet")
        assert file.read() == run.arrow(table), table
        assert "run" not in file.schema_arrow.names
        assert file.schema_arrow.metadata[b"replay.schema_version"] == SCHEMA_VERSION.encode()
        for group in range(file.metadata.num_row_groups):
            columns = [file.metadata.row_group(group).column(at) for at in range(file.metadata.num_columns)]
            assert {column.compression for column in columns} == {"ZSTD" if file.metadata.num_rows >= 256 else "SNAPPY"}


def test_runs_are_sorted_and_its_columns_described(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    table = pq.read_table(tmp_path / "set" / "runs.parquet")
    assert table.column("run").to_pylist() == sorted(table.column("run").to_pylist())
    assert all({b"unit", b"meaning"} <= (field.metadata or {}).keys() for field in table.schema)
    assert table.schema.metadata[b"replay.schema_version"] == SCHEMA_VERSION.encode()


def test_same_logs_same_bytes_however_many_processes(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "one", jobs=0)
    batch(logs, tmp_path / "two", jobs=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_names_that_no_file_system_likes(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    odd = ["a=b&c d.log", "50%.log", "ü#1.log", "x" * 250, os.fsdecode(b"\xff.log")]
    folder.mkdir()
    for name in odd:
        shutil.copy(PLAIN, folder / name)
    batch(folder, tmp_path / "set", jobs=0)
    table = ds.dataset(tmp_path / "set" / "events", partitioning="hive").to_table(columns=["run"])
    told = set(table.column("run").to_pylist())
    assert told == set(runs_of(tmp_path / "set"))
    assert {"a=b&c d.log", "50%.log", "ü#1.log", "\\xff.log"} <= told
    assert batch(folder, tmp_path / "set", jobs=0).written == []


def test_others_read_the_dataset_as_one_table(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    rows = sum(pq.ParquetFile(file).metadata.num_rows for file in place.glob("regions/*/*.parquet"))
    frame = pd.read_parquet(place / "regions")
    assert len(frame) == rows
    assert set(frame["run"]) == {"deep/er/blocked.log.gz", "plain.log"}


def test_duckdb_reads_it(logs: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    batch(logs, tmp_path / "set", jobs=0)
    where = f"read_parquet('{tmp_path}/set/brk_failures/*/*.parquet', hive_partitioning=true)"
    found = duckdb.sql(
        f"select r.run, r.brk_failures, count(f.step) from '{tmp_path}/set/runs.parquet' r left join {where} f "
        "on f.run = r.run group by all order by all"
    ).fetchall()
    assert found == [("deep/er/blocked.log.gz", 23, 23), ("plain.log", 0, 0)]


def test_polars_reads_it(logs: Path, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    batch(logs, tmp_path / "set", jobs=0)
    counted = polars.scan_parquet(tmp_path / "set" / "brk_failures", hive_partitioning=True).group_by("run").len()
    assert counted.collect().rows() == [("deep/er/blocked.log.gz", 23)]


# ---- finding ----


def write_set(folder: Path, name: str, lines: dict[int, str]) -> None:
    folder.mkdir(exist_ok=True)
    for number, text in lines.items():
        (folder / f"{name}.{number}").write_text(text)


PARENT = (
    'execve("./p", ["./p"], 0x7ff) = 0\nbrk(NULL) = 0x1000\nfork() = 12\nexit_group(0) = ?\n+++ exited with 0 +++\n'
)
CHILD = "brk(NULL) = 0x1000\nexit_group(0) = ?\n+++ exited with 0 +++\n"
LONER = 'execve("./p", ["./p"], 0x7ff) = 0\nbrk(NULL) = 0x1000\nexit_group(0) = ?\n+++ exited with 0 +++\n'


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param({11: PARENT, 12: CHILD}, ["out"], id="a -ff set"),
        pytest.param({11: PARENT, 12: LONER}, ["out"], id="a child that begins with execve"),
        pytest.param({1: LONER, 2: LONER, 3: LONER}, ["out.1", "out.2", "out.3"], id="numbered runs"),
        pytest.param({1: "7 " + CHILD, 2: "9 " + CHILD}, ["out.1", "out.2"], id="rotated logs with pids"),
        pytest.param({7: "7 " + CHILD, 9: "9 " + CHILD}, ["out"], id="a -ff set with pids"),
        pytest.param({7: "12:00:01 " + CHILD, 9: "12:00:02.5 " + CHILD}, ["out"], id="a -ff set with times"),
        pytest.param({5: LONER}, ["out.5"], id="one file"),
    ],
)
def test_sets_are_told_by_their_lines(tmp_path: Path, lines: dict[int, str], names: list[str]) -> None:
    write_set(tmp_path / "logs", "out", lines)
    assert [run.name for run in finding.find_runs([str(tmp_path / "logs")])] == names


def test_set_is_one_run(tmp_path: Path) -> None:
    write_set(tmp_path / "logs", "out", {11: PARENT, 12: CHILD})
    result = batch(tmp_path / "logs", tmp_path / "set", jobs=0)
    assert result.written == ["out"]
    row = runs_of(tmp_path / "set")["out"]
    assert (row["processes"], row["source"]) == (2, str(tmp_path / "logs" / "out.*"))
    digests = [f"{hashlib.sha256(text.encode()).hexdigest()}  out.{pid}\n" for pid, text in ((11, PARENT), (12, CHILD))]
    assert row["content_hash"] == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_prefix_of_a_set_and_patterns(tmp_path: Path) -> None:
    write_set(tmp_path / "logs", "out", {11: PARENT, 12: CHILD})
    write_set(tmp_path / "logs" / "more", "one", {3: LONER})
    assert [run.name for run in finding.find_runs([str(tmp_path / "logs" / "out")])] == ["out"]
    assert [run.name for run in finding.find_runs([str(tmp_path / "logs" / "**" / "o*.3")])] == ["more/one.3"]
    both = finding.find_runs([str(tmp_path / "logs" / "out.11"), str(tmp_path / "logs" / "more")])
    assert [(run.name, run.named) for run in both] == [("more/one.3", False), ("out.11", True)]


def test_dataset_inside_the_logs_is_not_searched(logs: Path) -> None:
    batch(logs, logs / "set", jobs=0)
    shutil.copy(PLAIN, logs / "set" / "copy.log")
    assert [run.name for run in finding.find_runs([str(logs)]) if "copy" in run.name] == []


def test_names_do_not_depend_on_what_else_is_found(logs: Path) -> None:
    (logs / "plain.log").unlink()
    assert "deep/er/blocked.log.gz" in [run.name for run in finding.find_runs([str(logs)])]


# ---- bad logs ----


def test_bad_logs_do_not_stop_the_others(logs: Path, tmp_path: Path) -> None:
    (logs / "cut.gz").write_bytes(gzip.compress(BLOCKED.read_bytes() * 99)[:-900])
    named = [logs, logs / "missing.log"]
    result = batch(named, tmp_path / "set", jobs=0)
    assert len(result.written) == 2
    assert sorted(result.errors) == ["cut.gz", "missing.log"]
    rows = runs_of(tmp_path / "set")
    assert [rows[run]["status"] for run in sorted(rows)] == ["error", "ok", "error", "ok"]
    assert "broken compressed file" in str(rows["cut.gz"]["error"])
    assert rows["cut.gz"]["lines"] is None
    assert not (tmp_path / "set" / "events" / "run=cut.gz").exists()


def test_named_file_that_is_no_trace_is_an_error(logs: Path, tmp_path: Path) -> None:
    result = batch([logs / "core", logs / "empty", logs / "plain.log"], tmp_path / "set", jobs=0)
    assert (result.written, sorted(result.errors)) == (["plain.log"], ["core", "empty"])
    assert result.errors["core"].startswith("binary: ")
    assert result.errors["empty"].startswith("empty: ")


def test_bug_in_one_run_is_told_and_stops_no_other(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replayed(job: work.Job, paths: list[str]) -> object:
        if job.run == "plain.log":
            raise ZeroDivisionError("division by zero")
        return original(job, paths)

    original = work._replayed
    monkeypatch.setattr(work, "_replayed", replayed)
    result = batch(logs, tmp_path / "set", jobs=0)
    assert result.written == ["deep/er/blocked.log.gz"]
    assert "this is a bug of replay: ZeroDivisionError in test_batch.py" in result.errors["plain.log"]


def test_exit_status_names_how_many(logs: Path, tmp_path: Path) -> None:
    done = run_command("batch", logs, logs / "missing.log", "-o", tmp_path / "set")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "1 log could not be replayed" in done.stderr
    assert "missing.log: no such file" in done.stderr
    assert run_command("batch", logs, "-q", "-o", tmp_path / "other").stderr == ""


def test_fail_if(logs: Path, tmp_path: Path) -> None:
    done = run_command("batch", logs, "-q", "-o", tmp_path / "set", "--fail-if", "brk_failures > 5")
    assert done.returncode == 3
    assert "deep/er/blocked.log.gz: condition holds: brk_failures > 5" in done.stderr
    assert "plain.log" not in done.stderr
    assert run_command("batch", logs, "-q", "-o", tmp_path / "set", "--fail-if", "brk_failures > 99").returncode == 0


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with pytest.raises(ReplayError, match="no file in there"):
        batch(tmp_path / "logs", tmp_path / "set", jobs=0)
    assert not (tmp_path / "set").exists()


# ---- again ----


def test_unchanged_runs_are_kept_changed_ones_made_again(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    before = {name: (place / name).stat().st_mtime_ns for name in files_of(place)}
    again = batch(logs, place, jobs=0)
    assert (len(again.unchanged), again.written) == (2, [])
    assert {name: (place / name).stat().st_mtime_ns for name in files_of(place)} == before
    text = (logs / "plain.log").read_bytes()
    (logs / "plain.log").write_bytes(text.replace(b"PROT_READ", b"PROT_NONE", 1))
    changed = batch(logs, place, jobs=0)
    assert (changed.unchanged, changed.written) == (["deep/er/blocked.log.gz"], ["plain.log"])
    assert sorted(batch(logs, place, jobs=0, force=True).written) == ["deep/er/blocked.log.gz", "plain.log"]


def test_other_version_or_options_make_runs_again(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    assert len(batch(logs, tmp_path / "set", jobs=0, options=Options(page_size=16384)).written) == 2
    assert runs_of(tmp_path / "set")["plain.log"]["options"] == "--page-size 16384"
    assert len(batch(logs, tmp_path / "set", jobs=0).written) == 2
    monkeypatch.setattr(work, "__version__", "99.0")
    assert len(batch(logs, tmp_path / "set", jobs=0).written) == 2
    assert runs_of(tmp_path / "set")["plain.log"]["version"] == "99.0"


def test_lost_tables_are_made_again(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    batch(logs, place, jobs=0)
    whole = files_of(place)
    shutil.rmtree(place / "regions" / "run=plain.log")
    assert batch(logs, place, jobs=0).written == ["plain.log"]
    assert files_of(place) == whole


def test_errors_are_tried_again_and_a_run_that_breaks_loses_its_tables(logs: Path, tmp_path: Path) -> None:
    place, text = tmp_path / "set", (logs / "plain.log").read_bytes()
    batch(logs, place, jobs=0)
    whole = files_of(place)
    (logs / "plain.log").write_bytes(b"nothing of the kind\n")
    assert list(batch(logs, place, jobs=0).errors) == ["plain.log"]
    assert [name for name in files_of(place) if "plain" in name] == []
    (logs / "plain.log").write_bytes(text)
    assert batch(logs, place, jobs=0).written == ["plain.log"]
    assert files_of(place) == whole


def test_datasets_grow(logs: Path, tmp_path: Path) -> None:
    batch(logs / "plain.log", tmp_path / "set", jobs=0)
    batch(logs / "deep", tmp_path / "set", jobs=0)
    assert sorted(runs_of(tmp_path / "set")) == ["er/blocked.log.gz", "plain.log"]


def test_another_log_of_the_same_name_gets_a_name_of_its_own(tmp_path: Path) -> None:
    for folder, log in (("monday", PLAIN), ("tuesday", BLOCKED)):
        (tmp_path / folder).mkdir()
        shutil.copy(log, tmp_path / folder / "t.log")
    batch(tmp_path / "monday", tmp_path / "set", jobs=0)
    second = batch(tmp_path / "tuesday", tmp_path / "set", jobs=0).written
    assert second[0].startswith("t.log~")
    assert runs_of(tmp_path / "set")["t.log"]["location"] == str(tmp_path / "monday" / "t.log")
    assert batch(tmp_path / "tuesday", tmp_path / "set", jobs=0).unchanged == second


def test_moved_log_keeps_its_name(logs: Path, tmp_path: Path) -> None:
    batch(logs, tmp_path / "set", jobs=0)
    logs.rename(tmp_path / "elsewhere")
    result = batch(tmp_path / "elsewhere", tmp_path / "set", jobs=0)
    rows = runs_of(tmp_path / "set")
    assert sorted(rows) == sorted(result.written) == ["deep/er/blocked.log.gz", "plain.log"]
    assert rows["plain.log"]["location"] == str(tmp_path / "elsewhere" / "plain.log")


# ---- faults ----


def test_directory_that_is_no_dataset_is_refused(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="no dataset of replay"):
        batch(logs, logs / "deep", jobs=0)
    done = run_command("batch", logs, "-o", logs / "plain.log" / "set")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be written" in done.stderr or "cannot be read" in done.stderr


def test_log_that_changes_while_it_is_read(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(job: work.Job, paths: list[str]) -> object:
        run = original(job, paths)
        if job.run == "plain.log" and growths:
            growths.pop()
            with (logs / "plain.log").open("a") as log:
                log.write("brk(NULL) = 0x1000\n")
        return run

    original, growths = work._replayed, [1]
    monkeypatch.setattr(work, "_replayed", growing)
    batch(logs, tmp_path / "once", jobs=0)
    assert runs_of(tmp_path / "once")["plain.log"]["lines"] == 50
    growths = [1] * 9
    assert "changed while it was read" in batch(logs, tmp_path / "on", jobs=0).errors["plain.log"]
    assert not (tmp_path / "on" / "events" / "run=plain.log").exists()


def test_log_that_is_deleted_meanwhile(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = finding.find_runs([str(logs)])
    (logs / "plain.log").unlink()
    monkeypatch.setattr("replay.batch.run_batch.find_runs", lambda words, place: found)
    result = batch(logs, tmp_path / "set", jobs=0)
    assert result.written == ["deep/er/blocked.log.gz"]
    assert "No such file" in result.errors["plain.log"]


def test_full_disk_ends_the_batch_and_loses_nothing(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(self: LocalStore, file: Path, name: str) -> None:
        if "plain.log" in name and name.startswith("regions"):
            raise OSError(errno.ENOSPC, "no space")
        original(self, file, name)

    original = LocalStore._moved
    place = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "_moved", publish)
        with pytest.raises(UnwritableError, match=r"No space left on device; .* kept"):
            batch(logs, place, jobs=0)
    assert list(runs_of(place)) == ["deep/er/blocked.log.gz"] or not runs_of(place)
    assert [name for name in files_of(place) if "plain" in name] == []
    batch(logs, place, jobs=0)
    batch(logs, tmp_path / "fresh", jobs=0)
    assert files_of(place) == files_of(tmp_path / "fresh")


def test_two_batches_at_once(logs: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    with locking.locked(open_store(str(place))):
        with pytest.raises(locking.DatasetBusyError, match=f"process {os.getpid()} on .* is writing it"):
            batch(logs, place, jobs=0)
        done = run_command("batch", logs, "-o", place)
        assert (done.returncode, "another batch" in done.stderr) == (1, True)
    assert len(batch(logs, place, jobs=0).written) == 2


@pytest.mark.parametrize("stop_at", range(0, 24, 3))
def test_killed_between_any_two_files_the_next_batch_completes(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    class Killed(BaseException):
        pass

    def publish(self: LocalStore, file: Path, name: str) -> None:
        published.append(name)
        if len(published) > stop_at:
            raise Killed
        original(self, file, name)

    published: list[str] = []
    original = LocalStore._moved
    place = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "_moved", publish)
        with pytest.raises(Killed):
            batch(logs, place, jobs=0)
    batch(logs, place, jobs=0)
    batch(logs, tmp_path / "fresh", jobs=0)
    assert files_of(place) == files_of(tmp_path / "fresh")


def test_dead_worker_costs_one_run(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_START", KILLED_AT_PLAIN + pool._START)
    result = batch([logs, SMALL_32], tmp_path / "set", jobs=1)
    assert len(result.written) == 2
    (run,) = result.errors
    assert run.endswith("plain.log")
    assert "was killed by SIGKILL" in result.errors[run]


KILLED_AT_PLAIN = """
import os, signal, sys
sys.path[:] = {path!r}
import replay.batch.job as work
original = work._replayed
def replayed(job, paths):
    if job.run.endswith('plain.log'):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(job, paths)
work._replayed = replayed
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A directory with 40 small logs."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        shutil.copy((PLAIN, BLOCKED, SMALL_32)[number % 3], folder / f"t{number}.log")
    return folder


def started(folder: Path, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A batch that has some runs done, and not all."""
    process = subprocess.Popen(
        replay_command("batch", folder, "-o", place, "-j", 2), cwd=oracle.CHECKOUT, stderr=subprocess.PIPE, text=True
    )
    while len(list(place.glob("events/*/*.parquet"))) < 5 and process.poll() is None:
        time.sleep(0.01)
    yield process
    if process.poll() is None:
        process.kill()
    assert process.stderr is not None
    process.stderr.close()


def assert_whole(place: Path) -> int:
    """Every run that is listed is in every table, and no other is; return how many."""
    listed = {dataset.escaped(run) for run in runs_of(place)}
    for table in TABLES:
        assert {folder.name.removeprefix("run=") for folder in (place / table).iterdir()} == listed
    assert len(list(place.glob("*/run=*/part-0.parquet"))) == len(listed) * len(TABLES)
    return len(listed)


def test_interrupt_leaves_whole_runs(many: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    for process in started(many, place):
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert 5 <= assert_whole(place) < 40
    assert len(batch(many, place, jobs=0).written) < 40
    assert assert_whole(place) == 40


def test_killed_batch_is_completed_by_the_next(many: Path, tmp_path: Path) -> None:
    place = tmp_path / "set"
    for process in started(many, place):
        process.kill()
        process.wait(600)
    time.sleep(0.5)
    result = batch(many, place, jobs=0)
    assert (len(result.written) < 40, len(result.written) + len(result.unchanged)) == (True, 40)
    assert assert_whole(place) == 40
    batch(many, tmp_path / "fresh", jobs=0)
    assert files_of(place) == files_of(tmp_path / "fresh")


# ---- other file systems, other machines ----


def test_file_urls_are_paths(logs: Path, tmp_path: Path) -> None:
    batch(logs.as_uri(), (tmp_path / "url").as_uri(), jobs=0)
    batch(logs, tmp_path / "path", jobs=0)
    assert files_of(tmp_path / "url") == files_of(tmp_path / "path")


@pytest.mark.parametrize("scheme", ["mock:///", "fsspec+memory://"])
def test_dataset_and_logs_behind_urls(logs: Path, tmp_path: Path, scheme: str) -> None:
    if "fsspec" in scheme:
        pytest.importorskip("fsspec")
    try:
        store = open_store(f"{scheme}{tmp_path.name}/set")
    except ReplayError as error:
        pytest.skip(f"this pyarrow knows no such file system: {error}")
    for name, file in (("x/plain.log", "plain.log"), ("x/b.gz", "deep/er/blocked.log.gz"), ("x/no", "core")):
        copy_to(f"{scheme}{tmp_path.name}/logs", name, logs / file)
    url = f"{scheme}{tmp_path.name}/logs"
    result = batch(url, store.url, jobs=0)
    assert (sorted(result.written), len(result.passed_over)) == (["x/b.gz", "x/plain.log"], 1)
    assert batch(url, store.url, jobs=0).unchanged == result.written
    assert sorted(batch(f"{url}/*/*.gz", store.url, jobs=0, force=True).written) == ["x/b.gz"]
    runs = pq.read_table(pa.BufferReader(store.read("runs.parquet"))).to_pylist()
    assert [(row["source"], row["brk_failures"]) for row in runs] == [(f"{url}/x/b.gz", 23), (f"{url}/x/plain.log", 0)]
    assert store.names("events") == ["run=x%2Fb.gz", "run=x%2Fplain.log"]
    assert store.names("_replay") == []


def copy_to(url: str, name: str, file: Path) -> None:
    files, path = file_system(url)
    target = f"{path}/{name}"
    files.create_dir(target.rpartition("/")[0], recursive=True)
    with files.open_output_stream(target) as stream:
        stream.write(file.read_bytes())


def test_unknown_urls_are_told(tmp_path: Path) -> None:
    done = run_command("batch", "gopher://logs", "-o", tmp_path / "set")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "gopher://logs: cannot be used" in done.stderr


def test_lock_by_file_tells_the_dead_from_the_living(tmp_path: Path) -> None:
    store = open_store(f"mock:///{tmp_path.name}")
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid, held in ((dead.pid, False), (os.getpid(), True)):
        store.write(locking.LOCK, json.dumps({"host": locking.socket.gethostname(), "pid": pid}).encode())
        if held:
            with pytest.raises(locking.DatasetBusyError, match="if that is dead, remove"), locking.locked(store):
                pass
        else:
            with locking.locked(store):
                assert store.read(locking.LOCK)
            assert store.read(locking.LOCK) is None


@pytest.mark.slow
def test_dask_cluster(logs: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    shutil.copy(SMALL_32, logs)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        result = batch([logs, logs / "missing.log"], tmp_path / "far", scheduler=cluster.scheduler_address)
        again = batch(logs, tmp_path / "far", scheduler=cluster.scheduler_address)
    assert (len(result.written), list(result.errors), len(again.unchanged)) == (3, ["missing.log"], 3)
    batch([logs, logs / "missing.log"], tmp_path / "near", jobs=0)
    assert files_of(tmp_path / "far") == files_of(tmp_path / "near")


def test_no_scheduler_is_told(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("replay.batch.cluster.CONNECT_SECONDS", 1)
    with pytest.raises(ReplayError, match="no Dask scheduler answers there"):
        batch(logs, tmp_path / "set", scheduler="tcp://127.0.0.1:9")
    for address in ("foo://x", "", "tcp://host", "tcp://host:99999", "127.0.0.1:x"):
        with pytest.raises(ReplayError, match="no address of a Dask scheduler"):
            batch(logs, tmp_path / "set", scheduler=address)
