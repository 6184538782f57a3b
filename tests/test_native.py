"""The library of compiled loops: what it refuses, when it is stale, and what building it says where it cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest

from replay.engine import build_hook, native
from replay.engine.gap_sweep import empty_tree, sweep
from replay.errors import ReplayError
from replay.mm.address_space import apply_operations
from replay.mm.fields import ABOVE_BREAK, CHANGE, OPERATION
from replay.mm.space import empty_space


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package with its library, in place of the one that is tested."""
    shutil.copytree(oracle.CHECKOUT / "replay", tmp_path / "replay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(oracle.CHECKOUT / "pyproject.toml", tmp_path)
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.setattr(native, "LIBRARY", tmp_path / build_hook.LIBRARY)
    native.library.cache_clear()
    yield tmp_path
    native.library.cache_clear()


def test_a_library_older_than_a_constant_of_a_helper_is_refused(checkout: Path) -> None:
    assert native.library()
    native.library.cache_clear()
    helper = checkout / "replay" / "lines" / "slots.py"
    text = helper.read_text()
    assert "LONGEST_NUMBER: Final = 24" in text
    helper.write_text(text.replace("LONGEST_NUMBER: Final = 24", "LONGEST_NUMBER: Final = 25"))
    with pytest.raises(ReplayError, match=r"_loops.so: older than .*python -m replay.engine.build_hook"):
        native.library()


def test_what_is_not_a_source_of_the_loops_may_change(checkout: Path) -> None:
    (checkout / "replay" / "cli.py").write_text("")
    assert native.library()


@pytest.mark.parametrize("damage", [None, b"", b"\x7fELF"], ids=["gone", "empty", "cut"])
def test_a_library_that_cannot_be_loaded_says_what_makes_it(checkout: Path, damage: bytes | None) -> None:
    (checkout / build_hook.LIBRARY).unlink()
    if damage is not None:
        (checkout / build_hook.LIBRARY).write_bytes(damage)
    with pytest.raises(ReplayError, match=r"cannot be loaded: .*; python -m replay.engine.build_hook makes it"):
        native.library()


def test_a_user_is_told_so_without_a_traceback(checkout: Path) -> None:
    (checkout / build_hook.LIBRARY).unlink()
    log = oracle.SAMPLES / "blocked_break" / "strace.log"
    done = subprocess.run(
        [sys.executable, "-m", "replay", str(log)], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the compiled loops cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_arrays_of_another_layout_are_refused() -> None:
    numbers, places = np.zeros(1, np.int64), np.zeros(1, np.int32)
    changes = (places, numbers, np.zeros(1, np.bool_))
    for wrong in (np.zeros(1, np.int32), np.zeros((1, 1), np.int64), np.zeros(4, np.int64)[::2]):
        with pytest.raises(ValueError, match="array of 1 dimensions of int64 in C order"):
            sweep(wrong, numbers, changes, places, empty_tree(1), numbers, numbers)
    with pytest.raises(ValueError, match="argument"):
        sweep(numbers, numbers, changes, places)


def test_records_of_another_layout_are_refused() -> None:
    space, chosen = empty_space(), np.zeros(0, np.int64)
    operations, changes, above = np.zeros(0, OPERATION), np.zeros(0, CHANGE), np.zeros(0, ABOVE_BREAK)
    assert apply_operations(space, operations, chosen, (0, 0), changes, above, 4096) == (0, 0)
    with pytest.raises(ValueError, match="array of 1 dimensions"):
        apply_operations(space, changes, chosen, (0, 0), changes, above, 4096)
    with pytest.raises(ValueError, match="array of 0 dimensions"):
        apply_operations(space._replace(state=np.zeros(1, CHANGE)[0]), operations, chosen, (0, 0), changes, above, 4096)


def test_a_fresh_library_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_hook, "_compiling", lambda *_: pytest.fail("built again"))
    assert build_hook.build(oracle.CHECKOUT)[0] == build_hook.LIBRARY


@pytest.mark.parametrize(
    ("missing", "said"),
    [("numba", "compiled by numba, not installed"), ("ziglang", "linked by cc or ld, neither is found")],
)
def test_a_build_that_cannot_says_what_is_missing(
    missing: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_hook, "find_spec", lambda name: None if name == missing else object())
    monkeypatch.setattr(build_hook.shutil, "which", lambda _: None)
    with pytest.raises(build_hook.BuildError, match=said):
        if missing == "numba":
            build_hook.build_loops(oracle.CHECKOUT, tmp_path / "x.so")
        build_hook._link([], tmp_path / "x.so")
