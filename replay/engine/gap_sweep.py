"""The largest gap between ranges that come and go, and the topmost one that is marked, after each of many changes.

In go ranges in order of address and changes in order of time, out come two columns. A tree over the addresses keeps
both up to date, so that each change costs the logarithm of the number of ranges.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array
from replay.engine.native import Loop

NONE: Final = -1
FAR: Final = 1 << 62

Tree: TypeAlias = tuple[Int64Array, Int64Array, Int64Array, Int64Array]


def empty_tree(leaves: int) -> Tree:
    """Return the nodes of a tree in which nothing is: the first start below each, last end, gap and topmost end."""
    nodes = 2 << max(leaves - 1, 0).bit_length()
    return (
        np.full(nodes, FAR, dtype=np.int64),
        np.full(nodes, NONE, dtype=np.int64),
        np.zeros(nodes, dtype=np.int64),
        np.full(nodes, NONE, dtype=np.int64),
    )


def _sweep(
    starts: Int64Array,
    first_ends: Int64Array,
    changes: tuple[NDArray[np.int32], Int64Array, NDArray[np.bool_]],
    until: NDArray[np.int32],
    tree: Tree,
    largest: Int64Array,
    topmost: Int64Array,
) -> None:
    """Tell the largest gap and the topmost end after the first `until` changes, for each of these, ascending.

    Leaves begin with the ends `first_ends`; those with `NONE` are not there. A change gives a leaf an end or takes it
    away, and says whether it is marked. A node of the tree holds the first start below it, the last end, the largest
    gap between, and the topmost end of a marked leaf. The children of node i are 2i and 2i + 1; leaves stand in the
    second half.
    """
    what, ends, marked = changes
    first, last, gap, top = tree
    size = len(first) // 2
    for leaf in range(len(starts)):
        if first_ends[leaf] != NONE:
            first[size + leaf], last[size + leaf] = starts[leaf], first_ends[leaf]
    for node in range(size - 1, 0, -1):
        _join(tree, node)
    done = 0
    for row in range(len(until)):
        while done < until[row]:
            node = size + what[done]
            present = ends[done] != NONE
            first[node] = starts[what[done]] if present else FAR
            last[node] = ends[done]
            top[node] = ends[done] if present and marked[done] else NONE
            done += 1
            node //= 2
            while node:
                _join(tree, node)
                node //= 2
        largest[row], topmost[row] = gap[1], top[1]


def _join(tree: Tree, node: int) -> None:
    """Have a node say what both of its children together say."""
    first, last, gap, top = tree
    left, right = 2 * node, 2 * node + 1
    first[node], last[node] = min(first[left], first[right]), max(last[left], last[right])
    between = first[right] - last[left] if first[right] != FAR and last[left] != NONE else 0
    gap[node] = max(gap[left], gap[right], between)
    top[node] = max(top[left], top[right])


def _like() -> tuple[Any, ...]:
    """Return arguments of the layout that the loop is compiled for."""
    numbers, places = np.zeros(0, np.int64), np.zeros(0, np.int32)
    return numbers, numbers, (places, numbers, np.zeros(0, np.bool_)), places, empty_tree(0), numbers, numbers


sweep: Final = Loop(_sweep, _like, inlined=(_join,))
