"""The blocks of malloc as rectangles: addresses × time, from the call that gave each to the one that took it.

In go the replayed columns of a run and what its calls ran inside, out come the blocks and the frees that fit none.
Where in the heap a block lies and what lies between blocks is not known here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.calls.enclosing import Nesting
from replay.calls.reader import UNFINISHED
from replay.engine.column_store import PackedColumns, packed_columns
from replay.engine.columns import NO_TEXT, NULL, Columns, Int64Array, Mask, Strings, to_unsigned
from replay.engine.sorting import ascending, ascending_by, is_among, lasts
from replay.engine.structs import Value
from replay.heap.pairing import Paired, UnmatchedFrees, pair
from replay.linux.constants import CALLS
from replay.logs.problems import Problems
from replay.mm.fields import HIGHEST, KIND_ANON, KIND_BRK
from replay.spaces.processes import BRK, EXEC_EVENTS
from replay.spaces.replay import Replay

LIVE: Final = 0
FREED: Final = 1
MOVED: Final = 2
ENDS: Final = ("live", "freed", "moved")
"""How a block ended; the codes of the column `end` are places here."""

IN_BRK: Final = 0
IN_MMAP: Final = 1
IN_UNKNOWN: Final = 2
BACKINGS: Final = ("brk", "mmap", "unknown")
"""What a block lies in; the codes of the column `backing` are places here."""

DOUBLE_FREE: Final = 0
UNKNOWN_FREE: Final = 1
FREE_NOT_SEEN: Final = 2
MISNAMED: Final = 3
REASONS: Final = ("double_free", "unknown_free", "free_not_seen", "ltrace_misnamed_call")
"""What problems are called; the codes of the column `reason` are places here.

`double_free`: the block had been freed before (see `double_frees`). `unknown_free`: the log never saw the block handed
out, as is normal after an attach and for what the libc allocates itself. `free_not_seen`: malloc handed out a live
block.
`ltrace_misnamed_call`: ltrace 0.7.3 may have written a wrong name, so the line is not believed.
"""

_ADDRESS_BITS: Final = 48


class Blocks(Value):
    """The blocks of a run, and what of its frees fits none.

    columns: one row a block, sorted by `born_step`: those of the table `blocks`, besides `tid`; `given_step` and
        `taken_step`, the calls that gave and took it (`NULL`: none did); `inherited` (0/1): a forked child's copy.
        `size` is 0 where the log does not show it (strdup).
    problems: `step` and `reason`, sorted by step.
    frees: `step`, in order: the calls that gave a block back for good.
    """

    columns: PackedColumns
    problems: Columns
    frees: Columns

    def __len__(self) -> int:
        """Return the number of blocks."""
        return self.columns.rows

    @property
    def given_steps(self) -> Int64Array:
        """Return the calls that handed out a block."""
        given: Int64Array = self.columns["given_step"][self.columns["inherited"] == 0]
        return given

    @property
    def taken_steps(self) -> Int64Array:
        """Return the calls that gave a block back for good."""
        return self.frees["step"]

    @property
    def seen(self) -> bool:
        """Return whether the log shows any call of the malloc family that was believed."""
        return bool(len(self) or len(self.taken_steps))

    def count(self, reason: int) -> int:
        """Return the number of problems of a reason."""
        return int((self.problems["reason"] == reason).sum())


def find_blocks(replayed: Replay, nesting: Nesting) -> Blocks:
    """Return the blocks of a replayed run.

    A block that a program did not free ends with its space where an execve replaces that: `freed`, taken by no call.
    Blocks that were live when their process exited are `live`. A forked child has the blocks of its parent, born at
    the fork, as soon as it or a child of its own allocates or frees.
    """
    paired, unmatched = pair(replayed, nesting)
    frees = packed_columns(replayed.events.shelf, [("step", np.sort(unmatched.freed))])
    problems = _problems(nesting, unmatched)
    del unmatched
    return Blocks(_columns(replayed, nesting, paired), problems, frees)


# --- columns ---------------------------------------------------------------------------------------------------------


def _columns(replayed: Replay, nesting: Nesting, paired: Paired) -> PackedColumns:
    """Return the columns of the blocks, sorted by the step of birth."""
    events, spaces = replayed.events, replayed.spaces
    columns, born_step = PackedColumns(events.shelf), paired.given
    if paired.inherited.any():
        born_step = np.where(paired.inherited, spaces["born_step"][paired.space], born_step)
    order: Int64Array | slice = slice(None)
    if (born_step[1:] < born_step[:-1]).any():
        order = ascending_by(born_step, paired.space, paired.addr)
    columns.keep("born_step", born_step[order])
    del born_step
    columns.keep("inherited", paired.inherited[order].astype(np.int64))
    columns.keep("space", paired.space[order])
    columns.keep("addr", paired.addr[order])
    columns.keep("born_line", paired.born[order])
    given = paired.given[order]
    columns.keep("given_step", given)
    for name in ("call", "pid", "tid", "caller"):
        columns.keep(name, events.at(name, given))
    columns.keep("size", _sizes(events, nesting, given))
    del given
    columns.keep("taken_step", paired.taken[order])
    died = _ended_by_exec(paired, spaces)
    columns.keep("died_line", died[order])
    columns.keep("end", np.where(died == NULL, LIVE, np.where(paired.moved, MOVED, FREED))[order])
    columns.keep("died_step", _died_steps(events, paired.taken, died)[order])
    del died, paired
    columns.keep("backing", find_backing(replayed, columns))
    return columns


def _sizes(events: PackedColumns, nesting: Nesting, steps: Int64Array) -> Int64Array:
    """Return the bytes that steps asked for; for strdup those that the malloc inside asks for, 0 if not shown.

    More than an address space has room for no call was given: that is not believed, and 0 as well.
    """
    size = events.at("length", steps)
    asked = events.at("length", nesting.doubled)
    shown = np.flatnonzero((asked != NULL) & (events.at("length", nesting.outers) == NULL))
    if len(shown):
        outers, last = lasts(nesting.outers[shown])
        place = np.minimum(np.searchsorted(outers, steps), len(outers) - 1)
        size = np.where(outers[place] == steps, asked[shown[last]][place], size)
    size[(size < 0) | (size > HIGHEST)] = 0
    return size


def _ended_by_exec(paired: Paired, spaces: Columns) -> Int64Array:
    """Return the lines where the blocks ended; those of a replaced space end with it."""
    died = paired.died
    replaced = np.isin(spaces["ended_by"], (*EXEC_EVENTS, BRK))  # a new break tells of an execve that the log has not
    if not replaced.any():
        return died
    ends = np.where(replaced, spaces["died_line"], NULL)
    return np.where(died == NULL, ends[paired.space], died)


def _died_steps(events: PackedColumns, taker: Int64Array, died: Int64Array) -> Int64Array:
    """Return the first step at or after each death: the one that took the block, if it completed in the same line."""
    steps, split = taker.copy(), [np.zeros(0, dtype=np.int64)]
    for number in range(events.parts):
        part = events.part(number, ("entry_clock", "clock"))
        split.append(np.flatnonzero(part["entry_clock"] != part["clock"]) + events.starts[number])
    other = (died != NULL) & ((taker == NULL) | is_among(taker, np.concatenate(split)))
    if other.any():
        steps[other] = np.searchsorted(events["clock"], died[other], side="left")
    steps[(died == NULL) | (steps == events.rows)] = NULL
    return steps


# --- backing ---------------------------------------------------------------------------------------------------------


def find_backing(replayed: Replay, blocks: Columns) -> Int64Array:
    """Return what each block lies in: the brk area as it was at its birth, an anonymous mapping, or nothing known.

    Where an address was part of both at different times, the break at the block's birth decides.
    """
    space, addr = blocks["space"], blocks["addr"]
    if not len(addr):
        return addr
    kind = replayed.regions["kind"]
    areas, mappings = (_Spans.of(replayed.regions, kind == wanted) for wanted in (KIND_BRK, KIND_ANON))
    if not len(areas.start) and not len(mappings.start):
        return np.broadcast_to(np.int64(IN_UNKNOWN), len(addr))
    in_area, in_mapping = areas.cover(space, addr), mappings.cover(space, addr)
    brk = break_before(replayed, space, blocks["born_step"])
    in_area &= (brk == NULL) | (addr < brk)
    return np.where(in_area, IN_BRK, np.where(in_mapping, IN_MMAP, IN_UNKNOWN)).astype(np.int64)


def break_before(replayed: Replay, space: Int64Array, step: Int64Array) -> Int64Array:
    """Return the program break of each space before each step, `NULL` where no brk call of the space told it."""
    brks = replayed.brks
    told = brks["granted"] != NULL
    width = int(max(step.max(initial=0), brks["step"].max(initial=0))) + 1
    keys = brks["space"][told] * width + brks["step"][told]
    order = ascending(keys)
    keys, granted, owner = keys[order], brks["granted"][told][order], brks["space"][told][order]
    found = np.full(len(space), NULL, dtype=np.int64)
    if not len(keys):
        return found
    place = np.searchsorted(keys, space * width + step, side="left") - 1
    known = (place >= 0) & (owner[place] == space)
    found[known] = granted[place[known]]
    return found


class _Spans(Value):
    """Ranges `[start, end)` of addresses with the space in the high bits, sorted, no two touching."""

    start: Int64Array
    end: Int64Array

    @classmethod
    def of(cls, regions: Columns, chosen: Mask) -> _Spans:
        """Return what the chosen regions cover, at whatever time."""
        start, end = regions["start"], regions["end"]
        chosen = chosen & (start >= 0) & (end < 1 << _ADDRESS_BITS)
        base = regions["space"][chosen] << _ADDRESS_BITS
        start, end = start[chosen] | base, end[chosen] | base
        order = ascending(start)
        start, end = start[order], np.maximum.accumulate(end[order])
        if not len(start):
            return cls(start, end)
        fresh = np.append(True, start[1:] > end[:-1])
        last = np.append(np.flatnonzero(fresh)[1:] - 1, len(start) - 1)
        return cls(start[fresh], end[last])

    def cover(self, space: Int64Array, addr: Int64Array) -> Mask:
        """Return which addresses lie inside."""
        if not len(self.start):
            return np.zeros(len(addr), dtype=np.bool_)
        key = (space << _ADDRESS_BITS) | addr
        place = np.searchsorted(self.start, key, side="right") - 1
        inside: Mask = (place >= 0) & (key < self.end[place]) & (addr >= 0) & (addr < 1 << _ADDRESS_BITS)
        return inside


# --- problems --------------------------------------------------------------------------------------------------------


def _problems(nesting: Nesting, unmatched: UnmatchedFrees) -> Columns:
    """Return step and reason of each free that fits no block, block handed out twice, and line not believed."""
    steps = [unmatched.double, unmatched.unknown, unmatched.reused, nesting.misnamed_steps]
    reason = np.concatenate([np.full(len(part), code, dtype=np.int64) for code, part in enumerate(steps)])
    step = np.concatenate(steps)
    order = np.argsort(step, kind="stable")
    return {"step": step[order], "reason": reason[order]}


def note_problems(blocks: Blocks, events: Columns, strings: Strings, problems: Problems) -> None:
    """Add what fits no block to the problems of a run; beyond those that are kept, they are only counted.

    The line of a free is the one where it starts.
    """
    found, why = blocks.problems["step"], blocks.problems["reason"]
    for code, reason in enumerate(REASONS):
        steps = found[why == code]
        kept = steps[: problems.keep]
        if len(kept):
            lines = events["entry_line" if code in (DOUBLE_FREE, UNKNOWN_FREE) else "line"][kept]
            texts = call_texts(events, strings, kept)
            for line, text, file in zip(lines.tolist(), texts, events["file"][kept].tolist(), strict=True):
                problems.add(line, reason, text, file)
        if len(steps) > problems.keep:
            problems.counts[reason] += len(steps) - problems.keep


def call_texts(events: Columns, strings: Strings, steps: Int64Array) -> list[str]:
    """Return calls of the malloc family as ltrace writes them: `prog->realloc(0x55d0c0, 10) = 0x55d0e0`."""
    names = ("addr", "length", "result", "caller", "name", "call", "status")
    return [_call_text(strings, *row) for row in zip(*(events[name][steps].tolist() for name in names), strict=True)]


def _call_text(
    strings: Strings, addr: int, length: int, result: int, caller: int, name: int, call: int, status: int
) -> str:
    printed = strings[name] if name != NO_TEXT else CALLS[call]
    whose = f"{strings[caller]}->" if caller != NO_TEXT else ""
    arguments = [hex(to_unsigned(addr))] if addr != NULL else []
    arguments += [str(to_unsigned(length))] if length != NULL else []
    returned = " = " + (hex(to_unsigned(result)) if result != NULL else "<void>")
    if status == UNFINISHED:
        returned = " <unfinished ...>"
    return f"{whose}{printed}({', '.join(arguments)}){returned}"
