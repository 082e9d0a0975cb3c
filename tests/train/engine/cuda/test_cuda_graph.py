"""The function that a CUDA graph captures equals the step of a stack; on a CPU it runs without capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn

from helpers.cuda import needs_cuda
from helpers.training import CPU, histories, run_of
from labbench.params.param import TRAINING, with_defaults
from labbench.records import Config, Event, Log, Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import load_digits
from labbench.train.engine.cuda import cuda_graph, graph_masks
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper, StepResults
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
    """A model for vmap with one dropout layer that is called twice."""

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


def make_stepper(
    engine: str, model: Callable[[Config], nn.Module], config: Config, workload: Workload
) -> StackedStepper:
    configs = [
        with_defaults({"lr": 0.02 * (1 + seed), "epochs": 3, "batch_size": 50, "seed": seed, **config}, TRAINING)
        | {"p": [0.0, 0.3, 1.0][seed]}
        for seed in range(3)
    ]
    models = [make_model(workload.task, config) for config in configs]
    members = list(map(StackMember.from_model, models, configs))
    return StackedStepper(engine, models[0], members, workload, StepCounter())


def make_workload(model: Callable[[Config], nn.Module]) -> Workload:
    task = FileTask({}, lambda config: load_digits(), model, cross_entropy, accuracy)
    return Workload(task, load_digits().to(CPU, torch.float64), 50)


def losses(stepper: Stepper, steps: int, keep_at: int) -> list[Tensor]:
    """Return losses and accuracies of each step; one batch is smaller, and step `keep_at` drops the second run."""
    stepper.train(True)
    order, results = permutations([0, 1, 2], 1, 1000, CPU), []
    for step in range(steps):
        if step == keep_at:
            stepper.keep([0, 2])
            order = order[[0, 2]]
        size = 20 if step == 5 else 50
        step_losses, metrics = stepper.step(order[:, step * 50 % 950 :][:, :size])
        results += [step_losses, metrics["accuracy"].double()]
    return results


@pytest.mark.parametrize(("engine", "model"), MODELS)
@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: config["optimizer"])
def test_the_captured_function_equals_a_step_of_the_stack(
    engine: str, model: Callable[[Config], nn.Module], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "TABLE_STEPS", 8)  # so that the tables are refilled
    workload, config = make_workload(model), {**config, "ema_decay": 0.9}
    plain, replayed = (
        make_stepper(engine, model, config, workload),
        CudaGraphStepper(make_stepper(engine, model, config, workload), 50),
    )
    for ours, theirs in zip(losses(replayed, 30, 20), losses(plain, 30, 20), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for index in range(2):
        ours_state, theirs_state = replayed.state(index), plain.state(index)
        assert theirs_state.averages
        for ours_tensors, theirs_tensors in (
            (ours_state.tensors, theirs_state.tensors),
            (ours_state.averages, theirs_state.averages),
        ):
            for name, tensor in theirs_tensors.items():
                torch.testing.assert_close(ours_tensors[name], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("engine", "model"), MODELS)
@pytest.mark.parametrize("elements", [1, 5000])
def test_tables_of_few_steps_give_the_same_masks(
    engine: str, model: Callable[[Config], nn.Module], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_graph, "TABLE_STEPS", 8)
    monkeypatch.setattr(graph_masks, "MAX_TABLE_ELEMENTS", elements)  # of one step, or of two
    workload = make_workload(model)
    plain, replayed = (
        make_stepper(engine, model, {}, workload),
        CudaGraphStepper(make_stepper(engine, model, {}, workload), 50),
    )
    for ours, theirs in zip(losses(replayed, 14, 9), losses(plain, 14, 9), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_stack_that_cannot_be_captured_trains_without_a_graph_and_logs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"epochs": 2, "hidden": [8], "optimizer": "adam", "dropout": 0.2}

    def train_events() -> list[Event]:
        members = [run_of({**config, "seed": seed}, str(seed)) for seed in range(2)]
        stack = make_stack(members, task="digits", stop=None, runtime=Runtime(precision="float64"))
        return list(train(stack, load_task("digits"), "cpu"))

    plain = train_events()
    monkeypatch.setattr(arrange, "can_capture", lambda workload: True)  # but on a CPU the capture fails
    events = train_events()
    logs = [event for event in events if isinstance(event, Log)]
    assert len(logs) == 2
    assert logs[0].text.startswith("stepped without a CUDA graph, because ")
    ours, theirs = (histories(each) for each in (events, plain))
    for key, history in theirs.items():
        assert ours[key].started == history.started
        assert ours[key].curves["train/loss"] == history.curves["train/loss"]


def test_a_stack_whose_second_capture_fails_continues_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = make_workload(mlp)
    plain, replayed = (
        make_stepper("stacked", mlp, {}, workload),
        CudaGraphStepper(make_stepper("stacked", mlp, {}, workload), 50),
    )
    keep = replayed.keep

    def keep_captured(indices: list[int]) -> None:
        replayed._graph = object()  # type: ignore[assignment]  # as if the first capture had succeeded
        keep(indices)  # a capture fails on a CPU
        assert replayed._graph is None

    monkeypatch.setattr(replayed, "keep", keep_captured)
    for ours, theirs in zip(losses_until_keep(replayed), losses_until_keep(plain), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def losses_until_keep(stepper: Stepper) -> list[Tensor]:
    """Return losses of steps after the second run is dropped."""
    stepper.train(True)
    stepper.keep([0, 2])
    order = permutations([0, 2], 1, 1000, CPU)
    return [stepper.step(batch)[0] for batch in order[:, :200].split(50, dim=1)]


def test_results_of_a_step_survive_the_next_step() -> None:
    workload = make_workload(mlp)
    replayed = CudaGraphStepper(make_stepper("stacked", mlp, {}, workload), 50)
    first, second = losses(replayed, 2, 9)[::2]
    assert not torch.equal(first, second)


def test_restoring_tensors_keeps_their_addresses() -> None:
    workload = make_workload(mlp)
    ours = make_stepper("stacked", mlp, {"optimizer": "adam"}, workload)
    losses(ours, 3, 9)
    tensors = ours.tensors()
    values: list[Any] = [tensor.clone() for tensor in tensors]
    restore = cuda_graph.make_restore(tensors)
    losses(ours, 3, 9)
    assert not torch.equal(tensors[0], values[0])
    restore()
    assert [tensor.data_ptr() for tensor in ours.tensors()] == [tensor.data_ptr() for tensor in tensors]
    assert all(torch.equal(tensor, value) for tensor, value in zip(ours.tensors(), values, strict=True))


def test_one_copy_keeps_losses_and_metrics_of_any_dtype() -> None:
    losses = torch.rand(3, 5)
    metrics = {"right": losses > 0.5, "count": torch.arange(15).view(3, 5), "wide": losses.double() / 3}
    results = StepResults((losses, metrics))
    results.write((losses, metrics))
    copied_losses, copied = results.copy()
    results.write((losses * 0, {name: values * 0 for name, values in metrics.items()}))
    assert torch.equal(copied_losses, losses)
    assert copied.keys() == metrics.keys()
    for name, values in metrics.items():
        torch.testing.assert_close(copied[name], values, rtol=0, atol=0)


@needs_cuda
@pytest.mark.parametrize(("engine", "model"), MODELS)
@pytest.mark.parametrize("config", OPTIMIZERS[:4], ids=lambda config: config["optimizer"])
def test_a_replayed_graph_gives_the_results_of_the_stack(
    engine: str, model: Callable[[Config], nn.Module], config: Config
) -> None:
    cuda = torch.device("cuda:0")
    workload = Workload(make_workload(model).task, load_digits().to(cuda, torch.float64), 50, Precision())
    plain, replayed = (
        make_stepper(engine, model, config, workload),
        CudaGraphStepper(make_stepper(engine, model, config, workload), 50),
    )
    plain.train(True)
    replayed.train(True)
    replayed.capture()
    order = permutations([0, 1, 2], 1, 1000, cuda)
    for batch in order.split(50, dim=1):
        torch.testing.assert_close(replayed.step(batch)[0], plain.step(batch)[0], rtol=1e-10, atol=1e-12)
