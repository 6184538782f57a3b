"""Programs captured now: the replay equals what each read from its own `/proc/self/maps`, page for page."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import oracle
import pytest

import replay
from replay.linux.proc_maps import join_equal, parse_maps

PROGRAMS = Path(__file__).resolve().parent / "programs"
RECOMMENDED = "trace=%memory,%process,open,openat,close,prlimit64,setrlimit,prctl,shmget"

OPTIONS = {
    "recommended": ["-f", "-y", "-ttt", "-e", RECOMMENDED, "-o", "strace.log"],
    "f": ["-f", "-o", "strace.log"],
    "ff": ["-ff", "-ttt", "-o", "strace.log"],
    "raw": ["-f", "-X", "raw", "-o", "strace.log"],
    "verbose": ["-f", "-X", "verbose", "-r", "-o", "strace.log"],
    "yy": ["-f", "-yy", "-tt", "-T", "-o", "strace.log"],
    "on_stderr": ["-f"],
    "ip_number_comm": ["-f", "-i", "-n", "-Y", "-t", "-o", "strace.log"],
    "not_followed": ["-o", "strace.log"],
}
"""Option sets of strace; without `-o` the log is the standard error of the run."""

UNSEEN = {"fork_exec", "thread_exec", "threads"}
"""Programs whose memory another thread or a vforked child changes: without -f the log cannot tell."""

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not (shutil.which("strace") and shutil.which("gcc")), reason="needs strace and gcc"),
]


@dataclass(frozen=True, slots=True)
class Program:
    """A C source and how to compile it."""

    source: Path
    flags: tuple[str, ...] = ()


BUILDS = {
    "plain": Program(oracle.SAMPLES / "plain" / "prog.c"),
    "plain_static": Program(oracle.SAMPLES / "plain" / "prog.c", ("-static",)),
    "blocked_break": Program(oracle.SAMPLES / "blocked_break" / "prog.c"),
    "blocked_break_no_pie": Program(oracle.SAMPLES / "blocked_break" / "prog.c", ("-no-pie",)),
    "threads": Program(oracle.SAMPLES / "threads" / "prog.c", ("-pthread",)),
    "fork_exec": Program(oracle.SAMPLES / "fork_exec" / "prog.c"),
    "run_32bit": Program(oracle.SAMPLES / "run_32bit" / "prog.c", ("-m32",)),
    "remaps": Program(PROGRAMS / "remaps.c"),
    "spawn": Program(PROGRAMS / "spawn.c"),
    "thread_exec": Program(PROGRAMS / "thread_exec.c", ("-pthread",)),
}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that compiles a program by name, once; a compiler that cannot is a reason to skip."""

    @functools.cache
    def compiled(name: str) -> Path:
        program = tmp_path_factory.mktemp(name) / "prog"
        build = BUILDS[name]
        command = ["gcc", "-O0", "-w", "-fno-builtin", f"-I{oracle.SAMPLES}", *build.flags]
        done = subprocess.run([*command, "-o", program, build.source], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"gcc {' '.join(build.flags)}: {done.stderr.strip().splitlines()[-1]}")
        return program

    return compiled


def trace(program: Path, options: list[str], folder: Path) -> list[Path]:
    """Run a program under strace in `folder` and return the logs."""
    command = ["strace", *options, str(program)]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=600)
    if b"PTRACE_TRACEME" in done.stderr or b"ptrace(PTRACE" in done.stderr:
        pytest.skip("ptrace is not allowed here")
    assert done.returncode == 0, done.stderr[-2000:]
    if "-o" not in options:
        (folder / "strace.log").write_bytes(done.stderr)
    return sorted(folder.glob("strace.log*"))


CASES = [(name, options) for name in BUILDS for options in OPTIONS if options != "not_followed" or name not in UNSEEN]


def state_at(run, snapshot: oracle.Snapshot, *, several: bool) -> str:
    if not several:
        return run.maps(line=snapshot.line, pid=snapshot.pid)
    here = run.events[run.events["file"].astype(str).str.endswith(snapshot.log.name)]
    return run.maps(step=int(here.loc[here["line"] <= snapshot.line, "step"].max()), pid=snapshot.pid)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_replay_equals_the_maps_that_the_program_read(name: str, options: str, build, tmp_path: Path) -> None:
    logs = trace(build(name), OPTIONS[options], tmp_path)
    found = [snapshot for log in logs for snapshot in oracle.snapshots(tmp_path, log)]
    labels = set(re.findall(r'snapshot\("(\w+)"\)', BUILDS[name].source.read_text()))
    if options == "not_followed":
        labels -= {"child", "grandchild"}
    assert {snapshot.label for snapshot in found} == labels
    run = replay.load(logs if len(logs) > 1 else logs[0])
    wrong = {}
    for snapshot in found:
        truth = oracle.read_areas(snapshot.maps.read_text())
        replayed = oracle.read_areas(state_at(run, snapshot, several=len(logs) > 1))
        if difference := oracle.differences(truth, replayed, paths=oracle.paths_told(snapshot.log)):
            wrong[snapshot.label] = difference
    assert "\n".join(f"{label}: {line}" for label, lines in wrong.items() for line in lines) == ""
    reasons = set(run.problems["reason"].astype(str))
    # Files of threads tell when each call began, not which of two at the same time the kernel served first.
    assert reasons <= ({"divergence_map_over_mapping"} if options == "ff" and name in UNSEEN else set())


RECORDED = [name for name, build in BUILDS.items() if not {"-static", "-m32"} & set(build.flags)]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="what is preloaded knows x86-64")
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_equals_the_maps_that_the_program_read_to_the_last_line(name: str, build, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "replay", "record", "-o", "rec", str(build(name))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    run = replay.load(tmp_path / "rec")
    found = list(oracle.snapshots(tmp_path, tmp_path / "rec" / "trace.log"))
    assert {snapshot.label for snapshot in found} == set(
        re.findall(r'snapshot\("(\w+)"\)', BUILDS[name].source.read_text())
    )
    for snapshot in found:
        truth = parse_maps(snapshot.maps.read_text())
        replayed = parse_maps(run.maps(line=snapshot.line, pid=snapshot.pid))
        assert list(join_equal(replayed)) == list(join_equal(truth)), snapshot.label
    assert len(run.problems) == 0


@pytest.mark.skipif(not shutil.which("ltrace"), reason="needs ltrace")
@pytest.mark.parametrize("name", ["plain", "blocked_break"])
def test_replay_of_an_ltrace_log_equals_the_maps_that_the_program_read(name: str, build, tmp_path: Path) -> None:
    log = tmp_path / "ltrace.log"
    command = ["ltrace", "-S", "-f", "-e", "malloc+free+realloc@MAIN", "-o", str(log), str(build(name))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=600)
    if done.returncode or not log.exists():
        pytest.skip(f"ltrace does not work here: {done.stderr[-200:]!r}")
    run = replay.load(log)
    found = list(oracle.snapshots(tmp_path, log))
    assert found
    for snapshot in found:
        truth = oracle.read_areas(snapshot.maps.read_text())
        replayed = oracle.read_areas(state_at(run, snapshot, several=False))
        assert not oracle.differences(truth, replayed, paths="unknown"), snapshot.label
