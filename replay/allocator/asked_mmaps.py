"""The mmaps that may be an allocator's: private, anonymous, of the program, told apart by what they ask for.

In go the calls of a run, out come columns of such mmaps, part by part. Which allocator made one is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from replay.allocator.program_mappings import READ_WRITE, ProgramMappings
from replay.allocator.replayed import Replayed, first_of_each
from replay.calls.table import FAILED, OK
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending_by, distinct
from replay.engine.structs import Value
from replay.linux.constants import MAP_FLAGS, MAP_TYPE_MASK, MAP_TYPES
from replay.linux.glibc import MMAP_THRESHOLD

_NOT_MALLOC: Final = (
    MAP_FLAGS["MAP_STACK"] | MAP_FLAGS["MAP_FIXED"] | MAP_FLAGS["MAP_FIXED_NOREPLACE"] | MAP_FLAGS["MAP_GROWSDOWN"]
)
"""Flags that no allocator sets on memory that it takes anew."""

_PLAIN: Final = MAP_FLAGS["MAP_ANONYMOUS"] | MAP_TYPES["MAP_PRIVATE"]
"""The flags with which glibc and musl ask for memory that they use at once."""

_TOLD: Final = ("flags", "prot", "status", "injected", "space", "length", "addr")
"""What tells the mmaps that may be an allocator's from others."""


class SomeMmaps(NamedTuple):
    """Some mmaps that may be an allocator's; the columns are those of `Candidates`."""

    step: Int64Array
    space: Int64Array
    length: Int64Array
    anywhere: Mask
    plain: Mask
    large: Mask
    writable: Mask
    failed: Mask

    def take(self, chosen: Mask) -> SomeMmaps:
        """Return some of them."""
        if chosen.all():
            return self
        rows = np.flatnonzero(chosen)
        return SomeMmaps._make(column[rows] for column in self)


_MASKS: Final = SomeMmaps._fields[3:]
"""The columns that are no numbers."""


class AskedMmaps(Value):
    """The mmaps that may be an allocator's: private, anonymous, anywhere, data or reserve, of the program.

    There may be many, and most of them small: they are kept packed, looked at part by part, and told apart by what they
    are asked for. `starts` are the steps from which the program of each space runs, `own` tells how it treated them.
    """

    record: Replayed
    starts: Int64Array
    own: ProgramMappings

    @cached_property
    def _kept(self) -> PackedColumns:
        """Return all of them, packed: their masks are the bits of one column."""
        kept = PackedColumns(self.record.events.shelf, ("step", "space", "length", "masks"))
        for steps, told in self.record.parts_of("mmap", _TOLD):
            part = self._part(steps, told)
            masks = np.zeros(len(part.step), dtype=np.int64)
            for bit, name in enumerate(_MASKS):
                masks |= getattr(part, name).astype(np.int64) << bit
            kept.append({"step": part.step, "space": part.space, "length": part.length, "masks": masks})
        return kept

    def parts(self) -> Iterator[SomeMmaps]:
        """Yield them part by part, in order."""
        for number in range(self._kept.parts):
            part = self._kept.part(number)
            masks = {name: part["masks"] & 1 << bit != 0 for bit, name in enumerate(_MASKS)}
            yield SomeMmaps(part["step"], part["space"], part["length"], **masks)

    def chosen(self, choose: Callable[[SomeMmaps], Mask]) -> SomeMmaps:
        """Return those that `choose` tells of each part."""
        nothing = np.zeros(0, dtype=np.int64)
        found = [self._part(nothing, dict.fromkeys(_TOLD, nothing))]
        found += [part.take(choose(part)) for part in self.parts()]
        return SomeMmaps._make(np.concatenate(columns) for columns in zip(*found, strict=True))

    def _part(self, steps: Int64Array, told: Columns) -> SomeMmaps:
        flags, prot, status, length = told["flags"], told["prot"], told["status"], told["length"]
        anonymous = (flags & MAP_FLAGS["MAP_ANONYMOUS"] != 0) & (flags & MAP_TYPE_MASK == MAP_TYPES["MAP_PRIVATE"])
        kept = (flags != NULL) & anonymous & (flags & _NOT_MALLOC == 0) & ((prot == READ_WRITE) | (prot == 0))
        kept &= (status == FAILED) | ((status == OK) & (told["injected"] != 1))
        # No malloc asks for nothing, or for more than PTRDIFF_MAX. Source: checked_request2size in malloc/malloc.c.
        kept &= (steps >= self.starts[told["space"]]) & (length > 0)
        record = self.record
        return SomeMmaps(
            step=steps,
            space=told["space"],
            length=record.page_up(length),
            anywhere=told["addr"] == 0,
            plain=(flags == _PLAIN) & (length & (record.page_size - 1) == 0),
            large=(length > MMAP_THRESHOLD) & (status == OK),
            writable=prot == READ_WRITE,
            failed=status == FAILED,
        ).take(kept)


def program_starts(record: Replayed) -> Int64Array:
    """Return for each space the step from which its program runs; before it, ld.so maps for itself.

    The program runs once the break is asked for a second time (malloc's own brk(NULL)), is to grow, or ld.so.cache is
    unmapped. A space whose first call is no brk(NULL) was not seen from its execve on: 0.
    """
    brks, files = record.brks, record.files
    count, never = record.space_count, np.iinfo(np.int64).max
    start = np.full(count, never, dtype=np.int64)
    space, step, requested = (brks[name] for name in ("space", "step", "requested"))
    by_step = ascending_by(space, step)
    space, step, asks = space[by_step], step[by_step], requested[by_step] == 0
    grows = ~asks
    np.minimum.at(start, space[grows], step[grows])
    again = np.flatnonzero(asks[1:] & asks[:-1] & (space[1:] == space[:-1])) + 1
    np.minimum.at(start, space[again], step[again])
    cache = np.flatnonzero((files["died_step"] != NULL) & _is_loader_cache(record, files["path"]))
    np.minimum.at(start, files["space"][cache], files["died_step"][cache])
    start[start == never] = 0
    return np.where(_begins_with_query(record, count), start, 0)


def _is_loader_cache(record: Replayed, paths: Int64Array) -> Mask:
    """Return which paths are that of ld.so's list of libraries, which it unmaps last."""
    is_cache = np.zeros(len(record.strings), dtype=np.bool_)
    for text_id in distinct(paths).tolist():
        is_cache[text_id] = record.strings[text_id].endswith("/ld.so.cache")
    return is_cache[paths]


def _begins_with_query(record: Replayed, count: int) -> Mask:
    """Return for each space whether its first memory call is brk(NULL), as after an execve."""
    steps = record.steps_of("brk")
    spaces, first = first_of_each(record.at("space", steps), steps, count)
    queries = np.full(count, NULL, dtype=np.int64)
    queries[spaces] = first
    begins = np.zeros(count, dtype=np.bool_)
    begins[spaces] = record.at("addr", first) == 0
    last = queries.max(initial=NULL)
    for name in ("mmap", "munmap", "mprotect"):
        for steps, told in record.parts_of(name, ("space",)):
            if steps[0] > last:
                break
            begins[told["space"][steps < queries[told["space"]]]] = False
    return begins
