"""`replay watch`: the first screen of a log that is still being written."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from replay.commands.endings import status_of_interrupt
from replay.commands.options import Format, MapsFile, PageSize
from replay.commands.reading import Dialect, read_run

if TYPE_CHECKING:
    from replay.run.api import Run

SECONDS: Final = 1.0
"""So long the screen stands before it is drawn anew; longer if the log takes longer to read."""

_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


def watch(
    log: Annotated[str, typer.Argument(metavar="LOG", show_default=False, help="A log or recording, being written.")],
    format: Format = Dialect.auto,
    maps: MapsFile = None,
    page_size: PageSize = None,
) -> None:
    """Follow a log that strace, ltrace or `replay record` still writes, and draw the first screen each second.

    When the program has ended, or at Ctrl-C, the whole report is printed. Where standard output is no terminal, that
    is all.
    """
    from replay.console.screen import print_lines
    from replay.errors import MissingTraceError, TraceFormatError
    from replay.report.as_text import text_report
    from replay.report.first_screen import first_screen

    run: Run | None = None
    seen = -1
    try:
        while True:
            began, size = time.monotonic(), _size_of(log)
            if size == seen and run is not None and _has_ended(run):
                break
            if size != seen:
                seen = size
                try:
                    run = read_run([log], format.value, maps, page_size, False)
                except MissingTraceError:
                    raise
                except TraceFormatError:  # nothing is in it yet that tells what it is
                    run = None
                if run is not None and sys.stdout.isatty():
                    sys.stdout.write(_CLEAR)
                    print_lines(first_screen(run))
                    sys.stdout.flush()
            time.sleep(max(SECONDS, time.monotonic() - began))
    except KeyboardInterrupt:
        status_of_interrupt()
        run = read_run([log], format.value, maps, page_size, False)
    if sys.stdout.isatty():
        sys.stdout.write(_CLEAR)
    print_lines(text_report(run))


def _size_of(log: str) -> int:
    """Return the bytes of a log, or of all files of a directory or set; 0 where there is none."""
    from replay.logs.files import find_logs, size_of

    return sum(size_of(found.path) for found in find_logs([log]))


def _has_ended(run: Run) -> bool:
    """Tell whether the log shows the end of every process."""
    died = run.replayed.spaces["died_line"]
    return bool(len(died)) and bool((died >= 0).all())
