"""One page of a dataset: which runs failed, what was in the way, how memory grew, and each run's numbers.

In goes a dataset, out comes one HTML file that loads nothing from anywhere. What a browser does with it is Bokeh's.
"""

from __future__ import annotations

from replay.html.dashboard import check_bokeh, write_dashboard

__all__ = ["check_bokeh", "write_dashboard"]
