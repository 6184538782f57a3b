"""The scanner again, column by column in NumPy and by patterns: what the loops find is judged by it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from replay.engine.columns import Int64Array
from replay.lines.interest import NAMES
from replay.lines.scan import WEIGHTS, Bools, Scan
from replay.lines.slots import (
    ADDRESS,
    DECIMAL,
    FRACTION,
    HEXADECIMAL,
    LEADING,
    LONGEST_NUMBER,
    LONGEST_SHAPE,
    MOST_DIGITS,
    MOST_HEX_DIGITS,
    OCTAL,
    PATH,
    TEXT,
    Bytes,
    Hashes,
)
from replay.logs.prefix import PREFIX


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
    kind[length > np.where(hexadecimal, MOST_HEX_DIGITS, MOST_DIGITS)] = 0
    for code in np.flatnonzero(np.bincount(kind, minlength=1)):
        if code & 31:
            of_kind = np.flatnonzero(kind == code)
            value[of_kind], valid[of_kind] = _read(buffer, begin[of_kind], int(code) & 31, 16 if code & 32 else 10)
    mark = np.where(hexadecimal, np.uint8(HEXADECIMAL), np.uint8(DECIMAL))
    mark[(buffer[start] == 48) & (length > 1) & ~hexadecimal] = OCTAL
    whole = np.flatnonzero((buffer[end] == 46) & (mark == DECIMAL))
    mark[whole] = LEADING + length[whole]
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


# ---- lines passed over ----


def _one_of(names: Iterable[str]) -> bytes:
    """Return a pattern that matches any of `names`, quick to fail."""
    by_letter: dict[str, list[str]] = {}
    for name in sorted(set(names), reverse=True):
        by_letter.setdefault(name[0], []).append(re.escape(name[1:]))
    return b"(?:" + b"|".join(f"{a}(?:{'|'.join(rest)})".encode() for a, rest in sorted(by_letter.items())) + b")"


@cache
def _pattern(dialect: str) -> re.Pattern[bytes]:
    """Return the pattern of the lines of a dialect that are passed over, each with the newline before it.

    It is compiled when it is first asked for: that takes longer than to go through a short log.
    """
    name = _one_of(NAMES)
    if dialect == "strace":
        return re.compile(
            rb"\n" + PREFIX + rb"(?:(?!" + name + rb"\(|(?:syscall|SYS)_[0-9])[a-zA-Z_]\w*\("
            rb"|<\.\.\. (?!" + name + rb" |(?:syscall|SYS)_[0-9])\w+ resumed|\) += )[^\n]*"
        )
    return re.compile(
        rb"\n" + PREFIX + rb"(?:[^\s\"(<\[>]*->)?"
        rb"(?:(?!(?:SYS_)?" + name + rb"[(@]|_Z[nd]|SYS_[0-9]|operator )[\w.:~]+(?:@[\w.+-]+)?\("
        rb"|<\.\.\. (?!(?:SYS_)?" + name + rb" |_Z[nd]|SYS_[0-9]|operator )[\w.:~]+ resumed|\) += )[^\n]*"
    )


def without_passed_over(data: bytes, dialect: str) -> bytes:
    """Return the lines of `data`, a newline before the first, emptied where their first word is no call of interest."""
    return _pattern(dialect).sub(b"\n", data)


def is_passed_over(text: bytes, dialect: str) -> bool:
    """Tell whether one line is to be passed over."""
    return _pattern(dialect).match(b"\n" + text) is not None
