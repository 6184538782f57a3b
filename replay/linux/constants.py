"""Facts of Linux that a log names or numbers: calls, errnos, flags. No logic, no wording.

Source: include/uapi/asm-generic/{mman-common,mman,errno,fcntl,resource,signal}.h and
include/uapi/linux/{mman,sched,prctl,shm}.h of Linux.
"""

from __future__ import annotations

from typing import Final

CALLS: Final = (
    # memory
    "brk mmap munmap mremap mprotect pkey_mprotect madvise remap_file_pages shmat shmdt shmget shmctl "
    "io_setup io_destroy "
    "mlock mlock2 munlock mlockall munlockall mseal map_shadow_stack mincore msync "
    # processes and limits
    "execve execveat fork vfork clone clone3 exit exit_group prctl prlimit personality restart_syscall "
    # names of files
    "open openat openat2 creat close close_range dup dup2 dup3 fcntl memfd_create unlink "
    "rename memfd_secret io_uring_setup perf_event_open bpf "
    # the malloc family
    "malloc calloc realloc reallocarray free posix_memalign aligned_alloc memalign valloc pvalloc strdup strndup "
    "asprintf malloc_usable_size malloc_trim mallopt abort "
    "new new[] delete delete[] getdelim sbrk pthread_create"
).split()
"""Normalised names of the calls of interest; a call's code is its place here."""

CALL_CODE: Final = {name: code for code, name in enumerate(CALLS)}

FORK_CALLS: Final = ("fork", "vfork", "clone", "clone3")
"""Calls that make a process or thread and return its id."""

FORKS: Final = tuple(CALL_CODE[name] for name in FORK_CALLS)

EXECS: Final = (CALL_CODE["execve"], CALL_CODE["execveat"])
"""Codes of the calls that start another program."""

EXITS: Final = (CALL_CODE["exit"], CALL_CODE["exit_group"])
"""Codes of the calls that do not return."""

SECOND: Final = 1_000_000_000
"""In nanoseconds, in which all times are."""

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
CHILD_ENDED: Final = 1005
"""`--- SIGCHLD {si_code=CLD_EXITED, si_pid=N, …} ---`: N was a process, a child of the one that is told"""
SEEN: Final = 1006
"""The first line of a pid whose lines are passed over: it names no call of interest, but the pid is there"""
LAST_NOTICE: Final = SEEN

ERRNO: Final = {
    name: number
    for number, name in enumerate(
        (
            "- EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK "
            "EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE "
            "EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM "
            "ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC "
            "EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO "
            "EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX "
            "ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT "
            "EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL "
            "ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN "
            "ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN "
            "ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED "
            "EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON"
        ).split()
    )
    if name != "-"
}
"""Error numbers by name, of x86, arm and most others."""

KERNEL_ERRNO: Final = {
    "ERESTARTSYS": 512,
    "ERESTARTNOINTR": 513,
    "ERESTARTNOHAND": 514,
    "ENOIOCTLCMD": 515,
    "ERESTART_RESTARTBLOCK": 516,
}
"""Errors that only a tracer sees, by name: the call is to be restarted. Source: include/linux/errno.h."""

ERRNO_ALIASES: Final = {"EWOULDBLOCK": 11, "EDEADLOCK": 35, "ENOTSUP": 95}
"""Second names of error numbers."""

ERRNO_NAME: Final = {number: name for name, number in ERRNO.items()} | {n: name for name, n in KERNEL_ERRNO.items()}
"""Names of the error numbers."""

# Flags: in each table in the order in which strace prints them, so that a value is written by going through its table.

PROT: Final = {
    "PROT_NONE": 0,
    "PROT_READ": 1,
    "PROT_WRITE": 2,
    "PROT_EXEC": 4,
    "PROT_SEM": 8,
    "PROT_GROWSDOWN": 0x01000000,
    "PROT_GROWSUP": 0x02000000,
}
"""Protection bits of mmap and mprotect."""

MAP_TYPE_MASK: Final = 0xF
"""The bits of mmap's flags that hold one of `MAP_TYPES`."""

MAP_TYPES: Final = {
    "MAP_FILE": 0,
    "MAP_SHARED": 1,
    "MAP_PRIVATE": 2,
    "MAP_SHARED_VALIDATE": 3,
    "MAP_DROPPABLE": 8,
}
"""Kinds of mapping: a value, not bits."""

MAP_FLAGS: Final = {
    "MAP_FIXED": 0x10,
    "MAP_ANONYMOUS": 0x20,
    "MAP_32BIT": 0x40,
    "MAP_ABOVE4G": 0x80,
    "MAP_NORESERVE": 0x4000,
    "MAP_POPULATE": 0x8000,
    "MAP_NONBLOCK": 0x10000,
    "MAP_GROWSDOWN": 0x100,
    "MAP_DENYWRITE": 0x800,
    "MAP_EXECUTABLE": 0x1000,
    "MAP_LOCKED": 0x2000,
    "MAP_STACK": 0x20000,
    "MAP_HUGETLB": 0x40000,
    "MAP_SYNC": 0x80000,
    "MAP_UNINITIALIZED": 0x4000000,
    "MAP_FIXED_NOREPLACE": 0x100000,
}
"""The bits of mmap's flags besides the type and the huge page size."""

MOST_HUGE: Final = 34
"""The logarithm of the largest huge page, 16 GiB. Source: asm-generic/hugetlb_encode.h, HUGETLB_FLAG_ENCODE_16GB."""

MAP_HUGE_SHIFT: Final = 26
"""Where the base-2 logarithm of the huge page size begins in mmap's flags."""

MREMAP: Final = {"MREMAP_MAYMOVE": 1, "MREMAP_FIXED": 2, "MREMAP_DONTUNMAP": 4}
"""Flags of mremap."""

MADV: Final = {
    "MADV_NORMAL": 0,
    "MADV_RANDOM": 1,
    "MADV_SEQUENTIAL": 2,
    "MADV_WILLNEED": 3,
    "MADV_DONTNEED": 4,
    "MADV_FREE": 8,
    "MADV_REMOVE": 9,
    "MADV_DONTFORK": 10,
    "MADV_DOFORK": 11,
    "MADV_MERGEABLE": 12,
    "MADV_UNMERGEABLE": 13,
    "MADV_HUGEPAGE": 14,
    "MADV_NOHUGEPAGE": 15,
    "MADV_DONTDUMP": 16,
    "MADV_DODUMP": 17,
    "MADV_WIPEONFORK": 18,
    "MADV_KEEPONFORK": 19,
    "MADV_COLD": 20,
    "MADV_PAGEOUT": 21,
    "MADV_POPULATE_READ": 22,
    "MADV_POPULATE_WRITE": 23,
    "MADV_DONTNEED_LOCKED": 24,
    "MADV_COLLAPSE": 25,
    "MADV_HWPOISON": 100,
    "MADV_SOFT_OFFLINE": 101,
    "MADV_GUARD_INSTALL": 102,
    "MADV_GUARD_REMOVE": 103,
}
"""Advice of madvise: a value, not bits."""

CLONE: Final = {
    "CLONE_NEWTIME": 0x80,
    "CLONE_VM": 0x100,
    "CLONE_FS": 0x200,
    "CLONE_FILES": 0x400,
    "CLONE_SIGHAND": 0x800,
    "CLONE_PIDFD": 0x1000,
    "CLONE_PTRACE": 0x2000,
    "CLONE_VFORK": 0x4000,
    "CLONE_PARENT": 0x8000,
    "CLONE_THREAD": 0x10000,
    "CLONE_NEWNS": 0x20000,
    "CLONE_SYSVSEM": 0x40000,
    "CLONE_SETTLS": 0x80000,
    "CLONE_PARENT_SETTID": 0x100000,
    "CLONE_CHILD_CLEARTID": 0x200000,
    "CLONE_DETACHED": 0x400000,
    "CLONE_UNTRACED": 0x800000,
    "CLONE_CHILD_SETTID": 0x1000000,
    "CLONE_NEWCGROUP": 0x2000000,
    "CLONE_NEWUTS": 0x4000000,
    "CLONE_NEWIPC": 0x8000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
    "CLONE_IO": 0x80000000,
    "CLONE_CLEAR_SIGHAND": 0x100000000,
    "CLONE_INTO_CGROUP": 0x200000000,
}
"""Flags of clone and clone3; clone's lowest byte is the signal at the child's end."""

SHMAT: Final = {"SHM_RDONLY": 0o10000, "SHM_RND": 0o20000, "SHM_REMAP": 0o40000, "SHM_EXEC": 0o100000}
"""Flags of shmat."""

SHMGET: Final = {"IPC_CREAT": 0o1000, "IPC_EXCL": 0o2000, "SHM_HUGETLB": 0o4000, "SHM_NORESERVE": 0o10000}
"""Flags of shmget, above the nine bits of the mode."""

SHMCTL: Final = {
    "IPC_RMID": 0,
    "IPC_SET": 1,
    "IPC_STAT": 2,
    "IPC_INFO": 3,
    "SHM_LOCK": 11,
    "SHM_UNLOCK": 12,
    "SHM_STAT": 13,
    "SHM_INFO": 14,
    "SHM_STAT_ANY": 15,
    "IPC_64": 0x100,
}
"""Operations of shmctl; `IPC_64` is or-ed to one of them by 32-bit programs."""

RLIMIT: Final = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
"""Resources of setrlimit and prlimit."""

RLIM_INFINITY: Final = (1 << 63) - 1
"""What an unlimited resource is here; the kernel's own number, 2^64 - 1, is no int64."""

PR: Final = {
    "PR_SET_PDEATHSIG": 1,
    "PR_GET_PDEATHSIG": 2,
    "PR_GET_DUMPABLE": 3,
    "PR_SET_DUMPABLE": 4,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
    "PR_GET_SECCOMP": 21,
    "PR_SET_SECCOMP": 22,
    "PR_CAPBSET_READ": 23,
    "PR_SET_MM": 35,
    "PR_SET_NO_NEW_PRIVS": 38,
    "PR_GET_NO_NEW_PRIVS": 39,
    "PR_SET_THP_DISABLE": 41,
    "PR_GET_THP_DISABLE": 42,
    "PR_SET_VMA": 0x53564D41,
}
"""Options of prctl that tell of memory, and the commonest others."""

PR_SET_VMA: Final = {"PR_SET_VMA_ANON_NAME": 0}
"""What `PR_SET_VMA` sets."""

PR_SET_MM: Final = {
    "PR_SET_MM_START_CODE": 1,
    "PR_SET_MM_END_CODE": 2,
    "PR_SET_MM_START_DATA": 3,
    "PR_SET_MM_END_DATA": 4,
    "PR_SET_MM_START_STACK": 5,
    "PR_SET_MM_START_BRK": 6,
    "PR_SET_MM_BRK": 7,
    "PR_SET_MM_ARG_START": 8,
    "PR_SET_MM_ARG_END": 9,
    "PR_SET_MM_ENV_START": 10,
    "PR_SET_MM_ENV_END": 11,
    "PR_SET_MM_AUXV": 12,
    "PR_SET_MM_EXE_FILE": 13,
    "PR_SET_MM_MAP": 14,
    "PR_SET_MM_MAP_SIZE": 15,
}
"""What `PR_SET_MM` sets."""

OPEN: Final = {
    "O_RDONLY": 0,
    "O_WRONLY": 1,
    "O_RDWR": 2,
    "O_CREAT": 0o100,
    "O_EXCL": 0o200,
    "O_NOCTTY": 0o400,
    "O_TRUNC": 0o1000,
    "O_APPEND": 0o2000,
    "O_NONBLOCK": 0o4000,
    "O_DSYNC": 0o10000,
    "O_DIRECT": 0o40000,
    "O_LARGEFILE": 0o100000,
    "O_DIRECTORY": 0o200000,
    "O_NOFOLLOW": 0o400000,
    "O_NOATIME": 0o1000000,
    "O_CLOEXEC": 0o2000000,
    "O_SYNC": 0o4010000,
    "O_PATH": 0o10000000,
    "O_TMPFILE": 0o20200000,
}
"""Flags of open and its kin on x86."""

OTHER_FLAGS: Final = {
    "MLOCK_ONFAULT": 1,
    "MCL_CURRENT": 1,
    "MCL_FUTURE": 2,
    "MCL_ONFAULT": 4,
    "MS_ASYNC": 1,
    "MS_INVALIDATE": 2,
    "MS_SYNC": 4,
    "SHADOW_STACK_SET_TOKEN": 1,
    "MFD_CLOEXEC": 1,
    "MFD_ALLOW_SEALING": 2,
    "MFD_HUGETLB": 4,
    "MFD_NOEXEC_SEAL": 8,
    "MFD_EXEC": 16,
    "CLOSE_RANGE_UNSHARE": 2,
    "CLOSE_RANGE_CLOEXEC": 4,
    "FD_CLOEXEC": 1,
    "BPF_MAP_CREATE": 0,
    "RENAME_NOREPLACE": 1,
    "RENAME_EXCHANGE": 2,
    "RENAME_WHITEOUT": 4,
    "F_DUPFD": 0,
    "F_GETFD": 1,
    "F_SETFD": 2,
    "F_GETFL": 3,
    "F_SETFL": 4,
    "F_DUPFD_CLOEXEC": 1030,
    "PER_LINUX": 0,
    "PER_LINUX32": 8,
    "ADDR_NO_RANDOMIZE": 0x40000,
    "MMAP_PAGE_ZERO": 0x100000,
    "ADDR_COMPAT_LAYOUT": 0x200000,
    "READ_IMPLIES_EXEC": 0x400000,
    "ADDR_LIMIT_32BIT": 0x800000,
    "ADDR_LIMIT_3GB": 0x8000000,
}
"""Flags and operations of the calls that only touch memory's margins."""

SIGNALS: Final = {
    name: number
    for number, name in enumerate(
        (
            "0 SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE "
            "SIGALRM SIGTERM SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ "
            "SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS"
        ).split()
    )
    if name != "0"
}
"""Signal numbers of x86 and arm by name."""

VALUES: Final = (
    PROT | MAP_TYPES | MAP_FLAGS | MREMAP | MADV | CLONE | SHMAT | SHMGET | SHMCTL | RLIMIT
    | PR | PR_SET_VMA | PR_SET_MM | OPEN | OTHER_FLAGS | SIGNALS | ERRNO | ERRNO_ALIASES | KERNEL_ERRNO
    | {
        "NULL": 0,
        "nil": 0,
        "AT_FDCWD": -100,
        "IPC_PRIVATE": 0,
        "RLIM_INFINITY": RLIM_INFINITY,
        "RLIM64_INFINITY": RLIM_INFINITY,
        "MAP_ANON": 0x20,
        "MAP_HUGE_SHIFT": MAP_HUGE_SHIFT,
        "SHM_HUGE_SHIFT": 26,
        "MFD_HUGE_SHIFT": 26,
    }
)  # fmt: skip
"""The number of every name that stands for one in the arguments of a call; no two tables disagree about a name."""
