"""The commands of `replay`, a module each: arguments and options in, one call into the library, output.

A command is a function whose docstring is its help; `replay.cli` names it. Options that several commands take are in
`options`.
"""

from __future__ import annotations

from typing import Final

COMMANDS: Final = (
    *(
        "report",
        "maps",
        "steps",
        "diff",
        "stacks",
        "watch",
        "export",
        "batch",
        "compact",
        "forget",
        "compare",
        "query",
        "dashboard",
    ),
    *("html", "perfetto", "record", "whatif", "schema"),
)
"""The commands, in the order in which the help lists them: each is a function of a module of its name."""

DEFAULT: Final = "report"
"""The command that is meant where a command line begins with none."""
