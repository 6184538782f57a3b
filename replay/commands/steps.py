"""`replay steps`: each step and what it did."""

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
    Program,
    Quiet,
    Since,
    Strict,
    Traces,
    Until,
    ends_of,
    in_order,
    line_of,
    time_of,
    window_of,
)
from replay.commands.reading import Dialect, read_run, warn_of_problems
from replay.console.progress_bar import progress

if TYPE_CHECKING:
    from replay.run.window import Moment


def steps(
    traces: Traces,
    first: Annotated[
        int | None, typer.Option("--from", metavar="N", min=0, show_default=False, help="The first step to print.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--to", metavar="N", min=0, show_default=False, help="The last step to print; else the end."),
    ] = None,
    line: Annotated[
        str | None,
        typer.Option("--line", metavar="A..B", show_default=False, help="The steps that completed in these lines."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="A..B",
            show_default=False,
            help="The steps that began then, as the log prints times.",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    pid: Pid = None,
    program: Program = None,
    as_json: AsJson = False,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Print each step and what it did to the address space.

    A step is a call of the log, numbered from 0 in the order of completion; the line is where it completed.
    """
    window = window_of(since, until, pid, program)
    begin, end = _ends(first, last, line, time)
    if begin or end:
        if since or until:
            raise typer.BadParameter("say from when to when in one way")
        window = window._replace(since=begin, until=end)
    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
    from replay.run.window import steps_of

    chosen = steps_of(run, window)
    if not quiet:
        warn_of_problems(run)
    if as_json:
        from replay.report.as_json import write_json_rows
        from replay.report.steps import step_values

        write_json_rows(step_values(run, chosen), sys.stdout)
        return
    from replay.console.screen import print_lines
    from replay.report.steps import step_lines

    print_lines(step_lines(run, chosen))


def _ends(
    first: int | None, last: int | None, line: str | None, time: str | None
) -> tuple[Moment | None, Moment | None]:
    """Return the moments that --from and --to, --line or --time name."""
    from replay.run.window import Moment

    ways: list[tuple[Moment | None, Moment | None]] = []
    if first is not None or last is not None:
        begin, end = (None if number is None else Moment(step=number) for number in (first, last))
        ways.append(in_order(begin, end))
    if line is not None:
        ways.append(ends_of(line, line_of))
    if time is not None:
        ways.append(ends_of(time, time_of))
    if len(ways) > 1:
        raise typer.BadParameter("say from when to when by one of --from and --to, --line, --time")
    return ways[0] if ways else (None, None)
