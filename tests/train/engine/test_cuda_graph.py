"""What a CUDA graph of a stack's step captures is a stack's step; here it runs as it is, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from helpers.training import CPU, histories, run_of
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Config, Event, Log, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import load_digits
from labbench.train.engine import cuda_graph
from labbench.train.engine.cuda_graph import CudaGraphStepper
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.grouping import arrange
from labbench.train.loop import train
from labbench.train.precision import Precision
from labbench.train.rng import permutations
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, load_task, make_model

OPTIMIZERS: list[Config] = [
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "clip": 0.5},
    {"optimizer": "adam", "schedule": "cosine", "warmup": 4},
    {"optimizer": "adamw", "weight_decay": 0.1, "schedule": "onecycle"},
    {"optimizer": "rmsprop", "label_smoothing": 0.1},
    {"optimizer": "adagrad", "weight_decay": 0.01},
]


def mlp(config: Config) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(config["p"]), nn.Linear(16, 10)
    )


def cnn(config: Config) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.Dropout2d(config["p"]), nn.Flatten(), nn.Linear(108, 10)
    )


class Residual(nn.Module):
    """One dropout layer that is called twice, by vmap."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 15), nn.Linear(15, 15), nn.Linear(15, 10)
        self.dropout = nn.Dropout(p)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.dropout(torch.relu(self.first(inputs.flatten(1))))
        scores: Tensor = self.head(x + self.dropout(self.second(x)))
        return scores


MODELS: list[tuple[str, Callable[[Config], nn.Module]]] = [
    ("stacked", mlp),
    ("stacked", cnn),
    ("vmap", lambda config: Residual(config["p"])),
]


def stack(way: str, model: Callable[[Config], nn.Module], given: Config, workload: Workload) -> StackedStepper:
    configs = [
        with_defaults({"lr": 0.02 * (1 + seed), "epochs": 3, "batch_size": 50, "seed": seed, **given}, TRAINING)
        | {"p": [0.0, 0.3, 1.0][seed]}
        for seed in range(3)
    ]
    models = [make_model(workload.task, config) for config in configs]
    members = list(map(StackMember.from_model, models, configs))
    return StackedStepper(way, models[0], members, workload, StepCounter())


def lesson_with(model: Callable[[Config], nn.Module]) -> Workload:
    task = FileTask({}, lambda config: load_digits(), model, cross_entropy, accuracy)
    return Workload(task, load_digits().to(CPU, torch.float64), 50)


def losses(stepper: Stepper, steps: int, keep_at: int) -> list[Tensor]:
    """Of each step, a smaller batch among them, and after `keep_at` steps without the second run."""
    stepper.train(True)
    order, found = permutations([0, 1, 2], 1, 1000, CPU), []
    for step in range(steps):
        if step == keep_at:
            stepper.keep([0, 2])
            order = order[[0, 2]]
        size = 20 if step == 5 else 50
        measured, metrics = stepper.step(order[:, step * 50 % 950 :][:, :size])
        found += [measured, metrics["accuracy"].double()]
    return found


@pytest.mark.parametrize(("way", "model"), MODELS)
@pytest.mark.parametrize("given", OPTIMIZERS, ids=lambda given: given["optimizer"])
def test_the_captured_function_is_a_step_of_the_stack(
    way: str, model: Callable[[Config], nn.Module], given: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "TABLE_STEPS", 8)  # so that the tables are filled several times
    workload = lesson_with(model)
    plain, replayed = stack(way, model, given, workload), CudaGraphStepper(stack(way, model, given, workload), 50)
    for ours, theirs in zip(losses(replayed, 30, 20), losses(plain, 30, 20), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for index in range(2):
        ours_state, theirs_state = replayed.state(index), plain.state(index)
        for name, tensor in theirs_state.tensors.items():
            torch.testing.assert_close(ours_state.tensors[name], tensor, rtol=1e-10, atol=1e-12)


def test_where_a_step_cannot_be_captured_the_stack_trains_without_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"epochs": 2, "hidden": [8], "optimizer": "adam", "dropout": 0.2}

    def told() -> list[Event]:
        members = [run_of({**config, "seed": seed}, str(seed)) for seed in range(2)]
        made = make_stack(members, task="digits", stop=None, runtime=Runtime(precision="float64"))
        return list(train(made, load_task("digits"), "cpu"))

    plain = told()
    monkeypatch.setattr(arrange, "can_capture", lambda workload: True)  # which a CPU's step cannot be
    events = told()
    logs = [event for event in events if isinstance(event, Log)]
    assert len(logs) == 1
    assert logs[0].text.startswith("stepped without a CUDA graph, because ")
    ours, theirs = (histories(each) for each in (events, plain))
    for key, history in theirs.items():
        assert ours[key].started == history.started
        assert ours[key].curves["train/loss"] == history.curves["train/loss"]


def test_what_a_step_measured_stays_when_the_next_one_is_done() -> None:
    workload = lesson_with(mlp)
    replayed = CudaGraphStepper(stack("stacked", mlp, {}, workload), 50)
    first, second = losses(replayed, 2, 9)[::2]
    assert not torch.equal(first, second)


def test_tensors_are_given_their_values_back_where_they_are() -> None:
    workload = lesson_with(mlp)
    ours = stack("stacked", mlp, {"optimizer": "adam"}, workload)
    losses(ours, 3, 9)
    tensors = ours.tensors()
    values: list[Any] = [tensor.clone() for tensor in tensors]
    undo = cuda_graph.make_restore(tensors)
    losses(ours, 3, 9)
    assert not torch.equal(tensors[0], values[0])
    undo()
    assert [tensor.data_ptr() for tensor in ours.tensors()] == [tensor.data_ptr() for tensor in tensors]
    assert all(torch.equal(tensor, value) for tensor, value in zip(ours.tensors(), values, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("way", "model"), MODELS)
@pytest.mark.parametrize("given", OPTIMIZERS[:4], ids=lambda given: given["optimizer"])
def test_a_graph_gives_the_numbers_of_the_stack(way: str, model: Callable[[Config], nn.Module], given: Config) -> None:
    cuda = torch.device("cuda:0")
    workload = Workload(lesson_with(model).task, load_digits().to(cuda, torch.float64), 50, Precision())
    plain, replayed = stack(way, model, given, workload), CudaGraphStepper(stack(way, model, given, workload), 50)
    plain.train(True)
    replayed.train(True)
    replayed.capture()
    order = permutations([0, 1, 2], 1, 1000, cuda)
    for batch in order.split(50, dim=1):
        torch.testing.assert_close(replayed.step(batch)[0], plain.step(batch)[0], rtol=1e-10, atol=1e-12)
