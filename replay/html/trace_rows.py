"""The rows that the page draws: mappings and blocks as rectangles, marks, steps, each as columns of integers.

In go the tables of a run, out come columns with their texts apart, thinned to what fits a page. How they are packed and
drawn this module does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from replay.engine.columns import NULL, Columns, Int64Array
from replay.engine.sorting import ascending
from replay.html.trace_tables import TraceTables, codes, ints

if TYPE_CHECKING:
    import pyarrow as pa

CLASSES: Final = ("brk", "anon", "file", "shm", "stack", "image", "special", "unknown", "no access")
"""What a rectangle is coloured by: the kind of its mapping, or that nobody may touch it."""

MARKS: Final = ("brk refused", "fallback", "fallback refused", "refused", "exit")
"""The kinds of marks, by their place."""

ACROSS: Final = 4096
"""So many places a picture has from left to right: what falls on one of them is seen as one."""

_NO_OWNERS: Final = ("anonymous", "[heap]")
"""Words of the column `owner` that tell no more than the kind does."""

_NO_ACCESS: Final = CLASSES.index("no access")


class Rows(NamedTuple):
    """Columns of equal length, the texts that their codes stand for, and how many rows there were before thinning."""

    columns: Columns
    texts: list[list[Any]]
    total: int


def mappings(tables: TraceTables, most: int) -> Rows:
    """Return the rectangles of mappings by birth: addresses in pages, `died` 0 for those that outlive the log.

    `look` is the place of `[class, kind, permissions, path, origin, owner]` in the texts.
    """
    table = tables.table("regions")
    start = (ints(table, "start").view(np.uint64) // np.uint64(tables.page_size)).astype(np.int64)
    size = ((ints(table, "end") - ints(table, "start")) // tables.page_size).astype(np.int64)
    born, died = ints(table, "born_line"), ints(table, "died_line")
    made, offset = tables.made_clock, ints(table, "offset")
    look, texts = _looks(table)
    columns: Columns = {
        "space": ints(table, "space"),
        "start": start,
        "size": size,
        "born": np.maximum(born, 0),
        "died": np.maximum(died, 0),
        "made": np.maximum(born, 0) - np.maximum(made, 0),
        "look": look,
        "offset": np.where(offset == NULL, 0, offset // tables.page_size + 1),
    }
    lasting = np.isin(start * tables.page_size, ints(tables.table("brk_failures"), "blocker_start"))
    lasting |= np.array([text[0] == 0 for text in texts], np.bool_)[look] if len(texts) else False
    kept = thinned(columns["space"], start, columns["born"], columns["died"], lasting, most)
    order = kept[ascending(columns["born"][kept])]
    return Rows({name: column[order] for name, column in columns.items()}, texts, len(start))


def _looks(table: pa.Table) -> tuple[Int64Array, list[Any]]:
    """Return what the mappings look like: the place of each in a list of what is different."""
    named = [codes(table, name) for name in ("kind", "perms", "path", "origin", "owner")]
    key = np.zeros(len(table), np.int64)
    for places, texts in named:
        key = key * (len(texts) + 1) + places + 1
    _, first, look = np.unique(key, return_index=True, return_inverse=True)
    found = []
    for row in first.tolist():
        kind, perms, path, origin, owner = (texts[places[row]] if places[row] >= 0 else "" for places, texts in named)
        colour = _NO_ACCESS if perms.startswith("---") else CLASSES.index(kind) if kind in CLASSES else 7
        found.append(
            [colour, kind, perms, path, origin, "" if owner in (path, *_NO_OWNERS) else owner.replace("_", " ")]
        )
    return look.astype(np.int64), found


def blocks(tables: TraceTables, most: int) -> Rows:
    """Return the rectangles of malloc's blocks by birth; `look` is the place of `[call, backing, caller, end]`."""
    table = tables.table("blocks")
    named = [codes(table, name) for name in ("call", "backing", "caller", "end")]
    key = np.zeros(len(table), np.int64)
    for places, texts in named:
        key = key * (len(texts) + 1) + places + 1
    _, first, look = np.unique(key, return_index=True, return_inverse=True)
    looks = [[texts[places[row]] if places[row] >= 0 else "" for places, texts in named] for row in first.tolist()]
    columns: Columns = {
        "space": ints(table, "space"),
        "addr": ints(table, "addr"),
        "size": ints(table, "size"),
        "born": np.maximum(ints(table, "born_line"), 0),
        "died": np.maximum(ints(table, "died_line"), 0),
        "look": look.astype(np.int64),
    }
    none = np.zeros(len(table), np.bool_)
    kept = thinned(columns["space"], columns["addr"], columns["born"], columns["died"], none, most)
    order = kept[ascending(columns["born"][kept])]
    return Rows({name: column[order] for name, column in columns.items()}, looks, len(table))


def thinned(
    space: Int64Array, start: Int64Array, born: Int64Array, died: Int64Array, lasting: np.ndarray[Any, Any], most: int
) -> Int64Array:
    """Return the rows that a page keeps, `most` of them: all that are `lasting`, of the others what lives longest.

    Of those that begin at one address within one place of the picture's width the first is kept, then come the long
    ones: so what goes is what would be seen least.
    """
    rows = np.arange(len(space))
    if len(rows) <= most:
        return rows
    end = int(max(born.max(initial=1), died.max(initial=1)))
    place = born * ACROSS // end
    life = np.where(died == 0, end + 1, died) - born
    order = np.lexsort((-life, place, start, space))
    same = np.zeros(len(rows), np.bool_)
    same[1:] = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in (space, start, place)])
    hidden = np.zeros(len(rows), np.bool_)
    hidden[order] = same
    weight = np.where(lasting, 2 * (end + 2), np.where(hidden, 0, end + 2) + life)
    return np.sort(np.argpartition(-weight, most)[:most])


def marks(tables: TraceTables) -> Rows:
    """Return refused breaks, fallbacks, other refused calls and exits; `text` is the place of a sentence."""
    texts: dict[str, int] = {}
    parts = [_failures(tables, texts), _fallbacks(tables, texts), _refused(tables, texts), _exits(tables, texts)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in _MARK}
    order = np.argsort(columns["clock"], kind="stable")
    return Rows({name: column[order] for name, column in columns.items()}, [list(texts)], len(order))


_MARK: Final = ("kind", "step", "clock", "space", "addr", "bytes", "text", "blocker", "blocker_size", "blocker_clock")


def _columns(count: int, **known: Int64Array) -> Columns:
    return {name: known.get(name, np.zeros(count, np.int64)) for name in _MARK}


def _place(texts: dict[str, int], sentences: Sequence[str]) -> Int64Array:
    return np.array([texts.setdefault(text, len(texts)) for text in sentences], np.int64)


def _failures(tables: TraceTables, texts: dict[str, int]) -> Columns:
    table = tables.table("brk_failures")
    step, start, end = (ints(table, name) for name in ("step", "blocker_start", "blocker_end"))
    (cause, causes), (evidence, sentences) = codes(table, "cause"), codes(table, "evidence")
    said = [f"{causes[a]}: {sentences[b]}" for a, b in zip(cause.tolist(), evidence.tolist(), strict=True)]
    known = start != NULL
    return _columns(
        len(step),
        step=step,
        clock=tables.clock[step],
        space=ints(table, "space"),
        addr=ints(table, "granted"),
        bytes=ints(table, "shortfall_bytes"),
        text=_place(texts, said),
        blocker=np.where(known, start // tables.page_size, 0),
        blocker_size=np.where(known, (end - start) // tables.page_size, 0),
        blocker_clock=np.maximum(ints(table, "blocker_line"), 0),
    )


def _fallbacks(tables: TraceTables, texts: dict[str, int]) -> Columns:
    table = tables.table("mmap_fallbacks")
    step, addr = ints(table, "step"), ints(table, "addr")
    evidence, sentences = codes(table, "evidence")
    granted = addr != NULL
    return _columns(
        len(step),
        kind=np.where(granted, 1, 2),
        step=step,
        clock=tables.clock[step],
        space=ints(table, "space"),
        addr=np.where(granted, addr, 0),
        bytes=ints(table, "bytes"),
        text=_place(texts, [sentences[at] for at in evidence.tolist()]),
    )


def _refused(tables: TraceTables, texts: dict[str, int]) -> Columns:
    """Return the marks of calls that the kernel refused to give memory, those left out that stood in for a break."""
    events = tables.table("events")
    (call, calls), (status, states), (errno, errors) = (codes(events, name) for name in ("call", "status", "errno"))
    gives = np.array([name in ("mmap", "mremap", "shmat", "mprotect") for name in calls] or [False])
    failed = np.array([state == "failed" for state in states] or [False])
    rows = np.flatnonzero(gives[call] & failed[status]) if len(call) else np.zeros(0, np.int64)
    rows = rows[~np.isin(rows, ints(tables.table("mmap_fallbacks"), "step"))]
    said = [
        f"{calls[a]} refused: {errors[b] if b >= 0 else 'no reason printed'}"
        for a, b in zip(call[rows].tolist(), errno[rows].tolist(), strict=True)
    ]
    return _columns(
        len(rows),
        kind=np.full(len(rows), MARKS.index("refused")),
        step=rows,
        clock=tables.clock[rows],
        space=ints(events, "space")[rows],
        addr=np.maximum(ints(events, "addr")[rows], 0),
        bytes=np.maximum(ints(events, "length")[rows], 0),
        text=_place(texts, said),
    )


def _exits(tables: TraceTables, texts: dict[str, int]) -> Columns:
    events = tables.table("events")
    call, calls = codes(events, "call")
    exits = np.array([name == "exit" for name in calls] or [False])
    rows = np.flatnonzero(exits[call]) if len(call) else np.zeros(0, np.int64)
    return _columns(
        len(rows),
        kind=np.full(len(rows), MARKS.index("exit")),
        step=rows,
        clock=tables.clock[rows],
        space=ints(events, "space")[rows],
        text=_place(texts, ["exit"] * len(rows)),
    )


def brks(tables: TraceTables) -> Columns:
    """Return the breaks that the log tells: step, space and where it was then, in bytes."""
    events = tables.table("events")
    call, calls = codes(events, "call")
    is_brk = np.array([name == "brk" for name in calls] or [False])
    result = ints(events, "result")
    rows = np.flatnonzero(is_brk[call] & (result != NULL)) if len(call) else np.zeros(0, np.int64)
    return {"step": rows, "space": ints(events, "space")[rows], "at": result[rows]}
