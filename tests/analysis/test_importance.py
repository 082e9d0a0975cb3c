"""Functional ANOVA against closed forms."""

import itertools
import math
from importlib.util import find_spec

import numpy as np
import pytest

from helpers.analysis_grids import grid, grid_with_holes, nothing_matters, optimizer_and_rate
from labbench.analysis import Observation
from labbench.analysis.importance import importance
from labbench.analysis.noise import learn_noise
from labbench.analysis.table import tabulate
from labbench.analysis.why import why
from labbench.reports.sentences import sentences


def decomposed(observations, *, forest=False):
    table = tabulate(observations).with_values()
    return importance(table, learn_noise(table), may_ask_forest=forest)


def bilinear(a, b, c):
    """2 x + 3 y + 5 x y on x, y in {-1, 1}: variances 4, 9 and 25; z does nothing."""
    return 2 * a + 3 * b + 5 * a * b


CORNERS = list(itertools.product((-1, 1), repeat=3))


def test_a_full_factorial_gives_the_closed_form():
    found = decomposed([Observation(dict(zip("abc", x, strict=True)), 0, bilinear(*x)) for x in CORNERS])
    assert found.method == "full factorial"
    assert {name: share.mean for name, share in found.main_effects.items()} == pytest.approx(
        {"a": 4 / 38, "b": 9 / 38, "c": 0}
    )
    assert found.pairs["a", "b"].mean == pytest.approx(25 / 38)
    assert found.pairs["a", "c"].mean == pytest.approx(0)
    assert (found.rest, found.seeds) == (pytest.approx(0), None)


def test_an_interaction_of_three_is_the_rest():
    found = decomposed([Observation(dict(zip("abc", x, strict=True)), 0, math.prod(x) + x[0]) for x in CORNERS])
    assert found.main_effects["a"].mean == pytest.approx(0.5)
    assert found.rest == pytest.approx(0.5)


def test_seeds_have_their_share_and_take_none_from_the_parameters():
    """Variances 4, 9, 25 and 38 of the noise: halves, on average over many grids."""
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(80):
        runs = [
            Observation(dict(zip("abc", x, strict=True)), seed, bilinear(*x) + math.sqrt(38) * generator.normal())
            for x in CORNERS
            for seed in range(3)
        ]
        found = decomposed(runs)
        shares.append(
            [found.main_effects["a"].mean, found.main_effects["b"].mean, found.pairs["a", "b"].mean, found.seeds]
        )
    assert np.mean(shares, axis=0) == pytest.approx([4 / 76, 9 / 76, 25 / 76, 1 / 2], abs=0.04)


def test_cells_with_more_seeds_do_not_count_more():
    runs = [
        Observation(dict(zip("abc", x, strict=True)), seed, bilinear(*x) + 1e-6 * seed)
        for x in CORNERS
        for seed in range(2 + 5 * (x == (1, 1, 1)))
    ]
    assert decomposed(runs).main_effects["b"].mean == pytest.approx(9 / 38, rel=1e-4)


def test_intervals_hold_the_true_shares():
    exact = decomposed(grid(optimizer_and_rate, seeds=1, spread=0.0))
    signal = tabulate(grid(optimizer_and_rate, seeds=1, spread=0.0)).means.var()
    held = []
    for rng in range(40):
        found = decomposed(grid(optimizer_and_rate, spread=0.03, rng=rng))
        for name, share in found.main_effects.items():
            truth = exact.main_effects[name].mean * signal / (signal + 0.03**2)
            held.append(share.low - 1e-9 <= truth <= share.high + 1e-9)
    assert np.mean(held) >= 0.9


def test_where_nothing_matters_the_seeds_take_it_all():
    found = [decomposed(grid(nothing_matters, rng=rng)) for rng in range(20)]
    assert np.mean([f.seeds for f in found]) > 0.8
    assert np.mean([share.low == 0.0 for f in found for share in f.main_effects.values()]) >= 0.9


def test_a_value_that_lacks_partners_is_left_out():
    runs = grid(lambda c: None if c["lr"] == 1.0 and c["optimizer"] == "adam" else optimizer_and_rate(c), spread=1e-6)
    found = decomposed(runs)
    without = decomposed([run for run in runs if run.config["lr"] < 1.0])
    assert found.method == "part of the grid"
    assert found.left_out == (("lr", 1.0),)
    assert found.main_effects["optimizer"].mean == pytest.approx(without.main_effects["optimizer"].mean)


def test_a_random_search_gets_the_shares_of_its_additive_part():
    """y = x1 + 2 x2 on the unit cube: variances 1/12 and 4/12."""
    generator = np.random.default_rng(0)
    points = generator.uniform(size=(400, 3)).tolist()
    found = decomposed([Observation(dict(zip("abc", x, strict=True)), 0, x[0] + 2 * x[1]) for x in points])
    assert found.method == "additive model"
    assert found.main_effects["a"].mean == pytest.approx(0.2, abs=0.03)
    assert found.main_effects["b"].mean == pytest.approx(0.8, abs=0.06)  # bins of a fifth keep 24/25 of it
    assert found.main_effects["c"].mean == pytest.approx(0.0, abs=0.02)
    assert found.main_effects["c"].low == 0.0


@pytest.mark.parametrize("effect", [0.0, 0.02, 0.1])
def test_the_shares_of_a_grid_with_holes_add_up(effect):
    found = [decomposed(grid_with_holes(lambda c: 0.8 + effect * c["b"], rng=rng)) for rng in range(30)]
    assert {f.method for f in found} == {"additive model"}
    for f in found:
        assert sum(share.mean for share in f.main_effects.values()) + f.rest + f.seeds == pytest.approx(1.0)
        assert all(share.low <= share.mean <= share.high for share in f.main_effects.values())
    if effect == 0.1:
        assert np.mean([f.main_effects["a"].mean for f in found]) < 0.03  # it does nothing, and lies where b is 0
        assert np.mean([f.main_effects["b"].mean for f in found]) > 0.8


def rates_of_two_optimizers(setups=200, seeds=2):
    """A random search: each optimizer wants a rate of its own, `width` does nothing; seeds spread by 0.02."""
    generator = np.random.default_rng(0)
    return [
        Observation({"optimizer": optimizer, "rate": rate, "width": width}, seed, float(value))
        for number, (rate, width) in enumerate(generator.uniform(size=(setups, 2)).tolist())
        for optimizer in [("sgd", "adam")[number % 2]]
        for seed, value in enumerate(wanted(optimizer, rate) + 0.02 * generator.standard_normal(seeds))
    ]


def wanted(optimizer, rate):
    return 0.9 - np.abs(rate - (0.9 if optimizer == "sgd" else 0.4))


def test_a_forest_finds_an_interaction_in_a_random_search_that_an_additive_model_cannot():
    pytest.importorskip("sklearn", reason="the extra `forest` is not installed")
    runs = rates_of_two_optimizers()
    found, additive = decomposed(runs, forest=True), decomposed(runs)
    assert (found.method, additive.method) == ("random forest", "additive model")
    heights = np.array([wanted(optimizer, np.linspace(0, 1, 1001)) for optimizer in ("sgd", "adam")])
    rates, optimizers = heights.mean(axis=0), heights.mean(axis=1)
    both = heights - rates - optimizers[:, None] + heights.mean()
    total = heights.var() + 0.02**2
    assert found.main_effects["rate"].mean == pytest.approx(rates.var() / total, abs=0.05)
    assert found.main_effects["optimizer"].mean == pytest.approx(optimizers.var() / total, abs=0.05)
    assert found.pairs["optimizer", "rate"].mean == pytest.approx(both.var() / total, abs=0.12)
    assert found.main_effects["width"].mean < 0.01
    assert found.rest < 0.15 < both.var() / total < additive.rest
    assert found == decomposed(runs, forest=True)


def test_a_forest_is_told_in_words():
    pytest.importorskip("sklearn", reason="the extra `forest` is not installed")
    told = "\n".join(sentences(why(rates_of_two_optimizers(), "score", "max")))
    assert "of the variance: " in told
    assert "interactions" in told
    assert "scikit-learn" not in told


def test_a_forest_gives_noise_to_the_seeds_and_nothing_to_the_parameters():
    pytest.importorskip("sklearn", reason="the extra `forest` is not installed")
    generator = np.random.default_rng(1)
    runs = [
        Observation(dict(zip("abc", x, strict=True)), seed, float(generator.standard_normal()))
        for x in generator.uniform(size=(80, 3)).tolist()
        for seed in range(2)
    ]
    found = decomposed(runs, forest=True)
    assert sum(share.mean for share in (*found.main_effects.values(), *found.pairs.values())) < 0.1


def test_where_the_forest_is_not_installed_the_answer_says_what_it_would_tell():
    found = decomposed(rates_of_two_optimizers())
    assert (found.method, found.wants_forest) == ("additive model", True)
    assert not decomposed(rates_of_two_optimizers(setups=20)).wants_forest  # too few for a forest to learn from
    answer = why(rates_of_two_optimizers(), "score", "max")
    told = "\n".join(sentences(answer))
    assert ('interactions are not told apart without scikit-learn, pip install -e ".[forest]"' in told) == (
        find_spec("sklearn") is None
    )


def test_a_parameter_of_one_optimizer_alone_has_its_share_of_the_whole():
    """Momentum moves half of the runs by 1 up or down; the optimizers are equal on average."""
    runs = [
        Observation({"optimizer": o, "lr": lr} | ({} if m is None else {"momentum": m}), 0, 0.0 if m is None else m)
        for o, m in (("adam", None), ("sgd", -1.0), ("sgd", 1.0))
        for lr in (0.1, 0.2)
    ]
    found = decomposed(runs)
    assert found.main_effects["optimizer"].mean == pytest.approx(0.0, abs=1e-9)
    assert found.main_effects["momentum"].mean == pytest.approx(1.0)


def test_a_parameter_that_is_held_outside_one_optimizer_has_the_share_it_has_within():
    """The same runs with and without a momentum written where it is held: the shares are the same."""
    kinds = [("adam", 0.0), ("rmsprop", 0.0), ("sgd", 0.0), ("sgd", 0.9)]

    def found(held: bool):
        return decomposed(
            Observation(
                {"optimizer": o, "lr": lr} | ({"momentum": m} if held or o == "sgd" else {}),
                0,
                {"adam": 0.9, "rmsprop": 0.8, "sgd": 0.5 + 0.2 * m}[o] - lr,
            )
            for o, m in kinds
            for lr in (0.1, 0.2, 0.3)
        )

    assert found(held=True) == found(held=False)
    shares = found(held=True)
    assert shares.method == "full factorial"
    optimizers = np.array([0.9, 0.8, 0.59]).var()
    rates, momentum = np.array([0.1, 0.2, 0.3]).var(), 0.5 * 0.09**2  # momentum moves half of the set-ups
    total = optimizers + rates + momentum
    assert shares.main_effects["optimizer"].mean == pytest.approx(optimizers / total)
    assert shares.main_effects["lr"].mean == pytest.approx(rates / total)
    assert shares.main_effects["momentum"].mean == pytest.approx(momentum / total)
    assert shares.rest == pytest.approx(0.0, abs=1e-9)


def test_nothing_is_decomposed_where_nothing_varies():
    assert decomposed([Observation({"lr": lr}, 0, 0.5) for lr in (0.1, 0.2)]) is None
    assert decomposed([Observation({"lr": 0.1}, seed, float(seed)) for seed in range(3)]) is None
