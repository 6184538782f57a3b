"""The command line: turns every ending of a command into an exit status and, if need be, a message.

Exit status: 0 done, 1 the input could not be used, 2 wrong usage, 3 a --fail-if condition held, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from replay.commands import COMMANDS
from replay.commands.endings import run_to_end
from replay.commands.group import Commands
from replay.errors import ReplayError
from replay.version import __version__

__all__ = ["COMMANDS", "ReplayError", "__version__", "app", "main"]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"replay {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Replay the address space that a strace or ltrace log records: did the break fail to grow, why, what then.

    `replay TRACE...` is short for `replay report TRACE...`; a log that is named like a command is given as ./NAME.

    Exit status: 0 done, 1 the input could not be used, 2 wrong usage, 3 a --fail-if condition held.
    """


def make_app() -> typer.Typer:
    """Return the application with all its commands."""
    made = typer.Typer(
        cls=Commands,
        name="replay",
        add_completion=True,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_root)
    return made


app: Final = make_app()


def main() -> None:
    """Run the command line and end the process with its exit status."""
    run_to_end(lambda: app(prog_name="replay"))
