"""What calls of malloc and its kin did to blocks, and inside which of them a system call ran, for `replay steps`.

In go a run and the words for its steps, out come the words with what the blocks tell: where a block lies, how large it
was and how long it lived, which frees fit no block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.calls.enclosing import FREEING, is_call
from replay.calls.reader import OK
from replay.console.amounts import number
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending
from replay.heap.blocks import BACKINGS, DOUBLE_FREE, FREE_NOT_SEEN, IN_UNKNOWN, MISNAMED, UNKNOWN_FREE
from replay.linux.constants import CALLS

if TYPE_CHECKING:
    from replay.run.api import Run

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
        blocks, nesting = run.malloc_blocks, run.nesting
        columns = blocks.columns
        own, taken = np.flatnonzero(columns["inherited"] == 0), columns["taken_step"]
        ended = np.flatnonzero(taken != NULL)
        self._given = _Lookup(columns["given_step"][own], own)
        self._taken = _Lookup(taken[ended], ended)
        self._misfit = _Lookup(blocks.problems["step"], blocks.problems["reason"])
        self._inside = _Lookup(
            np.concatenate([nesting.inside, nesting.doubled]), np.concatenate([nesting.parents, nesting.outers])
        )
        self._size, self._call, self._backing = columns["size"], columns["call"], columns["backing"]
        self._lived = columns["died_line"] - columns["born_line"]
        self._calls, self._done = run.replayed.events["call"], run.replayed.events["status"] == OK

    def added(self, rows: Int64Array, words: Iterable[str]) -> Iterator[str]:
        """Yield the words for the steps `rows`, each with what is known besides."""
        lookups = (self._given, self._taken, self._misfit, self._inside)
        given, taken, misfit, inside = (look.of(rows).tolist() for look in lookups)
        frees = (is_call({"call": self._calls[rows]}, FREEING) & self._done[rows]).tolist()
        for at, text in enumerate(words):
            said = text
            if taken[at] >= 0:
                said += self._ended(taken[at], freed=frees[at])
            elif given[at] >= 0:
                said += self._lies(given[at])
            if misfit[at] >= 0:
                said += _MISFITS[misfit[at]]
            if inside[at] >= 0:
                said = f"in {CALLS[int(self._calls[inside[at]])]}: {said}"
            yield said

    def _ended(self, block: int, *, freed: bool) -> str:
        size, lived = int(self._size[block]), int(self._lived[block])
        if size == 0 and CALLS[int(self._call[block])] in _WITHOUT_SIZE:
            return f": lived {number(lived, 'line')}" if freed else ""
        return f": {number(size, 'byte')}, lived {number(lived, 'line')}" if freed else f" (was {size:,})"

    def _lies(self, block: int) -> str:
        backing = int(self._backing[block])
        return f" ({BACKINGS[backing]})" if backing != IN_UNKNOWN else ""


class _Lookup:
    """Finds values by step."""

    def __init__(self, steps: Int64Array, values: Int64Array) -> None:
        order = ascending(steps)
        self._steps, self._values = steps[order], values[order]

    def of(self, steps: Int64Array) -> Int64Array:
        """Return the value of each step, -1 for none; of several the last."""
        place = np.searchsorted(self._steps, steps, side="right") - 1
        found = np.full(len(steps), -1, dtype=np.int64)
        there = place >= 0
        there[there] = self._steps[place[there]] == steps[there]
        found[there] = self._values[place[there]]
        return found
