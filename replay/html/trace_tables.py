"""What the page of a run is made from: its tables, and what of a run no table tells.

In goes a run that was replayed, or the name of one in a dataset, out comes the same record. A dataset has no words for
steps and no paragraphs of a verdict: there the page says what the tables say.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from replay.console.amounts import exact, grouped, number, times
from replay.console.screen import clean
from replay.engine.column_store import SortedColumns
from replay.engine.columns import NULL, Int64Array
from replay.logs.files import split_name
from replay.report.first_screen import CANNOT_TELL
from replay.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.datasets.dataset import Dataset
    from replay.run.api import Run


class Said(NamedTuple):
    """A paragraph beside the picture: the heading that it stands under, its text, and `bad`, `good` or nothing."""

    heading: str
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class TraceTables:
    """A run as the page needs it; a clock is a line of the run, all logs of it counted as one."""

    title: str
    trace: str
    """What stands for its logs in a command."""
    files: Sequence[str]
    merged: bool
    """Whether the files are those of one `strace -ff` set."""
    table: Callable[[str], pa.Table]
    clock: Int64Array
    """The clock at which each step completed."""
    entry_clock: Int64Array
    """The clock at which each step began."""
    pid: Int64Array
    """The process or thread that made each step, 0 where the log does not tell it."""
    made_clock: Int64Array
    """The clock of the call that made the mapping of each row of `regions`."""
    last_clock: int
    page_size: int
    words: Sequence[str]
    """What each step did, as `replay steps` tells it after step, line and process."""
    said: Sequence[Said]
    spaces: Sequence[dict[str, Any]]
    main_space: int


def ints(table: pa.Table, name: str) -> Int64Array:
    """Return a column of integers, `NULL` where it has none; a uint64 keeps its bits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name]
    if pa.types.is_uint64(column.type):
        known = pc.fill_null(column, pa.scalar(0, pa.uint64())).to_numpy().astype(np.int64)
        return np.where(pc.is_valid(column).to_numpy(), known, NULL) if column.null_count else known
    return np.asarray(pc.fill_null(column.cast(pa.int64()), NULL).to_numpy(), np.int64)


def codes(table: pa.Table, name: str) -> tuple[Int64Array, list[str]]:
    """Return a column of texts as places in a list of them, -1 where there is none; the texts are safe to show."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    places = np.asarray(pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False), np.int64)
    return places, [clean(text) for text in column.dictionary.to_pylist()]


# --- of a run that was replayed --------------------------------------------------------------------------------------


def tables_of_run(run: Run) -> TraceTables:
    """Return what the page of a replayed run is made from."""
    from replay.report.findings import Findings

    findings = Findings(run)
    made = run.replayed
    return TraceTables(
        title=_title(run),
        trace=clean(_trace(run)),
        files=[clean(PurePath(file).name) for file in run.source.files],
        merged=all(log.pid is not None for log in run.source.logs),
        table=run.arrow,
        clock=made.events["clock"],
        entry_clock=made.events["entry_clock"],
        pid=np.maximum(made.events["tid"], 0),
        made_clock=SortedColumns(made.regions, TABLES["regions"].order)["made_line"],
        last_clock=made.last_clock,
        page_size=made.page_size,
        words=_words(run),
        said=_said(findings),
        spaces=_spaces(run),
        main_space=findings.main_space or 0,
    )


def _title(run: Run) -> str:
    first, *others = run.source.files
    return clean(first) + (f" and {len(others):,} more" if others else "")


def _trace(run: Run) -> str:
    """Return what stands for a run's logs in a command: for a `strace -ff` set what its files' names begin with."""
    source = run.source
    if len(source.files) > 1 and all(log.of_set for log in source.logs):
        return shlex.quote(split_name(source.files[0])[0])
    return shlex.join(source.files)


def _words(run: Run) -> list[str]:
    """Return what each step did, without its step, line and process."""
    from replay.console.screen import shown
    from replay.report.steps import step_lines

    lines = shown(step_lines(run), colour=False)
    heading = next(lines)
    before = len(heading) - len("what it did")
    return [line[before:] for line in lines]


def _said(findings: Any) -> list[Said]:
    """Return the sections of the report's first screen, with all advice."""
    from replay.report import advice
    from replay.report.cannot_tell import cannot_tell
    from replay.report.first_screen import by_command
    from replay.report.verdict import verdict

    said = [Said("Verdict", grouped(clean(paragraph.text)), paragraph.tone) for paragraph in verdict(findings)]
    said += [Said("What it means", text) for text in advice.meaning(findings)]
    said += [Said("What to try", text) for text in advice.to_try(findings)]
    untold = ((texts, command.partition("\n")[0]) for command, texts in by_command(cannot_tell(findings)).items())
    said += [Said(CANNOT_TELL, f"{'; '.join(texts)}" + f" ({command})" * bool(command)) for texts, command in untold]
    return said


def _spaces(run: Run) -> list[dict[str, Any]]:
    spaces = run.replayed.spaces
    return [
        {
            "space": space,
            "pid": _known(spaces["pid"][space]),
            "parent": _known(spaces["parent"][space]),
            "program": clean(run.strings[int(program)]) if (program := spaces["program"][space]) >= 0 else "",
            "born": max(0, int(spaces["born_line"][space])),
            "born_step": max(-1, int(spaces["born_step"][space])),
            "died": max(0, int(spaces["died_line"][space])),
            "start_brk": _known(spaces["start_brk"][space]),
        }
        for space in range(len(spaces["space"]))
    ]


def _known(value: int) -> int | None:
    return int(value) if value > 0 else None


# --- of a run in a dataset -------------------------------------------------------------------------------------------


def tables_of_dataset(dataset: Dataset, run: str) -> TraceTables:
    """Return what the page of a run in a dataset is made from; raise ReplayError if its tables cannot be read."""
    held: dict[str, pa.Table] = {}

    def table(name: str) -> pa.Table:
        if name not in held:
            columns = [column.name for column in TABLES[name].columns]
            read = dataset.table(name, columns, [run]).drop_columns(["run"])
            order = [(column, "ascending") for column in TABLES[name].order]
            held[name] = read.sort_by(order) if order else read
        return held[name]

    events, regions = table("events"), table("regions")
    clock, entry = _clocks(events, regions)
    born = ints(regions, "born_line")
    return TraceTables(
        title=clean(run),
        trace="TRACE",
        files=[clean(PurePath(text).name) for text in codes(events, "file")[1]] or [clean(run)],
        merged=True,
        table=table,
        clock=clock,
        entry_clock=entry,
        pid=np.maximum(ints(events, "pid"), 0),
        made_clock=born,
        last_clock=int(max(clock.max(initial=1), born.max(initial=1))),
        page_size=4096,
        words=_plain_words(events),
        said=_evidence(table),
        spaces=_spaces_of_tables(events, regions),
        main_space=_fullest(table),
    )


def _clocks(events: pa.Table, regions: pa.Table) -> tuple[Int64Array, Int64Array]:
    """Return the clocks at which steps completed and began.

    The lines of one log are the clock. Where several were read as one, the births of regions tell it of their steps,
    and between those it is estimated.
    """
    line, entry = ints(events, "line"), ints(events, "entry_line")
    if events["file"].null_count == len(events):
        return line, entry
    steps, born = ints(regions, "born_step"), ints(regions, "born_line")
    known = (steps >= 0) & (born > 0)
    at, first = np.unique(steps[known], return_index=True)
    if not len(at):
        return np.arange(1, len(line) + 1), np.arange(1, len(line) + 1)
    clock = np.interp(np.arange(len(line)), at, born[known][first]).astype(np.int64)
    clock = np.maximum.accumulate(clock) if len(clock) else clock
    return clock, clock


def _plain_words(events: pa.Table) -> list[str]:
    """Return each step as its call, with what the table tells of its arguments and result."""
    names = ("call", "addr", "length", "path", "result", "errno", "status")
    columns = [events[name].to_pylist() for name in names]
    words = []
    for call, addr, length, path, result, errno, status in zip(*columns, strict=True):
        parts = [] if addr is None else [f"{addr:#x}"]
        parts += [] if length is None else [f"{length:,} bytes"]
        parts += [clean(path)] if path else []
        ended = "" if result is None else f" = {result:#x}"
        ended = f" failed: {errno or 'no reason printed'}" if status == "failed" and call != "brk" else ended
        words.append(f"{call}({', '.join(parts)}){ended}")
    return words


def _evidence(table: Callable[[str], pa.Table]) -> list[Said]:
    """Return what the tables say of refused breaks, with the evidence of one of each cause, and of live blocks."""
    rows = table("brk_failures").to_pylist()
    if rows:
        lines = f"line {rows[0]['line']}" if len(rows) == 1 else f"lines {rows[0]['line']} to {rows[-1]['line']}"
        said = [Said("Verdict", f"The break failed to grow {times(len(rows))} ({lines}).", "bad")]
        firsts = {str(row["cause"]): str(row["evidence"]) for row in reversed(rows)}
        said += [
            Said("Verdict", f"Why ({cause}): {grouped(clean(evidence))}.")
            for cause, evidence in reversed(firsts.items())
        ]
    else:
        said = [Said("Verdict", "In this run no brk call that asked for more was refused.", "good")]
    granted = [row["bytes"] for row in table("mmap_fallbacks").to_pylist() if row["errno"] is None]
    if granted:
        said.append(Said("Verdict", f"{number(len(granted), 'mapping')} stood in for it: {exact(sum(granted))}."))
    return [*said, *(_live(summary) for summary in table("summary").to_pylist())]


def _live(summary: dict[str, Any]) -> Said:
    """Return what a summary says of blocks that are live at the end, and of what lies free below them."""
    if summary["live_bytes"] is None:
        return Said(
            "What this log cannot tell", "Leak, fragmentation, what pins the heap: the log shows no malloc calls."
        )
    pinned = summary["pinned_bytes"]
    below = f", with {exact(pinned)} of the heap free below them" if pinned else ""
    live = number(summary["live_blocks"], "block")
    return Said("Verdict", f"Live at the end of the log: {live}, {exact(summary['live_bytes'])}{below}.")


def _spaces_of_tables(events: pa.Table, regions: pa.Table) -> list[dict[str, Any]]:
    space, pid = ints(events, "space"), ints(events, "pid")
    of_regions, born = ints(regions, "space"), ints(regions, "born_line")
    count = int(max(space.max(initial=0), of_regions.max(initial=0))) + 1
    found = []
    for at in range(count):
        steps, lines = np.flatnonzero(space == at), born[(of_regions == at) & (born > 0)]
        found.append(
            {
                "space": at,
                "pid": _known(pid[steps[0]]) if len(steps) else None,
                "parent": None,
                "program": "",
                "born": int(lines.min(initial=1)),
                "born_step": int(steps[0]) if len(steps) else -1,
                "died": 0,
                "start_brk": None,
            }
        )
    return found


def _fullest(table: Callable[[str], pa.Table]) -> int:
    """Return the space with the most failed breaks, else that with the most memory."""
    failed = ints(table("brk_failures"), "space")
    if len(failed):
        return int(np.bincount(failed).argmax())
    changes = table("fragmentation")
    return int(ints(changes, "space")[ints(changes, "mapped_bytes").argmax()]) if len(changes) else 0
