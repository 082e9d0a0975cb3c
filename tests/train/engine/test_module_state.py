"""Random numbers and state outside tensors are seeded and saved, or reported; runs of a stack never share them."""

from __future__ import annotations

import dataclasses
import logging
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F
from torch import Tensor, nn

from helpers.training import histories, run_of
from labbench.records import Boundary, Event, Log, Runtime, Started
from labbench.runner.planner import make_stack
from labbench.train.active_runs import StopRequests
from labbench.train.data.dataset import Data
from labbench.train.loop import train
from labbench.train.rng import seeded_generators
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask

CHECKPOINT_EVERY_EPOCH = Runtime(snapshot_every=0.0)


def make_task(model: Callable[[], nn.Module]) -> FileTask:
    with seeded_generators(1):
        inputs = torch.randn(80, 6)
    targets = inputs[:, :3].argmax(1)
    data = Data((inputs[:48], targets[:48]), (inputs[48:64], targets[48:64]), (inputs[64:], targets[64:]))
    return FileTask(
        params={}, data=lambda config: data, model=lambda config: model(), loss=cross_entropy, metrics=accuracy
    )


def train_events(
    task: FileTask, count: int = 2, runtime: Runtime = CHECKPOINT_EVERY_EPOCH, **options: Any
) -> list[Event]:
    configs = [{"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": seed} for seed in range(count)]
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    return list(train(make_stack(runs, task="", stop=None, runtime=runtime, **options), task, "cpu"))


def curves(events: list[Event]) -> dict[str, Any]:
    return {
        key: {metric: curve for metric, curve in history.curves.items() if metric != "time/compute_s"}
        for key, history in histories(events).items()
    }


def logs(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Log)]


def engines(events: list[Event]) -> set[str]:
    return {event.way for event in events if isinstance(event, Started)}


class Net(nn.Module):
    """Two layers; subclasses define what happens between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.last(self.between(self.first(inputs).relu()))
        return scores


class PythonDraws(Net):
    def between(self, x: Tensor) -> Tensor:
        return x if random.random() > 0.3 else 2 * x


class NumpyDraws(Net):
    def between(self, x: Tensor) -> Tensor:
        return x * float(np.random.rand())


class TorchDraws(Net):
    def between(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, training=True)


@pytest.mark.parametrize("model", [PythonDraws, NumpyDraws, TorchDraws])
def test_random_numbers_in_a_forward_are_seeded_for_every_generator(model: type[Net]) -> None:
    first = train_events(make_task(model))
    random.random(), np.random.rand(), torch.rand(1)
    second = train_events(make_task(model))
    assert curves(first) == curves(second)
    assert "test/loss" in curves(first)["0"]
    assert set(logs(first)) == {"trained alone, because its forward draws random numbers\n"}
    assert curves(first)["1"] == {**curves(train_seed(make_task(model), 1))["0"]}


def train_seed(task: FileTask, seed: int) -> list[Event]:
    run = run_of({"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": seed}, "0")
    return list(train(make_stack([run], task="", stop=None, runtime=CHECKPOINT_EVERY_EPOCH), task, "cpu"))


class Counter(Net):
    """State in a counter that scales the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def between(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return x / (1 + 0.1 * self.calls)


class Average(Net):
    """State in a moving average that is not a buffer, created by the first forward."""

    def between(self, x: Tensor) -> Tensor:
        if self.training:
            mean = x.detach().mean(0)
            self.average = 0.9 * self.average + 0.1 * mean if hasattr(self, "average") else mean
        return x - self.average


class Meter:
    def __init__(self) -> None:
        self.sum, self.recent = 0.0, deque(maxlen=3)  # type: tuple[float, deque[float]]

    def add(self, value: float) -> float:
        self.sum += value
        self.recent.append(value)
        return self.sum / 100 + sum(self.recent)


class Nested(Net):
    """State in an object, a dict, an array and generators."""

    def __init__(self) -> None:
        super().__init__()
        self.meter, self.seen = Meter(), {"by": {3: [0.0]}, "array": np.zeros(2)}  # type: tuple[Meter, dict[str, Any]]
        self.rng, self.python = np.random.default_rng(5), random.Random(3)

    def between(self, x: Tensor) -> Tensor:
        self.seen["by"][3].append(float(x.detach().mean()))
        self.seen["array"] += 1
        scale = 1 + self.rng.random() + self.python.random() + sum(self.seen["by"][3]) + self.seen["array"].sum() / 100
        return x / (scale + self.meter.add(float(x.detach().std())))


class Scale:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x / (1 + 0.1 * self.calls)


class CallableObject(Net):
    """State in an object that is called like a function."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def between(self, x: Tensor) -> Tensor:
        return self.scale(x)


class LazyBuffer(Net):
    """State in a buffer that the first forward creates."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", None)
        self.scale: Tensor | None

    def between(self, x: Tensor) -> Tensor:
        self.scale = x.detach().std() if self.scale is None else 0.9 * self.scale + 0.1 * x.detach().std()
        return x / self.scale


def train_with_interruption(task: FileTask, files: Path) -> tuple[list[Event], list[Event]]:
    """Train a run, interrupt it after its first epoch and resume it; return the events before and after."""
    run = run_of({"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": 0}, "0")
    stack = make_stack([run], task="", stop=None, runtime=CHECKPOINT_EVERY_EPOCH, files=str(files))
    stop_requests = StopRequests()
    before: list[Event] = []
    step = 0
    for event in train(stack, task, "cpu", stop_requests):
        before.append(event)
        if isinstance(event, Boundary):
            step = event.step
            stop_requests.request(["0"])
    assert 0 < step < 9
    resumed = dataclasses.replace(run, boundary=step, way="loop", attempt=2)
    return before, list(train(dataclasses.replace(stack, runs=(resumed,)), task, "cpu"))


@pytest.mark.parametrize("model", [Counter, Average, Nested, CallableObject, LazyBuffer, PythonDraws])
def test_state_outside_tensors_is_resumed_bit_for_bit(model: type[Net], tmp_path: Path) -> None:
    whole = curves(train_events(make_task(model), 1))["0"]
    before, after = train_with_interruption(make_task(model), tmp_path)
    assert logs([*before, *after]) == []
    first, second = curves(before)["0"], curves(after)["0"]
    assert {metric: first.get(metric, {}) | curve for metric, curve in second.items()} == whole


class WithSlots:
    __slots__ = ("value",)


class Unsaveable(Net):
    def __init__(self) -> None:
        super().__init__()
        self.value = WithSlots()

    def between(self, x: Tensor) -> Tensor:
        self.value = WithSlots()
        return x


def test_state_that_no_checkpoint_can_hold_is_reported_once(tmp_path: Path) -> None:
    before, _ = train_with_interruption(make_task(Unsaveable), tmp_path)
    (message,) = logs(before)
    assert message.startswith("self.value changed in training and cannot be saved")


def test_a_checkpoint_sets_user_attributes_of_modules_only(tmp_path: Path) -> None:
    """A checkpoint from elsewhere must not replace methods or registered tensors."""
    from labbench.train.engine.module_state import Attributes, AttributeTracker

    model = Counter()
    AttributeTracker(model).restore(Attributes({"calls": 3, "_modules": {}, "first._parameters": {}, "no.such": 1}))
    assert model.calls == 3
    assert len(list(model.parameters())) == 4
    AttributeTracker(model).restore(Attributes({"forward": 1, "between": 2, "__class__": 3}))
    assert model(torch.zeros(2, 6)).shape == (2, 3)


@pytest.mark.parametrize(
    ("model", "reason"),
    [(Counter, "self.calls carries state"), (Average, "self.average carries state")],
)
def test_runs_whose_modules_carry_state_are_not_stacked(model: type[Net], reason: str) -> None:
    events = train_events(make_task(model), 3)
    assert engines(events) == {"loop"}
    assert len(logs(events)) == 3
    assert all(reason in text for text in logs(events))


class StoresActivations(Net):
    """Stores its activations for inspection."""

    def between(self, x: Tensor) -> Tensor:
        self.activations = x
        return x


class Logging(Net):
    """Has a logger as attribute, whose state changes."""

    def __init__(self) -> None:
        super().__init__()
        self.logger = logging.getLogger("a net")

    def between(self, x: Tensor) -> Tensor:
        self.logger.debug("between")
        return x


def test_a_logger_is_not_state(tmp_path: Path) -> None:
    before, after = train_with_interruption(make_task(Logging), tmp_path)
    assert logs([*before, *after]) == []


def test_tensors_stored_for_inspection_do_not_prevent_a_stack() -> None:
    events = train_events(make_task(StoresActivations), 3)
    assert "vmap" in engines(events)
    assert logs(events) == []
