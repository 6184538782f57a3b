"""`replay record`: the logs of a run made one, the recording that they become, and programs recorded now."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import oracle
import pytest
from typer.testing import CliRunner

import replay
from replay import cli
from replay.batch.discovery import find_runs
from replay.console.amounts import size
from replay.errors import TraceFormatError
from replay.linux.proc_maps import Mapping, join_equal, parse_maps
from replay.record import libraries, shim
from replay.record.finish import begin
from replay.record.merge import Part, merge, parts_in, without_copies
from replay.record.sidecar import Run

PROGRAMS = Path(__file__).resolve().parent / "programs"

SIGSYS = "--- SIGSYS {si_signo=SIGSYS, si_code=SYS_USER_DISPATCH, si_call_addr=0x1, si_syscall=__NR_%s, si_arch=X} ---"


def merged(folder: Path, strace: str | None, *parts: str) -> tuple[list[str], list[int]]:
    """Return the lines of a merged log, and the line of each part's execve; each part is of the process it names."""
    found = []
    for number, text in enumerate(parts):
        path = folder / f"{text.split()[0]}.{number}.log"
        path.write_text(text)
        found.append(Part(path, int(text.split()[0]), number))
    log = folder / "strace.log"
    if strace is not None:
        log.write_text(strace)
    out = io.BytesIO()
    merge(log if strace is not None else None, found, out)
    return out.getvalue().decode().splitlines(), [part.line for part in found]


def test_lines_of_all_logs_come_in_the_order_of_time(tmp_path: Path) -> None:
    one = (
        '7 1.000000001 SYS_execve("/a", 0, 0) = 0\n7 1.000000005 malloc(1) = 0x10\n7 1.000000009 free(0x10) = <void>\n'
    )
    two = "8 1.000000006 malloc(2) = 0x20\n"
    lines, executed = merged(tmp_path, None, one, two)
    assert [line.split()[1][-1] for line in lines] == ["1", "5", "6", "9"]
    assert executed == [1, 0]


def test_a_system_call_of_the_allocator_stands_once_and_inside_its_malloc(tmp_path: Path) -> None:
    strace = (
        '7     1.000000001 execve("/a", ["a"], 0x7ffe /* 1 var */) = 0\n'
        f"7     1.000000004 {SIGSYS % 'brk'}\n"
        "7     1.000000005 brk(NULL) = 0x1000\n"
        "7     1.000000009 munmap(0x2000, 4096) = 0\n"
    )
    shim = (
        '7 1.000000002 SYS_execve("/a", 0, 0) = 0\n'
        "7 1.000000003 malloc(24 <unfinished ...>\n"
        "7 1.000000006 SYS_brk(0) = 0x1000\n"
        "7 1.000000007 <... malloc resumed> ) = 0x1010\n"
    )
    lines, executed = merged(tmp_path, strace, shim)
    assert [line.split(" ", 1)[1].lstrip()[12:] for line in lines] == [
        'execve("/a", ["a"], 0x7ffe /* 1 var */) = 0',
        "malloc(24 <unfinished ...>",
        "SYS_brk(0) = 0x1000",
        "<... malloc resumed> ) = 0x1010",
        "munmap(0x2000, 4096) = 0",
    ]
    assert executed == [1]


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        pytest.param([SIGSYS % "brk", "brk(0) = 1", "brk(0) = 1"], ["brk(0) = 1"], id="the next call alone"),
        pytest.param(
            [SIGSYS % "mmap", "mmap(NULL <unfinished ...>", "<... mmap resumed>) = 1", "mmap(1) = 1"],
            ["mmap(1) = 1"],
            id="both halves of a split call",
        ),
        pytest.param([SIGSYS % "openat", 'openat("a") = 3'], ['openat("a") = 3'], id="only what the library writes"),
        pytest.param([SIGSYS % "futex", "brk(0) = 1"], ["brk(0) = 1"], id="a call that strace does not trace"),
        pytest.param(
            ["--- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP} ---", "brk(0) = 1"],
            ["--- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP} ---", "brk(0) = 1"],
            id="a signal of the program's own",
        ),
    ],
)
def test_what_the_library_wrote_too_is_left_out_of_straces_log(lines: list[str], left: list[str]) -> None:
    found = without_copies([f"7 1.000000001 {line}\n".encode() for line in lines])
    assert [line.decode().split(" ", 2)[2].strip() for line in found] == left


def test_without_dispatch_the_time_tells_what_straces_log_shows_inside_a_malloc(tmp_path: Path) -> None:
    strace = "7     1.000000004 brk(NULL) = 0x1000\n7     1.000000009 munmap(0x2000, 4096) = 0\n"
    shim = (
        "7 1.000000003 malloc(24) = 0x1010 <0.000000003>\n"
        "7 1.000000007 malloc(8) = 0x1030 <0.000000001>\n"
        "8 1.000000009 free(0x1010) = <void> <0.000001000>\n"
    )
    lines, _ = merged(tmp_path, strace, shim)
    assert [line.split(" ", 1)[1].lstrip() for line in lines] == [
        "1.000000003 malloc(24 <unfinished ...>",
        "1.000000004 brk(NULL) = 0x1000",
        "1.000000006 <... malloc resumed> ) = 0x1010",
        "1.000000007 malloc(8) = 0x1030",
        "1.000000009 free(0x1010) = <void>",
        "1.000000009 munmap(0x2000, 4096) = 0",
    ]


def test_a_log_that_was_killed_ends_at_its_last_whole_line(tmp_path: Path) -> None:
    lines, _ = merged(tmp_path, None, "7 1.000000001 malloc(1) = 0x10\n7 1.000000002 mall\0\0\0\0")
    assert lines == ["7 1.000000001 malloc(1) = 0x10"]


def test_frames_and_notes_stay_behind_the_line_that_they_belong_to(tmp_path: Path) -> None:
    one = "7 1.000000001 malloc(1) = 0x10\n > 0x55\n > 0x66\n7 1.000000005 malloc(1) = 0x20\n > 0x77\n"
    lines, _ = merged(tmp_path, None, one, "8 1.000000003 malloc(2) = 0x30\n")
    assert [line.split()[-1] for line in lines] == ["0x10", "[0x55]", "[0x66]", "0x30", "0x20", "[0x77]"]


# --- what is no recording --------------------------------------------------------------------------------------------


def test_a_directory_that_is_no_recording_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceFormatError, match="neither a recording"):
        replay.load(tmp_path)


def test_a_recording_of_a_newer_format_is_said(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"version": 99}')
    with pytest.raises(TraceFormatError, match="needs a newer"):
        replay.load(tmp_path)


# --- programs recorded now -------------------------------------------------------------------------------------------


def run_record(*words: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replay", "record", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600, **options)


def report_on(recording: Path) -> str:
    """Return the first screen of the report on a recording, its lines joined."""
    text = CliRunner().invoke(cli.app, ["report", str(recording), "-q"]).stdout
    return " ".join(text.partition("Allocator\n")[0].split())


@pytest.mark.live
def test_a_program_that_cannot_be_run_ends_as_in_a_shell(tmp_path: Path) -> None:
    for name, text, mode in (
        ("text", "no program", 0o644),
        ("data", "no program", 0o755),
        ("script", "#!/missing", 0o755),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    for program, status in (("./missing", 127), ("./text", 126), ("./data", 126), ("./script", 126)):
        done = run_record(program, cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (status, 1), done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "script", "text"]


live = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc"),
    pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="needs Linux on x86-64"),
]
TOOLS = [
    pytest.param("shim", marks=live),
    pytest.param("auto", marks=[*live, pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]),
]


TRACERS = [
    pytest.param(name, marks=[*live, pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}")])
    for name in ("strace", "ltrace")
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that compiles a source of tests/programs."""

    def compiled(name: str, *flags: str) -> Path:
        target = tmp_path_factory.mktemp(name) / name
        compiler = "musl-gcc" if "musl" in flags else "gcc"
        if shutil.which(compiler) is None:
            pytest.skip(f"needs {compiler}")
        words = ["-O1", "-fno-builtin", "-w", *(flag for flag in flags if flag != "musl")]
        command = [compiler, *words, "-o", str(target), str(PROGRAMS / f"{name}.c"), "-pthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"gcc {' '.join(flags)}: {done.stderr.strip().splitlines()[-1]}")
        return target

    return compiled


@pytest.mark.parametrize("tool", TOOLS)
def test_blocks_are_those_that_the_program_counted(tool: str, program, tmp_path: Path) -> None:
    done = run_record("--tool", tool, "-o", "out", program("mallocs"), cwd=tmp_path)
    assert done.returncode == 7, done.stderr
    told = dict(re.findall(r"(\w+)=(\d+)", done.stdout))
    run = replay.load(tmp_path / "out")
    summary = run.summary.iloc[0]
    assert (summary["unknown_frees"], summary["double_frees"], summary["problems"]) == (0, 0, 0)
    assert (summary["processes"], summary["threads"]) == (4, 12)
    own = run.blocks[(run.blocks["space"] == 0) & (run.blocks["end"] == "live") & (run.blocks["size"] % 1000 == 3)]
    assert (int(own["size"].sum()), len(own)) == (int(told["live"]), int(told["blocks"]))


@pytest.mark.parametrize("tool", TOOLS)
def test_where_the_kernel_has_no_dispatch_strace_tells_what_is_inside_malloc(
    tool: str, program, tmp_path: Path
) -> None:
    """Without strace the calls of malloc are written alone, and that is said."""
    under = [program("without_dispatch"), sys.executable, "-m", "replay", "record", "--tool", tool, "-o", "out"]
    done = subprocess.run([*under, program("mallocs")], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    run = replay.load(tmp_path / "out")
    assert "SYS_brk" not in (tmp_path / "out" / "trace.log").read_text()
    assert (len(run.problems), int(run.summary.iloc[0]["unknown_frees"])) == (0, 0)
    told = dict(re.findall(r"(\w+)=(\d+)", done.stdout))
    own = run.blocks[(run.blocks["space"] == 0) & (run.blocks["end"] == "live") & (run.blocks["size"] % 1000 == 3)]
    assert (int(own["size"].sum()), len(own)) == (int(told["live"]), int(told["blocks"]))
    grown = run.events[(run.events["call"] == "brk") & (run.events["addr"] != 0) & (run.events["space"] == 0)]
    assert (len(grown) > 0) == (tool == "auto") and grown["parent_step"].notna().all()
    assert ("no Syscall User Dispatch" in done.stderr) == (tool == "shim")


@pytest.mark.live
@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="needs a compiler for AArch64")
def test_the_library_is_compiled_and_works_on_another_processor(tmp_path: Path) -> None:
    """There dispatch is not used; qemu runs it, where that is installed."""
    compiler, qemu = "aarch64-linux-gnu-gcc", shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    library, made, logs = tmp_path / "shim.so", tmp_path / "mallocs", tmp_path / "logs"
    subprocess.run([compiler, *libraries.FLAGS, "-Werror", "-o", library, libraries.SHIM], check=True)
    source = PROGRAMS / "mallocs.c"
    subprocess.run([compiler, "-O1", "-fno-builtin", "-w", "-o", made, source, "-pthread"], check=True)
    if qemu is None:
        pytest.skip("needs qemu for AArch64")
    logs.mkdir()
    settings = [f"LD_PRELOAD={library}", f"{shim.DIRECTORY}={logs}", f"{shim.OWN_CALLS}=1"]
    words = [qemu, "-L", "/usr/aarch64-linux-gnu", *(word for one in settings for word in ("-E", one)), made]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7 and len([*logs.glob("*.log")]) == 4
    with open(tmp_path / "trace.log", "wb") as out:
        merge(None, parts_in(logs), out)
    run = replay.load(tmp_path / "trace.log")
    told = dict(re.findall(r"(\w+)=(\d+)", done.stdout))
    own = run.blocks[(run.blocks["space"] == 0) & (run.blocks["end"] == "live") & (run.blocks["size"] % 1000 == 3)]
    assert (int(own["size"].sum()), len(own)) == (int(told["live"]), int(told["blocks"]))


def moments_of(text: str) -> list[list[Mapping]]:
    return [[*join_equal(parse_maps(moment))] for moment in text.split("--\n")[:-1]]


def maps_at_marks(recording: Path) -> list[list[Mapping]]:
    """Return the maps of a recording where its programs printed theirs."""
    run = replay.load(recording)
    marks = run.events[(run.events["call"] == "munmap") & (run.events["length"] == 0x777)]
    return [parse_maps(run.maps(line=line, pid=pid)) for line, pid in zip(marks["line"], marks["pid"], strict=True)]


@pytest.mark.parametrize("flags", ["", "-no-pie", "-static", "-static-pie", "musl", "musl -static"])
@pytest.mark.parametrize("tool", [*TOOLS, *TRACERS])
def test_maps_are_those_of_the_kernel_line_by_line(tool: str, flags: str, program, tmp_path: Path) -> None:
    """The stack and the kernel's own pages too, at each moment at which the program printed its maps."""
    made = program("show_maps", *flags.split())
    done = run_record("--tool", tool, "-o", "out", made, cwd=tmp_path)
    if tool == "ltrace" and "-static" in flags:
        assert (done.returncode, "is static: ltrace cannot run it" in done.stderr) == (1, True)
    elif tool == "shim" and "-static" in flags and not shutil.which("strace"):
        assert done.returncode == 1
    else:
        assert done.returncode == 0, done.stderr
        assert maps_at_marks(tmp_path / "out") == moments_of(done.stdout)


@pytest.mark.parametrize("tool", [*TOOLS, *TRACERS])
def test_so_are_those_of_programs_that_a_program_executes(tool: str, program, tmp_path: Path) -> None:
    """Mind: ltrace 0.7.3 dies of vfork, and nothing is preloaded into what is static."""
    made = program("show_maps")
    commands = {"ltrace": f"exec {made}", "shim": f"{made}; exec {made}"}
    both = f"{made}; {program('show_maps', '-static')}; exec {made}"
    done = run_record("--tool", tool, "-o", "out", "sh", "-c", commands.get(tool, both), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert maps_at_marks(tmp_path / "out") == moments_of(done.stdout)


@pytest.mark.parametrize("tool", [*TOOLS, TRACERS[0]])
def test_what_was_resident_is_what_the_kernel_counted(tool: str, tmp_path: Path) -> None:
    """Touched are 64 MiB; the last pages come and go after the program asked."""
    code = "x = bytes(1 << 26).upper(); print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = run_record("--tool", tool, "-o", "out", sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    resident = int(replay.load(tmp_path / "out").summary.iloc[0]["peak_resident_bytes"])
    assert abs(resident - (int(done.stdout) << 10)) < 1 << 21
    first = report_on(tmp_path / "out")
    assert f"At most {size(resident)} were resident" in first and "Resident memory" not in first


TCACHE_BYTES = 656
"""Of the chunk in which glibc keeps a thread's cache; that of a thread that ended is free, which no call shows."""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("cached", [0, 7])
def test_the_heap_is_what_mallinfo2_says(cached: int, tool: str, program, tmp_path: Path) -> None:
    """To mallinfo2 a chunk in the cache of its thread is in use; 7 of each size may lie there. To us it is free.

    Source: glibc 2.36, malloc.c, int_mallinfo and TCACHE_FILL_COUNT.
    """
    # Dask sets MALLOC_TRIM_THRESHOLD_ for all that its process starts: then arenas give pages back that stay mapped.
    settings = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
    settings |= {"GLIBC_TUNABLES": f"glibc.malloc.tcache_count={cached}"}
    done = run_record("--tool", tool, "-o", "out", program("mallinfo"), cwd=tmp_path, env=settings)
    assert done.returncode == 0, done.stderr
    told = [{name: int(text) for name, text in re.findall(r"(\w+)=(\d+)", line)} for line in done.stdout.splitlines()]
    run = replay.load(tmp_path / "out")
    lines = run.events.loc[(run.events["call"] == "munmap") & (run.events["length"] == 0x777), "line"]
    found = [run.fragmentation[run.fragmentation["line"] <= line].iloc[-1] for line in lines]
    assert [one["heap_bytes"] for one in found] == [one["heap"] for one in told]
    assert [one["live_bytes"] for one in found[:-1]] == [one["live"] for one in told[:-1]]
    in_cache = [one["free_bytes"] - other["free"] for one, other in zip(found, told, strict=True)]
    if cached:
        assert 0 < max(in_cache) <= 7 * sum(range(32, 1041, 16)) and min(in_cache) == 0
    else:
        cache = 0 if oracle.GLIBC >= (2, 43) else TCACHE_BYTES  # 2.43 makes no cache in which nothing may lie
        assert in_cache == [0] * (len(told) - 1) + [-cache]
    assert run.summary.iloc[0]["peak_live_bytes"] == max(one["peak"] for one in told)


BREAKS = {
    "C": (),
    "python": (sys.executable, "-S", "-c", "x = [str(i) * 3 for i in range(100000)]"),
    "perl": ("perl", "-e", '@a = map {"x" . $_} 1 .. 50000'),
    "bash": ("bash", "-c", "for ((i = 0; i < 3000; i++)); do a+=$i; done"),
    "sqlite3": ("sqlite3", ":memory:", "create table t(a); insert into t values (zeroblob(3000000));"),
}


@pytest.mark.skipif(not shutil.which("setarch"), reason="needs setarch")
@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("tool", TOOLS[1:])
def test_the_break_is_where_it_is_without_the_library(tool: str, name: str, program, tmp_path: Path) -> None:
    """To the byte, where addresses are not random. The two variables are part of what the program allocates."""
    command = [*BREAKS[name]] or [str(program("mallinfo"))]
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    settings = os.environ | {"PYTHONHASHSEED": "0"}
    as_many = {"LD_PRELOAQ": str(libraries.library(libraries.SHIM)), "REPLAY_RECORQ": f"{tmp_path}/out/parts"}
    alone = ["setarch", "-R", "strace", "-e", "trace=brk", "-o", "alone.log", *command]
    subprocess.run(alone, cwd=tmp_path, env=settings | as_many, check=True, stdout=subprocess.DEVNULL)
    recorded = ["setarch", "-R", sys.executable, "-m", "replay", "record", "-q", "-o", "out", *command]
    subprocess.run(recorded, cwd=tmp_path, env=settings, check=True, stdout=subprocess.DEVNULL)
    breaks = [
        [int(found, 16) for found in re.findall(r"brk\(.*\) *= (0x\w+)", (tmp_path / log).read_text(errors="replace"))]
        for log in ("alone.log", "out/trace.log")
    ]
    assert breaks[0] == breaks[1] and len(breaks[0]) > 2


@pytest.mark.parametrize("tool", TOOLS)
def test_every_call_that_libc_makes_for_itself_is_seen(tool: str, program, tmp_path: Path) -> None:
    done = run_record("--tool", tool, "-o", "out", program("libc_calls"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    events = replay.load(tmp_path / "out").events
    markers = events.index[(events["call"] == "malloc_usable_size")]
    unseen = [
        name
        for name, first, last in zip(done.stdout.split(), markers[:-1], markers[1:], strict=True)
        if not events.loc[first:last, "call"].isin(["malloc", "calloc", "realloc", "reallocarray"]).any()
    ]
    assert unseen == []


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("name", [pytest.param("stacks", marks=live)])
def test_what_the_recorder_maps_for_itself_is_told_apart(name: str, program, tmp_path: Path) -> None:
    """The rest is what strace alone sees mapped in the same program; that does not see the stack."""
    made = program(name)
    for tool in ("auto", "strace"):
        assert run_record("--tool", tool, "-o", tool, made, cwd=tmp_path).returncode == 0
    recorded, alone = (replay.load(tmp_path / tool) for tool in ("auto", "strace"))

    def mapped(run: replay.Run) -> dict[str, int]:
        peak, rows = run.summary.iloc[0], run.regions
        line = peak["peak_mapped_line"]
        there = (rows["born_line"] <= line) & ~(rows["died_line"] <= line).fillna(False)
        rows = rows[there & (rows["space"] == peak["peak_mapped_space"])]
        owner = rows["owner"].astype(str)
        return rows.groupby(owner.where(owner.isin(["recorder", "[stack]"]), "program"))["size_bytes"].sum().to_dict()

    assert mapped(recorded)["program"] == mapped(alone)["program"]
    assert mapped(recorded)["recorder"] == recorded.summary.iloc[0]["recorder_bytes"] > 1 << 20
    assert alone.summary.iloc[0]["recorder_bytes"] == 0


UNSEEN_AFTERWARDS = {
    "handle": "handles SIGSYS itself",
    "seccomp": "confines itself by seccomp",
    "raw_seccomp": "confines itself by seccomp",
    "seccomp_fork": "confines itself by seccomp",
    "drop": "ran without the library",
}


@pytest.mark.parametrize(
    "way", ["block", "raw_block", "handle", "seccomp", "raw_seccomp", "seccomp_fork", "raw_fork", "vfork", "drop"]
)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_recorded_program_ends_as_it_would_alone(tool: str, way: str, program, tmp_path: Path) -> None:
    made = program("signals")
    alone = subprocess.run([made, way], capture_output=True, text=True, check=False)
    done = run_record("--tool", tool, "-o", "out", made, way, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    said = UNSEEN_AFTERWARDS.get(way, "") if way != "drop" or tool == "auto" else ""
    assert said in done.stderr and ("is not recorded" in done.stderr) == ("seccomp" in way or "without" in said)
    assert said in report_on(tmp_path / "out")
    summary = replay.load(tmp_path / "out").summary.iloc[0]
    assert (summary[["unknown_frees", "problems"]].fillna(0) == 0).all()
    processes = {
        "seccomp_fork": summary["processes"],
        "raw_fork": 2,
        "vfork": 2,
        "drop": 2 if tool == "auto" else summary["processes"],
    }
    assert summary["processes"] == processes.get(way, 1)
    if "seccomp" not in way:
        assert summary["live_bytes"] >= 4000 * 5000


@pytest.mark.parametrize("tool", TOOLS)
def test_the_children_of_a_program_that_writes_over_its_environment_are_recorded(
    tool: str, program, tmp_path: Path
) -> None:
    """As those do that set a title for ps: the library keeps what it read there."""
    done = run_record("--tool", tool, "-o", "out", program("signals"), "title", cwd=tmp_path)
    assert done.returncode == 5, done.stderr
    blocks = replay.load(tmp_path / "out").blocks
    assert (blocks["size"] == 5000).groupby(blocks["space"]).sum().ge(2000).tolist() == [True, True]


@pytest.mark.parametrize("way", ["alarm", "jump", "threads"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_signal_that_comes_while_malloc_runs_is_handled_behind_it(
    tool: str, way: str, program, tmp_path: Path
) -> None:
    """Blocks of 77 bytes are asked for by handlers alone: alone the program may hang or end in a corrupted heap."""
    done = run_record("--tool", tool, "-o", "out", program("handlers"), way, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    run = replay.load(tmp_path / "out")
    asked = int((run.blocks["size"][run.blocks["space"] == 0] == 77).sum())
    assert done.stdout == f"handled={asked}\n" and asked
    assert (run.summary[["unknown_frees", "double_frees", "problems"]] == 0).all(axis=None)


@pytest.mark.parametrize("way", ["fault", "query", "once", "fork"])
@pytest.mark.parametrize("tool", TOOLS)
def test_handlers_are_to_the_program_what_it_set(tool: str, way: str, program, tmp_path: Path) -> None:
    made = program("handlers")
    alone = subprocess.run([made, way], capture_output=True, text=True, check=False)
    done = run_record("--tool", tool, "-o", "out", made, way, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    assert (replay.load(tmp_path / "out").summary[["unknown_frees", "problems"]] == 0).all(axis=None)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_program_that_is_killed_is_recorded_to_its_last_call(tool: str, program, tmp_path: Path) -> None:
    done = run_record("--tool", tool, "-o", "out", program("signals"), "kill", cwd=tmp_path)
    assert done.returncode == -9
    summary = replay.load(tmp_path / "out").summary.iloc[0]
    assert (int(summary["problems"]), int(summary["live_bytes"]) // 5000, summary["log_end"]) == (0, 4000, "killed")
    first = report_on(tmp_path / "out")
    assert "of a recording, " in first
    assert "Leak: the program was killed before it could free the rest" in first
    assert "replay record PROG" not in first and "ltrace" not in first


@pytest.mark.parametrize("tool", TOOLS)
def test_a_program_that_ends_without_libc_is_not_cut(tool: str, program, tmp_path: Path) -> None:
    done = run_record("--tool", tool, "-o", "out", program("signals"), "raw_exit", cwd=tmp_path)
    assert (done.returncode, replay.load(tmp_path / "out").summary.iloc[0]["log_end"]) == (6, "exit")


@pytest.mark.parametrize("tool", TOOLS)
def test_frames_name_the_functions_that_asked(tool: str, program, tmp_path: Path) -> None:
    done = run_record("--tool", tool, "--stacks", "3", "-o", "out", program("stacks"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "trace.log").read_text()
    stacks = re.findall(r" malloc\((10[012]|4)\) = .*\n > \S+\((\w+)\+\S+ \[0x\w+\]\n > \S+\((\w+)", text)
    assert stacks == [*((str(size), "leak_here", "three_times") for size in (100, 101, 102)), ("4", "strdup", "main")]
    events = replay.load(tmp_path / "out").events
    assert [*events.loc[events["length"].isin([100, 101, 102, 4]), "caller"]] == ["stacks"] * 3 + ["strdup"]


def test_strace_alone_writes_the_stacks_that_are_asked_for(program, tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert run_record("--tool", "strace", "--stacks", "3", "-o", "out", program("stacks"), cwd=tmp_path).returncode == 0
    assert re.search(r"\d+ +\S+ brk\(.*\n > .*libc.*\n", (tmp_path / "out" / "trace.log").read_text())


@pytest.mark.parametrize("tool", TOOLS)
def test_a_program_that_no_library_is_preloaded_into_is_said(tool: str, program, tmp_path: Path) -> None:
    done = run_record("--tool", tool, "-o", "out", program("stacks", "-static"), cwd=tmp_path)
    assert done.returncode == (0 if shutil.which("strace") else 1)
    assert "is static: nothing is preloaded into it" in done.stderr
    if done.returncode == 0:
        first = report_on(tmp_path / "out")
        assert "malloc could not be recorded: " in first and "replay record PROG" not in first


@pytest.mark.parametrize("tool", TOOLS[1:])
def test_a_program_with_its_own_malloc_is_said_wherever_it_runs(tool: str, program, tmp_path: Path) -> None:
    made = program("own_malloc")
    for name, command in (("it", [made]), ("child", ["sh", "-c", f"{made}; exit 0"])):
        done = run_record("--tool", tool, "-o", name, *command, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "own\n")
        assert f"{made} defines malloc itself: its calls do not reach what is preloaded" in done.stderr
        assert "defines malloc itself" in report_on(tmp_path / name)


@pytest.mark.parametrize("tool", TOOLS[1:])
@pytest.mark.parametrize("flags", [["-static"], []])
def test_what_such_a_program_executes_is_recorded(tool: str, flags: list[str], program, tmp_path: Path) -> None:
    first, then = program("own_malloc", *flags), program("stacks")
    done = run_record("--tool", tool, "-o", "out", first, then, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = replay.load(tmp_path / "out")
    assert set(run.blocks["space"]) == {1} and {100, 101, 102} <= set(run.blocks["size"]) and len(run.problems) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes such a program")
@pytest.mark.parametrize("tool", TOOLS[1:])
def test_a_set_id_program_has_its_rights_or_it_is_said(tool: str, tmp_path: Path) -> None:
    """As a child it would need a trace without a filter, of all system calls."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "id"
        shutil.copy("/usr/bin/id", made)
        os.chown(made, 65534, 0)
        made.chmod(0o4755)
        alone = subprocess.run([made, "-u"], capture_output=True, text=True, check=True).stdout
        first = run_record("--tool", tool, "-o", "first", made, "-u", cwd=tmp_path)
        child = run_record("--tool", tool, "-o", "child", "sh", "-c", f"{made} -u; exit 0", cwd=tmp_path)
    said = "is set-id: being traced, it ran without the rights that it gains"
    assert (first.stdout, said in first.stderr, "is set-id" in first.stderr) == (alone, False, True)
    assert child.stdout == alone or said in child.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up rights")
@pytest.mark.parametrize("tool", TOOLS)
def test_a_program_that_gives_up_its_rights_is_recorded_on(tool: str) -> None:
    code = (
        "import os; os.setuid(65534); os.fork(); x = [bytes(7777) for _ in range(100)]; os.wait() if os.fork() else 0"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        done = run_record("--tool", tool, "-o", "out", "/usr/bin/python3", "-c", code, cwd=Path(folder))
        blocks = replay.load(Path(folder) / "out").blocks
    assert "recorded any further" not in done.stderr
    assert (blocks["size"] >= 7777).groupby(blocks["space"]).sum().ge(100).sum() >= 2


@pytest.mark.live
@pytest.mark.skipif(not shutil.which("ltrace"), reason="needs ltrace")
@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("kill -TERM $$", -15)])
def test_under_ltrace_too_the_end_is_that_of_the_program(command: str, status: int, tmp_path: Path) -> None:
    done = run_record("--tool", "ltrace", "-o", "out", "sh", "-c", command, cwd=tmp_path)
    assert (done.returncode, len(replay.load(tmp_path / "out").problems)) == (status, 0)


@pytest.mark.parametrize("tool", TOOLS[1:])
def test_a_child_of_other_width_is_named(tool: str, program, tmp_path: Path) -> None:
    made = program("stacks", "-m32")
    done = run_record("--tool", tool, "-q", "-o", "out", "sh", "-c", f"{made}; exit 2", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{made} ran without the library: its malloc is not recorded (it is not of 64 bits" in done.stderr
    assert "recorded by" not in done.stderr


def test_a_batch_takes_the_log_of_a_recording_alone(tmp_path: Path) -> None:
    for name in ("a/trace.log", "a/record.json", "b/trace.log", "b/other.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [run.name for run in find_runs([str(tmp_path)])] == ["a/trace.log", "b/other.json", "b/trace.log"]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("sent", ["TERM", "USR1"])
def test_a_signal_reaches_the_program_and_its_death_is_ours(sent: str, tool: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "replay",
        "record",
        "--tool",
        tool,
        "-o",
        "out",
        "sh",
        "-c",
        "echo ready; read line",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        number = signal.Signals[f"SIG{sent}"]
        process.send_signal(number)
        assert process.wait(timeout=600) == -number
    assert len(replay.load(tmp_path / "out").problems) == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_an_interrupted_recording_is_said_and_can_be_finished(tool: str, program, tmp_path: Path) -> None:
    assert run_record("--tool", tool, "-o", "out", program("stacks"), cwd=tmp_path).returncode == 0
    whole = (tmp_path / "out" / "trace.log").read_text()
    (tmp_path / "out" / "parts").mkdir()
    (tmp_path / "out" / "record.json").unlink()
    with pytest.raises(TraceFormatError, match="record --finish"):
        replay.load(tmp_path / "out")
    (tmp_path / "out" / "trace.log").unlink()
    begin(tmp_path / "out", Run(["stacks"], "shim", "asked for", "", 0.0))
    lines = whole.splitlines(keepends=True)
    (tmp_path / "out" / "parts" / f"{lines[0].split()[0]}.0.log").write_text("".join(lines) + "7 1.0 mall\0\0\0")
    assert run_record("--finish", "out", cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "trace.log").read_text() == whole
    assert len(replay.load(tmp_path / "out").problems) == 0
