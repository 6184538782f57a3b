"""Tracks as TrackEvent protobuf, the format that Perfetto recommends.

In go tracks, out come packets. Packets of one shape have one length: their numbers are written as varints of a fixed
number of bytes, which protobuf allows, so that NumPy writes thousands at once. Source: protos/perfetto/trace of
Perfetto: trace_packet.proto, track_event.proto, track_descriptor.proto, debug_annotation.proto, interned_data.proto;
the encoding: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.perfetto.tracks import BY_LINES, Counter, Instant, Slices, Tracks

_SEQUENCE: Final = 1
_CLEARED, _NEEDED = 1, 2
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4
_UNITS: Final = {"bytes": 3, "count": 2}
_FACTS: Final = ("line", "step", "addr", "bytes", "result", "errno")
"""The names of arguments of slices; the place of each, from 1, stands for it."""

_TIME_BYTES: Final = 9
_WORD_BYTES: Final = 10
_SMALL_BYTES: Final = 5
_MARKS: Final = "refused breaks and fallbacks"


def parts(tracks: Tracks) -> Iterator[bytes]:
    """Yield the trace, packet by packet or many at a time."""
    yield _packet(_field(13, _CLEARED) + _field(12, _interned(tracks.slices)))
    instants, counters = tracks.instants(), list(tracks.counters())
    yield from _descriptors(tracks, instants, counters)
    yield _slice_packets(tracks)
    for number, counter in enumerate(counters):
        yield _counter_packets(_counter_track(tracks, number), counter)
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


class _Number(NamedTuple):
    """A number in packets of one shape, written as a varint of so many bytes."""

    values: Int64Array
    width: int


_Shape = list["bytes | _Number"]
"""What packets of one shape consist of: bytes that all have, and numbers of each."""


def _number(field: int, values: Int64Array, width: int) -> _Shape:
    return [_varint(field << 3), _Number(values, width)]


def _length(shape: _Shape) -> int:
    return sum(len(part) if isinstance(part, bytes) else part.width for part in shape)


def _nested(field: int, shape: _Shape) -> _Shape:
    return [_varint(field << 3 | 2) + _varint(_length(shape)), *shape]


def _written(shape: _Shape, count: int) -> list[bytes]:
    """Return packets of one shape."""
    length = _length(shape)
    out = np.empty((length, count), np.uint8)
    at = 0
    for part in shape:
        if isinstance(part, bytes):
            out[at : at + len(part)] = np.frombuffer(part, np.uint8)[:, None]
            at += len(part)
            continue
        left = part.values.view(np.uint64).copy()
        for place in range(part.width):
            more = 0x80 if place + 1 < part.width else 0
            out[at + place] = (left & np.uint64(0x7F)).astype(np.uint8) | more
            left >>= np.uint64(7)
        at += part.width
    flat = out.T.tobytes()
    return [flat[low : low + length] for low in range(0, len(flat), length)]


def _packets(time: Int64Array, event: _Shape) -> _Shape:
    body = [*_number(8, time, _TIME_BYTES), *_nested(11, event), _field(10, _SEQUENCE) + _field(13, _NEEDED)]
    return _nested(1, body)


def _counter_packets(track: int, counter: Counter) -> bytes:
    event: _Shape = [_field(9, _COUNTER) + _field(11, track), *_number(30, counter.value, _WORD_BYTES)]
    return b"".join(_written(_packets(counter.time, event), len(counter.time)))


def _slice_packets(tracks: Tracks) -> bytes:
    """Return the begins and ends of all slices in the order of time; at one time ends come first."""
    slices = tracks.slices
    count = len(slices)
    uuid = slices.thread + _thread(tracks, 0)
    packets = np.empty(2 * count, object)
    for rows, shape in _begins(tracks, uuid):
        packets[rows] = _written(shape, len(rows))
    packets[count:] = _written(_packets(slices.end, [_field(9, _END), *_number(11, uuid, _SMALL_BYTES)]), count)
    time = np.concatenate([slices.start, slices.end])
    is_begin = np.repeat([1, 0], count)
    tie = np.concatenate([-slices.end, -slices.start])
    return b"".join(packets[np.lexsort((tie, is_begin, time))].tolist())


def _begins(tracks: Tracks, uuid: Int64Array) -> Iterator[tuple[Int64Array, _Shape]]:
    """Yield the begins of slices in groups that have the same facts."""
    slices = tracks.slices
    flow = _flow_ids(tracks, len(slices))
    optional: dict[str, Int64Array] = {
        "addr": slices.addr,
        "bytes": slices.length,
        "result": slices.result,
        "errno": np.where(slices.errno < 0, NULL, slices.errno + 1),
        "flow": np.where(flow == 0, NULL, flow),
    }
    has = sum((column != NULL) << at for at, column in enumerate(optional.values()))
    for mask in np.flatnonzero(np.bincount(has)).tolist() if len(slices) else []:
        rows = np.flatnonzero(has == mask)
        facts = {"line": slices.line[rows], "step": slices.step[rows]}
        facts |= {name: column[rows] for at, (name, column) in enumerate(optional.items()) if mask >> at & 1}
        event: _Shape = [
            _field(9, _BEGIN),
            *_number(11, uuid[rows], _SMALL_BYTES),
            *_number(10, slices.name[rows] + 1, 2),
            *(part for name, values in facts.items() for part in _fact(name, values)),
        ]
        yield rows, _packets(slices.start[rows], event)


_KINDS: Final = {"addr": 7, "result": 7, "errno": 17}
"""The field of DebugAnnotation that a fact is a value of: a pointer, an interned text; else a number."""


def _fact(name: str, values: Int64Array) -> _Shape:
    if name == "flow":
        return [_varint(47 << 3 | 1), *_fixed(values)]
    kind = _KINDS.get(name, 3)
    return _nested(4, [_field(1, _FACTS.index(name) + 1), *_number(kind, values, _WORD_BYTES)])


def _fixed(values: Int64Array) -> _Shape:
    """Return numbers as eight bytes each, seven bits in a byte: nothing is known of a flow's number but who has it."""
    return [_Number(values >> 7 * at & 0x7F, 1) for at in range(8)]


def _flow_ids(tracks: Tracks, count: int) -> Int64Array:
    """Return the flow that each slice belongs to, 0 for none: one for a refused brk and all that stood in for it."""
    flow = np.zeros(count, np.int64)
    place = np.argsort(tracks.slices.step)
    for refusal, step in tracks.flows:
        flow[place[[refusal, step]]] = refusal + 1
    return flow
