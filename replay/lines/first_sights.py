"""The pids of lines that are passed over: such a line says nothing of memory, but that its thread is there.

In go the bytes of a chunk and which of its lines are read, out come the lines at which a pid is seen for the first
time. What a line says behind its pid is not looked at.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from replay.engine.columns import Int64Array
from replay.engine.structs import Struct, field

_PID: Final = re.compile(rb"\[pid +([0-9]{1,8})[\]<]|([0-9]{1,8})[ <]")
_WORD: Final = 8
"""Bytes that are looked at as one number: a pid, which has seven digits at most, and what ends it."""

_NEWLINE: Final = np.uint8(10)
_BRACKET: Final = int.from_bytes(b"[pid", "little")
_MOST_HEADS: Final = 1 << 18
_MOST: Final = (1 << 64) - 1


class FirstSights(Struct):
    """The pids seen so far in the lines passed over of one log; `heads` are the beginnings of lines that were met."""

    pids: set[int] = field(default_factory=set)
    heads: set[int] = field(default_factory=set)

    def among(self, data: bytes, lines: int, read: Int64Array) -> list[tuple[int, int]]:
        """Return the place among the `lines` of `data` and the pid of each first sight; lines at `read` are read."""
        if lines == len(read) or not (_PID.match(data) or b"[pid " in data):
            return []
        buffer = np.frombuffer(data, dtype=np.uint8)
        passed = np.ones(lines, dtype=bool)
        passed[read] = False
        row = np.flatnonzero(passed)
        newline = np.flatnonzero(buffer == _NEWLINE)
        start = newline[np.maximum(row - 1, 0)] + 1
        start[row == 0] = 0
        heads = _heads(buffer, start)
        new = np.flatnonzero(np.append(True, heads[1:] != heads[:-1]))
        _, first = np.unique(heads[new], return_index=True)
        found = []
        for place in np.sort(new[first]).tolist():
            head = int(heads[place])
            if head in self.heads:
                continue
            self.heads.add(head)
            match = _PID.match(data, int(start[place]))
            pid = int(match[1] or match[2]) if match else 0
            if match and pid not in self.pids:
                self.pids.add(pid)
                found.append((int(row[place]), pid))
        if len(self.heads) > _MOST_HEADS:
            self.heads.clear()
        return found


def _heads(buffer: np.ndarray, start: Int64Array) -> np.ndarray:
    """Return a number for the beginning of each line: eight bytes of it, sixteen of one that begins with `[pid`."""
    words = np.ndarray(max(len(buffer) - _WORD + 1, 0), dtype="<u8", buffer=buffer, strides=(1,))
    far = int(np.searchsorted(start, len(words) - _WORD))  # the rest stand too near to the end to be looked at so
    heads = np.zeros(len(start), np.uint64)
    heads[:far] = words[start[:far]]
    heads[far:] = [hash(buffer[place : place + 2 * _WORD].tobytes()) & _MOST for place in start[far:].tolist()]
    start = start[:far]
    bracket = np.flatnonzero((heads[:far] & np.uint64(0xFFFFFFFF)) == _BRACKET)
    heads[bracket] ^= words[start[bracket] + _WORD] * np.uint64(0x9E3779B97F4A7C15)
    return heads
