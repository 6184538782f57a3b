from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replay.calls.reader
from replay.calls import file_sets as filesets
from replay.calls.reader import COLUMNS, FAILED, OK, UNFINISHED, Calls, LogReader, read_logs
from replay.engine.columns import NO_TEXT, NULL
from replay.errors import TraceSyntaxError
from replay.linux.constants import CALLS, CHILD_ENDED, EXEC_NOTICE, EXITED, KILLED, PID_CHANGED, SEEN, SUPERSEDED
from replay.logs.chunks import read_texts

NOTICES = {
    EXITED: "EXITED",
    KILLED: "KILLED",
    SUPERSEDED: "SUPERSEDED",
    EXEC_NOTICE: "EXEC_NOTICE",
    PID_CHANGED: "PID_CHANGED",
    CHILD_ENDED: "CHILD_ENDED",
}


def run_of(folder: Path, text: str, **options: Any) -> LogReader:
    path = folder / "x.log"
    path.write_text(text)
    return read_logs([path], **options)


def rows_of(run: LogReader, calls: Calls | None = None) -> list[dict[str, Any]]:
    """The calls as dicts of what they have; first sights of pids have a test of their own."""
    calls = run.calls() if calls is None else calls
    rows = []
    for index in range(len(calls)):
        row = {name: int(getattr(calls, name)[index]) for name in COLUMNS}
        row = {name: value for name, value in row.items() if value != NULL}
        for name in ("path", "result_path", "caller", "name"):
            text = row.pop(name)
            if text != NO_TEXT:
                row[name] = run.strings[text]
        if row["call"] != SEEN:
            rows.append(row | {"call": NOTICES.get(row["call"]) or CALLS[row["call"]]})
    return rows


def columns(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.get(name) for name in names) for row in rows]


def test_a_line_becomes_a_row(tmp_path: Path) -> None:
    line = (
        "1888  1795367367.165405 mmap(NULL, 1605632, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, "
        "3</usr/lib/libc.so.6>, 0x26000) = 0x7f64a7524000 <0.000009>\n"
    )
    assert rows_of(run_of(tmp_path, line)) == [
        {
            "clock": 1,
            "entry_clock": 1,
            "line": 1,
            "entry_line": 1,
            "file": 0,
            "pid": 1888,
            "time_ns": 1795367367165405000,
            "duration_ns": 9000,
            "call": "mmap",
            "name": "mmap",
            "addr": 0,
            "length": 1605632,
            "prot": 1,
            "flags": 0x802,
            "fd": 3,
            "offset": 0x26000,
            "result": 0x7F64A7524000,
            "errno": 0,
            "status": OK,
            "injected": 0,
            "path": "/usr/lib/libc.so.6",
            "dialect": 0,
        }
    ]


def test_split_calls_are_joined_in_completion_order(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "10 munmap(0x1000, 4096 <unfinished ...>\n"
            "11 brk(0x2000 <unfinished ...>\n"
            "10 <... munmap resumed>)  = 0\n"
            "11 <... brk resumed>)  = 0x2000\n"
            "10 munmap(0x3000, 4096 <unfinished ...>\n"
            "10 <... munmap resumed>)  = -1 EINVAL (Invalid argument)\n",
        )
    )
    assert columns(rows, "call", "pid", "addr", "entry_line", "line", "result", "status") == [
        ("munmap", 10, 0x1000, 1, 3, 0, OK),
        ("brk", 11, 0x2000, 2, 4, 0x2000, OK),
        ("munmap", 10, 0x3000, 5, 6, -1, FAILED),
    ]


def test_one_half_may_lack_the_pid(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "vfork( <unfinished ...>\n"
            '[pid 11] execve("/bin/x", ["x"], 0x7ffe /* 6 vars */ <unfinished ...>\n'
            "[pid 10] <... vfork resumed>) = 11\n"
            "[pid 10] munmap(0x1000, 4096 <unfinished ...>\n"
            "[pid 11] <... execve resumed>) = 0\n"
            "[pid 11] +++ exited with 0 +++\n"
            "<... munmap resumed>) = 0\n",
        )
    )
    assert columns(rows, "call", "pid", "entry_line", "line") == [
        ("vfork", 10, 1, 3),
        ("execve", 11, 2, 5),
        ("EXITED", 11, 6, 6),
        ("munmap", 10, 4, 7),
    ]


def test_calls_that_never_close_stand_at_the_end(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "10 munmap(0x1000, 4096 <unfinished ...>\n"
            "11 munmap(0x2000, 4096 <detached ...>\n"
            "12 exit(0 <unfinished ...>\n"
            "13 brk(0x3000) = ?\n"
            "12 +++ exited with 0 +++\n",
        )
    )
    assert columns(rows, "call", "pid", "entry_line", "line", "status") == [
        ("munmap", 11, 2, 2, UNFINISHED),
        ("brk", 13, 4, 4, UNFINISHED),
        ("exit", 12, 3, 5, OK),
        ("EXITED", 12, 5, 5, OK),
        ("munmap", 10, 1, 5, UNFINISHED),
    ]


def test_a_log_may_begin_inside_a_call(tmp_path: Path) -> None:
    rows = rows_of(run_of(tmp_path, "10 <... brk resumed>) = 0x2000\n10 brk(0x3000) = 0x3000\n"))
    assert columns(rows, "call", "addr", "result", "entry_line") == [
        ("brk", None, 0x2000, 1),
        ("brk", 0x3000, 0x3000, 2),
    ]


def test_an_execve_may_end_in_another_thread(tmp_path: Path) -> None:
    text = (
        "4321 munmap(0x1000, 4096 <unfinished ...>\n"
        '4322 execve("bin/x", ["x"], 0x7fff /* 6 vars */ <pid changed to 4321 ...>\n'
        "4321 +++ superseded by execve in pid 4322 +++\n"
        "4321 <... execve resumed>) = 0\n"
    )
    rows = rows_of(run_of(tmp_path, text))
    assert columns(rows, "call", "pid", "aux", "path", "entry_line", "line", "status")[:3] == [
        ("PID_CHANGED", 4322, 4321, "bin/x", 2, 2, OK),
        ("SUPERSEDED", 4321, 4322, None, 3, 3, OK),
        ("execve", 4321, 4322, "bin/x", 2, 4, OK),
    ]
    assert columns(rows, "call", "status")[3:] == [("munmap", UNFINISHED)]


def test_a_call_may_be_cut_twice(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "10 restart_syscall(<... resuming interrupted read ...> <unfinished ...>\n"
            "11 brk(0) = 0\n"
            "10 <... restart_syscall resumed> <unfinished ...>\n"
            "11 brk(0) = 0\n"
            "10 <... restart_syscall resumed>) = 0\n",
        )
    )
    assert columns(rows, "call", "entry_line", "line", "status") == [
        ("brk", 2, 2, OK),
        ("brk", 4, 4, OK),
        ("restart_syscall", 1, 5, OK),
    ]


def test_an_interrupted_call_failed_and_an_exit_did_not(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "munmap(0x1000, 4096) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)\n"
            "mmap(NULL, 0, PROT_NONE, MAP_PRIVATE, -1, 0) = -1 (errno 4000)\n"
            "brk(0x1000) = -1 ENOSYS (Function not implemented) (INJECTED)\n"
            "exit_group(3) = ?\n",
        )
    )
    assert columns(rows, "call", "status", "errno", "injected") == [
        ("munmap", FAILED, 512, 0),
        ("mmap", FAILED, 4000, 0),
        ("brk", FAILED, 38, 1),
        ("exit_group", OK, 0, 0),
    ]
    assert rows[3]["aux"] == 3


def test_ltrace_results_below_zero_are_errors_of_system_calls(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "SYS_munmap(0x1, 1) = -22\n"
            "mmap@SYS(0x1000, 4096, 3, 50, 4294967295, 0) = 0xffffffffffffffea\n"
            "prog->malloc(10) = 0x55d0f7b4000\n"
            "prog->malloc(18446744073709551615) = nil\n"
            "prog->calloc(1099511627776, 1099511627776) = nil\n"
            "prog->calloc(3, 5) = 0x55d0f7b4020\n"
            "prog->free(nil) = <void>\n"
            "+++ exited (status 0) +++\n",
        )
    )
    assert columns(rows, "call", "result", "errno", "status", "caller") == [
        ("munmap", -1, 22, FAILED, None),
        ("mmap", -1, 22, FAILED, None),
        ("malloc", 0x55D0F7B4000, 0, OK, "prog"),
        ("malloc", 0, 0, FAILED, "prog"),
        ("calloc", 0, 0, FAILED, "prog"),
        ("calloc", 0x55D0F7B4020, 0, OK, "prog"),
        ("free", None, 0, OK, "prog"),
        ("EXITED", None, 0, OK, None),
    ]
    assert rows[1]["fd"] == -1
    assert rows[5]["length"] == 15


def test_ltrace_calls_nest(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "realloc@libc.so.6(0, 24 <unfinished ...>\n"
            "malloc@libc.so.6(24 <unfinished ...>\n"
            "SYS_brk(0) = 0x1000\n"
            "<... malloc resumed> ) = 0x2000\n"
            "<... realloc resumed> ) = 0x2000\n",
        )
    )
    assert columns(rows, "call", "length", "entry_line", "line", "result") == [
        ("brk", None, 3, 3, 0x1000),
        ("malloc", 24, 2, 4, 0x2000),
        ("realloc", 24, 1, 5, 0x2000),
    ]


def test_addresses_that_old_versions_sign_extended_are_cut(tmp_path: Path) -> None:
    rows = rows_of(run_of(tmp_path, "mmap2(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0) = 0xfffffffff7fe4000\n"))
    assert columns(rows, "call", "name", "result", "status") == [("mmap", "mmap2", 0xF7FE4000, OK)]


def test_raw_output_has_pages_in_mmap2_and_unsigned_descriptors(tmp_path: Path) -> None:
    rows = rows_of(
        run_of(
            tmp_path,
            "mmap2(0, 0x2000, 0x3, 0x22, 0xffffffff, 0x3) = 0xf7fe4000\n"
            "mmap2(NULL, 8192, PROT_READ, MAP_PRIVATE, 3, 0x3000) = 0xf7fe4000\n",
        )
    )
    assert columns(rows, "fd", "offset") == [(-1, 0x3000), (3, 0x3000)]


@pytest.mark.parametrize(
    ("first", "second", "times"),
    [
        ("17:36:29 ", "17:36:30 ", (63389000000000, 63390000000000)),
        ("17:36:29.824572 ", "17:36:30.000001 ", (63389824572000, 63390000001000)),
        ("1795368989.5 ", "1795368990.25 ", (1795368989500000000, 1795368990250000000)),
        ("1795368989 ", "1795368990 ", (1795368989000000000, 1795368990000000000)),
        ("     0.000100 ", "     0.000028 ", (100000, 148000)),
        ("12345      0.000100 ", "12345      0.000028 ", (100000, 148000)),
        ("17:36:29 (+     0.000026) ", "17:36:30 (+     0.000000) ", (63389000000000, 63390000000000)),
    ],
)
def test_times(tmp_path: Path, first: str, second: str, times: tuple[int, int]) -> None:
    between = "getpid() = 5\n"
    middle = "12345      0.000020 " if first.startswith("12345 ") else "     0.000020 " if first[0] == " " else second
    text = f"{first}brk(NULL) = 0x1000\n{middle}{between}{second}brk(NULL) = 0x1000\n"
    assert columns(rows_of(run_of(tmp_path, text)), "time_ns") == [(times[0],), (times[1],)]


def test_the_caller_is_the_first_libc_frame(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        "brk(0x1000) = 0x1000\n"
        " > /usr/lib/x86_64-linux-gnu/libc.so.6(brk+0xb) [0x10a0bb]\n"
        " > /usr/lib/x86_64-linux-gnu/libc.so.6(sbrk+0x5d) [0x10a1dd]\n"
        'write(1, "x", 1) = 1\n'
        " > /usr/lib/x86_64-linux-gnu/libc.so.6(write+0xb) [0x1]\n"
        "brk(0x2000) = 0x2000\n"
        " > /opt/x/prog(my_brk+0xb) [0x1]\n"
        " > /usr/lib/libc-2.31.so() [0x2]\n"
        "brk(0x3000) = 0x3000\n"
        " > /opt/x/prog(my_brk+0xb) [0x1]\n"
        "brk(0x4000) = 0x4000\n"
        " > /lib/libc.so.6(__nss_lookup+0x2b40) [0x1]\n",
    )
    assert columns(rows_of(run), "line", "caller") == [
        (1, "brk"),
        (6, "libc-2.31.so"),
        (9, "prog"),
        (11, "libc.so.6"),
    ]


@pytest.mark.parametrize(
    ("line_behind", "framed"),
    [(" > /lib/libc.so.6(brk+0xb) [0x10a0bb]", True), (" > /opt/prog() [0x1]", True), ("brk(NULL) = 0x1000", False)],
)
def test_a_log_says_whether_there_are_frames_in_it(tmp_path: Path, line_behind: str, framed: bool) -> None:
    run = run_of(tmp_path, f"brk(NULL) = 0x1000\n{line_behind}\n")
    rows_of(run)
    assert run.logs[0].framed is framed


def test_escapes_in_paths_are_undone_and_deleted_files_named_so(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        'openat(AT_FDCWD, "/t/a\\74b\\"\\303\\251", O_RDONLY) = 3</t/a\\74b\\"\\303\\251>\n'
        "mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3</srv/cf/a b, c) = 0x1>, 0) = 0x1000\n"
        "mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3</srv/gone>(deleted), 0) = 0x1000\n"
        "mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3</srv/gone (deleted)>, 0) = 0x1000\n"
        "mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3</dev/zero<char 1:5>>, 0) = 0x1000\n"
        "mmap(NULL, 1, PROT_READ, MAP_PRIVATE, 3<\\x2f\\x78>, 0) = 0x1000\n",
    )
    assert columns(rows_of(run), "path") == [
        ('/t/a<b"é',),
        ("/srv/cf/a b, c) = 0x1",),
        ("/srv/gone (deleted)",),
        ("/srv/gone (deleted)",),
        ("/dev/zero",),
        ("/x",),
    ]


def test_every_line_is_counted_once(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        "brk(NULL) = 0x1000\n"
        'read(3, "x", 1) = 1\n'
        "brk(NULL) gibberish\n"
        "fork(strace: Process 5 attached\n) = 5\n"
        "munmap(0x7f",
    )
    rows = rows_of(run)
    counted = run.counters
    assert columns(rows, "call") == [("brk",), ("fork",)]
    assert (counted.lines, counted.lines_understood, counted.lines_passed_over, counted.lines_not_understood) == (
        6,
        3,
        1,
        2,
    )
    assert [(problem.line, problem.reason) for problem in run.problems.kept][1] == (6, "cut_line")
    assert run.problems.kept[0].line == 3


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("+++ exited with 0 +++", True),
        ("munmap(0x1000, 4096) = 0", True),
        ("brk(0x1000) = 0x1000 <0.000009>", True),
        ("brk(0x1000) = 0x1000", False),
        ("brk(0x1000) = 0", False),
        ("mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, 3, 0) = -1 ENOM", False),
        ("mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, 3, 0) = -1 ENOMEM (Cannot allocate memory)", True),
        ("munmap(0x1000, 4096 <unfinished ...>", True),
        ("12345", False),
        ("munma", False),
        ("read(3, ", True),
    ],
)
def test_a_last_line_without_newline_counts_where_it_is_surely_whole(tmp_path: Path, line: str, whole: bool) -> None:
    run = run_of(tmp_path, "brk(NULL) = 0x1000\n" + line)
    run.calls()
    assert run.problems.counts == ({} if whole else {"cut_line": 1})


def test_strict_reading_stops_at_the_first_line_not_understood(tmp_path: Path) -> None:
    run = run_of(tmp_path, "brk(NULL) = 0x1000\nbrk(NULL) gibberish\n", strict=True)
    with pytest.raises(TraceSyntaxError, match=r"x\.log:2: .*gibberish"):
        run.calls()


def test_lines_too_long_to_read_are_problems_unless_passed_over(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    run = run_of(
        tmp_path, f'brk(NULL) = 0x1\nwrite(1, "{long}", 1) = 1\nopen("{long}", O_RDONLY) = 1\n{"(" * 1_000_000}\n'
    )
    began = time.process_time()
    assert len(run.calls()) == 1
    assert time.process_time() - began < 5
    assert run.problems.counts == {"line_too_long": 2}
    assert run.counters.lines_passed_over == 1


def test_several_logs_that_are_no_set_follow_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("brk(0x1) = 0x1\nbrk(0x2) = 0x2\nmunmap(0x1000, 1 <unfinished ...>\n")
    (tmp_path / "b.log").write_text("prog->malloc(3) = 0x10\n+++ exited (status 0) +++\n")
    run = read_logs([tmp_path / "a.log", tmp_path / "b.log"])
    assert columns(rows_of(run), "call", "file", "line", "clock", "dialect") == [
        ("brk", 0, 1, 1, 0),
        ("brk", 0, 2, 2, 0),
        ("munmap", 0, 3, 3, 0),
        ("malloc", 1, 1, 4, 1),
        ("EXITED", 1, 2, 5, 1),
    ]
    assert run.dialect == "mixed"


def a_set(folder: Path, files: dict[int, str]) -> LogReader:
    for pid, text in files.items():
        (folder / f"log.{pid}").write_text(text)
    return read_logs([folder / "log"])


def test_a_set_without_times_has_each_child_behind_its_creator(tmp_path: Path) -> None:
    run = a_set(
        tmp_path,
        {
            10: "brk(0x1) = 0x1\nfork() = 11\nbrk(0x2) = 0x2\nvfork() = 12\nexit_group(0) = ?\n",
            11: "brk(0x3) = 0x3\nclone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK) = 13\n",
            12: "brk(0x4) = 0x4\n",
            13: "brk(0x5) = 0x5\n",
        },
    )
    rows = rows_of(run)
    assert columns(rows, "pid", "call", "addr") == [
        (10, "brk", 1),
        (10, "fork", None),
        (11, "brk", 3),
        (13, "brk", 5),
        (11, "clone", None),
        (10, "brk", 2),
        (12, "brk", 4),
        (10, "vfork", None),
        (10, "exit_group", None),
    ]
    assert [row["clock"] for row in rows] == list(range(1, 10))
    assert [row["line"] for row in rows] == [1, 2, 1, 1, 2, 3, 1, 4, 5]


CLONE_THREAD = "clone(child_stack=NULL, flags=CLONE_VM|CLONE_THREAD)"


def test_threads_of_a_set_without_times_are_ordered_by_the_break(tmp_path: Path) -> None:
    run = a_set(
        tmp_path,
        {
            10: f"brk(NULL) = 0x1000\n{CLONE_THREAD} = 11\n{CLONE_THREAD} = 12\nbrk(0x4000) = 0x4000\nexit(0) = ?\n",
            11: "brk(0x2000) = 0x2000\nmunmap(0x70000, 4096) = 0\nbrk(0x5000) = 0x5000\nbrk(NULL) = 0x6000\n",
            12: "brk(0x3000) = 0x3000\nbrk(0x6000) = 0x6000\n",
        },
    )
    assert columns(rows_of(run), "pid", "call", "result") == [
        (10, "brk", 0x1000),
        (10, "clone", 11),
        (11, "brk", 0x2000),
        (11, "munmap", 0),
        (10, "clone", 12),
        (12, "brk", 0x3000),
        (10, "brk", 0x4000),
        (10, "exit", None),
        (11, "brk", 0x5000),
        (12, "brk", 0x6000),
        (11, "brk", 0x6000),
    ]


def test_a_break_that_shrinks_tells_no_order_of_threads(tmp_path: Path) -> None:
    run = a_set(
        tmp_path,
        {
            10: f"{CLONE_THREAD} = 11\nbrk(0x3000) = 0x3000\n",
            11: "brk(0x4000) = 0x4000\nbrk(0x2000) = 0x2000\n",
        },
    )
    assert columns(rows_of(run), "pid", "result") == [(10, 11), (11, 0x4000), (11, 0x2000), (10, 0x3000)]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["brk", "munmap", "clone"])), max_size=40))
def test_threads_that_only_grow_the_break_are_never_told_to_have_shrunk_it(did: list[tuple[int, str]]) -> None:
    files, top = {10: [f"brk(NULL) = {4096:#x}"]}, 4096
    for thread, call in did:
        pid = 10 + thread % len(files)
        if call == "brk":
            top += 4096
            files[pid].append(f"brk({top:#x}) = {top:#x}")
        elif call == "clone":
            child = 10 + len(files)
            files[pid].append(f"{CLONE_THREAD} = {child}")
            files[child] = ["set_robust_list(0x1, 24) = 0", "brk(NULL) = 0x1000"] if top == 4096 else ["gettid() = 1"]
        else:
            files[pid].append("munmap(0x70000, 4096) = 0")
    with tempfile.TemporaryDirectory() as name:
        texts = {pid: "\n".join(lines) + "\n" for pid, lines in files.items()}
        rows = rows_of(a_set(Path(name), texts))
    breaks = [row["result"] for row in rows if row["call"] == "brk"]
    assert breaks == sorted(breaks)
    for pid, lines in files.items():
        called = [line.split("(")[0] for line in lines if not line.startswith(("gettid", "set_robust"))]
        assert [row["call"] for row in rows if row["pid"] == pid] == called
    born = {row["result"]: at for at, row in enumerate(rows) if row["call"] == "clone"}
    assert all(at > born.get(row["pid"], -1) for at, row in enumerate(rows))


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["clone", "execve", 0, 1, 2, 3])), max_size=30))
def test_whatever_threads_did_the_lines_of_each_file_keep_their_order(did: list[tuple[int, str | int]]) -> None:
    files = {10: ["brk(NULL) = 0x2"]}
    for thread, call in did:
        lines = files[10 + thread % len(files)]
        if call == "clone":
            child = 10 + len(files)
            lines.append(f"{CLONE_THREAD} = {child}")
            files[child] = ["brk(NULL) = 0x2"]
        else:
            lines.append('execve("x", ["x"], 0x1) = 0' if call == "execve" else f"brk({call}) = {call}")
    with tempfile.TemporaryDirectory() as name:
        rows = rows_of(a_set(Path(name), {pid: "\n".join(lines) + "\n" for pid, lines in files.items()}))
    for pid, lines in files.items():
        assert [row["line"] for row in rows if row["pid"] == pid] == list(range(1, len(lines) + 1))


def test_a_set_with_times_is_merged_by_them(tmp_path: Path) -> None:
    run = a_set(
        tmp_path,
        {10: "1795368989.1 brk(0x1) = 0x1\n1795368989.3 brk(0x3) = 0x3\n", 11: "1795368989.2 brk(0x2) = 0x2\n"},
    )
    assert columns(rows_of(run), "pid", "addr", "clock") == [(10, 1, 1), (11, 2, 2), (10, 3, 3)]


def test_in_a_set_with_durations_calls_begin_before_they_complete(tmp_path: Path) -> None:
    run = a_set(
        tmp_path,
        {
            10: "1795368989.000010 munmap(0x1000, 4096) = 0 <0.000020>\n1795368989.000040 brk(0x1) = 0x1 <0.000000>\n",
            11: "1795368989.000015 mmap(0x1000, 4096, PROT_NONE, MAP_PRIVATE, 3, 0) = 0x1000 <0.000005>\n",
        },
    )
    assert columns(rows_of(run), "call", "entry_clock", "clock") == [("mmap", 2, 3), ("munmap", 1, 4), ("brk", 5, 5)]


def test_logs_of_ltrace_that_are_numbered_are_no_set(tmp_path: Path) -> None:
    run = a_set(tmp_path, {1: "malloc(8) = 0x10\n", 2: "malloc(8) = 0x30\n"})
    assert columns(rows_of(run), "pid", "result") == [(None, 0x10), (None, 0x30)]


def in_order(files: dict[int, list[tuple[int, int]]]) -> list[tuple[int, int, int, int]]:
    """Return pid, line, entry clock and clock of calls, by when each began and how long it took.

    No call of a file begins before the one in front of it ended, whatever the times say.
    """
    marks = []
    for pid, lines in files.items():
        end = -1
        for line, (time_then, took) in enumerate(lines, 1):
            begun, end = max(time_then, end), max(time_then + took, end)
            marks += [(end, False, pid, line), *([(begun, True, pid, line)] if begun < end else [])]
    clocks = {mark[1:]: clock for clock, mark in enumerate(sorted(marks), 1)}
    calls = sorted((clock, pid, line) for (begins, pid, line), clock in clocks.items() if not begins)
    return [(pid, line, clocks.get((True, pid, line), clock), clock) for clock, pid, line in calls]


micros = st.integers(0, 12)
lines_of_a_file = st.lists(st.tuples(micros, micros), min_size=1, max_size=12)


@given(st.dictionaries(st.integers(10, 13), lines_of_a_file, min_size=2), st.sampled_from([(1, 1), (3, 5), (99, 99)]))
def test_a_set_is_ordered_in_windows_of_any_length(
    files: dict[int, list[tuple[int, int]]], rows: tuple[int, int]
) -> None:
    files = dict(sorted(files.items()))
    texts = {
        pid: "".join(f"1795368989.{begun:06d} brk(NULL) = 0x1 <0.{took:06d}>\n" for begun, took in lines)
        for pid, lines in files.items()
    }
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(filesets, "PART_ROWS", rows[0])
        patch.setattr(filesets, "WINDOW_ROWS", rows[1])
        found = columns(rows_of(a_set(Path(name), texts)), "pid", "line", "entry_clock", "clock")
    assert found == in_order(files)


def test_an_execve_in_a_set_may_end_in_another_file(tmp_path: Path) -> None:
    run = a_set(
        tmp_path,
        {
            10: "1795368989.000001 clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD) = 11\n"
            "1795368989.000004 +++ superseded by execve in pid 11 +++\n1795368989.000005 <... execve resumed>) = 0\n",
            11: '1795368989.000003 execve("bin/x", ["x"], 0x7f /* 6 vars */ <pid changed to 10 ...>\n',
        },
    )
    assert columns(rows_of(run), "pid", "call", "path", "status") == [
        (10, "clone", None, OK),
        (11, "PID_CHANGED", "bin/x", OK),
        (10, "SUPERSEDED", None, OK),
        (10, "execve", "bin/x", OK),
    ]


def test_rotated_logs_with_printed_pids_are_no_set(tmp_path: Path) -> None:
    run = a_set(tmp_path, {1: "77 brk(0x1) = 0x1\n", 2: "77 brk(0x2) = 0x2\n"})
    assert columns(rows_of(run), "pid", "addr") == [(77, 1), (77, 2)]


def logs_of_captures() -> list[Path]:
    places = [folder for name, folder in oracle.scenarios().items() if name != "heavy"]
    return [path for place in places for path in sorted(place.rglob("*.log*")) if path.stat().st_size < 100_000]


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_calls_do_not_depend_on_where_chunks_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_run = read_logs([path])
    whole = rows_of(whole_run)
    size = random.Random(path.name).choice([500, 3000, 9000])
    monkeypatch.setattr(replay.calls.reader, "read_texts", lambda log: read_texts(log, size))
    pieces_run = read_logs([path])
    assert rows_of(pieces_run) == whole
    assert pieces_run.counters == whole_run.counters
    assert pieces_run.problems.counts == {}


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_clocks_never_go_back(path: Path) -> None:
    calls = read_logs([path]).calls()
    assert (np.diff(calls.clock) >= 0).all()
    assert (calls.entry_clock <= calls.clock).all()
