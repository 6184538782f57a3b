"""Rows of numbers written out by forms: bytes that all rows of a form have, and between them numbers of each row.

In go forms and columns, out come bytes, many rows at a time. What is written, text or binary, the forms say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array
from replay.engine.native import Loop

UInt64Array: TypeAlias = NDArray[np.uint64]
Bytes: TypeAlias = NDArray[np.uint8]

DECIMAL: Final = 0
HEXADECIMAL: Final = 1
THOUSANDTHS: Final = 2
"""In decimal, divided by 1,000: with three decimals, where they are not zero."""
TEXT: Final = 3
"""The text that has the number as its place."""
VARINT: Final = 4
"""As protobuf's varint, in so many bytes as the form says: those that are not needed say that another one follows."""
FIXED64: Final = 5
"""In eight bytes, the lowest first."""
CONSTANT: Final = 6

LONGEST: Final = 24
"""No number takes more bytes: 2^64 in decimal has 20, and a point."""

PIECE: Final = 1 << 15
"""So many rows are written at once."""

_MORE, _SEVEN_BITS, _BYTE = np.uint64(0x80), np.uint64(0x7F), np.uint64(0xFF)
_EIGHT, _SEVEN, _FOUR = np.uint64(8), np.uint64(7), np.uint64(4)
_TEN, _THOUSAND, _SIXTEEN = np.uint64(10), np.uint64(1000), np.uint64(16)
_ZERO, _LETTER, _POINT = np.uint64(ord("0")), np.uint64(ord("a") - 10), np.uint8(ord("."))


class Number(NamedTuple):
    """A number of each row: the column that it stands in, how it is written, and for a varint in how many bytes."""

    column: int
    style: int
    width: int = 0


Form: TypeAlias = Sequence["bytes | Number"]


def written(
    forms: Sequence[Form], form: Int64Array, row: Int64Array, columns: UInt64Array, texts: Sequence[bytes] = ()
) -> Iterator[bytes]:
    """Yield rows as bytes, each by a form: `row` are places in each of the `columns`, `form` those in `forms`."""
    constants = [part for each in forms for part in each if isinstance(part, bytes)]
    pool = [*texts, *constants]
    ends = np.cumsum([0, *map(len, pool)])
    following = iter(range(len(texts), len(pool)))
    parts = [
        (CONSTANT, next(following), 0) if isinstance(part, bytes) else (part.style, part.column, part.width)
        for each in forms
        for part in each
    ]
    first = np.cumsum([0, *map(len, forms)])
    room = max((_room(each, texts) for each in forms), default=0)
    layout = (first, np.array(parts, np.int64).reshape(-1, 3), np.frombuffer(b"".join(pool), np.uint8), ends)
    out = np.empty(room * min(PIECE, len(row)), np.uint8)
    for low in range(0, len(row), PIECE):
        (length,) = _write(form[low : low + PIECE], row[low : low + PIECE], columns, layout, out)
        yield out[:length].tobytes()


def _room(form: Form, texts: Sequence[bytes]) -> int:
    """Return how many bytes a row of a form has at most."""
    longest = {TEXT: max(map(len, texts), default=0)}
    return sum(len(part) if isinstance(part, bytes) else longest.get(part.style, LONGEST) for part in form)


# --- compiled --------------------------------------------------------------------------------------------------------

Layout: TypeAlias = tuple[Int64Array, Int64Array, Bytes, Int64Array]
"""The first part of each form, the parts (style, column or place in the pool, width), the pool, where its texts end."""


def _write_rows(form: Int64Array, row: Int64Array, columns: UInt64Array, layout: Layout, out: Bytes) -> int:
    """Write rows and return how many bytes they are."""
    first, parts, pool, ends = layout
    at = 0
    for each in range(len(row)):
        for part in range(first[form[each]], first[form[each] + 1]):
            style, place = parts[part, 0], parts[part, 1]
            if style == CONSTANT:
                at = _copied(pool, ends, place, out, at)
                continue
            value = columns[place, row[each]]
            if style == TEXT:
                at = _copied(pool, ends, int(np.int64(value)), out, at)
            elif style == VARINT:
                at = _varint(value, parts[part, 2], out, at)
            elif style == FIXED64:
                at = _fixed(value, out, at)
            elif style == HEXADECIMAL:
                at = _hexadecimal(value, out, at)
            elif style == THOUSANDTHS:
                at = _thousandths(value, out, at)
            else:
                at = _decimal(value, out, at)
    return at


def _copied(pool: Bytes, ends: Int64Array, place: int, out: Bytes, at: int) -> int:
    for source in range(ends[place], ends[place + 1]):
        out[at] = pool[source]
        at += 1
    return at


def _varint(value: np.uint64, width: int, out: Bytes, at: int) -> int:
    for place in range(width):
        low = value & _SEVEN_BITS
        out[at + place] = np.uint8(low | _MORE if place + 1 < width else low)
        value = value >> _SEVEN
    return at + width


def _fixed(value: np.uint64, out: Bytes, at: int) -> int:
    for place in range(8):
        out[at + place] = np.uint8(value & _BYTE)
        value = value >> _EIGHT
    return at + 8


def _decimal(value: np.uint64, out: Bytes, at: int) -> int:
    end, rest = at + 1, value // _TEN
    while rest:
        end, rest = end + 1, rest // _TEN
    for place in range(end - 1, at - 1, -1):
        out[place] = np.uint8(_ZERO + value % _TEN)
        value = value // _TEN
    return end


def _hexadecimal(value: np.uint64, out: Bytes, at: int) -> int:
    end, rest = at + 1, value >> _FOUR
    while rest:
        end, rest = end + 1, rest >> _FOUR
    for place in range(end - 1, at - 1, -1):
        digit = value % _SIXTEEN
        out[place] = np.uint8(digit + _ZERO if digit < _TEN else digit + _LETTER)
        value = value >> _FOUR
    return end


def _thousandths(value: np.uint64, out: Bytes, at: int) -> int:
    at = _decimal(value // _THOUSAND, out, at)
    rest = value % _THOUSAND
    if rest:
        _decimal(rest + _THOUSAND, out, at)  # its first digit keeps the zeros behind it, and gives way to the point
        out[at] = _POINT
        at += 4
    return at


def _like() -> tuple[Any, ...]:
    """Return arguments of the layout that the loop is compiled for."""
    numbers, rows = np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
    columns, text = np.zeros((0, 0), np.uint64), np.zeros(0, np.uint8)
    return numbers, numbers, columns, (numbers, rows, text, numbers), text


_write: Final = Loop(
    _write_rows, _like, inlined=(_copied, _varint, _fixed, _decimal, _hexadecimal, _thousandths), results=1
)
