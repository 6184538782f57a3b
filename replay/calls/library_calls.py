"""What a log of ltrace without -S shows of memory: the program's own sbrk, brk, mmap and fork, as calls of the kernel.

In go joined rows in order, out come the same without the wrappers of libc that say nothing of their own. Where the log
shows the system calls too (-S), what runs inside a wrapper stands in lines of its own and the wrapper says it again.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.calls.split_calls import Rows, chosen
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Struct, field
from replay.linux.constants import CALL_CODE
from replay.logs.dialect import DIALECTS

_LTRACE: Final = DIALECTS.index("ltrace")
_LIBRARY: Final = CALL_CODE["malloc"]
_BRK, _SBRK = CALL_CODE["brk"], CALL_CODE["sbrk"]

_OF_THE_PROGRAM: Final = tuple(
    CALL_CODE[name] for name in "brk mmap munmap mremap mprotect madvise shmget shmat shmdt fork vfork".split()
)
"""Functions of libc that do what the system call of that name does.

`clone` takes other arguments than the call, `exit` runs more of the program, and `open` tells only the names of files.
"""

HIGHEST: Final = (1 << 63) - 1
"""The highest break that a column holds."""

_FAILED: Final = (-1, 0xFFFFFFFF)
"""What libc returns for an error, to a program of 64 or 32 bits."""


class LibraryCalls(Struct):
    """The library calls of one log as calls of the kernel.

    `system_calls` tells whether it shows those themselves; `breaks` is the last break of each pid that they told.
    """

    system_calls: bool = False
    breaks: dict[int, int] = field(default_factory=dict)

    def replayed(self, rows: Rows) -> Rows:
        """Return the rows, the wrappers among them made calls of the kernel or left out."""
        if not rows or not (rows["dialect"] == _LTRACE).any():
            return rows
        system = rows["system"] == 1 if "system" in rows else np.zeros(len(rows["call"]), np.bool_)
        self.system_calls |= bool(system.any())
        call = rows["call"]
        wrapper = (rows["dialect"] == _LTRACE) & (call >= 0) & (call < _LIBRARY) & ~system
        breaks = (wrapper & (call == _BRK)) | (call == _SBRK)
        if not (wrapper.any() or breaks.any()):
            return rows
        out = wrapper if self.system_calls else wrapper & (~np.isin(call, _OF_THE_PROGRAM) | _around(rows))
        if not self.system_calls and breaks.any():
            rows = {key: column.copy() for key, column in rows.items()}
            for key in ("addr", "length", "result"):
                rows.setdefault(key, np.full(len(call), NULL, np.int64))
            self._make_breaks(rows, np.flatnonzero(breaks & ~out))
        return chosen(rows, np.flatnonzero(~out)) if out.any() else rows

    def _make_breaks(self, rows: Rows, places: Int64Array) -> None:
        """Make sbrk and brk of libc what the kernel was asked and answered: the new break, or the one that stayed.

        Source: brk(2), sbrk(2): sbrk returns the old break, brk 0, both -1 on error.
        """
        for place in places.tolist():
            pid, result = int(rows["pid"][place]), int(rows["result"][place])
            known = self.breaks.get(pid, self.breaks.get(NULL, NULL))
            is_sbrk = rows["call"][place] == _SBRK
            asked = int(rows["length" if is_sbrk else "addr"][place])
            if result == NULL or (is_sbrk and asked == NULL):
                continue
            if is_sbrk:
                old = known if result in _FAILED else result
                wanted = min(max(old + asked, 1), HIGHEST) if asked else 0
            else:
                old, wanted = known, asked
            answer = known if result in _FAILED else wanted or old
            if NULL in (old if is_sbrk else answer, answer):
                continue
            rows["call"][place], rows["addr"][place], rows["length"][place] = _BRK, wanted, NULL
            rows["result"][place] = self.breaks[pid] = self.breaks[NULL] = answer


def _around(rows: Rows) -> np.ndarray:
    """Return which rows say the row before them again: the same call of the same thread, inside which that one ran.

    ltrace shows a call twice where both the program's call and libc's entry are traced (-x).
    """
    again = np.zeros(len(rows["call"]), np.bool_)
    same = rows["entry_line"][1:] < rows["entry_line"][:-1]
    for key in ("call", "pid", "result"):
        if key in rows:
            same = same & (rows[key][1:] == rows[key][:-1])
    again[1:] = same
    return again
