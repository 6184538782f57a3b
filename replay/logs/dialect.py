"""Which program wrote a log: strace, ltrace or both, told by its first lines; or what else it is."""

from __future__ import annotations

import re
from typing import Final

from replay.logs.prefix import PREFIX

PROCESS_NOTICE: Final = rb"Process (\d+) (attached|detached|suspended|resumed)(?: with \d+ threads)?\n"
"""What strace says about a process on standard error, in the middle of a line or alone on one."""
COLOUR: Final = rb"\x1b\[[0-9;]*m"
_STRACE_LINE: Final = (
    PREFIX + rb"(?:[a-z_0-9]+\([^\n]*(?:\) += (?:\?|-?[0-9])|<(?:unfinished|detached) \.\.\.>|<pid changed)"
    rb"|<\.\.\. \w+ resumed>|\+\+\+ (?:exited with|killed by|superseded) |--- (?:SIG\w+ )?\{|--- SIG\w+ \()"
)
_LTRACE_LINE: Final = (
    PREFIX + rb"(?:\+\+\+ exited \(status|--- Called exec|SYS_\w+\(|\w+@SYS\(|[^\s(\"]+->\w+\(|[\w.]+@[\w.+-]+\("
    rb"|operator (?:new|delete)|(?:malloc|calloc|realloc|free|_Z\w+)\(|\w*\([^\n]* = (?:<void>|nil)"
    rb"|<\.\.\. [^\n]+ resumed> [^\n]*\) *= (?:<void>|nil))"
)
_STRACE_ONLY: Final = (
    PREFIX + rb"(?:\+\+\+ exited with |--- SIG\w+ \{|brk\(NULL"
    rb"|[a-z_0-9]+\([^\n]*(?:PROT_[RWEN]|MAP_[PSA]|AT_FDCWD|\) += -1 E[A-Z]+ ))"
)
_STRING: Final = rb'"(?:[^"\\\n]++|\\.)*+"'
_SUMMARY: Final = rb"(?m)^% time +seconds +usecs/call"
_NIL: Final = rb"(?m)(?:[(,] ?|\) += )nil(?=[,) \n]|$)"


def prints_nil(sample: bytes) -> bool:
    """Return whether lines of a log write null pointers as `nil`, which ltrace does from 0.7.91 on."""
    return b"nil" in sample and re.search(_NIL, sample) is not None


def dialect_of(sample: bytes) -> str:
    """Return which program wrote a log: `strace`, `ltrace`, `mixed` where both did, `unknown` where neither."""
    clean = re.sub(COLOUR, b"", b"\n" + sample.replace(b"\0", b""))
    clean = re.sub(PROCESS_NOTICE, b"", clean).replace(b"strace: ", b"")
    plain = re.sub(_STRING, b'""', clean)
    ltrace = re.search(_LTRACE_LINE, plain)
    strace = re.search(_STRACE_ONLY if ltrace else _STRACE_LINE, plain)
    if ltrace:
        return "mixed" if strace else "ltrace"
    return "strace" if strace else "unknown"


def what_it_is(sample: bytes) -> str:
    """Return in words what a file is that holds no line of a trace."""
    if re.search(_SUMMARY, sample):
        return "only a summary table (-c), which holds no calls"
    if b"\0" in sample[:4096]:
        return "a binary file"
    return "no line of it is a call"
