"""Replay many mutated logs and check what holds of every result: `python tests/fuzz.py --inputs 20000`.

Tables are made and checked of each input; of the reports, steps and verdicts one, in turn: they cost as much again.

Ends with the number of inputs, of those that are no trace, and of those at which something broke, each with the number
that makes it again (`--only N` writes that input to standard output). `--checked` has the loops compiled so that an
index outside of its array stops the process: the input at which that happens stays in the temporary directory.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from invariants import LOOKS, check, check_ways  # noqa: E402  (here and below: the path must come first)
from mutations import mutated  # noqa: E402

from replay import grammar  # noqa: E402
from replay.engine import build_hook, native  # noqa: E402
from replay.errors import TraceFormatError  # noqa: E402
from replay.grammar import LineError  # noqa: E402
from replay.grammar.line import Line  # noqa: E402
from replay.lines import templates  # noqa: E402

UNUSABLE = "no trace"

WAYS = 100
"""One input in so many is replayed line by line too, and with interpreted loops."""

COLLECT = 100
"""After one input in so many, garbage is collected: Python's own times cost a fifth of the run."""


LINES_KEPT = 50_000
"""So many parses of the grammar are remembered: what it says of a line hangs on nothing else, and most come again."""

_parses: dict[tuple[str, str], Line | str] = {}


def parse(text: str, dialect: str) -> Line:
    """Return what the grammar says of a line, or raise what it does, from memory where it was asked before."""
    known = _parses.get((text, dialect))
    if known is None:
        if len(_parses) == LINES_KEPT:
            _parses.clear()
        try:
            known = grammar.parse(text, dialect)
        except LineError as error:
            known = error.reason
        _parses[text, dialect] = known
    if isinstance(known, str):
        raise LineError(known)
    return known


def outcome(seed: int) -> tuple[int, str]:
    """Return what became of one input: empty where all holds, else `UNUSABLE` or where it broke."""
    path = Path(tempfile.gettempdir()) / f"replay-fuzz-{os.getpid()}.log"
    path.write_bytes(mutated(seed))
    try:
        check([path], [LOOKS[seed % len(LOOKS)]])
        if seed % WAYS == 0:
            check_ways(path)
    except TraceFormatError:
        return seed, UNUSABLE
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/replay/" in frame.filename]
        frame = (frames or traceback.extract_tb(error.__traceback__))[-1]
        what = str(error).split("\n", 1)[0][:100]
        return seed, f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno} {frame.name}: {what}"
    finally:
        path.unlink()
        if seed % COLLECT == 0:
            gc.collect()
    return seed, ""


def main() -> int:
    """Run the inputs in as many processes as there are cores."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--inputs", type=int, default=1000)
    words.add_argument("--first", type=int, default=0, help="the number of the first input")
    words.add_argument("--checked", action="store_true", help="replay with loops that check each index")
    words.add_argument("--only", type=int, help="write this input, and replay none")
    chosen = words.parse_args()
    if chosen.only is not None:
        sys.stdout.buffer.write(mutated(chosen.only))
        return 0
    if not chosen.checked:
        return run(range(chosen.first, chosen.first + chosen.inputs))
    with tempfile.TemporaryDirectory() as folder:
        native.LIBRARY = Path(folder, "_loops.so")
        build_hook.build_loops(native.ROOT, native.LIBRARY, "--checked")
        return run(range(chosen.first, chosen.first + chosen.inputs))


def run(seeds: range) -> int:
    """Replay inputs in as many processes as there are cores, and say how many broke; return the exit status."""
    templates.parse = parse
    found: dict[str, list[int]] = {}
    try:
        # Forked, for the library that is chosen holds for them too.
        with ProcessPoolExecutor(mp_context=get_context("fork"), initializer=gc.disable) as pool:
            for seed, what in pool.map(outcome, seeds, chunksize=50):
                found.setdefault(what, []).append(seed)
    except BrokenProcessPool:
        print(f"a process died; its input is the last of {tempfile.gettempdir()}/replay-fuzz-*.log")
        return 1
    unusable = len(found.pop(UNUSABLE, []))
    found.pop("", None)
    for what, broken in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(broken):6} {what}  (--only {min(broken)})")
    counts = Counter(held=len(seeds) - unusable - sum(map(len, found.values())), broken=sum(map(len, found.values())))
    print(f"{len(seeds)} inputs: {counts['held']} held, {unusable} are no trace, {counts['broken']} broken")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
