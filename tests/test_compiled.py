"""Loops as machine code: the same as interpreted, kept, linked without numba, and compiled anew where that is due."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import oracle
import pytest
from numpy.typing import NDArray

from replay.engine import native as machine
from replay.engine.native import compiled, pays

FACTOR = 3
TABLE = np.array([1, 10, 100])


class Pair(NamedTuple):
    wide: NDArray[np.int64]
    narrow: NDArray[np.uint8]


def weighted(pair: Pair, mask: NDArray[np.bool_], rest: tuple[NDArray[np.int32], int], twice: bool) -> tuple[int, int]:
    """Write into the first array, and return a sum and a count."""
    numbers, shift = rest
    total = count = 0
    for row in range(len(mask)):
        for column in range(3):
            pair.wide[row, column] += tripled(pair.narrow[row]) * TABLE[column]
        if mask[row]:
            total += numbers[row] + shift
            count += 2 if twice else 1
    return total, count


def tripled(value: int) -> int:
    return value * FACTOR


def counting(numbers: NDArray[np.int64]) -> None:
    for place in range(len(numbers)):
        numbers[place] = place


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory, and no loop known to this process."""
    monkeypatch.setattr(machine, "cache_directory", lambda: tmp_path)
    compiled.cache_clear()
    machine._name_of.cache_clear()
    return tmp_path


def no_numba() -> None:
    raise AssertionError("numba was asked")


def test_machine_code_does_what_the_interpreter_does(cache: Path) -> None:
    def arguments() -> tuple[Any, ...]:
        pair = Pair(np.arange(12).reshape(4, 3), np.array([5, 6, 7, 80], np.uint8))
        return pair, np.array([True, False, True, True]), (np.array([1, 2, 3, -4], np.int32), 40), True

    plain, fast = arguments(), arguments()
    expected = weighted(*plain)
    assert expected == (1 + 3 - 4 + 3 * 40, 6)
    assert compiled(weighted, (tripled,), (), results=2)(*fast) == expected
    assert fast[0].wide.tolist() == plain[0].wide.tolist()
    assert compiled(weighted, (), (tripled,), results=2)(*fast) == expected


def test_what_was_compiled_is_linked_without_numba(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = np.zeros(3, np.int64)
    compiled(counting)(numbers)
    assert capsys.readouterr().err == "replay: compiling test_compiled, once on this machine ...\n"
    compiled.cache_clear()
    monkeypatch.setattr(machine, "_numba", no_numba)
    numbers[:] = 7
    assert compiled(counting)(numbers) is None
    assert numbers.tolist() == [0, 1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", [b"", b"{}\n", b'{"sha256": "0", "entry": "x"}\n\x7fELF', b"\xff\xfe"], ids=repr)
def test_a_damaged_file_is_made_anew(cache: Path, damage: bytes) -> None:
    compiled(counting)(np.zeros(3, np.int64))
    [kept] = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage or whole[:-100])
    compiled.cache_clear()
    numbers = np.full(3, 7)
    compiled(counting)(numbers)
    assert numbers.tolist() == [0, 1, 2]
    assert len(kept.read_bytes()) == len(whole)


def test_where_nothing_can_be_kept_loops_are_compiled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cache_directory", lambda: tmp_path / "missing")
    compiled.cache_clear()
    numbers = np.full(3, 7)
    compiled(counting)(numbers)
    assert numbers.tolist() == [0, 1, 2]
    assert not pays(counting, 99, loading=1, compiling=100)


@pytest.mark.parametrize(("name", "value"), [("FACTOR", 5), ("TABLE", np.array([1, 9]))], ids=["number", "array"])
def test_with_another_constant_another_file_is_asked_for(
    name: str, value: object, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(counting)(np.zeros(3, np.int64))
    assert pays(counting, 1, loading=0, compiling=2)
    machine._name_of.cache_clear()
    assert pays(counting, 1, loading=0, compiling=2)
    monkeypatch.setattr(sys.modules[__name__], name, value)
    machine._name_of.cache_clear()
    assert not pays(counting, 1, loading=0, compiling=2)


def test_it_pays_to_link_before_it_pays_to_compile(cache: Path) -> None:
    amounts = (9, 10, 19, 20)
    assert [pays(counting, n, loading=10, compiling=20) for n in amounts] == [False, False, False, True]
    compiled(counting)(np.zeros(3, np.int64))
    assert [pays(counting, n, loading=10, compiling=20) for n in amounts] == [False, True, True, True]


def test_an_array_that_is_not_in_order_is_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="C order"):
        compiled(counting)(np.arange(10)[::2])


def test_errors_of_other_code_of_numba_stay_errors(cache: Path) -> None:
    """What the object file defines in place of numba's own functions is not seen outside of it."""
    code = (
        "import numpy, numba\n"
        "from replay.engine.native import compiled\n"
        "from test_compiled import counting\n"
        "compiled(counting)(numpy.zeros(3, numpy.int64))\n"
        "try: numba.njit(lambda x: [x][5])(1)\n"
        "except IndexError: print(numba.njit(lambda n: numpy.ones(n).sum())(10))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=oracle.CHECKOUT / "tests"
    )
    assert done.stdout == "10.0\n"
