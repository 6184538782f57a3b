"""The image that execve made of a program, from the files of the program and of its loader.

In go the files and the first calls of a fresh space, out come its first mappings: no call shows those. The calls place
the files: the loader protects the relocated part (RELRO) of each, and no mmap of the log made that memory.

Source: fs/binfmt_elf.c, load_elf_binary; glibc, elf/dl-reloc.c, _dl_protect_relro; proc_pid_maps(5).
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np

from replay.calls.windows import CallWindows
from replay.engine.columns import NO_TEXT, NULL, Int64Array, Strings
from replay.engine.structs import Struct, field
from replay.linux.constants import CALL_CODE
from replay.linux.elf import ElfFile, read_elf
from replay.linux.proc_maps import Mapping as MapsLine
from replay.mm.fields import ORIGIN_INFERRED
from replay.spaces.initial_maps import Image, Images
from replay.spaces.processes import Processes, SpaceLife

FIRST_STEPS: Final = 1 << 16
"""Within so many steps of the run the loader of a space has done its work. Heuristic: others run beside it."""

FIRST_CALLS: Final = 4096
"""And among so many memory calls of its own. Heuristic: a browser of 200 libraries makes 2,000."""

BRK_RANDOMNESS: Final = 1 << 30
"""The break begins at most so far above the program. Source: arch/x86/kernel/process.c, arch_randomize_brk (5.18)."""

VDSO_BYTES: Final = 0x2000
"""The executable part at the top of what the kernel maps for reading clocks. Heuristic: x86, all versions looked at."""

MOST_VDSO_BYTES: Final = 64 << 12
VSYSCALL: Final = MapsLine(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, "--xp", 0, "[vsyscall]")
"""Source: arch/x86/entry/vsyscall/vsyscall_64.c, gate_vma (execute only is the default)."""

X86_64: Final = 62
_MOST_SCRIPTS: Final = 4
"""An interpreter of a script may be a script, so many times. Source: fs/exec.c, bprm_execve (5 levels)."""

_BRK, _MMAP, _MPROTECT = (CALL_CODE[name] for name in ("brk", "mmap", "mprotect"))
_PROT_READ = 1
_COLUMNS = ("call", "addr", "length", "prot", "result", "status", "injected", "pid")


class Range(NamedTuple):
    """A range `[start, end)` of addresses."""

    start: int
    end: int


def images_of_files(strings: Strings, page: int, root: str = "/") -> Images:
    """Return what tells the images of spaces that begin with an execve, from the files below `root`."""
    root = "" if root == "/" else os.path.realpath(root)

    def images(windows: CallWindows, who: Processes) -> dict[int, Image]:
        begun = {life.space: life for life in who.lives if life.origin == "exec" and life.program != NO_TEXT}
        found = {space: _files_of(_program_of(life, who.lives, strings), root) for space, life in begun.items()}
        files = {space: there for space, there in found.items() if there is not None}
        told = _first_calls(windows, who, [begun[space] for space in files], page)
        return {space: _image(there, told[space]) for space, there in files.items()}

    return images


# --- the files -------------------------------------------------------------------------------------------------------


class Files(NamedTuple):
    """The program that an execve loads, and the loader that it names, if any; paths are as maps prints them."""

    program: ElfFile
    loader: ElfFile | None


def _program_of(life: SpaceLife, lives: list[SpaceLife], strings: Strings) -> str:
    """Return the path of the program with which a space begins, empty where it is that of no file here.

    `/proc/self/exe` is the program of who called execve; other links of /proc and descriptors are of that moment only.
    Source: proc_pid_exe(5).
    """
    path = strings[life.program]
    while path in _OWN_PROGRAM and life.parent != NULL:
        life = lives[life.parent]
        if life.program != NO_TEXT:
            path = strings[life.program]
    return "" if path.startswith(_OF_THE_MOMENT) else path


_OWN_PROGRAM: Final = ("/proc/self/exe", "/proc/thread-self/exe")
_OF_THE_MOMENT: Final = ("/proc/", "/dev/fd/")


def _files_of(path: str, root: str) -> Files | None:
    """Return the files of an execve of `path` below `root`, None where they are not there or no ELF files.

    What a path is relative to the log does not tell: here it is where replay runs, which the calls then must confirm.
    """
    for _ in range(_MOST_SCRIPTS if path else 0):
        interpreter = _script_interpreter(_below(root, path))
        if not interpreter:
            break
        path = interpreter
    program = _read(path, root) if path else None
    if program is None:
        return None
    loader = _read(program.interpreter, root) if program.interpreter else None
    return None if program.interpreter and loader is None else Files(program, loader)


def _read(path: str, root: str) -> ElfFile | None:
    """Return a file of which the path is the one behind all links, as maps prints it."""
    real = os.path.realpath(_below(root, path))
    found = read_elf(real)
    return None if found is None else found._replace(path=real.removeprefix(root))


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.lstrip("/")) if root else path


def _script_interpreter(path: str) -> str:
    """Return the interpreter that a script's first line names, empty for other files. Source: fs/binfmt_script.c."""
    try:
        with open(path, "rb") as file:
            head = file.read(256)
    except (OSError, ValueError):
        return ""
    if not head.startswith(b"#!"):
        return ""
    words = head[2:].split(b"\n")[0].split()
    return os.fsdecode(words[0]) if words else ""


# --- the calls -------------------------------------------------------------------------------------------------------


class Ranges(Struct):
    """A set of addresses, as ranges that do not touch, in order."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, start: int, end: int) -> None:
        """Put `[start, end)` in."""
        low, high = bisect_left(self.ends, start), bisect_right(self.starts, end)
        if low < high:
            start, end = min(start, self.starts[low]), max(end, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [start], [end]

    def meets(self, start: int, end: int) -> bool:
        """Tell whether any of `[start, end)` is in."""
        place = bisect_right(self.ends, start)
        return place < len(self.starts) and self.starts[place] < end


class FirstCalls(Struct):
    """What the first calls of a space tell of its image.

    start_brk: the first answer of brk, NULL if there is none. mapped: what mmap gave; placed: that of which the kernel
    chose the place. protected: what was made read-only where no mmap had given anything. Both are in order of calls.
    """

    page: int
    rows: int = 0
    start_brk: int = NULL
    mapped: Ranges = field(default_factory=Ranges)
    placed: list[Range] = field(default_factory=list)
    protected: list[Range] = field(default_factory=list)

    def add(self, call: int, addr: int, length: int, prot: int, result: int) -> None:
        """Take up one call that succeeded, unless there were many."""
        self.rows += 1
        if self.rows > FIRST_CALLS:
            return
        size = -(-length // self.page) * self.page
        if call == _BRK and self.start_brk == NULL:
            self.start_brk = result
        elif call == _MMAP:
            self.mapped.add(result, result + size)
            if addr == 0:
                self.placed.append(Range(result, result + size))
        elif call == _MPROTECT and prot == _PROT_READ and not self.mapped.meets(addr, addr + size):
            self.protected.append(Range(addr, addr + size))


def _overlap(one: Range, other: Range) -> bool:
    return one.start < other.end and other.start < one.end


def _first_calls(windows: CallWindows, who: Processes, lives: Iterable[SpaceLife], page: int) -> dict[int, FirstCalls]:
    """Return the first calls of some spaces, by space."""
    waiting = {life.space: life for life in lives}
    told = {space: FirstCalls(page) for space in waiting}
    for number in range(windows.calls.parts):
        first = windows.calls.starts[number]
        waiting = {space: life for space, life in waiting.items() if first < life.born_step + FIRST_STEPS}
        if not waiting:
            break
        _listen(windows.calls.part(number, _COLUMNS), first, who, told, waiting)
    return told


def _listen(
    part: Mapping[str, Int64Array],
    first: int,
    who: Processes,
    told: Mapping[int, FirstCalls],
    waiting: Mapping[int, SpaceLife],
) -> None:
    """Let each waiting space take up its calls of a window."""
    chosen = np.isin(part["call"], (_BRK, _MMAP, _MPROTECT)) & (part["status"] == 0) & (part["injected"] != 1)
    rows = np.flatnonzero(chosen)
    steps = rows + first
    spaces = who.spaces_of(who.tids_of(part["pid"][rows], steps), steps)
    mine = np.isin(spaces, list(waiting))
    rows, steps, spaces = rows[mine], steps[mine], spaces[mine]
    columns = [part[name][rows].tolist() for name in ("call", "addr", "length", "prot", "result")]
    for space, step, *values in zip(spaces.tolist(), steps.tolist(), *columns, strict=True):
        if step < waiting[space].born_step + FIRST_STEPS and told[space].rows <= FIRST_CALLS:
            told[space].add(*values)


# --- the image -------------------------------------------------------------------------------------------------------


def _image(files: Files, calls: FirstCalls) -> Image:
    """Return the image that the files make where the calls place them; without mappings where the calls do not."""
    program, loader = files
    base = _base_of_program(program, calls)
    if base is None:
        return Image((), ORIGIN_INFERRED, misfit=program.path if _contradicts(program, calls) else "")
    lines = program.mappings(base, calls.page)
    loader_base = None if loader is None else _base_of_loader(loader, program, base, calls)
    if loader is not None and loader_base is not None:
        lines += loader.mappings(loader_base, calls.page)
    lines += _clock_pages(base if loader is None and program.is_movable else loader_base, calls)
    if program.machine == X86_64 and program.bits == 64:
        lines.append(VSYSCALL)
    told_by = (program.path,) if loader is None or loader_base is None else (program.path, loader.path)
    return Image(sorted(lines), ORIGIN_INFERRED, told_by)


def _base_of_program(program: ElfFile, calls: FirstCalls) -> int | None:
    """Return where a program was loaded, None where the calls do not tell or the file is another one."""
    if not program.is_movable:
        return 0 if _lies_as_it_says(program, calls) else None
    bases = _bases_by_relro(program, calls)
    if program.interpreter:
        bases = [base for base in bases if _break_follows(program, base, calls)]
        return max(bases, default=None)  # the nearest to the break: the loader's RELRO may be as long
    return bases[0] if len(bases) == 1 else None


def _lies_as_it_says(program: ElfFile, calls: FirstCalls) -> bool:
    """Tell whether the calls fit a program that names its own addresses.

    One without a loader need not ask for the break (Go's do not): then it fits where nothing was mapped in its place.
    """
    if calls.start_brk != NULL or program.interpreter:
        return _break_follows(program, 0, calls) and _relro_fits(program, calls)
    own = Range(*program.span(calls.page))
    return not any(_overlap(own, other) for other in calls.placed) and _relro_fits(program, calls)


def _base_of_loader(loader: ElfFile, program: ElfFile, program_base: int, calls: FirstCalls) -> int | None:
    """Return where the loader was loaded: where a part as long as its RELRO was protected, outside the program."""
    low, high = program.span(calls.page)
    own = Range(program_base + low, program_base + high)
    bases = [
        base for base in _bases_by_relro(loader, calls)
        if not _overlap(own, Range(*(base + edge for edge in loader.span(calls.page))))
    ]  # fmt: skip
    return max(bases, default=None)


def _bases_by_relro(file: ElfFile, calls: FirstCalls) -> list[int]:
    """Return where a file would have to lie for its RELRO to be what was protected, and for no mmap to lie in it."""
    relro = file.relro(calls.page)
    if relro is None:
        return []
    low, high = file.span(calls.page)
    bases = [start - relro[0] for start, end in calls.protected if end - start == relro[1] - relro[0]]
    return [
        base for base in dict.fromkeys(bases)
        if base > 0 and not any(_overlap(Range(base + low, base + high), other) for other in calls.placed)
    ]  # fmt: skip


def _break_follows(program: ElfFile, base: int, calls: FirstCalls) -> bool:
    """Tell whether the break begins where that of this program does."""
    end = base + program.span(calls.page)[1]
    return calls.start_brk != NULL and end <= calls.start_brk + calls.page <= end + BRK_RANDOMNESS + 2 * calls.page


def _relro_fits(program: ElfFile, calls: FirstCalls) -> bool:
    """Tell whether all that was protected within a program that lies where it says is its RELRO."""
    own, relro = Range(*program.span(calls.page)), program.relro(calls.page)
    return all(made == relro for made in calls.protected if _overlap(own, made))


def _contradicts(program: ElfFile, calls: FirstCalls) -> bool:
    """Tell whether the calls show a program, and it is not the one of the file."""
    if calls.start_brk == NULL:
        return False
    if not program.is_movable:
        return True
    low, high = program.span(calls.page)
    within = Range(calls.start_brk - BRK_RANDOMNESS - (high - low), calls.start_brk)
    return bool(program.interpreter) and any(_overlap(within, made) for made in calls.protected)


def _clock_pages(loader_start: int | None, calls: FirstCalls) -> list[MapsLine]:
    """Return the pages for reading clocks, which end where the loader begins; the first mmap ends where they begin.

    Source: arch/x86/entry/vdso/vma.c, map_vdso (Linux 6.18): get_unmapped_area places them below what is there. Where
    an older kernel put them beside the stack, no call tells of them.
    """
    if loader_start is None:
        return []
    below = [made.end for made in calls.placed[:1] if VDSO_BYTES < loader_start - made.end <= MOST_VDSO_BYTES]
    if not below:
        return []
    vdso = loader_start - VDSO_BYTES
    return [MapsLine(below[0], vdso, "r--p", 0, "[vvar]"), MapsLine(vdso, loader_start, "r-xp", 0, "[vdso]")]
