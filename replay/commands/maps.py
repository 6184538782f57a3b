"""`replay maps`: an address space at one moment, as /proc/PID/maps would have shown it."""

from __future__ import annotations

import sys
from typing import Annotated

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
    time_of,
)
from replay.commands.reading import Dialect, read_run, warn, warn_of_problems
from replay.console.progress_bar import progress


def maps(
    traces: Traces,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", show_default=False, help="Once step N (from 0) had completed.")
    ] = None,
    line: Annotated[
        int | None,
        typer.Option("--line", metavar="N", show_default=False, help="Once line N (from 1) had been printed."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="T",
            show_default=False,
            help="At time T, written as the log prints it: seconds (1795368030.52) or a time of day (14:03:07.5).",
        ),
    ] = None,
    pid: Pid = None,
    as_json: AsJson = False,
    format: Format = Dialect.auto,
    maps_file: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Print an address space in the format of /proc/PID/maps.

    Without --step, --line or --time: at the end of the trace, before the exits. Without --pid: the space in which that
    step ran, or that of the first process.
    """
    if sum(value is not None for value in (step, line, time)) > 1:
        raise typer.BadParameter("say when by one of --step, --line and --time")
    moment = None if time is None else time_of(time)
    with progress(quiet) as watch:
        run = read_run(traces, format.value, maps_file, page_size, strict, watch, elf_root=None if no_elf else elf_root)
    if moment is not None:
        from replay.run.window import last_step

        step = last_step(run, moment)
    mapped = run.mapped_at(step=step, line=line, pid=pid)
    if not quiet:
        warn_of_problems(run)
    if not mapped:
        warn("nothing is mapped then, as far as the log shows")
    if as_json:
        from replay.report.as_json import mapping_values, write_json_rows

        write_json_rows(map(mapping_values, mapped), sys.stdout)
        return
    from replay.linux.proc_maps import maps_text

    _write(maps_text(mapped))


def _write(text: str) -> None:
    """Write maps: in a pipe with the very bytes of the paths, on a terminal without its escapes."""
    from replay.console.screen import clean

    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        sys.stdout.write("".join(clean(line) + "\n" for line in text.splitlines()))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
