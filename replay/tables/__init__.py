"""The tables of a run as users see them: their columns, their Arrow and pandas forms, their files.

In go the columns of the layers below, out come typed tables, parquet and CSV files and the data dictionary;
how a value was found it does not know. Importing this package loads neither pyarrow nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from replay.tables.schema import CHARTED, MOST_SUMMED, SCHEMA_VERSION, TABLES, TIMELINE_ROWS, Column, Table, table_of

if TYPE_CHECKING:
    from replay.tables.arrow import (
        Words,
        arrow_column,
        arrow_field,
        arrow_schema,
        in_order,
        metadata_of,
        to_arrow,
        to_pandas,
        without_rows,
    )
    from replay.tables.dictionary import (
        DICTIONARY_BEGIN,
        DICTIONARY_END,
        data_dictionary_markdown,
        schema_text,
    )
    from replay.tables.files import FORMATS, export_tables, file_names, write_csv, write_parquet, write_tables
    from replay.tables.streams import CsvStream, ParquetStream, no_formula
    from replay.tables.whole_files import OutputError, refuse_existing, system_errors, whole_directory, whole_file

__all__ = [
    "CHARTED",
    "DICTIONARY_BEGIN",
    "DICTIONARY_END",
    "FORMATS",
    "MOST_SUMMED",
    "SCHEMA_VERSION",
    "TABLES",
    "TIMELINE_ROWS",
    "Column",
    "CsvStream",
    "OutputError",
    "ParquetStream",
    "Table",
    "Words",
    "arrow_column",
    "arrow_field",
    "arrow_schema",
    "data_dictionary_markdown",
    "export_tables",
    "file_names",
    "in_order",
    "metadata_of",
    "no_formula",
    "refuse_existing",
    "schema_text",
    "system_errors",
    "table_of",
    "to_arrow",
    "to_pandas",
    "whole_directory",
    "whole_file",
    "without_rows",
    "write_csv",
    "write_parquet",
    "write_tables",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what makes and writes tables when it is first asked for: a report makes none."""
        for module in ("arrow", "dictionary", "files", "streams", "whole_files") if name in __all__ else ():
            found = getattr(import_module(f"replay.tables.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
        raise AttributeError(f"module 'replay.tables' has no attribute {name!r}")
