"""Tables of runs with as many mappings as a test of the page needs, made without any log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from replay.html.trace_tables import TraceTables
from replay.tables import arrow_schema

PAGE = 4096
LOWEST = 0x7F0000000000
BREAK = 0x555555800000
SLOTS = 4096
"""So many mappings live at once, each at a place of its own; the next one there comes when it ends."""

REFUSED = (1_000, 40_000, 90_000)
"""Lines at which a break is refused: the mapping right above it stands from the first line on."""


_SPACE = {"space": 0, "pid": 1, "program": "", "born": 1, "born_step": -1, "died": 0}


def filled(name: str, count: int, **columns: Any) -> pa.Table:
    """Return a table as the schema has it, null where no column is given."""
    fields = arrow_schema(name)
    arrays = [pa.array(columns[field.name]) if field.name in columns else pa.nulls(count) for field in fields]
    typed = [array.cast(field.type) for array, field in zip(arrays, fields, strict=True)]
    return pa.table(typed, names=fields.names)


def run_of(count: int) -> TraceTables:
    """Return a run of so many mappings: one a line, each alive for `SLOTS` lines, besides the break and its blocker."""
    line = np.arange(1, count + 1)
    refused = np.array(REFUSED)
    tables = {
        "regions": _regions(line),
        "events": _events(line, refused),
        "brk_failures": filled(
            "brk_failures",
            len(refused),
            step=refused - 1,
            line=refused,
            space=np.zeros(len(refused), np.int64),
            requested=np.full(len(refused), BREAK + 9 * PAGE, np.uint64),
            granted=np.full(len(refused), BREAK + PAGE, np.uint64),
            shortfall_bytes=np.full(len(refused), 8 * PAGE),
            cause=["mapping_above"] * len(refused),
            blocker_start=np.full(len(refused), BREAK + PAGE, np.uint64),
            blocker_end=np.full(len(refused), BREAK + 2 * PAGE, np.uint64),
            blocker_line=np.ones(len(refused), np.int64),
            evidence=["it stands right above"] * len(refused),
        ),
    }
    return TraceTables(
        title="made.log",
        trace="made.log",
        files=["made.log"],
        merged=False,
        table=lambda name: tables.get(name, arrow_schema(name).empty_table()),
        clock=line,
        entry_clock=line,
        pid=np.zeros(count, np.int64),
        made_clock=np.concatenate([[1, 1], line]),
        last_clock=count,
        page_size=PAGE,
        words=["mmap 16 KiB"] * count,
        said=(),
        spaces=[dict.fromkeys(("parent", "start_brk"), None) | _SPACE],
        main_space=0,
    )


def _regions(line: np.ndarray[Any, Any]) -> pa.Table:
    count = len(line)
    start = np.concatenate([[BREAK, BREAK + PAGE], LOWEST + (line - 1) % SLOTS * 8 * PAGE]).astype(np.uint64)
    size = np.concatenate([[PAGE, PAGE], np.full(count, 4 * PAGE)]).astype(np.uint64)
    died = np.concatenate([[0, 0], line + SLOTS])
    return filled(
        "regions",
        count + 2,
        space=np.zeros(count + 2, np.int64),
        start=start,
        end=start + size,
        perms=["rw-p", "---p"] + ["rw-p"] * count,
        kind=["brk"] + ["anon"] * (count + 1),
        origin=["trace"] * (count + 2),
        owner=["[heap]"] + ["anonymous"] * (count + 1),
        born_step=np.concatenate([[0, 0], line - 1]),
        born_line=np.concatenate([[1, 1], line]),
        died_line=pa.array(died, mask=(died == 0) | (died > count)),
    )


def _events(line: np.ndarray[Any, Any], refused: np.ndarray[Any, Any]) -> pa.Table:
    count = len(line)
    return filled(
        "events",
        count,
        step=line - 1,
        line=line,
        entry_line=line,
        space=np.zeros(count, np.int64),
        call=np.where(np.isin(line, refused), "brk", "mmap"),
        status=np.where(np.isin(line, refused), "failed", "ok"),
    )
