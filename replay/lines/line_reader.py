"""Lines as columns: each line's shape is looked up, its numbers and texts are read where its template says.

In go chunks of bytes, out come arrays with one entry a line. The grammar parses the first line of each shape and says
which slot is which field; how lines belong together is not known here.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings, to_signed
from replay.engine.structs import Struct, Value
from replay.errors import TraceSyntaxError
from replay.grammar import LineError, is_whole
from replay.grammar.line import Line
from replay.lines.impossible import impossible
from replay.lines.scan import Bools, Scan
from replay.lines.shape_table import DIRECT, NO_SHAPE, NOT_UNDERSTOOD, PASSED_OVER, ShapeTable, kind_of
from replay.lines.templates import (
    KIND_CODE,
    TEXT_FIELDS,
    Refused,
    Slots,
    Template,
    parse_line,
    shape_of,
    template_of,
)
from replay.lines.text_ids import Texts
from replay.linux.constants import CALL_CODE
from replay.logs.chunks import LONGEST_LINE, Chunk
from replay.logs.dialect import DIALECTS
from replay.logs.problems import Problems

__all__ = ["Counters", "LineColumns", "Shapes"]

SHAPES_KEPT: Final = 20_000
"""So many shapes are remembered; lines of further shapes are parsed one by one."""

LINES_KEPT: Final = 50_000
"""So many lines that are parsed one by one are remembered."""


class LineColumns(Value):
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


class Counters(Struct):
    """How many physical lines were read, and what became of them; each line is in one of the last three."""

    lines: int = 0
    lines_understood: int = 0
    lines_passed_over: int = 0
    lines_not_understood: int = 0


class Shapes:
    """The shapes of logs of one dialect, with what the grammar said about each."""

    def __init__(
        self,
        dialect: str,
        strings: Strings,
        problems: Problems,
        counters: Counters,
        shapes_kept: int = SHAPES_KEPT,
    ) -> None:
        """Begin with no shape known."""
        self.dialect = dialect
        self.strings = strings
        self.problems = problems
        self.counters = counters
        self.shapes_kept = shapes_kept
        self.file = 0
        self.strict_path: str | None = None
        self.parsed: dict[bytes, tuple[Line, str] | LineError] = {}
        self.texts = Texts(strings)
        self.table = ShapeTable(self.texts)

    def begin(self, file: int, strict_path: str | None) -> None:
        """Go on to the log of that number; `strict_path` names it where a line not understood is an error."""
        self.file, self.strict_path = file, strict_path
        self.table.forget_leaves()

    def columns(self, chunk: Chunk, found: Scan) -> LineColumns:
        """Return what the lines of a scanned chunk say, and count those that say nothing."""
        self.counters.lines += len(chunk.line) + chunk.diagnostics
        self.counters.lines_understood += chunk.diagnostics
        self.counters.lines_passed_over += len(chunk.line) - len(found.row)
        return self._read(chunk, found)

    def _read(self, chunk: Chunk, found: Scan) -> LineColumns:
        """Return the columns of the scanned lines of a chunk."""
        shape = self.table.find(found)
        strange = np.flatnonzero(shape == NO_SHAPE)
        if len(strange):
            self._learn(found, strange)
            shape[strange] = self.table.find_hashes(found.shape[strange])
        reader = _Reader(self, found, shape)
        reader.fill()
        return self._understood(chunk, found, reader)

    def _learn(self, found: Scan, strange: Int64Array) -> None:
        """Ask the grammar about the shapes of lines that are not in the table, while there is room in it."""
        hashes, first = np.unique(found.shape[strange], return_index=True)
        new: dict[int, Template | Refused] = {}
        for place in np.argsort(first).tolist():
            index = int(strange[first[place]])
            if len(self.table) + len(new) < self.shapes_kept and not found.unsure[index]:
                new[int(hashes[place])] = self._new(found, index)
        self.table.add(new)

    def _new(self, found: Scan, index: int) -> Template | Refused:
        """Return what the grammar says, or has said of an earlier log, about the shape of the line `index`."""
        start, end = int(found.start[index]), int(found.end[index])
        if end - start > LONGEST_LINE:
            return _DIRECT
        text = found.data[start:end]
        low, high = int(found.first_slot[index]), int(found.first_slot[index + 1])
        starts, ends = ((column[low:high] - start).tolist() for column in (found.slot_start, found.slot_end))
        slots = list(zip(starts, ends, found.slot_mark[low:high].tolist(), strict=True))
        key = self.dialect, shape_of(text, slots)
        known = _ALREADY_SAID.get(key)
        if known is None:
            known = _said_of(text, slots, self.dialect)
            if known != _DIRECT:  # which may be the fault of this line's own numbers
                if len(_ALREADY_SAID) >= SHAPES_KEPT:
                    _ALREADY_SAID.clear()
                _ALREADY_SAID[key] = known
        return known

    def direct(self, text: bytes) -> tuple[Line, str] | LineError:
        """Return what one line says, parsed by the grammar."""
        known = self.parsed.get(text)
        if known is None:
            if len(self.parsed) >= LINES_KEPT:
                self.parsed.clear()
            try:
                known = parse_line(text, self.dialect)
            except LineError as error:
                known = LineError(error.reason)  # a new one: that which was raised holds the parser's whole state
            self.parsed[text] = known
        return known

    def _understood(self, chunk: Chunk, found: Scan, reader: _Reader) -> LineColumns:
        """Return the columns of the lines that were understood; count the others."""
        if chunk.cut and len(found.row) and found.row[-1] == len(chunk.line) - 1:
            text_of_last = found.data[int(found.start[-1]) : int(found.end[-1])]
            if reader.kind[-1] >= 0 and _may_be_cut(text_of_last, int(reader.kind[-1]), int(reader.call[-1])):
                reader.kind[-1] = NOT_UNDERSTOOD
                reader.reasons[len(found.row) - 1] = "cut_line"
        good = reader.kind >= 0
        understood = int(np.count_nonzero(good))
        passed = int(np.count_nonzero(reader.kind == PASSED_OVER))
        self.counters.lines_understood += understood
        self.counters.lines_passed_over += passed
        self.counters.lines_not_understood += len(good) - understood - passed
        for index in np.flatnonzero(reader.kind == NOT_UNDERSTOOD).tolist():
            row = int(found.row[index])
            last = chunk.cut and row == len(chunk.line) - 1
            start, end = int(found.start[index]), int(found.end[index])
            text = found.data[start : min(end, start + 800)].decode("utf-8", "surrogateescape")
            reason = "cut_line" if last and not is_whole(text) else reader.reasons[index]
            if self.strict_path is not None:
                raise TraceSyntaxError(f"{self.strict_path}:{int(chunk.line[row])}: {reason}: {text[:200]}")
            self.problems.add(int(chunk.line[row]), reason, text, self.file)
        return reader.columns(chunk, slice(None) if understood == len(good) else good)


_DIRECT: Final = Refused("direct")

_ALREADY_SAID: Final[dict[tuple[str, bytes], Template | Refused]] = {}
"""What the grammar said about shapes, by dialect and shape: one process may read thousands of small logs."""


def _said_of(text: bytes, slots: Slots, dialect: str) -> Template | Refused:
    """Return what the grammar says about the shape of a line."""
    try:
        line, spoken = parse_line(text, dialect)
    except LineError as error:
        return _DIRECT if error.reason == "impossible_value" else Refused(error.reason)
    return template_of(line, spoken, slots, text) or _DIRECT


_OPEN_END: Final = rb"= (?:-?(?:0x)?[0-9a-f]*|-1 E[A-Z0-9]*)\Z"
_RETURN_NOTHING: Final = tuple(
    CALL_CODE[name] for name in ("munmap", "mprotect", "madvise", "shmdt", "execve", "close")
)


def _may_be_cut(text: bytes, kind: int, call: int) -> bool:
    """Return whether a line without newline may have been longer: it says nothing, or ends inside its result."""
    if KIND_CODE["noise"] == kind or KIND_CODE["frame"] == kind:
        return True
    whole_zero = text.endswith(b"= 0") and call in _RETURN_NOTHING
    return re.search(_OPEN_END, text) is not None and not whole_zero


class _Reader:
    """The columns of a scanned chunk while they are filled: by template where there is one, else line by line."""

    def __init__(self, shapes: Shapes, found: Scan, shape: Int64Array) -> None:
        """Give each line the kind, call, name and dialect that its shape has, which is a row of the table."""
        self.shapes = shapes
        self.found = found
        self.shape = shape
        self.numbers: dict[str, Int64Array] = {}
        self.texts: dict[str, Int64Array] = {}
        self.reasons: dict[int, str] = {}
        self.kind, self.call, self.name, self.dialect, slots = (head[shape] for head in shapes.table.heads)
        odd = (found.first_slot[1:] - found.first_slot[:-1] != slots) | found.unsure
        self.kind[odd & (self.kind >= 0)] = DIRECT
        self.kind[found.end - found.start > LONGEST_LINE] = DIRECT

    def fill(self) -> None:
        """Fill the columns."""
        table = self.shapes.table
        direct = self.kind == DIRECT
        shape, beyond = np.where(direct, NO_SHAPE, self.shape), np.zeros(len(direct), dtype=np.bool_)
        self.numbers = table.number_columns(shape, self.found, beyond)
        if beyond.any():
            direct |= beyond & (self.kind >= 0)
            shape = np.where(direct, NO_SHAPE, self.shape)
            self.numbers = table.number_columns(shape, self.found, beyond)
        self.texts = table.text_columns(shape, self.found)
        for index in np.flatnonzero(direct).tolist():
            self._line_by_line(index)
        for index in impossible(self.kind, self.call, self.numbers).tolist():
            self.kind[index] = NOT_UNDERSTOOD
            self.reasons[index] = "impossible_value"
        for index in np.flatnonzero(self.kind == NOT_UNDERSTOOD).tolist():
            if index not in self.reasons:
                refused = table.templates[int(self.shape[index])]
                self.reasons[index] = refused.reason if isinstance(refused, Refused) else "unknown_line"

    def columns(self, chunk: Chunk, good: slice | Bools) -> LineColumns:
        """Return the columns of the good lines."""
        rows = self.found.row[good]
        numbers = {key: column[good] for key, column in self.numbers.items()}
        texts = {key: column[good] for key, column in self.texts.items()}
        heads = (self.kind[good], self.call[good], self.name[good], self.dialect[good])
        return LineColumns(rows, chunk.line[rows], chunk.entry_line[rows], *heads, numbers, texts)

    def _line_by_line(self, index: int) -> None:
        """Fill the columns for one line by parsing it."""
        start, end = int(self.found.start[index]), int(self.found.end[index])
        if end - start > LONGEST_LINE:
            self.kind[index] = NOT_UNDERSTOOD
            self.reasons[index] = "line_too_long"
            return
        text = self.found.data[start:end]
        parsed = self.shapes.direct(text)
        if isinstance(parsed, LineError):
            self.kind[index] = kind_of(Refused(parsed.reason))
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
                self._column(self.texts, key, NO_TEXT)[index] = self.shapes.texts.id(key, raw, suffix)

    def _column(self, columns: dict[str, Int64Array], key: str, null: int) -> Int64Array:
        """Return the column of a field to write to, one of nulls if no line had it so far."""
        column = columns.get(key)
        if column is None:
            column = columns[key] = np.full(len(self.kind), null, dtype=np.int64)
        elif not column.flags.writeable:
            column = columns[key] = column.copy()
        return column
