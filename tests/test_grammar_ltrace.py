"""What each form of ltrace line says: versions 0.5 to 0.8, all options."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.grammar import LineError, parse
from replay.grammar.ltrace import MALLOC_FAMILY
from replay.linux.constants import CALLS, ERRNO


def said(text: str) -> dict[str, Any]:
    """Return all that a line says: its kind, its call, and its fields with their values."""
    line = parse(text, "ltrace")
    fields: dict[str, Any] = {"kind": line.kind}
    if line.call:
        fields["call"] = line.call
    fields |= {name: number.value(text) for name, number in line.numbers.items()}
    return fields | {name: value.value(text) for name, value in line.texts.items()}


def case(name: str, text: str, **expected: Any) -> Any:
    return pytest.param(text, expected, id=name)


def call(name: str, text: str, **expected: Any) -> Any:
    return case(name, text, kind="call", **expected)


def system(name: str, text: str, **expected: Any) -> Any:
    return case(name, text, kind="call", system=1, **expected)


# ---- prefixes ----

MALLOC = {"kind": "call", "call": "malloc", "length": 10, "result": 0x5581}
AT_17_49_23 = (17 * 3600 + 49 * 60 + 23) * 10**9
EPOCH = 1795370586 * 10**9

PREFIXES = [
    case("none", ""),
    case("pid on stderr", "[pid 9920] ", pid=9920),
    case("pid in a file", "9907 ", pid=9907),
    case("-r", "  0.000443 ", relative=443000),
    case("-r, long", "123456.000443 ", relative=123456 * 10**9 + 443000),
    case("-t", "17:49:23 ", time=AT_17_49_23),
    case("-tt", "17:49:23.670034 ", time=AT_17_49_23 + 670034000),
    case("early", "00:08:09.000001 ", time=(8 * 60 + 9) * 10**9 + 1000),
    case("-ttt", "1795370586.085611 ", time=EPOCH + 85611000),
    case("-i", "[0x55871b9d9311] "),
    case("-i, unknown", "[(nil)] "),
    case("-n", "      "),
    case("-f -r", "9907   0.000443 ", pid=9907, relative=443000),
    case("-f -ttt -i -n", "9907 1795370586.085611 [0x4012fe]    ", pid=9907, time=EPOCH + 85611000),
    case("-f -t -i on stderr", "[pid 9920] 17:49:23 [0x4012fe] ", pid=9920, time=AT_17_49_23),
    case("caller", "prog->", caller="prog"),
    case("caller with digits", "alloc32->", caller="alloc32"),
    case("library as caller", "libc.so.6->", caller="libc.so.6"),
    case("caller named like a number", "7z->", caller="7z"),
    case("caller with spaces and dashes", "my prog-2.->", caller="my prog-2."),
    case("the program [", "9907 [->", pid=9907, caller="["),
    case("all", "9907 17:49:23.670034 [0x4012fe]   libstdc++.so.6->", pid=9907, time=AT_17_49_23 + 670034000,
         caller="libstdc++.so.6"),
]  # fmt: skip


@pytest.mark.parametrize(("prefix", "expected"), PREFIXES)
def test_prefixes(prefix: str, expected: dict[str, Any]) -> None:
    assert said(f"{prefix}malloc(10)                = 0x5581") == MALLOC | expected


def test_every_event_can_have_a_prefix() -> None:
    prefix = "9907 17:49:23 [0x4012fe] "
    before = {"pid": 9907, "time": AT_17_49_23}
    assert said(f"{prefix}<... malloc resumed> ) = nil") == {"kind": "closed", "call": "malloc", "result": 0} | before
    assert said(f"{prefix}--- SIGCHLD (Child exited) ---") == {"kind": "signal", "signal": "SIGCHLD"} | before
    assert said(f"{prefix}+++ exited (status 3) +++") == {"kind": "exited", "exit_status": 3} | before
    assert said(f"{prefix}--- Called exec() ---") == {"kind": "exec"} | before


# ---- the malloc family ----

LIBRARY_CALLS = [
    call("malloc", "malloc(10) = 0x5581999bb2a0", call="malloc", length=10, result=0x5581999BB2A0),
    call("0.5", "malloc(10) = 0x007902a0", call="malloc", length=10, result=0x7902A0),
    call("nil", "malloc(18446744073709551615) = nil", call="malloc", length=(1 << 64) - 1, result=0),
    call("NULL", "malloc(9223372036854775807) = NULL", call="malloc", length=(1 << 63) - 1, result=0),
    call("0", "malloc(4294967295) = 0", call="malloc", length=(1 << 32) - 1, result=0),
    call("no prototype", "malloc(0x21000, 0, 1, 3072) = 0x7c11", call="malloc", length=0x21000, result=0x7C11),
    call("no prototype, -1", "malloc(-1, 0, 1, 3072, 0) = 0", call="malloc", length=-1, result=0),
    call("unknown", "malloc(???) = ?", call="malloc", unknown_result=1),
    call("times", "malloc(10) = 0x5581 <1.000587>", call="malloc", length=10, result=0x5581, duration=1000587000),
    call("symbol of a library", "malloc@libc.so.6(100) = 0x5581", call="malloc", length=100, result=0x5581,
         library="libc.so.6"),
    call("calloc", "calloc(7, 16) = 0x5581", call="calloc", count=7, size=16, result=0x5581),
    call("realloc", "realloc(0x5581, 100) = 0x5590", call="realloc", addr=0x5581, length=100, result=0x5590),
    call("realloc of nothing", "realloc(nil, 24) = 0x5590", call="realloc", addr=0, length=24, result=0x5590),
    call("free", "free(0x5581) = <void>", call="free", addr=0x5581),
    call("free, times", "free(NULL) = <void> <0.000058>", call="free", addr=0, duration=58000),
    call("posix_memalign", "posix_memalign(0x7ffeb0963160, 64, 200, 0x7f5d33e16350) = 0", call="posix_memalign",
         addr=0x7FFEB0963160, align=64, length=200, result=0),
    call("posix_memalign fails", "posix_memalign(0x7ffe, 3, 200, 0x7f5d33e16350) = 22", call="posix_memalign",
         addr=0x7FFE, align=3, length=200, result=22),
    call("aligned_alloc", "aligned_alloc(128, 256, 57, 0x7f5d) = 0x562c", call="aligned_alloc", align=128, length=256,
         result=0x562C),
    call("memalign", "memalign(4096, 300, 70, 0x7f5d) = 0x562c", call="memalign", align=4096, length=300,
         result=0x562C),
    call("valloc", "valloc(50, 0x55ba2d7ff0c0, 66, 0x7f08) = 0x562c", call="valloc", length=50, result=0x562C),
    call("pvalloc", "pvalloc(50, 0x55ba2d7ff0c0, 60, 0x7f08) = 0x562c", call="pvalloc", length=50, result=0x562C),
    call("reallocarray", "reallocarray(0, 10, 12, 0x7f5d33e16350) = 0x562c", call="reallocarray", addr=0, count=10,
         size=12, result=0x562C),
    call("malloc_usable_size", "malloc_usable_size(0x55, 99, 0x7f, 1) = 24", call="malloc_usable_size", addr=0x55,
         result=24),
    call("malloc_trim", "malloc_trim(0, 0x186a0, 0x7f4d, 5) = 1", call="malloc_trim", length=0, result=1),
    call("mallopt", "mallopt(1, 0x186a0, 0x55bb722affe6, 5) = 1", call="mallopt", op=1, arg2=100000, result=1),
    call("sbrk", "sbrk(-4096) = 0x55be29ca8000", call="sbrk", length=-4096, result=0x55BE29CA8000),
    call("asprintf", "asprintf(0x7ffd, 0x55be, 5, 0x22) = 3", call="asprintf", result=3),
    call("strdup", 'strdup("hello") = 0x5581', call="strdup", result=0x5581),
    call("strdup, cut", 'strdup("a long string that is over thirt"...) = 0x5581', call="strdup", result=0x5581),
    call("strdup of a call", 'strdup("hello, (world) = 0x10") = 0x5581', call="strdup", result=0x5581),
    call("strdup of quotes", 'strdup("say "hi", 5) = 0x10 \\\\ back\\n") = 0x5581', call="strdup", result=0x5581),
    call("strdup of a quote", 'strdup(""") = 0x5581 <0.000066>', call="strdup", result=0x5581, duration=66000),
    call("strdup of nothing", 'strdup("") = 0x5581', call="strdup", result=0x5581),
    call("strdup of an end", 'strdup("x <unfinished ...>") = 0x5581', call="strdup", result=0x5581),
    call("strndup with a prototype", 'strndup("a"b", c", 3) = 0x9', call="strndup", result=9),
    call("asprintf with a prototype", 'asprintf(0x7ffd, "%s "%d"", "x", 5) = 7', call="asprintf", result=7),
    call("result as a string", 'strdup("a\\tb") = "a\\tb"', call="strdup"),
    call("prototypes of a user", "malloc({ 10, [ 0x40113a, nil... ], 'x', 1.500000, A|B }, \"x\"...) = -1",
         call="malloc", result=-1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), LIBRARY_CALLS)
def test_calls_of_the_malloc_family(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


OPERATORS = [
    ("_Znwm(40, 0x55, 0x7f, 0x7f)", "operator new(unsigned long)(40, 0x55, 0x7f, 0x7f)",
     {"call": "new", "length": 40}),
    ("_Znwj(40, 0, 5, 6)", "operator new(unsigned int)(40, 0, 5, 6)",
     {"call": "new", "length": 40}),
    ("_Znam(30, 1, 59, 0)", "operator new[](unsigned long)(30, 1, 59, 0)",
     {"call": "new[]", "length": 30}),
    ("_Znaj(30, 1, 59, 0)", "operator new[](unsigned int)(30, 1, 59, 0)",
     {"call": "new[]", "length": 30}),
    ("_ZnwmRKSt9nothrow_t(72, 0x55, 59, 0)", "operator new(unsigned long, std::nothrow_t const&)(72, 0x55, 59, 0)",
     {"call": "new", "length": 72}),
    ("_ZnwmSt11align_val_t(128, 64, 61, 0)", "operator new(unsigned long, std::align_val_t)(128, 64, 61, 0)",
     {"call": "new", "length": 128, "align": 64}),
    ("_ZnamSt11align_val_tRKSt9nothrow_t(256, 64, 0x55, 9)",
     "operator new[](unsigned long, std::align_val_t, std::nothrow_t const&)(256, 64, 0x55, 9)",
     {"call": "new[]", "length": 256, "align": 64}),
    ("_ZdlPv(0x5581)", "operator delete(void*)(0x5581)",
     {"call": "delete", "addr": 0x5581}),
    ("_ZdaPv(0x5581, 80, 0, 4)", "operator delete[](void*)(0x5581, 80, 0, 4)",
     {"call": "delete[]", "addr": 0x5581}),
    ("_ZdlPvm(0x5581, 48, 48, 7)", "operator delete(void*, unsigned long)(0x5581, 48, 48, 7)",
     {"call": "delete", "addr": 0x5581, "length": 48}),
    ("_ZdlPvj(0x5581, 48, 48, 7)", "operator delete(void*, unsigned int)(0x5581, 48, 48, 7)",
     {"call": "delete", "addr": 0x5581, "length": 48}),
    ("_ZdaPvm(0x5581, 48, 48, 7)", "operator delete[](void*, unsigned long)(0x5581, 48, 48, 7)",
     {"call": "delete[]", "addr": 0x5581, "length": 48}),
    ("_ZdlPvSt11align_val_t(0x5581, 64, 0, 3)", "operator delete(void*, std::align_val_t)(0x5581, 64, 0, 3)",
     {"call": "delete", "addr": 0x5581, "align": 64}),
    ("_ZdlPvmSt11align_val_t(0x5581, 128, 64, 3)",
     "operator delete(void*, unsigned long, std::align_val_t)(0x5581, 128, 64, 3)",
     {"call": "delete", "addr": 0x5581, "length": 128, "align": 64}),
    ("_ZdaPvRKSt9nothrow_t(0x5581, 0x55, 0, 3)", "operator delete[](void*, std::nothrow_t const&)(0x5581, 0x55, 0, 3)",
     {"call": "delete[]", "addr": 0x5581}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("mangled", "demangled", "expected"), OPERATORS, ids=[m.split("(")[0] for m, _, _ in OPERATORS]
)
def test_new_and_delete(mangled: str, demangled: str, expected: dict[str, Any]) -> None:
    assert said(f"{mangled} = 0x10") == {"kind": "call", "result": 0x10} | expected
    assert said(f"prog->{demangled} = 0x10") == {"kind": "call", "result": 0x10, "caller": "prog"} | expected


def test_a_demangled_name_may_be_of_a_library_and_resumed() -> None:
    text = "operator new(unsigned long)@libstdc++.so.6(40 <unfinished ...>"
    assert said(text) == {"kind": "opened", "call": "new", "length": 40, "library": "libstdc++.so.6"}
    assert said("<... operator new(unsigned long) resumed> ) = nil") == {"kind": "closed", "call": "new", "result": 0}
    assert said("<... operator delete[](void*) resumed> ) = <void>") == {"kind": "closed", "call": "delete[]"}
    assert parse(text, "ltrace").name == "operator new(unsigned long)"


# ---- system calls ----

SYSTEM_CALLS = [
    system("brk asks", "SYS_brk(0) = 0x556aa8fa2000", call="brk", addr=0, result=0x556AA8FA2000),
    system("0.8", "brk@SYS(nil) = 0x556aa8fa2000", call="brk", addr=0, result=0x556AA8FA2000),
    system("mmap, 0.7.3", "SYS_mmap(0, 0x95f3, 1, 2050) = 0x7ffff7fb6000", call="mmap", addr=0, length=0x95F3,
           prot=1, flags=2050, result=0x7FFFF7FB6000),
    system("mmap, 0.5.3", "SYS_mmap(0, 8192, 3, 34, 0xffffffff) = 0x7f00", call="mmap", addr=0, length=8192, prot=3,
           flags=34, fd=0xFFFFFFFF, result=0x7F00),
    system("mmap, 0.8", "mmap@SYS(0x7fdfa000, 1400832, 5, 2066, 3, 155648) = 0x7fdfa000", call="mmap",
           addr=0x7FDFA000, length=1400832, prot=5, flags=2066, fd=3, offset=155648, result=0x7FDFA000),
    system("mmap without a file, 0.8", "mmap@SYS(nil, 8192, 3, 34, -1, 0) = 0x7f00", call="mmap", addr=0, length=8192,
           prot=3, flags=34, fd=-1, offset=0, result=0x7F00),
    system("mmap2 counts in pages", "mmap2@SYS(nil, 8192, 1, 2, 3, 2) = 0xf7f00000", call="mmap", addr=0, length=8192,
           prot=1, flags=2, fd=3, offset=8192, result=0xF7F00000),
    system("mmap fails", "SYS_mmap(0, 0, 3, 34) = -22", call="mmap", addr=0, length=0, prot=3, flags=34, result=-22),
    system("mmap fails, 0.8", "mmap@SYS(nil, 0, 3, 34, -1, 0) = 0xffffffffffffffea", call="mmap", addr=0, length=0,
           prot=3, flags=34, fd=-1, offset=0, result=(1 << 64) - 22),
    system("munmap", "SYS_munmap(0x7ffff7fb6000, 38447) = 0 <0.000012>", call="munmap", addr=0x7FFFF7FB6000,
           length=38447, result=0, duration=12000),
    system("mprotect", "SYS_mprotect(0x7000, 4096, 1) = 0", call="mprotect", addr=0x7000, length=4096, prot=1,
           result=0),
    system("mremap", "SYS_mremap(0x7000, 0x7b000, 0xdc000, 1) = 0x9000", call="mremap", addr=0x7000,
           old_length=0x7B000, length=0xDC000, flags=1, result=0x9000),
    system("madvise", "SYS_madvise(0x7000, 4096, 4) = 0", call="madvise", addr=0x7000, length=4096, flags=4, result=0),
    system("shmget", "SYS_shmget(0, 8192, 896, 0) = 19", call="shmget", length=8192, flags=896, result=19, shmid=19),
    system("shmat", "SYS_shmat(19, 0, 0, 0x7f) = 0x7000", call="shmat", shmid=19, addr=0, flags=0, result=0x7000),
    system("shmdt", "SYS_shmdt(0x7000, 0, 0, 0x7f) = 0", call="shmdt", addr=0x7000, result=0),
    system("prlimit64", "SYS_prlimit64(0, 9, 0x7ffc, 0) = 0", call="prlimit", to_pid=0, resource=9, result=0),
    system("setrlimit", "SYS_setrlimit(9, 0x7ffc) = 0", call="prlimit", resource=9, result=0),
    system("prctl", "SYS_prctl(0x53564d41, 0, 0x7f00, 4096) = 0", call="prctl", op=0x53564D41, arg2=0, addr=0x7F00,
           length=4096, result=0),
    system("clone", "SYS_clone(0x1200011, 0, 0, 0x7fa10) = 6332", call="clone", flags=0x1200011, result=6332,
           child_pid=6332),
    system("clone3 by number", "SYS_435(0x7ffc, 88, 0x7fb7, 8) = 0x3e7f", call="clone3", result=0x3E7F,
           child_pid=0x3E7F),
    system("execve fails", 'SYS_execve("/sbin/true", 0x7ffc, 0x7ffd) = -2', call="execve", path="/sbin/true",
           result=-2),
    system("openat by address", "SYS_openat(0xffffff9c, 0x7fdb, 0x80000, 0) = 3", call="openat", dirfd=0xFFFFFF9C,
           flags=0x80000, result=3),
    system("open", 'SYS_open("/etc/ld.so.cache", 524288, 00) = 3', call="open", path="/etc/ld.so.cache", flags=524288,
           result=3),
    system("open, 0.8", 'open@SYS("/etc/a"b", 0, 0644) = 3', call="open", path='/etc/a"b', flags=0, result=3),
    system("close", "SYS_close(3) = 0", call="close", fd=3, result=0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SYSTEM_CALLS)
def test_system_calls(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


def test_names_are_those_printed() -> None:
    names = {"SYS_brk(0) = 0": "SYS_brk", "brk@SYS(nil) = 0": "brk", "SYS_435(0, 88) = 5": "SYS_435",
             "prog->_Znwm(1, 2, 3, 4) = 0x5": "_Znwm", "malloc@libc.so.6(1) = 0x5": "malloc"}  # fmt: skip
    assert {text: parse(text, "ltrace").name for text in names} == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        case("fork", "fork() = 6340", call="fork", kind="call", result=6340, child_pid=6340),
        case("fork in the child", "<... fork resumed> ) = 0", call="fork", kind="closed", result=0, child_pid=0),
        case("vfork", "vfork(0xffffffff, 0, 0, 0x7f8 <unfinished ...>", call="vfork", kind="opened"),
        case("_exit", "_exit(3 <unfinished ...>", call="exit", kind="opened", exit_status=3),
        case("mmap", "prog->mmap(0, 8192, 3, 34 <unfinished ...>", call="mmap", kind="opened", caller="prog", addr=0,
             length=8192, prot=3, flags=34),
        case("munmap", "<... munmap resumed> ) = -1", call="munmap", kind="closed", result=-1),
    ],
)  # fmt: skip
def test_wrappers_go_by_the_names_of_the_calls_that_they_wrap(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


# ---- split calls ----

HALVES = [
    case("opened", "prog->malloc(500000 <unfinished ...>", kind="opened", call="malloc", length=500000, caller="prog"),
    case("opened system call", "9907 SYS_munmap(0x7000, 4096 <unfinished ...>", kind="opened", call="munmap", system=1,
         pid=9907, addr=0x7000, length=4096),
    case("opened, 0.8", "mmap@SYS(nil, 8192, 3, 34, -1, 0 <unfinished ...>", kind="opened", call="mmap", system=1,
         addr=0, length=8192, prot=3, flags=34, fd=-1, offset=0),
    case("opened, more to come", "realloc(0x5581,  <unfinished ...>", kind="opened", call="realloc", addr=0x5581),
    case("opened with a string", 'strdup("a <unfinished ...>" <unfinished ...>', kind="opened", call="strdup"),
    case("exit", "SYS_exit_group(0 <no return ...>", kind="opened", call="exit_group", system=1, exit_status=0,
         no_return=1),
    case("execve", 'SYS_execve("/bin/true", 0x7ffe, 0x7fff <no return ...>', kind="opened", call="execve", system=1,
         path="/bin/true", no_return=1),
    case("abort", "allocsig->abort( <no return ...>", kind="opened", call="abort", caller="allocsig", no_return=1),
    case("closed", "<... malloc resumed> )                 = 0x5581", kind="closed", call="malloc", result=0x5581),
    case("closed system call", "<... SYS_madvise resumed> ) = -11 <0.000066>", kind="closed", call="madvise",
         system=1, result=-11, duration=66000),
    case("closed new", "<... _Znwm resumed> ) = 0", kind="closed", call="new", result=0),
    case("closed with arguments", '<... asprintf resumed> "a (b) = 3", 17) = 5', kind="closed", call="asprintf",
         result=5),
    case("closed clone", "<... SYS_435 resumed> ) = 0x3e7e", kind="closed", call="clone3", system=1, result=0x3E7E,
         child_pid=0x3E7E),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), HALVES)
def test_halves_of_split_calls(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    "last_words",
    [
        "free(): double free detected in tcache 2",
        "double free or corruption (!prev)",
        "corrupted size vs. prev_size",
        "munmap_chunk(): invalid pointer",
        "*** Error in `prog': free(): invalid pointer: 0x00007ffe1c8b4e40 ***",
    ],
)
def test_what_glibc_says_before_it_aborts_ends_the_call(last_words: str) -> None:
    found = said(f"free(0x5637d78672a0{last_words}")
    assert found == {"kind": "opened", "call": "free", "addr": 0x5637D78672A0, "no_return": 1}


# ---- other lines ----

OTHER_EVENTS = [
    case("signal", "--- SIGSEGV (Segmentation fault) ---", kind="signal", signal="SIGSEGV"),
    case("real-time signal", "--- SIGRT_2 (Real-time signal 2 (x)) ---", kind="signal", signal="SIGRT_2"),
    case("exec", "--- Called exec() ---", kind="exec"),
    case("exit", "[0xffffffffffffffff] +++ exited (status 0) +++", kind="exited", exit_status=0),
    case("killed", "+++ killed by SIGABRT +++", kind="killed", signal="SIGABRT"),
    case("frame, 0.7", "\t\t\tmain (ip = 0x401136)", kind="frame", frame_symbol="main"),
    case("frame, 0.8", " > libc.so.6(__libc_start_call_main+0x79) [7efcd6a5d249]", kind="frame",
         frame_module="libc.so.6", frame_symbol="__libc_start_call_main"),
    case("frame without names", " > [unknown]([unknown]+0x0) [556f50f9e312]", kind="frame", frame_module="[unknown]",
         frame_symbol="[unknown]"),
    case("frame of C++", " > prog(ns::f(int, char)+0x4) [556f50f9e312]", kind="frame", frame_module="prog",
         frame_symbol="ns::f(int, char)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), OTHER_EVENTS)
def test_other_events(text: str, expected: dict[str, Any]) -> None:
    assert said(text) == expected


NOISE = {
    "nothing": "",
    "source of a frame": "\t../sysdeps/nptl/libc_start_call_main.h:58:16",
    "end of a broken line": " <no return ...>",
    "breakpoint": "unexpected breakpoint at 0x7f07df49d052",
    "head of a table": "% time     seconds  usecs/call     calls      function",
    "rule of a table": "------ ----------- ----------- --------- --------------------",
    "row of a table": " 17.87    0.002700        1350         2 operator new(unsigned long)",
    "last row": "100.00    0.015108                    82 total",
    "error in a file": "/root/.ltrace.conf:12: error: expected ';'",
    "warning": "warning: unknown argument size",
    "static program": 'Couldn\'t find .dynsym or .dynstr in "/proc/71/exe"',
}


@pytest.mark.parametrize("text", NOISE.values(), ids=NOISE)
def test_noise_says_nothing(text: str) -> None:
    assert said(text) == {"kind": "noise"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('write(1, "one\\n", 4) = 4', "other_call", id="another call"),
        pytest.param('prog->printf("malloc(%d) = %p\\n", 5, nil <unfinished ...>', "other_call", id="opened"),
        pytest.param('snprintf("{"call":"malloc","a":10,"..., 300) = 55 <0.000139>', "other_call", id="quotes"),
        pytest.param("9907 <... wait resumed> )  = 5", "other_call", id="resumed"),
        pytest.param('<... fgets resumed> "a) = 3", 9) = 0x5', "other_call", id="resumed with arguments"),
        pytest.param("<... std::locale::locale() resumed> ) = 0", "other_call", id="resumed C++"),
        pytest.param("<...  resumed> )  = 0", "other_call", id="resumed without a name"),
        pytest.param("SYS_334(0x7fdba5f1f060, 32, 0, 0x53053053) = 0", "other_call", id="system call by number"),
        pytest.param("futex@SYS(0x7f, 1, 2, nil) = -11", "other_call", id="system call"),
        pytest.param("SYS_malloc(10) = 0", "other_call", id="no system call"),
        pytest.param("std::ostream& std::operator<< <std::char_traits<char> >(std::ostream&, char const*)(0x5, 6) = 7",
                     "other_call", id="operator"),
        pytest.param("std::unique_ptr<A>::operator->() const(0x5581, 6) = 7", "other_call", id="arrow"),
        pytest.param("free(Node*)(0x5581, 0, 3, 4) = 0", "other_call", id="C++ function with a name of libc"),
        pytest.param("operator new(unsigned long, void*)(4, 0x55) = 0x55", "other_call", id="placement new"),
        pytest.param("(0, 0, 0x7f97ed884020, 0x7f97ed8829e0, 0) = 0x7f97ed885118", "other_call", id="no name"),
        pytest.param("malloc(10", "cut_line", id="cut in the arguments"),
        pytest.param("malloc(10)     ", "cut_line", id="cut before the result"),
        pytest.param('strdup("hel', "cut_line", id="cut in a string"),
        pytest.param("malloc(10) = 0x5581 <0.00", "cut_line", id="cut in the duration"),
        pytest.param("[pid  18", "cut_line", id="cut in the pid"),
        pytest.param("malloc(10) = 0x5581 and more", "unknown_call_form", id="more than a call"),
        pytest.param("Hello, world", "unknown_line", id="prose"),
    ],
)  # fmt: skip
def test_lines_not_understood(text: str, reason: str) -> None:
    with pytest.raises(LineError) as error:
        parse(text, "ltrace")
    assert error.value.reason == reason


def test_the_whole_malloc_family_is_known() -> None:
    operators = {"new", "new[]", "delete", "delete[]"}
    assert set(CALLS[CALLS.index("malloc") :]) - {"getdelim"} == set(MALLOC_FAMILY) | operators


# ---- spans: what the fields of a line are made of ----


def test_numbers_are_forms_over_whole_tokens() -> None:
    text = "12 17:49:23.670034 [0x4012fe] SYS_mmap(0, 0x2000, 3, 34) = -22 <0.000013>"
    numbers = parse(text, "ltrace").numbers
    tokens = {name: [(text[start:end], factor) for start, end, factor in n.terms] for name, n in numbers.items()}
    assert tokens == {
        "pid": [("12", 1)],
        "time": [("17", 3600 * 10**9), ("49", 60 * 10**9), ("23", 10**9), ("670034", 10**3)],
        "system": [],
        "addr": [("0", 1)],
        "length": [("0x2000", 1)],
        "prot": [("3", 1)],
        "flags": [("34", 1)],
        "result": [("22", -1)],
        "duration": [("0", 10**9), ("000013", 10**3)],
    }


def test_texts_that_may_differ_within_a_shape_are_spans() -> None:
    texts = parse('prog-2->malloc@libc.so.6(10, "a") = 0x5', "ltrace").texts
    assert {name: (t.const, t.start, t.end) for name, t in texts.items()} == {
        "caller": (None, 0, 6),
        "library": (None, 15, 24),
    }
    assert parse("prog->malloc(10) = 0x5", "ltrace").texts["caller"].const == "prog"


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40))
def test_a_string_may_hold_any_text(inside: str) -> None:
    assert said(f'strdup("{inside}")   = 0x5581') == {"kind": "call", "call": "strdup", "result": 0x5581}


@given(st.text(st.sampled_from("malloc(free)= 0x15,<>.\"'-+[]{}?prog@SYS_new resumed\t:%*"), max_size=60))
def test_any_text_is_a_line_or_refused(text: str) -> None:
    with contextlib.suppress(LineError):
        parse(text, "ltrace")


# ---- captures with known truth ----

LINES = oracle.scenarios().get("lines", Path("/nonexistent")) / "ltrace"
SIZES = {"calloc": "size", "reallocarray": "size"}


def rows(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines that are whole calls of the program, each with what is known to be true of it."""
    lines = log.read_text(encoding="latin-1").split("\n")
    for row in map(json.loads, log.with_suffix(".expected.jsonl").read_text().splitlines()):
        text = lines[row["line"] - 1]
        if not row.get("not_by_program") and " resumed> " not in text:
            yield text, row


def wanted(row: dict[str, Any]) -> dict[str, int]:
    """Return the fields of a recorded call by our names."""
    names = {"addr": "addr", "ptr": "addr", "length": "length", "new_length": "length", "nmemb": "count",
             "size": SIZES.get(row["call"], "length"), "align": "align", "prot_int": "prot", "flags_int": "flags",
             "advice_int": "flags", "ret": "result"}  # fmt: skip
    known = {names[key]: value for key, value in row.items() if key in names and value is not None}
    if "new_length" in row:
        known["old_length"] = row["length"]
    if row.get("errno") is not None:
        known["result"] = -ERRNO[row["errno"]]
    if row["call"] == "realloc" and row["size"] == 0:
        del known["addr"]  # the program wrote it down after it had put the result there
    return {name: value for name, value in known.items() if name not in row.get("not_visible", ())}


@pytest.mark.skipif(not LINES.is_dir(), reason="no captures")
@pytest.mark.parametrize("log", sorted(LINES.glob("*.log")), ids=lambda log: log.stem)
def test_captured_calls(log: Path) -> None:
    differences = []
    for text, row in rows(log):
        got = said(text)
        truth = wanted(row) | {"kind": "call"} | ({"pid": row["pid"]} if row.get("pid") else {})
        if any(got.get(name) != value for name, value in truth.items()):
            differences.append((text, truth, {name: got.get(name) for name in truth}))
    assert not differences
    assert any(rows(log))


LOGS = sorted(
    log
    for folder in oracle.scenarios().values()
    for log in folder.glob("*/*.log*")
    if log.name.startswith("ltrace.log")
)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.parts[-3]}-{log.parts[-2]}")
def test_no_captured_line_of_interest_fails(log: Path) -> None:
    opened = gzip.open if log.suffix == ".gz" else open
    with opened(log, "rt", encoding="latin-1") as file:
        for text, _ in zip(file, range(5000), strict=False):
            try:
                parse(text.rstrip("\n"), "ltrace")
            except LineError as error:
                assert error.reason == "other_call", text
