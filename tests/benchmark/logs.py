"""Logs to measure with: large ordinary ones, and for each thing that a log may hold many of, one that holds many of it.

A generator yields lines and keeps no more in memory than what is alive in the log. Addresses are consistent: nothing is
unmapped that is not mapped, new mappings never overlap. The same arguments always give the same lines.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

PAGE: Final = 4096
REGION: Final = 16 * PAGE
LOWEST: Final = 0x7F0000000000
BREAK: Final = 0x555500000000
FRAMES: Final = 20
SET_LINES: Final = 20
DESCRIPTOR: Final = 3

ANONYMOUS: Final = "PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
FIXED: Final = "PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0"
THREAD: Final = (
    "clone(child_stack=0x7efff0000000, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM)"
)
FORK: Final = (
    "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f3bc5fc0a10)"
)
EXTRA_FLAGS: Final = (
    "MAP_NORESERVE MAP_POPULATE MAP_LOCKED MAP_NONBLOCK MAP_STACK MAP_DENYWRITE MAP_EXECUTABLE MAP_32BIT"
).split()

GENERATOR: Final = Path(__file__).resolve().parent.parent / "captures" / "heavy.tar.xz"


def write(path: Path, lines: Iterable[str]) -> Path:
    """Write `lines`, which lack their newline, to `path` and return it."""
    with path.open("w", encoding="ascii", buffering=1 << 20) as log:
        log.writelines(f"{line}\n" for line in lines)
    return path


def heavy(path: Path, *options: str) -> Path:
    """Write a log of memory calls alone with the generator of the captures, `options` being its own."""
    script = path.with_name("gen.py")
    with tarfile.open(GENERATOR) as archive:
        member = archive.extractfile("heavy/gen.py")
        assert member is not None
        script.write_bytes(member.read())
    subprocess.run([sys.executable, script, *options, "--out", path], check=True)
    script.unlink()
    path.with_name(f"{path.name}.truth.json").unlink()
    return path


def _address(number: int) -> int:
    """Return where the region of that number lies: regions never touch."""
    return LOWEST + 2 * REGION * number


def _mapped(number: int) -> str:
    return f"mmap(NULL, {REGION}, {ANONYMOUS}) = {_address(number):#x}"


def _begin() -> Iterator[str]:
    yield 'execve("./prog", ["./prog"], 0x7ffc00000000 /* 2 vars */) = 0'
    yield f"brk(NULL) = {BREAK:#x}"


# ---- logs as programs write them ----


def ordinary(lines: int, pids: int = 4) -> Iterator[str]:
    """`strace -f -ttt -y` of a server: one line in eight is a memory call, some calls are split in two."""
    return islice(_ordinary(pids), lines)


def _ordinary(pids: int) -> Iterator[str]:
    choose = random.Random(4)
    micros = 1_795_000_000_000_000
    live: list[list[int]] = [[] for _ in range(pids)]
    free: list[list[int]] = [[] for _ in range(pids)]
    others = (
        'read(7<socket:[41234]>, "GET /index.html HTTP/1.1\\r\\nHost: "..., {size}) = {size}',
        'write(8</var/log/prog.log>, "127.0.0.1 - - 200 {size}\\n", {size}) = {size}',
        "futex(0x5581d9b6e2a8, FUTEX_WAKE_PRIVATE, 1) = {one}",
        'newfstatat(AT_FDCWD</srv>, "page{size}.html", {{st_mode=S_IFREG|0644, st_size={size}, ...}}, 0) = 0',
        "epoll_wait(5<anon_inode:[eventpoll]>, [{{events=EPOLLIN, data={{u32=7, u64=7}}}}], 64, {size}) = 1",
        'openat(AT_FDCWD</srv>, "page{size}.html", O_RDONLY|O_CLOEXEC) = 9</srv/page{size}.html>',
        "close(9</srv/page.html>) = 0",
        "clock_gettime(CLOCK_REALTIME, {{tv_sec=1795000000, tv_nsec={size}}}) = 0",
    )
    number = turn = 0
    while True:
        turn += 1
        who = choose.randrange(pids)
        micros += choose.randrange(1, 200)
        head = f"{4000 + who:<5} {micros // 1_000_000}.{micros % 1_000_000:06d}"
        if turn % 8 == 0:
            if live[who] and choose.random() < 0.5:
                place = live[who].pop(choose.randrange(len(live[who])))
                free[who].append(place)
                yield f"{head} munmap({_address(place):#x}, {REGION}) = 0"
            else:
                number += not free[who]
                place = free[who].pop() if free[who] else number
                live[who].append(place)
                yield f"{head} {_mapped(place)}"
        else:
            call = choose.choice(others).format(size=choose.randrange(1, 60_000), one=choose.randrange(2))
            if turn % 50 == 1:
                name = call[: call.index("(")]
                yield f"{head} {name}(7<socket:[41234]>,  <unfinished ...>"
                yield f"{head} <... {name} resumed> 0x7ffd1000, {choose.randrange(9999)}) = 0"
                continue
            yield f"{head} {call}"


def split_and_merged(live: int, calls: int) -> Iterator[str]:
    """Make `live` mappings, then have `calls` calls cut them and join them again, at places all over the space."""
    choose = random.Random(5)
    yield from _begin()
    regions = max(4, int(live * 0.9))
    open_at_once = max(1, live // 20)  # each is three mappings instead of one
    for number in range(regions):
        yield _mapped(number)
    cut: list[tuple[int, bool]] = []
    whole = list(range(regions))
    for turn in range(calls):
        if len(cut) < open_at_once or (len(cut) < 2 * open_at_once and turn % 2):
            place = choose.randrange(len(whole))
            whole[place], whole[-1] = whole[-1], whole[place]
            number, unmapped = whole.pop(), choose.random() < 0.5
            page = _address(number) + 8 * PAGE
            cut.append((number, unmapped))
            yield f"munmap({page:#x}, {PAGE}) = 0" if unmapped else f"mprotect({page:#x}, {PAGE}, PROT_READ) = 0"
        else:
            place = choose.randrange(len(cut))
            cut[place], cut[-1] = cut[-1], cut[place]
            number, unmapped = cut.pop()
            page = _address(number) + 8 * PAGE
            whole.append(number)
            if unmapped:
                yield f"mmap({page:#x}, {PAGE}, {FIXED}) = {page:#x}"
            else:
                yield f"mprotect({page:#x}, {PAGE}, PROT_READ|PROT_WRITE) = 0"


# ---- many of one thing ----


def mappings(lines: int) -> Iterator[str]:
    """Half of the calls map, all mappings live at once; the other half unmaps them in any order."""
    order = list(range(lines // 2))
    random.Random(6).shuffle(order)
    yield from _begin()
    for number in range(lines // 2):
        yield _mapped(number)
    for number in order:
        yield f"munmap({_address(number):#x}, {REGION}) = 0"


def blocks(lines: int) -> Iterator[str]:
    """Half of the calls are malloc, all blocks live at once; the other half frees them in any order."""
    order = list(range(lines // 2))
    random.Random(7).shuffle(order)
    for number in range(lines // 2):
        yield f"prog->malloc(100) = {BREAK + 0x2A0 + 112 * number:#x}"
    for number in order:
        yield f"prog->free({BREAK + 0x2A0 + 112 * number:#x}) = <void>"


def processes(lines: int) -> Iterator[str]:
    """A parent with 16 mappings forks; each child maps, unmaps what it inherited, and lives; every other one exits."""
    yield from (f"1000 {line}" for line in _begin())
    for number in range(16):
        yield f"1000 {_mapped(number)}"
    for number in range(lines // 4):
        child = 1001 + number
        yield f"1000 {FORK} = {child}"
        yield f"{child} {_mapped(16)}"
        yield f"{child} munmap({_address(number % 16):#x}, {REGION}) = 0"
        yield f"{child} +++ exited with 0 +++" if number % 2 else f"{child} {_mapped(17)}"


def threads(lines: int) -> Iterator[str]:
    """One process starts threads, each of which maps and goes on living."""
    yield from (f"1000 {line}" for line in _begin())
    for number in range(lines // 2):
        yield f"1000 {THREAD} = {1001 + number}"
        yield f"{1001 + number} {_mapped(number)}"


def shapes(lines: int) -> Iterator[str]:
    """No two lines have the same words in the same order."""
    choose = random.Random(8)
    seen: set[str] = set()
    yield from _begin()
    while len(seen) < lines:
        extra = "|".join(choose.sample(EXTRA_FLAGS, choose.randrange(4, len(EXTRA_FLAGS) + 1)))
        flags = (
            f"{choose.choice(('PROT_READ', 'PROT_NONE', 'PROT_READ|PROT_WRITE'))}, MAP_PRIVATE|MAP_ANONYMOUS|{extra}"
        )
        if flags not in seen:
            yield f"mmap(NULL, {REGION}, {flags}, -1, 0) = {_address(len(seen)):#x}"
            seen.add(flags)


def problems(lines: int) -> Iterator[str]:
    """Every other line cannot be read, and says so in words of its own."""
    letters = str.maketrans("0123456789", "abcdefghij")
    yield from _begin()
    for number in range(lines // 2):
        yield f"mmap(oops, {str(number).translate(letters)}"
        yield _mapped(number)


def divergences(lines: int) -> Iterator[str]:
    """Every other call contradicts what was replayed: a mapping on top of a mapping, without MAP_FIXED."""
    yield from _begin()
    for number in range(lines // 2):
        yield _mapped(number)
        yield _mapped(number)


def never_resumed(lines: int) -> Iterator[str]:
    """Every other call is never resumed, and its thread is not heard of again."""
    yield from (f"1000 {line}" for line in _begin())
    for number in range(lines // 2):
        yield f"1000 {THREAD} = {1001 + number}"
        yield f"{1001 + number} mmap(NULL, {REGION}, {ANONYMOUS} <unfinished ...>"


def strangers(lines: int) -> Iterator[str]:
    """Processes that no call of the log makes begin, map and go on living."""
    yield from (f"1000 {line}" for line in _begin())
    for number in range(lines):
        yield f"{1001 + number} {_mapped(number)}"


def open_calls(lines: int) -> Iterator[str]:
    """Threads are cut inside a call, all of them, and then resumed one after the other."""
    yield from (f"1000 {line}" for line in _begin())
    for number in range(lines // 2):
        yield f"{1001 + number} mmap(NULL, {REGION}, {ANONYMOUS} <unfinished ...>"
    for number in range(lines // 2):
        yield f"{1001 + number} <... mmap resumed>) = {_address(number):#x}"


def chained_forks(lines: int) -> Iterator[str]:
    """Each process maps, and forks the next one."""
    yield from (f"1000 {line}" for line in _begin())
    for number in range(lines // 2):
        yield f"{1000 + number} {_mapped(0)}" if not number else f"{1000 + number} brk(NULL) = {BREAK:#x}"
        yield f"{1000 + number} {FORK} = {1001 + number}"


def execs(lines: int) -> Iterator[str]:
    """A process executes itself again and again."""
    for number in range(lines // 3):
        yield 'execve("/srv/prog", ["prog"], 0x7ffc1b7b2d48 /* 20 vars */) = 0'
        yield f"brk(NULL) = {BREAK:#x}"
        yield _mapped(number)


def forks_of_much(lines: int) -> Iterator[str]:
    """A process with as many mappings as a quarter of the lines forks; each child exits at once."""
    yield from (f"1000 {line}" for line in _begin())
    yield from (f"1000 {_mapped(number)}" for number in range(lines // 4))
    for number in range(lines // 4):
        yield f"1000 {FORK} = {1001 + number}"
        yield f"{1001 + number} exit_group(0) = ?"
        yield f"{1001 + number} +++ exited with 0 +++"


def frames(lines: int) -> Iterator[str]:
    """`strace -k`: behind each call twenty frames, of functions that differ."""
    yield from _begin()
    for number in range(lines // (FRAMES + 1)):
        yield _mapped(number)
        yield " > /usr/lib/x86_64-linux-gnu/libc.so.6(__mmap+0x26) [0x101616]"
        for depth in range(1, FRAMES):
            yield f" > /srv/prog(function_{number % 997}_{depth}+{16 * depth:#x}) [{4096 + 32 * number + depth:#x}]"


def refusals(lines: int) -> Iterator[str]:
    """The break grows once and is then refused for ever; each time the libc goes to mmap."""
    grown = BREAK + 0x21000
    yield from _begin()
    yield f"brk({grown:#x}) = {grown:#x}"
    yield f"mmap({grown:#x}, {PAGE}, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = {grown:#x}"
    for number in range(lines // 2):
        yield f"brk({grown + 0x21000:#x}) = {grown:#x}"
        yield f"mmap(NULL, {1 << 20}, {ANONYMOUS}) = {LOWEST + (number << 21):#x}"


def files(lines: int) -> Iterator[str]:
    """Each file is opened once, mapped, and its descriptor kept."""
    yield from _begin()
    for number in range(lines // 2):
        descriptor = DESCRIPTOR + number
        yield f'openat(AT_FDCWD, "/srv/part{number}.bin", O_RDONLY) = {descriptor}'
        yield f"mmap(NULL, {REGION}, PROT_READ, MAP_PRIVATE, {descriptor}, 0) = {_address(number):#x}"


def write_set(prefix: Path, lines: int) -> Path:
    """Write a `strace -ff -ttt` set of so many lines, a file for each child of one process, and return its prefix."""
    children = range(1001, 1001 + lines // (SET_LINES + 1))

    def timed(first: int, calls: Iterable[str]) -> Iterator[str]:
        return (f"1795000000.{first + number:06d} {call}" for number, call in enumerate(calls))

    write(prefix.with_name(f"{prefix.name}.1000"), timed(0, (f"{FORK} = {pid}" for pid in children)))
    for number, pid in enumerate(children):
        calls = [*map(_mapped, range(SET_LINES - 1)), "exit_group(0) = ?"]
        write(prefix.with_name(f"{prefix.name}.{pid}"), timed(number + 1, calls))
    return prefix


WORST: Final[dict[str, Callable[[int], Iterator[str]]]] = {
    "mappings": mappings,
    "blocks": blocks,
    "processes": processes,
    "threads": threads,
    "processes without a creator": strangers,
    "open calls": open_calls,
    "chained forks": chained_forks,
    "execs": execs,
    "forks of many mappings": forks_of_much,
    "shapes": shapes,
    "problems": problems,
    "divergences": divergences,
    "calls never resumed": never_resumed,
    "-k frames": frames,
    "refused breaks": refusals,
    "mapped files": files,
}
"""What a log may hold many of, with the generator of a log that does, given its number of lines."""

SET: Final = "files of a set"
"""The worst case that is no log but a set of them, see `write_set`."""

LINES_OF: Final = {
    SET: 0.05, "shapes": 0.1, "processes": 0.2, "problems": 0.5, "-k frames": 0.25, "blocks": 5,
    "processes without a creator": 0.2, "chained forks": 0.2, "execs": 0.2, "forks of many mappings": 0.1,
}  # fmt: skip
"""So many times the lines of the others, the work for a line being so much more or less."""
