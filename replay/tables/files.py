"""Tables as files: one table, or a directory of them.

In go Arrow tables, out come files of the same bytes for the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.errors import QueryError
from replay.tables.arrow import in_order
from replay.tables.streams import CsvStream, ParquetStream, SafeCsvStream, Stream
from replay.tables.whole_files import PathLike, whole_directory

if TYPE_CHECKING:
    import pyarrow as pa


def write_parquet(table: pa.Table, path: PathLike, *, force: bool = False) -> None:
    """Write a table as one parquet file, rows in the order of its schema.

    Raises:
        OutputExistsError: `path` is there and `force` is not given.
        OutputError: the system refused to write.
    """
    with ParquetStream(table.schema, path, force=force) as stream:
        stream.write(in_order(table))


def write_csv(table: pa.Table, path: PathLike, *, force: bool = False) -> None:
    """Write a table as one CSV file, rows in the order of its schema.

    Raises:
        OutputExistsError: `path` is there and `force` is not given.
        OutputError: the system refused to write.
    """
    with CsvStream(table.schema, path, force=force) as stream:
        stream.write(in_order(table))


FORMATS: Final[Mapping[str, type[Stream]]] = {"parquet": ParquetStream, "csv": CsvStream, "safe-csv": SafeCsvStream}
"""How a table is written, by the name of the format, whose last word is also the end of its files' names."""


def export_tables(
    tables: Mapping[str, Iterable[pa.Table]], directory: PathLike, format: str = "parquet", *, force: bool = False
) -> None:
    """Write each table, which comes in parts, to `directory/NAME.parquet` or `.csv`, all of them or none.

    Raises:
        QueryError: there is no such format.
        OutputExistsError: one of the files is there and `force` is not given.
        OutputError: the system refused to write.
    """
    if format not in FORMATS:
        raise QueryError(f"no format {format!r}; the formats are {', '.join(FORMATS)}")
    with whole_directory(directory, file_names(tables, format), force=force) as temporary:
        write_tables(tables, temporary, format)


def file_names(tables: Iterable[str], format: str) -> list[str]:
    """Return the names of the files of tables in a directory."""
    return [f"{name}{_ending(format)}" for name in tables]


def write_tables(tables: Mapping[str, Iterable[pa.Table]], directory: Path, format: str = "parquet") -> None:
    """Write each table, which comes in parts, into a directory that nobody else looks into yet."""
    for name, parts in tables.items():
        rest = iter(parts)
        first = next(rest)
        stream = FORMATS[format](first.schema, directory / f"{name}{_ending(format)}")
        with stream.in_place():
            stream.write(first)
            for part in rest:
                stream.write(part)


def _ending(format: str) -> str:
    return f".{format.rpartition('-')[2]}"
