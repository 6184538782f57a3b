"""Call stacks of a log (`strace -k`, `ltrace -w`, `replay record --stacks`), weighted by the bytes of their steps.

In go a run and what is to be weighed, out come folded stacks. The frames are read from the logs once more: a replay
needs but one of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.errors import QueryError
from replay.grammar import LineError, parse
from replay.grammar.line import Text
from replay.linux import constants
from replay.logs.chunks import read_chunks
from replay.logs.files import STDIN, Log
from replay.run.cxx_names import demangled

if TYPE_CHECKING:
    from replay.run.api import Run

_MARKS: Final = (b" > ", b"\t", b" >")


def weights_of(run: Run, of: str) -> tuple[Int64Array, Int64Array]:
    """Return the steps that stacks are asked of, and their bytes.

    Args:
        run: the run.
        of: `live` (blocks that live at the end), `allocated` (all blocks), `growth` (what the break grew by) or `mmap`.

    Raises:
        QueryError: there is no such word.
    """
    if of in ("live", "allocated"):
        blocks = run.malloc_blocks.columns
        chosen = blocks["inherited"] == 0
        if of == "live":
            chosen &= blocks["died_step"] == NULL
        return blocks["born_step"][chosen], blocks["size"][chosen]
    if of == "growth":
        brks = run.replayed.brks
        grew = (brks["before"] != NULL) & (brks["granted"] > brks["before"])
        return brks["step"][grew], (brks["granted"] - brks["before"])[grew]
    if of == "mmap":
        events = run.replayed.events
        steps = np.flatnonzero((events["call"] == constants.CALL_CODE["mmap"]) & (events["status"] == 0))
        return steps, np.maximum(events["length"][steps], 0)
    raise QueryError(f"no stacks of {of!r}: expected live, allocated, growth or mmap")


def folded(run: Run, of: str) -> Counter[str]:
    """Return the bytes of each stack, `outermost;…;innermost`, as flame-graph tools read them.

    Raises:
        QueryError: the log has no stack frames, or cannot be read twice.
    """
    steps, sizes = weights_of(run, of)
    at = _where_frames_stand(run, steps)
    left = dict(enumerate(sizes.tolist()))
    found: Counter[str] = Counter()
    any_frames = False
    for log in run.source.logs:
        for line, frames in _stacks_in(log):
            any_frames = True
            for row, calls in at.get((log.index, line), ()):
                if row in left:
                    found[";".join([*reversed(frames), calls])] += left.pop(row)
    if not any_frames:
        raise QueryError("the log has no call stacks: strace -k, ltrace -w and replay record --stacks 8 write them")
    return found


def _where_frames_stand(run: Run, steps: Int64Array) -> dict[tuple[int, int], list[tuple[int, str]]]:
    """Return by file and line which of some steps the frames there are of, by their rows, and the calls inside.

    Those of a system call inside a libc call may stand behind either.
    """
    events, around = run.replayed.events, run.nesting.around(steps)
    inside = np.flatnonzero(around != NULL)
    found: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for rows, behind in ((np.arange(len(steps)), steps), (inside, around[inside])):
        called = zip(events.at("call", behind).tolist(), events.at("call", steps[rows]).tolist(), strict=True)
        places = zip(events.at("file", behind).tolist(), events.at("line", behind).tolist(), strict=True)
        for row, place, calls in zip(rows.tolist(), places, called, strict=True):
            names = (constants.CALLS[call] for call in calls)
            found.setdefault(place, []).append((row, ";".join(dict.fromkeys(names))))
    return found


_ALLOCATORS: Final = re.compile(
    r"^(?:libc[.-]|libc$|ld[.-]|ld-|libstdc\+\+|libc\+\+|libgcc_s|libjemalloc|libmimalloc|libtcmalloc|_shim\.so|shim-)"
)
"""Modules that hand on what others ask for: libc, the C++ run time, allocators, the recorder's own library."""


_STANDARD: Final = re.compile(r"_ZN?K?S[tabsiod]|_ZNK?9__gnu_cxx")
"""Symbols of C++'s standard library, wherever its templates were compiled. Source: Itanium C++ ABI, 5.1.10."""


def sites(run: Run, steps: Int64Array) -> dict[int, str]:
    """Return for those of some steps that have frames the first one outside of libc, C++ run time and allocator.

    A site is the function with its module, `make_node (prog)`. The result is empty where the log has no frames.
    """
    events = run.replayed.events
    wanted: dict[tuple[int, int], list[int]] = {}
    places = zip(events.at("file", steps).tolist(), events.at("line", steps).tolist(), strict=True)
    for place, step in zip(places, steps.tolist(), strict=True):
        wanted.setdefault(place, []).append(step)
    found: dict[int, str] = {}
    for log in run.source.logs:
        if log.path == STDIN or not log.framed:
            continue
        for line, frames in _frames_in(log):
            for step in wanted.get((log.index, line), ()):
                site = _site(frames)
                if site is not None:
                    found[step] = f"{site.function} ({site.module})" if site.module else site.function
    return found


class Asker(NamedTuple):
    """A function that made the break grow or mappings (`what`), how often and by how many bytes, and when."""

    what: str
    site: str
    calls: int
    bytes: int
    first_step: int
    last_step: int


def growth_sites(run: Run) -> list[Asker]:
    """Return who made the break and the mappings grow, most bytes first; nothing where the log has no frames."""
    if not run.source.framed:
        return []
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for of, what in (("growth", "break grew"), ("mmap", "mmap")):
        steps, sizes = weights_of(run, of)
        by_step = sites(run, steps)
        for step, size in zip(steps.tolist(), sizes.tolist(), strict=True):
            if step in by_step:
                found.setdefault((what, by_step[step]), []).append((step, size))
    askers = [
        Asker(what, site, len(made), sum(size for _, size in made), made[0][0], made[-1][0])
        for (what, site), made in found.items()
    ]
    return sorted(askers, key=lambda asker: -asker.bytes)


def _site(frames: Sequence[_Frame]) -> _Frame | None:
    """Return the first frame of a program's own; without any, the first outside of libc, C++ run time and allocator."""
    outside = [frame for frame in frames if not _ALLOCATORS.match(frame.module)]
    return next((frame for frame in outside if not _STANDARD.match(frame.symbol)), outside[0] if outside else None)


def askers(run: Run, steps: Int64Array, callers: Int64Array) -> Int64Array:
    """Return who asked at each of some steps, as text ids: its site where it has frames, else its caller."""
    if not run.source.framed:
        return callers
    found, made = sites(run, steps), callers.copy()
    for place, step in enumerate(steps.tolist()):
        if step in found:
            made[place] = run.strings.intern(found[step])
    return made


UNKNOWN: Final = "?"
"""A frame without function and module; the outermost is where unwinding ended, and no function."""


class _Frame(NamedTuple):
    """One frame of a stack: its function, `+?` behind the module where it has no name, the file's name, the symbol."""

    function: str
    module: str
    symbol: str


def _stacks_in(log: Log) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a log behind which frames stand, with the functions that are known, the innermost first."""
    if log.path == STDIN:
        raise QueryError("standard input cannot be read twice: name the log")
    for line, frames in _frames_in(log):
        functions = [frame.function for frame in frames]
        yield line, functions[:-1] if functions[-1] == UNKNOWN else functions


def _frames_in(log: Log) -> Iterator[tuple[int, list[_Frame]]]:
    """Yield the lines of a log behind which frames stand, with these, the innermost first."""
    for chunk in read_chunks(Log(log.path, dialect=log.dialect)):
        owner, frames = 0, list[_Frame]()
        for line, text in zip(chunk.line.tolist(), chunk.data.split(b"\n"), strict=False):
            if text.startswith(_MARKS):
                frames.append(_frame(text.decode("latin-1"), log.dialect))
                continue
            if frames:
                yield owner, frames
            owner, frames = line, []
        if frames:
            yield owner, frames


@lru_cache(1 << 16)
def _frame(text: str, dialect: str) -> _Frame:
    """Return what a frame names; those of a recording are written as strace writes them."""
    try:
        texts = parse(text, "strace" if dialect == "mixed" else dialect).texts
    except LineError:
        return _Frame(UNKNOWN, "", "")
    symbol, path = (_text(texts, name, text) for name in ("frame_symbol", "frame_module"))
    module = PurePath(path).name
    function = demangled(symbol).replace(";", ":")
    return _Frame(function or (f"{module}+?" if module else UNKNOWN), module, symbol)


def _text(texts: Mapping[str, Text], name: str, line: str) -> str:
    found = texts.get(name)
    if found is None:
        return ""
    shown = found.const if found.const is not None else line[found.start : found.end]
    return shown.encode("latin-1", "replace").decode("utf-8", "surrogateescape")
