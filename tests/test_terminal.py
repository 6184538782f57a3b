"""What the output can show: widths from 40 to 200 columns, colour by option and environment, ASCII, and no escapes."""

from __future__ import annotations

import io
import re

import oracle
import pytest
from test_cli import process

from replay.console import screen, terminal

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"


@pytest.fixture(autouse=True)
def colour_is_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(terminal._Chosen, "colour", "auto")


@pytest.mark.parametrize(
    ("columns", "table", "text"), [("40", 60, 40), ("60", 60, 60), ("80", 80, 80), ("200", 200, 100), ("500", 200, 100)]
)
def test_tables_and_paragraphs_use_the_width_that_there_is(
    columns: str, table: int, text: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert (terminal.width(), terminal.text_width()) == (table, text)


@pytest.mark.parametrize("columns", [40, 60, 80, 132, 200])
@pytest.mark.parametrize("command", ["report", "steps"])
def test_no_line_is_wider_than_the_terminal(command: str, columns: int) -> None:
    shown = process(command, BLOCKED, COLUMNS=str(columns)).out.splitlines()
    assert max(map(screen.cells, shown)) <= columns
    if columns == 200:
        assert max(map(screen.cells, shown)) > 90 or command == "steps"


def test_a_label_goes_on_below_rather_than_being_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    log = oracle.SAMPLES / "threads" / "strace.log"
    shown = process("report", log, COLUMNS="60").out
    picture = shown[shown.index("Address space\n") :]
    assert "…" not in picture.partition("\n\n")[0]


@pytest.mark.parametrize(
    ("when", "environment", "coloured"),
    [
        ("auto", {}, False),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_the_option_decides_then_no_color_then_force_color(
    when: str, environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal.choose_colour(when)
    assert terminal.has_colour(io.StringIO()) == coloured


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_the_locale_c_and_other_encodings_get_ascii(environment: dict[str, str]) -> None:
    ended = process(BLOCKED, **environment)
    assert ended.status == 0
    assert ended.out.isascii() and "####" in ended.out


HOSTILE = "\x1b]0;title\x07 \x9b31m \u202ecod.exe \udcff \u2028"


def test_a_text_of_the_log_is_fit_for_a_terminal() -> None:
    shown = r"\x1b]0;title\x07 \x9b31m \u202ecod.exe \xff \u2028"
    assert screen.clean(HOSTILE) == shown
    out = io.StringIO()
    screen.print_lines([f"{screen.styled('strong', 'name')} {HOSTILE}", HOSTILE], out)
    assert out.getvalue() == f"name {shown}\n{shown}\n"


@pytest.mark.parametrize("command", ["report", "maps", "steps"])
def test_steps_with_escapes_in_paths_print_them_as_text(command: str) -> None:
    log = oracle.CHECKOUT / "tests" / "cases" / "hostile" / "steps_escapes.log"
    assert "\x1b" in log.read_text() or "\\33" in log.read_text()
    shown = process(command, log).out
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown) is None or command == "maps"
