"""Comparison of the best configuration with the others."""

import numpy as np
import pytest

from helpers.programs import load_program
from labbench.analysis import Observation
from labbench.analysis.comparison import (
    compare,
    contenders,
    held_out_score,
    mean_intervals,
    rank_setups,
    winner_interval,
)
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import Table, tabulate


def table_of(values: np.ndarray, *, first_seeds: tuple[int, ...] = ()) -> Table:
    """Return values (configurations, seeds) as a grid of one parameter; `first_seeds` avoids common seeds."""
    offsets = first_seeds or (0,) * len(values)
    return tabulate(
        Observation({"i": i}, offsets[i] + seed, float(value))
        for i, row in enumerate(values)
        for seed, value in enumerate(row)
        if not np.isnan(value)
    )


def between(values: np.ndarray, **options):
    table = table_of(values, **options)
    return compare(table, learn_noise(table), 0, 1, "max")


def test_configurations_with_common_seeds_are_compared_by_a_paired_t_test():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(size=(2, 5))
    difference = between(values)
    reference = stats.ttest_rel(values[0], values[1]).confidence_interval(0.95)
    assert difference.pairs == 5
    interval = difference.interval
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9)


def test_pairing_removes_the_common_effect_of_seeds():
    """The common effect of a seed is much larger than the difference."""
    generator = np.random.default_rng(1)
    values = 5.0 * generator.standard_normal((1, 5)) + 0.1 * generator.standard_normal((6, 5))
    values[0] += 1.0
    paired, unpaired = between(values), between(values, first_seeds=tuple(range(0, 600, 100)))
    assert paired.clear
    assert paired.interval.mean == pytest.approx(unpaired.interval.mean)
    assert (unpaired.pairs, unpaired.clear) == (0, False)


def correlated_pairs(generator: np.random.Generator, *, settings: int = 12, seeds: int = 5) -> Table:
    """Return a grid in which two weight decays give almost the same result with each seed; one is 0.1 better."""
    shared = generator.standard_normal((settings, 1, seeds))
    values = shared + 0.1 * generator.standard_normal((settings, 2, seeds))
    values[:, 1] += 0.1
    return tabulate(
        Observation({"setting": i, "decay": j}, seed, float(values[i, j, seed]))
        for i in range(settings)
        for j in range(2)
        for seed in range(seeds)
    )


def half_width(difference) -> float:
    return (difference.interval.high - difference.interval.low) / 2.0


def test_a_pair_whose_runs_correlate_has_a_narrow_interval_among_other_configurations():
    table = correlated_pairs(np.random.default_rng(5))
    noise = learn_noise(table)
    assert noise is not None
    near = [compare(table, noise, 2 * i + 1, 2 * i, "max") for i in range(12)]
    far = compare(table, noise, 0, 3, "max")
    assert half_width(far) > 5 * max(map(half_width, near))
    truth_inside = [each.interval.low <= 0.1 <= each.interval.high for each in near]
    assert sum(truth_inside) >= 10
    students = [2.776 * np.std(np.subtract(*values), ddof=1) / 5**0.5 for values in pairs_of(table)]
    assert np.mean([half_width(each) for each in near]) < 0.9 * np.mean(students), "degrees of freedom are pooled"


def pairs_of(table: Table) -> list[tuple[np.ndarray, np.ndarray]]:
    values = [np.array(setup.values) for setup in table.setups]
    return list(zip(values[1::2], values[::2], strict=True))


def test_the_interval_of_a_pair_is_recomputed_from_its_prior():
    stats = pytest.importorskip("scipy.stats")
    table = correlated_pairs(np.random.default_rng(6))
    difference = compare(table, learn_noise(table), 1, 0, "max")
    differences = np.subtract(*pairs_of(table)[0])
    moderation, k = difference.moderation, len(differences)
    assert moderation is not None
    d0, s0_squared, weight = np.array([(p.d0, p.s0_squared, p.weight) for p in moderation.prior]).T
    moderated = (d0 * s0_squared + (k - 1) * differences.var(ddof=1)) / (d0 + k - 1)
    variance = (weight * moderated).sum()
    ratio, df = moderated / variance, np.minimum(d0 + k - 1, moderation.pool_df)
    f = max(k - 1, 2 / (weight * (2 * ratio**2 / df + (ratio - 1) ** 2)).sum())
    reach = stats.t.ppf(0.975, f) * (variance / k) ** 0.5
    low, high = differences.mean() - reach, differences.mean() + reach
    assert (difference.interval.low, difference.interval.high) == pytest.approx((low, high), rel=1e-3)


@pytest.mark.parametrize("noise", ["independent", "pairs correlate 0.95", "seed x first parameter"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_differences_hold_the_true_one_95_times_in_100_and_are_narrow_where_runs_correlate(noise, seeds):
    bench = load_program("bench/pair_coverage.py")
    tallies = bench.measure(bench.NOISES[noise], seeds, 60)
    for labbench, student in tallies.values():
        assert np.mean(labbench.hits) >= 0.88  # 60 grids
        assert np.mean(labbench.half_widths) < np.mean(student.half_widths)
    neighbours, far = (np.mean(tallies[pair][0].half_widths) for pair in ("neighbours", "far"))
    assert neighbours < {"independent": 1.2, "pairs correlate 0.95": 0.35}.get(noise, 0.9) * far


def test_few_common_seeds_are_not_paired():
    values = np.random.default_rng(2).normal(size=(3, 8))
    values[1, 2:] = np.nan
    assert between(values).pairs == 0


def test_the_probability_of_improvement_is_one_half_for_equal_means_and_near_one_for_a_large_lead():
    values = np.random.default_rng(3).normal(size=(8, 5))
    values[:2] = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    assert between(values).probability == pytest.approx(0.5)
    values[0] += 20.0
    assert between(values).probability > 0.99
    assert between(values[[1, 0, 2, 3]]).probability < 0.01


def test_the_recommended_number_of_seeds_detects_the_difference_about_80_percent_of_the_time():
    generator = np.random.default_rng(4)
    values = generator.standard_normal((10, 3))
    values[0] += 1.2 - (values[0] - values[1]).mean()  # a measured difference of exactly 1.2
    needed = between(values).seeds_needed
    assert 5 < needed < 40
    detected = 0
    for _ in range(100):
        simulated = generator.standard_normal((10, needed))
        simulated[0] += 1.2
        detected += between(simulated).clear
    assert 60 <= detected <= 99


def test_no_number_of_seeds_is_recommended_for_equal_means():
    assert between(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [4.0, 4.5, 5.0]])).seeds_needed is None


def test_single_seeds_give_a_difference_without_interval():
    difference = between(np.array([[1.0], [0.5]]))
    assert (difference.interval.mean, difference.interval.low) == (0.5, None)
    assert (difference.probability, difference.seeds_needed) == (None, None)


def test_configurations_with_diverged_runs_rank_last():
    runs = [Observation({"i": 0}, seed, 0.9) for seed in range(2)]
    runs += [Observation({"i": 1}, 0, 0.99), Observation({"i": 1}, 1, None, diverged=True)]
    runs += [Observation({"i": 2}, seed, 0.8) for seed in range(2)]
    table = tabulate(runs)
    assert rank_setups(table, "max").tolist() == [0, 2, 1]
    assert rank_setups(table, "min").tolist() == [2, 0, 1]


def test_contenders_are_not_clearly_worse_than_the_best():
    values = np.random.default_rng(5).normal(scale=0.01, size=(6, 3)) + np.array([0, 0, -5, -5, -5, -5])[:, None]
    table = table_of(values)
    best = int(rank_setups(table, "max")[0])
    assert contenders(table, learn_noise(table), best, "max").tolist() == [True, True, False, False, False, False]
    assert contenders(table, None, best, "max").all()


@pytest.mark.parametrize("shared", [0.0, 2.0])
@pytest.mark.parametrize("goal", ["max", "min"])
def test_contenders_are_those_whose_interval_of_the_difference_to_the_best_contains_0(shared, goal):
    """Some configurations lack seeds or have other ones, and one of them has no spread."""
    generator = np.random.default_rng(5)
    values = generator.normal(size=(40, 1)) + generator.normal(size=(40, 4)) * 0.4 + shared * generator.normal(size=4)
    values[::5, 3], values[1::7, 1:], values[11] = np.nan, np.nan, values[11, 0]
    table = table_of(values, first_seeds=(0,) * 30 + (50,) * 10)
    noise, best = learn_noise(table), int(rank_setups(table, goal)[0])
    differences = [compare(table, noise, best, i, goal).interval for i in range(40)]
    expected = [i == best or not differences[i].excludes(0.0) for i in range(40)]
    assert contenders(table, noise, best, goal).tolist() == expected
    assert 2 < sum(expected) < 38


@pytest.mark.parametrize("goal", ["max", "min"])
def test_the_winners_interval_is_wider_on_its_optimistic_side(goal):
    table = table_of(np.random.default_rng(6).normal(size=(20, 3)))
    noise = learn_noise(table)
    best = int(rank_setups(table, goal)[0])
    plain, adjusted = mean_intervals(table, noise)[best], winner_interval(table, noise, best, goal)
    if goal == "max":
        assert (adjusted.high, adjusted.low < plain.low) == (pytest.approx(plain.high, rel=1e-3), True)
    else:
        assert (adjusted.low, adjusted.high > plain.high) == (pytest.approx(plain.low, rel=1e-3), True)


def test_a_winner_without_rivals_has_the_unadjusted_interval():
    table = table_of(np.random.default_rng(6).normal(size=(5, 5)) + np.array([0, 0, 0, 0, 1000])[:, None])
    noise = learn_noise(table)
    plain, adjusted = mean_intervals(table, noise)[4], winner_interval(table, noise, 4, "max")
    assert (adjusted.low, adjusted.high) == pytest.approx((plain.low, plain.high), rel=1e-3)


def test_the_held_out_score_of_a_lucky_winner_is_unbiased():
    """All configurations have a true mean of 0, so the best sample mean is optimistic."""
    best_means, held_out = [], []
    for rng in range(100):
        table = table_of(np.random.default_rng(rng).normal(size=(20, 3)))
        best_means.append(table.means.max())
        held_out.append(held_out_score(table, "max"))
    assert np.mean(best_means) > 0.9
    assert np.mean(held_out) == pytest.approx(0.0, abs=0.15)


def test_there_is_no_held_out_score_without_common_seeds():
    values = np.random.default_rng(7).normal(size=(3, 2))
    assert held_out_score(table_of(values, first_seeds=(0, 10, 20)), "max") is None
    assert held_out_score(table_of(values[:, :1]), "max") is None
