"""Where in the log the values of a summary come from, in words.

In goes a run, or the row of its summary, out come phrases such as `first in line 66` by the name of the column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.run.api import Run
    from replay.run.places import Place, Places


def origins_of(run: Run) -> dict[str, str]:
    """Return where in the log the values of a run's summary come from: `first in line 66`, `in line 12`."""
    from replay.run.places import Places

    places = Places(run)
    found = _peaks_of(run, places) if places.several else origins_in(run.summary_values)
    for table, columns in _FIRST_ROWS.items():
        step = _first_step(run, table)
        if step is not None:
            found |= dict.fromkeys(columns, f"first in {places.of_step(step)}")
    kept = run.source.problems.kept
    if kept:
        first = min(kept, key=lambda problem: (problem.file, problem.line))
        found |= dict.fromkeys(("problems", "lines_skipped"), f"first in {places.of_problem(first.line, first.file)}")
    return found


def _peaks_of(run: Run, places: Places) -> dict[str, str]:
    """Return where the peaks of a run were of which several files were read: a line without its file says nothing."""
    from replay.run.summary import peak_live

    steps, peak, blocks = {}, run.footprint.peak, run.malloc_blocks
    if peak is not None:
        steps["peak_mapped_bytes"] = run.replayed.changes.one("step", peak)
    if blocks.seen:
        steps["peak_live_bytes"] = peak_live(run.replayed, blocks, run.diagnosis)[1]
    return {name: f"in {places.of_step(step)}" for name, step in steps.items()}


def origins_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Return where in the log the peaks of a summary were, as far as its own columns tell."""
    return dict(_peaks(values))


def origins_in_tables(values: Mapping[str, Any], read: Callable[[str, Sequence[str]], pa.Table]) -> dict[str, str]:
    """Return where in the log the values of a summary come from, as the tables of its run tell.

    Args:
        values: the summary.
        read: gives columns of a table of the run by its name, texts as plain strings.
    """
    from replay.run.places import Place

    events = read("events", ("line", "file"))
    lines, files = events["line"], events["file"]
    several = files.null_count < len(files)

    def place(step: int) -> Place:
        return Place(lines[step].as_py(), files[step].as_py() or "")

    found = {name: f"in {place(step)}" for name, step in _peak_steps(values, read)} if several else origins_in(values)
    rows = [*read("brk_failures", ("step",)).to_pylist(), *read("allocator_mmaps", ("step", "kind")).to_pylist()]
    for what, columns in _FIRST_ROWS.items():
        steps = [row["step"] for row in rows if row.get("kind", "brk_failures") in what.split()]
        if steps:
            found |= dict.fromkeys(columns, f"first in {place(min(steps))}")
    return found


def _peak_steps(values: Mapping[str, Any], read: Callable[[str, Sequence[str]], pa.Table]) -> Iterator[tuple[str, int]]:
    """Yield the columns of peaks and the steps of these; nothing of one whose change the table leaves out."""
    import pyarrow.compute as pc

    changes = read("fragmentation", ("step", "space", "mapped_bytes", "live_bytes"))
    for name in ("mapped_bytes", "live_bytes"):
        peak, space = values.get(f"peak_{name}"), values.get("peak_mapped_space")
        at_peak = pc.field(name) == int(peak or 0)
        if name == "mapped_bytes" and space is not None:
            at_peak &= pc.field("space") == int(space)
        for step in changes.filter(at_peak)["step"].to_pylist()[:1] if peak is not None else ():
            yield f"peak_{name}", step


_FIRST_ROWS: Final = {
    "brk_failures": ("brk_failures", "brk_failure_causes", "brk_failure_shortfall_bytes"),
    "fallback last_resort": ("mmap_fallbacks", "mmap_fallback_bytes", "mmap_fallbacks_refused"),
    "direct": ("direct_mmaps", "direct_mmap_bytes"),
    "arena_heap": ("arena_heaps",),
}
"""Columns of the summary that count rows: of `brk_failures`, or of the kinds of `allocator_mmaps`."""


def _first_step(run: Run, what: str) -> int | None:
    """Return the step of the first failed brk, or of the first mapping of these kinds."""
    if what == "brk_failures":
        steps = run.activity.brk_failures["step"]
        return int(steps[0]) if len(steps) else None
    mmaps = run.activity.allocator_mmaps
    kinds = what.split()
    rows = zip(mmaps["step"].tolist(), mmaps["kind"].tolist(), strict=True)
    return min((step for step, kind in rows if run.strings[kind] in kinds), default=None)


def _peaks(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the columns of peaks that have a column of lines beside them, and that line."""
    for name in values:
        line = values.get(name.removesuffix("_bytes") + "_line") if name.endswith("_bytes") else None
        if isinstance(line, (int, np.integer)):
            yield name, f"in line {line}"
