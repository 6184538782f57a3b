"""What the grammar of ltrace found in a line in, a `Line` out.

Each method of `Lines` is named for a rule of `grammars/ltrace.lark` and says what that rule means. ltrace prints more
arguments than a function without a prototype has: the signatures here and in `fields` say how many are true. Nothing
here knows the line before or after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from lark import Token, Transformer

from replay.grammar import LineError
from replay.grammar.fields import NUMBER_FIELDS, argument_fields, call_name
from replay.grammar.line import Line, Number, Text
from replay.linux.constants import CALL_CODE, FORK_CALLS, SECOND

Fields: TypeAlias = dict[str, Number | Text]
"""Fields by name; in the end a `Number` goes to the line's numbers, a `Text` to its texts."""

Value: TypeAlias = Number | Text | None
"""An argument or a result; None for one that is neither a number nor a string."""

MALLOC_FAMILY: Final = {
    name: tuple(fields.split())
    for name, fields in {
        "malloc": "length",
        "calloc": "count size",
        "realloc": "addr length",
        "reallocarray": "addr count size",
        "free": "addr",
        "posix_memalign": "addr align length",
        "aligned_alloc": "align length",
        "memalign": "align length",
        "valloc": "length",
        "pvalloc": "length",
        "strdup": "",
        "strndup": "",
        "asprintf": "",
        "malloc_usable_size": "addr",
        "malloc_trim": "length",
        "mallopt": "op arg2",
        "sbrk": "length",
        "pthread_create": "",
        "abort": "",
    }.items()
}
"""The fields of the true arguments of libc's functions, in order; all are numbers."""

OPERATOR: Final = re.compile(
    r"_Z(?:n(?P<new>[wa])|d(?P<delete>[la])(?P<pointer>Pv))(?P<size>[mjy])?(?P<align>St11align_val_t)?"
    r"(?:RKSt9nothrow_t)?"
)
"""A mangled `operator new` or `delete`, sized, aligned or nothrow. Source: Itanium C++ ABI, 5.1.5 and 5.1.3."""

DEMANGLED: Final = re.compile(r"operator (?P<call>(?:new|delete)(?:\[\])?)\((?P<parameters>[^()]*)\)")
"""The same as `ltrace -C` prints it."""

PARAMETERS: Final = {
    "void*": "addr",
    "unsigned long": "length",
    "unsigned int": "length",
    "std::align_val_t": "align",
}
"""The fields of the parameters of `operator new` and `delete`, by their types."""

PAGE: Final = 4096
"""The unit of the offset of mmap2, in bytes."""

TRUE: Final = Number(1)

SLOT: Final = re.compile(r"(?<![A-Za-z_])[0-9]")
"""What lines of one shape may differ in; a text that has none is the same in all of them."""


class Callee(NamedTuple):
    """What is called: its name as printed and normalised, the fields of its arguments, and those of where it is."""

    name: str
    call: str
    places: tuple[str, ...]
    fields: Fields


class Event(NamedTuple):
    """A line without its prefix; `kind` as in `lines`, `callee` None where there is no call."""

    kind: str
    fields: Fields
    callee: Callee | None = None


class Lines(Transformer[Token, Line]):
    """Turns what each rule of the grammar found, innermost first, into what it says; the whole into a `Line`."""

    # -- the line and its prefix --

    def line(self, parts: list[Any]) -> Line:
        """Return the line: the fields of its prefix and of its event."""
        *prefix, event = parts
        fields = _merged([*prefix, event.fields])
        numbers = {key: value for key, value in fields.items() if isinstance(value, Number)}
        texts = {key: value for key, value in fields.items() if isinstance(value, Text)}
        callee = event.callee or Callee("", "", (), {})
        return Line(event.kind, callee.name, callee.call, numbers, texts)

    def pid(self, parts: list[Token]) -> Fields:
        """Return the pid."""
        return {"pid": _number(parts[0])}

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

    # -- what is called --

    def NAME(self, token: Token) -> Callee:
        """Return a function of libc, or an operator of C++; end the parse at any other.

        A library's wrapper of a system call goes by the name of that and has its fields; what it lacks is `system`.

        Raises:
            LineError: it is of no interest.
        """
        if token in MALLOC_FAMILY:
            return Callee(str(token), str(token), MALLOC_FAMILY[token], {})
        if operator := _mangled(token):
            return operator
        if token.startswith("SYS_") or not call_name(token):
            raise LineError("other_call", token.start_pos or 0)
        return Callee(str(token), call_name(str(token)), argument_fields(token), {})

    def OPERATOR(self, token: Token) -> Callee:
        """Return an operator of C++ that `-C` has demangled."""
        found = DEMANGLED.fullmatch(token)
        parameters = found["parameters"].split(", ") if found else []
        places = tuple(PARAMETERS.get(parameter, "") for parameter in parameters)
        if found is None or (found["call"].startswith("new") and "addr" in places):  # placement new allocates nothing
            raise LineError("other_call", token.start_pos or 0)
        return Callee(str(token), found["call"], places, {})

    def SYSTEM(self, token: Token) -> Callee:
        """Return a system call: `SYS_brk`, `SYS_334`, or `brk` of `brk@SYS`; end the parse at one of no interest.

        Raises:
            LineError: it is of no interest.
        """
        bare = token.removeprefix("SYS_")
        printed = str(token) if bare[:1].isdigit() else bare
        if not call_name(printed) or bare in MALLOC_FAMILY:
            raise LineError("other_call", token.start_pos or 0)
        return Callee(str(token), call_name(printed), argument_fields(printed), {"system": TRUE})

    ENTRY = SYSTEM

    def RESUMED(self, token: Token) -> Callee:
        """Return the name of a call that goes on; without `SYS_`, 0.8's system calls look like libc's functions."""
        return self.SYSTEM(token) if token.startswith("SYS_") else self.NAME(token)

    def CALLER(self, token: Token) -> Fields:
        """Return the module that calls."""
        return {"caller": _opaque(token, token.start_pos or 0, len(token) - len("->"))}

    def library(self, parts: list[Token]) -> Fields:
        """Return the library whose function is called."""
        return {"library": _opaque(parts[0], parts[0].start_pos or 0, len(parts[0]))}

    def system_entry(self, parts: list[Callee]) -> Callee:
        """Return a system call."""
        return parts[0]

    def other(self, _: list[Any]) -> NoReturn:
        """Pass over a call of no interest."""
        raise LineError("other_call")

    # -- calls --

    def call(self, parts: list[Any]) -> Event:
        """Return a whole call."""
        (callee, fields), result = parts
        return Event("call", fields | _result(callee, result), callee)

    def opened(self, parts: list[Any]) -> Event:
        """Return a call that goes on in a later line."""
        callee, fields = parts[0]
        return Event("opened", fields, callee)

    def lost(self, parts: list[Any]) -> Event:
        """Return a call that ltrace does not expect back; it may return all the same."""
        callee, fields = parts[0]
        return Event("opened", fields | {"no_return": TRUE}, callee)

    def closed(self, parts: list[Any]) -> Event:
        """Return the rest of a call: its result; of arguments printed only now the places are unknown."""
        callee, *_, result = parts
        return Event("closed", callee.fields | _result(callee, result), callee)

    def call_head(self, parts: list[Any]) -> tuple[Callee, Fields]:
        """Return what is called, and the fields of caller, library and arguments."""
        *around, arguments = parts
        callee = next(part for part in around if isinstance(part, Callee))
        named = [part for part in around if isinstance(part, dict)]
        return callee, _merged([callee.fields, *named, _arguments(callee, arguments)])

    # -- values --

    def arguments(self, parts: list[Value]) -> list[Value]:
        """Return the arguments."""
        return parts

    def result(self, parts: list[Any]) -> Fields:
        """Return the result, unless it is none, and the duration."""
        value, *duration = parts
        fields: Fields = {}
        if value is UNKNOWN:
            fields = {"unknown_result": TRUE}
        elif isinstance(value, Number):
            fields = {"result": value}
        return _merged([fields, *duration])

    def number(self, parts: list[Token]) -> Number:
        """Return a number."""
        return _number(parts[0])

    def negative(self, parts: list[Token]) -> Number:
        """Return a negative number."""
        return _number(parts[0], -1)

    def null(self, _: list[Token]) -> Number:
        """Return the null pointer."""
        return Number(0)

    def string(self, parts: list[Token]) -> Text:
        """Return what stands between the quotes."""
        start = parts[0].start_pos or 0
        return Text(None, start + 1, start + parts[0].rindex('"'))

    def unknown(self, _: list[Token]) -> Text:
        """Return that the value is not known."""
        return UNKNOWN

    def opaque(self, _: list[Any]) -> None:
        """Return nothing: no field is made of it."""

    def duration(self, parts: list[Token]) -> Fields:
        """Return the nanoseconds inside the call."""
        return {"duration": _seconds(parts)}

    # -- other events --

    def signal(self, parts: list[Token]) -> Event:
        """Return a signal."""
        return Event("signal", {"signal": Text(str(parts[0]))})

    def new_program(self, _: list[Token]) -> Event:
        """Return that the process runs another program now."""
        return Event("exec", {})

    def exited(self, parts: list[Token]) -> Event:
        """Return a process's end by exit."""
        return Event("exited", {"exit_status": _number(parts[0])})

    def killed(self, parts: list[Token]) -> Event:
        """Return a process's end by a signal."""
        return Event("killed", {"signal": Text(str(parts[0]))})

    def frame(self, parts: list[Token]) -> Event:
        """Return a stack frame: its function and, from 0.8 on, its module."""
        names = {"MODULE": "frame_module", "FUNCTION": "frame_symbol"}
        found = {names[part.type]: part for part in parts if part.type in names}
        return Event("frame", {key: _opaque(part, part.start_pos or 0, len(part)) for key, part in found.items()})

    def noise(self, _: list[Token]) -> Event:
        """Return a line of a table, a message or nothing: understood, and nothing said."""
        return Event("noise", {})

    breakpoint = noise


UNKNOWN: Final = Text("?")
"""A value that ltrace could not read."""


def _mangled(name: str) -> Callee | None:
    """Return the operator new or delete that a mangled name stands for, None for any other."""
    found = OPERATOR.fullmatch(name)
    if found is None or (found["new"] and not found["size"]):
        return None
    array = {"a": "[]"}.get(found["new"] or found["delete"], "")
    places = [("addr", found["pointer"]), ("length", found["size"]), ("align", found["align"])]
    call = ("new" if found["new"] else "delete") + array
    return Callee(name, call, tuple(place for place, there in places if there), {})


def _arguments(callee: Callee, values: Sequence[Value]) -> Fields:
    """Return the fields of the true arguments."""
    library = CALL_CODE.get(callee.call, -1) >= CALL_CODE["malloc"]
    fields: Fields = {}
    for place, value in zip(callee.places, values, strict=False):
        if isinstance(value, Number) and (place in NUMBER_FIELDS or (library and place)):
            fields[place] = value
        elif isinstance(value, Text) and value is not UNKNOWN and place == "path":
            fields["path"] = value
    if callee.name.endswith("mmap2") and isinstance(offset := fields.get("offset"), Number):
        fields["offset"] = Number(0, tuple((start, end, factor * PAGE) for start, end, factor in offset.terms))
    if callee.call == "prctl":  # where it tells of memory, the third argument is an address
        return {{"arg3": "addr", "arg4": "length"}.get(key, key): value for key, value in fields.items()}
    return fields


def _result(callee: Callee, result: Fields) -> Fields:
    """Return the fields of a result as those of what was called."""
    call = callee.call or call_name(callee.name)
    same = "child_pid" if call in FORK_CALLS else "shmid" if call == "shmget" else ""
    return result | {same: result["result"]} if same and "result" in result else result


def _number(token: Token, factor: int = 1) -> Number:
    """Return `factor` times what the token writes."""
    start = token.start_pos or 0
    return Number(0, ((start, start + len(token), factor),))


def _seconds(tokens: Sequence[Token]) -> Number:
    """Return the nanoseconds of whole seconds and, if they are there, the digits behind the point."""
    whole, *fraction = tokens
    return _sum(_number(whole, SECOND), *(_number(digits, 10 ** (9 - len(digits))) for digits in fraction))


def _sum(*numbers: Number) -> Number:
    """Return the sum."""
    return Number(0, tuple(term for number in numbers for term in number.terms))


def _opaque(text: str, start: int, length: int) -> Text:
    """Return a text that is part of the shape, or its span where it holds what lines of one shape may differ in."""
    return Text(None, start, start + length) if SLOT.search(text[:length]) else Text(str(text[:length]))


def _merged(parts: Sequence[Fields]) -> Fields:
    """Return the fields of all parts."""
    return {key: value for part in parts for key, value in part.items()}
