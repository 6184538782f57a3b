"""A process that works on one job after another, for the process that started it.

In comes a connection, out go outcomes through it. It ends with its parent, whichever way that ends.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, Final

HELLO: Final = "ready"
"""What a worker says once it can work."""


def serve(handle: int) -> None:
    """Work on the jobs that come through the connection of that file descriptor, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, args=(handle,), daemon=True).start()
    import pyarrow as pa

    import replay.run.api  # noqa: F401
    from replay.batch.job import work

    pa.set_cpu_count(1)
    gc.freeze()  # what was imported stays: no collection need look at it
    connection: Connection[Any, Any] = Connection(handle)
    connection.send(HELLO)
    try:
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def _end(_signal: int, _frame: object) -> None:
    """End at a request, with what must be cleared away cleared away."""
    sys.exit(0)


def _end_with_parent(handle: int) -> None:
    """End at once when the other end of the connection is closed: then nobody wants the work any more."""
    hung_up = select.poll()
    hung_up.register(handle, 0)
    hung_up.poll()
    os._exit(0)
