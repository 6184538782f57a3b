"""Which file a mapping shows: the path strace printed beside the descriptor, or what open calls before it tell.

In go the calls of a run, window by window, with their tables of open files, out comes for each row the path that its
descriptor names.

Source: open(2), dup(2), close(2), unlink(2), clone(2) on CLONE_FILES, memfd_create(2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.calls.reader import Calls
from replay.engine.columns import NO_TEXT, Int64Array, Strings
from replay.linux import constants

_CODE = constants.CALL_CODE
_OPENS: Final = tuple(_CODE[name] for name in ("open", "openat", "openat2", "creat"))
_DUPS: Final = tuple(_CODE[name] for name in ("dup", "dup2", "dup3", "fcntl"))
_MEMFD: Final = _CODE["memfd_create"]
_CLOSE: Final = _CODE["close"]
_UNLINK: Final = _CODE["unlink"]
_MMAP: Final = _CODE["mmap"]


@dataclass(slots=True)
class OpenFiles:
    """The tables of open files as they are after the calls so far: for each number the path of each descriptor."""

    parents: Mapping[int, tuple[int, int]]
    tables: dict[int, dict[int, int]] = field(default_factory=dict)

    def table(self, number: int) -> dict[int, int]:
        """Return a table, a copy of its parent's when it is first asked for."""
        if number not in self.tables:
            parent, _row = self.parents.get(number, (-1, -1))
            self.tables[number] = {} if parent < 0 else dict(self.table(parent))
        return self.tables[number]


def mapped_paths(calls: Calls, files: Int64Array, known: OpenFiles, strings: Strings) -> Int64Array:
    """Return the path id of every row, with those of mmap rows without one filled in from the open calls before.

    `files` are the tables of open files of the rows; `known`, what the calls before have left, moves on with them.
    """
    paths = calls.path.copy()
    wanted = (calls.call == _MMAP) & (calls.fd >= 0) & (paths == NO_TEXT)
    naming = np.isin(calls.call, [*_OPENS, *_DUPS, _MEMFD, _CLOSE, _UNLINK]) & (calls.status == 0)
    for row in np.flatnonzero(wanted | naming):
        table = known.table(int(files[row]))
        if wanted[row]:
            paths[row] = table.get(int(calls.fd[row]), NO_TEXT)
        elif calls.call[row] == _UNLINK:
            if calls.path[row] != NO_TEXT:
                _unlink(strings[int(calls.path[row])], known.tables.values(), strings)
        else:
            _note(calls, int(row), table, strings)
    return paths


def names(name: str, path: str) -> bool:
    """Tell whether a call's `name`, which may be relative, can be that of the file at `path`."""
    return path == name or path.endswith(name if name.startswith("/") else "/" + name.removeprefix("./"))


def _unlink(name: str, tables: Iterable[dict[int, int]], strings: Strings) -> None:
    """Mark the open files of that name: what is mapped of them from now on shows ` (deleted)`."""
    for table in tables:
        for fd, path in table.items():
            if path != NO_TEXT and names(name, strings[path]):
                table[fd] = strings.intern(strings[path] + " (deleted)")


def _note(calls: Calls, row: int, table: dict[int, int], strings: Strings) -> None:
    code, result = int(calls.call[row]), int(calls.result[row])
    if code == _CLOSE:
        table.pop(int(calls.fd[row]), None)
    elif code == _MEMFD:
        name = int(calls.path[row])
        table[result] = NO_TEXT if name == NO_TEXT else strings.intern(f"/memfd:{strings[name]} (deleted)")
    elif code in _OPENS:
        printed = int(calls.result_path[row])
        table[result] = printed if printed != NO_TEXT else int(calls.path[row])
    elif int(calls.fd[row]) in table:
        table[result] = table[int(calls.fd[row])]
