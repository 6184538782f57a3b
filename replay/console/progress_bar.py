"""What people see on standard error while they wait for a long run.

In go stages, out comes a bar with the rate and the time left.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from replay.engine.progress import Stage, Watch, unwatched

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[lines]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
