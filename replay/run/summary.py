"""What the report says as one row of numbers.

In go what was read, replayed and found, out come the columns of the table `summary` by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from replay.allocator import Activity
from replay.calls.reader import LogReader
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Strings
from replay.heap.blocks import DOUBLE_FREE, LIVE, UNKNOWN_FREE, Blocks
from replay.linux import constants
from replay.run.clock import EPOCH, Clock
from replay.spaces.footprint import Footprint
from replay.spaces.replay import Replay
from replay.tables import MOST_SUMMED, TABLES
from replay.tables.schema import FALLBACK_KINDS

if TYPE_CHECKING:
    from replay.heap.diagnosis import Diagnosis

_ANY_ACCESS = 7


def summary_columns(
    source: LogReader,
    replayed: Replay,
    clock: Clock,
    calls: Int64Array,
    footprint: Footprint,
    activity: Activity,
    blocks: Blocks,
    diagnosis: Callable[[], Diagnosis],
) -> dict[str, Any]:
    """Return the one row of the table `summary`, by column; None where nothing is known.

    `calls` tells how many there are by code. For the answer about malloc is asked only where the log shows any call of
    its family.
    """
    strings = replayed.strings
    found = {
        "source": ",".join(source.files),
        "dialect": source.dialect,
        **_programs(replayed, activity),
        "lines": source.counters.lines,
        "lines_understood": source.counters.lines_understood,
        "lines_skipped": source.counters.lines_passed_over,
        "problems": source.problems.total,
        "processes": replayed.processes,
        "threads": replayed.threads,
        "spaces": len(replayed.spaces["space"]),
        "duration_ns": clock.duration_ns,
        "clock": clock.kind,
        **_epoch_times(clock),
        **_failures(calls, activity, strings),
        **_mappings(activity.allocator_mmaps, strings),
        **_footprint(replayed, footprint),
        "log_end": log_end(replayed, first_programs_space(replayed)),
        **_blocks(replayed, blocks, diagnosis),
    }
    return {column.name: found.get(column.name) for column in TABLES["summary"].columns}


def first_programs_space(replayed: Replay) -> int:
    """Return the last space of the first thread of the log: that of the program that the log is of."""
    tids = replayed.events["tid"]
    mine = np.flatnonzero(tids == tids[0]) if len(tids) else tids
    return int(replayed.events.one("space", int(mine[-1]))) if len(mine) else 0


def log_end(replayed: Replay, space: int) -> str:
    """Return how the log of a space ends: `exit` by its own exit, `killed` by a signal, `cut` before either."""
    ends = replayed.spaces["ended_by"]
    ended_by = int(ends[space]) if space < len(ends) else NULL
    if ended_by == constants.KILLED:
        return "killed"
    return "cut" if ended_by == NULL else "exit"


def _resident_at_most(replayed: Replay, space: int, clock: int, mapped: int) -> int:
    """Return how much of what a space has `mapped` at a line can be touched: the rest has no access."""
    regions = replayed.regions
    for number in range(regions.parts):
        rows = np.flatnonzero(regions.part(number, ["prot"])["prot"] & _ANY_ACCESS == 0)
        if len(rows):
            names = ["born_line", "died_line", "space", "start", "end"]
            part = {name: column[rows] for name, column in regions.part(number, names).items()}
            reserved = (part["space"] == space) & (part["born_line"] <= clock)
            reserved &= (part["died_line"] == NULL) | (part["died_line"] > clock)
            mapped -= int((part["end"][reserved] - part["start"][reserved]).sum())
    return max(mapped, 0)


def _programs(replayed: Replay, activity: Activity) -> dict[str, Any]:
    strings = replayed.strings
    programs = [strings[int(program)] for program in replayed.spaces["program"] if program != NO_TEXT]
    found = activity.allocators
    names = [strings[int(name)] for name in found["name"]]
    first = [name for name, space in zip(names, found["space"], strict=True) if space == 0]
    return {
        "programs": ",".join(dict.fromkeys(programs)) or None,
        "program": programs[0] if programs else None,
        "allocator": first[0] if first else "unknown",
        "allocators": ",".join(dict.fromkeys(names)) or "unknown",
    }


def _epoch_times(clock: Clock) -> dict[str, int | None]:
    """Return the first and the last time in microseconds since 1970, None where the log tells no date."""
    times = {"start_time": clock.first_ns, "end_time": clock.last_ns}
    return {name: None if time is None or clock.kind != EPOCH else time // 1000 for name, time in times.items()}


def _failures(calls: Int64Array, activity: Activity, strings: Strings) -> dict[str, Any]:
    failures = activity.brk_failures
    causes = Counter(failures["cause"].tolist())
    return {
        "brk_calls": int(calls[constants.CALL_CODE["brk"]]),
        "brk_failures": len(failures["step"]),
        "brk_failure_causes": ",".join(strings[cause] for cause, _ in causes.most_common()),
        "brk_failure_shortfall_bytes": min(sum(capped(failures["shortfall_bytes"]).tolist()), MOST_SUMMED),
    }


def _mappings(mmaps: Columns, strings: Strings) -> dict[str, Any]:
    granted, size = mmaps["errno"] == NO_TEXT, capped(mmaps["bytes"])
    fallback = np.isin(mmaps["kind"], strings.intern_all(FALLBACK_KINDS))
    direct, arena_heap = (mmaps["kind"] == strings.intern(kind) for kind in ("direct", "arena_heap"))
    return {
        "mmap_fallbacks": int(fallback.sum()),
        "mmap_fallback_bytes": int(size[fallback & granted].sum()),
        "mmap_fallbacks_refused": int((fallback & ~granted).sum()),
        "direct_mmaps": int(direct.sum()),
        "direct_mmap_bytes": int(size[direct & granted].sum()),
        "arena_heaps": int((arena_heap & granted).sum()),
    }


def _footprint(replayed: Replay, footprint: Footprint) -> dict[str, Any]:
    """Return peaks over all spaces; what is said of the end is said of the space that held the most memory."""
    peak, last = footprint.peak, footprint.last
    if peak is None or last is None:
        return {}
    names = ("step", "line", "space", "mapped_bytes", "brk_bytes", "gap_bytes", "largest_gap_bytes")
    at_peak, at_end = (_row(replayed.changes, row, names) for row in (peak, last))
    gaps = at_end["gap_bytes"]
    return {
        "peak_mapped_bytes": at_peak["mapped_bytes"],
        "peak_mapped_space": at_peak["space"],
        "peak_mapped_line": _row(replayed.events, at_peak["step"], ["line"])["line"],
        "end_mapped_bytes": at_end["mapped_bytes"],
        "peak_brk_bytes": int(footprint.most_brk.max()),
        "end_brk_bytes": at_end["brk_bytes"],
        "peak_mapping_count": footprint.mapping_count,
        "min_headroom_bytes": footprint.least_headroom,
        "min_largest_gap_bytes": footprint.least_largest_gap,
        "resident_at_most_bytes": _resident_at_most(
            replayed, at_peak["space"], at_peak["line"], at_peak["mapped_bytes"]
        ),
        "address_fragmentation": 1 - at_end["largest_gap_bytes"] / gaps if gaps else 0.0,
    }


def _row(columns: PackedColumns, row: int, names: Sequence[str]) -> dict[str, int]:
    """Return what some columns hold in one row."""
    return {name: columns.one(name, row) for name in names}


def _blocks(replayed: Replay, blocks: Blocks, diagnosis: Callable[[], Diagnosis]) -> dict[str, Any]:
    """Return what became of the blocks of all spaces, a fork's copies not counted again.

    What is said of the heap's end is said of the space that had the most bytes live at once.
    """
    if not blocks.seen:
        return {}
    columns, found = blocks.columns, diagnosis()
    live = np.flatnonzero((columns["end"] == LIVE) & (columns["inherited"] == 0))
    peak_bytes, step = peak_live(replayed, blocks, found)
    end = found.end
    return {
        "allocations": int(np.count_nonzero(columns["inherited"] == 0)),
        "frees": len(blocks.taken_steps),
        "double_frees": blocks.count(DOUBLE_FREE),
        "unknown_frees": blocks.count(UNKNOWN_FREE),
        "live_blocks": len(live),
        "live_bytes": int(columns.at("size", live).sum()),
        "peak_live_bytes": peak_bytes,
        "peak_live_line": _row(replayed.events, step, ["line"])["line"],
        "heap_fragmentation": end.fragmentation,
        "pinned_bytes": end.pinned_bytes,
    }


def peak_live(replayed: Replay, blocks: Blocks, diagnosis: Diagnosis) -> tuple[int, int]:
    """Return the most bytes of blocks that all spaces had live at once, and the step that reached them first."""
    from replay.heap.live_bytes import live_bytes_of_all, one_space

    peak_bytes, peak_clock = diagnosis.peak.live_bytes, diagnosis.peak.line
    if not one_space(blocks.columns["space"]):
        peak_bytes, peak_clock = live_bytes_of_all(blocks.columns, replayed.spaces).peak()
    step = replayed.events.count_up_to("clock", peak_clock - 1)
    return peak_bytes, min(step, replayed.events.rows - 1)


def capped(sizes: Int64Array) -> Int64Array:
    """Return sizes that are safe to add up: none above `MOST_SUMMED`, of which the bits of more than 2^63 are taken."""
    return np.minimum(sizes.view(np.uint64), np.uint64(MOST_SUMMED)).astype(np.int64)
