"""What a report may claim: the table of what a log cannot tell, refusals, unread lines, leaks, logs of several runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import replay
from replay.cli import app
from replay.console import screen
from replay.errors import ReplayError
from replay.report.as_json import json_report
from replay.report.as_text import text_report
from replay.report.cannot_tell import EVIDENCE, LTRACE, RECORD, TABLE
from replay.report.findings import Findings

PUBLIC = Path(__file__).parent / "cases" / "public"
START = """\
execve("./prog", ["./prog"], 0x7ffe00000000 /* 3 vars */) = 0
brk(NULL) = 0x1000000
brk(0x1021000) = 0x1021000
"""
END = "exit_group(0) = ?\n+++ exited with 0 +++\n"
LT_START = "SYS_brk(0) = 0x2000000\nprog->malloc(1000 <unfinished ...>\nSYS_brk(0x2021000) = 0x2021000\n"
LT_START += "<... malloc resumed> ) = 0x20002a0\n"
LT_END = "+++ exited (status 0) +++\n"


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], replay.Run]:
    def load_text(*texts: str) -> replay.Run:
        logs = [tmp_path / (f"trace.log.{1 + pid}" if len(texts) > 1 else "trace.log") for pid in range(len(texts))]
        for log, text in zip(logs, texts, strict=True):
            log.write_text(text)
        return replay.load(logs)

    return load_text


def words(run: replay.Run) -> str:
    return " ".join(" ".join(screen.shown(text_report(run), colour=False)).split())


def case(name: str) -> replay.Run:
    return replay.load(PUBLIC / f"{name}.log")


# --- what a log cannot tell ------------------------------------------------------------------------------------------

STRACE_WHOLE = START + END
NEVER_FREED = LT_START + "prog->free(0x20002a0) = <void>\nprog->malloc(1000) = 0x20002a0\n"
LOGS = {
    "unread": START + "brk(what is this) = ???\n" + END,
    "unread_malloc": LT_START + "prog->malloc(what = 0x\n" + LT_END,
    "strace": STRACE_WHOLE,
    "ltrace_without_malloc": "SYS_brk(0) = 0x2000000\nSYS_brk(0x2021000) = 0x2021000\n" + LT_END,
    "ltrace_without_system_calls": "malloc(10) = 0x2000010\nfree(0x2000010) = <void>\n" + LT_END,
    "begins_late": "munmap(0x7f0000000000, 4096) = 0\nbrk(0x1021000) = 0x1021000\n" + END,
    "killed": NEVER_FREED + "+++ killed by SIGKILL +++\n",
    "cut": NEVER_FREED,
    "no_frees": LT_START.replace("prog->", "") + LT_END,
    "unseen_memory": (NEVER_FREED + "malloc(8) = 0x2018000\n" + LT_END).replace("prog->", ""),
    "main_program_only": NEVER_FREED + LT_END,
    "children_left_out": (NEVER_FREED + "SYS_fork() = 4711\n" + LT_END).replace("prog->", ""),
    "ltrace_with_system_calls": (NEVER_FREED + LT_END).replace("prog->", ""),
    "set_without_times": (START + "clone(child_stack=0x1, flags=CLONE_VM|CLONE_THREAD) = 2\n" + END, "brk(0) = 0x1\n"),
    "no_times": STRACE_WHOLE,
    "any": STRACE_WHOLE,
}
"""For each kind of log one that is of it, a set as the texts of its files.

Where several kinds apply, the one that stands first in `EVIDENCE` counts.
"""


@pytest.mark.parametrize(("question", "kind"), [(question, kind) for question in TABLE for kind in EVIDENCE])
def test_the_table_of_what_a_log_cannot_tell(load, question: str, kind: str) -> None:
    found = {one["question"]: one for one in json_report(load(*texts_of(kind)))["cannot_tell"]}
    cell = TABLE[question].get(kind)
    if cell is not None and kind not in ("begins_late", "any") and not answered(question, kind):
        assert (found[question]["because"], found[question]["command"]) == cell
    if question in found:
        assert all(found[question].values())
    if not set(TABLE[question]) & of_kinds(kind):
        assert question not in found


def texts_of(kind: str) -> tuple[str, ...]:
    texts = LOGS[kind]
    return (texts,) if isinstance(texts, str) else texts


def of_kinds(kind: str) -> set[str]:
    """Return the kinds that apply to the log of a kind, as far as they have cells of their own."""
    both = {"unread": {"strace"}, "begins_late": {"strace"}}
    others = {"unread_malloc": {"main_program_only", "no_frees"}, "killed": {"main_program_only"}}
    others |= {
        "unseen_memory": {"main_program_only"},
        "cut": {"main_program_only"},
        "no_times": {"strace"},
        "set_without_times": {"strace"},
        "any": {"strace"},
    }
    return {kind, "any"} | both.get(kind, set()) | others.get(kind, set())


def answered(question: str, kind: str) -> bool:
    """Return whether what the log shows answers the question all the same."""
    return question == "whose allocator" and kind != "ltrace_without_system_calls"


def test_every_kind_of_log_has_an_example_and_every_cell_a_command() -> None:
    assert set(LOGS) == set(EVIDENCE)
    assert all(cell.because and cell.command for cells in TABLE.values() for cell in cells.values())
    assert {kind for cells in TABLE.values() for kind in cells} <= set(EVIDENCE)


def test_strace_names_the_commands_that_show_malloc(load) -> None:
    found = {one["question"]: one for one in json_report(load(START + END))["cannot_tell"]}
    assert found["leak"]["command"].splitlines() == [RECORD, LTRACE]
    said = words(load(START + END))
    assert "What this log cannot tell - Leak, fragmentation, what pins the heap: strace does not show malloc" in said
    assert "Nothing is wrong" not in said


# --- strace answers as far as it goes --------------------------------------------------------------------------------


def growths(count: int) -> str:
    return "".join(
        f"brk({0x1021000 + 0x21000 * at:#x}) = {0x1021000 + 0x21000 * at:#x}\n" for at in range(1, count + 1)
    )


def test_a_heap_that_only_grows_is_never_good_news(load) -> None:
    run = load(START + growths(616) + END)
    said = words(run)
    assert "the break grew 617 times, mostly by 132 KiB, by 83,402," not in said  # 617 growths of 135,168 bytes:
    assert "grew 617 times, mostly by 132 KiB, by 83,398,656 bytes (79.5 MiB) in all, and never shrank." in said
    assert "The break grew 617 times, mostly by 132 KiB: M_TOP_PAD of 16 MiB" in said
    assert "would make that 5 calls" in said
    assert not any(paragraph.tone == "good" for paragraph in paragraphs(run))


def paragraphs(run: replay.Run) -> list:
    from replay.report.verdict import verdict

    return verdict(Findings(run))


def test_the_break_that_only_shrank() -> None:
    said = words(case("only_shrinks"))
    assert (
        "the break shrank twice, by 32,768 bytes (32 KiB). Whether it grew before the log begins is not known." in said
    )
    assert "never grew" not in said


def test_brk_answered_with_an_errno() -> None:
    run = case("brk_errno")
    (row,) = run.brk_failures.to_dict("records")
    assert (row["line"], row["requested"], row["granted"], row["shortfall_bytes"]) == (3, 0x6C2000, 0x6A1000, 135168)
    assert row["cause"] == "denied" and "EPERM" in row["evidence"]
    assert run.mmap_fallbacks["line"].tolist() == [4]
    assert words(run).index("The break failed to grow once") < words(run).index("EPERM")


def test_brk_null_answered_with_an_errno() -> None:
    run = case("brk_errno_query")
    assert len(run.brk_failures) == 0 and run.summary["brk_calls"].tolist() == [1]
    assert "brk was refused with EPERM (line 2)" in words(run)


def test_a_space_that_is_not_used_up() -> None:
    run = case("heap_in_bottom_up_mmap_area")
    assert run.summary["allocator"].tolist() == ["bionic"]
    assert run.brk_failures[["cause", "blocker_line"]].to_numpy().tolist() == [["mapping_above", 7]]
    assert "The space is not used up (256 MiB of 4 GiB mapped)" in words(run)
    assert "Build it for 64 bits" not in words(run)


def test_a_library_of_android_beside_glibc() -> None:
    assert case("android_libc_so").summary["allocator"].tolist() == ["glibc"]


def test_a_round_mapping_is_no_large_block_of_glibc() -> None:
    found = case("round_sized_mmap_with_mbind").allocator_mmaps
    assert found[found.allocator == "glibc"]["bytes"].tolist() == [266240]


def test_a_failed_call_has_no_result() -> None:
    assert case("failed_call_has_no_result").events["result"].isna().tolist() == [False, True]


# --- refused calls and unread lines ----------------------------------------------------------------------------------


def test_a_refused_stack_and_locked_memory() -> None:
    said = words(case("mmap_refused_eagain"))
    assert "1 mmap of 8,392,704 bytes (8 MiB; MAP_STACK, a thread's stack) was refused with EAGAIN (line 2)" in said
    assert "mlockall(MCL_FUTURE) on (line 1) is locked, and RLIMIT_MEMLOCK" in said


RW = "PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
ENOMEM = "-1 ENOMEM (Cannot allocate memory)"
LIMIT = "{rlim_cur=4096*1024, rlim_max=RLIM64_INFINITY}"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param(
            f"prlimit64(0, RLIMIT_AS, {LIMIT}, NULL) = 0\nmmap(NULL, 8388608, {RW}) = {ENOMEM}\n",
            "RLIMIT_AS (4,194,304 bytes (4 MiB), set in line 4; 8.1 MiB would have been in use)", id="one limit",
        ),
        pytest.param(
            f"prlimit64(0, RLIMIT_AS, {LIMIT}, NULL) = 0\nprlimit64(0, RLIMIT_DATA, {LIMIT}, NULL) = 0\n"
            f"mmap(NULL, 8388608, {RW}) = {ENOMEM}\n",
            "each of these alone refuses it: RLIMIT_AS", id="which of several limits",
        ),
        pytest.param(
            f"prlimit64(0, RLIMIT_AS, NULL, {LIMIT}) = 0\nmmap(NULL, 8388608, {RW}) = {ENOMEM}\n",
            "RLIMIT_AS (4,194,304 bytes (4 MiB), as line 4 tells; 8.1 MiB would have been in use)",
            id="a limit asked for",
        ),
        pytest.param(
            f"prlimit64(7, RLIMIT_AS, {LIMIT}, NULL) = 0\nmmap(NULL, 8388608, {RW}) = {ENOMEM}\n",
            "no limit that the log shows explains it", id="another process's limit",
        ),
        pytest.param(
            f"mmap(NULL, 4194304, {RW.replace('US,', 'US|MAP_HUGETLB,')}) = {ENOMEM}\n",
            "(4 MiB; MAP_HUGETLB, huge pages) was refused with ENOMEM (line 4): so many huge pages are not free",
            id="huge pages",
        ),
        pytest.param(
            "".join(f"mmap(NULL, {68719476736 + more}, {RW}) = {ENOMEM}\n" for more in (0, 4096)),
            "2 mmaps of about 64 GiB were refused", id="nearly the same length",
        ),
        pytest.param(f"mmap(NULL, 281474976710656, {RW}) = {ENOMEM}\n", "more than a program has addresses for",
                     id="no such space"),
        pytest.param(f"mmap(NULL, 68719476736, {RW}) = {ENOMEM}\n", "likely more than memory and swap together",
                     id="overcommit"),
        pytest.param("mprotect(0x7f0000000000, 4096, PROT_READ) = -1 EACCES (Permission denied)\n",
                     "1 mprotect of 4,096 bytes (4 KiB) was refused with EACCES (line 4)", id="mprotect"),
        pytest.param("mremap(0x7f0000000000, 4096, 8192, 0) = -1 EFAULT (Bad address)\n",
                     "the old range is not mapped as a whole", id="mremap"),
    ],
)  # fmt: skip
def test_a_refused_call_is_told_with_its_reason(load, lines: str, reason: str) -> None:
    assert reason in words(load(START + lines + END))


def test_a_limit_is_inherited_from_the_parent_and_never_from_another_child(load) -> None:
    run = load(
        "".join(f"100 {line}\n" for line in START.splitlines())
        + f"100 fork() = 101\n101 setrlimit(RLIMIT_AS, {LIMIT}) = 0\n100 fork() = 102\n101 fork() = 103\n"
        + f"102 mmap(NULL, 8388608, {RW}) = {ENOMEM}\n103 mremap(0x1000000, 4096, 8388608, 0) = {ENOMEM}\n"
    )
    said = words(run)
    assert "1 mmap of 8,388,608 bytes (8 MiB) was refused with ENOMEM (line 8): no limit that the log shows" in said
    assert "refused with ENOMEM (line 9): RLIMIT_AS (4,194,304 bytes (4 MiB), set in line 5" in said


def test_unread_lines_that_name_memory_calls_stand_first() -> None:
    run = case("not_understood_memory_calls")
    said = words(run)
    assert "the log has no call that concerns memory (brk" not in said
    if run.summary["brk_failures"].tolist() != [1]:
        assert (
            "lines that look like execve, brk and mmap could not be read (lines 1 to 4): what follows may miss" in said
        )
        assert said.index("could not be read") < said.index("cannot be judged")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("brk(0x2021000) = 0x2000000", "No mmap that could be read stood in for it."),
        (
            "brk(0) = 0x2000000\nbrk(0x2021000) = 0x2021000",
            "No brk that could be read was refused: the break grew once",
        ),
        ("brk(NULL) = 0x2000000", "No brk that could be read was refused, and the log shows no growth"),
        ("munmap(0x7f0000000000, 4096) = 0", "The log has no brk call that could be read."),
    ],
)
def test_what_no_call_did_is_not_claimed_of_lines_that_could_not_be_read(load, call: str, said: str) -> None:
    assert said in words(load(START.partition("brk")[0] + f"{call}\nbrk(0x20$%21000) = ???\nmmap(0x$%&) = ???\n" + END))


# --- leaks -----------------------------------------------------------------------------------------------------------


def blocks(count: int, size: int = 1000) -> str:
    return "".join(f"malloc({size}) = {0x20006A0 + 0x3F0 * at:#x}\n" for at in range(count))


@pytest.mark.parametrize(
    ("end", "answer", "said"),
    [
        (LT_END, "leak", "A leak, unless the program keeps those blocks on purpose. 51 blocks"),
        ("", None, "Whether it is a leak cannot be told: the log ends before the program's exit. 51 blocks"),
        ("+++ killed by SIGKILL +++\n", None, "Whether it is a leak cannot be told: the program was killed"),
    ],
)
def test_a_leak_is_claimed_only_where_the_program_ended_by_itself(
    load, end: str, answer: str | None, said: str
) -> None:
    run = load(LT_START.replace("prog->", "") + "malloc(8) = 0x2000690\nfree(0x2000690) = <void>\n" + blocks(50) + end)
    assert json_report(run)["malloc"]["answer"]["answer"] == answer
    assert said in words(run)
    assert ("before the exit" in words(run)) == (end == LT_END)


def test_frees_that_the_log_leaves_out_make_no_leak(load) -> None:
    run = load(LT_START.replace("prog->", "") + blocks(50) + LT_END)
    assert json_report(run)["malloc"]["answer"]["answer"] is None
    assert "the log shows no free at all" in words(run)


def test_never_neither_while_another_process_left_blocks(load) -> None:
    parent = LT_START.replace("prog->", "") + "SYS_fork() = 12\n"
    lines = [f"11 {line}" for line in parent.splitlines()]
    lines += ["12 malloc(900) = 0x2000690", "12 SYS_exit_group(0 <no return ...>", "12 +++ exited (status 0) +++"]
    lines += ["11 malloc(5000) = 0x2001000", "11 free(0x2001000) = <void>", "11 free(0x20002a0) = <void>"]
    lines += ["11 +++ exited (status 0) +++"]
    said = words(load("\n".join(lines) + "\n"))
    assert "Neither" not in said
    assert "In space 1 (pid 12) 1 block, 900 bytes, was not freed either." in said


def test_unseen_memory_is_no_fragmentation() -> None:
    run = case("ltrace_unseen_is_not_free")
    assert run.fragmentation[["free_bytes", "pinned_bytes", "unseen_bytes"]].to_numpy()[-1].tolist() == [0, 0, 551104]
    said = words(run)
    assert "Fragmentation" not in said.split("What this log cannot tell")[0] and "Both" not in said
    assert "Free the block" not in said and "malloc_trim" not in said


# --- mapped is not resident ------------------------------------------------------------------------------------------


def test_what_has_no_access_cannot_be_resident(load) -> None:
    reserve = "mmap(NULL, 1073741824, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x7f0000000000\n"
    run = load(START + reserve + f"mmap(NULL, 8192, {RW}) = 0x7f1000000000\n" + END)
    assert run.summary["resident_at_most_bytes"].tolist() == [0x21000 + 8192]
    assert run.summary["log_end"].tolist() == ["exit"]
    assert "at the peak 1 GiB were mapped, 1 GiB of them without access, only reserved: at most 140 KiB can" in words(
        run
    )


def test_heaps_of_arenas_count_as_what_is_kept_of_their_reserves(load) -> None:
    lines = []
    for at in range(3):
        base = 0x7F0000000000 + (at << 28)
        lines += [f"mmap(NULL, 134217728, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = {base:#x}",
                  f"munmap({base + (64 << 20):#x}, 67108864) = 0",
                  f"mprotect({base:#x}, 135168, PROT_READ|PROT_WRITE) = 0"]  # fmt: skip
    said = words(load(START + "\n".join(lines) + "\n" + END))
    assert "3 heaps of arenas glibc 201,326,592 (192 MiB)" in said
    assert "192 MiB in all, of which 396 KiB were made usable" in said


# --- logs of several runs --------------------------------------------------------------------------------------------


def refused(paths: list[Path]) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, paths)])
    assert done.exit_code == 1
    with pytest.raises(ReplayError) as error:
        replay.load(paths)
    assert "`replay batch " in str(error.value) and "`replay compare " in str(error.value)
    return str(error.value)


def test_the_same_file_twice_and_a_copy_are_refused(tmp_path: Path) -> None:
    log, copy, link = (tmp_path / name for name in ("a.log", "b.log", "c.log"))
    log.write_text(LT_START + blocks(20) + LT_END)
    shutil.copy(log, copy)
    link.symlink_to(log)
    assert "they are the same file" in refused([log, log])
    assert "they are the same file" in refused([log, link])
    assert "the one is a copy of the other" in refused([log, copy])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(START + END, START.replace("1021", "1042") + END, id="two programs without pids"),
        pytest.param("7 " + (START + END).strip().replace("\n", "\n7 ") + "\n",
                     "9 " + (START + END).strip().replace("\n", "\n9 ") + "\n", id="two pids that begin and end"),
        pytest.param(LT_START + LT_END, "malloc(10) = 0x5000\n" + LT_END, id="ltrace"),
    ],
)  # fmt: skip
def test_a_log_that_goes_on_after_everyone_ended_is_of_another_run(tmp_path: Path, first: str, second: str) -> None:
    paths = [tmp_path / "a.log", tmp_path / "b.log"]
    for path, text in zip(paths, (first, second), strict=True):
        path.write_text(text)
    assert "has ended there" in refused(paths)


def test_a_log_in_two_pieces_is_one_run(tmp_path: Path) -> None:
    paths = [tmp_path / "a.log", tmp_path / "b.log"]
    paths[0].write_text(START)
    paths[1].write_text("brk(0x1042000) = 0x1042000\n" + END)
    assert replay.load(paths).summary["brk_calls"].tolist() == [3]


def test_a_set_of_two_programs_at_different_times_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "log.7", tmp_path / "log.9"]
    for path, second in zip(paths, (100, 200), strict=True):
        lines = enumerate((START + END).splitlines())
        path.write_text("".join(f"1700000{second}.00000{at} {line}\n" for at, line in lines))
    assert "the one begins after the other has ended" in refused(paths)
    paths[1].write_text(paths[0].read_text().replace("0x1021000", "0x1031000"))
    assert len(replay.load(paths).events) == 8  # at one time: two processes of one run
