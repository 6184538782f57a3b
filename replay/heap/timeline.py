"""The table `fragmentation`: one row a change of a space, be it of its mappings or of its blocks.

In go the changes of the replay and the heaps, out come both as columns of the same rows. How the rows are thinned or
stored is not known here.
"""

from __future__ import annotations

import numpy as np

from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Columns, Int64Array
from replay.engine.sorting import ascending, ascending_by
from replay.heap.blocks import Blocks
from replay.heap.chunks import Heaps
from replay.heap.free_space import heap_columns
from replay.heap.live_bytes import one_space
from replay.spaces.replay import Replay


def changes_with_heap(replayed: Replay, blocks: Blocks, heaps: Heaps) -> PackedColumns:
    """Return the changes of all spaces in order of lines, as `Replay.changes` does, with those of blocks among them.

    A row of a block has the address-space columns of the change before it (0 if there is none, and an unknown
    headroom). Columns about blocks are `NULL` in spaces that show none.
    """
    changes, columns = replayed.changes, PackedColumns(replayed.changes.shelf)
    added, before = _added(replayed, blocks)
    line = np.concatenate([changes["line"], added["line"]])
    order = ascending(line)
    before = np.concatenate([np.arange(len(changes["line"])), before])[order]
    line = line[order]
    columns.keep("line", line)
    for name in changes:
        if name in ("step", "space"):
            columns.keep(name, np.concatenate([changes[name], added[name]])[order])
        elif name != "line":
            unknown = NULL if name == "headroom_bytes" else 0
            columns.keep(name, np.append(changes[name], unknown)[before])
    del added, before, order
    for name, column in heap_columns(blocks, heaps, columns["space"], line):
        columns.keep(name, column)
        del column  # before the next one is made
    return columns


def _added(replayed: Replay, blocks: Blocks) -> tuple[Columns, Int64Array]:
    """Return the changes of blocks at lines at which their space does not change otherwise.

    With it the row of the change of the space before each, -1 for none.
    """
    changes, width = replayed.changes, replayed.last_clock + 2
    space, line, step = _block_changes(blocks)
    keys, known = space * width + line, changes["space"] * width + changes["line"]
    order = ascending(known)
    known = known[order]
    place = np.searchsorted(known, keys, side="right") - 1
    if len(known):
        fresh = np.flatnonzero((place < 0) | (known[place] != keys))
        space, line, step, place = space[fresh], line[fresh], step[fresh], place[fresh]
    before = np.append(order, -1)[place]
    before[np.append(changes["space"], NULL)[before] != space] = -1
    return {"space": space, "line": line, "step": step}, before


def _block_changes(blocks: Blocks) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return space, line and step of each line at which blocks were given or taken, every line of a space once."""
    columns = blocks.columns
    space, died, died_step = columns["space"], columns["died_line"], columns["died_step"]
    ended = np.flatnonzero((died != NULL) & (died_step != NULL))
    line = np.concatenate([columns["born_line"], died[ended]])
    step = np.concatenate([columns["born_step"], died_step[ended]])
    del died, died_step
    one = one_space(space)
    space = np.broadcast_to(space[0], len(line)) if one else np.concatenate([space, space[ended]])
    del ended
    order = ascending_by(space, line)
    line, step = line[order], step[order]
    space = space if one else space[order]
    first = np.ones(len(line), dtype=np.bool_)
    first[1:] = (space[1:] != space[:-1]) | (line[1:] != line[:-1])
    return space[: int(first.sum())] if one else space[first], line[first], step[first]
