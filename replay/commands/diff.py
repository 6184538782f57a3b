"""`replay diff`: what changed in an address space between two steps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from replay.commands.options import (
    AsJson,
    ElfRoot,
    Format,
    MapsFile,
    NoElf,
    PageSize,
    Pid,
    Quiet,
    Strict,
    Traces,
    line_of,
    time_of,
)
from replay.commands.reading import Dialect, read_run, warn_of_problems
from replay.console.progress_bar import progress

if TYPE_CHECKING:
    from replay.run.window import Moment


def diff(
    traces: Traces,
    first: Annotated[
        str, typer.Argument(metavar="A", show_default=False, help="A step, from 0; a line or a time, if so asked.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", show_default=False, help="A later one.")],
    line: Annotated[bool, typer.Option("--line", help="A and B are lines of the log.")] = False,
    time: Annotated[bool, typer.Option("--time", help="A and B are times, written as the log prints them.")] = False,
    as_json: AsJson = False,
    pid: Pid = None,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Print what changed between step A and step B, or between two lines or times.

    Mappings gone, new and changed, the break, the totals. The space is the one in which step B ran, or that of --pid.
    """
    if line and time:
        raise typer.BadParameter("A and B are lines or times, not both")
    before, after = ((line_of if line else time_of if time else _step_of)(text) for text in (first, second))
    from replay.report.diff import difference, difference_document, difference_lines

    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
    from replay.run.window import last_step

    found = difference(run, last_step(run, before), last_step(run, after), pid)
    if not quiet:
        warn_of_problems(run)
    if as_json:
        from replay.report.as_json import write_json

        write_json(difference_document(found), sys.stdout)
        return
    from replay.console.screen import print_lines

    print_lines(difference_lines(found, run))


def _step_of(text: str) -> Moment:
    from replay.run.window import Moment

    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r}: expected a step such as 20; --line and --time take lines and times")
    return Moment(step=int(text))
