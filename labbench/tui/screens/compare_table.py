"""What differs between runs, as rows: settings, metrics with their distance from the first run, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labbench import text
from labbench.charts.glyphs import SERIES_GLYPHS, STATUS_GLYPHS
from labbench.metrics import quality_metrics
from labbench.records import Goal, RunRecord
from labbench.text import format_setting_cell
from labbench.tui.charts.labels import run_labels
from labbench.tui.widgets.columns import best_value, format_delta
from labbench.tui.widgets.text_grid import GridCell, GridRow

COMPUTE_SECONDS_METRIC = "time/compute_s"
"""A run's own share of its stack's seconds: what runs can be compared by."""


def column_titles(runs: Sequence[RunRecord], marks: Mapping[str, int]) -> list[GridCell]:
    """The runs by what tells them apart, each with the glyph of its curve."""
    names = run_labels(runs)
    return [GridCell(), *(GridCell(f"{SERIES_GLYPHS[marks.get(run.key, 0)]} {names[run.key]}") for run in runs)]


def comparison_rows(runs: Sequence[RunRecord], goals: Mapping[str, Goal], *, everything: bool) -> list[GridRow]:
    """Rows over the runs, of which the first is the reference; `everything` keeps settings that are all the same."""
    rows = [GridRow(GridCell("status", "secondary"), [_status(run) for run in runs])]
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    settings = [_setting_row(runs, key) for key in keys]
    rows += [row for row in settings if everything or any(cell.text != "=" for cell in row.cells[1:])]
    if len(runs) > 1 and len(rows) == 1:
        rows.append(GridRow(GridCell("no setting differs", "secondary"), [GridCell() for _ in runs]))
    rows.append(GridRow(GridCell("best", "primary", bold=True)))
    rows += [
        _metric_row(runs, name, goals[name])
        for name in quality_metrics(goals)
        if any(name in run.summary for run in runs)
    ]
    rows.append(GridRow(GridCell("time", "primary", bold=True)))
    rows.append(_number_row("seconds", runs, [_last(run, COMPUTE_SECONDS_METRIC) for run in runs], "min"))
    rows.append(GridRow(GridCell("took", "secondary"), [GridCell(text.format_duration(run.seconds)) for run in runs]))
    return rows


def _status(run: RunRecord) -> GridCell:
    look = STATUS_GLYPHS[run.status]
    return GridCell(f"{look.glyph} {run.status}", look.colour)


def _setting_row(runs: Sequence[RunRecord], key: str) -> GridRow:
    said = [format_setting_cell(run.config[key]) if key in run.config else "not set" for run in runs]
    cells = [GridCell(said[0])]
    cells += [GridCell("=", "secondary") if word == said[0] else GridCell(word, bold=True) for word in said[1:]]
    return GridRow(GridCell(text.clean(key), "secondary"), cells)


def _metric_row(runs: Sequence[RunRecord], metric: str, goal: Goal) -> GridRow:
    return _number_row(text.clean(metric), runs, [best_value(run, metric, goal) for run in runs], goal)


def _number_row(label: str, runs: Sequence[RunRecord], values: Sequence[float | None], goal: Goal) -> GridRow:
    """Values, and how far each is from the first; the best of all has a star."""
    known = [value for value in values if value is not None]
    best = (min if goal == "min" else max)(known, default=None)
    shown = text.align_decimal_points([text.format_number(value) for value in values])
    cells = []
    for index, (value, number) in enumerate(zip(values, shown, strict=True)):
        away = format_delta(value, values[0], goal) if index else ""
        star = "★" if value is not None and value == best and len(runs) > 1 else " "
        colour = {"▲": "success", "▼": "error"}.get(away[:1], "foreground")
        cells.append(GridCell(f"{star}{number} {away}".rstrip() if value is not None else "", colour))
    return GridRow(GridCell(label, "secondary"), cells)


def _last(run: RunRecord, metric: str) -> float | None:
    return run.summary[metric].last if metric in run.summary else None
