"""Intervals that hold for two to five seeds: how far a mean over seeds may be from the truth.

The spread of a set-up is hardly known from its own 3 seeds, so the set-ups lend each other theirs, as limma does for
genes (Smyth 2004, doi:10.2202/1544-6115.1027): variances are taken to scatter around a common one, each is moved
towards it, and what was borrowed counts as degrees of freedom. How much to borrow is itself uncertain with few
seeds; instead of one estimate we average over the possible amounts, weighted by how well each explains the variances
seen. That covers everything from one pooled variance (equal spreads) to Student's t of each set-up alone.

Set-ups trained with the same seeds may move together. The shared part of the variance is estimated too: it cancels
in differences, and it does not average away over set-ups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labbench.analysis.quantiles import t_quantile
from labbench.analysis.setups import Floats, Ints, Table

PRIOR_DEGREES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1e6])
"""What a set-up may borrow from the others, in degrees of freedom; the last is as good as everything."""
FEW = 4
"""A combination of fewer set-ups than this borrows spread from the others; one of more knows enough by itself."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval; None where nothing tells how wide it is."""

    mean: float
    low: float | None = None
    high: float | None = None

    def excludes(self, value: float) -> bool:
        """The interval is known and lies wholly on one side of `value`."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Spread:
    """A variance, and how well it is known."""

    variance: float
    df: float
    """Degrees of freedom of Student's t."""

    def interval(self, centre: float, *, level: float = 0.95) -> Interval:
        """Symmetric around `centre`, whose own variance this is."""
        half = t_quantile(0.5 + level / 2.0, self.df) * math.sqrt(self.variance)
        return Interval(centre, centre - half, centre + half)


@dataclass(frozen=True, slots=True)
class Prior:
    """What set-ups know of each other's variance: a mixture over the degrees of freedom that it is worth."""

    weights: Floats
    """(K,): how plausible each of `PRIOR_DEGREES` is; they add up to 1."""
    variances: Floats
    """(K,): the common variance under each."""

    def moderate(self, variances: Floats, df: Floats) -> Floats:
        """(K, n) variances, each moved towards the common one; `df` may be 0, and then the variance does not count."""
        borrowed = PRIOR_DEGREES[:, None]
        own = np.where(df > 0, variances, 0.0)
        return (borrowed * self.variances[:, None] + df * own) / (borrowed + df)


def learn_prior(variances: Floats, df: Floats, *, trust: float = 1.0) -> Prior:
    """Fit variances ~ common * F(df, d0) for each d0 of `PRIOR_DEGREES`, and weigh the d0 by marginal likelihood.

    `trust` below 1 says that the variances are not independent, as those of all pairs of a few set-ups.
    """
    floor = 1e-5 * float(np.median(variances[variances > 0])) if (variances > 0).any() else 0.0
    if floor == 0.0:  # every seed gave the same value: there is no spread
        return Prior(np.full(len(PRIOR_DEGREES), 1.0 / len(PRIOR_DEGREES)), np.zeros(len(PRIOR_DEGREES)))
    v = np.maximum(variances, floor)
    d0 = PRIOR_DEGREES[:, None]
    half = (df + d0) / 2.0
    log_common = np.full(len(PRIOR_DEGREES), math.log(np.average(v, weights=df)))
    for _ in range(60):  # Newton on a concave function, in steps that cannot overshoot
        ratio = df * v * np.exp(-log_common)[:, None] / d0
        slope = (half * ratio / (1.0 + ratio) - df / 2.0).sum(axis=1)
        curvature = (half * ratio / (1.0 + ratio) ** 2).sum(axis=1)
        step = np.clip(slope / curvature, -1.0, 1.0)
        log_common = log_common + step
        if np.abs(step).max() < 1e-9:
            break
    ratio = df * v * np.exp(-log_common)[:, None] / d0
    log_density = df / 2.0 * np.log(ratio) - half * np.log1p(ratio) - _log_beta(df, d0)
    evidence = trust * (log_density.sum(axis=1)) - 0.5 * np.log(trust * curvature)  # Laplace
    weights = np.exp(evidence - evidence.max())
    return Prior(weights / weights.sum(), np.exp(log_common))


def _log_beta(df: Floats, d0: Floats) -> Floats:
    """(K, n): log B(df / 2, d0 / 2)."""
    sizes, index = np.unique(df, return_inverse=True)
    table = [
        [math.lgamma(d / 2) + math.lgamma(p / 2) - math.lgamma((d + p) / 2) for d in sizes] for p in d0[:, 0].tolist()
    ]
    return np.array(table)[:, index]


def mix(prior: Prior, variances: Floats, df: Floats) -> tuple[Floats, Floats]:
    """One variance and its degrees of freedom for each column of (K, n) alternatives.

    The variance of the mixture of chi-squares decides (Satterthwaite 1946): how much the alternatives disagree
    lowers the degrees of freedom as each one's own uncertainty does.
    """
    weights = prior.weights[:, None]
    variance = (weights * variances).sum(axis=0)
    doubt = (weights * (2.0 * variances**2 / df + (variances - variance) ** 2)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return variance, np.where(variance > 0, 2.0 * variance**2 / doubt, np.inf)


@dataclass(frozen=True)
class Noise:
    """How much single runs scatter around the mean of their set-up; made by `learn_noise`."""

    counts: Ints
    """(n,): values of each set-up, all at least 1."""
    owner: Ints
    """(values,): the set-up of each value."""
    seed: Ints
    """(values,): the seed of each value."""
    own: Floats
    """(n,): variance of the values of each set-up; 0 where it has one value."""
    prior: Prior
    moderated: Floats
    """(K, n): variance of a single run of each set-up, under each amount of borrowing."""
    shared: float
    """Share of a run's variance that set-ups with the same seed have in common, 0 to 0.95."""

    @cached_property
    def own_df(self) -> Floats:
        """(n,): degrees of freedom of each set-up alone."""
        return np.asarray(self.counts - 1, dtype=np.float64)

    @cached_property
    def shared_df(self) -> float:
        """Degrees of freedom of the part that seeds have in common: seeds that set-ups share, less one."""
        return max(1.0, float((np.bincount(self.seed) > 1).sum()) - 1.0)

    @cached_property
    def pooled_df(self) -> float:
        """All degrees of freedom that tell of the part that is not shared."""
        total = float(self.own_df.sum())
        return max(1.0, total - self.shared_df) if self.shared > 0 else total

    @cached_property
    def raw(self) -> Floats:
        """(n,): variance of a single run of each set-up by its own runs; the average one where it has a single run."""
        pooled = np.average(self.own, weights=self.own_df)
        return np.asarray(np.where(self.counts > 1, self.own, pooled))

    @cached_property
    def raw_df(self) -> Floats:
        """(n,): degrees of freedom of `raw`."""
        return np.asarray(np.where(self.counts > 1, self.own_df, float(self.own_df.sum())), dtype=np.float64)

    @cached_property
    def variance(self) -> Floats:
        """(n,): variance of a single run of each set-up."""
        return np.asarray(self.prior.weights @ self.moderated)

    def of_means(self) -> tuple[Floats, Floats]:
        """(n,) variance of each set-up's mean, and (n,) degrees of freedom, never fewer than it has alone."""
        own, a = self.own_df, 1.0 / self.counts
        df = np.minimum(PRIOR_DEGREES[:, None] + own, self.pooled_df)
        variance, df = mix(self.prior, self.moderated * a, df)
        doubt = (1.0 - self.shared) ** 2 / df + self.shared**2 / self.shared_df
        return variance, np.maximum(1.0 / np.maximum(doubt, 1e-12), np.maximum(own, 1.0))

    def of_combination(self, weights: Floats) -> Spread:
        """Spread of `weights @ means`, for (n,) weights: an average over set-ups, or a difference of such."""
        few = np.count_nonzero(weights) < FEW
        variance, df = self._apart_of_few(weights) if few else self._apart_of_many(weights)
        apart, together = (1.0 - self.shared) * variance, self.shared * self._together(weights)
        if apart + together <= 0.0:
            return Spread(0.0, self.pooled_df)
        doubt = apart**2 / max(1.0, min(df, self.pooled_df)) + together**2 / self.shared_df
        return Spread(apart + together, (apart + together) ** 2 / doubt)

    def _apart_of_few(self, weights: Floats) -> tuple[float, float]:
        """Variance and degrees of freedom of the part that is not shared, for few set-ups: they need to borrow."""
        involved = weights != 0
        parts = self.moderated[:, involved] * (weights**2 / self.counts)[involved]
        total, df = parts.sum(axis=1), PRIOR_DEGREES[:, None] + self.own_df[involved]
        if not total.all():
            return 0.0, self.pooled_df
        welch = np.minimum(total**2 / (parts**2 / df).sum(axis=1), self.pooled_df)
        variance, mixed = mix(self.prior, total[:, None], welch[:, None])
        return float(variance[0]), float(mixed[0])

    def _apart_of_many(self, weights: Floats) -> tuple[float, float]:
        """The same for many: a sum needs variances that are right on average, as unmoderated ones are."""
        parts = weights**2 * self.raw / self.counts
        # Welch's degrees of freedom; d + 2 in place of d makes the estimate of each variance's square unbiased
        doubt = float((parts**2 / (self.raw_df + 2.0)).sum())
        return float(parts.sum()), float(parts.sum()) ** 2 / doubt if doubt > 0 else self.pooled_df

    def covariance(self, weights: Floats) -> Floats:
        """(k, k): covariance of `weights @ means`, for (k, n) weights: k averages over set-ups."""
        apart = (weights * self.raw / self.counts) @ weights.T
        together = self._moved_by_seeds(weights)
        return np.asarray((1.0 - self.shared) * apart + self.shared * together @ together.T)

    def _together(self, weights: Floats) -> float:
        """Variance of a combination if each seed moved all set-ups alike, in units of their own spread."""
        moved = self._moved_by_seeds(weights[None, :])[0]
        return float(moved @ moved)

    def _moved_by_seeds(self, weights: Floats) -> Floats:
        """(k, seeds): how far one unit of each seed moves each combination."""
        scale = np.sqrt(self.raw) / self.counts
        return np.array([np.bincount(self.seed, weights=(row * scale)[self.owner]) for row in weights])


def learn_noise(table: Table) -> Noise | None:
    """The noise of a table whose set-ups all have values; None where no set-up has two, so nothing tells of it."""
    df = (table.counts - 1).astype(np.float64)
    if not (df > 0).any():
        return None
    residuals = table.value - table.means[table.owner]
    squares = np.bincount(table.owner, weights=residuals**2, minlength=len(table.setups))
    variances = squares / np.maximum(df, 1.0)
    prior = learn_prior(variances[df > 0], df[df > 0])
    moderated = prior.moderate(variances, df)
    variance = (prior.weights[:, None] * moderated).sum(axis=0)
    shared = _shared_by_seeds(table, residuals, np.sqrt(variance))
    return Noise(table.counts, table.owner, table.seed, variances, prior, moderated, shared)


def _shared_by_seeds(table: Table, residuals: Floats, spread: Floats) -> float:
    """Mean correlation, over pairs of set-ups, of runs with the same seed: an intraclass correlation, at least 0."""
    if not (spread > 0).all():
        return 0.0
    standardised = residuals / spread[table.owner]
    possible = np.sqrt(1.0 - 1.0 / table.counts)[table.owner]  # a residual from n values is that much too small
    sums, squares = np.bincount(table.seed, standardised), np.bincount(table.seed, standardised**2)
    most, own = np.bincount(table.seed, possible), np.bincount(table.seed, possible**2)
    pairs = float((most**2 - own).sum())
    correlation = float((sums**2 - squares).sum()) / pairs if pairs > 1e-9 else 0.0
    return min(max(correlation, 0.0), 0.95)


def interquartile_mean(values: Sequence[float] | Floats) -> float:
    """Mean of the middle half; values on the border count in part (Agarwal et al. 2021 for why)."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    places = np.arange(n)
    inside = np.clip(np.minimum(places + 1, 0.75 * n) - np.maximum(places, 0.25 * n), 0.0, 1.0)
    return float(np.average(ordered, weights=inside))


def share_interval(count: int, n: int) -> Interval:
    """A share and Wilson's 95 % interval, which holds for a few runs and for 0 of them too."""
    if n == 0:
        return Interval(math.nan)
    z = t_quantile(0.975, math.inf)
    share = count / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
