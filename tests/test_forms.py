"""Rows written by forms: each style of a number, in the compiled loop and as the Python that it is compiled from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.engine import forms
from replay.engine.forms import DECIMAL, FIXED64, HEXADECIMAL, PIECE, TEXT, THOUSANDTHS, VARINT, Number, written

COMPILED, PLAIN = forms._write, lambda *arguments: (forms._write_rows(*arguments),)
BOTH_WAYS = pytest.mark.parametrize("write", [COMPILED, PLAIN], ids=["compiled", "plain"])


def varint(value: int, width: int) -> bytes:
    sevens = [value >> 7 * place & 0x7F for place in range(width)]
    return bytes([*(seven | 0x80 for seven in sevens[:-1]), sevens[-1]])


def thousandths(value: int) -> bytes:
    return b"%d.%03d" % divmod(value, 1000) if value % 1000 else b"%d" % (value // 1000)


STYLES: dict[int, Callable[[int], bytes]] = {
    DECIMAL: lambda value: b"%d" % value,
    HEXADECIMAL: lambda value: b"%x" % value,
    THOUSANDTHS: thousandths,
    VARINT: lambda value: varint(value, 10),
    FIXED64: lambda value: value.to_bytes(8, "little"),
}


@BOTH_WAYS
def test_rows_are_written_by_their_forms(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_write", write)
    columns = np.array([[1500, 7, 2000], [0, 255, 16], [0, 1, 0]], np.uint64)
    call = [Number(2, TEXT), b"(0x", Number(1, HEXADECIMAL), b") at ", Number(0, THOUSANDTHS), b";"]
    mark = [b"mark ", Number(0, DECIMAL), b";"]
    order, form = np.array([2, 0, 1]), np.array([0, 1, 0])
    assert b"".join(written([call, mark], form, order, columns, [b"brk", b"mmap"])) == (
        b"brk(0x10) at 2;mark 1500;mmap(0xff) at 0.007;"
    )


@given(st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 10_000), min_size=1, max_size=5))
def test_every_number_is_written_in_every_style(values: list[int]) -> None:
    columns, rows = np.array([values], np.uint64), np.arange(len(values))
    for style, expected in STYLES.items():
        for write in (COMPILED, PLAIN):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(forms, "_write", write)
                found = b"".join(written([[Number(0, style, 10), b" "]], np.zeros_like(rows), rows, columns))
            assert found == b"".join(expected(value) + b" " for value in values), style


def test_many_rows_come_in_pieces_and_none_in_none() -> None:
    count = PIECE + 1
    columns, rows = np.arange(count, dtype=np.uint64)[None], np.arange(count)
    pieces = list(written([[Number(0, DECIMAL), b"\n"]], np.zeros_like(rows), rows, columns))
    assert len(pieces) == 2
    assert list(map(int, b"".join(pieces).split())) == list(range(count))
    assert list(written([], rows[:0], rows[:0], columns)) == []
