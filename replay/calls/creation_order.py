"""The order of the files of a `strace -ff` set whose lines have no times.

In go the files, out come their calls: each child's where its creator's call returned, before it for a vfork. Threads
of one space share its break, which tells more: of two of their calls of brk that which left the break lower was first,
as long as the break only grows.

Source: clone(2), CLONE_VM, CLONE_VFORK; brk(2); kernel/exit.c and fs/exec.c, de_thread: an execve ends other threads.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from replay.calls.kept_files import KeptFile
from replay.calls.table import OK, Calls, concatenated
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Struct, Value
from replay.linux.constants import CALL_CODE, CLONE, EXECS, FORKS

WINDOW_ROWS: Final = 1 << 16
"""About so many calls come out at once."""

_NEVER: Final = np.iinfo(np.int64).max


def by_creation(files: Sequence[KeptFile]) -> Iterator[Calls]:
    """Yield the calls of all files in an order in which they may have completed; the clock counts them."""
    clock, pieces, rows = 0, list[Calls](), 0
    for piece in _pieces(files):
        pieces.append(piece)
        rows += len(piece)
        if rows >= WINDOW_ROWS:
            yield _counted(pieces, clock)
            clock, pieces, rows = clock + rows, [], 0
    yield _counted(pieces, clock)


def _counted(pieces: Sequence[Calls], clock: int) -> Calls:
    """Return calls that complete one after another behind a clock."""
    calls = concatenated(pieces)
    calls.clock = np.arange(clock + 1, clock + 1 + len(calls))
    calls.entry_clock = calls.clock.copy()
    return calls


def _pieces(files: Sequence[KeptFile]) -> Iterator[Calls]:
    """Yield the calls of all stretches; of each file a part may be in use at once."""

    @lru_cache(maxsize=max(8, len(files)))
    def part(file: int, number: int) -> tuple[Int64Array, Calls]:
        return files[file].part(number)

    for file, first, last in _stretches(files):
        starts = files[file].columns.starts
        number = int(np.searchsorted(starts, first, side="right")) - 1
        while number < len(starts) - 1 and starts[number] < last:
            rows, calls = part(file, number)
            yield calls.take(slice(*np.searchsorted(rows, [first, last])))
            number += 1


class _Stretch(NamedTuple):
    """Rows `[first, last)` of a file."""

    file: int
    first: int
    last: int


class _Child(Value):
    """A file, the row of its creator's file in front of which it belongs, and whether both share their memory."""

    row: int
    file: int
    thread: bool


def _stretches(files: Sequence[KeptFile]) -> Iterator[_Stretch]:
    """Yield the stretches of all files; a process stands whole where it was made."""
    children = _children(files)
    born = {child.file for found in children.values() for child in found}
    found = [place for place in range(len(files)) if place not in born and files[place].columns.rows]
    roots = [place for place in found if _begins_with_exec(files[place])]
    older = [place for place in found if place not in roots]
    for threads in [*([older] if older else []), *([root] for root in roots)]:
        stack = [_Space(files, children, threads).stretches()]
        while stack:
            at = next(stack[-1], None)
            if at is None:
                stack.pop()
            elif isinstance(at, int):
                stack.append(_Space(files, children, [at]).stretches())
            else:
                yield at


def _begins_with_exec(file: KeptFile) -> bool:
    return bool(file.columns.rows) and int(file.columns.one("call", 0)) in EXECS


def _children(files: Sequence[KeptFile]) -> dict[int, list[_Child]]:
    """Return for each file the files of those that its calls made."""
    by_pid = {file.columns.one("pid", 0): place for place, file in enumerate(files) if file.columns.rows}
    children: dict[int, list[_Child]] = {}
    born = set()
    for place, file in enumerate(files):
        calls = file.telling
        for at in np.flatnonzero(np.isin(calls.call, FORKS) & (calls.result > 0)).tolist():
            child = by_pid.get(int(calls.result[at]))
            if child is not None and child not in born and child != place:
                born.add(child)
                flags = 0 if calls.flags[at] == NULL else int(calls.flags[at])
                waits = int(calls.call[at]) == CALL_CODE["vfork"] or bool(flags & CLONE["CLONE_VFORK"])
                shares = bool(flags & CLONE["CLONE_VM"]) and not waits
                row = int(file.rows[at])
                children.setdefault(place, []).append(_Child(row if waits else row + 1, child, shares))
    return children


class _Thread(Struct):
    """How far the calls of a file were put in order, and what of the rest has to do with other threads.

    breaks: marks of its calls of brk, at `break_rows`, of which `brk` were passed. execs: rows that end other threads.
    """

    file: int
    rows: int
    creator: int
    children: deque[_Child]
    breaks: Int64Array
    break_rows: Int64Array
    execs: deque[int]
    made: bool
    at: int = 0
    brk: int = 0

    def next_break(self) -> int:
        """Return the mark of its next call of brk, `_NEVER` where it makes none in this space."""
        if self.brk == len(self.breaks) or (self.execs and self.execs[0] < self.break_rows[self.brk]):
            return _NEVER
        return int(self.breaks[self.brk])

    def is_through(self) -> bool:
        """Return whether nothing is left of it."""
        return self.at == self.rows and not self.children


class _Space:
    """The threads of one address space, those that are `live` by age, and the next break of each, the least first.

    Those that are not yet made are known, too: what they do to the break comes behind what leaves it lower.
    """

    def __init__(self, files: Sequence[KeptFile], children: dict[int, list[_Child]], first: Sequence[int]) -> None:
        """Begin with the threads that no call of another made."""
        creators = _creators(children, first)
        grows = all(_grows(files[place]) for place in creators)
        self._threads = {
            place: _Thread(
                place,
                files[place].columns.rows,
                creator,
                deque(children.get(place, ())),
                files[place].breaks if grows else files[place].breaks[:0],
                files[place].break_rows,
                deque(_execs(files[place]).tolist()),
                made=creator == NULL,
            )
            for place, creator in creators.items()
        }
        self._live = [self._threads[place] for place in reversed(first)]
        self._left = len(first)
        self._breaks: list[tuple[int, int]] = []
        for thread in self._threads.values():
            self._wait_for_break(thread)

    def stretches(self) -> Iterator[_Stretch | int]:
        """Yield what the threads did, in an order that fits the break, and the files of processes that they made.

        The youngest runs until it has made another, or would move the break past what another has still to see.
        """
        while self._left:
            while self._live[-1].is_through():
                self._live.pop()
            thread = self._next()
            before, child = thread.at, self._run(thread)
            self._left -= thread.is_through()
            if thread.at > before:
                yield _Stretch(thread.file, before, thread.at)
            if child is not None and child.thread:
                self._live.append(self._threads[child.file])
                self._live[-1].made = True
                self._left += 1
            elif child is not None:
                yield child.file

    def _wait_for_break(self, thread: _Thread) -> None:
        if thread.next_break() != _NEVER:
            heapq.heappush(self._breaks, (thread.next_break(), thread.file))

    def _least(self) -> _Thread | None:
        """Return the thread that leaves the break the lowest of all."""
        while self._breaks:
            mark, file = self._breaks[0]
            if self._threads[file].next_break() == mark:
                return self._threads[file]
            heapq.heappop(self._breaks)
        return None

    def _next(self) -> _Thread:
        """Return the youngest thread that may go on, the youngest where none may."""
        youngest, least = self._live[-1], self._least()
        if self._may_go_on(youngest):
            return youngest
        if least is not None and self._may_go_on(least := self._made_or_creator(least)):
            return least
        found = (thread for thread in reversed(self._live) if not thread.is_through() and self._may_go_on(thread))
        return next(found, youngest)

    def _made_or_creator(self, thread: _Thread) -> _Thread:
        """Return a thread, or who has still to make it, or who has still to make that."""
        while not thread.made:
            thread = self._threads[thread.creator]
        return thread

    def _may_go_on(self, thread: _Thread) -> bool:
        """Return whether the next row of a thread is no execve, which ends others, and no brk that comes too early."""
        if thread.execs and thread.execs[0] == thread.at:
            return self._left == 1
        least = self._least()
        at_break = thread.brk < len(thread.breaks) and thread.break_rows[thread.brk] == thread.at
        return not at_break or least is None or least.next_break() >= thread.next_break()

    def _run(self, thread: _Thread) -> _Child | None:
        """Move a thread on as far as it may, its next row at least; return the child it has then made, if any."""
        while thread.execs and (thread.execs[0] == thread.at or self._left == 1):
            thread.execs.popleft()
            self._wait_for_break(thread)
        child = thread.children[0] if thread.children else None
        end = min(child.row if child else thread.rows, thread.execs[0] if thread.execs else thread.rows)
        while thread.brk < len(thread.breaks) and thread.break_rows[thread.brk] < end:
            least, row = self._least(), int(thread.break_rows[thread.brk])
            if row > thread.at and least is not None and least.next_break() < thread.next_break():
                end = row
            else:
                thread.brk += 1
                self._wait_for_break(thread)
        thread.at = end
        return thread.children.popleft() if child and child.row == end else None


def _creators(children: dict[int, list[_Child]], first: Sequence[int]) -> dict[int, int]:
    """Return all threads of a space, each with the one that made it; those that are there at first have none."""
    creators, rest = dict.fromkeys(first, NULL), list(first)
    while rest:
        creator = rest.pop()
        made = [child.file for child in children.get(creator, ()) if child.thread]
        creators.update(dict.fromkeys(made, creator))
        rest += made
    return creators


def _execs(file: KeptFile) -> Int64Array:
    """Return the rows at which a file goes on in another space."""
    gone = np.isin(file.telling.call, EXECS) & (file.telling.status == OK)
    return np.asarray(file.rows[gone], np.int64)


def _grows(file: KeptFile) -> bool:
    """Return whether no call of brk of a file lowers the break of a space."""
    return bool(((np.diff(file.breaks) >= 0) | (np.diff(np.searchsorted(_execs(file), file.break_rows)) > 0)).all())
