"""Cost of a result: cost of a target, area under the curve, stability, learning-rate basins.

The cost of a target is the steps, samples or compute seconds until a run reaches it.
`observe_costs` and `observe_areas` return observations, so that the statistics for metrics (intervals, effects, best
configuration) apply to the cost of a target too. Arrays have shape (P,): the P points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from labbench.analysis.intervals import Interval, share_interval
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import Floats, Observation, Setup, Table, is_number
from labbench.metrics import Goal


@dataclass(frozen=True, slots=True)
class CostCurve:
    """A metric of one run over its steps, with the cost at each point.

    All arrays have shape (P,), ordered by step.
    """

    config: Mapping[str, Any]
    seed: int | None
    steps: Floats
    values: Floats
    """Metric at each point, or the best value of each bucket of points."""
    samples: Floats | None = None
    """Training samples seen up to each point."""
    seconds: Floats | None = None
    """Compute seconds of the run up to each point (`time/compute_s`), not the wall time of its stack."""
    means: Floats | None = None
    """Mean of each bucket, used for the area; None if `values` are single points."""

    def axis(self, name: Literal["steps", "samples", "seconds"]) -> Floats | None:
        """Return the cost at each point, shape (P,); None if it was not recorded."""
        return {"steps": self.steps, "samples": self.samples, "seconds": self.seconds}[name]


@dataclass(frozen=True, slots=True)
class Reach:
    """Number of a configuration's runs that reach a target, and their median cost."""

    reached: int
    """Number of runs that reach the target."""
    runs: int
    """Number of all runs."""
    median: float | None
    """Median cost over all runs; runs that miss the target count as infinite. None if the median is infinite."""


@dataclass(frozen=True, slots=True)
class Basin:
    """Range of learning rates around the best one whose results are within the tolerance."""

    best: float
    """Best learning rate."""
    low: float
    """Smallest learning rate of the range."""
    high: float
    """Largest learning rate of the range."""
    open_below: bool
    """True if `low` is the smallest rate tried, so that the range may extend below it."""
    open_above: bool
    """True if `high` is the largest rate tried, so that the range may extend above it."""

    @property
    def decades(self) -> float:
        """Width in powers of ten: 1 for 0.01 to 0.1."""
        return math.log10(self.high / self.low)


@dataclass(frozen=True, slots=True)
class Stability:
    """Share of diverged runs and spread over seeds of one configuration."""

    diverged: Interval
    """Share of diverged runs, 0 to 1, with Wilson's interval."""
    runs: int
    """Number of runs."""
    spread: float | None
    """Standard deviation over seeds, moderated across configurations; None without values or repeated seeds."""


def cost_to_target(axis: Floats, values: Floats, target: float, goal: Goal) -> float | None:
    """Return the cost at the first point that reaches the target; None if no point does.

    `axis` and `values` have shape (P,). Costs are not interpolated between points.
    """
    good = values >= target if goal == "max" else values <= target
    return float(axis[int(good.argmax())]) if good.any() else None


def area_under_curve(axis: Floats, values: Floats, *, until: float | None = None) -> float | None:
    """Return the mean height of a curve from its first point to `until`, by the trapezoidal rule.

    `axis` and `values` have shape (P,); `until` defaults to the last point. A curve that ends before `until` keeps its
    last value, as after early stopping. None if a value is not finite or there are fewer than two points.
    """
    end = float(axis[-1]) if until is None and len(axis) else until
    if len(axis) < 2 or end is None or end <= axis[0] or _is_broken(values):
        return None
    inside = axis < end
    x = np.append(axis[inside], end)
    y = np.append(values[inside], np.interp(end, axis, values))
    return float(((y[1:] / 2.0 + y[:-1] / 2.0) * (np.diff(x) / (end - axis[0]))).sum())


def observe_costs(
    curves: Iterable[CostCurve], target: float, goal: Goal, *, axis: Literal["steps", "samples", "seconds"] = "steps"
) -> list[Observation]:
    """Return the cost of reaching the target as one observation per run.

    A run that does not reach the target has no value and counts as diverged, so that its configuration cannot win by
    its other runs. Pass `AnswerOptions(lost="never got there")` to `why` for the right wording.
    """
    observed = []
    for curve in curves:
        costs = curve.axis(axis)
        cost = None if costs is None else cost_to_target(costs, curve.values, target, goal)
        observed.append(Observation(curve.config, curve.seed, cost, cost, diverged=costs is not None and cost is None))
    return observed


def observe_areas(
    curves: Iterable[CostCurve], *, axis: Literal["steps", "samples", "seconds"] = "steps", until: float | None = None
) -> list[Observation]:
    """Return the area under each curve as one observation per run.

    Pass `until` if curves differ in length.
    """
    observed = []
    for curve in curves:
        costs = curve.axis(axis)
        heights = curve.values if curve.means is None else curve.means
        area = None if costs is None else area_under_curve(costs, heights, until=until)
        observed.append(Observation(curve.config, curve.seed, area, diverged=_is_broken(heights)))
    return observed


def _is_broken(values: Floats) -> bool:
    return not np.isfinite(values).all()


def summarize_costs(setup: Setup) -> Reach:
    """Return how many runs reach the target and their median cost, given a setup of `observe_costs`."""
    costs = setup.values + (math.inf,) * (setup.runs - len(setup.values))
    median = float(np.median(costs)) if costs else math.inf
    return Reach(len(setup.values), setup.runs, median if math.isfinite(median) else None)


def setup_stability(table: Table) -> list[Stability]:
    """Return the stability of each configuration, in the table's order."""
    noise = learn_noise(table.with_values())
    spread: dict[int, float] = {}
    if noise is not None:
        spread = dict(
            zip(np.flatnonzero(table.counts > 0).tolist(), np.sqrt(noise.total.variance).tolist(), strict=True)
        )
    return [
        Stability(share_interval(setup.diverged, setup.runs), setup.runs, spread.get(i))
        for i, setup in enumerate(table.setups)
    ]


def find_basin(
    rates: Sequence[float],
    values: Sequence[float | None],
    goal: Goal,
    *,
    best: float | None = None,
    within: float = 0.05,
) -> Basin | None:
    """Return the contiguous range of learning rates whose values are within a tolerance of `best`.

    `best` defaults to the best of `values`, the tolerance `within` is a share of it. A value of None or NaN (diverged,
    failed) ends the range. None if not even the best rate is within the tolerance.
    """
    tried = sorted((rate, _finite_or_none(value)) for rate, value in zip(rates, values, strict=True) if rate > 0)
    heights = [(value if goal == "max" else -value, i) for i, (_, value) in enumerate(tried) if value is not None]
    if not heights:
        return None
    top, at = max(heights)
    reference = top if best is None else (best if goal == "max" else -best)
    limit = reference - within * abs(reference)
    inside = [value is not None and (value if goal == "max" else -value) >= limit for _, value in tried]
    if not inside[at]:
        return None
    low = high = at
    while low > 0 and inside[low - 1]:
        low -= 1
    while high < len(tried) - 1 and inside[high + 1]:
        high += 1
    return Basin(tried[at][0], tried[low][0], tried[high][0], low == 0, high == len(tried) - 1)


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and is_number(value) else None
