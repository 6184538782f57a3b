"""Chunks with their scans: one by one for short logs, for long ones scanned ahead in a thread.

In go the chunks of a log, out come the same in order, each with its `Scan`. The compiled scanner lets other threads run
so that a chunk is scanned while the one before is made use of.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Final, TypeAlias

from replay.ahead import worked_ahead
from replay.compiled import pays
from replay.scanloop import scan_compiled, scan_loop
from replay.scanner import Scan, scan
from replay.source import Chunk, Log

WORTH_COMPILING: Final = 12 << 20
"""Bytes of a log from which on compiling the scanner pays, which happens once on a machine. Heuristic, measured."""

WORTH_LOADING: Final = 2 << 20
"""The same for linking it where that is done. Heuristic, measured."""

Scanned: TypeAlias = tuple[Chunk, Scan]


def scanned(chunks: Iterator[Chunk], log: Log, size: int) -> Generator[Scanned]:
    """Yield each chunk of a log with its scan; an error of the chunks is raised behind the last one before it.

    Args:
        chunks: the log's; the first one tells its dialect.
        log: what they are of.
        size: how many bytes it is known to have at least.
    """
    read = 0
    for chunk in chunks:
        read += len(chunk.data)
        if pays(scan_loop, max(size, read), loading=WORTH_LOADING, compiling=WORTH_COMPILING):
            yield from worked_ahead(chain([chunk], chunks), lambda ahead: scan_compiled(ahead.data, log.dialect))
            return
        yield chunk, scan(chunk.data, log.dialect)
