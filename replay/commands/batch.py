"""`replay batch`: many runs into one dataset."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from replay.commands.endings import CONDITION_HELD
from replay.commands.fail_if import FailIf, conditions_of
from replay.commands.options import ElfRoot, Every, Force, Format, MapsFile, NoElf, PageSize, Quiet, Strict
from replay.commands.reading import Dialect, warn, warn_of_left

if TYPE_CHECKING:
    from replay.batch import BatchResult
    from replay.conditions import Condition

ERRORS_SHOWN: Final = 10


class Layout(StrEnum):
    """How the dataset lies in the end."""

    runs = "runs"
    flat = "flat"


def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="TRACE-OR-DIR",
            show_default=False,
            help="Logs, directories that are searched for logs to any depth, patterns ('logs/**/*.log'), prefixes of "
            "strace -ff sets, or URLs of them (s3://bucket/logs).",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="DATASET", show_default=False, help="The directory or URL that holds the dataset."
        ),
    ],
    *,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", min=1, show_default="all cores", help="How many processes work."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Let an existing Dask cluster do the work (tcp://host:8786), whose machines reach logs and dataset by "
            "the same paths or URLs.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", metavar="NAME=VALUE", show_default=False, help="Say something of all runs of this batch."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="FILE.csv",
            show_default=False,
            help="Say something of single runs: a column run or source, and one for each label.",
        ),
    ] = None,
    label_from: Annotated[
        str | None,
        typer.Option(
            "--label-from",
            metavar="PATTERN",
            show_default=False,
            help="Take labels from the paths of the logs, below the directory given: '{commit}/{host}/{test}'.",
        ),
    ] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Take out the runs whose logs are gone.")] = False,
    layout: Annotated[
        Layout,
        typer.Option(
            help="runs: a folder for each run. flat: one sorted file a table in the end, as `replay compact` makes it."
        ),
    ] = Layout.runs,
    every: Every = 1,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name the files that are passed over.")] = False,
    fail_if: FailIf = None,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
) -> None:
    """Replay many runs into one dataset: TABLE/run=NAME/part-0.parquet, and runs.parquet with a row for each run.

    Runs that are in the dataset already are made again only if their log, the version of replay or the options changed,
    or with --force. A log that cannot be replayed gets a row that says why, and the exit status is 1; so does a file
    that is named like a log and is empty, binary or without calls. Interrupted or killed, the dataset holds whole runs
    only, and the next batch makes the others.
    """
    conditions = conditions_of(fail_if)
    from replay.batch import Options, Upkeep, labels_from
    from replay.batch import batch as run_batch

    result = run_batch(
        inputs,
        output,
        jobs=jobs,
        force=force,
        scheduler=scheduler,
        progress=not quiet and sys.stderr.isatty(),
        options=Options(format.value, maps, page_size, strict, None if no_elf else elf_root, every),
        how=Upkeep(labels_from(label or (), labels, label_from), prune, layout is Layout.flat),
    )
    _tell(result, quiet=quiet, verbose=verbose)
    if conditions:
        _end_if_one_holds(conditions, result)
    if result.errors:
        raise typer.Exit(1)


def _tell(result: BatchResult, *, quiet: bool, verbose: bool) -> None:
    """Say what became of the logs; errors are said in any case."""
    from replay.console.amounts import number
    from replay.datasets.dataset import Dataset

    errors = sorted(result.errors.items())
    if errors:
        for run, reason in errors[:ERRORS_SHOWN]:
            warn(f"{run}: {reason}")
        rest = f", the first {ERRORS_SHOWN} above" if len(errors) > ERRORS_SHOWN else ""
        counted = "1 log" if len(errors) == 1 else f"{len(errors)} logs"
        warn(f"{counted} could not be replayed{rest}: status error in {result.dataset}/runs.parquet")
    if verbose:
        for source, kind in sorted(result.passed_over.items()):
            warn(f"{source}: passed over: {kind}")
    warn_of_left(result.left)
    if not quiet:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(result.passed_over.values()).items()))
        beside = f", {number(len(result.passed_over), 'other file')} passed over ({kinds})" if kinds else ""
        gone = f", {len(result.pruned)} taken out since their logs are gone" if result.pruned else ""
        done = f"{number(len(result.written), 'run')} written, {len(result.unchanged)} unchanged"
        warn(f"{result.dataset}: {done}{gone}{beside}")
        dataset = Dataset(result.dataset)
        for complaint in dataset.complaints():
            warn(complaint)
        if apart := dataset.beside_compacted():
            counted = f"{number(len(apart), 'run')} in folders beside the compacted files"
            warn(f"{result.dataset}: {counted}; `replay compact` before other tools read it")


def _end_if_one_holds(conditions: Sequence[Condition], result: BatchResult) -> None:
    """Tell in which runs of the batch a condition holds, why and where, and end with status 3 if there is one."""
    from replay.conditions import judge

    rows = result.rows()
    judged = [(row, judge(condition, row)) for row in rows for condition in conditions]
    names = {row["run"] for row, judgement in judged if judgement.holds}
    held = [row for row in rows if row["run"] in names]
    _tell_where(conditions, result.dataset, held)
    for text in dict.fromkeys(judgement.condition for _, judgement in judged):
        unknown = sum(bool(judgement.unknown) for _, judgement in judged if judgement.condition == text)
        if unknown:
            warn(f"{text}: not known of {unknown} of {len(rows)} runs")
    if held:
        raise typer.Exit(CONDITION_HELD)


def _tell_where(conditions: Sequence[Condition], dataset: str, held: Sequence[dict[str, Any]]) -> None:
    """Tell of each run which conditions hold, why, and in which lines of its log."""
    import pyarrow.compute as pc

    from replay.conditions import conditions_that_hold, origins_in_tables
    from replay.datasets.dataset import Dataset

    opened, runs = Dataset(dataset), [row["run"] for row in held]
    whole = cache(lambda name, columns: opened.table(name, columns, runs))
    for row in held:
        run = row["run"]
        places = origins_in_tables(row, lambda *of, run=run: whole(*of).filter(pc.equal(whole(*of)["run"], run)))
        for judgement in conditions_that_hold(conditions, row, places):
            for line in judgement.lines():
                warn(f"{run}: {line}")
