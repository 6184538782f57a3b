"""Two sides compared: what stands on a side, what is aligned, what is new or gone, what chance may explain."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from fleet_maker import make_dataset, run_row, write_runs

import replay
from replay.console.screen import cells, shown
from replay.datasets.comparison import Comparison, Pairs, Row, Spread, _spread, _stretches
from replay.datasets.sides import side
from replay.errors import QueryError, ReplayError
from replay.report.compare import comparison_lines
from replay.report.compare_json import comparison_document
from replay.report.compare_words import per_cent
from replay.tables import TABLES

PLAIN = oracle.SAMPLES / "plain" / "strace.log"
BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LIMITED = oracle.SAMPLES / "run_32bit" / "strace.log"


def compare(before: object, after: object) -> Comparison:
    return Comparison(side(str(before)), side(str(after)))


def text_of(found: Comparison) -> list[str]:
    return list(shown(comparison_lines(found), colour=False))


def command(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "replay", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=600, cwd=oracle.CHECKOUT, **how)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = {"v1-app": PLAIN, "v1-big": LIMITED, "v2-app": BLOCKED, "odd name/with = all": PLAIN}
    return make_dataset(tmp_path_factory.mktemp("fleet") / "ds", logs, {"broken": "no strace or ltrace log"})


# --- what stands on a side -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["trace", "parquet", "csv", "#", "run=", "TABLE/run=", "file://"])
def test_a_run_is_the_same_however_it_is_named(how: str, dataset: Path, tmp_path: Path) -> None:
    named: object = {
        "trace": BLOCKED,
        "#": f"{dataset}#v2-app",
        "run=": f"{dataset}/run=v2-app",
        "TABLE/run=": f"{dataset}/events/run=v2-app/",
        "file://": f"file://{dataset}#v2-app",
    }.get(how, tmp_path / "run")
    if how in ("parquet", "csv"):
        replay.load(BLOCKED).export(tmp_path / "run", format=how)
    document = comparison_document(compare(PLAIN, named))
    expected = comparison_document(compare(PLAIN, BLOCKED))
    for key in ("summary", "texts"):
        assert document[key] == expected[key]
    assert document["curves"]["columns"] == expected["curves"]["columns"]
    assert [group["what"] for group in document["brk_failures"]] == ["new"]


def test_a_dataset_is_all_its_runs_that_could_be_read(dataset: Path) -> None:
    assert list(side(str(dataset)).summaries) == ["odd name/with = all", "v1-app", "v1-big", "v2-app"]
    assert list(side(f"{dataset}#v1-*").summaries) == ["v1-app", "v1-big"]
    assert list(side(f"{dataset}#odd name/with = all").summaries) == ["odd name/with = all"]
    table = side(f"{dataset}#odd*").table("events", ["step"])
    assert set(table["run"].to_pylist()) == {"odd name/with = all"}


@pytest.mark.parametrize(
    ("named", "error", "complaint"),
    [
        ("{ds}#nothing", QueryError, "no run 'nothing'; its runs are broken, "),
        ("{ds}#broken", ReplayError, "no run of it could be read: no strace or ltrace log"),
        ("{ds}#v=5", QueryError, "(its runs have no labels|no run has the label v=5)"),
        ("{ds}/../..#v=5", ReplayError, "no dataset that `replay batch` wrote, so it has no runs 'v=5'"),
        ("{ds}/events", ReplayError, "neither summary.parquet"),
        ("{ds}/absent.log", ReplayError, "absent.log"),
    ],
)
def test_what_cannot_stand_on_a_side_is_said(
    named: str, error: type[ReplayError], complaint: str, dataset: Path
) -> None:
    with pytest.raises(error, match=complaint):
        side(named.format(ds=dataset))


@pytest.mark.parametrize("damage", ["summary", "brk_failures"])
def test_a_damaged_export_is_said(damage: str, tmp_path: Path) -> None:
    replay.load(PLAIN).export(tmp_path / "run")
    (tmp_path / "run" / f"{damage}.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ReplayError, match=f"{damage}.parquet: cannot be read"):
        text_of(compare(PLAIN, tmp_path / "run"))


# --- one run with one run --------------------------------------------------------------------------------------------


def test_every_number_of_the_summary_is_aligned() -> None:
    before, after = replay.load(PLAIN).summary_values, replay.load(BLOCKED).summary_values
    rows = {row["column"]: row for row in comparison_document(compare(PLAIN, BLOCKED))["summary"]}
    for column in TABLES["summary"].columns:
        if column.unit not in ("bytes", "ns", "count", "ratio") or before.get(column.name) is None:
            continue
        row = rows[column.name]
        assert (row["before"], row["after"]) == (before[column.name], after[column.name])
        assert row["change"] == after[column.name] - before[column.name]
        assert row["share"] == (row["change"] / before[column.name] if before[column.name] else None)
        assert row["apart"] is None


def test_failures_and_fallbacks_are_new_gone_or_both() -> None:
    new = compare(PLAIN, BLOCKED)
    assert [(group.what, group.key) for group in new.failures] == [("new", ("mapping_above", "anonymous"))]
    run = replay.load(BLOCKED)
    after = new.failures[0].after
    assert after is not None
    assert (after.rows, after.runs) == (len(run.brk_failures), 1)
    assert after.line == run.brk_failures["line"].min()
    assert after.bytes == run.brk_failures["shortfall_bytes"].sum()
    assert [group.key for group in new.fallbacks] == [("fallback", "glibc", "")]
    gone = compare(BLOCKED, PLAIN)
    assert [group.what for group in [*gone.failures, *gone.fallbacks]] == ["gone", "gone"]
    both = compare(BLOCKED, BLOCKED)
    assert [group.what for group in [*both.failures, *both.fallbacks]] == ["both", "both"]
    other = compare(BLOCKED, LIMITED)
    assert [(group.what, group.key[0]) for group in other.failures] == [
        ("new", "rlimit_data"),
        ("gone", "mapping_above"),
    ]


def test_the_verdict_of_both_sides_stands_first() -> None:
    lines = text_of(compare(PLAIN, BLOCKED))
    assert lines[1].strip() == "no brk refused"
    assert lines[3].strip() == "brk refused 23 of 33 times (mapping above), 23 fallbacks to mmap"


def test_rows_of_nothing_are_left_out_and_randomisation_is_no_change() -> None:
    found = compare(PLAIN, BLOCKED)
    lines, every = text_of(found), list(shown(comparison_lines(found, all_rows=True), colour=False))
    assert not any(line.startswith("  heaps of arenas ") for line in lines)
    assert any(line.split() == ["heaps", "of", "arenas", "0", "0", "="] for line in every)
    (gap,) = (line.split() for line in lines if line.startswith("  least largest gap"))
    assert gap[-1] == "~"  # 41.8 TiB and 40.9 TiB: both from where the kernel put things
    (headroom,) = (line.split() for line in lines if line.startswith("  least headroom"))
    assert headroom[-2:] == ["-41.8", "TiB"]  # none at all is no accident, but of what chance laid no share is told


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(100, 150, "+50.0 %"), (0, 5, "new"), (5, 5, ""), (1, 20_312, ""), (10, 0, "-100.0 %")],
)
def test_per_cent_stands_where_it_means_something(before: int, after: int, said: str) -> None:
    spreads = [Spread(1, value, value, value, value, value) for value in (before, after)]
    column = next(column for column in TABLES["summary"].columns if column.name == "peak_mapped_bytes")
    assert per_cent(Row(column, *spreads, None)) == said


def test_the_screen_says_first_what_changed() -> None:
    lines = text_of(compare(PLAIN, BLOCKED))
    count = len(replay.load(BLOCKED).brk_failures)
    at = lines.index("What changed")
    assert lines[at + 1] == f"  Failed brk calls: 0 before, {count} after; causes: 1 new."
    assert any(line.split()[:3] == ["new", "-", str(count)] for line in lines)
    assert any(line.startswith("  mapped ") and "before" in line and "▁" in line for line in lines)


def test_equal_runs_have_nothing_to_tell() -> None:
    lines = text_of(compare(PLAIN, PLAIN))
    assert lines[lines.index("What changed") + 1] == "  Nothing that the summary counts."


def test_the_page_is_80_columns_wide_and_plain_in_a_pipe(dataset: Path) -> None:
    for sides in ((PLAIN, BLOCKED), (dataset, dataset), (f"{dataset}#v1-*", PLAIN)):
        done = command("compare", *sides)
        assert done.returncode == 0, done.stderr
        assert max(map(cells, done.stdout.splitlines())) <= 80
        assert "\x1b" not in done.stdout


def test_curves_are_cut_into_stretches_of_the_log() -> None:
    values = _stretches(np.arange(0, 96, 2), np.arange(48.0))
    assert values.tolist() == list(range(48))
    few = _stretches(np.array([0, 47]), np.array([3.0, 1.0]))
    assert few.tolist() == [3.0] * 47 + [1.0]
    late = _stretches(np.array([0, 24, 47]), np.array([math.nan, 5.0, 2.0]))
    assert np.isnan(late[:24]).all()
    assert late[24:].tolist() == [5.0] * 23 + [2.0]


# --- many runs -------------------------------------------------------------------------------------------------------


def row(before: list[float], after: list[float]) -> Row:
    sides = [_spread({str(at): value for at, value in enumerate(values)}) for values in (before, after)]
    return Row(TABLES["summary"].columns[5], sides[0], sides[1], None)


def test_a_spread_is_median_and_quartiles() -> None:
    assert _spread({"a": 1, "b": 2, "c": 3, "d": 4, "e": 100}) == Spread(5, 1, 2, 3, 4, 100)
    assert _spread({}) is None
    assert _spread({"a": 2**60 + 1}) == Spread(1, *[2**60 + 1] * 5)


@pytest.mark.parametrize(
    ("before", "after", "apart"),
    [
        ([1, 2, 3, 4, 5], [11, 12, 13, 14, 15], True),
        ([1, 2, 3, 4, 5], [3, 4, 5, 6, 7], False),
        ([1, 2, 3, 4, 100], [11, 12, 13, 14, 15], True),
        ([5], [1, 2, 3, 4, 6], False),
        ([7], [1, 2, 3, 4, 6], True),
        ([5], [6], None),
        ([5, 5, 5], [5, 5, 5], False),
    ],
)
def test_sides_are_apart_where_their_middle_halves_are(
    before: list[float], after: list[float], apart: bool | None
) -> None:
    assert row(before, after).apart is apart


def test_chance_is_the_sign_test() -> None:
    assert Pairs(0, 0, 5, None).chance == 1
    assert Pairs(1, 1, 0, None).chance == 1
    assert Pairs(10, 0, 3, None).chance == pytest.approx(2 / 1024)
    assert Pairs(1, 9, 0, None).chance == pytest.approx(2 * 11 / 1024)
    exact = 2 * sum(math.comb(2000, count) for count in range(951)) / 2**2000
    assert Pairs(950, 1050, 0, None).chance == pytest.approx(exact, rel=0.02)


def fleet(directory: Path, peaks: dict[str, int]) -> Path:
    """Make a dataset of which only the summary is known."""
    summary = replay.load(PLAIN).summary_values
    directory.mkdir()
    rows = [run_row(name, name, "ok", None) | summary | {"peak_mapped_bytes": peak} for name, peak in peaks.items()]
    write_runs(directory, rows)
    return directory


def test_runs_of_one_name_are_compared_with_each_other(tmp_path: Path) -> None:
    # The programs differ by far more than the change: their spreads overlap, each run grows all the same.
    before = {f"test{at}": 1000 * 2**at for at in range(10)}
    after = {name: round(peak * 1.1) for name, peak in before.items()} | {"another": 5}
    found = compare(fleet(tmp_path / "a", before), fleet(tmp_path / "b", after))
    rows = {entry.column.name: entry for entry in found.rows}
    peak = rows["peak_mapped_bytes"]
    assert peak.apart is False
    assert peak.pairs is not None
    assert (peak.pairs.up, peak.pairs.down, peak.pairs.same) == (10, 0, 0)
    assert peak.pairs.median_share == pytest.approx(0.1, abs=0.001)
    lines = text_of(found)
    assert "  10 runs of the same name on both sides (0 runs are before only, 1 after only):" in lines
    (line,) = [line for line in lines if line.split()[:4] == ["peak", "mapped", "10", "0"]]
    assert line.split()[-2:] == ["0.20", "%"]


def test_names_that_differ_in_their_versions_are_pairs(tmp_path: Path) -> None:
    names = [f"{version}/test{at}.log" for version in ("v1.9", "v1.10") for at in range(3)]
    dataset = fleet(tmp_path / "a", {name: 1000 + at for at, name in enumerate(names)})
    found = compare(f"{dataset}#v1.9/*", f"{dataset}#v1.10/*")
    assert found.paired == [(f"v1.9/test{at}.log", f"v1.10/test{at}.log") for at in range(3)]
    assert "  3 runs of the same name but for the version on both sides:" in text_of(found)
    assert compare(dataset, f"{dataset}#*test1*").paired == [(f"{v}/test1.log",) * 2 for v in ("v1.10", "v1.9")]


def test_conditions_on_many_runs_are_on_their_medians(tmp_path: Path) -> None:
    before, after = (
        fleet(tmp_path / "a", {"a": 1, "b": 100, "c": 900}),
        fleet(tmp_path / "b", {"a": 1, "b": 120, "c": 90000}),
    )
    assert command("compare", before, after, "--fail-if", "change.peak_mapped_bytes > 20%").returncode == 0
    held = command("compare", before, after, "--fail-if", "change.peak_mapped_bytes >= 20%")
    assert held.returncode == 3
    assert "change.peak_mapped_bytes >= 20%: +20 % (100 bytes to 120 bytes) >= 20 %" in held.stderr


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_condition_that_holds_ends_with_status_3_and_says_where() -> None:
    line = int(replay.load(BLOCKED).brk_failures["line"].min())
    conditions = ("--fail-if", "change.brk_failures > 0", "--fail-if", "after.lines < 1")
    done = command("compare", PLAIN, BLOCKED, *conditions)
    assert done.returncode == 3
    assert "What changed" in done.stdout
    assert done.stderr.splitlines()[0] == "replay: condition holds: change.brk_failures > 0"
    assert done.stderr.splitlines()[1].endswith(f"> 0 (first in line {line} of {BLOCKED})")
    assert len(done.stderr.splitlines()) == 2
    assert command("compare", BLOCKED, PLAIN, *conditions).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("compare", PLAIN), 2),
        (("compare", PLAIN, BLOCKED, "--fail-if", "change.brk_failurs > 0"), 2),
        (("compare", PLAIN, "absent.log"), 1),
        (("report", PLAIN, "--fail-if", "brk_failures > 0"), 0),
        (("report", BLOCKED, "--fail-if", "brk_failures > 0"), 3),
        (("report", BLOCKED, "--fail-if", "change.brk_failures > 0"), 2),
    ],
)
def test_exit_statuses(arguments: tuple[object, ...], status: int) -> None:
    done = command(*arguments)
    assert done.returncode == status
    assert "Traceback" not in done.stderr


def test_json_is_one_document_with_the_conditions() -> None:
    done = command("compare", PLAIN, BLOCKED, "--json", "--fail-if", "brk_failures > 0")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert document["before"] == {"label": str(PLAIN), "kind": "trace", "runs": [str(PLAIN)]}
    (condition,) = document["conditions"]
    assert condition["holds"]
    assert condition["reasons"][0]["comparison"] == "after.brk_failures > 0"
    assert len(document["curves"]["columns"]["mapped_bytes"]["before"]) == 48
