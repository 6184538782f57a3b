"""What people see on standard error while they wait for a long run, or for many.

In go stages, or how much of a whole is done, out comes a bar with the rate and the time left.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from replay.engine.progress import Stage, Watch, unwatched

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

PATIENCE_SECONDS: Final = 1.0
"""So long people wait without being told why."""


@contextmanager
def progress(quiet: bool) -> Iterator[Watch]:
    """Give what draws the stages that it is told, once the work takes longer than a second; nothing if `quiet`.

    Nothing is drawn either where standard error is no terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield unwatched
        return
    bar = _Bar()
    try:
        yield bar.show
    finally:
        bar.close()


@contextmanager
def counting(name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Give what draws how much of `total` is done: it takes how much was done more, and the words beside the bar."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}", markup=False)
    with _drawn(*columns, TimeRemainingColumn(elapsed_when_finished=True)) as bar:
        task = bar.add_task(name, total=total, words="")
        yield lambda more, words: bar.update(task, advance=more, words=words)


class _Bar:
    """A bar that appears when it is worth it; each stage has its own."""

    def __init__(self) -> None:
        self.begun = self.stage_begun = time.monotonic()
        self.name = ""
        self.drawn: Progress | None = None
        self.task: TaskID | None = None

    def show(self, stage: Stage) -> None:
        """Draw a stage."""
        now = time.monotonic()
        if stage.name != self.name:
            self.name, self.stage_begun = stage.name, now
            if self.drawn is not None and self.task is not None:
                self.drawn.remove_task(self.task)
                self.task = None
        if now - self.begun < PATIENCE_SECONDS:
            return
        if self.drawn is None:
            self.drawn = _columns()
            self.drawn.start()
        if self.task is None:
            self.task = self.drawn.add_task(stage.name, total=stage.total or None, lines="")
        lines = f"{stage.lines:,} lines, {stage.lines / max(now - self.stage_begun, 0.1):,.0f}/s" if stage.lines else ""
        self.drawn.update(self.task, completed=stage.done, lines=lines)

    def close(self) -> None:
        """Take the bar away."""
        if self.drawn is not None:
            self.drawn.stop()


def _columns() -> Progress:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    return _drawn(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[lines]}", markup=False),
        TimeRemainingColumn(),
    )


def _drawn(*columns: ProgressColumn) -> Progress:
    """Return a bar on standard error that goes when it is done."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(*columns, console=Console(stderr=True), transient=True)
