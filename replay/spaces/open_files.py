"""Which file a mapping shows: the path strace printed beside the descriptor, or what open calls before it tell.

In go the calls of a run, window by window, with their tables of open files, out comes for each row the path that its
descriptor names.

Source: open(2), dup(2), close(2), unlink(2), rename(2), clone(2) on CLONE_FILES, memfd_create(2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from replay.calls.table import Calls
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.structs import Struct, field
from replay.linux import constants
from replay.linux.constants import CALL_CODE
from replay.spaces.kernel_files import DELETED, OF_DESCRIPTOR, names, renamed

_OPENS: Final = tuple(CALL_CODE[name] for name in ("open", "openat", "openat2", "creat"))
_DUPS: Final = tuple(CALL_CODE[name] for name in ("dup", "dup2", "dup3", "fcntl"))
_MEMFD: Final = CALL_CODE["memfd_create"]
_CLOSE: Final = CALL_CODE["close"]
_UNLINK: Final = CALL_CODE["unlink"]
_RENAME: Final = CALL_CODE["rename"]
_BPF: Final = CALL_CODE["bpf"]
_EXCHANGE: Final = constants.VALUES["RENAME_EXCHANGE"]
_MAP_CREATE: Final = constants.VALUES["BPF_MAP_CREATE"]
_MMAP: Final = CALL_CODE["mmap"]
_NAMING: Final = (*_OPENS, *_DUPS, *OF_DESCRIPTOR, _MEMFD, _CLOSE, _UNLINK, _RENAME)


class OpenFiles(Struct):
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
    naming = np.isin(calls.call, _NAMING) & (calls.status == 0)
    for row in np.flatnonzero(wanted | naming):
        table = known.table(int(files[row]))
        if wanted[row]:
            paths[row] = table.get(int(calls.fd[row]), NO_TEXT)
        elif calls.call[row] in (_UNLINK, _RENAME):
            _change_names(calls, int(row), known.tables.values(), strings)
        else:
            _note(calls, int(row), table, strings)
    return paths


def _change_names(calls: Calls, row: int, tables: Iterable[dict[int, int]], strings: Strings) -> None:
    """Give the open files that an unlink or a rename names the paths that they have from then on."""
    if calls.path[row] == NO_TEXT or (calls.call[row] == _RENAME and calls.result_path[row] == NO_TEXT):
        return
    name = strings[int(calls.path[row])]
    target = strings[int(calls.result_path[row])] if calls.call[row] == _RENAME else None
    exchanges = target is not None and calls.flags[row] != NULL and bool(calls.flags[row] & _EXCHANGE)
    for table in tables:
        for fd, path in table.items():
            text = strings[path] if path != NO_TEXT else ""
            new = text + DELETED if target is None and text and names(name, text) else ""
            new = new or (renamed(name, target, [text], exchanges=exchanges).get(text, "") if target and text else "")
            if new:
                table[fd] = strings.intern(new)


def _note(calls: Calls, row: int, table: dict[int, int], strings: Strings) -> None:
    code, result = int(calls.call[row]), int(calls.result[row])
    if code == _CLOSE:
        table.pop(int(calls.fd[row]), None)
    elif code == _MEMFD:
        name = int(calls.path[row])
        table[result] = NO_TEXT if name == NO_TEXT else strings.intern(f"/memfd:{strings[name]} (deleted)")
    elif code in OF_DESCRIPTOR:
        if code != _BPF or calls.aux[row] == _MAP_CREATE:
            table[result] = strings.intern(OF_DESCRIPTOR[code])
    elif code in _OPENS:
        printed = int(calls.result_path[row])
        table[result] = printed if printed != NO_TEXT else int(calls.path[row])
    elif int(calls.fd[row]) in table:
        table[result] = table[int(calls.fd[row])]
