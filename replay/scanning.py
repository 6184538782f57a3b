"""Chunks with their scans: one by one for short logs, for long ones scanned ahead in a thread.

In go the texts of a log, out come its chunks in the same order, each with its `Scan`. The compiled scanner lets other
threads run, so that a text is scanned while the chunk before is made use of.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, TypeAlias

from replay.ahead import worked_ahead
from replay.compiled import pays
from replay.footprint import keep_freed_memory
from replay.scanloop import scan_compiled, scan_loop
from replay.scanner import Scan, scan
from replay.shapetree import Tree, empty_tree
from replay.source import Chunk, Log, Text, chunk_of, plain_chunk

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
        if pays(scan_loop, max(size, read), loading=WORTH_LOADING, compiling=WORTH_COMPILING):
            keep_freed_memory()
            scanner = _Scanner(log.dialect, first_line)
            for _, made in worked_ahead(chain([text], texts), scanner.scanned):
                yield made
            return
        chunk = chunk_of(text, first_line, log.dialect)
        first_line += len(chunk.line) + chunk.diagnostics
        yield chunk, scan(chunk.data, log.dialect)


@dataclass(slots=True)
class _Scanner:
    """The compiled scanner on its way through the texts of a log, with the shapes that it met."""

    dialect: str
    first_line: int
    tree: Tree = field(default_factory=empty_tree)

    def scanned(self, text: Text) -> Scanned:
        """Return the next text as a chunk with its scan."""
        found = scan_compiled(text.data, self.dialect, self.tree)
        if found.plain:
            chunk = plain_chunk(text, self.first_line, found.lines)
        else:
            chunk = chunk_of(text, self.first_line, self.dialect)
            found = scan_compiled(chunk.data, self.dialect, self.tree)
        self.first_line += len(chunk.line) + chunk.diagnostics
        return chunk, found
