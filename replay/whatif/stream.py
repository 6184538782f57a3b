"""The malloc requests of one address space as fixed records, in the order in which they were made.

In goes a run, out comes a stream for `player.c` and the addresses that were recorded. Who serves the stream is not
known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from replay.calls.enclosing import GIVING
from replay.calls.reader import FAILED
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.errors import ReplayError
from replay.heap.blocks import FREED, MOVED
from replay.linux.constants import CALL_CODE
from replay.run.api import Run

MALLOC, CALLOC, REALLOC, MEMALIGN, FREE, MALLOPT, MAP, UNMAP, EXIT = range(9)
"""What a record asks for, as `enum operation` of player.c counts."""

RECORD: Final = np.dtype([("operation", "<u2"), ("thread", "<u2"), ("slot", "<u4"), ("size", "<u8"), ("second", "<u8")])
"""`struct record` of player.c."""

HEADER: Final = np.dtype([(name, "<u8") for name in ("magic", "records", "slots", "threads", "peak")])
MAGIC: Final = 0x31796C7065725157
NO_SLOT: Final = 0xFFFFFFFF
MOST_THREADS: Final = 1 << 16

_OPERATION_OF: Final = {
    "calloc": CALLOC,
    "realloc": REALLOC,
    "reallocarray": REALLOC,
    "aligned_alloc": MEMALIGN,
    "memalign": MEMALIGN,
    "posix_memalign": MEMALIGN,
    "valloc": MEMALIGN,
    "pvalloc": MEMALIGN,
}
"""Calls of the malloc family that are not served as malloc is."""

_SIZE_NOT_SHOWN: Final = ("strdup", "strndup")


class NoRequestsError(ReplayError):
    """The log shows no malloc call that could be served again."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The requests of one space.

    records: `RECORD`s in their order. addresses: what the recorded allocator answered to each, 0 for what gives
    nothing. threads: the thread of each number in the records. unserved: requests of a size that the log does not show.
    peak: the record after which most bytes were live.
    """

    space: int
    records: np.ndarray
    addresses: np.ndarray
    threads: list[int]
    slots: int
    unserved: int
    peak: int

    def write(self, path: Path) -> None:
        """Write the stream as the player reads it."""
        header = np.zeros(1, HEADER)
        header[0] = (MAGIC, len(self.records), self.slots, len(self.threads), self.peak)
        with path.open("wb") as file:
            file.write(header.tobytes())
            file.write(self.records.tobytes())


def stream_of(run: Run, pid: int | None = None, *, foreign: Columns | None = None) -> Stream:
    """Return the requests of the space of `pid`, or of the one with the most.

    `foreign` are mappings that the player makes at a distance from the break: columns `born_step`, `died_step`,
    `distance` and `size` in bytes.

    Raises:
        NoRequestsError: the log shows none.
        QueryError: there is no such process.
    """
    blocks = run.malloc_blocks
    if not blocks.seen:
        raise NoRequestsError(
            "the log shows no malloc calls, which strace never does: record them with `replay record`"
        )
    space = run.space_at(None, pid=pid) if pid is not None else _busiest_space(run)
    mine = np.flatnonzero(blocks.columns["space"] == space)
    columns = {name: blocks.columns[name][mine] for name in _OF_BLOCKS}
    parts = [_gives(run, columns), _takes(run, columns), _refused(run, space), _options(run, space)]
    if foreign is not None:
        parts.append(_foreign(foreign, len(mine)))
    rows = np.concatenate(parts)
    rows = np.concatenate([rows, _exits(run, space, rows["tid"])])
    if not len(rows):
        raise NoRequestsError("the log shows no malloc call of that process")
    rows = rows[np.argsort(rows["order"], kind="stable")]
    slots = len(mine) + (0 if foreign is None else len(foreign["size"]))
    return _numbered(rows, space, slots, int(_unknown_size(columns).sum()), run)


_OF_BLOCKS: Final = ("given_step", "taken_step", "call", "tid", "size", "addr", "end", "inherited")

_ROW: Final = np.dtype([("order", "<i8"), ("tid", "<i8"), ("address", "<u8"), ("record", RECORD)])
"""A record with when it was made, by whom, and what was answered."""


def _busiest_space(run: Run) -> int:
    """Return the space in which most blocks were handed out."""
    blocks = run.malloc_blocks.columns
    own = blocks["space"][blocks["inherited"] == 0]
    return int(np.bincount(own).argmax()) if len(own) else 0


def _unknown_size(columns: Columns) -> Mask:
    unknown: Mask = np.isin(columns["call"], [CALL_CODE[name] for name in _SIZE_NOT_SHOWN])
    return unknown


def _rows(count: int) -> np.ndarray:
    rows = np.zeros(count, _ROW)
    rows["record"]["slot"] = NO_SLOT
    return rows


def _gives(run: Run, columns: Columns) -> np.ndarray:
    """Return a row for each block whose size is known; realloc names the slot of the block that it took."""
    slots = np.flatnonzero(~_unknown_size(columns))
    step, call = columns["given_step"][slots], columns["call"][slots]
    rows = _rows(len(slots))
    record = rows["record"]
    rows["order"], rows["tid"], rows["address"] = step * 2 + 1, columns["tid"][slots], columns["addr"][slots]
    record["slot"], record["size"] = slots, columns["size"][slots]
    for name, operation in _OPERATION_OF.items():
        record["operation"][call == CALL_CODE[name]] = operation
    aligned = record["operation"] == MEMALIGN
    align = run.replayed.events.at("aux", step[aligned])
    record["second"][aligned] = np.where(align > 0, align, run.replayed.page_size)
    resized = np.flatnonzero(record["operation"] == REALLOC)
    record["second"][resized] = _slots_taken(columns, step[resized])
    return rows


def _slots_taken(columns: Columns, steps: Int64Array) -> Int64Array:
    """Return which block each of the calls at `steps` moved, `NO_SLOT` for none."""
    moved = np.flatnonzero((columns["end"] == MOVED) & (columns["taken_step"] != NULL))
    moved = moved[np.argsort(columns["taken_step"][moved], kind="stable")]
    if not len(moved):
        return np.full(len(steps), NO_SLOT)
    at = np.minimum(np.searchsorted(columns["taken_step"][moved], steps), len(moved) - 1)
    return np.where(columns["taken_step"][moved[at]] == steps, moved[at], NO_SLOT)


def _takes(run: Run, columns: Columns) -> np.ndarray:
    """Return a row for each block that was freed; one that moved to where no size is known is freed too."""
    lost = columns["end"] == MOVED
    lost &= ~np.isin(columns["taken_step"], columns["given_step"][~_unknown_size(columns)])
    slots = np.flatnonzero(
        ((columns["end"] == FREED) | lost) & (columns["taken_step"] != NULL) & ~_unknown_size(columns)
    )
    rows = _rows(len(slots))
    steps = columns["taken_step"][slots]
    rows["order"], rows["tid"] = steps * 2, run.replayed.events.at("tid", steps)
    rows["record"]["operation"], rows["record"]["slot"] = FREE, slots
    return rows


def _refused(run: Run, space: int) -> np.ndarray:
    """Return a row for each request that was answered with NULL: it may move the break all the same."""
    events = run.replayed.events
    believed = run.nesting.believed
    found = [_rows(0)]
    codes = [CALL_CODE[name] for name in GIVING]
    for number in range(events.parts):
        part = events.part(number, ("call", "status", "space", "tid", "length"))
        failed = (part["status"] == FAILED) & (part["space"] == space) & (part["length"] > 0)
        at = np.flatnonzero(failed & np.isin(part["call"], codes))
        at = at[believed[at + events.starts[number]]]
        rows = _rows(len(at))
        rows["order"], rows["tid"] = (at + events.starts[number]) * 2 + 1, part["tid"][at]
        rows["record"]["operation"], rows["record"]["size"] = MALLOC, part["length"][at]
        found.append(rows)
    return np.concatenate(found)


def _options(run: Run, space: int) -> np.ndarray:
    """Return a row for each mallopt: parameter and value."""
    events = run.replayed.events
    if not run.calls_made[CALL_CODE["mallopt"]]:
        return _rows(0)
    steps = np.flatnonzero((events["call"] == CALL_CODE["mallopt"]) & (events["space"] == space))
    rows = _rows(len(steps))
    rows["order"], rows["tid"] = steps * 2, events.at("tid", steps)
    rows["record"]["operation"] = MALLOPT
    rows["record"]["size"] = events.at("aux2", steps).astype(np.uint64)
    rows["record"]["second"] = events.at("aux", steps).astype(np.uint64)
    return rows


def _exits(run: Run, space: int, tids: Int64Array) -> np.ndarray:
    """Return a row for each thread that ended, of those that asked for memory: its cache and arena are free then."""
    events = run.replayed.events
    steps = np.flatnonzero((events["call"] == CALL_CODE["exit"]) & (events["space"] == space))
    ended = events.at("tid", steps)
    chosen = np.isin(ended, tids) & (ended != int(run.replayed.spaces["pid"][space]))
    rows = _rows(int(chosen.sum()))
    rows["order"], rows["tid"] = steps[chosen] * 2, ended[chosen]
    rows["record"]["operation"] = EXIT
    return rows


def _foreign(foreign: Columns, first_slot: int) -> np.ndarray:
    """Return a row for each foreign mapping that is made, and for each that ends."""
    slots = np.arange(len(foreign["size"])) + first_slot
    made, ended = _rows(len(slots)), _rows(len(slots))
    made["order"], ended["order"] = foreign["born_step"] * 2, foreign["died_step"] * 2
    made["tid"] = ended["tid"] = NULL
    for rows, operation in ((made, MAP), (ended, UNMAP)):
        rows["record"]["operation"], rows["record"]["slot"] = operation, slots
        rows["record"]["size"], rows["record"]["second"] = foreign["size"], foreign["distance"]
    return np.concatenate([made, ended[foreign["died_step"] != NULL]])


def _numbered(rows: np.ndarray, space: int, slots: int, unserved: int, run: Run) -> Stream:
    """Return the stream of rows in order; threads are numbered as they come, the process's first one is 0."""
    tids = rows["tid"]
    known, firsts = np.unique(tids[tids != NULL], return_index=True)
    threads = known[np.argsort(firsts)].tolist()
    leader = int(run.replayed.spaces["pid"][space])
    if leader in threads:
        threads.insert(0, threads.pop(threads.index(leader)))
    if len(threads) > MOST_THREADS:
        raise ReplayError(f"{len(threads):,} threads: at most {MOST_THREADS:,} can be made again")
    number = dict(zip(threads, range(len(threads)), strict=True))
    places = np.array([number[tid] for tid in known.tolist()] or [0], np.int64)
    thread = np.where(tids == NULL, 0, places[np.minimum(np.searchsorted(known, tids), len(places) - 1)])
    records = np.ascontiguousarray(rows["record"])
    records["thread"] = thread
    return Stream(space, records, rows["address"].copy(), threads or [leader], slots, unserved, _peak(records))


def _peak(records: np.ndarray) -> int:
    """Return the record after which most bytes are live."""
    operation, slot = records["operation"], records["slot"].astype(np.int64)
    sizes = np.zeros(int(slot[slot != NO_SLOT].max(initial=0)) + 1, np.int64)
    gives = (operation < FREE) & (slot != NO_SLOT)
    sizes[slot[gives]] = records["size"][gives]
    change = np.where(gives, records["size"].astype(np.int64), 0)
    frees = operation == FREE
    change[frees] -= sizes[slot[frees]]
    moves = gives & (operation == REALLOC) & (records["second"] != NO_SLOT)
    change[moves] -= sizes[records["second"][moves].astype(np.int64)]
    return int(np.cumsum(change).argmax()) if len(change) else 0
