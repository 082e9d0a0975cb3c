"""Reads a database while others write it: pages of runs, summaries, curves, and whether anything changed.

A cleanly closed file is read as immutable, which leaves no files beside it, until somebody writes: then it is opened
again. One Reader may be used by several threads, one call at a time; give each its own where they should not wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from labbench.configs import ConfigKeys
from labbench.errors import InputError, did_you_mean
from labbench.filters.parser import RunFilter
from labbench.records import STATUSES, Goal, RunRecord, Status, default_goal, require_key
from labbench.store.fresh_connection import FreshConnection
from labbench.store.queries.code_versions import CodedRun, read_other_code
from labbench.store.queries.filter_sql import Sql, read_metrics
from labbench.store.queries.find_run import find_run
from labbench.store.queries.run_details import read_artifacts, read_logs, read_sources, require_run_id
from labbench.store.queries.run_rows import (
    FROM_RUNS,
    IN_JSON_LIST,
    STATUS,
    as_json_list,
    compare_config_texts,
    read_records,
    read_records_by_key,
)
from labbench.store.queries.select_runs import (
    Page,
    filter_tree,
    select_columns,
    select_logged_metrics,
    select_page,
    select_values,
)
from labbench.store.queries.stream import PointRow, StepRow, stream_points, stream_runs, stream_steps
from labbench.store.scripts.script_run import Artifact
from labbench.store.series.curves import BucketedSeries, CurveRequest, read_curves, read_series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labbench.store.queries.tables import TableShape


class Reader:
    """Reads one database; close it, or use it in a `with`. `labbench.open(path)` makes one.

    Raises InputError where there is no labbench database of this version or older, StoreError when reading fails.
    """

    def __init__(self, path: Path | str) -> None:
        self._connection = FreshConnection(Path(path))
        self.path = self._connection.path

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # Runs.

    def runs(
        self,
        wanted: RunFilter = None,
        *,
        sort: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        summaries: bool | Collection[str] = True,
    ) -> list[RunRecord]:
        """A page of the runs that fit, in the order they were queued or by a column; without a value, they come last.

        `sort` is a reserved word, `created`, `finished`, `seconds`, a config key, a metric (its last value) or a
        function of one, `best(val/loss)`. `summaries` loads those of all metrics, of none, or of some.
        """

        def read(connection: sqlite3.Connection) -> list[RunRecord]:
            rows = select_page(connection, Sql("runs.id"), wanted, Page(sort, descending, limit, offset))
            return read_records(connection, [run_id for (run_id,) in rows], summaries=summaries)

        return self._connection.read(read)

    def each_run(self, wanted: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[RunRecord]:
        """The runs that fit as they were queued, a stream for any number of them; `metrics` as in `points`."""
        return stream_runs(self.path, filter_tree(wanted), self._require_metrics(metrics))

    def keys(self, wanted: RunFilter = None, *, sort: str | None = None, descending: bool = False) -> list[str]:
        """The keys of all runs that fit, in the order of `runs`: a tenth of the work where nothing else is shown."""
        page = Page(sort, descending)
        rows = self._connection.read(lambda connection: select_page(connection, Sql("runs.key"), wanted, page))
        return [require_key(key) for (key,) in rows]

    def values(
        self,
        headings: Sequence[str],
        wanted: RunFilter = None,
        *,
        by: Sequence[str] = (),
        sort: str | None = None,
        descending: bool = False,
    ) -> list[tuple[Any, ...]]:
        """(key, settings, value, value, ...) of all runs that fit, in the order of `runs`: what groups are made of.

        The settings are a JSON array that begins with the values of the config keys `by`, null for a key that a run
        lacks; the rest is what `sort` would sort by under each heading.
        """
        page = Page(sort, descending)
        return self._connection.read(lambda connection: select_values(connection, headings, by, wanted, page))

    def count(self, wanted: RunFilter = None) -> int:
        """How many runs fit."""
        return sum(self.status_counts(wanted).values())

    def status_counts(self, wanted: RunFilter = None) -> dict[Status, int]:
        """How many of the runs that fit are in each status that any is in, in the order of `STATUSES`."""
        counts = dict(self._select(f"{STATUS} AS status, count(*)", wanted, "GROUP BY 1"))
        return {status: counts[status] for status in STATUSES if status in counts}

    def experiments(self, wanted: RunFilter = None) -> list[str]:
        """The experiments of the runs that fit, oldest first."""
        return [name for (name,) in self._select("DISTINCT experiments.name", wanted, "ORDER BY experiments.id")]

    def find(self, word: str) -> RunRecord:
        """The run with this key, the only one whose key begins so, or the only one of this name.

        Raises RunNotFound, with what it may have meant, where there is none or are several. Archived runs are found.
        """
        return self._connection.read(lambda connection: find_run(connection, word))

    def by_keys(self, keys: Sequence[str]) -> list[RunRecord]:
        """The runs with these keys, archived ones too, in this order; keys that are gone are left out."""
        return self._connection.read(lambda connection: read_records_by_key(connection, keys))

    def find_many(self, words: Sequence[str]) -> list[RunRecord]:
        """The runs that the words name, each once, in order."""
        found = [self.find(word) for word in words]
        return list({record.id: record for record in found}.values())

    def identities(self, experiment: str, *, statuses: Collection[Status] = STATUSES) -> set[str]:
        """The identities of the runs of an experiment, archived ones too, that are in one of these statuses."""
        query = f"SELECT runs.identity {FROM_RUNS} WHERE experiments.name = ? AND {STATUS} {IN_JSON_LIST}"
        rows = self._connection.read(
            lambda connection: connection.execute(query, (experiment, as_json_list(statuses))).fetchall()
        )
        return {identity for (identity,) in rows}

    def other_code(self, experiment: str, code_version: str) -> list[CodedRun]:
        """The runs of an experiment that were not recorded with this code version, archived ones too."""
        return self._connection.read(lambda connection: read_other_code(connection, experiment, code_version))

    def metrics(self, wanted: RunFilter = None) -> dict[str, Goal]:
        """The metrics that any of the runs that fit has logged, with their goals, in the order they first came."""
        return self._connection.read(lambda connection: select_logged_metrics(connection, wanted))

    def goal(self, metric: str) -> Goal:
        """The goal of a metric: as declared, else by its name."""
        metrics = self._connection.read(read_metrics)
        return metrics[metric][1] if metric in metrics else default_goal(metric)

    def compare_configs(self, wanted: RunFilter = None) -> ConfigKeys:
        """The config keys of the runs that fit, those that differ among them, and those with one value in all."""
        return compare_config_texts(tuple(text for (text,) in self._select("runs.config", wanted, "ORDER BY runs.id")))

    def config_keys(self, wanted: RunFilter = None) -> list[str]:
        """The config keys of the runs that fit, in the order they first come."""
        return list(self.compare_configs(wanted).names)

    def differing(self, wanted: RunFilter = None) -> list[str]:
        """The config keys with more than one value among the runs that fit; a missing key is not a value."""
        return list(self.compare_configs(wanted).differing)

    def constant(self, wanted: RunFilter = None) -> dict[str, Any]:
        """The config keys with one value, the same in every run that fits, and that value."""
        return dict(self.compare_configs(wanted).constant)

    def logs(self, key: str) -> list[str]:
        """What a run wrote, of all its attempts, in the order it came."""
        return self._connection.read(lambda connection: read_logs(connection, key))

    def artifacts(self, key: str) -> list[Artifact]:
        """The files that a run made or used, by name."""
        return self._connection.read(lambda connection: read_artifacts(connection, key))

    def sources(self, key: str) -> dict[str, str]:
        """The texts that a run was made from, by kind: grid, task, diff."""
        return self._connection.read(lambda connection: read_sources(connection, key))

    # Series.

    def series(
        self, key: str, metric: str, *, first_step: int | None = None, last_step: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(steps, values) of a metric of a run, in the order of the steps; empty where it has not logged it.

        All of it, or what lies between two steps, both included.
        """
        steps, _, values = self._series(key, metric, first_step, last_step)
        return steps, values

    def times(
        self, key: str, metric: str, *, first_step: int | None = None, last_step: int | None = None
    ) -> NDArray[np.int64]:
        """Milliseconds since the run's start, for each of the steps of `series`."""
        return self._series(key, metric, first_step, last_step)[1]

    def curves(self, run_ids: Sequence[int], metric: str, request: CurveRequest) -> dict[int, BucketedSeries]:
        """Return the curve of each run that has logged the metric, by the run's id, for drawing.

        Reads in proportion to the columns, however long the series are.
        """

        def read(connection: sqlite3.Connection) -> dict[int, BucketedSeries]:
            metrics = read_metrics(connection)
            if metric not in metrics:
                return {}
            metric_id, _ = metrics[metric]
            return {curve.run_id: curve for curve in read_curves(connection, run_ids, metric_id, request)}

        return self._connection.read(read)

    def points(self, wanted: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[PointRow]:
        """Every logged value of the runs that fit, run by run, metric by metric, step by step.

        Streams as of one moment, over a connection of its own. `metrics` leaves the others out; an unknown one is an
        InputError.
        """
        return stream_points(self.path, filter_tree(wanted), self._require_metrics(metrics))

    def steps(self, wanted: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[StepRow]:
        """What `points` gives, put together by step."""
        return stream_steps(self.path, filter_tree(wanted), self._require_metrics(metrics))

    # Tables.

    def to_pandas(
        self, wanted: RunFilter = None, *, shape: TableShape = "summary", metrics: Collection[str] | None = None
    ) -> Any:
        """The runs that fit as a pandas.DataFrame with the columns of the CSV export.

        A row is a run, or by its `shape` a point ("long") or a step ("wide"). Raises InputError without pandas.
        """
        from labbench.store.queries.tables import data_frame

        return data_frame("pandas", self, wanted, shape, metrics)

    def to_polars(
        self, wanted: RunFilter = None, *, shape: TableShape = "summary", metrics: Collection[str] | None = None
    ) -> Any:
        """The same as a polars.DataFrame."""
        from labbench.store.queries.tables import data_frame

        return data_frame("polars", self, wanted, shape, metrics)

    # Changes.

    def data_version(self) -> int:
        """Cheap; another number when another connection has committed, or when a run's process has vanished."""
        return self._connection.version()

    def _require_metrics(self, metrics: Collection[str] | None) -> Collection[str] | None:
        """The metrics, before anything is streamed: a misspelt one would only be missing."""
        known = self._connection.read(read_metrics)
        for metric in metrics or ():
            if metric not in known:
                raise InputError(f"no run has logged the metric `{metric}`{did_you_mean(metric, known)}")
        return metrics

    def _select(self, columns: str, wanted: RunFilter, rest: str = "") -> list[Any]:
        return self._connection.read(lambda connection: select_columns(connection, columns, wanted, rest))

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
