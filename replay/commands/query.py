"""`replay query`: questions over a dataset, by name or in SQL."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated

import typer

from replay.commands.options import AsJson
from replay.commands.reading import warn


class AnswerFormat(StrEnum):
    """How an answer is printed."""

    table = "table"
    csv = "csv"
    json = "json"


def query(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="[DATASET]",
            show_default=False,
            help="What `replay batch` wrote, a path or URL; or a directory that `replay export` wrote.",
        ),
    ] = "",
    question: Annotated[
        str,
        typer.Argument(
            metavar="[QUESTION|SQL]",
            show_default=False,
            help="The name of a question, or SQL over the tables: 'SELECT run, count(*) FROM events GROUP BY run'.",
        ),
    ] = "",
    show_list: Annotated[bool, typer.Option("--list", help="Print the questions that have names, and end.")] = False,
    form: Annotated[
        AnswerFormat, typer.Option("--as", "--format", metavar="table|csv|json", help="How the answer is printed.")
    ] = AnswerFormat.table,
    as_json: AsJson = False,
    safe_csv: Annotated[
        bool,
        typer.Option(
            "--safe-csv", help="Print CSV for a spreadsheet: a text that it would take for a formula begins with '."
        ),
    ] = False,
) -> None:
    """Answer a question over the runs of a dataset.

    The tables are `runs`, one row a run, and those that `replay schema` tells of, with `run` as their first column.
    SQL sees nothing else: no file, no network; it can write nowhere.
    """
    if show_list or (dataset and not question):
        _print_questions(as_json=as_json or form == AnswerFormat.json)
        return
    if not dataset:
        raise typer.BadParameter("name a dataset and a question; --list prints the questions", param_hint="DATASET")
    sql, nothing = _sql_of(question)
    from replay.datasets.dataset import complaints
    from replay.datasets.questions import ask, check_duckdb

    check_duckdb()
    from replay.report.query import FORMATS, print_csv

    answer = ask(dataset, sql)
    if safe_csv:
        rows = print_csv(answer, sys.stdout, safe=True)
    else:
        rows = FORMATS[AnswerFormat.json if as_json else form](answer, sys.stdout)
    if not rows and nothing:
        warn(f"no rows: {nothing}")
    for complaint in complaints(dataset):
        warn(complaint)


def _print_questions(*, as_json: bool) -> None:
    if as_json:
        from replay.datasets.questions import QUESTIONS
        from replay.report.as_json import write_json_rows

        write_json_rows(
            ({"name": one.name, "meaning": one.meaning, "sql": " ".join(one.sql.split())} for one in QUESTIONS),
            sys.stdout,
        )
        return
    from replay.console.screen import print_lines
    from replay.report.query import question_lines

    print_lines(question_lines())


def _sql_of(question: str) -> tuple[str, str]:
    """Return the SQL of a question, and what no rows mean. One word is a name, more are SQL."""
    from replay.datasets.questions import BY_NAME

    known = BY_NAME.get(question.strip())
    if known is not None:
        return known.sql, known.nothing
    if len(question.split()) > 1:
        return question, "the answer is empty"
    near = get_close_matches(question, BY_NAME, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}" if near else ""
    raise typer.BadParameter(
        f"no question {question!r}{hint}. The questions are {', '.join(BY_NAME)}; anything longer than a word is SQL",
        param_hint="QUESTION",
    )
