"""What can stand on a side of a comparison: a trace, an exported run, a dataset, or runs of a dataset.

In goes what the user named, out comes a `Side`: the summaries of its runs, and their tables with a column `run`. What
is compared and how it looks this module does not know.

    trace.log           a log, or the prefix of a `strace -ff` set
    DIR                 what `replay export` wrote
    DATASET             all runs of a dataset
    DATASET#NAME        the run of that name, or all whose names match a pattern: DATASET#v2-*
    DATASET#LABEL=VALUE all runs that have the label: DATASET#commit=abc,host=ci-01
    DATASET/run=NAME    the same run, as a path
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from replay.datasets.dataset import Dataset, first_line, is_dataset, plain_texts, table_schema
from replay.datasets.layout import OK
from replay.errors import QueryError, ReplayError
from replay.logs.recordings import SIDECAR

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.run.api import Run

_PATTERN_SIGNS: Final = "*?["
_ENDINGS: Final = ("parquet", "csv")


class Side(ABC):
    """One side of a comparison: runs with their summaries, and tables of all of them."""

    label: str
    kind: str
    """`trace`, `export` or `dataset`."""

    @property
    @abstractmethod
    def summaries(self) -> Mapping[str, Mapping[str, Any]]:
        """The row of the table `summary` of each run, by the name of the run; at least one."""

    @abstractmethod
    def table(self, name: str, columns: Sequence[str], runs: Sequence[str] | None = None) -> pa.Table:
        """Return columns of a table of all runs, or of some, with `run` as the first; texts are plain strings."""

    @property
    def complaints(self) -> list[str]:
        """What is to be said of the parts of a dataset that do not fit together."""
        return []

    @property
    def places(self) -> dict[str, str]:
        """Where in the log the values of the summary come from, if there is one run, by the name of the column."""
        if len(self.summaries) > 1:
            return {}
        from replay.conditions import origins_in_tables

        return origins_in_tables(next(iter(self.summaries.values())), self.table)

    def _named(self, table: pa.Table) -> pa.Table:
        """Return the table of the only run with its name in the first column."""
        import pyarrow as pa

        names = pa.array([next(iter(self.summaries))] * table.num_rows, pa.string())
        return plain_texts(table).add_column(0, "run", names)


class _Trace(Side):
    """A run that was replayed for this comparison."""

    kind = "trace"

    def __init__(self, label: str, run: Run) -> None:
        self.label = label
        self._run = run

    @property
    def summaries(self) -> Mapping[str, Mapping[str, Any]]:
        return {self.label: self._run.summary_values}

    def table(self, name: str, columns: Sequence[str], runs: Sequence[str] | None = None) -> pa.Table:
        return self._named(self._run.arrow(name).select(columns))

    @property
    def places(self) -> dict[str, str]:
        from replay.conditions import origins_of

        return origins_of(self._run)


class _Export(Side):
    """A run that `replay export` wrote, as parquet or as CSV."""

    kind = "export"

    def __init__(self, label: str, ending: str) -> None:
        self.label = label
        self._ending = ending
        self._summary = self._read("summary").to_pylist()
        if len(self._summary) != 1:
            raise ReplayError(f"{label}/summary.{ending}: {len(self._summary)} rows, expected one: no exported run")

    @property
    def summaries(self) -> Mapping[str, Mapping[str, Any]]:
        return {self.label: self._summary[0]}

    def table(self, name: str, columns: Sequence[str], runs: Sequence[str] | None = None) -> pa.Table:
        return self._named(self._read(name, columns))

    def _read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        import pyarrow as pa

        path = os.path.join(self.label, f"{name}.{self._ending}")
        try:
            return _read_parquet(path, columns) if self._ending == "parquet" else _read_csv(path, name, columns)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ReplayError(f"{path}: cannot be read: {first_line(error)}") from error


class _Runs(Side):
    """All runs of a dataset that could be read, or some of them."""

    kind = "dataset"

    def __init__(self, label: str, dataset: Dataset, names: Sequence[str]) -> None:
        self.label = label
        self._dataset = dataset
        self._all = len(names) == sum(row["status"] == OK for row in dataset.rows)
        chosen = set(names)
        self._summaries = {row["run"]: row for row in dataset.rows if row["run"] in chosen}

    @property
    def complaints(self) -> list[str]:
        return self._dataset.complaints()

    @property
    def summaries(self) -> Mapping[str, Mapping[str, Any]]:
        return self._summaries

    def table(self, name: str, columns: Sequence[str], runs: Sequence[str] | None = None) -> pa.Table:
        chosen = runs if runs is not None else None if self._all else list(self._summaries)
        return self._dataset.table(name, columns, chosen)


def side(named: str, **how: Any) -> Side:
    """Return the side that the user named; `how` is what `replay.load` takes besides the log.

    Raises:
        ReplayError: it cannot be read, or a dataset has no such run.
    """
    location, mark, name = _split(named)
    if mark or is_dataset(location):
        return _dataset_side(named, location, name)
    if os.path.isdir(named) and not os.path.isfile(os.path.join(named, SIDECAR)):
        return _exported_side(named)
    location, mark, name = named.rpartition("#")
    if mark and os.path.isdir(location) and not os.path.exists(named):
        raise ReplayError(f"{location}: no dataset that `replay batch` wrote, so it has no runs {name!r}")
    from replay.run.api import load

    return _Trace(named, load(named, **how))


def _split(named: str) -> tuple[str, str, str]:
    """Return the dataset, the mark and the name of `DATASET#NAME` and `DATASET/run=NAME`; else the whole text."""
    if os.path.exists(named) and "run=" not in named:
        return named, "", ""
    for mark in ("#", "/run="):
        location, found, name = named.rstrip("/").rpartition(mark)
        if not found or not location:
            continue
        for dataset in (location, os.path.dirname(location)):  # DATASET/TABLE/run=NAME is there in the file system
            if dataset and is_dataset(dataset):
                return dataset, mark, name
    return named, "", ""


def _dataset_side(named: str, location: str, name: str) -> Side:
    dataset = Dataset(location)
    rows = {row["run"]: row for row in dataset.rows}
    names = [run for run in rows if not name or run in (name, unquote(name))]
    if not names and "=" in name:
        names = [run for run, row in rows.items() if _has_labels(row, name)]
    if not names and any(sign in name for sign in _PATTERN_SIGNS):
        names = [run for run in rows if fnmatchcase(run, name)]
    good = [run for run in names if rows[run]["status"] == OK]
    if not names and name:
        raise QueryError(f"{location}: {_none_such(dataset, name)}; {_some(sorted(rows))}")
    if not good:
        why = f": {rows[names[0]].get('error')}" if len(names) == 1 else ""
        raise ReplayError(f"{named}: no run of it could be read{why}")
    return _Runs(named, dataset, good)


def _none_such(dataset: Dataset, name: str) -> str:
    """Return what no run of a dataset is: one of a name, or one with labels."""
    if "=" not in name:
        return f"no run {name!r}"
    labels = sorted({key.removeprefix("label_") for row in dataset.rows for key in row if key.startswith("label_")})
    return f"no run has the label {name}; its labels are {', '.join(labels)}" if labels else "its runs have no labels"


def _has_labels(row: Mapping[str, Any], said: str) -> bool:
    """Tell whether a run has labels: `commit=abc`, several with commas between them, values as they are or patterns."""
    pairs = (pair.partition("=") for pair in said.split(","))
    return all(fnmatchcase(str(row.get(f"label_{name.strip()}") or ""), value.strip()) for name, _, value in pairs)


def _exported_side(named: str) -> Side:
    for ending in _ENDINGS:
        if os.path.isfile(os.path.join(named, f"summary.{ending}")):
            return _Export(named.rstrip("/") or named, ending)
    raise ReplayError(
        f"{named}: a directory with neither summary.parquet (an exported run) nor runs.parquet (a dataset) in it"
    )


def _some(names: Sequence[str]) -> str:
    """Return the names of runs, at most ten of them."""
    if not names:
        return "the dataset has no runs"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"its runs are {', '.join(names[:10])}{more}"


def _read_parquet(path: str, columns: Sequence[str] | None) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        known = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        return file.read(columns=known)


def _read_csv(path: str, name: str, columns: Sequence[str] | None) -> pa.Table:
    """Return columns of an exported CSV file, of the types that the schema gives them."""
    import pyarrow.csv as pc

    schema = plain_texts(table_schema(name).empty_table()).schema
    types = {field.name: field.type for field in schema}
    options = pc.ConvertOptions(
        column_types=types, include_columns=columns, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    return pc.read_csv(path, parse_options=pc.ParseOptions(newlines_in_values=True), convert_options=options)
