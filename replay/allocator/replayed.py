"""The replayed columns that the allocator layer reads, and where in them its calls and files are.

In go the columns of the replay, out come the steps of calls by name, what is said of them and the libc call around
each. Of allocators this module knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from replay.allocator.neighbours import Neighbours
from replay.calls.enclosing import Nesting, count_calls, find_nesting
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Columns, Int64Array, Strings
from replay.engine.structs import Struct
from replay.linux.constants import CALL_CODE


class Replayed(Struct):
    """What one run's replay gave: events by step, brk calls, regions and spaces, and the texts that they name.

    `nesting` tells the libc calls around system calls; without it they are looked for.
    """

    events: PackedColumns
    brks: PackedColumns
    regions: PackedColumns
    spaces: Columns
    strings: Strings
    page_size: int = 4096
    nesting: Nesting | None = None

    @cached_property
    def neighbours(self) -> Neighbours:
        """Return who finds the calls that a thread made before and after others."""
        return Neighbours(self.events, self.steps_of("sbrk"))

    @property
    def space_count(self) -> int:
        """Return how many address spaces there are."""
        return len(self.spaces["space"])

    def steps_of(self, name: str) -> Int64Array:
        """Return the steps of a call, which ascend."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(steps for steps, _ in self.parts_of(name, ()))])

    def parts_of(self, name: str, columns: Sequence[str]) -> Iterator[tuple[Int64Array, Columns]]:
        """Yield the steps of a call, which ascend, part by part with what some columns of the events hold at them."""
        events, code = self.events, CALL_CODE[name]
        for number in range(events.parts if code in self._calls_there else 0):
            rows = np.flatnonzero(events.part(number, ["call"])["call"] == code)
            if len(rows):
                part = events.part(number, columns)
                yield rows + events.starts[number], {column: part[column][rows] for column in columns}

    @cached_property
    def _calls_there(self) -> frozenset[int]:
        """The codes of the calls that the run has."""
        return frozenset(np.flatnonzero(count_calls(self.events)).tolist())

    def at(self, name: str, steps: Int64Array) -> Int64Array:
        """Return what a column of the events holds at some steps."""
        return self.events.at(name, steps)

    def one(self, name: str, step: int) -> int:
        """Return what a column of the events holds at one step."""
        return self.events.one(name, step)

    def page_up(self, addresses: Int64Array) -> Int64Array:
        """Return the addresses or lengths rounded up to pages."""
        return (addresses + (self.page_size - 1)) & -self.page_size

    def text(self, text_id: int) -> str:
        """Return the text of an id, empty for none."""
        return self.strings[text_id] if text_id >= 0 else ""

    def intern(self, texts: Iterable[str]) -> Int64Array:
        """Return the ids of texts."""
        return np.array(self.strings.intern_all(texts), dtype=np.int64)

    @cached_property
    def _nesting(self) -> Nesting:
        return self.nesting if self.nesting is not None else find_nesting(self.events, self.strings)

    def around(self, steps: Int64Array) -> Int64Array:
        """Return for each of some steps that of the libc call around it, `NULL` where the log has none."""
        return self._nesting.around(steps)

    @cached_property
    def files(self) -> Columns:
        """Return the regions that have a path, by columns of `regions`."""
        regions, rows = self.regions, []
        for number in range(regions.parts):
            path = regions.part(number, ["path"])["path"]
            rows.append(np.flatnonzero(path >= 0) + regions.starts[number])
        chosen = np.concatenate([*rows, np.zeros(0, np.int64)])
        names = ("space", "start", "path", "origin", "born_step", "died_step", "made_line")
        return {name: regions.at(name, chosen) for name in names}


def first_of_each(spaces: Int64Array, rows: Int64Array, count: int) -> tuple[Int64Array, Int64Array]:
    """Return the spaces that occur, in ascending order, and the first of `rows` of each; `count` is above them all."""
    first = np.full(count, NULL, dtype=np.int64)
    first[spaces[::-1]] = rows[::-1]  # of several values for one place the last one stays
    found = np.flatnonzero(first != NULL)
    return found, first[found]
