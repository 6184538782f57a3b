"""Replay what strace and ltrace recorded: the address space step by step, and what a person came to learn from it."""

from __future__ import annotations

from replay.errors import ReplayError
from replay.version import __version__

__all__ = ["ReplayError", "Run", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import `load` and `Run` when they are first asked for: the command line starts without them."""
    if name in ("load", "Run"):
        from replay.run import api

        return getattr(api, name)
    raise AttributeError(f"module 'replay' has no attribute {name!r}")
