"""The command `replay`, which `python -m replay` is too."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Final

OBJECTS_UNCOLLECTED: Final = 500_000
"""So many objects may come to be between two searches for garbage: a start and a small log make fewer."""

COMPLETING: Final = "_REPLAY_COMPLETE"
"""The variable in which a shell says that it wants a word of the command line completed."""


def main() -> None:
    """Run the command line without what takes a good part of the time that a small log needs, and serves none."""
    gc.set_threshold(OBJECTS_UNCOLLECTED)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to tidy up, it just ends
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy else starts threads for algebra that nothing here does
    from replay.commands.endings import run_to_end, status_after
    from replay.commands.plain_report import plain_report

    report = None if COMPLETING in os.environ else plain_report(sys.argv[1:])
    if report:
        run_to_end(lambda: status_after(report))
    from replay import cli

    cli.main()


if __name__ == "__main__":
    main()
