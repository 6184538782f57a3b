"""The page size of a run's kernel, told from its mappings.

In go the calls of a run, window by window, out comes the size of a page in bytes.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.calls.table import OK, Calls
from replay.engine.columns import NULL, Int64Array
from replay.engine.structs import Struct, field
from replay.linux.constants import CALL_CODE

SMALLEST: Final = 4096
_LARGER: Final = (65536, 16384)
"""The larger page sizes that Linux knows, on arm64, ppc64, loongarch and others. Source: arch/*/Kconfig."""

_ENOUGH: Final = 8
"""So many mappings of odd lengths at different places tell a larger size. Heuristic: chance would take 4**-8."""

_MMAP: Final = CALL_CODE["mmap"]
_AT_PAGES: Final = np.array([CALL_CODE[name] for name in ("munmap", "mprotect")])


class PageSizeEvidence(Struct):
    """What the calls so far tell: all bits below `_LARGER[0]` that an address or an offset had, and where odd ones lay.

    Where the kernel chose the place of mappings whose lengths are no multiple of a size, and all of them lie at
    multiples of it, the lengths were rounded up to it. Source: mmap(2): address and offset are multiples of a page.
    """

    bits: int = 0
    places: dict[int, set[int]] = field(default_factory=lambda: {size: set() for size in _LARGER})

    def see(self, calls: Calls) -> None:
        """Take the next window into account; once a place is no multiple of a larger size, nothing more is asked."""
        if self.bits & (_LARGER[-1] - 1):
            return
        worked = (calls.status == OK) & (calls.injected != 1)
        mapped = np.flatnonzero((calls.call == _MMAP) & worked & (calls.result != NULL))
        offset = calls.offset[mapped]
        ranges = np.flatnonzero(np.isin(calls.call, _AT_PAGES) & worked & (calls.addr != NULL))
        for values in (calls.result[mapped], offset[offset != NULL], calls.addr[ranges]):
            self.bits |= int(np.bitwise_or.reduce(values, initial=0)) & (_LARGER[0] - 1)
        self._keep_places(calls, mapped[(calls.addr[mapped] == 0) | (calls.addr[mapped] == NULL)])

    def _keep_places(self, calls: Calls, chosen: Int64Array) -> None:
        """Keep some of the places that the kernel chose for mappings of odd lengths."""
        for size, places in self.places.items():
            odd = chosen[calls.length[chosen] % size != 0]
            places.update(calls.result[odd[: 8 * _ENOUGH]].tolist() if len(places) < _ENOUGH else ())

    @property
    def page_size(self) -> int:
        """Return the largest size that the calls tell of, else the smallest."""
        for size in _LARGER:
            if not self.bits & (size - 1) and len(self.places[size]) >= _ENOUGH:
                return size
        return SMALLEST
