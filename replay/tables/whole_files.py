"""Files and directories that appear whole or not at all.

In goes a path, out comes a temporary one beside it, whose file or directory takes that path when it is complete. What
stands there before is replaced only where that was asked for. What is written is not known here.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from replay.console.screen import clean
from replay.errors import OutputExistsError, ReplayError
from replay.tables.temporary import temporary_in

PathLike: TypeAlias = str | os.PathLike[str]

STDOUT: Final = "-"


class OutputError(ReplayError):
    """The output cannot be written: disk full, read-only directory, no such directory."""

    def __init__(self, path: PathLike, reason: str) -> None:
        """Say that `path` cannot be written, and why."""
        super().__init__(f"{os.fspath(path)}: cannot be written: {reason}")
        self.reason = reason


@contextmanager
def whole_file(path: PathLike, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary path whose file becomes `path` if the body ends well, and vanishes if it does not.

    The path `-` is standard output: what was written goes there.

    Raises:
        OutputExistsError: `path` is there and `force` is not given.
        OutputError: the system refused to write.
    """
    if path == STDOUT:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "output")
            _write_out(Path(folder, "output"))
        return
    with system_errors(path):
        target = Path(os.path.realpath(path))
        _check_file(target, force=force)
        temporary = temporary_in(target.parent)
        try:
            yield temporary
            _check_file(target, force=force)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def _write_out(file: Path) -> None:
    """Copy a file to standard output; a terminal gets no characters that it would obey."""
    if sys.stdout.isatty():
        with file.open(encoding="utf-8", errors="surrogateescape", newline="\n") as text:
            sys.stdout.writelines(clean(line.rstrip("\n")) + "\n" for line in text)
        return
    sys.stdout.flush()
    with file.open("rb") as data:
        shutil.copyfileobj(data, sys.stdout.buffer)


@contextmanager
def whole_directory(directory: PathLike, files: Iterable[str], *, force: bool = False) -> Iterator[Path]:
    """Give a temporary directory for `files`, which come to stand in `directory` if the body ends well.

    They appear all at once: the directory takes the place of the one that is there, whose other files it has then.
    Only where that is not possible (one holds other directories, or is the working directory) are the complete files
    moved one by one.

    Raises:
        OutputExistsError: one of `files` is in `directory` and `force` is not given.
        OutputError: the system refused to write.
    """
    names = tuple(files)
    with system_errors(directory):
        target = Path(os.path.realpath(directory))
        _check_directory(target, names, force=force)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_in(target if target.exists() and not _is_replaceable(target) else target.parent)
        temporary.mkdir()
        try:
            yield temporary
            _check_directory(target, names, force=force)
            _move_directory(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: PathLike, files: Iterable[str] = (), *, force: bool = False) -> None:
    """Refuse now what `whole_file`, or `whole_directory` of `files`, would refuse, before work is done for it.

    Raises:
        OutputExistsError: a file is there and `force` is not given.
        OutputError: something else stands in its place.
    """
    names = tuple(files)
    if path == STDOUT:
        return
    with system_errors(path):
        target = Path(os.path.realpath(path))
        if names:
            _check_directory(target, names, force=force)
        else:
            _check_file(target, force=force)


@contextmanager
def system_errors(path: PathLike) -> Iterator[None]:
    """Turn each refusal of the system into an `OutputError` that names `path`, not a temporary file."""
    try:
        yield
    except OutputError as error:
        raise OutputError(path, error.reason) from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OutputError(path, reason) from error


def _check_file(target: Path, *, force: bool) -> None:
    if target.exists() and not target.is_file():
        raise OutputError(target, "it is a directory" if target.is_dir() else "it is not a regular file")
    if target.exists() and not force:
        raise OutputExistsError(f"{target} exists already; --force overwrites it")


def _check_directory(target: Path, names: Iterable[str], *, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(target, "it is not a directory")
    for name in names:
        _check_file(target / name, force=force)


def _move_directory(temporary: Path, target: Path) -> None:
    """Give the directory its name, in exchange for the one that has it, or move its files into that one."""
    if not target.exists() or (_is_replaceable(target) and not any(target.iterdir())):
        temporary.rename(target)
        return
    beside = _is_replaceable(target) and temporary.parent == target.parent
    if beside and _has_others_too(temporary, target) and _exchanged(temporary, target):
        return
    for file in sorted(temporary.iterdir()):
        os.replace(file, target / file.name)


def _has_others_too(temporary: Path, target: Path) -> bool:
    """Give a directory the other files of another, and tell whether the file system can: some know no links."""
    try:
        for file in target.iterdir():
            if not (temporary / file.name).exists():
                os.link(file, temporary / file.name, follow_symlinks=False)
        shutil.copymode(target, temporary)
    except OSError:
        return False
    return True


def _is_replaceable(target: Path) -> bool:
    """Tell whether another directory can take the place of one: it holds files alone, and we do not work in it."""
    where = Path.cwd()
    inside = target == where or target in where.parents or target.is_mount()
    return not inside and os.access(target.parent, os.W_OK) and not any(map(_is_folder, target.iterdir()))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
"""Source: renameat2(2), linux/fs.h."""


def _exchanged(one: Path, other: Path) -> bool:
    """Give two directories each other's name at once; return whether the system can."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return rename is not None and not rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
