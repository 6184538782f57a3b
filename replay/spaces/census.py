"""Who lives where: threads followed through forks, execs and exits.

In go the calls of a run that tell of threads, out come `Processes`. What is mapped in a space is not known here.

Source: clone(2), fork(2), vfork(2), execve(2), _exit(2), as in `processes`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from functools import cached_property

import numpy as np

from replay.calls.windows import KeyCalls
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import distinct
from replay.engine.structs import Struct, Value
from replay.linux import constants
from replay.linux.constants import CALL_CODE, FORKS
from replay.spaces.line_owners import give_execs_to_leaders, rows_by_thread, threads_of_rows
from replay.spaces.processes import (
    BRK,
    CLONE_FILES,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
    EXEC_EVENTS,
    EXIT_EVENTS,
    EXIT_GROUP,
    Moves,
    Processes,
    SpaceLife,
    Unprinted,
    rows_of,
)


def assign(told: KeyCalls, forked: Iterable[int] = ()) -> Processes:
    """Return which thread and space the calls of a run belong to, from those that tell of it.

    A thread that no call of the log made is a child process where a SIGCHLD names it, with a copy of the space of who
    got the signal. Else it shares the space of the thread seen before it (as after `strace -p`), unless it is named in
    `forked`: then it got a copy.
    """
    tids, unprinted = threads_of_rows(told)
    give_execs_to_leaders(told.calls, tids)
    return _Census(told, tids, unprinted, frozenset(forked)).take()


class _Task(Struct):
    """One thread as the log shows it so far."""

    tid: int
    group: int
    space: int
    files: int
    alive: bool = True
    gone: bool = False
    guessed: bool = False


class _Origin(Value):
    """Where a thread comes from: the row of the call that made it, or at least its parent; NULL where not known."""

    maker: int = NULL
    parent: int = NULL


class _Census:
    """Follows threads through forks, execs and exits, row by row of those that matter."""

    def __init__(self, told: KeyCalls, tids: Int64Array, unprinted: Unprinted, forked: frozenset[int]) -> None:
        self.told = told
        self.calls = told.calls
        self.tids = tids
        self.unprinted = unprinted
        self.forked = forked
        self.tasks: dict[int, _Task] = {}
        self.oldest: deque[_Task] = deque()
        self.lives: list[SpaceLife] = []
        self.files_parents: dict[int, tuple[int, int]] = {}
        self.moves: dict[int, list[tuple[int, int, int]]] = {}
        self.makers: dict[int, deque[int]] = {}
        self.made: set[int] = set()
        self.child_ends: dict[int, list[int]] = {}
        self.guessed: list[int] = []
        self.groups = 0
        self.members: set[tuple[int, int]] = set()
        self.seen: set[int] = set()
        self.population: dict[int, int] = {}
        self.by_group: dict[int, list[_Task]] = {}
        self.brk_rows: Int64Array = np.zeros(0, np.int64)
        self.breaks: dict[int, tuple[int, int]] = {}
        self.breaks_heard = 0
        self.implicit_execs = False

    def take(self) -> Processes:
        """Walk through the rows that matter and return what became of everyone."""
        calls, tids = self.calls, self.tids
        named = rows_of(calls, (constants.SUPERSEDED, constants.PID_CHANGED))
        self.seen = set(distinct(np.append(tids, calls.aux[named])).tolist()) - {NULL}
        for row in rows_of(calls, FORKS):
            if calls.result[row] > 0 and calls.status[row] == 0:
                self.makers.setdefault(int(calls.result[row]), deque()).append(int(row))
        for row in rows_of(calls, (constants.CHILD_ENDED,)):
            self.child_ends.setdefault(int(calls.aux[row]), []).append(int(row))
        self.brk_rows = rows_of(calls, (BRK,))
        execs = rows_of(calls, EXEC_EVENTS)
        self.implicit_execs = not (calls.status[execs] == 0).any()
        queries = self.brk_rows[calls.addr[self.brk_rows] == 0] if self.implicit_execs else self.brk_rows[:0]
        firsts = np.unique(tids, return_index=True)[1]
        codes = (*FORKS, *EXEC_EVENTS, *EXIT_EVENTS, EXIT_GROUP, constants.SUPERSEDED, constants.PID_CHANGED)
        for row in distinct(np.concatenate([firsts, rows_of(calls, codes), queries, *self._comebacks()])):
            self._visit(int(row))
        for life in self.lives:
            life.born_step = int(self.told.step[life.born_row]) - int(calls.call[life.born_row] >= constants.PSEUDO)
        real = calls.call < constants.PSEUDO
        return Processes(
            tids[real], self.told.step[real], self.unprinted, Moves.of(self.moves, self.told.step), self.lives,
            self.files_parents, self.guessed, len(self.seen),
            len({group for tid, group in self.members if tid in self.seen}),
        )  # fmt: skip

    def _comebacks(self) -> list[Int64Array]:
        """Return, for pids that were made more than once, all their rows: a later one may be a new process."""
        again = [pid for pid, rows in self.makers.items() if len(rows) > 1]
        return [np.flatnonzero(np.isin(self.tids, again))] if again else []

    def _visit(self, row: int) -> None:
        calls = self.calls
        if self.implicit_execs:
            self._hear_breaks(row)
        tid, code = int(self.tids[row]), int(calls.call[row])
        task = self.tasks.get(tid)
        succeeded = int(calls.status[row]) == 0 or code >= constants.PSEUDO
        is_exec = code in EXEC_EVENTS and succeeded
        if task is None or (task.gone and code < constants.PSEUDO):
            task = self._appear(tid, row, is_exec)
        if code in FORKS and succeeded and calls.result[row] > 0:
            if row not in self.made and int(calls.result[row]) in self.seen:
                self._make(row, task, int(calls.clock[row]), row)
        elif is_exec:
            self._exec(task, row)
        elif code == EXIT_GROUP:
            for other in self._group_of(task):
                self._leave(other, row)
        elif code in EXIT_EVENTS:
            self._leave(task, row)
            task.gone = code != CALL_CODE["exit"]
        elif code == BRK and self.implicit_execs and succeeded:
            self._maybe_new_image(task, row)

    # --- a thread shows its first line ---

    def _appear(self, tid: int, row: int, is_exec: bool) -> _Task:
        """Return the task of a thread that shows its first line; who it comes from appears before it."""
        waiting = [(tid, row, self._origin(tid, row))]
        on_the_way = {tid}
        while True:
            child, at, origin = waiting[-1]
            parent = origin.parent
            if parent != NULL and parent not in self.tasks and parent not in on_the_way:
                at = origin.maker if origin.maker != NULL else at
                waiting.append((parent, at, self._origin(parent, at)))
                on_the_way.add(parent)
                continue
            waiting.pop()
            clock = int(min(self.calls.entry_clock[at], self.calls.entry_clock[row]))
            task = self._begin(child, at, origin, clock, is_exec=is_exec and not waiting)
            if not waiting:
                return task

    def _origin(self, tid: int, row: int) -> _Origin:
        """Return where the thread comes from whose first line is `row`.

        Who is named by a SIGCHLD is a process: the end of a thread sends no signal to another process. Source:
        kernel/signal.c, do_notify_parent; kernel/exit.c, exit_notify.
        """
        makers = self.makers.get(tid, deque())
        while makers and makers[0] in self.made:
            makers.popleft()
        if makers and self._had_begun(makers[0], row):
            return _Origin(makers[0], int(self.tids[makers[0]]))
        ends = self.child_ends.get(tid, [])
        at = bisect_left(ends, row)
        parent = int(self.tids[ends[at]]) if at < len(ends) else NULL
        return _Origin(parent=NULL if parent == tid else parent)

    def _had_begun(self, maker: int, row: int) -> bool:
        """Tell whether the call that made a thread had begun when the thread showed its first line.

        Where calls are printed whole (`-z`, a set of files without times) a child's lines stand before the call that
        made it: its maker shows nothing between. Source: strace(1), -z; vfork(2).
        """
        if self.calls.entry_clock[maker] <= self.calls.entry_clock[row]:
            return True
        rows, spans = self._by_thread
        at = spans.get(int(self.tids[maker]))
        mine = rows[slice(*at)] if at is not None else rows[:0]
        return not np.searchsorted(mine, maker) - np.searchsorted(mine, row)

    @cached_property
    def _by_thread(self) -> tuple[Int64Array, dict[int, tuple[int, int]]]:
        return rows_by_thread(self.tids)

    def _begin(self, tid: int, row: int, origin: _Origin, clock: int, *, is_exec: bool) -> _Task:
        """Return the task of a thread that is there at `clock`, of whose parent it is known where it lives."""
        parent = self.tasks.get(origin.parent)
        if parent is not None and origin.maker != NULL:
            return self._make(origin.maker, parent, clock, row)
        if parent is not None and parent.space != NULL:
            return self._new_task(tid, self._new_space("fork", parent.space, clock, row, tid), row)
        if not self.lives:
            return self._new_task(tid, self._new_space("found", NULL, clock, row, tid), row)
        if is_exec:
            return self._new_task(tid, NULL, row)
        self.guessed.append(tid)
        space, group = self._to_share()
        if tid in self.forked:
            return self._new_task(tid, self._new_space("fork", space, clock, row, tid), row)
        return self._new_task(tid, space, row, counted=group)

    def _to_share(self) -> tuple[int, int]:
        """Return the space that a thread without a maker likely runs in, and its group. Heuristic: of the oldest alive.

        Who is dead at the front stays so: an execve alone brings a task back, and that puts it last.
        """
        while self.oldest and not self._lives_on(self.oldest[0]):
            self.oldest.popleft()
        for task in self.oldest:
            if self._lives_on(task) and task.space != NULL:
                return task.space, task.group
        return self.lives[-1].space, self.groups - 1

    def _lives_on(self, task: _Task) -> bool:
        """Tell whether a task is alive, and no later one of its number has replaced it."""
        return task.alive and self.tasks[task.tid] is task

    def _new_task(
        self, tid: int, space: int, row: int, group: int = NULL, files: int = NULL, *, counted: int = NULL
    ) -> _Task:
        """Return a new task; `counted` is the group that it is counted in where it may be a thread of another's."""
        if group == NULL:
            group = self.groups
            self.groups += 1
        if files == NULL:
            files = len(self.files_parents)
            self.files_parents[files] = (-1, row)
        before = self.tasks.get(tid)
        if before is not None and before.alive:
            self._count(before.space, -1)
        task = self.tasks[tid] = _Task(tid, group, space, files)
        self._count(space, 1)
        self.by_group.setdefault(group, []).append(task)
        self.oldest.append(task)
        self.members.add((tid, group if counted == NULL else counted))
        self._moved(task, row)
        return task

    def _make(self, maker: int, parent: _Task, clock: int, row: int) -> _Task:
        """Return the child of `parent` that the fork-like call of row `maker` made, alive from `clock` on."""
        calls = self.calls
        self.made.add(maker)
        code = int(calls.call[maker])
        guessed = code == CALL_CODE["clone3"] and calls.flags[maker] == NULL
        flags = 0 if calls.flags[maker] == NULL else int(calls.flags[maker])
        if guessed:
            # ltrace and old strace do not show what clone3's pointer holds. glibc 2.34+ calls clone3 for threads and
            # posix_spawn only, and both share the space (sysdeps/unix/sysv/linux/{createthread,spawni}.c).
            flags = CLONE_VM | CLONE_THREAD | CLONE_FILES
        if code == CALL_CODE["vfork"]:
            flags |= CLONE_VM | CLONE_VFORK
        child = int(calls.result[maker])
        space = parent.space if flags & CLONE_VM else self._new_space("fork", parent.space, clock, maker, child)
        files = parent.files
        if not flags & CLONE_FILES:
            files = len(self.files_parents)
            self.files_parents[files] = (parent.files, maker)
        task = self._new_task(child, space, row, parent.group if flags & CLONE_THREAD else NULL, files)
        task.guessed = guessed
        return task

    # --- groups and spaces ---

    def _group_of(self, task: _Task) -> list[_Task]:
        """Return the threads of the task's group that no later thread of the same number has replaced."""
        members = self.by_group[task.group]
        return [other for other in members if other.group == task.group and self.tasks[other.tid] is other]

    def _count(self, space: int, change: int) -> None:
        """Add to the number of threads that live in a space."""
        self.population[space] = self.population.get(space, 0) + change

    def _moved(self, task: _Task, row: int) -> None:
        self.moves.setdefault(task.tid, []).append((row, task.space, task.files))

    def _new_space(self, origin: str, parent: int, clock: int, row: int, tid: int) -> int:
        number = len(self.lives)
        life = SpaceLife(number, origin, parent, clock, row, pid=tid)
        if origin == "found":
            life.fresh = self._begins_an_image(row)
        self.lives.append(life)
        if origin == "fork" and parent in self.breaks:
            self.breaks[number] = self.breaks[parent]
        return number

    def _begins_an_image(self, row: int) -> bool:
        """Tell whether a space whose beginning is not in the log still begins with it: its first brk asks.

        Heuristic: ld.so and static start-up code call brk(NULL) before any other memory call, running programs rarely.
        """
        calls = self.calls
        until = int(np.searchsorted(self.told.step, self.told.step[row] + 4096))
        same = np.flatnonzero(self.tids[row:until] == self.tids[row]) + row
        memory = [r for r in same if calls.call[r] < CALL_CODE["mlock"]]
        return bool(memory) and int(calls.call[memory[0]]) == BRK and int(calls.addr[memory[0]]) == 0

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
        self._count(old, -int(task.alive))
        if not task.alive:
            task.alive = True
            self.oldest.append(task)
        self.members.add((task.tid, task.group))
        task.space = self._new_space("exec", old, int(self.calls.clock[row]), row, task.tid)
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

    def _hear_breaks(self, row: int) -> None:
        """Take in the brk calls before `row`: the last one of each thread tells the break of its space."""
        calls = self.calls
        first, self.breaks_heard = self.breaks_heard, bisect_left(self.brk_rows, row, lo=self.breaks_heard)
        rows = self.brk_rows[first : self.breaks_heard]
        rows = rows[calls.result[rows] != NULL]
        for tid, last in dict(zip(self.tids[rows].tolist(), rows.tolist(), strict=True)).items():
            task = self.tasks.get(tid)
            if task is not None and self.breaks.get(task.space, (NULL, NULL))[0] < last:
                self.breaks[task.space] = (last, int(calls.result[last]))

    def _maybe_new_image(self, task: _Task, row: int) -> None:
        """Start a new space where brk(NULL) answers what the space's break cannot be. Heuristic."""
        _, known = self.breaks.get(task.space, (NULL, NULL))
        if known == NULL or known == int(self.calls.result[row]):
            return
        old = task.space
        task.space = self._new_space("exec", old, int(self.calls.clock[row]), row, task.tid)
        self._count(old, -int(task.alive))
        self._count(task.space, int(task.alive))
        self.lives[task.space].fresh = True
        self._end_if_empty(old, row)
        self._moved(task, row)
