"""`replay report`: the verdict on a run."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.fail_if import FailIf, conditions_of, end_if_one_holds, judge_run
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
    window_of,
)
from replay.commands.plain_report import examined_run, print_report
from replay.commands.reading import Dialect, warn


def report(
    traces: Traces,
    short: Annotated[bool, typer.Option("--short", help="Print the first screen alone: what is the matter.")] = False,
    as_json: AsJson = False,
    since: Since = None,
    until: Until = None,
    pid: Pid = None,
    program: Program = None,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
    fail_if: FailIf = None,
) -> None:
    """Tell whether the program break failed, why, and what came then.

    The verdict comes first, each claim with its line in the log; then the layout of the address space, its gaps, how
    both came about, and what was not understood. `replay TRACE...` is short for this command.
    """
    conditions = conditions_of(fail_if)
    window = window_of(since, until, pid, program)
    root = None if no_elf else elf_root
    run = examined_run(traces, format.value, maps, page_size, strict, elf_root=root, quiet=quiet)
    if not window.is_all:
        from replay.run.part import part_of

        run = part_of(run, window)
        if not quiet:
            warn(f"shown is what happened {window}; blocks of malloc and what was read are of the whole log")
    print_report(run, as_json=as_json, short=short)
    end_if_one_holds(judge_run(conditions, run))
