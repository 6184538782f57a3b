"""The values that all columns below `tables` are made of: int64 arrays with one null, and interned texts.

In go numbers and texts, out come arrays that the replay's loops can work on; of traces and tables it knows nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import count, islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Int64Array: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]

Columns: TypeAlias = Mapping[str, Int64Array]
"""Columns of one length by name, only to be read; what they hold is written where they are made."""

NULL: int = -(1 << 63)
"""The null of every int64 column. As an address it would be non-canonical, as a length impossible."""

NO_TEXT: int = -1
"""The null of every column of text ids."""


class Strings:
    """Texts by id, each text once, ids from 0 in order of first use."""

    __slots__ = ("_ids", "texts")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Start with `texts`, which get the first ids."""
        self.texts: list[str] = []
        self._ids: defaultdict[str, int] = defaultdict(count().__next__)  # who asks for a new text gives it an id
        self.intern_all(texts)

    def intern(self, text: str) -> int:
        """Return the id of `text`, a new one if it was never seen."""
        known = self._ids[text]
        if known == len(self.texts):
            self.texts.append(text)
        return known

    def intern_all(self, texts: Iterable[str]) -> list[int]:
        """Return the ids of `texts`; many cost less together than one by one."""
        found = list(map(self._ids.__getitem__, texts))
        new = len(self._ids) - len(self.texts)
        if new:
            self.texts += list(islice(reversed(self._ids), new))[::-1]  # the last ones in order of their ids
        return found

    def __getitem__(self, text_id: int) -> str:
        """Return the text of an id that is not `NO_TEXT`."""
        return self.texts[text_id]

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self.texts)


def to_signed(value: int) -> int:
    """Return the int64 that has the bits of the unsigned 64-bit `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def to_unsigned(value: int) -> int:
    """Return the unsigned 64-bit number that has the bits of the int64 `value`."""
    return value & ((1 << 64) - 1)
