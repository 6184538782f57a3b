"""What /proc/PID/maps calls the kernel's own files, how names of files change, how mappings of drivers differ.

In go paths, out come paths and facts about them.

Source: fs/d_path.c; fs/proc/task_mmu.c; the mmap functions of the drivers that are named below, Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from replay.linux import constants

DELETED: Final = " (deleted)"

OF_DESCRIPTOR: Final = {
    # mm/secretmem.c: alloc_file_pseudo(…, "secretmem"): a name that is in no directory
    constants.CALL_CODE["memfd_secret"]: "/secretmem (deleted)",
    # io_uring/io_uring.c, io_uring_get_file
    constants.CALL_CODE["io_uring_setup"]: "anon_inode:[io_uring]",
    # kernel/events/core.c, perf_event_open
    constants.CALL_CODE["perf_event_open"]: "anon_inode:[perf_event]",
    # kernel/bpf/syscall.c, bpf_map_new_fd
    constants.CALL_CODE["bpf"]: "anon_inode:bpf-map",
}
"""The names of what calls give descriptors of without a path, by the code of the call."""

_NOT_INHERITED: Final = (
    "anon_inode:[perf_event]",  # kernel/events/core.c, perf_mmap
    "/dev/binder",  # drivers/android/binder.c, binder_mmap; with binderfs, hwbinder and vndbinder
    "/dev/hwbinder",
    "/dev/vndbinder",
    "/dev/kfd",  # drivers/gpu/drm/amd/amdkfd/kfd_doorbell.c, kfd_doorbell_mmap
    "/dev/bus/usb/",  # drivers/usb/core/devio.c, usbdev_mmap
    "/dev/dsa/",  # drivers/dma/idxd/cdev.c, idxd_cdev_mmap
    "/dev/iax/",
)
"""Beginnings of the names of what is mapped with VM_DONTCOPY: a fork's child does not get it."""

_OWN_MEMORY: Final = ("/dev/shm/", "/dev/zero", "/dev/hugepages/", "/dev/mqueue/")


def hides_from_children(path: str) -> bool:
    """Tell whether a mapping of `path` stays out of a fork's child. Source: kernel/fork.c, dup_mmap: VM_DONTCOPY."""
    return path.startswith(_NOT_INHERITED)


def may_fail_to_map(path: str) -> bool:
    """Tell whether the mmap of `path` is a driver's, which may refuse when what was there is already unmapped.

    io_uring is asked for the place first, and refuses there. Source: io_uring/memmap.c, io_uring_get_unmapped_area.
    """
    if path.startswith("anon_inode:"):
        return path != "anon_inode:[io_uring]"
    return path.startswith(("socket:", "/dev/", "/sys/", "/proc/")) and not path.startswith(_OWN_MEMORY)


def names(name: str, path: str) -> bool:
    """Tell whether a call's `name`, which may be relative, can be that of the file at `path`."""
    return path == name or path.endswith(name if name.startswith("/") else "/" + name.removeprefix("./"))


def renamed(name: str, target: str | None, paths: Iterable[str], *, exchanges: bool) -> dict[str, str]:
    """Return the new path of each of `paths` that changes when `name` is renamed to `target`, or unlinked (None).

    What is below a renamed directory goes along; what `target` was is deleted, or with `exchanges` gets the name.
    """
    if target is None:
        matches = [path for path in paths if names(name, path)]
        return {matches[0]: matches[0] + DELETED} if len(matches) == 1 else {}
    ends = [path for path in paths if not path.endswith(DELETED)]
    old = _resolved(name, ends)
    new = (
        old.removesuffix(name.removeprefix("./")) + target.removeprefix("./") if not target.startswith("/") else target
    )
    changed = {}
    for path in ends:
        if path == old or path.startswith(old + "/"):
            changed[path] = new + path[len(old) :]
        elif exchanges and (path == new or path.startswith(new + "/")):
            changed[path] = old + path[len(new) :]
        elif path == new:
            changed[path] = path + DELETED
    return changed


def _resolved(name: str, paths: Iterable[str]) -> str:
    """Return the absolute path that a relative `name` likely is: the start of the one path in which it stands."""
    if name.startswith("/"):
        return name
    part = "/" + name.removeprefix("./")
    found = {path[: path.index(part + "/") + len(part)] for path in paths if part + "/" in path}
    found |= {path for path in paths if path.endswith(part)}
    return found.pop() if len(found) == 1 else name
