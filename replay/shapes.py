"""Lines as columns: each line's shape is looked up, its numbers and texts are read where its template says.

In go chunks of bytes, out come arrays with one entry a line. The grammar parses the first line of each shape and says
which slot is which field; how lines belong together is not known here.

A *slot* is a free-standing number (decimal or `0x` hexadecimal), a quoted string, a path `<...>` right behind a number
or `AT_FDCWD`, or a bare hexadecimal address in brackets. A *shape* is a line with a mark in place of each slot. The
mark tells the kind of the slot, for the digits behind a decimal point how many there are, and for the first two
numbers of a line how long they are (a pid and a time differ in nothing else).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from replay.columns import NO_TEXT, NULL, Int64Array, Strings, to_signed
from replay.constants import CALL_CODE
from replay.errors import TraceSyntaxError
from replay.grammar import LineError, parse
from replay.grammar.fields import NORMAL_NAMES
from replay.lines import Line, Number, Text
from replay.source import Chunk, Problems

Bytes: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]
Hashes: TypeAlias = NDArray[np.uint64]

KINDS: Final = "call opened closed detached pid_changed exited killed superseded signal exec notice frame noise".split()
"""What a line can be; a kind's code is its place here."""

KIND_CODE: Final = {name: code for code, name in enumerate(KINDS)}

TEXT_FIELDS: Final = ("path", "result_path", "caller", "frame_symbol", "frame_module")
"""The texts of a line that become columns."""

LONGEST_LINE: Final = 1 << 16
"""Longer lines are not read, in bytes."""

SHAPES_KEPT: Final = 20_000
"""So many shapes are remembered; lines of further shapes are parsed one by one."""

LINES_KEPT: Final = 50_000
"""So many lines that are parsed one by one are remembered."""

_LONGEST_SHAPE: Final = 4096
_LONGEST_NUMBER: Final = 24

_TEXT, _PATH, _DECIMAL, _HEXADECIMAL, _OCTAL = 1, 2, 3, 4, 5
_FRACTION: Final = 0x0E
_LEADING: Final = 0x80
_ADDRESS: Final = 0xA0
"""Marks of slots in a shape, bytes that hardly stand in lines. The last three have the length of the slot added."""

_WEIGHTS: Final = np.random.default_rng(20).integers(1, 1 << 63, _LONGEST_SHAPE, dtype=np.uint64) * 2 + 1
"""Factors of the hash of a shape, odd and random: two shapes agree with a chance of less than 2**-57."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A chunk, scanned: arrays over its lines that are not empty, and over their slots.

    `first_slot` has one entry more than there are lines: the slots of line `i` are `[first_slot[i], first_slot[i+1])`.
    A slot's span `[slot_start, slot_end)` holds quotes and angle brackets too. `unsure` lines have texts whose ends
    only a parse can tell.
    """

    data: bytes
    row: Int64Array
    start: Int64Array
    end: Int64Array
    shape: Hashes
    unsure: Bools
    first_slot: Int64Array
    slot_start: Int64Array
    slot_end: Int64Array
    slot_mark: Bytes
    value: Hashes


def scan(data: bytes, *, escaped_quotes: bool) -> Scan:
    """Return where the lines of `data` are, their shapes and their slots.

    Args:
        data: lines, with a newline before the first and after each.
        escaped_quotes: whether quotes inside strings have a backslash (strace; ltrace writes them raw).
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    newline = np.flatnonzero(buffer == 10)
    start, end = newline[:-1] + 1, newline[1:]
    slots = _number_slots(buffer)
    texts, unsure_places = _text_slots(buffer, newline, escaped_quotes=escaped_quotes)
    if len(texts.start):
        slots = _merged(slots, texts)
    first = np.searchsorted(slots.start, np.append(start, len(buffer)))
    _mark_leading(slots, first)
    shape, shape_length = _shape_hashes(buffer, slots)
    unsure = shape_length > _LONGEST_SHAPE
    unsure[np.searchsorted(newline, unsure_places) - 1] = True
    row = np.flatnonzero(end > start)
    first_slot = np.append(first[row], first[-1])
    where = (data, row, start[row], end[row], shape[row], unsure[row], first_slot)
    return Scan(*where, slots.start, slots.end, slots.mark, slots.value)


@dataclass(slots=True)
class _Slots:
    """Slots in order of place: spans `[start, end)`, marks, and the values of the numbers."""

    start: Int64Array
    end: Int64Array
    mark: Bytes
    value: Hashes


def _number_slots(buffer: Bytes) -> _Slots:
    """Return the slots that are numbers or bare addresses, those inside of texts included."""
    letter = (buffer | 32) - np.uint8(97) < 26
    word = letter | (buffer - np.uint8(48) < 10) | (buffer == 95)
    edge = np.flatnonzero(word[1:] != word[:-1]) + 1
    start, end = edge[0::2], edge[1::2]
    first = buffer[start]
    digit = first - np.uint8(48) < 10
    address = ~digit & (first - np.uint8(97) < 6) & (end - start >= 5)
    place = np.flatnonzero(address)
    address[place] = (buffer[start[place] - 1] == 91) & (buffer[end[place]] == 93)
    chosen = digit | address
    start, end = start[chosen], end[chosen]
    return _valued(buffer, start, end)


def _valued(buffer: Bytes, start: Int64Array, end: Int64Array) -> _Slots:
    """Return the words `[start, end)` that are numbers or bare addresses, with values and marks."""
    hexadecimal = (buffer[start] == 48) & (buffer[start + 1] == 120) & (end - start > 2)
    begin = start + 2 * hexadecimal
    length = end - begin
    value = np.zeros(len(start), dtype=np.uint64)
    valid = np.zeros(len(start), dtype=bool)
    kind = length + 32 * hexadecimal
    kind[length > _LONGEST_NUMBER] = 0
    for code in np.flatnonzero(np.bincount(kind, minlength=1)):
        if code & 31:
            of_kind = np.flatnonzero(kind == code)
            value[of_kind], valid[of_kind] = _read(buffer, begin[of_kind], int(code) & 31, 16 if code & 32 else 10)
    mark = np.where(hexadecimal, np.uint8(_HEXADECIMAL), np.uint8(_DECIMAL))
    mark[(buffer[start] == 48) & (length > 1) & ~hexadecimal] = _OCTAL
    clock = np.flatnonzero(((buffer[start - 1] == 58) | (buffer[end] == 58)) & ~hexadecimal)
    mark[clock] = _LEADING + length[clock]
    fraction = np.flatnonzero((buffer[start - 1] == 46) & ~hexadecimal)
    fraction = fraction[buffer[start[fraction] - 2] - np.uint8(48) < 10]
    mark[fraction] = _FRACTION + np.minimum(length[fraction], 17)
    valid[fraction[length[fraction] > 17]] = False
    bare = np.flatnonzero((~valid | (length >= 8)) & (length <= _LONGEST_NUMBER) & ~hexadecimal)
    bare = bare[(buffer[start[bare] - 1] == 91) & (buffer[end[bare]] == 93)]
    for size in set(length[bare].tolist()):
        of_size = bare[length[bare] == size]
        _, valid[of_size] = _read(buffer, begin[of_size], size, 16)
    mark[bare] = _ADDRESS + length[bare]
    return _Slots(start[valid], end[valid], mark[valid], value[valid])


def _read(buffer: Bytes, begin: Int64Array, length: int, base: int) -> tuple[Hashes, Bools]:
    """Return the values, modulo 2**64, of numbers of one length and base, and which of them are numbers."""
    value = np.zeros(len(begin), dtype=np.uint64)
    valid = np.ones(len(begin), dtype=bool)
    for offset in range(length):
        character = buffer[begin + offset]
        digit = character - np.uint8(48)
        if base == 16:
            letter = character - np.uint8(97)
            valid &= (digit < 10) | (letter < 6)
            digit = np.where(digit < 10, digit, letter + np.uint8(10))
        else:
            valid &= digit < 10
        value = value * np.uint64(base) + digit
    return value, valid


def _text_slots(buffer: Bytes, newline: Int64Array, *, escaped_quotes: bool) -> tuple[_Slots, Int64Array]:
    """Return the slots that are strings or paths, and places in lines whose texts only a parse can tell apart."""
    quote = np.flatnonzero(buffer == 34)
    less = np.flatnonzero(buffer == 60)
    less = less[_behind_descriptor(buffer, less)]
    string_start, string_end, unsure = _strings(buffer, quote, newline, escaped_quotes=escaped_quotes)
    path_start, path_end, doubtful = _paths(buffer, less, string_start, string_end)
    if len(path_start) and len(quote):
        plain = quote[buffer[quote - 1] != 92]
        quoted = np.searchsorted(plain, path_start) != np.searchsorted(plain, path_end)
        doubtful = np.concatenate([doubtful, path_start[quoted]])
        path_start, path_end = path_start[~quoted], path_end[~quoted]
    start = np.concatenate([string_start, path_start])
    mark = np.repeat(np.array([_TEXT, _PATH], dtype=np.uint8), [len(string_start), len(path_start)])
    end = np.concatenate([string_end, path_end])
    order = np.argsort(start, kind="stable")
    start, end, mark = start[order], end[order], mark[order]
    return _Slots(start, end, mark, np.zeros(len(start), dtype=np.uint64)), np.concatenate([unsure, doubtful])


def _behind_descriptor(buffer: Bytes, less: Int64Array) -> Bools:
    """Return which `<` stand right behind a number or `AT_FDCWD`, and are not the first of `<<`."""
    before = buffer[less - 1]
    behind: Bools = ((before - np.uint8(48) < 10) | (before == 68)) & (buffer[less + 1] != 60)
    return behind


def _strings(
    buffer: Bytes, quote: Int64Array, newline: Int64Array, *, escaped_quotes: bool
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the spans of quoted strings, quotes included, and a place in each line where they are not sure."""
    if escaped_quotes:
        quote = quote[~_escaped(buffer, quote)]
    line = np.searchsorted(newline, quote)
    first = np.searchsorted(line, line)
    count = np.searchsorted(line, line, side="right") - first
    sure = (count == 2) if not escaped_quotes else (count % 2 == 0)
    opening = (np.arange(len(quote)) - first) % 2 == 0
    return quote[sure & opening], quote[sure & ~opening] + 1, quote[~sure]


def _escaped(buffer: Bytes, quote: Int64Array) -> Bools:
    """Return which quotes have an odd number of backslashes before them."""
    escaped = np.zeros(len(quote), dtype=bool)
    open_ = np.flatnonzero(buffer[quote - 1] == 92)
    back = 1
    while len(open_):
        escaped[open_] ^= True
        back += 1
        open_ = open_[buffer[np.maximum(quote[open_] - back, 0)] == 92]
    return escaped


def _paths(
    buffer: Bytes, less: Int64Array, string_start: Int64Array, string_end: Int64Array
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the spans `<...>` of paths, brackets included, and the places of those whose end is not sure."""
    inside = np.searchsorted(string_start, less) - np.searchsorted(string_end, less, side="right") > 0
    less = less[~inside]
    greater = np.flatnonzero((buffer == 62) | (buffer == 10))
    close = np.searchsorted(greater, less)
    end = greater[close] if len(less) else less
    nested = np.zeros(len(less), dtype=bool)
    if len(less) > 1:
        nested[1:] = less[1:] < np.maximum.accumulate(end)[:-1]
    less, end = less[~nested], end[~nested]
    all_less = np.flatnonzero(buffer == 60)
    inner = np.searchsorted(all_less, end) - np.searchsorted(all_less, less) - 1
    follows = buffer[np.minimum(end + 1, len(buffer) - 1)]
    # 3</dev/zero<char 1:5>>
    double = (inner == 1) & (follows == 62)
    end = end + double
    follows = buffer[np.minimum(end + 1, len(buffer) - 1)]
    unsure = (buffer[end] != 62) | ((inner > 0) & ~double) | (buffer[end - 1] == 45) | (follows == 62)
    return less[~unsure], end[~unsure] + 1, less[unsure]


def _merged(numbers: _Slots, texts: _Slots) -> _Slots:
    """Return both sorts of slots in order of place, without the numbers inside of texts."""
    before = np.searchsorted(texts.start, numbers.start, side="right") - 1
    outside = (before < 0) | (numbers.start >= texts.end[np.maximum(before, 0)])
    start = np.concatenate([numbers.start[outside], texts.start])
    order = np.argsort(start, kind="stable")
    return _Slots(
        start[order],
        np.concatenate([numbers.end[outside], texts.end])[order],
        np.concatenate([numbers.mark[outside], texts.mark])[order],
        np.concatenate([numbers.value[outside], texts.value])[order],
    )


def _mark_leading(slots: _Slots, first: Int64Array) -> None:
    """Give the first two slots of each line, where they are decimal numbers, marks that tell their lengths."""
    for ordinal in (0, 1):
        place = first[:-1][first[1:] - first[:-1] > ordinal] + ordinal
        place = place[slots.mark[place] == _DECIMAL]
        slots.mark[place] = _LEADING + (slots.end[place] - slots.start[place])


def _shape_hashes(buffer: Bytes, slots: _Slots) -> tuple[Hashes, Int64Array]:
    """Return the hash and the length in bytes of each line's shape."""
    step = np.zeros(len(buffer), dtype=np.int8)
    step[slots.start] = 1
    step[slots.end] -= 1
    kept = np.cumsum(step, dtype=np.int8) == 0
    kept[slots.start] = True
    shape = buffer.copy()
    shape[slots.start] = slots.mark
    shape = shape[kept]
    newline = np.flatnonzero(shape == 10)
    length = np.diff(newline)
    place = np.arange(len(shape) - 1, dtype=np.int64) - np.repeat(newline[:-1], length)
    np.minimum(place, _LONGEST_SHAPE - 1, out=place)
    weighted = _WEIGHTS[place] * shape[1:]
    return np.add.reduceat(weighted, newline[:-1]), length


# ---- templates ----


@dataclass(frozen=True, slots=True)
class Form:
    """A number of each line of a shape: `const` plus the values of slots (by place in the line) times factors."""

    const: int
    terms: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Span:
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


@dataclass(frozen=True, slots=True)
class Template:
    """What every line of a shape says: the kind of line, its call, and where its fields are."""

    kind: int
    call: int
    name: int
    dialect: int
    slots: int
    numbers: dict[str, Form]
    texts: dict[str, Span]


@dataclass(frozen=True, slots=True)
class Refused:
    """Lines of this shape are not understood, or (`other_call`) passed over; or (`direct`) parsed one by one."""

    reason: str


DIALECTS: Final = ("strace", "ltrace")

Slots: TypeAlias = list[tuple[int, int, int]]
"""Start and end in the line, [start, end), and mark of each slot of one line."""


def parse_line(text: bytes, dialect: str) -> tuple[Line, str]:
    """Return what a line says and in which dialect, `mixed` meaning either.

    Raises:
        LineError: the line is not understood.
    """
    if dialect != "mixed":
        return _parsed(text, dialect), dialect
    try:
        return _parsed(text, "strace"), "strace"
    except LineError as first:
        try:
            return _parsed(text, "ltrace"), "ltrace"
        except LineError as second:
            raise (first if first.reason == "other_call" else second) from second


def _parsed(text: bytes, dialect: str) -> Line:
    """Return what a line says.

    `raw` is 1 for an mmap2 whose arguments are all hexadecimal, its offset in pages; `reopened` is 1 where a resumed
    call is cut once more.
    """
    line = parse(text.decode("latin-1"), dialect)
    if line.kind == "opened" and b" resumed>" in text:
        line.numbers["reopened"] = Number(1)
    length = line.numbers.get("length")
    if line.name == "mmap2" and length is not None and length.terms:
        start = length.terms[0][0]
        if text.startswith(b"0x", start):
            line.numbers["raw"] = Number(1)
    return line


def template_of(line: Line, dialect: str, slots: Slots, text: bytes, names: Strings) -> Template | None:
    """Return the template of the parsed line `text`, None where its tokens are not the slots that the scanner saw."""
    if "product" in line.numbers:  # a number that is no linear form, such as 8192*1024 or an octal
        return None
    numbers: dict[str, Form] = {}
    for key, number in line.numbers.items():
        form = _form_of(number, slots, text)
        if form is None:
            return None
        numbers[key] = form
    texts: dict[str, Span] = {}
    for key, value in line.texts.items():
        span = _span_of(value, slots, text) if key in TEXT_FIELDS else Span(b"")
        if span is None:
            return None
        texts[key] = span
    call = CALL_CODE.get(line.call, -1)
    texts = {key: span for key, span in texts.items() if key in TEXT_FIELDS}
    return Template(
        KIND_CODE[line.kind], call, names.intern(line.name), DIALECTS.index(dialect), len(slots), numbers, texts
    )


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
        elif slots[over[0]][:2] == (start, end) and _PATH < slots[over[0]][2] < _ADDRESS:
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
    if before < (-1 if first[2] <= _PATH else 0) or behind < (-1 if last[2] <= _PATH else 0):
        return None
    return Span(b"", over[0], before, over[-1], behind, suffix)


# ---- texts ----

_ESCAPE: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_LETTERS: Final = dict(zip((b"n", b"t", b"r", b"v", b"f", b"a", b"b", b"e"), b"\n\t\r\v\f\a\b\x1b", strict=True))
_DEVICE: Final = re.compile(rb"<(?:char|block) \d+:\d+>\Z")


def decoded(text: bytes) -> str:
    """Return a text of a log with its escapes undone: octal, hexadecimal, and those of C."""
    if b"\\" in text:
        text = _ESCAPE.sub(_unescaped, text)
    return text.decode("utf-8", "surrogateescape")


def _unescaped(match: re.Match[bytes]) -> bytes:
    """Return the byte that an escape stands for."""
    if match[1]:
        return bytes([int(match[1], 16)])
    if match[2]:
        return bytes([int(match[2], 8) & 255])
    letter = _LETTERS.get(match[3])
    return match[3] if letter is None else bytes([letter])


def _field_text(key: str, raw: bytes, suffix: str) -> str:
    """Return the text of a field: decoded, for paths without what `-yy` adds to devices."""
    if key in ("path", "result_path") and raw.endswith(b">"):
        raw = _DEVICE.sub(b"", raw)
    return decoded(raw) + suffix


# ---- lines passed over ----

_PREFIX: Final = rb"\n(?>[ 0-9:.]+|\[[^\]\n]*\]|(?<=[0-9])<[^>\n]*>|\(\+[ 0-9.]+\))*+"


def _one_of(names: Iterable[str]) -> bytes:
    """Return a pattern that matches any of `names`, quick to fail."""
    by_letter: dict[str, list[str]] = {}
    for name in sorted(set(names), reverse=True):
        by_letter.setdefault(name[0], []).append(re.escape(name[1:]))
    return b"(?:" + b"|".join(f"{a}(?:{'|'.join(rest)})".encode() for a, rest in sorted(by_letter.items())) + b")"


_NAMES: Final = _one_of(name for name in (*CALL_CODE, *NORMAL_NAMES) if name.isidentifier())

_PASSED_STRACE: Final = re.compile(
    _PREFIX + rb"(?:(?!" + _NAMES + rb"\(|(?:syscall|SYS)_[0-9])[a-zA-Z_]\w*\("
    rb"|<\.\.\. (?!" + _NAMES + rb" |(?:syscall|SYS)_[0-9])\w+ resumed|\) += )[^\n]*"
)
_PASSED_LTRACE: Final = re.compile(
    _PREFIX + rb"(?:[^\s\"(<\[>]*->)?"
    rb"(?:(?!(?:SYS_)?" + _NAMES + rb"[(@]|_Z[nd]|SYS_[0-9]|operator )[\w.:~]+(?:@[\w.+-]+)?\("
    rb"|<\.\.\. (?!(?:SYS_)?" + _NAMES + rb" |_Z[nd]|SYS_[0-9]|operator )[\w.:~]+ resumed|\) += )[^\n]*"
)


def without_passed_over(data: bytes, dialect: str) -> bytes:
    """Return the lines of `data`, a newline before the first, emptied where their first word is no call of interest."""
    return (_PASSED_STRACE if dialect == "strace" else _PASSED_LTRACE).sub(b"\n", data)


# ---- columns ----


@dataclass(slots=True)
class LineColumns:
    """The understood lines of a chunk in order, one entry a line.

    `row` is the place of the line in its chunk; `numbers` and `texts` hold a column for each field that any line has,
    `NULL` and `NO_TEXT` where a line has none.
    """

    row: Int64Array
    line: Int64Array
    entry_line: Int64Array
    kind: Int64Array
    call: Int64Array
    name: Int64Array
    dialect: Int64Array
    numbers: dict[str, Int64Array]
    texts: dict[str, Int64Array]


@dataclass(slots=True)
class Counters:
    """How many physical lines were read, and what became of them; each line is in one of the last three."""

    lines: int = 0
    lines_understood: int = 0
    lines_passed_over: int = 0
    lines_not_understood: int = 0


@dataclass(slots=True)
class Shapes:
    """The shapes of one log, with what the grammar said about each."""

    dialect: str
    strings: Strings
    problems: Problems
    counters: Counters
    file: int = 0
    strict_path: str | None = None
    shapes_kept: int = SHAPES_KEPT
    known: dict[int, Template | Refused] = field(default_factory=dict)
    parsed: dict[bytes, tuple[Line, str] | LineError] = field(default_factory=dict)
    interned: dict[tuple[str, bytes, str], int] = field(default_factory=dict)

    def columns(self, chunk: Chunk) -> LineColumns:
        """Return what the lines of a chunk say, and count those that say nothing."""
        data = without_passed_over(b"\n" + chunk.data, self.dialect)
        found = scan(data, escaped_quotes=self.dialect == "strace")
        self.counters.lines += len(chunk.line) + chunk.diagnostics
        self.counters.lines_understood += chunk.diagnostics
        self.counters.lines_passed_over += len(chunk.line) - len(found.row)
        return self._read(chunk, found)

    def _read(self, chunk: Chunk, found: Scan) -> LineColumns:
        """Return the columns of the scanned lines of a chunk."""
        hashes, first, shape = np.unique(found.shape, return_index=True, return_inverse=True)
        known: list[Template | Refused] = [Refused("direct")] * len(hashes)
        for place in np.argsort(first, kind="stable").tolist():
            known[place] = self._known(int(hashes[place]), found, int(first[place]))
        reader = _Reader(self, found, shape.astype(np.int64), known)
        reader.fill()
        return self._understood(chunk, found, reader)

    def _known(self, key: int, found: Scan, index: int) -> Template | Refused:
        """Return the template of the shape of the line `index`, made now if the shape is new."""
        template = self.known.get(key)
        if template is None:
            if len(self.known) >= self.shapes_kept or found.unsure[index]:
                return Refused("direct")
            template = self.known[key] = self._new(found, index)
        return template

    def _new(self, found: Scan, index: int) -> Template | Refused:
        """Return what the grammar says about the shape of the line `index`."""
        start, end = int(found.start[index]), int(found.end[index])
        if end - start > LONGEST_LINE:
            return Refused("direct")
        text = found.data[start:end]
        try:
            line, dialect = parse_line(text, self.dialect)
        except LineError as error:
            return Refused(error.reason)
        low, high = int(found.first_slot[index]), int(found.first_slot[index + 1])
        slots = list(
            zip(
                (found.slot_start[low:high] - start).tolist(),
                (found.slot_end[low:high] - start).tolist(),
                found.slot_mark[low:high].tolist(),
                strict=True,
            )
        )
        return template_of(line, dialect, slots, text, self.strings) or Refused("direct")

    def direct(self, text: bytes) -> tuple[Line, str] | LineError:
        """Return what one line says, parsed by the grammar."""
        known = self.parsed.get(text)
        if known is None:
            if len(self.parsed) >= LINES_KEPT:
                self.parsed.clear()
            try:
                known = parse_line(text, self.dialect)
            except LineError as error:
                known = error
            self.parsed[text] = known
        return known

    def intern(self, key: str, raw: bytes, suffix: str = "") -> int:
        """Return the id of the text of a field as it is written in a log."""
        text_id = self.interned.get((key, raw, suffix))
        if text_id is None:
            if len(self.interned) >= LINES_KEPT:
                self.interned.clear()
            text_id = self.interned[(key, raw, suffix)] = self.strings.intern(_field_text(key, raw, suffix))
        return text_id

    def _understood(self, chunk: Chunk, found: Scan, reader: _Reader) -> LineColumns:
        """Return the columns of the lines that were understood; count the others."""
        good = reader.kind >= 0
        passed = int((reader.kind == _PASSED_OVER).sum())
        self.counters.lines_understood += int(good.sum())
        self.counters.lines_passed_over += passed
        self.counters.lines_not_understood += len(good) - int(good.sum()) - passed
        for index in np.flatnonzero(reader.kind == _NOT_UNDERSTOOD).tolist():
            row = int(found.row[index])
            last = chunk.cut and row == len(chunk.line) - 1
            start, end = int(found.start[index]), int(found.end[index])
            text = found.data[start : min(end, start + 800)].decode("utf-8", "surrogateescape")
            reason = "cut_line" if last else reader.reasons[index]
            if self.strict_path is not None:
                raise TraceSyntaxError(f"{self.strict_path}:{int(chunk.line[row])}: {reason}: {text[:200]}")
            self.problems.add(int(chunk.line[row]), reason, text, self.file)
        rows = found.row[good]
        return LineColumns(
            rows,
            chunk.line[rows],
            chunk.entry_line[rows],
            reader.kind[good],
            reader.call[good],
            reader.name[good],
            reader.dialect[good],
            {key: column[good] for key, column in reader.numbers.items()},
            {key: column[good] for key, column in reader.texts.items()},
        )


_PASSED_OVER, _NOT_UNDERSTOOD, _DIRECT = -1, -2, -3


class _Reader:
    """The columns of a scanned chunk while they are filled: by template where there is one, else line by line."""

    def __init__(self, shapes: Shapes, found: Scan, shape: Int64Array, known: list[Template | Refused]) -> None:
        """Give each line the kind, call, name and dialect that its shape has."""
        self.shapes = shapes
        self.found = found
        self.known = known
        self.numbers: dict[str, Int64Array] = {}
        self.texts: dict[str, Int64Array] = {}
        self.reasons: dict[int, str] = {}
        self.shape = shape
        kinds = np.array([_kind_of(template) for template in known], dtype=np.int64)
        heads = [(t.call, t.name, t.dialect, t.slots) if isinstance(t, Template) else (-1, -1, 0, -1) for t in known]
        table = np.array(heads, dtype=np.int64).reshape(-1, 4)
        self.kind = kinds[shape]
        self.call, self.name, self.dialect = table[shape, 0], table[shape, 1], table[shape, 2]
        slots = found.first_slot[1:] - found.first_slot[:-1]
        templated = self.kind >= 0
        self.kind[templated & (found.unsure | (slots != table[shape, 3]))] = _DIRECT
        self.kind[found.end - found.start > LONGEST_LINE] = _DIRECT

    def fill(self) -> None:
        """Fill the columns."""
        self._by_template()
        for index in np.flatnonzero(self.kind == _DIRECT).tolist():
            self._line_by_line(index)
        for index in np.flatnonzero(self.kind == _NOT_UNDERSTOOD).tolist():
            if index not in self.reasons:
                refused = self.known[int(self.shape[index])]
                self.reasons[index] = refused.reason if isinstance(refused, Refused) else "unknown_line"

    def _by_template(self) -> None:
        """Fill the columns of all lines whose shape has a template."""
        rows = np.flatnonzero(self.kind >= 0)
        shape = self.shape[rows]
        first = self.found.first_slot[rows]
        templates = [(place, t) for place, t in enumerate(self.known) if isinstance(t, Template)]
        for key in sorted({key for _, template in templates for key in template.numbers}):
            self._number(key, templates, rows, shape, first)
        for place, template in templates:
            for key, span in template.texts.items():
                self._text(key, span, rows[shape == place])

    def _number(
        self, key: str, templates: list[tuple[int, Template]], rows: Int64Array, shape: Int64Array, first: Int64Array
    ) -> None:
        """Fill one column of numbers."""
        forms = [(place, t.numbers[key]) for place, t in templates if key in t.numbers]
        terms = max(len(form.terms) for _, form in forms)
        const = np.full(len(self.known), NULL, dtype=np.int64)
        slot = np.zeros((terms, len(self.known)), dtype=np.int64)
        factor = np.zeros((terms, len(self.known)), dtype=np.int64)
        for place, form in forms:
            const[place] = to_signed(form.const)
            for term, (number, times) in enumerate(form.terms):
                slot[term, place] = number
                factor[term, place] = times
        value = const[shape]
        values = self.found.value.view(np.int64)
        for term in range(terms):
            used = np.flatnonzero(factor[term][shape])
            of = shape[used]
            value[used] += values[first[used] + slot[term][of]] * factor[term][of]
        self._column(self.numbers, key, NULL)[rows] = value

    def _text(self, key: str, span: Span, rows: Int64Array) -> None:
        """Fill one column of texts for the lines of one shape."""
        column = self._column(self.texts, key, NO_TEXT)
        intern = self.shapes.intern
        if span.first < 0:
            column[rows] = intern(key, span.const, span.suffix)
            return
        data, suffix = self.found.data, span.suffix
        first = self.found.first_slot[rows]
        start = self.found.slot_start[first + span.first] - span.before
        end = self.found.slot_end[first + span.last] + span.behind
        column[rows] = [intern(key, data[a:b], suffix) for a, b in zip(start.tolist(), end.tolist(), strict=True)]

    def _line_by_line(self, index: int) -> None:
        """Fill the columns for one line by parsing it."""
        start, end = int(self.found.start[index]), int(self.found.end[index])
        if end - start > LONGEST_LINE:
            self.kind[index] = _NOT_UNDERSTOOD
            self.reasons[index] = "line_too_long"
            return
        text = self.found.data[start:end]
        parsed = self.shapes.direct(text)
        if isinstance(parsed, LineError):
            self.kind[index] = _kind_of(Refused(parsed.reason))
            self.reasons[index] = parsed.reason
            return
        line, dialect = parsed
        self.kind[index] = KIND_CODE[line.kind]
        self.call[index] = CALL_CODE.get(line.call, -1)
        self.name[index] = self.shapes.strings.intern(line.name)
        self.dialect[index] = DIALECTS.index(dialect)
        for key, number in line.numbers.items():
            self._column(self.numbers, key, NULL)[index] = to_signed(int(number.value(text.decode("latin-1"))))
        for key, value in line.texts.items():
            if key in TEXT_FIELDS:
                raw = value.value(text.decode("latin-1")).encode("latin-1")
                suffix = " (deleted)" if value.const is None and text.startswith(b">(deleted)", value.end) else ""
                self._column(self.texts, key, NO_TEXT)[index] = self.shapes.intern(key, raw, suffix)

    def _column(self, columns: dict[str, Int64Array], key: str, null: int) -> Int64Array:
        """Return the column of a field, a new one of nulls if no line had it so far."""
        column = columns.get(key)
        if column is None:
            column = columns[key] = np.full(len(self.kind), null, dtype=np.int64)
        return column


def _kind_of(template: Template | Refused) -> int:
    """Return the code of the kind of line of a shape, or why its lines have no template."""
    if isinstance(template, Template):
        return template.kind
    return {"other_call": _PASSED_OVER, "direct": _DIRECT}.get(template.reason, _NOT_UNDERSTOOD)
