"""What all tests need: the compiled loops of this checkout as it is, and the same loops interpreted."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import settings

from replay.engine import build_hook, native

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # so begins what a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the loops where they are not, before any process of the session needs them."""
    if not hasattr(session.config, "workerinput"):
        build_hook.build(oracle.CHECKOUT)


@contextmanager
def interpreted() -> Iterator[None]:
    """Have every loop run as the plain Python that it is written in: slow, and each index is checked."""

    def call(loop: native.Loop, *arguments: Any) -> Any:
        with np.errstate(over="ignore"):  # hashes are sums modulo 2**64
            return loop.function(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native.Loop, "__call__", call)
        yield


@pytest.fixture(params=["compiled", "interpreted"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test on compiled loops and on interpreted ones."""
    if request.param == "compiled":
        yield request.param
        return
    with interpreted():
        yield request.param


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a browser without a window; where there is none, who asks for it is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Debian's chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
