"""Parts of a run: what is said of a window is said of it alone, and a window that holds nothing is an error."""

from __future__ import annotations

import json
from pathlib import Path

import oracle
import pytest
from test_cli import run

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
MAP = "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = "


def said(*options: object) -> str:
    ended = run("report", BLOCKED, "--short", *options)
    assert ended.status == 0
    return " ".join(ended.out.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--since", 88), "Verdict No brk call was made from line 88 on."),
        (("--since", 23, "--until", 24), "Verdict No brk call was made from line 23 to line 24."),
        (("--until", 21), "No brk was refused up to line 21: the break grew once, by 135,168 bytes (132 KiB) in all"),
        (("--since", 72, "--pid", 6415), "No brk was refused from line 72 on (pid 6415): the break grew 7 times"),
        (("--since", 40, "--until", 45), "From line 40 to line 45 the break failed to grow 3 times"),
    ],
)
def test_sentences_of_a_window_speak_of_it(options: tuple[object, ...], words: str) -> None:
    assert words in said(*options)


def test_what_happens_after_a_window_is_not_said_to_be_missing() -> None:
    assert "no mmap stood in" not in said("--since", 40, "--until", 45)  # that of line 45 stands in line 46


def test_a_window_counts_what_grew_in_it(tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    log.write_text(f"{MAP}0x7f0000000000\n{MAP}0x7f0000010000\nmunmap(0x7f0000000000, 4096) = 0\n")
    shown = " ".join(run("report", log, "--since", 2).out.split())
    assert "grew once from line 2 on, by 8,192 bytes (8 KiB) in all, and gave 4,096 bytes (4 KiB) back (once)" in shown
    assert json.loads(run("report", log, "--json", "--since", 2).out)["shown"] == "from line 2 on"


def test_calls_refused_outside_a_window_are_not_told_in_it(tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    log.write_text(f"{MAP}-1 ENOMEM (Cannot allocate memory)\n{MAP}0x7f0000010000\n")
    assert "ENOMEM" in run("report", log, "--short").out
    assert "ENOMEM" not in run("report", log, "--short", "--since", 2).out


@pytest.mark.parametrize(
    ("command", "options", "status", "message"),
    [
        ("report", ("--since", 60, "--until", 40), 2, "nothing lies between: line 40 is before line 60"),
        ("steps", ("--line", "60..40"), 2, "nothing lies between: line 40 is before line 60"),
        ("steps", ("--from", 6, "--to", 4), 2, "nothing lies between: step 4 is before step 6"),
        ("report", ("--since", 91), 1, "no call that replay follows completed from line 91 on"),
        ("steps", ("--since", 91), 1, "no call that replay follows completed from line 91 on"),
        ("report", ("--until", "99:99:99"), 2, "expected seconds (1795368030.52) or a time of day (14:03:07.5)"),
        ("maps", ("--time", "99:99:99"), 2, "expected seconds (1795368030.52) or a time of day (14:03:07.5)"),
        ("maps", ("--time", "14:00:00"), 1, "14:00:00 is no time of this log: the log's times are seconds since 1970"),
        ("maps", ("--time", "1.5"), 1, "seconds since 1970, from 1795373563.323731 to 1795373563.355507"),
    ],
)
def test_a_window_or_a_moment_that_holds_nothing_is_an_error(
    command: str, options: tuple[object, ...], status: int, message: str
) -> None:
    ended = run(command, BLOCKED, *options)
    assert (ended.status, ended.out) == (status, "")
    assert message in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("prefix", "time", "message"),
    [
        ("14:03:07.5 ", "1795373563.4", "the log's times are times of day, from 14:03:07.5 to 14:03:07.5"),
        ("14:03:07.5 ", "09:00:00", "no step at or before 09:00:00"),
        ("     0.000100 ", "14:03:07", "the log's times are seconds since its start, from 0.0001 to 0.0001"),
        ("", "14:03:07", "the log has no times (strace -ttt writes them)"),
    ],
    ids=["-tt", "before", "-r", "none"],
)
def test_a_time_of_another_clock_says_which_times_the_log_has(
    tmp_path: Path, prefix: str, time: str, message: str
) -> None:
    log = tmp_path / "trace.log"
    log.write_text(f"{prefix}{MAP}0x7f0000000000\n")
    ended = run("maps", log, "--time", time)
    assert ended.status == 1 and message in ended.err
