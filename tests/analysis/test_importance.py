"""Functional ANOVA, compared with closed forms."""

import itertools
import math

import numpy as np
import pytest

from helpers.analysis_grids import grid, grid_with_holes, nothing_matters, optimizer_and_rate
from labbench.analysis import Observation
from labbench.analysis.forest import MAX_TREE_SETUPS, bin_columns, draw_bags, effect_variances, grow_trees
from labbench.analysis.importance import importance
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.table import never_cancelled, tabulate
from labbench.analysis.why import why
from labbench.reports.sentences import sentences


def decompose(observations, *, forest=False):
    table = tabulate(observations).with_values()
    return importance(table, learn_noise(table), may_ask_forest=forest)


def bilinear(a, b, c):
    """Return 2 a + 3 b + 5 a b; on {-1, 1} the variances are 4, 9 and 25, and c has no effect."""
    return 2 * a + 3 * b + 5 * a * b


CORNERS = list(itertools.product((-1, 1), repeat=3))


def test_a_full_factorial_gives_the_closed_form():
    shares = decompose([Observation(dict(zip("abc", x, strict=True)), 0, bilinear(*x)) for x in CORNERS])
    assert shares.method == "full factorial"
    assert {name: share.mean for name, share in shares.main_effects.items()} == pytest.approx(
        {"a": 4 / 38, "b": 9 / 38, "c": 0}
    )
    assert shares.pairs["a", "b"].mean == pytest.approx(25 / 38)
    assert shares.pairs["a", "c"].mean == pytest.approx(0)
    assert (shares.rest, shares.seeds) == (pytest.approx(0), None)


def test_an_interaction_of_three_parameters_is_the_rest():
    shares = decompose([Observation(dict(zip("abc", x, strict=True)), 0, math.prod(x) + x[0]) for x in CORNERS])
    assert shares.main_effects["a"].mean == pytest.approx(0.5)
    assert shares.rest == pytest.approx(0.5)


def test_the_share_of_seeds_does_not_bias_the_shares_of_parameters():
    """The noise has a variance of 38, as much as all effects (4, 9 and 25); means over 80 grids."""
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(80):
        runs = [
            Observation(dict(zip("abc", x, strict=True)), seed, bilinear(*x) + math.sqrt(38) * generator.normal())
            for x in CORNERS
            for seed in range(3)
        ]
        grid_shares = decompose(runs)
        mains = [grid_shares.main_effects[name].mean for name in "ab"]
        shares.append([*mains, grid_shares.pairs["a", "b"].mean, grid_shares.seeds])
    assert np.mean(shares, axis=0) == pytest.approx([4 / 76, 9 / 76, 25 / 76, 1 / 2], abs=0.04)


def test_cells_have_equal_weight_for_any_number_of_seeds():
    runs = [
        Observation(dict(zip("abc", x, strict=True)), seed, bilinear(*x) + 1e-6 * seed)
        for x in CORNERS
        for seed in range(2 + 5 * (x == (1, 1, 1)))
    ]
    assert decompose(runs).main_effects["b"].mean == pytest.approx(9 / 38, rel=1e-4)


def test_intervals_contain_the_true_shares():
    exact = decompose(grid(optimizer_and_rate, seeds=1, spread=0.0))
    signal = tabulate(grid(optimizer_and_rate, seeds=1, spread=0.0)).means.var()
    covered = []
    for rng in range(40):
        shares = decompose(grid(optimizer_and_rate, spread=0.03, rng=rng))
        for name, share in shares.main_effects.items():
            truth = exact.main_effects[name].mean * signal / (signal + 0.03**2)
            covered.append(share.low - 1e-9 <= truth <= share.high + 1e-9)
    assert np.mean(covered) >= 0.9


def test_without_effects_the_variance_is_due_to_seeds():
    grids = [decompose(grid(nothing_matters, rng=rng)) for rng in range(20)]
    assert np.mean([shares.seeds for shares in grids]) > 0.8
    assert np.mean([share.low == 0.0 for shares in grids for share in shares.main_effects.values()]) >= 0.9


def test_a_value_with_missing_combinations_is_left_out():
    runs = grid(lambda c: None if c["lr"] == 1.0 and c["optimizer"] == "adam" else optimizer_and_rate(c), spread=1e-6)
    shares = decompose(runs)
    without = decompose([run for run in runs if run.config["lr"] < 1.0])
    assert shares.method == "part of the grid"
    assert shares.left_out == (("lr", 1.0),)
    assert shares.main_effects["optimizer"].mean == pytest.approx(without.main_effects["optimizer"].mean)


def test_a_random_search_has_the_shares_of_an_additive_model():
    """a + 2 b on the unit cube has variances 1/12 and 4/12."""
    generator = np.random.default_rng(0)
    points = generator.uniform(size=(400, 3)).tolist()
    shares = decompose([Observation(dict(zip("abc", x, strict=True)), 0, x[0] + 2 * x[1]) for x in points])
    assert shares.method == "additive model"
    assert shares.main_effects["a"].mean == pytest.approx(0.2, abs=0.03)
    assert shares.main_effects["b"].mean == pytest.approx(0.8, abs=0.06)  # five bins keep 24/25 of it
    assert shares.main_effects["c"].mean == pytest.approx(0.0, abs=0.02)
    assert shares.main_effects["c"].low == 0.0


@pytest.mark.parametrize("effect", [0.0, 0.02, 0.1])
def test_the_shares_of_a_grid_with_holes_add_up(effect):
    grids = [decompose(grid_with_holes(lambda c: 0.8 + effect * c["b"], rng=rng)) for rng in range(30)]
    assert {shares.method for shares in grids} == {"additive model"}
    for shares in grids:
        assert sum(share.mean for share in shares.main_effects.values()) + shares.rest + shares.seeds == pytest.approx(
            1
        )
        assert all(share.low <= share.mean <= share.high for share in shares.main_effects.values())
    if effect == 0.1:
        # `a` has no effect, but is correlated with `b`
        assert np.mean([shares.main_effects["a"].mean for shares in grids]) < 0.03
        assert np.mean([shares.main_effects["b"].mean for shares in grids]) > 0.8


def rates_of_two_optimizers(setups=200, seeds=2):
    """Return a random search: each optimizer has its best rate, `width` has no effect, seeds have an sd of 0.02."""
    generator = np.random.default_rng(0)
    return [
        Observation({"optimizer": optimizer, "rate": rate, "width": width}, seed, float(value))
        for number, (rate, width) in enumerate(generator.uniform(size=(setups, 2)).tolist())
        for optimizer in [("sgd", "adam")[number % 2]]
        for seed, value in enumerate(true_score(optimizer, rate) + 0.02 * generator.standard_normal(seeds))
    ]


def true_score(optimizer, rate):
    return 0.9 - np.abs(rate - (0.9 if optimizer == "sgd" else 0.4))


@pytest.mark.parametrize("setups", [200, 2 * MAX_TREE_SETUPS])
def test_a_forest_estimates_an_interaction_in_a_random_search_that_an_additive_model_cannot(setups):
    runs = rates_of_two_optimizers(setups)
    shares, additive = decompose(runs, forest=True), decompose(runs)
    assert (shares.method, additive.method) == ("random forest", "additive model")
    heights = np.array([true_score(optimizer, np.linspace(0, 1, 1001)) for optimizer in ("sgd", "adam")])
    rates, optimizers = heights.mean(axis=0), heights.mean(axis=1)
    interaction = heights - rates - optimizers[:, None] + heights.mean()
    total = heights.var() + 0.02**2
    assert shares.main_effects["rate"].mean == pytest.approx(rates.var() / total, abs=0.05)
    assert shares.main_effects["optimizer"].mean == pytest.approx(optimizers.var() / total, abs=0.07)
    assert shares.pairs["optimizer", "rate"].mean == pytest.approx(interaction.var() / total, abs=0.12)
    assert shares.main_effects["width"].mean < 0.01
    assert shares.rest < 0.15 < interaction.var() / total < additive.rest
    assert shares == decompose(runs, forest=True)


def test_effects_in_a_forest_are_means_over_all_combinations_of_values():
    generator = np.random.default_rng(3)
    ranks = generator.integers([4, 3, 5], size=(60, 3))
    inputs, bags = bin_columns([*ranks.T]), draw_bags(generator, 7, 60)
    targets = np.broadcast_to(ranks[:, 0] - ranks[:, 1] * ranks[:, 2] + generator.normal(size=60), bags.shape)
    leaves, predictions = grow_trees(inputs, bags, targets, never_cancelled)

    def predict(point):
        """Return the mean prediction of the trees, each of which has one leaf around a point."""
        inside = ((leaves.low <= point) & (point < leaves.high)).all(axis=1)
        assert inside.sum() == leaves.trees
        return leaves.value[inside].mean()

    assert [predict(point) for point in ranks] == pytest.approx(predictions.mean(axis=0))
    heights = np.array([predict(point) for point in np.ndindex(4, 3, 5)]).reshape(4, 3, 5)
    shares = [inputs.shares[0, :4], inputs.shares[1, :3], inputs.shares[2, :5]]
    centred = heights - np.einsum("abc,a,b,c", heights, *shares)
    first, second = np.einsum("abc,b,c->a", centred, *shares[1:]), np.einsum("abc,a,c->b", centred, *shares[::2])
    pair = np.einsum("abc,c->ab", centred, shares[2]) - first[:, None] - second
    expected = [shares[0] @ first**2, shares[1] @ second**2, shares[0] @ pair**2 @ shares[1]]
    assert effect_variances(leaves, inputs, [(0,), (1,), (0, 1)], never_cancelled) == pytest.approx(expected)


def test_sentences_report_the_interactions_of_a_forest():
    text = "\n".join(sentences(why(rates_of_two_optimizers(), "score", "max")))
    assert "differences in " in text
    assert "interactions" in text


def test_a_forest_attributes_noise_to_seeds_not_to_parameters():
    generator = np.random.default_rng(1)
    runs = [
        Observation(dict(zip("abc", x, strict=True)), seed, float(generator.standard_normal()))
        for x in generator.uniform(size=(80, 3)).tolist()
        for seed in range(2)
    ]
    shares = decompose(runs, forest=True)
    assert sum(share.mean for share in (*shares.main_effects.values(), *shares.pairs.values())) < 0.1


def test_few_configurations_of_a_random_search_have_an_additive_model():
    assert decompose(rates_of_two_optimizers(setups=20), forest=True).method == "additive model"


def test_a_conditional_parameter_has_a_share_of_the_whole_variance():
    """Momentum changes half of the runs by +1 or -1; the optimizers are equal on average."""
    runs = [
        Observation({"optimizer": o, "lr": lr} | ({} if m is None else {"momentum": m}), 0, 0.0 if m is None else m)
        for o, m in (("adam", None), ("sgd", -1.0), ("sgd", 1.0))
        for lr in (0.1, 0.2)
    ]
    shares = decompose(runs)
    assert shares.main_effects["optimizer"].mean == pytest.approx(0.0, abs=1e-9)
    assert shares.main_effects["momentum"].mean == pytest.approx(1.0)


def test_a_parameter_at_its_default_is_analysed_like_a_missing_one():
    """Momentum is 0 or missing for adam and rmsprop; the shares must be the same."""
    kinds = [("adam", 0.0), ("rmsprop", 0.0), ("sgd", 0.0), ("sgd", 0.9)]

    def decompose_kinds(*, with_default: bool):
        return decompose(
            Observation(
                {"optimizer": o, "lr": lr} | ({"momentum": m} if with_default or o == "sgd" else {}),
                0,
                {"adam": 0.9, "rmsprop": 0.8, "sgd": 0.5 + 0.2 * m}[o] - lr,
            )
            for o, m in kinds
            for lr in (0.1, 0.2, 0.3)
        )

    shares = decompose_kinds(with_default=True)
    assert shares == decompose_kinds(with_default=False)
    assert shares.method == "full factorial"
    optimizers = np.array([0.9, 0.8, 0.59]).var()
    rates, momentum = np.array([0.1, 0.2, 0.3]).var(), 0.5 * 0.09**2  # momentum varies in half of the configurations
    total = optimizers + rates + momentum
    assert shares.main_effects["optimizer"].mean == pytest.approx(optimizers / total)
    assert shares.main_effects["lr"].mean == pytest.approx(rates / total)
    assert shares.main_effects["momentum"].mean == pytest.approx(momentum / total)
    assert shares.rest == pytest.approx(0.0, abs=1e-9)


def test_constant_values_have_no_importance():
    assert decompose([Observation({"lr": lr}, 0, 0.5) for lr in (0.1, 0.2)]) is None
    assert decompose([Observation({"lr": 0.1}, seed, float(seed)) for seed in range(3)]) is None


def test_the_shares_are_recomputed_by_the_formulas_of_the_documentation():
    generator = np.random.default_rng(3)
    values = np.add.outer([0.0, 1.0, 3.0], [0.0, 0.5, 0.1, 0.9])[:, :, None] + 0.3 * generator.normal(size=(3, 4, 6))
    table = tabulate(
        Observation({"a": a, "b": f"b{b}"}, seed, float(values[a, b, seed]))
        for a in range(3)
        for b in range(4)
        for seed in range(6)
    )
    shares = importance(table, learn_noise(table))
    means, e = values.mean(axis=2), values.var(axis=2, ddof=1).mean()
    residuals = values - means[:, :, None] - (values.mean(axis=(0, 1)) - values.mean())
    n = (residuals**2).sum() / (11 * 5) / 6  # two-way layout of configurations and seeds
    a, b = means.mean(axis=1), means.mean(axis=0)
    pair = means - a[:, None] - b + means.mean()
    parts = [a.var() - 2 * n / 12, b.var() - 3 * n / 12, pair.var() - 6 * n / 12]
    total = max(means.var() - 11 * n / 12, sum(max(0.0, part) for part in parts)) + e
    assert shares.seeds == pytest.approx(e / total, rel=0.01)
    measured = [shares.main_effects["a"].mean, shares.main_effects["b"].mean, shares.pairs["a", "b"].mean]
    assert measured == pytest.approx([max(0.0, part) / total for part in parts], rel=0.02, abs=0.002)
