"""What a condition is made of: columns, numbers and texts, what is computed of them, compared and joined.

Each part says how users write it, quantities what they measure. Texts are read, and values compared, elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, in the unit that columns have, or a text, and how it was written."""

    value: Fraction | str
    measure: str
    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """A column, of one run (`prefix` is empty) or of a side of a comparison."""

    prefix: str
    column: str
    measure: str

    @property
    def text(self) -> str:
        """The name as users write it."""
        return f"{self.prefix}.{self.column}" if self.prefix else self.column


@dataclass(frozen=True, slots=True)
class Computed:
    """Two quantities added, subtracted, multiplied or divided."""

    sign: str
    left: Expression
    right: Expression
    measure: str

    @property
    def text(self) -> str:
        """The computation as users write it."""
        return f"({self.left.text} {self.sign} {self.right.text})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two quantities compared; a share of before, if `relative`: `change.X > 5%`."""

    sign: str
    left: Expression
    right: Expression
    relative: bool

    @property
    def text(self) -> str:
        """The comparison as users write it."""
        return f"{self.left.text} {self.sign} {self.right.text}"


@dataclass(frozen=True, slots=True)
class Joined:
    """Conditions joined by `and` or `or`, or one negated by `not`."""

    word: str
    parts: tuple[Expression, ...]

    @property
    def text(self) -> str:
        """The condition as users write it."""
        if self.word == "not":
            return f"not ({self.parts[0].text})"
        return f" {self.word} ".join(f"({part.text})" if isinstance(part, Joined) else part.text for part in self.parts)


Expression: TypeAlias = Literal | Name | Computed | Comparison | Joined


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition as it was written, and what it is made of."""

    text: str
    tree: Expression


def measure_of(tree: Expression) -> str:
    """Return what a quantity measures: `bytes ns count ratio text`, or empty where anything fits."""
    return "" if isinstance(tree, (Comparison, Joined)) else tree.measure


def is_change(tree: Expression) -> bool:
    """Tell whether a quantity is the change of one column."""
    return isinstance(tree, Name) and tree.prefix == "change"


def is_percentage(tree: Expression) -> bool:
    """Tell whether a quantity is a number written with a per cent sign."""
    return isinstance(tree, Literal) and tree.text.endswith("%")
