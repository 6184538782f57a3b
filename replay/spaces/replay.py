"""The replay: calls drive the address spaces, and rectangles come out.

In go the calls of a run, out come the regions (addresses x lines), what lay above the break at each brk call, and how
each space changed.
Of allocators and reports this module knows nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from replay.calls.table import OK, Calls, concatenated
from replay.calls.windows import CallWindows, call_windows
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Strings
from replay.engine.prefetch import worked_ahead
from replay.engine.progress import Stage, Watch, unwatched
from replay.mm.fields import OpCode
from replay.spaces import call_effects, census, open_files
from replay.spaces.call_window import CallWindow
from replay.spaces.initial_maps import Image, Images, no_images
from replay.spaces.processes import Processes, SpaceLife
from replay.spaces.results import ReplayColumns, WindowResult
from replay.spaces.runner import PreparedWindow, Runner, endings

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
    """Return what becomes of every address space of a run, whose calls come in batches in completion order."""
    return replay_windows(call_windows(batches), strings, page, images, watch)


def replay_windows(
    windows: CallWindows, strings: Strings, page: int, images: Images = no_images, watch: Watch = unwatched
) -> Replay:
    """Return what becomes of every address space of a run that is recorded; a page has `page` bytes.

    `images` tells what was mapped in a space when it began, where that is known.
    A thread that no call of the log made shares a space; if the replay then contradicts it, it is replayed as a copy.
    """
    forked: frozenset[int] = frozenset()
    result, who = _replay_with(windows, forked, strings, page, images, watch)
    while suspects := _contradicted(result, who) - forked:
        forked |= suspects
        other, who = _replay_with(windows, forked, strings, page, images, watch)
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
    windows: CallWindows,
    forked: frozenset[int],
    strings: Strings,
    page: int,
    images: Images,
    watch: Watch,
) -> tuple[Replay, Processes]:
    """Return the replay in which the threads `forked` got copies, and what it took every thread to be."""
    who = census.assign(windows.told, forked)
    known = images(windows, who)
    output = ReplayColumns(windows, who.lives)
    runner = Runner(
        lives=who.lives,
        images=known,
        strings=strings,
        page=page,
        forks=deque(sorted((life for life in who.lives if life.origin == "fork"), key=lambda life: life.born_clock)),
        endings=endings(who, windows),
    )
    # While a thread changes the mappings of one window, the next is made ready, and what became of the last is kept.
    for window, became in worked_ahead(_prepared(windows, who, output, strings, page), runner.run):
        output.keep_changes(WindowResult(window.window, window.rows, became.changes, became.above_break, window.limits))
        output.keep_regions(became.pieces, became.inherited)
        watch(Stage("replaying", window.number + 1, windows.calls.parts))
    ended = runner.end()
    output.keep_regions(ended.pieces, ended.inherited)
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
        last_clock=windows.last_clock,
        images=known,
        who=who,
    )
    return made, who


def _prepared(
    windows: CallWindows, who: Processes, output: ReplayColumns, strings: Strings, page: int
) -> Iterator[PreparedWindow]:
    """Yield the windows of a run with their operations; what is known of their calls is kept in `output`."""
    across = call_effects.across_windows(windows.told, who, strings, page)
    files = open_files.OpenFiles(who.files_parents) if windows.names_files else None
    for number in range(windows.calls.parts):
        window = _window(windows, number, who, files, strings)
        output.keep_events(number, window)
        rows = call_effects.operations_of(window, across)
        brks = rows.sources[rows.operations["code"] == OpCode.BRK]
        yield PreparedWindow(number, window, rows, across.limits.at(window.spaces[brks], window.steps[brks]))


def _window(
    windows: CallWindows, number: int, who: Processes, files: open_files.OpenFiles | None, strings: Strings
) -> CallWindow:
    """Return a window's calls, and behind them those that took memory in it and completed later."""
    calls, first = windows.window(number), windows.calls.starts[number]
    steps = np.arange(first, first + len(calls))
    after, until = [NULL, *windows.ends][number : number + 2]
    entry = windows.early.calls.entry_clock
    taking = (entry > after) & (entry <= until)
    if taking.any():
        calls = concatenated([calls, windows.early.calls.take(taking)])
        steps = np.append(steps, windows.early.step[taking])
    tids = who.tids_of(calls.pid, steps)
    spaces = who.spaces_of(tids, steps)
    paths = calls.path if files is None else open_files.mapped_paths(calls, who.files_of(tids, steps), files, strings)
    return CallWindow(calls, steps, tids, spaces, paths, after, until)


def _spaces(who: Processes, output: ReplayColumns, start_brks: dict[int, int]) -> Columns:
    lives = who.lives
    ended = _ends(who, output)

    def column(values: Sequence[int]) -> Int64Array:
        return np.array(values, np.int64)

    return {
        "space": column([life.space for life in lives]),
        "parent": column([life.parent for life in lives]),
        "pid": column([life.pid for life in lives]),
        "program": column(_programs_of(lives)),
        "origin": column([SPACE_ORIGINS.index(life.origin) for life in lives]),
        "born_line": column([life.born_clock for life in lives]),
        "born_step": output.birth_steps[: len(lives)],
        "died_line": ended,
        "ended_by": column([life.ended_by for life in lives]),
        "died_step": np.where(ended == NULL, NULL, output.steps_at(ended)),
        "start_brk": column([brk if brk > 0 else NULL for brk in (start_brks.get(life.space, NULL) for life in lives)]),
    }


def _ends(who: Processes, output: ReplayColumns) -> Int64Array:
    """Return the line where each space ended, `NULL` where none did.

    That is the line of its last exit or exec; if a later line says that a call in it completed, as in a damaged log, it
    cannot have ended before.
    """
    ended = np.array([life.ended_clock for life in who.lives], np.int64)
    step = np.where(ended == NULL, output.windows.calls.rows, output.steps_at(ended))
    late = who.last_steps(output.windows.heard) >= step
    first = int(step[late].min(initial=output.windows.calls.rows))
    events = output.events
    for number in range(events.parts):
        if events.starts[number + 1] > first:
            part = events.part(number, ("space", "clock", "status"))
            doing = (part["status"] == OK) & (part["space"] >= 0)
            doing[doing] = late[part["space"][doing]]
            np.maximum.at(ended, part["space"][doing], part["clock"][doing])
    return ended


def _programs_of(lives: Sequence[SpaceLife]) -> list[int]:
    """Return the program of each space: that of its exec, or what its parent, which stands before, ran at the fork."""
    programs: list[int] = []
    for life in lives:
        inherits = life.program == NO_TEXT and life.origin == "fork" and life.parent != NULL
        programs.append(programs[life.parent] if inherits else life.program)
    return programs
