"""From a condition and the values of columns to whether it holds, why, and what was not known.

In go the trees of `expression` and values by name, out come judgements with their reasons in words.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, TypeAlias

from replay.conditions.expression import parse_condition
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
from replay.console.amounts import duration, size

Quantity: TypeAlias = "Fraction | float | str | None"
"""A number (a float only where it is infinite), a text, or None where nothing is known."""

Values: TypeAlias = Mapping[str, Any]
"""What columns hold, by name: `brk_failures`, or `before.brk_failures` and `after.brk_failures` of a comparison."""

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda part, whole: part in whole,
}
_COMPUTE: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


@dataclass(frozen=True, slots=True)
class Reason:
    """One comparison that made a condition hold: both values in words, and their lines in the log where known."""

    comparison: str
    values: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        """Return the reason in one line: `44 > 0 (first in line 66)`."""
        where = f" ({'; '.join(self.places)})" if self.places else ""
        return f"{self.values}{where}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a condition holds, why, and which of its names have no value: a comparison with these is false."""

    condition: str
    holds: bool
    reasons: tuple[Reason, ...]
    unknown: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return what to tell of a condition that holds: it, then each reason."""
        return [f"condition holds: {self.condition}", *(f"  {reason.comparison}: {reason}" for reason in self.reasons)]


def judge(condition: Condition, values: Values, places: Mapping[str, str] | None = None) -> Judgement:
    """Return whether a condition holds.

    Args:
        condition: the condition.
        values: the columns of the summary; of a comparison, as `comparison_values` gives them.
        places: where in the log a column's value comes from, by the same names: `first in line 66`.
    """
    judging = _Judging(values, places or {})
    holds = judging.holds(condition.tree)
    reasons = tuple(dict.fromkeys(judging.reasons(condition.tree, holds))) if holds else ()
    return Judgement(condition.text, holds, reasons, tuple(dict.fromkeys(judging.unknown)))


def conditions_that_hold(
    expressions: Iterable[str | Condition], values: Values, places: Mapping[str, str] | None = None
) -> list[Judgement]:
    """Return the judgements of those conditions on one run that hold.

    Raises:
        ConditionError: an expression is no condition.
    """
    conditions = (parse_condition(entry) if isinstance(entry, str) else entry for entry in expressions)
    judged = (judge(condition, values, places) for condition in conditions)
    return [judgement for judgement in judged if judgement.holds]


def comparison_values(before: Values, after: Values) -> dict[str, Any]:
    """Return the values, or places, of two sides as `judge` takes them."""
    sides = (("before", before), ("after", after))
    return {f"{side}.{name}": value for side, values in sides for name, value in values.items()}


class _Judging:
    """One set of values, and what was not in it."""

    def __init__(self, values: Values, places: Mapping[str, str]) -> None:
        self._values = values
        self._places = places
        self.unknown: list[str] = []

    def holds(self, tree: Expression) -> bool:
        """Tell whether a condition holds; every comparison is made, so that every unknown value is seen."""
        if isinstance(tree, Comparison):
            return self._compare(tree)
        assert isinstance(tree, Joined)
        answers = [self.holds(part) for part in tree.parts]
        if tree.word == "not":
            return not answers[0]
        return all(answers) if tree.word == "and" else any(answers)

    def reasons(self, tree: Expression, wanted: bool) -> Iterator[Reason]:
        """Yield the comparisons that make a condition come out as `wanted`."""
        if isinstance(tree, Joined):
            for part in tree.parts:
                expected = not wanted if tree.word == "not" else wanted
                if self.holds(part) is expected:
                    yield from self.reasons(part, expected)
            return
        assert isinstance(tree, Comparison)
        left, right = (self._said(side, tree.relative) for side in (tree.left, tree.right))
        names = dict.fromkeys(name for side in (tree.left, tree.right) for name in _names(side))
        places = dict.fromkeys(place for name in names if (place := self._place(name)))
        yield Reason(tree.text, f"{left} {tree.sign if wanted else 'is not ' + tree.sign} {right}", tuple(places))

    def _compare(self, tree: Comparison) -> bool:
        left, right = (self._quantity(side, tree.relative) for side in (tree.left, tree.right))
        return left is not None and right is not None and _COMPARE[tree.sign](left, right)

    def _quantity(self, tree: Expression, relative: bool = False) -> Quantity:
        if isinstance(tree, Literal):
            return tree.value
        if isinstance(tree, Name):
            return self._column(tree, relative)
        assert isinstance(tree, Computed)
        left, right = self._quantity(tree.left), self._quantity(tree.right)
        if left is None or right is None:
            return None
        if tree.sign == "/" and right == 0:
            self.unknown.append(f"{tree.text}, a division by zero")
            return None
        result: Quantity = _COMPUTE[tree.sign](left, right)
        return result

    def _column(self, name: Name, relative: bool) -> Quantity:
        if name.prefix != "change":
            return self._known(name.text)
        before, after = self._known(f"before.{name.column}"), self._known(f"after.{name.column}")
        if not isinstance(before, Fraction) or not isinstance(after, Fraction):
            return None
        return _share(before, after) if relative else after - before

    def _known(self, key: str) -> Quantity:
        value = _plain(self._values.get(key))
        if value is None:
            self.unknown.append(key)
        return value

    def _said(self, tree: Expression, relative: bool) -> str:
        value = self._quantity(tree, relative)
        if not is_change(tree):
            return _in_words(value, "ratio" if relative else measure_of(tree), percent=is_percentage(tree))
        assert isinstance(tree, Name)
        sides = (_in_words(self._known(f"{side}.{tree.column}"), tree.measure) for side in ("before", "after"))
        return f"{_in_words(value, tree.measure, percent=relative, signed=True)} ({' to '.join(sides)})"

    def _place(self, name: Name) -> str:
        key = f"after.{name.column}" if name.prefix == "change" else name.text
        return self._places.get(key, "")


def _names(tree: Expression) -> Iterator[Name]:
    if isinstance(tree, Name):
        yield tree
    elif isinstance(tree, Computed):
        yield from _names(tree.left)
        yield from _names(tree.right)


def _plain(value: Any) -> Quantity:
    """Return a column's value as an exact number or a text, None for each kind of null."""
    if isinstance(value, str):
        return value
    try:
        return None if value is None else Fraction(value)
    except (TypeError, ValueError, OverflowError):  # pandas.NA, nan, infinity
        return None


def _share(before: Fraction, after: Fraction) -> Fraction | float:
    """Return a change as a share of before; from 0 to something it is infinite."""
    if before:
        return (after - before) / abs(before)
    return Fraction(0) if not after else math.copysign(math.inf, after)


def _in_words(value: Quantity, measure: str, *, percent: bool = False, signed: bool = False) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return repr(value)
    sign = "+" if signed and value > 0 else ""
    if isinstance(value, float):
        return f"{sign}infinite"
    if percent:
        return f"{sign}{float(value * 100):.4g} %"
    if value.denominator == 1 and measure in ("bytes", "ns"):
        words = size(abs(int(value))) if measure == "bytes" else duration(abs(int(value)))
        return f"{sign}{'-' if value < 0 else ''}{words}"
    return f"{sign}{int(value):,}" if value.denominator == 1 else f"{sign}{float(value):.4g}"


def all_lines(judgements: Iterable[Judgement]) -> list[str]:
    """Return what to tell of judgements: the conditions that hold with their reasons, then what was unknown."""
    judged = list(judgements)
    held = [line for judgement in judged if judgement.holds for line in judgement.lines()]
    return held + [
        f"cannot be judged: {judgement.condition}: no value for {', '.join(judgement.unknown)}, as far as the log "
        "shows; a comparison with it counts as false"
        for judgement in judged
        if judgement.unknown
    ]
