"""Replay what strace and ltrace recorded: the address space step by step, and what a person came to learn from it.

    import replay

    run = replay.load("trace.log")   # a log, the prefix of a strace -ff set, a recording
    run                              # who ran and what is the matter, in a line
    run.brk_failures                 # each table of `replay schema` is a DataFrame
    run.maps(line=72)                # the address space then, as /proc/PID/maps prints it
    run.export("tables/")            # all tables as Parquet files
    run.plot()                       # mapped, break and live bytes over time
    run.whatif(["jemalloc"])         # the recorded requests served again by other allocators

`help(replay.load)` tells how a log may be read, `help(run.maps)` and the like what a run can be asked.
`replay.ReplayError` is raised for whatever cannot be used; a missing log is a `FileNotFoundError` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.errors import ReplayError as ReplayError
from replay.version import __version__ as __version__

if TYPE_CHECKING:
    from replay.library import Run as Run
    from replay.library import load as load
else:

    def __getattr__(name: str) -> object:
        """Import `load` and `Run` when they are first asked for: the command line starts without them."""
        if name in ("load", "Run"):
            from replay import library

            return getattr(library, name)
        raise AttributeError(f"module 'replay' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names.

    They are no `__all__`: `help(replay)` would print all that the classes inherit, which is pages.
    """
    return ["ReplayError", "Run", "__version__", "load"]
