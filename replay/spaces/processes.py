"""Which thread runs in which address space.

In go the calls of a run that tell of threads, out come for any row the thread, its address space and its table of open
files, and for each space how it began and ended. What is mapped in a space this module does not know.

Source: clone(2), fork(2), vfork(2), execve(2), _exit(2): CLONE_VM shares the space, CLONE_THREAD the exit_group,
CLONE_FILES the open files; execve leaves the space and ends the other threads; the last exit ends the space.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from replay.calls.reader import Calls
from replay.calls.windows import Told
from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.sorting import distinct
from replay.linux import constants

CLONE_VM: Final = 0x100
CLONE_FILES: Final = 0x400
CLONE_VFORK: Final = 0x4000
CLONE_THREAD: Final = 0x10000

FIRST_THREAD: Final = -1
"""The thread of lines that print no pid, as long as nothing shows its number."""

_CODE = constants.CALL_CODE
FORKS: Final = tuple(_CODE[name] for name in ("fork", "vfork", "clone", "clone3"))
EXECS: Final = (_CODE["execve"], _CODE["execveat"], constants.EXEC_NOTICE)
EXITS: Final = (_CODE["exit"], constants.EXITED, constants.KILLED)
EXIT_GROUP: Final = _CODE["exit_group"]
BRK: Final = _CODE["brk"]


@dataclass(slots=True)
class SpaceLife:
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


@dataclass(slots=True)
class _Task:
    """One thread as the log shows it so far."""

    tid: int
    group: int
    space: int
    files: int
    alive: bool = True
    gone: bool = False
    guessed: bool = False


class Processes(NamedTuple):
    """Who runs where, at any step; the spaces; and what was only guessed.

    `tids` and `steps` are those of the calls that told of it, `moves` the steps at which threads came to a space.
    """

    tids: Int64Array
    steps: Int64Array
    unprinted: _Unprinted
    moves: _Moves
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
        place = np.minimum(np.searchsorted(self.steps, steps), len(self.steps) - 1)
        told = np.flatnonzero(self.steps[place] == steps) if len(self.steps) else place
        tids[told] = self.tids[place[told]]
        return tids

    def spaces_of(self, tids: Int64Array, steps: Int64Array) -> Int64Array:
        """Return the spaces in which threads were at steps."""
        return self.moves.spaces[self.moves.last(tids, steps)]

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


class _Unprinted(NamedTuple):
    """Whose the lines without a pid are: `tids[i]` from `steps[i]` on."""

    steps: Int64Array
    tids: Int64Array

    def at(self, steps: Int64Array) -> Int64Array:
        return self.tids[np.searchsorted(self.steps, steps, side="right") - 1]


class _Moves(NamedTuple):
    """Where threads came to be: rows sorted by thread, each thread's by step; what is before the first is as it."""

    known: Int64Array
    firsts: Int64Array
    keys: Int64Array
    width: int
    spaces: Int64Array
    files: Int64Array

    @classmethod
    def of(cls, moves: dict[int, list[tuple[int, int, int]]], steps: Int64Array) -> _Moves:
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


def assign(told: Told, forked: Iterable[int] = ()) -> Processes:
    """Return which thread and space the calls of a run belong to, from those that tell of it.

    Threads that no call of the log made share the space of the thread seen before them (as after `strace -p`), unless
    they are named in `forked`: those got a copy.
    """
    tids, unprinted = _thread_of_rows(told)
    _rename_execs(told.calls, tids)
    return _Census(told, tids, unprinted, frozenset(forked)).take()


def _rows_of(calls: Calls, codes: Iterable[int]) -> Int64Array:
    return np.flatnonzero(np.isin(calls.call, list(codes), kind="table")).astype(np.int64)


# --- lines without a pid ---------------------------------------------------------------------------------------------


def _thread_of_rows(told: Told) -> tuple[Int64Array, _Unprinted]:
    """Return the thread of each row: the printed pid, and for lines without one the only tracee alive then.

    Source: strace.c, printleader: the pid is printed only while more than one tracee is alive.
    """
    calls = told.calls
    tids = calls.pid.copy()
    unprinted = tids == NULL
    first = FIRST_THREAD
    if unprinted.any() and not (unprinted.all() and not _rows_of(calls, (*FORKS, constants.EXITED)).size):
        children = {int(calls.result[row]) for row in _rows_of(calls, FORKS) if calls.result[row] > 0}
        printed = [int(pid) for pid in distinct(tids[~unprinted])]
        own = [pid for pid in printed if pid not in children]
        first = own[0] if own else FIRST_THREAD
        if printed:
            return tids, _follow_alive(told, tids, unprinted, first)
    tids[unprinted] = first
    return tids, _Unprinted(np.array([NULL]), np.array([first], np.int64))


def _rename_execs(calls: Calls, tids: Int64Array) -> None:
    """Give an execve in a thread to the leader of its group: after `+++ superseded by execve in pid N +++` N is gone.

    Source: execve(2), ptrace(2) on execve under ptrace: the caller's thread id becomes that of the leader.
    """
    for row in _rows_of(calls, (constants.SUPERSEDED,)):
        caller = calls.aux[row]
        later = np.flatnonzero((tids[row:] == caller) & np.isin(calls.call[row:], EXECS[:2])) + row
        if later.size:
            tids[later[0]] = tids[row]


def _follow_alive(told: Told, tids: Int64Array, unprinted: np.ndarray, first: int) -> _Unprinted:
    """Fill the threads of the rows without a pid by following who is alive, and return whose all such lines are."""
    calls = told.calls
    alive = {first: None}
    since = [(NULL, first)]
    changes = np.isin(calls.call, [*FORKS, *EXITS, EXIT_GROUP, constants.SUPERSEDED])
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
        elif tid not in alive and code not in EXITS and code != EXIT_GROUP:
            alive[tid] = None
        if current not in alive and alive:
            current = next(iter(alive))
        since.append((int(told.step[point]) + (code < constants.PSEUDO), current))
    tids[start:][unprinted[start:]] = current
    steps, threads = np.array(since, np.int64).T
    return _Unprinted(steps.copy(), threads.copy())


# --- who lives where -------------------------------------------------------------------------------------------------


class _Census:
    """Follows threads through forks, execs and exits, row by row of those that matter."""

    def __init__(self, told: Told, tids: Int64Array, unprinted: _Unprinted, forked: frozenset[int]) -> None:
        self.told = told
        self.calls = told.calls
        self.tids = tids
        self.unprinted = unprinted
        self.forked = forked
        self.tasks: dict[int, _Task] = {}
        self.lives: list[SpaceLife] = []
        self.files_parents: dict[int, tuple[int, int]] = {}
        self.moves: dict[int, list[tuple[int, int, int]]] = {}
        self.makers: dict[int, list[int]] = {}
        self.made: set[int] = set()
        self.guessed: list[int] = []
        self.groups = 0
        self.members: set[tuple[int, int]] = set()
        self.seen: set[int] = set()
        self.population: dict[int, int] = {}
        self.by_group: dict[int, list[_Task]] = {}
        self.brk_rows: Int64Array = np.zeros(0, np.int64)
        self.breaks_at_birth: dict[int, int] = {}
        self.implicit_execs = False

    def take(self) -> Processes:
        """Walk through the rows that matter and return what became of everyone."""
        calls, tids = self.calls, self.tids
        self.seen = set(distinct(tids).tolist())
        for row in _rows_of(calls, FORKS):
            if calls.result[row] > 0 and calls.status[row] == 0:
                self.makers.setdefault(int(calls.result[row]), []).append(int(row))
        self.brk_rows = _rows_of(calls, (BRK,))
        execs = _rows_of(calls, EXECS)
        self.implicit_execs = not (calls.status[execs] == 0).any()
        queries = self.brk_rows[calls.addr[self.brk_rows] == 0] if self.implicit_execs else self.brk_rows[:0]
        firsts = np.unique(tids, return_index=True)[1]
        codes = (*FORKS, *EXECS, *EXITS, EXIT_GROUP, constants.SUPERSEDED, constants.PID_CHANGED)
        for row in distinct(np.concatenate([firsts, _rows_of(calls, codes), queries, *self._comebacks(firsts)])):
            self._visit(int(row))
        for life in self.lives:
            life.born_step = int(self.told.step[life.born_row]) - int(calls.call[life.born_row] >= constants.PSEUDO)
        real = calls.call < constants.PSEUDO
        return Processes(
            tids[real], self.told.step[real], self.unprinted, _Moves.of(self.moves, self.told.step), self.lives,
            self.files_parents, self.guessed, len(self.seen),
            len({group for tid, group in self.members if tid in self.seen}),
        )  # fmt: skip

    def _comebacks(self, firsts: Int64Array) -> list[Int64Array]:
        """Return, for pids that were made more than once, all their rows: a later one may be a new process."""
        again = [pid for pid, rows in self.makers.items() if len(rows) > 1]
        return [np.flatnonzero(np.isin(self.tids, again))] if again else []

    def _visit(self, row: int) -> None:
        calls = self.calls
        tid, code = int(self.tids[row]), int(calls.call[row])
        task = self.tasks.get(tid)
        succeeded = int(calls.status[row]) == 0 or code >= constants.PSEUDO
        is_exec = code in EXECS and succeeded
        if task is None or (task.gone and code < constants.PSEUDO):
            task = self._appear(tid, row, is_exec)
        if code in FORKS and succeeded and calls.result[row] > 0:
            if row not in self.made and int(calls.result[row]) in self.seen:
                self._make(row, int(calls.clock[row]), row)
        elif is_exec:
            self._exec(task, row)
        elif code == EXIT_GROUP:
            for other in self._group_of(task):
                self._leave(other, row)
        elif code in EXITS:
            self._leave(task, row)
            task.gone = code != _CODE["exit"]
        elif code == BRK and self.implicit_execs and succeeded:
            self._maybe_new_image(task, row)

    def _appear(self, tid: int, row: int, is_exec: bool) -> _Task:
        """Return the task of a thread that shows its first line."""
        clock = int(self.calls.entry_clock[row])
        waiting = [maker for maker in self.makers.get(tid, ()) if maker not in self.made]
        if waiting and int(self.calls.entry_clock[waiting[0]]) <= clock:
            return self._make(waiting[0], clock, row)
        if not self.lives:
            return self._new_task(tid, self._new_space("found", NULL, clock, row, tid), row)
        if is_exec:
            return self._new_task(tid, NULL, row)
        self.guessed.append(tid)
        shared = self._space_to_share(tid)
        if tid in self.forked:
            shared = self._new_space("fork", shared, clock, row, tid)
        return self._new_task(tid, shared, row)

    def _space_to_share(self, tid: int) -> int:
        """Return the space that a thread without a maker likely runs in: that of the first one alive. Heuristic."""
        alive = [task for task in self.tasks.values() if task.alive and task.space != NULL]
        return alive[0].space if alive else self.lives[-1].space

    def _new_task(self, tid: int, space: int, row: int, group: int | None = None, files: int | None = None) -> _Task:
        if group is None:
            group = self.groups
            self.groups += 1
        if files is None:
            files = len(self.files_parents)
            self.files_parents[files] = (-1, row)
        before = self.tasks.get(tid)
        if before is not None and before.alive:
            self._count(before.space, -1)
        task = self.tasks[tid] = _Task(tid, group, space, files)
        self._count(space, 1)
        self.by_group.setdefault(group, []).append(task)
        self._moved(task, row)
        return task

    def _group_of(self, task: _Task) -> list[_Task]:
        """Return the threads of the task's group that no later thread of the same number has replaced."""
        members = self.by_group[task.group]
        return [other for other in members if other.group == task.group and self.tasks[other.tid] is other]

    def _count(self, space: int, change: int) -> None:
        """Add to the number of threads that live in a space."""
        self.population[space] = self.population.get(space, 0) + change

    def _moved(self, task: _Task, row: int) -> None:
        self.members.add((task.tid, task.group))
        self.moves.setdefault(task.tid, []).append((row, task.space, task.files))

    def _new_space(self, origin: str, parent: int, clock: int, row: int, tid: int) -> int:
        number = len(self.lives)
        life = SpaceLife(number, origin, parent, clock, row, pid=tid)
        if origin == "found":
            life.fresh = self._begins_an_image(row)
        self.lives.append(life)
        if origin == "fork":
            self.breaks_at_birth[number] = self._last_break(parent, row)
        return number

    def _begins_an_image(self, row: int) -> bool:
        """Tell whether a space whose beginning is not in the log still begins with it: its first brk asks.

        Heuristic: ld.so and static start-up code call brk(NULL) before any other memory call, running programs rarely.
        """
        calls = self.calls
        until = int(np.searchsorted(self.told.step, self.told.step[row] + 4096))
        same = np.flatnonzero(self.tids[row:until] == self.tids[row]) + row
        memory = [r for r in same if calls.call[r] < _CODE["mlock"]]
        return bool(memory) and int(calls.call[memory[0]]) == BRK and int(calls.addr[memory[0]]) == 0

    def _make(self, maker: int, clock: int, row: int) -> _Task:
        """Return the child that the fork-like call of row `maker` made, alive from `clock` on."""
        calls = self.calls
        self.made.add(maker)
        parent = self.tasks.get(int(self.tids[maker])) or self._appear(int(self.tids[maker]), maker, False)
        code = int(calls.call[maker])
        guessed = code == _CODE["clone3"] and calls.flags[maker] == NULL
        flags = 0 if calls.flags[maker] == NULL else int(calls.flags[maker])
        if guessed:
            # ltrace and old strace do not show what clone3's pointer holds. glibc 2.34+ calls clone3 for threads and
            # posix_spawn only, and both share the space (sysdeps/unix/sysv/linux/{createthread,spawni}.c).
            flags = CLONE_VM | CLONE_THREAD | CLONE_FILES
        if code == _CODE["vfork"]:
            flags |= CLONE_VM | CLONE_VFORK
        child = int(calls.result[maker])
        shares = flags & CLONE_VM
        space = parent.space if shares else self._new_space("fork", parent.space, clock, maker, child)
        files = parent.files
        if not flags & CLONE_FILES:
            files = len(self.files_parents)
            self.files_parents[files] = (parent.files, maker)
        group = parent.group if flags & CLONE_THREAD else None
        task = self._new_task(child, space, row, group, files)
        task.guessed = guessed
        return task

    def _exec(self, task: _Task, row: int) -> None:
        """Move the caller to a new space and end the other threads of its group."""
        old = task.space
        if task.guessed:
            task.group, task.guessed = self.groups, False
            self.by_group[task.group] = [task]
            self.groups += 1
        for other in self._group_of(task):
            if other is not task:
                self._leave(other, row)
        clock = int(self.calls.clock[row])
        self._count(old, -int(task.alive))
        task.alive = True
        task.space = self._new_space("exec", old, clock, row, task.tid)
        self._count(task.space, 1)
        life = self.lives[task.space]
        life.program, life.fresh = int(self.calls.path[row]), True
        if old != NULL and self._is_stub(old, row):
            self._absorb(old, task)
        elif old != NULL:
            self._end_if_empty(old, row)
        self._moved(task, row)

    def _is_stub(self, space: int, row: int) -> bool:
        """Tell whether the space before an exec is only the tracer's child before its first image."""
        life = self.lives[space]
        return life.origin == "found" and life.born_row == row

    def _absorb(self, stub: int, task: _Task) -> None:
        """Let the new image take the number of the stub that preceded it."""
        life = self.lives.pop()
        life.space = stub
        life.parent = NULL
        self.lives[stub] = life
        self.population[stub] = self.population.pop(task.space)
        task.space = stub
        self.moves[task.tid].pop()

    def _leave(self, task: _Task, row: int) -> None:
        if not task.alive:
            return
        task.alive = False
        self._count(task.space, -1)
        if task.space != NULL:
            self._end_if_empty(task.space, row)

    def _end_if_empty(self, space: int, row: int) -> None:
        if not self.population.get(space, 0):
            self.lives[space].ended_clock = int(self.calls.clock[row])
            self.lives[space].ended_by = int(self.calls.call[row])

    # --- logs that show brk but no execve: a break from nowhere is a new image ---

    def _last_break(self, space: int, row: int) -> int:
        """Return the break of `space` before `row` as its last brk call told it, NULL if none did."""
        calls = self.calls
        at = bisect_left(self.brk_rows, row) - 1
        birth = self.lives[space].born_row
        while at >= 0 and self.brk_rows[at] >= birth:
            brk_row = int(self.brk_rows[at])
            task = self.tasks.get(int(self.tids[brk_row]))
            if task is not None and task.space == space and calls.result[brk_row] != NULL:
                return int(calls.result[brk_row])
            at -= 1
        return self.breaks_at_birth.get(space, NULL)

    def _maybe_new_image(self, task: _Task, row: int) -> None:
        """Start a new space where brk(NULL) answers what the space's break cannot be. Heuristic."""
        known = self._last_break(task.space, row)
        if known == NULL or known == int(self.calls.result[row]):
            return
        old = task.space
        task.space = self._new_space("exec", old, int(self.calls.clock[row]), row, task.tid)
        self._count(old, -int(task.alive))
        self._count(task.space, int(task.alive))
        self.lives[task.space].fresh = True
        self._end_if_empty(old, row)
        self._moved(task, row)
