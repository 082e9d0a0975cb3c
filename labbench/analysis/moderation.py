"""Variances that are hardly known by themselves, each moved towards what the others say, as limma does for genes.

Variances are taken to scatter around a common one; each is moved towards it, and what was borrowed counts as degrees
of freedom (Smyth 2004, doi:10.2202/1544-6115.1027). How much to borrow is itself uncertain with few seeds; instead of
one estimate we average over the possible amounts, weighted by how well each explains the variances seen. That covers
everything from one pooled variance (equal spreads) to Student's t of each set-up alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labbench.analysis.setups import Floats

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
        own = np.where(df > 0, variances, 0.0)
        return (borrowed * self.variances[:, None] + df * own) / (borrowed + df)


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
