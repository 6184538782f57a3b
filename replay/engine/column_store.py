"""Columns too long to be held as they are: kept packed, in parts, past a limit in a temporary file.

In go parts of int64 columns in order, out come each column whole, or the columns of one part. What columns mean is not
known here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import count, pairwise
from typing import IO, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NULL, Int64Array
from replay.engine.sorting import ascending, ascending_by, is_ascending
from replay.errors import ReplayError

PART_ROWS: Final = 1 << 16
"""Rows of a part where nothing else cuts the columns: so many numbers lie close together and stay in the cache."""

WHOLE_BYTES: Final = 96 << 20
"""The first columns, up to so many bytes, are kept as they are: most runs need no more, and packing takes time."""

HELD_BYTES: Final = 192 << 20
"""Columns beyond so many bytes go to a temporary file, in the directory that TMPDIR names."""

TRIMMED_BYTES: Final = 64 << 20
"""After so many bytes in that file malloc gives back what is free: what it keeps would grow with the run."""

RECENT_BYTES: Final = 64 << 20
"""Columns, whole or of one part, that were asked for last stay unpacked up to so many bytes, the last one anyway."""

_MANY: Final = 8
"""One row in so many is many. Heuristic, measured."""

_WHOLE: Final = -1
"""In the place of the number of a part: all of them."""

_WIDTHS: Final = (np.uint8, np.uint16, np.uint32)


class Packed(NamedTuple):
    """One column of one part: `length` numbers, as differences from `low` in a narrow type; no type: all are `low`.

    Where it `has_nulls`, the highest number of the type stands for `NULL`. It lies `before` numbers behind `place`.
    """

    length: int
    low: int
    type: type[np.generic] | None
    has_nulls: bool
    place: int
    before: int = 0

    def part(self, start: int, end: int) -> Packed:
        """Return its numbers `[start, end)`."""
        return self if end - start == self.length else self._replace(length=end - start, before=self.before + start)


class Key(NamedTuple):
    """Which unpacked column something is: that of a table, of one part of it or `_WHOLE`."""

    table: int
    name: str
    part: int = _WHOLE


class Shelf:
    """Where the packed columns of a run lie."""

    def __init__(self, held_bytes: int = HELD_BYTES, whole_bytes: int = WHOLE_BYTES) -> None:
        """Start empty; what lies here, up to so many bytes in memory and so many unpacked, is gone with the shelf."""
        self._held_bytes, self._whole_bytes = held_bytes, whole_bytes
        self._held: dict[int, NDArray[Any]] = {}
        self._file: IO[bytes] | None = None
        self._end = self._next_trim = 0
        self._tables = count()
        self._recent: OrderedDict[Key, Int64Array] = OrderedDict()
        self._recent_bytes = 0

    def number(self) -> int:
        """Return a number that no other table of this shelf has."""
        return next(self._tables)

    def put(self, column: Int64Array) -> Packed:
        """Return where and how `column` is kept from now on.

        Raises:
            ReplayError: the temporary directory is full.
        """
        if not len(column) or not column.strides[0] or _is_one_number(column):
            return Packed(len(column), int(column[0]) if len(column) else 0, None, has_nulls=False, place=0)
        if self._end + column.nbytes <= self._whole_bytes:
            return Packed(len(column), 0, np.int64, has_nulls=False, place=self._kept(column.copy()))
        column = np.ascontiguousarray(column)  # a column of a table of rows is slow to read: it is once
        low, high = int(column.min()), int(column.max())
        nulls = column == NULL if low == NULL else None
        if nulls is not None:
            low = int((column - 1).min()) + 1  # NULL - 1 is the highest number
        for width in _WIDTHS:
            if high - low < np.iinfo(width).max:
                codes = (column - low).astype(width)
                if nulls is not None:
                    np.putmask(codes, nulls, np.iinfo(width).max)
                return Packed(len(column), low, width, nulls is not None, self._kept(codes))
        return Packed(len(column), 0, np.int64, has_nulls=False, place=self._kept(column.copy()))

    def take(self, packed: Packed, out: Int64Array) -> None:
        """Write the numbers of `packed` into `out`."""
        if packed.type is None:
            out[:] = packed.low
            return
        codes = self._codes(packed)
        if codes is None:
            assert self._file is not None
            self._file.seek(packed.place + packed.before * np.dtype(packed.type).itemsize)
            codes = np.fromfile(self._file, packed.type, packed.length)
        if packed.type is np.int64:
            out[:] = codes
            return
        np.add(codes, packed.low, out=out, dtype=np.int64)
        if packed.has_nulls:
            np.putmask(out, codes == np.iinfo(packed.type).max, NULL)  # type: ignore[type-var]

    def whole(self, packed: Packed) -> Int64Array | None:
        """Return the numbers of `packed` where they are in memory as they are; they are not to be written to."""
        return self._codes(packed) if packed.type is np.int64 else None

    def _codes(self, packed: Packed) -> NDArray[Any] | None:
        held = self._held.get(packed.place)
        return None if held is None else held[packed.before : packed.before + packed.length]

    def recent(self, key: Key) -> Int64Array | None:
        """Return an unpacked column that was asked for lately."""
        if key in self._recent:
            self._recent.move_to_end(key)
        return self._recent.get(key)

    def remember(self, key: Key, column: Int64Array) -> Int64Array:
        """Keep a column unpacked until others need its room, and return it."""
        column.flags.writeable = False
        self._recent[key] = column
        self._recent_bytes += column.nbytes
        while len(self._recent) > 1 and self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= self._recent.popitem(last=False)[1].nbytes
        return column

    def forget(self, keys: Iterable[Key]) -> None:
        """Let go of unpacked columns."""
        for key in keys:
            column = self._recent.pop(key, None)
            if column is not None:
                self._recent_bytes -= column.nbytes

    def _kept(self, codes: NDArray[Any]) -> int:
        """Keep codes in memory, or with all others in the file once they are too many; return their place in it."""
        place = self._end
        self._end += codes.nbytes
        codes.flags.writeable = False
        self._held[place] = codes
        if self._end > self._held_bytes:
            self._write_held()
            if self._end > self._next_trim:
                from replay.engine.process_memory import give_freed_memory_back

                give_freed_memory_back()
                self._next_trim = self._end + TRIMMED_BYTES
        return place

    def _write_held(self) -> None:
        """Append what is held in memory to the file."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="replay-")  # noqa: SIM115 - it outlives this
            self._file.seek(next(iter(self._held)))
            for codes in self._held.values():
                self._file.write(codes.data)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ReplayError(
                f"{tempfile.gettempdir()}: cannot be written: {reason}; a run this long is kept in a temporary file "
                "while it is replayed, and TMPDIR says where"
            ) from error
        self._held.clear()


def one_number(number: int, length: int) -> Int64Array:
    """Return a column of one number all over, which is there but once; `np.broadcast_to` takes six times as long."""
    return np.ndarray(length, np.int64, number.to_bytes(8, sys.byteorder, signed=True), strides=(0,))


def _is_one_number(column: Int64Array) -> bool:
    """Tell whether all numbers of a column are equal."""
    return bool(column[0] == column[-1] and (column == column[0]).all())


class PackedColumns(Mapping[str, Int64Array]):
    """Columns of one length by name, each unpacked when it is asked for; the arrays are not to be written to."""

    def __init__(self, shelf: Shelf, names: Iterable[str] = ()) -> None:
        """Begin with no rows, to which parts are added; without `names`, with no columns, which are kept one by one."""
        self.shelf = shelf
        self._number = shelf.number()
        self.names = tuple(names)
        self.starts = [0]
        self._parts: list[dict[str, Packed]] = []

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.names)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return self.starts[-1]

    @property
    def parts(self) -> int:
        """Return the number of parts."""
        return len(self._parts)

    def append(self, columns: Mapping[str, Int64Array], shared: Mapping[str, Packed] | None = None) -> None:
        """Add rows behind the others; what is `shared` with other packed columns is not packed once more."""
        packed_once: dict[int, Packed] = {}
        part = {}
        for name, column in dict(columns).items():  # all there at once: an id is that of one column only while it is
            if name in self.names:
                if id(column) not in packed_once:  # one column may have two names
                    packed_once[id(column)] = self.shelf.put(column)
                part[name] = packed_once[id(column)]
        part = {name: packed for name, packed in (shared or {}).items() if name in self.names} | part
        self._parts.append(part)
        self.starts.append(self.starts[-1] + part[self.names[0]].length)
        self.shelf.forget([Key(self._number, name) for name in self.names])

    def keep(self, name: str, column: Int64Array) -> None:
        """Add a column in parts of `PART_ROWS`; all are of one length."""
        if not self.names:
            self.starts = [*range(0, max(len(column), 1), PART_ROWS), len(column)]
            self._parts = [{} for _ in self.starts[1:]]
        if len(column) != self.rows:
            raise ValueError(f"{name} has {len(column)} rows, the columns before it {self.rows}")
        for part, (start, end) in zip(self._parts, pairwise(self.starts), strict=True):
            part[name] = self.shelf.put(column[start:end])
        self.names += (name,)

    def keep_of(self, other: PackedColumns, *names: str) -> None:
        """Keep columns of another that keeps its own one by one, without a second copy."""
        if not self.names:
            self.starts, self._parts = other.starts, [{} for _ in other._parts]
        for part, of_other in zip(self._parts, other._parts, strict=True):
            part |= {name: of_other[name] for name in names}
        self.names += names

    def packed(self, number: int) -> Mapping[str, Packed]:
        """Return the columns of a part as they are kept, to share them."""
        return self._parts[number]

    def part(self, number: int, names: Iterable[str] | None = None) -> dict[str, Int64Array]:
        """Return the columns of one part, all of them or those named."""
        chosen = {name: self._parts[number][name] for name in (self.names if names is None else names)}
        unpacked = {packed: self._unpacked(packed) for packed in set(chosen.values())}
        return {name: unpacked[packed] for name, packed in chosen.items()}

    def constant(self, number: int, name: str) -> int | None:
        """Return the one number that a column of a part is known to be all over, None where it may have several."""
        return packed.low if (packed := self._parts[number][name]).type is None else None

    def _unpacked(self, packed: Packed) -> Int64Array:
        """Return a column of a part; one number all over is there but once."""
        if packed.type is None:
            return one_number(packed.low, packed.length)
        held = self.shelf.whole(packed)
        if held is not None:
            return held
        column = np.empty(packed.length, np.int64)
        self.shelf.take(packed, column)
        return column

    def __getitem__(self, name: str) -> Int64Array:
        """Return a column whole; it is kept for whoever asks next."""
        if name not in self.names:
            raise KeyError(name)
        key = Key(self._number, name)
        column = self.shelf.recent(key)
        if column is None:
            column = self.unpacked(name)
            if column.strides[0]:
                self.shelf.remember(key, column)
        return column

    def at(self, name: str, rows: Int64Array) -> Int64Array:
        """Return a column's numbers at some rows; only the parts are unpacked in which they are.

        The column is unpacked whole for rows that do not ascend if they are `_MANY`: sorting them would take longer.
        """
        if not len(rows):
            return np.empty(0, np.int64)
        if len(self._parts) == 1 and rows.min() >= 0:
            return self._unpacked(self._parts[0][name])[rows]
        if not is_ascending([rows]):
            if len(rows) * _MANY > self.rows:
                return self[name][rows]
            order = ascending(rows)
            found = np.empty(len(rows), np.int64)
            found[order] = self.at(name, rows[order])
            return found
        if len(rows) and not 0 <= rows[0] <= rows[-1] < self.rows:
            raise IndexError(f"rows {rows[0]} to {rows[-1]} of {self.rows}")
        bounds = np.searchsorted(rows, self.starts)
        found = np.empty(len(rows), np.int64)
        for number in np.flatnonzero(bounds[1:] > bounds[:-1]).tolist():
            some = slice(bounds[number], bounds[number + 1])
            found[some] = self.part(number, [name])[name][rows[some] - self.starts[number]]
        return found

    def one(self, name: str, row: int) -> int:
        """Return a column's number in one row; its part is kept unpacked for whoever asks for a row nearby."""
        number = bisect_right(self.starts, row) - 1
        key = Key(self._number, name, number)
        column = self.shelf.recent(key)
        if column is None:
            column = self.shelf.remember(key, self._unpacked(self._parts[number][name]))
        return int(column[row - self.starts[number]])

    def count_up_to(self, name: str, value: int) -> int:
        """Return how many rows hold no more than `value` in a column whose numbers ascend."""
        return bisect_right(range(self.rows), value, key=partial(self.one, name))

    def unpacked(self, name: str) -> Int64Array:
        """Return a column whole, in memory of its own, but for one number all over, which is there but once."""
        kept = [part[name] for part in self._parts]
        if kept and all(packed.type is None and packed.low == kept[0].low for packed in kept):
            return one_number(kept[0].low, self.rows)
        column = np.empty(self.rows, np.int64)
        for start, part in zip(self.starts, self._parts, strict=False):
            self.shelf.take(part[name], column[start : start + part[name].length])
        return column


def packed_columns(shelf: Shelf, columns: Iterable[tuple[str, Int64Array]]) -> PackedColumns:
    """Return columns of one length, which come one after the other with their names, packed in parts of `PART_ROWS`."""
    made = PackedColumns(shelf)
    for name, column in columns:
        made.keep(name, column)
    return made


class SortedColumns(Mapping[str, Int64Array]):
    """Packed columns with their rows sorted by those named in `order`; each is put in order when it is asked for."""

    def __init__(self, columns: PackedColumns, order: Sequence[str]) -> None:
        """Sort nothing yet; equal rows keep their places."""
        self._columns = columns
        self._order = order
        self._number = columns.shelf.number()

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the columns."""
        return iter(self._columns)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self._columns)

    @cached_property
    def _rows(self) -> NDArray[np.int32 | np.int64] | None:
        """Return the places of the rows in order, none where they are in order as they are."""
        keys = [self._columns[name] for name in self._order]
        if is_ascending(keys):
            return None
        return ascending_by(*keys).astype(np.int32 if len(keys[0]) <= np.iinfo(np.int32).max else np.int64)

    def __getitem__(self, name: str) -> Int64Array:
        """Return a column whole; it is kept for whoever asks next."""
        if self._rows is None:
            return self._columns[name]
        key = Key(self._number, name)
        column = self._columns.shelf.recent(key)
        if column is None:
            column = self._columns.shelf.remember(key, self._columns.unpacked(name)[self._rows])
        return column

    def packed(self) -> PackedColumns:
        """Return the columns in order once and for all, as they are asked for part by part."""
        if self._rows is None:
            return self._columns
        return packed_columns(self._columns.shelf, ((name, self._columns.unpacked(name)[self._rows]) for name in self))
