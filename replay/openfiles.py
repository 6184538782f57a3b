"""Which file a mapping shows: the path strace printed beside the descriptor, or what open calls before it tell.

In go the calls of a run with their tables of open files, out comes for each row the path its descriptor names.

Source: open(2), dup(2), close(2), unlink(2), clone(2) on CLONE_FILES, memfd_create(2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from replay import constants
from replay.calls import Calls
from replay.columns import NO_TEXT, Int64Array, Strings
from replay.processes import Processes

_CODE = constants.CALL_CODE
_OPENS: Final = tuple(_CODE[name] for name in ("open", "openat", "openat2", "creat"))
_DUPS: Final = tuple(_CODE[name] for name in ("dup", "dup2", "dup3", "fcntl"))
_MEMFD: Final = _CODE["memfd_create"]
_CLOSE: Final = _CODE["close"]
_UNLINK: Final = _CODE["unlink"]
_MMAP: Final = _CODE["mmap"]


def mapped_paths(calls: Calls, who: Processes, strings: Strings) -> Int64Array:
    """Return the path id of every row, with those of mmap rows without one filled in from the open calls before."""
    paths = calls.path.copy()
    wanted = (calls.call == _MMAP) & (calls.fd >= 0) & (paths == NO_TEXT)
    if not wanted.any():
        return paths
    naming = np.isin(calls.call, [*_OPENS, *_DUPS, _MEMFD, _CLOSE, _UNLINK]) & (calls.status == 0)
    tables: dict[int, dict[int, int]] = {}
    for row in np.flatnonzero(wanted | naming):
        table = _table_of(int(who.files[row]), who, tables)
        if wanted[row]:
            paths[row] = table.get(int(calls.fd[row]), NO_TEXT)
        elif calls.call[row] == _UNLINK:
            if calls.path[row] != NO_TEXT:
                _unlink(strings[int(calls.path[row])], tables.values(), strings)
        else:
            _note(calls, int(row), table, strings)
    return paths


def _table_of(number: int, who: Processes, tables: dict[int, dict[int, int]]) -> dict[int, int]:
    """Return a table of open files, a copy of its parent's when it is first asked for."""
    if number not in tables:
        parent, _row = who.files_parents.get(number, (-1, -1))
        tables[number] = {} if parent < 0 else dict(_table_of(parent, who, tables))
    return tables[number]


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
        table[result] = strings.intern(f"/memfd:{strings[int(calls.path[row])]} (deleted)")
    elif code in _OPENS:
        printed = int(calls.result_path[row])
        table[result] = printed if printed != NO_TEXT else int(calls.path[row])
    elif int(calls.fd[row]) in table:
        table[result] = table[int(calls.fd[row])]
