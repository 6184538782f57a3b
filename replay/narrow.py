"""Columns kept in as few bytes as their values need.

In go int64 columns one by one, out comes each again when it is asked for. What the columns mean is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.columns import NULL, Int64Array

_DTYPES: Final[tuple[type[np.unsignedinteger[Any]], ...]] = (np.uint8, np.uint16, np.uint32)


class _Kept(NamedTuple):
    """The values less the lowest; with `nulls`, the highest code stands for `NULL`."""

    codes: NDArray[np.integer[Any]]
    lowest: int
    nulls: bool


class Narrow(Mapping[str, Int64Array]):
    """Columns of one length by name. Asking for one makes it anew: take it once, and write into none."""

    def __init__(self) -> None:
        """Begin without columns."""
        self._kept: dict[str, _Kept] = {}

    def keep(self, name: str, column: Int64Array) -> None:
        """Keep the values of a column."""
        self._kept[name] = _narrowed(column)

    def keep_of(self, other: Narrow, *names: str) -> None:
        """Keep columns of another, without a second copy."""
        self._kept |= {name: other._kept[name] for name in names}

    def __getitem__(self, name: str) -> Int64Array:
        """Return a column."""
        return _widened(self._kept[name])

    def at(self, name: str, rows: Int64Array) -> Int64Array:
        """Return what a column holds in some rows."""
        kept = self._kept[name]
        if len(kept.codes) and not kept.codes.strides[0]:  # one number for all rows
            return np.broadcast_to(kept.codes[0], len(rows))
        return _widened(kept._replace(codes=kept.codes[rows]))

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self._kept)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._kept)


def _widened(kept: _Kept) -> Int64Array:
    codes, lowest, nulls = kept
    if codes.dtype == np.int64:
        return codes.astype(np.int64, copy=False)
    column = codes.astype(np.int64)
    column += lowest
    if nulls:
        column[codes == np.iinfo(codes.dtype).max] = NULL
    return column


def _narrowed(column: Int64Array) -> _Kept:
    if not len(column):
        return _Kept(column, 0, nulls=False)
    null = column == NULL
    nulls = bool(null.any())
    highest = int(column.max())
    lowest = int(np.min(column, where=~null, initial=highest)) if nulls else int(column.min())
    if lowest == highest and (not nulls or highest == NULL):
        return _Kept(np.broadcast_to(np.int64(lowest), len(column)), 0, nulls=False)
    for dtype in _DTYPES:
        if highest - lowest + nulls <= np.iinfo(dtype).max:
            codes = (column - lowest).astype(dtype)
            if nulls:
                codes[null] = np.iinfo(dtype).max
            return _Kept(codes, lowest, nulls)
    return _Kept(column, 0, nulls=False)
