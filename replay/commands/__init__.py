"""The commands of `replay`, a module each: arguments and options in, one call into the library, output.

A command is a function whose docstring is its help; `replay.cli` names it. Options that several commands take are in
`options`.
"""

from __future__ import annotations
