"""`replay export`: all tables of a run as files."""

from __future__ import annotations

from typing import Annotated

import typer

from replay.commands.options import (
    Dialect,
    ElfRoot,
    Force,
    MapsFile,
    NoElf,
    PageSize,
    Quiet,
    Strict,
    Traces,
    read_run,
    warn,
    warn_of_problems,
)
from replay.console.progress_bar import progress

FILES = ("parquet", "csv")


def export(
    traces: Traces,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="DIR", show_default=False, help="The directory that gets the files."),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="parquet|csv",
            show_default=False,
            help="How the files are written; parquet if not given. May be given once more, with auto, strace or "
            "ltrace: who wrote the logs.",
        ),
    ] = None,
    force: Force = False,
    maps: MapsFile = None,
    page_size: PageSize = 4096,
    elf_root: ElfRoot = "/",
    no_elf: NoElf = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Write all tables of the run into a directory, one file each.

    All files come to be, or none. `replay schema` tells what the tables hold.
    """
    files, dialect = _told_apart(formats or [])
    with progress(quiet) as watch:
        run = read_run(traces, dialect, maps, page_size, strict, watch, elf_root=None if no_elf else elf_root)
        run.export(output, format=files, force=force, watch=watch)
    warn_of_problems(run)
    if not quiet:
        warn(f"wrote the tables of the run to {output}")


def _told_apart(formats: list[str]) -> tuple[str, str]:
    """Return the format of the files and the dialect of the logs; the last word of each kind counts."""
    files, dialect = FILES[0], Dialect.auto.value
    for word in formats:
        if word in FILES:
            files = word
        elif word in [known.value for known in Dialect]:
            dialect = word
        else:
            raise typer.BadParameter(
                f"{word!r} is none of parquet, csv (the files) and auto, strace, ltrace (the logs)",
                param_hint="--format",
            )
    return files, dialect
