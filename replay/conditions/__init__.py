"""The gate: conditions on the summary of a run, or on the summaries of two, as `--fail-if` takes them.

In go expressions and the values of summary columns by name, out comes which of them hold, why, and where in the log.
"""

from __future__ import annotations

from replay.conditions.expression import ConditionError, parse_condition
from replay.conditions.judging import Judgement, Reason, all_lines, comparison_values, conditions_that_hold, judge
from replay.conditions.origins import origins_in, origins_in_tables, origins_of
from replay.conditions.tree import Condition

__all__ = [
    "Condition",
    "ConditionError",
    "Judgement",
    "Reason",
    "all_lines",
    "comparison_values",
    "conditions_that_hold",
    "judge",
    "origins_in",
    "origins_in_tables",
    "origins_of",
    "parse_condition",
]
