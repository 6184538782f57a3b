"""Calls for memory other than brk that were refused: which, how often, and what the log tells of the reason.

In go findings, out come groups of alike refusals with a sentence each. Fallbacks of a failed brk are told elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from replay.calls.enclosing import is_call
from replay.calls.reader import FAILED
from replay.console.amounts import exact, number, size
from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import is_among
from replay.engine.structs import Value
from replay.linux import constants
from replay.linux.brk_rules import MAX_MAP_COUNT
from replay.report.facts import alike
from replay.run.places import span

if TYPE_CHECKING:
    from replay.report.findings import Findings

_CALLS: Final = ("mmap", "mremap", "mprotect", "pkey_mprotect", "shmat", "remap_file_pages")
_ANONYMOUS: Final = constants.MAP_FLAGS["MAP_ANONYMOUS"]
_NORESERVE: Final = constants.MAP_FLAGS["MAP_NORESERVE"]
_HUGETLB: Final = constants.MAP_FLAGS["MAP_HUGETLB"]
_STACK: Final = constants.MAP_FLAGS["MAP_STACK"]
_WRITE: Final = 2
_WIDEST: Final = 1 << 47
"""Bytes of a 64-bit program's half of the addresses. Source: TASK_SIZE_MAX in arch/x86/include/asm/page_64_types.h."""

_FEW: Final = 64
"""So near to the most mappings a space counts as full: the log does not show all (heuristic)."""

_HUGE: Final = 4 << 30
"""Bytes from which on a request is likely more than memory and swap together (heuristic)."""

_PROBES: Final = ("EEXIST",)
"""Errors with which a program only learns that a place is taken."""


class Refused(Value):
    """Refused calls of one name, error and purpose; `reason` is what is known of why, empty for nothing."""

    call: str
    errno: str
    what: str
    count: int
    least_bytes: int
    most_bytes: int
    first_step: int
    last_step: int
    injected: bool
    reason: str

    @property
    def is_probe(self) -> bool:
        """Return whether the program only asked whether a place is free."""
        return self.errno in _PROBES


def refused_groups(findings: Findings) -> list[Refused]:
    """Return the refused calls in groups, the most frequent first."""
    steps = _refused_steps(findings)
    if not len(steps):
        return []
    events = findings.events
    call, errno, flags, prot, injected = (
        events.at(name, steps) for name in ("call", "errno", "flags", "prot", "injected")
    )
    keys = [call, errno, _purposes(call, flags, prot), (injected == 1).astype(np.int64)]
    groups = [_group(findings, [int(key[rows[0]]) for key in keys], steps[rows]) for rows in alike(keys)]
    return sorted(groups, key=lambda group: (-group.count, group.first_step))


def _refused_steps(findings: Findings) -> Int64Array:
    events, found = findings.events, [np.zeros(0, np.int64)]
    for number_ in range(events.parts):
        rows = np.flatnonzero(events.part(number_, ["status"])["status"] == FAILED)
        if len(rows):
            part = events.part(number_, ["call", "errno"])
            refused = is_call({"call": part["call"][rows]}, _CALLS) & (part["errno"][rows] > 0)
            found.append(rows[refused] + events.starts[number_])
    steps = findings.of_window(np.concatenate(found))
    return steps[~is_among(steps, findings.run.activity.allocator_mmaps["step"][findings.fallback_rows])]


_PURPOSES: Final = (
    "",
    "MAP_HUGETLB, huge pages",
    "MAP_STACK, a thread's stack",
    "a file",
    "an address range, no access",
)


def _purposes(call: Int64Array, flags: Int64Array, prot: Int64Array) -> Int64Array:
    """Return what each mmap was for, as its flags tell: places in `_PURPOSES`."""
    known = (call == constants.CALL_CODE["mmap"]) & (flags != NULL)
    masks = [
        known & (flags & _HUGETLB != 0),
        known & (flags & _STACK != 0),
        known & (flags & _ANONYMOUS == 0),
        known & (prot == 0),
    ]
    return np.select(masks, [1, 2, 3, 4], 0).astype(np.int64)


def _group(findings: Findings, key: list[int], steps: Int64Array) -> Refused:
    call, what, injected = constants.CALLS[key[0]], _PURPOSES[key[2]], bool(key[3])
    errno = constants.ERRNO_NAME.get(key[1], f"error {key[1]}")
    lengths = np.maximum(findings.events.at("length", steps), 0)
    first = int(steps[0])
    reason = "strace injected this answer" if injected else _reason(findings, call, errno, first)
    ends = first, int(steps[-1])
    return Refused(call, errno, what, len(steps), int(lengths.min()), int(lengths.max()), *ends, injected, reason)


def _reason(findings: Findings, call: str, errno: str, step: int) -> str:
    if errno == "EAGAIN" and call in ("mmap", "mremap"):
        return _locked(findings, step)
    if errno == "ENOMEM":
        return _no_memory(findings, call, step)
    return _MEANINGS.get((call, errno), _MEANINGS.get(("", errno), ""))


_MEANINGS: Final = {
    ("", "EEXIST"): "something is mapped there already, and MAP_FIXED_NOREPLACE replaces nothing",
    ("", "EINVAL"): "an argument is wrong: an address or offset within a page, a length of 0, flags that do not fit",
    ("", "EBADF"): "the descriptor is of no open file",
    ("", "ENODEV"): "the file's kind or file system cannot be mapped",
    ("", "EPERM"): "a seal, a file system without exec, or a policy of the system forbids it",
    ("", "EFAULT"): "the old range is not mapped as a whole",
    ("", "EOVERFLOW"): "length and offset together are too large",
    ("", "ENFILE"): "the system has as many open files as it may",
    ("", "EIDRM"): "the segment was removed",
    ("mmap", "EACCES"): "the file is not open for that, or no regular file",
    ("mprotect", "EACCES"): "the mapping may not have that protection: its file is not open so, or a policy says no",
    ("shmat", "EACCES"): "the segment's permissions do not allow it",
}  # fmt: skip
"""What an error means, for a call or all. Source: mmap(2), mremap(2), mprotect(2), shmat(2), ERRORS."""


def _locked(findings: Findings, step: int) -> str:
    """Return what EAGAIN means: too much locked memory. Source: mmap(2), mlock_future_ok in mm/mmap.c."""
    earlier = findings.steps_of(["mlockall"])
    earlier = earlier[earlier < step]
    why = "locked memory"
    if len(earlier):
        why += (
            f": all that is mapped from mlockall(MCL_FUTURE) on ({findings.places.of_step(int(earlier[-1]))}) is locked"
        )
    return f"EAGAIN means {why}, and RLIMIT_MEMLOCK (ulimit -l) bounds it"


def _no_memory(findings: Findings, call: str, step: int) -> str:
    """Return which limits would have refused a request with ENOMEM.

    Source: mmap(2); do_mmap in mm/mmap.c; for huge pages hugetlb_acct_memory in mm/hugetlb.c, which wants so many free.
    """
    events = findings.events
    length, prot = max(events.one("length", step), 0), events.one("prot", step)
    flags = max(events.one("flags", step), 0)
    space, clock = events.one("space", step), events.one("clock", step)
    if call == "mremap":
        length -= max(events.one("old_length", step), 0)
    if length >= _WIDEST:
        return f"{size(length)} are more than a program has addresses for"
    mapped = findings.run.mapped(space, clock)
    total, count = int(mapped.bytes.sum()), len(mapped)
    data = int(mapped.bytes[(mapped.prot & _WRITE != 0) & (mapped.shared == 0)].sum())
    would = [f"the space has {count:,} mappings (vm.max_map_count)"] * (count >= MAX_MAP_COUNT - _FEW)
    takes = 0 if call.endswith("mprotect") else length
    for name, used in (("RLIMIT_AS", total + takes), ("RLIMIT_DATA", data + length * (prot & _WRITE != 0))):
        limit = findings.limit_before(name, space, step)
        if limit is not None and used > limit.bytes:
            where = findings.places.of_step(limit.step)
            told = f"set in {where}" if limit.is_set else f"as {where} tells"
            would.append(f"{name} ({exact(limit.bytes)}, {told}; {size(used)} would have been in use)")
    if would:
        return f"{would[0]}" if len(would) == 1 else "each of these alone refuses it: " + "; ".join(would)
    if call.endswith("mprotect"):
        return "a part of the range is not mapped, or splitting a mapping would make too many"
    if flags & _HUGETLB:
        return (
            "so many huge pages are not free (HugePages_Free in /proc/meminfo; vm.nr_hugepages sets how many there are)"
        )
    if length >= _HUGE and not flags & _NORESERVE and prot & _WRITE:
        return f"{size(length)} at once are likely more than memory and swap together (vm.overcommit_memory)"
    return "no limit that the log shows explains it: a limit set before it begins, a control group, or overcommit"


def sentence(findings: Findings, group: Refused) -> str:
    """Return what is said of a group."""
    lines = span(findings.places.of_step(group.first_step), findings.places.of_step(group.last_step))
    least, most = size(group.least_bytes), size(group.most_bytes)
    bytes_ = exact(group.most_bytes) if group.least_bytes == group.most_bytes else f"{least} to {most}"
    if group.least_bytes != group.most_bytes and least == most:
        bytes_ = f"about {most}"
    what = f"; {group.what}" if group.what else ""
    of = f" of {bytes_[:-1]}{what})" if bytes_.endswith(")") else f" of {bytes_}{f' ({group.what})' if what else ''}"
    why = f": {group.reason}" if group.reason else ""
    was = "was" if group.count == 1 else "were"
    return f"{number(group.count, group.call)}{of} {was} refused with {group.errno} ({lines}){why}."
