"""The whole answer: known effects are reported, absent ones are not, and bad input is not an error."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from helpers.analysis_grids import grid, grid_with_holes, nothing_matters, optimizer_and_rate
from labbench.analysis import AnswerOptions, Observation, why
from labbench.reports.sentences import sentences, verdict
from labbench.reports.tables import setups_table
from labbench.reports.text_charts import effect_lines, importance_rows
from labbench.text import clean

ACCURACY = "val/accuracy"


def text(answer) -> str:
    return "\n".join(sentences(answer))


def parameter(answer, name):
    return next(p for p in answer.parameters if p.name == name)


def test_a_grid_with_known_effects_has_the_right_answer():
    answer = why(grid(optimizer_and_rate, seeds=5), ACCURACY, "max")
    assert answer.best.differing["optimizer"] == "adam"
    assert answer.best.differing["lr"] == 0.01
    assert answer.best.differing["batchnorm"] is True
    assert answer.best.interval.low <= 0.93 <= answer.best.interval.high
    assert {name: parameter(answer, name).evidence for name in ("optimizer", "lr", "batchnorm", "dropout")} == {
        "optimizer": "clear",
        "lr": "clear",
        "batchnorm": "clear",
        "dropout": "none",
    }
    assert [p.name for p in answer.parameters[:2]] == ["optimizer", "lr"]
    assert answer.interactions[0].names == ("optimizer", "lr")
    assert answer.interactions[0].best == (("adam", 0.01), ("sgd", 0.1))


def test_sentences_report_the_numbers():
    report = text(why(grid(optimizer_and_rate), ACCURACY, "max"))
    assert report.splitlines()[0].startswith("best: adam, lr 0.01, ")
    assert "over 3 seeds" in report
    assert "how sure: too close to call with 3 seeds" in report  # dropout has no effect
    assert "optimizer: adam is better than sgd by 0.0" in report
    assert "batchnorm: better with it by 0.0" in report
    assert "dropout: no clear difference on average (" in report
    assert "the best lr depends on optimizer: on average 0.01 for adam; 0.1 for sgd" in report
    assert "differences in val/accuracy come from: optimizer " in report


def test_a_large_lead_is_a_clear_verdict():
    answer = why(grid(lambda c: 0.5 + 0.2 * (c["lr"] == 0.1), axes={"lr": [0.01, 0.1, 1.0]}), ACCURACY, "max")
    assert answer.verdict == "clear"
    assert answer.rivals == 0
    assert (
        "how sure: clear; luck alone does not explain such a difference; it beats the runner-up with 99 % of seeds"
        in text(answer)
    )


@pytest.mark.parametrize("axes", [{"a": [1, 2]}, {"a": [1, 2, 3]}, {"a": [1, 2], "b": ["x", "y"]}])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_common_effect_of_seeds_does_not_make_a_difference_uncertain(axes, seeds):
    """A difference that is consistent within each seed is clear in every sentence."""
    shifts = np.random.default_rng(1).normal(0.0, 1.0, seeds)
    runs = grid(lambda c: 0.1 * c["a"] + 0.3 * (c.get("b") == "y"), axes=axes, seeds=seeds, spread=0.002)
    answer = why([Observation(o.config, o.seed, o.value + shifts[o.seed]) for o in runs], "score", "max")
    report = text(answer)
    assert (answer.verdict, answer.rivals) == ("clear", 0)
    assert {p.evidence for p in answer.parameters} == {"clear"}
    assert "it beats the runner-up with 99 % of seeds" in report
    assert "not clearly" not in report
    assert "no clear difference" not in report
    assert answer.best.interval.high - answer.best.interval.low > 0.5  # the mean itself stays uncertain


def test_verdict_rivals_and_evidence_of_a_single_parameter_agree():
    generator = np.random.default_rng(0)
    for rng in range(60):
        shifts = generator.normal(0.0, 0.02, 3)
        runs = grid(lambda c: 0.01 * c["a"], axes={"a": [0, 1, 2]}, spread=0.01, rng=rng)
        answer = why([Observation(o.config, o.seed, o.value + shifts[o.seed]) for o in runs], "score", "max")
        report = text(answer)
        assert (answer.verdict == "clear") == ("how sure: clear" in report)
        if answer.verdict == "clear":
            assert "no clear difference" not in report
            assert "more configuration" not in report
        else:
            assert answer.rivals >= 1


def test_without_effects_nothing_is_claimed():
    answers = [why(grid(nothing_matters, rng=rng, seeds=2 + rng % 3), ACCURACY, "max") for rng in range(30)]
    assert np.mean([answer.verdict == "clear" for answer in answers]) <= 0.05
    claims = [p.evidence == "clear" for answer in answers for p in answer.parameters]
    assert np.mean(claims) <= 0.03
    assert np.mean([bool(answer.interactions) for answer in answers]) <= 0.1
    assert not any(answer.widenings for answer in answers)
    assert "may be as good as the best: too close to call with these seeds" in text(answers[0])


def test_the_selection_of_a_winner_among_equals_is_reported_as_optimistic():
    report = text(why(grid(nothing_matters, spread=0.05), ACCURACY, "max"))
    assert "the best of 32 is partly lucky: settings chosen in the same way without one seed reach 0." in report


def test_the_document_has_the_documented_keys():
    document = why(grid(optimizer_and_rate), ACCURACY, "max").as_document()
    assert (document["metric"], document["goal"], document["verdict"]) == (ACCURACY, "max", "too close to call")
    assert document["best"].keys() >= {"config", "mean", "low", "high", "n"}
    assert "seed" not in document["best"]["config"]
    assert document["runner_up"].keys() >= {"config", "mean", "low", "high", "n", "difference"}
    assert document["runner_up"]["difference"].keys() == {"mean", "low", "high"}
    for entry in document["parameters"]:
        assert entry.keys() >= {"name", "importance", "low", "high", "effects"}
        assert 0 <= entry["low"] <= entry["importance"] <= entry["high"] <= 1
        for effect in entry["effects"]:
            assert effect.keys() >= {"value", "mean", "low", "high", "n"}
            assert effect["low"] <= effect["mean"] <= effect["high"]


def test_the_document_has_divergences_and_widenings():
    runs = grid(lambda config: None if config["lr"] == 1.0 and not config["batchnorm"] else 0.9)
    document = why(runs, ACCURACY, "max").as_document()
    assert document["divergences"] == [{"name": "lr", "value": 1.0, "span": None, "diverged": 12, "runs": 24}]
    (widening,) = document["widenings"]
    assert (widening["name"], widening["wide"]["value"], widening["wide"]["to"]) == ("batchnorm", True, 1.0)
    assert (widening["narrow"]["from"], widening["narrow"]["to"]) == (0.001, 0.1)


def test_goal_min_reverses_every_comparison():
    best = why(grid(lambda c: 2.0 + optimizer_and_rate(c)), "val/loss", "min").best
    assert (best.differing["optimizer"], best.differing["lr"]) == ("sgd", 0.001)
    runs = grid(lambda c: 2.0 - optimizer_and_rate(c))
    answer = why(runs, "val/loss", "min")
    assert (answer.best.differing["optimizer"], answer.best.differing["lr"]) == ("adam", 0.01)
    assert parameter(answer, "optimizer").marginal.contrast.interval.mean < 0
    assert "optimizer: adam is better than sgd by 0.0" in text(answer)  # a lower loss is ahead


def test_a_value_that_is_nearly_as_good_when_tuned_is_reported():
    """Adam is far ahead on average, but sgd is close at its best learning rate."""

    def truth(c):
        ideal = 0.01 if c["optimizer"] == "adam" else 0.1
        width = 0.02 if c["optimizer"] == "adam" else 0.15
        return (0.95 if c["optimizer"] == "adam" else 0.94) - width * abs(math.log10(c["lr"] / ideal))

    answer = why(grid(truth, spread=0.002), ACCURACY, "max")
    alternative = parameter(answer, "optimizer").close_alternative
    assert alternative.value == "sgd"
    assert alternative.differing["lr"] == 0.1
    assert alternative.gap == pytest.approx(0.01, abs=0.005)
    assert "but sgd at lr 0.1" in text(answer)


def test_a_parameter_that_widens_the_range_of_learning_rates_is_reported():
    def truth(c):
        usable = (0.001, 0.01, 0.1) if c["batchnorm"] else (0.01,)
        return 0.9 if c["lr"] in usable else 0.5

    answer = why(grid(truth), ACCURACY, "max")
    (widening,) = answer.widenings
    assert (widening.name, widening.wide_value) == ("batchnorm", True)
    assert widening.wide.decades == pytest.approx(2.0)
    assert widening.narrow.decades == 0.0
    expected = "0.001 (smallest tried) to 0.1 with it, only 0.01 without it"
    assert f"batchnorm widens the range of learning rates within 5 % of the best: {expected}" in text(answer)


def test_the_widening_has_the_ranges_of_the_table_of_tuned_learning_rates():
    """With the momentum tuned for each rate, sgd reaches the target at more rates than at the best momentum."""

    def truth(c):
        usable = (0.001, 0.01, 0.1, 1.0) if c["optimizer"] == "adam" else (0.01, 0.1) if c["dropout"] else (0.1,)
        return 0.9 if c["lr"] in usable else 0.5

    answer = why(grid(truth), ACCURACY, "max")
    ranges = {row.value: row.basin for row in answer.rate_ranges if row.name == "optimizer"}
    (widening,) = (widening for widening in answer.widenings if widening.name == "optimizer")
    assert (widening.wide, widening.narrow) == (ranges["adam"], ranges["sgd"])
    assert (widening.narrow.low, widening.narrow.high) == (0.01, 0.1)


def test_a_learning_rate_that_diverges_is_not_usable():
    answer = why(grid(lambda c: None if c["lr"] == 1.0 and not c["batchnorm"] else 0.9), ACCURACY, "max")
    assert [widening.name for widening in answer.widenings] == ["batchnorm"]
    assert "16 of" not in text(answer)
    assert "12 of 96 runs diverged: 12 of 24 with lr 1" in text(answer)


def test_diverged_runs_of_a_random_search_are_counted_in_ranges_of_values():
    rates = 10.0 ** np.random.default_rng(0).uniform(-4, 0, 50)
    configs = [{"lr": rate, "optimizer": ("adam", "sgd")[i % 2]} for i, rate in enumerate(rates.tolist())]
    runs = [run(None if c["lr"] > 0.2 else -c["lr"], **c, diverged=c["lr"] > 0.2) for c in configs]
    count, low = int((rates > 0.2).sum()), np.sort(rates)[40]
    sentence = f"{count} of 50 runs diverged: {count} of 10 with lr {low:.2g}–{rates.max():.2g}"
    assert sentence in text(why(runs, "m", "max")).splitlines()


def test_of_many_values_with_diverged_runs_a_few_are_named():
    runs = [run(None if rate > 4 else -rate, lr=float(rate), diverged=rate > 4) for rate in range(1, 13)]
    values = "1 of 1 with lr 5, 1 of 1 with lr 6, 1 of 1 with lr 7"
    assert f"8 of 12 runs diverged: {values}, and 5 more values" in text(why(runs, "m", "max")).splitlines()


def test_a_configuration_with_a_better_mean_and_diverged_runs_is_not_selected():
    runs = [Observation({"lr": 0.1}, seed, 0.9 + seed / 1000) for seed in range(3)]
    runs += [Observation({"lr": 1.0}, seed, 0.95 + seed / 1000) for seed in range(2)]
    answer = why([*runs, Observation({"lr": 1.0}, 2, None, diverged=True)], ACCURACY, "max")
    assert answer.best.config == {"lr": 0.1}
    assert answer.unsafe.config == {"lr": 1.0}
    assert "better mean, but not selected: lr 1: val/accuracy" not in text(answer)
    assert "better mean, but not selected: lr 1: 0.95" in text(answer)
    assert ", because 1 of its 3 runs diverged" in text(answer)


def test_a_rival_that_trains_faster_is_reported():
    results = {"cnn": ((0.91, 0.90, 0.92), 20.0), "mlp": ((0.90, 0.915, 0.91), 2.0), "noisy": ((0.1, 0.93, 0.5), 1.0)}
    runs = [
        Observation({"model": model}, seed, value, seconds)
        for model, (values, seconds) in results.items()
        for seed, value in enumerate(values)
    ]
    answer = why(runs, ACCURACY, "max")
    assert answer.best.config == {"model": "cnn"}
    assert answer.rivals == 2  # the noisy one is not clearly worse either, but must not be recommended
    assert answer.cheaper.config == {"model": "mlp"}
    assert "2.0s per run instead of 20s" in text(answer)


def test_a_faster_rival_is_reported_with_its_largest_loss_and_not_for_lack_of_seeds():
    values = {
        "large": ((0.91, 0.90, 0.92, 0.91), 20.0),
        "small": ((0.909, 0.897, 0.92, 0.911), 2.0),
        "tiny": ((0.1, 0.93, 0.5, 0.95), 1.0),
    }
    runs = [
        Observation({"model": model}, seed, value, seconds)
        for model, (results, seconds) in values.items()
        for seed, value in enumerate(results)
    ]
    answer = why(runs, ACCURACY, "max")
    assert answer.cheaper.config == {"model": "small"}
    limit = answer.cheaper_difference.interval.high
    assert 0.0 < limit < 0.05 * answer.best.interval.mean
    [line] = [line for line in text(answer).splitlines() if "2.0s per run" in line]
    assert f"at most {limit:.2g} worse (95 %)" in line
    few = [Observation(run.config, run.seed, run.value + 0.1 * run.seed, run.seconds) for run in runs if run.seed < 2]
    assert why(few, ACCURACY, "max").cheaper is None
    losses = [Observation(run.config, run.seed, 10.0 ** (-5.0 * run.value), run.seconds) for run in runs]
    answer = why(losses, "val/loss", "min")
    assert answer.scale == "log"
    assert answer.cheaper is None or "% worse (95 %)" in text(answer)


def test_without_an_interval_no_value_is_called_better():
    for seeds in (1, 2):
        answer = why(grid(optimizer_and_rate, seeds=seeds), ACCURACY, "max")
        lines = text(answer).splitlines()
        unknown = {p.name for p in answer.parameters if p.marginal.contrast.interval.low is None}
        for line in lines:
            is_tuned = "each value at its best setting" in line
            if is_tuned or (line.split(":")[0] in unknown and not line.startswith("best")):
                assert "too few" in line, line
                assert " ahead of " not in line, line
                assert " better than " not in line, line


def test_two_seeds_that_differ_widely_are_not_called_a_free_choice():
    runs = [
        Observation({"channels": channels}, seed, value)
        for channels, values in ((4, (0.55, 0.52)), (8, (0.50, 0.575)))
        for seed, value in enumerate(values)
    ]
    report = text(why(runs, ACCURACY, "max"))
    assert "choose either" not in report
    assert "either may be better by up to 0." in report
    assert "run 3 seeds" in report


def test_the_only_configuration_that_did_not_diverge_is_best_because_the_others_diverged():
    runs = [
        Observation({"lr": lr}, seed, None if lr > 1 else 1.0 + 0.1 * seed, diverged=lr > 1)
        for lr in (0.1, 1e15, 1e25)
        for seed in range(2)
    ]
    answer = why(runs, "val/loss", "min")
    assert verdict(answer) == [
        "best: lr 0.1: val/loss 1.1 on average over 2 seeds",
        "by how much: every run of the other 2 configurations diverged (4 of 4)",
    ]
    report = text(answer)
    assert "lr: only 0.1 has results; every run diverged at 1e15, 1e25" in report
    [*_, last] = effect_lines(answer, answer.parameters[0])
    assert last.endswith("2 runs diverged")
    assert "0 runs" not in last
    failed = [*runs, Observation({"lr": 0.2}, 0, None)]
    assert "have no result: 4 of 5 runs diverged, the others have no value" in text(why(failed, "val/loss", "min"))


def test_intervals_are_clipped_to_the_range_of_the_metric():
    runs = [Observation({"lr": lr}, seed, v) for lr in (0.1, 0.2) for seed, v in enumerate((0.999, 0.98, 1.0))]
    assert why(runs, ACCURACY, "max").best.interval.high == 1.0
    assert why(runs, "reward", "max").best.interval.high > 1.0
    assert (
        why([Observation({}, s, v) for s, v in enumerate((0.001, 0.1, 0.0))], "val/loss", "min").best.interval.low == 0
    )


def test_the_interquartile_mean_needs_eight_seeds():
    runs = [Observation({"lr": 0.1}, seed, float(seed)) for seed in range(8)]
    assert why(runs, "x", "max").best.iqm == pytest.approx(3.5)
    assert why(runs[:7], "x", "max").best.iqm is None


def test_one_seed_per_configuration_is_too_few_to_say():
    answer = why(grid(optimizer_and_rate, seeds=1), ACCURACY, "max")
    assert answer.verdict == "too few seeds to say"
    assert answer.best.interval.low is None
    report = text(answer)
    assert "no intervals, because no configuration was run with a second seed" in report
    assert "too few seeds to say; run 3 seeds per configuration for a first comparison" in report
    assert "based on the variation of effects between settings, not between seeds" in report


def run(value=None, *, diverged=False, **config):
    return Observation(config or {"lr": 0.1}, 0, value, diverged=diverged)


BAD = {
    "no runs": ([], "no results", "no run has ended yet, so there are no values of m"),
    "one run": ([run(0.5)], "only one set-up has results", "best: the only configuration: m 0.5000 with one seed"),
    "all diverged": ([run(diverged=True, lr=lr) for lr in (0.1, 1.0)], "no results", "2 of 2 runs diverged"),
    "all failed": ([run(lr=lr) for lr in (0.1, 1.0)], "no results", "left out: 2 runs without m (failed, stopped or"),
    "nan": ([run(math.nan), run(math.inf, lr=1.0)], "no results", "no run has a value of m: 2 of 2 runs diverged"),
    "one survivor": (
        [run(0.5), run(diverged=True, lr=1.0)],
        "only one set-up has results",
        "every run of the other configuration diverged (1 of 1)",
    ),
    "no parameters": (
        [Observation({}, seed, 0.5 + seed) for seed in range(3)],
        "only one set-up has results",
        "best: the only",
    ),
    "mixed types": (
        [
            Observation({"lr": lr}, s, 0.1 * i + 0.01 * s)
            for i, lr in enumerate((0.1, "auto", True, None))
            for s in range(3)
        ],
        "clear",
        "lr: best on average at not set (0.31), ahead of true",
    ),
    "equal": (
        [Observation({"lr": lr}, s, 0.5) for lr in (1, 2) for s in range(3)],
        "too close to call",
        "has exactly the same result",
    ),
    "lists": (
        [run(0.5, hidden=[64]), run(0.6, hidden=[64, 32])],
        "too few seeds to say",
        "best: hidden 64-32: m 0.6000",
    ),
    "hostile": (
        [run(0.5, **{"\x1b[2J": "\x1b]0;x\x07"}), run(0.6, **{"\x1b[2J": "y"})],
        "too few seeds to say",
        "␛[2J: ",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_unusual_input_has_an_answer(case):
    runs, verdict, words = BAD[case]
    answer = why(runs, "m", "max")
    assert answer.verdict == verdict
    assert words in text(answer)
    assert all(line == clean(line) for line in sentences(answer))
    json.dumps(answer.as_document(), allow_nan=False)


ANY_VALUE = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, 0.5, 1.0]))
ANY_SETTING = st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.floats(), st.text(max_size=2), st.just([1, 2]))
ANY_RUN = st.builds(
    Observation,
    st.dictionaries(st.sampled_from(["lr", "optimizer", "bn", "hidden", "seed"]), ANY_SETTING),
    st.one_of(st.none(), st.integers(0, 3)),
    ANY_VALUE,
    st.one_of(st.none(), st.floats(0, 100)),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_RUN, max_size=20), st.sampled_from(["min", "max"]))
def test_any_input_has_an_answer(runs, goal):
    answer = why(runs, ACCURACY, goal)
    assert all(line and line == clean(line) for line in sentences(answer))
    json.dumps(answer.as_document(), allow_nan=False)


def test_values_with_the_same_text_are_shown_as_json():
    values = [1, "1", True, "true", 0.5, "adam"]
    heights = {json.dumps(value): 0.1 * place for place, value in enumerate(values)}
    runs = grid(lambda c: heights[json.dumps(c["x"])] + c["lr"], axes={"x": values, "lr": [0.1, 0.2]}, spread=0.001)
    answer = why(runs, "score", "max")
    names = {row[0] for row in setups_table(answer).rows}
    assert len(names) == 10
    assert {"x adam, lr 0.1", "x 0.5, lr 0.1"} < names  # unambiguous
    assert {'x "true", lr 0.2', "x true, lr 0.2", 'x "1", lr 0.2'} < names
    lines = effect_lines(answer, parameter(answer, "x"))
    assert [line.split()[0] for line in lines] == ["0.5", "1", '"1"', "★", '"true"', "true"]
    assert "worst at 1 (" in text(answer)


def test_unambiguous_strings_and_booleans_are_shown_without_their_name():
    runs = grid(lambda c: 0.9 - 0.1 * c["bn"] + 0.2 * (c["n"] == "1"), axes={"bn": [True, False], "n": ["1", "2"]})
    assert text(why(runs, "score", "max")).startswith("best: no bn, 1: score")


def test_values_whose_squares_overflow_are_analysed():
    """They do not affect the analysis of the other configurations."""
    level = {"a": 0.4, "b": 0.5, "huge": 1e200, "larger": 1e300}
    runs = grid(lambda c: level[c["a"]], axes={"a": list(level)}, spread=0.01)
    runs = [Observation(o.config, o.seed, o.value * (1 + 0.01 * o.seed)) for o in runs]
    answer = why(runs, "val/loss", "min")
    without = why([o for o in runs if o.value < 1], "val/loss", "min")
    assert (answer.counts.with_result, answer.counts.diverged) == (12, 0)
    assert (answer.best.config, answer.verdict) == ({"a": "a"}, "clear")
    assert [e.interval.mean for e in answer.ranking] == pytest.approx([0.4, 0.5, 1.01e200, 1.01e300], rel=0.05)
    assert answer.best.interval.high == pytest.approx(without.best.interval.high, rel=0.03)
    assert answer.ranking[2].spread == pytest.approx(0.01e200, rel=1.0)
    assert all(len(line) < 200 for line in sentences(answer))
    json.dumps(answer.as_document(), allow_nan=False)


@pytest.mark.parametrize("scale", [1e-150, 1e-300, 5e-324])
def test_values_whose_squares_vanish_are_analysed(scale):
    runs = [Observation({"a": a}, seed, a * 1000 * scale + seed * scale) for a in (1, 2, 3) for seed in range(3)]
    answer = why(runs, "val/loss", "min")
    assert (answer.best.config, answer.verdict) == ({"a": 1}, "clear")
    assert answer.best.interval.mean == pytest.approx(1001 * scale)
    assert all(sentences(answer))


def test_scaling_all_values_scales_means_only():
    runs = grid(optimizer_and_rate)
    plain = why(runs, "score", "max")
    huge = why([Observation(o.config, o.seed, o.value * 2.0**900) for o in runs], "score", "max")
    assert huge.best.interval.low == pytest.approx(plain.best.interval.low * 2.0**900)
    assert huge.difference.interval.high == pytest.approx(plain.difference.interval.high * 2.0**900)
    assert [p.evidence for p in huge.parameters] == [p.evidence for p in plain.parameters]
    assert [p.importance.mean for p in huge.parameters] == pytest.approx([p.importance.mean for p in plain.parameters])
    assert huge.heat_maps[0].table.cells[0][0].interval.mean > 1e260


def test_a_single_run_has_an_interval_but_no_spread():
    runs = [Observation({"lr": lr}, seed, lr + 0.01 * seed) for lr in (1.0, 2.0) for seed in range(3)]
    single, *others = why([*runs, Observation({"lr": 9.0}, 0, 9.0)], "m", "max").ranking
    assert single.spread is None
    assert single.interval.low is not None  # from the spread of the other configurations
    assert all(other.spread is not None for other in others)


def test_the_unexplained_rest_of_an_additive_model_is_not_called_interactions():
    answer = why(grid_with_holes(lambda c: 0.8 + 0.1 * (c["a"] == 2) + 0.02 * c["b"]), "score", "max")
    rows = importance_rows(answer)
    assert [name for name, _, _ in rows] == ["a", "b", "unexplained", "luck (seeds)"]
    assert sum(share for _, share, _ in rows) == pytest.approx(1.0)


def test_runs_that_lack_the_metric_are_left_out_and_counted():
    runs = grid(optimizer_and_rate)
    holes = [Observation(o.config, o.seed, None if i % 10 == 0 else o.value) for i, o in enumerate(runs)]
    answer = why(holes, ACCURACY, "max")
    assert (answer.counts.missing, answer.counts.with_result) == (10, 86)
    assert parameter(answer, "optimizer").evidence == "clear"
    assert "left out: 10 runs without val/accuracy" in text(answer)


def test_a_large_random_search_without_effects_reports_none():
    generator = np.random.default_rng(0)
    runs = [
        Observation(
            {
                "lr": float(10 ** generator.uniform(-4, 0)),
                "width": int(generator.integers(1, 200)),
                "a": float(generator.uniform()),
            },
            0,
            float(generator.normal()),
        )
        for _ in range(3000)
    ]
    answer = why(runs, "m", "max")
    assert [p.evidence for p in answer.parameters].count("clear") == 0


def test_a_thousand_configurations_have_an_answer():
    axes = {"a": range(5), "b": range(5), "c": range(5), "d": range(8)}
    runs = grid(lambda c: c["a"] + 0.1 * c["b"], axes=axes)
    answer = why(runs, "m", "max")
    assert answer.counts.setups == 1000
    assert parameter(answer, "a").evidence == "clear"


def many_keys(keys, runs=120):
    """Return runs of a random search in which `key3` and `key7` matter and all other keys do not."""
    generator = np.random.default_rng(1)
    configs = generator.integers(3, size=(runs, keys))
    return [
        Observation({f"key{k}": int(v) for k, v in enumerate(row)}, i % 3, 2.0 * row[3] + row[7] + generator.normal())
        for i, row in enumerate(configs)
    ]


def test_with_hundreds_of_varying_keys_those_that_matter_are_found_and_the_rest_is_counted():
    steps = []
    answer = why(many_keys(100), "val/loss", "min", check=lambda: steps.append(1))
    assert [p.name for p in answer.parameters[:2]] == ["key3", "key7"]
    assert parameter(answer, "key3").evidence == "clear"
    assert len(answer.parameters) + len(answer.not_analysed) == 100
    assert f"{len(answer.not_analysed)} of 100 varying keys are not analysed" in text(answer)
    assert len(steps) < 500  # the work does not grow with the number of pairs of keys


def test_a_key_without_effect_is_not_significant_because_it_was_chosen_among_hundreds():
    generator = np.random.default_rng(2)
    clear = 0
    for _ in range(5):
        configs = generator.integers(2, size=(80, 100))
        runs = [
            Observation({f"key{k}": int(v) for k, v in enumerate(row)}, None, generator.normal()) for row in configs
        ]
        clear += any(p.evidence == "clear" for p in why(runs, "val/loss", "min").parameters)
    assert clear <= 1


def test_an_analysis_can_be_cancelled_between_its_steps():
    class Cancelled(Exception):
        pass

    def check():
        raise Cancelled

    with pytest.raises(Cancelled):
        why(many_keys(8), "val/loss", "min", check=check)


def nine_rates(generator, *, exploding, step=1.0, seeds=3):
    """Return runs of nine learning rates whose means rise by `step`; the largest rate may explode."""
    runs = []
    for level in range(9):
        scale, mean = (1e4, 2e4) if exploding and level == 8 else (0.1, level * step)
        runs += [Observation({"lr": 0.1 * (level + 1)}, s, mean + scale * generator.normal()) for s in range(seeds)]
    return runs


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_one_exploding_value_does_not_hide_the_differences_of_the_others(seeds):
    for seed in range(5):
        runs = nine_rates(np.random.default_rng(seed), exploding=True, seeds=seeds)
        answer = why(runs, "val/loss", "min", options=AnswerOptions(may_use_logarithms=False))
        assert parameter(answer, "lr").evidence == "clear"
        assert "lr: best on average at 0.1 (" in text(answer)
        assert "no clear difference" not in text(answer)
        others = [effect.interval for effect in parameter(answer, "lr").marginal.effects[:8]]
        assert max(interval.high - interval.low for interval in others) < 2.0


def test_the_sentence_on_a_parameter_agrees_with_its_intervals():
    remarks = 0
    for seed in range(40):
        answer = why(nine_rates(np.random.default_rng(seed), exploding=False, step=0.02), "val/loss", "min")
        intervals = [effect.interval for effect in parameter(answer, "lr").marginal.effects]
        apart = max(i.low for i in intervals) > min(i.high for i in intervals)
        if apart and parameter(answer, "lr").evidence == "none":
            remarks += 1
            assert "among 36 pairs, intervals that do not overlap are no evidence by themselves" in text(answer)
        else:
            assert "pairs, intervals" not in text(answer)
    assert remarks


@pytest.mark.parametrize(
    ("metric", "scale"), [("val/f1", 1.0), ("val/accuracy", 1.0), ("test_auc", 1.0), ("acc@1", 100.0)]
)
def test_intervals_of_shares_stay_within_their_bounds(metric, scale):
    runs = grid(lambda c: 0.5 if c["lr"] == 1.0 else 0.98, spread=0.012)
    shares = [Observation(o.config, o.seed, scale * min(o.value, 1.0), 1.0) for o in runs]
    answer = why(shares, metric, "max")
    intervals = [
        *(estimate.interval for estimate in answer.ranking),
        *(effect.interval for p in answer.parameters for effect in p.marginal.effects),
        *(cell.interval for heat_map in answer.heat_maps for row in heat_map.table.cells for cell in row),
        *(value.interval for comparison in answer.tuned for value in comparison.values),
    ]
    assert max(interval.high for interval in intervals) == scale
    assert min(interval.low for interval in intervals) >= 0.0


def test_differences_of_shares_stay_within_their_bounds():
    """Two seeds of which one fails say little, but a difference of accuracies above 1 is impossible."""
    accuracies = {"a": (0.99, 0.02), "b": (0.05, 0.9), "c": (0.9, 0.1)}
    runs = [
        Observation({"model": model, "width": width}, seed, value)
        for model, values in accuracies.items()
        for width in (1, 2)
        for seed, value in enumerate((*values, values[0] / width))
    ]
    answer = why(runs, ACCURACY, "max")
    differences = [
        answer.difference.interval,
        *(p.marginal.contrast.interval for p in answer.parameters),
        *(value.behind for comparison in answer.tuned for value in comparison.values if value.behind is not None),
    ]
    assert len(differences) > 3
    assert all(-1.0 <= interval.low <= interval.mean <= interval.high <= 1.0 for interval in differences)


def test_the_standard_deviation_is_the_one_of_the_sample_and_the_prior_of_the_interval_is_reported() -> None:
    values = {0.1: (0.90, 0.91, 0.95), 0.2: (0.80, 0.81, 0.79), 0.3: (0.70, 0.70, 0.71)}
    runs = [Observation({"lr": lr}, seed, value) for lr, row in values.items() for seed, value in enumerate(row)]
    answer = why(runs, "val/accuracy", "max")
    best, second = answer.ranking[:2]
    assert best.spread == pytest.approx(np.std(values[0.1], ddof=1))
    assert second.noise is not None
    moderated = sum(
        c.weight * (c.d0 * c.s0_squared + 2 * np.var(values[0.2], ddof=1)) / (c.d0 + 2) for c in second.noise.prior
    )
    assert second.noise.variance == pytest.approx(moderated)
    half = t.ppf(0.975, second.noise.df) * math.sqrt(second.noise.variance / 3)
    assert second.interval.high == pytest.approx(second.interval.mean + half, rel=1e-4)
    assert answer.difference is not None
    assert answer.difference.noise is not None
    half = t.ppf(0.975, answer.difference.noise.df) * math.sqrt(answer.difference.noise.variance)
    assert answer.difference.interval.low == pytest.approx(answer.difference.interval.mean - half, rel=1e-3)


def test_means_of_a_table_have_one_precision_and_a_share_is_not_rounded_to_1():
    values = {0.1: (0.99, 1.0, 0.999), 0.2: (0.97, 0.98, 0.96), 0.3: (0.5, 0.7, 0.6)}
    runs = [Observation({"lr": lr}, seed, value) for lr, row in values.items() for seed, value in enumerate(row)]
    answer = why(runs, "val/accuracy", "max")
    cells = [row[1] for row in setups_table(answer).rows]
    assert len({len(cell.split()[0]) for cell in cells}) == 1
    assert cells[0].startswith("0.99")
    assert f"best {cells[0]}, runner-up {cells[1]}" in text(answer)
