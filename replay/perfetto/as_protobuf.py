"""Tracks as TrackEvent protobuf, the format that Perfetto recommends.

In go tracks, out come packets. Packets of one form have one length, which stands before what they hold: their numbers
are varints of as many bytes as the largest of them takes, which protobuf allows. Source: protos/perfetto/trace of
Perfetto: trace_packet.proto, track_event.proto, track_descriptor.proto, debug_annotation.proto, interned_data.proto;
the encoding: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import numpy as np

from replay.engine.columns import NULL, Int64Array, to_unsigned
from replay.engine.forms import FIXED64, VARINT, Form, Number, UInt64Array, written
from replay.engine.sorting import ascending
from replay.perfetto.tracks import BY_LINES, Counter, Instant, Slices, Tracks, which_are_known

_SEQUENCE: Final = 1
_CLEARED, _NEEDED = 1, 2
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4
_UNITS: Final = {"bytes": 3, "count": 2}
_FACTS: Final = ("line", "step", "addr", "bytes", "result", "errno")
"""The names of arguments of slices; the place of each, from 1, stands for it."""

_MARKS: Final = "refused breaks and fallbacks"


def parts(tracks: Tracks) -> Iterator[bytes]:
    """Yield the trace, packet by packet or many at a time."""
    yield _packet(_field(13, _CLEARED) + _field(12, _interned(tracks.slices)))
    instants, counters = tracks.instants(), list(tracks.counters())
    yield from _descriptors(tracks, instants, counters)
    yield from _slice_packets(tracks)
    for number, counter in enumerate(counters):
        yield from _counter_packets(_counter_track(tracks, number), counter)
    for instant in instants:
        yield _instant_packet(_mark_track(tracks, instant.space), instant)


# --- plain protobuf --------------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes | str) -> bytes:
    """Return a field: a number, or bytes behind their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value & (1 << 64) - 1)
    raw = value.encode("utf-8", "backslashreplace") if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _packet(body: bytes) -> bytes:
    """Return a packet of a trace: `Trace.packet`, with the sequence that it belongs to."""
    return _field(1, body + _field(10, _SEQUENCE))


def _interned(slices: Slices) -> bytes:
    """Return the names that slices are known by: InternedData.event_names and debug_annotation_names, and errors."""
    parts = [_field(2, _field(1, at) + _field(2, name)) for at, name in enumerate(slices.names, 1)]
    parts += [_field(3, _field(1, at) + _field(2, name)) for at, name in enumerate(_FACTS, 1)]
    return b"".join(
        [*parts, *(_field(29, _field(1, at) + _field(2, name)) for at, name in enumerate(slices.errors, 1))]
    )


def _descriptors(tracks: Tracks, instants: Sequence[Instant], counters: Sequence[Counter]) -> Iterator[bytes]:
    """Yield a descriptor for each track: processes, threads, counters, marks."""

    def described(uuid: int, parent: int, *fields: bytes) -> bytes:
        return _packet(_field(60, _field(1, uuid) + (_field(5, parent) if parent else b"") + b"".join(fields)))

    for space, name in enumerate(tracks.spaces):
        said = name + (f" ({BY_LINES})" if tracks.by_lines else "")
        yield described(_process(space), 0, _field(3, _field(1, space + 1) + _field(6, said)))
    for thread in tracks.threads:
        told = _field(1, thread.space + 1) + _field(2, thread.number) + _field(5, thread.name)
        yield described(_thread(tracks, thread.number - 1), _process(thread.space), _field(4, told))
    for number, counter in enumerate(counters):
        unit = _field(8, _field(3, _UNITS[counter.unit]))
        yield described(_counter_track(tracks, number), _process(counter.space), _field(2, counter.name), unit)
    for space in sorted({instant.space for instant in instants}):
        yield described(_mark_track(tracks, space), _process(space), _field(2, _MARKS))


def _process(space: int) -> int:
    return space + 1


def _thread(tracks: Tracks, number: int) -> int:
    return 1 + len(tracks.spaces) + number


def _mark_track(tracks: Tracks, space: int) -> int:
    return _thread(tracks, len(tracks.threads)) + space


def _counter_track(tracks: Tracks, number: int) -> int:
    return _mark_track(tracks, len(tracks.spaces)) + number


def _instant_packet(track: int, instant: Instant) -> bytes:
    facts = [
        _field(4, _field(10, name) + (_field(6, value) if isinstance(value, str) else _field(4, value)))
        for name, value in instant.facts.items()
    ]
    event = _field(9, _INSTANT) + _field(11, track) + _field(23, instant.name) + b"".join(facts)
    return _packet(_field(8, instant.time) + _field(11, event))


# --- many packets of one shape ---------------------------------------------------------------------------------------


def _number(field: int, column: int, width: int) -> Form:
    return [_varint(field << 3), Number(column, VARINT, width)]


def _length(form: Form) -> int:
    return sum(len(part) if isinstance(part, bytes) else part.width for part in form)


def _nested(field: int, form: Form) -> Form:
    return [_varint(field << 3 | 2) + _varint(_length(form)), *form]


def _packet_form(time: Form, event: Form) -> Form:
    return _nested(1, [*time, *_nested(11, event), _field(10, _SEQUENCE) + _field(13, _NEEDED)])


def _widths(columns: UInt64Array) -> list[int]:
    """Return how many bytes the largest number of each column takes as a varint."""
    return [len(_varint(int(column.max(initial=0)))) for column in columns]


def _counter_packets(track: int, counter: Counter) -> Iterator[bytes]:
    columns = np.stack([counter.time, counter.value]).view(np.uint64)
    time, value = _widths(columns)
    event = [_field(9, _COUNTER) + _field(11, track), *_number(30, 1, value)]
    rows = np.arange(len(counter.time))
    yield from written([_packet_form(_number(8, 0, time), event)], np.zeros_like(rows), rows, columns)


def _slice_packets(tracks: Tracks) -> Iterator[bytes]:
    """Yield the begins and ends of all slices in the order of time; at one time ends come first, inner ones first."""
    slices = tracks.slices
    count = len(slices)
    facts = _facts(tracks)
    masks, has = which_are_known(list(facts.values()))
    columns = np.stack([
        slices.start, slices.end, slices.thread + _thread(tracks, 0), slices.name + 1, *facts.values()
    ]).view(np.uint64)  # fmt: skip
    widths = _widths(np.where(columns == np.uint64(to_unsigned(NULL)), np.uint64(0), columns))
    end = _packet_form(_number(8, 1, widths[1]), [_field(9, _END), *_number(11, 2, widths[2])])
    last = count - 1 - ascending(slices.end[::-1])
    row, form = np.empty(2 * count, np.int64), np.full(2 * count, len(masks))
    begins = np.arange(count) + np.searchsorted(slices.end[last], slices.start, side="right")
    row[begins], form[begins] = np.arange(count), has
    row[form == len(masks)] = last
    yield from written([*(_begin(mask, tuple(facts), widths) for mask in masks), end], form, row, columns)


def _facts(tracks: Tracks) -> dict[str, Int64Array]:
    """Return what is told of slices, `NULL` where it is not known."""
    slices = tracks.slices
    return {
        "line": slices.line,
        "step": slices.step,
        "addr": slices.addr,
        "bytes": slices.length,
        "result": slices.result,
        "errno": np.where(slices.errno < 0, NULL, slices.errno + 1),
        "flow": _flow_ids(tracks),
    }


def _begin(mask: int, names: Sequence[str], widths: Sequence[int]) -> Form:
    """Return the form of a begin that has the facts whose bits are in `mask`."""
    facts = [
        _fact(name, column, widths[column])
        for column, name in enumerate(names, len(widths) - len(names))
        if mask >> column - (len(widths) - len(names)) & 1
    ]
    event: Form = [
        _field(9, _BEGIN), *_number(11, 2, widths[2]), *_number(10, 3, widths[3]), *chain.from_iterable(facts),
    ]  # fmt: skip
    return _packet_form(_number(8, 0, widths[0]), event)


_KINDS: Final = {"addr": 7, "result": 7, "errno": 17}
"""The field of DebugAnnotation that a fact is a value of: a pointer, an interned text; else a number."""


def _fact(name: str, column: int, width: int) -> Form:
    if name == "flow":
        return [_varint(47 << 3 | 1), Number(column, FIXED64, 8)]
    kind = _KINDS.get(name, 3)
    return _nested(4, [_field(1, _FACTS.index(name) + 1), *_number(kind, column, width)])


def _flow_ids(tracks: Tracks) -> Int64Array:
    """Return the flow of each slice, `NULL` for none: one for a refused brk and all that stood in for it."""
    flow = np.full(len(tracks.slices), NULL)
    place = np.argsort(tracks.slices.step)
    for refusal, step in tracks.flows:
        flow[place[[refusal, step]]] = refusal + 1
    return flow
