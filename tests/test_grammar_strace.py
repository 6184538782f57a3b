"""What each form of strace line says: versions 4.5 to 7.2, all options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import oracle
import pytest

from replay.grammar import LineError, parse
from replay.grammar.fields import field_of
from replay.grammar.line import Line
from replay.linux.constants import ERRNO, VALUES

CLONE_THREAD = "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS"


def said(text: str) -> dict[str, Any]:
    """Return all that a line says: its kind, its call, and its fields with their values."""
    line = parse(text, "strace")
    fields: dict[str, Any] = {"kind": line.kind}
    if line.call:
        fields["call"] = line.call
    fields |= {name: number.value(text) for name, number in line.numbers.items()}
    return fields | {name: value.value(text) for name, value in line.texts.items()}


def flags(names: str) -> int:
    return sum(VALUES[name] for name in names.split("|"))


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "call", "call": name, **fields}


def case(name: str, text: str, **expected: Any) -> Any:
    return pytest.param(text, expected, id=name)


BRK = {"call": "brk", "addr": 0, "result": 0x405000}
AT_17_36_29 = (17 * 3600 + 36 * 60 + 29) * 10**9
EPOCH = 1795368989 * 10**9

PREFIXES = [
    case("none", ""),
    case("pid on stderr", "[pid  1821] ", pid=1821),
    case("long pid on stderr", "[pid 4194303] ", pid=4194303),
    case("pid in a file", "2322  ", pid=2322),
    case("long pid in a file", "4194303 ", pid=4194303),
    case("command on stderr", "[pid  3907<forks>] ", pid=3907, comm="forks"),
    case("command in a file", "3887<strace> ", pid=3887, comm="strace"),
    case("command with spaces", "3887<a b> ", pid=3887, comm="a b"),
    case("escaped command", r"3887<a\74b\76> ", pid=3887, comm=r"a\74b\76"),
    case("-t", "17:36:29 ", time=AT_17_36_29),
    case("-tt", "17:36:29.824572 ", time=AT_17_36_29 + 824572000),
    case("early", "00:08:09.000001 ", time=(8 * 60 + 9) * 10**9 + 1000),
    case("-ttt", "1795368989.804533 ", time=EPOCH + 804533000),
    case("-ttt in seconds", "1795368989 ", time=EPOCH),
    case("milliseconds", "17:36:29.867 ", time=AT_17_36_29 + 867000000),
    case("nanoseconds", "1795368989.844558246 ", time=EPOCH + 844558246),
    case("-r", "     0.000028 ", relative=28000),
    case("-r in seconds", "     0 ", relative=0),
    case("-r in nanoseconds", "    12.000000028 ", relative=12 * 10**9 + 28),
    case("-tt -r", "17:36:29 (+     0.000026) ", time=AT_17_36_29, relative=26000),
    case("-ttt -r", "1795368989.519000 (+     0.001) ", time=EPOCH + 519000000, relative=10**6),
    case("-ttt -r in seconds", "1795368989 (+     3) ", time=EPOCH, relative=3 * 10**9),
    case("-f -o -r", "2322       0.000028 ", pid=2322, relative=28000),
    case("-f -o -r in seconds", "2322       1 ", pid=2322, relative=10**9),
    case("-f -o -t", "15319 17:36:29 ", pid=15319, time=AT_17_36_29),
    case("-f -o -ttt", "1888  1795368989.804533 ", pid=1888, time=EPOCH + 804533000),
    case("-f -o -ttt in seconds", "1888  1795368989 ", pid=1888, time=EPOCH),
    case("-f -r", "[pid  6155]      0.000341 ", pid=6155, relative=341000),
    case("-n", "[   9] "),
    case("-n, of no call", "[4294967295] "),
    case("-n, new call", "[ 435] "),
    case("-i", "[00007ffff7e00ad7] "),
    case("-i, 32 bit", "[08048abc] "),
    case("-i, digits only", "[0000000000401030] "),
    case("-i, 32 bit, digits only", "[00401030] "),
    case("-i, unknown", "[????????????????] "),
    case("-i, 32 bit, unknown", "[????????] "),
    case("-i of 4.5.20", "[          40103a] "),
    case("-i of 4.5.20, digits only", "[          401030] "),
    case("--secontext", "[unconfined_t] "),
    case("--secontext=full", "[unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023] "),
    case("--secontext=mismatch", "[a_t!!b_t] "),
    case(
        "everything",
        "[pid  3907<forks>] [unconfined_t] 17:36:29.824572 (+     0.000026) [   9] [000000000040103a] ",
        pid=3907, comm="forks", time=AT_17_36_29 + 824572000, relative=26000,
    ),
    case("everything in a file", "3907<forks> [a_t] 17:36:29 [   9] [0000000000401030] ", pid=3907, comm="forks",
         time=AT_17_36_29),
]  # fmt: skip


@pytest.mark.parametrize(("prefix", "expected"), PREFIXES)
def test_prefix_of_a_call(prefix: str, expected: dict[str, Any]) -> None:
    assert said(prefix + "brk(NULL)             = 0x405000") == {"kind": "call", **BRK, **expected}


@pytest.mark.parametrize(("prefix", "expected"), PREFIXES)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<... brk resumed>)                  = 0x405000", {"kind": "closed", "call": "brk", "result": 0x405000}),
        ("+++ exited with 3 +++", {"kind": "exited", "exit_status": 3}),
        ("--- stopped by SIGSTOP ---", {"kind": "signal", "signal": "SIGSTOP"}),
        ("[ Process PID=5713 runs in 32 bit mode. ]", {"kind": "notice", "to_pid": 5713, "bits": 32}),
    ],
    ids=["resumed", "end", "signal", "notice"],
)
def test_prefix_of_other_lines(prefix: str, expected: dict[str, Any], body: str, says: dict[str, Any]) -> None:
    assert said(prefix + body) == says | expected


ENOMEM = {"result": -1, "errno": ERRNO["ENOMEM"]}
ANONYMOUS = flags("MAP_PRIVATE|MAP_ANONYMOUS")
MAPPED = {"addr": 0, "length": 8192, "prot": 3, "flags": ANONYMOUS, "fd": -1, "offset": 0}

RESULTS = [
    case("address", "= 0x405000", result=0x405000),
    case("zero", "= 0", result=0),
    case("error", "= -1 ENOMEM (Cannot allocate memory)", **ENOMEM),
    case("error of a German", "= -1 ENOMEM (Nicht gen\xfcgend Hauptspeicher verf\xfcgbar)", **ENOMEM),
    case("error with parentheses", "= -1 ENOMEM (fehlt (viel) 3 \"x\" 'y)", **ENOMEM),
    case("error with a lone quote", '= -1 ENOMEM (5" fehlen)', **ENOMEM),
    case("error without a name", "= -1 (errno 4000)", result=-1, errno=4000),
    case("unknown", "= ?", unknown_result=1),
    case("restart", "= ? ERESTARTSYS (To be restarted if SA_RESTART is set)", unknown_result=1, errno=512),
    case("restart of 4.6", "= ? ERESTARTSYS (To be restarted)", unknown_result=1, errno=512),
    case("interrupted", "= ? ERESTART_RESTARTBLOCK (Interrupted by signal)", unknown_result=1, errno=516),
    case("unavailable", "= ? <unavailable>", unknown_result=1),
    case("injected", "= 0x123000 (INJECTED)", result=0x123000, injected=1),
    case("other arguments injected", "= 0 (INJECTED: args)", result=0),
    case("all injected", "= 0 (INJECTED: args, retval)", result=0, injected=1),
    case("delayed", "= 0x405000 (DELAYED) <0.002014>", result=0x405000, duration=2014000),
    case("injected error", "= -1 EPERM (Operation not permitted) (INJECTED) (DELAYED) <0.000008>",
         result=-1, errno=1, injected=1, duration=8000),
    case("note", "= 262144 (PER_LINUX|ADDR_NO_RANDOMIZE)", result=262144),
    case("text", "= 1 (in [3])", result=1),
    case("-T", "= 0 <0.000013>", result=0, duration=13000),
    case("-T in seconds", "= 0 <0>", result=0, duration=0),
    case("-T in milliseconds", "= 0 <1.250>", result=0, duration=1250 * 10**6),
    case("-T in nanoseconds", "= 0 <0.000008122>", result=0, duration=8122),
    case("-T after an error", "= -1 ENOMEM (Cannot allocate memory) <0.000024>", **ENOMEM, duration=24000),
    case("sign-extended", "= 0xfffffffff7fe4000", result=0xFFFFFFFFF7FE4000),
]  # fmt: skip


@pytest.mark.parametrize(("result", "expected"), RESULTS)
def test_results(result: str, expected: dict[str, Any]) -> None:
    text = f"mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) {result}"
    assert said(text) == call("mmap", **MAPPED, **expected)


@pytest.mark.parametrize(("result", "expected"), RESULTS)
@pytest.mark.parametrize("end", ["resumed>)        ", "resumed> )     "])
def test_results_of_resumed_calls(end: str, result: str, expected: dict[str, Any]) -> None:
    assert said(f"<... mmap {end}{result}") == {"kind": "closed", "call": "mmap", **expected}


PROTECTIONS = [
    case("none", "PROT_NONE", prot=0),
    case("all", "PROT_READ|PROT_WRITE|PROT_EXEC", prot=7),
    case("rare", "PROT_READ|PROT_SEM|PROT_GROWSDOWN", prot=flags("PROT_READ|PROT_SEM|PROT_GROWSDOWN")),
    case("with unknown bits", "PROT_READ|0x40", prot=0x41),
    case("unknown", "0x100 /* PROT_??? */", prot=0x100),
    case("-X raw", "0x3", prot=3),
    case("-X raw, none", "0", prot=0),
    case("-X verbose", "0x3 /* PROT_READ|PROT_WRITE */", prot=3),
    case("-X verbose, none", "0 /* PROT_NONE */", prot=0),
    case("-N", "prot=PROT_READ|PROT_EXEC", prot=5),
]


@pytest.mark.parametrize(("written", "expected"), PROTECTIONS)
def test_protections(written: str, expected: dict[str, Any]) -> None:
    text = f"mprotect(0x7ffff7f70000, 16384, {written}) = 0"
    assert said(text) == call("mprotect", addr=0x7FFFF7F70000, length=16384, result=0, **expected)


HUGE_21, HUGE_30 = 21 << 26, 30 << 26
MAP_FLAGS = [
    case("type only", "MAP_FILE", flags=0),
    case("shared", "MAP_SHARED|MAP_ANONYMOUS", flags=0x21),
    case("validate", "MAP_SHARED_VALIDATE|MAP_SYNC", flags=0x80003),
    case("droppable", "MAP_DROPPABLE|MAP_ANONYMOUS", flags=0x28),
    case("strace's order", "MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS|MAP_32BIT|MAP_NORESERVE|MAP_GROWSDOWN|MAP_STACK",
         flags=0x24172),
    case("NOREPLACE", "MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED_NOREPLACE", flags=0x100022),
    case("NOREPLACE before 4.23", "MAP_PRIVATE|MAP_ANONYMOUS|0x100000", flags=0x100022),
    case("HUGETLB of 4.8", "MAP_PRIVATE|MAP_ANONYMOUS|0x40000", flags=0x40022),
    case("2 MiB pages", "MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|21<<MAP_HUGE_SHIFT", flags=0x40022 | HUGE_21),
    case("1 GiB pages", "MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|30<<MAP_HUGE_SHIFT", flags=0x40022 | HUGE_30),
    case("2 MiB pages of 4.20", "MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|MAP_UNINITIALIZED|0x50000000",
         flags=0x40022 | HUGE_21),
    case("2 MiB pages of 4.6", "MAP_PRIVATE|MAP_ANONYMOUS|0x54040000", flags=0x40022 | HUGE_21),
    case("uninitialized", "MAP_PRIVATE|MAP_ANONYMOUS|0x200000|1<<MAP_HUGE_SHIFT", flags=0x4200022),
    case("unknown type", "0x3 /* MAP_??? */|0x80000", flags=0x80003),
    case("a comment in a comment", "0x5404401f /* 0xf /* MAP_??? */|MAP_FIXED|MAP_NORESERVE */", flags=0x5404401F),
    case("unknown type, known flag", "0x4 /* MAP_??? */|MAP_ANONYMOUS|0x200000", flags=0x200024),
    case("-X raw", "0x22", flags=0x22),
    case("-X verbose", "0x22 /* MAP_PRIVATE|MAP_ANONYMOUS */", flags=0x22),
    case("-X verbose, parts", "0x2 /* MAP_PRIVATE */|0x20 /* MAP_ANONYMOUS */", flags=0x22),
    case("-N", "flags=MAP_PRIVATE|MAP_ANONYMOUS", flags=0x22),
    case("a name of the future", "MAP_PRIVATE|MAP_ANONYMOUS|MAP_ELSEWHERE", flags=0x22),
]  # fmt: skip


@pytest.mark.parametrize(("written", "expected"), MAP_FLAGS)
def test_flags_of_mmap(written: str, expected: dict[str, Any]) -> None:
    text = f"mmap(NULL, 2097152, PROT_NONE, {written}, -1, 0) = 0x7ffff7ee8000"
    fields = {"addr": 0, "length": 2097152, "prot": 0, "fd": -1, "offset": 0, "result": 0x7FFFF7EE8000}
    assert said(text) == call("mmap", **fields, **expected)


PATHS = [
    case("plain", "3</srv/cf/plain>", path="/srv/cf/plain"),
    case("no path", "3"),
    case("everything in it", "3</srv/cf/a b, c) = 0x1>", path="/srv/cf/a b, c) = 0x1"),
    case("escaped", r"3</srv/cf/x\76y\74z>", path=r"/srv/cf/x\76y\74z"),
    case("octal", r"3</srv/cf/\303\251>", path=r"/srv/cf/\303\251"),
    case("escaped quote", r"3</srv/cf/tab\tnl\nq\"uote>", path=r"/srv/cf/tab\tnl\nq\"uote"),
    case("raw quote of 4.8", '3</srv/cf/q"uote>', path='/srv/cf/q"uote'),
    case("-xx", r"3<\x2f\x74\x6d>", path=r"\x2f\x74\x6d"),
    case("deleted", "3</srv/gone>(deleted)", path="/srv/gone", deleted=1),
    case("deleted, up to 5.18", "3</srv/gone (deleted)>", path="/srv/gone (deleted)"),
    case("named deleted", "3</srv/odd (deleted)>(deleted)", path="/srv/odd (deleted)", deleted=1),
    case("memfd", "3</memfd:my memfd>(deleted)", path="/memfd:my memfd", deleted=1),
    case("device", "3</dev/zero<char 1:5>>", path="/dev/zero<char 1:5>"),
    case("socket", "3<UNIX-STREAM:[994983]>", path="UNIX-STREAM:[994983]"),
    case("connected", "3<TCP:[127.0.0.1:45678->127.0.0.1:80]>", path="TCP:[127.0.0.1:45678->127.0.0.1:80]"),
    case("connected by 6", "3<TCPv6:[[::1]:45678->[::1]:80]>", path="TCPv6:[[::1]:45678->[::1]:80]"),
    case("pipe", "3<pipe:[870768]>", path="pipe:[870768]"),
    case("anonymous inode", "3<anon_inode:[eventpoll]>", path="anon_inode:[eventpoll]"),
    case("raw brackets of 4.20", "3</srv/cf/x>y<z>", path="/srv/cf/x>y<z"),
    case("raw bracket at the end", "3</srv/cf/resumed>>", path="/srv/cf/resumed>"),
    case("--secontext", "3</etc/x> [etc_t]", path="/etc/x"),
    case("--secontext=full", "3</etc/x> [unconfined_u:object_r:etc_t:s0:c1,c2]", path="/etc/x"),
    case("--secontext, no path", "3 [system_u:object_r:etc_t:s0]"),
    case("-N", "fd=3</etc/x>", path="/etc/x"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "expected"), PATHS)
def test_paths_of_descriptors(written: str, expected: dict[str, Any]) -> None:
    fields = {"addr": 0, "length": 12288, "prot": 1, "flags": 2, "fd": 3, "offset": 0x1000, "result": 0x7FFFF7FF4000}
    text = f"mmap(NULL, 12288, PROT_READ, MAP_PRIVATE, {written}, 0x1000) = 0x7ffff7ff4000 <0.000013>"
    assert said(text) == call("mmap", **fields, duration=13000, **expected)
    assert said(f"close({written}) = 0") == call("close", fd=3, result=0, **expected)


def test_numbers_of_64_bits() -> None:
    text = "mmap(NULL, 18446744073709547520, PROT_NONE, MAP_PRIVATE, -1, 0) = -1 ENOMEM (Cannot allocate memory)"
    assert said(text)["length"] == 18446744073709547520


CALLS = [
    case("brk", "brk(0x426000)                           = 0x426000", **call("brk", addr=0x426000, result=0x426000)),
    case("brk up to 4.10", "brk(0)       = 0x4ae000", **call("brk", addr=0, result=0x4AE000)),
    case("injected brk", "brk(0x40d000) = -1 ENOSYS (Function not implemented) (INJECTED)",
         **call("brk", addr=0x40D000, result=-1, errno=38, injected=1)),
    case("-e raw", "mmap(0, 0x2000, 0x3, 0x22, 0xffffffffffffffff, 0) = 0x7ffff7ff5000",
         **call("mmap", **MAPPED | {"fd": 2**64 - 1}, result=0x7FFFF7FF5000)),
    case("-e raw -N", "mmap(arg1=0, arg2=0x2000, arg3=0x3, arg4=0x22, arg5=0xffffffff, arg6=0) = 0x7ffff7ff5000",
         **call("mmap", **MAPPED | {"fd": 2**32 - 1}, result=0x7FFFF7FF5000)),
    case("-N",
         "mmap(addr=NULL, length=8192, prot=PROT_READ|PROT_WRITE, flags=MAP_PRIVATE|MAP_ANONYMOUS, fd=-1, offset=0)"
         " = 0x7ffff7ff5000", **call("mmap", **MAPPED, result=0x7FFFF7FF5000)),
    case("mmap2", "mmap2(NULL, 8192, PROT_READ, MAP_PRIVATE, 3, 0x3000) = 0xf7fe2000",
         **call("mmap", addr=0, length=8192, prot=1, flags=2, fd=3, offset=0x3000, result=0xF7FE2000)),
    case("old_mmap", "old_mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0xf7ff4000",
         **call("mmap", **MAPPED, result=0xF7FF4000)),
    case("block not readable", "mmap(0x10) = -1 EFAULT (Bad address)", **call("mmap", addr=16, result=-1, errno=14)),
    case("nothing readable", "old_mmap() = -1 EFAULT (Bad address)", **call("mmap", result=-1, errno=14)),
    case("munmap", "munmap(0x1, 1) = -1 EINVAL (Invalid argument)",
         **call("munmap", addr=1, length=1, result=-1, errno=22)),
    case("mremap", "mremap(0x7ffff7ff5000, 8192, 262144, MREMAP_MAYMOVE) = 0x7ffff7eb0000",
         **call("mremap", addr=0x7FFFF7FF5000, old_length=8192, length=262144, flags=1, result=0x7FFFF7EB0000)),
    case("mremap fixed", "mremap(0x7000, 12288, 12288, MREMAP_MAYMOVE|MREMAP_FIXED, 0x9000) = 0x9000",
         **call("mremap", addr=0x7000, old_length=12288, length=12288, flags=3, new_addr=0x9000, result=0x9000)),
    case("mremap from 6.10", "mremap(0x7000, 4096, 4096, MREMAP_MAYMOVE|MREMAP_DONTUNMAP, NULL) = 0x9000",
         **call("mremap", addr=0x7000, old_length=4096, length=4096, flags=5, new_addr=0, result=0x9000)),
    case("mremap before 5.7", "mremap(0x7000, 4096, 4096, MREMAP_MAYMOVE|0x4) = 0x9000",
         **call("mremap", addr=0x7000, old_length=4096, length=4096, flags=5, result=0x9000)),
    case("mremap unknown", "mremap(0x7000, 4096, 8192, 0x18 /* MREMAP_??? */) = -1 EINVAL (Invalid argument)",
         **call("mremap", addr=0x7000, old_length=4096, length=8192, flags=0x18, result=-1, errno=22)),
    case("mremap -N", "mremap(old_address=0x7000, old_size=1, new_size=2, flags=0, new_address=0x9000) = 0x9000",
         **call("mremap", addr=0x7000, old_length=1, length=2, flags=0, new_addr=0x9000, result=0x9000)),
    case("pkey_mprotect", "pkey_mprotect(0x7000, 4096, PROT_READ, -1) = 0",
         **call("pkey_mprotect", addr=0x7000, length=4096, prot=1, pkey=-1, result=0)),
    case("pkey_mprotect by number", "syscall_329(0x7000, 0x1000, 0x1, 0x63, 0, 0) = -1 (errno 22)",
         **call("pkey_mprotect", addr=0x7000, length=4096, prot=1, pkey=0x63, result=-1, errno=22)),
    case("madvise", "madvise(0x7000, 4096, MADV_DONTNEED) = 0",
         **call("madvise", addr=0x7000, length=4096, flags=4, result=0)),
    case("madvise unknown", "madvise(0x7000, 4096, 0x77 /* MADV_??? */) = -1 EINVAL (Invalid argument)",
         **call("madvise", addr=0x7000, length=4096, flags=0x77, result=-1, errno=22)),
    case("remap_file_pages", "remap_file_pages(0x7000, 4096, PROT_NONE, 2, MAP_FILE|MAP_NONBLOCK) = 0",
         **call("remap_file_pages", addr=0x7000, length=4096, prot=0, pgoff=2, flags=0x10000, result=0)),
    case("shmget", "shmget(IPC_PRIVATE, 20480, IPC_CREAT|0600) = 98350",
         **call("shmget", length=20480, flags=0o1600, result=98350, shmid=98350, product=1)),
    case("shmat", "shmat(98350, 0x50000000, SHM_RDONLY|SHM_REMAP) = 0x50000000",
         **call("shmat", shmid=98350, addr=0x50000000, flags=0o50000, result=0x50000000)),
    case("shmat of 4.6", "shmat(98350, 0, 0) = ?", **call("shmat", shmid=98350, addr=0, flags=0, unknown_result=1)),
    case("shmat by number", "SYS_397(0x1802e, 0, 0) = 0xf7ff3000",
         **call("shmat", shmid=98350, addr=0, flags=0, result=0xF7FF3000)),
    case("shmdt", "shmdt(0x7f1486f88000) = 0", **call("shmdt", addr=0x7F1486F88000, result=0)),
    case("shmctl", "shmctl(98350, IPC_RMID, NULL) = 0", **call("shmctl", shmid=98350, op=0, result=0)),
    case("shmctl IPC_STAT",
         "shmctl(7, IPC_STAT, {shm_perm={uid=0, gid=0, mode=0600, key=0, cuid=0, cgid=0}, shm_segsz=20480, "
         "shm_cpid=97, shm_lpid=0, shm_nattch=0, shm_atime=0, shm_dtime=0, "
         "shm_ctime=1795368935 /* 2026-11-22T17:35:35+0000 */}) = 0",
         **call("shmctl", shmid=7, op=2, length=20480, result=0)),
    case("mlock2", "mlock2(0x7000, 4096, MLOCK_ONFAULT) = 0",
         **call("mlock2", addr=0x7000, length=4096, flags=1, result=0)),
    case("mlockall", "mlockall(MCL_CURRENT|MCL_FUTURE) = 0", **call("mlockall", flags=3, result=0)),
    case("munlockall", "munlockall() = 0", **call("munlockall", result=0)),
    case("msync", "msync(0x7000, 4096, MS_SYNC) = 0", **call("msync", addr=0x7000, length=4096, flags=4, result=0)),
    case("mincore", "mincore(0x7000, 12288, [1, 1, 1]) = 0", **call("mincore", addr=0x7000, length=12288, result=0)),
    case("mincore of 4.8", "mincore(0x7000, 12288, [11100000000000000000000000000000...]) = 0",
         **call("mincore", addr=0x7000, length=12288, result=0)),
    case("mseal", "mseal(0x7000, 4096, 0) = 0", **call("mseal", addr=0x7000, length=4096, flags=0, result=0)),
    case("map_shadow_stack", "map_shadow_stack(NULL, 8192, SHADOW_STACK_SET_TOKEN) = 0x7ffff7dcd000",
         **call("map_shadow_stack", addr=0, length=8192, flags=1, result=0x7FFFF7DCD000)),
    case("name of a mapping", 'prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, 0x7000, 4096, "my heap") = 0',
         **call("prctl", op=0x53564D41, arg2=0, arg3=0x7000, arg4=4096, addr=0x7000, length=4096,
                path="my heap", result=0)),
    case("name of a mapping, -N",
         'prctl(op=PR_SET_VMA, attr=PR_SET_VMA_ANON_NAME, addr=0x7000, size=4096, name="my heap") = 0',
         **call("prctl", op=0x53564D41, arg2=0, arg3=0x7000, arg4=4096, addr=0x7000, length=4096,
                path="my heap", result=0)),
    case("name of a mapping before 5.17", "prctl(0x53564d41 /* PR_??? */, 0, 0x7000, 0x1000, 0x403000) = -1 EINVAL (x)",
         **call("prctl", op=0x53564D41, arg2=0, arg3=0x7000, arg4=4096, arg5=0x403000, addr=0x7000, length=4096,
                result=-1, errno=22)),
    case("break moved", "prctl(PR_SET_MM, PR_SET_MM_BRK, 0x40e000, 0, 0) = 0",
         **call("prctl", op=35, arg2=7, arg3=0x40E000, arg4=0, arg5=0, addr=0x40E000, length=0, result=0)),
    case("other prctl", 'prctl(PR_SET_NAME, "worker") = 0', **call("prctl", op=15, result=0)),
    case("filter", "prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, {len=2, filter=[BPF_STMT(BPF_LD|BPF_W|BPF_ABS, 0x4), "
         "BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K, 0xc000003e, 0, 0x2)]}) = 0", **call("prctl", op=22, result=0)),
    case("prlimit64", "prlimit64(0, RLIMIT_AS, {rlim_cur=1048576*1024, rlim_max=RLIM64_INFINITY}, NULL) = 0",
         **call("prlimit", to_pid=0, resource=9, rlim_cur=2**30, rlim_max=2**63 - 1, product=1, result=0)),
    case("prlimit64, plain", "prlimit64(0, RLIMIT_DATA, {rlim_cur=1025, rlim_max=1025}, NULL) = 0",
         **call("prlimit", to_pid=0, resource=2, rlim_cur=1025, rlim_max=1025, result=0)),
    case("prlimit64 asks", "prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}) = 0",
         **call("prlimit", to_pid=0, resource=3, length=8 << 20, product=1, result=0)),
    case("getrlimit", "getrlimit(RLIMIT_DATA, {rlim_cur=1025, rlim_max=RLIM64_INFINITY}) = 0",
         **call("prlimit", resource=2, length=1025, result=0)),
    case("io_setup", "io_setup(128, [0x7f66b019e000]) = 0",
         **call("io_setup", nr_events=128, addr=0x7F66B019E000, result=0)),
    case("rename", 'renameat2(AT_FDCWD, "n1", 3</srv>, "n2", RENAME_EXCHANGE) = 0',
         **call("rename", dirfd=-100, path="n1", result_path="n2", flags=2, result=0)),
    case("ugetrlimit -N", "ugetrlimit(resource=RLIMIT_AS, rlim={rlim_cur=RLIM_INFINITY, rlim_max=RLIM_INFINITY}) = 0",
         **call("prlimit", resource=9, length=2**63 - 1, result=0)),
    case("flag negated", "prctl(PR_SET_TAGGED_ADDR_CTRL, !PR_TAGGED_ADDR_ENABLE|PR_MTE_TCF_NONE, 0x1, 0x2, 0x3) = 0",
         **call("prctl", arg3=1, arg4=2, arg5=3, result=0)),
    case("field shifted", "prctl(PR_RISCV_V_SET_CONTROL, 0x3|PR_X<<2|0x3<<2|!PR_Y) = -1 EINVAL (Invalid argument)",
         **call("prctl", arg2=3, result=-1, errno=22)),
    case("prlimit64 -X verbose",
         "prlimit64(0, 0x2 /* RLIMIT_DATA */, {rlim_cur=8388608 /* 8192*1024 */, rlim_max=18446744073709551615 "
         "/* RLIM64_INFINITY */}, NULL) = 0",
         **call("prlimit", to_pid=0, resource=2, rlim_cur=8388608, rlim_max=2**64 - 1, result=0)),
    case("prlimit64 unknown", "prlimit64(0, 0x63 /* RLIMIT_??? */, {rlim_cur=1, rlim_max=1}, NULL) = -1 EINVAL (x)",
         **call("prlimit", to_pid=0, resource=0x63, rlim_cur=1, rlim_max=1, result=-1, errno=22)),
    case("setrlimit", "setrlimit(RLIMIT_STACK, {rlim_cur=RLIM64_INFINITY, rlim_max=RLIM64_INFINITY}) = 0",
         **call("prlimit", resource=3, rlim_cur=2**63 - 1, rlim_max=2**63 - 1, result=0)),
    case("execve", 'execve("bin/forks", ["bin/forks", "it\'s \\"5\\"", "cut"...], 0x7fff8 /* 6 vars */) = 0',
         **call("execve", path="bin/forks", result=0)),
    case("execve before 4.17", 'execve("bin/forks", ["bin/forks"], [/* 6 vars */]) = -1 ENOENT (No such file)',
         **call("execve", path="bin/forks", result=-1, errno=2)),
    case("execve -v", 'execve("bin/forks", ["bin/forks", ...], ["A=b", "C=0x1) = 2"]) = 0',
         **call("execve", path="bin/forks", result=0)),
    case("execve -e raw", "execve(0x7fffffffd840, 0x7fffffffecf8, 0x7fffffffed08) = 0", **call("execve", result=0)),
    case("execve --secontext", 'execve("bin/forks" [bin_t], ["bin/forks"], 0x7fff8 /* 6 vars */) = 0',
         **call("execve", path="bin/forks", result=0)),
    case("execve, not readable", 'execve("bin/x", ["a", 0x7fff, ???], NULL) = -1 EFAULT (Bad address)',
         **call("execve", path="bin/x", result=-1, errno=14)),
    case("execve, unterminated", 'execve("bin/x", ["bin/x"], 0x7fff8 /* 4 vars, unterminated */) = 0',
         **call("execve", path="bin/x", result=0)),
    case("execveat", 'execveat(AT_FDCWD</srv>, "bin/x", ["x"], 0x7fff8 /* 6 vars */, AT_SYMLINK_NOFOLLOW) = 0',
         **call("execveat", dirfd=-100, dirfd_path="/srv", path="bin/x", result=0)),
    case("fork", "fork()                  = 3888", **call("fork", result=3888, child_pid=3888)),
    case("fork -Y", "fork() = 3907<forks>", **call("fork", result=3907, child_pid=3907)),
    case("fork -e raw", "fork() = 0xfcc", **call("fork", result=4044, child_pid=4044)),
    case("fork failed", "fork() = -1 EAGAIN (Resource temporarily unavailable)", **call("fork", result=-1, errno=11)),
    case("fork --namespace=new", "vfork() = 12 /* 3912 in strace's PID NS */",
         **call("vfork", result=12, child_pid=12)),
    case("clone",
         "clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f0) = 9",
         **call("clone", flags=0x1200011, result=9, child_pid=9)),
    case("clone -X verbose", "clone(child_stack=NULL, flags=0x1200000 /* CLONE_CHILD_CLEARTID */|17 /* SIGCHLD */, "
         "child_tidptr=0x7f0) = 9", **call("clone", flags=0x1200011, result=9, child_pid=9)),
    case("clone -e raw", "clone(0x4111, 0, 0, 0, 0) = 0x1663",
         **call("clone", flags=0x4111, result=5731, child_pid=5731)),
    case("clone of a thread", f"clone(child_stack=0x7ff0, flags={CLONE_THREAD}, parent_tid=[97], tls=0x7f40, "
         "child_tidptr=0x7f50) = 97", **call("clone", flags=flags(CLONE_THREAD), result=97, child_pid=97)),
    case("clone on i386",
         "clone(child_stack=0xf7d4, flags=CLONE_VM|CLONE_SETTLS, parent_tid=[9], tls={entry_number=12, "
         "base_addr=0xf7d48b40, limit=0x0fffff, seg_32bit=1, contents=0}, child_tidptr=0xf7d48ba8) = 9",
         **call("clone", flags=0x80100, result=9, child_pid=9)),
    case("clone on i386, older", "clone(child_stack=0xf7d4, flags=CLONE_VM, tls={entry_number:12, seg_32bit:1}) = 9",
         **call("clone", flags=0x100, result=9, child_pid=9)),
    case("clone3", f"clone3({{flags={CLONE_THREAD}, child_tid=0x7f, parent_tid=0x7f, exit_signal=0, stack=0x7f, "
         "stack_size=0x7fff80, tls=0x7f46919d46c0} => {parent_tid=[4264]}, 88) = 4264",
         **call("clone3", flags=flags(CLONE_THREAD), result=4264, child_pid=4264)),
    case("clone3, extra bytes", 'clone3({flags=0, exit_signal=SIGCHLD, stack=NULL, stack_size=0, /* bytes 64..87 */ '
         '"\\x01\\x00"...}, 96) = 12', **call("clone3", flags=0, result=12, child_pid=12)),
    case("clone3 by number", "syscall_435(0x7fffffffe9f0, 0x58, 0x411f60, 0x8, 0x7ffff7ff66c0, 0x7f) = 0x1651",
         **call("clone3", result=5713, child_pid=5713)),
    case("clone3 by hexadecimal number", "syscall_0x1b3(0x7fffffffe9f0, 0x58, 0x411f60, 0x8, 0x7f, 0x7f) = 0x1543",
         **call("clone3", result=5443, child_pid=5443)),
    case("32 arguments of 4.6", f"syscall_435({', '.join(['0x7f'] * 32)}) = 0x1543",
         **call("clone3", result=5443, child_pid=5443)),
    case("exit", "exit(0)                           = ?", **call("exit", exit_status=0, unknown_result=1)),
    case("_exit", "_exit(1)                          = ?", **call("exit", exit_status=1, unknown_result=1)),
    case("exit_group", "exit_group(3) = ?", **call("exit_group", exit_status=3, unknown_result=1)),
    case("exit_group -N", "exit_group(status=-1) = ?", **call("exit_group", exit_status=-1, unknown_result=1)),
    case("ended inside, 4.6", "munmap(0x7000, 4096 <unfinished ... exit status 0>",
         **call("munmap", addr=0x7000, length=4096, unknown_result=1)),
    case("ended inside", "munmap(0x7000, 4096 <unfinished ...>) = ?",
         **call("munmap", addr=0x7000, length=4096, unknown_result=1)),
    case("personality", "personality(PER_LINUX|ADDR_NO_RANDOMIZE) = 0x40000 (PER_LINUX|ADDR_NO_RANDOMIZE)",
         **call("personality", flags=0x40000, result=0x40000)),
    case("restarted", "restart_syscall(<... resuming interrupted read ...>) = 0", **call("restart_syscall", result=0)),
    case("openat", 'openat(AT_FDCWD</srv>, "/etc/x", O_RDONLY|O_CLOEXEC) = 3</etc/x>',
         **call("openat", dirfd=-100, dirfd_path="/srv", path="/etc/x", flags=0o2000000, result=3,
                result_path="/etc/x")),
    case("openat -X verbose",
         'openat(-100 /* AT_FDCWD */</srv>, "x", 0x80000 /* O_RDONLY|O_CLOEXEC */) = 3</srv/x>',
         **call("openat", dirfd=-100, dirfd_path="/srv", path="x", flags=0x80000, result=3, result_path="/srv/x")),
    case("open", 'open("/srv/x", O_RDWR|O_CREAT, 0600) = 3', **call("open", path="/srv/x", flags=0o102, result=3)),
    case("openat2", 'openat2(AT_FDCWD, "x", {flags=O_RDONLY, resolve=RESOLVE_BENEATH}, 24) = 3',
         **call("openat2", dirfd=-100, path="x", flags=0, result=3)),
    case("close_range", "close_range(3, 4294967295, 0) = 0",
         **call("close_range", fd=3, last_fd=4294967295, flags=0, result=0)),
    case("dup2", "dup2(3</etc/x>, 9) = 9</etc/x>",
         **call("dup2", fd=3, path="/etc/x", new_fd=9, result=9, result_path="/etc/x")),
    case("fcntl", "fcntl(3</etc/x>, F_DUPFD_CLOEXEC, 10) = 10</etc/x>",
         **call("fcntl", fd=3, path="/etc/x", op=1030, arg3=10, result=10, result_path="/etc/x")),
    case("fcntl64", "fcntl64(3, F_GETFL) = 0x8402 (flags O_RDWR|O_APPEND|O_LARGEFILE)",
         **call("fcntl", fd=3, op=3, result=0x8402)),
    case("memfd_create", 'memfd_create("my m"..., 0) = 3</memfd:my memfd>(deleted)',
         **call("memfd_create", path="my m", flags=0, result=3, result_path="/memfd:my memfd", result_deleted=1)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CALLS)
def test_calls(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


SPLIT = [
    case("opened", "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0 <unfinished ...>",
         kind="opened", call="mmap", **MAPPED),
    case("opened without arguments", "vfork( <unfinished ...>", kind="opened", call="vfork"),
    case("opened behind a comma", "prlimit64(0, RLIMIT_AS, NULL,  <unfinished ...>",
         kind="opened", call="prlimit", to_pid=0, resource=9),
    case("opened execve", 'execve("bin/x", ["bin/x"], 0x7fff8 /* 6 vars */ <unfinished ...>',
         kind="opened", call="execve", path="bin/x"),
    case("opened restart", "restart_syscall(<... resuming interrupted read ...> <unfinished ...>",
         kind="opened", call="restart_syscall"),
    case("opened clone", "clone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD <unfinished ...>",
         kind="opened", call="clone", flags=0x4111),
    case("closed with the rest", "<... prlimit64 resumed>{rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}) = 0",
         kind="closed", call="prlimit", length=8 << 20, product=1, result=0),
    case("closed io_setup", "<... io_setup resumed>[0x7f66b019e000]) = 0",
         kind="closed", call="io_setup", addr=0x7F66B019E000, result=0),
    case("closed from 6.16", "<... prlimit64 resumed>, {rlim_cur=4, rlim_max=RLIM64_INFINITY}) = 0 <0.000008>",
         kind="closed", call="prlimit", length=4, result=0, duration=8000),
    case("closed clone", "<... clone resumed> child_stack=0, flags=CLONE_VM|SIGCHLD) = 5426",
         kind="closed", call="clone", flags=0x111, result=5426, child_pid=5426),
    case("closed clone from 6.16", "<... clone resumed>, child_tidptr=0x7fffffffebcc) = 5989",
         kind="closed", call="clone", result=5989, child_pid=5989),
    case("closed clone3", "<... clone3 resumed> => {parent_tid=[4328]}, 88) = 4328",
         kind="closed", call="clone3", result=4328, child_pid=4328),
    case("closed -N", "<... mmap resumed>offset=0) = 0x7000", kind="closed", call="mmap", offset=0, result=0x7000),
    case("closed exit", "<... exit resumed>) = ?", kind="closed", call="exit", unknown_result=1),
    case("closed by the end", "<... munmap resumed> <unfinished ...>) = ?",
         kind="closed", call="munmap", unknown_result=1),
    case("opened again", "<... execve resumed> <unfinished ...>", kind="opened", call="execve"),
    case("detached", "munmap(0x60000000, 8192 <detached ...>",
         kind="detached", call="munmap", addr=0x60000000, length=8192),
    case("pid changed", '4322  execve("bin/x", ["x", "again"], 0x7fff8 /* 6 vars */ <pid changed to 4321 ...>',
         kind="pid_changed", call="execve", pid=4322, path="bin/x", to_pid=4321),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SPLIT)
def test_split_calls(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


OTHER_EVENTS = [
    case("signal", "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_ACCERR, si_addr=0x40000010} ---", signal="SIGSEGV"),
    case("real-time signal", "--- SIGRT_2 {si_signo=SIGRT_2, si_code=SI_QUEUE, si_pid=1<a ---b>, si_value={int=5}} ---",
         signal="SIGRT_2"),
    case("signal of a child", "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=5, si_status=SIGKILL, "
         "si_utime=0, si_stime=1 /* 0.01 s */} ---", kind="child_ended", to_pid=5),
    case("child of -Y", "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=5<a b>, si_status=0} ---",
         kind="child_ended", to_pid=5),
    case("child that stopped", "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_STOPPED, si_pid=5, si_status=SIGSTOP} ---",
         signal="SIGCHLD"),
    case("signal of 4.6", "--- {si_signo=SIGSEGV, si_code=SEGV_ACCERR, si_addr=0x4} (Segmentation fault) ---",
         signal="SIGSEGV"),
    case("signal of 4.5", "--- SIGSEGV (Segmentation fault) @ 0 (0) ---", signal="SIGSEGV"),
    case("stop of 4.6", "--- Stopped (signal) by SIGSTOP ---", signal="SIGSTOP"),
    case("killed", "+++ killed by SIGKILL +++", kind="killed", signal="SIGKILL"),
    case("killed with a core", "+++ killed by SIGSEGV (core dumped) +++", kind="killed", signal="SIGSEGV"),
    case("superseded", "4321  +++ superseded by execve in pid 4322 +++", kind="superseded", pid=4321, to_pid=4322),
    case("superseded -Y", "+++ superseded by execve in pid 4322<mtexec> +++", kind="superseded", to_pid=4322),
    case("64 bit", "[ Process PID=5713 runs in 64 bit mode. ]", kind="notice", to_pid=5713, bits=64),
    case("x32", "[ Process PID=5713 runs in x32 mode. ]", kind="notice", to_pid=5713, bits=32),
    case("notice of 5.5", "strace: [ Process PID=5713 runs in 32 bit mode. ]", kind="notice", to_pid=5713, bits=32),
    case("frame", " > /usr/lib/libc.so.6(__munmap+0x7) [0x101a07]",
         kind="frame", frame_module="/usr/lib/libc.so.6", frame_symbol="__munmap"),
    case("frame without symbol", " > /srv/bin/mini() [0x1234]", kind="frame", frame_module="/srv/bin/mini"),
    case("frame with a symbol that has no name", " > /usr/bin/sqlite3(+0x0) [0xa7a1]",
         kind="frame", frame_module="/usr/bin/sqlite3"),
    case("C++ frame", " > /srv/x(ns::f(int, char) const+0x4) [0x1234]",
         kind="frame", frame_module="/srv/x", frame_symbol="ns::f(int, char) const"),
    case("frame with its source", " > /srv/x(brk+0x7) [0x1fc47] ../sysdeps/unix/a b/brk.c:37",
         kind="frame", frame_module="/srv/x", frame_symbol="brk"),
    case("frame that could not be read", " > unexpected_backtracing_error [0x1234]", kind="frame"),
    case("no frame", " > no matching address range", kind="frame"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), OTHER_EVENTS)
def test_other_events(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == {"kind": "signal"} | expected


NOISE = {
    "nothing": "",
    "dump": ' | 00000  7f 45 4c 46 02 01 01 03  00 00 00 00 00 00 00 00  .ELF("...<..... |',
    "head of a table": "% time     seconds  usecs/call     calls    errors syscall",
    "head of -U": "syscall          calls    errors",
    "rule of a table": "------ ----------- ----------- --------- --------- ----------------",
    "row of a table": " 24.77    0.000312          11        28        12 mmap",
    "row without errors": "  1.77    0.000012          11        28           munmap",
    "row of -U": "mmap                28        12   0.000312",
    "last row": "100.00    0.001257          15        82        26 total",
    "title of a table": "System call usage summary for 32 bit mode:",
    "attached": "strace: Process 3268 attached",
    "attached, full name": "/usr/bin/strace: Process 3268 attached with 2 threads",
    "attached, up to 4.10": "Process 5422 attached",
    "suspended": "Process 5311 suspended",
    "limit": "strace: System call limit has been reached, detaching tracees",
    "path": 'strace: Requested path "lib" resolved into "/usr/lib"',
    "trouble": " <ptrace(SYSCALL):No such process>",
    "restart": "<Cannot restart pid 12 with ptrace(PTRACE_SYSCALL): No such process>",
    "drawing": " | strace --inject=munmap:retval=0 mmap(NULL)  \\     |-. .-.|",
    "another drawing": "  ______________________________________________         ____",
    "virtual processor": "VCPU:0> mmio read len 4",
}


@pytest.mark.parametrize("text", NOISE.values(), ids=NOISE)
def test_noise_says_nothing(text: str) -> None:
    assert said(text) == {"kind": "noise"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('write(1, "one\\n", 4) = 4', "other_call", id="another call"),
        pytest.param("[pid  5421] wait4(5422,  <unfinished ...>", "other_call", id="another call, opened"),
        pytest.param("5421  <... wait4 resumed> [{WIFEXITED(s) && x == 3}], 0, NULL) = 5", "other_call", id="resumed"),
        pytest.param("syscall_334(0x4aeca0, 0x20, 0) = 0", "other_call", id="another call by number"),
        pytest.param("mmap(NULL, 4096, PROT_RE", "cut_line", id="cut in the arguments"),
        pytest.param("munmap(0x7000, 4096)     ", "cut_line", id="cut before the result"),
        pytest.param('execve("bin/fo', "cut_line", id="cut in a string"),
        pytest.param("mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3</usr/li", "cut_line", id="cut in a path"),
        pytest.param("brk(NULL) = 0x405000 <0.00", "cut_line", id="cut in the duration"),
        pytest.param("brk(NULL <unfini", "cut_line", id="cut in a mark"),
        pytest.param("[pid  18", "cut_line", id="cut in the pid"),
        pytest.param("brk(NULL) = 0x405000 and more", "unknown_call_form", id="more than a call"),
        pytest.param("brk{NULL}", "unknown_line", id="no call"),
        pytest.param("Hello, world", "unknown_line", id="prose"),
        pytest.param(")                                  = 3269", "unknown_line", id="half a line"),
    ],
)
def test_lines_not_understood(text: str, reason: str) -> None:
    with pytest.raises(LineError) as error:
        parse(text, "strace")
    assert error.value.reason == reason


# ---- spans: what the fields of a line are made of ----


def test_numbers_are_forms_over_whole_tokens() -> None:
    text = "12  17:36:29.824572 munmap(0x7000, 4096) = -1 EINVAL (Invalid argument) <0.013>"
    numbers = parse(text, "strace").numbers
    tokens = {name: [(text[start:end], factor) for start, end, factor in n.terms] for name, n in numbers.items()}
    assert tokens == {
        "pid": [("12", 1)],
        "time": [("17", 3600 * 10**9), ("36", 60 * 10**9), ("29", 10**9), ("824572", 10**3)],
        "addr": [("0x7000", 1)],
        "length": [("4096", 1)],
        "result": [("1", -1)],
        "errno": [],
        "duration": [("0", 10**9), ("013", 10**6)],
    }


def test_texts_are_spans_without_quotes_and_brackets() -> None:
    text = 'openat(AT_FDCWD</srv>, "cu"..., O_RDONLY) = 3</srv/cut>'
    texts = parse(text, "strace").texts
    assert {name: text[t.start : t.end] for name, t in texts.items()} == {
        "dirfd_path": "/srv",
        "path": "cu",
        "result_path": "/srv/cut",
    }


# ---- captures with known truth ----

LINES = oracle.scenarios().get("lines", Path("/nonexistent")) / "strace"
BITS = (1 << 64) - 1


def rows(log: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the lines that are whole calls, each with what is known to be true of it."""
    lines = log.read_text(encoding="latin-1").split("\n")
    expected = [json.loads(row) for row in log.with_suffix(".expected.jsonl").read_text().splitlines()]
    return [(lines[row["line"] - 1], row) for row in expected]


def wanted(row: dict[str, Any]) -> dict[str, int]:
    """Return the fields of a recorded call by our names, as unsigned numbers of 64 bits."""
    names = {"addr": "addr", "length": "length", "new_length": "length", "prot_int": "prot", "flags_int": "flags",
             "advice_int": "flags", "fd": "fd", "offset": "offset", "pgoff": "pgoff", "pkey": "pkey",
             "ret": "result"}  # fmt: skip
    known = {names[key]: value for key, value in row.items() if key in names}
    if "new_length" in row:
        known["old_length"] = row["length"]
    if row["errno"] is not None:
        known["errno"] = ERRNO[row["errno"]]
    return {name: value & BITS for name, value in known.items()}


def shown(line: Line, text: str, width: dict[str, int]) -> dict[str, int]:
    """Return the fields of a line cut to the width of what they are in the call."""
    numbers = {name: number.value(text) for name, number in line.numbers.items()}
    signed = {name: (n + (1 << 31)) % (1 << 32) - (1 << 31) if name in width else n for name, n in numbers.items()}
    return {name: number & BITS for name, number in signed.items()}


@pytest.mark.skipif(not LINES.is_dir(), reason="no captures")
@pytest.mark.parametrize("log", sorted(LINES.glob("*.log")), ids=lambda log: log.stem)
def test_captured_calls(log: Path) -> None:
    differences = []
    compared = 0
    for text, row in rows(log):
        try:
            line = parse(text, "strace")
        except LineError:
            assert "attached" in text or text.startswith((")", " =", ",")), text  # glued text is undone before
            continue
        if line.kind != "call":
            continue
        compared += 1
        truth = {name: value for name, value in wanted(row).items() if name not in row.get("not_visible", ())}
        got = shown(line, text, {"fd": 32, "pkey": 32})
        if line.call != field_name(row["call"]) or any(got.get(name) != value for name, value in truth.items()):
            differences.append((text, truth, {name: got.get(name) for name in truth}))
    assert not differences
    assert compared


def field_name(call_name: str) -> str:
    return {"mmap2": "mmap"}.get(call_name, call_name)


@pytest.mark.parametrize("folder", sorted(oracle.scenarios()))
def test_no_captured_line_of_interest_fails(folder: str) -> None:
    for log in sorted(oracle.scenarios()[folder].glob("*/strace.log*")):
        if log.suffix == ".gz":
            continue
        *lines, _ = log.read_text(encoding="latin-1").split("\n")
        for text in lines[:3000]:
            try:
                parse(text, "strace")
            except LineError as error:
                assert error.reason == "other_call", text


def test_names_of_arguments() -> None:
    assert field_of("mremap", "old_address") == "addr"
    assert field_of("prctl", "size") == "arg4"
