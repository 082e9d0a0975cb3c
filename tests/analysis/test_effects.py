"""Marginal effects and two-way tables."""

import math

import numpy as np
import pytest

from helpers.analysis_grids import AXES, grid, grid_with_holes, nothing_matters, optimizer_and_rate
from labbench.analysis import Observation
from labbench.analysis.effects import marginal_effects, two_way_table
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import tabulate


def effects_of(observations, name, goal="max"):
    table = tabulate(observations)
    return marginal_effects(table, table.parameter(name), learn_noise(table.with_values()), goal)


def means(marginal) -> dict:
    return {effect.value: effect.interval.mean for effect in marginal.effects}


def test_a_full_grid_gives_plain_averages():
    runs = grid(optimizer_and_rate)
    for name, values in AXES.items():
        marginal = effects_of(runs, name)
        for value in values:
            plain = np.mean([run.value for run in runs if run.config[name] == value])
            assert means(marginal)[value] == pytest.approx(plain)
        assert {effect.n for effect in marginal.effects} == {len(runs) / len(values)}


def test_intervals_of_known_effects_contain_the_truth():
    truth = grid(optimizer_and_rate, spread=0.0, seeds=1)
    covered = []
    for name in ("optimizer", "lr", "batchnorm"):
        exact = means(effects_of(truth, name))
        for rng in range(10):
            marginal = effects_of(grid(optimizer_and_rate, seeds=5, spread=0.02, rng=rng), name)
            assert marginal.p_value < 0.05
            assert marginal.basis == "seeds"
            covered += [e.interval.low <= exact[e.value] <= e.interval.high for e in marginal.effects]
    assert np.mean(covered) >= 0.93
    batchnorm = effects_of(grid(optimizer_and_rate), "batchnorm").contrast
    assert (batchnorm.value, batchnorm.against) == (True, False)
    assert batchnorm.interval.low <= 0.02 <= batchnorm.interval.high


def test_absent_effects_are_significant_about_once_in_twenty():
    significant = [
        effects_of(grid(nothing_matters, seeds=2 + rng % 4, rng=rng), name).p_value < 0.05
        for rng in range(60)
        for name in ("optimizer", "lr", "batchnorm")
    ]
    assert np.mean(significant) < 0.09


def test_a_hole_in_the_grid_does_not_bias_an_effect():
    """sgd was not run at the worst learning rate, so its plain average is too good."""

    def by_rate(config):
        hole = config["optimizer"] == "sgd" and config["lr"] == 1.0
        return None if hole else 0.9 - 0.5 * (config["lr"] == 1.0)

    runs = [run for run in grid(by_rate, spread=0.001) if run.value is not None]
    by_value = means(effects_of(runs, "optimizer"))
    assert by_value["sgd"] == pytest.approx(by_value["adam"], abs=0.002)
    assert means(effects_of(runs, "lr"))[1.0] == pytest.approx(0.4, abs=0.002)


@pytest.mark.parametrize("seeds", [2, 3])
def test_absent_effects_are_significant_about_once_in_twenty_in_a_grid_with_holes(seeds):
    """A configuration whose two seeds agree by chance must not count as known exactly."""
    significant = [
        effects_of(grid_with_holes(lambda c: 0.8 + 0.05 * c["b"], seeds=seeds, rng=rng), "a").p_value < 0.05
        for rng in range(150)
    ]
    assert np.mean(significant) <= 0.07


def test_an_effect_is_significant_in_a_grid_with_holes():
    p_values = [effects_of(grid_with_holes(lambda c: 0.8 + 0.05 * c["b"], rng=rng), "b").p_value for rng in range(20)]
    assert np.mean(np.array(p_values) < 0.05) >= 0.9


def test_a_mean_of_zero_has_no_rounding_error():
    values = {"x": (0.1, 0.2, -0.3), "y": (0.3, -0.2, -0.1), "z": (0.5, 0.25, 0.75)}
    runs = [Observation({"a": a, "b": b}, s, v) for a in values for b in "uv" for s, v in enumerate(values[a])]
    by_value = means(effects_of(runs, "a"))
    assert (by_value["x"], by_value["y"], by_value["z"]) == (0.0, 0.0, pytest.approx(0.5))


def test_a_value_at_which_all_runs_diverged_has_no_mean():
    marginal = effects_of(grid(lambda config: None if config["lr"] == 1.0 else 0.9), "lr")
    assert math.isnan(means(marginal)[1.0])
    assert (marginal.effects[3].n, marginal.effects[3].diverged) == (0, 24)
    assert marginal.contrast is not None


def test_without_repeated_seeds_intervals_are_based_on_settings():
    marginal = effects_of(grid(optimizer_and_rate, seeds=1), "batchnorm")
    assert marginal.basis == "settings"
    assert marginal.contrast.interval.low <= 0.02 <= marginal.contrast.interval.high


def test_two_runs_have_no_interval():
    marginal = effects_of([Observation({"lr": lr}, 0, lr) for lr in (0.1, 0.2)], "lr")
    assert (marginal.basis, marginal.p_value, marginal.contrast.interval.low) == ("none", None, None)


def test_goal_min_prefers_the_smallest_mean():
    contrast = effects_of(grid(lambda config: 1.0 + config["lr"]), "lr", "min").contrast
    assert (contrast.value, contrast.against) == (0.001, 0.01)
    assert contrast.interval.mean < 0.02


def test_a_conditional_parameter_is_analysed_where_it_exists():
    def loss(optimizer, momentum):
        return {None: 0.5, 0.0: 0.4, 0.9: 0.2}[momentum] + (0.0 if optimizer == "adam" else 0.01)

    generator = np.random.default_rng(0)
    runs = [
        Observation(
            {"optimizer": optimizer, "lr": lr} | ({} if momentum is None else {"momentum": momentum}),
            seed,
            loss(optimizer, momentum) + 0.001 * generator.standard_normal(),
        )
        for optimizer, momentum in (("adam", None), ("sgd", 0.0), ("sgd", 0.9))
        for lr in (0.01, 0.1)
        for seed in range(3)
    ]
    assert means(effects_of(runs, "momentum", "min")) == pytest.approx({0.0: 0.41, 0.9: 0.21}, abs=0.003)
    assert means(effects_of(runs, "optimizer", "min")) == pytest.approx({"adam": 0.5, "sgd": 0.31}, abs=0.003)


def test_a_random_search_has_its_effects_in_bins():
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(60):
        rate, decay = float(10 ** generator.uniform(-4, 0)), float(generator.uniform())
        optimizer = str(generator.choice(["sgd", "adam"]))
        value = 0.9 - 0.05 * abs(math.log10(rate) + 2) + 0.05 * (optimizer == "adam")
        runs.append(Observation({"lr": rate, "decay": decay, "o": optimizer}, 0, value + 0.01 * generator.normal()))
    rate, decay, optimizer = (effects_of(runs, name) for name in ("lr", "decay", "o"))
    assert rate.basis == "settings"
    assert rate.contrast.value == pytest.approx(0.01, rel=1.5)
    assert rate.p_value < 1e-4 < 0.01 < decay.p_value
    assert optimizer.contrast.interval.low <= 0.05 <= optimizer.contrast.interval.high


def test_a_search_with_too_few_runs_for_a_model_gives_averages():
    generator = np.random.default_rng(0)
    runs = [
        Observation({k: float(generator.uniform()) for k in "abcdef"}, 0, float(generator.uniform())) for _ in range(8)
    ]
    for name in "abcdef":
        assert all(0 <= value <= 1 for value in means(effects_of(runs, name)).values())


def test_a_two_way_table_has_every_cell():
    runs = grid(lambda config: None if config["lr"] == 1.0 and config["optimizer"] == "adam" else 0.9)
    table = tabulate(runs)
    noise = learn_noise(table.with_values())
    two_way = two_way_table(table, table.parameter("optimizer"), table.parameter("lr"), noise)
    assert two_way.rows == ("adam", "sgd")
    assert two_way.columns == (0.001, 0.01, 0.1, 1.0)
    full, empty = two_way.cells[1][3], two_way.cells[0][3]
    assert (full.n, full.runs, full.diverged) == (12, 12, 0)
    assert full.interval.low < full.interval.mean < full.interval.high
    assert full.interval.mean == pytest.approx(0.9, abs=0.02)
    assert (empty.n, empty.runs, empty.diverged) == (0, 12, 12)
    assert math.isnan(empty.interval.mean)
    assert empty.interval.low is None
