"""Where what was computed once is kept for the next run: compiled loops and parser tables.

In goes nothing, out comes a directory that the user may write. What is kept there is whose own affair.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path


@cache
def cache_directory() -> Path:
    """Return the user's cache directory for replay, else one that lasts this run only.

    Source: XDG Base Directory Specification: $XDG_CACHE_HOME, by default ~/.cache.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replay"
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="replay-"))
