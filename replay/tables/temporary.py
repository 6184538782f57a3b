"""Temporary paths beside an output, and those that processes left which were killed: the next one clears them away.

In goes a directory, out comes a path in it that is not there. What is written to it is not known here.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_NAME: Final = r"\.replay-([0-9a-f]{8})-([0-9]+)-[0-9a-f]{8}\.tmp"
"""Where the process runs, its number, and what tells apart its own."""


def temporary_in(directory: Path) -> Path:
    """Return a path that is not there, of a name that any file system can hold; what dead processes left is removed."""
    with suppress(OSError):
        for name in os.listdir(directory):
            left = re.fullmatch(_NAME, name)
            if left and left[1] == _place() and is_gone(int(left[2])):
                _remove(directory / name)
    return directory / f".replay-{_place()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def is_gone(pid: int) -> bool:
    """Tell whether there is no process of that number here."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


@cache
def _place() -> str:
    """Return a digest of what the numbers of processes hold for: this host, and its PID namespace."""
    import hashlib
    import socket

    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
