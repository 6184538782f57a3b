"""Runs taken out of a dataset for good.

In go their names, out comes a dataset without them, whole at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from replay.batch.compaction import rewrite
from replay.batch.dataset_writer import DatasetWriter
from replay.batch.locking import locked
from replay.batch.storage import Store
from replay.errors import QueryError


def forget(store: Store, names: Iterable[str]) -> list[str]:
    """Take runs out of a dataset, by their names or by patterns such as `v1-*`; return their names.

    Raises:
        QueryError: it has no such run; then none is taken out.
        DatasetBusyError: a batch is at work on the dataset.
        OutputError: the store refused.
    """
    with locked(store):
        held = DatasetWriter(store)
        chosen: dict[str, None] = {}
        for name in names:
            matching = [name] if name in held.known else [run for run in held.known if fnmatchcase(run, name)]
            if not matching:
                raise QueryError(f"{store.url}: no run {name!r}")
            chosen |= dict.fromkeys(matching)
        for run in chosen:
            held.forget(run)
        held.finish()
        if held.compacted & chosen.keys():
            rewrite(store)
    return list(chosen)
