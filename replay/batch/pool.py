"""Jobs done by worker processes on all cores of this machine.

In go jobs, out come outcomes in the order in which they are ready. A worker that dies costs one job, which gets an
error, and is replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import IO, Any, Final

from replay.batch.job import Job, JobOutcome, refuse, work
from replay.batch.worker import HELLO
from replay.errors import ReplayError

GRACE_SECONDS: Final = 10.0
"""How long a worker may take to end when asked to: it may be putting a run into place."""

_START: Final = "import sys; sys.path[:] = {path!r}; from replay.batch.worker import serve; serve({handle})"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_this_process(jobs: Sequence[Job]) -> Iterator[JobOutcome]:
    """Yield the outcomes of jobs, done one by one."""
    return map(work, jobs)


def in_processes(jobs: Sequence[Job], count: int) -> Iterator[JobOutcome]:
    """Yield the outcomes of jobs that `count` processes work on; the first jobs are begun first.

    When the iteration is given up, the workers end without beginning another job.

    Raises:
        ReplayError: no worker can be started.
        OutputError: the dataset's place refused the row of a job whose worker died.
    """
    waiting = deque(jobs)
    workers = [_Worker() for _ in range(min(count, len(jobs)))]
    try:
        while waiting or any(worker.job for worker in workers):
            for worker in workers:
                if waiting and worker.job is None:
                    worker.give(waiting.popleft())
            busy = {worker.connection: worker for worker in workers if worker.job}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                outcome = worker.take()
                if outcome is not None:
                    yield outcome
    finally:
        _end_all(workers)


@dataclass(slots=True)
class _Worker:
    """A worker process, started with its first job, and the job that it has."""

    job: Job | None = None
    connection: Connection[Any, Any] = field(init=False)
    process: subprocess.Popen[bytes] | None = None
    complaints: IO[bytes] = field(init=False)
    greeted: bool = False

    def give(self, job: Job) -> None:
        """Hand the worker a job; a worker that died while it had none is replaced."""
        self.job = job
        if self.process is None or self.process.poll() is not None:
            self._start()
        self.connection.send(job)

    def take(self) -> JobOutcome | None:
        """Return the outcome that has come, or that of the worker's death; None if it was a greeting."""
        assert self.job is not None
        try:
            said = self.connection.recv()
        except (EOFError, OSError):
            return self._died()
        if said == HELLO:
            self.greeted = True
            return None
        self.job = None
        return said  # type: ignore[no-any-return]

    def _start(self) -> None:
        ours, theirs = Pipe()
        self.connection = ours
        self.greeted = False
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        code = _START.format(path=sys.path, handle=theirs.fileno())
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self.complaints,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def _died(self) -> JobOutcome:
        """Return the outcome of a job whose worker is no more."""
        job, process = self.job, self.process
        assert job is not None and process is not None
        status = process.wait()
        self.connection.close()
        self.complaints.seek(0)
        last_words = self.complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
        self.complaints.close()
        self.process = self.job = None
        if not self.greeted:
            raise ReplayError(f"no worker process can be started: {last_words or _ending(status)}")
        return refuse(job, f"{job.found.source}: the process that replayed it {_ending(status)}")


def _ending(status: int) -> str:
    """Return in words how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    return f"was killed by {name}" + (" (was there not enough memory?)" if -status == signal.SIGKILL else "")


def _end_all(workers: Sequence[_Worker]) -> None:
    """End the workers: those at work are asked to, those without work see that nobody is there any more."""
    started = [(worker, worker.process) for worker in workers if worker.process is not None]
    for worker, process in started:
        if worker.job is not None:
            process.terminate()
        else:
            worker.connection.close()
    for worker, process in started:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        worker.connection.close()
        worker.complaints.close()
