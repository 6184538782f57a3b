"""`replay compact`: one sorted file a table."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import Quiet
from replay.commands.reading import warn, warn_of_left


def compact(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", show_default=False, help="What `replay batch` wrote, a path or URL.")
    ],
    quiet: Quiet = False,
) -> None:
    """Put the runs of a dataset into one sorted file a table, with the name of the run in a column.

    The files are TABLE/part-0.parquet and so on, of at most 512 MB each, and answer questions many times faster than
    a folder for each run. Every command reads both. Interrupted or killed, nothing is lost: the dataset is what it was,
    or the next command that writes to it completes what was begun.
    """
    from replay.batch import compact as run_compact
    from replay.batch.storage import existing_store
    from replay.console.amounts import number
    from replay.datasets.dataset import complaints

    done = run_compact(existing_store(dataset))
    warn_of_left(done.left)
    for sentence in complaints(dataset):
        warn(sentence)
    if not quiet:
        warn(f"{dataset}: {number(len(done.runs), 'run')} in one file a table")
