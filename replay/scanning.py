"""Chunks with their scans: one by one for short logs, for long ones scanned ahead in a thread.

In go the chunks of a log, out come the same in order, each with its `Scan`. The compiled scanner lets other threads run
so that a chunk is scanned while the one before is made use of.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Final, TypeAlias

from replay.ahead import worked_ahead
from replay.scanloop import scan_compiled
from replay.scanner import Scan, scan
from replay.source import Chunk, Log

WORTH_COMPILING: Final = 12 << 20
"""Bytes of a log from which on the compiled scanner is used. Heuristic, measured.

Loading it costs half a second, compiling it some seconds, once on a machine.
"""

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
        if max(size, read) >= WORTH_COMPILING:
            yield from worked_ahead(chain([chunk], chunks), lambda ahead: scan_compiled(ahead.data, log.dialect))
            return
        yield chunk, scan(chunk.data, log.dialect)
