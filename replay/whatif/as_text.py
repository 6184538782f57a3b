"""The page of `replay whatif`: how far the run can be trusted, a row a policy, and one sentence that answers.

In go the rows, out come lines or one document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from replay.console.amounts import number, percent, size
from replay.console.screen import styled, wrapped
from replay.console.table import fitted_widths, room_for, table
from replay.whatif.agreement import Agreement
from replay.whatif.policies import Row, WhatIf

_BEST, _WORST = "+", "!"
_MATTERS: Final = 0.02
"""Peaks that differ by less are called the same. Heuristic."""


class _Column(NamedTuple):
    head: str
    value: Callable[[Row], float | None]
    text: Callable[[Any], str]
    weight: int
    ranked: bool = True


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{value:.2f}"


def _mebibytes(value: float) -> str:
    return f"{value / (1 << 20):,.1f}"


_COLUMNS: Final = (
    _Column("brk", lambda row: row.brk_calls, _count, 10),
    _Column("refused", lambda row: row.refused, _count, 11),
    _Column("fallbacks", lambda row: row.fallbacks, _count, 9),
    _Column("their MiB", lambda row: row.fallback_bytes, _mebibytes, 6),
    _Column("arenas", lambda row: row.arenas, _count, 4),
    _Column("peak MiB", lambda row: row.peak_mapped_bytes, _mebibytes, 12),
    _Column("end MiB", lambda row: row.end_mapped_bytes, _mebibytes, 8),
    _Column("resident MiB", lambda row: row.resident_bytes, _mebibytes, 7),
    _Column("at peak MiB", lambda row: row.resident_at_peak_bytes, _mebibytes, 7),
    _Column("mappings", lambda row: row.mappings, _count, 5),
    _Column("heap frag.", lambda row: row.heap_fragmentation, _share, 3),
    _Column("space frag.", lambda row: row.address_fragmentation, _share, 1),
    _Column("NULL", lambda row: row.null_answers, _count, 9),
    _Column("seconds", lambda row: row.seconds, lambda value: f"{value:.2f}", 2, ranked=False),
)


def whatif_lines(found: WhatIf) -> Iterator[str]:
    """Yield the page."""
    yield from wrapped(styled("good" if found.agreement.is_enough else "bad", proof(found.agreement, found.doubts)))
    yield ""
    yield from wrapped(answer(found))
    yield ""
    shown = [row for row in found.rows if row.brk_calls is not None]
    names = [row.name if found.agreement.is_enough or row is shown[0] else f"{row.name} (indicative)" for row in shown]
    columns = _fitting([column for column in _COLUMNS if any(column.value(row) for row in shown)], names, shown)
    rows = [[name, *(_cell(column, row, shown) for column in columns)] for name, row in zip(names, shown, strict=True)]
    yield from table(
        ["policy", *(column.head for column in columns)], rows, right=range(1, len(columns) + 1), indent=""
    )
    yield ""
    yield from wrapped(
        f"{_BEST} least and {_WORST} most of a column; --json has all columns.",
    )
    for row in found.rows:
        if row.note:
            yield from wrapped(row.note, first=f"{row.name}: ", rest="  ")
    if found.unserved:
        text = f"{number(found.unserved, 'request')} of a size that the log does not show (strdup) could not be served."
        yield from wrapped(text)


def _fitting(columns: list[_Column], names: Sequence[str], rows: Sequence[Row]) -> list[_Column]:
    """Return the columns that the output has room for; those that say least go first, and `--json` has them all."""
    for least in [None, *sorted(columns, key=lambda column: column.weight)]:
        columns = [column for column in columns if column is not least]
        cells = [
            [name, *(_cell(column, row, rows) for column in columns)] for name, row in zip(names, rows, strict=True)
        ]
        head = ["policy", *(column.head for column in columns)]
        if fitted_widths(head, cells, (), room_for(len(head))) is not None:
            break
    return columns


def _cell(column: _Column, row: Row, rows: Sequence[Row]) -> str:
    """Return a figure, with a mark where it is the least or the most of its column."""
    value = column.value(row)
    if value is None:
        return "  "
    known = [other for each in rows if (other := column.value(each)) is not None]
    low, high = min(known), max(known)
    mark = {low: _BEST, high: _WORST}.get(value, " ")
    if not column.ranked or low == high or known.count(value) * 2 > len(known):
        mark = " "
    return column.text(value) + mark


def proof(agreement: Agreement, reasons: Sequence[str]) -> str:
    """Return how much of the recording the recorded settings gave again, and why not all where it is not enough."""
    parts = []
    if agreement.brk_calls:
        final = "final break equal" if agreement.final_break_same else "final break not equal"
        parts.append(f"{agreement.brk_same:,} of {agreement.brk_calls:,} brk calls the same, {final}")
    if agreement.places:
        parts.append(f"{agreement.places_same:,} of {number(agreement.places, 'block')} in the same place")
    text = "; ".join(parts) or "the recording has nothing to compare with"
    if agreement.is_enough:
        return f"Served again as recorded: {text}."
    why = "; ".join(reasons)
    share = percent(round(agreement.share * 1000), 1000)
    return (
        f"Served again as recorded, only {share} came out the same: {text}. {why[0].upper()}{why[1:]}. "
        "The other rows are indicative."
    )


def answer(found: WhatIf) -> str:
    """Return the one sentence that answers: what would have avoided the refusals, or held the least."""
    recorded, others = found.rows[0], [row for row in found.rows[1:] if row.peak_mapped_bytes is not None]
    if not others:
        return "No other policy could be tried."
    if recorded.refused:
        good = [row for row in others if not row.refused and not row.null_answers and not row.note]
        asked = number(recorded.refused, "growth of the break was refused", "growths of the break were refused")
        if good:
            return f"{asked} as recorded. None would have been with {_listed(good)}."
        return f"{asked} as recorded, and with each of the other policies some would have been, too."
    served = [row for row in others if not row.null_answers or row.null_answers <= (recorded.null_answers or 0)]
    starved = [row for row in others if row not in served]
    said = [f"Requests would have been refused with {_listed(starved)}."] if starved else []
    return " ".join([*said, *([_least(recorded, served)] if served else [])])


def _least(recorded: Row, others: Sequence[Row]) -> str:
    """Say which policy held the least at its peak, if that differs."""
    peak = recorded.peak_mapped_bytes or 0
    best = min(others, key=lambda row: row.peak_mapped_bytes or 0)
    most = best.peak_mapped_bytes or 0
    if most >= peak * (1 - _MATTERS):
        return (
            f"None would have held much less: the peak was {size(peak)} as recorded and is {size(most)} at the least."
        )
    return (
        f"{best.name} would have held the least: {size(most)} mapped at its peak, where {size(peak)} were recorded; "
        "both with what is only reserved, such as arenas of threads (--touch tells what is resident)."
    )


def _listed(rows: Sequence[Row]) -> str:
    names = [row.name for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def whatif_document(found: WhatIf) -> dict[str, Any]:
    """Return the page as one document."""
    agreement = found.agreement
    return {
        "requests": found.requests,
        "threads": found.threads,
        "unserved_requests": found.unserved,
        "agreement": agreement._asdict() | {"share": agreement.share, "is_enough": agreement.is_enough},
        "proof": proof(agreement, found.doubts),
        "answer": answer(found),
        "policies": found.as_dicts(),
    }
