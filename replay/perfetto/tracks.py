"""A run as Perfetto sees one: slices on threads, counters, instants and flows of processes, as columns.

In go the tables of a run, out come columns in nanoseconds since its first time. A process is an address space, a thread
who made calls in it. Slices of a thread must nest: those that would overlap get a track of their own. How a file is
written this module does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.console.screen import clean
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending, ascending_by, distinct, firsts
from replay.html.trace_tables import ints
from replay.mm.fields import KINDS

if TYPE_CHECKING:
    from replay.run.api import Run
    from replay.tables.arrow import Words

LINE_NS: Final = 1000
"""Without times a line of the log is a microsecond."""

SHORTEST_NS: Final = 1000
"""A slice takes at least this long: a call without duration is known only by where it began."""

MOST_VALUES: Final = 20_000
"""So many values a counter has at most; a longer one keeps the first, lowest, highest and last of each stretch."""

BY_LINES: Final = "time axis: line numbers, 1 µs each (the log has no times)"
_COUNTERS: Final = {
    "mapped_bytes": ("mapped", "bytes"),
    "brk_bytes": ("brk area", "bytes"),
    "headroom_bytes": ("headroom", "bytes"),
    "mapping_count": ("mappings", "count"),
    "largest_gap_bytes": ("largest gap", "bytes"),
    "live_bytes": ("live", "bytes"),
    "free_bytes": ("free in heap", "bytes"),
}
"""Columns of the table `fragmentation` that are counters, with their names and units."""


class Thread(NamedTuple):
    """A track of slices: the space that it belongs to, an id that no other track has, and its name."""

    space: int
    number: int
    name: str


class Counter(NamedTuple):
    """A value of a space over time: it holds from each time on."""

    space: int
    name: str
    unit: str
    time: Int64Array
    value: Int64Array


class Instant(NamedTuple):
    """Something that happened in a space at a time."""

    space: int
    time: int
    name: str
    facts: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Slices:
    """Calls by start; of those that begin together the longer one first. `NULL` where a value is not in the log."""

    step: Int64Array
    thread: Int64Array
    start: Int64Array
    end: Int64Array
    name: Int64Array
    names: list[str]
    line: Int64Array
    addr: Int64Array
    length: Int64Array
    result: Int64Array
    errno: Int64Array
    errors: list[str]

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.step)


class Tracks:
    """The tracks of a run, each made when it is asked for."""

    def __init__(self, run: Run) -> None:
        """Look the events of `run` up."""
        self.run = run
        self.events = run.columns("events")
        self.title = clean(", ".join(run.source.files))
        elapsed = self.events["elapsed_ns"]
        self.by_lines = not len(elapsed) or bool((elapsed == NULL).any())
        self.origin = 0 if self.by_lines else int(run.clock.first_ns or 0)
        self.start, self.end = self._spans(elapsed)

    @property
    def spaces(self) -> list[str]:
        """Return the name of each space: its program and process."""
        spaces = self.run.replayed.spaces
        names = []
        for space, (pid, program) in enumerate(zip(spaces["pid"].tolist(), spaces["program"].tolist(), strict=True)):
            said = [clean(self.run.strings[program])] if program >= 0 else []
            said += [f"pid {pid}"] if pid > 0 else []
            names.append(f"space {space}" + (f": {', '.join(said)}" if said else ""))
        return names

    def _spans(self, elapsed: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return when each step began and ended: by its duration, else when the log had come to its completion."""
        events = self.run.replayed.events
        clock, entry = events["clock"], events["entry_clock"]
        if self.by_lines:
            return entry * LINE_NS, clock * LINE_NS + SHORTEST_NS
        start, duration = elapsed, self.events["duration_ns"]
        order = ascending(entry)
        latest = np.maximum.accumulate(start[order]) if len(start) else start
        reached = latest[np.searchsorted(entry[order], clock, side="right") - 1] if len(start) else start
        end = np.where(duration == NULL, np.where(entry == clock, start, reached), start + np.maximum(duration, 0))
        return start, np.maximum(end, start + SHORTEST_NS)

    # --- slices ---

    @cached_property
    def _placed(self) -> tuple[Slices, list[Thread]]:
        space, tid = self.events["space"], np.maximum(self.run.replayed.events["tid"], 0)
        tids, spaces = int(tid.max(initial=0)) + 1, int(space.max(initial=0)) + 1
        end = self._ends_around()
        lane = lanes(space * tids + tid, self.start, end)
        key = (lane * spaces + space) * tids + tid
        known = distinct(key)
        threads = []
        for number, (rest, own_tid) in enumerate(divmod(each, tids) for each in known.tolist()):
            own_lane, own_space = divmod(rest, spaces)
            name = f"thread {own_tid}" if own_tid else "thread"
            threads.append(Thread(own_space, number + 1, name + (f" ({own_lane + 1})" if own_lane else "")))
        return self._slices(np.searchsorted(known, key), end), threads

    def _ends_around(self) -> Int64Array:
        """Return the ends of the steps, a call's no earlier than those of the calls inside it."""
        parent, end = self.events["parent_step"], self.end.copy()
        inside = np.flatnonzero(parent != NULL)
        np.maximum.at(end, parent[inside], end[inside])
        return end

    def _slices(self, thread: Int64Array, end: Int64Array) -> Slices:
        order = ascending_by(self.start, -end)
        (name, names), (errno, errors) = _used(self.events["call"]), _used(self.events["errno"])
        columns = {column: self.events[column][order] for column in ("line", "addr", "length", "result")}
        return Slices(
            step=order,
            thread=thread[order],
            start=self.start[order],
            end=end[order],
            name=name[order],
            names=names,
            errno=errno[order],
            errors=errors,
            **columns,
        )

    @property
    def slices(self) -> Slices:
        """Return the calls, all steps of the run."""
        return self._placed[0]

    @property
    def threads(self) -> list[Thread]:
        """Return the tracks that slices are on."""
        return self._placed[1]

    # --- what a space holds ---

    def counters(self) -> Iterator[Counter]:
        """Yield what each space holds: mapped bytes as a whole and by kind, its break and gaps, its heap."""
        changes = self.run.columns("fragmentation")
        space, time = changes["space"], self.start[changes["step"]]
        groups = _groups(space)
        for column, (name, unit) in _COUNTERS.items():
            values = changes[column]
            for number, rows in groups.items():
                known = rows[values[rows] != NULL]
                yield from _counter(number, name, unit, time[known], values[known])
        yield from self._by_kind()

    def _by_kind(self) -> Iterator[Counter]:
        """Yield the mapped bytes of each space by kind."""
        regions = self.run.replayed.regions
        size = regions["end"] - regions["start"]
        born, died = regions["born_step"], regions["died_step"]
        for number, rows in _groups(regions["space"] * len(KINDS) + regions["kind"]).items():
            space, code = divmod(number, len(KINDS))
            ended = rows[died[rows] != NULL]
            step = np.concatenate([np.maximum(born[rows], 0), died[ended]])
            order = ascending(step)
            value = np.cumsum(np.concatenate([size[rows], -size[ended]])[order])
            last = np.append(step[order][1:] != step[order][:-1], True)
            yield from _counter(space, f"mapped {KINDS[code]}", "bytes", self.start[step[order][last]], value[last])

    # --- what happened ---

    def instants(self) -> list[Instant]:
        """Return the refused breaks and the fallbacks, by time."""
        found = [
            *self._instants("brk_failures", lambda row: "brk refused", _FAILURE_FACTS),
            *self._instants("mmap_fallbacks", _fallback_name, _FALLBACK_FACTS),
        ]
        return sorted(found, key=lambda instant: instant.time)

    def _instants(self, table: str, name: Callable[[Any], str], facts: tuple[str, ...]) -> Iterator[Instant]:
        for row in self.run.arrow(table).to_pylist():
            told = {fact: row[fact] for fact in facts if row[fact] is not None}
            yield Instant(int(row["space"]), int(self.start[row["step"]]), name(row), _plain(told))

    @cached_property
    def flows(self) -> list[tuple[int, int]]:
        """The steps that belong together: a refused brk, and the mmap that stood in for it."""
        fallbacks = self.run.arrow("mmap_fallbacks")
        refusal, step = ints(fallbacks, "brk_failure_step"), ints(fallbacks, "step")
        known = refusal != NULL
        return list(zip(refusal[known].tolist(), step[known].tolist(), strict=True))


_FAILURE_FACTS: Final = (
    "line", "requested", "granted", "shortfall_bytes", "cause",
    "blocker_start", "blocker_path", "blocker_line", "evidence",
)  # fmt: skip
_FALLBACK_FACTS: Final = ("line", "addr", "bytes", "errno", "request_bytes", "allocator", "evidence")
_ADDRESSES: Final = ("requested", "granted", "blocker_start", "addr")


def _fallback_name(row: Any) -> str:
    return f"{row['kind'].replace('_', ' ')}{' refused' if row['errno'] else ''}"


def _plain(facts: dict[str, Any]) -> dict[str, str | int]:
    """Return facts with addresses in hexadecimal and texts that are safe to show."""
    return {
        name: f"{value:#x}" if name in _ADDRESSES else clean(value) if isinstance(value, str) else int(value)
        for name, value in facts.items()
    }


def _used(words: Words) -> tuple[Int64Array, list[str]]:
    """Return texts as places in a list of those that occur, -1 where there is none."""
    known = distinct(words.ids[words.ids >= 0])
    places = np.where(words.ids < 0, -1, np.searchsorted(known, words.ids))
    return places, [words.texts[each] for each in known.tolist()]


def which_are_known(columns: Sequence[Int64Array]) -> tuple[list[int], Int64Array]:
    """Return which columns rows have, as masks with a bit a column, and for each row the place of its mask in these."""
    has = sum((column != NULL).astype(np.int64) << at for at, column in enumerate(columns))
    counts = np.bincount(has)
    return np.flatnonzero(counts).tolist(), (np.cumsum(counts > 0) - 1)[has]


def _groups(values: Int64Array) -> dict[int, Int64Array]:
    """Return the rows of each value, in order."""
    order = ascending(values)
    known, first = firsts(values[order])
    return dict(zip(known.tolist(), np.split(order, first[1:]), strict=False))


def _counter(space: int, name: str, unit: str, time: Int64Array, value: Int64Array) -> Iterator[Counter]:
    """Yield a counter with the rows at which it takes another value, few enough for a viewer; none for no row."""
    if not len(value):
        return
    rows = np.flatnonzero(np.append(True, value[1:] != value[:-1]))
    if len(rows) > MOST_VALUES:
        from replay.html.trace_curves import extremes

        rows = rows[extremes(value[rows], MOST_VALUES // 4)]
    yield Counter(space, name, unit, time[rows], value[rows])


def lanes(owner: Int64Array, start: Int64Array, end: Int64Array) -> Int64Array:
    """Return on which track of its owner each slice lies, so that on each slices nest or follow one another."""
    lane = np.zeros(len(owner), np.int64)
    left = np.arange(len(owner))
    number = 0
    while len(left):
        crossing = left[_crosses(owner[left], start[left], end[left])]
        number += 1
        lane[crossing] = number
        left = crossing
    return lane


def _crosses(owner: Int64Array, start: Int64Array, end: Int64Array) -> NDArray[np.bool_]:
    """Tell of each slice whether it begins inside another one of its owner and ends behind that."""
    order = np.lexsort((-end, start, owner))
    if ((end[order][:-1] <= start[order][1:]) | (owner[order][:-1] != owner[order][1:])).all():
        return np.zeros(len(owner), np.bool_)
    moments = distinct(np.concatenate([start, end]))
    base = owner[order] * (len(moments) + 1)
    low, high = base + np.searchsorted(moments, start[order]), base + np.searchsorted(moments, end[order])
    crosses = np.zeros(len(owner), np.bool_)
    rows = np.arange(len(order))
    while len(rows):
        around = np.maximum.accumulate(np.append(-1, high[rows]))[:-1]
        inside = low[rows] < around
        over = inside & (high[rows] > around)
        crosses[order[rows[over]]] = True
        rows = rows[inside & ~over]
    return crosses
