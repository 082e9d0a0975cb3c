"""Ranking of metrics: metrics of quality, validation first."""

from __future__ import annotations

import pytest

from labbench.cli.tables import run_columns
from labbench.metrics import charted_metrics, is_quality, quality_metrics
from labbench.records import MetricSummary, RunRecord, default_goal
from labbench.tui.queries import Query, _fill_defaults


@pytest.mark.parametrize(
    "metric",
    [
        *(
            "lr",
            "lr-Adam/pg1",
            "learning_rate",
            "learningRate",
            "train/grad_norm",
            "grad_norm/0.linear",
            "dead/1.linear",
        ),
        *("gpu_memory", "peakMemory", "eval/runtime", "eval/samples_per_second", "_timestamp", "time/compute_s"),
        *("epoch", "train/epoch", "trainer/global_step", "samples", "num_tokens", "system/cpu"),
    ],
)
def test_learning_rates_norms_times_and_counters_are_not_metrics_of_quality(metric: str) -> None:
    assert not is_quality(metric)


@pytest.mark.parametrize(
    "metric", ["val/loss", "train_loss_step", "train_loss_epoch", "valAcc", "reward", "gap/accuracy", "test", "L2Loss"]
)
def test_losses_and_scores_are_metrics_of_quality(metric: str) -> None:
    assert is_quality(metric)


@pytest.mark.parametrize("held_out", ["val/loss", "val_loss", "eval.loss", "valLoss", "loss-dev", "VAL_LOSS"])
def test_a_validation_loss_comes_first_in_any_spelling(held_out: str) -> None:
    others = ["accuracy", "loss", "test/loss", "train/loss", "interval_loss", "lr"]
    assert quality_metrics([*others, held_out]) == [
        held_out,
        "test/loss",
        "train/loss",
        "interval_loss",
        "loss",
        "accuracy",
    ]


def test_learning_rates_and_gradient_norms_are_charted_after_metrics_of_quality() -> None:
    assert charted_metrics(["epoch", "grad_norm", "lr", "reward"]) == ["reward", "grad_norm", "lr"]


def test_the_cli_and_the_terminal_interface_choose_the_same_metric() -> None:
    names = ["accuracy", "eval_accuracy", "eval_loss", "eval_runtime", "grad_norm", "learning_rate", "loss"]
    goals = {name: default_goal(name) for name in names}
    summary = {name: MetricSummary(1, 0, None, 1.0, 1, 1.0, 1, 1.0, 1) for name in names}
    run = RunRecord(1, "k", "run", "trainer", "finished", {}, summary=summary)
    assert _fill_defaults(Query(), goals).metric == "eval_loss"
    columns = [column.name for column in run_columns([run], goals)]
    assert [name for name in columns if name in goals] == ["eval_loss", "eval_accuracy"]
