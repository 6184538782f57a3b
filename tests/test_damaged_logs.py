"""Damaged and threaded logs: calls behind the end of a space, frees before the fork, blocks that overlap, odd ends."""

from __future__ import annotations

from pathlib import Path

import replay


def load(tmp_path: Path, text: str) -> replay.Run:
    (tmp_path / "a.log").write_text(text)
    return replay.load(tmp_path / "a.log")


def test_a_space_does_not_end_before_its_last_call(tmp_path: Path) -> None:
    log = """\
7 brk(0x555555700000) = 0x555555621000
7 +++ exited with 0 +++
7 alloc->malloc(64) = 0x55cf6ba6caf0
7 alloc->malloc(32) = 0x55cf6ba6cb40
"""
    run = load(tmp_path, log)
    assert run.blocks[["born_line", "end"]].to_numpy().tolist() == [[3, "live"], [4, "live"]]
    assert run.summary["peak_live_bytes"].item() == 96
    assert run.replayed.spaces["died_line"].tolist() == [4]


def test_what_a_split_munmap_leaves_begins_at_the_step_at_which_the_rest_ends(tmp_path: Path) -> None:
    log = """\
7 mmap(NULL, 12288, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
7 clone(child_stack=0x7f1111111110, flags=CLONE_VM|CLONE_THREAD|CLONE_SIGHAND) = 8
7 munmap(0x7f0000001000, 4096 <unfinished ...>
8 munmap(0x7f0000000000, 4096) = 0
8 brk(NULL) = 0x55550000
7 <... munmap resumed>) = 0
"""
    run = load(tmp_path, log)
    columns = ["start", "end", "born_line", "died_line", "born_step", "died_step"]
    low = 0x7F0000000000
    assert run.regions[columns].to_numpy(object, na_value=None).tolist() == [
        [low, low + 0x3000, 1, 3, 0, 2],
        [low, low + 0x1000, 3, 4, 2, 2],
        [low + 0x2000, low + 0x3000, 3, None, 2, None],
    ]


def test_a_space_that_a_split_call_shows_begins_at_the_step_that_its_line_has(tmp_path: Path) -> None:
    log = """\
7 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
7 clone3({flags=CLONE_VFORK, exit_signal=SIGCHLD}, 88 <unfinished ...>
8 execve("/bin/a", ["a"], 0x7ffc0 /* 1 var */ <unfinished ...>
9 brk(NULL) = 0x55550000
8 <... execve resumed>) = 0
7 <... clone3 resumed>) = 8
"""
    run = load(tmp_path, log)
    begun = run.replayed.spaces
    assert (begun["born_line"].tolist(), begun["born_step"].tolist()) == ([1, 3, 5], [0, 1, 2])
    copy = run.regions[run.regions["space"] == 1]
    assert copy[["born_line", "born_step", "died_line", "died_step"]].to_numpy().tolist() == [[3, 1, 5, 2]]


def test_a_space_is_there_when_a_child_in_it_shows_a_line_before_who_made_it(tmp_path: Path) -> None:
    log = """\
9 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
8 munmap(0x7f0000000000, 4096) = 0
9 brk(NULL) = 0x55550000
7 <... vfork resumed>) = 8
9 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=7, si_uid=0, si_status=0} ---
"""
    run = load(tmp_path, log)
    assert run.replayed.spaces["born_line"].tolist() == [1, 2]
    assert run.regions[["space", "born_line", "died_line"]].to_numpy(object, na_value=None).tolist() == [[0, 1, None]]


def test_a_free_that_began_before_the_fork_takes_the_childs_copy_at_the_fork(tmp_path: Path) -> None:
    log = """\
11 prog->free(0x5000 <unfinished ...>
10 prog->malloc(16) = 0x5000
10 SYS_fork() = 11
11 <... free resumed> ) = <void>
11 prog->malloc(8) = 0x6000
"""
    run = load(tmp_path, log)
    columns = ["space", "addr", "born_line", "died_line", "born_step", "died_step"]
    assert run.blocks[columns].to_numpy(object, na_value=None).tolist() == [
        [0, 0x5000, 2, None, 0, None],
        [1, 0x5000, 3, 3, 1, 1],
        [1, 0x6000, 5, None, 3, None],
    ]
    assert run.fragmentation[["line", "live_bytes"]].to_numpy(int).tolist() == [[2, 16], [3, 0], [5, 8]]


def test_the_largest_free_range_is_no_more_than_what_is_free_where_blocks_overlap(tmp_path: Path) -> None:
    log = """\
SYS_brk(0) = 0x1000000
SYS_brk(0x1021000) = 0x1021000
prog->malloc(50000) = 0x1000010
prog->malloc(50000) = 0x1000020
"""
    run = load(tmp_path, log)
    last = run.fragmentation.iloc[-1]
    chunks = 2 * 50016  # and eight bytes stand before the first one
    assert last["free_bytes"] == last["largest_free_bytes"] == 135168 - 8 - chunks
    assert run.summary["heap_fragmentation"].item() == last["heap_fragmentation"] == 0


def test_nothing_is_moved_above_what_a_user_can_map(tmp_path: Path) -> None:
    log = """\
mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7ffff7ff0000
mremap(0x7ffff7ff0000, 8192, 8192, MREMAP_MAYMOVE) = 0x1ffffffffffe000
mremap(0x1ffffffffffe000, 8192, 8192, MREMAP_MAYMOVE) = 0x1fffffffffff000
mremap(0x1ffffffffffe000, 8192, 8192, MREMAP_MAYMOVE) = 0x200000000000000
"""
    run = load(tmp_path, log)
    ranges = run.regions[["start", "end", "born_line"]].to_numpy(int).tolist()
    assert ranges == [[0x7FFFF7FF0000, 0x7FFFF7FF2000, 1], [0x1FFFFFFFFFFE000, 0x200000000000000, 2]]
    assert run.problems["line"].tolist() == [3, 4]
