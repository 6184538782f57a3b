"""The names of interest: a line whose first word is none of them is passed over, unless it may be a call by number.

What the scanner knows of names is this; how it finds the first word of a line stands in `scan_loop`.
"""

from __future__ import annotations

from typing import Final

from replay.grammar.fields import NORMAL_NAMES
from replay.linux.constants import CALL_CODE

NAMES: Final = frozenset(name for name in (*CALL_CODE, *NORMAL_NAMES) if name.isidentifier())
"""The names of interest. Besides them there are calls by number, and in ltrace the operators of C++."""
