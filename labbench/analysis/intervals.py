"""A value with its 95 % interval, and the sums that need no more than their own values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labbench.analysis.distributions import t_quantile
from labbench.analysis.table import Floats


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
class VarianceEstimate:
    """A variance, and how well it is known: the sum of two where seeds share a part of it."""

    variance: float
    df: float
    """Degrees of freedom of what is not shared."""
    shared: float = 0.0
    """Share of the variance that comes from what seeds do to all set-ups alike."""
    shared_df: float = math.inf
    """Degrees of freedom of the shared part, often a few only."""

    @property
    def total_df(self) -> float:
        """Degrees of freedom of the whole (Satterthwaite 1946)."""
        return 1.0 / ((1.0 - self.shared) ** 2 / self.df + self.shared**2 / self.shared_df)

    def quantile(self, p: float) -> float:
        """In standard deviations: the quantiles of the two parts, averaged by their variances.

        Cochran & Cox 1957, section 4.14. Satterthwaite's degrees of freedom are too many where chance makes a part
        small that is known by 1 or 2 of them.
        """
        apart, together = (t_quantile(p, float(f"{df:.3g}")) for df in (self.df, self.shared_df))
        return (1.0 - self.shared) * apart + self.shared * together

    def interval(self, centre: float, *, level: float = 0.95) -> Interval:
        """Symmetric around `centre`, whose own variance this is."""
        half = self.quantile(0.5 + level / 2.0) * math.sqrt(self.variance)
        return Interval(centre, centre - half, centre + half)


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
