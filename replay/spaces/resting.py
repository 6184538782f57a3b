"""Spaces at rest: their mappings as rows, which a forked child shares with its parent until either changes them.

In go spaces as they run, out come rows, and spaces again when something happens in them.

Source: fork(2): the child has a copy of its parent's mappings, but for those under MADV_DONTFORK.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from replay.engine.columns import NULL
from replay.engine.records import Records
from replay.mm.fields import DONTFORK
from replay.mm.space import PIECE, Space, live_rows, space_of_rows


@dataclass(slots=True)
class RestingSpace:
    """The mappings of a space as `space.live_rows` gives them, its break, and its remaps under way.

    Of a forked child that nothing happened in the rows are its parent's, not to be written to: `born` is the line of
    the fork, at which all of them begin; else it is NULL.
    """

    rows: Records
    brk: int
    start_brk: int
    born: int = NULL
    stash: Records = field(default_factory=lambda: np.empty(0, PIECE))

    @classmethod
    def of(cls, space: Space) -> RestingSpace:
        """Return a space at rest."""
        state = space.state
        stash = space.stash[: state.stashed].copy()
        return cls(live_rows(space), int(state.brk), int(state.start_brk), stash=stash)

    def child(self, clock: int) -> RestingSpace:
        """Return what a fork at `clock` gives a child; it shares the rows where it gets them all."""
        kept = (self.rows["flags"] & DONTFORK) == 0
        rows = self.rows if kept.all() else self.rows[kept]
        return RestingSpace(rows, self.brk, self.start_brk, clock)

    def awake(self) -> Space:
        """Return the space, for something to happen in it."""
        rows = self.rows if self.born == NULL else born_at(self.rows, self.born)
        space = space_of_rows(rows, len(self.stash))
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
