"""All calls of a run, kept packed, and beside them the few that must be known before the first one can be replayed.

In go batches of calls in completion order, out come windows of them, to be replayed one after the other: which thread
runs where, and what a window's lines take away, may be told by calls that complete much later. What calls do is not
known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from replay.calls.page_size import SMALLEST, PageSizeEvidence
from replay.calls.table import COLUMNS, OK, Calls, concatenated
from replay.engine.column_store import PackedColumns, Shelf
from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.sorting import firsts, lasts
from replay.engine.structs import Struct, Value, field
from replay.linux import constants
from replay.linux.constants import CALL_CODE

LEAST_ROWS: Final = 1 << 14
MOST_ROWS: Final = 1 << 16
"""A window has so many calls, but for the last one: few enough to stay in the cache, many enough for whole columns."""

_NOTICES: Final = range(constants.PSEUDO, constants.LAST_NOTICE + 1)
_SIZES_AND_LIMITS: Final = tuple(CALL_CODE[name] for name in ("prlimit", "personality", "shmget", "shmctl"))
_TAKING: Final = tuple(CALL_CODE[name] for name in ("munmap", "shmdt", "mremap", "brk"))
_BRK: Final = CALL_CODE["brk"]
_MMAP: Final = CALL_CODE["mmap"]
_MEMORY_CALLS: Final = CALL_CODE["mlock"]
"""Codes below this one are of calls that change an address space."""


def _table(codes: Iterable[int]) -> np.ndarray:
    """Return for each code of a call, and the one place more of -1, whether it is one of `codes`."""
    table = np.zeros(constants.LAST_NOTICE + 2, dtype=bool)
    table[list(codes)] = True
    return table


_IS_TELLING: Final = _table((*constants.FORKS, *constants.EXECS, *constants.EXITS, *_NOTICES, *_SIZES_AND_LIMITS))
_IS_TAKING: Final = _table(_TAKING)
_IS_EXEC: Final = _table((*constants.EXECS, constants.EXEC_NOTICE))


class KeyCalls(Value):
    """Calls and notices that tell more than of themselves: `step` is the call's, or that of the next one behind it."""

    calls: Calls
    step: Int64Array


class CallWindows(Struct):
    """The calls of a run, one a step; `ends` are the last clocks of the windows, which are the parts of `calls`.

    told: what `census` follows (forks, execs, exits and other notices, the first lines of each thread), limits, and
        sizes of shared memory. early: calls that took memory in an earlier window than the one in which they completed.
    names_files: whether some mapping's file is told only by the calls that opened it. memory_calls: how many calls may
        have changed an address space. heard: the last step of each pid.
    """

    shelf: Shelf
    calls: PackedColumns
    ends: list[int]
    told: KeyCalls
    early: KeyCalls
    names_files: bool
    memory_calls: int
    heard: dict[int, int]
    page_size: int = SMALLEST

    @property
    def last_clock(self) -> int:
        """Return the last line of the run at which anything completed."""
        return int(max([0, *self.ends, *self.told.calls.clock[-1:].tolist()]))

    def window(self, number: int) -> Calls:
        """Return the calls of one window."""
        return Calls(**self.calls.part(number))


def call_windows(batches: Iterable[Calls]) -> CallWindows:
    """Return the windows of all batches."""
    shelf = Shelf()
    made = CallWindows(shelf, PackedColumns(shelf, COLUMNS), [], _together([]), _together([]), False, 0, {})
    listener = _KeyCallPicker()
    early: list[tuple[Calls, Int64Array]] = []
    pages = PageSizeEvidence()
    end = NULL
    for window in _windows(batches):
        real = window.call < constants.PSEUDO
        steps = np.cumsum(np.append(made.calls.rows, real[:-1])[: len(real)], dtype=np.int64)
        listener.listen(window, steps)
        calls, step = (window, steps) if real.all() else (window.take(real), steps[real])
        made.names_files |= bool(((calls.call == _MMAP) & (calls.fd >= 0) & (calls.path == NO_TEXT)).any())
        made.memory_calls += int((calls.call < _MEMORY_CALLS).sum())
        pages.see(calls)
        before = _IS_TAKING[calls.call] & (calls.entry_clock <= end) & (calls.entry_clock < calls.clock)
        if before.any():
            early.append((calls.take(before), step[before]))
        pids, places = lasts(calls.pid)
        made.heard.update(zip(pids.tolist(), step[places].tolist(), strict=True))
        made.calls.append({name: getattr(calls, name) for name in COLUMNS})
        end = max([end, *calls.clock[-1:].tolist()])
        made.ends.append(end)
    made.told = listener.told()
    made.early = _together(early)
    made.page_size = pages.page_size
    return made


_NONE: Final = np.zeros(0, dtype=np.int64)


def _together(parts: list[tuple[Calls, Int64Array]]) -> KeyCalls:
    return KeyCalls(concatenated(calls for calls, _ in parts), np.concatenate([_NONE, *(step for _, step in parts)]))


def _windows(batches: Iterable[Calls]) -> Iterator[Calls]:
    """Yield the calls of all batches in pieces of a good size, at least one."""
    held: list[Calls] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        if rows >= LEAST_ROWS:
            yield from _pieces(concatenated(held))
            held, rows = [], 0
    yield concatenated(held)


def _pieces(calls: Calls) -> Iterator[Calls]:
    count = -(-len(calls) // MOST_ROWS)
    bounds = [len(calls) * place // count for place in range(count + 1)]
    for low, high in pairwise(bounds):
        yield calls.take(slice(low, high)) if count > 1 else calls


class _KeyCallPicker(Struct):
    """Picks out, window by window, the rows that tell more than of themselves."""

    picked: list[tuple[Calls, Int64Array]] = field(default_factory=list)
    heard: set[int] = field(default_factory=set)
    heard_of_memory: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    who_is_next: bool = False
    seen_exec: bool = False

    def listen(self, calls: Calls, step: Int64Array) -> None:
        """Pick from the next window."""
        call = calls.call
        chosen = _IS_TELLING[call]
        _choose_firsts(chosen, calls.pid, np.arange(len(call)), self.heard)
        self._choose_unprinted(chosen, calls.pid)
        self._choose_returned(chosen, calls)
        _choose_firsts(chosen, calls.pid, np.flatnonzero(call < _MEMORY_CALLS), self.heard_of_memory)
        if not self.seen_exec:
            chosen |= call == _BRK
            self.seen_exec = bool((_IS_EXEC[call] & (calls.status == OK)).any())
        if chosen.any():
            self.picked.append((calls.take(chosen), step[chosen]))

    def told(self) -> KeyCalls:
        """Return all that was picked."""
        return _together(self.picked)

    def _choose_unprinted(self, chosen: np.ndarray, pids: Int64Array) -> None:
        """Choose the first line without a pid behind each chosen one: it may be of another thread."""
        unprinted = np.flatnonzero(pids == NULL)
        changes = np.flatnonzero(chosen)
        if len(unprinted):
            after = np.searchsorted(unprinted, changes, side="right")
            chosen[unprinted[after[after < len(unprinted)]]] = True
            if self.who_is_next:
                chosen[unprinted[0]] = True
            self.who_is_next = False
        last = int(unprinted[-1]) if len(unprinted) else -1
        self.who_is_next |= bool(len(changes) and changes[-1] >= last)

    def _choose_returned(self, chosen: np.ndarray, calls: Calls) -> None:
        """Choose the first call of each pid after it ended: the number may be that of a new process."""
        ends = (calls.call == constants.EXITED) | (calls.call == constants.KILLED)
        pids = self.ended | set(calls.pid[ends].tolist())
        if not pids:
            return
        rows = np.flatnonzero(np.isin(calls.pid, list(pids)))
        for row, pid, is_end in zip(rows.tolist(), calls.pid[rows].tolist(), ends[rows].tolist(), strict=True):
            if is_end:
                self.ended.add(pid)
            elif pid in self.ended:
                self.ended.discard(pid)
                chosen[row] = True


def _choose_firsts(chosen: np.ndarray, pids: Int64Array, rows: Int64Array, known: set[int]) -> None:
    """Choose of `rows` the first one of each pid that is not `known`, and make it so."""
    found, first = firsts(pids[rows])
    for pid, place in zip(found.tolist(), first.tolist(), strict=True):
        if pid not in known:
            known.add(pid)
            chosen[rows[place]] = True
