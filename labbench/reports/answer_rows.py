"""Rows of an answer for other programs: one value in a cell, in full precision."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from labbench.analysis.answer import Answer, Estimate
from labbench.analysis.intervals import Interval
from labbench.analysis.setup_costs import Efficiency

COLUMNS = (
    *("table", "parameter", "value", "value_low", "value_high", "parameter_2", "value_2", "budget"),
    *("estimate", "low", "high", "n", "runs", "diverged", "settings", "median", "mean", "sd", "seconds"),
    *("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high", "p", "probability"),
)
"""Columns of every row, before one column `config.KEY` for each key that varies; docs/reference/formats.md."""

Cells: TypeAlias = dict[str, Any]
"""Values of a row by column; a missing one is an empty cell."""


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """All tables of an answer as one table; the first column names them."""

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """Cells are numbers, texts, or "" for no value."""


def answer_rows(answer: Answer, efficiency: Efficiency | None) -> AnswerRows:
    """Return the numbers of an answer as rows; `efficiency` is the cost of reaching a target."""
    rows = [
        *_configuration_rows(answer),
        *_tuned_rows(answer),
        *_budget_rows(answer),
        *_effect_rows(answer),
        *_heat_map_rows(answer),
        *_rate_rows(answer),
        *_cost_rows(efficiency),
    ]
    settings = dict.fromkeys(column for row in rows for column in row if column.startswith("config."))
    header = (*COLUMNS, *settings)
    return AnswerRows(header, tuple(tuple(_cell(row.get(column)) for column in header) for row in rows))


def _cell(value: Any) -> Any:
    """Return a value as a number or text: a bool, list or dict as JSON, NaN as other exports write it."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, bool | list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False)
    return value


def _limits(interval: Interval | None, name: str = "estimate") -> Cells:
    """Return the cells of an estimate, or of the `difference` or `ratio` with this name."""
    if interval is None:
        return {}
    start = "" if name == "estimate" else f"{name}_"
    return {name: interval.mean, f"{start}low": interval.low, f"{start}high": interval.high}


def _settings(config: Mapping[str, Any]) -> Cells:
    return {f"config.{key}": value for key, value in config.items()}


def _configuration_rows(answer: Answer) -> Iterator[Cells]:
    """Yield a row for each of the best configurations; the second one has the difference, the first minus it."""
    for index, estimate in enumerate(answer.ranking):
        cells = {"table": "configurations", **_estimate_cells(estimate)}
        if index == 1 and answer.difference is not None:
            cells |= _limits(answer.difference.interval, "difference") | _limits(answer.difference.ratio, "ratio")
            cells["probability"] = answer.difference.probability
        yield cells


def _estimate_cells(estimate: Estimate) -> Cells:
    counts = {"n": estimate.n, "runs": estimate.runs, "diverged": estimate.diverged}
    statistics = {"median": estimate.median, "sd": estimate.spread, "seconds": estimate.seconds}
    return {**_limits(estimate.interval), **counts, **statistics, **_settings(estimate.differing)}


def _tuned_rows(answer: Answer) -> Iterator[Cells]:
    for comparison in answer.tuned:
        for value in comparison.values:
            cells = {"table": "tuned", "parameter": comparison.name, "value": value.value, "n": comparison.seeds}
            cells |= _limits(value.interval) | _limits(value.behind, "difference") | _limits(value.ratio, "ratio")
            yield {**cells, "settings": value.settings, **_settings(value.chosen)}


def _budget_rows(answer: Answer) -> Iterator[Cells]:
    for comparison in answer.budgets:
        for curve in comparison.curves:
            cells = {"table": "budgets", "parameter": comparison.name, "value": curve.value}
            cells |= {"n": curve.results, "diverged": curve.diverged}
            for point in curve.points:
                limits = {"estimate": point.median, "low": point.low, "high": point.high, "mean": point.mean}
                yield {**cells, "budget": point.n, **limits}


def _effect_rows(answer: Answer) -> Iterator[Cells]:
    """Yield the share of the variance of each parameter, and the mean at each of its values."""
    for parameter in answer.parameters:
        if parameter.importance is not None:
            yield {"table": "importance", "parameter": parameter.name, **_limits(parameter.importance)}
        for effect in parameter.marginal.effects:
            cells = {"table": "effects", "parameter": parameter.name, "value": effect.value}
            if effect.span is not None:
                cells |= {"value_low": effect.span[0], "value_high": effect.span[1]}
            counts = {"n": effect.n, "diverged": effect.diverged, "p": parameter.marginal.p_value}
            yield {**cells, **(_limits(effect.interval) if effect.n else {}), **counts}


def _heat_map_rows(answer: Answer) -> Iterator[Cells]:
    for heat_map in answer.heat_maps:
        names = {"parameter": heat_map.names[0], "parameter_2": heat_map.names[1]}
        for row, line in zip(heat_map.table.rows, heat_map.table.cells, strict=True):
            for column, cell in zip(heat_map.table.columns, line, strict=True):
                counts = {"n": cell.n, "runs": cell.runs, "diverged": cell.diverged}
                mean = _limits(cell.interval) if cell.n else {}
                yield {"table": "means", **names, "value": row, "value_2": column, **mean, **counts}


def _rate_rows(answer: Answer) -> Iterator[Cells]:
    for row in answer.rate_ranges:
        cells = {"table": "learning_rates", "parameter": row.name, "value": row.value, "parameter_2": row.rate}
        basin = row.basin
        yield cells if basin is None else {**cells, "estimate": basin.best, "low": basin.low, "high": basin.high}


def _cost_rows(efficiency: Efficiency | None) -> Iterator[Cells]:
    for costs in () if efficiency is None else efficiency.setups:
        target = {"table": "costs", "value": None if efficiency is None else efficiency.target}
        for axis, reach in costs.reached.items():
            counts = {"n": reach.reached, "runs": reach.runs}
            yield {**target, "parameter": axis, "estimate": reach.median, **counts, **_settings(costs.differing)}
