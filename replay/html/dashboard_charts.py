"""The charts of the dashboard, and the table of runs that they share, drawn by Bokeh.

In goes a `Fleet`, out come Bokeh models by name. A text of a log enters only where Bokeh shows it as text: in the cells
of tables, in tooltips (which it escapes) and, through `label`, on axes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from bokeh.models import (
    AdaptiveTicker,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    DataTable,
    HoverTool,
    LogTicker,
    NumberFormatter,
    NumeralTickFormatter,
    StringFormatter,
    TableColumn,
)
from bokeh.plotting import figure

from replay.console.screen import clean, shortened
from replay.html.dashboard_facts import WORST, Fleet, Tally, VersionSpread, program_of, version_of
from replay.tables.schema import TABLES

CALM: Final = "#2f6db3"
BAD: Final = "#c8372d"
SECOND: Final = "#d98a1f"
_HEIGHT: Final = 280
_LABEL: Final = 36
_FORMULA_SIGNS: Final = re.compile(r"[$\\]")
"""What Bokeh takes for the ends of formulas, as in `$$x^2$$`; something invisible behind it prevents that."""

_TEXT_UNITS: Final = ("word", "path", "time")
_FACTS: Final = ("run", "program", "of_version", "source")
_BYTES: Final = "0.0ib"
_TICKS_IN_BYTES: Final = """
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  let value = tick, unit = 0
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1 }
  return Number(value.toPrecision(3)) + " " + units[unit]
"""
_TOOLS: Final = "tap,box_select,xpan,xwheel_zoom,box_zoom,reset"

DETAILS: Final = tuple(column for column in TABLES["summary"].columns if column.name != "source")
"""The columns that the page shows of a chosen run, besides its name, program, version and log."""


def models(fleet: Fleet, links: Mapping[str, str]) -> dict[str, Any]:
    """Return the Bokeh models of the page by name; a chart that would be empty is left out."""
    source = _runs_source(fleet, links)
    footprint = _footprint(source)
    made = {
        "causes": _bars(fleet.causes, "runs", "runs", BAD),
        "blockers": _bars(fleet.blockers, "count", "failed brk calls", BAD),
        "fallbacks": _bars(fleet.fallbacks, "bytes", "bytes mapped instead", SECOND),
        "footprint": footprint,
        "fragmentation": _fragmentation(source, footprint.x_range),
        "footprint_versions": _versions(fleet.spreads(lambda row: row.get("peak_mapped_bytes")), "peak mapped", _BYTES),
        "fragmentation_versions": _versions(fleet.spreads(lambda row: row.get("heap_fragmentation")), "heap", "0.00"),
        "runs": _table(source),
    }
    return {name: model for name, model in made.items() if model is not None}


def label(text: str) -> str:
    """Return a text of a log for an axis: short, without controls, and no formula, whatever dollars are in it."""
    return _FORMULA_SIGNS.sub("\\g<0>\u200b", shortened(clean(text), _LABEL))


# --- the runs --------------------------------------------------------------------------------------------------------


def _runs_source(fleet: Fleet, links: Mapping[str, str]) -> Any:
    """Return the source of all charts over runs and of their table: a row a run, all of the summary."""
    rows = fleet.runs
    columns: dict[str, Any] = {"at": np.arange(len(rows))}
    columns["run"] = [clean(row["run"]) for row in rows]
    columns["program"] = [clean(program_of(row)) for row in rows]
    columns["of_version"] = [clean(version_of(row)) for row in rows]
    columns["source"] = [clean(str(row.get("source") or "")) for row in rows]
    for column in DETAILS:
        values = [row.get(column.name) for row in rows]
        if column.unit in _TEXT_UNITS:
            columns[column.name] = [clean(str(value or "")) for value in values]
        else:
            columns[column.name] = np.array([math.nan if value is None else value for value in values], np.float64)
    columns["page"] = [links.get(row["run"], "") for row in rows]
    columns["colour"] = [BAD if row.get("brk_failures") else CALM for row in rows]
    return ColumnDataSource(columns)


def _table(source: Any) -> Any:
    def column(name: str, title: str, width: int, how: Any = None) -> Any:
        return TableColumn(field=name, title=title, width=width, formatter=how or StringFormatter())

    size, count = NumberFormatter(format=_BYTES, nan_format="–"), NumberFormatter(format="0,0", nan_format="–")
    ratio = NumberFormatter(format="0.000", nan_format="–")
    columns = [
        column("run", "run", 220),
        column("program", "program", 110),
        column("of_version", "version", 60),
        column("brk_failures", "failed brk", 70, count),
        column("brk_failure_causes", "causes", 110),
        column("mmap_fallbacks", "fallbacks", 70, count),
        column("peak_mapped_bytes", "peak mapped", 85, size),
        column("peak_brk_bytes", "peak brk", 80, size),
        column("peak_live_bytes", "peak live", 80, size),
        column("heap_fragmentation", "heap frag.", 70, ratio),
        column("address_fragmentation", "space frag.", 75, ratio),
    ]
    return DataTable(source=source, columns=columns, height=360, sizing_mode="stretch_width", index_position=None)


def show_run(source: Any) -> Any:
    """Return what the browser does when runs are chosen: it hands the first of them to the page's `showRun`."""
    facts = [{"name": name, "unit": "", "meaning": ""} for name in _FACTS]
    facts += [{"name": column.name, "unit": column.unit, "meaning": column.meaning} for column in DETAILS]
    code = "if (cb_obj.indices.length) { window.showRun(source.data, cb_obj.indices[0], facts) }"
    return CustomJS(args={"source": source, "facts": facts}, code=code)


def _footprint(source: Any) -> Any:
    made = _over_runs("peak", y_axis_type="log")
    made.yaxis.ticker = LogTicker(base=4)
    made.yaxis.formatter = CustomJSTickFormatter(code=_TICKS_IN_BYTES)
    _points(made, source, "peak_mapped_bytes", "peak_brk_bytes")
    return _hovering(made, [("peak mapped", f"@peak_mapped_bytes{{{_BYTES}}}"), ("failed brk", "@brk_failures")])


def _fragmentation(source: Any, x_range: Any) -> Any:
    made = _over_runs("fragmentation", x_range=x_range, y_range=(-0.03, 1.03))
    _points(made, source, "heap_fragmentation", "address_fragmentation")
    shown = [("heap", "@heap_fragmentation{0.000}"), ("address space", "@address_fragmentation{0.000}")]
    return _hovering(made, shown)


def _over_runs(axis: str, **how: Any) -> Any:
    made = figure(
        height=_HEIGHT, sizing_mode="stretch_width", tools=_TOOLS, active_scroll="xwheel_zoom", y_axis_label=axis,
        x_axis_label="runs, by version and name", **how,
    )  # fmt: skip
    made.xaxis.formatter = NumeralTickFormatter(format="0")
    made.toolbar.logo = None
    return made


def _points(made: Any, source: Any, filled: str, hollow: str) -> None:
    """Draw one column as discs and another as hollow squares, red where the break failed."""
    made.scatter("at", filled, source=source, size=8, color="colour", alpha=0.75)
    made.scatter("at", hollow, source=source, size=6, marker="square", color="colour", fill_alpha=0)


def _hovering(made: Any, shown: Sequence[tuple[str, str]]) -> Any:
    made.add_tools(HoverTool(tooltips=[("run", "@run"), ("program", "@program"), *shown]))
    return made


# --- tallies and versions --------------------------------------------------------------------------------------------


def _bars(tallies: Sequence[Tally], column: str, axis: str, colour: str) -> Any:
    """Return horizontal bars of the first tallies, the largest on top; None where there is nothing to draw."""
    chosen = sorted(tallies, key=lambda tally: -getattr(tally, column))[:WORST]
    if not chosen:
        return None
    names = _unique([label(tally.name) for tally in chosen])
    source = ColumnDataSource(
        {
            "name": names,
            "full": [clean(tally.name) for tally in chosen],
            "runs": [tally.runs for tally in chosen],
            "count": [tally.count for tally in chosen],
            "bytes": [tally.bytes for tally in chosen],
        }
    )
    made = figure(
        height=90 + 26 * len(names),
        sizing_mode="stretch_width",
        y_range=names[::-1],
        tools="",
        toolbar_location=None,
        x_axis_label=axis,
    )
    made.hbar(y="name", right=column, height=0.7, source=source, color=colour, alpha=0.85)
    made.x_range.start = 0
    made.ygrid.visible = False
    _label_ticks(made.xaxis, column == "bytes", "0,0")
    made.add_tools(
        HoverTool(tooltips=[("", "@full"), ("runs", "@runs"), ("count", "@count"), ("bytes", f"@bytes{{{_BYTES}}}")])
    )
    return made


def _label_ticks(axis: Any, in_bytes: bool, otherwise: str) -> None:
    """Label the ticks of an axis with binary units, or in another format."""
    if in_bytes:
        axis.ticker = AdaptiveTicker(base=1024, mantissas=[1, 2, 5, 10, 20, 50, 100, 200, 500])
        axis.formatter = CustomJSTickFormatter(code=_TICKS_IN_BYTES)
        return
    axis.formatter = NumeralTickFormatter(format=otherwise)
    if "." not in otherwise:
        axis.ticker.min_interval = 1


def _unique(names: Sequence[str]) -> list[str]:
    """Return names of which no two are equal: later ones get a number."""
    found: list[str] = []
    for name in names:
        at, unique = 2, name
        while unique in found:
            at, unique = at + 1, f"{name} ({at})"
        found.append(unique)
    return found


def _versions(spreads: Sequence[VersionSpread], axis: str, how: str) -> Any:
    """Return the middle half and the median of each version; None where there are not two of them."""
    if len(spreads) < 2:
        return None
    names = [label(spread.version) for spread in spreads]
    first, median, third = (np.array([spread.quartiles[at] for spread in spreads]) for at in range(3))
    source = ColumnDataSource(
        {
            "version": names,
            "first": first,
            "median": median,
            "third": third,
            "runs": [spread.runs for spread in spreads],
        }
    )
    made = figure(
        height=_HEIGHT, sizing_mode="stretch_width", x_range=names, tools="", toolbar_location=None, y_axis_label=axis
    )
    made.segment("version", "first", "version", "third", source=source, line_width=14, color=CALM, alpha=0.35)
    made.line("version", "median", source=source, color=CALM, line_width=2)
    made.scatter("version", "median", source=source, color=CALM, size=9)
    _label_ticks(made.yaxis, how == _BYTES, how)
    middle = f"@first{{{how}}} to @third{{{how}}}"
    shown = [("version", "@version"), ("runs", "@runs"), ("median", f"@median{{{how}}}"), ("middle half", middle)]
    made.add_tools(HoverTool(tooltips=shown))
    return made
