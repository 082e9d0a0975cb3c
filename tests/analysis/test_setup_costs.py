"""Costs of reaching a target per configuration, from curves with known costs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from helpers.store_samples import new_run, points, start
from labbench.analysis import observe, why
from labbench.analysis.costs import CostCurve
from labbench.analysis.setup_costs import compare_costs
from labbench.analysis.table import Observation
from labbench.records import Finished
from labbench.reports.cost_curves import read_cost_curves
from labbench.reports.sentences import cost_sentences
from labbench.store.reader import Reader
from labbench.store.writer import Writer

RISES = {"adam": 20, "sgd": 100, "never": 10**9}
"""Step from which each optimizer is above 0.9."""


def curve(optimizer: str, seed: int) -> CostCurve:
    steps = np.arange(10.0, 210.0, 10.0)
    values = np.where(steps >= RISES[optimizer], 0.95 + 0.001 * seed, 0.5)
    return CostCurve({"optimizer": optimizer, "seed": seed}, seed, steps, values, steps * 64, steps / 100)


CURVES = [curve(optimizer, seed) for optimizer in ("sgd", "adam", "never") for seed in range(3)]


def answer_to(curves):
    return why([Observation(c.config, c.seed, float(c.values[-1])) for c in curves], "val/accuracy", "max")


def test_the_fastest_configurations_come_first():
    efficiency = compare_costs(answer_to(CURVES), CURVES, 0.9)
    assert [costs.differing["optimizer"] for costs in efficiency.setups] == ["adam", "sgd"]
    assert [{axis: reach.median for axis, reach in costs.reached.items()} for costs in efficiency.setups] == [
        {"steps": 20, "samples": 1280, "seconds": 0.2},
        {"steps": 100, "samples": 6400, "seconds": 1.0},
    ]
    assert (efficiency.never, efficiency.total, efficiency.target_given) == (1, 3, True)
    assert efficiency.setups[0].area.mean > efficiency.setups[1].area.mean
    json.dumps(efficiency.as_document(), allow_nan=False)


def test_the_mean_of_a_curve_stays_within_the_bounds_of_the_metric():
    curves = [CostCurve(c.config, c.seed, c.steps, c.values + 0.048 - 0.02 * (c.seed == 0)) for c in CURVES]
    limits = [costs.area for costs in compare_costs(answer_to(curves), curves, 0.9).setups]
    assert max(area.high for area in limits) == 1.0
    assert all(area.low < area.mean < area.high for area in limits)


def test_the_default_target_is_5_percent_short_of_the_best():
    assert compare_costs(answer_to(CURVES), CURVES).target == pytest.approx(0.951 * 0.95)
    losses = [CostCurve(c.config, c.seed, c.steps, 1 - c.values) for c in CURVES]
    answer = why([Observation(c.config, c.seed, float(c.values[-1])) for c in losses], "val/loss", "min")
    assert compare_costs(answer, losses).target == pytest.approx(answer.best.interval.mean * 1.05)
    assert answer.best.interval.mean == pytest.approx(0.049, rel=1e-3)


def test_a_sentence_names_the_fastest_configuration_and_the_cost_of_the_best():
    curves = [*CURVES, *(CostCurve({"optimizer": "late", "seed": s}, s, c.steps, c.values + 0.01) for s, c in enumerate(
        curve("sgd", seed) for seed in range(3)))]  # fmt: skip
    (sentence,) = cost_sentences(answer_to(curves), compare_costs(answer_to(curves), curves, 0.9))
    assert sentence == (
        "fastest to val/accuracy 0.9: adam: 20 steps (median of 3 runs); the best configuration takes 100 steps; "
        "1 of 4 configurations never reaches it"
    )
    assert cost_sentences(answer_to(CURVES), compare_costs(answer_to(CURVES), CURVES, 2.0)) == [
        "no configuration reaches val/accuracy 2"
    ]


def test_a_configuration_with_a_run_that_misses_the_target_does_not_come_first():
    curves = [curve("adam", 0), CostCurve({"optimizer": "adam", "seed": 1}, 1, *[np.zeros(0)] * 4), curve("sgd", 0)]
    efficiency = compare_costs(answer_to([CURVES[0], CURVES[3]]), curves, 0.9)
    assert [costs.differing["optimizer"] for costs in efficiency.setups] == ["sgd", "adam"]


def test_a_metric_measured_once_has_no_cost():
    once = [CostCurve(c.config, c.seed, c.steps[-1:], c.values[-1:]) for c in CURVES]
    assert compare_costs(answer_to(once), once) is None
    assert compare_costs(answer_to([]), []) is None


def test_costs_are_read_from_a_database(tmp_path: Path):
    with Writer(tmp_path / "runs.db") as writer:
        runs = start(writer, [new_run(seed, lr=0.1) for seed in range(3)])
        for run in runs[:2]:
            writer.write([
                points(run, "val/loss", {10: 1.0, 20: 0.2, 30: 0.1}),
                points(run, "samples", {10: 640.0, 20: 1280.0, 30: 1920.0}),
                points(run, "time/compute_s", {10: 0.5, 30: 1.5}),
                Finished(run.key, 1, "finished", "all epochs"),
            ])  # fmt: skip
        writer.write([Finished(runs[2].key, 1, "diverged", "non-finite train/loss at step 3")])
    with Reader(tmp_path / "runs.db") as reader:
        runs = reader.runs()
        curves = read_cost_curves(reader, runs, "val/loss", "min")
    answer = why(observe(runs, "val/loss", "min"), "val/loss", "min")
    (costs,) = compare_costs(answer, curves, 0.2).setups
    medians = {axis: reach.median for axis, reach in costs.reached.items()}
    assert medians == {"steps": 20, "samples": 1280, "seconds": 1.0}
    assert (costs.reached["steps"].reached, costs.reached["steps"].runs) == (2, 3)
    assert not math.isnan(costs.area.mean)
