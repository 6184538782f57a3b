"""Lines that say what cannot be: results that a call cannot have, numbers that do not fit their places.

In go the columns of lines, out come the places of those not to be believed: one of their numbers was cut or broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import distinct
from replay.lines.templates import CLOCKS, KIND_CODE, MOST_NS, NARROW
from replay.linux.constants import CALL_CODE, MAP_FLAGS

_CALL, _CLOSED = KIND_CODE["call"], KIND_CODE["closed"]
_MMAP, _MREMAP = CALL_CODE["mmap"], CALL_CODE["mremap"]
_SMALLEST_PAGE: Final = 4096
_ERRORS: Final = 4095
_INT: Final = 1 << 32


def impossible(kind: Int64Array, call: Int64Array, numbers: Mapping[str, Int64Array]) -> Int64Array:
    """Return the places of lines that say what cannot be.

    A mapping begins at a page, and where MAP_FIXED asked for. Source: mmap(2), mremap(2). Ids and descriptors are ints.
    No clock reaches `MOST_NS`.
    """
    found = [_too_wide(numbers[key]) for key in NARROW if key in numbers]
    found += [_too_late(numbers[key]) for key in CLOCKS if key in numbers]
    rows = np.flatnonzero(((call == _MMAP) | (call == _MREMAP)) & ((kind == _CALL) | (kind == _CLOSED)))
    if len(rows) and "result" in numbers:
        found.append(rows[_wrong_place(rows, call, numbers)])
    bad = distinct(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return bad[kind[bad] >= 0]


def _too_wide(values: Int64Array) -> Int64Array:
    """Return where numbers are no ints, as they are or as an unsigned one is printed."""
    return np.flatnonzero((values >= _INT) | ((values < -_INT // 2) & (values != NULL)))


def _too_late(values: Int64Array) -> Int64Array:
    """Return where numbers are no nanoseconds of a clock; negative ones were too large for the column."""
    return np.flatnonzero((values >= MOST_NS) | ((values < 0) & (values != NULL)))


def _wrong_place(rows: Int64Array, call: Int64Array, numbers: Mapping[str, Int64Array]) -> NDArray[np.bool_]:
    """Return which of the mappings at `rows` are where none can be; those that failed or never ran are nowhere."""
    result = numbers["result"][rows]
    failed = ((result < 0) & (result >= -_ERRORS)) | ((result < _INT) & (result >= _INT - _ERRORS))
    ran = (result != NULL) & ~failed
    for key in ("injected", "errno"):
        ran &= (numbers[key][rows] == NULL) if key in numbers else True
    wrong = result % _SMALLEST_PAGE != 0
    if "addr" in numbers and "flags" in numbers:
        flags, addr = numbers["flags"][rows], numbers["addr"][rows]
        fixed = (call[rows] == _MMAP) & (flags != NULL) & (addr != NULL) & (flags & MAP_FLAGS["MAP_FIXED"] != 0)
        wrong |= fixed & ((result ^ addr) % _INT != 0)
    bad: NDArray[np.bool_] = ran & wrong
    return bad
