"""Lines as columns: each line's shape is looked up, its numbers and texts are read where its template says.

In go chunks of bytes, out come arrays with one entry a line. The grammar parses the first line of each shape and says
which slot is which field; how lines belong together is not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from replay.columns import NO_TEXT, NULL, Int64Array, Strings, to_signed
from replay.constants import CALL_CODE
from replay.errors import TraceSyntaxError
from replay.grammar import LineError
from replay.lines import Line
from replay.passed_over import is_passed_over
from replay.scanloop import scanner_for
from replay.scanner import Scan
from replay.source import Chunk, Problems
from replay.templates import (
    DIALECTS,
    KIND_CODE,
    TEXT_FIELDS,
    Refused,
    Span,
    Template,
    field_text,
    parse_line,
    template_of,
)

__all__ = ["DIALECTS", "Counters", "LineColumns", "Shapes"]

LONGEST_LINE: Final = 1 << 16
"""Longer lines are not read, in bytes."""

SHAPES_KEPT: Final = 20_000
"""So many shapes are remembered; lines of further shapes are parsed one by one."""

LINES_KEPT: Final = 50_000
"""So many lines that are parsed one by one are remembered."""


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
    size: int = 0
    bytes_read: int = 0
    known: dict[int, Template | Refused] = field(default_factory=dict)
    parsed: dict[bytes, tuple[Line, str] | LineError] = field(default_factory=dict)
    interned: dict[tuple[str, bytes, str], int] = field(default_factory=dict)

    def columns(self, chunk: Chunk) -> LineColumns:
        """Return what the lines of a chunk say, and count those that say nothing."""
        self.size = max(self.size, self.bytes_read + len(chunk.data))
        self.bytes_read += len(chunk.data)
        found = scanner_for(self.size)(chunk.data, self.dialect)
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
        if is_passed_over(text, self.dialect):
            return Refused("other_call")
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
                if is_passed_over(text, self.dialect):
                    known = LineError("other_call")
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
            text_id = self.interned[(key, raw, suffix)] = self.strings.intern(field_text(key, raw, suffix))
        return text_id

    def _understood(self, chunk: Chunk, found: Scan, reader: _Reader) -> LineColumns:
        """Return the columns of the lines that were understood; count the others."""
        if chunk.cut and len(found.row) and found.row[-1] == len(chunk.line) - 1:
            text_of_last = found.data[int(found.start[-1]) : int(found.end[-1])]
            if reader.kind[-1] >= 0 and _may_be_cut(text_of_last, int(reader.kind[-1]), int(reader.call[-1])):
                reader.kind[-1] = _NOT_UNDERSTOOD
                reader.reasons[len(found.row) - 1] = "cut_line"
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

_OPEN_END: Final = re.compile(rb"= (?:-?(?:0x)?[0-9a-f]*|-1 E[A-Z0-9]*)\Z")
_RETURN_NOTHING: Final = tuple(
    CALL_CODE[name] for name in ("munmap", "mprotect", "madvise", "shmdt", "execve", "close")
)


def _may_be_cut(text: bytes, kind: int, call: int) -> bool:
    """Return whether a line without newline may have been longer: it says nothing, or ends inside its result."""
    if KIND_CODE["noise"] == kind or KIND_CODE["frame"] == kind:
        return True
    whole_zero = text.endswith(b"= 0") and call in _RETURN_NOTHING
    return _OPEN_END.search(text) is not None and not whole_zero


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
