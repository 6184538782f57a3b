"""Conditions: what they mean, what they refuse, and what they tell of a run that they stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import oracle
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replay
from replay.conditions import (
    ConditionError,
    all_lines,
    comparison_values,
    conditions_that_hold,
    judge,
    origins_in,
    origins_in_tables,
    origins_of,
    parse_condition,
)
from replay.datasets.dataset import plain_texts
from replay.report.as_text import text_report
from replay.tables import TABLES

RUN = {
    "brk_failures": 44,
    "brk_calls": 50,
    "brk_failure_causes": "mapping_above,rlimit_data",
    "mmap_fallbacks": 0,
    "peak_mapped_bytes": 10 << 20,
    "peak_mapped_line": 331,
    "live_bytes": None,
    "heap_fragmentation": 0.5,
    "address_fragmentation": 0.25,
    "duration_ns": 1_500_000_000,
    "allocator": "glibc",
    "lines": 1000,
}


def holds(text: str, values: dict[str, object] | None = None) -> bool:
    return judge(parse_condition(text), RUN if values is None else values).holds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("brk_failures > 0", True),
        ("brk_failures>44", False),
        ("brk_failures >= 44 and brk_failures <= 44", True),
        ("not brk_failures > 0", False),
        ("not (brk_failures > 0 and mmap_fallbacks > 0)", True),
        ("mmap_fallbacks > 0 or brk_failures > 0", True),
        # and binds closer than or, not closer than and
        ("brk_failures > 0 or brk_failures > 0 and mmap_fallbacks > 0", True),
        ("(brk_failures > 0 or brk_failures > 0) and mmap_fallbacks > 0", False),
        ("not mmap_fallbacks > 0 and brk_failures > 0", True),
        ("40 < brk_failures < 50", True),
        ("40 < brk_failures < 44", False),
        ("brk_failures / brk_calls > 80%", True),
        ("brk_failures / brk_calls == 88%", True),
        ("brk_failures - brk_calls < -5", True),
        ("-brk_failures == -44", True),
        ("2 * (3 + 4) - 10 / 4 * 2 == 9", True),
        ("peak_mapped_bytes == 10MiB", True),
        ("peak_mapped_bytes == 10 MiB", True),
        ("peak_mapped_bytes > 10MB", True),
        ("peak_mapped_bytes == 10240 KiB", True),
        ("peak_mapped_bytes < 0.01GiB", True),
        ("peak_mapped_bytes < 1e7B", False),
        ("peak_mapped_bytes == 0xa00000", True),
        ("peak_mapped_bytes * 2 == 20MiB", True),
        ("50% * peak_mapped_bytes == 5MiB", True),
        ("duration_ns > 1s and duration_ns == 1_500ms", True),
        ("duration_ns == 1500000us", True),
        ("heap_fragmentation >= 50%", True),
        ("heap_fragmentation > 0.5", False),
        ("allocator == 'glibc'", True),
        ('allocator != "musl"', True),
        ('"rlimit_data" in brk_failure_causes', True),
        ('not "overcommit" in brk_failure_causes', True),
    ],
)
def test_conditions_mean_what_they_say(text: str, expected: bool) -> None:
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a number or a column, found the end"),
        ("brk_failures", "is no condition: compare it, as in brk_failures > 0"),
        ("brk_failures >", "found the end"),
        ("brk_failures = 3", "equality is =="),
        ("brk_failures > 0 && lines > 0", "write and"),
        ("brk_failures > 0 lines", "expected and, or, or the end, found 'lines'"),
        ("(brk_failures > 0", "a closing parenthesis"),
        ("brk_failures > 5MiB", "brk_failures is a count, 5MiB is bytes"),
        ("peak_mapped_bytes > 5%", "a percentage fits a ratio and a change alone"),
        ("duration_ns > peak_mapped_bytes", "time"),
        ("peak_mapped_bytes + duration_ns > 3", "has no meaning between them"),
        ("allocator > 'a'", "use ==, != or in"),
        ("allocator == 5", "a text is compared with a text"),
        ("allocator * 2 > 5", "is a text"),
        ("(lines > 5) + 3 > 4", "is a condition"),
        ("lines > 5parsecs", "no unit 'parsecs'"),
        ("lines > 1e999", "no number of this world"),
        ("lines > " + "9" * 50, "no number of this world"),
        ("before.lines > 5", "`replay compare` only"),
        ("__import__('os').system('true') > 0", "'.' has no meaning here"),
        ("lines > 0; lines > 0", "';' has no meaning here"),
        ("lines.__class__ > 0", "no column 'lines.__class__'"),
        ("lines[0] > 0", "'[' has no meaning here"),
        ("(" * 500 + "lines > 0" + ")" * 500, "levels deep"),
        ("not " * 450 + "lines > 0", "levels deep"),
        ("- " * 450 + "lines > 0", "levels deep"),
        ("lines > 0 or " * 500 + "lines > 0", "characters"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse_condition(text)
    assert complaint in str(refused.value)


def test_an_unknown_name_lists_the_known_ones_nearest_first() -> None:
    with pytest.raises(ConditionError) as refused:
        parse_condition("brk_failurs > 0")
    first, *rest = str(refused.value).splitlines()
    known = " ".join(rest).removeprefix("Known, nearest first: ").split(", ")
    assert first == "'brk_failurs > 0', character 1: no column 'brk_failurs'"
    assert known[0] == "brk_failures"
    assert set(known) == {column.name for column in TABLES["summary"].columns}
    assert max(map(len, rest)) <= 80


@pytest.mark.parametrize("missing", [None, math.nan, pd.NA, math.inf])
def test_a_comparison_with_nothing_is_false_and_said(missing: object) -> None:
    values = RUN | {"live_bytes": missing}
    judged = judge(parse_condition("live_bytes > 0 or live_bytes <= 0"), values)
    assert not judged.holds
    assert judged.unknown == ("live_bytes",)
    assert all_lines([judged]) == [
        "cannot be judged: live_bytes > 0 or live_bytes <= 0: no value for live_bytes, as far as the log shows; "
        "a comparison with it counts as false"
    ]


def test_a_division_by_zero_is_false_and_said() -> None:
    judged = judge(parse_condition("brk_failures / mmap_fallbacks > 1"), RUN)
    assert not judged.holds
    assert judged.unknown == ("(brk_failures / mmap_fallbacks), a division by zero",)


def test_the_reasons_give_value_threshold_and_line() -> None:
    text = "brk_failures > 0 and peak_mapped_bytes > 5MiB"
    (judged,) = conditions_that_hold([text, "lines < 5"], RUN, origins_in(RUN))
    assert judged.lines() == [
        f"condition holds: {text}",
        "  brk_failures > 0: 44 > 0",
        "  peak_mapped_bytes > 5MiB: 10 MiB > 5 MiB (in line 331)",
    ]


def test_only_what_made_a_condition_hold_is_given_as_reason() -> None:
    (judged,) = conditions_that_hold(["lines < 5 or not lines < 7 or brk_failures > 0"], RUN)
    assert [str(reason) for reason in judged.reasons] == ["1,000 is not < 7", "44 > 0"]


def two(before: dict[str, object], after: dict[str, object], text: str) -> bool:
    return judge(parse_condition(text, comparing=True), comparison_values(before, after)).holds


@pytest.mark.parametrize(
    ("before", "after", "text", "expected"),
    [
        (100, 106, "change.lines > 5%", True),
        (100, 105, "change.lines > 5%", False),
        (100, 105, "change.lines >= 5%", True),
        (100, 90, "change.lines < -5%", True),
        (100, 90, "-20% < change.lines < -5%", True),
        (100, 110, "change.lines == 10", True),
        (100, 110, "change.lines / before.lines == 10%", True),
        (100, 110, "after.lines > before.lines * 105%", True),
        (100, 110, "lines == 110", True),
        (0, 3, "change.lines > 1000%", True),
        (0, 0, "change.lines > 0%", False),
        (0, 0, "change.lines < 5%", True),
        (None, 3, "change.lines > 5% or change.lines > 0", False),
    ],
)
def test_a_change_is_absolute_or_a_share_of_before(before: object, after: object, text: str, expected: bool) -> None:
    assert two({"lines": before}, {"lines": after}, text) is expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("change.allocator == 'glibc'", "a text has no change"),
        ("change.lines + change.brk_calls > 5%", "a percentage fits"),
        ("during.lines > 5", "no column 'during.lines'"),
        ("change.linse > 5", "before., after. or change. and a column"),
    ],
)
def test_what_a_comparison_refuses(text: str, complaint: str) -> None:
    with pytest.raises(ConditionError, match=complaint):
        parse_condition(text, comparing=True)


def test_a_change_is_told_with_both_sides_and_the_line_of_after() -> None:
    before, after = RUN, RUN | {"peak_mapped_bytes": 12 << 20, "peak_mapped_line": 77}
    places = comparison_values(origins_in(before), origins_in(after))
    condition = parse_condition("change.peak_mapped_bytes > 5%", comparing=True)
    judged = judge(condition, comparison_values(before, after), places)
    assert [str(reason) for reason in judged.reasons] == ["+20 % (10 MiB to 12 MiB) > 5 % (in line 77)"]


def test_a_run_says_where_its_first_failure_stands() -> None:
    run = replay.load(oracle.SAMPLES / "blocked_break" / "strace.log")
    (judged,) = conditions_that_hold(["brk_failures > 0"], run.summary_values, origins_of(run))
    line = int(run.brk_failures["line"].iloc[0])
    assert str(judged.reasons[0]) == f"{len(run.brk_failures)} > 0 (first in line {line})"


def of_run(run: replay.Run) -> Callable[[str, Sequence[str]], pa.Table]:
    return lambda name, columns: plain_texts(run.arrow(name).select(columns))


_PARENT = """\
1.000001 execve("./a", ["./a"], 0x7ffc00000000 /* 2 vars */) = 0
1.000002 brk(NULL) = 0x555500000000
1.000003 clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f3b0000) = 11
1.000009 exit_group(0) = ?
"""

_CHILD = """\
1.000004 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
1.000005 mmap(NULL, 1073741824, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x7e0000000000
1.000006 exit_group(0) = ?
"""


def test_a_peak_of_a_set_is_in_a_line_of_its_file(tmp_path: Path) -> None:
    for pid, lines in ((10, _PARENT), (11, _CHILD)):
        (tmp_path / f"log.{pid}").write_text(lines)
    run = replay.load(sorted(tmp_path.iterdir()))
    assert origins_of(run)["peak_mapped_bytes"] == "in line 2 of log.11"
    assert origins_in_tables(run.summary_values, of_run(run))["peak_mapped_bytes"] == "in line 2 of log.11"
    assert "At the peak (line 2 of log.11) 1 GiB were mapped, 1 GiB of them" in " ".join(
        " ".join(text_report(run)).split()
    )


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from("( ) not and or lines 5 % MiB < > == - / 'a' change.".split()), max_size=20).map(
        " ".join
    )
)
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse_condition(text, comparing=True)
    except ConditionError:
        return
    judge(condition, comparison_values(RUN, RUN))


@given(
    st.recursive(
        st.sampled_from(["brk_failures", "lines", "3", "44", "1000"]),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda parts: f"({' '.join(parts)})"),
        max_leaves=8,
    ),
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.integers(-2000, 2000),
)
def test_arithmetic_agrees_with_python(quantity: str, sign: str, threshold: int) -> None:
    names = {"brk_failures": 44, "lines": 1000}
    expected = eval(f"{quantity} {sign} {threshold}", {"__builtins__": {}}, names)
    try:
        assert holds(f"{quantity} {sign} {threshold}", names) is expected
    except ConditionError as refused:
        assert "has no meaning between them" in str(refused)
