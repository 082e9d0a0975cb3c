"""What differs between runs, as rows: settings, metrics with their distance from the first run, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labbench import text
from labbench.charts.glyphs import GLYPHS, STATUS_LOOKS
from labbench.metrics import telling
from labbench.records import Goal, RunRecord
from labbench.text import show_setting
from labbench.tui.charts.labels import labels
from labbench.tui.widgets.columns import best_of, delta
from labbench.tui.widgets.text_grid import Cell, Row

SECONDS = "time/compute_s"
"""A run's own share of its stack's seconds: what runs can be compared by."""


def titles(runs: Sequence[RunRecord], marks: Mapping[str, int]) -> list[Cell]:
    """The runs by what tells them apart, each with the glyph of its curve."""
    names = labels(runs)
    return [Cell(), *(Cell(f"{GLYPHS[marks.get(run.key, 0)]} {names[run.key]}") for run in runs)]


def comparison(runs: Sequence[RunRecord], goals: Mapping[str, Goal], *, everything: bool) -> list[Row]:
    """Rows over the runs, of which the first is the reference; `everything` keeps settings that are all the same."""
    rows = [Row(Cell("status", "secondary"), [_status(run) for run in runs])]
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    settings = [_setting_row(runs, key) for key in keys]
    rows += [row for row in settings if everything or any(cell.text != "=" for cell in row.cells[1:])]
    if len(runs) > 1 and len(rows) == 1:
        rows.append(Row(Cell("no setting differs", "secondary"), [Cell() for _ in runs]))
    rows.append(Row(Cell("best", "primary", bold=True)))
    rows += [
        _metric_row(runs, name, goals[name]) for name in telling(goals) if any(name in run.summary for run in runs)
    ]
    rows.append(Row(Cell("time", "primary", bold=True)))
    rows.append(_number_row("seconds", runs, [_last(run, SECONDS) for run in runs], "min"))
    rows.append(Row(Cell("took", "secondary"), [Cell(text.duration(run.seconds)) for run in runs]))
    return rows


def _status(run: RunRecord) -> Cell:
    look = STATUS_LOOKS[run.status]
    return Cell(f"{look.glyph} {run.status}", look.colour)


def _setting_row(runs: Sequence[RunRecord], key: str) -> Row:
    said = [show_setting(run.config[key]) if key in run.config else "not set" for run in runs]
    cells = [Cell(said[0])]
    cells += [Cell("=", "secondary") if word == said[0] else Cell(word, bold=True) for word in said[1:]]
    return Row(Cell(text.clean(key), "secondary"), cells)


def _metric_row(runs: Sequence[RunRecord], metric: str, goal: Goal) -> Row:
    return _number_row(text.clean(metric), runs, [best_of(run, metric, goal) for run in runs], goal)


def _number_row(label: str, runs: Sequence[RunRecord], values: Sequence[float | None], goal: Goal) -> Row:
    """Values, and how far each is from the first; the best of all has a star."""
    known = [value for value in values if value is not None]
    best = (min if goal == "min" else max)(known, default=None)
    shown = text.align_points([text.number(value) for value in values])
    cells = []
    for index, (value, number) in enumerate(zip(values, shown, strict=True)):
        away = delta(value, values[0], goal) if index else ""
        star = "★" if value is not None and value == best and len(runs) > 1 else " "
        colour = {"▲": "success", "▼": "error"}.get(away[:1], "foreground")
        cells.append(Cell(f"{star}{number} {away}".rstrip() if value is not None else "", colour))
    return Row(Cell(label, "secondary"), cells)


def _last(run: RunRecord, metric: str) -> float | None:
    return run.summary[metric].last if metric in run.summary else None
