"""Logs found: the words of a user become runs, each of one log or of one `strace -ff` set.

In go paths, directories, patterns and URLs, out come the files of each run and a name for it. Whether a file is a
trace is told by who reads it.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path
from typing import Final

from replay.batch.local_copies import head_of
from replay.batch.storage import file_system, local_path
from replay.datasets.layout import OWN
from replay.errors import ReplayError
from replay.logs.recordings import LOG, SIDECAR

_NUMBERED: Final = re.compile(r"(.+)\.(\d+)(?:\.(?:gz|xz|bz2|zst))?")
"""What `strace -ff -o PREFIX` names its files: `PREFIX.PID`."""

_PID_BEFORE: Final = re.compile(rb"(?:\[pid +)?(\d{1,7})(?:<[^>]*>)?\]? +(?=[\da-z<+-])")
"""The pid that strace prints before a call. A time has a colon or a point behind its first digits."""

_FIRST_CALL: Final = re.compile(rb"(?:[\d.:+() ]+ )?(?:\[[\da-f?]+\] )?(execve\(|[a-z_\d]+\(|<\.\.\. |\+\+\+ |--- )")


@dataclass(frozen=True, slots=True)
class LogFile:
    """One log: how the user would name it (`source`), and where it is.

    `path` is absolute, or, where there is a `base`, a path in the file system of that URL; `size` is in bytes.
    """

    source: str
    location: str
    path: str
    base: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class FoundRun:
    """The logs of one run, and its name: the path from the common root of all that was asked for.

    `named` says that the user gave this very file, not a directory or pattern that holds it; `error` why it cannot
    be read, if that is known already.
    """

    name: str
    source: str
    location: str
    files: tuple[LogFile, ...]
    named: bool
    error: str = ""

    @property
    def size(self) -> int:
        """Return the bytes of all its files."""
        return sum(file.size for file in self.files)


@dataclass(slots=True)
class _Search:
    """What was found so far: files by location, which of them were named, what cannot be read, the roots searched."""

    files: dict[str, LogFile] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)

    def add(self, file: LogFile, *, named: bool) -> None:
        """Take a file; one that was found before keeps how it was found first, but is named if it is once."""
        self.files.setdefault(file.location, file)
        if named:
            self.named.add(file.location)


def find_runs(inputs: Iterable[str], dataset: str = "") -> list[FoundRun]:
    """Return the runs that files, directories, patterns and URLs hold, sorted by name.

    Directories are searched to any depth, except what is in `dataset` or in any other dataset. Names are unique.

    Raises:
        ReplayError: a URL is of an unknown file system, or cannot be listed; a directory is a dataset itself.
    """
    search = _Search()
    without = os.path.abspath(local_path(dataset) or "") if dataset and local_path(dataset) is not None else ""
    for word in inputs:
        path = local_path(word)
        if path is None:
            _search_url(search, word)
        else:
            _search_path(search, path, without)
    root = _common_root(search.roots)
    runs = [*_sets_and_files(search, root), *_unreadable(search, root)]
    return sorted(runs, key=lambda run: (run.name, run.location))


# ---- local files ----


def _search_path(search: _Search, path: str, without: str) -> None:
    """Take what a path or pattern names."""
    if os.path.isdir(path):
        if os.path.isdir(os.path.join(path, OWN)):
            raise ReplayError(f"{path}: is a dataset: tables, no logs; name the files or directories of the logs")
        search.roots.append(os.path.abspath(path))
        _walk(search, path, without)
    elif os.path.lexists(path):
        search.roots.append(os.path.dirname(os.path.abspath(path)))
        _take(search, path, named=True)
    elif glob.has_magic(path):
        _take_matches(search, path, without)
    else:
        _take_set(search, path)


def _walk(search: _Search, folder: str, without: str) -> None:
    """Take all regular files below a directory, in order of their names; of a recording its log alone."""

    def refused(error: OSError) -> None:
        where = str(error.filename or folder)
        search.errors[os.path.abspath(where)] = (where, f"cannot be read: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=refused):
        kept = [name for name in folders if name != OWN and not _is_other(os.path.join(parent, name), without)]
        folders[:] = sorted(kept)
        is_recording = SIDECAR in files and LOG in files
        for name in [LOG] if is_recording else sorted(files):
            _take(search, os.path.join(parent, name), named=False)


def _is_other(folder: str, without: str) -> bool:
    """Tell whether a directory is a dataset, and so holds no logs."""
    return os.path.abspath(folder) == without or os.path.isdir(os.path.join(folder, OWN))


def _take(search: _Search, path: str, *, named: bool) -> None:
    location = os.path.abspath(path)
    try:
        facts = os.stat(path)
    except OSError as error:
        if named:
            search.errors[location] = (path, f"cannot be read: {error.strerror}")
        return
    if stat.S_ISREG(facts.st_mode):
        search.add(LogFile(path, location, location, size=facts.st_size), named=named)
    elif named:
        search.errors[location] = (path, "is no regular file; a batch reads each log more than once")


def _take_matches(search: _Search, pattern: str, without: str) -> None:
    """Take what a pattern matches; `**` stands for directories to any depth."""
    fixed = Path(*_fixed_parts(Path(pattern).parts))
    search.roots.append(os.path.abspath(fixed))
    matches = sorted(glob.glob(pattern, recursive=True))
    for match in matches:
        if os.path.isdir(match):
            if not _is_other(match, without):
                _walk(search, match, without)
        elif not os.path.abspath(match).startswith(f"{without}/" if without else "\0"):
            _take(search, match, named=False)
    if not matches:
        search.errors[os.path.abspath(pattern)] = (pattern, "no file matches")


def _fixed_parts(parts: Sequence[str]) -> list[str]:
    """Return the parts of a pattern before the first one with a wildcard, the last part aside."""
    fixed = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return fixed


def _take_set(search: _Search, prefix: str) -> None:
    """Take the files `PREFIX.PID` of a `strace -ff` set that was named by its prefix."""
    folder = os.path.dirname(prefix) or "."
    search.roots.append(os.path.abspath(folder))
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    members = [name for name in names if _prefix_of(name) == os.path.basename(prefix)]
    for name in members:
        _take(search, os.path.join(os.path.dirname(prefix), name), named=True)
    if not members:
        search.errors[os.path.abspath(prefix)] = (
            prefix, f"no such file or directory, and no set {prefix}.PID written by strace -ff"
        )  # fmt: skip


# ---- files behind URLs ----


def _search_url(search: _Search, url: str) -> None:
    """Take what a URL names: a file, all files below a folder, or what a pattern matches."""
    import pyarrow.fs

    base, pattern = _split_pattern(url)
    files, path = file_system(base)
    shown = base.partition("?")[0].rstrip("/")
    try:
        info = files.get_file_info(path)
        found = [info]
        if not info.is_file:
            found = files.get_file_info(pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True))
    except OSError as error:
        raise ReplayError(f"{url}: cannot be listed: {error}") from error
    search.roots.append(shown.rpartition("/")[0] if info.is_file else shown)
    matches = re.compile(translate(pattern)).fullmatch if pattern else None
    taken = 0
    for each in sorted(found, key=lambda each: str(each.path)):
        inside = each.path.removeprefix(path.rstrip("/")).strip("/")
        if each.is_file and OWN not in inside.split("/") and (matches is None or matches(inside)):
            where = f"{shown}/{inside}" if inside else shown
            search.add(LogFile(where, where, each.path, base, max(each.size or 0, 0)), named=info.is_file)
            taken += 1
    if not taken:
        search.errors[url] = (url, "no file matches" if pattern else "no such file, and no file below it")


def _split_pattern(url: str) -> tuple[str, str]:
    """Return a URL up to its first part with a wildcard, and the rest; in a URL `*` also matches `/`."""
    scheme, _, rest = url.partition("://")
    head, query = (rest, "") if "?" not in rest or "=" not in rest.partition("?")[2] else rest.split("?", 1)
    parts = head.split("/")
    fixed = [*_fixed_parts(parts)] if glob.has_magic(head) else parts
    base = f"{scheme}://{'/'.join(fixed)}" + (f"?{query}" if query else "")
    return base, "/".join(parts[len(fixed) :])


# ---- runs out of files ----


def printable(text: str) -> str:
    r"""Return a path with bytes that are not utf-8 written as `\xNN`: what tables can hold and any reader decodes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_gone(location: str) -> bool:
    """Tell whether there is no log at a location any more; one that cannot be asked for is taken to be there."""
    path = local_path(location)
    if path is not None:
        prefix = path.removesuffix(".*")
        return not (os.path.lexists(path) or (prefix != path and glob.glob(glob.escape(prefix) + ".[0-9]*")))
    folder, _, name = location.rpartition("/")
    search = _Search()
    try:
        _search_url(search, f"{folder}/{name}")
    except ReplayError:
        return False
    return not search.files


def _common_root(roots: Sequence[str]) -> str:
    """Return the directory or URL that all roots are in or are, without a slash at its end."""
    parts = [root.rstrip("/").split("/") for root in roots]
    common = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        common.append(column[0])
    return "/".join(common)


def _name_below(root: str, location: str) -> str:
    """Return the path of a location from the root."""
    return printable(location.removeprefix(root + "/") if root else location.lstrip("/")) or "run"


def _sets_and_files(search: _Search, root: str) -> Iterator[FoundRun]:
    """Yield a run for each `strace -ff` set and for each other file."""
    numbered: dict[str, list[LogFile]] = defaultdict(list)
    for file in search.files.values():
        numbered[_prefix_of(file.location) or file.location].append(file)
    for prefix, files in numbered.items():
        if len(files) > 1 and _is_set(files):
            members = tuple(sorted(files, key=lambda file: _number_of(file.location)))
            source = printable(_prefix_of(members[0].source)) + ".*"
            named = any(file.location in search.named for file in members)
            yield FoundRun(_name_below(root, prefix), source, printable(prefix) + ".*", members, named)
        else:
            for file in files:
                name, named = _name_below(root, file.location), file.location in search.named
                yield FoundRun(name, printable(file.source), printable(file.location), (file,), named)


def _unreadable(search: _Search, root: str) -> Iterator[FoundRun]:
    for location, (source, reason) in search.errors.items():
        yield FoundRun(_name_below(root, location), printable(source), printable(location), (), True, reason)


def _prefix_of(name: str) -> str:
    """Return PREFIX of a name `PREFIX.PID`, empty for other names."""
    match = _NUMBERED.fullmatch(name)
    return match[1] if match else ""


def _number_of(name: str) -> int:
    match = _NUMBERED.fullmatch(name)
    return int(match[2]) if match else 0


def _is_set(files: Sequence[LogFile]) -> bool:
    """Tell whether files `PREFIX.NUMBER` are the threads of one run, and not logs that are numbered or rotated.

    A heuristic: `strace -ff` prints no pid, or the file's own (`--always-show-pid`). Where each file begins with an
    execve, as separate runs of one program do, one must name another as its child.
    """
    heads = {_number_of(file.location): head_of(file) for file in files}
    if len(heads) < len(files):
        return False
    firsts = [(number, _FIRST_CALL.match(_without_pid(head, number))) for number, head in heads.items() if head]
    if any(first is None for _, first in firsts) or not firsts:
        return False
    if all(first is not None and first[1] == b"execve(" for _, first in firsts):
        return any(_names_other(head, number, heads) for number, head in heads.items())
    return True


def _without_pid(head: bytes, number: int) -> bytes:
    """Return the first line of a file without the file's own pid; nothing if another pid stands there."""
    line = head.partition(b"\n")[0].lstrip()
    match = _PID_BEFORE.match(line)
    if not match:
        return line
    return line[match.end() :] if int(match[1]) == number else b""


def _names_other(head: bytes, number: int, numbers: Iterable[int]) -> bool:
    """Tell whether a call returned the number of another file, as fork and clone do."""
    returned = {int(result) for result in re.findall(rb"(?:fork|clone3?)\([^\n]* = (\d+)", head)}
    return bool(returned & set(numbers) - {number})
