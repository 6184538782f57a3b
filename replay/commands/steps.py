"""`replay steps`: each step and what it did."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import (
    Dialect,
    ElfRoot,
    Format,
    MapsFile,
    NoElf,
    PageSize,
    Pid,
    Quiet,
    Strict,
    Traces,
    read_run,
    warn_of_problems,
)
from replay.console.progress_bar import progress


def steps(
    traces: Traces,
    first: Annotated[int, typer.Option("--from", metavar="N", min=0, help="The first step to print.")] = 0,
    last: Annotated[
        int | None,
        typer.Option("--to", metavar="N", min=0, show_default=False, help="The last step to print; else the end."),
    ] = None,
    pid: Pid = None,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = 4096,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Print each step and what it did to the address space.

    A step is a call of the log, numbered from 0 in the order of completion; the line is where it completed.
    """
    from replay.console.screen import print_lines
    from replay.report.steps import step_lines

    if last is not None and last < first:
        raise typer.BadParameter(f"--to {last} lies before --from {first}")
    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
    warn_of_problems(run)
    print_lines(step_lines(run, first, last, pid))
