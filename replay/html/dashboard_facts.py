"""What the dashboard shows, as plain values: runs, the groups they fall into, their failures, their memory.

In go a dataset's tables, out comes a `DatasetFacts`. How it is drawn, and what a browser filters,
this module does not know.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import PurePath
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.console.amounts import number, size
from replay.datasets.dataset import Dataset, version_in
from replay.datasets.layout import OK
from replay.tables import TIMELINE_ROWS

Row: TypeAlias = Mapping[str, Any]

MOST_RUNS: Final = 20_000
"""As many runs the page holds; of more, those with failed breaks and the largest ones."""

POINTS: Final = 48
"""Into as many equal stretches of its log the memory of a run is cut."""

OWNERS: Final = 5
EVIDENCE: Final = 3
"""Of a run the page names so many owners at its peak, and so many groups of failures with their evidence."""

WORST: Final = 10
"""So many runs stand out in each way in which runs can."""

VERSION: Final = "version"


class Grouping(NamedTuple):
    """What runs can be grouped by: its name, its values in their order, and the place of each run's value, or -1."""

    name: str
    values: list[str]
    of_run: list[int]


class Failure(NamedTuple):
    """Failed brk calls of one run that are alike: how many, the first line, and what the log shows of the first."""

    cause: str
    blocker: str
    calls: int
    line: int
    evidence: str


class DatasetFacts:
    """The runs of a dataset, and what is to be said of them; each part is computed when it is first asked for."""

    def __init__(self, dataset: Dataset) -> None:
        """Look at the runs of `dataset`."""
        self.dataset = dataset
        self.errors = [row for row in dataset.rows if row["status"] != OK]
        read: list[Row] = [row for row in dataset.rows if row["status"] == OK]
        self.total = len(read)
        self.failed_runs = sum(bool(row.get("brk_failures")) for row in read)
        self.failed_calls = sum(row.get("brk_failures") or 0 for row in read)
        self.fallback_bytes = sum(row.get("mmap_fallback_bytes") or 0 for row in read)
        self.largest = max((row["peak_mapped_bytes"] for row in read if row.get("peak_mapped_bytes")), default=None)
        self.runs = _chosen(sorted(read, key=lambda row: (when(row) or 0, row["run"])))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {row["run"]: at for at, row in enumerate(self.runs)}

    @cached_property
    def groupings(self) -> list[Grouping]:
        """The version and each label that some run has; versions by number, other values as they were first seen."""
        labels = sorted({name for row in self.runs for name in row if name.startswith("label_")})
        found = [_grouping(VERSION, [version_of(row) for row in self.runs], version_order)]
        found += [_grouping(name.removeprefix("label_"), [row.get(name) for row in self.runs]) for name in labels]
        return [
            grouping for grouping in found if grouping is found[0] or (grouping.values and grouping.name != VERSION)
        ]

    @cached_property
    def standing_out(self) -> list[Row]:
        """The runs with the most failed breaks, the most mapped, and the most fragmented heap or address space."""
        ways = ("brk_failures",), ("peak_mapped_bytes",), ("heap_fragmentation", "address_fragmentation")
        found: dict[str, Row] = {}
        for names in ways:
            known = [row for row in self.runs if any(row.get(name) for name in names)]
            ranked = sorted(known, key=lambda row: (*(-(row.get(name) or -1) for name in names), row["run"]))
            found |= {row["run"]: row for row in ranked[:WORST]}
        return list(found.values())

    @cached_property
    def failures(self) -> dict[int, list[Failure]]:
        """The groups of failures of each run that has any, by its place, the most first."""
        import pyarrow.compute as pc

        table = self.dataset.table("brk_failures", ("cause", "blocker", "blocker_path", "line", "evidence"))
        blocker = pc.coalesce(table["blocker"], table["blocker_path"], "anonymous")
        table = table.set_column(table.column_names.index("blocker"), "blocker", blocker)
        groups = table.group_by(["run", "cause", "blocker"], use_threads=False)
        rows = groups.aggregate([("line", "count"), ("line", "min"), ("evidence", "first")]).to_pylist()
        found: dict[int, list[Failure]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: -row["line_count"]):
            if row["run"] in self._place:
                mine = found[self._place[row["run"]]]
                evidence = row["evidence_first"] if len(mine) < EVIDENCE else ""
                mine.append(Failure(row["cause"], row["blocker"], row["line_count"], row["line_min"], evidence))
        return dict(found)

    @cached_property
    def curves(self) -> dict[int, dict[str, list[int]]]:
        """Memory over the log of each run, by its place: the most mapped, and live, in each of `POINTS` stretches.

        Of the space that had the most mapped, in 255ths of the peak.
        """
        columns = ("space", "line", "mapped_bytes_max", "live_bytes_max")
        table = self.dataset.table("timeline", columns)
        if not table.num_rows:
            return {}
        names = table["run"].to_pylist()
        space, line, mapped = (table[name].to_numpy() for name in columns[:3])
        live = table["live_bytes_max"].to_numpy().astype(np.float64)
        changes = np.flatnonzero(np.array([one != other for one, other in pairwise(names)], bool))
        bounds = [0, *(changes + 1).tolist(), len(names)]
        found = {}
        for start, end in pairwise(bounds):
            at = self._place.get(names[start])
            if at is not None:
                rows = np.arange(start, end)
                rows = rows[space[rows] == (self.runs[at].get("peak_mapped_space") or 0)]
                found[at] = _curve(line[rows], {"mapped": mapped[rows].astype(np.float64), "live": live[rows]})
        return found

    @cached_property
    def owners(self) -> dict[int, list[tuple[str, int]]]:
        """Who had the most mapped at the peak of each run, by its place."""
        of_sets = self._peak_steps_of_sets
        peaks = {
            row["run"]: (row["peak_mapped_space"], row["peak_mapped_line"])
            for row in self.runs
            if row.get("peak_mapped_line") is not None and not _is_set(row)
        }
        sums: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        columns = ("space", "owner", "size_bytes", "born_line", "died_line", "born_step", "died_step")
        for batch in self.dataset.scan("regions").to_batches(columns=["run", *columns]):
            for run, space, owner, length, *life in zip(*(column.to_pylist() for column in batch), strict=True):
                born, died = life[2:] if run in of_sets else life[:2]
                peak = of_sets.get(run) or peaks.get(run)
                if peak is None or peak[0] != space or (born or 0) > peak[1] or (died is not None and died <= peak[1]):
                    continue
                sums[self._place[run]][owner or "unknown"] += length or 0
        return {at: sorted(found.items(), key=lambda entry: -entry[1])[:OWNERS] for at, found in sums.items()}

    @cached_property
    def _peak_steps_of_sets(self) -> dict[str, tuple[int, int]]:
        """The space and the step of the peak of each run of several files: the lines of these are no one clock."""
        peaks = {row["run"]: (row["peak_mapped_space"], row["peak_mapped_bytes"]) for row in self.runs if _is_set(row)}
        if not peaks:
            return {}
        found: dict[str, tuple[int, int]] = {}
        table = self.dataset.table("fragmentation", ("space", "step", "mapped_bytes"), peaks)
        for run, space, step, mapped in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if (space, mapped) == peaks[run]:
                found.setdefault(run, (space, step))
        return found

    def verdict(self, at: int) -> str:
        """Return in a sentence or two what the summary of a run says."""
        return verdict_of(self.runs[at], self.failures.get(at, ()))


def _is_set(row: Row) -> bool:
    return str(row.get("source")).endswith(".*")


def verdict_of(row: Row, failures: Sequence[Failure]) -> str:
    """Return in a sentence or two what a summary says of its run."""
    count = row.get("brk_failures") or 0
    said = []
    if count:
        most = f": {failures[0].cause}, {failures[0].blocker}" if failures else ""
        said.append(f"The break failed to grow {number(count, 'time')}{most}.")
        if row.get("mmap_fallbacks"):
            said.append(f"malloc fell back to mmap {number(row['mmap_fallbacks'], 'time')}.")
    elif row.get("brk_calls"):
        said.append("The break never failed to grow.")
    if row.get("live_bytes") is not None:
        said.append(f"{size(row['live_bytes'])} were live at the end of the log.")
    else:
        said.append("The log shows no malloc calls, so it tells nothing of leaks.")
    return " ".join(said)


def program_of(row: Row) -> str:
    """Return the name of a run's first program, without its directory; empty where the log does not tell."""
    return PurePath(str(row.get("programs") or "").split(",")[0]).name


def version_of(row: Row) -> str:
    """Return the version of a run: its label, else that in its name or the path of its log, else its label commit."""
    found = row.get("label_version") or version_in(row["run"], row.get("source")) or row.get("label_commit")
    return str(found or "")


def version_order(version: str) -> tuple[int, ...]:
    """Return what versions are sorted by: v1.10 comes after v1.9; nothing for a word without a number."""
    return tuple(int(digits) for digits in re.findall("[0-9]+", version)) if version_in(version) else ()


def when(row: Row) -> int | None:
    """Return when a run began, or else when its log was last written to, in milliseconds since 1970."""
    found = row.get("start_time") or row.get("log_mtime")
    return int(found.timestamp() * 1000) if isinstance(found, datetime) else None


def _grouping(name: str, values: Sequence[Any], order: Any = None) -> Grouping:
    """Return a grouping of runs that come in the order of their times."""
    texts = ["" if value is None else str(value) for value in values]
    known = [text for text in dict.fromkeys(texts) if text]
    if order is not None:
        known = sorted(known, key=order)
    place = {text: at for at, text in enumerate(known)}
    return Grouping(name, known, [place.get(text, -1) for text in texts])


def _chosen(rows: list[Row]) -> list[Row]:
    """Return at most `MOST_RUNS` of the runs, in their order: those that failed, then the largest."""
    if len(rows) <= MOST_RUNS:
        return rows
    ranks = [(-(row.get("brk_failures") or 0), -(row.get("peak_mapped_bytes") or 0)) for row in rows]
    kept = sorted(sorted(range(len(rows)), key=ranks.__getitem__)[:MOST_RUNS])
    return [rows[at] for at in kept]


def _curve(line: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]]) -> dict[str, list[int]]:
    """Return columns over equal stretches of the lines, the highest value of each, in 255ths of the highest `mapped`.

    Where a stretch has no change it is what it was before. A column that is nowhere known is left out.
    """
    if not len(line):
        return {}
    edges = np.linspace(line[0], line[-1] + 1, min(POINTS, TIMELINE_ROWS) + 1)
    bounds = np.searchsorted(line, edges)
    peak = max(float(np.nanmax(columns["mapped"])), 1.0)
    return {
        name: [round(value / peak * 255) for value in _highest(values, bounds)]
        for name, values in columns.items()
        if not np.isnan(values).all()
    }


def _highest(values: NDArray[np.float64], bounds: NDArray[np.int64]) -> list[float]:
    """Return the highest value between each two bounds, or the last one before."""
    found, last = [], 0.0
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        inside = values[start:end]
        inside = inside[~np.isnan(inside)]
        found.append(float(inside.max()) if len(inside) else last)
        last = float(inside[-1]) if len(inside) else last
    return found
