"""Columns of the layers below as Arrow tables, and those as pandas DataFrames.

In go int64 columns with `columns.NULL`, texts by id and plain lists; out come tables of the schema. What the
values mean is for `schema`, where they are stored for `write`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NULL, Strings, to_signed
from replay.engine.sorting import is_ascending
from replay.tables.schema import SCHEMA_VERSION, TABLES, Column, Table, table_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_NULL: Final = np.int64(NULL)
"""NumPy compares with its own numbers in half the time."""

_STRING_CHUNK_ROWS = 1 << 20

_TEXT_TYPES = ("dictionary", "string")

_UNDECODED = {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)} | {
    0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)
}
"""How a byte of the log that is not utf-8 is written in a table: Arrow's strings cannot hold surrogates."""


class Words(NamedTuple):
    """A text column by its own vocabulary: `texts[ids[row]]` in each row, null where the id is negative.

    Texts may repeat: `exit` can stand for the codes of both `exit` and `exit_group`.
    """

    ids: NDArray[np.integer[Any]]
    texts: Sequence[str]


Values: TypeAlias = NDArray[Any] | Words | Sequence[Any]
"""A column that goes in: int64 or float64 array, array of text ids, `Words`, or list of values and None."""


@cache
def arrow_schema(table: str) -> pa.Schema:
    """Return the Arrow schema of a table, each field with `unit` and `meaning`.

    The schema's own metadata are `replay.schema_version`, `replay.table` and `replay.meaning`, the units once more as
    `unit.COLUMN` for readers that see no metadata of fields, and `pandas`: what pandas needs to give integers with
    nulls back as such, and not as floats.

    Raises:
        QueryError: there is no such table.
    """
    import pyarrow as pa

    facts = table_of(table)
    return pa.schema([arrow_field(column) for column in facts.columns], metadata=metadata_of(facts))


def arrow_field(column: Column) -> pa.Field:
    """Return a column as a field of a schema, with `unit` and `meaning`."""
    import pyarrow as pa

    facts = {"unit": column.unit, "meaning": column.meaning}
    return pa.field(column.name, _arrow_type(column.type), nullable=column.nullable, metadata=facts)


def metadata_of(facts: Table) -> dict[str, str]:
    """Return the metadata of the schema of a table."""
    own = {"schema_version": SCHEMA_VERSION, "table": facts.name, "meaning": facts.meaning}
    units = {f"unit.{column.name}": column.unit for column in facts.columns}
    return {f"replay.{key}": value for key, value in own.items()} | units | {"pandas": _for_pandas(facts)}


def _for_pandas(facts: Table) -> str:
    """Return which columns are integers with nulls, as pyarrow's `to_pandas` reads it.

    Source: pandas, "Storing pandas DataFrame objects in Apache Parquet format".
    """
    columns = [
        {
            "name": column.name,
            "field_name": column.name,
            "pandas_type": column.type,
            "numpy_type": column.type.replace("i", "I", 1).replace("uI", "UI"),
            "metadata": None,
        }
        for column in facts.columns
        if column.nullable and "int" in column.type
    ]
    return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "2.2"})


def to_arrow(table: str, columns: Mapping[str, Values], strings: Strings | None = None) -> pa.Table:
    """Return the Arrow table of `columns`, in the order of the schema.

    Numbers come as int64 arrays with `columns.NULL` (addresses as the bits of uint64), ratios as float64
    arrays with NaN, texts as ids of `strings` with -1, or as `Words`; each may also be a list of values and
    None. A nullable column that is missing becomes null. An int32 column keeps the low 32 bits, as C's int
    does. The table may share the memory of the arrays, so they must not change any more.

    Raises:
        QueryError: there is no such table.
        ValueError: `columns` do not fit the schema, which is the caller's mistake and not a user's.
    """
    import pyarrow as pa

    facts = table_of(table)
    unknown = columns.keys() - {column.name for column in facts.columns}
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(sorted(unknown))}")
    rows = _row_count(table, columns)
    if not rows:
        return without_rows(arrow_schema(table))
    arrays = [_arrow_array(table, column, columns, strings, rows) for column in facts.columns]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(table))


def without_rows(schema: pa.Schema) -> pa.Table:
    """Return a table without rows; the schema's own `empty_table` imports pandas."""
    import pyarrow as pa

    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def arrow_column(column: Column, values: Sequence[Any]) -> pa.Array:
    """Return one column of any table, made of values and None; `pyarrow.array` imports pandas.

    Raises:
        ValueError: a value is None that may not be.
    """
    return _arrow_array("the table", column, {column.name: values}, None, len(values))


def in_order(table: pa.Table) -> pa.Table:
    """Return the table with its rows in the order that its schema names; equal keys keep their places."""
    order = order_of(table.schema)
    if not order or table.num_rows < 2:
        return table
    keys = [table.column(name).to_numpy() for name in order]
    if is_ascending(keys):
        return table
    return table.take(np.lexsort(keys[::-1]))


def order_of(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns by which rows of a schema are sorted, none for a schema that is none of `TABLES`.

    With a column `run` before the others the rows of each run are together.
    """
    facts = TABLES.get((schema.metadata or {}).get(b"replay.table", b"").decode())
    if facts is None:
        return ()
    return ("run", *facts.order) if "run" in schema.names else facts.order


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return the DataFrame of a table.

    A nullable integer column becomes `Int64`, `UInt64` or `Int32`, a dictionary `category`, a ratio float64
    with NaN; an integer column that is never null keeps its plain dtype.
    """
    import pandas as pd

    series = {field.name: _pandas_column(table.column(field.name), field) for field in table.schema}
    return pd.DataFrame(series, index=pd.RangeIndex(table.num_rows), copy=False)


@cache
def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name == "dictionary":
        return pa.dictionary(pa.int32(), pa.string())
    kind, _, unit = name.partition("_")
    return pa.timestamp(unit, "UTC") if kind == "timestamp" else getattr(pa, name)()


def _row_count(table: str, columns: Mapping[str, Values]) -> int:
    counts = {len(values.ids if isinstance(values, Words) else values) for values in columns.values()}
    if len(counts) > 1:
        raise ValueError(f"the columns of {table} have different lengths: {sorted(counts)}")
    return counts.pop() if counts else 0


def _arrow_array(
    table: str, column: Column, columns: Mapping[str, Values], strings: Strings | None, rows: int
) -> pa.Array:
    """Return one column of the table; `rows` is its length where `columns` has no such column."""
    import pyarrow as pa

    if column.name not in columns:
        array = pa.nulls(rows, _arrow_type(column.type))
    elif column.type in _TEXT_TYPES:
        array = _text_array(column, columns[column.name], strings)
    elif column.type == "float64":
        array = _ratio_array(columns[column.name])
    else:
        array = _integer_array(column, columns[column.name])
    if array.null_count and not column.nullable:
        raise ValueError(f"{table}.{column.name} is never null, but {array.null_count} of its values are")
    return array


def _integer_array(column: Column, values: Values) -> pa.Array:
    """Return an integer column.

    A uint64 column that is never null takes the bits of `NULL` as the number 2^63 that they write: a log may
    hold any number.
    """
    import pyarrow as pa

    if not isinstance(values, np.ndarray):
        if isinstance(values, Words):
            raise ValueError(f"{column.name} holds numbers, but texts were given")
        numbers_given: Sequence[Any] = values
        signed = [NULL if value is None else to_signed(int(value)) for value in numbers_given]
        values = np.array(signed, dtype=np.int64)
    never_null = column.type == "uint64" and not column.nullable
    if not never_null and not values.strides[0] and values[0] == NULL:  # nothing all over
        return pa.nulls(len(values), _arrow_type(column.type))
    numbers = np.ascontiguousarray(values, dtype=np.int64)
    if never_null:
        return _array(pa.uint64(), numbers)
    typed = numbers.astype(np.int32) if column.type == "int32" else numbers
    return _array(_arrow_type(column.type), typed, numbers == _NULL)


def _ratio_array(values: Values) -> pa.Array:
    import pyarrow as pa

    if not isinstance(values, np.ndarray):
        values = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    ratios = np.ascontiguousarray(values, dtype=np.float64)
    return _array(pa.float64(), ratios, np.isnan(ratios))


def _text_array(column: Column, values: Values, strings: Strings | None) -> pa.Array:
    """Return a text column from ids or from a list of texts and None."""
    if isinstance(values, np.ndarray):
        if strings is None:
            raise ValueError(f"{column.name} holds ids of texts, but no strings were given")
        values = Words(values, strings.texts)
    elif not isinstance(values, Words):
        if column.type == "string":
            return _array_of_texts(values)
        vocabulary = Strings()
        ids = [-1 if text is None else vocabulary.intern(str(text)) for text in values]
        values = Words(np.array(ids, dtype=np.int64), vocabulary.texts)
    return _dictionary_array(values) if column.type == "dictionary" else _string_array(values)


def _array_of_texts(texts: Sequence[Any]) -> pa.ChunkedArray:
    """Return texts and None as they come, in chunks as `_string_array` does."""
    import pyarrow as pa

    starts = range(0, len(texts), _STRING_CHUNK_ROWS)
    return pa.chunked_array([_some_texts(texts[start : start + _STRING_CHUNK_ROWS]) for start in starts], pa.string())


def _some_texts(texts: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    null = np.array([text is None for text in texts], np.bool_)
    plain = _vocabulary_array("" if text is None else _printable(str(text)) for text in texts)
    valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
    return pa.StringArray.from_buffers(len(texts), *plain.buffers()[1:], valid)


def _string_array(words: Words) -> pa.ChunkedArray:
    """Return the texts themselves, in chunks that the 32-bit offsets of Arrow's strings can hold."""
    import pyarrow as pa

    starts = range(0, len(words.ids), _STRING_CHUNK_ROWS)
    pieces = (words._replace(ids=words.ids[start : start + _STRING_CHUNK_ROWS]) for start in starts)
    return pa.chunked_array([_dictionary_array(piece).dictionary_decode() for piece in pieces], pa.string())


def _dictionary_array(words: Words) -> pa.Array:
    """Return the dictionary of the texts that are used, each once, in the order of their first ids."""
    import pyarrow as pa

    if not words.ids.strides[0] and words.ids[0] < 0:  # nothing all over
        return pa.nulls(len(words.ids), _arrow_type("dictionary"))
    ids = np.maximum(words.ids, -1)
    null = ids < 0
    if ids.max(initial=-1) >= len(words.texts):
        raise ValueError(f"id {ids.max()} has no text: there are {len(words.texts)}")
    used = np.zeros(len(words.texts) + 1, dtype=np.bool_)  # one place more, where the id -1 falls
    used[ids] = True
    dictionary: dict[str, int] = {}
    places = np.zeros(len(used), dtype=np.int32)
    for text_id in np.flatnonzero(used[:-1]).tolist():
        text = _printable(words.texts[text_id])
        places[text_id] = dictionary.setdefault(text, len(dictionary))
    indices = _array(pa.int32(), places[ids], null)
    few = len(dictionary) <= _FEW_TEXTS
    return pa.DictionaryArray.from_arrays(indices, (_kept_vocabulary if few else _vocabulary_array)(tuple(dictionary)))


_FEW_TEXTS: Final = 8
"""Vocabularies of so many texts are most often the same in many tables, such as those of kinds and names of calls."""


@lru_cache(512)
def _kept_vocabulary(texts: tuple[str, ...]) -> pa.Array:
    return _vocabulary_array(texts)


def _vocabulary_array(texts: Iterable[str]) -> pa.Array:
    """Return the texts as an Arrow array, made from buffers like all others."""
    import pyarrow as pa

    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def _array(type_: pa.DataType, values: NDArray[Any], null: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return the Arrow array over the memory of `values`, null where `null` is true.

    Made from buffers, because `pyarrow.array` imports pandas to see whether it was given a Series.
    """
    import pyarrow as pa

    valid = None
    if null is not None and np.count_nonzero(null):
        valid = pa.py_buffer(np.packbits(~null, bitorder="little"))
    return pa.Array.from_buffers(type_, len(values), [valid, pa.py_buffer(values)])


def _printable(text: str) -> str:
    r"""Return the text with bytes that are not utf-8 written as `\xNN`."""
    return text if text.isascii() else text.translate(_UNDECODED)


def _pandas_column(column: pa.ChunkedArray, field: pa.Field) -> Any:
    """Return one column as what pandas users expect of its type, in memory of its own."""
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_dictionary(field.type) or pa.types.is_string(field.type) or pa.types.is_timestamp(field.type):
        return column.to_pandas()
    if pa.types.is_floating(field.type) or not field.nullable:
        return column.to_numpy().copy()
    values = column.fill_null(0).to_numpy().astype(field.type.to_pandas_dtype(), copy=True)
    missing = column.is_null().to_numpy().astype(np.bool_, copy=True)
    return pd.arrays.IntegerArray(values, missing)
