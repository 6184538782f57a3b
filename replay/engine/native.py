"""The compiled loops, as the package brings them: one shared library, made when the package is built.

In goes a loop written in plain Python over numbers and arrays, out comes the same as machine code. `build_hook` makes
the library of the loops' sources; here it is only loaded and called. What the loops do is written where they stand.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from replay.errors import ReplayError

Function: TypeAlias = Callable[..., Any]

LIBRARY: Final = Path(__file__).with_name("_loops.so")
"""Where the library stands."""

MOST_RESULTS: Final = 4
"""So many numbers a loop may return."""

BUILT_FROM: Final = "replay_built_from"
"""The text in the library that says of which sources it is made: their digest, then their names, a line each."""

ROOT: Final = Path(__file__).parents[2]
"""Where the package stands: what the names of sources are relative to."""


class Loop:
    """A loop of the library, called as the function is that it was compiled from.

    Its arguments are numbers, arrays in C order, rows of records and tuples of them, laid out as those that `like`
    returns; it allocates
    nothing, raises nothing, and returns as many numbers as `results` says. While it runs, other threads do too. The
    helpers that are `inlined` become part of their callers.
    """

    def __init__(
        self,
        function: Function,
        like: Callable[[], Sequence[Any]],
        *,
        helpers: Iterable[Function] = (),
        inlined: Iterable[Function] = (),
        results: int = 0,
    ) -> None:
        """Describe a loop to whoever compiles it, and name it for whoever calls it."""
        self.function = function
        self.like = like
        self.helpers = tuple(helpers)
        self.inlined = tuple(inlined)
        self.results = results
        self.symbol = f"{function.__module__}.{function.__name__}".replace(".", "_")

    def __call__(self, *arguments: Any) -> Any:
        """Run the loop.

        Raises:
            ReplayError: the library is not there, or in a checkout older than its sources.
            ValueError: an argument is not laid out as the loop wants it.
        """
        run, layout = self._code
        given = zip(flat(arguments), layout, strict=True)
        words = [word for argument, kind in given for word in _words(argument, kind)]
        found = (ctypes.c_int64 * MOST_RESULTS)()
        run(*words, found)
        return tuple(found[: self.results]) if self.results else None

    @cached_property
    def _code(self) -> tuple[Function, Sequence[Layout]]:
        """Return the machine code, and how each of its arguments is laid out."""
        layout = [_layout(argument) for argument in flat(self.like())]
        run = library()[self.symbol]
        run.restype = None
        words = sum(1 if kind is None else 1 + kind[1] for kind in layout)
        run.argtypes = [*[ctypes.c_int64] * words, ctypes.c_void_p]
        return run, layout


Layout: TypeAlias = tuple[np.dtype[Any], int] | None
"""The type and the dimensions of an array, of which a row of records has none; nothing of a number."""


def flat(arguments: Iterable[Any]) -> Iterator[Any]:
    """Yield the numbers and arrays of arguments, those inside of tuples too."""
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from flat(argument)
        else:
            yield argument


def _layout(argument: Any) -> Layout:
    return (argument.dtype, argument.ndim) if isinstance(argument, (np.ndarray, np.void)) else None


def _words(argument: Any, kind: Layout) -> Sequence[int]:
    """Return what stands for an argument in a call: for an array its address and its shape, for a row its address."""
    if kind is None:
        return (int(argument),)
    if isinstance(argument, np.void):
        argument = np.asarray(argument)
    if (argument.dtype, argument.ndim) != kind or not argument.flags.c_contiguous:
        raise ValueError(f"a loop takes an array of {kind[1]} dimensions of {kind[0]} in C order")
    return (argument.ctypes.data, *argument.shape)


@cache
def library() -> ctypes.CDLL:
    """Return the library, loaded.

    Raises:
        ReplayError: it is not there, or in a checkout older than its sources.
    """
    remedy = "python -m replay.engine.build_hook makes it, where numba is installed"
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise ReplayError(f"the compiled loops cannot be loaded: {error}; {remedy}") from error
    if (ROOT / "pyproject.toml").exists() and not is_of_sources(loaded):
        raise ReplayError(f"{LIBRARY}: older than the loops that it is made of; {remedy}")
    return loaded


def is_of_sources(loaded: ctypes.CDLL) -> bool:
    """Tell whether a library is made of the sources as they stand there now."""
    text = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(loaded, BUILT_FROM)))
    digest, *names = text.decode().splitlines()
    return digest == digest_of(names)


def digest_of(names: Iterable[str]) -> str:
    """Return a digest of source files, given by their names below `ROOT`; one that is not there is as if empty."""
    digest = hashlib.sha256()
    for name in names:
        path = ROOT / name
        digest.update(f"{name}\n".encode() + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()
