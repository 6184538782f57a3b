"""What a report has to say, as plain values computed once: the text words them, the JSON document lists them.

In go the columns of a run, out come groups of failures and mappings, processes, curves and what the log lacks. How
any of it looks this module does not know.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, to_signed
from replay.engine.sorting import distinct, is_among
from replay.engine.structs import replace
from replay.linux import constants
from replay.linux.glibc import HEAP_MAX_SIZE, HEAP_MAX_SIZE_NARROW
from replay.logs.dialect import DIALECTS
from replay.mm.fields import KIND_BRK, ORIGIN_MAPS
from replay.report.break_findings import BreakFindings, known
from replay.report.facts import (
    ArenaHeaps,
    Curve,
    MappingGroup,
    ProblemGroup,
    SpaceFacts,
    alike,
)
from replay.run.places import Place
from replay.spaces.replay import ORIGIN_FORK

if TYPE_CHECKING:
    from replay.engine.column_store import Packed
    from replay.report.address_map import Piece
    from replay.report.malloc.findings import MallocFindings
    from replay.report.refusals import Refused
    from replay.report.unread_lines import UnreadCalls

FALLBACKS: Final = ("fallback", "last_resort")

MEMORY_CALLS: Final = (
    "brk mmap munmap mremap mprotect pkey_mprotect madvise remap_file_pages shmat shmdt mlock munlock mlockall mincore"
).split()
"""Calls that show that a log records memory at all."""

_FOUND: Final = 0
_LTRACE: Final = DIALECTS.index("ltrace")


class Findings(BreakFindings):
    """What is to be said about a run; each finding is computed when it is first asked for."""

    # --- mappings of allocators ---

    @cached_property
    def fallback_rows(self) -> Int64Array:
        """The rows of `allocator_mmaps` that are fallbacks."""
        return np.flatnonzero(self.is_kind(FALLBACKS)).astype(np.int64)

    @cached_property
    def fallback_groups(self) -> list[MappingGroup]:
        """The fallbacks by kind, allocator, size and outcome, the largest number first."""
        return self._mapping_groups(self.is_kind(FALLBACKS), by_size=True)

    @cached_property
    def other_groups(self) -> list[MappingGroup]:
        """The other mappings of allocators by kind, allocator and outcome, sizes added up; of arenas what is kept."""
        groups = self._mapping_groups(~self.is_kind(FALLBACKS), by_size=False)
        kept = self.arena_heaps.reserved_bytes
        return [
            replace(group, total_bytes=kept) if group.kind == "arena_heap" and not group.errno else group
            for group in groups
        ]

    @cached_property
    def arena_heaps(self) -> ArenaHeaps:
        """The heaps of arenas that were granted: what is kept of their reserves, and what of it was made usable."""
        mmaps = self.run.activity.allocator_mmaps
        rows = np.flatnonzero(self.is_kind(["arena_heap"]) & (mmaps["errno"] == NO_TEXT))
        steps, length = mmaps["step"][rows], mmaps["bytes"][rows]
        kept = np.where((length == HEAP_MAX_SIZE) | (length == HEAP_MAX_SIZE_NARROW), length, length // 2)
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
        path = self.run.strings.intern(piece.path) if piece.path else NO_TEXT
        if self.run.recorder.among({"path": np.array([path]), "start": np.array([to_signed(piece.start)])})[0]:
            return "the recorder"
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
        """Return for each space the bytes mapped and in the brk area when it began: what fork copied, or was there."""
        regions, births = self.run.replayed.regions, self.run.replayed.spaces["born_line"]
        copied = self.run.replayed.spaces["origin"] == ORIGIN_FORK
        found = np.zeros((2, len(births)), np.int64)
        last: tuple[dict[str, Packed], Int64Array] | None = None
        for number in range(regions.parts):
            space, born = (regions.constant(number, name) for name in ("space", "born_line"))
            if space is None or born is None or not copied[space]:
                part = regions.part(number, ["space", "born_line", "origin", "start", "end", "kind"])
                there = copied[part["space"]] | (part["origin"] == ORIGIN_MAPS)
                first = there & (part["born_line"] == births[part["space"]])
                for total, sizes in zip(found, _sizes(part), strict=True):
                    np.add.at(total, part["space"][first], sizes[first])
            elif born == births[space]:
                packed = {name: regions.packed(number)[name] for name in ("start", "end", "kind")}
                if last is None or last[0] != packed:  # the children of one parent share what they got
                    last = packed, _sizes(regions.part(number, list(packed))).sum(axis=1)
                found[:, space] += last[1]
        return found[0], found[1]

    def _space(self, space: int, peak: int, brk: int, failures: int, fallbacks: int) -> SpaceFacts:
        columns = self.run.replayed.spaces
        died = int(columns["died_line"][space])
        return SpaceFacts(
            space=space,
            parent=known(columns["parent"][space]),
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
            answers = mmaps["step"][(mmaps["brk_failure_step"] == mine[-1]) & self.is_kind(FALLBACKS)]
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
        moves = np.diff(mapped - brk, prepend=self._before_first_change)
        grew, shrank = moves[moves > 0], -moves[moves < 0]
        return len(grew), int(grew.sum()), len(shrank), int(shrank.sum())

    @property
    def _before_first_change(self) -> int:
        """Bytes that the main space had mapped outside its brk area before its first change that is shown."""
        changes, space, shown = self.run.whole.replayed.changes, self.main_space, self.run.shown
        earlier = 0 if shown is None else changes.count_up_to("step", shown.first - 1)
        mine = np.flatnonzero(changes["space"][:earlier] == space)
        if not mine.size:
            mapped, in_brk = self._sizes_at_birth()
            return int(mapped[space] - in_brk[space])
        return changes.one("mapped_bytes", int(mine[-1])) - changes.one("brk_bytes", int(mine[-1]))

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


def _known_pid(value: int) -> int | None:
    return int(value) if value > 0 else None


def malloc_of(findings: Findings, space: int) -> str:
    """Return the name of the allocator that serves malloc in a space, `unknown` for none known."""
    for name, _evidence, spaces in findings.allocators:
        if space in spaces and name not in ("cpython", "go", "hotspot", "v8"):
            return name
    return "unknown"


def _sizes(regions: Columns) -> Int64Array:
    """Return the bytes of each region that count as mapped, and as brk area: of the kernel's half none."""
    sizes = np.where(regions["start"] < 0, 0, regions["end"] - regions["start"])
    return np.stack([sizes, np.where(regions["kind"] == KIND_BRK, sizes, 0)])
