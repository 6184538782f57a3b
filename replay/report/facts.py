"""What the findings of a report are made of: groups of failures and mappings, spaces, curves, paragraphs; plain values.

In goes nothing, out come the types that findings fill and pages word, and the grouping of equal rows.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from replay.console.screen import clean
from replay.engine.columns import Int64Array
from replay.engine.sorting import ascending, take_groups
from replay.engine.structs import Value
from replay.run.places import Place


class LimitTold(Value):
    """A limit in bytes, the step that tells of it, and whether that step set it."""

    bytes: int
    step: int
    is_set: bool


class FailureGroup(Value):
    """Failed brk calls of one space with one cause and one thing in the way."""

    space: int
    cause: str
    count: int
    first_step: int
    last_step: int
    least_short: int
    most_short: int
    blocker: Blocker | None
    limit_bytes: int | None
    limit_place: Place | None
    limit_step: int | None
    evidence: str
    stood_in: int
    """Failures that a granted mmap followed as their fallback."""
    refused_too: int
    """Failures whose fallback was refused as well."""


class Blocker(Value):
    """The mapping in the way of the break, `[start, end)`; `step` made it, None if it was there before the log."""

    start: int
    end: int
    path: str
    perms: str
    place: Place | None
    step: int | None


class MappingGroup(Value):
    """Mappings of allocators that are alike: kind, allocator, size (None where sizes are added up) and outcome."""

    kind: str
    allocator: str
    bytes_each: int | None
    errno: str
    count: int
    total_bytes: int
    first_step: int
    last_step: int


class ArenaHeaps(Value):
    """How many heaps of arenas there were, how many bytes of addresses they kept, and how many were made usable."""

    count: int
    reserved_bytes: int
    used_bytes: int


class SpaceFacts(Value):
    """One address space: who ran in it, from which line to which, and how much it held. Sizes in bytes."""

    space: int
    parent: int | None
    origin: str
    pid: int | None
    program: str
    first: Place | None
    last: Place | None
    peak_mapped: int
    peak_brk: int
    failures: int
    fallbacks: int

    @property
    def name(self) -> str:
        """Return the space in words, with who ran in it as far as that is known: `space 1 (prog, pid 6447)`."""
        who = [clean(PurePath(self.program).name)] if self.program else []
        who += [f"pid {self.pid}"] if self.pid is not None else []
        return f"space {self.space}" + (f" ({', '.join(who)})" if who else "")


class BreakMoves(Value):
    """How often the break was asked to grow and did, how often it shrank, was only asked for, and came back."""

    asked: int
    grew: int
    shrank: int
    queried: int
    grew_bytes: int
    shrank_bytes: int
    usual_growth: int
    """Median of the bytes of a growth, 0 without any."""
    returns: int
    """How often a growth followed a shrink of the same space."""


class Curve(Value):
    """A quantity of one space over the lines of the log: `values[i]` bytes from clock `clocks[i]` on."""

    clocks: Int64Array
    values: Int64Array


class ProblemGroup(Value):
    """The problems of one reason: how many, and the first of them."""

    reason: str
    count: int
    first: Place
    text: str


def alike(keys: list[Int64Array]) -> list[Int64Array]:
    """Return the rows of each combination of values, in order."""
    groups = take_groups(keys)[1]
    order = ascending(groups)
    ordered = groups[order]
    return np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


class Paragraph(NamedTuple):
    """One paragraph and its tone: `bad`, `good` or empty."""

    text: str
    tone: str = ""
