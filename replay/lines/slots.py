"""The slots of a line as loops over bytes: where a number or a text ends, its mark and its value.

In go bytes and a place, out come numbers. All is plain Python over arrays that numba compiles; which bytes of a line
are looked at is for `scan_loop` and `shape_trie`. A buffer ends with a newline.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
Hashes: TypeAlias = NDArray[np.uint64]

LONGEST_SHAPE: Final = 4096
LONGEST_NUMBER: Final = 24
"""Longer words are no numbers."""

MOST_DIGITS: Final = 19
MOST_HEX_DIGITS: Final = 16
"""A number of so many digits fits 64 bits; what stands in a longer one is part of the shape, and for the grammar."""

TEXT, PATH, DECIMAL, HEXADECIMAL, OCTAL = 1, 2, 3, 4, 5
FRACTION: Final = 0x0E
LEADING: Final = 0x80
ADDRESS: Final = 0xA0
"""Marks of slots in a shape, bytes that hardly stand in lines. The last three have the length of the slot added."""

OTHER, LETTER, DIGIT, QUOTE, LESS, NEWLINE = range(6)
"""Classes of bytes."""


def _classes() -> Bytes:
    """Return the class of each byte."""
    classes = np.full(256, OTHER, dtype=np.uint8)
    letters = np.array([byte for byte in range(128) if chr(byte).isalpha() or chr(byte) == "_"])
    classes[letters] = LETTER
    classes[48:58] = DIGIT
    classes[[34, 60, 10]] = QUOTE, LESS, NEWLINE
    return classes


CLASS: Final = _classes()

_DIGIT_VALUE: Final = np.array([int(chr(b), 16) if chr(b) in "0123456789abcdef" else 255 for b in range(256)], np.uint8)
"""Tables over bytes: a branch that a processor cannot foresee costs more than a look-up."""


def is_word(byte: int) -> bool:
    """Tell whether a byte is a letter, a digit or an underscore."""
    kind: int = CLASS[byte]
    return 0 < kind <= DIGIT


def word_end(buffer: Bytes, place: int) -> int:
    """Return where the letters and digits at `place` end."""
    while is_word(buffer[np.uint64(place)]):
        place += 1
    return place


def number_slot(buffer: Bytes, start: int, leading: bool) -> tuple[int, np.uint64, int]:
    """Return mark, value and end of the word at `start` that a digit or a bracket begins, mark 0 if it is no slot."""
    if buffer[start] == 48 and buffer[np.uint64(start + 1)] == 120:
        whole, value, stop = _hexadecimal(buffer, start + 2)
        return (HEXADECIMAL if whole and 2 < stop - start <= MOST_HEX_DIGITS + 2 else 0), value, stop
    whole, value, stop = _decimal(buffer, start)
    length = stop - start
    if length > LONGEST_NUMBER:
        return 0, value, stop
    if buffer[start - 1] == 91 and buffer[stop] == 93 and (length >= 8 or not whole):
        address = (length >= 5 or CLASS[buffer[start]] == DIGIT) and _is_hexadecimal(buffer, start, stop)
        return (ADDRESS + length if address else 0), value, stop
    return (_decimal_mark(buffer, start, stop, leading) if whole and length <= MOST_DIGITS else 0), value, stop


def _hexadecimal(buffer: Bytes, start: int) -> tuple[bool, np.uint64, int]:
    """Return whether the word at `start` is of lower case hexadecimal digits, their value, and where it ends."""
    value = np.uint64(0)
    stop = start
    digit = _DIGIT_VALUE[buffer[np.uint64(stop)]]
    while digit < 16:
        value = value << np.uint64(4) | np.uint64(digit)
        stop += 1
        digit = _DIGIT_VALUE[buffer[np.uint64(stop)]]
    end = word_end(buffer, stop)
    return end == stop, value, end


def _decimal(buffer: Bytes, start: int) -> tuple[bool, np.uint64, int]:
    """Return whether the word at `start` is of decimal digits, their value, and where it ends."""
    value = np.uint64(0)
    stop = start
    digit = _DIGIT_VALUE[buffer[np.uint64(stop)]]
    while digit < 10:
        value = value * np.uint64(10) + np.uint64(digit)
        stop += 1
        digit = _DIGIT_VALUE[buffer[np.uint64(stop)]]
    end = word_end(buffer, stop)
    return end == stop, value, end


def _is_hexadecimal(buffer: Bytes, start: int, stop: int) -> bool:
    """Tell whether `[start, stop)` are lower case hexadecimal digits."""
    whole, _, end = _hexadecimal(buffer, start)
    return whole and end == stop


def _decimal_mark(buffer: Bytes, start: int, stop: int, leading: bool) -> int:
    """Return the mark of the decimal digits `[start, stop)`; `leading` ones are among the first two of a line.

    What those say, and what stands before a point, hangs on how many they are: a pid, seconds since a start or 1970.
    """
    length = stop - start
    if buffer[start - 1] == 46 and 48 <= buffer[start - 2] <= 57:
        return FRACTION + length if length <= 17 else 0
    if buffer[start - 1] == 58 or buffer[np.uint64(stop)] == 58:
        return LEADING + length
    if buffer[np.uint64(start)] == 48 and length > 1:
        return OCTAL
    return LEADING + length if leading or buffer[np.uint64(stop)] == 46 else DECIMAL


def text_slot(buffer: Bytes, place: int, escaped_quotes: bool) -> tuple[int, int]:
    """Return mark and end of the text that a quote or `<` begins at `place`; mark 0 if none does, -1 if not sure."""
    before = buffer[place - 1]
    if buffer[place] == 34:
        stop = _string_end(buffer, place, escaped_quotes)
        return (TEXT, stop) if stop > 0 else (-1, place + 1)
    if (before == 68 or 48 <= before <= 57) and buffer[place + 1] != 60:
        stop = _path_end(buffer, place, escaped_quotes)
        return (PATH, stop) if stop > 0 else (-1, place + 1)
    return 0, place + 1


def text_value(buffer: Bytes, start: int, stop: int, weights: Hashes) -> np.uint64:
    """Return the hash of the text `[start, stop)`, 0 if it is too long for one; see `scan.Scan`."""
    value = np.uint64(0)
    if stop - start > LONGEST_SHAPE:
        return value
    for place in range(start, stop):
        value += weights[np.uint64(place - start)] * np.uint64(buffer[np.uint64(place)])
    return value


def _string_end(buffer: Bytes, start: int, escaped_quotes: bool) -> int:
    """Return where the string that begins at `start` ends, behind its quote; -1 if it does not, or begins nowhere."""
    before = start - 1
    while escaped_quotes and buffer[before] == 92:
        before -= 1
    if (start - 1 - before) % 2:
        return -1
    place = start + 1
    byte = buffer[np.uint64(place)]
    while byte != 10:
        if byte == 34:
            return place + 1
        if escaped_quotes and byte == 92 and buffer[np.uint64(place + 1)] != 10:
            place += 1
        place += 1
        byte = buffer[np.uint64(place)]
    return -1


def _path_end(buffer: Bytes, start: int, escaped_quotes: bool) -> int:
    """Return where the path that begins at `start` ends, behind its bracket; -1 if that is not sure."""
    place = start + 1
    inner = 0
    byte = buffer[np.uint64(place)]
    while byte not in (10, 62):
        if byte == 60:
            inner += 1
        if byte == 34 and not (escaped_quotes and buffer[place - 1] == 92):
            return -1
        place += 1
        byte = buffer[np.uint64(place)]
    if byte == 10:
        return -1
    if inner == 1 and buffer[place + 1] == 62:
        place += 1
        inner = 0
    if inner or buffer[place - 1] == 45 or (place + 1 < len(buffer) and buffer[place + 1] == 62):
        return -1
    return place + 1


HELPERS: Final = (_is_hexadecimal, text_slot, text_value, _string_end, _path_end)
INLINED: Final = (is_word, word_end, number_slot, _hexadecimal, _decimal, _decimal_mark)
"""What a loop over slots calls, for whoever compiles it; the latter is called for each number."""
