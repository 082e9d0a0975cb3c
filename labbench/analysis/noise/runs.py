"""Noise of means over few seeds, and of differences between such means.

Configurations trained with the same seeds may vary together. Runs with common seeds form a two-way layout, as in a
randomised block design: value = mean of the configuration + shift of the seed + residual. The shift of a seed, common
to all configurations, cancels in differences and does not average out over configurations. Shifts are fitted by
weighted least squares; their variance is estimated by Henderson's third method (Searle, Casella & McCulloch 1992,
chapter 5). Sums of variances get Satterthwaite's degrees of freedom (1946).

Shapes: C configurations, V values (one per configuration and seed), S seeds, K linear combinations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.intervals import VarianceEstimate
from labbench.analysis.noise.variance import (
    PRIOR_DEGREES,
    Moderation,
    Prior,
    PriorCandidate,
    SetupVariances,
    learn_prior,
    learn_variances,
    mix,
    pooling_groups,
)
from labbench.analysis.table import ROUNDING_TOLERANCE, Floats, Ints, Table

FIT_ROUNDS = 2
"""Number of weighted fits of the seed shifts; weights come from the total variance, then from the residual variance."""
MIN_CLASS_PAIRS = 4
"""Smallest number of pairs that have a prior of their own."""
MAX_CLASS_SETUPS = 400
"""Largest number of configurations whose pairs a prior is learnt from."""
MAX_CLASS_PAIRS = 400
"""Largest number of pairs that a prior is learnt from."""


@dataclass(frozen=True, slots=True)
class SeedShifts:
    """Variance of the shifts of seeds that are common to all configurations."""

    mean_square: float
    """Mean square of the fitted shifts, including the noise of the fit."""
    noise: float
    """Expected `mean_square` if there are no shifts."""
    df: float
    """Degrees of freedom: number of seeds shared between configurations, minus 1."""

    @property
    def variance(self) -> float:
        """Unbiased variance of the shifts, which may be negative."""
        return self.mean_square - self.noise

    def add_to(self, variance: float, df: float, squared_weight: float) -> VarianceEstimate:
        """Return the variance of a combination of values, the shifts of its seeds included.

        Args:
            variance: Variance without the shifts.
            df: Degrees of freedom of `variance`.
            squared_weight: Sum over seeds of the squared weight of each seed.
        """
        specific = max(0.0, variance - squared_weight * self.noise)
        shared = squared_weight * self.mean_square
        total = specific + shared
        if total <= 0.0 or shared <= 1e-12 * total:
            return VarianceEstimate(total, df)
        return VarianceEstimate(total, df, shared / total, self.df)


@dataclass(frozen=True)
class PairClass:
    """Pairs of configurations that differ in the same parameters, whose differences vary alike."""

    prior: Prior
    """Prior of the variances of their differences, relative to the sums of the variances of both configurations."""
    pool_df: float
    """Degrees of freedom of their variances together."""


class PairedVariances:
    """Variances of differences between two configurations over common seeds.

    Runs of one seed may vary together more in similar configurations than the shift of the seed explains, such as with
    two weight decays that hardly matter. So the variance of a difference is estimated from the differences of this
    pair, and moderated across pairs that differ in the same parameters (Smyth 2004). The prior is relative to the
    variance for independent runs, the sum of the moderated variances of both configurations, because bad configurations
    often vary more. These sums are learnt from the same runs, so that the variance has no more degrees of freedom.
    """

    def __init__(self, table: Table, runs: SetupVariances) -> None:
        """Prepare the variances of a table; `runs` are the variances of single runs without the shifts of seeds."""
        repeated = np.flatnonzero(np.bincount(table.seed) > 1)
        column = np.full(int(table.seed.max()) + 1, -1)
        column[repeated] = np.arange(len(repeated))
        shared = column[table.seed] >= 0
        self._values = np.full((len(table.setups), len(repeated)), np.nan)  # (C, S)
        self._values[table.owner[shared], column[table.seed[shared]]] = table.value[shared]
        codes = [parameter.codes for parameter in table.parameters]
        self._codes = np.array(codes).reshape(len(codes), len(table.setups))  # (parameters, C)
        self._runs, self._variance = runs, runs.variance
        self._classes: dict[bytes, PairClass] = {}

    def variance(self, first: int, second: int) -> Moderation:
        """Return the moderated variance of one difference over a common seed; there are at least two of them."""
        differences = self._deviations(np.array([first]), np.array([second]))
        own_df = float(np.isfinite(differences).sum() - 1)
        own_variance = float(np.nansum(differences**2)) / own_df
        scale = float(self._variance[first] + self._variance[second])
        _, scale_df = self._runs.variances_of_sums(np.array([[first, second]]), np.ones((1, 2)))
        group = self._class_of(first, second)
        prior = Prior(group.prior.weights, group.prior.variances * scale)
        moderated = prior.moderate(np.array([own_variance]), np.array([own_df]))
        pool_df = max(own_df, min(group.pool_df, float(scale_df[0])))
        df = np.minimum(PRIOR_DEGREES + own_df, pool_df)
        variance, mixed_df = mix(prior.weights[:, None], moderated, df[:, None])
        candidates = zip(PRIOR_DEGREES.tolist(), prior.variances.tolist(), prior.weights.tolist(), strict=True)
        return Moderation(
            variance=float(variance[0]),
            df=float(np.clip(mixed_df[0], own_df, pool_df)),
            pool_df=pool_df,
            seed_share=0.0,
            seed_df=None,
            prior=tuple(PriorCandidate(*candidate) for candidate in candidates),
        )

    def _deviations(self, first: Ints, second: Ints) -> Floats:
        """Return the differences of K pairs minus their means over the common seeds, shape (K, S)."""
        first_values, second_values = self._values[first], self._values[second]
        differences = first_values - second_values
        counts = np.isfinite(differences).sum(axis=1, keepdims=True)
        means = np.divide(np.nansum(differences, axis=1, keepdims=True), counts, where=counts > 0, out=counts * np.nan)
        deviations = differences - means
        with np.errstate(invalid="ignore"):
            deviations[np.abs(deviations) <= ROUNDING_TOLERANCE * (np.abs(first_values) + np.abs(second_values))] = 0.0
        return np.asarray(deviations)

    def _class_of(self, first: int, second: int) -> PairClass:
        """Return the class of a pair, or of all pairs if fewer than `MIN_CLASS_PAIRS` differ in its parameters."""
        pattern = self._codes[:, first] != self._codes[:, second]
        key = pattern.tobytes()
        if key not in self._classes:
            pairs = self._find_pairs(pattern)
            if len(pairs) < MIN_CLASS_PAIRS:
                pairs = self._find_pairs(None)
            self._classes[key] = self._learn_class(pairs if len(pairs) else np.array([[first, second]]))
        return self._classes[key]

    def _find_pairs(self, pattern: NDArray[np.bool_] | None) -> Ints:
        """Return pairs that differ in the parameters `pattern` (parameters,) alone, or all pairs, shape (K, 2).

        They have at least two common seeds, and are spread evenly over at most `MAX_CLASS_SETUPS` configurations.
        """
        members = _spread_indices(len(self._values), MAX_CLASS_SETUPS)
        i, j = (members[index] for index in np.triu_indices(len(members), 1))
        chosen = np.ones(len(i), dtype=np.bool_)
        for codes, differs in zip(self._codes, pattern, strict=True) if pattern is not None else ():
            chosen &= (codes[i] != codes[j]) == differs
        pairs = np.column_stack([i[chosen], j[chosen]])
        measured = np.isfinite(self._values[pairs[:, 0]] - self._values[pairs[:, 1]]).sum(axis=1) > 1
        pairs = pairs[measured]
        return np.asarray(pairs[_spread_indices(len(pairs), MAX_CLASS_PAIRS)])

    def _learn_class(self, pairs: Ints) -> PairClass:
        """Return the prior of K pairs, shape (K, 2)."""
        deviations, scales = self._deviations(pairs[:, 0], pairs[:, 1]), self._variance[pairs].sum(axis=1)
        relative = np.divide(deviations, np.sqrt(scales)[:, None], out=deviations * 0.0, where=scales[:, None] > 0)
        df = np.isfinite(relative).sum(axis=1) - 1.0
        independent = min(_independent_pairs(pairs), independent_rows(relative))
        prior = learn_prior(np.nansum(relative**2, axis=1) / df, df, independent / len(pairs))
        return PairClass(prior, independent * float(df.mean()))


def _spread_indices(count: int, most: int) -> Ints:
    """Return at most `most` of `count` indices, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _independent_pairs(pairs: Ints) -> float:
    """Return the number of independent pairs that are worth as much as K pairs of common configurations, at most K.

    The sum of their squared differences is a quadratic form, with the degrees of freedom of Satterthwaite (1946).
    """
    degrees = np.bincount(pairs.reshape(-1)).astype(np.float64)
    return float((2.0 * len(pairs)) ** 2 / ((degrees**2).sum() + 2.0 * len(pairs)))


def independent_rows(rows: Floats) -> float:
    """Return the number of independent rows that are worth as much as K rows of deviations (K, S), at least 1.

    If all rows vary alike, as if the seed had another effect with each value of a parameter, their covariance has one
    large eigenvalue. The number is the one whose Wishart distribution has the observed tr(M)^2 / tr(M^2), infinite if
    the rows have gaps or only two seeds, which tell nothing about it.
    """
    rank = rows.shape[1] - 1.0
    if rank < 2 or not np.isfinite(rows).all():
        return np.inf
    matrix = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T  # both have the same trace and squares
    squares = float((matrix**2).sum())
    ratio = float(np.trace(matrix)) ** 2 / squares if squares > 0 else rank
    return max(1.0, (ratio * (rank + 1.0) - 2.0) / (rank - ratio)) if ratio < rank - 1e-9 else np.inf


@dataclass(frozen=True)
class Noise:
    """Variation of single runs around the mean of their configuration; made by `learn_noise`."""

    counts: Ints
    """Number of values per configuration, at least 1, shape (C,)."""
    owner: Ints
    """Index of the configuration of each value, shape (V,)."""
    seed: Ints
    """Index of the seed of each value, shape (V,)."""
    total: SetupVariances
    """Variance of single runs per configuration."""
    unshared: SetupVariances
    """Variance of single runs per configuration without the shifts of seeds."""
    shifts: SeedShifts | None
    """Shifts of seeds; None if configurations share fewer than two seeds."""
    pairs: PairedVariances
    """Variances of differences over common seeds."""
    residuals: Floats
    """Deviation of each value from the mean of its configuration and from the shift of its seed, shape (V,)."""

    @cached_property
    def shared(self) -> Floats:
        """Share of each configuration's variance that is due to seed shifts, 0 to 1, shape (C,)."""
        shifts = max(0.0, self.shifts.variance) if self.shifts else 0.0
        total = self.total.variance
        return np.divide(shifts, total, out=np.zeros(len(total)), where=total > 0).clip(0.0, 1.0)

    def variance_of_means(self) -> tuple[Floats, Floats]:
        """Return the variance of each mean, shape (C,), and its degrees of freedom, shape (C,).

        The degrees of freedom are at least `total.unpooled_df`.
        """
        variance, df = self.total.variance_by_setup()
        inverse_df = (1.0 - self.shared) ** 2 / df + self.shared**2 / (self.shifts.df if self.shifts else 1.0)
        return variance / self.counts, np.maximum(
            1.0 / np.maximum(inverse_df, 1e-12), np.maximum(self.total.unpooled_df, 1.0)
        )

    def variance_of_mean(self, index: int) -> VarianceEstimate:
        """Return the variance of the mean of one configuration, as in `variance_of_means`."""
        variance, df = self._means_variance
        return VarianceEstimate(float(variance[index]), float(df[index]))

    @cached_property
    def _means_variance(self) -> tuple[Floats, Floats]:
        return self.variance_of_means()

    def moderation_of(self, index: int) -> Moderation:
        """Return the variance behind the interval of one configuration's mean."""
        _, df = self.variance_of_means()
        return Moderation(
            variance=float(self.total.variance[index]),
            df=float(df[index]),
            pool_df=self.total.pool_df_of(index),
            seed_share=float(self.shared[index]),
            seed_df=self.shifts.df if self.shifts else None,
            prior=self.total.prior_of(index),
        )

    def variance_of_combination(self, weights: Floats) -> VarianceEstimate:
        """Return the variance of `weights @ means` for weights (C,).

        For weights (K, C), the sum of K variances.
        """
        return self.variance_of_values((weights / self.counts)[..., self.owner])

    def variance_of_values(self, weights: Floats) -> VarianceEstimate:
        """Return the variance of `weights @ values` for weights (V,).

        For weights (K, V), the sum of K variances.
        """
        rows = np.atleast_2d(weights)
        factors = _sum_by_setup(self.owner, (rows**2).sum(axis=0), len(self.counts))
        variance, df = self.unshared.variance_of_sum(factors)
        if self.shifts is None:
            return VarianceEstimate(variance, df)
        return self.shifts.add_to(variance, df, float((self._seed_weights(rows) ** 2).sum()))

    def variances_of_differences(
        self, members: Ints, combination: Ints, value: Ints, weight: Floats
    ) -> list[VarianceEstimate]:
        """Return the variance of K combinations of the values of two configurations each.

        Args:
            members: The two configurations of each combination, shape (K, 2).
            combination: Index of the combination of each weight, ascending, shape (W,).
            value: Index of the value that each weight multiplies, shape (W,).
            weight: Weights, shape (W,).
        """
        count, seeds = len(members), int(self.seed.max()) + 1
        side = (self.owner[value] == members[combination, 1]).astype(np.int64)
        factors: Floats = np.bincount(2 * combination + side, weight**2, 2 * count).reshape(count, 2).astype(np.float64)
        variance, df = self.unshared.variances_of_sums(members, factors)
        by_seed = np.bincount(seeds * combination + self.seed[value], weight, seeds * count).reshape(count, seeds)
        cases = zip(variance.tolist(), df.tolist(), (by_seed**2).sum(axis=1).tolist(), strict=True)
        if self.shifts is None:
            return [VarianceEstimate(variance, df) for variance, df, _ in cases]
        return [self.shifts.add_to(*case) for case in cases]

    def covariance(self, weights: Floats) -> Floats:
        """Return the covariance matrix (K, K) of `weights @ means`, for weights (K, C)."""
        matrix = (weights * self.unshared.raw / self.counts) @ weights.T
        if self.shifts is not None:
            by_seed = self._seed_weights((weights / self.counts)[:, self.owner])
            matrix = matrix + self.shifts.variance * by_seed @ by_seed.T
        return np.asarray(matrix)

    def _seed_weights(self, rows: Floats) -> Floats:
        """Return the weight of each seed in K combinations of values, shape (K, S), for rows (K, V)."""
        return np.array([np.bincount(self.seed, weights=row) for row in rows])


def learn_noise(table: Table) -> Noise | None:
    """Estimate the noise of a table in which every configuration has values.

    Returns None if no configuration has two seeds, which leaves the noise unknown.
    """
    df = (table.counts - 1).astype(np.float64)
    if not (df > 0).any():
        return None
    residuals = table.value - table.means[table.owner]
    residuals[np.abs(residuals) <= ROUNDING_TOLERANCE * np.abs(table.value)] = 0.0
    squares = _sum_by_setup(table.owner, residuals**2, len(table.setups))
    strata = pooling_groups(table.means, squares, df)
    total = unshared = learn_variances(squares, df, strata)
    shifts, unshared_residuals = None, residuals
    for _ in range(FIT_ROUNDS):
        fit = _fit_shifts(table, residuals, unshared.variance)
        if fit is None:
            break
        shifts, unshared_residuals, squares, df = fit
        unshared = learn_variances(squares, df, strata)
    pairs = PairedVariances(table, unshared)
    return Noise(table.counts, table.owner, table.seed, total, unshared, shifts, pairs, unshared_residuals)


def _fit_shifts(table: Table, residuals: Floats, variance: Floats) -> tuple[SeedShifts, Floats, Floats, Floats] | None:
    """Fit the shifts of seeds; None if configurations share fewer than two seeds.

    Returns the shifts, the residuals without them, shape (V,), and per configuration the sum of squares they leave,
    shape (C,), with its degrees of freedom, shape (C,). `residuals` (V,) are deviations from the means of
    configurations, and `variance` (C,) gives the weights.
    The seeds' columns are centred per configuration too (Frisch & Waugh 1933; Lovell 1963).
    """
    owner, n = table.owner, len(table.setups)
    moving = (table.counts > 1) & (variance > 0)
    uses = np.bincount(table.seed[moving[owner]], minlength=int(table.seed.max()) + 1)
    paired = np.flatnonzero(uses > 1)
    if len(paired) < 2:
        return None
    if np.count_nonzero(moving) == 2:  # two configurations: their variances are not identifiable from differences
        variance = np.full(n, variance[moving].mean())
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros(n), where=moving)[owner]
    columns = ((table.seed[:, None] == paired) & moving[owner, None]).astype(np.float64)  # (V, S)
    sums = np.zeros((n, len(paired)))
    np.add.at(sums, owner, columns)
    columns -= (sums / table.counts[:, None])[owner]
    scaled = columns * scale[:, None]
    sizes, axes = np.linalg.eigh(scaled.T @ scaled)
    nonzero = sizes > 1e-9 * sizes[-1]
    basis = scaled @ (axes[:, nonzero] / np.sqrt(sizes[nonzero]))  # (V, rank), orthonormal
    fitted = basis @ (basis.T @ (residuals * scale))
    unshared = residuals - np.divide(fitted, scale, out=np.zeros(len(fitted)), where=scale > 0)
    leverage = _sum_by_setup(owner, (basis**2).sum(axis=1), n)
    count_df = table.counts - 1.0
    # residuals carry little information if the fit of the shifts uses more than half of their degrees of freedom
    informative = leverage <= 0.5 * count_df + 1e-9
    df = np.where(informative, count_df - leverage, count_df)
    squares = _sum_by_setup(owner, np.where(informative[owner], unshared, residuals) ** 2, n)
    rank, size = float(nonzero.sum()), 1.0 / float(sizes[nonzero].sum())
    noise = float(((unshared * scale) ** 2).sum() / (count_df - leverage)[moving].sum())
    return SeedShifts(size * float(fitted @ fitted), size * rank * noise, rank), unshared, squares, df


def _sum_by_setup(owner: Ints, parts: Floats, n: int) -> Floats:
    """Sum parts (V,) by configuration, shape (C,)."""
    return np.bincount(owner, parts, minlength=n).astype(np.float64)
