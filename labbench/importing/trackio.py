"""Import of Trackio's projects: one SQLite database or Parquet file each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from labbench.configs import flatten
from labbench.errors import InputError
from labbench.importing import trackio_parquet
from labbench.importing.file_types.foreign_database import ForeignDatabase, open_foreign
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun, no_runs_error

_TESTED = "0.43"
"""Newest version whose files were tested."""
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs of a project's file, or of the projects in a folder such as ~/.cache/huggingface/trackio.

    A project is a database, or a Parquet file without a database beside it.

    Raises:
        InputError: If there is none.
    """
    files = [path]
    if not path.is_file():
        files = [file for file in sorted(path.rglob("*.db")) if _is_trackio(file)]
        tables = [file for file in sorted(path.rglob("*.parquet")) if trackio_parquet.is_project(file)]
        files += [file for file in tables if file.with_suffix(".db") not in files]
    if not files:
        raise no_runs_error(path, "database or Parquet file of Trackio")
    for file in files:
        runs = trackio_parquet.run_names(file) if file.suffix == ".parquet" else _run_names(file)
        read = _read_parquet if file.suffix == ".parquet" else _read_database
        for run_id, name in runs.items():
            yield FoundRun(f"{file.stem}/{name}", partial(read, file, run_id, name), [file])


def _run_names(file: Path) -> dict[str, str]:
    """Return name by id of the runs of a database. Raises InputError if it is not one of Trackio."""
    with open_foreign(file) as database:
        if not _has_tables(database):
            raise InputError(f"{file}: not a Trackio database: it has no table `metrics` as in Trackio up to {_TESTED}")
        id_column = _id_column(database)
        query = f"SELECT {id_column}, run_name FROM metrics GROUP BY {id_column} ORDER BY min(id)"
        return {str(run_id): str(name) for run_id, name in database.rows(query)}


def _is_trackio(file: Path) -> bool:
    try:
        with open_foreign(file) as database:
            return _has_tables(database)
    except InputError:
        return False


def _has_tables(database: ForeignDatabase) -> bool:
    return database.has_columns("metrics", "timestamp", "run_name", "step", "metrics")


def _id_column(database: ForeignDatabase) -> str:
    """Return the column that tells runs apart; versions before 0.30 have only the name."""
    return "run_id" if database.has_columns("metrics", "run_id") else "run_name"


def _read_database(file: Path, run_id: str, name: str) -> SourceRun:
    """Read a run. Raises InputError if the database is damaged."""
    run = _Run(file.stem, run_id, name)
    with open_foreign(file) as database:
        column = _id_column(database)
        query = f"SELECT step, timestamp, metrics FROM metrics WHERE {column} = ? ORDER BY id"
        for step, timestamp, text in database.rows(query, run_id):
            run.add(step, timestamp, _read_json(text))
        if database.has_columns("system_metrics", column, "timestamp", "metrics"):
            query = f"SELECT timestamp, metrics FROM system_metrics WHERE {column} = ? ORDER BY id"
            for timestamp, text in database.rows(query, run_id):
                run.add_system_metrics(timestamp, _read_json(text))
        if database.has_columns("configs", column, "config"):
            for (text,) in database.rows(f"SELECT config FROM configs WHERE {column} = ?", run_id):
                run.config |= _read_json(text)
    return run.to_source_run()


def _read_parquet(file: Path, run_id: str, name: str) -> SourceRun:
    """Read a run. Raises InputError if a file is damaged."""
    run = _Run(file.stem, run_id, name, config=trackio_parquet.read_config(file, run_id))
    for step, timestamp, values in trackio_parquet.metric_rows(file, run_id):
        run.add(step, timestamp, values)
    for timestamp, values in trackio_parquet.system_rows(file, run_id):
        run.add_system_metrics(timestamp, values)
    return run.to_source_run()


@dataclass
class _Run:
    """Run of a project while it is read."""

    project: str
    id: str
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    points: RunCollector = field(default_factory=RunCollector)

    def add(self, step: object, timestamp: object, values: Mapping[str, Any]) -> None:
        """Add the values of one log call."""
        if isinstance(step, int):
            self.points.add_values(_read_values(values), step, _seconds(timestamp))

    def add_system_metrics(self, timestamp: object, values: Mapping[str, Any]) -> None:
        """Add system metrics, at the seconds since the first log call."""
        started, wall = self.points.started, _seconds(timestamp)
        if started is not None:
            named = {f"system/{key}": value for key, value in _read_values(values).items()}
            self.points.add_values(named, 0 if math.isnan(wall) else max(0, round(wall - started)), wall)

    def to_source_run(self) -> SourceRun:
        run_id = f"{self.project} {self.id}"
        return SourceRun(
            id=run_id,
            name=self.name,
            experiment=self.project,
            series=self.points.series(self.points.started),
            config={key: value for key, value in self.config.items() if not key.startswith("_")},
            started=self.points.started,
            finished=self.points.finished,
            skipped=self.points.skipped,
            other_ids=[(None, run_id)],
            has_unique_id=True,
        )


def _read_json(text: object) -> dict[str, Any]:
    """Return an object of JSON, which Trackio stores as text or bytes; empty if it is none."""
    try:
        document = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _read_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return logged values; names in nested objects are `outer/inner`."""
    values = flatten(document, "/")
    return {key: _NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in values}


def _seconds(timestamp: object) -> float:
    """Return a time in ISO 8601 as Unix time in seconds; NaN if it is none."""
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
