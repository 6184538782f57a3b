"""`replay perfetto`: a run as a trace for ui.perfetto.dev."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import ElfRoot, Force, Format, MapsFile, NoElf, PageSize, Quiet, Strict, Traces
from replay.commands.reading import Dialect, read_run, warn, warn_of_problems
from replay.console.progress_bar import progress
from replay.engine.progress import Stage


def perfetto(
    traces: Traces,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The file to write: .json or .json.gz (trace events), .pftrace or .pftrace.gz (TrackEvent protobuf).",
        ),
    ],
    force: Force = False,
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Write a run as a trace that ui.perfetto.dev opens.

    Calls as slices of threads, system calls inside the libc calls that made them, what is mapped and free as counters,
    refused breaks with an arrow to the mmap that stood in for them.
    """
    from replay.perfetto import ending_of, write_perfetto
    from replay.tables import refuse_existing

    ending_of(output)
    refuse_existing(output, force=force)
    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
        watch(Stage("writing", 0, 0))
        write_perfetto(run, output, force=force)
    warn_of_problems(run)
    if not quiet:
        warn(f"wrote the trace of {', '.join(traces)} to {output}")
