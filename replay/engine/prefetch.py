"""Work done ahead in a thread, for loops that let other threads run: while one thing is worked at, the last is used.

In go things one by one, out comes each in order with what the work made of it. What the work is, is not known here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Thing = TypeVar("Thing")
Made = TypeVar("Made")

AHEAD: Final = 2
"""So many things are worked at ahead."""

THREAD_NAME: Final = "ahead"
"""How the names of the threads begin."""


def worked_ahead(things: Iterator[Thing], work: Callable[[Thing], Made]) -> Generator[tuple[Thing, Made]]:
    """Yield each thing with what `work`, in a thread of its own and in the same order, makes of it.

    Where there are few things, no thread is started. An error of the things is raised behind the last one before it.
    The thread is gone when this ends, however it ends.
    """
    few: list[Thing] = []
    while len(few) <= AHEAD:
        taken, error = _next(things)
        if not taken:
            break
        few += taken
    else:
        yield from _worked_in_thread(chain(few, things), work)
        return
    for thing in few:
        yield thing, work(thing)
    if error is not None:
        raise error


def _worked_in_thread(things: Iterator[Thing], work: Callable[[Thing], Made]) -> Generator[tuple[Thing, Made]]:
    """Do what `worked_ahead` says, with a thread."""
    from concurrent.futures import ThreadPoolExecutor

    waiting: deque[tuple[Thing, Future[Made]]] = deque()
    error: Exception | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=THREAD_NAME) as thread:
        try:
            more = True
            while more or waiting:
                if more:
                    taken, error = _next(things)
                    waiting.extend((thing, thread.submit(work, thing)) for thing in taken)
                    more = bool(taken)
                if waiting and (len(waiting) > AHEAD or not more):
                    thing, made = waiting.popleft()
                    yield thing, made.result()
            if error is not None:
                raise error
        finally:
            for _, made in waiting:
                made.cancel()


def _next(things: Iterator[Thing]) -> tuple[list[Thing], Exception | None]:
    """Return the next thing as a list, empty at the end, and the error that there was instead of one."""
    try:
        return list(islice(things, 1)), None
    except Exception as error:
        return [], error
