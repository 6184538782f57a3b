"""What is found out about a run, each thing when it is first asked for, and once.

In go what was read of the logs and what became of it, out come calls, blocks, heaps, the allocators' mappings and the
summary. Tables and the mappings at a moment this module does not know.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from replay.calls.enclosing import Nesting, count_calls, find_nesting
from replay.calls.reader import LogReader
from replay.engine.columns import Int64Array, Strings
from replay.heap.blocks import Blocks, find_blocks, note_problems
from replay.linux import constants
from replay.logs.recordings import is_recorded, peak_resident
from replay.mm.fields import IMPOSSIBLE_RANGE
from replay.spaces.footprint import Footprint
from replay.spaces.replay import Replay
from replay.spaces.results import DIVERGENCES

if TYPE_CHECKING:
    from replay.allocator import Activity
    from replay.engine.column_store import PackedColumns
    from replay.heap.chunks import Heaps
    from replay.heap.diagnosis import Diagnosis
    from replay.run.clock import Clock
    from replay.run.part import Shown
    from replay.run.recorder_mappings import RecorderMappings


class Analysis:
    """What was read of the logs of a run (`source`), what became of it (`replayed`), and what follows from both."""

    shown: Shown | None = None
    """The window that this is the part of a run of, None for all of it."""

    def __init__(self, source: LogReader, replayed: Replay) -> None:
        """Hold what was read (`source`) and what became of it (`replayed`)."""
        self.source = source
        self.replayed: Replay = replayed
        self.strings: Strings = source.strings
        self._note_divergences()
        note_problems(self.malloc_blocks, replayed.events, self.strings, source.problems)

    @cached_property
    def whole(self) -> Self:
        """The run that this is a part of; itself, where it is none."""
        return self

    @cached_property
    def calls_made(self) -> Int64Array:
        """How many calls the run has, by code."""
        return count_calls(self.replayed.events)

    @cached_property
    def clock(self) -> Clock:
        """What the times of the log count from, and when each step began."""
        from replay.run.clock import Clock

        return Clock.of(self.source, self.replayed.events)

    @cached_property
    def mapping_owners(self) -> tuple[Int64Array, Int64Array]:
        """The steps of the mappings that allocators made, in order, and for each the id of `ALLOCATOR KIND`."""
        from replay.run.owners import mapping_owners

        return mapping_owners(self)

    @cached_property
    def recorder(self) -> RecorderMappings:
        """What `replay record` mapped into the program for itself."""
        from replay.run.recorder_mappings import RecorderMappings

        return RecorderMappings.of(self)

    @cached_property
    def changes(self) -> PackedColumns:
        """The changes of the spaces in order of lines; blocks change the heap in between them."""
        from replay.heap.timeline import changes_with_heap

        if not len(self.malloc_blocks):
            return self.replayed.changes
        return changes_with_heap(self.replayed, self.malloc_blocks, self.heaps)

    @cached_property
    def footprint(self) -> Footprint:
        """How large the address spaces became."""
        return Footprint.of(self.replayed.changes, len(self.replayed.spaces["space"]))

    @cached_property
    def nesting(self) -> Nesting:
        """Inside which libc call each step ran."""
        nil = any(log.nil for log in self.source.logs) or is_recorded(self.source.files)
        return find_nesting(self.replayed.events, self.strings, nil=nil)

    @cached_property
    def malloc_blocks(self) -> Blocks:
        """The blocks of malloc, and the frees that fit none."""
        return find_blocks(self.replayed, self.nesting)

    @cached_property
    def heaps(self) -> Heaps:
        """The heaps that malloc cuts its blocks from."""
        from replay.heap.chunks import find_heaps

        return find_heaps(self.replayed, self.nesting, self.malloc_blocks)

    @cached_property
    def diagnosis(self) -> Diagnosis:
        """Whether the space with the most bytes live at once leaks, is fragmented, both or neither."""
        from replay.heap.diagnosis import diagnose

        return diagnose(self.replayed, self.malloc_blocks, self.heaps)

    @cached_property
    def activity(self) -> Activity:
        """What the allocators did."""
        from replay.allocator import Replayed, allocator_activity

        made = self.replayed
        record = Replayed(made.events, made.brks, made.regions, made.spaces, self.strings, made.page_size, self.nesting)
        return allocator_activity(record)

    @cached_property
    def summary_values(self) -> dict[str, Any]:
        """The one row of the table `summary`, by column."""
        from replay.run.recorder_mappings import recorder_bytes
        from replay.run.summary import summary_columns

        found = self.activity, self.malloc_blocks, lambda: self.diagnosis
        made = summary_columns(self.source, self.replayed, self.clock, self.calls_made, self.footprint, *found)
        if made["peak_mapped_bytes"] is None:
            return made
        own = recorder_bytes(self, made["peak_mapped_space"], made["peak_mapped_line"])
        resident = peak_resident(self.source.files)
        return made | {"recorder_bytes": own, "peak_resident_bytes": resident[0] if resident else None}

    def examine(self) -> None:
        """Find out all that a report says; it is kept, and need not be asked for."""
        _ = self.summary_values

    def _note_divergences(self) -> None:
        """Add the contradictions between trace and replay to the problems."""
        columns = self.replayed.divergences
        events = self.replayed.events
        for step, code, space in zip(columns["step"], columns["code"], columns["space"], strict=True):
            call = constants.CALLS[int(events["call"][step])]
            deed = "was passed over" if code == IMPOSSIBLE_RANGE else "the log's answer was applied"
            text = f"step {step}, space {space}: {call}: {deed}"
            self.source.problems.add(int(events["line"][step]), DIVERGENCES[int(code)], text, int(events["file"][step]))
