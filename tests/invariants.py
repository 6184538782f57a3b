"""What holds of the result of any log, be it damaged: checked on whole runs.

An `AssertionError` of `check` says which rule broke, where.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

import replay
from replay.console.screen import print_lines
from replay.report.as_json import json_report
from replay.report.as_text import text_report
from replay.report.steps import step_lines

USER_SPACE = 1 << 57
"""No user's address lies above, with five levels of page tables."""

NEVER = (1 << 63) - 1

COUNTED = ("_bytes", "_count", "_ns", "size", "length", "lines", "shortfall")
"""What the names of columns end with that hold no negative number."""

SHARES = ("fragmentation",)


def check(paths: Iterable[Path]) -> replay.Run:
    """Replay logs and check all that holds of the result; return the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = replay.load(list(paths), elf_root=None)
        check_run(run)
    return run


def check_run(run: replay.Run) -> None:
    """Check the tables of a run, one against the other, and that every page of it can be written."""
    tables = {name: run.arrow(name) for name in TABLES}
    for name, table in tables.items():
        check_numbers(name, table)
    check_regions(tables["regions"], run.replayed.page_size)
    check_lives(tables["blocks"])
    check_summary(tables)
    check_pages(run)


TABLES = ("events", "regions", "blocks", "brk_failures", "allocator_mmaps", "fragmentation", "problems", "summary")


def check_numbers(name: str, table: pa.Table) -> None:
    """No count, size or duration is negative, and no share is outside of 0 and 1."""
    for column in table.column_names:
        values = table[column].drop_null()
        if not len(values) or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            continue
        numbers = values.to_numpy()
        if column.endswith(COUNTED):
            assert (numbers >= 0).all(), f"{name}.{column} is negative: {numbers.min()}"
        if column.endswith(SHARES):
            assert ((numbers >= 0) & (numbers <= 1)).all(), f"{name}.{column} is no share: {numbers}"


def column(table: pa.Table, name: str, null: int) -> np.ndarray:
    """Return a column of integers with its nulls filled."""
    return table[name].fill_null(null).to_numpy()


def check_regions(regions: pa.Table, page: int) -> None:
    """Regions are page-aligned ranges of user space, born before they die, and no two of a space overlap at a line."""
    start, end = regions["start"].to_numpy(), regions["end"].to_numpy()
    assert (start < end).all(), "a region is empty"
    assert not ((start | end) % np.uint64(page)).any(), "a region is not page aligned"
    made = regions["origin"].to_numpy() != "maps"
    assert (end[made] <= USER_SPACE).all(), "a region lies above what a user can map"
    check_lives(regions)
    born, died = column(regions, "born_line", -1), column(regions, "died_line", NEVER)
    space = regions["space"].to_numpy()
    for number in np.unique(space):
        alive = np.flatnonzero((space == number) & (died > born))
        for at in range(0, len(alive), 500):
            one = alive[at : at + 500, None]
            both = (start[one] < end[alive]) & (start[alive] < end[one])
            both &= (born[one] < died[alive]) & (born[alive] < died[one])
            both &= one != alive
            met = regions.take(alive[both.any(axis=0)]).to_pylist()
            assert not met, f"two regions overlap at a line: {met}"


def check_lives(rows: pa.Table) -> None:
    """What is born does not die before."""
    assert (column(rows, "born_line", -1) <= column(rows, "died_line", NEVER)).all(), "something died before its birth"
    assert (column(rows, "born_step", -1) <= column(rows, "died_step", NEVER)).all(), "a step of death before the birth"


def check_summary(tables: dict[str, pa.Table]) -> None:
    """The sums of the summary are those of the tables."""
    summary = tables["summary"].to_pylist()[0]
    assert summary["lines"] >= summary["lines_understood"] >= 0
    assert summary["brk_failures"] == len(tables["brk_failures"])
    assert summary["problems"] >= len(tables["problems"])
    kinds = tables["allocator_mmaps"]["kind"].to_pylist()
    assert summary["mmap_fallbacks"] == sum(kind in ("fallback", "last_resort") for kind in kinds)
    assert summary["direct_mmaps"] == kinds.count("direct")


def check_pages(run: replay.Run) -> None:
    """Each page of the run is written, and holds nothing that a terminal would obey."""
    json.dumps(json_report(run), allow_nan=False)
    out = _Screen()
    print_lines(text_report(run), out)
    print_lines(step_lines(run), out)
    last = max(run.replayed.last_clock, 1)
    for line in {1, (last + 1) // 2, last}:
        run.maps(line=line)
    bad = {char for char in out.text if not char.isprintable() and char != "\n"}
    assert not bad, f"written to the screen: {bad}"


class _Screen:
    """An output in memory that is no terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def isatty(self) -> bool:
        return False
