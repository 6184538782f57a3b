"""`replay schema`: the data dictionary."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from replay.commands.options import AsJson


def schema(
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", show_default=False, help="A table; without one, all of them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the data dictionary: tables, columns, types, units."""
    from replay.tables import TABLES, schema_text
    from replay.tables.dictionary import schema_values

    if table is not None and table not in TABLES:
        raise typer.BadParameter(f"no table {table!r}; the tables are {', '.join(TABLES)}", param_hint="TABLE")
    if as_json:
        from replay.report.as_json import write_json

        write_json([schema_values(TABLES[name]) for name in ([table] if table else TABLES)], sys.stdout)
        return
    sys.stdout.write(schema_text(table))
