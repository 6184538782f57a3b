"""One run: its logs replayed once, its tables on demand, its address spaces at any moment.

In go the paths of logs, out comes a `Run` with columns, DataFrames and the text of /proc/PID/maps. How a report looks
this module does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as AnyMapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from replay import constants, regions, symbols
from replay.address_space import KIND_BRK, KINDS, ORIGINS
from replay.allocator import Activity, Record, allocator_activity
from replay.blocks import BACKINGS, ENDS, LIVE, Blocks, find_blocks, note_problems
from replay.calls import RunInput, read_run
from replay.columns import NO_TEXT, NULL, Int64Array, Strings, to_unsigned
from replay.errors import QueryError, ReplayError
from replay.heap import Answer, Heaps, answer, changes_with_heap, find_heaps
from replay.heap import fragmentation as heap_fragmentation
from replay.maps import Mapping, join_equal, maps_text, perms_text, read_maps
from replay.narrow import Derived
from replay.nesting import Nesting, find_nesting
from replay.regions import ORIGIN_FORK, Columns, Replay
from replay.summary import summary_columns
from replay.tables import TABLES, Words, export_tables, mmap_fallbacks_of, to_arrow, to_pandas

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ColumnsByName: TypeAlias = AnyMapping[str, Any]

STATUSES: Final = ("ok", "failed", "unfinished")
DIALECTS: Final = ("strace", "ltrace")
_PAGE_LIMIT: Final = 1 << 30
_HIGHEST: Final = (1 << 63) - 1


def load(
    trace: str | Path | Iterable[str | Path],
    *,
    format: str = "auto",
    maps: str | Path | None = None,
    page_size: int = 4096,
    strict: bool = False,
) -> Run:
    """Return the run that one log, or the logs of one run, recorded.

    Args:
        trace: a log (plain or compressed, `-` for standard input), the prefix of a `strace -ff` set, or several logs.
        format: `auto`, `strace` or `ltrace`.
        maps: a /proc/PID/maps snapshot taken where the trace starts, or, for a traced start, of the fresh process.
        page_size: bytes of a page, a power of two.
        strict: whether the first line not understood is an error.

    Raises:
        TraceFormatError: a log cannot be read or is no trace.
        TraceSyntaxError: a line was not understood, if `strict`.
        ReplayError: the maps file or an option is unusable.
    """
    if page_size <= 0 or page_size & (page_size - 1) or page_size > _PAGE_LIMIT:
        raise ReplayError(f"page size {page_size}: expected a power of two such as 4096")
    if format not in ("auto", *DIALECTS):
        raise ReplayError(f"format {format!r}: expected auto, strace or ltrace")
    paths: list[str | Path] = [trace] if isinstance(trace, (str, Path)) else list(trace)
    initial = read_maps(Path(maps)) if maps is not None else ()
    source = read_run(paths, dialect=format, strict=strict)
    calls = source.calls()
    return Run(source, regions.replay(calls, source.strings, page_size, initial))


class Run:
    """A replayed run; its tables are DataFrames: `events`, `regions`, `brk_failures`, `allocator_mmaps` and so on."""

    def __init__(self, source: RunInput, replayed: Replay) -> None:
        """Hold what was read (`source`) and what became of it (`replayed`)."""
        self.source = source
        self.replayed = replayed
        self.strings: Strings = source.strings
        self._note_divergences()
        note_problems(self.malloc_blocks, replayed.events, self.strings, source.problems)

    def __getattr__(self, name: str) -> pd.DataFrame:
        """Return the table of that name as a DataFrame, made once."""
        if name.startswith("_") or name not in TABLES:
            raise AttributeError(f"a Run has no {name!r}; its tables are {', '.join(TABLES)}")
        frame = to_pandas(self.arrow(name))
        self.__dict__[name] = frame
        return frame

    def arrow(self, table: str) -> pa.Table:
        """Return a table as an Arrow table; raise QueryError if there is none of that name."""
        if table == "mmap_fallbacks":
            return mmap_fallbacks_of(self.arrow("allocator_mmaps"))
        return to_arrow(table, self.columns(table), self.strings)

    def columns(self, table: str) -> ColumnsByName:
        """Return the columns of a table as `tables.to_arrow` takes them."""
        make = _COLUMNS.get(table)
        if make is None:
            raise QueryError(f"no table {table!r}; the tables are {', '.join(TABLES)}")
        return make(self)

    def export(self, directory: str | Path, *, format: str = "parquet", force: bool = False) -> None:
        """Write all tables into `directory`, one file each, whole or not at all.

        Raises:
            OutputExistsError: a file is there already and `force` is not set.
            ReplayError: the directory cannot be written.
        """
        export_tables({name: self.arrow(name) for name in TABLES}, Path(directory), format, force=force)

    @cached_property
    def nesting(self) -> Nesting:
        """Inside which libc call each step ran."""
        nil = any(log.nil for log in self.source.logs)
        return find_nesting(self.replayed.events, self.strings, nil=nil)

    @cached_property
    def malloc_blocks(self) -> Blocks:
        """The blocks of malloc, and the frees that fit none."""
        return find_blocks(self.replayed, self.nesting)

    @cached_property
    def heaps(self) -> Heaps:
        """The heaps that malloc cuts its blocks from."""
        return find_heaps(self.replayed, self.nesting, self.malloc_blocks)

    @cached_property
    def answer(self) -> Answer:
        """Whether the space with the most bytes live at once leaks, is fragmented, both or neither."""
        return answer(self.replayed, self.malloc_blocks, self.heaps)

    @cached_property
    def activity(self) -> Activity:
        """What the allocators did."""
        made = self.replayed
        made.events["parent_step"] = self.nesting.parent_step
        record = Record(made.events, made.brks, made.regions, made.spaces, self.strings, made.page_size)
        return allocator_activity(record)

    @cached_property
    def summary_values(self) -> dict[str, Any]:
        """The one row of the table `summary`, by column."""
        return summary_columns(self.source, self.replayed, self.activity, self.malloc_blocks, lambda: self.answer)

    def _note_divergences(self) -> None:
        """Add the contradictions between trace and replay to the problems."""
        columns = self.replayed.divergences
        events = self.replayed.events
        for step, code, space in zip(columns["step"], columns["code"], columns["space"], strict=True):
            call = constants.CALLS[int(events["call"][step])]
            text = f"step {step}, space {space}: {call}: the log's answer was applied"
            self.source.problems.add(
                int(events["line"][step]), regions.DIVERGENCES[int(code)], text, int(events["file"][step])
            )

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
        clock = self._clock_of(step, line, time)
        space = self.space_at(clock, step, pid)
        return maps_text(join_equal(self.mappings(space, self._last_clock(space) if clock is None else clock)))

    def mappings(self, space: int, clock: int) -> list[Mapping]:
        """Return the mappings of a space once line `clock` had been printed, in order of addresses, not joined."""
        return [mapping for mapping, _ in self.mapped(space, clock)]

    def mapped(self, space: int, clock: int) -> list[tuple[Mapping, int]]:
        """Return what `mappings` does, each mapping with its row of `regions`; the break's growths are one mapping."""
        columns = self.replayed.regions
        alive = self.alive(space, clock)
        if not len(alive):
            return []
        heap = self._heap_range(space, clock, columns, alive)
        alive = alive[np.argsort(columns["start"][alive].astype(np.uint64), kind="stable")]
        ends = columns["end"][alive]
        grown = columns["kind"][alive] == KIND_BRK
        goes_on = grown[1:] & grown[:-1] & (columns["start"][alive[1:]] == ends[:-1])
        goes_on &= columns["prot"][alive[1:]] == columns["prot"][alive[:-1]]
        firsts = np.flatnonzero(np.append(True, ~goes_on))
        lasts = np.append(firsts[1:], len(alive)) - 1
        mappings = (self._mapping(columns, int(row), heap) for row in alive[firsts])
        return [
            (mapping._replace(end=to_unsigned(end)), int(row))
            for mapping, end, row in zip(mappings, ends[lasts].tolist(), alive[firsts], strict=True)
        ]

    def alive(self, space: int, clock: int) -> Int64Array:
        """Return the rows of `regions` that are alive in a space once line `clock` had been printed."""
        columns = self.replayed.regions
        born, died = columns["born_line"], columns["died_line"]
        chosen = (columns["space"] == space) & (born <= clock) & ((died == NULL) | (died > clock))
        return np.flatnonzero(chosen).astype(np.int64)

    def _heap_range(self, space: int, clock: int, columns: Columns, alive: Int64Array) -> tuple[int, int]:
        """Return `[start_brk, brk)` by its pages. Source: task_mmu.c: [heap] overlaps it and is no file."""
        brk = alive[columns["kind"][alive] == KIND_BRK]
        start = int(self.replayed.spaces["start_brk"][space])
        low = int(columns["start"][brk].min(initial=start if start != NULL else _HIGHEST))
        high = int(columns["end"][brk].max(initial=self._break_at(space, clock)))
        return (low, high) if low < high else (0, 0)

    def _break_at(self, space: int, clock: int) -> int:
        """Return the break of a space, rounded up to pages, as its last brk call by line `clock` left it; 0 if none."""
        brks, spaces, page = self.replayed.brks, self.replayed.spaces, self.replayed.page_size
        while space != NULL:
            mine = np.flatnonzero(brks["space"] == space)
            before = mine[self.replayed.events["clock"][brks["step"][mine]] <= clock]
            if before.size:
                return -(-int(brks["granted"][before[-1]]) // page) * page
            if spaces["origin"][space] != ORIGIN_FORK:
                break
            clock, space = min(clock, int(spaces["born_line"][space])), int(spaces["parent"][space])
        return 0

    def _mapping(self, columns: Columns, row: int, heap: tuple[int, int]) -> Mapping:
        start, end = to_unsigned(int(columns["start"][row])), to_unsigned(int(columns["end"][row]))
        path = int(columns["path"][row])
        offset = int(columns["offset"][row])
        text = self.strings[path] if path != NO_TEXT else ""
        if not text and offset == NULL and start < heap[1] and end > heap[0]:
            text = "[heap]"
        perms = perms_text(int(columns["prot"][row]), bool(columns["shared"][row]))
        return Mapping(start, end, perms, max(offset, 0), text)

    def _clock_of(self, step: int | None, line: int | None, time: int | None) -> int | None:
        """Return the line of the moment asked for, None for the end of the trace."""
        if sum(value is not None for value in (step, line, time)) > 1:
            raise QueryError("say when by one of step, line and time")
        events = self.replayed.events
        if step is not None:
            if not 0 <= step < len(events["clock"]):
                raise QueryError(f"no step {step}: the run has steps 0 to {len(events['clock']) - 1}")
            return int(events["clock"][step])
        if line is not None and line < 1:
            raise QueryError(f"no line {line}: lines count from 1")
        if time is not None:
            earlier = np.flatnonzero((events["time_ns"] != NULL) & (events["time_ns"] <= time))
            if not earlier.size:
                raise QueryError("no step at or before that time; has the log times (-ttt)?")
            return int(events["clock"][earlier[-1]])
        return line

    def space_at(self, clock: int | None, step: int | None = None, pid: int | None = None) -> int:
        """Return the space of `pid` then, of the step, or of who made the last step by line `clock`."""
        events = self.replayed.events
        if pid is not None:
            mine = np.flatnonzero(events["tid"] == pid)
            if not mine.size:
                raise QueryError(f"no process or thread {pid} in the run")
            if clock is None:
                return int(events["space"][mine[-1]])
            before = mine[events["clock"][mine] <= clock]
            return int(events["space"][before[-1] if before.size else mine[0]])
        if step is not None:
            return int(events["space"][step])
        if clock is not None:
            before = np.flatnonzero(events["clock"] <= clock)
            return int(events["space"][before[-1]]) if before.size else 0
        mine = np.flatnonzero(events["tid"] == events["tid"][0]) if len(events["tid"]) else np.zeros(0, np.int64)
        return int(events["space"][mine[-1]]) if mine.size else 0

    def _last_clock(self, space: int) -> int:
        """Return the last line at which a space was alive: the one before its last exit."""
        ended = int(self.replayed.spaces["died_line"][space])
        if ended == NULL:
            return self.replayed.last_clock
        died = self.replayed.regions["died_line"][self.replayed.regions["space"] == space]
        return max(int(died.max(initial=ended)), ended) - 1


# --- tables out of columns -------------------------------------------------------------------------------------------


def _texts_of(values: Int64Array, words: Sequence[str]) -> Words:
    return Words(values, words)


def _decoded(call: Int64Array, values: Int64Array, text_of: Any) -> Words:
    """Return the words of (call, number) pairs, null where the number is."""
    present = values != NULL
    ids = np.full(len(values), NO_TEXT, np.int64)
    pairs = np.stack([call[present], values[present]], axis=1)
    known, back = np.unique(pairs, axis=0, return_inverse=True)
    ids[present] = back.reshape(-1)
    return Words(ids, [text_of(constants.CALLS[int(code)], int(value)) for code, value in known])


def _event_columns(run: Run) -> dict[str, Any]:
    events = dict(run.replayed.events)
    call = events["call"]
    words = ["exit" if name == "exit_group" else name for name in constants.CALLS]
    columns: dict[str, Any] = {
        name: events[name]
        for name in (
            "step", "line", "entry_line", "pid", "space", "time_ns", "duration_ns", "name", "addr", "length",
            "old_length", "fd", "path", "offset", "result", "caller",
        )
    }  # fmt: skip
    columns["dialect"] = Words(events["dialect"], DIALECTS)
    columns["call"] = Words(call, words)
    columns["prot"] = _decoded(call, events["prot"], lambda _call, prot: symbols.prot_text(prot))
    columns["flags"] = _decoded(call, events["flags"], symbols.flags_text)
    errno = np.where(events["errno"] == 0, NULL, events["errno"])
    columns["errno"] = _decoded(call, errno, lambda _call, number: constants.ERRNO_NAME.get(number, f"errno {number}"))
    columns["status"] = Words(events["status"], STATUSES)
    if len(run.source.files) > 1:
        columns["file"] = Words(events["file"], run.source.files)
    columns["parent_step"] = run.nesting.parent_step
    return columns


def _region_columns(run: Run) -> dict[str, Any]:
    regions_ = run.replayed.regions
    perms = regions_["prot"] * 2 + regions_["shared"]
    words = [perms_text(code >> 1, bool(code & 1)) for code in range(16)]
    columns: dict[str, Any] = {
        name: regions_[name]
        for name in ("space", "start", "end", "path", "offset", "born_step", "died_step", "born_line", "died_line")
    }
    columns["perms"] = Words(perms, words)
    columns["kind"] = Words(regions_["kind"], KINDS)
    columns["origin"] = Words(regions_["origin"], ORIGINS)
    return columns


def _fragmentation_columns(run: Run) -> ColumnsByName:
    changes = changes_with_heap(run.replayed, run.malloc_blocks, run.heaps)
    made = {
        "time_ns": lambda: run.replayed.events["time_ns"][changes["step"]],
        "address_fragmentation": lambda: _address_fragmentation(changes),
        "heap_fragmentation": lambda: heap_fragmentation(changes),
    }
    return Derived(changes, made)


def _address_fragmentation(changes: ColumnsByName) -> Any:
    gaps = changes["gap_bytes"].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gaps > 0, 1 - changes["largest_gap_bytes"] / gaps, 0.0)


def _problem_columns(run: Run) -> dict[str, Any]:
    kept = sorted(run.source.problems.kept, key=lambda problem: (problem.file, problem.line))
    return {
        "line": np.array([problem.line for problem in kept], np.int64),
        "reason": [problem.reason for problem in kept],
        "text": [problem.text for problem in kept],
    }


def _block_columns(run: Run) -> dict[str, Any]:
    blocks = run.malloc_blocks.columns
    hidden = (blocks["inherited"] == 1) & (blocks["end"] == LIVE)
    shown = ~hidden if hidden.any() else slice(None)
    columns: dict[str, Any] = {
        name: blocks[name][shown]
        for name in ("space", "addr", "size", "pid", "caller", "born_step", "died_step", "born_line", "died_line")
    }
    columns["call"] = Words(blocks["call"][shown], constants.CALLS)
    columns["backing"] = Words(blocks["backing"][shown], BACKINGS)
    columns["end"] = Words(blocks["end"][shown], ENDS)
    return columns


_COLUMNS: Final[dict[str, Callable[[Run], ColumnsByName]]] = {
    "events": _event_columns,
    "regions": _region_columns,
    "blocks": _block_columns,
    "brk_failures": lambda run: run.activity.brk_failures,
    "allocator_mmaps": lambda run: run.activity.allocator_mmaps,
    "fragmentation": _fragmentation_columns,
    "problems": _problem_columns,
    "summary": lambda run: {name: [value] for name, value in run.summary_values.items()},
}
