"""What the output can show: how wide it is, whether in colour, whether more than ASCII.

In go the streams and the environment, out come numbers and answers. What is written there this module does not know.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Final, TextIO

NARROWEST: Final = 60
WIDEST: Final = 200
"""Columns that tables and pictures take at least and at most."""

WIDEST_TEXT: Final = 100
"""Columns of a paragraph at most: longer lines are hard to read."""

UNKNOWN_WIDTH: Final = 80
"""Columns where the output is no terminal."""

COLOUR_CHOICES: Final = ("auto", "always", "never")


class _Chosen:
    """What the command line asks for, for the whole process."""

    colour = "auto"


def choose_colour(when: str) -> None:
    """Colour `auto`matically (a terminal is), `always` or `never` from now on."""
    _Chosen.colour = when


def columns() -> int:
    """Return the columns of the terminal, or those that COLUMNS tells; 80 in a pipe."""
    return shutil.get_terminal_size((UNKNOWN_WIDTH, 24)).columns


def width() -> int:
    """Return the columns that a table or a picture may take, 60 to 200."""
    return max(NARROWEST, min(columns(), WIDEST))


def text_width() -> int:
    """Return the columns that a paragraph may take, at most 100; on a narrow terminal all it has."""
    return max(min(columns(), WIDEST_TEXT), 20)


def has_colour(stream: TextIO) -> bool:
    """Tell whether to colour what is written there.

    The command line decides, then NO_COLOR, then FORCE_COLOR; else a terminal has colour, unless it is a dumb one.
    """
    if _Chosen.colour != "auto":
        return _Chosen.colour == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and stream.isatty()


def speaks_unicode(stream: TextIO | None = None) -> bool:
    """Tell whether more than ASCII may be written: the encoding is UTF, and the locale is not set to C."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    names = (os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next(filter(None, names), "")
    return encoding.lower().replace("-", "").startswith("utf") and locale not in ("C", "POSIX")
