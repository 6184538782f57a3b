"""The replay: calls drive the address spaces, and rectangles come out.

In go the calls of a run, out come the regions (addresses x lines), what each brk call met, and how each space changed.
Of allocators and reports this module knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np

from replay import address_space as aspace
from replay import constants, openfiles, processes, verbs
from replay.calls import Calls
from replay.columns import NO_TEXT, NULL, Int64Array, Strings, to_signed
from replay.compiled import compiled, is_compiled, is_loaded
from replay.maps import Mapping, prot_of
from replay.processes import Processes, SpaceLife

Columns: TypeAlias = dict[str, Int64Array]

_Changes: TypeAlias = tuple[Int64Array, Int64Array, Int64Array]
"""Changes of spaces in the order of lines, with the rows of verbs that made them and the spaces."""

SPACE_ORIGINS: Final = ("found", "exec", "fork")
"""How a space began, see `processes.SpaceLife`; the codes of the column `origin` of the spaces are places here."""

ORIGIN_FORK: Final = SPACE_ORIGINS.index("fork")

BEFORE_TRACE: Final = -1
"""The step of whatever was there before the trace began."""

WORTH_LOADING: Final = 3_000
"""Rows of verbs from which on loading the compiled loop costs less than interpreting them. Heuristic, measured."""

WORTH_COMPILING: Final = 60_000
"""The same for compiling it first, which happens once on a machine. Heuristic, measured."""

DIVERGENCES: Final = {
    aspace.MAP_OVER_MAPPING: "divergence_map_over_mapping",
    aspace.BRK_OVER_MAPPING: "divergence_brk_over_mapping",
    aspace.REMAP_OVER_MAPPING: "divergence_remap_over_mapping",
    aspace.BRK_MOVED: "divergence_brk_moved",
}
"""The contradictions between trace and model that are reported, by their names in the table of problems."""

_CODE = constants.CALL_CODE
_QUIET_VERBS: Final = (aspace.VERB_ADVISE_FORK, aspace.VERB_NAME, aspace.VERB_REMAP_TAKE, aspace.VERB_DELETED)


@dataclass(slots=True)
class Replay:
    """What the replay of a run gives; all columns int64, texts as ids.

    events: one row a step. regions: one row a rectangle. brks: one row a completed brk call. changes: one row a change
    of a space. divergences: one row a contradiction. spaces: one row an address space.
    """

    events: Columns
    regions: Columns
    brks: Columns
    changes: Columns
    divergences: Columns
    spaces: Columns
    strings: Strings
    page_size: int
    threads: int
    processes: int
    last_clock: int


@dataclass(slots=True)
class _Output:
    """What the spaces of a run have given so far, in pieces."""

    regions: list[Int64Array] = field(default_factory=list)
    region_spaces: list[Int64Array] = field(default_factory=list)
    changes: list[Int64Array] = field(default_factory=list)
    change_rows: list[Int64Array] = field(default_factory=list)
    change_spaces: list[Int64Array] = field(default_factory=list)
    met: Int64Array = field(default_factory=lambda: np.zeros((0, aspace.MET_WIDTH), np.int64))


def replay(
    calls: Calls,
    strings: Strings,
    page: int = 4096,
    initial: Sequence[Mapping] = (),
    forked: frozenset[int] = frozenset(),
) -> Replay:
    """Return what becomes of every address space of a run.

    `initial` are the mappings of the first space when the trace began (or, for a traced start, of the fresh image).
    A thread that no call of the log made shares a space; if the replay then contradicts it, it is replayed as a copy.
    """
    who = processes.assign(calls, forked)
    result = _replay_with(calls, who, strings, page, initial)
    suspects = _contradicted(result, who)
    if suspects - forked:
        other = replay(calls, strings, page, initial, forked | suspects)
        if len(other.divergences["step"]) < len(result.divergences["step"]):
            return other
    return result


def _contradicted(result: Replay, who: Processes) -> frozenset[int]:
    """Return the threads that were only guessed to share a space in which contradictions then arose."""
    if not who.guessed_tids or not len(result.divergences["step"]):
        return frozenset()
    spaces = set(result.events["space"][result.divergences["step"]].tolist())
    events = result.events
    guilty = set()
    for tid in who.guessed_tids:
        at = np.flatnonzero(events["tid"] == tid)
        if at.size and int(events["space"][at[0]]) in spaces:
            guilty.add(tid)
    return frozenset(guilty)


def _replay_with(calls: Calls, who: Processes, strings: Strings, page: int, initial: Sequence[Mapping]) -> Replay:
    steps = np.cumsum(calls.call < constants.PSEUDO) - 1
    paths = openfiles.mapped_paths(calls, who, strings)
    rows = verbs.rows_of_verbs(calls, who, steps, paths, strings, page)
    brks = int((rows.values[:, aspace.ROW_VERB] == aspace.VERB_BRK).sum())
    output = _Output(met=np.full((brks, aspace.MET_WIDTH), NULL, np.int64))
    runner = _Runner(rows, who, output, strings, page, initial)
    runner.run_all(int(calls.clock.max(initial=0)))
    events = _events(calls, who, paths)
    in_order = _in_order(output)
    real = calls.call < constants.PSEUDO
    return Replay(
        events=events,
        regions=_regions(output, calls.clock[real], who, steps),
        brks=_brks(output, in_order, rows, calls, who),
        changes=_changes(in_order, rows),
        divergences=_divergences(in_order, rows),
        spaces=_spaces(who, steps, calls, runner.start_brks),
        strings=strings,
        page_size=page,
        threads=who.threads,
        processes=who.processes,
        last_clock=int(calls.clock.max(initial=0)),
    )


# --- running the spaces ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Runner:
    """Runs the verbs of each space, parents first, and hands children a copy at the moment of their fork."""

    rows: verbs.VerbRows
    who: Processes
    output: _Output
    strings: Strings
    page: int
    initial: Sequence[Mapping]
    copies: dict[int, aspace.Space] = field(default_factory=dict)
    kernel_rows: dict[int, Int64Array] = field(default_factory=dict)
    start_brks: dict[int, int] = field(default_factory=dict)

    def run_all(self, last_clock: int) -> None:
        """Run every space to its end."""
        order = np.argsort(self.rows.spaces, kind="stable")
        sorted_spaces = self.rows.spaces[order]
        children: dict[int, list[SpaceLife]] = {}
        for life in self.who.lives:
            if life.origin == "fork":
                children.setdefault(life.parent, []).append(life)
        for life in self.who.lives:
            low, high = np.searchsorted(sorted_spaces, [life.space, life.space + 1])
            forks = sorted(children.get(life.space, ()), key=lambda child: child.born_clock)
            self._run_space(life, order[low:high], forks)

    def _run_space(self, life: SpaceLife, chosen: Int64Array, forks: Sequence[SpaceLife]) -> None:
        space = self._first_state(life)
        whole = len(chosen) == len(self.rows.values)
        values = self.rows.values if whole else self.rows.values[chosen]
        changes = np.empty((len(values), aspace.CHANGE_WIDTH), np.int64)
        done = 0
        for child in forks:
            until = int(np.searchsorted(values[:, aspace.ROW_CLOCK], child.born_clock, side="left"))
            space = self._apply(space, life, values[done:until], changes[done:until])
            done = max(done, until)
            self.copies[child.space] = space_copy(space, child.born_clock)
            if life.space in self.kernel_rows:
                self.kernel_rows[child.space] = _born_at(self.kernel_rows[life.space], child.born_clock)
        space = self._apply(space, life, values[done:], changes[done:])
        if len(values):
            self.output.changes.append(changes)
            self.output.change_rows.append(chosen)
            self.output.change_spaces.append(np.full(len(chosen), life.space))
        self.start_brks[life.space] = int(space.totals[aspace.START_BRK])
        last = int(values[-1, aspace.ROW_CLOCK]) if len(values) else NULL
        self._write_live(space, life, last)

    def _first_state(self, life: SpaceLife) -> aspace.Space:
        space = self.copies.pop(life.space, None)
        if space is not None:
            return space
        space = aspace.empty_space()
        if life.space == 0 and self.initial:
            rows = seeded_rows(self.initial, self.strings, life.born_clock if life.origin == "exec" else NULL)
            space = seeded_space(rows, self.initial)
            self.kernel_rows[life.space] = rows[rows[:, aspace.DEAD_START] < 0]
        if life.fresh and space.totals[aspace.START_BRK] == NULL:
            space.totals[aspace.START_BRK] = aspace.FRESH
        return space

    def _apply(self, space: aspace.Space, life: SpaceLife, rows: Int64Array, changes: Int64Array) -> aspace.Space:
        """Run `rows`, growing the arrays where they fill up, and keep the rectangles that ended."""
        run = _runner_for(len(self.rows.values))
        done = 0
        while done < len(rows):
            room = 2 * int(space.totals[aspace.MAPPINGS]) + 4 * min(len(rows) - done, 1 << 16) + 4 * aspace.LEAF
            dead = np.empty((room, aspace.DEAD_WIDTH), np.int64)
            before = done
            done, count = run(space, rows, done, dead, 0, changes, self.output.met, self.page)
            if count:
                self.output.regions.append(dead[:count].copy())
                self.output.region_spaces.append(np.full(count, life.space))
            if done == before:
                space = aspace.grown(space)
        return space

    def _write_live(self, space: aspace.Space, life: SpaceLife, last: int) -> None:
        """Write out what is alive when the space ends, or at the end of the log."""
        live = aspace.live_rows(space)
        if life.space in self.kernel_rows:
            live = np.concatenate([live, self.kernel_rows[life.space]])
        ended = life.ended_clock
        live[:, aspace.DEAD_CLOCK] = NULL if ended == NULL else max(ended, last)
        if len(live):
            self.output.regions.append(live)
            self.output.region_spaces.append(np.full(len(live), life.space))


def _runner_for(rows: int) -> Callable[..., tuple[int, int]]:
    """Return what applies that many rows of verbs fastest: `address_space.run` itself, or the same compiled."""
    if not is_loaded(aspace.run) and (
        rows < WORTH_LOADING or (rows < WORTH_COMPILING and not is_compiled(aspace.run))
    ):
        return aspace.run
    return compiled(aspace.run, aspace.HELPERS, allocates=False)  # type: ignore[no-any-return]


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


def seeded_rows(initial: Sequence[Mapping], strings: Strings, clock: int) -> Int64Array:
    """Return rows (as `address_space.live_rows`) of the mappings of a maps file, there since line `clock`."""
    rows = np.full((len(initial), aspace.DEAD_WIDTH), NULL, np.int64)
    for row, mapping in zip(rows, initial, strict=True):
        is_file = mapping.path.startswith("/")
        row[aspace.PROT] = prot_of(mapping.perms)
        row[aspace.SHARED] = mapping.perms.endswith("s")
        row[aspace.KIND] = _kind_of(mapping)
        row[aspace.PATH] = strings.intern(mapping.path) if mapping.path else NO_TEXT
        row[aspace.OFFSET] = mapping.offset if is_file else NULL
        row[aspace.ORIGIN] = aspace.ORIGIN_MAPS
        row[aspace.MADE_STEP] = row[aspace.BORN_STEP] = BEFORE_TRACE
        row[aspace.BORN] = clock
        row[aspace.FLAGS] = aspace.MAP_GROWSDOWN if mapping.path == "[stack]" else 0
        named = is_file or (mapping.path and mapping.path != "[heap]")
        row[aspace.BACKING] = row[aspace.PATH] if named else NO_TEXT
        row[aspace.DEAD_START], row[aspace.DEAD_END] = to_signed(mapping.start), to_signed(mapping.end)
    return rows


def seeded_space(rows: Int64Array, initial: Sequence[Mapping]) -> aspace.Space:
    """Return a space that holds the user's part of `rows`; [heap] tells the break up to its page."""
    space = aspace.space_of_rows(rows[rows[:, aspace.DEAD_START] >= 0], 2 * aspace.LEAF)
    heap = [mapping for mapping in initial if mapping.path == "[heap]"]
    if heap:
        space.totals[aspace.START_BRK], space.totals[aspace.BRK] = heap[0].start, heap[-1].end
    return space


def _kind_of(mapping: Mapping) -> int:
    if mapping.path == "[heap]":
        return aspace.KIND_BRK
    if mapping.path.startswith("[stack"):
        return aspace.KIND_STACK
    if mapping.path.startswith("[v"):
        return aspace.KIND_SPECIAL
    if mapping.path.startswith(("/SYSV", "/dev/zero (deleted)")):
        return aspace.KIND_SHM
    return aspace.KIND_FILE if mapping.path.startswith("/") else aspace.KIND_ANON


# --- columns out of pieces -------------------------------------------------------------------------------------------


def _joined(pieces: Sequence[Int64Array], width: int) -> Int64Array:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.zeros((0, width) if width else 0, np.int64)


def _events(calls: Calls, who: Processes, paths: Int64Array) -> Columns:
    real = calls.call < constants.PSEUDO
    events = {name: getattr(calls, name)[real] for name in calls.__slots__}
    events["path"] = paths[real]
    events["space"], events["tid"] = who.spaces[real], who.tids[real]
    events["step"] = np.arange(len(events["space"]))
    return events


def _regions(output: _Output, step_clocks: Int64Array, who: Processes, steps: Int64Array) -> Columns:
    rows = _joined(output.regions, aspace.DEAD_WIDTH)
    spaces = _joined(output.region_spaces, 0)
    born_clock, born_step = rows[:, aspace.BORN].copy(), rows[:, aspace.BORN_STEP].copy()
    _place_births(rows, spaces, who, steps, born_clock, born_step)
    died = rows[:, aspace.DEAD_CLOCK]
    died_step = np.searchsorted(step_clocks, died, side="left").astype(np.int64)
    died_step[died == NULL] = NULL
    died_step[died_step == len(step_clocks)] = NULL
    columns = {
        "space": spaces,
        "start": rows[:, aspace.DEAD_START],
        "end": rows[:, aspace.DEAD_END],
        "prot": rows[:, aspace.PROT],
        "shared": rows[:, aspace.SHARED],
        "kind": rows[:, aspace.KIND],
        "path": rows[:, aspace.PATH],
        "backing": rows[:, aspace.BACKING],
        "offset": rows[:, aspace.OFFSET],
        "origin": rows[:, aspace.ORIGIN],
        "flags": rows[:, aspace.FLAGS],
        "born_step": born_step,
        "died_step": died_step,
        "born_line": born_clock,
        "died_line": died,
        "made_line": rows[:, aspace.MADE],
        "made_step": rows[:, aspace.MADE_STEP],
    }
    order = np.lexsort((columns["start"], columns["born_line"], columns["space"]))
    return {name: column[order] for name, column in columns.items()}


def _place_births(
    rows: Int64Array, spaces: Int64Array, who: Processes, steps: Int64Array, clocks: Int64Array, born_steps: Int64Array
) -> None:
    """Give regions that an execve or a fork made the line and step of that call."""
    births = np.array([life.born_clock if life.origin != "found" else NULL for life in who.lives] or [NULL], np.int64)
    origin_steps = np.array(
        [int(steps[life.born_row]) if life.origin != "found" else BEFORE_TRACE for life in who.lives] or [0], np.int64
    )
    unborn = clocks == NULL
    clocks[unborn] = births[spaces[unborn]]
    made_by_space = unborn | (born_steps == NULL)
    born_steps[made_by_space] = origin_steps[spaces[made_by_space]]
    seeded = rows[:, aspace.ORIGIN] == aspace.ORIGIN_MAPS
    born_steps[seeded & (rows[:, aspace.BORN_STEP] == BEFORE_TRACE)] = BEFORE_TRACE


def _in_order(output: _Output) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return changes, their verb rows and spaces, in the order of lines."""
    changes = _joined(output.changes, aspace.CHANGE_WIDTH)
    chosen, spaces = _joined(output.change_rows, 0), _joined(output.change_spaces, 0)
    if len(output.changes) == 1:
        return changes, chosen, spaces
    order = np.argsort(chosen, kind="stable")
    return changes[order], chosen[order], spaces[order]


def _brks(output: _Output, in_order: _Changes, rows: verbs.VerbRows, calls: Calls, who: Processes) -> Columns:
    changes, chosen, spaces = in_order
    values = rows.values[chosen]
    is_brk = values[:, aspace.ROW_VERB] == aspace.VERB_BRK
    changes, values, spaces, sources = changes[is_brk], values[is_brk], spaces[is_brk], rows.sources[chosen][is_brk]
    limits = rows.limits[chosen][is_brk]
    met = output.met[values[:, aspace.ROW_BRK]]
    columns = {
        "step": values[:, aspace.ROW_STEP],
        "space": spaces,
        "tid": who.tids[sources],
        "line": calls.line[sources],
        "before": changes[:, aspace.CHANGE_BRK_BEFORE],
        "requested": values[:, aspace.ROW_ADDR],
        "granted": values[:, aspace.ROW_RESULT],
        "total_bytes": changes[:, aspace.CHANGE_BYTES],
        "data_bytes": met[:, aspace.MET_DATA_BYTES],
        "mapping_count": changes[:, aspace.CHANGE_MAPPINGS],
        "headroom": changes[:, aspace.CHANGE_HEADROOM],
        "above_start": met[:, aspace.MET_START],
        "above_end": met[:, aspace.MET_END],
        "above_line": met[:, aspace.MET_MADE],
        "above_prot": met[:, aspace.MET_PROT],
        "above_path": met[:, aspace.MET_PATH],
        "above_flags": met[:, aspace.MET_FLAGS],
        "above_kind": met[:, aspace.MET_KIND],
        "above_shared": met[:, aspace.MET_SHARED],
        "rlim_data": limits[:, 0],
        "rlim_as": limits[:, 1],
    }
    nothing_above = columns["above_start"] == NULL
    for name in ("above_end", "above_line", "above_prot", "above_path", "above_flags", "above_kind", "above_shared"):
        columns[name][nothing_above] = NO_TEXT if name == "above_path" else NULL
    return columns


def _changes(in_order: _Changes, rows: verbs.VerbRows) -> Columns:
    changes, chosen, spaces = in_order
    values = rows.values[chosen]
    verb = values[:, aspace.ROW_VERB]
    moved = changes[:, aspace.CHANGE_BRK_BEFORE] != changes[:, aspace.CHANGE_BRK_AFTER]
    kept = np.where(verb == aspace.VERB_BRK, moved, ~np.isin(verb, _QUIET_VERBS))
    changes, values, spaces = changes[kept], values[kept], spaces[kept]
    return {
        "step": values[:, aspace.ROW_STEP],
        "line": values[:, aspace.ROW_CLOCK],
        "space": spaces,
        "mapped_bytes": changes[:, aspace.CHANGE_BYTES],
        "mapping_count": changes[:, aspace.CHANGE_MAPPINGS],
        "brk_bytes": changes[:, aspace.CHANGE_BRK_BYTES],
        "headroom_bytes": changes[:, aspace.CHANGE_HEADROOM],
        "gap_count": changes[:, aspace.CHANGE_GAPS],
        "gap_bytes": changes[:, aspace.CHANGE_GAP_BYTES],
        "largest_gap_bytes": changes[:, aspace.CHANGE_LARGEST_GAP],
    }


def _divergences(in_order: _Changes, rows: verbs.VerbRows) -> Columns:
    changes, chosen, spaces = in_order
    code = changes[:, aspace.CHANGE_DIVERGENCE]
    kept = np.isin(code, list(DIVERGENCES))
    values = rows.values[chosen][kept]
    return {
        "step": values[:, aspace.ROW_STEP],
        "line": values[:, aspace.ROW_CLOCK],
        "space": spaces[kept],
        "code": code[kept],
    }


def _spaces(who: Processes, steps: Int64Array, calls: Calls, start_brks: dict[int, int]) -> Columns:
    lives = who.lives

    def column(values: Sequence[int]) -> Int64Array:
        return np.array(values, np.int64)

    clocks = calls.clock[calls.call < constants.PSEUDO]
    ended = column([life.ended_clock for life in lives])
    died = np.searchsorted(clocks, ended, side="left").astype(np.int64)
    died[ended == NULL] = NULL
    return {
        "space": column([life.space for life in lives]),
        "parent": column([life.parent for life in lives]),
        "pid": column([life.pid for life in lives]),
        "program": column([_program_of(lives, life) for life in lives]),
        "origin": column([SPACE_ORIGINS.index(life.origin) for life in lives]),
        "born_line": column([life.born_clock for life in lives]),
        "born_step": column([int(steps[life.born_row]) for life in lives]),
        "died_line": ended,
        "died_step": died,
        "start_brk": column([brk if brk > 0 else NULL for brk in (start_brks.get(life.space, NULL) for life in lives)]),
    }


def _program_of(lives: Sequence[SpaceLife], life: SpaceLife) -> int:
    """Return the program of a space: that of its exec, or what its parent ran when it forked."""
    while life.program == NO_TEXT and life.origin == "fork" and life.parent != NULL:
        life = lives[life.parent]
    return life.program
