"""What the allocators of a run did: which brk calls failed and why, which mappings are whose, which allocator it is.

In go the columns of the replay, out come the tables `brk_failures` and `allocator_mmaps` and the allocators of each
space. This layer knows glibc, musl and the others; of how a log is written and how a table is stored it knows nothing.
"""

from __future__ import annotations

from replay.allocator.brk_failures import brk_failures
from replay.allocator.brk_refusals import find_refusals
from replay.allocator.identify import ALLOCATORS, find_allocators
from replay.allocator.mmaps import allocator_mmaps
from replay.allocator.replayed import Replayed
from replay.engine.columns import Columns
from replay.engine.structs import Value

__all__ = ["ALLOCATORS", "Activity", "Replayed", "allocator_activity"]


class Activity(Value):
    """What `allocator_activity` found; all texts are ids of the run's `Strings`, -1 none, numbers int64 with `NULL`."""

    brk_failures: Columns
    """The table of that name, sorted by `step`."""
    allocator_mmaps: Columns
    """The table of that name, sorted by `step`; `errno` is a name such as ENOMEM, as an id."""
    allocators: Columns
    """`space`, `name` and `evidence`: who serves malloc in each space first, then the runtimes beside it."""


def allocator_activity(record: Replayed) -> Activity:
    """Return the brk failures, the mappings of allocators and the allocators of a replayed run."""
    refusals = find_refusals(record)
    allocators = find_allocators(record)
    return Activity(
        brk_failures=brk_failures(record, refusals),
        allocator_mmaps=allocator_mmaps(record, refusals, allocators),
        allocators=allocators.columns(record),
    )
