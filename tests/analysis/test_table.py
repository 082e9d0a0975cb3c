"""Grouping of runs into configurations and parameters."""

import math

import numpy as np
import pytest

from helpers.analysis_grids import grid, nothing_matters
from labbench.analysis import Observation, observe
from labbench.analysis.table import BIN_COUNT, freeze, tabulate
from labbench.records import MetricSummary, RunRecord


def record(number: int, status="finished", metrics=None, **config) -> RunRecord:
    summary = {
        name: MetricSummary(3, 0, None, last=last, last_step=9, min=low, min_step=1, max=high, max_step=5)
        for name, (last, low, high) in (metrics or {}).items()
    }
    config = {"lr": 0.1, "seed": number, **config}
    return RunRecord(number, f"key{number}", "", "e", status, config, started=10.0, finished=14.0, summary=summary)


def test_runs_are_grouped_by_their_config_without_the_seed():
    table = tabulate(Observation({"lr": 0.1, "seed": seed}, seed, float(seed)) for seed in range(3))
    assert len(table.setups) == 1
    assert table.setups[0].values == (0.0, 1.0, 2.0)
    assert table.setups[0].config == {"lr": 0.1}
    assert table.parameters == ()


def test_a_run_repeated_with_the_same_seed_counts_once():
    """Training is deterministic, so a repetition has no information about the spread over seeds."""
    runs = [Observation({"lr": 0.1}, 0, 1.0), Observation({"lr": 0.1}, 0, 3.0), Observation({"lr": 0.1}, 1, 5.0)]
    setup = tabulate(runs).setups[0]
    assert setup.values == (2.0, 5.0)
    assert (setup.runs, setup.missing) == (2, 0)


def test_runs_without_a_seed_are_all_counted():
    assert tabulate([Observation({"lr": 0.1}, None, 1.0)] * 3).setups[0].values == (1.0, 1.0, 1.0)


def test_a_run_with_a_non_finite_value_counts_as_diverged():
    runs = [Observation({}, seed, value) for seed, value in enumerate([1.0, None, math.nan, math.inf])]
    setup = tabulate([*runs, Observation({}, 4, 0.5, diverged=True)]).setups[0]
    assert (setup.values, setup.runs, setup.diverged, setup.missing) == ((1.0,), 5, 3, 1)


@pytest.mark.parametrize("last", [math.nan, math.inf, -math.inf])
def test_a_finished_run_whose_last_value_is_not_finite_counts_as_diverged(last):
    runs = [record(seed, metrics={"loss": (last, 0.1, 2.0)}) for seed in range(2)]
    setup = tabulate(observe([*runs, record(2, metrics={"loss": (0.3, 0.2, 2.0)})], "loss")).setups[0]
    assert (setup.values, setup.diverged, setup.missing) == ((0.2,), 2, 0)


def test_a_huge_finite_value_does_not_count_as_diverged():
    (observation,) = observe([record(0, metrics={"loss": (1e200, 1e200, 1e250)})], "loss")
    assert (observation.value, observation.has_diverged) == (1e200, False)


def test_levels_of_mixed_types_are_distinct_and_ordered():
    values = ["b", 2, None, True, 10.0, "a", [1, 2], 1]
    (parameter,) = tabulate(Observation({"x": value}, 0, 1.0) for value in values).parameters
    assert parameter.levels == (None, 1, 2, 10.0, "a", "b", [1, 2], True)
    assert not parameter.numeric


@pytest.mark.parametrize(
    ("first", "second", "equal"), [(1, 1.0, True), (1, True, False), ([1], [1.0], True), ("1", 1, False)]
)
def test_equal_values_are_one_level(first, second, equal):
    assert (freeze(first) == freeze(second)) is equal


def test_a_constant_is_not_a_parameter():
    assert [p.name for p in tabulate(grid(nothing_matters, axes={"lr": [0.1, 1.0], "epochs": [10]})).parameters] == [
        "lr"
    ]


def test_zipped_parameters_are_analysed_once():
    runs = [
        Observation({"lr": lr, "batch_size": batch, "weight_decay": decay}, seed, 0.5)
        for lr in (0.01, 0.1)
        for batch, decay in ((32, 0.0), (64, 1e-4), (128, 1e-3))
        for seed in range(2)
    ]
    table = tabulate(runs)
    assert [p.name for p in table.independent] == ["lr", "batch_size"]
    assert table.parameter("weight_decay").follows == "batch_size"


def test_a_setting_that_comes_with_a_value_of_another_parameter_follows_it():
    """`[[set]] when = { optimizer = "sgd" }  momentum = 0.9`: the two effects are not separable."""
    runs = [
        Observation({**({"momentum": 0.9} if optimizer == "sgd" else {}), "optimizer": optimizer, "lr": lr}, 0, 0.5)
        for optimizer in ("sgd", "adam")
        for lr in (0.01, 0.1)
    ]
    table = tabulate(runs)
    assert [p.name for p in table.independent] == ["optimizer", "lr"]
    assert table.parameter("momentum").follows == "optimizer"


def test_a_parameter_that_only_one_optimizer_has_is_its_child():
    runs = [Observation({"optimizer": "adam", "lr": lr}, 0, 0.5) for lr in (0.01, 0.1)]
    runs += [
        Observation({"optimizer": "sgd", "lr": lr, "momentum": momentum}, 0, 0.5)
        for lr in (0.01, 0.1)
        for momentum in (0.0, 0.9)
    ]
    table = tabulate(runs)
    assert [p.name for p in table.independent] == ["optimizer", "lr", "momentum"]
    assert table.parameter("momentum").parent == "optimizer"


def test_numeric_parameters_of_a_random_search_are_binned():
    generator = np.random.default_rng(0)
    configs = [{"lr": float(10 ** generator.uniform(-4, 0)), "decay": float(generator.uniform())} for _ in range(30)]
    for parameter in tabulate(Observation(config, 0, 0.5) for config in configs).independent:
        assert len(parameter.levels) == BIN_COUNT
        assert np.bincount(parameter.codes).min() >= 5
        values = np.array([config[parameter.name] for config in configs])
        for level, (low, high) in enumerate(parameter.spans):
            assert (values[parameter.codes == level] >= low).all()
            assert (values[parameter.codes == level] <= high).all()


def test_a_long_axis_of_a_grid_is_not_binned():
    table = tabulate(grid(nothing_matters, axes={"lr": [10.0**-k for k in range(9)], "bn": [False, True]}))
    assert len(table.parameter("lr").levels) == 9
    assert table.parameter("lr").spans is None


def test_records_become_observations():
    metrics = {"val/accuracy": (0.8, 0.1, 0.9), "time/compute_s": (2.5, 0.1, 2.5)}
    runs = [
        record(0, metrics=metrics),
        record(1, metrics={"train/loss": (0.1, 0.1, 0.2)}),
        record(2, status="diverged", metrics=metrics),
        record(3, status="failed", metrics=metrics),
        record(4, status="running", metrics=metrics),
        record(5, status="queued"),
    ]
    observations = observe(runs, "val/accuracy")
    assert [(o.seed, o.value, o.diverged) for o in observations] == [
        (0, 0.9, False),
        (1, None, False),
        (2, None, True),
        (3, None, False),
    ]
    assert [o.seconds for o in observations] == [2.5, 4.0, 2.5, 2.5]
    assert observe(runs, "val/accuracy", "min")[0].value == 0.1
    assert observe(runs, "val/accuracy", at="last")[0].value == 0.8


def momentum_of_sgd_only() -> list[Observation]:
    """Return runs in which momentum and Nesterov vary for SGD and have their defaults otherwise."""
    kinds = [
        ("adam", 0.0, False),
        ("rmsprop", 0.0, False),
        ("sgd", 0.0, False),
        ("sgd", 0.9, False),
        ("sgd", 0.9, True),
    ]
    return [
        Observation({"optimizer": o, "momentum": m, "nesterov": n, "lr": lr}, 0, len(o) + m)
        for o, m, n in kinds
        for lr in (0.01, 0.1)
    ]


def test_a_parameter_at_its_default_outside_one_optimizer_is_its_child():
    table = tabulate(momentum_of_sgd_only())
    for name, levels in (("momentum", (None, 0.0, 0.9)), ("nesterov", (None, False, True))):
        parameter = table.parameter(name)
        assert (parameter.parent, parameter.levels) == ("optimizer", levels)
        assert [setup.config["optimizer"] == "sgd" for setup in table.setups] == parameter.present().tolist()
    assert table.parameter("lr").parent is None
    assert table.parameter("optimizer").parent is None


def test_a_single_run_of_an_optimizer_does_not_make_the_learning_rate_its_child():
    """As in an unfinished sweep with one rmsprop run so far."""
    runs = [Observation({"optimizer": o, "lr": lr}, 0, lr) for o in ("sgd", "adam") for lr in (0.01, 0.1)]
    table = tabulate([*runs, Observation({"optimizer": "rmsprop", "lr": 0.01}, 0, 0.5)])
    assert table.parameter("lr").parent is None


def test_a_level_that_random_configurations_share_by_chance_is_no_default():
    drawn = [
        ("adam", 4, 0.005),
        ("adam", 4, 0.027),
        ("sgd", 4, 0.05),
        ("sgd", 8, 0.3),
        ("sgd", 8, 1.4),
        ("sgd", 16, 2e-3),
    ]
    runs = [
        Observation({"optimizer": optimizer, "width": width, "lr": lr}, seed, 0.1 * width)
        for optimizer, width, lr in drawn
        for seed in range(2)
    ]
    width = tabulate(runs).parameter("width")
    assert width.levels == (4, 8, 16)
    assert width.parent is None


def test_a_parameter_with_several_defaults_is_not_a_child():
    runs = [
        Observation({"optimizer": o, "momentum": m, "lr": lr}, 0, lr)
        for o, m in (("adam", 0.0), ("rmsprop", 0.5), ("sgd", 0.0), ("sgd", 0.9))
        for lr in (0.01, 0.1)
    ]
    assert tabulate(runs).parameter("momentum").parent is None
