"""What the set-ups of a grid cost: how many steps, samples and seconds of their own they take to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from labbench.analysis.answer import Answer
from labbench.analysis.comparison import mean_intervals
from labbench.analysis.costs import CostCurve, Reach, observe_areas, observe_costs, summarize_costs
from labbench.analysis.intervals import Interval
from labbench.analysis.lr_ranges import RANGE_TOLERANCE
from labbench.analysis.noise import learn_noise
from labbench.analysis.rescale import rescale_observations, restore_unit
from labbench.analysis.table import freeze, tabulate
from labbench.json_documents import to_json_value
from labbench.records import Goal

Axis: TypeAlias = Literal["steps", "samples", "seconds"]
AXES: tuple[Axis, ...] = ("steps", "samples", "seconds")
MAX_SHOWN = 10


@dataclass(frozen=True, slots=True)
class SetupCosts:
    """What one set-up costs."""

    config: Mapping[str, Any]
    """Without its seed."""
    differing: Mapping[str, Any]
    """The part of it that varies in the grid."""
    reached: Mapping[Axis, Reach]
    """Those costs that were recorded."""
    area: Interval | None
    """Mean height of its curves from their start to the last step of all; None where a curve is broken or a point."""

    @property
    def always_reaches_target(self) -> bool:
        """Every run of it reaches the target."""
        return self.reached["steps"].reached == self.reached["steps"].runs


@dataclass(frozen=True, slots=True)
class Efficiency:
    """How fast set-ups reach a target."""

    target: float
    asked: bool
    """The target was given; else it is 5 % short of the best set-up's mean."""
    setups: tuple[SetupCosts, ...]
    """The quickest in steps first, those of which every run gets there before the others; at most `MAX_SHOWN`."""
    never: int
    """Set-ups of which no run gets there."""
    total: int

    def as_document(self) -> dict[str, Any]:
        """Plain values for JSON; a cost that fewer than half of the runs paid is null."""
        setups = [
            {
                "config": dict(one.config),
                "reached": one.reached["steps"].reached,
                "runs": one.reached["steps"].runs,
                **{axis: cost.median for axis, cost in one.reached.items()},
                "area": None if one.area is None else [one.area.mean, one.area.low, one.area.high],
            }
            for one in self.setups
        ]
        document = {"target": self.target, "asked": self.asked, "never": self.never, "setups": setups}
        return {key: to_json_value(value) for key, value in document.items()}


def compare_costs(answer: Answer, curves: Sequence[CostCurve], target: float | None = None) -> Efficiency | None:
    """What it costs each set-up to reach `target`; None where runs were measured once only, or there is no result."""
    if answer.best is None or sum(len(curve.steps) > 1 for curve in curves) <= len(curves) / 2:
        return None
    goal, asked = answer.goal, target is not None
    best = answer.best.interval.mean
    short = RANGE_TOLERANCE * abs(best) * (-1.0 if goal == "max" else 1.0)
    wanted = best + short if target is None else target
    judged = tuple(answer.best.differing)
    reached: dict[object, dict[Axis, Reach]] = {}
    configs: dict[object, Mapping[str, Any]] = {}
    for axis in AXES:
        if any(curve.axis(axis) is None for curve in curves):
            continue
        for setup in tabulate(observe_costs(curves, wanted, goal, axis=axis)).setups:
            configs[freeze(setup.config)] = setup.config
            reached.setdefault(freeze(setup.config), {})[axis] = summarize_costs(setup)
    heights = _area_intervals(curves)
    setups = [
        SetupCosts(config, {name: config.get(name) for name in judged}, reached[key], heights.get(key))
        for key, config in configs.items()
    ]
    ordered = sorted(setups, key=lambda one: (*_speed_key(one), _area_key(one, goal)))
    there = tuple(one for one in ordered if one.reached["steps"].reached)
    return Efficiency(wanted, asked, there[:MAX_SHOWN], len(setups) - len(there), len(setups))


def _area_intervals(curves: Sequence[CostCurve]) -> dict[object, Interval]:
    """By set-up: the mean area, with its interval."""
    last = max(float(curve.steps[-1]) for curve in curves if len(curve.steps))
    observations, unit = rescale_observations(observe_areas(curves, until=last))
    table = tabulate(observations).with_values()
    if not table.setups:
        return {}
    intervals = restore_unit(tuple(mean_intervals(table, learn_noise(table))), unit)
    found = zip(table.setups, intervals, strict=True)
    return {freeze(setup.config): interval for setup, interval in found if not setup.diverged}


def _speed_key(spending: SetupCosts) -> tuple[bool, float]:
    median = spending.reached["steps"].median
    return (not spending.always_reaches_target, float("inf") if median is None else median)


def _area_key(spending: SetupCosts, goal: Goal) -> float:
    """Less for the better area: it decides between set-ups that are measured too rarely to tell who was first."""
    if spending.area is None:
        return float("inf")
    return spending.area.mean if goal == "min" else -spending.area.mean
