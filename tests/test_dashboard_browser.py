"""The dashboard in a real browser: menus, filters, headings and a chosen run do what they say, on paper too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oracle
import pytest
from fleet_maker import make_dataset

import replay
from replay.html import write_dashboard

pytest.importorskip("bokeh")
pytestmark = pytest.mark.live

LOGS = {
    "v1.9/plain": oracle.SAMPLES / "plain" / "strace.log",
    "v1.9/blocked": oracle.SAMPLES / "blocked_break" / "strace.log",
    "v1.10/blocked": oracle.SAMPLES / "blocked_break" / "strace.log",
}
MALLOC_ALONE = """\
7 prog->malloc(24)                        = 0x55d0c0
7 prog->malloc(500)                       = 0x55d0e0
7 prog->free(0x55d0c0)                    = <void>
7 +++ exited (status 0) +++
"""

DRAWN = """(name) => {
  const data = Bokeh.documents[0].get_model_by_name(name).renderers[0].data_source.data
  return Object.fromEntries([...data.label].map((label, at) => [label, [data.runs[at], data.median[at]]]))
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "leaky.log").write_text(MALLOC_ALONE)
    dataset = make_dataset(folder / "ds", {**LOGS, "v1.10/leaky": folder / "leaky.log"})
    write_dashboard(str(dataset), folder / "fleet.html")
    return folder / "fleet.html"


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    context, errors = browser.new_context(viewport={"width": 1280, "height": 900}), []
    context.set_default_timeout(0)  # a busy machine has its time
    opened = context.new_page()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(file.as_uri())
    opened.wait_for_selector("tr[data-run]")
    yield opened
    context.close()
    assert errors == []


def drawn(page: Any, name: str) -> dict[str, list[float]]:
    """The groups of a chart, each with its runs and their median."""
    found: dict[str, list[float]] = page.evaluate(DRAWN, name)
    return found


def listed(page: Any) -> list[str]:
    names: list[str] = page.eval_on_selector_all("#runs tbody tr", "rows => rows.map(row => row.cells[0].innerText)")
    return names


def test_the_menu_of_the_x_axis_groups_the_runs_of_every_chart(page: Any) -> None:
    assert drawn(page, "brk_failures") == {"v1.9": [2, 11.5], "v1.10": [1, 23]}
    assert page.inner_text("#note-brk_failures") == "3 of 4 runs show calls of brk"
    page.select_option("#x", "start time")
    counts = [count for count, _ in drawn(page, "brk_failures").values()]
    assert sum(counts) == sum(replay.load(log).summary_values["start_time"] is not None for log in LOGS.values())


def test_what_a_log_does_not_show_is_not_drawn_as_none_of_it(page: Any) -> None:
    page.fill("#text", "leaky")
    assert drawn(page, "brk_failures") == drawn(page, "peak_mapped_bytes") == {}
    assert list(drawn(page, "live_bytes")) == ["v1.10"]
    assert page.inner_text("#failures") == "The logs of these runs show no calls of brk."


@pytest.mark.parametrize(
    ("name", "value", "runs"),
    [
        ("program", "prog", {"v1.9/plain", "v1.9/blocked", "v1.10/blocked"}),
        ("cause", "mapping_above", {"v1.9/blocked", "v1.10/blocked"}),
        ("version", "v1.9", {"v1.9/plain", "v1.9/blocked"}),
    ],
)
def test_a_filter_drives_every_chart_and_table(name: str, value: str, runs: set[str], page: Any) -> None:
    page.evaluate(
        "Bokeh.documents[0].get_model_by_name('brk_failures').renderers[0].data_source.selected.indices = [1]"
    )
    assert set(listed(page)) == {"v1.10/blocked", "v1.10/leaky"}
    page.select_option(f"select[data-filter={name}]", value)
    assert set(listed(page)) == runs
    assert page.inner_text("#count") == f"{len(runs)} of 4 runs"
    for chart in ("brk_failures", "peak_mapped_bytes"):
        assert sum(count for count, _ in drawn(page, chart).values()) == len(runs)
    page.click("#all")
    assert len(listed(page)) == 4


@pytest.mark.parametrize("key", ["click", "Enter"])
def test_a_heading_sorts_words_from_a_and_numbers_from_the_largest(key: str, page: Any) -> None:
    def sort(heading: str) -> None:
        if key == "click":
            page.locator(f"#runs th[data-sort={heading}]").click()
        else:
            page.locator(f"#runs th[data-sort={heading}]").focus()
            page.keyboard.press("Enter")

    sort("run")
    assert listed(page) == ["v1.10/blocked", "v1.10/leaky", "v1.9/blocked", "v1.9/plain"]
    sort("run")
    assert listed(page)[0] == "v1.9/plain"
    sort("peak_mapped_bytes")
    assert listed(page)[-1] == "v1.10/leaky"  # what is not known comes last
    sort("peak_mapped_bytes")
    assert listed(page)[-1] == "v1.10/leaky"
    assert page.locator("#runs th[aria-sort]").inner_text() == "peak mapped"


def test_a_chosen_run_shows_its_memory_owners_failures_and_verdict(page: Any) -> None:
    page.click("#runs tr:has-text('v1.9/blocked')")
    assert page.inner_text("#chosen-name") == "v1.9/blocked"
    assert "The break failed to grow 23 times: mapping_above" in page.inner_text("#verdict")
    curve = "Bokeh.documents[0].get_model_by_name('memory').renderers[0].data_source.data.mapped.length"
    assert page.evaluate(curve) > 10
    assert "[heap]" in page.inner_text("#owners")
    assert "0x5639fe40f000" in page.inner_text("#evidence")
    assert "peak_mapped_bytes" in page.inner_text("#facts")


def test_paper_has_whole_tables_and_no_menus_and_is_light_where_the_screen_is_dark(page: Any) -> None:
    ink = "Bokeh.documents[0].get_model_by_name('memory').left[0].axis_label_text_color"
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ink} === '#c3ced8'")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ink) == "#45535f"
    page.emulate_media(media="print")
    assert not page.is_visible(".toolbar")
    assert page.evaluate("getComputedStyle(document.getElementById('facts')).maxHeight") == "none"


def test_nothing_is_wider_than_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
