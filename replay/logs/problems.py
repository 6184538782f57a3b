"""Lines that were not understood, and contradictions: counted by reason, the first of each kept."""

from __future__ import annotations

from replay.engine.structs import Struct, Value, field


class Problems(Struct):
    """The lines that were not understood: all counted by reason, the first ones of each reason kept.

    Reasons: those of `grammar.REASONS` (`unknown_line`, `unknown_call_form`, `cut_line`: the log, or the line, ends
    too early), `line_too_long` (beyond 64 KiB and no call that is passed over), and what later layers add.
    """

    keep: int = 1000
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[Problem] = field(default_factory=list)

    def add(self, line: int, reason: str, text: str, file: int = 0) -> None:
        """Count a line and keep it, cut at 200 characters, unless many of its reason are kept already."""
        count = self.counts[reason] = self.counts.get(reason, 0) + 1
        if count <= self.keep:
            self.kept.append(Problem(line, reason, text[:200], file))

    @property
    def total(self) -> int:
        """Return how many problems were counted."""
        return sum(self.counts.values())


class Problem(Value):
    """One line (1-based, of the file with this index) that was not understood or contradicts the replay."""

    line: int
    reason: str
    text: str
    file: int = 0
