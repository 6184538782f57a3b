"""What a mapping of an allocator can be, and the columns that the rules work on.

No rules here: they are in `mmaps`, their words in `evidence`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import Int64Array, Mask
from replay.engine.structs import Struct

NONE: Final = 0
FALLBACK: Final = 1
LAST_RESORT: Final = 2
DIRECT: Final = 3
ARENA_HEAP: Final = 4
POOL: Final = 5
KINDS: Final = ("", "fallback", "last_resort", "direct", "arena_heap", "pool")
"""The names of the codes above."""


class Candidates(Struct):
    """The mappings that may be an allocator's, one row each, sorted by `step`; the rules fill in the last columns."""

    step: Int64Array
    space: Int64Array
    length: Int64Array
    """In bytes, whole pages."""
    anywhere: Mask
    """No address was wished for."""
    plain: Mask
    """Whole pages, and no flag but private and anonymous."""
    large: Mask
    """More bytes than glibc's threshold at first were asked for, and given."""
    writable: Mask
    """Readable and writable; otherwise a reserve that is neither."""
    failed: Mask
    inside: Mask
    """The log shows a libc call around it."""
    kind: NDArray[np.int8]
    allocator: NDArray[np.int8]
    """Code of `identify.ALLOCATORS`: at first who serves malloc in the space."""
    errno: NDArray[np.int16]
    """Number of the error that refused it or its first pages, 0 for none."""
    refusal_step: Int64Array
    """The refused brk that it stood in for, `NULL` for none."""
    growth: dict[int, int]
    """By row: the bytes that this brk had asked for, in whole pages."""
    heap_evidence: dict[int, str]
    """By row: the sentence about a heap of an arena."""
