"""Classes that hold what they name: made as data classes are, equal by their fields, and refusing what they lack."""

from __future__ import annotations

import pytest

from replay.engine.structs import Struct, Value, field, replace


class Bag(Struct):
    name: str
    size: int = 3
    things: list[int] = field(default_factory=list)


class Point(Value):
    x: int
    y: int = 0


def test_fields_come_in_their_order_by_name_or_from_their_defaults() -> None:
    bag = Bag("a", things=[1])
    assert (bag.name, bag.size, bag.things) == ("a", 3, [1])
    assert repr(bag) == "Bag(name='a', size=3, things=[1])"


def test_each_object_makes_its_own_default() -> None:
    first, second = Bag("a"), Bag("a")
    assert first == second
    first.things.append(1)
    assert second.things == []


def test_a_value_is_equal_to_another_with_equal_fields_and_does_not_change() -> None:
    point = Point(1)
    assert {point: "here"}[Point(y=0, x=1)] == "here"
    assert point != Point(1, 2) == replace(point, y=2)
    with pytest.raises(AttributeError, match=r"Point\.x"):
        point.x = 2  # type: ignore[misc]


@pytest.mark.parametrize("values", [(), (1, 2, 3)])
def test_too_few_values_and_too_many_are_errors(values: tuple[int, ...]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        Point(*values)


def test_a_field_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="x, y"):
        Point(1, z=2)  # type: ignore[call-arg]
