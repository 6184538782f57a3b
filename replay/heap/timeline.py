"""The table `fragmentation`: one row a change of a space, be it of its mappings or of its blocks.

In go the changes of the replay and the heaps, out come both as columns of the same rows. How the rows are thinned or
stored is not known here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.blocks import Blocks
from replay.columns import NULL, Columns, Int64Array
from replay.heap.chunks import Heaps
from replay.heap.sweep import heap_columns
from replay.regions import Replay

HEAP_COLUMNS: Final = (
    "live_blocks", "live_bytes", "heap_bytes", "free_bytes", "largest_free_bytes", "pinned_bytes",
)  # fmt: skip
"""The columns about blocks, in the order of the table."""


def changes_with_heap(replayed: Replay, blocks: Blocks, heaps: Heaps) -> Columns:
    """Return the changes of all spaces in order of lines, as `Replay.changes` does, with those of blocks among them.

    A row of a block has the address-space columns of the change before it (0 if there is none, and an unknown
    headroom). Columns about blocks are `NULL` in spaces that show none, and in all rows of a log that shows none.
    """
    changes = replayed.changes
    if not len(blocks):
        nothing = np.full(len(changes["step"]), NULL, dtype=np.int64)
        return dict(changes) | dict.fromkeys(HEAP_COLUMNS, nothing)
    space, line, step = _block_changes(blocks)
    width = replayed.last_clock + 2
    fresh = ~np.isin(space * width + line, changes["space"] * width + changes["line"])
    space, line, step = space[fresh], line[fresh], step[fresh]
    before = _latest(changes["space"] * width + changes["line"], space * width + line)
    same = (before >= 0) & (changes["space"][before] == space) if len(changes["space"]) else before >= 0
    merged = {"step": step, "line": line, "space": space}
    for name in set(changes) - set(merged):
        unknown = NULL if name == "headroom_bytes" else 0
        merged[name] = np.full(len(space), unknown, dtype=np.int64)
        merged[name][same] = changes[name][before[same]]
    columns = {name: np.concatenate([changes[name], merged[name]]) for name in changes}
    order = np.argsort(columns["line"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    return columns | dict(heap_columns(blocks, heaps, columns["space"], columns["line"]))


def _block_changes(blocks: Blocks) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return space, line and step of each line at which blocks were given or taken, every line of a space once."""
    columns = blocks.columns
    ended = (columns["died_line"] != NULL) & (columns["died_step"] != NULL)
    space = np.concatenate([columns["space"], columns["space"][ended]])
    line = np.concatenate([columns["born_line"], columns["died_line"][ended]])
    step = np.concatenate([columns["born_step"], columns["died_step"][ended]])
    order = np.lexsort((line, space))
    space, line, step = space[order], line[order], step[order]
    first = np.ones(len(space), dtype=np.bool_)
    first[1:] = (space[1:] != space[:-1]) | (line[1:] != line[:-1])
    return space[first], line[first], step[first]


def _latest(keys: Int64Array, at: Int64Array) -> Int64Array:
    """Return for each key of `at` the place of the last of `keys` that is not after it, -1 for none."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    place = np.searchsorted(keys[order], at, side="right") - 1
    return np.where(place >= 0, np.append(order, -1)[place], -1)
