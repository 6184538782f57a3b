"""The halves of split calls made one: `<unfinished ...>` with `<... resumed>`, over the whole of a log.

In go rows of fields, one a line, out come rows in the order in which calls completed. What the fields mean is not known
here.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NO_TEXT, NULL, Int64Array
from replay.engine.structs import Struct, field
from replay.lines.templates import KIND_CODE
from replay.linux.constants import EXECS, EXITS

Rows: TypeAlias = dict[str, Int64Array]
"""Columns of one length by name; a field that no row has may be missing."""

TEXTS: Final = ("path", "result_path", "caller")
"""The fields that are texts."""

_OPENED, _CLOSED, _PID_CHANGED = KIND_CODE["opened"], KIND_CODE["closed"], KIND_CODE["pid_changed"]
_ENDS: Final = (KIND_CODE["exited"], KIND_CODE["killed"])
_SUPERSEDED: Final = KIND_CODE["superseded"]


class Joiner(Struct):
    """Joins the halves of split calls over the chunks of one log, in which `open` are the calls not closed so far."""

    file: int = 0
    open: Rows = field(default_factory=dict)

    def joined(self, rows: Rows) -> Rows:
        """Return the calls that completed in `rows`, and the notices, in order; keep those that stay open."""
        rows = stacked([self.open, rows]) if self.open else rows
        changed = rows["kind"] == _PID_CHANGED
        opening = (rows["kind"] == _OPENED) | changed
        closing = rows["kind"] == _CLOSED
        if not (opening.any() or closing.any()):
            return rows
        rows = {key: column if column.flags.writeable else column.copy() for key, column in rows.items()}
        rows.setdefault("to_pid", _nulls(rows))
        _follow_superseding_execs(rows)
        moves = opening & np.isin(rows["call"], EXECS) & (rows["to_pid"] != NULL)
        rows["from_pid"] = np.where(moves, rows["pid"], rows.get("from_pid", _nulls(rows)))
        effective = np.where(moves, rows["to_pid"], rows["pid"])
        openers, closers = _pairs(effective, rows["call"], opening, closing)
        if "reopened" in rows:
            openers, closers = _with_first_halves(rows, openers, closers, opening)
        _merge_halves(rows, openers, closers, effective)
        left = opening.copy()
        left[openers] = False
        shown = ~opening | (changed & (rows["carried"] == 0))
        order = np.flatnonzero(shown)
        if (left & np.isin(rows["call"], EXITS)).any():
            order = _with_ended_exits(rows, left, order)
        self.open = chosen(rows, np.flatnonzero(left))
        self.open["carried"] = np.ones(int(left.sum()), dtype=np.int64)
        return chosen(rows, order)

    def never_closed(self) -> Rows:
        """Return the calls that were never closed, in the order in which they were opened."""
        rows, self.open = self.open, {}
        return chosen(rows, np.flatnonzero(rows["reopened"] != 1)) if "reopened" in rows else rows


def _follow_superseding_execs(rows: Rows) -> None:
    """Give the open execve of each thread that supersedes its leader the leader's pid as `to_pid`: so it ends.

    `PID +++ superseded by execve in pid TID +++` stands between the halves where another thread's line comes in.
    Source: ptrace(2) on execve under ptrace: the thread gets the id of its leader.
    """
    superseded = np.flatnonzero(rows["kind"] == _SUPERSEDED)
    if not len(superseded):
        return
    execs = np.flatnonzero((rows["kind"] == _OPENED) & np.isin(rows["call"], EXECS))
    latest: dict[int, list[int]] = {}
    for place in execs.tolist():
        latest.setdefault(int(rows["pid"][place]), []).append(place)
    for place in superseded.tolist():
        opened = latest.get(int(rows["to_pid"][place]), [])
        before = bisect_left(opened, place) - 1
        if before >= 0:
            rows["to_pid"][opened[before]] = rows["pid"][place]


def _with_first_halves(
    rows: Rows, openers: Int64Array, closers: Int64Array, opening: NDArray[np.bool_]
) -> tuple[Int64Array, Int64Array]:
    """Return the pairs, and behind them those of first halves whose second halves were cut once more.

    The second half of such a call reads `<... restart_syscall resumed> <unfinished ...>`.
    """
    left = opening.copy()
    left[openers] = False
    first = np.flatnonzero(left & (rows["reopened"] != 1))
    more: list[tuple[int, int]] = []
    for opener, closer in zip(openers.tolist(), closers.tolist(), strict=True):
        if rows["reopened"][opener] == 1:
            same = (rows["pid"][first] == rows["pid"][opener]) & (rows["call"][first] == rows["call"][opener])
            before = first[same & (first < opener)]
            more += [(int(before[-1]), closer)] if len(before) else []
    return np.append(openers, [o for o, _ in more]).astype(np.int64), np.append(closers, [c for _, c in more]).astype(
        np.int64
    )


def _with_ended_exits(rows: Rows, left: NDArray[np.bool_], order: Int64Array) -> Int64Array:
    """Return `order` with each exit that stayed open put right before the notice that its thread ended."""
    ends: dict[int, int] = {}
    for place in np.flatnonzero(np.isin(rows["kind"], _ENDS)).tolist():
        ends[int(rows["pid"][place])] = place
    inserted = []
    for place in np.flatnonzero(left & np.isin(rows["call"], EXITS)).tolist():
        end = ends.get(int(rows["pid"][place]), -1)
        if end > place:
            left[place] = False
            rows["line"][place] = rows["line"][end]
            rows["kind"][place] = _CLOSED
            inserted.append((end, place))
    where = np.searchsorted(order, np.array([end for end, _ in inserted], dtype=np.int64))
    return np.insert(order, where, np.array([place for _, place in inserted], dtype=np.int64))


def _nulls(rows: Rows) -> Int64Array:
    """Return a column of nulls as long as the others."""
    return np.full(len(rows["kind"]), NULL, dtype=np.int64)


def null_of(key: str) -> int:
    """Return the null of a column."""
    return NO_TEXT if key in TEXTS else NULL


def stacked(parts: list[Rows]) -> Rows:
    """Return several row sets as one, with nulls where one lacks a column."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {
        key: np.concatenate(
            [part.get(key, np.full(len(part["kind"]), null_of(key), dtype=np.int64)) for part in parts if part]
        )
        for key in keys
    }


def chosen(rows: Rows, index: Int64Array) -> Rows:
    """Return the rows at `index`."""
    return {key: column[index] for key, column in rows.items()}


def _pairs(
    pid: Int64Array, call: Int64Array, opening: NDArray[np.bool_], closing: NDArray[np.bool_]
) -> tuple[Int64Array, Int64Array]:
    """Return the places of the lines that open calls and of those that close them, pairwise.

    Calls of one pid nest like brackets (in strace to a depth of one). What then is left over is paired line by line:
    strace prints no pid while one tracee is alive, so that one half of a pair may lack it.
    """
    place = np.flatnonzero(opening | closing)
    opens = opening[place]
    order = np.argsort(pid[place], kind="stable")
    step = np.where(opens[order], 1, -1)
    depth = np.cumsum(step)
    level = depth - (step + 1) // 2
    by_level = order[np.lexsort((np.arange(len(order)), level, pid[place][order]))]
    level_sorted = np.empty(len(order), dtype=np.int64)
    level_sorted[order] = level
    a, b = by_level[:-1], by_level[1:]
    paired = opens[a] & ~opens[b] & (pid[place[a]] == pid[place[b]]) & (level_sorted[a] == level_sorted[b])
    paired &= call[place[a]] == call[place[b]]
    openers, closers = place[a[paired]], place[b[paired]]
    left = np.ones(len(place), dtype=bool)
    left[a[paired]] = False
    left[b[paired]] = False
    if not (left & ~opens).any():
        return openers, closers
    more = _left_over_pairs(place[left].tolist(), opens[left].tolist(), pid, call)
    return np.append(openers, [o for o, _ in more]).astype(np.int64), np.append(closers, [c for _, c in more]).astype(
        np.int64
    )


def _left_over_pairs(places: list[int], opens: list[bool], pid: Int64Array, call: Int64Array) -> list[tuple[int, int]]:
    """Pair what brackets do not, the latest open call of the same name first; a missing pid matches any."""
    of_thread: dict[tuple[int, int], list[int]] = {}
    of_name: dict[int, list[int]] = {}
    closed: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for place, is_open in zip(places, opens, strict=True):
        thread, name = int(pid[place]), int(call[place])
        if is_open:
            of_thread.setdefault((thread, name), []).append(place)
            of_name.setdefault(name, []).append(place)
            continue
        others = of_name.get(name, []) if thread == NULL else of_thread.get((NULL, name), [])
        for pending in (of_thread.get((thread, name), []), others):
            while pending and pending[-1] in closed:
                pending.pop()
            if pending:
                closed.add(pending[-1])
                pairs.append((pending.pop(), place))
                break
    return pairs


def _merge_halves(rows: Rows, openers: Int64Array, closers: Int64Array, pid: Int64Array) -> None:
    """Give each closing row what its opening row says and it does not, and the opening's place, name and time.

    `pid` is that of each opened call's end: not the printed one for an execve that ends in another thread.
    """
    for key, column in rows.items():
        if key in ("kind", "line", "carried", "call", "dialect", "reopened"):
            continue
        if key in ("entry_line", "name", "time", "from_pid"):
            known = column[openers] != NULL
            column[closers[known]] = column[openers[known]]
        else:
            missing = column[closers] == null_of(key)
            source = pid if key == "pid" else column
            column[closers[missing]] = source[openers[missing]]
    same = rows["from_pid"][closers] == rows["pid"][closers]
    rows["from_pid"][closers[same]] = NULL
