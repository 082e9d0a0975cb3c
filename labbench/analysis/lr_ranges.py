"""Ranges of usable learning rates under each value of the other parameters, and parameters that widen them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labbench.analysis.answer import RateRange, Widening
from labbench.analysis.comparison import mean_intervals, orient
from labbench.analysis.costs import Basin, find_basin
from labbench.analysis.intervals import Scale
from labbench.analysis.noise.runs import Noise
from labbench.analysis.table import Floats, Parameter, Table
from labbench.metrics import Goal

RANGE_TOLERANCE = 0.05
"""Distance from the best result within which a learning rate is usable, as a share of the best result."""
MAX_VALUES = 8
"""Largest number of values of a parameter for which ranges are listed."""
MAX_WIDENING_VALUES = 4
"""Largest number of values of a parameter that may widen the range."""


def find_widenings(everything: Table, noise: Noise | None, goal: Goal, scale: Scale) -> tuple[Widening, ...]:
    """Return the parameters with a value under which more learning rates come within 5 % of the best.

    `find_rate_ranges` gives the ranges. A parameter is reported only if one of the gained learning rates is
    clearly outside the tolerance under the other value. Empty without repeated seeds (`noise` is None). On the scale
    `log`, the values of `everything` are logarithms.
    """
    tuned = _TunedRates.of(everything, goal, scale)
    if tuned is None or noise is None:
        return ()
    reaches = _best_reaches(everything, noise, goal, scale)
    widenings = (
        tuned.find_widening(p, reaches) for p in tuned.compared_parameters() if len(p.levels) <= MAX_WIDENING_VALUES
    )
    return tuple(widening for widening in widenings if widening is not None)


def find_rate_ranges(everything: Table, goal: Goal, scale: Scale) -> tuple[RateRange, ...]:
    """Return the learning rates within 5 % of the best result of all, by parameter value.

    Each pair of rate and value is represented by its best configuration without diverged runs, so the other parameters
    are tuned. Parameters with more than `MAX_VALUES` values are left out. On the scale `log`, the values of
    `everything` are logarithms.
    """
    tuned = _TunedRates.of(everything, goal, scale)
    if tuned is None:
        return ()
    return tuple(
        RateRange(p.name, value, tuned.rate.name, tuned.basin(p, code))
        for p in tuned.compared_parameters()
        for code, value in enumerate(p.levels)
    )


def _is_learning_rate(parameter: Parameter) -> bool:
    named = parameter.name.split(".")[-1] in ("lr", "learning_rate")
    positive = parameter.numeric and parameter.levels[0] is not None and parameter.levels[0] > 0
    return named and positive and len(parameter.levels) >= 3 and parameter.spans is None


def _best_reaches(everything: Table, noise: Noise, goal: Goal, scale: Scale) -> Floats:
    """Return the better limit of each configuration's interval, oriented, shape (C,).

    Minus infinity for configurations with diverged runs, whose rates are not usable; infinity without a result, which
    says nothing about the rate.
    """
    reaches = np.full(len(everything.setups), np.inf)
    intervals = mean_intervals(everything.with_values(), noise)
    if scale == "log":
        intervals = [interval.exponential() for interval in intervals]
    limits = [i.high if goal == "max" else i.low for i in intervals]
    reaches[everything.counts > 0] = orient(np.array(limits, dtype=np.float64), goal)
    reaches[[setup.diverged > 0 for setup in everything.setups]] = -np.inf
    return reaches


@dataclass(frozen=True)
class _TunedRates:
    """Best result at each learning rate, with the other parameters tuned. Shapes: C configurations."""

    table: Table
    rate: Parameter
    heights: Floats
    """Mean of each configuration, oriented; NaN without a result or with diverged runs, shape (C,)."""
    top: float
    """Largest of `heights`."""

    @classmethod
    def of(cls, everything: Table, goal: Goal, scale: Scale) -> _TunedRates | None:
        """Return the rates of a table; None if no learning rate varies, or all configurations have diverged runs."""
        rate = next((p for p in everything.independent if _is_learning_rate(p)), None)
        heights = orient(np.exp(everything.means) if scale == "log" else everything.means, goal)
        heights = np.where([setup.diverged > 0 for setup in everything.setups], np.nan, heights)
        if rate is None or np.isnan(heights).all():
            return None
        return cls(everything, rate, heights, float(np.nanmax(heights)))

    def compared_parameters(self) -> list[Parameter]:
        """Return the parameters whose values have ranges."""
        return [
            p
            for p in self.table.independent
            if p is not self.rate and p.parent is None and not p.spans and len(p.levels) <= MAX_VALUES
        ]

    def basin(self, parameter: Parameter, code: int) -> Basin | None:
        """Return the usable rates under one value of a parameter; None if there are none."""
        best = {float(level): -np.inf for level in self.rate.levels}
        for i in np.flatnonzero((parameter.codes == code) & ~np.isnan(self.heights)).tolist():
            best[self._rate_of(i)] = max(best[self._rate_of(i)], float(self.heights[i]))
        values = [height if np.isfinite(height) else None for height in best.values()]
        return find_basin(list(best), values, "max", best=self.top, within=RANGE_TOLERANCE)

    def find_widening(self, parameter: Parameter, reaches: Floats) -> Widening | None:
        """Return the widening from the narrowest to the widest range; None if the difference is not clear."""
        basins = {code: self.basin(parameter, code) for code in range(len(parameter.levels))}
        # a value without any usable rate is worse, but says nothing about the width of the range
        usable = {code: basin for code, basin in basins.items() if basin is not None}
        if len(usable) < len(basins):
            return None
        wide = max(usable, key=lambda code: usable[code].decades)
        narrow = min(usable, key=lambda code: usable[code].decades)
        if usable[wide].decades <= usable[narrow].decades or not self._loses_rate(parameter, narrow, usable, reaches):
            return None
        levels = parameter.levels
        return Widening(parameter.name, self.rate.name, levels[wide], usable[wide], levels[narrow], usable[narrow])

    def _loses_rate(self, parameter: Parameter, narrow: int, basins: Mapping[int, Basin], reaches: Floats) -> bool:
        """Return True if a rate of the widest range is clearly unusable under the value `narrow`.

        All its configurations have diverged runs, or intervals outside the tolerance.
        """
        wide = max(basins.values(), key=lambda basin: basin.decades)
        limit = self.top - RANGE_TOLERANCE * abs(self.top)
        by_rate: dict[float, float] = {}
        for i in np.flatnonzero(parameter.codes == narrow).tolist():
            rate = self._rate_of(i)
            by_rate[rate] = max(by_rate.get(rate, -np.inf), float(reaches[i]))
        return any(wide.low <= rate <= wide.high and reach < limit for rate, reach in by_rate.items())

    def _rate_of(self, index: int) -> float:
        return float(self.rate.levels[self.rate.codes[index]])
