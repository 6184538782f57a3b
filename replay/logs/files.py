"""Log files: found, opened, decompressed.

In go paths, out come logs and streams of their bytes. What stands in them is not known here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from replay.engine.structs import Struct
from replay.errors import MissingTraceError, TraceFormatError
from replay.logs.recordings import PARTS, SIDECAR, dialect_told, log_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN: Final = "-"

RUNS_FILE: Final = "runs.parquet"
"""The table of runs, by which a dataset is known: what lies beside it are tables, not logs."""


class Log(Struct):
    """One log file: its path (`-` is standard input), its place in the run, and the pid a `strace -ff` name gives.

    Reading it tells its dialect, whether it writes null pointers as `nil` (ltrace 0.7.91 and later), whether a log of
    ltrace shows system calls (`-S`), whether offsets of mmap2 are pages (strace before 4.8), and whether its lines have
    nothing but the time since the line before (`-r`); `bytes_read` counts what of the file was read so far.
    `of_set` says that it is one of several files of a set: what a thread did not do leaves its file empty; `framed`,
    known once it was read, that there are stack frames in it.
    """

    path: str
    index: int = 0
    pid: int | None = None
    dialect: str = "auto"
    nil: bool = False
    system_calls: bool = False
    mmap2_in_pages: bool = False
    relative: bool = False
    bytes_read: int = 0
    of_set: bool = False
    framed: bool = False


def find_logs(paths: Iterable[str | Path]) -> list[Log]:
    """Return the logs of one run: the given files, a bare prefix standing for its `strace -ff` set.

    A directory stands for the log of the recording that it is, for the one `strace -ff` set that it holds, or for its
    only file.

    Raises:
        TraceFormatError: a path does not exist, is a directory of anything else, or cannot be read.
    """
    names: list[str] = []
    for path in map(str, paths):
        if path != STDIN and Path(path).is_dir():
            names += _logs_in(Path(path))
        else:
            names += [path] if path == STDIN or Path(path).exists() else _set_of_prefix(path)
    logs = [Log(name, index, dialect=dialect_told(name)) for index, name in enumerate(names)]
    if _is_set(names):
        names.sort(key=lambda name: int(split_name(name)[1]))
        of_set = len(names) > 1
        logs = [Log(name, index, int(split_name(name)[1]), of_set=of_set) for index, name in enumerate(names)]
        if of_set and not any(size_of(name) for name in names):
            raise TraceFormatError(f"{names[0]}: empty, as all of the set; expected a strace or ltrace log")
    return logs


def _logs_in(directory: Path) -> list[str]:
    """Return the log of a recording, the files of the one `strace -ff` set in a directory, or the only file in it."""
    if (directory / SIDECAR).exists() or (directory / PARTS).is_dir():
        return [str(log_of(directory))]
    files = [file for file in sorted(directory.iterdir()) if not file.name.startswith(".")]
    of_sets = [str(file) for file in files if _is_pid(split_name(file.name)[1])]
    if of_sets and _is_set(of_sets):
        return of_sets
    _refuse_tables(directory, [file.name for file in files if file.suffix == ".parquet"])
    if len(files) == 1 and files[0].is_file():
        return [str(files[0])]
    what = (
        "is a directory of several sets of strace -ff"
        if of_sets
        else "is a directory, neither a recording nor a set of strace -ff nor one file alone"
    )
    one = split_name(of_sets[0])[0] if of_sets else f"{directory}/LOG"
    raise TraceFormatError(
        f"{directory}: {what}; give one of its runs (replay {one}), or all to `replay batch {directory} -o DATASET`"
    )


def _refuse_tables(directory: Path, tables: list[str]) -> None:
    """Raise a TraceFormatError for a directory that holds tables in place of logs, and say what reads them."""
    if RUNS_FILE in tables:
        raise TraceFormatError(
            f"{directory}: is a dataset of many runs, not the log of one; ask it with `replay query {directory} "
            f"QUESTION`, draw it with `replay dashboard {directory} -o FILE --pages DIR`, compare its runs with "
            f"`replay compare '{directory}#A' '{directory}#B'`; `source` in `runs` says where their logs are"
        )
    if tables:
        raise TraceFormatError(
            f"{directory}: holds the tables of an exported run, not its log; `replay query {directory} QUESTION` and "
            "`replay compare` read them"
        )


def split_name(name: str) -> tuple[str, str]:
    """Return the parts before and behind the last point of a file's name, an ending of compressed files aside."""
    for ending in (".gz", ".xz", ".bz2", ".zst"):
        name = name.removesuffix(ending)
    prefix, _, suffix = name.rpartition(".")
    return prefix, suffix


def _set_of_prefix(prefix: str) -> list[str]:
    """Return the files `prefix.PID` that `strace -ff -o prefix` wrote."""
    folder = Path(prefix).parent
    found = []
    if folder.is_dir():
        wanted = Path(prefix).name
        parts = ((str(file), *split_name(file.name)) for file in folder.iterdir())
        found = [name for name, before, behind in parts if before == wanted and _is_pid(behind)]
    if not found:
        raise MissingTraceError(f"{prefix}: no such file, and no set {prefix}.PID written by strace -ff")
    return sorted(found)


def _is_set(names: list[str]) -> bool:
    """Return whether all names are `PREFIX.PID` of one prefix: what `strace -ff -o PREFIX` writes."""
    parts = [split_name(name) for name in names]
    return len({before for before, _ in parts}) == 1 and all(before and _is_pid(behind) for before, behind in parts)


def _is_pid(text: str) -> bool:
    """Tell whether a text is a decimal number: other alphabets have digits too."""
    return text.isascii() and text.isdigit()


class _Counted(io.FileIO):
    """A file that adds what is read from it to `log.bytes_read`, before decompression."""

    def __init__(self, path: str, log: Log | None) -> None:
        """Open `path`; without a log nothing is counted."""
        super().__init__(path)
        self._log = log

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """Read into `buffer` and return how many bytes."""
        count = super().readinto(buffer)
        if self._log is not None:
            self._log.bytes_read += count or 0
        return count


def open_log(path: str, log: Log | None = None) -> IO[bytes] | gzip.GzipFile:
    """Open a log for reading, decompressed, and count in `log` what is read; the first bytes tell the compression.

    Raises:
        TraceFormatError: there is no such file, it is a directory, or it may not be read.
    """
    if path == STDIN and sys.stdin is None:
        raise TraceFormatError("standard input is closed; expected a log on it")
    try:
        raw = sys.stdin.buffer if path == STDIN else io.BufferedReader(_Counted(path, log))
    except FileNotFoundError as err:
        raise MissingTraceError(f"{path}: no such file; expected a strace or ltrace log") from err
    except IsADirectoryError as err:
        raise TraceFormatError(f"{path}: is a directory; expected a strace or ltrace log") from err
    except OSError as err:
        raise TraceFormatError(f"{path}: cannot be read ({err.strerror or err}); expected a log") from err
    return _decompressed(raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(io.BytesIO(raw.read())))


def size_of(path: str) -> int:
    """Return how many bytes a log has, before decompression; 0 where that is not known."""
    try:
        return os.stat(path).st_size if path != STDIN else 0
    except OSError:
        return 0


def _decompressed(raw: io.BufferedReader) -> IO[bytes] | gzip.GzipFile:
    """Return a reader of what is in a compressed stream, or the stream itself."""
    magic = raw.peek(6)[:6]
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd_reader(raw)
    return raw


def _zstd_reader(raw: io.BufferedReader) -> IO[bytes]:
    """Return a reader of a zstd stream, by whichever library is installed."""
    try:
        import zstandard
    except ImportError:
        try:
            import pyarrow
        except ImportError as err:
            raise TraceFormatError("reading .zst needs the zstandard or the pyarrow package") from err
        return pyarrow.CompressedInputStream(raw, "zstd")  # type: ignore[no-any-return]
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


def read_block(stream: IO[bytes] | gzip.GzipFile, path: str, size: int) -> bytes:
    """Return the next bytes of a log, `b""` at its end.

    Raises:
        TraceFormatError: the compressed stream is broken or ends too early, or reading fails.
    """
    try:
        return stream.read(size)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as err:
        raise TraceFormatError(f"{path}: broken compressed file ({err}); expected a whole one") from err
    except OSError as err:
        raise TraceFormatError(f"{path}: cannot be read ({err.strerror or err})") from err
    except Exception as err:
        if type(err).__module__.split(".")[0] in ("zstandard", "zstd", "pyarrow"):
            raise TraceFormatError(f"{path}: broken compressed file ({err}); expected a whole one") from err
        raise
