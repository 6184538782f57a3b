"""The order that sorts a column, found fast.

In go columns of numbers, out come the places of their rows in ascending order. What the numbers mean is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array

Scalar = TypeVar("Scalar", bound=np.generic)


def ascending(keys: Int64Array) -> Int64Array:
    """Return the places of the keys in ascending order; equal keys keep theirs.

    Sorting plain numbers is many times faster than sorting places by them. So each key is sorted with its place in the
    low bits, less what all keys have in common; where both need more bits than there are, the keys' ranks take their
    place.
    """
    count = len(keys)
    if count < 2 or bool((keys[1:] >= keys[:-1]).all()):
        return np.arange(count, dtype=np.int64)
    lowest = int(keys.min())
    span = int(keys.max()) - lowest
    place_bits = (count - 1).bit_length()
    if span.bit_length() + place_bits < 64:
        return _by_packed(keys - lowest, place_bits)
    if span.bit_length() < 64:
        offsets = keys - lowest
        common = int(np.bitwise_or.reduce(offsets))
        unused = (common & -common).bit_length() - 1
        if span.bit_length() - unused + place_bits < 64:
            return _by_packed(offsets >> unused, place_bits)
    order = np.argsort(keys).astype(np.int64, copy=False)
    ordered = keys[order]
    ranks = np.zeros(count, dtype=np.int64)
    np.cumsum(ordered[1:] != ordered[:-1], out=ranks[1:])
    ranks <<= place_bits
    ranks |= order
    ranks.sort()
    ranks &= (1 << place_bits) - 1
    return ranks


def _by_packed(keys: Int64Array, place_bits: int) -> Int64Array:
    """Return the order of keys, none negative, that leave room for their places in the low bits; `keys` is used up."""
    keys <<= place_bits
    keys |= np.arange(len(keys), dtype=np.int64)
    keys.sort()
    keys &= (1 << place_bits) - 1
    return keys


def ascending_by(*keys: Int64Array) -> Int64Array:
    """Return the places of rows in ascending order of the first key, where that is equal of the next, else as they are.

    That is what `numpy.lexsort` returns for the keys reversed, several times faster.
    """
    order = ascending(keys[-1])
    for key in reversed(keys[:-1]):
        if not bool((key[:1] == key).all()):
            order = order[ascending(key[order])]
    return order


def distinct(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return the values that occur, each once, in ascending order.

    NumPy's `unique` imports masked arrays for this, and its table of hashes is slower than sorting.
    """
    ordered = np.sort(values)
    fresh = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered[fresh]


def distinct_places(values: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the values that occur, each once, in ascending order, and for each of `values` its place among them.

    That is what NumPy's `unique` returns with `return_inverse`, several times faster.
    """
    order = ascending(values)
    ordered = values[order]
    fresh = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    places = np.empty(len(values), dtype=np.int64)
    places[order] = np.cumsum(fresh) - 1
    return ordered[fresh], places


def firsts(values: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the values that occur, in ascending order, and the place where each stands first.

    That is what NumPy's `unique` returns with `return_index`; where the values lie close together, nothing is sorted.
    """
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if high - low > _CLOSE:
        found, places = np.unique(values, return_index=True)
        return found, places.astype(np.int64, copy=False)
    first = np.full(high - low + 1, -1, dtype=np.int64)
    first[values[::-1] - low] = np.arange(len(values) - 1, -1, -1)  # of several for one place the last one stays
    present = np.flatnonzero(first >= 0)
    return present + low, first[present]


def lasts(values: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the values that occur, in ascending order, and the place where each stands last."""
    found, places = firsts(values[::-1])
    return found, len(values) - 1 - places


_CLOSE: Final = 1 << 15
"""Values whose range is no larger are found by a table; such are most process ids of a log."""


def is_ascending(keys: Sequence[NDArray[Any]]) -> bool:
    """Tell whether rows are sorted by `keys`, columns of one length, the first one first."""
    equal = np.ones(max(len(keys[0]) - 1, 0), dtype=np.bool_)
    for key in keys:
        before, after = key[:-1], key[1:]
        if (equal & (after < before)).any():
            return False
        equal &= after == before
    return True


def take_groups(columns: Iterable[Int64Array]) -> tuple[Int64Array, Int64Array]:
    """Return the first row of each distinct combination of values, and for each row the number of its combination."""
    keys = list(columns)
    count = len(keys[0])
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    by_key = np.lexsort(keys[::-1])
    fresh = np.zeros(count, dtype=np.bool_)
    fresh[0] = True
    for key in keys:
        ordered = key[by_key]
        fresh[1:] |= ordered[1:] != ordered[:-1]
    group = np.empty(count, dtype=np.int64)
    group[by_key] = np.cumsum(fresh) - 1
    return by_key[fresh].astype(np.int64, copy=False), group


def is_among(values: Int64Array, those: Int64Array) -> NDArray[np.bool_]:
    """Return which values are among those, which ascend."""
    if not len(those):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.minimum(np.searchsorted(those, values), len(those) - 1)
    among: NDArray[np.bool_] = those[place] == values
    return among
