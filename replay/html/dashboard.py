"""The dashboard as one HTML file: filters that drive charts and tables, and one run looked at closely.

In goes a dataset, out comes a file that loads nothing: scripts, styles and data are in it, and a content security
policy forbids the rest. Texts of logs travel as JSON, and the page's script sets them as text alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from replay.console.amounts import number, size
from replay.console.screen import clean
from replay.datasets.comparison import NUMBERS
from replay.datasets.dataset import Dataset
from replay.errors import MissingExtraError
from replay.html.dashboard_facts import VERSION, DatasetFacts, Row, program_of, when
from replay.tables import whole_file
from replay.tables.schema import TABLES
from replay.version import __version__

_MOST_ERRORS: Final = 50
_TEXT_UNITS: Final = ("word", "path", "time", "name")

POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
"""What the browser may load: nothing but what is in the file. Bokeh compiles callbacks, hence `unsafe-eval`."""

DETAILS: Final = tuple(column for column in TABLES["summary"].columns if column.name != "source")
"""The columns that the page shows of a chosen run, besides its name."""

_SHOWN_BY: Final = {"brk_failures": "calls of brk", "peak_mapped_bytes": "system calls"} | dict.fromkeys(
    ("live_bytes", "pinned_bytes", "heap_fragmentation"), "malloc calls"
)
"""What a log must show for a quantity to be known."""

_TEMPLATE: Final = """
{% block preamble %}<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{{ style }}</style>{% endblock %}
{% block postamble %}{% endblock %}
{% block contents %}
<main>
<h1>{{ heading }}</h1>
<div class="numbers">{{ numbers }}</div>
{{ left_out }}
<div{% if not count %} hidden{% endif %}>
<div class="toolbar">
<label>x axis<select id="x"></select></label>
{% for name in filters %}<label>{{ name }}<select data-filter="{{ name }}"></select></label>
{% endfor %}<label>text<input id="text" type="search" placeholder="run, log, program"></label>
<button id="all">all runs</button><span id="count" class="hint"></span></div>
<section><h2>Failed breaks by program, version and cause</h2><div class="scroll" id="failures"></div></section>
<section><h2>What moved most between the last two versions</h2>
<p class="hint">Medians whose middle halves do not overlap, the largest change first.</p>
<div class="scroll" id="moved"></div></section>
<section><h2>Over the runs</h2>
<p class="hint">Each group of runs: dot and line are the median, the bar reaches to the 95th percentile. What a run does
not know is left out. A click on a dot lists its runs below.</p>
<div class="two">{% for name, title in charts %}<div><h3>{{ title }}</h3>{{ embed(roots[name]) }}
<p class="hint" id="note-{{ name }}"></p></div>{% endfor %}</div></section>
<section><h2>Runs</h2><p class="hint">A heading sorts, a row shows the run below. <span id="listed"></span></p>
<div class="scroll" id="runs"></div></section>
<section id="chosen" hidden><h2>One run: <span id="chosen-name"></span></h2>
<p id="picture" hidden><a href="#chosen">its address space over time</a></p><p id="verdict"></p>
<div class="two"><div><h3>Memory over the log</h3>{{ embed(roots.memory) }}<p class="hint" id="memory-note"></p></div>
<div><h3>At its peak</h3><div id="owners"></div></div></div>
<h3>Failed breaks</h3><div class="scroll" id="evidence"></div>
<h3>All that is known</h3><div class="scroll" id="facts"></div></section>
</div>
{% if pictures %}<section><h2>Address spaces over time</h2><p>{{ pictures }}</p></section>{% endif %}
{% if errors %}<section><h2>Logs that could not be read</h2><div class="scroll">{{ errors }}</div></section>{% endif %}
<footer>{{ footer }}</footer>
</main>
<script type="application/json" id="fleet">{{ fleet }}</script><script>{{ script }}</script>
{% endblock %}
"""

_TITLES: Final = {
    "peak_mapped_bytes": "Peak of mapped memory",
    "brk_failures": "Failed brk calls",
    "live_bytes": "Leaks: live at the end",
    "pinned_bytes": "Pinned at the end",
    "heap_fragmentation": "Heap fragmentation at the end",
}


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
) -> int:
    """Write the dashboard of a dataset, whole or not at all; before it, into `pages`, those of runs that stand out.

    Returned is how many pages of runs there are. `patterns` name further runs that get a page, as shells match names.

    Raises:
        OutputExistsError: `output` is there and `force` is not given.
        OutputError: the system refused to write.
        ReplayError: there is no dataset, Bokeh is not installed, or a pattern fits no run.
    """
    check_bokeh()
    with whole_file(output, force=force) as temporary:
        fleet, links = DatasetFacts(Dataset(location)), {}
        if pages is not None:
            from replay.html.run_pages import addresses, standing_out, write_pages

            runs = standing_out(fleet, patterns)
            write_pages(fleet, runs, pages, force=force)
            links = addresses(runs, pages, output)
        temporary.write_text(page(fleet, links), encoding="utf-8")
    return len(links)


def page(fleet: DatasetFacts, links: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the page as HTML; `links` are the addresses of the pages of runs that have one."""
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    from replay.html.dashboard_charts import CHARTS, models

    made = models()
    for name, model in made.items():
        model.name = name
    data = payload(fleet, [chart.column for chart in CHARTS])
    data["pages"] = {str(at): links[row["run"]] for at, row in enumerate(fleet.runs) if row["run"] in links}
    variables = {
        "policy": POLICY,
        "style": _beside("dashboard.css"),
        "script": _beside("dashboard.js"),
        "fleet": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "heading": escape(clean(fleet.dataset.location)),
        "numbers": "".join(_number(text, what, bad) for text, what, bad in _numbers(fleet)),
        "left_out": _left_out(fleet),
        "pictures": _pictures(links),
        "count": len(fleet.runs),
        "filters": [escape(name) for name in ("program", "cause", "allocator", *_groupings(fleet))],
        "charts": [(chart.column, _TITLES[chart.column]) for chart in CHARTS],
        "errors": _errors(fleet),
        "footer": f"replay {escape(__version__)}",
    }
    title = f"replay: {clean(fleet.dataset.location)}"  # the template escapes it
    html: str = file_html(list(made.values()), INLINE, title, template=_TEMPLATE, template_variables=variables)
    return html.lstrip()


def payload(fleet: DatasetFacts, charts: Sequence[str]) -> dict[str, Any]:
    """Return what the page's script needs, as JSON holds it; texts are free of controls."""
    runs = fleet.runs
    groupings = _groupings(fleet)
    words: dict[str, Any] = {"program": _words(runs, program_of)}
    words |= {name: {"values": of.values, "of_run": of.of_run} for name, of in groupings.items()}
    words |= {column.name: _words(runs, _text_of(column.name)) for column in DETAILS if column.unit in _TEXT_UNITS}
    words["program"] = _words(runs, program_of)
    owners = _owners(fleet)
    failing = {
        str(at): [[clean(value) if isinstance(value, str) else value for value in group] for group in groups]
        for at, groups in fleet.failures.items()
    }
    return {
        "count": len(runs),
        "charts": list(charts),
        "shown_by": _SHOWN_BY,
        "axes": ["start time", *groupings],
        "first": VERSION if VERSION in groupings and len(groupings[VERSION].values) > 1 else "start time",
        "runs": [clean(row["run"]) for row in runs],
        "times": [when(row) for row in runs],
        "searched": [clean(f"{row['run']} {row.get('source')} {row.get('programs')}").lower() for row in runs],
        "words": {name: {**of, "values": [clean(text) for text in of["values"]]} for name, of in words.items()},
        "columns": {
            column.name: _short([_known(row, column.name) for row in runs])
            for column in DETAILS
            if column.unit not in _TEXT_UNITS
        },
        "facts": [
            {"name": column.name, "unit": column.unit, "meaning": column.meaning, "compared": column in NUMBERS}
            for column in DETAILS
        ],
        "failures": failing,
        "curves": {str(at): curve for at, curve in fleet.curves.items() if curve},
        "owners": owners,
        "verdicts": _words(range(len(runs)), fleet.verdict),
        "worst": max(range(len(runs)), key=lambda at: runs[at].get("brk_failures") or 0, default=None),
    }


def _groupings(fleet: DatasetFacts) -> dict[str, Any]:
    return {grouping.name: grouping for grouping in fleet.groupings}


def _text_of(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else str(row[name])


def _words(things: Iterable[Any], text_of: Callable[[Any], str]) -> dict[str, Any]:
    """Return texts, each once, and the place of that of each thing; -1 for none."""
    texts = [text_of(thing) for thing in things]
    values = sorted({text for text in texts if text})
    place = {text: at for at, text in enumerate(values)}
    return {"values": values, "of_run": [place.get(text, -1) for text in texts]}


def _known(row: Row, name: str) -> Any:
    """Return a value of the summary, None where it counts the rows of what the log cannot show."""
    return None if name == "brk_failures" and not row.get("brk_calls") else row.get(name)


def _short(values: list[Any]) -> Any:
    """Return a column, or its only value where all are the same."""
    plain = [round(value, 4) if isinstance(value, float) else value for value in values]
    return plain[0] if len(set(plain)) == 1 else plain


def _owners(fleet: DatasetFacts) -> dict[str, Any]:
    names = sorted({name for owners in fleet.owners.values() for name, _ in owners})
    place = {name: at for at, name in enumerate(names)}
    of_run = {str(at): [[place[name], amount] for name, amount in owners] for at, owners in fleet.owners.items()}
    return {"values": [clean(name) for name in names], "of_run": of_run}


def _beside(name: str) -> str:
    return (files("replay.html") / name).read_text(encoding="utf-8")


# --- what stands in the page as plain HTML ---------------------------------------------------------------------------


def _numbers(fleet: DatasetFacts) -> Iterable[tuple[str, str, bool]]:
    """Yield the numbers at the head of the page: words, what they are, whether they are bad."""
    yield f"{fleet.total:,}", "run read" if fleet.total == 1 else "runs read", False
    yield f"{len(fleet.errors):,}", "logs not readable", bool(fleet.errors)
    yield f"{fleet.failed_runs:,}", "with failed breaks", bool(fleet.failed_runs)
    yield f"{fleet.failed_calls:,}", "failed brk calls", bool(fleet.failed_calls)
    if fleet.fallback_bytes:
        yield size(fleet.fallback_bytes), "mapped as fallback", True
    if fleet.largest is not None:
        yield size(fleet.largest), "largest peak", False


def _number(words: str, what: str, bad: bool) -> str:
    return f'<div class="number{" bad" * bad}"><b>{escape(words)}</b><span>{escape(what)}</span></div>'


def _errors(fleet: DatasetFacts) -> str:
    rows = [
        "".join(f"<td>{escape(clean(str(row.get(name) or '')))}</td>" for name in ("run", "source", "error"))
        for row in fleet.errors[:_MOST_ERRORS]
    ]
    if not rows:
        return ""
    left = len(fleet.errors) - len(rows)
    more = f"<p>and {left:,} more logs</p>" if left else ""
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><tr><th>run</th><th>log</th><th>why</th></tr>{lines}</table>{more}"


def _pictures(links: Mapping[str, str]) -> str:
    """Return links to the pages of runs."""
    return ", ".join(f'<a href="{escape(link)}">{escape(clean(run))}</a>' for run, link in links.items())


def _left_out(fleet: DatasetFacts) -> str:
    if fleet.total == len(fleet.runs):
        return ""
    these = f"these are {len(fleet.runs):,}: those with failed breaks and the largest"
    return f"<p>Of {number(fleet.total, 'run')} {these}.</p>"
