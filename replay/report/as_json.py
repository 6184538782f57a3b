"""The report as one JSON document: what the text says, and all rows that it groups.

In go a run's findings, out come plain values under stable keys: addresses as `"0x…"`, sizes in bytes, times in ns, and
the line of the log with each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np

from replay.engine.columns import NULL, to_unsigned
from replay.report import address_map, advice
from replay.report.cannot_tell import cannot_tell
from replay.report.findings import Findings
from replay.report.verdict import verdict
from replay.run.places import place_values
from replay.run.stacks import growth_sites
from replay.tables import table_of
from replay.version import __version__

if TYPE_CHECKING:
    from replay.linux.proc_maps import Mapping as Mapping_
    from replay.run.api import Run

DOCUMENT_VERSION: Final = 1
"""Changes only when a key is renamed, retyped or taken away."""

_ADDRESSES: Final = ("requested", "granted", "blocker_start", "blocker_end", "addr")
_LARGEST_GAPS: Final = 10
LARGEST: Final = 8
"""As many mappings are listed as the largest ones."""


def json_report(run: Run) -> dict[str, Any]:
    """Return the report on a run as values for JSON."""
    findings = Findings(run)
    return {
        "replay": {"version": __version__, "document": DOCUMENT_VERSION},
        "sources": list(run.source.files),
        **({} if run.shown is None else {"shown": str(run.shown.window)}),
        "summary": dict(run.summary_values),
        "verdict": [paragraph.text for paragraph in verdict(findings)],
        "meaning": advice.meaning(findings),
        "advice": advice.to_try(findings),
        "cannot_tell": [one._asdict() for one in cannot_tell(findings)],
        "allocators": [
            {"name": name, "evidence": evidence, "spaces": spaces} for name, evidence, spaces in findings.allocators
        ],
        "brk_failures": _rows(findings, "brk_failures", run.activity.brk_failures),
        "fallbacks": _fallbacks(findings),
        "allocator_mmaps": _mmap_groups(findings),
        "refused": _refused(findings),
        **_malloc(findings),
        **_askers(findings),
        "layout": _layout(findings),
        "images": [
            {"space": space, "inferred_from": list(image.told_by), "misfit": image.misfit or None}
            for space, image in run.replayed.images.items()
            if image.told_by or image.misfit
        ],
        "largest_mappings": _largest(findings),
        "processes": [_space(findings, space) for space in range(len(findings.spaces))],
        "problems": _problems(findings),
        "lines": {
            "read": run.source.counters.lines,
            "understood": run.source.counters.lines_understood,
            "passed_over": run.source.counters.lines_passed_over,
            "not_understood": run.source.counters.lines_not_understood,
        },
    }


def _askers(findings: Findings) -> dict[str, Any]:
    """Return who asked for memory; logs without call stacks have no such key."""
    values = [
        {
            "what": one.what,
            "asked_by": one.site,
            "count": one.calls,
            "bytes": one.bytes,
            **findings.places.values_of_steps(one.first_step, one.last_step),
        }
        for one in growth_sites(findings.run)
    ]
    return {"asked_by": values} if values else {}


def _malloc(findings: Findings) -> dict[str, Any]:
    """Return the part about malloc; logs that show none of it have no such key."""
    if findings.malloc is None:
        return {}
    from replay.report.malloc.as_json import json_report as about_malloc

    return {"malloc": about_malloc(findings.malloc)}


def write_json(values: Any, stream: TextIO) -> None:
    r"""Write values as indented JSON; bytes of the log that are not UTF-8 stand there as `\xNN`."""
    encoder = json.JSONEncoder(indent=2, ensure_ascii=True, allow_nan=False, default=_plain)
    for piece in encoder.iterencode(_decoded(values)):
        stream.write(piece)
    stream.write("\n")


def write_json_rows(rows: Iterable[Mapping[str, Any]], stream: TextIO) -> int:
    """Write rows of values as a JSON array, one a line, as they come; return how many they are."""
    count = 0
    stream.write("[")
    for count, row in enumerate(rows, 1):
        text = json.dumps(_decoded(row), ensure_ascii=True, allow_nan=False, default=str)
        stream.write(("\n  " if count == 1 else ",\n  ") + text)
    stream.write("\n]\n" if count else "]\n")
    return count


def mapping_values(mapping: Mapping_) -> dict[str, Any]:
    """Return a line of /proc/PID/maps as values: addresses and offset in hexadecimal, the path null for none."""
    return {
        "start": f"{mapping.start:#x}",
        "end": f"{mapping.end:#x}",
        "size": mapping.end - mapping.start,
        "perms": mapping.perms,
        "offset": f"{mapping.offset:#x}",
        "path": mapping.path or None,
    }


def _decoded(value: Any) -> Any:
    """Return values whose texts hold no halves of characters."""
    if isinstance(value, str):
        if value.isascii():
            return value
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {key: _decoded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_decoded(entry) for entry in value]
    return value


def _plain(value: Any) -> Any:
    """Return a NumPy number as a plain one."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"no JSON for {type(value).__name__}")


def _rows(findings: Findings, name: str, columns: Mapping[str, Any], chosen: Any = None) -> list[dict[str, Any]]:
    """Return the rows of a table of the run by column, as the schema names and types them."""
    facts = [column for column in table_of(name).columns if column.name in columns]
    lists = [list(_values(findings, column.name, column.type, columns[column.name], chosen)) for column in facts]
    names = [column.name for column in facts]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]
    for row in rows:
        row.update(place_values(findings.places.of_step(row["step"])))
        if row.get("blocker_line") is not None:
            place = findings.places.of_clock(row["blocker_line"])
            row["blocker_line"] = place.line if place else None
    return rows


def _values(findings: Findings, name: str, type_: str, column: Any, chosen: Any) -> Iterator[Any]:
    values = (column if chosen is None else column[chosen]).tolist()
    for value in values:
        if value == NULL or (type_ in ("dictionary", "string") and value < 0):
            yield None
        elif type_ in ("dictionary", "string"):
            yield findings.text(value)
        elif name in _ADDRESSES:
            yield f"{to_unsigned(value):#x}"
        else:
            yield value


def _fallbacks(findings: Findings) -> list[dict[str, Any]]:
    mmaps = findings.run.activity.allocator_mmaps
    return _rows(findings, "allocator_mmaps", mmaps, findings.fallback_rows)


def _mmap_groups(findings: Findings) -> list[dict[str, Any]]:
    """Return the other mappings of allocators, added up; each one is in the table allocator_mmaps."""
    return [
        {
            "kind": group.kind,
            "allocator": group.allocator,
            "errno": group.errno or None,
            "count": group.count,
            "bytes": group.total_bytes,
            **findings.places.values_of_steps(group.first_step, group.last_step),
        }
        for group in findings.other_groups
    ]


def _refused(findings: Findings) -> list[dict[str, Any]]:
    """Return the other calls for memory that were refused, alike ones together."""
    return [
        {
            "call": group.call,
            "errno": group.errno,
            "count": group.count,
            "least_bytes": group.least_bytes,
            "most_bytes": group.most_bytes,
            "reason": group.reason or None,
            **findings.places.values_of_steps(group.first_step, group.last_step),
        }
        for group in findings.refused
    ]


def _layout(findings: Findings) -> dict[str, Any] | None:
    """Return the mappings, gaps and kinds of the space and moment that the text draws."""
    space, moment = findings.main_space, findings.moment
    if space is None or moment is None:
        return None
    pieces = address_map.pieces_at(findings.run, space, moment[0])
    gaps = address_map.gaps_of(pieces)
    return {
        "space": space,
        **place_values(findings.places.of_clock(moment[0])),
        "occasion": moment[1],
        "mappings": [_mapping(findings, piece) for piece in pieces.all()],
        "gap_count": len(gaps),
        "gap_bytes": gaps.bytes,
        "largest_gaps": [
            {"start": f"{gap.start:#x}", "end": f"{gap.end:#x}", "bytes": gap.bytes}
            for gap in gaps.largest(_LARGEST_GAPS)
        ],
        "kinds": [
            {"kind": kind, "mappings": count, "bytes": size} for kind, count, size in address_map.kinds_of(pieces)
        ],
    }


def _mapping(findings: Findings, piece: address_map.Piece) -> dict[str, Any]:
    place = findings.places.of_clock(piece.made_clock)
    return {
        "start": f"{piece.start:#x}",
        "end": f"{piece.end:#x}",
        "bytes": piece.bytes,
        "perms": piece.perms,
        "kind": piece.kind,
        "path": piece.path or None,
        "origin": piece.origin,
        **place_values(place),
    }


def _largest(findings: Findings) -> list[dict[str, Any]]:
    """Return the largest mappings of the space that is drawn when it had most mapped, with whose they are."""
    if findings.main_space is None:
        return []
    pieces = address_map.pieces_at(findings.run, findings.main_space, findings.peak_clock)
    return [_mapping(findings, piece) | {"owner": findings.owner(piece)} for piece in pieces.largest(LARGEST)]


def _space(findings: Findings, space: int) -> dict[str, Any]:
    facts = findings.spaces[space]
    return {
        "space": facts.space,
        "parent": facts.parent,
        "made_by": {"found": None, "exec": "execve", "fork": "fork"}[facts.origin],
        "pid": facts.pid,
        "program": facts.program or None,
        **place_values(facts.first, "first_"),
        **place_values(facts.last, "last_"),
        "peak_mapped_bytes": facts.peak_mapped,
        "peak_brk_bytes": facts.peak_brk,
        "brk_failures": facts.failures,
        "mmap_fallbacks": facts.fallbacks,
    }


def _problems(findings: Findings) -> list[dict[str, Any]]:
    return [
        {"reason": group.reason, "count": group.count, **place_values(group.first, "first_"), "text": group.text}
        for group in findings.problems
    ]
