"""Makes `tests/oracle.py` importable and gives the tests what is too slow to make more than once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
