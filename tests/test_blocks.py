"""Blocks of malloc: what pairs with what, what fits nothing, what a fork and an exec do to them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import oracle
import pytest

from replay.calls import reader as calls
from replay.calls.enclosing import find_nesting
from replay.engine.columns import NULL
from replay.heap import blocks as b
from replay.heap import pairing
from replay.heap.blocks import BACKINGS, ENDS, REASONS, Blocks, find_blocks
from replay.heap.live_bytes import LiveCount, live_bytes_of_all
from replay.linux.constants import CALLS
from replay.logs.problems import Problems
from replay.spaces import replay as regions


def read(log: Path) -> tuple[regions.Replay, Blocks]:
    run = calls.read_logs([log])
    replayed = regions.replay(run, run.strings)
    return replayed, find_blocks(replayed, find_nesting(replayed.events, run.strings))


def write(folder: Path, text: str) -> Path:
    log = folder / "ltrace.log"
    log.write_text("".join(f"{line.strip()}\n" for line in text.strip().splitlines()))
    return log


def rows(found: Blocks) -> list[tuple[str, int, int, int, int | None, str]]:
    """Return call, addr, size, born line, died line and end of each block."""
    c = found.columns
    return [
        (CALLS[call], addr, size, born, None if died == NULL else died, ENDS[end])
        for call, addr, size, born, died, end in zip(
            *(c[name].tolist() for name in ("call", "addr", "size", "born_line", "died_line", "end")), strict=True
        )
    ]


def faults(replayed: regions.Replay, found: Blocks) -> list[tuple[int, str]]:
    line = replayed.events["line"]
    return [(int(line[s]), REASONS[r]) for s, r in zip(*(found.problems[k] for k in ("step", "reason")), strict=True)]


PAIRS = {
    "freed": ("malloc(10) = 0x5000\nfree(0x5000) = <void>", [("malloc", 0x5000, 10, 1, 2, "freed")]),
    "live": ("calloc(10, 33) = 0x5000", [("calloc", 0x5000, 330, 1, None, "live")]),
    "used_again": (
        "malloc(10) = 0x5000\nfree(0x5000) = <void>\nmalloc(9) = 0x5000",
        [("malloc", 0x5000, 10, 1, 2, "freed"), ("malloc", 0x5000, 9, 3, None, "live")],
    ),
    "realloc_of_null_is_malloc": ("realloc(0, 50) = 0x5000", [("realloc", 0x5000, 50, 1, None, "live")]),
    "realloc_moves": (
        "malloc(10) = 0x5000\nrealloc(0x5000, 5000) = 0x6000",
        [("malloc", 0x5000, 10, 1, 2, "moved"), ("realloc", 0x6000, 5000, 2, None, "live")],
    ),
    "realloc_in_place": (
        "malloc(10) = 0x5000\nrealloc(0x5000, 12) = 0x5000\nfree(0x5000) = <void>",
        [("malloc", 0x5000, 10, 1, 2, "moved"), ("realloc", 0x5000, 12, 2, 3, "freed")],
    ),
    "realloc_to_nothing_is_free": (
        "malloc(10) = 0x5000\nrealloc(0x5000, 0) = 0",
        [("malloc", 0x5000, 10, 1, 2, "freed")],
    ),
    "realloc_failed": (
        "malloc(10) = 0x5000\nrealloc(0x5000, 99999999999999) = 0",
        [("malloc", 0x5000, 10, 1, None, "live")],
    ),
    "realloc_never_returned": (
        "malloc(10) = 0x5000\nrealloc(0x5000, 50 <unfinished ...>\n+++ killed by SIGKILL +++",
        [("malloc", 0x5000, 10, 1, None, "live")],
    ),
    "malloc_failed": ("malloc(1152921504606846976) = 0", []),
    "malloc_never_returned": ("malloc(10 <unfinished ...>\n+++ killed by SIGKILL +++", []),
    "malloc_of_nothing": ("malloc(0) = 0x5000", [("malloc", 0x5000, 0, 1, None, "live")]),
    "taken_where_free_starts_given_where_malloc_returns": (
        """
        1 SYS_clone(0x3d0f00, 0x7f0000001000, 0, 0) = 2
        1 malloc(10 <unfinished ...>
        2 calloc(1, 1) = 0x6000
        1 <... malloc resumed> ) = 0x5000
        1 free(0x5000 <unfinished ...>
        2 malloc(9) = 0x5000
        1 <... free resumed> ) = <void>
        """,
        [
            ("calloc", 0x6000, 1, 3, None, "live"),
            ("malloc", 0x5000, 10, 4, 5, "freed"),
            ("malloc", 0x5000, 9, 6, None, "live"),
        ],
    ),
    "shown_twice_is_one_block": (
        "realloc@libc.so.6(0, 50 <unfinished ...>\nmalloc@libc.so.6(50) = 0x5000\n<... realloc resumed> ) = 0x5000",
        [("realloc", 0x5000, 50, 3, None, "live")],
    ),
    "strdup_has_the_size_of_the_malloc_inside": (
        'prog->strdup("hello" <unfinished ...>\nmalloc@libc.so.6(6) = 0x5000\n<... strdup resumed> ) = 0x5000',
        [("strdup", 0x5000, 6, 3, None, "live")],
    ),
    "strdup_alone": ('strdup("hello") = 0x5000', [("strdup", 0x5000, 0, 1, None, "live")]),
    "memalign": ("prog->memalign(256, 300, 0, 1) = 0x5000", [("memalign", 0x5000, 300, 1, None, "live")]),
    "posix_memalign_does_not_show_its_block": ("posix_memalign(0x7ffff1b7ca20, 4096, 1000, 1) = 0", []),
    "operators": (
        "_Znwm(40, 0, 1, 2) = 0x5000\n_Znam(30, 0, 1, 2) = 0x6000\n_ZdlPvm(0x5000, 40, 1, 2) = 0\n"
        "_ZdaPv(0x6000, 1, 2, 3) = 0",
        [("new", 0x5000, 40, 1, 3, "freed"), ("new[]", 0x6000, 30, 2, 4, "freed")],
    ),
    "a_new_that_threw": ("_Znwm(-1, 0, 1, 2 <unfinished ...>\nmalloc(9) = 0x5000\n<... _Znwm resumed> ) = 0",
                         [("malloc", 0x5000, 9, 2, None, "live")]),
    "another_program": (
        "malloc(10) = 0x5000\n--- Called exec() ---\nmalloc(20) = 0x6000",
        [("malloc", 0x5000, 10, 1, 2, "freed"), ("malloc", 0x6000, 20, 3, None, "live")],
    ),
    "questions_give_nothing": ("malloc_usable_size(0x5000, 1, 2, 3) = 24", []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PAIRS.values(), ids=PAIRS)
def test_blocks(text: str, expected: list[tuple[str, int, int, int, int | None, str]], tmp_path: Path) -> None:
    replayed, found = read(write(tmp_path, text))
    assert rows(found) == expected
    assert faults(replayed, found) == []


FAULTS = {
    "freed_twice": ("malloc(10) = 0x5000\nfree(0x5000) = <void>\nfree(0x5000) = <void>", [(3, "double_free")]),
    "freed_twice_and_aborted": (
        "free(0x9000) = <void>\nmalloc(10) = 0x5000\nfree(0x5000) = <void>\nputs(0) = 1\n"
        "free(0x5000 <no return ...>\n--- SIGABRT (Aborted) ---",
        [(1, "unknown_free"), (6, "double_free")],
    ),
    "freed_again_after_another": (
        "malloc(9) = 0x5000\nmalloc(9) = 0x6000\nfree(0x5000) = <void>\nfree(0x6000) = <void>\nfree(0x5000) = <void>",
        [(5, "double_free")],
    ),
    "freed_twice_then_handed_out_twice": (
        "free(0x9000) = <void>\nmalloc(9) = 0x5000\nfree(0x5000) = <void>\nfree(0x6000) = <void>\n"
        "free(0x5000) = <void>\nmalloc(9) = 0x5000\nmalloc(9) = 0x5000",
        [(1, "unknown_free"), (4, "unknown_free"), (5, "double_free"), (7, "free_not_seen")],
    ),
    "a_call_in_between_may_have_handed_it_out": (
        "malloc(10) = 0x5000\nfree(0x5000) = <void>\ngetline(0x7ffc, 0x7ffd, 0x5100, 1) = 5\nfree(0x5000) = <void>",
        [(4, "unknown_free")],
    ),
    "handed_out_unseen_again_and_again": (
        "malloc(10) = 0x5000" + "\nfree(0x5000) = <void>" * 3,
        [(2 + n, "unknown_free") for n in (1, 2)],
    ),
    "never_seen": ("free(0x5000) = <void>", [(1, "unknown_free")]),
    "both": (
        "free(0x9000) = <void>\nmalloc(10) = 0x5000\nfree(0x5000) = <void>\nfree(0x5000) = <void>",
        [(1, "unknown_free"), (4, "double_free")],
    ),
    "never_seen_twice": ("free(0x5000) = <void>\nfree(0x5000) = <void>", [(1, "unknown_free"), (2, "unknown_free")]),
    "handed_out_unseen_in_between": (
        "malloc(10) = 0x5000\nfree(0x5000) = <void>\nposix_memalign(0x7ffff1b7ca20, 16, 10, 1) = 0\n"
        "free(0x5000) = <void>",
        [(4, "unknown_free")],
    ),
    "of_an_attached_program": (
        "free(0x9000) = <void>\nmalloc(10) = 0x5000\nfree(0x5000) = <void>\nmalloc(1) = 0x6000\nfree(0x5000) = <void>",
        [(1, "unknown_free"), (5, "unknown_free")],
    ),
    "realloc_of_a_freed_block": (
        "malloc(10) = 0x5000\nfree(0x5000) = <void>\nrealloc(0x5000, 9) = 0x6000",
        [(3, "double_free")],
    ),
    "realloc_of_an_unknown_block": ("realloc(0x5000, 9) = 0x6000", [(1, "unknown_free")]),
    "handed_out_twice": ("malloc(10) = 0x5000\nmalloc(10) = 0x5000", [(2, "free_not_seen")]),
    "named_wrongly": (
        "prog->malloc(10) = 0x5000\nlibc.so.6->realloc(0x5000, 6) = 0x6\nprog->free(0x5000) = <void>",
        [(2, "ltrace_misnamed_call")],
    ),
    "free_of_null": ("free(0) = <void>\nfree(nil) = <void>\nrealloc(0, 0) = 0x5000", []),
}


@pytest.mark.parametrize(("text", "expected"), FAULTS.values(), ids=FAULTS)
def test_what_fits_no_block(text: str, expected: list[tuple[int, str]], tmp_path: Path) -> None:
    replayed, found = read(write(tmp_path, text))
    # a call that was never closed stands at the log's last line
    assert faults(replayed, found) == expected


def test_a_block_handed_out_twice_ends_where_the_second_begins(tmp_path: Path) -> None:
    _, found = read(write(tmp_path, "malloc(10) = 0x5000\nmalloc(20) = 0x5000"))
    assert rows(found) == [("malloc", 0x5000, 10, 1, 2, "freed"), ("malloc", 0x5000, 20, 2, None, "live")]


def test_what_an_ending_thread_has_cached_is_freed_once_more(tmp_path: Path) -> None:
    text = """
    1 SYS_clone(0x3d0f00, 0x7f0000001000, 0, 0) = 2
    1 malloc@libc.so.6(1) = 0x4000
    2 malloc@libc.so.6(10) = 0x5000
    2 free@libc.so.6(0x5000) = <void>
    2 free@libc.so.6(0x5000) = <void>
    2 free@libc.so.6(0x4f00) = <void>
    2 +++ exited (status 0) +++
    1 free@libc.so.6(0x9000) = <void>
    """  # line 6 frees the cache itself, which no call handed out
    replayed, found = read(write(tmp_path, text))
    assert faults(replayed, found) == [(8, "unknown_free")]


def test_a_free_that_aborts_is_a_problem_of_the_line_where_it_starts(tmp_path: Path) -> None:
    text = "malloc(10) = 0x5000\nfree(0x5000) = <void>\nfree(0x5000 <no return ...>\n--- SIGABRT (Aborted) ---"
    replayed, found = read(write(tmp_path, text))
    problems = Problems()
    b.note_problems(found, replayed.events, replayed.strings, problems)
    assert [(p.line, p.reason, p.text) for p in problems.kept] == [(3, "double_free", "free(0x5000) <unfinished ...>")]


def test_problems_are_kept_with_their_text_and_counted(tmp_path: Path) -> None:
    log = write(tmp_path, "prog->free(0x5000) = <void>\n" * 5 + "malloc(16) = 0x5000\nmalloc(16) = 0x5000")
    replayed, found = read(log)
    problems = Problems(keep=2)
    b.note_problems(found, replayed.events, replayed.strings, problems)
    assert problems.counts == {"unknown_free": 5, "free_not_seen": 1}
    assert [(p.line, p.reason, p.text) for p in problems.kept] == [
        (1, "unknown_free", "prog->free(0x5000) = <void>"),
        (2, "unknown_free", "prog->free(0x5000) = <void>"),
        (7, "free_not_seen", "malloc(16) = 0x5000"),
    ]


# ------------------------------------------------------------------------------------------------------------- forks

FORK = """
1 malloc(100) = 0x5000
1 malloc(200) = 0x6000
1 free(0x6000) = <void>
1 SYS_clone(0x1200011, 0, 0, 0x7f0000000a10) = 2
"""


def spaces_of(found: Blocks) -> list[tuple[int, int, int, str]]:
    c = found.columns
    return [
        (int(c["space"][i]), int(c["addr"][i]), int(c["born_line"][i]), ENDS[int(c["end"][i])])
        for i in range(len(found))
    ]


def test_a_child_frees_what_it_has_from_its_parent(tmp_path: Path) -> None:
    replayed, found = read(
        write(tmp_path, FORK + "2 free(0x5000) = <void>\n2 free(0x6000) = <void>\n1 free(0x5000) = <void>")
    )
    if len(replayed.spaces["space"]) == 1:
        pytest.skip("this clone is taken for a thread")
    assert spaces_of(found) == [(0, 0x5000, 1, "freed"), (0, 0x6000, 2, "freed"), (1, 0x5000, 4, "freed")]
    # the child's copy of what its parent had freed is unknown to it: the log shows no block of it there
    assert faults(replayed, found) == [(6, "unknown_free")]
    assert len(found.given_steps) == 2


def test_a_child_that_does_nothing_costs_nothing(tmp_path: Path) -> None:
    _, found = read(write(tmp_path, FORK + "2 +++ exited (status 0) +++\n1 free(0x5000) = <void>"))
    assert {space for space, *_ in spaces_of(found)} == {0}


def test_a_grandchild_has_the_blocks_of_both(tmp_path: Path) -> None:
    more = """
    2 SYS_clone(0x1200011, 0, 0, 0x7f0000000a10) = 3
    3 malloc(8) = 0x7000
    3 free(0x5000) = <void>
    """
    replayed, found = read(write(tmp_path, FORK + more))
    if len(replayed.spaces["space"]) < 3:
        pytest.skip("this clone is taken for a thread")
    assert (2, 0x5000, 6, "freed") in spaces_of(found) or (2, 0x5000, 7, "freed") in spaces_of(found)
    assert faults(replayed, found) == []


def test_past_the_budget_only_touched_blocks_are_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "INHERITED_BUDGET", 1)
    text = "1 malloc(1) = 0x4000\n" + FORK.lstrip() + "2 free(0x5000) = <void>\n"
    replayed, found = read(write(tmp_path, text))
    if len(replayed.spaces["space"]) == 1:
        pytest.skip("this clone is taken for a thread")
    assert [row for row in spaces_of(found) if row[0] == 1] == [(1, 0x5000, 5, "freed")]


# ----------------------------------------------------------------------------------------------------------- backing


def test_backing_is_that_at_birth(tmp_path: Path) -> None:
    text = """
    malloc(1) = 0x1000010
    SYS_brk(0) = 0x2000000
    SYS_brk(0x2021000) = 0x2021000
    malloc(10) = 0x2000010
    malloc(200000 <unfinished ...>
    SYS_mmap(0, 0x31000, 3, 34) = 0x7f0000000000
    <... malloc resumed> ) = 0x7f0000000010
    """
    _, found = read(write(tmp_path, text))
    assert [BACKINGS[code] for code in found.columns["backing"]] == ["unknown", "brk", "mmap"]


# --------------------------------------------------------------------------------------------------- against a model


def random_log(seed: int, steps: int) -> tuple[str, list[tuple[int, int]], dict[int, int]]:
    """Return a log, blocks and bytes live after each of its lines, and the size of each block at its end."""
    chance = random.Random(seed)
    live: dict[int, int] = {}
    lines, counts = [], []
    for _ in range(steps):
        dice, size = chance.random(), chance.randrange(1, 4000)
        address = chance.choice([a for a in range(0x5000, 0x5000 + 64 * 0x1000, 0x1000) if a not in live])
        old = chance.choice(sorted(live)) if live else 0
        if dice < 0.5 or not old:
            lines.append(f"malloc({size}) = {address:#x}")
            live[address] = size
        elif dice < 0.9:
            lines.append(f"free({old:#x}) = <void>")
            del live[old]
        else:
            new = chance.choice([old, address])
            lines.append(f"realloc({old:#x}, {size}) = {new:#x}")
            del live[old]
            live[new] = size
        if len(live) > 50:
            gone = sorted(live)[0]
            lines.append(f"free({gone:#x}) = <void>")
            del live[gone]
            counts.append(None)
        counts.append((len(live), sum(live.values())))
    return "\n".join(lines), counts, live


@pytest.mark.parametrize("seed", range(5))
def test_random_logs(seed: int, tmp_path: Path) -> None:
    text, counts, live = random_log(seed, 400)
    replayed, found = read(write(tmp_path, text))
    c = found.columns
    ends = c["end"] == b.LIVE
    assert dict(zip(c["addr"][ends].tolist(), c["size"][ends].tolist(), strict=True)) == live
    assert len(found.problems["step"]) == 0
    line = np.arange(1, len(counts) + 1)
    count, size = LiveCount.of(found.columns).at(np.zeros(len(line), np.int64), line)
    known = [i for i, value in enumerate(counts) if value is not None]
    assert [(int(count[i]), int(size[i])) for i in known] == [counts[i] for i in known]
    peak = max(counts[i][1] for i in known)
    assert live_bytes_of_all(found.columns, replayed.spaces).peak()[0] >= peak


# ---------------------------------------------------------------------------------------------------------- captures

COUNTED = {
    # capture: blocks given, blocks freed, live blocks, live bytes, peak bytes, problems
    "arenas/ltrace": (1684, 1678, 6, 152016, 84000016, {}),
    "brk_blocked/ltrace": (7002, 7001, 1, 16, 7300016, {}),
    "frag/ltrace_pinned": (8102, 8101, 1, 5000, 16005000, {}),
    "mmap_threshold/ltrace_dynamic": (11, 11, 0, 0, 43208695, {}),
    "ltrace_forms/e_main": (12, 4, 6, 1447, 906547, {"unknown_free": 1, "ltrace_misnamed_call": 3}),
    "ltrace_forms/e_main_S": (12, 4, 6, 1447, 906547, {"unknown_free": 1, "ltrace_misnamed_call": 3}),
    "ltrace_forms/default": (12, 4, 6, 1447, 906547, {"unknown_free": 1}),
    # without aligned_alloc, memalign and valloc, but with the malloc inside strdup
    "ltrace_forms/x_libc": (9, 4, 3, 407, 905513, {"unknown_free": 1}),
}


@pytest.mark.parametrize("name", [name for name in COUNTED if name in oracle.captures()])
def test_captured_blocks(name: str) -> None:
    given, freed, live_blocks, live_bytes, peak, problems = COUNTED[name]
    replayed, found = read(oracle.captures()[name].logs[0])
    c = found.columns
    live = c["end"] == b.LIVE
    assert (len(found), int((c["end"] == b.FREED).sum())) == (given, freed)
    assert (int(live.sum()), int(c["size"][live].sum())) == (live_blocks, live_bytes)
    assert live_bytes_of_all(found.columns, replayed.spaces).peak()[0] == peak
    assert {reason: found.count(code) for code, reason in enumerate(REASONS) if found.count(code)} == problems


@pytest.mark.slow
@pytest.mark.skipif("heavy/ltrace_S_200k" not in oracle.captures(), reason="no heavy captures")
def test_two_hundred_thousand_calls() -> None:
    capture = oracle.captures()["heavy/ltrace_S_200k"]
    truth = json.loads((capture.folder / "api.json").read_text())
    replayed, found = read(capture.logs[0])
    c = found.columns
    live = c["end"] == b.LIVE
    assert (int(live.sum()), int(c["size"][live].sum())) == (truth["live_blocks"], truth["live_bytes"])
    assert len(found.given_steps) == truth["malloc"] + truth["calloc"] + truth["realloc"]
    assert int((c["end"] == b.MOVED).sum()) == truth["realloc"]
    assert live_bytes_of_all(found.columns, replayed.spaces).peak()[0] == truth["peak_bytes"]
    line = np.arange(1, replayed.last_clock + 1)
    counts, _ = LiveCount.of(found.columns).at(np.zeros(len(line), np.int64), line)
    assert int(counts.max()) == truth["peak_blocks"]
    assert len(found.problems["step"]) == 0
    assert set(c["backing"].tolist()) == {b.IN_BRK, b.IN_MMAP}


LOGS = sorted((oracle.scenarios().get("lines", Path("/nonexistent")) / "ltrace").glob("*.log"))


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.stem)
def test_right_programs_free_nothing_twice(log: Path) -> None:
    _, found = read(log)
    assert (found.count(b.DOUBLE_FREE), found.count(b.FREE_NOT_SEEN)) == (0, 0)
