"""The replay: calls drive the address spaces, and rectangles come out.

In go the calls of a run, out come the regions (addresses x lines), what each brk call met, and how each space changed.
Of allocators and reports this module knows nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from replay.calls.table import Calls, concatenated
from replay.calls.windows import Recording, record
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Strings
from replay.engine.prefetch import worked_ahead
from replay.engine.progress import Stage, Watch, unwatched
from replay.engine.sorting import ascending, firsts
from replay.mm import address_space as aspace
from replay.spaces import call_effects, census, open_files
from replay.spaces.call_window import CallWindow
from replay.spaces.initial_maps import Image, Images, no_images, seeded
from replay.spaces.processes import Processes, SpaceLife
from replay.spaces.results import Outcome, Ran

SPACE_ORIGINS: Final = ("found", "exec", "fork")
"""How a space began, see `processes.SpaceLife`; the codes of the column `origin` of the spaces are places here."""

ORIGIN_FORK: Final = SPACE_ORIGINS.index("fork")


class Replay(NamedTuple):
    """What the replay of a run gives; all columns int64, texts as ids.

    events: one row a step. regions: one row a rectangle, in the order in which they end. brks: one row a completed brk
    call. changes: one row a change of a space. divergences: one row a contradiction. spaces: one row an address space.
    """

    events: PackedColumns
    regions: PackedColumns
    brks: PackedColumns
    changes: PackedColumns
    divergences: Columns
    spaces: Columns
    strings: Strings
    page_size: int
    threads: int
    processes: int
    last_clock: int
    images: Mapping[int, Image]
    who: Processes


def replay(
    batches: Iterable[Calls],
    strings: Strings,
    page: int = 4096,
    images: Images = no_images,
    watch: Watch = unwatched,
) -> Replay:
    """Return what becomes of every address space of a run, whose calls come in batches in completion order.

    `images` tells what was mapped in a space when it began, where that is known.
    A thread that no call of the log made shares a space; if the replay then contradicts it, it is replayed as a copy.
    """
    recording = record(batches)
    forked: frozenset[int] = frozenset()
    result, who = _replay_with(recording, forked, strings, page, images, watch)
    while suspects := _contradicted(result, who) - forked:
        forked |= suspects
        other, who = _replay_with(recording, forked, strings, page, images, watch)
        if len(other.divergences["step"]) >= len(result.divergences["step"]):
            break
        result = other
    return result


def _contradicted(result: Replay, who: Processes) -> frozenset[int]:
    """Return the threads that were only guessed to share a space in which contradictions then arose."""
    if not who.guessed_tids or not len(result.divergences["step"]):
        return frozenset()
    spaces = set(result.events["space"][result.divergences["step"]].tolist())
    guilty = set()
    tids, in_space = result.events["tid"], result.events["space"]
    for tid in who.guessed_tids:
        at = np.flatnonzero(tids == tid)
        if at.size and int(in_space[at[0]]) in spaces:
            guilty.add(tid)
    return frozenset(guilty)


def _replay_with(
    recording: Recording,
    forked: frozenset[int],
    strings: Strings,
    page: int,
    images: Images,
    watch: Watch,
) -> tuple[Replay, Processes]:
    """Return the replay in which the threads `forked` got copies, and what it took every thread to be."""
    who = census.assign(recording.told, forked)
    known = images(recording, who)
    output = Outcome(recording, who.lives)
    runner = _Runner(
        lives=who.lives,
        images=known,
        strings=strings,
        page=page,
        forks=deque(sorted((life for life in who.lives if life.origin == "fork"), key=lambda life: life.born_clock)),
        endings=_endings(who, recording),
    )
    # While a thread changes the mappings of one window, the next is made ready, and what became of the last is kept.
    for ready, became in worked_ahead(_ready(recording, who, output, strings, page), runner.run):
        output.keep_changes(Ran(ready.window, ready.rows, became.changes, became.met, ready.limits))
        output.keep_regions(became.pieces)
        watch(Stage("replaying", ready.number + 1, recording.calls.parts))
    output.keep_regions(runner.end())
    made = Replay(
        events=output.events,
        regions=output.regions,
        brks=output.brks,
        changes=output.changes,
        divergences=output.divergences,
        spaces=_spaces(who, output, runner.start_brks),
        strings=strings,
        page_size=page,
        threads=who.threads,
        processes=who.processes,
        last_clock=recording.last_clock,
        images=known,
        who=who,
    )
    return made, who


class _Ready(NamedTuple):
    """A window with the verbs of its calls, ready to be run; `limits` are those at its brk calls."""

    number: int
    window: CallWindow
    rows: call_effects.OperationRows
    limits: Int64Array


def _ready(recording: Recording, who: Processes, output: Outcome, strings: Strings, page: int) -> Iterator[_Ready]:
    """Yield the windows of a run with their verbs; what is known of their calls is kept in `output`."""
    across = call_effects.across_windows(recording.told, who, strings, page)
    files = open_files.OpenFiles(who.files_parents) if recording.names_files else None
    for number in range(recording.calls.parts):
        window = _window(recording, number, who, files, strings)
        output.keep_events(number, window)
        rows = call_effects.operations_of(window, across)
        brks = rows.sources[rows.values[aspace.ROW_VERB] == aspace.VERB_BRK]
        yield _Ready(number, window, rows, across.limits.at(window.spaces[brks], window.steps[brks]))


def _window(
    recording: Recording, number: int, who: Processes, files: open_files.OpenFiles | None, strings: Strings
) -> CallWindow:
    """Return a window's calls, and behind them those that took memory in it and completed later."""
    calls, first = recording.window(number), recording.calls.starts[number]
    steps = np.arange(first, first + len(calls))
    after, until = [NULL, *recording.ends][number : number + 2]
    entry = recording.early.calls.entry_clock
    taking = (entry > after) & (entry <= until)
    if taking.any():
        calls = concatenated([calls, recording.early.calls.take(taking)])
        steps = np.append(steps, recording.early.step[taking])
    tids = who.tids_of(calls.pid, steps)
    spaces = who.spaces_of(tids, steps)
    paths = calls.path if files is None else open_files.mapped_paths(calls, who.files_of(tids, steps), files, strings)
    return CallWindow(calls, steps, tids, spaces, paths, after, until)


# --- running the spaces ----------------------------------------------------------------------------------------------


class _Became(NamedTuple):
    """What became of the verbs of a window: a row of `changes` for each, one of `met` for each brk call.

    `pieces` are rows of regions that came to their end, as `address_space.run` writes them, by space.
    """

    changes: Int64Array
    met: Int64Array
    pieces: list[tuple[int, Int64Array]]


@dataclass(slots=True)
class _Runner:
    """Runs the verbs of each space, parents first, and hands children a copy at the moment of their fork."""

    lives: Sequence[SpaceLife]
    images: Mapping[int, Image]
    strings: Strings
    page: int
    forks: deque[SpaceLife]
    endings: dict[int, list[int]]
    pieces: list[tuple[int, Int64Array]] = field(default_factory=list)
    dead: Int64Array = field(default_factory=lambda: np.empty((0, aspace.DEAD_WIDTH), np.int64))
    states: dict[int, aspace.Space] = field(default_factory=dict)
    kernel_rows: dict[int, Int64Array] = field(default_factory=dict)
    start_brks: dict[int, int] = field(default_factory=dict)
    last_clocks: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def run(self, ready: _Ready) -> _Became:
        """Run the verbs of the next window, and end the spaces in which nothing more happens."""
        rows = ready.rows
        changes = np.empty((len(rows.spaces), aspace.CHANGE_WIDTH), np.int64)
        brks = rows.values[aspace.ROW_BRK, rows.values[aspace.ROW_VERB] == aspace.VERB_BRK]
        met = np.full((int(brks.max(initial=-1)) + 1, aspace.MET_WIDTH), NULL, np.int64)
        self.pieces = []
        values = np.ascontiguousarray(rows.values.T)  # a row lies together: it is taken up as a whole
        for space, chosen, forks in self._turns(rows.spaces, ready.window.until):
            self._run_space(self.lives[space], chosen, forks, values, changes, met)
        for space in self.endings.get(ready.number, ()):
            self._end_space(self.lives[space])
        return _Became(changes, met, self.pieces)

    def _turns(self, spaces: Int64Array, until: int) -> Iterator[tuple[int, Int64Array, list[SpaceLife]]]:
        """Yield the spaces in which something happens up to `until`, parents first, with their rows and forks."""
        forks: dict[int, list[SpaceLife]] = {}
        while self.forks and self.forks[0].born_clock <= until:
            child = self.forks.popleft()
            forks.setdefault(child.parent, []).append(child)
        order = ascending(spaces)
        found, places = firsts(spaces[order])
        rows: dict[int, Int64Array] = dict(zip(found.tolist(), np.split(order, places[1:]), strict=False))
        for space in sorted(rows.keys() | forks.keys()):
            yield space, rows.get(space, order[:0]), forks.get(space, [])

    def _run_space(
        self, life: SpaceLife, chosen: Int64Array, forks: Sequence[SpaceLife],
        values: Int64Array, changes: Int64Array, met: Int64Array,
    ) -> None:  # fmt: skip
        """Run the chosen rows, and copy the space for the forks in between."""
        space = self._state(life)
        clocks = values[chosen, aspace.ROW_CLOCK] if forks else chosen
        done = 0
        for child in forks:
            until = max(done, int(np.searchsorted(clocks, child.born_clock, side="left")))
            space = self._apply(space, life, values, chosen, (done, until), changes, met)
            done = until
            self.states[child.space] = space_copy(space, child.born_clock)
            if life.space in self.kernel_rows:
                self.kernel_rows[child.space] = _born_at(self.kernel_rows[life.space], child.born_clock)
        self.states[life.space] = self._apply(space, life, values, chosen, (done, len(chosen)), changes, met)
        if len(chosen):
            self.last_clocks[life.space] = int(values[chosen[-1], aspace.ROW_CLOCK])

    def _state(self, life: SpaceLife) -> aspace.Space:
        """Return the space as it is now, or was at first."""
        space = self.states.get(life.space)
        if space is not None:
            return space
        space = aspace.empty_space()
        if life.space in self.images and self.images[life.space].mappings:
            space, self.kernel_rows[life.space] = seeded(self.images[life.space], life, self.strings)
        if life.fresh and space.totals[aspace.START_BRK] == NULL:
            space.totals[aspace.START_BRK] = aspace.FRESH
        return space

    def _apply(
        self, space: aspace.Space, life: SpaceLife, values: Int64Array, chosen: Int64Array, bounds: tuple[int, int],
        changes: Int64Array, met: Int64Array,
    ) -> aspace.Space:  # fmt: skip
        """Run some of the chosen rows, growing the arrays where they fill up, and keep the rectangles that ended."""
        done, until = bounds
        while done < until:
            room = 2 * int(space.totals[aspace.MAPPINGS]) + 4 * min(until - done, 1 << 16) + 2 * aspace.ROOM
            if len(self.dead) < room:
                self.dead = np.empty((room + room // 2, aspace.DEAD_WIDTH), np.int64)
            before = done
            done, count = aspace.apply_rows(space, values, chosen, (done, until), self.dead, changes, met, self.page)
            if count:
                self.pieces.append((life.space, self.dead[:count].copy()))
            if done == before:
                space = aspace.grown(space)
        return space

    def end(self) -> list[tuple[int, Int64Array]]:
        """End the spaces that are left: what is alive in them is alive at the end of the log, or at their own."""
        self.pieces = []
        for life in self.lives:
            if life.space not in self.ended:
                self._end_space(life)
        return self.pieces

    def _end_space(self, life: SpaceLife) -> None:
        """Write out what is alive when the space ends, or at the end of the log."""
        space = self._state(life)
        live = aspace.live_rows(space)
        if life.space in self.kernel_rows:
            live = np.concatenate([live, self.kernel_rows[life.space]])
        last = self.last_clocks.get(life.space, NULL)
        live[:, aspace.DEAD_CLOCK] = NULL if life.ended_clock == NULL else max(life.ended_clock, last)
        if len(live):
            self.pieces.append((life.space, live))
        self.start_brks[life.space] = int(space.totals[aspace.START_BRK])
        self.ended.add(life.space)
        self.states.pop(life.space, None)
        self.kernel_rows.pop(life.space, None)


def _endings(who: Processes, recording: Recording) -> dict[int, list[int]]:
    """Return for each window which spaces end in it: nothing happens in them afterwards, and no child is born."""
    last_steps = who.last_steps(recording.heard)
    born = np.full(len(who.lives), NULL, np.int64)
    for life in who.lives:
        if life.origin == "fork":
            born[life.parent] = max(born[life.parent], life.born_clock)
    endings: dict[int, list[int]] = {}
    for life in who.lives:
        if life.ended_clock != NULL:
            clock = max(life.ended_clock, life.born_clock, int(born[life.space]))
            by_clock = bisect_left(recording.ends, clock)
            by_step = bisect_right(recording.calls.starts, int(last_steps[life.space])) - 1
            endings.setdefault(max(by_clock, by_step), []).append(life.space)
    return endings


def space_copy(space: aspace.Space, clock: int) -> aspace.Space:
    """Return what fork(2) gives a child at `clock`: all mappings but those under MADV_DONTFORK."""
    rows = aspace.live_rows(space)
    rows = rows[(rows[:, aspace.FLAGS] & aspace.DONTFORK) == 0]
    copy = aspace.space_of_rows(_born_at(rows, clock))
    for entry in (aspace.BRK, aspace.START_BRK):
        copy.totals[entry] = space.totals[entry]
    return copy


def _born_at(rows: Int64Array, clock: int) -> Int64Array:
    """Return rows of mappings as a fork at `clock` gives them: born then, made when they were made."""
    rows = rows.copy()
    rows[:, aspace.BORN] = clock
    rows[:, aspace.BORN_STEP] = NULL
    return rows


def _spaces(who: Processes, output: Outcome, start_brks: dict[int, int]) -> Columns:
    lives = who.lives

    def column(values: Sequence[int]) -> Int64Array:
        return np.array(values, np.int64)

    ended = column([life.ended_clock for life in lives])
    return {
        "space": column([life.space for life in lives]),
        "parent": column([life.parent for life in lives]),
        "pid": column([life.pid for life in lives]),
        "program": column([_program_of(lives, life) for life in lives]),
        "origin": column([SPACE_ORIGINS.index(life.origin) for life in lives]),
        "born_line": column([life.born_clock for life in lives]),
        "born_step": column([life.born_step for life in lives]),
        "died_line": ended,
        "ended_by": column([life.ended_by for life in lives]),
        "died_step": np.where(ended == NULL, NULL, output.steps_at(ended)),
        "start_brk": column([brk if brk > 0 else NULL for brk in (start_brks.get(life.space, NULL) for life in lives)]),
    }


def _program_of(lives: Sequence[SpaceLife], life: SpaceLife) -> int:
    """Return the program of a space: that of its exec, or what its parent ran when it forked."""
    while life.program == NO_TEXT and life.origin == "fork" and life.parent != NULL:
        life = lives[life.parent]
    return life.program
