"""What a comparison calls the columns of the summary, and which of their changes mean something.

In go rows of a comparison, out come words and answers. How they are laid out this module does not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from replay.console.amounts import number, size
from replay.datasets.comparison import Row

RANDOM_BYTES: Final = 1 << 40
"""What address randomisation moves mappings by: 28 bits of pages.

Source: Linux, arch/x86/Kconfig, ARCH_MMAP_RND_BITS.
"""

_PLACED_AT_RANDOM: Final = ("min_headroom_bytes", "min_largest_gap_bytes")
_RATIO_OF_RANDOM: Final = "address_fragmentation"

_LEAST_RATIO: Final = 0.01
_MOST_PER_CENT: Final = 1000

_NAMES: Final = {
    "lines": "lines of the log",
    "lines_skipped": "lines passed over",
    "spaces": "address spaces",
    "duration_ns": "duration",
    "brk_failures": "failed brk calls",
    "brk_failure_shortfall_bytes": "failed brk calls, short by",
    "mmap_fallbacks": "fallbacks to mmap",
    "mmap_fallback_bytes": "fallbacks to mmap, bytes",
    "mmap_fallbacks_refused": "fallbacks refused",
    "direct_mmaps": "large blocks mapped alone",
    "direct_mmap_bytes": "large blocks mapped alone, bytes",
    "arena_heaps": "heaps of arenas",
    "end_mapped_bytes": "mapped at the end",
    "peak_brk_bytes": "peak brk area",
    "end_brk_bytes": "brk area at the end",
    "peak_mapping_count": "peak mappings",
    "min_headroom_bytes": "least headroom",
    "min_largest_gap_bytes": "least largest gap",
    "allocations": "blocks handed out",
    "frees": "blocks given back",
    "live_blocks": "blocks live at the end",
    "live_bytes": "live at the end",
    "pinned_bytes": "pinned at the end",
    "unknown_frees": "frees of unknown blocks",
    "resident_at_most_bytes": "resident at most",
    "recorder_bytes": "the recorder's own, mapped",
    "peak_resident_bytes": "peak resident",
}


def name_of(column: str) -> str:
    """Return what a column of the summary is called on the screen."""
    return _NAMES.get(column, column.removesuffix("_bytes").replace("_", " "))


def is_known(row: Row) -> bool:
    """Tell whether a row is more than zero or unknown on one side at least."""
    return any(side is not None and side.median != 0 for side in (row.before, row.after))


def is_random(row: Row) -> bool:
    """Tell whether address randomisation alone makes a change of that size."""
    if row.before is None or row.after is None or not row.change:
        return False
    values = (row.before.median, row.after.median)
    if row.column.name in _PLACED_AT_RANDOM:
        return min(values) >= RANDOM_BYTES
    return row.column.name == _RATIO_OF_RANDOM and max(values) < _LEAST_RATIO


def _from_random(row: Row) -> bool:
    """Tell whether a side is as far as address randomisation puts mappings apart: no share of that means anything."""
    sides = (side.median for side in (row.before, row.after) if side is not None)
    return row.column.name in _PLACED_AT_RANDOM and max(sides, default=0) >= RANDOM_BYTES


def per_cent(row: Row) -> str:
    """Return a change in per cent, empty where it says nothing.

    That is without a change, where it is more than tenfold, and of what address randomisation alone has laid.
    """
    if not row.change or _from_random(row):
        return ""
    if row.share is None:
        return "new"
    share = 100 * row.share
    return f"{share:+.1f} %" if abs(share) < _MOST_PER_CENT else ""


def verdict_of(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence what is the matter with the runs of a side."""
    if len(summaries) > 1:
        failed = sum(bool(summary.get("brk_failures")) for summary in summaries)
        return f"brk refused in {failed} of {number(len(summaries), 'run')}"
    (summary,) = summaries
    failures, said = int(summary.get("brk_failures") or 0), "no brk refused"
    if failures:
        causes = str(summary.get("brk_failure_causes") or "").replace(",", ", ").replace("_", " ")
        fallbacks = int(summary.get("mmap_fallbacks") or 0)
        then = f", {number(fallbacks, 'fallback')} to mmap" if fallbacks else ""
        said = f"brk refused {failures:,} of {int(summary.get('brk_calls') or 0):,} times ({causes}){then}"
    live = summary.get("live_bytes")
    return said if live is None else f"{said}; {size(int(live))} live at the end"
