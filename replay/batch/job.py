"""The work on one run: is its log new or changed, what does it say, and into the dataset with it.

In goes a `Job`, out comes a `JobOutcome`; the tables go into the dataset on the way. Where the work is done, in which
process or on which machine, is not known here.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replay.batch.commit import commit
from replay.batch.dataset_writer import Known
from replay.batch.discovery import FoundRun
from replay.batch.local_copies import beginning, content_hash, fetched, is_compressed, is_tar, state_of
from replay.batch.runs_table import ERROR, LABELS, summary_columns
from replay.batch.storage import open_store
from replay.datasets.layout import OK
from replay.errors import ReplayError, TraceFormatError
from replay.logs.chunks import CHUNK_BYTES, SAMPLE_BYTES, read_chunks
from replay.logs.files import Log
from replay.tables import SCHEMA_VERSION, OutputError, system_errors, write_tables
from replay.version import __version__

if TYPE_CHECKING:
    from replay.run.api import Run

ATTEMPTS: Final = 2
"""How often a log is read that changes while it is read."""

LEAST_CALLS: Final = 0.25
"""The share of lines that look like calls below which a file is text with a trace quoted in it. Heuristic."""

_SMALL_BYTES: Final = 512
"""How much of a compressed log is read at once where it is broken: what comes before the break tells what it is."""

_CALL_LINE: Final = re.compile(
    rb"(?: *(?:\[pid +\d+\]|\[[\da-fx?]+\]|\d[\d.:]*(?:<[^>]*>)?|\(\+ *[\d.]+\)) +)*"
    rb"(?:[\w.@:~>+-]+\(|<\.\.\. |\+\+\+ |--- |operator )| > | \| "
)
"""How a line of a trace begins, seen from afar: pid and time, then a call, an end, a notice, a frame or a dump."""

WRITTEN: Final = "written"
UNCHANGED: Final = "unchanged"
REFUSED: Final = "refused"
NO_TRACE: Final = "no trace"
UNWRITABLE: Final = "unwritable"
"""What can become of a job; `UNWRITABLE` is the fault of the dataset's place and ends the batch."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the logs are read, as in `replay.load`."""

    format: str = "auto"
    maps: str | None = None
    page_size: int | None = None
    strict: bool = False
    elf_root: str | None = "/"
    every: int = 1
    """Of the table fragmentation one change in so many is kept."""

    def text(self) -> str:
        """Return the options that are not at their defaults, as on the command line."""
        words = [f"--format {self.format}"] if self.format != "auto" else []
        if self.maps is not None:
            words.append(f"--maps {self.maps} ({content_hash([self.maps])[:16]})")
        if self.page_size is not None:
            words.append(f"--page-size {self.page_size}")
        if self.elf_root != "/":
            words.append("--no-elf" if self.elf_root is None else f"--elf-root {self.elf_root}")
        if self.every != 1:
            words.append(f"--every {self.every}")
        return " ".join([*words, *(["--strict"] if self.strict else [])])


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be brought into a dataset: under which name, from which log, and what the dataset has of it.

    `known` is what may be kept if the log is still the same; `replaces` says that there are tables or a row of it;
    `labels` are what its row shall say, and `added_at` since when the dataset has it, in microseconds since 1970.
    """

    run: str
    found: FoundRun
    dataset: str
    options: Options
    options_text: str
    known: Known | None
    replaces: bool
    labels: dict[str, str]
    added_at: int


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job: its kind, the row for `runs` if there is a new one, and a message if something is wrong."""

    job: Job
    kind: str
    row: dict[str, Any] | None = None
    message: str = ""


class _ChangedError(Exception):
    """The log changed while it was read."""


def work(job: Job) -> JobOutcome:
    """Bring one run into its dataset, or say why not; whatever is wrong with a log, other jobs are not concerned."""
    try:
        try:
            return _brought(job)
        except OutputError:
            raise
        except ReplayError as error:
            message = str(error)
        except MemoryError:
            message = "not enough memory for this log"
        except Exception as error:  # a log that nobody thought of must not stop the others
            message = _bug(error)
        return refuse(job, message)
    except OutputError as error:
        return JobOutcome(job, UNWRITABLE, message=str(error))


def refuse(job: Job, message: str) -> JobOutcome:
    """Give a run a row that says why it has no tables, and take away those that it had.

    Raises:
        OutputError: the dataset's place refused.
    """
    for file in job.found.files:
        message = message.replace(file.path, file.source)
    message = message.removeprefix(f"{job.found.source}: ")
    facts = {"status": ERROR, "error": message, "size_bytes": job.found.size, "content_hash": None, "log_mtime": None}
    row = _facts(job) | facts
    commit(open_store(job.dataset), row, None, replaces=job.replaces)
    return JobOutcome(job, REFUSED, row, message)


def _brought(job: Job) -> JobOutcome:
    if job.found.error:
        raise TraceFormatError(f"{job.found.source}: {job.found.error}")
    for _ in range(ATTEMPTS):
        with suppress(_ChangedError):
            return _attempted(job)
    raise TraceFormatError(f"{job.found.source}: changed while it was read; run the batch again once it is complete")


def _attempted(job: Job) -> JobOutcome:
    """Read the log once and bring what it says into the dataset.

    Raises:
        _ChangedError: the log is no longer what it was when reading began.
    """
    files = job.found.files
    before = state_of(files)
    with fetched(files) as paths:
        paths_with_text = [path for path in paths if os.path.getsize(path)] or list(paths)
        new = job.known is None
        if new and not all(map(_shows_calls, paths_with_text)) and (other := _no_trace(job, paths_with_text)):
            return other
        facts = _facts(job) | {"size_bytes": sum(state[0] for state in before), "content_hash": content_hash(paths)}
        facts["log_mtime"] = max((state[1] for state in before if state[1]), default=0) // 1000 or None
        if job.known is not None and _is_same(job.known, facts):
            return JobOutcome(job, UNCHANGED)
        try:
            run = _replayed(job, paths_with_text)
        except TraceFormatError:
            if new and (other := _no_trace(job, paths_with_text)):
                return other
            raise
        store = open_store(job.dataset)
        with store.staging() as folder:
            row = facts | _written(run, folder, job.options.every)
            if state_of(files) != before:
                raise _ChangedError
            commit(store, row, folder, replaces=job.replaces)
    return JobOutcome(job, WRITTEN, row)


def _facts(job: Job) -> dict[str, Any]:
    """Return what the row of a run says of it before its log is read."""
    return {
        "run": job.run,
        "source": job.found.source,
        "location": job.found.location,
        "version": __version__,
        "schema_version": SCHEMA_VERSION,
        "options": job.options_text,
        "status": OK,
        "error": None,
        "added_at": job.added_at,
        LABELS: job.labels,
    }


def _is_same(known: Known, facts: dict[str, Any]) -> bool:
    """Tell whether a run would be made of the same bytes, by the same version, with the same options."""
    fields = ("source", "size_bytes", "content_hash", "version", "schema_version", "options", "status")
    return all(getattr(known, field) == facts[field] for field in fields)


EMPTY: Final = "empty"
BINARY: Final = "binary"
NO_CALLS: Final = "no calls"
"""Why a file is no trace."""

_LOG_NAME: Final = re.compile(r".+\.(?:log|strace|ltrace|txt|\d+)(?:\.(?:gz|xz|bz2|zst))?", re.IGNORECASE)


def is_named_like_a_log(found: FoundRun) -> bool:
    """Tell whether files have names that logs have: then one that is no trace is a capture that failed."""
    return all(_LOG_NAME.fullmatch(os.path.basename(file.source)) for file in found.files)


def _no_trace(job: Job, paths: Sequence[str]) -> JobOutcome | None:
    """Return the outcome for files that are no trace and need not be one, None for a trace.

    Raises:
        TraceFormatError: a file may not be read, or is none that should be one.
    """
    kinds = [_kind(path) for path in paths]
    if "" in kinds or not kinds:
        return None
    kind = next(kind for kind in (BINARY, NO_CALLS, EMPTY) if kind in kinds)
    if not job.found.named and not is_named_like_a_log(job.found):
        return JobOutcome(job, NO_TRACE, message=kind)
    words = {
        EMPTY: "the file has no lines; was the capture killed, or the disk full?",
        BINARY: "a binary file, no log of strace or ltrace",
        NO_CALLS: "few lines or none are calls as strace and ltrace print them",
    }
    raise TraceFormatError(f"{paths[0]}: {kind}: {words[kind]}")


def _kind(path: str) -> str:
    """Return by its content why a file is no trace, nothing for a trace.

    Raises:
        TraceFormatError: it may not be read.
    """
    if not os.access(path, os.R_OK):
        raise TraceFormatError(f"{path}: cannot be read (permission denied)")
    if not os.path.getsize(path):
        return EMPTY
    if is_tar(beginning(path, 512)):
        return BINARY
    sample = _sample(path, CHUNK_BYTES) or (_sample(path, _SMALL_BYTES) if is_compressed(path) else b"")
    if _are_calls(sample):
        return ""
    start = beginning(path, _SMALL_BYTES)
    if not start.strip():
        return EMPTY
    return BINARY if b"\0" in start else NO_CALLS


def _shows_calls(path: str) -> bool:
    """Tell whether a file is of lines that look like calls as it lies there, with nothing around them to undo."""
    try:
        with open(path, "rb") as file:
            first = file.read(SAMPLE_BYTES)
    except OSError:
        return False
    return not is_tar(first) and _are_calls(first)


def _are_calls(sample: bytes) -> bool:
    """Tell whether enough of some lines look like calls."""
    lines = [line for line in sample.splitlines() if line.strip()]
    return sum(map(bool, map(_CALL_LINE.match, lines))) >= LEAST_CALLS * len(lines) > 0


def _sample(path: str, size: int) -> bytes:
    """Return the beginning of a trace, read in pieces of `size` bytes; nothing if the first piece is of no trace."""
    try:
        chunk = next(read_chunks(Log(path), size), None)
    except TraceFormatError:
        return b""
    return chunk.data[:SAMPLE_BYTES] if chunk else b""


def _replayed(job: Job, paths: Sequence[str]) -> Run:
    """Return the replayed run, its files called as the user would."""
    from replay.run.api import load

    options = job.options
    run = load(
        paths,
        format=options.format,
        maps=options.maps,
        elf_root=options.elf_root,
        page_size=options.page_size,
        strict=options.strict,
    )
    sources = {os.path.basename(file.path): file.source for file in job.found.files}
    for log in run.source.logs:
        log.path = sources.get(os.path.basename(log.path), log.path)
    return run


def _written(run: Run, folder: Path, every: int) -> dict[str, Any]:
    """Write the tables of a run into a directory of its own; return the summary's part of its row."""
    with system_errors(folder):
        write_tables(run.all_parts(every), folder)
    summary = run.summary_values
    return {name: summary[name] for name in summary_columns()}


def _bug(error: Exception) -> str:
    """Return what to say of an error that should not be."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
    return f"this is a bug of replay: {type(error).__name__} in {place}: {str(error)[:200]}; please report it"
