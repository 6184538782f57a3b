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
from replay.datasets.dataset import Dataset
from replay.errors import QueryError


def forget(store: Store, names: Iterable[str]) -> list[str]:
    """Take runs out of a dataset, by their names or by patterns such as `v1-*`; return their names.

    Parts without a row go too: what a killed batch left, and no other batch makes again.

    Raises:
        QueryError: it has no such run; then none is taken out.
        DatasetBusyError: a batch is at work on the dataset.
        OutputError: the store refused.
    """
    with locked(store):
        held = DatasetWriter(store)
        there = held.known.keys() | Dataset(store.url).parts
        chosen: dict[str, None] = {}
        for name in names:
            matching = [name] if name in there else [run for run in sorted(there) if fnmatchcase(run, name)]
            if not matching:
                raise QueryError(f"{store.url}: no run {name!r}")
            chosen |= dict.fromkeys(matching)
        for run in chosen:
            held.forget(run)
        held.finish()
        if held.compacted & chosen.keys():
            rewrite(store)
    return list(chosen)
