"""How tables of a schema are encoded in parquet: the same for each file, so it is made up once.

In goes a schema, out come writers. What is written, and where to, is not known here.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from replay.tables.arrow import arrow_schema, order_of
from replay.tables.schema import TABLES

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_RISING_UNITS: Final = ("step", "line", "time", "ns")
"""Units whose columns mostly rise by little from row to row: stored as differences they need little room."""

_MEASURES: Final = ("bytes", "count")
"""Units of what differs little from row to row where each row is a moment, and repeats elsewhere."""

_TABLES_OF_MOMENTS: Final = ("fragmentation", "timeline")

_SCATTERED_UNITS: Final = ("address", "ratio")
"""Units whose values seldom come twice: beside a dictionary, plain and compressed they need half the room. Measured."""

_OF_ENDS: Final = "died_"
"""How columns begin that tell of an end: rows stand by their beginnings, so these neither rise nor repeat."""

_OF_EACH_RUN: Final = "elapsed_ns"
"""What begins anew with each run: the one large step back between runs makes all differences around it wide."""

_LEVEL_OF_RUN: Final = 1
_LEVEL_OF_MANY: Final = 15
"""How hard zstd tries. The files of a run are written as fast as its log is read, those of many runs once and kept."""

_FEW_ROWS: Final = 256
"""Below so many rows snappy takes a millisecond a file less than zstd, and a few hundred bytes more. Measured."""


class ParquetForm:
    """How tables of a schema are encoded: sorted, compressed by zstd, with what lets readers skip pages.

    A table of few rows is compressed by snappy: zstd takes its time to begin, for each column anew.
    """

    def __init__(self, schema: pa.Schema, level: int = _LEVEL_OF_MANY) -> None:
        """Find out what is known of the columns."""
        import pyarrow.parquet as pq

        rising, repeating = _rising_and_repeating(schema)
        order = [(name, "ascending") for name in order_of(schema)]
        self.schema = schema
        self._level = level
        self._options: dict[str, Any] = {
            "use_dictionary": repeating,
            "column_encoding": dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
            "sorting_columns": pq.SortingColumn.from_ordering(schema, order) if order else None,
            "write_page_index": True,
        }

    def writer(self, sink: pa.NativeFile, rows: int) -> pq.ParquetWriter:
        """Return a writer of tables, of which the first has so many rows."""
        import pyarrow.parquet as pq

        name, level = ("snappy", None) if rows < _FEW_ROWS else ("zstd", self._level)
        return pq.ParquetWriter(sink, self.schema, compression=name, compression_level=level, **self._options)

    @cached_property
    def without_rows(self) -> bytes:
        """The file of a table without rows."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        self.writer(sink, 0).close()
        return bytes(sink.getvalue())


def _rising_and_repeating(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Return the columns to be stored as differences, and those by a dictionary; the others are plain.

    BYTE_STREAM_SPLIT needs about a twentieth less room for numbers, but Spark 4.0 reads none in it.
    """
    table = (schema.metadata or {}).get(b"replay.table", b"").decode()
    rising_units = (*_RISING_UNITS, *_MEASURES) if table in _TABLES_OF_MOMENTS else _RISING_UNITS
    rising: list[str] = []
    repeating: list[str] = []
    for field in schema:
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        anew = field.name == _OF_EACH_RUN and "run" in schema.names
        if unit in _SCATTERED_UNITS or field.name.startswith(_OF_ENDS) or anew:
            continue
        (rising if unit in rising_units else repeating).append(field.name)
    return rising, repeating


def form_of(schema: pa.Schema) -> ParquetForm:
    """Return how tables of a schema are encoded."""
    name = (schema.metadata or {}).get(b"replay.table", b"").decode()
    known = _form_of_table(name) if name in TABLES else None
    return known if known and known.schema.equals(schema, check_metadata=True) else ParquetForm(schema)


@cache
def _form_of_table(name: str) -> ParquetForm:
    return ParquetForm(arrow_schema(name), _LEVEL_OF_RUN)
