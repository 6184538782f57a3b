"""Real logs against what is known to be true of them, from the programs' own maps and the kernel's tracepoints."""

from __future__ import annotations

import collections
import functools
import json
import re
from pathlib import Path

import oracle
import pytest
from oracle import Area, Capture, Snapshot, captures

import replay

CAPTURES = captures()
EVERY = [name for name in CAPTURES if not name.startswith("heavy/")]
MAPS_OF_CAT = {"real/cat_maps": "stdout.txt", "real/bash_loop": "maps_self.txt"}

pytestmark = pytest.mark.skipif(not CAPTURES, reason="no captures")


def load(capture: Capture, *, with_maps: bool = True):
    """Replay it with the maps taken where the trace begins, if there are any, and without this machine's own files."""
    logs = list(capture.logs) if len(capture.logs) > 1 else capture.logs[0]
    return replay.load(logs, maps=capture.initial_maps if with_maps else None, elf_root=None)


@functools.cache
def run_of(name: str):
    return load(CAPTURES[name])


# ------------------------------------------------------------------------------------ the address space, page for page


def snapshots_of(capture: Capture) -> list[Snapshot]:
    cat = MAPS_OF_CAT.get(capture.name)
    found = [
        snapshot
        for log in capture.logs
        for snapshot in oracle.snapshots(capture.folder, log, capture.folder / cat if cat else None)
    ]
    return [snapshot for snapshot in found if snapshot.maps.exists()]


def grown_by_faults(areas: list[Area]) -> list[Area]:
    """Leave out the two pages that a MAP_GROWSDOWN mapping grew by when they were touched."""
    return oracle.without(areas, [(0x3FFFE000, 0x40000000)])


def heap_of_unseen_thread(areas: list[Area]) -> list[Area]:
    """Leave out the 64 MiB heap of a thread that strace without -f did not follow."""
    size = 64 << 20
    return oracle.without(areas, [(a.start, a.start + size) for a in areas if a.start % size == 0 and not a.path])


NOT_IN_THE_LOG = [
    (r"vma_ops/fy", r"(4[3-9]|5\d|6\d)_.*", grown_by_faults),
    (r"formats/default", r"3|4", heap_of_unseen_thread),
]
"""What a log cannot show: capture, label, and how to leave it out of the truth."""


def truth_of(capture: Capture, snapshot: Snapshot) -> list[Area]:
    areas = oracle.read_areas(snapshot.maps.read_text())
    for name, label, leave_out in NOT_IN_THE_LOG:
        if re.fullmatch(name, capture.name) and re.fullmatch(label, snapshot.label):
            areas = leave_out(areas)
    return areas


def state_at(run, capture: Capture, snapshot: Snapshot) -> list[Area]:
    if len(capture.logs) == 1:
        return oracle.read_areas(run.maps(line=snapshot.line, pid=snapshot.pid))
    here = run.events[run.events["file"].astype(str).str.endswith(snapshot.log.name)]
    step = int(here.loc[here["line"] <= snapshot.line, "step"].max())
    return oracle.read_areas(run.maps(step=step, pid=snapshot.pid))


def all_differences(run, capture: Capture) -> dict[str, list[str]]:
    wrong = {}
    for snapshot in snapshots_of(capture):
        found = oracle.differences(
            truth_of(capture, snapshot),
            state_at(run, capture, snapshot),
            paths=oracle.paths_told(snapshot.log),
            exec_too=capture.initial_maps is not None,
        )
        if found:
            wrong[snapshot.label] = found
    return wrong


def shown(wrong: dict[str, list[str]]) -> str:
    return "\n".join(f"{label}: {line}" for label, lines in wrong.items() for line in lines)


WITH_SNAPSHOTS = [name for name in EVERY if snapshots_of(CAPTURES[name])]


@pytest.mark.parametrize("name", WITH_SNAPSHOTS)
def test_joined_regions_equal_the_programs_own_maps(name: str) -> None:
    capture = CAPTURES[name]
    assert shown(all_differences(run_of(name), capture)) == ""


@pytest.mark.parametrize("name", [name for name in WITH_SNAPSHOTS if CAPTURES[name].initial_maps])
def test_without_initial_maps_all_but_what_was_there_before_is_right(name: str) -> None:
    """Only what the log cannot know may lack: nothing is made up, and no permission is wrong."""
    capture = CAPTURES[name]
    run = load(capture, with_maps=False)
    for snapshot in snapshots_of(capture):
        truth = truth_of(capture, snapshot)
        replayed = state_at(run, capture, snapshot)
        outside = oracle.without(replayed, [(area.start, area.end) for area in truth])
        assert not outside, snapshot.label


def test_every_maps_file_is_compared() -> None:
    """A file that no line of a log points at would be a comparison that silently never happens."""
    unseen = {
        path.relative_to(CAPTURES[name].folder.parent.parent).as_posix()
        for name in EVERY
        for path in CAPTURES[name].folder.glob("**/maps_*.txt")
        if path not in {snapshot.maps for snapshot in snapshots_of(CAPTURES[name])}
    }
    assert unseen <= {
        "attach/fy/maps_before.txt",  # written before strace attached
        "formats/default/maps_c.txt",  # written by a child that strace without -f did not follow
    }


@pytest.mark.parametrize("name", EVERY)
def test_regions_of_one_space_never_overlap(name: str) -> None:
    """Rectangles of one space are disjoint: sorted by address, those alive together do not meet."""
    regions = run_of(name).regions
    for _, space in regions.groupby("space"):
        ordered = space.sort_values(["start", "born_line"])
        rows = list(
            zip(
                ordered["start"],
                ordered["end"],
                ordered["born_step"],
                ordered["died_step"].fillna(2**62),
                strict=True,
            )
        )
        for i, (start, end, born, died) in enumerate(rows):
            assert start < end and start % oracle.PAGE == 0 and end % oracle.PAGE == 0
            for other_start, _, other_born, other_died in rows[i + 1 :]:
                if other_start >= end:
                    break
                assert max(born, other_born) >= min(died, other_died)


# ------------------------------------------------------------------------------------------- calls, as the kernel saw


def kernel_counts(capture: Capture) -> dict[str, int] | None:
    """Return how often the kernel's tracepoints saw each call, where they were recorded."""
    path = capture.folder.parent / "truth.json"
    if not path.exists() or capture.dialect != "strace":
        return None
    truth = json.loads(path.read_text())
    variant = truth.get("variants", {}).get(capture.folder.name, {})
    return variant.get("kernel_counts") or truth.get("kernel_counts") or truth.get("kernel_counts_all_processes")


COUNTED = [name for name in EVERY if kernel_counts(CAPTURES[name])]


@pytest.mark.parametrize("name", [name for name in COUNTED if name != "formats/default"])
def test_calls_are_those_that_the_kernel_counted(name: str) -> None:
    counts = kernel_counts(CAPTURES[name])
    assert counts is not None
    seen = run_of(name).events["call"].value_counts()
    expected = {call: counts[call] for call in ("brk", "mmap", "munmap", "mprotect", "mremap")}
    if name == "formats/Xraw":
        expected["munmap"] -= 1  # the heap of the thread's arena came aligned in this run: there was no head to cut off
    assert {call: int(seen.get(call, 0)) for call in expected} == expected


@pytest.mark.parametrize("name", [name for name in COUNTED if name != "formats/default"])
def test_brk_rows_are_those_that_the_kernel_counted(name: str) -> None:
    counts = kernel_counts(CAPTURES[name])
    assert counts is not None
    below_start = 1 if name == "vma_ops/fy" else 0  # the kernel refused it, but growing was not what it asked for
    assert len(run_of(name).brk_failures) == counts["brk_fail"] - below_start
    brks = run_of(name).events.query("call == 'brk' and status == 'ok'")
    assert int((brks["addr"] == 0).sum()) == counts["brk_query"]
    moved = collections.Counter()
    for _, space in brks.groupby("space"):
        before = None
        for _, call in space.iterrows():
            after = int(call["result"])
            if before is not None and after != before:
                moved["grow" if after > before else "shrink"] += 1
                moved["grow_bytes" if after > before else "shrink_bytes"] += abs(after - before)
            before = after
    assert moved["grow"] == counts["brk_grow"] and moved["shrink"] == counts["brk_shrink"]
    if name != "vma_ops/fy":  # there one break is not a multiple of a page; the kernel's counts are what it was asked
        assert moved["grow_bytes"] == counts["brk_grow_bytes"]
        assert moved["shrink_bytes"] == counts["brk_shrink_bytes"]


@pytest.mark.parametrize("name", EVERY)
def test_no_line_is_lost(name: str) -> None:
    """Each line is understood or passed over; a problem is here only a call of malloc that fits no other."""
    summary = run_of(name).summary.iloc[0]
    assert summary["lines"] == summary["lines_understood"] + summary["lines_skipped"]
    about_blocks = {"unknown_free", "double_free", "free_not_seen", "ltrace_misnamed_call"}
    problems = run_of(name).problems
    assert list(problems["text"][~problems["reason"].isin(about_blocks)]) == []
    assert summary["problems"] == len(problems)


# ---------------------------------------------------------------------------------------------------------- verdicts


def sizes(table) -> dict[int, int]:
    return dict(collections.Counter(int(size) for size in table["bytes"]))


def of_kind(run, kind: str):
    return run.allocator_mmaps[run.allocator_mmaps["kind"] == kind]


BLOCKED = ["brk_blocked/fy_at", "brk_blocked/plain", "brk_blocked/k", "brk_blocked/ltrace"]


@pytest.mark.parametrize("name", BLOCKED)
class TestBlockedBreak:
    """A page mapped at the break: 45 brk calls fail, each is followed by a fallback of the main arena."""

    def test_each_failure_names_the_page_and_the_line_that_made_it(self, name: str) -> None:
        capture = CAPTURES[name]
        blocker = int(json.loads((capture.folder / "blocker.json").read_text())["blocker"], 16)
        made = next(
            number
            for number, line in enumerate(oracle.read_text(capture.logs[0]).splitlines(), start=1)
            if re.search(rf"mmap\({blocker:#x}, (4096|0x1000), ", line)
        )
        failures = run_of(name).brk_failures
        assert len(failures) == 45
        assert set(failures["cause"]) == {"mapping_above"}
        assert set(failures["granted"]) == {blocker}
        assert set(failures["requested"]) == {blocker + 135168}
        assert set(failures["shortfall_bytes"]) == {135168}
        assert set(zip(failures["blocker_start"], failures["blocker_end"], strict=True)) == {(blocker, blocker + 4096)}
        assert set(failures["blocker_line"]) == {made}
        assert failures["blocker_path"].isna().all()
        assert failures["limit_bytes"].isna().all()

    def test_each_is_followed_by_one_fallback(self, name: str) -> None:
        run = run_of(name)
        fallbacks = run.mmap_fallbacks
        assert sizes(fallbacks) == {1048576: 1, 135168: 44}
        assert set(fallbacks["kind"]) == {"fallback"}
        assert fallbacks["errno"].isna().all()
        assert list(fallbacks["brk_failure_step"]) == list(run.brk_failures["step"])
        assert set(fallbacks["allocator"]) == {"glibc"}

    def test_the_large_block_is_a_direct_map_and_no_fallback(self, name: str) -> None:
        assert sizes(of_kind(run_of(name), "direct")) == {303104: 1}

    def test_summary(self, name: str) -> None:
        summary = run_of(name).summary.iloc[0]
        assert summary["brk_calls"] == 48
        assert summary["brk_failures"] == 45
        assert summary["brk_failure_shortfall_bytes"] == 45 * 135168
        assert summary["mmap_fallbacks"] == 45
        assert summary["mmap_fallback_bytes"] == 6995968
        assert summary["mmap_fallbacks_refused"] == 0
        assert (summary["direct_mmaps"], summary["direct_mmap_bytes"]) == (1, 303104)
        assert summary["arena_heaps"] == 0
        assert summary["end_brk_bytes"] == 135168
        assert summary["min_headroom_bytes"] == 0
        assert summary["allocator"] == "glibc"
        assert "mapping_above" in str(summary["brk_failure_causes"])


@pytest.mark.parametrize("name", ["brk_limits/fy_data", "brk_limits/plain_data"])
class TestDataLimit:
    """RLIMIT_DATA refuses six growths, and the six fallbacks as well; lifted, the break grows again."""

    def test_the_limit_that_the_program_set_is_the_cause(self, name: str) -> None:
        failures = run_of(name).brk_failures
        assert len(failures) == 6
        assert set(failures["cause"]) == {"rlimit_data"}
        assert set(failures["limit_bytes"]) == {2196 * 1024}
        assert failures["blocker_start"].isna().all()

    def test_the_refused_fallbacks_are_there(self, name: str) -> None:
        refused = run_of(name).mmap_fallbacks
        assert sizes(refused) == {1048576: 6}
        assert set(refused["kind"]) == {"fallback"}
        assert set(refused["errno"]) == {"ENOMEM"}
        assert refused["addr"].isna().all()

    def test_summary(self, name: str) -> None:
        summary = run_of(name).summary.iloc[0]
        assert (summary["mmap_fallbacks_refused"], summary["mmap_fallback_bytes"]) == (6, 0)


FORMATS = [name for name in EVERY if name.startswith("formats/")]


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_verdict_in_every_format(name: str) -> None:
    run = run_of(name)
    followed = name != "formats/default"
    assert list(run.brk_failures["cause"]) == ["mapping_above"] * 3
    assert sizes(run.mmap_fallbacks) == {1048576: 1, 135168: 2}
    assert sizes(of_kind(run, "direct")) == ({503808: 1, 700416: 1} if followed else {503808: 1})
    assert len(of_kind(run, "arena_heap")) == (1 if followed else 0)
    if followed:
        assert (run.summary.iloc[0]["processes"], run.summary.iloc[0]["spaces"]) == (2, 2)


def test_arena_heaps_are_no_fallbacks() -> None:
    run = run_of("arenas/fy")
    assert run.brk_failures.empty and run.mmap_fallbacks.empty
    heaps = of_kind(run, "arena_heap")
    assert len(heaps) == 3
    assert set(heaps["allocator"]) == {"glibc"}
    assert sizes(of_kind(run, "direct")) == {200704: 1}
    summary = run.summary.iloc[0]
    assert (summary["arena_heaps"], summary["spaces"], summary["processes"]) == (3, 1, 1)


def test_direct_maps_are_no_fallbacks() -> None:
    run = run_of("mmap_threshold/fy_dynamic")
    assert run.brk_failures.empty and run.mmap_fallbacks.empty
    assert [int(size) for size in of_kind(run, "direct")["bytes"]] == [
        135168,
        1003520,
        5001216,
        1007616,
        41947136,
    ]


@pytest.mark.parametrize("name", ["forkexec/fy", "forkexec/ff"])
def test_processes_and_spaces_of_fork_vfork_spawn_and_exec(name: str) -> None:
    """Twice a fork, a vfork and a posix_spawn; the program executes itself in between, vfork shares until its exec."""
    run = run_of(name)
    assert run.brk_failures.empty and run.mmap_fallbacks.empty
    summary = run.summary.iloc[0]
    assert summary["processes"] == 7
    assert summary["spaces"] == 8


def test_a_log_of_an_attach_has_one_space_for_both_threads() -> None:
    run = run_of("attach/fy")
    assert run.events.loc[run.events["call"] != "exit", "space"].nunique() == 1
    assert run.summary.iloc[0]["spaces"] == 1
    assert run.summary.iloc[0]["threads"] == 2
    assert run.brk_failures.empty and run.mmap_fallbacks.empty


def test_fragmentation_of_the_break_of_a_healthy_program() -> None:
    run = run_of("frag/fy_pinned")
    assert run.brk_failures.empty and run.mmap_fallbacks.empty
    summary = run.summary.iloc[0]
    assert (summary["peak_brk_bytes"], summary["end_brk_bytes"]) == (16490496, 16134144)


def test_musl_uses_the_break_for_little() -> None:
    run = run_of("musl_ng/fy_static_normal")
    assert run.brk_failures.empty and run.mmap_fallbacks.empty
    assert run.summary.iloc[0]["allocator"] == "musl"
    assert run.summary.iloc[0]["peak_brk_bytes"] == 12288


def test_musl_with_a_blocked_break() -> None:
    run = run_of("musl_ng/fy_static_blocked")
    assert run.summary.iloc[0]["allocator"] == "musl"
    assert list(run.brk_failures["cause"]) == ["mapping_above"]
    failure = run.brk_failures.iloc[0]
    assert (failure["requested"], failure["granted"]) == (0x37F3000, 0x37F1000)
    assert (failure["blocker_start"], failure["blocker_end"]) == (0x37F1000, 0x37F2000)


def test_a_32_bit_program_that_uses_up_its_address_space() -> None:
    run = run_of("m32/fy_brk")
    assert len(run.brk_failures) == 94
    assert set(run.brk_failures["cause"]) == {"mapping_above"}
    done = run.mmap_fallbacks[run.mmap_fallbacks["errno"].isna()]
    refused = run.mmap_fallbacks[run.mmap_fallbacks["errno"].notna()]
    assert sizes(done) == {17825792: 1, 16879616: 91}
    assert set(refused["errno"]) == {"ENOMEM"}
    assert {16879616, 16781312} <= set(sizes(refused))


def test_a_break_below_its_start_is_refused_and_no_failure() -> None:
    assert run_of("vma_ops/fy").brk_failures.empty


@pytest.mark.parametrize("name", ["real/bash_loop", "real/cat_maps", "real/python_plain", "real/small_pie_R"])
def test_real_programs_without_failures_get_none(name: str) -> None:
    assert run_of(name).brk_failures.empty and run_of(name).mmap_fallbacks.empty


def test_cpythons_arenas_are_pools() -> None:
    pools = of_kind(run_of("real/python_plain"), "pool")
    assert sizes(pools)[1048576] == 2
    assert set(pools["allocator"]) == {"cpython"}


@pytest.mark.parametrize("kept", [5, 22, 30, 36, 48, 54])
def test_a_log_cut_in_the_middle_of_a_line_is_read_to_there(kept: int, tmp_path: Path) -> None:
    """The line that was cut is a problem, the lines before it are what they were."""
    whole = CAPTURES["truncated/cut"].logs[0].read_bytes()
    cut = whole[: whole.rindex(b"\n", 0, whole.rindex(b" brk(")) + 1 + kept]
    lines = cut.splitlines()
    log = tmp_path / "strace.log"
    log.write_bytes(cut)
    run = replay.load(log)
    assert list(run.problems["line"]) == [len(lines)]
    assert run.problems["text"].iloc[0] == lines[-1].decode()
    before = run_of("truncated/cut").events.query("line < @lines.__len__()")
    assert len(run.events) == len(before)


# ------------------------------------------------------------------------------------------------------- large logs

HEAVY = [name for name in CAPTURES if name.startswith("heavy/")]


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_a_large_log_is_as_exact_as_a_small_one(name: str) -> None:
    capture = CAPTURES[name]
    run = run_of(name)
    assert shown(all_differences(run, capture)) == ""
    assert run.problems.empty
    assert run.brk_failures.empty
