"""Long logs written by a generator that knows what is mapped, how often the break failed and what went elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import oracle
import pytest

import replay

GENERATOR = oracle.scenarios().get("heavy", Path("/nonexistent")) / "gen.py"

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason="no generator")


def generate(folder: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    log = folder / "generated.log"
    subprocess.run([sys.executable, GENERATOR, *options, "--out", log], check=True)
    return log, json.loads(log.with_name("generated.log.truth.json").read_text())


STRACE = {
    "one_process_without_prefix": ("--pids", "1", "--style", "plain"),
    "three_processes": ("--pids", "3", "--style", "pid", "--seed", "2"),
    "four_processes_with_times": ("--pids", "4", "--style", "T", "--seed", "3"),
    "never_blocked": ("--pids", "2", "--style", "ttt", "--seed", "4", "--block", "0"),
}


@pytest.mark.parametrize("options", STRACE.values(), ids=STRACE)
def test_generated_strace_log(options: tuple[str, ...], tmp_path: Path) -> None:
    log, truth = generate(tmp_path, "--kind", "strace", "--lines", "20000", "--block", "0.5", *options)
    run = replay.load(log)
    counts, summary = truth["calls"], run.summary.iloc[0]
    fallbacks = counts.get("fallback_mmap", 0)
    assert summary["lines"] == truth["lines"]
    assert run.problems.empty
    assert len(run.brk_failures) == summary["brk_failures"] == counts.get("brk_fail", 0)
    assert set(run.brk_failures["cause"]) <= {"mapping_above"}
    assert summary["mmap_fallbacks"] == fallbacks
    assert summary["mmap_fallback_bytes"] == counts.get("fallback_bytes", 0)
    for call in ("mmap", "munmap", "mprotect", "mremap", "madvise"):
        assert int((run.events["call"] == call).sum()) == counts[call]
    for process in truth["procs"]:
        printed = None if "plain" in options else process["pid"]
        areas = oracle.read_areas(run.maps(pid=printed))
        assert sum(area.end - area.start for area in areas) == process["mapped_bytes"]
        read_only = sum(area.end - area.start for area in areas if area.perms == "r--p")
        assert read_only == process["readonly_pages"] * oracle.PAGE
        heap = [area for area in areas if area.path == "[heap]"]
        assert (heap[0].start, heap[-1].end) == (int(process["brk_start"], 16), int(process["brk_end"], 16))


@pytest.mark.parametrize("kind", ["ltrace", "ltrace-S"])
def test_generated_ltrace_log(kind: str, tmp_path: Path) -> None:
    log, truth = generate(tmp_path, "--kind", kind, "--lines", "20000", "--pids", "2", "--style", "pid")
    run = replay.load(log)
    summary = run.summary.iloc[0]
    assert run.problems.empty
    for call in ("malloc", "calloc", "realloc", "free"):
        assert int((run.events["call"] == call).sum()) == truth["calls"][call]
    if run.summary["live_blocks"].isna().all():
        pytest.skip("this version does not pair malloc with free")
    assert summary["live_blocks"] == sum(process["live_blocks"] for process in truth["procs"])
    assert summary["live_bytes"] == sum(process["live_bytes"] for process in truth["procs"])
    assert (summary["double_frees"], summary["unknown_frees"]) == (0, 0)
