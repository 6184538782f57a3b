"""The table `runs`: one row a run of a dataset, with where it came from and its whole summary.

In go facts of runs, out come the Arrow table and its schema. Where rows are kept is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from replay.errors import ReplayError
from replay.tables import TABLES, Column, Table, arrow_column, arrow_field, metadata_of, without_rows

if TYPE_CHECKING:
    import pyarrow as pa

ERROR: Final = "error"

MEANING: Final = "One row a run of a dataset: where it came from, what became of it, and its summary."

RUN_COLUMNS: Final = (
    Column("run", "string", False, "name", "Name of the run, as in the `run=` folders of the other tables."),
    Column("source", "string", False, "path", "The log as it was found; `PREFIX.*` for a strace -ff set."),
    Column("location", "string", False, "path", "The same as an absolute path or URL."),
    Column("size_bytes", "int64", True, "bytes", "Size of the log's files as they lie there, compressed or not."),
    Column(
        "content_hash",
        "string",
        True,
        "sha256",
        "What `sha256sum` prints of the log; for a set the same of the lines that it prints of the files.",
    ),
    Column("version", "string", False, "version", "The version of replay that made the row."),
    Column("schema_version", "string", False, "version", "The version of the tables' schema."),
    Column("options", "string", False, "option", "The options of reading that were not left at their defaults."),
    Column("status", "string", False, "word", "ok, or error: then the run has no rows in other tables."),
    Column("error", "string", True, "sentence", "Why the log could not be replayed."),
    Column("log_mtime", "timestamp_us", True, "time", "When the log was last written to; null where nothing tells."),
    Column("added_at", "timestamp_us", False, "time", "When the run came into the dataset."),
)
"""What stands before the columns of `summary` in a row of `runs`; `source` is said once."""


def summary_columns() -> tuple[str, ...]:
    """Return the names of the columns of `summary` that `runs` has too, all of them nullable there."""
    own = {column.name for column in RUN_COLUMNS}
    return tuple(column.name for column in TABLES["summary"].columns if column.name not in own)


LABEL: Final = "label_"
LABELS: Final = "labels"
_LABEL_NAME: Final = re.compile(r"\w[\w.-]*")
_LABELS_MEANING: Final = "What users said of the run: names and values, each also in a column `label_NAME`."


def check_label(name: str) -> None:
    """Refuse a name that no label can have.

    Raises:
        ReplayError: it is none.
    """
    if not _LABEL_NAME.fullmatch(name):
        raise ReplayError(f"label {name!r}: expected a name of letters, digits, _, . and -")


def runs_schema(labels: Iterable[str] = ()) -> pa.Schema:
    """Return the Arrow schema of `runs` with these labels, each field with `unit` and `meaning`."""
    import pyarrow as pa

    columns = _columns(labels)
    fields = [arrow_field(column) for column in columns]
    facts = {"unit": "name", "meaning": _LABELS_MEANING}
    fields.insert(len(RUN_COLUMNS), pa.field(LABELS, pa.map_(pa.string(), pa.string()), nullable=False, metadata=facts))
    return pa.schema(fields, metadata=metadata_of(Table("runs", MEANING, columns)))


def _columns(labels: Iterable[str]) -> tuple[Column, ...]:
    """Return the columns of `runs` with these labels, but for the map of them."""
    of_summary = {column.name: column._replace(nullable=True) for column in TABLES["summary"].columns}
    of_labels = (Column(LABEL + name, "string", True, "name", f"The label {name}.") for name in sorted(labels))
    return (*RUN_COLUMNS, *(of_summary[name] for name in summary_columns()), *of_labels)


def labels_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a row of `runs` as read: what its columns `label_NAME` say, which users may have changed."""
    found = {name.removeprefix(LABEL): value for name, value in row.items() if name.startswith(LABEL)}
    return {name: str(value) for name, value in found.items() if value is not None}


def runs_table(rows: list[dict[str, Any]], kept: pa.Table | None = None) -> pa.Table:
    """Return the table `runs` of new rows, with their `labels`, and of those kept from before, sorted by name.

    Columns that a row does not have are null: an error has no summary, an older version has fewer columns. Columns
    that users added to the kept rows stay; a new row has what the kept row of its name has there.
    """
    labels = set().union(*(row[LABELS] for row in rows))
    if kept is None:
        return _of_new(sorted(map(_with_labels, rows), key=itemgetter("run")), labels)
    labels |= {name.removeprefix(LABEL) for name in kept.column_names if name.startswith(LABEL)}
    return _merged([_with_labels(row) for row in rows], kept, runs_schema(labels))


def _of_new(rows: Sequence[Mapping[str, Any]], labels: Iterable[str]) -> pa.Table:
    """Return the table of rows that nothing was kept beside; most often so, and then pandas is not imported."""
    import pyarrow as pa

    schema, columns = runs_schema(labels), {column.name: column for column in _columns(labels)}
    if not rows:
        return without_rows(schema)
    arrays = [
        _array_of_maps(rows) if name == LABELS else arrow_column(columns[name], [row.get(name) for row in rows])
        for name in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array_of_maps(rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    import pyarrow as pa

    text = Column("", "string", False, "", "")
    ends = arrow_column(Column("", "int32", False, "", ""), [0, *accumulate(len(row[LABELS]) for row in rows)])
    names, values = ([pair[at] for row in rows for pair in row[LABELS]] for at in (0, 1))
    if not names:
        return pa.MapArray.from_arrays(ends, pa.nulls(0, pa.string()), pa.nulls(0, pa.string()))
    return pa.MapArray.from_arrays(ends, *(arrow_column(text, texts).combine_chunks() for texts in (names, values)))


def _merged(rows: list[dict[str, Any]], kept: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table of new rows and of those kept from before that have other names."""
    import pyarrow as pa

    names = {row["run"] for row in rows}
    added = [field for field in kept.schema if field.name not in schema.names]
    schema_with_added = pa.schema([*schema, *added], metadata=schema.metadata)
    of_user = kept.select(["run", *(field.name for field in added)]).to_pylist() if added else []
    said = {row.pop("run"): row for row in of_user}
    new = [row | said.get(row["run"], {}) for row in rows]
    run = kept.column("run").to_pylist()
    kept = kept.take(pa.array([at for at, name in enumerate(run) if name not in names], pa.int64()))
    columns = [_column_of(kept, field) for field in schema_with_added]
    columns[schema.names.index(LABELS)] = _maps(kept, schema.field(LABELS).type)
    old = pa.Table.from_arrays(columns, schema=schema_with_added)
    return pa.concat_tables([pa.Table.from_pylist(new, schema=schema_with_added), old]).sort_by("run")


def _with_labels(row: Mapping[str, Any]) -> dict[str, Any]:
    labels = sorted(row[LABELS].items())
    return {**row, LABELS: labels} | {LABEL + name: value for name, value in labels}


def _maps(table: pa.Table, type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    columns = table.select([name for name in table.column_names if name.startswith(LABEL)])
    rows = columns.to_pylist() if columns.num_columns else [{}] * table.num_rows
    return pa.array([sorted(labels_of(row).items()) for row in rows], type_)


def _column_of(table: pa.Table, field: pa.Field) -> Any:
    """Return a column as the schema has it; one that the table lacks is null, or, if it may not be, as it was first.

    Raises:
        ReplayError: it holds something else.
    """
    import pyarrow as pa

    if field.name in table.column_names and field.name != LABELS:
        try:
            return table.column(field.name).cast(field.type)
        except pa.ArrowException as error:
            raise ReplayError(f"runs.parquet: column {field.name}: {error}; expected {field.type}") from error
    if field.nullable or field.name == LABELS:
        return pa.nulls(table.num_rows, field.type)
    return pa.array([0 if pa.types.is_timestamp(field.type) else ""] * table.num_rows, field.type)
