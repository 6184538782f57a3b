"""The libraries of C that are preloaded: found in the package, else compiled once on this machine.

In goes a file of C, out comes the path of a shared object. What a library does is told at the head of its file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from replay.engine.cache import cache_directory
from replay.errors import ReplayError

SHIM: Final = Path(__file__).with_name("shim.c")
"""Preloaded into a recorded program."""

TRACEES: Final = Path(__file__).with_name("tracees.c")
"""Preloaded into its tracer."""

FLAGS: Final = "-O2 -fPIC -shared -fvisibility=hidden -fno-builtin -ftls-model=initial-exec".split()


def library(source: Path) -> Path:
    """Return the path of what a file is compiled to: by the build of the package, where there was a compiler, or now.

    Raises:
        ReplayError: it is not in the package, and no compiler is here or it fails.
    """
    packaged = source.with_name(f"_{source.stem}.so")
    if packaged.is_file():
        return packaged
    digest = hashlib.sha256(source.read_bytes() + " ".join(FLAGS).encode() + os.uname().machine.encode()).hexdigest()
    kept = cache_directory() / f"{source.stem}-{digest[:32]}.so"
    if not kept.is_file():
        _compile(source, kept)
    return kept


def _compile(source: Path, target: Path) -> None:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise ReplayError(
            "recording malloc needs a C compiler once, and none was there when replay was installed, nor is one now\n"
            "Install one (apt install gcc libc6-dev, dnf install gcc, apk add gcc musl-dev), or use --tool strace."
        )
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        done = subprocess.run([compiler, *FLAGS, "-o", made, source], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ReplayError(f"{compiler} cannot compile {source}:\n{done.stderr.strip()[-500:]}")
        made.replace(target)
