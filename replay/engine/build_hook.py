"""What building the package adds to it: a shared library of the compiled loops, small C libraries, tables of parsers.

In goes a checkout, out come the files of `LIBRARY` and `C_SOURCES` in it, and those of the grammar's parsers; a wheel
takes them along. hatchling calls the class below; `python -m replay.engine.build_hook` does the same in place. What was
built of the same sources is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LOOPS: Final = (
    "replay.mm.address_space", "replay.lines.scan_loop", "replay.engine.gap_sweep", "replay.engine.forms",
)  # fmt: skip
"""The modules in which loops stand, those that take the longest to compile first."""

LIBRARY: Final = "replay/engine/_loops.so"

COMPILE: Final = ("-m", "replay.engine.compile_loops")


class CSource(NamedTuple):
    """A file of C, what is made of it and how; the package does without where there is no C compiler."""

    source: str
    made: str
    flags: str


PRELOADED: Final = "-O2 -fPIC -shared -fvisibility=hidden -fno-builtin -ftls-model=initial-exec"

C_SOURCES: Final = (
    CSource("replay/record/shim.c", "replay/record/_shim.so", PRELOADED),
    CSource("replay/record/tracees.c", "replay/record/_tracees.so", PRELOADED),
    CSource("replay/whatif/player.c", "replay/whatif/_player", "-O2 -pthread -ldl"),
)

ZIG: Final = "ziglang>=0.13"
"""A linker, and a compiler of C, for machines that have none."""


class BuildError(Exception):
    """The library cannot be made; says what is missing."""


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds what is compiled, and has the wheel be one for this kind of machine."""

    def dependencies(self) -> list[str]:
        """Return what the build needs besides what `pyproject.toml` says."""
        return [] if _linker() else [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build in the tree that the wheel is made of; an editable installation uses that tree itself."""
        made = build(Path(self.root))
        build_data["artifacts"] += [f"/{name}" for name in made]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def build(root: Path) -> list[str]:
    """Build what is not there yet, or older than its sources, and return the names of all files built."""
    with tempfile.TemporaryDirectory(prefix="replay-build-") as folder, _processes() as processes:
        compiling = [] if _is_fresh(root) else _compiling(processes, root, Path(folder))
        tables = processes.submit(build_tables, root)
        of_c = list(processes.map(partial(_is_made, root), C_SOURCES))
        if compiling:
            _link_loops(root, compiling, root / LIBRARY)
    return [LIBRARY, *tables.result(), *(one.made for one, is_made in zip(C_SOURCES, of_c, strict=True) if is_made)]


def build_tables(root: Path) -> list[str]:
    """Make the tables of a checkout's parsers, where they do not fit, and return the names of their files.

    Raises:
        BuildError: lark is missing, or failed.
    """
    if find_spec("lark") is None:
        raise BuildError("the tables of replay's parsers are made by lark, not installed: pip install lark")
    code = "from replay.grammar.parser import build_tables; print(*build_tables(), sep='\\n')"
    return [str(Path(name).relative_to(root)) for name in _python(root, "-c", code)]


def _processes() -> ThreadPoolExecutor:
    """Return what waits for as many processes at once as there are processors: what is begun first ends the soonest."""
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)))


def _python(root: Path, *arguments: str) -> list[str]:
    """Run Python in a process of its own, which sees the checkout first, and return the lines that it printed."""
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed")
    return done.stdout.splitlines()


# --- the loops -------------------------------------------------------------------------------------------------------


def build_loops(root: Path, library: Path, *options: str) -> None:
    """Compile the loops of a checkout, each module in a process, and link them.

    Raises:
        BuildError: numba or a linker is missing, or one of them failed.
    """
    with tempfile.TemporaryDirectory(prefix="replay-build-") as folder, _processes() as processes:
        _link_loops(root, _compiling(processes, root, Path(folder), *options), library)


class _Compiling(NamedTuple):
    """An object file that a process makes of the loops of a module, and the names of the sources that went into it."""

    file: Path
    sources: Future[list[str]]


def _compiling(processes: ThreadPoolExecutor, root: Path, folder: Path, *options: str) -> list[_Compiling]:
    """Begin to compile the loops of a checkout."""
    missing = [name for name in ("numba", "llvmlite") if find_spec(name) is None]
    if missing:
        raise BuildError(f"replay's loops are compiled by {' and '.join(missing)}, not installed: pip install numba")
    files = {module: folder / f"{module}.o" for module in LOOPS}
    return [
        _Compiling(file, processes.submit(_python, root, *COMPILE, str(file), module, *options))
        for module, file in files.items()
    ]


def _link_loops(root: Path, compiling: Sequence[_Compiling], library: Path) -> None:
    """Link object files, when they are there, into a library that says what it is made of."""
    names = sorted({name for one in compiling for name in one.sources.result()})
    origin = compiling[0].file.with_name("origin.o")
    _python(root, *COMPILE, str(origin), "--origin", *names)
    _link([*(one.file for one in compiling), origin], library)


def _linker() -> list[str]:
    """Return the command that links a shared library, empty where there is none."""
    for command in (["cc"], ["gcc"], ["clang"], ["ld"]):
        if shutil.which(command[0]):
            return command
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else []


def _link(objects: Iterable[Path], library: Path) -> None:
    """Link object files into a library, which appears whole: a process may use the one before."""
    linker = _linker()
    if not linker:
        raise BuildError("replay's loops are linked by cc or ld, neither is found: pip install ziglang has one")
    alone = [] if linker == ["ld"] else ["-nostdlib"]
    fresh = library.with_name(f"{library.name}.{os.getpid()}")
    _run([*linker, "-shared", "-s", *alone, "-o", str(fresh), *map(str, objects)])
    fresh.replace(library)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")


def _is_fresh(root: Path) -> bool:
    """Tell whether the library of a checkout is made of its sources as they are, for machines like this one."""
    code = (
        "import ctypes, sys; from replay.engine import native; "
        "sys.exit(not native.is_of_sources(ctypes.CDLL(str(native.LIBRARY))))"
    )
    return (root / LIBRARY).exists() and subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=False, capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
    ).returncode == 0  # fmt: skip


# --- C ---------------------------------------------------------------------------------------------------------------


def _is_made(root: Path, one: CSource) -> bool:
    """Tell whether what is made of a file of C is there, made now if it was not; without a compiler it is not."""
    source, made = root / one.source, root / one.made
    if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
        return True
    compiler = _linker()
    if not compiler or compiler == ["ld"]:
        print(f"replay: no C compiler; built without {one.made}", file=sys.stderr)
        return False
    fresh = made.with_name(f"{made.name}.{os.getpid()}")
    try:
        _run([*compiler, *one.flags.split(), "-o", str(fresh), str(source)])
    except BuildError as error:
        print(f"replay: built without {one.made}: {error}", file=sys.stderr)
        return False
    fresh.replace(made)
    return True


if __name__ == "__main__":
    try:
        print(*build(Path(__file__).resolve().parents[2]), sep="\n")
    except BuildError as error:
        sys.exit(f"replay: {error}")
