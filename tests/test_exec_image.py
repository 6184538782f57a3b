"""What execve mapped, told by the files of the program and of its loader where the first calls place them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import replay
from replay import cli
from replay.linux.elf import PT_GNU_RELRO, PT_INTERP, PT_LOAD, read_elf
from replay.linux.proc_maps import Mapping, parse_maps

LOADER = "/lib/ld.so"
Header = tuple[int, int, int, int, int, int]
"""type, flags, offset, vaddr, filesz, memsz"""

PROGRAM_HEADERS: list[Header] = [
    (PT_LOAD, 4, 0x0000, 0x0000, 0x0A00, 0x0A00),
    (PT_LOAD, 5, 0x1000, 0x1000, 0x0300, 0x0300),
    (PT_LOAD, 6, 0x2D00, 0x3D00, 0x0400, 0x2500),
    (PT_GNU_RELRO, 4, 0x2D00, 0x3D00, 0x0300, 0x0300),
]
LOADER_HEADERS: list[Header] = [
    (PT_LOAD, 5, 0x0000, 0x0000, 0x1000, 0x1000),
    (PT_LOAD, 6, 0x1000, 0x1000, 0x1800, 0x1800),
    (PT_GNU_RELRO, 4, 0x1000, 0x1000, 0x1000, 0x1000),
]


def elf(headers: list[Header], kind: int = 3, interpreter: str = "") -> bytes:
    """Return a 64-bit little-endian ELF file for x86-64 with these program headers and nothing else."""
    headers = list(headers)
    if interpreter:
        headers.append((PT_INTERP, 4, 0x200, 0x200, len(interpreter) + 1, len(interpreter) + 1))
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", kind, 62, 1, 0x1000, 64, 0, 0, 64, 56, len(headers), 0, 0, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", type_, flags, offset, vaddr, vaddr, filesz, memsz, 0x1000)
        for type_, flags, offset, vaddr, filesz, memsz in headers
    )
    return (head + table).ljust(0x200, b"\0") + interpreter.encode() + b"\0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory with /bin/prog and the loader that it names."""
    for path, content in (("bin/prog", elf(PROGRAM_HEADERS, interpreter=LOADER)), ("lib/ld.so", elf(LOADER_HEADERS))):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    return tmp_path


LOG = """\
execve("/bin/prog", ["/bin/prog"], 0x7ffc0 /* 3 vars */) = 0
brk(NULL)                               = 0x55555600a000
mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7fff00000000
mprotect(0x555555557000, 4096, PROT_READ) = 0
mprotect(0x7fff0000b000, 4096, PROT_READ) = 0
"""
"""The program lies at 0x555555554000, the loader at 0x7fff0000a000, eight pages of clocks between it and the mmap."""

IMAGE = """\
555555554000-555555555000 r--p 00000000 00:00 0                          /bin/prog
555555555000-555555556000 r-xp 00001000 00:00 0                          /bin/prog
555555557000-555555558000 r--p 00002000 00:00 0                          /bin/prog
555555558000-555555559000 rw-p 00003000 00:00 0                          /bin/prog
555555559000-55555555b000 rw-p 00000000 00:00 0
7fff00000000-7fff00002000 rw-p 00000000 00:00 0
7fff00002000-7fff00008000 r--p 00000000 00:00 0                          [vvar]
7fff00008000-7fff0000a000 r-xp 00000000 00:00 0                          [vdso]
7fff0000a000-7fff0000b000 r-xp 00000000 00:00 0                          /lib/ld.so
7fff0000b000-7fff0000c000 r--p 00001000 00:00 0                          /lib/ld.so
7fff0000c000-7fff0000d000 rw-p 00002000 00:00 0                          /lib/ld.so
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""


def maps_of(log: str, root: Path) -> str:
    path = root / "trace.log"
    path.write_text(log)
    return replay.load(path, elf_root=root).maps()


def test_the_segments_of_a_file_are_mapped_page_by_page(root: Path) -> None:
    program = read_elf(root / "bin/prog")
    assert program is not None
    path = program.path
    assert program.interpreter == LOADER
    assert program.mappings(0x400000, 4096) == [
        Mapping(0x400000, 0x401000, "r--p", 0, path),
        Mapping(0x401000, 0x402000, "r-xp", 0x1000, path),
        Mapping(0x403000, 0x405000, "rw-p", 0x2000, path),
        Mapping(0x405000, 0x407000, "rw-p", 0, ""),
    ]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + b"\xff" * 90, elf([])])
def test_what_is_no_program_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert read_elf(tmp_path / "file") is None


def test_two_mprotects_place_program_and_loader(root: Path) -> None:
    assert maps_of(LOG, root) == IMAGE


def test_the_rows_are_inferred_parts_of_the_image_from_before_the_trace(root: Path) -> None:
    (root / "trace.log").write_text(LOG)
    regions = replay.load(root / "trace.log", elf_root=root).regions
    image = regions[regions["born_step"] == -1]
    assert set(image["origin"]) == {"inferred"}
    assert set(image["kind"]) == {"image", "special"}
    assert set(image["born_line"]) == {1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("mprotect(0x555555557000, 4096", "mprotect(0x555555557000, 8192"), "its RELRO is longer"),
        (("= 0x55555600a000", "= 0x5555f600a000"), "the break begins too far above it"),
        (("= 0x55555600a000", "= 0x555555558000"), "the break begins inside of it"),
        (("brk(NULL)", "getpid()"), "no break confirms it"),
    ],
)
def test_a_file_that_does_not_fit_infers_nothing(root: Path, change: tuple[str, str], why: str) -> None:
    assert "prog" not in maps_of(LOG.replace(*change), root), why


@pytest.mark.parametrize(
    ("path", "is_known"), [("/proc/self/exe", True), ("/proc/thread-self/exe", True), ("/proc/7/exe", False)]
)
def test_a_program_that_executes_itself_is_itself_and_not_what_reads_the_log(
    root: Path, path: str, is_known: bool
) -> None:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/7/exe").write_bytes(elf(PROGRAM_HEADERS, interpreter=LOADER))
    assert ("/bin/prog" in maps_of(LOG + LOG.replace('"/bin/prog",', f'"{path}",'), root)) == is_known


def test_another_program_at_the_path_is_told(root: Path) -> None:
    log = root / "trace.log"
    log.write_text(LOG.replace("mprotect(0x555555557000, 4096", "mprotect(0x555555557000, 8192"))
    assert {space: image.misfit for space, image in replay.load(log, elf_root=root).replayed.images.items()} == {
        0: "/bin/prog"
    }


def test_a_script_is_run_by_its_interpreter(root: Path) -> None:
    (root / "bin/script").write_text("#! /bin/prog -e\n")
    assert "/bin/prog" in maps_of(LOG.replace('execve("/bin/prog"', 'execve("/bin/script"'), root)


def test_a_program_that_says_where_it_lies_needs_no_mprotect(root: Path) -> None:
    headers = [
        (kind, flags, offset, vaddr + 0x400000, *sizes) for kind, flags, offset, vaddr, *sizes in PROGRAM_HEADERS
    ]
    (root / "bin/fixed").write_bytes(elf(headers[:3], kind=2))  # type: ignore[arg-type]
    text = maps_of('execve("/bin/fixed", ["f"], 0x7f0 /* 0 vars */) = 0\nbrk(NULL) = 0x1c0e000\n', root)
    assert [line.split()[:2] for line in text.splitlines()][:4] == [
        ["00400000-00401000", "r--p"],
        ["00401000-00402000", "r-xp"],
        ["00403000-00405000", "rw-p"],
        ["00405000-00407000", "rw-p"],
    ]


@pytest.mark.parametrize(
    ("placed", "is_known"), [("0x7f0000000000", True), ("0x400000", False), ("0x3ff000", False), ("0x407000", True)]
)
def test_a_static_program_that_asks_for_no_break_lies_where_nothing_else_was_mapped(
    root: Path, placed: str, is_known: bool
) -> None:
    headers = [
        (kind, flags, offset, vaddr + 0x400000, *sizes) for kind, flags, offset, vaddr, *sizes in PROGRAM_HEADERS
    ]
    (root / "bin/fixed").write_bytes(elf(headers[:3], kind=2))  # type: ignore[arg-type]
    mapped = f"mmap(NULL, 8192, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = {placed}\n"
    text = maps_of('execve("/bin/fixed", ["f"], 0x7f0 /* 0 vars */) = 0\n' + mapped, root)
    assert ("/bin/fixed" in text) == is_known


SHOW_MAPS = """
#include <fcntl.h>
#include <unistd.h>
int main(void) {
    char text[65536];
    int file = open("/proc/self/maps", O_RDONLY);
    for (ssize_t n; (n = read(file, text, sizeof text)) > 0;) write(1, text, n);
    return 0;
}
"""


@pytest.mark.live
@pytest.mark.parametrize(
    ("compile_words", "run_words", "unknown_pages"),
    [
        (["gcc"], [], 0),
        (["gcc", "-no-pie"], [], 0),
        (["gcc"], ["/lib64/ld-linux-x86-64.so.2"], 0),
        (["gcc", "-static"], [], 16),
        (["gcc", "-static-pie"], [], 16),
        (["musl-gcc"], [], 16),
    ],
)
def test_the_image_is_that_of_proc_maps(
    tmp_path: Path, compile_words: list[str], run_words: list[str], unknown_pages: int
) -> None:
    """All pages but the stack's are known; those for clocks not where no mmap lies below them. None is wrong."""
    for tool in ("strace", compile_words[0]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    (tmp_path / "maps.c").write_text(SHOW_MAPS)
    program, log = tmp_path / "maps", tmp_path / "trace.log"
    subprocess.run([*compile_words, "-o", program, tmp_path / "maps.c"], check=True)
    traced = ["strace", "-o", log, "-e", "trace=%memory,execve,openat,open,close", "-y", *run_words, program]
    shown = subprocess.run(traced, check=True, capture_output=True, text=True).stdout
    lines = log.read_text().splitlines()
    opened = next(number for number, line in enumerate(lines, 1) if "/proc/self/maps" in line)
    known, true = _pages(replay.load(log).maps(line=opened)), _pages(shown)
    assert {page: perms for page, perms in known.items() if true.get(page) != perms} == {}
    assert len(true) - len(known) <= unknown_pages


def _pages(text: str) -> dict[int, str]:
    return {
        page: mapping.perms
        for mapping in parse_maps(text)
        if mapping.path != "[stack]"
        for page in range(mapping.start, mapping.end, 4096)
    }


def report_of(log: str, root: Path) -> str:
    path = root / "trace.log"
    path.write_text(log)
    return " ".join(CliRunner().invoke(cli.app, ["report", str(path), "--elf-root", str(root), "-q"]).stdout.split())


def test_the_report_says_what_was_inferred_from_what_and_what_stays_unknown(root: Path) -> None:
    text = report_of(LOG, root)
    assert "What execve mapped is inferred from /bin/prog and /lib/ld.so as they are on this disk now" in text


def test_the_report_says_that_the_file_is_another_one(root: Path) -> None:
    text = report_of(LOG.replace("mprotect(0x555555557000, 4096", "mprotect(0x555555557000, 8192"), root)
    assert "the file on this disk is not the one that ran, /bin/prog" in text
