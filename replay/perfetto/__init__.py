"""A run as a trace for ui.perfetto.dev: trace-event JSON, or TrackEvent protobuf, as the file's name says.

In goes a run, out comes a file. Which tracks there are `tracks` tells, how they are written
`as_json` and `as_protobuf`.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from replay.errors import ReplayError
from replay.tables import whole_file
from replay.tables.whole_files import STDOUT

if TYPE_CHECKING:
    from replay.run.api import Run

ENDINGS: Final = (".json", ".json.gz", ".pftrace", ".pftrace.gz")
_LEVEL: Final = 1


def write_perfetto(run: Run, output: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write the trace of a run, whole or not at all; the name of `output` says in which format.

    Raises:
        ReplayError: the name ends with none of `ENDINGS`.
        OutputExistsError: `output` is there and `force` is not given.
        OutputError: the system refused to write.
    """
    ending = ending_of(output)
    with whole_file(output, force=force) as temporary, open(temporary, "wb") as plain:
        stream = gzip.GzipFile("", "wb", _LEVEL, plain, mtime=0) if ending.endswith(".gz") else plain
        with stream:
            for part in _parts(run, ending):
                stream.write(part)


def ending_of(output: str | os.PathLike[str]) -> str:
    """Return the ending of a name that says the format, JSON's for standard output.

    Raises:
        ReplayError: the name has none of `ENDINGS`.
    """
    name = "trace.json" if output == STDOUT else PurePath(output).name
    for ending in ENDINGS:
        if name.endswith(ending):
            return ending
    raise ReplayError(f"{output}: expected a name that ends with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def _parts(run: Run, ending: str) -> Iterator[bytes]:
    from replay.perfetto import as_json, as_protobuf
    from replay.perfetto.tracks import Tracks

    yield from (as_json if ending.startswith(".json") else as_protobuf).parts(Tracks(run))
