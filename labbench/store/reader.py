"""`Reader`: read a database while other processes write to it.

A cleanly closed file is opened as immutable, which leaves no files beside it, and reopened when a process writes to it.
Several threads may share a `Reader`, which runs one call at a time; a thread that must not wait needs its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from labbench.configs import ConfigKeys
from labbench.filters.parser import RunFilter
from labbench.metrics import Goal, unknown_metric
from labbench.records import STATUSES, PairedPoint, RunRecord, Status, require_key
from labbench.store.queries.filter_sql import Sql, read_metrics
from labbench.store.queries.run_records import compare_config_texts, read_records
from labbench.store.queries.run_sql import FROM_RUNS, IN_JSON_LIST, IS_LOCAL, STATUS, as_json_list
from labbench.store.queries.select_runs import (
    Page,
    filter_tree,
    select_columns,
    select_logged_metrics,
    select_page,
    select_values,
)
from labbench.store.queries.stream import (
    PointRow,
    SeriesBatch,
    StepRow,
    stream_batches,
    stream_points,
    stream_runs,
    stream_steps,
)
from labbench.store.row_checks import RowCheck
from labbench.store.run_reader import RunReader

if TYPE_CHECKING:
    from labbench.store.queries.code_versions import CodedRun
    from labbench.store.queries.epoch_values import EpochValue
    from labbench.store.queries.export_tables import TableShape
    from labbench.store.queries.known_names import NameNotes


_check_experiments = RowCheck("experiments", ("name",))
_check_configs = RowCheck("runs", ("config",))


class Reader(RunReader):
    """Reader of a database, as returned by `labbench.open(path)`.

    Close it, or use it in a `with` block. Every method raises StoreError if the database cannot be read.

    A `filter` is text, as on the command line, or a parsed filter; None matches all runs that are not archived. Methods
    raise InputError if their filter is invalid.
    """

    def runs(
        self,
        filter: RunFilter = None,
        *,
        sort: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        summaries: bool | Collection[str] = True,
    ) -> list[RunRecord]:
        """Return a page of the matching runs, in queue order or sorted.

        Args:
            filter: Runs to return.
            sort: A reserved word, `created`, `finished`, `seconds`, a config key, a metric (its last value) or a
                function of a metric such as `best(val/loss)`. Runs without a value come last.
            descending: Reverse the order.
            limit: Maximum number of runs.
            offset: Number of runs to skip.
            summaries: Load the summaries of all metrics (True), of none (False) or of the named ones.

        Raises:
            InputError: If the filter is invalid, or no run has a value to sort by.
        """

        def read(connection: sqlite3.Connection) -> list[RunRecord]:
            rows = select_page(connection, Sql("runs.id"), filter, Page(sort, descending, limit, offset))
            return read_records(connection, [run_id for (run_id,) in rows], summaries=summaries)

        return self._connection.read(read)

    def each_run(self, filter: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[RunRecord]:
        """Stream the matching runs in queue order.

        `metrics` names the metrics whose summaries are loaded; None loads all.

        Raises:
            InputError: If no run has logged one of the metrics.
        """
        return stream_runs(self.path, filter_tree(filter), self._require_metrics(metrics))

    def keys(self, filter: RunFilter = None, *, sort: str | None = None, descending: bool = False) -> list[str]:
        """Return the keys of the matching runs, in the order of `runs`; ten times as fast as `runs`."""
        page = Page(sort, descending)
        rows = self._connection.read(lambda connection: select_page(connection, Sql("runs.key"), filter, page))
        return [require_key(key) for (key,) in rows]

    def values(
        self,
        headings: Sequence[str],
        filter: RunFilter = None,
        *,
        by: Sequence[str] = (),
        sort: str | None = None,
        descending: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Return (key, settings, value, value, ...) of the matching runs, in the order of `runs`, for grouping.

        The settings are a JSON array that starts with the values of the config keys `by`, null for a missing key. The
        other values are those under the headings, as `runs` sorts by them.
        """
        page = Page(sort, descending)
        return self._connection.read(lambda connection: select_values(connection, headings, by, filter, page))

    def count(self, filter: RunFilter = None) -> int:
        """Return the number of matching runs."""
        return sum(self.status_counts(filter).values())

    def status_counts(self, filter: RunFilter = None) -> dict[Status, int]:
        """Return the number of matching runs by status, in the order of `STATUSES`, without zeros."""
        counts = dict(self._select(f"{STATUS} AS status, count(*)", filter, "GROUP BY 1"))
        return {status: counts[status] for status in STATUSES if status in counts}

    def experiments(self, filter: RunFilter = None) -> list[str]:
        """Return the names of the experiments of the matching runs, oldest first."""
        rows = self._select("DISTINCT experiments.name", filter, "ORDER BY experiments.id")
        return [name for (name,) in _check_experiments(rows)]

    def identities(self, experiment: str, *, statuses: Collection[Status] = STATUSES) -> set[str]:
        """Return the identities of an experiment's runs in one of these statuses, archived runs included."""
        query = (
            f"SELECT runs.identity {FROM_RUNS} WHERE experiments.name = ? AND {STATUS} {IN_JSON_LIST} AND {IS_LOCAL}"
        )
        rows = self._connection.read(
            lambda connection: connection.execute(query, (experiment, as_json_list(statuses))).fetchall()
        )
        return {identity for (identity,) in rows}

    def finished(self, experiment: str) -> list[RunRecord]:
        """Return an experiment's finished runs in queue order, without summaries, archived runs included."""
        condition = f"experiments.name = ? AND {STATUS} = 'finished' AND {IS_LOCAL}"
        query = f"SELECT runs.id {FROM_RUNS} WHERE {condition} ORDER BY runs.id"

        def read(connection: sqlite3.Connection) -> list[RunRecord]:
            return read_records(connection, [run_id for (run_id,) in connection.execute(query, (experiment,))])

        return self._connection.read(read)

    def epoch_values(self, keys: Sequence[str], metric: str, epoch: int) -> dict[str, EpochValue]:
        """Return the values of a metric up to the end of an epoch, by key of the runs that have begun."""
        from labbench.store.queries.epoch_values import read_epoch_values  # that only a search needs

        return self._connection.read(lambda connection: read_epoch_values(connection, keys, metric, epoch))

    def paired_points(self, keys: Sequence[str], metric: str, tuning: str, goal: Goal) -> dict[str, PairedPoint]:
        """Return the point at the best step of `tuning` among the steps with both metrics, by key of the run.

        `goal` is the goal of `tuning`. Runs without a step with both metrics are missing.
        """
        from labbench.store.queries.paired_points import read_paired_points  # only `why --tune-on` needs it

        return self._connection.read(lambda connection: read_paired_points(connection, keys, metric, tuning, goal))

    def experiment_with(self, identities: Collection[str]) -> str | None:
        """Return the newest experiment that has runs of all these identities, None if there is none."""
        query = f"""
            SELECT experiments.name {FROM_RUNS} WHERE runs.identity {IN_JSON_LIST} AND {IS_LOCAL}
            GROUP BY experiments.id HAVING count(DISTINCT runs.identity) = ? ORDER BY experiments.id DESC LIMIT 1
        """
        parameters = (as_json_list(identities), len(set(identities)))
        row = self._connection.read(lambda connection: connection.execute(query, parameters).fetchone())
        return None if row is None else row[0]

    def other_code(self, experiment: str, code_version: str) -> list[CodedRun]:
        """Return an experiment's runs recorded with another code version or none, archived runs included."""
        from labbench.store.queries.code_versions import read_other_code  # 4 ms that only `labbench run` needs

        return self._connection.read(lambda connection: read_other_code(connection, experiment, code_version))

    def check_names(
        self,
        filter: RunFilter = None,
        *,
        columns: Sequence[str] = (),
        metrics: Sequence[str] = (),
        sort: str | None = None,
    ) -> NameNotes:
        """Return notes on names that have two meanings, or that only runs in progress may still record.

        Args:
            filter: Filter whose config keys and metrics are checked.
            columns: Further config keys or metrics.
            metrics: Further metrics.
            sort: Sort expression.

        Raises:
            InputError: If a name exists nowhere, although the database has runs and none of the selected ones is queued
                or running.
        """
        from labbench.store.queries.known_names import Names, check_names  # 1 ms that scripts do not need

        names = Names(columns, metrics, sort)
        return self._connection.read(lambda connection: check_names(connection, filter_tree(filter), names))

    def metrics(self, filter: RunFilter = None) -> dict[str, Goal]:
        """Return the goals of the metrics that the matching runs have logged, in the order they were first logged."""
        return self._connection.read(lambda connection: select_logged_metrics(connection, filter))

    def compare_configs(self, filter: RunFilter = None) -> ConfigKeys:
        """Compare the configs of the matching runs."""
        return compare_config_texts(
            tuple(text for (text,) in _check_configs(self._select("runs.config", filter, "ORDER BY runs.id")))
        )

    def config_keys(self, filter: RunFilter = None) -> list[str]:
        """Return the config keys of the matching runs, in order of first occurrence."""
        return list(self.compare_configs(filter).names)

    def differing(self, filter: RunFilter = None) -> list[str]:
        """Return the config keys with several values among the matching runs.

        A missing key is not a value.
        """
        return list(self.compare_configs(filter).differing)

    def constant(self, filter: RunFilter = None) -> dict[str, Any]:
        """Return the config keys with the same value in every matching run, with that value."""
        return dict(self.compare_configs(filter).constant)

    def points(self, filter: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[PointRow]:
        """Stream the points of the matching runs, ordered by run, metric and step.

        The stream sees one snapshot of the database. `metrics` selects metrics; None selects all.

        Raises:
            InputError: If no run has logged one of the metrics.
        """
        return stream_points(self.path, filter_tree(filter), self._require_metrics(metrics))

    def batches(self, filter: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[SeriesBatch]:
        """Stream the points as `points` does, in batches of one series.

        Raises:
            InputError: If no run has logged one of the metrics.
        """
        return stream_batches(self.path, filter_tree(filter), self._require_metrics(metrics))

    def steps(self, filter: RunFilter = None, metrics: Collection[str] | None = None) -> Iterator[StepRow]:
        """Stream the steps of the matching runs with their values, ordered by run and step.

        Otherwise like `points`.

        Raises:
            InputError: If no run has logged one of the metrics.
        """
        return stream_steps(self.path, filter_tree(filter), self._require_metrics(metrics))

    def to_pandas(
        self, filter: RunFilter = None, *, shape: TableShape = "summary", metrics: Collection[str] | None = None
    ) -> Any:
        """Return the matching runs as a pandas.DataFrame with the columns of the CSV export.

        Args:
            filter: Runs to return.
            shape: A row per run ("summary"), per step ("wide") or per point ("long").
            metrics: Names of metrics; None selects all.

        Raises:
            InputError: If pandas is not installed, or no run has logged one of the metrics.
        """
        from labbench.store.queries.export_tables import data_frame

        return data_frame("pandas", self, filter, shape, metrics)

    def to_polars(
        self, filter: RunFilter = None, *, shape: TableShape = "summary", metrics: Collection[str] | None = None
    ) -> Any:
        """Return the matching runs as a polars.DataFrame; see `to_pandas`.

        Raises:
            InputError: If polars is not installed, or no run has logged one of the metrics.
        """
        from labbench.store.queries.export_tables import data_frame

        return data_frame("polars", self, filter, shape, metrics)

    def _require_metrics(self, metrics: Collection[str] | None) -> Collection[str] | None:
        """Return `metrics`; raise InputError for an unknown one, which would otherwise be left out silently."""
        logged = self._connection.read(read_metrics)
        for metric in metrics or ():
            if metric not in logged:
                raise unknown_metric(metric, logged)
        return metrics

    def _select(self, columns: str, filter: RunFilter, rest: str = "") -> list[Any]:
        return self._connection.read(lambda connection: select_columns(connection, columns, filter, rest))
