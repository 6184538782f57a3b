"""What calls of malloc and its kin did to blocks, and inside which of them a system call ran, for `replay steps`.

In go a run and the words for its steps, out come the words with what the blocks tell: where a block lies, how large it
was and how long it lived, which frees fit no block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.blocks import BACKINGS, DOUBLE_FREE, FREE_NOT_SEEN, IN_UNKNOWN, MISNAMED, UNKNOWN_FREE
from replay.calls import OK
from replay.columns import NULL, Int64Array
from replay.constants import CALLS
from replay.nesting import FREEING, is_call
from replay.report.amounts import number

if TYPE_CHECKING:
    from replay.run import Run

_MISFITS: Final = {
    DOUBLE_FREE: ": a double free",
    UNKNOWN_FREE: ": a block never seen",
    FREE_NOT_SEEN: ", a block whose free was not seen",
    MISNAMED: ": not believed",
}
"""What is said of a call that fits no block, by the reason of the problem."""


_WITHOUT_SIZE: Final = ("strdup", "strndup")
"""Calls whose lines do not show how much they allocate: a size of 0 means that it is not known."""


class BlockWords:
    """Adds to the words for steps what the blocks of a run tell."""

    def __init__(self, run: Run) -> None:
        """Look up which step gave and which took each block; what a fork copied was given by no step of its own."""
        blocks = run.malloc_blocks
        self._columns = blocks.columns
        own = np.flatnonzero(self._columns["inherited"] == 0)
        self._given = _Lookup(self._columns["given_step"][own], own)
        taken = np.flatnonzero(self._columns["taken_step"] != NULL)
        self._taken = _Lookup(self._columns["taken_step"][taken], taken)
        self._misfit = _Lookup(blocks.problems["step"], blocks.problems["reason"])
        self._events = run.replayed.events
        outer = run.nesting.outer_step
        self._inside = np.where(outer != NULL, outer, run.nesting.parent_step)
        self._frees = is_call(self._events, FREEING) & (self._events["status"] == OK)

    def added(self, rows: Int64Array, words: Iterable[str]) -> Iterator[str]:
        """Yield the words for the steps `rows`, each with what is known besides."""
        calls = self._events["call"]
        inside = self._inside[rows].tolist()
        given, taken, misfit = (look.of(rows).tolist() for look in (self._given, self._taken, self._misfit))
        frees = self._frees[rows].tolist()
        for at, text in enumerate(words):
            said = text
            if taken[at] >= 0:
                said += self._ended(taken[at], freed=frees[at])
            elif given[at] >= 0:
                said += self._lies(given[at])
            if misfit[at] >= 0:
                said += _MISFITS[misfit[at]]
            if inside[at] != NULL:
                said = f"in {CALLS[int(calls[inside[at]])]}: {said}"
            yield said

    def _ended(self, block: int, *, freed: bool) -> str:
        columns = self._columns
        size = int(columns["size"][block])
        lived = int(columns["died_line"][block]) - int(columns["born_line"][block])
        if size == 0 and CALLS[int(columns["call"][block])] in _WITHOUT_SIZE:
            return f": lived {number(lived, 'line')}" if freed else ""
        return f": {number(size, 'byte')}, lived {number(lived, 'line')}" if freed else f" (was {size:,})"

    def _lies(self, block: int) -> str:
        backing = int(self._columns["backing"][block])
        return f" ({BACKINGS[backing]})" if backing != IN_UNKNOWN else ""


class _Lookup:
    """Finds values by step."""

    def __init__(self, steps: Int64Array, values: Int64Array) -> None:
        order = np.argsort(steps, kind="stable")
        self._steps, self._values = steps[order], values[order]

    def of(self, steps: Int64Array) -> Int64Array:
        """Return the value of each step, -1 for none; of several the last."""
        place = np.searchsorted(self._steps, steps, side="right") - 1
        found = np.full(len(steps), -1, dtype=np.int64)
        there = place >= 0
        there[there] = self._steps[place[there]] == steps[there]
        found[there] = self._values[place[there]]
        return found
