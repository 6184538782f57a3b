"""What a run left made a recording: one log, and what stands beside it.

In goes a directory with the parts that tools wrote, out come `trace.log` and `record.json`. A recording that was
interrupted, or for which the disk had no room, keeps its parts and can be finished later.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, Final

from replay.errors import ReplayError
from replay.logs.recordings import LOG, PARTS
from replay.record.evidence import OWN_BITS, gains_rights, is_of_other_width, not_preloaded, own_malloc, partly_unseen
from replay.record.merge import Merged, Part, merge, parts_in
from replay.record.sidecar import Run, program_of_image, write_sidecar

STRACE_LOG: Final = "strace.log"
LTRACE_LOG: Final = "ltrace.log"
TRACEES: Final = "tracees"
"""In the directory of the parts, that of what a tracer kept of programs."""

_RUN: Final = "run.json"
_NOTE: Final = b"warning: replay record: "
_LAST_BYTES: Final = 1 << 16
_MOST_NOTES: Final = 5
_CALLED_EXEC: Final = b" --- Called exec() ---\n"
_OPENED: Final = re.compile(rb'(SYS_openat\(-?\d+, ")(/(?!proc/|dev/)[^"\\]*)')
_UNSAFE: Final = re.compile(rb"[^\w ./+:=@%,-]")


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
    for path in (directory / PARTS).rglob("*"):
        if path.is_symlink():  # none of ours: others may write there, and would have their file read with our rights
            path.unlink()
    parts, kept = parts_in(directory / PARTS), parts_in(directory / PARTS / TRACEES, "maps")
    if parts and "shim" not in run.tool:
        run = replace(run, tool=f"shim and {run.tool}")
    try:
        made = _put_together(directory, run, parts)
        for one in kept:
            one.line = next(iter(made.executed.get(one.pid, [])[one.number :]), 0)
        images = kept if _is_traced(run) else parts
        programs = [program_of_image(image) for image in images]
        notes = [*_notes(directory / LOG), *(_unseen_notes(programs, made.unseen) if "shim" in run.tool else ())]
        notes += _without_rights(programs) if run.confined else []
        write_sidecar(directory, run, parts, images, notes)
    except OSError:
        if (directory / PARTS / _RUN).exists():
            (directory / LOG).unlink(missing_ok=True)
        raise
    shutil.rmtree(directory / PARTS)
    for name in (STRACE_LOG, LTRACE_LOG):
        (directory / name).unlink(missing_ok=True)
    return notes


def _is_traced(run: Run) -> bool:
    return bool(run.strace) or "ltrace" in run.tool


def _put_together(directory: Path, run: Run, parts: list[Part]) -> Merged:
    """Make the log and return what was seen to begin; one part without frames becomes the log itself."""
    log = directory / LOG
    if len(parts) == 1 and not _is_traced(run) and not run.stacks:
        _cut_behind_last_line(parts[0].path)
        parts[0].path.rename(log)
        parts[0].line = 1
        return Merged([], {})
    with open(log, "wb") as out:
        if "ltrace" in run.tool:
            return Merged([], _begun(directory / LTRACE_LOG, run.command[0], out))
        return merge(directory / STRACE_LOG if run.strace else None, parts, out)


def _begun(ltrace: Path, program: str, out: BinaryIO) -> dict[int, list[int]]:
    """Write a log of ltrace with a line for its first execve, that ltrace has not, and return the lines of all."""
    executed = defaultdict[int, list[int]](list)
    with open(ltrace, "rb") as lines:
        for number, line in enumerate(lines, 2):
            if number == 2:
                pid, time = line.split(maxsplit=2)[:2]
                path = _UNSAFE.sub(lambda found: b"\\%03o" % found[0][0], os.fsencode(shutil.which(program) or program))
                out.write(b'%s %s SYS_execve("%s", 0, 0) = 0\n' % (pid, time, path))
                executed[int(pid)].append(1)
            elif line.endswith(_CALLED_EXEC):
                executed[int(line.split(maxsplit=1)[0])].append(number)
            out.write(_OPENED.sub(_without_links, line) if b" SYS_openat(" in line else line)
    return executed


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


def _without_links(opened: re.Match[bytes]) -> bytes:
    """Return a path that was opened as maps and `strace -y` have it."""
    return opened[1] + os.path.realpath(opened[2])


def _unseen_notes(programs: list[str], unseen: list[str]) -> Iterator[str]:
    """Yield what to say of programs with a malloc of their own, and of those into which nothing was preloaded."""
    told = Counter(dict.fromkeys(filter(None, (_own(Path(program)) for program in set(programs))), 1))
    told.update(map(_why_unseen, unseen))
    for sentence, times in told.most_common(_MOST_NOTES):
        yield sentence + (f" ({times} times)" if times > 1 else "")


def _without_rights(programs: list[str]) -> list[str]:
    """Return what to say of set-id programs that ran as others do. Source: execve(2), of a process that is traced."""
    found = [program for program in dict.fromkeys(programs) if Path(program).is_file() and gains_rights(Path(program))]
    return [f"{program} is set-id: being traced, it ran without the rights that it gains" for program in found]


def _own(program: Path) -> str:
    return own_malloc(program) or partly_unseen(program)


def _why_unseen(program: str) -> str:
    """Return why nothing was preloaded into a program; that its environment has no LD_PRELOAD its file does not say."""
    if program and is_of_other_width(Path(program)):
        why = f" (it is not of {OWN_BITS} bits, as ld.so said on its standard error)"
        return f"{program} ran without the library: its malloc is not recorded{why}"
    why = not_preloaded(Path(program)) if program else ""
    why = why or f"{program or 'a program'} ran without the library"
    return f"{why}: its malloc is not recorded"


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
