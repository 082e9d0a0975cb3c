"""What a result costs: steps, samples or seconds to a target, area under the curve, stability, learning-rate basins.

`observe_costs` and `observe_areas` give observations again, so that everything said of a metric (intervals, effects,
the best set-up) can be said of the steps to a target too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from labbench.analysis.intervals import Interval, share_interval
from labbench.analysis.noise import learn_noise
from labbench.analysis.table import Floats, Observation, Setup, Table, is_number
from labbench.records import Goal


@dataclass(frozen=True, slots=True)
class CostCurve:
    """A metric of one run, as it was measured. All arrays are (points,), in the order of the steps."""

    config: Mapping[str, Any]
    seed: int | None
    steps: Floats
    values: Floats
    samples: Floats | None = None
    """Training samples seen until each point."""
    seconds: Floats | None = None
    """The run's own compute seconds until each point (`time/compute_s`), not the wall time of its stack."""
    means: Floats | None = None
    """Where each value is the best of several neighbouring points, their means; they give the area."""

    def axis(self, name: Literal["steps", "samples", "seconds"]) -> Floats | None:
        """The cost until each point; None where it was not recorded."""
        return {"steps": self.steps, "samples": self.samples, "seconds": self.seconds}[name]


@dataclass(frozen=True, slots=True)
class Reach:
    """How often and how fast a set-up reaches a target."""

    reached: int
    runs: int
    median: float | None
    """Over all runs, those that never got there counting as later than any; None where fewer than half did."""


@dataclass(frozen=True, slots=True)
class Basin:
    """The learning rates around the best one at which a result stays within the tolerance."""

    best: float
    low: float
    high: float
    open_below: bool
    """`low` is the lowest that was tried: the basin may go on."""
    open_above: bool

    @property
    def decades(self) -> float:
        """Width as a power of ten: 1 from 0.01 to 0.1."""
        return math.log10(self.high / self.low)


@dataclass(frozen=True, slots=True)
class Stability:
    """How reliable a set-up is."""

    diverged: Interval
    """Share of its runs, with Wilson's interval."""
    runs: int
    spread: float | None
    """Standard deviation over seeds, steadied by that of the other set-ups; None for a set-up of a single seed."""


def cost_to_target(axis: Floats, values: Floats, target: float, goal: Goal) -> float | None:
    """The cost at the first point that is as good as the target; None where none is. Nothing is interpolated."""
    good = values >= target if goal == "max" else values <= target
    return float(axis[int(good.argmax())]) if good.any() else None


def area_under_curve(axis: Floats, values: Floats, *, until: float | None = None) -> float | None:
    """Mean height of the curve from its first point to `until` (its last point), linear between points.

    A curve that ends before `until` stays at its last value, as a run that was stopped early would have kept it.
    None where a value is not finite or there are fewer than two points: a broken curve has no area.
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
    """What each run paid to reach the target, as observations to compare.

    A run that did not get there has no value and counts as diverged: its set-up must not win by the runs that did.
    (`why(..., lost="never got there")` says it right.)
    """
    observed = []
    for curve in curves:
        along = curve.axis(axis)
        cost = None if along is None else cost_to_target(along, curve.values, target, goal)
        observed.append(Observation(curve.config, curve.seed, cost, cost, diverged=along is not None and cost is None))
    return observed


def observe_areas(
    curves: Iterable[CostCurve], *, axis: Literal["steps", "samples", "seconds"] = "steps", until: float | None = None
) -> list[Observation]:
    """The area under each run's curve, as observations to compare; give `until` where curves differ in length."""
    observed = []
    for curve in curves:
        along = curve.axis(axis)
        heights = curve.values if curve.means is None else curve.means
        area = None if along is None else area_under_curve(along, heights, until=until)
        observed.append(Observation(curve.config, curve.seed, area, diverged=_is_broken(heights)))
    return observed


def _is_broken(values: Floats) -> bool:
    return not np.isfinite(values).all()


def summarize_costs(setup: Setup) -> Reach:
    """Sum up a set-up whose values are the `observe_costs` of its runs."""
    late = setup.values + (math.inf,) * (setup.runs - len(setup.values))
    median = float(np.median(late)) if late else math.inf
    return Reach(len(setup.values), setup.runs, median if math.isfinite(median) else None)


def setup_stability(table: Table) -> list[Stability]:
    """Of each set-up, in the table's order."""
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
    """The learning rates next to the best one whose value is within 5 % of `best` (default: their own best value).

    A value of None or NaN (diverged, failed) ends the basin. None where not even the best rate is within.
    """
    tried = sorted((rate, _finite_or_none(value)) for rate, value in zip(rates, values, strict=True) if rate > 0)
    known = [(value if goal == "max" else -value, i) for i, (_, value) in enumerate(tried) if value is not None]
    if not known:
        return None
    top, at = max(known)
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
