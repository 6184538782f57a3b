from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import interpreted
from line_maker import logs_of_captures
from test_source import GLUED

from replay.calls.reader import COLUMNS, LogReader, read_logs
from replay.engine.prefetch import AHEAD, THREAD_NAME
from replay.errors import TraceFormatError, TraceSyntaxError
from replay.lines.scan import scan
from replay.lines.scan_stream import scanned
from replay.logs.chunks import Text, chunk_of, read_texts
from replay.logs.files import Log

LINES = [b"%d brk(0x%x) = 0x%x\n" % (7, n << 12, n << 12) for n in range(1, 60)]


def texts(taken: list[int], fails_at: int = -1) -> Iterator[Text]:
    """A text for each line, whose number is noted when it is asked for."""
    for number, line in enumerate(LINES):
        if number == fails_at:
            raise TraceFormatError("broken")
        taken.append(number)
        yield Text(line, cut=False)


def scanners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def test_chunks_keep_their_order_and_few_are_read_ahead() -> None:
    taken: list[int] = []
    for number, (chunk, found) in enumerate(scanned(texts(taken), Log("x", dialect="strace"))):
        assert chunk.data == LINES[number]
        assert chunk.line.tolist() == [number + 1]
        assert found.data[found.start[0] : found.end[0]] == LINES[number][:-1]
        assert number < len(taken) <= number + AHEAD + 2
    assert len(taken) == len(LINES)
    assert not scanners()


def test_an_error_comes_behind_the_chunks_before_it() -> None:
    seen = []
    with pytest.raises(TraceFormatError, match="broken"):
        for chunk, _ in scanned(texts([], fails_at=20), Log("x", dialect="strace")):
            seen.append(chunk.data)
    assert seen == LINES[:20]
    assert not scanners()


def test_one_who_stops_early_leaves_no_thread() -> None:
    reading = scanned(texts([]), Log("x", dialect="strace"))
    next(reading)
    next(reading)
    reading.close()
    assert not scanners()


def test_an_interrupt_leaves_no_thread() -> None:
    def interrupted() -> Iterator[Text]:
        yield from list(texts([]))[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(scanned(interrupted(), Log("x", dialect="strace")))
    assert not scanners()


def test_a_strict_error_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LINES[0] + b"7 brk(what?\n" + LINES[1])
    try:
        read_logs([tmp_path / "x"], strict=True).calls()
    except TraceSyntaxError as error:
        assert not scanners(), error
    else:
        pytest.fail("no error")


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in GLUED if not text.startswith(b"write")),
        b"Process 18 attached\n",
        b"strace: Process 18 attached with 3 threads\n",
        b"strace: Exit of unknown pid 18 ignored\n",
        b"read(3, strace: Detached unknown pid 18\n0) = 0\n",
        b"\x1b[1mbrk\x1b[m(0) = 1\n",
        b"brk(0)\0 = 1\n",
        b"brk(0) = 1\r\n",
        b"\r\n",
    ],
    ids=lambda text: text[:24].decode(),
)
@pytest.mark.parametrize(("before", "behind"), [(0, 9), (9, 9), (9, 0)], ids=["first", "between", "last"])
def test_a_text_that_is_to_be_cleaned_is_not_plain(text: bytes, before: int, behind: int) -> None:
    whole = b"brk(0) = 1\n" * before + text + b"brk(0) = 1\n" * behind
    dialect = "ltrace" if b"->" in text else "strace"
    assert chunk_of(Text(whole, cut=False), 1, dialect).data != whole
    assert not scan(whole, dialect).plain


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_a_plain_text_has_nothing_to_be_cleaned_of(path: Path) -> None:
    for text in read_texts(Log(str(path)), 2000):
        for dialect in ("strace", "ltrace"):
            found, chunk = scan(text.data, dialect), chunk_of(text, 1, dialect)
            assert not found.plain or (chunk.data, chunk.diagnostics) == (text.data, 0)
            assert found.lines == len(text.data.split(b"\n")) - 1


def test_diagnostics_are_taken_out_of_a_long_log() -> None:
    data = [LINES[0], b"7 fork(strace: Process 18 attached\n) = 18\n", b"Process 18 detached\n", LINES[1]]
    made = [chunk for chunk, _ in scanned((Text(text, cut=False) for text in data), Log("x", dialect="strace"))]
    assert [chunk.line.tolist() for chunk in made] == [[1], [3], [], [5]]
    assert [chunk.data for chunk in made] == [chunk_of(Text(text, cut=False), 1, "strace").data for text in data]
    assert [notice.what for chunk in made for notice in chunk.notices] == ["attached", "detached"]


def columns_of(run: LogReader) -> dict[str, list[object]]:
    """The columns of all calls, texts in place of their ids, and what was counted."""
    calls = run.calls()
    columns: dict[str, list[object]] = {key: getattr(calls, key).tolist() for key in COLUMNS}
    for key in ("name", "path", "result_path", "caller"):
        columns[key] = [run.strings[int(text)] if text >= 0 else None for text in columns[key]]  # type: ignore[call-overload]
    return columns | {"counted": [run.counters, run.problems, run.notices]}


SHORT = [path for path in logs_of_captures() if path.stat().st_size < 20_000]


@pytest.mark.parametrize("path", SHORT, ids=lambda p: "/".join(p.parts[-3:]))
def test_interpreted_the_scanner_gives_the_same_calls(path: Path) -> None:
    compiled = columns_of(read_logs([path]))
    with interpreted():
        assert columns_of(read_logs([path])) == compiled
