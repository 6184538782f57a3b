"""Rows of cells as aligned columns that fit the output: headings break, texts wrap, numbers stay whole.

In go texts without marks, out come lines with style marks. What stands in the cells this module does not know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from replay.console.screen import cells, padded, shortened, styled, wrapped
from replay.console.terminal import width

MOST_LINES: Final = 3
"""Lines of the output that a row takes at most."""

LEAST_TEXT: Final = 12
"""Columns that a text which gives way keeps at least."""

_BETWEEN: Final = 2


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    give: Collection[int] = (),
    indent: str = "  ",
) -> list[str]:
    """Return rows as aligned columns below a heading, no wider than the output if they can be.

    Args:
        head: the headings.
        rows: cells without marks, one text a column.
        right: the columns that are aligned on their right.
        give: the columns whose texts wrap where the table would be too wide, once the headings have, and before the
            other columns do; one that still takes more than three lines is cut.
        indent: what every line begins with.
    """
    room, every = room_for(len(head), indent), range(len(head))
    widths = fitted_widths(head, rows, give, room) or fitted_widths(head, rows, every, room)
    widths = widths or least_widths(head, rows, every)
    lines = [styled("strong", line) for line in _row_lines(_headings(head, widths), widths, right, indent)]
    for row in rows:
        parts = [_cell_lines(text, room) for text, room in zip(row, widths, strict=True)]
        lines += _row_lines(parts, widths, right, indent)
    return lines


def room_for(columns: int, indent: str = "") -> int:
    """Return how wide the cells of a row may be together."""
    return width() - cells(indent) - _BETWEEN * (columns - 1)


def fitted_widths(
    head: Sequence[str], rows: Sequence[Sequence[str]], give: Collection[int], room: int
) -> list[int] | None:
    """Return the width of each column so that a row fits into `room`; None if there is no such."""
    values = _value_widths(rows, len(head))
    widths = [max(value, cells(name)) for value, name in zip(values, head, strict=True)]
    least = least_widths(head, rows, give)
    over = sum(widths) - room
    while over > 0:
        wide = [at for at in range(len(widths)) if widths[at] > least[at]]
        if not wide:
            return None
        of_heads = [at for at in wide if widths[at] > values[at]]
        widest = max(of_heads or wide, key=lambda at: widths[at])
        narrower = widths[widest] - 1
        widths[widest] = max(values[widest], _heading_width(head[widest], narrower)) if of_heads else narrower
        over = sum(widths) - room
    return widths


def least_widths(head: Sequence[str], rows: Sequence[Sequence[str]], give: Collection[int]) -> list[int]:
    """Return the least width of each column: its heading broken, its numbers whole, a text that gives way short."""
    return [
        max(_heading_width(name, 0), _least_text([row[at] for row in rows]) if at in give else value)
        for at, (name, value) in enumerate(zip(head, _value_widths(rows, len(head)), strict=True))
    ]


def _least_text(texts: Sequence[str]) -> int:
    """Return the least width of texts that give way: short ones keep their words whole."""
    widest = max(map(cells, texts), default=0)
    return LEAST_TEXT if widest > LEAST_TEXT else max((_heading_width(text, 0) for text in texts), default=0)


def _value_widths(rows: Sequence[Sequence[str]], columns: int) -> list[int]:
    return [max((cells(row[at]) for row in rows), default=0) for at in range(columns)]


def _headings(head: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """Return the headings in lines as wide as their columns, all ending in the same line."""
    found = [_broken(name, room) for name, room in zip(head, widths, strict=True)]
    return [[""] * (max(map(len, found)) - len(lines)) + lines for lines in found]


def _broken(name: str, room: int) -> list[str]:
    """Return a heading in lines of at most `room` columns, broken behind spaces and underscores."""
    lines = [""]
    for part in _pieces(name):
        if lines[-1] and cells((lines[-1] + part).rstrip()) > room:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _heading_width(name: str, room: int) -> int:
    """Return how wide a heading is in lines of at most `room` columns."""
    return max(map(cells, _broken(name, room)))


def _pieces(name: str) -> list[str]:
    return name.replace("_", "_\0").replace(" ", " \0").split("\0")


def _cell_lines(text: str, room: int) -> list[str]:
    """Return a text in lines at most `room` wide; the last that a row may have is cut, a text of one word inside."""
    if cells(text) <= room:
        return [text]
    lines = wrapped(text, width=room)
    if len(lines) <= MOST_LINES:
        return lines
    kept, last = lines[: MOST_LINES - 1], lines[MOST_LINES - 1 :]
    if " " not in text:
        return [*kept, shortened("".join(last), room)]
    return [*kept, wrapped(last[0], width=room - len("..."))[0] + "…"]


def _row_lines(
    parts: Sequence[Sequence[str]], widths: Sequence[int], right: Collection[int], indent: str
) -> Iterator[str]:
    """Yield the lines of a row whose cells have lines of their own."""
    for at in range(max(map(len, parts))):
        texts = (cell[at] if at < len(cell) else "" for cell in parts)
        cut = (padded(text, widths[column], right=column in right) for column, text in enumerate(texts))
        yield (indent + "  ".join(cut)).rstrip()
