"""One line of a log in, what it says out: a `Line`, by the grammar of its dialect in `grammars/DIALECT.lark`.

This package alone knows Lark. It knows nothing of the lines before or after.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from copy import copy
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from lark import Lark, Token, UnexpectedInput, UnexpectedToken
from lark.common import LexerConf
from lark.lexer import BasicLexer, ContextualLexer, LexerState

from replay.engine.cache import cache_directory
from replay.grammar.fields import ONLY_DESCRIPTORS, call_name
from replay.grammar.line import Line

REASONS: Final = {
    "other_call": "a call that does not touch memory, processes or the names of files",
    "cut_line": "the line ends before what it says does",
    "unknown_call_form": "a call of interest, written in no known way",
    "unknown_line": "no kind of line that the tracer writes",
    "impossible_value": "a number that does not fit its place, or a result that the call cannot have",
}
"""Why a line was not understood."""

PLACES: Final = (Path(__file__).parents[1] / "grammars", Path(__file__).parents[2] / "grammars")
"""Where grammar files are: in the installed package, or in the checkout beside it."""


CALLED: Final = re.compile(r"(?<!\w)[^\WA-Za-z_]*+([A-Za-z_]\w*+)(?:\(| resumed>)")
"""The name of the call that a line is of; it is looked for once in each word, however long that is."""

UNCLOSED: Final = re.compile(r"""\s*(?:"(?:[^"\\]|\\.)*\\?|<[^>]*|\((?:deleted?)?|\[[^\]]*|[+-]{1,2})""")
"""The end of a line that breaks off inside a string, a path, a bracket or a mark."""


QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')

ENDED: Final = re.compile(
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


class LineLexer(ContextualLexer):
    """Lark's contextual lexer, without three habits that cost much on lines.

    Where `interegular` is installed Lark compares all terminals of a grammar with each other, which takes minutes. At
    an error it asks which terminal would have fitted elsewhere, which names a wrong reason. And it begins with a lexer
    for each state of the parser: the lines of one log see few of them.
    """

    def __init__(self, conf: LexerConf, states: dict[int, Collection[str]], always_accept: Collection[str]) -> None:
        """Begin with no lexer."""
        conf.skip_validation = True
        self.conf = conf
        self.states = states
        self.everywhere = (*conf.ignore, *always_accept)
        self.lexers = {}
        self.made: dict[frozenset[str], BasicLexer] = {}

    def lex(self, lexer_state: LexerState, parser_state: Any) -> Iterator[Token]:
        """Yield the tokens of a line."""
        try:
            while True:
                lexer = self.lexers.get(parser_state.position) or self._lexer_of(parser_state.position)
                yield lexer.next_token(lexer_state, parser_state)
        except EOFError:
            return

    def _lexer_of(self, state: int) -> BasicLexer:
        """Return the lexer of a state, the same for all that accept the same terminals."""
        names = frozenset([*self.states[state], *self.everywhere])
        if names not in self.made:
            conf = copy(self.conf)
            conf.terminals = [terminal for terminal in self.conf.terminals if terminal.name in names]
            self.made[names] = BasicLexer(conf)
        self.lexers[state] = self.made[names]
        return self.made[names]


def parse(text: str, dialect: str) -> Line:
    """Return what the line `text` says (bytes as latin-1, no newline).

    Raises:
        LineError: the line is of another call, cut, or of no known form.
    """
    try:
        return cast(Line, _parser(dialect).parse(text))
    except UnexpectedInput as error:
        raise _line_error(error, text) from error


@cache
def grammar_file(name: str) -> Path:
    """Return the path of the grammar file `name`."""
    for place in PLACES:
        if (place / name).is_file():
            return place / name
    places = " nor in ".join(str(place) for place in PLACES)
    raise FileNotFoundError(f"grammar {name} is neither in {places}")


@cache
def _parser(dialect: str) -> Lark:
    """Return the parser of a dialect, which gives a `Line` for each line.

    Lark keeps its tables on disk, under a hash of grammar and versions: to build them costs ten times as much.
    """
    return Lark.open(
        str(grammar_file(f"{dialect}.lark")),
        parser="lalr",
        lexer="contextual",
        start="line",
        maybe_placeholders=False,
        cache=str(cache_directory() / f"{dialect}.parser"),
        transformer=import_module(f"replay.grammar.{dialect}").Lines(),
        _plugins={"ContextualLexer": LineLexer},
    )


def is_whole(text: str) -> bool:
    """Tell whether a line ends as the tracers end theirs: it is not cut, whatever it says."""
    plain = QUOTED.sub('""', text)
    return plain.count('"') % 2 == 0 and ENDED.search(plain) is not None


def _line_error(error: UnexpectedInput, text: str) -> LineError:
    """Return the reason for which Lark did not accept `text`."""
    at_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    column = len(text) if at_end or error.pos_in_stream is None else error.pos_in_stream
    named = CALLED.search(text)
    if named and call_name(named[1]) in ONLY_DESCRIPTORS:
        return LineError("other_call", column)
    if (at_end or UNCLOSED.fullmatch(text, column)) and not is_whole(text):
        return LineError("cut_line", column)
    return LineError("unknown_call_form" if named and call_name(named[1]) else "unknown_line", column)
