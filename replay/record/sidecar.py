"""What stands beside the log of a recording: what no line says of the programs that ran, the kernel and the limits.

In go the files that the preloaded libraries left, out comes `record.json`. Who reads it asks `replay.logs.recordings`.
"""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from replay.linux.elf import PT_TLS, read_elf
from replay.linux.proc_maps import parse_maps
from replay.logs.recordings import PARTS, SIDECAR, VERSION
from replay.record.libraries import SHIM, library
from replay.record.merge import Part
from replay.version import __version__

AUXV: Final = {
    3: "AT_PHDR", 4: "AT_PHENT", 5: "AT_PHNUM", 6: "AT_PAGESZ", 7: "AT_BASE", 8: "AT_FLAGS", 9: "AT_ENTRY",
    11: "AT_UID", 12: "AT_EUID", 13: "AT_GID", 14: "AT_EGID", 15: "AT_PLATFORM", 16: "AT_HWCAP", 17: "AT_CLKTCK",
    23: "AT_SECURE", 25: "AT_RANDOM", 26: "AT_HWCAP2", 31: "AT_EXECFN", 33: "AT_SYSINFO_EHDR", 51: "AT_MINSIGSTKSZ",
}  # fmt: skip
"""Names of the entries of the auxiliary vector. Source: include/uapi/linux/auxvec.h."""

_AT_PHDR: Final = 3

_KERNEL_FILES: Final = {
    "randomize_va_space": "/proc/sys/kernel/randomize_va_space",
    "overcommit_memory": "/proc/sys/vm/overcommit_memory",
    "overcommit_ratio": "/proc/sys/vm/overcommit_ratio",
    "max_map_count": "/proc/sys/vm/max_map_count",
}

_TUNING: Final = ("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD", "LD_LIBRARY_PATH")
"""Variables of the environment, or how their names begin, that change what malloc does."""


@dataclass(frozen=True, slots=True)
class Run:
    """How a recording was made: the command, which tools saw it and why, and how it ended, once it has.

    `confined` tells that set-id programs gained no rights: traced by who is not root, or below a filter of seccomp.
    """

    command: Sequence[str]
    tool: str
    reason: str
    strace: str
    started: float
    status: int | None = None
    stacks: int = 0
    confined: bool = False


def write_sidecar(
    directory: Path, run: Run, parts: Sequence[Part], images: Sequence[Part], notes: Sequence[str] = ()
) -> None:
    """Write `record.json` of a recording.

    `images` are what was kept of the programs that began, `notes` say what was not recorded.
    """
    found = {
        "version": VERSION,
        "replay": __version__,
        "command": list(run.command),
        "directory": os.getcwd(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.started)),
        "seconds": round(time.time() - run.started, 3),
        "status": run.status,
        "tool": run.tool,
        "reason": run.reason,
        "strace": run.strace,
        "system": _system(),
        "environment": {name: text for name, text in sorted(os.environ.items()) if name.startswith(_TUNING)},
        "recorder": _recorder(directory) if parts else {},
        "files": _files([*parts, *images]),
        "images": [_image(image) for image in images if image.line],
        "ends": [*_ends(directory / PARTS)],
        "notes": list(notes),
    }
    (directory / SIDECAR).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _recorder(directory: Path) -> dict[str, Any]:
    """Return what the library maps into a program: its own file, so many bytes in all, and the logs in a directory."""
    path, parts = os.path.realpath(library(SHIM)), os.path.realpath(directory / PARTS)
    file = read_elf(path)
    length = file.span(os.sysconf("SC_PAGE_SIZE"))[1] if file else 0
    return {"library": path, "library_bytes": length, "parts": parts}


def _system() -> dict[str, Any]:
    """Return what the kernel is and what it allows."""
    kernel = os.uname()
    numbers = {name: int(text) for name, file in _KERNEL_FILES.items() if (text := _text(Path(file)).strip()).isdigit()}
    return {
        "kernel": f"{kernel.sysname} {kernel.release} {kernel.version}",
        "machine": kernel.machine,
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "libc": _libc(),
        "cgroup_memory_max": _cgroup_limit(),
        **numbers,
    }


def _libc() -> str:
    """Return the name and version of this machine's libc, as far as it says them."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""


def _cgroup_limit() -> int | None:
    """Return the lowest memory limit of the control groups that this process is in, in bytes; None without one.

    Source: Documentation/admin-guide/cgroup-v2.rst: memory.max counts for all groups below.
    """
    limits = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        root, name = ("/sys/fs/cgroup", "memory.max") if not controllers else ("", "")
        if "memory" in controllers.split(","):
            root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        group = Path(f"{root}/{path.lstrip('/')}")
        for above in (group, *group.parents) if root else ():
            text = _text(above / name).strip()
            if text.isdigit() and int(text) < 1 << 62:
                limits.append(int(text))
    return min(limits, default=None)


def _image(image: Part) -> dict[str, Any]:
    """Return what is known of an image: the line of its execve, and what was mapped there.

    That is /proc/PID/maps as a tracer had it at the end of execve, or else as the library had it when it began, before
    the first malloc: no line shows then what ld.so did in between.
    """
    return {
        "pid": image.pid,
        "line": image.line,
        "mapped": _text(image.path.with_suffix(".maps")).splitlines(),
        "auxv": {AUXV.get(key, str(key)): value for key, value in _auxv(image.path.with_suffix(".auxv")).items()},
        "limits": _limits(_text(image.path.with_suffix(".limits"))),
    }


def program_of_image(image: Part) -> str:
    """Return the path of the program of an image, in which its program headers lie; empty where that is not known."""
    headers = _auxv(image.path.with_suffix(".auxv")).get(_AT_PHDR, 0)
    mappings = parse_maps(_text(image.path.with_suffix(".maps")))
    return next((mapping.path for mapping in mappings if mapping.start <= headers < mapping.end), "")


def _ends(parts: Path) -> Iterator[dict[str, int]]:
    """Yield how much of each process was resident at most, as it was about to end; VmHWM of proc_pid_status(5)."""
    for path in sorted(parts.rglob("*.*.status")):
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", _text(path), re.MULTILINE):
            yield {"pid": int(path.name.partition(".")[0]), "peak_resident_bytes": int(found[1]) << 10}


def _files(parts: Sequence[Part]) -> dict[str, Any]:
    """Return what is known of each file of which code was mapped, by its path."""
    mappings = [mapping for part in parts for mapping in parse_maps(_text(part.path.with_suffix(".maps")))]
    found = {}
    for path in sorted({mapping.path for mapping in mappings if mapping.path.startswith("/") and "x" in mapping.perms}):
        file = read_elf(path)
        if file is not None:
            tls = file.of_type(PT_TLS)
            found[path] = {
                "build_id": file.build_id,
                "type": file.type,
                "bits": file.bits,
                "interpreter": file.interpreter,
                "loads": [list(load[1:]) for load in file.loads],
                "relro": file.relro(os.sysconf("SC_PAGE_SIZE")),
                "tls_bytes": tls.memsz if tls else 0,
            }
    return found


def _auxv(path: Path) -> dict[int, int]:
    """Return the entries of an auxiliary vector by their types."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    return {key: value for key, value in struct.iter_unpack("=QQ", data[: len(data) & ~15]) if key}


def _limits(text: str) -> dict[str, list[str]]:
    """Return the soft and the hard limit by name."""
    rows = [line for line in text.splitlines()[1:] if len(line) > 26]
    return {row[:26].strip(): row[26:].split()[:2] for row in rows}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
