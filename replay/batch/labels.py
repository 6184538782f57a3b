"""What users say of runs: labels for all, by name in a CSV file, or out of the paths of their logs.

In go words of the command line, out come the labels of a run. Where they are kept is not known here.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replay.batch.runs_table import check_label
from replay.errors import ReplayError

if TYPE_CHECKING:
    from replay.batch.discovery import FoundRun

_PLACE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of runs: those of all, a pattern of paths, and those by the name or the log of a run."""

    of_all: dict[str, str] = field(default_factory=dict)
    pattern: re.Pattern[str] | None = None
    of_run: dict[str, dict[str, str]] = field(default_factory=dict)

    def of(self, name: str, run: FoundRun) -> dict[str, str]:
        """Return the labels of a run: what is said of it alone before what its path says before what is said of all."""
        match = None
        if self.pattern is not None:
            match = self.pattern.fullmatch(run.name)
            if match is None and run.named:  # nothing is below a file that was given by itself
                match = self.pattern.search(f"/{run.location.removesuffix('.*')}")
        said = self.of_run.get(run.source, {}) | self.of_run.get(run.name, {}) | self.of_run.get(name, {})
        return self.of_all | (match.groupdict() if match else {}) | said


def labels_from(pairs: Iterable[str] = (), file: str | None = None, pattern: str | None = None) -> Labels:
    """Return the labels that options say.

    Args:
        pairs: `NAME=VALUE` for all runs.
        file: a CSV file with a column `run` (or `source`) and one for each label.
        pattern: the paths of the logs with labels in braces, `{commit}/{host}/{test}`: below the directory that was
            given, or the end of that of a log that was given itself.

    Raises:
        ReplayError: one of them says no labels.
    """
    of_all = dict(_pair(pair) for pair in pairs)
    return Labels(of_all, None if pattern is None else _pattern(pattern), {} if file is None else _of_file(file))


def _pair(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals:
        raise ReplayError(f"label {pair!r}: expected NAME=VALUE")
    check_label(name)
    return name, value


def _pattern(text: str) -> re.Pattern[str]:
    """Return the pattern of the end of a path; a label stands for a part of it, or for some of one."""
    names = _PLACE.findall(text)
    if not names:
        raise ReplayError(f"{text!r}: expected labels in braces, as in '{{commit}}/{{host}}/{{test}}'")
    for name in names:
        if not name.isidentifier() or names.count(name) > 1:
            raise ReplayError(f"{text!r}: {{{name}}}: expected a name of letters, digits and _, and each only once")
    pieces = _PLACE.split(text)
    made = (f"(?P<{piece}>[^/]+?)" if at % 2 else re.escape(piece) for at, piece in enumerate(pieces))
    return re.compile(f"(?:(?<=/)|^){''.join(made)}$")


def _of_file(path: str) -> dict[str, dict[str, str]]:
    """Return the labels of a CSV file by the name or the log of the run."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            columns = list(rows.fieldnames or ())
            keys = [name for name in ("run", "source") if name in columns]
            if not keys:
                raise ReplayError(f"{path}: no column run or source in its first line")
            names = [name for name in columns if name not in keys]
            for name in names:
                check_label(name)
            for row in rows:
                said = {name: row[name] for name in names if row[name]}
                for key in keys:
                    if row[key]:
                        found[row[key]] |= said
    except OSError as error:
        raise ReplayError(f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReplayError(f"{path}: is no CSV file: {error}") from error
    return dict(found)
