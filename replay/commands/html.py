"""`replay html`: the address space over time as one page for a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import ElfRoot, Force, Format, MapsFile, NoElf, PageSize, Quiet, Strict, Traces
from replay.commands.reading import Dialect, read_run, warn, warn_of_problems
from replay.console.progress_bar import progress
from replay.engine.progress import Stage


def html(
    traces: Traces,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", show_default=False, help="The HTML file to write.")
    ],
    most: Annotated[
        int,
        typer.Option(
            "--max-rectangles", metavar="N", min=1, help="As many mappings, and blocks, the page has at most."
        ),
    ] = 1_000_000,
    force: Force = False,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Draw a run as one HTML page that needs nothing else: addresses over time.

    What is mapped where and when, refused breaks and what was in their way, fallbacks, curves and the heap; a click
    shows the maps, the steps and the changes of a moment, as `replay maps`, `steps` and `diff` print them.
    """
    from replay.html.trace import write_trace
    from replay.html.trace_tables import tables_of_run
    from replay.tables import refuse_existing

    refuse_existing(output, force=force)
    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
        watch(Stage("drawing", 0, 0))
        write_trace(tables_of_run(run), output, most=most, force=force)
    warn_of_problems(run)
    if not quiet:
        warn(f"wrote the page of {', '.join(traces)} to {output}")
