"""How far a batch is, on standard error: a bar, the rate, the time left.

In go outcomes, out comes what people see while they wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from replay.batch.job import REFUSED, Job, Outcome

if TYPE_CHECKING:
    from rich.progress import Progress

BYTES_FOR_START: Final = 200_000
"""What a log costs besides its size, in bytes that take as long to replay. Heuristic, measured on small logs."""


def shown(outcomes: Iterable[Outcome], jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Yield the outcomes and draw meanwhile how many there are, how many a second, and how long the rest will take."""
    weights = [_weight(job) for job in jobs]
    errors = done = 0
    with _bar() as bar:
        task = bar.add_task("replaying", total=sum(weights), runs=f"0/{len(weights)} logs")
        for outcome in outcomes:
            done += 1
            errors += outcome.kind == REFUSED
            rate = done / (bar.tasks[0].elapsed or 1)
            text = f"{done}/{len(weights)} logs, {rate:.1f} a second" + (f", errors: {errors}" if errors else "")
            bar.update(task, advance=_weight(outcome.job), runs=text)
            yield outcome


def _weight(job: Job) -> int:
    return job.found.size + BYTES_FOR_START


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[runs]}", markup=False),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        transient=True,
    )
