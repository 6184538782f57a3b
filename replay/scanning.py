"""Chunks with their scans: one by one for short logs, for long ones scanned ahead in a thread.

In go the chunks of a log, out come the same in order, each with its `Scan`. The compiled scanner lets other threads run
so that a chunk is scanned while the one before is made use of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias

from replay.scanloop import scan_compiled
from replay.scanner import Scan, scan
from replay.source import Chunk, Log

WORTH_COMPILING: Final = 12 << 20
"""Bytes of a log from which on the compiled scanner is used. Heuristic, measured.

Loading it costs half a second, compiling it some seconds, once on a machine.
"""

AHEAD: Final = 2
"""So many chunks are scanned ahead."""

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
            yield from _ahead(chunk, chunks, log.dialect)
            return
        yield chunk, scan(chunk.data, log.dialect)


def _ahead(first: Chunk, chunks: Iterator[Chunk], dialect: str) -> Iterator[Scanned]:
    """Yield the first and all other chunks with their scans, made by the compiled scanner in a thread of its own."""
    waiting: deque[tuple[Chunk, Future[Scan]]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="scanner") as thread:
        try:
            error: Exception | None = None
            chunk: Chunk | None = first
            while chunk is not None or waiting:
                if chunk is not None:
                    waiting.append((chunk, thread.submit(scan_compiled, chunk.data, dialect)))
                    chunk, error = _next(chunks)
                if len(waiting) > AHEAD or chunk is None:
                    done, scan_of_it = waiting.popleft()
                    yield done, scan_of_it.result()
            if error is not None:
                raise error
        finally:
            for _, scan_of_it in waiting:
                scan_of_it.cancel()


def _next(chunks: Iterator[Chunk]) -> tuple[Chunk | None, Exception | None]:
    """Return the next chunk, or None and the error that there was instead of one."""
    try:
        return next(chunks, None), None
    except Exception as error:
        return None, error
