"""The dashboard as one HTML file: head lines, tables of the worst runs, charts, and a row for each run.

In goes a dataset, out comes a file that loads nothing: scripts and styles are in it, and a content security policy
forbids the rest. Every text of a log passes `escaped` on its way into the page.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType
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


def write_dashboard(
    location: str,
    output: str | os.PathLike[str],
    *,
    pages: str | os.PathLike[str] | None = None,
    patterns: Sequence[str] = (),
    force: bool = False,
) -> None:
    """Write the dashboard of a dataset, whole or not at all; before it, into `pages`, those of runs that stand out.

    `patterns` name further runs that get a page, as shells match names.

    Raises:
        OutputExistsError: `output` is there and `force` is not given.
        OutputError: the system refused to write.
        ReplayError: there is no dataset, Bokeh is not installed, or a pattern fits no run.
    """
    check_bokeh()
    with whole_file(output, force=force) as temporary:
        fleet, links = Fleet(Dataset(location)), {}
        if pages is not None:
            from replay.html.run_pages import addresses, standing_out, write_pages

            runs = standing_out(fleet, patterns)
            write_pages(fleet, runs, pages, force=force)
            links = addresses(runs, pages, output)
        temporary.write_text(page(fleet, links), encoding="utf-8")


def page(fleet: Fleet, links: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the page as HTML; `links` are the addresses of the pages of runs that have one."""
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from replay.html.dashboard_charts import models, show_run

    made = models(fleet, links)
    source = made["runs"].source
    source.selected.js_on_change("indices", show_run(source))
    for name, model in made.items():
        model.name = name
    variables = {"policy": POLICY, "style": STYLE, "script": SCRIPT, **_texts(fleet, made, links)}
    title = f"replay: {clean(fleet.dataset.location)}"  # the template escapes it
    html: str = file_html(list(made.values()), INLINE, title, template=TEMPLATE, template_variables=variables)
    return html.lstrip()


def escaped(text: str, width: int = 0) -> str:
    """Return a text of a log for HTML: no markup, no controls, cut in its middle to `width` if that is not 0."""
    safe = clean(text)
    return escape(shortened(safe, width) if width else safe)


# --- what stands in the page as plain HTML ---------------------------------------------------------------------------


def _texts(fleet: Fleet, made: dict[str, Any], links: Mapping[str, str]) -> dict[str, Any]:
    places = _Places(fleet, links)
    return {
        "heading": escaped(fleet.dataset.location),
        "numbers": "".join(_number(words, what, bad) for words, what, bad in _numbers(fleet)),
        "failing": _failing(fleet, places),
        "largest": _worst(places, fleet.largest, ("peak_mapped_bytes", "peak_brk_bytes", "peak_live_bytes")),
        "fragmented": _worst(
            places, fleet.most_fragmented, ("heap_fragmentation", "pinned_bytes", "address_fragmentation")
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


def _failing(fleet: Fleet, places: _Places) -> str:
    rows = [
        [
            places.link(entry.run),
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


def _worst(places: _Places, worst: Sequence[Row], columns: Sequence[str]) -> str:
    rows = [
        [
            places.link(row),
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


class _Places:
    """Where the dashboard tells of a run: its row in the table of all runs and, where it has one, its own page."""

    def __init__(self, fleet: Fleet, links: Mapping[str, str]) -> None:
        self._rows = {row["run"]: at for at, row in enumerate(fleet.runs)}
        self._links = links

    def link(self, row: Row) -> str:
        """Return the name of a run as HTML, with links to where it is told of."""
        text, at, page = escaped(row["run"], _CELL), self._rows.get(row["run"]), self._links.get(row["run"])
        name = text if at is None else f'<a href="#run" data-run="{at}">{text}</a>'
        return name if page is None else f'{name} <a href="{escape(page)}">picture</a>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Return a table; its cells are HTML already."""
    numeric = set(right)

    def line(tag: str, cells: Sequence[str]) -> str:
        made = (f"<{tag}{' class=right' * (at in numeric)}>{cell}</{tag}>" for at, cell in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    return f"<table>{line('th', [escape(cell) for cell in head])}{''.join(line('td', row) for row in rows)}</table>"
