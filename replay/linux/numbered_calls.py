"""The calls of interest by number, as a tracer prints those that it does not know by name."""

from __future__ import annotations

from typing import Final

UNNAMED_CALLS: Final = {
    206: "io_setup",
    207: "io_destroy",
    298: "perf_event_open",
    319: "memfd_create",
    321: "bpf",
    322: "execveat",
    325: "mlock2",
    329: "pkey_mprotect",
    425: "io_uring_setup",
    435: "clone3",
    436: "close_range",
    437: "openat2",
    447: "memfd_secret",
    453: "map_shadow_stack",
    462: "mseal",
    356: "memfd_create",
    358: "execveat",
    376: "mlock2",
    380: "pkey_mprotect",
    395: "shmget",
    396: "shmctl",
    397: "shmat",
    398: "shmdt",
}
"""Calls that an older tracer prints by number (`syscall_435`, `SYS_395`): of x86-64, then of i386, which shares none.

Source: arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
"""
