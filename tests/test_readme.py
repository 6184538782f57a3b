"""The README says what is so: its sessions are real output, its dictionary is the schema, its commands all exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from replay.cli import COMMANDS
from replay.tables import DICTIONARY_BEGIN, DICTIONARY_END, data_dictionary_markdown

CHECKOUT = Path(__file__).parent.parent
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
SESSIONS = re.findall(r"<!-- session -->\n```console\n\$ replay (.*)\n((?:.*\n)*?)```", README)


@pytest.mark.parametrize(("words", "shown"), SESSIONS, ids=[words for words, _ in SESSIONS])
def test_a_session_shows_how_the_real_output_begins(words: str, shown: str) -> None:
    command = [sys.executable, "-m", "replay", *words.split()]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(shown)
    assert len(shown.splitlines()) >= 10


def test_there_are_two_sessions() -> None:
    assert [words.split()[0] for words, _ in SESSIONS] == ["sample_traces/blocked_break/strace.log", "maps"]


def test_the_data_dictionary_is_that_of_the_schema() -> None:
    shown = README[README.index(DICTIONARY_BEGIN) : README.index(DICTIONARY_END) + len(DICTIONARY_END)]
    assert data_dictionary_markdown().strip() in shown


def test_every_command_is_named() -> None:
    assert [command for command in COMMANDS if f"`replay {command}" not in README] == []


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(CHECKOUT)
    example = re.search(r"```python\n(import replay\n.*?)```", README, re.DOTALL)
    assert example is not None
    exec(example.group(1), {})
    assert "mapping_above" in capsys.readouterr().out


def test_the_plot_example_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(CHECKOUT)
    (example,) = re.findall(r"```python\n(import replay\n[^`]*plot\(\).*?)```", README, re.DOTALL)
    exec(example.replace('"memory.png"', f'"{tmp_path / "memory.png"}"'), {})
    assert (tmp_path / "memory.png").stat().st_size > 5_000


def test_each_room_has_a_line_and_each_file_named_is_there() -> None:
    section = README[README.index("## Where is what") :]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    rooms = {path.name for path in (CHECKOUT / "replay").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= named
    files = [name for name in re.findall(r"`([\w/]+\.(?:py|md))`", section) if "NAME" not in name]
    assert [
        name for name in files if not (CHECKOUT / "replay" / name).exists() and not (CHECKOUT / name).exists()
    ] == []
