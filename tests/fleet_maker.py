"""Datasets for tests: some runs of sample logs, laid out as `replay batch` lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

import replay
from replay.datasets.layout import escaped
from replay.tables import SCHEMA_VERSION, TABLES, arrow_schema, write_parquet

TEXTS = ("run", "source", "location", "content_hash", "version", "schema_version", "options", "status", "error")


def make_dataset(directory: Path, logs: Mapping[str, Path | str], errors: Mapping[str, str] | None = None) -> Path:
    """Write a dataset of runs by name, and of runs that could not be read, by name with the error."""
    rows: list[dict[str, Any]] = []
    for name, log in logs.items():
        run = replay.load(log)
        for table in TABLES:
            path = directory / table / f"run={quote(name, safe='')}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            write_parquet(run.arrow(table), path)
        rows.append(run_row(name, str(log), "ok", None) | run.summary_values)
    rows += [run_row(name, f"{name}.log", "error", error) for name, error in (errors or {}).items()]
    directory.mkdir(exist_ok=True)
    write_runs(directory, rows)
    return directory


def run_row(name: str, source: str, status: str, error: str | None) -> dict[str, Any]:
    facts = {"run": name, "source": source, "location": source, "size_bytes": 1, "content_hash": "00"}
    facts |= {"version": "0.1.0", "schema_version": SCHEMA_VERSION, "options": ""}
    return facts | {"status": status, "error": error}


def write_runs(directory: Path, rows: list[dict[str, Any]], labels: Sequence[str] = ()) -> None:
    texts = [pa.field(name, pa.string()) for name in TEXTS]
    fields = {field.name: field for field in [*texts, pa.field("size_bytes", pa.int64())]}
    for field in arrow_schema("summary"):
        fields.setdefault(field.name, field.with_nullable(True))
    schema = pa.schema([*fields.values(), *(pa.field(name, pa.string()) for name in labels)])
    plain = pa.schema([f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema])
    write_parquet(pa.Table.from_pylist(rows, plain), directory / "runs.parquet", force=True)


def made_older(place: Path, run: str, *without: str) -> None:
    """Let a run be one of an earlier version: without columns that came later."""
    for file in [*place.glob("*/part-*.parquet"), *place.glob(f"*/run={escaped(run)}/part-*.parquet")]:
        table = pq.ParquetFile(file).read()
        later = {"time", "elapsed_ns", "program", "recorder_bytes", *without} & set(table.column_names)
        pq.write_table(table.drop_columns(list(later)), file)
    of_version(place, run, "1")


def of_version(place: Path, run: str, of: str) -> None:
    runs = pq.ParquetFile(place / "runs.parquet").read()
    version = [of if name == run else SCHEMA_VERSION for name in runs["run"].to_pylist()]
    at = runs.column_names.index("schema_version")
    pq.write_table(runs.set_column(at, "schema_version", pa.array(version)), place / "runs.parquet")
