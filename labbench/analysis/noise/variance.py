"""Variance of single runs from few seeds, moderated across configurations (empirical Bayes, Smyth 2004).

Smyth's prior is a scaled inverse chi-squared distribution with d0 degrees of freedom. Smyth estimates d0 once; here
results are averaged over a grid of values of d0, weighted by their marginal likelihood.

Shapes: C configurations, P prior degrees of freedom (`PRIOR_DEGREES`), K sums of J variances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labbench.analysis.table import Floats, Ints

MIN_UNPOOLED_DF = 12
"""Degrees of freedom below which a sum of variances is moderated."""


MIN_STRATUM_SETUPS = 12
"""Smallest number of configurations with repeated seeds in a stratum."""


MAX_SPREAD_DECADES = 6
"""Gap between the spreads of configurations, in powers of ten, above which their variances are not pooled."""


MIN_MAJORITY = 0.6
"""Share of the configurations with repeated seeds that is a majority."""


EXPLODING_DECADES = 1.5
"""Gap in powers of ten above which a minority of larger spreads is not pooled with the majority."""


MAX_STRATA = 6


MAX_NOISE_SHARE = 0.05
"""Largest share of noise in the variance between means for which strata are formed by quality."""


@dataclass(frozen=True, slots=True)
class PriorCandidate:
    """One candidate of the prior of a configuration's variance (Smyth 2004)."""

    d0: float
    """Degrees of freedom of the prior."""
    s0_squared: float
    """Common variance of single runs."""
    weight: float
    """Posterior weight; the weights of all candidates add up to 1."""


@dataclass(frozen=True, slots=True)
class Moderation:
    """Variance of single runs behind the interval of a configuration's mean."""

    variance: float
    """Moderated variance of single runs."""
    df: float
    """Degrees of freedom of the interval."""
    pool_df: float
    """Degrees of freedom of the configurations that share the prior, the largest possible of `variance`."""
    seed_share: float
    """Share of `variance` from effects of seeds that are common to all configurations, 0 to 1."""
    seed_df: float | None
    """Degrees of freedom of these effects; None if they were not estimated."""
    prior: tuple[PriorCandidate, ...]


@dataclass(frozen=True)
class SetupVariances:
    """Variance of single runs per configuration; made by `learn_variances`."""

    unpooled: Floats
    """Sample variance of each configuration's own runs, 0 for a single run, shape (C,)."""
    unpooled_df: Floats
    """Degrees of freedom of `unpooled`, shape (C,)."""
    pooled: Floats
    """Pooled variance of the configuration's stratum, shape (C,)."""
    stratum_df: Floats
    """Degrees of freedom of `pooled`, shape (C,)."""
    weights: Floats
    """Posterior weight of each of `PRIOR_DEGREES`, shape (P, C)."""
    moderated: Floats
    """Moderated variance under each of `PRIOR_DEGREES`, shape (P, C)."""
    common: Floats
    """Common variance of the stratum under each of `PRIOR_DEGREES`, shape (P, C)."""

    @cached_property
    def total_df(self) -> float:
        """Sum of `unpooled_df`, at least 1."""
        return max(1.0, float(self.unpooled_df.sum()))

    @cached_property
    def raw(self) -> Floats:
        """Sample variance, or the pooled one for configurations without repeated seeds, shape (C,)."""
        return np.asarray(np.where(self.unpooled_df > 0, self.unpooled, self.pooled))

    @cached_property
    def raw_df(self) -> Floats:
        """Degrees of freedom of `raw`, shape (C,)."""
        return np.asarray(np.where(self.unpooled_df > 0, self.unpooled_df, self.stratum_df))

    @cached_property
    def variance(self) -> Floats:
        """Posterior mean of the moderated variances, shape (C,)."""
        return np.asarray((self.weights * self.moderated).sum(axis=0))

    def select(self, members: Ints) -> SetupVariances:
        """Return the variances of some configurations, given their indices, shape (M,)."""
        return SetupVariances(
            unpooled=self.unpooled[members],
            unpooled_df=self.unpooled_df[members],
            pooled=self.pooled[members],
            stratum_df=self.stratum_df[members],
            weights=self.weights[:, members],
            moderated=self.moderated[:, members],
            common=self.common[:, members],
        )

    def draw(self, count: int, generator: np.random.Generator) -> Floats:
        """Draw variances around the moderated ones, with their means and relative errors, shape (count, C)."""
        prior = generator.choice(len(PRIOR_DEGREES), size=count, p=self.weights.mean(axis=1))
        df = PRIOR_DEGREES[prior, None] + self.unpooled_df
        return np.asarray(self.moderated[prior] * generator.chisquare(df) / df)

    def prior_of(self, index: int) -> tuple[PriorCandidate, ...]:
        """Return the candidates of the prior of one configuration."""
        parts = zip(
            PRIOR_DEGREES.tolist(), self.common[:, index].tolist(), self.weights[:, index].tolist(), strict=True
        )
        return tuple(PriorCandidate(*part) for part in parts)

    def pool_df_of(self, index: int) -> float:
        """Return the largest possible degrees of freedom of one configuration's moderated variance."""
        return min(float(self.stratum_df[index]), self.total_df)

    def variance_by_setup(self) -> tuple[Floats, Floats]:
        """Return the moderated variances, shape (C,), and their degrees of freedom, shape (C,)."""
        df = np.minimum(PRIOR_DEGREES[:, None] + self.unpooled_df, np.minimum(self.stratum_df, self.total_df))
        return mix(self.weights, self.moderated, df)

    def variance_of_sum(self, factors: Floats) -> tuple[float, float]:
        """Return `factors @ variances` for factors (C,) >= 0, and its degrees of freedom."""
        members = np.flatnonzero(factors > 0)
        if not len(members):
            return 0.0, self.total_df
        variance, df = self.variances_of_sums(members[None], factors[None, members])
        return float(variance[0]), float(df[0])

    def variances_of_sums(self, members: Ints, factors: Floats) -> tuple[Floats, Floats]:
        """Return K sums of `factors` times the variances of `members`, both (K, J), and their degrees of freedom.

        Both results have shape (K,). `factors` are above 0.
        """
        few = self.unpooled_df[members].sum(axis=1) < MIN_UNPOOLED_DF
        variance, df = np.zeros(len(members)), np.full(len(members), self.total_df)
        for rows, add in ((few, self._add_moderated), (~few, self._add_raw)):
            if rows.any():
                variance[rows], df[rows] = add(members[rows], factors[rows])
        return variance, np.where(variance > 0.0, df, self.total_df)

    def _add_moderated(self, members: Ints, factors: Floats) -> tuple[Floats, Floats]:
        """Sum moderated variances, for sums with few degrees of freedom."""
        parts, unpooled_df = self.moderated[:, members] * factors, self.unpooled_df[members]  # (P, K, J), (K, J)
        total, df = parts.sum(axis=2), PRIOR_DEGREES[:, None, None] + unpooled_df
        total[:, ~total.all(axis=0)] = 0.0
        shares = np.divide(parts, total[..., None], out=np.ones(parts.shape), where=total[..., None] > 0)
        limit = np.minimum(self.total_df, self.stratum_df[members].min(axis=1))
        # Welch (1947), Satterthwaite (1946)
        welch = np.minimum(1.0 / (shares**2 / df).sum(axis=2), limit)
        # the prior is common to all configurations, so their degrees of freedom do not add up as Welch's do
        welch = np.minimum(welch, np.maximum(df.min(axis=2), unpooled_df.sum(axis=1)))
        variance, mixed_df = mix(self.weights[:, members].mean(axis=2), total, welch)
        return variance, np.maximum(1.0, mixed_df)

    def _add_raw(self, members: Ints, factors: Floats) -> tuple[Floats, Floats]:
        """Sum unmoderated variances, which are unbiased, for sums with many degrees of freedom."""
        parts = factors * self.raw[members]
        total = parts.sum(axis=1)
        shares = np.divide(parts, total[:, None], out=np.ones(parts.shape), where=total[:, None] > 0)
        # Welch's degrees of freedom (1947); d + 2 in place of d makes the estimate of each squared variance unbiased
        return total, np.minimum(1.0 / (shares**2 / (self.raw_df[members] + 2.0)).sum(axis=1), self.total_df)


def learn_variances(squares: Floats, df: Floats, strata: Sequence[Ints]) -> SetupVariances:
    """Estimate variances from sums of squared residuals (C,) and their degrees of freedom (C,).

    `strata` partitions the configurations; each stratum needs at least one with degrees of freedom above 0.
    """
    unpooled = np.divide(squares, df, out=np.zeros(len(df)), where=df > 0)
    pooled, stratum_df = np.zeros(len(unpooled)), np.zeros(len(unpooled))
    weights, moderated, common = (np.zeros((len(PRIOR_DEGREES), len(unpooled))) for _ in range(3))
    for members in strata:
        repeated = members[df[members] > 0]
        prior = learn_prior(unpooled[repeated], df[repeated])
        pooled[members] = np.average(unpooled[repeated], weights=df[repeated])
        stratum_df[members] = df[repeated].sum()
        weights[:, members] = prior.weights[:, None]
        moderated[:, members] = prior.moderate(unpooled[members], df[members])
        common[:, members] = prior.variances[:, None]
    return SetupVariances(unpooled, df, pooled, stratum_df, weights, moderated, common)


def pooling_groups(means: Floats, squares: Floats, df: Floats) -> list[Ints]:
    """Partition configurations into strata of similar quality and comparable spread, as index arrays.

    `means`, `squares` (sums of squared residuals) and `df` have shape (C,).
    """
    return [
        members[stratum]
        for members in _group_by_spread(squares, df)
        for stratum in _group_by_quality(means[members], squares[members], df[members])
    ]


def _group_by_spread(squares: Floats, df: Floats) -> list[Ints]:
    """Separate configurations whose spread is orders of magnitude larger.

    A gap of `EXPLODING_DECADES` separates them if most repeated configurations are below it; a few small spreads among
    larger ones are chance with 2 seeds. A gap of `MAX_SPREAD_DECADES` always separates them. Single runs join the group
    with the smallest spread.
    """
    positive = (squares > 0) & (df > 0)
    sizes = np.log10(squares, out=np.zeros(len(squares)), where=positive)
    sizes[~positive] = sizes[positive].min(initial=math.inf)
    order = np.argsort(sizes, kind="stable")
    sizes = np.nan_to_num(sizes[order], posinf=0.0)
    gaps, repeated = np.diff(sizes) / 2.0, np.cumsum(df[order] > 0)[:-1]
    explodes = (gaps > EXPLODING_DECADES) & (repeated >= MIN_MAJORITY * (df > 0).sum())
    return np.split(order, np.flatnonzero((gaps > MAX_SPREAD_DECADES) | explodes) + 1)


def _group_by_quality(means: Floats, squares: Floats, df: Floats) -> list[Ints]:
    """Split configurations by their means into strata of at least `MIN_STRATUM_SETUPS`.

    One stratum if the differences between means are largely noise: with skewed noise a lucky mean comes with a small
    spread, so a stratum of lucky configurations would underestimate its variance.
    """
    repeated = df > 0
    noise = float(squares.sum() / df.sum() * np.mean(1.0 / (df[repeated] + 1.0)))
    if noise > MAX_NOISE_SHARE * float(np.var(means)):
        return [np.arange(len(means))]
    order = np.argsort(means, kind="stable")
    replicated = repeated[order]
    count = int(replicated.sum())
    strata = max(1, min(MAX_STRATA, count // MIN_STRATUM_SETUPS))
    number = np.minimum((np.cumsum(replicated) - replicated) * strata // count, strata - 1)
    return [order[number == each] for each in range(strata)]


PRIOR_DEGREES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 1e6])
"""Candidate degrees of freedom d0 of the prior; the last amounts to full pooling."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior of the variances of a stratum: a mixture over `PRIOR_DEGREES`."""

    weights: Floats
    """Posterior weight of each of `PRIOR_DEGREES`, adding up to 1, shape (P,)."""
    variances: Floats
    """Common variance under each of `PRIOR_DEGREES`, shape (P,)."""

    def moderate(self, variances: Floats, df: Floats) -> Floats:
        """Shrink variances (C,) towards the common variance, shape (P, C) (Smyth 2004).

        A variance with 0 degrees of freedom, in `df` (C,), is replaced by the common one.
        """
        prior_df = PRIOR_DEGREES[:, None]
        usable = np.where(df > 0, variances, 0.0)
        return (prior_df * self.variances[:, None] + df * usable) / (prior_df + df)


def learn_prior(variances: Floats, df: Floats, independent: float = 1.0) -> Prior:
    """Fit variances ~ common * F(df, d0) for each d0 of `PRIOR_DEGREES` (Smyth 2004).

    Each d0 is weighted by its marginal likelihood, to the power `independent`: the share of the variances that are
    independent of each other. `variances` and `df` have shape (C,), with df > 0.
    """
    floor = 1e-5 * float(np.median(variances[variances > 0])) if (variances > 0).any() else 0.0
    if floor == 0.0:  # no spread: all seeds have the same value
        return Prior(np.full(len(PRIOR_DEGREES), 1.0 / len(PRIOR_DEGREES)), np.zeros(len(PRIOR_DEGREES)))
    v = np.maximum(variances, floor)
    d0 = PRIOR_DEGREES[:, None]
    half = (df + d0) / 2.0
    log_common = np.full(len(PRIOR_DEGREES), math.log(np.average(v, weights=df)))
    sizes = np.log(df * v) - np.log(d0)  # logarithms avoid overflow for variances of any size
    for _ in range(60):  # Newton's method on a concave function, with clipped steps
        share = 1.0 / (1.0 + np.exp((log_common[:, None] - sizes).clip(-700.0, 700.0)))
        slope = (half * share - df / 2.0).sum(axis=1)
        curvature = (half * share * (1.0 - share)).sum(axis=1)
        step = np.clip(slope / curvature, -1.0, 1.0)
        log_common = log_common + step
        if np.abs(step).max() < 1e-9:
            break
    log_ratio = sizes - log_common[:, None]
    log_density = df / 2.0 * log_ratio - half * np.logaddexp(0.0, log_ratio) - _log_beta(df, d0)
    evidence = independent * log_density.sum(axis=1) - 0.5 * np.log(independent * curvature)  # Laplace approximation
    weights = np.exp(evidence - evidence.max())
    return Prior(weights / weights.sum(), np.exp(log_common))


def _log_beta(df: Floats, d0: Floats) -> Floats:
    """Return log B(df / 2, d0 / 2) for df (C,) and d0 (P, 1), shape (P, C)."""
    sizes, index = np.unique(df, return_inverse=True)
    table = [
        [math.lgamma(d / 2) + math.lgamma(p / 2) - math.lgamma((d + p) / 2) for d in sizes] for p in d0[:, 0].tolist()
    ]
    return np.array(table)[:, index]


def mix(weights: Floats, variances: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Combine alternative variances (P, C) into one per column, with its degrees of freedom.

    Both results have shape (C,). `weights` are (P, C) or (P, 1), adding up to 1 over P; `df` is (P, C). The degrees of
    freedom match the variance of the mixture of scaled chi-squared distributions (Satterthwaite 1946), so disagreement
    between alternatives lowers them.
    """
    variance = (weights * variances).sum(axis=0)
    relative = np.divide(variances, variance, out=np.ones(variances.shape), where=variance > 0)
    squared_error = (weights * (2.0 * relative**2 / df + (relative - 1.0) ** 2)).sum(axis=0)
    return variance, np.where(variance > 0, 2.0 / squared_error, np.inf)
