"""Records: rows of whole numbers that have names, `row.prot`, in loops that are compiled and in loops that are not.

In goes a class that names the numbers of a row, out comes how such rows lie in arrays. What the numbers mean is said
where the class stands.
"""

from __future__ import annotations

from inspect import get_annotations
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array

Records: TypeAlias = NDArray[np.void]
"""An array of rows: `rows[3].prot` is a number of one, `rows["prot"]` are those of all, in a column."""


def layout(record: type, **lengths: int) -> np.dtype[np.void]:
    """Return the type of arrays whose rows hold what `record` names, in that order: int64, or so many of them.

    numba reads such a number as fast as one of an array. NumPy's own `np.record` is slow at it, and reads `flags` as
    the flags of an array.
    """
    names = [name for kind in reversed(record.__mro__) for name in get_annotations(kind)]
    row = type(record.__name__, (np.void,), {"__slots__": (), **{name: _number(name) for name in names}})
    return np.dtype((row, [(name, np.int64, lengths[name]) if name in lengths else (name, np.int64) for name in names]))


def _number(name: str) -> property:
    """Return the attribute that is the number of that name in a row."""

    def put(row: Any, value: int) -> None:
        row[name] = value

    return property(itemgetter(name), put)


def numbers_of(rows: Records) -> Int64Array:
    """Return the numbers of rows without their names, (rows, numbers); what is written there is written to `rows`."""
    return rows.view(np.int64).reshape(len(rows), rows.dtype.itemsize // 8)


def columns_of(*parts: Records) -> dict[str, Int64Array]:
    """Return the numbers of the rows of all parts, which are of one type, as columns by name: quicker to go through."""
    names = parts[0].dtype.names or ()
    columns = np.empty((len(names), sum(map(len, parts))), np.int64)
    np.concatenate([numbers_of(part) for part in parts], out=columns.T)
    return dict(zip(names, columns, strict=True))
