"""Each brk call that was refused, and why: the rules of the kernel applied to the replayed space.

In go the brk calls with what was mapped, limited and in the way when they ran; out comes one row for each refused
growth with its cause, the mapping in the way and a sentence of evidence. Which malloc asked is for `mappings`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from replay.allocator.replayed import FAILED, OK, Mask, Record
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array
from replay.engine.sorting import ascending, take_groups
from replay.linux.constants import CALL_CODE, ERRNO_NAME, MAP_FLAGS, RLIM_INFINITY
from replay.mm.address_space import HIGHEST, KIND_STACK

UNKNOWN: Final = 0
MAPPING_ABOVE: Final = 1
RLIMIT_DATA: Final = 2
RLIMIT_AS: Final = 3
MAP_COUNT: Final = 4
OVERCOMMIT: Final = 5
INJECTED: Final = 6
DENIED: Final = 7
CAUSES: Final = "unknown mapping_above rlimit_data rlimit_as map_count overcommit injected denied".split()
"""The names of the codes above; `rlimit_data` to `overcommit` stand in the order in which the kernel asks."""

GUARD_PAGES: Final = 256
"""Free pages that the kernel keeps below a mapping that grows down. Source: stack_guard_gap in mm/mmap.c (4.12)."""

MAX_MAP_COUNT: Final = 65530
"""Mappings that a space may have. Source: DEFAULT_MAX_MAP_COUNT in include/linux/mm.h."""

_UNSEEN_MAPPINGS: Final = 64
"""Mappings that a space may have besides those in the log: a program has about twenty from execve on (heuristic)."""

_UNSEEN_BYTES: Final = 64 << 20
"""Bytes that a program's image and stack may add to what the log shows (heuristic)."""

_HUGE_GROWTH: Final = 4 << 30
"""Bytes from which a growth, refused for no other reason, is likely more than memory and swap together (heuristic).

Source: __vm_enough_memory in mm/util.c, mode 0, refuses only what exceeds all memory and swap.
"""


_ABOVE: Final = {"above_line": "made_line"} | {
    f"above_{name}": name for name in ("start", "end", "prot", "path", "flags", "kind", "shared")
}
"""The columns of `brks` about the mapping above the break, and where `regions` has the same."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """The refused growths, one row each, sorted by `step`; `growth` is in bytes, whole pages."""

    step: Int64Array
    space: Int64Array
    requested: Int64Array
    granted: Int64Array
    injected: Mask
    denied: Mask
    """Answered with an errno, which Linux itself never does."""
    growth: Int64Array
    after: Int64Array
    """The step that the same thread completed next, `NULL` where there is none."""
    known: Columns
    """What the replay knew at the call: the columns of `brks`, all `NULL` where it had no such row."""


@dataclass(frozen=True, slots=True)
class _NextCall:
    """The call right after each refusal in its thread, if it is an mmap that asks for at least as much."""

    granted: Mask
    refused: Mask


def find_refusals(record: Record) -> Refusals:
    """Return the brk calls that asked for a higher break and did not get it.

    Source: SYSCALL_DEFINE1(brk) in mm/mmap.c returns the old break where it refuses. A break below `start_brk` is
    refused too, but with a higher break than asked for: no failure to grow.
    """
    brks, injected = record.brks, _injected_steps(record)
    step, requested, granted = (brks[name] for name in ("step", "requested", "granted"))
    above = requested.view(np.uint64) > granted.view(np.uint64)
    failed = np.flatnonzero((requested != 0) & (granted != NULL) & above)
    if len(injected):
        failed = failed[~np.isin(step[failed], injected)]
    failed = failed[ascending(step[failed])]
    known: Columns = {name: brks.at(name, failed) for name in brks}
    others = _unanswered_rows(record, np.union1d(injected, denied_steps(record)))
    if len(others["step"]):
        known = {name: np.concatenate([column, others[name]]) for name, column in known.items()}
        order = ascending(known["step"])
        known = {name: column[order] for name, column in known.items()}
    is_injected = record.at("injected", known["step"]) == 1
    known = {**known, "errno": record.at("errno", known["step"])}
    denied = (known["errno"] > 0) & ~is_injected
    _look_above(record, known)
    growth = record.page_up(known["requested"]) - record.page_up(known["granted"])
    after = record.neighbours.after(known["step"])
    step, space, requested, granted = (known[name] for name in ("step", "space", "requested", "granted"))
    return Refusals(step, space, requested, granted, is_injected, denied, growth, after, known)


def denied_steps(record: Record) -> Int64Array:
    """Return the brk calls that were refused with an errno, queries among them.

    Source: SYSCALL_DEFINE1(brk) in mm/mmap.c returns a break whatever happens (EINTR aside): an errno is the answer of
    a seccomp filter, an emulator or another kernel.
    """
    steps = record.steps_of("brk")
    refused = (record.at("status", steps) == FAILED) & (record.at("errno", steps) > 0)
    denied: Int64Array = steps[refused & (record.at("injected", steps) != 1)]
    return denied


def _injected_steps(record: Record) -> Int64Array:
    """Return the brk calls that strace answered in the kernel's place and that asked for more than the answer."""
    steps = record.steps_of("brk")
    steps = steps[record.at("injected", steps) == 1]
    asked, status = record.at("addr", steps), record.at("status", steps)
    higher = asked.view(np.uint64) > record.at("result", steps).view(np.uint64)
    tampered: Int64Array = steps[(asked != 0) & ((status == FAILED) | ((status == OK) & higher))]
    return tampered


def _look_above(record: Record, known: Columns) -> None:
    """Fill in the mapping above where the answer of the refused call is the first that the log tells of the break."""
    regions = record.regions
    for row in np.flatnonzero((known["before"] == NULL) & (known["above_start"] == NULL)).tolist():
        step, space, end = (int(known[name][row]) for name in ("step", "space", "granted"))
        alive = (regions["space"] == space) & (regions["born_step"] < step)
        alive &= (regions["died_step"] == NULL) | (regions["died_step"] > step)
        above = np.flatnonzero(alive & (regions["start"] >= -(-end // record.page_size) * record.page_size))
        if not len(above):
            continue
        first = above[np.argmin(regions["start"][above])]
        for name, source in _ABOVE.items():
            known[name][row] = regions[source][first]


def _unanswered_rows(record: Record, steps: Int64Array) -> Columns:
    """Return rows like those of `brks` for calls that no break answered, with the break in force, if it is known.

    Those that asked for no more than it are left out, and those that were denied where it is not known.
    """
    brks, span = record.brks, record.events.rows + 1
    order = np.argsort(brks["space"] * span + brks["step"], kind="stable")
    keys = (brks["space"] * span + brks["step"])[order]
    place = np.searchsorted(keys, record.at("space", steps) * span + steps) - 1
    row = order[np.maximum(place, 0)] if len(order) else np.zeros(len(steps), dtype=np.int64)
    found = (place >= 0) & (len(order) > 0)
    if len(order):
        found &= brks["space"][row] == record.at("space", steps)
    before = np.full(len(steps), NULL, dtype=np.int64)
    before[found] = brks["granted"][row[found]]
    asked = record.at("addr", steps)
    kept = np.where(before == NULL, record.at("injected", steps) == 1, asked > before)
    steps, before, asked = steps[kept], before[kept], asked[kept]
    rows = {name: np.full(len(steps), NULL, dtype=np.int64) for name in brks}
    returned = np.where(record.at("status", steps) == OK, record.at("result", steps), 0)
    rows |= {"step": steps, "space": record.at("space", steps), "before": before, "requested": asked}
    rows["granted"] = np.where(before != NULL, before, returned)
    return rows


def _shortfall(requested: Int64Array, granted: Int64Array) -> Int64Array:
    """Return the bytes that were missing, of addresses with the bits of unsigned ones; at most 2^63 - 1."""
    missing = (requested - granted).view(np.uint64)
    return np.minimum(missing, np.uint64(HIGHEST)).astype(np.int64)


def brk_failures(record: Record, refusals: Refusals) -> Columns:
    """Return the table `brk_failures`, one row each refusal, sorted by `step`; texts are ids."""
    step, known = refusals.step, refusals.known
    following = _next_call(record, refusals)
    cause, proven = _causes(record, refusals, following)
    is_blocked = cause == MAPPING_ABOVE
    limit = np.where(cause == RLIMIT_DATA, known["rlim_data"], NULL)
    limit = np.where(cause == RLIMIT_AS, known["rlim_as"], limit)
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
        "evidence": _evidence(record, refusals, following, cause, proven),
    }


def _next_call(record: Record, refusals: Refusals) -> _NextCall:
    """Return what became of the mmap that follows each refusal at once."""
    there = np.flatnonzero(refusals.after != NULL)
    row = refusals.after[there]
    asks = (record.at("call", row) == CALL_CODE["mmap"]) & (record.at("length", row) >= refusals.growth[there])
    asks &= (record.at("prot", row) & 2 != 0) & (record.at("injected", row) == 0)
    status = record.at("status", row)
    granted, refused = (np.zeros(len(refusals.after), dtype=np.bool_) for _ in range(2))
    granted[there], refused[there] = asks & (status == OK), asks & (status == FAILED)
    return _NextCall(granted, refused)


def _causes(record: Record, refusals: Refusals, following: _NextCall) -> tuple[Int64Array, Mask]:
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
    codes = [INJECTED, DENIED, MAPPING_ABOVE, RLIMIT_DATA, RLIMIT_AS, RLIMIT_DATA, RLIMIT_AS, MAP_COUNT, OVERCOMMIT]
    return np.select(certain + guessed, codes, UNKNOWN).astype(np.int64), proven


def _collides(record: Record, refusals: Refusals) -> Mask:
    """Return whether the new break would come too near to the first mapping above it.

    Source: SYSCALL_DEFINE1(brk) in mm/mmap.c: `newbrk + PAGE_SIZE > vm_start_gap(next)` is refused.
    """
    start = refusals.known["above_start"]
    new_break = record.page_up(refusals.requested).view(np.uint64)
    needed = new_break + np.uint64(record.page_size)
    allowed = (start - _guard_bytes(record, refusals)).view(np.uint64)
    wraps = new_break < refusals.granted.view(np.uint64)
    collides: Mask = (start != NULL) & ((needed > allowed) | wraps)
    return collides


def _guard_bytes(record: Record, refusals: Refusals) -> Int64Array:
    """Return how many bytes the kernel keeps free below each mapping above the break, besides the one page."""
    flags, kind = refusals.known["above_flags"], refusals.known["above_kind"]
    grows_down = (flags != NULL) & (flags & MAP_FLAGS["MAP_GROWSDOWN"] != 0)
    return np.where(grows_down | (kind == KIND_STACK), GUARD_PAGES * record.page_size, 0)


def _room(refusals: Refusals, limit: str, used: str) -> Int64Array:
    """Return the bytes that the limit leaves after the growth: below 0 proves it; huge where there is no limit.

    Source: may_expand_vm in mm/mmap.c. What the log does not show (the program's image) makes the room smaller.
    """
    limits = refusals.known[limit]
    is_set = (limits != NULL) & (limits >= 0) & (limits < RLIM_INFINITY)
    taken = np.where(refusals.known[used] == NULL, 0, refusals.known[used]) + refusals.growth
    return np.where(is_set, limits - np.where(is_set, taken, 0), RLIM_INFINITY)


def _span_over_limit(record: Record, refusals: Refusals) -> Mask:
    """Return whether the brk area alone would be larger than RLIMIT_DATA.

    Source: check_data_rlimit in include/linux/mm.h, called by brk; before Linux 4.7 the only check of RLIMIT_DATA.
    """
    limits = refusals.known["rlim_data"]
    start = record.spaces["start_brk"][refusals.space]
    is_set = (limits != NULL) & (limits >= 0) & (limits < RLIM_INFINITY) & (start != NULL)
    over: Mask = is_set & (refusals.requested - np.where(is_set, start, 0) > limits)
    return over


def _is_near(room: Int64Array, other: Int64Array, following: _NextCall) -> Mask:
    """Return where a limit that is set would explain the refusal, given memory that the log does not show (heuristic).

    It must be the tighter one of the two, and near, or the mmap that followed must have been refused too.
    """
    near: Mask = (room < RLIM_INFINITY) & (room <= other) & ((room <= _UNSEEN_BYTES) | following.refused)
    return near


@dataclass(frozen=True, slots=True)
class _Case:
    """One refusal, as the sentence about it needs it: the numbers that tell it from others."""

    record: Record
    told: dict[str, int]


def _evidence(record: Record, refusals: Refusals, following: _NextCall, cause: Int64Array, proven: Mask) -> Int64Array:
    """Return for each refusal the id of the sentence that speaks for its cause; equal sentences are made once."""
    masks = {"proven": proven, "next_granted": following.granted, "next_refused": following.refused}
    columns = dict(refusals.known) | {name: mask.astype(np.int64) for name, mask in masks.items()}
    columns |= {"growth": refusals.growth, "guard": _guard_bytes(record, refusals)}
    evidence = np.full(len(cause), NULL, dtype=np.int64)
    for code, (sentence, names) in _SENTENCES.items():
        rows = np.flatnonzero(cause == code)
        keys = [columns[name][rows] for name in names]
        firsts, group = take_groups([cause[rows], *keys])
        told = zip(*(key[firsts].tolist() for key in keys), strict=True) if keys else [()] * len(firsts)
        cases = (_Case(record, dict(zip(names, values, strict=True))) for values in told)
        evidence[rows] = record.intern(map(sentence, cases))[group]
    return evidence


def _injected_sentence(case: _Case) -> str:
    return "strace injected this answer (INJECTED): the kernel never ran the call"


def _denied_sentence(case: _Case) -> str:
    errno = ERRNO_NAME.get(case.told["errno"], str(case.told["errno"]))
    return (
        f"it was refused with {errno}, and Linux itself answers brk with a break, never with an errno: a seccomp "
        "filter, an emulator or another kernel refused it"
    )


def _blocked_sentence(case: _Case) -> str:
    """Return why the mapping above the break is in the way."""
    page = case.record.page_size
    away, guard = _pages_away(case), case.told["guard"] // page
    where = "right at the break" if away == 0 else f"{_pages(away)} above the break"
    keeps = f"{guard} guard pages and one more page" if guard else "one page"
    room = max(0, away - 1 - guard)
    asked = case.told["growth"] // page
    left = "no room to grow" if room == 0 else f"room for {_pages(room)}"
    return (
        f"{_mapping_above(case)} begins {where}; the kernel keeps {keeps} free below it, which leaves {left}, "
        f"and {_pages(asked)} {'was' if asked == 1 else 'were'} asked for"
    )


def _pages_away(case: _Case) -> int:
    """Return the free pages between the break and the first mapping above it."""
    page = case.record.page_size
    old_end = -(-case.told["granted"] // page)
    return case.told["above_start"] // page - old_end


def _mapping_above(case: _Case) -> str:
    """Return how a sentence names the mapping above the break: size, protection, path, address, line."""
    known, page = case.told, case.record.page_size
    start, pages = known["above_start"], (known["above_end"] - known["above_start"]) // page
    size = "one-page" if pages == 1 else f"{pages}-page"
    prot = max(known["above_prot"], 0)
    perms = "".join(letter if prot & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
    perms += "s" if known["above_shared"] == 1 else "p"
    path = case.record.text(known["above_path"])
    of = f" of {path}" if path else ""
    made = f"line {known['above_line']}" if known["above_line"] > 0 else "there before the log starts"
    return f"the {size} {perms} mapping{of} at {start:#x} ({made})"


def _pages(count: int) -> str:
    return "one page" if count == 1 else f"{count} pages"


def _data_limit_sentence(case: _Case) -> str:
    return _limit_sentence(case, "RLIMIT_DATA", case.told["rlim_data"], case.told["data_bytes"], "private writable")


def _space_limit_sentence(case: _Case) -> str:
    return _limit_sentence(case, "RLIMIT_AS", case.told["rlim_as"], case.told["total_bytes"], "mapped")


def _limit_sentence(case: _Case, limit: str, allowed: int, used: int, what: str) -> str:
    """Return how a limit that the log sets compares with what is used."""
    counted = f"{max(used, 0)} bytes of {what} memory"
    if case.told["proven"]:
        return f"{counted} and {case.told['growth']} more are over {limit}, which the log sets to {allowed} bytes"
    return (
        f"nothing is in the way and the log sets {limit} to {allowed} bytes; it shows {counted}, "
        f"{case.told['growth']} more were asked for, and the program's own image, which no call of the log maps, "
        "counts too (inferred)"
    )


def _map_count_sentence(case: _Case) -> str:
    return (
        f"the space has {case.told['mapping_count']} mappings, about as many as vm.max_map_count allows "
        f"({MAX_MAP_COUNT} unless changed)"
    )


def _overcommit_sentence(case: _Case) -> str:
    return (
        f"{case.told['growth']} bytes at once, with nothing in the way and no limit set in the log, are likely more "
        "than memory and swap together, which the overcommit heuristic refuses (inferred from the size)"
    )


def _unknown_sentence(case: _Case) -> str:
    """Return what is known where no cause is."""
    if case.told["above_start"] == NULL:
        above = "the log shows no mapping above the break"
    else:
        above = f"the first mapping that the log shows above the break is {_pages(_pages_away(case))} away"
    if case.told["next_granted"]:
        return (
            f"{above}; the mmap of no less that follows was granted, so neither a limit nor the overcommit rule was "
            "the reason: likely a mapping that the log does not show is in the way"
        )
    if case.told["next_refused"]:
        return (
            f"{above} and no limit that would explain it; the mmap that follows was refused too: likely a limit set "
            "before the log starts, or the overcommit rule"
        )
    return f"{above} and no limit that would explain it, and no call that follows tells more"


class _Words(NamedTuple):
    """How the evidence of a cause is put into words, and the numbers in which two such sentences may differ."""

    sentence: Callable[[_Case], str]
    told: tuple[str, ...]


_ABOVE_NAMED: Final = tuple(f"above_{name}" for name in ("start", "end", "prot", "shared", "path", "line"))

_SENTENCES: Final[dict[int, _Words]] = {
    UNKNOWN: _Words(_unknown_sentence, ("granted", "above_start", "next_granted", "next_refused")),
    MAPPING_ABOVE: _Words(_blocked_sentence, ("granted", "growth", "guard", *_ABOVE_NAMED)),
    RLIMIT_DATA: _Words(_data_limit_sentence, ("proven", "growth", "rlim_data", "data_bytes")),
    RLIMIT_AS: _Words(_space_limit_sentence, ("proven", "growth", "rlim_as", "total_bytes")),
    MAP_COUNT: _Words(_map_count_sentence, ("mapping_count",)),
    OVERCOMMIT: _Words(_overcommit_sentence, ("growth",)),
    INJECTED: _Words(_injected_sentence, ()),
    DENIED: _Words(_denied_sentence, ("errno",)),
}
"""The evidence of each cause."""
