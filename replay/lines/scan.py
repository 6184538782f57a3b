"""Where the lines of a chunk are, what shape each has, and its slots.

In go bytes, out come arrays over lines and over slots. What a line means is not known here.

A *slot* is a free-standing number (decimal or `0x` hexadecimal), a quoted string, a path `<...>` right behind a number
or `AT_FDCWD`, or a bare hexadecimal address in brackets. A *shape* is a line with a mark in place of each slot. The
mark tells the kind of the slot, for the digits behind a decimal point how many there are, and how long those numbers
are whose length has a meaning: the first two of a line (a pid and a time differ in nothing else), and those of a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array
from replay.lines.interest import without_passed_over

Bytes: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]
Hashes: TypeAlias = NDArray[np.uint64]

LONGEST_SHAPE: Final = 4096
LONGEST_NUMBER: Final = 24
MOST_LEAVES: Final = (1 << 12) - 1
"""So many shapes a tree of shapes may have, see `Scan.leaf`."""

TEXT, PATH, DECIMAL, HEXADECIMAL, OCTAL = 1, 2, 3, 4, 5
FRACTION: Final = 0x0E
LEADING: Final = 0x80
ADDRESS: Final = 0xA0
"""Marks of slots in a shape, bytes that hardly stand in lines. The last three have the length of the slot added."""

WEIGHTS: Final = np.frombuffer(Random(20).randbytes(8 * LONGEST_SHAPE), dtype=np.uint64) | np.uint64(1)
"""Factors of the hash of a shape, odd and random: two shapes agree with a chance of less than 2**-57."""


class Scan(NamedTuple):
    """A chunk, scanned: arrays over its lines that are neither empty nor passed over, and over their slots.

    `row` is the place of a line among those of the chunk; all other places are in `data`, where a newline is before the
    first line or, for places below 0, at the end.
    `first_slot` has one entry more than there are lines: the slots of line `i` are `[first_slot[i], first_slot[i+1])`.
    `leaf` is the number of the shape where the line was scanned along a tree of shapes, else 0.
    A slot's span `[slot_start, slot_end)` holds quotes and angle brackets too. `value` is that of a number, modulo
    2**64; that of a text is a hash of its span, by which texts are told apart as shapes are, or 0 where it is too long
    for one. `unsure` lines have texts whose ends only a parse can tell. `lines` counts all lines of the chunk; where it
    is `plain`, nothing in it may have to be taken out (see `chunks.chunk_of`), which only `scan_compiled` tells.
    """

    data: bytes
    row: Int64Array
    start: Int64Array
    end: Int64Array
    shape: Hashes
    leaf: Int64Array
    unsure: Bools
    first_slot: Int64Array
    slot_start: Int64Array
    slot_end: Int64Array
    slot_mark: Bytes
    value: Hashes
    lines: int
    plain: bool


def scan(lines: bytes, dialect: str) -> Scan:
    """Return where the lines are that are not to be passed over, their shapes and their slots.

    Quotes inside of strings have a backslash in strace; ltrace writes them raw.
    """
    escaped_quotes = dialect == "strace"
    data = without_passed_over(b"\n" + lines, dialect)
    buffer = np.frombuffer(data, dtype=np.uint8)
    newline = np.flatnonzero(buffer == 10)
    start, end = newline[:-1] + 1, newline[1:]
    slots = _number_slots(buffer)
    texts, unsure_places = _text_slots(buffer, newline, escaped_quotes=escaped_quotes)
    if len(texts.start):
        slots = _merged(slots, texts)
    first = np.searchsorted(slots.start, np.append(start, len(buffer)))
    _mark_leading(slots, first)
    shape, shape_length = _shape_hashes(buffer, slots)
    unsure = shape_length > LONGEST_SHAPE
    unsure[np.searchsorted(newline, unsure_places) - 1] = True
    row = np.flatnonzero(end > start)
    first_slot = np.append(first[row], first[-1])
    where = (data, row, start[row], end[row], shape[row], np.zeros(len(row), np.int64), unsure[row], first_slot)
    return Scan(*where, slots.start, slots.end, slots.mark, slots.value, lines=len(start), plain=False)


@dataclass(slots=True)
class _Slots:
    """Slots in order of place: spans `[start, end)`, marks, and the values of the numbers."""

    start: Int64Array
    end: Int64Array
    mark: Bytes
    value: Hashes


def _number_slots(buffer: Bytes) -> _Slots:
    """Return the slots that are numbers or bare addresses, those inside of texts included."""
    letter = (buffer | 32) - np.uint8(97) < 26
    word = letter | (buffer - np.uint8(48) < 10) | (buffer == 95)
    edge = np.flatnonzero(word[1:] != word[:-1]) + 1
    start, end = edge[0::2], edge[1::2]
    first = buffer[start]
    digit = first - np.uint8(48) < 10
    address = ~digit & (first - np.uint8(97) < 6) & (end - start >= 5)
    place = np.flatnonzero(address)
    address[place] = (buffer[start[place] - 1] == 91) & (buffer[end[place]] == 93)
    chosen = digit | address
    start, end = start[chosen], end[chosen]
    return _valued(buffer, start, end)


def _valued(buffer: Bytes, start: Int64Array, end: Int64Array) -> _Slots:
    """Return the words `[start, end)` that are numbers or bare addresses, with values and marks."""
    hexadecimal = (buffer[start] == 48) & (buffer[start + 1] == 120) & (end - start > 2)
    begin = start + 2 * hexadecimal
    length = end - begin
    value = np.zeros(len(start), dtype=np.uint64)
    valid = np.zeros(len(start), dtype=bool)
    kind = length + 32 * hexadecimal
    kind[length > LONGEST_NUMBER] = 0
    for code in np.flatnonzero(np.bincount(kind, minlength=1)):
        if code & 31:
            of_kind = np.flatnonzero(kind == code)
            value[of_kind], valid[of_kind] = _read(buffer, begin[of_kind], int(code) & 31, 16 if code & 32 else 10)
    mark = np.where(hexadecimal, np.uint8(HEXADECIMAL), np.uint8(DECIMAL))
    mark[(buffer[start] == 48) & (length > 1) & ~hexadecimal] = OCTAL
    clock = np.flatnonzero(((buffer[start - 1] == 58) | (buffer[end] == 58)) & ~hexadecimal)
    mark[clock] = LEADING + length[clock]
    fraction = np.flatnonzero((buffer[start - 1] == 46) & ~hexadecimal)
    fraction = fraction[buffer[start[fraction] - 2] - np.uint8(48) < 10]
    mark[fraction] = FRACTION + np.minimum(length[fraction], 17)
    valid[fraction[length[fraction] > 17]] = False
    bare = np.flatnonzero((~valid | (length >= 8)) & (length <= LONGEST_NUMBER) & ~hexadecimal)
    bare = bare[(buffer[start[bare] - 1] == 91) & (buffer[end[bare]] == 93)]
    for size in set(length[bare].tolist()):
        of_size = bare[length[bare] == size]
        _, valid[of_size] = _read(buffer, begin[of_size], size, 16)
    mark[bare] = ADDRESS + length[bare]
    return _Slots(start[valid], end[valid], mark[valid], value[valid])


def _read(buffer: Bytes, begin: Int64Array, length: int, base: int) -> tuple[Hashes, Bools]:
    """Return the values, modulo 2**64, of numbers of one length and base, and which of them are numbers."""
    value = np.zeros(len(begin), dtype=np.uint64)
    valid = np.ones(len(begin), dtype=bool)
    for offset in range(length):
        character = buffer[begin + offset]
        digit = character - np.uint8(48)
        if base == 16:
            letter = character - np.uint8(97)
            valid &= (digit < 10) | (letter < 6)
            digit = np.where(digit < 10, digit, letter + np.uint8(10))
        else:
            valid &= digit < 10
        value = value * np.uint64(base) + digit
    return value, valid


def _text_slots(buffer: Bytes, newline: Int64Array, *, escaped_quotes: bool) -> tuple[_Slots, Int64Array]:
    """Return the slots that are strings or paths, and places in lines whose texts only a parse can tell apart."""
    quote = np.flatnonzero(buffer == 34)
    less = np.flatnonzero(buffer == 60)
    less = less[_behind_descriptor(buffer, less)]
    string_start, string_end, unsure = _strings(buffer, quote, newline, escaped_quotes=escaped_quotes)
    path_start, path_end, doubtful = _paths(buffer, less, string_start, string_end)
    if len(path_start) and len(quote):
        plain = quote[buffer[quote - 1] != 92]
        quoted = np.searchsorted(plain, path_start) != np.searchsorted(plain, path_end)
        doubtful = np.concatenate([doubtful, path_start[quoted]])
        path_start, path_end = path_start[~quoted], path_end[~quoted]
    start = np.concatenate([string_start, path_start])
    mark = np.repeat(np.array([TEXT, PATH], dtype=np.uint8), [len(string_start), len(path_start)])
    end = np.concatenate([string_end, path_end])
    order = np.argsort(start, kind="stable")
    start, end, mark = start[order], end[order], mark[order]
    return _Slots(start, end, mark, _text_values(buffer, start, end)), np.concatenate([unsure, doubtful])


def _text_values(buffer: Bytes, start: Int64Array, end: Int64Array) -> Hashes:
    """Return the hashes of texts, 0 for those that are too long for one."""
    length = end - start
    value = np.zeros(len(start), dtype=np.uint64)
    chosen = np.flatnonzero(length <= LONGEST_SHAPE)
    if len(chosen):
        length = length[chosen]
        first = np.cumsum(length) - length
        place = np.arange(length.sum()) - np.repeat(first, length)
        value[chosen] = np.add.reduceat(WEIGHTS[place] * buffer[place + np.repeat(start[chosen], length)], first)
    return value


def _behind_descriptor(buffer: Bytes, less: Int64Array) -> Bools:
    """Return which `<` stand right behind a number or `AT_FDCWD`, and are not the first of `<<`."""
    before = buffer[less - 1]
    behind: Bools = ((before - np.uint8(48) < 10) | (before == 68)) & (buffer[less + 1] != 60)
    return behind


def _strings(
    buffer: Bytes, quote: Int64Array, newline: Int64Array, *, escaped_quotes: bool
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the spans of quoted strings, quotes included, and a place in each line where they are not sure."""
    if escaped_quotes:
        quote = quote[~_escaped(buffer, quote)]
    line = np.searchsorted(newline, quote)
    first = np.searchsorted(line, line)
    count = np.searchsorted(line, line, side="right") - first
    sure = (count == 2) if not escaped_quotes else (count % 2 == 0)
    opening = (np.arange(len(quote)) - first) % 2 == 0
    return quote[sure & opening], quote[sure & ~opening] + 1, quote[~sure]


def _escaped(buffer: Bytes, quote: Int64Array) -> Bools:
    """Return which quotes have an odd number of backslashes before them."""
    escaped = np.zeros(len(quote), dtype=bool)
    open_ = np.flatnonzero(buffer[quote - 1] == 92)
    back = 1
    while len(open_):
        escaped[open_] ^= True
        back += 1
        open_ = open_[buffer[np.maximum(quote[open_] - back, 0)] == 92]
    return escaped


def _paths(
    buffer: Bytes, less: Int64Array, string_start: Int64Array, string_end: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the spans `<...>` of paths, brackets included, and the places of those whose end is not sure."""
    inside = np.searchsorted(string_start, less) - np.searchsorted(string_end, less, side="right") > 0
    less = less[~inside]
    greater = np.flatnonzero((buffer == 62) | (buffer == 10))
    close = np.searchsorted(greater, less)
    end = greater[close] if len(less) else less
    nested = np.zeros(len(less), dtype=bool)
    if len(less) > 1:
        nested[1:] = less[1:] < np.maximum.accumulate(end)[:-1]
    less, end = less[~nested], end[~nested]
    all_less = np.flatnonzero(buffer == 60)
    inner = np.searchsorted(all_less, end) - np.searchsorted(all_less, less) - 1
    follows = buffer[np.minimum(end + 1, len(buffer) - 1)]
    # 3</dev/zero<char 1:5>>
    double = (inner == 1) & (follows == 62)
    end = end + double
    follows = buffer[np.minimum(end + 1, len(buffer) - 1)]
    unsure = (buffer[end] != 62) | ((inner > 0) & ~double) | (buffer[end - 1] == 45) | (follows == 62)
    return less[~unsure], end[~unsure] + 1, less[unsure]


def _merged(numbers: _Slots, texts: _Slots) -> _Slots:
    """Return both sorts of slots in order of place, without the numbers inside of texts."""
    before = np.searchsorted(texts.start, numbers.start, side="right") - 1
    outside = (before < 0) | (numbers.start >= texts.end[np.maximum(before, 0)])
    start = np.concatenate([numbers.start[outside], texts.start])
    order = np.argsort(start, kind="stable")
    return _Slots(
        start[order],
        np.concatenate([numbers.end[outside], texts.end])[order],
        np.concatenate([numbers.mark[outside], texts.mark])[order],
        np.concatenate([numbers.value[outside], texts.value])[order],
    )


def _mark_leading(slots: _Slots, first: Int64Array) -> None:
    """Give the first two slots of each line, where they are decimal numbers, marks that tell their lengths."""
    for ordinal in (0, 1):
        place = first[:-1][first[1:] - first[:-1] > ordinal] + ordinal
        place = place[slots.mark[place] == DECIMAL]
        slots.mark[place] = LEADING + (slots.end[place] - slots.start[place])


def _shape_hashes(buffer: Bytes, slots: _Slots) -> tuple[Hashes, Int64Array]:
    """Return the hash and the length in bytes of each line's shape."""
    step = np.zeros(len(buffer), dtype=np.int8)
    step[slots.start] = 1
    step[slots.end] -= 1
    kept = np.cumsum(step, dtype=np.int8) == 0
    kept[slots.start] = True
    shape = buffer.copy()
    shape[slots.start] = slots.mark
    shape = shape[kept]
    newline = np.flatnonzero(shape == 10)
    length = np.diff(newline)
    place = np.arange(len(shape) - 1, dtype=np.int64) - np.repeat(newline[:-1], length)
    np.minimum(place, LONGEST_SHAPE - 1, out=place)
    weighted = WEIGHTS[place] * shape[1:]
    return np.add.reduceat(weighted, newline[:-1]), length
