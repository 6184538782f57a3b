"""Whole processes measured: the time from start to end, that of the processor, the most memory held, what machine."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent


class CommandFailedError(Exception):
    """A command that was to be measured did not end well."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a command: seconds of wall clock and of the processor, the peak of its resident memory in bytes."""

    seconds: float
    cpu: float
    peak_bytes: int


def measured(command: list[str], home: Path | None = None) -> Measured:
    """Run `command`, its output thrown away, and return what it took; in another `home`, as who never ran it before."""
    with tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=_environment(home))
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-500:]
            raise CommandFailedError(f"{Path(command[0]).name} ended with {child.returncode}: {said}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def median_of_pairs(command: list[str], reference: list[str], pairs: int) -> tuple[float, float, float]:
    """Run the two in turn, and return the median of the ratios, of the seconds and of the reference's seconds."""
    taken = []
    for _ in range(pairs):
        base = measured(reference).seconds
        taken.append((measured(command).seconds, base))
    ratio = statistics.median(seconds / base for seconds, base in taken)
    return ratio, statistics.median(seconds for seconds, _ in taken), statistics.median(base for _, base in taken)


def printed(command: list[str]) -> str:
    """Run `command` and return what it printed."""
    return subprocess.run(command, env=_environment(None), capture_output=True, text=True, check=True).stdout


def _environment(home: Path | None) -> dict[str, str]:
    """Return the environment of the children: this checkout first, its byte code kept as an installation keeps it."""
    left_out = {"PYTHONDONTWRITEBYTECODE", *(["XDG_CACHE_HOME"] if home else [])}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **({"HOME": str(home)} if home else {})}


def machine() -> dict[str, str | int]:
    """Return what the numbers depend on, and nothing that tells whose machine it is."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
        if line.startswith(("model name", "Model"))
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": ".".join(map(str, sys.version_info[:2])),
    }


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for the logs that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="replay-benchmark-") as folder:
        yield Path(folder)
