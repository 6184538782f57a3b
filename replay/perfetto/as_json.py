"""Tracks as trace-event JSON, the format of `chrome://tracing` that Perfetto reads too.

In go tracks, out come pieces of one document. Source: "Trace Event Format": phases X (slice), C (counter), i (instant),
s and f (flow), M (metadata); times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import numpy as np

from replay.engine.columns import NULL
from replay.engine.forms import DECIMAL, HEXADECIMAL, TEXT, THOUSANDTHS, Form, Number, written
from replay.perfetto.tracks import BY_LINES, Instant, Tracks, which_are_known

_text: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_NEXT: Final = b",\n"
_MARKS: Final = "refused breaks and fallbacks"
_FLOW: Final = "fallback"


def parts(tracks: Tracks) -> Iterator[bytes]:
    """Yield the document, many events at a time."""
    other = {"trace": tracks.title, "origin_ns": tracks.origin, "time": BY_LINES if tracks.by_lines else "as logged"}
    yield f'{{"displayTimeUnit":"ns","otherData":{_text(other)},"traceEvents":[\n'.encode()
    before = len(_NEXT)
    for events in _events(tracks):
        yield events[before:]
        before = 0
    yield b"\n]}\n"


def _events(tracks: Tracks) -> Iterator[bytes]:
    """Yield events, `_NEXT` before each, the first one too."""
    yield from _joined(_names(tracks))
    yield from _slices(tracks)
    yield from _joined(_flows(tracks))
    for counter in tracks.counters():
        event = (
            f'{{"ph":"C","pid":{counter.space + 1},"name":{_text(counter.name)},"ts":',
            Number(0, THOUSANDTHS), f',"args":{{"{counter.unit}":', Number(1, DECIMAL), "}}",
        )  # fmt: skip
        rows = np.arange(len(counter.time))
        columns = np.stack([counter.time, counter.value]).view(np.uint64)
        yield from written([_form(event)], np.zeros_like(rows), rows, columns)
    yield from _joined(_instant(tracks, instant) for instant in tracks.instants())


def _joined(events: Iterable[str]) -> Iterator[bytes]:
    """Yield events as one piece, where there are any."""
    text = b"".join(_NEXT + event.encode() for event in events)
    if text:
        yield text


def _form(event: Iterable[str | Number]) -> Form:
    return [_NEXT, *(part.encode() if isinstance(part, str) else part for part in event)]


def _instant(tracks: Tracks, instant: Instant) -> str:
    thread, time = _mark_thread(tracks, instant.space), _microsecond(instant.time)
    return (
        f'{{"ph":"i","s":"t","pid":{instant.space + 1},"tid":{thread},"name":{_text(instant.name)},"ts":{time},'
        f'"args":{_text(instant.facts)}}}'
    )


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


def _slices(tracks: Tracks) -> Iterator[bytes]:
    """Yield the slices, those with the same arguments by one form."""
    slices = tracks.slices
    errno = np.where(slices.errno < 0, NULL, slices.errno)
    arguments = [slices.addr, slices.length, slices.result, errno]
    masks, form = which_are_known(arguments)
    columns = np.stack([
        slices.thread, slices.name, slices.start, slices.end - slices.start, slices.line, slices.step, *arguments
    ])  # fmt: skip
    threads = [f'"pid":{thread.space + 1},"tid":{thread.number}' for thread in tracks.threads]
    texts = [text.encode() for text in (*threads, *map(_text, slices.names), *map(_text, slices.errors))]
    columns[1] += len(threads)
    columns[-1] += len(threads) + len(slices.names)
    yield from written([_slice(mask) for mask in masks], form, np.arange(len(form)), columns.view(np.uint64), texts)


def _slice(mask: int) -> Form:
    """Return the form of a slice that has the arguments whose bits are in `mask`; addresses are in hexadecimal."""
    optional = (
        (',"addr":"0x', Number(6, HEXADECIMAL), '"'),
        (',"bytes":', Number(7, DECIMAL)),
        (',"result":"0x', Number(8, HEXADECIMAL), '"'),
        (',"errno":', Number(9, TEXT)),
    )
    chosen = chain.from_iterable(parts for at, parts in enumerate(optional) if mask >> at & 1)
    return _form((
        '{"ph":"X",', Number(0, TEXT), ',"name":', Number(1, TEXT),
        ',"ts":', Number(2, THOUSANDTHS), ',"dur":', Number(3, THOUSANDTHS),
        ',"args":{"line":', Number(4, DECIMAL), ',"step":', Number(5, DECIMAL), *chosen, "}}",
    ))  # fmt: skip


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
