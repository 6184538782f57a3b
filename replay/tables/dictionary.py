"""The data dictionary as text: Markdown for the README, plain lines for the screen.

In go the facts of `schema`, out come strings; of Arrow and of files it knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any, Final

from replay.tables.schema import TABLES, Column, Table, table_of

DICTIONARY_BEGIN: Final = "<!-- data dictionary: begin -->"
DICTIONARY_END: Final = "<!-- data dictionary: end -->"
"""The lines of the README between which `data_dictionary_markdown` stands."""

LEGEND: Final = "?: the column may be null. dictionary: a string that repeats, stored once."

SCREEN_COLUMNS: Final = 80


def data_dictionary_markdown() -> str:
    """Return the data dictionary in Markdown: a heading, a sentence and a table of columns for each table."""
    tables = (line for table in TABLES.values() for line in _markdown_lines(table))
    return "\n".join([f"`{LEGEND[0]}`{LEGEND[1:]}", "", *tables])


def schema_text(table: str | None = None) -> str:
    """Return the data dictionary of one table, or of all, in lines of at most 80 columns.

    Raises:
        QueryError: there is no such table.
    """
    tables = TABLES.values() if table is None else (table_of(table),)
    return "\n\n".join([*("\n".join(_screen_lines(facts)) for facts in tables), LEGEND]) + "\n"


def schema_values(table: Table) -> dict[str, Any]:
    """Return a table of the dictionary as values for JSON."""
    return {"table": table.name, "meaning": table.meaning, "columns": [column._asdict() for column in table.columns]}


def type_text(column: Column) -> str:
    """Return the column's type, with `?` where it is nullable."""
    return column.type + "?" * column.nullable


def _markdown_lines(table: Table) -> Iterator[str]:
    yield f"### {table.name}"
    yield ""
    yield _escaped(table.meaning)
    yield ""
    yield "| column | type | unit | meaning |"
    yield "|---|---|---|---|"
    for column in table.columns:
        yield f"| `{column.name}` | {type_text(column)} | {column.unit} | {_escaped(column.meaning)} |"
    yield ""


def _escaped(text: str) -> str:
    """Return the text for a cell of Markdown: no bar ends the cell, no bracket starts a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _screen_lines(table: Table) -> Iterator[str]:
    yield table.name
    yield from (f"  {line}" for line in wrap(table.meaning, SCREEN_COLUMNS - 2))
    yield ""
    rows = [(column.name, type_text(column), column.unit, column.meaning) for column in table.columns]
    widths = [max(len(row[cell]) for row in rows) for cell in range(3)]
    room = SCREEN_COLUMNS - 2 - sum(width + 2 for width in widths)
    for row in rows:
        meaning = wrap(row[3], room)
        facts = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
        yield f"  {facts}  {meaning[0]}"
        yield from (f"{'':{SCREEN_COLUMNS - room}}{line}" for line in meaning[1:])
