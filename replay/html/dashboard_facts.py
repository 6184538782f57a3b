"""What the dashboard shows, as plain values: tallies over all runs, the worst runs, and the spread of each version.

In goes a dataset, out comes a `Fleet`. How it is drawn this module does not know.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, Final, TypeAlias

import numpy as np

from replay.datasets.dataset import OK, Dataset, version_in

Row: TypeAlias = Mapping[str, Any]

WORST: Final = 10
"""As many of the worst runs, blockers and programs the page shows."""

MOST_RUNS: Final = 20_000
"""As many runs the page holds; of more, those with failed breaks and the largest ones."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often something was met: in how many runs, how many times, for how many bytes."""

    name: str
    runs: int
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Failing:
    """A run whose break failed: how often, for what cause most of all, what was in the way, and where first."""

    run: Row
    failures: int
    cause: str
    in_the_way: str
    first_line: int


@dataclass(frozen=True, slots=True)
class VersionSpread:
    """The quartiles of a quantity over the runs of one version."""

    version: str
    runs: int
    quartiles: tuple[float, float, float]


class Fleet:
    """The runs of a dataset, and what is to be said of them all; each part is computed when it is first asked for."""

    def __init__(self, dataset: Dataset) -> None:
        """Look at the runs of `dataset`."""
        self.dataset = dataset
        self.errors = [row for row in dataset.rows if row["status"] != OK]
        self._read: list[Row] = [row for row in dataset.rows if row["status"] == OK]
        self.total = len(self._read)
        self.runs = _chosen(sorted(self._read, key=_by_version))

    @cached_property
    def _failures(self) -> list[Row]:
        """One row for each run, cause and blocker of failed brk calls."""
        columns = ("cause", "blocker_path", "blocker_start", "limit_bytes", "shortfall_bytes", "line")
        table = self.dataset.table("brk_failures", columns)
        import pyarrow.compute as pc

        nameless = pc.if_else(pc.is_valid(table["blocker_start"]), "anonymous memory", table["cause"])
        table = table.append_column("in_the_way", pc.coalesce(table["blocker_path"], nameless))
        grouped = table.group_by(["run", "cause", "in_the_way"], use_threads=False)
        rows: list[Row] = grouped.aggregate(
            [("line", "count"), ("line", "min"), ("shortfall_bytes", "sum")]
        ).to_pylist()
        return rows

    @cached_property
    def causes(self) -> list[Tally]:
        """Why breaks failed, the cause of most runs first."""
        return _tallies(
            (row["cause"], row["run"], row["line_count"], row["shortfall_bytes_sum"]) for row in self._failures
        )

    @cached_property
    def blockers(self) -> list[Tally]:
        """What was in the way of breaks, met in most runs first."""
        return _tallies(
            (row["in_the_way"], row["run"], row["line_count"], row["shortfall_bytes_sum"]) for row in self._failures
        )

    @cached_property
    def failing(self) -> list[Failing]:
        """The runs whose break failed, the most failures first."""
        by_run: dict[str, list[Row]] = defaultdict(list)
        for row in self._failures:
            by_run[row["run"]].append(row)
        known = {row["run"]: row for row in self.dataset.rows}
        found = [_failing(known[run], rows) for run, rows in by_run.items() if run in known]
        return sorted(found, key=lambda entry: (-entry.failures, entry.run["run"]))

    @cached_property
    def fallbacks(self) -> list[Tally]:
        """Fallbacks to mmap by program, the most bytes first."""
        found = _tallies(
            (program_of(row) or "(unknown)", row["run"], row["mmap_fallbacks"], row["mmap_fallback_bytes"] or 0)
            for row in self._read
            if row.get("mmap_fallbacks")
        )
        return sorted(found, key=lambda tally: (-tally.bytes, -tally.count, tally.name))

    @cached_property
    def largest(self) -> list[Row]:
        """The runs that mapped the most at once."""
        return sorted(self.runs, key=lambda row: (-(row.get("peak_mapped_bytes") or 0), row["run"]))[:WORST]

    @cached_property
    def most_fragmented(self) -> list[Row]:
        """The runs with the most fragmented heap; where no heap is known, the most fragmented address space."""
        return sorted(self.runs, key=lambda row: (*(-number for number in _fragmentation(row)), row["run"]))[:WORST]

    @cached_property
    def versions(self) -> list[str]:
        """The versions that the runs' names or logs tell, in their order."""
        found = {version_of(row) for row in self.runs} - {""}
        return sorted(found, key=version_order)

    def spreads(self, quantity: Callable[[Row], float | None]) -> list[VersionSpread]:
        """Return the quartiles of a quantity for each version that has runs which know it."""
        values: dict[str, list[float]] = defaultdict(list)
        for row in self.runs:
            value = quantity(row)
            if value is not None:
                values[version_of(row)].append(value)
        return [_spread(version, values[version]) for version in self.versions if values[version]]


def program_of(row: Row) -> str:
    """Return the name of a run's first program, without its directory; empty where the log does not tell."""
    return PurePath(str(row.get("programs") or "").split(",")[0]).name


def version_of(row: Row) -> str:
    """Return the version in a run's name or in the path of its log; empty where there is none."""
    return version_in(row["run"], row.get("source"))


def version_order(version: str) -> list[int]:
    """Return what versions are sorted by: v1.10 comes after v1.9."""
    return [int(digits) for digits in re.findall("[0-9]+", version)]


def _by_version(row: Row) -> tuple[list[int], str]:
    return version_order(version_of(row)), row["run"]


def _chosen(rows: list[Row]) -> list[Row]:
    """Return at most `MOST_RUNS` of the runs, in their order: those that failed, then the largest."""
    if len(rows) <= MOST_RUNS:
        return rows
    ranks = [(-(row.get("brk_failures") or 0), -(row.get("peak_mapped_bytes") or 0)) for row in rows]
    kept = sorted(sorted(range(len(rows)), key=ranks.__getitem__)[:MOST_RUNS])
    return [rows[at] for at in kept]


def _fragmentation(row: Row) -> tuple[float, float]:
    heap, space = row.get("heap_fragmentation"), row.get("address_fragmentation")
    return (-1.0 if heap is None else float(heap), float(space or 0))


def _failing(run: Row, rows: Sequence[Row]) -> Failing:
    most = max(rows, key=lambda row: (row["line_count"], -row["line_min"]))
    failures, first = sum(row["line_count"] for row in rows), min(row["line_min"] for row in rows)
    return Failing(run, failures, most["cause"], most["in_the_way"], first)


def _tallies(entries: Iterable[tuple[str, str, int, int]]) -> list[Tally]:
    """Return the tallies of entries of name, run, count and bytes, met in most runs first."""
    runs: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for name, run, count, size in entries:
        runs[name].add(run)
        counts[name] += count
        sizes[name] += size
    found = [Tally(name, len(runs[name]), counts[name], sizes[name]) for name in runs]
    return sorted(found, key=lambda tally: (-tally.runs, -tally.count, tally.name))


def _spread(version: str, values: Sequence[float]) -> VersionSpread:
    first, median, third = np.percentile(np.array(values, np.float64), [25, 50, 75]).tolist()
    return VersionSpread(version, len(values), (first, median, third))
