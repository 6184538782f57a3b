"""Very long lines: parsed in linear time, by patterns that say what plainer ones say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.grammar import CALLED, LineError, parse
from replay.grammar.parser import grammar_file
from replay.logs.chunks import LONGEST_LINE, read_texts
from replay.logs.files import Log

PLAIN_CALLED = re.compile(r"([A-Za-z_]\w*)(?:\(| resumed>)")
PLAIN_MODULE = re.compile(r"[^\n]+?(?=\((?:[^\n]*\+0x[0-9a-f]+)?\) \[0x)")
PLAIN_OTHER_CALL = re.compile(r'[^"]*?\(.*(?:\)\s+= .*|<(?:unfinished|no return) \.\.\.>)\s*$')

TIMES = 200_000
"""At this length, a pattern that takes the square of a line's length would run for an hour."""


def terminal(dialect: str, name: str) -> re.Pattern[str]:
    """The pattern of a terminal, as the grammar file has it."""
    found = re.search(rf"^{name}: /(.*)/$", grammar_file(f"{dialect}.lark").read_text(), re.MULTILINE)
    assert found
    return re.compile(found[1])


@pytest.mark.parametrize("dialect", ["strace", "ltrace"])
@pytest.mark.parametrize(
    "text",
    [
        "= " + "a" * TIMES,
        "= " + "a1" * TIMES,
        "<... " + "a" * TIMES,
        "(" * TIMES,
        "malloc" + "(" * TIMES,
        "operator new(" + "(" * TIMES,
        " > " + "a(x" * TIMES,
        " > " + "a(x+0x1" * TIMES,
    ],
    ids=lambda text: text[:16],
)
def test_a_line_is_parsed_in_linear_time(text: str, dialect: str) -> None:
    try:
        parse(text, dialect)
    except LineError as error:
        assert error.reason


WORDS = st.lists(st.sampled_from([*'a_1é( >)="', " resumed>", "brk", "+0x1", ") [0x", "() [0x", ") = 0"]), max_size=12)


@given(WORDS.map("".join))
def test_patterns_say_what_plainer_ones_say(text: str) -> None:
    named, plain = re.search(CALLED, text), PLAIN_CALLED.search(text)
    assert (named and named[1]) == (plain and plain[1])
    pairs = [
        (terminal("strace", r"MODULE\.2"), PLAIN_MODULE),
        (terminal("ltrace", r"_OTHER_CALL\.-1"), PLAIN_OTHER_CALL),
    ]
    for pattern, plain_pattern in pairs:
        one, other = pattern.match(text), plain_pattern.match(text)
        assert (one and one[0]) == (other and other[0])


def test_no_more_is_held_of_a_line_than_tells_that_it_is_too_long(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b'1 brk(NULL) = 0x1000\n1 write(1, "' + b"a" * 500_000 + b'") = 1\n1 brk(0x2000) = 0x2000\n')
    texts = b"".join(text.data for text in read_texts(Log(str(log)), 1 << 12))
    first, long, last = texts.splitlines()
    assert (first, last) == (b"1 brk(NULL) = 0x1000", b"1 brk(0x2000) = 0x2000")
    assert len(long) == LONGEST_LINE + 1
