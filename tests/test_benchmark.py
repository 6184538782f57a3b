"""The logs of the benchmark are what they claim to be; how fast they are read is measured by `benchmark/run.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark import fleet, logs

import replay

WITH_PROBLEMS = {"problems", "divergences"}
PROCESSES = {"processes": 211, "chained forks": 420, "forks of many mappings": 211}


@pytest.mark.parametrize("name", logs.WORST)
def test_a_worst_case_is_read_whole(name: str, tmp_path: Path) -> None:
    run = replay.load(logs.write(tmp_path / "worst.log", logs.WORST[name](840)))
    summary = run.summary.iloc[0]
    assert 800 <= summary["lines"] <= 880
    assert len(run.problems) == (420 if name in WITH_PROBLEMS else 0), run.problems.head()
    assert summary["processes"] == PROCESSES.get(name, 1)


def test_a_set_of_many_files_is_read_whole(tmp_path: Path) -> None:
    run = replay.load(logs.write_set(tmp_path / "set", 840))
    summary = run.summary.iloc[0]
    assert run.problems.empty
    assert (summary["lines"], summary["processes"]) == (840, 41)


def test_ordinary_log_has_one_memory_call_in_eight(tmp_path: Path) -> None:
    run = replay.load(logs.write(tmp_path / "ordinary.log", logs.ordinary(4000)))
    assert run.problems.empty
    assert run.summary.iloc[0]["lines"] == 4000
    assert int(run.events["call"].isin(["mmap", "munmap"]).sum()) == pytest.approx(500, rel=0.1)


@pytest.mark.parametrize("live", [60, 600])
def test_mappings_live_while_they_are_split_and_merged(live: int, tmp_path: Path) -> None:
    run = replay.load(logs.write(tmp_path / "mix.log", logs.split_and_merged(live, 2000)))
    assert run.problems.empty
    assert run.summary.iloc[0]["peak_mapping_count"] == pytest.approx(live, rel=0.2)


@pytest.mark.parametrize("kind", ["strace", "ltrace"])
def test_heavy_log_is_read_without_problems(kind: str, tmp_path: Path) -> None:
    run = replay.load(logs.heavy(tmp_path / "heavy.log", "--kind", kind, "--lines", "2000"))
    assert run.problems.empty
    assert run.summary.iloc[0]["lines"] >= 2000


def test_logs_of_a_fleet_are_read_whole(tmp_path: Path) -> None:
    assert fleet.write_fleet(tmp_path, 24) > 24 * 500
    runs = [replay.load(path) for path in sorted(tmp_path.rglob("*.log"))]
    assert {len(run.problems) for run in runs} == {0}
    programs = {path.name.partition("-")[0] for path in tmp_path.rglob("*.log")}
    assert programs == set(fleet.PROGRAMS)
    assert {run.summary.iloc[0]["dialect"] for run in runs} == {"strace", "ltrace"}
    assert {bool(len(run.brk_failures)) for run in runs} == {True, False}
