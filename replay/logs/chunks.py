"""Logs as chunks of whole lines: opened, decompressed, told apart, and cleaned of what is not from the tracee.

In go paths, out come chunks of bytes with the physical line number of every line. What a line says is not known here.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

import numpy as np

from replay.engine.columns import Int64Array
from replay.errors import TraceFormatError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES: Final = 2 << 20
"""How much of a log is read at once, in bytes."""

SAMPLE_BYTES: Final = 1 << 20
"""How much of a log tells its dialect, in bytes."""

PATIENCE_BYTES: Final = 64 << 20
"""How far into a log a first line of a trace is looked for, in bytes."""

STDIN: Final = "-"

# Patterns are compiled where they are first used: no log needs all of them.

_PROCESS_NOTICE: Final = rb"Process (\d+) (attached|detached|suspended|resumed)(?: with \d+ threads)?\n"
"""What strace says about a process on standard error, in the middle of a line or alone on one."""

_UNKNOWN_PID: Final = rb"strace: (?:Exit of unknown pid \d+ ignored|Detached unknown pid \d+)\n"
"""What else strace says there. Source: strace.c, error_msg()."""

_PROGRAM_NAME: Final = rb"(?:[^\s\"<>(),]*/)?(?:strace: )?\Z"
"""argv[0] of strace, as it stands before its diagnostics from 4.11 on."""

_HEAP_ABORT: Final = rb"\n <no return \.\.\.>"
_HEAP_ABORT_TEXT: Final = (
    rb"(?<=[0-9a-fnl)])(?:(?:free|realloc|malloc|calloc|munmap_chunk|unlink|sysmalloc|mremap_chunk)[a-z_]*\(\)"
    rb"|corrupted |double free|break adjusted|malloc: )[^\n]*\Z"
)
"""glibc's last words, printed by the tracee into the open line of ltrace: `free(0x5637d78672a0free(): double …`."""

_COLOUR: Final = rb"\x1b\[[0-9;]*m"
_FRAMES: Final = (b" > ", b"\t")


@dataclass(frozen=True, slots=True)
class Notice:
    """What strace said about a process: `what` is attached, detached, suspended, resumed, 32 bit or 64 bit."""

    line: int
    pid: int
    what: str
    file: int = 0


class Text(NamedTuple):
    """Whole lines of a log as they were read, each ended by a newline; `cut`: the last one had none in the log."""

    data: bytes
    cut: bool


class Chunk(NamedTuple):
    """Whole lines of a log, each ended by a newline, without what is not from the tracee.

    `line` holds the physical line number on which each line ends, `entry_line` the one on which it begins; they
    differ where a diagnostic of strace had been printed into the middle of the line. `cut` says that the last
    line had no newline in the log; `diagnostics` counts the physical lines that were taken out.
    """

    data: bytes
    line: Int64Array
    entry_line: Int64Array
    notices: list[Notice]
    diagnostics: int
    cut: bool


@dataclass(slots=True)
class Log:
    """One log file: its path (`-` is standard input), its place in the run, and the pid a `strace -ff` name gives.

    Reading it tells its dialect, whether it writes null pointers as `nil` (ltrace 0.7.91 and later), and whether its
    lines have nothing but the time since the line before (`-r`); `bytes_read` counts what of the file was read so far.
    """

    path: str
    index: int = 0
    pid: int | None = None
    dialect: str = "auto"
    nil: bool = False
    relative: bool = False
    bytes_read: int = 0


@dataclass(slots=True)
class Problems:
    """The lines that were not understood: all counted by reason, the first ones of each reason kept.

    Reasons: those of `grammar.REASONS` (`unknown_line`, `unknown_call_form`, `cut_line`: the log, or the line, ends
    too early), `line_too_long` (beyond 64 KiB and no call that is passed over), and what later layers add.
    """

    keep: int = 1000
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[Problem] = field(default_factory=list)

    def add(self, line: int, reason: str, text: str, file: int = 0) -> None:
        """Count a line and keep it, cut at 200 characters, unless many of its reason are kept already."""
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        if count <= self.keep:
            self.kept.append(Problem(line, reason, text[:200], file))

    @property
    def total(self) -> int:
        """Return how many problems were counted."""
        return sum(self.counts.values())


class Problem(NamedTuple):
    """One line (1-based, of the file with this index) that was not understood or contradicts the replay."""

    line: int
    reason: str
    text: str
    file: int = 0


def find_logs(paths: Iterable[str | Path]) -> list[Log]:
    """Return the logs of one run: the given files, a bare prefix standing for its `strace -ff` set.

    Raises:
        TraceFormatError: a path does not exist, is a directory or cannot be read.
    """
    names: list[str] = []
    for path in map(str, paths):
        names += [path] if path == STDIN or Path(path).exists() else _set_of_prefix(path)
    logs = [Log(name, index) for index, name in enumerate(names)]
    if _is_set(names):
        names.sort(key=lambda name: int(_split_name(name)[1]))
        logs = [Log(name, index, int(_split_name(name)[1])) for index, name in enumerate(names)]
    return logs


def _split_name(name: str) -> tuple[str, str]:
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
        parts = ((str(file), *_split_name(file.name)) for file in folder.iterdir())
        found = [name for name, before, behind in parts if before == wanted and behind.isdigit()]
    if not found:
        raise TraceFormatError(f"{prefix}: no such file, and no set {prefix}.PID written by strace -ff")
    return sorted(found)


def _is_set(names: list[str]) -> bool:
    """Return whether all names are `PREFIX.PID` of one prefix: what `strace -ff -o PREFIX` writes."""
    parts = [_split_name(name) for name in names]
    return len({before for before, _ in parts}) == 1 and all(before and behind.isdigit() for before, behind in parts)


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
    try:
        raw = sys.stdin.buffer if path == STDIN else io.BufferedReader(_Counted(path, log))
    except FileNotFoundError as err:
        raise TraceFormatError(f"{path}: no such file; expected a strace or ltrace log") from err
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


def _read_block(stream: IO[bytes] | gzip.GzipFile, path: str, size: int) -> bytes:
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


def read_chunks(log: Log, size: int = CHUNK_BYTES) -> Iterator[Chunk]:
    """Yield the whole log as chunks, as `read_texts` cuts it."""
    first_line = 1
    for text in read_texts(log, size):
        chunk = chunk_of(text, first_line, log.dialect)
        first_line += len(chunk.line) + chunk.diagnostics
        yield chunk


def read_texts(log: Log, size: int = CHUNK_BYTES) -> Iterator[Text]:
    """Yield the whole log as texts of whole lines; `log.dialect` is set before the first one.

    A call and its stack frames, and a line and the diagnostics printed into it, are never in different texts.

    Raises:
        TraceFormatError: the file cannot be read, or holds nothing that is a line of strace or ltrace.
    """
    with open_log(log.path, log) as stream:
        held: list[bytes] = []
        for block in _blocks_of_known_dialect(stream, log, size):
            text, cut = block, _safe_cut(block)
            if held and b"\n" in block and block.find(b"\n") >= cut - 1:  # the last line begins in what is held
                text, held = b"".join([*held, block]), []
                cut = _safe_cut(text)
            if cut:
                yield Text(b"".join([*held, memoryview(text)[:cut]]), cut=False)
                held = []
            held.append(text[cut:])
        rest = b"".join(held)
        if rest:
            ended = rest.endswith(b"\n")
            yield Text(rest if ended else rest + b"\n", cut=not ended)


def _blocks_of_known_dialect(stream: IO[bytes] | gzip.GzipFile, log: Log, size: int) -> Iterator[bytes]:
    """Yield the blocks of a log, after as many of them as it takes to tell its dialect."""
    seen: list[bytes] = []
    total = 0
    asked = log.dialect
    while block := _read_block(stream, log.path, size):
        if not seen and not total and block.startswith(b"\xef\xbb\xbf"):
            block = block[3:]
        seen.append(block)
        total += len(block)
        sample = b"".join(seen) if total <= SAMPLE_BYTES else block[:SAMPLE_BYTES]
        log.dialect = dialect_of(sample) if asked == "auto" else asked
        log.nil = prints_nil(sample)
        if log.dialect != "unknown" or total >= PATIENCE_BYTES:
            break
    if not total:
        raise TraceFormatError(f"{log.path}: empty; expected a strace or ltrace log")
    if log.dialect == "unknown":
        raise TraceFormatError(f"{log.path}: {_what_it_is(seen[0])}; expected a strace or ltrace log")
    yield from seen
    seen.clear()
    while block := _read_block(stream, log.path, size):
        yield block


def _safe_cut(block: bytes) -> int:
    """Return where to cut a block: after a line that neither a diagnostic nor a stack frame ends or follows."""
    cut = block.rfind(b"\n") + 1
    while cut:
        start = block.rfind(b"\n", 0, cut - 1) + 1
        last = block[start:cut]
        in_frames = last.startswith(_FRAMES) or _may_be_frame(block[cut : cut + 3])
        broken = re.search(_PROCESS_NOTICE, last) or re.search(_HEAP_ABORT_TEXT, last[:-1])
        if not (in_frames or broken):
            break
        cut = start
    return cut


def _may_be_frame(begin: bytes) -> bool:
    """Return whether a line of which no more than `begin` is known may be a stack frame."""
    return any(mark.startswith(begin) or begin.startswith(mark) for mark in _FRAMES)


def chunk_of(text: Text, first_line: int, dialect: str) -> Chunk:
    """Return the chunk of a text, without colour, NULs, carriage returns and diagnostics."""
    data = text.data
    if b"\x1b" in data:
        data = re.sub(_COLOUR, b"", data)
    if b"\0" in data:
        data = data.replace(b"\0", b"")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    chunk = plain_chunk(Text(data, text.cut), first_line, data.count(b"\n"))
    spans = _diagnostics(data, dialect)
    return _without_diagnostics(data, chunk.line, spans, cut=text.cut) if spans else chunk


def plain_chunk(text: Text, first_line: int, lines: int) -> Chunk:
    """Return the chunk of a text of so many lines in which nothing is but lines of the tracee."""
    line = np.arange(first_line, first_line + lines, dtype=np.int64)
    return Chunk(text.data, line, line, [], 0, text.cut)


class _Diagnostic(NamedTuple):
    """The span `[start, end)` of a diagnostic, its newline included, and what it says of which pid."""

    start: int
    end: int
    pid: int = -1
    what: str = ""


def _diagnostics(data: bytes, dialect: str) -> list[_Diagnostic]:
    """Return the diagnostics in a chunk, in order."""
    found = []
    if dialect != "ltrace" and b"Process " in data:
        for match in re.finditer(_PROCESS_NOTICE, data):
            start = match.start() - _program_name_before(data, match.start())
            found.append(_Diagnostic(start, match.end(), int(match[1]), match[2].decode()))
    if dialect != "ltrace" and b"unknown pid " in data:
        for match in re.finditer(_UNKNOWN_PID, data):
            found.append(_Diagnostic(match.start(), match.end()))
    for match in re.finditer(_HEAP_ABORT, data) if b"\n <no return ...>" in data else ():
        start = data.rfind(b"\n", 0, match.start()) + 1
        text = re.compile(_HEAP_ABORT_TEXT).search(data, start, match.start())
        if text:
            found.append(_Diagnostic(text.start(), match.start() + 1))
    return sorted(found, key=lambda span: span.start)


def _program_name_before(data: bytes, end: int) -> int:
    """Return how many bytes before `end` are strace's own name and `: `."""
    start = max(0, end - 300)
    match = re.search(_PROGRAM_NAME, data[start:end])
    return len(match[0]) if match and match[0].endswith(b"strace: ") else 0


def _without_diagnostics(data: bytes, lines: Int64Array, spans: list[_Diagnostic], *, cut: bool) -> Chunk:
    """Take the diagnostics out of a chunk; a line that they broke in two is one line again."""
    pieces: list[bytes] = []
    notices: list[Notice] = []
    kept = np.ones(len(lines), dtype=bool)
    entry = lines.copy()
    at = row = 0
    begun = -1
    for span in spans:
        row += data.count(b"\n", at, span.start)
        if span.start > at or not at:
            begun = row if data[span.start - 1 : span.start] not in (b"", b"\n") else -1
        pieces.append(data[at : span.start])
        if span.what:
            notices.append(Notice(int(lines[row]), span.pid, span.what))
        kept[row] = False
        at = span.end
        row += 1
        if begun >= 0 and row < len(lines):
            entry[row] = lines[begun]
    pieces.append(data[at:])
    text = b"".join(pieces)
    if text and not text.endswith(b"\n"):
        text += b"\n"
        kept[row - 1] = True
        entry[row - 1] = lines[begun]
    return Chunk(text, lines[kept], entry[kept], notices, int((~kept).sum()), cut)


_PREFIX: Final = rb"\n(?>[ 0-9:.]+|\[[^\]\n]*\]|(?<=[0-9])<[^>\n]*>|\(\+[ 0-9.]+\))*+"
_STRACE_LINE: Final = (
    _PREFIX + rb"(?:[a-z_0-9]+\([^\n]*(?:\) += (?:\?|-?[0-9])|<(?:unfinished|detached) \.\.\.>|<pid changed)"
    rb"|<\.\.\. \w+ resumed>|\+\+\+ (?:exited with|killed by|superseded) |--- (?:SIG\w+ )?\{|--- SIG\w+ \()"
)
_LTRACE_LINE: Final = (
    _PREFIX + rb"(?:\+\+\+ exited \(status|--- Called exec|SYS_\w+\(|\w+@SYS\(|[^\s(\"]+->\w+\(|[\w.]+@[\w.+-]+\("
    rb"|operator (?:new|delete)|(?:malloc|calloc|realloc|free|_Z\w+)\(|\w*\([^\n]* = (?:<void>|nil)"
    rb"|<\.\.\. [^\n]+ resumed> [^\n]*\) *= (?:<void>|nil))"
)
_STRACE_ONLY: Final = (
    _PREFIX + rb"(?:\+\+\+ exited with |--- SIG\w+ \{|brk\(NULL"
    rb"|[a-z_0-9]+\([^\n]*(?:PROT_[RWEN]|MAP_[PSA]|AT_FDCWD|\) += -1 E[A-Z]+ ))"
)
_STRING: Final = rb'"(?:[^"\\\n]++|\\.)*+"'
_SUMMARY: Final = rb"(?m)^% time +seconds +usecs/call"


_NIL: Final = rb"(?m)(?:[(,] ?|\) += )nil(?=[,) \n]|$)"


def prints_nil(sample: bytes) -> bool:
    """Return whether lines of a log write null pointers as `nil`, which ltrace does from 0.7.91 on."""
    return b"nil" in sample and re.search(_NIL, sample) is not None


def dialect_of(sample: bytes) -> str:
    """Return which program wrote a log: `strace`, `ltrace`, `mixed` where both did, `unknown` where neither."""
    clean = re.sub(_COLOUR, b"", b"\n" + sample.replace(b"\0", b""))
    clean = re.sub(_PROCESS_NOTICE, b"", clean).replace(b"strace: ", b"")
    plain = re.sub(_STRING, b'""', clean)
    ltrace = re.search(_LTRACE_LINE, plain)
    strace = re.search(_STRACE_ONLY if ltrace else _STRACE_LINE, plain)
    if ltrace:
        return "mixed" if strace else "ltrace"
    return "strace" if strace else "unknown"


def _what_it_is(sample: bytes) -> str:
    """Return in words what a file is that holds no line of a trace."""
    if re.search(_SUMMARY, sample):
        return "only a summary table (-c), which holds no calls"
    if b"\0" in sample[:4096]:
        return "a binary file"
    return "no line of it is a call"
