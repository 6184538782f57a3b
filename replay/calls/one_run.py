"""Whether several logs can be of one run: a program that has ended makes no more calls.

In go the logs and their calls in order, out comes an error that names the commands for several runs.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from replay.calls.table import OK, Calls
from replay.engine.structs import Struct, Value, field
from replay.errors import ReplayError
from replay.linux import constants
from replay.logs.files import STDIN, Log

_ENDS: Final = (constants.CALL_CODE["exit_group"], constants.EXITED, constants.KILLED)


def not_one_run(first: str, second: str, why: str) -> ReplayError:
    """Return the error for two logs that cannot be of one run."""
    return ReplayError(
        f"{first} and {second} cannot be one run: {why}. Several runs are for `replay batch {first} {second} -o "
        f"DATASET`, two of them for `replay compare {first} {second}`"
    )


def refuse_repeated(logs: Sequence[Log]) -> None:
    """Refuse logs of which two are the same file, or copies of one; in a set threads may have done the same.

    Raises:
        ReplayError: two are.
    """
    files: dict[tuple[int, int], str] = {}
    sizes: dict[int, list[str]] = {}
    for log in logs if len(logs) > 1 else ():
        path = log.path
        if path == STDIN or not os.path.isfile(path):
            continue
        found = os.stat(path)
        file = found.st_dev, found.st_ino
        if file in files:
            raise not_one_run(files[file], path, "they are the same file")
        files[file] = path
        alike = sizes.setdefault(found.st_size, [])
        for other in alike if log.pid is None else ():
            if filecmp.cmp(path, other, shallow=False):
                raise not_one_run(other, path, "the one is a copy of the other")
        alike.append(path)


class Sequel(Struct):
    """Logs that are read one after another as one run: once all that was traced has ended, nothing goes on."""

    alive: set[int] = field(default_factory=set)
    last: str = ""

    def follow(self, path: str, batches: Iterator[Calls]) -> Iterator[Calls]:
        """Yield the calls of the next log.

        Raises:
            ReplayError: it has calls, though everyone in the logs before ended there.
        """
        before, over = self.last, bool(self.last) and not self.alive
        for calls in batches:
            if over and len(calls):
                raise not_one_run(before, path, f"what {before} shows has ended there")
            self._note(calls)
            if len(calls):
                self.last = path
            yield calls

    def _note(self, calls: Calls) -> None:
        ends = np.isin(calls.call, _ENDS) & (calls.status == OK)
        gone = set(calls.pid[ends].tolist())
        pids, last = np.unique(calls.pid[::-1], return_index=True)
        ended_last = ends[::-1][last]
        self.alive |= set(pids.tolist())
        self.alive -= gone & set(pids[ended_last].tolist())


class Beginning(Value):
    """How the file of a process in a set begins: its first call, and the times between which it made calls."""

    path: str
    pid: int
    call: int
    line: int
    begins: int
    ends: int


def refuse_two_programs(files: Sequence[Beginning], made: set[int], *, timed: bool, forks_shown: bool) -> None:
    """Refuse a set of which two files begin with the execve of a program that nobody in the set started.

    `made` are the processes that calls of the set made. With times the two must also lie apart; without times, the log
    must show forks.

    Raises:
        ReplayError: there are two.
    """
    starts = [file for file in files if file.call in constants.EXECS and file.line == 1 and file.pid not in made]
    starts.sort(key=lambda file: file.begins)
    for first, second in pairwise(starts):
        if timed and second.begins > max(file.ends for file in files if file.begins <= first.ends):
            raise not_one_run(first.path, second.path, "the one begins after the other has ended")
        if not timed and forks_shown:
            raise not_one_run(first.path, second.path, "both begin with a program that no call of the logs started")
