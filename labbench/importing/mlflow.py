"""Import of MLflow's tracking data: the database `mlflow.db` and the folders `mlruns`."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from labbench.errors import InputError
from labbench.importing.file_types.foreign_database import open_foreign
from labbench.importing.file_types.yaml_file import read_yaml_mapping
from labbench.importing.source_run import FoundRun, RunCollector, SourceRun, no_runs_error

_TESTED = "3.17"
"""Newest version whose files were tested."""
_STATUSES: dict[str, Literal["finished", "failed", "stopped"]] = {
    "FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped", "3": "finished", "4": "failed", "5": "stopped"
}  # fmt: skip
"""Statuses by name in the database and by number in `meta.yaml`."""


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs in a database or a folder `mlruns`, or in those beneath a folder; deleted runs are left out.

    Raises:
        InputError: If there is none.
    """
    databases = [path] if path.is_file() else [file for file in sorted(path.rglob("*.db")) if _is_mlflow(file)]
    folders = [] if path.is_file() else sorted({meta.parent for meta in path.rglob("meta.yaml") if _is_run(meta)})
    if not databases and not folders:
        raise no_runs_error(path, "MLflow database and no folder mlruns")
    for database in databases:
        yield from _find_in_database(database)
    for folder in folders:
        yield FoundRun(folder.name, partial(_read_folder, folder), [folder / "meta.yaml", *folder.glob("metrics/**/*")])


# The database.


def _is_mlflow(file: Path) -> bool:
    try:
        with open_foreign(file) as database:
            return database.has_columns("runs", "run_uuid", "lifecycle_stage")
    except InputError:
        return False


def _find_in_database(path: Path) -> Iterator[FoundRun]:
    with open_foreign(path) as database:
        if not database.has_columns("runs", "run_uuid", "status", "start_time", "end_time", "lifecycle_stage"):
            raise InputError(f"{path}: not an MLflow database: it has no table `runs` as in MLflow up to {_TESTED}")
        query = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
        ids = [run_id for (run_id,) in database.rows(query)]
    for run_id in ids:
        yield FoundRun(str(run_id), partial(_read_from_database, path, run_id), [path])


def _read_from_database(path: Path, run_id: str) -> SourceRun:
    """Read a run of a database. Raises InputError if the database is damaged."""
    points = RunCollector()
    with open_foreign(path) as database:
        query = """
            SELECT runs.name, experiments.name, status, start_time, end_time
            FROM runs LEFT JOIN experiments USING (experiment_id) WHERE run_uuid = ?
        """
        rows = [*database.rows(query, run_id)]
        if not rows:
            raise InputError(f"{path}: the run {run_id} was deleted")
        [(name, experiment, status, start, end)] = rows
        query = (
            "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY key, step, timestamp"
        )
        for key, value, timestamp, step, is_nan in database.rows(query, run_id):
            if isinstance(value, int | float) and isinstance(step, int):
                points.add(str(key), step, math.nan if is_nan else _restore_infinity(value), _seconds(timestamp))
        params = dict(database.rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id))
        tags = dict(database.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
    row = _RunRow(run_id, name, experiment, str(status), (_seconds(start), _seconds(end)))
    return _make_run(row, params, tags, points)


def _restore_infinity(value: float) -> float:
    """Return infinity for the largest number, which MLflow stores in its place."""
    return math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value


def _seconds(milliseconds: object) -> float:
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else math.nan


# The folders.


def _is_run(meta: Path) -> bool:
    return (meta.parent / "metrics").is_dir() or (meta.parent / "params").is_dir()


def _read_folder(folder: Path) -> SourceRun:
    """Read the folder of a run. Raises InputError if a file cannot be read."""
    meta = read_yaml_mapping(folder / "meta.yaml")
    experiment = read_yaml_mapping(folder.parent / "meta.yaml").get("name")
    points = RunCollector()
    for file in sorted(file for file in (folder / "metrics").rglob("*") if file.is_file()):
        _read_metric_file(file, file.relative_to(folder / "metrics").as_posix(), points)
    params, tags = _read_texts(folder / "params"), _read_texts(folder / "tags")
    run_id = str(meta.get("run_id") or meta.get("run_uuid") or folder.name)
    times = _seconds(meta.get("start_time")), _seconds(meta.get("end_time"))
    name = tags.get("mlflow.runName") or meta.get("run_name")
    return _make_run(_RunRow(run_id, name, experiment, str(meta.get("status")), times), params, tags, points)


def _read_metric_file(file: Path, metric: str, points: RunCollector) -> None:
    """Add the points of a metric: lines of `TIMESTAMP VALUE STEP`. Raises InputError if the file cannot be read."""
    for line in _read_text(file).splitlines():
        try:
            timestamp, value, step = line.split(" ")[:3]
            points.add(metric, int(step), float(value), int(timestamp) / 1000)
        except (ValueError, OverflowError):
            points.skipped["damaged lines"] += 1


def _read_texts(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): _read_text(file) for file in files}


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


# Both.


@dataclass(frozen=True, slots=True)
class _RunRow:
    """Description of a run in a database or a folder."""

    id: str
    name: object
    experiment: object
    status: str
    times: tuple[float, float]
    """Start and end, Unix time in seconds; NaN if unknown."""


def _make_run(row: _RunRow, params: Mapping[str, Any], tags: Mapping[str, Any], points: RunCollector) -> SourceRun:
    started, finished = (None if math.isnan(time) else time for time in row.times)
    own_tags = [f"{key}={value}" for key, value in tags.items() if not str(key).startswith("mlflow.")]
    if parent := tags.get("mlflow.parentRunId"):
        own_tags.append(f"parent={parent}")
    return SourceRun(
        id=row.id,
        name=str(row.name or row.id),
        experiment=str(row.experiment or "mlflow"),
        series=points.series(started),
        config={str(key): parse_param(str(value)) for key, value in params.items()},
        status=_STATUSES.get(row.status, "stopped"),
        reason=None if row.status in _STATUSES else "not finished in MLflow",
        started=started if started is not None else points.started,
        finished=finished if finished is not None else points.finished,
        tags=own_tags,
        note=tags.get("mlflow.note.content"),
        skipped=points.skipped,
        other_ids=[(None, row.id)],
        has_unique_id=True,
    )


def parse_param(text: str) -> Any:
    """Return a parameter, which MLflow stores as text, as a number, truth value, None or list where it reads as one."""
    if len(text) > 10_000:
        return text
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    if isinstance(value, bool | int | float) or value is None:
        return value
    return [*value] if isinstance(value, list | tuple) and _is_plain(value) else text


def _is_plain(values: Iterable[object]) -> bool:
    return all(isinstance(value, str | bool | int | float) or value is None for value in values)
