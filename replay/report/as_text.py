"""The report as a letter: the verdict first, then what it means, then the findings one by one, each with its lines.

In go findings, out come lines with style marks, no wider than the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from replay.console import amounts
from replay.console.amounts import address, duration, exact, number, percent, size
from replay.console.screen import clean, shortened, styled, wrapped
from replay.console.table import table
from replay.console.terminal import width
from replay.engine.columns import NULL
from replay.report import address_map, advice, drawing
from replay.report.cannot_tell import cannot_tell
from replay.report.facts import FailureGroup, MappingGroup, SpaceFacts
from replay.report.findings import Findings
from replay.report.verdict import MOST_REFUSALS, verdict
from replay.run.places import Place, short_span, span

if TYPE_CHECKING:
    from replay.run.api import Run

MOST_ROWS: Final = 10
"""As many rows of one table the letter shows; the rest is in the JSON document."""

_VAST: Final = 1 << 40
"""Bytes from which an amount is not told exactly."""

FIRST_SECTIONS: Final = 4
"""So many sections are the first screen."""

Section: TypeAlias = Callable[[Findings], Iterator[str]]


def letter(run: Run) -> Iterator[str]:
    """Yield the lines of the report on a run."""
    findings = Findings(run)
    yield from _told(findings, _sections(findings))
    yield ""
    yield from _lines_read(findings)


def first_screen(run: Run) -> Iterator[str]:
    """Yield what stands first in the report: the verdict, what it means, what to try, what the log cannot tell."""
    yield from _told(Findings(run), SECTIONS[:FIRST_SECTIONS])


def _told(findings: Findings, sections: Iterable[tuple[str, Section]]) -> Iterator[str]:
    """Yield the title and the sections that have something to say, each with its heading."""
    yield from _title(findings)
    for heading, section in sections:
        lines = list(section(findings))
        if lines:
            yield ""
            yield styled("title", heading)
            yield from lines


def _sections(findings: Findings) -> Iterator[tuple[str, Section]]:
    """Yield the sections, those about malloc before the picture of the address space."""
    for heading, section in SECTIONS:
        if section is _layout and findings.malloc is not None:
            from replay.report.malloc import as_text as about_malloc

            yield from about_malloc.sections()
        yield heading, section


def _paragraph(text: str) -> list[str]:
    return wrapped(text, first="  ")


def _item(text: str) -> list[str]:
    return wrapped(text, first="  - ")


def _dim(text: str, indent: str = "  ") -> list[str]:
    return [styled("dim", line) for line in wrapped(text, first=indent)]


def _more(left: int, what: str) -> list[str]:
    """Return the line that says how many rows of a table were left out, if any."""
    return [styled("dim", f"  and {left:,} more {what}: --json has all")] if left > 0 else []


# --- head and verdict ------------------------------------------------------------------------------------------------


def _title(findings: Findings) -> Iterator[str]:
    source, summary = findings.run.source, findings.run.summary_values
    files = [clean(path) for path in source.files]
    name = files[0] if files[0] != "-" else "standard input"
    also = f" and {len(files) - 1} more" if len(files) > 1 else ""
    yield styled("title", shortened(name, width() - len(also)) + also)
    facts = [number(source.counters.lines, "line") + f" of {source.dialect}", _who(findings)]
    if summary["duration_ns"]:
        facts.append(duration(summary["duration_ns"]))
    yield styled("dim", shortened(", ".join(fact for fact in facts if fact), width()))


def _who(findings: Findings) -> str:
    """Return who ran: `../prog (pid 2733)`, `3 processes, 5 threads`."""
    replayed, spaces = findings.run.replayed, findings.spaces
    if replayed.processes > 1:
        threads = f", {replayed.threads} threads" if replayed.threads > replayed.processes else ""
        return f"{number(replayed.processes, 'process', 'processes')}{threads}"
    if not spaces:
        return ""
    program = shortened(clean(spaces[0].program), 40) or "a program"
    pid = f" (pid {spaces[0].pid})" if spaces[0].pid is not None else ""
    threads = f", {replayed.threads} threads" if replayed.threads > 1 else ""
    return f"{program}{pid}{threads}"


def _verdict(findings: Findings) -> Iterator[str]:
    for paragraph in verdict(findings):
        text = amounts.grouped(clean(paragraph.text))
        yield from _paragraph(styled(paragraph.tone, text) if paragraph.tone else text)


def _meaning(findings: Findings) -> Iterator[str]:
    return chain.from_iterable(map(_paragraph, advice.meaning(findings)))


FIRST_ADVICE: Final = 2
"""As many pieces of advice stand on the first screen."""


def _to_try(findings: Findings) -> Iterator[str]:
    return chain.from_iterable(map(_item, advice.to_try(findings)[:FIRST_ADVICE]))


def _more_to_try(findings: Findings) -> Iterator[str]:
    return chain.from_iterable(map(_item, advice.to_try(findings)[FIRST_ADVICE:]))


def _cannot_tell(findings: Findings) -> Iterator[str]:
    """Yield the open questions, those with one reason together, each reason with its command."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in cannot_tell(findings):
        reasons.setdefault((one.because, one.command), []).append(one.question)
    commands: dict[str, list[str]] = {}
    for (because, command), questions in reasons.items():
        commands.setdefault(command, []).append(f"{', '.join(questions)}: {because}")
    for command, said in commands.items():
        for text in said:
            yield from _item(text[0].upper() + text[1:])
        for line in command.splitlines():
            yield from wrapped(line, first="      ", rest="        ")


def _allocators(findings: Findings) -> Iterator[str]:
    if not findings.memory_calls:
        return
    several = len(findings.spaces) > 1
    alike: dict[tuple[str, str], tuple[str, str, list[int]]] = {}
    for name, evidence, spaces in findings.allocators:
        alike.setdefault((name, _LINE.sub("", evidence)), (name, evidence, []))[2].extend(spaces)
    found = list(alike.values())
    for name, evidence, spaces in found[:MOST_ROWS]:
        where = f" [{_spaces_text(spaces)}]" if several else ""
        yield from wrapped(f"{clean(name)}: {clean(evidence)}{where}", first="  ", rest="    ")
    yield from _more(len(found) - MOST_ROWS, "allocators")


_LINE: Final = re.compile(r" \(line \d+\)$")


def _spaces_text(spaces: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(spaces)[:6]))
    more = f" and {len(spaces) - 6} more" if len(spaces) > 6 else ""
    return f"space{'s' if len(spaces) > 1 else ''} {shown}{more}"


# --- failed brk calls and the mappings of allocators -----------------------------------------------------------------


def _failures(findings: Findings) -> Iterator[str]:
    groups = sorted(findings.failure_groups, key=lambda group: -group.count)
    if not groups:
        return
    shown = sorted(groups[:MOST_ROWS], key=lambda group: group.first_step)
    several = len(findings.spaces) > 1
    head = ["count", "lines", "cause", "in the way", "short by (bytes)"]
    rows = [_failure_row(findings, group) for group in shown]
    if several:
        head.insert(2, "space")
        for row, group in zip(rows, shown, strict=True):
            row.insert(2, str(group.space))
    yield from table(
        head,
        rows,
        right=(0, len(head) - 1),
        give=(len(head) - 2,),
    )
    yield from _more(len(groups) - MOST_ROWS, "groups")


def _failure_row(findings: Findings, group: FailureGroup) -> list[str]:
    places = findings.places
    lines = short_span(places.of_step(group.first_step), places.of_step(group.last_step))
    least, most = f"{group.least_short:,}", f"{group.most_short:,}"
    short = least if least == most else f"{least}-{most}"
    return [f"{group.count:,}", lines, group.cause, clean(_in_the_way(group)), short]


def _in_the_way(group: FailureGroup) -> str:
    """Return what refused the break, in a few words."""
    blocker = group.blocker
    if blocker is not None:
        name = PurePath(blocker.path).name or blocker.perms
        made = f" ({blocker.place})" if blocker.place else " (before the log)"
        return f"{address(blocker.start)} {name}{made}"
    if group.limit_bytes is not None:
        where = f" ({group.limit_place})" if group.limit_place else ""
        return f"{size(group.limit_bytes)}{where}"
    return "not in the log" if group.cause == "unknown" else ""


def _fallbacks(findings: Findings) -> Iterator[str]:
    groups = findings.fallback_groups
    rows = [_fallback_row(findings, group) for group in groups[:MOST_ROWS]]
    if rows:
        yield from table(["count", "kind", "bytes each", "bytes in all", "lines"], rows, right=(0, 2, 3), give=(4,))
        yield from _more(len(groups) - MOST_ROWS, "sizes")


def _fallback_row(findings: Findings, group: MappingGroup) -> list[str]:
    kind = group.kind.replace("_", " ") + (f", {group.errno}" if group.errno else "")
    total = f"{group.total_bytes:,} ({size(group.total_bytes)})" if not group.errno else "none"
    return [f"{group.count:,}", kind, f"{group.bytes_each:,}", total, _lines(findings, group)]


def _lines(findings: Findings, group: MappingGroup) -> str:
    return short_span(findings.places.of_step(group.first_step), findings.places.of_step(group.last_step))


_KIND_WORDS: Final = {
    "direct": "large blocks",
    "arena_heap": "heaps of arenas",
    "pool": "pools",
}


def _others(findings: Findings) -> Iterator[str]:
    groups = findings.other_groups
    rows = [
        [
            f"{group.count:,}",
            _KIND_WORDS.get(group.kind, group.kind) + (f", {group.errno}" if group.errno else ""),
            group.allocator,
            f"{group.total_bytes:,} ({size(group.total_bytes)})",
            _lines(findings, group),
        ]
        for group in groups[:MOST_ROWS]
    ]
    if rows:
        yield from table(["count", "what", "allocator", "bytes in all", "lines"], rows, right=(0, 3), give=(1,))
        yield from _more(len(groups) - MOST_ROWS, "kinds")
    heaps = findings.arena_heaps
    if heaps.count:
        yield from _dim(
            f"Heaps of arenas are reserves of addresses: {size(heaps.reserved_bytes)} in all, of which "
            f"{size(heaps.used_bytes)} were made usable."
        )


def _refused(findings: Findings) -> Iterator[str]:
    groups = findings.refused
    if len(groups) <= MOST_REFUSALS:
        return
    rows = [
        [
            f"{group.count:,}",
            group.call,
            group.errno,
            f"{group.most_bytes:,}",
            short_span(findings.places.of_step(group.first_step), findings.places.of_step(group.last_step)),
        ]
        for group in groups[:MOST_ROWS]
    ]
    yield from table(["count", "call", "error", "bytes at most", "lines"], rows, right=(0, 3), give=(4,))
    yield from _more(len(groups) - MOST_ROWS, "groups")


# --- the address space -----------------------------------------------------------------------------------------------


def _layout(findings: Findings) -> Iterator[str]:
    space, moment = findings.main_space, findings.moment
    if space is None or moment is None:
        return
    clock, occasion = moment
    pieces = address_map.pieces_at(findings.run, space, clock)
    if not pieces:
        return
    whose = f"space {space}, " if len(findings.spaces) > 1 else ""
    yield from _dim(f"{whose}{findings.places.of_clock(clock)}, {occasion}; high addresses at the top")
    blocker = _blocker_start(findings, space)
    parts = address_map.parts_of(pieces, blocker)
    yield from drawing.layout_lines(parts, lambda part: _use(findings, part), lambda part: _note(findings, part))
    if not findings.has_maps:
        unseen = "was there before the log" if findings.begins_late else "the kernel maps at execve"
        yield from _dim(f"What {unseen} (program, ld.so, stack, vdso) no call shows; --maps FILE adds it.")
    yield from _gaps(pieces)
    yield from _kinds(pieces)
    yield from _touchable(findings)


def _touchable(findings: Findings) -> Iterator[str]:
    """Yield how much of what is mapped can be resident at all: what has no access is only reserved."""
    summary = findings.run.summary_values
    mapped, most = summary["peak_mapped_bytes"], summary["resident_at_most_bytes"]
    yield ""
    reserved = f"{size(mapped - most)} of them without access, only reserved: " if most < mapped else ""
    yield from _paragraph(
        f"Mapped is not resident: at the peak {size(mapped)} were mapped, {reserved}at most {size(most)} can have been "
        f"resident. At the end {size(summary['end_mapped_bytes'])} were mapped."
    )


LARGEST: Final = 8
"""As many mappings stand in the list of the largest ones."""


def _largest(findings: Findings) -> Iterator[str]:
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
        yield from _dim(f"{findings.places.of_clock(findings.peak_clock)}, when most was mapped")
        yield from table(["bytes", "", "whose", "made by"], rows, right=(0,), give=(2,))


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


def _gaps(pieces: address_map.Pieces) -> Iterator[str]:
    gaps = address_map.gaps_of(pieces)
    total = gaps.bytes
    if not total:
        return
    largest = gaps.largest(3)
    yield ""
    share = 1 - largest[0].bytes / total
    yield from _paragraph(
        f"{number(len(gaps), 'gap')} between the mappings, {size(total)} in all; the largest holds "
        f"{percent(largest[0].bytes, total)} of it (address fragmentation {share:.3f}):"
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


def _curves(findings: Findings) -> Iterator[str]:
    space = findings.main_space
    if space is None:
        return
    mapped = findings.curve("mapped_bytes")
    if not len(mapped.clocks):
        return
    first, last = int(mapped.clocks[0]), int(mapped.clocks[-1])
    if last - first < 2:
        return
    whose = f"space {space}, " if len(findings.spaces) > 1 else ""
    ends = [findings.places.of_clock(clock) or Place(clock) for clock in (first, last)]
    yield from _dim(f"{whose}{span(*ends)}, from left to right")
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
        yield f"  {label:<9} {size(int(curve.values.min()))} or more all the time"
        return
    bars = drawing.curve_line(curve, *ends, lowest=lowest, logarithmic=lowest)
    yield f"  {label:<9} {styled('cool', bars)}"
    at = int(curve.values.argmin() if lowest else curve.values.argmax())
    amount = int(curve.values[at])
    extreme = f"{'least' if lowest else 'peak'} {exact(amount) if amount < _VAST else size(amount)}"
    where = findings.places.of_clock(int(curve.clocks[at]))
    scale = " (log scale)" if lowest else ""
    yield from _dim(f"{extreme}, {where}; at the end {size(int(curve.values[-1]))}{scale}", indent=" " * 12)


# --- processes -------------------------------------------------------------------------------------------------------


def _processes(findings: Findings) -> Iterator[str]:
    spaces = findings.spaces
    if len(spaces) < 2:
        return
    chosen = sorted(spaces, key=lambda facts: (-facts.failures, -facts.peak_mapped, facts.space))[:MOST_ROWS]
    rows = [_space_row(facts) for facts in sorted(chosen, key=lambda facts: facts.space)]
    head = ["space", "pid", "made by", "lines", "peak mapped", "failed brk", "program"]
    if findings.places.several:
        head, rows = _without(head, 3), [_without(row, 3) for row in rows]
    yield from table(
        head,
        rows,
        right=[head.index(name) for name in _COUNTED if name in head],
        give=(len(head) - 1,),
    )
    yield from _more(len(spaces) - len(chosen), "address spaces")


_COUNTED: Final = ("space", "pid", "peak mapped", "failed brk")


def _without(row: list[str], column: int) -> list[str]:
    return row[:column] + row[column + 1 :]


def _space_row(facts: SpaceFacts) -> list[str]:
    made = {"found": "-", "exec": "execve", "fork": f"fork of {facts.parent}"}[facts.origin]
    first = str(facts.first.line) if facts.first else "?"
    last = str(facts.last.line) if facts.last else ""
    return [
        str(facts.space),
        "" if facts.pid is None else str(facts.pid),
        made,
        f"{first}-{last}",
        size(facts.peak_mapped),
        f"{facts.failures:,}" if facts.failures else "-",
        clean(facts.program) or "?",
    ]


# --- what was read ---------------------------------------------------------------------------------------------------


def _problems(findings: Findings) -> Iterator[str]:
    groups = findings.problems
    for group in groups[:MOST_ROWS]:
        head = f"{group.count:,} x {group.reason.replace('_', ' ')}, first {group.first}:"
        yield from wrapped(head, first="  ")
        yield "    " + shortened(clean(group.text), width() - 4)
    yield from _more(len(groups) - MOST_ROWS, "reasons")


def _lines_read(findings: Findings) -> Iterator[str]:
    read = findings.run.source.counters
    text = (
        f"{number(read.lines, 'line')} read: {read.lines_understood:,} understood, {read.lines_passed_over:,} passed "
        f"over (they do not concern memory), {read.lines_not_understood:,} not understood."
    )
    yield from _dim(text, indent="")


SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("Verdict", _verdict),
    ("What it means", _meaning),
    ("What to try", _to_try),
    ("What this log cannot tell", _cannot_tell),
    ("Also worth a try", _more_to_try),
    ("Allocator", _allocators),
    ("Failed brk calls", _failures),
    ("Fallbacks", _fallbacks),
    ("Other mappings of allocators", _others),
    ("Other calls refused", _refused),
    ("Address space", _layout),
    ("Largest mappings", _largest),
    ("Over the log", _curves),
    ("Address spaces of the run", _processes),
    ("Problems in the log", _problems),
)
"""The sections of the letter in order; one that has nothing to say is left out."""
