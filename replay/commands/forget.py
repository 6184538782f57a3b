"""`replay forget`: runs taken out of a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import Quiet
from replay.commands.reading import warn


def forget(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", show_default=False, help="What `replay batch` wrote, a path or URL.")
    ],
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", show_default=False, help="Names of runs, or patterns of them ('v1-*')."),
    ],
    quiet: Quiet = False,
) -> None:
    """Take runs out of a dataset, their rows in all tables with them. Their logs stay.

    A batch that finds the logs again brings the runs back. `replay batch --prune` takes out those whose logs are gone.
    """
    from replay.batch import forget as run_forget
    from replay.batch.storage import existing_store
    from replay.datasets.dataset import complaints

    gone = run_forget(existing_store(dataset), runs)
    for sentence in complaints(dataset):
        warn(sentence)
    if not quiet:
        warn(f"{dataset}: {len(gone)} {'run' if len(gone) == 1 else 'runs'} taken out")
