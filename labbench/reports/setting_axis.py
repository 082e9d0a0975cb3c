"""Axis of `labbench plot` over a configuration key: one point per run, its value by its setting, such as `lr`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from labbench.analysis.table import is_number
from labbench.charts.plotext_chart import NamedSeries
from labbench.errors import InputError
from labbench.metrics import unknown_metric
from labbench.records import RunRecord
from labbench.reports.metric_curves import MetricSelection, PlotOptions, group_curves
from labbench.store.reader import Reader

_LOG_RATIO = 20
"""Minimum ratio of the settings for a logarithmic axis, as of values in `metrics.suits_log_axis`."""


def is_setting(reader: Reader, axis: str) -> bool:
    """Return True if an axis is a configuration key, not the step, the time or a metric."""
    return axis not in ("step", "time") and axis not in reader.metrics() and axis in reader.config_keys()


def read_setting_groups(
    selection: MetricSelection, options: PlotOptions
) -> tuple[list[RunRecord], dict[str, list[NamedSeries]]]:
    """Return the runs that have a value, and one point of each by its setting, by group.

    The value of a run is its best one, and the last one if the metric has no better direction.

    Raises:
        InputError: No run has the metric and a number as setting.
        StoreError: The database cannot be read.
    """
    reader, metric, key = selection.reader, selection.metric, options.axis
    if metric not in (goals := reader.metrics()):
        raise unknown_metric(metric, goals)
    points: list[tuple[RunRecord, NamedSeries]] = []
    for record in reader.runs(selection.filter, summaries=[metric]):
        setting, value = record.config.get(key), _value(record, selection)
        if value is not None and setting is not None and is_number(setting):
            points.append((record, NamedSeries(record.name, np.array([float(setting)]), np.array([value]))))
    if not points:
        raise InputError(f"--x {key}: no matching run has {metric} and a number as {key}")
    records = [record for record, _ in points]
    groups = group_curves(records, [point for _, point in points], options.group, reader.continuations())
    return records, {name.strip() if options.group else f"all runs {name.strip()}": g for name, g in groups.items()}


def note_values(selection: MetricSelection, key: str) -> str:
    """Return a note on the value of each run and on the means over other settings."""
    value = "last" if selection.goal() == "none" else "best"
    return f"each run counts by its {value} {selection.metric}; means by {key} are over all other settings and seeds"


def has_log_settings(groups: Mapping[str, Sequence[NamedSeries]]) -> bool:
    """Return True if the settings are positive and span more than a decade."""
    settings = [float(point.x[0]) for points in groups.values() for point in points]
    return min(settings) > 0 and max(settings) > _LOG_RATIO * min(settings)


def mean_by_setting(name: str, points: Sequence[NamedSeries], *, log: bool) -> NamedSeries:
    """Return the mean at each setting of a group; the settings as decimal logarithms if `log`."""
    values: dict[float, list[float]] = {}
    for point in points:
        values.setdefault(float(point.x[0]), []).append(float(point.y[0]))
    settings = sorted(values)
    x = np.log10(settings) if log else np.array(settings)
    return replace(points[0], name=name, x=x, y=np.array([np.mean(values[setting]) for setting in settings]))


def _value(record: RunRecord, selection: MetricSelection) -> float | None:
    if selection.metric not in record.summary or record.has_diverged(selection.metric):
        return None
    goal = selection.goal()
    return record.summary[selection.metric].last if goal == "none" else record.best(selection.metric, goal)
