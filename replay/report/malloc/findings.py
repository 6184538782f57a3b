"""What a report has to say of malloc: blocks, leaks, causes and the heap, as plain values computed once.

In go a run's findings, out come counts, groups, pictures of the heap and curves. How any of it looks this module does
not know; nothing here walks over blocks one by one.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.calls.enclosing import GIVING, is_call
from replay.calls.reader import FAILED
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.heap.blocks import DOUBLE_FREE, LIVE, MOVED, UNKNOWN_FREE
from replay.heap.diagnosis import ANSWERS, FRAGMENTATION, HELD_SHARE, LEAK, LEAKED_SHARE, LEAST_HELD, Diagnosis
from replay.heap.free_space import taken_bytes
from replay.heap.growth_causes import KINDS, heap_growth, threshold_raises
from replay.heap.leaks import leaked_groups, live_rows
from replay.heap.snapshot import HeapSnapshot, pins
from replay.linux import constants
from replay.report.facts import Curve
from replay.report.malloc.facts import Cause, Fault, LeakGroup, Pin, Raise, SpaceBlocks
from replay.run.stacks import askers
from replay.run.summary import log_end

if TYPE_CHECKING:
    from replay.report.findings import Findings

MOST_PINS: Final = 8

SCATTERED: Final = 50
"""If the worst pin has more blocks above it than this, no few blocks pin the heap. Heuristic."""

_MANY_UNKNOWN: Final = 0.1
_LEAST_UNKNOWN: Final = 10
"""From this share of the frees on, and this number, unknown blocks make the counts doubtful. Heuristic."""

_HALF_READ: Final = 0.1
"""From this share of unread lines that name malloc or free on nothing is said of leaks. Heuristic."""

_OTHERS_BLOCKS: Final = 512
"""Bytes between seen blocks from which on somebody else's blocks lie there: a buffer of stdio is larger. Heuristic."""

_OF_ARENA: Final = 4096
_OF_THREAD: Final = 0x290
"""Bytes at most that glibc keeps for itself in a heap: an arena's head, a thread's cache. Source: malloc/arena.c."""

SHRINKING: Final = ("brk_trimmed", "unmapped", "advised")
"""The kinds of causes that give memory back."""

_CHUNK_HEAD: Final = 48
"""Bytes that malloc_trim keeps of a free chunk besides the page borders: sizeof(struct malloc_chunk) on 64 bits."""


class MallocFindings:
    """What is to be said about malloc; each finding is computed when it is first asked for."""

    def __init__(self, findings: Findings) -> None:
        """Look into the run that `findings` are of."""
        self.findings = findings
        self.run = findings.run
        self.places = findings.places
        self.text = findings.text

    # --- the answer ---

    @property
    def diagnosis(self) -> Diagnosis:
        """Whether the space with the most bytes live at once leaks, is fragmented, both or neither."""
        return self.run.diagnosis

    @property
    def space(self) -> int:
        """The space that is judged and whose heap is shown."""
        return self.diagnosis.space

    @property
    def worst(self) -> HeapSnapshot:
        """The picture with most memory held back, of some moments all over the run: what was between peak and end."""
        return self.diagnosis.worst

    @property
    def passing(self) -> bool:
        """Whether much memory was held back on the way, though neither when the heap was largest nor at the end.

        That may be fragmentation, or only the order in which a program frees all that it has.
        """
        held = self.worst.held_bytes
        return not self.diagnosis.fragmented and held >= LEAST_HELD and held >= HELD_SHARE * self.worst.heap_bytes

    @property
    def decisive(self) -> tuple[HeapSnapshot, str]:
        """The picture that says most of fragmentation, and of which moment it is: `largest` or `end`."""
        largest, end = self.diagnosis.largest, self.diagnosis.end
        return (end, "end") if _weight(end) >= _weight(largest) else (largest, "largest")

    @property
    def exited(self) -> bool:
        """Whether the space that is judged ended by itself."""
        return log_end(self.run.replayed, self.space) == "exit"

    @cached_property
    def leak_untold(self) -> str:
        """Why the log cannot tell whether it is a leak, empty where it can."""
        ends, unread = log_end(self.run.replayed, self.space), self.findings.unread
        if ends == "killed":
            return "the program was killed, and had no chance to free them"
        if ends == "cut":
            return "the log ends before the program's exit"
        if unread is not None and unread.of_malloc and unread.count >= _HALF_READ * self.findings.malloc_calls:
            return "too many lines that name malloc or free could not be read"
        return "" if self.shows_frees else "the log shows no free at all, and may leave them out"

    @cached_property
    def is_recording(self) -> bool:
        """Whether `replay record` made the log, whose preloaded library sees the calls of all callers."""
        return any(log.dialect == "mixed" for log in self.run.source.logs)

    @cached_property
    def shows_frees(self) -> bool:
        """Whether the log would show a free: it shows one, or library calls that have nothing to do with memory."""
        blocks = self.run.malloc_blocks
        return bool(
            self.is_recording or len(blocks.taken_steps) or self.resized or self.run.source.counters.lines_passed_over
        )

    @cached_property
    def leaves_out_callers(self) -> bool:
        """Whether others than the seen callers allocate: calls through a PLT, which libc's own are not, are shown.

        Where no caller is printed, blocks of others lie between the seen ones. Heuristic.
        """
        if self.is_recording:
            return False
        callers = self.run.malloc_blocks.columns["caller"]
        unseen = max(self.diagnosis.largest.unseen_bytes, self.diagnosis.end.unseen_bytes) if len(callers) else 0
        own = _OF_ARENA * self.findings.arena_heaps.count + _OF_THREAD * self.run.replayed.threads
        return bool((callers != NO_TEXT).any()) or unseen >= _OTHERS_BLOCKS + own

    @cached_property
    def many_unknown(self) -> bool:
        """Whether so many frees are of blocks never seen that what is live is counted too low."""
        return self.unknown_frees.count >= max(_MANY_UNKNOWN * len(self.run.malloc_blocks.taken_steps), _LEAST_UNKNOWN)

    @cached_property
    def left_elsewhere(self) -> list[SpaceBlocks]:
        """The other spaces that ended with blocks not freed, the most bytes first."""
        left = [row for row in self.spaces if row.live_blocks and row.space != self.space]
        return sorted(left, key=lambda row: -row.live_bytes)

    @cached_property
    def leaking(self) -> bool:
        """Whether much was left in the space that is judged, or as much in another one that ended by itself."""
        much = LEAKED_SHARE * self.diagnosis.peak.live_bytes
        ended = (row for row in self.left_elsewhere if log_end(self.run.replayed, row.space) == "exit")
        return self.diagnosis.leaking or any(row.live_bytes >= much for row in ended)

    @cached_property
    def word(self) -> str | None:
        """The answer as one of `heap.ANSWERS`, None where the log cannot tell it."""
        leaking = self.leaking and not self.leak_untold
        if self.leak_untold and not self.diagnosis.fragmented:
            return None
        return ANSWERS[LEAK * leaking + FRAGMENTATION * self.diagnosis.fragmented]

    @cached_property
    def whole_free_pages(self) -> int:
        """Bytes of whole free pages at the end, wherever they lie: what malloc_trim(0) could give back at most.

        Source: mtrim in malloc/malloc.c: of each free chunk what lies behind its head, in whole pages.
        """
        end, page = self.diagnosis.end, self.run.heaps.page_size
        first = (end.free_start + _CHUNK_HEAD + page - 1) & -page
        return int(np.maximum((end.free_end & -page) - first, 0).sum())

    @cached_property
    def several_callers(self) -> bool:
        """Whether the log tells who called malloc, and there is more than one, or stacks say more than the module."""
        if self.run.source.framed:
            return True
        callers = self.run.malloc_blocks.columns["caller"]
        known = callers[callers != NO_TEXT]
        return bool((known != known[:1]).any())

    # --- blocks ---

    @cached_property
    def resized(self) -> int:
        """How many allocations are a realloc of a live block, which ends that one."""
        columns = self.run.malloc_blocks.columns
        return int(((columns["end"] == MOVED) & (columns["inherited"] == 0)).sum())

    @cached_property
    def failed(self) -> Fault:
        """The allocations that were refused."""
        events, found = self.run.replayed.events, [np.zeros(0, dtype=np.int64)]
        for number in range(events.parts):
            refused = np.flatnonzero(events.part(number, ["status"])["status"] == FAILED)
            if len(refused):
                calls = {"call": events.part(number, ["call"])["call"][refused]}
                refused = refused[is_call(calls, (*GIVING, "posix_memalign"))]
                found.append(refused + events.starts[number])
        steps = np.concatenate(found)
        if len(steps):
            steps = steps[self.run.nesting.believed[steps]]
        if not len(steps):
            return Fault()
        first = int(steps[0])
        asked = events.one("length", first)
        call = constants.CALLS[events.one("call", first)]
        return Fault(len(steps), self.places.of_step(first), call if asked == NULL else f"{call}({asked:,})")

    @cached_property
    def double_frees(self) -> Fault:
        """The frees of blocks that had been freed."""
        return self._misfits(DOUBLE_FREE)

    @cached_property
    def unknown_frees(self) -> Fault:
        """The frees of blocks that the log never saw handed out."""
        return self._misfits(UNKNOWN_FREE)

    def _misfits(self, reason: int) -> Fault:
        problems, events = self.run.malloc_blocks.problems, self.run.replayed.events
        steps = problems["step"][problems["reason"] == reason]
        if not len(steps):
            return Fault()
        first = int(steps[0])
        call = constants.CALLS[events.one("call", first)]
        place = self.places.of_problem(events.one("entry_line", first), events.one("file", first))
        return Fault(len(steps), place, f"{call}({events.one('addr', first):#x})")

    @cached_property
    def spaces(self) -> list[SpaceBlocks]:
        """The spaces that have blocks or frees, in order; what fork copied is counted in the parent only."""
        blocks, events = self.run.malloc_blocks, self.run.replayed.events
        count = len(self.run.replayed.spaces["space"])
        columns = blocks.columns
        own = columns["inherited"] == 0
        given = np.bincount(columns["space"][own], minlength=count)
        taken = np.bincount(events.at("space", blocks.taken_steps), minlength=count)
        live = np.flatnonzero((columns["end"] == LIVE) & own)
        space, size = columns.at("space", live), columns.at("size", live)
        left = np.bincount(space, minlength=count)
        sizes = np.bincount(space, weights=size, minlength=count)
        return [
            SpaceBlocks(space, int(given[space]), int(taken[space]), int(left[space]), int(sizes[space]))
            for space in np.flatnonzero(given + taken).tolist()
        ]

    @cached_property
    def curves(self) -> tuple[Curve, Curve]:
        """Bytes live, and bytes that malloc held for blocks, over the life of the space that is judged."""
        course = self.diagnosis.course
        until = int(np.searchsorted(course.line, self.diagnosis.end.line, side="right"))
        clocks = course.line[:until]
        held = taken_bytes(self.run.heaps, self.space, clocks)
        return Curve(clocks, course.live_bytes[:until]), Curve(clocks, held)

    # --- leaks ---

    @cached_property
    def _leak_callers(self) -> Int64Array:
        """Who asked for each block alive at the end: the first frame outside libc where there are frames."""
        columns, rows = self.run.malloc_blocks.columns, live_rows(self.run.malloc_blocks)
        return askers(self.run, columns.at("given_step", rows), columns.at("caller", rows))

    @cached_property
    def leaks(self) -> list[LeakGroup]:
        """The blocks alive at the end in groups, most bytes first."""
        groups = leaked_groups(self.run.replayed, self.run.malloc_blocks, self._leak_callers)
        born = self.run.malloc_blocks.columns["born_line"]
        return [
            LeakGroup(
                space=row["space"],
                caller=self.text(row["caller"]),
                call=constants.CALLS[row["call"]],
                size_class=row["size_class"],
                least=row["least"],
                most=row["most"],
                count=row["count"],
                bytes=row["bytes"],
                first=self.places.of_clock(int(born[row["first_block"]])),
                last=self.places.of_clock(int(born[row["last_block"]])),
                age_lines=row["age_lines"],
                age_ns=None if row["age_ns"] == NULL else row["age_ns"],
            )
            for row in _records(groups)
        ]

    # --- pins ---

    @cached_property
    def pins(self) -> list[Pin]:
        """The live blocks that hold back the most memory at the decisive moment, the worst first."""
        blocks, events = self.run.malloc_blocks, self.run.replayed.events
        line = self.decisive[0].line
        found = dict(pins(blocks, self.run.heaps, self.space, line, MOST_PINS))
        names = ("addr", "size", "call", "caller", "pid", "born_line", "given_step")
        found |= {name: blocks.columns.at(name, found["block"]) for name in names}
        now = events.count_up_to("clock", line) - 1
        ended = events.one("time_ns", now) if now >= 0 else NULL
        found["begun"] = events.at("time_ns", found["given_step"])
        return [
            Pin(
                addr=row["addr"],
                size=row["size"],
                call=constants.CALLS[row["call"]],
                caller=self.text(row["caller"]),
                pid=_pid(row["pid"]),
                born=self.places.of_clock(row["born_line"]),
                age_lines=line - row["born_line"],
                age_ns=None if NULL in (row["begun"], ended) else ended - row["begun"],
                released_bytes=row["released_bytes"],
                blocks_above=row["blocks_above"],
            )
            for row in _records(found)
        ]

    # --- causes ---

    @cached_property
    def causes(self) -> list[Cause]:
        """The system calls inside libc calls that changed the heap, in groups, the most bytes first."""
        run = self.run
        rows = heap_growth(run.replayed, run.nesting, run.malloc_blocks, run.heaps)
        if not len(rows["step"]):
            return []
        events, parent = run.replayed.events, rows["parent_step"]
        callers = askers(run, parent, events.at("caller", parent))
        request = rows["request_bytes"]
        asked = request != NULL
        size = np.where(asked, request, 0)
        classes = np.where(asked & (size > 0), np.frexp(size.astype(np.float64))[1], np.where(asked, 0, -1))
        keys = [rows["kind"], events.at("call", parent), callers, classes.astype(np.int64)]
        order = np.lexsort([rows["step"], *reversed(keys)])
        keys = [key[order] for key in keys]
        fresh = np.append(True, np.logical_or.reduce([key[1:] != key[:-1] for key in keys]))
        start = np.flatnonzero(fresh)
        last = np.append(start[1:], len(order)) - 1
        gained, size, step = rows["bytes"][order], size[order], rows["step"][order]
        groups = {
            "kind": keys[0][start],
            "call": keys[1][start],
            "caller": keys[2][start],
            "class": keys[3][start],
            "least_request": np.minimum.reduceat(size, start),
            "most_request": np.maximum.reduceat(size, start),
            "count": np.diff(np.append(start, len(order))),
            "bytes": np.add.reduceat(gained, start),
            "least": np.minimum.reduceat(gained, start),
            "most": np.maximum.reduceat(gained, start),
            "first_step": step[start],
            "last_step": step[last],
        }
        found = [
            Cause(
                kind=KINDS[row["kind"]],
                call=constants.CALLS[row["call"]],
                caller=self.text(row["caller"]),
                least_request=row["least_request"] if row["class"] >= 0 else None,
                most_request=row["most_request"] if row["class"] >= 0 else None,
                count=row["count"],
                bytes=row["bytes"],
                least=row["least"],
                most=row["most"],
                first_step=row["first_step"],
                last_step=row["last_step"],
            )
            for row in _records(groups)
        ]
        return sorted(found, key=lambda cause: (-abs(cause.bytes), cause.first_step))

    @cached_property
    def raises(self) -> list[Raise]:
        """The frees that raised glibc's threshold for mapping a block by itself, in order."""
        run = self.run
        rows = threshold_raises(run.replayed, run.nesting, run.malloc_blocks, run.heaps)
        return [
            Raise(row["step"], row["space"], row["before"], row["after"], bool(row["observed"]))
            for row in _records(rows)
        ]


def _records(columns: Columns) -> list[dict[str, int]]:
    """Return short columns as one dict a row."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


def _weight(picture: HeapSnapshot) -> tuple[bool, float]:
    """Return how much a picture says of fragmentation: whether much is held back, and which share of the heap."""
    return picture.held_bytes >= LEAST_HELD, picture.held_bytes / picture.heap_bytes if picture.heap_bytes else 0.0


def _pid(value: int) -> int | None:
    return value if value > 0 else None
