"""Rows of the comparison: settings, metrics with differences from the first run, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labbench import text
from labbench.charts.glyphs import SERIES_GLYPHS, STATUS_GLYPHS
from labbench.metrics import Goal, ranking_metrics
from labbench.records import RunRecord
from labbench.tui.charts.labels import run_labels
from labbench.tui.columns.run_columns import exported_setting
from labbench.tui.seed_noise import SeedNoise
from labbench.tui.widgets.text_grid import GridCell, GridRow

COMPUTE_SECONDS_METRIC = "time/compute_s"
"""Metric of a run's share of its stack's training time, which makes stacked runs comparable."""


def column_titles(runs: Sequence[RunRecord], marks: Mapping[str, int]) -> list[GridCell]:
    """Return a title per run: the glyph of its curve and the parts of its name that differ."""
    names = run_labels(runs)
    return [GridCell(), *(GridCell(f"{SERIES_GLYPHS[marks.get(run.key, 0)]} {names[run.key]}") for run in runs)]


def comparison_rows(
    runs: Sequence[RunRecord], goals: Mapping[str, Goal], noise: SeedNoise, *, everything: bool
) -> list[GridRow]:
    """Return the rows of the comparison, with the first run as the reference.

    Args:
        runs: The runs.
        goals: Goals of the metrics.
        noise: Spread over seeds; only larger differences are coloured.
        everything: True to include settings that are the same for all runs.
    """
    rows = [GridRow(GridCell("status", "secondary"), [_status(run) for run in runs])]
    rows += [_setting_row(runs, key) for key in _compared_keys(runs, everything=everything)]
    if len(runs) > 1 and len(rows) == 1:
        rows.append(GridRow(GridCell("no setting differs", "secondary"), [GridCell() for _ in runs]))
    rows.append(GridRow(GridCell("best", "primary", bold=True)))
    rows += [_metric_row(runs, name, goals[name], noise) for name in _compared_metrics(runs, goals)]
    rows.append(GridRow(GridCell("time", "primary", bold=True)))
    rows.append(_duration_row("compute time", [_last(run, COMPUTE_SECONDS_METRIC) for run in runs]))
    rows.append(_duration_row("wall time", [run.seconds for run in runs]))
    return rows


def exported_comparison(runs: Sequence[RunRecord], goals: Mapping[str, Goal], *, everything: bool) -> list[list[Any]]:
    """Return the comparison with exact values, titles first: a column per run, times in seconds."""
    keys, metrics = _compared_keys(runs, everything=everything), _compared_metrics(runs, goals)
    return [
        ["", *(run.name for run in runs)],
        ["key", *(run.key for run in runs)],
        ["status", *(run.status for run in runs)],
        *([key, *(exported_setting(run, key) for run in runs)] for key in keys),
        *([f"best {name}", *(run.best(name, goals[name]) for run in runs)] for name in metrics),
        ["compute seconds", *(_last(run, COMPUTE_SECONDS_METRIC) for run in runs)],
        ["wall seconds", *(run.seconds for run in runs)],
    ]


def _compared_keys(runs: Sequence[RunRecord], *, everything: bool) -> list[str]:
    """Return the config keys of the runs whose settings differ, or all."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    return [key for key in keys if everything or len({_format_setting(run, key) for run in runs}) > 1]


def _compared_metrics(runs: Sequence[RunRecord], goals: Mapping[str, Goal]) -> list[str]:
    return [name for name in ranking_metrics(goals) if any(name in run.summary for run in runs)]


def _format_setting(run: RunRecord, key: str) -> str:
    return text.format_setting(run.config[key]) if key in run.config else "not set"


def _duration_row(label: str, seconds: Sequence[float | None]) -> GridRow:
    return GridRow(GridCell(label, "secondary"), [GridCell(text.format_duration(value)) for value in seconds])


def _status(run: RunRecord) -> GridCell:
    style = STATUS_GLYPHS[run.status]
    return GridCell(f"{style.glyph} {run.status}", style.colour)


def _setting_row(runs: Sequence[RunRecord], key: str) -> GridRow:
    values = [_format_setting(run, key) for run in runs]
    cells = [GridCell(values[0])]
    cells += [GridCell("=", "secondary") if value == values[0] else GridCell(value, bold=True) for value in values[1:]]
    return GridRow(GridCell(text.clean(key), "secondary"), cells)


def _metric_row(runs: Sequence[RunRecord], metric: str, goal: Goal, noise: SeedNoise) -> GridRow:
    """Return a row of best values with their differences from the first run and a star at the best."""
    values = [run.best(metric, goal) for run in runs]
    numbers = text.NumberFormat().including(values)
    best = (min if goal == "min" else max)([value for value in values if value is not None], default=None)
    cells = []
    for run, value, number in zip(
        runs, values, text.align_decimal_points([numbers.format(value) for value in values]), strict=True
    ):
        if value is None:
            cells.append(GridCell())
            continue
        delta = text.format_delta(value, values[0], goal, numbers) if run is not runs[0] else ""
        is_clear = values[0] is not None and noise.is_exceeded(metric, runs[0].key, run.key, value - values[0])
        star = "★" if value == best and len(runs) > 1 else " "
        colour = _DELTA_COLOURS.get(delta[:1], "foreground") if is_clear else "foreground"
        cells.append(GridCell(f"{star}{number} {delta}".rstrip(), colour))
    return GridRow(GridCell(text.clean(metric), "secondary"), cells)


_DELTA_COLOURS = {"▲": "success", "▼": "error"}


def _last(run: RunRecord, metric: str) -> float | None:
    return run.summary[metric].last if metric in run.summary else None
