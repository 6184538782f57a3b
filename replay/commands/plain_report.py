"""`replay TRACE...` without any option: the report of a run, without the library that reads a command line.

In go the words of the command line, out comes the report on standard output. What a word that is no file means, and
all options, `report` and its group know: they take as long to start as a small log to be read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from replay.commands import COMMANDS, DEFAULT
from replay.commands.reading import input_waits, read_run
from replay.console.progress_bar import progress
from replay.engine.progress import Stage

if TYPE_CHECKING:
    from replay.run.api import Run


def plain_report(words: Sequence[str]) -> Callable[[], None] | None:
    """Return what prints the report that a command line asks for which names logs alone; None for any other one."""
    traces = list(words[1:] if words[:1] == [DEFAULT] else words)
    if any(word.startswith("-") or not os.path.exists(word) for word in traces):
        return None
    if words[:1] != [DEFAULT] and traces and traces[0] in COMMANDS:
        return None
    return (lambda: print_report(examined_run(traces))) if traces or input_waits() else None


def examined_run(
    traces: list[str],
    dialect: str = "auto",
    maps: str | None = None,
    page_size: int | None = None,
    strict: bool = False,
    *,
    elf_root: str | None = "/",
    quiet: bool = False,
) -> Run:
    """Return the run that the logs recorded, with what a report says about it found."""
    with progress(quiet) as watch:
        run = read_run(traces, dialect, maps, page_size, strict, watch, elf_root=elf_root)
        watch(Stage("examining", 0, 0))
        run.examine()
    return run


def print_report(run: Run, *, as_json: bool = False, short: bool = False) -> None:
    """Print the report of a run: all of it, its first screen, or one JSON document."""
    if as_json:
        from replay.report.as_json import json_report, write_json

        write_json(json_report(run), sys.stdout)
        return
    from replay.console.screen import print_lines
    from replay.report.as_text import text_report
    from replay.report.first_screen import first_screen

    print_lines(first_screen(run) if short else text_report(run))
