"""What the grammar of strace found in a line in, a `Line` out.

Each method of `Lines` is named for a rule of `grammars/strace.lark` and says what that rule means; which argument is
which field stands in `fields`. Nothing here knows the line before or after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from lark import Token, Transformer

from replay.grammar import LineError
from replay.grammar.fields import call_name
from replay.grammar.line import LONGEST_TOKEN, Line, Number, Text, token_value
from replay.grammar.strace_fields import (
    FIRST,
    RAW_IPC,
    TRUE,
    Fields,
    Head,
    Value,
    arguments_of,
    merged,
    named_arguments_of,
    result_fields,
    returned_fields,
)
from replay.linux.constants import ERRNO, ERRNO_ALIASES, KERNEL_ERRNO, SECOND, VALUES

ERRNO_VALUES: Final = ERRNO | ERRNO_ALIASES | KERNEL_ERRNO

SLOT: Final = re.compile(r'(?<![A-Za-z_])[0-9]|"')
"""What lines of one shape may differ in; a text that has none is the same in all of them."""


CHILD_ENDED: Final = r"si_code=CLD_(?:EXITED|KILLED|DUMPED)\b"
"""Source: sigaction(2): si_code of SIGCHLD."""


class Event(NamedTuple):
    """A line without its prefix; `kind` as in `lines`, `name` as printed, '' where there is no call."""

    kind: str
    fields: Fields
    name: str = ""


class Lines(Transformer[Token, Line]):
    """Turns what each rule of the grammar found, innermost first, into what it says; the whole into a `Line`."""

    def CALL(self, token: Token) -> Token:
        """Return the name of a call of interest; end the parse at any other.

        Raises:
            LineError: it is another call.
        """
        if not call_name(token):
            raise LineError("other_call", token.start_pos or 0)
        return token

    RESUMED = CALL

    # -- the line and its prefix --

    def line(self, parts: list[Any]) -> Line:
        """Return the line: the fields of its prefix, if it has one, and of its event."""
        event: Event = parts[-1]
        fields = merged([*parts[:-1], event.fields])
        numbers = {key: value for key, value in fields.items() if isinstance(value, Number)}
        texts = {key: value for key, value in fields.items() if isinstance(value, Text)}
        return Line(event.kind, event.name, call_name(event.name), numbers, texts)

    def pid(self, parts: list[Token]) -> Fields:
        """Return the pid and the command's name, where it is printed."""
        pid, *comm = parts
        return {"pid": _number(pid)} | ({"comm": _inner(comm[0])} if comm else {})

    def since_midnight(self, parts: list[Token]) -> Fields:
        """Return the time of day, in nanoseconds since midnight."""
        hours, minutes, *seconds = parts
        return {"time": _sum(_number(hours, 3600 * SECOND), _number(minutes, 60 * SECOND), _seconds(seconds))}

    def since_epoch(self, parts: list[Token]) -> Fields:
        """Return the time in nanoseconds since 1970."""
        return {"time": _seconds(parts)}

    def relative(self, parts: list[Token]) -> Fields:
        """Return the nanoseconds since the line before."""
        return {"relative": _seconds(parts)}

    def call_number(self, _: list[Token]) -> Fields:
        """Return nothing: the number of a call adds nothing to its name."""
        return {}

    # -- calls --

    def call(self, parts: list[Any]) -> Event:
        """Return a whole call."""
        head, result = parts
        if head.name == "shmat" and len(head.arguments) == len(RAW_IPC["shmat"]):  # ipc(2) returns no address
            result = {key: value for key, value in result.items() if key != "result"}
        return Event("call", arguments_of(head) | result_fields(head.name, result), head.name)

    def call_ended(self, parts: list[Any]) -> Event:
        """Return a call inside which its process ended."""
        return Event("call", arguments_of(parts[0]) | {"unknown_result": TRUE}, parts[0].name)

    def opened(self, parts: list[Head]) -> Event:
        """Return a call that goes on in a later line."""
        return Event("opened", arguments_of(parts[0]), parts[0].name)

    def closed(self, parts: list[Any]) -> Event:
        """Return the rest of a call: its result, and what was printed by name."""
        head, result = parts
        return Event("closed", named_arguments_of(head) | result_fields(head.name, result), head.name)

    def closed_ended(self, parts: list[Any]) -> Event:
        """Return the rest of a call inside which its process ended."""
        return Event("closed", {"unknown_result": TRUE}, parts[0].name)

    def reopened(self, parts: list[Head]) -> Event:
        """Return a call that was resumed and cut once more: it is still open."""
        return Event("opened", named_arguments_of(parts[0]), parts[0].name)

    def detached(self, parts: list[Head]) -> Event:
        """Return a call whose end the tracer did not wait for."""
        return Event("detached", arguments_of(parts[0]), parts[0].name)

    def pid_changed(self, parts: list[Any]) -> Event:
        """Return an execve that ends in another thread, the leader."""
        head, pid = parts[:2]
        return Event("pid_changed", arguments_of(head) | {"to_pid": _number(pid)}, head.name)

    def call_head(self, parts: list[Any]) -> Head:
        """Return the name and the arguments so far."""
        return Head(str(parts[0]), [part for part in parts[1:] if isinstance(part, Value)])

    resumed_head = call_head

    # -- arguments --

    def named(self, parts: list[Any]) -> Value:
        """Return an argument or a member with its name."""
        value: Value = parts[1]
        return value._replace(name=str(parts[0][:-1]))

    def before(self, parts: list[Value]) -> Value:
        """Return what stood in memory before the call."""
        return parts[0]

    def either(self, parts: list[Value]) -> Value:
        """Return the union of two sets of flags; a name not known adds nothing."""
        known = [part.number for part in parts if part.number is not None]
        linear = all(part.linear for part in parts)
        return Value(number=_sum(*known) if known else None, linear=linear)

    def number(self, parts: list[Token]) -> Value:
        """Return a number; one with a leading zero is octal, as modes are."""
        digits = parts[0]
        if len(digits) > 1 and digits.isdecimal() and digits[0] == "0":
            return Value(number=Number(_octal(digits)), linear=False)
        return Value(number=_number(digits))

    def negative(self, parts: list[Token]) -> Value:
        """Return a number below zero."""
        return Value(number=_number(parts[0], -1))

    def shifted(self, parts: list[Token]) -> Value:
        """Return a huge page size, the base-2 logarithm shifted to its place in the flags."""
        shift = VALUES.get(parts[1])
        return Value(number=None if shift is None else _number(parts[0], 1 << shift))

    def product(self, parts: list[Token]) -> Value:
        """Return a product such as a limit's 8192*1024."""
        return Value(number=Number(token_value(parts[0]) * token_value(parts[1])), linear=False)

    def flags(self, parts: list[Token]) -> Value:
        """Return the number of a name, or of the union of names; a name that is not known adds nothing."""
        known = [VALUES[name] for name in parts[0].split("|") if name in VALUES]
        return Value(number=_sum(*map(Number, known)) if known else None)

    def string(self, parts: list[Token]) -> Value:
        """Return a quoted string."""
        return Value(text=_inner(parts[0]))

    def struct(self, parts: list[Value | None]) -> Value:
        """Return a structure: its members by name."""
        return Value(members={member.name: member for member in parts if member and member.name})

    def opaque(self, parts: list[Any]) -> Value:
        """Return the first element of an array; nothing is made of the others, a macro or what was left out."""
        first = next((part for part in parts if isinstance(part, Value)), None)
        return Value(members={FIRST: first}) if first is not None else Value()

    def with_path(self, parts: list[Any]) -> Value:
        """Return a descriptor with its path."""
        value: Value = parts[0]
        path, *deleted = parts[1:]
        return value._replace(path=_inner(path), deleted=bool(deleted))

    def with_note(self, parts: list[Any]) -> Value:
        """Return the value alone: the number rules, not the comment."""
        value: Value = parts[0]
        return value

    def comment(self, _: list[Token]) -> None:
        """Return nothing."""

    # -- results --

    def result(self, parts: list[Any]) -> Fields:
        """Return the result, of a descriptor its path, an error's number, and what the notes say."""
        return merged([returned_fields(part) if isinstance(part, Value) else part for part in parts])

    def ERRNO(self, token: Token) -> Fields:
        """Return the number of an error, nothing for a name that is not known."""
        return {"errno": Number(ERRNO_VALUES[token])} if token in ERRNO_VALUES else {}

    def unknown(self, parts: list[Fields]) -> Fields:
        """Return that the result is not known, and the error by which the kernel asks for a restart."""
        return merged([{"unknown_result": TRUE}, *parts])

    def note(self, words: list[Token]) -> Fields:
        """Return what a text in parentheses says of the call: injected, or an error without a name.

        `(INJECTED: args)` alone says that the call ran, with other arguments.
        """
        text = str(words[0]) if words else ""
        if text == "errno " and len(words) == 2:
            return {"errno": _number(words[1])}
        injected = text == "INJECTED" or (text.startswith("INJECTED:") and "retval" in text)
        return {"injected": TRUE} if injected else {}

    def duration(self, parts: list[Token]) -> Fields:
        """Return the nanoseconds inside the call."""
        return {"duration": _seconds(parts)}

    # -- other events --

    def signal(self, parts: list[Token]) -> Event:
        """Return a signal, the first of the names; if it tells of the end of a child, that and the child's pid."""
        names = [part for part in parts if part.type == "SIGNAL"]
        if names and names[0] == "SIGCHLD" and any(re.search(CHILD_ENDED, part) for part in parts):
            behind = [part for before, part in pairwise(parts) if before.endswith("si_pid=") and part.type == "NUMBER"]
            if behind:
                return Event("child_ended", {"to_pid": _number(behind[0])})
        return Event("signal", {"signal": Text(str(names[0]))} if names else {})

    def exited(self, parts: list[Token]) -> Event:
        """Return a process's end by exit."""
        return Event("exited", {"exit_status": _number(parts[0])})

    def killed(self, parts: list[Token]) -> Event:
        """Return a process's end by a signal."""
        return Event("killed", {"signal": Text(str(parts[0]))})

    def superseded(self, parts: list[Token]) -> Event:
        """Return the end of a thread group's leader by the execve of another thread."""
        return Event("superseded", {"to_pid": _number(parts[0])})

    def notice(self, parts: list[Token]) -> Event:
        """Return how many bits the process's addresses have: 32 (x32 too) or 64."""
        bits = Number(32) if parts[-1].type == "X32" else _number(parts[-1])
        return Event("notice", {"to_pid": _number(parts[0]), "bits": bits})

    def frame(self, parts: list[Token]) -> Event:
        """Return a stack frame: module and symbol, where they are known."""
        names = {"MODULE": "frame_module", "SYMBOL": "frame_symbol"}
        return Event("frame", {names[part.type]: _opaque(part) for part in parts if part.type in names})

    def noise(self, _: list[Token]) -> Event:
        """Return a line of a dump, a table or a message: understood, and nothing said."""
        return Event("noise", {})


def _number(token: Token, factor: int = 1) -> Number:
    """Return `factor` times what the token writes."""
    return Number(0, ((*_span(token), factor),))


def _seconds(tokens: Sequence[Token]) -> Number:
    """Return the nanoseconds of whole seconds and, if they are there, the digits behind the point."""
    whole, *fraction = tokens
    parts = [_number(digits, 10 ** (9 - len(digits))) for digits in fraction]
    return _sum(_number(whole, SECOND), *parts)


def _sum(*numbers: Number) -> Number:
    """Return the sum; constants that are sets of bits are united."""
    const = 0
    for number in numbers:
        const = const | number.const if const >= 0 <= number.const else const + number.const
    return Number(const, tuple(term for number in numbers for term in number.terms))


def _octal(digits: str) -> int:
    """Return the number that octal digits write, and what decimal ones do where they cannot be octal."""
    return token_value(digits) if set(digits) - set("01234567") or len(digits) > LONGEST_TOKEN else int(digits, 8)


def _span(token: Token) -> tuple[int, int]:
    """Return where in the line the token stands, [start, end)."""
    start = token.start_pos or 0
    return start, start + len(token)


def _inner(token: Token) -> Text:
    """Return the text inside quotes or angle brackets."""
    start, end = _span(token)
    return Text(None, start + 1, end - (4 if token.endswith('"...') else 1))


def _opaque(token: Token) -> Text:
    """Return a text that is part of the shape, or a span where it holds what lines of one shape may differ in."""
    return Text(None, *_span(token)) if SLOT.search(token) else Text(str(token))
