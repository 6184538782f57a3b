"""What is kept of each file of a `strace -ff` set until all were read.

In go the calls of a file, out comes a record: its calls packed, and as they are those which tell of other files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from replay.calls.table import COLUMNS, UNFINISHED, Calls, concatenated
from replay.engine.column_store import PackedColumns, Shelf
from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.structs import Struct, field
from replay.linux.constants import CALL_CODE, EXECS, FORKS, PID_CHANGED


class KeptFile(Struct):
    """The calls of one file, kept packed; those that change others (execs, forks, changes of pids) also as they are.

    begins, ends: the lowest time in each part, `NULL` where one is not known, and the highest of completions so far.
    rows: which calls `telling` are. breaks: of the calls of brk, at `break_rows`, twice what the break was behind each,
    and one more where the call did not set it. dropped: rows that are no calls of their own. ended_execs: by row, what
    path and thread (`Calls.aux`) an execve has that began in another file.
    """

    columns: PackedColumns
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    telling: Calls = field(default_factory=lambda: concatenated([]))
    rows: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    breaks: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    break_rows: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))
    dropped: set[int] = field(default_factory=set)
    ended_execs: dict[int, tuple[int, int]] = field(default_factory=dict)

    def part(self, number: int) -> tuple[Int64Array, Calls]:
        """Return the calls of a part and which rows they are."""
        first, last = self.columns.starts[number : number + 2]
        rows, calls = np.arange(first, last), Calls(**self.columns.part(number))
        changed = [row for row in self.ended_execs if first <= row < last]
        if changed:
            calls.path, calls.aux = calls.path.copy(), calls.aux.copy()
        for row in changed:
            calls.path[row - first], calls.aux[row - first] = self.ended_execs[row]
        left = np.array([row not in self.dropped for row in rows.tolist()], dtype=bool) if self.dropped else None
        return (rows, calls) if left is None else (rows[left], calls.take(left))


def kept_file(batches: Iterable[Calls], shelf: Shelf, part_rows: int) -> KeptFile:
    """Return the calls of a file, in parts of at most so many rows."""
    file = KeptFile(PackedColumns(shelf, COLUMNS))
    telling: list[Calls] = []
    rows, breaks, break_rows = [file.rows], [file.breaks], [file.break_rows]
    end = NULL
    for batch in batches:
        chosen = np.flatnonzero(np.isin(batch.call, (*EXECS, *FORKS, PID_CHANGED)))
        telling.append(batch.take(chosen))
        rows.append(chosen + file.columns.rows)
        brk = np.flatnonzero((batch.call == CALL_CODE["brk"]) & (batch.result > 0))
        breaks.append(2 * batch.result[brk] + (batch.addr[brk] != batch.result[brk]))
        break_rows.append(brk + file.columns.rows)
        for first in range(0, len(batch), part_rows):
            part = batch.take(slice(first, first + part_rows))
            file.columns.append({name: getattr(part, name) for name in COLUMNS})
            end = max(end, int((part.time_ns + lasting(part)).max()))
            file.begins.append(int(part.time_ns.min()))
            file.ends.append(end)
    file.telling, file.rows = concatenated(telling), np.concatenate(rows)
    file.breaks, file.break_rows = np.concatenate(breaks), np.concatenate(break_rows)
    return file


def lasting(calls: Calls) -> Int64Array:
    """Return how long each call took, 0 where that is not known."""
    return np.where(calls.duration_ns == NULL, 0, calls.duration_ns)


def join_moved_execs(files: Sequence[KeptFile]) -> None:
    """Join each execve that ended in another thread, and so in another file, with its end there."""
    calls = concatenated(file.telling for file in files)
    places = [(file, row) for file in files for row in file.rows.tolist()]
    execve, path = np.isin(calls.call, EXECS), calls.path.copy()
    for moved in np.flatnonzero(calls.call == PID_CHANGED).tolist():
        ended = np.flatnonzero(execve & (calls.pid == calls.aux[moved]) & (path == NO_TEXT))
        if len(ended):
            path[ended[0]] = path[moved]
            file, row = places[ended[0]]
            file.ended_execs[row] = int(path[moved]), int(calls.pid[moved])
            begun = execve & (calls.pid == calls.pid[moved]) & (calls.status == UNFINISHED)
            for file, row in (places[at] for at in np.flatnonzero(begun).tolist()):
                file.dropped.add(row)
