"""One batch at a time on a dataset.

In goes a store, out comes a context in which no other batch writes to it, or a message that names the one that does.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from replay.batch.storage import LocalStore, Store
from replay.datasets.layout import OWN
from replay.errors import ReplayError
from replay.tables import OutputError
from replay.tables.temporary import is_gone

LOCK: Final = f"{OWN}/lock"

_HELD: Final = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What flock says where another process holds the lock, and where the file system has none. Source: flock(2)."""


class DatasetBusyError(ReplayError):
    """Another batch is writing to the dataset."""


def locked(store: Store) -> AbstractContextManager[None]:
    """Return a context in which this process alone writes to the dataset.

    On a local file system the kernel keeps the lock and drops it when the process ends, however it ends. Elsewhere it
    is a file with the holder's host and process: a batch that was killed on this host is told from one that lives.

    Raises:
        DatasetBusyError: another batch holds it; on entering.
        OutputError: the dataset cannot be written; on entering.
    """
    return _locked_by_kernel(store) if isinstance(store, LocalStore) else _locked_by_token(store)


@contextmanager
def _locked_by_kernel(store: LocalStore) -> Iterator[None]:
    path = store.root / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise OutputError(store.url, os.strerror(error.errno or 0)) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise _busy(store, _read_holder(path.read_bytes())) from error
            if error.errno not in _NO_LOCKS:
                raise OutputError(path, os.strerror(error.errno or 0)) from error
            with _locked_by_token(store):
                yield
                return
        file.truncate(0)
        file.write(_holder())
        file.flush()
        yield
        file.truncate(0)


@contextmanager
def _locked_by_token(store: Store) -> Iterator[None]:
    """Hold the lock by a file; where two batches take it at the same moment, the one that wrote last has it."""
    held = _read_holder(store.read(LOCK))
    if held and not _is_dead(held):
        raise _busy(store, held)
    mine = _holder()
    store.write(LOCK, mine)
    written = store.read(LOCK)
    if written != mine:
        raise _busy(store, _read_holder(written))
    try:
        yield
    finally:
        store.remove(LOCK)


def _holder() -> bytes:
    """Return who this process is, in bytes that no other process writes."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}).encode()


def _read_holder(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Tell whether the process that holds a lock was one of this host and is no more."""
    return holder.get("host") == socket.gethostname() and is_gone(int(holder.get("pid", 0)))


def _busy(store: Store, holder: dict[str, Any]) -> DatasetBusyError:
    who = f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"
    hint = "" if isinstance(store, LocalStore) else f"; if that is dead, remove {store.url}/{LOCK}"
    return DatasetBusyError(f"{store.url}: another batch ({who}) is writing it; wait for its end{hint}")
