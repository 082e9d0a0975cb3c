"""Tables on stdout: truncated to the width of the terminal, complete on a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import click

from labbench.configs import compare_configs, differing_keys
from labbench.metrics import Goal, default_goal, quality_metrics, ranking_metrics
from labbench.records import MetricSummary, RunRecord
from labbench.text import (
    align_decimal_points,
    cell_width,
    clean,
    fit_to_width,
    format_delta,
    format_number,
    format_setting,
    no_color_requested,
)

STATUS_COLOURS = {
    "queued": "bright_black",
    "running": "cyan",
    "finished": "green",
    "diverged": "magenta",
    "failed": "red",
    "stopped": "yellow",
    "pruned": "blue",
    "lost": "red",
}

COLUMN_GAP = "   "

COMPUTE_SECONDS_METRIC = "time/compute_s"
"""Compute time of a run in seconds: the run's share of the time of its stack."""

MAX_LEADING_METRICS = 2
"""Default number of metrics in a table of runs."""

MAX_EXPERIMENTS = 4
"""Number of experiments of which a table of runs shows at least one metric each."""


@dataclass(frozen=True, slots=True)
class TextColumn:
    """Named column of plain text."""

    name: str
    cells: Sequence[str]
    right: bool = False
    is_setting: bool = False
    """A configuration key, left out first where the terminal is too narrow."""


def print_table(columns: Sequence[TextColumn], table_format: str = "text") -> None:
    """Print columns side by side, as text or in the markup of a document.

    On a terminal, settings and then lines are cut to its width and statuses are coloured.

    Does not use rich, which takes 5 s for the 10,000 rows that this function prints in 0.1 s.
    """
    if table_format != "text":
        rows = list(zip(*(column.cells for column in columns), strict=True))
        print_markup([column.name for column in columns], rows, [column.right for column in columns], table_format)
        return
    if sys.stdout.isatty():
        cells = shutil.get_terminal_size().columns
        paint = unchanged_line if no_color_requested(os.environ) else colour_status
        columns = fit_columns(columns, cells)
        lines = [paint(fit_to_width(line, cells).rstrip()) for line in table_lines(columns)]
    else:
        lines = table_lines(columns)
    click.echo("\n".join(lines))


def print_markup(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], table_format: str
) -> None:
    """Print a table as `markdown`, `latex` or `csv`; `right` tells which columns are aligned to the right."""
    from labbench.export.table_files import csv_writer, escape_formula
    from labbench.reports.markup import latex_table, markdown_table

    cleaned = [[clean(cell).strip() for cell in row] for row in (headings, *rows)]
    if table_format == "csv":
        csv_writer(sys.stdout).writerows(
            [cell if _is_number(cell) else escape_formula(cell) for cell in row] for row in cleaned
        )
        return
    make = markdown_table if table_format == "markdown" else latex_table
    click.echo(make(cleaned[0], cleaned[1:], right))


def _is_number(cell: str) -> bool:
    """Return True for a number, such as -0.5, which is no formula."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def fit_columns(columns: Sequence[TextColumn], cells: int) -> list[TextColumn]:
    """Drop settings, the last first, until the columns fit into `cells` terminal cells."""
    widths = [max(cell_width(clean(cell)) for cell in (column.name, *column.cells)) for column in columns]
    width = sum(widths) + len(COLUMN_GAP) * (len(columns) - 1)
    fitted = list(columns)
    for column, column_width in reversed(list(zip(columns, widths, strict=True))):
        if width <= cells:
            break
        if column.is_setting:
            fitted.remove(column)
            width -= column_width + len(COLUMN_GAP)
    return fitted


def table_lines(columns: Sequence[TextColumn]) -> list[str]:
    """Return the aligned lines of a table: header, rule and rows.

    Control characters are made visible.
    """
    aligned = []
    for column in columns:
        cells = [clean(cell) for cell in (column.name, *column.cells)]
        size = max(cell_width(cell) for cell in cells)
        fitted = [fit_to_width(cell, size, right=column.right) for cell in cells]
        aligned.append(fitted)
    lines = [COLUMN_GAP.join(row).rstrip() for row in zip(*aligned, strict=True)]
    rule = "─" if "utf" in sys.stdout.encoding.lower() else "-"
    return [lines[0], rule * max(cell_width(line) for line in lines), *lines[1:]]


def unchanged_line(line: str) -> str:
    return line


def colour_status(line: str) -> str:
    """Return the line with its first word, a status, in the colour of that status."""
    status = line.partition(" ")[0]
    colour = STATUS_COLOURS.get(status)
    return line if colour is None else click.style(status, fg=colour) + line[len(status) :]


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
) -> list[TextColumn]:
    """Return the columns of `labbench ls`.

    Columns: status, key and name of the runs, configuration keys, and three columns per metric.

    The keys and metrics are those in `names`; default: the keys that differ, and `metrics` or the leading metrics.
    """
    if names is not None:
        keys, metrics = [name for name in names if name not in goals], [name for name in names if name in goals]
    else:
        keys = differing_keys(record.config for record in records)
        metrics = leading_metrics(records, goals) if metrics is None else metrics
    columns = [
        TextColumn("status", [record.shown_status for record in records]),
        TextColumn("key", [record.key for record in records]),
        TextColumn("name", [record.name for record in records]),
    ]
    if any(record.older_code for record in records):
        columns.append(TextColumn("code", ["older" if record.older_code else "" for record in records]))
    for key in keys:
        cells = [format_setting(record.config[key]) if key in record.config else "" for record in records]
        columns.append(TextColumn(key, cells, right=True, is_setting=names is None))
    for metric in metrics:
        columns += metric_columns(records, metric, goals.get(metric) or default_goal(metric))
    return columns


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


def metric_columns(records: Sequence[RunRecord], metric: str, goal: Goal) -> list[TextColumn]:
    """Return columns with the last value and, unless the goal is `none`, the best value and its step."""
    summaries = [record.summary.get(metric) for record in records]
    bests = [(None, None) if summary is None else summary.best(goal) for summary in summaries]
    last = TextColumn(
        metric,
        align_decimal_points(["" if summary is None else format_number(summary.last) for summary in summaries]),
        True,
    )
    if goal == "none":
        return [last]
    return [
        last,
        TextColumn("best", align_decimal_points([format_number(value) for value, _ in bests]), True),
        TextColumn("at step", ["" if step is None else str(step) for _, step in bests], True),
    ]


def summary_columns(summary: Mapping[str, MetricSummary], goals: Mapping[str, Goal]) -> list[TextColumn]:
    """Return columns with the statistics of every metric of one run."""
    bests = [summary[name].best(goals.get(name) or default_goal(name)) for name in summary]
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

    The rows are the configuration keys that differ and the best value of each metric.

    `=` is a setting equal to the first run's. The cell of a metric ends with the difference to the first run's value,
    marked better (▲) or worse (▼).
    """
    keys = compare_configs(record.config for record in records).varying
    metrics = [name for name in ranking_metrics(goals) if any(name in record.summary for record in records)]
    rows = [*keys, *(f"best {name}" for name in metrics), COMPUTE_SECONDS_METRIC]
    columns = [TextColumn("", rows)]
    first = records[0]
    for record in records:
        settings = [
            "="
            if record is not first and _format_config_value(record, key) == _format_config_value(first, key)
            else _format_config_value(record, key)
            for key in keys
        ]
        bests = [
            _format_delta(record.best(name, goals[name]), first.best(name, goals[name]), goals[name])
            for name in metrics
        ]
        seconds = _format_delta(
            _last_value(record, COMPUTE_SECONDS_METRIC), _last_value(first, COMPUTE_SECONDS_METRIC), "min"
        )
        columns.append(TextColumn(f"{record.name} ({record.key})", [*settings, *bests, seconds], True))
    return columns


def _format_config_value(record: RunRecord, key: str) -> str:
    return format_setting(record.config[key]) if key in record.config else "-"


def _last_value(record: RunRecord, metric: str) -> float | None:
    return record.summary[metric].last if metric in record.summary else None


def _format_delta(value: float | None, first: float | None, goal: Goal) -> str:
    """Return a value with its difference to the first run's."""
    if value is None:
        return "-"
    delta = "" if value == first else format_delta(value, first, goal)
    return f"{format_number(value)} {delta}".rstrip()
