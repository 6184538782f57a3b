"""What the arguments and the result of a call of strace are: the fields of a line, by the call's name.

In go arguments by name or place, as `strace` finds them in a line, out come fields; which argument is which field
stands in `fields`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from replay.grammar.fields import NUMBER_FIELDS, OPENS, PRINTED_LAST, argument_fields, call_name, field_of
from replay.grammar.line import Number, Text
from replay.linux.constants import FORK_CALLS, PR

Fields: TypeAlias = dict[str, Number | Text]
"""Fields by name; in the end a `Number` goes to the line's numbers, a `Text` to its texts."""

TRUE: Final = Number(1)

MEMORY_OPTIONS: Final = frozenset({PR["PR_SET_VMA"], PR["PR_SET_MM"]})
"""Options of prctl whose third argument is an address."""

FIRST: Final = "[0]"
"""The name of an array's first element."""


RAW_IPC: Final = {"shmat": ("shmid", "flags", "", "addr"), "shmdt": ("", "", "", "addr")}
"""The fields of the raw arguments of calls that 32-bit programs make by ipc(2): those of ipc behind its first."""


class Value(NamedTuple):
    """An argument, or a part of one; what it has not is None or empty.

    `linear` is false where the number is known but is no linear form over tokens: a product, an octal.
    """

    number: Number | None = None
    text: Text | None = None
    path: Text | None = None
    deleted: bool = False
    linear: bool = True
    name: str = ""
    members: Mapping[str, Value] = MappingProxyType({})


class Head(NamedTuple):
    """A call up to where its arguments end: its name as printed, and its arguments printed so far."""

    name: str
    arguments: list[Value]


def returned_fields(value: Value) -> Fields:
    """Return the fields of what a call returned."""
    fields: Fields = {} if value.number is None else {"result": value.number}
    if value.path is not None:
        fields["result_path"] = value.path
    if value.deleted:
        fields["result_deleted"] = TRUE
    return fields


def merged(parts: Sequence[Fields | None]) -> Fields:
    """Return the fields of all parts."""
    return {key: value for part in parts if part for key, value in part.items()}


def result_fields(name: str, result: Fields) -> Fields:
    """Return the fields of a result as those of the call `name`."""
    call = call_name(name)
    if call in FORK_CALLS:
        extra = {"child_pid": result["result"]} if "result" in result and "errno" not in result else {}
        return {key: value for key, value in result.items() if key != "result_path"} | extra
    if call == "shmget" and "result" in result:
        return result | {"shmid": result["result"]}
    return result if call in OPENS else {k: v for k, v in result.items() if not k.startswith("result_")}


def arguments_of(head: Head) -> Fields:
    """Return the fields of the arguments, by their names where they have some, else by their places."""
    call, places = call_name(head.name), argument_fields(head.name)
    if call in RAW_IPC and len(head.arguments) > len(places):
        places = RAW_IPC[call]
    fields: Fields = {}
    for place, value in enumerate(head.arguments):
        name = _field_name(head.name, places, value) or (places[place] if place < len(places) else "")
        fields |= _field(name, value)
    if call == "shmget":  # its flags are octal, which a token does not show when they are 0
        fields["product"] = TRUE
    return _prctl(fields) if call == "prctl" else fields


def named_arguments_of(head: Head) -> Fields:
    """Return the fields of the arguments that have names: in the rest of a call the others' places are unknown."""
    places = argument_fields(head.name)
    last = PRINTED_LAST.get(head.name, ())
    unnamed = [value for value in head.arguments if not value.name]
    fields = merged([_field(_field_name(head.name, places, value), value) for value in head.arguments])
    return fields | merged([_field(name, value) for name, value in zip(last, unnamed, strict=False)])


def _field_name(printed: str, places: Sequence[str], value: Value) -> str:
    """Return the field that a named argument is, '' for one without a name."""
    raw = re.fullmatch(r"arg([1-6])", value.name)
    if raw is None:
        return field_of(printed, value.name)
    place = int(raw[1]) - 1
    return places[place] if place < len(places) else ""


def _field(name: str, value: Value) -> Fields:
    """Return the fields that an argument gives, known by the name of its place."""
    fields: Fields = dict(_numbers(name, value))
    if name in {"path", "arg5"} and value.text is not None:
        fields["path"] = value.text
    if name == "new_path" and value.text is not None:
        fields["result_path"] = value.text
    if name in {"fd", "dirfd"} and value.path is not None:
        fields["path" if name == "fd" else "dirfd_path"] = value.path
        if value.deleted:
            fields["deleted"] = TRUE
    return fields


MEMBERS: Final = {
    "new_limit": {"rlim_cur": "rlim_cur", "rlim_max": "rlim_max"},
    "args": {"flags": "flags"},
    "how": {"flags": "flags"},
    "buf": {"shm_segsz": "length"},
    "old_limit": {"rlim_cur": "length"},
    "context": {FIRST: "addr"},
}
"""Fields that members of a structure are, by the name of the argument's place."""


def _numbers(name: str, value: Value) -> Iterator[tuple[str, Number]]:
    """Yield the numeric fields that an argument gives, and `product` when one is no linear form."""
    found = {name: value} if name in NUMBER_FIELDS else {}
    for member, member_field in MEMBERS.get(name, {}).items():
        if member in value.members:
            found[member_field] = value.members[member]
    for found_name, found_value in found.items():
        if found_value.number is not None:
            yield found_name, found_value.number
            if not found_value.linear:
                yield "product", TRUE


def _prctl(fields: Fields) -> Fields:
    """Return the fields of a prctl, with the range of memory that it names."""
    option = fields.get("op")
    if not isinstance(option, Number) or (not option.terms and option.const not in MEMORY_OPTIONS):
        return fields
    names = {"arg3": "addr", "arg4": "length"}
    return fields | {names[key]: value for key, value in fields.items() if key in names}
