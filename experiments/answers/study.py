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
from labbench.analysis.noise.levels import learn_level_noise
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import freeze, tabulate
from labbench.metrics import Goal, default_goal
from labbench.records import RunRecord
from labbench.reports.formatting import decimals_for, format_fixed, half_width, use_minus_sign
from labbench.store.reader import Reader
from labbench.text import format_number

SHARE_METRICS = ("train/accuracy", "val/accuracy", "test/accuracy")
"""Metrics between 0 and 1."""
MAX_DECIMALS = 4
"""Largest number of decimals with an interval; a narrower interval is not shown."""

Axis = Literal["steps", "samples", "seconds"]


class Study:
    """One metric of an experiment's runs.

    `settings` select configurations, as in `where(optimizer="adam")`; configurations are indices into `table`.
    """

    def __init__(self, observations: Sequence[Observation], metric: str, goal: Goal) -> None:
        self.observations, self.metric, self.goal = observations, metric, goal
        self.table = tabulate(observations).with_values()
        self.noise = learn_noise(self.table) if self.table.setups else None
        self.order = rank_setups(self.table, goal).tolist()

    def where(self, **settings: Any) -> list[int]:
        """Return the indices of the configurations with these settings that have a result, best first."""
        return [i for i in self.order if has_settings(self.table.setups[i].config, settings)]

    def config(self, setup: int) -> Mapping[str, Any]:
        """Return a configuration without its seed."""
        return self.table.setups[setup].config

    def mean(self, setups: Sequence[int]) -> Interval:
        """Return the mean over configurations."""
        return self.clip(self.contrast(dict.fromkeys(setups, 1 / len(setups))))

    def difference(self, first: Sequence[int], second: Sequence[int]) -> Interval:
        """Return the mean over `first` minus the mean over `second`."""
        return self.contrast(dict.fromkeys(first, 1 / len(first)), dict.fromkeys(second, 1 / len(second)))

    def contrast(self, plus: Mapping[int, float], minus: Mapping[int, float] | None = None) -> Interval:
        """Return a weighted sum of configurations' means, minus another one."""
        weights = {s: plus.get(s, 0.0) - (minus or {}).get(s, 0.0) for s in {**plus, **(minus or {})}}
        centre, spread = self._weighted_mean(weights)
        return Interval(centre) if spread is None else spread.interval(centre)

    def _weighted_mean(self, by_setup: Mapping[int, float]) -> tuple[float, VarianceEstimate | None]:
        """Return a weighted sum of configurations' means and its variance, None if the noise is unknown."""
        weights = np.zeros(len(self.table.setups))
        weights[list(by_setup)] = list(by_setup.values())
        variance = None if self.noise is None else self.noise.variance_of_combination(weights)
        return float(weights @ self.table.means), variance

    def average_difference(self, first: Sequence[int], second: Sequence[int]) -> Interval:
        """Return the mean over `first` minus the mean over `second`, two large groups of configurations.

        The runs of one seed may vary together within each group, as in the averages of `labbench why`.
        """
        groups = np.zeros((2, len(self.table.setups)))
        for row, setups in zip(groups, (first, second), strict=True):
            row[list(setups)] = 1 / len(setups)
        difference = groups[0] - groups[1]
        centre = float(difference @ self.table.means)
        if self.noise is None:
            return Interval(centre)
        return (
            learn_level_noise(self.noise, groups, groups.argmax(axis=0))
            .variance_of_combination(difference)
            .interval(centre)
        )

    def clip(self, interval: Interval) -> Interval:
        """Limit the interval of a metric in `SHARE_METRICS` to 0 and 1."""
        if interval.low is None or interval.high is None or self.metric not in SHARE_METRICS:
            return interval
        return Interval(interval.mean, max(interval.low, 0.0), min(interval.high, 1.0))

    def winner(self, **settings: Any) -> Interval | None:
        """Return the mean of the best of these configurations, adjusted for the selection as in `labbench why`."""
        setups = self.where(**settings)
        if not setups:
            return None
        return self.clip(self._contrast_of_winners({setups[0]: 1.0}, self._count_rivals(setups), 1))

    def lead(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Interval:
        """Return the best of `first` minus the best of `second`; the interval is adjusted for both selections."""
        plus, minus = self.where(**first), self.where(**second)
        return self._contrast_of_winners(
            {plus[0]: 1.0, minus[0]: -1.0}, self._count_rivals(plus), self._count_rivals(minus)
        )

    def _count_rivals(self, setups: Sequence[int]) -> int:
        """Count the configurations, sorted best first, that are not significantly behind the best."""
        if self.noise is None:
            return 1
        close = contenders(self.table, self.noise, setups[0], self.goal, level=RIVAL_LEVEL)
        return int(close[list(setups)].sum())

    def _contrast_of_winners(self, weights: Mapping[int, float], plus_rivals: int, minus_rivals: int) -> Interval:
        """Return a contrast of winners, given the numbers of rivals of the positive and of the negative one.

        The largest of k errors exceeds the quantile of level 0.025 / k with probability 0.025 at most (Bonferroni), so
        this is the length of the interval on the side that the selection biases.
        """
        centre, variance = self._weighted_mean(weights)
        if variance is None:
            return Interval(centre)
        plus, minus = (variance.interval(centre, level=1 - 0.05 / rivals) for rivals in (plus_rivals, minus_rivals))
        if self.goal == "min":
            plus, minus = minus, plus
        return Interval(centre, plus.low, minus.high)

    def usable_rates(self, **settings: Any) -> Basin | None:
        """Return the learning rates within 5 % of the best of these configurations; rates that diverge are excluded."""
        setups = tabulate(o for o in self.observations if has_settings(o.config, settings)).setups
        rates = [setup.config["lr"] for setup in setups]
        values = [float(np.mean(s.values)) if s.values and not s.diverged else None for s in setups]
        return find_basin(rates, values, self.goal)


def take_logarithms(observations: Iterable[Observation]) -> list[Observation]:
    """Return observations with the natural logarithm of each value; 0 becomes a missing value."""
    return [replace(o, value=math.log(o.value) if o.value else None) for o in observations]


def factor(logarithm: Interval, unit: float = 1.0) -> Interval:
    """Return exp of an interval, divided by `unit`; a difference of logarithms becomes a factor."""
    if logarithm.low is None or logarithm.high is None:
        return Interval(math.exp(logarithm.mean) / unit)
    return Interval(*(math.exp(limit) / unit for limit in (logarithm.mean, logarithm.low, logarithm.high)))


def setup_key(config: Mapping[str, Any]) -> object:
    """Return a hashable key of a configuration without its seed."""
    return freeze({key: value for key, value in config.items() if key != "seed"})


def has_settings(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return True if a configuration has all of these settings."""
    return all(freeze(config.get(key)) == freeze(value) for key, value in settings.items())


class Experiment:
    """The runs of one experiment in a database."""

    def __init__(self, reader: Reader, name: str) -> None:
        self.reader, self.name = reader, name
        self.runs: list[RunRecord] = reader.runs(f"experiment={name}")

    def study(self, metric: str = "val/accuracy", *, at: Literal["best", "last"] = "best") -> Study:
        """Return a study of a metric's best or last values."""
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
        """Number of seeds."""
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
        costs = [
            np.array([cost_by_step[step] for step in steps.tolist()])
            for cost_by_step in (
                dict(zip(*(part.tolist() for part in self.reader.series(run.key, name)), strict=True))
                for name in ("samples", "time/compute_s")
            )
        ]
        return CostCurve(run.config, run.config.get("seed"), steps.astype(np.float64), values, *costs)

    def costs(self, target: float, axis: Axis, metric: str = "val/accuracy") -> Study:
        """Return a study of the logarithm of the cost to reach the target; `factor` inverts the logarithm.

        Configurations that do not reach the target with every seed are left out.
        """
        curves = [curve for run in self.runs if len((curve := self._curve(run, metric)).steps)]
        costs = observe_costs(curves, target, "max", axis=axis)
        missed = {setup_key(o.config) for o in costs if not o.value}
        return Study(take_logarithms(o for o in costs if setup_key(o.config) not in missed), axis, "min")


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x ** exponent, fitted by least squares of the logarithms."""

    factor: float
    exponent: Interval
    """Exponent with Student's t interval from the residuals."""
    largest_deviation: float
    """Largest deviation of a point, relative to the fitted value."""

    def at(self, x: float) -> float:
        """Return the fitted value at x."""
        return self.factor * x**self.exponent.mean


def power_law(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw:
    """Fit a power law to three or more points by linear regression of the logarithms."""
    u, v = np.log(xs), np.log(ys)
    centred = u - u.mean()
    slope = float(centred @ v / (centred @ centred))
    residuals = v - v.mean() - slope * centred
    error = math.sqrt(float(residuals @ residuals) / (len(u) - 2) / float(centred @ centred))
    half = t_quantile(0.975, len(u) - 2.0) * error
    factor = math.exp(float(v.mean() - slope * u.mean()))
    return PowerLaw(factor, Interval(slope, slope - half, slope + half), float(np.abs(np.expm1(residuals)).max()))


def format_cell(interval: Interval | None) -> str:
    """Return `0.978 ± 0.004`, with the larger half-width of the interval, or a dash without a result."""
    if interval is None or math.isnan(interval.mean):
        return "–"
    decimals = decimals_for(half_width(interval))
    if decimals is None or decimals > MAX_DECIMALS:
        return use_minus_sign(format_number(interval.mean))
    return f"{format_fixed(interval.mean, decimals)} ± {format_fixed(half_width(interval), decimals)}"


def negate(interval: Interval) -> Interval:
    """Return the negated interval."""
    if interval.low is None or interval.high is None:
        return replace(interval, mean=-interval.mean)
    return Interval(-interval.mean, -interval.high, -interval.low)
