"""An answer to a question, printed: as a table for people, as CSV, or as JSON.

In go the names of columns and rows of plain values, out goes text. Where the rows come from this module does not know.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TextIO

from replay.console.amounts import address, size
from replay.console.screen import COLUMNS, cells, clean, padded, print_lines, shortened, styled, wrapped
from replay.datasets.questions import QUESTIONS, Answer
from replay.tables.schema import TABLES

MOST_ROWS: Final = 1000
"""As many rows a table shows: CSV and JSON have all."""

_NARROWEST: Final = 10

_UNITS: Final = {
    column.name: column.unit for facts in TABLES.values() for column in facts.columns if "int" in column.type
}
_WORDS: Final[Mapping[str, Callable[[int], str]]] = {
    "bytes": size,
    "address": address,
    "count": lambda count: f"{count:,}",
}
"""How whole numbers are written, by the unit of their column; others as they are."""


def print_table(answer: Answer, stream: TextIO) -> int:
    """Print an answer in at most 80 columns; return the number of rows."""
    rows = list(islice(answer.rows, MOST_ROWS + 1))
    if rows:
        print_lines(table_lines(answer.columns, rows[:MOST_ROWS]), stream)
    if len(rows) > MOST_ROWS:
        print_lines(
            [styled("dim", f"and more: these are the first {MOST_ROWS:,}; --format csv or json has all")], stream
        )
    return len(rows)


def print_csv(answer: Answer, stream: TextIO) -> int:
    """Print an answer as CSV: a head, then the rows, nulls empty; return the number of rows."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(answer.columns)
    count = 0
    for row in answer.rows:
        writer.writerow(["" if value is None else value for value in row])
        count += 1
    return count


def print_json(answer: Answer, stream: TextIO) -> int:
    """Print an answer as a JSON array with an object for each row; return the number of rows."""
    count = 0
    stream.write("[")
    for count, row in enumerate(answer.rows, 1):
        values = {name: _json_value(value) for name, value in zip(answer.columns, row, strict=True)}
        stream.write(("\n  " if count == 1 else ",\n  ") + json.dumps(values, allow_nan=False, default=str))
    stream.write("\n]\n" if count else "]\n")
    return count


FORMATS: Final[Mapping[str, Callable[[Answer, TextIO], int]]] = {
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

    What is too wide gives way in this order: headings break at their underscores, the last column wraps if it is a
    text, the widest texts are cut in their middle.
    """
    names = [clean(name) for name in columns]
    texts = [[_cell(name, value) for name, value in zip(columns, row, strict=True)] for row in rows]
    numeric = [all(_is_number(row[at]) or row[at] is None for row in rows) for at in range(len(columns))]
    widths = _widths(names, texts, numeric)
    if widths is None:
        return [line for at, row in enumerate(texts) for line in _record(names, row, at)]
    heads = [_heading(name, width) for name, width in zip(names, widths, strict=True)]
    lines = [styled("dim", line) for line in _row_lines(heads, widths, numeric)]
    for row in texts:
        cut = [[shortened(cell, width)] for cell, width in zip(row, widths, strict=True)]
        if not numeric[-1]:
            cut[-1] = wrapped(row[-1], width=widths[-1])
        lines += _row_lines(cut, widths, numeric)
    return lines


def _widths(columns: Sequence[str], texts: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[int] | None:
    """Return the width of each column so that a line fits; None if there is no such."""
    values = [max(cells(row[at]) for row in texts) for at in range(len(columns))]
    widths = [max(width, cells(name)) for width, name in zip(values, columns, strict=True)]
    least = [_broken_width(name) for name in columns]
    least = [
        max(narrow, value if is_number else min(value, _NARROWEST))
        for narrow, value, is_number in zip(least, values, numeric, strict=True)
    ]
    free = COLUMNS - 2 * (len(columns) - 1)
    while sum(widths) > free:
        wide = [at for at in range(len(columns)) if widths[at] > least[at]]
        if not wide:
            return None
        heads = [at for at in wide if widths[at] > values[at]]
        widths[max(heads or wide, key=lambda at: widths[at])] -= 1
    return widths


def _heading(name: str, width: int) -> list[str]:
    """Return a heading in lines of at most `width`, broken behind underscores."""
    lines = [""]
    for part in name.replace("_", "_\0").split("\0"):
        if lines[-1] and cells(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _broken_width(name: str) -> int:
    return max(map(cells, name.replace("_", "_\0").split("\0")))


def _row_lines(parts: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    """Yield the lines of a row whose cells have lines of their own; numbers stand to the right."""
    for at in range(max(map(len, parts))):
        texts = [cell[at] if at < len(cell) else "" for cell in parts]
        padded_ = (padded(text, width, right=to) for text, width, to in zip(texts, widths, right, strict=True))
        yield "  ".join(padded_).rstrip()


def _record(columns: Sequence[str], row: Sequence[str], at: int) -> Iterator[str]:
    """Yield one row as lines of name and value."""
    width = min(max(map(cells, columns)), COLUMNS // 2)
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
