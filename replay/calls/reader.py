"""The calls of a run in the order in which they completed, read from its logs.

In go paths, out come batches of `Calls`. Which process a thread belongs to, and what a call does to memory, is not
known here.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.calls.library_calls import LibraryCalls
from replay.calls.one_run import Sequel, refuse_repeated
from replay.calls.split_calls import TEXTS, Joiner, Rows, chosen, stacked
from replay.calls.table import COLUMNS, FAILED, OK, UNFINISHED, Calls, calls_of, concatenated
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.prefetch import worked_ahead
from replay.engine.progress import Stage, Watch, unwatched
from replay.engine.sorting import distinct, firsts
from replay.engine.structs import Struct, field, replace
from replay.lines.first_sights import FirstSights
from replay.lines.line_reader import Counters, LineColumns, Shapes
from replay.lines.scan import Scan
from replay.lines.scan_stream import Scanned, scanned
from replay.lines.templates import KIND_CODE, MOST_NS
from replay.linux.constants import CALL_CODE, SECOND
from replay.logs.chunks import Chunk, Notice, read_texts
from replay.logs.files import Log, find_logs, size_of
from replay.logs.problems import Problems

__all__ = ["COLUMNS", "FAILED", "OK", "UNFINISHED", "Calls", "LogReader", "concatenated", "read_logs"]

_OPENED, _PID_CHANGED, _FRAME, _NOTICE = (KIND_CODE[k] for k in ("opened", "pid_changed", "frame", "notice"))
_OF_PROCESSES: Final = "exited killed superseded exec child_ended seen".split()
_IS_END: Final = np.array([kind in _OF_PROCESSES for kind in KIND_CODE])


class Reading(Struct):
    """One log while it is read: its shapes, its open calls, and how much time has gone by."""

    log: Log
    shapes: Shapes
    notices: list[Notice]
    joiner: Joiner = field(default_factory=Joiner)
    sights: FirstSights = field(default_factory=FirstSights)
    library: LibraryCalls = field(default_factory=LibraryCalls)
    elapsed_ns: int = 0
    last_line: int = 0

    def batch(self, scanned: Scanned) -> Calls:
        """Return the calls that complete in a scanned chunk."""
        chunk, found = scanned
        columns = self.shapes.columns(chunk, found)
        if self.log.pid is not None and (self.log.dialect == "ltrace" or _prints_pids(columns)):
            self.log.pid = None  # no file of a -ff set, which only strace writes: its lines say whose they are
        rows = self._rows(chunk, columns)
        if self.log.pid is None:
            rows = _with_sights(rows, chunk, self._first_sights(chunk, found, columns))
        self.last_line = int(chunk.line[-1]) if len(chunk.line) else self.last_line
        return calls_of(self.library.replayed(self.joiner.joined(rows)), self.log)

    def rest(self) -> Calls:
        """Return the calls that never completed; their line is the last one of the log."""
        rows = self.library.replayed(self.joiner.never_closed())
        if not rows or not len(rows["kind"]):
            return concatenated([])
        rows["line"] = np.full(len(rows["kind"]), self.last_line, dtype=np.int64)
        rows["kind"] = np.full(len(rows["kind"]), _OPENED, dtype=np.int64)
        return calls_of(rows, self.log)

    def _rows(self, chunk: Chunk, columns: LineColumns) -> Rows:
        """Return the rows of the lines that are calls or ends of processes, with caller and time."""
        numbers = dict(columns.numbers)
        if "time" not in numbers and ("relative" in numbers or self.log.relative):
            self.log.relative = True
            numbers["time"] = self._elapsed(chunk)[columns.row]
        numbers.pop("relative", None)
        self._note(chunk, columns)
        rows: Rows = {
            "kind": columns.kind,
            "line": columns.line,
            "entry_line": columns.entry_line,
            "call": columns.call,
            "name": columns.name,
            "dialect": columns.dialect,
            "pid": np.full(len(columns.kind), NULL, dtype=np.int64),
            "carried": np.zeros(len(columns.kind), dtype=np.int64),
        } | numbers
        rows |= {key: columns.texts[key] for key in TEXTS if key in columns.texts}
        if (columns.kind == _FRAME).any():
            self.log.framed = True
            rows["caller"] = _callers(columns, rows.get("caller"), self.shapes.strings)
        shown = _is_shown(columns)
        return rows if shown.all() else chosen(rows, np.flatnonzero(shown))

    def _first_sights(self, chunk: Chunk, found: Scan, columns: LineColumns) -> list[tuple[int, int]]:
        """Return row and pid of the lines that are the first of their pid and become no calls, such as signals."""
        sights = self.sights.among(chunk.data, len(chunk.line), found.row)
        if "pid" in columns.numbers:
            told = np.flatnonzero(~_is_shown(columns) & (columns.numbers["pid"] != NULL))
            pids, places = firsts(columns.numbers["pid"][told])
            for pid, place in zip(pids.tolist(), places.tolist(), strict=True):
                if pid not in self.sights.pids:
                    self.sights.pids.add(pid)
                    sights.append((int(columns.row[told[place]]), pid))
        return sights

    def _note(self, chunk: Chunk, columns: LineColumns) -> None:
        """Keep what the tracer said about processes: attached, detached, how wide their words are."""
        self.notices += [notice._replace(file=self.log.index) for notice in chunk.notices]
        if "bits" in columns.numbers:
            for row in np.flatnonzero(columns.kind == _NOTICE).tolist():
                pid, bits = int(columns.numbers["to_pid"][row]), int(columns.numbers["bits"][row])
                self.notices.append(Notice(int(columns.line[row]), pid, f"{bits} bit", self.log.index))

    def _elapsed(self, chunk: Chunk) -> Int64Array:
        """Return for each line the nanoseconds since the log began: the sum of what `-r` prints."""
        steps = [_relative_ns(line) for line in chunk.data.split(b"\n")[:-1]]
        total = accumulate(steps, lambda so_far, step: min(so_far + step, MOST_NS - 1), initial=self.elapsed_ns)
        elapsed = np.array(list(total)[1:], dtype=np.int64)
        self.elapsed_ns = int(elapsed[-1]) if len(elapsed) else self.elapsed_ns
        return elapsed


def _prints_pids(columns: LineColumns) -> bool:
    return "pid" in columns.numbers and bool((columns.numbers["pid"] != NULL).any())


def _is_shown(columns: LineColumns) -> NDArray[np.bool_]:
    """Return which lines are calls of interest, or notices that become rows."""
    shown: NDArray[np.bool_] = ((columns.kind <= _PID_CHANGED) & (columns.call >= 0)) | _IS_END[columns.kind]
    return shown


def _seen_at(clock: int, pids: list[int], log: Log) -> Calls:
    """Return notices that there are threads `pids`, of which no file has a call, behind the last line."""
    rows = _sights(np.array(pids, dtype=np.int64))
    rows["line"] = rows["entry_line"] = np.full(len(pids), clock, dtype=np.int64)
    return calls_of(rows, replace(log, pid=None))


def _with_silent(batches: Iterable[Calls], logs: Sequence[Log]) -> Iterator[Calls]:
    """Yield the calls of a set, and at the end that the threads are there whose files have none."""
    silent, clock = {log.pid for log in logs} - {None}, 0
    for calls in batches:
        silent -= set(distinct(calls.pid).tolist())
        clock = max(clock, int(calls.clock[-1])) if len(calls) else clock
        yield calls
    yield _seen_at(clock, sorted(pid for pid in silent if pid is not None), logs[0])


def _sights(pids: Int64Array) -> Rows:
    """Return rows that say that threads are there; their lines are to be filled in."""
    nothing = np.full(len(pids), -1, dtype=np.int64)
    return {
        "kind": np.full(len(pids), KIND_CODE["seen"], dtype=np.int64),
        "call": nothing,
        "name": nothing,
        "dialect": np.zeros(len(pids), dtype=np.int64),
        "pid": pids,
        "carried": np.zeros(len(pids), dtype=np.int64),
    }


def _with_sights(rows: Rows, chunk: Chunk, sights: list[tuple[int, int]]) -> Rows:
    """Return the rows with one for each first sight of a pid, in the order of lines."""
    if not sights:
        return rows
    row, pid = np.array(sights, dtype=np.int64).T
    seen = _sights(pid.copy()) | {"line": chunk.line[row], "entry_line": chunk.entry_line[row]}
    both = stacked([rows, seen])
    return chosen(both, np.argsort(both["line"], kind="stable"))


_RELATIVE: Final = re.compile(
    rb"(?:\[pid[^\]]*\] |[0-9]{1,8}(?:<[^>]*>)? (?= *[0-9]+(?:\.[0-9]+)? ))? *([0-9]{1,9})(?:\.([0-9]{1,9}))? (?=\S)"
)


def _relative_ns(line: bytes) -> int:
    """Return the nanoseconds that a line of `-r` says have gone by since the line before."""
    match = _RELATIVE.match(line)
    if match is None:
        return 0
    fraction = match[2] or b""
    return int(match[1]) * SECOND + int(fraction.ljust(9, b"0"))


_LIBC: Final = r"(?:^|/)(?:libc[.-]|ld-musl|libc\.musl)"


_FAR_FROM_SYMBOL: Final = 0x200


def _callers(columns: LineColumns, caller: Int64Array | None, strings: Strings) -> Int64Array:
    """Return for each line what called it: the symbol of the first frame of the libc among the stack frames behind it.

    Without such a frame it is the name of the first frame's module; so it is of the libc's where its symbol is missing,
    or so far away that it is hardly the function's own. (Heuristic: stripped libraries have few symbols.)
    Of a call of the malloc family, which is libc's itself, the first frame alone counts.
    """
    callers = np.full(len(columns.kind), NO_TEXT, dtype=np.int64) if caller is None else caller.copy()
    is_frame = columns.kind == _FRAME
    index = np.arange(len(is_frame))
    owner = np.maximum.accumulate(np.where(is_frame, -1, index))
    frame = np.flatnonzero(is_frame & (owner >= 0))
    frame = frame[columns.line[frame] - columns.line[owner[frame]] == frame - owner[frame]]
    module = columns.texts.get("frame_module", np.full(len(is_frame), NO_TEXT))
    symbol = columns.texts.get("frame_symbol", np.full(len(is_frame), NO_TEXT))
    frame = frame[module[frame] != NO_TEXT]
    libc = {m: re.search(_LIBC, strings[m]) is not None for m in distinct(module[frame]).tolist()}
    of_libc = frame[np.array([libc[m] for m in module[frame].tolist()], dtype=bool)]
    asked = columns.call[owner[of_libc]] >= CALL_CODE["malloc"]
    of_libc = of_libc[~asked | (of_libc - owner[of_libc] == 1)]
    short = {m: strings.intern(strings[m].rpartition("/")[2]) for m in libc}
    module_name = np.array([short.get(m, NO_TEXT) for m in module.tolist()], dtype=np.int64)
    offset = columns.numbers.get("frame_offset", np.zeros(len(is_frame), dtype=np.int64))
    unknown = (symbol[of_libc] == NO_TEXT) | (offset[of_libc] >= _FAR_FROM_SYMBOL)
    named = np.where(unknown, module_name[of_libc], symbol[of_libc])
    callers[owner[frame[::-1]]] = module_name[frame[::-1]]
    callers[owner[of_libc[::-1]]] = named[::-1]
    return callers if caller is None else np.where(caller == NO_TEXT, callers, caller)


class _Before(Struct):
    """What was read in front of a log: bytes of all logs, lines of those whose lines count on."""

    bytes: int = 0
    lines: int = 0


class LogReader(Struct):
    """The logs of one run, to be read once: iterate for batches of `Calls`, then look at what was counted."""

    logs: list[Log]
    strict: bool = False
    strings: Strings = field(default_factory=Strings)
    problems: Problems = field(default_factory=Problems)
    counters: Counters = field(default_factory=Counters)
    notices: list[Notice] = field(default_factory=list)
    shapes: dict[str, Shapes] = field(default_factory=dict)
    watch: Watch = unwatched

    @property
    def files(self) -> list[str]:
        """Return the paths of the logs; `Calls.file` is the place in this list."""
        return [log.path for log in self.logs]

    @property
    def dialect(self) -> str:
        """Return which program wrote the logs: `strace`, `ltrace`, or `mixed`; known once reading began."""
        dialects = {log.dialect for log in self.logs}
        return dialects.pop() if len(dialects) == 1 else "mixed"

    @property
    def framed(self) -> bool:
        """Tell whether some log shows call stacks; known once they are read."""
        return any(log.framed for log in self.logs)

    def __iter__(self) -> Iterator[Calls]:
        """Yield the calls in completion order."""
        total, before = sum(size_of(log.path) for log in self.logs), _Before()
        if len(self.logs) > 1 and all(log.pid is not None for log in self.logs):
            from replay.calls.file_sets import merged

            files = [self._read(log, before, total) for log in self.logs]
            made = merged(
                files,
                timed=lambda: not any(log.relative for log in self.logs),
                paths=self.files,
                whole=lambda: self.counters.lines_passed_over > 0,
            )
            yield from _with_silent(made, self.logs)
            return
        sequel = Sequel()
        for log in self.logs:
            batches = self._read(log, before, total)
            for calls in sequel.follow(log.path, batches) if len(self.logs) > 1 else batches:
                yield _later(calls, before.lines)
            before.lines = self.counters.lines

    def calls(self) -> Calls:
        """Return all calls at once."""
        return concatenated(self)

    def _read(self, log: Log, before: _Before, total: int) -> Iterator[Calls]:
        """Yield the calls of one log; `total` are the bytes of all."""
        with closing(self._batches(log)) as batches:
            for calls in batches:
                yield calls
                self.watch(Stage("reading", before.bytes + log.bytes_read, total, self.counters.lines))
        before.bytes += log.bytes_read

    def _batches(self, log: Log) -> Generator[Calls]:
        """Yield the calls of one log; those of a long one are made ready in a thread while the last are made use of."""
        with closing(scanned(read_texts(log), log)) as chunks:
            first = list(islice(chunks, 1))  # now the dialect is known
            shapes = self._shapes_of(log)
            reading = Reading(log, shapes, self.notices, library=LibraryCalls(log.system_calls))
            with closing(worked_ahead(chain(first, chunks), reading.batch)) as batches:
                for _, calls in batches:
                    yield calls
            yield reading.rest()

    def _shapes_of(self, log: Log) -> Shapes:
        """Return the shapes of a log's dialect: what the lines of one log taught is known in the next."""
        shapes = self.shapes.get(log.dialect)
        if shapes is None:
            shapes = Shapes(log.dialect, self.strings, self.problems, self.counters)
            self.shapes[log.dialect] = shapes
        shapes.begin(log.index, log.path if self.strict else None)
        return shapes


def _later(calls: Calls, lines: int) -> Calls:
    """Return the calls with their clock `lines` later."""
    if lines:
        calls.clock = calls.clock + lines
        calls.entry_clock = calls.entry_clock + lines
    return calls


def read_logs(
    paths: Iterable[str | Path], *, dialect: str = "auto", strict: bool = False, watch: Watch = unwatched
) -> LogReader:
    """Return the logs of one run, ready to be read.

    Args:
        paths: logs, `-` for standard input, or the files or the prefix of a `strace -ff` set.
        dialect: `strace` or `ltrace` where the content shall not be asked.
        strict: whether the first line that is not understood is an error.
        watch: what is told how far the reading is.

    Raises:
        TraceFormatError: a file cannot be read or is no trace; later, while reading, too.
        TraceSyntaxError: while reading, for a line not understood, if `strict`.
        ReplayError: two of the logs are the same file; while reading, where they cannot be one run.
    """
    logs = find_logs(paths)
    refuse_repeated(logs)
    for log in logs if dialect != "auto" else ():
        log.dialect = dialect
    return LogReader(logs, strict, watch=watch)
