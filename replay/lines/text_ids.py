"""The texts of a log as ids: decoded, each one once.

In go bytes as a tracer wrote them, or the slots in which they stand, out come ids of strings. Which bytes of a line are
a text is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NO_TEXT, Int64Array, Strings
from replay.engine.structs import Struct, field

HASHES_KEPT: Final = 1 << 18
"""Once so many hashes of texts are remembered, all are forgotten: they take 10 MB."""

_PATHS: Final = frozenset({"path", "result_path"})

_ESCAPE: Final = rb"(?s)\\(?:x([0-9a-f]{2})|([0-7]{1,3})|(.))"
_LETTERS: Final = dict(zip((b"n", b"t", b"r", b"v", b"f", b"a", b"b", b"e"), b"\n\t\r\v\f\a\b\x1b", strict=True))
_DEVICE: Final = rb"<(?:char|block) \d+:\d+>\Z"


def decoded(text: bytes) -> str:
    """Return a text of a log with its escapes undone: octal, hexadecimal, and those of C."""
    if b"\\" in text:
        text = re.sub(_ESCAPE, _unescaped, text)
    return text.decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[bytes]) -> bytes:
    """Return the byte that an escape stands for."""
    if match[1]:
        return bytes([int(match[1], 16)])
    if match[2]:
        return bytes([int(match[2], 8) & 255])
    letter = _LETTERS.get(match[3])
    return match[3] if letter is None else bytes([letter])


def field_text(key: str, raw: bytes, suffix: str) -> str:
    """Return the text of a field: decoded, for paths without what `-yy` adds to devices."""
    if key in _PATHS and raw.endswith(b">"):
        raw = re.sub(_DEVICE, b"", raw)
    return decoded(raw) + suffix


class _Known(Struct):
    """Ids by hashes, in a table: each hash where its upper bits say or in the next place that was free; 0 is free.

    At least half of the places are free.
    """

    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(1 << 10, np.uint64))
    ids: Int64Array = field(default_factory=lambda: np.zeros(1 << 10, np.int64))
    size: int = 0

    def find(self, hashes: NDArray[np.uint64]) -> Int64Array:
        """Return the ids of hashes, `NO_TEXT` for those that are not known."""
        found = np.full(len(hashes), NO_TEXT, np.int64)
        rows, places = np.arange(len(hashes)), self._places(hashes)
        while len(rows):
            there = self.hashes[places]
            hit = there == hashes[rows]
            found[rows[hit]] = self.ids[places[hit]]
            on = np.flatnonzero(~hit & (there != 0))
            rows, places = rows[on], (places[on] + 1) & (len(self.hashes) - 1)
        found[hashes == 0] = NO_TEXT
        return found

    def add(self, hashes: NDArray[np.uint64], ids: Int64Array) -> None:
        """Add hashes, none of which is 0, known or there twice."""
        if 2 * (self.size + len(hashes)) > len(self.hashes):
            kept = self.hashes != 0
            hashes, ids = np.append(self.hashes[kept], hashes), np.append(self.ids[kept], ids)
            room = 4 << len(hashes).bit_length()
            self.hashes, self.ids, self.size = np.zeros(room, np.uint64), np.zeros(room, np.int64), 0
        self.size += len(hashes)
        places = self._places(hashes)
        while len(hashes):
            free = self.hashes[places] == 0
            self.hashes[places[free]], self.ids[places[free]] = hashes[free], ids[free]
            left = np.flatnonzero(self.hashes[places] != hashes)  # several may have wanted the same place
            hashes, ids, places = hashes[left], ids[left], (places[left] + 1) & (len(self.hashes) - 1)

    def _places(self, hashes: NDArray[np.uint64]) -> Int64Array:
        """Return where hashes are looked for first: by their upper bits, on which every byte of a text has its say."""
        places: Int64Array = (hashes >> np.uint64(40)).astype(np.int64) & (len(self.hashes) - 1)
        return places


class Texts(Struct):
    """The ids of texts, many of them remembered by the hashes of how they are written."""

    strings: Strings
    hashes_kept: int = HASHES_KEPT
    known: dict[tuple[bool, str], _Known] = field(default_factory=dict)

    def id(self, key: str, raw: bytes, suffix: str = "") -> int:
        """Return the id of the text of a field as it is written in a log."""
        return self.ids(key, [raw], suffix)[0]

    def ids(self, key: str, raws: list[bytes], suffix: str = "") -> list[int]:
        """Return the ids of texts of a field as they are written in a log, none of which holds a newline."""
        return self.strings.intern_all(_field_texts(key, raws, suffix)) if raws else []

    def ids_in_slots(
        self, key: str, data: bytes, slots: tuple[Int64Array, Int64Array, NDArray[np.uint64]], suffix: str = ""
    ) -> Int64Array:
        """Return the ids of texts of a field that are all there is between the quotes or brackets of a slot each.

        Of the slots in `data` are given the starts, the ends and the values, see `scanner.Scan`.
        """
        if sum(known.size for known in self.known.values()) > self.hashes_kept:
            self.known.clear()
        known = self.known.setdefault((key in _PATHS, suffix), _Known())
        start, end, hashes = slots
        found = known.find(hashes)
        new = np.flatnonzero(found == NO_TEXT)
        if len(new):
            spans = zip((start[new] + 1).tolist(), (end[new] - 1).tolist(), strict=True)
            ids = np.array(self.ids(key, [data[a:b] for a, b in spans], suffix), np.int64)
            found[new] = ids
            fresh, first = np.unique(hashes[new], return_index=True)
            hashed = fresh != 0
            known.add(fresh[hashed], ids[first[hashed]])
        return found


def _field_texts(key: str, raws: list[bytes], suffix: str) -> Iterator[str]:
    """Yield the texts of a field, decoded; all at once where that is the same."""
    together = b"\n".join(raws)
    if suffix or b"\\" in together or (key in _PATHS and b">" in together):
        yield from (field_text(key, raw, suffix) for raw in raws)
    else:
        yield from decoded(together).split("\n")
