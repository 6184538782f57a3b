"""Is it a leak, or is it fragmentation: the answer in sentences, with the numbers that decide, and what to try.

In go findings about malloc, out come paragraphs with their tone; how they are laid out this module does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from replay.console.amounts import address, exact, number, percent, size
from replay.console.screen import clean
from replay.heap.diagnosis import ANSWERS, BOTH, FRAGMENTATION, LEAK, NEITHER
from replay.heap.leaks import Growth
from replay.heap.snapshot import HeapSnapshot
from replay.linux.glibc import TRIM_THRESHOLD
from replay.logs.recordings import shows_all_blocks
from replay.report.cannot_tell import LEAKS, cannot_tell
from replay.report.facts import Paragraph
from replay.report.findings import malloc_of
from replay.report.malloc.facts import Fault
from replay.report.malloc.findings import SCATTERED, MallocFindings
from replay.run.places import span

QUESTION: Final = "Is it a leak, or is it fragmentation?"

_LARGE_TOP: Final = 4 << 20
"""Bytes free at the top from which on a word about trimming is due. Heuristic."""


def verdict(malloc: MallocFindings) -> Iterator[Paragraph]:
    """Yield the answer, what is wrong besides, and what makes the answer doubtful."""
    if not len(malloc.run.malloc_blocks):
        yield Paragraph(
            "Whether memory leaks cannot be told: the log shows frees, but no block that was handed out. Capture from "
            "the program's start: ltrace -f -S."
        )
        return
    answer = _answer(malloc)
    yield answer._replace(text=f"Of the whole log: {answer.text}") if malloc.findings.when else answer
    yield from _faults(malloc)
    yield from _doubts(malloc)


def _answer(malloc: MallocFindings) -> Paragraph:
    answer = _judgement(malloc)
    if len(malloc.spaces) < 2:
        return answer
    whose = f"This is said of {malloc.findings.spaces[malloc.space].name}, which had the most bytes live at once."
    return Paragraph(" ".join([answer.text, *_elsewhere(malloc), whose]), answer.tone)


def _elsewhere(malloc: MallocFindings) -> Iterator[str]:
    """Yield what other spaces left."""
    left = malloc.left_elsewhere
    if left:
        most = left[0]
        more = f" and {number(len(left) - 1, 'further space')}" if len(left) > 1 else ""
        blocks, bytes_ = sum(row.live_blocks for row in left), sum(row.live_bytes for row in left)
        name, were = malloc.findings.spaces[most.space].name, "was" if blocks == 1 else "were"
        yield f"In {name}{more} {number(blocks, 'block')}, {exact(bytes_)}, {were} not freed either."


def _judgement(malloc: MallocFindings) -> Paragraph:
    fragmented = malloc.diagnosis.fragmented
    parts = [_left(malloc), _held(malloc)]
    if malloc.word == ANSWERS[FRAGMENTATION]:
        parts.reverse()
    bad = fragmented or (malloc.word == ANSWERS[LEAK] and malloc.diagnosis.growth.growing)
    clear = malloc.word == ANSWERS[NEITHER] and not _is_left(malloc) and not malloc.passing
    sound = clear and not _leaves_out(malloc)
    return Paragraph(" ".join([QUESTION, _head(malloc), *parts]), "bad" if bad else "good" if sound else "")


def _head(malloc: MallocFindings) -> str:
    """Return the answer in a few words: no more than the log can tell."""
    fragmented = malloc.diagnosis.fragmented
    if malloc.leak_untold and _is_left(malloc):
        head = "Fragmentation; whether" if fragmented else "Whether"
        return f"{head} it is a leak{' as well' if fragmented else ''} cannot be told: {malloc.leak_untold}."
    if malloc.word == ANSWERS[LEAK]:
        return f"A leak, {_UNLESS}."
    if malloc.word == ANSWERS[BOTH]:
        return f"Both: a leak, {_UNLESS}, and fragmentation."
    if fragmented:
        return "Fragmentation."
    if _is_left(malloc):
        return f"Hardly a leak: little is left, {_ALSO}."
    return "So far neither." if malloc.leak_untold else "Neither."


def _leaves_out(malloc: MallocFindings) -> bool:
    """Return whether blocks may have leaked that the log does not show."""
    return any(one.question == LEAKS for one in cannot_tell(malloc.findings))


_UNLESS: Final = "unless the program keeps those blocks on purpose"
_ALSO: Final = "and the program may keep it on purpose"


def _is_left(malloc: MallocFindings) -> bool:
    """Return whether any space has blocks that were not freed."""
    return bool(malloc.diagnosis.leaked_blocks or malloc.left_elsewhere)


def _left(malloc: MallocFindings) -> str:
    """Return what is live at the end, and whether it grew."""
    found = malloc.diagnosis
    end = "the exit" if malloc.exited else "the end of the log"
    if not found.leaked_blocks:
        return f"Every block{' that the log shows' if _leaves_out(malloc) else ''} was freed before {end}."
    were = "was" if found.leaked_blocks == 1 else "were"
    share = percent(found.leaked_bytes, found.peak.live_bytes)
    text = (
        f"{number(found.leaked_blocks, 'block')}, {exact(found.leaked_bytes)}, {were} not freed before {end}: {share} "
        f"of the most that was live at once{_where(malloc, found.peak)}"
    )
    return f"{text}. {_growth(found.growth)}" if found.leaking else f"{text}."


def _growth(growth: Growth) -> str:
    """Return whether live memory grew, by the least that was live in each quarter of the run."""
    *marks, last = map(size, growth.low_water)
    grew = "grew to the end" if growth.growing else "did not grow to the end"
    return f"Live memory {grew}: in each quarter of the run at least {', '.join(marks)} and {last} were live."


def _in_no_block(malloc: MallocFindings, picture: HeapSnapshot) -> str:
    """Return how much of the heap lies in no block, where that is much: of a recording of all calls it is no one's."""
    if picture.unseen_bytes * 10 < picture.heap_bytes:
        return ""
    found = f" {exact(picture.unseen_bytes)} of the heap lay in no block"
    if shows_all_blocks(malloc.run.source.files):
        return f"{found}: never handed out, or the allocator's own."
    return f"{found} that the log shows: whether they were free is not known."


def _held(malloc: MallocFindings) -> str:
    """Return how much of the heap is free but held back by live blocks, at the moment that says most."""
    picture, moment = malloc.decisive
    if not picture.heap_bytes:
        return "No heap is left to be fragmented." if moment == "end" else "There is no heap to be fragmented."
    when = {
        "largest": f"When the heap was largest{_where(malloc, picture)}",
        "end": "Just before the exit" if malloc.exited else "At the end of the log",
    }[moment]
    heap, share = size(picture.heap_bytes), percent(picture.held_bytes, picture.heap_bytes)
    unseen = _in_no_block(malloc, picture)
    if malloc.passing:
        worst = malloc.worst
        held = f"{size(worst.held_bytes)} of the heap's {size(worst.heap_bytes)}"
        return (
            f"In between, {held} ({percent(worst.held_bytes, worst.heap_bytes)}) were free but lay below live "
            f"blocks{_where(malloc, worst)}, but no more at the end."
        )
    if not malloc.diagnosis.fragmented:
        if not picture.held_bytes:
            none = f", as far as the log shows.{unseen}" if unseen else ": no fragmentation."
            return f"{when} nothing of the heap's {heap} was free below live blocks{none}"
        held = f"{size(picture.held_bytes)} of the heap's {heap} ({share})"
        return f"{when} {held} were free below live blocks: too little to call it fragmentation.{unseen}"
    return (
        f"{when} {exact(picture.held_bytes)} of the heap's {heap} ({share}) were free but lay below live blocks, so "
        "that free gave none of them back to the kernel; the largest free range had "
        f"{size(picture.largest_free_bytes)}."
    )


def _where(malloc: MallocFindings, picture: HeapSnapshot) -> str:
    place = malloc.places.of_clock(picture.line)
    return f" ({place})" if place else ""


def _faults(malloc: MallocFindings) -> Iterator[Paragraph]:
    double, failed = malloc.double_frees, malloc.failed
    if double.count:
        yield Paragraph(
            f"{number(double.count, 'block')} {'was' if double.count == 1 else 'were'} freed twice ({_first(double)}): "
            "a bug that corrupts the heap, whatever else is true.",
            "bad",
        )
    if failed.count:
        yield Paragraph(f"{number(failed.count, 'allocation')} failed ({_first(failed)}).", "bad")


def _first(fault: Fault) -> str:
    return f"{'first ' if fault.count > 1 else ''}{fault.text}, {fault.first}"


def _doubts(malloc: MallocFindings) -> Iterator[Paragraph]:
    unknown, frees = malloc.unknown_frees, len(malloc.run.malloc_blocks.taken_steps)
    if malloc.many_unknown:
        yield Paragraph(
            f"Mind: {unknown.count:,} of {number(frees, 'free')} are of blocks that the log never saw handed out. It "
            "begins in the middle of the run, or leaves out libraries that allocate; what is live is counted too low."
        )


# --- what to try -----------------------------------------------------------------------------------------------------


def to_try(malloc: MallocFindings) -> Iterator[str]:
    """Yield what to try, the most promising first."""
    if not len(malloc.run.malloc_blocks):
        return
    found = malloc.diagnosis
    if malloc.double_frees.count:
        yield "For the double free: build with -fsanitize=address, which stops at it and shows who freed first."
    if found.leaking and (not malloc.leak_untold or found.growth.growing):
        yield from _against_leak(malloc)
    glibc = malloc_of(malloc.findings, malloc.space) in ("glibc", "unknown")
    if found.fragmented:
        yield from _against_pins(malloc)
        if glibc:
            yield from _against_fragments(malloc)
    if glibc and found.end.top_bytes >= _LARGE_TOP:
        yield from _against_top(malloc)


def _against_leak(malloc: MallocFindings) -> Iterator[str]:
    group = next((group for group in malloc.leaks if group.space == malloc.space), None)
    if group is None or not group.bytes:
        return
    total = malloc.diagnosis.leaked_bytes
    who = f" to {clean(group.caller)}" if group.caller else ""
    blocks = f"{'block' if group.count == 1 else number(group.count, 'block')} of {_sizes(group.least, group.most)}"
    lines = span(group.first, group.last) if group.first and group.last else "lines unknown"
    yield (
        f"Look first at the {blocks} that {group.call} handed out{who} ({lines}): {percent(group.bytes, total)} of all "
        f"that is left.{_who_asked(malloc)}"
    )


def _sizes(least: int, most: int) -> str:
    return f"{least:,} to {most:,} bytes" if least != most else number(least, "byte")


def _who_asked(malloc: MallocFindings) -> str:
    """Return what shows the code that asked for blocks: the stacks that a recording has, or could have had."""
    if malloc.run.source.framed:
        return " replay stacks shows the stacks of all that is left."
    if malloc.is_recording:
        return " replay record --stacks 16 PROG shows the code that asked for them."
    return " -fsanitize=leak, or valgrind --leak-check=full, shows the code that asked for them."


def _against_pins(malloc: MallocFindings) -> Iterator[str]:
    pin = malloc.pins[0] if malloc.pins else None
    if pin is None or pin.blocks_above > SCATTERED:
        yield (
            "Blocks that live long and blocks that live short lie mixed: give those that live long, or each size, a "
            "pool of its own, so that what is freed together lies together."
        )
        return
    above = {0: "", 1: " and the one above it"}.get(pin.blocks_above, f" and the {pin.blocks_above} above it")
    yield (
        f"Free the block at {address(pin.addr)} ({number(pin.size, 'byte')}, {pin.call} of {pin.born}){above}: "
        f"then {size(pin.released_bytes)} go back, these included. Allocate what lives long before what is freed soon, "
        "or from a pool of its own."
    )


def _against_fragments(malloc: MallocFindings) -> Iterator[str]:
    trim = malloc.whole_free_pages
    if trim and malloc.decisive[1] == "end":
        yield (
            f"malloc_trim(0) at the end would give back up to {size(trim)}: unlike free it also returns whole free "
            "pages below live blocks."
        )
    if malloc.raises:
        yield (
            "Fix M_MMAP_THRESHOLD (mallopt, or GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072): frees raised it to "
            f"{size(malloc.raises[-1].after)}, so that blocks below that come from the heap and leave holes there; "
            "fixed, each large block is mapped by itself and goes back when it is freed."
        )


def _against_top(malloc: MallocFindings) -> Iterator[str]:
    top = malloc.diagnosis.end.top_bytes
    threshold = max([TRIM_THRESHOLD, *(2 * raised.after for raised in malloc.raises)])
    raised = f" (free trims only from {size(threshold)} on, since a free raised that)"
    why = raised if threshold > TRIM_THRESHOLD else ""
    yield (
        f"{size(top)} lie free at the top of the heap at the end{why}: malloc_trim(0), or a fixed M_TRIM_THRESHOLD "
        "(GLIBC_TUNABLES=glibc.malloc.trim_threshold=131072), gives them back."
    )
