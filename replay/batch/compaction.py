"""A dataset with one sorted file a table in place of a folder for each run.

In goes a dataset that nobody else writes to, out come `TABLE/part-0.parquet` and so on with a column `run`, whole or
not at all: until all are there they lie aside, then one file says that they are the dataset. What the tables hold is
not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
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
from replay.datasets.dataset import Dataset, first_line, table_schema
from replay.datasets.layout import COMPACTED, OK, SWITCH, Switch
from replay.errors import ReplayError
from replay.tables import SCHEMA_VERSION, TABLES, ParquetStream, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES: Final = 512 << 20
"""A file of many runs has at most so many bytes; the last row group may pass them by less than itself."""

_ROOM: Final = 32 << 20
"""A file is closed so many bytes before that: a row group of the widest table has less. Heuristic."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` did: the runs that are in the files, and those left alone since another version wrote them."""

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
    """Do what `compact` does to a dataset that is locked and of which no switch is pending."""
    table = read_runs(store)
    rows = [] if table is None else table.select(["run", "status", "schema_version"]).to_pylist()
    good = sorted(row["run"] for row in rows if row["status"] == OK)
    left = {row["run"] for row in rows if row["status"] == OK and row["schema_version"] != SCHEMA_VERSION}
    runs = [run for run in good if run not in left]
    dataset = Dataset(store.url)
    files = {name: _written(store, name, _pieces(dataset, name, runs)) for name in TABLES}
    with uninterrupted():
        store.write(SWITCH, Switch(files, runs).data())
        complete_switch(store)
    return Compacted(runs, sorted(left))


def _written(store: Store, name: str, pieces: Iterator[tuple[str, pa.Table]]) -> list[str]:
    """Write the pieces of a table, of one run each, into files that lie aside; return their names."""
    import pyarrow as pa

    schema = compacted_schema(name)
    files: list[str] = []
    with store.staging() as folder, ExitStack() as open_file:
        stream: Any = None
        for run, piece in pieces:
            if stream is None or stream.size > PART_BYTES - _ROOM:
                open_file.close()
                files.append(f"part-{len(files)}.parquet")
                stream = open_file.enter_context(ParquetStream(schema, folder / files[-1]))
            column = pa.array([run], pa.string()).take(pa.array([0] * piece.num_rows, pa.int32()))
            stream.write(piece.add_column(0, schema.field("run"), column).cast(schema))
        if not files:
            files.append("part-0.parquet")
            open_file.enter_context(ParquetStream(schema, folder / files[-1]))
        open_file.close()
        for file in files:
            store.publish(Path(folder) / file, f"{COMPACTED}/{name}/{file}")
    return files


def compacted_schema(name: str) -> pa.Schema:
    """Return the schema of a compacted table: `run`, then the table's columns, and what files say of themselves."""
    import pyarrow as pa

    schema = table_schema(name)
    facts = {"unit": "name", "meaning": "Name of the run."}
    run = pa.field("run", pa.string(), nullable=False, metadata=facts)
    return pa.schema([run, *list(schema)[1:]], metadata=arrow_schema(name).metadata)


def _pieces(dataset: Dataset, name: str, runs: list[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the parts of runs in order of their names; of a run that was made again, the new ones."""
    files, wanted = dataset.files(name), set(runs)
    flat = (piece for file in files.flat for piece in _of_many(dataset, file) if piece[0] not in files.of_run)
    mine = [(run, file) for run, file in sorted(files.of_run.items()) if run in wanted]
    folders = (piece for run, file in mine for piece in _of_one(dataset, run, file))
    return (piece for piece in merge(flat, folders, key=itemgetter(0)) if piece[0] in wanted)


def _of_one(dataset: Dataset, run: str, file: str) -> Iterator[tuple[str, pa.Table]]:
    for group in _groups(dataset, file):
        yield run, group


def _of_many(dataset: Dataset, file: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of a file of many runs, those of each run by themselves."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for group in _groups(dataset, file):
        if not group.num_rows:
            continue
        run = group.column("run").combine_chunks().cast(pa.string())
        changes = pc.not_equal(run[1:], run[:-1])
        bounds = [0, *(at + 1 for at in pc.indices_nonzero(changes).to_pylist()), group.num_rows]
        rest = group.drop_columns(["run"])
        for start, end in pairwise(bounds):
            yield run[start].as_py(), rest.slice(start, end - start)


def _groups(dataset: Dataset, file: str) -> Iterator[pa.Table]:
    """Yield a file by row groups.

    Raises:
        ReplayError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with dataset.filesystem.open_input_file(f"{dataset.path}/{file}") as source, pq.ParquetFile(source) as opened:
            for number in range(opened.num_row_groups):
                yield opened.read_row_group(number, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ReplayError(f"{dataset.location}/{file}: cannot be read: {first_line(error)}") from error
