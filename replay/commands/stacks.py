"""`replay stacks`: the call stacks behind memory, folded."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from replay.commands.options import Format, MapsFile, PageSize, Quiet, Strict, Traces
from replay.commands.reading import Dialect, read_run, warn
from replay.console.progress_bar import progress

HEAVIEST: Final = 10
"""As many stacks are told in words."""


class Weight(StrEnum):
    """What the bytes of a stack are."""

    live = "live"
    allocated = "allocated"
    growth = "growth"
    mmap = "mmap"


def stacks(
    traces: Traces,
    of: Annotated[
        Weight | None,
        typer.Option(
            "--of",
            metavar="live|allocated|growth|mmap",
            show_default="live, or growth without malloc",
            help="What is weighed: blocks that live at the end, all blocks, what the break grew by, mappings.",
        ),
    ] = None,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Print the call stacks of a log with the bytes behind each, folded as flame-graph tools read them.

    A line is the functions from the outermost to the innermost, then bytes. The heaviest ten are told in words on
    standard error. Stacks are written by strace -k, ltrace -w and replay record --stacks.
    """
    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch)
    from replay.console.screen import print_lines
    from replay.report.stacks import folded_lines, heaviest_lines
    from replay.run.cxx_names import MANGLED
    from replay.run.stacks import folded

    weight = of or (Weight.live if run.malloc_blocks.seen else Weight.growth)
    found = folded(run, weight.value)
    sys.stdout.writelines(line + "\n" for line in folded_lines(found))
    if not quiet:
        sys.stdout.flush()
        print_lines(heaviest_lines(found, weight.value, HEAVIEST), sys.stderr)
        if any(MANGLED in stack for stack in found):
            warn("names of C++ are shown as they stand in the file: | c++filt reads them, or pip install '.[cxx]'")
