"""How far a mean over few seeds may be from the truth, and a difference of such means.

Set-ups trained with the same seeds may move together: where seeds pair, runs are a two-way layout of set-up and seed,
value = mean of the set-up + shift by the seed + the rest, as in a randomised block design. What a seed does to all
set-ups alike cancels in differences, and does not average away over set-ups. The shifts are fitted by weighted least
squares and their variance is found by Henderson's third method (Searle, Casella & McCulloch 1992, chapter 5); sums of
variances get Satterthwaite's degrees of freedom (1946).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labbench.analysis.intervals import VarianceEstimate
from labbench.analysis.table import ROUNDING_TOLERANCE, Floats, Ints, Table
from labbench.analysis.variance import SetupVariances, learn_variances, pooling_groups

FIT_ROUNDS = 2
"""Of fitting the seeds' shifts: the first knows set-ups by all of their spread, the next by what seeds leave of it."""


@dataclass(frozen=True, slots=True)
class SeedShifts:
    """How far seeds move all set-ups alike."""

    mean_square: float
    """Of the fitted shifts; it holds the noise of the fit too."""
    noise: float
    """The part of `mean_square` that is expected where seeds share nothing."""
    df: float
    """Degrees of freedom: seeds that set-ups share, less one."""

    @property
    def variance(self) -> float:
        """Of the shifts, free of bias and so at times below 0."""
        return self.mean_square - self.noise


@dataclass(frozen=True)
class Noise:
    """How much single runs scatter around the mean of their set-up; made by `learn_noise`."""

    counts: Ints
    """(n,): values of each set-up, all at least 1."""
    owner: Ints
    """(values,): the set-up of each value."""
    seed: Ints
    """(values,): the seed of each value."""
    total: SetupVariances
    """Of the runs of each set-up."""
    unshared: SetupVariances
    """What is left of it without the shifts that seeds share."""
    shifts: SeedShifts | None
    """None where no seeds pair."""

    @cached_property
    def shared(self) -> Floats:
        """(n,): share of each set-up's variance that it has in common with others of the same seeds, 0 to 1."""
        together = max(0.0, self.shifts.variance) if self.shifts else 0.0
        total = self.total.variance
        return np.divide(together, total, out=np.zeros(len(total)), where=total > 0).clip(0.0, 1.0)

    def variance_of_means(self) -> tuple[Floats, Floats]:
        """(n,) variance of each set-up's mean, and (n,) degrees of freedom, never fewer than it has alone."""
        variance, df = self.total.variance_by_setup()
        doubt = (1.0 - self.shared) ** 2 / df + self.shared**2 / (self.shifts.df if self.shifts else 1.0)
        return variance / self.counts, np.maximum(
            1.0 / np.maximum(doubt, 1e-12), np.maximum(self.total.unpooled_df, 1.0)
        )

    def variance_of_combination(self, weights: Floats) -> VarianceEstimate:
        """Spread of `weights @ means`, for (n,) weights: an average over set-ups, or a difference of such."""
        return self.variance_of_values((weights / self.counts)[..., self.owner])

    def variance_of_values(self, weights: Floats) -> VarianceEstimate:
        """Spread of `weights @ values`, for (values,) weights; for (k, values), the k variances added up."""
        rows = np.atleast_2d(weights)
        factors = _sum_by_setup(self.owner, (rows**2).sum(axis=0), len(self.counts))
        variance, df = self.unshared.variance_of_sum(factors)
        if self.shifts is None:
            return VarianceEstimate(variance, df)
        moved = float((self._seed_weights(rows) ** 2).sum())
        apart, together = max(0.0, variance - moved * self.shifts.noise), moved * self.shifts.mean_square
        total = apart + together
        if total <= 0.0 or together <= 1e-12 * total:
            return VarianceEstimate(total, df)
        return VarianceEstimate(total, df, together / total, self.shifts.df)

    def covariance(self, weights: Floats) -> Floats:
        """(k, k): covariance of `weights @ means`, for (k, n) weights: k averages over set-ups."""
        found = (weights * self.unshared.raw / self.counts) @ weights.T
        if self.shifts is not None:
            moved = self._seed_weights((weights / self.counts)[:, self.owner])
            found = found + self.shifts.variance * moved @ moved.T
        return np.asarray(found)

    def _seed_weights(self, rows: Floats) -> Floats:
        """(k, seeds): how far one unit of each seed moves each of k combinations of values."""
        return np.array([np.bincount(self.seed, weights=row) for row in rows])


def learn_noise(table: Table) -> Noise | None:
    """The noise of a table whose set-ups all have values; None where no set-up has two, so nothing tells of it."""
    df = (table.counts - 1).astype(np.float64)
    if not (df > 0).any():
        return None
    residuals = table.value - table.means[table.owner]
    residuals[np.abs(residuals) <= ROUNDING_TOLERANCE * np.abs(table.value)] = 0.0
    squares = _sum_by_setup(table.owner, residuals**2, len(table.setups))
    strata = pooling_groups(table.means, squares, df)
    total = apart = learn_variances(squares, df, strata)
    shifts = None
    for _ in range(FIT_ROUNDS):
        fit = _fit_shifts(table, residuals, apart.variance)
        if fit is None:
            break
        shifts, squares, df = fit
        apart = learn_variances(squares, df, strata)
    return Noise(table.counts, table.owner, table.seed, total, apart, shifts)


def _fit_shifts(table: Table, residuals: Floats, variance: Floats) -> tuple[SeedShifts, Floats, Floats] | None:
    """The shifts by seed, and by set-up the squares that they leave, with degrees of freedom; None without pairs.

    `residuals` are from the means of the set-ups, which the columns of the seeds are freed of too (Frisch-Waugh).
    """
    owner, n = table.owner, len(table.setups)
    moving = (table.counts > 1) & (variance > 0)
    times = np.bincount(table.seed[moving[owner]], minlength=int(table.seed.max()) + 1)
    paired = np.flatnonzero(times > 1)
    if len(paired) < 2:
        return None
    if np.count_nonzero(moving) == 2:  # nobody can tell whose of the two the spread of a difference is
        variance = np.full(n, variance[moving].mean())
    scale = np.divide(1.0, np.sqrt(variance), out=np.zeros(n), where=moving)[owner]
    columns = ((table.seed[:, None] == paired) & moving[owner, None]).astype(np.float64)  # (values, seeds)
    sums = np.zeros((n, len(paired)))
    np.add.at(sums, owner, columns)
    columns -= (sums / table.counts[:, None])[owner]
    scaled = columns * scale[:, None]
    sizes, axes = np.linalg.eigh(scaled.T @ scaled)
    kept = sizes > 1e-9 * sizes[-1]
    basis = scaled @ (axes[:, kept] / np.sqrt(sizes[kept]))  # (values, rank), orthonormal
    fitted = basis @ (basis.T @ (residuals * scale))
    left = residuals - np.divide(fitted, scale, out=np.zeros(len(fitted)), where=scale > 0)
    leverage = _sum_by_setup(owner, (basis**2).sum(axis=1), n)
    own = table.counts - 1.0
    told = leverage <= 0.5 * own + 1e-9  # one that decides the shifts by itself shows nothing without them
    df = np.where(told, own - leverage, own)
    squares = _sum_by_setup(owner, np.where(told[owner], left, residuals) ** 2, n)
    rank, size = float(kept.sum()), 1.0 / float(sizes[kept].sum())
    noise = float(((left * scale) ** 2).sum() / (own - leverage)[moving].sum())
    return SeedShifts(size * float(fitted @ fitted), size * rank * noise, rank), squares, df


def _sum_by_setup(owner: Ints, parts: Floats, n: int) -> Floats:
    """(n,): sums of (values,) parts by set-up."""
    return np.bincount(owner, parts, minlength=n).astype(np.float64)
