"""One address space at one moment as a list of parts: mappings, lumps of mappings, and the gaps between them.

In go the rectangles of a run, out come parts in order of addresses, few enough to be looked at. How they are drawn this
module does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from replay.address_space import KINDS, ORIGIN_INFERRED, ORIGINS
from replay.columns import Int64Array
from replay.constants import MAP_FLAGS
from replay.maps import Mapping, continues
from replay.ordering import ascending

if TYPE_CHECKING:
    from replay.run import Run

MOST_PARTS: Final = 18
"""As many parts a picture has at most."""

_MAP_STACK: Final = MAP_FLAGS["MAP_STACK"]
_STACK: Final = "thread stack"
_NEAR: Final = 1 << 30
"""Bytes of a gap over which mappings are never lumped together if room allows."""


class Piece(NamedTuple):
    """One mapping, equal neighbours joined, with what /proc/PID/maps does not tell; its lowest part stands for all."""

    mapping: Mapping
    kind: str
    origin: str
    made_clock: int
    stack: bool
    """It was asked for as a thread's stack (MAP_STACK)."""
    made_steps: tuple[int, ...]
    """The steps that made its parts."""

    @property
    def start(self) -> int:
        """Return the lowest address."""
        return self.mapping.start

    @property
    def end(self) -> int:
        """Return the end, the first address above it."""
        return self.mapping.end

    @property
    def perms(self) -> str:
        """Return the permissions, such as `rw-p`."""
        return self.mapping.perms

    @property
    def path(self) -> str:
        """Return the file or name, empty for none."""
        return self.mapping.path

    @property
    def bytes(self) -> int:
        """Return its size."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring mappings that are drawn as one; `role` is `heap`, `blocker` or empty."""

    pieces: tuple[Piece, ...]
    role: str = ""

    @property
    def start(self) -> int:
        """Return the lowest address."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """Return the end of the highest mapping."""
        return self.pieces[-1].end

    @property
    def bytes(self) -> int:
        """Return the bytes mapped, gaps inside left out."""
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Gap:
    """A free range `[start, end)` between two mappings."""

    start: int
    end: int

    @property
    def bytes(self) -> int:
        """Return its size."""
        return self.end - self.start


def pieces_at(run: Run, space: int, clock: int) -> list[Piece]:
    """Return the mappings of a space once line `clock` had been printed, by address, equal neighbours joined."""
    mapped = run.mapped(space, clock)
    told = _of_regions(run, [rows for _, rows in mapped])
    joined: list[tuple[Mapping, int, int]] = []
    last = 0
    for mapping, rows in mapped:
        first, last = last, last + len(rows)
        low, begin, end = joined[-1] if joined else (mapping, 0, 0)
        if joined and told["kind"][end - 1] == told["kind"][first] and continues(low, mapping):
            joined[-1] = (low._replace(end=mapping.end), begin, last)
        else:
            joined.append((mapping, first, last))
    return [_piece(mapping, told, begin, end) for mapping, begin, end in joined]


def _of_regions(run: Run, rows: list[Int64Array]) -> dict[str, list[int]]:
    """Return what regions are and what made them, in the order of `rows`, by column."""
    every = np.concatenate([np.zeros(0, np.int64), *rows])
    order, told = ascending(every), {}
    for name in ("kind", "origin", "made_line", "flags", "made_step"):
        column = np.empty(len(every), np.int64)
        column[order] = run.replayed.regions.at(name, every[order])
        told[name] = column.tolist()
    return told


def _piece(mapping: Mapping, told: dict[str, list[int]], begin: int, end: int) -> Piece:
    kind, origin, made, flags = (told[name][begin] for name in ("kind", "origin", "made_line", "flags"))
    steps = tuple(told["made_step"][begin:end])
    return Piece(mapping, KINDS[kind], ORIGINS[origin], made, flags > 0 and bool(flags & _MAP_STACK), steps)


def gaps_of(pieces: list[Piece]) -> list[Gap]:
    """Return the free ranges between neighbours, by address."""
    return [Gap(low.end, high.start) for low, high in pairwise(pieces) if high.start > low.end]


def parts_of(pieces: list[Piece], blocker: int | None, most: int = MOST_PARTS) -> list[Part]:
    """Return the pieces as at most about `most` parts, by address.

    The brk area and the mapping that begins at `blocker` stay alone; of the others, those that belong together
    (a file's segments, what one call made) or lie close together are lumped, the nearest first.
    """
    roles = [_role(piece, blocker) for piece in pieces]
    borders = [_border(*neighbours) for neighbours in pairwise(zip(pieces, roles, strict=True))]
    least = _least_border(borders, most - 1)
    parts: list[Part] = []
    first = 0
    for at, weight in enumerate([*borders, 1 << 70], 1):
        if weight >= least:
            role = next((role for role in roles[first:at] if role), "")
            parts.append(Part(tuple(pieces[first:at]), role))
            first = at
    return parts


def _least_border(borders: list[int], most: int) -> int:
    """Return the weight from which a border stands, so that at most `most` do; equal ones fall together."""
    kept = sorted((weight for weight in borders if weight), reverse=True)
    if len(kept) <= most:
        return 1
    return kept[most - 1] if kept[most] < kept[most - 1] else kept[most - 1] + 1


def _role(piece: Piece, blocker: int | None) -> str:
    if blocker is not None and piece.start <= blocker < piece.end:
        return "blocker"
    return "heap" if piece.path == "[heap]" or piece.kind == "brk" else ""


def _border(below: tuple[Piece, str], above: tuple[Piece, str]) -> int:
    """Return how much speaks for a border between pieces with roles: 0 never, the most for the brk area's edges."""
    low, high = below[0], above[0]
    if below[1] != above[1]:
        return 1 << 66
    gap = high.start - low.end
    if not gap and not set(low.made_steps).isdisjoint(high.made_steps):
        return 0
    if gap < _NEAR and low.path == high.path and low.path.startswith("/"):
        return 0
    return gap + 1


def names_of(part: Part) -> str:
    """Return what a part consists of, in a few words: `libc.so.6 (5 mappings)`, `anonymous`, `[heap]`."""
    sizes: dict[str, int] = {}
    for piece in part.pieces:
        sizes[name_of(piece)] = sizes.get(name_of(piece), 0) + piece.bytes
    if len(part.pieces) == 1:
        return name_of(part.pieces[0])
    names = sorted(sizes, key=lambda name: -sizes[name])
    if names == [_STACK]:
        return f"{_STACK} and guard"
    shown = ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
    return f"{shown} ({len(part.pieces)} mappings)"


def name_of(piece: Piece) -> str:
    """Return a short name of a mapping: its file without folders, `[heap]`, or its kind."""
    if piece.path:
        return PurePath(piece.path).name if piece.path.startswith("/") else piece.path
    if piece.origin == ORIGINS[ORIGIN_INFERRED]:
        return "program or ld.so (inferred)" if piece.kind == "image" else "made before the log (inferred)"
    if piece.stack:
        return _STACK
    return _SHORT_NAMES.get(piece.kind, piece.kind)


_SHORT_NAMES: Final = {"anon": "anonymous", "shm": "shared memory", "image": "program"}


def kinds_of(pieces: list[Piece]) -> list[tuple[str, int, int]]:
    """Return for each kind of mapping how many there are and their bytes, the largest first."""
    found: dict[str, list[int]] = {}
    for piece in pieces:
        entry = found.setdefault(kind_name(piece), [0, 0])
        entry[0] += 1
        entry[1] += piece.bytes
    return sorted(((kind, count, size) for kind, (count, size) in found.items()), key=lambda row: -row[2])


def kind_name(piece: Piece) -> str:
    """Return the kind of a mapping in words; what may not be touched is reserved, not used."""
    if piece.kind == "anon" and piece.perms.startswith("---"):
        return "anonymous, no access"
    return _KIND_NAMES.get(piece.kind, piece.kind)


_KIND_NAMES: Final = {"brk": "brk area", "anon": "anonymous", "shm": "shared memory", "image": "program image"}
