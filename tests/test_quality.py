"""The code itself: ruff and mypy find nothing, and the package holds what it promises."""

from __future__ import annotations

import subprocess
import sys

import oracle
import pytest


def run_tool(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=oracle.CHECKOUT, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    assert run_tool("ruff", "check", "--no-cache", "--output-format", "concise", ".").splitlines() == []


def test_mypy_strict_finds_nothing() -> None:
    assert run_tool("mypy", "--strict", "--cache-dir", "/dev/null", "replay").splitlines() == []


def test_the_top_level_holds_nothing_else() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=oracle.CHECKOUT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if not any(listed):
        pytest.skip("not a git checkout")
    named = {path.split("/")[0] for path in listed if path and not path.startswith(".")}
    assert named <= {
        "pyproject.toml", "replay", "grammars", "sample_traces", "tests", "README.md", "LICENSE", "CHANGELOG.md",
    }  # fmt: skip
