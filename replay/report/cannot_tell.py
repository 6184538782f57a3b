"""What a log cannot tell: questions against the kinds of logs, and the command whose log tells it.

In go findings, out come the questions that stay open, each with its reason and the command that would show the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from replay.logs.recordings import ASKED_FOR, notes_of, recorded_by, shows_all_blocks
from replay.report.findings import Findings

LTRACE: Final = "ltrace -L -f -S -x 'malloc+free+calloc+realloc@libc.so*' -o FILE PROG"
"""Shows the calls of all libraries and of libc itself, with the system calls inside. Source: ltrace(1), -x, -L, -S.

Its breakpoints can kill a program of several threads.
"""

RECORD: Final = "replay record PROG"
STRACE: Final = "strace -f -y -ttt -e trace=%memory,%process,%file,prlimit64 -o FILE PROG"
_FOLLOW: Final = "strace -f … or ltrace -f …"
_RESIDENT: Final = "grep VmHWM /proc/PID/status"
_BLOCKS: Final = f"{RECORD}\n{LTRACE}"
_PATIENT: Final = _BLOCKS


class Cell(NamedTuple):
    """Why a kind of log cannot answer a question, and the commands that would show it, one a line, if any would."""

    because: str
    command: str


class Open(NamedTuple):
    """A question that a log leaves open."""

    question: str
    because: str
    command: str


_NO_MALLOC: Final = Cell("strace does not show malloc", _BLOCKS)
_NO_CALL_OF_MALLOC: Final = Cell("the log shows no call of malloc and its kin", _BLOCKS)
_NO_SYSTEM_CALLS: Final = Cell("without -S ltrace shows no system calls of the allocator", _BLOCKS)
_UNSEEN: Final = Cell("much of the heap lies in no block that the log shows: others allocate there", _BLOCKS)
_LATE: Final = Cell("what came before this log is not known", STRACE)
_LATE_BLOCKS: Final = Cell("blocks handed out before this log are not known", _BLOCKS)
_CUT: Final = Cell("the log ends before the program's exit, which may free the rest", _PATIENT)
_KILLED: Final = Cell("the program was killed before it could free the rest", _PATIENT)
_UNREAD: Final = Cell("lines that name such calls could not be read", STRACE)
_UNREAD_BLOCKS: Final = Cell("lines that name malloc or free could not be read", _BLOCKS)
_ALONE: Final = Cell("without -f the log leaves out the children that the program made", _FOLLOW)
_MAPPED: Final = Cell("the log shows no page faults", _RESIDENT)
_SET: Final = "strace -ff -ttt -y -e trace=%memory,%process,%file,prlimit64 -o FILE PROG"
_NO_ORDER: Final = Cell("the files have no times to compare: of threads only what they do to the break tells it", _SET)
_NO_FREES: Final = Cell("the log shows no free at all: it may have been left out", _BLOCKS)

LEAKS: Final = "leak"
_RESIDENT_MEMORY: Final = "resident memory"
_PART: Final = "what was not recorded"

EVIDENCE: Final = (
    "unread", "unread_malloc", "strace", "ltrace_without_malloc", "ltrace_without_system_calls", "begins_late",
    "killed", "cut", "no_frees", "unseen_memory", "main_program_only", "children_left_out", "ltrace_with_system_calls",
    "set_without_times", "no_times", "any",
)  # fmt: skip
"""Kinds of logs, those first whose reason stands before others where several apply."""

TABLE: Final[dict[str, dict[str, Cell]]] = {
    "whether the break failed": {
        "unread": _UNREAD,
        "ltrace_without_system_calls": _NO_SYSTEM_CALLS,
        "begins_late": _LATE,
        "children_left_out": _ALONE,
    },
    "fallbacks to mmap": {
        "unread": _UNREAD,
        "ltrace_without_system_calls": _NO_SYSTEM_CALLS,
        "children_left_out": _ALONE,
    },
    LEAKS: {
        "unread_malloc": _UNREAD_BLOCKS,
        "strace": _NO_MALLOC,
        "killed": _KILLED,
        "ltrace_without_malloc": _NO_CALL_OF_MALLOC,
        "cut": _CUT,
        "begins_late": _LATE_BLOCKS,
        "no_frees": _NO_FREES,
        "children_left_out": _ALONE,
        "main_program_only": Cell("callers that the log leaves out, such as libc, may leak too", _BLOCKS),
    },
    "fragmentation": {
        "unread_malloc": _UNREAD_BLOCKS,
        "strace": _NO_MALLOC,
        "ltrace_without_malloc": _NO_CALL_OF_MALLOC,
        "ltrace_without_system_calls": Cell("without -S the size of the heap is inferred from its blocks", _BLOCKS),
        "begins_late": _LATE_BLOCKS,
        "unseen_memory": _UNSEEN,
    },
    "what pins the heap": {
        "unread_malloc": _UNREAD_BLOCKS,
        "strace": _NO_MALLOC,
        "ltrace_without_malloc": _NO_CALL_OF_MALLOC,
        "begins_late": _LATE_BLOCKS,
        "unseen_memory": _UNSEEN,
    },
    "order of calls in different files": {"set_without_times": _NO_ORDER},
    _RESIDENT_MEMORY: {"any": _MAPPED},
    "whose allocator": {
        "ltrace_without_system_calls": Cell("without -S no library is seen being mapped", _BLOCKS),
        "begins_late": _LATE,
    },
}
"""By question and kind of log why it cannot be told; where there is no cell, it can."""


def cannot_tell(findings: Findings) -> list[Open]:
    """Return the questions that stay open, each with the reason that weighs most."""
    held = [kind for kind in EVIDENCE if _HOLDS[kind](findings)]
    found = []
    for question, cells in TABLE.items():
        if question in _answered(findings):
            continue
        cell = next((cells[kind] for kind in held if kind in cells), None)
        if cell is not None:
            found.append(Open(question, *cell))
    tool, reason = recorded_by(findings.run.source.files)
    notes = [Open(_PART, note, "") for note in notes_of(findings.run.source.files)]
    return [*_of_recording(found, tool, reason), *notes] if tool else found


def _of_recording(found: list[Open], tool: str, reason: str) -> Iterator[Open]:
    """Yield the questions that a recording leaves open: no other one would tell more, unless malloc was left out."""
    shows_malloc = tool != "strace"
    for one in found:
        is_of_malloc = one.because in (_NO_MALLOC.because, _NO_CALL_OF_MALLOC.because)
        if RECORD not in one.command:
            yield one
        elif not is_of_malloc:
            yield one._replace(command="")
        elif not shows_malloc and reason.startswith(ASKED_FOR):
            yield one._replace(because="malloc is not in this recording, as was asked for", command=RECORD)
        elif not shows_malloc:
            yield one._replace(because=f"malloc could not be recorded: {reason}", command="")


def _answered(findings: Findings) -> set[str]:
    """Return the questions that a log answers whatever it lacks: what it shows has happened."""
    answered = set()
    if findings.failures:
        answered |= {"whether the break failed"} | ({"fallbacks to mmap"} if len(findings.fallback_rows) else set())
    if any(name != "unknown" for name, _, _ in findings.allocators):
        answered.add("whose allocator")
    if findings.run.summary_values.get("peak_resident_bytes") is not None:
        answered.add(_RESIDENT_MEMORY)
    return answered


def _much_unseen(findings: Findings) -> bool:
    """Return whether a tenth or more of the heap, when it was largest or at the end, is unseen. Heuristic."""
    malloc = findings.malloc
    if malloc is None or not len(findings.run.malloc_blocks) or shows_all_blocks(findings.run.source.files):
        return False
    return any(one.unseen_bytes * 10 >= one.heap_bytes > 0 for one in (malloc.diagnosis.largest, malloc.diagnosis.end))


def _main_only(findings: Findings) -> bool:
    """Return whether the log shows the calls of the main program only, or leaves out whoever else allocates. Heuristic.

    Calls through a PLT bear their module's name; and blocks of others leave memory between the seen ones.
    """
    malloc = findings.malloc
    return malloc is not None and malloc.leaves_out_callers


def _children_left_out(findings: Findings) -> bool:
    """Return whether a call made a process or thread of which no line of the log is."""
    if findings.run.replayed.threads > 1:
        return False
    events = findings.events
    made = findings.steps_of(["fork", "vfork", "clone", "clone3"])
    return bool(((events.at("result", made) > 0) & (events.at("status", made) == 0)).any())


def _set_without_times(findings: Findings) -> bool:
    """Return whether threads of one space wrote a file each whose times are missing or count from another line."""
    logs, replayed = findings.run.source.logs, findings.run.replayed
    apart = len(logs) > 1 and all(log.pid is not None for log in logs) and replayed.threads > replayed.processes
    return apart and (_no_times(findings) or any(log.relative for log in logs))


def _no_times(findings: Findings) -> bool:
    return findings.run.summary_values["duration_ns"] is None


_HOLDS: Final[dict[str, Callable[[Findings], bool]]] = {
    "unread": lambda findings: findings.unread is not None and findings.unread.of_system,
    "unread_malloc": lambda findings: findings.unread is not None and findings.unread.of_malloc,
    "strace": lambda findings: not findings.malloc_calls and findings.run.source.dialect != "ltrace",
    "ltrace_without_malloc": lambda findings: not findings.malloc_calls and findings.run.source.dialect == "ltrace",
    "ltrace_without_system_calls": lambda findings: bool(findings.malloc_calls) and not findings.system_calls,
    "ltrace_with_system_calls": lambda findings: bool(findings.malloc_calls) and findings.system_calls,
    "begins_late": lambda findings: findings.begins_late,
    "killed": lambda findings: findings.log_end == "killed",
    "cut": lambda findings: findings.log_end == "cut",
    "no_frees": lambda findings: findings.malloc is not None and not findings.malloc.shows_frees,
    "unseen_memory": _much_unseen,
    "main_program_only": _main_only,
    "children_left_out": _children_left_out,
    "set_without_times": _set_without_times,
    "no_times": _no_times,
    "any": lambda findings: bool(findings.memory_calls or findings.malloc_calls),
}
"""Whether a log is of a kind."""
