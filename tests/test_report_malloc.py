"""What the report, its JSON and the steps say about malloc: the four answers, whole sections, and every key."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import oracle
import pytest

import replay
from replay.console import screen
from replay.report.as_json import json_report
from replay.report.as_text import text_report
from replay.report.findings import Findings
from replay.report.steps import step_lines

START = 0x555500000000
FAR = 0x7F0000001000


@dataclass
class Program:
    """Writes the log of a program whose malloc takes chunks one above the other; `lines` is the log so far."""

    lines: list[str] = field(default_factory=lambda: [f"SYS_brk(0) = {START:#x}"])
    top: int = START + 0x290
    brk: int = START

    def malloc(self, size: int) -> int:
        block, self.top = self.top + 16, self.top + max(32, (size + 8 + 15) & -16)
        if self.top > self.brk:
            self.brk = (self.top + 0x21000 + 4095) & -4096
            self.lines += [f"prog->malloc({size} <unfinished ...>", f"SYS_brk({self.brk:#x}) = {self.brk:#x}"]
            self.lines.append(f"<... malloc resumed> ) = {block:#x}")
        else:
            self.lines.append(f"prog->malloc({size}) = {block:#x}")
        return block

    def mapped(self, size: int) -> int:
        length = (size + 16 + 4095) & -4096
        self.lines.append(f"prog->malloc({size} <unfinished ...>")
        self.lines.append(f"SYS_mmap(0, {length}, 3, 34) = {FAR:#x}")
        self.lines.append(f"<... malloc resumed> ) = {FAR + 16:#x}")
        return FAR + 16

    def unmap(self, size: int) -> None:
        length = (size + 16 + 4095) & -4096
        self.lines.append(f"prog->free({FAR + 16:#x} <unfinished ...>")
        self.lines += [f"SYS_munmap({FAR:#x}, {length}) = 0", "<... free resumed> ) = <void>"]

    def free(self, *blocks: int) -> None:
        self.lines += [f"prog->free({block:#x}) = <void>" for block in blocks]

    def load(self, folder: Path) -> replay.Run:
        log = folder / "ltrace.log"
        log.write_text("\n".join([*self.lines, "+++ exited (status 0) +++", ""]))
        return replay.load(log)


def clean(program: Program) -> None:
    for _ in range(50):
        program.free(program.malloc(1000))


def leaky(program: Program) -> None:
    for _ in range(50):
        program.malloc(1000)
        program.free(program.malloc(100))


def pinned(program: Program) -> None:
    blocks = [program.malloc(100_000) for _ in range(5)]
    program.malloc(24)
    program.free(*blocks)


def pinned_by_leak(program: Program) -> None:
    blocks = [program.malloc(100_000) for _ in range(5)]
    program.malloc(100_000)
    program.free(*blocks)


PROGRAMS = {"neither": clean, "leak": leaky, "fragmentation": pinned, "both": pinned_by_leak}


def run_of(program: str, folder: Path) -> replay.Run:
    made = Program()
    PROGRAMS[program](made)
    return made.load(folder)


def plain(lines: object) -> list[str]:
    return list(screen.shown(lines, colour=False))  # type: ignore[arg-type]


def section(run: replay.Run, heading: str) -> str:
    """Return what stands below a heading of the letter."""
    lines = plain(text_report(run))
    begin = lines.index(heading) + 1
    return "\n".join(lines[begin : lines.index("", begin)]) if heading != HEAP else _until(lines, begin)


HEAP = "The heap of malloc"


def _until(lines: list[str], begin: int) -> str:
    end = next(at for at in range(begin, len(lines)) if lines[at] and not lines[at].startswith(" "))
    return "\n".join(lines[begin : end - 1])


def one_line(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


# --- the answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "words"),
    [
        pytest.param("neither", "Neither. Every block that the log shows was freed before the exit.", id="neither"),
        pytest.param(
            "leak",
            "A leak, unless the program keeps those blocks on purpose. 50 blocks, 50,000 bytes (48.8 KiB), were "
            "not freed before the exit",
            id="leak",
        ),
        pytest.param(
            "fragmentation",
            "Fragmentation. Just before the exit 500,080 bytes (488 KiB) of the heap's 624 KiB (78 %) were free but "
            "lay below live blocks, so that free gave none of them back to the kernel; the largest free range had 488 "
            "KiB. "
            "1 block, 24 bytes, was not freed before the exit: <1 % of the most that was live at once (line 13).",
            id="fragmentation",
        ),
        pytest.param(
            "both",
            "Both: a leak, unless the program keeps those blocks on purpose, and fragmentation. 1 block, 100,000 bytes "
            "(97.7 KiB), was not freed before the exit",
            id="both",
        ),
    ],
)
def test_the_four_answers(tmp_path: Path, program: str, words: str) -> None:
    run = run_of(program, tmp_path)
    said = json_report(run)
    assert said["malloc"]["answer"]["answer"] == program
    assert said["verdict"][0].startswith("Is it a leak, or is it fragmentation? ")
    assert words in said["verdict"][0]
    assert words in one_line(plain(text_report(run)))


def test_kept_memory_is_not_called_a_growing_leak(tmp_path: Path) -> None:
    program = Program()
    program.malloc(50_000)
    for _ in range(40):
        program.free(program.malloc(1000))
    said = json_report(program.load(tmp_path))["malloc"]
    assert said["answer"]["answer"] == "leak" and not said["answer"]["growing"]
    assert "A leak, unless the program keeps those blocks on purpose." in said["verdict"][0]


def test_faults_are_told_with_their_first_lines(tmp_path: Path) -> None:
    program = Program()
    block = program.malloc(100)
    program.free(block, block, 0x555500123450)
    program.lines.append("prog->malloc(4611686018427387904) = 0")
    said = one_line(plain(text_report(program.load(tmp_path))))
    assert "1 block was freed twice (free(0x5555000002a0), line 6): a bug that corrupts the heap" in said
    assert "1 free of an unknown block (free(0x555500123450), line 7): the log never saw it handed out" in said
    assert "1 allocation failed (malloc(4,611,686,018,427,387,904), line 8)." in said


def test_frees_alone_tell_nothing_of_leaks(tmp_path: Path) -> None:
    program = Program(lines=["prog->free(0x555500000010) = <void>", "prog->free(0x555500000050) = <void>"])
    run = program.load(tmp_path)
    assert "Whether memory leaks cannot be told" in one_line(plain(text_report(run)))
    assert json_report(run)["malloc"]["answer"] is None


def test_of_several_processes_the_answer_says_which(tmp_path: Path) -> None:
    program = Program()
    block = program.malloc(3000)
    program.lines += ["SYS_fork() = 12", "prog->malloc(100) = 0x555500002000"]
    program.free(block)
    lines = [f"11 {line}" for line in program.lines]
    lines += [f"12 prog->free({block:#x}) = <void>", "12 prog->malloc(64) = 0x555500003000"]
    log = tmp_path / "ltrace.log"
    log.write_text("\n".join(lines) + "\n")
    said = json_report(replay.load(log))["malloc"]
    assert said["verdict"][0].endswith("This is said of space 0 (pid 11), which had the most bytes live at once.")
    assert [(row["space"], row["allocations"], row["frees"]) for row in said["spaces"]] == [(0, 2, 1), (1, 1, 1)]


# --- sections --------------------------------------------------------------------------------------------------------

PINNED_HEAP = """\
                       at largest  at the end
                          line 12     line 18
  heap                    624 KiB     624 KiB  what blocks are cut from
  live                    488 KiB    24 bytes  asked for and not freed
  rounding               80 bytes     8 bytes  their headers and padding
  unseen                656 bytes   656 bytes  in no block that the log shows
  free                    135 KiB     623 KiB  of the heap
    below live blocks     0 bytes     488 KiB  free cannot give it back
    top of the heap       135 KiB     135 KiB  free can give it back
    trimmable               4 KiB       4 KiB  of the top, by a trim
    largest range         135 KiB     488 KiB  the largest block that fits
  fragmentation             0.000       0.217  1 - largest range / free
  utilisation                78 %         0 %  live / (heap + mapped singly)
  page use                   99 %         1 %  live share of pages in use

  At its largest malloc held 28 % more than was live then, and 28 % more than
  was ever live at once (Johnstone and Wilson's measures 3 and 4).

  Free ranges by size, at the end (line 18):
    size in bytes  ranges   in all
    128-256 KiB         1  135 KiB  ████████
    256-512 KiB         1  488 KiB  ██████████████████████████████

  Share of this free memory in ranges too small for a block of a given size:
    64 B  256 B  1 KiB  4 KiB  16 KiB  64 KiB  128 KiB  1 MiB
     0 %    0 %    0 %    0 %     0 %     0 %      0 %  100 %"""


def test_the_heap_as_text(tmp_path: Path) -> None:
    assert section(run_of("fragmentation", tmp_path), HEAP) == PINNED_HEAP


def test_pins_and_causes_as_text(tmp_path: Path) -> None:
    run = run_of("fragmentation", tmp_path)
    assert section(run, "What holds memory back") == (
        "  At the end these live blocks hold back the most; so much goes back once a\n"
        "  block and those above it are freed:\n"
        "  goes back  above  block           bytes  call    line  age in lines\n"
        "    488 KiB      0  0x55550007a410     24  malloc    13             5"
    )
    assert section(run, "What made the heap grow and shrink") == (
        "  malloc(100,000) made the heap grow 3 times, each time by 196 KiB to 232 KiB\n"
        "  (first line 3).\n"
        "  count  what        each         inside             in all  lines\n"
        "      3  break grew  196-232 KiB  malloc(100,000)  +624 KiB  3-11"
    )


def test_leaks_stand_by_call_site_and_size(tmp_path: Path) -> None:
    program = Program()
    for _ in range(3):
        program.malloc(1000)
    program.lines.append(f"libx.so->calloc(10, 7) = {program.top + 0x100:#x}")
    assert section(program.load(tmp_path), "Never freed") == (
        "  blocks  bytes  size of each  call               lines  oldest lived\n"
        "       3  3,000  1,000         malloc of prog     4-6         3 lines\n"
        "       1     70  70            calloc of libx.so  7           0 lines"
    )


def test_a_free_that_raises_the_threshold(tmp_path: Path) -> None:
    program = Program()
    program.malloc(24)
    program.mapped(1_000_000)
    program.unmap(1_000_000)
    run = program.load(tmp_path)
    assert "line 10: from 131,072 bytes (128 KiB) to 1,003,520 bytes (980 KiB)" in one_line(plain(text_report(run)))
    (raised,) = json_report(run)["malloc"]["threshold_raises"]
    assert raised == {
        "step": 6, "line": 10, "space": 0, "before_bytes": 131072, "after_bytes": 1003520, "observed": True,
    }  # fmt: skip


def test_advice_fits(tmp_path: Path) -> None:
    advice = json_report(run_of("fragmentation", tmp_path))["malloc"]["advice"]
    assert advice[0].startswith("Free the block at 0x55550007a410 (24 bytes, malloc of line 13): then 488 KiB go")
    assert advice[1].startswith("malloc_trim(0) at the end would give back up to ")
    assert json_report(run_of("neither", tmp_path))["malloc"]["advice"] == []


# --- JSON ------------------------------------------------------------------------------------------------------------

PICTURE = {
    "line", "live_blocks", "live_bytes", "rounding_bytes", "heap_bytes", "direct_bytes", "unseen_bytes", "free_bytes",
    "slack_bytes", "largest_free_bytes", "pinned_bytes", "held_bytes", "top_bytes", "trimmable_bytes", "live_pages",
    "page_live_share", "inferred", "external_fragmentation", "utilisation", "free_ranges", "unusable_free_index",
}  # fmt: skip

KEYS = {
    "answer": {
        "answer", "leaking", "growing", "fragmented", "fragmented_between", "space", "leaked_blocks", "leaked_bytes",
        "leaked_share_of_peak", "held_bytes", "held_share_of_heap", "held_moment", "held_line",
    },
    "blocks": {
        "allocations", "reallocations", "frees", "live_blocks", "live_bytes", "peak_live_bytes", "peak_live_blocks",
        "peak_live_line", "failed_allocations", "double_frees", "unknown_frees",
    },
    "growth": {"low_water_bytes", "live_bytes_half", "live_bytes_end", "live", "held"},
    "heap": {
        "space", "at_peak_live", "at_largest", "at_worst", "at_end", "johnstone_wilson_3", "johnstone_wilson_4",
        "whole_free_pages_bytes_at_end",
    },
}  # fmt: skip

ROWS = {
    "spaces": {"space", "allocations", "frees", "live_blocks", "live_bytes"},
    "pins": {
        "addr", "bytes", "call", "caller", "pid", "line", "age_lines", "age_ns", "released_bytes", "blocks_above",
    },
    "leaks": {
        "space", "call", "caller", "size_class", "least_bytes", "most_bytes", "count", "bytes", "first_line",
        "last_line", "oldest_age_lines", "oldest_age_ns",
    },
    "causes": {
        "kind", "call", "caller", "least_request_bytes", "most_request_bytes", "count", "bytes", "least_bytes",
        "most_bytes", "first_line", "last_line",
    },
}  # fmt: skip


def test_the_keys_of_the_document(tmp_path: Path) -> None:
    said = json_report(run_of("both", tmp_path))["malloc"]
    assert set(said) == {"verdict", "advice", *KEYS, *ROWS, "threshold_raises"}
    for key, names in KEYS.items():
        assert set(said[key]) == names, key
    for key, names in ROWS.items():
        assert said[key] and all(set(row) == names for row in said[key]), key
    for moment in ("at_peak_live", "at_largest", "at_worst", "at_end"):
        assert set(said["heap"][moment]) == PICTURE


def test_the_numbers_of_the_document_agree_with_the_tables(tmp_path: Path) -> None:
    run = run_of("leak", tmp_path)
    said = json_report(run)
    malloc, summary = said["malloc"], said["summary"]
    for name in ("allocations", "frees", "live_blocks", "live_bytes", "peak_live_bytes"):
        assert malloc["blocks"][name] == summary[name], name
    assert sum(row["bytes"] for row in malloc["leaks"]) == summary["live_bytes"]
    assert malloc["growth"]["live"][-1]["bytes"] == summary["live_bytes"]
    grown = sum(row["bytes"] for row in malloc["causes"] if row["kind"] == "brk_grew")
    assert grown == int(run.fragmentation["brk_bytes"].max())


# --- logs without malloc ---------------------------------------------------------------------------------------------


def test_a_log_without_malloc_has_no_word_of_it_and_loads_none() -> None:
    log = oracle.SAMPLES / "blocked_break" / "strace.log"
    code = (
        "import sys, replay\n"
        "from replay.report.as_json import json_report\n"
        "from replay.report.as_text import text_report\n"
        "from replay.report.steps import step_lines\n"
        f"run = replay.load({str(log)!r})\n"
        "assert 'malloc' not in json_report(run)\n"
        "list(text_report(run)), list(step_lines(run))\n"
        "assert not [name for name in sys.modules if name.startswith('replay.report.malloc')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=oracle.CHECKOUT)


# --- steps -----------------------------------------------------------------------------------------------------------


def test_steps_tell_what_became_of_blocks(tmp_path: Path) -> None:
    program = Program()
    block = program.malloc(1000)
    large = program.mapped(200_000)
    program.unmap(200_000)
    assert large == FAR + 16
    moved = program.top + 16
    program.lines.append(f"prog->realloc({block:#x}, 2000) = {moved:#x}")
    program.free(moved, moved, 0x555500123450)
    program.lines += ["prog->_Znwm(40 <unfinished ...>", f"libstdc++.so.6->malloc(40) = {moved:#x}"]
    program.lines.append(f"<... _Znwm resumed> ) = {moved:#x}")
    lines = plain(step_lines(program.load(tmp_path)))
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [
        "brk asked where the break is: 0x555500000000",
        "in malloc: brk grew by 136 KiB to 0x555500022000",
        "malloc 1,000 bytes at 0x5555000002a0 (brk)",
        "in malloc: mmap 196 KiB rw-p at 0x7f0000001000 anonymous",
        "malloc 200,000 bytes at 0x7f0000001010 (mmap)",
        "in free: munmap 196 KiB at 0x7f0000001000: 1 region ended",
        "free 0x7f0000001010: 200,000 bytes, lived 1 line",
        "realloc 0x5555000002a0 to 2,000 bytes at 0x555500000690 (was 1,000)",
        "free 0x555500000690: 2,000 bytes, lived 1 line",
        "free 0x555500000690: a double free",
        "free 0x555500123450: a block never seen",
        "in new: malloc 40 bytes at 0x555500000690",
        "new 40 bytes at 0x555500000690 (brk)",
    ]


# --- real programs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capture", "answer"),
    [
        pytest.param("frag/ltrace_pinned", "fragmentation", id="one block above all that was freed"),
        pytest.param("mmap_threshold/ltrace_dynamic", "neither", id="everything freed"),
        pytest.param("arenas/ltrace", "neither", id="threads"),
    ],
)
def test_answers_for_captured_programs(capture: str, answer: str) -> None:
    found = oracle.captures().get(capture)
    if found is None:
        pytest.skip("the capture is not there")
    run = replay.load(found.logs)
    assert json_report(run)["malloc"]["answer"]["answer"] == answer


STACKS = """\
100 malloc(200) = 0x5555555592a0
 > libstdc++.so.6(_Znwm+0x1c) [7ff6ec71a249]
 > prog(make_node+0xe) [5555555551af]
100 malloc(200) = 0x555555559370
 > libstdc++.so.6(_Znwm+0x1c) [7ff6ec71a249]
 > prog(make_name+0xe) [5555555551cf]
100 malloc(200) = 0x555555559440
 > libstdc++.so.6(_Znwm+0x1c) [7ff6ec71a249]
 > prog(make_node+0xe) [5555555551af]
100 free(0) = <void>
100 +++ exited (status 0) +++
"""


def test_leaks_are_grouped_by_the_first_frame_outside_of_libc_and_the_run_time(tmp_path: Path) -> None:
    (tmp_path / "trace.log").write_text(STACKS)
    groups = Findings(replay.load(tmp_path / "trace.log")).malloc.leaks  # type: ignore[union-attr]
    assert [(group.caller, group.count, group.bytes) for group in groups] == [
        ("make_node (prog)", 2, 400),
        ("make_name (prog)", 1, 200),
    ]
