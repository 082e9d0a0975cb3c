"""Intervals from few seeds, compared with SciPy where possible."""

import numpy as np
import pytest

from helpers.analysis_grids import grid, nothing_matters
from labbench.analysis import Observation
from labbench.analysis.comparison import mean_intervals
from labbench.analysis.intervals import interquartile_mean, share_interval
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import Table, tabulate


def table_of(values: np.ndarray) -> Table:
    """Return values (configurations, seeds) as a grid of one parameter."""
    return tabulate(Observation({"i": i}, seed, float(v)) for i, row in enumerate(values) for seed, v in enumerate(row))


def widths(table: Table) -> np.ndarray:
    return np.array([interval.high - interval.low for interval in mean_intervals(table, learn_noise(table))])


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_a_single_configuration_has_students_t_interval(seeds):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(seeds).normal(3.0, 2.0, (1, seeds))
    table = table_of(values)
    (interval,) = mean_intervals(table, learn_noise(table))
    low, high = stats.t.interval(0.95, seeds - 1, loc=values.mean(), scale=stats.sem(values[0]))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


def test_equal_spreads_are_nearly_pooled():
    """With 3 seeds the interval is about half as wide as Student's t and close to the pooled one."""
    values = np.random.default_rng(1).standard_normal((24, 3))
    pooled = 2 * 2.0106 * np.sqrt(values.var(axis=1, ddof=1).mean() / 3)  # t with 48 degrees of freedom
    assert widths(table_of(values)).mean() == pytest.approx(pooled, rel=0.1)
    assert widths(table_of(values)).mean() < 0.6 * np.mean([widths(table_of(row[None]))[0] for row in values])


def test_a_configuration_with_a_large_spread_has_a_wide_interval():
    values = np.random.default_rng(2).standard_normal((16, 5)) * np.where(np.arange(16) < 4, 10.0, 1.0)[:, None]
    interval_widths = widths(table_of(values))
    assert interval_widths[:4].mean() > 5 * interval_widths[4:].mean()


def test_good_configurations_are_not_pooled_with_bad_ones():
    """Seeds agree in successful training and vary widely in failing training, so pooling is by quality."""
    generator = np.random.default_rng(8)
    quality, spread = np.linspace(0.0, 1.0, 48)[:, None], np.linspace(0.1, 0.005, 48)[:, None]
    values = quality + spread * generator.standard_normal((48, 3))
    good = widths(table_of(values))[-12:]
    assert good.mean() < 3.0 * 0.02  # about 2.5 standard deviations at 3 seeds
    mixed = widths(table_of(values - quality))[-12:]  # equal quality: the spreads are pooled
    assert mixed.mean() > 1.3 * good.mean()


def test_a_single_seed_gets_its_interval_from_the_spread_of_other_configurations():
    runs = [Observation({"lr": lr}, seed, lr + 0.01 * seed) for lr in (1.0, 2.0, 3.0) for seed in range(3)]
    table = tabulate([*runs, Observation({"lr": 4.0}, 0, 4.0)])
    single = mean_intervals(table, learn_noise(table))[3]
    repeated = mean_intervals(table, learn_noise(table))[0]
    assert single.low < 4.0 < single.high
    assert single.high - single.low > repeated.high - repeated.low


def test_without_repeated_seeds_there_are_no_intervals():
    table = tabulate(Observation({"lr": lr}, 0, lr) for lr in (1.0, 2.0, 3.0))
    assert learn_noise(table) is None
    assert [(i.mean, i.low, i.high) for i in mean_intervals(table, None)] == [(v, None, None) for v in (1.0, 2.0, 3.0)]


def test_equal_values_have_intervals_without_width():
    table = table_of(np.array([[0.5, 0.5, 0.5], [0.7, 0.7, 0.7]]))
    assert widths(table) == pytest.approx([0.0, 0.0])
    assert learn_noise(table).variance_of_combination(np.array([1.0, -1.0])).interval(-0.2).excludes(0.0)


def test_the_common_effect_of_seeds_cancels_in_differences():
    generator = np.random.default_rng(3)
    values = generator.standard_normal((24, 10)) + 2.0 * generator.standard_normal((1, 10))
    noise = learn_noise(table_of(values))
    assert noise.shared == pytest.approx(0.8, abs=0.15)
    mean, effect = np.full(24, 1 / 24), np.where(np.arange(24) < 12, 1 / 12, -1 / 12)
    assert noise.variance_of_combination(mean).variance > 0.1  # 4 / 10 seeds for any number of configurations
    assert noise.variance_of_combination(effect).variance < 0.05  # 1 / (6 configurations x 10 seeds)


def test_the_interval_of_an_average_over_configurations_includes_the_common_effect_of_seeds():
    """Half of the variance is common to a seed; 2 or 3 seeds hardly reveal it, and it does not average out."""
    half = np.where(np.arange(24) < 12, 1 / 12, 0.0)
    for seeds in (2, 3):
        generator = np.random.default_rng(seeds)
        covered = []
        for _ in range(150):
            values = np.sqrt(0.5) * (generator.standard_normal((24, seeds)) + generator.standard_normal((1, seeds)))
            table = table_of(values)
            spread = learn_noise(table).variance_of_combination(half)
            covered.append(not spread.interval(float(half @ table.means)).excludes(0.0))
        assert 0.9 <= np.mean(covered) <= 0.99


def test_independent_noise_is_not_attributed_to_seeds():
    shared = [learn_noise(table_of(np.random.default_rng(k).standard_normal((24, 5)))).shared.mean() for k in range(20)]
    assert np.mean(shared) < 0.05


def test_configurations_without_common_seeds_have_no_seed_shifts():
    runs = [Observation({"lr": lr}, int(100 * lr) + seed, lr + 0.1 * seed) for lr in (1.0, 2.0) for seed in range(3)]
    assert learn_noise(tabulate(runs)).shifts is None


def test_the_diagonal_of_the_covariance_is_the_variance_of_combinations():
    noise = learn_noise(tabulate(grid(nothing_matters)))
    weights = np.stack([np.full(32, 1 / 32), np.resize([1 / 16, -1 / 16], 32)])
    covariance = noise.covariance(weights)
    assert np.diag(covariance) == pytest.approx([noise.variance_of_combination(row).variance for row in weights])


@pytest.mark.parametrize("n", [4, 8, 12, 40])
def test_the_interquartile_mean_is_scipys_trimmed_mean(n):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).exponential(size=n)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_the_interquartile_mean_has_fractional_weights_on_the_border():
    assert interquartile_mean([1.0, 2.0, 3.0, 4.0, 100.0]) == pytest.approx((0.75 * 2 + 3 + 0.75 * 4) / 2.5)
    assert interquartile_mean([7.0]) == 7.0


@pytest.mark.parametrize(("count", "n"), [(0, 3), (1, 3), (3, 3), (7, 40)])
def test_the_interval_of_a_share_is_wilsons(count, n):
    stats = pytest.importorskip("scipy.stats")
    reference = stats.binomtest(count, n).proportion_ci(method="wilson")
    share = share_interval(count, n)
    assert (share.mean, share.low, share.high) == pytest.approx((count / n, reference.low, reference.high))
