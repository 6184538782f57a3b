"""Logs as people have them: behind the prefix of a collector, quoted, copied from a page, wrapped, of other tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.errors import TraceFormatError
from replay.logs.chunks import read_chunks
from replay.logs.files import find_logs

CALLS = [
    "brk(NULL)                               = 0x6a1000",
    "brk(0x6c2000)                           = 0x6a1000",
    "mmap(NULL, 1048576, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f40a0000000",
    "+++ exited with 0 +++",
]


def lines_of(folder: Path, data: bytes, size: int = 1 << 20) -> list[tuple[str, int]]:
    """Return each line of a log that is not empty, with its number."""
    path = folder / "x.log"
    path.write_bytes(data)
    found = []
    for chunk in read_chunks(find_logs([path])[0], size):
        found += list(zip(chunk.data.decode(errors="replace").split("\n")[:-1], chunk.line.tolist(), strict=True))
    return [(text, number) for text, number in found if text]


def joined(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


WHOLE = list(zip(CALLS, range(1, 5), strict=True))

PREFIXES = {
    "journald": "Nov {day} 12:00:0{n} host strace[41{n}]: ",
    "syslog with zone": "2026-11-26T12:00:0{n}.123456+00:00 host prog[417]: ",
    "compose": "app-1  | ",
    "compose coloured": "\x1b[36mapp-1  | \x1b[0m",
    "quoted": "> ",
    "quoted twice": "> > ",
    "tab": "\t",
    "four spaces": "    ",
    "cat -n": "     {n}\t",
    "nl": "{n:6}  ",
    "less -N": "{n:7} ",
    "grep -n": "{n}:",
    "grep -Hn": "logs/strace.log:{n}:",
    "numbered": "{n}) ",
    "numbered with points": "{n}. ",
    "numbered as frames": "#{n} ",
    "GitHub": "2026-11-26T12:00:0{n}.1234567Z ",
    "GitLab": "2026-11-26T12:00:0{n}.123456Z 01O ",
    "Jenkins": "[2026-11-26T12:00:0{n}.000Z] ",
    "kubectl": "[pod/app-7d9f/main] ",
    "CRI": "2026-11-26T12:00:0{n}.123456789Z stderr F ",
    "12 hours": "11/26/2026 3:04:0{n} PM ",
    "logcat": "11-26 12:00:0{n}.123   417   417 I strace  : ",
    "diff": "+",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_the_same_prefix_on_all_lines_is_taken_off(tmp_path: Path, prefix: str) -> None:
    lines = [prefix.format(n=n, day=25 + n // 3) + call for n, call in enumerate(CALLS, 1)]
    assert [(text.strip(), number) for text, number in lines_of(tmp_path, joined(lines))] == WHOLE


@pytest.mark.parametrize("end", ["<br>", "<br />", "</line>", "\\", " |", "   \u2502", "<br>\r"])
def test_what_pages_and_panes_put_behind_each_line_is_taken_off(tmp_path: Path, end: str) -> None:
    assert [
        (text.strip(), number) for text, number in lines_of(tmp_path, joined([call + end for call in CALLS]))
    ] == WHOLE


@pytest.mark.parametrize("red", ["\x1b[01;31m\x1b[K{}\x1b[m\x1b[K", "^[[01;31m^[[K{}^[[m^[[K", "\x1b]0;title\x07{}"])
def test_what_steers_a_terminal_is_taken_out(tmp_path: Path, red: str) -> None:
    assert lines_of(tmp_path, joined([call.replace("brk", red.format("brk")) for call in CALLS])) == WHOLE


def test_a_list_of_json_a_text_a_line(tmp_path: Path) -> None:
    lines = [
        '"stderr_lines": [',
        *(f"    {json.dumps(call)}," for call in [*CALLS[:2], 'open("/a", O_RDONLY) = 3']),
        "]",
    ]
    assert lines_of(tmp_path, joined(lines)) == [
        (lines[0], 1), (CALLS[0], 2), (CALLS[1], 3), ('open("/a", O_RDONLY) = 3', 4), ("]", 5)
    ]  # fmt: skip


@pytest.mark.parametrize("prefix", ["Nov 26 12:00:01 host strace[417]: ", "> ", "app-1  | ", "7:", "\t", "+"])
@pytest.mark.parametrize("own", ["1888  1795367367.165405 ", "[pid  1888] ", "12:00:01.5 [00007ffff7e00ad7] "])
def test_what_the_tracer_printed_stays(tmp_path: Path, prefix: str, own: str) -> None:
    lines = [prefix + own + call for call in CALLS]
    assert lines_of(tmp_path, joined(lines)) == [(own + call, number) for call, number in WHOLE]


def test_a_prefix_is_taken_off_in_every_chunk(tmp_path: Path) -> None:
    lines = [f"{n}) {CALLS[1 + n % 2]}" for n in range(1, 400)]
    assert lines_of(tmp_path, joined(lines), size=1000) == [(CALLS[1 + n % 2], n) for n in range(1, 400)]


def test_lines_without_the_prefix_stay_as_they_are(tmp_path: Path) -> None:
    lines = ["app-1  | " + call for call in CALLS]
    lines.insert(2, "db-1   | ready")
    lines.append("app-1  |")
    assert lines_of(tmp_path, joined(lines)) == [
        *WHOLE[:2], ("db-1   | ready", 3), (CALLS[2], 4), (CALLS[3], 5)
    ]  # fmt: skip


@pytest.mark.parametrize("own", ["", "[pid  12] ", "12:00:01 ", "     0.000028 ", "[   9] ", "417  [a_t] 12:00:01 "])
def test_own_prefixes_are_none_of_a_collector(tmp_path: Path, own: str) -> None:
    lines = [own + CALLS[0]] * 9
    assert lines_of(tmp_path, joined(lines)) == list(zip(lines, range(1, 10), strict=True))


def test_records_of_json(tmp_path: Path) -> None:
    docker = [json.dumps({"log": call + "\n", "stream": "stderr", "time": "2026-11-26T12:00:01Z"}) for call in CALLS]
    assert lines_of(tmp_path, joined(docker)) == WHOLE
    journal = [json.dumps({"_PID": "417", "MESSAGE": call, "PRIORITY": "6"}) for call in CALLS]
    assert lines_of(tmp_path, joined(journal)) == WHOLE


def test_docker_gives_a_long_line_in_pieces(tmp_path: Path) -> None:
    pieces = [CALLS[0] + "\n", CALLS[2][:40], CALLS[2][40:] + "\n"]
    records = [json.dumps({"log": piece, "stream": "stderr"}) for piece in pieces]
    assert lines_of(tmp_path, joined(records)) == [(CALLS[0], 1), (CALLS[2], 3)]


@pytest.mark.parametrize(
    ("page", "plain"),
    [
        ("brk(NULL)\u00a0 \u00a0 = 0x6a1000", "brk(NULL)    = 0x6a1000"),
        ("mmap(NULL, 4096, 3, 34, 3&lt;/a&gt;, 0) = 0x7000", "mmap(NULL, 4096, 3, 34, 3</a>, 0) = 0x7000"),
        ("open(&quot;/a&amp;b&quot;, O_RDONLY) = 3&lt;/a&gt;", 'open("/a&b", O_RDONLY) = 3</a>'),
        (
            r"mmap(NULL, 4096, PROT\_READ\|PROT\_EXEC, 2, 3, 0) = 0x7000",
            "mmap(NULL, 4096, PROT_READ|PROT_EXEC, 2, 3, 0) = 0x7000",
        ),
        ('open("/a", O_RDONLY) = \u22121 ENOENT (No)', 'open("/a", O_RDONLY) = -1 ENOENT (No)'),
        ("open(&quot;/a&quot;, O_RDONLY) = 3<br>", 'open("/a", O_RDONLY) = 3'),
        ("open(\u201c/a\u201d, O_RDONLY) = \u22121 ENOENT (No)", 'open("/a", O_RDONLY) = -1 ENOENT (No)'),
    ],
)
def test_text_from_a_page(tmp_path: Path, page: str, plain: str) -> None:
    assert lines_of(tmp_path, joined([page])) == [(plain, 1)]


def test_the_log_of_qemu_user_is_read_as_one_of_strace(tmp_path: Path) -> None:
    log = """\
7 brk(NULL) = 0x0000000000491000
7 mmap(NULL,8192,PROT_READ,MAP_PRIVATE|MAP_ANONYMOUS,-1,0) = 0x0000004001861000
7 mmap(NULL,8192,PROT_READ,MAP_PRIVATE|MAP_ANONYMOUS,-1,0) = -1 errno=12 (Cannot allocate memory)
7 exit_group(0)
"""
    assert [text for text, _ in lines_of(tmp_path, log.encode())] == [
        *log.splitlines()[:2], log.splitlines()[2].replace("errno=12", "ENOMEM"), "7 exit_group(0) = ?"
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16(tmp_path: Path, encoding: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    data = mark + joined(CALLS).decode().replace("\n", "\r\n").encode(encoding)
    assert lines_of(tmp_path, data, size=33) == WHOLE


def test_bytes_that_look_like_the_mark_of_utf_16_leave_the_lines_behind_them(tmp_path: Path) -> None:
    data = b"\xff\xfe\x00\x1b]0;title\n" + joined(CALLS)
    assert lines_of(tmp_path, data)[1:] == [(call, number + 1) for call, number in WHOLE]


def test_wrapped_lines_are_joined(tmp_path: Path) -> None:
    wrapped = [line[at : at + 60] for line in CALLS for at in range(0, len(line), 60)]
    assert lines_of(tmp_path, joined(wrapped)) == [(CALLS[0], 1), (CALLS[1], 2), (CALLS[2], 4), (CALLS[3], 5)]


@pytest.mark.parametrize("width", range(42, 100))
@pytest.mark.parametrize("prefix", ["", "417 ", "     0.000028 "])
def test_lines_broken_at_any_width_are_joined(tmp_path: Path, width: int, prefix: str) -> None:
    fixed = CALLS[2].replace("NULL", "0x7f40a0000000").replace("MAP_PRIVATE", "MAP_PRIVATE|MAP_FIXED")
    lines = [prefix + line for line in [*CALLS[:3], fixed, *CALLS[2:]]]
    wrapped = [line[at : at + width] for line in lines for at in range(0, len(line), width)]
    assert [text for text, _ in lines_of(tmp_path, joined(wrapped))] == lines


def test_the_result_of_a_line_that_was_cut_at_a_width_is_not_believed(tmp_path: Path) -> None:
    fixed = CALLS[2].replace("NULL", "0x7f40a0000000").replace("MAP_PRIVATE", "MAP_PRIVATE|MAP_FIXED")
    cut = [line[:86] for line in [CALLS[0], CALLS[2], fixed, CALLS[1]]]
    assert [text for text, _ in lines_of(tmp_path, joined(cut))] == [CALLS[0], CALLS[2][:80], fixed[:86], CALLS[1]]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["mmap(0x7a20400000, 4096, PROT_READ, MAP_PRIVATE|MAP_FIXED, 5, 0) = 0x7a2040", "0000"], "0x7a20400000"),
        (["mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 5, 0) = 0x7a2041", "0000"], "0x7a20410000"),
        (["brk(0x5b00021000)    = 0x5b000", "21000"], "0x5b00021000"),
        (["mmap(NULL, 4096, PROT_READ,", "MAP_PRIVATE, 5, 0) = -1", "ENOMEM (Cannot allocate", "memory)"], "memory)"),
    ],
)
def test_a_cut_result_is_never_believed(tmp_path: Path, pieces: list[str], whole: str) -> None:
    ((text, number),) = lines_of(tmp_path, joined(pieces))
    assert text.replace(" ", "") == "".join(pieces).replace(" ", "")
    assert text.endswith(whole)
    assert number == len(pieces)


def test_numbers_that_a_program_prints_are_no_rests(tmp_path: Path) -> None:
    lines = ["mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 5, 0) = 0x7ffff7ff5000", "12345", "brk(NULL) = 0x6a1000", "7"]
    assert lines_of(tmp_path, joined(lines)) == list(zip(lines, range(1, 5), strict=True))


OTHERS = {
    "truss": (["mmap(0x0,28672,PROT_READ,MAP_ANON,-1,0x0) = 34379919360 (0x80133f000)"] * 3, "truss"),
    "truss of Solaris": (["mmap(0x0, 8192, PROT_READ, MAP_ANON, -1, 0) Err#12 ENOMEM"], "truss"),
    "gVisor": (
        ["I1126 12:00:01.123456   17 strace.go:567] [   1:   1] bash E brk(0x0)"] * 2
        + ["I1126 12:00:01.123457   17 strace.go:605] [   1:   1] bash X brk(0x0) = 94 (0x5e) (1.2us)"] * 2,
        "gVisor",
    ),
    "uftrace": (["   1.234 us [ 1234] | malloc(80);", "   0.130 us [ 1234] | free(0x55fd007f4380);"], "uftrace"),
    "uftrace malloc-free": (["             1940 : malloc(80)           = 0x55fd007f4380    80"] * 2, "uftrace"),
    "heaptrace": (["... #1: malloc(0x18)\t= 0x5555555592a0"] * 3, "heaptrace"),
    "perf trace": (["     0.123 ( 0.002 ms): ls/417 brk(brk: 0x55d8)  = 0x55d8"] * 3, "perf trace"),
    "summary": (["time     seconds  usecs/call     calls    errors syscall"], "only a summary table (-c)"),
    "maps": (["00400000-0040b000 r-xp 00000000 08:01 131 /bin/cat"], "a snapshot of /proc/PID/maps"),
    "two prefixes": (
        ["a | brk(NULL) = 0x1000", "b | brk(NULL) = 0x1000", "a | brk(0x2000) = 0x2000"],
        "not the same on all lines, 'a | ' before one of them; try sed -n -E 's/^a +\\| //p'",
    ),
}


@pytest.mark.parametrize(("lines", "message"), OTHERS.values(), ids=OTHERS)
def test_what_else_a_file_is(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(TraceFormatError) as refused:
        lines_of(tmp_path, joined(lines))
    assert message in str(refused.value)
    assert "strace or ltrace" in str(refused.value)


def test_a_hostile_line_costs_no_more_than_another(tmp_path: Path) -> None:
    lines = ["a(" * 500_000, "brk(NULL) = 0x6a1000"]
    assert len(lines_of(tmp_path, joined(lines))) == 2
