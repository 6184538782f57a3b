"""What one line of a log says, as values that either a parse or a template of its shape can give.

Each numeric field is a linear form over the number tokens of the line, each text a constant or a span: so what the
grammar learned from the first line of a shape serves every further line of that shape.
"""

from __future__ import annotations

from typing import Final, NamedTuple

LONGEST_TOKEN: Final = 64
BEYOND: Final = 1 << 256
"""What a longer token than that writes: too much for any field."""


class Number(NamedTuple):
    """`const` plus, over `terms`, the sum of `factor` times the number at the span `[start, end)` of the line."""

    const: int
    terms: tuple[tuple[int, int, int], ...] = ()

    def value(self, line: str) -> int:
        """Return the number that `line` gives."""
        return self.const + sum(token_value(line[start:end]) * factor for start, end, factor in self.terms)


class Text(NamedTuple):
    """A text that is part of the shape (`const`), or a span `[start, end)` of the line without quotes and brackets."""

    const: str | None
    start: int = -1
    end: int = -1

    def value(self, line: str) -> str:
        """Return the text that `line` gives, as written there."""
        return line[self.start : self.end] if self.const is None else self.const


class Line(NamedTuple):
    """One understood line: its kind, the call it names (as printed and normalised) and its fields by name."""

    kind: str
    name: str
    call: str
    numbers: dict[str, Number]
    texts: dict[str, Text]


def token_value(token: str) -> int:
    """Return the number a token writes: `0x` hexadecimal, everything else decimal."""
    if len(token) > LONGEST_TOKEN:
        return BEYOND
    return int(token, 16) if token.startswith(("0x", "0X")) else int(token)
