"""The command line: names the commands and turns every ending of one into an exit status and, if need be, a message.

Exit status: 0 done, 1 the input could not be used, 2 wrong usage, 3 a --fail-if condition held, 130 interrupted.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from replay.commands.fast_path import Sparing, SparingCommand
from replay.errors import ReplayError
from replay.version import __version__

COMMANDS: Final = tuple("report maps steps diff export batch compare query dashboard html record whatif schema".split())
"""The commands, in the order in which the help lists them: each is a function of a module of its name."""

SETTINGS: Final = {"record": {"allow_interspersed_args": False}}
"""How a command's words are read, where that is not as usual: all behind the name of a program are that program's."""

DEFAULT: Final = "report"

UNUSABLE_INPUT: Final = 1
WRONG_USAGE: Final = 2
CONDITION_HELD: Final = 3
INTERRUPTED: Final = 130
"""The exit statuses besides 0."""

OBJECTS_UNCOLLECTED: Final = 100_000
"""So many objects may come to be between two searches for garbage: twice those of a start."""

_WRITE_ERRORS: Final = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)
"""What the system says when an output can take no more."""

_WHOLE_SENTENCE: Final = 400
"""Characters of a command's help that the list of commands shows at most."""

_OWN_OPTIONS: Final = ("--help", "-h", "--version")


def function_of(command: str) -> Callable[..., None]:
    """Return the function of a command."""
    function: Callable[..., None] = getattr(import_module(f"replay.commands.{command}"), command)
    return function


class OnDemand(Mapping[str, Any]):
    """The commands by name, each imported and made when it is first asked for: a run needs but one."""

    def __init__(self) -> None:
        """Begin with none made."""
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return the command of that name."""
        if name not in self._made:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name, cls=SparingCommand, context_settings=SETTINGS.get(name))(function_of(name))
            self._made[name] = typer.main.get_command(alone)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a command of that name, without making it."""
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        """Yield the names in the order of the help."""
        return iter(COMMANDS)

    def __len__(self) -> int:
        """Return how many commands there are."""
        return len(COMMANDS)


class Commands(Sparing, TyperGroup):
    """The group of all commands; what begins with no command's name is meant for `report`."""

    def __init__(self, **settings: Any) -> None:
        """Build the group as Typer does, its commands on demand."""
        super().__init__(**settings)
        self.commands: Any = OnDemand()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in _OWN_OPTIONS:
            self._refuse_typos(ctx, args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _refuse_typos(self, ctx: Any, word: str) -> None:
        """End with a usage error if a word is no file but nearly a command."""
        if word.startswith("-") or os.sep in word or "." in word or Path(word).exists():
            return
        from difflib import get_close_matches

        near = get_close_matches(word, self.commands, n=1)
        if near and not list(Path().glob(f"{word}.*")):
            ctx.fail(f"No command and no file {word!r}. Did you mean {near[0]!r}?")

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with the whole first sentence of its help."""
        rows = [(name, command.get_short_help_str(_WHOLE_SENTENCE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> NoReturn:
        """Run the command and end with its exit status, quietly where the reader of a pipe had enough or at Ctrl-C."""
        status = 0
        try:
            super().invoke(ctx)
        except typer.Exit as end:
            status = end.exit_code
        except KeyboardInterrupt:
            status = INTERRUPTED
        except OSError as error:
            status = _after_system_error(error)
        raise typer.Exit(_flushed(status))


def _flushed(status: int) -> int:
    """Write out what standard output still holds and return the exit status."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _after_system_error(error) or status
    return status


def _after_system_error(error: OSError) -> int:
    """Return the exit status after the system refused a call: 0 where the reader of a pipe has gone, else 1."""
    if error.errno == errno.EPIPE:
        _forget_output()
        return 0
    place = f"{error.filename}: " if error.filename else "the output: " if error.errno in _WRITE_ERRORS else ""
    say(f"{place}{error.strerror or error}")
    if error.errno in _WRITE_ERRORS:
        _forget_output()
    return UNUSABLE_INPUT


def _forget_output() -> None:
    """Let what standard output still holds go nowhere: without this, Python complains of it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"replay {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
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
        add_completion=False,
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
    _spare_small_logs()
    try:
        app()
    except ReplayError as error:
        say(str(error))
        sys.exit(UNUSABLE_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except MemoryError:
        say("not enough memory for this log")
        sys.exit(UNUSABLE_INPUT)
    except Exception as error:
        if os.environ.get("REPLAY_TRACEBACK"):
            raise
        say(_bug_report(error))
        sys.exit(UNUSABLE_INPUT)


def _spare_small_logs() -> None:
    """Leave out what takes a good part of the time that a small log needs, and serves none."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy else starts threads for algebra that nothing here does
    gc.set_threshold(OBJECTS_UNCOLLECTED)


def say(message: str) -> None:
    """Print a message for people on standard error, free of what a terminal would obey."""
    from replay.console.screen import clean

    lines = message.splitlines() or [""]
    print("\n".join([f"replay: {clean(lines[0])}", *map(clean, lines[1:])]), file=sys.stderr)


def _bug_report(error: Exception) -> str:
    """Return what to say of an error that should not be: its type and place, and how to report it."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}, {frames[-1].name}" if frames else "unknown place"
    return (
        f"this is a bug: {type(error).__name__} in {place}: {str(error)[:200]}\n"
        f"Please report it, with replay {__version__} and the lines of the log around it, if you can;\n"
        "REPLAY_TRACEBACK=1 shows the whole traceback."
    )
