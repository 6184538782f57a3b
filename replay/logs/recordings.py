"""The directory that `replay record` makes: its log, and what stands beside it.

In goes a directory, out come the path of the log and what was mapped where each program began. How a recording is made
is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from replay.errors import TraceFormatError
from replay.linux.proc_maps import Mapping, parse_maps

LOG: Final = "trace.log"
"""The lines of all processes in the order in which things happened, as strace and as ltrace print them."""

SIDECAR: Final = "record.json"
"""What no line says: see `replay.record.sidecar`."""

ASKED_FOR: Final = "asked for"
"""How the reason begins for which tools were chosen, where the user chose them."""

PARTS: Final = "parts"
"""What a recording is made of that is not finished."""

VERSION: Final = 1
"""Of the format of both; a newer one is not guessed at."""


def log_of(directory: Path) -> Path:
    """Return the log of a recording.

    Raises:
        TraceFormatError: the directory is no recording, or one of a newer replay.
    """
    read_sidecar(directory)
    return directory / LOG


@lru_cache(8)
def read_sidecar(directory: Path) -> dict[str, Any]:
    """Return what stands beside the log of a recording.

    Raises:
        TraceFormatError: the directory is no recording, or one of a newer replay.
    """
    try:
        found = json.loads((directory / SIDECAR).read_text(encoding="utf-8"))
        version = found["version"]
    except FileNotFoundError as error:
        if (directory / PARTS).is_dir():
            raise TraceFormatError(
                f"{directory}: a recording that was not finished: replay record --finish {directory} does that"
            ) from error
        raise TraceFormatError(f"{directory}: is a directory, and no recording: it has no {SIDECAR}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TraceFormatError(f"{directory / SIDECAR}: cannot be read ({error})") from error
    if not isinstance(version, int) or version > VERSION:
        raise TraceFormatError(
            f"{directory}: a recording of format {version}, this replay reads up to {VERSION}: it needs a newer one"
        )
    return dict(found)


def is_recorded(logs: Sequence[str]) -> bool:
    """Tell whether the logs of a run are the one of a recording."""
    return len(logs) == 1 and Path(logs[0]).name == LOG and Path(logs[0]).with_name(SIDECAR).is_file()


def dialect_told(log: str) -> str:
    """Return in which dialect the lines of a log are, where that is told: `mixed`, that of both, of a recording."""
    return "mixed" if is_recorded([log]) and "shim" in read_sidecar(Path(log).parent)["tool"] else "auto"


def recorder_files(logs: Sequence[str]) -> tuple[str, str, int]:
    """Return the paths of the recorder's library and of its logs' directory, as maps had them, and the library's bytes.

    All are empty or 0 where the logs are no recording.
    """
    found = read_sidecar(Path(logs[0]).parent).get("recorder", {}) if is_recorded(logs) else {}
    return found.get("library", ""), found.get("parts", ""), found.get("library_bytes", 0)


def recorded_by(logs: Sequence[str]) -> tuple[str, str]:
    """Return the tools that made a recording, and why those; both empty where the logs are none."""
    found = read_sidecar(Path(logs[0]).parent) if is_recorded(logs) else {}
    return str(found.get("tool", "")), str(found.get("reason", ""))


def notes_of(logs: Sequence[str]) -> list[str]:
    """Return what a recording says that it does not show; nothing where the logs are none."""
    return list(read_sidecar(Path(logs[0]).parent).get("notes", ())) if is_recorded(logs) else []


def shows_all_blocks(logs: Sequence[str]) -> bool:
    """Tell whether a run's logs are a recording of all calls of malloc, which leaves out nothing."""
    return is_recorded(logs) and "shim" in recorded_by(logs)[0] and not notes_of(logs)


def peak_resident(logs: Sequence[str]) -> tuple[int, int] | None:
    """Return the bytes, and the number of the process, of which most was resident; None where no recording tells it."""
    ends = read_sidecar(Path(logs[0]).parent).get("ends", ()) if is_recorded(logs) else ()
    return max(((int(end["peak_resident_bytes"]), int(end["pid"])) for end in ends), default=None)


def recorded_images(logs: Sequence[str]) -> dict[int, list[Mapping]]:
    """Return what was mapped where programs began, by the line of their execve, if the logs are one of a recording."""
    images = read_sidecar(Path(logs[0]).parent)["images"] if is_recorded(logs) else []
    return {image["line"]: parse_maps("\n".join(image["mapped"]), SIDECAR) for image in images if image["mapped"]}
