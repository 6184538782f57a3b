"""Folded stacks as lines: for flame-graph tools, and the heaviest ones in words.

In go stacks with their bytes, out come lines. Where the frames come from this module does not know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from replay.console.amounts import number, percent, size
from replay.console.screen import clean, styled, wrapped

_MEANING: Final = {
    "live": "bytes of blocks that live at the end",
    "allocated": "bytes allocated",
    "growth": "bytes that the break grew by",
    "mmap": "bytes mapped",
}


def folded_lines(found: Counter[str]) -> Iterator[str]:
    """Yield `outermost;…;innermost BYTES` for each stack, the heaviest first."""
    for stack, bytes_ in found.most_common():
        yield f"{clean(stack)} {bytes_}"


def heaviest_lines(found: Counter[str], of: str, most: int) -> Iterator[str]:
    """Yield the heaviest stacks in words, the innermost function first."""
    total = sum(found.values())
    yield styled("title", f"{size(total)} in {number(len(found), 'stack')}: {_MEANING[of]}")
    for stack, bytes_ in found.most_common(most):
        calls = " < ".join(clean(stack).split(";")[::-1])
        yield from wrapped(calls, first=f"  {size(bytes_):>9}  {percent(bytes_, total):>5}  ", rest=" " * 20)
