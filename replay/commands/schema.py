"""`replay schema`: the data dictionary."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def schema(
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", show_default=False, help="A table; without one, all of them.")
    ] = None,
) -> None:
    """Print the data dictionary: tables, columns, types, units."""
    from replay.tables import TABLES, schema_text

    if table is not None and table not in TABLES:
        raise typer.BadParameter(f"no table {table!r}; the tables are {', '.join(TABLES)}", param_hint="TABLE")
    sys.stdout.write(schema_text(table))
