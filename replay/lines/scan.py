"""Where the lines of a chunk are, what shape each has, and its slots.

In go bytes, out come arrays over lines and over slots. What a line means is not known here.

A *slot* is a free-standing number (decimal or `0x` hexadecimal), a quoted string, a path `<...>` right behind a number
or `AT_FDCWD`, or a bare hexadecimal address in brackets. A *shape* is a line with a mark in place of each slot. The
mark tells the kind of the slot, for the digits behind a decimal point how many there are, and how long those numbers
are whose length has a meaning: the first two of a line (a pid and a time differ in nothing else), and those of a clock.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array
from replay.engine.structs import Value
from replay.lines.interest import NAMES
from replay.lines.scan_loop import LINE_TYPES, MOST_NAMES, SLOT_TYPES, scan_loop
from replay.lines.shape_trie import Tree, empty_tree
from replay.lines.slots import LONGEST_SHAPE, Bytes, Hashes

Bools: TypeAlias = NDArray[np.bool_]

_ROOM: Final = ((32, 8), (2, 2))
"""There is room for a line in so many bytes, and for a slot; and where that is not enough, for as many as can be."""

WEIGHTS: Final = np.frombuffer(Random(20).randbytes(8 * LONGEST_SHAPE), dtype=np.uint64) | np.uint64(1)
"""Factors of the hash of a shape, odd and random: two shapes agree with a chance of less than 2**-57."""


class Scan(Value):
    """A chunk, scanned: arrays over its lines that are neither empty nor passed over, and over their slots.

    `row` is the place of a line among those of the chunk; all other places are in `data`, whose last newline is before
    the first line.
    `first_slot` has one entry more than there are lines: the slots of line `i` are `[first_slot[i], first_slot[i+1])`.
    `leaf` is the number of the shape where the line was scanned along a tree of shapes, else 0.
    A slot's span `[slot_start, slot_end)` holds quotes and angle brackets too. `value` is that of a number, modulo
    2**64; that of a text is a hash of its span, by which texts are told apart as shapes are, or 0 where it is too long
    for one. `unsure` lines have texts whose ends only a parse can tell. `lines` counts all lines of the chunk; where it
    is `plain`, nothing in it may have to be taken out (see `chunks.chunk_of`).
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


def scan(lines: bytes, dialect: str, tree: Tree | None = None) -> Scan:
    """Return where the lines are that are not to be passed over, their shapes and their slots.

    That is faster where `tree` knows the shapes of earlier lines. Quotes inside of strings have a backslash in strace;
    ltrace writes them raw.
    """
    buffer = np.frombuffer(lines, dtype=np.uint8)
    known = empty_tree() if tree is None else tree
    found = count = number = plain = -1
    for room_for_line, room_for_slot in _ROOM:
        if found < 0:
            of_lines = columns_of(LINE_TYPES, len(lines) // room_for_line + 2)
            of_slots = columns_of(SLOT_TYPES, len(lines) // room_for_slot + 1)
            arguments = (buffer, WEIGHTS, names_of_interest(), dialect != "strace", of_lines, of_slots, known)
            found, count, number, plain = scan_loop(*arguments)
    row, start, end, shape, leaf, unsure, first = of_lines
    first[found] = count
    of_found = (row[:found], start[:found], end[:found], shape[:found], leaf[:found], unsure[:found])
    slot_start, slot_end, mark, value = (column[:count] for column in of_slots)
    return Scan(lines, *of_found, first[: found + 1], slot_start, slot_end, mark, value, number, bool(plain))


def columns_of(types: tuple[str, ...], rows: int) -> tuple[NDArray[Any], ...]:
    """Return columns of these types, which are to be filled."""
    return tuple(np.empty(rows, kind) for kind in types)


@cache
def names_of_interest() -> Hashes:
    """Return the names of interest as a table of hashes: each is at its remainder, or in the next place that was free.

    A place with 0 is free.
    """
    table = np.zeros(MOST_NAMES, dtype=np.uint64)
    for name in sorted(NAMES):
        letters = np.frombuffer(name.encode(), dtype=np.uint8)
        key = (WEIGHTS[: len(letters)] * letters).sum(dtype=np.uint64)
        place = int(key) % MOST_NAMES
        while table[place]:
            place = (place + 1) % MOST_NAMES
        table[place] = key
    return table
