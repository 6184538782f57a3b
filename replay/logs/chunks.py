"""Logs as chunks of whole lines, cleaned of what is around the lines and of what is not from the tracee.

In go logs, out come chunks of bytes with the physical line number of every line. What a line says is not known here.
"""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Final, NamedTuple

import numpy as np

from replay.engine.columns import Int64Array
from replay.engine.structs import Value
from replay.errors import TraceFormatError
from replay.logs.collected import Step, undoing
from replay.logs.dialect import (
    PROCESS_NOTICE,
    counts_pages,
    dialect_of,
    other_tool,
    prints_nil,
    shows_system_calls,
    what_it_is,
)
from replay.logs.files import Log, open_log, read_block
from replay.logs.prefix import COLOUR

LONGEST_LINE: Final = 1 << 16
"""Longer lines are not read, in bytes."""

CHUNK_BYTES: Final = 2 << 20
"""How much of a log is read at once, in bytes."""

SAMPLE_BYTES: Final = 1 << 20
"""How much of a log tells its dialect, in bytes."""

PATIENCE_BYTES: Final = 64 << 20
"""How far into a log a first line of a trace is looked for, in bytes."""

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
_BEGUN_CALL: Final = rb"(?m)^[ 0-9:.]*[a-z_][a-z_0-9]*\("
"""All that a thread has in its file that was inside a call when the tracer came, and stays there."""

_UTF16: Final = {rb"\xff\xfe(?:[^\0]\0|\Z)": "utf-16-le", rb"\xfe\xff(?:\0[^\0]|\Z)": "utf-16-be"}
"""How a log in UTF-16 begins: with the mark and an ASCII character. Other bytes in front of a log are none of it."""

_FRAMES: Final = (b" > ", b"\t")


class Notice(NamedTuple):
    """What strace said about a process: `what` is attached, detached, suspended, resumed, 32 bit or 64 bit."""

    line: int
    pid: int
    what: str
    file: int = 0


class Text(Value):
    """Whole lines of a log as they were read, each ended by a newline; `cut`: the last one had none in the log."""

    data: bytes
    cut: bool


class Chunk(Value):
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
        for block in _without_long_lines(_blocks_of_known_dialect(stream, log, size)):
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


def _without_long_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks in which no line goes on in a further block once it is longer than `LONGEST_LINE`.

    What is left of such a line is still too long to be read, and no more of it has to be held.
    """
    length = 0
    for block in blocks:
        part = block
        if length > LONGEST_LINE:
            end = block.find(b"\n")
            if end < 0:
                continue
            part, length = block[end:], 0
        start = part.rfind(b"\n") + 1
        before = 0 if start else length
        length = before + len(part) - start
        yield part[: start + LONGEST_LINE + 1 - before] if length > LONGEST_LINE else part


def _blocks_of_known_dialect(stream: IO[bytes] | gzip.GzipFile, log: Log, size: int) -> Iterator[bytes]:
    """Yield the blocks of a log after as many of them as it takes to tell its dialect, what is around lines undone.

    Raises:
        TraceFormatError: no line of it is of strace or ltrace.
    """
    blocks = _blocks(stream, log.path, size)
    seen: list[bytes] = []
    steps: list[Step] = []
    total = 0
    asked = log.dialect
    for block in blocks:
        seen.append(block)
        total += len(block)
        sample = b"".join(seen) if total <= SAMPLE_BYTES else block[:SAMPLE_BYTES]
        steps = _tell(log, sample, asked)
        if log.dialect != "unknown" or total >= PATIENCE_BYTES:
            break
    if log.of_set and (not total or (log.dialect == "unknown" and re.search(_BEGUN_CALL, seen[0]))):
        log.dialect = "strace"
    elif not total:
        raise TraceFormatError(f"{log.path}: empty; expected a strace or ltrace log")
    if log.dialect == "unknown":
        raise TraceFormatError(f"{log.path}: {what_it_is(seen[0])}; expected a strace or ltrace log")
    yield from chain(seen, blocks) if not steps else _undone(chain(seen, blocks), steps)


def _tell(log: Log, sample: bytes, asked: str) -> list[Step]:
    """Set what the first bytes of a log tell of it, and return what has to be undone on its lines.

    Raises:
        TraceFormatError: they are of another tool.
    """
    if asked == "auto" and (tool := other_tool(sample)):
        raise TraceFormatError(f"{log.path}: {tool}; expected a strace or ltrace log")
    steps = undoing(sample)
    for step in steps:
        sample = step(sample)
    log.dialect = dialect_of(sample) if asked == "auto" else asked
    log.nil = prints_nil(sample)
    log.system_calls = shows_system_calls(sample)
    log.mmap2_in_pages = counts_pages(sample)
    return steps


def _undone(blocks: Iterable[bytes], steps: list[Step]) -> Iterator[bytes]:
    """Yield blocks of whole lines, on which the steps were taken."""
    held = b""
    for block in blocks:
        text = held + block
        cut = text.rfind(b"\n") + 1
        held = text[cut:]
        if cut:
            yield _all_taken(text[:cut], steps)
    if held:
        yield _all_taken(held, steps)


def _all_taken(lines: bytes, steps: list[Step]) -> bytes:
    for step in steps:
        lines = step(lines)
    return lines


def _blocks(stream: IO[bytes] | gzip.GzipFile, path: str, size: int) -> Iterator[bytes]:
    """Yield the bytes of a log, without a byte order mark; UTF-16 with one, as PowerShell writes it, becomes UTF-8."""
    block = read_block(stream, path, size)
    utf16 = next((name for mark, name in _UTF16.items() if re.match(mark, block)), None)
    block = block[2:] if utf16 else block.removeprefix(codecs.BOM_UTF8)
    decoder = codecs.getincrementaldecoder(utf16)("replace") if utf16 else None
    while block:
        yield decoder.decode(block).encode() if decoder else block
        block = read_block(stream, path, size)


def _safe_cut(block: bytes) -> int:
    """Return where to cut a block: after a line that neither a diagnostic nor a stack frame ends or follows."""
    cut = block.rfind(b"\n") + 1
    while cut:
        start = block.rfind(b"\n", 0, cut - 1) + 1
        last = block[start:cut]
        in_frames = last.startswith(_FRAMES) or _may_be_frame(block[cut : cut + 3])
        broken = re.search(PROCESS_NOTICE, last) or re.search(_HEAP_ABORT_TEXT, last[:-1])
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
        data = re.sub(COLOUR, b"", data)
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


class _Diagnostic(Value):
    """The span `[start, end)` of a diagnostic, its newline included, and what it says of which pid."""

    start: int
    end: int
    pid: int = -1
    what: str = ""


def _diagnostics(data: bytes, dialect: str) -> list[_Diagnostic]:
    """Return the diagnostics in a chunk, in order."""
    found = []
    if dialect != "ltrace" and b"Process " in data:
        for match in re.finditer(PROCESS_NOTICE, data):
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
