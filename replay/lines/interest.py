"""Lines to pass over: those whose first word, behind the prefix, is no call of interest.

In go lines, out come the same, emptied where they are passed over. How a line goes on behind its first word is not
looked at. For long logs `scanloop` says the same in a loop, of the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final

from replay.grammar.fields import NORMAL_NAMES
from replay.linux.constants import CALL_CODE
from replay.logs.prefix import PREFIX

NAMES: Final = frozenset(name for name in (*CALL_CODE, *NORMAL_NAMES) if name.isidentifier())
"""The names of interest. Besides them there are calls by number, and in ltrace the operators of C++."""


def _one_of(names: Iterable[str]) -> bytes:
    """Return a pattern that matches any of `names`, quick to fail."""
    by_letter: dict[str, list[str]] = {}
    for name in sorted(set(names), reverse=True):
        by_letter.setdefault(name[0], []).append(re.escape(name[1:]))
    return b"(?:" + b"|".join(f"{a}(?:{'|'.join(rest)})".encode() for a, rest in sorted(by_letter.items())) + b")"


@cache
def _pattern(dialect: str) -> re.Pattern[bytes]:
    """Return the pattern of the lines of a dialect that are passed over, each with the newline before it.

    It is compiled when it is first asked for: that takes longer than to go through a short log.
    """
    name = _one_of(NAMES)
    if dialect == "strace":
        return re.compile(
            rb"\n" + PREFIX + rb"(?:(?!" + name + rb"\(|(?:syscall|SYS)_[0-9])[a-zA-Z_]\w*\("
            rb"|<\.\.\. (?!" + name + rb" |(?:syscall|SYS)_[0-9])\w+ resumed|\) += )[^\n]*"
        )
    return re.compile(
        rb"\n" + PREFIX + rb"(?:[^\s\"(<\[>]*->)?"
        rb"(?:(?!(?:SYS_)?" + name + rb"[(@]|_Z[nd]|SYS_[0-9]|operator )[\w.:~]+(?:@[\w.+-]+)?\("
        rb"|<\.\.\. (?!(?:SYS_)?" + name + rb" |_Z[nd]|SYS_[0-9]|operator )[\w.:~]+ resumed|\) += )[^\n]*"
    )


def without_passed_over(data: bytes, dialect: str) -> bytes:
    """Return the lines of `data`, a newline before the first, emptied where their first word is no call of interest."""
    return _pattern(dialect).sub(b"\n", data)


def is_passed_over(text: bytes, dialect: str) -> bool:
    """Tell whether one line is to be passed over."""
    return _pattern(dialect).match(b"\n" + text) is not None
