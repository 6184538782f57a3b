"""Which argument of which call is which field: the one place that knows the signatures of calls.

Names of calls go in as printed (`mmap2`, `SYS_brk` without `SYS_`), names of fields come out as in `lines`.
"""

from __future__ import annotations

import re
from typing import Final

from replay.grammar.line import token_value
from replay.linux.constants import CALL_CODE
from replay.linux.numbered_calls import UNNAMED_CALLS

NORMAL_NAMES: Final = {
    "mmap2": "mmap",
    "old_mmap": "mmap",
    "_exit": "exit",
    "setrlimit": "prlimit",
    "getrlimit": "prlimit",
    "ugetrlimit": "prlimit",
    "prlimit64": "prlimit",
    "fcntl64": "fcntl",
    "old_shmat": "shmat",
    "unlinkat": "unlink",
    "renameat": "rename",
    "renameat2": "rename",
    "mmap64": "mmap",
}
"""Calls that are printed under another name than the one they go by here."""

ARGUMENTS: Final = {
    name: tuple(fields.split())
    for name, fields in {
        "brk": "addr",
        "mmap": "addr length prot flags fd offset",
        "munmap": "addr length",
        "mremap": "addr old_length length flags new_addr",
        "mprotect": "addr length prot",
        "pkey_mprotect": "addr length prot pkey",
        "madvise": "addr length flags",
        "remap_file_pages": "addr length prot pgoff flags",
        "shmat": "shmid addr flags",
        "shmdt": "addr",
        "shmget": "key length flags",
        "shmctl": "shmid op buf",
        "mlock": "addr length",
        "mlock2": "addr length flags",
        "munlock": "addr length",
        "mlockall": "flags",
        "munlockall": "",
        "mseal": "addr length flags",
        "map_shadow_stack": "addr length flags",
        "mincore": "addr length vec",
        "msync": "addr length flags",
        "execve": "path argv envp",
        "execveat": "dirfd path argv envp flags",
        "fork": "",
        "vfork": "",
        "clone": "flags",
        "clone3": "args size",
        "exit": "exit_status",
        "exit_group": "exit_status",
        "prctl": "op arg2 arg3 arg4 arg5",
        "prlimit": "to_pid resource new_limit old_limit",
        "setrlimit": "resource new_limit",
        "getrlimit": "resource old_limit",
        "ugetrlimit": "resource old_limit",
        "personality": "flags",
        "restart_syscall": "",
        "open": "path flags mode",
        "openat": "dirfd path flags mode",
        "openat2": "dirfd path how size",
        "creat": "path mode",
        "close": "fd",
        "close_range": "fd last_fd flags",
        "dup": "fd",
        "dup2": "fd new_fd",
        "dup3": "fd new_fd flags",
        "fcntl": "fd op arg3",
        "memfd_create": "path flags",
        "unlink": "path",
        "unlinkat": "dirfd path flags",
        "rename": "path new_path",
        "renameat": "dirfd path new_dirfd new_path",
        "renameat2": "dirfd path new_dirfd new_path flags",
        "io_setup": "nr_events context",
        "io_destroy": "addr",
        "memfd_secret": "flags",
        "io_uring_setup": "entries params",
        "perf_event_open": "attr to_pid cpu group_fd flags",
        "bpf": "op attr size",
    }.items()
}
"""The fields of each system call's arguments in the order of the call.

`clone` is printed with names, but for raw output, where the flags come first (x86, arm).
"""

ARGUMENT_NAMES: Final = {
    # strace -N, see its source for each call; names that are fields already are not listed
    "old_address": "addr",
    "old_size": "old_length",
    "new_size": "length",
    "new_address": "new_addr",
    "start": "addr",
    "len": "length",
    "size": "length",
    "advice": "flags",
    "shmaddr": "addr",
    "shmflg": "flags",
    "cmd": "op",
    "option": "op",
    "pathname": "path",
    "filename": "path",
    "name": "path",
    "attr": "arg2",
    "status": "exit_status",
    "error_code": "exit_status",
    "pid": "to_pid",
    "new_rlim": "new_limit",
    "old_rlim": "old_limit",
    "rlim": "new_limit",
    "persona": "flags",
    "oldfd": "fd",
    "newfd": "new_fd",
}
"""Fields by the names that `strace -N` and older versions of clone print before arguments."""

NUMBER_FIELDS: Final = frozenset(field for fields in ARGUMENTS.values() for field in fields) - frozenset(
    "argv envp args how buf new_limit old_limit vec key mode path size new_path context params attr new_dirfd "
    "group_fd cpu entries".split()
)
"""Fields that are plain numbers."""

OPENS: Final = frozenset(
    "open openat openat2 creat dup dup2 dup3 fcntl memfd_create memfd_secret io_uring_setup perf_event_open bpf".split()
)
"""Calls that return a file descriptor."""


ONLY_DESCRIPTORS: Final = frozenset({"bpf", "perf_event_open", "io_uring_setup", "memfd_secret"})
"""Calls of interest for the descriptor that they return alone: lines of theirs in other forms are passed over."""

PRINTED_LAST: Final = {
    "io_setup": ("context",),
    "prlimit64": ("old_limit",),
    "getrlimit": ("old_limit",),
    "ugetrlimit": ("old_limit",),
}
"""The arguments that the kernel fills in: they stand in the second half of a split call."""

NUMBERED: Final = r"(?:syscall_|SYS_)(0x[0-9a-f]{1,8}|[0-9]{1,8})"
"""A call that the tracer does not know by name."""


def call_name(printed: str) -> str:
    """Return the normalised name of the system call `printed`, '' if it is none of the calls of interest."""
    normal = NORMAL_NAMES.get(printed, printed)
    if normal in CALL_CODE:
        return normal
    numbered = re.fullmatch(NUMBERED, printed)
    return UNNAMED_CALLS.get(token_value(numbered[1]), "") if numbered else ""


def argument_fields(printed: str) -> tuple[str, ...]:
    """Return the fields of the arguments of the call of interest `printed`, in order."""
    return ARGUMENTS.get(printed) or ARGUMENTS.get(call_name(printed), ())


def field_of(printed: str, argument_name: str) -> str:
    """Return the field that a named argument of the call `printed` is, its own name if that is one."""
    if printed.endswith("getrlimit") and argument_name == "rlim":
        return "old_limit"
    if printed == "prctl" and argument_name in {"addr", "size"}:
        return {"addr": "arg3", "size": "arg4"}[argument_name]
    return ARGUMENT_NAMES.get(argument_name, argument_name)
