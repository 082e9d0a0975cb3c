"""The best of n random configurations: bands that hold for all n at once, means without bias."""

from itertools import combinations

import numpy as np
import pytest

from labbench.analysis import AnswerOptions, Observation, why
from labbench.analysis.tuning.budgets import Sampling, band_of_best, spread_budgets, unbiased_means
from labbench.reports.budget_chart import budget_svg
from labbench.reports.budget_sentences import budget_tables
from labbench.reports.sentences import sentences

ACCURACY = "val/accuracy"


def random_search(gain=0.0, *, samples=40, diverged=0, seed=0):
    """Return one run per optimizer and random learning rate; `gain` is added to the accuracy of adam."""
    generator = np.random.default_rng(seed)
    runs = []
    for i in range(samples):
        rate = float(10.0 ** generator.uniform(-4.0, 0.0))
        for optimizer in ("sgd", "adam"):
            value = 0.6 + gain * (optimizer == "adam") - 0.02 * abs(np.log10(rate) + 2.0) + 0.01 * generator.normal()
            lost = i < diverged and optimizer == "sgd"
            config = {"optimizer": optimizer, "lr": rate}
            runs.append(Observation(config, 0, None if lost else float(value), 1.0, diverged=lost))
    return runs


DRAWS = Sampling("random draws", frozenset({"lr"}))


@pytest.mark.parametrize("n", [5, 9, 13, 30, 100])
def test_a_band_holds_for_all_budgets_at_once(n):
    generator = np.random.default_rng(n)
    budgets = np.arange(1, n + 1)
    truth = 0.5 ** (1.0 / budgets)  # medians of the best of n uniform numbers
    hits = []
    for _ in range(400):
        low, high = band_of_best(np.sort(generator.random(n)), budgets)
        hits.append(bool(((low <= truth) & (truth <= high)).all()))
    assert np.mean(hits) >= 0.92


def test_the_mean_is_that_of_all_subsets():
    sample = np.sort(np.random.default_rng(1).normal(size=9))
    for n in (1, 2, 5, 9):
        expected = np.mean([max(subset) for subset in combinations(sample.tolist(), n)])
        assert unbiased_means(sample, np.array([n]))[0] == pytest.approx(expected)


def test_means_of_thousands_of_results_neither_overflow_nor_vanish():
    sample = np.sort(np.random.default_rng(1).random(5000))
    budgets = spread_budgets(5000)
    means = unbiased_means(sample, budgets)
    assert np.all(np.diff(means) > 0)
    assert means[-1] == pytest.approx(sample[-1])


def test_a_value_is_called_better_only_where_the_bands_are_apart():
    answer = why(random_search(gain=0.2), ACCURACY, "max", options=AnswerOptions(sampling=DRAWS))
    [comparison] = answer.budgets
    assert (comparison.name, [curve.value for curve in comparison.curves]) == ("optimizer", ["adam", "sgd"])
    [separation] = comparison.separations
    assert separation.budgets[0] == 1
    lines = "\n".join(sentences(answer))
    assert f"adam is better than sgd up to n = {separation.budgets[1]}, else not separated" in lines
    assert "the best of n is one run's measured val/accuracy, noise of its seed included" in lines
    equal = "\n".join(sentences(why(random_search(), ACCURACY, "max", options=AnswerOptions(sampling=DRAWS))))
    assert "are not separated at any n" in equal


def test_without_a_random_draw_there_is_no_curve():
    assert why(random_search(), ACCURACY, "max").budgets == ()
    fixed_rates = Sampling("random draws", frozenset({"width"}))
    assert why(random_search(), ACCURACY, "max", options=AnswerOptions(sampling=fixed_rates)).budgets == ()


def test_a_random_subset_of_a_full_grid_has_a_curve_of_all_and_one_by_value():
    answer = why(random_search(), ACCURACY, "max", options=AnswerOptions(sampling=Sampling("random subset")))
    assert [comparison.name for comparison in answer.budgets] == [None, "optimizer"]


def test_diverged_configurations_count_as_the_worst_results():
    [comparison] = why(random_search(diverged=10), ACCURACY, "max", options=AnswerOptions(sampling=DRAWS)).budgets
    curve = next(curve for curve in comparison.curves if curve.value == "sgd")
    assert (curve.results, curve.diverged) == (40, 10)
    assert curve.points[0].mean is None
    assert curve.points[0].median is not None
    assert curve.points[10].mean is not None


def test_limits_stay_within_the_bounds_of_an_accuracy_and_fall_for_a_loss():
    [comparison] = why(random_search(), ACCURACY, "max", options=AnswerOptions(sampling=DRAWS)).budgets
    assert all(point.high is None or point.high <= 1.0 for curve in comparison.curves for point in curve.points)
    losses = [Observation(o.config, o.seed, 1.0 - o.value, 1.0) for o in random_search()]
    [comparison] = why(losses, "val/loss", "min", options=AnswerOptions(sampling=DRAWS)).budgets
    for curve in comparison.curves:
        medians = [point.median for point in curve.points]
        assert medians == sorted(medians, reverse=True)
        assert all(point.low <= point.median <= (point.high or 1.0) for point in curve.points)


def test_the_table_and_the_chart_have_one_curve_per_value():
    answer = why(random_search(gain=0.2), ACCURACY, "max", options=AnswerOptions(sampling=DRAWS))
    [table] = budget_tables(answer)
    assert [row[0] for row in table.rows[::2]] == ["adam (40), median", "sgd (40), median"]
    assert table.header[-1] == "n = 40"
    assert budget_svg(answer.budgets[0], answer).count("<polyline") == 2


def test_the_json_has_every_point():
    document = why(random_search(), ACCURACY, "max", options=AnswerOptions(sampling=DRAWS)).as_document()
    [comparison] = document["budgets"]
    assert [point["n"] for point in comparison["curves"][0]["points"]] == list(range(1, 41))
    assert comparison["separations"][0]["budgets"] is None
