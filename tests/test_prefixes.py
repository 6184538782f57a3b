"""What stands before an event is said in `logs/prefix.py`; grammars and scanner take the same for it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.grammar import LineError, parse
from replay.lines.scan import scan
from replay.logs.dialect import DIALECTS
from replay.logs.prefix import PREFIX, TRACER

PREFIXES = [
    ("strace", ""),
    ("strace", "[pid  1821] "),
    ("strace", "[pid  3907<forks>] "),
    ("strace", "2322  "),
    ("strace", "3887<a b> "),
    ("strace", "17:36:29.824572 "),
    ("strace", "1795368989.804533 "),
    ("strace", "1795368989 "),
    ("strace", "     0.000028 "),
    ("strace", "     0 "),
    ("strace", "17:36:29 (+     0.000026) "),
    ("strace", "2322       0.000028 "),
    ("strace", "[   9] "),
    ("strace", "[4294967295] "),
    ("strace", "[00007ffff7e00ad7] "),
    ("strace", "[????????] "),
    ("strace", "[          40103a] "),
    ("strace", "[unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023] "),
    ("strace", "[pid  3907<forks>] [unconfined_t] 17:36:29.824572 (+     0.000026) [   9] [000000000040103a] "),
    ("ltrace", "[pid 9920] "),
    ("ltrace", "9907 "),
    ("ltrace", "17:49:23 "),
    ("ltrace", "1795370586.085611 "),
    ("ltrace", "[0x55871b9d9311] "),
    ("ltrace", "[(nil)] "),
    ("ltrace", "9907   0.000443 "),
    ("ltrace", "9907 1795370586.085611 [0x4012fe] "),
]

EVENTS = {"strace": ("brk(NULL) = 0x405000", "getpid() = 7"), "ltrace": ("malloc(10) = 0x5581", "puts(7) = 2")}
"""Of each dialect, a call of interest and one that the scanner passes over."""


def is_call(line: str, dialect: str) -> bool:
    try:
        return parse(line, dialect).kind == "call"
    except LineError:
        return False


def are_scanned(prefix: str, dialect: str) -> list[bool]:
    """Tell which of the two events behind a prefix the scanner does not pass over."""
    lines = [f"{prefix}{event}\n" for event in EVENTS[dialect]]
    rows = scan("".join(lines).encode(), dialect).row.tolist()
    return [row in rows for row in range(len(lines))]


@pytest.mark.parametrize(("dialect", "prefix"), PREFIXES)
def test_a_prefix_is_one_for_all(dialect: str, prefix: str) -> None:
    assert re.fullmatch(PREFIX, prefix.encode()) and re.fullmatch(TRACER, prefix.encode())
    assert is_call(prefix + EVENTS[dialect][0], dialect)
    assert are_scanned(prefix, dialect) == [True, False]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("words", ["x ", "{7} ", "17-36-29 ", "host: ", "[pid 7 ", "(7) ", "| ", "7< "])
def test_other_words_are_a_prefix_for_none(words: str, dialect: str) -> None:
    assert not re.fullmatch(PREFIX, words.encode())
    assert not re.fullmatch(TRACER, words.encode())
    assert not is_call(words + EVENTS[dialect][0], dialect)
    assert are_scanned(words, dialect) == [True, True]


@settings(deadline=None)
@given(st.from_regex(TRACER, fullmatch=True))
def test_what_tracers_print_is_a_prefix_for_the_scanner(printed: bytes) -> None:
    prefix = printed.decode("latin-1")
    assert re.fullmatch(PREFIX, printed)
    assert are_scanned(prefix, "strace")[1] is False
