"""Logs of a dozen programs over many versions and machines, as continuous integration keeps them.

A log has about 150 lines in strace's or ltrace's form, most of them memory calls. Of some programs breaks are refused.
The same number always gives the same log.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PAGE: Final = 4096
ANONYMOUS: Final = "PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
PROGRAMS: Final = tuple("cache coder index linker mailer packer parser player proxy search shell viewer".split())
COMMITS: Final = 10
HOSTS: Final = 4
FIRST_START: Final = 1_795_000_000
SECONDS_BETWEEN: Final = 600
REFUSED: Final = frozenset({"coder", "search"})
TRACED_MALLOC: Final = frozenset({"parser", "player", "viewer"})
LIBRARY: Final = "/usr/lib/x86_64-linux-gnu/libc.so.6"
LABELS: Final = "{commit}/{host}/{test}"


def write_fleet(folder: Path, runs: int) -> int:
    """Write so many logs to COMMIT/HOST/TEST.log below `folder`; return how many bytes they have, each gzipped."""
    packed = 0
    for number in range(runs):
        commit, program = number * COMMITS // runs, PROGRAMS[number % len(PROGRAMS)]
        place = folder / f"c{commit:02}" / f"host-{number % HOSTS}"
        place.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in _lines(number, commit, program))
        (place / f"{program}-{number:04}.log").write_text(text, encoding="ascii")
        packed += len(gzip.compress(text.encode("ascii")))
    return packed


def _lines(number: int, commit: int, program: str) -> Iterator[str]:
    choose = random.Random(number)
    growth = 1 + commit / COMMITS
    if program in TRACED_MALLOC:
        return _with_malloc(choose, program, growth)
    return _system_calls(choose, program, growth, FIRST_START + number * SECONDS_BETWEEN)


def _system_calls(choose: random.Random, program: str, growth: float, start: int) -> Iterator[str]:
    """Yield what `strace -f -ttt -y` prints: start, growth of the break, mappings that come and go, an end."""
    pid, micros = choose.randrange(1000, 60_000), start * 1_000_000 + choose.randrange(10**6)
    for call in _calls(choose, program, growth):
        micros += choose.randrange(20, 900)
        yield f"{pid:<5} {micros // 1_000_000}.{micros % 1_000_000:06d} {call}"


def _calls(choose: random.Random, program: str, growth: float) -> Iterator[str]:
    heap, top = choose.randrange(0x5555_5555, 0x5655_5555) * PAGE, choose.randrange(0x7F000_0000, 0x7FFF0_0000) * PAGE
    yield f'execve("/srv/bin/{program}", ["{program}"], 0x7ffcdf5050b8 /* 21 vars */) = 0'
    yield f"brk(NULL)       = {heap:#x}"
    yield f'openat(AT_FDCWD</srv>, "{LIBRARY}", O_RDONLY|O_CLOEXEC) = 3<{LIBRARY}>'
    library = top - 482 * PAGE
    denied = f"MAP_DENYWRITE, 3<{LIBRARY}>"
    yield f"mmap(NULL, 1974096, PROT_READ, MAP_PRIVATE|{denied}, 0) = {library:#x}"
    code = library + 38 * PAGE
    yield f"mmap({code:#x}, 1400832, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED|{denied}, 0x26000) = {code:#x}"
    yield f"close(3<{LIBRARY}>) = 0"
    yield f"mprotect({library + 463 * PAGE:#x}, 16384, PROT_READ) = 0"
    place, live, breaks = library, [], 0
    blocker = choose.randrange(10, 30) if program in REFUSED else 0
    if blocker:
        held = heap + blocker * 33 * PAGE
        yield f"mmap({held:#x}, 4096, PROT_NONE, MAP_PRIVATE|MAP_FIXED_NOREPLACE|MAP_ANONYMOUS, -1, 0) = {held:#x}"
    for turn in range(int(110 * growth * choose.uniform(0.6, 1.4))):
        if turn % 3 == 0:
            asked = heap + (breaks + 1) * 33 * PAGE
            if blocker and breaks + 1 >= blocker:
                yield f"brk({asked:#x}) = {heap + breaks * 33 * PAGE:#x}"
                place -= 256 * PAGE
                yield f"mmap(NULL, {256 * PAGE}, {ANONYMOUS}) = {place:#x}"
            else:
                breaks += 1
                yield f"brk({asked:#x}) = {asked:#x}"
        elif turn % 3 == 1:
            yield f'write(1</var/log/{program}.log>, "{choose.randrange(10**6)} done\\n", 12) = 12'
        elif live and choose.random() < 0.4:
            start, size = live.pop(choose.randrange(len(live)))
            yield f"munmap({start:#x}, {size}) = 0"
        else:
            size = choose.randrange(33, 600) * PAGE
            place -= size
            live.append((place, size))
            yield f"mmap(NULL, {size}, {ANONYMOUS}) = {place:#x}"
    yield "exit_group(0)   = ?"
    yield "+++ exited with 0 +++"


def _with_malloc(choose: random.Random, program: str, growth: float) -> Iterator[str]:
    """Yield what `ltrace -f` prints of malloc and free: some blocks are never freed."""
    pid, place = choose.randrange(1000, 60_000), choose.randrange(0x5555_5555, 0x5655_5555) * PAGE
    live: list[int] = []
    for _ in range(int(150 * growth * choose.uniform(0.6, 1.4))):
        if live and choose.random() < 0.45:
            yield f"{pid} {program}->free({live.pop(choose.randrange(len(live))):#x}) = <void>"
        else:
            size = choose.choice((24, 64, 120, 500, 4000, 20_000))
            live.append(place + 16)
            yield f"{pid} {program}->malloc({size})" + f" = {place + 16:#x}".rjust(34)
            place += (size + 23) // 16 * 16
    yield f"{pid} +++ exited (status 0) +++"
