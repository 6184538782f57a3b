"""A program run as it would be without us, and recorded meanwhile.

In go a command and a directory, out come a recording in it (`trace.log`, `record.json`) and how the program ended.
Which tool sees what, and why it was chosen, is decided here; what the logs say is not known here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from replay.errors import OutputExistsError, ReplayError
from replay.linux.constants import SECOND
from replay.logs.recordings import ASKED_FOR, PARTS, SIDECAR
from replay.record import shim
from replay.record.evidence import is_of_other_width, is_program, is_static, not_preloaded, own_malloc, partly_unseen
from replay.record.finish import LTRACE_LOG, STRACE_LOG, TRACEES, begin, finish
from replay.record.merge import parts_in
from replay.record.sidecar import Run

TOOLS: Final = ("auto", "shim", "ltrace", "strace")

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
"""Exit statuses of a shell for a command that it cannot run. Source: POSIX, Shell Command Language, 2.8.2."""

TRACED: Final = "trace=%memory,%process,open,openat,close,prlimit64,setrlimit,prctl,shmget"
"""The system calls that strace writes: those that tell of memory, processes, and the names of mapped files."""

LTRACED: Final = "malloc+free+calloc+realloc+reallocarray+memalign+aligned_alloc+valloc+pvalloc@libc.so*"

LTRACE_CONFIGURED: Final = (Path(__file__).with_name("ltrace.conf"), Path("/etc/ltrace.conf"))
"""What ltrace knows of calls: ours, and its own, which it does not read where another is given (ltrace(1), -F)."""

_LONGEST_PATH: Final = 4096
_FILTERED: Final = "--seccomp-bpf"
Watch: TypeAlias = Callable[[], None] | None
_PATIENCE_SECONDS: Final = 0.5
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for: one of `TOOLS`, `all` or `memory` system calls, whether malloc, and how many frames."""

    tool: str = "auto"
    system_calls: str = "memory"
    malloc: bool = True
    stacks: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tools see the program, and why.

    `strace` is its version, empty where it does not run; `unseen` says that malloc is not seen.
    """

    shim: bool
    strace: str
    ltrace: bool
    reason: str
    unseen: bool = False

    @property
    def tool(self) -> str:
        """Return the tools by name."""
        used = [("shim", self.shim and not self.unseen), ("ltrace", self.ltrace), ("strace", bool(self.strace))]
        return " and ".join(name for name, runs in used if runs)


@dataclass(frozen=True, slots=True)
class Recorded:
    """How a recorded program ended: its exit status, or minus the number of the signal that killed it."""

    status: int
    plan: Plan
    notes: list[str]
    finished: bool = True


def program_of(command: list[str]) -> Path:
    """Return the file of a command.

    Raises:
        ProgramError: there is none, or it may not be executed.
    """
    found = shutil.which(command[0])
    if found is not None:
        if not is_program(Path(found)):
            raise ProgramError(
                f"{command[0]}: cannot be executed: it is no program, or its interpreter is missing", NOT_EXECUTABLE
            )
        return Path(found)
    if os.sep in command[0] and Path(command[0]).exists():
        what = "is a directory" if Path(command[0]).is_dir() else "permission denied"
        raise ProgramError(f"{command[0]}: {what}", NOT_EXECUTABLE)
    raise ProgramError(f"{command[0]}: command not found", NOT_FOUND)


class ProgramError(ReplayError):
    """The program cannot be run; `status` is what a shell would end with."""

    def __init__(self, message: str, status: int) -> None:
        """Keep the exit status."""
        super().__init__(message)
        self.status = status


def plan(program: Path, options: Options) -> Plan:
    """Return which tools see a program, by what was asked for, what is installed, and what the program is."""
    strace = _strace_version() if options.tool != "ltrace" else ""
    if options.tool == "ltrace":
        if not shutil.which("ltrace"):
            raise ReplayError("--tool ltrace: ltrace is not installed")
        if is_static(program):
            raise ReplayError(f"--tool ltrace: {program} is static: ltrace cannot run it; --tool strace can")
        return Plan(False, "", True, f"{ASKED_FOR}; its breakpoints can kill a program of several threads")
    if options.tool == "strace" or not options.malloc:
        if not strace:
            raise ReplayError("strace is not installed, or may not trace here (ptrace is refused)")
        return Plan(False, strace, False, f"{ASKED_FOR}: malloc is not recorded")
    unseen = not_preloaded(program) or own_malloc(program)
    if unseen:
        if not strace:
            raise ReplayError(f"{unseen}, and strace, which would see its system calls, does not run here")
        return Plan(not is_of_other_width(program), strace, False, unseen, unseen=True)
    if options.tool == "shim":
        return Plan(True, "", False, ASKED_FOR)
    if not strace:
        return Plan(True, "", False, "strace does not run here: what ld.so and libc map for themselves is not shown")
    reason = partly_unseen(program) or "malloc by the preloaded library, system calls by strace"
    return Plan(True, strace, False, reason)


def record(
    command: list[str], directory: Path, options: Options, *, force: bool = False, watch: Watch = None
) -> Recorded:
    """Run a command and record it into a directory; `watch`, if any, is called each half a second meanwhile.

    Raises:
        OutputExistsError: something is there, and `force` is not set.
        ProgramError: the program cannot be run.
        ReplayError: a tool that is asked for does not run here.
    """
    chosen = plan(program_of(command), options)
    _make(directory, force=force)
    parts = directory / PARTS
    (parts / TRACEES).mkdir(parents=True)
    if os.geteuid() == 0:
        parts.chmod(0o1777)  # a program that gives up its rights goes on writing
    traced = bool(chosen.strace) or chosen.ltrace
    variables = {}
    if chosen.shim:
        variables = shim.environment(parts.absolute(), own_calls=not chosen.strace, stacks=options.stacks)
    words = _command(command, directory, chosen, options, variables)
    confined = traced and (os.geteuid() != 0 or _FILTERED in words)
    run = Run(command, chosen.tool, chosen.reason, chosen.strace, time.time(), None, options.stacks, confined)
    begin(directory, run)
    own = shim.environment_of_tracer((parts / TRACEES).absolute()) if traced else variables
    pid, status = _run(words, own, watch, traced=traced)
    if chosen.ltrace:
        status = status_in(directory / LTRACE_LOG, status)
    if chosen.shim and not traced:
        _write_end(parts, pid, status)
    try:
        begin(directory, replace(run, status=status))
        notes = finish(directory)
    except OSError as error:
        what = error.strerror or error
        note = f"{directory}: cannot be finished ({what}): replay record --finish {directory} does it when it can be"
        return Recorded(status, chosen, [note], finished=False)
    return Recorded(status, chosen, notes)


def _write_end(parts: Path, pid: int, status: int) -> None:
    """Write behind the lines of a program how it ended, where it was killed or left without libc: it did not itself."""
    logs = [part.path for part in parts_in(parts) if part.pid == pid]
    if not logs or (status >= 0 and _has_end(logs[-1], pid)):
        return
    seconds, rest = divmod(time.time_ns(), SECOND)
    prefix = f"{pid} {seconds}.{rest:09}"
    killed = f"{prefix} +++ killed by {signal.Signals(-status).name} +++\n" if status < 0 else ""
    left = f"{prefix} SYS_exit_group({status} <no return ...>\n{prefix} +++ exited (status {status}) +++\n"
    (parts / f"{pid}.{len(logs)}.log").write_text(killed or left)


def status_in(log: Path, status: int) -> int:
    """Return how the first process of a log of ltrace ended: ltrace itself does not end like it.

    Where the log does not tell, it is the `status` of ltrace.
    """
    try:
        text = log.read_bytes()
    except OSError:
        return status
    pid = text.partition(b" ")[0]
    ended = rb"^%s [\d.:]+ \+\+\+ (?:exited \(status (\d+)\)|killed by (SIG\w+)) \+\+\+$" % re.escape(pid)
    found = [*re.finditer(ended, text, re.MULTILINE)]
    if not found:
        return status
    exited, killed = found[-1].groups()
    return int(exited) if exited else -signal.Signals[killed.decode()]


def _has_end(log: Path, pid: int) -> bool:
    """Tell whether the end of a process stands in a log; those of its threads do not count."""
    before_ends = log.read_bytes().split(b" +++ exited (")[:-1]
    return any(text[text.rfind(b"\n") + 1 :].startswith(b"%d " % pid) for text in before_ends)


def _make(directory: Path, *, force: bool) -> None:
    """Make an empty directory for a recording; an older recording in its place is removed if `force`."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        if not force:
            raise OutputExistsError(f"{directory}: is there already (--force overwrites a recording)")
        if not directory.is_dir() or not ((directory / SIDECAR).exists() or (directory / PARTS).exists()):
            raise OutputExistsError(f"{directory}: is no recording, and is not overwritten")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)


def _command(
    command: list[str], directory: Path, chosen: Plan, options: Options, variables: dict[str, str]
) -> list[str]:
    """Return the command that runs the program under its tracer, if it has one."""
    if chosen.ltrace:
        files = [word for path in LTRACE_CONFIGURED if path.exists() for word in ("-F", str(path))]
        words = ["-f", "-S", "-L", "-ttt", "-s", str(_LONGEST_PATH), *files, "-x", LTRACED]
        return ["ltrace", *words, "-o", str(directory / LTRACE_LOG), "--", *command]
    if not chosen.strace:
        return command
    version = tuple(int(word) for word in chosen.strace.split(".")[:2])
    clock = ["--absolute-timestamps=format:unix,precision:ns"] if version >= (5, 6) else ["-ttt"]
    which = ["-e", "trace=all" if options.system_calls == "all" else TRACED]
    # A filter would take from a set-id program the rights that it gains (PR_SET_NO_NEW_PRIVS).
    is_quick = version >= (5, 3) and options.system_calls != "all" and not chosen.unseen
    quick = [_FILTERED] if is_quick else []
    stacks = ["-k"] if options.stacks and not chosen.shim else []
    given = [word for name, value in variables.items() for word in ("-E", f"{name}={value}")]
    words = ["-f", "-y", *clock, *quick, *stacks, *which, "-o", str(directory / STRACE_LOG), *given]
    return ["strace", *words, "--", *command]


def _strace_version() -> str:
    """Return the version of strace, empty where it is not installed or may not trace."""
    try:
        done = subprocess.run(
            ["strace", "-V", "-o", os.devnull], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        tried = subprocess.run(
            ["strace", "-o", os.devnull, "-e", "trace=none", "/bin/true"],
            capture_output=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        return ""
    found = re.search(r"version (\d+\.\d+)", done.stdout)
    return found[1] if found and tried.returncode == 0 else ""


def _run(command: list[str], variables: dict[str, str], watch: Watch, *, traced: bool) -> tuple[int, int]:
    """Run a command with the terminal as its own, and return its number and how it ended; signals are passed on."""
    started: list[int] = []
    early: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        for pid in _children(started[0]) if traced and started else started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not started:
            early.append(number)

    with _handled(pass_on), subprocess.Popen(command, env=os.environ | variables) as process:
        started.append(process.pid)
        for number in early:
            pass_on(number, None)
        while True:
            try:
                return process.pid, process.wait(_PATIENCE_SECONDS if watch is not None else None)
            except subprocess.TimeoutExpired:
                if watch is not None:
                    watch()


@contextlib.contextmanager
def _handled(pass_on: Callable[[int, Any], None]) -> Iterator[None]:
    """Hand the signals that this process gets to a function; those of the terminal the program gets by itself."""
    before = {number: signal.signal(number, pass_on) for number in _FORWARDED}
    before |= {number: signal.signal(number, lambda *_: None) for number in _OF_TERMINAL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _children(pid: int) -> list[int]:
    """Return the children of a process: of strace, the program is the first."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:1]]
    except OSError:
        return []
