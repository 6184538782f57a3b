"""`replay export`: all tables of a run as files."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import (
    ElfRoot,
    Every,
    Force,
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
from replay.commands.reading import Dialect, read_run, warn, warn_of_problems
from replay.console.progress_bar import progress

FILES = ("parquet", "csv")


def export(
    traces: Traces,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            help="The directory that gets the files; - writes one table as CSV to standard output.",
        ),
    ],
    *,
    form: Annotated[
        str | None, typer.Option("--as", metavar="parquet|csv", show_default="parquet", help="How files are written.")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="NAME", show_default=False, help="The table that -o - writes.")
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="auto|strace|ltrace", show_default=False, help="Who wrote the logs."),
    ] = None,
    since: Since = None,
    until: Until = None,
    pid: Pid = None,
    program: Program = None,
    safe_csv: Annotated[
        bool,
        typer.Option(
            "--safe-csv", help="Write CSV for a spreadsheet: a text that it would take for a formula begins with '."
        ),
    ] = False,
    every: Every = 1,
    force: Force = False,
    maps: MapsFile = None,
    page_size: PageSize = None,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Write all tables of the run into a directory, one file each.

    All files come to be, or none. `replay schema` tells what the tables hold. --since, --until, --pid and --program
    leave out rows of what happened before, after or elsewhere; the summary is of the whole run.
    """
    from replay.tables import TABLES, file_names, refuse_existing

    files, dialect = _told_apart([*(formats or []), *([form] if form else [])])
    if form is not None and form not in FILES:
        raise typer.BadParameter(f"{form!r} is none of {', '.join(FILES)}", param_hint="--as")
    _check_table(output, table, form)
    window = window_of(since, until, pid, program)
    how = "safe-csv" if safe_csv else files
    if output != "-":
        refuse_existing(output, file_names(TABLES, how), force=force)
    with progress(quiet) as watch:
        run = read_run(traces, dialect, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
        if output == "-":
            run.write_csv(str(table), output, window=window)
        else:
            run.export(output, format=how, force=force, every=every, watch=watch, window=window)
    if quiet:
        return
    warn_of_problems(run)
    if output != "-":
        warn(f"wrote the tables of the run to {output}")


def _check_table(output: str, table: str | None, form: str | None) -> None:
    """Raise typer.BadParameter unless a table is named just where it is written to standard output."""
    from replay.tables import TABLES

    if (output == "-") != (table is not None) or (output == "-" and form == "parquet"):
        raise typer.BadParameter("standard output takes one table, as CSV: --table NAME -o -")
    if table is not None and table not in TABLES:
        raise typer.BadParameter(f"no table {table!r}; the tables are {', '.join(TABLES)}", param_hint="--table")


def _told_apart(formats: list[str]) -> tuple[str, str]:
    """Return the format of the files and the dialect of the logs; --format once named both, and still may."""
    files, dialect = FILES[0], Dialect.auto.value
    for word in formats:
        if word in FILES:
            files = word
        elif word in [known.value for known in Dialect]:
            dialect = word
        else:
            raise typer.BadParameter(f"{word!r} is none of auto, strace, ltrace", param_hint="--format")
    return files, dialect
