"""The shapes of a log as a tree, along which a line is scanned by comparing whole words with what lines had before.

In go bytes and the place where a line begins, out comes what the scan byte by byte would have found. Each way from the
root is a line that was scanned so: what stood before its first slot, the mark of that slot, what stood between it and
the next, and so on. Where a line has the same bytes between slots of the same marks, it has the same shape and slots,
since what is a slot hangs on the bytes of the line up to it and on its own alone. All below `empty_tree` is plain
Python over arrays that numba compiles.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from replay.engine.columns import Int64Array
from replay.lines.slots import CLASS, DIGIT, LETTER, PATH, TEXT, Bytes, Hashes, number_slot, text_slot, text_value

MOST_LEAVES: Final = (1 << 12) - 1
"""So many shapes a tree of shapes may have, see `Scan.leaf`."""

MOST_PIECES: Final = MOST_LEAVES + 1
MOST_WORDS: Final = 1 << 16
MOST_SIBLINGS: Final = 48
"""Limits of a tree: a log with more shapes is scanned byte by byte where it leaves the tree."""

# Columns of `Tree.pieces`. A piece is some bytes of a line and the mark of the slot behind them.
FIRST_WORD: Final = 0
LENGTH: Final = 1
MARK: Final = 2
HITS: Final = 3
CHILD: Final = 4
SHAPE: Final = 5
LEAF: Final = 6
OWN: Final = 7
NEXT: Final = 7
PIECE_WIDTH: Final = 8

ROOT: Final = 0

END: Final = 0x100
PASSED_OVER: Final = 0x101
"""Marks of the last pieces: the bytes up to the newline, included; those that tell that a line is passed over."""

PIECES: Final = 0
WORDS: Final = 1
LEAVES: Final = 2
"""Entries of `Tree.used`."""

_ALL: Final = np.uint64(2**64 - 1)
_NEWLINES: Final = np.uint64(0x0A0A0A0A0A0A0A0A)
_LOW_BITS: Final = np.uint64(0x0101010101010101)
_HIGH_BITS: Final = np.uint64(0x8080808080808080)


class Tree(NamedTuple):
    """The pieces in rows, first the root; their bytes as `words` of eight; how many rows, words and leaves are `used`.

    A leaf is the last piece of a shape; its number, from 1, is that of the shape among those of the tree.

    The pieces that follow the same one are siblings: a list linked by `NEXT`, 0 at its end, those of more
    `HITS` first.
    """

    pieces: Int64Array
    words: Hashes
    used: Int64Array


def empty_tree() -> Tree:
    """Return a tree without shapes."""
    pieces = np.zeros((MOST_PIECES, PIECE_WIDTH), np.int64)
    return Tree(pieces, np.zeros(MOST_WORDS, np.uint64), np.array([1, 0, 0]))


def word_at(buffer: Bytes, place: int) -> np.uint64:
    """Return the eight bytes at `place` as one number, the first one lowest."""
    word = np.uint64(0)
    for byte in range(8):  # LLVM makes one load of it
        word |= np.uint64(buffer[np.uint64(place + byte)]) << np.uint64(8 * byte)
    return word


def line_end(buffer: Bytes, place: int) -> int:
    """Return where the line ends in which `place` is. Source: Hacker's Delight, Find First 0-Byte."""
    while place + 8 <= len(buffer):
        word = word_at(buffer, place) ^ _NEWLINES
        if (word - _LOW_BITS) & ~word & _HIGH_BITS:
            break
        place += 8
    while buffer[np.uint64(place)] != 10:
        place += 1
    return place


def along(
    buffer: Bytes, place: int, slots: int, tree: Tree, of_slots: Any, weights: Hashes, ltrace: bool
) -> tuple[int, int, int]:
    """Scan the line at `place`, its slots from the row `slots` on, and return its last piece, its end and the next row.

    The piece is 0 where the line leaves the tree, or there is no room.
    """
    slot_start, slot_end, slot_mark, slot_value = of_slots
    first = slots
    before, piece = ROOT, tree.pieces[ROOT, CHILD]
    while piece:
        stop = place + tree.pieces[piece, LENGTH]
        mark = tree.pieces[piece, MARK]
        if _is_text_at(buffer, place, tree, piece):
            if mark >= END:
                return _risen(tree.pieces, before, piece), stop, slots
            found, value, end = _slot(buffer, stop, mark, slots - first < 2, weights, ltrace)
            if found == mark and slots < len(slot_start):
                slot_start[slots], slot_end[slots], slot_mark[slots], slot_value[slots] = stop, end, mark, value
                slots += 1
                place = end
                before, piece = ROOT, tree.pieces[_risen(tree.pieces, before, piece), CHILD]
                continue
        before, piece = piece, tree.pieces[piece, NEXT]
    return 0, place, first


def _is_text_at(buffer: Bytes, place: int, tree: Tree, piece: int) -> bool:
    """Tell whether the bytes of a piece stand at `place`; near the end of the buffer the answer is no."""
    length = tree.pieces[piece, LENGTH]
    words = (length + 7) >> 3
    if place + 8 * words > len(buffer):
        return False
    first = tree.pieces[piece, FIRST_WORD]
    for word in range(words):
        differs = word_at(buffer, place + 8 * word) ^ tree.words[np.uint64(first + word)]
        if 8 * word + 8 > length:
            differs <<= np.uint64(8 * (8 * word + 8 - length))
        if differs:
            return False
    return True


def _slot(
    buffer: Bytes, place: int, mark: int, leading: bool, weights: Hashes, ltrace: bool
) -> tuple[int, np.uint64, int]:
    """Return mark, value and end of the slot at `place`; one of the kind that `mark` has, else mark 0."""
    byte = buffer[np.uint64(place)]
    if mark > PATH:
        begins = CLASS[byte] == DIGIT or (CLASS[byte] == LETTER and buffer[place - 1] == 91)
        return number_slot(buffer, place, leading) if begins else (0, np.uint64(0), place)
    if byte != (34 if mark == TEXT else 60):
        return 0, np.uint64(0), place
    found, end = text_slot(buffer, place, not ltrace)
    return found, text_value(buffer, place, end, weights), end


def _risen(pieces: Int64Array, before: int, piece: int) -> int:
    """Count a hit of a piece, let it change places with the sibling `before` if it has more, and return its place."""
    pieces[piece, HITS] += 1
    if before == ROOT or pieces[before, HITS] >= pieces[piece, HITS]:
        return piece
    for column in range(OWN):
        pieces[before, column], pieces[piece, column] = pieces[piece, column], pieces[before, column]
    return before


def remember(
    buffer: Bytes, place: int, stop: int, last: int, shape: np.uint64, slots: tuple[int, int], of_slots: Any, tree: Tree
) -> None:
    """Add the way of the line at `place` up to `stop` while there is room.

    Its slots are the rows `[slots[0], slots[1])`; `last` is the mark of the last piece.
    """
    slot_start, slot_end, slot_mark, _ = of_slots
    piece = ROOT
    for slot in range(slots[0], slots[1]):
        piece = _grown(buffer, place, slot_start[slot], slot_mark[slot], piece, tree)
        place = slot_end[slot]
        if piece == ROOT:
            return
    piece = _grown(buffer, place, stop, last, piece, tree)
    if piece and not tree.pieces[piece, LEAF]:
        tree.used[LEAVES] += 1
        tree.pieces[piece, LEAF], tree.pieces[piece, SHAPE] = tree.used[LEAVES], np.int64(shape)


def _grown(buffer: Bytes, place: int, stop: int, mark: int, parent: int, tree: Tree) -> int:
    """Return the child of `parent` with these bytes and this mark, a new one if it has none, 0 if it has no room."""
    siblings, before, piece = 0, ROOT, tree.pieces[parent, CHILD]
    while piece:
        same = tree.pieces[piece, LENGTH] == stop - place and tree.pieces[piece, MARK] == mark
        if same and _is_text_at(buffer, place, tree, piece):
            return int(piece)
        siblings, before, piece = siblings + 1, piece, tree.pieces[piece, NEXT]
    piece, first = tree.used[PIECES], tree.used[WORDS]
    words = (stop - place + 7) >> 3
    if siblings == MOST_SIBLINGS or piece == MOST_PIECES or first + words > MOST_WORDS:
        return 0
    for at in range(stop - place):
        tree.words[first + (at >> 3)] |= np.uint64(buffer[place + at]) << np.uint64(8 * (at & 7))
    tree.used[PIECES], tree.used[WORDS] = piece + 1, first + words
    tree.pieces[piece, FIRST_WORD], tree.pieces[piece, LENGTH], tree.pieces[piece, MARK] = first, stop - place, mark
    if before == ROOT:
        tree.pieces[parent, CHILD] = piece
    else:
        tree.pieces[before, NEXT] = piece
    return int(piece)


HELPERS: Final = (line_end, remember, _grown)
INLINED: Final = (word_at, along, _is_text_at, _slot, _risen)
"""What a loop over lines calls, for whoever compiles it; the latter is called for each line or slot."""
