"""Which frees of a freed block are double frees, and which only look so as the log does not show every allocation.

In go the events and pairs of frees of one address, out comes the judgement on each. How frees are paired with blocks is
not known here.
"""

from __future__ import annotations

import numpy as np

from replay.calls.enclosing import GIVING, HIDING, is_call
from replay.calls.reader import UNFINISHED
from replay.engine.columns import NO_TEXT, Columns, Int64Array, Mask
from replay.engine.sorting import distinct
from replay.engine.structs import Value
from replay.linux.constants import FORKS


class RepeatedFrees(Value):
    """Frees of blocks that had been freed, with what stands around them; one entry each.

    steps, earlier: the free, and the one of the same address before it.
    repeated: whether the address has more frees that fit no block.
    handed_out_twice: whether it is then handed out twice without a free between, as a list of free blocks does that
        holds it twice.
    strangers: whether blocks that were never seen are freed in the same space.
    """

    steps: Int64Array
    earlier: Int64Array
    repeated: Mask
    handed_out_twice: Mask
    strangers: Mask


def are_double(events: Columns, misnamed_steps: Int64Array, frees: RepeatedFrees) -> Mask:
    """Return which second frees are double frees. Heuristic.

    One that never returned is: glibc aborts there. So is one whose block malloc then hands out twice. Otherwise it is
    none where the block may have been handed out unseen in between: by a call that does not show its address, by any
    call that is not followed (lines in between that are no steps), by a process whose making was not seen; or where
    unseen allocations show in frees of unknown blocks, unless one free follows right on the other.

    Source: malloc/malloc.c: "free(): double free detected in tcache 2", "double free or corruption".
    """
    between = _hidden_between(events, misnamed_steps, frees) | _lines_between(events, frees)
    adjacent = events["entry_clock"][frees.steps] == events["clock"][frees.earlier] + 1
    excused = between | frees.repeated | (frees.strangers & ~adjacent) | _of_another_process(events, frees)
    ending = of_ending_thread(events, frees.steps)
    died = events["status"][frees.steps] == UNFINISHED
    double: Mask = died | frees.handed_out_twice | ~(excused | ending)
    return double


def _hidden_between(events: Columns, misnamed_steps: Int64Array, frees: RepeatedFrees) -> Mask:
    """Return between which two frees the same space has a call that may have handed out a block unseen."""
    hiding = np.flatnonzero(is_call(events, HIDING) & (events["status"] != UNFINISHED))
    hiding = distinct(np.concatenate([hiding, misnamed_steps]))
    hidden = np.zeros(len(frees.steps), dtype=np.bool_)
    space = events["space"]
    spaces, hiding_spaces = space[frees.steps], space[hiding]
    for number in distinct(spaces).tolist():
        mine = spaces == number
        own = hiding[hiding_spaces == number]
        hidden[mine] = np.searchsorted(own, frees.steps[mine]) > np.searchsorted(own, frees.earlier[mine])
    return hidden


def _lines_between(events: Columns, frees: RepeatedFrees) -> Mask:
    """Return between which two frees the log has lines that are no steps."""
    clock, entry = events["clock"], events["entry_clock"]
    first, last = clock[frees.earlier], entry[frees.steps]
    opened = np.sort(entry[entry < clock])
    lines = np.maximum(last - first - 1, 0)
    for known in (np.sort(clock), opened):
        inside = np.searchsorted(known, last, side="left") - np.searchsorted(known, first, side="right")
        lines = lines - np.maximum(inside, 0)
    unfollowed: Mask = lines > 0
    return unfollowed


def _of_another_process(events: Columns, frees: RepeatedFrees) -> Mask:
    """Return which frees are by another thread than the first, one that no call of the log made: a fork unseen."""
    tid = events["tid"]
    made = events["result"][np.isin(events["call"], FORKS)]
    other = tid[frees.steps] != tid[frees.earlier]
    unmade: Mask = other & ~(np.isin(tid[frees.steps], made) | np.isin(tid[frees.earlier], made))
    return unmade


def of_ending_thread(events: Columns, frees: Int64Array) -> Mask:
    """Return which frees come behind the last allocation of a thread not its space's first, and show no caller.

    What such a thread has cached, glibc frees once more when it ends, which ltrace's `-x` shows.

    A thread that never allocated has no cache.

    Source: tcache_thread_shutdown in malloc/malloc.c calls __libc_free.
    """
    ending: Mask = events["caller"][frees] == NO_TEXT
    tids, spaces, calls = events["tid"], events["space"], events["call"]
    for tid in distinct(tids[frees[ending]]).tolist():
        mine = np.flatnonzero(tids == tid)
        first = np.argmax(spaces == spaces[mine[0]])
        gives = mine[is_call({"call": calls[mine]}, (*GIVING, *HIDING))]
        late = frees > int(gives[-1]) if len(gives) else np.zeros(len(frees), np.bool_)
        ending &= (tids[frees] != tid) | (late & (tids[first] != tid))
    return ending
