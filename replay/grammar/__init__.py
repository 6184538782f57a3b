"""One line of a log in, what it says out: a `Line`, by the grammar of its dialect in `grammars/DIALECT.lark`.

This package alone knows Lark. It knows nothing of the lines before or after.
"""

from __future__ import annotations

import re
from typing import Final, cast

from lark import UnexpectedInput, UnexpectedToken

from replay.grammar.fields import ONLY_DESCRIPTORS, call_name
from replay.grammar.line import Line
from replay.grammar.parser import parser_of

REASONS: Final = {
    "other_call": "a call that does not touch memory, processes or the names of files",
    "cut_line": "the line ends before what it says does",
    "unknown_call_form": "a call of interest, written in no known way",
    "unknown_line": "no kind of line that the tracer writes",
    "impossible_value": "a number that does not fit its place, or a result that the call cannot have",
}
"""Why a line was not understood."""

CALLED: Final = r"(?<!\w)[^\WA-Za-z_]*+([A-Za-z_]\w*+)(?:\(| resumed>)"
"""The name of the call that a line is of; it is looked for once in each word, however long that is."""

UNCLOSED: Final = r"""\s*(?:"(?:[^"\\]|\\.)*\\?|<[^>]*|\((?:deleted?)?|\[[^\]]*|[+-]{1,2})"""
"""The end of a line that breaks off inside a string, a path, a bracket or a mark."""


QUOTED: Final = r'"(?:[^"\\]|\\.)*"'

ENDED: Final = (
    r"\)\s+= (?:-?\w+|\?)(?:<[^>]*>)?(?: E[A-Z0-9_]+)?(?: \(.*\))*(?: <[0-9.]+>)?\s*$"
    r"|(?:unfinished|detached|no return) \.\.\.>\s*$|(?:\+\+\+|---)\s*$"
)
"""The end of a line that is whole: a result with its notes, or a mark."""


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
    try:
        return cast(Line, parser_of(dialect).parse(text))
    except UnexpectedInput as error:
        raise _line_error(error, text) from error


def is_whole(text: str) -> bool:
    """Tell whether a line ends as the tracers end theirs: it is not cut, whatever it says."""
    plain = re.sub(QUOTED, '""', text)
    return plain.count('"') % 2 == 0 and re.search(ENDED, plain) is not None


def _line_error(error: UnexpectedInput, text: str) -> LineError:
    """Return the reason for which Lark did not accept `text`."""
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    column = len(text) if at_end or error.pos_in_stream is None else error.pos_in_stream
    named = re.search(CALLED, text)
    if named and call_name(named[1]) in ONLY_DESCRIPTORS:
        return LineError("other_call", column)
    if (at_end or re.compile(UNCLOSED).fullmatch(text, column)) and not is_whole(text):
        return LineError("cut_line", column)
    return LineError("unknown_call_form" if named and call_name(named[1]) else "unknown_line", column)
