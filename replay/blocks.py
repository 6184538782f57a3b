"""The blocks of malloc as rectangles: addresses × time, from the call that gave each to the one that took it.

In go the replayed columns of a run and what its calls ran inside, out come the blocks and the frees that fit none.
Where in the heap a block lies and what lies between blocks is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.address_space import KIND_ANON, KIND_BRK
from replay.calls import OK, UNFINISHED
from replay.columns import NO_TEXT, NULL, Columns, Int64Array, Strings, to_unsigned
from replay.constants import CALLS
from replay.misfits import SecondFrees, are_double
from replay.nesting import FREEING, GIVING, Mask, Nesting, is_call
from replay.regions import Replay
from replay.source import Problems

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

`double_free`: the block had been freed before (see `misfits`). `unknown_free`: the log never saw the block handed out,
as is normal after an attach and for what the libc allocates itself. `free_not_seen`: malloc handed out a live block.
`ltrace_misnamed_call`: ltrace 0.7.3 may have written a wrong name, so the line is not believed.
"""

INHERITED_BUDGET: Final = 500_000
"""Inherited blocks of forked children that are rows of their own; past it, only those that a child touches are."""

_RESIZING: Final = ("realloc", "reallocarray")
_EXEC: Final = 1
_FORK: Final = 2
"""Codes of the column `origin` of the spaces."""

_ADDRESS_BITS: Final = 48


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a run, and what of its frees fits none.

    columns: one row a block, sorted by `born_step`: those of the table `blocks`, besides `tid`; `given_step` and
        `taken_step`, the calls that gave and took it (`NULL`: none did); `inherited` (0/1): a forked child's copy.
        `size` is 0 where the log does not show it (strdup).
    problems: `step` and `reason`, sorted by step.
    given_steps, taken_steps: the calls that handed out a block, and those that gave one back for good.
    """

    columns: Columns
    problems: Columns
    given_steps: Int64Array
    taken_steps: Int64Array

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.columns["addr"])

    def chosen(self, rows: Mask) -> Blocks:
        """Return the chosen blocks; what was given and taken stays."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Blocks(columns, self.problems, self.given_steps, self.taken_steps)

    @property
    def seen(self) -> bool:
        """Return whether the log shows any call of the malloc family that was believed."""
        return bool(len(self.given_steps) or len(self.taken_steps))

    def count(self, reason: int) -> int:
        """Return the number of problems of a reason."""
        return int((self.problems["reason"] == reason).sum())


def find_blocks(replayed: Replay, nesting: Nesting) -> Blocks:
    """Return the blocks of a replayed run.

    A block that a program did not free ends with its space where an execve replaces that: `freed`, taken by no call.
    Blocks that were live when their process exited are `live`. A forked child has the blocks of its parent, born at
    the fork, as soon as it or a child of its own allocates or frees.
    """
    operations = _operations(replayed.events, nesting)
    rows, faults = _Pairing(replayed, operations, nesting.misnamed_steps).run()
    taken = operations.source[(operations.kind == TAKE_FREE) & ~np.isin(np.arange(len(operations)), faults.double)]
    columns = _columns(replayed, nesting, operations, rows)
    return Blocks(
        columns,
        _problems(replayed.events, nesting, operations, faults),
        np.sort(operations.source[operations.kind == GIVE]),
        np.sort(taken),
    )


# --- what gives and what takes ---------------------------------------------------------------------------------------

GIVE: Final = 0
TAKE_FREE: Final = 1
TAKE_MOVE: Final = 2


@dataclass(frozen=True, slots=True)
class _Operations:
    """What is given and taken: kind, step, space, address and line of each, in the order of lines, takes first."""

    kind: Int64Array
    source: Int64Array
    space: Int64Array
    addr: Int64Array
    clock: Int64Array

    def __len__(self) -> int:
        return len(self.kind)


def _operations(events: Columns, nesting: Nesting) -> _Operations:
    """Return what the calls of the malloc family give and take.

    Memory is taken at the line where the call starts and given where it completes; what failed does neither. Realloc
    of NULL is malloc; to zero bytes with a null result it is free. A free that never returned has taken its block.
    """
    believed = ~nesting.misnamed & (nesting.outer_step == NULL)
    result, addr = events["result"], events["addr"]
    given = (result != 0) & (result != NULL)
    done = events["status"] == OK
    resizing = believed & is_call(events, _RESIZING) & done
    freeing = believed & is_call(events, FREEING)
    gives = np.flatnonzero(believed & is_call(events, GIVING) & done & given)
    takes = np.flatnonzero((freeing | resizing) & (addr != 0) & (addr != NULL))
    moves = resizing[takes] & given[takes]
    source = np.concatenate([takes, gives]).astype(np.int64)
    clock = np.concatenate([events["entry_clock"][takes], events["clock"][gives]])
    kind = np.concatenate([np.where(moves, TAKE_MOVE, TAKE_FREE), np.full(len(gives), GIVE)]).astype(np.int64)
    order = np.argsort(clock, kind="stable")
    source, kind = source[order], kind[order]
    block = np.where(kind == GIVE, result[source], addr[source])
    return _Operations(kind, source, events["space"][source], block, clock[order])


def by_address(space: Int64Array, addr: Int64Array) -> Int64Array:
    """Return the order of rows by space and address; equal ones stay as they are."""
    if not len(addr):
        return np.zeros(0, dtype=np.int64)
    plain = addr.min() >= 0 and addr.max() < 1 << _ADDRESS_BITS and space.min() >= 0 and space.max() < 1 << 15
    if plain:
        return np.argsort((space << _ADDRESS_BITS) | addr, kind="stable").astype(np.int64)
    return np.lexsort((addr, space)).astype(np.int64)


# --- pairing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Rows:
    """Blocks in pieces of one generation each: which operation gave and which took them, `-1` for none.

    `closer` is the operation that handed the same address out again without a free between. `heir_of` is the row that
    a forked child has its block from.
    """

    space: Int64Array
    addr: Int64Array
    giver: Int64Array
    taker: Int64Array
    closer: Int64Array
    born: Int64Array
    died: Int64Array
    heir_of: Int64Array


@dataclass(slots=True)
class _Faults:
    """Operations that fit no block."""

    double: Int64Array
    unknown: Int64Array
    reused: Int64Array


@dataclass(slots=True)
class _Pairing:
    """Pairs what was given with what took it, children after their parents, whose live blocks they start with."""

    replayed: Replay
    operations: _Operations
    misnamed_steps: Int64Array
    pieces: list[_Rows] = field(default_factory=list)
    faults: list[_Faults] = field(default_factory=list)
    rows_so_far: int = 0
    budget: int = field(default_factory=lambda: INHERITED_BUDGET)
    homes: dict[int, tuple[_Rows, int]] = field(default_factory=dict)

    def run(self) -> tuple[_Rows, _Faults]:
        """Return all blocks and all faults."""
        for spaces in self._generations():
            chosen = np.flatnonzero(np.isin(self.operations.space, spaces))
            inherited = [self._inherited(space, chosen) for space in spaces.tolist() if self._parent(space) != NULL]
            self._pair(chosen.astype(np.int64), inherited, spaces)
        return _stacked(self.pieces), _Faults(
            *(np.concatenate([getattr(f, name) for f in self.faults]) for name in ("double", "unknown", "reused"))
        )

    def _parent(self, space: int) -> int:
        """Return the space that `space` is a copy of, `NULL` for none."""
        spaces = self.replayed.spaces
        return int(spaces["parent"][space]) if spaces["origin"][space] == _FORK else NULL

    def _generations(self) -> Iterator[Int64Array]:
        """Yield the spaces that are copies of none, then their busy children, then those of these, and so on."""
        spaces = self.replayed.spaces
        numbers = spaces["space"]
        forked = (spaces["origin"] == _FORK) & (spaces["parent"] != NULL)
        yield numbers[~forked]
        if not forked.any():
            return
        busy = np.isin(numbers, self.operations.space)
        for child in numbers[forked][::-1].tolist():
            if busy[child]:
                busy[int(spaces["parent"][child])] = True
        depth = np.zeros(len(numbers), dtype=np.int64)
        for child in numbers[forked].tolist():
            depth[child] = depth[int(spaces["parent"][child])] + 1
        for level in range(1, int(depth.max()) + 1):
            yield numbers[forked & busy & (depth == level)]

    def _inherited(self, space: int, chosen: Int64Array) -> _Rows:
        """Return the blocks that a forked space begins with; past the budget, those that it touches."""
        parent, fork = self._parent(space), int(self.replayed.spaces["born_line"][space])
        piece, first = self.homes[parent]
        alive = (piece.born <= fork) & ((piece.died == NULL) | (piece.died > fork))
        rows = np.flatnonzero(alive & (piece.space == parent)).astype(np.int64)
        if len(rows) > self.budget:
            own = chosen[self.operations.space[chosen] == space]
            rows = rows[np.isin(piece.addr[rows], self.operations.addr[own])]
        self.budget -= len(rows)
        count = len(rows)
        nothing = np.full(count, -1, dtype=np.int64)
        born, died = np.full(count, fork, dtype=np.int64), np.full(count, NULL, dtype=np.int64)
        spaces = np.full(count, space, dtype=np.int64)
        return _Rows(spaces, piece.addr[rows], nothing, nothing, nothing, born, died, rows + first)

    def _pair(self, chosen: Int64Array, inherited: list[_Rows], spaces: Int64Array) -> None:
        """Pair the operations `chosen`, before which stand the `inherited` blocks; keep what comes out."""
        operations = self.operations
        heirs = _stacked(inherited)
        count = len(heirs.addr)
        place = np.concatenate([np.full(count, -1, dtype=np.int64), chosen])
        gives = np.concatenate([np.ones(count, dtype=np.bool_), operations.kind[chosen] == GIVE])
        space = np.concatenate([heirs.space, operations.space[chosen]])
        addr = np.concatenate([heirs.addr, operations.addr[chosen]])
        order = by_address(space, addr)
        same = _same_as_before(space[order], addr[order])
        follower = np.full(len(order), -1, dtype=np.int64)
        again = np.flatnonzero(same)
        follower[order[again - 1]] = place[order[again]]
        row = np.flatnonzero(gives)
        piece = self._rows(heirs, space[row], addr[row], place[row], follower[row])
        self.homes.update(dict.fromkeys(spaces.tolist(), (piece, self.rows_so_far)))
        self.rows_so_far += len(row)
        self.pieces.append(piece)
        double, unknown = self._misfits(place[order], gives[order], same)
        self.faults.append(_Faults(double, unknown, piece.closer[piece.closer >= 0]))

    def _rows(
        self, heirs: _Rows, space: Int64Array, addr: Int64Array, giver: Int64Array, follower: Int64Array
    ) -> _Rows:
        """Return the blocks, `heirs` first, from what gave each and what next did something to its address."""
        operations, count = self.operations, len(heirs.addr)
        ended = np.flatnonzero(follower >= 0)
        taken = np.zeros(len(addr), dtype=np.bool_)
        taken[ended] = operations.kind[follower[ended]] != GIVE
        died = np.full(len(addr), NULL, dtype=np.int64)
        died[ended] = operations.clock[follower[ended]]
        born = np.concatenate([heirs.born, operations.clock[giver[count:]]])
        heir_of = np.concatenate([heirs.heir_of, np.full(len(addr) - count, -1, dtype=np.int64)])
        taker, closer = np.where(taken, follower, -1), np.where(taken, -1, follower)
        return _Rows(space, addr, giver, taker, closer, born, died, heir_of)

    def _misfits(self, place: Int64Array, gives: Mask, same: Mask) -> tuple[Int64Array, Int64Array]:
        """Return the takes that are double frees, and the takes of blocks never seen, from operations by address."""
        given_before: Int64Array = np.cumsum(gives) - gives
        start = np.maximum.accumulate(np.where(same, 0, np.arange(len(same)))) if len(same) else place[:0]
        known: Mask = given_before > given_before[start]
        misfit = ~gives & ~(same & np.append(False, gives[:-1]))
        unknown = place[misfit & ~known]
        again = np.flatnonzero(misfit & known)
        if not len(again):
            return place[:0], unknown
        operations = self.operations
        frees = SecondFrees(
            steps=operations.source[place[again]],
            earlier=operations.source[place[again - 1]],
            repeated=np.bincount(start[misfit], minlength=len(start))[start[again]] > 1,
            handed_out_twice=_followed_by_two_gives(again, gives, same),
            strangers=np.isin(operations.space[place[again]], operations.space[unknown]),
        )
        double = are_double(self.replayed.events, self.misnamed_steps, frees)
        return place[again[double]], np.concatenate([unknown, place[again[~double]]])


def _followed_by_two_gives(rows: Int64Array, gives: Mask, same: Mask) -> Mask:
    """Return after which of the rows the next two, of the same address, give."""
    more = np.append(gives & same, [False, False])
    twice: Mask = more[rows + 1] & more[rows + 2]
    return twice


def _same_as_before(space: Int64Array, addr: Int64Array) -> Mask:
    """Return for each row whether it has the space and the address of the one before."""
    same = np.zeros(len(addr), dtype=np.bool_)
    same[1:] = (space[1:] == space[:-1]) & (addr[1:] == addr[:-1])
    return same


def _stacked(pieces: list[_Rows]) -> _Rows:
    """Return several pieces as one."""
    empty = np.zeros(0, dtype=np.int64)
    return _Rows(*(np.concatenate([empty, *(getattr(piece, name) for piece in pieces)]) for name in _Rows.__slots__))


# --- columns ---------------------------------------------------------------------------------------------------------


def _columns(replayed: Replay, nesting: Nesting, operations: _Operations, rows: _Rows) -> Columns:
    """Return the columns of the blocks, sorted by the step of birth."""
    events, spaces = replayed.events, replayed.spaces
    origin = _origins(rows)
    step = operations.source[rows.giver[origin]]
    inherited = rows.heir_of >= 0
    born_step = np.where(inherited, spaces["born_step"][rows.space], step)
    taker = np.where(rows.taker >= 0, operations.source[rows.taker], NULL)
    taken_kind = np.where(rows.taker >= 0, operations.kind[rows.taker], GIVE) if len(operations) else rows.taker
    ended = rows.died != NULL
    end = np.where(taken_kind == TAKE_MOVE, MOVED, np.where(ended, FREED, LIVE))
    died = _ended_by_exec(rows, spaces)
    end = np.where((died != NULL) & (end == LIVE), FREED, end)
    columns = {
        "space": rows.space,
        "addr": rows.addr,
        "size": _sizes(events, nesting)[step],
        "call": events["call"][step],
        "pid": events["pid"][step],
        "tid": events["tid"][step],
        "caller": events["caller"][step],
        "born_step": born_step,
        "died_step": _died_steps(events, taker, died),
        "born_line": rows.born,
        "died_line": died,
        "end": end,
        "taken_step": taker,
        "given_step": step,
        "inherited": inherited.astype(np.int64),
    }
    if (born_step[1:] < born_step[:-1]).any():
        order = np.lexsort((rows.addr, rows.space, born_step))
        columns = {name: column[order] for name, column in columns.items()}
    columns["backing"] = find_backing(replayed, columns)
    return columns


def _origins(rows: _Rows) -> Int64Array:
    """Return for each row the one in which the block was handed out: its own, or that of an ancestor."""
    origin = np.arange(len(rows.addr), dtype=np.int64)
    while (rows.heir_of[origin] >= 0).any():
        origin = np.where(rows.heir_of[origin] >= 0, rows.heir_of[origin], origin)
    return origin


def _sizes(events: Columns, nesting: Nesting) -> Int64Array:
    """Return for each event the bytes asked for; for strdup those that the malloc inside asks for, 0 if not shown."""
    size = events["length"].copy()
    inner = np.flatnonzero((nesting.outer_step != NULL) & (size != NULL) & ~nesting.misnamed)
    outer = nesting.outer_step[inner]
    unsaid = size[outer] == NULL
    size[outer[unsaid]] = size[inner[unsaid]]
    size[size == NULL] = 0
    return size


def _ended_by_exec(rows: _Rows, spaces: Columns) -> Int64Array:
    """Return the lines where the blocks ended; those of a replaced space end with it."""
    died = rows.died.copy()
    executed = np.flatnonzero((spaces["origin"] == _EXEC) & (spaces["parent"] != NULL))
    replaced = spaces["parent"][executed]
    executed = executed[spaces["died_line"][replaced] == spaces["born_line"][executed]]
    if not len(executed):
        return died
    ends = np.full(len(spaces["space"]), NULL, dtype=np.int64)
    ends[spaces["parent"][executed]] = spaces["born_line"][executed]
    return np.where(died == NULL, ends[rows.space], died)


def _died_steps(events: Columns, taker: Int64Array, died: Int64Array) -> Int64Array:
    """Return the first step at or after each death: mostly the one that took the block."""
    clocks = events["clock"]
    steps = taker.copy()
    other = taker == NULL
    other[~other] = clocks[taker[~other]] != died[~other]
    steps[other] = np.searchsorted(clocks, died[other], side="left")
    steps[(died == NULL) | (steps == len(clocks))] = NULL
    return steps


# --- backing ---------------------------------------------------------------------------------------------------------


def find_backing(replayed: Replay, blocks: Columns) -> Int64Array:
    """Return what each block lies in: the brk area as it was at its birth, an anonymous mapping, or nothing known.

    Where an address was part of both at different times, the break at the block's birth decides.
    """
    space, addr = blocks["space"], blocks["addr"]
    regions = replayed.regions
    in_area = _Spans.of(regions, regions["kind"] == KIND_BRK).cover(space, addr)
    in_mapping = _Spans.of(regions, regions["kind"] == KIND_ANON).cover(space, addr)
    brk = break_before(replayed, space, blocks["born_step"])
    in_area &= (brk == NULL) | (addr < brk)
    return np.where(in_area, IN_BRK, np.where(in_mapping, IN_MMAP, IN_UNKNOWN)).astype(np.int64)


def break_before(replayed: Replay, space: Int64Array, step: Int64Array) -> Int64Array:
    """Return the program break of each space before each step, `NULL` where no brk call of the space told it."""
    brks = replayed.brks
    told = brks["granted"] != NULL
    width = len(replayed.events["call"]) + 1
    keys = brks["space"][told] * width + brks["step"][told]
    order = np.argsort(keys, kind="stable")
    keys, granted, owner = keys[order], brks["granted"][told][order], brks["space"][told][order]
    found = np.full(len(space), NULL, dtype=np.int64)
    if not len(keys):
        return found
    place = np.searchsorted(keys, space * width + step, side="left") - 1
    known = (place >= 0) & (owner[place] == space)
    found[known] = granted[place[known]]
    return found


@dataclass(frozen=True, slots=True)
class _Spans:
    """Ranges `[start, end)` of addresses with the space in the high bits, sorted, no two touching."""

    start: Int64Array
    end: Int64Array

    @classmethod
    def of(cls, regions: Columns, chosen: Mask) -> _Spans:
        """Return what the chosen regions cover, at whatever time."""
        chosen = chosen & (regions["start"] >= 0) & (regions["end"] < 1 << _ADDRESS_BITS)
        base = regions["space"][chosen] << _ADDRESS_BITS
        start, end = regions["start"][chosen] | base, regions["end"][chosen] | base
        order = np.argsort(start, kind="stable")
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


# --- how much is live -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiveCount:
    """How many blocks and bytes are live at any line: births and deaths, sorted, with running sums of bytes.

    The keys are lines with the number of the space (or 0 for all spaces together) times `width` added.
    """

    births: Int64Array
    birth_bytes: Int64Array
    deaths: Int64Array
    death_bytes: Int64Array
    width: int

    @classmethod
    def of(cls, blocks: Blocks, last_line: int, spaces: Columns | None = None) -> LiveCount:
        """Return the counts of each space; if `spaces` are given, of all together, a space's blocks ending with it."""
        columns = blocks.columns
        width = last_line + 2
        space, died = columns["space"], columns["died_line"]
        if spaces is not None:
            died = np.where(died == NULL, spaces["died_line"][space], died)
            space = np.zeros_like(space)
        ended = died != NULL
        births, deaths = space * width + columns["born_line"], space[ended] * width + died[ended]
        first, last = np.argsort(births, kind="stable"), np.argsort(deaths, kind="stable")
        return cls(
            births[first],
            np.append(0, np.cumsum(columns["size"][first])),
            deaths[last],
            np.append(0, np.cumsum(columns["size"][ended][last])),
            width,
        )

    def at(self, space: Int64Array, line: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return how many blocks, and how many bytes of them, are live in each space once each line was printed."""
        key = space * self.width + line
        first = space * self.width - 1
        born, died = (np.searchsorted(keys, key, side="right") for keys in (self.births, self.deaths))
        before, gone = (np.searchsorted(keys, first, side="right") for keys in (self.births, self.deaths))
        count = (born - before) - (died - gone)
        size = self.birth_bytes[born] - self.birth_bytes[before] - self.death_bytes[died] + self.death_bytes[gone]
        return count.astype(np.int64), size

    def peak(self) -> tuple[int, int, int]:
        """Return the most bytes live at once, the blocks live then, and the first line of that; zeros for no blocks."""
        if not len(self.births):
            return 0, 0, 0
        born = np.arange(1, len(self.births) + 1)
        died = np.searchsorted(self.deaths, self.births, side="right")
        size = self.birth_bytes[born] - self.death_bytes[died]
        place = int(np.argmax(size))
        return int(size[place]), int(born[place] - died[place]), int(self.births[place] % self.width)


# --- problems --------------------------------------------------------------------------------------------------------


def _problems(events: Columns, nesting: Nesting, operations: _Operations, faults: _Faults) -> Columns:
    """Return step and reason of each free that fits no block, block handed out twice, and line not believed."""
    steps = [operations.source[places] for places in (faults.double, faults.unknown, faults.reused)]
    steps.append(nesting.misnamed_steps)
    reason = np.concatenate([np.full(len(part), code, dtype=np.int64) for code, part in enumerate(steps)])
    step = np.concatenate(steps)
    order = np.argsort(step, kind="stable")
    return {"step": step[order], "reason": reason[order]}


def note_problems(blocks: Blocks, events: Columns, strings: Strings, problems: Problems) -> None:
    """Add what fits no block to the problems of a run; beyond those that are kept, they are only counted.

    The line of a free is the one where it starts.
    """
    for code, reason in enumerate(REASONS):
        steps = blocks.problems["step"][blocks.problems["reason"] == code]
        for step in steps[: problems.keep].tolist():
            line = int(events["entry_line" if code in (DOUBLE_FREE, UNKNOWN_FREE) else "line"][step])
            problems.add(line, reason, call_text(events, strings, step), int(events["file"][step]))
        if len(steps) > problems.keep:
            problems.counts[reason] += len(steps) - problems.keep


def call_text(events: Columns, strings: Strings, step: int) -> str:
    """Return a call of the malloc family as ltrace writes it: `prog->realloc(0x55d0c0, 10) = 0x55d0e0`."""
    values = {key: int(events[key][step]) for key in ("addr", "length", "result", "caller", "name", "call")}
    name = strings[values["name"]] if values["name"] != NO_TEXT else CALLS[values["call"]]
    caller = f"{strings[values['caller']]}->" if values["caller"] != NO_TEXT else ""
    arguments = [hex(to_unsigned(values["addr"]))] if values["addr"] != NULL else []
    arguments += [str(to_unsigned(values["length"]))] if values["length"] != NULL else []
    result = " = " + (hex(to_unsigned(values["result"])) if values["result"] != NULL else "<void>")
    if events["status"][step] == UNFINISHED:
        result = " <unfinished ...>"
    return f"{caller}{name}({', '.join(arguments)}){result}"
