"""Which allocator serves malloc in each address space, and how that is known.

In go the mapped files, the programs and the way the break moves; out comes one row for each allocator of each space
with the sentence that speaks for it. What the allocators do with mmap is for `mmaps`.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from replay.allocator.replayed import Replayed, first_of_each
from replay.calls.table import OK
from replay.engine.columns import NULL, Columns, Int64Array, Mask
from replay.engine.sorting import distinct
from replay.engine.structs import Struct, Value, field
from replay.linux.constants import CALL_CODE, MADV, MAP_FLAGS
from replay.linux.glibc import FIRST_GROWTH
from replay.mm.fields import ORIGIN_TRACE

UNKNOWN: Final = 0
GLIBC: Final = 1
MUSL: Final = 2
BIONIC: Final = 3
JEMALLOC: Final = 4
TCMALLOC: Final = 5
MIMALLOC: Final = 6
CPYTHON: Final = 7
GO: Final = 8
HOTSPOT: Final = 9
V8: Final = 10
ALLOCATORS: Final = "unknown glibc musl bionic jemalloc tcmalloc mimalloc cpython go hotspot v8".split()
"""The names of the codes above."""

RUNTIMES: Final = (CPYTHON, GO, HOTSPOT, V8)
"""Allocators that live beside the malloc of a libc."""

_MALLOC_FIRST: Final = (JEMALLOC, TCMALLOC, MIMALLOC, MUSL, GLIBC, BIONIC)
"""Who serves malloc where the order in which the files were mapped is not known: a malloc of its own before a libc."""

_FILES: Final = (
    (r"(?:^|/)libjemalloc[^/]*$", JEMALLOC),
    (r"(?:^|/)libtcmalloc[^/]*$", TCMALLOC),
    (r"(?:^|/)libmimalloc[^/]*$", MIMALLOC),
    (r"/system/lib(64)?/(bootstrap/)?libc\.so$|/bionic/libc\.so$", BIONIC),
    (r"(?:^|/)(ld-musl-[^/]*|libc\.musl-[^/]*|libc\.so)$", MUSL),
    (r"(?:^|/)(libc\.so\.6|libc-2\.\d+\.so)$", GLIBC),
    (r"(?:^|/)libjvm\.so", HOTSPOT),
    (r"(?:^|/)(libpython[23][^/]*|python[23]?(\.\d+)*)$", CPYTHON),
    (r"(?:^|/)(libnode\.so[^/]*|libv8\.so[^/]*|node(js)?)$", V8),
)
"""The allocator that a file with such a path brings."""

_LOADER: Final = r"(?:^|/)(ld-linux|ld-2\.)[^/]*$"
"""glibc's ld.so, whose malloc serves only itself: it tells of a glibc that is not in the log yet."""

_MUSL_BY_CALL: Final = r"(?:^|/)(ld-musl-|libc\.musl-)[^/]*$"
"""musl's libc under a name of its own. As libc.so it is the program's interpreter, which no call maps."""

_LIBRARY: Final = r"\.so(\.[\w.]*)?$"
_ANDROID: Final = r"^/(system|vendor|apex|system_ext|product)/(.+/)?bin/"
"""Programs of Android, whose libc is bionic."""

_OVERCOMMIT: Final = "/proc/sys/vm/overcommit_memory"
"""What jemalloc reads when it starts. Source: os_overcommits_proc in src/pages.c.

glibc reads it too, but only before it shrinks the heap of an arena (check_may_shrink_heap in malloc-sysdep.h).
"""

_MADV_FREE: Final = MADV["MADV_FREE"]

_GO_ARENA: Final = 0xC000000000
"""Where Go puts its first heap arena on 64-bit. Source: arenaHint in src/runtime/malloc.go."""

_MUSL_NG_FIRST_GROWTH: Final = 2
"""Pages of mallocng's first brk. Source: alloc_meta in src/malloc/mallocng/malloc.c (musl 1.2.1)."""

_FORKED: Final = 2
"""The value of `spaces.origin` of a space that fork made."""

_OLDMALLOC_LARGEST_GROWTH: Final = 0x39000
"""Bytes of the largest growth that musl asks of brk for one block. Source: MMAP_THRESHOLD in src/malloc/oldmalloc."""


class Allocators(Struct):
    """For each space: who serves malloc, which runtimes live beside it, what the libc's version and word size are."""

    malloc: Int64Array
    runtimes: Int64Array
    """Bit `1 << code` for each of `RUNTIMES`."""
    mallocng: Mask
    """musl keeps only metadata in the brk area."""
    narrow: Mask
    """The program is a 32-bit one."""
    rows: list[tuple[int, int, str]] = field(default_factory=list)
    """Space, code and evidence: the one that serves malloc first."""

    def has(self, runtime: int, spaces: Int64Array) -> Mask:
        """Return for each of `spaces` whether `runtime` lives in it."""
        return (self.runtimes[spaces] >> runtime & 1).astype(np.bool_)

    def columns(self, record: Replayed) -> Columns:
        """Return the rows as columns `space`, `name` and `evidence`, the latter two as ids of texts."""
        return {
            "space": np.array([space for space, _, _ in self.rows], dtype=np.int64),
            "name": record.intern(ALLOCATORS[code] for _, code, _ in self.rows),
            "evidence": record.intern(evidence for _, _, evidence in self.rows),
        }


class _Traces(Value):
    """What each kind of evidence says: by space, the first sentence for each allocator."""

    files: dict[int, dict[int, str]]
    """In the order in which they were mapped."""
    programs: dict[int, dict[int, str]]
    linked_jemalloc: dict[int, str]
    go: dict[int, str]
    guards: dict[int, str]
    growths: dict[int, str]
    small_steps: dict[int, str]
    libraries: set[int]
    """The spaces in which a call maps a shared library."""


def find_allocators(record: Replayed) -> Allocators:
    """Return which allocators each space has."""
    count, growth = record.space_count, _growth(record.brks)
    found = Allocators(
        malloc=np.zeros(count, dtype=np.int64),
        runtimes=np.zeros(count, dtype=np.int64),
        mallocng=np.zeros(count, dtype=np.bool_),
        narrow=_narrow_spaces(record),
    )
    traces = _Traces(
        files=_mapped_files(record),
        programs=_programs(record),
        linked_jemalloc=_linked_jemalloc(record, growth),
        go=_go_arenas(record),
        guards=_mallocng_guards(record, growth),
        growths=_glibc_growths(record, growth),
        small_steps=_small_steps(record, growth),
        libraries=_with_libraries(record),
    )
    parents = _copied_from(record)
    for space in range(count):
        _decide(found, space, traces, parents[space])
    return found


def _decide(found: Allocators, space: int, traces: _Traces, parent: int) -> None:
    """Fill in one space from what speaks for it, else from the space that it is a copy of."""
    files = traces.files.get(space, {}) | traces.programs.get(space, {})
    if space in traces.go:
        files[GO] = traces.go[space]
    runtimes = [code for code in RUNTIMES if code in files]
    malloc, evidence = _serves_malloc(space, files, traces)
    found.mallocng[space] = space in traces.guards
    if parent != NULL and 0 <= parent < space:
        if malloc in (UNKNOWN, GLIBC) and found.malloc[parent] not in (UNKNOWN, malloc):
            malloc = int(found.malloc[parent])
            evidence = f"the space is a copy of space {parent}, where it is {ALLOCATORS[malloc]}"
            found.mallocng[space] |= found.mallocng[parent]
        found.runtimes[space] = found.runtimes[parent]
    found.malloc[space] = malloc
    for code in runtimes:
        found.runtimes[space] |= 1 << code
    if malloc != UNKNOWN or not runtimes:
        found.rows.append((space, malloc, evidence))
    found.rows.extend((space, code, files[code]) for code in runtimes)


def _serves_malloc(space: int, files: dict[int, str], traces: _Traces) -> tuple[int, str]:
    """Return who serves malloc in a space, and the sentence that says why.

    Of the libraries that define malloc the one that was mapped first serves it: ld.so maps them in the order in which
    it looks symbols up, LD_PRELOAD first. Source: ld.so(8), dlopen(3).
    """
    code = next((code for code in files if code in _MALLOC_FIRST), UNKNOWN)
    if code in (UNKNOWN, GLIBC) and space in traces.linked_jemalloc:
        return JEMALLOC, traces.linked_jemalloc[space]
    if code != UNKNOWN:
        return code, files[code]
    if space in traces.guards:
        return MUSL, traces.guards[space]
    if space in traces.growths:
        return GLIBC, traces.growths[space]
    if space in traces.small_steps and space not in traces.libraries:
        return MUSL, traces.small_steps[space]
    return UNKNOWN, "no libc is mapped by a call of the log, and the break does not move as a known one moves it"


def _mapped_files(record: Replayed) -> dict[int, dict[int, str]]:
    """Return by space and allocator the sentence of the first file that names it, in the order of mapping.

    Of what was mapped before the log nobody knows the order: there an allocator of its own stands before a libc. ld.so
    counts where no libc was mapped.
    """
    mapped = record.files
    codes = _codes_of_paths(record, mapped["path"])
    by_call = (mapped["origin"] == ORIGIN_TRACE) & (codes == MUSL)
    codes[by_call & ~_of_paths(record, mapped["path"], _MUSL_BY_CALL)] = UNKNOWN
    loader = (codes == UNKNOWN) & _of_paths(record, mapped["path"], _LOADER)
    codes[loader] = GLIBC
    rank = np.full(len(ALLOCATORS), len(_MALLOC_FIRST))
    rank[list(_MALLOC_FIRST)] = np.arange(len(_MALLOC_FIRST))
    line = np.where(loader, np.iinfo(np.int64).max, np.maximum(mapped["made_line"], 0))
    keys = [mapped["space"], line, np.where(line == 0, rank[codes], 0), mapped["born_step"], mapped["start"]]
    rows = np.flatnonzero(codes != UNKNOWN)
    rows = rows[np.lexsort([key[rows] for key in reversed(keys)])]
    files: dict[int, dict[int, str]] = {}
    columns = [codes, *(mapped[name] for name in ("space", "path", "made_line"))]
    for code, space, path, line_ in zip(*(column[rows].tolist() for column in columns), strict=True):
        where = f"line {line_}" if line_ > 0 else "before the log starts"
        files.setdefault(space, {}).setdefault(code, f"{_base_name(record.strings[path])} is mapped ({where})")
    return files


def _of_paths(record: Replayed, paths: Int64Array, pattern: str) -> Mask:
    """Return which of `paths`, ids of texts, fit a pattern."""
    fits = np.zeros(len(record.strings), dtype=np.bool_)
    for text_id in distinct(paths).tolist():
        fits[text_id] = re.search(pattern, _plain(record.strings[text_id])) is not None
    return fits[paths]


def _codes_of_paths(record: Replayed, paths: Int64Array) -> Int64Array:
    """Return for each of `paths`, ids of texts, the allocator that a file of that name brings."""
    codes = np.zeros(len(record.strings), dtype=np.int64)
    for text_id in distinct(paths).tolist():
        codes[text_id] = _code_of_file(record.strings[text_id])
    return codes[paths]


def _code_of_file(path: str) -> int:
    return next((code for pattern, code in _FILES if re.search(pattern, _plain(path))), UNKNOWN)


def _plain(path: str) -> str:
    return path.removesuffix(" (deleted)")


def _base_name(path: str) -> str:
    return _plain(path).rpartition("/")[2]


def _programs(record: Replayed) -> dict[int, dict[int, str]]:
    """Return by space the runtime or libc that the program of its execve brings."""
    programs: dict[int, dict[int, str]] = {}
    for space, program in enumerate(record.spaces["program"].tolist()):
        code = _code_of_file(record.text(program))
        if code in RUNTIMES:
            programs[space] = {code: f"the program is {_base_name(record.text(program))}"}
        elif re.search(_ANDROID, record.text(program)):
            programs[space] = {BIONIC: f"the program is Android's {record.text(program)}"}
    return programs


def _linked_jemalloc(record: Replayed, growth: Int64Array) -> dict[int, str]:
    """Return the spaces where jemalloc starts, be it a library or linked in: it reads whether memory is overcommitted.

    glibc may do so once heaps of arenas shrink, and programs for reasons of their own; both have grown the break
    before (heuristic).
    """
    asked, path = [np.zeros(0, dtype=np.int64)], record.strings.intern(_OVERCOMMIT)
    for name in ("openat", "open"):
        asked += [steps[told["path"] == path] for steps, told in record.parts_of(name, ("path",))]
    steps = np.sort(np.concatenate(asked))
    grown = np.full(record.space_count, np.iinfo(np.int64).max)
    np.minimum.at(grown, record.brks["space"][growth > 0], record.brks["step"][growth > 0])
    steps = steps[steps < grown[record.at("space", steps)]]
    found = _first_of_each_space(record, steps, f"{_OVERCOMMIT} is read before the break grows, as jemalloc does")
    probes = _lazy_purge_probes(record)
    probes = probes[probes < grown[record.at("space", probes)]]
    tried = _first_of_each_space(record, probes, "MADV_FREE is tried on one page, as jemalloc does when it starts")
    return tried | found


def _lazy_purge_probes(record: Replayed) -> Int64Array:
    """Return the steps in which a page is mapped, given up with MADV_FREE and unmapped: the first of each space.

    Source: pages_boot in src/pages.c of jemalloc 5, "Detect lazy purge runtime support".
    """
    page, found = record.page_size, [np.zeros(0, dtype=np.int64)]
    for steps, told in record.parts_of("madvise", ("length", "flags")):
        found.append(steps[(told["length"] == page) & (told["flags"] == _MADV_FREE)])
    steps = np.concatenate(found)
    if not len(steps):
        return steps
    _, steps = first_of_each(record.at("space", steps), steps, record.space_count)
    made, gone = record.neighbours.preceding(steps, 1)[:, 0], record.neighbours.after(steps)
    steps, made, gone = (each[(made != NULL) & (gone != NULL)] for each in (steps, made, gone))
    addr = record.at("addr", steps)
    tried = (record.at("call", made) == CALL_CODE["mmap"]) & (record.at("result", made) == addr)
    tried &= (record.at("call", gone) == CALL_CODE["munmap"]) & (record.at("addr", gone) == addr)
    for step in (made, gone):
        tried &= record.at("length", step) == page
    probes: Int64Array = steps[tried]
    return probes


def _go_arenas(record: Replayed) -> dict[int, str]:
    """Return the spaces where a mapping was asked for at the address of Go's first arena."""
    asked = [steps[told["addr"] == _GO_ARENA] for steps, told in record.parts_of("mmap", ("addr",))]
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *asked])
    return _first_of_each_space(record, rows, "a mapping at 0xc000000000, Go's first heap arena, is asked for")


def _mallocng_guards(record: Replayed, growth: Int64Array) -> dict[int, str]:
    """Return the spaces where mallocng took its first metadata: two pages by brk, the first of them made a guard.

    Where that brk fails, the metadata come by `mmap(NULL, …, PROT_NONE)` at once.
    Source: alloc_meta in src/malloc/mallocng/malloc.c (musl 1.2.1).
    """
    brks = record.brks
    first = np.flatnonzero(growth == _MUSL_NG_FIRST_GROWTH * record.page_size)
    after = record.neighbours.after(brks["step"][first])
    first, after = first[after != NULL], after[after != NULL]
    is_mmap = record.at("call", after) == CALL_CODE["mmap"]
    unreadable = is_mmap & (record.at("prot", after) == 0)
    guard = unreadable & (record.at("flags", after) & MAP_FLAGS["MAP_FIXED"] != 0)
    guard &= record.at("addr", after) == record.page_up(brks["before"][first])
    failed = brks["granted"][first] != brks["requested"][first]
    instead = unreadable & failed & (record.at("addr", after) == 0)
    return _first_of_each_space(
        record, after[guard | instead], "two pages are asked of brk and a PROT_NONE page follows, as mallocng does"
    )


def _glibc_growths(record: Replayed, growth: Int64Array) -> dict[int, str]:
    """Return the spaces where the break was to grow by 132 KiB, as glibc asks for with a small block (heuristic)."""
    rows = record.brks["step"][growth == FIRST_GROWTH]
    return _first_of_each_space(record, rows, "the break grows by 132 KiB, as glibc's main arena does")


def _small_steps(record: Replayed, growth: Int64Array) -> dict[int, str]:
    """Return the spaces of static programs whose break grows by a few pages only, and which use open, not openat.

    This is a heuristic: older musl asks brk for just the pages that it needs (expand_heap in src/malloc), and musl
    calls open where glibc calls openat.
    """
    space, step = record.brks["space"], record.brks["step"]
    largest = np.zeros(record.space_count, dtype=np.int64)
    np.maximum.at(largest, space, growth)
    small = (largest > 0) & (largest <= _OLDMALLOC_LARGEST_GROWTH)
    if not small.any():
        return {}
    opens, openats = (np.zeros(len(small), dtype=np.bool_) for _ in range(2))
    for name, calls in (("open", opens), ("openat", openats)):
        for _, told in record.parts_of(name, ("space",)):
            calls[told["space"]] = True
    small &= opens & ~openats
    rows = step[(growth > 0) & small[space]]
    return _first_of_each_space(
        record, rows, "the break grows by no more than a block needs and files are opened by open, as older musl does"
    )


def _with_libraries(record: Replayed) -> set[int]:
    """Return the spaces in which a call maps a shared library: the program is not static."""
    mapped = record.files
    rows = (mapped["origin"] == ORIGIN_TRACE) & _of_paths(record, mapped["path"], _LIBRARY)
    return set(distinct(mapped["space"][rows]).tolist())


def _growth(brks: Columns) -> Int64Array:
    """Return by how many bytes each brk call wanted to grow the break, 0 where it did not."""
    known = (brks["before"] != NULL) & (brks["requested"] > brks["before"])
    return np.where(known, brks["requested"] - np.where(known, brks["before"], 0), 0)


def _first_of_each_space(record: Replayed, steps: Int64Array, sentence: str) -> dict[int, str]:
    """Return by space the sentence with the line of the first of `steps` in it."""
    if not len(steps):
        return {}
    spaces, firsts = first_of_each(record.at("space", steps), steps, record.space_count)
    lines = record.at("line", firsts)
    return {space: f"{sentence} (line {line})" for space, line in zip(spaces.tolist(), lines.tolist(), strict=True)}


def _narrow_spaces(record: Replayed) -> Mask:
    """Return which spaces belong to 32-bit programs: they have mappings, and all below 4 GiB."""
    highest = np.zeros(record.space_count, dtype=np.uint64)
    for _, part in record.parts_of("mmap", ("space", "status", "result")):
        given = part["status"] == OK
        np.maximum.at(highest, part["space"][given], part["result"][given].view(np.uint64))
    return (highest > 0) & (highest < 1 << 32)


def _copied_from(record: Replayed) -> list[int]:
    """Return for each space the one that it is a copy of, `NULL` where an execve or the start of the log made it."""
    spaces = record.spaces
    return np.where(spaces["origin"] == _FORKED, spaces["parent"], NULL).tolist()  # type: ignore[no-any-return]
