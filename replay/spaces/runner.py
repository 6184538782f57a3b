"""Runs the operations of each space, parents first, and hands children what their fork gives them.

In go windows of operations, out come what became of each, and the regions that came to their end. What calls they are
of is not known here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from replay.calls.windows import CallWindows
from replay.engine.columns import NULL, Int64Array, Strings
from replay.engine.records import Records
from replay.engine.sorting import ascending, firsts
from replay.engine.structs import Struct, Value, field
from replay.mm.address_space import apply_operations
from replay.mm.fields import ABOVE_BREAK, CHANGE, FRESH, OPERATION, RECTANGLE
from replay.mm.space import ROOM, Space, empty_space, grown
from replay.spaces.call_effects import OperationRows
from replay.spaces.call_window import CallWindow
from replay.spaces.initial_maps import Image, seeded
from replay.spaces.processes import Processes, SpaceLife
from replay.spaces.resting import Inherited, RestingSpace, born_at

MOST_AWAKE: Final = 64
"""So many spaces are kept as they run; of others the rows alone, which take a hundredth of the room of a small one."""


_NOTHING: Final = np.empty(0, RECTANGLE)


class PreparedWindow(Value):
    """A window with the operations of its calls, ready to be run; `limits` are those at its brk calls."""

    number: int
    window: CallWindow
    rows: OperationRows
    limits: Int64Array


class WindowChanges(Value):
    """What became of the operations of a window: a row of `changes` for each, one of `above_break` for each brk call.

    `pieces` are regions that came to their end, as `address_space` writes them, by space; `inherited` are those of
    forked children to which nothing ever happened, with the line at which they died.
    """

    changes: Records
    above_break: Records
    pieces: list[tuple[int, Records]]
    inherited: list[tuple[int, Inherited, int]]


class _Turn(Value):
    """What happens in a space in a window: which rows, and its forks."""

    chosen: Int64Array
    forks: Sequence[SpaceLife]


class Runner(Struct):
    """Runs spaces window by window; one that is not `awake` is at rest, was not there yet, or has `ended`."""

    lives: Sequence[SpaceLife]
    images: Mapping[int, Image]
    strings: Strings
    page: int
    forks: deque[SpaceLife]
    endings: dict[int, list[int]]
    became: WindowChanges = field(default_factory=lambda: _no_changes(0, 0))
    operations: Records = field(default_factory=lambda: np.empty(0, OPERATION))
    rectangles: Records = field(default_factory=lambda: np.empty(0, RECTANGLE))
    awake: dict[int, Space] = field(default_factory=dict)
    resting: dict[int, RestingSpace] = field(default_factory=dict)
    inherited: dict[int, Inherited] = field(default_factory=dict)
    kernel_rows: dict[int, Records] = field(default_factory=dict)
    start_brks: dict[int, int] = field(default_factory=dict)
    last_clocks: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def run(self, window: PreparedWindow) -> WindowChanges:
        """Run the operations of the next window, and end the spaces in which nothing more happens."""
        self.operations = window.rows.operations
        self.became = _no_changes(len(self.operations), int(self.operations["brk_call"].max(initial=-1)) + 1)
        turns = self._turns(window.rows.spaces, window.window.until)
        ending = set(self.endings.get(window.number, ()))
        for space in sorted(turns):
            self._run_with_children(space, turns, ending)
        for space in sorted(ending - self.ended):
            self._end_space(self.lives[space])
        return self.became

    def _turns(self, spaces: Int64Array, until: int) -> dict[int, _Turn]:
        """Return what happens up to `until` in each space in which something does."""
        forks: dict[int, list[SpaceLife]] = {}
        while self.forks and self.forks[0].born_clock <= until:
            child = self.forks.popleft()
            forks.setdefault(child.parent, []).append(child)
        order = ascending(spaces)
        found, places = firsts(spaces[order])
        rows: dict[int, Int64Array] = dict(zip(found.tolist(), np.split(order, places[1:]), strict=False))
        return {space: _Turn(rows.get(space, order[:0]), forks.get(space, [])) for space in rows.keys() | forks.keys()}

    def _run_with_children(self, space: int, turns: dict[int, _Turn], ending: set[int]) -> None:
        """Run a space, each child as soon as it is born: of children that end again no more than one is there."""
        under_way = [self._run_space(space, turns.pop(space))] if space in turns else []
        of = [space]
        while under_way:
            child = next(under_way[-1], None)
            if child is None:
                under_way.pop()
                ended = of.pop()
            elif child in turns:
                under_way.append(self._run_space(child, turns.pop(child)))
                of.append(child)
                continue
            else:
                ended = child
            if ended in ending and ended not in self.ended:
                self._end_space(self.lives[ended])

    def _run_space(self, number: int, turn: _Turn) -> Iterator[int]:
        """Run the rows of a space, and yield each child when it is born; those born last when the space is at rest."""
        life, chosen = self.lives[number], turn.chosen
        clocks = self.operations["clock"][chosen] if turn.forks else chosen
        done, resting = 0, self.resting.get(number)
        late: list[int] = []
        for child in turn.forks:
            until = max(done, int(np.searchsorted(clocks, child.born_clock, side="left")))
            if until > done or resting is None:
                resting = self._at_rest(number, self._apply(life, chosen, done, until))
            done = until
            self.resting[child.space] = resting.child(child.born_clock)
            if number in self.kernel_rows:
                self.kernel_rows[child.space] = born_at(self.kernel_rows[number], child.born_clock)
            if done < len(chosen):
                yield child.space
            else:
                late.append(child.space)
        if done < len(chosen):
            self._apply(life, chosen, done, len(chosen))
        if len(chosen):
            self.last_clocks[number] = int(self.operations[chosen[-1]].clock)
        if number in self.awake and len(self.awake) > MOST_AWAKE:
            self.resting[number] = self._at_rest(number, self.awake.pop(number))
        yield from late

    def _space(self, life: SpaceLife) -> Space:
        """Return a space as it is now, or was at first."""
        space = self.awake.get(life.space)
        if space is not None:
            return space
        resting = self.resting.pop(life.space, None)
        if resting is not None:
            if resting.inherited is not None:
                self.inherited[life.space] = resting.inherited
            return resting.awake()
        space = empty_space()
        if life.space in self.images and self.images[life.space].mappings:
            space, self.kernel_rows[life.space] = seeded(self.images[life.space], life, self.strings)
        if life.fresh and space.state.start_brk == NULL:
            space.state.start_brk = FRESH
        return space

    def _at_rest(self, number: int, space: Space) -> RestingSpace:
        return RestingSpace.of(space, self.inherited.get(number))

    def _apply(self, life: SpaceLife, chosen: Int64Array, done: int, until: int) -> Space:
        """Run some of the chosen rows, growing the arrays where they fill up, and keep the rectangles that ended."""
        space, became = self._space(life), self.became
        while done < until:
            room = 2 * int(space.state.mappings) + 4 * min(until - done, 1 << 16) + 2 * ROOM
            if len(self.rectangles) < room:
                self.rectangles = np.empty(room + room // 2, RECTANGLE)
            space = space._replace(ended=self.rectangles)
            before = done
            done, count = apply_operations(
                space, self.operations, chosen, (done, until), became.changes, became.above_break, self.page
            )
            if count:
                became.pieces.append((life.space, space.ended[:count].copy()))
            if done == before:
                space = grown(space)
        self.awake[life.space] = space._replace(ended=_NOTHING)  # not to keep rectangles that others outgrow
        return space

    def end(self) -> WindowChanges:
        """End the spaces that are left: what is alive in them is alive at the end of the log, or at their own."""
        self.became = _no_changes(0, 0)
        for life in self.lives:
            if life.space not in self.ended:
                self._end_space(life)
        return self.became

    def _end_space(self, life: SpaceLife) -> None:
        """Write out what is alive when the space ends, or at the end of the log."""
        number = life.space
        resting = self.resting.pop(number, None) or self._at_rest(number, self._space(life))
        last = self.last_clocks.get(number, NULL)
        died = NULL if life.ended_clock == NULL else max(life.ended_clock, last)
        rows = [self.kernel_rows.pop(number)] if number in self.kernel_rows else []
        if resting.inherited is not None and resting.inherited.rows_left:
            self.became.inherited.append((number, resting.inherited, died))
        live = np.concatenate([*rows, resting.own])
        if len(live):
            live["died_line"] = died
            self.became.pieces.append((number, live))
        self.start_brks[number] = resting.start_brk
        self.ended.add(number)
        self.awake.pop(number, None)
        self.inherited.pop(number, None)


def _no_changes(rows: int, brks: int) -> WindowChanges:
    """Return room for what becomes of so many operations, of which so many are brk calls."""
    return WindowChanges(np.empty(rows, CHANGE), np.full(brks, NULL, ABOVE_BREAK), [], [])


def endings(who: Processes, windows: CallWindows) -> dict[int, list[int]]:
    """Return for each window which spaces end in it: nothing happens in them afterwards, and no child is born."""
    last_steps = who.last_steps(windows.heard)
    born = np.full(len(who.lives), NULL, np.int64)
    for life in who.lives:
        if life.origin == "fork":
            born[life.parent] = max(born[life.parent], life.born_clock)
    found: dict[int, list[int]] = {}
    for life in who.lives:
        if life.ended_clock != NULL:
            clock = max(life.ended_clock, life.born_clock, int(born[life.space]))
            by_clock = bisect_left(windows.ends, clock)
            by_step = bisect_right(windows.calls.starts, int(last_steps[life.space])) - 1
            found.setdefault(max(by_clock, by_step), []).append(life.space)
    return found
