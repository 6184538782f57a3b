"""What changed in an address space between two steps: regions gone, new, with other permissions; the break; the totals.

In go a run and two steps, out come the differences as values, and from those lines for the screen or values for JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from replay.console.amounts import address, exact, number, size
from replay.console.screen import cells, clean, shortened, styled
from replay.console.terminal import width as screen_width
from replay.engine.columns import NULL
from replay.errors import QueryError
from replay.report.address_map import Piece, pieces_at
from replay.run.places import Place, Places

if TYPE_CHECKING:
    from replay.run.api import Run

WORDS: Final = ("gone", "new", "changed")


@dataclass(frozen=True, slots=True)
class Change:
    """A range `[start, end)` that is `gone`, `new` or `changed`: what was there before and what is there after."""

    what: str
    start: int
    end: int
    before: Piece | None
    after: Piece | None

    @property
    def bytes(self) -> int:
        """Return its size."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Moment:
    """A space once a step had completed: its mappings and its break (None if the log does not tell it)."""

    step: int
    place: Place
    space: int
    pieces: list[Piece]
    brk: int | None

    @property
    def mapped(self) -> int:
        """Return the bytes mapped."""
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two moments and what changed from the first to the second, by address."""

    before: Moment
    after: Moment
    changes: list[Change]


def difference(run: Run, first: int, second: int, pid: int | None = None) -> Difference:
    """Return what changed between two steps: in the space of the second, or of thread or process `pid`.

    Where that space did not exist yet at the first step, the space of the first step is compared with it.

    Raises:
        QueryError: a step is not in the run, or the process is not.
    """
    events = run.replayed.events
    for step in (first, second):
        if not 0 <= step < len(events["step"]):
            count = len(events["step"])
            raise QueryError(f"no step {step}: the run has " + (f"steps 0 to {count - 1}" if count else "none"))
    later = run.space_at(int(events["clock"][second]), second, pid)
    alive = int(run.replayed.spaces["born_step"][later]) <= first
    earlier = later if alive else run.space_at(int(events["clock"][first]), first, pid)
    before, after = _moment(run, first, earlier), _moment(run, second, later)
    return Difference(before, after, list(_changes(before.pieces, after.pieces)))


def _moment(run: Run, step: int, space: int) -> Moment:
    brks = run.replayed.brks
    mine = np.flatnonzero((brks["space"] == space) & (brks["step"] <= step) & (brks["granted"] != NULL))
    brk = int(brks["granted"][mine[-1]]) if mine.size else None
    clock = int(run.replayed.events["clock"][step])
    return Moment(step, Places(run).of_step(step), space, pieces_at(run, space, clock).all(), brk)


def _changes(before: list[Piece], after: list[Piece]) -> Iterator[Change]:
    """Yield the ranges in which two lists of mappings differ, each as long as it may be."""
    held: Change | None = None
    for start, end, old, new in _common_cuts(before, after):
        what = _what(start, old, new)
        if held is not None and held.end == start and (held.what, held.before, held.after) == (what, old, new):
            held = Change(what, held.start, end, old, new)
            continue
        if held is not None and held.what:
            yield held
        held = Change(what, start, end, old, new)
    if held is not None and held.what:
        yield held


def _common_cuts(before: list[Piece], after: list[Piece]) -> Iterator[tuple[int, int, Piece | None, Piece | None]]:
    """Yield the ranges between all borders of both lists with the mapping of either list there."""
    borders = sorted({border for piece in (*before, *after) for border in (piece.start, piece.end)})
    old, new = iter(before), iter(after)
    left, right = next(old, None), next(new, None)
    for start, end in pairwise(borders):
        while left is not None and left.end <= start:
            left = next(old, None)
        while right is not None and right.end <= start:
            right = next(new, None)
        was = left if left is not None and left.start <= start else None
        is_ = right if right is not None and right.start <= start else None
        yield start, end, was, is_


def _what(start: int, old: Piece | None, new: Piece | None) -> str:
    if old is None or new is None:
        return "new" if new is not None else "gone" if old is not None else ""
    same = old.perms == new.perms and old.path == new.path and old.kind == new.kind
    is_file = old.path.startswith("/")
    same = same and (not is_file or old.mapping.offset - old.start == new.mapping.offset - new.start)
    return "" if same else "changed"


# --- for the screen --------------------------------------------------------------------------------------------------


def difference_lines(found: Difference, run: Run) -> Iterator[str]:
    """Yield the lines that tell a difference."""
    before, after = found.before, found.after
    yield styled("title", f"step {before.step} ({before.place}) to step {after.step} ({after.place})")
    if before.space != after.space:
        yield f"space {before.space} before, space {after.space} after: an execve or a fork lies between"
    elif len(run.replayed.spaces["space"]) > 1:
        yield f"space {before.space}"
    yield ""
    if not found.changes:
        yield "no mapping changed"
    width = max((len(f"{change.end:x}") for change in found.changes), default=0)
    for change in found.changes:
        yield _change_line(change, run, width)
    yield ""
    yield from _totals(found)


_SIGNS: Final = {"gone": ("-", "hot"), "new": ("+", "new"), "changed": ("~", "cool")}


def _change_line(change: Change, run: Run, width: int) -> str:
    sign, style = _SIGNS[change.what]
    piece = change.after or change.before
    assert piece is not None
    perms = piece.perms
    if change.before is not None and change.after is not None and change.before.perms != change.after.perms:
        perms = f"{change.before.perms} to {change.after.perms}"
    made = Places(run).of_clock(piece.made_clock) if change.after is not None else None
    head = f"{sign} {change.start:0{width}x}-{change.end:0{width}x} {size(change.bytes):>9} {perms} "
    tail = f" ({made})" if made and change.what == "new" else ""
    room = max(screen_width() - cells(head) - cells(tail), 8)
    return styled(style, head + shortened(clean(_name(change)), room)) + tail


def _name(change: Change) -> str:
    def name(piece: Piece | None) -> str:
        if piece is None:
            return ""
        return PurePath(piece.path).name if piece.path.startswith("/") else piece.path or piece.kind

    before, after = name(change.before), name(change.after)
    return f"{before} to {after}" if before and after and before != after else after or before


def _totals(found: Difference) -> Iterator[str]:
    """Yield the break, the bytes and the mappings before and after."""
    before, after = found.before, found.after
    if before.brk is not None or after.brk is not None:
        yield f"break     {_address(before.brk)} to {_address(after.brk)}{_moved(before.brk, after.brk)}"
    change = after.mapped - before.mapped
    yield f"mapped    {size(before.mapped)} to {size(after.mapped)}: {_signed(change)}"
    yield f"mappings  {len(before.pieces):,} to {len(after.pieces):,}"
    counts = {what: [change for change in found.changes if change.what == what] for what in WORDS}
    parts = [
        f"{number(len(changes), 'range')} {what} ({size(sum(change.bytes for change in changes))})"
        for what, changes in counts.items()
        if changes
    ]
    yield f"changes   {', '.join(parts) or 'none'}"


def _address(value: int | None) -> str:
    return "unknown" if value is None else address(value)


def _moved(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return ""
    return f": {_signed(after - before)}" if after != before else ": not moved"


def _signed(count: int) -> str:
    if not count:
        return "no change"
    return f"{exact(abs(count))} {'more' if count > 0 else 'less'}"


# --- for JSON --------------------------------------------------------------------------------------------------------


def difference_document(found: Difference) -> dict[str, Any]:
    """Return the difference as values for JSON: addresses as `0x…`, sizes in bytes."""
    return {
        "before": _moment_values(found.before),
        "after": _moment_values(found.after),
        "changes": [
            {
                "what": change.what,
                "start": address(change.start),
                "end": address(change.end),
                "bytes": change.bytes,
                "before": _piece_values(change.before),
                "after": _piece_values(change.after),
            }
            for change in found.changes
        ],
    }


def _moment_values(moment: Moment) -> dict[str, Any]:
    return {
        "step": moment.step,
        "line": moment.place.line,
        "file": moment.place.file or None,
        "space": moment.space,
        "brk": None if moment.brk is None else address(moment.brk),
        "mapped_bytes": moment.mapped,
        "mappings": len(moment.pieces),
    }


def _piece_values(piece: Piece | None) -> dict[str, Any] | None:
    if piece is None:
        return None
    return {"perms": piece.perms, "kind": piece.kind, "path": piece.path or None, "origin": piece.origin}
