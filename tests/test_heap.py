"""The heap's measures: against a page of bytes painted one by one, against mallinfo2, and case by case."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import pytest
from conftest import interpreted

import replay
from replay.calls import reader as calls
from replay.calls.enclosing import Nesting, find_nesting
from replay.engine.columns import NULL
from replay.heap import chunks, diagnosis, free_space, growth_causes, leaks, snapshot, timeline
from replay.heap.blocks import Blocks, find_blocks
from replay.heap.chunks import Heaps, clusters_of
from replay.heap.live_bytes import main_space
from replay.spaces import replay as regions


@dataclass
class Run:
    replayed: regions.Replay
    nesting: Nesting
    blocks: Blocks
    heaps: Heaps

    def at(self, line: int, space: int = 0) -> dict[str, int]:
        columns = dict(free_space.heap_columns(self.blocks, self.heaps, np.array([space]), np.array([line])))
        return {name: int(column[0]) for name, column in columns.items()}

    def picture(self, line: int) -> snapshot.HeapSnapshot:
        return snapshot.snapshot_at(self.blocks, self.heaps, 0, line)


def read(log: Path) -> Run:
    run = calls.read_logs([log])
    replayed = regions.replay(run, run.strings)
    nesting = find_nesting(replayed.events, run.strings)
    blocks = find_blocks(replayed, nesting)
    return Run(replayed, nesting, blocks, chunks.find_heaps(replayed, nesting, blocks))


def write(folder: Path, text: str) -> Path:
    log = folder / "ltrace.log"
    log.write_text("".join(f"{line.strip()}\n" for line in text.strip().splitlines()))
    return log


@pytest.mark.parametrize(
    ("ranges", "lowest", "cluster"),
    [
        ([(5 << 20, 16), (9 << 20, 16), (5 << 20, 4 << 20)], [5 << 20], [0, 0, 0]),
        ([(9 << 20, 16), (5 << 20, 16), ((5 << 20) + 16, 32)], [5 << 20, 9 << 20], [1, 0, 0]),
        ([(1 << 46, 16), (5 << 20, 16)], [5 << 20, 1 << 46], [1, 0]),
        ([((1 << 20) - 16, 16), ((2 << 20), 16), ((3 << 20) + 17, 16)], [(1 << 20) - 16, (3 << 20) + 17], [0, 0, 1]),
    ],
    ids=["a long one between", "apart", "far apart", "a gap of 1 MiB is none"],
)
def test_clusters_of_blocks(ranges: list[tuple[int, int]], lowest: list[int], cluster: list[int]) -> None:
    start, size = (np.array(column, dtype=np.int64) for column in zip(*ranges, strict=True))
    found = clusters_of(start, start + size)
    assert (found[0].tolist(), found[1].tolist()) == (lowest, cluster)


@pytest.mark.parametrize(
    ("size", "wide", "narrow"),
    [(0, 32, 16), (24, 32, 32), (25, 48, 32), (12, 32, 16), (13, 32, 32), (1000, 1008, 1008)],
)
def test_chunk_rule(size: int, wide: int, narrow: int) -> None:
    sizes = chunks.chunk_sizes(np.array([size, size]), np.array([False, True]))
    assert sizes.tolist() == [wide, narrow]


# ------------------------------------------------------------------------------------------- a heap of three blocks

SMALL = """
SYS_brk(0) = 0x2000000
prog->malloc(1000 <unfinished ...>
SYS_brk(0x2021000) = 0x2021000
<... malloc resumed> ) = 0x2000010
prog->malloc(2000) = 0x2000400
prog->malloc(3000) = 0x2000be0
prog->free(0x2000400) = <void>
prog->free(0x2000be0) = <void>
"""
HEAP = 0x21000


def test_columns_of_a_small_heap(tmp_path: Path) -> None:
    run = read(write(tmp_path, SMALL))
    assert run.at(1) == {
        "live_blocks": 0, "live_bytes": 0, "heap_bytes": 0, "free_bytes": 0, "largest_free_bytes": 0, "pinned_bytes": 0,
        "unseen_bytes": 0,
    }  # fmt: skip
    top = HEAP - 1008 - 2016 - 3008
    assert run.at(6) == {
        "live_blocks": 3, "live_bytes": 6000, "heap_bytes": HEAP, "free_bytes": top, "largest_free_bytes": top,
        "pinned_bytes": 0, "unseen_bytes": 0,
    }  # fmt: skip
    assert run.at(7) == {
        "live_blocks": 2, "live_bytes": 4000, "heap_bytes": HEAP, "free_bytes": top + 2016, "largest_free_bytes": top,
        "pinned_bytes": 2016, "unseen_bytes": 0,
    }  # fmt: skip
    assert run.at(8)["largest_free_bytes"] == HEAP - 1008
    assert run.at(8)["pinned_bytes"] == 0


def test_picture_of_a_small_heap(tmp_path: Path) -> None:
    picture = read(write(tmp_path, SMALL)).picture(7)
    top = HEAP - 1008 - 2016 - 3008
    assert (picture.live_blocks, picture.live_bytes, picture.rounding_bytes) == (2, 4000, 16)
    assert (picture.free_bytes, picture.pinned_bytes, picture.held_bytes) == (top + 2016, 2016, 2016)
    assert (picture.top_bytes, picture.trimmable_bytes) == (top, 0)
    assert picture.fragmentation == pytest.approx(1 - top / (top + 2016))
    assert picture.utilisation == pytest.approx(4000 / HEAP)
    assert picture.histogram() == [(1024, 1, 2016), (65536, 1, top)]
    assert dict(picture.unusable_index((1000, 2008, 2009, 200000))) == {
        1000: 0.0, 2008: 0.0, 2009: pytest.approx(2016 / (top + 2016)), 200000: 1.0,
    }  # fmt: skip
    # bytes 0x10 to 0x3f8 of page 0, and 0xbe0 to 0x1798: pages 0 and 1
    assert (picture.live_pages, picture.page_live_share) == (2, 4000 / 8192)


def test_pins_of_a_small_heap(tmp_path: Path) -> None:
    run = read(write(tmp_path, SMALL))
    pins = snapshot.pins(run.blocks, run.heaps, 0, 7)
    # the third block alone: itself and the hole below; with the first one too: all
    assert pins["block"].tolist() == [2, 0]
    assert pins["released_bytes"].tolist() == [3008 + 2016, 3008 + 2016 + 1008]
    assert pins["blocks_above"].tolist() == [0, 1]


def test_rows_of_blocks_stand_among_those_of_mappings(tmp_path: Path) -> None:
    run = read(write(tmp_path, SMALL))
    columns = timeline.changes_with_heap(run.replayed, run.blocks, run.heaps)
    assert columns["line"].tolist() == [1, 3, 4, 5, 6, 7, 8]
    assert columns["live_bytes"].tolist() == [0, 0, 1000, 3000, 6000, 4000, 1000]
    assert columns["brk_bytes"].tolist() == [0] + [HEAP] * 6
    assert columns["step"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_log_without_blocks_has_no_heap(tmp_path: Path) -> None:
    log = write(tmp_path, "SYS_brk(0) = 0x2000000\nSYS_brk(0x2021000) = 0x2021000")
    run, table = read(log), replay.load(log).arrow("fragmentation")
    assert {value for name in free_space.HEAP_COLUMNS for value in table[name].to_pylist()} == {None}
    assert diagnosis.ANSWERS[diagnosis.diagnose(run.replayed, run.blocks, run.heaps).code] == "neither"


def test_a_heap_is_inferred_from_its_blocks_where_no_system_calls_are_shown(tmp_path: Path) -> None:
    run = read(write(tmp_path, "\n".join(line for line in SMALL.splitlines() if "brk" not in line)))
    assert run.heaps.inferred
    # the lines of brk are gone: malloc returns in line 2
    assert [run.at(line)["heap_bytes"] for line in (1, 2, 3, 4, 6)] == [0, 1008, 3024, 6032, 6032]
    assert (run.at(5)["free_bytes"], run.at(5)["largest_free_bytes"]) == (2016, 2016)


def test_a_block_mapped_by_itself_is_not_cut_from_the_heap(tmp_path: Path) -> None:
    text = (
        SMALL
        + """
    prog->malloc(200000 <unfinished ...>
    SYS_mmap(0, 200704, 3, 34) = 0x7f0000000000
    <... malloc resumed> ) = 0x7f0000000010
    """
    )
    run = read(write(tmp_path, text))
    picture = run.picture(12)
    assert (picture.heap_bytes, picture.direct_bytes, picture.live_bytes) == (HEAP, 200704, 201000)
    assert run.heaps.chunks["direct"].tolist() == [0, 0, 0, 1]


def test_a_mapping_that_stands_in_for_brk_is_heap(tmp_path: Path) -> None:
    text = (
        SMALL
        + """
    prog->malloc(200 <unfinished ...>
    SYS_brk(0x2042000) = 0x2021000
    SYS_mmap(0, 1048576, 3, 34) = 0x7f0000000000
    <... malloc resumed> ) = 0x7f0000000010
    """
    )
    run = read(write(tmp_path, text))
    assert run.at(13)["heap_bytes"] == HEAP + 1048576
    assert run.heaps.chunks["direct"].tolist() == [0, 0, 0, 0]


# --------------------------------------------------------------------------------------------- what made it grow

CAUSES = """
SYS_brk(0) = 0x2000000
prog->malloc(1000 <unfinished ...>
SYS_brk(0x2021000) = 0x2021000
<... malloc resumed> ) = 0x2000010
prog->malloc(1000000 <unfinished ...>
SYS_mmap(0, 1003520, 3, 34) = 0x7f0000000000
<... malloc resumed> ) = 0x7f0000000010
prog->malloc(500000 <unfinished ...>
SYS_mmap(0, 503808, 3, 34) = 0x7f1000000000
<... malloc resumed> ) = 0x7f1000000010
prog->free(0x7f0000000010 <unfinished ...>
SYS_munmap(0x7f0000000000, 1003520) = 0
<... free resumed> ) = <void>
prog->free(0x7f1000000010 <unfinished ...>
SYS_munmap(0x7f1000000000, 503808) = 0
<... free resumed> ) = <void>
prog->free(0x2000010 <unfinished ...>
SYS_brk(0x2001000) = 0x2001000
<... free resumed> ) = <void>
"""


def test_what_made_the_heap_grow_and_shrink(tmp_path: Path) -> None:
    run = read(write(tmp_path, CAUSES))
    growth = growth_causes.heap_growth(run.replayed, run.nesting, run.blocks, run.heaps)
    rows = zip(*(growth[name].tolist() for name in ("line", "kind", "bytes", "request_bytes")), strict=True)
    assert [(line, growth_causes.KINDS[kind], size, asked) for line, kind, size, asked in rows] == [
        (3, "brk_grew", 0x21000, 1000),
        (6, "mapped_directly", 1003520, 1000000),
        (9, "mapped_directly", 503808, 500000),
        (12, "unmapped", -1003520, NULL),
        (15, "unmapped", -503808, NULL),
        (18, "brk_trimmed", -0x20000, NULL),
    ]
    line = run.replayed.events["line"]
    assert line[growth["parent_step"]].tolist() == [4, 7, 10, 13, 16, 19]


def test_which_free_raised_the_threshold(tmp_path: Path) -> None:
    run = read(write(tmp_path, CAUSES))
    raises = growth_causes.threshold_raises(run.replayed, run.nesting, run.blocks, run.heaps)
    assert {name: column.tolist() for name, column in raises.items() if name != "step"} == {
        "line": [13], "space": [0], "before": [131072], "after": [1003520], "observed": [1],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ leaks and answers


def test_leaks_by_call_site_and_size_class(tmp_path: Path) -> None:
    text = """
    prog->malloc(100) = 0x5000
    libfoo.so.1->malloc(100) = 0x6000
    prog->malloc(70) = 0x7000
    prog->malloc(64) = 0x8000
    prog->free(0x8000) = <void>
    prog->calloc(2, 600) = 0x9000
    +++ exited (status 0) +++
    """
    run = read(write(tmp_path, text))
    callers = run.blocks.columns.at("caller", leaks.live_rows(run.blocks))
    groups = leaks.leaked_groups(run.replayed, run.blocks, callers)
    strings = run.replayed.strings
    found = [
        (strings[caller], size_class, count, size, age)
        for caller, size_class, count, size, age in zip(
            *(groups[name].tolist() for name in ("caller", "size_class", "count", "bytes", "age_lines")), strict=True
        )
    ]
    assert found == [("prog", 1024, 1, 1200, 0), ("prog", 64, 2, 170, 5), ("libfoo.so.1", 64, 1, 100, 4)]


def program(kind: str) -> str:
    """Return a log of 400 rounds of a program that leaks, scatters, does both or neither."""
    lines, top = [], 0x5000_0010

    def malloc(size: int) -> int:
        nonlocal top
        address, top = top, top + max(32, (size + 23) & -16)
        lines.append(f"prog->malloc({size}) = {address:#x}")
        return address

    bridges, buffers = [], []
    if kind in ("fragmentation", "both"):
        for _ in range(400):
            buffers.append(malloc(4000))
            bridges.append(malloc(40))
        lines += [f"prog->free({address:#x}) = <void>" for address in buffers]
    for _ in range(400):
        passing = malloc(2000)
        if kind in ("leak", "both"):
            malloc(3000)
        lines.append(f"prog->free({passing:#x}) = <void>")
        top = passing if kind in ("neither", "fragmentation") else top
    if kind == "fragmentation":
        lines += [f"prog->free({address:#x}) = <void>" for address in bridges[:-1]]
    return "\n".join([*lines, "+++ exited (status 0) +++"])


@pytest.mark.parametrize("kind", ["neither", "fragmentation"])
def test_answers(kind: str, tmp_path: Path) -> None:
    run = read(write(tmp_path, program(kind)))
    assert diagnosis.ANSWERS[diagnosis.diagnose(run.replayed, run.blocks, run.heaps).code] == kind


@pytest.mark.parametrize("kind", ["leak", "both"])
def test_a_program_that_leaks_grows(kind: str, tmp_path: Path) -> None:
    run = read(write(tmp_path, program(kind)))
    answer = diagnosis.diagnose(run.replayed, run.blocks, run.heaps)
    assert answer.leaking
    assert answer.leaked_bytes >= 400 * 3000


def test_johnstone_and_wilson(tmp_path: Path) -> None:
    """Half of the blocks go, then the heap must grow for larger ones: 64 KiB live then, 96 KiB at most."""
    blocks = [f"prog->malloc(4072) = {0x5000_0010 + 4080 * i:#x}" for i in range(24)]
    frees = [f"prog->free({0x5000_0010 + 4080 * i:#x}) = <void>" for i in range(0, 24, 2)]
    run = read(write(tmp_path, "\n".join([*blocks, *frees, f"prog->malloc(8152) = {0x5000_0010 + 4080 * 24:#x}"])))
    answer = diagnosis.diagnose(run.replayed, run.blocks, run.heaps)
    used = 24 * 4080 + 8160
    assert answer.measure_3 == pytest.approx(used / (12 * 4072 + 8152) - 1)
    assert answer.measure_4 == pytest.approx(used / (24 * 4072) - 1)


# --------------------------------------------------------------------------------------------- against painted bytes

BASE, UNIT = 0x2000000, 16


def random_heap(seed: int, steps: int) -> str:
    """Return the log of a first-fit allocator with `-S`, whose break moves both ways."""
    chance = random.Random(seed)
    top, live = BASE, {}
    lines = [f"SYS_brk(0) = {BASE:#x}"]
    for _ in range(steps):
        if live and chance.random() < 0.45:
            address = chance.choice(sorted(live))
            del live[address]
            end = max((a - 16 + s for a, s in live.items()), default=BASE)
            wanted = (end + 4095) & -4096
            lines.append(f"prog->free({address:#x} <unfinished ...>")
            if wanted < top and chance.random() < 0.3:
                lines.append(f"SYS_brk({wanted:#x}) = {wanted:#x}")
                top = wanted
            lines.append("<... free resumed> ) = <void>")
            continue
        size = chance.choice([1, 24, 100, 1000, 5000])
        chunk = max(32, (size + 23) & -16)
        start = BASE
        for address, taken in sorted(live.items()):
            if address - 16 - start >= chunk and chance.random() < 0.8:
                break
            start = address - 16 + taken
        else:
            start += 64 * (chance.random() < 0.1)  # a block of a library whose calls the log does not show
        lines.append(f"prog->malloc({size} <unfinished ...>")
        if start + chunk > top:
            top = (start + chunk + 4095) & -4096
            lines.append(f"SYS_brk({top:#x}) = {top:#x}")
        lines.append(f"<... malloc resumed> ) = {start + 16:#x}")
        live[start + 16] = chunk
    return "\n".join(lines)


def painted(log: str, line: int) -> dict[str, int]:
    """Return what the columns must say once `line` was printed, from units of 16 bytes painted one by one."""
    top, live, opened = BASE, {}, ""
    covered: set[int] = set()
    unseen: set[int] = set()
    given_back: set[int] = set()
    for text in log.splitlines()[:line]:
        if match := re.search(r"SYS_brk\((0x\w+)\)", text):
            top = int(match[1], 16)
            given_back |= {unit for unit in unseen if unit >= top // UNIT}
            unseen -= given_back
        elif match := re.search(r"free\((0x\w+)", text):
            del live[int(match[1], 16)]
        elif match := re.search(r"malloc\((\d+)", text):
            opened = match[1]
        elif match := re.search(r"malloc resumed> \) = (0x\w+)", text):
            address, size = int(match[1], 16), int(opened)
            live[address] = size
            first, last = (address - 16) // UNIT, (address - 16 + max(32, (size + 23) & -16)) // UNIT
            covered |= set(range(first, last))
            unseen = (unseen | set(range(BASE // UNIT, first))) - covered - given_back
    used = {
        unit
        for address, size in live.items()
        for unit in range((address - 16) // UNIT, (address - 16 + max(32, (size + 23) & -16)) // UNIT)
    }
    units = range(BASE // UNIT, top // UNIT)
    free = [unit not in used and unit not in unseen for unit in units]
    ranges = [len(match[0]) for match in re.finditer("1+", "".join("01"[flag] for flag in free))]
    highest = max(used, default=units.start)
    return {
        "live_blocks": len(live),
        "live_bytes": sum(live.values()),
        "heap_bytes": top - BASE,
        "free_bytes": sum(free) * UNIT,
        "largest_free_bytes": max([n for n in ranges if n > 1], default=0) * UNIT,
        "unseen_bytes": len(unseen) * UNIT,
        "pinned_bytes": max(sum(free[: highest - units.start]) - sum(unit > highest for unit in unseen), 0) * UNIT,
    }


@pytest.mark.parametrize("seed", range(6))
def test_columns_are_those_of_painted_bytes(seed: int, tmp_path: Path) -> None:
    text = random_heap(seed, 120)
    run = read(write(tmp_path, text))
    count = len(text.splitlines())
    for line in range(2, count):
        assert run.at(line) == painted(text, line), line


@pytest.mark.parametrize("seed", range(3))
def test_pictures_agree_with_columns(seed: int, tmp_path: Path) -> None:
    text = random_heap(seed + 100, 300)
    run = read(write(tmp_path, text))
    for line in range(2, len(text.splitlines()), 7):
        row, picture = run.at(line), run.picture(line)
        assert {name: getattr(picture, name) for name in row} == row


def test_compiled_and_interpreted_sweeps_agree(tmp_path: Path) -> None:
    run = read(write(tmp_path, random_heap(7, 300)))
    line = np.arange(2, 400)
    space = np.zeros(len(line), np.int64)
    compiled = dict(free_space.heap_columns(run.blocks, run.heaps, space, line))
    with interpreted():
        by_hand = dict(free_space.heap_columns(run.blocks, run.heaps, space, line))
    assert {k: v.tolist() for k, v in by_hand.items()} == {k: v.tolist() for k, v in compiled.items()}


# ---------------------------------------------------------------------------------------------------------- captures

CAPTURED = [name for name in oracle.captures() if name in ("frag/ltrace_pinned", "mmap_threshold/ltrace_dynamic")]
TCACHE = 0x290
"""Bytes of the chunk in which glibc keeps its per-thread cache: its own, unseen in the log."""


@pytest.mark.parametrize("name", CAPTURED)
def test_the_heap_is_what_mallinfo2_said(name: str) -> None:
    capture = oracle.captures()[name]
    run = read(capture.logs[0])
    text = oracle.read_text(capture.logs[0]).splitlines()
    marks = {m[1]: i for i, line in enumerate(text, 1) if (m := re.search(r'SYS_write\(1, "MARK (\w+)', line))}
    compared = 0
    for label, line in marks.items():
        told = json.loads((capture.folder / f"heap_{label}.json").read_text())
        if not told["arena"]:
            continue
        found, picture = run.at(line), run.picture(line)
        assert found["heap_bytes"] == told["arena"]
        assert picture.direct_bytes == told["hblkhd"]
        # what the cache holds counts as used there
        assert 0 <= found["free_bytes"] - told["fordblks"] <= 32
        assert found["unseen_bytes"] == TCACHE
        assert picture.top_bytes == (told["keepcost"] if found["live_blocks"] else found["free_bytes"])
        compared += 1
    assert compared >= 8


@pytest.mark.skipif("frag/ltrace_pinned" not in oracle.captures(), reason="no captures")
def test_one_block_pins_the_heap_of_a_captured_program() -> None:
    run = read(oracle.captures()["frag/ltrace_pinned"].logs[0])
    answer = diagnosis.diagnose(run.replayed, run.blocks, run.heaps)
    assert diagnosis.ANSWERS[answer.code] == "fragmentation"
    assert (answer.leaked_blocks, answer.leaked_bytes) == (1, 5000)
    assert (answer.end.heap_bytes, answer.end.live_bytes) == (16134144, 5000)
    assert answer.end.pinned_bytes > 16_000_000
    pins = snapshot.pins(run.blocks, run.heaps, 0, answer.end.line)
    assert run.blocks.columns["size"][pins["block"]].tolist() == [5000]
    assert int(pins["released_bytes"][0]) == 16134144 - 480 - TCACHE


@pytest.mark.skipif("mmap_threshold/ltrace_dynamic" not in oracle.captures(), reason="no captures")
def test_threshold_of_a_captured_program() -> None:
    run = read(oracle.captures()["mmap_threshold/ltrace_dynamic"].logs[0])
    raises = growth_causes.threshold_raises(run.replayed, run.nesting, run.blocks, run.heaps)
    assert list(zip(raises["before"].tolist(), raises["after"].tolist(), strict=True)) == [
        (131072, 1003520),
        (1003520, 5001216),
    ]
    assert raises["observed"].tolist() == [1, 1]
    chunks = run.heaps.chunks
    assert (chunks["end"] - chunks["start"])[chunks["direct"] == 1].tolist() == [
        135168, 1003520, 5001216, 1007616, 41947136,
    ]  # fmt: skip


def test_spaces_are_kept_apart(tmp_path: Path) -> None:
    """Each of two processes has its own heap, and a line before a block's birth knows nothing of it."""
    first = [f"1 {line}" for line in SMALL.strip().splitlines()]
    fork = ["1 SYS_fork() = 2"]
    child = ["2 prog->malloc(24) = 0x2003000", "2 prog->free(0x2000010) = <void>", "1 prog->malloc(5000) = 0x2002000"]
    run = read(write(tmp_path, "\n".join([*first[:6], *fork, *child])))
    assert [run.at(line)["live_bytes"] for line in (6, 7, 8, 9, 10)] == [6000, 6000, 6000, 6000, 11000]
    assert [run.at(line, 1)["live_bytes"] for line in (6, 7, 8, 9, 10)] == [0, 6000, 6024, 5024, 5024]
    assert [run.at(line, 1)["heap_bytes"] for line in (7, 10)] == [HEAP, HEAP]
    assert run.at(9, 1)["free_bytes"] == HEAP - 2016 - 3008 - 32 - (0x2002FF0 - 0x2001790)


# ------------------------------------------------------------------------------------------------- unseen memory


def test_what_no_seen_call_handed_out_is_neither_free_nor_pinned() -> None:
    run = read(Path(__file__).parent / "cases" / "public" / "ltrace_unseen_is_not_free.log")
    between = 0x1898C60 - (0x1812310 + 144)
    assert run.at(2) == {
        "live_blocks": 2, "live_bytes": 187, "heap_bytes": 0x1898C60 + 80 - 0x1812310, "unseen_bytes": between,
        "free_bytes": 0, "largest_free_bytes": 0, "pinned_bytes": 0,
    }  # fmt: skip
    assert diagnosis.ANSWERS[diagnosis.diagnose(run.replayed, run.blocks, run.heaps).code] in ("neither", "leak")


def test_what_the_heap_gave_back_before_a_block_came_above_it_is_not_unseen(tmp_path: Path) -> None:
    log = """\
SYS_brk(0) = 0x1000000
SYS_brk(0x1042000) = 0x1042000
prog->malloc(100) = 0x1000010
SYS_brk(0x1021000) = 0x1021000
prog->malloc(100) = 0x1041010
"""
    run = replay.load(write(tmp_path, log))
    of_blocks = 2 * 112
    last = run.fragmentation.iloc[-1]
    assert last["heap_bytes"] == 0x21000 + 112
    assert last["unseen_bytes"] == last["heap_bytes"] - of_blocks
    assert run.heaps.unseen["end"].tolist() == [0x1021000]


def test_a_block_below_unseen_memory_pins_nothing_that_is_known(tmp_path: Path) -> None:
    """The third block lies above a library's: whether the first two let anything go back, nobody knows."""
    lines = [f"prog->malloc(100000) = {0x5000_0010 + 100016 * at:#x}" for at in (0, 1, 3)]
    run = read(write(tmp_path, "\n".join([*lines, "prog->free(0x50000010) = <void>"])))
    pins = snapshot.pins(run.blocks, run.heaps, 0, 4)
    assert run.blocks.columns["born_line"][pins["block"]].tolist() == [3]
    assert pins["released_bytes"].tolist() == [100016]


def test_what_a_child_has_from_its_parent_does_not_make_it_the_main_space(tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    log.write_text(
        "7 malloc(5000) = 0x5000\n"
        "7 fork() = 8\n"
        "8 malloc(100) = 0x9000\n"
        "8 +++ exited (status 0) +++\n"
        "7 +++ exited (status 0) +++\n"
    )
    run = calls.read_logs([log])
    replayed = regions.replay(run, run.strings)
    found = find_blocks(replayed, find_nesting(replayed.events, run.strings))
    assert main_space(found.columns) == 0
