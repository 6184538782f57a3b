"""The part of the JSON document about malloc: what the text says of it, with all rows that it leaves out.

In go findings about malloc, out come plain values under stable keys: addresses as `"0x…"`, sizes in bytes, shares from
0 to 1, times in ns, and the line of the log with each.
"""

from __future__ import annotations

from math import isnan
from typing import Any, Final

from replay.console.amounts import address
from replay.heap.snapshot import KEY_SIZES, HeapSnapshot
from replay.report.facts import Curve
from replay.report.malloc.facts import Fault
from replay.report.malloc.findings import MallocFindings
from replay.report.malloc.verdict import to_try, verdict
from replay.run.places import place_values

_MOST_POINTS: Final = 200
"""As many points of a curve the document has; the table fragmentation has all."""


def json_report(malloc: MallocFindings) -> dict[str, Any]:
    """Return what is to be said about malloc as values for JSON."""
    return {
        "verdict": [paragraph.text for paragraph in verdict(malloc)],
        "advice": list(to_try(malloc)),
        "answer": _answer(malloc),
        "blocks": _blocks(malloc),
        "spaces": [
            {
                "space": row.space,
                "allocations": row.allocations,
                "frees": row.frees,
                "live_blocks": row.live_blocks,
                "live_bytes": row.live_bytes,
            }
            for row in malloc.spaces
        ],
        "growth": _growth(malloc),
        "heap": _heap(malloc),
        "pins": _pins(malloc),
        "leaks": _leaks(malloc),
        "causes": _causes(malloc),
        "threshold_raises": [
            {
                "step": row.step,
                **place_values(malloc.places.of_step(row.step)),
                "space": row.space,
                "before_bytes": row.before,
                "after_bytes": row.after,
                "observed": row.observed,
            }
            for row in malloc.raises
        ],
    }


def _answer(malloc: MallocFindings) -> dict[str, Any] | None:
    """Return the answer and the numbers that decide; None where the log shows no block."""
    if not len(malloc.run.malloc_blocks):
        return None
    found, (picture, moment) = malloc.diagnosis, malloc.decisive
    return {
        "answer": malloc.word,
        "leaking": malloc.leaking and not malloc.leak_untold,
        "growing": found.growth.growing,
        "fragmented": found.fragmented,
        "fragmented_between": malloc.passing,
        "space": found.space,
        "leaked_blocks": found.leaked_blocks,
        "leaked_bytes": found.leaked_bytes,
        "leaked_share_of_peak": found.leaked_share,
        "held_bytes": picture.held_bytes,
        "held_share_of_heap": picture.held_bytes / picture.heap_bytes if picture.heap_bytes else 0.0,
        "held_moment": moment,
        **place_values(malloc.places.of_clock(picture.line), "held_"),
    }


def _blocks(malloc: MallocFindings) -> dict[str, Any]:
    summary, seen = malloc.run.summary_values, len(malloc.run.malloc_blocks) > 0
    peak = malloc.diagnosis.peak if seen else None
    return {
        "allocations": summary["allocations"],
        "reallocations": malloc.resized,
        "frees": summary["frees"],
        "live_blocks": summary.get("live_blocks") or 0,
        "live_bytes": summary.get("live_bytes") or 0,
        "peak_live_bytes": peak.live_bytes if peak else 0,
        "peak_live_blocks": peak.live_blocks if peak else 0,
        **place_values(malloc.places.of_clock(peak.line) if peak else None, "peak_live_"),
        "failed_allocations": _fault(malloc.failed),
        "double_frees": _fault(malloc.double_frees),
        "unknown_frees": _fault(malloc.unknown_frees),
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {"count": fault.count, **place_values(fault.first, "first_"), "first": fault.text or None}


def _growth(malloc: MallocFindings) -> dict[str, Any] | None:
    """Return how live memory developed; the curves have the last value of each of equal numbers of changes."""
    if not len(malloc.run.malloc_blocks):
        return None
    growth, (live, held) = malloc.diagnosis.growth, malloc.curves
    return {
        "low_water_bytes": list(growth.low_water),
        "live_bytes_half": growth.live_bytes_half,
        "live_bytes_end": growth.live_bytes_end,
        "live": _curve(malloc, live),
        "held": _curve(malloc, held),
    }


def _curve(malloc: MallocFindings, curve: Curve) -> list[dict[str, Any]]:
    count = len(curve.clocks)
    points = min(count, _MOST_POINTS)
    rows = [(at + 1) * count // points - 1 for at in range(points)]
    return [
        {**place_values(malloc.places.of_clock(int(curve.clocks[row]))), "bytes": int(curve.values[row])}
        for row in rows
    ]


def _heap(malloc: MallocFindings) -> dict[str, Any] | None:
    if not len(malloc.run.malloc_blocks):
        return None
    found = malloc.diagnosis
    return {
        "space": found.space,
        "at_peak_live": _picture(malloc, found.peak),
        "at_largest": _picture(malloc, found.largest),
        "at_worst": _picture(malloc, malloc.worst),
        "at_end": _picture(malloc, found.end),
        "johnstone_wilson_3": None if isnan(found.measure_3) else found.measure_3,
        "johnstone_wilson_4": None if isnan(found.measure_4) else found.measure_4,
        "whole_free_pages_bytes_at_end": malloc.whole_free_pages,
    }


_SCALARS: Final = (
    "live_blocks live_bytes rounding_bytes heap_bytes direct_bytes unseen_bytes free_bytes slack_bytes "
    "largest_free_bytes pinned_bytes held_bytes top_bytes trimmable_bytes live_pages page_live_share inferred"
).split()


def _picture(malloc: MallocFindings, picture: HeapSnapshot) -> dict[str, Any]:
    return {
        **place_values(malloc.places.of_clock(picture.line)),
        **{name: getattr(picture, name) for name in _SCALARS},
        "external_fragmentation": picture.fragmentation,
        "utilisation": picture.utilisation,
        "free_ranges": [
            {"size_class": size_class, "count": count, "bytes": total}
            for size_class, count, total in picture.histogram()
        ],
        "unusable_free_index": [
            {"request_bytes": asked, "share": share} for asked, share in picture.unusable_index(KEY_SIZES)
        ],
    }


def _pins(malloc: MallocFindings) -> list[dict[str, Any]]:
    if not len(malloc.run.malloc_blocks):
        return []
    return [
        {
            "addr": address(pin.addr),
            "bytes": pin.size,
            "call": pin.call,
            "caller": pin.caller or None,
            "pid": pin.pid,
            **place_values(pin.born),
            "age_lines": pin.age_lines,
            "age_ns": pin.age_ns,
            "released_bytes": pin.released_bytes,
            "blocks_above": pin.blocks_above,
        }
        for pin in malloc.pins
    ]


def _leaks(malloc: MallocFindings) -> list[dict[str, Any]]:
    return [
        {
            "space": group.space,
            "call": group.call,
            "caller": group.caller or None,
            "size_class": group.size_class,
            "least_bytes": group.least,
            "most_bytes": group.most,
            "count": group.count,
            "bytes": group.bytes,
            **place_values(group.first, "first_"),
            **place_values(group.last, "last_"),
            "oldest_age_lines": group.age_lines,
            "oldest_age_ns": group.age_ns,
        }
        for group in malloc.leaks
    ]


def _causes(malloc: MallocFindings) -> list[dict[str, Any]]:
    return [
        {
            "kind": cause.kind,
            "call": cause.call,
            "caller": cause.caller or None,
            "least_request_bytes": cause.least_request,
            "most_request_bytes": cause.most_request,
            "count": cause.count,
            "bytes": cause.bytes,
            "least_bytes": cause.least,
            "most_bytes": cause.most,
            **malloc.places.values_of_steps(cause.first_step, cause.last_step),
        }
        for cause in malloc.causes
    ]
