"""What the recorder itself mapped into a recorded program: the library that it preloads, and a window of its log.

In go the regions of a run and the files that a recording names, out come those regions that are not the program's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from replay.engine.columns import NO_TEXT, Columns, Int64Array
from replay.engine.sorting import distinct, is_among
from replay.engine.structs import Value
from replay.logs.recordings import recorder_files
from replay.run.moment import alive

if TYPE_CHECKING:
    from replay.run.analysis import Analysis

RECORDER: Final = "recorder"


class RecorderMappings(Value):
    """Ids of the paths of the recorder's files, where its library was mapped in any space, and how long it is there."""

    paths: Int64Array
    bases: Int64Array
    span: int

    @classmethod
    def of(cls, run: Analysis) -> RecorderMappings:
        """Return what the recorder mapped in a run; nothing where that is no recording."""
        library, parts, span = recorder_files(run.source.files)
        found: list[Int64Array] = [np.empty(0, np.int64)]
        texts = enumerate(run.strings.texts if library else ())
        ids = [number for number, text in texts if text == library or text.startswith(f"{parts}/")]
        regions = run.replayed.regions
        for number in range(regions.parts if ids else 0):
            part = regions.part(number, ["path", "start", "offset"])
            found.append(part["start"][(part["path"] == run.strings.intern(library)) & (part["offset"] == 0)])
        return cls(np.array(ids, np.int64), distinct(np.concatenate(found)), span)

    def among(self, regions: Columns) -> NDArray[np.bool_]:
        """Tell which of some regions are the recorder's; `path` and `start` of each are asked for.

        A library has memory without a file, too (bss), where its file ends. Source: elf(5), PT_LOAD, p_memsz.
        """
        start, named = regions["start"], is_among(regions["path"], self.paths)
        if not len(self.bases):
            return named
        base = self.bases[np.maximum(np.searchsorted(self.bases, start, "right") - 1, 0)]
        unnamed: NDArray[np.bool_] = (regions["path"] == NO_TEXT) & (start >= base) & (start < base + self.span)
        return named | unnamed


def recorder_bytes(run: Analysis, space: int, clock: int) -> int:
    """Return how much of what a space has mapped at a line is the recorder's."""
    if not len(run.recorder.paths):
        return 0
    rows = alive(run.replayed, space, clock)
    columns = {name: run.replayed.regions.at(name, rows) for name in ("path", "start", "end")}
    mine = run.recorder.among(columns)
    return int((columns["end"][mine] - columns["start"][mine]).sum())
