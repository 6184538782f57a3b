"""Amounts in words: bytes, counts, addresses, times, as every page of the report writes them.

In go plain numbers, out come short texts. Of runs and screens this module knows nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from replay.engine.columns import to_unsigned
from replay.linux.constants import SECOND

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_LONG_NUMBER: Final = re.compile(r"(?<![\w.,/])(\d{4,})(?: (bytes)|(?= (?:more|pages|mappings|unless)|-page))\b")


@lru_cache(1 << 14)
def size(count: int) -> str:
    """Return bytes with a binary unit, about three digits: `132 KiB`, `6.7 MiB`, `1 byte`."""
    if abs(count) < 1024:
        return "1 byte" if count == 1 else f"{count:,} bytes"
    value, unit = float(count), 0
    while abs(value) >= 1023.95 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    digits = f"{value:.1f}" if abs(value) < 99.95 else f"{value:,.0f}"
    return f"{digits.removesuffix('.0')} {_UNITS[unit]}"


def exact(count: int) -> str:
    """Return bytes exactly and, from 1 KiB on, with a unit: `6,995,968 bytes (6.7 MiB)`."""
    if abs(count) < 1024:
        return size(count)
    return f"{count:,} bytes ({size(count)})"


def number(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 call`, `1,677 calls`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def times(count: int) -> str:
    """Return how often: `once`, `twice`, `45 times`."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def address(value: int) -> str:
    """Return an address, given as an int64 or uint64, in hexadecimal: `0x7f02cdb3e000`."""
    return f"{to_unsigned(value):#x}"


def duration(ns: int) -> str:
    """Return a span of time given in nanoseconds: `29.2 ms`, `1.5 s`, `2 h 5 min`."""
    if ns < 1000:
        return f"{ns} ns"
    if ns < 1_000_000:
        return f"{_digits(ns / 1000)} µs"
    if ns < SECOND:
        return f"{_digits(ns / 1_000_000)} ms"
    seconds = ns / SECOND
    if seconds < 60:
        return f"{_digits(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def grouped(text: str) -> str:
    """Return a text with its long decimal numbers written as here: `135168 bytes` becomes `135,168 bytes (132 KiB)`."""
    return _LONG_NUMBER.sub(lambda match: exact(int(match[1])) if match[2] else f"{int(match[1]):,}", text)


def _digits(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 99.95 else f"{value:.0f}"


def percent(part: int, whole: int) -> str:
    """Return a share: `50 %`; `<1 %` and `>99 %` where rounding would say none or all."""
    if not part or not whole:
        return "0 %"
    share = 100 * part / whole
    if share < 0.5:
        return "<1 %"
    return ">99 %" if share >= 99.5 and part < whole else f"{share:.0f} %"
