"""Losses that span more than a decade are compared by factors, and the report says so."""

import math

import numpy as np
import pytest

from labbench.analysis import AnswerOptions, Observation, why
from labbench.reports.html_page import render_page
from labbench.reports.sentences import sentences
from labbench.reports.tables import setups_table, tuned_tables
from labbench.reports.text_charts import effect_lines, scale_line

LOSS = "val/loss"


def losses(factor: float = 1.0, noise: float = 0.1) -> list[Observation]:
    """Return losses from 0.02 to 0.5: Adam's are 2.5 times lower, each tenfold wrong rate costs a factor of 4."""
    generator = np.random.default_rng(0)
    return [
        Observation(
            {"optimizer": optimizer, "lr": lr},
            seed,
            factor * level * 4.0 ** abs(math.log10(lr) + 2) * math.exp(noise * generator.normal()),
        )
        for optimizer, level in (("adam", 0.02), ("sgd", 0.05))
        for lr in (0.1, 0.01, 0.001, 0.0001)
        for seed in range(3)
    ]


def text(answer) -> str:
    return "\n".join(sentences(answer))


def test_means_are_geometric_and_differences_are_ratios():
    answer = why(losses(), LOSS, "min")
    assert (answer.scale, answer.verdict) == ("log", "clear")
    best = [run.value for run in losses() if run.config == {"optimizer": "adam", "lr": 0.01}]
    assert answer.best.interval.mean == pytest.approx(math.exp(np.log(best).mean()))
    assert answer.best.interval.low < 0.02 < answer.best.interval.high
    assert answer.difference.ratio.low < 0.4 < answer.difference.ratio.high < 1.0
    tuned = next(comparison for comparison in answer.tuned if comparison.name == "optimizer")
    assert tuned.values[1].ratio.low < 0.4 < tuned.values[1].ratio.high
    rate = next(parameter for parameter in answer.parameters if parameter.name == "lr")
    assert [effect.interval.mean for effect in rate.marginal.effects] == pytest.approx(
        [0.0316 * factor for factor in (16, 4, 1, 4)], rel=0.15
    )


def test_differences_stay_in_the_unit_of_the_metric():
    """The fields of earlier versions keep their sign and unit, and exclude 0 where the ratio excludes 1."""
    answer = why(losses(), LOSS, "min")
    difference, ratio = answer.difference.interval, answer.difference.ratio
    runner_up = answer.runner_up.interval.mean
    for end in ("mean", "low", "high"):
        assert getattr(difference, end) == pytest.approx((getattr(ratio, end) - 1.0) * runner_up)
    document = answer.as_document()
    assert document["scale"] == "log"
    assert document["runner_up"]["ratio"]["high"] == ratio.high
    assert document["tuned"][0]["values"][1]["ratio"]["mean"] == pytest.approx(0.4, rel=0.15)
    assert document["parameters"][0]["difference"]["ratio"]["mean"] < 1.0
    assert document["best"]["spread_factor"] == pytest.approx(1.1, rel=0.05)
    assert document["best"]["spread"] == pytest.approx(
        math.log(document["best"]["spread_factor"]) * document["best"]["mean"], rel=0.1
    )


def test_another_unit_multiplies_means_and_keeps_ratios():
    answer, scaled = why(losses(), LOSS, "min"), why(losses(factor=2.0**900), LOSS, "min")
    assert scaled.best.interval.high == pytest.approx(answer.best.interval.high * 2.0**900)
    assert scaled.difference.interval.low == pytest.approx(answer.difference.interval.low * 2.0**900)
    assert scaled.difference.ratio.low == pytest.approx(answer.difference.ratio.low)
    assert scaled.span[1] == pytest.approx(answer.span[1] * 2.0**900)


@pytest.mark.parametrize(
    ("runs", "goal"),
    [
        ([Observation({"a": a}, seed, 1.0 + a + 0.1 * seed) for a in range(5) for seed in range(3)], "min"),
        ([Observation({"a": a}, seed, 0.02 * 9**a) for a in range(3) for seed in range(3)], "max"),
        ([Observation({"a": a}, seed, a * (1.0 + 0.1 * seed)) for a in range(20) for seed in range(3)], "min"),
    ],
    ids=["less than a decade", "an accuracy", "a loss of 0"],
)
def test_other_values_are_compared_as_they_are(runs, goal):
    answer = why(runs, LOSS, goal)
    assert answer.scale == "linear"
    assert answer.difference.ratio is None
    assert "logarithms" not in text(answer)


def test_differences_can_be_requested():
    answer = why(losses(), LOSS, "min", options=AnswerOptions(may_use_logarithms=False))
    best = [run.value for run in losses() if run.config == {"optimizer": "adam", "lr": 0.01}]
    assert answer.scale == "linear"
    assert answer.best.interval.mean == pytest.approx(np.mean(best))


def test_the_report_states_factors_and_the_scale():
    answer = why(losses(), LOSS, "min")
    report = text(answer)
    assert "times lower [" in report
    assert "is better than sgd by a factor of 2." in report
    assert "by a factor of 2." in report
    assert f"val/loss goes from {answer.span[0]:.2g} to {answer.span[1]:.2g}, so factors are compared" in report
    assert "differences in log val/loss come from" in report
    assert setups_table(answer).header[1] == "geometric mean [95 %]"
    assert tuned_tables(answer)[0].rows[1][2].startswith("× 2.")
    assert scale_line(answer).endswith("log scale")
    assert all("●" in line for line in effect_lines(answer, answer.parameters[0], 120))
    page = render_page(answer, None, [])
    assert "geometric means" in page
    assert "by a factor of 2." in page


def test_limits_that_differ_by_decades_have_significant_digits():
    """Two seeds that differ hundredfold: a fixed number of decimals would round the lower limit to 0."""
    runs = [Observation({"a": a}, seed, 0.01 * a * 100.0**seed) for a in (1, 2, 3) for seed in range(2)]
    answer = why(runs, LOSS, "min")
    low = answer.best.interval.low
    assert 0.0 < low < 0.01
    assert f"[{float(f'{low:.2g}'):g}," in next(line for line in sentences(answer) if line.startswith("in numbers"))


def test_usable_learning_rates_are_those_within_5_percent_of_the_geometric_mean():
    runs = [
        Observation({"lr": lr}, seed, level * 1.2**shift)
        for lr, level in ((0.001, 5.0), (0.01, 0.104), (0.1, 0.1), (1.0, 0.108))
        for seed, shift in enumerate((-1, 0, 1))
    ]
    runs += [Observation({**run.config, "model": "b"}, run.seed, 3.0 * run.value) for run in runs]
    runs[:12] = [Observation({**run.config, "model": "a"}, run.seed, run.value) for run in runs[:12]]
    first = next(row for row in why(runs, LOSS, "min").rate_ranges if row.value == "a")
    assert (first.basin.low, first.basin.high) == (0.01, 0.1)


def test_a_runner_up_with_a_lower_mean_and_diverged_runs_is_not_called_higher():
    runs = [Observation({"a": a}, seed, a * 1.05**seed + 1e-4 * seed) for a in (0.01, 0.1) for seed in range(3)]
    runs += [Observation({"a": 0.01}, 3, None, diverged=True)]
    answer = why(runs, LOSS, "min")
    assert answer.best.config == {"a": 0.1}
    assert "times higher [" in text(answer)
