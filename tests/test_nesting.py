"""Which libc call a call ran inside, and which lines are not believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle
import pytest

from replay.calls import reader as calls
from replay.calls.enclosing import Nesting, find_nesting
from replay.engine.columns import NULL
from replay.logs import dialect
from replay.spaces import replay as regions


def nested(log: Path, *, nil: bool = False) -> tuple[regions.Replay, Nesting]:
    run = calls.read_logs([log])
    replayed = regions.replay(run, run.strings)
    return replayed, find_nesting(replayed.events, run.strings, nil=nil)


def by_lines(replayed: regions.Replay, column: np.ndarray) -> dict[int, int]:
    """Return which line is inside the call that completes at which line."""
    line = replayed.events["line"]
    return {int(line[i]): int(line[column[i]]) for i in np.flatnonzero(column != NULL)}


PARENTS = {
    "a_malloc_that_grows_the_heap": (
        """
        prog->malloc(100 <unfinished ...>
        SYS_brk(0) = 0x556aa8fa2000
        SYS_brk(0x556aa8fc3000) = 0x556aa8fc3000
        <... malloc resumed> ) = 0x556aa8fa22a0
        SYS_brk(0) = 0x556aa8fc3000
        """,
        {2: 4, 3: 4},
    ),
    "the_outermost_of_nested_calls": (
        """
        prog->calloc(1, 100 <unfinished ...>
        malloc@libc.so.6(100 <unfinished ...>
        SYS_brk(0x556aa8fc3000) = 0x556aa8fc3000
        <... malloc resumed> ) = 0x556aa8fa22a0
        <... calloc resumed> ) = 0x556aa8fa22a0
        """,
        {3: 5},
    ),
    "two_threads_in_one_line_order": (
        """
        10 SYS_clone(0x3d0f00, 0x7f0000001000, 0, 0) = 11
        10 prog->malloc(100 <unfinished ...>
        11 prog->malloc(200000 <unfinished ...>
        11 SYS_mmap(0, 204800, 3, 34 <unfinished ...>
        10 SYS_brk(0x556aa8fc3000) = 0x556aa8fc3000
        10 <... malloc resumed> ) = 0x556aa8fa22a0
        11 <... SYS_mmap resumed> ) = 0x7f0000100000
        11 <... malloc resumed> ) = 0x7f0000100010
        """,
        {5: 6, 7: 8},
    ),
    "a_free_that_dies_in_the_kernel": (
        """
        prog->malloc(10) = 0x556aa8fa22a0
        prog->free(0x556aa8fa22a0 <unfinished ...>
        SYS_munmap(0x7f0000000000, 4096) = 0
        +++ killed by SIGSEGV +++
        """,
        {3: 4},
    ),
    "malloc_trim": (
        """
        prog->malloc_trim(0, 1, 2, 3 <unfinished ...>
        SYS_brk(0x556aa8fc3000) = 0x556aa8fc3000
        <... malloc_trim resumed> ) = 1
        """,
        {2: 3},
    ),
    "a_call_of_libc_named_wrongly_encloses_nothing": (
        """
        libc.so.6->calloc(0, 1600 <unfinished ...>
        SYS_brk(0x556aa8fc3000) = 0x556aa8fc3000
        <... calloc resumed> ) = 0x556aa8fa22a0
        """,
        {},
    ),
    "a_new_that_an_exception_left": (
        """
        _Znwm(-1, 0, 1, 2 <unfinished ...>
        malloc(144) = 0x556aa8fa22a0
        SYS_brk(0x556aa8fc3000) = 0x556aa8fc3000
        <... _Znwm resumed> ) = 0
        """,
        {},
    ),
}


def write(folder: Path, text: str) -> Path:
    log = folder / "ltrace.log"
    log.write_text("".join(f"{line.strip()}\n" for line in text.strip().splitlines()))
    return log


@pytest.mark.parametrize(("text", "expected"), PARENTS.values(), ids=PARENTS)
def test_the_libc_call_around_a_system_call(text: str, expected: dict[int, int], tmp_path: Path) -> None:
    replayed, found = nested(write(tmp_path, text))
    ends = by_lines(replayed, found.around(np.arange(found.step_count)))
    assert set(ends) == set(expected)
    # a call that never returned stands at the log's last line
    assert all(ends[line] == end for line, end in expected.items())


OUTER = {
    "realloc_calls_malloc": (
        """
        realloc@libc.so.6(0, 50 <unfinished ...>
        malloc@libc.so.6(50) = 0x55e6ca273470
        <... realloc resumed> ) = 0x55e6ca273470
        """,
        {2: 3},
    ),
    "shown_by_default_and_by_x": (
        """
        alloc->malloc(10 <unfinished ...>
        malloc@libc.so.6(10) = 0x55e6ca273470
        <... malloc resumed> ) = 0x55e6ca273470
        alloc->free(0x55e6ca273470 <unfinished ...>
        free@libc.so.6(0x55e6ca273470) = <void>
        <... free resumed> ) = <void>
        """,
        {2: 3, 5: 6},
    ),
    "three_deep": (
        """
        prog->_Znam(10 <unfinished ...>
        _Znwm@libstdc++.so.6(10 <unfinished ...>
        malloc@libc.so.6(10) = 0x55e6ca273470
        <... _Znwm resumed> ) = 0x55e6ca273470
        <... _Znam resumed> ) = 0x55e6ca273470
        """,
        {3: 5, 4: 5},
    ),
    "one_behind_the_other": ("malloc(10) = 0x55e6ca273470\nmalloc(10) = 0x55e6ca273490", {}),
    "after_a_call_that_was_never_closed": (
        """
        malloc(10 <unfinished ...>
        malloc(20) = 0x55e6ca273470
        +++ exited (status 0) +++
        """,
        {},
    ),
}


@pytest.mark.parametrize(("text", "expected"), OUTER.values(), ids=OUTER)
def test_one_allocation_shown_twice(text: str, expected: dict[int, int], tmp_path: Path) -> None:
    replayed, found = nested(write(tmp_path, text))
    assert by_lines(replayed, found.outer_step) == expected


MISNAMED = {
    "of_0.7.3_with_system_calls": ("SYS_brk(0) = 0x1000\nlibc.so.6->calloc(0, 77) = 0x55e6ca273470", 1),
    "of_0.7.3_without": ("libc.so.6->realloc(0x7f00, 6) = 0x6\nld-linux-x86-64.so.2->free(0x7f00) = <void>", 2),
    "of_0.8_with_system_calls": ("brk@SYS(nil) = 0x1000\nlibc.so.6->realloc(nil, 77) = 0x55e6ca273470", 0),
    "of_the_program": ("prog->malloc(77) = 0x55e6ca273470\nlibselinux.so.1->free(0) = <void>", 0),
    "entry_points": ("malloc@libc.so.6(77) = 0x55e6ca273470", 0),
}


@pytest.mark.parametrize(("text", "count"), MISNAMED.values(), ids=MISNAMED)
def test_lines_set_aside(text: str, count: int, tmp_path: Path) -> None:
    _, found = nested(write(tmp_path, text))
    assert len(found.misnamed_steps) == count


def test_a_log_that_prints_nil_is_believed(tmp_path: Path) -> None:
    log = write(tmp_path, "prog->free(nil) = <void>\nlibc.so.6->realloc(nil, 77) = 0x55e6ca273470")
    assert dialect.prints_nil(log.read_bytes())
    assert not len(nested(log, nil=True)[1].misnamed_steps)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"free(nil)   = <void>\n", True),
        (b"prog->realloc(nil, 24) = 0x3bf192a0\n", True),
        (b"malloc(18446744073709551615) = nil\n", True),
        (b"malloc(9) = nil <0.000069>\n", True),
        (b"free(0) = <void>\n", False),
        (b'puts("nil") = 4\n', False),
        (b"free(NULL) = <void>\n", False),
    ],
)
def test_nil(line: bytes, expected: bool) -> None:
    assert dialect.prints_nil(line) is expected


@pytest.mark.skipif("frag/ltrace_pinned" not in oracle.captures(), reason="no captures")
def test_every_brk_of_a_captured_program_ran_inside_malloc_or_free() -> None:
    replayed, found = nested(oracle.captures()["frag/ltrace_pinned"].logs[0])
    brks = replayed.brks
    moved = brks["step"][(brks["before"] != NULL) & (brks["granted"] != brks["before"])]
    outside = moved[found.around(moved) == NULL]
    assert len(moved) == 124
    # malloc_trim is not among the calls that this log shows
    assert len(outside) == 1
