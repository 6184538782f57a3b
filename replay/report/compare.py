"""Two sides compared, as lines for the screen.

In goes a `Comparison`, out come lines with style marks, no wider than the output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

import numpy as np

from replay.console.amounts import duration, number, size
from replay.console.screen import cells, clean, padded, shortened, styled, wrapped
from replay.console.table import table
from replay.console.terminal import width
from replay.datasets.comparison import FEW_RUNS, Comparison, Count, Curves, FloatArray, Group, Number, Row, Spread
from replay.datasets.sides import Side
from replay.report.compare_words import is_known, is_random, name_of, per_cent, verdict_of
from replay.report.drawing import BARS

MOST_ROWS: Final = 12
"""As many groups, or pairs, the screen shows; the rest is in the JSON document."""

_LEAST_RATIO: Final = 0.01

_WORST_FIRST: Final = (
    "peak_mapped_bytes",
    "peak_brk_bytes",
    "peak_live_bytes",
    "live_bytes",
    "heap_fragmentation",
    "address_fragmentation",
)
"""The columns that the verdict speaks of."""


def comparison_lines(found: Comparison, *, all_rows: bool = False) -> Iterator[str]:
    """Yield the comparison: the verdict of both sides, what changed most, then everything side by side.

    `all_rows`: those too that are zero or unknown on both sides.
    """
    yield from _title(found)
    yield ""
    yield styled("title", "What changed")
    yield from _verdict(found)
    for heading, lines in (
        ("Failed brk calls", list(_groups(found, found.failures, ("cause", "in the way")))),
        ("Fallbacks", list(_groups(found, found.fallbacks, ("kind", "allocator", "refused")))),
        ("Summary", list(_summary(found, all_rows=all_rows))),
        ("Run by run", list(_paired(found))),
        ("Over the log", list(_curves(found))),
    ):
        if lines:
            yield ""
            yield styled("title", heading)
            yield from lines


# --- head and verdict ------------------------------------------------------------------------------------------------


def _title(found: Comparison) -> Iterator[str]:
    for name, side in zip(("before", "after"), found.sides, strict=True):
        facts = _facts(side)
        room = width() - 9 - cells(facts) - 2
        yield f"{name:<7}  {styled('strong', shortened(clean(side.label), room))}  {facts}"
        yield from wrapped(clean(verdict_of(list(side.summaries.values()))), first=" " * 9)


def _facts(side: Side) -> str:
    if len(side.summaries) > 1:
        return number(len(side.summaries), "run")
    (summary,) = side.summaries.values()
    program = PurePath(str(summary.get("programs") or "").split(",")[0]).name
    lines = number(int(summary.get("lines") or 0), "line")
    return f"{shortened(clean(program), 24)}, {lines}" if program else lines


def _verdict(found: Comparison) -> Iterator[str]:
    paragraphs = [*_failed(found), *_fell_back(found), *_amounts(found), *_words(found)]
    for tone, text in paragraphs or [("good", "Nothing that the summary counts.")]:
        yield from wrapped(styled(tone, clean(text)) if tone else clean(text), first="  ")


def _failed(found: Comparison) -> Iterator[tuple[str, str]]:
    before, after = (_total(found.failures, side) for side in ("before", "after"))
    if not before and not after:
        return
    new = [group for group in found.failures if group.what == "new"]
    gone = [group for group in found.failures if group.what == "gone"]
    tone = _tone(found, before, after)
    counts = f"{before:,} before, {after:,} after" if before != after else f"{before:,} before and after"
    runs = "" if not found.of_many else f" ({_in_runs(found, found.failures)})"
    parts = [f"{len(new)} new" * bool(new), f"{len(gone)} gone" * bool(gone)]
    causes = f"; causes: {', '.join(filter(None, parts))}" if any(parts) else ""
    yield tone, f"Failed brk calls: {counts}{runs}{causes}."


def _fell_back(found: Comparison) -> Iterator[tuple[str, str]]:
    before, after = (_total(found.fallbacks, side) for side in ("before", "after"))
    if before or after:
        tone = _tone(found, before, after)
        counts = f"{before:,} before, {after:,} after" if before != after else f"{before:,} before and after"
        runs = "" if not found.of_many else f" ({_in_runs(found, found.fallbacks)})"
        yield tone, f"Fallbacks to mmap: {counts}{runs}."


def _tone(found: Comparison, before: int, after: int) -> str:
    """Return how a change of a count is to be taken, a run on average."""
    rates = [count / len(side.summaries) for count, side in zip((before, after), found.sides, strict=True)]
    return "bad" if rates[1] > rates[0] else "good" if rates[1] < rates[0] else ""


def _in_runs(found: Comparison, groups: Sequence[Group]) -> str:
    """Return in how many runs of each side at least one of the groups was met: `in 3 of 10 runs, then in 5 of 9`."""
    column = "brk_failures" if groups is found.failures else "mmap_fallbacks"
    met = [sum(bool(summary.get(column)) for summary in side.summaries.values()) for side in found.sides]
    all_ = [len(side.summaries) for side in found.sides]
    return f"in {met[0]} of {number(all_[0], 'run')}, then in {met[1]} of {all_[1]}"


def _total(groups: Sequence[Group], side: str) -> int:
    counts = (group.before if side == "before" else group.after for group in groups)
    return sum(count.rows for count in counts if count is not None)


def _amounts(found: Comparison) -> Iterator[tuple[str, str]]:
    rows = {row.column.name: row for row in found.rows}
    for name in _WORST_FIRST:
        row = rows.get(name)
        if row is None or row.before is None or row.after is None or row.change is None or not _counts(row):
            continue
        if is_random(row):
            continue
        values = [_amount(side.median, row.column.unit) for side in (row.before, row.after)]
        doubt = "; the runs' spreads overlap" if row.apart is False else ""
        tone = "" if row.apart is False else "bad" if row.change > 0 else "good"
        which = "median " if found.of_many else ""
        share, change = per_cent(row), f"{values[0]} to {values[1]}{doubt}"
        yield tone, f"{which}{name_of(name)}: {f'{share} ({change})' if share else change}."


def _counts(row: Row) -> bool:
    """Tell whether a change is worth a sentence: of a ratio, a hundredth is."""
    return abs(row.change or 0) > (_LEAST_RATIO if row.column.unit == "ratio" else 0)


def _words(found: Comparison) -> Iterator[tuple[str, str]]:
    for name, (before, after) in found.texts.items():
        gone, new = ([word for word in one if word not in other] for one, other in ((before, after), (after, before)))
        parts = [f"{sign} {', '.join(words[:5])}" for sign, words in (("no more", gone), ("now", new)) if words]
        yield "", f"{name_of(name)}: {'; '.join(parts)}."


# --- groups ----------------------------------------------------------------------------------------------------------


def _groups(found: Comparison, groups: Sequence[Group], keys: tuple[str, ...]) -> Iterator[str]:
    """Yield the groups of both sides: what is new or gone, how many there were, what they are, the first line."""
    if not groups:
        return
    head = ["", "before", "after", *keys, "first line"]
    rows = [_group_row(found, group) for group in groups[:MOST_ROWS]]
    yield from table(head, rows, right=(1, 2), give=(4,))
    if len(groups) > MOST_ROWS:
        yield styled("dim", f"  and {len(groups) - MOST_ROWS:,} more: --json has all")


def _group_row(found: Comparison, group: Group) -> list[str]:
    texts = [clean(PurePath(text).name if text.startswith("/") else text) for text in group.key]
    where = group.after or group.before
    assert where is not None
    of = f" of {clean(where.run)}" if found.of_many else " before" if group.after is None else ""
    what = group.what if group.what != "both" else ""
    counts = [_rows_text(count, found.of_many) for count in (group.before, group.after)]
    return [what, *counts, *texts, f"{where.line}{shortened(of, 24)}"]


def _rows_text(count: Count | None, of_many: bool) -> str:
    if count is None:
        return "-"
    return f"{count.rows:,} in {number(count.runs, 'run')}" if of_many else f"{count.rows:,}"


# --- the summary -----------------------------------------------------------------------------------------------------


def _summary(found: Comparison, *, all_rows: bool) -> Iterator[str]:
    shown = [row for row in found.rows if all_rows or is_known(row)]
    random = any(map(is_random, shown))
    if not found.of_many:
        rows = [_row(row) for row in shown]
        yield from table(["", "before", "after", "change", "per cent"], rows, right=(1, 2, 3, 4), give=(0,))
        yield from _left_out(found, shown, random=random)
        return
    head = ["", "before", "±", "after", "±", "per cent"]
    yield from table(head, [_row_of_many(row) for row in shown], right=(1, 2, 3, 4, 5), give=(0,))
    yield from wrapped(_significance(found), first="  ")
    yield from _left_out(found, shown, random=random)


def _left_out(found: Comparison, shown: Sequence[Row], *, random: bool) -> Iterator[str]:
    """Yield what is to be said of rows that are not shown, and of changes that are none."""
    said = ["~: what address randomisation alone may change."] * random
    left = len(found.rows) - len(shown)
    said += [f"{number(left, 'row')} that are zero or unknown on both sides: --all shows them."] * bool(left)
    for text in said:
        yield from wrapped(text, first="  ")


def _row(row: Row) -> list[str]:
    unit = row.column.unit
    values = ["-" if side is None else _amount(side.median, unit) for side in (row.before, row.after)]
    return [name_of(row.column.name), *values, _change(row), "" if is_random(row) else per_cent(row)]


def _row_of_many(row: Row) -> list[str]:
    mark = "*" if row.apart and row.change and not is_random(row) else " "
    cells_ = [cell for side in (row.before, row.after) for cell in _spread_cells(side, row.column.unit)]
    change = _change(row) if is_random(row) else per_cent(row) or _change(row)
    return [name_of(row.column.name), *cells_, change + mark]


def _spread_cells(side: Spread | None, unit: str) -> tuple[str, str]:
    """Return the median, and the middle half: `9.8-11`, in the unit of its upper end."""
    if side is None:
        return "-", ""
    if side.first_quartile == side.third_quartile:
        return _amount(side.median, unit), ""
    return _amount(side.median, unit), f"±{_amount((side.third_quartile - side.first_quartile) / 2, unit)}"


def _significance(found: Comparison) -> str:
    runs = [len(side.summaries) for side in found.sides]
    said = (
        f"Medians of {number(runs[0], 'run')} and of {number(runs[1], 'run')}; ± is half of the middle half, from the "
        "first quartile to the third. "
    )
    if min(runs) == 1:
        said += "*: the single run lies outside the range of the others. "
    else:
        said += "*: the middle halves do not overlap. "
    said += "Other differences may be chance; and of many columns one or another is apart by chance too."
    if min(runs) < FEW_RUNS:
        said += f" A side with fewer than {FEW_RUNS} runs says little about its spread."
    return said


def _change(row: Row) -> str:
    if row.change is None:
        return ""
    if is_random(row):
        return "~"
    sign = "+" if row.change > 0 else "-"
    return f"{sign}{_amount(abs(row.change), row.column.unit)}" if row.change else "="


def _amount(value: Number, unit: str) -> str:
    """Return a value of a column in about three digits."""
    if unit == "bytes":
        return size(round(value)).replace(" bytes", " B").replace(" byte", " B")
    if unit == "ns":
        return duration(round(value))
    if unit == "ratio":
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


# --- pairs of runs ---------------------------------------------------------------------------------------------------


def _paired(found: Comparison) -> Iterator[str]:
    """Yield what changed from each run to the run of the same name."""
    moved = [row for row in found.rows if row.pairs is not None and row.pairs.up + row.pairs.down]
    if not found.paired or not moved:
        return
    alone = [len(side.summaries) - len(found.paired) for side in found.sides]
    others = "" if not any(alone) else f" ({alone[0]} runs are before only, {alone[1]} after only)"
    but = "" if found.paired[0][0] == found.paired[0][1] else " but for the version"
    yield from wrapped(f"{number(len(found.paired), 'run')} of the same name{but} on both sides{others}:", first="  ")
    moved.sort(key=lambda row: row.pairs.chance if row.pairs else 1.0)
    rows = [_pair_row(row) for row in moved[:MOST_ROWS]]
    yield from table(["", "up", "down", "same", "median", "by chance"], rows, right=(1, 2, 3, 4, 5), give=(0,))
    if len(moved) > MOST_ROWS:
        yield styled("dim", f"  and {len(moved) - MOST_ROWS:,} more columns: --json has all")
    note = "By chance: how often so uneven a split of ups and downs comes from nothing at all (sign test, two-sided)."
    yield from wrapped(note, first="  ")


def _pair_row(row: Row) -> list[str]:
    pairs = row.pairs
    assert pairs is not None
    median = "" if pairs.median_share is None else f"{100 * pairs.median_share:+.1f} %"
    chance = 100 * pairs.chance
    likely = f"{chance:.0f} %" if chance >= 1 else f"{chance:.2f} %" if chance >= 0.01 else "<0.01 %"
    return [name_of(row.column.name), f"{pairs.up:,}", f"{pairs.down:,}", f"{pairs.same:,}", median, likely]


# --- curves ----------------------------------------------------------------------------------------------------------


def _curves(found: Comparison) -> Iterator[str]:
    shown = [curves for curves in found.curves if curves.column.unit != "ratio" or _top(curves) > _LEAST_RATIO]
    if not shown:
        return
    text = "from left to right the log of each run, both to the same scale"
    if found.of_many:
        chosen = zip(found.sides, found.curve_runs, strict=True)
        runs = [clean(run) for side, run in chosen if len(side.summaries) > 1]
        text += "; of many runs the one with the median peak: " + ", ".join(runs)
    yield from wrapped(text, first="  ")
    for curves in shown:
        yield from _curve_lines(curves)


def _curve_lines(curves: Curves) -> Iterator[str]:
    top = 1.0 if curves.column.unit == "ratio" else _top(curves) or 1.0
    label = curves.column.name.removesuffix("_bytes").replace("_fragmentation", " frag.")
    for name, values, style in (("before", curves.before, "dim"), ("after", curves.after, "cool")):
        peak = _amount(whole(float(np.nanmax(values))), curves.column.unit)
        yield f"  {label:<13} {name:<6} {styled(style, padded(_bars(values, top), len(values)))} {peak}"
        label = ""


def _top(curves: Curves) -> float:
    return float(max(np.nanmax(curves.before), np.nanmax(curves.after)))


def _bars(values: FloatArray, top: float) -> str:
    levels = len(BARS) - 1
    return "".join(" " if math.isnan(value) else BARS[round(value / top * levels)] for value in values.tolist())


def whole(value: float) -> Number:
    """Return a number as an int where it is one."""
    return int(value) if value.is_integer() else value
