"""The texts of a log as ids: decoded, each one once.

In go bytes as a tracer wrote them, out come ids of strings. Which bytes of a line are a text is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

from replay.columns import Strings

BYTES_KEPT: Final = 32 << 20
"""How much memory texts may take that are remembered as they are written, in bytes."""

_PATHS: Final = frozenset({"path", "result_path"})
_BYTES_OF_ENTRY: Final = 150

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
    """The ids of texts, many of them remembered by their bytes."""

    strings: Strings
    bytes_kept: int = BYTES_KEPT
    size: int = 0
    known: dict[tuple[bool, str], dict[bytes, int]] = field(default_factory=dict)

    def id(self, key: str, raw: bytes, suffix: str = "") -> int:
        """Return the id of the text of a field as it is written in a log."""
        return self.ids(key, [raw], suffix)[0]

    def ids(self, key: str, raws: list[bytes], suffix: str = "") -> list[int]:
        """Return the ids of texts of a field as they are written in a log, none of which holds a newline."""
        if self.size > self.bytes_kept:
            self.known.clear()
            self.size = 0
        known = self.known.setdefault((key in _PATHS, suffix), {})
        found = list(map(known.get, raws))
        if None in found:
            new = [raw for raw in dict.fromkeys(raws) if raw not in known]
            known.update(zip(new, self.strings.intern_all(_field_texts(key, new, suffix)), strict=True))
            self.size += sum(map(len, new)) + _BYTES_OF_ENTRY * len(new)
            found = list(map(known.get, raws))
        return cast(list[int], found)


def _field_texts(key: str, raws: list[bytes], suffix: str) -> Iterator[str]:
    """Yield the texts of a field, decoded; all at once where that is the same."""
    together = b"\n".join(raws)
    if suffix or b"\\" in together or (key in _PATHS and b">" in together):
        yield from (field_text(key, raw, suffix) for raw in raws)
    else:
        yield from decoded(together).split("\n")
