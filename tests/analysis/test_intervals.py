"""Intervals from few seeds, against SciPy where it has them."""

import numpy as np
import pytest

from helpers.analysis_grids import grid, nothing_matters
from labbench.analysis import Observation
from labbench.analysis.comparison import mean_intervals
from labbench.analysis.intervals import interquartile_mean, share_interval
from labbench.analysis.noise import learn_noise
from labbench.analysis.table import Table, tabulate


def table_of(values: np.ndarray) -> Table:
    """(set-ups, seeds) as a grid of one parameter."""
    return tabulate(Observation({"i": i}, seed, float(v)) for i, row in enumerate(values) for seed, v in enumerate(row))


def widths(table: Table) -> np.ndarray:
    return np.array([interval.high - interval.low for interval in mean_intervals(table, learn_noise(table))])


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_one_setup_alone_gets_students_t(seeds):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(seeds).normal(3.0, 2.0, (1, seeds))
    table = table_of(values)
    (interval,) = mean_intervals(table, learn_noise(table))
    low, high = stats.t.interval(0.95, seeds - 1, loc=values.mean(), scale=stats.sem(values[0]))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


def test_setups_lend_each_other_their_spread():
    """With 3 seeds and equal spreads, the interval is about half as wide as Student's t and near the pooled one."""
    values = np.random.default_rng(1).standard_normal((24, 3))
    pooled = 2 * 2.0106 * np.sqrt(values.var(axis=1, ddof=1).mean() / 3)  # t with 48 degrees of freedom
    assert widths(table_of(values)).mean() == pytest.approx(pooled, rel=0.1)
    assert widths(table_of(values)).mean() < 0.6 * np.mean([widths(table_of(row[None]))[0] for row in values])


def test_a_restless_setup_keeps_its_own_spread():
    values = np.random.default_rng(2).standard_normal((16, 5)) * np.where(np.arange(16) < 4, 10.0, 1.0)[:, None]
    found = widths(table_of(values))
    assert found[:4].mean() > 5 * found[4:].mean()


def test_good_setups_do_not_borrow_the_spread_of_bad_ones():
    """Training that works agrees over seeds; training that does not goes anywhere. Quality tells who may lend."""
    generator = np.random.default_rng(8)
    quality, spread = np.linspace(0.0, 1.0, 48)[:, None], np.linspace(0.1, 0.005, 48)[:, None]
    values = quality + spread * generator.standard_normal((48, 3))
    good = widths(table_of(values))[-12:]
    assert good.mean() < 3.0 * 0.02  # about 2.5 standard deviations at 3 seeds
    mixed = widths(table_of(values - quality))[-12:]  # without a difference in quality nobody knows who is calm
    assert mixed.mean() > 1.3 * good.mean()


def test_a_single_seed_borrows_the_spread_of_the_others():
    runs = [Observation({"lr": lr}, seed, lr + 0.01 * seed) for lr in (1.0, 2.0, 3.0) for seed in range(3)]
    table = tabulate([*runs, Observation({"lr": 4.0}, 0, 4.0)])
    single = mean_intervals(table, learn_noise(table))[3]
    repeated = mean_intervals(table, learn_noise(table))[0]
    assert single.low < 4.0 < single.high
    assert single.high - single.low > repeated.high - repeated.low


def test_single_seeds_everywhere_give_no_interval():
    table = tabulate(Observation({"lr": lr}, 0, lr) for lr in (1.0, 2.0, 3.0))
    assert learn_noise(table) is None
    assert [(i.mean, i.low, i.high) for i in mean_intervals(table, None)] == [(v, None, None) for v in (1.0, 2.0, 3.0)]


def test_equal_values_have_no_width():
    table = table_of(np.array([[0.5, 0.5, 0.5], [0.7, 0.7, 0.7]]))
    assert widths(table) == pytest.approx([0.0, 0.0])
    assert learn_noise(table).variance_of_combination(np.array([1.0, -1.0])).interval(-0.2).excludes(0.0)


def test_what_seeds_share_is_found_and_cancels_in_differences():
    generator = np.random.default_rng(3)
    values = generator.standard_normal((24, 10)) + 2.0 * generator.standard_normal((1, 10))
    noise = learn_noise(table_of(values))
    assert noise.shared == pytest.approx(0.8, abs=0.15)
    mean, effect = np.full(24, 1 / 24), np.where(np.arange(24) < 12, 1 / 12, -1 / 12)
    assert noise.variance_of_combination(mean).variance > 0.1  # 4 / 10 seeds, however many set-ups
    assert noise.variance_of_combination(effect).variance < 0.05  # 1 / (6 set-ups x 10 seeds)


def test_an_average_over_setups_allows_for_what_its_seeds_share():
    """Half of the variance is the seed's: with 2 or 3 seeds it is hardly seen, and does not average away."""
    half = np.where(np.arange(24) < 12, 1 / 12, 0.0)
    for seeds in (2, 3):
        generator = np.random.default_rng(seeds)
        held = []
        for _ in range(150):
            values = np.sqrt(0.5) * (generator.standard_normal((24, seeds)) + generator.standard_normal((1, seeds)))
            table = table_of(values)
            spread = learn_noise(table).variance_of_combination(half)
            held.append(not spread.interval(float(half @ table.means)).excludes(0.0))
        assert 0.9 <= np.mean(held) <= 0.99


def test_independent_noise_is_not_called_shared():
    shared = [learn_noise(table_of(np.random.default_rng(k).standard_normal((24, 5)))).shared.mean() for k in range(20)]
    assert np.mean(shared) < 0.05


def test_seeds_of_different_setups_do_not_pair():
    runs = [Observation({"lr": lr}, int(100 * lr) + seed, lr + 0.1 * seed) for lr in (1.0, 2.0) for seed in range(3)]
    assert learn_noise(tabulate(runs)).shifts is None


def test_covariance_and_combination_agree():
    noise = learn_noise(tabulate(grid(nothing_matters)))
    weights = np.stack([np.full(32, 1 / 32), np.resize([1 / 16, -1 / 16], 32)])
    covariance = noise.covariance(weights)
    assert np.diag(covariance) == pytest.approx([noise.variance_of_combination(row).variance for row in weights])


@pytest.mark.parametrize("n", [4, 8, 12, 40])
def test_the_interquartile_mean_is_scipys_trimmed_mean(n):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).exponential(size=n)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_the_interquartile_mean_counts_values_on_the_border_in_part():
    assert interquartile_mean([1.0, 2.0, 3.0, 4.0, 100.0]) == pytest.approx((0.75 * 2 + 3 + 0.75 * 4) / 2.5)
    assert interquartile_mean([7.0]) == 7.0


@pytest.mark.parametrize(("count", "n"), [(0, 3), (1, 3), (3, 3), (7, 40)])
def test_shares_have_wilsons_interval(count, n):
    stats = pytest.importorskip("scipy.stats")
    reference = stats.binomtest(count, n).proportion_ci(method="wilson")
    found = share_interval(count, n)
    assert (found.mean, found.low, found.high) == pytest.approx((count / n, reference.low, reference.high))
