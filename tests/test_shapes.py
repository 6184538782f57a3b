from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replay.shapes
from replay.columns import NO_TEXT, NULL, Strings, to_signed
from replay.constants import CALL_CODE
from replay.grammar import LineError
from replay.scanner import ADDRESS, PATH, Scan, scan, scan_compiled
from replay.shapes import Counters, LineColumns, Shapes, without_passed_over
from replay.source import Chunk, Problems, find_logs, read_chunks
from replay.templates import DIALECTS, KIND_CODE, TEXT_FIELDS, field_text, parse_line


def logs_of_captures() -> list[Path]:
    """Every log that came with the captures and is not too long to be parsed line by line."""
    places = [folder for name, folder in oracle.scenarios().items() if name != "heavy"]
    found = [path for place in places for path in sorted(place.rglob("*.log*")) if path.is_file()]
    return [path for path in found if path.stat().st_size < 200_000]


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
    return row


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
    columns = shapes.columns(chunk_of(text))
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


def lines_of_captures(dialect: str) -> list[bytes]:
    """One line of each shape of the captures."""
    found: dict[bytes, bytes] = {}
    for path in logs_of_captures():
        if ("ltrace" in str(path)) == (dialect == "ltrace"):
            for line in path.read_bytes().split(b"\n"):
                found.setdefault(re.sub(rb"0x[0-9a-f]+|\d+|\"[^\"]*\"|<[^>]*>", b"#", line), line)
    return sorted(found.values())


MUTATIONS = (
    (rb"\d", lambda g: b"%d" % g.randrange(10)),
    (rb"\b\d+\b", lambda g: b"%d" % g.choice([0, 1, 7, 4096, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 + 5])),
    (rb"0x[0-9a-f]+", lambda g: b"0x%x" % g.choice([0, 1, 0x1000, 2**32 - 1, 2**63 - 1, 2**64 - 4096])),
    (rb"0x[0-9a-f]+", lambda g: b"NULL"),
    (rb"NULL", lambda g: b"0x1000"),
    (rb" +", lambda g: b" " * g.randrange(1, 4)),
    (rb"[<>\"()\[\]{},=|]", lambda g: g.choice([b"<", b">", b'"', b"(", b")", b", ", b"=", b"\\", b""])),
    (rb"(?<=[\d])<[^>]*>", lambda g: g.choice([b"</a b>", b"</x>y>", b'</"q">', b"<pipe:[1]>", b"</d<char 1:5>>"])),
    (
        rb"\"[^\"]*\"",
        lambda g: g.choice([b'""', b'"a\\"b"', b'"a"..."', b'"3</x>"', b'"(1) = 2"', b'"\\\\"', b'"\\x2f"']),
    ),
    (rb"[A-Za-z_]+", lambda g: g.choice([b"mmap", b"brk", b"x86_64", b"munmap", b"PROT_READ"])),
    (rb"\.\d+", lambda g: g.choice([b".1", b".123", b".123456", b".123456789", b""])),
)


def mutated(line: bytes, random_: random.Random) -> bytes:
    """A line with one to three of its parts replaced."""
    for _ in range(random_.randrange(1, 4)):
        pattern, make = random_.choice(MUTATIONS)
        spots = list(re.finditer(pattern, line))
        if spots:
            spot = random_.choice(spots)
            line = line[: spot.start()] + make(random_) + line[spot.end() :]
    return line.replace(b"\n", b"")


@pytest.mark.parametrize("scanner", [scan, scan_compiled])
@pytest.mark.parametrize("dialect", ["strace", "ltrace", "mixed"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_shapes_say_what_the_grammar_says_of_mutated_lines(
    scanner: Callable[..., Scan], dialect: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay.shapes, "scanner_for", lambda _: scanner)
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


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_compiled_scanner_sees_what_the_other_sees(dialect: str, seed: int) -> None:
    random_ = random.Random(seed)
    lines = [random_.choice(LINES[dialect]) for _ in range(30)]
    text = b"\n" + b"\n".join(lines + [mutated(line, random_) for line in lines]) + b"\n"
    one = scan(text, escaped_quotes=dialect == "strace")
    other = scan_compiled(text, escaped_quotes=dialect == "strace")
    assert (one.row == other.row).all()
    assert (one.start == other.start).all()
    assert (one.end == other.end).all()
    assert (one.unsure <= other.unsure).all()
    for index in np.flatnonzero(~other.unsure).tolist():
        assert slots_of(one, index) == slots_of(other, index)


def slots_of(found: Scan, index: int) -> tuple[object, ...]:
    """The shape and the slots of a line, with the values of the numbers."""
    slots = slice(int(found.first_slot[index]), int(found.first_slot[index + 1]))
    mark = found.slot_mark[slots]
    value = np.where((mark > PATH) & (mark < ADDRESS), found.value[slots], 0)
    places = (found.slot_start[slots].tolist(), found.slot_end[slots].tolist())
    return int(found.shape[index]), mark.tolist(), value.tolist(), *places


LINES = {dialect: lines_of_captures(dialect) for dialect in DIALECTS}
