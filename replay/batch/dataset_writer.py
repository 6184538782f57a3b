"""A dataset on its store: which runs it holds, how a run gets into it whole, how what was cut off is cleared away.

The tables of a run lie at `TABLE/run=NAME/part-0.parquet`, its row in `runs.parquet`. While a batch works, the rows of
finished runs lie in a journal, one file each, from which the next batch goes on if this one is killed. What is in a
table is not known here.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from replay.batch.runs_table import runs_table
from replay.batch.storage import OWN, STAGING, Store
from replay.errors import OutputExistsError, ReplayError
from replay.tables import TABLES, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.batch.discovery import FoundRun

RUNS_FILE: Final = "runs.parquet"
PART_FILE: Final = "part-0.parquet"
JOURNAL: Final = f"{OWN}/journal"

WRITING: Final = "writing"
"""The status in the journal of a run whose tables are being put into place."""

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


def escaped(name: str) -> str:
    """Return a run's name as it stands in paths: percent-encoded, as hive and its readers do."""
    return quote(name, safe="")


def table_folder(table: str, run: str) -> str:
    """Return the folder of a run's part of a table, below the dataset."""
    return f"{table}/run={escaped(run)}"


# ---- one run, put into place by whoever replayed it ----


def commit(store: Store, row: dict[str, Any], tables: Path | None, *, replaces: bool) -> None:
    """Put a run into the dataset: its tables out of the directory `tables`, none for an error, and its row.

    Raises:
        OutputError: the store refused.
    """
    run = row["run"]
    entry = f"{JOURNAL}/{escaped(run)}.json"
    with uninterrupted():
        if tables is not None or replaces:
            store.write(entry, _json({"run": run, "status": WRITING}))
        if tables is None and replaces:
            remove_tables(store, run)
        for table in TABLES if tables is not None else ():
            assert tables is not None
            store.publish(tables / f"{table}.parquet", f"{table_folder(table, run)}/{PART_FILE}")
        store.write(entry, _json(row))


def remove_tables(store: Store, run: str) -> None:
    """Take a run out of all tables."""
    for table in TABLES:
        store.remove(table_folder(table, run))


def _json(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back an interrupt or a request to end until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda signum, _: caught.append(signum)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])


# ---- the whole dataset, held by one batch ----


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
            return file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        place = f"{store.url}/{RUNS_FILE}"
        raise ReplayError(f"{place}: cannot be read ({error}); without that file all runs are made again") from error


class Dataset:
    """A dataset while a batch works on it; `known` holds its runs by name."""

    def __init__(self, store: Store) -> None:
        """Read what the dataset holds, and clear away what an earlier batch left unfinished.

        Raises:
            ReplayError: `runs.parquet` cannot be read.
            OutputError: the store refused.
        """
        self.store = store
        self.rows: dict[str, dict[str, Any]] = {}
        self._kept = read_runs(store)
        self._gone: set[str] = set()
        self._listed: dict[str, set[str]] = {}
        self._changed = self._kept is None
        self._collect_journal()
        self.known = {known.run: known for known in self._all_known()}
        self._by_location = {known.location: known.run for known in self.known.values()}

    def holds(self, run: str) -> bool:
        """Tell whether every table has a part of the run."""
        if not self._listed:
            self._listed = {table: set(self.store.names(table)) for table in TABLES}
        return all(f"run={escaped(run)}" in names for names in self._listed.values())

    def record(self, row: dict[str, Any]) -> None:
        """Take the row of a run that was committed."""
        self.rows[row["run"]] = row
        self._changed = True

    def moved(self, run: str, location: str) -> None:
        """Take note that the unchanged log of a run is elsewhere now."""
        if run not in self.rows:
            assert self._kept is not None
            names = self._kept.column("run").to_pylist()
            self.rows[run] = self._kept.slice(names.index(run), 1).to_pylist()[0]
        self.record(self.rows[run] | {"location": location})

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
        for folder in (JOURNAL, STAGING):
            self.store.remove(folder)

    def table(self) -> pa.Table:
        """Return the table `runs`."""
        import pyarrow as pa

        kept = self._kept
        if kept is not None:
            dropped = self.rows.keys() | self._gone
            names = kept.column("run").to_pylist()
            kept = kept.take(pa.array([place for place, name in enumerate(names) if name not in dropped], pa.int64()))
        return runs_table(list(self.rows.values()), kept)

    def _collect_journal(self) -> None:
        """Take the rows that workers left in the journal, and undo what they left half done."""
        for file in self.store.names(JOURNAL):
            row = json.loads(self.store.read(f"{JOURNAL}/{file}") or b"{}")
            if row.get("status") == WRITING:
                remove_tables(self.store, row["run"])
                self.rows.pop(row["run"], None)
                self._gone.add(row["run"])
                self._changed = True
            elif row:
                self.record(row)
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


def fitting(name: str) -> str:
    """Return a run's name, its beginning replaced by a digest where it is too long for a path."""
    if len(escaped(name)) <= LONGEST_NAME:
        return name
    end = name
    while len(escaped(end)) > LONGEST_NAME - 10:
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
