"""Text for the screen: styled, wrapped, in columns, no wider than it may be, and safe to print.

In go texts, out come lines. A style is a pair of marks inside the text (private-use characters), which `shown` turns
into colour or drops; what comes from a log passes `clean` first, so that it holds neither marks nor escapes.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TextIO

COLUMNS: Final = 80
"""The width that every page keeps to."""

_END: Final = "\ue000"
_STYLES: Final = {
    "title": ("\ue001", "1"),
    "bad": ("\ue002", "1;31"),
    "good": ("\ue003", "1;32"),
    "dim": ("\ue004", "2"),
    "hot": ("\ue005", "31"),
    "cool": ("\ue006", "36"),
    "new": ("\ue007", "32"),
    "strong": ("\ue008", "1"),
}
"""By name: the mark that begins the style, and the parameters of its escape sequence (SGR)."""

_MARKS: Final = re.compile("[\ue000-\ue00f]")
_DROPPED: Final = dict.fromkeys(range(0xE000, 0xE010))
_CODES: Final = {mark: f"\x1b[{code}m" for mark, code in _STYLES.values()}
_RESET: Final = "\x1b[0m"

_PLAIN: Final = str.maketrans({
    "…": "...", "—": "-", "–": "-", "·": ".", "│": "|", "┊": ":", "█": "#", "▌": "#", "◀": "<", "µ": "u", "→": "->",
    "×": "x", "≤": "<=", "≥": ">=", "‘": "'", "’": "'", "“": '"', "”": '"',
    "▁": "_", "▂": ".", "▃": ",", "▄": "-", "▅": "=", "▆": "+", "▇": "*",
})  # fmt: skip
"""What stands for the characters that an output without Unicode does not have."""


def clean(text: str) -> str:
    r"""Return a text of the log with what cannot be seen written as `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    That is what a terminal would obey, what turns a text round, halves of characters, and our own marks.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def styled(style: str, text: str) -> str:
    """Return the text between the marks of a style; styles do not nest."""
    return f"{_STYLES[style][0]}{text}{_END}"


def cells(text: str) -> int:
    """Return how many columns of a terminal the text takes; marks take none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    unseen = len(_MARKS.findall(text)) + sum(unicodedata.combining(char) > 0 for char in text)
    return len(text) + wide - unseen


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Return the text filled up with spaces to `width` columns, on its left if `right`."""
    room = " " * max(0, width - cells(text))
    return room + text if right else text + room


def shortened(text: str, width: int) -> str:
    """Return a text without marks that is cut in its middle, if need be, to fit into `width` columns."""
    if cells(text) <= width:
        return text
    if width <= 1:
        return "…"[:width]
    tail = _fitting(reversed(text), (width - 1) * 2 // 3)
    head = _fitting(iter(text), width - 1 - sum(map(cells, tail)))
    return "".join(head) + "…" + "".join(reversed(tail))


def _fitting(chars: Iterable[str], width: int) -> list[str]:
    """Return as many of the characters as fit into `width` columns."""
    taken: list[str] = []
    for char in chars:
        width -= cells(char)
        if width < 0:
            break
        taken.append(char)
    return taken


def wrapped(text: str, *, first: str = "", rest: str | None = None, width: int = COLUMNS) -> list[str]:
    """Return the words of a text in lines of at most `width` columns; `first` and `rest` begin the lines.

    A word that is longer than a line is broken.
    """
    indent = " " * cells(first) if rest is None else rest
    lines = [first]
    fresh = True
    for word in _words(text, width - max(cells(first), cells(indent))):
        if not fresh and cells(lines[-1]) + 1 + cells(word) > width:
            lines.append(indent)
            fresh = True
        lines[-1] += word if fresh else " " + word
        fresh = False
    return _balanced(lines, len(indent))


def _balanced(lines: list[str], indent: int) -> list[str]:
    """Return wrapped lines in which a style that goes on past a line's end is ended there and begun anew."""
    style = ""
    for at, line in enumerate(lines):
        begun = line[:indent] + style + line[indent:] if style and at else line
        marks = _MARKS.findall(begun)
        style = marks[-1] if marks and marks[-1] != _END else ""
        lines[at] = begun + _END if style else begun
    return lines


def _words(text: str, width: int) -> Iterator[str]:
    for word in text.split(" "):
        rest = word
        while cells(rest) > width:
            part = "".join(_fitting(rest, width))
            yield part
            rest = rest[len(part) :]
        if rest:
            yield rest


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), give: int = -1, indent: str = "  "
) -> list[str]:
    """Return rows of cells as aligned columns below a dim heading, at most `COLUMNS` wide.

    Args:
        head: the headings.
        rows: cells without marks, one text a column.
        right: the columns that are aligned on their right.
        give: the column whose texts are shortened where the table would be too wide.
        indent: what every line begins with.
    """
    widths = [max(cells(row[column]) for row in (head, *rows)) for column in range(len(head))]
    over = cells(indent) + sum(widths) + 2 * (len(widths) - 1) - COLUMNS
    if over > 0 and give >= 0:
        widths[give] = max(8, widths[give] - over)
        rows = [[shortened(cell, widths[give]) if at == give else cell for at, cell in enumerate(row)] for row in rows]
    to_right = set(right)

    def line(row: Sequence[str]) -> str:
        parts = (padded(cell, widths[at], right=at in to_right) for at, cell in enumerate(row))
        return (indent + "  ".join(parts)).rstrip()

    return [styled("dim", line(head)), *map(line, rows)]


def shown(lines: Iterable[str], *, colour: bool) -> Iterator[str]:
    """Yield lines with their marks turned into escape sequences, or dropped; no style goes on past a line's end."""
    for line in lines:
        if not colour or line.isascii():
            yield line.translate(_DROPPED) if not line.isascii() else line
            continue
        text = _MARKS.sub(lambda mark: _CODES.get(mark[0], _RESET), line)
        yield text if text.rfind(_RESET) >= text.rfind("\x1b[") else text + _RESET


def has_colour(stream: TextIO) -> bool:
    """Tell whether to colour what is written there: a terminal, and neither NO_COLOR nor a dumb one."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def print_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Write lines to standard output, coloured on a terminal, in words of the output's own encoding."""
    out = stream or sys.stdout
    write = out.write
    unicode = _speaks_unicode(out)
    for line in shown(lines, colour=has_colour(out)):
        write((line if unicode else in_encoding(line, out.encoding)) + "\n")


def _speaks_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def in_encoding(text: str, encoding: str) -> str:
    """Return the text with what `encoding` lacks replaced by its plain likeness, or escaped."""
    if text.isascii():
        return text
    return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
