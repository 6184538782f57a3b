"""The curves under the picture: what each space holds from line to line, few enough points for a page.

In go the table `fragmentation` and the mappings of a run, out come step functions: from a clock on a value holds. A
curve with more points than a page can show is kept by its first, lowest, highest and last value in each of many
stretches.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from replay.engine.columns import NULL, Columns, Int64Array
from replay.engine.sorting import ascending, distinct
from replay.html.trace_rows import CLASSES
from replay.html.trace_tables import TraceTables, ints

MOST_POINTS: Final = 4000
"""So many points a curve has at most."""

MOST_SPACES: Final = 100
"""Of so many spaces, the largest ones, the page has curves."""

RATIO: Final = 1_000_000
"""A ratio is kept as millionths."""

_COLUMNS: Final = (
    "mapping_count headroom_bytes brk_bytes largest_gap_bytes address_fragmentation "
    "live_bytes heap_bytes free_bytes unseen_bytes pinned_bytes heap_fragmentation"
).split()
_OF_HEAP: Final = _COLUMNS[_COLUMNS.index("live_bytes") :]


def curves(tables: TraceTables, mapped: Columns, colours: Int64Array) -> tuple[list[list[Any]], Int64Array, Int64Array]:
    """Return the curves' `[space, name, points, whole]`, and the clocks and values of them all, one behind the other.

    `mapped` are the mappings, `colours` the class of each; the curves `mapped: CLASS` are their bytes in pages.
    """
    facts: list[list[Any]] = []
    clocks, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]

    def add(space: int, name: str, clock: Int64Array, value: Int64Array) -> None:
        kept = _seen(clock, value)
        whole = len(kept) <= MOST_POINTS
        kept = kept if whole else kept[extremes(value[kept], MOST_POINTS // 4)]
        if len(kept):
            facts.append([space, name, len(kept), int(whole)])
            clocks.append(clock[kept])
            values.append(value[kept])

    largest = _largest(np.concatenate([mapped["space"], ints(tables.table("fragmentation"), "space")]))
    for space in largest:
        for code, clock, pages in _by_class(space, mapped, colours):
            add(space, f"mapped: {CLASSES[code]}", clock, pages)
    mapping = set(mapped["space"].tolist())
    _add_changes(tables, add, {space: space in mapping for space in largest})
    return facts, np.concatenate(clocks), np.concatenate(values)


def _add_changes(tables: TraceTables, add: Any, spaces: dict[int, bool]) -> None:
    """Add the curves of spaces that may have mappings in the log; of one that has none those of its heap alone."""
    changes = tables.table("fragmentation")
    of_space, clock = ints(changes, "space"), ints(changes, "line")
    order = ascending(of_space)
    numbers, firsts = np.unique(of_space[order], return_index=True)
    groups = dict(zip(numbers.tolist(), np.split(order, firsts[1:]), strict=False))
    for name in _COLUMNS:
        if name not in changes.column_names:
            continue
        column = _values(changes, name)
        for space in sorted(spaces.keys() & groups.keys()):
            if not spaces[space] and name not in _OF_HEAP:
                continue
            rows = groups[space]
            known = rows[column[rows] != NULL]
            add(space, name, clock[known], column[known])


def _values(changes: Any, name: str) -> Int64Array:
    if not name.endswith("fragmentation"):
        return ints(changes, name)
    ratio = changes[name].to_numpy().astype(np.float64)
    millionths: Int64Array = np.where(np.isnan(ratio), NULL, np.nan_to_num(ratio) * RATIO).astype(np.int64)
    return millionths


def _largest(spaces: Int64Array) -> list[int]:
    """Return the spaces of the most mappings and changes, at most `MOST_SPACES`, by number."""
    counts = np.bincount(spaces)
    return sorted(np.argsort(-counts, kind="stable")[: min(MOST_SPACES, np.count_nonzero(counts))].tolist())


def _by_class(space: int, mapped: Columns, colours: Int64Array) -> Any:
    """Yield for each class of a space the clocks at which its pages change, and how many they are from then on."""
    mine = mapped["space"] == space
    for code in range(len(CLASSES)):
        rows = np.flatnonzero(mine & (colours == code))
        if not len(rows):
            continue
        ended = rows[mapped["died"][rows] > 0]
        clock = np.concatenate([mapped["born"][rows], mapped["died"][ended]])
        change = np.concatenate([mapped["size"][rows], -mapped["size"][ended]])
        order = ascending(clock)
        clock, pages = clock[order], np.cumsum(change[order])
        last = np.append(clock[1:] != clock[:-1], True)
        yield code, clock[last], pages[last]


def _seen(clock: Int64Array, value: Int64Array) -> Int64Array:
    """Return the rows at which a curve takes another value, of several at one clock the last."""
    if not len(clock):
        return np.zeros(0, np.int64)
    rows = np.flatnonzero(np.append(clock[1:] != clock[:-1], True))
    seen: Int64Array = rows[np.append(True, value[rows][1:] != value[rows][:-1])]
    return seen


def extremes(value: Int64Array, stretches: int) -> Int64Array:
    """Return the first, the lowest, the highest and the last row of each of so many stretches of a curve."""
    if not len(value):
        return np.zeros(0, np.int64)
    first = distinct(np.arange(stretches) * len(value) // stretches)
    last = np.append(first[1:], len(value)) - 1
    lowest = _where(value, np.minimum.reduceat(value, first), first, last)[0]
    highest = _where(value, np.maximum.reduceat(value, first), first, last)[1]
    return distinct(np.concatenate([first, last, lowest, highest]))


def _where(value: Int64Array, wanted: Int64Array, first: Int64Array, last: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the first and the last row in each stretch that has its wanted value."""
    rows = np.flatnonzero(value == np.repeat(wanted, last - first + 1))
    return rows[np.searchsorted(rows, first)], rows[np.searchsorted(rows, last, side="right") - 1]
