"""What `import replay` gives: a run with a DataFrame for each table, typed, that shows and draws itself.

In go the paths of logs, out comes a `Run`. How it is read and replayed this module does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.engine.progress import Watch, unwatched
from replay.errors import MissingExtraError
from replay.run import api
from replay.run.api import read_and_replay

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from replay.whatif.player import Policy


def load(
    trace: str | Path | Iterable[str | Path],
    *,
    format: str = "auto",
    maps: str | Path | None = None,
    elf_root: str | Path | None = "/",
    page_size: int | None = None,
    strict: bool = False,
    watch: Watch = unwatched,
) -> Run:
    """Return the run that one log, or the logs of one run, recorded.

    Args:
        trace: a log (plain or compressed, `-` for standard input), the prefix or the directory of a `strace -ff` set, a
            directory that `replay record` made, or several logs.
        format: `auto`, `strace` or `ltrace`.
        maps: a /proc/PID/maps snapshot taken where the trace starts, or, for a traced start, of the fresh process.
        elf_root: where the files that execve mapped lie, which tell the image of a program; None: do not look.
        page_size: bytes of a page, a power of two; None: as the log tells, else 4096.
        strict: whether the first line not understood is an error.
        watch: what is told, from time to time, how far the work is (see `replay.engine.progress`).

    Raises:
        FileNotFoundError: there is no such log.
        TraceFormatError: a log cannot be read or is no trace.
        TraceSyntaxError: a line was not understood, if `strict`.
        ReplayError: the maps file or an option is unusable; all the others are one too.
    """
    how: dict[str, Any] = {"maps": maps, "elf_root": elf_root, "page_size": page_size, "strict": strict, "watch": watch}
    return Run(*read_and_replay(trace, format=format, **how))


class Run(api.Run):
    """A replayed run; each table of `replay schema` is a DataFrame of that name."""

    if TYPE_CHECKING:
        events: pd.DataFrame
        regions: pd.DataFrame
        blocks: pd.DataFrame
        brk_failures: pd.DataFrame
        allocator_mmaps: pd.DataFrame
        mmap_fallbacks: pd.DataFrame
        fragmentation: pd.DataFrame
        timeline: pd.DataFrame
        problems: pd.DataFrame
        summary: pd.DataFrame

    def __dir__(self) -> list[str]:
        """Return the tables and what one may ask a run."""
        from replay.tables import TABLES

        return sorted([*TABLES, "arrow", "export", "maps", "plot", "whatif", "write_csv"])

    def __repr__(self) -> str:
        """Return who ran, how long the log is, and the verdict's first sentence, in one line."""
        summary = self.summary_values
        facts = [f"{summary['lines']:,} lines of {summary['dialect']}"]
        facts += [summary["programs"]] if summary["programs"] else []
        first = re.match(r"([^?]*\? )?.*?[.](?= |$)", self._verdict[0])
        return f"<replay.Run: {', '.join(facts)}: {first[0] if first else self._verdict[0]}>"

    def _repr_html_(self) -> str:
        """Return the first screen of the report, for notebooks."""
        return f"<pre>{escape(chr(10).join(self._first_screen))}</pre>"

    @cached_property
    def _first_screen(self) -> list[str]:
        from replay.console.screen import shown
        from replay.report.first_screen import first_screen

        return list(shown(first_screen(self), colour=False))

    @cached_property
    def _verdict(self) -> list[str]:
        from replay.report.findings import Findings
        from replay.report.verdict import verdict

        return [paragraph.text for paragraph in verdict(Findings(self))]

    def plot(self, ax: Axes | None = None, *, space: int | None = None) -> Axes:
        """Draw what was mapped, the brk area and the live blocks over time, or over lines where the log has no times.

        Args:
            ax: what to draw on; without it, new axes.
            space: the address space; without it, the one that had most mapped.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise MissingExtraError("Run.plot", "matplotlib", "plot") from error
        rows = self.fragmentation
        if space is None and len(rows):
            space = int(rows["space"].to_numpy()[int(rows["mapped_bytes"].to_numpy().argmax())])
        rows = rows[rows["space"] == space]
        timed = bool(rows["time_ns"].notna().any())
        across = (rows["time_ns"] - rows["time_ns"].min()) / 1e9 if timed else rows["line"]
        axes: Axes = ax if ax is not None else plt.subplots()[1]
        curves = {"mapped": "mapped_bytes", "brk area": "brk_bytes", "live blocks": "live_bytes"}
        for label, column in curves.items():
            if rows[column].notna().any():
                values = rows[column].astype("float64") / 2**20
                axes.step(across.astype("float64"), values, where="post", label=label)
        axes.set(xlabel="seconds" if timed else "line of the log", ylabel="MiB", title=f"address space {space}")
        axes.legend()
        return axes

    def whatif(
        self, policies: Iterable[Policy | str] = (), *, pid: int | None = None, touch: bool = False
    ) -> pd.DataFrame:
        """Return what the recorded malloc requests would have come to: one row a policy, the recorded one first.

        `attrs` of the DataFrame has `proof` (how much of the recording came out the same) and `answer`, as sentences.

        Args:
            policies: a tunable of glibc (`top_pad=16777216`), an allocator (`jemalloc`, `musl`, the path of a library),
                `unblock`, or a `replay.whatif.player.Policy`; without any, a sensible dozen.
            pid: whose requests; without it, those of the space with the most.
            touch: whether each page that was asked for is touched, so that what is resident can be told.

        Raises:
            ReplayError: the log shows no malloc calls, or there is no compiler for the player.
        """
        import pandas as pd

        from replay.whatif.as_text import answer, proof
        from replay.whatif.policies import default_policies, policy_of, what_if

        chosen = [policy_of(one) if isinstance(one, str) else one for one in policies]
        found = what_if(self, chosen or default_policies(self), pid=pid, touch=touch)
        frame = pd.DataFrame(found.as_dicts())
        frame.attrs |= {"proof": proof(found.agreement, found.doubts), "answer": answer(found)}
        return frame
