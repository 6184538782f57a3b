"""What the tables have for charts and joins: times, owners and blockers, sums that are safe, a timeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pyarrow.parquet as pq
import pytest

import replay
from replay.run import timeline

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
THREADS = oracle.SAMPLES / "threads" / "strace.log"
FORKS = oracle.SAMPLES / "fork_exec" / "strace.log"
MALLOC = oracle.SAMPLES / "ltrace" / "ltrace.log"


def run_of(tmp_path: Path, *lines: str) -> replay.Run:
    (tmp_path / "t.log").write_text("".join(f"{line}\n" for line in lines))
    return replay.load(tmp_path / "t.log")


# --- times ---


@pytest.mark.parametrize(
    ("stamps", "clock", "elapsed", "start"),
    [
        pytest.param(("1700000000.5 ", "1700000001.25 "), "epoch", [0, 750_000_000], "2023-11-14 22:13:20.5", id="ttt"),
        pytest.param(("12:00:00 ", "12:00:01 "), "midnight", [0, 10**9], None, id="t"),
        pytest.param(("23:59:59.5 ", "00:00:00.25 "), "midnight", [0, 750_000_000], None, id="over midnight"),
        pytest.param(("     0.000000 ", "     0.250000 "), "start", [0, 250_000_000], None, id="r"),
        pytest.param(("", ""), "none", [None, None], None, id="no times"),
    ],
)
def test_times(tmp_path: Path, stamps: tuple[str, str], clock: str, elapsed: list[int], start: str | None) -> None:
    run = run_of(tmp_path, f"{stamps[0]}brk(NULL) = 0x1000", f"{stamps[1]}brk(0x2000) = 0x2000")
    (summary,) = run.arrow("summary").to_pylist()
    assert summary["clock"] == clock
    assert run.arrow("events")["elapsed_ns"].to_pylist() == elapsed
    assert [run.arrow(name)["elapsed_ns"].to_pylist() for name in ("fragmentation", "timeline")] == [elapsed, elapsed]
    wanted = None if start is None else pd.Timestamp(start, tz="UTC")
    assert (summary["start_time"], run.arrow("events")["time"][0].as_py()) == (wanted, wanted)
    assert summary["duration_ns"] == (None if clock == "none" else elapsed[1])


def test_lives_have_times(tmp_path: Path) -> None:
    made = "mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000"
    run = run_of(tmp_path, f"12:00:00 {made}", "12:00:02 munmap(0x7f0000000000, 4096) = 0")
    assert run.regions[["born_time_ns", "died_time_ns"]].to_numpy().tolist() == [[43200 * 10**9, 43202 * 10**9]]


def test_mmap_fallbacks_are_allocator_mmaps_of_two_kinds() -> None:
    run = replay.load(BLOCKED)
    rows = run.arrow("allocator_mmaps").to_pylist()
    fallbacks = [row for row in rows if row["kind"] in ("fallback", "last_resort")]
    assert 0 < len(fallbacks) < len(rows)
    assert run.arrow("mmap_fallbacks").to_pylist() == fallbacks


# --- owners and blockers ---


@pytest.mark.parametrize("log", [BLOCKED, THREADS, FORKS, MALLOC])
def test_every_region_has_an_owner_and_a_size(log: Path) -> None:
    regions = replay.load(log).regions
    path = regions["path"].astype(object)
    assert (regions["owner"].astype(object)[path.notna()] == path[path.notna()]).all()
    assert set(regions["owner"][path.isna()]) <= {"anonymous", "glibc direct", "glibc fallback", "glibc arena_heap"}
    assert (regions["size_bytes"] == regions["end"] - regions["start"]).all()


def test_owners_are_allocator_and_kind() -> None:
    run = replay.load(BLOCKED)
    fallbacks = run.mmap_fallbacks
    own = run.regions[run.regions["owner"] == "glibc fallback"]
    assert sorted(own["start"]) == sorted(fallbacks["addr"])


def test_a_blocker_is_a_row_of_regions() -> None:
    run = replay.load(BLOCKED)
    joined = run.brk_failures.merge(
        run.regions,
        left_on=["space", "blocker_start", "blocker_born_step"],
        right_on=["space", "start", "born_step"],
        suffixes=("", "_above"),
    )
    assert len(joined) == len(run.brk_failures) == 23
    assert set(joined["end"]) == set(run.brk_failures["blocker_end"])
    assert set(run.brk_failures["blocker"]) == {"anonymous"} == set(joined["owner"])


def test_without_a_mapping_in_the_way_the_cause_is_the_blocker() -> None:
    failures = replay.load(oracle.SAMPLES / "run_32bit" / "strace.log").brk_failures
    assert set(failures["blocker"]) == {"rlimit_data"}
    assert failures["blocker_born_step"].isna().all()


# --- sums ---


def test_sums_are_safe_whatever_was_asked_for(tmp_path: Path) -> None:
    refused = ["brk(NULL) = 0x555555559000", *["brk(0x1000555555559000) = 0x555555559000"] * 9]
    huge = (
        "mmap(NULL, 18446744073709547520, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = -1 ENOMEM (Cannot)"
    )
    run = run_of(tmp_path, *refused, huge)
    assert run.brk_failures["shortfall_bytes"].max() == 1 << 60
    assert run.brk_failures["shortfall_capped_bytes"].tolist() == [1 << 53] * 9
    assert set(run.allocator_mmaps["bytes"]) <= {1 << 53}
    assert run.summary["brk_failure_shortfall_bytes"][0] == 1 << 53


def test_what_is_not_known_is_null() -> None:
    (with_malloc,) = replay.load(MALLOC).arrow("summary").to_pylist()
    (without,) = replay.load(BLOCKED).arrow("summary").to_pylist()
    assert with_malloc["allocations"] > 0
    assert [without[name] for name in ("allocations", "frees", "unknown_frees", "double_frees")] == [None] * 4


def test_a_log_that_changes_no_space_has_no_peak(tmp_path: Path) -> None:
    (summary,) = run_of(tmp_path, "free(0x1000) = <void>").arrow("summary").to_pylist()
    names = ("peak_mapped_bytes", "end_mapped_bytes", "peak_brk_bytes", "peak_mapping_count", "peak_mapped_space")
    assert [summary[name] for name in names] == [None] * 5


# --- fewer rows ---


def test_a_short_timeline_has_a_row_a_change() -> None:
    run = replay.load(FORKS)
    changes = run.fragmentation.sort_values(["space", "line"])
    rows = run.timeline
    assert rows["mapped_bytes"].tolist() == changes["mapped_bytes"].tolist()
    assert (rows["mapped_bytes_max"] == rows["mapped_bytes"]).all()
    assert (rows.groupby("space")["bucket"].agg(["min", "max", "count"]).eval("max - min + 1 - count") == 0).all()


def test_a_long_timeline_keeps_the_last_and_the_highest_of_each_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "TIMELINE_ROWS", 7)
    run = replay.load(MALLOC)
    for space, rows in run.timeline.groupby("space"):
        changes = run.fragmentation[run.fragmentation["space"] == space].sort_values("line")
        assert rows["bucket"].tolist() == list(range(min(len(changes), 7)))
        assert rows["line"].iloc[-1] == changes["line"].iloc[-1]
        for column in ("mapped_bytes", "live_bytes", "heap_fragmentation", "pinned_bytes"):
            assert rows[f"{column}_max"].max() == changes[column].max()
            assert rows[column].iloc[-1] == changes[column].iloc[-1]
            inside = changes.groupby(np.searchsorted(rows["line"], changes["line"]))[column].max()
            assert rows[f"{column}_max"].tolist() == inside.tolist()


def test_a_run_without_changes_has_no_timeline(tmp_path: Path) -> None:
    assert len(run_of(tmp_path, "free(0x1000) = <void>").timeline) == 0


def test_every_n_thins_fragmentation_and_keeps_the_last_of_each_space(tmp_path: Path) -> None:
    run = replay.load(FORKS)
    run.export(tmp_path / "out", every=5)
    thin, whole = pq.read_table(tmp_path / "out" / "fragmentation.parquet").to_pandas(), run.fragmentation
    for space, rows in whole.sort_values("line").groupby("space"):
        wanted = {*rows["line"].iloc[::5], rows["line"].iloc[-1]}
        assert set(thin[thin["space"] == space]["line"]) == wanted
    assert len(pq.read_table(tmp_path / "out" / "events.parquet")) == len(run.events)
