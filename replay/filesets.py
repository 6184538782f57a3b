"""The files of a `strace -ff` set, one a thread, made one run.

In go the calls of each file, out come all of them in one order, with one clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.call_table import UNFINISHED, Calls, concatenated
from replay.columns import NO_TEXT, NULL, Int64Array
from replay.constants import CALL_CODE, CLONE, PID_CHANGED

_EXECS: Final = (CALL_CODE["execve"], CALL_CODE["execveat"])
_FORKS: Final = tuple(CALL_CODE[name] for name in ("fork", "vfork", "clone", "clone3"))
_CLONE_VFORK: Final = CLONE["CLONE_VFORK"]


def merged(parts: list[Calls], *, timed: bool) -> Calls:
    """Return the calls of a `strace -ff` set in one order: by time, or else each child's after its creator's.

    Args:
        parts: the calls of each file.
        timed: whether times of different files can be compared.
    """
    calls = _without_moved_exec(concatenated(parts))
    parts = [calls.take(np.flatnonzero(calls.file == file)) for file in range(len(parts))]
    if not len(calls):
        return calls
    if timed and bool((calls.time_ns != NULL).all()):
        return _by_time(calls, parts)
    calls = calls.take(_order_of_creation(parts))
    calls.clock = np.arange(1, len(calls) + 1, dtype=np.int64)
    calls.entry_clock = calls.clock.copy()
    return calls


def _without_moved_exec(calls: Calls) -> Calls:
    """Join each execve that ended in another thread, and so in another file, with its end there."""
    dropped = np.zeros(len(calls), dtype=bool)
    for row in np.flatnonzero(calls.call == PID_CHANGED).tolist():
        execve = np.isin(calls.call, _EXECS)
        begun = execve & (calls.pid == calls.pid[row]) & (calls.status == UNFINISHED)
        ended = np.flatnonzero(execve & (calls.pid == calls.aux[row]) & (calls.path == NO_TEXT))
        if len(ended):
            calls.path[ended[0]] = calls.path[row]
            calls.aux[ended[0]] = calls.pid[row]
            dropped |= begun
    return calls.take(~dropped)


def _by_time(calls: Calls, parts: list[Calls]) -> Calls:
    """Return the calls in order of completion; the clock counts entries and completions.

    Within a file the order of its lines is kept, where times are too coarse or go back.
    """
    begun, ended = calls.time_ns.copy(), calls.time_ns + np.where(calls.duration_ns == NULL, 0, calls.duration_ns)
    first = 0
    for part in parts:
        rows = slice(first, first + len(part))
        ended[rows] = np.maximum.accumulate(ended[rows])
        begun[rows] = np.clip(
            np.maximum(begun[rows], np.append(begun[first : first + 1], ended[rows][:-1])), None, ended[rows]
        )
        first += len(part)
    lasting = np.flatnonzero(begun < ended)
    row = np.concatenate([np.arange(len(calls)), lasting])
    order = np.argsort(np.concatenate([ended, begun[lasting]]), kind="stable")
    clock = np.empty(len(row), dtype=np.int64)
    clock[order] = np.arange(1, len(row) + 1)
    calls.clock = clock[: len(calls)]
    calls.entry_clock = calls.clock.copy()
    calls.entry_clock[lasting] = clock[len(calls) :]
    return calls.take(np.argsort(calls.clock))


def _order_of_creation(parts: list[Calls]) -> Int64Array:
    """Return the rows file by file, each child's file where its creator's call returned, before it for a vfork."""
    first_row = np.cumsum([0, *(len(part) for part in parts)])
    by_pid = {int(part.pid[0]): place for place, part in enumerate(parts) if len(part)}
    children: dict[int, list[tuple[int, int]]] = {}
    born = set()
    for place, part in enumerate(parts):
        for row in np.flatnonzero(np.isin(part.call, _FORKS) & (part.result > 0)).tolist():
            child = by_pid.get(int(part.result[row]))
            if child is not None and child not in born and child != place:
                born.add(child)
                before = int(part.call[row]) == CALL_CODE["vfork"] or (
                    part.flags[row] != NULL and int(part.flags[row]) & _CLONE_VFORK
                )
                children.setdefault(place, []).append((row if before else row + 1, child))
    order: list[Int64Array] = []
    for root in [place for place in range(len(parts)) if place not in born]:
        _append_file(order, root, parts, first_row, children)
    return np.concatenate(order)


def _append_file(
    order: list[Int64Array],
    root: int,
    parts: list[Calls],
    first_row: Int64Array,
    children: dict[int, list[tuple[int, int]]],
) -> None:
    """Append the rows of a file and, in between, of its children's files."""
    stack = [(root, 0, iter(children.pop(root, [])))]
    while stack:
        place, at, rest = stack.pop()
        base = int(first_row[place])
        row, child = next(rest, (len(parts[place]), -1))
        order.append(np.arange(base + at, base + row))
        if child >= 0:
            stack.append((place, row, rest))
            stack.append((child, 0, iter(children.pop(child, []))))
