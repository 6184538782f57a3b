from __future__ import annotations

import random
from pathlib import Path

import naive_scanner
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_maker import LINES, logs_of_captures, mutated
from naive_scanner import is_passed_over

from replay.lines.interest import NAMES
from replay.lines.scan import WEIGHTS, Scan, columns_of, names_of_interest, scan
from replay.lines.scan_loop import LINE_TYPES, LONGEST_NAME, MOST_NAMES, SLOT_TYPES, scan_lines
from replay.lines.shape_trie import CHILD, FIRST_WORD, MOST_PIECES, MOST_SIBLINGS, NEXT, PIECES, ROOT, empty_tree
from replay.lines.slots import ADDRESS
from replay.logs.dialect import DIALECTS


def slots_of(found: Scan, index: int) -> tuple[object, ...]:
    """The shape and the slots of a line, with the values of the numbers."""
    slots = slice(int(found.first_slot[index]), int(found.first_slot[index + 1]))
    mark = found.slot_mark[slots]
    value = np.where(mark < ADDRESS, found.value[slots], 0)
    texts = [found.data[a:b] for a, b in zip(found.slot_start[slots], found.slot_end[slots], strict=True)]
    return int(found.shape[index]), mark.tolist(), value.tolist(), texts


def assert_both_see_the_same(text: bytes, dialect: str) -> None:
    tree = empty_tree()
    for _ in ("by the byte, at first", "along the tree of shapes"):
        assert_same(text, naive_scanner.scan(text, dialect), scan(text, dialect, tree), dialect)


def assert_same(text: bytes, one: Scan, other: Scan, dialect: str) -> None:
    lines = text.split(b"\n")[:-1]
    assert one.row.tolist() == other.row.tolist()
    assert one.row.tolist() == [i for i, line in enumerate(lines) if line and not is_passed_over(line, dialect)]
    for found in (one, other):
        spans = zip(found.start.tolist(), found.end.tolist(), strict=True)
        assert [found.data[start:end] for start, end in spans] == [lines[row] for row in found.row]
    assert (one.unsure <= other.unsure).all()
    for index in np.flatnonzero(~other.unsure).tolist():
        assert slots_of(one, index) == slots_of(other, index), lines[one.row[index]]


@pytest.mark.parametrize("path", logs_of_captures(), ids=lambda p: "/".join(p.parts[-3:]))
def test_both_scanners_see_the_same_in_captures(path: Path) -> None:
    text = path.read_bytes().replace(b"\0", b"").rstrip(b"\n") + b"\n"
    for dialect in ("strace", "mixed"):
        assert_both_see_the_same(text, dialect)


@pytest.mark.parametrize("dialect", [*DIALECTS, "mixed"])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_both_scanners_see_the_same_in_mutated_lines(dialect: str, seed: int) -> None:
    random_ = random.Random(seed)
    lines = [random_.choice(LINES[random_.choice(DIALECTS)]) for _ in range(40)]
    mutants = [mutated(line, random_) for line in lines]
    cut = [line[: random_.randrange(len(line) + 1)] for line in mutants]
    assert_both_see_the_same(b"\n".join([*lines, *mutants, *cut]) + b"\n", dialect)


WORDS = "brk mmap malloc free read x _ 7 4000 12:01 .5 SYS_ SYS_9 syscall_ syscall_0x _Znwm _Zd _Z operator @SYS"
MARKS = """( ) -> a-> [a]-> @ @libc.so.6 :: ~ [ ] <a.out> < > (+ (+) " "a" \\ - + 0x7f = , ) resumed resumed>"""
SPACED = ("operator ", "<... ", " resumed", " resumed>", " ", "  ", ") = ", ")  = 0", "[pid 7] ", "(+ 0.1)", "\t", "\v")
PARTS = st.sampled_from([*sorted(NAMES)[::7], *WORDS.split(), *MARKS.split(), *SPACED])


@pytest.mark.parametrize("dialect", [*DIALECTS, "mixed"])
@settings(max_examples=300, deadline=None)
@given(lines=st.lists(st.lists(PARTS, max_size=9).map("".join), max_size=8))
def test_both_scanners_see_the_same_in_generated_lines(dialect: str, lines: list[str]) -> None:
    assert_both_see_the_same("".join(line + "\n" for line in lines).encode("latin-1"), dialect)


def test_a_call_that_is_resumed_names_no_library() -> None:
    lines = b"<... _exit@SYS resumed\n<... puts@libc.so.6 resumed> ) = 0\n<... puts resumed> ) = 0\n"
    assert_both_see_the_same(lines, "ltrace")
    assert scan(lines, "ltrace").row.tolist() == [0, 1]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_name_of_interest_is_passed_over(name: str) -> None:
    lines = f"{name}(1) = 0\n<... {name} resumed>) = 0\n{name}x(1) = 0\nx{name}(1) = 0\n"
    assert_both_see_the_same(lines.encode(), "strace")
    lines += f"SYS_{name}(1) = 0\na.out->{name}(1) = 0\n{name}@libc.so.6(1) = 0\nstd::{name}(1) = 0\n"
    assert_both_see_the_same(lines.encode(), "ltrace")


def test_many_short_slots_and_lines_find_room() -> None:
    assert_both_see_the_same(b"1\n" * 500 + b"[1 2 3 4 5 6 7 8 9]\n" * 500 + b'"""""""""""\n' * 50, "strace")
    assert_both_see_the_same(b"", "strace")
    assert_both_see_the_same(b"\n\n", "strace")


def test_more_shapes_than_the_tree_has_room_for_are_seen_all_the_same() -> None:
    names = [a + b + c for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefghijklmnop"]
    lines = [f"{name} 1 {other} 2 {name}\n" for name, other in zip(names, reversed(names), strict=True)]
    text = "".join(lines).encode() * 2
    tree = empty_tree()
    assert_same(text, naive_scanner.scan(text, "strace"), scan(text, "strace", tree), "strace")
    assert tree.used[PIECES] <= MOST_PIECES
    siblings, piece = 0, int(tree.pieces[ROOT, CHILD])
    while piece:
        siblings, piece = siblings + 1, int(tree.pieces[piece, NEXT])
    assert siblings == MOST_SIBLINGS


def test_the_most_frequent_shape_is_looked_for_first() -> None:
    tree = empty_tree()
    scan(b"brk(1) = 1\nmunmap(1) = 1\n" + b"mmap(1) = 1\n" * 9 + b"munmap(1) = 1\n" * 3, "strace", tree)
    found, piece = [], int(tree.pieces[ROOT, CHILD])
    while piece:
        first = int(tree.pieces[piece, FIRST_WORD])
        found.append(int(tree.words[first]).to_bytes(8, "little").rstrip(b"\0"))
        piece = int(tree.pieces[piece, NEXT])
    assert found == [b"mmap(", b"munmap(", b"brk("]


class Places:
    """A line whose reads of bytes are counted."""

    def __init__(self, line: bytes) -> None:
        self.line = line + b"\n"
        self.reads = 0

    def __len__(self) -> int:
        return len(self.line)

    def __getitem__(self, place: int) -> int:
        self.reads += 1
        return self.line[place]


ODD = [*r"""3< 3<3<a ( [ < " \" \ (+ (+1 a-> @a x 7 0x [f 3<" 1: 1.""".split(), "<... "]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("before", ["", "brk(", "--- ", "a->malloc("])
@pytest.mark.parametrize("ltrace", [False, True])
def test_a_line_is_scanned_in_linear_time(odd: str, before: str, ltrace: bool) -> None:
    reads = []
    for count in (100, 200):
        line = Places((before + odd * count).encode())
        lines, slots = columns_of(LINE_TYPES, 2), columns_of(SLOT_TYPES, 2 * len(line))
        with np.errstate(over="ignore"):
            scan_lines(line, WEIGHTS, names_of_interest(), ltrace, lines, slots, empty_tree())  # type: ignore[arg-type]
        reads.append(line.reads)
    assert reads[1] < 2.2 * reads[0] + 200


def test_all_names_of_interest_find_room_in_the_table() -> None:
    assert max(map(len, NAMES)) <= LONGEST_NAME
    assert len(NAMES) <= MOST_NAMES // 4
