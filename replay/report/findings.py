"""What a report has to say, as plain values computed once: the letter words them, the document lists them.

In go the columns of a run, out come groups of failures and mappings, processes, curves and what the log lacks. How
any of it looks this module does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.allocator.arenas import HEAP_BYTES, HEAP_BYTES_NARROW
from replay.calls.enclosing import is_call
from replay.calls.reader import FAILED
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.sorting import ascending, distinct, is_among, take_groups
from replay.lines.line_reader import DIALECTS
from replay.linux import constants
from replay.mm.address_space import KIND_BRK, ORIGIN_MAPS
from replay.run.places import Place, Places

if TYPE_CHECKING:
    from replay.report.address_map import Piece
    from replay.report.malloc.findings import MallocFindings
    from replay.report.refusals import Refused
    from replay.report.unread_lines import UnreadCalls
    from replay.run.api import Run

FALLBACKS: Final = ("fallback", "last_resort")

MEMORY_CALLS: Final = (
    "brk mmap munmap mremap mprotect pkey_mprotect madvise remap_file_pages shmat shmdt mlock munlock mlockall mincore"
).split()
"""Calls that show that a log records memory at all."""

_FOUND: Final = 0
_LTRACE: Final = DIALECTS.index("ltrace")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed brk calls of one space with one cause and one thing in the way."""

    space: int
    cause: str
    count: int
    first_step: int
    last_step: int
    least_short: int
    most_short: int
    blocker: Blocker | None
    limit_bytes: int | None
    limit_place: Place | None
    limit_step: int | None
    evidence: str
    stood_in: int
    """Failures that a granted mmap followed as their fallback."""
    refused_too: int
    """Failures whose fallback was refused as well."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """The mapping in the way of the break, `[start, end)`; `step` made it, None if it was there before the log."""

    start: int
    end: int
    path: str
    perms: str
    place: Place | None
    step: int | None


@dataclass(frozen=True, slots=True)
class MappingGroup:
    """Mappings of allocators that are alike: kind, allocator, size (None where sizes are added up) and outcome."""

    kind: str
    allocator: str
    bytes_each: int | None
    errno: str
    count: int
    total_bytes: int
    first_step: int
    last_step: int


@dataclass(frozen=True, slots=True)
class ArenaHeaps:
    """How many heaps of arenas there were, how many bytes of addresses they kept, and how many were made usable."""

    count: int
    reserved_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """One address space: who ran in it, from which line to which, and how much it held. Sizes in bytes."""

    space: int
    parent: int | None
    origin: str
    pid: int | None
    program: str
    first: Place | None
    last: Place | None
    peak_mapped: int
    peak_brk: int
    failures: int
    fallbacks: int


@dataclass(frozen=True, slots=True)
class BreakMoves:
    """How often the break was asked to grow and did, how often it shrank, was only asked for, and came back."""

    asked: int
    grew: int
    shrank: int
    queried: int
    grew_bytes: int
    shrank_bytes: int
    usual_growth: int
    """Median of the bytes of a growth, 0 without any."""
    returns: int
    """How often a growth followed a shrink of the same space."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity of one space over the lines of the log: `values[i]` bytes from clock `clocks[i]` on."""

    clocks: Int64Array
    values: Int64Array


@dataclass(frozen=True, slots=True)
class ProblemGroup:
    """The problems of one reason: how many, and the first of them."""

    reason: str
    count: int
    first: Place
    text: str


class Findings:
    """What is to be said about a run; each finding is computed when it is first asked for."""

    def __init__(self, run: Run) -> None:
        """Look into `run`."""
        self.run = run
        self.places = Places(run)
        self.events = run.replayed.events
        self.strings = run.strings

    # --- failed breaks ---

    @cached_property
    def failures(self) -> int:
        """How many brk calls failed."""
        return len(self.run.activity.brk_failures["step"])

    @cached_property
    def failure_groups(self) -> list[FailureGroup]:
        """The failed brk calls by space, cause and what was in the way, the first failure first."""
        columns = self.run.activity.brk_failures
        if not self.failures:
            return []
        keys = [columns[name] for name in ("space", "cause", "blocker_start", "limit_bytes")]
        return sorted((self._failure_group(rows) for rows in alike(keys)), key=lambda group: group.first_step)

    def _failure_group(self, rows: Int64Array) -> FailureGroup:
        columns = self.run.activity.brk_failures
        first, step = int(rows[0]), int(columns["step"][rows[0]])
        cause, space = self.text(columns["cause"][first]), int(columns["space"][first])
        short = columns["shortfall_bytes"][rows]
        limit = _known(columns["limit_bytes"][first])
        limit_step = self._limit_step(cause, space, step)
        steps = columns["step"][rows]
        return FailureGroup(
            space=space,
            cause=cause,
            count=len(rows),
            first_step=step,
            last_step=int(steps[-1]),
            least_short=int(short.min()),
            most_short=int(short.max()),
            blocker=self._blocker(first),
            limit_bytes=limit,
            limit_place=None if limit_step is None else self.places.of_step(limit_step),
            limit_step=limit_step,
            evidence=self.text(columns["evidence"][first]),
            stood_in=int(is_among(steps, self._answered[0]).sum()),
            refused_too=int(is_among(steps, self._answered[1]).sum()),
        )

    @cached_property
    def _answered(self) -> tuple[Int64Array, Int64Array]:
        """The steps of the failures that a fallback answered, in order: where it was granted, where it was refused."""
        mmaps = self.run.activity.allocator_mmaps
        is_fallback = self._is_kind(FALLBACKS) & (mmaps["brk_failure_step"] != NULL)
        granted = mmaps["errno"] == NO_TEXT
        steps = mmaps["brk_failure_step"]
        return np.sort(steps[is_fallback & granted]), np.sort(steps[is_fallback & ~granted])

    def _blocker(self, row: int) -> Blocker | None:
        columns = self.run.activity.brk_failures
        start, end = int(columns["blocker_start"][row]), int(columns["blocker_end"][row])
        if start == NULL:
            return None
        clock = int(columns["blocker_line"][row])
        regions = self._blocking
        mine = np.flatnonzero((regions["space"] == columns["space"][row]) & (regions["start"] <= start))
        mine = mine[(regions["end"][mine] > start) & (regions["made_line"][mine] == clock)]
        perms, step = "", None
        if mine.size:
            first = mine[np.argmin(regions["born_step"][mine])]
            perms = _perms(int(regions["prot"][first]), int(regions["shared"][first]))
            step = _known(regions["made_step"][first])
        path = self.text(columns["blocker_path"][row])
        return Blocker(start, end, path, perms, self.places.of_clock(clock), step)

    @cached_property
    def _blocking(self) -> Columns:
        """The regions that were made in a line which made a blocker."""
        regions, found = self.run.replayed.regions, [np.zeros(0, np.int64)]
        lines = distinct(self.run.activity.brk_failures["blocker_line"])
        for number in range(regions.parts):
            made = regions.part(number, ["made_line"])["made_line"]
            found.append(np.flatnonzero(is_among(made, lines)) + regions.starts[number])
        rows = np.concatenate(found)
        names = ("space", "start", "end", "made_line", "born_step", "prot", "shared", "made_step")
        return {name: regions.at(name, rows) for name in names}

    def _limit_step(self, cause: str, space: int, step: int) -> int | None:
        """Return the last step before `step` that set the limit in the way, None where the log has none."""
        resource = {"rlimit_data": "RLIMIT_DATA", "rlimit_as": "RLIMIT_AS"}.get(cause)
        if resource is None:
            return None
        found = self.limit_before(resource, space, step)
        return None if found is None else found[1]

    def limit_before(self, resource: str, space: int, step: int) -> tuple[int, int] | None:
        """Return the bytes of a limit that the log set last before a step, and the step that did, None for none."""
        steps, resources, spaces = self._limits_set
        earlier = (steps < step) & (resources == constants.RLIMIT[resource])
        mine = steps[earlier & (spaces == space)]
        chosen = mine if mine.size else steps[earlier]
        if not chosen.size:
            return None
        limit = self.events.one("aux", int(chosen[-1]))
        return (limit, int(chosen[-1])) if 0 <= limit < constants.RLIM_INFINITY else None

    @cached_property
    def _limits_set(self) -> tuple[Int64Array, Int64Array, Int64Array]:
        """The steps that set a limit, with the resource and the space of each."""
        events, steps = self.events, self.steps_of(["prlimit"])
        steps = steps[(events.at("aux", steps) != NULL) & (events.at("status", steps) == 0)]
        return steps, events.at("aux2", steps), events.at("space", steps)

    def steps_of(self, names: Iterable[str]) -> Int64Array:
        """Return the steps of some calls."""
        found = [np.zeros(0, np.int64)]
        for number in range(self.events.parts):
            chosen = is_call(self.events.part(number, ["call"]), names)
            found.append(np.flatnonzero(chosen) + self.events.starts[number])
        return np.concatenate(found)

    @cached_property
    def moves(self) -> BreakMoves:
        """What the break did over the whole run, refused calls of all spaces included."""
        brks = self.run.replayed.brks
        asked, granted, before = brks["requested"], brks["granted"], brks["before"]
        known = before != NULL
        grew = known & (granted > before)
        shrank = known & (granted < before)
        growth, shrink = (int(np.abs(granted[rows] - before[rows]).sum()) for rows in (grew, shrank))
        queried = int((asked == 0).sum())
        return BreakMoves(
            asked=int(grew.sum()) + self.failures,
            grew=int(grew.sum()),
            shrank=int(shrank.sum()),
            queried=queried,
            grew_bytes=growth,
            shrank_bytes=shrink,
            usual_growth=int(np.median(granted[grew] - before[grew])) if grew.any() else 0,
            returns=_returns(brks["space"], grew.astype(np.int64) - shrank),
        )

    def grew_after(self, space: int, step: int) -> int | None:
        """Return the first step after `step` at which the break of a space grew again, None if it never did."""
        brks = self.run.replayed.brks
        later = (brks["space"] == space) & (brks["step"] > step) & (brks["before"] != NULL)
        later &= brks["granted"] > brks["before"]
        return int(brks["step"][later].min()) if later.any() else None

    # --- mappings of allocators ---

    def _is_kind(self, kinds: Iterable[str]) -> np.ndarray:
        mmaps = self.run.activity.allocator_mmaps
        return np.isin(mmaps["kind"], self.strings.intern_all(kinds))

    @cached_property
    def fallback_rows(self) -> Int64Array:
        """The rows of `allocator_mmaps` that are fallbacks."""
        return np.flatnonzero(self._is_kind(FALLBACKS)).astype(np.int64)

    @cached_property
    def fallback_groups(self) -> list[MappingGroup]:
        """The fallbacks by kind, allocator, size and outcome, the largest number first."""
        return self._mapping_groups(self._is_kind(FALLBACKS), by_size=True)

    @cached_property
    def other_groups(self) -> list[MappingGroup]:
        """The other mappings of allocators by kind, allocator and outcome, sizes added up; of arenas what is kept."""
        groups = self._mapping_groups(~self._is_kind(FALLBACKS), by_size=False)
        kept = self.arena_heaps.reserved_bytes
        return [
            replace(group, total_bytes=kept) if group.kind == "arena_heap" and not group.errno else group
            for group in groups
        ]

    @cached_property
    def arena_heaps(self) -> ArenaHeaps:
        """The heaps of arenas that were granted: what is kept of their reserves, and what of it was made usable."""
        mmaps = self.run.activity.allocator_mmaps
        rows = np.flatnonzero(self._is_kind(["arena_heap"]) & (mmaps["errno"] == NO_TEXT))
        steps, length = mmaps["step"][rows], mmaps["bytes"][rows]
        kept = np.where(np.isin(length, (HEAP_BYTES, HEAP_BYTES_NARROW)), length, length // 2)
        used = np.zeros(len(rows), np.int64)
        regions = self.run.replayed.regions
        for number in range(regions.parts if len(rows) else 0):
            part = regions.part(number, ["made_step", "prot", "start", "end"])
            mine = np.flatnonzero((part["prot"] & 2 != 0) & is_among(part["made_step"], steps))
            place = np.searchsorted(steps, part["made_step"][mine])
            np.maximum.at(used, place, (part["end"][mine] - 1) % kept[place] + 1)  # heaps are aligned to their size
        return ArenaHeaps(len(rows), int(kept.sum()), int(used.sum()))

    def owner(self, piece: Piece) -> str:
        """Return whose a mapping is, in a few words, and how sure that is where it is not said by its name."""
        origin = {"inferred": " (inferred)", "maps": " (--maps)"}.get(piece.origin, "")
        if piece.path:
            return piece.path + origin
        if piece.stack:
            return "thread stack" + origin
        mmaps = self.run.activity.allocator_mmaps
        wanted = distinct(np.array(piece.made_steps, np.int64))
        rows = np.searchsorted(mmaps["step"], wanted[is_among(wanted, mmaps["step"])])
        keys = [[self.text(mmaps[name][row]) for name in ("allocator", "kind", "certainty")] for row in rows.tolist()]
        whose = Counter(f"{name} {kind.replace('_', ' ')} ({certainty})" for name, kind, certainty in keys)
        found = [text for text, _ in whose.most_common(2)]
        return ", ".join(found) or {"anon": "anonymous", "brk": "[heap]"}.get(piece.kind, piece.kind) + origin

    def _mapping_groups(self, chosen: np.ndarray, *, by_size: bool) -> list[MappingGroup]:
        mmaps = self.run.activity.allocator_mmaps
        rows = np.flatnonzero(chosen)
        if not rows.size:
            return []
        keys = [mmaps[name][rows] for name in ("kind", "allocator", "errno")]
        found = []
        for group in alike([*keys, mmaps["bytes"][rows]] if by_size else keys):
            mine, first = rows[group], int(rows[group[0]])
            found.append(
                MappingGroup(
                    kind=self.text(mmaps["kind"][first]),
                    allocator=self.text(mmaps["allocator"][first]),
                    bytes_each=int(mmaps["bytes"][first]) if by_size else None,
                    errno=self.text(mmaps["errno"][first]),
                    count=len(mine),
                    total_bytes=int(mmaps["bytes"][mine].sum()),
                    first_step=int(mmaps["step"][first]),
                    last_step=int(mmaps["step"][mine[-1]]),
                )
            )
        return sorted(found, key=lambda group: (-group.count, group.first_step))

    def kinds_made_by(self, steps: Int64Array) -> dict[str, int]:
        """Return of how many of the steps that made mappings an allocator was the maker, by kind of mapping."""
        mmaps = self.run.activity.allocator_mmaps
        wanted = distinct(steps)
        rows = np.searchsorted(mmaps["step"], wanted[is_among(wanted, mmaps["step"])])
        kinds = Counter(mmaps["kind"][rows].tolist())
        return {self.text(kind): kinds[kind] for kind in sorted(kinds)}

    @cached_property
    def allocators(self) -> list[tuple[str, str, list[int]]]:
        """Name, evidence and spaces of each allocator; copies made by fork stand with what they copy."""
        columns = self.run.activity.allocators
        found: dict[tuple[str, str], list[int]] = {}
        named: dict[tuple[int, str], tuple[str, str]] = {}
        for space, name_id, evidence_id in zip(*(column.tolist() for column in columns.values()), strict=True):
            name, evidence = self.text(name_id), self.text(evidence_id)
            parent = int(self.run.replayed.spaces["parent"][space])
            key = (name, evidence)
            if evidence.startswith("the space is a copy") and (parent, name) in named:
                key = named[parent, name]
            named[space, name] = key
            found.setdefault(key, []).append(space)
        return [(name, evidence, spaces) for (name, evidence), spaces in found.items()]

    # --- what else was refused ---

    @cached_property
    def refused(self) -> list[Refused]:
        """The calls that map or protect memory and were refused, other than fallbacks, in groups."""
        from replay.report.refusals import refused_groups

        return refused_groups(self)

    @cached_property
    def denied_queries(self) -> Int64Array:
        """The steps of brk(NULL) that were answered with an errno."""
        events, steps = self.events, self.steps_of(["brk"])
        denied = (events.at("status", steps) == FAILED) & (events.at("errno", steps) > 0)
        queries: Int64Array = steps[denied & (events.at("addr", steps) == 0)]
        return queries

    # --- processes and spaces ---

    @cached_property
    def spaces(self) -> list[SpaceFacts]:
        """The address spaces in order of appearance."""
        replayed = self.run.replayed
        count = len(replayed.spaces["space"])
        mapped, in_brk = self._sizes_at_birth()
        peaks = np.maximum(mapped, self.run.footprint.most_mapped)
        brks = np.maximum(in_brk, self.run.footprint.most_brk)
        failures = np.bincount(self.run.activity.brk_failures["space"], minlength=count)
        mmaps = self.run.activity.allocator_mmaps
        fallbacks = np.bincount(mmaps["space"][self.fallback_rows], minlength=count)
        return [
            self._space(space, int(peaks[space]), int(brks[space]), int(failures[space]), int(fallbacks[space]))
            for space in range(count)
        ]

    def _sizes_at_birth(self) -> tuple[Int64Array, Int64Array]:
        """Return for each space the bytes mapped and in the brk area when it began: what fork copied."""
        regions, births = self.run.replayed.regions, self.run.replayed.spaces["born_line"]
        mapped, in_brk = np.zeros(len(births), np.int64), np.zeros(len(births), np.int64)
        for number in range(regions.parts):
            part = regions.part(number, ["space", "born_line"])
            first = np.flatnonzero(part["born_line"] == births[part["space"]])
            if len(first):
                part |= regions.part(number, ["start", "end", "kind"])
                part = {name: column[first] for name, column in part.items()}
                sizes, is_brk = part["end"] - part["start"], part["kind"] == KIND_BRK
                sizes[part["start"] < 0] = 0  # the kernel's half is no part of a space's size
                np.add.at(mapped, part["space"], sizes)
                np.add.at(in_brk, part["space"][is_brk], sizes[is_brk])
        return mapped, in_brk

    def _space(self, space: int, peak: int, brk: int, failures: int, fallbacks: int) -> SpaceFacts:
        columns = self.run.replayed.spaces
        died = int(columns["died_line"][space])
        return SpaceFacts(
            space=space,
            parent=_known(columns["parent"][space]),
            origin=("found", "exec", "fork")[int(columns["origin"][space])],
            pid=_known_pid(columns["pid"][space]),
            program=self.text(columns["program"][space]),
            first=self.places.of_clock(int(columns["born_line"][space])),
            last=None if died == NULL else self.places.of_clock(died),
            peak_mapped=peak,
            peak_brk=brk,
            failures=failures,
            fallbacks=fallbacks,
        )

    @cached_property
    def main_space(self) -> int | None:
        """The space that the layout is drawn of: with the most failed breaks, else with the most memory."""
        if not self.spaces or not self.run.replayed.changes.rows:
            return None
        return max(self.spaces, key=lambda facts: (facts.failures, facts.peak_mapped, -facts.space)).space

    @cached_property
    def moment(self) -> tuple[int, str] | None:
        """The clock at which the layout is drawn, and what happened then: the last failed brk, else the peak.

        A fallback that followed the failed brk is in the picture.
        """
        space = self.main_space
        if space is None:
            return None
        failed = self.run.activity.brk_failures
        mine = failed["step"][failed["space"] == space]
        if mine.size:
            mmaps = self.run.activity.allocator_mmaps
            answers = mmaps["step"][(mmaps["brk_failure_step"] == mine[-1]) & self._is_kind(FALLBACKS)]
            last = int(answers.max(initial=mine[-1]))
            return self.events.one("clock", last), "after the last failed brk"
        return self.peak_clock, "when most was mapped"

    @property
    def peak_clock(self) -> int:
        """The clock at which the main space had most mapped, that of the log's end where it shows no change of it."""
        mapped = self.curve("mapped_bytes")
        if not len(mapped.values):
            return self.run.replayed.last_clock
        return int(mapped.clocks[np.argmax(mapped.values)])

    def curve(self, column: str) -> Curve:
        """Return a column of the table `fragmentation` over the life of the main space; unknown values are left out."""
        lines, values = self._main_changes["line"], self._main_changes[column]
        known = values != NULL
        return Curve(lines, values) if known.all() else Curve(lines[known], values[known])

    @cached_property
    def _main_changes(self) -> Columns:
        """The changes of the main space, as far as curves show them."""
        changes, names = self.run.replayed.changes, ("line", "mapped_bytes", "brk_bytes", "headroom_bytes")
        found: list[Columns] = [dict.fromkeys(names, np.zeros(0, np.int64))]
        for number in range(changes.parts):
            part = changes.part(number, ["space", *names])
            mine = np.flatnonzero(part["space"] == self.main_space)
            found.append({name: part[name][mine] for name in names})
        return {name: np.concatenate([part[name] for part in found]) for name in names}

    @cached_property
    def other_moves(self) -> tuple[int, int, int, int]:
        """How often all but the main space's brk area grew, by how many bytes, and the same of what went back."""
        mapped, brk = self._main_changes["mapped_bytes"], self._main_changes["brk_bytes"]
        moves = np.diff(mapped - brk, prepend=0)
        grew, shrank = moves[moves > 0], -moves[moves < 0]
        return len(grew), int(grew.sum()), len(shrank), int(shrank.sum())

    # --- what the log has and lacks ---

    @cached_property
    def log_end(self) -> str:
        """How the log of the first program ends: `exit`, `killed` or `cut`."""
        return str(self.run.summary_values["log_end"])

    @cached_property
    def unread(self) -> UnreadCalls | None:
        """The lines that name memory calls and could not be read, None where there are none."""
        from replay.report.unread_lines import unread_calls

        return unread_calls(self)

    @cached_property
    def system_calls(self) -> bool:
        """Whether the log shows system calls: lines of strace, or those of ltrace's -S."""
        named = np.zeros(len(self.strings) + 1, dtype=np.bool_)
        for number in range(self.events.parts):
            part = self.events.part(number, ["dialect", "name"])
            if (part["dialect"] != _LTRACE).any():
                return True
            named[part["name"]] = True
        names = (self.strings[text_id] for text_id in np.flatnonzero(named[:-1]).tolist())
        return any(name.startswith("SYS_") or name.endswith("@SYS") for name in names)

    @cached_property
    def memory_calls(self) -> int:
        """How many calls of the log concern memory: 0 means that nothing can be said."""
        return int(self.run.calls_made[[constants.CALL_CODE[name] for name in MEMORY_CALLS]].sum())

    @cached_property
    def malloc_calls(self) -> int:
        """How many calls of malloc and its kin the log has."""
        first, last = constants.CALL_CODE["malloc"], constants.CALL_CODE["delete[]"]
        return int(self.run.calls_made[first : last + 1].sum())

    @cached_property
    def malloc(self) -> MallocFindings | None:
        """What is to be said about malloc, None where the log shows no call of its family."""
        if not self.run.malloc_blocks.seen:
            return None
        from replay.report.malloc.findings import MallocFindings

        return MallocFindings(self)

    @cached_property
    def begins_late(self) -> bool:
        """Whether the first process ran already when the log began, as after `strace -p`."""
        spaces = self.run.replayed.spaces
        if not len(spaces["space"]) or int(spaces["origin"][0]) != _FOUND:
            return False
        if not self.system_calls:
            return self.malloc is not None and self.malloc.many_unknown
        return int(spaces["start_brk"][0]) == NULL and not self.has_maps

    @cached_property
    def has_maps(self) -> bool:
        """Whether the mappings at the start were given by a maps file."""
        regions = self.run.replayed.regions
        return any((regions.part(number, ["origin"])["origin"] == ORIGIN_MAPS).any() for number in range(regions.parts))

    @cached_property
    def spaces_left(self) -> int:
        """How many spaces the log ends before: their exit is not in it."""
        return int((self.run.replayed.spaces["died_line"] == NULL).sum())

    @cached_property
    def cut_at(self) -> Place | None:
        """Where the log breaks off in the middle of its last line, None where it does not."""
        source = self.run.source
        last = max((problem for problem in source.problems.kept), key=lambda problem: problem.line, default=None)
        if last is None or last.reason != "cut_line" or (not self.places.several and last.line < source.counters.lines):
            return None
        return self.places.of_problem(last.line, last.file)

    @cached_property
    def problems(self) -> list[ProblemGroup]:
        """The problems by reason, the most frequent first."""
        problems = self.run.source.problems
        firsts = {problem.reason: problem for problem in reversed(problems.kept)}
        groups = []
        for reason, count in problems.counts.items():
            first = firsts[reason]
            groups.append(ProblemGroup(reason, count, self.places.of_problem(first.line, first.file), first.text))
        return sorted(groups, key=lambda group: -group.count)

    def text(self, text_id: int) -> str:
        """Return the text of an id, empty for none."""
        return self.strings[int(text_id)] if text_id >= 0 else ""


def alike(keys: list[Int64Array]) -> list[Int64Array]:
    """Return the rows of each combination of values, in order."""
    groups = take_groups(keys)[1]
    order = ascending(groups)
    ordered = groups[order]
    return np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)


def _returns(spaces: Int64Array, moves: Int64Array) -> int:
    """Return how often a move up (1) came next after one down (-1) in the same space."""
    moved = np.flatnonzero(moves)
    order = moved[np.argsort(spaces[moved], kind="stable")]
    same = spaces[order][1:] == spaces[order][:-1]
    return int((same & (moves[order][:-1] < 0) & (moves[order][1:] > 0)).sum())


def _known(value: int) -> int | None:
    return None if value == NULL or value < 0 else int(value)


def _known_pid(value: int) -> int | None:
    return int(value) if value > 0 else None


def _perms(prot: int, shared: int) -> str:
    from replay.linux.proc_maps import perms_text

    return perms_text(prot, bool(shared))
