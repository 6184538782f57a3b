"""What is known of the shapes of a log, as a table with a row a shape.

In go templates by the hash of their shape, out come for the lines of a chunk their rows in this table, and from these
the columns of what the templates say. How a template comes about is not known here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from replay.engine.columns import NO_TEXT, NULL, Int64Array, to_signed
from replay.engine.structs import Struct, field
from replay.lines.scan import Bools, Scan
from replay.lines.shape_trie import MOST_LEAVES
from replay.lines.slots import Hashes
from replay.lines.templates import MOST_NS, Form, Refused, Span, Template
from replay.lines.text_ids import Texts

PASSED_OVER, NOT_UNDERSTOOD, DIRECT = -1, -2, -3
"""Kinds of lines that have no template; direct ones are parsed one by one."""

NO_SHAPE: Final = 0
"""The row of all shapes that are not in the table: their lines are parsed one by one."""

_FIRST_ROOM: Final = 64


def kind_of(template: Template | Refused) -> int:
    """Return the code of the kind of line of a shape, or why its lines have no template."""
    if isinstance(template, Template):
        return template.kind
    return {"other_call": PASSED_OVER, "direct": DIRECT}.get(template.reason, NOT_UNDERSTOOD)


def _with_room(columns: Int64Array, rows: int, null: int) -> Int64Array:
    """Return columns, their last axis the rows, long enough for `rows`: the same, or longer ones with nulls behind."""
    room = columns.shape[-1]
    if room >= rows:
        return columns
    longer = np.full((*columns.shape[:-1], max(_FIRST_ROOM, 2 * rows)), null, dtype=np.int64)
    longer[..., :room] = columns
    return longer


class _Numbers(Struct):
    """A field of numbers: for each shape what is constant, and which slots times what are added to it."""

    const: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    slot: Int64Array = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    factor: Int64Array = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))

    def set(self, row: int, form: Form) -> None:
        """Keep the form of the shape `row`."""
        self.make_room(row + 1)
        self.const[row] = to_signed(form.const)
        more = len(form.terms) - len(self.slot)
        if more > 0:
            empty = np.zeros((more, len(self.const)), dtype=np.int64)
            self.slot, self.factor = np.concatenate([self.slot, empty]), np.concatenate([self.factor, empty])
        for term, (slot, factor) in enumerate(form.terms):
            self.slot[term, row], self.factor[term, row] = slot, factor

    def make_room(self, rows: int) -> None:
        """Have a row for each of so many shapes."""
        self.const = _with_room(self.const, rows, NULL)
        self.slot, self.factor = _with_room(self.slot, rows, 0), _with_room(self.factor, rows, 0)

    def column(
        self, shape: Int64Array, present: Int64Array, first_slot: Int64Array, values: Int64Array, beyond: Bools
    ) -> Int64Array:
        """Return the numbers of lines of the shapes `present`, NULL where there is none; not to be written to.

        `beyond` is set where a product may be too large for a column.
        """
        total = _each(self.const, shape, present)
        for slots, factors in zip(self.slot, self.factor, strict=True):
            if len(values) and factors[present].any():
                part = values.take(first_slot + _each(slots, shape, present), mode="clip")
                factor = _each(factors, shape, present)
                if (factor > 1).any():
                    most = np.where(factor > 1, MOST_NS // np.maximum(factor, 1), -1).astype(np.uint64)
                    beyond |= part.view(np.uint64) > most
                part *= factor
                part += total
                total = part
        return np.broadcast_to(total, len(shape))


def _each(of_shape: Int64Array, shape: Int64Array, present: Int64Array) -> Int64Array | np.int64:
    """Return what each line's shape has; one number where all that are present have the same."""
    of_present = of_shape[present]
    same: np.int64 = of_present[0]
    return same if (of_present == same).all() else of_shape[shape]


class _Spans(Struct):
    """A field of texts: for each shape the id of what is constant, or between which slots it stands."""

    columns: Int64Array = field(default_factory=lambda: np.zeros((6, 0), dtype=np.int64))
    suffixes: list[str] = field(default_factory=list)

    def set(self, row: int, span: Span, const: int) -> None:
        """Keep the span of the shape `row`, or the id of its constant."""
        self.make_room(row + 1)
        if span.suffix not in self.suffixes:
            self.suffixes.append(span.suffix)
        suffix = self.suffixes.index(span.suffix)
        self.columns[:, row] = const, span.first, span.before, span.last, span.behind, suffix

    def make_room(self, rows: int) -> None:
        """Have a row for each of so many shapes."""
        self.columns = _with_room(self.columns, rows, NO_TEXT)

    def column(self, key: str, shape: Int64Array, found: Scan, texts: Texts) -> Int64Array:
        """Return the ids of the texts of lines, NO_TEXT where there is none."""
        column: Int64Array = self.columns[0][shape]
        lines = np.flatnonzero(self.columns[1][shape] >= 0)
        _, first, before, last, behind, suffix = self.columns[:, shape[lines]]
        inside = (first == last) & (before == -1) & (behind == -1)
        first, last = found.first_slot[lines] + first, found.first_slot[lines] + last
        for code in np.flatnonzero(np.bincount(suffix)).tolist():
            rows = np.flatnonzero((suffix == code) & inside)
            slot = first[rows]
            slots = found.slot_start[slot], found.slot_end[slot], found.value[slot]
            column[lines[rows]] = texts.ids_in_slots(key, found.data, slots, self.suffixes[code])
            rows = np.flatnonzero((suffix == code) & ~inside)
            if len(rows):
                start, end = found.slot_start[first[rows]] - before[rows], found.slot_end[last[rows]] + behind[rows]
                raws = [found.data[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)]
                column[lines[rows]] = texts.ids(key, raws, self.suffixes[code])
        return column


class ShapeTable(Struct):
    """The shapes that are known, by row.

    The hashes in order, the last one of no shape, tell the row; so do the numbers of leaves, see `scanner.Scan`.
    """

    texts: Texts
    templates: list[Template | Refused] = field(default_factory=lambda: [Refused("direct")])
    heads: Int64Array = field(default_factory=lambda: np.array([[DIRECT], [-1], [-1], [0], [-1]], dtype=np.int64))
    numbers: dict[str, _Numbers] = field(default_factory=dict)
    spans: dict[str, _Spans] = field(default_factory=dict)
    hashes: Hashes = field(default_factory=lambda: np.array([2**64 - 1], dtype=np.uint64))
    rows: Int64Array = field(default_factory=lambda: np.array([NO_SHAPE]))
    of_leaves: Int64Array = field(default_factory=lambda: np.full(MOST_LEAVES + 1, NO_SHAPE))

    def __len__(self) -> int:
        """Return how many shapes are known."""
        return len(self.templates) - 1

    def find(self, found: Scan) -> Int64Array:
        """Return the rows of the shapes of lines, `NO_SHAPE` for those that are not known."""
        rows = self.of_leaves[found.leaf]
        left = np.flatnonzero(rows == NO_SHAPE)
        if len(left):
            rows[left] = self.find_hashes(found.shape[left])
            self.of_leaves[found.leaf[left]] = rows[left]
            self.of_leaves[0] = NO_SHAPE
        return rows

    def forget_leaves(self) -> None:
        """Forget the numbers of leaves: each log has its own tree."""
        self.of_leaves.fill(NO_SHAPE)

    def find_hashes(self, hashes: Hashes) -> Int64Array:
        """Return the rows of shapes by their hashes, `NO_SHAPE` for those that are not known."""
        at = np.searchsorted(self.hashes, hashes)
        rows = self.rows[at]
        rows[self.hashes[at] != hashes] = NO_SHAPE
        return rows

    def add(self, new: dict[int, Template | Refused]) -> None:
        """Add shapes by their hashes."""
        hashes = np.fromiter(new, dtype=np.uint64, count=len(new))
        order = np.argsort(hashes)
        at = np.searchsorted(self.hashes, hashes[order])
        self.rows = np.insert(self.rows, at, len(self.templates) + order)
        self.hashes = np.insert(self.hashes, at, hashes[order])
        self.heads = _with_room(self.heads, len(self.templates) + len(new), 0)
        for template in new.values():
            self._add(template)

    def _add(self, template: Template | Refused) -> None:
        """Add one shape as the last row."""
        row = len(self.templates)
        self.templates.append(template)
        if isinstance(template, Refused):
            self.heads[:, row] = kind_of(template), -1, -1, 0, -1
            return
        name = self.texts.strings.intern(template.name)
        self.heads[:, row] = template.kind, template.call, name, template.dialect, template.slots
        for key, form in template.numbers.items():
            self.numbers.setdefault(key, _Numbers()).set(row, form)
        for key, span in template.texts.items():
            const = self.texts.id(key, span.const, span.suffix) if span.first < 0 else NO_TEXT
            self.spans.setdefault(key, _Spans()).set(row, span, const)

    def number_columns(self, shape: Int64Array, found: Scan, beyond: Bools) -> dict[str, Int64Array]:
        """Return a column for each field of numbers that a line has, the rows of the lines' shapes being `shape`.

        `beyond` is set for lines of which a number may be too large for its column: they are parsed one by one.
        """
        present = np.flatnonzero(np.bincount(shape, minlength=len(self.templates)))
        columns = {}
        for key, numbers in sorted(self.numbers.items()):
            numbers.make_room(len(self.templates))
            if (numbers.const[present] != NULL).any():
                values = found.value.view(np.int64)
                columns[key] = numbers.column(shape, present, found.first_slot[:-1], values, beyond)
        return columns

    def text_columns(self, shape: Int64Array, found: Scan) -> dict[str, Int64Array]:
        """Return a column for each field of texts that a line has, the rows of the lines' shapes being `shape`."""
        present = np.flatnonzero(np.bincount(shape, minlength=len(self.templates)))
        columns = {}
        for key, spans in self.spans.items():
            spans.make_room(len(self.templates))
            if (spans.columns[:2, present] != NO_TEXT).any():
                columns[key] = spans.column(key, shape, found, self.texts)
        return columns
