"""How a dataset lies on its store: the names of its files and folders, and the files of a table.

In go listings, out come paths. What is in the files is not known here.

    runs.parquet                        one row a run
    TABLE/run=NAME/part-0.parquet       a run's part of a table, as a batch writes it
    TABLE/part-0.parquet, part-1 ...    the parts of many runs, sorted, as `compact` writes them, with a column `run`
    _replay/                            lock, journal and files in the making; readers of parquet skip `_`
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_letters, digits
from typing import Any, Final
from urllib.parse import unquote

OWN: Final = "_replay"
PART_FILE: Final = "part-0.parquet"
COMPACTED: Final = f"{OWN}/compacted"
"""The folder of the files that `compact` made, until they take the place of others."""

SWITCH: Final = f"{OWN}/switch.json"
"""Which files those are: from when it is there up to when it goes they are the dataset, wherever they lie."""

OK: Final = "ok"
"""The status of a run whose tables are in the dataset."""

CHANGES: Final = f"{OWN}/changes"
"""The folder of notes on runs that are being added, replaced or forgotten: until a note goes, they are not whole."""

ASIDE: Final = f"{OWN}/aside"
"""The folder of the files that are to take the place of a run's own, by table."""

_FOLDER: Final = "run="
_FLAT: Final = re.compile(r"part-\d+\.parquet")
_PLAIN: Final = frozenset(ascii_letters + digits + "_.-~")

_TAKEN_FOR_ANOTHER_TYPE: Final = re.compile(
    r"(?=.*\d)[\s\d+\-.,:/_edflxptzEDFLXPTZ]*|(?i:nan|[+-]?inf(inity)?|true|false|null|none|na|n/a|"
    r"__hive_default_partition__)|\s*"
)
"""What a reader takes for a number, a date, a truth value or hive's null where it stands behind `run=`."""


@lru_cache(256)
def escaped(name: str) -> str:
    """Return a run's name as it stands in paths: ASCII that is special percent-encoded, all else as it is.

    Of `%XX` Spark decodes ASCII alone. Source: unescapePathName in ExternalCatalogUtils.scala.
    """
    return "".join(sign if sign in _PLAIN or not sign.isascii() else f"%{ord(sign):02X}" for sign in name)


def typed_as_text(name: str) -> str:
    """Return a run's name in a form that no reader takes for anything but a text."""
    return f"run-{name}" if _TAKEN_FOR_ANOTHER_TYPE.fullmatch(name) else name


def table_folder(table: str, run: str) -> str:
    """Return the folder of a run's part of a table, below the dataset."""
    return f"{table}/{_FOLDER}{escaped(run)}"


def runs_in(names: Sequence[str]) -> dict[str, str]:
    """Return the runs that have a folder among the names of what is in a table's, each with that folder's name."""
    return {unquote(name.removeprefix(_FOLDER)): name for name in names if name.startswith(_FOLDER)}


def flat_files(names: Sequence[str]) -> list[str]:
    """Return the files of many runs among the names of what is in a table's folder, in their order."""
    return sorted((name for name in names if _FLAT.fullmatch(name)), key=lambda name: (len(name), name))


@dataclass(frozen=True, slots=True)
class Switch:
    """Compacted files that take the place of others: their names by table, and the runs that are in them."""

    files: dict[str, list[str]]
    runs: list[str]

    def data(self) -> bytes:
        """Return it as it is stored."""
        return json.dumps({"files": self.files, "runs": self.runs}).encode()

    @classmethod
    def read(cls, data: bytes | None) -> Switch | None:
        """Return what is stored, None where there is nothing, or nothing whole."""
        try:
            found: Any = json.loads(data or b"null")
            return cls(dict(found["files"]), list(found["runs"]))
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class Change:
    """A run that is being changed: `added`, `replaced` (its `row` is the new one's) or `forgotten`."""

    run: str
    deed: str
    row: dict[str, Any] = field(default_factory=dict)

    def data(self) -> bytes:
        """Return it as it is stored."""
        return json.dumps({"run": self.run, "deed": self.deed, "row": self.row}).encode()

    @classmethod
    def read(cls, data: bytes | None) -> Change | None:
        """Return what is stored, None where there is nothing, or nothing whole."""
        try:
            found: Any = json.loads(data or b"null")
            return cls(str(found["run"]), str(found["deed"]), dict(found["row"]))
        except (ValueError, TypeError, KeyError):
            return None


def aside(run: str) -> str:
    """Return the name of the file of a run in the folder of a table in `ASIDE`."""
    return f"{escaped(run)}.parquet"


@dataclass(frozen=True, slots=True)
class TableFiles:
    """The files of one table, below the dataset: those of many runs, and those of one run by its name."""

    flat: list[str]
    of_run: dict[str, str]


def whole_runs(table: str, files: TableFiles, changes: Sequence[Change], lying_aside: Collection[str]) -> TableFiles:
    """Return the files of a table without those of runs that are not whole; of one that is replaced, the new ones.

    `changes` are cut off or under way, `lying_aside` is what is in the table's folder of `ASIDE`.
    """
    of_run = dict(files.of_run)
    for change in changes:
        if change.deed == "replaced" and aside(change.run) in lying_aside:
            of_run[change.run] = f"{ASIDE}/{table}/{aside(change.run)}"
        elif change.deed != "replaced" or change.row.get("status") != OK:
            of_run.pop(change.run, None)
    return TableFiles(files.flat, of_run)


def files_of(table: str, names: Sequence[str], switch: Switch | None, staged: Collection[str]) -> TableFiles:
    """Return the files of a table.

    Args:
        table: its name.
        names: what is in its folder.
        switch: what `compact` is about to put into place, or was when it was killed.
        staged: what is of it in its folder of `COMPACTED`.
    """
    folders = {run: f"{table}/{folder}/{PART_FILE}" for run, folder in runs_in(names).items()}
    if switch is None:
        return TableFiles([f"{table}/{name}" for name in flat_files(names)], folders)
    flat = [f"{COMPACTED if name in staged else '.'}/{table}/{name}" for name in switch.files.get(table, [])]
    left = {run: file for run, file in folders.items() if run not in set(switch.runs)}
    return TableFiles([name.removeprefix("./") for name in flat], left)
