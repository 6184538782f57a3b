"""Spaces at rest: their mappings as rows, which a forked child shares with its parent until either changes them.

In go spaces as they run, out come rows, and spaces again when something happens in them.

Source: fork(2): the child has a copy of its parent's mappings, but for those under MADV_DONTFORK.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.mm import fields
from replay.mm.space import BRK, START_BRK, STASHED, Space, live_rows, space_of_rows


def _nothing() -> Int64Array:
    return np.empty((0, fields.ATTRIBUTES + 3), np.int64)


@dataclass(slots=True)
class RestingSpace:
    """The mappings of a space as `space.live_rows` gives them, its break, and its remaps under way.

    Of a forked child that nothing happened in the rows are its parent's, not to be written to: `born` is the line of
    the fork, at which all of them begin; else it is NULL.
    """

    rows: Int64Array
    brk: int
    start_brk: int
    born: int = NULL
    stash: Int64Array = field(default_factory=_nothing)

    @classmethod
    def of(cls, space: Space) -> RestingSpace:
        """Return a space at rest."""
        totals = space.totals
        stash = space.stash[: totals[STASHED]].copy()
        return cls(live_rows(space), int(totals[BRK]), int(totals[START_BRK]), stash=stash)

    def child(self, clock: int) -> RestingSpace:
        """Return what a fork at `clock` gives a child; it shares the rows where it gets them all."""
        kept = (self.rows[:, fields.FLAGS] & fields.DONTFORK) == 0
        rows = self.rows if kept.all() else self.rows[kept]
        return RestingSpace(rows, self.brk, self.start_brk, clock)

    def awake(self) -> Space:
        """Return the space, for something to happen in it."""
        rows = self.rows if self.born == NULL else born_at(self.rows, self.born)
        space = space_of_rows(rows, len(self.stash))
        space.stash[: len(self.stash)] = self.stash
        space.totals[STASHED] = len(self.stash)
        space.totals[BRK], space.totals[START_BRK] = self.brk, self.start_brk
        return space


def born_at(rows: Int64Array, clock: int) -> Int64Array:
    """Return rows of mappings as a fork at `clock` gives them: born then, made when they were made."""
    rows = rows.copy()
    rows[:, fields.RECTANGLE_FROM] = clock
    rows[:, fields.RECTANGLE_FROM_STEP] = NULL
    return rows
