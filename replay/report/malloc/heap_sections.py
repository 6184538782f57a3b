"""The sections of the report about the heap of malloc: how it is cut up, and which blocks hold memory back.

In go findings about malloc, out come lines with style marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from replay.console.amounts import address, duration, percent, size
from replay.console.screen import clean
from replay.console.table import table
from replay.heap.diagnosis import LEAST_HELD
from replay.heap.snapshot import KEY_SIZES, HeapSnapshot
from replay.report.malloc.facts import Pin
from replay.report.malloc.findings import SCATTERED, MallocFindings
from replay.report.paragraphs import aside, paragraph

_WORTH_RANGES: Final = 65536
"""Bytes free below live blocks from which on the free ranges are shown by size."""


_WORTH_INDEX: Final = 0.005
"""From this share of free memory on that a large block cannot use, the unusable free space index is shown."""


_LONGEST_BAR: Final = 30


def class_text(size_class: int) -> str:
    """Return a size class in few characters: `512-1023`, `4-8 KiB`."""
    if size_class < 2:
        return f"{size_class}"
    if size_class < 1024:
        return f"{size_class}-{2 * size_class - 1:,}"
    return short_range(size_class, 2 * size_class)


def short_range(least: int, most: int) -> str:
    """Return a range of sizes in few characters: `4-8 KiB`, `512 KiB-1 MiB`, `132 KiB`."""
    (low, unit), (high, other) = size(least).split(" "), size(most).split(" ")
    if (low, unit) == (high, other):
        return f"{low} {unit}"
    return f"{low}-{high} {unit}" if unit == other else f"{low} {unit}-{high} {other}"


def by_whom(malloc: MallocFindings, call: str, caller: str) -> str:
    """Return a call with its caller, where there is more than one."""
    return f"{call} of {clean(caller)}" if caller and malloc.several_callers else call


def heap(malloc: MallocFindings) -> Iterator[str]:
    """Yield what the heap is made of when it was largest and at the end."""
    if not len(malloc.run.malloc_blocks):
        return
    found = malloc.diagnosis
    shown = {found.largest.line: ("at largest", found.largest)}
    shown[found.end.line] = ("at the end", found.end)
    names, pictures = [name for name, _ in shown.values()], [one for _, one in shown.values()]
    places = [malloc.places.of_clock(one.line) for one in pictures]
    lines = [f"line {place.line}" if place else "" for place in places]
    rows = [["", *lines, ""], *_measures(pictures)]
    if found.end.inferred:
        yield from aside("Where no system call tells how large the heap is, that is inferred from its blocks.")
    yield from table(
        ["", *names, ""],
        rows,
        right=range(1, len(pictures) + 1),
        give=(len(pictures) + 1,),
    )
    yield from _johnstone_wilson(malloc)
    yield from _free_ranges(malloc)


def _others_end(one: HeapSnapshot) -> str:
    """Return what is free at the end of heaps other than the brk area: those of arenas, and what stands in for brk."""
    return size(max(one.free_bytes - one.held_bytes - one.top_bytes, 0))


_MEASURES: Final[tuple[tuple[str, Callable[[HeapSnapshot], str], str], ...]] = (
    ("heap", lambda one: size(one.heap_bytes), "what blocks are cut from"),
    ("mapped singly", lambda one: size(one.direct_bytes), "large blocks, an mmap each"),
    ("live", lambda one: size(one.live_bytes), "asked for and not freed"),
    ("rounding", lambda one: size(one.rounding_bytes), "their headers and padding"),
    ("unseen", lambda one: size(one.unseen_bytes), "in no block that the log shows"),
    ("free", lambda one: size(one.free_bytes), "of the heap"),
    ("  below live blocks", lambda one: size(one.held_bytes), "free cannot give it back"),
    ("  top of the heap", lambda one: size(one.top_bytes), "free can give it back"),
    ("  end of other heaps", _others_end, "arenas, pieces by mmap"),
    ("  trimmable", lambda one: size(one.trimmable_bytes), "of the top, by a trim"),
    ("  largest range", lambda one: size(one.largest_free_bytes), "the largest block that fits"),
    ("fragmentation", lambda one: f"{one.fragmentation:.3f}", "1 - largest range / free"),
    ("utilisation", lambda one: f"{100 * one.utilisation:.0f} %", "live / (heap + mapped singly)"),
    ("page use", lambda one: f"{100 * one.page_live_share:.0f} %", "live share of pages in use"),
)
"""Name, value and meaning of each measure of a picture."""


_IF_ANY: Final = ("mapped singly", "unseen", "  end of other heaps")
"""Measures that are left out where they are 0."""


def _measures(pictures: list[HeapSnapshot]) -> Iterator[list[str]]:
    for name, value, meaning in _MEASURES:
        values = [value(one) for one in pictures]
        if name not in _IF_ANY or any(value != "0 bytes" for value in values):
            yield [name, *values, meaning]


def _johnstone_wilson(malloc: MallocFindings) -> Iterator[str]:
    found = malloc.diagnosis
    if found.measure_3 != found.measure_3 or found.measure_4 != found.measure_4:
        return
    yield ""
    yield from paragraph(
        f"At its largest malloc held {_above(found.measure_3)} more than was live then, and {_above(found.measure_4)} "
        "more than was ever live at once (Johnstone and Wilson's measures 3 and 4)."
    )


def _above(measure: float) -> str:
    return f"{100 * measure:.0f} %" if measure < 10 else f"{measure:,.0f} times"


def _free_ranges(malloc: MallocFindings) -> Iterator[str]:
    one, moment = malloc.decisive
    if one.held_bytes < _WORTH_RANGES:
        return
    rows = one.histogram()
    when = {"largest": "when the heap was largest", "end": "at the end"}[moment]
    most = max(total for _, _, total in rows)
    yield ""
    yield from paragraph(f"Free ranges by size, {when} ({malloc.places.of_clock(one.line)}):")
    cells = [
        [class_text(class_), f"{count:,}", size(total), "█" * max(1, round(_LONGEST_BAR * total / most))]
        for class_, count, total in rows
    ]
    yield from table(["size in bytes", "ranges", "in all", ""], cells, right=(1, 2), indent="    ")
    index = one.unusable_index(KEY_SIZES)
    if index[-1][1] < _WORTH_INDEX:
        return
    yield ""
    yield from paragraph("Share of this free memory in ranges too small for a block of a given size:")
    head = [size(asked).replace(" bytes", " B") for asked, _ in index]
    shares = [_share(share) for _, share in index]
    yield from table(head, [shares], right=range(len(head)), indent="    ")


def _share(share: float) -> str:
    return percent(round(share * 1_000_000), 1_000_000)


def pins(malloc: MallocFindings) -> Iterator[str]:
    """Yield which blocks hold free memory back, or that no few of them do."""
    one, moment = malloc.decisive if len(malloc.run.malloc_blocks) else (None, "")
    if one is None or one.held_bytes < LEAST_HELD or not malloc.pins:
        return
    where = malloc.places.of_clock(one.line)
    when = {"largest": f"When the heap was largest ({where})", "end": "At the end"}
    first = malloc.pins[0]
    if first.blocks_above > SCATTERED:
        yield from paragraph(
            f"{when[moment]} live blocks lay scattered over the heap: no few of them hold it back. Even at best "
            f"{first.blocks_above + 1:,} blocks have to be freed to let {size(first.released_bytes)} go back."
        )
        return
    yield from paragraph(
        f"{when[moment]} these live blocks hold back the most; so much goes back once a block and those above it "
        "are freed:"
    )
    age = "age" if malloc.pins[0].age_ns is not None else "age in lines"
    head = ["goes back", "above", "block", "bytes", "call", "line", "thread", age]
    few = [pin for pin in malloc.pins if pin.blocks_above <= SCATTERED]
    rows = [_pin_row(malloc, pin) for pin in sorted(few, key=lambda pin: pin.blocks_above)]
    if all(pin.pid is None for pin in malloc.pins) or malloc.run.replayed.threads < 2:
        head, rows = [name for name in head if name != "thread"], [row[:6] + row[7:] for row in rows]
    right = [at for at, name in enumerate(head) if name not in ("block", "call")]
    yield from table(
        head,
        rows,
        right=right,
        give=(head.index("call"),),
    )


def _pin_row(malloc: MallocFindings, pin: Pin) -> list[str]:
    return [
        size(pin.released_bytes),
        f"{pin.blocks_above:,}",
        address(pin.addr),
        f"{pin.size:,}",
        by_whom(malloc, pin.call, pin.caller),
        str(pin.born.line) if pin.born else "?",
        "" if pin.pid is None else str(pin.pid),
        f"{pin.age_lines:,}" if pin.age_ns is None else duration(pin.age_ns),
    ]
