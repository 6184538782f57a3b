"""Arguments and options that several commands share, and what they mean for reading a run.

In go words of the command line, out come values or a usage error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from replay.commands.reading import Dialect
from replay.linux.constants import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from replay.run.window import Moment, Window

_CLOCK_PARTS: Final = (3600, 60, 1)
_CLOCK_ENDS: Final = (24, 60, 61)
"""Hours, minutes and seconds of a day are below these; a leap second is the 61st."""
_LATEST: Final = 1 << 33
"""Seconds below which a time lies: the year 2242, far below the end of 64-bit nanoseconds."""


def _power_of_two(value: int | None) -> int | None:
    if value is not None and (value <= 0 or value & (value - 1)):
        raise typer.BadParameter("expected a power of two such as 4096")
    return value


Traces = Annotated[
    list[str],
    typer.Argument(
        metavar="TRACE...",
        default_factory=list,
        show_default=False,
        help="Logs of one run: files (plain, .gz, .xz, .bz2, .zst), the files, the common prefix or the directory of a "
        "strace -ff set, a directory of one log or from `replay record`. Without one, or with -, standard input.",
    ),
]
Format = Annotated[
    Dialect,
    typer.Option("--format", metavar="auto|strace|ltrace", help="Who wrote the logs; auto asks their content."),
]
MapsFile = Annotated[
    str | None,
    typer.Option(
        "--maps",
        metavar="FILE",
        show_default=False,
        help="A /proc/PID/maps snapshot taken where the trace starts, or, for a traced start, of the fresh process.",
    ),
]
PageSize = Annotated[
    int | None,
    typer.Option(
        "--page-size",
        metavar="BYTES",
        show_default=False,
        callback=_power_of_two,
        help="Bytes of a page of memory; told from the log where it can be, else 4096.",
    ),
]
ElfRoot = Annotated[
    str,
    typer.Option(
        "--elf-root",
        metavar="DIR",
        help="Where the files lie that execve mapped: they tell what of a program was mapped before its first call.",
    ),
]
NoElf = Annotated[bool, typer.Option("--no-elf", help="Do not look at the files that execve mapped.")]
Strict = Annotated[bool, typer.Option("--strict", help="The first line that is not understood is an error.")]
Pid = Annotated[
    int | None,
    typer.Option("--pid", metavar="PID", show_default=False, help="The process or thread that is meant."),
]
Program = Annotated[
    str | None,
    typer.Option("--program", metavar="NAME", show_default=False, help="Show only what this program did."),
]
_MOMENT: Final = "A line (72), or a time as the log prints it: seconds (1795368030.52) or a time of day (14:03:07.5)."
Since = Annotated[
    str | None, typer.Option("--since", metavar="WHEN", show_default=False, help=f"Show from then on. {_MOMENT}")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="WHEN", show_default=False, help="Show up to then, written as --since.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no closing words.")]
Every = Annotated[
    int,
    typer.Option(
        "--every",
        metavar="N",
        min=1,
        show_default=False,
        help="Of the table fragmentation write one change in N of each space, and its last one.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


def moment_of(text: str) -> Moment:
    """Return a line, or a time if there is a point or a colon in it.

    Raises:
        typer.BadParameter: it is neither.
    """
    from replay.run.window import Moment

    if text.isascii() and text.isdigit():
        return Moment(line=int(text))
    return time_of(text)


def ends_of(text: str, one: Callable[[str], Moment]) -> tuple[Moment | None, Moment | None]:
    """Return the ends of `A..B`, of which either may be left out; `A` alone is both."""
    first, dots, last = text.partition("..")
    if not dots:
        last = first
    return in_order(one(first) if first else None, one(last) if last else None)


def in_order(begin: Moment | None, end: Moment | None) -> tuple[Moment | None, Moment | None]:
    """Return both moments; raise typer.BadParameter if the second lies before the first. A day may end in between."""
    if begin and end and not end.of_day:
        pairs = ((begin.line, end.line), (begin.time, end.time), (begin.step, end.step))
        if any(first is not None and last is not None and last < first for first, last in pairs):
            raise typer.BadParameter(f"nothing lies between: {end} is before {begin}")
    return begin, end


def line_of(text: str) -> Moment:
    """Return a line; raise typer.BadParameter if the text is no number."""
    from replay.run.window import Moment

    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r}: expected a line such as 72, or lines such as 27..71")
    return Moment(line=int(text))


def time_of(text: str) -> Moment:
    """Return a time; raise typer.BadParameter if the text is none."""
    from replay.run.window import Moment

    return Moment(time=time_ns(text), of_day=":" in text)


def window_of(since: str | None, until: str | None, pid: int | None, program: str | None) -> Window:
    """Return what the options ask to be shown."""
    from replay.run.window import Window

    begin, end = (None if text is None else moment_of(text) for text in (since, until))
    return Window(*in_order(begin, end), pid, program)


def time_ns(text: str) -> int:
    """Return a time as the log prints it, in nanoseconds.

    Seconds such as `1795368030.52` or `0.25` (`-ttt`, `-r`), or a time of day such as `14:03:07.5` (`-t`, `-tt`).

    Raises:
        typer.BadParameter: it is neither.
    """
    from decimal import Decimal, InvalidOperation

    parts = text.split(":")
    expected = typer.BadParameter(f"{text!r}: expected seconds (1795368030.52) or a time of day (14:03:07.5)")
    try:
        numbers = [Decimal(part) for part in parts]
    except InvalidOperation as error:
        raise expected from error
    if len(parts) not in (1, 3) or not all(number.is_finite() and 0 <= number < _LATEST for number in numbers):
        raise expected
    if len(parts) == 1:
        return int(numbers[0] * SECOND)
    if any(number >= most for number, most in zip(numbers, _CLOCK_ENDS, strict=True)):
        raise expected
    return int(sum(number * part for number, part in zip(numbers, _CLOCK_PARTS, strict=True)) * SECOND)
