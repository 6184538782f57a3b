"""`replay compare`: two traces, exported runs, datasets or their runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from replay.commands.fail_if import FailIf, conditions_of, end_if_one_holds
from replay.commands.options import AsJson, Format, PageSize, Quiet, Strict
from replay.commands.reading import Dialect, warn
from replay.console.progress_bar import progress

if TYPE_CHECKING:
    from replay.conditions import Condition, Judgement
    from replay.datasets.comparison import Comparison


def compare(
    before: Annotated[
        str,
        typer.Argument(
            metavar="A",
            show_default=False,
            help="A log, a directory that `replay export` wrote, a DATASET, or runs of one: DATASET#NAME, where NAME "
            "may be a pattern such as 'v1-*', or DATASET/run=NAME.",
        ),
    ],
    after: Annotated[str, typer.Argument(metavar="B", show_default=False, help="What is compared with A.")],
    show_all: Annotated[
        bool, typer.Option("--all", help="Show rows too that are zero or unknown on both sides.")
    ] = False,
    as_json: AsJson = False,
    fail_if: FailIf = None,
    format: Format = Dialect.auto,
    page_size: PageSize = None,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Compare two runs, or two sets of runs: what failed anew, what no more, what grew.

    Of many runs on a side the medians are compared, with their spreads, and runs of the same name with each other.
    Conditions (--fail-if) may say before.COLUMN, after.COLUMN and change.COLUMN: 'change.peak_mapped_bytes > 5%'.
    """
    conditions = conditions_of(fail_if, comparing=True)
    from replay.datasets.comparison import Comparison
    from replay.datasets.sides import side

    with progress(quiet) as watch:
        how = {"format": format.value, "page_size": page_size, "strict": strict, "watch": watch}
        found = Comparison(side(before, **how), side(after, **how))
        judgements = _judged(conditions, found)
    for complaint in dict.fromkeys(complaint for one in found.sides for complaint in one.complaints):
        warn(complaint)
    _print(found, judgements, as_json=as_json, show_all=show_all)
    end_if_one_holds(judgements)


def _judged(conditions: Sequence[Condition], found: Comparison) -> list[Judgement]:
    if not conditions:
        return []
    from replay.conditions import comparison_values, judge

    values = comparison_values(*found.values())
    places = comparison_values(*(_labelled(one.places, one.label) for one in found.sides))
    return [judge(condition, values, places) for condition in conditions]


def _labelled(places: dict[str, str], label: str) -> dict[str, str]:
    return {column: f"{place} of {label}" for column, place in places.items()}


def _print(found: Comparison, judgements: Sequence[Judgement], *, as_json: bool, show_all: bool) -> None:
    if as_json:
        from dataclasses import asdict

        from replay.report.as_json import write_json
        from replay.report.compare_json import comparison_document

        conditions = [asdict(judgement) for judgement in judgements]
        write_json(comparison_document(found) | {"conditions": conditions}, sys.stdout)
        return
    from replay.console.screen import print_lines
    from replay.report.compare import comparison_lines

    print_lines(comparison_lines(found, all_rows=show_all))
