"""Chunks with their scans: one by one for short logs, for long ones scanned ahead in a thread.

In go the texts of a log, out come its chunks in the same order, each with its `Scan`. The compiled scanner lets other
threads run, so that a text is scanned while the chunk before is made use of.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Final, TypeAlias

from replay.engine.native import pays
from replay.engine.prefetch import worked_ahead
from replay.lines.scan import Scan, scan
from replay.logs.chunks import Chunk, Text, chunk_of, plain_chunk
from replay.logs.files import Log

WORTH_COMPILING: Final = 12 << 20
"""Bytes of a log from which on compiling the scanner pays, which happens once on a machine. Heuristic, measured."""

WORTH_LOADING: Final = 2 << 20
"""The same for linking it where that is done. Heuristic, measured."""

Scanned: TypeAlias = tuple[Chunk, Scan]


def scanned(texts: Iterator[Text], log: Log, size: int) -> Generator[Scanned]:
    """Yield each text of a log as a chunk with its scan; an error of the texts is raised behind the last one before it.

    Args:
        texts: the log's; the first one tells its dialect.
        log: what they are of.
        size: how many bytes it is known to have at least.
    """
    read, first_line = 0, 1
    for text in texts:
        read += len(text.data)
        if is_long(max(size, read)):
            yield from _scanned_ahead(chain([text], texts), log.dialect, first_line)
            return
        chunk = chunk_of(text, first_line, log.dialect)
        first_line += len(chunk.line) + chunk.diagnostics
        yield chunk, scan(chunk.data, log.dialect)


def is_long(size: int) -> bool:
    """Tell whether a log of so many bytes is worth the compiled scanner, of which a short one need not hear."""
    if size < min(WORTH_LOADING, WORTH_COMPILING):
        return False
    from replay.lines.scan_loop import scan_loop

    return pays(scan_loop, size, loading=WORTH_LOADING, compiling=WORTH_COMPILING)


def _scanned_ahead(texts: Iterator[Text], dialect: str, first_line: int) -> Iterator[Scanned]:
    """Yield the texts as chunks with their scans by the compiled scanner, which works ahead in a thread."""
    from replay.engine.process_memory import keep_freed_memory
    from replay.lines.scan_loop import scan_compiled
    from replay.lines.shape_trie import empty_tree

    keep_freed_memory()
    tree, next_line = empty_tree(), first_line

    def scanned_next(text: Text) -> Scanned:
        nonlocal next_line
        found = scan_compiled(text.data, dialect, tree)
        if found.plain:
            chunk = plain_chunk(text, next_line, found.lines)
        else:
            chunk = chunk_of(text, next_line, dialect)
            found = scan_compiled(chunk.data, dialect, tree)
        next_line += len(chunk.line) + chunk.diagnostics
        return chunk, found

    for _, made in worked_ahead(texts, scanned_next):
        yield made
