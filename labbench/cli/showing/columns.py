"""Columns of tables of runs: settings, metrics with their best values, and comparisons with the first run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from labbench.cli.text_tables import TextColumn
from labbench.configs import compare_configs, differing_keys
from labbench.metrics import Goal, counts_by_last, default_goal, quality_metrics, ranking_metrics
from labbench.records import RunRecord
from labbench.store.queries.order_sql import split_heading
from labbench.text import (
    NumberFormat,
    align_decimal_points,
    cell_width,
    clean,
    format_number,
    format_setting,
    format_signed_change,
    is_better,
)

SETTING_RANK, STEP_RANK, METRIC_RANK = 3, 2, 1
"""Ranks of columns: configuration keys, steps of best values, and metrics behind the first one."""

MIN_NAME_CELLS = 20
"""Cells of the names of runs that a table keeps in a narrow terminal."""

SeriesValues: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""Values of functions of metrics that are computed from the points, by function and key of the run."""

_STEP = "at step"
"""Name of the column with the step of the best value."""


def _format_time(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


SHOWN_WORDS = ("status", "key", "name")
"""Words of a run that every table shows."""

FACT_WORDS: dict[str, Callable[[RunRecord], str]] = {
    "experiment": lambda run: run.experiment,
    "tag": lambda run: ", ".join(run.tags),
    "note": lambda run: run.note or "",
    "created": lambda run: _format_time(run.created),
    "started": lambda run: _format_time(run.started),
    "finished": lambda run: _format_time(run.finished),
    "seconds": lambda run: format_number(run.seconds),
    "reason": lambda run: run.reason or run.error or "",
}
"""Text of a run under other words, for `labbench ls --columns`."""

COMPUTE_SECONDS_METRIC = "time/compute_s"
"""Compute time of a run in seconds: the run's share of the time of its stack."""

MAX_LEADING_METRICS = 2
"""Default number of metrics in a table of runs."""

MAX_EXPERIMENTS = 4
"""Number of experiments with at least one metric each in a table of runs."""


def leading_metrics(
    records: Sequence[RunRecord], goals: Mapping[str, Goal], sort_metric: str | None = None
) -> list[str]:
    """Return the metrics that a table of runs shows by default.

    The first is the metric that sorts the table; of each of the first experiments at least one is shown.
    """
    logged = {experiment: set[str]() for experiment in dict.fromkeys(record.experiment for record in records)}
    for record in records:
        logged[record.experiment].update(record.summary)
    metrics = quality_metrics(name for name in goals if any(name in names for names in logged.values()))
    firsts = [next((name for name in metrics if name in names), None) for names in logged.values()]
    chosen = dict.fromkeys([*filter(None, [sort_metric, *firsts[:MAX_EXPERIMENTS]])])
    return list(dict.fromkeys([*chosen, *metrics]))[: max(MAX_LEADING_METRICS, len(chosen))]


def run_columns(
    records: Sequence[RunRecord],
    goals: Mapping[str, Goal],
    *,
    names: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    series_values: SeriesValues | None = None,
) -> list[TextColumn]:
    """Return the columns of `labbench ls`.

    Columns: status, key and name of the runs, configuration keys, and three columns per metric.

    The columns are those in `names`; default: the keys that differ, and `metrics` or the leading metrics.
    `series_values` has the values of the functions among the names that `needs_series`.
    """
    columns = _identity_columns(records)
    if names is not None:
        for name in names:
            columns += _named_columns(records, name, goals, series_values or {})
        return columns
    metrics = leading_metrics(records, goals) if metrics is None else metrics
    for name in metrics:
        shown = metric_columns(records, name, goals.get(name) or default_goal(name))
        columns += _ranked(shown, 0 if name == metrics[0] else METRIC_RANK)
    keys, needed = differing_keys(record.config for record in records), _keys_of_equal_names(records)
    return columns + [_setting_column(records, key, rank=0 if key in needed else SETTING_RANK) for key in keys]


def _keys_of_equal_names(records: Sequence[RunRecord]) -> set[str]:
    """Return the keys in which runs of one name differ, such as `epochs` after a grid was trained for more of them."""
    members: dict[str, list[RunRecord]] = {}
    for record in records:
        members.setdefault(record.name, []).append(record)
    return {key for runs in members.values() if len(runs) > 1 for key in differing_keys(run.config for run in runs)}


def _identity_columns(records: Sequence[RunRecord]) -> list[TextColumn]:
    """Return the columns of every table: status, key and name, and source and code where they differ."""
    columns = [
        TextColumn("status", [record.shown_status for record in records]),
        TextColumn("key", [record.key for record in records]),
        TextColumn("name", [record.name for record in records], min_cells=MIN_NAME_CELLS),
    ]
    if len({record.source for record in records}) > 1:
        columns.append(TextColumn("source", [record.source or "" for record in records]))
    if any(record.older_code for record in records):
        columns.append(TextColumn("code", ["older" if record.older_code else "" for record in records]))
    return columns


def _named_columns(
    records: Sequence[RunRecord], name: str, goals: Mapping[str, Goal], series_values: SeriesValues
) -> list[TextColumn]:
    """Return the columns of a name: a word of the run, a configuration key, a metric, or a function of one.

    As in filters, a configuration key takes precedence over a metric of the same name.
    """
    if name in SHOWN_WORDS:
        return []
    if name in FACT_WORDS:
        return [TextColumn(name, [FACT_WORDS[name](record) for record in records])]
    if any(name in record.config for record in records):
        return [_setting_column(records, name)]
    metric, function = split_heading(name)
    if function is not None:
        values = [
            _series_value(record, metric, series_values.get(name, {}))
            if needs_series(name)
            else _summary_value(record, metric, function, goals.get(metric, "none"))
            for record in records
        ]
        return [TextColumn(name, align_decimal_points([format_number(value) for value in values]), right=True)]
    return metric_columns(records, name, goals[name]) if name in goals else [_setting_column(records, name)]


def _setting_column(records: Sequence[RunRecord], key: str, *, rank: int = 0) -> TextColumn:
    cells = [format_setting(record.config[key]) if key in record.config else "" for record in records]
    return TextColumn(key, cells, right=True, rank=rank)


def _summary_value(record: RunRecord, metric: str, function: str, goal: Goal) -> float | None:
    summary = record.summary.get(metric)
    if summary is None or (function == "best" and record.has_diverged(metric)):
        return None
    return {
        "last": summary.last, "best": summary.best(goal)[0], "min": summary.min, "max": summary.max, "n": summary.n,
    }[function]  # fmt: skip


def needs_series(name: str) -> bool:
    """Return True for a function of a metric that is computed from its points, not from its summary."""
    return split_heading(name)[1] in ("first", "smooth")


def _series_value(record: RunRecord, metric: str, values: Mapping[str, float | None]) -> float | None:
    """Return the value of a run by its key: NaN, which SQL has as NULL, if the run has logged the metric."""
    value = values.get(record.key)
    return math.nan if value is None and metric in record.summary else value


def assumed_goals_note(
    metrics: Iterable[str], goals: Mapping[str, Goal], declared: Collection[str], remedy: str
) -> str | None:
    """Return a note on goals of metrics that are assumed from their names; None if all are declared.

    `remedy` is what changes a goal, such as a command.
    """
    assumed = [name for name in metrics if name not in declared and goals.get(name, "none") != "none"]
    if not assumed:
        return None
    directions = ", ".join(f"{'lower' if goals[name] == 'min' else 'higher'} {name}" for name in assumed)
    verb = "is" if len(assumed) == 1 else "are"
    return f"{directions} {verb} taken as better, by the name; {remedy} changes it"


def _ranked(columns: Sequence[TextColumn], rank: int) -> list[TextColumn]:
    """Return the columns of a metric with the rank of its values; steps go first."""
    return [replace(column, rank=STEP_RANK if column.name == _STEP else rank) for column in columns]


def metric_columns(records: Sequence[RunRecord], metric: str, goal: Goal) -> list[TextColumn]:
    """Return columns with the last value and, unless the goal is `none`, the best value and its step."""
    summaries = [record.summary.get(metric) for record in records]
    bests = [record.best_and_step(metric, goal) for record in records]
    last = TextColumn(
        metric,
        align_decimal_points(["" if summary is None else format_number(summary.last) for summary in summaries]),
        True,
    )
    if goal == "none" or counts_by_last(metric):
        return [last]
    return [
        last,
        TextColumn("best", align_decimal_points([format_number(value) for value, _ in bests]), True),
        TextColumn(_STEP, ["" if step is None else str(step) for _, step in bests], True),
    ]


def summary_columns(record: RunRecord, goals: Mapping[str, Goal]) -> list[TextColumn]:
    """Return columns with the statistics of every metric of one run."""
    summary = record.summary
    bests = [record.best_and_step(name, goals.get(name) or default_goal(name)) for name in summary]
    return [
        TextColumn("metric", list(summary)),
        TextColumn("n", [str(stats.n) for stats in summary.values()], True),
        TextColumn("not finite", [str(stats.n_nonfinite or "") for stats in summary.values()], True),
        TextColumn("last", align_decimal_points([format_number(stats.last) for stats in summary.values()]), True),
        TextColumn("best", align_decimal_points([format_number(value) for value, _ in bests]), True),
        TextColumn("at step", ["" if step is None else str(step) for _, step in bests], True),
    ]


def comparison_columns(records: Sequence[RunRecord], goals: Mapping[str, Goal]) -> list[TextColumn]:
    """Return the columns of `labbench compare`, one per run.

    The rows are the status unless all runs have finished, the configuration keys that differ, the version of the code
    if it differs, the best value of each metric, the last one of gaps, and the time of computing if it was measured.

    `=` is a setting equal to the first run's. The cell of a metric ends with the change from the first run's value and
    the word better or worse. The numbers of a row have one format.
    """
    settings = _setting_rows(records)
    metrics = [name for name in ranking_metrics(goals) if any(name in record.summary for record in records)]
    labels = [f"{'last' if counts_by_last(name) else 'best'} {name}" for name in metrics]
    timed = [COMPUTE_SECONDS_METRIC] if any(COMPUTE_SECONDS_METRIC in record.summary for record in records) else []
    names = [*(label for label, _ in settings), *labels, *timed]
    columns = [TextColumn("", names, min_cells=MIN_NAME_CELLS, keeps_end=True)]
    measured = [_MeasuredRow([record.best(name, goals[name]) for record in records], goals[name]) for name in metrics]
    measured += [_MeasuredRow([_last_value(record, name) for record in records], "min") for name in timed]
    for index, record in enumerate(records):
        equal_or_text = ["=" if index and texts[index] == texts[0] else texts[index] for _, texts in settings]
        cells = [*equal_or_text, *(_format_change(row, index) for row in measured)]
        width = max(len(record.key), *(cell_width(clean(cell)) for cell in cells))
        columns.append(TextColumn(f"{record.key} {record.name}", cells, True, min_cells=width))
    return columns


def _setting_rows(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Return label and texts, one per run, of the status, of each configuration key that differs and of the code.

    The status is left out if all runs have finished, the code if it is the same.
    """
    keys = compare_configs(record.config for record in records).varying
    rows = [(key, [_format_config_value(record, key) for record in records]) for key in keys]
    statuses, versions = [record.shown_status for record in records], [_format_code(record) for record in records]
    if set(statuses) != {"finished"}:
        rows.insert(0, ("status", statuses))
    return [*rows, ("code", versions)] if len(set(versions)) > 1 else rows


def _format_code(record: RunRecord) -> str:
    return (record.code_version or "-")[:12] + (" (older)" if record.older_code else "")


def _format_config_value(record: RunRecord, key: str) -> str:
    return format_setting(record.config[key]) if key in record.config else "-"


def _last_value(record: RunRecord, metric: str) -> float | None:
    return record.summary[metric].last if metric in record.summary else None


@dataclass(frozen=True, slots=True)
class _MeasuredRow:
    """Values of a metric, one per run."""

    values: Sequence[float | None]
    goal: Goal


def _format_change(row: _MeasuredRow, index: int) -> str:
    """Return a value with its change from the first run's: `0.0394 (+0.0145 worse)`."""
    value, first = row.values[index], row.values[0]
    if value is None:
        return "-"
    numbers = NumberFormat().including(row.values)
    text = numbers.format(value)
    if first is None or value == first or math.isnan(value) or math.isnan(first):
        return text
    word = "better" if is_better(value, first, row.goal) else "worse"
    return f"{text} ({format_signed_change(value, first, numbers)} {word})"
