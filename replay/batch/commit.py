"""A run gets into a dataset whole, or out of it, and so do compacted files: what was cut off goes on from there.

In go a store, the row of a run and its tables, out come the files of the dataset. Which runs are to be made, and what
is in their tables, is not known here.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from replay.batch.storage import Store
from replay.datasets.layout import (
    ASIDE,
    CHANGES,
    COMPACTED,
    OK,
    OWN,
    PART_FILE,
    SWITCH,
    Change,
    Switch,
    aside,
    escaped,
    flat_files,
    runs_in,
    table_folder,
)
from replay.tables import TABLES

JOURNAL: Final = f"{OWN}/journal"


def commit(store: Store, row: dict[str, Any], tables: Path | None, *, replaces: bool) -> None:
    """Put a run into the dataset: its tables out of the directory `tables`, none for an error, and its row.

    All files of a run that is there already lie aside before the first one takes the place of another.

    Raises:
        OutputError: the store refused.
    """
    run = row["run"]
    with uninterrupted():
        if not replaces:
            _note(store, Change(run, "added"))
        for table in TABLES if tables is not None else ():
            assert tables is not None
            file = f"{ASIDE}/{table}/{aside(run)}" if replaces else f"{table_folder(table, run)}/{PART_FILE}"
            store.publish(tables / f"{table}.parquet", file)
        if replaces:
            _note(store, Change(run, "replaced", row))
            _replace(store, row)
        _finish(store, row)


def begin_to_forget(store: Store, run: str) -> None:
    """Take a run out of the tables; that its row has to go stays noted."""
    _note(store, Change(run, "forgotten"))
    store.remove(_entry(run))
    remove_tables(store, run)


def complete_changes(store: Store) -> set[str]:
    """Do or undo what is left of changes that were cut off; return the runs that are gone, whose rows have to go too.

    What was added is undone, and made again by the next batch: nothing was there before.
    """
    gone = set()
    for file in store.names(CHANGES):
        run = unquote(file.removesuffix(".json"))
        change = Change.read(store.read(f"{CHANGES}/{file}"))
        if change is not None and change.deed == "replaced":
            _replace(store, change.row)
            _finish(store, change.row)
        elif change is not None and change.deed == "added" and store.read(_entry(run)) is not None:
            store.remove(f"{CHANGES}/{file}")
        else:
            store.remove(_entry(run))
            remove_tables(store, run)
            gone.add(run)
    store.remove(ASIDE)
    return gone


def _note(store: Store, change: Change) -> None:
    store.write(_noted(change.run), change.data())


def _replace(store: Store, row: dict[str, Any]) -> None:
    """Put the files that lie aside into the place of a run's own; of an error there are none."""
    run = row["run"]
    if row["status"] != OK:
        remove_tables(store, run)
        return
    for table in TABLES:
        if aside(run) in store.names(f"{ASIDE}/{table}"):
            store.move(f"{ASIDE}/{table}/{aside(run)}", f"{table_folder(table, run)}/{PART_FILE}")


def _finish(store: Store, row: dict[str, Any]) -> None:
    """Put the row of a run into the journal, which ends the change."""
    store.write(_entry(row["run"]), json.dumps(row).encode())
    store.remove(_noted(row["run"]))


def _noted(run: str) -> str:
    return f"{CHANGES}/{escaped(run)}.json"


def _entry(run: str) -> str:
    return f"{JOURNAL}/{escaped(run)}.json"


def remove_tables(store: Store, run: str) -> None:
    """Take a run's folders out of all tables, those too whose names older versions escaped another way."""
    for table in TABLES:
        for folder in {table_folder(table, run), f"{table}/run={quote(run, safe='')}"}:
            store.remove(folder)


def complete_switch(store: Store) -> None:
    """Put the files that `compact` made into the place of what is in them, from wherever that was interrupted.

    Without a switch nothing of it was done: then the files are cleared away.
    """
    switch = Switch.read(store.read(SWITCH))
    if switch is not None:
        for table, files in switch.files.items():
            staged = store.names(f"{COMPACTED}/{table}")
            for name in files:
                if name in staged:
                    store.move(f"{COMPACTED}/{table}/{name}", f"{table}/{name}")
            there, runs = store.names(table), set(switch.runs)
            for name in flat_files(there):
                if name not in files:
                    store.remove(f"{table}/{name}")
            for run, folder in runs_in(there).items():
                if run in runs:
                    store.remove(f"{table}/{folder}")
        store.remove(SWITCH)
    store.remove(COMPACTED)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back an interrupt or a request to end until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda signum, _: caught.append(signum)) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if caught:
            signal.raise_signal(caught[0])
