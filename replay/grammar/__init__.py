"""One line of a log in, what it says out: a `Line`, by the grammar of its dialect in `grammars/DIALECT.lark`.

This package alone knows Lark. It knows nothing of the lines before or after.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.lines import Line

if TYPE_CHECKING:
    from lark import Lark

REASONS: Final = {
    "other_call": "a call that does not touch memory, processes or the names of files",
    "cut_line": "the line ends before what it says does",
    "unknown_call_form": "a call of interest, written in no known way",
    "unknown_line": "no kind of line that the tracer writes",
}
"""Why a line was not understood."""

DIALECTS: Final = {"strace": "replay.grammar.strace", "ltrace": "replay.grammar.ltrace"}
"""The module of each dialect; its class `Lines` turns what its grammar found into a `Line`."""

PLACES: Final = (Path(__file__).parents[1] / "grammars", Path(__file__).parents[2] / "grammars")
"""Where grammar files are: in the installed package, or in the checkout beside it."""


class LineError(Exception):
    """A line says nothing that can be used; `reason` is one of `REASONS`, `column` counts from 0."""

    def __init__(self, reason: str, column: int = 0) -> None:
        """Keep the reason and the column from which on the line is not understood."""
        super().__init__(f"column {column + 1}: {REASONS[reason]}")
        self.reason = reason
        self.column = column


def parse(text: str, dialect: str) -> Line:
    """Return what the line `text` says (bytes as latin-1, no newline).

    Raises:
        LineError: the line is of another call, cut, or of no known form.
    """
    from lark import UnexpectedInput  # noqa: PLC0415 (lark takes time to load)

    try:
        line: Line = _parser(dialect).parse(text)  # type: ignore[assignment]
    except UnexpectedInput as error:
        raise _line_error(error, text) from error
    return line


@cache
def grammar_file(name: str) -> Path:
    """Return the path of the grammar file `name`."""
    for place in PLACES:
        if (place / name).is_file():
            return place / name
    places = " and ".join(str(place) for place in PLACES)
    raise FileNotFoundError(f"grammar {name} is neither in {places}")


@cache
def _parser(dialect: str) -> Lark:
    """Return the parser of a dialect, which gives a `Line` for each line."""
    from lark import Lark  # noqa: PLC0415 (lark takes time to load)

    return Lark.open(
        str(grammar_file(f"{dialect}.lark")),
        parser="lalr",
        lexer="contextual",
        start="line",
        maybe_placeholders=False,
        transformer=import_module(DIALECTS[dialect]).Lines(),
    )


def _line_error(error: Exception, text: str) -> LineError:
    """Return the reason for which Lark did not accept `text`."""
    from lark import UnexpectedToken  # noqa: PLC0415 (loaded already)

    column = getattr(error, "pos_in_stream", None)
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if at_end or column is None or column >= len(text.rstrip()):
        return LineError("cut_line", len(text))
    return LineError("unknown_line", column)
