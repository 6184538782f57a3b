"""Text for the screen: styled, wrapped, in columns, no wider than it may be, and safe to print.

In go texts, out come lines. A style is a pair of marks inside the text (private-use characters), which `shown` turns
into colour or drops; what comes from a log passes `clean` first, so that it holds neither marks nor escapes.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from replay.console.terminal import columns, has_colour, speaks_unicode, text_width

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
_AT_MARKS: Final = re.compile("([\ue000-\ue00f])")
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


def _cleaned_between_marks(line: str) -> str:
    """Return a line with all that is not to be printed escaped but the marks of styles."""
    return "".join(part if _MARKS.fullmatch(part) else clean(part) for part in _AT_MARKS.split(line))


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
    dots = "…" if speaks_unicode() else "..."
    room = width - len(dots)
    if room <= 0:
        return dots[:width]
    tail = _fitting(reversed(text), room * 2 // 3)
    head = _fitting(iter(text), room - sum(map(cells, tail)))
    return "".join(head) + dots + "".join(reversed(tail))


def _fitting(chars: Iterable[str], width: int) -> list[str]:
    """Return as many of the characters as fit into `width` columns."""
    taken: list[str] = []
    for char in chars:
        width -= cells(char)
        if width < 0:
            break
        taken.append(char)
    return taken


def wrapped(text: str, *, first: str = "", rest: str | None = None, width: int = 0) -> list[str]:
    """Return the words of a text in lines; `first` and `rest` begin them.

    A line has at most `width` columns, without it those of a paragraph. A word that is longer than a line is broken,
    a path behind a `/`.
    """
    width = width or text_width()
    indent = " " * cells(first) if rest is None else rest
    lines = [first]
    fresh = True
    for word in _words(text, max(width - max(cells(first), cells(indent)), 8)):
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
    for word in re.split(" (?!%)", text):  # a number keeps its per cent sign
        rest = word
        while cells(rest) > width:
            part = "".join(_fitting(rest, width))
            folder = part.rfind("/") + 1
            part = part[:folder] if folder > width // 3 else part
            yield part
            rest = rest[len(part) :]
        if rest:
            yield rest


def shown(lines: Iterable[str], *, colour: bool) -> Iterator[str]:
    """Yield lines with their marks turned into escape sequences, or dropped; no style goes on past a line's end.

    What a terminal would obey is escaped here once more: a text of the log that nobody cleaned does no harm.
    """
    for line in lines:
        if line.isascii():
            yield line if line.isprintable() else clean(line)
            continue
        fit = line if line.isprintable() else _cleaned_between_marks(line)
        if not colour:
            yield fit.translate(_DROPPED)
            continue
        text = _MARKS.sub(lambda mark: _CODES.get(mark[0], _RESET), fit)
        yield text if text.rfind(_RESET) >= text.rfind("\x1b[") else text + _RESET


def print_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Write lines to standard output: coloured on a terminal, in characters it has, no wider than it is."""
    out = stream or sys.stdout
    write = out.write
    unicode = speaks_unicode(out)
    for line in shown(_folded(lines, columns()), colour=has_colour(out)):
        write((line if unicode else in_encoding(line, out.encoding)) + "\n")


def _folded(lines: Iterable[str], width: int) -> Iterator[str]:
    """Yield lines with those that are wider than the output wrapped where words end."""
    for line in lines:
        if len(line) <= width or cells(line) <= width:
            yield line
            continue
        label = _LABEL.match(line)
        if label is not None and cells(label[0]) <= width // 3:
            yield from wrapped(line[label.end() :], first=label[0], width=width)
            continue
        indent = " " * min(len(line) - len(line.lstrip(" ")), width // 3)
        yield from wrapped(line.strip(" "), first=indent, rest=indent + "  ", width=width)


_LABEL: Final = re.compile(r" *\w+  +(?=\S)")
"""The word that begins a line and what is left free behind it: what wraps is aligned there."""


def in_encoding(text: str, encoding: str) -> str:
    """Return the text with what an output without Unicode lacks replaced by its plain likeness, or escaped."""
    if text.isascii():
        return text
    known = "ascii" if encoding.lower().replace("-", "").startswith("utf") else encoding
    return text.translate(_PLAIN).encode(known, "backslashreplace").decode(known)
