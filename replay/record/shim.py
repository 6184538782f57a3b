"""The environment in which a program records itself, and the one in which a tracer keeps how programs begin and end.

In goes the directory of their files, out come variables. What the files hold is told at the heads of shim.c and
tracees.c.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from replay.errors import ReplayError
from replay.record.libraries import SHIM, TRACEES, library

DIRECTORY: Final = "REPLAY_RECORD"
OWN_CALLS: Final = "REPLAY_RECORD_CALLS"
STACKS: Final = "REPLAY_RECORD_STACKS"
"""What the library reads from the environment, see shim.c."""

OF_TRACEES: Final = "REPLAY_RECORD_TRACEES"
"""What the tracer's reads, see tracees.c."""


def environment(directory: Path, *, own_calls: bool, stacks: int = 0) -> dict[str, str]:
    """Return the variables that have a program record itself into `directory`, which is there.

    Args:
        directory: where the files of each process go, see shim.c.
        own_calls: whether its own memory calls, forks, threads and ends are written, too.
        stacks: how many return addresses are written behind each allocation.
    """
    made = _preloaded(library(SHIM)) | {DIRECTORY: str(directory)}
    return made | ({OWN_CALLS: "1"} if own_calls else {}) | ({STACKS: str(stacks)} if stacks else {})


def environment_of_tracer(directory: Path) -> dict[str, str]:
    """Return the variables that have a tracer keep how programs begin and end in `directory`, which is there.

    None are returned where the library for it cannot be made: the logs are the same without.
    """
    try:
        return _preloaded(library(TRACEES)) | {OF_TRACEES: str(directory)}
    except ReplayError:
        return {}


def _preloaded(path: Path) -> dict[str, str]:
    """Return the variable that preloads a library, and behind it what is preloaded anyway."""
    before = os.environ.get("LD_PRELOAD")
    return {"LD_PRELOAD": f"{path}:{before}" if before else str(path)}


def run(command: list[str], directory: Path, variables: Mapping[str, str] | None = None) -> int:
    """Run a program under the library alone and return its exit status; its lines are in `directory`/PID.N.log.

    `variables` are added to the environment; an LD_PRELOAD among them stands behind the library.
    """
    directory.mkdir(parents=True, exist_ok=True)
    own = environment(directory.absolute(), own_calls=True)
    more = dict(variables or {})
    if "LD_PRELOAD" in more:
        more["LD_PRELOAD"] = f"{own['LD_PRELOAD']}:{more['LD_PRELOAD']}"
    return subprocess.run(command, env=os.environ | own | more, check=False).returncode
