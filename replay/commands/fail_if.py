"""The option `--fail-if`: conditions on the summary, and the exit status 3 when one of them holds.

In go the words of the command line and the values of a run, out come a usage error, or reasons on standard error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replay.commands.endings import CONDITION_HELD
from replay.commands.reading import warn

if TYPE_CHECKING:
    from replay.conditions import Condition, Judgement
    from replay.run.api import Run


def _columns_of(incomplete: str) -> list[str]:
    """Return the columns of the summary that go on with what was typed, for the shell's completion."""
    from replay.tables import TABLES

    side = next((side for side in ("before.", "after.", "change.") if incomplete.startswith(side)), "")
    names = (side + column.name for column in TABLES["summary"].columns)
    return [name for name in names if name.startswith(incomplete)]


FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="EXPR",
        show_default=False,
        autocompletion=_columns_of,
        help="End with status 3 if a condition on the summary holds: 'brk_failures > 0', 'live_bytes > 10MiB'. "
        "May be given several times.",
    ),
]


def conditions_of(expressions: Sequence[str] | None, *, comparing: bool = False) -> list[Condition]:
    """Return the conditions; an expression that is none is wrong usage. Call it before any log is read."""
    if not expressions:
        return []
    from replay.conditions import ConditionError, parse_condition

    try:
        return [parse_condition(expression, comparing=comparing) for expression in expressions]
    except ConditionError as error:
        raise typer.BadParameter(str(error), param_hint="--fail-if") from error


def judge_run(conditions: Sequence[Condition], run: Run) -> list[Judgement]:
    """Return the judgements of conditions on one run."""
    if not conditions:
        return []
    from replay.conditions import judge, origins_of

    places = origins_of(run)
    return [judge(condition, run.summary_values, places) for condition in conditions]


def end_if_one_holds(judgements: Iterable[Judgement], *, of: str = "") -> None:
    """Tell which conditions hold, why and where, and end with status 3 if one does; `of` names the run."""
    judged = list(judgements)
    if not judged:
        return
    from replay.conditions import all_lines

    for line in all_lines(judged):
        warn(f"{of}: {line}" if of else line)
    if any(judgement.holds for judgement in judged):
        raise typer.Exit(CONDITION_HELD)
