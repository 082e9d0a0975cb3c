"""The whole answer: known effects are found and said, nothing is said of what is not there, bad input is no error."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.analysis_grids import grid, grid_with_holes, nothing_matters, optimizer_and_rate
from labbench.analysis import Observation, why
from labbench.reports.sentences import sentences
from labbench.reports.tables import setups_table
from labbench.reports.text_charts import effect_lines, importance_rows
from labbench.text import clean

ACCURACY = "val/accuracy"


def text(answer) -> str:
    return "\n".join(sentences(answer))


def parameter(answer, name):
    return next(p for p in answer.parameters if p.name == name)


def test_a_grid_with_known_effects_gets_the_right_answer():
    answer = why(grid(optimizer_and_rate), ACCURACY, "max")
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


def test_the_words_carry_the_numbers():
    said = text(why(grid(optimizer_and_rate), ACCURACY, "max"))
    assert said.splitlines()[0].startswith("best: adam, lr 0.01, ")
    assert "over 3 seeds" in said
    assert "too close to call with 3 paired seeds" in said  # dropout does nothing
    assert "optimizer: adam ahead of sgd by 0.0" in said
    assert "batchnorm: better with it by 0.0" in said
    assert "dropout: no difference found on average (" in said
    assert "the best lr depends on optimizer: on average 0.01 for adam; 0.1 for sgd" in said
    assert "of the variance: optimizer " in said


def test_a_clear_winner_is_called_one():
    answer = why(grid(lambda c: 0.5 + 0.2 * (c["lr"] == 0.1), axes={"lr": [0.01, 0.1, 1.0]}), ACCURACY, "max")
    assert answer.verdict == "clear"
    assert answer.rivals == 0
    assert ": better, and with the same seed a run of it beats one of the other 99 % of the time" in text(answer)


@pytest.mark.parametrize("axes", [{"a": [1, 2]}, {"a": [1, 2, 3]}, {"a": [1, 2], "b": ["x", "y"]}])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_what_seeds_do_to_all_setups_alike_makes_no_sentence_unsure(axes, seeds):
    """One judgement for all sentences: a difference that shows within each seed is clear in every one of them."""
    shifts = np.random.default_rng(1).normal(0.0, 1.0, seeds)
    runs = grid(lambda c: 0.1 * c["a"] + 0.3 * (c.get("b") == "y"), axes=axes, seeds=seeds, spread=0.002)
    answer = why([Observation(o.config, o.seed, o.value + shifts[o.seed]) for o in runs], "score", "max")
    said = text(answer)
    assert (answer.verdict, answer.rivals) == ("clear", 0)
    assert {p.evidence for p in answer.parameters} == {"clear"}
    assert "with the same seed a run of it beats one of the other 99 % of the time" in said
    assert "cannot be told" not in said
    assert "no difference" not in said
    assert answer.best.interval.high - answer.best.interval.low > 0.5  # what a single run gives stays unsure


def test_verdict_rivals_and_the_only_parameter_agree():
    generator = np.random.default_rng(0)
    for rng in range(60):
        shifts = generator.normal(0.0, 0.02, 3)
        runs = grid(lambda c: 0.01 * c["a"], axes={"a": [0, 1, 2]}, spread=0.01, rng=rng)
        answer = why([Observation(o.config, o.seed, o.value + shifts[o.seed]) for o in runs], "score", "max")
        said = text(answer)
        assert (answer.verdict == "clear") == (": better, and" in said)
        if answer.verdict == "clear":
            assert "no difference found" not in said
            assert "more set-up" not in said
        else:
            assert answer.rivals >= 1


def test_where_nothing_matters_nothing_is_claimed():
    answers = [why(grid(nothing_matters, rng=rng, seeds=2 + rng % 3), ACCURACY, "max") for rng in range(30)]
    assert np.mean([answer.verdict == "clear" for answer in answers]) <= 0.05
    claims = [p.evidence == "clear" for answer in answers for p in answer.parameters]
    assert np.mean(claims) <= 0.03
    assert np.mean([bool(answer.interactions) for answer in answers]) <= 0.1
    assert not any(answer.widenings for answer in answers)
    assert "cannot be told from the best with these seeds" in text(answers[0])


def test_the_winner_of_many_equals_is_said_to_be_flattered():
    said = text(why(grid(nothing_matters, spread=0.05), ACCURACY, "max"))
    assert "it was chosen as the best of 32, which flatters: on seeds that had no say in the choice" in said


def test_the_document_has_the_promised_shape():
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


def test_the_document_says_where_runs_diverged_and_what_widens_the_rates():
    runs = grid(lambda config: None if config["lr"] == 1.0 and not config["batchnorm"] else 0.9)
    document = why(runs, ACCURACY, "max").as_document()
    assert document["divergences"] == [{"name": "lr", "value": 1.0, "diverged": 12, "runs": 24}]
    (widening,) = document["widenings"]
    assert (widening["name"], widening["wide"]["value"], widening["wide"]["to"]) == ("batchnorm", True, 1.0)
    assert (widening["narrow"]["from"], widening["narrow"]["to"]) == (0.001, 0.1)


def test_goal_min_turns_everything_round():
    best = why(grid(lambda c: 2.0 + optimizer_and_rate(c)), "val/loss", "min").best
    assert (best.differing["optimizer"], best.differing["lr"]) == ("sgd", 0.001)
    runs = grid(lambda c: 2.0 - optimizer_and_rate(c))
    answer = why(runs, "val/loss", "min")
    assert (answer.best.differing["optimizer"], answer.best.differing["lr"]) == ("adam", 0.01)
    assert parameter(answer, "optimizer").marginal.contrast.interval.mean < 0
    assert "optimizer: adam ahead of sgd by 0.0" in text(answer)  # ahead, though its loss is lower


def test_sgd_closing_in_at_its_own_rate_is_said():
    """Adam is far ahead on average, yet with a rate of its own sgd comes near."""

    def truth(c):
        ideal = 0.01 if c["optimizer"] == "adam" else 0.1
        width = 0.02 if c["optimizer"] == "adam" else 0.15
        return (0.95 if c["optimizer"] == "adam" else 0.94) - width * abs(math.log10(c["lr"] / ideal))

    answer = why(grid(truth, spread=0.002), ACCURACY, "max")
    closing = parameter(answer, "optimizer").close_alternative
    assert closing.value == "sgd"
    assert closing.differing["lr"] == 0.1
    assert closing.gap == pytest.approx(0.01, abs=0.005)
    assert "but sgd at lr 0.1" in text(answer)


def test_batchnorm_widening_the_usable_rates_is_said():
    def truth(c):
        usable = (0.001, 0.01, 0.1) if c["batchnorm"] else (0.01,)
        return 0.9 if c["lr"] in usable else 0.5

    answer = why(grid(truth), ACCURACY, "max")
    (widening,) = answer.widenings
    assert (widening.name, widening.wide_value) == ("batchnorm", True)
    assert widening.wide.decades == pytest.approx(2.0)
    assert widening.narrow.decades == 0.0
    expected = "from 0.001 (the smallest tried) to 0.1 with it, at 0.01 alone without it"
    assert f"batchnorm widens the usable learning rates: within 5 % of the best {expected}" in text(answer)


def test_a_rate_that_diverges_without_batchnorm_counts_as_lost():
    answer = why(grid(lambda c: None if c["lr"] == 1.0 and not c["batchnorm"] else 0.9), ACCURACY, "max")
    assert [widening.name for widening in answer.widenings] == ["batchnorm"]
    assert "16 of" not in text(answer)
    assert "12 of 96 runs diverged: 12 of 24 with lr 1" in text(answer)


def test_a_better_setup_that_sometimes_diverges_is_passed_over():
    runs = [Observation({"lr": 0.1}, seed, 0.9 + seed / 1000) for seed in range(3)]
    runs += [Observation({"lr": 1.0}, seed, 0.95 + seed / 1000) for seed in range(2)]
    answer = why([*runs, Observation({"lr": 1.0}, 2, None, diverged=True)], ACCURACY, "max")
    assert answer.best.config == {"lr": 0.1}
    assert answer.unsafe.config == {"lr": 1.0}
    assert "passed over: lr 1: val/accuracy" not in text(answer)
    assert "passed over: lr 1: 0.95" in text(answer)
    assert "but 1 of its 3 runs diverged" in text(answer)


def test_a_rival_that_trains_faster_is_named():
    told = {"cnn": ((0.91, 0.90, 0.92), 20.0), "mlp": ((0.90, 0.915, 0.91), 2.0), "wild": ((0.1, 0.93, 0.5), 1.0)}
    runs = [
        Observation({"model": model}, seed, value, seconds)
        for model, (values, seconds) in told.items()
        for seed, value in enumerate(values)
    ]
    answer = why(runs, ACCURACY, "max")
    assert answer.best.config == {"model": "cnn"}
    assert answer.rivals == 2  # three seeds cannot tell the wild one either, but nobody should take it
    assert answer.cheaper.config == {"model": "mlp"}
    assert "2.0s a run instead of 20s" in text(answer)


def test_intervals_end_where_the_metric_ends():
    runs = [Observation({"lr": lr}, seed, v) for lr in (0.1, 0.2) for seed, v in enumerate((0.999, 0.98, 1.0))]
    assert why(runs, ACCURACY, "max").best.interval.high == 1.0
    assert why(runs, "reward", "max").best.interval.high > 1.0
    assert (
        why([Observation({}, s, v) for s, v in enumerate((0.001, 0.1, 0.0))], "val/loss", "min").best.interval.low == 0
    )


def test_eight_seeds_bring_the_interquartile_mean():
    runs = [Observation({"lr": 0.1}, seed, float(seed)) for seed in range(8)]
    assert why(runs, "x", "max").best.iqm == pytest.approx(3.5)
    assert why(runs[:7], "x", "max").best.iqm is None


def test_one_seed_each_is_too_few_to_say():
    answer = why(grid(optimizer_and_rate, seeds=1), ACCURACY, "max")
    assert answer.verdict == "too few seeds to say"
    assert answer.best.interval.low is None
    said = text(answer)
    assert "no interval, as nothing was run with a second seed" in said
    assert "too few seeds to say; 3 seeds for each set-up would give a first answer" in said
    assert "rest on how alike an effect is in different settings, not on seeds" in said


def one(value=None, *, diverged=False, **config):
    return Observation(config or {"lr": 0.1}, 0, value, diverged=diverged)


BAD = {
    "no runs": ([], "no results", "no run has ended yet, so nothing is known of m"),
    "one run": ([one(0.5)], "only one set-up has results", "best: the only set-up: m 0.5000 over 1 seed"),
    "all diverged": ([one(diverged=True, lr=lr) for lr in (0.1, 1.0)], "no results", "2 of 2 runs diverged"),
    "all failed": ([one(lr=lr) for lr in (0.1, 1.0)], "no results", "left out: 2 without m (failed, stopped or not"),
    "nan": ([one(math.nan), one(math.inf, lr=1.0)], "no results", "no run has a value of m: 2 of 2 runs diverged"),
    "one survivor": (
        [one(0.5), one(diverged=True, lr=1.0)],
        "only one set-up has results",
        "no other set-up has a result",
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
        "is equal to the last",
    ),
    "lists": (
        [one(0.5, hidden=[64]), one(0.6, hidden=[64, 32])],
        "too few seeds to say",
        "best: hidden 64-32: m 0.6000",
    ),
    "hostile": (
        [one(0.5, **{"\x1b[2J": "\x1b]0;x\x07"}), one(0.6, **{"\x1b[2J": "y"})],
        "too few seeds to say",
        "␛[2J: ",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_answered_plainly(case):
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
def test_anything_is_answered(runs, goal):
    answer = why(runs, ACCURACY, goal)
    assert all(line and line == clean(line) for line in sentences(answer))
    json.dumps(answer.as_document(), allow_nan=False)


def test_values_that_would_look_alike_are_told_apart_by_their_types():
    values = [1, "1", True, "true", 0.5, "adam"]
    heights = {json.dumps(value): 0.1 * place for place, value in enumerate(values)}
    runs = grid(lambda c: heights[json.dumps(c["x"])] + c["lr"], axes={"x": values, "lr": [0.1, 0.2]}, spread=0.001)
    answer = why(runs, "score", "max")
    shown = [row[0] for row in setups_table(answer).rows]
    assert len(set(shown)) == 10
    assert {"x adam, lr 0.1", "x 0.5, lr 0.1"} < set(shown)  # nothing looks like these
    assert {'x "true", lr 0.2', "x true, lr 0.2", 'x "1", lr 0.2'} < set(shown)
    lines = effect_lines(answer, parameter(answer, "x"))
    assert [line.split()[0] for line in lines] == ["0.5", "1", '"1"', "★", '"true"', "true"]
    assert "worst at 1 (" in text(answer)


def test_words_and_switches_of_one_type_stay_as_people_say_them():
    runs = grid(lambda c: 0.9 - 0.1 * c["bn"] + 0.2 * (c["n"] == "1"), axes={"bn": [True, False], "n": ["1", "2"]})
    assert text(why(runs, "score", "max")).startswith("best: no bn, 1: score")


def test_huge_values_are_values():
    """Squares of them are infinite; the set-ups that are not huge are judged as if those were not there."""
    level = {"calm": 0.4, "tame": 0.5, "wild": 1e200, "wilder": 1e300}
    runs = grid(lambda c: level[c["a"]], axes={"a": list(level)}, spread=0.01)
    runs = [Observation(o.config, o.seed, o.value * (1 + 0.01 * o.seed)) for o in runs]
    answer = why(runs, "val/loss", "min")
    alone = why([run for run in runs if run.value < 1], "val/loss", "min")
    assert (answer.counts.with_result, answer.counts.diverged) == (12, 0)
    assert (answer.best.config, answer.verdict) == ({"a": "calm"}, "clear")
    assert [e.interval.mean for e in answer.ranking] == pytest.approx([0.4, 0.5, 1.01e200, 1.01e300], rel=0.05)
    assert answer.best.interval.high == pytest.approx(alone.best.interval.high, rel=0.03)
    assert answer.ranking[2].spread == pytest.approx(0.01e200, rel=1.0)
    assert all(len(line) < 200 for line in sentences(answer))
    json.dumps(answer.as_document(), allow_nan=False)


def test_the_unit_of_huge_values_changes_nothing_else():
    runs = grid(optimizer_and_rate)
    plain = why(runs, "score", "max")
    huge = why([Observation(o.config, o.seed, o.value * 2.0**900) for o in runs], "score", "max")
    assert huge.best.interval.low == pytest.approx(plain.best.interval.low * 2.0**900)
    assert huge.difference.interval.high == pytest.approx(plain.difference.interval.high * 2.0**900)
    assert [p.evidence for p in huge.parameters] == [p.evidence for p in plain.parameters]
    assert [p.importance.mean for p in huge.parameters] == pytest.approx([p.importance.mean for p in plain.parameters])
    assert huge.heat_maps[0].table.cells[0][0].interval.mean > 1e260


def test_a_single_run_shows_no_spread_of_its_own():
    runs = [Observation({"lr": lr}, seed, lr + 0.01 * seed) for lr in (1.0, 2.0) for seed in range(3)]
    single, *others = why([*runs, Observation({"lr": 9.0}, 0, 9.0)], "m", "max").ranking
    assert single.spread is None
    assert single.interval.low is not None  # it borrows one, and the sentence says so
    assert all(other.spread is not None for other in others)


def test_what_an_additive_model_leaves_is_not_called_interactions():
    answer = why(grid_with_holes(lambda c: 0.8 + 0.1 * (c["a"] == 2) + 0.02 * c["b"]), "score", "max")
    rows = importance_rows(answer)
    assert [name for name, _, _ in rows] == ["a", "b", "other", "seeds"]
    assert sum(share for _, share, _ in rows) == pytest.approx(1.0)


def test_runs_that_lack_the_metric_are_left_out_and_counted():
    runs = grid(optimizer_and_rate)
    holes = [Observation(o.config, o.seed, None if i % 10 == 0 else o.value) for i, o in enumerate(runs)]
    answer = why(holes, ACCURACY, "max")
    assert (answer.counts.missing, answer.counts.with_result) == (10, 86)
    assert parameter(answer, "optimizer").evidence == "clear"
    assert "left out: 10 without val/accuracy" in text(answer)


def test_a_large_random_search_of_nothing_finds_nothing():
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


def test_a_thousand_setups_are_answered():
    axes = {"a": range(5), "b": range(5), "c": range(5), "d": range(8)}
    runs = grid(lambda c: c["a"] + 0.1 * c["b"], axes=axes)
    answer = why(runs, "m", "max")
    assert answer.counts.setups == 1000
    assert parameter(answer, "a").evidence == "clear"
