"""How large the address spaces of a run became, and how the one with the most memory ended.

In go the changes of the replay, part by part, out come peaks and extremes. What they mean for a report is not known
here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.engine.column_store import PackedColumns
from replay.engine.columns import NULL, Columns, Int64Array
from replay.engine.structs import Struct

_NEEDED: Final = ("space mapped_bytes brk_bytes mapping_count headroom_bytes gap_count largest_gap_bytes").split()


class Footprint(Struct):
    """What the changes of all spaces say of their sizes, in bytes unless it is a count.

    most_mapped, most_brk: the largest of each space over its changes, 0 for a space without any. peak: the row of
    `changes` at which most was mapped, the first one; last: the last change of that space; None without any change.
    """

    most_mapped: Int64Array
    most_brk: Int64Array
    mapping_count: int = 0
    least_headroom: int | None = None
    least_largest_gap: int | None = None
    """Of spaces and moments that have a gap."""
    peak: int | None = None
    last: int | None = None

    @classmethod
    def of(cls, changes: PackedColumns, spaces: int) -> Footprint:
        """Return the footprint of a run of so many spaces."""
        found = cls(np.zeros(spaces, dtype=np.int64), np.zeros(spaces, dtype=np.int64))
        mapped = NULL
        for number in range(changes.parts):
            part = changes.part(number, _NEEDED)
            if not len(part["space"]):
                continue
            highest = int(np.argmax(part["mapped_bytes"]))
            if part["mapped_bytes"][highest] > mapped:
                mapped, found.peak = int(part["mapped_bytes"][highest]), highest + changes.starts[number]
            found._add(part)
        if found.peak is not None:
            found.last = _last_of_space(changes, changes.one("space", found.peak))
        return found

    def _add(self, part: Columns) -> None:
        """Take in the changes of one part."""
        np.maximum.at(self.most_mapped, part["space"], part["mapped_bytes"])
        np.maximum.at(self.most_brk, part["space"], part["brk_bytes"])
        self.mapping_count = max(self.mapping_count, int(part["mapping_count"].max()))
        self.least_headroom = _least(self.least_headroom, part["headroom_bytes"][part["headroom_bytes"] != NULL])
        self.least_largest_gap = _least(self.least_largest_gap, part["largest_gap_bytes"][part["gap_count"] > 0])


def _least(known: int | None, values: Int64Array) -> int | None:
    """Return the least of what is known and of the values, None for nothing."""
    if not len(values):
        return known
    return int(values.min()) if known is None else min(known, int(values.min()))


def _last_of_space(changes: PackedColumns, space: int) -> int | None:
    """Return the last row of a space, None if it has none."""
    for number in reversed(range(changes.parts)):
        rows = np.flatnonzero(changes.part(number, ["space"])["space"] == space)
        if len(rows):
            return int(rows[-1]) + changes.starts[number]
    return None
