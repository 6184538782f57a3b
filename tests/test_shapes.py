from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_maker import LINES, logs_of_captures, mutated
from naive_scanner import without_passed_over

from replay.engine.columns import NO_TEXT, NULL, Strings, to_signed
from replay.grammar import LineError
from replay.grammar.line import Line
from replay.lines.impossible import impossible
from replay.lines.line_reader import Counters, LineColumns, Shapes
from replay.lines.scan import scan
from replay.lines.templates import KIND_CODE, TEXT_FIELDS, parse_line
from replay.lines.text_ids import field_text
from replay.linux.constants import CALL_CODE
from replay.logs.chunks import Chunk, read_chunks
from replay.logs.dialect import DIALECTS
from replay.logs.files import find_logs
from replay.logs.problems import Problems


def chunk_of(text: bytes) -> Chunk:
    lines = np.arange(1, text.count(b"\n") + 1)
    return Chunk(text, lines, lines, [], 0, cut=False)


def shapes_of(dialect: str, known: int = 20_000) -> Shapes:
    return Shapes(dialect, Strings(), Problems(), Counters(), shapes_kept=known)


def row_of_parse(text: bytes, dialect: str) -> dict[str, object] | None:
    """What the grammar alone says of a line, None where it says nothing."""
    try:
        line, spoken = parse_line(text, dialect)
    except LineError:
        return None
    row: dict[str, object] = {"kind": line.kind, "name": line.name, "dialect": spoken, "call": line.call}
    characters = text.decode("latin-1")
    row |= {key: to_signed(int(number.value(characters))) for key, number in line.numbers.items()}
    for key, value in line.texts.items():
        if key in TEXT_FIELDS:
            gone = " (deleted)" if value.const is None and text.startswith(b">(deleted)", value.end) else ""
            row[key] = field_text(key, value.value(characters).encode("latin-1"), gone)
    return None if cannot_be(row) else row


def cannot_be(row: dict[str, object]) -> bool:
    kind, call = KIND_CODE[str(row["kind"])], CALL_CODE.get(str(row["call"]), -1)
    numbers = {key: np.array([value]) for key, value in row.items() if isinstance(value, int)}
    return len(impossible(np.array([kind]), np.array([call]), numbers)) > 0


def row_of_columns(columns: LineColumns, index: int, strings: Strings) -> dict[str, object]:
    calls = {code: name for name, code in CALL_CODE.items()} | {-1: ""}
    kinds = {code: name for name, code in KIND_CODE.items()}
    row: dict[str, object] = {
        "kind": kinds[int(columns.kind[index])],
        "name": strings[int(columns.name[index])],
        "dialect": DIALECTS[int(columns.dialect[index])],
        "call": calls[int(columns.call[index])],
    }
    row |= {key: int(v[index]) for key, v in columns.numbers.items() if v[index] != NULL}
    return row | {key: strings[int(v[index])] for key, v in columns.texts.items() if v[index] != NO_TEXT}


def assert_shapes_agree_with_grammar(text: bytes, dialect: str, known: int = 20_000) -> None:
    """Read lines by their shapes and line by line: both must say the same of each."""
    shapes = shapes_of(dialect, known)
    columns = shapes.columns(chunk_of(text), scan(text, dialect))
    by_row = {int(row): index for index, row in enumerate(columns.row)}
    counted = shapes.counters
    assert counted.lines == text.count(b"\n")
    assert counted.lines == counted.lines_understood + counted.lines_passed_over + counted.lines_not_understood
    filtered = without_passed_over(b"\n" + text, dialect).split(b"\n")[1:-1]
    for row, line in enumerate(filtered):
        expected = row_of_parse(line, dialect) if line else None
        got = row_of_columns(columns, by_row[row], shapes.strings) if row in by_row else None
        if got is not None and expected is not None:
            expected = {key: value for key, value in expected.items() if value != NULL}
        assert got == expected, line


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_shapes_say_what_the_grammar_says_of_every_captured_line(path: Path) -> None:
    log = find_logs([path])[0]
    for chunk in read_chunks(log):
        assert_shapes_agree_with_grammar(chunk.data, log.dialect)


@pytest.mark.parametrize("dialect", ["strace", "ltrace", "mixed"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_shapes_say_what_the_grammar_says_of_mutated_lines(dialect: str, seed: int) -> None:
    random_ = random.Random(seed)
    lines = LINES[random_.choice(DIALECTS) if dialect == "mixed" else dialect]
    if not lines:
        pytest.skip("no captures here")
    text = []
    for _ in range(40):
        line = random_.choice(lines)
        twin = mutated(line, random_)
        text += [line, twin, re.sub(rb"\d+", lambda m: b"%d" % random_.randrange(10 ** len(m[0])), twin), line]
    random_.shuffle(text)
    assert_shapes_agree_with_grammar(b"\n".join(text) + b"\n", dialect, random_.choice([20_000, 5]))


@pytest.mark.parametrize("seconds", ["4095", "0000004095", "4095.978626", "0000004095.978626", "04095.978626"])
def test_a_time_behind_two_numbers_is_told_by_its_digits(seconds: str) -> None:
    call = "munmap(0x7f0ba4660000, 126976) = 0\n"
    lines = f"100 6514  1795373582.978626 {call}100 6514  1795373582 {call}100 6514  {seconds} {call}"
    assert_shapes_agree_with_grammar(lines.encode(), "strace")


def test_an_impossible_time_says_nothing_of_other_lines_of_its_shape() -> None:
    call = b"mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, NULL) = -1 EINVAL (Invalid argument)\n"
    assert_shapes_agree_with_grammar(b"9889290430 " + call + b"1795370179 " + call, "mixed")


def test_what_the_grammar_said_of_a_shape_it_is_not_asked_in_the_next_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(line: bytes) -> dict[str, object]:
        shapes = shapes_of("strace")
        return row_of_columns(shapes.columns(chunk_of(line), scan(line, "strace")), 0, shapes.strings)

    def asked(text: bytes, dialect: str) -> tuple[Line, str]:
        asks.append(text)
        return parse_line(text, dialect)

    asks: list[bytes] = []
    monkeypatch.setattr("replay.lines.line_reader.parse_line", asked)
    monkeypatch.setattr("replay.lines.line_reader._ALREADY_SAID", {})
    good = [read(b"7 1795367367.165405 brk(%#x) = 0x2000\n" % addr)["addr"] for addr in (0x1000, 0x30000)]
    assert (good, len(asks)) == ([0x1000, 0x30000], 1)


def test_what_no_number_fits_is_asked_again_in_the_next_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.lines.line_reader._ALREADY_SAID", said := {})
    for seconds in (9795371026, 1795367367):  # of the first, the nanoseconds do not fit
        line = b"7 %d.821734 brk(0x1000) = 0x2000\n" % seconds
        shapes_of("strace").columns(chunk_of(line), scan(line, "strace"))
        assert len(said) == (seconds == 1795367367)
