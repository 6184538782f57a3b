"""Recorded requests served again: the stream, the proof, and real allocators under other policies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
from typer.testing import CliRunner

import replay
from replay import cli
from replay.record.command import Options, record
from replay.whatif import stream as requests
from replay.whatif.agreement import agreement
from replay.whatif.as_text import answer
from replay.whatif.policies import UNBLOCKED, Policy, WhatIf, what_if
from replay.whatif.stream import NO_SLOT, NoRequestsError, Stream, stream_of
from replay.whatif.tunables import parse_setting

HEAP = 0x55555556A000
LOG = f"""\
100 SYS_brk(0) = {HEAP:#x}
100 mallopt(-2, 1048576) = 1
100 malloc(100) = {HEAP + 0x2A0:#x}
101 memalign(64, 200) = {HEAP + 0x340:#x}
100 realloc({HEAP + 0x2A0:#x}, 300) = {HEAP + 0x440:#x}
101 free({HEAP + 0x340:#x}) = <void>
100 calloc(3, 7) = {HEAP + 0x5A0:#x}
100 malloc(1099511627776) = 0
100 strdup("abc") = {HEAP + 0x5C0:#x}
100 free({HEAP + 0x5C0:#x}) = <void>
100 realloc(0, 20) = {HEAP + 0x5E0:#x}
"""


def run_of(log: str, directory: Path) -> replay.Run:
    path = directory / "trace.log"
    path.write_text(log)
    return replay.load(path, elf_root=None)


def test_the_stream_has_each_request_in_its_order_with_its_thread_and_blocks(tmp_path: Path) -> None:
    stream = stream_of(run_of(LOG, tmp_path))
    assert [tuple(row) for row in stream.records[["operation", "thread", "slot", "size"]].tolist()] == [
        (requests.MALLOPT, 0, NO_SLOT, 1048576),
        (requests.MALLOC, 0, 0, 100),
        (requests.MEMALIGN, 1, 1, 200),
        (requests.REALLOC, 0, 2, 300),
        (requests.FREE, 1, 1, 0),
        (requests.CALLOC, 0, 3, 21),
        (requests.MALLOC, 0, NO_SLOT, 1 << 40),
        (requests.REALLOC, 0, 5, 20),
    ]
    assert stream.records["second"][[2, 3, 7]].tolist() == [64, 0, NO_SLOT]
    assert stream.threads == [100, 101]
    assert (stream.unserved, stream.peak) == (1, 3)
    assert (stream.addresses - HEAP * (stream.addresses > 0)).tolist() == [0, 0x2A0, 0x340, 0x440, 0, 0x5A0, 0, 0x5E0]


def test_a_log_without_malloc_calls_is_refused_with_the_command_that_helps() -> None:
    with pytest.raises(NoRequestsError, match="replay record"):
        stream_of(replay.load(oracle.SAMPLES / "blocked_break" / "strace.log"))


def stream_at(addresses: list[int]) -> Stream:
    records = np.zeros(len(addresses), requests.RECORD)
    return Stream(0, records, np.array(addresses, np.uint64), [1], len(addresses), 0, 0)


@pytest.mark.parametrize(
    ("recorded", "answered", "same"),
    [
        ([0x555555560010, 0x555555560100], [0x600010, 0x600100], 2),
        ([0x555555560010, 0x555555560100, 0x555555560200], [0x600010, 0x600100, 0x600220], 2),
        ([0x7F0000000020, 0x7F0000000100], [0x7E1118000020, 0x7E1118000100], 2),
        ([0x7F0000400010], [0x7E1111155010], 1),
        ([0x7F0000400010, 0x7F0000400110], [0x7E1111155010, 0x600000], 1),
    ],
    ids=["the heap moved as a whole", "one block moved in it", "a heap of a thread", "mapped alone", "mapped no more"],
)
def test_places_are_the_same_where_their_heap_is(recorded: list[int], answered: list[int], same: int) -> None:
    found = agreement(stream_at(recorded), np.array(answered, np.uint64), [4096, 0], [4096, 0])
    assert (found.places_same, found.places) == (same, len(recorded))
    assert (found.brk_same, found.brk_calls, found.final_break_same) == (2, 2, True)
    assert found.is_enough == (same == len(recorded))


@pytest.mark.parametrize("text", ["", "top_pad", "=1", "top_pad=", "a=1:b=2"])
def test_a_setting_is_a_name_and_a_value(text: str) -> None:
    assert parse_setting("top_pad=4096") == parse_setting("glibc.malloc.top_pad=4096")
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        parse_setting(text)


# --- served again ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of a program whose break is blocked, made now: the libc that served it serves it again."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("blocked")
    program = folder / "blocked"
    subprocess.run(["gcc", "-O0", "-o", program, oracle.CHECKOUT / "tests" / "programs" / "blocked.c"], check=True)
    record([str(program)], folder / "recording", Options(tool="shim"))
    return folder / "recording"


@pytest.fixture(scope="module")
def found(recording: Path) -> WhatIf:
    policies = [UNBLOCKED, Policy("top_pad 256 KiB", (("glibc.malloc.top_pad", "262144"),))]
    return what_if(replay.load(recording), policies, touch=True)


@pytest.mark.live
def test_the_recorded_settings_give_the_recording_again(recording: Path, found: WhatIf) -> None:
    run = replay.load(recording)
    assert found.agreement.share == 1
    assert found.agreement.places == 3000
    assert found.rows[0].refused == len(run.brk_failures) > (2 if oracle.GLIBC >= (2, 43) else 10)
    assert found.rows[0].fallbacks == len(run.mmap_fallbacks)
    assert found.rows[0].fallback_bytes == run.mmap_fallbacks["bytes"].sum()


@pytest.mark.live
@pytest.mark.parametrize("allocator", ["jemalloc", "musl"])
def test_an_allocator_that_had_room_before_the_first_request_holds_what_it_took(allocator: str, tmp_path: Path) -> None:
    log = f"1 SYS_brk(0) = {HEAP:#x}\n1 SYS_brk({HEAP + 0x21000:#x}) = {HEAP + 0x21000:#x}\n"
    run = run_of(f"{log}1 malloc(100) = {HEAP + 0x2A0:#x}\n1 free({HEAP + 0x2A0:#x}) = <void>\n", tmp_path)
    served = what_if(run, [Policy(allocator, allocator=allocator)]).rows[1]
    if served.peak_mapped_bytes is None:
        pytest.skip(served.note)
    assert served.peak_mapped_bytes >= 0
    assert 0 <= served.end_mapped_bytes <= served.peak_mapped_bytes


@pytest.mark.live
def test_nothing_is_refused_without_what_stood_in_the_way(found: WhatIf) -> None:
    unblocked = found.rows[1]
    assert (unblocked.refused, unblocked.fallbacks) == (0, 0)
    assert (unblocked.brk_calls or 0) > (found.rows[0].brk_calls or 0) - (found.rows[0].refused or 0)


@pytest.mark.live
def test_what_was_touched_is_resident(found: WhatIf) -> None:
    for row in found.rows:
        assert row.resident_at_peak_bytes is not None
        assert 3000 * 1000 <= row.resident_at_peak_bytes <= 3000 * 1000 * 1.2


@pytest.mark.live
def test_the_page_and_the_document_say_the_same(recording: Path) -> None:
    words = ["whatif", str(recording), "--unblock", "--set", "top_pad=262144", "-q"]
    document = json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).stdout)
    assert [policy["name"] for policy in document["policies"]] == [
        "as recorded",
        "top_pad=262144",
        "nothing above the break",
    ]
    assert document["policies"][2]["refused"] == 0
    text = " ".join(CliRunner().invoke(cli.app, words).stdout.split())
    assert document["answer"] in text
    assert document["proof"] in text


@pytest.mark.live
def test_each_run_is_a_recording_where_it_is_kept(recording: Path, tmp_path: Path) -> None:
    what_if(replay.load(recording), [UNBLOCKED], keep=tmp_path / "kept")
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in kept] == ["00-as-recorded", "01-nothing-above-the-break"]
    assert [len(replay.load(path).brk_failures) > 0 for path in kept] == [True, False]


@pytest.mark.live
def test_a_limit_that_starves_the_program_is_said_and_refused_bytes_are_not_held(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    log = tmp_path / "trace.log"
    log.write_text("".join(f"7 malloc(1000000) = {0x7F0000000010 + at * 0x100000:#x}\n" for at in range(20)))
    found = what_if(replay.load(log), [Policy("10 MB", limit_as=10_000_000)])
    starved = found.rows[1]
    assert found.rows[0].null_answers == 0 < (starved.null_answers or 0) < 20
    assert (starved.fallback_bytes or 0) < 10_000_000
    assert answer(found) == "Requests would have been refused with 10 MB."


@pytest.mark.live
def test_a_policy_that_cannot_be_tried_is_a_row_that_says_so(recording: Path) -> None:
    rows = what_if(replay.load(recording), [Policy("under a limit", limit_as=1)]).rows
    assert "player" in rows[1].note
    assert rows[1].brk_calls is None


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--set", "top_pad"], 2, "expected NAME=VALUE"),
        (["--set", "no_such=1"], 2, "no tunable"),
        (["--allocator", "none-such"], 1, "expected one of jemalloc"),
        ([], 1, "replay record"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = str(oracle.SAMPLES / "blocked_break" / "strace.log")
    monkeypatch.setattr("sys.argv", ["replay", "whatif", log, "-q", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == status
    assert message in capsys.readouterr().err


@pytest.mark.live
def test_tunables_that_were_recorded_are_set_again(recording: Path, tmp_path: Path) -> None:
    program = recording.parent / "blocked"
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.top_pad=1048576", "PYTHONPATH": str(oracle.CHECKOUT)}
    words = [sys.executable, "-m", "replay", "record", "--tool", "shim", "-o", tmp_path / "padded", "--", program]
    subprocess.run(words, env=environment, check=False, stderr=subprocess.DEVNULL)
    rows = what_if(replay.load(tmp_path / "padded"), [])
    assert rows.agreement.brk_calls < what_if(replay.load(recording), []).agreement.brk_calls
    assert rows.agreement.share == 1


@pytest.mark.live
def test_a_run_gives_the_rows_as_a_data_frame(recording: Path) -> None:
    frame = replay.load(recording).whatif(["unblock", "top_pad=262144"])
    assert frame["name"].tolist() == ["as recorded", "nothing above the break", "top_pad=262144"]
    assert frame["refused"].tolist()[1] == 0 < frame["refused"].tolist()[0]
    assert "3,000 of 3,000 blocks" in frame.attrs["proof"]
