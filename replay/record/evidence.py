"""What a preloaded library sees of a program, told by the program's file.

In goes the path of a program, out comes a sentence where its malloc is not seen.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

from replay.linux.elf import read_elf
from replay.linux.elf_symbols import functions_of

OWN_BITS: Final = 64 if sys.maxsize > 1 << 32 else 32

BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
"""The other forms of programs that the kernel was told of, beside files of its own. Source: fs/binfmt_misc.c."""

_OF_BINFMT: Final = ("register", "status")

_MOST_SCRIPTS: Final = 4
"""An interpreter of a script may be a script. Source: fs/exec.c, bprm_execve."""

PREFIXED: Final = {
    "jemalloc": ("je_malloc", "_rjem_malloc"),
    "mimalloc": ("mi_malloc",),
    "tcmalloc": ("tc_malloc",),
}
"""Names of malloc in allocators that a program may hold beside libc's."""


def not_preloaded(program: Path) -> str:
    """Return why nothing is preloaded into a program; empty where it is, or there is no such file.

    Source: ld.so(8), LD_PRELOAD and Secure-execution mode.
    """
    path = _interpreter(program)
    file = read_elf(path)
    if not path.is_file():
        return ""
    if gains_rights(path):
        return f"{path} is set-id or has capabilities: nothing is preloaded into it"
    if file is None:
        return ""
    if file.bits != OWN_BITS:
        return f"{path} is a program of {file.bits} bits: the library of {OWN_BITS} is not preloaded into it"
    if is_static(program):
        return f"{path} is static: nothing is preloaded into it"
    return ""


def own_malloc(program: Path) -> str:
    """Return that a program's malloc is its own, which a preloaded library does not see; empty where it is not."""
    path = _interpreter(program)
    functions = functions_of(path)
    if functions is not None and functions.has("malloc"):
        return f"{path} defines malloc itself: its calls do not reach what is preloaded"
    return ""


def is_program(path: Path) -> bool:
    """Tell whether the kernel can execute a file: an ELF file, or a script whose interpreter is one; or may be so.

    Source: fs/binfmt_elf.c, fs/binfmt_script.c; who may not read a file, or has others registered, is not judged.
    """
    program = _interpreter(path)
    try:
        with open(program, "rb") as file:
            return file.read(4) == b"\x7fELF" or any(one.name not in _OF_BINFMT for one in BINFMT.glob("*"))
    except FileNotFoundError:
        return False
    except OSError:
        return True


def is_static(program: Path) -> bool:
    """Tell whether no loader runs a program, which would preload anything into it."""
    path = _interpreter(program)
    file = read_elf(path)
    return file is not None and not file.interpreter and not path.name.startswith("ld-")


def is_of_other_width(program: Path) -> bool:
    """Tell whether a program's words are not as wide as ours: ld.so says on its standard error what it cannot preload.

    Source: glibc, elf/rtld.c, do_preload.
    """
    file = read_elf(_interpreter(program))
    return file is not None and file.bits != OWN_BITS


def partly_unseen(program: Path) -> str:
    """Return which calls of a program's are not seen beside those that are; empty where that is none."""
    functions = functions_of(_interpreter(program))
    for allocator, names in PREFIXED.items() if functions is not None else ():
        if functions is not None and any(functions.has(name) for name in names):
            return f"{program} holds {allocator} too: what it asks that for is not seen"
    return ""


def _interpreter(path: Path) -> Path:
    """Return the program that runs a file: itself, or the interpreter that a script names."""
    for _ in range(_MOST_SCRIPTS):
        try:
            with open(path, "rb") as file:
                head = file.read(256)
        except OSError:
            break
        words = head[2:].split(b"\n")[0].split() if head.startswith(b"#!") else []
        if not words:
            break
        path = Path(os.fsdecode(words[0]))
    return path


def gains_rights(path: Path) -> bool:
    """Tell whether a program runs with more rights than who starts it: set-id to what we are not, or capabilities.

    Source: security/commoncap.c, cap_bprm_creds_from_file, which sets AT_SECURE.
    """
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return False
    facts = os.stat(path)
    if facts.st_mode & stat.S_ISUID and facts.st_uid != os.geteuid():
        return True
    if facts.st_mode & stat.S_ISGID and facts.st_mode & stat.S_IXGRP and facts.st_gid != os.getegid():
        return True
    try:
        return bool(os.getxattr(path, "security.capability")) and os.geteuid() != 0
    except OSError:
        return False
