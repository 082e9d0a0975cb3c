"""Heat map of a metric over two config keys, averaged over the others, with small multiples over a third key."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from labbench import text
from labbench.charts.glyphs import STATUS_GLYPHS
from labbench.configs import canonical_json
from labbench.metrics import Goal
from labbench.records import Status
from labbench.tui.groups import metric_stats
from labbench.tui.widgets.text_grid import GridCell, GridRow

UNCOMPARED: tuple[Status, ...] = ("diverged", "pruned")
"""Statuses of runs that are counted in a cell, beside its mean."""

CellKey: TypeAlias = tuple[str, str, str]
"""(row, column, multiple) values as canonical JSON: true differs from 1, 1.0 does not; "" for a missing key."""


class MetricHeatMap:
    """Runs by their values of one to three config keys: rows, columns, multiples."""

    def __init__(
        self,
        keys: tuple[str, ...],
        metric: str,
        goal: Goal,
        runs: Sequence[tuple[Any, ...]],
        sources: Mapping[str, str],
    ) -> None:
        """Sort runs, rows of (key, settings as JSON, status, value of the metric), into cells.

        Diverged runs, and pruned ones, which trained for fewer epochs than others, do not count in a cell's mean, and a
        run and its continuation count once. `sources` are `Reader.continuations()`.
        """
        self.keys, self.metric, self._goal = keys, metric, goal
        self._cells: dict[CellKey, list[tuple[Any, ...]]] = {}
        for run in runs:
            values = [canonical_json(value) for value in json.loads(run[1])[: len(keys)]]
            row, column, multiple = [*values, "", ""][:3]
            self._cells.setdefault((row, column, multiple), []).append(run)
        means = {
            cell: metric_stats({run[0]: run[3] for run in runs if run[2] not in UNCOMPARED}, sources)
            for cell, runs in self._cells.items()
        }
        self._means = {cell: mean.mean for cell, mean in means.items() if mean is not None}
        self._format = text.NumberFormat().including(self._means.values())
        self._best = (min if goal == "min" else max)(self._means.values(), default=math.nan)
        self._scale = _rank_scale(list(self._means.values()))
        self._rows, self._columns, self._multiples = (
            _sort_values({cell[axis] for cell in self._cells}) for axis in range(3)
        )

    def titles_and_rows(self) -> tuple[list[GridCell], list[GridRow]]:
        """Return column titles and rows for a `TextGrid`."""
        names = [text.clean(key) for key in self.keys]
        titles = [GridCell(title) for title in (names[0], *self._column_titles())]
        rows = []
        for multiple in self._multiples:
            if multiple:
                rows.append(GridRow(GridCell(f"{names[2]} {_format_setting(multiple)}", "primary", bold=True)))
            for row in self._rows:
                if not any((row, column, multiple) in self._cells for column in self._columns):
                    continue
                cells = [self._cell((row, column, multiple)) for column in self._columns]
                rows.append(GridRow(GridCell(_format_setting(row)), cells, key=json.dumps([row, multiple])))
        return titles, rows

    def _column_titles(self) -> list[str]:
        name = f"{text.clean(self.keys[1])} " if len(self.keys) > 1 else ""
        return [f"{name}{_format_setting(column)}" or "mean" for column in self._columns]

    def exported_rows(self) -> list[list[Any]]:
        """Return the means with exact values, titles first; a cell without a mean is empty."""
        multiple_name = self.keys[2:]
        rows: list[list[Any]] = [[*multiple_name, self.keys[0], *self._column_titles()]]
        for multiple in self._multiples:
            for row in self._rows:
                if any((row, column, multiple) in self._cells for column in self._columns):
                    labels = [_format_setting(value) for value in ([multiple, row] if multiple_name else [row])]
                    rows.append([*labels, *(self._means.get((row, column, multiple)) for column in self._columns)])
        return rows

    def _cell(self, cell: CellKey) -> GridCell:
        """Return the cell's mean, a star if best, and the numbers of diverged and of pruned runs."""
        runs = self._cells.get(cell, [])
        counts = [(STATUS_GLYPHS[status], sum(run[2] == status for run in runs)) for status in UNCOMPARED]
        mean = self._means.get(cell)
        if mean is None:
            style, count = next((pair for pair in counts if pair[1]), (None, 0))
            if style is None:
                return GridCell("○" if runs else "", "warning")
            return GridCell(f"{style.glyph} {count}/{len(runs)}", style.colour)
        share = self._scale(mean)
        if self._goal == "min":
            share = 1.0 - share
        is_best = mean == self._best and len(self._means) > 1
        suffix = ("★" if is_best else "") + "".join(f" {style.glyph}{count}" for style, count in counts if count)
        return GridCell(f"{self._format.format(mean)}{suffix}", bold=is_best, heat=_contrast(share))

    def describe(self, row: GridRow, column: int) -> str:
        """Return the settings of a cell as text, such as `adam · lr 0.01`."""
        value, multiple = json.loads(row.key)
        values = [value, self._columns[column], multiple][: len(self.keys)]
        named = [f"{text.clean(key)} {_format_setting(value)}" for key, value in zip(self.keys, values, strict=True)]
        return " · ".join(named)

    def runs_at(self, row: GridRow, column: int) -> list[str]:
        """Return the keys of the runs in one cell, best first."""
        value, multiple = json.loads(row.key)
        runs = self._cells.get((value, self._columns[column], multiple), [])
        return [run[0] for run in sorted(runs, key=lambda run: worseness(run[3], self._goal))]


def worseness(value: float | None, goal: Goal) -> float:
    """Return a sort key for values of a metric: smaller is better, infinite for none and for NaN."""
    if value is None or math.isnan(value):
        return math.inf
    return -value if goal == "max" else value


def _contrast(share: float) -> float:
    """Return the strength of the background, most of whose range is used for the best quarter of the cells."""
    return 0.35 * share / 0.75 if share < 0.75 else 0.35 + 0.65 * (share - 0.75) / 0.25


def _rank_scale(values: Sequence[float]) -> Callable[[float], float]:
    """Return a function from values to the fraction of lower values, 0 (lowest) to 1 (highest)."""
    ascending = sorted(values)
    if not ascending or ascending[0] == ascending[-1]:
        return lambda value: 0.5
    return lambda value: bisect_left(ascending, value) / bisect_left(ascending, ascending[-1])


def _format_setting(value: str) -> str:
    if not value:
        return ""
    setting = json.loads(value)
    return "–" if setting is None else text.format_setting(setting)


def _sort_values(values: set[str]) -> list[str]:
    """Sort missing values first, then numbers by size, then words."""

    def rank(value: str) -> tuple[int, float, str]:
        setting = json.loads(value) if value else None
        if isinstance(setting, int | float):
            return 1, float(setting), ""
        return (0, 0.0, "") if setting is None else (2, 0.0, value)

    return sorted(values, key=rank)
