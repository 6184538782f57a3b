"""`replay diff`: what changed in an address space between two steps."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from replay.commands.options import (
    AsJson,
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


def diff(
    traces: Traces,
    first: Annotated[int, typer.Argument(metavar="A", min=0, show_default=False, help="A step, from 0.")],
    second: Annotated[int, typer.Argument(metavar="B", min=0, show_default=False, help="A later step.")],
    as_json: AsJson = False,
    pid: Pid = None,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = 4096,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Print what changed between step A and step B.

    Mappings gone, new and changed, the break, the totals. The space is the one in which step B ran, or that of --pid.
    """
    from replay.report.diff import difference, difference_document, difference_lines

    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
    found = difference(run, first, second, pid)
    warn_of_problems(run)
    if as_json:
        from replay.report.as_json import write_json

        write_json(difference_document(found), sys.stdout)
        return
    from replay.console.screen import print_lines

    print_lines(difference_lines(found, run))
