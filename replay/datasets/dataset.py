"""A dataset of many runs, opened for reading: `runs.parquet` and the tables beside it, in folders or compacted.

In goes the path or URL of a dataset, out come Arrow tables with a column `run`. How a dataset is made, and what is
asked of it, this module does not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from replay.datasets.layout import (
    ASIDE,
    CHANGES,
    COMPACTED,
    OK,
    SWITCH,
    Change,
    Switch,
    TableFiles,
    files_of,
    whole_runs,
)
from replay.errors import QueryError, ReplayError
from replay.logs.files import RUNS_FILE
from replay.tables import SCHEMA_VERSION, TABLES, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

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
        if not is_file(self.filesystem, f"{self.path}/{RUNS_FILE}"):
            raise ReplayError(f"{location}: no {RUNS_FILE} in it, so it is no dataset; `replay batch` makes one")

    @cached_property
    def runs(self) -> pa.Table:
        """One row a run, as `runs.parquet` has it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(f"{self.path}/{RUNS_FILE}", filesystem=self.filesystem, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"{self.location}/{RUNS_FILE}: cannot be read: {first_line(error)}") from error
        missing = {"run", "status"} - set(table.column_names)
        if missing:
            raise ReplayError(
                f"{self.location}/{RUNS_FILE}: no column {', '.join(sorted(missing))}: is it one of replay's?"
            )
        return table

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `runs.parquet`, by column, in order of the run's name."""
        rows: list[dict[str, Any]] = self.runs.to_pylist()
        return sorted(rows, key=lambda row: str(row["run"]))

    def scan(self, name: str) -> Any:
        """Return a table of all runs as a `pyarrow.dataset.Dataset`, of which nothing is read yet; texts are plain.

        A run that was made again since `compact` is that of its folder. A run of an error has no rows.

        Raises:
            ReplayError: its directory cannot be listed, or a file cannot be read.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        schema, files = plain_schema(table_schema(name)), self.files(name)
        run = ds.field("run")
        old = self._replaced
        try:
            if not old:
                return self._dataset(schema, [(file, None) for file in files.flat], files.of_run)
            kept = self._dataset(schema, [(file, None) for file in files.flat], {})
            flat = kept.to_table(filter=~run.isin(old)) if files.flat else schema.empty_table()
            return ds.dataset(pa.concat_tables([flat, self._dataset(schema, [], files.of_run).to_table()]))
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"{self.location}/{name}: cannot be read: {first_line(error)}") from error

    def _dataset(self, schema: pa.Schema, flat: Sequence[tuple[str, Any]], of_run: dict[str, str]) -> Any:
        import pyarrow.dataset as ds

        form, run = ds.ParquetFileFormat(), ds.field("run")
        files = [*flat, *((file, run == name) for name, file in of_run.items())]
        fragments = [form.make_fragment(f"{self.path}/{file}", self.filesystem, known) for file, known in files]
        return ds.FileSystemDataset(fragments, schema, form, self.filesystem)

    def files(self, name: str) -> TableFiles:
        """Return the files of a table, below the dataset."""
        files = files_of(name, self._names(name), self._switch, self._names(f"{COMPACTED}/{name}"))
        return whole_runs(name, files, self._changes, self._names(f"{ASIDE}/{name}")) if self._changes else files

    def _names(self, folder: str) -> list[str]:
        from pyarrow import fs

        try:
            found = self.filesystem.get_file_info(fs.FileSelector(f"{self.path}/{folder}", allow_not_found=True))
        except NotADirectoryError:
            return []
        except OSError as error:
            raise ReplayError(f"{self.location}/{folder}: cannot be read: {first_line(error)}") from error
        return sorted(info.base_name for info in found)

    @cached_property
    def _switch(self) -> Switch | None:
        """What `compact` is putting into place."""
        if not is_file(self.filesystem, f"{self.path}/{SWITCH}"):
            return None
        return Switch.read(self._read(SWITCH))

    @cached_property
    def _changes(self) -> list[Change]:
        """The runs that are being changed, or were when a batch was killed."""
        found = (Change.read(self._read(f"{CHANGES}/{name}")) for name in self._names(CHANGES))
        return [change for change in found if change is not None]

    def _read(self, name: str) -> bytes | None:
        """Return what a file holds, None where it is gone again."""
        try:
            with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    @cached_property
    def compacted(self) -> frozenset[str]:
        """The runs that are in the compacted files."""
        import pyarrow as pa

        files = [(file, None) for file in self.files("summary").flat]
        if not files:
            return frozenset()
        try:
            rows = self._dataset(plain_schema(table_schema("summary")), files, {}).to_table(columns=["run"])
        except (pa.ArrowException, OSError) as error:
            raise ReplayError(f"{self.location}/summary: cannot be read: {first_line(error)}") from error
        return frozenset(rows["run"].to_pylist())

    @cached_property
    def _replaced(self) -> list[str]:
        """The runs in the compacted files that are not what they were: made again, errors, forgotten."""
        if not self.compacted:
            return []
        good = set(self._good)
        return sorted(self.compacted - (good - self.files("summary").of_run.keys()))

    @property
    def _good(self) -> list[str]:
        return [row["run"] for row in self.rows if row["status"] == OK]

    @cached_property
    def _in_folders(self) -> dict[str, frozenset[str]]:
        """The runs that have a folder, by table."""
        return {table: frozenset(self.files(table).of_run) for table in TABLES}

    @property
    def parts(self) -> frozenset[str]:
        """The runs of which there is any part, those without a row in `runs.parquet` too."""
        return self.compacted.union(*self._in_folders.values())

    def beside_compacted(self) -> list[str]:
        """Return the runs that are in folders while others are in compacted files, which few other tools read."""
        return sorted(frozenset().union(*self._in_folders.values())) if self.compacted else []

    def lacking(self) -> dict[str, list[str]]:
        """Return the runs of which a table has no part, and those tables' names."""
        missing: dict[str, list[str]] = {}
        expected = set(self._good) - self.compacted
        for table, held in self._in_folders.items():
            for run in expected - held:
                missing.setdefault(run, []).append(table)
        return missing

    def complaints(self) -> list[str]:
        """Return sentences on parts without a row in `runs.parquet`, on rows without parts, and on other versions."""
        listed, missing = {row["run"] for row in self.rows}, self.lacking()
        others = {row["run"]: row["schema_version"] for row in self.rows if _other_schema(row)}
        apart = any(is_earlier(version) and run not in self.compacted for run, version in others.items())
        found = []
        if strays := self.parts - listed:
            names = f"{_some(sorted(strays))}: parts without a row in {RUNS_FILE}"
            found.append(f"{names}: a batch is at work, or was killed; run it again, or `replay forget` takes them out")
        if missing:
            tables = ", ".join(sorted({table for names in missing.values() for table in names}))
            found.append(f"{_some(sorted(missing))}: no part in {tables}; `replay batch` makes these runs again")
        if others:
            names = f"{_some(sorted(others))}: written by another version, whose tables differ"
            compacting = "; `replay compact` makes them fit for other tools" if apart else ""
            found.append(f"{names}; batch makes them again{compacting}")
        return [f"{self.location}: {sentence}" for sentence in found]

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


def complaints(location: str) -> list[str]:
    """Return what is to be said of the parts of a dataset; nothing of an exported run."""
    return Dataset(location).complaints() if is_dataset(location) else []


def is_earlier(version: str | None) -> bool:
    """Tell whether a version of the tables is one before this one."""
    return version is not None and version.isdecimal() and int(version) < int(SCHEMA_VERSION)


def _other_schema(row: dict[str, Any]) -> bool:
    return row["status"] == OK and row.get("schema_version") not in (None, SCHEMA_VERSION)


def _some(runs: Sequence[str]) -> str:
    """Return how many runs they are and the first of their names."""
    if len(runs) == 1:
        return f"run {runs[0]}"
    return f"{len(runs):,} runs ({', '.join(runs[:3])}{', …' if len(runs) > 3 else ''})"


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
    return is_file(filesystem, f"{path}/{RUNS_FILE}")


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
