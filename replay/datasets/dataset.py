"""A dataset of many runs, opened for reading: `runs.parquet` and the hive-partitioned tables beside it.

In goes the path or URL of a dataset, out come Arrow tables with a column `run`. How a dataset is made, and what is
asked of it, this module does not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from replay.errors import QueryError, ReplayError
from replay.tables import TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

RUNS: Final = "runs.parquet"
"""The file with one row a run, which makes a directory a dataset."""

OK: Final = "ok"
"""The status of a run whose tables are in the dataset."""


VERSION: Final = re.compile(r"(?:^|[^0-9A-Za-z.])(v[0-9]+(?:\.[0-9]+)*|[0-9]+(?:\.[0-9]+)+)(?:[^0-9A-Za-z]|$)")
"""The version in the name of a run or in the path of its log: `v2`, `1.4.10`; Python's and RE2's syntax."""


class Dataset:
    """A dataset of runs; a table is read when it is asked for."""

    def __init__(self, location: str) -> None:
        """Open the dataset at a path or URL.

        Raises:
            ReplayError: there is none, or it cannot be read.
        """
        self.location = location.rstrip("/") or location
        self.filesystem, self.path = opened(self.location)
        if not is_file(self.filesystem, f"{self.path}/{RUNS}"):
            raise ReplayError(f"{location}: no {RUNS} in it, so it is no dataset; `replay batch` makes one")

    @cached_property
    def runs(self) -> pa.Table:
        """One row a run, as `runs.parquet` has it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(f"{self.path}/{RUNS}", filesystem=self.filesystem, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"{self.location}/{RUNS}: cannot be read: {first_line(error)}") from error
        missing = {"run", "status"} - set(table.column_names)
        if missing:
            raise ReplayError(f"{self.location}/{RUNS}: no column {', '.join(sorted(missing))}: is it one of replay's?")
        return table

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `runs.parquet`, by column, in order of the run's name."""
        rows: list[dict[str, Any]] = self.runs.to_pylist()
        return sorted(rows, key=lambda row: str(row["run"]))

    def scan(self, name: str) -> Any:
        """Return a table of all runs as a `pyarrow.dataset.Dataset`, of which nothing is read yet; texts are plain.

        Raises:
            ReplayError: its directory cannot be listed.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        schema = plain_schema(table_schema(name))
        if not is_directory(self.filesystem, f"{self.path}/{name}"):
            return ds.dataset(schema.empty_table())
        parts = ds.HivePartitioning(pa.schema([schema.field("run")]), segment_encoding="uri")
        try:
            return ds.dataset(f"{self.path}/{name}", schema, "parquet", self.filesystem, partitioning=parts)
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"{self.location}/{name}: cannot be read: {first_line(error)}") from error

    def table(self, name: str, columns: Sequence[str], runs: Collection[str] | None = None) -> pa.Table:
        """Return columns of a table of all runs, or of some, with `run` as the first; texts are plain strings.

        Raises:
            ReplayError: a file of it cannot be read.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        chosen = None if runs is None else ds.field("run").isin(list(runs))
        try:
            return self.scan(name).to_table(columns=["run", *columns], filter=chosen)
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"{self.location}/{name}: cannot be read: {first_line(error)}") from error


def version_in(*texts: str | None) -> str:
    """Return the version in the first of the texts that has one, empty if none has."""
    return next((match[1] for text in texts if text and (match := VERSION.search(text))), "")


def opened(location: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it.

    Raises:
        ReplayError: no file system is known for the URL.
    """
    import pyarrow as pa
    from pyarrow import fs

    if "://" not in location:
        return fs.LocalFileSystem(), location
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (pa.ArrowException, OSError, ImportError) as error:
        raise ReplayError(f"{location}: cannot be opened: {first_line(error)}") from error
    return filesystem, path.rstrip("/")


def is_file(filesystem: Any, path: str) -> bool:
    """Tell whether there is a file of that path."""
    return _type_of(filesystem, path) == "File"


def is_directory(filesystem: Any, path: str) -> bool:
    """Tell whether there is a directory of that path."""
    return _type_of(filesystem, path) == "Directory"


def is_dataset(location: str) -> bool:
    """Tell whether a path or URL is that of a dataset."""
    filesystem, path = opened(location)
    return is_file(filesystem, f"{path}/{RUNS}")


def table_schema(name: str) -> pa.Schema:
    """Return the schema of a table of a dataset: `run`, then the table's columns.

    Raises:
        QueryError: there is no such table.
    """
    import pyarrow as pa

    if name not in TABLES:
        raise QueryError(f"no table {name!r}; the tables are {', '.join(TABLES)}")
    return pa.schema([pa.field("run", pa.string()), *arrow_schema(name)])


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema with its dictionaries as plain strings."""
    import pyarrow as pa

    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema
    ]
    return pa.schema(fields, metadata=schema.metadata)


def plain_texts(table: pa.Table) -> pa.Table:
    """Return the table with its dictionaries as plain strings."""
    return table.cast(plain_schema(table.schema))


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _type_of(filesystem: Any, path: str) -> str:
    try:
        return str(filesystem.get_file_info(path).type.name)
    except OSError as error:
        raise ReplayError(f"{path}: cannot be opened: {first_line(error)}") from error
