"""Complex weights and sparse gradients train as in plain torch, or are refused with the reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import CPU, histories, raise_failure, run_of
from labbench.errors import InputError
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Boundary, Event, Log, Runtime, Started
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests
from labbench.train.data.dataset import Data
from labbench.train.engine.optimizers import make_optimizer
from labbench.train.loop import train
from labbench.train.rng import seeded_generators
from labbench.train.tasks.task import FileTask, make_model

FLOAT32, FLOAT64 = Runtime(snapshot_every=0.0), Runtime(precision="float64", snapshot_every=0.0)


class Spectral(nn.Module):
    """Model with complex weights (Fourier coefficients) and a complex buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.out = nn.Linear(1, 3), nn.Linear(3, 1)
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.cfloat))
        self.register_buffer("phase", torch.exp(1j * torch.randn(3, 4)))

    def forward(self, inputs: Tensor) -> Tensor:
        modes = torch.fft.rfft(self.lift(inputs.unsqueeze(2)).transpose(1, 2))[..., :4]  # (N, 3, 4)
        values: Tensor = torch.fft.irfft(modes * self.weight * self.phase, n=12).transpose(1, 2)
        outputs: Tensor = self.out(values.relu()).squeeze(2)
        return outputs


def signals() -> FileTask:
    """Task of shifting a signal by three positions, which needs phases."""
    with seeded_generators(1):
        inputs = torch.randn(80, 12)
    targets = inputs.roll(3, -1)
    return FileTask(
        params={},
        data=lambda config: Data((inputs[:64], targets[:64]), (inputs[64:], targets[64:])),
        model=lambda config: Spectral(),
        loss=lambda outputs, targets: ((outputs - targets) ** 2).mean(1),
        metrics=lambda outputs, targets: {},
    )


def words(sparse: bool = True, **options: Any) -> FileTask:
    with seeded_generators(2):
        inputs = torch.randint(40, (80, 5))
    targets = inputs.sum(1) % 3
    return FileTask(
        params={},
        data=lambda config: Data((inputs[:64], targets[:64]), (inputs[64:], targets[64:])),
        model=lambda config: nn.Sequential(
            nn.Embedding(40, 4, sparse=sparse, **options), nn.Flatten(), nn.Linear(20, 3)
        ),
        loss=lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none"),
        metrics=lambda outputs, targets: {},
    )


def events_of(task: FileTask, configs: list[dict[str, Any]], runtime: Runtime = FLOAT32, **options: Any) -> list[Event]:
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    return list(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu", **options))


def plain_loop_loss(task: FileTask, config: dict[str, Any], dtype: Any) -> float:
    """Return the validation loss after the same training in a plain torch loop."""
    config = with_defaults(config, TRAINING)
    data: Any = task.data(config)
    data, model = data.to(CPU, dtype), make_model(task, config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype.to_complex() if parameter.is_complex() else dtype)
    for name, buffer in model.named_buffers():
        setattr(model, name, buffer.to(dtype.to_complex()))
    optimizer = make_optimizer(config, model.parameters(), torch.device("meta"))  # not fused
    for epoch in range(1, config["epochs"] + 1):
        for batch in data.batches([config["seed"]], epoch, config["batch_size"]):
            inputs, targets = data.gather(batch[0])
            optimizer.zero_grad()
            task.loss(model(inputs), targets).mean().backward()
            optimizer.step()
    with torch.no_grad():
        loss: float = task.loss(model(data.val[0]), data.val[1]).mean().item()
    return loss


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad"])
def test_complex_weights_train_as_in_a_plain_loop(optimizer: str) -> None:
    configs = [{"epochs": 4, "batch_size": 16, "lr": 0.01, "optimizer": optimizer, "seed": seed} for seed in range(2)]
    events = events_of(signals(), configs, FLOAT64)
    for key, history in histories(events).items():
        assert history.last("val/loss") == pytest.approx(
            plain_loop_loss(signals(), configs[int(key)], torch.float64), rel=1e-12
        )
    assert {e.text for e in events if isinstance(e, Log)} == {"trained alone, because its weight is complex\n"}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_sparse_gradients_train_as_in_a_plain_loop(optimizer: str, momentum: float) -> None:
    update = {"optimizer": optimizer, "momentum": momentum, "nesterov": momentum > 0}
    configs = [{"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": seed, **update} for seed in range(2)]
    events = events_of(words(), configs, FLOAT64)
    for key, history in histories(events).items():
        assert history.last("val/loss") == pytest.approx(
            plain_loop_loss(words(), configs[int(key)], torch.float64), rel=1e-12
        )
    logs = {event.text for event in events if isinstance(event, Log)}
    assert logs == {"trained alone, because the gradient of its 0.weight is sparse\n"}


@pytest.mark.parametrize("update", [{"optimizer": "adam"}, {"weight_decay": 0.1}, {"clip": 1.0}])
def test_options_that_cannot_take_sparse_gradients_are_refused_with_the_parameter(update: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"does not support the sparse gradient of 0.weight: use nn.Embedding\(sp"):
        raise_failure(events_of(words(), [{"epochs": 1, "seed": seed, **update} for seed in range(2)]))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("runtime", [FLOAT32, FLOAT64])
@pytest.mark.parametrize(
    ("task", "update"),
    [
        (signals(), {"optimizer": "adam", "lr": 0.01}),
        (words(), {"momentum": 0.9, "nesterov": True}),
        (words(), {"optimizer": "adagrad", "lr": 0.1}),
    ],
)
def test_complex_and_sparse_runs_resume_bit_equal(
    task: FileTask, update: dict[str, Any], runtime: Runtime, tmp_path: Path
) -> None:
    run = run_of({"epochs": 4, "batch_size": 16, **update})
    stack = make_stack([run], task="", stop=None, runtime=runtime, files=str(tmp_path))
    whole = histories(train(dataclasses.replace(stack, files=None), task, "cpu"))[run.key]
    stop_requests = StopRequests()
    step = 0
    for event in train(stack, task, "cpu", stop_requests):
        if isinstance(event, Boundary):
            step = event.step
            stop_requests.request([run.key])
    assert 0 < step < 16
    again = dataclasses.replace(run, boundary=step, way="loop", attempt=2)
    events = list(train(dataclasses.replace(stack, runs=(again,)), task, "cpu"))
    assert {event.way for event in events if isinstance(event, Started)} == {"loop"}
    assert histories(events)[run.key].last("val/loss") == whole.last("val/loss")


def test_complex_losses_are_refused() -> None:
    task = dataclasses.replace(signals(), loss=lambda outputs, targets: torch.fft.fft(outputs - targets).sum(1))
    with pytest.raises(InputError, match="one real number per sample"):
        raise_failure(events_of(task, [{"epochs": 1}]))


def test_mean_metric_is_refused_with_the_change_to_make() -> None:
    task = dataclasses.replace(signals(), metrics=lambda outputs, targets: {"mae": (outputs - targets).abs().mean()})
    with pytest.raises(InputError, match=r"leave out \.mean\(\), since labbench averages the values"):
        raise_failure(events_of(task, [{"epochs": 1}]))
