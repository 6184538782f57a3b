"""`replay dashboard`: one page of a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import Force
from replay.commands.reading import warn


def dashboard(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", show_default=False, help="What `replay batch` wrote, a path or URL.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="The HTML file to write.")
    ],
    pages: Annotated[
        str | None,
        typer.Option(
            "--pages",
            metavar="DIR",
            show_default=False,
            help="Write a page, as `replay html` does, for each run that stands out, and link it.",
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="PATTERN", show_default=False, help="With --pages: runs that get one besides."),
    ] = None,
    force: Force = False,
) -> None:
    """Draw the runs of a dataset as one HTML page that needs nothing else.

    Filters by program, label, cause, allocator and text drive every chart and table: failed breaks by program, version
    and cause, what moved most between the last two versions, peaks, leaks, pins and fragmentation over start times,
    versions or labels, and of a chosen run memory over its log, owners at its peak and the evidence of its failures.
    """
    from replay.console.amounts import number
    from replay.datasets.dataset import complaints
    from replay.html import write_dashboard

    if run and pages is None:
        raise typer.BadParameter("--run chooses runs for --pages DIR")
    count = write_dashboard(dataset, output, pages=pages, patterns=run or (), force=force)
    for complaint in complaints(dataset):
        warn(complaint)
    warn(
        f"wrote the dashboard of {dataset} to {output}"
        + (f", {number(count, 'page')} of runs to {pages}" if pages else "")
    )
