"""Several runs as one line: the mean of each group of curves at each place, and how far its runs spread around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from labbench.charts.series import gaps_as_nan

Floats: TypeAlias = NDArray[np.float64]
SpreadKind: TypeAlias = Literal["95 %", "std", "range"]
SPREADS: tuple[SpreadKind, ...] = get_args(SpreadKind)


_MAX_VARIANCE_RATIO = 50
"""Times the median variance: a group that spreads more is on its way to infinity and says nothing of the others."""


@dataclass(frozen=True, slots=True)
class Bands:
    """(groups, places) each; NaN where no run of the group has a value."""

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """How many runs have a value there: runs end at different steps."""


def group_bands(values: Floats, owner: NDArray[np.int64], groups: int, spread: SpreadKind) -> Bands:
    """Bands of (curves, places) values, NaN for none, whose rows belong to the groups that `owner` says.

    `95 %` is the interval of the mean. A few seeds hardly tell their spread, so groups lend each other theirs; one
    that spreads more than the others keeps its own, and one that blows up lends nothing. Where nothing tells the
    spread, the band is the mean.
    """
    present = np.isfinite(values)
    # the largest value of each place is made 1, by a power of two: no square of a run that blows up is infinite
    unit = np.ldexp(1.0, np.frexp(np.abs(values).max(axis=0, initial=0.0, where=present))[1].clip(-1000, 1000))
    with np.errstate(over="ignore"):
        scaled = _scaled_group_bands(values / unit, present, owner, groups, spread)
        return Bands(scaled.mean * unit, scaled.low * unit, scaled.high * unit, scaled.n)


def _scaled_group_bands(
    values: Floats, present: NDArray[np.bool_], owner: NDArray[np.int64], groups: int, spread: SpreadKind
) -> Bands:
    """The bands of values whose squares are finite."""
    n, sums, squares = np.zeros((groups, values.shape[1]), dtype=np.int64), *np.zeros((2, groups, values.shape[1]))
    np.add.at(n, owner, present)
    kept = np.where(present, values, 0.0)
    np.add.at(sums, owner, kept)
    mean = np.divide(sums, n, out=np.full(n.shape, np.nan), where=n > 0)
    if spread == "range":
        low, high = np.full((2, *n.shape), np.nan)
        np.fmin.at(low, owner, np.where(present, values, np.nan))
        np.fmax.at(high, owner, np.where(present, values, np.nan))
        return Bands(mean, low, high, n)
    np.add.at(squares, owner, np.where(present, (kept - mean[owner]) ** 2, 0.0))
    if spread == "std":
        half = np.sqrt(squares / np.maximum(1, n - 1))
    else:
        half = _half_interval(squares, n)
    return Bands(mean, mean - half, mean + half, n)


def _half_interval(squares: Floats, n: NDArray[np.int64]) -> Floats:
    """(groups, places): half of the 95 % interval of each mean, from sums of squared deviations."""
    own_df = np.maximum(n - 1, 0)
    own = np.divide(squares, own_df, out=np.zeros(squares.shape), where=own_df > 0)
    known = np.sort(np.where(own_df > 0, own, np.inf), axis=0)
    middle = np.maximum((own_df > 0).sum(axis=0) - 1, 0) // 2
    median = np.take_along_axis(known, middle[None], axis=0)[0]  # (places,)
    lending = np.where(own <= _MAX_VARIANCE_RATIO * median, own_df, 0)
    df = lending.sum(axis=0)
    pooled = np.divide((own * lending).sum(axis=0), df, out=np.zeros(len(df)), where=df > 0)
    alone = own > pooled
    variance = np.where(alone, own, pooled)
    degrees = np.where(alone, own_df, df)
    from labbench.analysis.distributions import t_quantile  # all of the analysis, 50 ms: no first curve waits for it

    quantiles = np.array([t_quantile(0.975, float(d)) if d else 0.0 for d in range(int(degrees.max(initial=0)) + 1)])
    half: Floats = quantiles[degrees] * np.sqrt(variance / np.maximum(n, 1))
    return half


@dataclass(frozen=True, slots=True)
class Band:
    """Several runs as one curve: their mean at each x, and how far they spread; arrays of one length."""

    x: Floats
    mean: Floats
    deviation: Floats
    """Sample standard deviation; 0 where only one run has a value."""
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """How many runs have a value there: runs end at different steps."""


def make_band(curves: Sequence[tuple[Floats, Floats]], x: Floats) -> Band:
    """Mean and spread over curves at the given x, each curve linear between its points and absent outside them."""
    rows = np.full((len(curves), len(x)), np.nan)  # (runs, points)
    for row, (curve_x, curve_y) in zip(rows, curves, strict=True):
        if len(curve_x):
            row[:] = np.interp(x, curve_x, gaps_as_nan(curve_y), left=np.nan, right=np.nan)
    owner = np.zeros(len(curves), dtype=np.int64)
    spread, reach = group_bands(rows, owner, 1, "std"), group_bands(rows, owner, 1, "range")
    deviation = spread.high[0] - spread.mean[0]
    return Band(x, spread.mean[0], deviation, reach.low[0], reach.high[0], spread.n[0])
