"""Where something stands in the logs of a run: line numbers, and the file where there are several.

In go clocks and steps, out come line numbers and the words for them.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from replay.console.screen import clean
from replay.engine.columns import NULL
from replay.engine.structs import Value

if TYPE_CHECKING:
    from replay.run.api import Run


class Place(Value):
    """One line of one log; `file` is empty where the run has only one."""

    line: int
    file: str = ""

    def __str__(self) -> str:
        """Return `line 44`, or `line 44 of log.17207`."""
        return f"line {self.line}{self.of_file}"

    @property
    def of_file(self) -> str:
        """Return ` of log.17207`, or nothing for a run of one log."""
        return f" of {clean(PurePath(self.file).name)}" if self.file else ""


def span(first: Place, last: Place) -> str:
    """Return `line 66` or `lines 66 to 172`, with the files where there are several."""
    if first == last:
        return str(first)
    if first.file == last.file:
        return f"lines {first.line} to {last.line}{first.of_file}"
    return f"{first} to {last}"


def short_span(first: Place, last: Place) -> str:
    """Return `66` or `66-172` for a column of a table, with the file of the first where there are several."""
    if first == last:
        return f"{first.line}{first.of_file}"
    if first.file == last.file:
        return f"{first.line}-{last.line}{first.of_file}"
    return f"{first.line}{first.of_file}-"


def place_values(place: Place | None, prefix: str = "") -> dict[str, int | str | None]:
    """Return a place as values for JSON: `line`, and `file` where the run has several."""
    values: dict[str, int | str | None] = {f"{prefix}line": place.line if place else None}
    if place is not None and place.file:
        values[f"{prefix}file"] = place.file
    return values


class Places:
    """The places of a run's steps and clocks."""

    def __init__(self, run: Run) -> None:
        """Look the places of `run` up."""
        self._files = run.source.files
        self._merged = all(log.pid is not None for log in run.source.logs)
        self._events = run.replayed.events

    @property
    def several(self) -> bool:
        """Return whether the run was read from more than one log."""
        return len(self._files) > 1

    def of_step(self, step: int) -> Place:
        """Return where a step completed."""
        return self._place(self._events.one("line", step), self._events.one("file", step) if self.several else 0)

    def of_clock(self, clock: int) -> Place | None:
        """Return the line that a clock is, None for what was there before the log."""
        if clock == NULL or clock < 1:
            return None
        if not self.several:
            return Place(clock)
        if not self._events.rows:
            return None
        at = max(0, self._events.count_up_to("clock", clock) - 1)
        later = 0 if self._merged else clock - self._events.one("clock", at)
        return self._place(self._events.one("line", at) + later, self._events.one("file", at))

    def values_of_steps(self, first: int, last: int) -> dict[str, int | str | None]:
        """Return where two steps completed as values for JSON: `first_line`, `last_line`, and the files."""
        return place_values(self.of_step(first), "first_") | place_values(self.of_step(last), "last_")

    def of_problem(self, line: int, file: int) -> Place:
        """Return the place of a problem."""
        return self._place(line, file)

    def _place(self, line: int, file: int) -> Place:
        return Place(line, self._files[file] if self.several else "")
