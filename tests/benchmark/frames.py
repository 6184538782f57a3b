"""What a page of `replay html` costs a browser, in CPU time of its main thread: other work on the machine adds little.

Needs Playwright for Python and Debian's chromium; without either nothing is measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
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
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(file.as_uri())
        page.wait_for_selector("main[aria-busy=false]", timeout=300_000)
        _drawn(page)
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
        browser.close()
        return Frames(load, zoom, pan, hover)


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
