"""Each step of a run and what it did to its address space, one line a step.

In go the columns of a run, out come lines no wider than the output, as fast as a terminal or a pipe takes them: columns
are turned into plain lists a slice at a time, and one small function words each call.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from replay.console.screen import cells, clean, shortened, styled
from replay.console.terminal import UNKNOWN_WIDTH
from replay.console.terminal import width as screen_width
from replay.engine.columns import NULL, Int64Array
from replay.report.step_words import StepWords

if TYPE_CHECKING:
    from replay.report.malloc.steps import BlockWords
    from replay.run.api import Run

_SLICE: Final = 1 << 14
"""Steps that are worded at once."""


def step_lines(run: Run, steps: Int64Array | None = None) -> Iterator[str]:
    """Yield a heading and a line for each of the steps, which are numbers in order; without any, for all."""
    rows = np.arange(run.replayed.events.rows, dtype=np.int64) if steps is None else steps
    events = run.replayed.events
    tids = events["tid"][rows]
    with_pid = bool((events["tid"] > 0).any())
    # In a set of strace -ff the pid tells the file.
    several = len(run.source.files) > 1 and not all(log.pid is not None for log in run.source.logs)
    widths = [
        max(4, len(str(int(rows[-1])))) if rows.size else 4,
        max(4, len(str(int(events["line"][rows].max(initial=0))))),
        max(3, len(str(int(tids.max(initial=0))))) if with_pid else 0,
    ]
    who = f"{'pid':>{widths[2]}} " if with_pid else ""
    yield styled("strong", f"{'step':>{widths[0]}} {'line':>{widths[1]}} {who}what it did")
    room = screen_width() - sum(widths) - 2 - (2 if with_pid else 1)
    words, of_blocks = StepWords(run), _block_words(run)
    for begin in range(0, len(rows), _SLICE):
        chosen = rows[begin : begin + _SLICE]
        lines, pids = events["line"][chosen].tolist(), events["tid"][chosen].tolist()
        files = events["file"][chosen].tolist() if several else None
        said = words.of(chosen) if of_blocks is None else of_blocks.added(chosen, words.of(chosen))
        for at, (step, text) in enumerate(zip(chosen.tolist(), said, strict=True)):
            who = f"{pids[at] if pids[at] > 0 else '':>{widths[2]}} " if with_pid else ""
            where = f"{PurePath(run.source.files[files[at]]).name}: " if files else ""
            what = where + text
            if len(what) > room or not what.isascii():
                what = _fitted(clean(what), room)
            yield f"{step:>{widths[0]}} {lines[at]:>{widths[1]}} {who}{what}"


_LEAST_PATH: Final = 12
"""Columns that a path keeps at least."""


def _fitted(what: str, room: int) -> str:
    """Return a step's words cut to fit, its longest path first; on less than 80 columns the rest is left to wrap."""
    path = max((word for word in what.split(" ") if "/" in word), key=cells, default="")
    if path:
        short = shortened(path, max(cells(path) - (cells(what) - room), _LEAST_PATH))
        what = what.replace(path, short, 1)
    return what if screen_width() < UNKNOWN_WIDTH else shortened(what, room)


def step_values(run: Run, steps: Int64Array) -> Iterator[dict[str, Any]]:
    """Yield each of the steps as values for JSON; `did` is what its line says."""
    events, several = run.replayed.events, len(run.source.files) > 1
    for begin in range(0, len(steps), _SLICE):
        chosen = steps[begin : begin + _SLICE]
        columns = (events.at(name, chosen).tolist() for name in ("line", "file", "tid", "space", "time_ns"))
        for step, line, file, pid, space, time, did in zip(chosen.tolist(), *columns, _said(run, chosen), strict=True):
            yield {
                "step": step,
                "line": line,
                **({"file": run.source.files[file]} if several else {}),
                "pid": pid if pid > 0 else None,
                "space": space,
                "time_ns": None if time == NULL else time,
                "did": did,
            }


def _said(run: Run, steps: Int64Array) -> Iterator[str]:
    """Yield what steps did, in words."""
    words, of_blocks = StepWords(run), _block_words(run)
    return words.of(steps) if of_blocks is None else of_blocks.added(steps, words.of(steps))


def _block_words(run: Run) -> BlockWords | None:
    """Return what adds to the words what the blocks of malloc tell, None where the log shows none."""
    if not run.malloc_blocks.seen:
        return None
    from replay.report.malloc.steps import BlockWords

    return BlockWords(run)
