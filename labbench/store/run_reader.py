"""Reader of single runs of a database: their records, logs, files, sources and series."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from labbench.metrics import GOALS, Goal, default_goal
from labbench.records import Artifact, RunRecord, require_key
from labbench.store.connection import open_snapshot
from labbench.store.fresh_connection import FreshConnection
from labbench.store.queries.filter_sql import read_metrics
from labbench.store.queries.find_run import find_run
from labbench.store.queries.run_details import (
    iterate_logs,
    read_artifacts,
    read_grid_texts,
    read_sources,
    require_run_id,
)
from labbench.store.queries.run_records import read_records_by_key
from labbench.store.row_checks import RowCheck
from labbench.store.series.buckets import BucketedSeries
from labbench.store.series.curves import CurveRequest, read_curves, read_points_at, read_series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_check_continuations = RowCheck("runs", ("key", "continued_from"))


class RunReader:
    """Reader of single runs; `Reader` also selects runs."""

    def __init__(self, path: Path | str) -> None:
        """Open a database.

        Raises:
            InputError: If the file is not a database of this or an earlier version of labbench, or cannot be read.
        """
        self._connection = FreshConnection(Path(path))
        self.path = self._connection.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def data_version(self) -> int:
        """Return a number that changes with each commit and each newly lost run; cheap to call."""
        return self._connection.version()

    def find(self, word: str) -> RunRecord:
        """Return the run with this key, name or key prefix, archived runs included.

        A key takes precedence over a name, a name over a prefix of a key, which has at least 4 characters.

        Raises:
            RunNotFound: If no run or several runs match; `candidates` lists similar or matching runs.
        """
        return self._connection.read(lambda connection: find_run(connection, word, self.path))

    def by_keys(self, keys: Sequence[str]) -> list[RunRecord]:
        """Return the runs with these keys, in this order, archived runs included.

        Unknown keys are skipped.
        """
        return self._connection.read(lambda connection: read_records_by_key(connection, keys))

    def find_many(self, words: Sequence[str]) -> list[RunRecord]:
        """Return the run of each key, name or key prefix, in order, without duplicates.

        Raises:
            RunNotFound: If no run or several runs match a word.
        """
        records = [self.find(word) for word in words]
        return list({record.id: record for record in records}.values())

    def goal(self, metric: str) -> Goal:
        """Return the goal of a metric: the declared one, else the default for its name."""
        metrics = self._connection.read(read_metrics)
        return metrics[metric][1] if metric in metrics else default_goal(metric)

    def declared_goals(self) -> dict[str, Goal]:
        """Return the goals that a grid, a script, a task or `labbench define` has declared, by metric.

        The metrics are in the order in which they were first declared or logged.
        """
        query = f"SELECT name, goal FROM metrics WHERE goal IN {GOALS} ORDER BY id"
        return dict(self._connection.read(lambda connection: connection.execute(query).fetchall()))

    def logs(self, key: str, *, styled: bool = False) -> list[str]:
        """Return the texts that a run printed in all its attempts, oldest first; if `styled`, with SGR sequences.

        Raises:
            RunNotFound: If no run has the key.
        """
        return self._connection.read(lambda connection: list(iterate_logs(connection, key, styled=styled)))

    def each_log(self, key: str, *, styled: bool = False) -> Iterator[str]:
        """Stream the texts that a run printed in all its attempts, as `logs`; memory holds one or two of them.

        Raises:
            RunNotFound: If no run has the key.
        """
        with open_snapshot(self.path) as connection:
            yield from iterate_logs(connection, key, styled=styled)

    def artifacts(self, key: str) -> list[Artifact]:
        """Return the files that a run produced or used, by name.

        Raises:
            InputError: If no run has the key (`RunNotFound`), or a path points outside the run's folder.
        """
        return self._connection.read(lambda connection: read_artifacts(connection, key))

    def sources(self, key: str) -> dict[str, str]:
        """Return the source texts of a run by kind: grid, task or script, diff.

        Raises:
            RunNotFound: If no run has the key.
        """
        return self._connection.read(lambda connection: read_sources(connection, key))

    def grid_texts(self, ids: Collection[int]) -> list[str]:
        """Return the different texts of the grid files of runs, an empty one if a run has none."""
        return self._connection.read(lambda connection: read_grid_texts(connection, ids))

    def continuations(self) -> dict[str, str]:
        """Return the key of the shorter run by the key of each run that continues one, in queue order."""
        query = "SELECT key, continued_from FROM runs WHERE continued_from IS NOT NULL ORDER BY id"
        rows = _check_continuations(self._connection.read(lambda connection: connection.execute(query).fetchall()))
        return {require_key(key): source for key, source in rows}

    def series(
        self, key: str, metric: str, *, first_step: int | None = None, last_step: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return steps (int64) and values (float64) of a run's metric, shape (N,) each, in the order of the steps.

        The arrays are empty if the run has not logged the metric. `first_step` and `last_step`, both included, limit
        the range.

        Raises:
            RunNotFound: If no run has the key.
        """
        steps, _, values = self._series(key, metric, first_step, last_step)
        return steps, values

    def times(
        self, key: str, metric: str, *, first_step: int | None = None, last_step: int | None = None
    ) -> NDArray[np.int64]:
        """Return the milliseconds since the start of the run for the steps of `series`, int64, shape (N,).

        Raises:
            RunNotFound: If no run has the key.
        """
        return self._series(key, metric, first_step, last_step)[1]

    def curves(self, run_ids: Sequence[int], metric: str, request: CurveRequest) -> dict[int, BucketedSeries]:
        """Return the curve of each run that has logged the metric, in arrays of shape (B,), by run id.

        The time to read depends on the number of columns, not on the length of the series.
        """

        def read(connection: sqlite3.Connection) -> dict[int, BucketedSeries]:
            metrics = read_metrics(connection)
            if metric not in metrics:
                return {}
            metric_id, _ = metrics[metric]
            return {curve.run_id: curve for curve in read_curves(connection, run_ids, metric_id, request)}

        return self._connection.read(read)

    def points_at(
        self, metric: str, steps: Mapping[int, Iterable[int]]
    ) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
        """Return (steps, milliseconds since the start, values) of the points at these steps by run id, (P,) each."""

        def read(
            connection: sqlite3.Connection,
        ) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
            metric_id, _ = read_metrics(connection).get(metric, (-1, None))
            return read_points_at(connection, metric_id, steps)

        return self._connection.read(read)

    def _series(
        self, key: str, metric: str, first_step: int | None, last_step: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        def read(
            connection: sqlite3.Connection,
        ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
            run_id = require_run_id(connection, key)
            metric_id, _ = read_metrics(connection).get(metric, (-1, None))
            return read_series(connection, run_id, metric_id, first_step=first_step, last_step=last_step)

        return self._connection.read(read)
