"""Analysis of logarithms: losses that span more than a decade, and their results in the metric's unit.

The logarithms of the values are analysed as other values are. Their means become geometric means, their differences
ratios. The limits of intervals are transformed in the same way, which keeps the coverage of the intervals.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from labbench.analysis.answer import Answer, CloseAlternative, Estimate, HeatMap, ParameterAnswer
from labbench.analysis.comparison import Difference
from labbench.analysis.effects import Contrast, MarginalEffects
from labbench.analysis.intervals import Interval, exponential
from labbench.analysis.table import Table, freeze
from labbench.analysis.tuning.tuned_values import TunedComparison, TunedValue
from labbench.metrics import Goal

MIN_RATIO = 10.0
"""Ratio of the largest to the smallest loss above which logarithms are analysed."""


def spans_decade(table: Table, goal: Goal) -> bool:
    """Return True if the values are losses (lower is better, all positive) that span more than a decade."""
    values = table.value
    return goal == "min" and len(values) > 0 and bool(0.0 < MIN_RATIO * values.min() < values.max())


def take_logarithms(table: Table) -> Table:
    """Return the table with the logarithms of its values, which are positive."""
    setups = (replace(setup, values=tuple(np.log(setup.values).tolist())) for setup in table.setups)
    return replace(table, setups=tuple(setups))


def restore_values(answer: Answer) -> Answer:
    """Return the answer for the values, given the one for their logarithms."""
    best, runner_up, difference = answer.best, answer.runner_up, answer.difference
    if difference is not None and runner_up is not None:
        difference = _restore_difference(difference, exponential(runner_up.interval.mean))
    return replace(
        answer,
        scale="log",
        best=_restore_estimate(best),
        runner_up=_restore_estimate(runner_up),
        difference=difference,
        held_out=None if answer.held_out is None else answer.held_out.exponential(),
        cheaper=_restore_estimate(answer.cheaper),
        cheaper_difference=_restore_cheaper_difference(answer),
        unsafe=_restore_estimate(answer.unsafe),
        tuned=tuple(_restore_tuned(comparison) for comparison in answer.tuned),
        parameters=tuple(_restore_parameter(parameter, best) for parameter in answer.parameters),
        ranking=tuple(filter(None, map(_restore_estimate, answer.ranking))),
        heat_maps=tuple(map(_restore_heat_map, answer.heat_maps)),
    )


def _restore_estimate(estimate: Estimate | None) -> Estimate | None:
    if estimate is None:
        return None
    mean, spread = exponential(estimate.interval.mean), estimate.spread
    return replace(
        estimate,
        interval=estimate.interval.exponential(),
        median=exponential(estimate.median),
        iqm=None if estimate.iqm is None else exponential(estimate.iqm),
        spread=None if spread is None else _lognormal_deviation(mean, spread),
        spread_factor=None if spread is None else exponential(spread),
    )


def _lognormal_deviation(median: float, spread: float) -> float:
    """Return the standard deviation of a log-normal variable whose logarithm has the deviation `spread`."""
    try:
        return median * math.sqrt(math.expm1(spread**2) * math.exp(spread**2))
    except OverflowError:
        return math.inf


def _difference(logarithm: Interval, reference: float) -> Interval:
    """Return a ratio to the geometric mean `reference` as a difference from it, in the metric's unit."""
    ends = (None if end is None else _relative_change(end) for end in (logarithm.low, logarithm.high))
    low, high = (None if end is None else end * reference for end in ends)
    return Interval(_relative_change(logarithm.mean) * reference, low, high)


def _relative_change(logarithm: float) -> float:
    try:
        return math.expm1(logarithm)
    except OverflowError:
        return math.inf


def _restore_difference(difference: Difference, reference: float) -> Difference:
    logarithm = difference.interval
    return replace(difference, interval=_difference(logarithm, reference), ratio=logarithm.exponential())


def _restore_cheaper_difference(answer: Answer) -> Difference | None:
    if answer.cheaper is None or answer.cheaper_difference is None:
        return None
    return _restore_difference(answer.cheaper_difference, exponential(answer.cheaper.interval.mean))


def _restore_tuned(comparison: TunedComparison) -> TunedComparison:
    return replace(comparison, values=tuple(map(_restore_tuned_value, comparison.values)))


def _restore_tuned_value(value: TunedValue) -> TunedValue:
    interval, behind = value.interval.exponential(), value.behind
    if behind is None:
        return replace(value, interval=interval)
    return replace(value, interval=interval, behind=_difference(behind, interval.mean), ratio=behind.exponential())


def _restore_parameter(parameter: ParameterAnswer, best: Estimate | None) -> ParameterAnswer:
    alternative = parameter.close_alternative
    if alternative is not None and best is not None:
        alternative = _restore_alternative(alternative, exponential(best.interval.mean))
    return replace(parameter, marginal=_restore_effects(parameter.marginal), close_alternative=alternative)


def _restore_alternative(alternative: CloseAlternative, best: float) -> CloseAlternative:
    return replace(alternative, gap=_relative_change(alternative.gap) * best, ratio=exponential(alternative.gap))


def _restore_effects(marginal: MarginalEffects) -> MarginalEffects:
    effects = tuple(replace(effect, interval=effect.interval.exponential()) for effect in marginal.effects)
    contrast = marginal.contrast
    if contrast is not None:
        means = {freeze(effect.value): effect.interval.mean for effect in effects}
        contrast = _restore_contrast(contrast, means[freeze(contrast.against)])
    return replace(marginal, effects=effects, contrast=contrast)


def _restore_contrast(contrast: Contrast, reference: float) -> Contrast:
    logarithm = contrast.interval
    return replace(contrast, interval=_difference(logarithm, reference), ratio=logarithm.exponential())


def _restore_heat_map(heat_map: HeatMap) -> HeatMap:
    rows = heat_map.table.cells
    cells = tuple(tuple(replace(cell, interval=cell.interval.exponential()) for cell in row) for row in rows)
    return replace(heat_map, table=replace(heat_map.table, cells=cells))
