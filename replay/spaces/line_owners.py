"""Whose the lines without a pid are, and whose an execve is that began in another thread.

In go the calls of a run that tell of threads, out comes the thread of each. Who lives where is not known here.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from replay.calls.table import Calls
from replay.calls.windows import KeyCalls
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending, distinct, firsts
from replay.linux import constants
from replay.linux.constants import FORKS
from replay.spaces.processes import EXIT_EVENTS, EXIT_GROUP, FIRST_THREAD, Unprinted, rows_of


def threads_of_rows(told: KeyCalls) -> tuple[Int64Array, Unprinted]:
    """Return the thread of each row: the printed pid, and for lines without one the only tracee alive then.

    Source: strace.c, printleader: the pid is printed only while more than one tracee is alive.
    """
    calls = told.calls
    tids = calls.pid.copy()
    unprinted = tids == NULL
    first = FIRST_THREAD
    if unprinted.any() and not (unprinted.all() and not rows_of(calls, (*FORKS, constants.EXITED)).size):
        children = {int(calls.result[row]) for row in rows_of(calls, FORKS) if calls.result[row] > 0}
        printed = [int(pid) for pid in distinct(tids[~unprinted])]
        own = [pid for pid in printed if pid not in children]
        first = own[0] if own else FIRST_THREAD
        if printed:
            return tids, _follow_alive(told, tids, unprinted, first)
    tids[unprinted] = first
    return tids, Unprinted(np.array([NULL]), np.array([first], np.int64))


def give_execs_to_leaders(calls: Calls, tids: Int64Array) -> None:
    """Give an execve in a thread to the leader of its group: after `+++ superseded by execve in pid N +++` N is gone.

    Source: execve(2), ptrace(2) on execve under ptrace: the caller's thread id becomes that of the leader.
    """
    superseded = rows_of(calls, (constants.SUPERSEDED,))
    execs = rows_of(calls, constants.EXECS)
    execs = execs[np.lexsort((execs, tids[execs]))]
    callers = tids[execs]
    for row in superseded.tolist():
        low, high = (int(np.searchsorted(callers, calls.aux[row], side)) for side in ("left", "right"))
        at = low + int(np.searchsorted(execs[low:high], row))
        if at < high:
            tids[execs[at]] = tids[row]


def _follow_alive(told: KeyCalls, tids: Int64Array, unprinted: np.ndarray, first: int) -> Unprinted:
    """Fill the threads of the rows without a pid by following who is alive, and return whose all such lines are."""
    calls = told.calls
    alive = OrderedDict({first: None})
    since = [(NULL, first)]
    changes = np.isin(calls.call, [*FORKS, *EXIT_EVENTS, EXIT_GROUP, constants.SUPERSEDED])
    first_lines = np.zeros(len(tids), bool)
    first_lines[np.unique(tids, return_index=True)[1]] = True
    current = first
    points = np.flatnonzero(changes | first_lines)
    start = 0
    for point in points:
        tids[start:point][unprinted[start:point]] = current
        start = int(point)
        tid = int(tids[point]) if not unprinted[point] else current
        tids[point] = tid
        code = int(calls.call[point])
        if code in FORKS and calls.result[point] > 0 and calls.status[point] == 0:
            alive[int(calls.result[point])] = None
        elif code in (constants.EXITED, constants.KILLED):
            alive.pop(tid, None)
        elif code == constants.SUPERSEDED:
            alive.pop(int(calls.aux[point]), None)
            current = tid
        elif tid not in alive and code not in EXIT_EVENTS and code != EXIT_GROUP:
            alive[tid] = None
        if current not in alive and alive:
            current = next(iter(alive))
        since.append((int(told.step[point]) + (code < constants.PSEUDO), current))
    tids[start:][unprinted[start:]] = current
    steps, threads = np.array(since, np.int64).T
    return Unprinted(steps.copy(), threads.copy())


def rows_by_thread(tids: Int64Array) -> tuple[Int64Array, dict[int, tuple[int, int]]]:
    """Return the rows in the order of their threads, and where those of each thread begin and end."""
    rows = ascending(tids)
    known, places = firsts(tids[rows])
    ends = np.append(places[1:], len(rows))
    return rows, dict(zip(known.tolist(), zip(places.tolist(), ends.tolist(), strict=True), strict=True))
