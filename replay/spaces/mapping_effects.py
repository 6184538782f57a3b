"""What calls do to the mappings of a space: map, unmap, protect, move the break, move mappings.

In go the calls of a window, out come operations for `address_space`. Memory is taken at the line where a call starts
and given where it completes.

Source: mmap(2), munmap(2), mremap(2), mprotect(2), brk(2), io_setup(2), map_shadow_stack in arch/x86/kernel/shstk.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.table import FAILED, OK
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.sorting import distinct, lasts
from replay.linux import constants
from replay.mm import fields
from replay.mm.fields import OpCode
from replay.spaces.call_window import Operations, WindowCalls, operations
from replay.spaces.kernel_files import hides_from_children, may_fail_to_map

MAP_SHARED: Final = 0x1
MAP_ANONYMOUS: Final = 0x20
MAP_STACK: Final = 0x20000
PROT_BITS: Final = 7
"""READ, WRITE, EXEC: what maps shows of a protection."""

PROT_READ: Final = 1
MFD_HUGETLB: Final = constants.OTHER_FLAGS["MFD_HUGETLB"]
PARTIAL_ERRNOS: Final = (fields.EPERM, fields.ENOMEM, fields.EACCES)
"""The errors with which mprotect may have changed the mappings before the one that it was refused for."""

EARLY_ERRNOS: Final = tuple(
    constants.ERRNO[name] for name in ("EACCES", "EBADF", "EEXIST", "ENODEV", "ENOMEM", "EOVERFLOW", "ETXTBSY")
)
"""The errors of mmap that come before what MAP_FIXED replaces is unmapped. Source: mm/mmap.c, do_mmap."""

AIO_RING_HEADER: Final = 32
AIO_EVENT: Final = 32
"""Bytes of struct aio_ring and of struct io_event. Source: fs/aio.c; include/uapi/linux/aio_abi.h."""


def map_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of mmap: whole pages, or whole huge pages, where the result says."""
    calls, strings = of.calls, of.strings
    at = of.succeeded("mmap", "map_shadow_stack")
    at = at[(calls.result[at] != NULL) & (calls.length[at] > 0)]
    flags = np.where(calls.flags[at] == NULL, 0, calls.flags[at])
    shared = (flags & MAP_SHARED) != 0
    path = _mapping_paths(of.window.paths[at], strings)
    # ltrace 0.7.3 shows neither descriptor nor offset of SYS_mmap: the flags alone tell a file then.
    is_file = ((flags & MAP_ANONYMOUS) == 0) & ((calls.fd[at] >= 0) | (calls.fd[at] == NULL) | (path != NO_TEXT))
    # Shared memory of /dev/zero is shared anonymous memory. Source: drivers/char/mem.c, mmap_zero.
    zero_shared = shared & (~is_file | (path == strings.intern("/dev/zero")))
    path[~is_file] = NO_TEXT
    path[zero_shared] = strings.intern("/dev/zero (deleted)")
    offset = np.where(is_file, np.where(calls.offset[at] == NULL, 0, calls.offset[at]), NULL)
    offset[shared & ~is_file] = 0
    kind = np.where(is_file, fields.KIND_FILE, fields.KIND_ANON)
    kind[zero_shared] = fields.KIND_SHM
    kind[~is_file & ((flags & (MAP_STACK | fields.MAP_GROWSDOWN)) != 0)] = fields.KIND_STACK
    length, flags = _in_huge_pages(of, calls.length[at], flags, path)
    huge = ~is_file & ((flags & fields.MAP_HUGETLB) != 0)
    path[huge], offset[huge] = strings.intern(HUGE_FILE), 0
    return operations(
        OpCode.MAP, at, calls.clock[at], result=calls.result[at], length=length,
        prot=_implied(of, at, np.where(calls.prot[at] == NULL, 0, calls.prot[at]) & PROT_BITS),
        flags=flags | _marks(path, strings), shared=shared, kind=kind, path=path, offset=offset,
    )  # fmt: skip


HUGE_FILE: Final = "/anon_hugepage (deleted)"
"""What maps prints for anonymous memory of huge pages. Source: include/linux/hugetlb.h, HUGETLB_ANON_FILE."""


def _in_huge_pages(
    of: WindowCalls, length: Int64Array, flags: Int64Array, path: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Return lengths in whole huge pages where the memory has them, and the flags with MAP_HUGETLB there.

    Pages of more than 16 GiB no machine has: such bits are those of a damaged line.

    Source: mm/mmap.c, ksys_mmap_pgoff: len = ALIGN(len, huge_page_size(hs)), of is_file_hugepages too.
    """
    code = flags >> fields.MAP_HUGE_SHIFT & fields.MAP_HUGE_MASK
    flags = np.where(code > constants.MOST_HUGE, flags & ~fields.MAP_HUGETLB, flags)
    huge = (flags & fields.MAP_HUGETLB) != 0
    code = np.where(huge, code, 0)
    unit = np.where(code > 0, np.int64(1) << code, fields.DEFAULT_HUGE_PAGE)
    for file in distinct(path).tolist():
        size = of.across.huge_unit(file)
        if size:
            unit[path == file] = size
            huge |= path == file
    if not huge.any():
        return length, flags
    return np.where(huge, -(-length // unit) * unit, length), np.where(huge, flags | fields.MAP_HUGETLB, flags)


def note_huge_files(of: WindowCalls) -> None:
    """Keep which files of memfd_create have huge pages, and of how many bytes. Source: memfd_create(2), MFD_HUGETLB."""
    calls, strings = of.calls, of.strings
    for row in of.succeeded("memfd_create").tolist():
        flags = int(calls.flags[row])
        if calls.path[row] != NO_TEXT and flags > 0 and flags & MFD_HUGETLB:
            code = flags >> fields.MAP_HUGE_SHIFT & fields.MAP_HUGE_MASK
            name = strings.intern(f"/memfd:{strings[int(calls.path[row])]} (deleted)")
            of.across.huge[name] = 1 << code if code else fields.DEFAULT_HUGE_PAGE


def _marks(path: Int64Array, strings: Strings) -> Int64Array:
    """Return the mark of mappings that a fork's child does not get, 0 for the others."""
    hidden = [file for file in distinct(path).tolist() if file != NO_TEXT and hides_from_children(strings[file])]
    return np.where(np.isin(path, hidden), fields.DONTFORK, 0) if hidden else np.zeros(len(path), np.int64)


def _implied(of: WindowCalls, at: Int64Array, prot: Int64Array) -> Int64Array:
    """Return protections with what READ_IMPLIES_EXEC adds. Source: mm/mmap.c, do_mmap; mm/mprotect.c."""
    implied = of.implies_exec[at] & ((prot & PROT_READ) != 0)
    return np.where(implied, prot | fields.PROT_EXEC, prot) if implied.any() else prot


def _mapping_paths(paths: Int64Array, strings: Strings) -> Int64Array:
    """Return the paths without what `strace -yy` adds: `/dev/zero<char 1:5>` is `/dev/zero`."""
    if (paths == NO_TEXT).all():
        return paths.copy()
    known, back = np.unique(paths, return_inverse=True)
    plain = [
        strings.intern(strings[int(path)].split("<char ")[0].split("<block ")[0]) if path != NO_TEXT else NO_TEXT
        for path in known
    ]
    return np.array(plain, np.int64)[back] if len(known) else paths.copy()


def hole_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of mmaps with MAP_FIXED that a driver refused: what they were to replace is gone.

    Source: mm/vma.c, vms_abort_munmap_vmas: once the old pages are cleared, a failure leaves a gap. Which errors come
    from the driver is a heuristic: those that do_mmap itself does not give for a file that can be mapped.
    """
    calls, strings = of.calls, of.strings
    at = of.named("mmap", among=of.ran & (calls.status == FAILED))
    fixed = (calls.flags[at] != NULL) & (
        (calls.flags[at] & (fields.MAP_FIXED | fields.MAP_FIXED_NOREPLACE)) == fields.MAP_FIXED
    )
    at = at[
        fixed & (calls.fd[at] >= 0) & ~np.isin(calls.errno[at], EARLY_ERRNOS, kind="table") & (calls.length[at] > 0)
    ]
    below = of.across.page - 1
    at = at[((calls.addr[at] | np.where(calls.offset[at] == NULL, 0, calls.offset[at])) & below) == 0]
    paths = of.window.paths[at]
    by_driver = [path != NO_TEXT and may_fail_to_map(strings[path]) for path in paths.tolist()]
    at = at[np.array(by_driver, np.bool_)]
    return operations(OpCode.UNMAP, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at])


def ring_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of io_setup and io_destroy: a ring of events, its address is the context.

    Source: fs/aio.c, aio_setup_ring: twice the events and two more; ioctx_alloc: four for each processor at least,
    which no log tells (heuristic: as many as fit in one page).
    """
    calls, page = of.calls, of.across.page
    made, ended = of.succeeded("io_setup"), of.succeeded("io_destroy")
    made = made[(calls.addr[made] != NULL) & (calls.aux[made] > 0)]
    sizes = -(-(AIO_RING_HEADER + AIO_EVENT * (2 * calls.aux[made] + 2)) // page) * page
    keys = zip(of.window.spaces[made].tolist(), calls.addr[made].tolist(), strict=True)
    of.across.rings.update(zip(keys, sizes.tolist(), strict=True))
    rings = zip(of.window.spaces[ended].tolist(), calls.addr[ended].tolist(), strict=True)
    lengths = np.array([of.across.rings.get(ring, page) for ring in rings], np.int64)
    given = operations(
        OpCode.MAP, made, calls.clock[made], result=calls.addr[made], length=sizes,
        prot=_implied(of, made, np.full(len(made), 3, np.int64)), shared=1,
        kind=fields.KIND_FILE, path=of.strings.intern("/[aio] (deleted)"), offset=0,
    )  # fmt: skip
    return given + operations(OpCode.UNMAP, ended, calls.entry_clock[ended], addr=calls.addr[ended], length=lengths)


def unmap_operations(of: WindowCalls) -> list[Operations]:
    """Return the operations of munmap, which takes where it starts."""
    calls = of.calls
    at = of.succeeded("munmap")
    return operations(OpCode.UNMAP, at, calls.entry_clock[at], addr=calls.addr[at], length=calls.length[at])


def protect_operations(of: WindowCalls) -> list[Operations]:
    """Return mprotect's rows; one that failed with ENOMEM has changed the pages before the gap."""
    calls = of.calls
    at = of.named("mprotect", "pkey_mprotect", among=of.ran)
    partial = (calls.status[at] == FAILED) & np.isin(calls.errno[at], PARTIAL_ERRNOS)
    at = at[((calls.status[at] == OK) | partial) & (calls.prot[at] != NULL)]
    found = of.across.found[of.window.spaces[at]]
    kind = np.where(found, fields.KIND_UNKNOWN, fields.KIND_IMAGE)
    return operations(
        OpCode.PROTECT, at, calls.clock[at], addr=calls.addr[at], length=calls.length[at],
        prot=_implied(of, at, calls.prot[at] & PROT_BITS), flags=calls.prot[at] & fields.PROT_GROWSDOWN,
        errno=np.where(calls.status[at] == OK, 0, calls.errno[at]), kind=kind,
    )  # fmt: skip


def brk_operations(of: WindowCalls) -> list[Operations]:
    """Return brk's rows: growth is given where the call completes, a shrink taken where it starts."""
    calls, window, across = of.calls, of.window, of.across
    at = of.succeeded("brk")
    at = at[calls.result[at] != NULL]
    requested = np.where(calls.addr[at] == NULL, 0, calls.addr[at])
    shrinks = _shrinks(calls.result[at], window.spaces[at], across.breaks) & (requested == calls.result[at])
    clock = np.where(shrinks, calls.entry_clock[at], calls.clock[at])
    past = np.flatnonzero(shrinks & (clock <= window.after))
    if past.size:
        steps = window.steps[at[past]].tolist()
        clock[past] = np.where([step in across.shrunk for step in steps], clock[past], calls.clock[at[past]])
    coming = np.flatnonzero(shrinks & (calls.clock[at] > window.until))
    across.shrunk.update(window.steps[at[coming]].tolist())
    done = at[calls.clock[at] <= window.until]
    spaces, places = lasts(window.spaces[done])
    across.breaks.update(zip(spaces.tolist(), calls.result[done[places]].tolist(), strict=True))
    heap = of.strings.intern("[heap]")
    return operations(
        OpCode.BRK,
        at,
        clock,
        addr=requested,
        result=calls.result[at],
        prot=_implied(of, at, np.full(len(at), 3, np.int64)),
        kind=fields.KIND_BRK,
        path=heap,
        brk_call=np.arange(len(at)),
    )


def _shrinks(results: Int64Array, spaces: Int64Array, breaks: Mapping[int, int]) -> NDArray[np.bool_]:
    """Return which of the brk results lie below the one before them in the same space; `breaks` are the last ones."""
    order = np.argsort(spaces, kind="stable")
    before = np.full(len(results), NULL, np.int64)
    before[order[1:]] = results[order[:-1]]
    firsts = order[np.append(True, spaces[order][1:] != spaces[order][:-1])[: len(order)]]
    before[firsts] = [breaks.get(space, NULL) for space in spaces[firsts].tolist()]
    shrinks: NDArray[np.bool_] = (before != NULL) & (results < before)
    return shrinks


def remap_operations(of: WindowCalls) -> list[Operations]:
    """Return mremap's rows; a split call takes at its first line and gives at its last."""
    calls = of.calls
    at = of.succeeded("mremap")
    at = at[calls.result[at] != NULL]
    whole = at[calls.entry_clock[at] == calls.clock[at]]
    split = at[calls.entry_clock[at] != calls.clock[at]]
    return [
        Operations(
            code,
            chosen,
            clock,
            {
                "addr": calls.addr[chosen],
                "length": calls.length[chosen],
                "old_length": calls.old_length[chosen],
                "flags": np.maximum(calls.flags[chosen], 0),
                "result": calls.result[chosen],
            },
        )
        for code, chosen, clock in (
            (OpCode.REMAP, whole, calls.clock[whole]),
            (OpCode.REMAP_TAKE, split, calls.entry_clock[split]),
            (OpCode.REMAP_GIVE, split, calls.clock[split]),
        )
    ]
