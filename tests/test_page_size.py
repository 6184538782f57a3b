"""The page size is told from where mappings lie; who says it rules."""

from __future__ import annotations

from pathlib import Path

import pytest

import replay


def log_of(folder: Path, page: int, lengths: list[int], *extra: str) -> Path:
    """Mappings of these lengths, each right below the one before, as a kernel with such pages places them."""
    at, lines = 0x7FFFF7FF0000, ["brk(NULL) = 0x10000"]
    for length in lengths:
        at -= -(-length // page) * page
        lines.append(f"mmap(NULL, {length}, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = {at:#x}")
    log = folder / "x.log"
    log.write_text("\n".join([*lines, *extra]) + "\n")
    return log


ODD = [5000, 100_001, 8192, 4096, 20_000, 70_000, 3, 12_288, 40_961]


@pytest.mark.parametrize("page", [4096, 16384, 65536])
def test_the_page_size_is_told(tmp_path: Path, page: int) -> None:
    run = replay.load(log_of(tmp_path, page, ODD))
    assert run.replayed.page_size == page
    assert int((run.regions.end - run.regions.start).sum()) == sum(-(-length // page) * page for length in ODD)


@pytest.mark.parametrize(
    "extra",
    [
        "mprotect(0x7ffff7001000, 4096, PROT_NONE) = 0",
        "mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0x26000) = 0x7ffff6000000",
        "munmap(0x7ffff7003000, 4096) = 0",
    ],
)
def test_one_address_or_offset_tells_small_pages(tmp_path: Path, extra: str) -> None:
    assert replay.load(log_of(tmp_path, 65536, ODD, extra)).replayed.page_size == 4096


def test_few_mappings_or_even_lengths_tell_nothing(tmp_path: Path) -> None:
    assert replay.load(log_of(tmp_path, 65536, ODD[:7])).replayed.page_size == 4096
    assert replay.load(log_of(tmp_path, 65536, [65536] * 20)).replayed.page_size == 4096


def test_the_option_rules(tmp_path: Path) -> None:
    assert replay.load(log_of(tmp_path, 16384, ODD), page_size=4096).replayed.page_size == 4096
    assert replay.load(log_of(tmp_path, 4096, ODD), page_size=65536).replayed.page_size == 65536
