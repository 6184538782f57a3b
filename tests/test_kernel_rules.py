"""Rules of the kernel that random programs under strace taught, each on a log of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay

START = """\
1 execve("./prog", ["./prog"], 0x7ffd00000000 /* 2 vars */) = 0
1 brk(NULL) = 0x555555560000
"""
ANON = "MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
RW = "PROT_READ|PROT_WRITE"
ENOMEM = "-1 ENOMEM (Cannot allocate memory)"


def maps(tmp_path: Path, calls: list[str], pid: int = 1) -> list[str]:
    """Return what replay says of process `pid` after the calls: `start-end perms offset path` a line."""
    log = tmp_path / "strace.log"
    log.write_text(START + "".join(f"{call if call[0].isdigit() else f'1 {call}'}\n" for call in calls))
    shown = []
    for line in replay.load(log).maps(pid=pid).splitlines():
        span, perms, offset, _device, _inode, *path = line.split(None, 5)
        start, end = (int(part, 16) for part in span.split("-"))
        shown.append(" ".join([f"{start:x}-{end:x}", perms, f"{int(offset, 16):x}", *path]))
    return shown


THREE = [f"mmap(NULL, 12288, PROT_READ, {ANON}) = 0x10000", "munmap(0x11000, 4096) = 0"]
"""A page, a gap of one, a page."""


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param(
            [*THREE, "mremap(0x10000, 12288, 12288, MREMAP_MAYMOVE|MREMAP_FIXED, 0x20000) = 0x20000"],
            ["20000-21000 r--p 0", "22000-23000 r--p 0"],
            id="a move that keeps the length takes gaps along",
        ),
        pytest.param(
            [*THREE, "mremap(0x10000, 12288, 4096, 0) = 0x10000"],
            ["10000-11000 r--p 0"],
            id="what a shrinking mremap cuts off may hold gaps",
        ),
        pytest.param(
            [
                "mmap(NULL, 8192, PROT_READ, MAP_SHARED, 3</m>, 0) = 0x10000",
                f"mmap(0x11000, 4096, {RW}, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x11000",
                "mremap(0x10000, 0, 8192, MREMAP_MAYMOVE) = 0x20000",
            ],
            ["10000-11000 r--s 0 /m", "11000-12000 rw-p 0", "20000-22000 r--s 0 /m"],
            id="an old length of 0 duplicates one mapping, beyond its end",
        ),
        pytest.param(
            [f"mmap(NULL, 8192, PROT_READ, {ANON}) = 0x10000", f"mprotect(0x10000, 8192, {RW}) = {ENOMEM}"],
            ["10000-12000 r--p 0"],
            id="a limit refuses mprotect without a gap",
        ),
        pytest.param(
            [
                f"mmap(NULL, 4096, {RW}|PROT_EXEC, {ANON}) = 0x10000",
                f"mmap(NULL, 4096, PROT_NONE, {ANON}) = 0x11000",
                f"mprotect(0x10000, 8192, {RW}) = {ENOMEM}",
            ],
            ["10000-11000 rw-p 0", "11000-12000 ---p 0"],
            id="what is writable already changes before the limit refuses",
        ),
        pytest.param(
            ["mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3</dev/zero>, 0x1000) = 0x10000"],
            ["10000-11000 r--s 1000 /dev/zero (deleted)"],
            id="shared memory of /dev/zero",
        ),
        pytest.param(
            [
                'openat(AT_FDCWD, "data", O_RDWR) = 3',
                "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3, 0) = 0x10000",
                'unlink("data") = 0',
                "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 3, 0x4000) = 0x20000",
                'openat(AT_FDCWD, "data", O_RDWR|O_CREAT, 0600) = 4',
                "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 4, 0) = 0x30000",
            ],
            [
                "10000-11000 r--s 0 data (deleted)",
                "20000-21000 r--s 4000 data (deleted)",
                "30000-31000 r--s 0 data",
            ],
            id="an unlinked file without -y",
        ),
    ],
)
def test_what_the_kernel_does(calls: list[str], expected: list[str], tmp_path: Path) -> None:
    assert maps(tmp_path, calls) == expected


def test_advice_over_a_gap_fails_but_holds_for_the_rest(tmp_path: Path) -> None:
    calls = [*THREE, f"madvise(0x10000, 12288, MADV_DONTFORK) = {ENOMEM}", "fork() = 2", "2 getppid() = 1"]
    kept = f"mmap(NULL, 4096, PROT_READ, {ANON}) = 0x40000"
    assert maps(tmp_path, [*calls, f"2 {kept}"], pid=2) == ["40000-41000 r--p 0"]


def test_pages_below_the_break_are_the_heap_whoever_mapped_them(tmp_path: Path) -> None:
    """fs/proc/task_mmu.c: what overlaps [start_brk, brk) and is no file shows [heap]."""
    log = tmp_path / "log"
    log.write_text(
        "execve('./p', ['./p'], 0x7ffc0 /* 2 vars */) = 0\n".replace("'", '"')
        + "brk(NULL) = 0x10000\n"
        + "brk(0x14000) = 0x14000\n"
        + "mmap(0x12000, 8192, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x12000\n"
    )
    lines = replay.load(log).maps().splitlines()
    assert [(line.split()[:2], line.split()[-1]) for line in lines] == [
        (["00010000-00012000", "rw-p"], "[heap]"),
        (["00012000-00014000", "---p"], "[heap]"),
    ]


@pytest.mark.parametrize(
    "damaged",
    [
        f"mmap(NULL, 9223372036854775807, PROT_READ, {ANON}) = 0x50000",
        f"mmap(NULL, 4096, PROT_READ, {ANON}) = 0x7ffffffffffff000",
        "munmap(0x10000, 9223372036854775807) = 0",
        "mprotect(0xfffffffffffff000, 4096, PROT_READ) = 0",
        "mremap(0x10000, 4096, 18446744073709551615, MREMAP_MAYMOVE) = 0x60000",
        "brk(0x10000) = 0x7fffffffffff0000",
    ],
)
def test_a_range_that_no_space_has_is_a_contradiction_and_changes_nothing(tmp_path: Path, damaged: str) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{call}\n" for call in [*THREE, damaged]))
    run = replay.load(log)
    assert run.problems["reason"].tolist() == ["divergence_impossible_range"]
    assert run.maps(line=len(THREE) + 1) == run.maps(line=len(THREE))
