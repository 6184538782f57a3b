"""One run: its logs replayed once, its tables on demand, its address spaces at any moment.

In go the paths of logs, out comes a `Run` with columns, DataFrames and the text of /proc/PID/maps. How a report looks
this module does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from replay.calls.reader import LogReader, read_logs
from replay.calls.windows import call_windows
from replay.engine.columns import Int64Array
from replay.engine.progress import Stage, Watch, unwatched
from replay.errors import QueryError, ReplayError
from replay.linux.proc_maps import Mapping, join_equal, maps_text, read_maps
from replay.logs.dialect import DIALECTS
from replay.logs.recordings import recorded_images
from replay.run import moment
from replay.run.analysis import Analysis
from replay.run.moment import Mapped
from replay.run.window import EVERYTHING, Moment, Window, check_line, last_step
from replay.spaces import replay
from replay.spaces.exec_image import images_of_files
from replay.spaces.initial_maps import first_image, first_known, images_at, no_images
from replay.spaces.replay import Replay

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_PAGE_LIMIT: Final = 1 << 30


def load(trace: str | Path | Iterable[str | Path], **how: Any) -> Run:
    """Return the run that one log, or the logs of one run, recorded; `how` is what `read_and_replay` takes."""
    return Run(*read_and_replay(trace, **how))


def read_and_replay(
    trace: str | Path | Iterable[str | Path],
    *,
    format: str = "auto",
    maps: str | Path | None = None,
    elf_root: str | Path | None = "/",
    page_size: int | None = None,
    strict: bool = False,
    watch: Watch = unwatched,
) -> tuple[LogReader, Replay]:
    """Return what was read of a run's logs and what became of it; arguments and errors are those of `replay.load`."""
    if page_size is not None and not (0 < page_size <= _PAGE_LIMIT and page_size & (page_size - 1) == 0):
        raise ReplayError(f"page size {page_size}: expected a power of two such as 4096")
    if format not in ("auto", *DIALECTS):
        raise ReplayError(f"format {format!r}: expected auto, strace or ltrace")
    paths: list[str | Path] = [trace] if isinstance(trace, (str, Path)) else list(trace)
    exact = first_image(read_maps(Path(maps))) if maps is not None else no_images
    source = read_logs(paths, dialect=format, strict=strict, watch=watch)
    windows = call_windows(source)
    page = page_size or windows.page_size
    inferred = no_images if elf_root is None else images_of_files(source.strings, page, str(elf_root))
    recorded = images_at(recorded_images(source.files))
    images = first_known(exact, first_known(recorded, inferred))
    return source, replay.replay_windows(windows, source.strings, page, images, watch)


class Run(Analysis):
    """A replayed run; its tables are DataFrames: `events`, `regions`, `brk_failures`, `allocator_mmaps` and so on."""

    if not TYPE_CHECKING:  # the tables are declared where users find them: a name that is none shows

        def __getattr__(self, name: str) -> pd.DataFrame:
            """Return the table of that name as a DataFrame, made once."""
            from replay.tables import TABLES, to_pandas

            if name.startswith("_") or name not in TABLES:
                raise AttributeError(f"a Run has no {name!r}; its tables are {', '.join(TABLES)}")
            frame = to_pandas(self.arrow(name))
            self.__dict__[name] = frame
            return frame

    def arrow(self, table: str) -> pa.Table:
        """Return a table as an Arrow table; raise QueryError if there is none of that name."""
        from replay.tables import to_arrow

        return to_arrow(table, self.columns(table), self.strings)

    def columns(self, table: str) -> dict[str, Any]:
        """Return the columns of a table as `tables.to_arrow` takes them; raise QueryError if there is none of it."""
        from replay.run.table_columns import columns_of

        return columns_of(self, table)

    def arrow_parts(self, table: str, every: int = 1) -> Iterator[pa.Table]:
        """Yield a table in parts that are short enough for memory, rows in the order of its schema.

        Of `fragmentation` only one change in `every` of each space is there, and its last one.

        Raises:
            QueryError: there is no such table.
        """
        from replay.run.table_columns import parts_of
        from replay.tables import to_arrow

        for columns in parts_of(self, table, every):
            yield to_arrow(table, columns, self.strings)

    def export(
        self,
        directory: str | Path,
        *,
        format: str = "parquet",
        force: bool = False,
        every: int = 1,
        watch: Watch = unwatched,
        window: Window = EVERYTHING,
    ) -> None:
        """Write all tables into `directory`, one file each, whole or not at all; `watch` is told how far that is.

        Rows of what happened before, after or elsewhere than `window` shows are left out; the summary is of the run.
        Of `fragmentation` only one change in `every` of each space is written, and its last one.

        Raises:
            OutputExistsError: a file is there already and `force` is not set.
            ReplayError: the directory cannot be written.
        """
        from replay.tables import export_tables

        export_tables(self.all_parts(every, watch, window), Path(directory), format, force=force)

    def all_parts(
        self, every: int = 1, watch: Watch = unwatched, window: Window = EVERYTHING
    ) -> dict[str, Iterator[pa.Table]]:
        """Return the parts of each table, not made before they are asked for; the arguments are those of `export`."""
        from replay.tables import TABLES

        def parts(name: str, number: int) -> Iterator[pa.Table]:
            for part in self._shown_parts(name, window, every):
                watch(Stage(f"writing {name}", number, len(TABLES)))
                yield part

        return {name: parts(name, number) for number, name in enumerate(TABLES)}

    def write_csv(self, table: str, path: str | Path, *, force: bool = False, window: Window = EVERYTHING) -> None:
        """Write a table as one CSV file, `-` for standard output; `window` as in `export`.

        Raises:
            QueryError: there is no such table.
            OutputExistsError: the file is there already and `force` is not set.
        """
        from replay.tables import CsvStream, arrow_schema

        with CsvStream(arrow_schema(table), path, force=force) as stream:
            for part in self._shown_parts(table, window):
                stream.write(part)

    def _shown_parts(self, table: str, window: Window, every: int = 1) -> Iterator[pa.Table]:
        """Yield the parts of a table with the rows that a window shows."""
        if window.is_all:
            yield from self.arrow_parts(table, every)
            return
        from replay.run.part import rows_shown, shown_by

        shown = shown_by(self, window)
        for part in self.arrow_parts(table, every):
            yield rows_shown(part, shown, window.pid)

    # --- the address space at a moment ---

    def maps(
        self, step: int | None = None, line: int | None = None, time: int | None = None, pid: int | None = None
    ) -> str:
        """Return an address space in the format of /proc/PID/maps, equal neighbours joined.

        At most one of `step`, `line` (once that line had been printed) and `time` (in ns, as in `events.time_ns`) says
        when; without, it is the end of the trace, before the exits. `pid` says whose; without, the space of that step,
        or of the first process.

        Raises:
            QueryError: the step, line or process is not in the run.
        """
        return maps_text(self.mapped_at(step, line, time, pid))

    def mapped_at(
        self, step: int | None = None, line: int | None = None, time: int | None = None, pid: int | None = None
    ) -> list[Mapping]:
        """Return the lines that `maps` prints, as values, in order of addresses."""
        clock = self._clock_of(step, line, time)
        space = self.space_at(clock, step, pid)
        if not len(self.replayed.spaces["died_line"]):  # no line of the log tells of a space
            return []
        until = moment.last_clock(self.replayed, space) if clock is None else clock
        return list(join_equal(self.mappings(space, until)))

    def mappings(self, space: int, clock: int) -> list[Mapping]:
        """Return the mappings of a space once line `clock` had been printed, in order of addresses, not joined."""
        return moment.mappings(self.replayed, self.strings, space, clock)

    def mapped(self, space: int, clock: int) -> Mapped:
        """Return what `mappings` does, as columns, each mapping with its rows of `regions`."""
        return moment.mapped(self.replayed, self.strings, space, clock)

    def alive(self, space: int, clock: int) -> Int64Array:
        """Return the rows of `regions` that are alive in a space once line `clock` had been printed."""
        return moment.alive(self.replayed, space, clock)

    def space_at(self, clock: int | None, step: int | None = None, pid: int | None = None) -> int:
        """Return the space of `pid` then, of the step, or of who made the last step by line `clock`."""
        return moment.space_at(self.replayed, clock, step, pid)

    def _clock_of(self, step: int | None, line: int | None, time: int | None) -> int | None:
        """Return the line of the moment asked for, None for the end of the trace."""
        if sum(value is not None for value in (step, line, time)) > 1:
            raise QueryError("say when by one of step, line and time")
        if line is not None:
            check_line(self, line)
            return line
        if step is None and time is None:
            return None
        return self.replayed.events.one("clock", last_step(self, Moment(time=time, step=step)))
