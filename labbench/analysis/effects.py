"""Effects of each parameter, averaged over the other parameters, and two-way tables.

Two values of a parameter are compared within the settings of the other parameters that have both, so that missing runs
(excluded, failed, diverged) do not bias an effect; a full grid gives plain averages. If settings rarely repeat, as in a
random search, an additive model of all parameters is fitted instead, and its residuals give the intervals.

Shapes: C configurations, L levels of a parameter, R rows of a model (configurations in which the parameter exists).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.distributions import f_tail, t_tail
from labbench.analysis.intervals import Interval, VarianceEstimate
from labbench.analysis.noise.levels import LevelNoise, learn_level_noise, learn_noise_of
from labbench.analysis.noise.runs import Noise
from labbench.analysis.noise.variance import EXPLODING_DECADES
from labbench.analysis.table import ROUNDING_TOLERANCE, Floats, Ints, Parameter, Table, weighted_sum
from labbench.metrics import Goal

Basis: TypeAlias = Literal["seeds", "settings", "none"]
"""Source of the noise in an interval.

`seeds`: runs that differ in their seed only. `settings`: variation of the effect between settings of the other
parameters, which is wider because interactions count as noise. `none`: no interval.
"""


F_TEST_WEIGHT = 0.8
"""Share of the error rate that the F test gets; the tests of pairs of levels get the rest."""
MAX_TESTED_CELLS = 400
"""Largest number of cells of an interaction that is tested."""
MAX_PAIR_TESTS = 300
"""Largest number of pairs of levels that are tested."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Mean of the metric at one value of a parameter, averaged over the other parameters."""

    value: Any
    """Value of the parameter, or the median of a bin."""
    interval: Interval
    """Mean and 95 % interval; NaN if no run with this value has a result."""
    n: int
    """Number of runs with a result."""
    diverged: int
    """Number of diverged runs."""
    span: tuple[float, float] | None = None
    """Smallest and largest value of the bin; None if values are not binned."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """Difference between the two values that are best on average: best minus second, in the metric's unit."""

    value: Any
    against: Any
    interval: Interval
    ratio: Interval | None = None
    """Best divided by second, if logarithms were analysed."""


@dataclass(frozen=True, slots=True)
class MarginalEffects:
    """Effects of all values of one parameter."""

    name: str
    effects: tuple[Effect, ...]
    contrast: Contrast | None
    """None if fewer than two values have a result."""
    p_value: float | None
    """p-value of equal means at all values (`_p_value`); None if the noise is unknown."""
    basis: Basis
    seed_ratio: float | None = None
    """Variance of the means relative to independent runs (`LevelNoise.ratio`); None if it is not estimated."""
    seed_df: float | None = None
    """Degrees of freedom of `seed_ratio`."""


@dataclass(frozen=True, slots=True)
class TwoWayCell:
    """Mean over the configurations in one cell of a two-way table."""

    interval: Interval
    """Mean and 95 % interval; NaN if no run has a result."""
    n: int
    """Number of runs with a result."""
    diverged: int
    """Number of diverged runs."""
    runs: int
    """Number of all runs."""


@dataclass(frozen=True, slots=True)
class TwoWayTable:
    """Means of a metric by two parameters, averaged over the others, as for a heat map."""

    rows: tuple[Any, ...]
    """Values of the first parameter."""
    columns: tuple[Any, ...]
    """Values of the second parameter."""
    cells: tuple[tuple[TwoWayCell, ...], ...]
    """Cells by row, then column."""


@dataclass(frozen=True, slots=True)
class LevelMeans:
    """Means of a parameter's levels as linear combinations of configurations: `weights @ table.means`."""

    levels: Ints
    """Indices of the levels with a result, shape (L,)."""
    weights: Floats
    """Weight of each configuration in the mean of each level, shape (L, C)."""
    residual: VarianceEstimate | None
    """Variance of a configuration's mean around the model; None if no degree of freedom remains."""
    matched: bool
    """True if compared within settings of the other parameters, False for the additive model or plain averages."""


def level_means(table: Table, parameter: Parameter) -> LevelMeans:
    """Estimate the mean of each level of a parameter by least squares.

    The model has one intercept per setting of the other parameters if settings repeat, else it is additive in all
    parameters; with too little data for either, the means are plain averages.
    """
    rows = np.flatnonzero(parameter.present()) if parameter.parent else np.arange(len(table.setups))
    levels, codes = np.unique(parameter.codes[rows], return_inverse=True)
    weights = np.zeros((len(levels), len(table.setups)))
    if len(levels) < 2:
        weights[:, rows] = 1.0 / max(1, len(rows))
        return LevelMeans(levels, weights, None, True)
    one_hot = np.eye(len(levels))[codes]
    settings = _setting_indices(table, parameter, rows)
    tried = np.bincount(settings, minlength=settings.max() + 1)
    repeated = np.bincount(settings, weights=_mark_first_pairs(settings, codes)) > 1
    # configurations in one bin differ, so bins do not define settings
    binned = any(p.spans for p in table.independent)
    matched = not binned and bool(tried[repeated].sum() >= 0.5 * len(rows))
    if matched:
        solved = _solve(one_hot, _GroupProjection(settings), table.means[rows], averaged_over=settings)
    else:
        others = _additive_design(table, parameter, rows)
        solved = _solve(one_hot, _ColumnProjection(others), table.means[rows]) if can_fit_additive(table) else None
    if solved is None:  # too little data to adjust for the other parameters: plain averages
        matched = False
        solved = _solve(one_hot, _GroupProjection(np.zeros(len(rows), dtype=np.int64)), table.means[rows])
        assert solved is not None, "plain averages always exist"
    weights[:, rows] = np.where(np.abs(solved[0]) > ROUNDING_TOLERANCE * np.abs(solved[0]).max(), solved[0], 0.0)
    return LevelMeans(levels, weights, solved[1], matched)


def can_fit_additive(table: Table) -> bool:
    """Return True if there are two configurations per coefficient of an additive model of all parameters."""
    return len(table.setups) >= 2 * (1 + sum(len(np.unique(p.codes)) - 1 for p in table.independent))


def _setting_indices(table: Table, parameter: Parameter, rows: Ints) -> Ints:
    """Return the index of the setting of all other parameters, shape (R,), without children of this parameter."""
    others = [p.codes[rows] for p in table.independent if p is not parameter and p.parent != parameter.name]
    if not others:
        return np.zeros(len(rows), dtype=np.int64)
    return np.unique(np.stack(others), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _mark_first_pairs(settings: Ints, codes: NDArray[np.int64]) -> Floats:
    """Return 1 at the first occurrence of each (setting, level) pair, else 0, shape (R,)."""
    first = np.unique(np.stack([settings, codes]), axis=1, return_index=True)[1]
    marks = np.zeros(len(settings))
    marks[first] = 1.0
    return marks


def _additive_design(table: Table, parameter: Parameter, rows: Ints) -> Floats:
    """Return the design matrix (R, columns): an intercept and indicators of the other parameters' levels."""
    others = [p for p in table.independent if p is not parameter]
    return np.column_stack([np.ones(len(rows)), *(indicator_columns(p, rows) for p in others)])


def indicator_columns(parameter: Parameter, rows: Ints) -> Floats:
    """Return indicator columns (R, L) of a parameter's levels at `rows`.

    For a conditional parameter the columns are centred over the rows in which it exists, and 0 elsewhere.
    """
    levels, codes = np.unique(parameter.codes[rows], return_inverse=True)
    columns = np.eye(len(levels))[codes]
    if parameter.parent is None:
        return columns
    present = parameter.present()[rows]
    columns = columns[:, [parameter.levels[level] is not None for level in levels]]
    return np.where(present[:, None], columns - columns[present].mean(axis=0), 0.0) if present.any() else columns


class _GroupProjection:
    """Projection that removes one intercept per group of rows."""

    def __init__(self, groups: Ints) -> None:
        self.groups, self.rank = groups, int(groups.max()) + 1

    def project_out(self, columns: Floats) -> Floats:
        sums = np.zeros((self.rank, columns.shape[1]))
        np.add.at(sums, self.groups, columns)
        return columns - (sums / np.bincount(self.groups)[:, None])[self.groups]


class _ColumnProjection:
    """Projection that removes the span of the given columns, (R, columns)."""

    def __init__(self, columns: Floats) -> None:
        # the eigenvectors of the small product; a singular value decomposition takes ten times as long
        sizes, axes = np.linalg.eigh(columns.T @ columns)
        nonzero = sizes > 1e-10 * sizes[-1]
        self.basis = columns @ (axes[:, nonzero] / np.sqrt(sizes[nonzero]))
        self.rank = self.basis.shape[1]

    def project_out(self, columns: Floats) -> Floats:
        return np.asarray(columns - self.basis @ (self.basis.T @ columns))


def _solve(
    one_hot: Floats, others: _GroupProjection | _ColumnProjection, y: Floats, *, averaged_over: Ints | None = None
) -> tuple[Floats, VarianceEstimate | None] | None:
    """Return weights (L, R) of the levels' means and the residual variance.

    Returns None if the means are not identifiable.
    The other parameters are projected out (Frisch & Waugh 1933; Lovell 1963), then restored at their average over
    settings (`averaged_over`, group index of each row) or over configurations. `one_hot` is (R, L), `y` (R,).
    """
    n, k = one_hot.shape
    cleared = others.project_out(one_hot)
    information = cleared.T @ cleared
    if np.linalg.matrix_rank(information, tol=1e-8 * n) < k - 1:
        return None
    slopes = np.linalg.pinv(information, rcond=1e-10, hermitian=True) @ cleared.T
    groups = np.arange(n) if averaged_over is None else averaged_over
    average = 1.0 / (np.bincount(groups)[groups] * (groups.max() + 1))
    weights = slopes + average - np.outer(np.ones(k), (average @ one_hot) @ slopes)
    residuals = others.project_out((y - one_hot @ (slopes @ y))[:, None])[:, 0]
    df = n - others.rank - (k - 1)
    return weights, VarianceEstimate(float(residuals @ residuals) / df, float(df)) if df > 0 else None


def marginal_effects(everything: Table, parameter: Parameter, noise: Noise | None, goal: Goal) -> MarginalEffects:
    """Return the effects of one parameter of `everything`; `noise` must be learnt from `everything.with_values()`."""
    table = everything.with_values()
    measured = table.parameter(parameter.name)
    assert measured is not None, "with_values() keeps the parameters"
    means = level_means(table, measured)
    centre = weighted_sum(means.weights, table.means)
    spread: LevelNoise | VarianceEstimate | None = means.residual
    basis: Basis = "settings" if means.residual else "none"
    if noise is not None and means.matched:
        spread, basis = learn_level_noise(noise, means.weights, measured.codes), "seeds"
    effects = [_missing_effect(everything, parameter, level) for level in range(len(parameter.levels))]
    for level, mean, weights in zip(means.levels, centre, means.weights, strict=True):
        n = int(table.counts[measured.codes == level].sum())
        effects[level] = _measured_effect(effects[level], n, _mean_interval(float(mean), weights, spread))
    existing = tuple(e for e in effects if not (parameter.parent and e.value is None))
    contrast = _contrast(parameter, means, centre, spread, goal)
    ratio, df = (spread.ratio, spread.df) if isinstance(spread, LevelNoise) and spread.df is not None else (None, None)
    return MarginalEffects(parameter.name, existing, contrast, _p_value(means, centre, spread), basis, ratio, df)


def _missing_effect(everything: Table, parameter: Parameter, level: int) -> Effect:
    diverged = sum(everything.setups[i].diverged for i in np.flatnonzero(parameter.codes == level))
    span = parameter.spans[level] if parameter.spans and parameter.levels[level] is not None else None
    return Effect(parameter.levels[level], Interval(math.nan), 0, diverged, span)


def _measured_effect(empty: Effect, n: int, interval: Interval) -> Effect:
    return Effect(empty.value, interval, n, empty.diverged, empty.span)


def _mean_interval(centre: float, weights: Floats, spread: LevelNoise | VarianceEstimate | None) -> Interval:
    """Return the interval of the mean `weights @ means`; a single configuration keeps its own interval."""
    chosen = np.flatnonzero(weights)
    if isinstance(spread, LevelNoise) and len(chosen) == 1:
        return spread.runs.variance_of_mean(int(chosen[0])).interval(centre)
    return _combination_interval(centre, weights, spread)


def _combination_interval(centre: float, weights: Floats, spread: LevelNoise | VarianceEstimate | None) -> Interval:
    """Return the interval of `weights @ means`, from the noise per configuration or one common variance."""
    variance = _combination_variance(weights, spread)
    return variance.interval(centre) if variance else Interval(centre)


def _combination_variance(weights: Floats, spread: LevelNoise | VarianceEstimate | None) -> VarianceEstimate | None:
    if isinstance(spread, LevelNoise):
        return spread.variance_of_combination(weights)
    return VarianceEstimate(spread.variance * float(weights @ weights), spread.df) if spread else None


def _contrast(
    parameter: Parameter, means: LevelMeans, centre: Floats, spread: LevelNoise | VarianceEstimate | None, goal: Goal
) -> Contrast | None:
    if len(centre) < 2:
        return None
    first, second = (int(i) for i in np.argsort(-centre if goal == "max" else centre, kind="stable")[:2])
    difference = float(weighted_sum(np.array([1.0, -1.0]), centre[[first, second]]))
    interval = _combination_interval(difference, means.weights[first] - means.weights[second], spread)
    value, against = (parameter.levels[means.levels[i]] for i in (first, second))
    return Contrast(value, against, interval)


def _p_value(means: LevelMeans, centre: Floats, spread: LevelNoise | VarianceEstimate | None) -> float | None:
    """Return the p-value of the hypothesis that all levels have the same mean; None if the noise is unknown.

    It combines the F test with t tests of all pairs of levels, each with the variance of its own two means. The smaller
    of both p-values is adjusted by Bonferroni's method with the weights `F_TEST_WEIGHT` and the rest. Levels with an
    exploding variance are left out of the F test, where they would hide every difference between the others.
    """
    if spread is None or len(centre) < 2:
        return None
    if len(centre) == 2:  # there is one pair, and its test is the F test
        variance = _combination_variance(means.weights[0] - means.weights[1], spread)
        return None if variance is None else variance.p_value(float(weighted_sum(np.array([1.0, -1.0]), centre)))
    estimates = [_combination_variance(weights, spread) for weights in means.weights]
    variances = np.array([0.0 if estimate is None else estimate.variance for estimate in estimates])
    calm = variances <= 10.0 ** (2.0 * EXPLODING_DECADES) * np.median(variances)
    calm_means = replace(means, levels=means.levels[calm], weights=means.weights[calm])
    omnibus = _f_test(calm_means, centre[calm], spread)
    pairs = _smallest_pair_p_value(means, centre, spread)
    return min(1.0, omnibus / F_TEST_WEIGHT, pairs / (1.0 - F_TEST_WEIGHT))


def _smallest_pair_p_value(means: LevelMeans, centre: Floats, spread: LevelNoise | VarianceEstimate) -> float:
    """Return the smallest p-value of the t tests of all pairs of levels, times the number of pairs (Bonferroni)."""
    pairs = list(combinations(range(len(centre)), 2))[:MAX_PAIR_TESTS]
    smallest = 1.0
    for first, second in pairs:
        variance = _combination_variance(means.weights[first] - means.weights[second], spread)
        difference = float(centre[first] - centre[second])
        if variance is not None and variance.variance > 0:
            distance = abs(difference) / math.sqrt(variance.variance)
            smallest = min(smallest, 2.0 * t_tail(distance, variance.smallest_df))
    return min(1.0, smallest * len(pairs))


def _f_test(means: LevelMeans, centre: Floats, spread: LevelNoise | VarianceEstimate) -> float:
    """Return the p-value of the F test that all levels have the same mean.

    The statistic is the linear model's sum of squares divided by its expected
    value if all means are equal. With unequal variances the sum of squares stays unweighted, because weights would
    favour levels whose variance is small by chance; the expected value and both degrees of freedom account for the
    variances (Box 1954; Brunner, Dette & Munk 1997).
    """
    steps = np.diff(np.eye(len(centre)), axis=0) @ means.weights
    per_setup = steps / spread.runs.counts if isinstance(spread, LevelNoise) else steps
    sizes, axes = np.linalg.eigh(per_setup @ steps.T)
    nonzero = sizes > 1e-10 * sizes[-1]
    # under equal variances these contrasts are independent and have the same variance
    contrasts = (axes[:, nonzero] / np.sqrt(sizes[nonzero])).T
    squares = float(((contrasts @ np.diff(centre)) ** 2).sum())
    if isinstance(spread, LevelNoise):
        expected = spread.variance_of_combination(contrasts @ steps)
        covariance = spread.runs.covariance(contrasts @ steps)
        total = float(np.trace(covariance))
        df = 1.0 / float(((covariance / total) ** 2).sum()) if total > 0 else 1.0
        df = max(1.0, spread.sphericity * df)
    else:
        rank = int(nonzero.sum())
        expected, df = VarianceEstimate(spread.variance * rank, spread.df), float(rank)
    if not expected.variance > 0:  # no noise: any difference above rounding error is significant
        return 0.0 if np.abs(np.diff(centre)).max() > 1e-9 * np.abs(centre).max() else 1.0
    return f_tail(squares / expected.variance, df, expected.total_df)


def interaction_p_value(table: Table, first: Parameter, second: Parameter, noise: Noise, rows: Ints) -> float | None:
    """Return the p-value of the hypothesis that the effect of one parameter is the same at all values of the other.

    By the F test of the two-way analysis of variance of the cells' means, whose error is the interaction of both
    parameters with the seed. None if there are more than `MAX_TESTED_CELLS`.

    Args:
        table: Configurations, all with a result.
        first: A parameter of the table.
        second: Another parameter of the table.
        noise: Noise of the table.
        rows: Indices of configurations that are a full factorial, shape (R,).
    """
    codes = [np.unique(parameter.codes[rows], return_inverse=True)[1] for parameter in (first, second)]
    shape = [int(each.max()) + 1 for each in codes]
    if shape[0] * shape[1] > MAX_TESTED_CELLS:
        return None
    cell = codes[0] * shape[1] + codes[1]
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    weights = np.zeros((len(counts), len(table.setups)))
    weights[cell, rows] = 1.0 / counts[cell]
    cells = np.full(len(table.setups), len(counts))
    cells[rows] = cell
    centre_rows, centre_columns = (np.eye(size) - 1.0 / size for size in shape)
    doubly_centred = np.kron(centre_rows, centre_columns) @ weights  # without the effect of either parameter alone
    n_independent = (shape[0] - 1) * (shape[1] - 1)
    spread = learn_noise_of(noise, doubly_centred, cells, n_independent)
    expected = spread.variance_of_combination(doubly_centred)
    squares = float((weighted_sum(doubly_centred, table.means) ** 2).sum())
    if not expected.variance > 0:
        return 0.0 if squares > 0 else 1.0
    return f_tail(squares / expected.variance, max(1.0, spread.sphericity * n_independent), expected.total_df)


def two_way_table(everything: Table, row: Parameter, column: Parameter, noise: Noise | None) -> TwoWayTable:
    """Return the two-way table of two parameters.

    Each cell is the plain mean over its configurations.
    """
    table = everything.with_values()
    with_result = np.flatnonzero(everything.counts > 0)
    cells = [
        [(row.codes == i) & (column.codes == j) for j in range(len(column.levels))] for i in range(len(row.levels))
    ]
    measured = [mask[with_result] for line in cells for mask in line if mask[with_result].any()]
    spread = None
    if noise is not None and measured:
        places = (row.codes * len(column.levels) + column.codes)[with_result]
        spread = learn_level_noise(noise, np.array([mask / mask.sum() for mask in measured]), places)
    rows = (tuple(_make_cell(everything, table, mask, mask[with_result], spread) for mask in line) for line in cells)
    return TwoWayTable(row.levels, column.levels, tuple(rows))


def _make_cell(
    everything: Table, table: Table, inside: NDArray[np.bool_], measured: NDArray[np.bool_], spread: LevelNoise | None
) -> TwoWayCell:
    setups = [everything.setups[i] for i in np.flatnonzero(inside)]
    interval = Interval(math.nan)
    if measured.any():
        weights = measured / measured.sum()
        interval = _mean_interval(float(weighted_sum(weights, table.means)), weights, spread)
    n, diverged = sum(len(setup.values) for setup in setups), sum(setup.diverged for setup in setups)
    return TwoWayCell(interval, n, diverged, sum(setup.runs for setup in setups))
