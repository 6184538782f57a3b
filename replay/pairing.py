"""Which call of the malloc family took what another one gave: operations on addresses, paired.

In go the replayed columns of a run and what its calls ran inside, out come blocks, each with what gave it and what next
did something to its address, and the operations that fit no block. What the table of blocks holds is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls import OK
from replay.columns import NULL, Columns, Int64Array
from replay.constants import CALL_CODE
from replay.misfits import SecondFrees, are_double
from replay.nesting import FREEING, GIVING, Mask, Nesting
from replay.ordering import ascending, ascending_by
from replay.regions import Replay

GIVE: Final = 0
TAKE_FREE: Final = 1
TAKE_MOVE: Final = 2
"""Kinds of operations: what frees for good, and what resizes."""

INHERITED_BUDGET: Final = 500_000
"""Inherited blocks of forked children that are rows of their own; past it, only those that a child touches are."""

_RESIZING: Final = ("realloc", "reallocarray")
_FORK: Final = 2
"""Code of the column `origin` of the spaces."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What is given and taken: kind, step, space, address and line of each, in the order of lines, takes first."""

    kind: NDArray[np.int8]
    source: Int64Array
    space: Int64Array
    addr: Int64Array
    clock: Int64Array

    def __len__(self) -> int:
        """Return the number of operations."""
        return len(self.kind)


@dataclass(slots=True)
class Paired:
    """Blocks: the operation that gave each, and the one that next did something to its address; `-1` for none.

    That one took it, or handed the same address out again without a free between. `born` and `died` are lines.
    `heir_of` is the row that a forked child has its block from.
    """

    space: Int64Array
    addr: Int64Array
    giver: Int64Array
    follower: Int64Array
    born: Int64Array
    died: Int64Array
    heir_of: Int64Array


@dataclass(slots=True)
class Faults:
    """Operations that fit no block: second frees, frees of blocks never seen, and what handed out a live block."""

    double: Int64Array
    unknown: Int64Array
    reused: Int64Array


def pair(replayed: Replay, nesting: Nesting) -> tuple[Operations, Paired, Faults]:
    """Return what the calls of the malloc family give and take, the blocks that come of it, and what fits none."""
    operations = _operations(replayed.events, nesting)
    paired, faults = _Pairing(replayed, operations, nesting.misnamed_steps).run()
    return operations, paired, faults


# --- what gives and what takes ---------------------------------------------------------------------------------------

_GIVES: Final = 1
_FREES: Final = 2
_RESIZES: Final = 4
"""What a call may do to blocks, as bits."""


def _operations(events: Columns, nesting: Nesting) -> Operations:
    """Return what the calls of the malloc family give and take.

    Memory is taken at the line where the call starts and given where it completes; what failed does neither. Realloc
    of NULL is malloc; to zero bytes with a null result it is free. A free that never returned has taken its block.
    """
    roles = _roles(events["call"])
    roles[nesting.doubled] = roles[nesting.misnamed_steps] = 0
    roles[events["status"] != OK] &= _FREES
    result, addr = events["result"], events["addr"]
    given = (result != 0) & (result != NULL)
    deeds = np.empty((len(roles), 2), dtype=np.bool_)
    deeds[:, 0] = (roles & (_FREES | _RESIZES) != 0) & (addr != 0) & (addr != NULL)
    deeds[:, 1] = (roles & _GIVES != 0) & given
    place = np.flatnonzero(deeds.ravel()).astype(np.int64, copy=False)
    source, gives = place >> 1, (place & 1).astype(np.bool_)
    del place, deeds
    moves = (roles & _RESIZES != 0) & given
    kind = np.where(moves[source], np.int8(TAKE_MOVE), np.int8(TAKE_FREE))
    kind[gives] = GIVE
    block, clock, space = addr[source], events["entry_clock"][source], events["space"]
    block[gives] = result[source[gives]]
    clock[gives] = events["clock"][source[gives]]
    one = bool(len(space) and (space == space[0]).all())
    space = np.broadcast_to(space[0], len(source)) if one else space[source]
    if (clock[1:] >= clock[:-1]).all():
        return Operations(kind, source, space, block, clock)
    order = ascending(clock * 2 + gives)
    return Operations(kind[order], source[order], space[order], block[order], clock[order])


def _roles(call: Int64Array) -> NDArray[np.uint8]:
    """Return for each event what its call may do to blocks."""
    # One place more than there are calls: a call without a code, -1, finds nothing there.
    roles = np.zeros(max(len(CALL_CODE), int(call.max(initial=0)) + 1) + 1, dtype=np.uint8)
    for names, role in ((GIVING, _GIVES), (FREEING, _FREES), (_RESIZING, _RESIZES)):
        roles[[CALL_CODE[name] for name in names]] |= role
    return roles[call]


# --- pairing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Pairing:
    """Pairs what was given with what took it, children after their parents, whose live blocks they start with."""

    replayed: Replay
    operations: Operations
    misnamed_steps: Int64Array
    pieces: list[Paired] = field(default_factory=list)
    faults: list[Faults] = field(default_factory=list)
    rows_so_far: int = 0
    budget: int = field(default_factory=lambda: INHERITED_BUDGET)
    homes: dict[int, tuple[Paired, int]] = field(default_factory=dict)

    def run(self) -> tuple[Paired, Faults]:
        """Return all blocks and all faults."""
        for spaces in self._generations():
            if len(spaces) == len(self.replayed.spaces["space"]):
                chosen = np.arange(len(self.operations), dtype=np.int64)
            else:
                chosen = np.flatnonzero(np.isin(self.operations.space, spaces)).astype(np.int64, copy=False)
            inherited = [self._inherited(space, chosen) for space in spaces.tolist() if self._parent(space) != NULL]
            self._pair(chosen, inherited, spaces)
        return _stacked(self.pieces), Faults(
            *(np.concatenate([getattr(f, name) for f in self.faults]) for name in ("double", "unknown", "reused"))
        )

    def _parent(self, space: int) -> int:
        """Return the space that `space` is a copy of, `NULL` for none."""
        spaces = self.replayed.spaces
        return int(spaces["parent"][space]) if spaces["origin"][space] == _FORK else NULL

    def _generations(self) -> Iterator[Int64Array]:
        """Yield the spaces that are copies of none, then their busy children, then those of these, and so on."""
        spaces = self.replayed.spaces
        numbers, parents = spaces["space"], spaces["parent"]
        forked = (spaces["origin"] == _FORK) & (parents != NULL)
        yield numbers[~forked]
        if not forked.any():
            return
        busy = np.isin(numbers, self.operations.space)
        for child in numbers[forked][::-1].tolist():
            if busy[child]:
                busy[int(parents[child])] = True
        depth = np.zeros(len(numbers), dtype=np.int64)
        for child in numbers[forked].tolist():
            depth[child] = depth[int(parents[child])] + 1
        for level in range(1, int(depth.max()) + 1):
            yield numbers[forked & busy & (depth == level)]

    def _inherited(self, space: int, chosen: Int64Array) -> Paired:
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
        return Paired(np.full(count, space), piece.addr[rows], nothing, nothing, born, died, rows + first)

    def _pair(self, chosen: Int64Array, inherited: list[Paired], spaces: Int64Array) -> None:
        """Pair the operations `chosen`, before which stand the `inherited` blocks; keep what comes out."""
        operations = self.operations
        place, gives, space, addr = chosen, operations.kind == GIVE, operations.space, operations.addr
        if len(chosen) < len(operations):
            gives, space, addr = gives[chosen], space[chosen], addr[chosen]
        heirs = _stacked(inherited)
        if len(heirs.addr):
            place = np.concatenate([heirs.giver, place])
            gives = np.concatenate([np.ones(len(heirs.addr), dtype=np.bool_), gives])
            space, addr = np.concatenate([heirs.space, space]), np.concatenate([heirs.addr, addr])
        order = ascending_by(space, addr)
        same = _same_as_before(space, addr, order)
        row = np.flatnonzero(gives)
        follower = np.full(len(order), -1, dtype=np.int64)
        again = np.flatnonzero(same)
        follower[order[again - 1]] = place[order[again]]
        piece = self._blocks(heirs, space[row], addr[row], place[row], follower[row])
        del space, addr, row, follower, again
        self.homes.update(dict.fromkeys(spaces.tolist(), (piece, self.rows_so_far)))
        self.rows_so_far += len(piece.addr)
        self.pieces.append(piece)
        double, unknown = self._misfits(place, order, gives[order], same)
        followed = piece.follower[piece.follower >= 0]
        self.faults.append(Faults(double, unknown, followed[operations.kind[followed] == GIVE]))

    def _blocks(
        self, heirs: Paired, space: Int64Array, addr: Int64Array, giver: Int64Array, follower: Int64Array
    ) -> Paired:
        """Return the blocks, `heirs` first, from what gave each and what next did something to its address."""
        clock, count = self.operations.clock, len(heirs.addr)
        died = np.full(len(addr), NULL, dtype=np.int64)
        ended = np.flatnonzero(follower >= 0)
        died[ended] = clock[follower[ended]]
        if not count:
            return Paired(space, addr, giver, follower, clock[giver], died, np.broadcast_to(np.int64(-1), len(addr)))
        born = np.concatenate([heirs.born, clock[giver[count:]]])
        heir_of = np.concatenate([heirs.heir_of, np.full(len(addr) - count, -1, dtype=np.int64)])
        return Paired(space, addr, giver, follower, born, died, heir_of)

    def _misfits(self, place: Int64Array, order: Int64Array, gives: Mask, same: Mask) -> tuple[Int64Array, Int64Array]:
        """Return the takes that are double frees, and the takes of blocks never seen.

        `gives` and `same` are of operations by address, and `place[order]` is where these stand.
        """
        fitting = gives.copy()
        fitting[1:] |= same[1:] & gives[:-1]
        misfit = np.flatnonzero(~fitting)
        if not len(misfit):
            return place[:0], place[:0]
        first = np.flatnonzero(~same)
        start = first[np.searchsorted(first, misfit, side="right") - 1]
        given = np.cumsum(gives, dtype=np.int64)
        known: Mask = given[misfit] > given[start] - gives[start]
        unknown, again, start_again = place[order[misfit[~known]]], misfit[known], start[known]
        if not len(again):
            return place[:0], unknown
        operations = self.operations
        repeated = np.searchsorted(start, start_again, side="right") - np.searchsorted(start, start_again) > 1
        steps = place[order[again]]
        frees = SecondFrees(
            steps=operations.source[steps],
            earlier=operations.source[place[order[again - 1]]],
            repeated=repeated,
            handed_out_twice=_followed_by_two_gives(again, gives, same),
            strangers=np.isin(operations.space[steps], operations.space[unknown]),
        )
        double = are_double(self.replayed.events, self.misnamed_steps, frees)
        return steps[double], np.concatenate([unknown, steps[~double]])


def _followed_by_two_gives(rows: Int64Array, gives: Mask, same: Mask) -> Mask:
    """Return after which of the rows the next two, of the same address, give."""
    more = np.append(gives & same, [False, False])
    twice: Mask = more[rows + 1] & more[rows + 2]
    return twice


def _same_as_before(space: Int64Array, addr: Int64Array, order: Int64Array) -> Mask:
    """Return for each row, taken in `order`, whether it has the space and the address of the one before."""
    same = np.zeros(len(order), dtype=np.bool_)
    ordered = addr[order]
    same[1:] = ordered[1:] == ordered[:-1]
    if len(space) and not (space == space[0]).all():
        ordered = space[order]
        same[1:] &= ordered[1:] == ordered[:-1]
    return same


def _stacked(pieces: list[Paired]) -> Paired:
    """Return several pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    empty = np.zeros(0, dtype=np.int64)
    return Paired(*(np.concatenate([empty, *(getattr(piece, name) for piece in pieces)]) for name in Paired.__slots__))
