"""The commands by name: which one the words of the command line mean, and what is said of words that mean none.

In go the words, out come commands made on demand, or a usage error.
"""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, get_type_hints

import typer
from typer.core import TyperGroup

from replay.commands import COMMANDS, DEFAULT
from replay.commands.endings import status_after
from replay.commands.fast_path import DirectCommand, SkipConversion
from replay.commands.reading import input_waits
from replay.console.terminal import COLOUR_CHOICES, choose_colour

SETTINGS: Final = {"record": {"allow_interspersed_args": False}}
"""How a command's words are read, where that is not as usual: all behind the name of a program are that program's."""

_WHOLE_SENTENCE: Final = 400
"""Characters of a command's help that the list of commands shows at most."""

_OWN_OPTIONS: Final = ("--help", "-h", "--version", "-V", "--install-completion", "--show-completion")

_UsageError: Final[Any] = typer.BadParameter.__mro__[1]
"""What Typer raises for wrong usage, whichever library it takes it from."""


def _colour_of(word: str) -> str:
    if word not in COLOUR_CHOICES:
        raise typer.BadParameter(f"{word!r} is none of {', '.join(COLOUR_CHOICES)}")
    choose_colour(word)
    return word


Colour = Annotated[
    str,
    typer.Option(
        "--color",
        metavar="auto|always|never",
        callback=_colour_of,
        show_default=False,
        help="Whether to colour the output; auto: on a terminal, unless NO_COLOR is set.",
    ),
]


def function_of(command: str) -> Callable[..., None]:
    """Return the function of a command, with the options that every command takes."""
    function: Callable[..., None] = getattr(import_module(f"replay.commands.{command}"), command)

    @wraps(function)
    def with_common_options(*, color: str = "auto", **values: Any) -> None:
        function(**values)

    own = inspect.signature(function)
    keyword = inspect.Parameter("color", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation=Colour)
    with_common_options.__annotations__ = {**get_type_hints(function, include_extras=True), "color": Colour}
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=with_common_options.__annotations__[name])
        for name, parameter in own.parameters.items()
    ]
    with_common_options.__signature__ = own.replace(parameters=[*parameters, keyword])  # type: ignore[attr-defined]
    return with_common_options


class OnDemand(Mapping[str, Any]):
    """The commands by name, each imported and made when it is first asked for: a run needs but one."""

    def __init__(self) -> None:
        """Begin with none made."""
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """Return the command of that name."""
        if name not in self._made:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(name, cls=DirectCommand, context_settings=SETTINGS.get(name))(function_of(name))
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


class Commands(SkipConversion, TyperGroup):
    """The group of all commands; what begins with no command's name is meant for `report`."""

    def __init__(self, **settings: Any) -> None:
        """Build the group as Typer does, its commands on demand."""
        super().__init__(**settings)
        self.commands: Any = OnDemand()

    def main(self, *words: Any, **settings: Any) -> NoReturn:
        """Run the words of the command line and end the process; wrong usage is said in text fit for a terminal."""
        try:
            status = super().main(*words, **{**settings, "standalone_mode": False})
        except _UsageError as error:
            _say_wrong_usage(error)
            sys.exit(error.exit_code)
        sys.exit(status if isinstance(status, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before arguments that name none, and read `help COMMAND`."""
        if not args and input_waits():
            args = [DEFAULT]
        if args and args[0] == "help" and not Path("help").exists():
            self._refuse_unknown(ctx, args[1:2])
            args = [*args[1:2], "--help"]
        elif args and args[0] not in self.commands and args[0].partition("=")[0] not in _OWN_OPTIONS:
            self._refuse_typos(ctx, args[0])
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def _refuse_unknown(self, ctx: Any, words: list[str]) -> None:
        """End with a usage error if help is asked for what is no command."""
        for word in words:
            if word not in self.commands and not word.startswith("-"):
                near = _near(word, self.commands)
                ctx.fail(
                    f"No command {word!r}." + (f" Did you mean {near!r}?" if near else " `replay help` lists them.")
                )

    def _refuse_typos(self, ctx: Any, word: str) -> None:
        """End with a usage error if a word is no file but nearly a command."""
        if word.startswith("-") or os.sep in word or "." in word or Path(word).exists():
            return
        near = _near(word, self.commands)
        if near and not list(Path().glob(f"{word}.*")):
            ctx.fail(f"No command and no file {word!r}. Did you mean {near!r}?")

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with the whole first sentence of its help."""
        rows = [(name, command.get_short_help_str(_WHOLE_SENTENCE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> NoReturn:
        """Run the command and end with its exit status."""
        raise typer.Exit(status_after(partial(self._run, ctx)))

    def _run(self, ctx: Any) -> int:
        try:
            super().invoke(ctx)
        except typer.Exit as end:
            return int(end.exit_code)
        return 0


def _near(word: str, known: Any) -> str:
    """Return the one of the known words that is meant, as far as can be told: it begins so, or is spelt nearly so."""
    from difflib import get_close_matches

    begun = [other for other in known if len(word.strip("-")) > 1 and other.startswith(word)]
    near = begun or get_close_matches(word, known, n=1, cutoff=0.7)
    return near[0] if near else ""


def _say_wrong_usage(error: Any) -> None:
    """Print a usage error, with the option that is meant where one is near."""
    from replay.console.screen import clean

    unknown = getattr(error, "option_name", "") if hasattr(error, "possibilities") else ""
    if unknown and error.ctx is not None:
        options = {name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts}
        near = _near(unknown, sorted(name for name in options if name.startswith("--")))
        error.possibilities = None
        error.message += f". Did you mean {near}?" if near else ""
    out = io.StringIO()
    error.show(file=out)
    sys.stderr.write("".join(clean(line) + "\n" for line in out.getvalue().splitlines()))
