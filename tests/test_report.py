"""The report on the screen and as JSON: a whole letter, what is said of odd logs, and how text is laid out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

import replay
from replay.console import amounts, screen
from replay.console.table import table
from replay.errors import QueryError
from replay.report import address_map as layout
from replay.report import drawing as picture
from replay.report.as_json import json_report, write_json
from replay.report.as_text import text_report
from replay.report.diff import difference, difference_lines
from replay.report.facts import Curve
from replay.report.steps import step_lines
from replay.run.window import Window, steps_of

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"

LETTER = """\
91 lines of strace, ./prog (pid 6415), 31.8 ms

Verdict
  The break failed to grow 23 times in 31 tries (lines 27 to 71), and grew again
  from line 79 on.
  Why: the one-page ---p mapping at 0x5639fe40f000 (line 22) begins right at the
  break: no room to grow, and 33 pages were asked for.
  glibc fell back to mmap 23 times (lines 28 to 72): 4,022,272 bytes (3.8 MiB).

What it means
  malloc had its memory all the same. The price: two calls for each growth, and
  a heap in pieces that glibc neither unmaps nor trims before the exit.

What to try
  - Move the blocker: the mmap of line 22 asks for 0x5639fe40f000 itself
    (MAP_FIXED); with NULL the kernel places it far away. Or unmap it earlier.
  - While it stands: GLIBC_TUNABLES=glibc.malloc.top_pad=16777216 (M_TOP_PAD)
    makes fallbacks fewer and larger.

What this log cannot tell
  - Leak, fragmentation, what pins the heap: strace does not show malloc
      replay record PROG
  - Resident memory: the log shows no page faults (grep VmHWM /proc/PID/status)

Also worth a try
  - A lower M_MMAP_THRESHOLD (glibc.malloc.mmap_threshold) maps more blocks each
    by itself, and free gives those back. Setting it, or M_TOP_PAD, ends the
    threshold's own adjustment.
  - Try other settings on its requests: replay record PROG, then replay whatif
    PROG.replay.

With ltrace in place of replay record
  - Leak, fragmentation, what pins the heap
      ltrace -L -f -S -x 'malloc+free+calloc+realloc@libc.so*' -o FILE PROG

Allocator
  glibc: libc.so.6 is mapped (line 8)

Failed brk calls
  count  lines  cause          in the way                     short by (bytes)
     23  27-71  mapping_above  0x5639fe40f000 ---p (line 22)           135,168

Fallbacks
  count  kind      bytes each         bytes in all  lines
     22  fallback     135,168  2,973,696 (2.8 MiB)  30-72
      1  fallback   1,048,576    1,048,576 (1 MiB)  28

Other mappings of allocators
  count  what          allocator       bytes in all  lines
      1  large blocks  glibc      401,408 (392 KiB)  73

Address space
  line 72, after the last failed brk; high addresses at the top
  0x7f2a128f0000  █               8 KiB  r--p  program or ld.so (inferred)
                  ┊      free   228 KiB
  0x7f2a128b5000  █               8 KiB  rw-p  anonymous
                  ┊      free    40 KiB
  0x7f2a1289e000  ██             52 KiB  rw-p  anonymous
  0x7f2a126c9000  █████         1.8 MiB        libc.so.6 (4 mappings)
  0x7f2a122f0000  █████         3.8 MiB  rw-p  anonymous: 23 fallbacks
                  ┊
                  ┊      free  40.9 TiB
                  ┊
  0x5639fe40f000  █               4 KiB  ---p  anonymous  ◀ in the way, line 22
  0x5639fe3ee000  ███           132 KiB  rw-p  [heap]
                  ┊      free   694 MiB
  0x5639d2dca000  █               4 KiB  r--p  program or ld.so (inferred)
  What the kernel maps at execve (program, ld.so, stack, vdso) no call shows;
  --maps FILE adds it.

  4 gaps between the mappings, 40.9 TiB in all; the largest holds >99 % of it:
    0x5639fe410000-0x7f2a122f0000  45,011,591,626,752 bytes (40.9 TiB)
    0x5639d2dcb000-0x5639fe3ee000  727,855,104 bytes (694 MiB)
    0x7f2a128b7000-0x7f2a128f0000  233,472 bytes (228 KiB)

  mapped                mappings      bytes           share
  anonymous                    3  4,096,000  3.9 MiB   66 %
  file                         4  1,921,024  1.8 MiB   31 %
  brk area                     1    135,168  132 KiB    2 %
  program image                2     12,288   12 KiB   <1 %
  anonymous, no access         1      4,096    4 KiB   <1 %
  all                         11  6,168,576  5.9 MiB

  Mapped is not resident: at the peak 7.2 MiB were mapped, at most 7.2 MiB can
  have been resident. At the end 7.2 MiB were mapped.

Largest mappings
  line 85, when most was mapped
      bytes        whose                                               made by
  4,435,968  rw-p  glibc fallback (inferred), glibc direct (inferred)  line 73
  1,400,832  r-xp  /usr/lib/x86_64-linux-gnu/libc.so.6                 line 9
  1,081,344  rw-p  [heap]                                              line 21
    356,352  r--p  /usr/lib/x86_64-linux-gnu/libc.so.6                 line 10
    155,648  r--p  /usr/lib/x86_64-linux-gnu/libc.so.6                 line 8
     53,248  rw-p  anonymous                                           line 12
      8,192  rw-p  /usr/lib/x86_64-linux-gnu/libc.so.6                 line 11
      8,192  rw-p  anonymous                                           line 3

Over the log
  lines 2 to 85, from left to right
  mapped    ▁▁▁▁▃▃▃▃▃▃▃▃▃▃▃▃▃▃▄▄▄▄▄▄▄▅▅▅▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▆▆▇▇▇▇▇▇▇▇▇███
            peak 7,512,064 bytes (7.2 MiB), line 85; at the end 7.2 MiB
  brk area  ▁▁▁▁▁▁▁▁▁▁▁▁▁▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▄▅▆▇█
            peak 1,081,344 bytes (1 MiB), line 85; at the end 1 MiB
  headroom  ██████████████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁█████
            least 0 bytes, line 22; at the end 40.9 TiB (log scale)

91 lines read: 91 understood, 0 passed over (they do not concern memory), 0 not
understood.
"""
"""The letter on `blocked_break` from its second line on."""


def plain(lines: object) -> list[str]:
    return list(screen.shown(lines, colour=False))  # type: ignore[arg-type]


def letter_of(*logs: Path, **options: object) -> str:
    return "\n".join(plain(text_report(replay.load(logs, **options))))  # type: ignore[arg-type]


@pytest.fixture
def say(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that gives the letter on a log, without the line with its path, as one long line of words."""

    def letter_on(text: str) -> str:
        log = tmp_path / "trace.log"
        log.write_text(text, encoding="utf-8", errors="surrogateescape")
        return " ".join(letter_of(log).partition("\n")[2].split())

    return letter_on


def mmap(length: int, result: str, where: str = "NULL", prot: str = "PROT_READ|PROT_WRITE", more: str = "") -> str:
    return f"mmap({where}, {length}, {prot}, MAP_PRIVATE|MAP_ANONYMOUS{more}, -1, 0) = {result}\n"


START = """\
execve("./prog", ["./prog"], 0x7ffe00000000 /* 3 vars */) = 0
brk(NULL) = 0x1000000
brk(0x1021000) = 0x1021000
"""
END = "exit_group(0) = ?\n+++ exited with 0 +++\n"
NO_MEMORY = "-1 ENOMEM (Cannot allocate memory)"
BLOCKER = mmap(4096, "0x1021000", "0x1021000", "PROT_NONE", "|MAP_FIXED")


# --- the letter ------------------------------------------------------------------------------------------------------


def test_the_whole_letter_on_a_blocked_break() -> None:
    assert letter_of(BLOCKED).partition("\n")[2] == LETTER.rstrip("\n")


def test_forty_five_failures_one_blocker_and_its_line() -> None:
    capture = oracle.scenarios()["brk_blocked"] / "fy_at" / "strace.log"
    said = " ".join(letter_of(capture).split())
    assert "The break failed to grow 45 times in 46 tries (lines 66 to 172)." in said
    assert "the one-page ---p mapping at 0x5613a395c000 (line 44) begins right at the break" in said
    assert "glibc fell back to mmap 45 times (lines 67 to 173): 6,995,968 bytes (6.7 MiB)." in said


@pytest.mark.parametrize(
    ("log", "claims"),
    [
        pytest.param(
            START + BLOCKER + "brk(0x1042000) = 0x1021000\n" * 3 + END,
            [
                "failed to grow 3 times in 4 tries (lines 5 to 7)",
                "No mmap stood in for it",
                "After all 3 failures no mmap stood in",
                "the mmap of line 4 asks for 0x1021000 itself (MAP_FIXED)",
            ],
            id="no-fallback",
        ),
        pytest.param(
            START + BLOCKER + "brk(0x1042000) = 0x1021000\nx mmap(NULL, 8, PROT_READ) = 0x7f0000000000\n" + END,
            ["1 line that looks like mmap could not be read", "No mmap that could be read stood in for it"],
            id="no-fallback-that-was-read",
        ),
        pytest.param(
            START + "prlimit64(0, RLIMIT_AS, {rlim_cur=4096*1024, rlim_max=RLIM64_INFINITY}, NULL) = 0\n"
            + mmap(3 << 20, "0x7f0000000000") + "brk(0x1121000) = 0x1021000\n" + mmap(1 << 20, NO_MEMORY) + END,
            [
                "failed to grow once in 2 tries (line 6)",
                "over RLIMIT_AS, which the log shows as 4,194,304 bytes",
                "glibc tried mmap instead, and was refused as well (ENOMEM, line 7)",
                "Once malloc returned NULL",
                "Raise RLIMIT_AS (4 MiB now, as line 4 tells)",
            ],
            id="limit-and-refused-fallback",
        ),
        pytest.param(
            START + "brk(0x1042000) = 0x1021000 (INJECTED)\n" + mmap(1 << 20, "0x7f0000000000") + END,
            ["strace injected this answer", "Nothing: strace itself gave these answers"],
            id="injected",
        ),
        pytest.param(
            START + "brk(0x1042000) = 0x1021000\n" + mmap(1 << 20, "0x7f0000000000") + END,
            ["unknown not in the log 135,168", "Look for the mapping in the way"],
            id="unknown-cause",
        ),
        pytest.param(
            START + BLOCKER + "brk(0x1042000) = 0x1021000\n" + mmap(1 << 20, "0x7f0000000000")
            + "munmap(0x1021000, 4096) = 0\nbrk(0x1042000) = 0x1042000\n" + END,
            ["once in 3 tries (line 5), and grew again from line 8 on."],
            id="recovered",
        ),
        pytest.param(
            START + END,
            ["No brk was refused: the break grew once, by 135,168 bytes (132 KiB) in all, and never shrank."],
            id="sound",
        ),
        pytest.param(
            START + "brk(0x1000000) = 0x1000000\n" + END,
            ["grew once", "in all, and shrank once, by 135,168 bytes (132 KiB)."], id="shrank",
        ),
        pytest.param(
            START + mmap(1 << 50, NO_MEMORY) + END,
            ["1 mmap of 1,125,899,906,842,624 bytes (1 PiB) was refused with ENOMEM (line 4): 1 PiB are more"],
            id="mmap-refused",
        ),
        pytest.param(
            "brk(NULL) = 0x1000000\n" + mmap(8192, "0x7f0000000000") + END,
            ["No brk was refused: the program never asks the break to grow."],
            id="only-asked",
        ),
        pytest.param(
            "9 brk(NULL) = 0x1000000\n9 brk(0x1021000 <unfinished ...>\n9 +++ killed by SIGKILL +++\n",
            ["the log shows no growth of the break. What became of 1 more brk (line 3) the log does not show."],
            id="killed-in-brk",
        ),
        pytest.param(
            mmap(8192, "0x7f0000000000") + END, ["The log has no brk call at all."], id="no-brk"
        ),
        pytest.param(
            mmap(8192, "0x7f0000000000") + "brk(0x1021000) = 0x1021000\n" + END,
            ["Mind: the log begins in the middle of the run (--maps FILE"],
            id="attached",
        ),
        pytest.param(START, ["Mind: the log ends before the program's exit"], id="ends-early"),
        pytest.param(START + "mmap(NULL, 40", ["Mind: the log is cut off in the middle of line 4."], id="cut"),
        pytest.param(
            START + "brk(what is this) = ???\n" + END,
            ["Problems in the log", "first line 4: brk(what is this) = ???", "1 not understood."],
            id="not-understood",
        ),
    ],
)  # fmt: skip
def test_what_is_said(say: Callable[[str], str], log: str, claims: list[str]) -> None:
    said = say(log)
    assert [claim for claim in claims if claim not in said] == []


@pytest.mark.parametrize(
    "log",
    [
        'openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 3\nclose(3) = 0\n',
        'read(3, "x", 1) = 1\nwrite(1, "abc", 3) = 3\n+++ exited with 0 +++\n',
    ],
    ids=["only-openat", "only-other-calls"],
)
def test_a_log_without_memory_calls_is_not_judged(say: Callable[[str], str], log: str) -> None:
    said = say(log)
    assert "Verdict Nothing can be said: the log has no call that concerns memory" in said
    assert "strace -f -y -ttt -e trace=%memory" in said
    assert "Allocator" not in said and "Address space" not in said


def test_a_sound_run_has_no_failures_and_nothing_to_try(say: Callable[[str], str]) -> None:
    said = say(START + END)
    assert not any(heading in said for heading in ("What it means", "What to try", "Failed brk calls", "Fallbacks"))


def many_processes(count: int) -> str:
    lines = ["100 " + line for line in START.splitlines()]
    for pid in range(200, 200 + count):
        program = "/opt/" + "deep/" * 30 + f"program_{pid}"
        lines.append(f"100 clone(child_stack=NULL, flags=SIGCHLD, child_tidptr=0x7f0000000000) = {pid}")
        lines.append(f'{pid} execve("{program}", ["p"], 0x7ffe00000000 /* 3 vars */) = 0')
        lines += [f"{pid} brk(NULL) = 0x2000000", f"{pid} brk(0x20{pid % 40 + 16:x}000) = 0x20{pid % 40 + 16:x}000"]
        lines += [f"{pid} exit_group(0) = ?", f"{pid} +++ exited with 0 +++"]
    return "\n".join([*lines, "100 exit_group(0) = ?", "100 +++ exited with 0 +++", ""])


def test_many_processes_with_long_paths_fit_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "many.log"
    log.write_text(many_processes(40))
    lines = plain(text_report(replay.load(log)))
    assert max(map(screen.cells, lines)) <= 80
    shown = lines[lines.index("Address spaces of the run") + 1 :]
    assert shown[1].endswith("  program")
    assert "  and 71 more address spaces: --json has all" in shown
    assert len(json_report(replay.load(log))["processes"]) == 81


@pytest.mark.parametrize("capture", sorted(name for name in oracle.captures() if not name.startswith("heavy")))
def test_every_letter_fits_the_screen(capture: str) -> None:
    run = replay.load(oracle.captures()[capture].logs)
    lines = plain(text_report(run))
    assert [line for line in lines if screen.cells(line) > 80] == []
    assert lines[3] == "Verdict"
    assert plain(text_report(run)) == lines


def test_escapes_of_a_log_never_reach_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "evil.log"
    log.write_bytes(
        b'execve("/tmp/\\33[31mred\xff\xe2\x80\xae", ["x"], 0x7ffe00000000 /* 1 var */) = 0\n'
        b"mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 3</tmp/\x1b[2J\x07\xc2\x9b>, 0) = 0x7f0000000000\n"
        b"brk(\x1b[2Jwhat) = ?\n"
    )
    run = replay.load(log)
    for lines in (text_report(run), step_lines(run), difference_lines(difference(run, 0, 1), run)):
        text = "\n".join(screen.shown(lines, colour=True))
        assert set("\x07\x9b\u202e") & set(text) == set()
        assert "\x1b[2J" not in text and "\x1b[31mred" not in text
    assert "\\x1b[31mred\\xff\\u202e" in "\n".join(text_report(run))


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_the_document_has_what_the_letter_says() -> None:
    found = json_report(replay.load(BLOCKED))
    assert found["summary"]["brk_failures"] == len(found["brk_failures"]) == 23
    assert found["summary"]["mmap_fallbacks"] == len(found["fallbacks"]) == 23
    first = found["brk_failures"][0]
    assert (first["line"], first["cause"], first["shortfall_bytes"]) == (27, "mapping_above", 135168)
    assert (first["blocker_start"], first["blocker_line"]) == ("0x5639fe40f000", 22)
    assert first["requested"] == "0x5639fe430000"
    assert [row["bytes"] for row in found["fallbacks"][:2]] == [1048576, 135168]
    assert found["fallbacks"][0]["brk_failure_step"] == first["step"]
    assert found["allocators"][0]["name"] == "glibc"
    assert [row["program"] for row in found["processes"]] == ["./prog"]
    assert found["layout"]["line"] == 72
    assert {"start": "0x5639fe40f000", "perms": "---p", "line": 22}.items() <= found["layout"]["mappings"][2].items()
    assert found["lines"] == {"read": 91, "understood": 91, "passed_over": 0, "not_understood": 0}
    assert found["problems"] == []


KEYS = [
    "replay", "sources", "summary", "verdict", "meaning", "advice", "cannot_tell", "allocators",
    "brk_failures", "fallbacks", "allocator_mmaps", "refused", "layout", "images", "largest_mappings", "processes",
    "problems",
    "lines",
]  # fmt: skip


LOGS = {"sound": START + END, "empty": "close(3) = 0\n", "odd": START + "brk(what) = ?x\n"}


@pytest.mark.parametrize("log", LOGS.values(), ids=LOGS)
def test_the_document_has_the_same_keys_for_every_log(tmp_path: Path, log: str) -> None:
    path = tmp_path / "trace.log"
    path.write_text(log)
    out = io.StringIO()
    write_json(json_report(replay.load(path)), out)
    assert list(json.loads(out.getvalue())) == KEYS


def test_json_has_no_halves_of_characters(tmp_path: Path) -> None:
    log = tmp_path / "bytes.log"
    log.write_bytes(b"mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</tmp/\xe4\xc3\xa4>, 0) = 0x7f0000000000\n")
    out = io.StringIO()
    write_json(json_report(replay.load(log)), out)
    assert json.loads(out.getvalue())["layout"]["mappings"][0]["path"] == "/tmp/\\xe4ä"


# --- steps -----------------------------------------------------------------------------------------------------------

STEPS = (
    START
    + """\
mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
mmap(0x7f0000000000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED, 3</lib/libc.so.6>, 0) = 0x7f0000000000
mprotect(0x7f0000001000, 4096, PROT_NONE) = 0
mremap(0x7f0000001000, 4096, 12288, MREMAP_MAYMOVE) = 0x7f0000010000
munmap(0x7f0000000000, 8192) = 0
munmap(0x7f0000000000, 8192) = 0
brk(0x1010000) = 0x1010000
brk(0x900000) = 0x1010000
mmap(0x1010000, 4096, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0) = 0x1010000
brk(0x1021000) = 0x1010000
mmap(NULL, 1099511627776, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = -1 ENOMEM (Cannot allocate memory)
madvise(0x1000000, 4096, MADV_DONTNEED) = 0
prlimit64(0, RLIMIT_DATA, {rlim_cur=4096*1024, rlim_max=RLIM64_INFINITY}, NULL) = 0
clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD, child_tidptr=0x7f0000000000) = 77
exit_group(3) = ?
"""
)

WORDS = """\
step line what it did
   0    1 execve ./prog: a new address space
   1    2 brk asked where the break is: 0x1000000
   2    3 brk grew by 132 KiB to 0x1021000
   3    4 mmap 8 KiB rw-p at 0x7f0000000000 anonymous
   4    5 mmap 4 KiB r--p at 0x7f0000000000 libc.so.6, over 1 region
   5    6 mprotect 4 KiB at 0x7f0000001000 to ---
   6    7 mremap 0x7f0000001000, 4 KiB, to 12 KiB moved to 0x7f0000010000
   7    8 munmap 8 KiB at 0x7f0000000000: 1 region ended
   8    9 munmap 8 KiB at 0x7f0000000000: nothing known there
   9   10 brk shrank by 68 KiB to 0x1010000: 1 region ended
  10   11 brk refused: wanted to go below its start, stays at 0x1010000
  11   12 mmap 4 KiB ---p at 0x1010000 anonymous
  12   13 brk refused: wanted 68 KiB more, stays at 0x1010000
  13   14 mmap 1 TiB failed: ENOMEM
  14   15 madvise DONTNEED 4 KiB at 0x1000000
  15   16 prlimit set RLIMIT_DATA to 4 MiB
  16   17 clone: 77 gets a copy of space 0, not seen in the log
  17   18 exit 3: space 0 ends
"""


def test_each_step_in_words(tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    log.write_text(STEPS)
    assert plain(step_lines(replay.load(log))) == WORDS.splitlines()


def test_steps_of_a_range_and_of_a_process() -> None:
    run = replay.load(oracle.SAMPLES / "fork_exec" / "strace.log")
    every = plain(step_lines(run))
    assert plain(step_lines(run, np.arange(5, 10)))[1:] == every[6:11]
    child = plain(step_lines(run, steps_of(run, Window(pid=6447))))
    assert child[1:] == [line for line in every if " 6447 " in line and "clone" not in line]


@pytest.mark.parametrize("capture", sorted(name for name in oracle.captures() if not name.startswith("heavy")))
def test_every_step_is_one_line_that_fits_the_screen(capture: str) -> None:
    run = replay.load(oracle.captures()[capture].logs)
    lines = plain(step_lines(run))
    assert len(lines) == len(run.replayed.events["step"]) + 1
    assert [line for line in lines if screen.cells(line) > 80] == []


# --- diff ------------------------------------------------------------------------------------------------------------


def test_a_difference_names_what_is_new_gone_and_changed(tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    log.write_text(STEPS)
    assert plain(difference_lines(difference(run := replay.load(log), 3, 9), run)) == [
        "step 3 (line 4) to step 9 (line 10)",
        "",
        "- 000001010000-000001021000    68 KiB rw-p [heap]",
        "- 7f0000000000-7f0000002000     8 KiB rw-p anon",
        "+ 7f0000010000-7f0000013000    12 KiB ---p anon (line 7)",
        "",
        "break     0x1021000 to 0x1010000: 69,632 bytes (68 KiB) less",
        "mapped    140 KiB to 76 KiB: 65,536 bytes (64 KiB) less",
        "mappings  2 to 2",
        "changes   2 ranges gone (76 KiB), 1 range new (12 KiB)",
    ]
    assert plain(difference_lines(difference(run, 3, 5), run))[2:4] == [
        "~ 7f0000000000-7f0000001000     4 KiB rw-p to r--p anon to libc.so.6",
        "~ 7f0000001000-7f0000002000     4 KiB rw-p to ---p anon",
    ]
    assert "no mapping changed" in plain(difference_lines(difference(run, 4, 4), run))


def test_a_difference_over_an_exec_compares_two_spaces() -> None:
    run = replay.load(oracle.SAMPLES / "fork_exec" / "strace.log")
    found = difference(run, 20, 90)
    assert (found.before.space, found.after.space) == (0, 3)
    assert "an execve or a fork lies between" in "\n".join(plain(difference_lines(found, run)))


@pytest.mark.parametrize("steps", [(0, 999), (-1, 3)])
def test_a_difference_of_steps_that_are_not_there(steps: tuple[int, int]) -> None:
    with pytest.raises(QueryError, match="no step"):
        difference(replay.load(BLOCKED), *steps)


# --- amounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (1023, "1,023 bytes"), (1024, "1 KiB"), (135168, "132 KiB"), (-4096, "-4 KiB"),
        (1027000, "1,003 KiB"),
        (6995968, "6.7 MiB"), (1048575, "1 MiB"), (1 << 30, "1 GiB"), (45007661596672, "40.9 TiB"),
        ((1 << 64) - 1, "16 EiB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert amounts.size(count) == text


def test_exact_sizes_have_both() -> None:
    assert amounts.exact(6995968) == "6,995,968 bytes (6.7 MiB)"
    assert amounts.exact(512) == "512 bytes"


@given(st.integers(0, (1 << 64) - 1))
def test_sizes_are_short_and_near(count: int) -> None:
    text = amounts.size(count)
    number, unit = text.replace(",", "").split()
    factor = 1 if unit.startswith("byte") else 1024 ** ("KiB MiB GiB TiB PiB EiB".split().index(unit) + 1)
    assert len(text) <= 11
    assert abs(float(number) * factor - count) <= max(0.006 * count, 0.051 * factor if factor > 1 else 0)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 7, "0 %"), (1, 1000, "<1 %"), (1, 2, "50 %"), (999, 1000, ">99 %"), (7, 7, "100 %"), (0, 0, "0 %")],
)
def test_shares(part: int, whole: int, text: str) -> None:
    assert amounts.percent(part, whole) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"), (950, "950 ns"), (1500, "1.5 µs"), (29_232_000, "29.2 ms"), (1_500_000_000, "1.5 s"),
        (59_000_000_000, "59 s"), (61_000_000_000, "1 min 1 s"), (7_500_000_000_000, "2 h 5 min"),
    ],
)  # fmt: skip
def test_durations(ns: int, text: str) -> None:
    assert amounts.duration(ns) == text


@pytest.mark.parametrize(
    ("text", "grouped"),
    [
        ("135168 bytes more", "135,168 bytes (132 KiB) more"),
        ("and 135168 more", "and 135,168 more"),
        ("line 135168 of it", "line 135168 of it"),
        ("at 0x5613a395c000 (line 44)", "at 0x5613a395c000 (line 44)"),
        ("34091298783 pages away", "34,091,298,783 pages away"),
        ("the 65536-page rw-p mapping", "the 65,536-page rw-p mapping"),
        ("has 65527 mappings (65530 unless changed)", "has 65,527 mappings (65,530 unless changed)"),
        ("/tmp/123456/log.98765", "/tmp/123456/log.98765"),
    ],
)
def test_long_numbers_in_sentences_are_grouped(text: str, grouped: str) -> None:
    assert amounts.grouped(text) == grouped


# --- the screen ------------------------------------------------------------------------------------------------------


@given(st.text(), st.integers(2, 60))
def test_shortened_texts_fit_and_keep_both_ends(text: str, width: int) -> None:
    text = screen.clean(text)
    short = screen.shortened(text, width)
    assert screen.cells(short) <= width
    assert short == text or (screen.cells(text) > width and "…" in short)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90)))
def test_wrapped_texts_fit_and_lose_nothing(words: list[str]) -> None:
    text = " ".join(screen.clean(word).replace(" ", "_") for word in words)
    lines = screen.wrapped(text, first="  - ")
    assert max(map(screen.cells, lines)) <= 80
    assert "".join(line[4:] for line in lines).replace(" ", "") == text.replace(" ", "")


def test_a_number_keeps_its_per_cent_sign() -> None:
    assert screen.wrapped("of 396 KiB (1 %) were free", width=13) == ["of 396 KiB", "(1 %) were", "free"]


@given(st.text())
def test_clean_texts_cannot_steer_a_terminal(text: str) -> None:
    cleaned = screen.clean(text)
    assert cleaned.isprintable()
    assert list(screen.shown([cleaned], colour=False)) == [cleaned]


def test_colour_ends_at_each_line_and_begins_anew_on_the_next() -> None:
    lines = screen.wrapped(screen.styled("bad", "word " * 40), first="  ")
    coloured = list(screen.shown(lines, colour=True))
    assert len(coloured) > 2
    assert all(line.startswith("  \x1b[1;31mword") and line.endswith("\x1b[0m") for line in coloured)
    assert [line.count("word") for line in screen.shown(lines, colour=False)] == [15, 15, 10]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "coloured"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
    ids=["terminal", "NO_COLOR", "dumb", "pipe"],
)
def test_colour_is_for_terminals_that_want_it(
    stream: io.StringIO, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    screen.print_lines([screen.styled("bad", "no")], stream)
    assert stream.getvalue() == ("\x1b[1;31mno\x1b[0m\n" if coloured else "no\n")


@pytest.mark.parametrize(
    ("encoding", "text"), [("ascii", "##...-> \\xe4"), ("latin-1", "##...-> ä"), ("utf-8", "█▌…→ ä")]
)
def test_an_output_without_unicode_gets_likenesses(encoding: str, text: str) -> None:
    data = io.BytesIO()
    out = io.TextIOWrapper(data, encoding=encoding)
    screen.print_lines(["█▌…→ ä"], out)
    out.flush()
    assert data.getvalue() == (text + "\n").encode(encoding)


def test_a_table_that_is_too_wide_wraps_its_texts_into_three_lines() -> None:
    lines = plain(table(["n", "path"], [["7", "x" * 99], ["1234", "y"], ["5", "z" * 300]], right=[0], give=[1]))
    room = 80 - len("  1234  ")
    assert lines[:4] == ["     n  path", "     7  " + "x" * room, "        " + "x" * (99 - room), "  1234  y"]
    assert lines[4:6] == ["     5  " + "z" * room, "        " + "z" * room]
    assert len(lines) == 7 and "z…z" in lines[6]


def test_a_heading_breaks_before_a_text_does_and_ends_where_the_others_end() -> None:
    head, row = ["largest_gap_bytes", "gap_count", "evidence"], ["40 TiB", "4", "word " * 11 + "end"]
    assert plain(table(head, [row], right=[0, 1], give=[2], indent="")) == [
        " largest_",
        "gap_bytes  gap_count  evidence",
        "   40 TiB          4  " + row[2],
    ]
    assert plain(table(head, [[*row[:2], "word " * 50]], right=[0, 1], give=[2], indent=""))[-1].endswith("word word…")


def test_short_texts_of_a_table_break_between_their_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert plain(table(["a" * 40, "first line"], [["7", "28 before"]], indent="  " * 5)) == [
        " " * 10 + " " * 42 + "first",
        " " * 10 + "a" * 40 + "  line",
        " " * 10 + "7" + " " * 41 + "28",
        " " * 10 + " " * 42 + "before",
    ]


def test_a_step_keeps_its_words_and_gives_of_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    log = tmp_path / "trace.log"
    log.write_text(f'openat(AT_FDCWD, "/opt/{"deep/" * 20}end.so", O_RDONLY) = 3\nbrk(NULL) = 0x5629aca0d000\n')
    opened, asked = list(screen.shown(step_lines(replay.load(log)), colour=False))[1:]
    assert opened.endswith("end.so as 3") and "openat /opt/" in opened and screen.cells(opened) <= 60
    assert asked.endswith("brk asked where the break is: 0x5629aca0d000")


def test_a_path_breaks_behind_a_folder() -> None:
    assert screen.wrapped("blocked_break/strace.log", width=18) == ["blocked_break/", "strace.log"]


# --- pictures --------------------------------------------------------------------------------------------------------


def curve(*points: tuple[int, int]) -> Curve:
    return Curve(np.array([clock for clock, _ in points], np.int64), np.array([value for _, value in points], np.int64))


@pytest.mark.parametrize(
    ("points", "bars"),
    [
        ([(1, 0), (4, 7)], "▁▁▁█████"),
        ([(3, 7), (5, 3)], "  ██▄▄▄▄"),
        ([(1, 7), (2, 0), (3, 7)], "█▁██████"),
    ],
    ids=["step", "begins-late", "dip"],
)
def test_curves_hold_their_value_until_the_next(points: list[tuple[int, int]], bars: str) -> None:
    assert picture.curve_line(curve(*points), 1, 8) == bars


def test_a_bar_for_many_lines_stands_for_the_highest_value_or_the_lowest() -> None:
    dip = curve((1, 7), (30, 0), (31, 7))
    assert picture.curve_line(dip, 1, 600) == "█" * 60
    assert picture.curve_line(dip, 1, 600, lowest=True) == "██▁" + "█" * 57


def test_a_curve_takes_no_more_than_its_columns() -> None:
    points = [(line, line % 100) for line in range(1, 5000)]
    assert len(picture.curve_line(curve(*points), 1, 4999)) == 60


def _parts(path: Path, far: int) -> list[layout.Part]:
    """Return the parts of a space with a break, a mapping right above it, and others far away."""
    anonymous = "PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0"
    places = [0x1001000, *range(0x7F0000000000, 0x7F0000000000 + far * 0x3000, 0x3000)]
    path.write_text(
        "brk(NULL) = 0x1000000\nbrk(0x1001000) = 0x1001000\n"
        + "".join(f"mmap({place:#x}, 4096, {anonymous}) = {place:#x}\n" for place in places)
    )
    run = replay.load(path)
    return layout.parts_of(layout.pieces_at(run, 0, 1000), 0x1001000)


def test_many_mappings_become_few_parts_with_the_heap_and_the_blocker_alone(tmp_path: Path) -> None:
    parts = _parts(tmp_path / "many.log", 500)
    assert [(part.role, len(part.pieces)) for part in parts] == [("heap", 1), ("blocker", 1), ("", 500)]
    assert layout.names_of(parts[2]) == "anonymous (500 mappings)"
    assert len(_parts(tmp_path / "few.log", 5)) == 7


def test_a_break_below_its_start_has_no_size(tmp_path: Path) -> None:
    log = tmp_path / "lost.log"  # the second brk(NULL) is of an image whose execve the log lost
    log.write_text(
        'execve("./a", ["./a"], 0x7ffc /* 1 var */) = 0\nbrk(NULL) = 0x5600000\nbrk(0x5700000) = 0x5700000\n'
        "brk(NULL) = 0x1200000\nbrk(0x1300000) = 0x1300000\n"
    )
    run = replay.load(log)
    assert run.fragmentation["brk_bytes"].tolist() == [0, 0x100000, 0, 0]
    assert list(text_report(run))
