"""Which thread runs in which address space: the answers that `census` finds.

In go steps, out come for any of them the thread, its address space and its table of open files, and for each space how
it began and ended. What is mapped in a space this module does not know.

Source: clone(2), fork(2), vfork(2), execve(2), _exit(2): CLONE_VM shares the space, CLONE_THREAD the exit_group,
CLONE_FILES the open files; execve leaves the space and ends the other threads; the last exit ends the space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from replay.calls.table import Calls
from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.structs import Struct, Value
from replay.linux import constants
from replay.linux.constants import CALL_CODE

CLONE_VM: Final = 0x100
CLONE_FILES: Final = 0x400
CLONE_VFORK: Final = 0x4000
CLONE_THREAD: Final = 0x10000

FIRST_THREAD: Final = -1
"""The thread of lines that print no pid, as long as nothing shows its number."""

EXEC_EVENTS: Final = (*constants.EXECS, constants.EXEC_NOTICE)
EXIT_EVENTS: Final = (CALL_CODE["exit"], constants.EXITED, constants.KILLED)
EXIT_GROUP: Final = CALL_CODE["exit_group"]
BRK: Final = CALL_CODE["brk"]


def rows_of(calls: Calls, codes: Iterable[int]) -> Int64Array:
    """Return the rows of the calls and notices of these codes."""
    return np.flatnonzero(np.isin(calls.call, list(codes), kind="table")).astype(np.int64)


class SpaceLife(Struct):
    """How one address space began and ended.

    `origin` is `exec` (a new image), `fork` (a copy of `parent` as it was at `born_clock`) or `found` (older than the
    log, or its beginning is not in it). `born_row` is one of the calls that told of it; a clock of NULL means never.
    """

    space: int
    origin: str
    parent: int
    born_clock: int
    born_row: int
    born_step: int = NULL
    program: int = NO_TEXT
    ended_clock: int = NULL
    ended_by: int = NULL
    """Code of the call or notice that ended it, `NULL` where none did."""
    pid: int = NULL
    fresh: bool = False


class Processes(Value):
    """Who runs where, at any step; the spaces; and what was only guessed.

    `tids` and `steps` are those of the calls that told of it, `moves` the steps at which threads came to a space.
    """

    tids: Int64Array
    steps: Int64Array
    unprinted: Unprinted
    moves: Moves
    lives: list[SpaceLife]
    files_parents: dict[int, tuple[int, int]]
    guessed_tids: list[int]
    threads: int
    processes: int

    def tids_of(self, pids: Int64Array, steps: Int64Array) -> Int64Array:
        """Return the threads of the calls at `steps`, whose lines print `pids`."""
        tids = pids.copy()
        unprinted = np.flatnonzero(tids == NULL)
        if unprinted.size:
            tids[unprinted] = self.unprinted.at(steps[unprinted])
        if len(self.steps):
            place = np.minimum(np.searchsorted(self.steps, steps), len(self.steps) - 1)
            told = np.flatnonzero(self.steps[place] == steps)
            tids[told] = self.tids[place[told]]
        return tids

    def spaces_of(self, tids: Int64Array, steps: Int64Array) -> Int64Array:
        """Return the spaces in which threads were at steps."""
        return self.moves.spaces[self.moves.last(tids, steps)]

    def space_of(self, tid: int, step: int) -> int:
        """Return the space of a thread once `step` has completed; NULL if the log does not show the thread."""
        moves = self.moves
        if not (moves.known == tid).any():
            return NULL
        last = int(moves.last(np.array([tid], np.int64), np.array([step], np.int64))[0])
        return int(moves.spaces[last])

    def last_steps(self, heard: Mapping[int, int]) -> Int64Array:
        """Return for each space the last step that may be in it, where `heard` gives the last step of each pid."""
        moves = self.moves
        thread = np.searchsorted(moves.firsts, np.arange(len(moves.spaces)), side="right") - 1
        unprinted = heard.get(NULL, -1)
        until = np.array([max(heard.get(tid, -1), unprinted) for tid in moves.known.tolist()], np.int64)[thread]
        following = np.append(moves.keys[1:] % moves.width, 0)
        goes_on = np.append(thread[1:] == thread[:-1], False)
        lasts = np.full(len(self.lives), -1, np.int64)
        somewhere = moves.spaces != NULL
        steps = np.where(goes_on, np.minimum(until, following), until)
        np.maximum.at(lasts, moves.spaces[somewhere], steps[somewhere])
        return lasts

    def files_of(self, tids: Int64Array, steps: Int64Array) -> Int64Array:
        """Return the tables of open files that threads had at steps."""
        return self.moves.files[self.moves.last(tids, steps)]


class Unprinted(Value):
    """Whose the lines without a pid are: `tids[i]` from `steps[i]` on."""

    steps: Int64Array
    tids: Int64Array

    def at(self, steps: Int64Array) -> Int64Array:
        """Return whose the lines without a pid at `steps` are."""
        return self.tids[np.searchsorted(self.steps, steps, side="right") - 1]


class Moves(Value):
    """Where threads came to be: rows sorted by thread, each thread's by step; what is before the first is as it."""

    known: Int64Array
    firsts: Int64Array
    keys: Int64Array
    width: int
    spaces: Int64Array
    files: Int64Array

    @classmethod
    def of(cls, moves: dict[int, list[tuple[int, int, int]]], steps: Int64Array) -> Moves:
        """Return the moves (row, space, files) by thread, at the steps of their rows."""
        known = np.array(sorted(moves), np.int64)
        rows = np.array([move for tid in known.tolist() for move in moves[tid]], np.int64).reshape(-1, 3)
        counts = [len(moves[tid]) for tid in known.tolist()]
        width = int(steps.max(initial=0)) + 2
        keys = np.repeat(np.arange(len(known)), counts) * width + steps[rows[:, 0]]
        return cls(known, np.cumsum([0, *counts])[:-1].astype(np.int64), keys, width, rows[:, 1], rows[:, 2])

    def last(self, tids: Int64Array, steps: Int64Array) -> Int64Array:
        """Return the places of the last moves of threads by their steps."""
        thread = np.searchsorted(self.known, tids)
        at = np.searchsorted(self.keys, thread * self.width + np.minimum(steps, self.width - 1), side="right") - 1
        return np.maximum(at, self.firsts[thread])
