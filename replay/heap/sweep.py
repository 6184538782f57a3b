"""The heap after each change: how much of it is free, the largest free range, and what the topmost block holds back.

In go chunks and the extents of heaps, out come columns for any lines. The largest gap between chunks is kept in a tree
over their addresses, so that each change costs the logarithm of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from replay.blocks import Blocks, LiveCount
from replay.columns import NULL, Int64Array, distinct
from replay.compiled import compiled
from replay.heap.chunks import MINSIZE, Heaps
from replay.nesting import Columns

WORTH_COMPILING: Final = 15_000
"""Blocks and changes of heaps from which on compiling the loop, or loading it, pays. Heuristic, measured."""

Sweep: TypeAlias = Callable[..., tuple[Sequence[int], Sequence[int]]]
"""The loop over the tree, interpreted or compiled."""

_NONE: Final = -1
_FAR: Final = 1 << 62


def heap_columns(blocks: Blocks, heaps: Heaps, space: Int64Array, line: Int64Array) -> Columns:
    """Return the heap of each space once each line was printed.

    `live_blocks` and `live_bytes` are of all blocks, the others of the memory that blocks are cut from: `heap_bytes`,
    `free_bytes`, `largest_free_bytes`, `pinned_bytes` (free and below the highest live block of the brk area). What the
    libc keeps for itself counts as free. Spaces without blocks have `NULL`.
    """
    own = blocks.columns
    last = max(int(lines.max(initial=0)) for lines in (line, own["born_line"], own["died_line"]))
    live_blocks, live_bytes = LiveCount.of(blocks, last).at(space, line)
    columns = {"live_blocks": live_blocks, "live_bytes": live_bytes}
    for name in ("heap_bytes", "free_bytes", "largest_free_bytes", "pinned_bytes"):
        columns[name] = np.full(len(space), NULL, dtype=np.int64)
    chunks, extents = _by_space(heaps.chunks), _by_space(heaps.extents)
    sweep = _sweep_for(len(blocks) + len(heaps.extents["line"]))
    nothing = {name: column[:0] for name, column in heaps.extents.items()}
    for number, rows in _by_space({"space": space, "row": np.arange(len(space), dtype=np.int64)}).items():
        if number in chunks:
            pooled = _pooled(chunks[number])
            area = int(heaps.area_start[number])
            found = _space_columns(pooled, extents.get(number, nothing), area, line[rows["row"]], sweep)
            for name, values in found.items():
                columns[name][rows["row"]] = values
    unknown = columns["heap_bytes"] == NULL
    columns["live_blocks"][unknown] = columns["live_bytes"][unknown] = NULL
    return columns


def taken_bytes(heaps: Heaps, space: int, line: Int64Array) -> Int64Array:
    """Return the bytes that a space has for blocks once each line was printed: heaps and blocks mapped alone."""
    extents = {name: column[heaps.extents["space"] == space] for name, column in heaps.extents.items()}
    alone = (heaps.chunks["direct"] == 1) & (heaps.chunks["space"] == space)
    chunks = {name: column[alone] for name, column in heaps.chunks.items()}
    return _heap_bytes(extents, line) + _live_sum(chunks, chunks["end"] - chunks["start"], line)


def fragmentation(columns: Columns) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return 1 - largest free range / free bytes for each row: 0 where nothing is free, NaN where nothing is known."""
    free, largest = columns["free_bytes"], columns["largest_free_bytes"]
    ratio = np.where(free > 0, 1 - largest / np.maximum(free, 1), 0.0)
    return np.where(free == NULL, np.nan, ratio)


def _by_space(columns: Columns) -> dict[int, Columns]:
    """Return the rows of each space, in their order."""
    space = columns["space"]
    if not len(space):
        return {}
    if (space == space[0]).all():
        return {int(space[0]): columns}
    order = np.argsort(space, kind="stable")
    start = np.flatnonzero(np.append(True, np.diff(space[order]) != 0))
    pieces = np.split(order, start[1:])
    return {int(space[piece[0]]): {name: column[piece] for name, column in columns.items()} for piece in pieces}


def _space_columns(chunks: Columns, extents: Columns, area: int, line: Int64Array, sweep: Sweep) -> Columns:
    """Return the columns of the heap of one space, whose brk area begins at `area`."""
    heap = _heap_bytes(extents, line)
    size = chunks["end"] - chunks["start"]
    in_brk = chunks["in_brk"] == 1
    used, used_in_brk = _live_sum(chunks, size, line), _live_sum(chunks, np.where(in_brk, size, 0), line)
    largest, top = _largest_and_top(chunks, extents, line, sweep)
    free = np.maximum(heap - used, 0)
    pinned = np.where(top > 0, top - area - used_in_brk, 0) if area != NULL else np.zeros(len(line), dtype=np.int64)
    return {
        "heap_bytes": heap,
        "free_bytes": free,
        "largest_free_bytes": np.where(largest >= MINSIZE, np.minimum(largest, free), 0),
        "pinned_bytes": np.clip(pinned, 0, free),
    }


def _heap_bytes(extents: Columns, line: Int64Array) -> Int64Array:
    """Return the bytes of the heaps once each line was printed."""
    return _sum_until(extents["line"], extents["sign"] * (extents["end"] - extents["start"]), line)


def _pooled(chunks: Columns) -> Columns:
    """Return the chunks that are cut from a heap."""
    pooled = chunks["direct"] == 0
    return {name: column[pooled] for name, column in chunks.items()}


def _live_sum(chunks: Columns, size: Int64Array, line: Int64Array) -> Int64Array:
    """Return the sum of `size` over the chunks that are live once each line was printed."""
    ended = chunks["died_line"] != NULL
    return _sum_until(chunks["born_line"], size, line) - _sum_until(chunks["died_line"][ended], size[ended], line)


def _sum_until(lines: Int64Array, values: Int64Array, line: Int64Array) -> Int64Array:
    """Return for each line the sum of the values at lines up to it."""
    order = np.argsort(lines, kind="stable")
    sums: Int64Array = np.append(0, np.cumsum(values[order]))
    return sums[np.searchsorted(lines[order], line, side="right")]


# --- the tree --------------------------------------------------------------------------------------------------------


def _largest_and_top(
    chunks: Columns, extents: Columns, line: Int64Array, sweep: Sweep
) -> tuple[Int64Array, Int64Array]:
    """Return for each line the largest gap between chunks inside the heap, and the end of the brk area's topmost one.

    What is not heap counts as chunks too, a wall for each range between two borders that the heap ever had.
    """
    borders = distinct(np.concatenate([extents["start"], extents["end"]]))
    if not len(borders):
        return np.zeros(len(line), dtype=np.int64), np.zeros(len(line), dtype=np.int64)
    borders = np.concatenate([borders[:1] - 1, borders, borders[-1:] + 1])
    places = distinct(chunks["start"])
    # Leaves: walls and chunks by address, a wall before a chunk that begins where it does.
    starts = np.concatenate([borders[:-1], places])
    order = np.argsort(starts, kind="stable")
    leaf = np.empty(len(order), dtype=np.int64)
    leaf[order] = np.arange(len(order))
    walls, chunk_leaf = leaf[: len(borders) - 1], leaf[len(borders) - 1 :][np.searchsorted(places, chunks["start"])]
    when, what, ends, tops = _changes(chunks, extents, borders, walls, chunk_leaf)
    until = np.searchsorted(when, line, side="right")
    rows_by_line = np.argsort(until, kind="stable")
    wall_ends = np.full(len(order), _NONE, dtype=np.int64)
    wall_ends[walls] = borders[1:]
    largest, top = sweep(starts[order], wall_ends, what, ends, tops, until[rows_by_line])
    back = np.empty(len(line), dtype=np.int64)
    back[rows_by_line] = np.arange(len(line))
    return np.asarray(largest, dtype=np.int64)[back], np.asarray(top, dtype=np.int64)[back]


def _changes(
    chunks: Columns, extents: Columns, borders: Int64Array, walls: Int64Array, leaf: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array, Int64Array]:
    """Return the changes of leaves by line: line, leaf, the end that it gets (none: it goes), and whether in brk.

    At one line chunks go before walls, and walls before chunks that come.
    """
    ended = chunks["died_line"] != NULL
    first = np.searchsorted(borders, extents["start"])
    count = np.searchsorted(borders, extents["end"]) - first
    cell = np.repeat(first - np.append(0, np.cumsum(count)[:-1]), count) + np.arange(int(count.sum()))
    extent = np.repeat(np.arange(len(count)), count)
    gone = np.full(int(ended.sum()), _NONE, dtype=np.int64)
    wall_ends = np.where(extents["sign"][extent] > 0, _NONE, borders[cell + 1])
    when = np.concatenate([chunks["died_line"][ended], extents["line"][extent], chunks["born_line"]])
    what = np.concatenate([leaf[ended], walls[cell], leaf])
    ends = np.concatenate([gone, wall_ends, chunks["end"]])
    tops = np.concatenate([gone, np.full(len(cell), _NONE, dtype=np.int64), chunks["in_brk"]])
    order = np.argsort(when, kind="stable")
    return when[order], what[order], ends[order], tops[order]


def _sweep_for(changes: int) -> Sweep:
    """Return what applies about that many changes fastest."""
    return compiled(_sweep) if changes >= WORTH_COMPILING else _interpreted_sweep


def _interpreted_sweep(*columns: Int64Array) -> tuple[Sequence[int], Sequence[int]]:
    """Apply the loop to lists, which the interpreter reads faster than arrays."""
    return _sweep(*(column.tolist() for column in columns))


def _sweep(
    starts: Sequence[int],
    wall_ends: Sequence[int],
    what: Sequence[int],
    ends: Sequence[int],
    tops: Sequence[int],
    until: Sequence[int],
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the largest gap and the topmost end after the first `until` changes, for each of these, ascending.

    A node of the tree holds the first start below it, the last end, the largest gap between, and the topmost end of a
    chunk of the brk area. The children of node i are 2i and 2i + 1; leaves stand from `size` on.
    """
    size = 1
    while size < len(starts):
        size *= 2
    first, last = [_FAR] * (2 * size), [_NONE] * (2 * size)
    gap, top = [0] * (2 * size), [_NONE] * (2 * size)
    for leaf in range(len(starts)):
        if wall_ends[leaf] != _NONE:
            first[size + leaf], last[size + leaf] = starts[leaf], wall_ends[leaf]
    for node in range(size - 1, 0, -1):
        left, right = 2 * node, 2 * node + 1
        first[node], last[node] = min(first[left], first[right]), max(last[left], last[right])
        between = first[right] - last[left] if first[right] != _FAR and last[left] != _NONE else 0
        gap[node] = max(gap[left], gap[right], between)
    largest, topmost = [0] * len(until), [0] * len(until)
    done = 0
    for row in range(len(until)):
        while done < until[row]:
            node = size + what[done]
            present = ends[done] != _NONE
            first[node] = starts[what[done]] if present else _FAR
            last[node] = ends[done]
            top[node] = ends[done] if present and tops[done] == 1 else _NONE
            done += 1
            node //= 2
            while node:
                left, right = 2 * node, 2 * node + 1
                first[node], last[node] = min(first[left], first[right]), max(last[left], last[right])
                between = first[right] - last[left] if first[right] != _FAR and last[left] != _NONE else 0
                gap[node] = max(gap[left], gap[right], between)
                top[node] = max(top[left], top[right])
                node //= 2
        largest[row], topmost[row] = gap[1], top[1]
    return largest, topmost
