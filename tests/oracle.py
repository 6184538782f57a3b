"""What the tests compare with: captures and their truth, `/proc/PID/maps` files read, joined and told apart.

Nothing in here uses the package: an oracle must not share the mistakes of what it judges.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import lzma
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

CHECKOUT = Path(__file__).resolve().parent.parent
SAMPLES = CHECKOUT / "sample_traces"
PAGE = 4096
GLIBC = tuple(int(number) for number in (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 0.0").split()[1].split("."))
"""The version of this machine's libc, on which some of what programs are seen to do hangs."""

PathsAs = Literal["exact", "basename", "unknown"]
"""How far the log tells paths: `-y` whole, `openat` lines as the program wrote them, not at all."""

# ---------------------------------------------------------------------------------------------------------- captures


def _shared() -> Path:
    return Path(os.environ.get("REPLAY_CAPTURES", CHECKOUT.parent / "shared" / "captures"))


@functools.cache
def _unpacked() -> Path:
    """Unpack the archives once for all test processes; the folder is named after what is in them."""
    archives = sorted((CHECKOUT / "tests" / "captures").glob("*.tar.xz"))
    digest = hashlib.sha256(b"".join(archive.read_bytes() for archive in archives)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"replay-captures-{digest}-{os.getuid()}"
    if not folder.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix="replay-captures-"))
        for archive in archives:
            with tarfile.open(archive) as tar:
                tar.extractall(fresh, filter="data")
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            assert folder.is_dir()
    return folder


@functools.cache
def scenarios() -> dict[str, Path]:
    """Return each scenario's folder by its name: the shared ones and, where they lack, those kept with the tests."""
    found = {folder.name: folder for folder in sorted(_unpacked().iterdir()) if folder.is_dir()}
    if _shared().is_dir():
        found.update({folder.name: folder for folder in sorted(_shared().iterdir()) if folder.is_dir()})
    return found


@dataclass(frozen=True, slots=True)
class Capture:
    """One run: its name `scenario/capture`, its folder and its logs (several for `strace -ff`)."""

    name: str
    folder: Path
    logs: tuple[Path, ...]

    @property
    def dialect(self) -> str:
        return "ltrace" if self.logs[0].name.startswith("ltrace") else "strace"

    @property
    def initial_maps(self) -> Path | None:
        path = self.folder / "initial_maps.txt"
        return path if path.exists() else None


def _logs_in(folder: Path) -> tuple[Path, ...]:
    for pattern in ("strace.log", "ltrace.log", "strace.log.gz", "ltrace.log.gz", "strace.log.[0-9]*"):
        logs = tuple(sorted(folder.glob(pattern)))
        if logs:
            return logs
    noise = folder / "stderr.txt"
    if noise.exists() and noise.stat().st_size:
        return (noise,)
    return ()


@functools.cache
def captures() -> dict[str, Capture]:
    """Return every capture by its name: the sample traces too, `heavy` where it is there."""
    found = {}
    for scenario, top in [("sample_traces", SAMPLES), *scenarios().items()]:
        for folder in sorted(top.iterdir()):
            if scenario != "lines" and folder.is_dir() and (logs := _logs_in(folder)):
                found[f"{scenario}/{folder.name}"] = Capture(f"{scenario}/{folder.name}", folder, logs)
    return found


def paths_told(log: Path) -> PathsAs:
    """Return how far a log tells the paths of mapped files."""
    if log.name.startswith("ltrace"):
        return "unknown"
    return "exact" if re.search(r"\) = \d+</", read_text(log)) else "basename"


def read_text(path: Path) -> str:
    """Return the text of a log, decompressed by its suffix."""
    opened = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}.get(path.suffix)
    data = opened(path).read() if opened else path.read_bytes()
    return data.decode(errors="surrogateescape")


# -------------------------------------------------------------------------------------------------------- snapshots


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A maps file, and the line of a log (1-based) at which the kernel's memory of `pid` was like that."""

    label: str
    maps: Path
    log: Path
    line: int
    pid: int | None


_PID = re.compile(r"(?:\[pid\s+(?P<a>\d+)(?:<.*?>)?\]\s|(?P<b>\d+)(?:<.*?>)?\s)")
_OPENS_MAPS = re.compile(r'open(?:at)?\(.*"/proc/self/maps"')
_SAVES_MAPS = re.compile(r'open(?:at)?\(.*?"(?:\./)?(?P<path>[^"]*?maps_(?P<label>[^"/]+)\.txt)"')
_MARK = re.compile(r'write\(1.*"MARK (?P<label>\S+)\\n"')
_CAT_READS = re.compile(r'\bread\(\d+</proc/(?P<pid>\d+)/maps>, "[^"]')


def _pid_of(line: str, default: int | None) -> int | None:
    match = _PID.match(line)
    return int(match["a"] or match["b"]) if match else default


def snapshots(folder: Path, log: Path, maps_of_cat: Path | None = None) -> Iterator[Snapshot]:
    """Find where a log reads its own maps, and the file where they went.

    A program opens `/proc/self/maps` and then the file to save it in; an ltrace log shows neither name, there the
    opening call is the first after `MARK label`. `maps_of_cat` is for a log of `cat /proc/PID/maps`, which shows the
    state at its first read.
    """
    suffix = log.suffix[1:]
    default = int(suffix) if suffix.isdigit() else None
    opened: dict[int | None, int] = {}
    pending: dict[int | None, str] = {}
    for number, line in enumerate(read_text(log).splitlines(), start=1):
        pid = _pid_of(line, default)
        if maps_of_cat is not None:
            if match := _CAT_READS.search(line):
                yield Snapshot("self", maps_of_cat, log, number, int(match["pid"]))
                return
            continue
        if _OPENS_MAPS.search(line) or (pid in opened and opened[pid] < 0 and "resumed>" in line):
            opened[pid] = -1 if "<unfinished" in line else number
        elif (match := _SAVES_MAPS.search(line)) and pid in opened:
            label = match["path"].removesuffix(".txt").replace("maps_", "")
            yield Snapshot(label, folder / match["path"], log, opened.pop(pid), pid)
        elif (match := _MARK.search(line)) and log.name.startswith("ltrace"):
            pending[pid] = match["label"]
        elif pid in pending and "SYS_openat(" in line and "<unfinished" not in line:
            label = pending.pop(pid)
            yield Snapshot(label, folder / f"maps_{label}.txt", log, number, pid)


# ------------------------------------------------------------------------------------------------- /proc/PID/maps


@dataclass(frozen=True, slots=True, order=True)
class Area:
    """A range [start, end) of one line of a maps file; `path` is empty for anonymous memory."""

    start: int
    end: int
    perms: str
    offset: int
    path: str

    def __str__(self) -> str:
        return f"{self.start:x}-{self.end:x} {self.perms} {self.offset:08x} {self.path}".rstrip()


def read_areas(text: str) -> list[Area]:
    """Read the text of a maps file; device and inode are left out, no log tells them."""
    areas = []
    for line in text.splitlines():
        span, perms, offset, _device, _inode, *path = line.split(None, 5)
        start, end = (int(part, 16) for part in span.split("-"))
        areas.append(Area(start, end, perms, int(offset, 16), path[0].rstrip() if path else ""))
    return sorted(areas)


def _follows(left: Area, right: Area) -> bool:
    if left.end != right.start or (left.perms, left.path) != (right.perms, right.path):
        return False
    backed = bool(left.path) and not left.path.startswith("[")
    return not backed or left.offset + (left.end - left.start) == right.offset


def join(areas: Iterable[Area]) -> list[Area]:
    """Join neighbours that a maps file shows apart for reasons that no log tells."""
    joined: list[Area] = []
    for area in sorted(areas):
        if joined and _follows(joined[-1], area):
            joined[-1] = replace(joined[-1], end=area.end)
        else:
            joined.append(area)
    return joined


def within(area: Area, start: int, end: int) -> Area | None:
    """Return the part of `area` inside [start, end), its offset moved along."""
    low, high = max(area.start, start), min(area.end, end)
    if low >= high:
        return None
    backed = bool(area.path) and not area.path.startswith("[")
    return replace(area, start=low, end=high, offset=area.offset + (low - area.start if backed else 0))


def without(areas: Iterable[Area], ranges: Iterable[tuple[int, int]]) -> list[Area]:
    """Cut the `ranges` [start, end) out of the areas."""
    left = list(areas)
    for start, end in ranges:
        left = [part for area in left for part in (within(area, 0, start), within(area, end, 1 << 64)) if part]
    return left


def exec_made(areas: list[Area]) -> list[tuple[int, int]]:
    """Return the ranges that execve made: the program with its bss, ld.so, [stack], [vdso], [vvar…], [vsyscall].

    Source: fs/binfmt_elf.c `load_elf_binary`, which maps both without any system call of the new program.
    """
    special = ("[stack]", "[vdso]", "[vvar", "[vsyscall]")
    named = [area.path for area in areas if area.path and not area.path.startswith("[")]
    programs = [area.path for area in areas if area.path in named and "x" in area.perms]
    program = programs[0] if programs else None  # the kernel loads it below all that it maps by itself
    loaded = {path for path in named if path == program or re.search(r"/(ld-linux|ld-musl|ld-\d|ld\.so)", path)}
    ranges = []
    for before, area in zip([None, *areas], areas, strict=False):
        bss = before is not None and not area.path and before.path in loaded and before.end == area.start
        if area.path in loaded or area.path.startswith(special) or (bss and before.path == program):
            ranges.append((area.start, area.end))
    return ranges


def _shown(areas: Iterable[Area], paths: PathsAs) -> list[Area]:
    """Forget of each path what the log cannot tell."""
    shown = []
    for area in areas:
        path, offset = area.path, area.offset
        if paths == "basename" and "/" in path:
            path = path.rsplit("/", 1)[1]
        elif paths == "unknown" and not path.startswith("["):
            path, offset = "", 0
        shown.append(replace(area, path=path, offset=offset))
    return shown


def differences(
    expected: Iterable[Area], replayed: Iterable[Area], *, paths: PathsAs = "exact", exec_too: bool = False
) -> list[str]:
    """Name each range that one side has and the other has not, or not like that; empty when they agree.

    What execve made is left out unless `exec_too`, but where the replay inferred some of it the permissions must be
    right, and where it says nothing is mapped nothing may be.
    """
    expected, replayed = list(expected), list(replayed)
    wrong: list[str] = []
    if not exec_too:
        ranges = exec_made(expected)
        for start, end in ranges:
            truth = [area for area in expected if within(area, start, end)]
            for area in (part for area in replayed if (part := within(area, start, end))):
                wrong += [
                    f"~ {area}: exec made {part}"
                    for t in truth
                    if (part := within(t, area.start, area.end)) and part.perms != area.perms
                ]
        expected, replayed = without(expected, ranges), without(replayed, ranges)
    lacking = set(join(_shown(expected, paths)))
    surplus = set(join(_shown(replayed, paths)))
    both = lacking & surplus
    wrong += [f"- {area}" for area in sorted(lacking - both)] + [f"+ {area}" for area in sorted(surplus - both)]
    return wrong


# ------------------------------------------------------------------------------------------------------------ flags

_BITS = {
    "PROT_NONE": 0, "PROT_READ": 1, "PROT_WRITE": 2, "PROT_EXEC": 4, "PROT_SEM": 8, "PROT_GROWSDOWN": 0x1000000,
    "PROT_GROWSUP": 0x2000000,
    "MAP_FILE": 0, "MAP_SHARED": 1, "MAP_PRIVATE": 2, "MAP_SHARED_VALIDATE": 3, "MAP_DROPPABLE": 8, "MAP_FIXED": 0x10,
    "MAP_ANONYMOUS": 0x20, "MAP_ANON": 0x20, "MAP_32BIT": 0x40, "MAP_ABOVE4G": 0x80, "MAP_GROWSDOWN": 0x100,
    "MAP_DENYWRITE": 0x800, "MAP_EXECUTABLE": 0x1000, "MAP_LOCKED": 0x2000, "MAP_NORESERVE": 0x4000,
    "MAP_POPULATE": 0x8000, "MAP_NONBLOCK": 0x10000, "MAP_STACK": 0x20000, "MAP_HUGETLB": 0x40000,
    "MAP_SYNC": 0x80000, "MAP_FIXED_NOREPLACE": 0x100000, "MAP_UNINITIALIZED": 0x4000000,
    "MAP_HUGE_2MB": 21 << 26, "MAP_HUGE_1GB": 30 << 26,
    "MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2, "MREMAP_DONTUNMAP": 4,
    "SHM_RDONLY": 0o10000, "SHM_RND": 0o20000, "SHM_REMAP": 0o40000, "SHM_EXEC": 0o100000,
    "MADV_NORMAL": 0, "MADV_RANDOM": 1, "MADV_SEQUENTIAL": 2, "MADV_WILLNEED": 3, "MADV_DONTNEED": 4, "MADV_FREE": 8,
    "MADV_REMOVE": 9, "MADV_DONTFORK": 10, "MADV_DOFORK": 11, "MADV_MERGEABLE": 12, "MADV_UNMERGEABLE": 13,
    "MADV_HUGEPAGE": 14, "MADV_NOHUGEPAGE": 15, "MADV_DONTDUMP": 16, "MADV_DODUMP": 17, "MADV_WIPEONFORK": 18,
    "MADV_KEEPONFORK": 19, "MADV_COLD": 20, "MADV_PAGEOUT": 21, "MADV_POPULATE_READ": 22, "MADV_POPULATE_WRITE": 23,
    "MADV_DONTNEED_LOCKED": 24, "MADV_COLLAPSE": 25, "MADV_GUARD_INSTALL": 102, "MADV_GUARD_REMOVE": 103,
}  # fmt: skip
"""Source: include/uapi/asm-generic/mman-common.h, mman.h, linux/mman.h, linux/shm.h."""


def bits(symbolic: str) -> int:
    """Return the number of a symbolic value such as `MAP_PRIVATE|21<<MAP_HUGE_SHIFT|0x8000000`."""
    total = 0
    for term in symbolic.split("|"):
        if term.endswith("<<MAP_HUGE_SHIFT"):
            total |= int(term.split("<<")[0]) << 26
        else:
            total |= _BITS[term] if term in _BITS else int(term, 0)
    return total
