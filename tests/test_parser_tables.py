"""The tables of the parsers: those that came with the package where they fit, else those of the user's cache."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import oracle
import pytest

from replay.engine.cache import cache_directory
from replay.grammar import parse, parser

LINE = "brk(NULL) = 0x5555"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's cache, empty, for a package with its tables and grammars in folders of their own."""
    kept = (cache_directory, parser.grammar_file, parser.parser_of)
    shutil.copytree(oracle.CHECKOUT / "grammars", tmp_path / "grammars")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parser, "PLACES", (tmp_path / "grammars",))
    monkeypatch.setattr(parser, "TABLES", tmp_path)
    for function in kept:
        function.cache_clear()
    parser.build_tables()
    yield tmp_path / "cache" / "replay"
    for function in kept:
        function.cache_clear()


def kept_by_lark(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*"))


def test_the_tables_of_the_package_leave_the_users_cache_alone(cache: Path) -> None:
    assert parse(LINE, "strace").call == "brk"
    assert kept_by_lark(cache) == []


def test_tables_of_another_grammar_are_not_taken(cache: Path) -> None:
    common = parser.grammar_file("common.lark")
    common.write_text(common.read_text() + "\n// changed\n")
    assert parse(LINE, "strace").call == "brk"
    assert kept_by_lark(cache) == ["strace.parser"]


def test_tables_of_another_version_of_lark_are_not_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lark.__version__", "0.0")
    assert parse(LINE, "strace").call == "brk"
    assert kept_by_lark(cache) == ["strace.parser"]


@pytest.mark.parametrize("damage", [None, b"", b"\x80\x04."], ids=["gone", "empty", "another"])
def test_a_package_without_its_tables_reads_all_the_same(cache: Path, damage: bytes | None) -> None:
    file = parser.TABLES / "_strace.tables"
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    assert parse(LINE, "strace").call == "brk"
    assert kept_by_lark(cache) == ["strace.parser"]


def test_tables_that_fit_are_not_made_again(cache: Path) -> None:
    before = [file.stat().st_mtime_ns for file in parser.build_tables()]
    assert [file.stat().st_mtime_ns for file in parser.build_tables()] == before
