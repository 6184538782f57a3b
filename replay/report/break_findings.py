"""What the break did, and why it failed: the part of the findings that other findings stand on.

In go the columns of a run, out come groups of failures, the limits that were set, and the moves of the break.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.calls.enclosing import is_call
from replay.calls.reader import FAILED, UNFINISHED
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.sorting import distinct, is_among
from replay.linux import constants
from replay.logs.dialect import DIALECTS
from replay.report.facts import (
    Blocker,
    BreakMoves,
    FailureGroup,
    LimitTold,
    alike,
)
from replay.run.places import Places

if TYPE_CHECKING:
    from replay.run.api import Run

FALLBACKS: Final = ("fallback", "last_resort")

MEMORY_CALLS: Final = (
    "brk mmap munmap mremap mprotect pkey_mprotect madvise remap_file_pages shmat shmdt mlock munlock mlockall mincore"
).split()
"""Calls that show that a log records memory at all."""

_FOUND: Final = 0
_LTRACE: Final = DIALECTS.index("ltrace")


class BreakFindings:
    """What is to be said about the break of a run; each finding is computed when it is first asked for."""

    def __init__(self, run: Run) -> None:
        """Look into `run`."""
        self.run = run
        self.places = Places(run)
        self.events = run.replayed.events
        self.strings = run.strings

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
        limit = known(columns["limit_bytes"][first])
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
        mmaps = self.run.whole.activity.allocator_mmaps
        is_fallback = np.isin(mmaps["kind"], self.strings.intern_all(FALLBACKS)) & (mmaps["brk_failure_step"] != NULL)
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
            step = known(regions["made_step"][first])
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
        """Return the step that tells of the limit in the way before `step`, None where the log has none."""
        resource = {"rlimit_data": "RLIMIT_DATA", "rlimit_as": "RLIMIT_AS"}.get(cause)
        if resource is None:
            return None
        found = self.limit_before(resource, space, step)
        return None if found is None else found.step

    def limit_before(self, resource: str, space: int, step: int) -> LimitTold | None:
        """Return what the log tells of a limit of a space before a step, None for nothing or no bound.

        A space begins with the limits of its parent. Source: setrlimit(2), "A child process ... inherits".
        """
        steps, spaces = self._limits_told[resource]
        parents, births = (self.run.replayed.spaces[name] for name in ("parent", "born_step"))
        while space != NULL:
            mine = steps[(spaces == space) & (steps < step)]
            if len(mine):
                return self._limit_of(int(mine[-1]))
            step, space = min(step, int(births[space])), int(parents[space])
        return None

    def _limit_of(self, step: int) -> LimitTold | None:
        """Return the limit that the call at `step` sets, else the one that it was told."""
        set_to, told = (self.events.one(name, step) for name in ("aux", "length"))
        value = told if set_to == NULL else set_to
        return LimitTold(value, step, set_to != NULL) if 0 <= value < constants.RLIM_INFINITY else None

    @cached_property
    def _limits_told(self) -> dict[str, tuple[Int64Array, Int64Array]]:
        """By resource the steps that set a limit of the caller or were told one, and the space of each."""
        events, steps = self.events, self.steps_of(["prlimit"])
        whose = events.at("new_addr", steps)
        own = (whose == 0) | (whose == NULL) | (whose == events.at("pid", steps))
        steps = steps[own & (events.at("status", steps) == 0)]
        resources, spaces = events.at("aux2", steps), events.at("space", steps)
        chosen = {name: resources == constants.RLIMIT[name] for name in ("RLIMIT_DATA", "RLIMIT_AS")}
        return {name: (steps[rows], spaces[rows]) for name, rows in chosen.items()}

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

    def is_kind(self, kinds: Iterable[str]) -> np.ndarray:
        """Tell which rows of `allocator_mmaps` are of some kinds."""
        mmaps = self.run.activity.allocator_mmaps
        return np.isin(mmaps["kind"], self.strings.intern_all(kinds))

    @cached_property
    def denied_queries(self) -> Int64Array:
        """The steps of brk(NULL) that were answered with an errno."""
        events, steps = self.events, self.steps_of(["brk"])
        denied = (events.at("status", steps) == FAILED) & (events.at("errno", steps) > 0)
        return self.of_window(steps[denied & (events.at("addr", steps) == 0)])

    @cached_property
    def unanswered_brks(self) -> Int64Array:
        """The steps of brk calls that name a break and do not return, as far as the log goes."""
        events, steps = self.events, self.steps_of(["brk"])
        return self.of_window(steps[(events.at("status", steps) == UNFINISHED) & (events.at("addr", steps) > 0)])

    def of_window(self, steps: Int64Array) -> Int64Array:
        """Return those of some steps that are shown."""
        shown = self.run.shown
        return steps if shown is None else steps[shown.rows({"step": steps, "space": self.events.at("space", steps)})]

    @property
    def when(self) -> str:
        """The window that is shown, in words that follow a verb; empty for all of the log."""
        return "" if self.run.shown is None else f" {self.run.shown.window}"

    def text(self, text_id: int) -> str:
        """Return the text of an id, empty for none."""
        return self.strings[int(text_id)] if text_id >= 0 else ""


def _returns(spaces: Int64Array, moves: Int64Array) -> int:
    """Return how often a move up (1) came next after one down (-1) in the same space."""
    moved = np.flatnonzero(moves)
    order = moved[np.argsort(spaces[moved], kind="stable")]
    same = spaces[order][1:] == spaces[order][:-1]
    return int((same & (moves[order][:-1] < 0) & (moves[order][1:] > 0)).sum())


def known(value: int) -> int | None:
    """Return a value of a column, None for a null."""
    return None if value == NULL or value < 0 else int(value)


def _perms(prot: int, shared: int) -> str:
    from replay.linux.proc_maps import perms_text

    return perms_text(prot, bool(shared))
