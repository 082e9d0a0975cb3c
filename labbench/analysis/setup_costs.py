"""Cost of each configuration of a grid: steps, samples and compute seconds to reach a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from labbench.analysis.answer import Answer
from labbench.analysis.comparison import mean_intervals
from labbench.analysis.costs import CostCurve, Reach, observe_areas, observe_costs, summarize_costs
from labbench.analysis.intervals import Interval
from labbench.analysis.lr_ranges import RANGE_TOLERANCE
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.scales.bounds import guess_bounds
from labbench.analysis.scales.rescale import rescale_observations, restore_unit
from labbench.analysis.table import Table, freeze, group_by_setup
from labbench.json_documents import to_json_value
from labbench.metrics import Goal

Axis: TypeAlias = Literal["steps", "samples", "seconds"]
AXES: tuple[Axis, ...] = ("steps", "samples", "seconds")
MAX_SHOWN = 10
"""Largest number of configurations in an `Efficiency`."""


@dataclass(frozen=True, slots=True)
class SetupCosts:
    """Cost of reaching a target for one configuration."""

    config: Mapping[str, Any]
    """Configuration without its seed."""
    differing: Mapping[str, Any]
    """Settings that vary in the grid."""
    reached: Mapping[Axis, Reach]
    """Cost on each axis that was recorded."""
    area: Interval | None
    """Mean height of its curves up to the last step of all curves; None for non-finite values or a single point."""

    @property
    def always_reaches_target(self) -> bool:
        """True if every run reaches the target."""
        return self.reached["steps"].reached == self.reached["steps"].runs


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Cost of reaching a target for all configurations."""

    target: float
    target_given: bool
    """True if the target was passed, False if it is 5 % short of the best configuration's mean."""
    setups: tuple[SetupCosts, ...]
    """Up to `MAX_SHOWN` configurations by steps, fewest first; those with runs that miss the target come last."""
    never: int
    """Number of configurations without a run that reaches the target."""
    total: int
    """Number of all configurations."""

    def as_document(self) -> dict[str, Any]:
        """Return values for JSON.

        A cost is null if fewer than half of the runs reach the target.
        """
        setups = [
            {
                "config": dict(costs.config),
                "reached": costs.reached["steps"].reached,
                "runs": costs.reached["steps"].runs,
                **{axis: reach.median for axis, reach in costs.reached.items()},
                "area": None if costs.area is None else [costs.area.mean, costs.area.low, costs.area.high],
            }
            for costs in self.setups
        ]
        document = {"target": self.target, "asked": self.target_given, "never": self.never, "setups": setups}
        return {key: to_json_value(value) for key, value in document.items()}


def compare_costs(answer: Answer, curves: Sequence[CostCurve], target: float | None = None) -> Efficiency | None:
    """Return the cost of reaching `target` for each configuration.

    `target` defaults to 5 % short of the best configuration's mean. None if at least half of the curves have
    fewer than two points, or if there is no result.
    """
    if answer.best is None or sum(len(curve.steps) > 1 for curve in curves) <= len(curves) / 2:
        return None
    goal = answer.goal
    best = answer.best.interval.mean
    margin = RANGE_TOLERANCE * abs(best) * (-1.0 if goal == "max" else 1.0)
    level = best + margin if target is None else target
    names = tuple(answer.best.differing)
    reached: dict[object, dict[Axis, Reach]] = {}
    configs: dict[object, Mapping[str, Any]] = {}
    for axis in AXES:
        if any(curve.axis(axis) is None for curve in curves):
            continue
        for setup in group_by_setup(observe_costs(curves, level, goal, axis=axis)):
            configs[freeze(setup.config)] = setup.config
            reached.setdefault(freeze(setup.config), {})[axis] = summarize_costs(setup)
    areas = _area_intervals(curves, answer.metric)
    setups = [
        SetupCosts(config, {name: config.get(name) for name in names}, reached[key], areas.get(key))
        for key, config in configs.items()
    ]
    ordered = sorted(setups, key=lambda costs: (*_speed_key(costs), _area_key(costs, goal)))
    reaching = tuple(costs for costs in ordered if costs.reached["steps"].reached)
    never = len(setups) - len(reaching)
    return Efficiency(level, target is not None, reaching[:MAX_SHOWN], never, len(setups))


def _area_intervals(curves: Sequence[CostCurve], metric: str) -> dict[object, Interval]:
    """Return the mean area and its interval, within the bounds of the metric, by frozen configuration."""
    last = max(float(curve.steps[-1]) for curve in curves if len(curve.steps))
    observations, unit = rescale_observations(observe_areas(curves, until=last))
    table = Table(group_by_setup(observations), ()).with_values()
    if not table.setups:
        return {}
    bounds = guess_bounds(metric, table)
    intervals = restore_unit(tuple(map(bounds.clip, mean_intervals(table, learn_noise(table)))), unit)
    pairs = zip(table.setups, intervals, strict=True)
    return {freeze(setup.config): interval for setup, interval in pairs if not setup.diverged}


def _speed_key(costs: SetupCosts) -> tuple[bool, float]:
    median = costs.reached["steps"].median
    return (not costs.always_reaches_target, float("inf") if median is None else median)


def _area_key(costs: SetupCosts, goal: Goal) -> float:
    """Return a sort key, smaller for a better area, which breaks ties in steps."""
    if costs.area is None:
        return float("inf")
    return costs.area.mean if goal == "min" else -costs.area.mean
