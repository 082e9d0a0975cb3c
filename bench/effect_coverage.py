"""Measure intervals and claims of effects by simulation: python -m bench.effect_coverage (minutes).

Simulates the grids of bench/pair_coverage.py, in which the runs of one seed vary together in several ways, without any
effect of a parameter. Prints, for parameters with 3, 2 and 5 values, how often the intervals of their means and of the
difference of the two best ones hold the true value, and how often an effect or an interaction is claimed at the level
of 5 %; in brackets the same claims if runs were taken as independent, as in an analysis of variance of all runs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.pair_coverage import CODES, NOISES, SEEDS, Draw, Floats, independent_noise
from labbench.analysis.distributions import f_tail
from labbench.analysis.effects import interaction_p_value, marginal_effects
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import Observation, Table, tabulate

PARAMETERS = (0, 1, 3)
"""Parameters that are measured: with 3, 2 and 5 values."""
PAIR = (0, 3)
"""Parameters whose interaction is measured."""


def level_noise(generator: np.random.Generator, seeds: int) -> Floats:
    """Return noise nearly all of which is an effect of the seed under each value of the first parameter."""
    return _shared_noise(generator, seeds, CODES[:, 0])


def odd_level_noise(generator: np.random.Generator, seeds: int) -> Floats:
    """Return the same noise, but with equal effects of the seed under two of the three values."""
    return _shared_noise(generator, seeds, CODES[:, 0] == 2)


def cell_noise(generator: np.random.Generator, seeds: int) -> Floats:
    """Return noise nearly all of which is an effect of the seed under each pair of values of two parameters."""
    return _shared_noise(generator, seeds, CODES[:, PAIR[0]] * 5 + CODES[:, PAIR[1]])


def _shared_noise(generator: np.random.Generator, seeds: int, group: NDArray[np.generic]) -> Floats:
    _, index = np.unique(group, return_inverse=True)
    shared = generator.standard_normal((int(index.max()) + 1, seeds))[index]
    values: Floats = math.sqrt(0.9) * shared + math.sqrt(0.1) * independent_noise(generator, seeds)
    return values


ALL_NOISES: dict[str, Draw] = NOISES | {
    "0.9 seed x first": level_noise,
    "0.9 seed x first, 2 alike": odd_level_noise,
    "0.9 seed x first x last": cell_noise,
}


UNBALANCED = ("independent", "0.9 seed x first")
"""Noises that are also measured in grids that lack runs."""
Mask = Callable[[np.random.Generator, int], NDArray[np.bool_]]
"""Draw of the runs that are in the grid, for a number of seeds, shape (configurations, seeds)."""


@dataclass(slots=True)
class Tally:
    """Outcomes of one parameter."""

    means: list[bool] = field(default_factory=list)
    """True for each interval of a mean that holds the true mean."""
    differences: list[bool] = field(default_factory=list)
    """True for each interval of a difference that holds the true difference."""
    widths: list[float] = field(default_factory=list)
    claims: list[bool] = field(default_factory=list)
    claims_if_independent: list[bool] = field(default_factory=list)


def all_runs(generator: np.random.Generator, seeds: int) -> NDArray[np.bool_]:
    """Return a mask of all runs."""
    return np.ones((len(CODES), seeds), dtype=np.bool_)


def most_runs(generator: np.random.Generator, seeds: int) -> NDArray[np.bool_]:
    """Return a mask without 15 % of the runs, but with one of each configuration."""
    mask = generator.random((len(CODES), seeds)) > 0.15
    mask[~mask.any(axis=1), 0] = True
    return mask


def repeated_settings(generator: np.random.Generator, seeds: int) -> NDArray[np.bool_]:
    """Return a mask of one run per configuration, and all those with one of the last parameter's values."""
    mask = np.zeros((len(CODES), seeds), dtype=np.bool_)
    mask[:, 0] = True
    mask[CODES[:, 3] == 2] = True
    return mask


MASKS: dict[str, Mask] = {"": all_runs, ", 15 % missing": most_runs, ", one seed but for a fifth": repeated_settings}
"""Runs that are in the grid, by the words that follow the noise."""


def measure(noise: Draw, mask: Mask, seeds: int, grids: int) -> tuple[dict[int, Tally], float]:
    """Return the tally of each of `PARAMETERS`, and the share of grids in which an interaction is claimed."""
    generator = np.random.default_rng(0)
    tallies: dict[int, Tally] = defaultdict(Tally)
    interactions = []
    for _ in range(grids):
        values = noise(generator, seeds) + generator.standard_normal((1, seeds))
        kept = mask(generator, seeds)
        table = make_table(values, kept)
        learned = learn_noise(table)
        assert learned is not None, "every configuration has several seeds"
        for number in PARAMETERS:
            effects, tally = marginal_effects(table, table.parameters[number], learned, "max"), tallies[number]
            assert effects.contrast is not None, "there are several values"
            assert effects.p_value is not None, "the noise is known"
            interval = effects.contrast.interval
            tally.means += [not effect.interval.excludes(0.0) for effect in effects.effects]
            tally.differences.append(not interval.excludes(0.0))
            tally.widths.append((interval.high or math.inf) - (interval.low or -math.inf))
            tally.claims.append(effects.p_value <= 0.05)
            if kept.all():
                tally.claims_if_independent.append(independent_p_value(values, CODES[:, number]) <= 0.05)
        first, second = (table.parameters[number] for number in PAIR)
        p_value = interaction_p_value(table, first, second, learned, np.arange(len(CODES)))
        interactions.append(p_value is not None and p_value <= 0.05)
    return tallies, float(np.mean(interactions))


def make_table(values: Floats, kept: NDArray[np.bool_]) -> Table:
    """Return values (configurations, seeds) as a table, of the runs in the mask `kept`."""
    return tabulate(
        Observation({f"p{i}": int(code) for i, code in enumerate(codes)}, seed, float(values[row, seed]))
        for row, codes in enumerate(CODES)
        for seed in range(values.shape[1])
        if kept[row, seed]
    )


def independent_p_value(values: Floats, codes: NDArray[np.int64]) -> float:
    """Return the p-value of an effect by an analysis of variance of runs with one shift per seed."""
    setups, seeds = values.shape
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    df = (setups - 1) * (seeds - 1)
    levels = int(codes.max()) + 1
    means = np.array([values[codes == level].mean() for level in range(levels)])
    between = setups / levels * seeds * float(means.var() * levels) / (levels - 1)
    return f_tail(between / (float((residuals**2).sum()) / df), levels - 1, df)


def format_share(outcomes: list[bool]) -> str:
    """Return the share of outcomes that are True, or a dash."""
    return f"{np.mean(outcomes):.3f}" if outcomes else "-"


def format_row(name: str, seeds: int, tallies: Sequence[Tally], interactions: float) -> str:
    """Return one row of the table."""
    parts = [
        f"{np.mean(t.means):.3f}, {np.mean(t.differences):.3f} ({np.median(t.widths):.2f}), "
        f"{np.mean(t.claims):.3f} ({format_share(t.claims_if_independent)})"
        for t in tallies
    ]
    return f"| {name} | {seeds} | {' | '.join(parts)} | {interactions:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, default=300, help="simulated grids per row (default 300)")
    grids, started = parser.parse_args().grids, time.perf_counter()
    titles = ("3 values: means, difference (width), claims (if independent)", "2 values", "5 values", "interactions")
    print(f"| noise | seeds | {' | '.join(titles)} |")
    print("| --- | --- | --- | --- | --- | --- |")
    cases = [(name, noise, "") for name, noise in ALL_NOISES.items()]
    cases += [(name, ALL_NOISES[name], words) for name in UNBALANCED for words in MASKS if words]
    for name, noise, words in cases:
        for seeds in SEEDS:
            tallies, interactions = measure(noise, MASKS[words], seeds, grids)
            print(format_row(name + words, seeds, [tallies[number] for number in PARAMETERS], interactions), flush=True)
    print(f"\n{grids} grids per row, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
