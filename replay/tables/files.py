"""Tables as files, whole or not at all: parquet and CSV, one table, a growing one, or a directory of them.

In go Arrow tables, out come files of the same bytes for the same rows. What stands at the output before is
replaced only where that was asked for, and only by a file that is complete.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self, TypeAlias

from replay.console.screen import clean
from replay.errors import OutputExistsError, QueryError, ReplayError
from replay.tables.arrow import in_order, order_of
from replay.tables.temporary import temporary_in

if TYPE_CHECKING:
    import pyarrow as pa

PathLike: TypeAlias = str | os.PathLike[str]

STDOUT: Final = "-"

ROW_GROUP_ROWS: Final = 128 * 1024
"""Rows of a parquet row group: few enough to be skipped by their statistics, many enough to compress well."""

_RISING_UNITS: Final = (b"step", b"line")
"""Units whose columns mostly rise by little from row to row: stored as differences they need little room."""

_SCATTERED_UNITS: Final = (b"ns", b"time", b"address", b"bytes", b"ratio")
"""Units whose values seldom come twice: beside a dictionary, plain and compressed they need half the room. Measured."""

_CSV_BATCH_ROWS: Final = 16 * 1024


class OutputError(ReplayError):
    """The output cannot be written: disk full, read-only directory, no such directory."""

    def __init__(self, path: PathLike, reason: str) -> None:
        """Say that `path` cannot be written, and why."""
        super().__init__(f"{os.fspath(path)}: cannot be written: {reason}")
        self.reason = reason


@contextmanager
def whole_file(path: PathLike, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary path whose file becomes `path` if the body ends well, and vanishes if it does not.

    The path `-` is standard output: what was written goes there.

    Raises:
        OutputExistsError: `path` is there and `force` is not given.
        OutputError: the system refused to write.
    """
    if path == STDOUT:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "output")
            _write_out(Path(folder, "output"))
        return
    with _system_errors(path):
        target = Path(os.path.realpath(path))
        _check_file(target, force=force)
        temporary = temporary_in(target.parent)
        try:
            yield temporary
            _check_file(target, force=force)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _write_out(file: Path) -> None:
    """Copy a file to standard output; a terminal gets no characters that it would obey."""
    if sys.stdout.isatty():
        with file.open(encoding="utf-8", errors="surrogateescape", newline="\n") as text:
            sys.stdout.writelines(clean(line.rstrip("\n")) + "\n" for line in text)
        return
    sys.stdout.flush()
    with file.open("rb") as data:
        shutil.copyfileobj(data, sys.stdout.buffer)


@contextmanager
def whole_directory(directory: PathLike, files: Iterable[str], *, force: bool = False) -> Iterator[Path]:
    """Give a temporary directory for `files`, which come to stand in `directory` if the body ends well.

    They appear all at once: the directory takes the place of the one that is there, whose other files it has then.
    Only where that is not possible (one holds other directories, or is the working directory) are the complete files
    moved one by one.

    Raises:
        OutputExistsError: one of `files` is in `directory` and `force` is not given.
        OutputError: the system refused to write.
    """
    names = tuple(files)
    with _system_errors(directory):
        target = Path(os.path.realpath(directory))
        _check_directory(target, names, force=force)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_in(target if target.exists() and not _is_replaceable(target) else target.parent)
        temporary.mkdir()
        try:
            yield temporary
            _check_directory(target, names, force=force)
            _move_directory(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


class _Stream(ABC):
    """A file that grows by tables; it appears when the `with` block ends well, and only then."""

    def __init__(self, schema: pa.Schema, path: PathLike, *, force: bool = False) -> None:
        """Describe the file; entering the `with` block opens it."""
        self._schema = schema
        self._path = path
        self._force = force
        self._block: AbstractContextManager[Self]

    def __enter__(self) -> Self:
        """Open a temporary file beside the path.

        Raises:
            OutputExistsError: the path is there and `force` is not given.
            OutputError: the system refused to write.
        """
        self._block = self._opened()
        return self._block.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Complete the file, or remove it if an exception ends the block.

        Raises:
            OutputError: the system refused to write.
        """
        return self._block.__exit__(kind, error, trace)

    @contextmanager
    def _opened(self) -> Iterator[Self]:
        with whole_file(self._path, force=self._force) as temporary, self._writing(temporary):
            yield self

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of the stream's schema."""

    @abstractmethod
    def _writing(self, temporary: Path) -> AbstractContextManager[None]:
        """Keep a writer open; write what is still held back and close it."""


class ParquetStream(_Stream):
    """A parquet file (zstd) that grows by tables, in row groups of `ROW_GROUP_ROWS` however they come."""

    _held: list[pa.Table]
    """Rows that do not fill a row group yet, as they came: joined once, for thousands of runs may fill one."""
    _held_rows: int
    _temporary: Path

    @property
    def size(self) -> int:
        """Return how many bytes are in the file so far."""
        return self._temporary.stat().st_size

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of the stream's schema, in the order in which they are."""
        self._held.append(table)
        self._held_rows += table.num_rows
        if self._held_rows >= ROW_GROUP_ROWS:
            self._write_held(self._held_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS)

    @contextmanager
    def _writing(self, temporary: Path) -> Iterator[None]:
        import pyarrow.parquet as pq

        self._held, self._held_rows = [], 0
        self._temporary = temporary
        rising = [field.name for field in self._schema if _has_unit(field, _RISING_UNITS)]
        scattered = {field.name for field in self._schema if _has_unit(field, _SCATTERED_UNITS)}
        order = [(name, "ascending") for name in order_of(self._schema)]
        with pq.ParquetWriter(
            temporary,
            self._schema,
            compression="zstd",
            use_dictionary=[name for name in self._schema.names if name not in {*rising, *scattered}],
            column_encoding=dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
            sorting_columns=pq.SortingColumn.from_ordering(self._schema, order) if order else None,
            write_page_index=True,
        ) as self._writer:
            yield
            if self._held_rows:
                self._write_held(self._held_rows)

    def _write_held(self, rows: int) -> None:
        """Write so many of the rows that are held back."""
        import pyarrow as pa

        held = pa.concat_tables(self._held)
        self._writer.write_table(held.slice(0, rows).unify_dictionaries(), row_group_size=ROW_GROUP_ROWS)
        self._held, self._held_rows = [held.slice(rows)], held.num_rows - rows


class CsvStream(_Stream):
    """A CSV file that grows by tables: plain integers, nulls empty, strings in double quotes."""

    safe: ClassVar[bool] = False
    """Whether texts that a spreadsheet takes for formulas get a sign that keeps it from that."""

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of the stream's schema, in the order in which they are."""
        plain = table.cast(self._plain)
        self._writer.write_table(_without_formulas(plain) if self.safe else plain)

    @contextmanager
    def _writing(self, temporary: Path) -> Iterator[None]:
        import pyarrow as pa
        import pyarrow.csv

        self._plain = pa.schema([field.with_type(_without_dictionary(field.type)) for field in self._schema])
        options = pa.csv.WriteOptions(include_header=False, batch_size=_CSV_BATCH_ROWS)
        with temporary.open("wb") as file:
            file.write((",".join(self._schema.names) + "\n").encode())
            with pa.csv.CSVWriter(file, self._plain, write_options=options) as self._writer:
                yield


class SafeCsvStream(CsvStream):
    """A CSV file for spreadsheets: no text in it is a formula."""

    safe = True


FORMULA_SIGNS: Final = "=+-@\t\r"
"""With which of these a text begins, a spreadsheet takes it for a formula. Source: OWASP, "CSV Injection"."""


def no_formula(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula: behind a `'` if it would."""
    return f"'{text}" if text[:1] in FORMULA_SIGNS and text else text


def _without_formulas(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            text = pc.replace_substring_regex(table.column(at), f"^([{re.escape(FORMULA_SIGNS)}])", r"'\1")
            table = table.set_column(at, field, text)
    return table


def write_parquet(table: pa.Table, path: PathLike, *, force: bool = False) -> None:
    """Write a table as one parquet file (zstd), rows in the order of its schema.

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


FORMATS: Final[Mapping[str, type[_Stream]]] = {"parquet": ParquetStream, "csv": CsvStream, "safe-csv": SafeCsvStream}
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
    files = {f"{name}.{format.rpartition('-')[2]}": iter(parts) for name, parts in tables.items()}
    with whole_directory(directory, files, force=force) as temporary:
        for file, parts in files.items():
            first = next(parts)
            with FORMATS[format](first.schema, temporary / file) as stream:
                stream.write(first)
                for part in parts:
                    stream.write(part)


@contextmanager
def _system_errors(path: PathLike) -> Iterator[None]:
    """Turn each refusal of the system into an `OutputError` that names `path`, not a temporary file."""
    try:
        yield
    except OutputError as error:
        raise OutputError(path, error.reason) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(path, reason) from error


def _check_file(target: Path, *, force: bool) -> None:
    if target.exists() and not target.is_file():
        raise OutputError(target, "it is a directory" if target.is_dir() else "it is not a regular file")
    if target.exists() and not force:
        raise OutputExistsError(f"{target} exists already; --force overwrites it")


def _check_directory(target: Path, names: Iterable[str], *, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(target, "it is not a directory")
    for name in names:
        _check_file(target / name, force=force)


def _move_directory(temporary: Path, target: Path) -> None:
    """Give the directory its name, in exchange for the one that has it, or move its files into that one."""
    if not target.exists() or (_is_replaceable(target) and not any(target.iterdir())):
        temporary.rename(target)
        return
    beside = _is_replaceable(target) and temporary.parent == target.parent
    if beside and _has_others_too(temporary, target) and _exchanged(temporary, target):
        return
    for file in sorted(temporary.iterdir()):
        os.replace(file, target / file.name)


def _has_others_too(temporary: Path, target: Path) -> bool:
    """Give a directory the other files of another, and tell whether the file system can: some know no links."""
    try:
        for file in target.iterdir():
            if not (temporary / file.name).exists():
                os.link(file, temporary / file.name, follow_symlinks=False)
        shutil.copymode(target, temporary)
    except OSError:
        return False
    return True


def _is_replaceable(target: Path) -> bool:
    """Tell whether another directory can take the place of one: it holds files alone, and we do not work in it."""
    where = Path.cwd()
    inside = target == where or target in where.parents or target.is_mount()
    return not inside and os.access(target.parent, os.W_OK) and not any(map(_is_folder, target.iterdir()))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
"""Source: renameat2(2), linux/fs.h."""


def _exchanged(one: Path, other: Path) -> bool:
    """Give two directories each other's name at once; return whether the system can."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return rename is not None and not rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)


def _has_unit(field: pa.Field, units: Collection[bytes]) -> bool:
    return (field.metadata or {}).get(b"unit") in units


def _without_dictionary(type_: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_
