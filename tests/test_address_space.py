"""The kernel's operations against a naive dictionary of pages, under random operations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from conftest import interpreted
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.engine.columns import NO_TEXT, NULL
from replay.engine.records import Records
from replay.mm import address_space, fields
from replay.mm.address_space import apply_operations
from replay.mm.fields import ABOVE_BREAK, CHANGE, OPERATION, RECTANGLE, OpCode
from replay.mm.space import LEAF, READ_AHEAD_ABOVE, empty_space, grown, live_rows
from replay.mm.totals import check

PAGE = 4096
BASE = 0x10000000
WORLD = 200


@dataclass
class Naive:
    """Page number to (prot, shared, offset): what a page dictionary makes of the same operations."""

    pages: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    brk: int = NULL

    def map(self, start: int, length: int, prot: int, shared: int, offset: int) -> None:
        for n in range(-(-length // PAGE)):
            self.pages[start // PAGE + n] = (prot, shared, offset if offset == NULL else offset + n * PAGE)

    def unmap(self, start: int, length: int) -> None:
        for n in range(-(-length // PAGE)):
            self.pages.pop(start // PAGE + n, None)

    def protect(self, start: int, length: int, prot: int) -> bool:
        """Return whether the whole range was mapped; only the pages before the first gap change."""
        for n in range(-(-length // PAGE)):
            page = self.pages.get(start // PAGE + n)
            if page is None:
                return False
            self.pages[start // PAGE + n] = (prot, *page[1:])
        return True

    def move_brk(self, to: int) -> None:
        low, high = -(-self.brk // PAGE), -(-to // PAGE)
        for n in range(low, high):
            self.pages[n] = (3, 0, NULL)
        for n in range(high, low):
            self.pages.pop(n, None)
        self.brk = to

    def remap(self, old: int, old_pages: int, new: int, new_pages: int, keep: bool) -> None:
        pieces = [self.pages.get(old // PAGE + n) for n in range(old_pages)]
        if new != old:
            for n in range(new_pages):
                self.pages.pop(new // PAGE + n, None)
            if not keep:
                for n in range(old_pages):
                    self.pages.pop(old // PAGE + n, None)
        last = pieces[-1]
        assert last is not None
        for n in range(new_pages):
            prot, shared, offset = last
            grown = (prot, shared, offset if offset == NULL else offset + (n - old_pages + 1) * PAGE)
            piece = pieces[n] if n < old_pages else grown
            assert piece is not None
            self.pages[new // PAGE + n] = piece
        for n in range(new_pages, old_pages):
            if new == old:
                self.pages.pop(old // PAGE + n, None)


class Driver:
    """Feeds operations to a space one by one, growing its arrays as they fill."""

    def __init__(self) -> None:
        self.space = empty_space()
        self.ended: list[Records] = []
        self.clock = 0

    def do(self, code: int, **columns: int) -> int:
        self.clock += 1
        operations, changes, above = np.zeros(1, OPERATION), np.zeros(1, CHANGE), np.zeros(1, ABOVE_BREAK)
        given = {"clock": self.clock, "step": self.clock, "code": code, "path": NO_TEXT, "offset": NULL} | columns
        for name, value in given.items():
            operations[name] = value
        self.space = self.space._replace(ended=np.zeros(100_000, RECTANGLE))
        done = 0
        while done < 1:
            done, count = apply_operations(self.space, operations, np.zeros(1, np.int64), (0, 1), changes, above, PAGE)
            self.ended += list(self.space.ended[:count].copy())
            if done < 1:
                self.space = grown(self.space)
        return int(changes[0].divergence)

    def pages(self) -> dict[int, tuple[int, int, int]]:
        found = {}
        for row in live_rows(self.space):
            for n in range((row.end - row.start) // PAGE):
                offset = row.offset if row.offset == NULL else row.offset + n * PAGE
                found[int(row.start) // PAGE + n] = (int(row.prot), int(row.shared), int(offset))
        return found


places = st.integers(0, WORLD - 1)
sizes = st.integers(1, 12)
prots = st.sampled_from([0, 1, 3])
operation = st.one_of(
    st.tuples(st.just("map"), places, sizes, prots, st.booleans(), st.sampled_from([NULL, 0, 0x3000])),
    st.tuples(st.just("unmap"), places, sizes),
    st.tuples(st.just("protect"), places, sizes, prots),
    st.tuples(st.just("brk"), st.integers(0, 40 * PAGE)),
    st.tuples(st.just("remap"), places, sizes, places, sizes, st.booleans()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(operation, max_size=60), st.integers(0, PAGE - 1))
def test_operations_equal_a_page_dictionary(operations: list[tuple[object, ...]], odd: int) -> None:
    assert_equal_a_page_dictionary(operations, odd)


@settings(max_examples=20, deadline=None)
@given(st.lists(operation, max_size=60), st.integers(0, PAGE - 1))
def test_interpreted_operations_equal_a_page_dictionary(operations: list[tuple[object, ...]], odd: int) -> None:
    with interpreted():
        assert_equal_a_page_dictionary(operations, odd)


def assert_equal_a_page_dictionary(operations: list[tuple[object, ...]], odd: int) -> None:
    driver, naive = Driver(), Naive()
    driver.space.state.start_brk = fields.FRESH
    start_brk = BASE + 50 * PAGE + odd
    driver.do(OpCode.BRK, addr=0, result=start_brk, prot=3)
    naive.brk = start_brk
    for op in operations:
        apply(op, driver, naive, start_brk)
        check(driver.space, PAGE)
        assert driver.pages() == naive.pages


def apply(op: tuple, driver: Driver, naive: Naive, start_brk: int) -> None:
    kind = op[0]
    if kind == "brk":
        to = start_brk + op[1]
        naive.move_brk(to)
        driver.do(OpCode.BRK, addr=to, result=to, prot=3)
        return
    start = BASE + op[1] * PAGE
    length = op[2] * PAGE - (op[1] % 3)
    if kind == "map":
        naive.map(start, length, op[3], int(op[4]), op[5])
        driver.do(
            OpCode.MAP, result=start, length=length, prot=op[3], flags=fields.MAP_FIXED, shared=op[4], offset=op[5]
        )
    elif kind == "unmap":
        naive.unmap(start, length)
        driver.do(OpCode.UNMAP, addr=start, length=length)
    elif kind == "protect":
        whole = naive.protect(start, length, op[3])
        driver.do(OpCode.PROTECT, addr=start, length=length, prot=op[3], errno=0 if whole else fields.ENOMEM)
    else:
        remap(op, start, driver, naive)


def remap(op: tuple, old: int, driver: Driver, naive: Naive) -> None:
    _, place, old_pages, target, new_pages, keep = op
    new = BASE + target * PAGE if op[5] or target % 2 else old
    if any(naive.pages.get(old // PAGE + n) is None for n in range(old_pages)):
        return
    if new == old and (keep or any(old // PAGE + n in naive.pages for n in range(old_pages, new_pages))):
        return
    if new != old and abs(target - place) < max(old_pages, new_pages):
        return
    if keep:
        new_pages = old_pages
    naive.remap(old, old_pages, new, new_pages, keep)
    flags = (fields.MREMAP_FIXED if new != old else 0) | (fields.MREMAP_DONTUNMAP if keep else 0)
    driver.do(OpCode.REMAP, addr=old, old_length=old_pages * PAGE, length=new_pages * PAGE, flags=flags, result=new)


@pytest.mark.parametrize("count", [10, 500, 3000], ids=str)
def test_many_mappings_stay_in_order(count: int) -> None:
    driver = Driver()
    order = np.random.default_rng(7).permutation(count)
    for n in order:
        driver.do(OpCode.MAP, result=BASE + int(n) * 3 * PAGE, length=PAGE, prot=3)
    check(driver.space, PAGE)
    assert driver.space.state.gaps == count - 1
    for n in order[::2]:
        driver.do(OpCode.UNMAP, addr=BASE + int(n) * 3 * PAGE, length=PAGE)
    check(driver.space, PAGE)
    assert driver.space.state.mappings == count // 2


@pytest.mark.parametrize("code", [OpCode.UNMAP, OpCode.PROTECT], ids=["unmap", "protect"])
def test_holes_are_cut_wherever_a_mapping_stands_in_its_leaf(code: int) -> None:
    driver, naive = Driver(), Naive()
    pages = 8 * LEAF + 1
    driver.do(OpCode.MAP, result=BASE, length=pages * PAGE, prot=3, offset=0)
    naive.map(BASE, pages * PAGE, 3, 0, 0)
    for n in np.random.default_rng(7).permutation(pages // 2).tolist():
        hole = BASE + (2 * n + 1) * PAGE
        driver.do(code, addr=hole, length=PAGE, prot=1)
        if code == OpCode.UNMAP:
            naive.unmap(hole, PAGE)
        else:
            naive.protect(hole, PAGE, 1)
        check(driver.space, PAGE)
    assert driver.pages() == naive.pages
    # With each hole one mapping ended, the one that held it: its pieces live on.
    assert [row.died_line for row in driver.ended] == list(range(2, 2 + pages // 2))


def outcome_of(operations: Records) -> tuple[list, Records, Records]:
    """Return what becomes of operations that are run at once: the rectangles that end, the changes, what is left."""
    count, done, ended = len(operations), 0, []
    space = empty_space()._replace(ended=np.zeros(8 * count + 1000, RECTANGLE))
    changes, above = np.zeros(count, CHANGE), np.zeros(1, ABOVE_BREAK)
    while done < count:
        done, died = apply_operations(space, operations, np.arange(count), (done, count), changes, above, PAGE)
        ended += space.ended[:died].tolist()
        if done < count:
            space = grown(space)
    check(space, PAGE)
    return ended, changes, live_rows(space)


def operations_of(*columns: tuple[int, ...]) -> Records:
    """Return operations, each given as code, page, pages and prot."""
    made = np.zeros(len(columns), OPERATION)
    made["code"], page, pages, made["prot"] = np.array(columns, np.int64).reshape(-1, 4).T
    made["clock"] = made["step"] = np.arange(1, len(made) + 1)
    made["addr"] = made["result"] = BASE + page * PAGE
    made["length"], made["flags"] = pages * PAGE, fields.MAP_FIXED
    made["path"], made["offset"] = NO_TEXT, NULL
    return made


codes = st.sampled_from([OpCode.MAP, OpCode.UNMAP, OpCode.PROTECT])


@settings(deadline=None)
@given(st.lists(st.tuples(codes, places, sizes, prots), max_size=150))
def test_reading_ahead_changes_nothing(columns: list[tuple[int, ...]]) -> None:
    operations = operations_of(*columns)
    ended, changes, live = outcome_of(operations)
    with interpreted(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(address_space, "READ_AHEAD_ABOVE", 0)
        again = outcome_of(operations)
    assert again[0] == ended
    assert np.array_equal(again[1], changes)
    assert np.array_equal(again[2], live)


def test_among_so_many_mappings_that_is_read_ahead() -> None:
    """Map every fourth page, then unmap, map again or protect pages of them: as machine code, and by hand."""
    choose = np.random.default_rng(7)
    many = LEAF * (READ_AHEAD_ABOVE + 1)  # however full the leaves are
    mapped = [(OpCode.MAP, 4 * n, 3, 3) for n in range(many)]
    pages = {4 * n + k: 3 for n in range(many) for k in range(3)}
    for n in choose.permutation(many)[:5000].tolist():
        page, code = 4 * n + 1, int(choose.choice([OpCode.MAP, OpCode.UNMAP, OpCode.PROTECT]))
        mapped.append((code, page, 1, 1))
        pages[page] = 1
        if code == OpCode.UNMAP:
            del pages[page]
    _, changes, live = outcome_of(operations_of(*mapped))
    found = {}
    for row in live:
        for page in range((row.start - BASE) // PAGE, (row.end - BASE) // PAGE):
            found[page] = row.prot
    assert found == pages
    assert changes[-1].mapped_bytes == len(pages) * PAGE
    assert set(changes["divergence"]) == {fields.NO_DIVERGENCE}


def test_a_map_over_a_mapping_without_fixed_is_a_divergence() -> None:
    driver = Driver()
    assert driver.do(OpCode.MAP, result=BASE, length=PAGE, prot=3) == fields.NO_DIVERGENCE
    assert driver.do(OpCode.MAP, result=BASE, length=PAGE, prot=1) == fields.MAP_OVER_MAPPING
    assert driver.pages() == {BASE // PAGE: (1, 0, NULL)}


def test_partial_protect_changes_what_lies_before_the_gap() -> None:
    driver = Driver()
    driver.do(OpCode.MAP, result=BASE, length=2 * PAGE, prot=3)
    driver.do(OpCode.MAP, result=BASE + 3 * PAGE, length=PAGE, prot=3)
    driver.do(OpCode.PROTECT, addr=BASE, length=4 * PAGE, prot=1, errno=fields.ENOMEM)
    assert [page[0] for page in driver.pages().values()] == [1, 1, 3]


def test_protect_of_unknown_pages_betrays_a_mapping() -> None:
    driver = Driver()
    assert driver.do(OpCode.PROTECT, addr=BASE, length=PAGE, prot=1) == fields.PROTECT_UNKNOWN
    assert driver.pages() == {BASE // PAGE: (1, 0, NULL)}


def test_shrinking_brk_unmaps_foreign_pages() -> None:
    driver = Driver()
    driver.space.state.start_brk = fields.FRESH
    driver.do(OpCode.BRK, addr=0, result=BASE, prot=3)
    driver.do(OpCode.BRK, addr=BASE + 4 * PAGE, result=BASE + 4 * PAGE, prot=3)
    driver.do(OpCode.MAP, result=BASE + 2 * PAGE, length=PAGE, prot=0, flags=fields.MAP_FIXED)
    driver.do(OpCode.BRK, addr=BASE + PAGE, result=BASE + PAGE, prot=3)
    assert list(driver.pages()) == [BASE // PAGE]
