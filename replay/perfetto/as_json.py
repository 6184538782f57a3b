"""Tracks as trace-event JSON, the format of `chrome://tracing` that Perfetto reads too.

In go tracks, out come pieces of one document. Source: "Trace Event Format": phases X (slice), C (counter), i (instant),
s and f (flow), M (metadata); times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.perfetto.tracks import BY_LINES, Slices, Tracks

_text: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PIECE: Final = 1 << 14
_MARKS: Final = "refused breaks and fallbacks"
_FLOW: Final = "fallback"


def parts(tracks: Tracks) -> Iterator[bytes]:
    """Yield the document, some thousand events at a time."""
    other = {"trace": tracks.title, "origin_ns": tracks.origin, "time": BY_LINES if tracks.by_lines else "as logged"}
    yield b'{"displayTimeUnit":"ns","otherData":' + _text(other).encode() + b',"traceEvents":[\n'
    separator = ""
    all_events = _events(tracks)
    while events := list(islice(all_events, _PIECE)):
        yield (separator + ",\n".join(events)).encode()
        separator = ",\n"
    yield b"\n]}\n"


def _events(tracks: Tracks) -> Iterator[str]:
    yield from _names(tracks)
    yield from _slices(tracks)
    yield from _flows(tracks)
    for counter in tracks.counters():
        name = _text(counter.name)
        form = f'{{"ph":"C","pid":{counter.space + 1},"name":{name},"ts":%s,"args":{{"{counter.unit}":%d}}}}'
        yield from map(form.__mod__, zip(_microseconds(counter.time), counter.value.tolist(), strict=True))
    for instant in tracks.instants():
        time = _microseconds(np.array([instant.time]))[0]
        facts = _text(instant.facts)
        yield (
            f'{{"ph":"i","s":"t","pid":{instant.space + 1},"tid":{_mark_thread(tracks, instant.space)},'
            f'"name":{_text(instant.name)},"ts":{time},"args":{facts}}}'
        )


def _microseconds(times: Int64Array) -> list[str]:
    """Return nanoseconds as microseconds with three decimals."""
    whole, rest = np.divmod(times, 1000)
    return list(map("%d.%03d".__mod__, zip(whole.tolist(), rest.tolist(), strict=True)))


def _mark_thread(tracks: Tracks, space: int) -> int:
    return len(tracks.threads) + 1 + space


def _names(tracks: Tracks) -> Iterator[str]:
    def named(what: str, pid: int, tid: int, name: str) -> str:
        return _text({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}})

    for space, name in enumerate(tracks.spaces):
        yield named("process_name", space + 1, 0, name + (f" ({BY_LINES})" if tracks.by_lines else ""))
    for thread in tracks.threads:
        yield named("thread_name", thread.space + 1, thread.number, thread.name)
    for space in sorted({instant.space for instant in tracks.instants()}):
        yield named("thread_name", space + 1, _mark_thread(tracks, space), _MARKS)


def _slices(tracks: Tracks) -> Iterator[str]:
    slices, threads = tracks.slices, tracks.threads
    where = [f'"pid":{thread.space + 1},"tid":{thread.number}' for thread in threads]
    names = [_text(name) for name in slices.names]
    arguments = _arguments(slices)
    duration = slices.end - slices.start
    for low in range(0, len(slices), _PIECE):
        rows = slice(low, low + _PIECE)
        yield from map(
            '{"ph":"X",%s,"name":%s,"ts":%s,"dur":%s,"args":{%s}}'.__mod__,
            zip(
                (where[at] for at in slices.thread[rows].tolist()),
                (names[at] for at in slices.name[rows].tolist()),
                _microseconds(slices.start[rows]),
                _microseconds(duration[rows]),
                arguments[rows].tolist(),
                strict=True,
            ),
        )


def _arguments(slices: Slices) -> np.ndarray[Any, Any]:
    """Return the arguments of each slice as JSON: those that it has, addresses as texts in hexadecimal."""
    errors = [_text(error) for error in slices.errors]
    columns = {
        '"addr":"0x%x"': slices.addr,
        '"bytes":%d': slices.length,
        '"result":"0x%x"': slices.result,
        '"errno":%s': np.where(slices.errno < 0, NULL, slices.errno),
    }
    has = sum((column != NULL) << at for at, column in enumerate(columns.values()))
    made = np.empty(len(slices), object)
    for mask in np.unique(has).tolist() if len(slices) else []:
        rows = np.flatnonzero(has == mask)
        chosen = [(form, column) for at, (form, column) in enumerate(columns.items()) if mask >> at & 1]
        values: list[Iterable[Any]] = [slices.line[rows].tolist(), slices.step[rows].tolist()]
        for form, column in chosen:
            values.append(_values(form, column[rows], errors))
        form = ",".join(('"line":%d,"step":%d', *(form for form, _ in chosen)))
        made[rows] = list(map(form.__mod__, zip(*values, strict=True)))
    return made


def _values(form: str, column: Int64Array, errors: list[str]) -> list[Any]:
    if "errno" in form:
        return [errors[at] for at in column.tolist()]
    values: list[Any] = column.view(np.uint64).tolist()
    return values


def _flows(tracks: Tracks) -> Iterator[str]:
    """Yield an arrow from each refused brk to the mmap that stood in for it; each binds to the slice around it."""
    slices, threads = tracks.slices, tracks.threads
    place = np.argsort(slices.step)
    for number, steps in enumerate(tracks.flows, 1):
        for phase, step in zip(("s", "f"), steps, strict=True):
            row = int(place[step])
            thread = threads[int(slices.thread[row])]
            time = _microseconds(slices.start[row : row + 1])[0]
            yield (
                f'{{"ph":"{phase}","bp":"e","id":{number},"cat":"{_FLOW}","name":"{_FLOW}",'
                f'"pid":{thread.space + 1},"tid":{thread.number},"ts":{time}}}'
            )
