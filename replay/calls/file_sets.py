"""The files of a `strace -ff` set, one a thread, made one run.

In go the calls of each file, out come all of them in one order, with one clock. What belongs before the first line of
one file may stand in the last line of another: all files are read, and kept packed, before the first call comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from replay.calls.creation_order import by_creation
from replay.calls.kept_files import KeptFile, join_moved_execs, kept_file, lasting
from replay.calls.one_run import Beginning, refuse_two_programs
from replay.calls.table import Calls, concatenated
from replay.engine.column_store import Shelf
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Struct, Value, field
from replay.linux.constants import FORKS

PART_ROWS: Final = 1 << 14
"""A file is kept in parts of so many calls; where there are many files, of fewer: one part of each may be in use."""

USED_ROWS: Final = 1 << 20
"""So many calls are unpacked at once at most, where all files are as long."""

WINDOW_ROWS: Final = 1 << 16
"""About so many calls of all files are put in order at once."""

_END_OF_TIME: Final = np.iinfo(np.int64).max


def merged(
    files: Sequence[Iterable[Calls]],
    *,
    timed: Callable[[], bool],
    paths: Sequence[str] = (),
    whole: Callable[[], bool] = lambda: False,
) -> Iterator[Calls]:
    """Yield the calls of a `strace -ff` set in one order: by time, or else each child's after its creator's.

    Args:
        files: the calls of each file, in batches.
        timed: tells, once all files were read, whether times of different files can be compared.
        paths: the files' names.
        whole: tells, once all files were read, whether they show calls of all kinds, and so those that fork.

    Raises:
        ReplayError: the files are of two runs.
    """
    shelf, rows = Shelf(), min(PART_ROWS, max(1, USED_ROWS // max(1, len(files))))
    kept = [kept_file(batches, shelf, rows) for batches in files]
    join_moved_execs(kept)
    has_times = timed() and all(NULL not in file.begins for file in kept)
    made = _made_processes(kept)
    beginnings = [_beginning(file, path) for file, path in zip(kept, paths, strict=False) if file.columns.rows]
    refuse_two_programs(beginnings, made, timed=has_times, forks_shown=bool(made) or whole())
    if has_times:
        yield from _by_time(kept)
    else:
        yield from by_creation(kept)


def _made_processes(files: Sequence[KeptFile]) -> set[int]:
    """Return the processes and threads that calls of the files made."""
    made: set[int] = set()
    for file in files:
        forks = np.isin(file.telling.call, FORKS) & (file.telling.result > 0)
        made |= set(file.telling.result[forks].tolist())
    return made


def _beginning(file: KeptFile, path: str) -> Beginning:
    """Return how a file that has calls begins, and the times that it is about."""
    pid, call, line = (file.columns.one(name, 0) for name in ("pid", "call", "line"))
    return Beginning(path, pid, call, line, min(file.begins), max(file.ends))


# --- in the order of time --------------------------------------------------------------------------------------------


class _Cursor(Struct):
    """How far the calls of one file were put in order, and those of its parts that are in use.

    Within a file the order of its lines is kept, where times are too coarse or go back: `begun` and `ended` ascend.
    `entry_clock` is that of the first call in use if it began among calls that were put in order before.
    """

    file: KeptFile
    parts_used: int = 0
    calls: Calls = field(default_factory=lambda: concatenated([]))
    begun: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    ended: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    last_end: int = NULL
    entry_clock: int = NULL

    def use(self, until: int) -> None:
        """Take into use all parts in which a call may begin by a time."""
        found = [(self.calls, self.begun, self.ended)]
        while self.parts_used < self.file.columns.parts and self.file.begins[self.parts_used] <= until:
            _, calls = self.file.part(self.parts_used)
            self.parts_used += 1
            if len(calls):
                ended = np.maximum(np.maximum.accumulate(calls.time_ns + lasting(calls)), self.last_end)
                begun = np.maximum(calls.time_ns, np.append(self.last_end, ended[:-1]))
                self.last_end = int(ended[-1])
                found.append((calls, np.minimum(begun, ended), ended))
        if len(found) > 1:
            self.calls = concatenated(calls for calls, _, _ in found)
            self.begun, self.ended = (np.concatenate([part[place] for part in found]) for place in (1, 2))

    def take(self, until: int) -> _Taken:
        """Return the calls that complete by a time, which are in use no longer."""
        count = int(np.searchsorted(self.ended, until, side="right"))
        begun, rest = self.begun[: count + 1], slice(count, None)
        opening = np.flatnonzero((begun < self.ended[: count + 1]) & (begun <= until))
        if self.entry_clock != NULL:
            opening = opening[opening > 0]
        taken = _Taken(self.calls.take(slice(count)), self.ended[:count], opening, begun[opening])
        self.calls, self.begun, self.ended = self.calls.take(rest), self.begun[rest], self.ended[rest]
        return taken

    def with_clocks(self, taken: _Taken, completed: Int64Array, opened: Int64Array) -> Calls:
        """Return what was taken with the clocks at which calls completed, and at which those `opening` began."""
        calls, entries = taken.calls, completed.copy()
        if len(calls) and self.entry_clock != NULL:
            entries[0] = self.entry_clock
        inside = taken.opening < len(calls)
        entries[taken.opening[inside]] = opened[inside]
        calls.clock, calls.entry_clock = completed, entries
        if len(calls):
            self.entry_clock = NULL
        if not inside.all():
            self.entry_clock = int(opened[-1])
        return calls


class _Taken(Value):
    """Calls that complete among others, and when; `opening` are those of them that begin before, and `begins` when.

    The call behind them may be opening, too.
    """

    calls: Calls
    ends: Int64Array
    opening: Int64Array
    begins: Int64Array


def _by_time(files: Sequence[KeptFile]) -> Iterator[Calls]:
    """Yield the calls in order of completion; the clock counts entries and completions."""
    cursors, clock = [_Cursor(file) for file in files], 0
    for until in _borders(files):
        for cursor in cursors:
            cursor.use(until)
        busy = [cursor for cursor in cursors if len(cursor.calls) and cursor.begun[0] <= until]
        window, clock = _window(busy, until, clock)
        yield window


def _borders(files: Sequence[KeptFile]) -> Iterator[int]:
    """Yield times, ascending, between which about `WINDOW_ROWS` calls complete; the last is the end of time."""
    ends = [end for file in files for end in file.ends]
    rows = [row for file in files for row in np.diff(file.columns.starts).tolist()]
    order = sorted(range(len(ends)), key=ends.__getitem__)
    counted = 0
    for place, total in zip(order, accumulate(rows[place] for place in order), strict=True):
        if total - counted >= WINDOW_ROWS:
            yield ends[place]
            counted = total
    yield _END_OF_TIME


def _window(cursors: Sequence[_Cursor], until: int, clock: int) -> tuple[Calls, int]:
    """Return the calls that complete by a time, in order, and the clock behind them; `clock` is that before them.

    At one time completions come before beginnings, and files in their order.
    """
    taken = [cursor.take(until) for cursor in cursors]
    times = [*(part.ends for part in taken), *(part.begins for part in taken)]
    marks = np.concatenate([np.zeros(0, np.int64), *times])
    clocks = np.empty(len(marks), np.int64)
    clocks[np.argsort(marks, kind="stable")] = np.arange(clock + 1, clock + 1 + len(marks))
    pieces = np.split(clocks, np.cumsum([len(part) for part in times])[:-1])
    completed, opened = pieces[: len(taken)], pieces[len(taken) :]
    calls = concatenated(map(_Cursor.with_clocks, cursors, taken, completed, opened))
    return calls.take(np.argsort(calls.clock)), clock + len(marks)
