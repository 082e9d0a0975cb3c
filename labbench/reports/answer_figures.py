"""Figures of an answer: values at their own best setting, and the best of n random configurations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from labbench.analysis import Answer, explain
from labbench.analysis.tuning.budgets import BudgetComparison, BudgetCurve
from labbench.analysis.tuning.tuned_values import MAX_COMPARED_NUMBERS
from labbench.charts.series import Floats, value_range
from labbench.errors import InputError, did_you_mean
from labbench.reports.budget_sentences import curve_label
from labbench.reports.figures import FigureCurve, FigureStyle, draw_figure_curves, draw_intervals
from labbench.reports.formatting import format_setting_briefly, parameter_levels
from labbench.reports.metric_curves import FigureNotes, MetricSelection, note_newest
from labbench.reports.selected_runs import SelectionOptions, read_selection
from labbench.reports.sentences.scope_sentences import test_data_sentence
from labbench.text import clean

_MARGIN = 0.25
"""Margin around the curves of a figure, relative to their range, which shows bands that are near."""


@dataclass(frozen=True, slots=True)
class TunedFigure:
    """Options of a figure of tuned values."""

    key: str
    """Config key whose values are compared."""
    tune_on: str | None = None
    """Metric that chooses the settings; None: the metric of the figure."""
    log: bool = False
    """Logarithmic axis, also used for losses that are compared by their logarithms."""


def save_tuned_values(path: Path, selection: MetricSelection, figure: TunedFigure, style: FigureStyle) -> FigureNotes:
    """Draw the result of each value of a key at its own best setting, with its 95 % interval.

    Raises:
        InputError: The values of the key cannot be compared so, the settings cannot be chosen by `figure.tune_on`, or
            matplotlib is not installed.
        StoreError: The database cannot be read.
    """
    key, answer = figure.key, _explain(selection, figure.tune_on)
    comparisons = {comparison.name: comparison for comparison in answer.tuned}
    if key not in comparisons:
        comparable = _list_comparable(comparisons) + did_you_mean(key, comparisons)
        raise InputError(f"--tuned {key}: {_find_obstacle(answer, key)}{comparable}")
    levels = parameter_levels(answer)
    rows = [
        (f"{format_setting_briefly(key, v.value, levels)} (of {v.settings})", v.interval)
        for v in comparisons[key].values
    ]
    tuned = "tuned" if answer.scope is None or answer.scope.tuning is None else f"tuned by {answer.scope.tuning.metric}"
    labels = (f"{selection.metric}, {tuned}, on new seeds", key)
    draw_intervals(path, rows, style, labels=labels, log=figure.log or answer.scale == "log")
    return FigureNotes(note_newest(answer.scope), test_data_sentence(answer))


def _find_obstacle(answer: Answer, key: str) -> str:
    """Return the reason why the values of a key cannot be compared at their own best settings."""
    parameters = {parameter.name: parameter for parameter in answer.parameters}
    if answer.best is None:
        return f"no run has a value of {clean(answer.metric)}"
    leader = next((name for name, parameter in parameters.items() if key in parameter.followers), None)
    if leader is not None:
        return f"it varies only together with `{leader}`: give that key"
    if key not in parameters:
        return "no key of this name varies in the runs"
    if len(parameters) == 1:
        return "no other key varies, so there is nothing to tune; --group draws the curves of its values"
    effects = parameters[key].marginal.effects
    if parameters[key].numeric and (len(effects) > MAX_COMPARED_NUMBERS or any(effect.span for effect in effects)):
        filter_hint = f"select some by a filter, such as {key}=VALUE,VALUE"
        return f"it has more than {MAX_COMPARED_NUMBERS} numbers as values; {filter_hint}"
    if answer.counts.most_seeds < 2:
        return "each configuration has one seed, and tuning is judged on left-out seeds: add [repeat] seeds = 3"
    return "fewer than two of its values have settings without diverged runs and with 2 common seeds"


def _list_comparable(keys: Iterable[str]) -> str:
    names = ", ".join(f"`{clean(key)}`" for key in keys)
    return f"; keys that can be compared: {names}" if names else ""


def save_budgets(
    path: Path, selection: MetricSelection, key: str, style: FigureStyle, *, log: bool = False, mean: bool = False
) -> FigureNotes:
    """Draw the best of n random configurations, by `key` or for "all" configurations.

    The median has a band, the `mean` has none. The axis of values is logarithmic with `log`, and for losses that are
    compared by their logarithms. It shows the curves: bands may end outside.

    Raises:
        InputError: The configurations were not drawn at random, or matplotlib is not installed.
        StoreError: The database cannot be read.
    """
    answer = _explain(selection)
    comparisons = {comparison.name or "all": comparison for comparison in answer.budgets}
    if key not in comparisons:
        raise InputError(
            f"--best-of {key}: needs at least 5 configurations per value that were drawn at random ([random], or "
            f'[search] with method = "random") and not stopped early{did_you_mean(key, comparisons)}'
        )
    curves = [_figure_curve(comparisons[key], curve, answer, mean=mean) for curve in comparisons[key].curves]
    labels = ("number of random configurations", f"best {selection.metric}, {'mean' if mean else 'median'}")
    is_log = log or answer.scale == "log"
    if is_log:
        curves = _end_bands_at_the_frame(curves)
    if style.y_limits is None:
        style = replace(style, y_limits=_limits(np.concatenate([curve.y for curve in curves]), is_log=is_log))
    draw_figure_curves(path, curves, style, labels=labels, log="xy" if is_log else "x")
    return FigureNotes(note_newest(answer.scope))


def _limits(values: Floats, *, is_log: bool) -> tuple[float, float] | None:
    """Return the range of an axis of values (N,), wider by `_MARGIN` at both ends; None for less than two values."""
    drawn = np.log(values[values > 0]) if is_log else values[np.isfinite(values)]
    extent = value_range([drawn])
    if extent is None or extent[0] == extent[1]:
        return None
    margin = _MARGIN * (extent[1] - extent[0])
    low, high = extent[0] - margin, extent[1] + margin
    return (math.exp(low), math.exp(high)) if is_log else (low, high)


def _explain(selection: MetricSelection, tune_on: str | None = None) -> Answer:
    options = SelectionOptions(tune_on=tune_on)
    runs = read_selection(selection.reader, selection.filter, selection.metric, options)
    goal = selection.goal()
    if goal == "none":
        raise InputError(f"neither high nor low values of `{selection.metric}` are better: declare its goal")
    return explain(runs, selection.metric, goal)


def _figure_curve(comparison: BudgetComparison, curve: BudgetCurve, answer: Answer, *, mean: bool) -> FigureCurve:
    """Return the means, or the medians with a band that ends where the results do not bound it."""

    def column(name: str) -> Floats:
        values = [getattr(point, name) for point in curve.points]
        return np.array([np.nan if value is None else value for value in values])

    label, budgets = curve_label(comparison, curve, answer), np.array([float(point.n) for point in curve.points])
    if mean:
        return FigureCurve(label, budgets, column("mean"))
    return FigureCurve(label, budgets, column("median"), column("low"), column("high"))


def _end_bands_at_the_frame(curves: Sequence[FigureCurve]) -> list[FigureCurve]:
    """Return curves for a logarithmic axis, on which a limit of 0 is as low as the lowest positive number."""
    numbers = np.concatenate(
        [each for curve in curves for each in (curve.y, curve.low, curve.high) if each is not None]
    )
    lowest = numbers[numbers > 0].min(initial=np.inf)
    return [
        replace(curve, low=None if curve.low is None else np.where(curve.low <= 0, lowest, curve.low))
        for curve in curves
    ]
