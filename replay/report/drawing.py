"""Pictures in text: an address space with its gaps, and curves over the lines of a log.

In go parts and curves, out come lines with style marks, no wider than the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log2
from typing import Final

import numpy as np

from replay.console import amounts
from replay.console.screen import cells, clean, padded, styled, wrapped
from replay.console.terminal import width as screen_width
from replay.report import address_map
from replay.report.facts import Curve

BARS: Final = "▁▂▃▄▅▆▇█"
_LONGEST_BAR: Final = 10
_WIDE_GAP: Final = 1 << 30
_CURVE_MARGIN: Final = 20
"""Columns beside a curve: its label and the margins."""


def layout_lines(
    parts: list[address_map.Part],
    use: Callable[[address_map.Part], str],
    note: Callable[[address_map.Part], str],
    indent: str = "  ",
) -> Iterator[str]:
    """Yield the picture of an address space, high addresses at the top.

    `use` says what a part serves for, `note` what to point out about it; either may be empty.
    """
    width = max((len(f"{part.start:x}") for part in parts), default=0) + 2
    above: address_map.Part | None = None
    for part in reversed(parts):
        if above is not None and above.start > part.end:
            left = indent + " " * width
            in_user_space = above.start < address_map.KERNEL_HALF
            yield from _gap_lines(above.start - part.end, left) if in_user_space else [styled("dim", f"{left}  ┊")]
        yield from _part_lines(part, use(part), note(part), f"{indent}{part.start:#{width}x}")
        above = part


def _gap_lines(size: int, left: str) -> Iterator[str]:
    dots = [styled("dim", f"{left}  ┊")]
    yield from dots * (size >= _WIDE_GAP)
    yield (f"{left}  ┊{'free':>{_LONGEST_BAR}} {amounts.size(size):>9}")
    yield from dots * (size >= _WIDE_GAP)


def _part_lines(part: address_map.Part, use: str, note: str, left: str) -> Iterator[str]:
    """Yield a part as a line: address, bar, size, permissions, what it is; a label that does not fit goes on below."""
    bar = "█" * _bar_length(part.bytes)
    style = {"heap": "cool", "blocker": "hot"}.get(part.role, "")
    perms = part.pieces.mapped.perms
    shown = part.pieces.one(0).perms if (perms == perms[0]).all() else "    "
    head = f"{left}  {padded(bar, _LONGEST_BAR + 1)} {amounts.size(part.bytes):>9}  {shown}  "
    label = clean(address_map.names_of(part) + (f": {use}" if use else ""))
    if cells(head) + cells(label) > screen_width():
        label = label.replace("anonymous", "anon")
    words = f"{label}  {styled('strong', note)}" if note else label
    fits = cells(head) + cells(words) <= screen_width()
    lines = [head + words] if fits else wrapped(words, first=head, rest=" " * cells(head), width=screen_width())
    if style:
        lines[0] = lines[0].replace(bar, styled(style, bar), 1)
    yield from lines


def _bar_length(size: int) -> int:
    """Return the length of a bar: one more for each fourfold of a page."""
    return max(1, min(_LONGEST_BAR, 1 + int(log2(max(size, 4096) / 4096) / 2)))


def curve_line(curve: Curve, first: int, last: int, *, lowest: bool = False, logarithmic: bool = False) -> str:
    """Return a curve from clock `first` to `last` as a row of bars, each for an equal stretch of the log.

    A bar stands for the highest value of its stretch, for the lowest one if `lowest`; blank where nothing is known yet.
    """
    values = _stretches(curve, first, last, screen_width() - _CURVE_MARGIN, lowest=lowest)
    known = values[~np.isnan(values)]
    if not known.size:
        return ""
    if logarithmic:
        values, known = np.log2(values + 1), np.log2(known + 1)
    top = float(known.max()) or 1.0
    levels = len(BARS) - 1
    return "".join(" " if np.isnan(value) else BARS[round(float(value) / top * levels)] for value in values)


def _stretches(curve: Curve, first: int, last: int, count: int, *, lowest: bool) -> np.ndarray:
    """Return the highest (or lowest) value in each of `count` equal stretches of `[first, last]`, nan for unknown."""
    count = min(count, max(last - first + 1, 1))
    edges = np.linspace(first, last + 1, count + 1)
    bounds = np.searchsorted(curve.clocks, edges, side="left")
    choose = np.min if lowest else np.max
    values = np.full(count, np.nan)
    for at in range(count):
        inside = curve.values[bounds[at] : bounds[at + 1]]
        before = curve.values[bounds[at] - 1 : bounds[at]] if bounds[at] else inside[:0]
        starts_inside = bounds[at] < len(curve.clocks) and curve.clocks[bounds[at]] <= edges[at]
        candidates = inside if starts_inside else np.concatenate([before, inside])
        if candidates.size:
            values[at] = float(choose(candidates))
    return values
