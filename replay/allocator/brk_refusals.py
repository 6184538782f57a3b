"""Each brk call that was refused, whoever refused it, with what was mapped, limited and above the break then.

In go the brk calls of a replayed run, out come the refused growths as columns. Why the kernel refused them is for
`brk_failures`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.allocator.replayed import Replayed
from replay.calls.table import FAILED, OK
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending, distinct
from replay.engine.structs import Value

UNKNOWN: Final = 0
MAPPING_ABOVE: Final = 1
CAUSE_RLIMIT_DATA: Final = 2
CAUSE_RLIMIT_AS: Final = 3
MAP_COUNT: Final = 4
OVERCOMMIT: Final = 5
INJECTED: Final = 6
DENIED: Final = 7
CAUSES: Final = "unknown mapping_above rlimit_data rlimit_as map_count overcommit injected denied".split()
"""The names of the codes above; `rlimit_data` to `overcommit` stand in the order in which the kernel asks."""

_ABOVE: Final = {"above_line": "made_line"} | {
    f"above_{name}": name for name in ("start", "end", "prot", "path", "flags", "kind", "shared")
}
"""The columns of `brks` about the mapping above the break, and where `regions` has the same."""


class Refusals(Value):
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


def find_refusals(record: Replayed) -> Refusals:
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
    others = _unanswered_rows(record, distinct(np.concatenate([injected, denied_steps(record)])))
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


def denied_steps(record: Replayed) -> Int64Array:
    """Return the brk calls that were refused with an errno, queries among them.

    Source: SYSCALL_DEFINE1(brk) in mm/mmap.c returns a break whatever happens (EINTR aside): an errno is the answer of
    a seccomp filter, an emulator or another kernel.
    """
    steps = record.steps_of("brk")
    refused = (record.at("status", steps) == FAILED) & (record.at("errno", steps) > 0)
    denied: Int64Array = steps[refused & (record.at("injected", steps) != 1)]
    return denied


def _injected_steps(record: Replayed) -> Int64Array:
    """Return the brk calls that strace answered in the kernel's place and that asked for more than the answer."""
    steps = record.steps_of("brk")
    steps = steps[record.at("injected", steps) == 1]
    asked, status = record.at("addr", steps), record.at("status", steps)
    higher = asked.view(np.uint64) > record.at("result", steps).view(np.uint64)
    tampered: Int64Array = steps[(asked != 0) & ((status == FAILED) | ((status == OK) & higher))]
    return tampered


def _look_above(record: Replayed, known: Columns) -> None:
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


def _unanswered_rows(record: Replayed, steps: Int64Array) -> Columns:
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
