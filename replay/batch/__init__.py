"""Many runs in one dataset: logs found, replayed on all cores or on a cluster, kept as parquet that others can read.

In go files, directories and URLs, out come `TABLE/run=NAME/part-0.parquet` for each table and run, and
`runs.parquet` with one row a run. What a log says is not known here.
"""

from __future__ import annotations

from replay.batch.compaction import Compacted, compact
from replay.batch.forgetting import forget
from replay.batch.job import Options
from replay.batch.labels import Labels, labels_from
from replay.batch.run_batch import BatchResult, UnwritableError, Upkeep, batch

__all__ = [
    "BatchResult",
    "Compacted",
    "Labels",
    "Options",
    "UnwritableError",
    "Upkeep",
    "batch",
    "compact",
    "forget",
    "labels_from",
]
