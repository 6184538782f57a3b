"""What the findings about malloc are made of: faults, causes, raises, pins, leaks and spaces; plain values.

In goes nothing, out come the types that the findings fill and the pages word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.engine.structs import Value
from replay.run.places import Place

if TYPE_CHECKING:
    pass


class Fault(Value):
    """Calls that went wrong in one way: how often, where first, and the text of the first."""

    count: int = 0
    first: Place | None = None
    text: str = ""


class Cause(Value):
    """System calls of one kind inside libc calls of one kind, caller and size class; sizes in bytes.

    `kind` is one of `heap.KINDS`. `least_request` and `most_request` are None for a free. `bytes` is what the heap
    gained, less than 0 where it gave back; `least` and `most` are that of single calls.
    """

    kind: str
    call: str
    caller: str
    least_request: int | None
    most_request: int | None
    count: int
    bytes: int
    least: int
    most: int
    first_step: int
    last_step: int


class Raise(Value):
    """A free that raised the size from which glibc maps a block by itself, in bytes."""

    step: int
    space: int
    before: int
    after: int
    observed: bool


class Pin(Value):
    """A live block that holds free memory below it back; sizes in bytes, `age_lines` at the moment looked at."""

    addr: int
    size: int
    call: str
    caller: str
    pid: int | None
    born: Place | None
    age_lines: int
    age_ns: int | None
    released_bytes: int
    blocks_above: int


class LeakGroup(Value):
    """Blocks alive at the end, of one space, caller, call and size class (sizes of `size_class` up to twice that).

    `least` and `most` are the sizes of the smallest and the largest of them, in bytes.
    """

    space: int
    caller: str
    call: str
    size_class: int
    least: int
    most: int
    count: int
    bytes: int
    first: Place | None
    last: Place | None
    age_lines: int
    age_ns: int | None


class SpaceBlocks(Value):
    """What was allocated and freed in one space, and what is live at its end; sizes in bytes."""

    space: int
    allocations: int
    frees: int
    live_blocks: int
    live_bytes: int
