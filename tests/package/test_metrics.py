"""Ranking of metrics: metrics of quality, validation first."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.store_samples import points, start
from labbench import records
from labbench.cli.showing.columns import run_columns
from labbench.metrics import charted_metrics, default_goal, is_quality, quality_metrics, unknown_metric
from labbench.records import MetricSummary, RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.tui.queries import default_metric


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


LOWER = """
    val/rmse val/nll ppl eval/wer cer fid val_err MSELoss val/bpb latency_ms eer brier val_kl rmsle mape smape logloss
    log_loss train/ce bce hinge valLoss elbo_loss regret top1_err dead/1.linear gap/accuracy val.rmse testWER valRMSE
    crossentropy cross_entropy bits_per_byte bits_per_char neg_log_likelihood negative_log_likelihood mean_rank val/per
    val/l1 smooth_l1 edit_distance false_positive_rate word_error_rate eval/perplexity mean_squared_error
    meanAbsoluteError valloss kl_divergence KLDivergence ECE lpips eval_bpc crps miss_rate Loss/train d_loss
    calibration_error minADE rmse_val loss_per_token td_error reconstruction_loss test.MAPE val/cost
    abs_rel depth/AbsRel sq-rel davies_bouldin val_MAEs recon val/reconstruction invalid_rate misclassified
    word_perplexity,none bits_per_byte,none val-loss loss.dev FID-50k fid50k_full HD95 rel_l2
    bits/dim min_tdcf MedAE rpe WAPE RMSSE silog hallucination_rate levenshtein crash_rate max_drawdown neg_elbo
"""
HIGHER = """
    val/acc f1 auc r2 bleu map iou reward elbo lossless_ratio error_free_rate mrr mean_reciprocal_rank ndcg psnr ssim
    neg_mean_squared_error loss_reduction log_likelihood top5_acc dice val/accuracy rouge1 success_rate return win_rate
    episode_reward_mean tokens_per_second throughput pearson recall@10 precision score exact_match
    acc,none hellaswag/acc_norm acc_norm,none explained_variance clip_score metrics/mAP50-95(B) IS rouge-L top-1
    recon_psnr fraction_correct rollout/ep_len_mean tokens_per_sec eval/samples_per_sec
"""
NEUTRAL = """
    lr epoch grad_norm train/grad_norm gpu_memory memory time time/compute_s learning_rate learningRate lr-Adam/pg1
    system/cpu global_step trainer/global_step samples grad_norm/0.linear loss_scale kl_weight policy/entropy momentum
    weight_decay _timestamp train_runtime weight_norm batch_size epoch_time
    gpu_mem_gb peak_mem gpu/utilization gpu.0.temp cpu_percent power_watts elapsed walltime eta_seconds params FLOPs
    train/total_flos consumed_tokens n_updates num_env_steps_sampled total_episodes temp beta1 wd_0 eps epsilon
    rollout/exploration_rate clip_fraction clip_range reward_std acc_stderr,none cur_kl_coeff gnorm bsz progress
"""


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        (metric, goal)
        for goal, names in (("min", LOWER), ("max", HIGHER), ("none", NEUTRAL))
        for metric in names.split()
    ],
)
def test_goal_of_a_metric_follows_from_the_usual_names(metric: str, goal: str) -> None:
    assert default_goal(metric) == goal


def test_metrics_of_the_trainer_are_recorded_with_their_goals(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        names = ("dead/0.linear", "grad_norm/0.linear", "gap/accuracy", "val/loss")
        writer.write([points(run, name, [1.0]) for name in names])
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.declared_goals() == dict(zip(names, ("min", "none", "min"), strict=False))


def test_the_cli_and_the_terminal_interface_choose_the_same_metric() -> None:
    names = ["accuracy", "eval_accuracy", "eval_loss", "eval_runtime", "grad_norm", "learning_rate", "loss"]
    goals = {name: default_goal(name) for name in names}
    summary = {name: MetricSummary(1, 0, None, 1.0, 1, 1.0, 1, 1.0, 1) for name in names}
    run = RunRecord(1, "k", "run", "trainer", "finished", {}, summary=summary)
    assert default_metric(goals, {}) == "eval_loss"
    columns = [column.name for column in run_columns([run], goals)]
    assert [name for name in columns if name in goals] == ["eval_loss", "eval_accuracy"]


def test_goals_are_still_importable_from_the_records() -> None:
    assert records.default_goal is default_goal


def test_an_unknown_metric_is_answered_with_some_of_the_metrics() -> None:
    names = [f"dead/{i}.relu" for i in range(90)] + ["val/loss"]
    message = str(unknown_metric("experiment=optimizers", names))
    assert "the metrics are val/loss, dead/" in message
    assert message.endswith("and 83 others; a filter follows the metric")
