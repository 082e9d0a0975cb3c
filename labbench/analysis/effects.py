"""What each parameter does: its average effect with the others varied, and two-way tables.

Values are compared like with like: within settings of the other parameters in which both were tried, so that a run
missing here or there (excluded, failed, diverged) does not pass for an effect. A full grid gives the plain averages.
Where settings hardly repeat, as in a random search, an additive model of all parameters takes that place, and the
intervals come from how far set-ups lie from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.distributions import f_tail
from labbench.analysis.intervals import Interval, VarianceEstimate
from labbench.analysis.noise import Noise
from labbench.analysis.table import ROUNDING_TOLERANCE, Floats, Ints, Parameter, Table, weighted_sum
from labbench.records import Goal

Basis: TypeAlias = Literal["seeds", "settings", "none"]
"""What an interval measures an effect against: runs that differ by their seed alone; settings that the effect should
be the same in and is not quite (wider: interactions count as noise); nothing."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One value of a parameter: the average over the settings of the others."""

    value: Any
    interval: Interval
    """NaN without an interval where no run with this value has a result."""
    n: int
    """Runs with a result."""
    diverged: int
    span: tuple[float, float] | None = None
    """Smallest and largest value, where `value` stands for a bin."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The value that is best on average, against the next best: best minus next, in the metric's own unit."""

    value: Any
    against: Any
    interval: Interval


@dataclass(frozen=True, slots=True)
class MarginalEffects:
    """The effects of one parameter."""

    name: str
    effects: tuple[Effect, ...]
    contrast: Contrast | None
    """None where fewer than two values have a result."""
    p_value: float | None
    """Of finding differences as large between the values if there were none (F test); None where nothing tells."""
    basis: Basis


@dataclass(frozen=True, slots=True)
class TwoWayCell:
    """One cell of a two-way table: mean over its set-ups; NaN where none has a result."""

    interval: Interval
    n: int
    diverged: int
    runs: int


@dataclass(frozen=True, slots=True)
class TwoWayTable:
    """A metric by two parameters, averaged over the others: the data of a heat map."""

    rows: tuple[Any, ...]
    columns: tuple[Any, ...]
    cells: tuple[tuple[TwoWayCell, ...], ...]
    """By row, then column."""


@dataclass(frozen=True, slots=True)
class LevelMeans:
    """Means of a parameter's levels as weights over the set-ups: `weights @ table.means`."""

    levels: Ints
    """(k,): the levels that have a result."""
    weights: Floats
    """(k, set-ups)."""
    residual: VarianceEstimate | None
    """Variance of one set-up's mean around the model; None where no degree of freedom is left."""
    matched: bool
    """Compared within settings of the other parameters, not by an additive model."""


def level_means(table: Table, parameter: Parameter) -> LevelMeans:
    """Least squares with one free height per setting of the others where settings repeat, else the additive model."""
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
    # set-ups of one bin are not alike, so bins make no settings
    binned = any(p.spans for p in table.independent)
    matched = not binned and bool(tried[repeated].sum() >= 0.5 * len(rows))
    if matched:
        solved = _solve(one_hot, _GroupProjection(settings), table.means[rows], averaged_over=settings)
    else:
        others = _additive_design(table, parameter, rows)
        solved = _solve(one_hot, _ColumnProjection(others), table.means[rows]) if can_fit_additive(table) else None
    if solved is None:  # too little data for the others to be taken into account: plain averages
        matched = False
        solved = _solve(one_hot, _GroupProjection(np.zeros(len(rows), dtype=np.int64)), table.means[rows])
        assert solved is not None, "plain averages always exist"
    weights[:, rows] = np.where(np.abs(solved[0]) > ROUNDING_TOLERANCE * np.abs(solved[0]).max(), solved[0], 0.0)
    return LevelMeans(levels, weights, solved[1], matched)


def can_fit_additive(table: Table) -> bool:
    """There are two set-ups for each number that an additive model of all parameters has to find."""
    return len(table.setups) >= 2 * (1 + sum(len(np.unique(p.codes)) - 1 for p in table.independent))


def _setting_indices(table: Table, parameter: Parameter, rows: Ints) -> Ints:
    """(rows,): number of the setting of all other parameters, leaving out those that exist under this one alone."""
    others = [p.codes[rows] for p in table.independent if p is not parameter and p.parent != parameter.name]
    if not others:
        return np.zeros(len(rows), dtype=np.int64)
    return np.unique(np.stack(others), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _mark_first_pairs(settings: Ints, codes: NDArray[np.int64]) -> Floats:
    """1 at the first occurrence of each (setting, level), else 0."""
    first = np.unique(np.stack([settings, codes]), axis=1, return_index=True)[1]
    marks = np.zeros(len(settings))
    marks[first] = 1.0
    return marks


def _additive_design(table: Table, parameter: Parameter, rows: Ints) -> Floats:
    """(rows, columns): an intercept and the levels of the other parameters."""
    others = [p for p in table.independent if p is not parameter]
    return np.column_stack([np.ones(len(rows)), *(indicator_columns(p, rows) for p in others)])


def indicator_columns(parameter: Parameter, rows: Ints) -> Floats:
    """(rows, levels) of 0 and 1; of a parameter that exists in part only, centred there and 0 elsewhere."""
    levels, codes = np.unique(parameter.codes[rows], return_inverse=True)
    columns = np.eye(len(levels))[codes]
    if parameter.parent is None:
        return columns
    present = parameter.present()[rows]
    columns = columns[:, [parameter.levels[level] is not None for level in levels]]
    return np.where(present[:, None], columns - columns[present].mean(axis=0), 0.0) if present.any() else columns


class _GroupProjection:
    """Projects out one free height per group of rows."""

    def __init__(self, groups: Ints) -> None:
        self.groups, self.rank = groups, int(groups.max()) + 1

    def project_out(self, columns: Floats) -> Floats:
        sums = np.zeros((self.rank, columns.shape[1]))
        np.add.at(sums, self.groups, columns)
        return columns - (sums / np.bincount(self.groups)[:, None])[self.groups]


class _ColumnProjection:
    """Projects out the space that columns span."""

    def __init__(self, columns: Floats) -> None:
        u, sizes, _ = np.linalg.svd(columns, full_matrices=False)
        self.basis = u[:, sizes > 1e-9 * sizes[0]]
        self.rank = self.basis.shape[1]

    def project_out(self, columns: Floats) -> Floats:
        return np.asarray(columns - self.basis @ (self.basis.T @ columns))


def _solve(
    one_hot: Floats, others: _GroupProjection | _ColumnProjection, y: Floats, *, averaged_over: Ints | None = None
) -> tuple[Floats, VarianceEstimate | None] | None:
    """Weights (levels, rows) of the levels' means and the residual spread; None where they cannot be told apart.

    The others are projected out (Frisch-Waugh), then put back at their average over settings, or over set-ups.
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
    left = others.project_out((y - one_hot @ (slopes @ y))[:, None])[:, 0]
    df = n - others.rank - (k - 1)
    return weights, VarianceEstimate(float(left @ left) / df, float(df)) if df > 0 else None


def marginal_effects(everything: Table, parameter: Parameter, noise: Noise | None, goal: Goal) -> MarginalEffects:
    """The effects of one parameter of `everything`; `noise` is that of `everything.with_values()`."""
    table = everything.with_values()
    measured = table.parameter(parameter.name)
    assert measured is not None, "with_values() keeps the parameters"
    means = level_means(table, measured)
    centre = weighted_sum(means.weights, table.means)
    by_seeds = noise is not None and means.matched
    basis: Basis = "seeds" if by_seeds else "settings" if means.residual else "none"
    known = noise if by_seeds else means.residual
    effects = [_missing_effect(everything, parameter, level) for level in range(len(parameter.levels))]
    for level, mean, weights in zip(means.levels, centre, means.weights, strict=True):
        n = int(table.counts[measured.codes == level].sum())
        effects[level] = _measured_effect(effects[level], n, _combination_interval(float(mean), weights, known))
    shown = tuple(e for e in effects if not (parameter.parent and e.value is None))
    contrast = _contrast(parameter, means, centre, known, goal)
    return MarginalEffects(parameter.name, shown, contrast, _p_value(means, centre, known), basis)


def _missing_effect(everything: Table, parameter: Parameter, level: int) -> Effect:
    diverged = sum(everything.setups[i].diverged for i in np.flatnonzero(parameter.codes == level))
    span = parameter.spans[level] if parameter.spans and parameter.levels[level] is not None else None
    return Effect(parameter.levels[level], Interval(math.nan), 0, diverged, span)


def _measured_effect(empty: Effect, n: int, interval: Interval) -> Effect:
    return Effect(empty.value, interval, n, empty.diverged, empty.span)


def _combination_interval(centre: float, weights: Floats, known: Noise | VarianceEstimate | None) -> Interval:
    """The interval of `weights @ means`, from the noise of each set-up or from one variance for all."""
    spread = _combination_variance(weights, known)
    return spread.interval(centre) if spread else Interval(centre)


def _combination_variance(weights: Floats, known: Noise | VarianceEstimate | None) -> VarianceEstimate | None:
    if isinstance(known, Noise):
        return known.variance_of_combination(weights)
    return VarianceEstimate(known.variance * float(weights @ weights), known.df) if known else None


def _contrast(
    parameter: Parameter, means: LevelMeans, centre: Floats, known: Noise | VarianceEstimate | None, goal: Goal
) -> Contrast | None:
    if len(centre) < 2:
        return None
    first, second = (int(i) for i in np.argsort(-centre if goal == "max" else centre, kind="stable")[:2])
    difference = float(weighted_sum(np.array([1.0, -1.0]), centre[[first, second]]))
    interval = _combination_interval(difference, means.weights[first] - means.weights[second], known)
    value, against = (parameter.levels[means.levels[i]] for i in (first, second))
    return Contrast(value, against, interval)


def _p_value(means: LevelMeans, centre: Floats, known: Noise | VarianceEstimate | None) -> float | None:
    """F test of all levels being equal: that of the linear model, with its sum of squares over what noise makes of it.

    Where spreads differ the sum of squares stays as it is, so that a lucky seed counts no more than others; its
    expectation and both degrees of freedom are those of the spreads (Box 1954; Brunner, Dette & Munk 1997).
    """
    k = len(centre)
    if known is None or k < 2:
        return None
    steps = np.diff(np.eye(k), axis=0) @ means.weights
    per_setup = steps / known.counts if isinstance(known, Noise) else steps
    sizes, axes = np.linalg.eigh(per_setup @ steps.T)
    kept = sizes > 1e-10 * sizes[-1]
    contrasts = (axes[:, kept] / np.sqrt(sizes[kept])).T  # of equal variance, and independent, where spreads are equal
    squares = float(((contrasts @ np.diff(centre)) ** 2).sum())
    if isinstance(known, Noise):
        expected, covariance = known.variance_of_combination(contrasts @ steps), known.covariance(contrasts @ steps)
        df = 1.0 / float(((covariance / np.trace(covariance)) ** 2).sum()) if expected.variance > 0 else 1.0
    else:
        expected, df = VarianceEstimate(known.variance * int(kept.sum()), known.df), float(kept.sum())
    if not expected.variance > 0:  # no noise at all: what differs by more than rounding differs
        return 0.0 if np.abs(np.diff(centre)).max() > 1e-9 * np.abs(centre).max() else 1.0
    return f_tail(squares / expected.variance, df, expected.total_df)


def two_way_table(everything: Table, row: Parameter, column: Parameter, noise: Noise | None) -> TwoWayTable:
    """The table of two parameters; each cell is the plain mean over its set-ups."""
    table = everything.with_values()
    kept = np.flatnonzero(everything.counts > 0)
    cells = []
    for i in range(len(row.levels)):
        here = [(row.codes == i) & (column.codes == j) for j in range(len(column.levels))]
        cells.append(tuple(_make_cell(everything, table, inside, inside[kept], noise) for inside in here))
    return TwoWayTable(row.levels, column.levels, tuple(cells))


def _make_cell(
    everything: Table, table: Table, inside: NDArray[np.bool_], measured: NDArray[np.bool_], noise: Noise | None
) -> TwoWayCell:
    setups = [everything.setups[i] for i in np.flatnonzero(inside)]
    interval = Interval(math.nan)
    if measured.any():
        weights = measured / measured.sum()
        interval = _combination_interval(float(weighted_sum(weights, table.means)), weights, noise)
    n, diverged = sum(len(setup.values) for setup in setups), sum(setup.diverged for setup in setups)
    return TwoWayCell(interval, n, diverged, sum(setup.runs for setup in setups))
