"""What would have become of a run under other policies: a row a policy, the recorded one first.

In go a run and policies, out come rows of figures. How they are shown is not known here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

import numpy as np

from replay.console.amounts import number
from replay.engine.columns import NO_TEXT, NULL, Columns
from replay.engine.progress import Stage, Watch, unwatched
from replay.errors import ReplayError
from replay.heap.blocks import UNKNOWN_FREE
from replay.linux.constants import CALL_CODE
from replay.mm.fields import KIND_BRK, KIND_FILE, KIND_IMAGE
from replay.run.api import Run, load
from replay.run.moment import alive
from replay.spaces.replay import SPACE_ORIGINS
from replay.whatif.agreement import Agreement, agreement
from replay.whatif.player import PACKAGES, Played, Policy, PolicyError, library_of, play
from replay.whatif.stream import MAP, Stream, stream_of
from replay.whatif.tunables import parse_setting, recorded_settings

RECORDED: Final = Policy("as recorded")
UNBLOCKED: Final = Policy("nothing above the break", blocked=False)

TUNED: Final = (
    Policy("top_pad 1 MiB", (("glibc.malloc.top_pad", str(1 << 20)),)),
    Policy("top_pad 16 MiB", (("glibc.malloc.top_pad", str(16 << 20)),)),
    Policy("mmap_threshold 64 KiB", (("glibc.malloc.mmap_threshold", str(64 << 10)),)),
    Policy("mmap_threshold 128 KiB, fixed", (("glibc.malloc.mmap_threshold", str(128 << 10)),)),
    Policy("mmap_threshold 32 MiB", (("glibc.malloc.mmap_threshold", str(32 << 20)),)),
    Policy("trim_threshold 64 KiB", (("glibc.malloc.trim_threshold", str(64 << 10)),)),
    Policy("arena_max 1", (("glibc.malloc.arena_max", "1"),)),
    Policy("tcache_count 0", (("glibc.malloc.tcache_count", "0"),)),
)
OTHERS: Final = tuple(Policy(name, allocator=name) for name in (*PACKAGES, "musl"))
"""What is tried where nothing else is asked for. Source: glibc manual, Memory Allocation Tunables."""

MARK: Final = 0x10000
"""Between two refused munmaps of this address stands what a stream did, see player.c."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a policy came to. Sizes are bytes; of mapped memory that of the recorded run, more or less what differs.

    `note` says why there are no figures (the allocator is not installed, the player died).
    """

    name: str
    brk_calls: int | None = None
    refused: int | None = None
    fallbacks: int | None = None
    fallback_bytes: int | None = None
    arenas: int | None = None
    peak_mapped_bytes: int | None = None
    end_mapped_bytes: int | None = None
    resident_bytes: int | None = None
    resident_at_peak_bytes: int | None = None
    mappings: int | None = None
    heap_fragmentation: float | None = None
    address_fragmentation: float | None = None
    null_answers: int | None = None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The rows, the recorded policy first, and how far its run agrees with the recording."""

    rows: list[Row]
    agreement: Agreement
    doubts: list[str]
    requests: int
    threads: int
    unserved: int

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries, as JSON and DataFrames take them."""
        return [asdict(row) for row in self.rows]


def default_policies(run: Run) -> list[Policy]:
    """Return a sensible dozen: glibc's tunables that may matter, and the allocators that are here."""
    blocked = [UNBLOCKED] if len(run.activity.brk_failures["step"]) else []
    return [*blocked, *TUNED, *(policy for policy in OTHERS if _is_here(policy))]


def policy_of(text: str) -> Policy:
    """Return the policy that a word names: `NAME=VALUE` of a tunable (several with colons), an allocator, `unblock`.

    Raises:
        PolicyError: there is no such allocator here, or it is no setting.
    """
    if text == "unblock":
        return UNBLOCKED
    if "=" not in text:
        library_of(text)
        return Policy(text, allocator=text)
    try:
        return Policy(text, tuple(parse_setting(part) for part in text.split(":")))
    except ValueError as error:
        raise PolicyError(str(error)) from error


def _is_here(policy: Policy) -> bool:
    from replay.whatif.player import player

    try:
        library_of(policy.allocator)
        player(policy.allocator)
    except PolicyError:
        return False
    return True


def what_if(
    run: Run,
    policies: Iterable[Policy],
    *,
    pid: int | None = None,
    touch: bool = False,
    keep: Path | None = None,
    watch: Watch = unwatched,
) -> WhatIf:
    """Return what the requests of a process would have come to.

    Args:
        run: the recorded run.
        policies: what to try beside the recorded settings.
        pid: whose requests; without, those of the space with the most.
        touch: whether each page that was asked for is touched, so that what is resident can be told.
        keep: a directory that gets a recording of each run.
        watch: is told how far the work is.

    Raises:
        NoRequestsError: the log shows no malloc calls.
        PolicyError: there is no compiler for the player.
        ReplayError: the player ended before the stream did with the recorded settings.
    """
    recorded = RECORDED._replace(settings=recorded_settings(run))
    plain = stream_of(run, pid)
    obstacles = _foreign_mappings(run, plain.space)
    blocked = stream_of(run, pid, foreign=obstacles) if len(obstacles["size"]) else plain
    chosen = [policy._replace(settings=(*recorded.settings, *policy.settings)) for policy in policies]
    with _directory(keep) as directory, _written(directory, plain, blocked) as files:

        def served(number: int, policy: Policy) -> _Figures:
            watch(Stage(f"serving: {policy.name}", number, len(chosen) + 1))
            place = directory / _folder(number, policy.name)
            played = play(policy, files[policy.blocked], place, touch=touch)
            figures = _Figures(load(played.log, elf_root=None), played)
            if keep is None:
                rmtree(place)  # a long stream's recordings together would fill a disk
            return figures

        first = served(0, recorded)
        proof = agreement(blocked, first.played.addresses, recorded_moves(run, blocked), first.moves())
        most = int(run.footprint.most_mapped[plain.space])
        rows = [first.row(recorded.name, first.beside(most, first), _unplaced(blocked, first.played), touch=touch)]
        for number, policy in enumerate(chosen, 1):
            try:
                found = served(number, policy)
            except ReplayError as error:
                rows.append(Row(policy.name, note=str(error).removeprefix(f"{policy.name}: ")))
                continue
            note = _unplaced(blocked, found.played) if policy.blocked else ""
            rows.append(found.row(policy.name, found.beside(most, first), note, touch=touch))
    return WhatIf(rows, proof, doubts(run, plain), len(plain.records), len(plain.threads), plain.unserved)


@contextmanager
def _written(directory: Path, plain: Stream, blocked: Stream) -> Iterator[dict[bool, Path]]:
    """Write the streams, and give the file of each by whether a policy is blocked; one file where they are the same."""
    files = {False: directory / "unblocked.stream", True: directory / "blocked.stream"}
    if blocked is plain:
        files[False] = files[True]
    try:
        blocked.write(files[True])
        if blocked is not plain:
            plain.write(files[False])
        yield files
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def _unplaced(stream: Stream, played: Played) -> str:
    """Say it where what stood above the recorded break could not be mapped: the heap was there already."""
    places = np.flatnonzero(stream.records["operation"] == MAP)
    missing = int((played.addresses[places] == 0).sum())
    if not missing:
        return ""
    return f"{number(missing, 'mapping')} above the break found the heap in its place: here nothing stood in the way"


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """Give the directory of the recordings: the one that is asked for, else one that goes at the end."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="replay-whatif-") as folder:
        yield Path(folder)


def _folder(number: int, name: str) -> str:
    return f"{number:02}-" + "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)


# --- the break -------------------------------------------------------------------------------------------------------


def doubts(run: Run, stream: Stream) -> list[str]:
    """Return what of the log may keep a run of the same settings from giving the same addresses."""
    made, blocks = run.replayed, run.malloc_blocks
    allocators = run.activity.allocators
    here = [
        run.strings[name]
        for name, space in zip(allocators["name"], allocators["space"], strict=True)
        if space == stream.space
    ]
    found = []
    if here and here[0] not in ("glibc", "unknown"):
        found.append(f"the program's malloc is that of {here[0]}, and this machine's libc served it again")
    if blocks.count(UNKNOWN_FREE):
        found.append("blocks were freed that the log never saw handed out: it does not show all calls")
    if SPACE_ORIGINS[int(made.spaces["origin"][stream.space])] == "found":
        found.append("the log does not show the start of the program: malloc may have been used before")
    if len(stream.threads) > 1:
        found.append(f"{len(stream.threads)} threads: which arena each takes may differ")
    return [*found, "the libc of this machine may be another version than the recorded one"]


def recorded_moves(run: Run, stream: Stream) -> list[int]:
    """Return the moves of the recorded break that malloc asked for, in bytes, 0 where refused."""
    return _moves(run, stream.space, 0, run.replayed.events.rows, inside=True)


def _moves(run: Run, space: int, first: int, last: int, *, inside: bool) -> list[int]:
    brks = run.replayed.brks
    steps = brks["step"]
    mine = (brks["space"] == space) & (steps >= first) & (steps < last) & (brks["requested"] > 0)
    if inside and (run.nesting.around(steps) != NULL).any():
        mine &= run.nesting.around(steps) != NULL
    before = brks["before"][mine]
    moves = np.where(before == NULL, 0, brks["granted"][mine] - before)
    return [int(move) for move in moves.tolist()]


def _foreign_mappings(run: Run, space: int) -> Columns:
    """Return what no malloc call made and stood between the first break and the highest that was asked for."""
    brks, regions = run.replayed.brks, run.replayed.regions
    start = int(run.replayed.spaces["start_brk"][space])
    asked = brks["requested"][brks["space"] == space]
    page = run.replayed.page_size
    highest = int(asked.max(initial=0)) + page
    rows = np.flatnonzero(
        (regions["space"] == space)
        & (regions["kind"] != KIND_BRK)
        & (regions["start"] >= max(start, 1))
        & (regions["start"] < highest)
    )
    columns = {name: regions.at(name, rows) for name in ("born_step", "died_step", "start", "end")}
    own = run.nesting.around(np.maximum(columns["born_step"], 0)) != NULL
    kept = ~(own & (columns["born_step"] >= 0)) if start != NULL else np.zeros(len(rows), np.bool_)
    return {
        "born_step": np.maximum(columns["born_step"][kept], 0),
        "died_step": columns["died_step"][kept],
        "distance": columns["start"][kept] - start // page * page,
        "size": (columns["end"] - columns["start"])[kept],
    }


# --- what a run came to ----------------------------------------------------------------------------------------------


class _Figures:
    """The figures of one run of the player, of what stands between its marks."""

    def __init__(self, run: Run, played: Played) -> None:
        self.run = run
        self.played = played
        events = run.replayed.events
        marks = np.flatnonzero(
            (events["call"] == CALL_CODE["munmap"]) & (events["addr"] == MARK) & (events["length"] == 0)
        )
        if len(marks) < 2:
            raise ReplayError(f"{played.log}: the recording of the player has no marks")
        self.first, self.last = int(marks[0]), int(marks[-1])
        self.space = int(events.one("space", self.first))
        changes = run.replayed.changes
        until = np.flatnonzero((changes["space"] == self.space) & (changes["step"] < self.last))
        # From what was mapped at the first mark on: an allocator that has room enough changes nothing behind it.
        mine = until[max(int(np.searchsorted(changes["step"][until], self.first)) - 1, 0) :]
        names = ("mapped_bytes", "mapping_count", "gap_bytes", "largest_gap_bytes")
        self.changes = {name: changes[name][mine] for name in names}
        self.start = int(self.changes["mapped_bytes"][0]) if len(mine) else 0
        self.anonymous = self.start - self._file_bytes()

    def moves(self) -> list[int]:
        """Return the moves of the break in bytes."""
        return _moves(self.run, self.space, self.first, self.last, inside=False)

    def _file_bytes(self) -> int:
        """Return how much of files is mapped at the first mark: the player's own, others than the program's."""
        replayed = self.run.replayed
        rows = alive(replayed, self.space, int(replayed.events.one("clock", self.first)))
        files = rows[np.isin(replayed.regions.at("kind", rows), (KIND_FILE, KIND_IMAGE))]
        return int((replayed.regions.at("end", files) - replayed.regions.at("start", files)).sum())

    def beside(self, recorded: int, first: _Figures) -> int:
        """Return what to add to what the player had mapped for what the program would have.

        It is what the recorded run, whose most was `recorded`, had before its first request, less what the player had;
        what an allocator took before it stays: what is anonymous beyond that of the run with the recorded settings.
        """
        taken = max(self.anonymous - first.anonymous, 0)
        return recorded - (first.peak() - first.start) + taken - self.start

    def peak(self) -> int:
        """Return how much was mapped at most."""
        return int(self.changes["mapped_bytes"].max(initial=0))

    def row(self, name: str, base: int, note: str, *, touch: bool) -> Row:
        """Return the row of a policy; `base` is what the recorded run had mapped beside what the player has."""
        activity = self.run.activity
        mmaps, strings = activity.allocator_mmaps, self.run.strings
        kinds = np.array([strings[kind] for kind in mmaps["kind"].tolist()], object)
        inside = (mmaps["step"] >= self.first) & (mmaps["step"] < self.last)
        fell_back = inside & np.isin(kinds, ("fallback", "last_resort"))
        failures = activity.brk_failures["step"]
        gaps = int(self.changes["gap_bytes"][-1]) if len(self.changes["gap_bytes"]) else 0
        largest = int(self.changes["largest_gap_bytes"][-1]) if gaps else 0
        ends = self.changes["mapped_bytes"]
        return Row(
            name=name,
            brk_calls=int((self._brk_steps() >= self.first).sum()),
            refused=int(((failures >= self.first) & (failures < self.last)).sum()),
            fallbacks=int(fell_back.sum()),
            fallback_bytes=int(mmaps["bytes"][fell_back & (mmaps["errno"] == NO_TEXT)].sum()),
            arenas=int((inside & (kinds == "arena_heap")).sum()),
            peak_mapped_bytes=base + self.peak(),
            end_mapped_bytes=base + int(ends[-1]) if len(ends) else None,
            resident_bytes=self.played.resident_bytes if touch else None,
            resident_at_peak_bytes=self.played.resident_at_peak_bytes if touch else None,
            mappings=int(self.changes["mapping_count"].max(initial=0)),
            heap_fragmentation=self.run.summary_values.get("heap_fragmentation"),
            address_fragmentation=1 - largest / gaps if gaps else None,
            null_answers=self.played.refused,
            seconds=self.played.nanoseconds / 1e9,
            note=note,
        )

    def _brk_steps(self) -> np.ndarray:
        brks = self.run.replayed.brks
        steps: np.ndarray = brks["step"][(brks["space"] == self.space) & (brks["step"] < self.last)]
        return steps
