"""The texts of a log as ids: decoded, each one once.

In go bytes as a tracer wrote them, or the slots in which they stand, out come ids of strings. Which bytes of a line are
a text is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from replay.columns import Int64Array, Strings

HASHES_KEPT: Final = 1 << 18
"""So many hashes of texts are remembered, and about as many more: some 30 MB."""

_PATHS: Final = frozenset({"path", "result_path"})

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_LETTERS: Final = dict(zip((b"n", b"t", b"r", b"v", b"f", b"a", b"b", b"e"), b"\n\t\r\v\f\a\b\x1b", strict=True))
_DEVICE: Final = re.compile(rb"<(?:char|block) \d+:\d+>\Z")


def decoded(text: bytes) -> str:
    """Return a text of a log with its escapes undone: octal, hexadecimal, and those of C."""
    if b"\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
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
        raw = _DEVICE.sub(b"", raw)
    return decoded(raw) + suffix


@dataclass(slots=True)
class Texts:
    """The ids of texts, many of them remembered by the hashes of how they are written."""

    strings: Strings
    hashes_kept: int = HASHES_KEPT
    size: int = 0
    known: dict[tuple[bool, str], dict[int, int]] = field(default_factory=dict)

    def id(self, key: str, raw: bytes, suffix: str = "") -> int:
        """Return the id of the text of a field as it is written in a log."""
        return self.ids(key, [raw], suffix)[0]

    def ids(self, key: str, raws: list[bytes], suffix: str = "") -> list[int]:
        """Return the ids of texts of a field as they are written in a log, none of which holds a newline."""
        written = list(dict.fromkeys(raws))
        found = dict(zip(written, self.strings.intern_all(_field_texts(key, written, suffix)), strict=True))
        return [found[raw] for raw in raws]

    def ids_in_slots(
        self, key: str, data: bytes, slots: tuple[Int64Array, Int64Array, NDArray[np.uint64]], suffix: str = ""
    ) -> list[int]:
        """Return the ids of texts of a field that are all there is between the quotes or brackets of a slot each.

        Of the slots in `data` are given the starts, the ends and the values, see `scanner.Scan`.
        """
        if self.size > self.hashes_kept:
            self.known.clear()
            self.size = 0
        known = self.known.setdefault((key in _PATHS, suffix), {})
        start, end, values = slots
        hashes = values.tolist()
        found = list(map(known.get, hashes))
        if None in found:
            new = [place for place, text in enumerate(found) if text is None]
            spans = zip((start[new] + 1).tolist(), (end[new] - 1).tolist(), strict=True)
            for place, text in zip(new, self.ids(key, [data[a:b] for a, b in spans], suffix), strict=True):
                found[place] = text
                if hashes[place]:
                    known[hashes[place]] = text
            self.size += len(new)
        return cast(list[int], found)


def _field_texts(key: str, raws: list[bytes], suffix: str) -> Iterator[str]:
    """Yield the texts of a field, decoded; all at once where that is the same."""
    together = b"\n".join(raws)
    if suffix or b"\\" in together or (key in _PATHS and b">" in together):
        yield from (field_text(key, raw, suffix) for raw in raws)
    else:
        yield from decoded(together).split("\n")
