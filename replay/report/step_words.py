"""What each step did, in words: `brk grew by 132 KiB to 0x…`, `mmap 8 KiB rw-p at 0x… anonymous`.

In go the columns of a run, out comes a sentence for each of some steps. How a list of steps is laid out is not known
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from replay.calls.reader import FAILED, OK
from replay.console.amounts import address, number, size
from replay.engine.columns import NO_TEXT, NULL, Int64Array, to_unsigned
from replay.linux import constants
from replay.linux.flag_words import flags_text
from replay.linux.proc_maps import perms_text

if TYPE_CHECKING:
    from replay.run.api import Run

_PERMS: Final = tuple((perms_text(prot, False), perms_text(prot, True)) for prot in range(8))
"""The permissions in letters, by PROT_ bits and sharing."""

_MALLOC: Final = constants.CALL_CODE["malloc"]
"""The first call of the malloc family: those after it are calls of the libc."""

_BRK: Final = constants.CALL_CODE["brk"]
_FIXED: Final = constants.MAP_FLAGS["MAP_FIXED"]
_SHARED: Final = (1, 3)
_ANONYMOUS: Final = constants.MAP_FLAGS["MAP_ANONYMOUS"]


class _Step(NamedTuple):
    """One step: what its columns say."""

    step: int
    call: int
    status: int
    errno: int
    addr: int
    length: int
    old_length: int
    prot: int
    flags: int
    new_addr: int
    result: int
    path: int
    result_path: int
    fd: int
    space: int
    aux: int
    aux2: int
    injected: int


class StepWords:
    """Words the steps of a run."""

    def __init__(self, run: Run) -> None:
        """Look up what steps did besides what their call says."""
        self.run = run
        self.strings = run.strings
        self.page = run.replayed.page_size
        brks = run.replayed.brks
        self.brk_row = dict(zip(brks["step"].tolist(), range(len(brks["step"])), strict=True))
        self.brk_moves = list(zip(brks["before"].tolist(), brks["granted"].tolist(), strict=True))
        regions = run.replayed.regions
        died = regions["died_line"] != NULL
        span = max(run.replayed.last_clock, int(regions["died_line"].max(initial=0))) + 2
        self._span = span
        ends = regions["space"][died] * span + regions["died_line"][died]
        self._dead, self._died = np.unique(ends, return_counts=True)
        self.born_spaces = dict(
            zip(run.replayed.spaces["born_step"].tolist(), run.replayed.spaces["space"].tolist(), strict=True)
        )
        self._by_call = [_WORDS.get(name, _other) for name in constants.CALLS]

    def of(self, rows: Int64Array) -> Iterator[str]:
        """Yield the words for each of the steps `rows`."""
        events = self.run.replayed.events
        ended = self._ended(events["space"][rows], events["entry_clock"][rows], events["clock"][rows])
        values = zip(*(events[name][rows].tolist() for name in _Step._fields), strict=True)
        for step, count in zip(map(_Step._make, values), ended, strict=True):
            if step.status == OK or step.call == _BRK:
                yield self._by_call[step.call](self, step, count)
            elif step.status == FAILED and step.call < _MALLOC:
                yield self.failed(step)
            elif step.status == FAILED:
                yield f"{constants.CALLS[step.call]}{_requested(step)}: failed"
            else:
                yield f"{constants.CALLS[step.call]}{self.asked(step)}: the log does not show its end"

    def _ended(self, spaces: Int64Array, entries: Int64Array, clocks: Int64Array) -> list[int]:
        """Return how many rectangles of the space ended at the line where each call began or completed."""
        total = np.zeros(len(spaces), np.int64)
        for at in (clocks, np.where(entries == clocks, -1, entries)):
            keys = spaces * self._span + at
            place = np.searchsorted(self._dead, keys)
            place = np.minimum(place, max(len(self._dead) - 1, 0))
            if len(self._dead):
                total += np.where((self._dead[place] == keys) & (at >= 0), self._died[place], 0)
        return total.tolist()

    # --- pieces of sentences ---

    def failed(self, step: _Step) -> str:
        """Return the words for a call that failed: nothing changed."""
        error = constants.ERRNO_NAME.get(step.errno, f"errno {step.errno}") if step.errno > 0 else "no reason printed"
        injected = ", injected" if step.injected == 1 else ""
        return f"{constants.CALLS[step.call]}{self.asked(step)} failed: {error}{injected}"

    def asked(self, step: _Step) -> str:
        """Return the size, place or path that a call names, as far as it does."""
        text = f" {size(step.length)}" if step.length not in (NULL, 0) else ""
        name = constants.CALLS[step.call]
        if name in _PATH_CALLS and step.path != NO_TEXT:
            return f" {self.strings[step.path]}"
        if step.addr not in (NULL, 0):
            text += f" at {address(step.addr)}"
        return text

    def pages(self, length: int) -> int:
        """Return a length rounded up to whole pages, in bytes."""
        return -(-length // self.page) * self.page

    def path_of(self, text_id: int) -> str:
        """Return a path's last part, empty for none."""
        return PurePath(self.strings[text_id]).name if text_id != NO_TEXT else ""


_Worder: TypeAlias = Callable[[StepWords, _Step, int], str]


_PATH_CALLS: Final = ("open", "openat", "openat2", "creat", "unlink", "execve", "execveat", "memfd_create")


def _other(words: StepWords, step: _Step, ended: int) -> str:
    result = f" = {address(step.result) if abs(step.result) > 1 << 20 else step.result}" if step.result != NULL else ""
    return f"{constants.CALLS[step.call]}{words.asked(step)}{result}"


def _brk(words: StepWords, step: _Step, ended: int) -> str:
    row = words.brk_row.get(step.step)
    if row is None:
        who = "the tracer answered (injected)" if step.injected == 1 else "the log does not show its result"
        return f"brk{words.asked(step)}: {who}"
    before, granted = words.brk_moves[row]
    if step.addr == 0:
        return f"brk asked where the break is: {address(granted)}"
    if granted != step.addr:
        wanted = f"{size(step.addr - granted)} more" if step.addr > granted else "to go below its start"
        return f"brk refused: wanted {wanted}, stays at {address(granted)}"
    return _brk_move(before, granted, ended)


def _brk_move(before: int, granted: int, ended: int) -> str:
    if before == NULL:
        return f"brk set to {address(granted)}"
    if granted < before:
        return f"brk shrank by {size(before - granted)} to {address(granted)}{_ended(ended)}"
    return f"brk grew by {size(granted - before)} to {address(granted)}"


def _mmap(words: StepWords, step: _Step, ended: int) -> str:
    flags = max(step.flags, 0)
    perms = _PERMS[max(step.prot, 0) & 7][flags & 3 in _SHARED]
    backing = "anonymous" if flags & _ANONYMOUS else "a file" if step.fd < 0 else f"file {step.fd}"
    what = words.path_of(step.path) or backing
    over = f", over {number(ended, 'region')}" if ended and flags & _FIXED else ""
    return f"mmap {size(words.pages(max(step.length, 0)))} {perms} at {address(step.result)} {what}{over}"


def _munmap(words: StepWords, step: _Step, ended: int) -> str:
    text = f"munmap {size(words.pages(max(step.length, 0)))} at {address(step.addr)}"
    return text + (_ended(ended) if ended else ": nothing known there")


def _ended(count: int) -> str:
    return f": {number(count, 'region')} ended" if count else ""


def _mremap(words: StepWords, step: _Step, ended: int) -> str:
    moved = f"moved to {address(step.result)}" if step.result != step.addr else "in place"
    old, new = words.pages(max(step.old_length, 0)), words.pages(max(step.length, 0))
    return f"mremap {address(step.addr)}, {size(old)}, to {size(new)} {moved}"


def _mprotect(words: StepWords, step: _Step, ended: int) -> str:
    perms = _PERMS[step.prot & 7][0][:3] if step.prot >= 0 else "?"
    name = constants.CALLS[step.call]
    return f"{name} {size(words.pages(max(step.length, 0)))} at {address(step.addr)} to {perms}"


def _madvise(words: StepWords, step: _Step, ended: int) -> str:
    advice = flags_text("madvise", step.flags).removeprefix("MADV_") if step.flags != NULL else "?"
    return f"madvise {advice} {size(max(step.length, 0))} at {address(step.addr)}"


def _shmat(words: StepWords, step: _Step, ended: int) -> str:
    return f"shmat segment {step.aux} at {address(step.result)}"


def _shmdt(words: StepWords, step: _Step, ended: int) -> str:
    return f"shmdt {address(step.addr)}{_ended(ended)}"


def _execve(words: StepWords, step: _Step, ended: int) -> str:
    program = words.strings[step.path] if step.path != NO_TEXT else "?"
    return f"{constants.CALLS[step.call]} {program}: a new address space"


def _fork(words: StepWords, step: _Step, ended: int) -> str:
    name = constants.CALLS[step.call]
    if step.result in (0, NULL):
        return f"{name} returned in the child"
    born = words.born_spaces.get(step.step)
    if born is not None and born != step.space:
        return f"{name}: {step.result} runs in space {born}, a copy"
    if name == "vfork" or max(step.flags, 0) & constants.CLONE["CLONE_VM"]:
        return f"{name}: {step.result} shares space {step.space}"
    return f"{name}: {step.result} gets a copy of space {step.space}, not seen in the log"


def _exit(words: StepWords, step: _Step, ended: int) -> str:
    status = f" {step.aux}" if step.aux != NULL else ""
    gone = f": space {step.space} ends" if _ends_space(words, step) else ""
    return f"exit{status}{gone}"


def _ends_space(words: StepWords, step: _Step) -> bool:
    spaces = words.run.replayed.spaces
    return 0 <= step.space < len(spaces["space"]) and int(spaces["died_step"][step.space]) == step.step


def _prlimit(words: StepWords, step: _Step, ended: int) -> str:
    names = {value: name for name, value in constants.RLIMIT.items()}
    resource = names.get(step.aux2, f"resource {step.aux2}" if step.aux2 != NULL else "a limit")
    if step.aux == NULL:
        return f"prlimit asked for {resource}"
    value = "unlimited" if step.aux >= constants.RLIM_INFINITY else size(step.aux)
    return f"prlimit set {resource} to {value}"


def _prctl(words: StepWords, step: _Step, ended: int) -> str:
    names = {value: name for name, value in constants.PR.items()}
    option = names.get(step.aux, str(step.aux) if step.aux != NULL else "")
    name = f' "{words.strings[step.path]}"' if step.path != NO_TEXT else ""
    return f"prctl {option}{name}{words.asked(step) if step.addr not in (NULL, 0) else ''}"


def _open(words: StepWords, step: _Step, ended: int) -> str:
    path = step.result_path if step.result_path != NO_TEXT else step.path
    name = words.strings[path] if path != NO_TEXT else "a file"
    return f"{constants.CALLS[step.call]} {name} as {step.result}"


def _close(words: StepWords, step: _Step, ended: int) -> str:
    return f"close {step.fd}" + (f" {words.strings[step.path]}" if step.path != NO_TEXT else "")


def _malloc(words: StepWords, step: _Step, ended: int) -> str:
    asked = f"{constants.CALLS[step.call]}{_requested(step)}"
    return f"{asked} at {address(step.result)}" if step.result not in (0, NULL) else f"{asked}: NULL"


def _requested(step: _Step) -> str:
    """Return the bytes that a program asked for, exactly."""
    return "" if step.length == NULL else f" {number(to_unsigned(step.length), 'byte')}"


def _realloc(words: StepWords, step: _Step, ended: int) -> str:
    asked = f"realloc {_pointer(step.addr)} to{_requested(step)}"
    if step.result in (0, NULL):
        return f"{asked}: " + ("freed" if step.length == 0 else "NULL")
    return f"{asked} " + ("in place" if step.result == step.addr else f"at {address(step.result)}")


def _free(words: StepWords, step: _Step, ended: int) -> str:
    return f"{constants.CALLS[step.call]} {_pointer(step.addr)}"


def _pointer(value: int) -> str:
    return "NULL" if value in (0, NULL) else address(value)


_WORDS: Final[dict[str, _Worder]] = {
    "brk": _brk,
    "mmap": _mmap,
    "munmap": _munmap,
    "mremap": _mremap,
    "mprotect": _mprotect,
    "pkey_mprotect": _mprotect,
    "madvise": _madvise,
    "shmat": _shmat,
    "shmdt": _shmdt,
    "execve": _execve,
    "execveat": _execve,
    "fork": _fork,
    "vfork": _fork,
    "clone": _fork,
    "clone3": _fork,
    "exit": _exit,
    "exit_group": _exit,
    "prlimit": _prlimit,
    "prctl": _prctl,
    "open": _open,
    "openat": _open,
    "openat2": _open,
    "creat": _open,
    "memfd_create": _open,
    "close": _close,
    "malloc": _malloc,
    "calloc": _malloc,
    "reallocarray": _realloc,
    "memalign": _malloc,
    "aligned_alloc": _malloc,
    "valloc": _malloc,
    "pvalloc": _malloc,
    "strdup": _malloc,
    "strndup": _malloc,
    "asprintf": _malloc,
    "new": _malloc,
    "new[]": _malloc,
    "realloc": _realloc,
    "free": _free,
    "delete": _free,
    "delete[]": _free,
}
"""How a call that was not refused is worded, by its name; the others say their name and result."""
