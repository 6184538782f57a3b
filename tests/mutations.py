"""Real logs and what may befall them: bits flip, lines are cut, doubled, shuffled, joined, and numbers are absurd."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable

import oracle

MOST_LINES = 120
"""So long is a piece of a log that is mutated."""

EXTREMES = [
    *(b"0", b"1", b"-1", b"007", b"4095", b"4096", b"4097"),
    *(b"%d" % value for bit in (31, 32, 47, 48, 57, 62, 63, 64, 65) for value in ((1 << bit) - 1, 1 << bit)),
    *(b"0x%x" % value for bit in (12, 31, 32, 47, 48, 57, 63, 64) for value in ((1 << bit) - 4096, 1 << bit)),
    b"9" * 40,
    b"NULL",
]

ODD_LINES = [
    b"--- Called exec() ---",
    b"+++ exited with 0 +++",
    b"+++ killed by SIGKILL +++",
    b"+++ superseded by execve in pid 7 +++",
    b"7 +++ superseded by execve in pid 8 +++",
    b"<... mmap resumed>) = 0x7f0000000000",
    b"<... execve resumed> ) = 0",
    b"brk(NULL) = 0x0",
    b"fork() = 7",
    b"clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 9",
    b"strace: Process 7 attached",
    b'execve("/bin/a", ["a"], 0x7ffc0 /* 1 var */ <unfinished ...>',
    b"\xff\xfe\x00\x1b]0;title\x07\x9b31m",
    b"",
]

Mutation = Callable[[list[bytes], random.Random], list[bytes]]


@functools.cache
def seeds() -> list[list[bytes]]:
    """Return pieces of real logs of both tracers, with and without threads, and of the cases kept beside the tests."""
    found = []
    paths = [path for capture in oracle.captures().values() for path in capture.logs if path.stat().st_size < 2 << 20]
    paths += [path for path in (oracle.CHECKOUT / "tests" / "cases").rglob("*") if path.suffix in (".log", ".100")]
    for path in sorted(paths):
        lines = oracle.read_text(path).encode(errors="surrogateescape").split(b"\n")
        found += [lines[at : at + MOST_LINES] for at in range(0, min(len(lines), 5 * MOST_LINES), MOST_LINES)]
    return found


def mutated(seed: int) -> bytes:
    """Return a piece of a log with some mutations, the same for the same number."""
    source = random.Random(seed)
    lines = list(source.choice(seeds()))
    for _ in range(source.choice((1, 1, 2, 3, 5, 8))):
        lines = source.choice(MUTATIONS)(lines, source)[: 4 * MOST_LINES]
    return b"\n".join(lines) + b"\n"


def _flipped(lines: list[bytes], source: random.Random) -> list[bytes]:
    text = bytearray(b"\n".join(lines))
    for _ in range(source.randint(1, 8)):
        if text:
            text[source.randrange(len(text))] ^= 1 << source.randrange(8)
    return bytes(text).split(b"\n")


def _cut(lines: list[bytes], source: random.Random) -> list[bytes]:
    made = list(lines)
    for _ in range(source.randint(1, 5)):
        at = source.randrange(len(made))
        made[at] = made[at][: source.randint(0, len(made[at]))]
    return made


def _begun_later(lines: list[bytes], source: random.Random) -> list[bytes]:
    return lines[source.randrange(len(lines)) :]


def _ended_sooner(lines: list[bytes], source: random.Random) -> list[bytes]:
    return lines[: source.randint(1, len(lines))]


def _doubled(lines: list[bytes], source: random.Random) -> list[bytes]:
    at = source.randrange(len(lines))
    until = min(len(lines), at + source.randint(1, 20))
    return lines[:until] + lines[at:until] * source.randint(1, 3) + lines[until:]


def _shuffled(lines: list[bytes], source: random.Random) -> list[bytes]:
    at = source.randrange(len(lines))
    until = min(len(lines), at + source.randint(2, 30))
    part = lines[at:until]
    source.shuffle(part)
    return lines[:at] + part + lines[until:]


def _joined(lines: list[bytes], source: random.Random) -> list[bytes]:
    at = source.randrange(len(lines))
    return [*lines[:at], b"".join(lines[at : at + 2]), *lines[at + 2 :]]


def _dropped(lines: list[bytes], source: random.Random) -> list[bytes]:
    return [line for line in lines if source.random() > 0.1] or lines


def _absurd(lines: list[bytes], source: random.Random) -> list[bytes]:
    made = list(lines)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(made))
        numbers = list(re.finditer(rb"0x[0-9a-f]+|\d+|NULL", made[at]))
        if numbers:
            number = source.choice(numbers)
            made[at] = made[at][: number.start()] + source.choice(EXTREMES) + made[at][number.end() :]
    return made


def _exchanged(lines: list[bytes], source: random.Random) -> list[bytes]:
    """Put a number of one line in the place of one in another: addresses meet that never did."""
    numbers = re.findall(rb"0x[0-9a-f]+|\d+", b"\n".join(lines))
    made = list(lines)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(made))
        if numbers:
            other = source.choice(numbers)
            made[at] = re.sub(rb"0x[0-9a-f]+|\d+", lambda _match, other=other: other, made[at], count=1)
    return made


def _mixed(lines: list[bytes], source: random.Random) -> list[bytes]:
    other = source.choice(seeds())
    at = source.randrange(len(lines))
    return lines[:at] + other[: source.randint(1, len(other))] + lines[at:]


def _odd(lines: list[bytes], source: random.Random) -> list[bytes]:
    at = source.choice((0, source.randrange(len(lines))))
    return [*lines[:at], source.choice(ODD_LINES), *lines[at:]]


def _other_pids(lines: list[bytes], source: random.Random) -> list[bytes]:
    pids = [b"7 ", b"8 ", b"100 ", b"[pid 7] ", b"", b"4294967295 ", b"0 "]
    return [source.choice(pids) + line if source.random() < 0.3 else line for line in lines]


MUTATIONS: list[Mutation] = [
    _flipped, _cut, _begun_later, _ended_sooner, _doubled, _shuffled, _joined, _dropped, _absurd, _absurd, _exchanged,
    _exchanged, _mixed, _odd, _odd, _other_pids,
]  # fmt: skip
