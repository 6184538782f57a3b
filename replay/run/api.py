"""One run: its logs replayed once, its tables on demand, its address spaces at any moment.

In go the paths of logs, out comes a `Run` with columns, DataFrames and the text of /proc/PID/maps. How a report looks
this module does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.enclosing import Nesting, count_calls, find_nesting
from replay.calls.reader import RunInput, read_run
from replay.calls.windows import record
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Strings
from replay.engine.progress import Stage, Watch, unwatched
from replay.engine.sorting import distinct
from replay.errors import QueryError, ReplayError
from replay.heap.blocks import Blocks, find_blocks, note_problems
from replay.linux import constants
from replay.linux.proc_maps import Mapping, join_equal, maps_text, perms_text, read_maps
from replay.logs.dialect import DIALECTS
from replay.logs.recordings import is_recorded, recorded_images
from replay.mm.address_space import IMPOSSIBLE_RANGE, KIND_BRK
from replay.run import window as moments
from replay.run.window import EVERYTHING, Window
from replay.spaces import replay
from replay.spaces.exec_image import images_of_files
from replay.spaces.footprint import Footprint
from replay.spaces.initial_maps import first_image, first_known, images_at, no_images
from replay.spaces.replay import ORIGIN_FORK, Replay
from replay.spaces.results import DIVERGENCES

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from replay.allocator import Activity
    from replay.engine.column_store import PackedColumns
    from replay.heap.chunks import Heaps
    from replay.heap.diagnosis import Answer
    from replay.run.clock import Clock

_MAPPED: Final = ("start", "end", "prot", "shared", "path", "offset", "kind", "flags")
"""Columns of regions that say what a line of /proc/PID/maps shows."""

_KEEPS_APART: Final = sum(
    constants.MAP_FLAGS[name] for name in ("MAP_NORESERVE", "MAP_GROWSDOWN", "MAP_LOCKED", "MAP_STACK", "MAP_HUGETLB")
)
"""Flags by which anonymous memory is no neighbour of the heap's kind. Source: mm/mmap.c, calc_vm_flag_bits."""

_PAGE_LIMIT: Final = 1 << 30
_HIGHEST: Final = (1 << 63) - 1


def load(trace: str | Path | Iterable[str | Path], **how: Any) -> Run:
    """Return the run that one log, or the logs of one run, recorded; `how` is what `read_and_replay` takes."""
    return Run(*read_and_replay(trace, **how))


def read_and_replay(
    trace: str | Path | Iterable[str | Path],
    *,
    format: str = "auto",
    maps: str | Path | None = None,
    elf_root: str | Path | None = "/",
    page_size: int | None = None,
    strict: bool = False,
    watch: Watch = unwatched,
) -> tuple[RunInput, Replay]:
    """Return what was read of a run's logs and what became of it; arguments and errors are those of `replay.load`."""
    if page_size is not None and not (0 < page_size <= _PAGE_LIMIT and page_size & (page_size - 1) == 0):
        raise ReplayError(f"page size {page_size}: expected a power of two such as 4096")
    if format not in ("auto", *DIALECTS):
        raise ReplayError(f"format {format!r}: expected auto, strace or ltrace")
    paths: list[str | Path] = [trace] if isinstance(trace, (str, Path)) else list(trace)
    exact = first_image(read_maps(Path(maps))) if maps is not None else no_images
    source = read_run(paths, dialect=format, strict=strict, watch=watch)
    recording = record(source)
    page = page_size or recording.page_size
    inferred = no_images if elf_root is None else images_of_files(source.strings, page, str(elf_root))
    recorded = images_at(recorded_images(source.files))
    images = first_known(exact, first_known(recorded, inferred))
    return source, replay.replay_recording(recording, source.strings, page, images, watch)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The mappings of a space at a moment in order of addresses, as columns."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    prot: Int64Array
    shared: Int64Array
    offset: Int64Array
    """The offset in the file, 0 where there is no file."""
    kind: Int64Array
    name: Int64Array
    """The place of the path or name in `names`, in which each is there once."""
    names: list[str]
    rows: Int64Array
    """Rows of `regions`, one or more a mapping."""
    first: Int64Array
    """Where in `rows` those of a mapping begin, and where those of the last end."""

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.start)

    @property
    def bytes(self) -> NDArray[np.uint64]:
        """Return their sizes."""
        return self.end - self.start

    @property
    def perms(self) -> Int64Array:
        """Return a number for each that is the same where the permissions are."""
        perms: Int64Array = (self.prot & 7) | (self.shared != 0) << 3
        return perms

    def part(self, low: int, high: int) -> Mapped:
        """Return the mappings from `low` up to `high`."""
        return self._of(slice(low, high), self.first[low : high + 1])

    def joined(self, goes_on: NDArray[np.bool_]) -> Mapped:
        """Return the mappings with those joined of which `goes_on` tells that the next above goes on with them."""
        heads = _heads(~goes_on, len(self))
        joined = self._of(heads, np.append(self.first[heads], self.first[-1]))
        return replace(joined, end=self.end[_lasts(heads, len(self))])

    def _of(self, mappings: slice | Int64Array, first: Int64Array) -> Mapped:
        columns = {name: getattr(self, name)[mappings] for name in _OF_MAPPING}
        return replace(self, **columns, first=first)


_OF_MAPPING: Final = ("start", "end", "prot", "shared", "offset", "kind", "name")
"""Columns of `Mapped` with a row a mapping."""


class Run:
    """A replayed run; its tables are DataFrames: `events`, `regions`, `brk_failures`, `allocator_mmaps` and so on."""

    def __init__(self, source: RunInput, replayed: Replay) -> None:
        """Hold what was read (`source`) and what became of it (`replayed`)."""
        self.source = source
        self.replayed: Replay = replayed
        self.strings: Strings = source.strings
        self._note_divergences()
        note_problems(self.malloc_blocks, replayed.events, self.strings, source.problems)

    if not TYPE_CHECKING:  # the tables are declared where users find them: a name that is none shows

        def __getattr__(self, name: str) -> pd.DataFrame:
            """Return the table of that name as a DataFrame, made once."""
            from replay.tables import TABLES, to_pandas

            if name.startswith("_") or name not in TABLES:
                raise AttributeError(f"a Run has no {name!r}; its tables are {', '.join(TABLES)}")
            frame = to_pandas(self.arrow(name))
            self.__dict__[name] = frame
            return frame

    def arrow(self, table: str) -> pa.Table:
        """Return a table as an Arrow table; raise QueryError if there is none of that name."""
        from replay.tables import mmap_fallbacks_of, to_arrow

        if table == "mmap_fallbacks":
            return mmap_fallbacks_of(self.arrow("allocator_mmaps"))
        return to_arrow(table, self.columns(table), self.strings)

    def columns(self, table: str) -> dict[str, Any]:
        """Return the columns of a table as `tables.to_arrow` takes them; raise QueryError if there is none of it."""
        from replay.run.table_columns import columns_of

        return columns_of(self, table)

    def arrow_parts(self, table: str, every: int = 1) -> Iterator[pa.Table]:
        """Yield a table in parts that are short enough for memory, rows in the order of its schema.

        Of `fragmentation` only one change in `every` of each space is there, and its last one.

        Raises:
            QueryError: there is no such table.
        """
        from replay.run.table_columns import parts_of
        from replay.tables import in_order, to_arrow

        if table == "mmap_fallbacks":
            yield in_order(self.arrow(table))
            return
        for columns in parts_of(self, table, every):
            yield to_arrow(table, columns, self.strings)

    def export(
        self,
        directory: str | Path,
        *,
        format: str = "parquet",
        force: bool = False,
        every: int = 1,
        watch: Watch = unwatched,
        window: Window = EVERYTHING,
    ) -> None:
        """Write all tables into `directory`, one file each, whole or not at all; `watch` is told how far that is.

        Rows of what happened before, after or elsewhere than `window` shows are left out; the summary is of the run.
        Of `fragmentation` only one change in `every` of each space is written, and its last one.

        Raises:
            OutputExistsError: a file is there already and `force` is not set.
            ReplayError: the directory cannot be written.
        """
        from replay.tables import TABLES, export_tables

        def parts(name: str, number: int) -> Iterator[pa.Table]:
            for part in self._shown_parts(name, window, every):
                watch(Stage(f"writing {name}", number, len(TABLES)))
                yield part

        tables = {name: parts(name, number) for number, name in enumerate(TABLES)}
        export_tables(tables, Path(directory), format, force=force)

    def write_csv(self, table: str, path: str | Path, *, force: bool = False, window: Window = EVERYTHING) -> None:
        """Write a table as one CSV file, `-` for standard output; `window` as in `export`.

        Raises:
            QueryError: there is no such table.
            OutputExistsError: the file is there already and `force` is not set.
        """
        from replay.tables import arrow_schema
        from replay.tables.files import CsvStream

        with CsvStream(arrow_schema(table), path, force=force) as stream:
            for part in self._shown_parts(table, window):
                stream.write(part)

    def _shown_parts(self, table: str, window: Window, every: int = 1) -> Iterator[pa.Table]:
        """Yield the parts of a table with the rows that a window shows."""
        if window.is_all:
            yield from self.arrow_parts(table, every)
            return
        from replay.run.part import rows_shown, shown_by

        shown = shown_by(self, window)
        for part in self.arrow_parts(table, every):
            yield rows_shown(part, shown, window.pid)

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
    def answer(self) -> Answer:
        """Whether the space with the most bytes live at once leaks, is fragmented, both or neither."""
        from replay.heap.diagnosis import answer

        return answer(self.replayed, self.malloc_blocks, self.heaps)

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
        from replay.run.summary import summary_columns

        found = self.activity, self.malloc_blocks, lambda: self.answer
        return summary_columns(self.source, self.replayed, self.clock, self.calls_made, self.footprint, *found)

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

    # --- the address space at a moment ---

    def maps(
        self, step: int | None = None, line: int | None = None, time: int | None = None, pid: int | None = None
    ) -> str:
        """Return an address space in the format of /proc/PID/maps, equal neighbours joined.

        At most one of `step`, `line` (once that line had been printed) and `time` (in ns, as in `events.time_ns`) says
        when; without, it is the end of the trace, before the exits. `pid` says whose; without, the space of that step,
        or of the first process.

        Raises:
            QueryError: the step, line or process is not in the run.
        """
        return maps_text(self.mapped_at(step, line, time, pid))

    def mapped_at(
        self, step: int | None = None, line: int | None = None, time: int | None = None, pid: int | None = None
    ) -> list[Mapping]:
        """Return the lines that `maps` prints, as values, in order of addresses."""
        clock = self._clock_of(step, line, time)
        space = self.space_at(clock, step, pid)
        if not len(self.replayed.spaces["died_line"]):  # no line of the log tells of a space
            return []
        return list(join_equal(self.mappings(space, self._last_clock(space) if clock is None else clock)))

    def mappings(self, space: int, clock: int) -> list[Mapping]:
        """Return the mappings of a space once line `clock` had been printed, in order of addresses, not joined."""
        mapped = self.mapped(space, clock)
        perms = map(perms_text, mapped.prot.tolist(), mapped.shared.astype(np.bool_).tolist())
        names = (mapped.names[place] for place in mapped.name.tolist())
        columns = mapped.start.tolist(), mapped.end.tolist(), perms, mapped.offset.tolist(), names
        return list(map(Mapping, *columns))

    def mapped(self, space: int, clock: int) -> Mapped:
        """Return what `mappings` does, as columns, each mapping with its rows of `regions`.

        The break's growths are one mapping, with the row of the first. So are equal neighbours without file and offset
        of one kind, with a row each.
        """
        alive = self.alive(space, clock)
        regions = self.replayed.regions
        columns = {name: regions.at(name, alive) for name in _MAPPED}
        order = np.argsort(columns["start"].astype(np.uint64), kind="stable")
        alive, columns = alive[order], {name: column[order] for name, column in columns.items()}
        heap = self._heap_range(space, clock, columns)
        ends, prot, grown = columns["end"], columns["prot"], columns["kind"] == KIND_BRK
        touches = columns["start"][1:] == ends[:-1]
        goes_on = grown[1:] & grown[:-1] & touches & (prot[1:] == prot[:-1])
        firsts = _heads(~goes_on, len(alive))
        columns = {name: column[firsts] for name, column in columns.items()}
        columns["end"] = ends[_lasts(firsts, len(alive))]
        place, names = self._names(heap, columns)
        mapped = Mapped(
            start=columns["start"].astype(np.uint64),
            end=columns["end"].astype(np.uint64),
            prot=columns["prot"],
            shared=columns["shared"],
            offset=np.maximum(columns["offset"], 0),
            kind=columns["kind"],
            name=place,
            names=names,
            rows=alive[firsts],
            first=np.arange(len(firsts) + 1),
        )
        return mapped.joined(self._plain_goes_on(heap, columns))

    def _plain_goes_on(self, heap: tuple[int, int], columns: Columns) -> NDArray[np.bool_]:
        """Tell of which mappings the next above goes on as the same anonymous memory of the same kind."""
        start, end, offset, path = (columns[name] for name in ("start", "end", "offset", "path"))
        plain = (path == NO_TEXT) & (offset <= 0)
        same: NDArray[np.bool_] = plain[1:] & plain[:-1] & (start[1:] == end[:-1])
        in_heap = _with_neighbours(_in_heap(heap, columns), columns)
        for column in (in_heap, offset, columns["kind"], columns["prot"], columns["shared"]):
            same &= column[1:] == column[:-1]
        return same

    def _names(self, heap: tuple[int, int], columns: Columns) -> tuple[Int64Array, list[str]]:
        """Return what stands as path or name of each mapping: the place of a text, and the texts, each once."""
        known = distinct(columns["path"])
        texts = ["" if path == NO_TEXT else self.strings[path] for path in known.tolist()]
        names = list(dict.fromkeys(["", "[heap]", *texts]))
        places = {name: place for place, name in enumerate(names)}
        place = np.array([places[text] for text in texts], np.int64)[np.searchsorted(known, columns["path"])]
        place[place == 1] = 0
        in_heap = _with_neighbours(_in_heap(heap, columns), columns)
        place[(place == 0) & in_heap] = 1
        return place, names

    def alive(self, space: int, clock: int) -> Int64Array:
        """Return the rows of `regions` that are alive in a space once line `clock` had been printed."""
        regions, found = self.replayed.regions, [np.zeros(0, np.int64)]
        for number in range(regions.parts):
            died = regions.part(number, ["died_line"])["died_line"]
            rows = np.flatnonzero((died == NULL) | (died > clock))
            if len(rows):
                part = regions.part(number, ["space", "born_line"])
                rows = rows[(part["space"][rows] == space) & (part["born_line"][rows] <= clock)]
                found.append(rows + regions.starts[number])
        return np.concatenate(found)

    def _heap_range(self, space: int, clock: int, columns: Columns) -> tuple[int, int]:
        """Return `[start_brk, brk)` by its pages. Source: task_mmu.c: [heap] overlaps it and is no file."""
        brk = columns["kind"] == KIND_BRK
        starts = self.replayed.spaces["start_brk"]
        start = int(starts[space]) if space < len(starts) else NULL
        low = start if start != NULL else int(columns["start"][brk].min(initial=_HIGHEST))
        high = self._break_at(space, clock) or int(columns["end"][brk].max(initial=0))
        return (low, high) if low < high else (0, 0)

    def _break_at(self, space: int, clock: int) -> int:
        """Return the break of a space, rounded up to pages, as its last brk call by line `clock` left it; 0 if none."""
        brks, spaces, page = self.replayed.brks, self.replayed.spaces, self.replayed.page_size
        while space != NULL and space < len(spaces["space"]):
            mine = np.flatnonzero(brks["space"] == space)
            before = mine[brks["step"][mine] < self.replayed.events.count_up_to("clock", clock)]
            if before.size:
                return -(-int(brks["granted"][before[-1]]) // page) * page
            if spaces["origin"][space] != ORIGIN_FORK:
                break
            clock, space = min(clock, int(spaces["born_line"][space])), int(spaces["parent"][space])
        return 0

    def _clock_of(self, step: int | None, line: int | None, time: int | None) -> int | None:
        """Return the line of the moment asked for, None for the end of the trace."""
        if sum(value is not None for value in (step, line, time)) > 1:
            raise QueryError("say when by one of step, line and time")
        if line is not None:
            moments.check_line(self, line)
            return line
        if step is None and time is None:
            return None
        return self.replayed.events.one("clock", moments.last_step(self, moments.Moment(time=time, step=step)))

    def space_at(self, clock: int | None, step: int | None = None, pid: int | None = None) -> int:
        """Return the space of `pid` then, of the step, or of who made the last step by line `clock`."""
        events = self.replayed.events
        if pid is not None:
            until = events.rows if clock is None else events.count_up_to("clock", clock)
            space = self.replayed.who.space_of(pid, until - 1)
            if space == NULL:
                raise QueryError(f"no process or thread {pid} in the run")
            return space
        if step is not None:
            return int(events["space"][step])
        if clock is not None:
            before = np.flatnonzero(events["clock"] <= clock)
            return int(events["space"][before[-1]]) if before.size else 0
        mine = np.flatnonzero(events["tid"] == events["tid"][0]) if len(events["tid"]) else np.zeros(0, np.int64)
        return int(events["space"][mine[-1]]) if mine.size else 0

    def _last_clock(self, space: int) -> int:
        """Return the last line at which a space was alive: the one before its last exit."""
        died = self.replayed.spaces["died_line"]
        ended = int(died[space]) if space < len(died) else NULL  # a log without calls has no space
        if ended == NULL:
            return self.replayed.last_clock
        regions, last = self.replayed.regions, ended
        for number in range(regions.parts):
            part = regions.part(number, ["space", "died_line"])
            last = max(last, int(part["died_line"].max(where=part["space"] == space, initial=ended)))
        return last - 1


def _heads(begins: NDArray[np.bool_], count: int) -> Int64Array:
    """Return which of `count` neighbours are the first of those that belong together; `begins` tells of all but one."""
    return np.flatnonzero(np.append(True, begins))[:count]


def _lasts(heads: Int64Array, count: int) -> Int64Array:
    """Return the last ones of those that belong together, of which `heads` are the first."""
    return np.append(heads[1:], count)[: len(heads)] - 1


def _with_neighbours(in_heap: NDArray[np.bool_], columns: Columns) -> NDArray[np.bool_]:
    """Tell which mappings are those of the heap or joined to them by the kernel: plain memory right above them.

    Source: mm/vma.c, vma_merge_new_range; task_mmu.c: the label is of the whole VMA.
    """
    plain = (columns["path"] == NO_TEXT) & (columns["offset"] == NULL) & (columns["shared"] == 0)
    plain &= (columns["flags"] & _KEEPS_APART) == 0
    touches = (columns["start"][1:] == columns["end"][:-1]) & (columns["prot"][1:] == columns["prot"][:-1])
    joined = in_heap.copy()
    for low in np.flatnonzero(touches).tolist():
        joined[low + 1] |= joined[low] & plain[low + 1]
    return joined


def _in_heap(heap: tuple[int, int], columns: Columns) -> NDArray[np.bool_]:
    """Tell which mappings without offset overlap the range of the heap."""
    inside: NDArray[np.bool_] = (columns["offset"] == NULL) & (columns["start"] < heap[1]) & (columns["end"] > heap[0])
    return inside
