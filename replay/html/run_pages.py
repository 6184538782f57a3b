"""Pages of single runs of a dataset, made from its tables: those that stand out, and those that are asked for by name.

In goes a dataset, out come files in a directory, and for each run the address at which the dashboard finds its page.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final
from urllib.parse import quote

from replay.datasets.layout import OK
from replay.errors import ReplayError
from replay.html.dashboard_facts import DatasetFacts
from replay.html.trace import write_trace
from replay.html.trace_tables import tables_of_dataset

_LONGEST_NAME: Final = 120


def standing_out(facts: DatasetFacts, patterns: Sequence[str] = ()) -> list[str]:
    """Return the runs that get a page: the ten with the most failed breaks, the worst ten of each kind, those named.

    Raises:
        ReplayError: a pattern, as shells have them, fits no run.
    """
    chosen = dict.fromkeys(str(row["run"]) for row in facts.standing_out)
    read = [str(row["run"]) for row in facts.dataset.rows if row["status"] == OK]
    for pattern in patterns:
        found = [run for run in read if fnmatchcase(run, pattern)]
        if not found:
            raise ReplayError(f"--run {pattern}: no run of {facts.dataset.location} is named so")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def write_pages(
    facts: DatasetFacts, runs: Sequence[str], directory: str | os.PathLike[str], *, force: bool = False
) -> None:
    """Write the page of each of the runs into a directory, which is made if it is not there.

    Raises:
        OutputExistsError: a page is there and `force` is not given.
        OutputError: the system refused to write.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        write_trace(tables_of_dataset(facts.dataset, run), folder / file_of(run), force=force)


def addresses(runs: Sequence[str], directory: str | os.PathLike[str], output: str | os.PathLike[str]) -> dict[str, str]:
    """Return the address of each run's page as seen from the dashboard `output`."""
    way = os.path.relpath(directory, Path(output).parent)
    return {run: "./" + quote(f"{way}/{file_of(run)}") for run in runs}


def file_of(run: str) -> str:
    """Return the name of a run's file: its own name, what no file's name may hold escaped; cut where it is too long."""
    name = quote(run, safe=" +,=@")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name}.html"
