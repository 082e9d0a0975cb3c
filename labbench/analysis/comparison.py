"""The best set-up against the others, honestly: it was chosen for its numbers, and chosen numbers flatter.

- The comparison with the runner-up needs no correction: that the best is better than the runner-up is the hardest of
  all its comparisons, and the plain two-sided test of it keeps its level after selection (Gutmann & Maymin 1987;
  Hung & Fithian 2019, doi:10.1214/18-AOS1696).
- The interval of the best mean does: its lower side (the flattered one) holds for the best of as many set-ups as
  could have won, the upper side is the plain one.
- What to expect of new seeds is measured, not modelled: choose with all seeds but one, look at the one left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.distributions import t_quantile, t_tail
from labbench.analysis.intervals import Interval, VarianceEstimate
from labbench.analysis.noise import Noise
from labbench.analysis.table import Floats, Ints, Table, weighted_sum
from labbench.records import Goal

RIVAL_LEVEL = 0.999
"""Those not behind at this level could have been chosen; counting too few would narrow the winner's interval."""
POWER = 0.8
"""Chance to tell a difference, at the number of seeds that is called enough."""
MAX_SEEDS = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """Best minus runner-up, in the metric's own unit (negative is better where the goal is min)."""

    interval: Interval
    pairs: int
    """Seeds that both were trained with and that the difference was judged on; 0 where it was not paired."""
    probability: float | None
    """That a new run of the best beats a new run of the runner-up, one with the same seed where the difference was
    judged on pairs; None where nothing tells of the spread."""
    seeds_needed: int | None
    """Seeds for each that would tell a difference of this size (80 % of the time); None where unknown or over 200."""

    @property
    def clear(self) -> bool:
        """The interval leaves 0 out."""
        return self.interval.excludes(0.0)


def rank_setups(table: Table, goal: Goal) -> Ints:
    """Indices of set-ups from best to worst mean; those of which a run diverged come after all others."""
    unsafe = np.array([setup.diverged > 0 for setup in table.setups])
    return np.lexsort((orient(table.means, goal) * -1.0, unsafe)).astype(np.int64)


def orient(values: Floats, goal: Goal) -> Floats:
    """Values whose greater is better."""
    return values if goal == "max" else -values


def compare(table: Table, noise: Noise | None, first: int, second: int, goal: Goal) -> Difference:
    """The set-ups at two indices."""
    weights, pairs = _difference_weights(table, first, second)
    centre = float(weighted_sum(weights, table.value))
    if noise is None:
        return Difference(Interval(centre), pairs, None, None)
    spread = noise.variance_of_values(weights)
    if pairs:
        runs, seeds = pairs * spread.variance, pairs
    else:
        runs, seeds = float(noise.total.variance[[first, second]].sum()), int(table.counts[[first, second]].min())
    probability = _probability_of_improvement(centre, spread, runs, goal)
    return Difference(
        spread.interval(centre),
        pairs,
        probability,
        _seeds_needed(centre, VarianceEstimate(runs, spread.total_df), seeds),
    )


def _difference_weights(table: Table, first: int, second: int) -> tuple[Floats, int]:
    """(values,): first minus second, over the seeds that both have where these are most; how many those are, else 0.

    Over all seeds too where the pairs would turn the order of the means round.
    """
    one, other = (
        {int(table.seed[place]): place for place in range(*np.searchsorted(table.owner, [i, i + 1]).tolist())}
        for i in (first, second)
    )
    both = one.keys() & other.keys()
    weights = np.zeros(len(table.value))
    if len(both) >= 2 and len(both) >= 0.75 * max(len(one), len(other)):
        weights[[one[seed] for seed in both]] = 1.0 / len(both)
        weights[[other[seed] for seed in both]] = -1.0 / len(both)
        if (weights @ table.value) * (table.means[first] - table.means[second]) >= 0:
            return weights, len(both)
        weights[:] = 0.0
    weights[list(one.values())], weights[list(other.values())] = 1.0 / len(one), -1.0 / len(other)
    return weights, 0


def _probability_of_improvement(centre: float, spread: VarianceEstimate, single_runs: float, goal: Goal) -> float:
    """Of a new run beating a new run, with the doubt about the means in it; a tie counts half."""
    scale = math.sqrt(spread.variance + single_runs)
    ahead = centre if goal == "max" else -centre
    if scale == 0.0:
        return 0.5 if ahead == 0 else float(ahead > 0)
    return 1.0 - t_tail(ahead / scale, spread.total_df)


def _seeds_needed(centre: float, spread: VarianceEstimate, seeds: int) -> int | None:
    """The number of seeds with which a difference of this size would show; `spread` is that of one pair."""

    def shows(n: int) -> bool:
        df = spread.df * (n - 1) / (seeds - 1) if seeds > 1 else n - 1.0
        reach = (t_quantile(0.975, df) + t_quantile(POWER, df)) * math.sqrt(spread.variance / n)
        return reach <= abs(centre)

    low, high = max(1, seeds - 1), MAX_SEEDS  # more seeds never show less
    if centre == 0.0 or not shows(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def contenders(table: Table, noise: Noise | None, best: int, goal: Goal, *, level: float = 0.95) -> NDArray[np.bool_]:
    """(set-ups,): those whose mean is not clearly behind the best one's; the best itself is one of them.

    Judged as `compare` judges the runner-up.
    """
    if noise is None:
        return np.ones(len(table.setups), dtype=np.bool_)
    found = np.ones(len(table.setups), dtype=np.bool_)
    for i in np.flatnonzero(np.arange(len(table.setups)) != best).tolist():
        weights, _ = _difference_weights(table, best, i)
        difference = weighted_sum(weights, table.value)
        interval = noise.variance_of_values(weights).interval(float(difference), level=level)
        found[i] = not interval.excludes(0.0) or orient(difference, goal) < 0
    return found


def _map_distinct(function: Callable[[float], float], values: Floats) -> Floats:
    """Apply a function of one number, once for each distinct value (to three digits: quantiles need no more)."""
    distinct, index = np.unique([float(f"{value:.3g}") for value in values], return_inverse=True)
    return np.array([function(float(value)) for value in distinct])[index]


def mean_intervals(table: Table, noise: Noise | None) -> list[Interval]:
    """Mean and 95 % interval of each set-up, as if it had been named beforehand."""
    if noise is None:
        return [Interval(float(mean)) for mean in table.means]
    variance, df = noise.variance_of_means()
    half = _map_distinct(lambda each: t_quantile(0.975, each), df) * np.sqrt(variance)
    return [Interval(float(m), float(m - h), float(m + h)) for m, h in zip(table.means, half, strict=True)]


def winner_interval(table: Table, noise: Noise | None, best: int, goal: Goal) -> Interval:
    """Mean and interval of the set-up that was chosen because its mean is best, out of k that could have been.

    Had k equal set-ups competed, the greatest of k errors must stay below the flattered side, so that side is at
    level 0.025 / k. The other side needs nothing: to be chosen in spite of an unlucky mean is rarer than unlucky.
    """
    mean = float(table.means[best])
    if noise is None:
        return Interval(mean)
    k = int(contenders(table, noise, best, goal, level=RIVAL_LEVEL).sum())
    variance, df = noise.variance_of_means()
    scale, degrees = math.sqrt(float(variance[best])), float(df[best])
    flattered, plain = (t_quantile(1.0 - tail, degrees) * scale for tail in (0.025 / k, 0.025))
    below, above = (flattered, plain) if goal == "max" else (plain, flattered)
    return Interval(mean, mean - below, mean + above)


def held_out_score(table: Table, goal: Goal) -> float | None:
    """The mean value of the winner on a seed that had no say in choosing it; None where set-ups share no two seeds.

    It is the fair forecast for "train the best one again with a new seed", slightly low, as one seed was held back.
    """
    eligible = [setup for setup in table.setups if not setup.diverged]
    seeds = [seed for seed in {seed for setup in eligible for seed in setup.seeds} if seed is not None]
    forecasts = []
    for seed in sorted(seeds):
        candidates = [_leave_seed_out(setup.values, setup.seeds, seed) for setup in eligible if seed in setup.seeds]
        chosen = [(others, left_out) for others, left_out in candidates if others is not None]
        if len(chosen) >= max(2, len(eligible) / 2):
            ranked = max(chosen, key=lambda pair: pair[0] if goal == "max" else -pair[0])
            forecasts.append(ranked[1])
    return float(np.mean(forecasts)) if len(forecasts) > 1 else None


def _leave_seed_out(values: tuple[float, ...], seeds: tuple[int | None, ...], seed: int) -> tuple[float | None, float]:
    """(mean of the values with other seeds, value with this seed)."""
    place = seeds.index(seed)
    others = values[:place] + values[place + 1 :]
    return (float(np.mean(others)) if others else None), values[place]
