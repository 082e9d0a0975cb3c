"""Confidence intervals, variance estimates, interquartile means and Wilson intervals of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from labbench.analysis.distributions import t_quantile, t_tail
from labbench.analysis.table import Floats

Scale: TypeAlias = Literal["linear", "log"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95 % confidence interval."""

    mean: float
    """Mean; a geometric mean, or a ratio of two, on the scale `log`."""
    low: float | None = None
    """Lower limit; None if the interval is unknown."""
    high: float | None = None
    """Upper limit; None if the interval is unknown."""
    scale: Scale = "linear"
    """Scale on which the interval was computed."""

    def exponential(self) -> Interval:
        """Return the interval of the geometric mean or ratio whose logarithm has this interval."""
        mean, low, high = (None if end is None else exponential(end) for end in (self.mean, self.low, self.high))
        assert mean is not None, "an interval has a mean"
        return Interval(mean, low, high, "log")

    def excludes(self, value: float) -> bool:
        """Return True if the interval is known and does not contain `value`."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def exponential(value: float) -> float:
    """Return e to the power of `value`, infinity if it is too large for a float."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


@dataclass(frozen=True, slots=True)
class VarianceEstimate:
    """A variance and its degrees of freedom.

    The variance is the sum of a part specific to each configuration and a part from effects of common seeds.
    """

    variance: float
    df: float
    """Degrees of freedom of the part that is not shared."""
    shared: float = 0.0
    """Share of the variance from effects of seeds common to all configurations, 0 to 1."""
    shared_df: float = math.inf
    """Degrees of freedom of the shared part, often 1 or 2."""

    @property
    def total_df(self) -> float:
        """Degrees of freedom of the sum (Satterthwaite 1946)."""
        return 1.0 / ((1.0 - self.shared) ** 2 / self.df + self.shared**2 / self.shared_df)

    @property
    def smallest_df(self) -> float:
        """Degrees of freedom of the part with fewer of them, which is conservative far out in the tails."""
        return min(self.df, self.shared_df) if self.shared > 0 else self.df

    def quantile(self, p: float) -> float:
        """Return the quantile at probability `p`, in standard deviations.

        It is the mean of the t quantiles of the two parts, weighted by their variances (Cochran & Cox 1957, section
        4.14). Satterthwaite's degrees of freedom would be too large if a part with 1 or 2 degrees of freedom is small
        by chance.
        """
        specific, shared = (t_quantile(p, float(f"{df:.4g}")) for df in (self.df, self.shared_df))
        return (1.0 - self.shared) * specific + self.shared * shared

    def interval(self, centre: float, *, level: float = 0.95) -> Interval:
        """Return the symmetric t interval (Student 1908) around `centre`, a value with this variance."""
        half = self.quantile(0.5 + level / 2.0) * math.sqrt(self.variance)
        return Interval(centre, centre - half, centre + half)

    def p_value(self, centre: float) -> float:
        """Return the smallest p for which `interval` around `centre` at the level 1 - p excludes 0."""
        if not self.variance > 0.0:
            return float(centre == 0.0)
        distance = abs(centre) / math.sqrt(self.variance)
        if self.shared == 0.0:
            return 2.0 * t_tail(distance, self.df)
        low, high = -12.0, 0.0  # powers of ten
        if self.quantile(1.0 - 10.0**low / 2.0) < distance:
            return 2.0 * t_tail(distance, self.smallest_df)
        for _ in range(40):
            middle = (low + high) / 2.0
            low, high = (low, middle) if self.quantile(1.0 - 10.0**middle / 2.0) < distance else (middle, high)
        return float(10.0**high)

    def excludes_zero(self, centre: float, *, level: float) -> bool:
        """Return True if `interval` around `centre` excludes 0.

        Most values are decided by the quantiles for infinite and for rounded degrees of freedom, which are cached.
        """
        p, deviation = 0.5 + level / 2.0, math.sqrt(self.variance)
        if abs(centre) <= t_quantile(p, math.inf) * deviation:
            return False
        fewer = replace(self, df=float(math.floor(self.df))) if 1.0 <= self.df < math.inf else self
        return any(abs(centre) > each.quantile(p) * deviation for each in (fewer, self))


def interquartile_mean(values: Sequence[float] | Floats) -> float:
    """Return the mean of the middle half of values, shape (N,), as Agarwal et al. 2021 recommend.

    Values on the border of the middle half have fractional weights.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    index = np.arange(n)
    weights = np.clip(np.minimum(index + 1, 0.75 * n) - np.maximum(index, 0.25 * n), 0.0, 1.0)
    return float(np.average(ordered, weights=weights))


def share_interval(count: int, n: int) -> Interval:
    """Return the share `count / n` and Wilson's 95 % interval (1927).

    The interval is valid for small `n` and for shares of 0 or 1. NaN without an interval if `n` is 0.
    """
    if n == 0:
        return Interval(math.nan)
    z = t_quantile(0.975, math.inf)
    share = count / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))
