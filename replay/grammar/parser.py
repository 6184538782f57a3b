"""The parser of a dialect: in goes its name, out comes what turns one line into a `Line`.

Lark takes a third of a second to make the tables of a grammar. Those that came with the package are taken if grammar,
Lark and Python are the ones that made them, else those that Lark keeps in the user's cache.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Collection, Iterator
from copy import copy
from functools import cache
from hashlib import sha256
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import lark
from lark import Lark, Token
from lark.common import LexerConf
from lark.lexer import BasicLexer, ContextualLexer, LexerState, Scanner, TerminalDef, _create_unless
from lark.utils import TextSlice

from replay.engine.cache import cache_directory
from replay.logs.dialect import DIALECTS

PLACES: Final = (Path(__file__).parents[1] / "grammars", Path(__file__).parents[2] / "grammars")
"""Where grammar files are: in the installed package, or in the checkout beside it."""

TABLES: Final = Path(__file__).parent
"""Where the tables are that came with the package: as trusted as its code, which stands there too."""

FORM: Final = {"parser": "lalr", "lexer": "contextual", "start": "line", "maybe_placeholders": False}


class TerminalScanner(Scanner):
    """Lark's scanner, with a pattern for each terminal in place of one for all that a state of the parser accepts.

    The first that fits is taken, as of the alternatives of a pattern. A terminal that many states accept is compiled
    once, and not before it is tried.
    """

    def _build_mres(self, terminals: Collection[TerminalDef], max_size: int) -> list[re.Pattern[str]]:
        self.regexps = [(terminal.name, terminal.pattern.to_regexp()) for terminal in terminals]
        return []

    def match(self, text: TextSlice[str], pos: int) -> tuple[str, str] | None:
        """Return the token that begins there, and the name of its terminal."""
        for name, regexp in self.regexps:
            found = _compiled(regexp).match(text.text, pos, text.end)
            if found:
                return found[0], name
        return None


_compiled: Final = cache(re.compile)


class StateLexer(BasicLexer):
    """Lark's lexer of what a state of the parser accepts, with a scanner as above."""

    def _build_scanner(self) -> Scanner:
        how: Any = (self.g_regex_flags, self.re, self.use_bytes)
        terminals, self.callback = _create_unless(self.terminals, *how)  # type: ignore[no-untyped-call]
        self.callback |= self.user_callbacks
        return TerminalScanner(terminals, *how)  # type: ignore[no-untyped-call]


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
            self.made[names] = StateLexer(conf)
        self.lexers[state] = self.made[names]
        return self.made[names]


PLUGINS: Final = {"ContextualLexer": LineLexer}


@cache
def grammar_file(name: str) -> Path:
    """Return the path of the grammar file `name`."""
    for place in PLACES:
        if (place / name).is_file():
            return place / name
    places = " nor in ".join(str(place) for place in PLACES)
    raise FileNotFoundError(f"grammar {name} is neither in {places}")


@cache
def parser_of(dialect: str) -> Lark:
    """Return the parser of a dialect, which gives a `Line` for each line."""
    lines = import_module(f"replay.grammar.{dialect}").Lines()
    how = {"transformer": lines, "_plugins": PLUGINS}
    tables = _tables_that_fit(dialect)
    if tables is not None:
        read: Lark = Lark._load_from_dict(tables["data"], tables["memo"], **how)  # type: ignore[no-untyped-call]
        return read
    kept = str(cache_directory() / f"{dialect}.parser")
    return Lark.open(str(grammar_file(f"{dialect}.lark")), cache=kept, **FORM, **how)  # type: ignore[arg-type]


def build_tables() -> list[Path]:
    """Make the tables that come with the package, where they are not there or do not fit; return their files."""
    files = []
    for dialect in DIALECTS:
        file = _tables_file(dialect)
        if _tables_that_fit(dialect) is None:
            made = Lark.open(str(grammar_file(f"{dialect}.lark")), _plugins=PLUGINS, **FORM)  # type: ignore[arg-type]
            tables = BytesIO()
            made.save(tables, exclude_options=["_plugins"])
            fresh = file.with_name(f"{file.name}.{os.getpid()}")
            fresh.write_bytes(_mark(dialect) + tables.getvalue())
            fresh.replace(file)
        files.append(file)
    return files


def _tables_file(dialect: str) -> Path:
    return TABLES / f"_{dialect}.tables"


def _tables_that_fit(dialect: str) -> dict[str, Any] | None:
    """Return the tables that came with the package, None where there are none or others would be made now."""
    mark = _mark(dialect)
    try:
        kept = _tables_file(dialect).read_bytes()
    except OSError:
        return None
    tables: dict[str, Any] | None = pickle.loads(kept[len(mark) :]) if kept.startswith(mark) else None
    return tables


def _mark(dialect: str) -> bytes:
    """Return what the tables begin with: a digest of all that they are made of."""
    made_of = sha256(f"{dialect} {FORM} {lark.__version__} {sys.version_info[:2]}".encode())
    for file in sorted(grammar_file(f"{dialect}.lark").parent.glob("*.lark")):
        made_of.update(sha256(file.read_bytes()).digest())
    return made_of.digest()
