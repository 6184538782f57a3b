"""The allocators' rules, each on a trace of a few lines: why a brk was refused, and what a mapping is."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from replay.allocator import Replayed, allocator_activity
from replay.allocator.neighbours import Neighbours
from replay.calls.reader import read_logs
from replay.engine import column_store as packed
from replay.engine.column_store import Shelf, packed_columns
from replay.engine.columns import NULL, Strings
from replay.engine.structs import replace
from replay.spaces.replay import replay

RW = "PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
NONE = "PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0"
PAGE = 4096
GROWTH = 0x21000
BREAK = 0x555555581000
ENOMEM = "-1 ENOMEM (Cannot allocate memory)"

GLIBC = """
    execve("./prog", ["./prog"], 0x7ffd00000000 /* 2 vars */) = 0
    brk(NULL) = 0x555555560000
    mmap(NULL, 8192, RW) = 0x7f0000400000
    mmap(NULL, 1974096, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3</usr/lib/libc.so.6>, 0) = 0x7f0000200000
    mmap(NULL, 200704, RW) = 0x7f00001c0000
    brk(NULL) = 0x555555560000
    brk(0x555555581000) = 0x555555581000
"""
"""A program of glibc up to its first malloc: ld.so's own memory, a large TLS, the break at 0x555555581000."""


@dataclass(frozen=True)
class Row:
    """One row of a table, texts as texts, nulls as None."""

    values: dict[str, object]

    def __getattr__(self, name: str) -> object:
        return self.values[name]


@dataclass(frozen=True)
class Found:
    failures: list[Row]
    mmaps: list[Row]
    allocators: list[tuple[object, object]]

    def kinds(self) -> list[tuple[object, object]]:
        return [(row.kind, row.bytes) for row in self.mmaps]


TEXTS = ("cause", "blocker_path", "evidence", "kind", "errno", "allocator", "certainty", "name")


def rows_of(columns: dict[str, np.ndarray], strings: Strings) -> list[Row]:
    def value(name: str, number: int) -> object:
        if name in TEXTS:
            return None if number < 0 else strings[number]
        return None if number == NULL else number

    lists = {name: column.tolist() for name, column in columns.items()}
    count = len(next(iter(lists.values())))
    return [Row({name: value(name, numbers[row]) for name, numbers in lists.items()}) for row in range(count)]


def record_of(text: str, tmp_path: Path) -> Replayed:
    log = tmp_path / "trace.log"
    log.write_text("\n".join(line.strip() for line in text.strip().splitlines()).replace("RW)", f"{RW})") + "\n")
    source = read_logs([log])
    made = replay(source, source.strings)
    return Replayed(made.events, made.brks, made.regions, made.spaces, source.strings, made.page_size)


def found_in(record: Replayed) -> Found:
    activity = allocator_activity(record)
    names = rows_of(activity.allocators, record.strings)
    return Found(
        rows_of(activity.brk_failures, record.strings),
        rows_of(activity.allocator_mmaps, record.strings),
        [(row.space, row.name) for row in names],
    )


@pytest.fixture
def examine(tmp_path: Path):
    """Return what the allocator layer finds in a trace; `RW` stands for what malloc passes to mmap."""
    return lambda *parts: found_in(record_of("\n".join(textwrap.dedent(part).strip() for part in parts), tmp_path))


def refused(growth: int = GROWTH, at: int = BREAK) -> str:
    return f"brk({at + growth:#x}) = {at:#x}"


# ------------------------------------------------------------------------------------------------ why brk was refused


@pytest.mark.parametrize(
    ("pages_free", "pages_asked", "cause"),
    [
        (0, 1, "mapping_above"),
        (1, 1, "mapping_above"),
        (2, 1, "unknown"),
        (33, 33, "mapping_above"),
        (34, 33, "unknown"),
    ],
)
def test_one_page_stays_free_below_the_mapping_above(examine, pages_free: int, pages_asked: int, cause: str) -> None:
    """A mapping N pages up leaves N - 1 pages; what fits was not refused by it."""
    wall = BREAK + pages_free * PAGE
    found = examine(
        GLIBC,
        f"mmap({wall:#x}, 8192, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED_NOREPLACE, -1, 0) = {wall:#x}",
        refused(pages_asked * PAGE),
    )
    (failure,) = found.failures
    assert failure.cause == cause
    assert (failure.requested, failure.granted) == (BREAK + pages_asked * PAGE, BREAK)
    assert failure.shortfall_bytes == pages_asked * PAGE
    if cause == "mapping_above":
        assert (failure.blocker_start, failure.blocker_end, failure.blocker_line) == (wall, wall + 8192, 8)
        assert "the 2-page ---p mapping" in failure.evidence
        assert f"at {wall:#x} (line 8)" in failure.evidence
    else:
        assert failure.blocker_start is None


@pytest.mark.parametrize(("pages_free", "cause"), [(258, "mapping_above"), (289, "mapping_above"), (290, "unknown")])
def test_256_pages_more_stay_free_below_a_mapping_that_grows_down(examine, pages_free: int, cause: str) -> None:
    wall = BREAK + pages_free * PAGE
    flags = "MAP_PRIVATE|MAP_ANONYMOUS|MAP_GROWSDOWN|MAP_FIXED_NOREPLACE"
    found = examine(
        GLIBC, f"mmap({wall:#x}, 4096, PROT_READ|PROT_WRITE, {flags}, -1, 0) = {wall:#x}", refused(33 * PAGE)
    )
    assert [row.cause for row in found.failures] == [cause]
    assert ("256 guard pages" in found.failures[0].evidence) == (cause == "mapping_above")


def test_a_file_in_the_way_is_named(examine) -> None:
    found = examine(
        GLIBC,
        f"mmap({BREAK + 8192:#x}, 4096, PROT_READ, MAP_SHARED|MAP_FIXED, 3</var/data>, 0) = {BREAK + 8192:#x}",
        refused(),
    )
    (failure,) = found.failures
    assert failure.blocker_path == "/var/data"
    assert "r--s mapping of /var/data" in failure.evidence
    assert "begins 2 pages above the break" in failure.evidence
    assert "room for one page" in failure.evidence


@pytest.mark.parametrize("call", ["brk(NULL) = 0x555555581000", "brk(0x1000) = 0x555555581000"])
def test_neither_a_question_nor_a_break_below_the_start_is_a_failure(examine, call: str) -> None:
    assert examine(GLIBC, call).failures == []


LIMIT = "prlimit64(0, {}, {{rlim_cur={}*1024, rlim_max=RLIM64_INFINITY}}, NULL) = 0"


@pytest.mark.parametrize(
    ("limit", "kib", "proven"),
    [("RLIMIT_DATA", 400, True), ("RLIMIT_DATA", 4096, False), ("RLIMIT_AS", 2300, True), ("RLIMIT_AS", 9000, False)],
)
def test_a_limit_that_the_program_set_explains_it(examine, limit: str, kib: int, proven: bool) -> None:
    """Where the log's own figures do not exceed it, the program's image, which the log does not show, may have."""
    found = examine(GLIBC, LIMIT.format(limit, kib), refused(), f"mmap(NULL, 1048576, RW) = {ENOMEM}")
    (failure,) = found.failures
    assert (failure.cause, failure.limit_bytes) == (limit.lower(), kib * 1024)
    assert ("(inferred)" in failure.evidence) != proven
    assert found.kinds() == [("fallback", 1048576)]
    assert (found.mmaps[0].errno, found.mmaps[0].addr) == ("ENOMEM", None)


def test_a_limit_did_not_refuse_what_mmap_then_granted(examine) -> None:
    found = examine(GLIBC, LIMIT.format("RLIMIT_DATA", 4096), refused(), "mmap(NULL, 1048576, RW) = 0x7f0000000000")
    assert found.failures[0].cause == "unknown"
    assert "a mapping that the log does not show" in found.failures[0].evidence


def test_the_mapping_above_comes_before_a_limit(examine) -> None:
    wall = f"mmap({BREAK:#x}, 4096, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0) = {BREAK:#x}"
    found = examine(GLIBC, LIMIT.format("RLIMIT_DATA", 4), wall, refused())
    assert (found.failures[0].cause, found.failures[0].limit_bytes) == ("mapping_above", None)


def test_a_lifted_limit_refuses_nothing(examine) -> None:
    lifted = "prlimit64(0, RLIMIT_DATA, {rlim_cur=RLIM64_INFINITY, rlim_max=RLIM64_INFINITY}, NULL) = 0"
    assert examine(GLIBC, LIMIT.format("RLIMIT_DATA", 400), lifted, refused()).failures[0].cause == "unknown"


def test_a_huge_growth_that_nothing_else_refuses_is_overcommit(examine) -> None:
    found = examine(GLIBC, refused(64 << 30), f"mmap(NULL, {(64 << 30) + (1 << 20)}, RW) = {ENOMEM}")
    assert found.failures[0].cause == "overcommit"
    assert found.kinds() == [("fallback", (64 << 30) + (1 << 20))]


def test_the_map_count(examine, tmp_path: Path) -> None:
    record = record_of(textwrap.dedent(GLIBC) + refused(), tmp_path)
    full = np.full(record.brks.rows, 65530, dtype=np.int64)
    brks = packed_columns(record.brks.shelf, (dict(record.brks) | {"mapping_count": full}).items())
    found = found_in(replace(record, brks=brks))
    assert found.failures[0].cause == "map_count"
    assert "65530 mappings" in found.failures[0].evidence


@pytest.mark.parametrize("answer", ["0", "-1 ENOMEM (Cannot allocate memory)"])
def test_an_injected_answer_is_the_cause(examine, answer: str) -> None:
    found = examine(GLIBC, f"brk(0x5555555a2000) = {answer} (INJECTED)", "mmap(NULL, 1048576, RW) = 0x7f0000000000")
    (failure,) = found.failures
    assert (failure.cause, failure.granted, failure.shortfall_bytes) == ("injected", BREAK, GROWTH)
    assert found.kinds() == [("fallback", 1048576)]


def test_an_attach_says_what_it_does_not_know(examine) -> None:
    found = examine("brk(0x5555555a2000) = 0x555555581000", f"mmap(NULL, {GROWTH}, RW) = 0x7f0000000000")
    assert found.failures[0].cause == "unknown"
    assert "the log shows no mapping above the break" in found.failures[0].evidence
    assert found.kinds() == [("fallback", GROWTH)]


def test_after_an_attach_the_first_refusal_tells_where_the_break_is(examine) -> None:
    found = examine(
        f"mmap({BREAK + 8192:#x}, 4096, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0) = {BREAK + 8192:#x}",
        refused(),
    )
    assert found.failures[0].cause == "mapping_above"
    assert found.failures[0].blocker_line == 1
    assert "begins 2 pages above the break" in found.failures[0].evidence


# --------------------------------------------------------------------------------------------------- fallbacks of brk

OLD_MUSL = """
    execve("./prog", ["./prog"], 0x7ffd00000000 /* 2 vars */) = 0
    open("/etc/x", O_RDONLY) = 3
    brk(NULL) = 0x555555581000
"""


@pytest.mark.parametrize(
    ("before", "growth", "length", "kind"),
    [
        pytest.param(GLIBC, GROWTH, 1048576, "fallback", id="glibc: 1 MiB"),
        pytest.param(GLIBC, GROWTH, GROWTH, "fallback", id="glibc 2.35 to 2.37: the growth itself"),
        pytest.param(GLIBC, GROWTH, 2097152, "fallback", id="glibc 2.35 to 2.37: rounded to 1 MiB"),
        pytest.param(GLIBC, 0x1019000, 17825792, "fallback", id="glibc: a large top_pad"),
        pytest.param(GLIBC, 0x1019000, 1052672, "direct", id="smaller than what brk was asked for"),
        pytest.param(GLIBC, 4096, 303104, "direct", id="unlike what any libc falls back to"),
        pytest.param(OLD_MUSL, 4096, 4096, "fallback", id="musl: one page"),
        pytest.param(OLD_MUSL, 4096, 32768, "fallback", id="musl: a power of two pages"),
        pytest.param(OLD_MUSL, 20480, 20480, "fallback", id="musl: the block"),
        pytest.param(OLD_MUSL, 4096, 303104, "direct", id="musl before 1.1.0: no fallback, a large block of its own"),
    ],
)
def test_sizes_of_fallbacks(examine, before: str, growth: int, length: int, kind: str) -> None:
    found = examine(before, refused(growth), f"mmap(NULL, {length}, RW) = 0x7f0000000000")
    assert found.kinds() == [(kind, length)]
    assert (found.mmaps[0].brk_failure_step is not None) == (kind == "fallback")


def test_a_fallback_names_the_brk_and_its_line(examine) -> None:
    found = examine(GLIBC, refused(), "mmap(NULL, 1048576, RW) = 0x7f0000000000")
    (fallback,) = found.mmaps
    assert (fallback.brk_failure_step, fallback.addr) == (found.failures[0].step, 0x7F0000000000)
    assert (fallback.allocator, fallback.certainty, fallback.request_bytes) == ("glibc", "inferred", None)
    assert f"line {found.failures[0].line} and had asked for {GROWTH} bytes" in fallback.evidence


def test_only_the_next_call_of_the_same_thread_stands_in(examine) -> None:
    """Of another thread a call may come between; of the same one not."""
    lines = [f"10 {line.strip()}" for line in GLIBC.strip().splitlines()]
    thread = "10 clone(child_stack=0x7f0000900000, flags=CLONE_VM|CLONE_THREAD|CLONE_SIGHAND) = 11"
    found = examine(
        "\n".join([*lines, thread]),
        f"10 {refused()}",
        "11 mmap(NULL, 2101248, RW) = 0x7f0000c00000",
        "10 mmap(NULL, 1048576, RW) = 0x7f0000000000",
        f"10 {refused()}",
        "10 munmap(0x7f0000400000, 8192) = 0",
        "10 mmap(NULL, 3149824, RW) = 0x7f0001000000",
    )
    assert found.kinds() == [("direct", 2101248), ("fallback", 1048576), ("direct", 3149824)]
    assert [row.brk_failure_step for row in found.mmaps] == [None, found.failures[0].step, None]


def test_mallocng_falls_back_for_its_metadata_once_and_keeps_blocks_in_groups(examine) -> None:
    found = examine(
        """
        brk(NULL) = 0x37f1000
        brk(0x37f3000) = 0x37f1000
        mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000100000
        mprotect(0x7f0000101000, 4096, PROT_READ|PROT_WRITE) = 0
        mmap(NULL, 32768, RW) = 0x7f00000f0000
        mmap(NULL, 200020, RW) = 0x7f00000b0000
        """
    )
    assert found.kinds() == [("fallback", 8192), ("pool", 32768), ("direct", 200020)]
    assert {row.allocator for row in found.mmaps} == {"musl"}
    assert found.allocators == [(0, "musl")]


RESERVE_REFUSED = f"mmap(NULL, 134217728, {NONE}) = {ENOMEM}\nmmap(NULL, 67108864, {NONE}) = {ENOMEM}"
RESERVE_USELESS = f"""
    mmap(NULL, 134217728, {NONE}) = 0x7f0010000000
    munmap(0x7f0014000000, 67108864) = 0
    mprotect(0x7f0010000000, 135168, PROT_READ|PROT_WRITE) = {ENOMEM}
    munmap(0x7f0010000000, 67108864) = 0
"""


@pytest.mark.parametrize("attempt", [RESERVE_REFUSED, RESERVE_USELESS], ids=["RLIMIT_AS", "RLIMIT_DATA"])
def test_the_last_resort(examine, attempt: str) -> None:
    """Brk, its fallback and two heaps of another arena are refused: the small block is mapped alone."""
    found = examine(
        GLIBC,
        refused(),
        f"mmap(NULL, 1048576, RW) = {ENOMEM}",
        attempt,
        attempt,
        "mmap(NULL, 4096, RW) = 0x7f0000000000",
    )
    assert [row.kind for row in found.mmaps if row.kind != "arena_heap"] == ["fallback", "last_resort"]
    assert {row.errno for row in found.mmaps[:-1]} == {"ENOMEM"}
    assert (found.mmaps[-1].errno, found.mmaps[-1].brk_failure_step) == (None, found.failures[0].step)


# --------------------------------------------------------------------------------------------------- heaps of arenas


def test_a_reserve_cut_to_its_boundary_is_a_heap(examine) -> None:
    found = examine(
        GLIBC,
        f"mmap(NULL, 134217728, {NONE}) = 0x7f000ca00000",
        "munmap(0x7f000ca00000, 56623104) = 0",
        "munmap(0x7f0014000000, 10485760) = 0",
        "mprotect(0x7f0010000000, 135168, PROT_READ|PROT_WRITE) = 0",
    )
    assert found.kinds() == [("arena_heap", 134217728)]
    assert "at 0x7f0010000000, made writable in line 11" in found.mmaps[0].evidence


def test_a_second_heap_of_a_full_arena_says_so(examine) -> None:
    found = examine(
        GLIBC,
        f"mmap(NULL, 134217728, {NONE}) = 0x7f0010000000",
        "munmap(0x7f0014000000, 67108864) = 0",
        "mprotect(0x7f0010000000, 135168, PROT_READ|PROT_WRITE) = 0",
        "mprotect(0x7f0010021000, 66969600, PROT_READ|PROT_WRITE) = 0",
        f"mmap(NULL, 134217728, {NONE}) = 0x7f0008000000",
        "munmap(0x7f000c000000, 67108864) = 0",
        "mprotect(0x7f0008000000, 135168, PROT_READ|PROT_WRITE) = 0",
    )
    assert found.kinds() == [("arena_heap", 134217728)] * 2
    assert "a further heap of the arena whose heap at 0x7f0010000000 has 4096 bytes left" in found.mmaps[1].evidence


def test_a_heap_of_a_32_bit_program(examine) -> None:
    found = examine(
        """
        execve("./prog", ["./prog"], 0xffd00000 /* 2 vars */) = 0
        brk(NULL) = 0x56560000
        mmap2(NULL, 2259228, PROT_READ, MAP_PRIVATE|MAP_DENYWRITE, 3</usr/lib32/libc.so.6>, 0) = 0xf7c00000
        brk(NULL) = 0x56560000
        brk(0x56581000) = 0x56581000
        """,
        f"mmap2(NULL, 2097152, {NONE}) = 0xf7900000",
        "munmap(0xf7a00000, 1048576) = 0",
        "mprotect(0xf7900000, 135168, PROT_READ|PROT_WRITE) = 0",
    )
    assert found.kinds() == [("arena_heap", 2097152)]


def test_an_unreadable_mapping_of_that_size_with_another_use_is_no_heap(examine) -> None:
    found = examine(GLIBC, f"mmap(NULL, 134217728, {NONE}) = 0x7f0010000000", "munmap(0x7f0000400000, 8192) = 0")
    assert found.kinds() == []


# ---------------------------------------------------------------------------------------------------- large requests


def test_freed_large_blocks_raise_the_threshold(examine) -> None:
    found = examine(
        GLIBC,
        """
        mmap(NULL, 1003520, RW) = 0x7f0000000000
        munmap(0x7f0000000000, 1003520) = 0
        brk(0x55555567c000) = 0x55555567c000
        mmap(NULL, 1007616, RW) = 0x7f0000800000
        mmap(NULL, 500000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000a00000
        mmap(NULL, 503808, RW) = 0x7f0000c00000
        """,
    )
    assert found.kinds() == [("direct", 1003520), ("direct", 1007616)]
    assert "131072 bytes then" in found.mmaps[0].evidence
    assert "frees it whole" in found.mmaps[0].evidence
    assert "1003520 bytes then" in found.mmaps[1].evidence


def test_a_block_moved_by_mremap_raises_it_by_its_last_size(examine) -> None:
    found = examine(
        GLIBC,
        """
        mmap(NULL, 200704, RW) = 0x7f0000000000
        mremap(0x7f0000000000, 200704, 2002944, MREMAP_MAYMOVE) = 0x7f0000800000
        munmap(0x7f0000800000, 2002944) = 0
        mmap(NULL, 2007040, RW) = 0x7f0001000000
        """,
    )
    assert "threshold of 2002944 bytes" in found.mmaps[-1].evidence


def test_a_threshold_that_the_program_fixed_does_not_rise(examine) -> None:
    """The break never grew for a block of that size, so nothing speaks against it."""
    found = examine(
        GLIBC,
        """
        mmap(NULL, 5001216, RW) = 0x7f0000000000
        munmap(0x7f0000000000, 5001216) = 0
        mmap(NULL, 4001792, RW) = 0x7f0000800000
        """,
    )
    assert found.kinds() == [("direct", 5001216), ("direct", 4001792)]
    assert "the program's own threshold" in found.mmaps[1].evidence


def test_a_late_free_that_is_larger_than_hundreds_before_it_raises_the_threshold(examine) -> None:
    """Only of frees larger than those before it is looked up whether they free a whole block."""
    at, pages = 0x7F0000000000, [33 + number % 7 for number in range(600)]
    freed = "\n".join(
        f"mmap(NULL, {count * PAGE}, RW) = {at:#x}\nmunmap({at:#x}, {count * PAGE}) = 0" for count in [*pages, 50]
    )
    no_block = f"munmap({at + PAGE:#x}, {90 * PAGE}) = 0"
    found = examine(GLIBC, freed, no_block, f"mmap(NULL, {60 * PAGE}, RW) = {at:#x}")
    assert f"threshold of {50 * PAGE} bytes" in found.mmaps[-1].evidence


@pytest.mark.parametrize(
    "own_use",
    ["mprotect(0x7f0000900000, 4096, PROT_READ) = 0", "munmap(0x7f0000900000, 4096) = 0"],
    ids=["protected", "cut up"],
)
def test_what_the_program_treats_as_its_own_is_no_block(examine, own_use: str) -> None:
    found = examine(GLIBC, "mmap(NULL, 2097152, RW) = 0x7f0000800000", own_use)
    assert found.kinds() == []


@pytest.mark.parametrize(
    "call",
    [
        "mmap(NULL, 131072, RW) = 0x7f0000800000",
        "mmap(NULL, 8392704, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_STACK, -1, 0) = 0x7f0000800000",
        "mmap(NULL, 300000, PROT_READ|PROT_WRITE, MAP_PRIVATE, 3</var/data>, 0) = 0x7f0000800000",
        "mmap(NULL, 303104, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0) = 0x7f0000800000",
        "mmap(NULL, 303104, PROT_READ|PROT_WRITE|PROT_EXEC, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000800000",
        "mmap(0x7f0000200000, 303104, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x7f0000200000",  # noqa: E501
        "mmap(NULL, 303104, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_POPULATE, -1, 0) = 0x7f0000800000",
        "mmap(NULL, 303104, RW) = 0x7f0000800000 (INJECTED)",
    ],
    ids=["threshold", "stack", "file", "shared", "executable", "fixed", "populated", "injected"],
)
def test_what_is_no_allocators_mapping(examine, call: str) -> None:
    """Nor is the loader's own memory before the first malloc, the 200704 bytes in every trace here."""
    assert examine(GLIBC, call).mmaps == []


def test_a_refused_large_request_is_one_too(examine) -> None:
    found = examine(GLIBC, f"mmap(NULL, 68719480832, RW) = {ENOMEM}")
    assert found.kinds() == [("direct", 68719480832)]
    assert (found.mmaps[0].errno, found.mmaps[0].addr) == ("ENOMEM", None)


# ------------------------------------------------------------------------------------------- pools, and whose they are


def library(path: str) -> str:
    """Return the start of a program before whose libc such a library is mapped, as ld.so does."""
    mapped = f"mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 4</usr/lib/{path}>, 0) = 0x7f0000600000"
    return GLIBC.replace("mmap(NULL, 1974096", f"{mapped}\n    mmap(NULL, 1974096")


GO = """
    execve("./prog", ["./prog"], 0x7ffd00000000 /* 2 vars */) = 0
    mmap(0xc000000000, 67108864, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0xc000000000
    mmap(0xc000000000, 4194304, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0xc000000000
"""


@pytest.mark.parametrize(
    ("before", "call", "allocator"),
    [
        pytest.param(
            library("libjemalloc.so.2"), "mmap(NULL, 2097152, RW) = 0x7f0000800000", "jemalloc", id="jemalloc"
        ),
        pytest.param(
            library("libtcmalloc.so.4"), "mmap(NULL, 1052672, RW) = 0x7f0000800000", "tcmalloc", id="tcmalloc"
        ),
        pytest.param(
            library("libmimalloc.so.2"),
            f"mmap(0x5f778000000, 33554432, {NONE}) = 0x5f778000000",
            "mimalloc",
            id="mimalloc",
        ),
        pytest.param(
            library("libpython3.11.so.1.0"), "mmap(NULL, 1048576, RW) = 0x7f0000800000", "cpython", id="cpython"
        ),
        pytest.param(
            library("libpython3.9.so.1.0"), "mmap(NULL, 262144, RW) = 0x7f0000800000", "cpython", id="old cpython"
        ),
        pytest.param(
            library("server/libjvm.so"), f"mmap(0xf8000000, 134217728, {NONE}) = 0xf8000000", "hotspot", id="hotspot"
        ),
        pytest.param(library("libnode.so.108"), f"mmap(0x3f2a8000000, 520192, {NONE}) = 0x3f2a8000000", "v8", id="v8"),
        pytest.param(GO, "mmap(NULL, 262144, RW) = 0x7f0000800000", "go", id="go"),
    ],
)
def test_pools(examine, before: str, call: str, allocator: str) -> None:
    found = examine(before, call)
    assert (found.mmaps[-1].kind, found.mmaps[-1].allocator) == ("pool", allocator)
    assert allocator in [name for _, name in found.allocators]


def test_a_cpython_arena_right_after_a_refused_brk_is_a_fallback(examine) -> None:
    arena = "mmap(NULL, 1048576, RW) = 0x7f0000800000"
    assert examine(library("libpython3.11.so.1.0"), refused(), arena).kinds() == [("fallback", 1048576)]


def test_malloc_and_the_runtimes_beside_it(examine) -> None:
    assert examine(library("libpython3.11.so.1.0")).allocators == [(0, "glibc"), (0, "cpython")]
    assert examine(library("libjemalloc.so.2")).allocators == [(0, "jemalloc")]
    assert examine(GO).allocators == [(0, "go")]


def test_a_static_glibc_is_told_by_its_break(examine) -> None:
    found = examine("brk(NULL) = 0x1000000\nbrk(0x1000d00) = 0x1000d00\nbrk(0x1021d00) = 0x1021d00")
    assert found.allocators == [(0, "glibc")]


def test_nothing_known_is_unknown(examine) -> None:
    assert examine("mmap(NULL, 4096, RW) = 0x7f0000800000").allocators == [(0, "unknown")]


def test_a_forked_child_has_its_parents_allocator_and_a_new_program_its_own(examine) -> None:
    found = examine(
        "\n".join(f"10 {line.strip()}" for line in GLIBC.strip().splitlines()),
        "10 fork() = 11",
        "11 mmap(NULL, 700416, RW) = 0x7f0000800000",
        '11 execve("./other", ["./other"], 0x7ffd00000000 /* 2 vars */) = 0',
    )
    assert found.allocators == [(0, "glibc"), (1, "glibc"), (2, "unknown")]
    assert found.kinds() == [("direct", 700416)]


# ------------------------------------------------------------------------------------------------ the calls of a thread


@pytest.mark.parametrize("asked_for", [5, 3000])
@pytest.mark.parametrize("part_rows", [2, 100, 10_000])
def test_the_next_call_of_a_thread_is_found_near_and_far(
    asked_for: int, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Busy threads and one that makes a call in a thousand; what is left out stands between no two calls.

    Of parts of two calls some are left out whole.
    """
    monkeypatch.setattr(packed, "PART_ROWS", part_rows)
    random = np.random.default_rng(1)
    tids = np.where(random.random(3000) < 0.001, 9, random.integers(1, 4, 3000))
    left_out = np.flatnonzero(random.random(3000) < 0.1)
    of_thread = {tid: [step for step in np.flatnonzero(tids == tid) if step not in left_out] for tid in set(tids)}
    steps = np.setdiff1d(np.arange(3000), left_out)[-asked_for:]
    neighbours = Neighbours(packed_columns(Shelf(), [("tid", tids)]), left_out)
    found = neighbours.after(steps), neighbours.following(steps, 3), neighbours.preceding(steps, 3)
    for step, after, following, preceding in zip(steps.tolist(), *(rows.tolist() for rows in found), strict=True):
        calls = of_thread[tids[step]]
        place = calls.index(step)
        assert [after] == (calls[place + 1 : place + 2] or [NULL])
        assert following == [*calls[place + 1 : place + 4], NULL, NULL, NULL][:3]
        assert preceding == [*calls[max(place - 3, 0) : place][::-1], NULL, NULL, NULL][:3]


# ------------------------------------------------------------------------------------------------ what ltrace -S shows


def test_ltrace_shows_which_malloc_asked(examine) -> None:
    found = examine(
        """
        24045 SYS_brk(0) = 0x555555560000
        24045 prog->malloc(16 <unfinished ...>
        24045 SYS_brk(0) = 0x555555560000
        24045 SYS_brk(0x555555581000) = 0x555555581000
        24045 <... malloc resumed> ) = 0x5555555602a0
        24045 SYS_mmap(0x555555581000, 4096, 0, 0x100022) = 0x555555581000
        24045 prog->malloc(1000 <unfinished ...>
        24045 SYS_brk(0x5555555a2000) = 0x555555581000
        24045 SYS_mmap(0, 0x100000, 3, 34) = 0x7f0000000000
        24045 <... malloc resumed> ) = 0x7f0000000010
        24045 prog->calloc(2, 50000 <unfinished ...>
        24045 SYS_mmap(0, 0x19000, 3, 34) = 0x7f0000800000
        24045 <... calloc resumed> ) = 0x7f0000800010
        """
    )
    assert found.kinds() == [("fallback", 1048576), ("direct", 0x19000)]
    assert [row.certainty for row in found.mmaps] == ["observed", "observed"]
    assert [row.request_bytes for row in found.mmaps] == [1000, 100000]
    assert "inside malloc(1000) of line 7" in found.mmaps[0].evidence


@pytest.mark.parametrize("length", [0, 2**63, 2**64 - 4096])
def test_an_mmap_of_nothing_or_of_more_than_half_of_all_addresses_is_no_allocators(examine, length: int) -> None:
    mapping = "mmap(NULL, {}, RW) = {}"
    found = examine(GLIBC, mapping.format(1003520, "0x7f0000000000"), mapping.format(length, ENOMEM))
    assert found.kinds() == [("direct", 1003520)]


# ------------------------------------------------------------------------------------------------ whose malloc it is


def mapped_library(path: str, at: str) -> str:
    return f"mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 4<{path}>, 0) = {at}"


STARTED = 'execve("./prog", ["./prog"], 0x7ffd00000000 /* 2 vars */) = 0\nbrk(NULL) = 0x555555560000'
TCMALLOC = mapped_library("/usr/lib/libtcmalloc_minimal.so.4", "0x7f0000700000")
JEMALLOC = mapped_library("/usr/lib/libjemalloc.so.2", "0x7f0000600000")
LIBC = mapped_library("/usr/lib/libc.so.6", "0x7f0000500000")
READS_OVERCOMMIT = 'openat(AT_FDCWD, "/proc/sys/vm/overcommit_memory", O_RDONLY|O_CLOEXEC) = 3'
GREW = "brk(0x555555581000) = 0x555555581000"
PROBE = (
    "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE, -1, 0) = 0x7f0000900000\n"
    "madvise(0x7f0000900000, 4096, MADV_FREE) = 0\nmunmap(0x7f0000900000, 4096) = 0"
)


@pytest.mark.parametrize(
    ("lines", "allocator"),
    [
        pytest.param([TCMALLOC, JEMALLOC, LIBC], "tcmalloc", id="LD_PRELOAD stands before what the program needs"),
        pytest.param([TCMALLOC, LIBC, READS_OVERCOMMIT, GREW], "tcmalloc", id="preloaded before jemalloc linked in"),
        pytest.param([LIBC, READS_OVERCOMMIT], "jemalloc", id="jemalloc linked in"),
        pytest.param([LIBC, PROBE], "jemalloc", id="jemalloc tries MADV_FREE"),
        pytest.param([LIBC, GREW, PROBE], "glibc", id="a program that tries MADV_FREE later"),
        pytest.param([LIBC, PROBE.replace("FREE", "DONTNEED")], "glibc", id="another advice"),
        pytest.param([LIBC, GREW, READS_OVERCOMMIT], "glibc", id="a program that reads it later"),
        pytest.param([LIBC, JEMALLOC], "glibc", id="a library opened behind the libc serves no malloc"),
        pytest.param([mapped_library("/system/lib/libc.so", "0x7f0000500000")], "bionic", id="Android's libc.so"),
        pytest.param([mapped_library("/apex/com.android.runtime/lib64/bionic/libc.so", "0x7f0000500000")], "bionic",
                     id="Android's libc.so in an apex"),
        pytest.param([LIBC, mapped_library("/system/lib/libc.so", "0x7f0000800000")], "glibc", id="libhybris"),
        pytest.param([mapped_library("/opt/x/libc.so", "0x7f0000500000")], "unknown", id="musl's is never mapped"),
        pytest.param([mapped_library("/lib/libc.musl-x86_64.so.1", "0x7f0000500000")], "musl", id="musl by its name"),
        pytest.param(['open("/etc/x", O_RDONLY) = 9', mapped_library("/lib/libc.so.0", "0x7f0000500000"),
                      "brk(0x555555561000) = 0x555555561000"], "unknown", id="uClibc opens files as musl does"),
    ],
)  # fmt: skip
def test_the_first_library_that_defines_malloc_serves_it(examine, lines: list[str], allocator: str) -> None:
    assert examine("\n".join([STARTED, *lines])).allocators == [(0, allocator)]


def test_a_child_has_the_allocator_of_its_parent_whatever_libc_is_mapped(examine) -> None:
    found = examine("\n".join([STARTED, LIBC, PROBE, "fork() = 7", "[pid 7] brk(NULL) = 0x555555560000"]))
    assert [name for _, name in found.allocators] == ["jemalloc", "jemalloc"]


def test_a_program_of_android_has_bionic(examine) -> None:
    assert examine(STARTED.replace("./prog", "/system/bin/app", 1)).allocators == [(0, "bionic")]


def test_after_one_refused_brk_all_that_tcmalloc_maps_are_fallbacks(examine) -> None:
    found = examine(
        "\n".join([STARTED, TCMALLOC, LIBC, "brk(0x555555660000) = 0x555555560000"]),
        "mmap(NULL, 1052672, RW) = 0x7f0000000000",
        "munmap(0x7f0000000000, 4096) = 0",
        "mmap(NULL, 10485760, RW) = 0x7efff0000000",
    )
    assert found.kinds() == [("fallback", 1052672), ("fallback", 10485760)]
    assert [row.brk_failure_step for row in found.mmaps] == [found.failures[0].step] * 2
    assert found.mmaps[1].evidence == "tcmalloc never asks the break again after the refusal in line 5"


@pytest.mark.parametrize(
    ("answer", "cause", "granted"),
    [
        ("-1 EPERM (Operation not permitted)", "denied", BREAK),
        ("-1 ENOMEM (Cannot allocate memory)", "denied", BREAK),
        ("-1 ENOSYS (Function not implemented) (INJECTED)", "injected", BREAK),
    ],
)
def test_a_brk_answered_with_an_errno_is_denied(examine, answer: str, cause: str, granted: int) -> None:
    found = examine(GLIBC, f"brk({BREAK + GROWTH:#x}) = {answer}", "mmap(NULL, 1048576, RW) = 0x7f0000000000")
    (failure,) = found.failures
    assert (failure.cause, failure.granted, failure.shortfall_bytes) == (cause, granted, GROWTH)
    assert found.kinds() == [("fallback", 1048576)]
    if cause == "denied":
        assert answer.split()[1] in failure.evidence


def test_locked_memory_is_named_where_the_mmap_that_follows_says_so(examine) -> None:
    found = examine(
        GLIBC,
        f"brk({BREAK + GROWTH:#x}) = {BREAK:#x}",
        "mmap(NULL, 1048576, RW) = -1 EAGAIN (Resource temporarily unavailable)",
    )
    assert [failure.cause for failure in found.failures] == ["unknown"]
    assert "EAGAIN, which means locked memory: likely RLIMIT_MEMLOCK" in found.failures[0].evidence


def test_a_query_answered_with_an_errno_is_no_failure_to_grow(examine) -> None:
    assert examine("brk(NULL) = -1 EPERM (Operation not permitted)", "mmap(NULL, 8192, RW) = 0x7f0000000000") == Found(
        [], [], [(0, "unknown")]
    )


@pytest.mark.parametrize(
    ("length", "kinds"),
    [
        pytest.param(266240, [("direct", 266240)], id="256 KiB and a header"),
        pytest.param(200704, [("direct", 200704)], id="no round length"),
        pytest.param(2097152, [], id="PHP's chunk"),
        pytest.param(33554432, [], id="32 MiB"),
        pytest.param(786432, [], id="a carrier of Erlang"),
    ],
)
def test_a_round_length_is_no_block_of_glibc(examine, length: int, kinds: list[tuple[str, int]]) -> None:
    assert examine(GLIBC, f"mmap(NULL, {length}, RW) = 0x7f0000000000").kinds() == kinds


def test_a_threshold_below_the_default_one_is_seen(examine) -> None:
    lengths = [69632, 73728, 90112, 118784]
    mapped = [f"mmap(NULL, {length}, RW) = 0x7f00000{at}0000" for at, length in enumerate(lengths)]
    unmapped = [f"munmap(0x7f00000{at}0000, {length}) = 0" for at, length in enumerate(lengths)]
    found = examine(GLIBC, "\n".join(line for pair in zip(mapped, unmapped, strict=True) for line in pair))
    assert found.kinds() == [("direct", length) for length in lengths]
    assert "malloc with a smaller M_MMAP_THRESHOLD" in str(found.mmaps[0].evidence)
