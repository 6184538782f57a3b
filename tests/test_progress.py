"""What is shown while a long run is read: a bar on a terminal, nothing in a pipe or with `--quiet`."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from replay.console import progress_bar as progress_module
from replay.console.progress_bar import progress
from replay.engine.progress import Stage

SHOWN = """
import sys, time
from replay.console.progress_bar import progress
from replay.engine.progress import Stage
with progress(quiet={quiet}) as watch:
    watch(Stage("reading", 1, 4, 10))
    time.sleep({seconds})
    watch(Stage("reading", 2, 4, 20_000))
    time.sleep(0.3)
"""


def on_a_terminal(program: str) -> str:
    """Return what a Python program writes to standard error where that is a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", program], stderr=theirs, env=environment) as running:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the terminal's other end is closed: EIO
                break
            if not piece:
                break
            written += piece
        assert running.wait(timeout=600) == 0
    os.close(ours)
    return written.decode()


def test_what_takes_more_than_a_second_shows_a_bar_on_a_terminal() -> None:
    shown = on_a_terminal(SHOWN.format(quiet=False, seconds=1.1))
    assert "reading" in shown
    assert "50%" in shown
    assert "20,000 lines" in shown


def test_what_is_over_within_a_second_shows_nothing() -> None:
    assert on_a_terminal(SHOWN.format(quiet=False, seconds=0)) == ""


def test_quiet_shows_nothing() -> None:
    assert on_a_terminal(SHOWN.format(quiet=True, seconds=1.1)) == ""


def test_a_pipe_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with progress(quiet=False) as watch:
        watch(Stage("reading", 1, 4, 10))
    assert written.getvalue() == ""
