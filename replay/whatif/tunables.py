"""glibc's tunables: those of this machine, those that a recorded program ran with, and what a person writes.

In go texts or a recording, out come names and values. What they make malloc do is not known here.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from replay.logs.recordings import is_recorded, read_sidecar
from replay.run.api import Run

_OF_VARIABLES: Final = {
    "MALLOC_ARENA_MAX": "glibc.malloc.arena_max",
    "MALLOC_ARENA_TEST": "glibc.malloc.arena_test",
    "MALLOC_TOP_PAD_": "glibc.malloc.top_pad",
    "MALLOC_MMAP_MAX_": "glibc.malloc.mmap_max",
    "MALLOC_MMAP_THRESHOLD_": "glibc.malloc.mmap_threshold",
    "MALLOC_TRIM_THRESHOLD_": "glibc.malloc.trim_threshold",
    "MALLOC_PERTURB_": "glibc.malloc.perturb",
}
"""Environment variables that set a tunable. Source: glibc manual, Tunables; glibc, elf/dl-tunables.list, env_alias."""


def recorded_settings(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the tunables that a recorded program was started with; the log alone does not tell."""
    if not is_recorded(run.source.files):
        return ()
    environment = read_sidecar(Path(run.source.files[0]).parent).get("environment", {})
    found = [(_OF_VARIABLES[name], value) for name, value in environment.items() if name in _OF_VARIABLES]
    for text in environment.get("GLIBC_TUNABLES", "").split(":"):
        name, equals, value = text.partition("=")
        if equals and name.startswith("glibc.malloc."):
            found.append((name, value))
    return tuple(found)


def parse_setting(text: str) -> tuple[str, str]:
    """Return name and value of a tunable given as `glibc.malloc.top_pad=16777216`; the prefix may be left out.

    Raises:
        ValueError: it is not of that form.
    """
    name, found, value = text.partition("=")
    if not found or not name or not value or ":" in text:
        raise ValueError(f"{text!r}: expected NAME=VALUE, such as glibc.malloc.top_pad=16777216")
    tunable = name if "." in name else f"glibc.malloc.{name}"
    known = tunables()
    if known and tunable not in known:
        names = ", ".join(sorted(each.removeprefix("glibc.malloc.") for each in known if ".malloc." in each))
        raise ValueError(f"{name!r} is no tunable of the libc of this machine; of malloc it has {names}")
    return tunable, value


@cache
def tunables() -> frozenset[str]:
    """Return the tunables of this machine's glibc, none where it does not tell. Source: ld.so(8), --list-tunables."""
    for loader in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"):
        try:
            done = subprocess.run([loader, "--list-tunables"], capture_output=True, text=True, check=False)
        except OSError:
            continue
        return frozenset(line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("glibc."))
    return frozenset()
