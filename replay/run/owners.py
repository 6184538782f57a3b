"""Whose memory a region is, in one word to group by, and which region stood in the way of a break.

In go the columns of a run, out come ids of its texts. How they are stored is not known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.sorting import ascending, distinct, is_among
from replay.mm.fields import KIND_BRK
from replay.run.recorder_mappings import RECORDER

if TYPE_CHECKING:
    from replay.run.analysis import Analysis

HEAP: Final = "[heap]"
ANONYMOUS: Final = "anonymous"

_OF_REGION: Final = ("path", "kind", "made_step", "start")
"""The columns of a region that say whose it is."""


def owners_of(run: Analysis, regions: Columns) -> Int64Array:
    """Return whose each region is: its path, `[heap]`, allocator and kind of its mapping, `anonymous` or `recorder`."""
    heap, anonymous = run.strings.intern_all((HEAP, ANONYMOUS))
    path, kind, made, _ = (regions[name] for name in _OF_REGION)
    owner = np.where(path != NO_TEXT, path, np.where(kind == KIND_BRK, heap, anonymous))
    steps, names = run.mapping_owners
    rows = np.flatnonzero((path == NO_TEXT) & (kind != KIND_BRK) & (made >= 0))
    if len(steps) and len(rows):
        place = np.minimum(np.searchsorted(steps, made[rows]), len(steps) - 1)
        mine = steps[place] == made[rows]
        owner[rows[mine]] = names[place[mine]]
    if len(run.recorder.paths):
        owner[run.recorder.among(regions)] = run.strings.intern(RECORDER)
    return owner


def mapping_owners(run: Analysis) -> tuple[Int64Array, Int64Array]:
    """Return the steps of the mappings that allocators made, in order, and for each `ALLOCATOR KIND`."""
    made = run.activity.allocator_mmaps
    rows = np.flatnonzero(made["errno"] == NO_TEXT)
    rows = rows[ascending(made["step"][rows])]
    pairs, of_row = np.unique(np.stack([made["allocator"][rows], made["kind"][rows]]), axis=1, return_inverse=True)
    texts = [f"{run.strings[allocator]} {run.strings[kind]}" for allocator, kind in pairs.T.tolist()]
    return made["step"][rows], np.array(run.strings.intern_all(texts), np.int64)[of_row.reshape(-1)]


def blockers_of(run: Analysis) -> tuple[Int64Array, Int64Array]:
    """Return for each failed brk who was in the way, and `born_step` of that region, `NULL` where there is none.

    Without a mapping in the way it is the cause.
    """
    failures, regions = run.activity.brk_failures, run.replayed.regions
    start, owner = failures["blocker_start"], failures["cause"].copy()
    born = np.full(len(start), NULL, np.int64)
    blocked = np.flatnonzero(start != NULL)
    if not len(blocked):
        return owner, born
    path = failures["blocker_path"][blocked]
    owner[blocked] = np.where(path != NO_TEXT, path, run.strings.intern(ANONYMOUS))
    near = np.flatnonzero(is_among(regions["start"], distinct(start[blocked])))
    clock = run.replayed.events.at("clock", failures["step"][blocked])
    rows = _alive_at(run, near, failures["space"][blocked], start[blocked], clock)
    found = np.flatnonzero(rows >= 0)
    born[blocked[found]] = regions.at("born_step", rows[found])
    owner[blocked[found]] = owners_of(run, {name: regions.at(name, rows[found]) for name in _OF_REGION})
    return owner, born


def _alive_at(run: Analysis, near: Int64Array, space: Int64Array, start: Int64Array, clock: Int64Array) -> Int64Array:
    """Return for each space, start and clock the region, of those `near`, that began there and lived then; else -1."""
    regions = run.replayed.regions
    keys = [np.append(regions.at(name, near), asked) for name, asked in (("space", space), ("start", start))]
    born = np.append(regions.at("born_line", near), clock)
    asks = np.arange(len(born)) >= len(near)
    order = np.lexsort((asks, born, keys[1], keys[0]))
    last = np.maximum.accumulate(np.where(asks[order], -1, np.arange(len(order))))
    before = np.empty(len(order), np.int64)
    before[order] = np.where(last >= 0, order[last], -1)
    at = before[len(near) :]
    row = np.where(at >= 0, near[np.maximum(at, 0)] if len(near) else -1, -1)
    there = np.flatnonzero(row >= 0)
    died = regions.at("died_line", row[there])
    same = (regions.at("space", row[there]) == space[there]) & (regions.at("start", row[there]) == start[there])
    gone = (died != NULL) & (died < clock[there])
    row[there[~same | gone]] = -1
    return row
