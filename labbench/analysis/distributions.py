"""Probabilities and quantiles of Student's t and Fisher's F, from the regularised incomplete beta function.

Written here to avoid SciPy, a dependency of 100 MB; the tests compare every function with SciPy's values.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_TINY = 1e-300
_MIN_NORMAL_DF = 1e4
"""Degrees of freedom above which expansions around the normal distribution are exact to 1e-12."""


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), for a, b > 0.

    Arguments x outside 0 to 1 give 0 or 1.
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1.0) / (a + b + 2.0):  # the continued fraction converges fast only below this point
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _beta_fraction(a, b, x) / a


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of I_x(a, b) (Abramowitz & Stegun 26.5.8) by Lentz's method (1976)."""
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return fraction


def _away_from_zero(x: float) -> float:
    return x if abs(x) > _TINY else _TINY


def t_tail(x: float, df: float) -> float:
    """Return P(T > x) for Student's t (Abramowitz & Stegun 26.7.1).

    `df` may be fractional or infinite.
    """
    if x < 0.0:
        return 1.0 - t_tail(-x, df)
    if df > _MIN_NORMAL_DF:
        return _t_tail_from_normal(x, df)
    squared = x * x
    if squared < df:  # the complement keeps its precision for small x
        return 0.5 - 0.5 * incomplete_beta(0.5, df / 2.0, squared / (df + squared))
    return 0.5 * incomplete_beta(df / 2.0, 0.5, df / (df + squared))


def _t_tail_from_normal(x: float, df: float) -> float:
    """Return P(T > x) by Fisher's expansion around the normal distribution, in powers of 1 / df (1925)."""
    upper = 0.5 * math.erfc(x / math.sqrt(2.0))
    density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    first = x * (x**2 + 1.0) / 4.0
    second = x * (3.0 * x**6 - 7.0 * x**4 - 5.0 * x**2 - 3.0) / 96.0
    return max(0.0, upper + density * (first / df + second / df**2))


@lru_cache(maxsize=8192)
def t_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t at probability `p`, 0 < p < 1.

    `df` > 0 may be fractional; infinity gives the normal distribution. Solved by Newton's method with a bracket.
    """
    if p < 0.5:
        return -t_quantile(1.0 - p, df)
    if p == 0.5:
        return 0.0
    if df > _MIN_NORMAL_DF:
        return _t_quantile_from_normal(NormalDist().inv_cdf(p), df)
    tail = 1.0 - p
    x = max(_t_quantile_from_normal(NormalDist().inv_cdf(p), max(df, 2.0)), 1e-3)
    low, high = 0.0, math.inf
    for _ in range(200):
        excess = t_tail(x, df) - tail
        low, high = (x, high) if excess > 0 else (low, x)
        step = excess / _t_density(x, df)
        next_x = x + step
        if not low < next_x < high:  # Newton left the bracket, as it does in heavy tails
            next_x = 2.0 * x if math.isinf(high) else (low + high) / 2.0
        if abs(next_x - x) <= 1e-14 * x:
            return next_x
        x = next_x
    return x


def _t_density(x: float, df: float) -> float:
    log_front = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(log_front - (df + 1) / 2 * math.log1p(x * x / df))


def _t_quantile_from_normal(z: float, df: float) -> float:
    """Return the t quantile by its Cornish-Fisher expansion around the normal's (Abramowitz & Stegun 26.7.5)."""
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / df + second / df**2 + third / df**3


def f_tail(x: float, df1: float, df2: float) -> float:
    """Return P(F > x) for Fisher's F with `df1` and `df2` degrees of freedom (Abramowitz & Stegun 26.6.2)."""
    if x <= 0.0:
        return 1.0
    df2 = min(df2, 1e6)  # larger values change rounding errors only
    return incomplete_beta(df2 / 2.0, df1 / 2.0, df2 / (df2 + df1 * x))
