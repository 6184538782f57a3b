"""The scanner as one loop over bytes, compiled, for long logs; it passes over lines on its way.

In go bytes, out comes the `Scan` that `scanner.scan` makes of the same lines without those passed over. All below the
first function is plain Python over arrays that numba compiles.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from replay.compiled import compiled
from replay.passed_over import NAMES
from replay.scanner import (
    ADDRESS,
    DECIMAL,
    FRACTION,
    HEXADECIMAL,
    LEADING,
    LONGEST_NUMBER,
    OCTAL,
    PATH,
    TEXT,
    WEIGHTS,
    Bytes,
    Hashes,
    Scan,
)

_ROOM: Final = ((32, 8), (2, 2))
"""There is room for a line in so many bytes, and for a slot; and where that is not enough, for as many as can be."""

_MOST_NAMES: Final = 1 << 10
_LONGEST_NAME: Final = max(map(len, NAMES))

_OTHER, _LETTER, _DIGIT, _QUOTE, _LESS, _NEWLINE = range(6)


def _classes() -> Bytes:
    """Return the class of each byte."""
    classes = np.full(256, _OTHER, dtype=np.uint8)
    letters = np.array([byte for byte in range(128) if chr(byte).isalpha() or chr(byte) == "_"])
    classes[letters] = _LETTER
    classes[48:58] = _DIGIT
    classes[[34, 60, 10]] = _QUOTE, _LESS, _NEWLINE
    return classes


_CLASS: Final = _classes()

_DIGIT_VALUE: Final = np.array([int(chr(b), 16) if chr(b) in "0123456789abcdef" else 255 for b in range(256)], np.uint8)
_IN_PREFIX: Final = np.array([chr(byte) in " 0123456789:." for byte in range(256)])
"""Tables over bytes: a branch that a processor cannot foresee costs more than a look-up."""


def scan_compiled(lines: bytes, dialect: str) -> Scan:
    """Return what `scan` returns, found by the compiled loop."""
    buffer = np.frombuffer(lines, dtype=np.uint8)
    found = count = -1
    for room_for_line, room_for_slot in _ROOM:
        if found < 0:
            of_lines, of_slots = _room(len(lines) // room_for_line + 1, len(lines) // room_for_slot + 1)
            arguments = (buffer, WEIGHTS, _names_of_interest(), dialect != "strace", of_lines, of_slots)
            found, count = _compiled_loop()(*arguments)
    row, start, end, shape, unsure, first = of_lines
    first[found] = count
    of_found = (row[:found], start[:found], end[:found], shape[:found], unsure[:found], first[: found + 1])
    return Scan(lines, *of_found, *(column[:count] for column in of_slots))


def _room(lines: int, slots: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return empty columns for so many lines and slots."""
    place, number = np.dtype(np.int64), np.dtype(np.uint64)
    line_types = (place, place, place, number, np.dtype(np.bool_), place)
    slot_types = (place, place, np.dtype(np.uint8), number)
    return tuple(np.empty(lines + 1, t) for t in line_types), tuple(np.empty(slots, t) for t in slot_types)


@cache
def _names_of_interest() -> Hashes:
    """Return the names of interest as a table of hashes: each is at its remainder, or in the next place that was free.

    A place with 0 is free.
    """
    table = np.zeros(_MOST_NAMES, dtype=np.uint64)
    for name in sorted(NAMES):
        letters = np.frombuffer(name.encode(), dtype=np.uint8)
        key = (WEIGHTS[: len(letters)] * letters).sum(dtype=np.uint64)
        place = int(key) % _MOST_NAMES
        while table[place]:
            place = (place + 1) % _MOST_NAMES
        table[place] = key
    return table


def _compiled_loop() -> Any:
    """Return `scan_loop` as machine code."""
    words = (_is_word, _word_end, _line_end, _is_at, _is_name, _first_word)
    passing = (_behind_prefix, _behind_caller, _is_result, _is_special, _is_passed_over)
    numbers = (_hexadecimal, _decimal, _is_hexadecimal, _decimal_mark, _number_slot)
    texts = (_string_end, _path_end, _text_slot)
    return compiled(scan_loop, (*words, *passing, *numbers, *texts), results=2)


def scan_loop(
    buffer: Bytes, weights: Hashes, names: Hashes, ltrace: bool, of_lines: Any, of_slots: Any
) -> tuple[int, int]:
    """Fill the columns of lines and slots; return how many lines and slots there are, -1 if there is no room."""
    row, line_start, line_end, shape, unsure, first_slot = of_lines
    slot_start, slot_end, slot_mark, slot_value = of_slots
    lines = slots = place = 0
    number = -1
    last = len(weights) - 1
    while place < len(buffer):
        number += 1
        if buffer[place] == 10 or _is_passed_over(buffer, place, weights, names, ltrace):
            place = _line_end(buffer, place) + 1
            continue
        if lines == len(row) - 1:
            return -1, 0
        first = slots
        row[lines], line_start[lines], first_slot[lines] = number, place, first
        doubt, strings, size, total = False, 0, 0, np.uint64(0)
        byte = buffer[place]
        while byte != 10:
            kind = _CLASS[byte]
            if kind == _OTHER or (kind == _LETTER and buffer[place - 1] != 91):
                in_word = True
                while in_word:
                    total += weights[min(size, last)] * np.uint64(byte)
                    size += 1
                    place += 1
                    byte = buffer[place]
                    in_word = kind == _LETTER and _is_word(byte)
                continue
            mark, value, stop = 0, np.uint64(0), place + 1
            if kind <= _DIGIT:
                mark, value, stop = _number_slot(buffer, place, slots - first < 2)
            elif kind == _QUOTE or not doubt:
                mark, stop = _text_slot(buffer, place, not ltrace)
                strings += kind == _QUOTE
                doubt |= mark < 0 or (strings > 1 and ltrace)
            if mark > 0:
                if slots == len(slot_start):
                    return -1, 0
                slot_start[slots], slot_end[slots], slot_mark[slots], slot_value[slots] = place, stop, mark, value
                slots += 1
                total += weights[min(size, last)] * np.uint64(mark)
                size += 1
                place = stop
            while place < stop:
                total += weights[min(size, last)] * np.uint64(buffer[place])
                size += 1
                place += 1
            byte = buffer[place]
        total += weights[min(size, last)] * np.uint64(10)
        line_end[lines], shape[lines], unsure[lines] = place, total, doubt or size > last
        lines += 1
        place += 1
    return lines, slots


# ---- lines passed over: what `passed_over` says in patterns ----

_SYS: Final = np.frombuffer(b"SYS_", dtype=np.uint8)
_SYSCALL: Final = np.frombuffer(b"syscall_", dtype=np.uint8)
_OPERATOR: Final = np.frombuffer(b"operator ", dtype=np.uint8)
_MANGLED: Final = np.frombuffer(b"_Z", dtype=np.uint8)
_RESUMES: Final = np.frombuffer(b"<... ", dtype=np.uint8)
_RESUMED: Final = np.frombuffer(b" resumed", dtype=np.uint8)


def _is_passed_over(buffer: Bytes, place: int, weights: Hashes, names: Hashes, ltrace: bool) -> bool:
    """Tell whether the line that begins at `place` names no call of interest, behind its prefix."""
    place = _behind_prefix(buffer, place)
    if ltrace:
        place = _behind_caller(buffer, place)
    if buffer[place] == 41:
        return _is_result(buffer, place + 1)
    resumed = _is_at(buffer, place, _RESUMES)
    start = place + 5 * resumed
    name_end, stop = _first_word(buffer, start, ltrace, not resumed)
    if resumed:
        is_call = stop > start and _is_at(buffer, stop, _RESUMED)
        named = buffer[name_end] == 32
    else:
        is_call = stop > start and buffer[stop] == 40 and (ltrace or _CLASS[buffer[start]] == _LETTER)
        named = buffer[name_end] == 40 or (ltrace and buffer[name_end] == 64)
    if not is_call or (named and _is_name(buffer, start, name_end, weights, names)):
        return False
    return not _is_special(buffer, start, name_end if named else start, weights, names, ltrace)


def _is_result(buffer: Bytes, place: int) -> bool:
    """Tell whether what stands at `place` is ` = `."""
    stop = place
    while buffer[stop] == 32:
        stop += 1
    return stop > place and buffer[stop] == 61 and buffer[stop + 1] == 32


def _is_special(buffer: Bytes, start: int, stop: int, weights: Hashes, names: Hashes, ltrace: bool) -> bool:
    """Tell whether a call by number, a system call in ltrace or an operator of C++ stands at `start`."""
    if _is_at(buffer, start, _SYS):
        start += len(_SYS)
        return _CLASS[buffer[start]] == _DIGIT or (ltrace and _is_name(buffer, start, stop, weights, names))
    if ltrace:
        mangled = _is_at(buffer, start, _MANGLED) and buffer[start + 2] in (100, 110)
        return mangled or _is_at(buffer, start, _OPERATOR)
    return _is_at(buffer, start, _SYSCALL) and _CLASS[buffer[start + len(_SYSCALL)]] == _DIGIT


def _behind_prefix(buffer: Bytes, place: int) -> int:
    """Return where a line goes on behind pid, times, instruction pointer and the like."""
    while True:
        byte = buffer[place]
        stop = place + 1
        if _IN_PREFIX[byte]:
            place = stop
            continue
        if byte == 91 or (byte == 60 and _CLASS[buffer[place - 1]] == _DIGIT):
            close = 93 if byte == 91 else 62
            while buffer[stop] != close and buffer[stop] != 10:
                stop += 1
            if buffer[stop] == 10:
                return place
        elif byte == 40 and buffer[stop] == 43:
            stop += 1
            while buffer[stop] == 32 or buffer[stop] == 46 or _CLASS[buffer[stop]] == _DIGIT:
                stop += 1
            if buffer[stop] != 41 or stop == place + 2:
                return place
        else:
            return place
        place = stop + 1


def _behind_caller(buffer: Bytes, place: int) -> int:
    """Return where a line goes on behind the `module->` that stands at `place`, `place` if none does."""
    stop = place
    while not (buffer[stop] in (32, 34, 40, 60, 62, 91) or 9 <= buffer[stop] <= 13):
        stop += 1
    return stop + 1 if buffer[stop] == 62 and stop > place and buffer[stop - 1] == 45 else place


def _first_word(buffer: Bytes, start: int, ltrace: bool, in_library: bool) -> tuple[int, int]:
    """Return where the name at `start` ends, and where the whole word does: `std::free`, `malloc@libc.so.6`.

    No library is named where a call is resumed.
    """
    name_end = stop = _word_end(buffer, start)
    if not ltrace:
        return stop, stop
    while _is_word(buffer[stop]) or buffer[stop] in (46, 58, 126):
        stop += 1
    if not in_library or buffer[stop] != 64 or stop == start:
        return name_end, stop
    library = stop + 1
    while _is_word(buffer[library]) or buffer[library] in (43, 45, 46):
        library += 1
    return name_end, library if library > stop + 1 else stop


def _is_word(byte: int) -> bool:
    """Tell whether a byte is a letter, a digit or an underscore."""
    kind: int = _CLASS[byte]
    return 0 < kind <= _DIGIT


def _line_end(buffer: Bytes, place: int) -> int:
    """Return where the line ends in which `place` is."""
    while buffer[place] != 10:
        place += 1
    return place


def _word_end(buffer: Bytes, place: int) -> int:
    """Return where the letters and digits at `place` end."""
    while _is_word(buffer[place]):
        place += 1
    return place


def _is_name(buffer: Bytes, start: int, stop: int, weights: Hashes, names: Hashes) -> bool:
    """Tell whether the word `[start, stop)` is in the table of names."""
    if stop - start > _LONGEST_NAME:
        return False
    key = np.uint64(0)
    for place in range(start, stop):
        key += weights[place - start] * np.uint64(buffer[place])
    at = np.int64(key & np.uint64(_MOST_NAMES - 1))
    while names[at] != key and names[at] != 0:
        at = (at + 1) & (_MOST_NAMES - 1)
    return bool(names[at] == key) and stop > start


def _is_at(buffer: Bytes, place: int, text: Bytes) -> bool:
    """Tell whether `text`, in which no newline is, stands at `place`."""
    same = 0
    while same < len(text) and buffer[place + same] == text[same]:
        same += 1
    return same == len(text)


# ---- slots ----


def _number_slot(buffer: Bytes, start: int, leading: bool) -> tuple[int, np.uint64, int]:
    """Return mark, value and end of the word at `start` that a digit or a bracket begins, mark 0 if it is no slot."""
    if buffer[start] == 48 and buffer[start + 1] == 120:
        whole, value, stop = _hexadecimal(buffer, start + 2)
        return (HEXADECIMAL if whole and 2 < stop - start <= LONGEST_NUMBER + 2 else 0), value, stop
    whole, value, stop = _decimal(buffer, start)
    length = stop - start
    if length > LONGEST_NUMBER:
        return 0, value, stop
    if buffer[start - 1] == 91 and buffer[stop] == 93 and (length >= 8 or not whole):
        address = (length >= 5 or _CLASS[buffer[start]] == _DIGIT) and _is_hexadecimal(buffer, start, stop)
        return (ADDRESS + length if address else 0), value, stop
    return (_decimal_mark(buffer, start, stop, leading) if whole else 0), value, stop


def _hexadecimal(buffer: Bytes, start: int) -> tuple[bool, np.uint64, int]:
    """Return whether the word at `start` is of lower case hexadecimal digits, their value, and where it ends."""
    value = np.uint64(0)
    stop = start
    while _DIGIT_VALUE[buffer[stop]] < 16:
        value = value << np.uint64(4) | np.uint64(_DIGIT_VALUE[buffer[stop]])
        stop += 1
    end = _word_end(buffer, stop)
    return end == stop, value, end


def _decimal(buffer: Bytes, start: int) -> tuple[bool, np.uint64, int]:
    """Return whether the word at `start` is of decimal digits, their value, and where it ends."""
    value = np.uint64(0)
    stop = start
    while 48 <= buffer[stop] <= 57:
        value = value * np.uint64(10) + np.uint64(buffer[stop] - 48)
        stop += 1
    end = _word_end(buffer, stop)
    return end == stop, value, end


def _is_hexadecimal(buffer: Bytes, start: int, stop: int) -> bool:
    """Tell whether `[start, stop)` are lower case hexadecimal digits."""
    whole, _, end = _hexadecimal(buffer, start)
    return whole and end == stop


def _decimal_mark(buffer: Bytes, start: int, stop: int, leading: bool) -> int:
    """Return the mark of the decimal digits `[start, stop)`; `leading` ones are among the first two of a line."""
    length = stop - start
    if buffer[start - 1] == 46 and 48 <= buffer[start - 2] <= 57:
        return FRACTION + length if length <= 17 else 0
    if buffer[start - 1] == 58 or buffer[stop] == 58:
        return LEADING + length
    if buffer[start] == 48 and length > 1:
        return OCTAL
    return LEADING + length if leading else DECIMAL


def _text_slot(buffer: Bytes, place: int, escaped_quotes: bool) -> tuple[int, int]:
    """Return mark and end of the text that a quote or `<` begins at `place`; mark 0 if none does, -1 if not sure."""
    before = buffer[place - 1]
    if buffer[place] == 34:
        stop = _string_end(buffer, place, escaped_quotes)
        return (TEXT, stop) if stop > 0 else (-1, place + 1)
    if (before == 68 or 48 <= before <= 57) and buffer[place + 1] != 60:
        stop = _path_end(buffer, place, escaped_quotes)
        return (PATH, stop) if stop > 0 else (-1, place + 1)
    return 0, place + 1


def _string_end(buffer: Bytes, start: int, escaped_quotes: bool) -> int:
    """Return where the string that begins at `start` ends, behind its quote; -1 if it does not, or begins nowhere."""
    before = start - 1
    while escaped_quotes and buffer[before] == 92:
        before -= 1
    if (start - 1 - before) % 2:
        return -1
    place = start + 1
    while buffer[place] != 10:
        if buffer[place] == 34:
            return place + 1
        if escaped_quotes and buffer[place] == 92 and buffer[place + 1] != 10:
            place += 1
        place += 1
    return -1


def _path_end(buffer: Bytes, start: int, escaped_quotes: bool) -> int:
    """Return where the path that begins at `start` ends, behind its bracket; -1 if that is not sure."""
    place = start + 1
    inner = 0
    while buffer[place] not in (10, 62):
        if buffer[place] == 60:
            inner += 1
        if buffer[place] == 34 and not (escaped_quotes and buffer[place - 1] == 92):
            return -1
        place += 1
    if buffer[place] == 10:
        return -1
    if inner == 1 and buffer[place + 1] == 62:
        place += 1
        inner = 0
    if inner or buffer[place - 1] == 45 or (place + 1 < len(buffer) and buffer[place + 1] == 62):
        return -1
    return place + 1
