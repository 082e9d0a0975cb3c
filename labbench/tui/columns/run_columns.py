"""Columns of the runs table, in order: name, the metric on the chart, settings, other metrics, times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from labbench import text
from labbench.metrics import Goal, charted_metrics, default_goal
from labbench.records import RunRecord
from labbench.text import NumberFormat
from labbench.tui.columns.run_column import RunColumn
from labbench.tui.groups import RunGroup

_MAX_NAME_WIDTH = 48
_MAX_HEADING_WIDTH = 18
"""Maximum width that the name of a metric gives to a column."""
_MAX_BEST_COLUMNS = 8
"""Maximum number of metrics with a column by default."""
SPARK_CELLS = 10
"""Width of a sparkline, in cells."""


@dataclass(frozen=True, slots=True)
class ColumnContext:
    """Data that determines the columns of the table."""

    differing: Sequence[str] = ()
    other_keys: Sequence[str] = ()
    """Config keys with one value, shown on request."""
    metric: str | None = None
    metrics: Mapping[str, Goal] = field(default_factory=dict)
    group_keys: Sequence[str] = ()
    """Config keys that runs are grouped by."""
    has_tags: bool = False
    has_notes: bool = False
    has_sources: bool = False
    """True if runs are mirrored from other databases."""
    baseline: RunRecord | None = None
    sparklines: Mapping[str, str] = field(default_factory=dict)
    """Sparkline of the metric, by run key."""
    steps: Sequence[tuple[str, int]] = ()
    """(metric, step) of columns of values at a step."""
    values_at: Mapping[tuple[str, int, str], float] = field(default_factory=dict)
    """Values of those columns, by (metric, step, run key)."""


def exported_rows(
    columns: Sequence[RunColumn], rows: Sequence[str], groups: Mapping[str, RunGroup], runs: Sequence[RunRecord]
) -> list[list[Any]]:
    """Return rows of runs and groups, given as keys and ids, with exact values; titles first."""
    records = {run.key: run for run in runs}
    lines = [[column.full_title for column in columns]]
    for key in rows:
        if key in groups:
            lines.append([column.exported_group(groups[key]) for column in columns])
        elif key in records:
            lines.append([column.exported(records[key]) for column in columns])
    return lines


def exported_setting(run: RunRecord, key: str) -> Any:
    """Return a setting of a run for a file: a number or text; None if it is not set."""
    setting = run.config.get(key)
    return text.format_setting(setting) if isinstance(setting, list | dict | bool) else setting


def run_columns(context: ColumnContext) -> list[RunColumn]:
    """Return all columns: name, the metric on the chart, differing settings, best values of other metrics, times.

    Other metrics are in the order of `metric_rank`: validation and test metrics first.
    """
    metric, metrics = context.metric, context.metrics
    columns = [
        RunColumn(
            "name",
            "name",
            "name",
            lambda run: text.clean(run.name),
            RunGroup.label,
            numeric=False,
            max_width=_MAX_NAME_WIDTH,
        )
    ]
    if context.group_keys:
        columns.append(RunColumn("n", "n", None, lambda run: "", lambda group: str(len(group.keys))))
    columns += [_step_column(name, step, context.values_at) for name, step in context.steps if name in metrics]
    if metric is not None:
        columns += _metric_columns(metric, metrics.get(metric) or default_goal(metric), context)
    columns += [_setting_column(key) for key in context.differing]
    columns += [_setting_column(key, optional=True) for key in context.other_keys]
    other_metrics = [name for name in charted_metrics(metrics) if name != metric]
    for rank, name in enumerate(name for name in other_metrics if metrics[name] != "none"):
        columns.append(_best_column(name, metrics[name], optional=rank >= _MAX_BEST_COLUMNS))
    columns += [_last_column(name, metrics[name]) for name in metrics if name != metric]
    columns.append(RunColumn("took", "took", "seconds", lambda run: text.format_duration(run.seconds), value=_seconds))
    columns.append(RunColumn("age", "age", "started", _age_cell, descending_first=True))
    columns.append(_words_column("tags", "tag", lambda run: " ".join(run.tags), optional=not context.has_tags))
    columns.append(_words_column("note", None, lambda run: run.note, optional=not context.has_notes))
    columns.append(_source_column(context))
    columns.append(_words_column("experiment", "experiment", lambda run: run.experiment))
    columns.append(_words_column("status", "status", lambda run: run.shown_status))
    columns.append(_words_column("key", "key", lambda run: run.key))
    columns.append(_words_column("why it ended", None, lambda run: run.error or run.reason))
    columns.append(_words_column("device", None, lambda run: run.device))
    return columns


def _metric_columns(metric: str, goal: Goal, context: ColumnContext) -> list[RunColumn]:
    """Return the columns of the metric on the chart: last, best, spread or difference, step of the best, curve."""
    last = _last_column(metric, goal)
    last.id, last.optional, last.min_width = "metric:last", False, 0
    if goal == "none":
        return [last, _spark_column(metric, context.sparklines)]
    best = _best_column(metric, goal)
    best.id, best.min_width = "metric:best", 0
    columns = [last, best]
    if context.group_keys:
        half_width = _half_width(f"best({metric})")
        columns.append(
            RunColumn("metric:spread", "± 95 %", None, group_value=half_width, numbers=NumberFormat(), metric=metric)
        )
    if context.baseline is not None:
        columns.append(_delta_column(metric, goal, context.baseline))
    columns.append(RunColumn("metric:step", "best step", None, _best_step_cell(metric, goal), metric=metric))
    columns.append(_spark_column(metric, context.sparklines))
    return columns


def _step_column(metric: str, step: int, values_at: Mapping[tuple[str, int, str], float]) -> RunColumn:
    def value(run: RunRecord) -> float | None:
        return values_at.get((metric, step, run.key))

    return RunColumn(f"at:{metric}:{step}", f"at {step}", None, value=value, numbers=NumberFormat(), metric=metric)


def _spark_column(metric: str, sparks: Mapping[str, str]) -> RunColumn:
    def cell(run: RunRecord) -> str:
        return sparks.get(run.key, "")

    return RunColumn(
        "metric:spark", "curve", None, cell, metric=metric, numeric=False, is_quiet=True, longest=SPARK_CELLS
    )


def _best_column(metric: str, goal: Goal, *, optional: bool = False) -> RunColumn:
    column = _metric_column("best", metric, goal, lambda run: run.best(metric, goal))
    return replace(column, best_of=metric, optional=optional)


def _last_column(metric: str, goal: Goal) -> RunColumn:
    column = _metric_column(
        "last", metric, goal, lambda run: run.summary[metric].last if metric in run.summary else None
    )
    return replace(column, optional=True)


def _metric_column(heading: str, metric: str, goal: Goal, value: Callable[[RunRecord], float | None]) -> RunColumn:
    """Return the column of a value of a metric, which sorts by `heading(metric)`."""
    sort = f"{heading}({metric})"
    return RunColumn(
        f"{heading}:{metric}",
        heading,
        sort,
        value=value,
        group_value=_mean_value(sort),
        numbers=NumberFormat(),
        metric=metric,
        min_width=_heading_width(metric),
        descending_first=goal == "max",
        goal=goal,
    )


def _heading_width(metric: str) -> int:
    """Return the width of a column that alone is below its metric."""
    return min(text.cell_width(text.clean(metric)) + 2, _MAX_HEADING_WIDTH)


def _delta_column(metric: str, goal: Goal, baseline: RunRecord) -> RunColumn:
    reference = baseline.best(metric, goal)
    numbers = NumberFormat().including([reference and reference / 10])  # one digit more than the values

    def cell(run: RunRecord) -> str:
        if run.key == baseline.key:
            return "base"
        return text.format_delta(run.best(metric, goal), reference, goal, numbers)

    return RunColumn("metric:delta", "Δ best", None, cell, metric=metric, numeric=False)


def _mean_value(heading: str) -> Callable[[RunGroup], Any]:
    """Return a function for the mean of a group with all digits."""
    return lambda group: group.means[heading].mean if heading in group.means else None


def _half_width(heading: str) -> Callable[[RunGroup], Any]:
    """Return a function for half the width of the 95 % interval of a group's mean with all digits."""
    return lambda group: group.means[heading].half_width if heading in group.means else None


def _best_step_cell(metric: str, goal: Goal) -> Callable[[RunRecord], str]:
    def cell(run: RunRecord) -> str:
        _, step = run.best_and_step(metric, goal)
        return "" if step is None else str(step)

    return cell


def _setting_column(key: str, *, optional: bool = False) -> RunColumn:
    def cell(run: RunRecord) -> str:
        return text.format_setting(run.config[key]) if key in run.config else ""

    def group_cell(group: RunGroup) -> str:
        return text.format_setting(group.settings[key]) if group.settings.get(key) is not None else ""

    def value(run: RunRecord) -> Any:
        return exported_setting(run, key)

    return RunColumn(f"config:{key}", text.clean(key), key, cell, group_cell, value, words=True, optional=optional)


def _words_column(
    title: str, sort: str | None, words: Callable[[RunRecord], str | None], *, optional: bool = True
) -> RunColumn:
    return RunColumn(title, title, sort, lambda run: text.clean(words(run) or ""), numeric=False, optional=optional)


def _source_column(context: ColumnContext) -> RunColumn:
    """Return the column of the databases that runs are mirrored from; `source` sorts by a config key of that name."""
    is_key = "source" in (*context.differing, *context.other_keys)
    sort = "source" if context.has_sources and not is_key else None
    return _words_column("source", sort, lambda run: run.source, optional=not context.has_sources)


def _seconds(run: RunRecord) -> float | None:
    return run.seconds


def _age_cell(run: RunRecord) -> str:
    since = run.started if run.started is not None else run.created
    return text.format_age(time.time() - since) if since else ""
