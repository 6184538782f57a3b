"""Files that grow by tables, whole or not at all: parquet and CSV.

In go Arrow tables of one schema, out comes a file of the same bytes for the same rows.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self

from replay.tables.parquet_form import form_of
from replay.tables.whole_files import PathLike, whole_file

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUP_ROWS: Final = 128 * 1024
"""Rows of a parquet row group: few enough to be skipped by their statistics, many enough to compress well."""

_BUFFER_BYTES: Final = 256 << 10
"""So much of a parquet file is written at once."""

_CSV_BATCH_ROWS: Final = 16 * 1024


class Stream(ABC):
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

    def in_place(self) -> AbstractContextManager[None]:
        """Let the file grow where it is to be, in a directory that nobody else looks into yet."""
        return self._writing(Path(self._path))

    @contextmanager
    def _opened(self) -> Iterator[Self]:
        with whole_file(self._path, force=self._force) as temporary, self._writing(temporary):
            yield self

    @abstractmethod
    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of the stream's schema."""

    @abstractmethod
    def _writing(self, file: Path) -> AbstractContextManager[None]:
        """Keep a file open; write what is still held back and close it."""


class ParquetStream(Stream):
    """A parquet file that grows by tables, in row groups of `ROW_GROUP_ROWS` however they come."""

    _held: list[pa.Table]
    """Rows that do not fill a row group yet, as they came: joined once, for thousands of runs may fill one."""
    _held_rows: int
    _open: ExitStack
    _sink: pa.NativeFile | None
    """What is written to, from the first rows on."""
    _writer: pq.ParquetWriter

    @property
    def size(self) -> int:
        """Return how many bytes are in the file so far."""
        return 0 if self._sink is None else int(self._sink.tell())

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of the stream's schema, in the order in which they are."""
        self._held.append(table)
        self._held_rows += table.num_rows
        if self._held_rows >= ROW_GROUP_ROWS:
            self._write_held(self._held_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS)

    @contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        self._held, self._held_rows, self._sink = [], 0, None
        self._file = file
        with ExitStack() as self._open:
            yield
            if self._held_rows:
                self._write_held(self._held_rows)
            elif self._sink is None:
                file.write_bytes(form_of(self._schema).without_rows)

    def _write_held(self, rows: int) -> None:
        """Write so many of the rows that are held back."""
        import pyarrow as pa

        if self._sink is None:
            self._sink = self._open.enter_context(pa.output_stream(str(self._file), buffer_size=_BUFFER_BYTES))
            self._writer = self._open.enter_context(form_of(self._schema).writer(self._sink, rows))
        held = self._held[0] if len(self._held) == 1 else pa.concat_tables(self._held)
        self._writer.write_table(held.slice(0, rows).unify_dictionaries(), row_group_size=ROW_GROUP_ROWS)
        self._held, self._held_rows = [held.slice(rows)], held.num_rows - rows


class CsvStream(Stream):
    """A CSV file that grows by tables: plain integers, nulls empty, strings in double quotes."""

    safe: ClassVar[bool] = False
    """Whether texts that a spreadsheet takes for formulas get a sign that keeps it from that."""

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table of the stream's schema, in the order in which they are."""
        plain = table.cast(self._plain)
        self._writer.write_table(_without_formulas(plain) if self.safe else plain)

    @contextmanager
    def _writing(self, file: Path) -> Iterator[None]:
        import pyarrow as pa
        import pyarrow.csv

        self._plain = pa.schema([field.with_type(_without_dictionary(field.type)) for field in self._schema])
        options = pa.csv.WriteOptions(include_header=False, batch_size=_CSV_BATCH_ROWS)
        with file.open("wb") as sink:
            sink.write((",".join(self._schema.names) + "\n").encode())
            with pa.csv.CSVWriter(sink, self._plain, write_options=options) as self._writer:
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


def _without_dictionary(type_: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_
