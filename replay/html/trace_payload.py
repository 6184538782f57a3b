"""Columns of integers as one text that a page carries and a browser unpacks by itself.

In go arrays and values for JSON, out comes base64 of a deflated stream: a JSON head, then the bytes of each column,
byte planes one after the other. Neighbouring values are alike, so that a column may be kept as differences.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from replay.engine.columns import Int64Array

_LEVEL: Final = 6


def packed(head: Mapping[str, Any], columns: Mapping[str, Int64Array]) -> str:
    """Return the head and the columns as base64 text; the head gets a list `columns` that says how each is kept."""
    facts, planes = [], []
    for name, column in columns.items():
        kept, is_difference = _kept(np.asarray(column, np.int64))
        width = _width(kept)
        facts.append([name, len(kept), width, int(is_difference)])
        planes += [np.ascontiguousarray((kept >> np.uint64(8 * at)).astype(np.uint8)).tobytes() for at in range(width)]
    text = json.dumps({**head, "columns": facts}, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS)
    parts = [packer.compress(part) for part in (len(text).to_bytes(4, "little"), text, *planes)]
    return base64.b64encode(b"".join([*parts, packer.flush()])).decode("ascii")


def _kept(column: Int64Array) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], bool]:
    """Return a column without signs, as values or as differences, whichever has fewer bits, and which it is."""
    values = _unsigned(column)
    differences = _unsigned(np.diff(column, prepend=0))
    return (differences, True) if _bits(differences) < _bits(values) else (values, False)


def _unsigned(values: Int64Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return integers with the sign in the lowest bit: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return ((values << 1) ^ (values >> 63)).astype(np.uint64)


def _bits(values: np.ndarray[Any, np.dtype[np.uint64]]) -> float:
    return float(np.log2(values.astype(np.float64) + 1).sum())


def _width(values: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
    """Return how many bytes the largest of the values takes, at least one."""
    return max(1, -(-int(values.max(initial=0)).bit_length() // 8))
