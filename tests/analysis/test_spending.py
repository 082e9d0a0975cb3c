"""What set-ups cost to get to a target, told of curves whose costs are known."""

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
"""Steps after which each is above 0.9."""


def curve(optimizer: str, seed: int) -> CostCurve:
    steps = np.arange(10.0, 210.0, 10.0)
    values = np.where(steps >= RISES[optimizer], 0.95 + 0.001 * seed, 0.5)
    return CostCurve({"optimizer": optimizer, "seed": seed}, seed, steps, values, steps * 64, steps / 100)


CURVES = [curve(optimizer, seed) for optimizer in ("sgd", "adam", "never") for seed in range(3)]


def answer_to(curves):
    return why([Observation(c.config, c.seed, float(c.values[-1])) for c in curves], "val/accuracy", "max")


def test_the_quickest_come_first_with_what_they_cost():
    spent = compare_costs(answer_to(CURVES), CURVES, 0.9)
    assert [one.differing["optimizer"] for one in spent.setups] == ["adam", "sgd"]
    assert [{axis: cost.median for axis, cost in one.reached.items()} for one in spent.setups] == [
        {"steps": 20, "samples": 1280, "seconds": 0.2},
        {"steps": 100, "samples": 6400, "seconds": 1.0},
    ]
    assert (spent.never, spent.total, spent.target_given) == (1, 3, True)
    assert spent.setups[0].area.mean > spent.setups[1].area.mean
    json.dumps(spent.as_document(), allow_nan=False)


def test_the_target_is_5_percent_short_of_the_best_unless_one_is_asked_for():
    assert compare_costs(answer_to(CURVES), CURVES).target == pytest.approx(0.951 * 0.95)
    losses = [CostCurve(c.config, c.seed, c.steps, 1 - c.values) for c in CURVES]
    answer = why([Observation(c.config, c.seed, float(c.values[-1])) for c in losses], "val/loss", "min")
    assert compare_costs(answer, losses).target == pytest.approx(0.049 * 1.05)


def test_a_sentence_says_who_is_quickest_and_what_the_best_takes():
    curves = [*CURVES, *(CostCurve({"optimizer": "late", "seed": s}, s, c.steps, c.values + 0.01) for s, c in enumerate(
        curve("sgd", seed) for seed in range(3)))]  # fmt: skip
    (said,) = cost_sentences(answer_to(curves), compare_costs(answer_to(curves), curves, 0.9))
    assert said == (
        "quickest to val/accuracy 0.9: adam: 20 steps (median of 3 runs); the best set-up takes 100 steps; "
        "1 of 4 set-ups never get there"
    )
    assert cost_sentences(answer_to(CURVES), compare_costs(answer_to(CURVES), CURVES, 2.0)) == [
        "no set-up gets to val/accuracy 2"
    ]


def test_a_setup_of_which_a_run_never_gets_there_does_not_come_first():
    curves = [curve("adam", 0), CostCurve({"optimizer": "adam", "seed": 1}, 1, *[np.zeros(0)] * 4), curve("sgd", 0)]
    assert [
        one.differing["optimizer"] for one in compare_costs(answer_to([CURVES[0], CURVES[3]]), curves, 0.9).setups
    ] == [
        "sgd",
        "adam",
    ]


def test_what_is_measured_once_has_no_cost():
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
    (one,) = compare_costs(answer, curves, 0.2).setups
    assert {axis: cost.median for axis, cost in one.reached.items()} == {"steps": 20, "samples": 1280, "seconds": 1.0}
    assert (one.reached["steps"].reached, one.reached["steps"].runs) == (2, 3)
    assert not math.isnan(one.area.mean)
