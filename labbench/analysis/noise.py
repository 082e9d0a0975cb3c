"""How far runs that differ by their seed alone lie apart, and so how far a mean over few seeds may be from the truth.

The spread of a set-up is hardly known from its own 3 seeds, so set-ups lend each other theirs (`moderation`), those
of similar quality: the good ones usually agree far better over seeds than those that hardly learn.

Set-ups trained with the same seeds may move together. The shared part of the variance is estimated too: it cancels
in differences, and it does not average away over set-ups. (With two seeds it is hardly seen: if half of the variance
is shared, the interval of an average over many set-ups holds 83 % of the time only; bench/coverage.py.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labbench.analysis.intervals import Spread
from labbench.analysis.moderation import PRIOR_DEGREES, learn_prior, mix
from labbench.analysis.setups import Floats, Ints, Table

FEW = 4
"""A combination of fewer set-ups than this borrows spread from the others; one of more knows enough by itself."""
STRATUM = 12
"""Set-ups with repeated seeds that it takes to lend each other spread; in a grid of several times as many, set-ups of
similar quality form strata."""
MOST_STRATA = 6
MOST_LUCK = 0.05
"""Share of the variance between set-ups' means that may be noise where strata are formed."""


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
    pooled: Floats
    """(n,): mean variance over the set-ups of similar quality that it may borrow from, its stratum."""
    stratum_df: Floats
    """(n,): degrees of freedom of `pooled`."""
    weights: Floats
    """(K, n): how plausible each amount of borrowing is."""
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
    def total_df(self) -> float:
        """All degrees of freedom that tell of the part that is not shared."""
        total = float(self.own_df.sum())
        return max(1.0, total - self.shared_df) if self.shared > 0 else total

    @cached_property
    def raw(self) -> Floats:
        """(n,): variance of a single run of each set-up by its own runs; the average one where it has a single run."""
        return np.asarray(np.where(self.counts > 1, self.own, self.pooled))

    @cached_property
    def raw_df(self) -> Floats:
        """(n,): degrees of freedom of `raw`."""
        return np.asarray(np.where(self.counts > 1, self.own_df, self.stratum_df), dtype=np.float64)

    @cached_property
    def variance(self) -> Floats:
        """(n,): variance of a single run of each set-up."""
        return np.asarray((self.weights * self.moderated).sum(axis=0))

    def of_means(self) -> tuple[Floats, Floats]:
        """(n,) variance of each set-up's mean, and (n,) degrees of freedom, never fewer than it has alone."""
        own, a = self.own_df, 1.0 / self.counts
        df = np.minimum(PRIOR_DEGREES[:, None] + own, np.minimum(self.stratum_df, self.total_df))
        variance, df = mix(self.weights, self.moderated * a, df)
        doubt = (1.0 - self.shared) ** 2 / df + self.shared**2 / self.shared_df
        return variance, np.maximum(1.0 / np.maximum(doubt, 1e-12), np.maximum(own, 1.0))

    def of_combination(self, weights: Floats) -> Spread:
        """Spread of `weights @ means`, for (n,) weights: an average over set-ups, or a difference of such."""
        few = np.count_nonzero(weights) < FEW
        variance, df = self._apart_of_few(weights) if few else self._apart_of_many(weights)
        apart, together = (1.0 - self.shared) * variance, self.shared * self._together(weights)
        if apart + together <= 0.0:
            return Spread(0.0, self.total_df)
        doubt = apart**2 / max(1.0, min(df, self.total_df)) + together**2 / self.shared_df
        return Spread(apart + together, (apart + together) ** 2 / doubt)

    def _apart_of_few(self, weights: Floats) -> tuple[float, float]:
        """Variance and degrees of freedom of the part that is not shared, for few set-ups: they need to borrow."""
        involved = weights != 0
        parts = self.moderated[:, involved] * (weights**2 / self.counts)[involved]
        total, df = parts.sum(axis=1), PRIOR_DEGREES[:, None] + self.own_df[involved]
        if not total.all():
            return 0.0, self.total_df
        known = min(self.total_df, float(self.stratum_df[involved].min()))
        welch = np.minimum(total**2 / (parts**2 / df).sum(axis=1), known)
        plausible = self.weights[:, involved].mean(axis=1, keepdims=True)
        variance, mixed = mix(plausible, total[:, None], welch[:, None])
        return float(variance[0]), float(mixed[0])

    def _apart_of_many(self, weights: Floats) -> tuple[float, float]:
        """The same for many: a sum needs variances that are right on average, as unmoderated ones are."""
        parts = weights**2 * self.raw / self.counts
        # Welch's degrees of freedom; d + 2 in place of d makes the estimate of each variance's square unbiased
        doubt = float((parts**2 / (self.raw_df + 2.0)).sum())
        return float(parts.sum()), float(parts.sum()) ** 2 / doubt if doubt > 0 else self.total_df

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
    own = squares / np.maximum(df, 1.0)
    pooled, stratum_df = np.zeros(len(own)), np.zeros(len(own))
    weights, moderated = (np.zeros((len(PRIOR_DEGREES), len(own))) for _ in range(2))
    for members in _strata(table.means, df, own):
        prior = learn_prior(own[members][df[members] > 0], df[members][df[members] > 0])
        pooled[members], stratum_df[members] = np.average(own[members], weights=df[members]), df[members].sum()
        weights[:, members] = prior.weights[:, None]
        moderated[:, members] = prior.moderate(own[members], df[members])
    shared = _shared_by_seeds(table, residuals, np.sqrt((weights * moderated).sum(axis=0)))
    return Noise(table.counts, table.owner, table.seed, own, pooled, stratum_df, weights, moderated, shared)


def _strata(means: Floats, df: Floats, own: Floats) -> list[Ints]:
    """Indices of set-ups of similar quality, so many in each that they can lend each other spread.

    All in one where quality is mostly luck: a lucky draw of skewed noise has a small spread too, and lucky ones among
    themselves would take each other for calm.
    """
    known = df > 0
    luck = float(np.average(own[known], weights=df[known]) * np.mean(1.0 / (df + 1.0)))
    if luck > MOST_LUCK * float(np.var(means)):
        return [np.arange(len(means))]
    order = np.argsort(means, kind="stable")
    replicated = df[order] > 0
    count = int(replicated.sum())
    strata = max(1, min(MOST_STRATA, count // STRATUM))
    number = np.minimum((np.cumsum(replicated) - replicated) * strata // count, strata - 1)
    return [order[number == each] for each in range(strata)]


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
