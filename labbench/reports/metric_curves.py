"""Curves of `labbench plot`, read from a database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from labbench.charts.groups import make_band
from labbench.charts.plotext_chart import NamedSeries
from labbench.charts.series import Floats, join_by_step
from labbench.charts.smoothing import ema
from labbench.configs import canonical_json, distinguishing_keys
from labbench.errors import InputError, did_you_mean
from labbench.filters.parser import And, Comparison, Filter, uses_key
from labbench.metrics import Goal, default_goal, suits_log_axis, unknown_metric
from labbench.records import RunRecord
from labbench.records.continuations import longest_runs
from labbench.store.reader import Reader
from labbench.store.series.curves import CurveRequest
from labbench.text import format_setting

if TYPE_CHECKING:
    from labbench.analysis.selection import Scope

_CHOICE_OF_EXPERIMENT = "the filter experiment=NAME selects one"
MAX_POINTS, MAX_BUCKETS = 200_000, 20_000
"""Number of points up to which all points of a curve are read, and number of buckets of a longer one.

A figure has a few thousand pixels in a row, a terminal a few hundred dots.
"""
_MAX_LISTED = 4
"""Maximum number of experiments that a note names."""


@dataclass(frozen=True, slots=True)
class PlotOptions:
    """Options of a plot of curves."""

    axis: str = "step"
    """step, time (seconds) or a metric."""
    smooth: float = 0.0
    """Weight of an exponential moving average, 0 <= smooth < 1."""
    log: bool | None = None
    """True for a logarithmic y axis; None: if the values suit it (`suits_log_axis`), in text only."""
    group: tuple[str, ...] = ()
    """Configuration keys: one mean curve per combination of their values; empty: one curve per run."""


@dataclass(frozen=True, slots=True)
class MetricSelection:
    """Metric of the runs that match a filter."""

    reader: Reader
    metric: str
    filter: Filter | None

    def goal(self) -> Goal:
        """Return the declared goal of the metric, else the one that its name suggests."""
        return self.reader.metrics().get(self.metric) or default_goal(self.metric)


def is_steep(records: Sequence[RunRecord], selection: MetricSelection) -> bool:
    """Return True if the values of the metric in these runs suit a logarithmic axis."""
    summaries = [record.summary[selection.metric] for record in records]
    low = min((summary.min for summary in summaries if summary.min is not None), default=0.0)
    high = max((summary.max for summary in summaries if summary.max is not None), default=0.0)
    return suits_log_axis(low, high, selection.goal())


def note_experiments(selection: MetricSelection, *, means: bool) -> str | None:
    """Return a note on the experiments that a plot draws together; None for one, or if the filter names some.

    means: True if runs of different experiments are averaged.
    """
    if uses_key(selection.filter, "experiment"):
        return None
    logged = Comparison(selection.metric, "n", ">", (0,), ("0",))
    names = selection.reader.experiments(logged if selection.filter is None else And((selection.filter, logged)))
    if len(names) < 2:
        return None
    subject = "the means pool runs" if means else "the curves are"
    return f"{subject} of {len(names)} experiments, {_list_names(names)}; {_CHOICE_OF_EXPERIMENT}"


def note_mixed_groups(selection: MetricSelection, keys: Sequence[str]) -> str | None:
    """Return a note that the runs of a group differ in other settings than their seed; None if they do not."""
    from labbench.analysis.selection import SEED, select_runs  # imports numpy and the analysis

    records = selection.reader.runs(selection.filter, summaries=[selection.metric])
    measured = [record for record in records if selection.metric in record.summary]
    groups: dict[str, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for run in select_runs(measured, selection.metric, pooled=True, all_code=True).runs:
        group = canonical_json([run.config.get(key) for key in keys])
        groups[group].add(canonical_json({key: value for key, value in run.config.items() if key != SEED}))
        counts[group] += 1
    largest = max(groups, key=lambda group: len(groups[group]), default=None)
    if largest is None or len(groups[largest]) < 2:
        return None
    return (
        f"a group mixes settings, up to {len(groups[largest])} configurations in {counts[largest]} runs: its mean and "
        "band are of such a mix, not of one configuration over seeds; a filter or more keys in --group separate them"
    )


@dataclass(frozen=True, slots=True)
class FigureNotes:
    """Remarks on a figure, for the terminal."""

    newest: str | None
    """Note that the figure is of the newest one of several experiments."""
    warning: str = ""
    """Warning that test data were used for choices; empty for none."""


def note_newest(scope: Scope | None) -> str | None:
    """Return a note on a figure that is of the newest one of several experiments; None for other figures."""
    if scope is None or not scope.other_experiments:
        return None
    newest = f"{scope.experiments[0]}, the newest of {1 + len(scope.other_experiments)} experiments"
    return f"the figure is of {newest}; {_CHOICE_OF_EXPERIMENT}"


def _list_names(names: Sequence[str]) -> str:
    """Return up to four names, and the number of the others."""
    if len(names) <= _MAX_LISTED:
        return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{', '.join(names[: _MAX_LISTED - 1])} and {len(names) - _MAX_LISTED + 1} others"


def read_metric_curves(selection: MetricSelection, options: PlotOptions) -> tuple[list[RunRecord], list[NamedSeries]]:
    """Return the runs that have a metric, and their curves.

    Raises:
        InputError: No run has the metric or the axis.
        StoreError: The database cannot be read.
    """
    reader, metric, axis = selection.reader, selection.metric, options.axis
    goals = reader.metrics()
    if metric not in goals:
        raise unknown_metric(metric, goals)
    if axis not in ("step", "time", *goals):
        hint = did_you_mean(axis, goals) or "; use step, time, a metric such as epoch, or a configuration key"
        raise InputError(f"--x {axis}: no such axis{hint}")
    records = [record for record in reader.runs(selection.filter, summaries=[metric]) if metric in record.summary]
    if not records:
        raise InputError(f"no matching run has the metric {metric}: change the filter")
    names = _distinct_names(records)
    curves = [read_curve(reader, record, metric, options) for record in records]
    return records, [replace(curve, name=name) for curve, name in zip(curves, names, strict=True)]


def _distinct_names(records: Sequence[RunRecord]) -> list[str]:
    """Return distinct names of runs: with the settings that differ, such as `adam lr=0.1`, else with their keys."""
    members: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        members[record.name].append(record)
    keys = {name: distinguishing_keys([run.config for run in runs]) for name, runs in members.items() if len(runs) > 1}
    names = [" ".join([record.name, *_spell_settings(record, keys.get(record.name, ()))]) for record in records]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} {record.key}" for name, record in zip(names, records, strict=True)]


def _spell_settings(record: RunRecord, keys: Sequence[str]) -> list[str]:
    return [f"{key}={format_setting(record.config[key])}" for key in keys if key in record.config]


def read_curve(reader: Reader, record: RunRecord, metric: str, options: PlotOptions) -> NamedSeries:
    """Return one run's metric over steps, seconds (`time`), or another metric joined by step.

    A series of more than `MAX_POINTS` points is read in buckets, unless it is smoothed or joined with another metric.

    Raises:
        StoreError: The database cannot be read.
    """
    axis, smooth = options.axis, options.smooth
    if record.summary[metric].n > MAX_POINTS and axis in ("step", "time") and not smooth:
        return _read_buckets(reader, record, metric, options)
    steps, values = reader.series(record.key, metric)
    x = steps.astype(np.float64)
    if axis == "time":
        x = reader.times(record.key, metric) / 1000.0
    elif axis != "step":
        x = join_by_step(steps, *reader.series(record.key, axis))
    return NamedSeries(record.name, x, ema(values, smooth) if smooth else values)


def _read_buckets(reader: Reader, record: RunRecord, metric: str, options: PlotOptions) -> NamedSeries:
    """Return a series as two points for each bucket: its extremes, which look as all points do; for groups its mean."""
    request = CurveRequest(MAX_BUCKETS, times=options.axis == "time")
    curve = reader.curves([record.id], metric, request)[record.id]
    first, last = curve.first_step / 1.0, curve.last_step / 1.0
    if curve.first_time is not None and curve.last_time is not None:
        first, last = curve.first_time / 1000.0, curve.last_time / 1000.0
    low, high = (curve.mean, curve.mean) if options.group else (curve.low, curve.high)
    return NamedSeries(record.name, np.column_stack([first, last]).ravel(), np.column_stack([low, high]).ravel())


def group_curves(
    records: Sequence[RunRecord], curves: Sequence[NamedSeries], keys: Sequence[str], sources: Mapping[str, str]
) -> dict[str, list[NamedSeries]]:
    """Return the curves of the runs of each combination of values of keys, by `key=value ... (n=runs)`.

    A run and its continuation, which begins with the same points, count once in a group; `sources` are
    `Reader.continuations()`.

    Raises:
        InputError: No run has all the keys.
    """
    groups: dict[str, dict[str, NamedSeries]] = defaultdict(dict)
    for record, curve in zip(records, curves, strict=True):
        if all(key in record.config for key in keys):
            label = " ".join(f"{key}={format_setting(record.config[key])}" for key in keys)
            groups[label][record.key] = curve
    if not groups:
        names = "this configuration key" if len(keys) == 1 else "all these configuration keys"
        raise InputError(f"--group {','.join(keys)}: no matching run has {names}")
    counted = {label: longest_runs(members, sources) for label, members in groups.items()}
    return {
        f"{label} (n={len(counted[label])})": [curve for run, curve in members.items() if run in counted[label]]
        for label, members in groups.items()
    }


def mean_curve(name: str, members: Sequence[NamedSeries]) -> NamedSeries:
    """Return the mean of curves at every x of any of them.

    Each curve counts within its own range of x.
    """
    x: Floats = np.unique(np.concatenate([curve.x for curve in members]))
    return NamedSeries(name, x, make_band([(curve.x, curve.y) for curve in members], x).mean)
