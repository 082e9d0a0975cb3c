"""Measure the coverage of differences between two configurations by simulation: python bench/pair_coverage.py.

Simulates grids of 3 x 2 x 2 x 5 configurations whose runs with one seed vary together: independently after the shift
of the seed, almost alike under both values of the second parameter, with another effect of the seed under each value of
the first one, or with unequal spreads. Compares labbench's intervals with Student's paired t interval for a pair that
was chosen beforehand (neighbours in the second parameter, and a pair that differs in all parameters), and for the best
against the runner-up.

Shapes: values are (configurations, seeds).
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.comparison import compare, rank_setups
from labbench.analysis.distributions import t_quantile
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import Observation, tabulate

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]
AXES = (3, 2, 2, 5)
CODES = np.array(list(itertools.product(*map(range, AXES))))
"""Value of each parameter, shape (configurations, parameters)."""
NEIGHBOUR = int(np.flatnonzero((CODES == [0, 1, 0, 0]).all(axis=1))[0])
"""Configuration that differs from the first one in the second parameter alone."""
SEEDS = (2, 3, 5, 10)
SPREAD = 0.5
"""Standard deviation of the true means, in standard deviations of a run without the shift of its seed."""


def independent_noise(generator: np.random.Generator, seeds: int) -> Floats:
    """Return standard normal noise."""
    values: Floats = generator.standard_normal((len(CODES), seeds))
    return values


def paired_noise(generator: np.random.Generator, seeds: int, correlation: float = 0.95) -> Floats:
    """Return noise that correlates between the two values of the second parameter."""
    shared = generator.standard_normal((len(CODES), seeds))[_first_of(np.delete(CODES, 1, axis=1))]
    values: Floats = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * independent_noise(generator, seeds)
    return values


def grouped_noise(generator: np.random.Generator, seeds: int) -> Floats:
    """Return noise half of whose variance is an effect of the seed under each value of the first parameter."""
    shared = generator.standard_normal((len(CODES), seeds))[_first_of(CODES[:, :1])]
    values: Floats = math.sqrt(0.5) * (shared + independent_noise(generator, seeds))
    return values


def unequal_noise(generator: np.random.Generator, seeds: int) -> Floats:
    """Return noise with log-normal standard deviations."""
    return independent_noise(generator, seeds) * np.exp(0.8 * generator.standard_normal((len(CODES), 1)))


def _first_of(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of the first configuration with the same codes, shape (configurations,)."""
    _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.reshape(-1)])


NOISES: dict[str, Draw] = {
    "independent": independent_noise,
    "pairs correlate 0.95": paired_noise,
    "seed x first parameter": grouped_noise,
    "unequal spreads": unequal_noise,
}


@dataclass(slots=True)
class Tally:
    """Intervals of one kind."""

    hits: list[bool] = field(default_factory=list)
    half_widths: list[float] = field(default_factory=list)

    def add(self, error: float, half_width: float) -> None:
        """Count an interval by the distance of its centre from the true difference."""
        self.hits.append(abs(error) <= half_width)
        self.half_widths.append(half_width)


def measure(noise: Draw, seeds: int, grids: int) -> dict[str, tuple[Tally, Tally]]:
    """Return the tallies of labbench's and of Student's intervals, by pair."""
    generator = np.random.default_rng(0)
    tallies: dict[str, tuple[Tally, Tally]] = defaultdict(lambda: (Tally(), Tally()))
    for _ in range(grids):
        means = SPREAD * generator.standard_normal(len(CODES))
        values = means[:, None] + noise(generator, seeds) + generator.standard_normal((1, seeds))
        table = tabulate(
            Observation({f"p{i}": int(code) for i, code in enumerate(codes)}, seed, float(values[row, seed]))
            for row, codes in enumerate(CODES)
            for seed in range(seeds)
        )
        variation, order = learn_noise(table), rank_setups(table, "max").tolist()
        pairs = {"neighbours": (0, NEIGHBOUR), "far": (0, len(CODES) - 1), "best, runner-up": (order[0], order[1])}
        for name, (first, second) in pairs.items():
            interval, truth = compare(table, variation, first, second, "max").interval, means[first] - means[second]
            tallies[name][0].add(interval.mean - truth, (interval.high or math.inf) - interval.mean)
            differences = values[first] - values[second]
            spread = float(differences.std(ddof=1)) / math.sqrt(seeds)
            tallies[name][1].add(float(differences.mean()) - truth, t_quantile(0.975, seeds - 1.0) * spread)
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grids", type=int, default=300)
    grids = parser.parse_args().grids
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            start = time.perf_counter()
            for pair, tallies in measure(noise, seeds, grids).items():
                parts = (f"{100 * np.mean(t.hits):.1f} % ({2 * np.mean(t.half_widths):.2f} wide)" for t in tallies)
                print(f"{name}, {seeds} seeds, {pair}: {', Student: '.join(parts)}", flush=True)
            print(f"  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
