"""Which learning rates work, under each value of the other parameters, and which of those widen the range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labbench.analysis.answer import RateRange, Widening
from labbench.analysis.comparison import mean_intervals, orient, rank_setups
from labbench.analysis.costs import Basin, find_basin
from labbench.analysis.intervals import Interval
from labbench.analysis.noise import Noise
from labbench.analysis.table import Ints, Parameter, Table
from labbench.records import Goal

RANGE_TOLERANCE = 0.05
MAX_VALUES = 8
"""Of a parameter whose learning rates are listed by value."""
NO_RANGE_DECADES = -1.0
"""Decades of a range that does not exist, for comparison with one of a single learning rate (0)."""


@dataclass(frozen=True, slots=True)
class _SetupOutcome:
    """What one set-up came to: None where some run diverged, so that its learning rate is not usable."""

    interval: Interval | None


def find_widenings(everything: Table, noise: Noise | None, goal: Goal) -> tuple[Widening, ...]:
    """Parameters under one of whose values more learning rates come within 5 % of the best than under another.

    Told only where it holds for the best set-up's own settings and on average over all others, and where one of the
    learning rates gained is clearly out of reach without. That needs repeated seeds: without noise, nothing is clear.
    """
    rate = next((p for p in everything.independent if _is_learning_rate(p)), None)
    if rate is None or noise is None:
        return ()
    table = everything.with_values()
    kept = np.flatnonzero(everything.counts > 0)
    best = int(kept[rank_setups(table, goal)[0]])
    by_setup = dict(zip(kept.tolist(), mean_intervals(table, noise), strict=True))
    outcomes = {
        i: _SetupOutcome(None if setup.diverged else by_setup[i])
        for i, setup in enumerate(everything.setups)
        if setup.diverged or i in by_setup  # a set-up that failed tells nothing
    }
    others = [
        p for p in everything.independent if p is not rate and p.parent is None and not p.spans and len(p.levels) <= 4
    ]
    found = [_RangeComparison(everything, rate, p, outcomes, goal).find_widening(best) for p in others]
    return tuple(widening for widening in found if widening is not None)


def find_rate_ranges(everything: Table, goal: Goal) -> tuple[RateRange, ...]:
    """The learning rates within 5 % of the best of all, by the value of each parameter that has few values.

    For each rate and value the best set-up counts, of those of which no run diverged: what one gets by tuning the rest.
    """
    rate = next((p for p in everything.independent if _is_learning_rate(p)), None)
    heights = orient(everything.means, goal)
    safe = np.array([not setup.diverged for setup in everything.setups]) & ~np.isnan(heights)
    if rate is None or not safe.any():
        return ()
    top = float(heights[safe].max())
    found = []
    for p in everything.independent:
        if p is rate or p.parent is not None or p.spans or len(p.levels) > MAX_VALUES:
            continue
        for code, value in enumerate(p.levels):
            rows = np.flatnonzero((p.codes == code) & safe)
            best: dict[float, float] = {float(level): -np.inf for level in rate.levels}
            for i in rows.tolist():
                level = float(rate.levels[rate.codes[i]])
                best[level] = max(best[level], float(heights[i]))
            known = {level: height for level, height in best.items() if np.isfinite(height)}
            values = [known.get(level) for level in best]
            found.append(
                RateRange(
                    p.name, value, rate.name, find_basin(list(best), values, "max", best=top, within=RANGE_TOLERANCE)
                )
            )
    return tuple(found)


def _is_learning_rate(parameter: Parameter) -> bool:
    named = parameter.name.split(".")[-1] in ("lr", "learning_rate")
    positive = parameter.numeric and parameter.levels[0] is not None and parameter.levels[0] > 0
    return named and positive and len(parameter.levels) >= 3 and parameter.spans is None


@dataclass(frozen=True)
class _RangeComparison:
    """The learning rates that work under each value of one parameter."""

    table: Table
    rate: Parameter
    parameter: Parameter
    outcomes: Mapping[int, _SetupOutcome]
    goal: Goal

    def find_widening(self, best: int) -> Widening | None:
        """None where no value is clearly more forgiving than another."""
        settings = self._settings()
        here = np.flatnonzero(settings == settings[best])
        basins = self._basins(here)
        wide = max(basins, key=lambda level: _basin_decades(basins[level]))
        narrow = min(basins, key=lambda level: _basin_decades(basins[level]))
        gained, without = basins[wide], basins[narrow]
        # a value under which no rate comes near the best is worse, which is not the same as less forgiving
        if gained is None or without is None or gained.decades <= without.decades:
            return None
        elsewhere = [self._basins(np.flatnonzero(settings == s)) for s in range(int(settings.max()) + 1)]
        gains = [_basin_decades(f[wide]) - _basin_decades(f[narrow]) for f in elsewhere if wide in f and narrow in f]
        if sum(gains) <= 0 or not self._loses_rate(here, gained, narrow):
            return None
        levels = self.parameter.levels
        return Widening(self.parameter.name, self.rate.name, levels[wide], gained, levels[narrow], without)

    def _settings(self) -> Ints:
        """(set-ups,): number of the setting of everything but the learning rate and the parameter looked at."""
        judged = self.table.independent
        others = [
            p.codes
            for p in judged
            if p is not self.rate and p is not self.parameter and p.parent != self.parameter.name
        ]
        if not others:
            return np.zeros(len(self.table.setups), dtype=np.int64)
        return np.unique(np.stack(others), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def _basins(self, rows: Ints) -> dict[int, Basin | None]:
        """By level: the usable rates among these set-ups, measured against the best of them all."""
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
        known = {self._rate_of_setup(i): self.outcomes[i].interval for i in rows.tolist() if i in self.outcomes}
        values = [None if interval is None else interval.mean for interval in known.values()]
        return find_basin(list(known), values, self.goal, best=top, within=RANGE_TOLERANCE)

    def _best_mean(self, rows: Ints) -> float | None:
        outcomes = (self.outcomes.get(i, _SetupOutcome(None)).interval for i in rows.tolist())
        means = [interval.mean for interval in outcomes if interval is not None]
        return (max if self.goal == "max" else min)(means, default=None)

    def _rate_of_setup(self, index: int) -> float:
        return float(self.rate.levels[self.rate.codes[index]])

    def _loses_rate(self, rows: Ints, wide: Basin, narrow: int) -> bool:
        """Some rate inside the wide range diverges under the narrow value, or its whole interval is beyond the 5 %."""
        top = self._best_mean(rows)
        for i in rows[self.parameter.codes[rows] == narrow].tolist():
            if top is None or i not in self.outcomes or not wide.low <= self._rate_of_setup(i) <= wide.high:
                continue
            interval = self.outcomes[i].interval
            nearest = None if interval is None else interval.high if self.goal == "max" else interval.low
            if nearest is None or (top - nearest if self.goal == "max" else nearest - top) > RANGE_TOLERANCE * abs(top):
                return True
        return False


def _basin_decades(found: Basin | None) -> float:
    return NO_RANGE_DECADES if found is None else found.decades
