"""What a process has set for itself and its children inherit: limits of memory, and the personality.

In go the calls that tell of them, out comes what was in force at any step of any space.

Source: setrlimit(2), prlimit(2): a child inherits its parent's limits, execve keeps them. personality(2): a child
inherits it; execve clears READ_IMPLIES_EXEC (arch/x86/kernel/process_64.c, set_personality_64bit).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.table import OK, Calls
from replay.calls.windows import KeyCalls
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending, firsts
from replay.engine.structs import Struct, Value, field
from replay.linux import constants
from replay.linux.constants import CALL_CODE
from replay.spaces.processes import Processes

RLIMIT_DATA: Final = constants.RLIMIT["RLIMIT_DATA"]
RLIMIT_AS: Final = constants.RLIMIT["RLIMIT_AS"]
READ_IMPLIES_EXEC: Final = constants.OTHER_FLAGS["READ_IMPLIES_EXEC"]
ASKED: Final = 0xFFFFFFFF
"""The personality that asks for the one in force and sets none."""


class _Setting(Value):
    """What a space has from a step on: which resource, and its value; `asked`: it was so before, too."""

    step: int
    resource: int
    value: int
    asked: bool = False


class _Settings(Struct):
    """The settings of spaces in the order of steps; `parents` gives for each space whose it begins with, or NULL."""

    parents: Sequence[int]
    births: Sequence[int]
    own: dict[int, list[_Setting]] = field(default_factory=dict)
    _known: dict[int, list[_Setting]] = field(default_factory=dict)

    def add(self, space: int, setting: _Setting) -> None:
        """Add the next setting of a space."""
        self.own.setdefault(space, []).append(setting)

    def of(self, space: int) -> list[_Setting]:
        """Return the settings of a space behind those that its ancestors had when it, or their child, was born."""
        line: list[int] = []
        while space != NULL and space not in self._known:
            line.append(space)
            space = self.parents[space]
        told = self._known.get(space, [])
        for child in reversed(line):
            until = bisect_left(told, self.births[child], key=lambda setting: setting.step)
            told = told if until == len(told) else told[:until]
            if child in self.own:
                told = told + self.own[child]
            self._known[child] = told
        return told

    def before(self, spaces: Int64Array, steps: Int64Array, resource: int, default: int) -> Int64Array:
        """Return what each of `spaces` has of a resource before each of `steps`, `default` where nothing tells."""
        values = np.full(len(steps), default, np.int64)
        order = ascending(spaces)
        known, places = firsts(spaces[order])
        for space, mine in zip(known.tolist(), np.split(order, places[1:]), strict=False):
            told = [setting for setting in self.of(space) if setting.resource == resource]
            if told:
                at = np.searchsorted([setting.step for setting in told], steps[mine], side="left")
                # What a call was told had been in force since the last one that set it.
                first = told[0].value if told[0].asked else default
                values[mine] = np.array([first, *(setting.value for setting in told)], np.int64)[at]
        return values


class Limits:
    """RLIMIT_DATA and RLIMIT_AS by space and step: as the log set them, or as a call was told that they are."""

    def __init__(self, told: KeyCalls, who: Processes) -> None:
        """Look up the calls that set a limit, or ask for one."""
        calls = told.calls
        rows = _rows_that_ran(calls, "prlimit")
        self._settings = _Settings([life.parent for life in who.lives], [life.born_step for life in who.lives])
        for row in rows[np.isin(calls.aux2[rows], (RLIMIT_DATA, RLIMIT_AS))].tolist():
            step, resource = int(told.step[row]), int(calls.aux2[row])
            space = _whose(calls, row, step, who)
            for limit, asked in ((int(calls.length[row]), True), (int(calls.aux[row]), False)):
                if NULL not in (limit, space):
                    self._settings.add(space, _Setting(step, resource, limit, asked))

    def at(self, spaces: Int64Array, steps: Int64Array) -> Int64Array:
        """Return (rows, 2): both limits in bytes before each of `steps`, NULL where the log tells of none."""
        limits = np.full((len(steps), 2), NULL, np.int64)
        if self._settings.own:
            for column, resource in enumerate((RLIMIT_DATA, RLIMIT_AS)):
                limits[:, column] = self._settings.before(spaces, steps, resource, NULL)
        return limits


class Personalities:
    """Whether READ_IMPLIES_EXEC is in force, by space and step. Heuristic: threads of a space are taken for one."""

    def __init__(self, told: KeyCalls, who: Processes) -> None:
        """Look up the calls that set a personality."""
        calls = told.calls
        rows = _rows_that_ran(calls, "personality")
        rows = rows[(calls.flags[rows] != NULL) & (calls.flags[rows] != ASKED)]
        parents = [life.parent if life.origin == "fork" else NULL for life in who.lives]
        self._settings = _Settings(parents, [life.born_step for life in who.lives])
        if (calls.flags[rows] & READ_IMPLIES_EXEC).any():
            for row in rows.tolist():
                step, implied = int(told.step[row]), bool(calls.flags[row] & READ_IMPLIES_EXEC)
                self._settings.add(_space_of(int(calls.pid[row]), step, who), _Setting(step, 0, implied))

    def imply_exec(self, spaces: Int64Array, steps: Int64Array) -> NDArray[np.bool_]:
        """Return for each of `steps` whether what may be read may be executed then."""
        if not self._settings.own:
            return np.zeros(len(steps), np.bool_)
        implied: NDArray[np.bool_] = self._settings.before(spaces, steps, 0, 0) == 1
        return implied


def _rows_that_ran(calls: Calls, name: str) -> Int64Array:
    """Return the rows of a call that the kernel ran and that succeeded."""
    return np.flatnonzero((calls.call == CALL_CODE[name]) & (calls.status == OK) & (calls.injected != 1))


def _whose(calls: Calls, row: int, step: int, who: Processes) -> int:
    """Return the space whose limits a call is about: prlimit's first argument is a process, 0 the caller.

    NULL is for a process that the log does not show; where it shows no pids at all, that is the caller.
    """
    named, pid = int(calls.new_addr[row]), int(calls.pid[row])
    if named in (0, NULL) or (pid == NULL and who.space_of(named, step) == NULL):
        return _space_of(pid, step, who)
    return who.space_of(named, step)


def _space_of(pid: int, step: int, who: Processes) -> int:
    """Return the space of the call at `step`, whose line prints `pid`."""
    at = np.array([step], np.int64)
    return int(who.spaces_of(who.tids_of(np.array([pid], np.int64), at), at)[0])
