"""A dataset with one sorted file a table in place of a folder for each run.

In goes a dataset that nobody else writes to, out come `TABLE/part-0.parquet` and so on with a column `run`, whole or
not at all: until all are there they lie aside, then one file says that they are the dataset. What the tables hold is
not known here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replay.batch.commit import complete_changes, complete_switch, uninterrupted
from replay.batch.dataset_writer import read_runs
from replay.batch.locking import locked
from replay.batch.storage import STAGING, Store
from replay.datasets.dataset import Dataset, first_line, is_earlier
from replay.datasets.layout import COMPACTED, OK, SWITCH, Switch
from replay.errors import ReplayError
from replay.tables import SCHEMA_VERSION, TABLES, ParquetStream, arrow_field, metadata_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PART_BYTES: Final = 512 << 20
"""A file of many runs has at most so many bytes; the last row group may pass them by less than itself."""

_ROOM: Final = 32 << 20
"""A file is closed so many bytes before that: a row group of the widest table has less. Heuristic."""

_CAME_LATER: Final = frozenset({"timeline"})
"""The tables that versions before this one may not have written."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` did: the runs that are in the files, and those left alone.

    Left alone are those that a later version wrote, and those of which a table has no part: in a file of all runs it
    would look as if they had no rows there. A run of an earlier version has nulls in columns that came later.
    """

    runs: list[str]
    left: list[str]


def compact(store: Store) -> Compacted:
    """Put all runs of a dataset into one sorted file a table, or some of at most `PART_BYTES`.

    Raises:
        DatasetBusyError: a batch is at work on the dataset.
        ReplayError: a file cannot be read.
        OutputError: the store refused.
    """
    with locked(store):
        complete_switch(store)
        complete_changes(store)
        store.remove(STAGING)
        return rewrite(store)


def rewrite(store: Store) -> Compacted:
    """Do what `compact` does to a dataset that is locked and of which no switch is pending.

    Runs of a later version that are in such files stay there, with what this one knows of.
    """
    table = read_runs(store)
    rows = [] if table is None else table.select(["run", "status", "schema_version"]).to_pylist()
    good = {row["run"]: row["schema_version"] for row in rows if row["status"] == OK}
    dataset = Dataset(store.url)
    earlier = {run for run, version in good.items() if is_earlier(version)}
    later = {run for run, version in good.items() if version != SCHEMA_VERSION} - earlier
    damaged = {run for run, tables in dataset.lacking().items() if run not in earlier or set(tables) - _CAME_LATER}
    left = later - (dataset.compacted - dataset.files("summary").of_run.keys()) | damaged
    runs = sorted(good.keys() - left)
    files = {}
    for name in TABLES:
        schema = compacted_schema(name, _unknown_of(dataset, name, earlier - left))
        files[name] = _written(store, schema, name, _pieces(dataset, name, runs, schema))
    with uninterrupted():
        store.write(SWITCH, Switch(files, runs).data())
        complete_switch(store)
    return Compacted(runs, sorted(left))


def _unknown_of(dataset: Dataset, name: str, runs: Collection[str]) -> set[str]:
    """Return the columns of a table that files of such runs do not have, or have as ones that may be null."""
    files = dataset.files(name)
    asked = [file for run, file in files.of_run.items() if run in runs] + (files.flat if runs else [])
    unknown: set[str] = set()
    for file in asked:
        with _opened(dataset, file) as opened:
            always = {field.name for field in opened.schema_arrow if not field.nullable}
        unknown |= {column.name for column in TABLES[name].columns if column.name not in always}
    return unknown


def _written(store: Store, schema: pa.Schema, name: str, pieces: Iterator[pa.Table]) -> list[str]:
    """Write the pieces of a table into files that lie aside; return their names."""
    files: list[str] = []
    with store.staging() as folder, ExitStack() as open_file:
        stream: Any = None
        for piece in pieces:
            if stream is None or stream.size > PART_BYTES - _ROOM:
                open_file.close()
                files.append(f"part-{len(files)}.parquet")
                stream = open_file.enter_context(ParquetStream(schema, folder / files[-1]))
            stream.write(piece)
        if not files:
            files.append("part-0.parquet")
            open_file.enter_context(ParquetStream(schema, folder / files[-1]))
        open_file.close()
        for file in files:
            store.publish(Path(folder) / file, f"{COMPACTED}/{name}/{file}")
    return files


def compacted_schema(name: str, unknown: Collection[str] = ()) -> pa.Schema:
    """Return the schema of a compacted table: `run`, then the table's columns, and what files say of themselves.

    Columns that are `unknown` of some runs may be null.
    """
    import pyarrow as pa

    table = TABLES[name]
    columns = [each._replace(nullable=each.nullable or each.name in unknown) for each in table.columns]
    facts = {"unit": "name", "meaning": "Name of the run."}
    run = pa.field("run", pa.string(), nullable=False, metadata=facts)
    return pa.schema([run, *map(arrow_field, columns)], metadata=metadata_of(table._replace(columns=tuple(columns))))


def _pieces(dataset: Dataset, name: str, runs: list[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of runs in order of their names; of a run that was made again, the new ones."""
    files, wanted = dataset.files(name), set(runs)
    kept = wanted - dataset.files("summary").of_run.keys()
    flat = (piece for file in files.flat for piece in _of_many(dataset, schema, file) if piece[0] in kept)
    mine = [(run, file) for run, file in sorted(files.of_run.items()) if run in wanted]
    folders = (piece for run, file in mine for piece in _of_one(dataset, schema, run, file))
    return (piece for _, piece in merge(flat, folders, key=itemgetter(0)))


def _of_one(dataset: Dataset, schema: pa.Schema, run: str, file: str) -> Iterator[tuple[str, pa.Table]]:
    import pyarrow as pa

    for group in _groups(dataset, file):
        yield run, _fitted(group.add_column(0, "run", pa.repeat(run, group.num_rows)), schema)


def _of_many(dataset: Dataset, schema: pa.Schema, file: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of a file of many runs, those of each run by themselves."""
    import pyarrow.compute as pc

    for group in _groups(dataset, file):
        if not group.num_rows:
            continue
        fitted = _fitted(group, schema)
        run = fitted.column("run").combine_chunks()
        changes = pc.not_equal(run[1:], run[:-1])
        bounds = [0, *(at + 1 for at in pc.indices_nonzero(changes).to_pylist()), group.num_rows]
        for start, end in pairwise(bounds):
            yield run[start].as_py(), fitted.slice(start, end - start)


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table in a schema; columns that came later are null.

    Raises:
        ReplayError: one that is never null is not there.
    """
    import pyarrow as pa

    there = set(table.column_names)
    missing = [field.name for field in schema if field.name not in there and not field.nullable]
    if missing:
        raise ReplayError(f"no column {', '.join(missing)}: another version wrote it; `replay batch --force` makes it")
    columns = [
        table.column(field.name).cast(field.type) if field.name in there else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _groups(dataset: Dataset, file: str) -> Iterator[pa.Table]:
    """Yield a file by row groups."""
    with _opened(dataset, file) as opened:
        for number in range(opened.num_row_groups):
            yield opened.read_row_group(number, use_threads=False)


@contextmanager
def _opened(dataset: Dataset, file: str) -> Iterator[pq.ParquetFile]:
    """Open a file of the dataset while the block reads it.

    Raises:
        ReplayError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with dataset.filesystem.open_input_file(f"{dataset.path}/{file}") as source, pq.ParquetFile(source) as opened:
            yield opened
    except (pa.ArrowException, OSError) as error:
        raise ReplayError(f"{dataset.location}/{file}: cannot be read: {first_line(error)}") from error
