"""What a finding means for the program, and what to try.

In go findings, out come sentences. Each piece of advice fits the cause and the allocator; where nothing is known to
help, none is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replay.console.amounts import address, number, size, times
from replay.engine.columns import to_unsigned
from replay.linux import constants
from replay.report.facts import FailureGroup
from replay.report.findings import Findings, malloc_of

_WIDE_STEP: Final = 8 << 20
"""Bytes of a growth from which a larger M_TOP_PAD helps no more."""

_MANY_RETURNS: Final = 20
_MANY_DIRECT: Final = 100
_MANY_ARENA_HEAPS: Final = 8
_FIXED: Final = constants.MAP_FLAGS["MAP_FIXED"] | constants.MAP_FLAGS["MAP_FIXED_NOREPLACE"]
_NARROW: Final = 1 << 32
_NEARLY_FULL: Final = 2 << 30
"""Bytes mapped from which on the 3 or 4 GiB of a 32-bit program may be used up. Heuristic."""

_MANY_GROWTHS: Final = 100


def meaning(findings: Findings) -> list[str]:
    """Return what the failures mean for the program, one paragraph each."""
    if not findings.failures:
        return []
    allocator = "mallocng" if _is_mallocng(findings) else malloc_of(findings, findings.failure_groups[0].space)
    granted = [group for group in findings.fallback_groups if not group.errno]
    said = []
    if any(group.kind == "fallback" for group in granted):
        said.append(_PRICE.get(allocator, _PRICE[""]))
    refused = [group for group in findings.fallback_groups if group.errno and group.kind == "fallback"]
    if refused:
        said.append(_refused(findings, sum(group.count for group in refused)))
    last = [group for group in granted if group.kind == "last_resort"]
    if last:
        count = sum(group.count for group in last)
        blocks = number(count, "small block")
        said.append(f"{blocks} had to be mapped alone, a page or more each: malloc's last resort.")
    unanswered = sum(group.count - group.stood_in - group.refused_too for group in findings.failure_groups)
    if unanswered and not (findings.unread is not None and findings.unread.of_system):
        said.append(
            f"After {_of(unanswered, findings.failures)} no mmap stood in: who asked most likely got no memory."
        )
    return said


_PRICE: Final = {
    "glibc": (
        "malloc had its memory all the same. The price: two calls for each growth, and a heap in pieces that glibc "
        "neither unmaps nor trims before the exit."
    ),
    "musl": "malloc had its memory all the same, by mmap, in pieces that double in size and are never given back.",
    "mallocng": (
        "musl keeps only its own notes in the brk area, and after one refusal takes them by mmap for good. This costs "
        "next to nothing."
    ),
    "tcmalloc": "tcmalloc goes over to mmap for good after one refusal. This costs little.",
    "": "The allocator had its memory all the same, by mmap, at the price of a refused brk each time.",
}
"""What it means that a fallback was granted, by allocator."""


def _refused(findings: Findings, count: int) -> str:
    threads = findings.run.replayed.threads > findings.run.replayed.processes
    arena = ", unless another arena had room" if threads else ""
    how_often = times(count).capitalize()
    return f"{how_often} malloc returned NULL: both the break and mmap were refused{arena}."


def _of(part: int, whole: int) -> str:
    if part == whole:
        return "it" if whole == 1 else f"all {whole:,} failures"
    return f"{part:,} of {whole:,} failures"


def _is_mallocng(findings: Findings) -> bool:
    """Tell whether musl's newer malloc is at work, whose small blocks live in pools of their own."""
    return any(group.kind == "pool" and group.allocator == "musl" for group in findings.other_groups)


def to_try(findings: Findings) -> list[str]:
    """Return what to try, the most promising first, each once."""
    found: dict[str, None] = {}
    for group in sorted(findings.failure_groups, key=lambda group: -group.count)[:3]:
        found.update(dict.fromkeys(_CURES[group.cause](findings, group)))
    if findings.malloc is not None:
        from replay.report.malloc import verdict

        found.update(dict.fromkeys(verdict.to_try(findings.malloc)))
    found.update(dict.fromkeys(_habits(findings)))
    if findings.failures:
        found[_whatif(findings)] = None
    return list(found)


def _whatif(findings: Findings) -> str:
    """Return how to see what other settings would have come to: that takes a log that shows malloc."""
    if findings.malloc is not None:
        return "Try other settings and allocators on its requests: replay whatif, on this log."
    return "Try other settings on its requests: replay record PROG, then replay whatif PROG.replay."


def _against_blocker(findings: Findings, group: FailureGroup) -> Iterator[str]:
    yield _move_blocker(findings, group)
    if malloc_of(findings, group.space) == "glibc" and group.stood_in and group.least_short < _WIDE_STEP:
        yield (
            "While it stands: GLIBC_TUNABLES=glibc.malloc.top_pad=16777216 (M_TOP_PAD) makes fallbacks fewer and "
            "larger."
        )
        yield (
            "A lower M_MMAP_THRESHOLD (glibc.malloc.mmap_threshold) maps more blocks each by itself, and free gives "
            "those back. Setting it, or M_TOP_PAD, ends the threshold's own adjustment."
        )


def _move_blocker(findings: Findings, group: FailureGroup) -> str:
    """Return how to get the mapping out of the way, by who put it there."""
    blocker = group.blocker
    if blocker is None or blocker.step is None or blocker.place is None:
        return (
            "The mapping in the way is older than the log: capture from the program's start, or give the maps of "
            "that moment (--maps FILE), to see what it is."
        )
    of_call = {name: findings.events.one(name, blocker.step) for name in ("call", "addr", "new_addr", "flags")}
    call, flags = constants.CALLS[of_call["call"]], max(of_call["flags"], 0)
    asked = of_call["addr" if call in ("mmap", "shmat") else "new_addr"]
    if blocker.path.startswith("/") or call not in ("mmap", "mremap", "shmat") or asked in (0, -(1 << 63)):
        return _zone_is_full(findings, group)
    how = f"asks for {address(asked)} itself"
    if call == "mmap" and flags & _FIXED:
        how += " (MAP_FIXED)"
    return (
        f"Move the blocker: the {call} of {blocker.place} {how}; with NULL the kernel places it far away. Or unmap it "
        "earlier."
    )


def _zone_is_full(findings: Findings, group: FailureGroup) -> str:
    """Return what to do where the heap has met what the kernel or ld.so placed."""
    blocker = group.blocker
    assert blocker is not None
    peak = findings.spaces[group.space].peak_mapped
    start_brk = int(findings.run.replayed.spaces["start_brk"][group.space])
    narrow = to_unsigned(blocker.start) < _NARROW and _is_narrow(findings, group.space)
    if narrow and peak < _NEARLY_FULL:
        return (
            f"The space is not used up ({size(peak)} of 4 GiB mapped): the heap begins at {address(start_brk)}, among "
            "the mappings, and the kernel put the next one right above the break. Have that mapping made elsewhere "
            "(an address as a hint), or before the heap begins to grow; the legacy layout (setarch -L) does this."
        )
    if narrow:
        return (
            f"The heap has grown up to what the kernel placed above it: the 4 GiB of a 32-bit program are used up "
            f"({size(peak)} mapped). Build it for 64 bits, or need less: smaller thread stacks (ulimit -s), fewer "
            "arenas (MALLOC_ARENA_MAX=1)."
        )
    return (
        "The kernel itself placed that mapping so near to the heap. That happens with the legacy layout (setarch -L, "
        "vm.legacy_va_layout=1), in static-pie programs and when ld.so runs the program: avoid those, or live with "
        "the fallbacks."
    )


def _is_narrow(findings: Findings, space: int) -> bool:
    regions = findings.run.replayed.regions
    ends = regions["end"][regions["space"] == space]
    return bool(ends.size) and bool((ends > 0).all()) and int(ends.max()) <= _NARROW


def _against_limit(findings: Findings, group: FailureGroup) -> Iterator[str]:
    name = group.cause.upper()
    option = {"rlimit_data": "ulimit -d", "rlimit_as": "ulimit -v"}[group.cause]
    value = size(group.limit_bytes) if group.limit_bytes is not None else "what it is"
    where = f", as {group.limit_place} tells" if group.limit_place else ""
    yield f"Raise {name} ({value} now{where}): setrlimit in the program, or {option}."
    if group.cause == "rlimit_data":
        yield "Since Linux 4.7 RLIMIT_DATA counts all private writable memory: mmap in place of brk does not help."
    heaps = sum(other.count for other in findings.other_groups if other.kind == "arena_heap")
    if group.cause == "rlimit_as" and heaps:
        yield (
            f"Each heap of a thread's arena reserves 64 MiB of address space ({number(heaps, 'heap')} here): "
            "MALLOC_ARENA_MAX=1 saves them."
        )


def _against_count(findings: Findings, group: FailureGroup) -> Iterator[str]:
    yield (
        "The space has as many mappings as the kernel allows (65,530 by default): raise vm.max_map_count, or have "
        "fewer; a higher M_MMAP_THRESHOLD keeps large blocks in the heap."
    )


def _against_overcommit(findings: Findings, group: FailureGroup) -> Iterator[str]:
    yield (
        f"{size(group.most_short)} at once is likely more than memory and swap together: ask for less at a time, add "
        "swap, or let the kernel promise more (vm.overcommit_memory=1)."
    )


def _against_injection(findings: Findings, group: FailureGroup) -> Iterator[str]:
    yield "Nothing: strace itself gave these answers (-e inject=brk); without it the kernel would have been asked."


def _against_denial(findings: Findings, group: FailureGroup) -> Iterator[str]:
    yield (
        "Look for who answers in the kernel's place: a seccomp filter (Seccomp in /proc/PID/status; a sandbox, a "
        "container's profile), gVisor, an emulator. Allow brk there, or live on mmap."
    )


def _against_unknown(findings: Findings, group: FailureGroup) -> Iterator[str]:
    if group.stood_in:
        yield (
            "Look for the mapping in the way: capture from the program's start, or give the mappings of the moment at "
            "which the log begins (--maps FILE, a copy of /proc/PID/maps)."
        )
        return
    yield (
        "Look for limits set before the log begins (ulimit -d, -v and -l, /proc/PID/limits), and give the mappings of "
        "that moment (--maps FILE)."
    )


_CURES: Final = {
    "mapping_above": _against_blocker,
    "rlimit_data": _against_limit,
    "rlimit_as": _against_limit,
    "map_count": _against_count,
    "overcommit": _against_overcommit,
    "injected": _against_injection,
    "denied": _against_denial,
    "unknown": _against_unknown,
}
"""What to try, by cause."""


def _habits(findings: Findings) -> Iterator[str]:
    """Yield what to try about habits that cost time or space without any failure."""
    glibc = any(name == "glibc" for name, _, _ in findings.allocators)
    if not glibc:
        return
    moves = findings.moves
    if moves.returns >= _MANY_RETURNS:
        yield (
            f"{times(moves.returns).capitalize()} the break shrank only to grow again: a larger M_TRIM_THRESHOLD "
            "(glibc.malloc.trim_threshold) keeps the memory and saves the calls."
        )
    if moves.grew >= _MANY_GROWTHS and moves.usual_growth < _WIDE_STEP:
        fewer = -(-moves.grew_bytes // (_WIDE_STEP << 1))
        yield (
            f"The break grew {times(moves.grew)}, mostly by {size(moves.usual_growth)}: M_TOP_PAD of 16 MiB "
            f"(GLIBC_TUNABLES=glibc.malloc.top_pad=16777216) would make that {number(fewer, 'call')}."
        )
    kinds = {group.kind: group for group in findings.other_groups if not group.errno}
    direct = kinds.get("direct")
    if direct and direct.count >= _MANY_DIRECT:
        yield (
            f"{number(direct.count, 'large block')} came by an mmap each: where such blocks come and go, a larger "
            "M_MMAP_THRESHOLD (glibc.malloc.mmap_threshold) keeps them in the heap and saves calls and page faults."
        )
    heaps = kinds.get("arena_heap")
    if heaps and heaps.count >= _MANY_ARENA_HEAPS:
        yield (
            f"{number(heaps.count, 'arena heap')} of {size(heaps.total_bytes // heaps.count)} of address space each "
            "were reserved for threads: fewer arenas (MALLOC_ARENA_MAX=2) leave less free memory behind, at the price "
            "of threads that wait."
        )
