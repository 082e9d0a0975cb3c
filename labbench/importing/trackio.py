"""Import of Trackio's projects: one SQLite database each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from labbench.configs import flatten
from labbench.errors import InputError
from labbench.importing.file_types.foreign_database import ForeignDatabase, open_foreign
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs of a project's database, or of the databases in a folder such as ~/.cache/huggingface/trackio.

    Raises:
        InputError: If there is none.
    """
    databases = [path] if path.is_file() else [file for file in sorted(path.rglob("*.db")) if _is_trackio(file)]
    if not databases:
        raise InputError(f"{path}: no Trackio database in this folder or beneath it")
    for file in databases:
        with open_foreign(file) as database:
            if not _has_tables(database):
                raise InputError(f"{file}: not a Trackio database: it has no table `metrics` of Trackio")
            id_column = _id_column(database)
            query = f"SELECT {id_column}, run_name FROM metrics GROUP BY {id_column} ORDER BY min(id)"
            runs = [*database.rows(query)]
        for run_id, name in runs:
            yield FoundRun(f"{file.stem}/{name}", partial(_read_run, file, run_id, str(name)), [file])


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


def _read_run(file: Path, run_id: str, name: str) -> SourceRun:
    """Read a run. Raises InputError if the database is damaged."""
    points = RunCollector()
    config: dict[str, Any] = {}
    with open_foreign(file) as database:
        column = _id_column(database)
        query = f"SELECT step, timestamp, metrics FROM metrics WHERE {column} = ? ORDER BY id"
        for step, timestamp, text in database.rows(query, run_id):
            if isinstance(step, int):
                points.add_values(_read_values(text), step, _seconds(timestamp))
        started = points.started
        if database.has_columns("system_metrics", column, "timestamp", "metrics") and started is not None:
            query = f"SELECT timestamp, metrics FROM system_metrics WHERE {column} = ? ORDER BY id"
            for timestamp, text in database.rows(query, run_id):
                wall = _seconds(timestamp)
                values = {f"system/{key}": value for key, value in _read_values(text).items()}
                points.add_values(values, 0 if math.isnan(wall) else max(0, round(wall - started)), wall)
        if database.has_columns("configs", column, "config"):
            for (text,) in database.rows(f"SELECT config FROM configs WHERE {column} = ?", run_id):
                config |= _read_json(text)
    return SourceRun(
        id=f"{file.stem} {run_id}",
        name=name,
        experiment=file.stem,
        series=points.series(started),
        config={key: value for key, value in config.items() if not key.startswith("_")},
        started=started,
        finished=points.finished,
        skipped=points.skipped,
    )


def _read_json(text: object) -> dict[str, Any]:
    """Return an object of JSON, which Trackio stores as text or bytes; empty if it is none."""
    try:
        document = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _read_values(text: object) -> dict[str, Any]:
    """Return logged values; names in nested objects are `outer/inner`."""
    values = flatten(_read_json(text), "/")
    return {key: _NON_FINITE.get(value, value) if isinstance(value, str) else value for key, value in values}


def _seconds(timestamp: object) -> float:
    """Return a time in ISO 8601 as Unix time in seconds; NaN if it is none."""
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except (ValueError, OverflowError):
        return math.nan
