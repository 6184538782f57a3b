"""How a report lays its sentences out: paragraphs, items, asides, and how many rows a table leaves out.

In go texts, out come lines with style marks.
"""

from __future__ import annotations

from replay.console.screen import styled, wrapped


def paragraph(text: str) -> list[str]:
    """Return the lines of a paragraph."""
    return wrapped(text, first="  ")


def item(text: str) -> list[str]:
    """Return the lines of an item of a list."""
    return wrapped(text, first="  - ")


def aside(text: str, indent: str = "  ") -> list[str]:
    """Return the lines of an aside."""
    return wrapped(text, first=indent)


def more(left: int, what: str) -> list[str]:
    """Return the line that says how many rows of a table were left out, if any."""
    return [styled("dim", f"  and {left:,} more {what}: --json has all")] if left > 0 else []
