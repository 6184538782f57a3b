"""What the report says as one row of numbers.

In go what was read, replayed and found, out come the columns of the table `summary` by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from replay import constants
from replay.allocator import Activity
from replay.blocks import DOUBLE_FREE, LIVE, UNKNOWN_FREE, Blocks
from replay.calls import RunInput
from replay.columns import NO_TEXT, NULL, Columns, Int64Array, Strings
from replay.regions import Replay

if TYPE_CHECKING:
    from replay.heap import Answer

FALLBACK_KINDS = ("fallback", "last_resort")


def summary_columns(
    source: RunInput, replayed: Replay, activity: Activity, blocks: Blocks, answer: Callable[[], Answer]
) -> dict[str, Any]:
    """Return the one row of the table `summary`, by column; None where nothing is known.

    For the answer about malloc is asked only where the log shows any call of its family.
    """
    strings = replayed.strings
    return {
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
        "duration_ns": _duration(replayed.events["time_ns"]),
        **_failures(replayed, activity, strings),
        **_mappings(activity.allocator_mmaps, strings),
        **_footprint(replayed),
        **_blocks(replayed, blocks, answer),
    }


def _programs(replayed: Replay, activity: Activity) -> dict[str, Any]:
    strings = replayed.strings
    programs = [strings[int(program)] for program in replayed.spaces["program"] if program != NO_TEXT]
    found = activity.allocators
    names = [strings[int(name)] for name in found["name"]]
    first = [name for name, space in zip(names, found["space"], strict=True) if space == 0]
    return {
        "programs": ",".join(dict.fromkeys(programs)) or None,
        "allocator": first[0] if first else "unknown",
        "allocators": ",".join(dict.fromkeys(names)) or "unknown",
    }


def _duration(times: Int64Array) -> int | None:
    known = times[times != NULL]
    return int(known.max() - known.min()) if known.size else None


def _failures(replayed: Replay, activity: Activity, strings: Strings) -> dict[str, Any]:
    failures = activity.brk_failures
    causes = Counter(strings[int(cause)] for cause in failures["cause"])
    return {
        "brk_calls": int((replayed.events["call"] == constants.CALL_CODE["brk"]).sum()),
        "brk_failures": len(failures["step"]),
        "brk_failure_causes": ",".join(cause for cause, _ in causes.most_common()),
        "brk_failure_shortfall_bytes": int(failures["shortfall_bytes"].sum()),
    }


def _mappings(mmaps: Columns, strings: Strings) -> dict[str, Any]:
    kinds = np.array([strings[int(kind)] for kind in mmaps["kind"]], dtype=object)
    granted = mmaps["errno"] == NO_TEXT
    fallback = np.isin(kinds, FALLBACK_KINDS) if len(kinds) else np.zeros(0, bool)
    direct = kinds == "direct" if len(kinds) else np.zeros(0, bool)
    size = mmaps["bytes"]
    return {
        "mmap_fallbacks": int(fallback.sum()),
        "mmap_fallback_bytes": int(size[fallback & granted].sum()),
        "mmap_fallbacks_refused": int((fallback & ~granted).sum()),
        "direct_mmaps": int(direct.sum()),
        "direct_mmap_bytes": int(size[direct & granted].sum()),
        "arena_heaps": int(((kinds == "arena_heap") & granted).sum()) if len(kinds) else 0,
    }


def _footprint(replayed: Replay) -> dict[str, Any]:
    """Return peaks over all spaces; what is said of the end is said of the space that held the most memory."""
    changes = replayed.changes
    if not len(changes["step"]):
        return dict.fromkeys(
            ("peak_mapped_bytes", "end_mapped_bytes", "peak_brk_bytes", "end_brk_bytes", "peak_mapping_count"), 0
        )
    peak = int(np.argmax(changes["mapped_bytes"]))
    last = int(np.flatnonzero(changes["space"] == changes["space"][peak])[-1])
    gaps = int(changes["gap_bytes"][last])
    headroom = changes["headroom_bytes"]
    headroom = headroom[headroom != NULL]
    several = changes["largest_gap_bytes"][changes["gap_count"] > 0]
    return {
        "peak_mapped_bytes": int(changes["mapped_bytes"][peak]),
        "peak_mapped_line": int(replayed.events["line"][changes["step"][peak]]),
        "end_mapped_bytes": int(changes["mapped_bytes"][last]),
        "peak_brk_bytes": int(changes["brk_bytes"].max()),
        "end_brk_bytes": int(changes["brk_bytes"][last]),
        "peak_mapping_count": int(changes["mapping_count"].max()),
        "min_headroom_bytes": int(headroom.min()) if headroom.size else None,
        "min_largest_gap_bytes": int(several.min()) if several.size else None,
        "address_fragmentation": 1 - int(changes["largest_gap_bytes"][last]) / gaps if gaps else 0.0,
    }


def _blocks(replayed: Replay, blocks: Blocks, answer: Callable[[], Answer]) -> dict[str, Any]:
    """Return what became of the blocks of all spaces, a fork's copies not counted again.

    What is said of the heap's end is said of the space that had the most bytes live at once.
    """
    counts = {
        "allocations": len(blocks.given_steps),
        "frees": len(blocks.taken_steps),
        "double_frees": blocks.count(DOUBLE_FREE),
        "unknown_frees": blocks.count(UNKNOWN_FREE),
    }
    if not blocks.seen:
        return counts
    from replay.live import course_of_all, one_space  # noqa: PLC0415  (many logs show no malloc)

    columns, found = blocks.columns, answer()
    live = (columns["end"] == LIVE) & (columns["inherited"] == 0)
    peak_bytes, peak_clock = found.peak.live_bytes, found.peak.line
    if not one_space(columns["space"]):
        peak_bytes, peak_clock = course_of_all(columns, replayed.spaces).peak()
    step = np.searchsorted(replayed.events["clock"], peak_clock, side="left")
    line, end = replayed.events["line"], found.end
    return counts | {
        "live_blocks": int(live.sum()),
        "live_bytes": int(columns["size"][live].sum()),
        "peak_live_bytes": peak_bytes,
        "peak_live_line": int(line[min(int(step), len(line) - 1)]),
        "heap_fragmentation": end.fragmentation,
        "pinned_bytes": end.pinned_bytes,
    }
