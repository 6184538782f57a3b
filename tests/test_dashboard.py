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
from replay.batch import batch
from replay.errors import OutputExistsError, ReplayError

pytest.importorskip("bokeh")

from replay.datasets.dataset import Dataset
from replay.html import dashboard_facts as facts
from replay.html import write_dashboard
from replay.html.dashboard import POLICY

PLAIN = oracle.SAMPLES / "plain" / "strace.log"
BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LIMITED = oracle.SAMPLES / "run_32bit" / "strace.log"
LEAKY = oracle.SAMPLES / "ltrace" / "ltrace.log"

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
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=600, cwd=oracle.CHECKOUT, **how)


class Page(HTMLParser):
    """What a browser makes of the page: its elements with their attributes, its texts, and its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self._json: dict[str, str] = {}
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        is_json = dict(attrs).get("type") == "application/json"
        self._inside = f"json {dict(attrs).get('id')}" if is_json else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside.startswith("json"):
            self._json[self._inside] = self._json.get(self._inside, "") + data
        elif self._inside == "style":
            self.styles.append(data)
        elif self._inside != "script":
            self.texts.append(data)

    @property
    def fleet(self) -> Any:
        """What the page's script shows."""
        return json.loads(self._json["json fleet"])

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
    assert any("{{ 7 * 7 }}" in run for run in found.fleet["runs"])
    assert not any("\x1b" in text or "\u202e" in text for text in found.texts)
    shown = json.dumps(found.fleet, ensure_ascii=False)
    assert EVIL in shown
    assert "\u202e" not in shown


# --- what it says ----------------------------------------------------------------------------------------------------


def fleet_of(place: Path) -> facts.DatasetFacts:
    return facts.DatasetFacts(Dataset(str(place)))


def test_failures_are_grouped_with_their_evidence(tmp_path: Path) -> None:
    place = make_dataset(
        tmp_path / "ds", {"v1/blocked": BLOCKED, "limited": LIMITED, "plain": PLAIN}, {"broken": "why"}
    )
    fleet = fleet_of(place)
    assert [row["run"] for row in fleet.errors] == ["broken"]
    names = [row["run"] for row in fleet.runs]
    found = {names[at]: groups for at, groups in fleet.failures.items()}
    for name, log in (("v1/blocked", BLOCKED), ("limited", LIMITED)):
        failures = replay.load(log).brk_failures
        first = failures.iloc[0]
        expected = (first["cause"], first["blocker"], len(failures), first["line"], first["evidence"])
        assert [tuple(group) for group in found.pop(name)] == [expected]
    assert found == {}


def test_versions_are_in_their_order_and_labels_as_they_were_seen(tmp_path: Path) -> None:
    summary = replay.load(PLAIN).summary_values
    rows = [
        run_row(name, name, "ok", None) | summary | {"label_host": host}
        for name, host in (("v1.10/a", "x"), ("v1.9/b", "y"), ("c", None))
    ]
    write_runs(tmp_path, rows, ("label_host",))
    version, host = fleet_of(tmp_path).groupings
    assert (version.name, version.values) == ("version", ["v1.9", "v1.10"])
    assert (host.name, sorted(host.values)) == ("host", ["x", "y"])
    assert sorted(version.of_run) == [-1, 0, 1]


def test_owners_at_the_peak_are_those_of_the_regions(tmp_path: Path) -> None:
    fleet = fleet_of(make_dataset(tmp_path / "ds", {"blocked": BLOCKED}))
    run = replay.load(BLOCKED)
    line = int(run.summary["peak_mapped_line"][0])
    regions = run.regions
    alive = regions[(regions["born_line"].fillna(0) <= line) & ~(regions["died_line"] <= line).fillna(False)]
    sums = alive.groupby("owner", observed=True)["size_bytes"].sum().sort_values(ascending=False)
    assert fleet.owners == {0: [(owner, int(total)) for owner, total in sums.head(5).items()]}
    assert sums.sum() == run.summary["peak_mapped_bytes"][0]


def test_owners_at_the_peak_of_a_set_are_those_at_its_step(tmp_path: Path) -> None:
    mapping = "PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0"
    of_pid = {
        10: f"""\
1795000000.000001 execve("./a", ["./a"], 0x7ffc00000000 /* 2 vars */) = 0
1795000000.000002 brk(NULL) = 0x555500000000
1795000000.000003 clone(child_stack=NULL, flags=CLONE_VM|CLONE_THREAD, child_tidptr=0x7f3b0000) = 11
1795000000.000006 mmap(NULL, 8192, {mapping}) = 0x7e0000000000
1795000000.000007 munmap(0x7e0000000000, 8192) = 0
""",
        11: f"""\
1795000000.000004 mmap(NULL, 4096, {mapping}) = 0x7f0000000000
1795000000.000005 mmap(NULL, 16384, {mapping}) = 0x7d0000000000
1795000000.000008 munmap(0x7d0000000000, 16384) = 0
""",
    }
    for pid, text in of_pid.items():
        (tmp_path / f"log.{pid}").write_text(text)
    batch(tmp_path, tmp_path / "ds", jobs=0)
    assert fleet_of(tmp_path / "ds").owners == {0: [("anonymous", 4096 + 16384 + 8192)]}


def test_curves_are_the_timeline_of_the_run(tmp_path: Path) -> None:
    (curve,) = fleet_of(make_dataset(tmp_path / "ds", {"leaky": LEAKY})).curves.values()
    timeline = replay.load(LEAKY).timeline
    assert max(curve["mapped"]) == 255
    share = timeline["live_bytes_max"].max() / timeline["mapped_bytes_max"].max()
    assert max(curve["live"]) == round(share * 255)
    assert len(curve["mapped"]) == len(curve["live"]) == facts.POINTS


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (
            {"brk_failures": 2, "mmap_fallbacks": 1},
            "The break failed to grow 2 times. malloc fell back to mmap 1 time.",
        ),
        ({"brk_failures": 0, "brk_calls": 3, "live_bytes": 2048}, "never failed to grow. 2 KiB were live at the end"),
        ({"live_bytes": None}, "The log shows no malloc calls, so it tells nothing of leaks."),
    ],
)
def test_a_verdict_claims_what_the_summary_shows(summary: dict[str, Any], said: str) -> None:
    assert said in facts.verdict_of(summary, ())


def test_what_is_not_known_is_left_out_and_not_zero(page: Page, dataset: Path) -> None:
    assert page.fleet["columns"]["live_bytes"] is None
    assert page.fleet["columns"]["peak_mapped_space"] == 0


def test_every_column_of_the_summary_can_be_looked_up(page: Page) -> None:
    shown = {fact["name"] for fact in page.fleet["facts"]}
    assert shown == set(replay.load(PLAIN).summary_values) - {"source"}
    assert shown <= page.fleet["columns"].keys() | page.fleet["words"].keys()


def test_of_very_many_runs_the_failed_and_the_largest_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "MOST_RUNS", 3)
    summary = replay.load(PLAIN).summary_values
    rows = [
        run_row(f"{at}", f"{at}", "ok", None) | summary | {"peak_mapped_bytes": at, "brk_failures": int(at == 1)}
        for at in range(1, 9)
    ]
    write_runs(tmp_path, rows)
    fleet = facts.DatasetFacts(Dataset(str(tmp_path)))
    assert fleet.total == 8
    assert [row["run"] for row in fleet.runs] == ["1", "7", "8"]
    write_dashboard(str(tmp_path), tmp_path / "fleet.html")
    assert any("Of 8 runs these are 3" in text for text in Page(tmp_path / "fleet.html").texts)


def test_a_dataset_without_any_good_run_has_a_page_too(tmp_path: Path) -> None:
    write_dashboard(str(make_dataset(tmp_path / "ds", {}, {"broken": "why"})), tmp_path / "fleet.html")
    assert any("why" in text for text in Page(tmp_path / "fleet.html").texts)


def test_a_run_without_failures_or_fallbacks_has_a_page_too(tmp_path: Path) -> None:
    write_dashboard(str(make_dataset(tmp_path / "ds", {"plain": PLAIN})), tmp_path / "fleet.html")
    assert Page(tmp_path / "fleet.html").fleet["failures"] == {}


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
        (("{ds}", "-o", "{out}/fleet.html"), 0, "replay: wrote the dashboard"),
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
  document.querySelector("tr[data-run]").click()
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
    done = subprocess.run([*line, output.as_uri()], capture_output=True, text=True, check=False, timeout=600)
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
