"""Ranges of usable learning rates under each value of the other parameters, and parameters that widen them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labbench.analysis.answer import RateRange, Widening
from labbench.analysis.comparison import mean_intervals, orient, rank_setups
from labbench.analysis.costs import Basin, find_basin
from labbench.analysis.intervals import Interval, Scale
from labbench.analysis.noise import Noise
from labbench.analysis.table import Ints, Parameter, Table
from labbench.metrics import Goal

RANGE_TOLERANCE = 0.05
"""Distance from the best result within which a learning rate is usable, as a share of the best result."""
MAX_VALUES = 8
"""Largest number of values of a parameter for which ranges are listed."""
NO_RANGE_DECADES = -1.0
"""Width of an empty range in decades, below the 0 of a single learning rate."""


@dataclass(frozen=True, slots=True)
class _SetupOutcome:
    """Result of one configuration for the comparison of learning rates."""

    interval: Interval | None
    """Mean and interval; None if a run diverged, so that its learning rate is not usable."""


def find_widenings(everything: Table, noise: Noise | None, goal: Goal, scale: Scale) -> tuple[Widening, ...]:
    """Return the parameters with a value that brings more learning rates within 5 % of the best.

    A parameter is reported only if its range is wider at the best configuration's other settings and on average over
    all settings, and if one of the gained learning rates is clearly outside the tolerance under the other value. Empty
    without repeated seeds (`noise` is None). On the scale `log`, the values of `everything` are logarithms.
    """
    rate = next((p for p in everything.independent if _is_learning_rate(p)), None)
    if rate is None or noise is None:
        return ()
    table = everything.with_values()
    with_result = np.flatnonzero(everything.counts > 0)
    best = int(with_result[rank_setups(table, goal)[0]])
    intervals = mean_intervals(table, noise)
    if scale == "log":
        intervals = [interval.exponential() for interval in intervals]
    by_setup = dict(zip(with_result.tolist(), intervals, strict=True))
    outcomes = {
        i: _SetupOutcome(None if setup.diverged else by_setup[i])
        for i, setup in enumerate(everything.setups)
        if setup.diverged or i in by_setup  # failed configurations are ignored
    }
    others = [
        p for p in everything.independent if p is not rate and p.parent is None and not p.spans and len(p.levels) <= 4
    ]
    widenings = [_RangeComparison(everything, rate, p, outcomes, goal).find_widening(best) for p in others]
    return tuple(widening for widening in widenings if widening is not None)


def find_rate_ranges(everything: Table, goal: Goal, scale: Scale) -> tuple[RateRange, ...]:
    """Return the learning rates within 5 % of the best result of all, by parameter value.

    Each pair of rate and value is represented by its best configuration without diverged runs, so the other parameters
    are tuned. Parameters with more than `MAX_VALUES` values are left out. On the scale `log`, the values of
    `everything` are logarithms.
    """
    rate = next((p for p in everything.independent if _is_learning_rate(p)), None)
    heights = orient(np.exp(everything.means) if scale == "log" else everything.means, goal)
    safe = np.array([not setup.diverged for setup in everything.setups]) & ~np.isnan(heights)
    if rate is None or not safe.any():
        return ()
    top = float(heights[safe].max())
    ranges = []
    for p in everything.independent:
        if p is rate or p.parent is not None or p.spans or len(p.levels) > MAX_VALUES:
            continue
        for code, value in enumerate(p.levels):
            rows = np.flatnonzero((p.codes == code) & safe)
            best: dict[float, float] = {float(level): -np.inf for level in rate.levels}
            for i in rows.tolist():
                level = float(rate.levels[rate.codes[i]])
                best[level] = max(best[level], float(heights[i]))
            values = [height if np.isfinite(height) else None for height in best.values()]
            basin = find_basin(list(best), values, "max", best=top, within=RANGE_TOLERANCE)
            ranges.append(RateRange(p.name, value, rate.name, basin))
    return tuple(ranges)


def _is_learning_rate(parameter: Parameter) -> bool:
    named = parameter.name.split(".")[-1] in ("lr", "learning_rate")
    positive = parameter.numeric and parameter.levels[0] is not None and parameter.levels[0] > 0
    return named and positive and len(parameter.levels) >= 3 and parameter.spans is None


@dataclass(frozen=True)
class _RangeComparison:
    """Comparison of the usable learning rates under each value of one parameter.

    Shapes: C configurations, R rows (a subset of them, as indices).
    """

    table: Table
    rate: Parameter
    parameter: Parameter
    outcomes: Mapping[int, _SetupOutcome]
    goal: Goal

    def find_widening(self, best: int) -> Widening | None:
        """Return the widening from the narrowest to the widest range; None if the difference is not clear.

        `best` is the index of the best configuration.
        """
        settings = self._settings()
        best_rows = np.flatnonzero(settings == settings[best])
        basins = self._basins(best_rows)
        wide = max(basins, key=lambda level: _basin_decades(basins[level]))
        narrow = min(basins, key=lambda level: _basin_decades(basins[level]))
        wide_basin, narrow_basin = basins[wide], basins[narrow]
        # a value without any usable rate is worse, but says nothing about the width of the range
        if wide_basin is None or narrow_basin is None or wide_basin.decades <= narrow_basin.decades:
            return None
        by_setting = [self._basins(np.flatnonzero(settings == s)) for s in range(int(settings.max()) + 1)]
        gains = [_basin_decades(b[wide]) - _basin_decades(b[narrow]) for b in by_setting if wide in b and narrow in b]
        if sum(gains) <= 0 or not self._loses_rate(best_rows, wide_basin, narrow):
            return None
        levels = self.parameter.levels
        return Widening(self.parameter.name, self.rate.name, levels[wide], wide_basin, levels[narrow], narrow_basin)

    def _settings(self) -> Ints:
        """Return the index of the setting of all parameters but the rate and the compared one, shape (C,)."""
        others = [
            p.codes
            for p in self.table.independent
            if p is not self.rate and p is not self.parameter and p.parent != self.parameter.name
        ]
        if not others:
            return np.zeros(len(self.table.setups), dtype=np.int64)
        return np.unique(np.stack(others), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def _basins(self, rows: Ints) -> dict[int, Basin | None]:
        """Return the usable rates among the rows (R,) by level, relative to the best of these rows."""
        top = self._best_mean(rows)
        return (
            {}
            if top is None
            else {
                level: self._basin(rows[self.parameter.codes[rows] == level], top)
                for level in np.unique(self.parameter.codes[rows]).tolist()
            }
        )

    def _basin(self, rows: Ints, top: float) -> Basin | None:
        by_rate = {self._rate_of_setup(i): self.outcomes[i].interval for i in rows.tolist() if i in self.outcomes}
        values = [None if interval is None else interval.mean for interval in by_rate.values()]
        return find_basin(list(by_rate), values, self.goal, best=top, within=RANGE_TOLERANCE)

    def _best_mean(self, rows: Ints) -> float | None:
        outcomes = (self.outcomes.get(i, _SetupOutcome(None)).interval for i in rows.tolist())
        means = [interval.mean for interval in outcomes if interval is not None]
        return (max if self.goal == "max" else min)(means, default=None)

    def _rate_of_setup(self, index: int) -> float:
        return float(self.rate.levels[self.rate.codes[index]])

    def _loses_rate(self, rows: Ints, wide: Basin, narrow: int) -> bool:
        """Return True if a rate of the wide range is clearly unusable under the narrow value.

        It diverges there, or its whole interval is outside the tolerance.
        """
        top = self._best_mean(rows)
        for i in rows[self.parameter.codes[rows] == narrow].tolist():
            if top is None or i not in self.outcomes or not wide.low <= self._rate_of_setup(i) <= wide.high:
                continue
            interval = self.outcomes[i].interval
            nearest = None if interval is None else interval.high if self.goal == "max" else interval.low
            if nearest is None or (top - nearest if self.goal == "max" else nearest - top) > RANGE_TOLERANCE * abs(top):
                return True
        return False


def _basin_decades(basin: Basin | None) -> float:
    return NO_RANGE_DECADES if basin is None else basin.decades
