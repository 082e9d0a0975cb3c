"""Variance of set-ups from few seeds, pooled or moderated across set-ups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labbench.analysis.table import Floats, Ints

MIN_UNPOOLED_DF = 12
"""A sum of variances that has fewer degrees of freedom than this borrows from the others; one of more knows enough."""


MIN_STRATUM_SETUPS = 12
"""Set-ups with repeated seeds that it takes to lend each other spread; in a grid of several times as many, set-ups of
similar quality form strata."""


MAX_SPREAD_DECADES = 6
"""Powers of ten between the spreads of set-ups that have nothing in common."""


MAX_STRATA = 6


MAX_NOISE_SHARE = 0.05
"""Share of the variance between set-ups' means that may be noise where strata are formed."""


@dataclass(frozen=True)
class SetupVariances:
    """The variance of single runs of each of n set-ups; made by `learn_variances`."""

    unpooled: Floats
    """(n,): by the runs of each set-up; 0 where they say nothing."""
    unpooled_df: Floats
    """(n,): degrees of freedom of `unpooled`."""
    pooled: Floats
    """(n,): mean variance over the set-ups of similar quality that it may borrow from, its stratum."""
    stratum_df: Floats
    """(n,): degrees of freedom of `pooled`."""
    weights: Floats
    """(K, n): how plausible each amount of borrowing is."""
    moderated: Floats
    """(K, n): the variance under each amount of borrowing."""

    @cached_property
    def total_df(self) -> float:
        """Degrees of freedom of all set-ups together."""
        return max(1.0, float(self.unpooled_df.sum()))

    @cached_property
    def raw(self) -> Floats:
        """(n,): variance by a set-up's own runs; the average one where these say nothing."""
        return np.asarray(np.where(self.unpooled_df > 0, self.unpooled, self.pooled))

    @cached_property
    def raw_df(self) -> Floats:
        """(n,): degrees of freedom of `raw`."""
        return np.asarray(np.where(self.unpooled_df > 0, self.unpooled_df, self.stratum_df))

    @cached_property
    def variance(self) -> Floats:
        """(n,): the variance that is most plausible."""
        return np.asarray((self.weights * self.moderated).sum(axis=0))

    def variance_by_setup(self) -> tuple[Floats, Floats]:
        """(n,) variances, and (n,) degrees of freedom of each."""
        df = np.minimum(PRIOR_DEGREES[:, None] + self.unpooled_df, np.minimum(self.stratum_df, self.total_df))
        return mix(self.weights, self.moderated, df)

    def variance_of_sum(self, factors: Floats) -> tuple[float, float]:
        """`factors @ variances` for (n,) factors of at least 0, and its degrees of freedom."""
        few = self.unpooled_df[factors > 0].sum() < MIN_UNPOOLED_DF
        return self._moderated_sum(factors) if few else self._raw_sum(factors)

    def _moderated_sum(self, factors: Floats) -> tuple[float, float]:
        """A few variances need to borrow."""
        involved = factors > 0
        parts = self.moderated[:, involved] * factors[involved]
        total, df = parts.sum(axis=1), PRIOR_DEGREES[:, None] + self.unpooled_df[involved]
        if not total.all():
            return 0.0, self.total_df
        known = min(self.total_df, float(self.stratum_df[involved].min()))
        welch = np.minimum(1.0 / ((parts / total[:, None]) ** 2 / df).sum(axis=1), known)
        # what set-ups borrow is the same for all of them, so degrees of freedom do not add up as Welch's do
        welch = np.minimum(welch, np.maximum(df.min(axis=1), self.unpooled_df[involved].sum()))
        plausible = self.weights[:, involved].mean(axis=1, keepdims=True)
        variance, mixed = mix(plausible, total[:, None], welch[:, None])
        return float(variance[0]), max(1.0, float(mixed[0]))

    def _raw_sum(self, factors: Floats) -> tuple[float, float]:
        """A sum of many needs variances that are right on average, as unmoderated ones are."""
        parts = factors * self.raw
        total = float(parts.sum())
        if total <= 0.0:
            return 0.0, self.total_df
        # Welch's degrees of freedom; d + 2 in place of d makes the estimate of each variance's square unbiased
        doubt = float(((parts / total) ** 2 / (self.raw_df + 2.0)).sum())
        return total, min(1.0 / doubt, self.total_df)


def learn_variances(squares: Floats, df: Floats, strata: Sequence[Ints]) -> SetupVariances:
    """From (n,) sums of squared residuals and their (n,) degrees of freedom, of which some are above 0."""
    unpooled = np.divide(squares, df, out=np.zeros(len(df)), where=df > 0)
    pooled, stratum_df = np.zeros(len(unpooled)), np.zeros(len(unpooled))
    weights, moderated = (np.zeros((len(PRIOR_DEGREES), len(unpooled))) for _ in range(2))
    for members in strata:
        known = members[df[members] > 0]
        prior = learn_prior(unpooled[known], df[known])
        pooled[members], stratum_df[members] = np.average(unpooled[known], weights=df[known]), df[known].sum()
        weights[:, members] = prior.weights[:, None]
        moderated[:, members] = prior.moderate(unpooled[members], df[members])
    return SetupVariances(unpooled, df, pooled, stratum_df, weights, moderated)


def pooling_groups(means: Floats, squares: Floats, df: Floats) -> list[Ints]:
    """Indices of set-ups that lend each other spread: those of similar quality among those of comparable spread."""
    return [
        members[stratum]
        for members in _group_by_spread(squares, df)
        for stratum in _group_by_quality(means[members], squares[members], df[members])
    ]


def _group_by_spread(squares: Floats, df: Floats) -> list[Ints]:
    """Set-ups whose runs blew up apart from the others, whose spread they would drown; single runs with the calmest."""
    known = (squares > 0) & (df > 0)
    sizes = np.log10(squares, out=np.zeros(len(squares)), where=known)
    sizes[~known] = sizes[known].min(initial=math.inf)
    order = np.argsort(sizes, kind="stable")
    sizes = np.nan_to_num(sizes[order], posinf=0.0)
    return np.split(order, np.flatnonzero(np.diff(sizes) > 2.0 * MAX_SPREAD_DECADES) + 1)


def _group_by_quality(means: Floats, squares: Floats, df: Floats) -> list[Ints]:
    """Set-ups of similar quality, so many together that they can lend each other spread.

    All in one where quality is mostly luck: a lucky draw of skewed noise has a small spread too, and lucky ones among
    themselves would take each other for calm.
    """
    known = df > 0
    luck = float(squares.sum() / df.sum() * np.mean(1.0 / (df[known] + 1.0)))
    if luck > MAX_NOISE_SHARE * float(np.var(means)):
        return [np.arange(len(means))]
    order = np.argsort(means, kind="stable")
    replicated = known[order]
    count = int(replicated.sum())
    strata = max(1, min(MAX_STRATA, count // MIN_STRATUM_SETUPS))
    number = np.minimum((np.cumsum(replicated) - replicated) * strata // count, strata - 1)
    return [order[number == each] for each in range(strata)]


PRIOR_DEGREES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1e6])
"""What a set-up may borrow from the others, in degrees of freedom; the last is as good as everything."""


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
        usable = np.where(df > 0, variances, 0.0)
        return (borrowed * self.variances[:, None] + df * usable) / (borrowed + df)


def learn_prior(variances: Floats, df: Floats) -> Prior:
    """Fit variances ~ common * F(df, d0) for each d0 of `PRIOR_DEGREES`, and weigh the d0 by marginal likelihood."""
    floor = 1e-5 * float(np.median(variances[variances > 0])) if (variances > 0).any() else 0.0
    if floor == 0.0:  # every seed gave the same value: there is no spread
        return Prior(np.full(len(PRIOR_DEGREES), 1.0 / len(PRIOR_DEGREES)), np.zeros(len(PRIOR_DEGREES)))
    v = np.maximum(variances, floor)
    d0 = PRIOR_DEGREES[:, None]
    half = (df + d0) / 2.0
    log_common = np.full(len(PRIOR_DEGREES), math.log(np.average(v, weights=df)))
    sizes = np.log(df * v) - np.log(d0)  # all in logarithms: the variances may be of any size
    for _ in range(60):  # Newton on a concave function, in steps that cannot overshoot
        share = 1.0 / (1.0 + np.exp((log_common[:, None] - sizes).clip(-700.0, 700.0)))
        slope = (half * share - df / 2.0).sum(axis=1)
        curvature = (half * share * (1.0 - share)).sum(axis=1)
        step = np.clip(slope / curvature, -1.0, 1.0)
        log_common = log_common + step
        if np.abs(step).max() < 1e-9:
            break
    log_ratio = sizes - log_common[:, None]
    log_density = df / 2.0 * log_ratio - half * np.logaddexp(0.0, log_ratio) - _log_beta(df, d0)
    evidence = log_density.sum(axis=1) - 0.5 * np.log(curvature)  # Laplace
    weights = np.exp(evidence - evidence.max())
    return Prior(weights / weights.sum(), np.exp(log_common))


def _log_beta(df: Floats, d0: Floats) -> Floats:
    """(K, n): log B(df / 2, d0 / 2)."""
    sizes, index = np.unique(df, return_inverse=True)
    table = [
        [math.lgamma(d / 2) + math.lgamma(p / 2) - math.lgamma((d + p) / 2) for d in sizes] for p in d0[:, 0].tolist()
    ]
    return np.array(table)[:, index]


def mix(weights: Floats, variances: Floats, df: Floats) -> tuple[Floats, Floats]:
    """One variance and its degrees of freedom for each column of (K, n) alternatives, weighted by (K, n) or (K, 1).

    The variance of the mixture of chi-squares decides (Satterthwaite 1946): how much the alternatives disagree
    lowers the degrees of freedom as each one's own uncertainty does.
    """
    variance = (weights * variances).sum(axis=0)
    relative = np.divide(variances, variance, out=np.ones(variances.shape), where=variance > 0)
    doubt = (weights * (2.0 * relative**2 / df + (relative - 1.0) ** 2)).sum(axis=0)
    return variance, np.where(variance > 0, 2.0 / doubt, np.inf)
