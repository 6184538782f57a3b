"""The sections of the letter about malloc: blocks, leaks, the heap, what pins it and what made it grow.

In go findings about malloc, out come lines with style marks, no wider than the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

from replay.calls.enclosing import FREEING
from replay.console.amounts import address, duration, exact, number, percent, size, times
from replay.console.screen import clean, styled, wrapped
from replay.console.table import table
from replay.heap import KEY_SIZES, Picture
from replay.heap.diagnosis import LEAST_HELD
from replay.report import drawing as curves
from replay.report.facts import Curve
from replay.report.findings import Findings
from replay.report.malloc.findings import SCATTERED, SHRINKING, Cause, Fault, LeakGroup, MallocFindings, Pin
from replay.run.places import Place, short_span, span

MOST_ROWS: Final = 8
"""As many rows of one table the letter shows; the rest is in the JSON document."""

_MOST_RAISES: Final = 4
_WORTH_RANGES: Final = 65536
"""Bytes free below live blocks from which on the free ranges are shown by size."""

_WORTH_INDEX: Final = 0.005
"""From this share of free memory on that a large block cannot use, the unusable free space index is shown."""

_LONGEST_BAR: Final = 30

Section: TypeAlias = Callable[[MallocFindings], Iterator[str]]


def _paragraph(text: str) -> list[str]:
    return wrapped(text, first="  ")


def _dim(text: str, indent: str = "  ") -> list[str]:
    return [styled("dim", line) for line in wrapped(text, first=indent)]


def _more(left: int, what: str) -> list[str]:
    return [styled("dim", f"  and {left:,} more {what}: --json has all")] if left > 0 else []


def _whose(malloc: MallocFindings) -> str:
    return f"space {malloc.space}, " if len(malloc.findings.spaces) > 1 else ""


# --- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(malloc: MallocFindings) -> Iterator[str]:
    summary = malloc.run.summary_values
    resized = f" (of these {malloc.resized:,} by realloc of a live block)" if malloc.resized else ""
    counts = f"{number(summary['allocations'], 'allocation')}{resized}, {number(summary['frees'], 'free')}"
    blocks, left = summary.get("live_blocks") or 0, summary.get("live_bytes") or 0
    yield from _paragraph(f"{counts}; live at the end: {number(blocks, 'block')}, {exact(left)}.")
    if not len(malloc.run.malloc_blocks):
        yield from _faults(malloc)
        return
    peak = malloc.answer.peak
    place = malloc.places.of_clock(peak.line)
    yield from _paragraph(
        f"Most live at once: {exact(peak.live_bytes)} in {number(peak.live_blocks, 'block')}, {_whose(malloc)}{place}."
    )
    yield from _faults(malloc)
    yield from _spaces(malloc)
    yield from _curves(malloc)


def _faults(malloc: MallocFindings) -> Iterator[str]:
    said = [
        (malloc.failed, "failed allocation", "refused"),
        (malloc.double_frees, "double free", "the block had been freed before"),
        (
            malloc.unknown_frees,
            "free of an unknown block",
            "the log never saw it handed out, as is normal after an attach and for what the libc allocates for itself",
        ),
    ]
    for fault, name, meaning in said:
        if fault.count:
            yield from _fault(fault, name, meaning)


def _fault(fault: Fault, name: str, meaning: str) -> list[str]:
    plural = name.replace("free of an unknown block", "frees of unknown blocks")
    plural = plural if plural != name else f"{name}s"
    first = "first " if fault.count > 1 else ""
    return _paragraph(f"{number(fault.count, name, plural)} ({first}{fault.text}, {fault.first}): {meaning}.")


def _spaces(malloc: MallocFindings) -> Iterator[str]:
    if len(malloc.spaces) < 2:
        return
    rows = [
        [str(row.space), f"{row.allocations:,}", f"{row.frees:,}", f"{row.live_blocks:,}", f"{row.live_bytes:,}"]
        for row in malloc.spaces[:MOST_ROWS]
    ]
    yield ""
    yield from table(["space", "allocations", "frees", "live at its end", "bytes"], rows, right=range(5))
    yield from _more(len(malloc.spaces) - MOST_ROWS, "spaces")


def _curves(malloc: MallocFindings) -> Iterator[str]:
    live, held = malloc.curves
    if len(live.clocks) < 3:
        return
    ends = int(live.clocks[0]), malloc.answer.end.line
    first, last = (malloc.places.of_clock(clock) or Place(clock) for clock in ends)
    yield ""
    yield from _dim(f"{_whose(malloc)}{span(first, last)}, left to right; held: what malloc has for blocks")
    yield from _curve(malloc, "live", live, ends)
    yield from _curve(malloc, "held", held, ends)


def _curve(malloc: MallocFindings, label: str, curve: Curve, ends: tuple[int, int]) -> Iterator[str]:
    top = int(curve.values.argmax())
    if not curve.values[top]:
        return
    bars = curves.curve_line(curve, *ends)
    yield f"  {label:<5} {styled('cool', bars)}"
    place = malloc.places.of_clock(int(curve.clocks[top]))
    most, end = size(int(curve.values[top])), size(int(curve.values[-1]))
    yield from _dim(f"at most {most}, {place}; at the end {end}", indent=" " * 8)


# --- leaks -----------------------------------------------------------------------------------------------------------


def _leaks(malloc: MallocFindings) -> Iterator[str]:
    groups = malloc.leaks
    if not groups:
        return
    rows = [_leak_row(malloc, group) for group in groups[:MOST_ROWS]]
    head = ["blocks", "bytes", "size of each", "call", "lines", "oldest lived"]
    if len(malloc.spaces) > 1:
        head.insert(0, "space")
        for row, group in zip(rows, groups, strict=False):
            row.insert(0, str(group.space))
    right = [at for at, name in enumerate(head) if name in ("space", "blocks", "bytes", "oldest lived")]
    yield from table(
        head,
        rows,
        right=right,
        give=(head.index("call"),),
    )
    yield from _more(len(groups) - MOST_ROWS, "groups")


def _leak_row(malloc: MallocFindings, group: LeakGroup) -> list[str]:
    first, last = group.first, group.last
    lines = short_span(first, last) if first and last else "?"
    age = number(group.age_lines, "line") if group.age_ns is None else duration(group.age_ns)
    by = _by(malloc, group.call, group.caller)
    each = _class(group.size_class) if group.count > 1 else f"{group.bytes:,}"
    return [f"{group.count:,}", f"{group.bytes:,}", each, by, lines, age]


def _class(size_class: int) -> str:
    if size_class < 2:
        return f"{size_class}"
    if size_class < 1024:
        return f"{size_class}-{2 * size_class - 1}"
    return _short_range(size_class, 2 * size_class)


def _short_range(least: int, most: int) -> str:
    """Return a range of sizes in few characters: `4-8 KiB`, `512 KiB-1 MiB`, `132 KiB`."""
    (low, unit), (high, other) = size(least).split(" "), size(most).split(" ")
    if (low, unit) == (high, other):
        return f"{low} {unit}"
    return f"{low}-{high} {unit}" if unit == other else f"{low} {unit}-{high} {other}"


def _by(malloc: MallocFindings, call: str, caller: str) -> str:
    """Return a call with its caller, where there is more than one."""
    return f"{call} of {clean(caller)}" if caller and malloc.several_callers else call


# --- the heap --------------------------------------------------------------------------------------------------------


def _heap(malloc: MallocFindings) -> Iterator[str]:
    if not len(malloc.run.malloc_blocks):
        return
    found = malloc.answer
    shown = {found.largest.line: ("at largest", found.largest)}
    shown[found.end.line] = ("at the end", found.end)
    names, pictures = [name for name, _ in shown.values()], [one for _, one in shown.values()]
    places = [malloc.places.of_clock(one.line) for one in pictures]
    lines = [f"line {place.line}" if place else "" for place in places]
    rows = [["", *lines, ""], *_measures(pictures)]
    if found.end.inferred:
        yield from _dim("Where no system call tells how large the heap is, that is inferred from its blocks.")
    yield from table(
        ["", *names, ""],
        rows,
        right=range(1, len(pictures) + 1),
        give=(len(pictures) + 1,),
    )
    yield from _johnstone_wilson(malloc)
    yield from _free_ranges(malloc)


def _others_end(one: Picture) -> str:
    """Return what is free at the end of heaps other than the brk area: those of arenas, and what stands in for brk."""
    return size(max(one.free_bytes - one.held_bytes - one.top_bytes, 0))


_MEASURES: Final[tuple[tuple[str, Callable[[Picture], str], str], ...]] = (
    ("heap", lambda one: size(one.heap_bytes), "what blocks are cut from"),
    ("mapped singly", lambda one: size(one.direct_bytes), "large blocks, an mmap each"),
    ("live", lambda one: size(one.live_bytes), "asked for and not freed"),
    ("rounding", lambda one: size(one.rounding_bytes), "their headers and padding"),
    ("unseen", lambda one: size(one.unseen_bytes), "in no block that the log shows"),
    ("free", lambda one: size(one.free_bytes), "of the heap"),
    ("  below live blocks", lambda one: size(one.held_bytes), "cannot go back to the kernel"),
    ("  top of the heap", lambda one: size(one.top_bytes), "can go back"),
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


def _measures(pictures: list[Picture]) -> Iterator[list[str]]:
    for name, value, meaning in _MEASURES:
        values = [value(one) for one in pictures]
        if name not in _IF_ANY or any(value != "0 bytes" for value in values):
            yield [name, *values, meaning]


def _johnstone_wilson(malloc: MallocFindings) -> Iterator[str]:
    found = malloc.answer
    if found.measure_3 != found.measure_3 or found.measure_4 != found.measure_4:
        return
    yield ""
    yield from _paragraph(
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
    yield from _paragraph(f"Free ranges by size, {when} ({malloc.places.of_clock(one.line)}):")
    cells = [
        [_class(class_), f"{count:,}", size(total), "█" * max(1, round(_LONGEST_BAR * total / most))]
        for class_, count, total in rows
    ]
    yield from table(["size in bytes", "ranges", "in all", ""], cells, right=(1, 2), indent="    ")
    index = one.unusable_index(KEY_SIZES)
    if index[-1][1] < _WORTH_INDEX:
        return
    yield ""
    yield from _paragraph("Share of this free memory in ranges too small for a block of a given size:")
    head = [size(asked).replace(" bytes", " B") for asked, _ in index]
    shares = [_share(share) for _, share in index]
    yield from table(head, [shares], right=range(len(head)), indent="    ")


def _share(share: float) -> str:
    return percent(round(share * 1_000_000), 1_000_000)


# --- pins ------------------------------------------------------------------------------------------------------------


def _pins(malloc: MallocFindings) -> Iterator[str]:
    one, moment = malloc.decisive if len(malloc.run.malloc_blocks) else (None, "")
    if one is None or one.held_bytes < LEAST_HELD or not malloc.pins:
        return
    where = malloc.places.of_clock(one.line)
    when = {"largest": f"When the heap was largest ({where})", "end": "At the end"}
    first = malloc.pins[0]
    if first.blocks_above > SCATTERED:
        yield from _paragraph(
            f"{when[moment]} live blocks lay scattered over the heap: no few of them hold it back. Even at best "
            f"{first.blocks_above + 1:,} blocks have to be freed to let {size(first.released_bytes)} go back."
        )
        return
    yield from _paragraph(
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
        _by(malloc, pin.call, pin.caller),
        str(pin.born.line) if pin.born else "?",
        "" if pin.pid is None else str(pin.pid),
        f"{pin.age_lines:,}" if pin.age_ns is None else duration(pin.age_ns),
    ]


# --- causes ----------------------------------------------------------------------------------------------------------

_WORDS: Final = {
    "brk_grew": "break grew",
    "brk_trimmed": "break shrank",
    "mapped": "mmap for heap",
    "mapped_directly": "mmap of block",
    "opened": "arena grew",
    "unmapped": "munmap",
    "advised": "pages given back",
    "resized": "mremap of block",
    "reserved": "arena reserved",
}


def _causes(malloc: MallocFindings) -> Iterator[str]:
    causes = malloc.causes
    if causes:
        yield from _leading(malloc)
        rows = [_cause_row(malloc, cause) for cause in causes[:MOST_ROWS]]
        yield from table(["count", "what", "each", "inside", "in all", "lines"], rows, right=(0, 4), give=(3,))
        yield from _more(len(causes) - MOST_ROWS, "kinds")
        if any(cause.kind == "advised" for cause in causes):
            yield from _dim("Pages given back by madvise stay mapped and still count as heap here.")
    yield from _raises(malloc)


_GIVING_BACK: Final = (*FREEING, "realloc", "malloc_trim")


def _leading(malloc: MallocFindings) -> Iterator[str]:
    """Yield in words what made the heap grow most, and what gave most back."""
    grew = [cause for cause in malloc.causes if cause.kind in ("brk_grew", "mapped", "opened")]
    gave = [cause for cause in malloc.causes if cause.kind in SHRINKING and cause.call in _GIVING_BACK]
    for chosen, verb in ((grew, "made the heap grow"), (gave, "gave memory back")):
        if chosen:
            cause = chosen[0]
            how = "each time by" if cause.count > 1 else "by"
            amount = _between(abs(cause.least), abs(cause.most))
            first = malloc.places.of_step(cause.first_step)
            where = f"{'first ' * (cause.count > 1)}{first}"
            yield from _paragraph(f"{_request(malloc, cause)} {verb} {times(cause.count)}, {how} {amount} ({where}).")


def _between(least: int, most: int) -> str:
    least, most = min(least, most), max(least, most)
    return size(least) if size(least) == size(most) else f"{size(least)} to {size(most)}"


def _request(malloc: MallocFindings, cause: Cause) -> str:
    """Return the libc call with what it was asked for: `malloc(1,000)`, `malloc(512-1023) of prog`."""
    asked = ""
    if cause.least_request is not None and cause.most_request is not None:
        least, most = cause.least_request, cause.most_request
        asked = f"({least:,})" if least == most else f"({_class(1 << (most.bit_length() - 1))})"
    return _by(malloc, f"{cause.call}{asked}", cause.caller)


def _cause_row(malloc: MallocFindings, cause: Cause) -> list[str]:
    first, last = malloc.places.of_step(cause.first_step), malloc.places.of_step(cause.last_step)
    return [
        f"{cause.count:,}",
        _WORDS[cause.kind],
        _short_range(*sorted((abs(cause.least), abs(cause.most)))) if cause.count > 1 else "",
        _request(malloc, cause),
        ("+" if cause.bytes > 0 else "") + size(cause.bytes),
        short_span(first, last),
    ]


def _raises(malloc: MallocFindings) -> Iterator[str]:
    raises = malloc.raises
    if not raises:
        return
    if malloc.causes:
        yield ""
    yield from _paragraph(
        "glibc maps a block by itself from a threshold on, which the free of such a block raises; then blocks of that "
        "size come from the heap, and free trims the top only from twice the threshold on:"
    )
    shown = raises if len(raises) <= _MOST_RAISES else [*raises[: _MOST_RAISES - 1], raises[-1]]
    for before, one in pairwise([None, *shown]):
        assert one is not None
        if before is not None and before.after != one.before:
            yield from _more(len(raises) - len(shown), "raises")
        inferred = "" if one.observed else " (inferred: no munmap in the log)"
        where = malloc.places.of_step(one.step)
        yield from wrapped(f"{where}: from {exact(one.before)} to {exact(one.after)}{inferred}", first="    ")


SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("Blocks of malloc", _blocks),
    ("Never freed", _leaks),
    ("The heap of malloc", _heap),
    ("What holds memory back", _pins),
    ("What made the heap grow and shrink", _causes),
)
"""The sections in order; one that has nothing to say is left out."""


def sections() -> Iterator[tuple[str, Callable[[Findings], Iterator[str]]]]:
    """Yield the sections as those of the whole letter, which take all findings."""
    for heading, section in SECTIONS:
        yield heading, partial(_section, section)


def _section(section: Section, findings: Findings) -> Iterator[str]:
    return section(findings.malloc) if findings.malloc is not None else iter(())
