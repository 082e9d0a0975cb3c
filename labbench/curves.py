"""The arithmetic of curves: smoothing, decimation, joins, bands, ranges and ticks. Numbers in, numbers out.

A curve is two arrays of one length: x, non-decreasing, and y, in which NaN and infinities are gaps no line crosses.
Drawing costs screen columns, not points: `spans` reduces a curve to the exact vertical extent in each column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Curve: TypeAlias = tuple[Floats, Floats]
"""(x, y), one length."""


# Smoothing


def ema(values: Floats, weight: float) -> Floats:
    """Exponential moving average with bias correction; `weight` in [0, 1) is the share that the past keeps.

    Non-finite values stay where they are and do not touch the average, as in TensorBoard.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"the weight of an average must be in [0, 1), not {weight}")
    finite = np.isfinite(values)
    kept = values[finite]
    average = _decayed_sums((1 - weight) * kept, weight)
    young = (
        min(len(kept), 1 + int(-40 / math.log(weight))) if weight else 0
    )  # from there on the correction is exactly 1
    average[:young] /= 1 - weight ** np.arange(1.0, young + 1)
    if len(kept) == len(values):
        return average
    smoothed = values.copy()
    smoothed[finite] = average
    return smoothed


def _decayed_sums(values: Floats, weight: float) -> Floats:
    """s[i] = weight * s[i - 1] + values[i], by doubling: each pass extends every sum to twice as many values back."""
    sums = values.copy()
    reach = 1
    while reach < len(values) and weight**reach > 1e-18:  # what lies farther back is lost in rounding
        sums[reach:] += weight**reach * sums[:-reach]
        reach *= 2
    return sums


# Decimation


def spans(x: Floats, y: Floats, left: float, right: float, columns: int) -> tuple[Floats, Floats]:
    """(low, high), each (columns,): how far the curve reaches in each column of [left, right]; NaN where it is not.

    Exact for the line through the points: between two points, its value at the columns' edges counts too.
    """
    edges = np.linspace(left, right, columns + 1)
    first = np.searchsorted(x, edges)  # (columns + 1,): the first point at or behind each edge
    first[-1] = np.searchsorted(x, right, side="right")  # a point on the right border belongs to the last column
    at_edges = _between(x, y, edges, first)
    low, high = np.fmin(at_edges[:-1], at_edges[1:]), np.fmax(at_edges[:-1], at_edges[1:])
    held = np.flatnonzero(first[1:] > first[:-1])  # columns that hold points
    if len(held):
        points = _gaps_as_nan(y[first[0] : first[-1]])
        starts = first[held] - first[0]
        low[held] = np.fmin(low[held], np.fmin.reduceat(points, starts))
        high[held] = np.fmax(high[held], np.fmax.reduceat(points, starts))
    return low, high


def _between(x: Floats, y: Floats, edges: Floats, first: NDArray[np.intp]) -> Floats:
    """The curve's value at each edge, NaN before its first point, behind its last, and in gaps."""
    at_edges = np.full(len(edges), np.nan)
    inside = np.flatnonzero((first > 0) & (first < len(x)))
    behind = first[inside]
    before = behind - 1
    share = (edges[inside] - x[before]) / (x[behind] - x[before])
    y_before, y_behind = _gaps_as_nan(y[before]), _gaps_as_nan(y[behind])
    at_edges[inside] = y_before + (y_behind - y_before) * share
    return at_edges


def _gaps_as_nan(values: Floats) -> Floats:
    return np.where(np.isinf(values), np.nan, values)


def thin(x: Floats, y: Floats, points: int) -> Curve:
    """The curve in at most `points` of its own points (at least 4): the ends, and the extremes of equal parts between.

    For curves without gaps: see `finite_pieces`.
    """
    if len(x) <= points:
        return x, y
    parts = max(1, (points - 2) // 2)
    size = -(-len(y) // parts)
    padded = np.concatenate([y, np.full(parts * size - len(y), y[-1])]).reshape(parts, size)
    offsets = np.arange(parts) * size
    kept = np.concatenate([[0, len(y) - 1], offsets + padded.argmin(axis=1), offsets + padded.argmax(axis=1)])
    kept = np.unique(np.minimum(kept, len(y) - 1))
    return x[kept], y[kept]


def finite_pieces(x: Floats, y: Floats) -> list[Curve]:
    """The curve split at non-finite values: the pieces a line can be drawn through, in order."""
    finite = np.isfinite(y)
    if finite.all():
        return [(x, y)] if len(y) else []
    turns = np.flatnonzero(np.diff(finite, prepend=False, append=False))
    return [(x[start:end], y[start:end]) for start, end in zip(turns[::2], turns[1::2], strict=True)]


# Joins and bands


def join(steps: NDArray[np.int64], axis_steps: NDArray[np.int64], axis_values: Floats) -> Floats:
    """What a metric used as the x axis was at each of `steps`: linear between its logged points.

    Outside them it goes on as over its first or last interval (one point: in proportion to the step), so that a run in
    the middle of an epoch is drawn up to its newest step. All NaN where the axis has no finite point.
    """
    finite = np.isfinite(axis_values)
    known, values = axis_steps[finite].astype(np.float64), axis_values[finite]
    if not len(known):
        return np.full(len(steps), np.nan)
    if len(known) == 1:
        known, values = np.array([0.0, known[0] or 1.0]), np.array([0.0, values[0]])
    joined = np.interp(steps, known, values)
    before, behind = steps < known[0], steps > known[-1]
    joined[before] = values[0] + (steps[before] - known[0]) * (values[1] - values[0]) / (known[1] - known[0])
    joined[behind] = values[-1] + (steps[behind] - known[-1]) * (values[-1] - values[-2]) / (known[-1] - known[-2])
    return joined


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


def band(curves: Sequence[Curve], x: Floats) -> Band:
    """Mean and spread over curves at the given x, each curve linear between its points and absent outside them."""
    rows = np.full((len(curves), len(x)), np.nan)  # (runs, points)
    for row, (curve_x, curve_y) in zip(rows, curves, strict=True):
        if len(curve_x):
            row[:] = np.interp(x, curve_x, _gaps_as_nan(curve_y), left=np.nan, right=np.nan)
    present = ~np.isnan(rows)
    n = present.sum(axis=0)
    some = n > 0
    mean, deviation, low, high = (np.full(len(x), np.nan) for _ in range(4))
    values = np.where(present, rows, 0.0)
    mean[some] = values.sum(axis=0)[some] / n[some]
    squares = np.where(present, (rows - mean) ** 2, 0.0).sum(axis=0)
    deviation[some] = np.sqrt(squares[some] / np.maximum(1, n[some] - 1))
    if len(curves):
        low, high = np.fmin.reduce(rows, axis=0), np.fmax.reduce(rows, axis=0)
    return Band(x, mean, deviation, low, high, n)


# Ranges and ticks


def value_range(arrays: Iterable[Floats], *, log: bool = False) -> tuple[float, float] | None:
    """(lowest, highest) finite value of all arrays, positive ones only if `log`; None where there is none."""
    lowest, highest = math.inf, -math.inf
    for values in arrays:
        usable = values[np.isfinite(values) & (values > 0)] if log else values[np.isfinite(values)]
        if len(usable):
            lowest, highest = min(lowest, float(usable.min())), max(highest, float(usable.max()))
    return (lowest, highest) if lowest <= highest else None


@dataclass(frozen=True, slots=True)
class Ticks:
    """Round values of an axis and their labels, both ascending and equally many."""

    values: tuple[float, ...]
    labels: tuple[str, ...]


_SUFFIXES = {3: "k", 6: "M", 9: "G", 12: "T"}
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def linear_ticks(low: float, high: float, most: int, *, whole: bool = False) -> Ticks:
    """At most `most` multiples of 1, 2 or 5 times a power of ten within [low, high]; whole numbers only if `whole`."""
    if not high > low:
        return Ticks((low,), (f"{low:g}",))
    step = _round_step((high - low) / (most + 1), whole=whole)
    while len(values := _multiples(low, high, step)) > most:
        step = _round_step(step * 1.01, whole=whole)
    largest = max((abs(value) for value in values), default=0.0)
    power = 3 * math.floor(math.log10(largest) / 3 + 1e-9) if largest >= 1e4 or 0 < largest < 1e-2 else 0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + power)
    labels = [_label(value, power, decimals) for value in values]
    return Ticks(tuple(values), tuple(labels))


def _round_step(least: float, *, whole: bool) -> float:
    if not least > 0 or not math.isfinite(least):
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    return max(1.0, step) if whole else step


def _multiples(low: float, high: float, step: float) -> list[float]:
    slack = 1e-9 * min(step, high - low)
    first, last = math.ceil((low - slack) / step), math.floor((high + slack) / step)
    return [index * step for index in range(first, last + 1)]


def _label(value: float, power: int, decimals: int) -> str:
    if value == 0:
        return "0"
    suffix = "" if power == 0 else _SUFFIXES.get(power, f"e{power}")
    return f"{value / 10.0**power:.{decimals}f}{suffix}"


def log_ticks(low: float, high: float, most: int) -> Ticks:
    """At most `most` ticks on a logarithmic axis, 0 < low <= high: powers of ten, 2 and 5 between if there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [
            factor * 10.0**power
            for power in range(first, last + 1)
            for factor in factors
            if low * (1 - 1e-9) <= factor * 10.0**power <= high * (1 + 1e-9)
        ]
        if len(values) <= most:
            break
    values = values[:: -(-len(values) // max(1, most)) or 1]
    if len(values) < 2:
        return linear_ticks(low, high, most)
    return Ticks(tuple(values), tuple(_log_label(value) for value in values))


def _log_label(value: float) -> str:
    power = math.floor(math.log10(value) + 1e-9)
    if -4 <= power <= 3:
        return f"{value:.{max(0, -power)}f}"
    thousands = 3 * (power // 3)
    return f"{value / 10.0**thousands:.0f}{_SUFFIXES.get(thousands, f'e{thousands}')}"


def time_ticks(low: float, high: float, most: int) -> Ticks:
    """Ticks of an axis in seconds, at round seconds, minutes, hours or days: `30s`, `1m30s`, `2h`."""
    if high - low <= most / 2:
        plain = linear_ticks(low, high, most)
        return Ticks(plain.values, tuple(label if label == "0" else f"{label}s" for label in plain.labels))
    days = 86400 * _round_step((high - low) / max(1, most - 1) / 86400, whole=True)
    step = next((step for step in _TIME_STEPS if len(_multiples(low, high, step)) <= most), days)
    values = _multiples(low, high, step)
    return Ticks(tuple(values), tuple(_clock(round(value)) for value in values))


def _clock(seconds: int) -> str:
    if seconds == 0:
        return "0"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    parts = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return sign + "".join(f"{count}{unit}" for count, unit in parts if count)
