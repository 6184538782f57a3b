"""What calls do to mappings besides placing them: shared memory, marks, names, file offsets, renamed and deleted files.

In go the calls of a window, out come operations for `address_space`.

Source: shmat(2), shmdt(2), remap_file_pages(2), madvise(2), mseal in mm/mseal.c, prctl(2), unlink(2), rename(2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from replay.calls.table import FAILED, OK, Calls
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.sorting import distinct
from replay.linux import constants
from replay.linux.constants import CALL_CODE
from replay.mm import fields
from replay.mm.fields import OpCode
from replay.spaces.call_window import Operations, WindowCalls, operations
from replay.spaces.kernel_files import renamed

MADV_DONTFORK: Final = constants.MADV["MADV_DONTFORK"]
MADV_DOFORK: Final = constants.MADV["MADV_DOFORK"]
SHM_RDONLY: Final = constants.SHMAT["SHM_RDONLY"]
SHM_REMAP: Final = constants.SHMAT["SHM_REMAP"]
SHM_EXEC: Final = constants.SHMAT["SHM_EXEC"]
SHM_HUGETLB: Final = constants.SHMGET["SHM_HUGETLB"]
PR_SET_MM: Final = constants.PR["PR_SET_MM"]
PR_SET_MM_START_BRK: Final = constants.PR_SET_MM["PR_SET_MM_START_BRK"]
PR_SET_MM_BRK: Final = constants.PR_SET_MM["PR_SET_MM_BRK"]
PR_SET_MM_MAP: Final = constants.PR_SET_MM["PR_SET_MM_MAP"]
PR_SET_VMA: Final = constants.PR["PR_SET_VMA"]


def attach_operations(of: WindowCalls) -> list[Operations]:
    """Return shmat's rows; only shmget (or IPC_STAT) tells how long a segment is."""
    calls, strings = of.calls, of.strings
    at = of.succeeded("shmat")
    at = at[calls.result[at] != NULL]
    unknown = (of.across.page, 0)
    sizes = [of.across.segments.get(int(shmid), unknown) for shmid in calls.aux[at]]
    flags = np.where(calls.flags[at] == NULL, 0, calls.flags[at])
    # READ_IMPLIES_EXEC is of do_mmap, which shmat calls. Source: ipc/shm.c, do_shmat.
    executable = ((flags & SHM_EXEC) != 0) | of.implies_exec[at]
    prot = 1 | np.where(flags & SHM_RDONLY, 0, 2) | np.where(executable, 4, 0)
    paths = [strings.intern(f"/SYSV{key & 0xFFFFFFFF:08x} (deleted)") for _size, key in sizes]
    return operations(
        OpCode.MAP, at, calls.clock[at], result=calls.result[at],
        length=np.array([size for size, _ in sizes], np.int64), prot=prot, shared=1,
        kind=fields.KIND_SHM, path=np.array(paths, np.int64), offset=0,
        flags=np.where(flags & SHM_REMAP, fields.MAP_FIXED, 0),
    )  # fmt: skip


def segments_of(calls: Calls) -> dict[int, tuple[int, int]]:
    """Return size in bytes and key of each System V segment that the log tells."""
    told = {}
    for row in _that_ran(calls, "shmget"):
        key = 0 if calls.addr[row] == NULL else int(calls.addr[row])
        if calls.length[row] > 0:
            told[int(calls.result[row])] = (_segment_size(int(calls.length[row]), int(calls.flags[row])), key)
    for row in _that_ran(calls, "shmctl"):
        if calls.length[row] > 0:
            told.setdefault(int(calls.aux[row]), (int(calls.length[row]), 0))
    return told


def _segment_size(length: int, flags: int) -> int:
    """Return the bytes of a segment: whole huge pages under SHM_HUGETLB. Source: ipc/shm.c, newseg."""
    if flags == NULL or not flags & SHM_HUGETLB:
        return length
    code = flags >> fields.MAP_HUGE_SHIFT & fields.MAP_HUGE_MASK
    unit = 1 << code if 0 < code <= constants.MOST_HUGE else fields.DEFAULT_HUGE_PAGE
    return -(-length // unit) * unit


def _that_ran(calls: Calls, name: str) -> Int64Array:
    """Return the rows of a call that the kernel ran and that succeeded."""
    return np.flatnonzero((calls.call == CALL_CODE[name]) & (calls.status == OK) & (calls.injected != 1))


def detach_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of shmdt."""
    calls = of.calls
    at = of.succeeded("shmdt")
    return operations(OpCode.DETACH, at, calls.entry_clock[at], addr=calls.addr[at])


def fork_advice_operations(of: WindowCalls) -> list[Operations]:
    """Return the rows of madvise on forks; one that failed with ENOMEM met gaps and took effect on all else.

    Source: mm/madvise.c, madvise_walk_vmas: `unmapped_error`.
    """
    calls = of.calls
    at = of.named("madvise", among=of.ran)
    at = at[np.isin(calls.flags[at], (MADV_DONTFORK, MADV_DOFORK))]
    at = at[(calls.status[at] == OK) | ((calls.status[at] == FAILED) & (calls.errno[at] == fields.ENOMEM))]
    mark = np.where(calls.flags[at] == MADV_DONTFORK, fields.DONTFORK, 0)
    return operations(
        OpCode.MARK, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], prot=fields.DONTFORK,
        flags=mark,
    )  # fmt: skip


def seal_operations(of: WindowCalls) -> list[Operations]:
    """Return the rows of mseal. Source: mm/mseal.c: the mappings are split at both ends and marked VM_SEALED."""
    calls = of.calls
    at = of.succeeded("mseal")
    return operations(
        OpCode.MARK, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], flags=fields.SEALED
    )


def name_operations(of: WindowCalls) -> list[Operations]:
    """Return the rows of prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME). Source: fs/proc/task_mmu.c: `[anon:NAME]`."""
    calls, strings = of.calls, of.strings
    at = of.succeeded("prctl")
    at = at[(calls.aux[at] == PR_SET_VMA) & (calls.length[at] > 0)]
    names = [strings.intern(f"[anon:{strings[int(path)]}]") if path != NO_TEXT else NO_TEXT for path in calls.path[at]]
    return operations(
        OpCode.NAME, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at],
        path=np.array(names, np.int64),
    )  # fmt: skip


def set_brk_operations(of: WindowCalls) -> list[Operations]:
    """Return the rows of prctl(PR_SET_MM) that move the break or its start and map nothing.

    PR_SET_MM_MAP moves both to where a structure says that strace does not print. Source: kernel/sys.c,
    prctl_set_mm_map.
    """
    calls = of.calls
    at = of.succeeded("prctl")
    at = at[(calls.aux[at] == PR_SET_MM) & np.isin(calls.aux2[at], (PR_SET_MM_BRK, PR_SET_MM_START_BRK, PR_SET_MM_MAP))]
    option = calls.aux2[at]
    what = np.select([option == PR_SET_MM_START_BRK, option == PR_SET_MM_MAP], [1, 2], 0)
    addr = np.where(option == PR_SET_MM_MAP, 0, calls.addr[at])
    return operations(OpCode.SET_BRK, at, calls.clock[at], addr=addr, flags=what)


def remap_file_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of remap_file_pages, whose offset is in pages."""
    calls = of.calls
    at = of.succeeded("remap_file_pages")
    offset = np.where(calls.aux[at] == NULL, 0, calls.aux[at]) * of.across.page
    return operations(
        OpCode.REMAP_FILE, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at], offset=offset
    )


def path_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of unlink and rename: what maps prints of a file follows its name, in every space.

    Source: fs/d_path.c: the path is made of the names as they are; d_delete and d_move change them. Heuristic: a name
    that is not absolute is the file mapped so far whose path ends with it, if there is one such path only.
    """
    calls, paths, mapped = of.calls, of.window.paths, of.across.mapped
    of_mmap = paths[of.named("mmap")]
    mapped.update(distinct(of_mmap[of_mmap != NO_TEXT]).tolist())
    found: list[Operations] = []
    for row in of.succeeded("unlink", "rename").tolist():
        if calls.path[row] == NO_TEXT:
            continue
        sources = np.array([row], np.int64)
        changes = dict(_changes(of, row, mapped))
        mapped.update(changes.values())
        for old, new in _one_by_one(changes, of.strings):
            found += operations(OpCode.DELETED, sources, calls.clock[sources], addr=old, path=new)
    return found


def _changes(of: WindowCalls, row: int, mapped: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield old and new path of each mapped file that an unlink or a rename names."""
    calls, strings = of.calls, of.strings
    name = strings[int(calls.path[row])]
    target = None
    if calls.call[row] == CALL_CODE["rename"]:
        if calls.result_path[row] == NO_TEXT:
            return
        target = strings[int(calls.result_path[row])]
    exchanges = (
        target is not None and calls.flags[row] != NULL and bool(calls.flags[row] & constants.VALUES["RENAME_EXCHANGE"])
    )
    known = {strings[path]: path for path in mapped}
    for old, new in renamed(name, target, known, exchanges=exchanges).items():
        yield known[old], strings.intern(new)


def _one_by_one(changes: dict[int, int], strings: Strings) -> Iterator[tuple[int, int]]:
    """Yield old and new paths of changes that are made at once, in an order in which no new path meets an old one.

    A path that another change takes away is reached by way of one that no file has.
    """
    taken = {old: strings.intern(f"\0{strings[new]}") for old, new in changes.items() if new in changes}
    yield from taken.items()
    yield from ((old, new) for old, new in changes.items() if old not in taken)
    yield from ((aside, changes[old]) for old, aside in taken.items())
