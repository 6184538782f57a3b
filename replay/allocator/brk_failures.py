"""Each brk call that was refused, and why: the rules of the kernel applied to the replayed space.

In go the brk calls with what was mapped, limited and in the way when they ran; out comes one row for each refused
growth with its cause, the mapping in the way and a sentence of evidence. Which malloc asked is for `mmaps`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.allocator.brk_evidence import NextCall, brk_evidence, guard_bytes
from replay.allocator.brk_refusals import (
    CAUSE_RLIMIT_AS,
    CAUSE_RLIMIT_DATA,
    CAUSES,
    DENIED,
    INJECTED,
    MAP_COUNT,
    MAPPING_ABOVE,
    OVERCOMMIT,
    UNKNOWN,
    Refusals,
)
from replay.allocator.replayed import Replayed
from replay.calls.table import FAILED, OK
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Mask
from replay.linux.brk_rules import MAX_MAP_COUNT
from replay.linux.constants import CALL_CODE, ERRNO, RLIM_INFINITY

_UNSEEN_MAPPINGS: Final = 64
"""Mappings that a space may have besides those in the log: a program has about twenty from execve on (heuristic)."""

_UNSEEN_BYTES: Final = 64 << 20
"""Bytes that a program's image and stack may add to what the log shows (heuristic)."""

_HUGE_GROWTH: Final = 4 << 30
"""Bytes from which a growth, refused for no other reason, is likely more than memory and swap together (heuristic).

Source: __vm_enough_memory in mm/util.c, mode 0, refuses only what exceeds all memory and swap.
"""


def _shortfall(requested: Int64Array, granted: Int64Array) -> Int64Array:
    """Return the bytes that were missing, of addresses with the bits of unsigned ones; at most 2^63 - 1."""
    missing = (requested - granted).view(np.uint64)
    return np.minimum(missing, np.uint64(np.iinfo(np.int64).max)).astype(np.int64)


def brk_failures(record: Replayed, refusals: Refusals) -> Columns:
    """Return the table `brk_failures`, one row each refusal, sorted by `step`; texts are ids."""
    step, known = refusals.step, refusals.known
    following = _next_call(record, refusals)
    cause, proven = _causes(record, refusals, following)
    is_blocked = cause == MAPPING_ABOVE
    limit = np.where(cause == CAUSE_RLIMIT_DATA, known["rlim_data"], NULL)
    limit = np.where(cause == CAUSE_RLIMIT_AS, known["rlim_as"], limit)
    return {
        "step": step,
        "line": record.at("line", step),
        "pid": record.at("pid", step),
        "space": refusals.space,
        "time_ns": record.at("time_ns", step),
        "requested": refusals.requested,
        "granted": refusals.granted,
        "shortfall_bytes": _shortfall(refusals.requested, refusals.granted),
        "cause": record.intern(CAUSES)[cause],
        "blocker_start": np.where(is_blocked, known["above_start"], NULL),
        "blocker_end": np.where(is_blocked, known["above_end"], NULL),
        "blocker_path": np.where(is_blocked, known["above_path"], NO_TEXT),
        "blocker_line": np.where(is_blocked & (known["above_line"] > 0), known["above_line"], NULL),
        "limit_bytes": limit,
        "evidence": brk_evidence(record, refusals, following, cause, proven),
    }


def _next_call(record: Replayed, refusals: Refusals) -> NextCall:
    """Return what became of the mmap that follows each refusal at once."""
    there = np.flatnonzero(refusals.after != NULL)
    row = refusals.after[there]
    asks = (record.at("call", row) == CALL_CODE["mmap"]) & (record.at("length", row) >= refusals.growth[there])
    asks &= (record.at("prot", row) & 2 != 0) & (record.at("injected", row) == 0)
    status = record.at("status", row)
    granted, refused, locked = (np.zeros(len(refusals.after), dtype=np.bool_) for _ in range(3))
    granted[there], refused[there] = asks & (status == OK), asks & (status == FAILED)
    locked[there] = refused[there] & (record.at("errno", row) == ERRNO["EAGAIN"])
    return NextCall(granted, refused, locked)


def _causes(record: Replayed, refusals: Refusals, following: NextCall) -> tuple[Int64Array, Mask]:
    """Return the cause of each refusal, and whether the figures of the log alone prove it."""
    collides = _collides(record, refusals)
    data_room, as_room = _room(refusals, "rlim_data", "data_bytes"), _room(refusals, "rlim_as", "total_bytes")
    over_data = (data_room < 0) | _span_over_limit(record, refusals)
    certain = [refusals.injected, refusals.denied, collides, over_data, as_room < 0]
    proven = np.logical_or.reduce(certain)
    count = refusals.known["mapping_count"]
    likely_limit = ~following.granted
    guessed = [
        likely_limit & _is_near(data_room, as_room, following),
        likely_limit & _is_near(as_room, data_room, following),
        count >= MAX_MAP_COUNT - _UNSEEN_MAPPINGS,
        likely_limit & (refusals.growth >= _HUGE_GROWTH),
    ]
    limits = [CAUSE_RLIMIT_DATA, CAUSE_RLIMIT_AS]
    codes = [INJECTED, DENIED, MAPPING_ABOVE, *limits, *limits, MAP_COUNT, OVERCOMMIT]
    return np.select(certain + guessed, codes, UNKNOWN).astype(np.int64), proven


def _collides(record: Replayed, refusals: Refusals) -> Mask:
    """Return whether the new break would come too near to the first mapping above it.

    Source: SYSCALL_DEFINE1(brk) in mm/mmap.c: `newbrk + PAGE_SIZE > vm_start_gap(next)` is refused.
    """
    start = refusals.known["above_start"]
    new_break = record.page_up(refusals.requested).view(np.uint64)
    needed = new_break + np.uint64(record.page_size)
    allowed = (start - guard_bytes(record, refusals)).view(np.uint64)
    wraps = new_break < refusals.granted.view(np.uint64)
    collides: Mask = (start != NULL) & ((needed > allowed) | wraps)
    return collides


def _room(refusals: Refusals, limit: str, used: str) -> Int64Array:
    """Return the bytes that the limit leaves after the growth: below 0 proves it; huge where there is no limit.

    Source: may_expand_vm in mm/mmap.c. What the log does not show (the program's image) makes the room smaller.
    """
    limits = refusals.known[limit]
    is_set = (limits != NULL) & (limits >= 0) & (limits < RLIM_INFINITY)
    taken = np.where(refusals.known[used] == NULL, 0, refusals.known[used]) + refusals.growth
    return np.where(is_set, limits - np.where(is_set, taken, 0), RLIM_INFINITY)


def _span_over_limit(record: Replayed, refusals: Refusals) -> Mask:
    """Return whether the brk area alone would be larger than RLIMIT_DATA.

    Source: check_data_rlimit in include/linux/mm.h, called by brk; before Linux 4.7 the only check of RLIMIT_DATA.
    """
    limits = refusals.known["rlim_data"]
    start = record.spaces["start_brk"][refusals.space]
    is_set = (limits != NULL) & (limits >= 0) & (limits < RLIM_INFINITY) & (start != NULL)
    over: Mask = is_set & (refusals.requested - np.where(is_set, start, 0) > limits)
    return over


def _is_near(room: Int64Array, other: Int64Array, following: NextCall) -> Mask:
    """Return where a limit that is set would explain the refusal, given memory that the log does not show (heuristic).

    It must be the tighter one of the two, and near, or the mmap that followed must have been refused too.
    """
    near: Mask = (room < RLIM_INFINITY) & (room <= other) & ((room <= _UNSEEN_BYTES) | following.refused)
    return near
