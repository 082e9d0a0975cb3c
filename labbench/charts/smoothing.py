"""Smoothing of curves, which may be points or buckets of points: numbers in, numbers out.

A long series arrives in buckets, each with its mean and its number of points. A bucket of n points moves an
exponential average as n points at its mean do, so smoothing does not change with the distance one looks from.
Values that are not finite stay where they are and do not touch the others, as in TensorBoard.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.smoothing_spec import Smoothing

Floats: TypeAlias = NDArray[np.float64]

_NEGLIGIBLE_WEIGHT = 1e-18
"""What weighs less is lost in rounding."""
_MAX_SUMMABLE, _RESCALE_FACTOR = 2.0**950, 2.0**-80
"""Of what is not larger, any series has a finite sum; what a larger one is multiplied by: exact, a power of two."""


def smooth(values: Floats, smoothing: Smoothing, counts: NDArray[np.int64] | None = None) -> Floats:
    """Smoothed values; `counts` are the points that each stands for, one each where it is None."""
    if not smoothing:
        return values
    largest = float(np.abs(values).max(initial=0.0, where=np.isfinite(values)))
    if largest > _MAX_SUMMABLE:  # no sum of what is smoothed may be infinite
        return smooth(values * _RESCALE_FACTOR, smoothing, counts) / _RESCALE_FACTOR
    if smoothing.window == "ema":
        return ema(values, smoothing.amount, counts)
    if smoothing.window == "mean":
        return _running_mean(values, smoothing.amount, counts)
    # three running means are a bell to within 7 % of its height, at the same cost for every width
    box = math.hypot(2 * smoothing.amount, 1)
    for _ in range(3):
        values = _running_mean(values, box, counts)
    return values


def ema(values: Floats, weight: float, counts: NDArray[np.int64] | None = None) -> Floats:
    """Exponential moving average with bias correction; `weight` in [0, 1) is the share that the past keeps."""
    if not 0 <= weight < 1:
        raise ValueError(f"the weight of an average must be in [0, 1), not {weight}")
    finite = np.isfinite(values)
    everywhere = bool(finite.all())
    kept = values if everywhere else values[finite]
    if counts is None:
        average = _decayed_sums((1 - weight) * kept, weight)
        young = min(len(kept), 1 + int(-40 / math.log(weight))) if weight else 0
        average[:young] /= 1 - weight ** np.arange(1.0, young + 1)  # from there on the correction is exactly 1
    else:
        points = counts if everywhere else counts[finite]
        shares = weight ** points.astype(np.float64)
        average = _recurrence((1 - shares) * kept, shares) / (1 - weight ** np.cumsum(points, dtype=np.float64))
    if everywhere:
        return average
    smoothed = values.copy()
    smoothed[finite] = average
    return smoothed


def _decayed_sums(values: Floats, weight: float) -> Floats:
    """s[i] = weight * s[i - 1] + values[i], by doubling: each pass extends every sum to twice as many values back."""
    sums = values.copy()
    reach = 1
    while reach < len(values) and weight**reach > _NEGLIGIBLE_WEIGHT:
        sums[reach:] += weight**reach * sums[:-reach]
        reach *= 2
    return sums


def _recurrence(values: Floats, weights: Floats) -> Floats:
    """s[i] = weights[i] * s[i - 1] + values[i], by doubling too; `factors` are products over the reach."""
    sums, factors = values.copy(), weights.copy()
    reach = 1
    while reach < len(values) and factors[reach:].max() > _NEGLIGIBLE_WEIGHT:
        sums[reach:] += factors[reach:] * sums[:-reach]
        factors[reach:] *= factors[:-reach].copy()
        reach *= 2
    return sums


def _running_mean(values: Floats, width: float, counts: NDArray[np.int64] | None) -> Floats:
    """The mean over `width` points around each value, over those of them that there are at either end."""
    finite = np.isfinite(values)
    kept = values[finite]
    if not len(kept):
        return values
    points = np.ones(len(kept)) if counts is None else counts[finite].astype(np.float64)
    behind = np.cumsum(points)  # how many points there are up to the end of each
    middle = behind - points / 2
    start, end = np.maximum(middle - width / 2, 0.0), np.minimum(middle + width / 2, behind[-1])
    base = kept[0]  # sums of what differs from the first lose fewer digits
    sums = np.concatenate([[0.0], np.cumsum((kept - base) * points)])
    places = np.concatenate([[0.0], behind])
    smoothed = values.copy()
    smoothed[finite] = base + (np.interp(end, places, sums) - np.interp(start, places, sums)) / (end - start)
    return smoothed
