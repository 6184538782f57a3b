"""What people type: help, typos, standard input, directories, standard output, and how a signal ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import indent

import oracle
import pytest
from test_cli import process, run

import replay
from replay.batch import batch
from replay.commands import manual
from replay.run.cxx_names import demangled

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"


@pytest.mark.parametrize(
    ("typed", "meant"), [("--strct", "--strict"), ("--page", "--page-size"), ("--jso", "--json"), ("--bogus", "")]
)
def test_a_wrong_option_is_answered_with_the_one_that_fits_or_with_none(typed: str, meant: str) -> None:
    ended = run("report", BLOCKED, typed)
    assert ended.status == 2
    told = f"No such option: {typed}" + (f". Did you mean {meant}?" if meant else "")
    assert ended.err.splitlines()[-1] == f"Error: {told}"


def test_help_of_a_command_and_of_all() -> None:
    assert run("help", "steps").out == run("steps", "--help").out
    assert run("help").out == run("--help").out
    assert run("-V").out == run("--version").out


def test_help_of_what_is_no_command_is_wrong_usage() -> None:
    ended = run("help", "stpes")
    assert (ended.status, ended.err.splitlines()[-1]) == (2, "Error: No command 'stpes'. Did you mean 'steps'?")
    assert run("help", "nope").status == 2


def test_help_names_arguments_as_people_do() -> None:
    shown = run("report", "--help").out
    assert shown.startswith("Usage: replay report [OPTIONS] TRACE...\n")
    assert "\n  TRACE...  Logs of one run" in shown and "list[str]" not in shown


def test_usage_errors_print_no_escapes() -> None:
    ended = process("report", "--\x1b[31mred", BLOCKED)
    assert ended.status == 2 and "\x1b" not in ended.err


@pytest.mark.parametrize("arguments", [[], ["report"], ["report", "-"]])
def test_standard_input_is_read_without_a_dash_where_it_is_a_pipe(arguments: list[str]) -> None:
    ended = process(*arguments, data=BLOCKED.read_bytes())
    assert (ended.status, ended.out.splitlines()[0]) == (0, "standard input")


def test_without_a_log_and_a_pipe_a_command_says_so() -> None:
    with open(os.devnull, "rb") as nothing:
        done = subprocess.run(
            [sys.executable, "-m", "replay", "maps"],
            stdin=nothing,
            capture_output=True,
            check=False,
            cwd=oracle.CHECKOUT,
            text=True,
        )
    assert done.returncode == 2
    assert "name a log; or give one on standard input" in done.stderr


def test_closed_standard_input_is_a_message() -> None:
    done = subprocess.run(
        f"{sys.executable} -m replay report - <&-",
        shell=True,
        capture_output=True,
        check=False,
        cwd=oracle.CHECKOUT,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "replay: standard input is closed; expected a log on it\n"


def test_a_directory_of_one_set_is_a_trace_and_of_two_is_not(tmp_path: Path) -> None:
    for pid in (10, 11):
        (tmp_path / f"log.{pid}").write_text("brk(NULL) = 0x1000000\nexit_group(0) = ?\n")
    (tmp_path / "notes.txt").write_text("not of the set\n")
    assert run("steps", tmp_path).out == run("steps", tmp_path / "log").out
    (tmp_path / "other.12").write_text("brk(NULL) = 0x1000000\n")
    ended = run("steps", tmp_path)
    assert ended.status == 1 and "several sets of strace -ff" in ended.err and "replay batch" in ended.err


def test_a_directory_of_one_log_is_a_trace_and_of_two_says_what_to_do(tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    log.write_text("brk(NULL) = 0x1000000\nexit_group(0) = ?\n")
    (tmp_path / ".hidden").touch()
    assert run("steps", tmp_path).out == run("steps", log).out
    (tmp_path / "other.log").write_text("brk(NULL) = 0x1000000\n")
    ended = run("steps", tmp_path)
    said = (
        f"{tmp_path}: is a directory, neither a recording nor a set of strace -ff nor one file alone; give one of its "
    )
    said += f"runs (replay {tmp_path}/LOG), or all to `replay batch {tmp_path} -o DATASET`"
    assert (ended.status, " ".join(ended.err.split())) == (1, said)


@pytest.mark.parametrize("words", [(), ("report",), ("html", "-o", "page.html"), ("maps",)])
def test_a_dataset_is_no_trace_and_is_told_as_one(words: tuple[str, ...], tmp_path: Path) -> None:
    place = tmp_path / "fleet"
    batch(BLOCKED, place, jobs=0)
    ended = run(*words, place)
    assert (ended.status, ended.out) == (1, "")
    assert f"{place}: is a dataset of many runs, not the log of one; ask it with `replay query {place}" in ended.err
    assert "dashboard" in ended.err and "compare" in ended.err


def test_an_exported_run_is_no_trace_and_a_dataset_holds_no_logs(tmp_path: Path) -> None:
    replay.load(BLOCKED).export(tmp_path / "tables")
    ended = run(tmp_path / "tables")
    assert (ended.status, "holds the tables of an exported run, not its log" in ended.err) == (1, True)
    batch(BLOCKED, tmp_path / "fleet", jobs=0)
    ended = run("batch", tmp_path / "fleet", "-o", tmp_path / "other")
    assert (ended.status, "is a dataset: tables, no logs" in ended.err) == (1, True)
    assert not (tmp_path / "other").exists()


def test_a_number_of_another_alphabet_is_no_pid(tmp_path: Path) -> None:
    log = tmp_path / "st.²"
    shutil.copy(BLOCKED, log)
    assert run(log).status == 0


@pytest.mark.parametrize("time", ["1e99999999", "-1e99999999", "1e30", "99999999999999999999", "-5"])
def test_an_absurd_time_is_wrong_usage(time: str) -> None:
    ended = run("maps", BLOCKED, f"--time={time}")
    assert (ended.status, ended.out) == (2, "")


def ended_by(code: str, number: signal.Signals) -> tuple[int, str]:
    """Run Python with the command's signals set, signal it when it says that it is ready; return status and errors."""
    begin = "from replay.commands.endings import end_at_signals, status_of_interrupt\nend_at_signals()\n"
    words = [sys.executable, "-c", begin + code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None and started.stdout.readline() == "ready\n"
        started.send_signal(number)
        assert started.stderr is not None
        return started.wait(timeout=600), started.stderr.read()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_temporary_files_go(number: signal.Signals, status: int, tmp_path: Path) -> None:
    code = (
        "import sys, tempfile, time\n"
        "try:\n"
        f"    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: sys.exit(status_of_interrupt())\n"
    )
    assert ended_by(code, number)[0] == status
    assert list(tmp_path.iterdir()) == []


SWALLOWERS = {
    "a finaliser": "class Slow:\n    __del__ = wait\nslow = Slow(); del slow\n",
    "a library": "try: wait()\nexcept: pass\n",
}


@pytest.mark.parametrize("swallower", SWALLOWERS)
def test_an_interrupt_that_is_swallowed_is_raised_again(swallower: str) -> None:
    code = (
        "import sys, time\n"
        "def wait(self=None):\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "def run():\n"
        f"{indent(SWALLOWERS[swallower], '    ')}"
        "    time.sleep(60)\n"
        "try: run()\n"
        "except KeyboardInterrupt: sys.exit(status_of_interrupt())\n"
    )
    assert ended_by(code, signal.SIGTERM) == (143, "")


def test_the_alarm_of_an_interrupt_that_was_answered_is_off() -> None:
    code = (
        "import signal, sys, time\n"
        "try:\n"
        "    print('ready', flush=True); time.sleep(60)\n"
        "except: pass\n"
        "status = status_of_interrupt()\n"
        "signal.signal(signal.SIGALRM, signal.SIG_DFL)\n"  # as Python does when it ends
        "time.sleep(0.2)\n"
        "sys.exit(status)\n"
    )
    assert ended_by(code, signal.SIGINT) == (130, "")


def test_an_interrupt_of_which_python_makes_another_error_is_one() -> None:
    code = (
        "import time\n"
        "from replay import cli\n"
        "class Field:\n"
        "    def __set_name__(self, owner, name):\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "cli.app = lambda prog_name: type('Row', (), {'field': Field()})\n"
        "cli.main()\n"
    )
    assert ended_by(code, signal.SIGINT) == (130, "")


def test_an_interrupt_of_which_a_library_makes_an_exit_is_one() -> None:
    code = (
        "import sys, time\n"
        "from replay import cli\n"
        "def app(prog_name):\n"
        "    try: print('ready', flush=True); time.sleep(60)\n"
        "    except KeyboardInterrupt: sys.exit(1)\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    assert ended_by(code, signal.SIGINT) == (130, "")


# --- completion and the manual page ----------------------------------------------------------------------------------


def completed(words: str) -> list[str]:
    """Return what the shell is offered for the last of the words."""
    number = str(len(words.split()) - 1)
    return process(_REPLAY_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=number).out.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("replay sta", ["stacks"]),
        ("replay maps --pag", ["--page-size"]),
        ("replay report --fail-if brk_failure_c", ["brk_failure_causes"]),
        ("replay compare --fail-if change.peak_live_l", ["change.peak_live_line"]),
    ],
)
def test_the_shell_completes_commands_options_and_columns(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_the_manual_page_is_that_of_the_help() -> None:
    made_by = "python -m replay.commands.manual"
    assert manual.PAGE.read_text(encoding="utf-8") == manual.manual(), f"{made_by} makes it anew"


# --- stacks, and a log that is still written -------------------------------------------------------------------------

FRAMES = """\
brk(NULL) = 0x1000000
brk(0x1021000) = 0x1021000
 > /usr/lib/libc.so.6(brk+0xb) [0x10b]
 > /usr/lib/libc.so.6(malloc+0x1c) [0x51c]
 > /srv/prog(grow;deep+0x9) [0x1149]
 > /srv/prog() [0x1234]
mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
 > /usr/lib/libc.so.6(mmap+0xb) [0x10b]
brk(0x1042000) = 0x1042000
 > /usr/lib/libc.so.6(brk+0xb) [0x10b]
 > /srv/prog(main+0x9) [0x1149]
exit_group(0) = ?
"""


def test_stacks_are_folded_from_the_outermost_function(tmp_path: Path) -> None:
    log = tmp_path / "k.log"
    log.write_text(FRAMES)
    grown = run("stacks", log)
    assert grown.out == "prog+?;grow:deep;malloc;brk;brk 135168\nmain;brk;brk 135168\n"
    assert "264 KiB in 2 stacks: bytes that the break grew by" in grown.err
    assert run("stacks", log, "--of", "mmap", "-q").out == "mmap;mmap 4096\n"


def test_the_report_names_who_asked_for_memory(tmp_path: Path) -> None:
    log = tmp_path / "k.log"
    log.write_text(FRAMES)
    said = run("report", log).out
    assert "Who asked for memory\n  count  what        asked by          bytes in all  lines\n" in said
    assert "      1  break grew  grow:deep (prog)       135,168  2\n" in said
    asked = json.loads(run("report", log, "--json").out)["asked_by"]
    assert [(one["asked_by"], one["bytes"], one["first_line"]) for one in asked] == [
        ("grow:deep (prog)", 135168, 2),
        ("main (prog)", 135168, 9),
    ]


def test_stacks_of_growth_are_those_of_the_malloc_around_it(tmp_path: Path) -> None:
    log = tmp_path / "nested.log"
    log.write_text(
        "7 malloc(5000 <unfinished ...>\n7 SYS_brk(0) = 0x1000000\n7 SYS_brk(0x1021000) = 0x1021000\n"
        "7 <... malloc resumed> ) = 0x10002a0\n > prog(deep+0x9) [1149]\n > prog(main+0x9) [1159]\n"
        "7 exit_group(0) = ?\n"
    )
    assert run("stacks", log, "--of", "growth", "-q").out == "main;deep;malloc;brk 135168\n"
    assert "malloc(5,000) of deep (prog)" in run("report", log).out


MANGLED = "_ZN3app5Store3putEi"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        (MANGLED, "app::Store::put(int)"),
        ("_Znwm", "operator new(unsigned long)"),
        ("main", "main"),
        ("_Zbogus", "_Zbogus"),
        ("_ZN\xe4", "_ZN\xe4"),
    ],
)
def test_names_of_cxx_are_those_of_the_source(symbol: str, name: str) -> None:
    pytest.importorskip("cxxfilt")
    assert demangled(symbol) == name


def test_without_cxxfilt_names_stand_as_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cxxfilt", None)
    log = tmp_path / "k.log"
    log.write_text(f"brk(NULL) = 0x1000000\nbrk(0x1021000) = 0x1021000\n > /srv/prog({MANGLED}+0x9) [0x1149]\n")
    shown = run("stacks", log)
    assert shown.out == f"{MANGLED};brk 135168\n"
    assert "| c++filt reads them" in shown.err


def test_a_log_without_stacks_says_how_to_get_them() -> None:
    ended = run("stacks", BLOCKED)
    assert ended.status == 1 and "strace -k" in ended.err


def test_watching_ends_with_the_report_once_the_program_has(tmp_path: Path) -> None:
    log = tmp_path / "growing.log"
    lines = BLOCKED.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:40]))
    command = [sys.executable, "-m", "replay", "watch", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=oracle.CHECKOUT) as watching:
        time.sleep(1)
        assert watching.poll() is None
        with log.open("a") as more:
            more.writelines(lines[40:])
        out, _ = watching.communicate(timeout=600)
    assert out == run(log).out
