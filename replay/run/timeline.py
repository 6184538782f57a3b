"""The changes of a run's spaces with fewer rows: the table `timeline`, and `fragmentation` thinned.

In go the changes, in order of lines, out come columns. What they mean is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from replay.engine.column_store import PackedColumns, packed_columns
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending
from replay.heap.free_space import fragmentation as heap_fragmentation
from replay.heap.live_bytes import one_space
from replay.tables import CHARTED, TIMELINE_ROWS

if TYPE_CHECKING:
    from replay.run.clock import Clock

_RATIO = "heap_fragmentation"


def timeline_columns(changes: PackedColumns, clock: Clock) -> dict[str, Any]:
    """Return the columns of the table `timeline`: of each bucket of a space's changes the last values and the highest.

    The changes of a space are cut into buckets of as many each, `TIMELINE_ROWS` at most.
    """
    order, first = _by_space(changes["space"])
    rows = np.arange(changes.rows) - np.repeat(first[:-1], np.diff(first))
    counts = np.repeat(np.diff(first), np.diff(first))
    bucket = np.where(counts <= TIMELINE_ROWS, rows, rows * TIMELINE_ROWS // np.maximum(counts, 1))
    begins = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]) | (rows == 0))[: changes.rows]
    ends = np.append(begins[1:], changes.rows)[: len(begins)] - 1

    def sorted_(name: str) -> Int64Array:
        column = changes.unpacked(name) if name in changes else np.broadcast_to(np.int64(NULL), changes.rows)
        return column if order is None else column[order]

    columns: dict[str, Any] = {name: sorted_(name)[ends] for name in ("space", "step", "line")}
    columns["bucket"] = bucket[ends]
    columns |= clock.columns(columns["step"])
    for name in (column.name for column in CHARTED):
        if name == _RATIO:
            names = ("free_bytes", "largest_free_bytes")
            values: Any = heap_fragmentation({of: sorted_(of) for of in names})
        else:
            values = sorted_(name)
        highest = np.fmax if name == _RATIO else np.maximum
        columns[name] = values[ends]
        columns[f"{name}_max"] = highest.reduceat(values, begins) if len(begins) else values
    return columns


def thinned(changes: PackedColumns, every: int) -> PackedColumns:
    """Return the first of every so many changes of each space, and the last one of each."""
    order, first = _by_space(changes["space"])
    rows = np.arange(changes.rows) - np.repeat(first[:-1], np.diff(first))
    kept = rows % every == 0
    kept[first[1:] - 1] = True
    chosen = np.flatnonzero(kept) if order is None else np.sort(order[kept])
    return packed_columns(changes.shelf, ((name, changes.unpacked(name)[chosen]) for name in changes))


def _by_space(space: Int64Array) -> tuple[Int64Array | None, Int64Array]:
    """Return the places of rows by space, None where they are so already, and where each space begins; the end last."""
    if one_space(space):
        return None, np.array([0, len(space)] if len(space) else [0])
    order = ascending(space)
    ordered = space[order]
    return order, np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(space)]])
