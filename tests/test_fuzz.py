"""Damaged logs: whatever befell one, all that holds of every result holds of its result, and nothing crashes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invariants import check, check_ways
from mutations import mutated

from replay.errors import TraceFormatError


@pytest.mark.slow
@settings(max_examples=1000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32))
def test_a_mutated_log_keeps_the_invariants(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.log"
    path.write_bytes(mutated(seed))
    with suppress(TraceFormatError):  # it may be no trace any more, and the message says so
        check([path])


HOSTILE = sorted((Path(__file__).parent / "cases" / "hostile").glob("*.log"))


@pytest.mark.parametrize("path", HOSTILE, ids=[path.stem for path in HOSTILE])
def test_a_hostile_log_keeps_the_invariants(path: Path) -> None:
    try:
        check([path])
        check_ways(path)
    except TraceFormatError as error:
        assert "no line" in str(error)
