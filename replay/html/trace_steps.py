r"""What each step did, as few bytes: sentences as templates, in which numbers that a rectangle tells are not repeated.

In go the words for steps and the rectangles of a page, out come the templates, and for each step its own and the
numbers that nothing else tells. A slot of a template is a character below `\x10`: its code says where the number comes
from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from replay.engine.columns import Columns, Int64Array
from replay.engine.sorting import ascending
from replay.html.trace_tables import TraceTables, codes, ints

_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d[\d,]*")
_EXACT: Final = 1 << 53
"""Up to here a browser's numbers are exact."""

# The codes of slots: \x01 an address kept with the step; then those of the first mapping born at the step's line (start
# and end), of the first that died there (start and end), of the first block born there (address and size) and of the
# first that died there (address, size, lines that it lived).
_KEPT: Final = "\x01"


class Steps(NamedTuple):
    """The columns of steps, the sentences by place, and the columns' numbers in the order of their slots."""

    columns: Columns
    templates: list[str]
    numbers: Int64Array


def steps(tables: TraceTables, kept: Int64Array, mapped: Columns, blocks: Columns) -> Steps:
    """Return the steps `kept` of a run; `mapped` and `blocks` are the rectangles as the page has them."""
    events = tables.table("events")
    clock, entry = tables.clock[kept], tables.entry_clock[kept]
    known = _known(tables.page_size, clock, entry, mapped, blocks)
    templates: dict[str, int] = {}
    numbers: list[int] = []
    ids = np.empty(len(kept), np.int64)
    for at, (step, *values) in enumerate(zip(kept.tolist(), *(column.tolist() for column in known), strict=True)):
        text = _template(tables.words[step], values, numbers)
        ids[at] = templates.setdefault(text, len(templates))
    columns = {
        "step": kept,
        "clock": clock,
        "entry": clock - entry,
        "line": ints(events, "line")[kept] - clock,
        "space": ints(events, "space")[kept],
        "pid": tables.pid[kept],
        "template": ids,
    }
    time = ints(events, "time_ns")[kept]
    if len(time) and (time >= 0).all():
        columns["time"] = time // tick_of(time)
    if len(tables.files) > 1:
        columns["file"] = np.maximum(codes(events, "file")[0][kept], 0)
    return Steps(columns, list(templates), np.array(numbers, np.int64))


def tick_of(times: Int64Array) -> int:
    """Return the nanoseconds that times of a log are multiples of: 1000 where it prints microseconds."""
    return 1000 if not (times % 1000).any() else 1


def _template(text: str, values: Sequence[int], numbers: list[int]) -> str:
    """Return a sentence with slots for numbers; those that no rectangle tells are added to `numbers`."""

    def slot(match: re.Match[str]) -> str:
        word = match[0]
        is_address = word.startswith("0x")
        value = int(word, 16) if is_address else int(word.replace(",", ""))
        for code in _ADDRESSES if is_address else _COUNTS:
            if values[code] == value and (is_address or word == f"{value:,}"):
                return chr(code + 2)
        if not is_address or value >= _EXACT:
            return word
        numbers.append(value)
        return _KEPT

    return _NUMBER.sub(slot, text)


_ADDRESSES: Final = (0, 1, 2, 3, 4, 6)
_COUNTS: Final = (5, 7, 8)
"""The places, in what is known of a step, of addresses and of counts."""


def _known(page: int, clock: Int64Array, entry: Int64Array, mapped: Columns, blocks: Columns) -> list[Int64Array]:
    """Return for each step the numbers that its rectangles tell, -1 where there is none, in the order of the slots."""
    born, died = _first(mapped["born"], clock), _first_ended(mapped["died"], clock, entry)
    given, taken = _first(blocks["born"], clock), _first_ended(blocks["died"], clock, entry)
    start, end = mapped["start"] * page, (mapped["start"] + mapped["size"]) * page
    lived = blocks["died"] - blocks["born"]
    parts = (
        (start, born), (end, born), (start, died), (end, died), (blocks["addr"], given), (blocks["size"], given),
        (blocks["addr"], taken), (blocks["size"], taken), (lived, taken),
    )  # fmt: skip
    return [np.where(at >= 0, np.append(values, -1)[at], -1) for values, at in parts]


def _first(births: Int64Array, clock: Int64Array) -> Int64Array:
    """Return the first row that was born at each clock, -1 for none; rows are sorted by birth."""
    at = np.searchsorted(births, clock)
    there = np.append(births, -1)[at] == clock
    return np.where(there, at, -1)


def _first_ended(deaths: Int64Array, clock: Int64Array, entry: Int64Array) -> Int64Array:
    """Return the first row that died where each step began or, if none did, where it completed; -1 for none."""
    order = ascending(deaths)
    ends = np.append(deaths[order], -1)
    rows = np.append(order, -1)
    found = np.full(len(clock), -1, np.int64)
    for moment in (clock, entry):
        at = np.searchsorted(ends[:-1], moment)
        found = np.where(ends[at] == moment, rows[at], found)
    return found
