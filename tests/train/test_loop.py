"""Real training runs, on the digits and on small tasks built to fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers.cuda import needs_cuda
from helpers.training import CPU, History, histories, raise_failure, run_of, train_run
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Param, with_defaults
from labbench.records import Config, Event, Finished, Points, Runtime, Started, Stop
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests
from labbench.train.data.dataset import Data, load_digits, usable_samples
from labbench.train.engine.optimizers import make_optimizer
from labbench.train.loop import train
from labbench.train.rng import permutations
from labbench.train.tasks.task import FileTask, accuracy, cross_entropy, load_task, make_model

EXACT = Runtime(precision="float64")
SMALL = {"hidden": [16], "epochs": 2}


def test_an_mlp_learns_the_digits() -> None:
    history = train_run({"epochs": 12, "optimizer": "adam", "lr": 0.003, "batchnorm": True, "dropout": 0.2})
    assert history.last("test/accuracy") > 0.94
    assert history.last("val/accuracy") > 0.94
    assert history.last("val/loss") < 0.25
    assert history.curves["train/loss"][0] == pytest.approx(2.3, abs=0.3)


def test_a_cnn_learns_the_digits() -> None:
    history = train_run(
        {"model": "cnn", "epochs": 4, "optimizer": "adam", "lr": 0.01, "batchnorm": True, "dropout": 0.1}
    )
    assert history.last("test/accuracy") > 0.9


@pytest.mark.parametrize("pooling", ["max", "avg", "none"])
@pytest.mark.parametrize(("kernel", "channels"), [(1, [2]), (4, [2, 3]), (8, [2]), (3, [2, 2, 2, 2, 2])])
def test_every_shape_of_cnn_trains(pooling: str, kernel: int, channels: list[int]) -> None:
    config = {
        "model": "cnn",
        "kernel": kernel,
        "channels": channels,
        "pooling": pooling,
        "epochs": 1,
        "batch_size": 629,
    }
    assert train_run(config).finished == Finished("run00000", 1, "finished", "all epochs")


def test_a_run_reports_its_start_its_metrics_and_the_reason_of_its_end() -> None:
    history = train_run(SMALL)
    assert history.started is not None
    assert (history.started.device, history.started.way, history.started.attempt) == ("cpu", "loop", 1)
    assert history.finished == Finished("run00000", 1, "finished", "all epochs")
    steps = {metric: list(curve) for metric, curve in history.curves.items()}
    seconds = history.curves["time/compute_s"]
    assert steps == {
        "epoch": [0, 20, 40],
        "samples": [0, 20, 40],
        "train/loss": list(range(40)),
        "train/accuracy": [20, 40],
        "val/loss": [20, 40],
        "val/accuracy": [20, 40],
        "gap/accuracy": [20, 40],
        "time/compute_s": [20, 40],
        "test/loss": [40],
        "test/accuracy": [40],
    }
    assert history.curves["epoch"] == {0: 0, 20: 1, 40: 2}
    assert history.curves["samples"] == {0: 0, 20: 1257, 40: 2514}
    assert 0 < seconds[20] < seconds[40]


def test_only_plain_numbers_leave_the_trainer() -> None:
    stack = make_stack([run_of(SMALL)], task="digits", stop=None, runtime=Runtime())
    for event in train(stack, load_task("digits"), "cpu"):
        if isinstance(event, Points):
            assert {type(step) for step in event.steps} | {type(time) for time in event.times} == {int}
            assert {type(value) for value in event.values} == {float}


@pytest.mark.parametrize(
    "config",
    [
        {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"optimizer": "adam", "lr": 0.01, "batchnorm": True, "activation": "gelu"},
        {"optimizer": "adamw", "weight_decay": 0.1, "activation": "tanh"},
        {"optimizer": "rmsprop", "momentum": 0.5, "model": "cnn", "channels": [3], "batchnorm": True},
        {"optimizer": "adagrad", "lr": 0.1, "activation": "sigmoid", "pooling": "avg", "model": "cnn", "channels": [3]},
    ],
    ids=lambda config: config["optimizer"],
)
def test_training_equals_a_plain_torch_loop(config: dict[str, Any]) -> None:
    """Losses and validation in eval mode (with running statistics) agree to 1e-10 in float64."""
    config = {"hidden": [16, 12], "epochs": 2, "batch_size": 200, "seed": 3, **config}
    history = train_run(config, runtime=EXACT)

    full = with_defaults(config, {**TRAINING, **BUILTIN["digits"]})
    model = make_model(load_task("digits"), full).double()
    optimizer = make_optimizer(full, model.parameters(), CPU)
    data = load_digits().to(CPU, torch.float64)
    losses, validation = [], []
    for epoch in (1, 2):
        model.train()
        for batch in permutations([3], epoch, 1257, CPU)[0].split(200):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(data.train[0][batch]), data.train[1][batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            outputs = model(data.val[0])
        validation.append(F.cross_entropy(outputs, data.val[1]).item())
    correct = (outputs.argmax(dim=1) == data.val[1]).double().mean().item()

    assert list(history.curves["train/loss"].values()) == pytest.approx(losses, rel=1e-10)
    assert list(history.curves["val/loss"].values()) == pytest.approx(validation, rel=1e-10)
    assert history.last("val/accuracy") == pytest.approx(correct, rel=1e-12)


def curves(history: History) -> dict[str, dict[int, float]]:
    """Return the curves by metric, without times."""
    return {metric: curve for metric, curve in history.curves.items() if not metric.startswith("time/")}


RICH = {"hidden": [16], "epochs": 2, "optimizer": "adam", "dropout": 0.3, "batchnorm": True}


def test_the_same_seed_gives_the_same_curves_bit_for_bit() -> None:
    first = train_run({**RICH, "seed": 1})
    torch.manual_seed(12345)  # the global generator must not matter
    assert curves(train_run({**RICH, "seed": 1})) == curves(first)
    assert curves(train_run({**RICH, "seed": 2})) != curves(first)


def test_a_run_has_the_same_curves_alone_and_in_a_stack() -> None:
    configs = [{**RICH, "seed": 1}, {**RICH, "seed": 1, "lr": 0.1}, {**RICH, "seed": 2, "dropout": 0.0}]
    runs = [run_of(config, f"run{i}") for i, config in enumerate(configs)]
    stack = make_stack(runs, task="digits", stop=None, runtime=EXACT)
    together = histories(train(stack, load_task("digits"), "cpu"))
    for run, config in zip(runs, configs, strict=True):
        alone = curves(train_run(config, runtime=EXACT))
        for metric, curve in curves(together[run.key]).items():
            assert curve == pytest.approx(alone[metric], rel=1e-9)


@needs_cuda
def test_a_gpu_trains_the_same_run() -> None:
    stack = make_stack([run_of(RICH)], task="digits", stop=None, runtime=EXACT)
    history = histories(train(stack, load_task("digits"), "cuda"))["run00000"]
    on_cpu = train_run(RICH, runtime=EXACT)
    assert list(history.curves["train/loss"].values()) == pytest.approx(
        list(on_cpu.curves["train/loss"].values()), rel=1e-8
    )


def test_initial_weights_depend_on_the_seed_alone() -> None:
    """Learning rate, precision and the order of training do not change them."""
    task = load_task("digits")
    full = with_defaults({"hidden": [16], "seed": 4}, {**TRAINING, **BUILTIN["digits"]})
    first, again = make_model(task, full), make_model(task, {**full, "lr": 1.0})
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with_dropout = train_run({"hidden": [16], "seed": 4, "epochs": 1}, runtime=EXACT).curves["train/loss"][0]
    assert train_run({"hidden": [16], "seed": 4, "epochs": 1}).curves["train/loss"][0] == pytest.approx(with_dropout)


@given(st.integers(1, 300), st.integers(1, 300))
def test_an_epoch_uses_all_samples_except_a_last_batch_of_one(samples: int, batch_size: int) -> None:
    usable = usable_samples(samples, batch_size)
    sizes = [len(batch) for batch in torch.arange(usable).split(batch_size)]
    assert samples - usable in (0, 1)
    assert usable == samples or samples % batch_size == 1
    assert all(size > 1 for size in sizes) or batch_size == 1 or samples == 1


def test_batch_normalization_trains_with_a_batch_size_that_leaves_one_sample() -> None:
    history = train_run({"hidden": [8], "epochs": 1, "batch_size": 157, "batchnorm": True})
    assert history.curves["samples"] == {0: 0, 8: 1256}


def test_a_diverged_run_records_the_step_of_divergence() -> None:
    history = train_run({"hidden": [16], "epochs": 5, "lr": 1e30})
    losses = history.curves["train/loss"]
    end = list(losses)[-1]
    assert history.finished == Finished("run00000", 1, "diverged", f"non-finite train/loss at step {end}")
    assert [step for step, loss in losses.items() if loss - loss != 0] == [end]
    assert list(losses) == list(range(end + 1))
    assert end < 20
    assert set(history.curves) == {"epoch", "samples", "train/loss"}


def test_a_run_that_stops_early_or_at_its_target_is_evaluated_on_test() -> None:
    impatient = Stop("val/loss", "min", patience=1, min_delta=10)
    early = train_run({**SMALL, "epochs": 50}, stop=impatient)
    assert early.finished is not None
    assert (early.finished.status, early.finished.reason) == ("finished", "early stop")
    assert early.last("epoch") == 2
    assert "test/accuracy" in early.curves

    reached = train_run({"epochs": 50, "lr": 0.1}, stop=Stop("val/accuracy", "max", target=0.8))
    assert reached.finished is not None
    assert reached.finished.reason == "target reached"
    *before, last = reached.curves["val/accuracy"].values()
    assert last >= 0.8 > max(before, default=0)


def test_stop_can_watch_the_mean_training_loss_of_an_epoch() -> None:
    history = train_run({"epochs": 50, "lr": 0.1}, stop=Stop("train/loss", "min", target=0.5))
    losses = list(history.curves["train/loss"].values())
    means = [sum(losses[start : start + 20]) / 20 for start in range(0, len(losses), 20)]
    assert means[-1] <= 0.5 < min(means[:-1])


def test_log_every_thins_the_training_loss() -> None:
    full = train_run({"hidden": [2], "epochs": 2, "batch_size": 16})
    thinned = train_run({"hidden": [2], "epochs": 2, "batch_size": 16}, runtime=Runtime(log_every=10))
    losses = full.curves["train/loss"]
    assert thinned.curves["train/loss"] == {step: losses[step] for step in [*range(0, 158, 10), 157]}
    assert curves(full).keys() == curves(thinned).keys()


def test_runs_asked_to_stop_return_to_the_queue_at_the_end_of_their_epoch() -> None:
    stop_requests = StopRequests()
    runs = [run_of({**SMALL, "epochs": 1000, "batch_size": size}, key) for key, size in (("first", 64), ("second", 32))]
    stack = make_stack(runs, task="digits", stop=None, runtime=Runtime())

    def interrupted() -> Iterator[Event]:
        for event in train(stack, load_task("digits"), "cpu", stop_requests):
            if isinstance(event, Points):
                stop_requests.request(["first", "second"])
            yield event

    result = histories(interrupted())
    assert result["first"].finished == Finished("first", 1, "queued", "interrupted")
    assert list(result["first"].curves["train/loss"])[-1] == list(result["first"].curves["epoch"])[-1] - 1
    assert result["second"].started is None
    assert result["second"].finished == Finished("second", 1, "queued", "interrupted")


def test_points_arrive_during_a_long_epoch() -> None:
    config = {"epochs": 1, "batch_size": 1, "hidden": [512, 512]}
    stack = make_stack([run_of(config)], task="digits", stop=None, runtime=Runtime())
    events = train(stack, load_task("digits"), "cpu")
    assert isinstance(next(events), Started)
    first = next(event for event in events if isinstance(event, Points) and event.metric == "train/loss")
    assert len(first.steps) < 1257
    events.close()  # type: ignore[attr-defined]


def test_training_leaves_the_callers_generator_unchanged() -> None:
    before = torch.get_rng_state()
    train_run(RICH)
    assert torch.equal(torch.get_rng_state(), before)


# Tests with a task built for one purpose each.


def line(
    model: nn.Module | None = None,
    *,
    loss: Any = lambda outputs, targets: F.mse_loss(outputs[:, 0], targets, reduction="none"),
    metrics: Any = lambda outputs, targets: {},
    data: Any = None,
    params: Mapping[str, Param] | None = None,
) -> FileTask:
    """Return a regression task of 40 points on a line, with parts replaced by the arguments."""
    inputs = torch.linspace(-1, 1, 40)[:, None]
    points = Data(train=(inputs, 2 * inputs[:, 0] + 1), val=(inputs[:10], 2 * inputs[:10, 0] + 1))
    return FileTask(params or {}, lambda config: data or points, lambda config: model or nn.Linear(1, 1), loss, metrics)


def test_a_regression_trains_with_its_own_loss_and_without_metrics_or_test() -> None:
    history = train_run({"epochs": 60, "lr": 0.3, "batch_size": 20}, task=line())
    assert history.last("val/loss") < 1e-3
    assert set(history.curves) == {"epoch", "samples", "train/loss", "val/loss", "time/compute_s"}


def test_user_metrics_are_means_over_samples() -> None:
    def metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"mae": (outputs[:, 0] - targets).abs(), "above": outputs[:, 0] > targets}

    frozen = nn.Linear(1, 1)
    nn.init.zeros_(frozen.weight)
    nn.init.constant_(frozen.bias, 1.5)
    history = train_run({"epochs": 1, "lr": 0.0}, task=line(frozen, metrics=metrics))
    inputs = torch.linspace(-1, 1, 40)
    assert history.last("train/mae") == pytest.approx((0.5 - 2 * inputs).abs().mean().item(), rel=1e-6)
    assert history.last("train/above") == pytest.approx((2 * inputs < 0.5).double().mean().item())
    assert history.last("val/above") == 1


def test_a_nan_metric_is_recorded_and_does_not_end_the_run() -> None:
    def metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"odd": torch.full_like(targets, float("nan"))}

    history = train_run({"epochs": 2}, task=line(metrics=metrics))
    assert history.finished is not None
    assert history.finished.status == "finished"
    assert [value == value for value in history.curves["val/odd"].values()] == [False, False]


class Noisy(nn.Module):
    """Model that draws from torch's global generator in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs + 0.1 * torch.randn_like(inputs))
        return outputs


def test_a_forward_with_random_numbers_is_reproducible() -> None:
    def noisy() -> FileTask:
        return dataclasses.replace(line(), model=lambda config: Noisy())

    assert curves(train_run({"epochs": 3}, task=noisy())) == curves(train_run({"epochs": 3}, task=noisy()))


def test_all_runs_see_the_same_randomly_drawn_data() -> None:
    seen = []

    def data(config: Config) -> Data:
        inputs = torch.rand(8, 1)
        seen.append(inputs)
        return Data(train=(inputs, inputs[:, 0]), val=(inputs, inputs[:, 0]))

    for seed in (1, 2):
        train_run({"epochs": 1, "seed": seed}, task=dataclasses.replace(line(), data=data))
    assert torch.equal(*seen)


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        (
            line(loss=lambda outputs, targets: F.mse_loss(outputs[:, 0], targets)),
            r"shape \(40,\), not shape \(\); .*none",
        ),
        (
            line(loss=lambda outputs, targets: F.l1_loss(outputs, targets[:, None], reduction="none")),
            r"not shape \(40, 1\)",
        ),
        (line(metrics=lambda outputs, targets: {"mae": 0.5}), "metric 'mae' must be a tensor .* not 0.5"),
        (line(metrics=lambda outputs, targets: {"loss": targets}), "a metric named 'loss'"),
        (line(metrics=lambda outputs, targets: None), "must return a dict of tensors by name, .* not NoneType"),
        (line(metrics=lambda outputs, targets: targets), "must return a dict of tensors by name, .* not Tensor"),
        (line(loss=cross_entropy, metrics=accuracy), r"define loss\(outputs, targets\) in the task"),
        (line(data=[1, 2]), "must return a labbench.Data or labbench.Datasets, not list"),
        (dataclasses.replace(line(), model=lambda config: len), "must return a torch.nn.Module, not builtin"),
    ],
)
def test_a_task_with_unusable_outputs_is_refused_with_the_reason(task: FileTask, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        raise_failure(train(make_stack([run_of({"epochs": 1})], task="", stop=None, runtime=Runtime()), task, "cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_refused() -> None:
    stack = make_stack([run_of(SMALL)], task="digits", stop=None, runtime=Runtime())
    with pytest.raises(InputError, match="no CUDA device"):
        list(train(stack, load_task("digits"), "cuda:0"))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"float16.*use one of float32, float64, bf16"):
        train_run(SMALL, runtime=Runtime(precision="float16"))  # type: ignore[arg-type]


def test_the_generalization_gap_grows_as_random_labels_are_memorized() -> None:
    history = train_run({"epochs": 60, "optimizer": "adam", "lr": 0.01, "train_size": 50, "random_labels": True})
    trained_with, validated, gap = (history.curves[f"{name}/accuracy"] for name in ("train", "val", "gap"))
    assert gap == {step: trained_with[step] - validated[step] for step in validated}
    assert history.last("gap/accuracy") > 0.7
