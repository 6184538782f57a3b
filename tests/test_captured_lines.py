"""Short logs of many options and versions: each completed call, as the program itself or the kernel recorded it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import oracle
import pandas as pd
import pytest

import replay

LINES = oracle.scenarios().get("lines", Path("/nonexistent"))
STRACE = sorted(LINES.glob("strace/*.log"))
LTRACE = sorted(LINES.glob("ltrace/*.log"))

MEMORY_CALLS = frozenset("brk mmap munmap mprotect pkey_mprotect mremap madvise shmat shmdt remap_file_pages".split())
MANGLED = {"_Znwm": "new", "_Znam": "new[]", "_ZdlPv": "delete", "_ZdaPv": "delete[]"}


@functools.cache
def events_of(log: Path) -> pd.DataFrame:
    return replay.load(log).events


def expected_calls(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.with_suffix(".expected.jsonl").read_text().splitlines()]


def normal_name(name: str) -> str:
    for mangled, normal in MANGLED.items():
        if name.startswith(mangled):
            return normal
    return {"mmap2": "mmap"}.get(name, name)


def column(value: Any) -> Any:
    return None if pd.isna(value) else value


def in_columns(call: dict[str, Any]) -> dict[str, Any]:
    """Return what the columns of `events` must hold for a recorded call; flags as numbers."""
    wanted: dict[str, Any] = {"call": normal_name(call["call"])}
    if "errno" in call:
        wanted["errno"] = call["errno"]
    for column_name, key in (("addr", "addr"), ("addr", "ptr"), ("fd", "fd"), ("offset", "offset"),
                             ("length", "length"), ("length", "size"), ("prot", "prot_int"),
                             ("flags", "flags_int"), ("flags", "advice_int")):  # fmt: skip
        if key in call:
            wanted[column_name] = call[key]
    if "new_length" in call:
        wanted |= {"length": call["new_length"], "old_length": call["length"]}
    if "nmemb" in call:
        wanted["length"] = call["nmemb"] * call["size"]
    if call.get("errno") is None and call.get("ret") is not None:
        wanted["result"] = call["ret"]
    if wanted.get("length", 0) >= 1 << 64:
        del wanted["length"]  # calloc that overflows: no number of bytes to show
    if call["call"] == "realloc" and (call["ptr"], call["size"], call["ret"]) == (0, 0, 0):
        del wanted["addr"]  # recorded after `p = realloc(p, 0)`; the line shows what p was before
    return {name: value for name, value in wanted.items() if name not in call.get("not_visible", ())}


def shown(row: Any, name: str) -> Any:
    value = column(row[name])
    if name in ("call", "errno") or value is None:
        return value
    return oracle.bits(value) if name in ("prot", "flags") else int(value)


def wrong_columns(row: Any, call: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return column -> (what it holds, what it must hold) where they differ."""
    wrong = {name: (shown(row, name), value) for name, value in in_columns(call).items() if shown(row, name) != value}
    pid = call.get("pid", call.get("tid"))
    if pid is not None and column(row["pid"]) not in (None, pid):
        wrong["pid"] = (row["pid"], pid)
    status = "failed" if call.get("errno") else "ok"
    if row["dialect"] == "strace" and row["status"] != status:
        wrong["status"] = (row["status"], status)
    return wrong


def compare(log: Path, calls: list[dict[str, Any]]) -> dict[int, Any]:
    """Return line -> what is wrong with it, for each recorded call."""
    by_line = {int(row["line"]): row for _, row in events_of(log).iterrows()}
    wrong: dict[int, Any] = {}
    for call in calls:
        row = by_line.get(call["line"])
        if row is None:
            wrong[call["line"]] = f"no event; it is {call['call']}"
        elif found := wrong_columns(row, call):
            wrong[call["line"]] = found
    return wrong


@pytest.mark.parametrize("log", STRACE, ids=lambda log: log.stem)
def test_strace_calls_are_those_that_the_kernel_ran(log: Path) -> None:
    calls = expected_calls(log)
    assert compare(log, calls) == {}
    events = events_of(log)
    named = ~events["name"].str.startswith("syscall_")  # those that strace knew by number only were not recorded
    completed = events[events["call"].isin(MEMORY_CALLS) & (events["status"] != "unfinished") & named]
    assert sorted(completed["line"]) == sorted(call["line"] for call in calls)


@pytest.mark.parametrize("log", LTRACE, ids=lambda log: log.stem)
def test_ltrace_calls_are_those_that_the_program_made(log: Path) -> None:
    assert compare(log, [call for call in expected_calls(log) if not call.get("not_by_program")]) == {}
