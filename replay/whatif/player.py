"""The player as a program, and one run of it: a stream served under a policy, recorded.

In go a stream and how it is to be served, out comes the recording of the run and what the player answered. What the
recording says is not known here.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from replay.engine.cache import cache_directory
from replay.errors import ReplayError
from replay.logs.recordings import LOG, PARTS
from replay.record import shim
from replay.record.merge import merge, parts_in
from replay.record.sidecar import Run, write_sidecar

SOURCE: Final = Path(__file__).with_name("player.c")
PACKAGED: Final = Path(__file__).with_name("_player")
"""What the build of the package made of the source, where there was a compiler."""

_FLAGS: Final = ("-O2", "-pthread", "-ldl")
_MUSL_FLAGS: Final = ("-O2", "-static")
STRACED: Final = "trace=%memory"

PACKAGES: Final = {
    "jemalloc": ("jemalloc", "libjemalloc2"),
    "mimalloc": ("mimalloc", "libmimalloc2.0"),
    "tcmalloc": ("tcmalloc_minimal", "libtcmalloc-minimal4"),
}
"""Allocators that are preloaded: the name of the library and the Debian package that has it."""

MUSL: Final = "musl"


class Policy(NamedTuple):
    """How a stream is served.

    settings: glibc's tunables by their full names. allocator: a name of `PACKAGES`, `musl`, the path of a library, or
    empty for the libc of this machine. blocked: whether what stood above the recorded break is mapped again.
    """

    name: str
    settings: tuple[tuple[str, str], ...] = ()
    allocator: str = ""
    blocked: bool = True
    limit_as: int = 0
    limit_data: int = 0


class PolicyError(ReplayError):
    """A policy cannot be tried here; says what is missing."""


@dataclass(frozen=True, slots=True)
class Played:
    """One run of the player: its recording, the addresses that it answered, and its figures."""

    log: Path
    addresses: np.ndarray
    served: int
    refused: int
    nanoseconds: int
    resident_bytes: int
    resident_at_peak_bytes: int


def play(policy: Policy, stream: Path, directory: Path, *, touch: bool) -> Played:
    """Return what became of a stream under a policy; the recording is made in `directory`.

    Raises:
        PolicyError: the allocator or a compiler is missing here.
        ReplayError: the player ended before the stream did.
    """
    directory.mkdir(parents=True)
    answers, figures = directory / "addresses", directory / "figures"
    words = [str(player(policy.allocator)), str(stream), str(answers), str(figures)]
    words += ["touch"] * touch
    words += [f"as={policy.limit_as}"] * bool(policy.limit_as) + [f"data={policy.limit_data}"] * bool(policy.limit_data)
    run = _under_strace if policy.allocator == MUSL else _under_shim
    log, status = run(words, directory, _variables(policy))
    addresses = np.fromfile(answers, "<u8") if answers.exists() else np.zeros(0, "<u8")
    if status:
        served = int(np.flatnonzero(addresses).max(initial=-1)) + 1
        raise ReplayError(f"{policy.name}: the player {_how(status)} after some {served:,} requests")
    numbers = [int(word) for word in figures.read_text().split()]
    for path in (answers, figures):
        path.unlink()
    return Played(log, addresses, *numbers)


def _how(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _variables(policy: Policy) -> dict[str, str]:
    """Return the environment of a policy: tunables and a preloaded allocator. Source: glibc manual, Tunables."""
    made = {}
    if policy.settings:
        made["GLIBC_TUNABLES"] = ":".join(f"{name}={value}" for name, value in policy.settings)
    library = library_of(policy.allocator)
    return made | ({"LD_PRELOAD": library} if library else {})


def library_of(allocator: str) -> str:
    """Return the library to preload for an allocator, empty for libc's own and for musl's.

    Raises:
        PolicyError: it is not installed.
    """
    if not allocator or allocator == MUSL:
        return ""
    if allocator in PACKAGES:
        name, package = PACKAGES[allocator]
        found = ctypes.util.find_library(name)
        if found is None:
            raise PolicyError(f"{allocator}: not installed (Debian has it in {package})")
        return found
    path = Path(allocator)
    if not path.is_file():
        names = ", ".join([*PACKAGES, MUSL])
        raise PolicyError(f"{allocator}: expected one of {names}, or the path of a library")
    return str(path.absolute())


def _under_shim(words: list[str], directory: Path, variables: dict[str, str]) -> tuple[Path, int]:
    """Run the player under the recorder's library and return its log and exit status."""
    parts, log, started = directory / PARTS, directory / LOG, time.time()
    status = shim.run(words, parts, variables)
    with log.open("wb") as out:
        written = parts_in(parts)
        merge(None, written, out)
    write_sidecar(directory, Run(words, "shim", "requests served again", "", started, status), written, written)
    shutil.rmtree(parts)
    return log, status


def _under_strace(words: list[str], directory: Path, variables: dict[str, str]) -> tuple[Path, int]:
    """Run a player that nothing can be preloaded into under strace and return its log and exit status."""
    if shutil.which("strace") is None:
        raise PolicyError("strace, which records a static program, is not installed")
    log = directory / "trace.log"
    traced = ["strace", "-f", "-o", str(log), "-e", STRACED, *words]
    return log, subprocess.run(traced, env=os.environ | variables, check=False).returncode


# --- the program -----------------------------------------------------------------------------------------------------


def player(allocator: str = "") -> Path:
    """Return the player: that of the package, else compiled once on this machine; a static one for musl.

    Raises:
        PolicyError: there is no compiler.
    """
    if allocator != MUSL and PACKAGED.is_file():
        return PACKAGED
    names, flags = (("musl-gcc",), _MUSL_FLAGS) if allocator == MUSL else (("cc", "gcc", "clang"), _FLAGS)
    compiler = next((found for name in names if (found := shutil.which(name))), None)
    if compiler is None:
        missing = "musl-gcc (Debian has it in musl-tools)" if allocator == MUSL else "a C compiler (gcc, libc6-dev)"
        raise PolicyError(f"{allocator or 'the player'}: needs {missing} once")
    digest = hashlib.sha256(SOURCE.read_bytes() + f"{compiler} {flags} {os.uname().machine}".encode()).hexdigest()
    kept = cache_directory() / f"player-{digest[:32]}"
    if not kept.is_file():
        _compile([compiler, *flags], kept)
    return kept


def _compile(command: list[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        words = [command[0], "-o", str(made), str(SOURCE), *command[1:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PolicyError(f"{command[0]} cannot compile {SOURCE}:\n{done.stderr.strip()[-500:]}")
        made.replace(target)
