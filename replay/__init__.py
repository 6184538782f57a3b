"""Replay what strace and ltrace recorded: the address space step by step, and what a person came to learn from it."""

from __future__ import annotations

from replay.errors import ReplayError

__all__ = ["ReplayError", "Run", "__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `load` and `Run` when they are first asked for: the command line starts without them."""
    if name in ("load", "Run"):
        from replay.run import api

        return getattr(api, name)
    raise AttributeError(f"module 'replay' has no attribute {name!r}")
