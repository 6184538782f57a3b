"""The first screen of the report: the verdict, what it means, what to try, and what the log cannot tell.

In go findings, out come lines with style marks that fit a screen of 24 lines and 80 columns, as far as that can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from replay.calls.reader import OK
from replay.console import amounts
from replay.console.amounts import duration, number
from replay.console.screen import cells, clean, shortened, styled, wrapped
from replay.console.terminal import width
from replay.logs.recordings import is_recorded
from replay.report import advice
from replay.report.cannot_tell import Open, cannot_tell
from replay.report.findings import Findings
from replay.report.paragraphs import item, paragraph
from replay.report.verdict import verdict

if TYPE_CHECKING:
    from replay.run.api import Run

SCREEN_LINES: Final = 24
"""As many lines has a screen: what stands there besides leaves the rest of them to advice."""

_MOST_ADVICE: Final = 2
"""At most so many pieces of advice stand on the first screen."""


def first_screen(run: Run) -> list[str]:
    """Return what stands first in the report on a run."""
    return with_advice_left(Findings(run))[0]


def with_advice_left(findings: Findings) -> tuple[list[str], list[str]]:
    """Return the lines of the first screen, and the advice for which it has no room."""
    title, verdict_, meaning = list(_title(findings)), list(_verdict(findings)), list(_meaning(findings))
    untold = list(_untold(by_command(cannot_tell(findings))))
    said, room = advice.to_try(findings), SCREEN_LINES - len(title) - _HEAD
    room -= sum(_HEAD + len(lines) for lines in (verdict_, meaning, untold) if lines)
    count = _fitting(said[:_MOST_ADVICE], room)
    shown = list(chain.from_iterable(map(item, said[:count])))
    sections = ("Verdict", verdict_), ("What it means", meaning), ("What to try", shown), (CANNOT_TELL, untold)
    return [*title, *chain.from_iterable(headed(heading, lines) for heading, lines in sections)], said[count:]


CANNOT_TELL: Final = "What this log cannot tell"
"""The heading above what only another capture would show."""

_HEAD: Final = 2
"""Lines that a heading takes, with the empty one above it."""


def headed(heading: str, lines: list[str]) -> list[str]:
    """Return the lines of a section with its heading; none without lines."""
    return ["", styled("title", heading), *lines] if lines else []


def _fitting(said: list[str], room: int) -> int:
    """Return how many pieces of advice have room in some lines; one stands there in any case."""
    for count, text in enumerate(said):
        room -= len(item(text))
        if room < 0:
            return max(count, 1)
    return len(said)


def _title(findings: Findings) -> Iterator[str]:
    source, summary = findings.run.source, findings.run.summary_values
    files = [clean(path) for path in source.files]
    name = files[0] if files[0] != "-" else "standard input"
    also = f" and {len(files) - 1} more" if len(files) > 1 else ""
    yield styled("title", shortened(name, width() - len(also)) + also)
    facts = [
        number(source.counters.lines, "line") + f" of {_kind(findings)}",
        "",
        duration(summary["duration_ns"]) if summary["duration_ns"] else "",
    ]
    room = width() - len(", ".join(fact for fact in facts if fact)) - len(", ")
    facts[1] = _who(findings, room)
    yield shortened(", ".join(fact for fact in facts if fact), width())


def _kind(findings: Findings) -> str:
    """Return what a log is: `strace`, `a recording`."""
    source = findings.run.source
    return "a recording" if is_recorded(source.files) else source.dialect.replace("mixed", "strace and ltrace")


def _who(findings: Findings, room: int) -> str:
    """Return who ran: `../prog (pid 2733)`, `3 processes, 5 threads`; the program's name alone if room is short."""
    replayed, spaces = findings.run.replayed, findings.spaces
    if replayed.processes > 1:
        threads = f", {replayed.threads:,} threads" if replayed.threads > replayed.processes else ""
        return f"{number(replayed.processes, 'process', 'processes')}{threads}"
    if not spaces:
        return ""
    program = shortened(clean(spaces[0].program), 40) or "a program"
    pid = f" (pid {spaces[0].pid})" if spaces[0].pid is not None else ""
    threads = f", {replayed.threads:,} {_threads(findings)}" if replayed.threads > 1 else ""
    if cells(program + pid + threads) > room:
        program = clean(os.path.basename(spaces[0].program)) or program
    return f"{program}{pid}{threads}"


def _threads(findings: Findings) -> str:
    """Return what those are that share the one space of a log: threads, where it shows how each came to be."""
    made = findings.steps_of(["clone", "clone3", "pthread_create"])
    told = int((findings.events.at("status", made) == OK).sum())
    return "threads" if told >= findings.run.replayed.threads - 1 else "threads or processes"


def _verdict(findings: Findings) -> Iterator[str]:
    for one in verdict(findings):
        text = amounts.grouped(clean(one.text))
        yield from paragraph(styled(one.tone, text) if one.tone else text)


def _meaning(findings: Findings) -> Iterator[str]:
    return chain.from_iterable(map(paragraph, advice.meaning(findings)))


def _untold(commands: dict[str, list[str]]) -> Iterator[str]:
    """Yield the open questions, those with one reason together, each reason with the first command that tells more."""
    for command, said in commands.items():
        first = command.partition("\n")[0]
        for text in said[:-1]:
            yield from item(text)
        whole = item(f"{said[-1]} ({first})" if first else said[-1])
        if len(whole) == 1 or not first:
            yield from whole
        else:
            yield from item(said[-1])
            yield from wrapped(first, first="      ", rest="        ")


def by_command(untold: list[Open]) -> dict[str, list[str]]:
    """Return what the log cannot tell, by the commands that would: questions of one reason together, and the reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in untold:
        reasons.setdefault((one.because, one.command), []).append(one.question)
    commands: dict[str, list[str]] = {}
    for (because, command), questions in reasons.items():
        text = f"{', '.join(questions)}: {because}"
        commands.setdefault(command, []).append(text[0].upper() + text[1:])
    return commands
