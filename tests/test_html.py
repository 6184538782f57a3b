"""The page of a run in a real browser: it says what the commands say, and texts of logs are never markup."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import page_maker
import pandas as pd
import pytest
from fleet_maker import make_dataset

import replay
from replay.console.screen import clean, shown
from replay.datasets.dataset import Dataset
from replay.html import write_dashboard
from replay.html.trace import SCRIPTS, page, write_trace
from replay.html.trace_tables import tables_of_dataset, tables_of_run
from replay.linux.proc_maps import join_equal, maps_text
from replay.report.diff import difference, difference_lines
from replay.report.steps import step_lines

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LTRACE = oracle.SAMPLES / "ltrace" / "ltrace.log"
FORKS = oracle.SAMPLES / "fork_exec" / "strace.log"
THREADS = oracle.SAMPLES / "threads" / "strace.log"
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Give a function that opens the page of a run; in the end the browser must have had nothing to complain of."""
    contexts, complaints = [], []

    def open_page(run: replay.Run, fragment: str = "", **how: Any) -> Any:
        file = tmp_path / "page.html"
        write_trace(tables_of_run(run), file, force=True)
        contexts.append(browser.new_context(viewport={"width": 1400, "height": 1000}, **how))
        contexts[-1].set_default_timeout(0)  # a busy machine has its time
        shown_page = contexts[-1].new_page()
        shown_page.on("console", lambda message: complaints.append(message.text))
        shown_page.on("pageerror", lambda error: complaints.append(str(error)))
        shown_page.route(lambda url: not url.startswith("file:"), lambda route: complaints.append(route.request.url))
        shown_page.goto(file.as_uri() + fragment)
        ready(shown_page)
        return shown_page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ready(shown_page: Any) -> None:
    """Wait until the page is drawn."""
    shown_page.wait_for_selector("main[aria-busy=false]", timeout=600_000)
    until(shown_page, "!view.isDue")


def until(shown_page: Any, condition: str) -> None:
    """Wait for a condition of the page, asked from outside: its policy forbids scripts to make scripts."""
    for _ in range(12_000):
        if shown_page.evaluate(condition):
            return
        shown_page.wait_for_timeout(50)
    raise AssertionError(condition)


# --- what the file is ------------------------------------------------------------------------------------------------


def test_the_page_forbids_everything_but_its_own_script() -> None:
    text = page(tables_of_run(replay.load(BLOCKED)))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; script-src 'sha256-[\w+/=]+'; style-src 'unsafe-inline'; img-src data:", policy[1]
    )
    assert not re.search(r"""(?:src|href)\s*=\s*["']?https?:""", text)


def test_a_script_could_not_be_ended_by_its_own_text() -> None:
    scripts = [oracle.CHECKOUT / "replay" / "html" / name for name in SCRIPTS]
    assert not any("</script" in script.read_text(encoding="utf-8") for script in scripts)


# --- it says what the commands say -----------------------------------------------------------------------------------


def moments(count: int, most: int) -> list[int]:
    chosen = random.Random(19)
    return [chosen.randint(1, most) for _ in range(count)]


@pytest.mark.parametrize("log", [BLOCKED, LTRACE, FORKS, THREADS], ids=lambda log: log.parent.name)
def test_a_hundred_moments_have_the_maps_that_the_command_prints(opened: Any, log: Path) -> None:
    run = replay.load(log)
    spaces = len(run.replayed.spaces["space"])
    asked = [[at % spaces, line] for at, line in enumerate(moments(100, run.replayed.last_clock))]
    told = opened(run).evaluate("asked => asked.map(([space, line]) => mapsText(space, line))", asked)
    for (space, line), text in zip(asked, told, strict=True):
        assert text == clean_lines(maps_text(join_equal(run.mappings(space, line)))), (space, line)


def clean_lines(text: str) -> str:
    return "".join(clean(line) + "\n" for line in text.splitlines())


@pytest.mark.parametrize("log", [BLOCKED, LTRACE, FORKS, THREADS], ids=lambda log: log.parent.name)
def test_steps_and_changes_have_the_words_of_the_commands(opened: Any, log: Path) -> None:
    run = replay.load(log)
    count = len(run.replayed.events["step"])
    chosen = random.Random(19)
    pairs = [sorted(chosen.sample(range(count), 2)) for _ in range(100)]
    asked = [[first, second, run.space_at(None, second)] for first, second in pairs]
    shown_page = opened(run)
    changes = shown_page.evaluate("asked => asked.map(([a, b, space]) => diffText(a, b, space))", asked)
    for (first, second), text in zip(pairs, changes, strict=True):
        lines = shown(difference_lines(difference(run, first, second), run), colour=False)
        assert text == "".join(line + "\n" for line in lines), (first, second)
    steps = shown_page.evaluate("asked => asked.map(([a, b]) => stepLines(a, b))", pairs)
    for (first, second), lines in zip(pairs, steps, strict=True):
        assert lines == list(shown(step_lines(run, np.arange(first, second + 1)), colour=False)), (first, second)


def test_a_set_of_files_names_the_file_with_each_line(opened: Any) -> None:
    capture = next(each for each in oracle.captures().values() if len(each.logs) > 2 and each.dialect == "strace")
    run = replay.load(list(capture.logs))
    shown_page = opened(run)
    clocks = moments(100, run.replayed.last_clock)
    told = shown_page.evaluate("clocks => clocks.map((clock) => placeOf(clock))", clocks)
    from replay.run.places import Places

    assert told == [str(Places(run).of_clock(clock)) for clock in clocks]
    prefix = str(capture.logs[0]).rpartition(".")[0]
    assert shown_page.inner_text("h1") == f"{run.source.files[0]} and {len(capture.logs) - 1} more"
    assert shown_page.inner_text(".command").startswith(f"replay maps {prefix} --line ")


def test_a_short_life_fills_the_picture_until_all_is_asked_for(opened: Any, tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    idle = ["10 brk(NULL) = 0x555500000000\n"] * 200
    log.write_text(
        "".join(idle)
        + "10 fork() = 11\n11 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7ffff7d00000\n"
        + "11 exit_group(0) = ?\n"
    )
    shown_page = opened(replay.load(log), "#space=1")
    assert shown_page.evaluate("view.from") >= len(idle)
    shown_page.keyboard.press("0")
    until(shown_page, "!view.isDue && view.from === 1")


def test_a_log_of_malloc_alone_has_the_curves_of_its_heap_and_no_others(opened: Any, tmp_path: Path) -> None:
    log = tmp_path / "ltrace.log"
    log.write_text("".join(f"prog->malloc(100) = {0x5555000002A0 + 112 * at:#x}\n" for at in range(20)))
    titles = opened(replay.load(log)).locator(".pane-title > span:first-child").all_inner_texts()
    assert titles == ["heap: blocks in the brk area", "malloc", "fragmentation, 0 to 1"]


def test_the_program_below_its_break_is_named_so(opened: Any, tmp_path: Path) -> None:
    log, maps = tmp_path / "strace.log", tmp_path / "maps"
    log.write_text("brk(NULL) = 0x555560000000\nbrk(0x555560021000) = 0x555560021000\n")
    maps.write_text(
        "555555554000-555555555000 r-xp 00000000 08:01 7      /bin/prog\n"
        "555555555000-555555556000 rw-p 00001000 08:01 7      /bin/prog\n"
        "7ffff7d00000-7ffff7e00000 r-xp 00000000 08:01 8      /lib/libc.so.6\n"
    )
    titles = opened(replay.load(log, maps=maps)).locator(".pane-title > span:first-child").all_inner_texts()
    assert titles[:3] == ["mmap area", "brk area", "program"]


@pytest.mark.parametrize("log", [BLOCKED, LTRACE], ids=lambda log: log.parent.name)
def test_the_page_of_a_run_in_a_dataset_has_the_same_maps_and_says_what_its_tables_say(
    browser: Any, tmp_path: Path, log: Path
) -> None:
    run = replay.load(log)
    dataset = Dataset(str(make_dataset(tmp_path / "fleet", {"one": log})))
    write_trace(tables_of_dataset(dataset, "one"), tmp_path / "one.html")
    shown_page = browser.new_page()
    shown_page.goto((tmp_path / "one.html").as_uri())
    ready(shown_page)
    lines = moments(50, run.replayed.last_clock)
    told = shown_page.evaluate("lines => lines.map((line) => mapsText(0, line))", lines)
    assert told == [clean_lines(maps_text(join_equal(run.mappings(0, line)))) for line in lines]
    failures = len(run.brk_failures)
    said = shown_page.inner_text(".verdict")
    assert (f"failed to grow {failures:,} times" if failures else "no brk call") in said
    live = run.summary["live_bytes"][0]
    assert ("the log shows no malloc calls" if pd.isna(live) else f"{live:,} bytes") in said
    shown_page.close()


# --- texts of logs ---------------------------------------------------------------------------------------------------


def test_a_row_of_the_dashboard_opens_the_page_of_its_run(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    dataset = make_dataset(tmp_path / "fleet", {"blocked/v1 <b>": BLOCKED, "threads": THREADS})
    assert write_dashboard(str(dataset), tmp_path / "fleet.html", pages=tmp_path / "runs") == 2
    shown_page = browser.new_page()
    shown_page.goto((tmp_path / "fleet.html").as_uri())
    shown_page.locator("tr[data-run] a", has_text="blocked/v1 <b>").click()
    ready(shown_page)
    assert "failed to grow 23 times" in shown_page.inner_text(".verdict")
    assert shown_page.inner_text("h1") == "blocked/v1 <b>"
    shown_page.go_back()
    shown_page.wait_for_selector("tr[data-run]")
    shown_page.close()


def test_a_hostile_path_stays_text(opened: Any, tmp_path: Path) -> None:
    log = tmp_path / f"{EVIL.replace('/', '_')}.log"
    log.write_text(
        f'execve("/{EVIL}", ["x"], 0x7ffd /* 9 vars */) = 0\n'
        "brk(NULL) = 0x555555800000\n"
        f"mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 3</tmp/{EVIL}>, 0) = 0x7ffff7d00000\n"
        "brk(0x555555821000) = 0x555555821000\n"
    )
    shown_page = opened(replay.load(log))
    assert f"/tmp/{EVIL}" in shown_page.text_content("#moment pre")
    assert shown_page.locator("img").count() == 0
    assert EVIL.replace("/", "_") in shown_page.inner_text("h1")


# --- what a hand does ------------------------------------------------------------------------------------------------


def canvas_point(shown_page: Any, line: int, address: int) -> tuple[float, float]:
    """Return where on the screen an address at a line is."""
    place = shown_page.evaluate(
        """([line, pages]) => {
          const pane = view.panes.find((each) => pages >= each.low && pages < each.high)
          const box = pane.canvas.getBoundingClientRect()
          const across = (axisOf(line) + 0.5 - view.from) / (view.to - view.from)
          const up = (shareOf(pane, pages + 0.5) - pane.from) / (pane.to - pane.from)
          return [box.left + across * box.width, box.top + (1 - up) * box.height]
        }""",
        [line, address // 4096],
    )
    return place[0], place[1]


MARKED_PIXELS = """() => {
  const { width, height } = dom.lane
  const pixels = dom.lane.getContext("2d").getImageData(0, 0, width, Math.floor(height / 4)).data
  let count = 0
  for (let at = 0; at < pixels.length; at += 4) count += pixels[at] === 0xd5 && pixels[at + 1] === 0x5e
  return count
}"""
"""How many pixels of the lane of refused breaks are of their colour."""

BLOCKER = 0x5639FE40F000  # the one-page mapping of line 22 of the sample, right at the break


def test_hover_tells_address_size_permissions_and_the_lines_of_its_life(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED))
    shown_page.mouse.move(*canvas_point(shown_page, 40, BLOCKER))
    lines = shown_page.inner_text(".tip").splitlines()
    where, what, *life = lines[1:]
    assert (where, what) == ("0x5639fe40f000-0x5639fe410000", "4,096 bytes (4 KiB) ---p")
    assert life == ["in the way of the break: line 27 and 22 times more", "made by line 22", "until line 78"]


def test_a_blocker_of_one_page_is_seen_beside_a_gibibyte(opened: Any, tmp_path: Path) -> None:
    log = tmp_path / "giant.log"
    log.write_text(
        'execve("./a", ["./a"], 0x7ffd /* 9 vars */) = 0\n'
        "brk(NULL) = 0x555555800000\n"
        "brk(0x555555821000) = 0x555555821000\n"
        "mmap(0x555555821000, 4096, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x555555821000\n"
        "mmap(0x555555822000, 1073741824, PROT_READ, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x555555822000\n"
        "brk(0x555555842000) = 0x555555821000\n"
    )
    shown_page = opened(replay.load(log))
    tall = """() => {
      const pane = view.panes.find((each) => each.isBrk), at = pane.isBlocker.indexOf(1)
      return (pane.highs[at] - pane.lows[at]) * pane.canvas.clientHeight
    }"""
    assert shown_page.evaluate(tall) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_large_runs_are_drawn_and_lose_no_failure(browser: Any, tmp_path: Path, count: int) -> None:
    write_trace(page_maker.run_of(count), tmp_path / "large.html", most=count + 2)
    shown_page = browser.new_page()
    complaints: list[str] = []
    shown_page.on("pageerror", lambda error: complaints.append(str(error)))
    shown_page.goto((tmp_path / "large.html").as_uri())
    ready(shown_page)
    maps = "(line) => mappingsAt(0, line).length"
    assert shown_page.evaluate(maps, count // 2) == page_maker.SLOTS + 2
    for key in "0+++]]--0":
        shown_page.keyboard.press(key)
    until(shown_page, "!view.isDue")
    assert shown_page.evaluate(MARKED_PIXELS) >= 2
    shown_page.keyboard.press("F")
    assert shown_page.evaluate("view.moment") == page_maker.REFUSED[-2]
    assert complaints == []


def test_a_thinned_page_says_so_and_keeps_the_failures_and_their_blocker(browser: Any, tmp_path: Path) -> None:
    write_trace(page_maker.run_of(100_000), tmp_path / "thin.html", most=5_000)
    shown_page = browser.new_page()
    shown_page.goto((tmp_path / "thin.html").as_uri())
    ready(shown_page)
    assert "holds 5,000 of 100,002 mappings" in shown_page.inner_text("header")
    told = "() => [run.mark.clock.length, view.panes.find((pane) => pane.isBrk).isBlocker.includes(1)]"
    assert shown_page.evaluate(told) == [3, True]


def test_a_click_chooses_the_moment_and_the_address_of_the_page_opens_it_again(opened: Any) -> None:
    run = replay.load(BLOCKED)
    shown_page = opened(run)
    shown_page.mouse.click(*canvas_point(shown_page, 40, BLOCKER))
    assert shown_page.text_content("#moment pre") == run.maps(line=40)
    shown_page.keyboard.press("+")
    until(shown_page, "!view.isDue && location.hash.includes(`line=40&t=${shortNumber(view.from)}..`)")
    fragment = shown_page.evaluate("location.hash")
    again = opened(run, fragment)
    state = "() => [view.space, view.moment, view.from, view.to].map((value) => +value.toPrecision(6))"
    assert again.evaluate(state) == shown_page.evaluate(state)
    assert again.text_content("#moment pre") == run.maps(line=40)


def test_keys_step_zoom_and_jump_to_failures(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED), "#line=22")
    shown_page.keyboard.press("f")
    assert shown_page.evaluate("view.moment") == 27  # the first refused break, says the verdict
    shown_page.keyboard.press("ArrowRight")
    assert shown_page.evaluate("view.moment") == 28
    shown_page.keyboard.press("Shift+F")
    assert shown_page.evaluate("view.moment") == 27
    shown_page.keyboard.press("+")
    assert shown_page.evaluate("view.to - view.from") < 91
    shown_page.keyboard.press("0")
    assert shown_page.evaluate("view.to - view.from") == 91
    shown_page.keyboard.press("/")
    assert shown_page.evaluate("document.activeElement.type") == "search"


def test_without_a_mouse_addresses_are_zoomed_and_moments_compared_and_a_link_opens_all_of_it(opened: Any) -> None:
    run = replay.load(BLOCKED)
    shown_page = opened(run, "#line=72")
    shown_page.get_by_label("brk area: rectangles").focus()
    shown_page.keyboard.press("z")
    shown_page.keyboard.press("ArrowUp")
    shown_page.keyboard.press("Shift+ArrowLeft")
    shown_page.get_by_role("button", name="mmap area: true scale").press("Enter")
    changed = shown_page.get_by_role("button", name="what changed")
    changed.press("Enter")
    assert changed.evaluate("button => button === document.activeElement && button.ariaPressed === 'true'")
    assert shown_page.evaluate("[view.moment, view.other]") == [72, 71]
    assert shown_page.text_content("#moment h2") == "From line 71 to line 72"
    until(shown_page, "!view.isDue && location.hash.includes('tab=change') && location.hash.includes('pane0=even')")
    again = opened(run, shown_page.evaluate("location.hash"))
    state = "() => [view.moment, view.other, view.tab, allPanes().map((pane) => [pane.isEven, pane.from, pane.to])]"
    moment, other, tab, panes = again.evaluate(state)
    assert (moment, other, tab) == (72, 71, "change")
    assert [pane[0] for pane in panes] == [True, True, False]
    assert panes[1][1:] == pytest.approx(shown_page.evaluate("[allPanes()[1].from, allPanes()[1].to]"))
    assert panes[1][2] - panes[1][1] == pytest.approx(1 / 1.6)


def test_every_button_has_a_name_that_can_be_read_aloud(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED))
    names = ["Zoom out", "Zoom in", "all", "◀ step", "step ▶", "next failure"]
    assert [shown_page.get_by_role("button", name=name, exact=True).count() for name in names] == [1] * len(names)
    assert shown_page.locator("#moment h2").evaluate("heading => heading.ariaLive") == "polite"


@pytest.mark.parametrize(("asked", "line"), [("0x5639fe40f800", 22), ("libc.so", 8)])
def test_search_finds_an_address_and_a_path(opened: Any, asked: str, line: int) -> None:
    shown_page = opened(replay.load(BLOCKED))
    shown_page.keyboard.press("/")
    shown_page.keyboard.type(asked)
    shown_page.keyboard.press("Enter")
    assert shown_page.evaluate("view.moment") == line
    assert asked in shown_page.inner_text(".found")
    shown_page.locator("input").fill("line 40")
    shown_page.keyboard.press("Enter")
    assert shown_page.evaluate("view.moment") == 40


def test_lines_of_the_verdict_lead_into_the_picture(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED))
    shown_page.click(".verdict a:text-is('22')")
    assert shown_page.evaluate("view.moment") == 22
    assert "line 22" in shown_page.inner_text("#moment h2")


def test_a_refused_break_is_marked_at_every_zoom(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED), "#line=22")
    for _ in range(6):
        until(shown_page, "!view.isDue")
        assert shown_page.evaluate(MARKED_PIXELS) > 0
        shown_page.evaluate("setRange((view.from + 27) / 2, (view.to + 29) / 2)")


def test_the_heap_pane_outlines_the_block_that_holds_the_break(opened: Any) -> None:
    run = replay.load(LTRACE)
    shown_page = opened(run)
    blocks = run.blocks[(run.blocks["born_line"] <= 649) & ~(run.blocks["died_line"] <= 649).fillna(False)]
    pin = shown_page.evaluate("() => { const pin = pinAt(649); return run.block.addr[pin.row] }")
    assert pin == blocks[blocks["backing"] == "brk"]["addr"].max()


@pytest.mark.parametrize("width", [390, 2560])
def test_a_phone_and_a_wall_show_it_without_scrolling_sideways(browser: Any, tmp_path: Path, width: int) -> None:
    file = tmp_path / "page.html"
    write_trace(tables_of_run(replay.load(BLOCKED)), file)
    context = browser.new_context(viewport={"width": width, "height": 900}, device_scale_factor=2)
    shown_page = context.new_page()
    shown_page.goto(file.as_uri())
    ready(shown_page)
    assert shown_page.evaluate("document.documentElement.scrollWidth") <= width
    sharpness = shown_page.evaluate("view.panes[0].canvas.width / view.panes[0].canvas.clientWidth")
    assert sharpness == pytest.approx(2, abs=0.02)
    context.close()


def test_on_paper_the_verdict_stands_before_the_picture_and_no_button_is_printed(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED))
    shown_page.emulate_media(media="print")
    for selector in (".toolbar", ".tabs", ".command", "summary"):
        assert not shown_page.locator(selector).first.is_visible(), selector
    verdict, picture = (shown_page.locator(selector).first.bounding_box() for selector in (".verdict", "canvas"))
    assert verdict["y"] + verdict["height"] <= picture["y"]


def test_the_page_says_what_the_log_cannot_tell(opened: Any) -> None:
    said = " ".join(opened(replay.load(BLOCKED)).locator(".verdict").inner_text().split())
    question = "Leak, fragmentation, what pins the heap: strace does not show malloc (replay record PROG)"
    assert f"What this log cannot tell {question}" in said


def test_behind_each_pane_stands_its_table_and_the_keyboard_opens_it(opened: Any) -> None:
    shown_page = opened(replay.load(BLOCKED))
    names = ["marks", "mmap area", "brk area", "program"]
    summaries = [f"table: {name}" for name in names]
    assert shown_page.locator("summary", has_text="table: ").all_text_contents()[:4] == summaries
    shown_page.locator("summary", has_text="table: brk area").first.focus()
    shown_page.keyboard.press("Enter")
    shown_page.wait_for_selector(".behind[open] tbody tr")
    rows = shown_page.locator(".behind[open] tbody tr").all_inner_texts()
    assert any("5639fe40f000" in row and "---p" in row and "line 22" in row for row in rows)
