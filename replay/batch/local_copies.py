"""Logs at hand: as local files, wherever they are; their state, by which a change shows; the hash of their bytes.

In go the files of a run, out come paths that can be read. What is in them is not known here.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replay.batch.storage import file_system
from replay.errors import TraceFormatError
from replay.logs.files import open_log

if TYPE_CHECKING:
    from replay.batch.discovery import LogFile

HEAD_BYTES: Final = 64 << 10
"""How much of a file is read to see how it begins, in bytes, decompressed."""

_PIECE_BYTES: Final = 512
_COPY_BYTES: Final = 1 << 20


@contextmanager
def fetched(files: Sequence[LogFile]) -> Iterator[list[str]]:
    """Give local paths of the logs: their own, or those of copies that vanish when the block ends.

    Raises:
        TraceFormatError: a log cannot be fetched.
    """
    if not any(file.base for file in files):
        yield [file.path for file in files]
        return
    with tempfile.TemporaryDirectory(prefix="replay-", ignore_cleanup_errors=True) as folder:
        yield [_copied(file, Path(folder)) if file.base else file.path for file in files]


def state_of(files: Sequence[LogFile]) -> tuple[tuple[Any, ...], ...]:
    """Return the size in bytes and the time of the last change of each log; what differs later has changed.

    Raises:
        TraceFormatError: a log is gone.
    """
    return tuple(_state_behind_url(file) if file.base else _state(file) for file in files)


def content_hash(paths: Sequence[str]) -> str:
    """Return the SHA-256 of a log as it lies on disk; for a set that of the lines `sha256sum` prints of its files.

    Raises:
        TraceFormatError: a log cannot be read.
    """
    hashes = [_hash_of_file(path) for path in paths]
    if len(hashes) == 1:
        return hashes[0]
    lines = (f"{value}  {os.path.basename(path)}\n" for value, path in zip(hashes, paths, strict=True))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def head_of(file: LogFile) -> bytes:
    """Return how a log begins, decompressed; nothing if it cannot be read."""
    try:
        if not file.base:
            return beginning(file.path)
        with tempfile.TemporaryDirectory(prefix="replay-") as folder:
            return beginning(_copied(file, Path(folder), limit=HEAD_BYTES))
    except (OSError, TraceFormatError):
        return b""


def is_tar(first: bytes) -> bool:
    """Tell whether a file that begins so is a tar archive, of which the logs in it would be the text."""
    return first[257:262] == b"ustar"  # Source: tar(5), the field magic


def is_compressed(path: str) -> bool:
    """Tell whether a log is compressed in a way that is undone when it is read."""
    with open_log(path) as stream:
        return not isinstance(stream, io.BufferedReader)


def beginning(path: str, size: int = HEAD_BYTES) -> bytes:
    """Return the first bytes of a log, decompressed; of a broken one what comes before the break."""
    pieces: list[bytes] = []
    with open_log(path) as stream:
        try:
            while len(pieces) * _PIECE_BYTES < size and (piece := stream.read(_PIECE_BYTES)):
                pieces.append(piece)
        except _broken_streams():
            pass
    return b"".join(pieces)[:size]


def _broken_streams() -> tuple[type[Exception], ...]:
    """Return what decompressors raise; that of zstandard only where it is in use."""
    zstandard = sys.modules.get("zstandard")
    own = (zstandard.ZstdError,) if zstandard else ()
    return (OSError, EOFError, zlib.error, lzma.LZMAError, *own)


def _copied(file: LogFile, folder: Path, limit: int | None = None) -> str:
    """Return the path of a copy of a log, or of its first `limit` bytes, under the log's own name."""
    files, _ = file_system(file.base)
    target = folder / file.path.rpartition("/")[2]
    try:
        with files.open_input_stream(file.path) as stream, target.open("wb") as copy:
            while block := stream.read(limit or _COPY_BYTES):
                copy.write(block)
                if limit is not None:
                    break
    except OSError as error:
        raise TraceFormatError(f"{file.source}: cannot be read ({error})") from error
    return str(target)


def _state(file: LogFile) -> tuple[Any, ...]:
    try:
        facts = os.stat(file.path)
    except OSError as error:
        raise TraceFormatError(f"{file.source}: cannot be read ({error.strerror}); it was there before") from error
    return facts.st_size, facts.st_mtime_ns, facts.st_ino


def _state_behind_url(file: LogFile) -> tuple[Any, ...]:
    files, _ = file_system(file.base)
    try:
        info = files.get_file_info(file.path)
    except OSError as error:
        raise TraceFormatError(f"{file.source}: cannot be read ({error})") from error
    if not info.is_file:
        raise TraceFormatError(f"{file.source}: is gone; it was there before")
    return info.size, info.mtime_ns


def _hash_of_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TraceFormatError(f"{path}: cannot be read ({error.strerror})") from error
