"""Two sides compared: their summaries aligned, what failed anew and no more, their curves, and what chance may explain.

In go two sides, each with one run or many, out come plain values. How the sides were read, and how the comparison looks
on a screen, this module does not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.datasets.dataset import VERSION
from replay.datasets.sides import Side
from replay.tables.schema import TABLES, Column

if TYPE_CHECKING:
    import pyarrow as pa

Number: TypeAlias = int | float
FloatArray: TypeAlias = NDArray[np.float64]

STRETCHES: Final = 48
"""Into as many equal stretches of the log a curve is cut."""

FEW_RUNS: Final = 5
"""With fewer runs on a side its quartiles say little."""

_MANY_PAIRS: Final = 1000

_NUMBER_UNITS: Final = ("bytes", "ns", "count", "ratio")
_TEXTS: Final = ("dialect", "programs", "allocators", "brk_failure_causes")
_CURVES: Final = ("mapped_bytes", "brk_bytes", "live_bytes", "heap_fragmentation", "address_fragmentation")

NUMBERS: Final = tuple(column for column in TABLES["summary"].columns if column.unit in _NUMBER_UNITS)
"""The columns of the summary that are compared as numbers."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How a column is spread over the runs of a side that know it: extremes, quartiles and median."""

    runs: int
    low: Number
    first_quartile: Number
    median: Number
    third_quartile: Number
    high: Number


@dataclass(frozen=True, slots=True)
class Pairs:
    """How a column changed from a run to the run of the same name on the other side."""

    up: int
    down: int
    same: int
    median_share: float | None
    """Median of the changes as shares of before; None where before is 0 in every pair."""

    @property
    def chance(self) -> float:
        """How likely so uneven a split is where up and down are equally likely: the sign test, two-sided."""
        moved, fewer = self.up + self.down, min(self.up, self.down)
        if moved > _MANY_PAIRS:  # the binomial is normal enough
            return math.erfc((abs(self.up - self.down) - 1) / math.sqrt(2 * moved)) if self.up != self.down else 1.0
        tail: int = sum(math.comb(moved, count) for count in range(fewer + 1))
        return min(1.0, float(2 * tail / 2**moved))


@dataclass(frozen=True, slots=True)
class Row:
    """One column of the summary on both sides; None where no run of a side knows it."""

    column: Column
    before: Spread | None
    after: Spread | None
    pairs: Pairs | None

    @property
    def change(self) -> Number | None:
        """The median after less the median before."""
        if self.before is None or self.after is None:
            return None
        return self.after.median - self.before.median

    @property
    def share(self) -> float | None:
        """The change as a share of before; None where that is 0 or unknown."""
        if self.change is None or self.before is None or not self.before.median:
            return None
        return self.change / abs(self.before.median)

    @property
    def apart(self) -> bool | None:
        """Whether the sides do not overlap: their middle halves, or one run and the range of the others.

        None where neither side has more than one run: there is no spread to judge by.
        """
        if self.before is None or self.after is None or max(self.before.runs, self.after.runs) < 2:
            return None
        (low, high), (other_low, other_high) = (_middle(side, self) for side in (self.before, self.after))
        return high < other_low or other_high < low


@dataclass(frozen=True, slots=True)
class Count:
    """Rows of one group on one side: how many, in how many runs, their bytes, and the first of them."""

    rows: int
    runs: int
    bytes: int
    run: str
    line: int


@dataclass(frozen=True, slots=True)
class Group:
    """Failed brk calls, or fallbacks, that are alike, on both sides; None where a side has none."""

    key: tuple[str, ...]
    before: Count | None
    after: Count | None

    @property
    def what(self) -> str:
        """`new`, `gone`, or `both`."""
        return "new" if self.before is None else "gone" if self.after is None else "both"


@dataclass(frozen=True, slots=True)
class Curves:
    """A quantity over the log on both sides, the highest value of each stretch; nan where it is not known yet."""

    column: Column
    before: FloatArray
    after: FloatArray


class Comparison:
    """What there is to say of two sides; each part is computed when it is first asked for."""

    def __init__(self, before: Side, after: Side) -> None:
        """Compare `after` with `before`."""
        self.before = before
        self.after = after

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both sides, before first."""
        return self.before, self.after

    @property
    def of_many(self) -> bool:
        """Whether a side has more than one run."""
        return any(len(side.summaries) > 1 for side in self.sides)

    @cached_property
    def paired(self) -> list[tuple[str, str]]:
        """The runs that are the same on both sides of a comparison of datasets, if there are several.

        The same name makes them so; where names hold versions (`v1.2/test7.log`), all of the name but the version.
        """
        if {side.kind for side in self.sides} != {"dataset"}:
            return []
        before, after = (list(side.summaries) for side in self.sides)
        same = set(before) & set(after)
        pairs = [(name, name) for name in before if name in same]
        if not pairs:
            others = {_without_version(name): name for name in after}
            mine = {_without_version(name): name for name in before}
            if len(others) == len(after) and len(mine) == len(before):
                pairs = [(name, others[key]) for key, name in mine.items() if key in others]
        return pairs if len(pairs) > 1 else []

    @cached_property
    def rows(self) -> list[Row]:
        """The columns of the summary that a side knows, in the order of the schema."""
        rows = (self._row(column) for column in NUMBERS)
        return [row for row in rows if row.before is not None or row.after is not None]

    def _row(self, column: Column) -> Row:
        before, after = (_values(side, column.name) for side in self.sides)
        pairs = _pairs([(before[one], after[other]) for one, other in self.paired if one in before and other in after])
        return Row(column, _spread(before), _spread(after), pairs)

    @cached_property
    def texts(self) -> dict[str, tuple[list[str], list[str]]]:
        """The words of the summary that differ: those on either side, by column."""
        found = {name: tuple(_words(side, name) for side in self.sides) for name in _TEXTS}
        return {name: (before, after) for name, (before, after) in found.items() if before != after}

    @cached_property
    def failures(self) -> list[Group]:
        """The failed brk calls by cause and what was in the way, the most after first."""
        return self._groups("brk_failures", ("cause", "blocker"), "shortfall_capped_bytes")

    @cached_property
    def fallbacks(self) -> list[Group]:
        """The fallbacks by kind, allocator and error, the most after first."""
        return self._groups("mmap_fallbacks", ("kind", "allocator", "errno"), "bytes")

    def _groups(self, table: str, keys: Sequence[str], amount: str) -> list[Group]:
        before, after = (_counts(side, table, keys, amount) for side in self.sides)
        groups = [Group(key, before.get(key), after.get(key)) for key in {**before, **after}]
        return sorted(groups, key=lambda group: (-_rows(group.after), -_rows(group.before), group.key))

    @cached_property
    def curves(self) -> list[Curves]:
        """The curves that both sides know, each of the run that stands for its side."""
        before, after = (_curves(side, run) for side, run in zip(self.sides, self.curve_runs, strict=True))
        columns = {column.name: column for column in TABLES["fragmentation"].columns}
        known = (name for name in _CURVES if name in before and name in after)
        return [Curves(columns[name], before[name], after[name]) for name in known]

    @cached_property
    def curve_runs(self) -> tuple[str, str]:
        """The run of each side whose curves are drawn: of many, the one with the median peak."""
        before, after = (_median_run(side) for side in self.sides)
        return before, after

    def values(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the summary of each side by column: of one run its own, of many the medians."""
        before, after = (_side_values(side) for side in self.sides)
        return before, after


# --- one column over many runs ---------------------------------------------------------------------------------------


def _values(side: Side, column: str) -> dict[str, Number]:
    """Return what is known of a column, by the name of the run."""
    known = ((name, summary.get(column)) for name, summary in side.summaries.items())
    return {name: _number(value) for name, value in known if value is not None and value == value}  # noqa: PLR0124 (nan)


def _number(value: Any) -> Number:
    """Return a number as an int where it is whole."""
    return int(value) if int(value) == value else float(value)


def _spread(values: Mapping[str, Number]) -> Spread | None:
    if not values:
        return None
    quantiles = np.percentile(np.array(list(values.values()), np.float64), [0, 25, 50, 75, 100]).tolist()
    low, high = min(values.values()), max(values.values())
    if low == high:  # exact, where a float would not be
        return Spread(len(values), low, low, low, low, low)
    first, median, third = (_number(value) for value in quantiles[1:4])
    return Spread(len(values), low, first, median, third, high)


def _middle(side: Spread, row: Row) -> tuple[Number, Number]:
    """Return the range by which a side is judged: its middle half, or all of it where the other side is one run."""
    alone = min(spread.runs for spread in (row.before, row.after) if spread is not None) == 1
    return (side.low, side.high) if alone else (side.first_quartile, side.third_quartile)


def _pairs(values: Sequence[tuple[Number, Number]]) -> Pairs | None:
    if len(values) < 2:
        return None
    shares = [(after - before) / abs(before) for before, after in values if before]
    up, down = sum(after > before for before, after in values), sum(after < before for before, after in values)
    return Pairs(up, down, len(values) - up - down, float(np.median(shares)) if shares else None)


def _without_version(name: str) -> str:
    """Return the name of a run with an asterisk in place of its version."""
    match = VERSION.search(name)
    return name if match is None else f"{name[: match.start(1)]}*{name[match.end(1) :]}"


def _words(side: Side, column: str) -> list[str]:
    """Return the words of a column of texts that are separated by commas, each once, in alphabetical order."""
    texts = (str(summary.get(column) or "") for summary in side.summaries.values())
    return sorted({word for text in texts for word in text.split(",") if word})


def _side_values(side: Side) -> dict[str, Any]:
    summaries = list(side.summaries.values())
    if len(summaries) == 1:
        return dict(summaries[0])
    spreads = {column.name: _spread(_values(side, column.name)) for column in NUMBERS}
    medians = {name: None if spread is None else spread.median for name, spread in spreads.items()}
    texts = (column.name for column in TABLES["summary"].columns if column.unit not in (*_NUMBER_UNITS, "line"))
    return medians | {name: ",".join(_words(side, name)) for name in texts}


# --- groups of rows --------------------------------------------------------------------------------------------------

_READ: Final = {
    "brk_failures": ("cause", "blocker", "shortfall_capped_bytes", "line"),
    "mmap_fallbacks": ("kind", "allocator", "errno", "bytes", "line"),
}


def _counts(side: Side, table: str, keys: Sequence[str], amount: str) -> dict[tuple[str, ...], Count]:
    """Return the groups of a table's rows by their keys; `amount` is the column of bytes that is added up."""
    rows = side.table(table, _READ[table])
    sums = [("line", "count"), ("run", "count_distinct"), (amount, "sum"), ("run", "min")]
    grouped = rows.group_by(list(keys), use_threads=False).aggregate(sums).to_pylist()
    firsts = _first_lines(rows, keys)
    found = {}
    for group in grouped:
        key = tuple(str(group[name] or "") for name in keys)
        run, line = firsts[key]
        found[key] = Count(group["line_count"], group["run_count_distinct"], group[f"{amount}_sum"], run, line)
    return found


def _first_lines(rows: pa.Table, keys: Sequence[str]) -> dict[tuple[str, ...], tuple[str, int]]:
    """Return the first run of each group, and the first line there."""
    lines = rows.group_by([*keys, "run"], use_threads=False).aggregate([("line", "min")]).to_pylist()
    firsts: dict[tuple[str, ...], tuple[str, int]] = {}
    for group in sorted(lines, key=lambda entry: str(entry["run"])):
        firsts.setdefault(tuple(str(group[name] or "") for name in keys), (group["run"], group["line_min"]))
    return firsts


def _rows(count: Count | None) -> int:
    return 0 if count is None else count.rows


# --- curves ----------------------------------------------------------------------------------------------------------


def _median_run(side: Side) -> str:
    peaks = _values(side, "peak_mapped_bytes")
    ordered = sorted(side.summaries, key=lambda name: (peaks.get(name, 0), name))
    return ordered[len(ordered) // 2]


def _curves(side: Side, run: str) -> dict[str, FloatArray]:
    """Return the curves of a run's largest space by column, those that are known somewhere."""
    table = side.table("fragmentation", ("step", "space", *_CURVES), [run])
    if not table.num_rows:
        return {}
    spaces, mapped = table["space"].to_numpy(), table["mapped_bytes"].to_numpy()
    mine = np.flatnonzero(spaces == spaces[int(np.argmax(mapped))])
    steps = table["step"].to_numpy()[mine]
    curves = ((name, _known(table[name])[mine]) for name in _CURVES)
    return {name: _stretches(steps, values) for name, values in curves if not np.isnan(values).all()}


def _known(column: pa.ChunkedArray) -> FloatArray:
    """Return a column as floats, nan where it is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    floats = pc.cast(column, pa.float64(), safe=False)
    return np.asarray(pc.fill_null(floats, math.nan).to_numpy(), np.float64)


def _stretches(steps: NDArray[np.int64], values: FloatArray) -> FloatArray:
    """Return the highest value in each of `STRETCHES` equal stretches of the steps, or the last one before it."""
    edges = np.linspace(steps[0], steps[-1] + 1, STRETCHES + 1)
    bounds = np.searchsorted(steps, edges, side="left")
    highest = np.full(STRETCHES, np.nan)
    last = math.nan
    for at, (start, end) in enumerate(_ranges(bounds)):
        inside = values[start:end]
        inside = inside[~np.isnan(inside)]
        highest[at] = inside.max() if inside.size else last
        last = float(inside[-1]) if inside.size else last
    return highest


def _ranges(bounds: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    yield from zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
