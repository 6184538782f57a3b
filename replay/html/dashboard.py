"""The dashboard as one HTML file: head lines, tables of the worst runs, charts, and a row for each run.

In goes a dataset, out comes a file that loads nothing: scripts and styles are in it, and a content security policy
forbids the rest. Every text of a log passes `escaped` on its way into the page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

from replay.console.amounts import number, size
from replay.console.screen import clean, shortened
from replay.datasets.dataset import Dataset
from replay.errors import MissingExtraError
from replay.html.dashboard_facts import Fleet, Row, program_of, version_of
from replay.html.shell import SCRIPT, STYLE, TEMPLATE
from replay.tables import whole_file
from replay.version import __version__

_MOST_FAILING: Final = 50
_MOST_ERRORS: Final = 50
_CELL: Final = 60

POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
"""What the browser may load: nothing but what is in the file. Bokeh compiles callbacks, hence `unsafe-eval`."""


def check_bokeh() -> None:
    """Refuse to go on without Bokeh.

    Raises:
        ReplayError: it is not installed; the message says how to install it.
    """
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("replay dashboard", "Bokeh", "html") from error


def write_dashboard(location: str, output: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write the dashboard of a dataset, whole or not at all.

    Raises:
        OutputExistsError: `output` is there and `force` is not given.
        OutputError: the system refused to write.
        ReplayError: there is no dataset, or Bokeh is not installed.
    """
    check_bokeh()
    with whole_file(output, force=force) as temporary:
        temporary.write_text(page(Fleet(Dataset(location))), encoding="utf-8")


def page(fleet: Fleet) -> str:
    """Return the page as HTML."""
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from replay.html.dashboard_charts import models, show_run

    made = models(fleet)
    source = made["runs"].source
    source.selected.js_on_change("indices", show_run(source))
    for name, model in made.items():
        model.name = name
    variables = {"policy": POLICY, "style": STYLE, "script": SCRIPT, **_texts(fleet, made)}
    title = f"replay: {clean(fleet.dataset.location)}"  # the template escapes it
    html: str = file_html(list(made.values()), INLINE, title, template=TEMPLATE, template_variables=variables)
    return html.lstrip()


def escaped(text: str, width: int = 0) -> str:
    """Return a text of a log for HTML: no markup, no controls, cut in its middle to `width` if that is not 0."""
    safe = clean(text)
    return escape(shortened(safe, width) if width else safe)


# --- what stands in the page as plain HTML ---------------------------------------------------------------------------


def _texts(fleet: Fleet, made: dict[str, Any]) -> dict[str, Any]:
    return {
        "heading": escaped(fleet.dataset.location),
        "numbers": "".join(_number(words, what, bad) for words, what, bad in _numbers(fleet)),
        "failing": _failing(fleet),
        "largest": _worst(fleet, fleet.largest, ("peak_mapped_bytes", "peak_brk_bytes", "peak_live_bytes")),
        "fragmented": _worst(
            fleet, fleet.most_fragmented, ("heap_fragmentation", "pinned_bytes", "address_fragmentation")
        ),
        "errors": _errors(fleet),
        "left_out": _left_out(fleet),
        "made": set(made),
        "footer": f"replay {escape(__version__)}",
    }


def _numbers(fleet: Fleet) -> Iterable[tuple[str, str, bool]]:
    """Yield the numbers at the head of the page: words, what they are, whether they are bad."""
    failing = len(fleet.failing)
    yield f"{fleet.total:,}", "run read" if fleet.total == 1 else "runs read", False
    yield f"{len(fleet.errors):,}", "logs not readable", bool(fleet.errors)
    yield f"{failing:,}", "with failed breaks", bool(failing)
    yield f"{sum(entry.failures for entry in fleet.failing):,}", "failed brk calls", bool(failing)
    yield size(sum(tally.bytes for tally in fleet.fallbacks)), "mapped as fallback", bool(fleet.fallbacks)
    peak = max((row.get("peak_mapped_bytes") or 0 for row in fleet.runs), default=0)
    yield size(peak), "largest peak", False
    if fleet.versions:
        yield f"{len(fleet.versions):,}", "versions" if len(fleet.versions) > 1 else "version", False


def _number(words: str, what: str, bad: bool) -> str:
    return f'<div class="number{" bad" * bad}"><b>{escape(words)}</b><span>{escape(what)}</span></div>'


def _failing(fleet: Fleet) -> str:
    places = _places(fleet)
    rows = [
        [
            _link(entry.run, places),
            escaped(program_of(entry.run), _CELL),
            f"{entry.failures:,}",
            escaped(entry.cause),
            escaped(entry.in_the_way, _CELL),
            f"{entry.first_line:,}",
        ]
        for entry in fleet.failing[:_MOST_FAILING]
    ]
    if not rows:
        return '<p class="good">In no run did the break fail to grow.</p>'
    head = ("run", "program", "failed brk", "cause", "in the way", "first line")
    return _table(head, rows, right=(2, 5)) + _more(len(fleet.failing) - len(rows), "runs: the table below has all")


def _worst(fleet: Fleet, worst: Sequence[Row], columns: Sequence[str]) -> str:
    places = _places(fleet)
    rows = [
        [
            _link(row, places),
            escaped(program_of(row), _CELL),
            escaped(version_of(row)),
            *(_value(row, name) for name in columns),
        ]
        for row in worst
    ]
    head = ("run", "program", "version", *(name.removesuffix("_bytes").replace("_", " ") for name in columns))
    return _table(head, rows, right=range(3, 3 + len(columns))) if rows else "<p>The dataset has no runs.</p>"


def _value(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return "–"
    return size(int(value)) if name.endswith("_bytes") else f"{value:.3f}"


def _errors(fleet: Fleet) -> str:
    rows = [
        [escaped(row["run"], _CELL), escaped(str(row.get("source") or ""), _CELL), escaped(str(row.get("error") or ""))]
        for row in fleet.errors[:_MOST_ERRORS]
    ]
    if not rows:
        return ""
    return _table(("run", "log", "why"), rows) + _more(len(fleet.errors) - len(rows), "logs")


def _left_out(fleet: Fleet) -> str:
    left = fleet.total - len(fleet.runs)
    if not left:
        return ""
    these = f"these are {len(fleet.runs):,}: those with failed breaks and the largest"
    return f"<p>Of {number(fleet.total, 'run')} {these}.</p>"


def _more(left: int, what: str) -> str:
    return f"<p>and {left:,} more {escape(what)}</p>" if left > 0 else ""


def _places(fleet: Fleet) -> dict[str, int]:
    """Return the place of each run in the page's table."""
    return {row["run"]: at for at, row in enumerate(fleet.runs)}


def _link(row: Row, places: dict[str, int]) -> str:
    text = escaped(row["run"], _CELL)
    at = places.get(row["run"])
    return text if at is None else f'<a href="#run" data-run="{at}">{text}</a>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Return a table; its cells are HTML already."""
    numeric = set(right)

    def line(tag: str, cells: Sequence[str]) -> str:
        made = (f"<{tag}{' class=right' * (at in numeric)}>{cell}</{tag}>" for at, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    return f"<table>{line('th', [escape(cell) for cell in head])}{''.join(line('td', row) for row in rows)}</table>"
