"""Smoothing of curves of points or of buckets of points.

A long series is read as buckets, each with its mean and its number of points. In an exponential moving average, a
bucket of n points counts as n points at the bucket's mean, so that smoothing does not depend on the zoom.
Non-finite values are kept and do not affect the others, as in TensorBoard.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.smoothing_spec import Smoothing

Floats: TypeAlias = NDArray[np.float64]

_NEGLIGIBLE_WEIGHT = 1e-18
"""Weights below this are lost in rounding."""
_MAX_SUMMABLE, _RESCALE_FACTOR = 2.0**950, 2.0**-80
"""Values up to the first have finite sums; larger ones are scaled by the second, exactly, as it is a power of two."""


def smooth(values: Floats, smoothing: Smoothing, counts: NDArray[np.int64] | None = None) -> Floats:
    """Return smoothed values, shape (N,), float64.

    counts: (N,), the number of points that each value stands for; 1 each if None.
    """
    finite = np.isfinite(values)
    if not smoothing or (values[finite] == values[finite][:1]).all():  # rounding would bend a constant
        return values
    largest = float(np.abs(values).max(initial=0.0, where=finite))
    if largest > _MAX_SUMMABLE:  # keep every sum finite
        return smooth(values * _RESCALE_FACTOR, smoothing, counts) / _RESCALE_FACTOR
    if smoothing.window == "ema":
        return ema(values, smoothing.amount, counts)
    if smoothing.window == "mean":
        return _running_mean(values, smoothing.amount, counts)
    # three running means approximate a Gaussian to within 7 % of its height, at a cost independent of the width
    box = math.hypot(2 * smoothing.amount, 1)
    for _ in range(3):
        values = _running_mean(values, box, counts)
    return values


def ema(values: Floats, weight: float, counts: NDArray[np.int64] | None = None) -> Floats:
    """Return the exponential moving average of values, shape (N,), float64.

    weight: the weight of the past, in [0, 1). counts: (N,), the number of points that each value stands for. The bias
    towards 0 is corrected by 1 - weight**t, as in Adam (Kingma & Ba 2015, section 3). Raises ValueError for a weight
    outside [0, 1).
    """
    if not 0 <= weight < 1:
        raise ValueError(f"the weight of a moving average must be in [0, 1), not {weight}")
    finite = np.isfinite(values)
    all_finite = bool(finite.all())
    finite_values = values if all_finite else values[finite]
    if counts is None:
        average = _decayed_sums((1 - weight) * finite_values, weight)
        correction_length = min(len(finite_values), 1 + int(-40 / math.log(weight))) if weight else 0
        # beyond `correction_length` the correction is exactly 1
        average[:correction_length] /= 1 - weight ** np.arange(1.0, correction_length + 1)
    else:
        points = counts if all_finite else counts[finite]
        weights = weight ** points.astype(np.float64)
        average = _recurrence((1 - weights) * finite_values, weights) / (
            1 - weight ** np.cumsum(points, dtype=np.float64)
        )
    if all_finite:
        return average
    smoothed = values.copy()
    smoothed[finite] = average
    return smoothed


def _decayed_sums(values: Floats, weight: float) -> Floats:
    """Return s[i] = weight * s[i - 1] + values[i] by doubling: each pass doubles the terms in every sum."""
    sums = values.copy()
    reach = 1
    while reach < len(values) and weight**reach > _NEGLIGIBLE_WEIGHT:
        sums[reach:] += weight**reach * sums[:-reach]
        reach *= 2
    return sums


def _recurrence(values: Floats, weights: Floats) -> Floats:
    """Return s[i] = weights[i] * s[i - 1] + values[i] by doubling; `factors` are products of `reach` weights."""
    sums, factors = values.copy(), weights.copy()
    reach = 1
    while reach < len(values) and factors[reach:].max() > _NEGLIGIBLE_WEIGHT:
        sums[reach:] += factors[reach:] * sums[:-reach]
        factors[reach:] *= factors[:-reach].copy()
        reach *= 2
    return sums


def _running_mean(values: Floats, width: float, counts: NDArray[np.int64] | None) -> Floats:
    """Return the mean over `width` points around each value; at the ends over the points that exist."""
    finite = np.isfinite(values)
    finite_values = values[finite]
    if not len(finite_values):
        return values
    points = np.ones(len(finite_values)) if counts is None else counts[finite].astype(np.float64)
    ends = np.cumsum(points)  # number of points up to the end of each value
    middle = ends - points / 2
    start, end = np.maximum(middle - width / 2, 0.0), np.minimum(middle + width / 2, ends[-1])
    base = finite_values[0]  # sums of differences from the first value lose fewer digits
    sums = np.concatenate([[0.0], np.cumsum((finite_values - base) * points)])
    positions = np.concatenate([[0.0], ends])
    smoothed = values.copy()
    smoothed[finite] = base + (np.interp(end, positions, sums) - np.interp(start, positions, sums)) / (end - start)
    return smoothed
