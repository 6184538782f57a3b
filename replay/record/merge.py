"""The logs that a run left made one, in the order of time.

In go the log of strace and those of the preloaded library, one for each image that ran, out come one log, and the line
at which each image began. All have the time in each line; the order of lines within a log is kept.

A system call that an allocator made stands in both: strace tells by the signal before it (SIGSYS, of Syscall User
Dispatch) that the library made it, and the library's line stays, for it stands inside the malloc that asked.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from replay.linux.constants import SECOND
from replay.linux.proc_maps import Mapping, parse_maps
from replay.record.stacks import Frames

_END_OF_TIME: Final = 1 << 63

_PREFIX: Final = re.compile(rb"(\d+) +(\d+)\.(\d+) ")
_COPIED: Final = re.compile(rb"--- SIGSYS \{.*si_code=(?:SYS_USER_DISPATCH|0x2|2)\b.*si_syscall=(?:__NR_)?(\w+)")
_CALLED: Final = re.compile(rb"(?:<\.\.\. )?(\w+)")
_EXECUTED: Final = re.compile(rb"^(\d+) +[\d.]+ (?:<\.\.\. )?execve(?:at)?\b.*= \d+(?: <[0-9.]+>)?$", re.MULTILINE)
_EXECUTES: Final = re.compile(rb"^(\d+) +[\d.]+ (execve(?:at)?\(.*) <unfinished \.\.\.>$", re.MULTILINE)
_BEGINS: Final = b" SYS_execve("

WRITTEN: Final = frozenset(b"brk mmap munmap mremap mprotect madvise prctl".split())
"""The system calls of an allocator that the library writes, see SHOWN in shim.c."""


@dataclass(slots=True)
class Part:
    """The log of one process while it ran one image: its path, the process, and which image of it, from 0 on.

    `line` is that of its execve in the merged log; 0 for a forked child, which goes on with the image of its parent.
    What a tracer kept of an image has no log, and `path` is that of the maps.
    """

    path: Path
    pid: int
    number: int
    line: int = 0


@dataclass(slots=True)
class _Lines:
    """A log of which `[at, end)` is left to be merged."""

    data: bytes
    part: Part | None = None
    at: int = 0
    end: int = field(init=False)

    def __post_init__(self) -> None:
        """Leave out what the file has behind its last whole line: the rest of the window, or of a line."""
        self.end = self.data.rfind(b"\n") + 1

    def time(self) -> int:
        """Return the time of the next line."""
        return self._time(self._timed(self.at))

    def up_to(self, time: int) -> bytes:
        """Return the lines before a time, at least one; they are left no longer."""
        low, step = self.at + 1, 1 << 12
        while low + step < self.end and self._time(self._timed(low + step)) < time:
            low, step = low + step, 2 * step
        places = range(low, min(low + step, self.end))
        place = low + bisect_left(places, time, key=lambda place: self._time(self._timed(place)))
        before, self.at = self.at, self._timed(place)
        return self.data[before : self.at]

    def _timed(self, place: int) -> int:
        """Return where the first line begins, at a place or behind it, that has a time: frames and notes have none."""
        if place and self.data[place - 1] != ord("\n"):
            place = self.data.find(b"\n", place) + 1 or self.end
        while place < self.end and not _PREFIX.match(self.data, place):
            place = self.data.find(b"\n", place) + 1 or self.end
        return min(place, self.end)

    def _time(self, place: int) -> int:
        found = _PREFIX.match(self.data, place) if place < self.end else None
        return _nanoseconds(found[2], found[3]) if found else _END_OF_TIME


def parts_in(directory: Path, ending: str = "log") -> list[Part]:
    """Return the logs that the library wrote into a directory, or the `maps` that a tracer kept there."""
    found = [(path, path.name.split(".")) for path in directory.glob(f"*.*.{ending}")]
    return sorted(
        (Part(path, int(words[0]), int(words[1])) for path, words in found), key=lambda part: (part.pid, part.number)
    )


class Merged(NamedTuple):
    """What strace saw begin: programs of which there is no part, by path, and the lines of execves of each process."""

    unseen: list[str]
    executed: dict[int, list[int]]


def merge(strace: Path | None, parts: list[Part], out: BinaryIO) -> Merged:
    """Write the lines of all logs in the order of time, and set the line of each part's execve."""
    traced = strace is not None and strace.is_file()
    lines = [*without_copies(strace.read_bytes().splitlines(keepends=True))] if strace is not None and traced else []
    served = _served(lines)
    sources = [_Lines(_opened(part.path.read_bytes(), served), part) for part in parts]
    if traced:
        sources.append(_Lines(b"".join(lines)))
    heap = [(source.time(), place) for place, source in enumerate(sources) if source.end]
    heapify(heap)
    count, executed, begun = 0, defaultdict[int, list[int]](list), dict[int, str]()
    asked = dict[int, bytes]()
    frames = {id(source): Frames(_mappings_of(source.part)) for source in sources if source.part}
    while heap:
        _, place = heappop(heap)
        source, new = sources[place], sources[place].at == 0
        text = source.up_to(heap[0][0] if heap else _END_OF_TIME)
        if source.at < source.end:
            heappush(heap, (source.time(), place))
        if source.part is None:
            asked |= {int(found[1]): found[2] for found in _EXECUTES.finditer(text)}
            for found in _EXECUTED.finditer(text):
                line = count + 1 + text.count(b"\n", 0, found.start())
                executed[int(found[1])].append(line)
                begun[line] = _program(found[0]) or _program(asked.get(int(found[1]), b""))
        elif new and _BEGINS in text[: text.index(b"\n")]:
            source.part.line = (executed[source.part.pid] or [0])[-1] if traced else count + 1
            begun.pop(source.part.line, None)
            text = text[text.index(b"\n") + 1 :] if traced else text
        if source.part is not None:
            text = frames[id(source)].resolved(text)
        count += text.count(b"\n")
        out.write(text)
    return Merged(list(begun.values()), executed)


_DISPATCHED: Final = (b" SYS_brk(", b" SYS_mmap(")
_TIMED: Final = re.compile(rb"^(\d+) (\d+)\.(\d+) (\w+)(\(.*)\) = (\S+) <(\d+)\.(\d{9})>$", re.MULTILINE)
"""A call of the malloc family that took its time: where dispatch does not show what the kernel did for it."""


def _served(lines: list[bytes]) -> dict[int, list[int]]:
    """Return the times of the memory calls that strace shows, by thread."""
    times: dict[int, list[int]] = {}
    for line in lines:
        found = _PREFIX.match(line)
        if found and (called := _CALLED.match(line, found.end())) and called[1] in WRITTEN:
            times.setdefault(int(found[1]), []).append(_nanoseconds(found[2], found[3]))
    return times


def _opened(lines: bytes, served: dict[int, list[int]]) -> bytes:
    """Return the lines of a part, each call that took its time in two lines, if strace shows memory calls meanwhile."""
    if any(call in lines for call in _DISPATCHED):
        return lines

    def halves(found: re.Match[bytes]) -> bytes:
        pid, seconds, fraction, name, arguments, result, whole, rest = found.groups()
        begun = _nanoseconds(seconds, fraction)
        times, ended = served.get(int(pid), []), begun + _nanoseconds(whole, rest)
        place = bisect_left(times, begun)
        if place == len(times) or times[place] > ended:
            return found[0][: found[0].rindex(b" <")]
        opened = b"%s %s.%s %s%s <unfinished ...>" % (pid, seconds, fraction, name, arguments)
        return b"%s\n%s %d.%09d <... %s resumed> ) = %s" % (opened, pid, *divmod(ended, SECOND), name, result)

    return _TIMED.sub(halves, lines)


def _nanoseconds(seconds: bytes, fraction: bytes) -> int:
    return int(seconds) * SECOND + int(fraction.ljust(9, b"0"))


def _program(line: bytes) -> str:
    """Return the path in the line of an execve; empty in its second half."""
    found = re.search(rb'execve(?:at)?\((?:[^"]*, )?"((?:[^"\\]|\\.)*)"', line)
    return found[1].decode(errors="replace") if found else ""


def _mappings_of(part: Part) -> list[Mapping]:
    """Return the mappings that a process had when it began and when it ended; a forked child has its parent's first."""
    texts = []
    for ending in (".maps", ".modules"):
        path = part.path.with_suffix(ending)
        texts.append(path.read_text("utf-8", "surrogateescape") if path.is_file() else "")
    return [mapping for text in texts for mapping in parse_maps(text)]


def without_copies(lines: list[bytes]) -> Iterator[bytes]:
    """Yield the lines of a log of strace without the system calls that the library made for an allocator."""
    made: dict[bytes, bytes] = {}
    left_open: dict[bytes, bytes] = {}
    for line in lines:
        pid, _, rest = line.partition(b" ")
        said = rest.lstrip().partition(b" ")[2]
        if said.startswith(b"--- SIGSYS"):
            if copied := _COPIED.match(said):
                made[pid] = copied[1]
                continue
        elif pid in left_open and said.startswith(b"<... " + left_open[pid] + b" resumed>"):
            del left_open[pid]
            continue
        elif pid in made and (called := _CALLED.match(said)):
            name = made.pop(pid)
            if name == called[1] and name in WRITTEN:
                if said.rstrip().endswith(b"<unfinished ...>"):
                    left_open[pid] = name
                continue
        yield line
