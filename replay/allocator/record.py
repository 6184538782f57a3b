"""The replayed columns that the allocator layer reads, and where in them its calls and files are.

In go the columns of the replay, out come the steps of calls by name, what is said of them and the libc call around
each. Of allocators this module knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.allocator.neighbours import Neighbours
from replay.columns import NULL, Columns, Int64Array, Strings
from replay.constants import CALL_CODE
from replay.nesting import find_nesting
from replay.packed import PackedColumns

Mask: TypeAlias = NDArray[np.bool_]

OK: Final = 0
FAILED: Final = 1
"""Values of the column `status` of the events."""

_LOOKED_FOR: Final = ("brk", "mmap", "munmap", "mremap", "mprotect", "open", "openat", "sbrk")
"""The calls that this layer asks for."""


@dataclass(frozen=True)
class Record:
    """What one run's replay gave: events by step, brk calls, regions and spaces, and the texts that they name.

    `parents` are the steps of the libc calls around system calls; without them they are looked for.
    """

    events: PackedColumns
    brks: PackedColumns
    regions: PackedColumns
    spaces: Columns
    strings: Strings
    page_size: int = 4096
    parents: Int64Array | None = None

    @cached_property
    def neighbours(self) -> Neighbours:
        """Return who finds the calls that a thread made before and after others."""
        return Neighbours(self.events["tid"], self.steps_of("sbrk"))

    @property
    def space_count(self) -> int:
        """Return how many address spaces there are."""
        return len(self.spaces["space"])

    @cached_property
    def _steps_by_call(self) -> dict[str, Int64Array]:
        """Return the steps of each call that is looked for, found in one pass over all calls."""
        events = self.events
        found: dict[str, list[Int64Array]] = {name: [] for name in _LOOKED_FOR}
        for number in range(events.parts):
            calls = events.part(number, ["call"])["call"].astype(np.int16)
            for name, steps in found.items():
                steps.append(np.flatnonzero(calls == CALL_CODE[name]) + events.starts[number])
        return {name: np.concatenate([*steps, np.zeros(0, np.int64)]) for name, steps in found.items()}

    def steps_of(self, name: str) -> Int64Array:
        """Return the steps of a call, which ascend."""
        return self._steps_by_call[name]

    def at(self, name: str, steps: Int64Array) -> Int64Array:
        """Return what a column of the events holds at some steps."""
        return self.events.at(name, steps)

    def parts_at(self, names: Sequence[str], steps: Int64Array) -> Iterator[tuple[Int64Array, Columns]]:
        """Yield steps, which ascend, part by part with what some columns of the events hold at them."""
        events = self.events
        bounds = np.searchsorted(steps, events.starts)
        for number in np.flatnonzero(bounds[1:] > bounds[:-1]).tolist():
            some = steps[bounds[number] : bounds[number + 1]]
            part = events.part(number, names)
            places = some - events.starts[number]
            yield some, {name: part[name][places] for name in names}

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
    def parent_step(self) -> Int64Array:
        """Return for each step that of the libc call around it, `NULL` where the log has none."""
        if self.parents is not None:
            return self.parents
        return find_nesting(self.events, self.strings).parent_step

    @cached_property
    def files(self) -> Columns:
        """Return the regions that have a path, by columns of `regions`."""
        regions, rows = self.regions, []
        for number in range(regions.parts):
            path = regions.part(number, ["path"])["path"]
            rows.append(np.flatnonzero(path >= 0) + regions.starts[number])
        chosen = np.concatenate([*rows, np.zeros(0, np.int64)])
        names = ("space", "start", "path", "born_step", "died_step", "made_line")
        return {name: regions.at(name, chosen) for name in names}


def first_of_each(spaces: Int64Array, rows: Int64Array, count: int) -> tuple[Int64Array, Int64Array]:
    """Return the spaces that occur, in ascending order, and the first of `rows` of each; `count` is above them all."""
    first = np.full(count, NULL, dtype=np.int64)
    first[spaces[::-1]] = rows[::-1]  # of several values for one place the last one stays
    found = np.flatnonzero(first != NULL)
    return found, first[found]
