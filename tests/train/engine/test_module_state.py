"""Random numbers and state outside tensors: seeded and saved, or named; never shared between runs of a stack."""

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

OFTEN = Runtime(snapshot_every=0.0)


def task_of(model: Callable[[], nn.Module]) -> FileTask:
    with seeded_generators(1):
        inputs = torch.randn(80, 6)
    targets = inputs[:, :3].argmax(1)
    data = Data((inputs[:48], targets[:48]), (inputs[48:64], targets[48:64]), (inputs[64:], targets[64:]))
    return FileTask(
        params={}, data=lambda config: data, model=lambda config: model(), loss=cross_entropy, metrics=accuracy
    )


def events_of(task: FileTask, count: int = 2, runtime: Runtime = OFTEN, **given: Any) -> list[Event]:
    configs = [{"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": seed} for seed in range(count)]
    runs = [run_of(config, str(number)) for number, config in enumerate(configs)]
    return list(train(make_stack(runs, task="", stop=None, runtime=runtime, **given), task, "cpu"))


def curves(events: list[Event]) -> dict[str, Any]:
    found = histories(events)
    return {key: {m: c for m, c in h.curves.items() if m != "time/compute_s"} for key, h in found.items()}


def logs(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Log)]


def ways(events: list[Event]) -> set[str]:
    return {event.way for event in events if isinstance(event, Started)}


class Net(nn.Module):
    """Two layers, of which a subclass changes what lies between them."""

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
def test_random_numbers_in_a_forward_are_seeded_whichever_generator_draws_them(model: type[Net]) -> None:
    first = events_of(task_of(model))
    random.random(), np.random.rand(), torch.rand(1)
    second = events_of(task_of(model))
    assert curves(first) == curves(second)
    assert "test/loss" in curves(first)["0"]
    assert logs(first) == ["trained alone, because its forward draws random numbers\n"]
    assert curves(first)["1"] == {**curves(events_of_seed(task_of(model), 1))["0"]}


def events_of_seed(task: FileTask, seed: int) -> list[Event]:
    run = run_of({"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": seed}, "0")
    return list(train(make_stack([run], task="", stop=None, runtime=OFTEN), task, "cpu"))


class Counter(Net):
    """A counter that scales the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def between(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return x / (1 + 0.1 * self.calls)


class Average(Net):
    """A moving average that is no buffer, made when it is first needed."""

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
    """State in an object, a dict, an array and a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.meter, self.seen = Meter(), {"by": {3: [0.0]}, "array": np.zeros(2)}  # type: tuple[Meter, dict[str, Any]]
        self.rng, self.python = np.random.default_rng(5), random.Random(3)

    def between(self, x: Tensor) -> Tensor:
        self.seen["by"][3].append(float(x.detach().mean()))
        self.seen["array"] += 1
        scale = 1 + self.rng.random() + self.python.random() + sum(self.seen["by"][3]) + self.seen["array"].sum() / 100
        return x / (scale + self.meter.add(float(x.detach().std())))


class Lazy(Net):
    """A buffer that the first forward makes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", None)
        self.scale: Tensor | None

    def between(self, x: Tensor) -> Tensor:
        self.scale = x.detach().std() if self.scale is None else 0.9 * self.scale + 0.1 * x.detach().std()
        return x / self.scale


def interrupted(task: FileTask, files: Path) -> tuple[list[Event], list[Event]]:
    """Train one run, interrupted after its first epoch and resumed; the events before and after."""
    run = run_of({"epochs": 3, "batch_size": 16, "lr": 0.1, "seed": 0}, "0")
    stack = make_stack([run], task="", stop=None, runtime=OFTEN, files=str(files))
    stop_requests = StopRequests()
    before: list[Event] = []
    step = 0
    for event in train(stack, task, "cpu", stop_requests):
        before.append(event)
        if isinstance(event, Boundary):
            step = event.step
            stop_requests.request(["0"])
    assert 0 < step < 9
    again = dataclasses.replace(run, boundary=step, way="loop", attempt=2)
    return before, list(train(dataclasses.replace(stack, runs=(again,)), task, "cpu"))


@pytest.mark.parametrize("model", [Counter, Average, Nested, Lazy, PythonDraws])
def test_state_outside_tensors_is_resumed_bit_for_bit(model: type[Net], tmp_path: Path) -> None:
    whole = curves(events_of(task_of(model), 1))["0"]
    before, after = interrupted(task_of(model), tmp_path)
    assert logs([*before, *after]) == []
    first, second = curves(before)["0"], curves(after)["0"]
    assert {metric: first.get(metric, {}) | curve for metric, curve in second.items()} == whole


class Opaque:
    __slots__ = ("value",)


class Unsaved(Net):
    def __init__(self) -> None:
        super().__init__()
        self.held = Opaque()

    def between(self, x: Tensor) -> Tensor:
        self.held = Opaque()
        return x


def test_state_that_no_snapshot_can_hold_is_named_once(tmp_path: Path) -> None:
    before, _ = interrupted(task_of(Unsaved), tmp_path)
    (sentence,) = logs(before)
    assert sentence.startswith("self.held changed in training and cannot be saved")


def test_a_snapshot_sets_attributes_of_modules_and_nothing_else(tmp_path: Path) -> None:
    """A file from elsewhere must not replace what is called."""
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
    events = events_of(task_of(model), 3)
    assert ways(events) == {"loop"}
    assert len(logs(events)) == 1
    assert reason in logs(events)[0]


class Looked(Net):
    """Keeps what it computed for a person to look at."""

    def between(self, x: Tensor) -> Tensor:
        self.activations = x
        return x


class Logging(Net):
    """Speaks to a logger, which changes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.logger = logging.getLogger("a net")

    def between(self, x: Tensor) -> Tensor:
        self.logger.debug("between")
        return x


def test_a_logger_is_no_state(tmp_path: Path) -> None:
    before, after = interrupted(task_of(Logging), tmp_path)
    assert logs([*before, *after]) == []


def test_tensors_kept_to_be_looked_at_do_not_prevent_a_stack() -> None:
    events = events_of(task_of(Looked), 3)
    assert "vmap" in ways(events)
    assert logs(events) == []
