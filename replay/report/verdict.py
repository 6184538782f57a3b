"""The verdict in sentences: did the break fail, why, what did the libc do then, and what the log cannot tell.

In go findings, out come paragraphs with their tone; how they are laid out this module does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replay.console.amounts import exact, number, size, times
from replay.linux import constants
from replay.logs.recordings import peak_resident
from replay.report.cannot_tell import STRACE
from replay.report.facts import FailureGroup, MappingGroup, Paragraph
from replay.report.findings import Findings, malloc_of
from replay.run.places import span


def verdict(findings: Findings) -> list[Paragraph]:
    """Return the verdict, the most important paragraph first; lines that could not be read stand before all."""
    unread = [Paragraph(findings.unread.sentence, "bad")] if findings.unread is not None else []
    reservations = _reservations(findings) if findings.memory_calls else ()
    judgement, of_malloc = list(_judgement(findings)), list(_of_malloc(findings))
    first = [*judgement, *of_malloc] if findings.failures else [*of_malloc, *judgement]
    return [*unread, *first, *_refusals(findings), *reservations, *_resident(findings)]


def _of_malloc(findings: Findings) -> Iterator[Paragraph]:
    if findings.malloc is not None:
        from replay.report.malloc.verdict import verdict

        yield from verdict(findings.malloc)


def _judgement(findings: Findings) -> Iterator[Paragraph]:
    if findings.failures:
        yield Paragraph(_failed(findings), "bad")
        yield from _reasons(findings)
        yield from _fallbacks(findings)
    elif len(findings.denied_queries):
        yield Paragraph(_denied(findings), "bad")
    elif not findings.memory_calls:
        yield from _nothing_to_judge(findings)
    elif findings.system_calls:
        yield Paragraph(_sound(findings) + _unanswered(findings))
        if not findings.malloc_calls:
            yield from _mapped(findings)


def _nothing_to_judge(findings: Findings) -> Iterator[Paragraph]:
    if findings.malloc_calls:
        return
    if findings.unread is not None:
        yield Paragraph("Besides these the log has no call that concerns memory: it cannot be judged.")
    else:
        yield Paragraph("Nothing can be said: the log has no call that concerns memory (brk, mmap and their kin).")
    yield Paragraph(f"A log that tells more: {STRACE}")


def _denied(findings: Findings) -> str:
    steps = findings.denied_queries
    errnos = {constants.ERRNO_NAME.get(errno, str(errno)) for errno in findings.events.at("errno", steps).tolist()}
    lines = span(*(findings.places.of_step(int(step)) for step in (steps[0], steps[-1])))
    return (
        f"brk was refused with {', '.join(sorted(errnos))} ({lines}), which Linux itself never does: a seccomp filter, "
        "an emulator or another kernel answers. The break is not known, and malloc can live on mmap only."
    )


def _failed(findings: Findings) -> str:
    groups = findings.failure_groups
    tries = findings.moves.asked
    where = _whose(findings, {group.space for group in groups})
    lines = span(*(findings.places.of_step(step) for step in _ends(groups)))
    share = "" if tries <= findings.failures else f" in {tries:,} tries"
    again = _recovery(findings)
    when = f"{findings.when.lstrip().capitalize()} the" if findings.when.startswith(" from") else "The"
    return f"{when} break failed to grow {times(findings.failures)}{share} ({lines}){where}{again}."


def _whose(findings: Findings, failing: set[int]) -> str:
    """Return in which of several address spaces the break failed, empty where there is only one."""
    if len(findings.spaces) == 1:
        return ""
    if len(failing) > 1:
        return f", in {len(failing):,} of {len(findings.spaces):,} spaces"
    return f", in {findings.spaces[failing.pop()].name}"


def _ends(groups: list[FailureGroup] | list[MappingGroup]) -> tuple[int, int]:
    """Return the first and the last step of all groups."""
    return min(group.first_step for group in groups), max(group.last_step for group in groups)


def _reasons(findings: Findings) -> Iterator[Paragraph]:
    groups = sorted(findings.failure_groups, key=lambda group: -group.count)
    first = groups[0]
    if len(groups) == 1:
        yield Paragraph(f"Why: {first.evidence}.")
        return
    yield Paragraph(f"Why, {times(first.count)}: {first.evidence}.")
    if len(groups) == 2:
        yield Paragraph(f"And {times(groups[1].count)}: {groups[1].evidence}.")
        return
    causes: dict[str, int] = {}
    for group in groups[1:]:
        causes[group.cause] = causes.get(group.cause, 0) + group.count
    others = ", ".join(f"{cause.replace('_', ' ')} {times(count)}" for cause, count in causes.items())
    yield Paragraph(f"For the rest: {others}; the table below has each.")


def _fallbacks(findings: Findings) -> Iterator[Paragraph]:
    groups = findings.fallback_groups
    granted = [group for group in groups if not group.errno]
    refused = [group for group in groups if group.errno]
    who = malloc_of(findings, findings.failure_groups[0].space)
    who = "malloc" if who == "unknown" else who
    if granted:
        count, total = sum(group.count for group in granted), sum(group.total_bytes for group in granted)
        lines = span(*(findings.places.of_step(step) for step in _ends(granted)))
        yield Paragraph(f"{who} fell back to mmap {times(count)} ({lines}): {exact(total)}.")
    if refused:
        count = sum(group.count for group in refused)
        lines = span(*(findings.places.of_step(step) for step in _ends(refused)))
        what = f"{times(count).capitalize()} that was refused as well"
        if not granted:
            what = f"{who} tried mmap instead, and was refused {'every time' if count > 1 else 'as well'}"
        yield Paragraph(f"{what} ({_errors(refused)}, {lines}).", "bad")
    if not groups:
        yield Paragraph(f"No mmap{_that_was_read(findings)} stood in for it.")


def _that_was_read(findings: Findings) -> str:
    """Return what "no brk", "no mmap" has to be followed by: empty where every line that names such a call was read."""
    return " that could be read" if findings.unread is not None and findings.unread.of_system else ""


def _errors(groups: list[MappingGroup]) -> str:
    return ", ".join(sorted({group.errno for group in groups}))


def _recovery(findings: Findings) -> str:
    """Return from where on the break grew again after its last failure, where it did."""
    groups = findings.failure_groups
    if len({group.space for group in groups}) > 1:
        return ""
    again = findings.grew_after(groups[0].space, _ends(groups)[1])
    return "" if again is None else f", and grew again from {findings.places.of_step(again)} on"


def _sound(findings: Findings) -> str:
    """Return what is to be said where no brk failed."""
    moves, allocator, when = findings.moves, malloc_of(findings, findings.main_space or 0), findings.when
    read = _that_was_read(findings)
    refused = f"No brk{read} was refused"
    shrank = f"shrank {times(moves.shrank)}, by {exact(moves.shrank_bytes)}" if moves.shrank else "never shrank"
    if moves.grew:
        each = f", mostly by {size(moves.usual_growth)}" if moves.grew >= _MANY_GROWTHS else ""
        grew = f"grew {times(moves.grew)}{each}, by {exact(moves.grew_bytes)} in all"
        return f"{refused}{when}: the break {grew}, and {shrank}."
    if moves.shrank:
        before = " Whether it grew before the log begins is not known." if findings.begins_late else ""
        return f"{refused}{when}: the break {shrank}.{before}"
    pools = sum(group.count for group in findings.other_groups if group.kind == "pool" and not group.errno)
    instead = f"; {allocator} takes its memory by mmap" if pools and allocator != "unknown" else ""
    if moves.queried and not read and not len(findings.unanswered_brks):
        return f"{refused}{when}: the program never asks the break to grow{instead}."
    if len(findings.run.replayed.brks["step"]):
        return f"{refused}, and the log shows no growth of the break{when}{instead}."
    return (
        f"No brk call{read} was made{when}{instead}."
        if when
        else f"The log has no brk call{read or ' at all'}{instead}."
    )


def _unanswered(findings: Findings) -> str:
    """Return that a brk has no answer in the log, as where the program was killed in it; empty where all have one."""
    steps = findings.unanswered_brks
    if not len(steps):
        return ""
    lines = span(*(findings.places.of_step(int(step)) for step in (steps[0], steps[-1])))
    return f" What became of {number(len(steps), 'more brk')} ({lines}) the log does not show."


_MANY_GROWTHS: Final = 20
"""From so many growths on the usual one is told. Heuristic."""


def _mapped(findings: Findings) -> Iterator[Paragraph]:
    """Yield what strace shows of the rest of the heap: how far the mappings grew, and whether they went back."""
    if findings.main_space is None:
        return
    grew, grown, shrank, given_back = findings.other_moves
    if grew:
        back = f"gave {exact(given_back)} back ({times(shrank)})" if shrank else "gave nothing back"
        whose = f" of {findings.spaces[findings.main_space].name}" if len(findings.spaces) > 1 else ""
        yield Paragraph(
            f"The other mappings{whose} grew {times(grew)}{findings.when}, by {exact(grown)} in all, and {back}."
        )
    yield from _reserved(findings)


def _reserved(findings: Findings) -> Iterator[Paragraph]:
    """Yield how much of what was mapped at the peak had no access, where that is much: no memory was in use there."""
    summary = findings.run.summary_values
    mapped, reserved = summary["peak_mapped_bytes"], summary["peak_mapped_bytes"] - summary["resident_at_most_bytes"]
    if reserved and reserved >= MUCH_RESERVED * mapped:
        assert findings.run.footprint.peak is not None
        peak = findings.places.of_step(findings.run.replayed.changes.one("step", findings.run.footprint.peak))
        own = summary["recorder_bytes"]
        recorder = f", and {size(own)} the recorder's own" if own else ""
        yield Paragraph(
            f"At the peak ({peak}) {size(mapped)} were mapped, {size(reserved)} of them without access, only reserved"
            f"{recorder}."
        )


def _resident(findings: Findings) -> Iterator[Paragraph]:
    """Yield how much was resident at most, where a recording tells it."""
    found = peak_resident(findings.run.source.files)
    if found is not None:
        most, pid = found
        names = (space.name for space in reversed(findings.spaces) if space.pid == pid)
        whose = f" of {next(names, f'process {pid}')}" if len(findings.spaces) > 1 else ""
        own = findings.run.summary_values["recorder_bytes"]
        recorder = f", up to {size(own)} of them the recorder's own" if own else ""
        yield Paragraph(f"At most {size(most)}{whose} were resident at once, as the kernel counted (VmHWM){recorder}.")


MUCH_RESERVED: Final = 0.1
"""From this share of what is mapped on, memory without access is spoken of. Heuristic."""


MOST_REFUSALS: Final = 3


def _refusals(findings: Findings) -> Iterator[Paragraph]:
    """Yield what else was refused, whatever the error; what only asks whether a place is free is no fault."""
    from replay.report.refusals import sentence

    groups = sorted(findings.refused, key=lambda group: group.is_probe)
    for group in groups[:MOST_REFUSALS]:
        yield Paragraph(sentence(findings, group), "" if group.is_probe else "bad")
    left = sum(group.count for group in groups[MOST_REFUSALS:])
    if left:
        yield Paragraph(f"{number(left, 'other call')} for memory {'was' if left == 1 else 'were'} refused: see below.")


def _reservations(findings: Findings) -> Iterator[Paragraph]:
    """Yield what the log lacks for a sure verdict."""
    lacks = ["the log begins in the middle of the run (--maps FILE adds what was mapped then)"] * findings.begins_late
    lacks += _ends_early(findings)
    if lacks:
        yield Paragraph(f"Mind: {', and '.join(lacks)}.")


def _ends_early(findings: Findings) -> Iterator[str]:
    """Yield what the log lacks at its end, if anything."""
    left = findings.spaces_left
    if findings.cut_at is not None:
        yield f"the log is cut off in the middle of {findings.cut_at}"
    elif findings.log_end == "killed":
        yield "the program was killed; it did not end by itself"
    elif left:
        several = len(findings.spaces) > 1
        yield f"the log ends before the exit of {number(left, 'process', 'processes')}" if several else _BEFORE_EXIT


_BEFORE_EXIT: Final = "the log ends before the program's exit"
