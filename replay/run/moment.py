"""The address space at a moment: which mappings are alive then, under which names.

In go the rectangles of a replay and a line of the log, out come mappings as columns or as values. How they are printed
this module does not know.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Strings
from replay.engine.sorting import distinct
from replay.engine.structs import Value, replace
from replay.errors import QueryError
from replay.linux import constants
from replay.linux.proc_maps import Mapping, perms_text
from replay.mm.fields import KIND_BRK
from replay.spaces.replay import ORIGIN_FORK, Replay

_MAPPED: Final = ("start", "end", "prot", "shared", "path", "offset", "kind", "flags")
"""Columns of regions that say what a line of /proc/PID/maps shows."""

_KEEPS_APART: Final = sum(
    constants.MAP_FLAGS[name] for name in ("MAP_NORESERVE", "MAP_GROWSDOWN", "MAP_LOCKED", "MAP_STACK", "MAP_HUGETLB")
)
"""Flags by which anonymous memory is no neighbour of the heap's kind. Source: mm/mmap.c, calc_vm_flag_bits."""

_HIGHEST: Final = (1 << 63) - 1


class Mapped(Value):
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


def mappings(replayed: Replay, strings: Strings, space: int, clock: int) -> list[Mapping]:
    """Return the mappings of a space once line `clock` had been printed, in order of addresses, not joined."""
    found = mapped(replayed, strings, space, clock)
    perms = map(perms_text, found.prot.tolist(), found.shared.astype(np.bool_).tolist())
    names = (found.names[place] for place in found.name.tolist())
    columns = found.start.tolist(), found.end.tolist(), perms, found.offset.tolist(), names
    return list(map(Mapping, *columns))


def mapped(replayed: Replay, strings: Strings, space: int, clock: int) -> Mapped:
    """Return what `mappings` does, as columns, each mapping with its rows of `regions`.

    The break's growths are one mapping, with the row of the first. So are equal neighbours without file and offset
    of one kind, with a row each.
    """
    rows = alive(replayed, space, clock)
    regions = replayed.regions
    columns = {name: regions.at(name, rows) for name in _MAPPED}
    order = np.argsort(columns["start"].astype(np.uint64), kind="stable")
    rows, columns = rows[order], {name: column[order] for name, column in columns.items()}
    heap = _heap_range(replayed, space, clock, columns)
    ends, prot, grown = columns["end"], columns["prot"], columns["kind"] == KIND_BRK
    touches = columns["start"][1:] == ends[:-1]
    goes_on = grown[1:] & grown[:-1] & touches & (prot[1:] == prot[:-1])
    firsts = _heads(~goes_on, len(rows))
    columns = {name: column[firsts] for name, column in columns.items()}
    columns["end"] = ends[_lasts(firsts, len(rows))]
    place, names = _names(strings, heap, columns)
    found = Mapped(
        start=columns["start"].astype(np.uint64),
        end=columns["end"].astype(np.uint64),
        prot=columns["prot"],
        shared=columns["shared"],
        offset=np.maximum(columns["offset"], 0),
        kind=columns["kind"],
        name=place,
        names=names,
        rows=rows[firsts],
        first=np.arange(len(firsts) + 1),
    )
    return found.joined(_plain_goes_on(heap, columns))


def _plain_goes_on(heap: tuple[int, int], columns: Columns) -> NDArray[np.bool_]:
    """Tell of which mappings the next above goes on as the same anonymous memory of the same kind."""
    start, end, offset, path = (columns[name] for name in ("start", "end", "offset", "path"))
    plain = (path == NO_TEXT) & (offset <= 0)
    same: NDArray[np.bool_] = plain[1:] & plain[:-1] & (start[1:] == end[:-1])
    in_heap = _with_neighbours(_in_heap(heap, columns), columns)
    for column in (in_heap, offset, columns["kind"], columns["prot"], columns["shared"]):
        same &= column[1:] == column[:-1]
    return same


def _names(strings: Strings, heap: tuple[int, int], columns: Columns) -> tuple[Int64Array, list[str]]:
    """Return what stands as path or name of each mapping: the place of a text, and the texts, each once."""
    known = distinct(columns["path"])
    texts = ["" if path == NO_TEXT else strings[path] for path in known.tolist()]
    names = list(dict.fromkeys(["", "[heap]", *texts]))
    places = {name: place for place, name in enumerate(names)}
    place = np.array([places[text] for text in texts], np.int64)[np.searchsorted(known, columns["path"])]
    place[place == 1] = 0
    in_heap = _with_neighbours(_in_heap(heap, columns), columns)
    place[(place == 0) & in_heap] = 1
    return place, names


def alive(replayed: Replay, space: int, clock: int) -> Int64Array:
    """Return the rows of `regions` that are alive in a space once line `clock` had been printed."""
    regions, found = replayed.regions, [np.zeros(0, np.int64)]
    for number in range(regions.parts):
        gone = regions.constant(number, "died_line")
        if regions.constant(number, "space") not in (space, None) or (gone not in (NULL, None) and gone <= clock):
            continue
        died = regions.part(number, ["died_line"])["died_line"]
        rows = np.flatnonzero((died == NULL) | (died > clock))
        if len(rows):
            part = regions.part(number, ["space", "born_line"])
            rows = rows[(part["space"][rows] == space) & (part["born_line"][rows] <= clock)]
            found.append(rows + regions.starts[number])
    return np.concatenate(found)


def _heap_range(replayed: Replay, space: int, clock: int, columns: Columns) -> tuple[int, int]:
    """Return `[start_brk, brk)` by its pages. Source: task_mmu.c: [heap] overlaps it and is no file."""
    brk = columns["kind"] == KIND_BRK
    starts = replayed.spaces["start_brk"]
    start = int(starts[space]) if space < len(starts) else NULL
    low = start if start != NULL else int(columns["start"][brk].min(initial=_HIGHEST))
    high = _break_at(replayed, space, clock) or int(columns["end"][brk].max(initial=0))
    return (low, high) if low < high else (0, 0)


def _break_at(replayed: Replay, space: int, clock: int) -> int:
    """Return the break of a space, rounded up to pages, as its last brk call by line `clock` left it; 0 if none."""
    brks, spaces, page = replayed.brks, replayed.spaces, replayed.page_size
    while space != NULL and space < len(spaces["space"]):
        mine = np.flatnonzero(brks["space"] == space)
        before = mine[brks["step"][mine] < replayed.events.count_up_to("clock", clock)]
        if before.size:
            return -(-int(brks["granted"][before[-1]]) // page) * page
        if spaces["origin"][space] != ORIGIN_FORK:
            break
        clock, space = min(clock, int(spaces["born_line"][space])), int(spaces["parent"][space])
    return 0


def space_at(replayed: Replay, clock: int | None, step: int | None = None, pid: int | None = None) -> int:
    """Return the space of `pid` then, of the step, or of who made the last step by line `clock`."""
    events = replayed.events
    if pid is not None:
        until = events.rows if clock is None else events.count_up_to("clock", clock)
        space = replayed.who.space_of(pid, until - 1)
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


def last_clock(replayed: Replay, space: int) -> int:
    """Return the last line at which a space was alive: the one before its last exit."""
    died = replayed.spaces["died_line"]
    ended = int(died[space]) if space < len(died) else NULL  # a log without calls has no space
    if ended == NULL:
        return replayed.last_clock
    regions, last = replayed.regions, ended
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
