"""Times and durations that no clock says: the line is a problem, whether its shape is known or not, and none wraps."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay

GOOD = "7 1795367367.165405 brk(0x555500021000) = 0x555500021000 <0.000009>\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7 4611686017.999999 brk(NULL) = 0x555500021000 <0.000009>\n", None),
        ("7 4611686018.999999 brk(NULL) = 0x555500021000 <0.000009>\n", "impossible_value"),
        ("7 9795371026.821734 brk(NULL) = 0x555500021000 <0.000009>\n", "impossible_value"),
        ("7 18446744074.000001 brk(NULL) = 0x555500021000 <0.000009>\n", "impossible_value"),  # 2^64 ns and a bit
        ("7 1795367367.165405 brk(NULL) = 0x555500021000 <281474976710656.000060>\n", "impossible_value"),
        ("7 1795367367.165405 brk(NULL) = 0x555500021000 <18446744073709551616.000060>\n", "impossible_value"),
    ],
)
@pytest.mark.parametrize("before", [GOOD * 2, ""], ids=["by its shape", "the first of its shape"])
def test_a_time_beyond_all_clocks_is_a_problem(tmp_path: Path, before: str, line: str, reason: str | None) -> None:
    (tmp_path / "a.log").write_text(before + line + GOOD)
    run = replay.load(tmp_path / "a.log")
    assert run.problems["reason"].tolist() == ([reason] if reason else [])
    assert len(run.events) == before.count("\n") + (1 if reason else 2)
    assert run.events["time_ns"].max() == (1795367367165405000 if reason else 4611686017999999000)


def test_the_sum_of_relative_times_stops_before_it_wraps(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("  99999999.000000 brk(NULL) = 0x555500021000\n" * 48)
    times = replay.load(tmp_path / "a.log").events["time_ns"].tolist()
    assert times == [99999999 * 10**9 * count for count in range(1, 47)] + [(1 << 62) - 1] * 2
