"""Values at their own best setting are judged on left-out seeds and compared on the same ones."""

import numpy as np
import pytest

from helpers.analysis_grids import grid, optimizer_and_rate
from labbench.analysis import Observation, why
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import tabulate
from labbench.analysis.tuning.tuned_values import (
    compare_all_tuned,
    find_common_seeds,
    judge_choice,
    pick_without_each_seed,
)
from labbench.reports.formatting import format_interval, ranking_decimals
from labbench.reports.sentences import sentences
from labbench.reports.tables import tuned_tables

ACCURACY = "val/accuracy"


def tuned(answer, name):
    return next(comparison for comparison in answer.tuned if comparison.name == name)


def sgd_needs_its_own_rate(config):
    """Return a mean that is the same for both optimizers, once the learning rate is tuned for each."""
    best_rate = {"adam": 0.001, "sgd": 0.1}[config["optimizer"]]
    return (
        0.9
        - 0.1 * abs(np.log10(config["lr"] / best_rate))
        - 0.05 * (config["optimizer"] == "sgd") * (config["lr"] < 0.1)
    )


RATES = {"optimizer": ["sgd", "adam"], "lr": [0.001, 0.01, 0.1]}


def test_each_value_is_judged_at_its_own_best_setting():
    answer = why(grid(optimizer_and_rate), ACCURACY, "max")
    first, second = tuned(answer, "optimizer").values
    assert (first.value, second.value) == ("adam", "sgd")
    assert (first.chosen["lr"], second.chosen["lr"]) == (0.01, 0.1)
    assert first.interval.low <= 0.93 <= first.interval.high
    assert second.interval.low <= 0.87 <= second.interval.high
    assert second.behind.low <= 0.06 <= second.behind.high
    assert (first.settings, second.settings) == (16, 16)


def test_values_that_differ_on_average_alone_are_not_called_different_once_tuned():
    answer = why(grid(sgd_needs_its_own_rate, axes=RATES, seeds=5), ACCURACY, "max")
    assert next(p for p in answer.parameters if p.name == "optimizer").evidence == "clear"
    assert not tuned(answer, "optimizer").clear


def test_the_value_to_report_is_judged_on_left_out_seeds_and_has_an_interval():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(8, 5))
    runs = [Observation({"i": i}, seed, values[i, seed]) for i in range(8) for seed in range(5)]
    answer = why(runs, "score", "max")
    left_out = [values[np.delete(values, seed, axis=1).mean(axis=1).argmax(), seed] for seed in range(5)]
    assert answer.held_out.mean == pytest.approx(np.mean(left_out))
    assert answer.held_out.low < answer.held_out.mean < answer.held_out.high
    document = answer.as_document()["best"]
    assert [document[key] for key in ("held_out_low", "held_out_high")] == [answer.held_out.low, answer.held_out.high]
    reported = next(line for line in sentences(answer) if "report this value" in line)
    assert f"reach {format_interval(answer.held_out, ranking_decimals(answer))} on" in reported
    two_seeds = why([run for run in runs if run.seed < 2], "score", "max")
    assert two_seeds.held_out.low is None


def test_the_interval_of_the_value_to_report_holds_the_mean_of_such_choices():
    generator = np.random.default_rng(1)
    means, hits, choices = generator.normal(size=6), [], []
    for _ in range(60):
        values = means[:, None] + generator.normal(size=(6, 4))
        table = tabulate(Observation({"i": i}, seed, values[i, seed]) for i in range(6) for seed in range(4))
        hits.append(judge_choice(table, learn_noise(table), "max"))
        choices += [means[np.delete(values, seed, axis=1).mean(axis=1).argmax()] for seed in range(4)]
    truth = np.mean(choices)
    assert np.mean([interval.low <= truth <= interval.high for interval in hits]) >= 0.88


def test_the_report_leads_with_tuned_values_and_labels_the_averages():
    lines = sentences(why(grid(optimizer_and_rate), ACCURACY, "max"))
    first_tuned = next(
        i for i, line in enumerate(lines) if line.startswith("optimizer, each value at its best setting: adam is ")
    )
    label = lines.index("the next lines are averages over all settings, also over settings that nobody would choose")
    first_average = next(i for i, line in enumerate(lines) if line.startswith("optimizer: adam is better than sgd"))
    assert first_tuned == 3, "the verdict has three lines"
    assert first_tuned < label < first_average
    assert " is better than sgd by 0.0" in lines[first_tuned]
    assert any("the other settings are chosen with 2 of the 3 seeds" in line for line in lines)


def test_a_loss_is_compared_as_its_negative_is():
    runs = grid(optimizer_and_rate)
    losses = [Observation(o.config, o.seed, 1.0 - o.value, o.seconds) for o in runs]
    gain, loss = (tuned(why(*args), "optimizer").values for args in ((runs, "score", "max"), (losses, "gap", "min")))
    for high, low in zip(gain, loss, strict=True):
        assert (high.value, high.chosen) == (low.value, low.chosen)
        assert low.interval.mean == pytest.approx(1.0 - high.interval.mean)
        assert low.interval.high == pytest.approx(1.0 - high.interval.low)
    assert loss[1].behind.low == pytest.approx(-gain[1].behind.high)


def test_two_seeds_give_a_comparison_without_an_interval_and_one_seed_gives_none():
    two = why(grid(optimizer_and_rate, seeds=2), ACCURACY, "max")
    assert all(value.interval.low is None for value in tuned(two, "optimizer").values)
    assert any("no interval under 3 seeds" in line for line in sentences(two))
    assert "[95 %]" not in " ".join(tuned_tables(two)[0].header)
    assert why(grid(optimizer_and_rate, seeds=1), ACCURACY, "max").tuned == ()


def test_settings_with_diverged_or_missing_runs_are_no_candidates_and_are_counted():
    runs = grid(optimizer_and_rate)
    broken = [
        Observation(o.config, o.seed, None, diverged=True) if o.config["lr"] == 0.01 and o.seed == 1 else o
        for o in runs
        if not (o.config["lr"] == 0.001 and o.seed == 2)
    ]
    answer = why(broken, ACCURACY, "max")
    first, second = tuned(answer, "optimizer").values
    assert (first.settings, first.left_out, second.settings) == (8, 8, 8)
    assert {0.1, 1.0} >= {first.chosen["lr"], second.chosen["lr"]}
    assert any("16 settings with diverged runs or without these seeds" in line for line in sentences(answer))


def test_values_without_other_settings_to_tune_are_not_listed():
    assert why(grid(lambda c: 0.9, axes={"model": ["a", "b"]}), ACCURACY, "max").tuned == ()


def test_few_numbers_are_compared_like_names_and_follow_them():
    axes = {"batch_size": [32, 64, 128], "optimizer": ["sgd", "adam"], "lr": [10.0**-i for i in range(8)]}
    answer = why(
        grid(lambda c: 0.9 - 0.001 * c["batch_size"] - 0.01 * c["lr"] - 0.1 * (c["optimizer"] == "sgd"), axes=axes),
        ACCURACY,
        "max",
    )
    assert [comparison.name for comparison in answer.tuned] == ["optimizer", "batch_size"], "8 rates are a curve"
    first, second, third = tuned(answer, "batch_size").values
    assert (first.value, second.value, third.value) == (32, 64, 128)
    assert second.behind.low <= 0.032 <= second.behind.high
    assert (first.settings, first.chosen["optimizer"]) == (16, "adam")
    line = next(line for line in sentences(answer) if line.startswith("batch_size, each value at its best setting"))
    assert "32 is better than 64 by 0.0" in line


def test_survivors_of_a_search_are_compared_on_their_new_seeds():
    """96 settings ran with seed 0, and six survivors with the seeds 1 to 3 as well."""
    runs = grid(lambda c: 0.9 - 0.01 * c["lr"], axes={"model": ["a", "b"], "lr": range(48)}, seeds=4)
    survivors = [o for o in runs if o.seed == 0 or o.config["lr"] < 3]
    table = tabulate(survivors)
    seeds = find_common_seeds(table, "max")
    assert (len(seeds.rows), seeds.count) == (6, 4)


def test_effects_that_are_common_to_a_seed_cancel_in_the_difference():
    shifts = np.random.default_rng(1).normal(0.0, 1.0, 3)
    runs = [Observation(o.config, o.seed, o.value + shifts[o.seed]) for o in grid(optimizer_and_rate)]
    first, second = tuned(why(runs, "score", "max"), "optimizer").values
    assert first.interval.high - first.interval.low > 0.5
    assert second.behind.high - second.behind.low < 0.1
    assert second.behind.excludes(0.0)


def test_each_choice_ignores_the_seed_on_which_it_is_judged():
    values = np.array([[9.0, 0.0, 0.0], [1.0, 2.0, 1.5]])
    assert pick_without_each_seed(values).tolist() == [1, 0, 0]


def test_the_answer_does_not_depend_on_the_order_of_the_runs():
    runs = grid(optimizer_and_rate)
    forth, back = (why(order, ACCURACY, "max").tuned for order in (runs, runs[::-1]))
    assert [v.value for v in forth[0].values] == [v.value for v in back[0].values]
    assert forth[0].values[1].behind.mean == pytest.approx(back[0].values[1].behind.mean)
    assert forth[0].values[1].behind.low == pytest.approx(back[0].values[1].behind.low, rel=0.1)


def test_without_any_noise_a_difference_is_certain():
    first, second = tuned(why(grid(optimizer_and_rate, spread=0.0), ACCURACY, "max"), "optimizer").values
    assert first.interval.low == pytest.approx(first.interval.high)
    assert second.behind.low == pytest.approx(0.06)


def test_a_conditional_parameter_is_compared_where_it_exists():
    runs = []
    for lr in (0.01, 0.1):
        for seed in range(3):
            runs.append(Observation({"optimizer": "adam", "lr": lr}, seed, 0.9 + 0.001 * seed + lr))
            runs += [
                Observation({"optimizer": "sgd", "lr": lr, "kind": kind}, seed, 0.8 + 0.001 * seed + lr + gain)
                for kind, gain in (("plain", 0.0), ("nesterov", 0.01))
            ]
    table = tabulate(runs)
    comparisons = compare_all_tuned(table, learn_noise(table), "max", ["optimizer", "kind"])
    by_name = {comparison.name: comparison for comparison in comparisons}
    assert [v.value for v in by_name["kind"].values] == ["nesterov", "plain"]
    assert [v.settings for v in by_name["optimizer"].values] == [2, 4]
