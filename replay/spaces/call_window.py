"""The calls of a window, as the effects on spaces look at them, and what each effect gives: rows of operations.

In go calls with their spaces, out come choices among them. What a call does to a space is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.table import OK, Calls
from replay.engine.columns import NO_TEXT, Int64Array, Strings
from replay.engine.structs import Struct, Value, field
from replay.linux.constants import CALL_CODE
from replay.mm.fields import DEFAULT_HUGE_PAGE
from replay.spaces.limits import Limits, Personalities


class CallWindow(Value):
    """The calls whose operations act at the clocks `(after, until]`, with step, thread, space and file path of each.

    Among them are those that took memory then and completed later.
    """

    calls: Calls
    steps: Int64Array
    tids: Int64Array
    spaces: Int64Array
    paths: Int64Array
    after: int
    until: int


class AcrossWindows(Struct):
    """What the operations of a window must know of others; all from `breaks` on move on with the windows.

    found: for each space whether its beginning is not in the log. births: the line at which each began. segments: size
    in bytes and key of each System V segment. breaks: the last break of each space. shrunk: steps of shrinking brk
    calls that acted in an earlier window than the one in which they completed. mapped: the paths of files mapped so
    far. huge: bytes of the pages of files that have huge ones. rings: bytes of each ring of `io_setup`, by space and
    address.
    """

    strings: Strings
    page: int
    found: NDArray[np.bool_]
    births: Int64Array
    segments: Mapping[int, tuple[int, int]]
    limits: Limits
    personalities: Personalities
    breaks: dict[int, int] = field(default_factory=dict)
    shrunk: set[int] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)
    huge: dict[int, int] = field(default_factory=dict)
    rings: dict[tuple[int, int], int] = field(default_factory=dict)

    def huge_unit(self, file: int) -> int:
        """Return the bytes of a huge page of a file, 0 where it has none. Heuristic: where hugetlbfs is mounted."""
        if file == NO_TEXT:
            return 0
        if file not in self.huge:
            self.huge[file] = DEFAULT_HUGE_PAGE if self.strings[file].startswith("/dev/hugepages/") else 0
        return self.huge[file]


class Operations(Value):
    """Operations of one kind for the calls at `sources`, acting at the lines `clock`; columns not named are null."""

    code: int
    sources: Int64Array
    clock: Int64Array
    columns: Mapping[str, Int64Array | int]


def operations(code: int, sources: Int64Array, clock: Int64Array, **columns: Int64Array | int) -> list[Operations]:
    """Return the operations of one kind, as effects give them."""
    return [Operations(code, sources, clock, columns)]


_NONE: Final = np.zeros(0, np.int64)


class WindowCalls(Struct):
    """The calls of a window by name."""

    window: CallWindow
    across: AcrossWindows

    @property
    def calls(self) -> Calls:
        """The calls."""
        return self.window.calls

    @property
    def strings(self) -> Strings:
        """The texts of the run."""
        return self.across.strings

    @cached_property
    def _met(self) -> NDArray[np.int64]:
        """Return how often each code of a call is met."""
        return np.bincount(self.calls.call)

    @cached_property
    def ran(self) -> NDArray[np.bool_]:
        """Return which calls the kernel ran."""
        ran: NDArray[np.bool_] = self.calls.injected != 1
        return ran

    @cached_property
    def _succeeded(self) -> NDArray[np.bool_]:
        succeeded: NDArray[np.bool_] = self.ran & (self.calls.status == OK)
        return succeeded

    @cached_property
    def implies_exec(self) -> NDArray[np.bool_]:
        """Return which calls are made under READ_IMPLIES_EXEC."""
        return self.across.personalities.imply_exec(self.window.spaces, self.window.steps)

    def named(self, *names: str, among: NDArray[np.bool_] | None = None) -> Int64Array:
        """Return the rows of the named calls, all or those `among` some."""
        codes = [code for code in map(CALL_CODE.__getitem__, names) if code < len(self._met) and self._met[code]]
        if not codes:
            return _NONE
        chosen: NDArray[np.bool_] = np.logical_or.reduce([self.calls.call == code for code in codes])
        return np.flatnonzero(chosen if among is None else chosen & among).astype(np.int64, copy=False)

    def succeeded(self, *names: str) -> Int64Array:
        """Return the rows of the named calls that the kernel ran and that succeeded."""
        return self.named(*names, among=self._succeeded)
