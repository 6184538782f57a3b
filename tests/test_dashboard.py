"""The dashboard: one page that loads nothing, in which texts of logs are never markup."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import oracle
import pytest
from fleet_maker import make_dataset, run_row, write_runs

import replay
from replay.errors import OutputExistsError, ReplayError

pytest.importorskip("bokeh")

from replay.datasets.dataset import Dataset
from replay.html import dashboard_facts as facts
from replay.html import write_dashboard
from replay.html.dashboard import POLICY
from replay.html.dashboard_charts import label

PLAIN = oracle.SAMPLES / "plain" / "strace.log"
BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LIMITED = oracle.SAMPLES / "run_32bit" / "strace.log"

EVIL = "</script><img src=x onerror=alert(1)>"
TEXTS = (
    EVIL,
    "<b>bold</b>",
    "$$x^2$$",
    "\\[x\\]",
    "{{ 7 * 7 }}",
    "@run{safe}",
    "&lt;i&gt;",
    "\x1b[31m\u202e",
    "\ud800",
    "é" * 99,
)


def command(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "replay", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, cwd=oracle.CHECKOUT, **how)


class Page(HTMLParser):
    """What a browser makes of the page: its elements with their attributes, its texts, and its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self._json: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = "json" if dict(attrs).get("type") == "application/json" else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "json":
            self._json.append(data)
        elif self._inside == "style":
            self.styles.append(data)
        elif self._inside != "script":
            self.texts.append(data)

    @property
    def document(self) -> Any:
        """What Bokeh draws."""
        return json.loads(unescape("".join(self._json)))

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = {f"v1.{at}/{name}": log for at in (9, 10) for name, log in (("plain", PLAIN), ("blocked", BLOCKED))}
    return make_dataset(tmp_path_factory.mktemp("fleet") / "ds", logs, {"broken": "no strace or ltrace log"})


@pytest.fixture(scope="module")
def page(dataset: Path) -> Page:
    write_dashboard(str(dataset), dataset.parent / "fleet.html")
    return Page(dataset.parent / "fleet.html")


# --- nothing is loaded -----------------------------------------------------------------------------------------------


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.elements:
        assert not attributes.keys() & {"src", "srcset", "data", "poster", "action", "background"}
        assert (attributes.get("href") or "#").startswith("#")
        assert tag not in ("link", "iframe", "object", "embed", "base")
    policies = [attributes for tag, attributes in page.elements if attributes.get("http-equiv")]
    assert [policy["content"] for policy in policies] == [POLICY]
    assert "http" not in POLICY
    assert POLICY.startswith("default-src 'none'")


def test_no_style_loads_anything(page: Page) -> None:
    style = "".join(page.styles)
    assert style
    assert "@import" not in style
    assert not re.search(r"url\(\s*['\"]?(?!data:)", style)


# --- texts of logs ---------------------------------------------------------------------------------------------------


def hostile(directory: Path) -> Path:
    """Make a dataset in which every text that a log or a name can bring is hostile."""
    dataset = make_dataset(directory / "ds", {"blocked": BLOCKED})
    summary = replay.load(BLOCKED).summary_values
    rows = [
        run_row(f"{at} {text}", text, "ok", None) | summary | {"programs": f"/{text}", "allocators": text}
        for at, text in enumerate(TEXTS)
        if text != "\ud800"
    ]
    rows += [run_row(f"bad {text}", text, "error", text) for text in TEXTS if text != "\ud800"]
    write_runs(dataset, [*rows, run_row("blocked", EVIL, "ok", None) | summary | {"programs": EVIL}])
    return dataset


def test_texts_of_logs_are_never_markup(page: Page, tmp_path: Path) -> None:
    write_dashboard(str(hostile(tmp_path)), tmp_path / "fleet.html")
    found = Page(tmp_path / "fleet.html")
    assert "img" not in found.tags
    assert found.tags.count("b") <= page.tags.count("b")  # those of the numbers at the head
    assert "i" not in found.tags
    assert found.tags.count("script") == page.tags.count("script")
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert any(EVIL in text for text in found.texts)
    assert any("{{ 7 * 7 }}" in text for text in found.texts)
    assert not any("\x1b" in text or "\u202e" in text for text in found.texts)
    assert EVIL in json.dumps(found.document, ensure_ascii=False)


@pytest.mark.parametrize("text", TEXTS)
def test_a_label_is_short_and_no_formula(text: str) -> None:
    shown = label(text)
    assert "$$" not in shown
    assert "\\[" not in shown
    assert len(shown.replace("\u200b", "")) <= 36
    shown.encode()


# --- what it says ----------------------------------------------------------------------------------------------------


def test_the_facts_are_those_of_the_runs(tmp_path: Path) -> None:
    logs = {"v1.10/blocked": BLOCKED, "v1.9/blocked": BLOCKED, "limited": LIMITED, "plain": PLAIN}
    fleet = facts.Fleet(Dataset(str(make_dataset(tmp_path / "ds", logs, {"broken": "why"}))))
    blocked, limited = (replay.load(log).brk_failures for log in (BLOCKED, LIMITED))
    assert [entry.run["run"] for entry in fleet.failing] == ["v1.10/blocked", "v1.9/blocked", "limited"]
    assert [entry.failures for entry in fleet.failing] == [len(blocked), len(blocked), len(limited)]
    assert fleet.failing[0].first_line == blocked["line"].min()
    assert [(tally.name, tally.runs) for tally in fleet.causes] == [("mapping_above", 2), ("rlimit_data", 1)]
    assert [(tally.name, tally.count) for tally in fleet.blockers] == [
        ("anonymous memory", 2 * len(blocked)),
        ("rlimit_data", len(limited)),
    ]
    assert fleet.versions == ["v1.9", "v1.10"]
    assert [row["run"] for row in fleet.errors] == ["broken"]
    peaks = [row["peak_mapped_bytes"] for row in fleet.largest]
    assert peaks == sorted(peaks, reverse=True)
    summaries = [replay.load(log).summary_values for log in (BLOCKED, BLOCKED, LIMITED)]
    (tally,) = fleet.fallbacks
    assert (tally.name, tally.runs) == ("prog", 3)
    assert tally.count == sum(summary["mmap_fallbacks"] for summary in summaries)
    assert tally.bytes == sum(summary["mmap_fallback_bytes"] for summary in summaries)


def test_the_page_names_what_failed_and_links_to_the_runs(page: Page) -> None:
    text = " ".join(page.texts)
    for words in (
        "Runs with failed breaks",
        "v1.10/blocked",
        "mapping_above",
        "anonymous memory",
        "no strace or ltrace log",
    ):
        assert words in text
    links = {attributes["data-run"] for tag, attributes in page.elements if tag == "a"}
    assert links == {"0", "1", "2", "3"}


def test_every_column_of_the_summary_can_be_looked_up(page: Page) -> None:
    text = json.dumps(page.document)
    for column in replay.load(PLAIN).summary_values:
        assert f'"{column}"' in text


def test_of_very_many_runs_the_failed_and_the_largest_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "MOST_RUNS", 3)
    summary = replay.load(PLAIN).summary_values
    rows = [
        run_row(f"{at}", f"{at}", "ok", None) | summary | {"peak_mapped_bytes": at, "brk_failures": int(at == 1)}
        for at in range(1, 9)
    ]
    write_runs(tmp_path, rows)
    fleet = facts.Fleet(Dataset(str(tmp_path)))
    assert fleet.total == 8
    assert [row["run"] for row in fleet.runs] == ["1", "7", "8"]
    write_dashboard(str(tmp_path), tmp_path / "fleet.html")
    assert any("Of 8 runs these are 3" in text for text in Page(tmp_path / "fleet.html").texts)


def test_a_dataset_without_any_good_run_has_a_page_too(tmp_path: Path) -> None:
    write_dashboard(str(make_dataset(tmp_path / "ds", {}, {"broken": "why"})), tmp_path / "fleet.html")
    assert any("why" in text for text in Page(tmp_path / "fleet.html").texts)


def test_a_run_without_failures_or_fallbacks_has_a_page_too(tmp_path: Path) -> None:
    write_dashboard(str(make_dataset(tmp_path / "ds", {"plain": PLAIN})), tmp_path / "fleet.html")
    assert any("In no run did the break fail" in text for text in Page(tmp_path / "fleet.html").texts)


# --- the file --------------------------------------------------------------------------------------------------------


def test_what_is_there_is_overwritten_only_with_force(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "fleet.html"
    output.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_dashboard(str(dataset), output)
    assert output.read_text() == "mine"
    write_dashboard(str(dataset), output, force=True)
    assert output.read_text().lstrip().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.html"]


def test_nothing_is_written_where_the_dataset_cannot_be_read(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplayError):
        write_dashboard(str(dataset / "events"), tmp_path / "fleet.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("{ds}", "-o", "{out}/fleet.html"), 0, "wrote the dashboard"),
        (("{ds}",), 2, "--output"),
        (("{ds}/events", "-o", "{out}/fleet.html"), 1, "no dataset"),
        (("{ds}", "-o", "{out}"), 1, "it is a directory"),
        (("{ds}", "-o", "{out}/absent/fleet.html"), 1, "cannot be written"),
        (("file://{ds}", "-o", "{out}/fleet.html"), 0, "wrote the dashboard"),
    ],
)
def test_exit_statuses(arguments: tuple[str, ...], status: int, said: str, dataset: Path, tmp_path: Path) -> None:
    done = command("dashboard", *(argument.format(ds=dataset, out=tmp_path) for argument in arguments))
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_bokeh_the_message_says_how_to_install_it(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "bokeh.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path), str(oracle.CHECKOUT)])
    environment = os.environ | {"PYTHONPATH": path}
    done = command("dashboard", dataset, "-o", tmp_path / "fleet.html", env=environment)
    assert done.returncode == 1
    assert "pip install '.[html]'" in done.stderr
    assert not (tmp_path / "fleet.html").exists()


# --- in a browser ----------------------------------------------------------------------------------------------------

_PROBE = """<script>
const wrong = []
window.onerror = (message) => { wrong.push(message) }
window.alert = () => { wrong.push("alert") }
document.addEventListener("securitypolicyviolation", (event) => { wrong.push(event.blockedURI) })
setTimeout(() => {
  document.querySelector("a[data-run]").click()
  setTimeout(() => {
    const told = document.createElement("output")
    told.textContent = JSON.stringify([wrong, document.images.length, document.getElementById("chosen").innerText])
    document.body.append(told)
  }, 500)
}, 3000)
</script>"""


@pytest.mark.live
@pytest.mark.slow
def test_a_browser_shows_it_without_an_error_and_shows_the_chosen_run(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed")
    output = tmp_path / "fleet.html"
    write_dashboard(str(hostile(tmp_path)), output)
    head, _, tail = output.read_text().rpartition("</body>")
    output.write_text(f"{head}{_PROBE}</body>{tail}")
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000", "--dump-dom"]
    done = subprocess.run([*line, output.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    told = re.findall(r"<output>(.*?)</output>", done.stdout, re.DOTALL)
    assert told, done.stderr[-500:]
    wrong, images, chosen = json.loads(unescape(told[-1]))
    assert (wrong, images) == ([], 0)
    assert "peak_mapped_bytes" in chosen


def test_pages_are_written_for_runs_that_stand_out_or_are_named_and_the_dashboard_links_them(tmp_path: Path) -> None:
    logs = {"blocked v1": BLOCKED, "plain/<b>": PLAIN, "limited": LIMITED}
    dataset = make_dataset(tmp_path / "fleet", logs)
    write_dashboard(str(dataset), tmp_path / "fleet.html", pages=tmp_path / "runs", patterns=["lim*"])
    made = Page(tmp_path / "fleet.html")
    links = [
        values["href"] or "" for tag, values in made.elements if tag == "a" and (values["href"] or "").startswith("./")
    ]
    files = {unquote(link) for link in links}
    assert files == {"./runs/blocked v1.html", "./runs/plain%2F%3Cb%3E.html", "./runs/limited.html"}
    assert all((tmp_path / file).is_file() for file in files)
    with pytest.raises(ReplayError, match=r"--run none\*: no run of .* is named so"):
        write_dashboard(str(dataset), tmp_path / "b.html", pages=tmp_path / "more", patterns=["none*"])
    assert not (tmp_path / "b.html").exists()


def test_run_without_pages_is_wrong_usage(tmp_path: Path) -> None:
    ended = command("dashboard", make_dataset(tmp_path / "fleet", {"a": PLAIN}), "-o", "-", "--run", "a")
    assert ended.returncode == 2
    assert "--pages" in ended.stderr
