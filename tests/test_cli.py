"""The command line: exit status, what goes to which stream, help, bad input, existing output, default command."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import oracle
import pytest
import typer
from typer.testing import CliRunner

from replay import cli
from replay.commands.options import time_ns

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
PLAIN = oracle.SAMPLES / "plain" / "strace.log"
READING = ["report", "maps", "steps", "diff", "export"]


class Ended:
    """How a command ended: its exit status and what it printed on both streams."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


def run(*arguments: object, **options: object) -> Ended:
    """Run the command in this process."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments], **options)
    status = result.exit_code
    if isinstance(result.exception, cli.ReplayError):
        return Ended(1, result.stdout, str(result.exception))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Ended(status, result.stdout, result.stderr)


def process(*arguments: object, data: bytes | None = None, **environment: str) -> Ended:
    """Run the command in a process of its own, without a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        input=data,
        capture_output=True,
        check=False,
        cwd=oracle.CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(oracle.CHECKOUT), **environment},
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


# --- which command ---------------------------------------------------------------------------------------------------


def test_a_log_alone_is_reported() -> None:
    assert run(BLOCKED).out == run("report", BLOCKED).out
    assert run("--json", BLOCKED).out == run("report", BLOCKED, "--json").out


@pytest.mark.parametrize("words", [[BLOCKED], ["report", BLOCKED], ["report", BLOCKED, "--quiet"]])
def test_with_and_without_options_a_report_is_the_same(words: list[object]) -> None:
    ended = process(*words)
    assert (ended.status, ended.out, ended.err) == (0, run("report", BLOCKED).out, "")


def test_a_log_named_like_a_command_is_a_command(tmp_path: Path) -> None:
    (tmp_path / "schema").write_bytes(BLOCKED.read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(oracle.CHECKOUT)}
    replay = [sys.executable, "-m", "replay"]
    for words, begin in (["schema"], "events"), (["report", "schema"], "schema\n91 lines"):
        done = subprocess.run([*replay, *words], cwd=tmp_path, env=environment, capture_output=True, check=True)
        assert done.stdout.decode().startswith(begin)


def test_standard_input_is_a_log() -> None:
    by_pipe = process("-", data=BLOCKED.read_bytes())
    assert by_pipe.status == 0
    assert by_pipe.out.splitlines()[0] == "standard input"
    assert by_pipe.out.splitlines()[1:] == run(BLOCKED).out.splitlines()[1:]


def test_a_misspelt_command_is_wrong_usage_and_names_the_right_one() -> None:
    ended = run("setps", PLAIN)
    assert ended.status == 2
    assert "Did you mean 'steps'?" in ended.err


def test_a_file_named_like_a_command_is_told_apart_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PLAIN, tmp_path / "step")
    shutil.copy(PLAIN, tmp_path / "maps")
    monkeypatch.chdir(tmp_path)
    assert run("step").out.startswith("step\n")
    assert run("./maps").out.startswith("./maps\n")


def test_version() -> None:
    ended = run("--version")
    assert (ended.status, ended.out) == (0, f"replay {cli.__version__}\n")


def test_without_arguments_the_help_is_shown_as_wrong_usage() -> None:
    ended = process()
    assert ended.status == 2
    assert "Commands:" in ended.out + ended.err


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_that_fits_the_screen(command: str) -> None:
    ended = run(command, "--help")
    assert ended.status == 0
    assert ended.out.count("\n") > 8
    assert max(map(len, ended.out.splitlines())) <= 80


def test_the_help_lists_every_command_with_a_whole_sentence() -> None:
    listed = run("--help").out.partition("Commands:\n")[2]
    told = {entry.split()[0]: " ".join(entry.split()[1:]) for entry in re.split(r"\n  (?=\S)", "\n" + listed) if entry}
    assert tuple(told) == cli.COMMANDS
    assert [sentence for sentence in told.values() if not sentence.endswith(".") or sentence.endswith("...")] == []


@pytest.mark.parametrize("command", READING)
def test_reading_commands_take_the_reading_options(command: str) -> None:
    shown = run(command, "--help").out
    assert all(option in shown for option in ("--format", "--maps FILE", "--page-size BYTES", "--strict"))


# --- what cannot be used ---------------------------------------------------------------------------------------------


def no_such(folder: Path) -> Path:
    return folder / "none.log"


def directory(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    path = folder / "empty.log"
    path.touch()
    return path


def binary(folder: Path) -> Path:
    path = folder / "binary.log"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def broken_gzip(folder: Path) -> Path:
    path = folder / "broken.log.gz"
    path.write_bytes(gzip.compress(BLOCKED.read_bytes())[:900])
    return path


def no_trace(folder: Path) -> Path:
    path = folder / "notes.txt"
    path.write_text("Dear diary,\nno call was made today.\n")
    return path


UNUSABLE = {
    no_such: "no such file",
    directory: "is a directory",
    empty: "empty; expected a strace or ltrace log",
    binary: "a binary file; expected a strace or ltrace log",
    broken_gzip: "broken compressed file",
    no_trace: "expected a strace or ltrace log",
}


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("command", ["report", "maps", "steps", "export"])
def test_unusable_input_is_a_message_that_names_the_file(command: str, make: object, tmp_path: Path) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    output = tmp_path / "out"
    ended = run(command, path, *(["-o", output] if command == "export" else []))
    assert (ended.status, ended.out) == (1, "")
    assert str(path) in ended.err and UNUSABLE[make] in ended.err  # type: ignore[index]
    assert not output.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_log_without_permission_is_unusable_input(tmp_path: Path) -> None:
    path = tmp_path / "secret.log"
    shutil.copy(PLAIN, path)
    path.chmod(0)
    assert (run(path).status, "Permission denied" in run(path).err) == (1, True)


def test_the_message_goes_to_standard_error_without_a_traceback_or_escapes(tmp_path: Path) -> None:
    ended = process(tmp_path / "none\x1b[31m.log")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("replay: ") and ended.err.count("\n") == 1
    assert "\x1b" not in ended.err and "\\x1b[31m" in ended.err


def test_strict_ends_at_the_first_line_not_understood(tmp_path: Path) -> None:
    path = tmp_path / "odd.log"
    path.write_text("brk(NULL) = 0x1000\nbrk(what is this) = ???\n")
    assert run(path).status == 0
    ended = run(path, "--strict")
    assert ended.status == 1
    assert f"{path}:2" in ended.err


# --- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["report"],
        ["report", PLAIN, "--bogus"],
        ["report", PLAIN, "--format", "gdb"],
        ["report", PLAIN, "--page-size", "3000"],
        ["maps", PLAIN, "--step", "1", "--line", "2"],
        ["maps", PLAIN, "--step", "x"],
        ["maps", PLAIN, "--time", "noon"],
        ["steps", PLAIN, "--from", "9", "--to", "3"],
        ["diff", PLAIN, "3"],
        ["diff", PLAIN, "a", "b"],
        ["export", PLAIN],
        ["export", PLAIN, "-o", "out", "--format", "xml"],
        ["schema", "nonesuch"],
    ],
    ids=lambda arguments: " ".join(str(part).rpartition("/")[2] for part in arguments),
)
def test_wrong_usage(arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert "Error: " in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["maps", PLAIN, "--step", "48"], "no step 48: the run has steps 0 to 47"),
        (["maps", PLAIN, "--pid", "1"], "no process or thread 1 in the run"),
        (["maps", PLAIN, "--time", "1"], "1 is no time of this log: the log's times are seconds since 1970, from 1795"),
        (["maps", PLAIN, "--maps", "/none/maps"], "/none/maps: cannot read the maps file"),
        (["steps", PLAIN, "--to", "48"], "no step 48: the run has steps 0 to 47"),
        (["steps", PLAIN, "--pid", "1"], "no process or thread 1 in the run"),
        (["diff", PLAIN, "0", "48"], "no step 48: the run has steps 0 to 47"),
        (["maps", BLOCKED, "--line", "9999"], "no line 9999: the log has lines 1 to 91"),
        (["steps", BLOCKED, "--line", "92.."], "no line 92: the log has lines 1 to 91"),
        (
            ["report", BLOCKED, "--until", "17:00:00"],
            "17:00:00 is no time of this log: the log's times are seconds since 1970",
        ),
        (["steps", BLOCKED, "--program", "nosuch"], "no program 'nosuch' in the run; its programs are ./prog"),
    ],
    ids=lambda value: " ".join(str(part).rpartition("/")[2] for part in value) if isinstance(value, list) else "",
)
def test_what_the_run_does_not_have(arguments: list[object], message: str) -> None:
    ended = run(*arguments)
    assert (ended.status, ended.out) == (1, "")
    assert message in ended.err


# --- how it ends -----------------------------------------------------------------------------------------------------


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("replay.commands.schema.typer", typer)
    monkeypatch.setattr("replay.tables.schema_text", fail)
    monkeypatch.setattr(sys, "argv", ["replay", "schema"])


def end_of_main() -> object:
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_a_bug_is_told_in_three_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(ZeroDivisionError("what\x1b[2J"), monkeypatch)
    monkeypatch.delenv("REPLAY_TRACEBACK", raising=False)
    assert end_of_main() == 1
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("replay: this is a bug: ZeroDivisionError in test_cli.py:")
    assert first.endswith("what\\x1b[2J")
    assert len(rest) == 2 and "report it" in rest[0] and "REPLAY_TRACEBACK=1" in rest[1]


def test_a_bug_shows_its_traceback_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(ZeroDivisionError("what"), monkeypatch)
    monkeypatch.setenv("REPLAY_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_too_little_memory_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(MemoryError(), monkeypatch)
    assert end_of_main() == 1
    assert capsys.readouterr().err == "replay: not enough memory for this log\n"


def test_an_interrupt_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(KeyboardInterrupt(), monkeypatch)
    assert end_of_main() == 130
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.commands.endings._forget_output", lambda: None)
    fail_with(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), monkeypatch)
    ended = run("schema")
    assert (ended.status, ended.err) == (1, "replay: the output: No space left on device\n")


def test_ctrl_c_in_the_middle_of_a_log_ends_with_130() -> None:
    command = [sys.executable, "-m", "replay", "steps", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(oracle.CHECKOUT)}
    with subprocess.Popen(command, env=environment, **pipes) as reading:  # type: ignore[call-overload]
        reading.stdin.write(PLAIN.read_bytes() * 100)  # more than a pipe holds: it is done once the command reads
        reading.stdin.flush()
        time.sleep(2)  # it has read all that there is, and waits for more
        reading.send_signal(signal.SIGINT)
        assert reading.wait(timeout=600) == 130
        assert (reading.stdout.read(), reading.stderr.read()) == (b"", b"")


def test_a_pipe_closed_early_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "long.log"
    log.write_text("brk(NULL) = 0x1000\n" * 20_000)
    environment = {**os.environ, "PYTHONPATH": str(oracle.CHECKOUT)}
    with subprocess.Popen(
        [sys.executable, "-m", "replay", "steps", str(log)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as printing:
        assert printing.stdout is not None and printing.stderr is not None
        assert b"step" in printing.stdout.readline()
        printing.stdout.close()
        assert printing.wait(timeout=600) == 0
        assert printing.stderr.read() == b""


# --- what goes where -------------------------------------------------------------------------------------------------


def test_a_pipe_gets_no_escapes_and_imports_nothing_that_a_small_log_does_not_need() -> None:
    code = (
        "import sys, numpy; sys.argv = ['replay', sys.argv[1]]; brought = set(sys.modules)\n"
        "from replay.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'pandas', 'pyarrow', 'numba', 'llvmlite', 'rich', 'typer', 'pydantic', 'numpy.ma'}\n"
        "print(sorted(heavy & set(sys.modules) - brought), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(BLOCKED)], capture_output=True, text=True, check=True, cwd=oracle.CHECKOUT
    )
    assert "\x1b" not in done.stdout
    assert done.stderr == "[]\n"


def test_problems_are_a_warning_on_standard_error(tmp_path: Path) -> None:
    log = tmp_path / "odd.log"
    log.write_text("brk(NULL) = 0x1000000\nbrk(what is this) = ???\nbrk(0x1021000) = 0x1021000\n")
    ended = run("maps", log)
    assert ended.out == f"{'01000000-01021000 rw-p 00000000 00:00 0':<73}[heap]\n"
    assert "1 problem (" in ended.err and "line 2" in ended.err


def test_maps_at_a_step_a_line_and_a_time() -> None:
    by_step = run("maps", PLAIN, "--step", 20).out
    assert by_step == run("maps", PLAIN, "--line", 21).out
    assert by_step != run("maps", PLAIN).out
    with PLAIN.open() as log:
        seconds = log.readlines()[20].split()[1]
    assert run("maps", PLAIN, "--time", seconds).out == by_step


def test_maps_in_a_pipe_have_the_bytes_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "bytes.log"
    log.write_bytes(b"mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</tmp/\xe4\xc3\xa4>, 0) = 0x7f0000000000\n")
    done = subprocess.run(
        [sys.executable, "-m", "replay", "maps", str(log)], capture_output=True, check=True, cwd=oracle.CHECKOUT
    )
    assert done.stdout.endswith(b" /tmp/\xe4\xc3\xa4\n")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1795368030.523899", 1795368030_523899000),
        ("0.000000001", 1),
        ("7", 7_000_000_000),
        ("14:03:07.5", ((14 * 60 + 3) * 60 + 7) * 1_000_000_000 + 500_000_000),
        ("00:00:01", 1_000_000_000),
    ],
)
def test_times_are_written_as_the_log_prints_them(text: str, ns: int) -> None:
    assert time_ns(text) == ns


@pytest.mark.parametrize("text", ["", "noon", "12:30", "1:2:3:4", "nan", "1e400x", "::"])
def test_other_times_are_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        time_ns(text)


# --- export ----------------------------------------------------------------------------------------------------------


def test_export_writes_a_file_for_each_table_and_nothing_to_standard_output(tmp_path: Path) -> None:
    ended = run("export", PLAIN, "-o", tmp_path / "out")
    assert (ended.status, ended.out) == (0, "")
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names >= {"events", "regions", "brk_failures", "allocator_mmaps", "fragmentation", "problems", "summary"}
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".parquet"}


def test_export_takes_both_meanings_of_format(tmp_path: Path) -> None:
    ended = run("export", PLAIN, "-o", tmp_path / "out", "--format", "strace", "--format", "csv")
    assert ended.status == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv"}


def test_export_says_as_what_and_format_is_the_form_of_the_log(tmp_path: Path) -> None:
    ended = run("export", PLAIN, "-o", tmp_path / "out", "--as", "csv", "--format", "strace")
    assert ended.status == 0
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv"}


def test_one_table_goes_to_standard_output_as_csv(tmp_path: Path) -> None:
    shown = run("export", BLOCKED, "-o", "-", "--table", "brk_failures")
    assert run("export", BLOCKED, "-o", tmp_path / "out", "--as", "csv").status == 0
    assert shown.out == (tmp_path / "out" / "brk_failures.csv").read_text()
    assert run("export", BLOCKED, "-o", "-").status == 2


def test_a_window_leaves_out_rows_and_the_replay_is_whole(tmp_path: Path) -> None:
    shown = run("export", BLOCKED, "-o", "-", "--table", "brk_failures", "--since", 60, "--until", 70).out
    assert [row.split(",")[1] for row in shown.splitlines()[1:]] == ["61", "63", "65", "67", "69"]
    ended = run("report", BLOCKED, "--since", 60, "--until", 70)
    assert "From line 60 to line 70 the break failed to grow 5 times (lines 61 to 69)." in " ".join(ended.out.split())
    assert "shown is what happened from line 60 to line 70; " in ended.err


def test_existing_output_is_overwritten_only_by_force(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run("export", PLAIN, "-o", output, "--format", "csv").status == 0
    before = {path: path.read_bytes() for path in output.iterdir()}
    ended = run("export", BLOCKED, "-o", output, "--format", "csv")
    assert ended.status == 1
    assert "exists already; --force overwrites it" in ended.err
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    assert run("export", BLOCKED, "-o", output, "--format", "csv", "--force").status == 0
    assert {path: path.read_bytes() for path in output.iterdir()} != before


@pytest.mark.parametrize("arguments", [("export", "--as", "csv"), ("html",), ("perfetto",)])
def test_existing_output_is_refused_before_the_log_is_read(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    output = tmp_path if arguments[0] == "export" else tmp_path / "events.csv.json"
    for name in ("events.csv", "events.csv.json"):
        (tmp_path / name).touch()
    ended = run(*arguments, tmp_path / "no.log", "-o", output)
    assert (ended.status, ended.out) == (1, "")
    assert "exists already; --force overwrites it" in ended.err


def test_schema_of_one_table_and_of_all() -> None:
    one = run("schema", "problems")
    assert one.out.splitlines()[0] == "problems"
    assert set(one.out.splitlines()) < set(run("schema").out.splitlines())


def test_steps_by_lines_by_times_and_by_numbers_are_the_same_steps() -> None:
    by_number = run("steps", BLOCKED, "--from", 26, "--to", 29).out
    assert run("steps", BLOCKED, "--line", "27..30").out == by_number
    assert run("steps", BLOCKED, "--since", 27, "--until", 30).out == by_number
    first, last = (BLOCKED.read_text().splitlines()[line - 1].split()[1] for line in (27, 30))
    assert run("steps", BLOCKED, "--time", f"{first}..{last}").out == by_number
    assert run("steps", BLOCKED, "--line", "27", "--from", 3).status == 2


def test_steps_maps_and_schema_as_json() -> None:
    steps = json.loads(run("steps", BLOCKED, "--line", "27", "--json").out)
    assert [(step["step"], step["line"], step["did"][:11]) for step in steps] == [(26, 27, "brk refused")]
    maps = json.loads(run("maps", BLOCKED, "--json").out)
    assert [entry["path"] for entry in maps].count("[heap]") == 1
    assert [f"{int(entry['start'], 16):08x}" for entry in maps] == [
        line.split("-")[0] for line in run("maps", BLOCKED).out.splitlines()
    ]
    (table,) = json.loads(run("schema", "problems", "--json").out)
    assert [column["name"] for column in table["columns"]] == ["line", "reason", "text"]


def test_diff_between_lines_is_that_between_their_steps() -> None:
    assert run("diff", BLOCKED, 21, 72, "--line").out == run("diff", BLOCKED, 20, 71).out


def test_diff_as_json_names_both_moments() -> None:
    document = json.loads(run("diff", BLOCKED, 20, 21, "--json").out)
    assert (document["before"]["line"], document["after"]["line"]) == (21, 22)
    assert [(change["what"], change["bytes"]) for change in document["changes"]] == [("new", 4096)]
    assert document["changes"][0]["after"]["perms"] == "---p"
