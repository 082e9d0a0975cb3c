"""Compare the best configuration with the others, adjusted for its selection (the winner's curse).

- The comparison with the runner-up needs no adjustment: the plain two-sided test of best against runner-up keeps its
  level after selection (Gutmann & Maymin 1987; Hung & Fithian 2019, doi:10.1214/18-AOS1696).
- The interval of the best mean does: its optimistic side has a Bonferroni adjustment for the number of configurations
  that could have won (`winner_interval`); the other side is not adjusted.
- The result on new seeds is measured, not modelled: select on all seeds but one, evaluate on the held-out seed
  (`held_out_score`).

Shapes: C configurations, V values (one per configuration and seed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.distributions import t_quantile, t_tail
from labbench.analysis.intervals import Interval, VarianceEstimate
from labbench.analysis.noise.runs import Noise
from labbench.analysis.noise.variance import Moderation
from labbench.analysis.table import ROUNDING_TOLERANCE, Floats, Ints, Setup, Table, weighted_sum
from labbench.metrics import Goal

RIVAL_LEVEL = 0.999
"""Confidence level of the test that rules out a configuration as a possible winner.

A lower level rules out more configurations and makes the winner's interval too narrow.
"""
POWER = 0.8
"""Power of the test at the recommended number of seeds."""
MAX_SEEDS = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """Best minus runner-up, in the metric's unit (negative is better if the goal is min)."""

    interval: Interval
    pairs: int
    """Number of common seeds behind a paired difference; 0 if the difference is unpaired."""
    probability: float | None
    """Probability that a new run of the best beats a new run of the runner-up, 0 to 1.

    With `pairs`, both runs have the same seed. None if the noise is unknown.
    """
    seeds_needed: int | None
    """Seeds per configuration that detect a difference of this size with power 0.8; None if unknown or above 200."""
    ratio: Interval | None = None
    """Best divided by runner-up, if logarithms were analysed; `interval` is then this ratio in the metric's unit."""
    noise: VarianceEstimate | None = None
    """Variance of the difference, of logarithms if these were analysed; None if the noise is unknown."""
    moderation: Moderation | None = None
    """Variance of a difference over one seed, behind `noise`; None if the difference is unpaired."""

    @property
    def clear(self) -> bool:
        """True if the interval excludes 0."""
        return self.interval.excludes(0.0)


def rank_setups(table: Table, goal: Goal) -> Ints:
    """Return indices (C,) from best to worst mean score; configurations with diverged runs come last."""
    unsafe = np.array([setup.diverged > 0 for setup in table.setups])
    return np.lexsort((-table.mean_scores(goal), unsafe)).astype(np.int64)


def orient(values: Floats, goal: Goal) -> Floats:
    """Return values (any shape), negated if the goal is min: greater is better."""
    return values if goal == "max" else -values


def compare(table: Table, noise: Noise | None, first: int, second: int, goal: Goal) -> Difference:
    """Compare the configurations at indices `first` and `second` by a t interval of their difference.

    Paired over common seeds where most seeds are common, with the variance of the differences of this pair, moderated
    across similar pairs; else unpaired, with variances moderated across configurations (Smyth 2004) and Satterthwaite's
    degrees of freedom (1946).
    """
    places, terms, pairs = _difference_terms(table, first, second)
    weights = np.zeros(len(table.value))
    weights[places] = terms
    centre = float(weighted_sum(weights, table.value))
    if noise is None:
        return Difference(Interval(centre), pairs, None, None)
    moderation = noise.pairs.variance(first, second) if pairs else None
    if moderation is not None:
        spread = VarianceEstimate(moderation.variance / pairs, moderation.df)
        runs, seeds = moderation.variance, pairs
    else:
        spread = noise.variance_of_values(weights)
        runs, seeds = float(noise.total.variance[[first, second]].sum()), int(table.counts[[first, second]].min())
    probability = _probability_of_improvement(centre, spread, runs, goal)
    return Difference(
        spread.interval(centre),
        pairs,
        probability,
        _seeds_needed(centre, VarianceEstimate(runs, spread.total_df), seeds),
        noise=spread,
        moderation=moderation,
    )


def _difference_terms(table: Table, first: int, second: int) -> tuple[list[int], list[float], int]:
    """Return the indices and weights of the values in first minus second, and the number of paired seeds.

    The difference is paired over the common seeds if there are at least two of them and they are at least three
    quarters of the seeds of each configuration. Else, or if pairing reverses the order of the two means, it is unpaired
    over all seeds (0 pairs).
    """
    first_values, second_values = (
        {int(table.seed[place]): place for place in range(*np.searchsorted(table.owner, [i, i + 1]).tolist())}
        for i in (first, second)
    )
    common = [seed for seed in first_values if seed in second_values]
    if len(common) >= 2 and len(common) >= 0.75 * max(len(first_values), len(second_values)):
        places = [values[seed] for values in (first_values, second_values) for seed in common]
        weights = np.repeat([1.0, -1.0], len(common)) / len(common)
        if (weights @ table.value[places]) * (table.means[first] - table.means[second]) >= 0:
            return places, weights.tolist(), len(common)
    shares = [1.0 / len(first_values)] * len(first_values) + [-1.0 / len(second_values)] * len(second_values)
    return [*first_values.values(), *second_values.values()], shares, 0


def _probability_of_improvement(centre: float, spread: VarianceEstimate, single_runs: float, goal: Goal) -> float:
    """Return P(a new run of the first beats one of the second).

    By the t predictive distribution; a tie counts half.
    """
    scale = math.sqrt(spread.variance + single_runs)
    ahead = centre if goal == "max" else -centre
    if scale == 0.0:
        return 0.5 if ahead == 0 else float(ahead > 0)
    return 1.0 - t_tail(ahead / scale, spread.total_df)


def _seeds_needed(centre: float, spread: VarianceEstimate, seeds: int) -> int | None:
    """Return the number of seeds that detect the difference `centre` with `POWER`.

    Returns None if above `MAX_SEEDS`. `spread` is the variance of the difference of one pair of runs.
    """

    def detects(n: int) -> bool:
        df = spread.df * (n - 1) / (seeds - 1) if seeds > 1 else n - 1.0
        reach = (t_quantile(0.975, df) + t_quantile(POWER, df)) * math.sqrt(spread.variance / n)
        return reach <= abs(centre)

    low, high = max(1, seeds - 1), MAX_SEEDS  # bisection: the power never falls with more seeds
    if centre == 0.0 or not detects(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detects(middle) else (middle, high)
    return high


def contenders(table: Table, noise: Noise | None, best: int, goal: Goal, *, level: float = 0.95) -> NDArray[np.bool_]:
    """Return a mask (C,) of the best configuration and of those not clearly behind it.

    Each is compared with the best by the interval of `compare`, at `level`.
    """
    mask: NDArray[np.bool_] = contenders_at_levels(table, noise, best, goal, (level,))[0]
    return mask


def contenders_at_levels(
    table: Table, noise: Noise | None, best: int, goal: Goal, levels: Sequence[float]
) -> NDArray[np.bool_]:
    """Return the mask of `contenders` at each level, shape (levels, C)."""
    masks = np.ones((len(levels), len(table.setups)), dtype=np.bool_)
    if noise is None:
        return masks
    others = np.flatnonzero(np.arange(len(table.setups)) != best)
    if not len(others):
        return masks
    terms = [_difference_terms(table, best, i) for i in others.tolist()]
    combination = np.repeat(np.arange(len(others)), [len(places) for places, _, _ in terms])
    value = np.concatenate([places for places, _, _ in terms])
    weight = np.concatenate([weights for _, weights, _ in terms])
    products = weight * table.value[value]
    differences, sizes = (np.bincount(combination, each).astype(np.float64) for each in (products, np.abs(products)))
    differences[np.abs(differences) <= ROUNDING_TOLERANCE * sizes] = 0.0
    members = np.column_stack([np.full(len(others), best), others])
    variances = noise.variances_of_differences(members, combination, value, weight)
    for number, (other, (_, _, pairs)) in enumerate(zip(others.tolist(), terms, strict=True)):
        if pairs:
            moderation = noise.pairs.variance(best, other)
            variances[number] = VarianceEstimate(moderation.variance / pairs, moderation.df)
    ahead = orient(differences, goal) < 0
    for i, difference, variance, is_ahead in zip(others.tolist(), differences.tolist(), variances, ahead, strict=True):
        for mask, level in zip(masks, levels, strict=True):
            mask[i] = is_ahead or not variance.excludes_zero(difference, level=level)
    return masks


def _map_distinct(function: Callable[[float], float], values: Floats) -> Floats:
    """Apply `function` once per distinct value, rounded to three digits, which suffices for quantiles."""
    distinct, index = np.unique([float(f"{value:.3g}") for value in values], return_inverse=True)
    return np.array([function(float(value)) for value in distinct])[index]


def mean_intervals(table: Table, noise: Noise | None) -> list[Interval]:
    """Return the mean and 95 % interval of each configuration, unadjusted for selection."""
    if noise is None:
        return [Interval(float(mean)) for mean in table.means]
    variance, df = noise.variance_of_means()
    half = _map_distinct(lambda each: t_quantile(0.975, each), df) * np.sqrt(variance)
    return [Interval(float(m), float(m - h), float(m + h)) for m, h in zip(table.means, half, strict=True)]


def winner_interval(
    table: Table, noise: Noise | None, best: int, goal: Goal, *, rivals: NDArray[np.bool_] | None = None
) -> Interval:
    """Return the mean and interval of the configuration `best`, selected among k contenders for its mean.

    `rivals` is the mask of the contenders at `RIVAL_LEVEL`, shape (C,), if it is known.

    The optimistic side (towards worse values) is at level 0.025 / k, Bonferroni's bound for the largest of k errors if
    all contenders are equal. The other side is at level 0.025 without adjustment: a configuration with an unlucky mean
    is rarely selected.
    """
    mean = float(table.means[best])
    if noise is None:
        return Interval(mean)
    k = int((contenders(table, noise, best, goal, level=RIVAL_LEVEL) if rivals is None else rivals).sum())
    variance, df = noise.variance_of_means()
    scale, degrees = math.sqrt(float(variance[best])), float(df[best])
    adjusted, plain = (t_quantile(1.0 - tail, degrees) * scale for tail in (0.025 / k, 0.025))
    below, above = (adjusted, plain) if goal == "max" else (plain, adjusted)
    return Interval(mean, mean - below, mean + above)


def held_out_score(table: Table, goal: Goal) -> float | None:
    """Return the mean value of chosen configurations on left-out seeds (leave-one-seed-out cross-validation).

    Each seed is held out once: the winner is selected on the other seeds and evaluated on this one. The mean
    estimates what this selection reaches on new seeds, not the mean of one configuration: different ones may be chosen
    without different seeds. It is slightly pessimistic, because each selection has one seed fewer.
    Returns None if configurations have fewer than two seeds in common.
    """
    eligible = [setup for setup in table.setups if not setup.diverged]
    seeds = [seed for seed in {seed for setup in eligible for seed in setup.seeds} if seed is not None]
    results = []
    for seed in sorted(seeds):
        candidates = [_leave_seed_out(setup, seed, goal) for setup in eligible if seed in setup.seeds]
        chosen = [(score, left_out) for score, left_out in candidates if score is not None]
        if len(chosen) >= max(2, len(eligible) / 2):
            results.append(max(chosen, key=lambda pair: pair[0])[1])
    return float(np.mean(results)) if len(results) > 1 else None


def _leave_seed_out(setup: Setup, seed: int, goal: Goal) -> tuple[float | None, float]:
    """Return the mean score with the other seeds, greater is better, and the value with this seed.

    The score is None if there are no other seeds.
    """
    place = setup.seeds.index(seed)
    scores = setup.scores or tuple(value if goal == "max" else -value for value in setup.values)
    others = scores[:place] + scores[place + 1 :]
    return (fmean(others) if others else None), setup.values[place]
