"""The wheel: built, installed in a fresh virtual environment and used from another directory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import oracle
import pytest

from replay.engine import build_hook

pytestmark = pytest.mark.slow


def succeed(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout, by way of the sdist: so the sdist must hold all that it needs."""
    copy = tmp_path_factory.mktemp("checkout") / "replay-trace"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "tests")
    shutil.copytree(oracle.CHECKOUT, copy, ignore=ignored)
    out = tmp_path_factory.mktemp("dist")
    succeed(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out, cwd=copy)
    succeed("tar", "-xzf", next(out.glob("*.tar.gz")), "-C", out, cwd=out)
    unpacked = next(path for path in out.iterdir() if path.is_dir())
    succeed(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=unpacked)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin directory of a fresh environment that holds the wheel.

    The dependencies come from the running environment: what `pip install` finds for them is for the README's command.
    Only what compiles the loops cannot be imported there.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    succeed(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = next((folder / "lib").glob("python*/site-packages"))
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (packages / "zz_borrowed.pth").write_text("\n".join(borrowed) + "\n")
    (packages / "zz_no_compiler.pth").write_text("import sys; sys.modules |= {'numba': None, 'llvmlite': None}\n")
    return folder / "bin"


def test_the_wheel_holds_the_package_and_the_grammars_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    grammars = {f"replay/grammars/{path.name}" for path in (oracle.CHECKOUT / "grammars").glob("*.lark")}
    assert grammars and grammars < names
    assert "replay/py.typed" in names
    (page,) = (name for name in names if name.endswith("/share/man/man1/replay.1"))
    names -= {page}
    assert {name.split("/")[0] for name in names} == {"replay"}
    assert {Path(name).suffix for name in names} <= {
        ".py",
        ".c",
        ".conf",
        ".lark",
        ".typed",
        ".so",
        ".tables",
        ".js",
        ".css",
        "",
    }
    assert {name for name in names if not Path(name).suffix} == {"replay/whatif/_player"}
    assert build_hook.LIBRARY in names
    assert wheel.name.endswith(f"-py3-none-{sysconfig.get_platform().replace('-', '_')}.whl")


def test_the_installed_command_reports_from_any_directory(installed: Path, tmp_path: Path) -> None:
    log = oracle.SAMPLES / "blocked_break" / "strace.log"
    code = "import replay; print(replay.__file__)"
    assert str(installed.parent) in succeed(installed / "python", "-c", code, cwd=tmp_path)
    by_script = succeed(installed / "replay", log, cwd=tmp_path)
    assert "brk" in by_script
    assert succeed(installed / "python", "-m", "replay", log, cwd=tmp_path) == by_script


def test_the_installed_library_gives_data_frames(installed: Path, tmp_path: Path) -> None:
    log = oracle.SAMPLES / "ltrace" / "ltrace.log"
    code = f"import replay; run = replay.load({str(log)!r}); print(len(run.events), len(run.maps()))"
    events, characters = map(int, succeed(installed / "python", "-c", code, cwd=tmp_path).split())
    assert events > 100 and characters > 100
