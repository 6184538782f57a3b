"""The page of a run: its address space over time, in one file that loads nothing.

In go the tables of a run, out comes HTML. The picture is drawn in the browser by scripts that stand beside this module;
their digest is in the page's content security policy, and no text of a log is ever markup: it travels packed.
"""

from __future__ import annotations

import base64
import hashlib
import os
from html import escape
from importlib.resources import files
from typing import Any, Final

import numpy as np

from replay.engine.columns import Columns, Int64Array
from replay.html import trace_curves, trace_rows, trace_steps
from replay.html.trace_payload import packed
from replay.html.trace_tables import TraceTables, ints
from replay.tables import whole_file
from replay.version import __version__

SCRIPTS: Final = tuple(
    f"trace_{name}.js" for name in ("data", "moment", "picture", "curves", "view", "input", "layout", "panel")
)
"""The scripts of the page, in the order in which they are read."""

MOST_RECTANGLES: Final = 1_000_000
"""So many mappings, and so many blocks, a page has unless it is told otherwise."""

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="replay {version}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<noscript>This page draws the address space with a script, and scripts are off.</noscript>
<main id="page" aria-busy="true"></main>
<script type="text/plain" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def write_trace(
    tables: TraceTables, output: str | os.PathLike[str], *, most: int = MOST_RECTANGLES, force: bool = False
) -> None:
    """Write the page of a run, whole or not at all.

    Raises:
        OutputExistsError: `output` is there and `force` is not given.
        OutputError: the system refused to write.
    """
    with whole_file(output, force=force) as temporary:
        temporary.write_text(page(tables, most), encoding="utf-8")


def page(tables: TraceTables, most: int = MOST_RECTANGLES) -> str:
    """Return the page of a run as HTML, with at most so many mappings and so many blocks."""
    script = "\n".join(_text(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    return _PAGE.format(
        policy=policy,
        version=escape(__version__),
        title=escape(f"replay: {tables.title}"),
        style=_text("trace.css"),
        data=_data(tables, most),
        script=script,
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _data(tables: TraceTables, most: int) -> str:
    """Return all that the page knows of the run, packed."""
    every = trace_rows.mappings(tables, max(most, len(tables.made_clock)))
    colours = np.array([text[0] for text in every.texts] or [0], np.int64)[every.columns["look"]]
    facts, clocks, values = trace_curves.curves(tables, every.columns, colours)
    mapped = every if most >= every.total else trace_rows.mappings(tables, most)
    blocks, marks = trace_rows.blocks(tables, most), trace_rows.marks(tables)
    kept = _kept_steps(tables, most, mapped.columns, blocks.columns, marks.columns)
    steps = trace_steps.steps(tables, kept, mapped.columns, blocks.columns)
    tables_of_page = {"mapped": mapped.columns, "block": blocks.columns, "mark": marks.columns, "steps": steps.columns}
    columns = {f"{table}.{name}": column for table, made in tables_of_page.items() for name, column in made.items()}
    columns |= {f"brk.{name}": column for name, column in trace_rows.brks(tables).items()}
    columns |= {"steps.numbers": steps.numbers, "curve.clock": clocks, "curve.value": values}
    head: dict[str, Any] = {
        "version": __version__,
        "title": tables.title,
        "trace": tables.trace,
        "files": list(tables.files),
        "merged": tables.merged,
        "unit": tables.page_size,
        "tick": trace_steps.tick_of(ints(tables.table("events"), "time_ns")),
        "last": tables.last_clock,
        "spaces": list(tables.spaces),
        "space": tables.main_space,
        "said": [list(said) for said in tables.said],
        "classes": trace_rows.CLASSES,
        "marks": trace_rows.MARKS,
        "looks": mapped.texts,
        "blockLooks": blocks.texts,
        "markTexts": marks.texts[0],
        "templates": steps.templates,
        "curves": facts,
        "shown": {
            "mappings": [len(mapped.columns["born"]), mapped.total],
            "blocks": [len(blocks.columns["born"]), blocks.total],
            "steps": [len(kept), len(tables.clock)],
        },
    }
    return packed(head, columns)


def _kept_steps(tables: TraceTables, most: int, *of_page: Columns) -> Int64Array:
    """Return the steps that the page tells of: all or, where they are too many, those behind what it shows."""
    count = len(tables.clock)
    if count <= 2 * most:
        return np.arange(count)
    clocks = [part[name] for part in of_page for name in ("born", "died", "clock") if name in part]
    steps = np.unique(np.searchsorted(tables.clock, np.concatenate(clocks)))
    return steps[steps < count]
