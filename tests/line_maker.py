"""Lines of the captures, one of each shape, and the same with parts replaced."""

from __future__ import annotations

import random
import re
from pathlib import Path

import oracle

from replay.logs.dialect import DIALECTS


def logs_of_captures() -> list[Path]:
    """Every log that came with the captures and is not too long to be parsed line by line."""
    places = [folder for name, folder in oracle.scenarios().items() if name != "heavy"]
    found = [path for place in places for path in sorted(place.rglob("*.log*")) if path.is_file()]
    return [path for path in found if path.stat().st_size < 200_000]


def lines_of_captures(dialect: str) -> list[bytes]:
    """One line of each shape of the captures."""
    found: dict[bytes, bytes] = {}
    for path in logs_of_captures():
        if ("ltrace" in str(path)) == (dialect == "ltrace"):
            for line in path.read_bytes().split(b"\n"):
                found.setdefault(re.sub(rb"0x[0-9a-f]+|\d+|\"[^\"]*\"|<[^>]*>", b"#", line), line)
    return sorted(found.values())


MUTATIONS = (
    (rb"\d", lambda g: b"%d" % g.randrange(10)),
    (rb"\b\d+\b", lambda g: b"%d" % g.choice([0, 1, 7, 4096, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 + 5])),
    (rb"0x[0-9a-f]+", lambda g: b"0x%x" % g.choice([0, 1, 0x1000, 2**32 - 1, 2**63 - 1, 2**64 - 4096])),
    (rb"0x[0-9a-f]+", lambda g: b"NULL"),
    (rb"NULL", lambda g: b"0x1000"),
    (rb" +", lambda g: b" " * g.randrange(1, 4)),
    (rb"[<>\"()\[\]{},=|]", lambda g: g.choice([b"<", b">", b'"', b"(", b")", b", ", b"=", b"\\", b""])),
    (rb"(?<=[\d])<[^>]*>", lambda g: g.choice([b"</a b>", b"</x>y>", b'</"q">', b"<pipe:[1]>", b"</d<char 1:5>>"])),
    (
        rb"\"[^\"]*\"",
        lambda g: g.choice([b'""', b'"a\\"b"', b'"a"..."', b'"3</x>"', b'"(1) = 2"', b'"\\\\"', b'"\\x2f"']),
    ),
    (rb"[A-Za-z_]+", lambda g: g.choice([b"mmap", b"brk", b"x86_64", b"munmap", b"PROT_READ"])),
    (rb"\.\d+", lambda g: g.choice([b".1", b".123", b".123456", b".123456789", b""])),
)


def mutated(line: bytes, random_: random.Random) -> bytes:
    """A line with one to three of its parts replaced."""
    for _ in range(random_.randrange(1, 4)):
        pattern, make = random_.choice(MUTATIONS)
        spots = list(re.finditer(pattern, line))
        if spots:
            spot = random_.choice(spots)
            line = line[: spot.start()] + make(random_) + line[spot.end() :]
    return line.replace(b"\n", b"")


LINES = {dialect: lines_of_captures(dialect) for dialect in DIALECTS}
