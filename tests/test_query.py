"""Questions over a dataset: ten by name, any in SQL, and the README's ways to read the same tables."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import oracle
import pandas as pd
import pytest
from fleet_maker import made_older, make_dataset, run_row, write_runs

import replay
from replay.console.screen import cells, shown
from replay.datasets.dataset import version_in
from replay.errors import QueryError, ReplayError
from replay.report.query import FORMATS, table_lines

duckdb = pytest.importorskip("duckdb")

from replay.batch import Upkeep, batch, compact  # noqa: E402
from replay.batch.storage import existing_store  # noqa: E402
from replay.datasets.questions import BY_NAME, QUESTIONS, QueryResult, ask  # noqa: E402

PLAIN = oracle.SAMPLES / "plain" / "strace.log"
BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LIMITED = oracle.SAMPLES / "run_32bit" / "strace.log"
LEAKY = oracle.SAMPLES / "ltrace" / "ltrace.log"


def command(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "replay", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=600, cwd=oracle.CHECKOUT, **how)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = {"001": PLAIN, "blocked/1": BLOCKED, "limited": LIMITED, "leaky": LEAKY}
    return make_dataset(tmp_path_factory.mktemp("fleet") / "ds", logs, {"broken": "no strace or ltrace log"})


def rows(dataset: Path | str, question: str) -> list[dict[str, Any]]:
    answer = ask(str(dataset), BY_NAME[question].sql if question in BY_NAME else question)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


# --- the questions ---------------------------------------------------------------------------------------------------


def test_there_are_ten_questions() -> None:
    assert len(QUESTIONS) == 10 == len(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_question_has_an_answer_in_80_columns(name: str, dataset: Path) -> None:
    done = command("query", dataset, name)
    assert done.returncode == 0, done.stderr
    assert max(map(cells, done.stdout.splitlines()), default=0) <= 80
    assert bool(done.stdout) != (BY_NAME[name].nothing in done.stderr)


def test_failed_breaks_are_those_of_the_runs(dataset: Path) -> None:
    found = {row["run"]: row for row in rows(dataset, "failed-breaks")}
    assert set(found) == {"blocked/1", "limited"}
    for name, log in {"blocked/1": BLOCKED, "limited": LIMITED}.items():
        failures = replay.load(log).brk_failures
        row = found[name]
        assert row["cause"] == failures["cause"].iloc[0]
        assert row["failures"] == len(failures)
        assert row["short_bytes"] == failures["shortfall_bytes"].sum()
        assert row["first_line"] == failures["line"].min()
        assert row["evidence"] == failures["evidence"].iloc[0]


def test_blockers_are_mappings_and_limits(dataset: Path) -> None:
    limit = replay.load(LIMITED).brk_failures["limit_bytes"].iloc[0]
    found = {row["in_the_way"]: row["first_run"] for row in rows(dataset, "blockers")}
    assert found == {"anonymous": "blocked/1", f"rlimit_data of {limit} bytes": "limited"}


def test_fallbacks_are_added_up_by_program(dataset: Path) -> None:
    (found,) = rows(dataset, "fallbacks")
    summaries = [replay.load(log).summary_values for log in (BLOCKED, LIMITED)]
    assert (found["program"], found["runs"], found["worst_run"]) == ("prog", 2, "blocked/1")
    for column, of in (
        ("fallbacks", "mmap_fallbacks"),
        ("refused", "mmap_fallbacks_refused"),
        ("bytes", "mmap_fallback_bytes"),
    ):
        assert found[column] == sum(summary[of] for summary in summaries)


def test_the_largest_footprint_comes_first(dataset: Path) -> None:
    peaks = [row["peak_mapped_bytes"] for row in rows(dataset, "footprint")]
    assert len(peaks) == 4
    assert peaks == sorted(peaks, reverse=True)


def test_the_worst_fragmentation_comes_first(tmp_path: Path) -> None:
    summary = replay.load(PLAIN).summary_values
    heaps = {"a": None, "b": 0.2, "c": 0.9, "d": None}
    spaces = {"a": 0.5, "b": 0.1, "c": 0.1, "d": 0.6}
    write_runs(
        tmp_path,
        [
            run_row(run, run, "ok", None)
            | summary
            | {"heap_fragmentation": heaps[run], "address_fragmentation": spaces[run]}
            for run in heaps
        ],
    )
    assert [row["run"] for row in rows(tmp_path, "fragmentation")] == ["c", "b", "d", "a"]


def test_leaks_are_the_live_blocks_by_call_site(dataset: Path) -> None:
    blocks = replay.load(LEAKY).blocks
    live = blocks[blocks["end"] == "live"]
    found = rows(dataset, "leaks")
    assert sum(row["blocks"] for row in found) == len(live)
    assert sum(row["bytes"] for row in found) == live["size"].sum()


def test_direct_mmaps_come_the_largest_first(dataset: Path) -> None:
    found = rows(dataset, "direct-mmaps")
    assert found
    assert [row["bytes"] for row in found] == sorted((row["bytes"] for row in found), reverse=True)


def test_growth_is_told_version_by_version_in_their_order(tmp_path: Path) -> None:
    summary = replay.load(PLAIN).summary_values
    peaks = {"app-1.9.log": 100, "app-1.9b/x": 5, "app-1.10.log": 110, "b/v2/app.log": 132, "app": 7}
    runs = [run_row(name, name, "ok", None) | summary | {"peak_mapped_bytes": peak} for name, peak in peaks.items()]
    write_runs(tmp_path, runs)
    found = [(row["version"], row["peak_mapped_bytes"], row["per_cent"]) for row in rows(tmp_path, "growth")]
    assert found == [("1.9", 100, None), ("1.10", 110, 10.0), ("v2", 132, 20.0)]


def test_growth_counts_no_failed_breaks_of_logs_that_show_no_breaks(tmp_path: Path) -> None:
    summary = replay.load(PLAIN).summary_values | {"brk_failures": 0}
    runs = [
        run_row("v1", "v1", "ok", None) | summary,
        run_row("v2", "v2", "ok", None) | summary | {"brk_calls": 0},
    ]
    write_runs(tmp_path, runs)
    assert [row["brk_failures"] for row in rows(tmp_path, "growth")] == [0, None]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.10/plain.log", "v1.10"),
        ("app-1.4.10.log", "1.4.10"),
        ("nightly_v7_x", "v7"),
        ("test7.log", ""),
        ("run.12345", ""),
        ("strace.log.4711", ""),
        ("dev1.2", ""),
    ],
)
def test_a_version_is_seen_in_a_name_alike_by_python_and_duckdb(text: str, version: str, tmp_path: Path) -> None:
    assert version_in(None, "", text) == version
    write_runs(tmp_path, [run_row(text, "log", "ok", None)])
    assert [row["version"] for row in rows(tmp_path, "growth")] == ([version] if version else [])


def test_problems_are_told_by_reason(tmp_path: Path) -> None:
    log = tmp_path / "odd.log"
    log.write_text(PLAIN.read_text() + "what is this(\n")
    dataset = make_dataset(tmp_path / "ds", {"odd": log, "plain": PLAIN})
    problems = replay.load(log).problems
    found = rows(dataset, "problems")
    assert sum(row["problems"] for row in found) == len(problems) > 0
    assert {row["first_run"] for row in found} == {"odd"}


def test_errors_are_the_logs_that_could_not_be_read(dataset: Path) -> None:
    assert rows(dataset, "errors") == [{"run": "broken", "source": "broken.log", "error": "no strace or ltrace log"}]


# --- SQL -------------------------------------------------------------------------------------------------------------


def test_an_interrupt_is_heard_while_duckdb_works_long_in_one_go(dataset: Path) -> None:
    main = threading.main_thread().ident
    assert main is not None
    alarm = threading.Timer(2, signal.pthread_kill, (main, signal.SIGINT))
    alarm.start()
    # each pair must be looked at: of a sum that is asked for, DuckDB makes a join that is over at once
    with pytest.raises(KeyboardInterrupt):
        ask(str(dataset), "SELECT sum(a.range * b.range % 7) FROM range(300000) a, range(300000) b")
    alarm.join()


def test_sql_sees_every_table_with_the_name_of_the_run(dataset: Path) -> None:
    found = rows(dataset, "SELECT run, count(*) AS steps FROM events GROUP BY run ORDER BY run")
    logs = {"001": PLAIN, "blocked/1": BLOCKED, "leaky": LEAKY, "limited": LIMITED}
    assert {row["run"]: row["steps"] for row in found} == {
        name: len(replay.load(log).events) for name, log in logs.items()
    }
    assert len(rows(dataset, "SHOW TABLES")) == 11


def test_a_table_that_no_run_has_is_empty(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "ds", {}, {"broken": "unreadable"})
    assert rows(dataset, "SELECT * FROM events JOIN runs USING (run)") == []
    for question in QUESTIONS:
        assert rows(dataset, question.name) == [] or question.name == "errors"


def test_an_exported_run_answers_too(tmp_path: Path) -> None:
    replay.load(BLOCKED).export(tmp_path / "blocked")
    assert [row["run"] for row in rows(tmp_path / "blocked", "failed-breaks")] == ["blocked"]
    assert [row["run"] for row in rows(tmp_path / "blocked", "footprint")] == ["blocked"]


def test_a_dataset_may_be_a_url(dataset: Path) -> None:
    assert rows(f"file://{dataset}", "failed-breaks") == rows(dataset, "failed-breaks")


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "SELECT * FROM nothing", "SELECT nothing FROM runs", "SELECT CAST(run AS INT) FROM runs"]
)
def test_sql_that_fails_is_said_without_a_traceback(sql: str, dataset: Path) -> None:
    with pytest.raises(QueryError, match=r"DuckDB cannot answer that(.|\n)*The tables are runs, events"):
        rows(dataset, sql)
    done = command("query", dataset, sql)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "ds", {"plain": PLAIN})
    (dataset / "events" / "run=plain" / "part-0.parquet").write_bytes(b"PAR1 no PAR1")
    done = command("query", dataset, "SELECT count(call) FROM events")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    (dataset / "runs.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(ReplayError, match="cannot be read"):
        rows(dataset, "footprint")


def test_what_batch_makes_is_what_is_asked(tmp_path: Path) -> None:
    for name, log in {"v1.9/app": PLAIN, "v1.10/app": BLOCKED}.items():
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "trace.log").write_bytes(log.read_bytes())
    made = command("batch", tmp_path / "logs", "-o", tmp_path / "ds", "--fail-if", "brk_failures > 0")
    assert made.returncode == 3
    failures = replay.load(BLOCKED).brk_failures
    (found,) = rows(tmp_path / "ds", "failed-breaks")
    assert found["failures"] == len(failures)
    assert (
        f"{found['run']}:   brk_failures > 0: {len(failures)} > 0 (first in line {failures['line'].min()})"
        in made.stderr
    )
    assert [row["version"] for row in rows(tmp_path / "ds", "growth")] == ["v1.9", "v1.10"]
    compared = command(
        "compare", f"{tmp_path}/ds#v1.9/*", f"{tmp_path}/ds#v1.10/*", "--fail-if", "change.brk_failures > 0"
    )
    assert compared.returncode == 3
    line = f"first in line {failures['line'].min()} of {tmp_path}/ds#v1.10/*"
    assert line in compared.stderr
    assert command("dashboard", tmp_path / "ds", "-o", tmp_path / "fleet.html").returncode == 0


# --- the command -----------------------------------------------------------------------------------------------------


def test_csv_and_json_hold_the_same_rows(dataset: Path) -> None:
    expected = rows(dataset, "failed-breaks")
    assert json.loads(command("query", dataset, "failed-breaks", "--format", "json").stdout) == expected
    read = list(csv.DictReader(io.StringIO(command("query", dataset, "failed-breaks", "--format", "csv").stdout)))
    assert read == [{name: str(value) for name, value in row.items()} for row in expected]


@pytest.mark.parametrize("format", FORMATS)
def test_odd_values_can_be_printed(format: str) -> None:
    odd = [None, float("nan"), float("inf"), 2**70, 'a,"b"\n\x1b[31m</script>', [1, None], {"a": 1}, True, b"x"]
    answer = QueryResult(tuple(f"column_{at}" for at in range(len(odd))), iter([tuple(odd)]))
    stream = io.StringIO()
    assert FORMATS[format](answer, stream) == 1
    text = stream.getvalue()
    if format == "json":
        (row,) = json.loads(text)
        assert row["column_1"] is None
        assert row["column_4"] == odd[4]
    if format == "csv":
        assert list(csv.reader(io.StringIO(text)))[1][4] == odd[4]
    if format == "table":
        assert "\x1b" not in text


def test_a_table_is_never_wider_than_80_columns() -> None:
    for columns in range(1, 30):
        values = [("long text " * columns, 2**40, "x" * 60, 0.123456)[at % 4] for at in range(columns)]
        names = [f"a_long_name_of_column_{at}" for at in range(columns)]
        assert max(map(cells, shown(table_lines(names, [values, values]), colour=False))) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--list",), 0, "failed-breaks"),
        (("{ds}",), 0, "failed-breaks"),
        (("{ds}", "leeks"), 2, "did you mean leaks"),
        ((), 2, "--list"),
        (("{ds}/events", "leaks"), 1, "neither a dataset"),
        (("absent", "leaks"), 1, "neither a dataset"),
        (("{ds}", "leaks", "--format", "xml"), 2, "xml"),
    ],
)
def test_exit_statuses(arguments: tuple[str, ...], status: int, said: str, dataset: Path) -> None:
    done = command("query", *(argument.format(ds=dataset) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_without_duckdb_the_message_says_how_to_install_it(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path), str(oracle.CHECKOUT)])
    done = command("query", dataset, "leaks", env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 1
    assert "pip install '.[sql]'" in done.stderr


# --- the README's ways to read a dataset -----------------------------------------------------------------------------

README = (oracle.CHECKOUT / "README.md").read_text(encoding="utf-8")
SNIPPETS = {
    library: re.findall(rf"```python\n((?:import|from) {library}\b.*?)```", README, re.DOTALL)[0]
    for library in ("pandas", "duckdb", "polars", "pyspark")
}


@pytest.mark.parametrize("state", ["folders", "compacted", "of several versions", "grown and pruned"])
@pytest.mark.parametrize("library", SNIPPETS)
def test_other_readers_see_the_same_tables(library: str, state: str, dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip(library)
    if library == "pyspark" and shutil.which("java") is None:
        pytest.skip("no java")
    place = tmp_path / "fleet"
    shutil.copytree(dataset, place)
    if state == "of several versions":
        made_older(place, "blocked/1", "owner", "blocker")
    if state != "folders":
        compact(existing_store(str(place)))
    if state == "grown and pruned":
        shutil.copy(BLOCKED, tmp_path / "new.log")
        batch(tmp_path / "new.log", place, jobs=0)
        (tmp_path / "new.log").unlink()
        shutil.copy(PLAIN, tmp_path / "other.log")
        batch(tmp_path / "other.log", place, jobs=0, how=Upkeep(prune=True, flat=True))
    done = run_python(SNIPPETS[library], tmp_path)
    assert done.returncode == 0, done.stderr
    for row in rows(place, "failed-breaks"):
        assert row["run"].partition("/")[0] in done.stdout
        assert str(row["failures"]) in done.stdout
        assert str(row["short_bytes"]) in done.stdout


def run_python(code: str, place: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", code]
    return subprocess.run(line, cwd=place, capture_output=True, text=True, check=False, timeout=600)


def test_the_joins_of_the_readme_find_the_mapping_in_the_way(dataset: Path) -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    found = [row for row in rows(dataset, sql) if row["run"] == "blocked/1"]
    assert len(found) == len(replay.load(BLOCKED).brk_failures)
    assert {(row["blocker"], row["size_bytes"], row["blocks"]) for row in found} == {("anonymous", 4096, 0)}
    assert all("MAP_FIXED" in row["flags"] for row in found)


def test_the_database_of_the_readme_has_the_tables(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "fleet").symlink_to(dataset)
    (code,) = re.findall(r"```python\n(import duckdb\n\nwith .*?)```", README, re.DOTALL)
    assert run_python(code, tmp_path).returncode == 0
    with duckdb.connect(str(tmp_path / "fleet.duckdb")) as database:
        failures = database.sql("SELECT run, count(*) FROM brk_failures GROUP BY run ORDER BY run").fetchall()
    assert failures == [(row["run"], row["failures"]) for row in sorted(rows(dataset, "failed-breaks"), key=str)]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{place}/f'",
        "ATTACH '{place}/x.db'",
        "EXPORT DATABASE '{place}/e'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "COPY runs TO '{place}/f'",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM arrow_scan_dumb(NULL, NULL, NULL)",
        "PREPARE scan AS SELECT * FROM arrow_scan(?, ?, ?); EXECUTE scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)",
        "FROM python_map_function((SELECT 1))",
        "CREATE MACRO f(p) AS TABLE SELECT * FROM read_text(p); SELECT * FROM f('/etc/passwd')",
        "SELECT getenv('HOME')",
        "CREATE PERSISTENT SECRET s (TYPE s3)",
        "PRAGMA profiling_output = '{place}/f'",
        "CALL enable_logging(storage = 'file', storage_path = '{place}/f')",
        "SELECT * FROM location",
        "SET enable_external_access = true",
        "SET python_enable_replacements = true; SELECT * FROM dataset",
    ],
)
def test_sql_reaches_nothing_but_the_tables(sql: str, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(QueryError):
        rows(dataset, sql.format(place=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_csv_for_spreadsheets_has_no_formulas(dataset: Path, tmp_path: Path) -> None:
    sql = "SELECT '=1+1' AS a, '-5' AS b, -5 AS c, 'x=1' AS d, '' AS e"
    plain, safe = (command("query", dataset, sql, *words).stdout for words in (("--as", "csv"), ("--safe-csv",)))
    assert plain.splitlines()[1:] == ["=1+1,-5,-5,x=1,"]
    assert safe.splitlines()[1:] == ["'=1+1,'-5,-5,x=1,"]
    log = tmp_path / "odd.log"
    log.write_text(PLAIN.read_text() + "=cmd|' /C calc'!A0(\n")
    assert command("export", log, "-o", tmp_path / "out", "--format", "csv", "--safe-csv").returncode == 0
    assert "\"'=cmd" in (tmp_path / "out" / "problems.csv").read_text()


def test_pandas_reads_the_runs(dataset: Path) -> None:
    runs = pd.read_parquet(dataset / "runs.parquet")
    assert set(runs["status"]) == {"ok", "error"}


def test_the_questions_as_json() -> None:
    listed = json.loads(command("query", "--list", "--json").stdout)
    assert [question["name"] for question in listed] == list(BY_NAME)
    assert all(question["meaning"] and "FROM" in question["sql"] for question in listed)
