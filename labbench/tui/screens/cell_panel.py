"""Panel beside the heat map: the runs of the highlighted cell with their best values, their curves, and the effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget

from labbench import text
from labbench.charts.glyphs import SERIES_GLYPHS, SLOT_COUNT, STATUS_GLYPHS
from labbench.metrics import Goal
from labbench.records import RunRecord
from labbench.tui.charts.labels import run_labels
from labbench.tui.charts.page import ChartPage
from labbench.tui.charts.settings import ONE_CHART
from labbench.tui.groups import SampleStats, metric_stats
from labbench.tui.screens.heatmap import UNCOMPARED, worseness
from labbench.tui.theme import series_colours
from labbench.tui.widgets.partial_drawing import StaticText, set_height, set_titles
from labbench.tui.widgets.text_grid import TextGrid

MAX_CELL_RUNS = 100
"""Maximum number of runs of a cell that are read and drawn."""
_MAX_LISTED_RUNS = 8
_MAX_LABEL_WIDTH = 32
_BAR_CELLS = 20
_MIN_WIDTH, _MIN_HEIGHT = 48, 16
"""Room that the panel needs beside or below the heat map, in cells."""
_MIN_LEFT_SHARE = 0.45
_MAX_FAILURE_ROWS, _CALM_ROWS = 9, 4
"""Maximum rows of the failures above the panel, and rows without failures, with their border and titles."""


class CellPanel(Vertical):
    """Runs, curves and effects; it has no keys of its own."""

    DEFAULT_CSS = """
    CellPanel { border: round $border; border-title-color: $foreground; padding: 0 1; }
    CellPanel StaticText, CellPanel #cell-words { height: auto; }
    CellPanel ChartPage { width: 1fr; height: 1fr; min-height: 6; }
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._runs_text, self._effects_text = StaticText(), StaticText()
        self._page = ChartPage(path, box_on=lambda chart: None)
        self._page.settings.layout = ONE_CHART

    def compose(self) -> Any:
        with Vertical(id="cell-words"):
            yield self._runs_text
            yield self._effects_text
        yield self._page

    def place(self, heat: TextGrid, failures: TextGrid, *, has_cell: bool) -> None:
        """Place the panel beside the heat map, or below the map and the failures, or hide it without room."""
        grid, left = self.parent, heat.parent
        assert isinstance(grid, Widget)
        assert isinstance(left, Widget)
        width, height = grid.size
        heat_rows = len(heat.rows) + 3
        failure_rows = min(len(failures.rows) + 3, _MAX_FAILURE_ROWS) if failures.rows else _CALM_ROWS
        is_beside = has_cell and heat.content_width + _MIN_WIDTH <= width
        is_below = has_cell and not is_beside and heat_rows + failure_rows + _MIN_HEIGHT <= height
        self.display = is_beside or is_below
        grid.set_class(is_beside, "-beside")
        grid.set_class(is_below, "-below")
        left.styles.width = max(heat.content_width, int(_MIN_LEFT_SHARE * width)) if is_beside else "100%"
        set_height(heat, heat_rows if heat.rows else None)
        set_height(failures, failure_rows if is_below or not failures.rows else None)

    def show(self, title: str, runs: Sequence[RunRecord], metric: str, goals: Mapping[str, Goal]) -> None:
        """Show the runs of a cell, best first."""
        goal = goals[metric]
        values = {run.key: run.best(metric, goal) for run in runs}
        ranked = sorted(runs, key=lambda run: worseness(values[run.key], goal))
        slots = {run.key: 1 + place % SLOT_COUNT for place, run in enumerate(ranked)}
        queued = sorted(runs, key=lambda run: run.id)
        sources = {run.key: run.continued_from for run in queued if run.continued_from is not None}
        stats = metric_stats({run.key: values[run.key] for run in runs if run.status not in UNCOMPARED}, sources)
        numbers = text.NumberFormat().including(values.values())
        count = f"  {text.format_count(len(runs), 'run')}"
        set_titles(self, title=Content.assemble((title, "bold"), (count, "$secondary")))
        listed = self._list_runs(ranked, values, slots, numbers)
        mean = [] if stats is None else [_describe_mean(metric, stats, numbers)]
        self._runs_text.update(Content("\n").join([*mean, listed]))
        self._page.show(ranked, marks=slots, highlighted=None, metrics=goals, metric=metric)

    def _list_runs(
        self,
        runs: Sequence[RunRecord],
        values: Mapping[str, float | None],
        slots: Mapping[str, int],
        numbers: text.NumberFormat,
    ) -> Content:
        colours, labels = series_colours(self.app), run_labels(runs)
        listed = runs if len(runs) <= _MAX_LISTED_RUNS else runs[: _MAX_LISTED_RUNS - 1]
        cells = text.align_decimal_points([numbers.format(values[run.key]) for run in listed])
        width = min(max((text.cell_width(labels[run.key]) for run in listed), default=0), _MAX_LABEL_WIDTH)
        lines = []
        for run, value in zip(listed, cells, strict=True):
            slot, status = slots[run.key], STATUS_GLYPHS[run.status]
            glyph = f"{SERIES_GLYPHS[slot]} " if run.summary else "  "
            lines.append(
                Content.assemble(
                    (glyph, colours[slot]),
                    (text.fit_to_width(labels[run.key], width), "$foreground"),
                    (f"  {value}", "$foreground"),
                    ("" if run.status == "finished" else f"  {status.glyph} {run.status}", f"${status.colour}"),
                )
            )
        if len(listed) < len(runs):
            lines.append(Content.styled(f"  and {len(runs) - len(listed)} more", "$secondary"))
        return Content("\n").join(lines)

    def show_effects(self, shares: Sequence[tuple[str, float]]) -> None:
        """Show the fraction of the variance that each parameter explains by itself."""
        lines = [
            Content(""),
            Content.styled("share of the variance by itself", "$secondary"),
        ]
        width = max((text.cell_width(text.clean(name)) for name, _ in shares), default=0)
        for name, share in shares:
            lines.append(
                Content.assemble(
                    (f"{text.fit_to_width(text.clean(name), width)} ", "$foreground"),
                    (f"{share:>5.0%} ", "$foreground"),
                    (text.progress_bar(share, _BAR_CELLS).rstrip(), "$primary"),
                )
            )
        self._effects_text.update(Content("\n").join(lines) if shares else Content(""))


def _describe_mean(metric: str, stats: SampleStats, numbers: text.NumberFormat) -> Content:
    """Return the mean over a cell with its 95 % interval, as text."""
    interval = "" if stats.half_width is None else f" ± {numbers.format(stats.half_width)} (95 % of the mean)"
    return Content.styled(f"best {text.clean(metric)} {numbers.format(stats.mean)}{interval}", "$secondary")


def describe_effects(shares: Sequence[tuple[str, float]]) -> Content:
    """Return the fraction of the variance that each parameter explains by itself, in one line; empty without shares."""
    if not shares:
        return Content("")
    parts = [("share of the variance by itself  ", "$secondary")]
    for name, share in shares:
        parts += [(f" {text.clean(name)} ", "$foreground"), (text.progress_bar(share, 10).rstrip(), "$primary")]
        parts.append((f" {share:.0%} ", "$foreground"))
    return Content.assemble(*parts, ("  the rest is interactions and seeds", "$secondary"))
