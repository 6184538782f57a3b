"""Lines that name a call for memory and were not understood: what follows may miss them, so they are told first.

In go the problems of a run, out comes what is known of such lines. How that is worded for the screen is told here too,
since it is one sentence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from replay.console.amounts import number
from replay.engine.structs import Value
from replay.heap.blocks import REASONS as OF_BLOCKS
from replay.run.places import Place, span

if TYPE_CHECKING:
    from replay.logs.problems import Problem
    from replay.report.findings import Findings

_NAMED: Final = (
    r"(?<![\w.])(?:SYS_)?(brk|mmap2?|munmap|mremap|mprotect|execve|malloc|calloc|realloc|free|_Zn[wa]\w*|_Zd[la]\w*)"
    r"(?:@\S*)?\("
)
"""A call that gives or takes memory, as either tracer writes its name."""

_OF_MALLOC: Final = {"malloc", "calloc", "realloc", "free", "new", "delete"}
_OPERATORS: Final = {"n": "new", "d": "delete"}


class UnreadCalls(Value):
    """Lines not understood that name memory calls: how many at least, the names in order, the first and last line."""

    count: int
    names: tuple[str, ...]
    first: Place
    last: Place

    @property
    def of_malloc(self) -> bool:
        """Return whether some of them name malloc, free or their kin."""
        return bool(_OF_MALLOC & set(self.names))

    @property
    def of_system(self) -> bool:
        """Return whether some of them name system calls."""
        return bool(set(self.names) - _OF_MALLOC)

    @property
    def sentence(self) -> str:
        """Return what is said of them."""
        shown = list(self.names) if len(self.names) < 4 else [*self.names[:2], "others"]
        listed = " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
        like = f"{number(self.count, 'line')} that {'looks' if self.count == 1 else 'look'} like {listed}"
        them = "it" if self.count == 1 else "them"
        return f"{like} could not be read ({span(self.first, self.last)}): what follows may miss {them}."


def unread_calls(findings: Findings) -> UnreadCalls | None:
    """Return what is known of the unread lines that name memory calls, None where there are none."""
    end = findings.cut_at
    found = [
        (problem, _names_in(problem))
        for problem in findings.run.source.problems.kept
        if problem.reason != "cut_line" or findings.places.of_problem(problem.line, problem.file) != end
    ]
    found = [(problem, names) for problem, names in found if names]
    if not found:
        return None
    problems = sorted((problem for problem, _ in found), key=lambda problem: (problem.file, problem.line))
    named = tuple(dict.fromkeys(name for _, names in found for name in names))
    first, last = (findings.places.of_problem(problem.line, problem.file) for problem in (problems[0], problems[-1]))
    return UnreadCalls(len(found), named, first, last)


def _names_in(problem: Problem) -> list[str]:
    """Return the memory calls that a line not understood names: the first one of the line counts."""
    if problem.reason.startswith("divergence") or problem.reason in OF_BLOCKS:
        return []
    match = re.search(_NAMED, problem.text)
    if match is None:
        return []
    name = match[1]
    return [_OPERATORS[name[2]] if name.startswith("_Z") else name.replace("mmap2", "mmap")]
