"""The best set-up against the others."""

import numpy as np
import pytest

from labbench.analysis import Observation
from labbench.analysis.comparison import (
    compare,
    contenders,
    held_out_score,
    mean_intervals,
    rank_setups,
    winner_interval,
)
from labbench.analysis.noise import learn_noise
from labbench.analysis.table import Table, tabulate


def table_of(values: np.ndarray, *, first_seeds: tuple[int, ...] = ()) -> Table:
    """(set-ups, seeds) as a grid of one parameter; each set-up may begin at a seed of its own."""
    begins = first_seeds or (0,) * len(values)
    return tabulate(
        Observation({"i": i}, begins[i] + seed, float(value))
        for i, row in enumerate(values)
        for seed, value in enumerate(row)
        if not np.isnan(value)
    )


def between(values: np.ndarray, **options):
    table = table_of(values, **options)
    return compare(table, learn_noise(table), 0, 1, "max")


def test_two_setups_with_the_same_seeds_are_compared_in_pairs():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(size=(2, 5))
    found = between(values)
    reference = stats.ttest_rel(values[0], values[1]).confidence_interval(0.95)
    assert found.pairs == 5
    assert (found.interval.low, found.interval.high) == pytest.approx((reference.low, reference.high), rel=1e-9)


def test_pairs_see_what_the_seeds_hide():
    """Seeds that move both alike by far more than the difference do not hide it."""
    generator = np.random.default_rng(1)
    values = 5.0 * generator.standard_normal((1, 5)) + 0.1 * generator.standard_normal((6, 5))
    values[0] += 1.0
    paired, unpaired = between(values), between(values, first_seeds=tuple(range(0, 600, 100)))
    assert paired.clear
    assert paired.interval.mean == pytest.approx(unpaired.interval.mean)
    assert (unpaired.pairs, unpaired.clear) == (0, False)


def test_pairs_that_cover_little_of_the_seeds_are_not_used():
    values = np.random.default_rng(2).normal(size=(3, 8))
    values[1, 2:] = np.nan
    assert between(values).pairs == 0


def test_the_probability_of_improvement_is_even_for_equals_and_high_for_unequals():
    values = np.random.default_rng(3).normal(size=(8, 5))
    values[:2] = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
    assert between(values).probability == pytest.approx(0.5)
    values[0] += 20.0
    assert between(values).probability > 0.99
    assert between(values[[1, 0, 2, 3]]).probability < 0.01


def test_the_seeds_that_would_do_do():
    """Simulated: with as many seeds as were asked for, a difference of the size seen shows about 80 % of the time."""
    generator = np.random.default_rng(4)
    values = generator.standard_normal((10, 3))
    values[0] += 1.2 - (values[0] - values[1]).mean()  # a difference of exactly 1.2 is seen
    needed = between(values).seeds_needed
    assert 5 < needed < 40
    shown = 0
    for _ in range(100):
        fresh = generator.standard_normal((10, needed))
        fresh[0] += 1.2
        shown += between(fresh).clear
    assert 60 <= shown <= 99


def test_no_number_of_seeds_tells_equals_apart():
    assert between(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [4.0, 4.5, 5.0]])).seeds_needed is None


def test_single_seeds_give_a_difference_and_nothing_else():
    found = between(np.array([[1.0], [0.5]]))
    assert (found.interval.mean, found.interval.low, found.probability, found.seeds_needed) == (0.5, None, None, None)


def test_setups_of_which_runs_diverged_come_last():
    runs = [Observation({"i": 0}, seed, 0.9) for seed in range(2)]
    runs += [Observation({"i": 1}, 0, 0.99), Observation({"i": 1}, 1, None, diverged=True)]
    runs += [Observation({"i": 2}, seed, 0.8) for seed in range(2)]
    table = tabulate(runs)
    assert rank_setups(table, "max").tolist() == [0, 2, 1]
    assert rank_setups(table, "min").tolist() == [2, 0, 1]


def test_contenders_are_those_not_clearly_behind():
    values = np.random.default_rng(5).normal(scale=0.01, size=(6, 3)) + np.array([0, 0, -5, -5, -5, -5])[:, None]
    table = table_of(values)
    best = int(rank_setups(table, "max")[0])
    assert contenders(table, learn_noise(table), best, "max").tolist() == [True, True, False, False, False, False]
    assert contenders(table, None, best, "max").all()


@pytest.mark.parametrize("goal", ["max", "min"])
def test_the_winners_interval_reaches_further_on_the_side_that_selection_flatters(goal):
    table = table_of(np.random.default_rng(6).normal(size=(20, 3)))
    noise = learn_noise(table)
    best = int(rank_setups(table, goal)[0])
    plain, chosen = mean_intervals(table, noise)[best], winner_interval(table, noise, best, goal)
    if goal == "max":
        assert (chosen.high, chosen.low < plain.low) == (pytest.approx(plain.high, rel=1e-3), True)
    else:
        assert (chosen.low, chosen.high > plain.high) == (pytest.approx(plain.low, rel=1e-3), True)


def test_a_winner_without_rivals_has_the_plain_interval():
    table = table_of(np.random.default_rng(6).normal(size=(5, 5)) + np.array([0, 0, 0, 0, 1000])[:, None])
    noise = learn_noise(table)
    plain, chosen = mean_intervals(table, noise)[4], winner_interval(table, noise, 4, "max")
    assert (chosen.low, chosen.high) == pytest.approx((plain.low, plain.high), rel=1e-3)


def test_the_held_out_value_of_a_lucky_winner_is_unbiased():
    """All set-ups are equal: the best looks far better than it is, the held-out value does not."""
    flattered, forecast = [], []
    for rng in range(100):
        table = table_of(np.random.default_rng(rng).normal(size=(20, 3)))
        flattered.append(table.means.max())
        forecast.append(held_out_score(table, "max"))
    assert np.mean(flattered) > 0.9
    assert np.mean(forecast) == pytest.approx(0.0, abs=0.15)


def test_there_is_no_held_out_value_without_shared_seeds():
    values = np.random.default_rng(7).normal(size=(3, 2))
    assert held_out_score(table_of(values, first_seeds=(0, 10, 20)), "max") is None
    assert held_out_score(table_of(values[:, :1]), "max") is None
