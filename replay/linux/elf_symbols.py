"""The functions that the symbol tables of an ELF file name.

In goes a file of 64 bits, out come names by address, or whether a name is there. Debugging information is not read.

Source: elf(5), Section header (Shdr) and String and symbol tables (Sym).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_SYMTAB, _DYNSYM = 2, 11
_FUNCTIONS: Final = (2, 10)
"""STT_FUNC and STT_GNU_IFUNC."""

_SYMBOL: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")


class Functions(NamedTuple):
    """The functions of a file in order of addresses: each is at `[start, end)`, its name at a place of `strings`."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    name: NDArray[np.int64]
    strings: bytes

    def at(self, address: int) -> tuple[str, int]:
        """Return the name of the function at an address, and how far into it that is; an empty one if none is."""
        place = int(np.searchsorted(self.start, np.uint64(address), side="right")) - 1
        if place < 0 or address >= max(int(self.end[place]), int(self.start[place]) + 1):
            return "", 0
        return self._text(int(self.name[place])), address - int(self.start[place])

    def has(self, name: str) -> bool:
        """Tell whether a function of that name is defined."""
        wanted = b"\0" + name.encode() + b"\0"
        at = self.strings.find(wanted)
        while at >= 0:
            if (self.name == at + 1).any():
                return True
            at = self.strings.find(wanted, at + 1)
        return False

    def _text(self, place: int) -> str:
        return self.strings[place : self.strings.index(b"\0", place)].decode("utf-8", "replace")


def functions_of(path: str | Path) -> Functions | None:
    """Return the functions of a file, of both its symbol tables; None where it has none, or is no such file."""
    try:
        data = Path(path).read_bytes()
        return _functions(data) if data[:6] == b"\x7fELF\2\1" else None
    except (OSError, struct.error, ValueError, IndexError):
        return None


def _functions(data: bytes) -> Functions | None:
    (offset,), (size, count) = struct.unpack_from("<Q", data, 0x28), struct.unpack_from("<HH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, offset + place * size) for place in range(count)]
    symbols, names, strings = [], [], b"\0"
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind in (_SYMTAB, _DYNSYM):
            table = np.frombuffer(data, _SYMBOL, length // _SYMBOL.itemsize, start)
            table = table[np.isin(table["info"] & 15, _FUNCTIONS) & (table["section"] != 0)]
            symbols.append(table)
            names.append(table["name"].astype(np.int64) + len(strings))
            strings += data[sections[link][4] : sections[link][4] + sections[link][5]] + b"\0"
    if not symbols:
        return None
    table, name = np.concatenate(symbols), np.concatenate(names)
    order = np.lexsort((table["size"], table["value"]))
    table, name = table[order], name[order]
    return Functions(table["value"], table["value"] + table["size"], name, strings)
