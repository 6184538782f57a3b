"""From the text of a condition to what it is made of, by recursive descent.

In goes an expression, out comes a tree whose names are columns of the summary and whose parts measure what they are
compared with, or an error that says where it goes wrong. Values this module does not know; nothing is ever executed.

    condition   or      := and ("or" and)*
                and     := not ("and" not)*
                not     := "not" not | compare
                compare := sum (("<" | "<=" | ">" | ">=" | "==" | "!=" | "in") sum)*
    quantity    sum     := term (("+" | "-") term)*
                term    := factor (("*" | "/") factor)*
                factor  := "-" factor | NUMBER [UNIT] | "TEXT" | COLUMN | before.COLUMN | after.COLUMN | change.COLUMN
                           | "(" or ")"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from fractions import Fraction
from textwrap import wrap
from typing import Final, NamedTuple

from replay.conditions.tree import (
    Comparison,
    Computed,
    Condition,
    Expression,
    Joined,
    Literal,
    Name,
    is_change,
    is_percentage,
    measure_of,
)
from replay.errors import ReplayError
from replay.tables.schema import TABLES

_ONE: Final = Fraction(1)
_UNITS: Final[dict[str, tuple[Fraction, str]]] = {
    "%": (Fraction(1, 100), "ratio"),
    "B": (_ONE, "bytes"),
    **{name + "B": (Fraction(1000**power), "bytes") for power, name in enumerate("kMGT", 1)},
    "KB": (Fraction(1000), "bytes"),
    **{name + "iB": (Fraction(1024**power), "bytes") for power, name in enumerate("KMGT", 1)},
    "ns": (_ONE, "ns"),
    "us": (Fraction(1000), "ns"),
    "µs": (Fraction(1000), "ns"),
    "ms": (Fraction(10**6), "ns"),
    "s": (Fraction(10**9), "ns"),
    "min": (Fraction(60 * 10**9), "ns"),
    "h": (Fraction(3600 * 10**9), "ns"),
}
"""How much a unit is, in the unit that columns have, and what it measures."""

_MEASURES: Final = {"bytes": "bytes", "ns": "time", "count": "a count", "ratio": "a ratio", "text": "a text"}
"""What columns and literals measure, in words; a number without unit fits them all and measures ``."""

_COLUMN_MEASURES: Final = {"bytes": "bytes", "ns": "ns", "count": "count", "line": "count", "ratio": "ratio"}

_PREFIXES: Final = ("before", "after", "change")
_MEANT: Final = {"=": ": equality is ==", "&": ": write and", "|": ": write or", "!": ": write not"}
_KEYWORDS: Final = ("and", "or", "not", "in")
_LONGEST: Final = 2000
_DEEPEST: Final = 40
_MOST_DIGITS: Final = 40
_HUGE_EXPONENT: Final = re.compile("[eE][+-]?[0-9]{3}")

_COMPARING: Final = ("<", "<=", ">", ">=", "==", "!=", "in")


class ConditionError(ReplayError):
    """An expression that is no condition, or that names what there is not: wrong usage."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<number> 0[xX][0-9a-fA-F]+ | (?:[0-9][0-9_]*(?:\.[0-9]*)? | \.[0-9]+) (?:[eE][+-]?[0-9]+)? )
    | (?P<name> [^\W\d]\w* (?:\.[^\W\d]\w*)* | % )
    | (?P<text> "[^"]*" | '[^']*' )
    | (?P<sign> <= | >= | == | != | [-<>+*/()] )
    | (?P<end> \Z )
    )""",
    re.VERBOSE,
)


def parse_condition(text: str, *, comparing: bool = False) -> Condition:
    """Return the condition that an expression writes.

    Args:
        text: the expression.
        comparing: whether it is about two runs: then it may say `before.X`, `after.X` and `change.X`; `X` is `after.X`.

    Raises:
        ConditionError: it is none, or names no column of the summary; the message lists these, the nearest first.
    """
    if len(text) > _LONGEST:
        raise ConditionError(f"the condition has {len(text):,} characters: at most {_LONGEST:,} are read")
    return Condition(text.strip(), _Parser(text, comparing=comparing).parse())


class _Parser:
    """Reads one expression, a token at a time."""

    def __init__(self, text: str, *, comparing: bool) -> None:
        self._text = text
        self._comparing = comparing
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        tree = self._condition()
        if self._peek().kind != "end":
            raise self._expected("and, or, or the end")
        return self._judged(tree)

    def _split(self) -> Iterator[_Token]:
        at = 0
        while True:
            match = _TOKEN.match(self._text, at)
            if match is None:
                rest = self._text[at:].lstrip()
                hint = _MEANT.get(rest[0], "")
                raise self._error(f"{rest[0]!r} has no meaning here{hint}", len(self._text) - len(rest))
            kind = str(match.lastgroup)
            text = match[kind]
            yield _Token("word" if text in _KEYWORDS else kind, text, match.start(kind))
            if kind == "end":
                return
            at = match.end()

    # conditions

    def _condition(self) -> Expression:
        return self._joined("or", lambda: self._joined("and", self._negation))

    def _joined(self, word: str, part: Callable[[], Expression]) -> Expression:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(self._judged(entry) for entry in parts))

    def _negation(self) -> Expression:
        if not self._take("not"):
            return self._comparison()
        with_depth = self._deeper(self._negation)
        return Joined("not", (self._judged(with_depth),))

    def _comparison(self) -> Expression:
        left = self._sum()
        pairs: list[Expression] = []
        while (sign := self._take(*_COMPARING)) is not None:
            right = self._sum()
            pairs.append(self._compared(sign, left, right))
            left = right
        if not pairs:
            return left
        return pairs[0] if len(pairs) == 1 else Joined("and", tuple(pairs))

    def _compared(self, sign: _Token, left: Expression, right: Expression) -> Comparison:
        for side in (left, right):
            self._quantity(side, sign)
        if sign.text == "in" or "text" in (measure_of(left), measure_of(right)):
            self._check_texts(sign, left, right)
        relative = (is_change(left) and is_percentage(right)) or (is_change(right) and is_percentage(left))
        if not relative:
            self._alike(sign, left, right)
        return Comparison(sign.text, left, right, relative)

    def _check_texts(self, sign: _Token, left: Expression, right: Expression) -> None:
        if measure_of(left) != "text" or measure_of(right) != "text":
            raise self._error(f"{left.text} {sign.text} {right.text}: a text is compared with a text", sign.at)
        if sign.text not in ("==", "!=", "in"):
            raise self._error(f"{sign.text} has no meaning between texts: use ==, != or in", sign.at)

    # quantities

    def _sum(self) -> Expression:
        return self._computed(("+", "-"), lambda: self._computed(("*", "/"), self._factor))

    def _computed(self, signs: tuple[str, ...], part: Callable[[], Expression]) -> Expression:
        left = part()
        while (sign := self._take(*signs)) is not None:
            right = part()
            left = self._compute(sign, left, right)
        return left

    def _compute(self, sign: _Token, left: Expression, right: Expression) -> Computed:
        for side in (left, right):
            self._quantity(side, sign)
            if measure_of(side) == "text":
                raise self._error(f"{side.text} is a text: there is no {sign.text} of it", sign.at)
        if sign.text in "+-":
            self._alike(sign, left, right)
        return Computed(sign.text, left, right, result_measure(sign.text, measure_of(left), measure_of(right)))

    def _factor(self) -> Expression:
        token = self._peek()
        if self._take("-"):
            operand = self._deeper(self._factor)
            if isinstance(operand, Literal) and isinstance(operand.value, Fraction):
                return Literal(-operand.value, operand.measure, f"-{operand.text}")
            return self._compute(token, Literal(Fraction(0), "", "0"), operand)
        if self._take("("):
            inner = self._deeper(self._condition)
            if not self._take(")"):
                raise self._expected("a closing parenthesis")
            return inner
        self._next += 1
        if token.kind == "number":
            return self._number(token)
        if token.kind == "text":
            return Literal(token.text[1:-1], "text", token.text)
        if token.kind == "name":
            return self._name(token)
        self._next -= 1
        raise self._expected("a number or a column")

    def _number(self, token: _Token) -> Literal:
        hexadecimal = token.text[:2] in ("0x", "0X")
        if len(token.text) > _MOST_DIGITS or (not hexadecimal and _HUGE_EXPONENT.search(token.text)):
            raise self._error(f"{token.text[:_MOST_DIGITS]} is no number of this world", token.at)
        value = Fraction(int(token.text, 16)) if hexadecimal else Fraction(token.text)
        unit = self._peek()
        apart = unit.at > token.at + len(token.text)
        if unit.kind != "name" or (apart and unit.text not in _UNITS):
            return Literal(value, "", token.text)
        self._next += 1
        if unit.text not in _UNITS:
            raise self._error(f"no unit {unit.text!r}; the units are {', '.join(_UNITS)}", unit.at)
        factor, measure = _UNITS[unit.text]
        return Literal(value * factor, measure, token.text + unit.text)

    def _name(self, token: _Token) -> Name:
        prefix, dot, column = token.text.rpartition(".")
        known = _measures()
        if dot and prefix in _PREFIXES and not self._comparing:
            raise self._error(f"{token.text}: {prefix}. has a meaning in `replay compare` only", token.at)
        if column not in known or (dot and prefix not in _PREFIXES):
            raise self._error(f"no column {token.text!r}", token.at, self._known_names(token.text))
        if prefix == "change" and known[column] == "text":
            raise self._error(f"{token.text}: a text has no change; compare before. with after.", token.at)
        return Name(prefix or ("after" if self._comparing else ""), column, known[column])

    def _known_names(self, wanted: str) -> str:
        column = wanted.rpartition(".")[2]
        nearest = sorted(_measures(), key=lambda name: -SequenceMatcher(None, column, name).ratio())
        lead = "before., after. or change. and a column" if self._comparing else "the columns"
        return "\n".join(wrap(f"Known, nearest first: {lead}: {', '.join(nearest)}".replace(": the columns:", ":"), 78))

    # what tokens may be

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> _Token | None:
        """Return the next token and go on, if it is one of these signs or words."""
        token = self._peek()
        if token.kind not in ("sign", "word") or token.text not in texts:
            return None
        self._next += 1
        return token

    def _deeper(self, part: Callable[[], Expression]) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error(f"more than {_DEEPEST} levels deep", self._peek().at)
        made = part()
        self._depth -= 1
        return made

    def _judged(self, tree: Expression) -> Expression:
        """Return what must be a condition."""
        if isinstance(tree, (Comparison, Joined)):
            return tree
        raise self._error(f"{tree.text} is no condition: compare it, as in {tree.text} > 0", 0)

    def _quantity(self, tree: Expression, sign: _Token) -> None:
        if isinstance(tree, (Comparison, Joined)):
            raise self._error(f"{sign.text} stands between quantities, and ({tree.text}) is a condition", sign.at)

    def _alike(self, sign: _Token, left: Expression, right: Expression) -> None:
        """Refuse to compare or add what measures different things."""
        one, other = measure_of(left), measure_of(right)
        if one and other and one != other:
            what = f"{left.text} is {_MEASURES[one]}, {right.text} is {_MEASURES[other]}"
            hint = "" if "%" not in left.text + right.text else "; a percentage fits a ratio and a change alone"
            raise self._error(f"{what}: {sign.text} has no meaning between them{hint}", sign.at)

    def _expected(self, what: str) -> ConditionError:
        token = self._peek()
        return self._error(f"expected {what}, found {repr(token.text) if token.text else 'the end'}", token.at)

    def _error(self, what: str, at: int, more: str = "") -> ConditionError:
        return ConditionError(f"{self._text.strip()!r}, character {at + 1}: {what}" + (f"\n{more}" if more else ""))


def _measures() -> dict[str, str]:
    """Return what each column of the summary measures."""
    return {column.name: _COLUMN_MEASURES.get(column.unit, "text") for column in TABLES["summary"].columns}


def result_measure(sign: str, left: str, right: str) -> str:
    """Return what a result measures, empty where that has no name: a ratio times bytes is bytes."""
    if sign in "+-":
        return left or right
    if sign == "/" and left and left == right:
        return "ratio"
    plain = ("", "ratio")
    if right in plain:
        return left if left != "ratio" or right == "ratio" else ""
    return right if left in plain and sign == "*" else ""
