"""`replay record`: run a program and record what an analysis needs."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from replay.commands.options import Force, Quiet
from replay.commands.reading import warn


class Tool(StrEnum):
    """What sees the program."""

    auto = "auto"
    shim = "shim"
    ltrace = "ltrace"
    strace = "strace"


class SystemCalls(StrEnum):
    """Which system calls strace writes."""

    all = "all"
    memory = "memory"


def record(
    command: Annotated[
        list[str], typer.Argument(metavar="PROG ARGS...", show_default=False, help="The program, and its arguments.")
    ],
    progress: Annotated[bool, typer.Option("--progress", help="Say on standard error how much was recorded.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Make a recording, given in place of PROG, whole that was interrupted.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", show_default=False, help="Where to; by default PROG.replay."),
    ] = None,
    tool: Annotated[
        Tool,
        typer.Option("--tool", help="What sees the program: a preloaded library (shim), ltrace, strace; or what fits."),
    ] = Tool.auto,
    system_calls: Annotated[
        SystemCalls, typer.Option("--system-calls", help="Which system calls strace writes, where it runs.")
    ] = SystemCalls.memory,
    no_malloc: Annotated[bool, typer.Option("--no-malloc", help="Record system calls alone.")] = False,
    stacks: Annotated[
        int, typer.Option("--stacks", metavar="N", min=0, max=64, help="Return addresses kept of each allocation.")
    ] = 0,
    quiet: Quiet = False,
    force: Force = False,
) -> None:
    """Run a program and record what it does with memory, into a directory that every command reads.

    Malloc and its kin are written by a preloaded library, with the system calls that the allocator makes inside them;
    all other system calls by strace, where that is installed. The program's streams, exit status and signals are its
    own. `--` ends the options; so does the name of the program.
    """
    from replay.record.command import Options, ProgramError, record

    if finish:
        _finish(Path(command[0]))
        return
    directory = Path(output or f"{Path(command[0]).name}.replay")
    options = Options(tool.value, system_calls.value, not no_malloc, stacks)
    try:
        done = record(command, directory, options, force=force, watch=_counter(directory) if progress else None)
    except ProgramError as error:
        warn(str(error))
        raise typer.Exit(error.status) from error
    if progress:
        print(file=sys.stderr)
    for note in done.notes:
        warn(note)
    if done.finished and not quiet:
        warn(f"recorded by {done.plan.tool} ({done.plan.reason}): replay {directory}")
    if done.status >= 0:
        raise typer.Exit(done.status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # SIGKILL has no handler
        signal.signal(-done.status, signal.SIG_DFL)
    os.kill(os.getpid(), -done.status)
    raise typer.Exit(128 - done.status)


def _finish(directory: Path) -> None:
    from replay.record.finish import finish

    for note in finish(directory):
        warn(note)


def _counter(directory: Path) -> Callable[[], None]:
    """Return what writes over one line of standard error how long a recording takes and how large it is."""
    from replay.console.amounts import size

    begun = time.monotonic()

    def show() -> None:
        # What a window of a log has allocated beyond its lines counts too: this is a sign of life, not a figure.
        written = sum(path.stat().st_size for path in directory.rglob("*.log"))
        print(f"\rreplay: {time.monotonic() - begun:.0f} s, {size(written)} ", end="", file=sys.stderr, flush=True)

    return show
