"""How a command ends: exit statuses, messages, signals, and what becomes of output that nobody takes.

In go exceptions and signals, out come exit statuses and words on standard error.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Final, NoReturn

from replay.errors import ReplayError
from replay.version import __version__

UNUSABLE_INPUT: Final = 1
WRONG_USAGE: Final = 2
CONDITION_HELD: Final = 3
"""The exit statuses besides 0; those of an end by SIGINT and SIGTERM are the shell's, 128 and the signal's number."""

_WRITE_ERRORS: Final = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)
"""What the system says when an output can take no more."""

_SOON_SECONDS: Final = 0.02


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to end.

    Who catches everything swallows this too: a finaliser, a library that tries an import, compiled code. When it is
    gone and no exit status was asked for, it is raised once more, soon.
    """

    unanswered: ClassVar[list[int]] = []
    """The numbers of the signals that came."""

    def __del__(self) -> None:
        """See to it that the signal has an end."""
        if self.unanswered:
            signal.setitimer(signal.ITIMER_REAL, _SOON_SECONDS)


def end_at_signals() -> None:
    """Let SIGINT and SIGTERM end the command by an exception, so that temporary files go."""
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _complain
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_interrupted)


def _raise_interrupted(number: int, frame: FrameType | None) -> NoReturn:
    Interrupted.unanswered.append(number)
    raise Interrupted


def _raise_again(number: int, frame: FrameType | None) -> None:
    """Raise an interrupt that was swallowed once more."""
    if Interrupted.unanswered:
        raise Interrupted


def _complain(lost: Any) -> None:
    """Print an exception of a finaliser, but for interrupts: they come again."""
    if not isinstance(lost.exc_value, Interrupted):
        sys.__unraisablehook__(lost)


def status_of_interrupt() -> int:
    """Return the exit status after an interrupt; that was its end."""
    numbers = Interrupted.unanswered
    status = 128 + (numbers[-1] if numbers else signal.SIGINT)
    numbers.clear()
    signal.setitimer(signal.ITIMER_REAL, 0)  # once Python lets go of its handlers, the alarm would end the process
    return status


def run_to_end(run: Callable[[], object]) -> NoReturn:
    """Run a command line and end the process with its exit status: 0, or the number that `run` returns."""
    try:
        end_at_signals()
        status = run()
    except KeyboardInterrupt:
        sys.exit(status_of_interrupt())
    except SystemExit:
        if Interrupted.unanswered:  # Typer makes one of an interrupt that comes before the command begins
            sys.exit(status_of_interrupt())
        raise
    except Exception as error:
        if Interrupted.unanswered:  # Python itself makes other errors of it, as where a class is made
            sys.exit(status_of_interrupt())
        if isinstance(error, (ReplayError, MemoryError)):
            say(str(error) if isinstance(error, ReplayError) else "not enough memory for this log")
        elif os.environ.get("REPLAY_TRACEBACK"):
            raise
        else:
            say(bug_report(error))
        sys.exit(UNUSABLE_INPUT)
    sys.exit(status if isinstance(status, int) else 0)


def status_after(run: Callable[[], int | None]) -> int:
    """Run a command and return its exit status, quietly where the reader of a pipe had enough or at Ctrl-C."""
    try:
        status = run() or 0
    except KeyboardInterrupt:
        status = status_of_interrupt()
    except ReplayError:
        raise
    except OSError as error:
        status = after_system_error(error)
    return status_of_interrupt() if Interrupted.unanswered else flushed(status)


def flushed(status: int) -> int:
    """Write out what standard output still holds and return the exit status."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return after_system_error(error) or status
    return status


def after_system_error(error: OSError) -> int:
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


def say(message: str) -> None:
    """Print a message for people on standard error, free of what a terminal would obey."""
    from replay.console.screen import clean

    lines = message.splitlines() or [""]
    print("\n".join([f"replay: {clean(lines[0])}", *map(clean, lines[1:])]), file=sys.stderr)


def bug_report(error: Exception) -> str:
    """Return what to say of an error that should not be: its type and place, and how to report it."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}, {frames[-1].name}" if frames else "unknown place"
    return (
        f"this is a bug: {type(error).__name__} in {place}: {str(error)[:200]}\n"
        f"Please report it, with replay {__version__} and the lines of the log around it, if you can;\n"
        "REPLAY_TRACEBACK=1 shows the whole traceback."
    )
