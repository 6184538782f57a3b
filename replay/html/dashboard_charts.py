"""The charts of the dashboard, drawn by Bokeh; what is in them the page's script puts there.

Nothing goes in, out come Bokeh figures by name, each with a `ColumnDataSource` of its own: `x` and `label` of groups of
runs, and the median and the 95th percentile of a quantity over the runs of each.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    DataRange1d,
    HoverTool,
    LogTicker,
    NoOverlap,
)
from bokeh.plotting import figure

CALM: Final = "#3d85c8"
SECOND: Final = "#d98a1f"
_HEIGHT: Final = 250
_TICKS_IN_BYTES: Final = """
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
  let value = tick, unit = 0
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; unit += 1 }
  return Number(value.toPrecision(3)) + " " + units[unit]
"""
_SHORT_LABELS: Final = """
  const text = source.data.label[tick]
  return text === undefined ? "" : text.length > 14 ? text.slice(0, 6) + "…" + text.slice(-7) : text
"""


class Chart(NamedTuple):
    """A chart over groups of runs: the column of the summary, what its axis says, and whether that is logarithmic."""

    column: str
    axis: str
    is_log: bool = False


CHARTS: Final = (
    Chart("peak_mapped_bytes", "peak mapped (log scale)", is_log=True),
    Chart("brk_failures", "failed brk calls a run (from 0)"),
    Chart("live_bytes", "live at the end (from 0)"),
    Chart("pinned_bytes", "pinned at the end (from 0)"),
    Chart("heap_fragmentation", "heap fragmentation (0 to 1)"),
)
MEMORY: Final = "memory"
"""The chart of the chosen run."""


def models() -> dict[str, Any]:
    """Return the figures of the page by name, without data."""
    return {chart.column: _over_groups(chart) for chart in CHARTS} | {MEMORY: _memory()}


def _over_groups(chart: Chart) -> Any:
    """Return a chart in which a bar reaches from the median to the 95th percentile of each group of runs."""
    numbers, texts = ("x", "runs", "median", "high"), ("label", "median_text", "high_text")
    source = ColumnDataSource({name: [1] for name in numbers} | {name: [""] for name in texts})
    made = figure(
        height=_HEIGHT, sizing_mode="stretch_width", tools="tap,xpan,xbox_zoom,reset", toolbar_location="above",
        y_axis_type="log" if chart.is_log else "linear", y_axis_label=chart.axis,
        **({} if chart.is_log else {"y_range": DataRange1d(start=0, default_span=1)}),
    )  # fmt: skip
    made.segment("x", "median", "x", "high", source=source, line_width=9, color=CALM, alpha=0.4)
    made.line("x", "median", source=source, color=CALM, line_width=2)
    dots = made.scatter("x", "median", source=source, color=CALM, size=8)
    made.xaxis.ticker = BasicTicker(min_interval=1, desired_num_ticks=8)
    made.xaxis.formatter = CustomJSTickFormatter(args={"source": source}, code=_SHORT_LABELS)
    made.xaxis.major_label_policy = NoOverlap(min_distance=8)
    if chart.is_log:
        made.yaxis.ticker = LogTicker(base=4)
    elif chart.column.endswith("bytes"):
        made.yaxis.ticker = _bytes_ticker()
    if chart.column.endswith("bytes"):
        made.yaxis.formatter = CustomJSTickFormatter(code=_TICKS_IN_BYTES)
    shown = [("", "@label"), ("runs", "@runs"), ("median", "@median_text"), ("95 % are below", "@high_text")]
    made.add_tools(HoverTool(renderers=[dots], tooltips=shown))
    source.selected.js_on_change("indices", CustomJS(code="window.chooseGroup(cb_obj.indices)"))
    return _plain(made)


def _memory() -> Any:
    """Return the chart of one run's memory over its log."""
    source = ColumnDataSource({"x": [0], "mapped": [0], "live": [0]})
    made = figure(
        height=_HEIGHT, sizing_mode="stretch_width", tools="", toolbar_location=None, y_axis_label="bytes (from 0)",
        x_axis_label="% of the lines of the log", y_range=DataRange1d(start=0, default_span=1),
    )  # fmt: skip
    made.line("x", "mapped", source=source, color=CALM, line_width=2)
    made.line("x", "live", source=source, color=SECOND, line_width=2)
    made.yaxis.ticker = _bytes_ticker()
    made.yaxis.formatter = CustomJSTickFormatter(code=_TICKS_IN_BYTES)
    return _plain(made)


def _bytes_ticker() -> Any:
    """Return a ticker at powers of two."""
    return AdaptiveTicker(base=1024, mantissas=[2**power for power in range(10)], desired_num_ticks=5)


def _plain(made: Any) -> Any:
    """Return a figure that takes the colour of the page."""
    made.background_fill_color = made.border_fill_color = made.outline_line_color = None
    made.toolbar.logo = None
    made.axis.minor_tick_line_color = None
    made.grid.grid_line_alpha = 0.25
    return made
