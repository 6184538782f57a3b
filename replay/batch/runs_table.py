"""The table `runs`: one row a run of a dataset, with where it came from and its whole summary.

In go facts of runs, out come the Arrow table and its schema. Where rows are kept is not known here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from replay.tables import TABLES, Column, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

OK: Final = "ok"
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
)
"""What stands before the columns of `summary` in a row of `runs`; `source` is said once."""


def summary_columns() -> tuple[str, ...]:
    """Return the names of the columns of `summary` that `runs` has too, all of them nullable there."""
    own = {column.name for column in RUN_COLUMNS}
    return tuple(column.name for column in TABLES["summary"].columns if column.name not in own)


@cache
def runs_schema() -> pa.Schema:
    """Return the Arrow schema of `runs`, each field with `unit` and `meaning`."""
    import pyarrow as pa

    own = [
        pa.field(
            column.name,
            getattr(pa, column.type)(),
            nullable=column.nullable,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in RUN_COLUMNS
    ]
    summary = arrow_schema("summary")
    facts = {b"replay.schema_version": summary.metadata[b"replay.schema_version"]}
    facts |= {b"replay.table": b"runs", b"replay.meaning": MEANING.encode()}
    return pa.schema([*own, *(summary.field(name).with_nullable(True) for name in summary_columns())], metadata=facts)


def runs_table(rows: list[dict[str, Any]], kept: pa.Table | None = None) -> pa.Table:
    """Return the table `runs` of new rows and of those kept from before, sorted by name.

    Columns that a row does not have are null: an error has no summary, an older version has fewer columns.
    """
    import pyarrow as pa

    schema = runs_schema()
    parts = [pa.Table.from_pylist(rows, schema=schema)]
    if kept is not None and kept.num_rows:
        columns = [
            kept.column(field.name).cast(field.type)
            if field.name in kept.schema.names
            else pa.nulls(kept.num_rows, field.type)
            for field in schema
        ]
        parts.append(pa.Table.from_arrays(columns, schema=schema))
    return pa.concat_tables(parts).sort_by("run")
