"""Chunks with their scans, scanned ahead in a thread.

In go the texts of a log, out come its chunks in the same order, each with its `Scan`. The scanner lets other threads
run, so that a text is scanned while the chunk before is made use of.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain
from typing import TypeAlias

from replay.engine.prefetch import worked_ahead
from replay.engine.process_memory import keep_freed_memory
from replay.lines.scan import Scan, scan
from replay.lines.shape_trie import empty_tree
from replay.logs.chunks import Chunk, Text, chunk_of, plain_chunk
from replay.logs.files import Log

Scanned: TypeAlias = tuple[Chunk, Scan]


def scanned(texts: Iterator[Text], log: Log) -> Generator[Scanned]:
    """Yield each text of a log as a chunk with its scan; an error of the texts is raised behind the last one before it.

    The first text tells the dialect of the log.
    """
    for first in texts:
        yield from _scanned_ahead(chain([first], texts), log.dialect)


def _scanned_ahead(texts: Iterator[Text], dialect: str) -> Iterator[Scanned]:
    """Yield the texts as chunks with their scans; the scanner works ahead in a thread."""
    keep_freed_memory()
    tree, next_line = empty_tree(), 1

    def scanned_next(text: Text) -> Scanned:
        nonlocal next_line
        found = scan(text.data, dialect, tree)
        if found.plain:
            chunk = plain_chunk(text, next_line, found.lines)
        else:
            chunk = chunk_of(text, next_line, dialect)
            found = scan(chunk.data, dialect, tree)
        next_line += len(chunk.line) + chunk.diagnostics
        return chunk, found

    for _, made in worked_ahead(texts, scanned_next):
        yield made
