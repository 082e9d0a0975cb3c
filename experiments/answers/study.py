"""Metrics of an experiment's runs, with the confidence intervals of `labbench why`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from labbench.analysis import Observation, observe
from labbench.analysis.comparison import RIVAL_LEVEL, contenders, rank_setups
from labbench.analysis.costs import Basin, CostCurve, find_basin, observe_costs
from labbench.analysis.distributions import t_quantile
from labbench.analysis.intervals import Interval, VarianceEstimate
from labbench.analysis.noise import learn_noise
from labbench.analysis.table import freeze, tabulate
from labbench.records import Goal, RunRecord, default_goal
from labbench.reports.formatting import decimals_for, format_fixed, half_width, use_minus_sign
from labbench.store.reader import Reader
from labbench.text import format_number

SHARE_METRICS = ("train/accuracy", "val/accuracy", "test/accuracy")
"""Metrics between 0 and 1."""
MAX_DECIMALS = 4
"""Narrower intervals are not shown."""

Axis = Literal["steps", "samples", "seconds"]


class Study:
    """One metric of an experiment's runs. `wanted` selects set-ups by settings: `where(optimizer="adam")`."""

    def __init__(self, observations: Sequence[Observation], metric: str, goal: Goal) -> None:
        self.observations, self.metric, self.goal = observations, metric, goal
        self.table = tabulate(observations).with_values()
        self.noise = learn_noise(self.table) if self.table.setups else None
        self.order = rank_setups(self.table, goal).tolist()

    def where(self, **wanted: Any) -> list[int]:
        """Return the indices of the set-ups with these settings that have a result, best first."""
        return [i for i in self.order if has_settings(self.table.setups[i].config, wanted)]

    def config(self, setup: int) -> Mapping[str, Any]:
        return self.table.setups[setup].config

    def mean(self, setups: Sequence[int]) -> Interval:
        """Return the mean over set-ups."""
        return self.clip(self.contrast(dict.fromkeys(setups, 1 / len(setups))))

    def difference(self, first: Sequence[int], second: Sequence[int]) -> Interval:
        """Return the mean over `first` minus the mean over `second`."""
        return self.contrast(dict.fromkeys(first, 1 / len(first)), dict.fromkeys(second, 1 / len(second)))

    def contrast(self, plus: Mapping[int, float], minus: Mapping[int, float] | None = None) -> Interval:
        """Return a weighted sum of set-ups' means, minus another one."""
        weights = {s: plus.get(s, 0.0) - (minus or {}).get(s, 0.0) for s in {**plus, **(minus or {})}}
        centre, spread = self._weighted_mean(weights)
        return Interval(centre) if spread is None else spread.interval(centre)

    def _weighted_mean(self, by_setup: Mapping[int, float]) -> tuple[float, VarianceEstimate | None]:
        """Return a weighted sum of set-ups' means and its spread."""
        weights = np.zeros(len(self.table.setups))
        weights[list(by_setup)] = list(by_setup.values())
        return float(weights @ self.table.means), None if self.noise is None else self.noise.variance_of_combination(
            weights
        )

    def clip(self, interval: Interval) -> Interval:
        """Limit the interval of a metric in `SHARE_METRICS` to 0 and 1."""
        if interval.low is None or interval.high is None or self.metric not in SHARE_METRICS:
            return interval
        return Interval(interval.mean, max(interval.low, 0.0), min(interval.high, 1.0))

    def winner(self, **wanted: Any) -> Interval | None:
        """Return the best of these set-ups; its interval is adjusted for the selection, as in `labbench why`."""
        some = self.where(**wanted)
        return self.clip(self._contrast_of_winners({some[0]: 1.0}, self._count_rivals(some), 1)) if some else None

    def lead(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Interval:
        """Return the best of `first` minus the best of `second`; the interval is adjusted for both selections."""
        ours, theirs = self.where(**first), self.where(**second)
        return self._contrast_of_winners(
            {ours[0]: 1.0, theirs[0]: -1.0}, self._count_rivals(ours), self._count_rivals(theirs)
        )

    def _count_rivals(self, some: Sequence[int]) -> int:
        """Return how many of these set-ups, sorted best first, are not significantly behind the best."""
        if self.noise is None:
            return 1
        close = contenders(self.table, self.noise, some[0], self.goal, level=RIVAL_LEVEL)
        return int(close[list(some)].sum())

    def _contrast_of_winners(self, weights: Mapping[int, float], ours: int, theirs: int) -> Interval:
        """Return a contrast whose positive set-up was selected from `ours` rivals and whose negative one from `theirs`.

        Of k errors, the largest exceeds the quantile of level 0.025 / k with probability 0.025 at most (Bonferroni):
        the arm on the side that the selection biases has this length.
        """
        centre, spread = self._weighted_mean(weights)
        if spread is None:
            return Interval(centre)
        lucky, unlucky = (spread.interval(centre, level=1 - 0.05 / rivals) for rivals in (ours, theirs))
        if self.goal == "min":
            lucky, unlucky = unlucky, lucky
        return Interval(centre, lucky.low, unlucky.high)

    def usable_rates(self, **wanted: Any) -> Basin | None:
        """Return the learning rates within 5 % of the best of these set-ups, without those at which a run diverged."""
        some = [o for o in self.observations if has_settings(o.config, wanted)]
        setups = tabulate(some).setups
        rates = [setup.config["lr"] for setup in setups]
        values = [float(np.mean(s.values)) if s.values and not s.diverged else None for s in setups]
        return find_basin(rates, values, self.goal)


def take_logarithms(observations: Iterable[Observation]) -> list[Observation]:
    return [replace(one, value=math.log(one.value) if one.value else None) for one in observations]


def factor(logarithm: Interval, unit: float = 1.0) -> Interval:
    """Return exp of an interval, divided by `unit`; a difference of logarithms becomes a factor."""
    if logarithm.low is None or logarithm.high is None:
        return Interval(math.exp(logarithm.mean) / unit)
    return Interval(*(math.exp(end) / unit for end in (logarithm.mean, logarithm.low, logarithm.high)))


def setup_key(config: Mapping[str, Any]) -> object:
    """Return a hashable key of a configuration without its seed."""
    return freeze({key: value for key, value in config.items() if key != "seed"})


def has_settings(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(freeze(config.get(key)) == freeze(value) for key, value in wanted.items())


class Experiment:
    """The runs of one experiment in a database."""

    def __init__(self, reader: Reader, name: str) -> None:
        self.reader, self.name = reader, name
        self.runs: list[RunRecord] = reader.runs(f"experiment={name}")

    def study(self, metric: str = "val/accuracy", *, at: Literal["best", "last"] = "best") -> Study:
        goal = default_goal(metric)
        return Study(observe(self.runs, metric, goal, at=at), metric, goal)

    def factors(self, metric: str) -> Study:
        """Return a study of the logarithms of a metric's best values; `factor` turns differences into factors."""
        goal = default_goal(metric)
        return Study(take_logarithms(observe(self.runs, metric, goal)), metric, goal)

    def values(self, key: str) -> list[Any]:
        """Return the values of a parameter, in the order of the grid."""
        return list({freeze(run.config.get(key)): run.config.get(key) for run in self.runs}.values())

    @property
    def seeds(self) -> int:
        return len({run.config.get("seed") for run in self.runs})

    @property
    def seconds(self) -> float | None:
        """Seconds from the first run's start to the last run's end."""
        starts = [run.started for run in self.runs if run.started is not None]
        ends = [run.finished for run in self.runs if run.finished is not None]
        return max(ends) - min(starts) if starts and ends else None

    def _curve(self, run: RunRecord, metric: str) -> CostCurve:
        """Return a metric of a run over steps, samples and compute time."""
        steps, values = self.reader.series(run.key, metric)
        along = [
            np.array([known[step] for step in steps.tolist()])
            for known in (
                dict(zip(*(part.tolist() for part in self.reader.series(run.key, cost)), strict=True))
                for cost in ("samples", "time/compute_s")
            )
        ]
        return CostCurve(run.config, run.config.get("seed"), steps.astype(np.float64), values, *along)

    def costs(self, target: float, axis: Axis, metric: str = "val/accuracy") -> Study:
        """Return the logarithm of the cost to reach the target, by set-up, cheapest first.

        Set-ups that did not reach it with every seed are left out. `factor` inverts the logarithm.
        """
        curves = [curve for run in self.runs if len((curve := self._curve(run, metric)).steps)]
        paid = observe_costs(curves, target, "max", axis=axis)
        late = {setup_key(one.config) for one in paid if not one.value}
        return Study(take_logarithms(one for one in paid if setup_key(one.config) not in late), axis, "min")


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x ** exponent, fitted by least squares of the logarithms."""

    factor: float
    exponent: Interval
    """With a Student's t interval from the residuals."""
    strays: float
    """Largest deviation of a point, relative to the fitted value."""

    def at(self, x: float) -> float:
        return self.factor * x**self.exponent.mean


def power_law(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw:
    """Fit a power law to three or more points."""
    u, v = np.log(xs), np.log(ys)
    centred = u - u.mean()
    slope = float(centred @ v / (centred @ centred))
    left = v - v.mean() - slope * centred
    error = math.sqrt(float(left @ left) / (len(u) - 2) / float(centred @ centred))
    half = t_quantile(0.975, len(u) - 2.0) * error
    factor = math.exp(float(v.mean() - slope * u.mean()))
    return PowerLaw(factor, Interval(slope, slope - half, slope + half), float(np.abs(np.expm1(left)).max()))


def format_cell(interval: Interval | None) -> str:
    """Return `0.978 ± 0.004` with the longer arm of the interval, or a dash for no result."""
    if interval is None or math.isnan(interval.mean):
        return "–"
    shown = decimals_for(half_width(interval))
    if shown is None or shown > MAX_DECIMALS:
        return use_minus_sign(format_number(interval.mean))
    return f"{format_fixed(interval.mean, shown)} ± {format_fixed(half_width(interval), shown)}"


def negate(interval: Interval) -> Interval:
    """Return the negated interval."""
    if interval.low is None or interval.high is None:
        return replace(interval, mean=-interval.mean)
    return Interval(-interval.mean, -interval.high, -interval.low)
