"""Best result of n random configurations, by n (Dodge et al. 2019), with simultaneous bands (Lourie, Cho & He 2024).

Only for configurations that were drawn independently of their results. If F is the distribution of the result of one
random configuration, the best of n has the distribution F**n, and its median is the quantile of F at 2**(-1/n). The
limits of these quantiles are order statistics of the N results, whatever F is. They hold for all n from 1 to N at once:
each is at the level of `LOCAL_LEVELS`, as in the bands of equal local levels of Lourie et al. With draws without
replacement from a full grid they are conservative (Hoeffding 1963, section 6).

The mean of the best of n is estimated without bias by the mean over all subsets of n results (Tang et al. 2020),
without an interval.

Shapes: N results of one value, B budgets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from labbench.analysis.comparison import orient
from labbench.analysis.table import Floats, Ints, Table
from labbench.metrics import Goal

SamplingKind: TypeAlias = Literal["random draws", "random subset"]

MIN_RESULTS = 5
"""Smallest number of results for a curve."""
MAX_POINTS = 64
"""Largest number of points of a curve."""
MAX_VALUES = 8
"""Largest number of values of a parameter whose curves are compared."""
LOCAL_LEVELS = (
    *((2, 0.0858), (4, 0.0201), (9, 0.0195), (12, 0.0190), (13, 0.0112), (20, 0.0100), (28, 0.0077), (38, 0.0071)),
    *((50, 0.0068), (70, 0.0057), (100, 0.0050), (150, 0.0041), (200, 0.0038), (300, 0.0033), (500, 0.0027)),
    *((1000, 0.0021), (2000, 0.0017)),
)
"""Pairs of N and the level of each limit at which a band holds for all budgets at once 95 times in 100.

5 % quantiles of the smallest tail probability in 8,000 to 40,000 uniform samples, rounded down to a curve without the
jumps that the discrete distribution of counts makes for small N.
"""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Random draw of configurations."""

    kind: SamplingKind
    """`random draws`: from distributions; `random subset`: without replacement from a full grid."""
    keys: frozenset[str] | None = None
    """Keys that were drawn at random; None for all."""


@dataclass(frozen=True, slots=True)
class BudgetPoint:
    """Best of `n` random configurations. Limits are None where the results do not bound it."""

    n: int
    median: float | None
    """None if the median is a diverged run."""
    low: float | None
    high: float | None
    mean: float | None
    """Unbiased estimate of the mean; None if diverged runs are among the possible ones."""


@dataclass(frozen=True, slots=True)
class BudgetCurve:
    """Best result against the number of random configurations."""

    value: Any
    """Value of the parameter; None for all configurations."""
    results: int
    """Number of configurations, diverged ones included (N)."""
    diverged: int
    points: tuple[BudgetPoint, ...]
    """Points by budget, from 1 to N."""


@dataclass(frozen=True, slots=True)
class Separation:
    """Budgets at which the bands of two values do not overlap."""

    better: Any
    other: Any
    budgets: tuple[int, int] | None
    """First and last of consecutive budgets; None if the bands overlap at all of them."""


@dataclass(frozen=True, slots=True)
class BudgetComparison:
    """Curves of all values of a parameter, or of all configurations."""

    name: str | None
    """Parameter; None for one curve of all configurations."""
    curves: tuple[BudgetCurve, ...]
    """Curves by their median at the largest common budget, best first."""
    separations: tuple[Separation, ...]
    """The first value against each of the others."""
    missing: int
    """Number of configurations without a result that did not diverge."""

    def as_document(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        curves = [
            {"value": c.value, "results": c.results, "diverged": c.diverged, "points": [asdict(p) for p in c.points]}
            for c in self.curves
        ]
        separations = [asdict(separation) for separation in self.separations]
        return {"name": self.name, "curves": curves, "separations": separations, "missing": self.missing}


def compare_budgets(
    everything: Table, sampling: Sampling | None, goal: Goal, limits: tuple[float, float]
) -> tuple[BudgetComparison, ...]:
    """Return the curve of all configurations, and those by each categorical parameter, as far as draws were random.

    `limits` are the smallest and largest possible value of the metric.
    """
    if sampling is None:
        return ()
    parameters = everything.independent
    fixed = {p.name for p in parameters if sampling.keys is not None and p.name not in sampling.keys}
    results = _single_results(everything, goal)
    comparisons = []
    if not fixed:
        comparisons.append(_compare(None, [(None, results)], goal, limits))
    for p in parameters:
        if p.numeric or p.parent is not None or fixed - {p.name} or len(p.levels) > MAX_VALUES:
            continue
        by_value = [(level, results[p.codes == code]) for code, level in enumerate(p.levels)]
        comparisons.append(_compare(p.name, by_value, goal, limits))
    return tuple(comparison for comparison in comparisons if comparison is not None)


def _single_results(everything: Table, goal: Goal) -> Floats:
    """Return one result per configuration, shape (C,), of the most common seed.

    Results are negated if the goal is min; a diverged one is minus infinity, a missing one NaN.
    """
    results = np.array([-math.inf if setup.diverged else math.nan for setup in everything.setups])
    if len(everything.value):
        chosen = everything.seed == np.bincount(everything.seed).argmax()
        results[everything.owner[chosen]] = orient(everything.value[chosen], goal)
    return results


def _compare(
    name: str | None, by_value: Sequence[tuple[Any, Floats]], goal: Goal, limits: tuple[float, float]
) -> BudgetComparison | None:
    """Return the comparison of values with their results, None if a value has fewer than `MIN_RESULTS`."""
    samples = [(value, np.sort(results[~np.isnan(results)])) for value, results in by_value]
    if not samples or min(len(sample) for _, sample in samples) < MIN_RESULTS or (name and len(samples) < 2):
        return None
    common = min(len(sample) for _, sample in samples)
    samples.sort(key=lambda item: -_order_statistic(item[1], common))
    curves = tuple(_make_curve(value, sample, goal, limits) for value, sample in samples)
    missing = sum(int(np.isnan(results).sum()) for _, results in by_value)
    first, *others = samples
    return BudgetComparison(name, curves, tuple(_separate(first, other) for other in others), missing)


def _order_statistic(sample: Floats, n: int) -> float:
    """Return the median of the best of `n`, from a sorted sample (N,)."""
    return float(sample[math.ceil(len(sample) * 0.5 ** (1.0 / n) - 1e-9) - 1])


def _make_curve(value: Any, sample: Floats, goal: Goal, limits: tuple[float, float]) -> BudgetCurve:
    budgets = spread_budgets(len(sample))
    low, high = band_of_best(sample, budgets)
    means = unbiased_means(sample, budgets)

    def point(i: int) -> BudgetPoint:
        n = int(budgets[i])
        ends = sorted((_in_unit(low[i], goal, limits), _in_unit(high[i], goal, limits)))
        median, mean = (_in_unit(v, goal, (-math.inf, math.inf)) for v in (_order_statistic(sample, n), means[i]))
        return BudgetPoint(n, *(number if math.isfinite(number) else None for number in (median, *ends, mean)))

    diverged = int(np.isneginf(sample).sum())
    return BudgetCurve(value, len(sample), diverged, tuple(map(point, range(len(budgets)))))


def _in_unit(value: float, goal: Goal, limits: tuple[float, float]) -> float:
    """Return an oriented value in the metric's unit, within its limits."""
    return min(max(float(value) if goal == "max" else -float(value), limits[0]), limits[1])


def spread_budgets(n: int) -> Ints:
    """Return budgets from 1 to `n`, all of them or `MAX_POINTS` on a log scale, shape (B,)."""
    if n <= MAX_POINTS:
        return np.arange(1, n + 1)
    return np.unique(np.geomspace(1, n, MAX_POINTS).round().astype(np.int64))


def band_of_best(sample: Floats, budgets: Ints) -> tuple[Floats, Floats]:
    """Return the limits of the median of the best of each budget, shape (B,), for a sorted sample (N,).

    Greater is better. A limit is infinite where no result bounds the median.
    """
    n, level = len(sample), local_level(len(sample))
    positions = 0.5 ** (1.0 / budgets[:, None])  # (B, 1)
    counts = np.arange(n + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_ways = log_factorials[n] - log_factorials - log_factorials[::-1]
    chances = np.exp(
        log_ways + counts * np.log(positions) + (n - counts) * np.log1p(-positions)
    )  # binomial, (B, N + 1)
    at_most = np.cumsum(chances, axis=1)
    at_least = np.cumsum(chances[:, ::-1], axis=1)[:, ::-1]
    # counts of results below the true quantile whose tail probability is below `level` are ruled out
    fewest = (at_most < level).sum(axis=1)
    most = n - (at_least < level).sum(axis=1)
    padded = np.concatenate([[-math.inf], sample, [math.inf]])
    return padded[fewest], padded[np.minimum(most + 1, n + 1)]


def local_level(n: int) -> float:
    """Return the level of each limit for `n` results, interpolated in the logarithms of `LOCAL_LEVELS`."""
    sizes, levels = np.log(LOCAL_LEVELS).T
    return float(np.exp(np.interp(math.log(n), sizes, levels)))


def unbiased_means(sample: Floats, budgets: Ints) -> Floats:
    """Return the mean of the best of all subsets of each budget, shape (B,), for a sorted sample (N,).

    The i-th smallest of N results is the best of C(i - 1, n - 1) of the C(N, n) subsets (Tang et al. 2020). NaN if a
    result that is not finite may be the best.
    """
    n = len(sample)
    means = np.empty(len(budgets))
    for index, budget in enumerate(budgets.tolist()):
        ranks = np.arange(budget, n + 1)
        # C(i - 1, n - 1) / C(N, n) from the largest rank downwards, as products that neither overflow nor vanish early
        ratios = (ranks[1:] - budget) / (ranks[1:] - 1.0)
        weights = budget / n * np.concatenate([np.cumprod(ratios[::-1])[::-1], [1.0]])
        best = sample[budget - 1 :]
        means[index] = weights @ best if np.isfinite(best).all() else math.nan
    return means


def _separate(first: tuple[Any, Floats], other: tuple[Any, Floats]) -> Separation:
    """Return the longest range of consecutive budgets at which the band of the first is above the other band."""
    budgets = np.arange(1, min(len(first[1]), len(other[1]), 1000) + 1)
    low, _ = band_of_best(first[1], budgets)
    _, high = band_of_best(other[1], budgets)
    apart = np.concatenate([[False], low > high, [False]])
    starts, ends = np.flatnonzero(np.diff(apart.astype(int)) == 1), np.flatnonzero(np.diff(apart.astype(int)) == -1)
    if not len(starts):
        return Separation(first[0], other[0], None)
    longest = int((ends - starts).argmax())
    return Separation(first[0], other[0], (int(starts[longest]) + 1, int(ends[longest])))
