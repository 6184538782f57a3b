"""The sentence that speaks for the cause of each refused brk.

In go refusals with their causes, out come ids of texts; equal cases share one. What the cause is was decided in
`brk_failures`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from replay.allocator.brk_refusals import (
    CAUSE_RLIMIT_AS,
    CAUSE_RLIMIT_DATA,
    DENIED,
    INJECTED,
    MAP_COUNT,
    MAPPING_ABOVE,
    OVERCOMMIT,
    UNKNOWN,
    Refusals,
)
from replay.allocator.replayed import Replayed
from replay.engine.columns import NULL, Int64Array, Mask
from replay.engine.sorting import take_groups
from replay.engine.structs import Value
from replay.linux.brk_rules import GUARD_PAGES, MAX_MAP_COUNT
from replay.linux.constants import ERRNO_NAME, MAP_FLAGS
from replay.mm.fields import KIND_STACK


class NextCall(Value):
    """The call right after each refusal in its thread, if it is an mmap that asks for at least as much.

    `locked`: it was refused with EAGAIN.
    """

    granted: Mask
    refused: Mask
    locked: Mask


def guard_bytes(record: Replayed, refusals: Refusals) -> Int64Array:
    """Return how many bytes the kernel keeps free below each mapping above the break, besides the one page."""
    flags, kind = refusals.known["above_flags"], refusals.known["above_kind"]
    grows_down = (flags != NULL) & (flags & MAP_FLAGS["MAP_GROWSDOWN"] != 0)
    return np.where(grows_down | (kind == KIND_STACK), GUARD_PAGES * record.page_size, 0)


class _Case(Value):
    """One refusal, as the sentence about it needs it: the numbers that tell it from others."""

    record: Replayed
    told: dict[str, int]


def brk_evidence(
    record: Replayed, refusals: Refusals, following: NextCall, cause: Int64Array, proven: Mask
) -> Int64Array:
    """Return for each refusal the id of the sentence that speaks for its cause; equal sentences are made once."""
    masks = {
        "proven": proven,
        "next_granted": following.granted,
        "next_refused": following.refused,
        "next_locked": following.locked,
    }
    columns = dict(refusals.known) | {name: mask.astype(np.int64) for name, mask in masks.items()}
    columns |= {"growth": refusals.growth, "guard": guard_bytes(record, refusals)}
    evidence = np.full(len(cause), NULL, dtype=np.int64)
    for code, (sentence, names) in _SENTENCES.items():
        rows = np.flatnonzero(cause == code)
        if not len(rows):
            continue
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
    keeps = f"{guard} guard pages and one more page" if guard else "one page"
    room = max(0, away - 1 - guard)
    asked = case.told["growth"] // page
    left = "no room to grow" if room == 0 else f"room for {_pages(room)}"
    where = "right at the break"
    if away:
        where = f"{_pages(away)} above the break, and the kernel keeps {keeps} below it free"
    were = "was" if asked == 1 else "were"
    return f"{_mapping_above(case)} begins {where}: {left}, and {_pages(asked)} {were} asked for"


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
    """Return how a limit that the log sets or prints compares with what is used."""
    counted = f"{max(used, 0)} bytes of {what} memory"
    if case.told["proven"]:
        return f"{counted} and {case.told['growth']} more are over {limit}, which the log shows as {allowed} bytes"
    return (
        f"nothing is in the way and the log shows {limit} as {allowed} bytes; it has {counted}, "
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
        f"{case.told['growth']} bytes at once are likely more than memory and swap, which overcommit refuses "
        "(inferred: nothing is in the way)"
    )


def _unknown_sentence(case: _Case) -> str:
    """Return what is known where no cause is.

    Source: mlock_future_ok in mm/mmap.c, which brk (check_brk_limits) and mmap (do_mmap) ask: both refuse with EAGAIN.
    """
    if case.told["above_start"] == NULL:
        above, no_limit = "the log shows no mapping above the break", "and no limit that would explain it"
    else:
        above = f"the first mapping that the log shows above the break is {_pages(_pages_away(case))} away"
        no_limit = "and the log shows no limit that would explain it"
    if case.told["next_granted"]:
        return (
            f"{above}; the mmap of no less that follows was granted, so neither a limit nor the overcommit rule was "
            "the reason: likely a mapping that the log does not show is in the way"
        )
    if case.told["next_locked"]:
        return (
            f"{above} {no_limit}; the mmap that follows was refused with EAGAIN, which means locked memory: likely "
            "RLIMIT_MEMLOCK, since all new memory is locked from mlockall(MCL_FUTURE) on"
        )
    if case.told["next_refused"]:
        return (
            f"{above} {no_limit}; the mmap that follows was refused too: likely a limit set before the log starts, or "
            "the overcommit rule"
        )
    return f"{above} {no_limit}; no call that follows tells more"


class _Words(NamedTuple):
    """How the evidence of a cause is put into words, and the numbers in which two such sentences may differ."""

    sentence: Callable[[_Case], str]
    told: tuple[str, ...]


_ABOVE_NAMED: Final = tuple(f"above_{name}" for name in ("start", "end", "prot", "shared", "path", "line"))


_SENTENCES: Final[dict[int, _Words]] = {
    UNKNOWN: _Words(_unknown_sentence, ("granted", "above_start", "next_granted", "next_refused", "next_locked")),
    MAPPING_ABOVE: _Words(_blocked_sentence, ("granted", "growth", "guard", *_ABOVE_NAMED)),
    CAUSE_RLIMIT_DATA: _Words(_data_limit_sentence, ("proven", "growth", "rlim_data", "data_bytes")),
    CAUSE_RLIMIT_AS: _Words(_space_limit_sentence, ("proven", "growth", "rlim_as", "total_bytes")),
    MAP_COUNT: _Words(_map_count_sentence, ("mapping_count",)),
    OVERCOMMIT: _Words(_overcommit_sentence, ("growth",)),
    INJECTED: _Words(_injected_sentence, ()),
    DENIED: _Words(_denied_sentence, ("errno",)),
}
"""The evidence of each cause."""
