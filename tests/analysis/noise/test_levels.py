"""Intervals and claims of effects where a seed has another effect under each value of a parameter."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from labbench.analysis import Observation, why
from labbench.analysis.effects import interaction_p_value, level_means, marginal_effects
from labbench.analysis.noise.levels import MIN_RATIO, learn_level_noise
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import tabulate

N_RATES = 6


def simulate(rng: int, *, seeds: int = 3, by_seed: float = 1.0, by_run: float = 0.3, interaction: float = 0.0):
    """Return observations of 2 optimizers x 6 rates; seeds shift all runs, and those of each optimizer apart."""
    generator = np.random.default_rng(rng)
    shift, by_optimizer = generator.standard_normal(seeds), by_seed * generator.standard_normal((2, seeds))
    return [
        Observation(
            {"optimizer": "ab"[optimizer], "rate": rate},
            seed,
            float(
                10.0
                + interaction * optimizer * rate
                + shift[seed]
                + by_optimizer[optimizer, seed]
                + by_run * generator.standard_normal()
            ),
        )
        for optimizer in range(2)
        for rate in range(N_RATES)
        for seed in range(seeds)
    ]


def effects_of(observations, name):
    table = tabulate(observations)
    return marginal_effects(table, table.parameter(name), learn_noise(table), "max")


def test_two_values_are_compared_by_the_paired_t_test_of_their_means_per_seed():
    runs = simulate(0)
    by_seed = [
        [
            np.mean([run.value for run in runs if (run.config["optimizer"], run.seed) == (optimizer, seed)])
            for seed in range(3)
        ]
        for optimizer in "ab"
    ]
    student = ttest_rel(*by_seed)
    low, high = sorted(abs(end) for end in student.confidence_interval())
    effects = effects_of(runs, "optimizer")
    assert effects.p_value == pytest.approx(student.pvalue, rel=0.02)
    assert effects.seed_df == pytest.approx(2)
    ends = sorted(abs(end) for end in (effects.contrast.interval.low, effects.contrast.interval.high))
    assert ends == pytest.approx([low, high], rel=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_luck_of_a_seed_with_one_optimizer_is_not_an_effect(seeds):
    claims = [effects_of(simulate(rng, seeds=seeds), "optimizer").p_value <= 0.05 for rng in range(150)]
    assert np.mean(claims) <= 0.09


def test_an_effect_larger_than_the_luck_of_seeds_is_found():
    runs = simulate(1, seeds=5, by_seed=0.1, interaction=0.5)
    assert effects_of(runs, "optimizer").p_value < 0.01


def test_intervals_hold_the_truth_where_runs_are_missing():
    held = []
    for rng in range(150):
        generator = np.random.default_rng(rng)
        runs = [run for run in simulate(rng, seeds=4) if generator.uniform() > 0.15]
        held.append(not effects_of(runs, "optimizer").contrast.interval.excludes(0.0))
    assert np.mean(held) >= 0.9


def test_values_that_vary_alike_differ_with_more_certainty():
    """Both weight decays have the same luck with a seed and rate, so that their difference is nearly exact."""
    generator = np.random.default_rng(0)
    luck = generator.standard_normal((N_RATES, 5))
    runs = [
        Observation(
            {"decay": decay, "rate": rate}, seed, 0.1 * decay + luck[rate, seed] + 0.01 * float(generator.normal())
        )
        for decay in range(2)
        for rate in range(N_RATES)
        for seed in range(5)
    ]
    effects = effects_of(runs, "decay")
    assert effects.seed_ratio == MIN_RATIO
    assert effects.contrast.interval.high - effects.contrast.interval.low < 0.7


def test_one_configuration_per_value_has_the_noise_of_its_runs():
    table = tabulate(run for run in simulate(0) if run.config["rate"] == 0)
    noise = learn_noise(table)
    parameter = table.parameter("optimizer")
    assert learn_level_noise(noise, level_means(table, parameter).weights, parameter.codes).df is None


def test_seeds_that_are_not_shared_tell_no_interaction():
    runs = [
        Observation(run.config, 100 * number + run.seed, run.value)
        for number, run in enumerate(simulate(0, by_seed=0.0))
    ]
    table = tabulate(runs)
    assert learn_noise(table) is None or effects_of(runs, "optimizer").seed_df is None


def test_luck_of_a_seed_with_a_pair_of_values_is_not_an_interaction():
    claims, found = [], []
    for rng in range(100):
        generator = np.random.default_rng(rng)
        luck = generator.standard_normal((2, 3, 4))
        for tallies, effect in ((claims, 0.0), (found, 3.0)):
            runs = [
                Observation(
                    {"optimizer": "ab"[a], "rate": b, "dropout": c},
                    seed,
                    float(effect * a * b + luck[a, b, seed] + 0.3 * generator.standard_normal()),
                )
                for a in range(2)
                for b in range(3)
                for c in range(4)
                for seed in range(4)
            ]
            table = tabulate(runs)
            pair = table.parameter("optimizer"), table.parameter("rate")
            tallies.append(interaction_p_value(table, *pair, learn_noise(table), np.arange(24)) <= 0.05)
            if effect == 0.0 and tallies[-1] is False:
                assert ("optimizer", "rate") not in {each.names for each in why(runs, "loss", "min").interactions}
    assert np.mean(claims) <= 0.1
    assert np.mean(found) >= 0.9


def test_an_interaction_of_many_cells_is_not_tested():
    runs = [
        Observation({"a": a, "b": b}, seed, float(a * b + seed))
        for a in range(21)
        for b in range(20)
        for seed in range(2)
    ]
    table = tabulate(runs)
    pair = table.parameter("a"), table.parameter("b")
    assert interaction_p_value(table, *pair, learn_noise(table), np.arange(420)) is None


def test_rates_that_were_run_with_one_seed_do_not_make_an_effect():
    """A sweep with one seed whose best rate was run again with five: the single runs tell nothing of the seeds."""
    claims = []
    for rng in range(150):
        runs = simulate(rng, seeds=5, by_seed=0.0, by_run=1.0)
        kept = [run for run in runs if run.seed == 0 or run.config["rate"] == 2]
        claims.append(effects_of(kept, "optimizer").p_value <= 0.05)
    assert np.mean(claims) <= 0.09


def test_a_shift_of_all_runs_of_a_seed_is_no_interaction_where_runs_are_missing():
    ratios = []
    for rng in range(40):
        generator = np.random.default_rng(rng)
        runs = [
            Observation(run.config, run.seed, run.value + 10.0 * run.seed)
            for run in simulate(rng, seeds=4, by_seed=0.0)
            if generator.uniform() > 0.15
        ]
        ratios.append(effects_of(runs, "optimizer").seed_ratio)
    assert 0.5 < np.median(ratios) < 2.0


def test_a_main_effect_is_no_interaction_where_settings_are_missing():
    claims = []
    for rng in range(100):
        generator = np.random.default_rng(rng)
        runs = [
            Observation({"a": a, "b": b, "c": c}, seed, float(10.0 * c + generator.standard_normal()))
            for a in range(3)
            for b in range(4)
            for c in range(2)
            if generator.uniform() > 0.05
            for seed in range(3)
        ]
        claims.append(len(why(runs, "loss", "min").interactions))
    assert np.mean(claims) <= 0.1


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_p_value_of_two_values_agrees_with_their_interval(seeds):
    """Each value has seeds of its own beside a shared one."""
    for rng in range(60):
        runs = [
            Observation(
                run.config, run.seed + (run.config["optimizer"] == "b"), run.value + (run.config["optimizer"] == "b")
            )
            for run in simulate(rng, seeds=seeds)
        ]
        effects = effects_of(runs, "optimizer")
        assert (effects.p_value <= 0.05) == effects.contrast.interval.excludes(0.0)


def test_a_spread_beyond_floats_has_no_warning():
    generator = np.random.default_rng(0)
    runs = [
        Observation({"a": a, "b": b}, seed, float((1e-90 if a == 0 else 1.0) * generator.standard_normal()))
        for a in range(3)
        for b in range(4)
        for seed in range(3)
    ]
    assert effects_of(runs, "a").p_value > 0.001
    assert why(runs, "loss", "min").parameters


def test_equal_values_but_for_a_value_with_a_diverged_run_have_an_answer():
    """Without the value whose run diverged the grid is full, and nothing varies in it."""
    runs = [
        Observation(
            {"a": a, "b": b}, None, None if (a, b) == (3, 3) else 1.0 + ((a, b) == (3, 0)), diverged=(a, b) == (3, 3)
        )
        for a in range(4)
        for b in range(4)
    ]
    assert why(runs, "loss", "min").best is not None


def test_seeds_that_are_shared_between_values_only_have_an_answer():
    """Every rate has seeds of its own, which both optimizers share."""
    runs = [Observation(run.config, 10 * run.config["rate"] + run.seed, run.value) for run in simulate(0)]
    effects = effects_of(runs, "optimizer")
    assert 0.0 <= effects.p_value <= 1.0
    assert why(runs, "loss", "min").parameters
