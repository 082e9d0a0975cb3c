"""Streams of points, steps and runs, in memory that does not grow with the number of rows.

Each stream has its own connection and sees one snapshot of the database until its end.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from labbench.errors import StoreError
from labbench.filters.parser import Filter
from labbench.records import RunRecord, require_key
from labbench.store.connection import open_snapshot
from labbench.store.queries.filter_sql import filter_condition, read_metrics
from labbench.store.queries.run_records import read_records
from labbench.store.queries.run_sql import FROM_RUNS, IN_JSON_LIST, as_json_list
from labbench.store.row_checks import RowCheck

_RUNS_PER_BATCH = 200
_POINTS_PER_BATCH = 1000


_check_runs = RowCheck("runs", ("id", "key", "name", "experiment"))
_check_points = RowCheck("points", ("step", "value"))


class PointRow(NamedTuple):
    """One logged value."""

    run: str
    """Key of the run."""
    name: str
    experiment: str
    metric: str
    step: int
    time: float
    """Seconds since the run's start."""
    value: float


class StepRow(NamedTuple):
    """Values that a run logged at one step."""

    run: str
    name: str
    experiment: str
    step: int
    time: float
    """Seconds from the start of the run to the first of the values."""
    values: dict[str, float]


class SeriesBatch(NamedTuple):
    """Consecutive points of one series."""

    run: str
    """Key of the run."""
    name: str
    experiment: str
    metric: str
    points: list[tuple[int, float, float]]
    """Step, seconds since the run's start, and value of each point."""


def stream_batches(path: Path, tree: Filter | None, metrics: Collection[str] | None) -> Iterator[SeriesBatch]:
    """Yield the points of the matching runs in batches, ordered by run (in queue order), metric and step.

    Raises:
        InputError: If the database cannot be opened.
        StoreError: If reading fails later on, or another user's database was changed during the read.
    """
    with open_snapshot(path) as connection:
        names, runs = _select_streamed(connection, tree, metrics)
        query = f"""
            SELECT metric_id, step, time_ms / 1000.0, value FROM points
            WHERE run_id = ? AND metric_id {IN_JSON_LIST} ORDER BY metric_id, step
        """
        metric_ids = as_json_list(names)
        for run_id, key, name, experiment in runs:
            cursor = connection.execute(query, (run_id, metric_ids))
            while rows := cursor.fetchmany(_POINTS_PER_BATCH):
                for metric_id, group in groupby(rows, key=itemgetter(0)):
                    points = [
                        (
                            step,
                            time,
                            value if type(value) is float and type(step) is int else _check_point(step, value),
                        )
                        for _, step, time, value in group
                    ]
                    yield SeriesBatch(key, name, experiment, _name_of(names, metric_id), points)


def stream_points(path: Path, tree: Filter | None, metrics: Collection[str] | None) -> Iterator[PointRow]:
    """Yield the points of the matching runs one by one, in the order of `stream_batches`.

    Raises:
        InputError: If the database cannot be opened.
        StoreError: If reading fails later on, or another user's database was changed during the read.
    """
    for run, name, experiment, metric, points in stream_batches(path, tree, metrics):
        for step, time, value in points:
            yield PointRow(run, name, experiment, metric, step, time, value)


def stream_steps(path: Path, tree: Filter | None, metrics: Collection[str] | None) -> Iterator[StepRow]:
    """Yield the steps of the matching runs with their values, ordered by run (in queue order) and step.

    Raises:
        InputError: If the database cannot be opened.
        StoreError: If reading fails later on, or another user's database was changed during the read.
    """
    with open_snapshot(path) as connection:
        names, runs = _select_streamed(connection, tree, metrics)
        query = f"""
            SELECT step, metric_id, time_ms / 1000.0, value FROM points
            WHERE run_id = ? AND metric_id {IN_JSON_LIST} ORDER BY step, metric_id
        """
        metric_ids = as_json_list(names)
        for run_id, key, name, experiment in runs:
            row: StepRow | None = None
            for step, metric_id, time, value in connection.execute(query, (run_id, metric_ids)):
                if row is None or row.step != step:
                    if row is not None:
                        yield row
                    row = StepRow(key, name, experiment, step, time, {})
                number = value if type(value) is float and type(step) is int else _check_point(step, value)
                row.values[_name_of(names, metric_id)] = number
            if row is not None:
                yield row


def _name_of(names: Mapping[int, str], metric_id: object) -> str:
    """Return the name of a metric. Raises StoreError for an id of another type, in a damaged file."""
    name = names.get(metric_id)  # type: ignore[call-overload]
    if name is None:
        raise StoreError(
            f"the column metric_id of the table points has the value {metric_id!r:.80}: the file is damaged"
        )
    return str(name)


def stream_runs(path: Path, tree: Filter | None, metrics: Collection[str] | None) -> Iterator[RunRecord]:
    """Yield the matching runs in queue order, with their summaries.

    Raises:
        InputError: If the database cannot be opened.
        StoreError: If reading fails later on, or another user's database was changed during the read.
    """
    with open_snapshot(path) as connection:
        names, runs = _select_streamed(connection, tree, metrics)
        ids = [run_id for run_id, *_ in runs]
        for start in range(0, len(ids), _RUNS_PER_BATCH):
            yield from read_records(connection, ids[start : start + _RUNS_PER_BATCH], summaries=names.values())


def _select_streamed(
    connection: sqlite3.Connection, tree: Filter | None, metrics: Collection[str] | None
) -> tuple[dict[int, str], list[tuple[int, str, str, str]]]:
    """Return the names of the metrics by id, and (id, key, name, experiment) of the runs."""
    all_metrics = read_metrics(connection)
    names = {metric_id: name for name, (metric_id, _) in all_metrics.items() if metrics is None or name in metrics}
    condition = filter_condition(tree, all_metrics)
    query = f"""
        SELECT runs.id, runs.key, runs.name, experiments.name {FROM_RUNS} WHERE {condition.text} ORDER BY runs.id
    """
    runs = _check_runs(connection.execute(query, condition.parameters))
    for _, key, *_ in runs:
        require_key(key)
    return names, runs


def _check_point(step: object, value: float | None) -> float:
    """Return the value of a point, NaN for NULL; raise StoreError if step or value are not numbers."""
    _check_points([(step, value)])
    return math.nan if value is None else value
