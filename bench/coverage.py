"""Measure the coverage of 95 % intervals by simulation: python bench/coverage.py (a few minutes).

Simulates grids of noise with a known mean and compares labbench's intervals with three others: the percentile
bootstrap, common in trackers and papers; Student's t per configuration; Student's t with one pooled variance for the
whole grid.

Shapes: values are (configurations, seeds).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labbench.analysis.comparison import compare, mean_intervals, rank_setups, winner_interval
from labbench.analysis.distributions import t_quantile
from labbench.analysis.effects import marginal_effects
from labbench.analysis.importance import importance
from labbench.analysis.noise.runs import Noise, learn_noise
from labbench.analysis.scales.bounds import Bounds
from labbench.analysis.scales.log_scale import take_logarithms
from labbench.analysis.table import Observation, Table, tabulate

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], Floats]
"""Noise of a number of configurations and of seeds."""
ValueDraw = Callable[[np.random.Generator, Floats, int], Floats]
"""Values of configurations with these medians, for a number of seeds."""
SEEDS = (2, 3, 5, 10)
SCALE_SEEDS = (3, 5)
"""Numbers of seeds of grids of losses over decades and of accuracies."""
RESAMPLES = 500
GRIDS_WITH_HOLES_FACTOR = 3
"""Number of grids with holes, relative to --grids; these grids are small."""


def equal_noise(generator: np.random.Generator, setups: int, seeds: int) -> Floats:
    """Return standard normal noise."""
    values: Floats = generator.standard_normal((setups, seeds))
    return values


def two_spread_noise(generator: np.random.Generator, setups: int, seeds: int) -> Floats:
    """Return noise with a standard deviation of 3 in half of the configurations and 1 in the others."""
    values: Floats = equal_noise(generator, setups, seeds) * np.resize([3.0, 1.0], (setups, 1))
    return values


def many_spread_noise(generator: np.random.Generator, setups: int, seeds: int) -> Floats:
    """Return noise with log-normal standard deviations: two thirds are within a factor of 2.2 of the median."""
    return equal_noise(generator, setups, seeds) * np.exp(0.8 * generator.standard_normal((setups, 1)))


def shared_noise(generator: np.random.Generator, setups: int, seeds: int) -> Floats:
    """Return noise half of whose variance is common to all configurations of a seed."""
    values: Floats = np.sqrt(0.5) * (equal_noise(generator, setups, seeds) + equal_noise(generator, 1, seeds))
    return values


def skewed_noise(generator: np.random.Generator, setups: int, seeds: int) -> Floats:
    """Return exponential noise with a mean of 0 and a skewness of -2."""
    values: Floats = 1.0 - generator.exponential(size=(setups, seeds))
    return values


def exploding_noise(generator: np.random.Generator, setups: int, seeds: int) -> Floats:
    """Return noise with a standard deviation of 1000 in one configuration and 1 in the others."""
    values: Floats = (
        equal_noise(generator, setups, seeds) * np.where(np.arange(setups) == setups - 1, 1e3, 1.0)[:, None]
    )
    return values


EXPLODING: dict[str, Draw] = {"one explodes": exploding_noise}
NOISES: dict[str, Draw] = {
    "equal spread": equal_noise,
    "two spreads, 1 and 3": two_spread_noise,
    "many spreads": many_spread_noise,
    "half shared by seeds": shared_noise,
    "skewed": skewed_noise,
}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage and width of a kind of interval."""

    share: float
    """Share of the intervals that contain the true mean."""
    width: float
    """Mean width, in standard deviations of a run."""


def make_table(values: Floats) -> Table:
    """Return values (configurations, seeds) as a grid of one parameter."""
    return tabulate(
        Observation({"setup": i}, seed, float(value)) for i, row in enumerate(values) for seed, value in enumerate(row)
    )


def labbench_half_widths(values: Floats) -> Floats:
    """Return the half-widths of labbench's intervals, shape (configurations,)."""
    table = make_table(values)
    return np.array([interval.mean - (interval.low or 0.0) for interval in mean_intervals(table, learn_noise(table))])


def separate_half_widths(values: Floats) -> Floats:
    """Return the half-widths of Student's t interval per configuration, shape (configurations,)."""
    seeds = values.shape[1]
    spread: Floats = values.std(axis=1, ddof=1) / np.sqrt(seeds)
    return t_quantile(0.975, seeds - 1) * spread


def pooled_half_widths(values: Floats) -> Floats:
    """Return the half-widths of Student's t interval with pooled variance, shape (configurations,)."""
    setups, seeds = values.shape
    spread = np.sqrt(values.var(axis=1, ddof=1).mean() / seeds)
    return np.full(setups, t_quantile(0.975, setups * (seeds - 1)) * spread)


def measure_coverage(
    halves: Callable[[Floats], Floats], draw: Draw, *, setups: int, seeds: int, grids: int
) -> Coverage:
    """Measure symmetric intervals around each configuration's mean; the true mean is 0."""
    generator = np.random.default_rng(seeds)
    hits, widths, scale = [], [], []
    for _ in range(grids):
        values = draw(generator, setups, seeds)
        half = halves(values)
        hits.append(np.abs(values.mean(axis=1)) <= half)
        widths.append(2.0 * half)
        scale.append(values.std(axis=1, ddof=1))
    return Coverage(float(np.mean(hits)), float(np.mean(widths) / np.sqrt(np.mean(np.square(scale)))))


def measure_bootstrap_coverage(draw: Draw, *, setups: int, seeds: int, grids: int) -> Coverage:
    """Measure the percentile bootstrap of the mean per configuration (Efron 1979)."""
    generator = np.random.default_rng(seeds)
    hits, widths, scale = [], [], []
    for _ in range(grids):
        values = draw(generator, setups, seeds)
        resampled = generator.integers(seeds, size=(RESAMPLES, seeds))
        low, high = np.quantile(values[:, resampled].mean(axis=2), [0.025, 0.975], axis=1)
        hits.append((low <= 0) & (high >= 0))
        widths.append(high - low)
        scale.append(values.std(axis=1, ddof=1))
    return Coverage(float(np.mean(hits)), float(np.mean(widths) / np.sqrt(np.mean(np.square(scale)))))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Shares of simulated grids in which an interval contains the true value, and of false claims."""

    winner_plain: float
    """Coverage of the best configuration's unadjusted interval."""
    winner: float
    """Coverage of the best configuration's interval, adjusted for the selection."""
    pair: float
    """Coverage of the difference of two configurations that were chosen beforehand."""
    half: float
    """Coverage of the mean over half of the configurations."""
    contrast: float
    """Coverage of the difference between the two halves, as of an effect."""
    false_claim: float
    """Share of grids of equal configurations in which the best is called clearly better than the runner-up."""


def measure_judgement(draw: Draw, *, setups: int, seeds: int, grids: int) -> Judgement:
    """Simulate grids of equal configurations, all with a true mean of 0."""
    generator = np.random.default_rng(100 + seeds)
    half = (np.arange(setups) % 4 < 2) / (setups / 2)
    tallies = []
    for _ in range(grids):
        table = make_table(draw(generator, setups, seeds))
        noise = learn_noise(table)
        assert isinstance(noise, Noise), "every configuration has several seeds"
        order = rank_setups(table, "max")
        best = int(order[0])
        means = [
            noise.variance_of_combination(w).interval(float(w @ table.means)) for w in (half, 2 * half - 2 / setups)
        ]
        tallies.append(
            [
                not mean_intervals(table, noise)[best].excludes(0.0),
                not winner_interval(table, noise, best, "max").excludes(0.0),
                not compare(table, noise, 0, 1, "max").interval.excludes(0.0),
                not means[0].excludes(0.0),
                not means[1].excludes(0.0),
                compare(table, noise, best, int(order[1]), "max").clear,
            ]
        )
    return Judgement(*np.mean(tallies, axis=0).tolist())


def measure_false_effects(draw: Draw, *, seeds: int, grids: int) -> tuple[float, float]:
    """Measure false claims in grids with holes: `a` has no effect, and either `a` or `b` is 0 in every cell.

    Returns the share of grids in which the effect of `a` is significant, and the largest sum of all shares of the
    variance, which should be 1.
    """
    generator = np.random.default_rng(200 + seeds)
    cells = [(a, b) for a in range(4) for b in range(4) if 0 in (a, b)]
    claims, sums = [], []
    for _ in range(grids):
        table = tabulate(
            Observation({"a": a, "b": b}, seed, 2.0 * b + float(value))
            for (a, b), row in zip(cells, draw(generator, len(cells), seeds), strict=True)
            for seed, value in enumerate(row)
        )
        noise, parameter = learn_noise(table), table.parameter("a")
        assert parameter is not None, "it takes four values"
        claims.append((marginal_effects(table, parameter, noise, "max").p_value or 0.0) < 0.05)
        shares = importance(table, noise)
        assert shares is not None, "values differ"
        sums.append(sum(share.mean for share in shares.main_effects.values()) + shares.rest + (shares.seeds or 0.0))
    return float(np.mean(claims)), max(sums)


def measure_claims(draw: Draw, shifts: Floats, *, seeds: int, grids: int) -> tuple[float, float]:
    """Measure claims that the values of one parameter differ, at 5 %, by the test of `marginal_effects`.

    `shifts`, shape (values,), are the true means. Returns the share of grids with a claim, and the share of grids
    without one in which the intervals of two values do not overlap.
    """
    generator = np.random.default_rng(300 + seeds)
    claims, contradictions = [], []
    for _ in range(grids):
        table = make_table(draw(generator, len(shifts), seeds) + shifts[:, None])
        parameter = table.parameter("setup")
        assert parameter is not None, "it takes several values"
        effects = marginal_effects(table, parameter, learn_noise(table), "max")
        lows, highs = np.array([(e.interval.low or 0.0, e.interval.high or 0.0) for e in effects.effects]).T
        claims.append((effects.p_value or 0.0) <= 0.05)
        contradictions.append(not claims[-1] and bool(lows.max() > highs.min()))
    return float(np.mean(claims)), float(np.mean(contradictions))


def multiplicative(draw: Draw) -> ValueDraw:
    """Return a draw of values around medians, whose logarithms have the noise of `draw` times 0.3."""

    def draw_values(generator: np.random.Generator, medians: Floats, seeds: int) -> Floats:
        values: Floats = medians[:, None] * np.exp(0.3 * draw(generator, len(medians), seeds))
        return values

    return draw_values


def draw_gamma_losses(generator: np.random.Generator, medians: Floats, seeds: int) -> Floats:
    """Return losses with gamma noise in proportion to their level; the deviation is a half of the mean."""
    values: Floats = medians[:, None] * generator.gamma(4.0, 0.25, size=(len(medians), seeds))
    return values


def draw_losses_with_a_constant_spread(generator: np.random.Generator, medians: Floats, seeds: int) -> Floats:
    """Return losses with the same noise at all levels, up to a fifth of the smallest one."""
    spread = 0.2 * medians.min()
    values: Floats = medians[:, None] + spread * (generator.gamma(9.0, 1 / 3, size=(len(medians), seeds)) - 3.0)
    return values


def draw_accuracies(generator: np.random.Generator, medians: Floats, seeds: int) -> Floats:
    """Return accuracies on 360 samples of models whose log-odds vary between seeds."""
    odds = (1.0 / medians - 1.0)[:, None] * np.exp(0.3 * generator.standard_normal((len(medians), seeds)))
    values: Floats = generator.binomial(360, odds / (1.0 + odds)) / 360.0
    return values


LOSSES: dict[str, ValueDraw] = {
    **{f"factors, {name}": multiplicative(draw) for name, draw in NOISES.items()},
    "gamma": draw_gamma_losses,
    "a constant spread": draw_losses_with_a_constant_spread,
}
TRUTH_SEEDS = 20_000


@dataclass(frozen=True, slots=True)
class ScaleCoverage:
    """Coverage of intervals on a scale, as shares of the intervals."""

    mean: float
    """Coverage of the means: geometric means on the log scale."""
    difference: float
    """Coverage of the differences of two configurations: ratios on the log scale."""
    at_bound: float
    """Share of the intervals of means that end at a bound of the metric."""


def measure_scale(draw: ValueDraw, medians: Floats, bounds: Bounds, *, seeds: int, grids: int) -> ScaleCoverage:
    """Measure intervals of means and of differences between neighbours, in grids whose values have these medians."""
    generator = np.random.default_rng(400 + seeds)
    transform = np.log if bounds.scale == "log" else np.asarray
    truth = transform(draw(generator, medians, TRUTH_SEEDS)).mean(axis=1)
    means, differences, at_bound = [], [], []
    for _ in range(grids):
        table = make_table(draw(generator, medians, seeds))
        if bounds.scale == "log":
            table = take_logarithms(table)
        noise = learn_noise(table)
        intervals = [bounds.clip(interval) for interval in mean_intervals(table, noise)]
        means += [not interval.excludes(mean) for interval, mean in zip(intervals, truth, strict=True)]
        at_bound += [interval.low == bounds.low or interval.high == bounds.high for interval in intervals]
        for first in range(0, len(medians) - 1, 2):
            difference = bounds.clip_difference(compare(table, noise, first, first + 1, "max").interval)
            differences.append(not difference.excludes(truth[first] - truth[first + 1]))
    return ScaleCoverage(float(np.mean(means)), float(np.mean(differences)), float(np.mean(at_bound)))


def print_scales(setups: int, grids: int) -> None:
    print(f"\nLosses over 2.5 decades, {setups} configurations: coverage of geometric means (of ratios of neighbours);")
    print("in brackets the same for means (differences) of the losses themselves; 3 and 5 seeds")
    medians = np.geomspace(0.003, 1.0, setups)
    for name, draw in LOSSES.items():
        cells = []
        for seeds in SCALE_SEEDS:
            log, linear = (
                measure_scale(draw, medians, bounds, seeds=seeds, grids=grids)
                for bounds in (Bounds(scale="log"), Bounds(low=0.0))
            )
            cells.append(f"{log.mean:.3f} ({log.difference:.3f}) [{linear.mean:.3f} ({linear.difference:.3f})]")
        print(f"{name:30}" + "".join(cell.rjust(32) for cell in cells), flush=True)
    print("\nAccuracies on 360 samples: coverage of means (of differences), share of intervals that end at 1")
    for name, errors in {"errors 0.2 to 20 %": (0.002, 0.2), "errors 0.1 to 2 %": (0.001, 0.02)}.items():
        rates = [
            measure_scale(draw_accuracies, 1.0 - np.geomspace(*errors, setups), Bounds(0.0, 1.0), seeds=n, grids=grids)
            for n in SCALE_SEEDS
        ]
        cells = [f"{rate.mean:.3f} ({rate.difference:.3f}), {rate.at_bound:.2f}" for rate in rates]
        print(f"{name:30}" + "".join(cell.rjust(32) for cell in cells), flush=True)


def print_coverage(setups: int, grids: int) -> None:
    print(f"95 % intervals of means: coverage (mean width in standard deviations), {setups} configurations per grid")
    print(f"{'noise':22}{'seeds':>6}{'labbench':>15}{'pooled t':>15}{'separate t':>15}{'bootstrap':>15}")
    for name, draw in NOISES.items():
        for seeds in SEEDS:
            size = {"setups": setups, "seeds": seeds, "grids": grids}
            coverages = [
                measure_coverage(halves, draw, **size)
                for halves in (labbench_half_widths, pooled_half_widths, separate_half_widths)
            ]
            coverages.append(measure_bootstrap_coverage(draw, **size))
            print(f"{name:22}{seeds:6}" + "".join(f"{c.share:9.3f} ({c.width:3.1f})".rjust(15) for c in coverages))


def print_judgements(setups: int, grids: int) -> None:
    print(f"\nDerived intervals in grids of {setups} equal configurations: coverage, and the share of false claims")
    titles = ("best, plain", "best, adj.", "pair", "half's mean", "effect", "false claim")
    print(f"{'noise':22}{'seeds':>6}" + "".join(title.rjust(13) for title in titles))
    for name, draw in NOISES.items():
        for seeds in SEEDS:
            rates = measure_judgement(draw, setups=setups, seeds=seeds, grids=grids)
            shares = (rates.winner_plain, rates.winner, rates.pair, rates.half, rates.contrast, rates.false_claim)
            print(f"{name:22}{seeds:6}" + "".join(f"{share:13.3f}" for share in shares))


def print_false_effects(grids: int) -> None:
    print("\nGrids with holes: false claims of an effect, at 5 %, and the largest sum of the shares of the variance")
    print(f"{'noise':22}{'seeds':>6}{'claims':>13}{'sum':>13}")
    for name, draw in NOISES.items():
        for seeds in SEEDS:
            claims, largest = measure_false_effects(draw, seeds=seeds, grids=grids)
            print(f"{name:22}{seeds:6}{claims:13.3f}{largest:13.3f}")


def print_claims(grids: int) -> None:
    print("\nClaims that 9 values of a parameter differ, at 5 % (and intervals that do not overlap without a claim)")
    print(f"{'noise':40}" + "".join(f"{seeds} seeds".rjust(16) for seeds in SEEDS))
    means = {f"equal means, {name}": (draw, np.zeros(9)) for name, draw in {**NOISES, **EXPLODING}.items()}
    means["means 0 to 8, one explodes"] = (exploding_noise, np.array([*range(8), 1e3]))
    for name, (draw, shifts) in means.items():
        rates = [measure_claims(draw, shifts, seeds=seeds, grids=grids) for seeds in SEEDS]
        print(f"{name:40}" + "".join(f"{claims:.3f} ({apart:.3f})".rjust(16) for claims, apart in rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setups", type=int, default=24, help="configurations per grid (default 24)")
    parser.add_argument("--grids", type=int, default=100, help="simulated grids per row (default 100)")
    parser.add_argument("--only-scales", action="store_true", help="measure losses over decades and accuracies only")
    options = parser.parse_args()
    started = time.perf_counter()
    if options.only_scales:
        print_scales(options.setups, options.grids)
        return
    print_coverage(options.setups, options.grids)
    print_judgements(options.setups, options.grids)
    print_false_effects(GRIDS_WITH_HOLES_FACTOR * options.grids)
    print_claims(GRIDS_WITH_HOLES_FACTOR * options.grids)
    print_scales(options.setups, options.grids)
    print(f"\n{options.grids} grids per row, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
