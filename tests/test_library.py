"""What `import replay` gives: typed for users, shown in a line and on a screen, drawn, its errors those of Python."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from pathlib import Path

import oracle
import pytest

import replay
from replay.tables import TABLES

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"


def check(code: str, folder: Path) -> str:
    """Return what mypy says of a user's file."""
    (folder / "user.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports", "silent", "user.py"],
        cwd=folder,
        env={"MYPYPATH": str(oracle.CHECKOUT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.mark.slow
def test_a_users_file_is_checked_strictly(tmp_path: Path) -> None:
    lines = ["import replay", "from replay import ReplayError, Run, load", "print(replay.__version__, ReplayError)"]
    lines += ['run: Run = replay.load("x")', 'print(run.events, run.maps(line=3), load("y"))']
    lines += [f"run.{table}.head()" for table in TABLES]
    assert "Success" in check("\n".join(lines) + "\n", tmp_path)
    assert '"Run" has no attribute "evnts"' in check("\n".join([*lines, "run.evnts"]) + "\n", tmp_path)


def test_each_table_is_declared() -> None:
    declared = (oracle.CHECKOUT / "replay" / "library.py").read_text()
    assert [table for table in TABLES if f"        {table}: pd.DataFrame\n" not in declared] == []


def test_dir_and_help_show_what_is_public() -> None:
    assert dir(replay) == ["ReplayError", "Run", "__version__", "load"]
    run = replay.load(BLOCKED)
    assert set(dir(run)) == {*TABLES, "arrow", "export", "maps", "plot", "whatif", "write_csv"}
    page = pydoc.render_doc(replay)
    assert "run.plot()" in page.split("PACKAGE CONTENTS")[0]
    assert len(page.splitlines()) <= 60


def test_a_run_says_program_lines_and_verdict_in_a_line() -> None:
    said = "<replay.Run: 91 lines of strace, ./prog: The break failed to grow 23 times in 31 tries (lines 27 to 71), "
    said += "and grew again from line 79 on.>"
    assert repr(replay.load(BLOCKED)) == said
    leak = "<replay.Run: 861 lines of ltrace: Is it a leak, or is it fragmentation? Fragmentation.>"
    assert repr(replay.load(oracle.SAMPLES / "ltrace" / "ltrace.log")) == leak


def test_a_notebook_shows_the_first_screen() -> None:
    shown = replay.load(BLOCKED)._repr_html_()
    assert shown.startswith("<pre>") and "Verdict\n  The break failed to grow 23 times" in shown
    assert "Failed brk calls" not in shown and "\x1b" not in shown


def test_a_missing_log_is_a_file_not_found_error() -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        replay.load("/none/trace.log")
    with pytest.raises(replay.ReplayError):
        replay.load("/none/trace.log")


def test_a_plot_has_a_curve_for_what_the_log_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    axes = replay.load(BLOCKED).plot()
    assert [line.get_label() for line in axes.get_lines()] == ["mapped", "brk area"]
    assert axes.get_xlabel() == "seconds"
    mapped = axes.get_lines()[0].get_ydata()
    assert max(mapped) == pytest.approx(replay.load(BLOCKED).summary["peak_mapped_bytes"][0] / 2**20)


def test_without_matplotlib_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(replay.ReplayError, match=r"needs matplotlib.*pip install '\.\[plot\]'"):
        replay.load(BLOCKED).plot()
