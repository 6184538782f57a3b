"""The sections of the report about an address space: its layout, its largest mappings, its curves over the log.

In go findings, out come lines with style marks, as wide as the screen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from replay.console.amounts import address, exact, number, percent, size
from replay.console.screen import clean, styled
from replay.console.table import table
from replay.engine.columns import NULL
from replay.report import address_map, drawing
from replay.report.findings import Findings
from replay.report.paragraphs import aside, more, paragraph
from replay.run.places import Place, short_span, span

if TYPE_CHECKING:
    pass

_VAST: Final = 1 << 40
"""Bytes from which an amount is not told exactly."""


def layout(findings: Findings) -> Iterator[str]:
    """Yield the picture of the main space at the moment that says most, its gaps and kinds of mappings."""
    space, moment = findings.main_space, findings.moment
    if space is None or moment is None:
        return
    clock, occasion = moment
    pieces = address_map.pieces_at(findings.run, space, clock)
    if not pieces:
        return
    whose = f"{findings.spaces[space].name}, " if len(findings.spaces) > 1 else ""
    yield from aside(f"{whose}{findings.places.of_clock(clock)}, {occasion}; high addresses at the top")
    blocker = _blocker_start(findings, space)
    parts = address_map.parts_of(pieces, blocker)
    yield from drawing.layout_lines(parts, lambda part: _use(findings, part), lambda part: _note(findings, part))
    yield from aside(_image(findings, space))
    yield from _gaps(pieces)
    yield from _kinds(pieces)
    yield from _touchable(findings)


def _image(findings: Findings, space: int) -> str:
    """Return what is known of what was mapped before the first call, and what would tell the rest."""
    image = findings.run.replayed.images.get(space)
    if image is not None and image.misfit:
        return (
            f"What execve mapped is not known: the file on this disk is not the one that ran, {clean(image.misfit)}. "
            "--elf-root DIR says where that lies, --maps FILE what was mapped."
        )
    if image is not None and image.told_by:
        files = " and ".join(map(clean, image.told_by))
        return (
            f"What execve mapped is inferred from {files} as they are on this disk now: the calls fit them. "
            "The stack is not in the log (--maps FILE adds it)."
        )
    if findings.has_maps:
        return ""
    unseen = "was there before the log" if findings.begins_late else "the kernel maps at execve"
    return f"What {unseen} (program, ld.so, stack, vdso) no call shows; --maps FILE adds it."


def _touchable(findings: Findings) -> Iterator[str]:
    """Yield how much of what is mapped can be resident at all: what has no access is only reserved."""
    summary = findings.run.summary_values
    mapped, most = summary["peak_mapped_bytes"], summary["resident_at_most_bytes"]
    yield ""
    reserved = f"{size(mapped - most)} of them without access, only reserved: " if most < mapped else ""
    own = summary["recorder_bytes"]
    recorder = f" {size(own)} of this are the recorder's own: its library and a window of its log." if own else ""
    yield from paragraph(
        f"Mapped is not resident: at the peak {size(mapped)} were mapped, {reserved}at most {size(most)} can have been "
        f"resident. At the end {size(summary['end_mapped_bytes'])} were mapped.{recorder}"
    )


LARGEST: Final = 8
"""As many mappings stand in the list of the largest ones."""


def largest(findings: Findings) -> Iterator[str]:
    """Yield the largest mappings when most was mapped, with whose they are and how sure that is."""
    space = findings.main_space
    if space is None:
        return
    pieces = address_map.pieces_at(findings.run, space, findings.peak_clock)
    rows = [
        [
            f"{piece.bytes:,}",
            piece.perms,
            clean(findings.owner(piece)),
            str(findings.places.of_clock(piece.made_clock) or "before the log"),
        ]
        for piece in pieces.largest(LARGEST)
    ]
    if len(rows) > 1:
        yield from aside(f"{findings.places.of_clock(findings.peak_clock)}, when most was mapped")
        yield from table(["bytes", "", "whose", "made by"], rows, right=(0,), give=(2,))


def askers(findings: Findings) -> Iterator[str]:
    """Yield who made the break and the mappings grow, where strace shows call stacks."""
    if findings.malloc is not None or not findings.run.source.framed:
        return
    from replay.run.stacks import growth_sites

    rows = [
        [
            f"{one.calls:,}",
            one.what,
            clean(one.site),
            f"{one.bytes:,}",
            short_span(findings.places.of_step(one.first_step), findings.places.of_step(one.last_step)),
        ]
        for one in growth_sites(findings.run)
    ]
    if rows:
        head = ["count", "what", "asked by", "bytes in all", "lines"]
        yield from table(head, rows[:LARGEST], right=(0, 3), give=(2,))
        yield from more(len(rows) - LARGEST, "functions")


def _blocker_start(findings: Findings, space: int) -> int | None:
    """Return where the blocker of the last failure in a space begins."""
    failed = findings.run.activity.brk_failures
    mine = np.flatnonzero((failed["space"] == space) & (failed["blocker_start"] != NULL))
    return int(failed["blocker_start"][mine[-1]]) if mine.size else None


def _note(findings: Findings, part: address_map.Part) -> str:
    """Return what points at the mapping in the way, with the line that made it."""
    if part.role != "blocker":
        return ""
    place = findings.places.of_clock(int(part.pieces.made_clock[0]))
    return f"◀ in the way, {place}" if place else "◀ in the way"


_USES: Final = {
    "fallback": "fallback",
    "last_resort": "last resort",
    "direct": "large block",
    "arena_heap": "arena heap",
    "pool": "pool",
}


def _use(findings: Findings, part: address_map.Part) -> str:
    """Return what allocators use a part for: `45 fallbacks`."""
    counts = findings.kinds_made_by(part.pieces.made_steps)
    return ", ".join(number(count, _USES[kind]) for kind, count in counts.items())


_LEAST_FRAGMENTATION: Final = 0.01
"""From this share on, gaps besides the largest are worth a number."""


def _gaps(pieces: address_map.Pieces) -> Iterator[str]:
    gaps = address_map.gaps_of(pieces)
    total = gaps.bytes
    if not total:
        return
    largest = gaps.largest(3)
    yield ""
    share = 1 - largest[0].bytes / total
    measure = f" (address fragmentation {share:.3f})" if share >= _LEAST_FRAGMENTATION else ""
    yield from paragraph(
        f"{number(len(gaps), 'gap')} between the mappings, {size(total)} in all; the largest holds "
        f"{percent(largest[0].bytes, total)} of it{measure}:"
    )
    for gap in largest:
        yield f"    {address(gap.start)}-{address(gap.end)}  {exact(gap.bytes)}"


def _kinds(pieces: address_map.Pieces) -> Iterator[str]:
    kinds = address_map.kinds_of(pieces)
    total = sum(row[2] for row in kinds)
    rows = [[kind, f"{count:,}", f"{bytes_:,}", size(bytes_), percent(bytes_, total)] for kind, count, bytes_ in kinds]
    rows.append(["all", f"{sum(row[1] for row in kinds):,}", f"{total:,}", size(total), ""])
    yield ""
    yield from table(["mapped", "mappings", "bytes", "", "share"], rows, right=(1, 2, 3, 4))


def curves(findings: Findings) -> Iterator[str]:
    """Yield how the main space grew over the log."""
    space = findings.main_space
    if space is None:
        return
    mapped = findings.curve("mapped_bytes")
    if not len(mapped.clocks):
        return
    first, last = int(mapped.clocks[0]), int(mapped.clocks[-1])
    if last - first < 2:
        return
    whose = f"{findings.spaces[space].name}, " if len(findings.spaces) > 1 else ""
    ends = [findings.places.of_clock(clock) or Place(clock) for clock in (first, last)]
    yield from aside(f"{whose}{span(*ends)}, from left to right")
    yield from _curve(findings, "mapped", "mapped_bytes", (first, last))
    yield from _curve(findings, "brk area", "brk_bytes", (first, last))
    yield from _curve(findings, "headroom", "headroom_bytes", (first, last))


def _curve(findings: Findings, label: str, column: str, ends: tuple[int, int]) -> Iterator[str]:
    """Yield a curve and below it its extremes with their lines; of the headroom the least counts."""
    curve = findings.curve(column)
    if not curve.values.size or not curve.values.max():
        return
    lowest = column == "headroom_bytes"
    if lowest and int(curve.values.min()) * 2 > int(curve.values.max()):
        return  # there was room all the time
    bars = drawing.curve_line(curve, *ends, lowest=lowest, logarithmic=lowest)
    yield f"  {label:<9} {styled('cool', bars)}"
    at = int(curve.values.argmin() if lowest else curve.values.argmax())
    amount = int(curve.values[at])
    extreme = f"{'least' if lowest else 'peak'} {exact(amount) if amount < _VAST else size(amount)}"
    where = findings.places.of_clock(int(curve.clocks[at]))
    scale = " (log scale)" if lowest else ""
    yield from aside(f"{extreme}, {where}; at the end {size(int(curve.values[-1]))}{scale}", indent=" " * 12)
