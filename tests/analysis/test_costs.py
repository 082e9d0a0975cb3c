"""Costs of reaching a target, areas under curves, stability and learning-rate basins."""

import math

import numpy as np
import pytest

from labbench.analysis import AnswerOptions, Observation, why
from labbench.analysis.costs import (
    CostCurve,
    area_under_curve,
    cost_to_target,
    find_basin,
    observe_areas,
    observe_costs,
    setup_stability,
    summarize_costs,
)
from labbench.analysis.table import tabulate
from labbench.reports.sentences import sentences


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def curve(optimizer: str, seed: int, *values: float) -> CostCurve:
    steps = 10.0 * np.arange(1, len(values) + 1)
    return CostCurve({"optimizer": optimizer, "seed": seed}, seed, steps, array(*values), steps * 64, steps / 100)


def test_a_target_is_reached_at_the_first_point_that_is_as_good():
    steps, values = array(0, 10, 20, 30), array(0.1, 0.9, 0.5, 0.95)
    assert cost_to_target(steps, values, 0.9, "max") == 10
    assert cost_to_target(steps, values, 0.91, "max") == 30
    assert cost_to_target(steps, values, 0.96, "max") is None
    assert cost_to_target(steps, 1 - values, 0.5, "min") == 10
    assert cost_to_target(array(), array(), 0.5, "min") is None
    assert cost_to_target(array(0, 1), array(math.nan, 0.6), 0.5, "max") == 1


def test_the_area_is_the_mean_height_of_the_curve():
    steps = array(0, 10, 30)
    assert area_under_curve(steps, array(2, 2, 2)) == pytest.approx(2.0)
    assert area_under_curve(steps, array(0, 1, 1)) == pytest.approx((5 + 20) / 30)
    assert area_under_curve(steps, array(0, 1, 3), until=20.0) == pytest.approx((5 + 15) / 20)


def test_a_curve_that_ends_early_keeps_its_last_value():
    assert area_under_curve(array(0, 10), array(0, 1), until=30.0) == pytest.approx((5 + 20) / 30)


@pytest.mark.parametrize(
    ("steps", "values"),
    [(array(), array()), (array(0), array(1)), (array(0, 1), array(1, math.nan)), (array(5, 5), array(1, 2))],
)
def test_a_non_finite_or_single_point_curve_has_no_area(steps, values):
    assert area_under_curve(steps, values) is None


def test_costs_are_compared_like_any_metric():
    curves = [curve("adam", seed, 0.5, 0.9 + seed / 100, 0.95) for seed in range(3)]
    curves += [curve("sgd", seed, 0.1, 0.3, 0.5, 0.7, 0.9 + seed / 100) for seed in range(3)]
    for axis, factor in (("steps", 1.0), ("samples", 64.0), ("seconds", 0.01)):
        observed = observe_costs(curves, 0.9, "max", axis=axis)
        assert [o.value for o in observed] == pytest.approx([20 * factor] * 3 + [50 * factor] * 3)
    answer = why(observe_costs(curves, 0.9, "max"), "steps to 0.9", "min")
    assert answer.best.config == {"optimizer": "adam"}
    assert answer.best.interval.mean == 20
    assert sentences(answer)[0] == "best: adam: steps to 0.9 20 with each of 3 seeds"


def test_a_configuration_with_a_run_that_misses_the_target_does_not_win():
    curves = [
        curve("lucky", 0, 0.9),
        curve("lucky", 1, 0.5),
        curve("steady", 0, 0.5, 0.9),
        curve("steady", 1, 0.5, 0.9),
    ]
    observed = observe_costs(curves, 0.9, "max")
    assert [(o.value, o.diverged) for o in observed] == [(10, False), (None, True), (20, False), (20, False)]
    answer = why(observed, "steps", "min", options=AnswerOptions(lost="never got there"))
    assert answer.best.config == {"optimizer": "steady"}
    assert "1 of 4 runs never got there: 1 of 2 with optimizer lucky" in sentences(answer)
    lucky, steady = (summarize_costs(setup) for setup in tabulate(observed).setups)
    assert (lucky.reached, lucky.runs, lucky.median) == (1, 2, None)
    assert (steady.reached, steady.runs, steady.median) == (2, 2, 20)


def test_a_cost_that_was_not_recorded_is_missing():
    (observed,) = observe_costs([CostCurve({}, 0, array(0, 1), array(0, 1))], 0.5, "max", axis="seconds")
    assert (observed.value, observed.diverged) == (None, False)


def test_areas_become_observations():
    observed = observe_areas([curve("adam", 0, 1.0, 1.0), curve("adam", 1, 1.0, math.nan)])
    assert [(o.value, o.diverged) for o in observed] == [(1.0, False), (None, True)]


def test_stability_is_the_share_of_diverged_runs_and_the_spread_over_seeds():
    runs = [Observation({"lr": 0.1}, seed, 0.9 + seed) for seed in range(3)]
    runs += [Observation({"lr": 1.0}, seed, None, diverged=True) for seed in range(3)]
    stable, unstable = setup_stability(tabulate(runs))
    assert (stable.diverged.mean, unstable.diverged.mean) == (0.0, 1.0)
    assert stable.diverged.high > 0.5  # three runs are weak evidence
    assert stable.spread == pytest.approx(1.0)
    assert unstable.spread is None


RATES = [0.001, 0.01, 0.1, 1.0, 10.0]


def test_a_basin_is_the_range_within_5_percent_around_the_best_rate():
    basin = find_basin(RATES, [0.5, 0.96, 1.0, 0.97, 0.2], "max")
    assert (basin.best, basin.low, basin.high, basin.decades) == (0.1, 0.01, 1.0, pytest.approx(2.0))
    assert not basin.open_below
    assert not basin.open_above


def test_a_basin_of_losses_is_within_5_percent_above_the_smallest():
    assert find_basin(RATES, [2.0, 1.04, 1.0, 1.06, 3.0], "min").decades == pytest.approx(1.0)


def test_a_basin_ends_at_a_gap_or_a_divergence():
    assert find_basin(RATES, [1.0, 0.5, 1.0, 1.0, 0.5], "max").low in (0.001, 0.1)
    basin = find_basin(RATES, [0.99, 0.99, 1.0, None, 0.99], "max")
    assert (basin.low, basin.high, basin.open_below) == (0.001, 0.1, True)
    assert find_basin(RATES, [0.9, 0.99, 1.0, math.nan, 0.99], "max").high == 0.1


def test_a_basin_can_be_relative_to_another_best_value():
    assert find_basin(RATES, [0.5, 0.96, 1.0, 0.97, 0.2], "max", best=1.03).decades == pytest.approx(0.0)
    assert find_basin(RATES, [0.5, 0.96, 1.0, 0.97, 0.2], "max", best=2.0) is None
    assert find_basin(RATES, [None] * 5, "max") is None


def test_a_basin_of_negative_values_is_within_5_percent_of_their_absolute_value():
    assert find_basin(RATES, [-150.0, -104.0, -100.0, -106.0, -150.0], "max").decades == pytest.approx(1.0)
