"""The run that a command is about, read from its logs, and what is said on standard error of how that went.

In go the words and values of the command line, out comes a run. Options and their help stand in `options`: what is
here needs no library that reads a command line.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from replay.engine.progress import Watch, unwatched

if TYPE_CHECKING:
    from replay.run.api import Run


class Dialect(StrEnum):
    """Which program wrote a log."""

    auto = "auto"
    strace = "strace"
    ltrace = "ltrace"


def read_run(
    traces: list[str],
    dialect: str,
    maps: str | None,
    page_size: int | None,
    strict: bool,
    watch: Watch = unwatched,
    *,
    elf_root: str | None = "/",
) -> Run:
    """Return the run that the logs recorded; `watch` is told how far the work is."""
    from replay.run.api import load

    traces = traces or _standard_input()
    gc.freeze()  # what the imports brought stays to the end: no need to search it for garbage then
    return load(traces, format=dialect, maps=maps, elf_root=elf_root, page_size=page_size, strict=strict, watch=watch)


def _standard_input() -> list[str]:
    """Return the trace that stands for none: standard input, where it is a pipe or a file.

    Raises:
        typer.BadParameter: it is neither.
    """
    if not input_waits():
        import typer

        raise typer.BadParameter("name a log; or give one on standard input", param_hint="TRACE")
    return ["-"]


def input_waits() -> bool:
    """Tell whether standard input is a pipe or a file, and so may hold a log."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def warn_of_problems(run: Run) -> None:
    """Say on standard error how many lines of the logs were not understood or contradict the replay, if any."""
    problems = run.source.problems
    if not problems.total:
        return
    from replay.console.amounts import number

    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(problems.counts.items()))
    first = min(problems.kept, key=lambda problem: (problem.file, problem.line))
    warn(f"{number(problems.total, 'problem')} ({reasons}), the first in line {first.line}: see `replay report`")


def warn_of_left(runs: Sequence[str]) -> None:
    """Say on standard error which runs were not compacted: those of a later version, and those that lack a part."""
    from replay.console.amounts import number

    if runs:
        first = f"{', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}"
        which = "of a later version or without all parts"
        warn(f"{number(len(runs), 'run')} {which} left in folders: {first}; `replay batch` makes them again")


def warn(text: str) -> None:
    """Print a warning on standard error."""
    from replay.console.screen import clean

    print(f"replay: {clean(text)}", file=sys.stderr)
