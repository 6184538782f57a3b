"""What a page of `replay html` or `replay dashboard` costs a browser, in CPU time of its main thread.

Other work on the machine adds little to that. Needs Playwright for Python and Debian's chromium; without either nothing
is measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

STEPS = 12


class Frames(NamedTuple):
    """Seconds of main-thread CPU: to load the page, and the median of a step of each kind."""

    load: float
    zoom: float
    pan: float
    hover: float


def frames_of(file: Path) -> Frames | None:
    """Return what the page in `file` costs, None where no browser is."""
    with _opened(file, "main[aria-busy=false]") as opened:
        if opened is None:
            return None
        page, session = opened
        load = _cpu(session)
        zoom = _step(session, page, lambda: page.evaluate("() => zoom(0.8)"))
        page.evaluate("() => setRange(startOfAxis(), 0.6 * endOfAxis())")
        _drawn(page)
        pan = _step(session, page, lambda: page.evaluate("() => pan(0.03)"))
        box = page.locator("canvas.pane").first.bounding_box()
        assert box is not None
        places = iter(range(1, STEPS + 1))
        hover = _step(
            session, page, lambda: page.mouse.move(box["x"] + 40 * next(places), box["y"] + box["height"] / 2)
        )
        return Frames(load, zoom, pan, hover)


def loading_of(file: Path) -> float | None:
    """Return the seconds of main-thread CPU that the dashboard in `file` takes until it is drawn; None: no browser."""
    with _opened(file, ".bk-Figure") as opened:
        if opened is None:
            return None
        page, session = opened
        page.wait_for_function("() => Bokeh.documents[0].is_idle", timeout=300_000)
        _drawn(page)
        return _cpu(session)


@contextmanager
def _opened(file: Path, drawn: str) -> Iterator[tuple[Any, Any] | None]:
    """Give the page, once what the selector `drawn` names is there, and a session that measures it."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(file.as_uri())
        page.wait_for_selector(drawn, timeout=300_000)
        _drawn(page)
        yield page, session
        browser.close()


def _cpu(session: Any) -> float:
    metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["TaskDuration"])


def _drawn(page: Any) -> None:
    """Wait for two frames: what was asked for in the first is drawn when the second comes."""
    for _ in range(2):
        page.evaluate("() => new Promise(requestAnimationFrame)")


def _step(session: Any, page: Any, act: Callable[[], object]) -> float:
    taken = []
    for _ in range(STEPS):
        before = _cpu(session)
        act()
        _drawn(page)
        taken.append(_cpu(session) - before)
    return median(taken)
