"""Measure replay against its targets: `python tests/benchmark/run.py [--quick] [--json FILE] [--against FILE]`.

Each time is that of a whole process. Where the target is a ratio, replay and the reference run in turn and the median
of the pairs counts, so that a machine that slows down slows both; how a time grows with a log is told by the
processor's time, to which other work adds less. A log is written, measured and removed before the next one is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import fleet
import logs
from frames import frames_of, loading_of
from measure import CommandFailedError, machine, measured, median_of_pairs, printed, scratch

MISSED: Final = "MISSED"
NOISE: Final = 1.15
"""A figure that is so many times an earlier one is said to have changed."""

MIDDLE_LINES: Final = 50_000
"""A log that is neither small nor long."""

SCANNING: Final = """
import sys, time
from pathlib import Path
from replay.lines.scan import scan
from replay.lines.shape_trie import empty_tree
data, tree, size = Path(sys.argv[1]).read_bytes(), empty_tree(), 1 << 20
ends = [data.rindex(b"\\n", 0, place) + 1 for place in range(size, len(data), size)]
begin = time.perf_counter()
lines = sum(scan(data[a:b], "strace", tree).lines for a, b in zip([0, *ends], [*ends, len(data)]))
print(lines / (time.perf_counter() - begin))
"""
"""Prints how many lines of a log the scanner alone goes through in a second."""

BATCH_LOG_LINES: Final = 200
"""Lines of a log of a batch."""

BATCH_LOG_MS: Final = 4.0
"""250 small logs a second."""

TARGET_LINES: Final = 1_000_000
"""The targets beside mawk are for logs this long: in shorter ones the start of the process weighs more."""

FEWEST_WORST_LINES: Final = 1_500
"""In shorter logs of a worst case the start of the process would weigh more than the lines."""

LINES_OF_RECTANGLE: Final = 1.07
"""So many lines of the generated log make a mapping."""

FRAME_TARGETS: Final = {100_000: (1.5, 1.5, 50), 1_000_000: (None, None, 100)}
"""By mappings of a page: the megabytes of its file, the seconds to load it, the milliseconds of a step."""

ASKING: Final = """
import sys, time, duckdb
from replay.datasets.questions import QUESTIONS
from replay.tables import TABLES
connection, folder = duckdb.connect(), sys.argv[1]
for table in TABLES:
    connection.sql(f"CREATE VIEW {table} AS FROM '{folder}/{table}/*.parquet'")
connection.sql(f"CREATE VIEW runs AS FROM '{folder}/runs.parquet'")
begin = time.process_time()
for sql in [*(question.sql for question in QUESTIONS), "SELECT run, call, count(*) FROM events GROUP BY ALL"]:
    connection.execute(sql).fetchall()
print(time.process_time() - begin)
"""
"""Prints the seconds of CPU that DuckDB takes for eleven questions to the files of a compacted dataset."""

LINEAR_4: Final = 5.0
"""Four times the lines may take so much more time, the start of the process taken off: noise, and no square in it."""


@dataclass(frozen=True, slots=True)
class Form:
    """How large the logs are and how often each is measured."""

    name: str
    lines: int
    fewer_lines: int
    many_lines: int
    worst_lines: int
    calls: int
    batch_logs: int
    pairs: int
    tries: int
    commands: tuple[str, ...]
    rectangles: tuple[int, ...]
    runs: int


FULL: Final = Form(
    "full",
    lines=1_000_000,
    fewer_lines=1_000_000,
    many_lines=10_000_000,
    worst_lines=80_000,
    calls=800_000,
    batch_logs=1_000,
    pairs=5,
    tries=5,
    commands=("report", "export"),
    rectangles=(100_000, 1_000_000),
    runs=2_000,
)
QUICK: Final = Form(
    "quick",
    lines=160_000,
    fewer_lines=40_000,
    many_lines=160_000,
    worst_lines=12_000,
    calls=0,
    batch_logs=200,
    pairs=2,
    tries=3,
    commands=("report",),
    rectangles=(100_000,),
    runs=0,
)


@dataclass(frozen=True, slots=True)
class Result:
    """One figure and, where there is one, the target that it is not to exceed."""

    name: str
    value: float
    unit: str
    target: float | None = None
    note: str = ""

    @property
    def missed(self) -> bool:
        return self.target is not None and self.value > self.target


class Benchmark:
    """The measurements of one form, on logs in one folder."""

    def __init__(self, form: Form, folder: Path) -> None:
        self.form = form
        self.folder = folder
        self.small = folder / "small.log"
        self.starts: dict[str, float] = {}

    def results(self) -> Iterator[Result]:
        """Measure all there is, the small first."""
        yield self.small_log()
        yield from self.middle_log()
        yield self.small_logs()
        yield from self.heavy_logs()
        yield self.ordinary_log()
        if self.form.calls:  # among few calls the difference is lost in the noise of whole processes
            yield self.live_mappings()
        for count in self.form.rectangles:
            yield from self.frames(count)
        if self.form.runs:
            yield from self.dataset()
        for command in self.form.commands:
            for name in (*logs.WORST, logs.SET):
                yield self.worst(name, command)

    def replay(self, command: str, log: Path) -> list[str]:
        words = [sys.executable, "-m", "replay", command, str(log)]
        return [*words, "-o", str(self.folder / "exported"), "--force"] if command == "export" else words

    def summing(self, log: Path) -> list[str]:
        return [shutil.which("mawk") or "awk", "{s+=$1} END {print s}", str(log)]

    def small_log(self) -> Result:
        logs.write(self.small, logs.ordinary(200))
        command, imports = self.replay("report", self.small), [sys.executable, "-c", "import lark, typer"]
        measured(command), measured(imports)
        ratio, seconds, base = median_of_pairs(command, imports, 2 * self.form.pairs + 1)
        return Result("report of 200 lines / import of lark and typer", ratio, "x", 1.6, _seconds(seconds, base))

    def middle_log(self) -> Iterator[Result]:
        """Measure a log of neither few nor many lines: beside the small one, when it is the first, and its scan."""
        log = logs.heavy(self.folder / "middle.log", "--lines", str(MIDDLE_LINES))
        command, small = self.replay("report", log), self.replay("report", self.small)
        ratio, seconds, base = median_of_pairs(command, small, self.form.pairs)
        yield Result(f"report of {MIDDLE_LINES:,} lines / of 200", ratio, "x", 1.8, _seconds(seconds, base))
        for path, name in ((self.small, "200"), (log, f"{MIDDLE_LINES:,}")):
            yield self.first_run(path, name)
        rate = float(printed([sys.executable, "-c", SCANNING, str(log)])) / 1e6
        counting = MIDDLE_LINES / measured(["wc", "-l", str(log)]).seconds / 1e6
        yield Result("lines a second, scan alone", rate, "M", None, f"wc -l {counting:.1f} M")
        log.unlink()

    def first_run(self, log: Path, lines: str) -> Result:
        """Compare the first run of a user with the second one."""
        tries = []
        for number in range(2 * self.form.pairs + 1):
            home = self.folder / f"home{number}"
            home.mkdir()
            first, second = (measured(self.replay("report", log), home).seconds for _ in range(2))
            tries.append((first / second, first, second))
            shutil.rmtree(home)
        ratio, first, second = sorted(tries)[len(tries) // 2]
        return Result(f"report of {lines} lines, first run / second", ratio, "x", 1.15, _seconds(first, second))

    def small_logs(self) -> Result:
        """Measure what one more small log costs a batch, which works on all cores."""
        times = []
        for count in (self.form.batch_logs // 4, self.form.batch_logs):
            folder, made = self.folder / f"batch{count}", self.folder / f"dataset{count}"
            folder.mkdir()
            lines = logs.ordinary(count * BATCH_LOG_LINES)
            for number in range(count):
                logs.write(folder / f"run{number}.log", islice(lines, BATCH_LOG_LINES))
            words = [sys.executable, "-m", "replay", "batch", str(folder), "-o", str(made), "--quiet"]
            times.append((measured(words).seconds, count))
            shutil.rmtree(folder)
            shutil.rmtree(made)
        (few, fewer), (many, more) = times
        each = (many - few) / (more - fewer)
        name = f"batch: each further log of {BATCH_LOG_LINES} lines"
        return Result(name, 1000 * each, "ms", BATCH_LOG_MS, f"{1 / each:.0f} logs a second")

    def heavy_logs(self) -> Iterator[Result]:
        """Measure logs of memory calls alone: both dialects, and how time and memory grow with the strace log."""
        form = self.form
        options = ("--pids", "4", "--block", "0.5", "--lines")
        log = logs.heavy(self.folder / "heavy.log", *options, str(form.lines))
        yield self.against_summing(f"report of {form.lines:,} lines of strace, memory calls", log, 4)
        many, fewer = log, log
        if form.many_lines != form.lines:
            many = logs.heavy(self.folder / "many.log", *options, str(form.many_lines))
        if form.fewer_lines != form.lines:
            fewer = logs.heavy(self.folder / "fewer.log", *options, str(form.fewer_lines))
        command, base = self.replay("report", many), measured(self.replay("report", fewer))
        taken = measured(command)
        name, times = (
            f"report of {form.many_lines:,} lines / of {form.fewer_lines:,}",
            form.many_lines / form.fewer_lines,
        )
        note = _seconds(taken.seconds, base.seconds)
        yield Result(name, taken.seconds / base.seconds, "x", round(1.1 * times, 1), note)
        yield Result(f"peak memory, report of {form.many_lines:,} lines", taken.peak_bytes / 1e9, "GB")
        yield self.exported("strace", many)
        for path in {log, many, fewer}:
            path.unlink()
        log = logs.heavy(self.folder / "heavy.log", "--kind", "ltrace", "--lines", str(form.lines))
        yield self.against_summing(f"report of {form.lines:,} lines of ltrace, malloc", log, 4)
        log.unlink()
        many = logs.heavy(self.folder / "many.log", "--kind", "ltrace", "--lines", str(form.many_lines))
        yield self.exported("ltrace", many)
        many.unlink()

    def exported(self, kind: str, log: Path) -> Result:
        taken = measured(self.replay("export", log))
        name = f"peak memory, export of {self.form.many_lines:,} lines of {kind}"
        return Result(name, taken.peak_bytes / 1e9, "GB", 1.5, f"{taken.seconds:.2f} s")

    def ordinary_log(self) -> Result:
        log = logs.write(self.folder / "ordinary.log", logs.ordinary(self.form.lines))
        name = f"report of {self.form.lines:,} lines of strace -f, one in 8 a memory call"
        result = self.against_summing(name, log, 2.5)
        log.unlink()
        return result

    def against_summing(self, name: str, log: Path, target: float) -> Result:
        command, summing = self.replay("report", log), self.summing(log)
        ratio, seconds, base = median_of_pairs(command, summing, self.form.pairs)
        applies = target if self.form.lines >= TARGET_LINES else None
        return Result(f"{name} / mawk", ratio, "x", applies, _seconds(seconds, base))

    def live_mappings(self) -> Result:
        """Compare what a call costs among many mappings and among few, by what three quarters of the calls add.

        The least time of each log counts.
        """
        calls = self.form.calls
        written = {
            (live, number): logs.write(self.folder / f"live{live}-{number}.log", logs.split_and_merged(live, number))
            for live in (60_000, 600)
            for number in (calls // 4, calls)
        }
        taken = dict.fromkeys(written, float("inf"))
        for _ in range(self.form.pairs):
            for log, path in written.items():
                taken[log] = min(taken[log], measured(self.replay("report", path)).cpu)
        added = calls - calls // 4
        among_many, among_few = ((taken[live, calls] - taken[live, calls // 4]) / added * 1e6 for live in (60_000, 600))
        note = f"{among_many:.1f} us / {among_few:.1f} us"
        name = "a call among 60,000 live mappings / among 600"
        return Result(name, among_many / among_few, "x", 2, note)

    def frames(self, count: int) -> Iterator[Result]:
        """Measure what the page of so many mappings costs a browser; nothing where there is none."""
        log, page = self.folder / "page.log", self.folder / "page.html"
        logs.heavy(log, "--style", "ttt", "--lines", str(int(count * LINES_OF_RECTANGLE)))
        measured([sys.executable, "-m", "replay", "html", str(log), "-o", str(page), "--force"])
        taken = frames_of(page)
        if taken is not None:
            name, bounds = f"page of {count:,} mappings", FRAME_TARGETS[count]
            yield Result(f"{name}: its file", page.stat().st_size / 1e6, "MB", bounds[0])
            yield Result(f"{name}: loaded, main-thread CPU", taken.load, "s", bounds[1])
            for step, seconds in taken._asdict().items():
                if step != "load":
                    yield Result(f"{name}: {step}, main-thread CPU", 1000 * seconds, "ms", bounds[2])
        log.unlink()

    def dataset(self) -> Iterator[Result]:
        """Measure a dataset of many runs: its size when compacted, what questions cost DuckDB, its page a browser."""
        folder, dataset, page = (self.folder / name for name in ("fleet", "dataset", "page.html"))
        packed, replay = fleet.write_fleet(folder, self.form.runs), [sys.executable, "-m", "replay"]
        words = ["batch", str(folder), "-o", str(dataset), "--label-from", fleet.LABELS, "--layout", "flat"]
        taken, name = measured([*replay, *words]), f"dataset of {self.form.runs:,} runs"
        yield Result(f"{name}: made and compacted", taken.seconds, "s")
        size = sum(path.stat().st_size for path in dataset.rglob("*.parquet"))
        yield Result(f"{name}: its files / its logs, gzipped", size / packed, "x", 1.5, f"{size / 1e6:.1f} MB")
        asked = float(printed([sys.executable, "-c", ASKING, str(dataset)]))
        yield Result(f"{name}: eleven questions, CPU of DuckDB", asked, "s", 0.3)
        measured([*replay, "dashboard", str(dataset), "-o", str(page), "--force"])
        yield Result(f"{name}: its dashboard", page.stat().st_size / 1e6, "MB", 3)
        loaded = loading_of(page)
        if loaded is not None:
            yield Result(f"{name}: its dashboard loaded, main-thread CPU", loaded, "s", 3)
        shutil.rmtree(folder)
        shutil.rmtree(dataset)

    def worst(self, name: str, command: str) -> Result:
        """Compare four times the lines with once the lines; what misses its target is tried again.

        What a log of few lines takes is taken off both. The least time of the processor counts of each log: other work
        on the machine only ever adds, to any of them.
        """
        lines = max(int(self.form.worst_lines * logs.LINES_OF.get(name, 1)), FEWEST_WORST_LINES)
        few, many = (self.worst_log(name, times, lines) for times in (1, 4))
        label = f"{command} of {4 * lines:,} lines / {lines:,}: {name}"
        start, base, seconds = self.start_of(command), float("inf"), float("inf")
        for _ in range(self.form.tries):
            base = min(base, measured(self.replay(command, few)).cpu)
            seconds = min(seconds, measured(self.replay(command, many)).cpu)
            growth = (seconds - start) / max(base - start, start / 4)  # less than that is noise
            result = Result(label, growth, "x", LINEAR_4, _seconds(seconds, base))
            if not result.missed:
                break
        return result

    def start_of(self, command: str) -> float:
        """Return the least time of the processor that a log of few lines takes."""
        if command not in self.starts:
            tries = range(2 * self.form.tries)
            self.starts[command] = min(measured(self.replay(command, self.small)).cpu for _ in tries)
        return self.starts[command]

    def worst_log(self, name: str, times: int, lines: int) -> Path:
        path = self.folder / f"worst{times}.log"
        if name == logs.SET:
            return logs.write_set(path.with_name(f"set{times}"), times * lines)
        return logs.write(path, logs.WORST[name](times * lines))


def _seconds(seconds: float, base: float) -> str:
    return f"{seconds:.2f} s / {base:.2f} s"


def _row(result: Result, earlier: dict[str, float]) -> str:
    target = "" if result.target is None else f"<= {result.target:g}"
    mark = MISSED if result.missed else ""
    then = earlier.get(result.name)
    change = ""
    if then:
        factor = result.value / then
        mood = "worse" if factor > NOISE else "better" if factor < 1 / NOISE else "same"
        change = f"was {then:.2f}, {mood}"
    cells = f"{result.name:<76} {result.value:7.2f} {result.unit:<2} {target:>7} {mark:<6} {result.note:<22} {change}"
    return cells.rstrip()


def _read(path: Path | None, form: Form) -> dict[str, float]:
    """Return the figures of an earlier result, which are only comparable where the form is the same."""
    if path is None:
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document["form"] != form.name:
        print(f"The earlier results are of the {document['form']} form: few names will match.", file=sys.stderr)
    if document["machine"] != machine():
        print("The earlier results are of another machine.", file=sys.stderr)
    return {result["name"]: result["value"] for result in document["results"]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure replay against its targets.")
    parser.add_argument("--quick", action="store_true", help="smaller logs, fewer runs: less than two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with results kept earlier")
    options = parser.parse_args()
    form = QUICK if options.quick else FULL
    earlier = _read(options.against, form)
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {form.name} form")
    begin = time.perf_counter()
    results = []
    try:
        with scratch() as folder:
            for result in Benchmark(form, folder).results():
                results.append(result)
                print(_row(result, earlier), flush=True)
    except CommandFailedError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    missed = sum(result.missed for result in results)
    print(f"{missed} of {sum(result.target is not None for result in results)} targets missed, ", end="")
    print(f"measured in {time.perf_counter() - begin:.0f} s")
    if options.json:
        rows = [{**asdict(result), "value": round(result.value, 4), "missed": result.missed} for result in results]
        document = {"machine": about, "form": form.name, "results": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
