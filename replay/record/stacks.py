"""The return addresses behind the lines of a log, as frames with module, symbol and offset.

In go lines ` > 0xADDRESS` and the mappings of the process that wrote them, out come lines as `strace -k` prints them:
` > /usr/lib/libc.so.6(__strdup+0x1a) [0x9f7a]`, the offset in brackets being that in the file.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from replay.linux.elf import read_elf
from replay.linux.elf_symbols import Functions, functions_of
from replay.linux.proc_maps import Mapping

_FRAME: Final = re.compile(rb"^ > 0x([0-9a-f]+)$", re.MULTILINE)


class Frames:
    """The frames of one process, by address; `mappings` are those of its code, in which later ones replace others."""

    def __init__(self, mappings: Iterable[Mapping]) -> None:
        """Keep the mappings of code."""
        code = {mapping.start: mapping for mapping in mappings if "x" in mapping.perms}
        self.mappings = [code[start] for start in sorted(code)]
        self.starts = [mapping.start for mapping in self.mappings]
        self.known: dict[bytes, bytes] = {}

    def resolved(self, lines: bytes) -> bytes:
        """Return lines with their frames resolved."""
        return _FRAME.sub(self._frame, lines) if b"\n > 0x" in lines else lines

    def _frame(self, found: re.Match[bytes]) -> bytes:
        text = self.known.get(found[1])
        if text is None:
            text = self.known[found[1]] = self._text(int(found[1], 16)).encode("utf-8", "surrogateescape")
        return text

    def _text(self, address: int) -> str:
        place = bisect_right(self.starts, address) - 1
        if place < 0 or address >= self.mappings[place].end:
            return f" > unexpected_backtracing_error [{address:#x}]"
        mapping = self.mappings[place]
        offset = address - mapping.start + mapping.offset
        functions = _functions(mapping.path)
        # The address is that behind the call: the call itself tells the function, where it is its last one.
        name, inside = functions.at(_virtual(mapping.path, offset) - 1) if functions else ("", 0)
        symbol = f"{name}+{inside + 1:#x}" if name else ""
        return f" > {mapping.path or '[anonymous]'}({symbol}) [{offset:#x}]"


@lru_cache(64)
def _functions(path: str) -> Functions | None:
    return functions_of(path) if path.startswith("/") else None


def _virtual(path: str, offset: int) -> int:
    """Return the address, relative to the base, of a place in a file."""
    for load in _loads(path):
        if load[0] <= offset < load[0] + load[1]:
            return offset - load[0] + load[2]
    return offset


@lru_cache(64)
def _loads(path: str) -> tuple[tuple[int, int, int], ...]:
    file = read_elf(path)
    return tuple((load.offset, load.filesz, load.vaddr) for load in file.loads) if file else ()
