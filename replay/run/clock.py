"""What the times of a run count from, and how long after its first one each step began.

In go the columns of the events, out come times of steps. How a log prints times is not known here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.calls.reader import LogReader
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Value
from replay.linux.constants import SECOND

EPOCH: Final = "epoch"
MIDNIGHT: Final = "midnight"
START: Final = "start"
NONE: Final = "none"
CLOCKS: Final = (EPOCH, MIDNIGHT, START, NONE)
"""What times can count from: `-ttt`, `-t` and `-tt`, `-r`, no option."""

DAY_NS: Final = 86_400_000_000_000

LEAST_EPOCH_NS: Final = 100_000_000 * SECOND
"""A time of so many seconds is one since 1970: the grammars tell the two apart by nine digits."""


class Clock(Value):
    """The times of a run's steps in nanoseconds: as printed, and since the first of them; `NULL` where unknown."""

    kind: str
    time_ns: Int64Array
    elapsed_ns: Int64Array
    first_ns: int | None = None
    """The first time as printed."""
    last_ns: int | None = None
    """The last time, counted on beyond midnight."""

    @classmethod
    def of(cls, source: LogReader, events: PackedColumns) -> Clock:
        """Return the clock of a run that was read from `source`."""
        times = events.unpacked("time_ns")
        known = times != NULL
        if not known.any():
            return cls(NONE, times, times)
        counted, low = times, int(times[known].min())
        kind = START if any(log.relative for log in source.logs) else EPOCH if low >= LEAST_EPOCH_NS else MIDNIGHT
        if kind == MIDNIGHT:
            counted = _over_midnight(times, known)
            low = int(counted[known].min())
        return cls(kind, times, np.where(known, counted - low, NULL), low, int(counted.max()))

    def times_at(self, steps: Int64Array) -> Int64Array:
        """Return the times of steps as printed; `NULL` for a step that is `NULL` or before the trace."""
        if self.kind == NONE:
            return np.broadcast_to(np.int64(NULL), len(steps))
        return np.where(steps < 0, NULL, self.time_ns[np.maximum(steps, 0)])

    def columns(self, steps: Int64Array) -> dict[str, Int64Array]:
        """Return `time` and `elapsed_ns` of steps."""
        nothing = np.broadcast_to(np.int64(NULL), len(steps))
        return {
            "time": self.time_ns[steps] if self.kind == EPOCH else nothing,
            "elapsed_ns": nothing if self.kind == NONE else self.elapsed_ns[steps],
        }

    @property
    def duration_ns(self) -> int | None:
        """The nanoseconds between the first and the last time, None where there is none."""
        return None if self.first_ns is None or self.last_ns is None else self.last_ns - self.first_ns


def _over_midnight(times: Int64Array, known: np.typing.NDArray[np.bool_]) -> Int64Array:
    """Return times of day with the days gone by added; each is taken to be less than half a day from the one before."""
    days = np.zeros(len(times), np.int64)
    days[known] = np.cumsum(np.rint(-np.diff(times[known], prepend=times[known][:1]) / DAY_NS).astype(np.int64))
    return np.where(known, times + days * DAY_NS, NULL)
