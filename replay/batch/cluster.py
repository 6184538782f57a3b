"""Jobs done by the workers of an existing Dask cluster, on as many machines as it has.

In go jobs and the address of a scheduler, out come outcomes in the order in which they are ready.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

from replay.batch.job import Job, JobOutcome, refuse, work
from replay.errors import MissingExtraError, ReplayError

TASK_BYTES: Final = 4 << 20
TASK_JOBS: Final = 32
"""How much is sent to a worker at once: small logs go together, at most so many bytes or so many of them."""

TASKS_A_THREAD: Final = 2
"""How many tasks the cluster has at a time for each of its threads: none of them waits, few are lost."""

CONNECT_SECONDS: Final = 5
"""How long a scheduler may take to answer."""

_ADDRESS: Final = re.compile(r"(?:(?P<protocol>[a-z]+)://)?(?P<host>[^/:]+|\[[0-9a-fA-F:]+\]):(?P<port>\d+)/?")
_PROTOCOLS: Final = (None, "tcp", "tls", "ws", "wss", "ucx")

_ONE_AT_A_TIME: Final = threading.Lock()


def on_cluster(jobs: Sequence[Job], address: str) -> Iterator[JobOutcome]:
    """Yield the outcomes of jobs that the workers of a Dask cluster work on.

    The workers reach logs and dataset by the same absolute paths or URLs as this process, and have replay installed.
    When the iteration is given up, the tasks that were begun are waited for.

    Raises:
        ReplayError: the package is missing, no scheduler answers, or its workers have no replay.
        OutputError: the dataset's place refused the row of a job whose worker died.
    """
    distributed = _distributed()
    _check(address)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ReplayError(f"{address}: no Dask scheduler answers there: {error}") from error
    with client:
        yield from _Tasks(distributed, client).outcomes(_bunches(jobs))


def _check(address: str) -> None:
    """Refuse an address that is none, or where nobody listens.

    Raises:
        ReplayError: says which.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or match["protocol"] not in _PROTOCOLS or int(match["port"]) >= 1 << 16:
        raise ReplayError(f"{address!r}: no address of a Dask scheduler; expected tcp://host:8786")
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), CONNECT_SECONDS).close()
    except OSError as error:
        raise ReplayError(f"{address}: no Dask scheduler answers there: {error.strerror or error}") from error


def work_on(jobs: Sequence[Job]) -> list[JobOutcome]:
    """Return the outcomes of some jobs, done one by one, and by one thread of a process at a time."""
    with _ONE_AT_A_TIME:
        return [work(job) for job in jobs]


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise MissingExtraError("--scheduler", "Dask", "dask") from error


def _bunches(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs in order, small ones together."""
    bunches: list[list[Job]] = []
    size = 0
    for job in jobs:
        if not bunches or size + job.found.size > TASK_BYTES or len(bunches[-1]) == TASK_JOBS:
            bunches.append([])
            size = 0
        bunches[-1].append(job)
        size += job.found.size
    return bunches


class _Tasks:
    """The tasks that a cluster has at the moment."""

    def __init__(self, distributed: Any, client: Any) -> None:
        self._distributed = distributed
        self._client = client
        self._bunch_of: dict[Any, list[Job]] = {}
        """The jobs of each future that is not ready."""

    def outcomes(self, bunches: list[list[Job]]) -> Iterator[JobOutcome]:
        """Yield the outcomes of all bunches, with few of them in the cluster's hands at a time."""
        waiting = bunches[::-1]
        ready = self._distributed.as_completed(loop=self._client.loop)
        try:
            while waiting or self._bunch_of:
                room = self._room()
                while waiting and len(self._bunch_of) < room:
                    ready.add(self._submitted(waiting.pop()))
                future = next(ready)
                bunch = self._bunch_of.pop(future)
                if future.status == "finished":
                    yield from future.result()
                elif len(bunch) > 1 and self._worker_died(future):
                    waiting += [[job] for job in bunch]
                elif self._worker_died(future):
                    yield refuse(bunch[0], f"{bunch[0].found.source}: the workers that replayed it died")
        finally:
            while self._bunch_of:
                self._bunch_of.pop(next(ready))

    def _worker_died(self, future: Any) -> bool:
        """Return True for a task that its workers did not survive.

        Raises:
            ReplayError: the task failed for a reason that other tasks have too.
        """
        if future.status != "error":
            raise ReplayError("the connection to the cluster was lost")
        error = future.exception()
        if isinstance(error, self._distributed.KilledWorker):
            return True
        raise ReplayError(f"the workers of the cluster cannot run replay: {type(error).__name__}: {error}") from error

    def _room(self) -> int:
        threads = sum(self._client.nthreads().values())
        return max(1, TASKS_A_THREAD * int(threads))

    def _submitted(self, bunch: list[Job]) -> Any:
        future = self._client.submit(work_on, bunch, pure=False)
        self._bunch_of[future] = bunch
        return future
