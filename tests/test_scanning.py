from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_maker import logs_of_captures
from test_source import GLUED

import replay.lines.scan_stream
from replay.calls.reader import COLUMNS, RunInput, read_run
from replay.engine.prefetch import AHEAD, THREAD_NAME
from replay.errors import TraceFormatError, TraceSyntaxError
from replay.lines.scan_loop import scan_compiled
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


@pytest.fixture(params=[0, 3 * len(LINES[0]), 1 << 40], ids=["compiled", "from some chunk on", "interpreted"])
def compiled_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(replay.lines.scan_stream, "WORTH_COMPILING", request.param)
    return int(request.param)


def test_chunks_keep_their_order_and_few_are_read_ahead(compiled_from: int) -> None:
    taken: list[int] = []
    for number, (chunk, found) in enumerate(scanned(texts(taken), Log("x", dialect="strace"), 0)):
        assert chunk.data == LINES[number]
        assert chunk.line.tolist() == [number + 1]
        assert found.data[found.start[0] : found.end[0]] == LINES[number][:-1]
        assert number < len(taken) <= number + AHEAD + 2
    assert len(taken) == len(LINES)
    assert not scanners()


def test_an_error_comes_behind_the_chunks_before_it(compiled_from: int) -> None:
    seen = []
    with pytest.raises(TraceFormatError, match="broken"):
        for chunk, _ in scanned(texts([], fails_at=20), Log("x", dialect="strace"), 0):
            seen.append(chunk.data)
    assert seen == LINES[:20]
    assert not scanners()


def test_one_who_stops_early_leaves_no_thread(compiled_from: int) -> None:
    reading = scanned(texts([]), Log("x", dialect="strace"), 0)
    next(reading)
    next(reading)
    reading.close()
    assert not scanners()


def test_an_interrupt_leaves_no_thread(compiled_from: int) -> None:
    def interrupted() -> Iterator[Text]:
        yield from list(texts([]))[:9]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(scanned(interrupted(), Log("x", dialect="strace"), 0))
    assert not scanners()


def test_a_strict_error_leaves_no_thread(tmp_path: Path, compiled_from: int) -> None:
    (tmp_path / "x").write_bytes(LINES[0] + b"7 brk(what?\n" + LINES[1])
    try:
        read_run([tmp_path / "x"], strict=True).calls()
    except TraceSyntaxError as error:
        assert not scanners(), error
    else:
        pytest.fail("no error")


def test_the_size_of_a_file_tells_how_it_is_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay.lines.scan_stream, "WORTH_COMPILING", 1000)
    used = []
    monkeypatch.setattr(replay.lines.scan_stream, "worked_ahead", lambda *_: used.append("ahead") or iter(()))
    for name, count in (("short", 5), ("long", 55)):
        (tmp_path / name).write_bytes(b"".join(LINES[:count]))
        read_run([tmp_path / name]).calls()
        assert len(used) == (count == 55)


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
    assert not scan_compiled(whole, dialect).plain


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_a_plain_text_has_nothing_to_be_cleaned_of(path: Path) -> None:
    for text in read_texts(Log(str(path)), 2000):
        for dialect in ("strace", "ltrace"):
            found, chunk = scan_compiled(text.data, dialect), chunk_of(text, 1, dialect)
            assert not found.plain or (chunk.data, chunk.diagnostics) == (text.data, 0)
            assert found.lines == len(text.data.split(b"\n")) - 1


def test_diagnostics_are_taken_out_of_a_long_log(compiled_from: int) -> None:
    data = [LINES[0], b"7 fork(strace: Process 18 attached\n) = 18\n", b"Process 18 detached\n", LINES[1]]
    made = [chunk for chunk, _ in scanned((Text(text, cut=False) for text in data), Log("x", dialect="strace"), 1000)]
    assert [chunk.line.tolist() for chunk in made] == [[1], [3], [], [5]]
    assert [chunk.data for chunk in made] == [chunk_of(Text(text, cut=False), 1, "strace").data for text in data]
    assert [notice.what for chunk in made for notice in chunk.notices] == ["attached", "detached"]


def columns_of(run: RunInput) -> dict[str, list[object]]:
    """The columns of all calls, texts in place of their ids, and what was counted."""
    calls = run.calls()
    columns: dict[str, list[object]] = {key: getattr(calls, key).tolist() for key in COLUMNS}
    for key in ("name", "path", "result_path", "caller"):
        columns[key] = [run.strings[int(text)] if text >= 0 else None for text in columns[key]]  # type: ignore[call-overload]
    return columns | {"counted": [run.counters, run.problems, run.notices]}


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_both_ways_give_the_same_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreted = columns_of(read_run([path]))
    monkeypatch.setattr(replay.lines.scan_stream, "WORTH_COMPILING", 0)
    assert columns_of(read_run([path])) == interpreted
