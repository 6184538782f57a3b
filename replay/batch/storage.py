"""Places where files come to be whole or not at all: a local directory, or one behind a URL that pyarrow understands.

In go names relative to the place and complete local files, out come files, bytes and listings. What the files hold is
not known here.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from replay.datasets.layout import OWN
from replay.errors import ReplayError
from replay.logs.files import RUNS_FILE
from replay.tables import OutputError

STAGING: Final = f"{OWN}/staging"

_WHOLE_WHEN_CLOSED: Final = ("s3", "gcs", "abfs")
"""File systems of pyarrow on which a file appears when its stream is closed, and folders need not be made."""


def is_url(where: str) -> bool:
    """Tell whether a word of the user is a URL."""
    return "://" in where


def local_path(where: str) -> str | None:
    """Return the path of a word that is no URL or a `file://` URL; None for other URLs."""
    if not is_url(where):
        return where
    return unquote(urlsplit(where).path) if where.startswith("file://") else None


@cache
def file_system(url: str) -> tuple[Any, str]:
    """Return the pyarrow file system of a URL and the path of the URL in it; the same one each time.

    Raises:
        ReplayError: pyarrow knows no such file system, or cannot reach it.
    """
    import pyarrow as pa
    import pyarrow.fs

    try:
        found, path = pa.fs.FileSystem.from_uri(url)
    except (pa.ArrowException, OSError, ImportError, ValueError) as error:
        raise ReplayError(
            f"{url}: cannot be used: {error}; expected a path or a URL such as s3://bucket/logs"
        ) from error
    return found, path


class Store(ABC):
    """A place for files, named by their path relative to it with `/` between the parts."""

    url: str
    """How another process opens the same place: an absolute path, or a URL."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return what a file holds, None if there is no such file."""

    @abstractmethod
    def publish(self, file: Path, name: str) -> None:
        """Let a complete local file, made in `staging()`, appear under a name; what was there is replaced at once."""

    @abstractmethod
    def move(self, name: str, target: str) -> None:
        """Give a file another name; what was there is replaced."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, sorted; none if there is no such folder."""

    @abstractmethod
    def staging(self) -> Any:
        """Return a context manager that gives a local directory for files in the making, which vanishes with them."""

    def write(self, name: str, data: bytes) -> None:
        """Let a file of these bytes appear under a name."""
        with self.staging() as folder:
            file = folder / "file"
            with _refusals(f"{self.url}/{name}"):
                file.write_bytes(data)
            self.publish(file, name)


class LocalStore(Store):
    """A directory of this machine, or of a network file system."""

    def __init__(self, root: Path) -> None:
        """Take the directory, which comes to be with the first file."""
        self.root = root
        self.url = str(root)

    def read(self, name: str) -> bytes | None:
        """Return what a file holds, None if there is no such file."""
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ReplayError(f"{self.root / name}: cannot be read: {error.strerror}") from error

    def publish(self, file: Path, name: str) -> None:
        """Let a complete file appear under a name, by renaming it."""
        with _refusals(str(self.root / name)):
            self._moved(file, name)

    def move(self, name: str, target: str) -> None:
        """Give a file another name; what was there is replaced at once."""
        with _refusals(str(self.root / target)):
            self._moved(self.root / name, target)

    def write(self, name: str, data: bytes) -> None:
        """Let a file of these bytes appear under a name."""
        file = f"{self.url}/{STAGING}/{_own_name()}"
        with _refusals(f"{self.url}/{name}"):
            try:
                try:
                    _written(file, data)
                except FileNotFoundError:
                    os.makedirs(os.path.dirname(file), exist_ok=True)
                    _written(file, data)
                self._moved(file, name)
            except BaseException:
                with suppress(OSError):
                    os.unlink(file)
                raise

    def _moved(self, file: str | Path, name: str) -> None:
        target = f"{self.url}/{name}"
        try:
            os.replace(file, target)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(file, target)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        target = f"{self.url}/{name}"
        with _refusals(target), suppress(FileNotFoundError):
            try:
                os.unlink(target)
            except OSError:
                if not os.path.isdir(target):
                    raise
                shutil.rmtree(target)

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, sorted."""
        try:
            return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ReplayError(f"{self.root / folder}: cannot be read: {error.strerror}") from error

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a directory on the same file system, from which files are renamed into place."""
        folder = self.root / STAGING / _own_name()
        with _refusals(self.url):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            try:
                folder.rmdir()
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)


def _own_name() -> str:
    """Return a name that no other process gives, nor this one again."""
    return f"{os.getpid()}-{secrets.token_hex(6)}"


def _written(file: str, data: bytes) -> None:
    with open(file, "xb") as out:
        out.write(data)


class ObjectStore(Store):
    """A place behind a URL, reached through a file system of pyarrow."""

    def __init__(self, url: str) -> None:
        """Open the file system of the URL."""
        self.url = url
        self.files, path = file_system(url)
        self.root = path.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """Return what a file holds, None if there is no such file."""
        try:
            with self.files.open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ReplayError(f"{self.url}/{name}: cannot be read: {error}") from error

    def publish(self, file: Path, name: str) -> None:
        """Let a copy of a local file appear under a name, once it is all there."""
        target = self._path(name)
        with _refusals(f"{self.url}/{name}"):
            if self.files.type_name in _WHOLE_WHEN_CLOSED:
                self._copy(file, target)
                return
            beside = self._path(f"{STAGING}/{secrets.token_hex(8)}")
            self.files.create_dir(beside.rpartition("/")[0], recursive=True)
            self._copy(file, beside)
            self._moved(beside, target)

    def move(self, name: str, target: str) -> None:
        """Give a file another name; what was there is replaced."""
        with _refusals(f"{self.url}/{target}"):
            self._moved(self._path(name), self._path(target))

    def _moved(self, path: str, target: str) -> None:
        self.files.create_dir(target.rpartition("/")[0], recursive=True)
        if self._is_there(target):
            self.files.delete_file(target)
        self.files.move(path, target)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        path = self._path(name)
        with _refusals(f"{self.url}/{name}"), suppress(FileNotFoundError):
            if self.files.get_file_info(path).is_file:
                self.files.delete_file(path)
            elif self._is_there(path):
                self.files.delete_dir(path)

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder, sorted."""
        import pyarrow.fs

        try:
            found = self.files.get_file_info(pyarrow.fs.FileSelector(self._path(folder), allow_not_found=True))
        except OSError as error:
            raise ReplayError(f"{self.url}/{folder}: cannot be read: {error}") from error
        return sorted(info.base_name for info in found)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a temporary directory of this machine, from which files are copied."""
        with tempfile.TemporaryDirectory(prefix="replay-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if self.root else name

    def _is_there(self, path: str) -> bool:
        import pyarrow.fs

        return bool(self.files.get_file_info(path).type != pyarrow.fs.FileType.NotFound)

    def _copy(self, file: Path, target: str) -> None:
        with file.open("rb") as source, self.files.open_output_stream(target) as stream:
            shutil.copyfileobj(source, stream, 1 << 20)


def open_store(where: str) -> Store:
    """Return the place that a path or a URL names.

    Raises:
        ReplayError: the URL is of no file system that pyarrow can reach.
    """
    path = local_path(where)
    return ObjectStore(where.rstrip("/")) if path is None else LocalStore(Path(os.path.abspath(path)))


def existing_store(where: str) -> Store:
    """Return the place of a dataset that is there.

    Raises:
        ReplayError: there is none.
    """
    store = open_store(where)
    if RUNS_FILE not in store.names(""):
        raise ReplayError(f"{where}: no {RUNS_FILE} in it, so it is no dataset; `replay batch` makes one")
    return store


@contextmanager
def _refusals(place: str) -> Iterator[None]:
    """Turn each refusal of a file system into an `OutputError` that names the place."""
    try:
        yield
    except OSError as error:
        raise OutputError(place, os.strerror(error.errno) if error.errno else str(error)) from error
