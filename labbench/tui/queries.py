"""Queries of the screens, called in thread workers: table snapshots, run records, progress, filter vocabulary.

Each call opens its own reader, which takes a fraction of a millisecond, so that no thread waits for another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from labbench import text
from labbench.configs import ConfigKeys
from labbench.errors import FilterError, InputError, LabbenchError, as_labbench_error
from labbench.filters import parser
from labbench.filters.parser import And, Comparison, Filter
from labbench.metrics import Goal, default_metric, ranking_metrics
from labbench.records import RunRecord, Status
from labbench.store.reader import Reader
from labbench.store.series.curves import CurveRequest
from labbench.tui.charts.labels import configuration_of
from labbench.tui.drawn_runs import runs_of_first_groups
from labbench.tui.groups import RunGroup, group_rows, sort_groups
from labbench.tui.run_values import ValuesAt, values_at

_POLL_SECONDS = 1.0


ENDED_STATUSES: frozenset[Status] = frozenset({"finished", "diverged", "failed", "stopped", "pruned"})


class UnknownNameError(InputError):
    """Name in the filter of the runs table that exists nowhere."""


@dataclass(frozen=True, slots=True)
class Query:
    """Filter, metric, sorting and grouping of the runs table."""

    expression: str = ""
    """Filter expression."""
    metric: str | None = None
    """Metric of the chart and the first columns; None for `default_metric`."""
    sort: str | None = None
    """Sort expression of a column; None for the metric's best value, best first."""
    descending: bool = False
    group: tuple[str, ...] = ()
    """Config keys to group by."""
    opened: frozenset[str] = frozenset()
    """Ids of open groups, whose runs are shown below them."""
    values_at: tuple[tuple[str, int], ...] = ()
    """(metric, step) of the columns of values at a step."""


@dataclass(frozen=True, slots=True)
class DatabaseProgress:
    """Progress of all runs that are not archived."""

    experiments: Sequence[str] = ()
    counts: Mapping[Status, int] = field(default_factory=dict)
    share: float = 1.0
    """Finished fraction of all runs, 0 to 1; a running run counts by its epochs."""
    seconds_left: float | None = None
    archived: int = 0
    """Number of archived runs, if there are no others."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def is_live(self) -> bool:
        return self.counts.get("running", 0) > 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the runs screen at one moment, except curves."""

    query: Query
    """The query with its defaults filled in."""
    rows: Sequence[str] = ()
    """Keys of matching runs and ids of groups, in table order."""
    keys: Sequence[str] = ()
    """Keys of matching runs, including the runs of closed groups."""
    groups: Mapping[str, RunGroup] = field(default_factory=dict)
    records: Sequence[RunRecord] = ()
    """Records of the requested runs, with summaries."""
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    config_keys: ConfigKeys = field(default_factory=ConfigKeys)
    stars: frozenset[tuple[str, str]] = frozenset()
    """(metric, run key or group id) of the best value of each metric."""
    has_tags: bool = False
    """True if any matching run has a tag."""
    leaders: Sequence[str] = ()
    """Keys of the runs drawn without marks: the best run of each of the best configurations, or the runs of groups."""
    values_at: ValuesAt = field(default_factory=dict)
    """Values at the steps of the query, of `records`."""
    name_note: str = ""
    """Note on a filter without matches: names that running runs may record or with two meanings, values of no run."""


def read_snapshot(path: Path, query: Query, *, record_keys: Collection[str], rows: int) -> Snapshot:
    """Return the current state of the runs table.

    record_keys: keys of records to read, in addition to the first `rows` rows of the table.

    Raises FilterError for an invalid filter, UnknownNameError for a name in it that exists nowhere,
    and InputError and StoreError as `Reader` does.
    """
    if not path.exists():  # the database may be created later, by a grid in another terminal
        return Snapshot(query)
    with Reader(path) as reader:
        condition = parser.parse(query.expression)
        try:
            notes = reader.check_names(condition)
        except InputError as error:
            raise UnknownNameError(str(error)) from error
        if query.group:
            condition = parser.present_code(condition)
        metrics = reader.metrics(condition)
        first_metric = default_metric(metrics, reader.declared_goals())
        try:
            filled = _fill_defaults(query, metrics, first_metric)
            snapshot = _query_snapshot(reader, condition, filled, metrics, record_keys, rows)
        except FilterError:
            raise
        except InputError:  # the sort column no longer exists
            filled = _fill_defaults(replace(query, sort=None), metrics, first_metric)
            snapshot = _query_snapshot(reader, condition, filled, metrics, record_keys, rows)
        note = "; ".join((*notes.missing, *notes.ambiguous, *notes.unmatched))
        return snapshot if snapshot.keys else replace(snapshot, name_note=note)


def _query_snapshot(
    reader: Reader,
    condition: Filter | None,
    query: Query,
    metrics: Mapping[str, Goal],
    record_keys: Collection[str],
    first_rows: int,
) -> Snapshot:
    starred = ranking_metrics(metrics)[:_MAX_STARRED_METRICS]
    headings = _value_headings(query, starred)
    values = reader.values(
        ["status", *headings], condition, by=query.group, sort=query.sort, descending=query.descending
    )
    groups = (
        group_rows(values, query.group, headings, opened=query.opened, sources=reader.continuations())
        if query.group
        else []
    )
    groups = sort_groups(groups, query.sort, descending=query.descending)
    leaders = runs_of_first_groups(groups) or _find_leaders(reader, condition, query.metric, metrics)
    keys = rows = [row[0] for row in values]
    if query.group:
        rows = [key for group in groups for key in (group.id, *(group.keys if group.is_open else ()))]
    records = reader.by_keys([*record_keys, *rows[:first_rows], *leaders])
    return Snapshot(
        query=query,
        rows=rows,
        keys=keys,
        groups={group.id: group for group in groups},
        records=records,
        metrics=metrics,
        config_keys=reader.compare_configs(condition),
        stars=_find_stars(values, groups, starred, metrics),
        has_tags=bool(
            reader.runs(_HAS_TAG if condition is None else And((condition, _HAS_TAG)), limit=1, summaries=False)
        ),
        leaders=leaders,
        values_at=values_at(reader, records, query.values_at),
    )


def _value_headings(query: Query, starred: Sequence[str]) -> list[str]:
    """Return the expressions of the values to read: of the starred metrics, and those that groups show."""
    headings = [f"best({metric})" for metric in starred]
    if query.group:
        metric_headings = [f"last({query.metric})", f"best({query.metric})"] if query.metric else []
        headings = [*dict.fromkeys([*headings, *metric_headings, query.sort or "created"])]
    return headings


def _find_leaders(reader: Reader, condition: Filter | None, metric: str | None, goals: Mapping[str, Goal]) -> list[str]:
    """Return the keys of the best run of each of the best configurations by a metric, best first."""
    if metric is None or goals[metric] == "none":
        return []
    best = reader.runs(
        condition,
        sort=f"best({metric})",
        descending=goals[metric] == "max",
        limit=_LEADER_CANDIDATES,
        summaries=[metric],
    )
    leaders: dict[str, str] = {}
    for run in best:
        if metric in run.summary:
            leaders.setdefault(configuration_of(run), run.key)
    return list(leaders.values())[:MAX_LEADERS]


MAX_LEADERS = 5
_LEADER_CANDIDATES = 50
"""Number of runs among which the best configurations are found: ten seeds each."""

_MAX_STARRED_METRICS = 12
"""Maximum number of metrics with a star at their best run."""


_HAS_TAG = Comparison("tag", None, "!=", (None,), ("none",))


def _find_stars(
    rows: Sequence[tuple[Any, ...]], groups: Sequence[RunGroup], metrics: Sequence[str], goals: Mapping[str, Goal]
) -> frozenset[tuple[str, str]]:
    stars = set()
    for column, metric in enumerate(metrics, start=3):
        best = min if goals[metric] == "min" else max
        measured = [row for row in rows if row[column] is not None]
        if measured:
            stars.add((metric, best(measured, key=lambda row: row[column])[0]))
        sort = f"best({metric})"
        means = {group.id: group.means[sort].mean for group in groups if sort in group.means}
        if means:
            stars.add((metric, best(means, key=means.__getitem__)))
    return frozenset(stars)


def _fill_defaults(query: Query, metrics: Mapping[str, Goal], first_metric: str | None) -> Query:
    metric = query.metric if query.metric in metrics else first_metric
    if metric is None:
        return replace(query, metric=None, sort=query.sort or "created")
    if query.sort is None:
        sort = f"last({metric})" if metrics[metric] == "none" else f"best({metric})"
        return replace(query, metric=metric, sort=sort, descending=metrics[metric] == "max")
    return replace(query, metric=metric)


def read_records(path: Path, keys: Collection[str]) -> list[RunRecord]:
    """Return the runs with these keys, in no particular order."""
    with Reader(path) as reader:
        return reader.by_keys(list(keys))


def read_runs(path: Path, keys: Sequence[str]) -> tuple[list[RunRecord], Mapping[str, Goal]]:
    """Return the runs with these keys, in this order, and all metrics."""
    if not path.exists():
        return [], {}
    with Reader(path) as reader:
        return reader.by_keys(keys), reader.metrics()


def read_progress(path: Path) -> DatabaseProgress:
    """Return the progress of all runs in the database."""
    if not path.exists():
        return DatabaseProgress()
    with Reader(path) as reader:
        return _query_progress(reader)


def read_sparklines(path: Path, runs: Sequence[RunRecord], metric: str, cells: int) -> dict[str, str]:
    """Return the curve of a metric in `cells` characters, by key, for each run that has logged it."""
    with Reader(path) as reader:
        curves = reader.curves([run.id for run in runs], metric, CurveRequest(cells))
    return {run.key: text.sparkline(_log_if_steep(curves[run.id].mean.tolist())) for run in runs if run.id in curves}


def _log_if_steep(values: list[float]) -> list[float]:
    """Return logarithms if a steep initial drop would hide the later values, else the values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0 or max(finite) < _LOG_SCALE_RATIO * min(finite):
        return values
    return [math.log(value) if math.isfinite(value) else value for value in values]


_LOG_SCALE_RATIO = 5.0


def _query_progress(reader: Reader) -> DatabaseProgress:
    """Return counts and, while runs are training, the time left, estimated from the runs of the same processes."""
    counts = reader.status_counts()
    total = sum(counts.values())
    ended = sum(count for status, count in counts.items() if status in ENDED_STATUSES)
    share, seconds_left = ended / total if total else 1.0, None
    if counts.get("running"):
        running = reader.runs("status=running", summaries=["epoch"])
        running_share = sum(_fraction_done(run) for run in running)
        share = (ended + running_share) / total
        started = min((run.started for run in running if run.started is not None), default=None)
        drivers = {(run.host, run.pid) for run in running}
        recent = reader.runs(sort="finished", descending=True, limit=200, summaries=False)
        session = [
            run for run in recent if (run.host, run.pid) in drivers and run.status in ENDED_STATUSES and run.started
        ]
        started = min([run.started or started or 0.0 for run in session] + [started or 0.0])
        done = len(session) + running_share
        unfinished = sum(count for status, count in counts.items() if status in ("queued", "running", "lost"))
        if started and done > 0:
            seconds_left = (time.time() - started) * (unfinished - running_share) / done
    archived = 0 if total else reader.count("archived=true")
    return DatabaseProgress(reader.experiments(), counts, share, seconds_left, archived)


def _fraction_done(run: RunRecord) -> float:
    epochs = run.config.get("epochs")
    epoch = run.summary.get("epoch")
    if epoch is None or not isinstance(epochs, int | float) or not epochs > 0:
        return 0.0
    return min(1.0, max(0.0, epoch.last / epochs))


def watch_changes(path: Path, stopped: Event) -> Iterator[LabbenchError | None]:
    """Yield None at the start and whenever the database has changed, or an error when it becomes unreadable.

    Polls once a second until `stopped` is set. A poll takes a tenth of a millisecond and is the only work of an idle
    TUI.
    """
    last_version: int | str | None = None
    while not stopped.is_set():
        if path.exists():
            try:
                with Reader(path) as reader:
                    while not stopped.is_set():
                        if (version := reader.data_version()) != last_version:
                            last_version = version
                            yield None
                        stopped.wait(_POLL_SECONDS)
            except Exception as exception:  # an error must not end the program
                error = as_labbench_error(exception)
                if last_version != str(error):  # report an error once, not every second
                    last_version = str(error)
                    yield error
        elif last_version is None:
            last_version = "missing"
            yield None
        stopped.wait(_POLL_SECONDS)
