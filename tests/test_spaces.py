"""The rooms of spaces on one screen each: who lives where, what a call does, which file a descriptor names, limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import replay
from replay.calls.reader import read_logs
from replay.calls.windows import CallWindows, call_windows
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.mm.fields import DONTFORK, RECTANGLE, OpCode
from replay.mm.space import live_rows
from replay.report.findings import Findings
from replay.spaces import call_effects, census
from replay.spaces.call_window import CallWindow
from replay.spaces.first_moments import FirstMoments, Ranges
from replay.spaces.kernel_files import hides_from_children, may_fail_to_map, renamed
from replay.spaces.limits import Limits
from replay.spaces.open_files import OpenFiles, mapped_paths
from replay.spaces.processes import Processes
from replay.spaces.resting import Inherited, RestingSpace


def recorded(folder: Path, *lines: str) -> tuple[CallWindows, Processes, Strings]:
    log = folder / "x.log"
    log.write_text("".join(line + "\n" for line in lines))
    run = read_logs([log])
    windows = call_windows(run)
    return windows, census.assign(windows.told), run.strings


def numbers(*values: int) -> Int64Array:
    return np.array(values, np.int64)


BRK = "brk(NULL) = 0x555555560000"
ENDS = "+++ exited with 0 +++"


@pytest.mark.parametrize(
    ("lines", "lives", "processes"),
    [
        (["1 fork() = 2", f"2 {BRK}"], [("found", NULL), ("fork", 0)], 2),
        (["1 vfork( <unfinished ...>", f"2 {BRK}", "1 <... vfork resumed>) = 2"], [("found", NULL)], 2),
        (["1 clone(child_stack=0x7f0, flags=CLONE_VM|CLONE_THREAD) = 2", f"2 {BRK}"], [("found", NULL)], 1),
        ([f"1 {BRK}", f"2 {BRK}", f"2 {ENDS}", "1 vfork() = 2"], [("found", NULL)], 2),
        ([f"1 {BRK}", f"2 {BRK}", "1 fork() = 2"], [("found", NULL), ("fork", 0)], 2),
        ([f"1 {BRK}", f"2 {BRK}"], [("found", NULL)], 1),
        (
            [f"1 {BRK}", f"2 {BRK}", "1 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=2} ---"],
            [("found", NULL), ("fork", 0)],
            2,
        ),
        (
            [f"2 {BRK}", "1 --- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=2} ---"],
            [("found", NULL), ("fork", 0)],
            2,
        ),
        (['1 execve("/a", ["a"], 0x7 /* 1 var */) = 0', '1 execve("/b", ["b"], 0x7 /* 1 var */) = 0'],
         [("exec", NULL), ("exec", 0)], 1),
    ],
    ids=["fork", "vfork", "thread", "vfork printed whole", "fork printed whole", "no clone line",
         "named by SIGCHLD", "child first", "two programs"],
)  # fmt: skip
def test_who_lives_where(tmp_path: Path, lines: list[str], lives: list[tuple[str, int]], processes: int) -> None:
    _, who, _ = recorded(tmp_path, *lines)
    assert [(life.origin, life.parent) for life in who.lives] == lives
    assert who.processes == processes


def test_a_space_ends_with_its_last_thread(tmp_path: Path) -> None:
    _, who, _ = recorded(
        tmp_path, f"1 {BRK}", "1 clone(child_stack=0x7f0, flags=CLONE_VM|CLONE_THREAD) = 2", f"2 {BRK}", f"1 {ENDS}",
        f"2 {ENDS}",
    )  # fmt: skip
    assert [life.ended_clock for life in who.lives] == [5]


def test_parents_that_show_themselves_late_are_found_however_many_there_are(tmp_path: Path) -> None:
    # pid 3000 - i forks pid 3001 - i; the calls return in the order of the youngest first
    opened = [f"{1000 + i} clone(child_stack=NULL, flags=SIGCHLD <unfinished ...>" for i in range(2000)]
    closed = [f"{1000 + i} <... clone resumed>) = {1001 + i}" for i in reversed(range(2000))]
    _, who, _ = recorded(tmp_path, *opened, *closed)
    assert [life.parent for life in who.lives] == [NULL, *range(1999)]


OPERATIONS = {
    "mmap(NULL, 5000, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000": [
        (OpCode.MAP, 0, 5000, 0x7F0000000000)
    ],
    "mmap(NULL, 1, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB, -1, 0) = 0x7f0000000000": [
        (OpCode.MAP, 0, 2 << 20, 0x7F0000000000)
    ],
    "munmap(0x7f0000000000, 4096) = 0": [(OpCode.UNMAP, 0x7F0000000000, 4096, 0)],
    "munmap(0x7f0000000000, 4096) = -1 EINVAL (Invalid argument)": [],
    "munmap(0x7f0000000000, 4096) = 0 (INJECTED)": [],
    "mprotect(0x7f0000000000, 4096, PROT_READ) = -1 EACCES (Permission denied)": [
        (OpCode.PROTECT, 0x7F0000000000, 4096, 0)
    ],
    "mprotect(0x7f0000000000, 4096, PROT_READ) = -1 EINVAL (Invalid argument)": [],
    "madvise(0x7f0000000000, 4096, MADV_DONTFORK) = 0": [(OpCode.MARK, 0x7F0000000000, 4096, 0)],
    "madvise(0x7f0000000000, 4096, MADV_WIPEONFORK) = 0": [],
    "mmap(0x7f0000000000, 4096, PROT_READ, MAP_SHARED|MAP_FIXED, 3<anon_inode:[perf_event]>, 0) = -1 EPERM (Denied)": [
        (OpCode.UNMAP, 0x7F0000000000, 4096, 0)
    ],
    "mmap(0x7f0000000000, 4096, PROT_READ, MAP_SHARED|MAP_FIXED, 3</srv/a>, 0) = -1 EPERM (Denied)": [],
}


@pytest.mark.parametrize("line", OPERATIONS)
def test_what_a_call_does(tmp_path: Path, line: str) -> None:
    windows, who, strings = recorded(tmp_path, f"1 {line}")
    calls = windows.window(0)
    steps, nothing = np.arange(len(calls)), np.zeros(len(calls), np.int64)
    window = CallWindow(calls, steps, calls.pid, nothing, calls.path, NULL, 9)
    across = call_effects.across_windows(windows.told, who, strings, 4096)
    made = call_effects.operations_of(window, across).operations
    assert made[["code", "addr", "length", "result"]].tolist() == OPERATIONS[line]


MMAP = "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3, 0) = 0x7f0000000000"


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        (['openat(AT_FDCWD, "/srv/a", O_RDONLY) = 3', MMAP], "/srv/a"),
        (['openat(AT_FDCWD, "/srv/a", O_RDONLY) = 3', "close(3) = 0", MMAP], None),
        (['openat(AT_FDCWD, "/srv/a", O_RDONLY) = 4', "dup2(4, 3) = 3", MMAP], "/srv/a"),
        (['openat(AT_FDCWD, "/srv/a", O_RDONLY) = 3', 'unlink("/srv/a") = 0', MMAP], "/srv/a (deleted)"),
        (['openat(AT_FDCWD, "/srv/a", O_RDONLY) = 3', 'rename("/srv", "/new") = 0', MMAP], "/new/a"),
        (['memfd_create("x", 0) = 3', MMAP], "/memfd:x (deleted)"),
        (["memfd_secret(0) = 3", MMAP], "/secretmem (deleted)"),
        (["io_uring_setup(8, {flags=0, sq_entries=8}) = 3", MMAP], "anon_inode:[io_uring]"),
        (["bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY}, 72) = 3", MMAP], "anon_inode:bpf-map"),
    ],
)
def test_which_file_a_descriptor_names(tmp_path: Path, lines: list[str], path: str | None) -> None:
    windows, who, strings = recorded(tmp_path, *lines)
    calls = windows.window(0)
    found = mapped_paths(calls, np.zeros(len(calls), np.int64), OpenFiles(who.files_parents), strings)
    assert (None if found[-1] == NO_TEXT else strings[int(found[-1])]) == path


@pytest.mark.parametrize(
    ("name", "target", "exchanges", "changed"),
    [
        ("/srv/a", "/srv/b", False, {"/srv/a": "/srv/b", "/srv/b": "/srv/b (deleted)"}),
        ("/srv/a", "/srv/b", True, {"/srv/a": "/srv/b", "/srv/b": "/srv/a"}),
        ("/srv", "/new", False, {"/srv/a": "/new/a", "/srv/b": "/new/b"}),
        ("a", "c", False, {"/srv/a": "/srv/c"}),
        ("/srv/a", None, False, {"/srv/a": "/srv/a (deleted)"}),
        ("/other", "/srv/c", False, {}),
    ],
)
def test_names_of_files_change(name: str, target: str | None, exchanges: bool, changed: dict[str, str]) -> None:
    assert renamed(name, target, ["/srv/a", "/srv/b"], exchanges=exchanges) == changed


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize(
    ("rename", "paths"),
    [
        ('rename("/srv/a", "/srv/b")', {"a": "/srv/b", "b": "/srv/b (deleted)"}),
        ('renameat2(AT_FDCWD, "/srv/a", AT_FDCWD, "/srv/b", RENAME_EXCHANGE)', {"a": "/srv/b", "b": "/srv/a"}),
    ],
)
def test_mappings_of_two_files_follow_a_rename(tmp_path: Path, rename: str, paths: dict[str, str], first: str) -> None:
    second = "ab".replace(first, "")
    (tmp_path / "x.log").write_text(
        f"mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3</srv/{first}>, 0) = 0x7f0000000000\n"
        f"mmap(NULL, 4096, PROT_READ, MAP_SHARED, 4</srv/{second}>, 0) = 0x7f0000002000\n"
        f"{rename} = 0\n"
    )
    regions = replay.load(tmp_path / "x.log").regions
    assert regions[regions.born_line == 3].path.tolist() == [paths[first], paths[second]]
    assert len(regions) == 4


def test_mappings_of_drivers_differ() -> None:
    assert hides_from_children("anon_inode:[perf_event]")
    assert not hides_from_children("anon_inode:[io_uring]")
    assert may_fail_to_map("socket:[123]")
    assert not may_fail_to_map("/dev/shm/x")


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        (["1 setrlimit(RLIMIT_DATA, {rlim_cur=5, rlim_max=5}) = 0", f"1 {BRK}"], 5),
        (["1 setrlimit(RLIMIT_DATA, {rlim_cur=5, rlim_max=5}) = -1 EPERM (Denied)", f"1 {BRK}"], NULL),
        (["1 setrlimit(RLIMIT_DATA, {rlim_cur=5, rlim_max=5}) = 0", "1 fork() = 2", f"2 {BRK}"], 5),
        (["1 fork() = 2", "1 prlimit64(2, RLIMIT_DATA, {rlim_cur=5, rlim_max=5}, NULL) = 0", f"2 {BRK}"], 5),
        (["1 fork() = 2", "1 prlimit64(2, RLIMIT_DATA, {rlim_cur=5, rlim_max=5}, NULL) = 0", f"1 {BRK}"], NULL),
        (["1 getrlimit(RLIMIT_DATA, {rlim_cur=7, rlim_max=9}) = 0", f"1 {BRK}"], 7),
        (["1 prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=7, rlim_max=9}) = 0", f"1 {BRK}"], NULL),
    ],
)
def test_the_limit_at_the_last_call(tmp_path: Path, lines: list[str], limit: int) -> None:
    windows, who, _ = recorded(tmp_path, *lines)
    last = numbers(windows.calls.rows - 1)
    spaces = who.spaces_of(windows.window(0).pid[-1:], last)
    assert Limits(windows.told, who).at(spaces, last).tolist() == [[limit, NULL]]


def test_an_inferred_mapping_begins_where_its_addresses_were_last_free() -> None:
    of = FirstMoments(Ranges(numbers(0, 0, 1), numbers(10, 50, 10), numbers(30, 60, 30), numbers(9, NULL, 9)))
    of.hear(Ranges(numbers(0, 0, 0), numbers(0, 20, 30), numbers(10, 25, 50), numbers(4, 5, 6)))
    of.hear(Ranges(numbers(0, 0), numbers(12, 55), numbers(14, 58), numbers(3, 7)))
    assert of.lines().tolist() == [5, 7, NULL]


def test_a_child_shares_the_rows_of_its_parent_but_for_those_kept_from_it() -> None:
    rows = np.full(2, NULL, RECTANGLE)
    rows["start"], rows["end"] = [4096, 8192], [8192, 12288]
    rows["prot"] = rows["shared"] = rows["flags"] = 0
    parent = RestingSpace(rows, 7, 3)
    assert parent.child(5).inherited == Inherited(rows, [(0, 2)], 5)
    rows[1].flags = DONTFORK
    live = live_rows(RestingSpace(rows, 7, 3).child(5).awake())
    assert live[["start", "born_line"]].tolist() == [(4096, 5)]


def test_a_child_that_changed_a_mapping_shares_the_others_with_its_parent(tmp_path: Path) -> None:
    maps = [
        f"1 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</a>, {n << 12:#x}) = {0x7F0000000000 + (n << 13):#x}"
        for n in range(1000)
    ]
    changes = ["2 mprotect(0x7f0000258000, 4096, PROT_NONE) = 0", "2 munmap(0x7f00007ce000, 4096) = 0"]
    (tmp_path / "x.log").write_text("\n".join([*maps, "1 fork() = 2", *changes, "1 brk(NULL) = 0x6000", ""]))
    run = replay.load(tmp_path / "x.log")
    found, expected = run.replayed.regions, 1000 + 1000 + 1
    assert found.rows == expected
    places = [found.packed(number)["start"].place for number in range(found.parts)]
    assert sorted(map(places.count, places)) == [1, 1, 2, 2]  # those of the parent, what changed, two parts in common
    assert run.maps(line=1003, pid=1) == run.maps(line=1000)
    child = run.maps(line=1003, pid=2).splitlines()
    assert (len(child), child[300][26:30]) == (999, "---p")
    assert run.regions[run.regions.space == 1].born_line.value_counts().to_dict() == {1001: 1000, 1002: 1}


def test_a_space_has_at_its_peak_what_its_fork_gave_it(tmp_path: Path) -> None:
    maps = [
        f"1 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</a>, {n << 12:#x}) = {0x7F0000000000 + (n << 13):#x}"
        for n in range(300)
    ]
    brks = ["1 brk(NULL) = 0x6000", "1 brk(0x8000) = 0x8000"]
    ends = ["2 exit_group(0) = ?", "3 munmap(0x7f0000000000, 4096) = 0", "3 exit_group(0) = ?"]
    (tmp_path / "x.log").write_text("\n".join([*brks, *maps, "1 fork() = 2", "1 fork() = 3", *ends, ""]))
    spaces = Findings(replay.load(tmp_path / "x.log")).spaces
    assert [(space.pid, space.peak_mapped // 4096, space.peak_brk // 4096) for space in spaces] == [
        (1, 302, 2),
        (2, 302, 2),
        (3, 302, 2),
    ]
