"""The errors that replay raises for misuse; facts of a trace (ENOMEM, a failed brk) are data and never raised."""

from __future__ import annotations


class ReplayError(Exception):
    """Something the user gave cannot be used; the message says what, where and what was expected."""


class TraceFormatError(ReplayError):
    """The input is no strace or ltrace log, or it cannot be read: no such file, a directory, broken compression."""


class MissingTraceError(TraceFormatError, FileNotFoundError):
    """There is no such log."""


class MissingExtraError(ReplayError):
    """A library is not installed that only some of what replay does needs."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        """Say what needs which library, and how to get it."""
        super().__init__(
            f"{what} needs {library}, which is not installed here: pip install '.[{extra}]' in the checkout brings it"
        )


class TraceSyntaxError(ReplayError):
    """A line was not understood while reading strictly; the message holds file, line and text."""


class OutputExistsError(ReplayError):
    """The output is there already and overwriting was not asked for."""


class QueryError(ReplayError):
    """A step, line, time, process, column or table was asked for that the run does not have."""
