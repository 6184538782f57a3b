"""Facts of Linux that a log names or numbers: calls, errnos, flags. No logic, no wording.

Source: include/uapi/asm-generic/mman-common.h, mman.h, errno-base.h, linux/mman.h, linux/sched.h, bits/resource.h.
"""

from __future__ import annotations

from typing import Final

CALLS: Final = (
    # memory
    "brk mmap munmap mremap mprotect pkey_mprotect madvise remap_file_pages shmat shmdt shmget shmctl "
    "mlock mlock2 munlock mlockall munlockall mseal map_shadow_stack mincore msync "
    # processes and limits
    "execve execveat fork vfork clone clone3 exit exit_group prctl prlimit personality restart_syscall "
    # names of files
    "open openat openat2 creat close close_range dup dup2 dup3 fcntl memfd_create unlink "
    # the malloc family
    "malloc calloc realloc reallocarray free posix_memalign aligned_alloc memalign valloc pvalloc strdup strndup "
    "asprintf malloc_usable_size malloc_trim mallopt abort "
    "new new[] delete delete[] getdelim sbrk"
).split()
"""Normalised names of the calls of interest; a call's code is its place here."""

CALL_CODE: Final = {name: code for code, name in enumerate(CALLS)}

PSEUDO: Final = 1000
"""From this code on a row is no call but a notice of the tracer; such rows are no steps."""

EXITED: Final = 1000
"""`+++ exited with N +++`"""
KILLED: Final = 1001
"""`+++ killed by SIGX +++`"""
SUPERSEDED: Final = 1002
"""`+++ superseded by execve in pid N +++`"""
EXEC_NOTICE: Final = 1003
"""ltrace's `--- Called exec() ---`"""
PID_CHANGED: Final = 1004
"""`execve(… <pid changed to N ...>`: the open execve ends in that pid"""
