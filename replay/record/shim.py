"""The library that is preloaded into a recorded program: found in the package, else compiled once on this machine.

In goes shim.c, out comes the path of a shared object, or the environment that a program is run in. What the lines say
that it writes is told at the head of shim.c.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from replay.engine.cache import cache_directory
from replay.errors import ReplayError

SOURCE: Final = Path(__file__).with_name("shim.c")
PACKAGED: Final = Path(__file__).with_name("_shim.so")
"""What the build of the package made of the source, where there was a compiler."""

FLAGS: Final = "-O2 -fPIC -shared -fvisibility=hidden -fno-builtin -ftls-model=initial-exec".split()

DIRECTORY: Final = "REPLAY_RECORD"
OWN_CALLS: Final = "REPLAY_RECORD_CALLS"
STACKS: Final = "REPLAY_RECORD_STACKS"
"""What the library reads from the environment, see shim.c."""


def shim_path() -> Path:
    """Return the path of the library.

    Raises:
        ReplayError: it is not in the package, and no compiler is here or it fails.
    """
    if PACKAGED.is_file():
        return PACKAGED
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode() + os.uname().machine.encode()).hexdigest()
    kept = cache_directory() / f"shim-{digest[:32]}.so"
    if not kept.is_file():
        _compile(kept)
    return kept


def _compile(target: Path) -> None:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise ReplayError(
            "recording malloc needs a C compiler once, and none was there when replay was installed, nor is one now\n"
            "Install one (apt install gcc libc6-dev, dnf install gcc, apk add gcc musl-dev), or use --tool strace."
        )
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        done = subprocess.run([compiler, *FLAGS, "-o", made, SOURCE], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ReplayError(f"{compiler} cannot compile {SOURCE}:\n{done.stderr.strip()[-500:]}")
        made.replace(target)


def environment(directory: Path, *, own_calls: bool, stacks: int = 0) -> dict[str, str]:
    """Return the variables that have a program record itself into `directory`, which is there.

    Args:
        directory: where the files of each process go, see shim.c.
        own_calls: whether its own memory calls, forks, threads and ends are written, too.
        stacks: how many return addresses are written behind each allocation.
    """
    before = os.environ.get("LD_PRELOAD")
    made = {"LD_PRELOAD": f"{shim_path()}:{before}" if before else str(shim_path()), DIRECTORY: str(directory)}
    return made | ({OWN_CALLS: "1"} if own_calls else {}) | ({STACKS: str(stacks)} if stacks else {})


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
