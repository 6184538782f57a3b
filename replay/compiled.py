"""The replay's loop as machine code, for logs that are long enough to pay for it.

In goes a number of rows, out comes `address_space.run`, compiled by numba and kept on disk for the next run. What the
loop does is written in `address_space` alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

from replay import address_space

WORTH_LOADING: Final = 3_000
"""Rows of verbs from which on loading the compiled loop costs less than interpreting them. Heuristic, measured."""

WORTH_COMPILING: Final = 60_000
"""The same for compiling it first, which happens once on a machine. Heuristic, measured."""


def runner_for(rows: int) -> Callable[..., tuple[int, int]]:
    """Return what applies `rows` rows of verbs fastest: `address_space.run` itself or its compiled form."""
    if rows < WORTH_LOADING or (rows < WORTH_COMPILING and not _kept_on_disk()):
        return address_space.run
    return compiled_run()


@cache
def compiled_run() -> Callable[..., tuple[int, int]]:
    """Return `address_space.run` compiled; the first time on a machine this takes a while and is said."""
    if not _kept_on_disk():
        print("replay: compiling the replay loop, once on this machine ...", file=sys.stderr)
    os.environ["NUMBA_CACHE_DIR"] = str(_cache_directory())
    import numba  # noqa: PLC0415 - a third of a second that a small log does not need
    from numba.extending import register_jitable  # noqa: PLC0415

    # The loop allocates nothing, so it needs none of numba's reference counting, which cost more than the work itself.
    for helper in address_space.HELPERS:
        register_jitable(_nrt=False)(helper)
    return numba.njit(cache=True, nogil=True, _nrt=False)(address_space.run)  # type: ignore[no-any-return]


def _kept_on_disk() -> bool:
    """Tell whether the loop as it is now was compiled here before."""
    written = Path(address_space.__file__).stat().st_mtime
    return any(index.stat().st_mtime >= written for index in _cache_directory().glob("*/address_space.run*.nbi"))


@cache
def _cache_directory() -> Path:
    """Return where the user may keep compiled code: the user's cache directory, else one that lasts this run only."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "replay"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="replay-"))
