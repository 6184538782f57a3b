"""Which call of the malloc family took what another one gave: operations on addresses, paired.

In go the replayed columns of a run and what its calls ran inside, out come blocks, each with what gave and what took
it, and the calls that fit no block. What the table of blocks holds is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.calls.enclosing import FREEING, GIVING, Nesting
from replay.calls.reader import OK
from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import ascending, ascending_by
from replay.engine.structs import Struct, field
from replay.heap.double_frees import RepeatedFrees, are_double, of_ending_thread
from replay.linux.constants import CALL_CODE
from replay.mm.fields import HIGHEST
from replay.spaces.replay import Replay

GIVE: Final = 0
TAKE_FREE: Final = 1
TAKE_MOVE: Final = 2
"""Kinds of operations; takes are frees for good, and resizings."""

INHERITED_BUDGET: Final = 500_000
"""Inherited blocks of forked children that are rows of their own; past it, only those that a child touches are."""

_RESIZING: Final = ("realloc", "reallocarray")
_FORK: Final = 2
"""Code of the column `origin` of the spaces."""


class Paired(Struct):
    """Blocks: the steps that gave and took each (`NULL`: none did), whether to move it, and the lines of its life.

    What is not taken may still have died: its address was handed out again. `inherited` are copies of forked children.
    """

    space: Int64Array
    addr: Int64Array
    given: Int64Array
    taken: Int64Array
    moved: Mask
    born: Int64Array
    died: Int64Array
    inherited: Mask


class UnmatchedFrees(Struct):
    """Steps that fit no block: second frees, frees of blocks never seen, and what handed out a live block.

    `freed` are those that gave a block back for good, second frees not among them.
    """

    double: Int64Array
    unknown: Int64Array
    reused: Int64Array
    freed: Int64Array


def pair(replayed: Replay, nesting: Nesting) -> tuple[Paired, UnmatchedFrees]:
    """Return the blocks that the calls of the malloc family give and take, and the calls that fit none."""
    pairing = _Pairing(replayed, _operations(replayed.events, nesting), nesting.misnamed_steps)
    return pairing.run()


# --- what gives and what takes ---------------------------------------------------------------------------------------

_GIVES: Final = 1
_FREES: Final = 2
_RESIZES: Final = 4
"""What a call may do to blocks, as bits."""


class _Operations(NamedTuple):
    """What is given and taken: kind, step, space, address and line of each, in the order of lines, takes first."""

    kind: NDArray[np.int8]
    source: Int64Array
    space: Int64Array
    addr: Int64Array
    clock: Int64Array


_NOTHING: Final = np.zeros(0, dtype=np.int64)
_NO_OPERATIONS: Final = _Operations(_NOTHING.astype(np.int8), _NOTHING, _NOTHING, _NOTHING, _NOTHING)


def _operations(events: PackedColumns, nesting: Nesting) -> _Operations:
    """Return what the calls of the malloc family give and take.

    Memory is taken at the line where the call starts and given where it completes; what failed does neither. Realloc
    of NULL is malloc; to zero bytes with a null result it is free. A free that never returned has taken its block.
    """
    parts = [_NO_OPERATIONS]
    for number in range(events.parts):
        roles = _roles(events.part(number, ["call"])["call"])
        for steps in (nesting.doubled, nesting.misnamed_steps):
            first, last = np.searchsorted(steps, events.starts[number : number + 2])
            roles[steps[first:last] - events.starts[number]] = 0
        if roles.any():
            parts.append(_operations_of(events.part(number, _OF_OPERATIONS), roles, events.starts[number]))
    operations = _Operations._make(np.concatenate(columns) for columns in zip(*parts, strict=True))
    clock, space = operations.clock, operations.space
    if len(space) and (space == space[0]).all():
        operations = operations._replace(space=np.broadcast_to(space[0], len(space)))
    if (clock[1:] >= clock[:-1]).all():
        return operations
    order = ascending(clock * 2 + (operations.kind == GIVE))
    return _Operations._make(column[order] for column in operations)


_OF_OPERATIONS: Final = ("status", "result", "addr", "space", "entry_clock", "clock")


def _operations_of(part: Columns, roles: NDArray[np.uint8], first_step: int) -> _Operations:
    """Return what the calls of a part do, by step; a take has the line where its call starts, a give where it ends."""
    roles[part["status"] != OK] &= _FREES
    result, addr = part["result"], part["addr"]
    given = (result > 0) & (result < HIGHEST)  # nothing is handed out where no user can map
    deeds = np.empty((len(roles), 2), dtype=np.bool_)
    deeds[:, 0] = (roles & (_FREES | _RESIZES) != 0) & (addr > 0) & (addr < HIGHEST)
    deeds[:, 1] = (roles & _GIVES != 0) & given
    place = np.flatnonzero(deeds.ravel()).astype(np.int64, copy=False)
    row, gives = place >> 1, (place & 1).astype(np.bool_)
    moves = (roles & _RESIZES != 0) & given
    kind = np.where(moves[row], np.int8(TAKE_MOVE), np.int8(TAKE_FREE))
    kind[gives] = GIVE
    block = np.where(gives, result[row], addr[row])
    clock = np.where(gives, part["clock"][row], part["entry_clock"][row])
    return _Operations(kind, row + first_step, part["space"][row], block, clock)


def _roles(call: Int64Array) -> NDArray[np.uint8]:
    """Return for each event what its call may do to blocks."""
    # One place more than there are calls: a call without a code, -1, finds nothing there.
    roles = np.zeros(max(len(CALL_CODE), int(call.max(initial=0)) + 1) + 1, dtype=np.uint8)
    for names, role in ((GIVING, _GIVES), (FREEING, _FREES), (_RESIZING, _RESIZES)):
        roles[[CALL_CODE[name] for name in names]] |= role
    return roles[call]


# --- pairing ---------------------------------------------------------------------------------------------------------


class _Pairing(Struct):
    """Pairs what was given with what took it, children after their parents, whose live blocks they start with."""

    replayed: Replay
    operations: _Operations
    misnamed_steps: Int64Array
    pieces: list[Paired] = field(default_factory=list)
    unmatched: list[UnmatchedFrees] = field(default_factory=list)
    budget: int = field(default_factory=lambda: INHERITED_BUDGET)
    homes: dict[int, Paired] = field(default_factory=dict)

    def run(self) -> tuple[Paired, UnmatchedFrees]:
        """Return all blocks and all that fits none."""
        for spaces in self._generations():
            chosen = None
            if len(spaces) < len(self.replayed.spaces["space"]):
                chosen = np.flatnonzero(np.isin(self.operations.space, spaces)).astype(np.int64, copy=False)
            inherited = [self._inherited(space, chosen) for space in spaces.tolist() if self._parent(space) != NULL]
            piece = self._pair(chosen, _stacked(inherited))
            self.homes.update(dict.fromkeys(spaces.tolist(), piece))
            self.pieces.append(piece)
        return _stacked(self.pieces), UnmatchedFrees(
            *(
                np.concatenate([getattr(part, name) for part in self.unmatched])
                for name in UnmatchedFrees.__annotations__
            )
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

    def _inherited(self, space: int, chosen: Int64Array | None) -> Paired:
        """Return the blocks that a forked space begins with; past the budget, those that it touches."""
        parent, fork = self._parent(space), int(self.replayed.spaces["born_line"][space])
        piece = self.homes[parent]
        alive = (piece.born <= fork) & ((piece.died == NULL) | (piece.died > fork))
        rows = np.flatnonzero(alive & (piece.space == parent))
        if len(rows) > self.budget:
            own = self.operations.addr[self.operations.space == space]
            rows = rows[np.isin(piece.addr[rows], own)]
        self.budget -= len(rows)
        count = len(rows)
        nothing, spaces = np.full(count, NULL, dtype=np.int64), np.full(count, space, dtype=np.int64)
        born, no, yes = np.full(count, fork, dtype=np.int64), np.zeros(count, np.bool_), np.ones(count, np.bool_)
        return Paired(spaces, piece.addr[rows], piece.given[rows], nothing, no, born, nothing, yes)

    def _pair(self, chosen: Int64Array | None, heirs: Paired) -> Paired:
        """Return the blocks of the operations `chosen` (`None`: all), behind the `heirs`; keep what is unmatched."""
        operations, count = self.operations, len(heirs.addr)
        gives, space, addr = operations.kind == GIVE, operations.space, operations.addr
        if chosen is not None:
            gives, space, addr = gives[chosen], space[chosen], addr[chosen]
        if count:
            chosen = np.arange(len(gives)) if chosen is None else chosen
            chosen = np.concatenate([np.full(count, -1, dtype=np.int64), chosen])
            gives = np.concatenate([np.ones(count, dtype=np.bool_), gives])
            space, addr = np.concatenate([heirs.space, space]), np.concatenate([heirs.addr, addr])
        order = ascending_by(space, addr)
        same = _same_as_before(space, addr, order)
        place = order if chosen is None else chosen[order]
        follower = np.full(len(order), -1, dtype=np.int64)
        follower[order[:-1][same[1:]]] = place[1:][same[1:]]
        self._keep_unmatched(place, gives[order], same)
        del order, same, place
        giver = np.flatnonzero(gives) if chosen is None else chosen[gives]
        return self._blocks(heirs, space[gives], addr[gives], giver, follower[gives])

    def _blocks(
        self, heirs: Paired, space: Int64Array, addr: Int64Array, giver: Int64Array, follower: Int64Array
    ) -> Paired:
        """Return the blocks, `heirs` first, from what gave each and what next did something to its address."""
        kind, source, clock = self.operations.kind, self.operations.source, self.operations.clock
        count = len(heirs.addr)
        given, born = source[giver[count:]], clock[giver[count:]]
        if count:
            given, born = np.concatenate([heirs.given, given]), np.concatenate([heirs.born, born])
        ended = np.flatnonzero(follower >= 0)
        follower = follower[ended]
        ends, steps = kind[follower], source[follower]
        died, taken = (np.full(len(addr), NULL, dtype=np.int64) for _ in range(2))
        # A line of a child may stand before the fork that made it, and with it the blocks that it was born with.
        died[ended] = np.maximum(clock[follower], born[ended])
        taken[ended[ends != GIVE]] = steps[ends != GIVE]
        moved, inherited = np.zeros(len(addr), dtype=np.bool_), np.zeros(len(addr), dtype=np.bool_)
        moved[ended[ends == TAKE_MOVE]] = True
        inherited[:count] = True
        return Paired(space, addr, given, taken, moved, born, died, inherited)

    def _keep_unmatched(self, place: Int64Array, gives: Mask, same: Mask) -> None:
        """Keep what fits no block, of operations by address: where each stands, and whether it gives.

        `same` tells which are of the address of the one before.
        """
        double, unknown = self._bad_takes(place, gives, same)
        source, kind = self.operations.source, self.operations.kind
        reused = np.flatnonzero(gives[1:] & gives[:-1] & same[1:]) + 1
        freeing = np.zeros(len(kind), dtype=np.bool_)
        freeing[place[~gives]] = True
        freeing &= kind == TAKE_FREE
        freeing[double] = False
        self.unmatched.append(UnmatchedFrees(source[double], source[unknown], source[place[reused]], source[freeing]))

    def _bad_takes(self, place: Int64Array, gives: Mask, same: Mask) -> tuple[Int64Array, Int64Array]:
        """Return the takes that are double frees, and the takes of blocks never seen."""
        fitting = gives.copy()
        fitting[1:] |= same[1:] & gives[:-1]
        misfit = np.flatnonzero(~fitting)
        if not len(misfit):
            return place[:0], place[:0]
        first = np.flatnonzero(~same)
        start = first[np.searchsorted(first, misfit, side="right") - 1]
        given = np.cumsum(gives, dtype=np.int64)
        known: Mask = given[misfit] > given[start] - gives[start]
        del first, given, fitting
        unknown, again, start_again = place[misfit[~known]], misfit[known], start[known]
        if not len(again):
            return place[:0], self._not_cached(unknown)
        operations, repeats = self.operations, np.searchsorted(start, start_again, side="right")
        frees = RepeatedFrees(
            steps=operations.source[place[again]],
            earlier=operations.source[place[again - 1]],
            repeated=repeats - np.searchsorted(start, start_again) > 1,
            handed_out_twice=_followed_by_two_gives(again, gives, same),
            strangers=np.isin(operations.space[place[again]], operations.space[unknown]),
        )
        double = are_double(self.replayed.events, self.misnamed_steps, frees)
        return place[again[double]], self._not_cached(np.concatenate([unknown, place[again[~double]]]))

    def _not_cached(self, takes: Int64Array) -> Int64Array:
        """Return the takes but for those by which a thread that ends empties its cache."""
        return takes[~of_ending_thread(self.replayed.events, self.operations.source[takes])] if len(takes) else takes


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
    none = np.zeros(0, dtype=np.int64)
    empty = Paired(none, none, none, none, none != 0, none, none, none != 0)
    pieces = [empty, *pieces]
    return Paired(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Paired.__annotations__))
