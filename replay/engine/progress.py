"""How far the work on a run is, told while it goes on to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from replay.engine.structs import Value


class Stage(Value):
    """What is being done, and how much of it: `done` of `total`, 0 where that is not known; `lines` read so far."""

    name: str
    done: int
    total: int
    lines: int = 0


Watch: TypeAlias = Callable[[Stage], None]
"""What is called from time to time with the stage that the work is in."""


def unwatched(stage: Stage) -> None:
    """Watch nothing."""
