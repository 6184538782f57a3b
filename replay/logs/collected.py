"""Logs as people have them: what a collector of logs, a quotation or a web page put around the lines is undone.

In go the first bytes of a log, out comes what has to be undone on all of its lines, each for itself: lines keep their
numbers. What the lines say is not known here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias

from replay.engine.structs import Value
from replay.linux.constants import CALL_CODE, ERRNO_NAME
from replay.logs.prefix import COLOUR, EVENT, STRING, TRACER
from replay.logs.wrapped import cut_step, wrapped_step

LOOKED_AT: Final = 1 << 16
"""So much of a log tells what is around its lines, in bytes."""

_ENOUGH: Final = 100
"""So many lines tell it, and so many calls."""

_LONG: Final = 4096
"""No more of a line is looked at, in bytes."""

_MOST_LINES: Final = 3, 4
"""The share of the calls that must stand behind the same prefix for it to be taken off."""

Step: TypeAlias = Callable[[bytes], bytes]
"""What undoes one thing on whole lines, as many of which come out."""

_NAMES: Final = frozenset({*(name.encode() for name in CALL_CODE), b"mmap2", b"new", b"delete"})
_AROUND_CALLER: Final = rb'\s"(<\[>:|'
_CALLER: Final = rb"(?:(?<![^%b])[^%b]++(?<=[^%b]-)>)?(?:operator )?" % ((_AROUND_CALLER,) * 3)
_WHOLE: Final = rb"\((?=[^\n]*(?:\) *= ?(?:-?[0-9]|\?|<void>|nil)|<(?:unfinished|no return|detached) \.\.\.>))"
_CALL: Final = rb"(?<![\w./-])(?<!::)" + _CALLER + rb"([A-Za-z_]\w*)(?:@[\w.+-]+)?" + _WHOLE


class Prefixed(Value):
    """What stands before the calls of a log that neither strace nor ltrace wrote: the first one, and a pattern.

    `share` is how many of the calls that were looked at stand behind a prefix of this pattern.
    """

    example: bytes
    pattern: bytes
    share: float

    @property
    def is_the_same(self) -> bool:
        """Tell whether so many calls stand behind it that it can be taken off."""
        least, of_all = _MOST_LINES
        return self.share * of_all >= least

    def taken_off(self, data: bytes) -> bytes:
        """Return lines without the prefix, where they have it."""
        bare = self.pattern.removesuffix(b"\\t").rstrip(b" ")
        return re.sub(rb"(?m)^(?:" + self.pattern + rb"|" + bare + rb"$)", b"", data)

    @property
    def sed(self) -> str:
        """Return a command that takes the prefix off, and the lines that lack it out."""
        return f"sed -n -E 's/^{self.pattern.decode('utf-8', 'replace').replace('/', '[/]')}//p'"


def undoing(sample: bytes) -> list[Step]:
    """Return what undoes, one after the other, what is around the lines of which `sample` are the first."""
    steps: list[Step] = []
    lines = first_lines(sample)
    for look in (_control_step, _json_step, _suffix_step, _page_step, _prefix_step, _qemu_step, wrapped_step, cut_step):
        step = look(lines)
        if step is not None:
            steps.append(step)
            lines = step(lines)
    return steps


def _control_step(lines: bytes) -> Step | None:
    """Return what takes colours and NULs out, None where there are none; `cat -v` shows the escape as `^[`."""
    return _without_controls if any(mark in lines for mark in (b"\x1b", b"\0", b"^[[")) else None


def _without_controls(data: bytes) -> bytes:
    return re.sub(COLOUR, b"", data.replace(b"\0", b"").replace(b"^[[", b"\x1b["))


def first_lines(sample: bytes) -> bytes:
    """Return the whole lines that tell what is around them; of very long ones the beginnings."""
    whole = sample[: sample.rfind(b"\n", 0, LOOKED_AT) + 1] or sample[:LOOKED_AT]
    return whole if max(map(len, whole.split(b"\n"))) <= _LONG else re.sub(rb"(?m)^(.{%d}).*" % _LONG, rb"\1", whole)


# --- a record of JSON a line: docker's own logs, journalctl -o json ---


def _json_step(lines: bytes) -> Step | None:
    """Return what takes the lines out of records of JSON, None where they are in none."""
    first = lines.lstrip()
    texts_alone = re.findall(_JSON_TEXT, first)
    if sum(_call_on(text) is not None for text in texts_alone[:_ENOUGH]) * 2 > min(first.count(b"\n"), _ENOUGH):
        return _texts
    if not first.startswith(b"{"):
        return None
    texts = [(key, value) for line in first.splitlines()[:_ENOUGH] for key, value in _members(line).items()]
    with_calls = Counter(key for key, value in texts if _call_on(value.encode()))
    if not with_calls:
        return None
    key = with_calls.most_common(1)[0][0]
    return lambda data: _messages(data, key)


_JSON_TEXT: Final = rb'(?m)^[ \t]*"((?:[^"\\\n]|\\.)+)",?\r?$'
"""A text of JSON alone on its line, as `stderr_lines` of Ansible and pretty-printed lists have them."""


def _texts(data: bytes) -> bytes:
    """Return the texts of a list that stands a text a line, and other lines as they are."""
    return re.sub(_JSON_TEXT, lambda match: _text_of(match[1], match[0]), data)


def _text_of(inside: bytes, otherwise: bytes) -> bytes:
    import json

    try:
        text: str = json.loads(b'"' + inside + b'"')
    except ValueError:
        return otherwise
    return text.replace("\n", " ").encode("utf-8", "surrogateescape")


def _members(line: bytes) -> dict[str, str]:
    """Return the texts of a record by their names, none where the line is no record."""
    import json

    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return {key: value for key, value in record.items() if isinstance(value, str)} if isinstance(record, dict) else {}


def _messages(data: bytes, key: str) -> bytes:
    """Return the texts of that name, a line each; docker gives a long line in pieces, all but the last without end."""
    out, held = [], ""
    for line in data.split(b"\n")[: -1 if data.endswith(b"\n") else None]:
        members = _members(line)
        text = held + members.get(key, "") if members else held + line.decode("utf-8", "surrogateescape")
        in_pieces = key == "log" and bool(members) and not text.endswith("\n")
        held = text if in_pieces else ""
        out.append("" if in_pieces else text.rstrip("\r\n").replace("\n", " "))
    out[-1] = out[-1] or held
    return "\n".join(out).encode("utf-8", "surrogateescape") + b"\n" * data.endswith(b"\n")


# --- the same end on all lines ---

_ENDS: Final = rb"(?m)[ \t]*(?:<(?:br ?/?|/\w+)>|\\|\||\xe2\x94\x82)[ \t]*(?=\r?$)"
"""What pages, Markdown and the panes of terminals put behind each line; neither strace nor ltrace ends one so."""


def _suffix_step(lines: bytes) -> Step | None:
    """Return what takes off the end that most lines have and that is of a page or a terminal, None without one."""
    first = b"\n".join(lines.split(b"\n", _ENOUGH)[:_ENOUGH]).strip()
    ended = len(re.findall(_ENDS, first))
    least, of_all = _MOST_LINES
    return _without_ends if ended and ended * of_all >= least * (first.count(b"\n") + 1) else None


def _without_ends(data: bytes) -> bytes:
    return re.sub(_ENDS, b"", data)


# --- text that was copied from a page ---

_NO_BREAK: Final = rb"\xc2\xa0|\xe2\x80[\x87\xaf]|(?<![\x80-\xff])\xa0(?![\x80-\xff])"
_ENTITIES: Final = {b"&lt;": b"<", b"&gt;": b">", b"&quot;": b'"', b"&#34;": b'"', b"&#39;": b"'", b"&nbsp;": b" "}
_ESCAPED: Final = rb"\\([_*|<>\[\]~`#-])"
"""What Markdown wants a backslash before; strace and ltrace write none of these so."""

_TYPESET: Final = {
    **dict.fromkeys((b"\xe2\x80\x9c", b"\xe2\x80\x9d", b"\xe2\x80\x9e"), b'"'),
    **dict.fromkeys((b"\xe2\x80\x93", b"\xe2\x88\x92", b"\xe2\x80\x90", b"\xe2\x80\x91"), b"-"),
    b"\xe2\x80\xa6": b"...",
    b"\xe2\x80\x8b": b"",
}


def _page_step(lines: bytes) -> Step | None:
    """Return what undoes the spaces, quotes and entities of a page, None where there are none."""
    ascii_alone = lines.isascii()
    spaced = not ascii_alone and re.search(
        rb"(?m)\)(?:" + _NO_BREAK + rb")|(?:" + _NO_BREAK + rb")=|^(?:" + _NO_BREAK + rb")", lines
    )
    entities = any(name in lines and mark not in lines for name, mark in ((b"&quot;", b'"'), (b"&lt;", b"<")))
    typeset = b'"' not in lines and any(quote in lines for quote in (b"\xe2\x80\x9c", b"\xe2\x80\x9d"))
    minus = rb"[,=] (?:\xe2\x80\x93|\xe2\x88\x92)1\b"
    typeset = typeset or (not ascii_alone and re.search(minus, lines) is not None)
    escaped = b"\\_" in lines and re.search(rb"\b(?:PROT|MAP)\\_", lines) is not None
    if not (spaced or entities or typeset or escaped):
        return None
    table = (_ENTITIES if entities else {}) | (_TYPESET if typeset else {})
    return lambda data: _unset(re.sub(_ESCAPED, rb"\1", data) if escaped else data, table)


def _unset(data: bytes, table: dict[bytes, bytes]) -> bytes:
    """Return text with plain spaces, and with what `table` names replaced."""
    data = re.sub(_NO_BREAK, b" ", data)
    for old, new in table.items():
        data = data.replace(old, new)
    return data.replace(b"&amp;", b"&") if b"&lt;" in table else data


# --- the same prefix on all lines ---


def _prefix_step(lines: bytes) -> Step | None:
    """Return what takes off the prefix that all lines have, None where they have none."""
    if looks_native(lines):
        return None
    found = prefix_of(lines)
    return found.taken_off if found is not None and found.is_the_same else None


def looks_native(lines: bytes) -> bool:
    """Tell whether at least half of the first lines begin as those of strace and ltrace do."""
    first = b"\n".join(lines.split(b"\n", _ENOUGH)[:_ENOUGH]).strip()
    return 2 * len(re.findall(rb"(?m)^" + TRACER + EVENT, first)) > first.count(b"\n")


def prefix_of(lines: bytes) -> Prefixed | None:
    """Return what stands before most calls and is not of the tracer, None where that is nothing."""
    heads = _heads(lines)
    if not heads:
        return None
    foreign = _numbers_of_lines(lines) or [_foreign(head) for head in heads]
    patterns = Counter(map(_pattern_of, foreign))
    pattern, count = patterns.most_common(1)[0]
    if not pattern:
        return None
    example = next(head for head in foreign if _pattern_of(head) == pattern)
    return Prefixed(example, pattern, count / len(foreign))


def _heads(lines: bytes) -> list[bytes]:
    """Return what stands before the first calls on their lines: those of interest, if there are any."""
    others: list[bytes] = []
    heads: list[bytes] = []
    for line in lines.splitlines():
        call = _call_on(line)
        if call is None:
            continue
        kept = heads if _is_of_interest(call) else others
        kept.append(line[: call.start()])
        if len(heads) == _ENOUGH:
            break
    return heads or others[:_ENOUGH]


def _call_on(line: bytes) -> re.Match[bytes] | None:
    """Return the first call on a line, of those of interest if there are any."""
    calls = list(re.finditer(_CALL, _blanked(line)))
    return next(filter(_is_of_interest, calls), calls[0] if calls else None)


def _is_of_interest(call: re.Match[bytes]) -> bool:
    name = call[1]
    return name.removeprefix(b"SYS_") in _NAMES or name.startswith((b"_Zn", b"_Zd"))


def _blanked(line: bytes) -> bytes:
    """Return a line with nothing but dots between quotes."""
    return re.sub(STRING, lambda match: b'"' + b"." * (len(match[0]) - 2) + b'"', line) if b'"' in line else line


def _numbers_of_lines(lines: bytes) -> list[bytes]:
    """Return the plain numbers that count the lines, with the space around them, as `less -N` and editors show them."""
    found = [re.match(rb" *#?([0-9]+) ", line) for line in lines.splitlines()[:_ENOUGH]]
    numbers = [int(match[1]) for match in found if match]
    counted = len(found) > 2 and numbers == list(range(numbers[0], numbers[0] + len(found))) if numbers else False
    return [match[0] for match in found if match] if counted else []


# --- what QEMU says of a program that it emulates (qemu-user -strace) ---

_QEMU: Final = rb"(?m)^[0-9]+ \w+\([^ \n]*(?:,[^ \n]*\) = 0x[0-9a-f]{8,16}\r?$|\) = -1 errno=[0-9]+ \()"
_QEMU_ERRNO: Final = rb"(?m)(\) = -1) errno=([0-9]+)(?= \([^()\n]*\)\r?$)"
_QEMU_EXIT: Final = rb"(?m)(^[0-9]+ (?:exit|exit_group|_exit)\([0-9]+\))(?=\r?$)"


def _qemu_step(lines: bytes) -> Step | None:
    """Return what gives errors and exits of QEMU's own log the form of strace, None for other logs.

    Source: print_syscall_err and print_syscall in linux-user/strace.c of QEMU: no blank between arguments, an error
    by its number, nothing behind a call that does not return.
    """
    return _as_strace if re.search(_QEMU, lines) else None


def _as_strace(data: bytes) -> bytes:
    return re.sub(_QEMU_EXIT, rb"\1 = ?", re.sub(_QEMU_ERRNO, _named_error, data))


def _named_error(found: re.Match[bytes]) -> bytes:
    number = int(found[2])
    return found[1] + f" {ERRNO_NAME.get(number, f'E{number}')}".encode()


_DAY_OR_MONTH: Final = (
    rb"(?<![A-Za-z])(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)(?![a-z])"
)
_GREP: Final = rb"(?:[^\s:]*[A-Za-z/][^\s:]*[:-])?[0-9]+[:-]"
_EDGE: Final = rb"(?<![^\s|>)\]}+#;])"


def _foreign(head: bytes) -> bytes:
    """Return what of the text before a call is not of the tracer: all but the longest end that is."""
    if re.fullmatch(TRACER + rb" *", head):
        return b""
    grep = re.fullmatch(rb"(" + _GREP + rb") *" + TRACER + rb" *", head)
    if grep:
        return grep[1]
    day = re.search(_DAY_OR_MONTH + rb" +[0-9]{1,2} +", head)
    own = re.compile(_EDGE + rb"(?:" + TRACER + rb")\Z").search(head, day.end() if day else 0)
    return head[: own.start()] if own else head


_TOKEN: Final = rb"(?P<number>[0-9]+)|(?P<name>" + _DAY_OR_MONTH + rb")|(?P<half>[AP]M)|(?P<spaces> +)|(?P<other>.)"


def _pattern_of(foreign: bytes) -> bytes:
    """Return a pattern of prefixes that differ in numbers, days, months and padding only, for `sed -E` as well."""
    out = []
    for match in re.finditer(_TOKEN, foreign):
        before_number = foreign[match.end() : match.end() + 1].isdigit()
        at_end = match.end() == len(foreign)
        kinds = {
            "number": b"[0-9]+",
            "name": b"[A-Z][a-z][a-z]",
            "half": b"[AP]M",
            "spaces": match[0] if at_end else b" *" if before_number or not match.start() else b" +",
            "other": re.sub(rb"([\\.*+?^$|()\[\]{}])", rb"\\\1", match[0]).replace(b"\t", b"\\t"),
        }
        out.append(kinds[match.lastgroup or "other"])
    return b"".join(out)
