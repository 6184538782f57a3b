"""The heap after each change: how much of it is free, the largest free range, and what the topmost block holds back.

In go chunks and the extents of heaps, out come columns for any lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.gap_sweep import NONE, empty_tree, sweep
from replay.engine.sorting import ascending, ascending_by, distinct
from replay.heap.blocks import Blocks
from replay.heap.chunks import Heaps
from replay.heap.live_bytes import one_space
from replay.linux.glibc import MINSIZE

HEAP_COLUMNS: Final = (
    "live_blocks", "live_bytes", "heap_bytes", "unseen_bytes", "free_bytes", "largest_free_bytes", "pinned_bytes",
)  # fmt: skip
"""What is said of a heap."""

Rows: TypeAlias = Int64Array | slice
"""Rows of columns, all of them as a slice."""

_SPARSE: Final = 8
"""Where one line in so many has a row, or more, a table finds the rows. Heuristic."""


def heap_columns(blocks: Blocks, heaps: Heaps, space: Int64Array, line: Int64Array) -> Iterator[tuple[str, Int64Array]]:
    """Yield the columns `HEAP_COLUMNS`, by name, of the heap of each space once each line was printed.

    `live_blocks` and `live_bytes` are of all blocks, the others of the memory that blocks are cut from: `heap_bytes`,
    `unseen_bytes` (between seen blocks, but in none of them so far), `free_bytes`, `largest_free_bytes`, `pinned_bytes`
    (free and below the highest live block of the brk area). Spaces without blocks have `NULL`.
    """
    chunks, extents = heaps.chunks, heaps.extents
    owners, extent_owners = _rows_by_space(chunks["space"]), _rows_by_space(extents["space"])
    found: list[tuple[Rows, Iterator[Int64Array]]] = []
    for number, rows in _rows_by_space(space, line).items():
        if number in owners:
            own = extent_owners.get(number, slice(0))
            changes = {name: column[own] for name, column in extents.items()}
            area = int(heaps.area_start[number])
            of_space = heaps.unseen["space"] == number
            unseen = {name: column[of_space] for name, column in heaps.unseen.items()}
            found.append((rows, _space_columns(chunks, owners[number], changes, unseen, area, line[rows])))
    for name in HEAP_COLUMNS:
        if len(found) == 1 and isinstance(found[0][0], slice):
            yield name, next(found[0][1])
            continue
        column = np.full(len(space), NULL, dtype=np.int64)
        for rows, columns in found:
            column[rows] = next(columns)
        yield name, column


def taken_bytes(heaps: Heaps, space: int, line: Int64Array) -> Int64Array:
    """Return the bytes that a space has for blocks once each line was printed: heaps and blocks mapped alone.

    `line` ascends.
    """
    extents, chunks = heaps.extents, heaps.chunks
    mine = np.flatnonzero(extents["space"] == space)
    rows = _RowsOfLines(line)
    held = _heap_bytes({name: column[mine] for name, column in extents.items()}, rows)
    alone = np.flatnonzero((chunks["direct"] == 1) & (chunks["space"] == space))
    if not len(alone):
        return held
    size = chunks["end"][alone] - chunks["start"][alone]
    return held + _live_sum(chunks["born_line"][alone], chunks["died_line"][alone], size, rows)


def fragmentation(columns: Columns) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return 1 - largest free range / free bytes for each row: 0 where nothing is free, NaN where nothing is known."""
    free, largest = columns["free_bytes"], columns["largest_free_bytes"]
    ratio = np.where(free > 0, 1 - largest / np.maximum(free, 1), 0.0)
    return np.where(free == NULL, np.nan, ratio)


def _rows_by_space(space: Int64Array, line: Int64Array | None = None) -> dict[int, Rows]:
    """Return the rows of each space, in the order of their lines, else in their own."""
    in_order = line is None or bool((line[1:] >= line[:-1]).all())
    if one_space(space) and in_order:
        return {int(number): slice(None) for number in space[:1]}
    order = ascending(space) if line is None else ascending_by(space, line)
    ordered = space[order]
    start = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return {int(space[piece[0]]): piece for piece in np.split(order, start)}


def _space_columns(
    chunks: Columns, rows: Rows, extents: Columns, unseen: Columns, area: int, line: Int64Array
) -> Iterator[Int64Array]:
    """Yield the `HEAP_COLUMNS` of one space, of chunks `rows`, whose brk area begins at `area`; `line` ascends."""
    born, died, lines = chunks["born_line"][rows], chunks["died_line"][rows], _RowsOfLines(line)
    yield _live_sum(born, died, np.broadcast_to(np.int64(1), len(born)), lines)
    yield _live_sum(born, died, chunks["size"][rows], lines)
    free = _heap_bytes(extents, lines)
    yield free.copy()
    start, in_brk = chunks["start"][rows], chunks["in_brk"][rows] == 1
    size = chunks["end"][rows] - start
    pooled = chunks["direct"][rows] == 0
    if not pooled.all():
        born, died, start, size, in_brk = (part[pooled] for part in (born, died, start, size, in_brk))
    free -= _live_sum(born, died, size, lines)
    unknown = _unseen_sum(unseen, slice(None), lines)
    np.minimum(unknown, np.maximum(free, 0), out=unknown)
    yield unknown
    free -= unknown
    del lines, unknown  # what follows needs the most memory
    np.maximum(free, 0, out=free)
    yield free
    known = _Chunks(start, start + size, born, died, in_brk)
    largest, top = _largest_and_top(known.beside(unseen), extents, line)
    del start, known
    yield np.where(largest >= MINSIZE, np.minimum(largest, free), 0)
    del largest
    if area == NULL:
        yield np.zeros(len(line), dtype=np.int64)
        return
    lines = _RowsOfLines(line)
    used = _live_sum(born[in_brk], died[in_brk], size[in_brk], lines)
    used += _unseen_sum(unseen, unseen["in_brk"] == 1, lines)
    yield np.clip(np.where(top > 0, top - area - used, 0), 0, free)


class _RowsOfLines:
    """Rows of ascending lines: which is the first one at or behind a line."""

    def __init__(self, line: Int64Array) -> None:
        """Look `line` up; where it leaves out few lines, by a table of all of them."""
        self.count = len(line)
        self._line = line
        self._first = int(line[0]) if len(line) else 0
        span = int(line[-1]) + 1 - self._first if len(line) else 0
        self._table: NDArray[np.int32] | None = None
        if span <= _SPARSE * len(line) < np.iinfo(np.int32).max:
            self._table = np.zeros(span + 1, dtype=np.int32)
            np.cumsum(np.bincount(line - self._first, minlength=span), out=self._table[1:])

    def at(self, lines: Int64Array) -> NDArray[np.integer[Any]]:
        """Return the row of each line, one past the last where there is none."""
        if self._table is None:
            return np.searchsorted(self._line, lines, side="left")
        return self._table[np.clip(lines - self._first, 0, len(self._table) - 1)]


def _heap_bytes(extents: Columns, rows: _RowsOfLines) -> Int64Array:
    """Return the bytes of the heaps once the line of each row was printed."""
    return _sums(rows, (extents["line"], extents["sign"] * (extents["end"] - extents["start"])))


def _live_sum(born: Int64Array, died: Int64Array, size: Int64Array, rows: _RowsOfLines) -> Int64Array:
    """Return the sum of `size` over what is live once the line of each row was printed."""
    ended = died != NULL
    return _sums(rows, (born, size), (died[ended], -size[ended]))


def _unseen_sum(unseen: Columns, chosen: Mask | slice, rows: _RowsOfLines) -> Int64Array:
    """Return the bytes of the chosen unseen ranges once the line of each row was printed."""
    born, died, start, end = (unseen[name][chosen] for name in ("born_line", "died_line", "start", "end"))
    return _live_sum(born, died, end - start, rows)


def _sums(rows: _RowsOfLines, *changes: tuple[Int64Array, Int64Array]) -> Int64Array:
    """Return for each row the sum of the values of changes at lines up to its own."""
    sums = np.zeros(rows.count + 1, dtype=np.int64)
    for lines, values in changes:
        np.add.at(sums, rows.at(lines), values)
    np.cumsum(sums, out=sums)
    return sums[:-1]


# --- the tree --------------------------------------------------------------------------------------------------------


class _Chunks(NamedTuple):
    """The chunks of one space that are cut from a heap."""

    start: Int64Array
    end: Int64Array
    born: Int64Array
    died: Int64Array
    in_brk: Mask

    def beside(self, unseen: Columns) -> _Chunks:
        """Return these and the unseen ranges, which are no more free than chunks are, and no blocks of the brk area."""
        if not len(unseen["start"]):
            return self
        return _Chunks(
            np.concatenate([self.start, unseen["start"]]),
            np.concatenate([self.end, unseen["end"]]),
            np.concatenate([self.born, unseen["born_line"]]),
            np.concatenate([self.died, unseen["died_line"]]),
            np.append(self.in_brk, np.zeros(len(unseen["start"]), dtype=np.bool_)),
        )


def _largest_and_top(chunks: _Chunks, extents: Columns, line: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return for each line the largest gap between chunks inside the heap, and the end of the brk area's topmost one.

    What is not heap counts as chunks too, a wall for each range between two borders that the heap ever had. `line`
    ascends.
    """
    borders = distinct(np.concatenate([extents["start"], extents["end"]]))
    if not len(borders):
        return np.zeros(len(line), dtype=np.int64), np.zeros(len(line), dtype=np.int64)
    borders = np.concatenate([borders[:1] - 1, borders, borders[-1:] + 1])
    places = distinct(chunks.start)
    # Leaves: walls and chunks by address, a wall before a chunk that begins where it does.
    starts = np.concatenate([borders[:-1], places])
    order = ascending(starts)
    starts = starts[order]
    leaf = np.empty(len(order), dtype=np.int32)
    leaf[order] = np.arange(len(order), dtype=np.int32)
    del order
    walls, chunk_leaf = leaf[: len(borders) - 1], leaf[len(borders) - 1 :][np.searchsorted(places, chunks.start)]
    wall_ends = np.full(len(leaf), NONE, dtype=np.int64)
    wall_ends[walls] = borders[1:]
    del places
    until, what, ends, tops = _changes(chunks, extents, borders, walls, chunk_leaf, line)
    del chunk_leaf, leaf
    largest, top = (np.zeros(len(line), dtype=np.int64) for _ in range(2))
    sweep(starts, wall_ends, (what, ends, tops), until, empty_tree(len(starts)), largest, top)
    return largest, top


def _changes(
    chunks: _Chunks,
    extents: Columns,
    borders: Int64Array,
    walls: NDArray[np.int32],
    leaf: NDArray[np.int32],
    line: Int64Array,
) -> tuple[NDArray[np.int32], NDArray[np.int32], Int64Array, Mask]:
    """Return the changes of leaves in order: leaf, the end that it gets (none: it goes), and whether in brk.

    At one line chunks go before walls, and walls before chunks that come. Before these columns stands how many changes
    there are until each `line`.
    """
    ended = chunks.died != NULL
    first = np.searchsorted(borders, extents["start"])
    count = np.searchsorted(borders, extents["end"]) - first
    cell = np.repeat(first - np.append(0, np.cumsum(count)[:-1]), count) + np.arange(int(count.sum()))
    extent = np.repeat(np.arange(len(count)), count)
    when = np.concatenate([chunks.died[ended], extents["line"][extent], chunks.born])
    order = ascending(when).astype(np.int32)
    until = np.searchsorted(when[order], line, side="right").astype(np.int32)
    del when
    what = np.concatenate([leaf[ended], walls[cell], leaf])[order]
    gone = np.broadcast_to(np.int64(NONE), int(ended.sum()))
    wall_ends = np.where(extents["sign"][extent] > 0, NONE, borders[cell + 1])
    tops = np.concatenate([np.zeros(len(gone) + len(cell), dtype=np.bool_), chunks.in_brk])[order]
    return until, what, np.concatenate([gone, wall_ends, chunks.end])[order], tops
