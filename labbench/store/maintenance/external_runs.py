"""Import of runs that another program recorded; a repeated import adds only new points."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from labbench.metrics import Goal
from labbench.records import Artifact
from labbench.store.connection import open_snapshot
from labbench.store.maintenance.imported_run import ImportedRun, ImportedSeries, SourceDiffersError, equals_stored
from labbench.store.queries.run_sql import IN_JSON_LIST, as_json_list, config_json, storable_text
from labbench.store.recording.events import complete_run, ensure_metric
from labbench.store.recording.queue import add_tags, ensure_experiment, insert_run
from labbench.store.revisions import mark_rewritten
from labbench.store.series.points import (
    add_points,
    delete_points,
    delete_series,
    insert_points,
    is_append,
    rebuild_series,
)
from labbench.system.clock import now

_KEY = re.compile("[a-z][a-z0-9]{7}")


def imported_identities(database: Path) -> set[tuple[str, str]]:
    """Return experiment and identity of the imported runs of a database; empty if it does not exist.

    Raises:
        InputError: If the file is not a labbench database.
        StoreError: If it cannot be read.
    """
    if not database.exists():
        return set()
    query = """
        SELECT experiments.name, identity FROM runs JOIN experiments ON experiments.id = experiment_id
        WHERE origin = 'import'
    """
    with open_snapshot(database) as connection:
        return {(str(experiment), str(identity)) for experiment, identity in connection.execute(query)}


class Import:
    """Import of runs into a database; the caller holds a transaction and calls `finish` before it commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._metric_ids: dict[str, int] = {}
        self._run_ids: set[int] = set()
        """Runs that got new points."""
        self._outdated: dict[tuple[int, int], int] = {}
        """First step whose summary and rollup are outdated, by run and metric."""
        self.n_new = 0
        self.n_known = 0
        """Number of runs that the database had already."""

    def begin(self, run: ImportedRun, series: Mapping[str, ImportedSeries] | None = None) -> int | None:
        """Return the id of the run, which is inserted if it does not exist.

        Returns None if the source is an export of this database, which has the run already.
        """
        known_id = self._find(run, series or {})
        if known_id is not None:
            self.n_known += 1
            return known_id
        identity = run.identity
        experiment_id = ensure_experiment(self._connection, run.experiment)
        query = "SELECT name, experiment_id FROM runs WHERE key = ?"
        holder = self._connection.execute(query, (storable_text(run.hint),)).fetchone()
        if holder == (storable_text(run.name), experiment_id):  # exported from here
            self.n_known += 1
            return None
        self.n_new += 1
        is_key = holder is None and _KEY.fullmatch(run.hint)
        columns = {
            "key": run.hint if is_key else None,
            "experiment_id": experiment_id,
            "name": run.name,
            "origin": "import",
            "identity": identity,
            "config": config_json(run.config),
            "status": run.status,
            "reason": run.reason,
            "created": now(),
            "started": run.started,
            "finished": run.finished,
            "note": run.note or None,
        }
        run_id, _ = insert_run(self._connection, columns)
        add_tags(self._connection, [run_id], run.tags)
        return run_id

    def _find(self, run: ImportedRun, series: Mapping[str, ImportedSeries]) -> int | None:
        """Return the id of a run that was imported before; None for a new one."""
        wanted = run.other_identities
        identities = [*run.known_identities, *(identity for _, identity in wanted)]
        query = f"""
            SELECT experiments.name, identity, runs.id
            FROM experiments CROSS JOIN runs ON experiments.id = experiment_id
            WHERE identity {IN_JSON_LIST} AND origin = 'import' AND origin IN ('grid', 'import')
            ORDER BY runs.id
        """  # the last condition is that of the index
        rows = self._connection.execute(query, (as_json_list(identities),)).fetchall()
        ids = {(name, identity): run_id for name, identity, run_id in rows}
        experiment = storable_text(run.experiment)
        for identity in run.known_identities:
            if (experiment, identity) in ids:
                return int(ids[experiment, identity])
        for name, identity, run_id in rows:
            is_wanted = not wanted.isdisjoint([(name, identity), (None, identity)])
            if is_wanted and self._agrees(run_id, series, run.unread_metrics):
                return int(run_id)
        return None

    def _agrees(self, run_id: int, series: Mapping[str, ImportedSeries], unread: Collection[str]) -> bool:
        """Return True if a source has all points of a run; a single point may be a last value, which moves."""
        for metric, points in self._points(run_id):
            stored = [*points]
            try:
                if metric not in unread and (len(stored) > 1 or metric not in series):
                    series[metric].without(metric, stored)
            except (KeyError, SourceDiffersError):
                return False
        return True

    def _points(self, run_id: int) -> Iterator[tuple[str, Iterator[tuple[int, float | None]]]]:
        """Yield the metrics of a run with their points, in the order of the steps."""
        query = """
            SELECT metrics.name, step, value FROM points JOIN metrics ON metrics.id = metric_id
            WHERE run_id = ? ORDER BY metric_id, step
        """
        for metric, points in groupby(self._connection.execute(query, (run_id,)), key=itemgetter(0)):
            yield metric, ((step, value) for _, step, value in points)

    def add_missing(
        self, run_id: int, metric: str, steps: Sequence[int], times: Sequence[int], values: Sequence[float]
    ) -> None:
        """Add points to a run at steps that it does not have.

        `steps`, `times` (milliseconds since the start of the run) and `values` have shape (N,).
        """
        self._run_ids.add(run_id)
        series = run_id, self._metric_id(metric)
        if series not in self._outdated and is_append(self._connection, *series, steps):
            add_points(self._connection, *series, steps, times, values)
        else:
            insert_points(self._connection, *series, steps, times, values)
            mark_rewritten(self._connection, *series)
            self._outdated[series] = min(*steps, self._outdated.get(series, steps[0]))

    def _metric_id(self, metric: str) -> int:
        if metric not in self._metric_ids:
            self._metric_ids[metric] = ensure_metric(self._connection, metric)
        return self._metric_ids[metric]

    def compare(self, run_id: int, run: ImportedRun, series: Mapping[str, ImportedSeries]) -> dict[str, ImportedSeries]:
        """Return the points of a source that the run lacks, by metric.

        A partial source may lack whole metrics, any source those that are not read.

        Raises:
            SourceDiffersError: If the source lacks a point that the run has, or has another value at its step.
        """
        missing = dict(series)
        for metric, points in self._points(run_id):
            if metric not in series:
                if run.is_partial or metric in run.unread_metrics:
                    continue
                raise SourceDiffersError(f"it has no points of {metric} any more")
            missing[metric] = series[metric].without(metric, points)
        return {metric: points for metric, points in missing.items() if points.steps}

    def delete_moved(self, run_id: int, series: Mapping[str, ImportedSeries]) -> None:
        """Delete the only point of a metric if the source does not have it: a last value that has moved on."""
        query = "SELECT step, value FROM points WHERE run_id = ? AND metric_id = ? LIMIT 2"
        for metric, points in series.items():
            stored = self._connection.execute(query, (run_id, self._metric_id(metric))).fetchall()
            if len(stored) != 1:
                continue
            try:
                points.without(metric, stored)
            except SourceDiffersError:
                delete_series(self._connection, run_id, self._metric_id(metric))

    def complete(self, run_id: int, series: Mapping[str, ImportedSeries]) -> dict[str, ImportedSeries]:
        """Return the points of a partial source with last values that the run lacks, by metric.

        A single point of a metric, such as the last value in a table of runs, is superseded by a curve, and by a single
        point with another value.

        Raises:
            SourceDiffersError: If the run has another value at a step of the source.
        """
        missing = dict(series)
        query = "SELECT step, value FROM points WHERE run_id = ? AND metric_id = ?"
        for metric, points in series.items():
            stored = dict(self._connection.execute(query, (run_id, self._metric_id(metric))))
            is_known = len(stored) > 1 or any(equals_stored(points.values[0], value) for value in stored.values())
            if len(points.steps) == 1 and is_known:
                del missing[metric]
            elif len(stored) == 1:
                delete_series(self._connection, run_id, self._metric_id(metric))
            else:
                common = [(step, stored[step]) for step in points.steps if step in stored]
                missing[metric] = points.without(metric, common)
        return {metric: points for metric, points in missing.items() if points.steps}

    def update(self, run_id: int, run: ImportedRun) -> None:
        """Update config, status and times of a run; its name, note and experiment are the user's to edit."""
        if run.is_partial:
            self._update_partially(run_id, run)
            return
        columns = {
            "config": config_json(run.config),
            "status": run.status,
            "reason": run.reason,
            "started": run.started,
            "finished": run.finished,
        }
        self._set_columns(run_id, columns)
        add_tags(self._connection, [run_id], run.tags)

    def _update_partially(self, run_id: int, run: ImportedRun) -> None:
        """Add what a partial source knows: its config and times, and its status with them."""
        query = "SELECT config FROM runs WHERE id = ?"
        [config] = self._connection.execute(query, (run_id,)).fetchone()
        columns: dict[str, Any] = {"config": config_json({**json.loads(config), **run.config})}
        if run.started is not None:
            columns |= {"status": run.status, "reason": run.reason, "started": run.started, "finished": run.finished}
        self._set_columns(run_id, columns)
        add_tags(self._connection, [run_id], run.tags)

    def _set_columns(self, run_id: int, columns: Mapping[str, Any]) -> None:
        """Set columns of a run, unless it has these values: mirrors would read an unchanged run again."""
        assignments = ", ".join(f"{column} = :{column}" for column in columns)
        differences = " OR ".join(f"{column} IS NOT :{column}" for column in columns)
        query = f"UPDATE runs SET {assignments} WHERE id = :id AND ({differences})"
        self._connection.execute(query, {**columns, "id": run_id})

    def delete_points(self, run_id: int, metrics: Iterable[str] | None) -> None:
        """Delete the points of some metrics of a run, or of all if None, in order to import them again."""
        if metrics is None:
            delete_points(self._connection, run_id, after=None)
        for metric in metrics or ():
            delete_series(self._connection, run_id, self._metric_id(metric))

    def set_output(self, run_id: int, lines: Sequence[str]) -> None:
        """Replace the printed output of a run, if it has grown."""
        query = "SELECT count(*) FROM logs WHERE run_id = ?"
        if self._connection.execute(query, (run_id,)).fetchone() != (len(lines),):
            self._connection.execute("DELETE FROM logs WHERE run_id = ?", (run_id,))
            rows = [(run_id, now(), storable_text(line)) for line in lines]
            query = "INSERT INTO logs (run_id, attempt, time, stream, text) VALUES (?, 1, ?, 'stdout', ?)"
            self._connection.executemany(query, rows)

    def run_key(self, run_id: int) -> str:
        """Return the key of a run."""
        return str(self._connection.execute("SELECT key FROM runs WHERE id = ?", (run_id,)).fetchone()[0])

    def experiment_of(self, run_id: int) -> str:
        """Return the name of the experiment of a run."""
        query = "SELECT name FROM experiments WHERE id = (SELECT experiment_id FROM runs WHERE id = ?)"
        return str(self._connection.execute(query, (run_id,)).fetchone()[0])

    def artifact_hashes(self, run_id: int) -> dict[str, str]:
        """Return the SHA-256 of the artifacts of a run by name."""
        return dict(self._connection.execute("SELECT name, sha256 FROM artifacts WHERE run_id = ?", (run_id,)))

    def add_artifact(self, run_id: int, artifact: Artifact) -> None:
        """Record an artifact; it replaces one of the same name."""
        query = "INSERT OR REPLACE INTO artifacts (run_id, name, path, size, sha256, created) VALUES (?, ?, ?, ?, ?, ?)"
        self._connection.execute(query, (run_id, *astuple(artifact)))

    def set_goals(self, goals: Mapping[str, Goal]) -> None:
        """Declare the goals of metrics that have none."""
        query = """
            INSERT INTO metrics (name, goal) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET goal = coalesce(goal, excluded.goal)
        """
        self._connection.executemany(query, [(storable_text(metric), goal) for metric, goal in goals.items()])

    def finish(self) -> None:
        """Rebuild the summaries and rollups of series whose points were not in order, and complete the overviews.

        Once per series: a file in no order would otherwise rebuild them with every batch.
        """
        for (run_id, metric_id), step in self._outdated.items():
            rebuild_series(self._connection, run_id, metric_id, from_step=step)
        self._outdated.clear()
        for run_id in self._run_ids:
            complete_run(self._connection, run_id)
