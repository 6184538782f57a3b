"""The first screen: it fits 24 lines of 80 columns, names programs and pids, and claims what the log shows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import oracle
import pytest

import replay
from replay.console import screen
from replay.errors import TraceFormatError
from replay.report.first_screen import SCREEN_LINES, first_screen

SAMPLES = sorted(path.parent.name for path in oracle.SAMPLES.glob("*/*trace.log"))
CASES = sorted((oracle.CHECKOUT / "tests" / "cases").glob("*/*.log"))


def lines_of(*logs: Path) -> list[str]:
    return list(screen.shown(first_screen(replay.load(logs)), colour=False))


@pytest.fixture
def say(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that gives the first screen on a log as one long line of words."""

    def screen_on(text: str) -> str:
        log = tmp_path / "trace.log"
        log.write_text(text)
        return " ".join(" ".join(lines_of(log)).split())

    return screen_on


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_first_screen_of_a_sample_fits_a_screen(sample: str) -> None:
    lines = lines_of(*(oracle.SAMPLES / sample).glob("*trace.log"))
    assert len(lines) <= SCREEN_LINES == 24
    assert max(map(screen.cells, lines)) <= 80
    assert "Verdict" in lines and "What this log cannot tell" in lines


def test_the_first_screens_of_cases_fit() -> None:
    longer, shown = set(), 0
    for case in CASES:
        with suppress(TraceFormatError):  # some are logs of other tools
            shown += 1
            if len(lines_of(case)) > SCREEN_LINES:
                longer.add(case.stem)
    assert shown > 40
    assert longer == set()


# --- who -------------------------------------------------------------------------------------------------------------

MAP = "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = "


def test_of_several_spaces_the_program_and_pid_are_named(say: Callable[[str], str]) -> None:
    log = (
        '10 execve("/bin/sh", ["sh"], 0x7ffe /* 3 vars */) = 0\n10 fork() = 11\n'
        '11 execve("/opt/prog", ["prog"], 0x7ffe /* 3 vars */) = 0\n'
        f"11 {MAP}0x7f0000000000\n11 exit_group(0) = ?\n10 exit_group(0) = ?\n"
    )
    assert "The other mappings of space 2 (prog, pid 11) grew once" in say(log)


def test_what_fork_copied_is_no_growth_of_the_child(say: Callable[[str], str]) -> None:
    log = (
        '10 execve("/bin/a", ["a"], 0x7ffe /* 3 vars */) = 0\n'
        f"10 {MAP}0x7f0000000000\n10 fork() = 11\n11 {MAP}0x7f0000100000\n11 {MAP}0x7f0000200000\n"
    )
    assert "of space 1 (a, pid 11) grew twice, by 16,384 bytes (16 KiB) in all, and gave nothing back" in say(log)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("", "3 threads or processes"),
        ("10 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD|CLONE_SIGHAND) = 11\n"
         "10 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD|CLONE_SIGHAND) = 12\n", "3 threads"),
    ],
    ids=["not-seen", "clone"],
)  # fmt: skip
def test_who_shares_a_space_is_a_thread_only_where_the_log_shows_it(
    say: Callable[[str], str], made: str, words: str
) -> None:
    lines = [f"{pid} {MAP}{0x7F0000000000 + pid * 0x10000:#x}\n" for pid in (10, 11, 12)]
    assert f", {words} Verdict" in say(made + "".join(lines))


def test_reserved_memory_is_told_as_such(say: Callable[[str], str]) -> None:
    reserve = "mmap(NULL, 1048576, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x7f1000000000\n"
    said = say(f"{MAP}0x7f0000000000\n{reserve}")
    assert "At the peak (line 2) 1 MiB were mapped, 1 MiB of them without access, only reserved." in said
    assert "only reserved" not in say(f"{MAP}0x7f0000000000\n")
