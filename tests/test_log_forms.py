"""Logs of forms that tracers and people bring out, read to the end: each with what is true of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import replay
from replay.errors import TraceFormatError

PUBLIC, PEERS, KERNEL = (Path(__file__).parent / "cases" / kind for kind in ("public", "peers", "kernel"))


def summary(log: Path) -> dict[str, Any]:
    return replay.load(log).summary.iloc[0].to_dict()


def events(log: Path, *columns: str) -> list[tuple[Any, ...]]:
    """Return the rows of a log's events, nulls as None."""
    frame = replay.load(log).events[list(columns)].astype(object)
    return [tuple(row) for row in frame.where(frame.notna(), None).itertuples(index=False)]


def written(folder: Path, *lines: str) -> Path:
    log = folder / "x.log"
    log.write_text("".join(line + "\n" for line in lines))
    return log


# --- logs as people have them ---


@pytest.mark.parametrize(
    ("log", "line"),
    [
        *((path.name, 2) for path in sorted(PUBLIC.glob("prefix_*.log"))),
        ("nbsp_from_web_page.log", 3),
        ("not_understood_memory_calls.log", 4),
    ],
)
def test_the_failed_break_is_read_behind_a_prefix(log: str, line: int) -> None:
    run = replay.load(PUBLIC / log)
    failure = run.brk_failures.iloc[0]
    assert (failure.line, failure.requested, failure.granted) == (line, 0x6C2000, 0x6A1000)
    assert failure.shortfall_bytes == 135_168
    assert run.source.problems.total == 0


@pytest.mark.parametrize("log", [path.name for path in sorted(PUBLIC.glob("prefix_*.log"))])
def test_the_fallback_is_read_behind_a_prefix(log: str) -> None:
    found = summary(PUBLIC / log)
    assert (found["mmap_fallbacks"], found["mmap_fallback_bytes"], found["lines"]) == (1, 1_048_576, 4)


def test_utf_16_with_a_byte_order_mark() -> None:
    found = summary(PUBLIC / "utf16_bom.log")
    assert (found["lines"], found["lines_understood"], found["problems"]) == (4, 4, 0)
    assert found["programs"] == "./prog"


def test_a_wrapped_result_is_the_whole_one() -> None:
    assert events(PUBLIC / "wrapped_result.log", "line", "call", "addr", "result") == [
        (2, "mmap", 0x7A20400000, 0x7A20400000),
        (4, "brk", 0x5B00021000, 0x5B00021000),
    ]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("truss_freebsd.log", "truss"),
        ("c_table_without_percent.log", r"only a summary table \(-c\), which holds no calls"),
        ("numbered_malloc_lines.log", "uftrace"),
    ],
)
def test_what_is_no_log_is_named(log: str, message: str) -> None:
    with pytest.raises(TraceFormatError, match=message):
        replay.load(PUBLIC / log)


def test_offsets_of_mmap2_in_pages() -> None:
    run = replay.load(PUBLIC / "mmap2_offset_in_pages.log")
    assert run.events.offset.dropna().tolist() == [0, 147_456]
    assert "b7c35000-b7c37000 rw-p 00024000 " in run.maps()


def test_a_log_without_steps_maps_nothing() -> None:
    assert replay.load(PUBLIC / "maps_of_a_log_without_steps.log").maps() == ""


# --- numbers that cannot be ---


@pytest.mark.parametrize(
    "line",
    [
        "mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7a2041",
        "mmap(0x7a20400000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED, 5, 0) = 0x7a204000",
        "mremap(0x7000, 4096, 8192, MREMAP_MAYMOVE) = 0x90010",
        "brk(0x10000000000000000) = 0x405000",
        "munmap(0x7000, 18446744073709551616) = 0",
        "munmap(0x7000, 99999999999999999999999999999999999999999999999999999999999999999999999) = 0",
        "[pid 99999999999] brk(0x405000) = 0x405000",
        "prlimit64(0, RLIMIT_AS, {rlim_cur=99999999999999999999*1024, rlim_max=RLIM64_INFINITY}, NULL) = 0",
    ],
)
def test_what_cannot_be_is_a_problem(tmp_path: Path, line: str) -> None:
    run = replay.load(written(tmp_path, "brk(NULL) = 0x405000", line))
    assert [(p.line, p.reason) for p in run.problems.itertuples()] == [(2, "impossible_value")]
    assert run.events.line.tolist() == [1]


@pytest.mark.parametrize(
    "line",
    [
        "mmap(0x123, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x123 (INJECTED)",
        "mmap(NULL, 18446744073709547520, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = -1 ENOMEM (Cannot allocate)",
        "mmap2(0xf7fe4000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0xfffffffff7fe4000",
        "mmap(0, 0x2000, 0x3, 0x22, 0xffffffffffffffff, 0) = 0x7ffff7ff5000",
        "mmap(0, 0x2000, 0x3, 0x22, 0xffffffff, 0) = 0x7ffff7ff5000",
    ],
)
def test_what_can_be_is_none(tmp_path: Path, line: str) -> None:
    assert summary(written(tmp_path, line))["problems"] == 0


# --- forms that the tracers' own test programs bring out ---


def test_a_superseding_execve_that_was_left_open() -> None:
    log = PEERS / "execve_unfinished_in_thread_superseded.log"
    rows = [row for row in events(log, "call", "line", "entry_line", "pid", "path", "status") if row[0] == "execve"]
    assert rows == [("execve", 1, 1, 100, "/bin/a", "ok"), ("execve", 6, 3, 100, "/bin/b", "ok")]
    assert "unfinished" not in {status for (status,) in events(log, "status")}
    assert summary(log)["processes"] == 1


def test_a_failed_call_has_no_result() -> None:
    log = PEERS / "failed_result_not_null.log"
    assert events(log, "result", "errno") == [(None, "ENOMEM"), (None, "EINVAL"), (None, "ENOENT")]
    assert events(PUBLIC / "failed_call_has_no_result.log", "line", "result")[1] == (2, None)


def test_flags_and_protections_are_as_printed() -> None:
    assert events(PEERS / "pkey_mprotect_prot_64bit.log", "prot") == [("0xdeadfeed00ca7500",)] * 3
    assert events(PEERS / "shmget_flags_not_as_printed.log", "flags") == [
        ("IPC_CREAT|0600",),
        ("IPC_CREAT|SHM_HUGETLB|21<<SHM_HUGE_SHIFT|0600",),
    ]


def test_negated_and_shifted_flags_of_prctl() -> None:
    log = PEERS / "prctl_negated_flag.log"
    rows = events(log, "call", "errno")
    assert rows == [("brk", None), *[("prctl", "EINVAL")] * 4, ("brk", None)]
    assert summary(log)["problems"] == 0


def test_a_call_by_number_of_ltrace_0_8() -> None:
    log = PEERS / "ltrace08_clone3_by_number.log"
    assert events(log, "call", "result")[1] == ("clone3", 101)
    found = summary(log)
    assert (found["processes"], found["threads"], found["problems"]) == (1, 2, 0)


def test_a_call_that_does_not_return_is_of_ltrace() -> None:
    log = PEERS / "ltrace_abort_no_return.log"
    assert events(log, "dialect", "call", "status") == [("ltrace", "abort", "unfinished")]
    assert summary(log)["problems"] == 0


@pytest.mark.parametrize("name", ["getrlimit", "ugetrlimit"])
def test_limits_that_are_read_are_calls(tmp_path: Path, name: str) -> None:
    log = written(tmp_path, f"{name}(RLIMIT_DATA, {{rlim_cur=256*1024, rlim_max=RLIM64_INFINITY}}) = 0")
    calls = replay.load(log).source
    assert events(log, "call", "name") == [("prlimit", name)]
    assert calls.problems.total == 0


@pytest.mark.parametrize("name", ["SYS_018", "SYS_0x", "SYS_9abc", "SYS_" + "9" * 5000])
def test_no_call_by_number_crashes(tmp_path: Path, name: str) -> None:
    assert summary(written(tmp_path, "SYS_brk(0) = 0x1000", f"{name}(1, 2)   = 0"))["lines"] == 2


def test_of_a_raw_descriptor_the_lower_half_counts(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        "dup2(0xdefacedffffffff, 0xdefaced00000000) = -1 EBADF (Bad file descriptor)",
        "close(0xf00000003) = 0",
    )
    assert events(log, "call", "fd") == [("dup2", -1), ("close", 3)]


def test_raw_ipc_calls_have_the_address_last(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        "shmat(5, 0, 0, 0xf7ff3000) = 0xf7ff3000",
        "shmat(0x8000, 0, 0xffdc1234, 0) = 0",
        "shmdt(0, 0, 0, 0xf7ff3000) = 0",
        "shmdt(0xf7ff5000) = 0",
    )
    assert events(log, "call", "addr", "result") == [
        ("shmat", 0xF7FF3000, None), ("shmat", 0, None), ("shmdt", 0xF7FF3000, 0), ("shmdt", 0xF7FF5000, 0)
    ]  # fmt: skip


def test_what_ltrace_says_of_itself_is_understood(tmp_path: Path) -> None:
    log = written(tmp_path, "prog->malloc(10) = 0x5000", "maximum array length seems negative", "error: bad number")
    found = summary(log)
    assert (found["lines_understood"], found["problems"]) == (3, 0)


# --- ltrace without -S ---


def test_the_own_sbrk_and_mmap_of_a_program_are_replayed() -> None:
    run = replay.load(PUBLIC / "ltrace_sbrk_and_mmap.log")
    failure = run.brk_failures.iloc[0]
    assert (failure.line, failure.requested, failure.granted) == (4, 0x8A0C5FFF, 0x0A0C6000)
    assert failure.shortfall_bytes == 2_147_483_647
    assert [line.split()[0] for line in run.maps().splitlines()] == ["0a0c4000-0a0c6000", "b7501000-b7502000"]


def test_wrappers_are_not_replayed_beside_the_system_calls(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        "prog->mmap(0, 8192, 3, 34 <unfinished ...>",
        "SYS_mmap(0, 0x2000, 3, 34)    = 0xb7500000",
        "<... mmap resumed> )          = 0xb7500000",
        "prog->sbrk(4096 <unfinished ...>",
        "SYS_brk(0x5000)               = 0x5000",
        "<... sbrk resumed> )          = 0x4000",
    )
    assert events(log, "call", "name") == [("mmap", "SYS_mmap"), ("brk", "SYS_brk"), ("sbrk", "sbrk")]


def test_a_call_shown_at_both_ends_is_replayed_once(tmp_path: Path) -> None:
    log = written(
        tmp_path,
        "prog->mmap(0, 8192, 3, 34, -1, 0 <unfinished ...>",
        "mmap@libc.so.6(0, 8192, 3, 34, -1, 0)    = 0xb7500000",
        "<... mmap resumed> )          = 0xb7500000",
        "prog->brk(0x5000)             = 0",
    )
    assert events(log, "call", "line", "result") == [("mmap", 2, 0xB7500000), ("brk", 4, 0x5000)]


def test_fork_copies_blocks() -> None:
    found = summary(KERNEL / "ltrace_fork_child_frees_parents_block.log")
    assert (found["live_blocks"], found["live_bytes"]) == (2, 1020)
