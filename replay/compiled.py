"""Loops as machine code, for logs that are long enough to pay for it.

In goes a loop written in plain Python over arrays, out comes the same compiled by numba and kept on disk for the next
run. What the loops do is written where they stand.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from replay.keeping import cache_directory

_LOADED: set[str] = set()
"""The loops that this process has compiled or loaded."""


def is_loaded(function: Callable[..., Any]) -> bool:
    """Tell whether this process has a loop compiled at hand, so that even a short log is served faster by it."""
    return function.__qualname__ in _LOADED


def is_compiled(function: Callable[..., Any]) -> bool:
    """Tell whether a loop, as its module is now, was surely compiled on this machine before, by the files' times."""
    source = Path(function.__code__.co_filename)
    written = source.stat().st_mtime
    pattern = f"*/{source.stem}.{function.__name__}-*.nbi"
    return any(index.stat().st_mtime >= written for index in _directory().glob(pattern))


@cache
def compiled(
    function: Callable[..., Any],
    helpers: Iterable[Callable[..., Any]] = (),
    inlined: Iterable[Callable[..., Any]] = (),
    *,
    allocates: bool = True,
) -> Any:
    """Return `function` compiled, with the `helpers` that it calls; the first time on a machine this is said.

    The helpers that are `inlined` become part of their callers: a call hands over every array of a tuple with its
    shape and strides, some hundred words for `address_space.Space`, which costs more than a small function does.
    A loop that allocates nothing can do without numba's reference counting of arrays, which costs more than the work
    of a small function itself.
    """
    os.environ["NUMBA_CACHE_DIR"] = str(_directory())
    import numba  # noqa: PLC0415 - a third of a second that a small log does not need
    from numba.extending import register_jitable  # noqa: PLC0415

    _LOADED.add(function.__qualname__)
    compiler: Any = numba.njit
    for helper in helpers:
        register_jitable(_nrt=allocates)(helper)
    for helper in inlined:
        register_jitable(_nrt=allocates, forceinline=True)(helper)
    loop = compiler(cache=True, nogil=True, _nrt=allocates)(function)
    _announce(loop)
    return loop


def _announce(loop: Any) -> None:
    """Have it said on standard error when numba compiles `loop`, which it does unless it finds it on disk."""
    from numba.core import event  # noqa: PLC0415

    class Announcement(event.Listener):
        def on_start(self, event: Any) -> None:
            if event.data["dispatcher"] is loop:
                print(f"replay: compiling {loop.py_func.__module__}, once on this machine ...", file=sys.stderr)

        def on_end(self, event: Any) -> None:
            pass

    register: Any = event.register
    register("numba:compile", Announcement())


def _directory() -> Path:
    """Return where numba keeps its code: where the user told numba to, else beside what else replay keeps."""
    return Path(os.environ.get("NUMBA_CACHE_DIR") or cache_directory())
