"""An answer to a question, printed: as a table for people, as CSV, or as JSON.

In go the names of columns and rows of plain values, out goes text. Where the rows come from this module does not know.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TextIO

from replay.console.amounts import address, size
from replay.console.screen import cells, clean, print_lines, shortened, styled, wrapped
from replay.console.table import fitted_widths, room_for, table
from replay.console.terminal import width as screen_width
from replay.datasets.questions import QUESTIONS, QueryResult
from replay.report.as_json import write_json_rows
from replay.tables import no_formula
from replay.tables.schema import TABLES

MOST_ROWS: Final = 1000
"""As many rows a table shows: CSV and JSON have all."""


_UNITS: Final = {
    column.name: column.unit for facts in TABLES.values() for column in facts.columns if "int" in column.type
}
_WORDS: Final[Mapping[str, Callable[[int], str]]] = {
    "bytes": size,
    "address": address,
    "count": lambda count: f"{count:,}",
}
"""How whole numbers are written, by the unit of their column; others as they are."""


def print_table(answer: QueryResult, stream: TextIO) -> int:
    """Print an answer no wider than the screen; return the number of rows."""
    rows = list(islice(answer.rows, MOST_ROWS + 1))
    if rows:
        print_lines(table_lines(answer.columns, rows[:MOST_ROWS]), stream)
    if len(rows) > MOST_ROWS:
        print_lines([styled("dim", f"and more: these are the first {MOST_ROWS:,}; --as csv or json has all")], stream)
    return len(rows)


def print_csv(answer: QueryResult, stream: TextIO, *, safe: bool = False) -> int:
    """Print an answer as CSV: a head, then the rows, nulls empty; return the number of rows.

    On a terminal texts are free of what it would obey. With `safe` they are no formulas of a spreadsheet either.
    """
    writer = csv.writer(stream, lineterminator="\n")
    shown = clean if stream.isatty() else str
    writer.writerow(map(shown, answer.columns))
    count = 0
    for row in answer.rows:
        texts = ("" if value is None else shown(value) if isinstance(value, str) else value for value in row)
        writer.writerow([no_formula(text) if safe and isinstance(text, str) else text for text in texts])
        count += 1
    return count


def print_json(answer: QueryResult, stream: TextIO) -> int:
    """Print an answer as a JSON array with an object for each row; return the number of rows."""
    names = answer.columns
    return write_json_rows((dict(zip(names, map(_json_value, row), strict=True)) for row in answer.rows), stream)


FORMATS: Final[Mapping[str, Callable[[QueryResult, TextIO], int]]] = {
    "table": print_table,
    "csv": print_csv,
    "json": print_json,
}
"""How an answer is printed, by the name of the format."""


def question_lines() -> Iterator[str]:
    """Yield the questions that have names, and what they ask."""
    width = max(len(question.name) for question in QUESTIONS)
    for question in QUESTIONS:
        yield from wrapped(question.meaning, first=f"{question.name:<{width}}  ")


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return rows as a table, or, where its numbers alone are wider than the screen, one below the other.

    What is too wide gives way in this order: headings break at their underscores, texts wrap into what the numbers
    leave of the width, and those of more than three lines are cut.
    """
    names = [clean(name) for name in columns]
    texts = [[_cell(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
    numeric = {at for at in range(len(columns)) if all(_is_number(row[at]) or row[at] is None for row in rows)}
    give = set(range(len(columns))) - numeric
    if fitted_widths(names, texts, give, room_for(len(columns))) is None:
        return [line for at, row in enumerate(texts) for line in _record(names, row, at)]
    return table(names, texts, right=numeric, give=give, indent="")


def _record(columns: Sequence[str], row: Sequence[str], at: int) -> Iterator[str]:
    """Yield one row as lines of name and value."""
    width = min(max(map(cells, columns)), screen_width() // 2)
    yield styled("dim", f"row {at + 1:,}")
    for name, text in zip(columns, row, strict=True):
        yield from wrapped(text, first=f"  {shortened(clean(name), width):<{width}}  ")


def _cell(name: str, value: Any) -> str:
    """Return a value in a few words, as the unit of the column of that name asks for."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        unit = _UNITS.get(name, "bytes" if name.endswith("bytes") else "")
        return _WORDS.get(unit, str)(value)
    return clean(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _json_value(value: Any) -> Any:
    """Return a value that JSON can hold: what is no finite number is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _json_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(entry) for entry in value]
    return value
