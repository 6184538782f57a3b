"""Classes that hold what they name, as data classes do, without code that is written and compiled at each start.

In goes a class with annotated fields, out comes one that takes them when it is made. In Python 3.11 a data class with
slots takes fifty times as long to make as a plain class, and a report of a small log needs sixty of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")
S = TypeVar("S", bound="_Fields")


class _Made:
    """Stands for the default of a field that each object makes for itself."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def field(*, default_factory: Callable[[], T]) -> T:
    """Return the default of a field that each object makes for itself."""
    made: Any = _Made(default_factory)
    return made  # type: ignore[no-any-return]


class _Fields:  # noqa: PLW1641 -- what may change has no hash
    """Holds its annotated fields; those that are not given have their defaults."""

    def __init__(self, *values: Any, **named: Any) -> None:
        """Take the fields in their order, or by name."""
        fields, own = type(self).__annotations__, vars(self)
        given = dict(zip(fields, values, strict=False)) | named
        if len(given) < len(values) + len(named) or not given.keys() <= fields.keys():
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(fields)}")
        for name in fields:
            value = given[name] if name in given else getattr(type(self), name)
            own[name] = value.make() if isinstance(value, _Made) else value

    def __eq__(self, other: object) -> bool:
        """Tell whether all fields are equal."""
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        """Return the fields with their names."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


@dataclass_transform(eq_default=True, field_specifiers=(field,))
class Struct(_Fields):
    """Holds its annotated fields, which may change."""


@dataclass_transform(eq_default=True, frozen_default=True, field_specifiers=(field,))
class Value(_Fields):
    """Holds its annotated fields, which do not change; two with equal fields are equal."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse."""
        raise AttributeError(f"{type(self).__name__}.{name} does not change")

    def __hash__(self) -> int:
        """Return the same for equal ones."""
        return hash(tuple(vars(self).values()))


def replace(struct: S, **changes: Any) -> S:
    """Return another one with other values in some fields."""
    return type(struct)(**(vars(struct) | changes))
