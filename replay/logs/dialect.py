"""Which program wrote a log: strace, ltrace or both, told by its first lines; or what else it is.

In go bytes, out come words. What a line says is not known here.
"""

from __future__ import annotations

import re
from typing import Final

from replay.logs.collected import LOOKED_AT, first_lines, looks_native, prefix_of
from replay.logs.prefix import COLOUR, PREFIX, STRING

DIALECTS: Final = ("strace", "ltrace")
"""The two kinds of logs; the code of a dialect is its place here."""

PROCESS_NOTICE: Final = rb"Process (\d+) (attached|detached|suspended|resumed)(?: with \d+ threads)?\n"
"""What strace says about a process on standard error, in the middle of a line or alone on one."""
_STRACE_LINE: Final = (
    rb"\n" + PREFIX + rb"(?:[a-z_0-9]+\([^\n]*(?:\) += (?:\?|-?[0-9])|<(?:unfinished|detached) \.\.\.>|<pid changed)"
    rb"|<\.\.\. \w+ resumed>|\+\+\+ (?:exited with|killed by|superseded) |--- (?:SIG\w+ )?\{|--- SIG\w+ \()"
)
_LTRACE_LINE: Final = (
    rb"\n"
    + PREFIX
    + rb"(?:\+\+\+ exited \(status|--- Called exec|SYS_\w+\(|\w+@SYS\(|[^\s(\"]+->\w+\(|[\w.]+@[\w.+-]+\("
    rb"|\w+\([^\n]*<no return \.\.\.>"
    rb"|operator (?:new|delete)|(?:malloc|calloc|realloc|free|_Z\w+)\(|\w*\([^\n]* = (?:<void>|nil)"
    rb"|<\.\.\. [^\n]+ resumed> [^\n]*\) *= (?:<void>|nil))"
)
_STRACE_ONLY: Final = (
    rb"\n" + PREFIX + rb"(?:\+\+\+ exited with |--- SIG\w+ \{|brk\(NULL"
    rb"|[a-z_0-9]+\([^\n]*(?:PROT_[RWEN]|MAP_[PSA]|AT_FDCWD|\) += -1 E[A-Z]+ ))"
)
_SUMMARY: Final = rb"(?m)^(?:%? *time|time) +seconds +usecs/call"

_TRUSS_RESULT: Final = rb"(?m)\b(?:ERR|Err)#[0-9]|\) += -?[0-9]+ \(0x[0-9a-f]+\)$|\)\t\t = "

_LOOKS_LIKE_CALLS: Final = {
    "lines of truss (FreeBSD, Solaris)": rb"[^\n]*(?:\b(?:ERR|Err)#[0-9]+ |\)\s+= -?[0-9]+ \(0x[0-9a-f]+\)$)",
    "gVisor's own log (--strace)": rb"[^\n]*strace\.go:[0-9]+\]",
    "lines of perf trace": rb" *[0-9]+\.[0-9]+ \( *(?:[0-9]+\.[0-9]+ ms| +)\): ",
    "lines of uftrace": rb" *(?:[0-9.]+ +[num]?s +)?(?:\[ *[0-9]+\] \| |[0-9]+ : \w+\([^\n]*\) *(?:= \S+)? +-?[0-9]+)",
    "lines of heaptrace": rb"\s*\.{3} *#[0-9]+: ",
    "lines of dtruss (macOS)": rb"[^\n]*\)\t\t = -?\w+ (?:-?[0-9]+|Err#[0-9]+)$",
    "lines of sysdig": rb"[0-9]+ [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9} [0-9]+ \S+ \([0-9.:]+\) [<>] ",
}
"""How lines of other tools look that could be taken for calls, behind the beginning of the line."""

_LOOKS_LIKE_NO_CALLS: Final = {
    "lines of ktrace (kdump)": rb" *[0-9]+ \S+ +(?:CALL|RET|NAMI) ",
    "a log of glibc's mtrace": rb"(?:= Start$|@ \S+?\[0x[0-9a-f]+\] [-+<>] 0x)",
    "the words of valgrind": rb"==[0-9]+== ",
    "a snapshot of /proc/PID/maps, which --maps takes beside a log": rb"[0-9a-f]+-[0-9a-f]+ [r-][w-][x-][ps] [0-9a-f]",
    "a log of the kernel's audit": rb"type=[A-Z_]+ msg=audit\(",
    "lines of heaptrack": rb"heaptrack ",
}
"""The same of those that could not."""

_ODD_OFFSET: Final = rb"mmap2\([^\n\"]*MAP_[^\n\"]*, (?:offset=)?0x(?![0-9a-f]*000[),])[0-9a-f]+(?:\)| <unf)"
_NIL: Final = rb"(?m)(?:[(,] ?|\) += )nil(?=[,) \n]|$)"


def prints_nil(sample: bytes) -> bool:
    """Return whether lines of a log write null pointers as `nil`, which ltrace does from 0.7.91 on."""
    return b"nil" in sample and re.search(_NIL, sample) is not None


def shows_system_calls(sample: bytes) -> bool:
    """Return whether a log of ltrace shows system calls (`-S`)."""
    return b"SYS" in sample and re.search(rb"\bSYS_\w+\(|\w@SYS\(", sample) is not None


def counts_pages(sample: bytes) -> bool:
    """Return whether the offsets of mmap2 are written in pages: one that is no multiple of 4096 can be nothing else.

    Source: strace prints bytes from 4.8 on, and always pages where it prints all arguments raw.
    """
    return b"mmap2(" in sample and re.search(_ODD_OFFSET, sample) is not None


def dialect_of(sample: bytes) -> str:
    """Return which program wrote a log: `strace`, `ltrace`, `mixed` where both did, `unknown` where neither."""
    clean = re.sub(COLOUR, b"", b"\n" + sample.replace(b"\0", b""))
    clean = re.sub(PROCESS_NOTICE, b"", clean).replace(b"strace: ", b"")
    plain = re.sub(STRING, b'""', clean)
    ltrace = re.search(_LTRACE_LINE, plain)
    strace = re.search(_STRACE_ONLY if ltrace else _STRACE_LINE, plain)
    if ltrace:
        return "mixed" if strace else "ltrace"
    return "strace" if strace else "unknown"


def other_tool(sample: bytes) -> str:
    """Return what wrote lines that look like calls of strace or ltrace and are none, in words; '' for none."""
    lines = first_lines(sample)
    if looks_native(lines) and not re.search(_TRUSS_RESULT, lines):
        return ""
    plain = re.sub(STRING, b'""', re.sub(COLOUR, b"", lines))
    calls = len(re.findall(rb"(?m)\([^\n]*\) *(?:=|[A-Z]+#|$)|^[^\n]*#[0-9]+: ", plain))
    for says, pattern in _LOOKS_LIKE_CALLS.items():
        marked = len(re.findall(rb"(?m)^" + pattern, plain))
        if marked and 2 * marked >= calls:
            return says
    return ""


def what_it_is(sample: bytes) -> str:
    """Return in words what a file is that holds no line of a trace."""
    if re.search(_SUMMARY, sample):
        return "only a summary table (-c), which holds no calls"
    if b"\0" in sample[:4096]:
        return "a binary file"
    for says, pattern in _LOOKS_LIKE_NO_CALLS.items():
        if re.search(rb"(?m)^" + pattern, sample[:LOOKED_AT]):
            return says
    found = prefix_of(re.sub(COLOUR, b"", first_lines(sample)))
    if found is not None:
        example = found.example.decode("utf-8", "replace")
        where = f"{example!r} before one of them"
        return f"the calls stand behind a prefix that is not the same on all lines, {where}; try {found.sed} FILE"
    return "no line of it is a call"
