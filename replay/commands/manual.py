"""The manual page of the command line, made from the help of its commands.

In go the commands with their options, out comes replay.1 for man(7). `python -m replay.commands.manual` writes the file
that stands beside this module and is installed as share/man/man1/replay.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from replay.commands import COMMANDS
from replay.commands.group import OnDemand
from replay.version import __version__

PAGE: Final = Path(__file__).with_name("replay.1")

_HEAD: Final = """\
.TH REPLAY 1 "" "replay {version}" "User Commands"
.SH NAME
replay \\- replay the Linux address space that a strace or ltrace log records
.SH SYNOPSIS
.B replay
[\\fICOMMAND\\fR] [\\fIOPTIONS\\fR] \\fITRACE\\fR...
.SH DESCRIPTION
Tells whether the program break failed to grow, why, and what came then; whether memory leaks or is fragmented; and
shows the address space at any line of the log.
.B replay TRACE...
is short for
.BR "replay report TRACE..." .
"""

_TAIL: Final = """\
.SH EXIT STATUS
0 done; 1 the input could not be used; 2 wrong usage; 3 a \\-\\-fail\\-if condition held; 130 interrupted;
143 terminated.
.SH ENVIRONMENT
.TP
.BR NO_COLOR ", " FORCE_COLOR
Whether output is coloured where \\-\\-color does not say so.
.TP
.B COLUMNS
The width of the output where it is no terminal; 80 without it.
.TP
.B TMPDIR
Where calls of long logs lie while a run is replayed.
.SH SEE ALSO
.BR strace (1),
.BR ltrace (1),
.BR brk (2),
.BR mmap (2),
.BR mallopt (3),
.BR proc (5)
"""


def manual() -> str:
    """Return the manual page."""
    made = OnDemand()
    parts = [_HEAD.format(version=__version__), ".SH COMMANDS\n"]
    parts += ["\n".join(_command_lines(name, made[name])) + "\n" for name in COMMANDS]
    return "".join([*parts, _TAIL])


def _command_lines(name: str, command: Any) -> Iterator[str]:
    """Yield the lines of a command: how it is used, what it does, its arguments and options."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    words = " ".join(f"\\fI{_escaped(one.metavar or one.name.upper())}\\fR" for one in arguments)
    yield f".SS replay {name} [OPTIONS] {words}"
    for at, paragraph in enumerate(re.split(r"\n\s*\n", command.help.strip())):
        if at:
            yield ".PP"
        yield _escaped(" ".join(paragraph.split()))
    for one in command.params:
        if one.help and not one.hidden:
            yield ".TP"
            yield f".B {_escaped(_named(one))}"
            yield _escaped(" ".join(one.help.split()))


def _named(parameter: Any) -> str:
    """Return how a parameter is written: `-o, --output DIR`."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} {parameter.metavar or 'VALUE'}"


def _escaped(text: str) -> str:
    """Return text for roff: backslashes and hyphens as such, no line that begins a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(manual(), encoding="utf-8")
