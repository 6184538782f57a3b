"""What a run left made a recording: one log, and what stands beside it.

In goes a directory with the parts that tools wrote, out come `trace.log` and `record.json`. A recording that was
interrupted, or for which the disk had no room, keeps its parts and can be finished later.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from replay.errors import ReplayError
from replay.logs.recordings import LOG, PARTS
from replay.record.evidence import OWN_BITS, is_of_other_width
from replay.record.merge import Part, merge, parts_in
from replay.record.sidecar import Run, write_sidecar

STRACE_LOG: Final = "strace.log"
_RUN: Final = "run.json"
_NOTE: Final = b"warning: replay record: "
_LAST_BYTES: Final = 1 << 16


def begin(directory: Path, run: Run) -> None:
    """Write down how a recording is made, for whoever finishes it."""
    (directory / PARTS).mkdir(exist_ok=True)
    (directory / PARTS / _RUN).write_text(json.dumps(asdict(run)), encoding="utf-8")


def finish(directory: Path) -> list[str]:
    """Make one log of all that was written, and what stands beside it; return what is to be said of it.

    Raises:
        ReplayError: there are no parts.
        OSError: there is no room; the parts are left.
    """
    try:
        run = Run(**json.loads((directory / PARTS / _RUN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ReplayError(f"{directory}: no recording that is to be finished ({error})") from error
    parts = parts_in(directory / PARTS)
    try:
        unseen = _put_together(directory, run, parts)
        notes = [*_notes(directory / LOG), *(_unseen_notes(unseen) if "shim" in run.tool else ())]
        write_sidecar(directory, run, parts)
    except OSError:
        if (directory / PARTS / _RUN).exists():
            (directory / LOG).unlink(missing_ok=True)
        raise
    shutil.rmtree(directory / PARTS)
    (directory / STRACE_LOG).unlink(missing_ok=True)
    return notes


def _put_together(directory: Path, run: Run, parts: list[Part]) -> list[str]:
    """Make the log and return the programs that ran unseen; one part without frames becomes the log itself."""
    log = directory / LOG
    if "ltrace" in run.tool:
        return []
    if len(parts) == 1 and not run.strace and not run.stacks:
        _cut_behind_last_line(parts[0].path)
        parts[0].path.rename(log)
        parts[0].line = 1
        return []
    with open(log, "wb") as out:
        return merge(directory / STRACE_LOG if run.strace else None, parts, out)


def _cut_behind_last_line(path: Path) -> None:
    """Take off what the last window of a part has behind its last whole line."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _LAST_BYTES)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                file.truncate(start + place + 1)
                return
            end = start
        file.truncate(0)


def _unseen_notes(programs: list[str]) -> Iterator[str]:
    """Yield what to say of programs into which the library was not preloaded."""
    for program, times in Counter(programs).most_common(5):
        again = f" ({times} times)" if times > 1 else ""
        why = f" (it is not of {OWN_BITS} bits, as ld.so said on its standard error)"
        other = why if program and is_of_other_width(Path(program)) else ""
        yield f"{program or 'a program'}{again} ran without the library: its malloc is not recorded{other}"


def _notes(log: Path) -> list[str]:
    """Return what the library said about what it could not record."""
    with open(log, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return []
        with mmap(file.fileno(), 0, access=ACCESS_READ) as lines:
            found, at = [], lines.find(_NOTE)
            while at >= 0:
                end = lines.find(b"\n", at)
                if at == 0 or lines[at - 1 : at] == b"\n":
                    found.append(lines[at + len(_NOTE) : end].decode(errors="replace"))
                at = lines.find(_NOTE, end)
            return found
