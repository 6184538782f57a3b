"""The first line of each pid among lines that are passed over."""

from __future__ import annotations

import numpy as np
import pytest

from replay.lines.first_sights import FirstSights


@pytest.mark.parametrize(
    ("lines", "read", "seen"),
    [
        (["100 close(3) = 0", "101 close(3) = 0", "100 close(4) = 0"], [], [(0, 100), (1, 101)]),
        (["100 close(3) = 0", "101 brk(NULL) = 0x1000"], [1], [(0, 100)]),
        (["[pid  4000000] close(3) = 0", "[pid  4000001] close(3) = 0"], [], [(0, 4000000), (1, 4000001)]),
        (["close(3) = 0", "[pid 7] close(3) = 0"], [], [(1, 7)]),
        (["3887<a b> close(3) = 0", "1795367367.1 close(3) = 0", "17:36:29 close(3) = 0"], [], [(0, 3887)]),
        (["1 x", "2 x"], [], [(0, 1), (1, 2)]),
    ],
)
def test_first_lines(lines: list[str], read: list[int], seen: list[tuple[int, int]]) -> None:
    data = "".join(line + "\n" for line in lines).encode()
    sights = FirstSights()
    assert sights.among(data, len(lines), np.array(read, np.int64)) == seen
    assert sights.among(data, len(lines), np.array(read, np.int64)) == []
