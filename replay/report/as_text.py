"""The report as text: the first screen, then the findings one by one, each with its lines.

In go findings, out come lines with style marks, no wider than the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, TypeAlias

from replay.console.amounts import address, number, size
from replay.console.screen import clean, shortened, wrapped
from replay.console.table import table
from replay.console.terminal import width
from replay.report.cannot_tell import cannot_tell
from replay.report.facts import FailureGroup, MappingGroup, SpaceFacts
from replay.report.findings import Findings
from replay.report.first_screen import by_command, headed, with_advice_left
from replay.report.paragraphs import aside, item, more
from replay.report.space_sections import askers, curves, largest, layout
from replay.report.verdict import MOST_REFUSALS
from replay.run.places import short_span

if TYPE_CHECKING:
    from replay.run.api import Run

MOST_ROWS: Final = 10
"""As many rows of one table the report shows; the rest is in the JSON document."""


Section: TypeAlias = Callable[[Findings], Iterator[str]]


def text_report(run: Run) -> Iterator[str]:
    """Yield the lines of the report on a run."""
    findings = Findings(run)
    lines, advice = with_advice_left(findings)
    yield from lines
    yield from headed("Also worth a try", list(chain.from_iterable(map(item, advice))))
    for heading, section in _sections(findings):
        yield from headed(heading, list(section(findings)))
    yield ""
    yield from _lines_read(findings)


def _sections(findings: Findings) -> Iterator[tuple[str, Section]]:
    """Yield the sections, those about malloc before the picture of the address space."""
    for heading, section in SECTIONS:
        if section is layout and findings.malloc is not None:
            from replay.report.malloc import as_text as about_malloc

            yield from about_malloc.sections()
        yield heading, section


# --- commands and allocators ------------------------------------------------------------------------------------------


def _other_commands(findings: Findings) -> Iterator[str]:
    """Yield the commands that tell the same as those on the first screen."""
    for command, said in by_command(cannot_tell(findings)).items():
        for other in command.splitlines()[1:]:
            yield from item(", ".join(text.partition(":")[0] for text in said))
            yield from wrapped(other, first="      ", rest="        ")


def _allocators(findings: Findings) -> Iterator[str]:
    if not findings.memory_calls:
        return
    several = len(findings.spaces) > 1
    alike: dict[tuple[str, str], tuple[str, str, list[int]]] = {}
    for name, evidence, spaces in findings.allocators:
        alike.setdefault((name, re.sub(_LINE, "", evidence)), (name, evidence, []))[2].extend(spaces)
    found = list(alike.values())
    for name, evidence, spaces in found[:MOST_ROWS]:
        where = f" [{_spaces_text(spaces)}]" if several else ""
        yield from wrapped(f"{clean(name)}: {clean(evidence)}{where}", first="  ", rest="    ")
    yield from more(len(found) - MOST_ROWS, "allocators")


_LINE: Final = r" \(line \d+\)$"


def _spaces_text(spaces: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(spaces)[:6]))
    rest = f" and {len(spaces) - 6} more" if len(spaces) > 6 else ""
    return f"space{'s' if len(spaces) > 1 else ''} {shown}{rest}"


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
    yield from more(len(groups) - MOST_ROWS, "groups")


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
        yield from more(len(groups) - MOST_ROWS, "sizes")


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
        yield from more(len(groups) - MOST_ROWS, "kinds")
    heaps = findings.arena_heaps
    if heaps.count:
        yield from aside(
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
    yield from more(len(groups) - MOST_ROWS, "groups")


# --- the address space -----------------------------------------------------------------------------------------------


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
    yield from more(len(spaces) - len(chosen), "address spaces")


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
    yield from more(len(groups) - MOST_ROWS, "reasons")


def _lines_read(findings: Findings) -> Iterator[str]:
    read = findings.run.source.counters
    text = (
        f"{number(read.lines, 'line')} read: {read.lines_understood:,} understood, {read.lines_passed_over:,} passed "
        f"over (they do not concern memory), {read.lines_not_understood:,} not understood."
    )
    yield from aside(text, indent="")


SECTIONS: Final[tuple[tuple[str, Section], ...]] = (
    ("With ltrace in place of replay record", _other_commands),
    ("Allocator", _allocators),
    ("Failed brk calls", _failures),
    ("Fallbacks", _fallbacks),
    ("Other mappings of allocators", _others),
    ("Other calls refused", _refused),
    ("Address space", layout),
    ("Largest mappings", largest),
    ("Who asked for memory", askers),
    ("Over the log", curves),
    ("Address spaces of the run", _processes),
    ("Problems in the log", _problems),
)
"""The sections below the first screen in order; one that has nothing to say is left out."""
