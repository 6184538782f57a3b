"""Which part of a run is meant: from when to when, whose.

In go lines, times, steps, process ids and names of programs, out come steps and spaces. How they are shown this module
does not know.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.sorting import distinct
from replay.engine.structs import Value
from replay.errors import QueryError
from replay.linux.constants import SECOND
from replay.run.clock import DAY_NS, EPOCH, LEAST_EPOCH_NS, MIDNIGHT, NONE, START

if TYPE_CHECKING:
    from replay.run.analysis import Analysis


class Moment(Value):
    """A line (from 1), a time (ns, as in `events.time_ns`) or a step (from 0): one of them is given.

    `of_day` tells that the time was written as a time of day.
    """

    line: int | None = None
    time: int | None = None
    step: int | None = None
    of_day: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        if self.line is not None:
            return f"line {self.line}"
        if self.step is not None:
            return f"step {self.step}"
        return (time_of_day if self.of_day else time_text)(_given(self.time))


class Window(NamedTuple):
    """What is to be shown: from one moment up to and with another, of a process or thread, of a program."""

    since: Moment | None = None
    until: Moment | None = None
    pid: int | None = None
    program: str | None = None

    def __str__(self) -> str:
        """Return it in words: `from line 27 to line 71 (pid 5)`."""
        whose = [f"pid {self.pid}"] * (self.pid is not None) + [str(self.program)] * (self.program is not None)
        when = f"from {self.since} to {self.until}" if self.since and self.until else ""
        when = when or (f"from {self.since} on" if self.since else f"up to {self.until}" if self.until else "")
        return " ".join([when] * bool(when) + [f"({', '.join(whose)})"] * bool(whose))

    @property
    def is_all(self) -> bool:
        """Tell whether it leaves nothing out."""
        return self == Window()


EVERYTHING: Final = Window()


def check_line(run: Analysis, line: int) -> None:
    """Raise QueryError if the log has no such line."""
    last = run.source.counters.lines
    if not 1 <= line <= last:
        raise QueryError(f"no line {line}: the log has lines 1 to {last:,}")


def check_step(run: Analysis, step: int) -> None:
    """Raise QueryError if the run has no such step."""
    count = run.replayed.events.rows
    if not 0 <= step < count:
        raise QueryError(f"no step {step}: the run has steps 0 to {count - 1}" if count else "the run has no steps")


def first_step(run: Analysis, moment: Moment) -> int:
    """Return the first step that completes at or after a moment; it may lie behind the last one.

    Raises:
        QueryError: the log has no such line, step or time.
    """
    events = run.replayed.events
    if moment.step is not None:
        check_step(run, moment.step)
        return moment.step
    if moment.line is not None:
        check_line(run, moment.line)
        return int(events.count_up_to("clock", moment.line - 1))
    times = _times(run, moment)
    later = np.flatnonzero(times >= _given(moment.time))
    if not later.size:
        raise QueryError(f"no step at or after {moment}: {_times_of(run, times)}")
    return int(_timed(run)[later[0]])


def last_step(run: Analysis, moment: Moment) -> int:
    """Return the last step that has completed at a moment, -1 if none has.

    Raises:
        QueryError: the log has no such line, step or time.
    """
    events = run.replayed.events
    if moment.step is not None:
        check_step(run, moment.step)
        return moment.step
    if moment.line is not None:
        check_line(run, moment.line)
        return int(events.count_up_to("clock", moment.line)) - 1
    times = _times(run, moment)
    earlier = np.flatnonzero(times <= _given(moment.time))
    if not earlier.size:
        raise QueryError(f"no step at or before {moment}: {_times_of(run, times)}")
    return int(_timed(run)[earlier[-1]])


def _given(value: int | None) -> int:
    if value is None:
        raise QueryError("say when by one of step, line and time")
    return value


def _timed(run: Analysis) -> Int64Array:
    return np.flatnonzero(run.replayed.events["time_ns"] != NULL)


def _times(run: Analysis, moment: Moment) -> Int64Array:
    """Return the times of the steps that have one; raise QueryError if they count from elsewhere than a moment."""
    times: Int64Array = run.replayed.events["time_ns"][_timed(run)]
    time, kind = _given(moment.time), run.clock.kind
    fits = {
        EPOCH: not moment.of_day and time >= LEAST_EPOCH_NS,
        MIDNIGHT: time < DAY_NS,
        START: not moment.of_day,
        NONE: True,
    }
    if not fits[kind]:
        raise QueryError(f"{moment} is no time of this log: {_times_of(run, times)}")
    return times


def _times_of(run: Analysis, times: Int64Array) -> str:
    """Return what times a log has, in words."""
    if not times.size:
        return "the log has no times (strace -ttt writes them)"
    kind, words = run.clock.kind, time_of_day if run.clock.kind == MIDNIGHT else time_text
    since = {EPOCH: "seconds since 1970", MIDNIGHT: "times of day", START: "seconds since its start"}[kind]
    return f"the log's times are {since}, from {words(int(times[0]))} to {words(int(times[-1]))}"


def time_text(ns: int) -> str:
    """Return a time in seconds, as `--time` takes it: `1795368030.523899`."""
    return f"{ns // SECOND}.{ns % SECOND:09d}".rstrip("0").rstrip(".")


def time_of_day(ns: int) -> str:
    """Return a time since midnight as `strace -tt` prints it: `14:03:07.5`."""
    hours, rest = divmod(ns // SECOND, 3600)
    part = f"{ns % SECOND:09d}".rstrip("0")
    return f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}" + (f".{part}" if part else "")


def steps_of(run: Analysis, window: Window) -> Int64Array:
    """Return the steps that a window shows, in order; at least one, but for a run that has none.

    Raises:
        QueryError: the log has no such line, step or time, process or program, or no step of them lies there.
    """
    events = run.replayed.events
    first = 0 if window.since is None else first_step(run, window.since)
    last = events.rows - 1 if window.until is None else last_step(run, window.until)
    steps = np.arange(first, max(last + 1, first), dtype=np.int64)
    if window.pid is not None:
        steps = steps[_of_pid(run, window.pid)[steps]]
    if window.program is not None:
        spaces = spaces_of_program(run, window.program)
        steps = steps[np.isin(events["space"][steps], spaces)]
    if not (steps.size or window.is_all):
        turned = ", whose end is before its begin" if last < first - 1 else ""
        raise QueryError(f"no call that replay follows completed {window}{turned}")
    return steps


def _of_pid(run: Analysis, pid: int) -> np.ndarray:
    mine: np.ndarray = run.replayed.events["tid"] == pid
    if not mine.any():
        raise QueryError(f"no process or thread {pid} in the run")
    return mine


def spaces_of(run: Analysis, window: Window) -> Int64Array | None:
    """Return the spaces that a window shows, None for all."""
    spaces = None
    if window.pid is not None:
        spaces = distinct(run.replayed.events["space"][_of_pid(run, window.pid)])
    if window.program is not None:
        of_program = spaces_of_program(run, window.program)
        spaces = of_program if spaces is None else np.intersect1d(spaces, of_program)
    return spaces


def spaces_of_program(run: Analysis, program: str) -> Int64Array:
    """Return the spaces in which a program ran, named by its path or the last part of it.

    Raises:
        QueryError: none of the run's programs has that name.
    """
    ids = run.replayed.spaces["program"]
    names = ["" if text == NO_TEXT else run.strings[text] for text in ids.tolist()]
    found = [space for space, name in enumerate(names) if name and program in (name, PurePath(name).name)]
    if not found:
        known = ", ".join(dict.fromkeys(filter(None, names)))
        raise QueryError(f"no program {program!r} in the run" + (f"; its programs are {known}" if known else ""))
    return np.array(found, np.int64)
