"""Two sides compared, as values for JSON: what the text says, with all rows that it leaves out.

In goes a comparison, out come plain values under stable keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from replay.datasets.comparison import Comparison, Count, FloatArray, Group, Number, Row
from replay.datasets.sides import Side
from replay.report.as_json import DOCUMENT_VERSION
from replay.report.compare import whole
from replay.version import __version__


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Return the comparison as values for JSON: sizes in bytes, times in ns, shares as ratios."""
    before, after = found.sides
    return {
        "replay": {"version": __version__, "document": DOCUMENT_VERSION},
        "before": _side_values(before),
        "after": _side_values(after),
        "summary": [_row_values(row) for row in found.rows],
        "texts": {name: {"before": words[0], "after": words[1]} for name, words in found.texts.items()},
        "brk_failures": _group_values(found.failures, ("cause", "blocker"), "shortfall_bytes"),
        "mmap_fallbacks": _group_values(found.fallbacks, ("kind", "allocator", "errno"), "bytes"),
        "paired_runs": [list(pair) for pair in found.paired],
        "curves": {
            "runs": dict(zip(("before", "after"), found.curve_runs, strict=True)),
            "columns": {
                curves.column.name: {"before": _points(curves.before), "after": _points(curves.after)}
                for curves in found.curves
            },
        },
    }


def _side_values(side: Side) -> dict[str, Any]:
    return {"label": side.label, "kind": side.kind, "runs": list(side.summaries)}


def _row_values(row: Row) -> dict[str, Any]:
    pairs = None if row.pairs is None else {**asdict(row.pairs), "chance": row.pairs.chance}
    return {
        "column": row.column.name,
        "unit": row.column.unit,
        "before": None if row.before is None else row.before.median,
        "after": None if row.after is None else row.after.median,
        "change": row.change,
        "share": row.share,
        "apart": row.apart,
        "spread": {
            "before": None if row.before is None else asdict(row.before),
            "after": None if row.after is None else asdict(row.after),
        },
        "pairs": pairs,
    }


def _group_values(groups: Sequence[Group], keys: tuple[str, ...], amount: str) -> list[dict[str, Any]]:
    return [
        {
            "what": group.what,
            **{name: text or None for name, text in zip(keys, group.key, strict=True)},
            "before": _count_values(group.before, amount),
            "after": _count_values(group.after, amount),
        }
        for group in groups
    ]


def _count_values(count: Count | None, amount: str) -> dict[str, Any] | None:
    if count is None:
        return None
    return {
        "rows": count.rows,
        "runs": count.runs,
        amount: count.bytes,
        "first_run": count.run,
        "first_line": count.line,
    }


def _points(values: FloatArray) -> list[Number | None]:
    return [None if math.isnan(value) else whole(value) for value in values.tolist()]
