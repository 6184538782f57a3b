"""What all lines of one shape say: the parse of the first one, with slots in place of its tokens.

In goes a line and the slots that the scanner saw in it, out comes a `Template`. Only this module asks the grammar.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from replay.engine.structs import Value
from replay.grammar import LineError, parse
from replay.grammar.line import Line, Number, Text, token_value
from replay.lines.slots import ADDRESS, OCTAL, PATH
from replay.linux.constants import CALL_CODE
from replay.logs.dialect import DIALECTS

KINDS: Final = (
    "call opened closed detached pid_changed exited killed superseded signal exec notice frame noise child_ended seen"
).split()
"""What a line can be; a kind's code is its place here."""

KIND_CODE: Final = {name: code for code, name in enumerate(KINDS)}

TEXT_FIELDS: Final = ("path", "result_path", "caller", "frame_symbol", "frame_module")
"""The texts of a line that become columns."""


class Form(Value):
    """A number of each line of a shape: `const` plus the values of slots (by place in the line) times factors."""

    const: int
    terms: tuple[tuple[int, int], ...]


class Span(Value):
    """A text of each line of a shape.

    It runs from `before` bytes before the start of slot `first` to `behind` bytes behind the end of slot `last`;
    where `first` is -1 it is `const` in every line. `suffix` is added to it.
    """

    const: bytes
    first: int = -1
    before: int = 0
    last: int = -1
    behind: int = 0
    suffix: str = ""


class Template(Value):
    """What every line of a shape says: the kind of line, its call, and where its fields are."""

    kind: int
    call: int
    name: str
    dialect: int
    slots: int
    numbers: dict[str, Form]
    texts: dict[str, Span]


class Refused(Value):
    """Lines of this shape are not understood, or (`other_call`) passed over; or (`direct`) parsed one by one."""

    reason: str


Slots: TypeAlias = list[tuple[int, int, int]]
"""Start and end in the line, [start, end), and mark of each slot of one line."""


def shape_of(text: bytes, slots: Slots) -> bytes:
    """Return the shape of a line: the line with a newline, which is in none, and its mark in place of each slot."""
    pieces, place = [], 0
    for start, end, mark in slots:
        pieces += [text[place:start], b"\n", mark.to_bytes()]
        place = end
    return b"".join([*pieces, text[place:]])


_FRAME_OFFSET: Final = rb"\+(0x[0-9a-f]+)\) \["


_OF_THE_FIRST: Final = ("other_call", "impossible_value")
"""Reasons that say that a line is strace's all the same; what ltrace's grammar says of it then is nothing."""


def parse_line(text: bytes, dialect: str) -> tuple[Line, str]:
    """Return what a line says and in which dialect, `mixed` meaning either: malloc and its kin are ltrace's.

    Raises:
        LineError: the line is not understood.
    """
    if dialect != "mixed":
        return _parsed(text, dialect), dialect
    try:
        line = _parsed(text, "strace")
        if CALL_CODE.get(line.call, -1) >= CALL_CODE["malloc"]:
            return _parsed(text, "ltrace"), "ltrace"
        return line, "strace"
    except LineError as first:
        try:
            return _parsed(text, "ltrace"), "ltrace"
        except LineError as second:
            raise (first if first.reason in _OF_THE_FIRST else second) from second


def _parsed(text: bytes, dialect: str) -> Line:
    """Return what a line says.

    `mmap2` is 1 for a call of that name, `raw` too where all of its arguments are hexadecimal, its offset in pages;
    `reopened` is 1 where a resumed call is cut once more; `frame_offset` is how far into its symbol a stack frame is.
    """
    line = parse(text.decode("latin-1"), dialect)
    if not _all_fit(line, text.decode("latin-1")):
        raise LineError("impossible_value")
    if line.kind == "opened" and b" resumed>" in text:
        line.numbers["reopened"] = Number(1)
    if line.kind == "frame":
        for match in re.finditer(_FRAME_OFFSET, text):
            line.numbers["frame_offset"] = Number(0, ((match.start(1), match.end(1), 1),))
    length = line.numbers.get("length")
    if line.name == "mmap2":
        line.numbers["mmap2"] = Number(1)
    if line.name == "mmap2" and length is not None and length.terms:
        start = length.terms[0][0]
        if text.startswith(b"0x", start):
            line.numbers["raw"] = Number(1)
    return line


NARROW: Final = ("pid", "child_pid")
"""Fields that the tracer and the kernel give as an int; of a register that holds one, the upper half may be any."""

_MOST: Final = 1 << 64

CLOCKS: Final = ("time", "relative", "duration")
"""Fields in nanoseconds."""

_TOLD_BY_DIGITS: Final = ("time", "relative")
"""Fields that the grammars tell apart by how many digits there are."""

MOST_NS: Final = 1 << 62
"""No clock of a log says as much (it is the year 2116): of less, two can be added."""


def _all_fit(line: Line, text: str) -> bool:
    """Tell whether all numbers of a line fit their places: registers have 64 bits."""
    for key, number in line.numbers.items():
        value = number.value(text)
        if not -_MOST < value < _MOST or (key in NARROW and 1 << 32 <= value < _MOST - (1 << 31)):
            return False
        if key in CLOCKS and value >= MOST_NS:
            return False
        if any(token_value(text[start:end]) >= _MOST for start, end, _ in number.terms):
            return False
    return True


def template_of(line: Line, dialect: str, slots: Slots, text: bytes) -> Template | None:
    """Return the template of the parsed line `text`, None where its tokens are not the slots that the scanner saw."""
    if "product" in line.numbers:  # a number that is no linear form, such as 8192*1024 or an octal
        return None
    numbers: dict[str, Form] = {}
    for key, number in line.numbers.items():
        form = _form_of(number, slots, text)
        if form is None or (key in _TOLD_BY_DIGITS and any(slots[place][2] <= OCTAL for place, _ in form.terms)):
            return None  # it may be told by how many digits it has, and the shape does not tell those
        numbers[key] = form
    texts: dict[str, Span] = {}
    for key, value in line.texts.items():
        span = _span_of(value, slots, text) if key in TEXT_FIELDS else Span(b"")
        if span is None:
            return None
        texts[key] = span
    call = CALL_CODE.get(line.call, -1)
    texts = {key: span for key, span in texts.items() if key in TEXT_FIELDS}
    return Template(KIND_CODE[line.kind], call, line.name, DIALECTS.index(dialect), len(slots), numbers, texts)


def _form_of(number: Number, slots: Slots, text: bytes) -> Form | None:
    """Return a number of the line as a form over slots, None where a term is no whole slot."""
    const = number.const
    terms = []
    for start, end, factor in number.terms:
        if not isinstance(factor, int):  # more than nine digits behind the point of a second
            return None
        over = [index for index, slot in enumerate(slots) if slot[0] < end and slot[1] > start]
        if not over:
            const += Number(0, ((start, end, factor),)).value(text.decode("latin-1"))
        elif slots[over[0]][:2] == (start, end) and PATH < slots[over[0]][2] < ADDRESS:
            terms.append((over[0], factor))
        else:
            return None
    return Form(const, tuple(terms))


def _span_of(value: Text, slots: Slots, text: bytes) -> Span | None:
    """Return a text of the line as a span between slots, None where it begins or ends inside of one."""
    if value.const is not None:
        return Span(value.const.encode("latin-1"))
    start, end = value.start, value.end
    suffix = " (deleted)" if text.startswith(b">(deleted)", end) else ""
    over = [index for index, slot in enumerate(slots) if slot[0] < end and slot[1] > start]
    if not over and start == end:
        over = [index for index, slot in enumerate(slots) if slot[0] < start < slot[1]]
    if not over:
        return Span(text[start:end], suffix=suffix)
    first, last = slots[over[0]], slots[over[-1]]
    before, behind = first[0] - start, end - last[1]
    if before < (-1 if first[2] <= PATH else 0) or behind < (-1 if last[2] <= PATH else 0):
        return None
    return Span(b"", over[0], before, over[-1], behind, suffix)
