"""Tracks as trace-event JSON, the format of `chrome://tracing` that Perfetto reads too.

In go tracks, out come pieces of one document. Source: "Trace Event Format": phases X (slice), C (counter), i (instant),
s and f (flow), M (metadata); times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from replay.engine.columns import NULL, Int64Array
from replay.perfetto.tracks import BY_LINES, Instant, Slices, Tracks

_text: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_PIECE: Final = 1 << 16
_MARKS: Final = "refused breaks and fallbacks"
_FLOW: Final = "fallback"


def parts(tracks: Tracks) -> Iterator[bytes]:
    """Yield the document, many events at a time."""
    other = {"trace": tracks.title, "origin_ns": tracks.origin, "time": BY_LINES if tracks.by_lines else "as logged"}
    yield f'{{"displayTimeUnit":"ns","otherData":{_text(other)},"traceEvents":[\n'.encode()
    separator = ""
    for events in _events(tracks):
        if events:
            yield (separator + ",\n".join(events)).encode()
            separator = ",\n"
    yield b"\n]}\n"


def _events(tracks: Tracks) -> Iterator[list[str]]:
    yield list(_names(tracks))
    yield from _slices(tracks)
    yield list(_flows(tracks))
    for counter in tracks.counters():
        times, form = _microseconds(counter.time)
        event = (
            f'{{"ph":"C","pid":{counter.space + 1},"name":{_text(counter.name)},"ts":{form},'
            f'"args":{{"{counter.unit}":%d}}}}'
        )
        yield list(map(event.__mod__, zip(times, counter.value.tolist(), strict=True)))
    yield [_instant(tracks, instant) for instant in tracks.instants()]


def _instant(tracks: Tracks, instant: Instant) -> str:
    thread, time = _mark_thread(tracks, instant.space), _microsecond(instant.time)
    return (
        f'{{"ph":"i","s":"t","pid":{instant.space + 1},"tid":{thread},"name":{_text(instant.name)},"ts":{time},'
        f'"args":{_text(instant.facts)}}}'
    )


def _microseconds(times: Int64Array) -> tuple[list[Any], str]:
    """Return nanoseconds as microseconds, and the form that prints them: with three decimals, if any has some."""
    whole, rest = np.divmod(times, 1000)
    if not rest.any():
        return whole.tolist(), "%d"
    return list(map("%d.%03d".__mod__, zip(whole.tolist(), rest.tolist(), strict=True))), "%s"


def _microsecond(time: int) -> str:
    return f"{time // 1000}.{time % 1000:03}"


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


def _slices(tracks: Tracks) -> Iterator[list[str]]:
    slices, threads = tracks.slices, tracks.threads
    where = [f'"pid":{thread.space + 1},"tid":{thread.number}' for thread in threads]
    names, errors = [_text(name) for name in slices.names], [_text(error) for error in slices.errors]
    has = sum((column != NULL) << at for at, column in enumerate(_optional(slices).values()))
    for low in range(0, len(slices), _PIECE):
        events = np.empty(min(_PIECE, len(slices) - low), object)
        masks = has[low : low + _PIECE]
        for mask in np.flatnonzero(np.bincount(masks)).tolist():
            rows = np.flatnonzero(masks == mask)
            events[rows] = _alike(slices, rows + low, mask, (where, names, errors))
        yield events.tolist()


def _optional(slices: Slices) -> dict[str, Int64Array]:
    """Return what not every slice has, by the form that prints it; addresses are texts in hexadecimal."""
    return {
        '"addr":"0x%x"': slices.addr,
        '"bytes":%d': slices.length,
        '"result":"0x%x"': slices.result,
        '"errno":%s': np.where(slices.errno < 0, NULL, slices.errno),
    }


def _alike(slices: Slices, rows: Int64Array, mask: int, texts: tuple[list[str], list[str], list[str]]) -> list[str]:
    """Return slices that have the same arguments, those whose bits are in `mask`."""
    where, names, errors = texts
    start, start_form = _microseconds(slices.start[rows])
    duration, form = _microseconds(slices.end[rows] - slices.start[rows])
    chosen = {form: column for at, (form, column) in enumerate(_optional(slices).items()) if mask >> at & 1}
    arguments = ",".join(('"line":%d,"step":%d', *chosen))
    event = f'{{"ph":"X",%s,"name":%s,"ts":{start_form},"dur":{form},"args":{{{arguments}}}}}'
    columns: list[Iterable[Any]] = [
        map(where.__getitem__, slices.thread[rows].tolist()),
        map(names.__getitem__, slices.name[rows].tolist()),
        start,
        duration,
        slices.line[rows].tolist(),
        slices.step[rows].tolist(),
        *(_values(form, column[rows], errors) for form, column in chosen.items()),
    ]
    return list(map(event.__mod__, zip(*columns, strict=True)))


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
            time = _microsecond(int(slices.start[row]))
            yield (
                f'{{"ph":"{phase}","bp":"e","id":{number},"cat":"{_FLOW}","name":"{_FLOW}",'
                f'"pid":{thread.space + 1},"tid":{thread.number},"ts":{time}}}'
            )
