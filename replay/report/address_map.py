"""One address space at one moment as a list of parts: mappings, lumps of mappings, and the gaps between them.

In go the rectangles of a run, out come parts in order of addresses, few enough to be looked at. How they are drawn this
module does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array
from replay.engine.sorting import ascending, ascending_by
from replay.engine.structs import Value
from replay.linux.constants import MAP_FLAGS
from replay.linux.proc_maps import Mapping, perms_text
from replay.mm.fields import KIND_BRK, KINDS, ORIGIN_INFERRED, ORIGINS

if TYPE_CHECKING:
    from replay.run.api import Run
    from replay.run.moment import Mapped

MOST_PARTS: Final = 18
"""As many parts a picture has at most."""

_MAP_STACK: Final = MAP_FLAGS["MAP_STACK"]
_STACK: Final = "thread stack"
_NEAR: Final = 1 << 30
"""Bytes of a gap over which mappings are never lumped together if room allows."""

_EDGE: Final = np.uint64((1 << 64) - 1)
"""What speaks for a border at an edge of the brk area: more than any gap."""


class Piece(Value):
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


class Pieces(Value):
    """The mappings of a space by address, equal neighbours joined, as columns; what each is of a `Piece`."""

    mapped: Mapped
    origin: Int64Array
    made_clock: Int64Array
    stack: NDArray[np.bool_]
    made_step: Int64Array
    """The steps that made the parts of all pieces: a row for each of `mapped.rows`."""

    def part(self, low: int, high: int) -> Pieces:
        """Return the pieces from `low` up to `high`."""
        own = slice(low, high)
        return Pieces(
            self.mapped.part(low, high), self.origin[own], self.made_clock[own], self.stack[own], self.made_step
        )

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.mapped)

    @property
    def made_steps(self) -> Int64Array:
        """Return the steps that made their parts."""
        return self.made_step[self.mapped.first[0] : self.mapped.first[-1]]

    def one(self, at: int) -> Piece:
        """Return one of them."""
        mapped = self.mapped
        perms = perms_text(int(mapped.prot[at]), bool(mapped.shared[at]))
        name = mapped.names[mapped.name[at]]
        return Piece(
            Mapping(int(mapped.start[at]), int(mapped.end[at]), perms, int(mapped.offset[at]), name),
            KINDS[mapped.kind[at]],
            ORIGINS[self.origin[at]],
            int(self.made_clock[at]),
            bool(self.stack[at]),
            tuple(self.made_step[mapped.first[at] : mapped.first[at + 1]].tolist()),
        )

    def all(self) -> list[Piece]:
        """Return each of them."""
        return [self.one(at) for at in range(len(self))]

    def largest(self, most: int) -> list[Piece]:
        """Return the largest ones, the largest first."""
        by_size = np.argsort(~self.mapped.bytes, kind="stable")[:most]
        return [self.one(at) for at in by_size.tolist()]


class Part(Value):
    """Neighbouring mappings that are drawn as one; `role` is `heap`, `blocker` or empty."""

    pieces: Pieces
    role: str = ""

    @property
    def start(self) -> int:
        """Return the lowest address."""
        return int(self.pieces.mapped.start[0])

    @property
    def end(self) -> int:
        """Return the end of the highest mapping."""
        return int(self.pieces.mapped.end[-1])

    @property
    def bytes(self) -> int:
        """Return the bytes mapped, gaps inside left out."""
        return int(self.pieces.mapped.bytes.sum())


class Gaps(Value):
    """The free ranges `[start, end)` between neighbours, by address."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.start)

    @property
    def bytes(self) -> int:
        """Return the bytes of them all."""
        return int((self.end - self.start).sum())

    def largest(self, most: int) -> list[Gap]:
        """Return the largest ones, the largest first."""
        by_size = np.argsort(~(self.end - self.start), kind="stable")[:most]
        return [Gap(int(self.start[at]), int(self.end[at])) for at in by_size.tolist()]


class Gap(Value):
    """A free range `[start, end)` between two mappings."""

    start: int
    end: int

    @property
    def bytes(self) -> int:
        """Return its size."""
        return self.end - self.start


def pieces_at(run: Run, space: int, clock: int) -> Pieces:
    """Return the mappings of a space once line `clock` had been printed, by address, equal neighbours joined."""
    mapped, regions = run.mapped(space, clock), run.replayed.regions
    mapped = mapped.joined(_goes_on(mapped))
    rows = mapped.rows[mapped.first[:-1]]
    flags = regions.at("flags", rows)
    return Pieces(
        mapped,
        origin=regions.at("origin", rows),
        made_clock=regions.at("made_line", rows),
        stack=(flags > 0) & ((flags & _MAP_STACK) != 0),
        made_step=regions.at("made_step", mapped.rows),
    )


def _goes_on(mapped: Mapped) -> NDArray[np.bool_]:
    """Tell of which mappings the next above goes on right where they end, as the same kind of memory."""
    same: NDArray[np.bool_] = mapped.start[1:] == mapped.end[:-1]
    for column in (mapped.perms, mapped.name, mapped.kind):
        same &= column[1:] == column[:-1]
    of_file = np.array([name.startswith("/") for name in mapped.names])[mapped.name] | (mapped.offset > 0)
    in_file = mapped.offset[1:] == mapped.offset[:-1] + mapped.bytes.astype(np.int64)[:-1]
    same &= in_file | ~(of_file[1:] | of_file[:-1])
    return same


KERNEL_HALF: Final = np.uint64(1 << 63)
"""Addresses from here on are the kernel's; [vsyscall] lies there. Source: Documentation/arch/x86/x86_64/mm.rst."""


def gaps_of(pieces: Pieces) -> Gaps:
    """Return the free ranges between neighbours, by address; no user maps what lies below the kernel's half."""
    low, high = pieces.mapped.end[:-1], pieces.mapped.start[1:]
    apart = (high > low) & (high < KERNEL_HALF)
    return Gaps(low[apart], high[apart])


def parts_of(pieces: Pieces, blocker: int | None, most: int = MOST_PARTS) -> list[Part]:
    """Return the pieces as at most about `most` parts, by address.

    The brk area and the mapping that begins at `blocker` stay alone; of the others, those that belong together
    (a file's segments, what one call made) or lie close together are lumped, the nearest first.
    """
    roles = _roles(pieces, blocker)
    borders = _borders(pieces, roles)
    edges = [0, *(np.flatnonzero(borders > _lumped(borders, most - 1)) + 1).tolist(), len(pieces)]
    return [Part(pieces.part(low, high), _role_of(roles[low:high])) for low, high in pairwise(edges)]


def _lumped(borders: NDArray[np.uint64], most: int) -> np.uint64:
    """Return the weight up to which no border stands, so that at most `most` do; equal ones fall together."""
    if np.count_nonzero(borders) <= most:
        return np.uint64(0)
    weight: np.uint64 = np.partition(borders, len(borders) - 1 - most)[len(borders) - 1 - most]
    return weight


_ROLES: Final = ("", "heap", "blocker")


def _role_of(roles: Int64Array) -> str:
    """Return the first role that one of a part's pieces has, empty if none has any."""
    return _ROLES[roles[np.argmax(roles != 0)]]


def _roles(pieces: Pieces, blocker: int | None) -> Int64Array:
    """Return the role of each piece, as its place in `_ROLES`."""
    mapped = pieces.mapped
    named = np.array([name == "[heap]" for name in mapped.names])[mapped.name]
    roles: Int64Array = (named | (mapped.kind == KIND_BRK)).astype(np.int64)
    if blocker is not None:
        roles[(mapped.start <= blocker) & (blocker < mapped.end)] = _ROLES.index("blocker")
    return roles


def _borders(pieces: Pieces, roles: Int64Array) -> NDArray[np.uint64]:
    """Return how much speaks for a border between neighbours: 0 never, the most for the brk area's edges."""
    mapped = pieces.mapped
    low, high = mapped.end[:-1], mapped.start[1:]
    gaps = np.where(high > low, high - low, 0)
    of_file = np.array([name.startswith("/") for name in mapped.names])[mapped.name[1:]]
    same_file = (gaps < _NEAR) & (mapped.name[1:] == mapped.name[:-1]) & of_file
    borders = np.where(same_file | ((gaps == 0) & _made_together(pieces)), 0, gaps + 1)
    borders[roles[1:] != roles[:-1]] = _EDGE
    return borders.astype(np.uint64, copy=False)


def _made_together(pieces: Pieces) -> NDArray[np.bool_]:
    """Tell of which pieces a step made parts that also made parts of the next above."""
    piece = np.repeat(np.arange(len(pieces)), np.diff(pieces.mapped.first))
    order = ascending(pieces.made_steps)
    step, piece = pieces.made_steps[order], piece[order]
    together = np.zeros(max(len(pieces) - 1, 0), np.bool_)
    together[piece[:-1][(step[1:] == step[:-1]) & (piece[1:] == piece[:-1] + 1)]] = True
    return together


def _alike(pieces: Pieces, *columns: Int64Array) -> Iterator[tuple[Piece, int, int]]:
    """Yield the first piece of those that are alike in some columns, how many they are and their bytes, by address."""
    if not pieces:
        return
    order = ascending_by(*columns)
    differs = np.zeros(len(pieces) - 1, np.bool_)
    for column in columns:
        differs |= column[order][1:] != column[order][:-1]
    heads = np.flatnonzero(np.append(True, differs))
    counts, bytes_ = np.diff(np.append(heads, len(pieces))), np.add.reduceat(pieces.mapped.bytes[order], heads)
    for at in ascending(order[heads]).tolist():
        yield pieces.one(int(order[heads[at]])), int(counts[at]), int(bytes_[at])


def names_of(part: Part) -> str:
    """Return what a part consists of, in a few words: `libc.so.6 (5 mappings)`, `anonymous`, `[heap]`."""
    pieces, mapped = part.pieces, part.pieces.mapped
    sizes: dict[str, int] = {}
    for piece, _, bytes_ in _alike(pieces, mapped.name, mapped.kind, pieces.origin, pieces.stack.astype(np.int64)):
        sizes[name_of(piece)] = sizes.get(name_of(piece), 0) + bytes_
    names = sorted(sizes, key=lambda name: -sizes[name])
    if len(pieces) == 1:
        return names[0]
    if names == [_STACK]:
        return f"{_STACK} and guard"
    shown = ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
    return f"{shown} ({len(pieces)} mappings)"


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


def kinds_of(pieces: Pieces) -> list[tuple[str, int, int]]:
    """Return for each kind of mapping how many there are and their bytes, the largest first."""
    found: dict[str, list[int]] = {}
    for piece, count, bytes_ in _alike(pieces, pieces.mapped.kind, pieces.mapped.prot & 7):
        entry = found.setdefault(kind_name(piece), [0, 0])
        entry[0] += count
        entry[1] += bytes_
    return sorted(((kind, count, size) for kind, (count, size) in found.items()), key=lambda row: -row[2])


def kind_name(piece: Piece) -> str:
    """Return the kind of a mapping in words; what may not be touched is reserved, not used."""
    if piece.kind == "anon" and piece.perms.startswith("---"):
        return "anonymous, no access"
    return _KIND_NAMES.get(piece.kind, piece.kind)


_KIND_NAMES: Final = {"brk": "brk area", "anon": "anonymous", "shm": "shared memory", "image": "program image"}
