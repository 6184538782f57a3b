"""A batch: logs found, brought into the dataset by whoever works, and counted.

In go the user's words, out comes a dataset that holds every run whole, and a `BatchResult`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from replay.batch.cluster import on_cluster
from replay.batch.compaction import rewrite
from replay.batch.dataset_writer import DatasetWriter, read_runs, refuse_foreign
from replay.batch.discovery import FoundRun, find_runs, is_gone
from replay.batch.job import NO_TRACE, REFUSED, UNCHANGED, UNWRITABLE, WRITTEN, Job, JobOutcome, Options
from replay.batch.labels import Labels
from replay.batch.locking import locked
from replay.batch.pool import cores, in_processes, in_this_process
from replay.batch.runs_table import LABELS
from replay.batch.storage import Store, open_store
from replay.console.progress_bar import counting
from replay.datasets.layout import OK
from replay.errors import ReplayError

BYTES_FOR_START: Final = 200_000
"""What a log costs besides its size, in bytes that take as long to replay. Heuristic, measured on small logs."""


class UnwritableError(ReplayError):
    """The dataset's place refused: disk full, read-only; what was done before is kept."""


@dataclass(slots=True)
class BatchResult:
    """What became of the runs of a batch, by name: `written` anew or again, `unchanged`, or `errors` with the reason.

    `passed_over` holds the files that were found beside the logs and are none, with the kind of each: `empty`,
    `binary`, `no calls`. `pruned` are runs that went since their logs are gone, `left` those that were not compacted.
    """

    dataset: str
    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)
    pruned: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `runs.parquet` of the batch's runs that are in the dataset, sorted by name."""
        table = read_runs(open_store(self.dataset))
        wanted = {*self.written, *self.unchanged}
        return [row for row in table.to_pylist() if row["run"] in wanted] if table is not None else []

    def add(self, outcome: JobOutcome) -> None:
        """Count an outcome."""
        run = outcome.job.run
        if outcome.kind == WRITTEN:
            self.written.append(run)
        elif outcome.kind == UNCHANGED:
            self.unchanged.append(run)
        elif outcome.kind == REFUSED:
            self.errors[run] = outcome.message
        elif outcome.kind == NO_TRACE:
            self.passed_over[outcome.job.found.source] = outcome.message


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a batch does to a dataset besides bringing runs into it."""

    labels: Labels = field(default_factory=Labels)
    prune: bool = False
    """Whether runs go whose logs are gone."""
    flat: bool = False
    """Whether the dataset is compacted in the end."""


def batch(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    dataset: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    force: bool = False,
    scheduler: str | None = None,
    progress: bool = False,
    options: Options | None = None,
    how: Upkeep | None = None,
) -> BatchResult:
    """Bring the runs that logs recorded into one dataset; those that it holds already, of unchanged logs, are kept.

    Args:
        inputs: logs, directories that are searched for logs, patterns, or URLs of them.
        dataset: a directory or a URL.
        jobs: how many processes work; as many as there are cores if None, none but this one if 0.
        force: whether runs are made again that are there, and a directory is used that holds other files.
        scheduler: the address of a Dask scheduler whose cluster does the work instead.
        progress: whether a bar on standard error tells how far the batch is.
        options: how the logs are read.
        how: the labels of the runs, whether runs go whose logs are gone, and how the dataset lies in the end.

    Raises:
        ReplayError: nothing was found, another batch is at work on the dataset, or the dataset cannot be written; runs
            that were complete by then are kept.
        KeyboardInterrupt: the user interrupted; runs that were complete by then are kept.
    """
    words = [os.fspath(word) for word in ([inputs] if isinstance(inputs, (str, os.PathLike)) else inputs)]
    store = open_store(os.fspath(dataset))
    found = find_runs(words, store.url)
    if not found:
        raise ReplayError(f"{', '.join(words)}: no file in there")
    if not force:
        refuse_foreign(store)
    with locked(store):
        work = _Work(store, found, options or Options(), how or Upkeep(), force)
        return _run(work, jobs=jobs, scheduler=scheduler, progress=progress)


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done: the logs found, how they are read, and what is done to the dataset besides."""

    store: Store
    found: Sequence[FoundRun]
    options: Options
    how: Upkeep
    force: bool


def _run(work: _Work, *, jobs: int | None, scheduler: str | None, progress: bool) -> BatchResult:
    """Do the jobs and leave a complete dataset, whether they are all done or not."""
    held = DatasetWriter(work.store)
    todo = _jobs(held, work)
    result = BatchResult(work.store.url)
    try:
        with closing(_worked_on(todo, jobs, scheduler)) as outcomes:
            for outcome in _shown(outcomes, todo) if progress else outcomes:
                _count(held, outcome, result)
        if work.how.prune:
            _prune(held, {job.run for job in todo}, result)
    finally:
        held.finish()
    if work.how.flat or held.compacted & {*result.written, *result.errors, *result.pruned}:
        result.left = rewrite(work.store).left
    return result


def _prune(held: DatasetWriter, found: Collection[str], result: BatchResult) -> None:
    """Take out the runs whose logs are gone."""
    for known in list(held.known.values()):
        if known.run not in found and is_gone(known.location):
            held.forget(known.run)
            result.pruned.append(known.run)


def _count(held: DatasetWriter, outcome: JobOutcome, result: BatchResult) -> None:
    """Take note of an outcome.

    Raises:
        UnwritableError: the dataset's place refused, so that no other job can succeed either.
    """
    if outcome.kind == UNWRITABLE:
        raise UnwritableError(f"{outcome.message}; complete runs are kept, the next batch makes the others")
    if outcome.row is not None:
        held.record(outcome.row)
    job = outcome.job
    if outcome.kind == UNCHANGED and job.known is not None:
        now = {"location": job.found.location, LABELS: job.labels}
        if now != {"location": job.known.location, LABELS: held.labels(job.run)}:
            held.changed(job.run, now)
    result.add(outcome)


def _worked_on(todo: Sequence[Job], jobs: int | None, scheduler: str | None) -> Generator[JobOutcome]:
    """Yield the outcomes of jobs, from whoever shall work on them."""
    if scheduler is not None:
        yield from on_cluster(todo, scheduler)
    elif jobs == 0:
        yield from in_this_process(todo)
    else:
        yield from in_processes(todo, cores() if jobs is None else jobs)


def _shown(outcomes: Iterable[JobOutcome], jobs: Sequence[Job]) -> Iterator[JobOutcome]:
    """Yield the outcomes and draw meanwhile how many there are, how many a second, and how long the rest will take."""
    errors, begun = 0, time.monotonic()
    with counting("replaying", sum(map(_weight, jobs))) as draw:
        draw(0, f"0/{len(jobs)} logs")
        for done, outcome in enumerate(outcomes, 1):
            errors += outcome.kind == REFUSED
            rate = done / ((time.monotonic() - begun) or 1)
            text = f"{done}/{len(jobs)} logs, {rate:.1f} a second" + (f", errors: {errors}" if errors else "")
            draw(_weight(outcome.job), text)
            yield outcome


def _weight(job: Job) -> int:
    return job.found.size + BYTES_FOR_START


def _jobs(held: DatasetWriter, work: _Work) -> list[Job]:
    """Return the jobs, those of large logs first, so that none of them is alone at the end."""
    options, text, now = work.options, work.options.text(), time.time_ns() // 1000
    if options.maps is not None:
        options = replace(options, maps=str(Path(options.maps).absolute()))
    names = held.names_for(work.found, is_gone)
    made = []
    for name, run in zip(names, work.found, strict=True):
        known = held.known.get(name)
        usable = known if known and not work.force and known.status == OK and held.holds(name) else None
        labels = held.labels(name) | work.how.labels.of(name, run)
        added = _microseconds(held.added_at(name), now)
        made.append(Job(name, run, held.store.url, options, text, usable, known is not None, labels, added))
    return sorted(made, key=lambda job: (-job.found.size, job.run))


def _microseconds(when: datetime | int | None, now: int) -> int:
    """Return a time of a row, as read or as the journal has it, in microseconds since 1970; now where there is none."""
    if isinstance(when, datetime):
        return int((when - datetime.fromtimestamp(0, UTC)) / timedelta(microseconds=1)) or now
    return when or now
