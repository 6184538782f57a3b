"""The sections of the report about malloc: blocks, leaks, the heap, what pins it and what made it grow.

In go findings about malloc, out come lines with style marks, no wider than the output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

from replay.calls.enclosing import FREEING
from replay.console.amounts import duration, exact, number, size, times
from replay.console.screen import clean, styled, wrapped
from replay.console.table import table
from replay.report import drawing as curves
from replay.report.facts import Curve
from replay.report.findings import Findings
from replay.report.malloc.facts import Cause, Fault, LeakGroup
from replay.report.malloc.findings import SHRINKING, MallocFindings
from replay.report.malloc.heap_sections import by_whom, class_text, heap, pins, short_range
from replay.report.paragraphs import aside, more, paragraph
from replay.run.places import Place, short_span, span

MOST_ROWS: Final = 8
"""As many rows of one table the report shows; the rest is in the JSON document."""

_MOST_RAISES: Final = 4


Section: TypeAlias = Callable[[MallocFindings], Iterator[str]]


def _whose(malloc: MallocFindings) -> str:
    return f"{malloc.findings.spaces[malloc.space].name}, " if len(malloc.findings.spaces) > 1 else ""


# --- blocks ----------------------------------------------------------------------------------------------------------


def _blocks(malloc: MallocFindings) -> Iterator[str]:
    summary = malloc.run.summary_values
    resized = f" (of these {malloc.resized:,} by realloc of a live block)" if malloc.resized else ""
    counts = f"{number(summary['allocations'], 'allocation')}{resized}, {number(summary['frees'], 'free')}"
    blocks, left = summary.get("live_blocks") or 0, summary.get("live_bytes") or 0
    yield from paragraph(f"{counts}; live at the end: {number(blocks, 'block')}, {exact(left)}.")
    if not len(malloc.run.malloc_blocks):
        yield from _faults(malloc)
        return
    peak = malloc.diagnosis.peak
    place = malloc.places.of_clock(peak.line)
    yield from paragraph(
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
    return paragraph(f"{number(fault.count, name, plural)} ({first}{fault.text}, {fault.first}): {meaning}.")


def _spaces(malloc: MallocFindings) -> Iterator[str]:
    if len(malloc.spaces) < 2:
        return
    rows = [
        [str(row.space), f"{row.allocations:,}", f"{row.frees:,}", f"{row.live_blocks:,}", f"{row.live_bytes:,}"]
        for row in malloc.spaces[:MOST_ROWS]
    ]
    yield ""
    yield from table(["space", "allocations", "frees", "live at its end", "bytes"], rows, right=range(5))
    yield from more(len(malloc.spaces) - MOST_ROWS, "spaces")


def _curves(malloc: MallocFindings) -> Iterator[str]:
    live, held = malloc.curves
    if len(live.clocks) < 3:
        return
    ends = int(live.clocks[0]), malloc.diagnosis.end.line
    first, last = (malloc.places.of_clock(clock) or Place(clock) for clock in ends)
    yield ""
    yield from aside(f"{_whose(malloc)}{span(first, last)}, left to right; held: what malloc has for blocks")
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
    yield from aside(f"at most {most}, {place}; at the end {end}", indent=" " * 8)


# --- leaks -----------------------------------------------------------------------------------------------------------


def _leaks(malloc: MallocFindings) -> Iterator[str]:
    groups = malloc.leaks
    if not groups:
        return
    several = malloc.several_callers or len({group.caller for group in groups}) > 1
    rows = [_leak_row(group, several_callers=several) for group in groups[:MOST_ROWS]]
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
    yield from more(len(groups) - MOST_ROWS, "groups")


def _leak_row(group: LeakGroup, *, several_callers: bool) -> list[str]:
    first, last = group.first, group.last
    lines = short_span(first, last) if first and last else "?"
    age = number(group.age_lines, "line") if group.age_ns is None else duration(group.age_ns)
    by = f"{group.call} of {clean(group.caller)}" if group.caller and several_callers else group.call
    each = f"{group.least:,}" if group.least == group.most else class_text(group.size_class)
    return [f"{group.count:,}", f"{group.bytes:,}", each, by, lines, age]


# --- the heap --------------------------------------------------------------------------------------------------------


# --- pins ------------------------------------------------------------------------------------------------------------


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
        yield from more(len(causes) - MOST_ROWS, "kinds")
        if any(cause.kind == "advised" for cause in causes):
            yield from aside("Pages given back by madvise stay mapped and still count as heap here.")
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
            yield from paragraph(f"{_request(malloc, cause)} {verb} {times(cause.count)}, {how} {amount} ({where}).")


def _between(least: int, most: int) -> str:
    least, most = min(least, most), max(least, most)
    return size(least) if size(least) == size(most) else f"{size(least)} to {size(most)}"


def _request(malloc: MallocFindings, cause: Cause) -> str:
    """Return the libc call with what it was asked for: `malloc(1,000)`, `malloc(512-1023) of prog`."""
    asked = ""
    if cause.least_request is not None and cause.most_request is not None:
        least, most = cause.least_request, cause.most_request
        asked = f"({least:,})" if least == most else f"({class_text(1 << (most.bit_length() - 1))})"
    return by_whom(malloc, f"{cause.call}{asked}", cause.caller)


def _cause_row(malloc: MallocFindings, cause: Cause) -> list[str]:
    first, last = malloc.places.of_step(cause.first_step), malloc.places.of_step(cause.last_step)
    return [
        f"{cause.count:,}",
        _WORDS[cause.kind],
        short_range(*sorted((abs(cause.least), abs(cause.most)))) if cause.count > 1 else "",
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
    yield from paragraph(
        "glibc maps a block by itself from a threshold on, which the free of such a block raises; then blocks of that "
        "size come from the heap, and free trims the top only from twice the threshold on:"
    )
    shown = raises if len(raises) <= _MOST_RAISES else [*raises[: _MOST_RAISES - 1], raises[-1]]
    for before, one in pairwise([None, *shown]):
        assert one is not None
        if before is not None and before.after != one.before:
            yield from more(len(raises) - len(shown), "raises")
        inferred = "" if one.observed else " (inferred: no munmap in the log)"
        where = malloc.places.of_step(one.step)
        yield from wrapped(f"{where}: from {exact(one.before)} to {exact(one.after)}{inferred}", first="    ")


SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("Blocks of malloc", _blocks),
    ("Never freed", _leaks),
    ("The heap of malloc", heap),
    ("What holds memory back", pins),
    ("What made the heap grow and shrink", _causes),
)
"""The sections in order; one that has nothing to say is left out."""


def sections() -> Iterator[tuple[str, Callable[[Findings], Iterator[str]]]]:
    """Yield the sections as those of the whole letter, which take all findings."""
    for heading, section in SECTIONS:
        yield heading, partial(_section, section)


def _section(section: Section, findings: Findings) -> Iterator[str]:
    return section(findings.malloc) if findings.malloc is not None else iter(())
