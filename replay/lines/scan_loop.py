"""The scanner as one loop over bytes; it passes over lines that name no call of interest on its way.

In go bytes, out come columns of lines and of slots; see `scan.Scan`. What a line means is not known here. Whether it is
passed over hangs on its first word behind the prefix; how the line goes on is not looked at.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from replay.engine.native import Loop
from replay.lines import shape_trie, slots
from replay.lines.shape_trie import END, LEAF, MARK, PASSED_OVER, SHAPE, Tree, along, empty_tree, line_end, remember
from replay.lines.slots import (
    CLASS,
    DIGIT,
    LETTER,
    LONGEST_SHAPE,
    OTHER,
    PATH,
    QUOTE,
    Bytes,
    Hashes,
    is_word,
    number_slot,
    text_slot,
    text_value,
    word_end,
)
from replay.logs.prefix import IN_PREFIX

MOST_NAMES: Final = 1 << 10
"""Places of a table of names; a power of two."""

LONGEST_NAME: Final = 32
"""No name of interest is longer."""

_IN_PREFIX: Final = np.array([byte in IN_PREFIX for byte in range(256)])
"""A table over bytes: a branch that a processor cannot foresee costs more than a look-up."""


LINE_TYPES: Final = ("i8", "i8", "i8", "u8", "i8", "?", "i8")
SLOT_TYPES: Final = ("i8", "i8", "u1", "u8")
"""Types of the columns of lines and of slots."""


def scan_lines(
    buffer: Bytes, weights: Hashes, names: Hashes, ltrace: bool, of_lines: Any, of_slots: Any, tree: Tree
) -> tuple[int, int, int, bool]:
    """Fill the columns of lines and slots; return how many of both, how many lines in all, and whether those are plain.

    Where there is no room the first is -1.
    """
    row, line_start, line_end_, shape, leaf, unsure, first_slot = of_lines
    lines = slots = place = 0
    number, plain = -1, True
    while place < len(buffer):
        number += 1
        if lines == len(row) - 1:
            return -1, 0, 0, False
        piece, stop, after = along(buffer, place, slots, tree, of_slots, weights, ltrace)
        doubt, total = False, np.uint64(0)
        passed = buffer[place] == 10
        if piece:
            passed = tree.pieces[piece, MARK] == PASSED_OVER
            total = np.uint64(tree.pieces[piece, SHAPE])
            stop = line_end(buffer, stop) if passed else stop - 1
        elif passed:
            stop = place
        else:
            passed, decided = _is_passed_over(buffer, place, weights, names, ltrace)
            limit = decided if passed else len(buffer)
            stop, after, total, doubt = _scan_line(buffer, place, limit, slots, weights, ltrace, of_slots)
            if after < 0:
                return -1, 0, 0, False
            if not doubt and stop + 8 < len(buffer) and _has_plain_prefix(of_slots, slots, after, decided):
                behind, mark = (decided, PASSED_OVER) if passed else (stop + 1, END)
                remember(buffer, place, behind, mark, total, (slots, after), of_slots, tree)
            stop = line_end(buffer, stop)
        plain &= _is_plain(buffer, place, stop)
        if not passed:
            row[lines], line_start[lines], first_slot[lines] = number, place, slots
            line_end_[lines], shape[lines], unsure[lines] = stop, total, doubt
            leaf[lines] = tree.pieces[piece, LEAF] if piece else 0
            lines += 1
            slots = after
        place = stop + 1
    return lines, slots, number + 1, plain and not _has_controls(buffer)


def _is_plain(buffer: Bytes, place: int, stop: int) -> bool:
    """Tell whether the line `[place, stop)` neither ends nor begins as one with a diagnostic in it, see `chunks`.

    `Process 7 attached`, detached, suspended, resumed, `with 2 threads`; `unknown pid 7 ignored`, `unknown pid 7`; a
    carriage return; ` <no return ...>`, behind glibc's last words. It is enough that no such line is missed.
    """
    if stop - place < 3:
        return stop == place or bool(buffer[np.uint64(stop - 1)] != 13)
    last, before = buffer[np.uint64(stop - 1)], buffer[np.uint64(stop - 2)]
    if last == 13 or (last == 100 and before == 101) or (last == 115 and before == 100):
        return False
    if buffer[np.uint64(place)] == 32 and buffer[np.uint64(place + 1)] == 60 and buffer[np.uint64(place + 2)] == 110:
        return False
    at = stop
    while at > place + 4 and CLASS[buffer[np.uint64(at - 1)]] == DIGIT:
        at -= 1
    return bool(at == stop or buffer[np.uint64(at - 1)] != 32 or buffer[np.uint64(at - 2)] != 100)


def _has_controls(buffer: Bytes) -> bool:
    """Tell whether there are NULs, or escapes that begin colours."""
    found = np.uint8(0)
    for place in range(len(buffer)):  # no branches: LLVM compares many bytes at once
        byte = buffer[np.uint64(place)]
        found |= np.uint8(byte == 27) | np.uint8(byte == 0)
    return bool(found)


def _has_plain_prefix(of_slots: Any, first: int, behind: int, name: int) -> bool:
    """Tell whether no path is among the slots `[first, behind)` of a line before its `name`.

    Whether a line is passed over hangs on where that path ends, and that on more than its shape.
    """
    slot_start, _, slot_mark, _ = of_slots
    slot = first
    while slot < behind and slot_start[slot] < name and slot_mark[slot] != PATH:
        slot += 1
    return slot == behind or bool(slot_start[slot] >= name)


def _scan_line(
    buffer: Bytes, place: int, limit: int, first: int, weights: Hashes, ltrace: bool, of_slots: Any
) -> tuple[int, int, np.uint64, bool]:
    """Scan the line at `place` byte by byte, its slots from the row `first` on, up to its end or `limit`.

    Returns where the scan ended, the next row of slots (-1 if there is no room), the shape's hash, and whether the line
    is unsure.
    """
    slot_start, slot_end, slot_mark, slot_value = of_slots
    slots, last = first, len(weights) - 1
    doubt, strings, size, total = False, 0, 0, np.uint64(0)
    byte = buffer[place]
    while byte != 10 and place < limit:
        kind = CLASS[byte]
        if kind == OTHER or (kind == LETTER and buffer[place - 1] != 91):
            in_word = True
            while in_word:
                total += weights[min(size, last)] * np.uint64(byte)
                size += 1
                place += 1
                byte = buffer[place]
                in_word = kind == LETTER and is_word(byte)
            continue
        mark, value, stop = 0, np.uint64(0), place + 1
        if kind <= DIGIT:
            mark, value, stop = number_slot(buffer, place, slots - first < 2)
        elif kind == QUOTE or not doubt:
            mark, stop = text_slot(buffer, place, not ltrace)
            value = text_value(buffer, place, stop, weights) if mark > 0 else value
            strings += kind == QUOTE
            doubt |= mark < 0 or (strings > 1 and ltrace)
        if mark > 0:
            if slots == len(slot_start):
                return place, -1, total, doubt
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
    return place, slots, total, doubt or size > last


# ---- lines passed over ----

_SYS: Final = np.frombuffer(b"SYS_", dtype=np.uint8)
_SYSCALL: Final = np.frombuffer(b"syscall_", dtype=np.uint8)
_OPERATOR: Final = np.frombuffer(b"operator ", dtype=np.uint8)
_MANGLED: Final = np.frombuffer(b"_Z", dtype=np.uint8)
_RESUMES: Final = np.frombuffer(b"<... ", dtype=np.uint8)
_RESUMED: Final = np.frombuffer(b" resumed", dtype=np.uint8)


def _is_passed_over(buffer: Bytes, place: int, weights: Hashes, names: Hashes, ltrace: bool) -> tuple[bool, int]:
    """Tell whether the line that begins at `place` names no call of interest, behind its prefix.

    With it comes the place behind the bytes that told it, and else the place behind the prefix.
    """
    place = _behind_prefix(buffer, place)
    behind_prefix = place
    if ltrace:
        place = _behind_caller(buffer, place)
    if buffer[place] == 41:
        stop = _is_result(buffer, place + 1)
        return stop > 0, max(stop, behind_prefix)
    resumed = _is_at(buffer, place, _RESUMES)
    start = place + 5 * resumed
    name_end, stop = _first_word(buffer, start, ltrace, not resumed)
    if resumed:
        is_call = stop > start and _is_at(buffer, stop, _RESUMED)
        named = buffer[name_end] == 32
    else:
        is_call = stop > start and buffer[stop] == 40 and (ltrace or CLASS[buffer[start]] == LETTER)
        named = buffer[name_end] == 40 or (ltrace and buffer[name_end] == 64)
    if not is_call or (named and _is_name(buffer, start, name_end, weights, names)):
        return False, behind_prefix
    if _is_special(buffer, start, name_end if named else start, weights, names, ltrace):
        return False, behind_prefix
    return True, stop + (len(_RESUMED) if resumed else 1)


def _is_result(buffer: Bytes, place: int) -> int:
    """Return the place behind the ` = ` that stands at `place`, 0 if none does."""
    stop = place
    while buffer[stop] == 32:
        stop += 1
    return stop + 2 if stop > place and buffer[stop] == 61 and buffer[stop + 1] == 32 else 0


def _is_special(buffer: Bytes, start: int, stop: int, weights: Hashes, names: Hashes, ltrace: bool) -> bool:
    """Tell whether a call by number, a system call in ltrace or an operator of C++ stands at `start`."""
    if _is_at(buffer, start, _SYS):
        start += len(_SYS)
        return CLASS[buffer[start]] == DIGIT or (ltrace and _is_name(buffer, start, stop, weights, names))
    if ltrace:
        mangled = _is_at(buffer, start, _MANGLED) and buffer[start + 2] in (100, 110)
        return mangled or _is_at(buffer, start, _OPERATOR)
    return _is_at(buffer, start, _SYSCALL) and CLASS[buffer[start + len(_SYSCALL)]] == DIGIT


def _behind_prefix(buffer: Bytes, place: int) -> int:
    """Return where a line goes on behind pid, times, instruction pointer and the like."""
    while True:
        byte = buffer[place]
        stop = place + 1
        if _IN_PREFIX[byte]:
            place = stop
            continue
        if byte == 91 or (byte == 60 and CLASS[buffer[place - 1]] == DIGIT):
            close = 93 if byte == 91 else 62
            while buffer[stop] != close and buffer[stop] != 10:
                stop += 1
            if buffer[stop] == 10:
                return place
        elif byte == 40 and buffer[stop] == 43:
            stop += 1
            while buffer[stop] == 32 or buffer[stop] == 46 or CLASS[buffer[stop]] == DIGIT:
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
    name_end = stop = word_end(buffer, start)
    if not ltrace:
        return stop, stop
    while is_word(buffer[stop]) or buffer[stop] in (46, 58, 126):
        stop += 1
    if not in_library or buffer[stop] != 64 or stop == start:
        return name_end, stop
    library = stop + 1
    while is_word(buffer[library]) or buffer[library] in (43, 45, 46):
        library += 1
    return name_end, library if library > stop + 1 else stop


def _is_name(buffer: Bytes, start: int, stop: int, weights: Hashes, names: Hashes) -> bool:
    """Tell whether the word `[start, stop)` is in the table of names."""
    if stop - start > LONGEST_NAME:
        return False
    key = np.uint64(0)
    for place in range(start, stop):
        key += weights[place - start] * np.uint64(buffer[place])
    at = np.int64(key & np.uint64(MOST_NAMES - 1))
    while names[at] != key and names[at] != 0:
        at = (at + 1) & (MOST_NAMES - 1)
    return bool(names[at] == key) and stop > start


def _is_at(buffer: Bytes, place: int, text: Bytes) -> bool:
    """Tell whether `text`, in which no newline is, stands at `place`."""
    same = 0
    while same < len(text) and buffer[place + same] == text[same]:
        same += 1
    return same == len(text)


def _like() -> tuple[Any, ...]:
    """Return arguments of the layout that the loop is compiled for."""
    hashes = np.zeros(LONGEST_SHAPE, np.uint64)
    of_lines, of_slots = (tuple(np.zeros(0, kind) for kind in kinds) for kinds in (LINE_TYPES, SLOT_TYPES))
    return np.zeros(0, np.uint8), hashes, hashes, 0, of_lines, of_slots, empty_tree()


scan_loop: Final = Loop(
    scan_lines,
    _like,
    helpers=(
        _has_controls, _has_plain_prefix, _scan_line, _is_passed_over, _is_result, _is_special, _behind_prefix,
        _behind_caller, _first_word, _is_name, _is_at, *slots.HELPERS, *shape_trie.HELPERS,
    ),
    inlined=(_is_plain, *slots.INLINED, *shape_trie.INLINED),
    results=4,
)  # fmt: skip
