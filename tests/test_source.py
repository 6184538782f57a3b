from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from replay.errors import TraceFormatError
from replay.logs.chunks import Notice, read_chunks
from replay.logs.dialect import dialect_of
from replay.logs.files import find_logs
from replay.logs.problems import Problems

LINES = b"brk(NULL)                               = 0x405000\nbrk(0x426000) = 0x426000\n+++ exited with 0 +++\n"


def read(path: Path | str, size: int = 1 << 20) -> list[tuple[bytes, int, int]]:
    """Every line of a log with the physical lines on which it begins and ends."""
    lines = []
    for log in find_logs([path]):
        for chunk in read_chunks(log, size):
            assert chunk.data.endswith(b"\n") or not chunk.data
            texts = chunk.data.split(b"\n")[:-1]
            lines += list(zip(texts, chunk.entry_line.tolist(), chunk.line.tolist(), strict=True))
    return lines


def written(folder: Path, data: bytes, name: str = "x.log") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, lzma.compress, bz2.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gz", "xz", "bz2", "zst"],
)
def test_compression_is_told_by_content(tmp_path: Path, pack) -> None:
    assert [text for text, _, _ in read(written(tmp_path, pack(LINES)))] == LINES.splitlines()


def test_two_zstd_frames_are_one_log(tmp_path: Path) -> None:
    half = zstandard.ZstdCompressor().compress(LINES)
    assert len(read(written(tmp_path, half + half))) == 6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "no line of it is a call"),
        (b"just some text\nand more\n", "no line of it is a call"),
        (bytes(range(256)) * 40, "a binary file"),
        (gzip.compress(LINES * 1000)[:-20], "broken compressed file"),
        (lzma.compress(LINES * 1000)[:-20], "broken compressed file"),
        (b"\x1f\x8b\x08\x00garbage that is no gzip", "broken compressed file"),
        (b"\x28\xb5\x2f\xfdgarbage that is no zstd", "broken compressed file"),
        (gzip.compress(b"", mtime=0), "empty"),
        (
            b"% time     seconds  usecs/call     calls    errors syscall\n 24.77    0.0 11  28  12 mmap\n",
            "summary table",
        ),
    ],
)
def test_what_is_no_trace_is_an_error_that_names_the_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(TraceFormatError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_a_directory_and_a_missing_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="neither a recording nor a set"):
        read(tmp_path)
    with pytest.raises(TraceFormatError, match="no such file"):
        read(tmp_path / "missing.log")


def test_standard_input_is_a_log() -> None:
    program = (
        "from replay.logs.chunks import read_chunks\n"
        "from replay.logs.files import find_logs\n"
        "print(sum(len(c.line) for log in find_logs(['-']) for c in read_chunks(log)))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=gzip.compress(LINES), capture_output=True, check=True)
    assert done.stdout.strip() == b"3"


def test_a_set_is_found_by_its_prefix_and_by_its_files(tmp_path: Path) -> None:
    for pid in (30, 7, 112):
        written(tmp_path, LINES, f"log.{pid}")
    written(tmp_path, LINES, "log.txt")
    by_prefix = find_logs([tmp_path / "log"])
    by_files = find_logs(sorted(tmp_path.glob("log.[0-9]*")))
    assert [log.pid for log in by_prefix] == [7, 30, 112]
    assert by_files == by_prefix
    assert [log.pid for log in find_logs([tmp_path / "log.txt"])] == [None]


def test_line_ends_nuls_colour_and_byte_order_mark_are_no_part_of_lines(tmp_path: Path) -> None:
    dirty = b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n").replace(b"brk", b"\x1b[33mb\0rk\x1b[0m")
    assert [text for text, _, _ in read(written(tmp_path, dirty))] == LINES.splitlines()


GLUED = {
    b"fork(strace: Process 1821 attached\n)   = 1821\n": [(b"fork()   = 1821", 1, 2)],
    b"fork(Process 1821 attached\n)   = 1821\n": [(b"fork()   = 1821", 1, 2)],
    b"vfork(/usr/bin/strace: Process 18 attached with 2 threads\n <unfinished ...>\n": [
        (b"vfork( <unfinished ...>", 1, 2)
    ],
    b"strace: Process 5 attached\nbrk(0) = 0\n": [(b"brk(0) = 0", 2, 2)],
    b"munmap(0x6000, 8192strace: Process 1 detached\nstrace: Process 2 detached\n <detached ...>\nbrk(0) = 0\n": [
        (b"munmap(0x6000, 8192 <detached ...>", 1, 3),
        (b"brk(0) = 0", 4, 4),
    ],
    b"strace: Process 1 attached\nfork(strace: Process 2 attached\n)   = 2\n": [(b"fork()   = 2", 2, 3)],
    b'write(1, "Process 5 attached\\n", 19) = 19\n': [(b'write(1, "Process 5 attached\\n", 19) = 19', 1, 1)],
    b"a->free(0x5637d78672a0free(): double free detected in tcache 2\n <no return ...>\n": [
        (b"a->free(0x5637d78672a0 <no return ...>", 1, 2)
    ],
}


@pytest.mark.parametrize("before", [b"", b"brk(NULL) = 0x405000\n"], ids=["first", "second"])
@pytest.mark.parametrize("text", GLUED, ids=lambda text: text[:24].decode())
def test_diagnostics_inside_lines_are_taken_out(tmp_path: Path, text: bytes, before: bytes) -> None:
    path = written(tmp_path, before + text)
    shift = len(before) > 0
    expected = [(line, entry + shift, end + shift) for line, entry, end in GLUED[text]]
    for size in (1 << 20, 7):
        assert read(path, size)[shift:] == expected


def test_diagnostics_are_kept_as_notices(tmp_path: Path) -> None:
    log = find_logs(
        [written(tmp_path, b"brk(0) = 0\nfork(strace: Process 18 attached\n) = 18\nProcess 18 detached\n")]
    )[0]
    chunks = list(read_chunks(log))
    notices = [notice for chunk in chunks for notice in chunk.notices]
    assert notices == [Notice(2, 18, "attached"), Notice(4, 18, "detached")]
    assert sum(chunk.diagnostics + len(chunk.line) for chunk in chunks) == 4


@pytest.mark.parametrize("size", [1, 17, 64, 1000])
def test_chunks_hold_whole_lines_and_calls_with_their_frames(tmp_path: Path, size: int) -> None:
    call = b"brk(0x1000) = 0x1000\n > /lib/libc.so.6(brk+0xb) [0x1]\n > /bin/x(main+0x1) [0x2]\n"
    log = find_logs([written(tmp_path, call * 50)])[0]
    chunks = list(read_chunks(log, size))
    assert b"".join(chunk.data for chunk in chunks) == call * 50
    assert [line for chunk in chunks for line in chunk.line.tolist()] == list(range(1, 151))
    assert all(chunk.data.startswith(b"brk") for chunk in chunks)


def test_a_last_line_without_newline_is_marked_as_cut(tmp_path: Path) -> None:
    chunks = list(read_chunks(find_logs([written(tmp_path, LINES + b"munmap(0x7f")])[0]))
    assert chunks[-1].cut
    assert chunks[-1].data.endswith(b"munmap(0x7f\n")


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        (b"brk(NULL) = 0x1000\n", "strace"),
        (b"[pid  12] 17:36:29.8 <... mmap resumed>) = 0x1000\n", "strace"),
        (b"12345 +++ exited with 0 +++\n", "strace"),
        (b"exit_group(0) = ?\n", "strace"),
        (b"prog->malloc(10) = 0x5581999bb2a0\n", "ltrace"),
        (b"malloc(10) = 0x5581999bb2a0\n", "ltrace"),
        (b"9907 SYS_brk(0) = 0x1000\n", "ltrace"),
        (b"brk@SYS(nil) = 0x1000\n", "ltrace"),
        (b"+++ exited (status 0) +++\n", "ltrace"),
        (b"program output\nmore of it\nbrk(NULL) = 0x1000\n", "strace"),
        (b'write(1, "prog->malloc(10) = <void>", 3) = 3\n', "strace"),
        (b'puts("mmap(NULL, 1, PROT_READ") = 3\nfree(0x10) = <void>\n', "ltrace"),
        (b"brk(NULL) = 0x1000\nmalloc(10) = 0x5581999bb2a0\n", "mixed"),
        (b"hello\n", "unknown"),
    ],
)
def test_the_dialect_is_told_by_content(text: bytes, dialect: str) -> None:
    assert dialect_of(text) == dialect


def test_problems_are_all_counted_and_the_first_of_each_reason_kept() -> None:
    problems = Problems(keep=2)
    for line in range(5):
        problems.add(line, "unknown_line", "x" * 300)
    problems.add(9, "cut_line", "brk(")
    assert problems.counts == {"unknown_line": 5, "cut_line": 1}
    assert problems.total == 6
    assert [(p.line, p.reason, len(p.text)) for p in problems.kept] == [
        (0, "unknown_line", 200),
        (1, "unknown_line", 200),
        (9, "cut_line", 4),
    ]


def test_a_long_line_is_read_in_linear_time(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    buffer.write(LINES)
    buffer.write(b'write(1, "' + b"x" * 3_000_000 + b'", 3) = 3\n')
    buffer.write(LINES)
    assert len(read(written(tmp_path, buffer.getvalue()), 4096)) == 7
