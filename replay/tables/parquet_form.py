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

_RISING_UNITS: Final = (b"step", b"line")
"""Units whose columns mostly rise by little from row to row: stored as differences they need little room."""

_SCATTERED_UNITS: Final = (b"ns", b"time", b"address", b"bytes", b"ratio")
"""Units whose values seldom come twice: beside a dictionary, plain and compressed they need half the room. Measured."""


class ParquetForm:
    """How tables of a schema are encoded: sorted, compressed by zstd, with what lets readers skip pages."""

    def __init__(self, schema: pa.Schema) -> None:
        """Find out what is known of the columns."""
        import pyarrow.parquet as pq

        unit = {field.name: (field.metadata or {}).get(b"unit") for field in schema}
        rising = [name for name in unit if unit[name] in _RISING_UNITS]
        order = [(name, "ascending") for name in order_of(schema)]
        self.schema = schema
        self._options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": [name for name in unit if unit[name] not in _RISING_UNITS + _SCATTERED_UNITS],
            "column_encoding": dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
            "sorting_columns": pq.SortingColumn.from_ordering(schema, order) if order else None,
            "write_page_index": True,
        }

    def writer(self, sink: pa.NativeFile) -> pq.ParquetWriter:
        """Return a writer of tables."""
        import pyarrow.parquet as pq

        return pq.ParquetWriter(sink, self.schema, **self._options)

    @cached_property
    def without_rows(self) -> bytes:
        """The file of a table without rows."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        self.writer(sink).close()
        return bytes(sink.getvalue())


def form_of(schema: pa.Schema) -> ParquetForm:
    """Return how tables of a schema are encoded."""
    name = (schema.metadata or {}).get(b"replay.table", b"").decode()
    known = _form_of_table(name) if name in TABLES else None
    return known if known and known.schema.equals(schema, check_metadata=True) else ParquetForm(schema)


@cache
def _form_of_table(name: str) -> ParquetForm:
    return ParquetForm(arrow_schema(name))
