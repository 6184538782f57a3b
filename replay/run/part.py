"""A part of a run, for what shows one: the same replay, less what happened before, after or elsewhere.

In go a run and a window, out come a run whose failures, allocator mappings, breaks and changes are those of the window,
and which knows the run it is of; or the rows of its tables. What is mapped, and the blocks of malloc, are those of the
whole run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from replay.engine.column_store import PackedColumns, Shelf, packed_columns
from replay.engine.columns import Columns, Int64Array
from replay.run.window import Window, spaces_of, steps_of

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.run.api import Run

_WHOLE: tuple[str, ...] = ("source", "strings", "clock", "calls_made", "nesting", "malloc_blocks", "heaps", "diagnosis")
"""What a part has of the whole run as it is."""


class Shown(NamedTuple):
    """The steps of a window from `first` to `last`, and the spaces it shows; None: all."""

    first: int
    last: int
    spaces: Int64Array | None
    window: Window

    def rows(self, columns: Columns | PackedColumns) -> Int64Array:
        """Return which rows of columns with `step` and `space` are shown."""
        step = columns["step"]
        shown = (step >= self.first) & (step <= self.last)
        if self.spaces is not None:
            shown &= np.isin(columns["space"], self.spaces)
        return np.flatnonzero(shown)


def shown_by(run: Run, window: Window) -> Shown:
    """Return what a window shows.

    Raises:
        QueryError: the log has no such line, step or time, process or program.
    """
    steps_of(run, window)
    steps = steps_of(run, Window(window.since, window.until))
    ends = (int(steps[0]), int(steps[-1])) if steps.size else (0, -1)
    return Shown(*ends, spaces_of(run, window), window)


def part_of(run: Run, window: Window) -> Run:
    """Return the part of a run that a window shows."""
    shown = shown_by(run, window)
    part = object.__new__(type(run))
    part.__dict__.update({name: getattr(run, name) for name in _WHOLE})
    replayed, activity = run.replayed, run.activity
    part.replayed = replayed._replace(
        brks=_packed(replayed.brks, shown.rows(replayed.brks)),
        changes=_packed(replayed.changes, shown.rows(replayed.changes)),
    )
    failures, mmaps = (
        {name: column[shown.rows(table)] for name, column in table.items()}
        for table in (activity.brk_failures, activity.allocator_mmaps)
    )
    part.__dict__["activity"] = type(activity)(failures, mmaps, activity.allocators)
    part.shown, part.__dict__["whole"] = shown, run
    return part


def _packed(columns: PackedColumns, rows: Int64Array) -> PackedColumns:
    return packed_columns(Shelf(), ((name, columns[name][rows]) for name in columns))


def rows_shown(table: pa.Table, shown: Shown, pid: int | None) -> pa.Table:
    """Return the rows of a table that happened, or lived, in a window; a table of neither is left as it is."""
    import pyarrow.compute as pc

    names, wanted = set(table.column_names), []
    if "step" in names:
        wanted += [pc.field("step") >= shown.first, pc.field("step") <= shown.last]
    if "born_step" in names:
        wanted += [pc.field("born_step") <= shown.last]
        wanted += [pc.field("died_step").is_null() | (pc.field("died_step") >= shown.first)]
    if "space" in names and shown.spaces is not None:
        wanted += [pc.field("space").isin(shown.spaces.tolist())]
    if pid is not None and "parent_step" in names:
        wanted += [pc.field("pid") == pid]
    for condition in wanted:
        table = table.filter(condition)
    return table
