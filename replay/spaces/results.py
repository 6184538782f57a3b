"""What the replay of a run's windows gives, as columns: events, regions, brk calls, changes of spaces, contradictions.

In go records as `address_space` writes them, window by window, out come packed columns. How the spaces are run is not
known here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.table import COLUMNS, OK
from replay.calls.windows import CallWindows
from replay.engine.column_store import Packed, PackedColumns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.records import Records, columns_of
from replay.engine.sorting import distinct
from replay.engine.structs import Value
from replay.linux.constants import CALL_CODE
from replay.mm import fields
from replay.mm.fields import ABOVE_BREAK, OpCode
from replay.spaces.call_effects import OperationRows
from replay.spaces.call_window import CallWindow
from replay.spaces.first_moments import FirstMoments, Ranges
from replay.spaces.processes import SpaceLife
from replay.spaces.resting import WORTH_SHARING, Inherited

BEFORE_TRACE: Final = -1
"""The step of whatever was there before the trace began."""

DIVERGENCES: Final = {
    fields.MAP_OVER_MAPPING: "divergence_map_over_mapping",
    fields.BRK_OVER_MAPPING: "divergence_brk_over_mapping",
    fields.REMAP_OVER_MAPPING: "divergence_remap_over_mapping",
    fields.BRK_MOVED: "divergence_brk_moved",
    fields.IMPOSSIBLE_RANGE: "divergence_impossible_range",
}
"""The contradictions between trace and model that are reported, by their names in the table of problems."""

_MUNMAP: Final = CALL_CODE["munmap"]

_IS_REPORTED: Final = np.array([code in DIVERGENCES for code in range(fields.IMPOSSIBLE_RANGE + 1)])
"""The same for each code, that of no contradiction among them."""

_OF_MAPPING: Final = (
    "prot", "shared", "kind", "path", "backing", "offset", "origin", "flags", "made_line", "made_step",
)  # fmt: skip

_REGIONS: Final = ("space", "start", "end", "born_step", "died_step", "born_line", "died_line", *_OF_MAPPING)

_OF_ABOVE: Final = {f"above_{name}": name for name in ABOVE_BREAK.names or () if name != "data_bytes"}

_BRKS: Final = (
    "step", "space", "tid", "line", "before", "requested", "granted", "total_bytes", "mapping_count", "headroom",
    "data_bytes", *_OF_ABOVE, "rlim_data", "rlim_as",
)  # fmt: skip

_OF_CHANGE: Final = (
    "mapped_bytes", "mapping_count", "brk_bytes", "headroom_bytes", "gap_count", "gap_bytes", "largest_gap_bytes",
)  # fmt: skip

_QUIET: Final = (OpCode.MARK, OpCode.NAME, OpCode.REMAP_TAKE, OpCode.DELETED)
_IS_TOLD: Final = np.array([code not in _QUIET for code in OpCode])
"""For each operation whether it is a change of the space that the table of changes has."""


class WindowResult(Value):
    """What became of the operations of a window.

    `changes` has a row for each operation, `above_break` one for each brk call; `limits` are those at the brk calls.
    """

    window: CallWindow
    rows: OperationRows
    changes: Records
    above_break: Records
    limits: Int64Array


class ReplayColumns:
    """The columns of a run as they grow; texts as ids."""

    def __init__(self, windows: CallWindows, lives: Sequence[SpaceLife]) -> None:
        """Begin empty."""
        shelf = windows.shelf
        self.windows = windows
        self.events = PackedColumns(shelf, (*COLUMNS, "step", "tid", "space"))
        self.brks = PackedColumns(shelf, _BRKS)
        self.changes = PackedColumns(shelf, ("step", "line", "space", *_OF_CHANGE))
        self.regions = PackedColumns(shelf, _REGIONS)
        self._until: list[int] = []
        self._shared_rows: Records | None = None
        self._shared: dict[str, Packed] = {}
        self._divergences: list[dict[str, Int64Array]] = []
        self._taken_early = np.zeros((2, 0), np.int64)
        found = np.array([life.origin == "found" for life in lives] or [True])
        self._births = np.where(found, NULL, [life.born_clock for life in lives] or [NULL])
        self.birth_steps = self._first_steps(lives)
        self._steps_of_births = np.where(found, BEFORE_TRACE, self.birth_steps)

    def _first_steps(self, lives: Sequence[SpaceLife]) -> Int64Array:
        """Return the step at which each space begins: that of its first line, it may be before its call completes."""
        steps = np.array([life.born_step for life in lives] or [0], np.int64)
        clocks = np.array([life.born_clock for life in lives] or [NULL], np.int64)
        return np.minimum(steps, self.steps_at(clocks))

    def keep_events(self, number: int, window: CallWindow) -> None:
        """Keep the calls of a window with their threads and spaces; those that complete later are in a later one."""
        own = slice(self.windows.calls.starts[number + 1] - self.windows.calls.starts[number])
        told = {"step": window.steps[own], "tid": window.tids[own], "space": window.spaces[own]}
        if window.paths is not window.calls.path:
            told["path"] = window.paths[own]
        self.events.append(told, self.windows.calls.packed(number))

    def keep_regions(
        self, pieces: Sequence[tuple[int, Records]], inherited: Sequence[tuple[int, Inherited, int]]
    ) -> None:
        """Keep regions that came to their end, from rectangles by space, and those inherited, which died at a line."""
        few = []
        for space, shared, died in inherited:
            if shared.rows_left < WORTH_SHARING:
                few.append((space, shared.copied()))
                few[-1][1]["died_line"] = died
            elif shared.born != died:
                self._keep_inherited(space, shared, died)
        self._keep_pieces([*pieces, *few])

    def _keep_inherited(self, space: int, shared: Inherited, died: int) -> None:
        """Keep the regions of a child as those of its parent, with a space, a beginning and an end of their own."""
        if shared.rows is not self._shared_rows:
            put, columns = self.regions.shelf.put, columns_of(shared.rows)
            self._shared_rows = shared.rows
            self._shared = {name: put(columns[name]) for name in ("start", "end", *_OF_MAPPING)}
        died_step = int(self.steps_at(np.array([died]))[0])
        ends = died != NULL and died_step != self.windows.calls.rows
        told = {
            "space": space,
            "born_step": self._steps_of_births[space],
            "died_step": died_step if ends else NULL,
            "born_line": shared.born,
            "died_line": died,
        }
        for start, end in shared.spans:
            columns = {name: np.broadcast_to(np.int64(value), end - start) for name, value in told.items()}
            self.regions.append(columns, {name: packed.part(start, end) for name, packed in self._shared.items()})
            self._until.append(self.events.parts - 1)

    def _keep_pieces(self, pieces: Sequence[tuple[int, Records]]) -> None:
        """Keep regions from rectangles by space."""
        if not pieces:
            return
        spaces = np.repeat([space for space, _ in pieces], [len(rows) for _, rows in pieces]).astype(np.int64)
        rows = columns_of(*(rows for _, rows in pieces))
        self._place_inferred(rows, spaces)
        born, born_step = self._placed(rows, spaces)
        died = rows["died_line"]
        died_step = self.steps_at(died)
        columns = {
            "space": spaces,
            "start": rows["start"],
            "end": rows["end"],
            "born_step": born_step,
            "died_step": np.where((died == NULL) | (died_step == self.windows.calls.rows), NULL, died_step),
            "born_line": born,
            "died_line": died,
        } | {name: rows[name] for name in _OF_MAPPING}
        seen = (born != died) | (died == NULL)  # what was gone at the line at which it came is in no state
        self.regions.append(columns if seen.all() else {name: column[seen] for name, column in columns.items()})
        self._until.append(self.events.parts - 1)

    def _place_inferred(self, rows: dict[str, Int64Array], spaces: Int64Array) -> None:
        """Let inferred mappings of which no line tells the beginning begin where their addresses were last free."""
        unborn = np.flatnonzero((rows["origin"] == fields.ORIGIN_INFERRED) & (rows["born_line"] == NULL))
        if not len(unborn):
            return
        ranges = Ranges(spaces, rows["start"], rows["end"], rows["died_line"])
        moments = FirstMoments(Ranges(*(column[unborn] for column in ranges)))
        moments.hear(ranges)
        first = bisect_left(self.windows.ends, int(self._births[spaces[unborn]].min()))
        for number in range(self.regions.parts - 1, -1, -1):
            if self._until[number] < first:
                break
            part = self.regions.part(number, ["space", "start", "end", "died_line"])
            moments.hear(Ranges(part["space"], part["start"], part["end"], part["died_line"]))
        for number in range(first, self.events.parts):
            part = self.events.part(number, ["call", "status", "space", "addr", "length", "entry_clock"])
            unmaps = np.flatnonzero((part["call"] == _MUNMAP) & (part["status"] == OK) & (part["length"] > 0))
            space, start, length, clock = (part[name][unmaps] for name in ("space", "addr", "length", "entry_clock"))
            moments.hear(Ranges(space, start, start + length, clock))
        lines = moments.lines()
        told = lines != NULL
        rows["born_line"][unborn[told]] = lines[told]
        rows["born_step"][unborn[told]] = self.steps_at(lines[told])

    def steps_at(self, clocks: Int64Array) -> Int64Array:
        """Return for each clock the first step that completed then or later; there may be none of that number."""
        windows = self.windows
        steps = np.full(len(clocks), windows.calls.rows, np.int64)
        numbers = np.searchsorted(windows.ends, clocks)
        for number in distinct(numbers).tolist():
            if number < windows.calls.parts:
                chosen = numbers == number
                completed = windows.calls.part(number, ["clock"])["clock"]
                steps[chosen] = np.searchsorted(completed, clocks[chosen]) + windows.calls.starts[number]
        return steps

    def _placed(self, rows: Columns, spaces: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return line and step of the births; regions that an execve or a fork made have those of that call."""
        clocks, steps = rows["born_line"], rows["born_step"]
        unborn = clocks == NULL
        made_by_space = unborn | (steps == NULL)
        if made_by_space.any():
            clocks = np.where(unborn, self._births[spaces], clocks)
            steps = np.where(made_by_space, self._steps_of_births[spaces], steps)
        early, first = self._taken_early
        if len(early):  # what was not taken goes on at the step at which the rectangle before it ended
            at = np.minimum(np.searchsorted(early, clocks), len(early) - 1)
            steps = np.where((early[at] == clocks) & (steps > first[at]), first[at], steps)
        seeded = (rows["origin"] == fields.ORIGIN_MAPS) & (rows["born_step"] == BEFORE_TRACE)
        return clocks, np.where(seeded, BEFORE_TRACE, steps) if seeded.any() else steps

    def keep_changes(self, ran: WindowResult) -> None:
        """Keep what the operations of a window changed and contradicted, and what lay above the break."""
        self._keep_early(ran.rows.early)
        operations, changes = ran.rows.operations, columns_of(ran.changes)
        code, step, clock = (np.ascontiguousarray(operations[name]) for name in ("code", "step", "clock"))
        is_brk = code == OpCode.BRK
        if is_brk.any():
            self.brks.append(_brks(ran, is_brk))
        moved = changes["brk_before"] != changes["brk_after"]
        kept = np.where(is_brk, moved, _IS_TOLD[code])
        told = {"step": step, "line": clock, "space": ran.rows.spaces}
        numbers = {name: changes[name] for name in _OF_CHANGE}
        self.changes.append({name: column[kept] for name, column in (told | numbers).items()})
        code = changes["divergence"]
        contradicts = _IS_REPORTED[code]
        if contradicts.any():
            self._divergences.append({name: column[contradicts] for name, column in (told | {"code": code}).items()})

    def _keep_early(self, early: Int64Array) -> None:
        """Keep the lines at which calls took memory before they completed, each with the first step from there on."""
        if len(early):
            told = np.stack([early, self.steps_at(early)])
            self._taken_early = np.concatenate([self._taken_early, told], axis=1)

    @property
    def divergences(self) -> Columns:
        """Return the contradictions between trace and model."""
        none = np.zeros(0, np.int64)
        names = ("step", "line", "space", "code")
        return {name: np.concatenate([none, *(part[name] for part in self._divergences)]) for name in names}


def _brks(ran: WindowResult, chosen: NDArray[np.bool_]) -> Columns:
    """Return the brk calls of a window with what lay above the break."""
    operations, changes, sources = ran.rows.operations[chosen], ran.changes[chosen], ran.rows.sources[chosen]
    above_break = ran.above_break[operations["brk_call"]]
    nothing_above = above_break["start"] == NULL
    columns = {
        "step": operations["step"],
        "space": ran.rows.spaces[chosen],
        "tid": ran.window.tids[sources],
        "line": ran.window.calls.line[sources],
        "before": changes["brk_before"],
        "requested": operations["addr"],
        "granted": operations["result"],
        "total_bytes": changes["mapped_bytes"],
        "mapping_count": changes["mapping_count"],
        "headroom": changes["headroom_bytes"],
        "data_bytes": above_break["data_bytes"],
        "rlim_data": ran.limits[:, 0],
        "rlim_as": ran.limits[:, 1],
    }
    for column, name in _OF_ABOVE.items():
        columns[column] = np.where(nothing_above, NO_TEXT if name == "path" else NULL, above_break[name])
    return columns
