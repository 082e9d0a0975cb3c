"""What the screens ask of a database, called in thread workers: the state of the table, records of rows.

Each call opens its own reader, a fraction of a millisecond, so that no thread waits for another.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

from labbench import text
from labbench.configs import ConfigKeys
from labbench.errors import FilterError, InputError, LabbenchError
from labbench.filters import parser
from labbench.filters.completion import Vocabulary
from labbench.filters.parser import And, Comparison, Filter
from labbench.metrics import charted_metrics, quality_metrics
from labbench.portraits.file import NO_PORTRAIT_MESSAGE, Portrait, portrait_path, read_portrait
from labbench.records import Goal, RunRecord, Status
from labbench.store.reader import Reader
from labbench.store.scripts.script_run import Artifact
from labbench.store.series.curves import CurveRequest
from labbench.text import split_lines
from labbench.tui.groups import RunGroup, group_rows, sort_groups

_POLL_SECONDS = 1.0


ENDED_STATUSES: frozenset[Status] = frozenset({"finished", "diverged", "failed", "stopped"})


@dataclass(frozen=True, slots=True)
class Query:
    """What the runs screen asks for."""

    expression: str = ""
    """A filter."""
    metric: str | None = None
    """The metric in question; None for the one that says most."""
    sort: str | None = None
    """A column; None for the metric's best, best first."""
    descending: bool = False
    group: tuple[str, ...] = ()
    """Config keys whose values the runs of a group share."""
    opened: frozenset[str] = frozenset()
    """The groups whose runs are shown beneath them."""


@dataclass(frozen=True, slots=True)
class DatabaseProgress:
    """How far all runs are that are not archived."""

    experiments: Sequence[str] = ()
    counts: Mapping[Status, int] = field(default_factory=dict)
    share: float = 1.0
    """Of the work in runs, 0 to 1; a run that is training counts by its epochs."""
    seconds_left: float | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def is_live(self) -> bool:
        return self.counts.get("running", 0) > 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the runs screen shows at one moment, except curves."""

    query: Query
    """As it was asked, with what was left open filled in."""
    rows: Sequence[str] = ()
    """The runs that fit by their keys, and the groups by their ids, in order."""
    keys: Sequence[str] = ()
    """The runs alone, those of closed groups too."""
    groups: Mapping[str, RunGroup] = field(default_factory=dict)
    records: Sequence[RunRecord] = ()
    """Those of the runs that were asked for, with their summaries."""
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    config_keys: ConfigKeys = field(default_factory=ConfigKeys)
    stars: frozenset[tuple[str, str]] = frozenset()
    """(metric, run or group) where it has the best value of all."""
    has_tags: bool = False
    """Whether any run has a tag."""


def read_snapshot(path: Path, query: Query, *, wanted: Collection[str], rows: int) -> Snapshot:
    """The present state. `wanted`: keys whose records are needed, beside the first `rows` of the table.

    Raises FilterError, or InputError and StoreError as a reader does.
    """
    if not path.exists():  # somebody may start a grid in another window: the screen waits for it
        return Snapshot(query)
    with Reader(path) as reader:
        shown = parser.parse(query.expression)
        if query.group:
            shown = parser.present_code(shown)
        metrics = reader.metrics(shown)
        try:
            return _query_snapshot(reader, shown, _fill_defaults(query, metrics), metrics, wanted, rows)
        except FilterError:
            raise
        except InputError:  # there is nothing of that name to sort by any more
            return _query_snapshot(
                reader, shown, _fill_defaults(replace(query, sort=None), metrics), metrics, wanted, rows
            )


def _query_snapshot(
    reader: Reader,
    shown: Filter | None,
    query: Query,
    metrics: Mapping[str, Goal],
    wanted: Collection[str],
    first_rows: int,
) -> Snapshot:
    starred = quality_metrics(metrics)[:_MAX_STARRED_METRICS]
    headings = [f"best({metric})" for metric in starred]
    if query.group:
        also = [f"last({query.metric})", f"best({query.metric})"] if query.metric else []
        headings += [heading for heading in dict.fromkeys([*also, query.sort or "created"]) if heading not in headings]
    found = reader.values(["status", *headings], shown, by=query.group, sort=query.sort, descending=query.descending)
    groups = group_rows(found, query.group, headings, opened=query.opened) if query.group else []
    groups = sort_groups(groups, query.sort, descending=query.descending)
    keys = [row[0] for row in found]
    rows = [key for one in groups for key in (one.id, *(one.keys if one.is_open else ()))] if query.group else keys
    return Snapshot(
        query=query,
        rows=rows,
        keys=keys,
        groups={one.id: one for one in groups},
        records=reader.by_keys([*wanted, *rows[:first_rows]]),
        metrics=metrics,
        config_keys=reader.compare_configs(shown),
        stars=_find_stars(found, groups, starred, metrics),
        has_tags=bool(reader.runs(_HAS_TAG if shown is None else And((shown, _HAS_TAG)), limit=1, summaries=False)),
    )


_MAX_STARRED_METRICS = 12
"""Metrics whose best run is looked for."""


_HAS_TAG = Comparison("tag", None, "!=", (None,), ("none",))


def _find_stars(
    found: Sequence[tuple[Any, ...]], groups: Sequence[RunGroup], metrics: Sequence[str], goals: Mapping[str, Goal]
) -> frozenset[tuple[str, str]]:
    stars = set()
    for column, metric in enumerate(metrics, start=3):
        best = min if goals[metric] == "min" else max
        values = [(row[column], place) for place, row in enumerate(found) if row[column] is not None]
        if values:
            value = best(value for value, _ in values)
            stars.add((metric, found[next(place for known, place in values if known == value)][0]))
        means = {one.id: one.means[f"best({metric})"].mean for one in groups if f"best({metric})" in one.means}
        if means:
            stars.add((metric, best(means, key=means.__getitem__)))
    return frozenset(stars)


def _fill_defaults(query: Query, metrics: Mapping[str, Goal]) -> Query:
    metric = query.metric
    if metric not in metrics:
        metric = next(iter(charted_metrics(metrics)), None)
    if metric is None:
        return replace(query, metric=None, sort=query.sort or "created")
    if query.sort is None:
        return replace(query, metric=metric, sort=f"best({metric})", descending=metrics[metric] == "max")
    return replace(query, metric=metric)


def read_records(path: Path, keys: Collection[str]) -> list[RunRecord]:
    """The runs with these keys, in no particular order."""
    with Reader(path) as reader:
        return reader.by_keys(list(keys))


def read_runs(path: Path, keys: Sequence[str]) -> tuple[list[RunRecord], Mapping[str, Goal]]:
    """The runs with these keys, in this order, and all metrics."""
    if not path.exists():
        return [], {}
    with Reader(path) as reader:
        return reader.by_keys(keys), reader.metrics()


def read_progress(path: Path) -> DatabaseProgress:
    """How far everything in the database is."""
    if not path.exists():
        return DatabaseProgress()
    with Reader(path) as reader:
        return _query_progress(reader)


def read_sparklines(path: Path, runs: Sequence[RunRecord], metric: str, cells: int) -> dict[str, str]:
    """The curve of a metric in a few cells, for each of the runs that has one."""
    with Reader(path) as reader:
        curves = reader.curves([run.id for run in runs], metric, CurveRequest(cells))
    return {run.key: text.sparkline(_log_if_steep(curves[run.id].mean.tolist())) for run in runs if run.id in curves}


def _log_if_steep(values: list[float]) -> list[float]:
    """As they are, or their logarithms where one step down would hide all that follows."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0 or max(finite) < _LOG_SCALE_RATIO * min(finite):
        return values
    return [math.log(value) if math.isfinite(value) else value for value in values]


_LOG_SCALE_RATIO = 5.0


def _query_progress(reader: Reader) -> DatabaseProgress:
    """Counts, and while something trains the time left, from what the runs driven by those processes took so far."""
    counts = reader.status_counts()
    total = sum(counts.values())
    ended = sum(count for status, count in counts.items() if status in ENDED_STATUSES)
    share, seconds_left = ended / total if total else 1.0, None
    if counts.get("running"):
        running = reader.runs("status=running", summaries=["epoch"])
        under_way = sum(_fraction_done(run) for run in running)
        share = (ended + under_way) / total
        began = min((run.started for run in running if run.started is not None), default=None)
        drivers = {(run.host, run.pid) for run in running}
        recent = reader.runs(sort="finished", descending=True, limit=200, summaries=False)
        session = [
            run for run in recent if (run.host, run.pid) in drivers and run.status in ENDED_STATUSES and run.started
        ]
        began = min([run.started or began or 0.0 for run in session] + [began or 0.0])
        done = len(session) + under_way
        left = sum(count for status, count in counts.items() if status in ("queued", "running", "lost")) - under_way
        if began and done > 0:
            seconds_left = (time.time() - began) * left / done
    return DatabaseProgress(reader.experiments(), counts, share, seconds_left)


def _fraction_done(run: RunRecord) -> float:
    epochs = run.config.get("epochs")
    epoch = run.summary.get("epoch")
    if epoch is None or not isinstance(epochs, int | float) or not epochs > 0:
        return 0.0
    return min(1.0, max(0.0, epoch.last / epochs))


def read_vocabulary(path: Path) -> Vocabulary:
    """The words that a filter may be made of."""
    if not path.exists():
        return Vocabulary()
    with Reader(path) as reader:
        keys = reader.config_keys()
        values: dict[str, dict[str, None]] = {key: {} for key in keys}
        for settings in {row[1] for row in reader.values([], by=keys)}:
            for key, value in zip(keys, json.loads(settings), strict=False):
                if value is not None and len(values[key]) < _MAX_VALUES_PER_KEY:
                    values[key][_format_value(value)] = None
        words = {key: sorted(found, key=_value_sort_key) for key, found in values.items()}
        words["experiment"] = reader.experiments()
        words["tag"] = sorted(
            {tag for run in reader.runs(_HAS_TAG, summaries=False, limit=_MAX_VALUES_PER_KEY) for tag in run.tags}
        )
        return Vocabulary(words, charted_metrics(reader.metrics()))


_MAX_VALUES_PER_KEY = 200
"""Values of one key that are offered."""


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _value_sort_key(word: str) -> tuple[bool, float, str]:
    """Numbers by size, then words."""
    try:
        return False, float(word), word
    except ValueError:
        return True, 0.0, word


def read_run(path: Path, key: str) -> RunDetail:
    """One run with all that belongs to it. Raises RunNotFound where it is gone."""
    with Reader(path) as reader:
        record = reader.find(key)
        goals = reader.metrics()
        output = split_lines(reader.logs(record.key))
        artifacts, sources = reader.artifacts(record.key), reader.sources(record.key)
    try:
        portrait: Portrait | str = read_portrait(portrait_path(path, record.key)) or NO_PORTRAIT_MESSAGE
    except LabbenchError as error:
        portrait = str(error)
    return RunDetail(record, goals, output, artifacts, sources, portrait)


def watch_changes(path: Path, stopped: Event) -> Iterator[LabbenchError | None]:
    """Yield None at once and whenever the database has changed, an error when it begins to be unreadable.

    Goes on until `stopped`. Looks once a second: that costs a tenth of a millisecond, and is all that goes on while
    nothing happens.
    """
    seen: int | str | None = None
    while not stopped.is_set():
        if path.exists():
            try:
                with Reader(path) as reader:
                    while not stopped.is_set():
                        if (version := reader.data_version()) != seen:
                            seen = version
                            yield None
                        stopped.wait(_POLL_SECONDS)
            except LabbenchError as error:
                if seen != str(error):  # said once, not every second
                    seen = str(error)
                    yield error
        elif seen is None:
            seen = "missing"
            yield None
        stopped.wait(_POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run with what belongs to it."""

    record: RunRecord
    goals: Mapping[str, Goal] = field(default_factory=dict)
    output: Sequence[str] = ()
    """Lines."""
    artifacts: Sequence[Artifact] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    portrait: Portrait | str = ""
    """What there is to look at; words where there is nothing, or nothing that can be read."""
