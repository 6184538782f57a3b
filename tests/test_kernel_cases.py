"""Small logs whose right answer is settled by the kernel: what `maps` prints, whose limit it was, who lives where."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay

CASES = Path(__file__).parent / "cases"
KERNEL, PEERS = CASES / "kernel", CASES / "peers"


def maps(trace: Path, maps: Path | None = None, **when: int) -> list[str]:
    """The lines of /proc/PID/maps without device and inode."""
    text = replay.load(trace, maps=maps).maps(**when)
    return [" ".join(line.split()[:2] + line.split()[5:]) for line in text.splitlines()]


MAPS = {
    # mm/mprotect.c, do_mprotect_pkey: the mappings before the refused one are changed, whatever the errno
    "mprotect_eacces_partial": ["7f06d2cf2000-7f06d2cf4000 rw-p", "7f06d2cf4000-7f06d2cf6000 r--s /srv/t/file"],
    # the same: start = vma->vm_start
    "mprotect_growsdown": ["7f06d2b02000-7f06d2b05000 r--p", "7f06d2b05000-7f06d2b06000 rw-p"],
    # mm/mmap.c, ksys_mmap_pgoff: 5,000,000 bytes are three huge pages of 2 MiB
    "hugetlb_length": [
        "7fdf28a00000-7fdf29000000 rw-p /anon_hugepage (deleted)",
        "7fdf29000000-7fdf29200000 rw-p /anon_hugepage (deleted)",
    ],
    # mm/vma.c, vms_abort_munmap_vmas
    "mmap_fixed_failed_leaves_hole": ["7f2a05b82000-7f2a05b84000 rw-p", "7f2a05b87000-7f2a05b92000 rw-p"],
    # fs/d_path.c: the name that the file has now
    "rename_mapped_file": ["7f70daf99000-7f70daf9d000 rw-s /srv/t/n2"],
    # mm/mmap.c, do_mmap; asm/page.h, VM_DATA_DEFAULT_FLAGS
    "read_implies_exec": ["555f5ecc4000-555f5ecf5000 rwxp [heap]", "7ff521075000-7ff521078000 rwxp"],
    # kernel/sys.c, prctl_set_mm_map; the next brk shows where
    "prctl_set_mm_map": ["200800000-200802000 rw-p [heap]", "561ceacaf000-561ceace0000 rw-p"],
    # mm/vma.c, vma_merge_new_range; fs/proc/task_mmu.c: the label is of the whole VMA
    "heap_joined_with_mapping_at_break": ["55555555a000-55555557c000 rw-p [heap]"],
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_at_the_end(name: str) -> None:
    assert maps(KERNEL / f"{name}.log") == MAPS[name]


@pytest.mark.parametrize(
    ("line", "rings"),
    [
        (2, []),
        (3, ["7f66b019e000-7f66b01a1000 rw-s /[aio] (deleted)"]),
        (4, ["7f66aff8d000-7f66affad000 rw-s /[aio] (deleted)", "7f66b019e000-7f66b01a1000 rw-s /[aio] (deleted)"]),
        (5, ["7f66aff8d000-7f66affad000 rw-s /[aio] (deleted)"]),
    ],
)
def test_io_setup_maps_a_ring_until_io_destroy(line: int, rings: list[str]) -> None:
    # fs/aio.c, aio_setup_ring: 32 + 32 * (2 * events + 2) bytes in whole pages
    assert maps(KERNEL / "io_setup_ring.log", line=line) == rings


def test_a_sigchld_names_a_process_with_a_space_of_its_own() -> None:
    log = KERNEL / "sigchld_tells_process_in_memory_only_log.log"
    assert maps(log, pid=100) == [
        "55555555a000-55555557b000 rw-p [heap]",
        "7ffff7faf000-7ffff7fb0000 r--p",
        "7ffff7fb0000-7ffff7fb2000 rw-p",
    ]
    assert maps(log, pid=101, line=5) == ["55555555a000-55555559c000 rw-p [heap]"]


def test_an_attached_process_outlives_a_child_whose_line_comes_first() -> None:
    trace = KERNEL / "attach_memory_only_forked_child_first.log"
    assert maps(trace, trace.with_suffix(".maps"), pid=100) == [
        "555555554000-555555555000 r-xp /srv/t/prog",
        "7fd3b6d7c000-7fd3b6d7d000 rw-p",
        "7fd3b9400000-7fd3b9600000 rw-p",
    ]


def test_a_thread_that_makes_no_memory_call_is_in_the_run() -> None:
    trace = KERNEL / "attached_leader_without_memory_calls.log"
    of_leader, of_thread = (maps(trace, trace.with_suffix(".maps"), pid=pid) for pid in (100, 101))
    assert of_leader == of_thread
    assert len(of_leader) == 3


def test_a_vforked_child_shares_the_space_before_the_call_has_returned() -> None:
    # line 5 is a signal of the child; its parent's clone3 returns in line 7
    trace = KERNEL / "vfork_child_before_parents_return.log"
    assert maps(trace, pid=101, line=5) == ["560e962ee000-560e96336000 rw-p [heap]"]


@pytest.mark.parametrize("folder", ["ff_set_with_empty_file", "ff_set_with_resuming_file"])
def test_a_file_of_a_set_may_hold_no_call(folder: str) -> None:
    run = replay.load(KERNEL / folder / "log")
    assert run.maps(pid=100).split()[:2] == ["7ffff7fb0000-7ffff7fb2000", "rw-p"]
    assert run.maps(pid=101) == run.maps(pid=100)


def test_prlimit_is_about_the_process_that_it_names() -> None:
    failures = replay.load(KERNEL / "prlimit_of_another_process.log").brk_failures
    of_child, of_parent = failures.itertuples()
    assert (of_child.line, of_child.cause, of_child.limit_bytes) == (6, "rlimit_data", 65536)
    assert (of_parent.line, of_parent.cause == "rlimit_data") == (8, False)


@pytest.mark.parametrize("name", ["getrlimit_tells_the_limit", "prlimit64_query_tells_the_limit"])
def test_a_limit_that_the_log_prints_is_in_force(name: str) -> None:
    failures = replay.load(PEERS / f"{name}.log").brk_failures
    assert failures[["line", "cause", "limit_bytes"]].to_numpy().tolist() == [[5, "rlimit_data", 262144]]


def test_an_execve_left_open_in_a_thread_ends_in_its_leader() -> None:
    run = replay.load(PEERS / "execve_unfinished_in_thread_superseded.log")
    execs = run.events[run.events.call == "execve"]
    assert execs[["pid", "line", "entry_line", "path", "status"]].to_numpy().tolist() == [
        [100, 1, 1, "/bin/a", "ok"],
        [100, 6, 3, "/bin/b", "ok"],
    ]
    summary = run.summary.iloc[0]
    assert (summary.processes, summary.threads, summary.programs) == (1, 2, "/bin/a,/bin/b")


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["1000-2000 rw-p 00000000 00:00 0", "1000-3000 rw-p 00000000 00:00 0"], "2: a mapping below the end of the"),
        (["2000-1000 rw-p 00000000 00:00 0"], "1: a mapping that ends before it starts"),
        (["1000-2001 rw-p 00000000 00:00 0"], "1: a mapping that does not begin and end with a page"),
        (["8000000000000000-8000000000001000 rw-p 00000000 00:00 0"], "1: a mapping above all addresses"),
        (["1000-2000 rw-p"], "1: no line of /proc/PID/maps"),
    ],
)
def test_a_maps_file_that_no_space_can_have_is_refused(tmp_path: Path, lines: list[str], fault: str) -> None:
    file = tmp_path / "x.maps"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(replay.ReplayError, match=f"x.maps:{fault}"):
        replay.load(CASES / "hostile" / "one_call.log", maps=file)


NOT_A_REGION = ["mapping_128_pib", "mapping_32_pib", "break_at_2_63", "offset_top"]


@pytest.mark.parametrize("name", NOT_A_REGION)
def test_a_range_that_no_user_space_holds_is_a_problem(name: str) -> None:
    run = replay.load(CASES / "hostile" / f"{name}.log")
    run.examine()
    assert "divergence_impossible_range" in set(run.problems.reason)
    assert (run.regions.end <= 1 << 57).all()


HOSTILE = sorted(path for path in (CASES / "hostile").glob("*.log"))


@pytest.mark.parametrize("log", HOSTILE, ids=lambda path: path.stem)
def test_regions_of_any_log_begin_before_they_end_and_never_overlap(log: Path) -> None:
    regions = replay.load(log).regions
    born, died = regions.born_line.fillna(0), regions.died_line.fillna(1 << 62)
    assert (regions.start < regions.end).all()
    assert (born <= died).all()
    for one in regions.itertuples():
        others = (regions.index > one.Index) & (regions.space == one.space)
        others &= (regions.start < one.end) & (regions.end > one.start)
        together = others & (born < died[one.Index]) & (died > born[one.Index])
        assert not together.any()


@pytest.mark.parametrize("name", ["exec_first", "layout_moment_start", "layout_moment_superseded", "maps_of_no_call"])
def test_a_log_may_begin_in_the_middle_of_anything(name: str) -> None:
    run = replay.load(CASES / "hostile" / f"{name}.log")
    assert isinstance(run.maps(), str)
    assert len(run.summary) == 1
