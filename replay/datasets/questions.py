"""Questions to a dataset in SQL, ten of them by name, answered by DuckDB.

In go a dataset, or an exported run, and a question, out come the names of columns and rows of plain values. How an
answer is printed this module does not know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from replay.datasets.dataset import VERSION, Dataset, first_line, is_dataset
from replay.errors import MissingExtraError, QueryError, ReplayError
from replay.logs.files import RUNS_FILE
from replay.tables.schema import TABLES

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ROWS_AT_ONCE: Final = 2048
_SHUT: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}
"""What DuckDB may not do: read or write files, load extensions, ask the network, look at variables of Python."""

PROGRAM_SQL: Final = "regexp_replace(split_part(programs, ',', 1), '^.*/', '')"
"""The name of a run's first program, without its directory."""

_VERSION_SQL: Final = (
    "coalesce(list_extract(map_extract(labels, 'version'), 1), "
    f"nullif(regexp_extract(run, '{VERSION.pattern}', 1), ''), "
    f"nullif(regexp_extract(source, '{VERSION.pattern}', 1), ''), list_extract(map_extract(labels, 'commit'), 1))"
)
"""The version of a run: its label, else what its name or the path of its log tells, else its label `commit`."""

_VERSION_ORDER_SQL: Final = (
    "list_transform(regexp_extract_all(of_version, '[0-9]+'), lambda digits: CAST(digits AS HUGEINT))"
)
"""What versions are sorted by: v1.10 comes after v1.9."""

_ORDER_SQL: Final = (
    f"CASE WHEN regexp_matches(' ' || of_version, '{VERSION.pattern}') THEN {_VERSION_ORDER_SQL} END, first_seen, "
    "of_version"
)
"""The same for other words too: they come in the order in which they were first seen."""


class Question(NamedTuple):
    """A question by name: what it asks, the SQL that answers it, and what no rows mean."""

    name: str
    meaning: str
    sql: str
    nothing: str


QUESTIONS: Final = (
    Question(
        "failed-breaks",
        "Which runs had failed breaks, and why?",
        """SELECT run, cause, count(*) AS failures, sum(shortfall_capped_bytes) AS short_bytes, min(line) AS first_line,
                  arg_min(evidence, step) AS evidence
           FROM brk_failures GROUP BY run, cause ORDER BY failures DESC, run, cause""",
        "no brk failed in any run",
    ),
    Question(
        "blockers",
        "What stands in the way of the breaks?",
        """SELECT blocker || coalesce(' of ' || limit_bytes || ' bytes', '') AS in_the_way,
                  count(DISTINCT run) AS runs, count(*) AS failures, sum(shortfall_capped_bytes) AS short_bytes,
                  min(run) AS first_run, arg_min(line, (run, step)) AS first_line
           FROM brk_failures GROUP BY in_the_way ORDER BY runs DESC, failures DESC, in_the_way""",
        "no brk failed in any run",
    ),
    Question(
        "fallbacks",
        "Which programs fell back to mmap, how often, for how much?",
        f"""SELECT {PROGRAM_SQL} AS program, count(*) AS runs, sum(mmap_fallbacks) AS fallbacks,
                   sum(mmap_fallbacks_refused) AS refused, sum(mmap_fallback_bytes) AS bytes,
                   arg_max(run, mmap_fallbacks) AS worst_run
            FROM runs WHERE mmap_fallbacks > 0 GROUP BY 1 ORDER BY fallbacks DESC, 1""",
        "no run fell back to mmap",
    ),
    Question(
        "footprint",
        "Which ten runs mapped the most memory at once?",
        f"""SELECT run, {PROGRAM_SQL} AS program, peak_mapped_bytes, peak_mapped_line, peak_brk_bytes,
                   peak_live_bytes
            FROM runs WHERE status = 'ok' ORDER BY peak_mapped_bytes DESC, run LIMIT 10""",
        "the dataset has no runs",
    ),
    Question(
        "fragmentation",
        "Which ten runs have the most fragmented memory?",
        f"""SELECT run, {PROGRAM_SQL} AS program, heap_fragmentation, pinned_bytes,
                   address_fragmentation
            FROM runs WHERE status = 'ok'
            ORDER BY heap_fragmentation DESC NULLS LAST, address_fragmentation DESC NULLS LAST, run LIMIT 10""",
        "the dataset has no runs",
    ),
    Question(
        "leaks",
        "Which call sites leave the most bytes live at the end, by size class?",
        """SELECT caller, call, CASE WHEN size > 0 THEN 1::UBIGINT << floor(log2(size))::INT ELSE 0 END AS size_class,
                  count(*) AS blocks, sum(size) AS bytes, count(DISTINCT run) AS runs, min(run) AS first_run,
                  arg_min(born_line, (run, born_step)) AS first_line
           FROM blocks WHERE "end" = 'live' GROUP BY caller, call, size_class
           ORDER BY bytes DESC, blocks DESC, caller, call LIMIT 20""",
        "no block is live at the end of a run, as far as the logs show malloc calls",
    ),
    Question(
        "direct-mmaps",
        "Which single requests were mapped on their own, the largest first?",
        """SELECT run, line, bytes, request_bytes, allocator, certainty, errno AS refused
           FROM allocator_mmaps WHERE kind = 'direct' ORDER BY bytes DESC, run, line LIMIT 20""",
        "no allocator mapped a request on its own",
    ),
    Question(
        "growth",
        "How did memory grow between versions of a program? Medians; per_cent is since the version before.",
        f"""WITH versions AS (
                SELECT {PROGRAM_SQL} AS program, {_VERSION_SQL} AS of_version, count(*) AS runs,
                       CAST(median(peak_mapped_bytes) AS BIGINT) AS peak_mapped_bytes,
                       CAST(median(peak_live_bytes) AS BIGINT) AS peak_live_bytes,
                       sum(brk_failures) FILTER (brk_calls > 0) AS brk_failures,
                       min(coalesce(start_time, log_mtime, added_at)) AS first_seen
                FROM runs WHERE status = 'ok' GROUP BY 1, 2)
            SELECT program, of_version AS version, runs, peak_mapped_bytes,
                   round(100 * (peak_mapped_bytes / lag(peak_mapped_bytes) OVER by_version - 1), 1) AS per_cent,
                   peak_live_bytes, brk_failures
            FROM versions WHERE of_version IS NOT NULL
            WINDOW by_version AS (PARTITION BY program ORDER BY {_ORDER_SQL})
            ORDER BY program, {_ORDER_SQL}""",
        "no run has a label version or commit, or a version such as v1.2 in its name or in the path of its log",
    ),
    Question(
        "problems",
        "What in the logs was not understood, or contradicts the replay?",
        """SELECT reason, count(*) AS problems, count(DISTINCT run) AS runs, min(run) AS first_run,
                  arg_min(line, (run, line)) AS first_line, arg_min(text, (run, line)) AS text
           FROM problems GROUP BY reason ORDER BY problems DESC, reason""",
        "every line was understood",
    ),
    Question(
        "errors",
        "Which logs could not be read at all, and why?",
        "SELECT run, source, error FROM runs WHERE status <> 'ok' ORDER BY run",
        "every log could be read",
    ),
)

BY_NAME: Final = {question.name: question for question in QUESTIONS}


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The names of the columns, and the rows as tuples of plain values, which are read as they are taken."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


def ask(location: str, sql: str) -> QueryResult:
    """Return the answer to a question in SQL over the tables of a dataset or of an exported run.

    The SQL sees these tables and nothing else: no file, no network, no variable of Python; it can write nowhere.

    Raises:
        ReplayError: DuckDB is not installed, or there is no dataset.
        QueryError: the question is not one that DuckDB can answer.
        KeyboardInterrupt: the user interrupted.
    """
    import duckdb

    connection = duckdb.connect(config=_SHUT)
    try:
        _register(connection, location, sql)
        connection.execute("SET lock_configuration = true")
        result = _executed(connection, sql)
    except duckdb.Error as error:
        raise _refusal(error) from error
    return QueryResult(tuple(column[0] for column in result.description or ()), _rows(connection))


def _executed(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """Return the connection once it has executed `sql`.

    It does so in a thread: between looks at Python's signals it may work for hours, and this thread hears them.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(connection.execute, sql).result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def check_duckdb() -> None:
    """Refuse to go on without DuckDB.

    Raises:
        ReplayError: it is not installed; the message says how to install it.
    """
    try:
        import duckdb  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("replay query", "DuckDB", "sql") from error


def _rows(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    import duckdb

    if connection.description is None:
        return
    try:
        while rows := connection.fetchmany(_ROWS_AT_ONCE):
            yield from rows
    except duckdb.Error as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> BaseException:
    import duckdb

    if isinstance(error, duckdb.InterruptException):
        return KeyboardInterrupt()
    tables = ", ".join(("runs", *TABLES))
    said = str(error).partition("Traceback")[0].strip()
    return QueryError(f"DuckDB cannot answer that: {said}\nThe tables are {tables}.")


# --- the tables ------------------------------------------------------------------------------------------------------


def _register(connection: duckdb.DuckDBPyConnection, location: str, sql: str) -> None:
    """Give the connection the tables that the SQL speaks of; all of them where it names none."""
    words = set(re.findall(r"\w+", sql.lower()))
    names = [name for name in ("runs", *TABLES) if name in words] or ["runs", *TABLES]
    if is_dataset(location):
        dataset = Dataset(location)
        for name in names:
            connection.register(name, _with_labels(dataset.runs) if name == "runs" else dataset.scan(name))
        return
    if not os.path.isfile(os.path.join(location, "summary.parquet")):
        raise ReplayError(
            f"{location}: neither a dataset ({RUNS_FILE}) nor an exported run (summary.parquet); "
            "`replay batch` makes one"
        )
    for name in names:
        connection.register(name, _exported(location, name))


def _with_labels(runs: pa.Table) -> pa.Table:
    """Return the table `runs` with the columns that a dataset of another version does not have."""
    import pyarrow as pa

    time = pa.timestamp("us", "UTC")
    for name, type_ in (("start_time", time), ("log_mtime", time), ("added_at", time)):
        if name not in runs.column_names:
            runs = runs.append_column(name, pa.nulls(runs.num_rows, type_))
    if "labels" not in runs.column_names:
        runs = runs.append_column("labels", pa.array([[]] * runs.num_rows, pa.map_(pa.string(), pa.string())))
    return runs


def _exported(location: str, name: str) -> pa.Table:
    """Return a table of an exported run as a dataset would have it; `run` is the name of the directory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = os.path.join(location, f"{'summary' if name == 'runs' else name}.parquet")
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ReplayError(f"{path}: cannot be read: {first_line(error)}") from error
    run = os.path.basename(os.path.abspath(location))
    facts = {"run": run, "status": "ok", "error": None} if name == "runs" else {"run": run}
    for at, (column, value) in enumerate(facts.items()):
        table = table.add_column(at, pa.field(column, pa.string()), pa.array([value] * table.num_rows, pa.string()))
    return _with_labels(table) if name == "runs" else table
