"""What people see of a run: the report, the steps, the difference of two moments, and the JSON document.

In goes a `Run`, out come lines for the screen or values for JSON. Only `screen` writes to standard output.
"""

from __future__ import annotations
