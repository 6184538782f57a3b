"""Calls as operations on address spaces: which call does what, and at which line.

In go the calls of a window with their spaces, out come operations for `address_space.apply_operations`, in
the order in which the kernel acted: memory is taken at the line where a call starts and given where it completes.

Followed besides mmap, munmap, mremap, mprotect and brk: execve, shmat and shmdt, io_setup and io_destroy (fs/aio.c,
aio_setup_ring), map_shadow_stack, remap_file_pages, madvise and mseal as far as they bear on a fork or a later call,
prctl with PR_SET_MM and PR_SET_VMA, unlink and rename of what is mapped.
Not followed, as no result of a call tells their address: shadow stacks of threads (arch/x86/kernel/shstk.c,
shstk_alloc_thread_stack), the area of uprobes (kernel/events/uprobes.c, xol_add_vma), a vdso that is mapped anew
(arch/x86/entry/vdso/vma.c, map_vdso_once), what ioctls of KVM and graphics map (arch/x86/kvm/x86.c,
__x86_set_memory_region; i915_gem_mman.c, i915_gem_mmap_ioctl), and a stack that grows (mm/mmap.c, expand_stack).
What splits mappings, but changes no address or permission, is not told apart: mlock, mbind, userfaultfd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from replay.calls.windows import KeyCalls
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.records import Records
from replay.engine.sorting import ascending_by, is_ascending
from replay.engine.structs import Value
from replay.linux.constants import CALL_CODE
from replay.mm.fields import OPERATION
from replay.spaces.attribute_effects import (
    attach_operations,
    detach_operations,
    fork_advice_operations,
    name_operations,
    path_operations,
    remap_file_operations,
    seal_operations,
    segments_of,
    set_brk_operations,
)
from replay.spaces.call_window import AcrossWindows, CallWindow, Operations, WindowCalls
from replay.spaces.limits import Limits, Personalities
from replay.spaces.mapping_effects import (
    brk_operations,
    hole_operations,
    map_operations,
    note_huge_files,
    protect_operations,
    remap_operations,
    ring_operations,
    unmap_operations,
)
from replay.spaces.processes import Processes

_EFFECTS: Final[tuple[Callable[[WindowCalls], list[Operations]], ...]] = (
    map_operations, hole_operations, ring_operations, unmap_operations, protect_operations, brk_operations,
    remap_operations, attach_operations, detach_operations, fork_advice_operations, seal_operations, name_operations,
    set_brk_operations, remap_file_operations, path_operations,
)  # fmt: skip

_NONE: Final = np.zeros(0, np.int64)

_LIBRARY: Final = CALL_CODE["malloc"]
"""Codes from this one on are of calls of libc's malloc family, which do nothing to a space themselves."""


class OperationRows(Value):
    """Operations in the order of lines; `spaces` and `sources` give the space and the call's row of each.

    `early` are the lines of those that act before their calls complete.
    """

    operations: Records
    spaces: Int64Array
    sources: Int64Array
    early: Int64Array


def across_windows(told: KeyCalls, who: Processes, strings: Strings, page: int) -> AcrossWindows:
    """Return what is known before the first window."""
    found = np.array([life.origin == "found" and not life.fresh for life in who.lives] or [True])
    births = np.array([life.born_clock for life in who.lives] or [NULL], np.int64)
    sizes = segments_of(told.calls)
    return AcrossWindows(strings, page, found, births, sizes, Limits(told, who), Personalities(told, who))


def operations_of(window: CallWindow, across: AcrossWindows) -> OperationRows:
    """Return what happens in a window. Calls that failed, never returned or were injected mostly do nothing."""
    if window.calls.call.min(initial=_LIBRARY) >= _LIBRARY:
        return OperationRows(np.zeros(0, OPERATION), _NONE, _NONE, _NONE)
    of = WindowCalls(window, across)
    note_huge_files(of)
    parts = [part for effect in _EFFECTS for part in effect(of) if len(part.sources)]
    clocks = np.concatenate([_NONE, *(part.clock for part in parts)])
    sources = np.concatenate([_NONE, *(part.sources for part in parts)])
    completed = window.calls.clock[sources]
    before = clocks < completed
    if before.any():  # nothing is taken from a space before it is there
        clocks[before] = np.maximum(clocks[before], across.births[window.spaces[sources[before]]])
        before = clocks < completed
    place = _places(clocks, sources, window.calls.clock)
    made, ordered = np.zeros(len(sources), OPERATION), np.empty(len(sources), np.int64)
    made["path"], made["offset"] = NO_TEXT, NULL
    made["clock"][place], ordered[place] = clocks, sources
    made["step"] = window.steps[ordered]
    for part in parts:
        own, place = place[: len(part.sources)], place[len(part.sources) :]
        made["code"][own] = part.code
        for name, column in part.columns.items():
            made[name][own] = column
    low, high = np.searchsorted(made["clock"], [window.after, window.until], side="right").tolist()
    made, ordered = made[low:high], ordered[low:high]
    early = np.sort(clocks[before])
    early = early[(early > window.after) & (early <= window.until)]
    return OperationRows(made, window.spaces[ordered], ordered, early)


def _places(clocks: Int64Array, sources: Int64Array, completed: Int64Array) -> Int64Array:
    """Return the place of each row in the order of `clocks`, of the same one in that of `sources`."""
    acts = np.zeros(len(completed), np.int64)
    acts[sources] = 1
    if (clocks == completed[sources]).all() and acts.sum() == len(sources) and is_ascending([completed]):
        return (np.cumsum(acts) - 1)[sources]  # one row a call, at the line where that completed
    place = np.empty(len(sources), np.int64)
    place[ascending_by(clocks, sources)] = np.arange(len(sources))
    return place
