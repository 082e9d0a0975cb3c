"""Rows of the comparison: settings, metrics with differences from the first run, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labbench import text
from labbench.charts.glyphs import SERIES_GLYPHS, STATUS_GLYPHS
from labbench.metrics import Goal, ranking_metrics
from labbench.records import RunRecord
from labbench.text import format_setting_cell
from labbench.tui.charts.labels import run_labels
from labbench.tui.widgets.text_grid import GridCell, GridRow

COMPUTE_SECONDS_METRIC = "time/compute_s"
"""Metric of a run's share of its stack's training time, which makes stacked runs comparable."""


def column_titles(runs: Sequence[RunRecord], marks: Mapping[str, int]) -> list[GridCell]:
    """Return a title per run: the glyph of its curve and the parts of its name that differ."""
    names = run_labels(runs)
    return [GridCell(), *(GridCell(f"{SERIES_GLYPHS[marks.get(run.key, 0)]} {names[run.key]}") for run in runs)]


def comparison_rows(runs: Sequence[RunRecord], goals: Mapping[str, Goal], *, everything: bool) -> list[GridRow]:
    """Return the rows of the comparison, with the first run as the reference.

    `everything` includes settings that are the same for all runs.
    """
    rows = [GridRow(GridCell("status", "secondary"), [_status(run) for run in runs])]
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    settings = [_setting_row(runs, key) for key in keys]
    rows += [row for row in settings if everything or any(cell.text != "=" for cell in row.cells[1:])]
    if len(runs) > 1 and len(rows) == 1:
        rows.append(GridRow(GridCell("no setting differs", "secondary"), [GridCell() for _ in runs]))
    rows.append(GridRow(GridCell("best", "primary", bold=True)))
    rows += [
        _metric_row(runs, name, goals[name])
        for name in ranking_metrics(goals)
        if any(name in run.summary for run in runs)
    ]
    rows.append(GridRow(GridCell("time", "primary", bold=True)))
    rows.append(_number_row("compute time, seconds", runs, [_last(run, COMPUTE_SECONDS_METRIC) for run in runs], "min"))
    rows.append(
        GridRow(GridCell("wall time", "secondary"), [GridCell(text.format_duration(run.seconds)) for run in runs])
    )
    return rows


def _status(run: RunRecord) -> GridCell:
    style = STATUS_GLYPHS[run.status]
    return GridCell(f"{style.glyph} {run.status}", style.colour)


def _setting_row(runs: Sequence[RunRecord], key: str) -> GridRow:
    values = [format_setting_cell(run.config[key]) if key in run.config else "not set" for run in runs]
    cells = [GridCell(values[0])]
    cells += [GridCell("=", "secondary") if value == values[0] else GridCell(value, bold=True) for value in values[1:]]
    return GridRow(GridCell(text.clean(key), "secondary"), cells)


def _metric_row(runs: Sequence[RunRecord], metric: str, goal: Goal) -> GridRow:
    return _number_row(text.clean(metric), runs, [run.best(metric, goal) for run in runs], goal)


def _number_row(label: str, runs: Sequence[RunRecord], values: Sequence[float | None], goal: Goal) -> GridRow:
    """Return a row of values with their differences from the first run and a star at the best."""
    best = (min if goal == "min" else max)([value for value in values if value is not None], default=None)
    numbers = text.align_decimal_points([text.format_number(value) for value in values])
    cells = []
    for index, (value, number) in enumerate(zip(values, numbers, strict=True)):
        delta = text.format_delta(value, values[0], goal) if index else ""
        star = "★" if value is not None and value == best and len(runs) > 1 else " "
        colour = {"▲": "success", "▼": "error"}.get(delta[:1], "foreground")
        cells.append(GridCell(f"{star}{number} {delta}".rstrip() if value is not None else "", colour))
    return GridRow(GridCell(label, "secondary"), cells)


def _last(run: RunRecord, metric: str) -> float | None:
    return run.summary[metric].last if metric in run.summary else None
