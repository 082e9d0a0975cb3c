"""Measure the band of the best of n random configurations by simulation: python bench/budget_coverage.py (a minute).

Simulates random searches and counts those in which the band contains the true median of the best of n for all n from 1
to N at once. The band is claimed to hold 95 times in 100 for any distribution, so it is measured on four: a continuous
one, one with ties, one in which a tenth of the runs diverges, and draws without replacement from half of a grid.

Shapes: D simulated searches of N configurations, B = N budgets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.tuning.budgets import band_of_best, unbiased_means

Floats = NDArray[np.float64]
SIZES = (5, 6, 8, 12, 17, 25, 40, 60, 120, 250, 700, 1500)
CHUNK = 500_000
"""Number of results that are simulated at once."""
TIES = 20
"""Number of distinct results of the distribution with ties."""
DIVERGED = 0.1


@dataclass(frozen=True, slots=True)
class Distribution:
    """Distribution of the result of one random configuration; greater is better."""

    draw: Callable[[np.random.Generator, int, int], Floats]
    """Draws results of D searches of N configurations, shape (D, N)."""
    quantile: Callable[[Floats, int], Floats]
    """Quantiles at probabilities (B,), shape (B,), in searches of N configurations."""


def draw_uniform(generator: np.random.Generator, searches: int, size: int) -> Floats:
    values: Floats = generator.random((searches, size))
    return values


def draw_tied(generator: np.random.Generator, searches: int, size: int) -> Floats:
    values: Floats = np.floor(TIES * generator.random((searches, size)))
    return values


def draw_diverging(generator: np.random.Generator, searches: int, size: int) -> Floats:
    values = generator.random((searches, size))
    return np.where(values < DIVERGED, -np.inf, values)


def draw_without_replacement(generator: np.random.Generator, searches: int, size: int) -> Floats:
    """Draw N of 2 N configurations, whose results are 1 to 2 N."""
    order = generator.permuted(np.tile(np.arange(1.0, 2 * size + 1), (searches, 1)), axis=1)
    return order[:, :size]


DISTRIBUTIONS = {
    "continuous": Distribution(draw_uniform, lambda p, _: p),
    "ties": Distribution(draw_tied, lambda p, _: np.ceil(TIES * p - 1e-9) - 1.0),
    "10 % diverged": Distribution(draw_diverging, lambda p, _: p),
    "half of a grid": Distribution(draw_without_replacement, lambda p, size: np.ceil(2 * size * p - 1e-9)),
}


def measure_band(distribution: Distribution, *, size: int, searches: int) -> float:
    """Return the share of simulated searches in which the band contains the true median at every budget."""
    generator = np.random.default_rng(size)
    budgets = np.arange(1, size + 1)
    truth = distribution.quantile(0.5 ** (1.0 / budgets), size)  # (B,)
    low, high = (ranks.clip(0, size + 1).astype(int) for ranks in band_of_best(np.arange(1.0, size + 1), budgets))
    hits: list[bool] = []
    while len(hits) < searches:
        count = min(searches - len(hits), max(1, CHUNK // size))
        results = np.sort(distribution.draw(generator, count, size), axis=1)
        ends = np.full((count, 1), np.inf)
        padded = np.concatenate([-ends, results, ends], axis=1)  # (D, N + 2)
        inside = (padded[:, low] <= truth) & (truth <= padded[:, high])
        hits += inside.all(axis=1).tolist()
    return float(np.mean(hits))


def measure_means(size: int, budget: int, *, searches: int) -> tuple[float, float]:
    """Return the relative errors of two estimates of the mean of the best of a budget of uniform results.

    The first is labbench's (Tang et al. 2020), the second the one of Dodge et al. (2019), which draws with replacement.
    """
    results = np.sort(draw_uniform(np.random.default_rng(size), searches, size), axis=1)
    truth = budget / (budget + 1.0)
    ranks = np.arange(size + 1) / size
    replacement = results @ np.diff(ranks**budget)
    unbiased = np.mean([unbiased_means(row, np.array([budget]))[0] for row in results])
    return float(unbiased) / truth - 1.0, float(replacement.mean()) / truth - 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=4000, help="simulated searches per figure (default 4000)")
    options = parser.parse_args()
    started = time.process_time()
    print("Best of n random configurations: searches in which the band holds for all n at once")
    print(f"{'N':>6}" + "".join(name.rjust(16) for name in DISTRIBUTIONS))
    for size in SIZES:
        rates = [measure_band(each, size=size, searches=options.searches) for each in DISTRIBUTIONS.values()]
        print(f"{size:6}" + "".join(f"{rate:16.3f}" for rate in rates), flush=True)
    print("\nMean of the best of n of N: relative error of labbench's estimate, and of the one with replacement")
    for size, budget in ((10, 5), (10, 10), (50, 10), (50, 50)):
        errors = measure_means(size, budget, searches=options.searches)
        print(f"{size:6}{budget:6}" + "".join(f"{error:+12.2%}" for error in errors))
    print(f"\n{options.searches} searches per figure, {time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
