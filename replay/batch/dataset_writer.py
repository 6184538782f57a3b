"""A dataset on its store: which runs it holds, and how what was cut off is cleared away.

The tables of a run lie at `TABLE/run=NAME/part-0.parquet`, its row in `runs.parquet`. While a batch works, the rows of
finished runs lie in a journal, one file each, from which the next batch goes on if this one is killed. What is in a
table is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from replay.batch.commit import JOURNAL, begin_to_forget, complete_changes, complete_switch, remove_tables
from replay.batch.runs_table import LABELS, labels_of, runs_table
from replay.batch.storage import STAGING, Store
from replay.datasets.layout import CHANGES, OWN, escaped, flat_files, typed_as_text
from replay.errors import OutputExistsError, ReplayError
from replay.logs.files import RUNS_FILE
from replay.tables import TABLES, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.batch.discovery import FoundRun

LONGEST_NAME: Final = 180
"""Bytes of a run's name as a part of a path: with `run=` it must fit into 255."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a dataset holds of a run: where it came from and what its tables were made of and by."""

    run: str
    source: str
    location: str
    size_bytes: int | None
    content_hash: str | None
    version: str
    schema_version: str
    options: str
    status: str


def read_runs(store: Store) -> pa.Table | None:
    """Return the table `runs` of a dataset, None if it has none.

    Raises:
        ReplayError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = store.read(RUNS_FILE)
    if data is None:
        return None
    try:
        # Not by `read_table`: its threads may still hold `data`, which is Python's, when the interpreter ends, and
        # abort.
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            table = file.read(use_threads=False)
        missing = Known.__dataclass_fields__.keys() - set(table.column_names)
        if missing:
            raise pa.ArrowInvalid(f"no column {', '.join(sorted(missing))}")
    except (pa.ArrowException, OSError) as error:
        place = f"{store.url}/{RUNS_FILE}"
        raise ReplayError(f"{place}: cannot be read ({error}); without that file all runs are made again") from error
    return table


class DatasetWriter:
    """A dataset while a batch works on it; `known` holds its runs by name."""

    def __init__(self, store: Store) -> None:
        """Read what the dataset holds, and clear away what an earlier batch left unfinished.

        Raises:
            ReplayError: `runs.parquet` cannot be read.
            OutputError: the store refused.
        """
        self.store = store
        complete_switch(store)
        self.rows: dict[str, dict[str, Any]] = {}
        self._kept = read_runs(store)
        self._gone: set[str] = set()
        self._listed: dict[str, set[str]] = {}
        self._changed = self._kept is None
        self._collect_journal()
        self.known = {known.run: known for known in self._all_known()}
        self._by_location = {known.location: known.run for known in self.known.values()}

    def holds(self, run: str) -> bool:
        """Tell whether every table has a part of the run, or all of them are in the compacted files."""
        if not self._listed:
            self._listed = {table: set(self.store.names(table)) for table in TABLES}
        if all(f"run={escaped(run)}" in names for names in self._listed.values()):
            return True
        return run in self.compacted and all(flat_files(list(names)) for names in self._listed.values())

    @cached_property
    def compacted(self) -> frozenset[str]:
        """The runs that are in the compacted files."""
        if not flat_files(self.store.names("summary")):
            return frozenset()
        from replay.datasets.dataset import Dataset

        return Dataset(self.store.url).compacted

    def record(self, row: dict[str, Any]) -> None:
        """Take the row of a run that was committed."""
        self.rows[row["run"]] = row
        self._changed = True

    def changed(self, run: str, facts: dict[str, Any]) -> None:
        """Take note that some facts about a run are others now, its tables being what they were."""
        if run not in self.rows:
            assert self._kept is not None
            names = self._kept.column("run").to_pylist()
            row = self._kept.slice(names.index(run), 1).to_pylist()[0]
            self.rows[run] = row | {LABELS: labels_of(row)}
        self.record(self.rows[run] | facts)

    def labels(self, run: str) -> dict[str, str]:
        """Return the labels that a run has."""
        return self._notes.get(run, ({}, None))[0]

    def added_at(self, run: str) -> Any:
        """Return when a run came into the dataset; None for one that is not there."""
        return self._notes.get(run, ({}, None))[1]

    @cached_property
    def _notes(self) -> dict[str, tuple[dict[str, str], Any]]:
        """The labels and the time of coming of each run."""
        notes = {run: (row[LABELS], row["added_at"]) for run, row in self.rows.items()}
        if self._kept is None or "added_at" not in self._kept.column_names:
            return notes
        own = [name for name in self._kept.column_names if name in ("run", "added_at") or name.startswith("label_")]
        rows = self._kept.select(own).to_pylist()
        return {row["run"]: (labels_of(row), row["added_at"]) for row in rows} | notes

    def forget(self, run: str) -> None:
        """Take a run out: its folders at once, its row when the work is finished."""
        begin_to_forget(self.store, run)
        self.rows.pop(run, None)
        self._gone.add(run)
        self._changed = True

    def finish(self) -> None:
        """Write `runs.parquet`, whole, and clear the journal.

        Raises:
            OutputError: the store refused; the journal still holds what is not written.
        """
        self._collect_journal()
        if self._changed:
            with self.store.staging() as folder:
                write_parquet(self.table(), folder / RUNS_FILE)
                self.store.publish(folder / RUNS_FILE, RUNS_FILE)
            self._changed = False
        for folder in (JOURNAL, CHANGES, STAGING):
            self.store.remove(folder)

    def table(self) -> pa.Table:
        """Return the table `runs`."""
        import pyarrow as pa

        kept = self._kept
        if kept is not None and self._gone:
            names = kept.column("run").to_pylist()
            rows = [place for place, name in enumerate(names) if name not in self._gone or name in self.rows]
            kept = kept.take(pa.array(rows, pa.int64()))
        return runs_table(list(self.rows.values()), kept)

    def _collect_journal(self) -> None:
        """Take the rows that workers left in the journal, and complete or undo what they left half done."""
        gone = complete_changes(self.store)
        for file in self.store.names(JOURNAL):
            run = unquote(file.removesuffix(".json"))
            row = _entry(self.store.read(f"{JOURNAL}/{file}"), run)
            if row is None:
                remove_tables(self.store, run)
                gone.add(run)
            elif run not in gone:
                self.record(row)
        for run in gone:
            self.rows.pop(run, None)
        self._gone |= gone
        self._changed |= bool(gone)
        self.store.remove(STAGING)

    def _all_known(self) -> Iterator[Known]:
        fields = list(Known.__dataclass_fields__)
        kept = [] if self._kept is None else self._kept.select(fields).to_pylist()
        hidden = self.rows.keys() | self._gone
        for row in [row for row in kept if row["run"] not in hidden] + list(self.rows.values()):
            yield Known(**{field: row[field] for field in fields})

    # --- names ---

    def names_for(self, found: Sequence[FoundRun], is_gone: Callable[[str], bool]) -> list[str]:
        """Return a name for each run: the one that its log has here already, else its own, made unique.

        Args:
            found: the runs, with the names they would like.
            is_gone: tells whether a log is no longer at a location.
        """
        taken: set[str] = set()
        names: dict[str, str] = {}
        for run in found:
            if run.location in self._by_location:
                names[run.location] = self._by_location[run.location]
                taken.add(names[run.location])
        for run in found:
            if run.location not in names:
                names[run.location] = self._new_name(run, taken, is_gone)
                taken.add(names[run.location])
        return [names[run.location] for run in found]

    def _new_name(self, run: FoundRun, taken: Iterable[str], is_gone: Callable[[str], bool]) -> str:
        """Return the name of a log that is new here; a log that was moved keeps its name."""
        name = fitting(run.name)
        held = self.known.get(name)
        same = held is None or ((run.source == held.source or run.size == held.size_bytes) and is_gone(held.location))
        if name not in taken and same:
            return name
        return fitting(f"{run.name}~{_digest(run.location)}")


def _entry(data: bytes | None, run: str) -> dict[str, Any] | None:
    """Return the row of a run that the journal holds; None where the entry is damaged: such a run is made again."""
    try:
        row = json.loads(data or b"null")
    except ValueError:
        return None
    needed = {*Known.__dataclass_fields__, LABELS, "added_at"}
    if not isinstance(row, dict) or row.get("run") != run or needed - row.keys():
        return None
    return row


def fitting(name: str) -> str:
    """Return a run's name as readers take it for a text, its beginning a digest where it is too long for a path."""
    name = end = typed_as_text(name)
    if len(escaped(name).encode()) <= LONGEST_NAME:
        return name
    while len(escaped(end).encode()) > LONGEST_NAME - 10:
        end = end[1:]
    return f"{_digest(name)}~{end}"


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def refuse_foreign(store: Store) -> None:
    """Refuse a directory that holds something else than a dataset.

    Raises:
        OutputExistsError: it is not empty and holds no dataset.
    """
    names = store.names("")
    if names and OWN not in names and RUNS_FILE not in names:
        what = ", ".join(names[:3])
        raise OutputExistsError(f"{store.url} is no dataset of replay and not empty ({what}); --force uses it anyway")
