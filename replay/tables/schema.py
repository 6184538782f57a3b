"""The data dictionary: every table and column that users rely on, as plain values.

Nothing goes in, the facts come out; how they become Arrow types or text on a screen is told elsewhere.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from replay.errors import QueryError

SCHEMA_VERSION: Final = "3"
"""Changes with every release in which a table has other columns: parts of a dataset that differ are told by it."""

MOST_SUMMED: Final = 1 << 53
"""The most that a column which people add up says of one request: what a log may print up to 2^64 would make sums
overflow, and a float is exact up to here."""


class Column(NamedTuple):
    """One column: its type, nullability, unit and meaning.

    Types are `int32 int64 uint64 float64 string dictionary timestamp_ns timestamp_us`: `dictionary` is a string that
    repeats, stored once; timestamps are of UTC.
    """

    name: str
    type: str
    nullable: bool
    unit: str
    meaning: str


class Table(NamedTuple):
    """One table: what a row is, its columns, and the columns that its rows are sorted by."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    order: tuple[str, ...] = ()


def _column(name: str, type_: str, unit: str, meaning: str) -> Column:
    """Return the column of a type that ends in `?` where it is nullable."""
    return Column(name, type_.removesuffix("?"), type_.endswith("?"), unit, meaning)


_STEP: Final = _column("step", "int64", "step", "Number of the call in the order of completion, from 0.")
_SPACE: Final = _column("space", "int32", "id", "Address space, numbered from 0 in order of appearance.")
_PID: Final = _column("pid", "int32?", "id", "Process or thread id as printed; null where the log prints none.")
_LINE: Final = _column("line", "int64", "line", "Line of the log where the call completed, from 1.")
_TIME: Final = _column(
    "time_ns",
    "int64?",
    "ns",
    "Time at entry: since the epoch for -ttt, since midnight for -t and -tt, since the start for -r; null "
    "without such an option.",
)

_WHEN: Final = (
    _column("time", "timestamp_ns?", "time", "`time_ns` as a time of UTC; null unless the clock is the epoch."),
    _column(
        "elapsed_ns",
        "int64?",
        "ns",
        "Time since the run's first, whatever the clock, over midnight too; null without times.",
    ),
)
"""The columns of charts over time."""

_LIFE: Final = (
    _column("born_time_ns", "int64?", "ns", "`time_ns` of `born_step`; null before the trace."),
    _column("died_time_ns", "int64?", "ns", "`time_ns` of `died_step`; null while alive."),
)
"""The columns of times of what lives between two steps."""

_EVENTS: Final = Table(
    "events",
    "One row a step: each call of the log that concerns memory or processes.",
    (
        _STEP,
        _LINE,
        _column(
            "entry_line",
            "int64",
            "line",
            "Line where the call started: its <unfinished ...> line where it is split, else `line`.",
        ),
        _column("file", "dictionary?", "path", "The log it stands in, where several were read as one run."),
        _column("dialect", "dictionary", "word", "The tracer that wrote the line: strace or ltrace."),
        _PID,
        _SPACE,
        _TIME,
        _column("duration_ns", "int64?", "ns", "Time spent in the call, as printed by -T."),
        _column(
            "call",
            "dictionary",
            "word",
            "The call under its normalised name: brk, mmap, munmap, mremap, mprotect, madvise, shmat, "
            "shmdt, prctl, prlimit, execve, clone, exit, malloc, calloc, realloc, free, memalign and so "
            "on.",
        ),
        _column(
            "name",
            "dictionary",
            "word",
            "The call's name as printed, such as mmap2, SYS_brk, vfork or _Znwm.",
        ),
        _column("addr", "uint64?", "address", "First address argument; NULL is 0."),
        _column(
            "length",
            "uint64?",
            "bytes",
            "Length argument as printed, not rounded to pages; the new size of mremap; count times size of "
            "calloc and reallocarray.",
        ),
        _column("old_length", "uint64?", "bytes", "Old size of mremap."),
        _column("prot", "dictionary?", "symbols", "Protection as strace prints it, such as PROT_READ|PROT_WRITE."),
        _column("flags", "dictionary?", "symbols", "Flags as strace prints them; numbers are decoded."),
        _column("fd", "int32?", "id", "File descriptor argument; -1 for none."),
        _column("path", "dictionary?", "path", "File that the call names, or that its descriptor stands for."),
        _column("offset", "int64?", "bytes", "Offset in the mapped file."),
        _column(
            "result",
            "uint64?",
            "address",
            "What the call returned: an address or break of the memory calls, else the bits of the number; "
            "null where it failed or never completed.",
        ),
        _column("errno", "dictionary?", "word", "Error of a call that failed, such as ENOMEM."),
        _column(
            "status",
            "dictionary",
            "word",
            "ok, failed, or unfinished: no result is in the log. A refused brk is failed though it has no errno.",
        ),
        _column("parent_step", "int64?", "step", "The libc call inside which this system call ran."),
        _column(
            "caller",
            "dictionary?",
            "name",
            "Who called: the module of ltrace, or the first libc frame of strace -k.",
        ),
        *_WHEN,
    ),
    ("step",),
)

_REGIONS: Final = Table(
    "regions",
    "One row a rectangle, addresses × time: a range of one space with one backing and one protection.",
    (
        _SPACE,
        _column("start", "uint64", "address", "First address of [start, end), page-aligned."),
        _column("end", "uint64", "address", "First address behind [start, end), page-aligned."),
        _column(
            "perms",
            "dictionary",
            "symbols",
            "Permissions as in /proc/PID/maps: rwx, then p private or s shared.",
        ),
        _column(
            "kind",
            "dictionary",
            "word",
            "What backs it: brk, anon, file, shm, stack, image, special or unknown.",
        ),
        _column(
            "path",
            "dictionary?",
            "path",
            "What /proc/PID/maps prints for it: file, [heap], [stack], /dev/zero (deleted), …; null for "
            "anonymous memory.",
        ),
        _column("offset", "int64?", "bytes", "Offset of `start` in the mapped file."),
        _column(
            "origin",
            "dictionary",
            "word",
            "How it is known: trace (a call), maps (the snapshot given) or inferred.",
        ),
        _column(
            "born_step",
            "int64",
            "step",
            "Step of the call that gave it; of what a split munmap left over, the first at or after `born_line`; "
            "-1: before the trace.",
        ),
        _column(
            "died_step",
            "int64?",
            "step",
            "First step at or after `died_line`; null while alive at the trace's end.",
        ),
        _column(
            "born_line",
            "int64?",
            "line",
            "First line of its life [born_line, died_line); null: before the trace.",
        ),
        _column(
            "died_line",
            "int64?",
            "line",
            "First line behind its life [born_line, died_line); null while alive.",
        ),
        _column(
            "owner",
            "dictionary",
            "name",
            "Whose it is, to group by: its path, [heap], allocator and kind of `allocator_mmaps`, anonymous, or "
            "recorder: what `replay record` mapped for itself.",
        ),
        _column("size_bytes", "int64", "bytes", "`end` minus `start`."),
        *_LIFE,
    ),
    ("born_step", "space", "start"),
)

_BLOCKS: Final = Table(
    "blocks",
    "One row a block that malloc or one of its kin handed out.",
    (
        _SPACE,
        _column("addr", "uint64", "address", "First address of [addr, addr + size)."),
        _column("size", "uint64", "bytes", "Size as requested."),
        _column("call", "dictionary", "word", "The call that gave it: malloc, calloc, realloc, memalign and so on."),
        _column("pid", "int32?", "id", "Thread that asked for it; null where the log prints none."),
        _column("caller", "dictionary?", "name", "Module that asked for it, as ltrace prints it."),
        _column("born_step", "int64", "step", "Step of the call that gave it."),
        _column("died_step", "int64?", "step", "First step at or after `died_line`; null while live."),
        _column("born_line", "int64", "line", "First line of its life [born_line, died_line)."),
        _column(
            "died_line",
            "int64?",
            "line",
            "First line behind its life [born_line, died_line); null while live.",
        ),
        _column(
            "backing",
            "dictionary",
            "word",
            "Memory that it lies in: brk (the brk area), mmap or unknown (not traced).",
        ),
        _column("end", "dictionary", "word", "How it ended: live (it did not), freed, or moved by realloc."),
        *_LIFE,
    ),
    ("born_step", "space", "addr"),
)

_BRK_FAILURES: Final = Table(
    "brk_failures",
    "One row a refused growth of the program break: the kernel returned another break than the one asked for.",
    (
        _STEP,
        _LINE,
        _PID,
        _SPACE,
        _TIME,
        _column("requested", "uint64", "address", "The break asked for."),
        _column("granted", "uint64", "address", "The break that the kernel returned: the old one."),
        _column("shortfall_bytes", "int64", "bytes", "`requested` minus `granted`."),
        _column(
            "cause",
            "dictionary",
            "word",
            "Why it was refused: mapping_above (the guard pages below a stack-like mapping included), "
            "rlimit_data, rlimit_as, map_count, overcommit, injected, denied (answered with an errno, which Linux "
            "itself never does) or unknown.",
        ),
        _column("blocker_start", "uint64?", "address", "First address of the mapping in the way, [start, end)."),
        _column("blocker_end", "uint64?", "address", "First address behind the mapping in the way."),
        _column("blocker_path", "dictionary?", "path", "What /proc/PID/maps prints for the mapping in the way."),
        _column("blocker_line", "int64?", "line", "Line that made the mapping in the way; null: before the trace."),
        _column("limit_bytes", "int64?", "bytes", "The limit that was in force, where a limit is the cause."),
        _column("evidence", "string", "text", "One sentence: what in the log speaks for the cause."),
        *_WHEN,
        _column(
            "blocker",
            "dictionary",
            "name",
            "What was in the way, to group by: the owner of the mapping, as in `regions`; without one, the cause.",
        ),
        _column(
            "blocker_born_step",
            "int64?",
            "step",
            "`born_step` of the region in the way: with `space` and `blocker_start` its row of `regions`.",
        ),
        _column("shortfall_capped_bytes", "int64", "bytes", "`shortfall_bytes`, at most 2^53: safe to add up."),
    ),
    ("step",),
)

_ALLOCATOR_MMAP_COLUMNS: Final = (
    _STEP,
    _LINE,
    _PID,
    _SPACE,
    _TIME,
    _column(
        "kind",
        "dictionary",
        "word",
        "fallback: it stood in for a failed brk. last_resort: one small block mapped alone after brk and "
        "arenas were refused. direct: one large request. arena_heap: a heap of a non-main arena. pool: "
        "memory of an allocator that does not live on brk.",
    ),
    _column("addr", "uint64?", "address", "Where the mapping was put; null where it was refused."),
    _column("bytes", "int64", "bytes", "Length asked for; 2^53 stands for more, so that sums are safe."),
    _column("errno", "dictionary?", "word", "Error with which the kernel refused it; null where it did not."),
    _column(
        "brk_failure_step",
        "int64?",
        "step",
        "The failed brk that it stood in for; of an allocator that never asks the break again, the first one.",
    ),
    _column(
        "request_bytes",
        "int64?",
        "bytes",
        "Size of the malloc that caused it, where the log shows that call; 2^53 stands for more.",
    ),
    _column(
        "allocator",
        "dictionary",
        "word",
        "Whose mapping it is: glibc, musl, bionic, jemalloc, tcmalloc, mimalloc, cpython, go, hotspot, v8 or unknown.",
    ),
    _column(
        "certainty",
        "dictionary",
        "word",
        "observed: the log shows the libc call around it. inferred: told by size, flags and neighbouring calls.",
    ),
    _column("evidence", "string", "text", "One sentence: what in the log speaks for this kind."),
    *_WHEN,
)

_ALLOCATOR_MMAPS: Final = Table(
    "allocator_mmaps",
    "One row each mapping that the libc's allocator made, or tried to make, for itself.",
    _ALLOCATOR_MMAP_COLUMNS,
    ("step",),
)

FALLBACK_KINDS: Final = ("fallback", "last_resort")
"""The kinds of `allocator_mmaps` that make the table `mmap_fallbacks`."""

_MMAP_FALLBACKS: Final = Table(
    "mmap_fallbacks",
    "The rows of allocator_mmaps whose kind is fallback or last_resort: where malloc went when brk failed.",
    _ALLOCATOR_MMAP_COLUMNS,
    ("step",),
)

_FRAGMENTATION: Final = Table(
    "fragmentation",
    "One row a change of a space: how its memory was cut up from then on. Columns about blocks are null "
    "where the log has no malloc calls.",
    (
        _column("step", "int64", "step", "The step that changed the space, from 0."),
        _column("line", "int64", "line", "Line of the log from which this state holds, from 1."),
        _TIME,
        _SPACE,
        _column("mapped_bytes", "int64", "bytes", "Sum of all regions; mapped, which is not the same as resident."),
        _column("mapping_count", "int64", "count", "Mappings, equal neighbours joined."),
        _column("brk_bytes", "int64", "bytes", "Size of the brk area [start_brk, brk)."),
        _column("headroom_bytes", "int64?", "bytes", "From the break to the next region above; null if unknown."),
        _column("gap_count", "int64", "count", "Free ranges between neighbouring regions."),
        _column("gap_bytes", "int64", "bytes", "Sum of the gaps."),
        _column("largest_gap_bytes", "int64", "bytes", "The largest gap."),
        _column(
            "address_fragmentation",
            "float64",
            "ratio",
            "1 - largest_gap_bytes / gap_bytes, in [0, 1); 0 without gaps.",
        ),
        _column("live_blocks", "int64?", "count", "Blocks handed out and not given back."),
        _column("live_bytes", "int64?", "bytes", "Sum of the live blocks, as requested."),
        _column("heap_bytes", "int64?", "bytes", "Memory that the blocks are cut from."),
        _column(
            "free_bytes",
            "int64?",
            "bytes",
            "Part of `heap_bytes` that was handed out and given back, or lies above all blocks so far.",
        ),
        _column("largest_free_bytes", "int64?", "bytes", "The largest free range of the heap."),
        _column("heap_fragmentation", "float64?", "ratio", "1 - largest_free_bytes / free_bytes, in [0, 1)."),
        _column(
            "pinned_bytes",
            "int64?",
            "bytes",
            "Free bytes below the highest live block of the brk area: free, yet no smaller break can return them.",
        ),
        _column(
            "unseen_bytes",
            "int64?",
            "bytes",
            "Part of `heap_bytes` between seen blocks that no seen call ever handed out: neither free nor pinned.",
        ),
        *_WHEN,
    ),
    ("step", "space"),
)

TIMELINE_ROWS: Final = 1000
"""Rows of `timeline` for one space at most."""

CHARTED: Final = (
    _column("mapped_bytes", "int64", "bytes", "Sum of all regions."),
    _column("brk_bytes", "int64", "bytes", "Size of the brk area."),
    _column("live_bytes", "int64?", "bytes", "Sum of the live blocks, as requested."),
    _column("pinned_bytes", "int64?", "bytes", "Free bytes below the highest live block of the brk area."),
    _column("unseen_bytes", "int64?", "bytes", "Heap of which the log never saw what was handed out."),
    _column("largest_gap_bytes", "int64", "bytes", "The largest gap."),
    _column("heap_fragmentation", "float64?", "ratio", "1 - largest free range / free bytes of the heap."),
)
"""The columns of `fragmentation` that `timeline` has, twice each: as the last value of a bucket and as its highest."""

_TIMELINE: Final = Table(
    "timeline",
    f"For charts: at most {TIMELINE_ROWS:,} rows a space, each a bucket of as many changes (rows of fragmentation) as "
    "the others; a space of fewer changes has a row for each.",
    (
        _SPACE,
        _column("bucket", "int32", "count", "Number of the bucket in its space, from 0."),
        _column("step", "int64", "step", "Step of the last change in the bucket."),
        _column("line", "int64", "line", "Line of the log from which the last state holds, from 1."),
        *_WHEN[::-1],
        *CHARTED,
        *(
            column._replace(name=f"{column.name}_max", meaning=f"The highest value in the bucket of: {column.meaning}")
            for column in CHARTED
        ),
    ),
    ("space", "bucket"),
)

_PROBLEMS: Final = Table(
    "problems",
    "One row each line that was not understood, and each contradiction between the trace and the replayed "
    "state (a divergence: the kernel's answer was taken).",
    (
        _column("line", "int64", "line", "Line of the log, from 1."),
        _column("reason", "dictionary", "word", "What is wrong with it, in a small fixed vocabulary."),
        _column("text", "string", "text", "The line itself, cut at 200 characters."),
    ),
    ("line",),
)

_SUMMARY: Final = Table(
    "summary",
    "One row: the numbers of the report as columns, for dashboards. Columns about blocks are null where "
    "the log has no malloc calls, those about mapped memory where no call changes it.",
    (
        _column("source", "string", "path", "The log as it was named; several are separated by commas."),
        _column("dialect", "dictionary", "word", "The tracer that wrote it: strace or ltrace."),
        _column(
            "programs",
            "string?",
            "path",
            "Programs that ran, separated by commas; null where the log tells none.",
        ),
        _column("allocator", "dictionary", "word", "The libc or allocator of the first program, or unknown."),
        _column("lines", "int64", "count", "Lines of the log."),
        _column(
            "lines_understood",
            "int64",
            "count",
            "Lines that were read: calls of interest, and what the tracer says between them.",
        ),
        _column("lines_skipped", "int64", "count", "Lines passed over, since they name no call of interest."),
        _column("problems", "int64", "count", "Lines not understood, contradictions, calls that fit no block."),
        _column("processes", "int64", "count", "Processes seen."),
        _column("threads", "int64", "count", "Threads seen, the first of each process included."),
        _column("spaces", "int64", "count", "Address spaces seen."),
        _column("duration_ns", "int64?", "ns", "From the first time of the log to the last; null without times."),
        _column("brk_calls", "int64", "count", "Calls of brk."),
        _column("brk_failures", "int64", "count", "Rows of the table brk_failures."),
        _column(
            "brk_failure_causes",
            "string",
            "word",
            "The causes met, most frequent first, separated by commas; empty where no brk failed.",
        ),
        _column(
            "brk_failure_shortfall_bytes", "int64", "bytes", "Sum of `shortfall_capped_bytes`, at most 2^53 itself."
        ),
        _column("mmap_fallbacks", "int64", "count", "Rows of the table mmap_fallbacks."),
        _column("mmap_fallback_bytes", "int64", "bytes", "Sum of the fallbacks that the kernel granted."),
        _column("mmap_fallbacks_refused", "int64", "count", "Fallbacks that the kernel refused too."),
        _column("direct_mmaps", "int64", "count", "Mappings of one large request each."),
        _column("direct_mmap_bytes", "int64", "bytes", "Sum of the direct mappings that the kernel granted."),
        _column("arena_heaps", "int64", "count", "Heaps of non-main arenas."),
        _column("peak_mapped_bytes", "int64?", "bytes", "The most that one space had mapped."),
        _column("peak_mapped_line", "int64?", "line", "Line where that was reached first."),
        _column("end_mapped_bytes", "int64?", "bytes", "Mapped at the end of the trace, before the exits."),
        _column("peak_brk_bytes", "int64?", "bytes", "The largest brk area."),
        _column("end_brk_bytes", "int64?", "bytes", "The brk area at the end of the trace, before the exits."),
        _column("peak_mapping_count", "int64?", "count", "The most mappings that one space had."),
        _column("min_headroom_bytes", "int64?", "bytes", "The least headroom; null where it was never known."),
        _column("min_largest_gap_bytes", "int64?", "bytes", "The smallest value of largest_gap_bytes."),
        _column(
            "address_fragmentation",
            "float64?",
            "ratio",
            "1 - largest gap / sum of gaps at the end, before the exits.",
        ),
        _column("allocations", "int64?", "count", "Blocks handed out."),
        _column("frees", "int64?", "count", "Blocks given back."),
        _column("live_blocks", "int64?", "count", "Blocks live at the end."),
        _column("live_bytes", "int64?", "bytes", "Their bytes, as requested."),
        _column("peak_live_bytes", "int64?", "bytes", "The most bytes live at once."),
        _column("peak_live_line", "int64?", "line", "Line where that was reached first."),
        _column(
            "heap_fragmentation",
            "float64?",
            "ratio",
            "1 - largest free range / free bytes of the heap, at the end.",
        ),
        _column(
            "pinned_bytes",
            "int64?",
            "bytes",
            "Free bytes below the highest live block of the brk area, at the end.",
        ),
        _column("double_frees", "int64?", "count", "Frees of a block that was freed before."),
        _column("unknown_frees", "int64?", "count", "Frees of an address that the log never saw handed out."),
        _column(
            "allocators",
            "string",
            "word",
            "Allocators of all programs, separated by commas, the first one first.",
        ),
        _column(
            "log_end",
            "dictionary",
            "word",
            "How the log of the first program ends: exit (its own), killed (by a signal) or cut (before either).",
        ),
        _column(
            "resident_at_most_bytes",
            "int64?",
            "bytes",
            "Mapped at the peak less what has no access: no more can have been resident then.",
        ),
        _column(
            "recorder_bytes",
            "int64?",
            "bytes",
            "Of peak_mapped_bytes, what `replay record` mapped for itself: its library and the window of its log.",
        ),
        _column(
            "peak_resident_bytes",
            "int64?",
            "bytes",
            "Most that was resident of one process, as the kernel counted it (VmHWM); null but for a recording.",
        ),
        _column("program", "string?", "path", "The first of `programs`."),
        _column("clock", "dictionary", "word", "What times count from: epoch, midnight, start; none without times."),
        _column("start_time", "timestamp_us?", "time", "First time of the log; null unless its clock is the epoch."),
        _column("end_time", "timestamp_us?", "time", "Last time of the log; null unless its clock is the epoch."),
        _column("peak_mapped_space", "int32?", "id", "The space that had the most mapped."),
    ),
)

TABLES: Final[dict[str, Table]] = {
    table.name: table
    for table in (
        _EVENTS,
        _REGIONS,
        _BLOCKS,
        _BRK_FAILURES,
        _ALLOCATOR_MMAPS,
        _MMAP_FALLBACKS,
        _FRAGMENTATION,
        _TIMELINE,
        _PROBLEMS,
        _SUMMARY,
    )
}
"""Every table by name, in the order in which users read them."""


def table_of(name: str) -> Table:
    """Return the facts of the table `name`.

    Raises:
        QueryError: there is no such table.
    """
    if name not in TABLES:
        raise QueryError(f"no table {name!r}; the tables are {', '.join(TABLES)}")
    return TABLES[name]
