"""Import of runs that another program recorded; a repeated import adds only new points."""

from __future__ import annotations

import hashlib
import math
import re
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from labbench.records import Config
from labbench.store.queries.run_rows import IN_JSON_LIST, as_json_list, config_json, storable_text
from labbench.store.recording.events import ensure_metric
from labbench.store.recording.queue import add_tags, ensure_experiment, insert_run
from labbench.store.series.points import add_points, insert_points, is_append, rebuild_series

_KEY = re.compile("[a-z][a-z0-9]{7}")


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """Run in an external source."""

    source: str
    """Type of the source: `csv`."""
    hint: str
    """Unique name of the run in its source."""
    name: str
    experiment: str
    config: Config = field(default_factory=dict)
    status: Literal["finished", "failed", "stopped"] = "finished"
    started: float | None = None
    """Unix time in seconds."""
    finished: float | None = None
    """Unix time in seconds."""
    tags: Sequence[str] = ()
    note: str | None = None


class Import:
    """Import of runs into a database; the caller holds a transaction and calls `finish` before it commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._metric_ids: dict[str, int] = {}
        self._outdated: dict[tuple[int, int], int] = {}
        """First step whose summary and rollup are outdated, by run and metric."""
        self.n_new = 0
        self.n_known = 0
        """Number of runs that the database had already."""

    def begin(self, run: ImportedRun) -> int | None:
        """Return the id of the run, which is inserted if it does not exist.

        Returns None if the source is an export of this database, which has the run already.
        """
        identity = hashlib.sha256(f"import {run.source} {run.hint}".encode("utf-8", "replace")).hexdigest()
        experiment_id = ensure_experiment(self._connection, run.experiment)
        query = "SELECT id FROM runs WHERE experiment_id = ? AND identity = ? AND origin = 'import'"
        row = self._connection.execute(query, (experiment_id, identity)).fetchone()
        if row is not None:
            self.n_known += 1
            return int(row[0])
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
            "created": time.time(),
            "started": run.started,
            "finished": run.finished,
            "note": run.note or None,
        }
        run_id, _ = insert_run(self._connection, columns)
        add_tags(self._connection, [run_id], run.tags)
        return run_id

    def add(
        self, run_id: int, metric: str, steps: Sequence[int], times: Sequence[int], values: Sequence[float]
    ) -> None:
        """Add points to a run; they replace points of the same steps.

        `steps`, `times` (milliseconds since the start of the run) and `values` have shape (N,).
        """
        if metric not in self._metric_ids:
            self._metric_ids[metric] = ensure_metric(self._connection, metric)
        metric_id = self._metric_ids[metric]
        # skip points that exist unchanged: writing them again would rebuild the series
        query = f"SELECT step, time_ms, value FROM points WHERE run_id = ? AND metric_id = ? AND step {IN_JSON_LIST}"
        existing = set(self._connection.execute(query, (run_id, metric_id, as_json_list(steps))))
        points = dict(zip(steps, zip(times, values, strict=True), strict=True))  # the last point of a step wins
        new = [
            (step, time_ms, value)
            for step, (time_ms, value) in points.items()
            if (step, time_ms, None if math.isnan(value) else value) not in existing
        ]
        if not new:
            return
        columns = tuple(zip(*new, strict=True))
        series = run_id, metric_id
        if series not in self._outdated and is_append(self._connection, *series, columns[0]):
            add_points(self._connection, *series, *columns)
        else:
            insert_points(self._connection, *series, *columns)
            self._outdated[series] = min(*columns[0], self._outdated.get(series, columns[0][0]))

    def finish(self) -> None:
        """Rebuild the summaries and rollups of series whose points were not in order.

        Once per series: a file in no order would otherwise rebuild them with every batch.
        """
        for (run_id, metric_id), step in self._outdated.items():
            rebuild_series(self._connection, run_id, metric_id, from_step=step)
        self._outdated.clear()
