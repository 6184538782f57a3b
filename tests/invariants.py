"""What holds of the result of any log, be it damaged: checked on whole runs.

An `AssertionError` of `check` says which rule broke, where.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pytest
from conftest import interpreted

import replay
from replay.console.screen import print_lines
from replay.lines.shape_table import ShapeTable
from replay.logs.chunks import read_chunks
from replay.logs.files import Log
from replay.report.as_json import json_report
from replay.report.as_text import text_report
from replay.report.steps import step_lines

USER_SPACE = 1 << 57
"""No user's address lies above, with five levels of page tables."""

NEVER = (1 << 63) - 1

COUNTED = ("_bytes", "_count", "_ns", "size", "length", "lines", "shortfall")
"""What the names of columns end with that hold no negative number."""

SHARES = ("fragmentation",)


def check(paths: Iterable[Path], looks: Iterable[Look] | None = None) -> replay.Run:
    """Replay logs and check all that holds of the result, or all but the looks that are not given; return the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = replay.load(paths, elf_root=None)
        tables = check_run(run)
        if len(run.source.logs) == 1:
            check_steps(tables["events"]["line"].to_numpy(), tables["regions"])
        for look in LOOKS if looks is None else looks:
            look(run)
    return run


def check_ways(path: Path) -> None:
    """Check that a log says the same line by line as by the shapes of its lines, and by loops that are interpreted.

    That costs as much as ten replays.
    """
    by_shape = _tables(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShapeTable, "add", lambda _table, _new: None)
        assert _tables(path) == by_shape, "line by line, the result is another one"
    with interpreted():
        assert _tables(path) == by_shape, "with loops interpreted, the result is another one"


def _tables(path: Path) -> dict[str, list[dict[str, object]]]:
    run = replay.load(path, elf_root=None)
    return {name: run.arrow(name).to_pylist() for name in ("events", "regions", "blocks", "problems")}


OF_THE_LINE = ("unknown_line", "unknown_call_form", "impossible_value")
"""Reasons of problems that come from the text of a line alone."""


def check_verdicts(run: replay.Run) -> None:
    """Equal lines have one verdict, wherever they stand: as they are read, in UTF-8 and broken ones whole again.

    The last one is not asked: it may be cut. Nor are several logs.
    """
    problems = run.arrow("problems").to_pylist() if len(run.source.logs) == 1 else []
    reasons = {row["line"]: row["reason"] for row in problems if row["reason"] in OF_THE_LINE}
    verdicts: dict[bytes, dict[str | None, int]] = {}
    for chunk in read_chunks(Log(run.source.logs[0].path)):
        for number, line in zip(chunk.line[:-1].tolist(), chunk.data.split(b"\n"), strict=False):
            if b"(" in line:
                verdicts.setdefault(line, {}).setdefault(reasons.get(number), number)
    torn = {line: verdict for line, verdict in verdicts.items() if len(verdict) > 1}
    assert not torn, f"equal lines are judged in two ways: {torn}"


def check_run(run: replay.Run) -> dict[str, pa.Table]:
    """Check the tables of a run, one against the other; return them."""
    tables = {name: run.arrow(name) for name in TABLES}
    for name, table in tables.items():
        check_numbers(name, table)
    check_regions(tables["regions"], run.replayed.page_size)
    check_lives(tables["blocks"])
    check_summary(tables)
    return tables


TABLES = ("events", "regions", "blocks", "brk_failures", "allocator_mmaps", "fragmentation", "problems", "summary")


def check_numbers(name: str, table: pa.Table) -> None:
    """No count, size or duration is negative, and no share is outside of 0 and 1."""
    for column in table.column_names:
        if not column.endswith(COUNTED + SHARES) or not len(values := table[column].drop_null()):
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


def check_steps(completed: np.ndarray, regions: pa.Table) -> None:
    """What is alive at the line of a step is alive at the step: no later born, and dead from the first step on.

    `completed` has the line of each step. What a split munmap left over begins where that took, before it completes.
    """
    born, died = regions["born_line"].is_valid().to_numpy(), regions["died_step"].is_valid().to_numpy()
    first = np.searchsorted(completed, column(regions, "born_line", -1)[born])
    assert (column(regions, "born_step", -1)[born] <= first).all(), "born at a later step than at its line"
    first = np.searchsorted(completed, column(regions, "died_line", -1)[died])
    assert (column(regions, "died_step", -1)[died] == first).all(), "dies at another step than at its line"


def check_summary(tables: dict[str, pa.Table]) -> None:
    """The sums of the summary are those of the tables."""
    summary = tables["summary"].to_pylist()[0]
    assert summary["lines"] >= summary["lines_understood"] >= 0
    assert summary["brk_failures"] == len(tables["brk_failures"])
    assert summary["problems"] >= len(tables["problems"])
    kinds = tables["allocator_mmaps"]["kind"].to_pylist()
    assert summary["mmap_fallbacks"] == sum(kind in ("fallback", "last_resort") for kind in kinds)
    assert summary["direct_mmaps"] == kinds.count("direct")
    assert summary["brk_failure_shortfall_bytes"] == min(
        _sum(tables["brk_failures"], "shortfall_capped_bytes"), 1 << 53
    )
    granted = [row for row in tables["allocator_mmaps"].to_pylist() if row["errno"] is None]
    assert summary["arena_heaps"] == sum(row["kind"] == "arena_heap" for row in granted)
    sums = {"mmap_fallback_bytes": ("fallback", "last_resort"), "direct_mmap_bytes": ("direct",)}
    for name, wanted in sums.items():
        assert summary[name] == sum(row["bytes"] for row in granted if row["kind"] in wanted), name
    assert summary["brk_calls"] == tables["events"]["call"].to_pylist().count("brk")
    ends, sizes = tables["blocks"]["end"].to_pylist(), tables["blocks"]["size"].to_pylist()
    assert (summary["allocations"] or 0) <= len(sizes)
    assert (summary["live_bytes"] or 0) <= sum(size for size, end in zip(sizes, ends, strict=True) if end == "live")
    assert (summary["peak_live_bytes"] or 0) >= (summary["live_bytes"] or 0) or summary["spaces"] > 1


def _sum(table: pa.Table, name: str) -> int:
    return sum(table[name].drop_null().to_pylist())


def check_json(run: replay.Run) -> None:
    """The report as JSON is written, without what is no JSON."""
    json.dumps(json_report(run), allow_nan=False)


def check_report(run: replay.Run) -> None:
    """The report is written."""
    check_screen(text_report(run))


def check_moments(run: replay.Run) -> None:
    """The steps are written, and the maps at some lines."""
    check_screen(step_lines(run))
    last = max(run.replayed.last_clock, 1)
    for line in {1, (last + 1) // 2, last}:
        run.maps(line=line)


def check_screen(lines: Iterable[str]) -> None:
    """Lines can be printed, and hold nothing that a terminal would obey."""
    out = _Screen()
    print_lines(lines, out)
    bad = {char for char in set(out.text) if not char.isprintable() and char != "\n"}
    assert not bad, f"written to the screen: {bad}"


Look: TypeAlias = Callable[[replay.Run], None]

LOOKS: tuple[Look, ...] = (check_report, check_json, check_moments, check_verdicts)
"""What else is checked of a run, each for itself: together they cost as much as the replay and the tables."""


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
