"""Mean and spread of groups of curves, so that several runs can be drawn as one line with a band."""

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


@dataclass(frozen=True, slots=True)
class Bands:
    """Mean and spread of groups, shape (G groups, N points); NaN where a group has no value."""

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """Number of runs with a value at each point; runs end at different steps."""


def group_bands(values: Floats, owner: NDArray[np.int64], groups: int, spread: SpreadKind) -> Bands:
    """Return the mean and band of each group of curves.

    values: (C curves, N points), float64, NaN where a curve has no value. owner: (C,), the group of each curve, 0 to
    `groups` - 1. `std` is the sample standard deviation, `range` the minimum and maximum.

    `95 %` is Student's t interval of the mean, from the values of the group at the point alone: the band of a group
    does not depend on the other groups, nor on the other points. For a single value, `low` and `high` equal the mean.
    """
    present = np.isfinite(values)
    # divide each point by a power of two near its largest value, so that no square of a diverging run overflows
    unit = np.ldexp(1.0, np.frexp(np.abs(values).max(axis=0, initial=0.0, where=present))[1].clip(-1000, 1000))
    with np.errstate(over="ignore"):
        scaled = _scaled_group_bands(values / unit, present, owner, groups, spread)
        return Bands(scaled.mean * unit, scaled.low * unit, scaled.high * unit, scaled.n)


def _scaled_group_bands(
    values: Floats, present: NDArray[np.bool_], owner: NDArray[np.int64], groups: int, spread: SpreadKind
) -> Bands:
    """Return the bands of values whose squares are finite."""
    n, sums, squares = np.zeros((groups, values.shape[1]), dtype=np.int64), *np.zeros((2, groups, values.shape[1]))
    np.add.at(n, owner, present)
    finite_values = np.where(present, values, 0.0)
    np.add.at(sums, owner, finite_values)
    mean = np.divide(sums, n, out=np.full(n.shape, np.nan), where=n > 0)
    if spread == "range":
        low, high = np.full((2, *n.shape), np.nan)
        np.fmin.at(low, owner, np.where(present, values, np.nan))
        np.fmax.at(high, owner, np.where(present, values, np.nan))
        return Bands(mean, low, high, n)
    np.add.at(squares, owner, np.where(present, (finite_values - mean[owner]) ** 2, 0.0))
    if spread == "std":
        half = np.sqrt(squares / np.maximum(1, n - 1))
    else:
        half = _half_interval(squares, n)
    return Bands(mean, mean - half, mean + half, n)


def _half_interval(squares: Floats, n: NDArray[np.int64]) -> Floats:
    """Return half the width of Student's t interval of each mean, shape (G, N), from sums of squared deviations."""
    # imported here: loading `labbench.analysis` takes 50 ms, which would delay the first paint
    from labbench.analysis.distributions import t_quantile

    df = np.maximum(n - 1, 0)
    quantiles = np.array([t_quantile(0.975, float(d)) if d else 0.0 for d in range(int(df.max(initial=0)) + 1)])
    half: Floats = quantiles[df] * np.sqrt(squares / np.maximum(df, 1) / np.maximum(n, 1))
    return half


@dataclass(frozen=True, slots=True)
class Band:
    """Mean and spread of several runs at each x, arrays of shape (N points,)."""

    x: Floats
    mean: Floats
    deviation: Floats
    """Sample standard deviation; 0 where only one run has a value."""
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """Number of runs with a value at each point; runs end at different steps."""


def make_band(curves: Sequence[tuple[Floats, Floats]], x: Floats) -> Band:
    """Return the mean and spread of curves at the points x, shape (N,), float64, ascending.

    curves: pairs of arrays (x, y), each of shape (points,). Curves are interpolated linearly between their points and
    have no value outside them.
    """
    rows = np.full((len(curves), len(x)), np.nan)  # (runs, points)
    for row, (curve_x, curve_y) in zip(rows, curves, strict=True):
        if len(curve_x):
            row[:] = np.interp(x, curve_x, gaps_as_nan(curve_y), left=np.nan, right=np.nan)
    owner = np.zeros(len(curves), dtype=np.int64)
    spread, extremes = group_bands(rows, owner, 1, "std"), group_bands(rows, owner, 1, "range")
    deviation = spread.high[0] - spread.mean[0]
    return Band(x, spread.mean[0], deviation, extremes.low[0], extremes.high[0], spread.n[0])
