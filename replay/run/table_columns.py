"""The columns of each table of a run, whole or in parts, as `tables` takes them.

In go the columns of the replay and of what was found in it, out come those of the schema, codes and numbers with the
words that they stand for. What the words mean and how tables are stored is for `tables`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from replay.calls.enclosing import GIVING, HIDING
from replay.calls.reader import FAILED
from replay.engine.column_store import PackedColumns, SortedColumns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.sorting import is_among
from replay.errors import QueryError
from replay.heap.blocks import BACKINGS, ENDS, LIVE
from replay.heap.free_space import HEAP_COLUMNS
from replay.heap.free_space import fragmentation as heap_fragmentation
from replay.linux import constants, flag_words
from replay.linux.proc_maps import perms_text
from replay.logs.dialect import DIALECTS
from replay.mm.fields import KINDS, ORIGINS
from replay.run.owners import blockers_of, owners_of
from replay.run.summary import capped
from replay.run.timeline import thinned, timeline_columns
from replay.tables import TABLES, Words
from replay.tables.schema import FALLBACK_KINDS

if TYPE_CHECKING:
    from replay.run.analysis import Analysis

STATUSES: Final = ("ok", "failed", "unfinished")
"""The words of the column `status`; its codes are places here."""


def columns_of(run: Analysis, table: str) -> dict[str, Any]:
    """Return the columns of a table whole, as `tables.to_arrow` takes them; raise QueryError if there is none of it."""
    if table in _PARTED:
        source, make = _PARTED[table]
        return make(run, SortedColumns(source(run), TABLES[table].order))
    return _whole(run, table)


def parts_of(run: Analysis, table: str, every: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the columns of a table in parts, the rows in the order of its schema.

    Of `fragmentation` only one row in so many of each space is there, and its last one.

    Raises:
        QueryError: there is no such table.
    """
    if table in _PARTED:
        source, make = _PARTED[table]
        columns = thinned(source(run), every) if table == "fragmentation" and every > 1 else source(run)
        rows = SortedColumns(columns, TABLES[table].order).packed()
        if not rows.rows:
            yield {}
        for number, (start, end) in enumerate(pairwise(rows.starts)):
            if end > start:
                yield make(run, rows.part(number))
    else:
        yield _sorted(_whole(run, table), TABLES[table].order)


def _whole(run: Analysis, table: str) -> dict[str, Any]:
    make = _WHOLE.get(table)
    if make is None:
        raise QueryError(f"no table {table!r}; the tables are {', '.join(TABLES)}")
    return make(run)


def _decoded(call: Int64Array, values: Int64Array, text_of: Callable[[str, int], str]) -> Words:
    """Return the words of (call, number) pairs, null where the number is."""
    present = np.flatnonzero(values != NULL)
    ids = np.full(len(values), NO_TEXT, np.int64)
    numbers, of_number = np.unique(values[present], return_inverse=True)
    pairs, of_pair = np.unique(of_number * len(constants.CALLS) + call[present], return_inverse=True)
    ids[present] = of_pair
    split = (divmod(pair, len(constants.CALLS)) for pair in pairs.tolist())
    return Words(ids, [text_of(constants.CALLS[code], int(numbers[place])) for place, code in split])


_OF_MALLOC: Final = [constants.CALL_CODE[name] for name in (*GIVING, *HIDING)]


def _event_columns(run: Analysis, events: Columns) -> dict[str, Any]:
    call = events["call"]
    words = ["exit" if name == "exit_group" else name for name in constants.CALLS]
    columns: dict[str, Any] = {
        name: events[name]
        for name in (
            "step", "line", "entry_line", "pid", "space", "time_ns", "duration_ns", "name", "addr", "length",
            "old_length", "fd", "path", "offset", "result", "caller",
        )
    }  # fmt: skip
    columns["dialect"] = Words(events["dialect"], DIALECTS)
    columns["call"] = Words(call, words)
    columns["prot"] = _decoded(call, events["prot"], lambda _call, prot: flag_words.prot_text(prot))
    columns["flags"] = _decoded(call, events["flags"], flag_words.flags_text)
    errno = np.where(events["errno"] == 0, NULL, events["errno"])
    columns["errno"] = _decoded(call, errno, lambda _call, number: constants.ERRNO_NAME.get(number, f"errno {number}"))
    columns["status"] = Words(events["status"], STATUSES)
    # What the kernel refused has no result; what a libc call returned instead (NULL, an error's number) is one.
    refused = (events["status"] == FAILED) & ~np.isin(call, _OF_MALLOC)
    columns["result"] = np.where(refused, NULL, events["result"])
    if len(run.source.files) > 1:
        columns["file"] = Words(events["file"], run.source.files)
    columns["parent_step"] = run.nesting.around(events["step"])
    return columns | run.clock.columns(events["step"])


def _lives(run: Analysis, rows: Columns) -> dict[str, Int64Array]:
    """Return the times at which what lives between two steps was born and died."""
    return {f"{end}_time_ns": run.clock.times_at(rows[f"{end}_step"]) for end in ("born", "died")}


def _region_columns(run: Analysis, regions: Columns) -> dict[str, Any]:
    perms = regions["prot"] * 2 + regions["shared"]
    words = [perms_text(code >> 1, bool(code & 1)) for code in range(16)]
    columns: dict[str, Any] = {
        name: regions[name]
        for name in ("space", "start", "end", "path", "offset", "born_step", "died_step", "born_line", "died_line")
    }
    columns["perms"] = Words(perms, words)
    columns["kind"] = Words(regions["kind"], KINDS)
    columns["origin"] = Words(regions["origin"], ORIGINS)
    columns["owner"] = owners_of(run, regions)
    columns["size_bytes"] = regions["end"] - regions["start"]
    return columns | _lives(run, regions)


def _change_columns(run: Analysis, changes: Columns) -> dict[str, Any]:
    """Return the changes with their times and with what share of the free memory is not in its largest part."""
    nothing = np.broadcast_to(np.int64(NULL), len(changes["step"]))
    columns: dict[str, Any] = dict.fromkeys(HEAP_COLUMNS, nothing) | dict(changes)
    columns["time_ns"] = run.clock.times_at(changes["step"])
    columns |= run.clock.columns(changes["step"])
    gaps = changes["gap_bytes"].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["address_fragmentation"] = np.where(gaps > 0, 1 - changes["largest_gap_bytes"] / gaps, 0.0)
    columns["heap_fragmentation"] = heap_fragmentation(columns)
    return columns


def _problem_columns(run: Analysis) -> dict[str, Any]:
    kept = sorted(run.source.problems.kept, key=lambda problem: (problem.file, problem.line))
    return {
        "line": np.array([problem.line for problem in kept], np.int64),
        "reason": [problem.reason for problem in kept],
        "text": [problem.text for problem in kept],
    }


def _block_columns(run: Analysis, blocks: Columns) -> dict[str, Any]:
    """Return the blocks but those that a forked child has from its parent and leaves alone."""
    hidden = (blocks["inherited"] == 1) & (blocks["end"] == LIVE)
    shown = ~hidden if hidden.any() else slice(None)
    columns: dict[str, Any] = {
        name: blocks[name][shown]
        for name in ("space", "addr", "size", "pid", "caller", "born_step", "died_step", "born_line", "died_line")
    }
    columns["call"] = Words(blocks["call"][shown], constants.CALLS)
    columns["backing"] = Words(blocks["backing"][shown], BACKINGS)
    columns["end"] = Words(blocks["end"][shown], ENDS)
    return columns | _lives(run, columns)


def _failure_columns(run: Analysis) -> dict[str, Any]:
    failures = run.activity.brk_failures
    if not len(failures["step"]):
        return {}
    columns = dict(failures) | run.clock.columns(failures["step"])
    columns["blocker"], columns["blocker_born_step"] = blockers_of(run)
    columns["shortfall_capped_bytes"] = capped(failures["shortfall_bytes"])
    return columns


def _mmap_columns(run: Analysis) -> dict[str, Any]:
    mmaps = run.activity.allocator_mmaps
    if not len(mmaps["step"]):
        return {}
    columns = dict(mmaps) | run.clock.columns(mmaps["step"])
    asked = mmaps["request_bytes"]
    return columns | {"bytes": capped(mmaps["bytes"]), "request_bytes": np.where(asked == NULL, NULL, capped(asked))}


def _fallback_columns(run: Analysis) -> dict[str, Any]:
    """Return the rows of `allocator_mmaps` that stood in for a failed brk."""
    kind, kinds = run.activity.allocator_mmaps["kind"], run.strings.intern_all(FALLBACK_KINDS)
    chosen = np.flatnonzero(is_among(kind, np.sort(np.array(kinds, np.int64))))
    return {name: column[chosen] for name, column in _mmap_columns(run).items()}


def _sorted(columns: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """Return columns with their rows sorted by those named in `order`; equal ones keep their places."""
    keys = [np.asarray(columns[name]) for name in order if columns]
    if not keys or len(keys[0]) < 2:
        return columns
    rows = np.lexsort(keys[::-1])
    return {name: _taken(column, rows) for name, column in columns.items()}


def _taken(column: Any, rows: Int64Array) -> Any:
    if isinstance(column, Words):
        return column._replace(ids=column.ids[rows])
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


_PARTED: Final[dict[str, tuple[Callable[[Analysis], PackedColumns], Callable[[Analysis, Columns], dict[str, Any]]]]] = {
    "events": (lambda run: run.replayed.events, _event_columns),
    "regions": (lambda run: run.replayed.regions, _region_columns),
    "blocks": (lambda run: run.malloc_blocks.columns, _block_columns),
    "fragmentation": (lambda run: run.changes, _change_columns),
}
"""The tables that are as long as the run, by what their rows are made of and how."""

_WHOLE: Final[dict[str, Callable[[Analysis], dict[str, Any]]]] = {
    "brk_failures": _failure_columns,
    "allocator_mmaps": _mmap_columns,
    "mmap_fallbacks": _fallback_columns,
    "timeline": lambda run: timeline_columns(run.changes, run.clock),
    "problems": _problem_columns,
    "summary": lambda run: {name: [value] for name, value in run.summary_values.items()},
}
"""The other tables."""
