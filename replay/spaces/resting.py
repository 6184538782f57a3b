"""Spaces at rest: their mappings as rows, which a forked child shares with its parent but for those that it changes.

In go spaces as they run, out come rows, and spaces again when something happens in them.

Source: fork(2): the child has a copy of its parent's mappings, but for those under MADV_DONTFORK.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from replay.engine.columns import NULL
from replay.engine.records import Records, numbers_of
from replay.engine.structs import Struct, field
from replay.mm.fields import DONTFORK, RECTANGLE
from replay.mm.space import PIECE, Space, live_rows, space_of_rows

WORTH_SHARING: Final = 256
"""So many rows side by side are kept as the parent's: fewer take less room as a child's own. Heuristic."""

_OF_EACH: Final = [name not in ("born_line", "born_step", "died_line") for name in RECTANGLE.names or ()]


class Inherited(NamedTuple):
    """The spans `[start, end)` of a parent's `rows`, not to be written to, that a child has as they were at the fork.

    In the child all of them are born at the line `born`.
    """

    rows: Records
    spans: list[tuple[int, int]]
    born: int

    @property
    def rows_left(self) -> int:
        """Return how many rows they are."""
        return sum(end - start for start, end in self.spans)

    def copied(self) -> Records:
        """Return the rows as the fork gave them: born then, made when they were made."""
        return born_at(np.concatenate([self.rows[:0], *(self.rows[start:end] for start, end in self.spans)]), self.born)

    def still(self, rows: Records) -> tuple[Inherited | None, Records]:
        """Return what of it is still so in the child's `rows`, None where that is not worth it, and the other rows."""
        at = np.minimum(np.searchsorted(self.rows["start"], rows["start"]), len(self.rows) - 1)
        same = (rows["born_line"] == self.born) & (rows["born_step"] == NULL)
        same &= (numbers_of(rows)[:, _OF_EACH] == numbers_of(self.rows)[at][:, _OF_EACH]).all(axis=1)
        ends = np.flatnonzero((np.diff(at) != 1) | ~same[1:] | ~same[:-1]) + 1
        bounds = pairwise([0, *ends.tolist(), len(rows)])
        runs = [(low, high) for low, high in bounds if high - low >= WORTH_SHARING and same[low]]
        own = np.ones(len(rows), dtype=np.bool_)
        for low, high in runs:
            own[low:high] = False
        spans = [(int(at[low]), int(at[high - 1]) + 1) for low, high in runs]
        return (self._replace(spans=spans) if spans else None), rows[own]


class RestingSpace(Struct):
    """The mappings of a space as `space.live_rows` gives them, its break, and its remaps under way.

    Of a forked child's, some may be `inherited`; `own` are the others.
    """

    own: Records
    brk: int
    start_brk: int
    inherited: Inherited | None = None
    stash: Records = field(default_factory=lambda: np.empty(0, PIECE))
    _rows: Records | None = None
    _forked: Records | None = None

    @classmethod
    def of(cls, space: Space, inherited: Inherited | None = None) -> RestingSpace:
        """Return a space at rest that began with what was inherited."""
        state, rows = space.state, live_rows(space)
        stash = space.stash[: state.stashed].copy()
        if inherited is not None:
            inherited, rows = inherited.still(rows) if len(inherited.rows) >= WORTH_SHARING else (None, rows)
        return cls(rows, int(state.brk), int(state.start_brk), inherited, stash)

    def rows(self) -> Records:
        """Return the rows of all its mappings, not to be written to."""
        if self.inherited is None:
            return self.own
        if self._rows is None:
            rows = np.concatenate([self.inherited.copied(), self.own])
            self._rows = rows[np.argsort(rows["start"], kind="stable")]
        return self._rows

    def child(self, clock: int) -> RestingSpace:
        """Return what a fork at `clock` gives a child; it shares the rows where it gets them all."""
        if self._forked is None:
            of = self.inherited
            rows = of.rows if of is not None and of.rows_left == len(of.rows) and not len(self.own) else self.rows()
            kept = (rows["flags"] & DONTFORK) == 0
            self._forked = rows if kept.all() else rows[kept]
        rows = self._forked
        return RestingSpace(rows[:0], self.brk, self.start_brk, Inherited(rows, [(0, len(rows))], clock))

    def awake(self) -> Space:
        """Return the space, for something to happen in it."""
        space = space_of_rows(self.rows(), len(self.stash))
        space.stash[: len(self.stash)] = self.stash
        space.state.stashed = len(self.stash)
        space.state.brk, space.state.start_brk = self.brk, self.start_brk
        return space


def born_at(rows: Records, clock: int) -> Records:
    """Return rows of mappings as a fork at `clock` gives them: born then, made when they were made."""
    rows = rows.copy()
    rows["born_line"] = clock
    rows["born_step"] = NULL
    return rows
