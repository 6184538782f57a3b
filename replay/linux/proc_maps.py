"""The text of /proc/PID/maps: read it, join its equal neighbours, write it.

In go lines or mappings, out come mappings or lines. Where they come from this module does not know.

Source: proc_pid_maps(5); fs/proc/task_mmu.c, show_map_vma.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from replay.errors import ReplayError

_LINE: Final = r"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][ps]) ([0-9a-f]+) (\S+) (\d+)(?: +(.*))?$"

LEAST_PAGE: Final = 4096
"""Bytes of the smallest page that Linux has. Source: include/asm-generic/page.h and arch/*/include/asm/page.h."""

HIGHEST_USER: Final = 1 << 57
"""No address of a program lies as high. Source: arch/x86/include/asm/page_64_types.h, __VIRTUAL_MASK_SHIFT 56."""

PROT_OF_LETTER: Final = {"r": 1, "w": 2, "x": 4}


class Mapping(NamedTuple):
    """One line of /proc/PID/maps: `[start, end)`, permissions such as `rw-p`, file offset in bytes, path or name."""

    start: int
    end: int
    perms: str
    offset: int
    path: str


@lru_cache(1024)
def perms_text(prot: int, shared: bool) -> str:
    """Return the four letters for PROT_ bits and sharing, such as `r-xp`."""
    letters = "".join(letter if prot & bit else "-" for letter, bit in PROT_OF_LETTER.items())
    return letters + ("s" if shared else "p")


def prot_of(perms: str) -> int:
    """Return the PROT_ bits of four letters such as `r-xp`."""
    return sum(bit for letter, bit in PROT_OF_LETTER.items() if letter in perms)


def parse_maps(text: str, source: str = "maps") -> list[Mapping]:
    """Return the mappings of a maps file's text, in order of addresses and apart.

    Raises:
        ReplayError: a line is none of a maps file, or no address space can have it; `source` and its number are named.
    """
    mappings: list[Mapping] = []
    highest = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = re.match(_LINE, line)
        if match is None:
            raise ReplayError(f"{source}:{number}: no line of /proc/PID/maps: {line[:80]!r}")
        start, end, perms, offset, _dev, _inode, path = match.groups()
        mapping = Mapping(int(start, 16), int(end, 16), perms, int(offset, 16), unescape(path or ""))
        if fault := _fault_of(mapping, highest):
            raise ReplayError(f"{source}:{number}: {fault}: {line[:80]!r}")
        mappings.append(mapping)
        highest = mapping.end
    return mappings


def _fault_of(mapping: Mapping, highest: int) -> str:
    """Return why a space with mappings up to `highest` cannot have this one next, '' if it can.

    [vsyscall] alone lies in the kernel's half. Source: arch/x86/entry/vsyscall/vsyscall_64.c.
    """
    if mapping.start >= mapping.end:
        return "a mapping that ends before it starts"
    if (mapping.start | mapping.end) % LEAST_PAGE or mapping.offset % LEAST_PAGE:
        return "a mapping that does not begin and end with a page"
    if mapping.end > HIGHEST_USER and mapping.path != "[vsyscall]":
        return "a mapping above all addresses of a program"
    if mapping.start < highest:
        return "a mapping below the end of the one before; a maps file is in order of addresses, and of one process"
    return ""


def read_maps(path: Path) -> list[Mapping]:
    """Return the mappings of a maps file; raise ReplayError if it cannot be read, is empty or holds other lines."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ReplayError(f"{path}: cannot read the maps file: {error.strerror}") from error
    mappings = parse_maps(text, str(path))
    if not mappings:
        raise ReplayError(f"{path}: the maps file is empty; expected lines of /proc/PID/maps")
    return mappings


def unescape(path: str) -> str:
    r"""Return a path with the kernel's only escape, `\012` for a newline, undone."""
    return path.replace("\\012", "\n")


def join_equal(mappings: Iterable[Mapping]) -> Iterator[Mapping]:
    """Yield mappings with equal neighbours joined: same permissions and path, and the file offset goes on.

    Where the kernel draws the line between neighbours depends on what no log shows (flags, anon_vma).
    """
    held: Mapping | None = None
    for mapping in mappings:
        if held is not None and continues(held, mapping):
            held = held._replace(end=mapping.end)
            continue
        if held is not None:
            yield held
        held = mapping
    if held is not None:
        yield held


def continues(low: Mapping, high: Mapping) -> bool:
    """Tell whether `high` goes on right where `low` ends, as the same kind of memory."""
    if low.end != high.start or low.perms != high.perms or low.path != high.path:
        return False
    is_file = low.path.startswith("/") or low.offset or high.offset
    return not is_file or high.offset == low.offset + low.end - low.start


def maps_text(mappings: Iterable[Mapping]) -> str:
    """Return the mappings as /proc/PID/maps prints them; device and inode, which no log shows, are zero."""
    return "".join(_line(mapping) for mapping in mappings)


def _line(mapping: Mapping) -> str:
    # Source: show_map_vma: addresses at least 8 digits, the name from column 73 on.
    head = f"{mapping.start:08x}-{mapping.end:08x} {mapping.perms} {mapping.offset:08x} 00:00 0 "
    if not mapping.path:
        return head.rstrip() + "\n"
    return f"{head:<73}{mapping.path.replace(chr(10), chr(92) + '012')}\n"
